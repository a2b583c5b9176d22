/* Filters on single values and texts, tests, and global functions. Those on sequences are in
 * jinja_seq.c. */
#include "model/jinja_own.h"

#include "base/unicode.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

const struct builtin *builtin_find(const struct builtin *table, size_t n,
                                   const struct value *name) {
    for (size_t i = 0; i < n; i++) {
        if (name->len && *name->s == *table[i].name && value_is(name, table[i].name)) {
            return &table[i];
        }
    }
    return NULL;
}

static bool given(const struct value *v) {
    return v->kind != V_MISSING;
}

static bool flag(const struct value *v, bool otherwise) {
    return given(v) ? value_truth(v) : otherwise;
}

static MUST number_arg(struct vm *vm, const struct call *c, int i, int64_t otherwise,
                       int64_t *out) {
    *out = otherwise;
    if (!given(&c->arg[i]) || c->arg[i].kind == V_NONE) return true;
    if (c->arg[i].kind != V_INT && c->arg[i].kind != V_BOOL) {
        return vm_fail(vm, "%s takes a whole number, not %s", c->name, value_type(&c->arg[i]));
    }
    *out = c->arg[i].kind == V_BOOL ? c->arg[i].yes : c->arg[i].i;
    return true;
}

/* A string method applied to the text of whatever is filtered. */
static MUST as_method(struct vm *vm, struct call *c, struct value *out) {
    struct value text, name = value_text(c->name);
    const struct builtin *fn = str_method_find(&name);
    if (!to_str(vm, &c->self, &text) || !call_builtin(vm, fn, &text, c->args, out)) return false;
    out->is_safe = text.is_safe;
    return true;
}

/* --- texts --- */

static MUST filter_string(struct vm *vm, struct call *c, struct value *out) {
    return to_str(vm, &c->self, out);
}

static MUST filter_trim(struct vm *vm, struct call *c, struct value *out) {
    struct value text;
    bool has = given(&c->arg[0]) && c->arg[0].kind != V_NONE;
    if (has && c->arg[0].kind != V_STR) return vm_fail(vm, "trim takes a string");
    if (!to_str(vm, &c->self, &text)) return false;
    return str_strip(vm, &text, has ? &c->arg[0] : NULL, true, true, out);
}

static MUST filter_replace(struct vm *vm, struct call *c, struct value *out) {
    struct value text,
        count = given(&c->arg[2]) && c->arg[2].kind != V_NONE ? c->arg[2] : value_int(-1);
    struct value pos[3] = {value_of(V_NONE), value_of(V_NONE), count}, name = value_text("replace");
    struct args a = {.pos = pos, .n_pos = 3};
    if (!to_str(vm, &c->self, &text)) return false;
    if (!to_str(vm, &c->arg[0], &pos[0]) || !to_str(vm, &c->arg[1], &pos[1])) return false;
    return call_builtin(vm, str_method_find(&name), &text, &a, out);
}

/* Words begin at the start and behind - white space ( { [ <. */
static MUST filter_title(struct vm *vm, struct call *c, struct value *out) {
    struct value text;
    struct text t = {0};
    bool is_start = true;
    char letter[4];
    if (!to_str(vm, &c->self, &text)) return false;
    if (!vm_charge(vm, COST_CHAR * (size_t)text.len)) return false;
    for (size_t i = 0, n; i < text.len; i += n) {
        int32_t cp;
        n = utf8_step(text.s + i, text.len - i, &cp);
        bool is_data = text.mark ? text.mark[i] : text.is_data;
        size_t len =
            cp < 0 ? 0 : utf8_write(is_start ? unicode_upper(cp) : unicode_lower(cp), letter);
        if (!text_bytes_add(vm, &t, len ? letter : text.s + i, len ? len : n, is_data))
            return false;
        is_start = py_is_space(cp) || (cp > 0 && cp < 128 && strchr("-({[<", cp));
    }
    *out = text_value(&t);
    return true;
}

/* Every line end becomes a plain one. The last opens a line of its own, which is indented when blank ones
 * are. */
static MUST filter_indent(struct vm *vm, struct call *c, struct value *out) {
    const struct value *text = &c->self;
    struct value pad = c->arg[0];
    struct text t = {0}, blanks = {0};
    int64_t width;
    bool first = flag(&c->arg[1], false), blank = flag(&c->arg[2], false);
    if (text->kind != V_STR) return vm_fail(vm, "a %s cannot be indented", value_type(text));
    if (pad.kind != V_STR) {
        if (!number_arg(vm, c, 0, 4, &width) || !text_pad(vm, &blanks, " ", 1, width)) return false;
        pad = text_value(&blanks);
    }
    if (!vm_charge(vm, COST_CHAR * (size_t)text->len)) return false;
    if (first && !text_add(vm, &t, &pad)) return false;
    for (size_t at = 0, next; at < text->len; at = next) {
        size_t end = str_line(text, at, &next);
        struct value line = value_part(text, at, end - at);
        if (at && (end > at || blank) && !text_add(vm, &t, &pad)) return false;
        if (!text_add(vm, &t, &line)) return false;
        if (end == next || (next == text->len && text->s[end] == '\r' && next == end + 1)) continue;
        if (!text_chars(vm, &t, "\n")) return false;
        if (next == text->len && blank && !text_add(vm, &t, &pad)) return false;
    }
    *out = text_value(&t);
    return true;
}

/* What is escaped already stays, but for forceescape. */
static MUST filter_escape(struct vm *vm, struct call *c, struct value *out) {
    struct value text;
    if (!to_str(vm, &c->self, &text)) return false;
    *out = text;
    return (text.is_safe && c->name[0] == 'e') || value_escape(vm, &text, out);
}

static MUST filter_urlencode(struct vm *vm, struct call *c, struct value *out) {
    static const char hex[] = "0123456789ABCDEF";
    struct value text;
    struct text t = {0};
    if (!to_str(vm, &c->self, &text)) return false;
    if (!vm_charge(vm, COST_CHAR * (size_t)text.len)) return false;
    for (size_t i = 0; i < text.len; i++) {
        uint8_t b = (uint8_t)text.s[i];
        bool plain = (b | 32) >= 'a' ? (b | 32) <= 'z' : b >= '0' && b <= '9';
        const char escape[3] = {'%', hex[b >> 4], hex[b & 15]};
        plain = plain || (b && strchr("/_.-~", b));
        if (!text_bytes_add(vm, &t, plain ? text.s + i : escape, plain ? 1 : 3, false))
            return false;
    }
    *out = text_value(&t);
    return true;
}

static MUST filter_truncate(struct vm *vm, struct call *c, struct value *out) {
    struct value text = c->self, end = given(&c->arg[2]) ? c->arg[2] : value_text("...");
    struct text t = {0};
    int64_t length, leeway, n_text;
    size_t n_end, n_keep;
    if (!number_arg(vm, c, 0, 255, &length) || !number_arg(vm, c, 3, 5, &leeway)) return false;
    if (end.kind != V_STR) return vm_fail(vm, "truncate takes a string as end");
    if (!utf8_count(vm, &end, &n_end) || !value_length(vm, &text, &n_text)) return false;
    if (length > INT32_MAX) length = INT32_MAX;  // no text is as long
    if (leeway > INT32_MAX) leeway = INT32_MAX;
    *out = text;
    if (length < (int64_t)n_end)
        return vm_fail(vm, "truncate: the end is longer than the text may be");
    if (leeway < 0) return vm_fail(vm, "truncate: less than no leeway");
    if (n_text <= length + leeway) return true;
    int64_t keep = length - (int64_t)n_end;
    if (text.kind != V_STR) return vm_fail(vm, "a %s cannot be truncated", value_type(&text));
    if (!utf8_offset(vm, &text, (size_t)keep, &n_keep)) return false;
    struct value cut = value_part(&text, 0, n_keep);
    if (!flag(&c->arg[1], false)) {  // not within a word
        uint32_t len = cut.len;
        while (len && cut.s[len - 1] != ' ') len--;
        if (len) cut.len = len - 1;
    }
    if (!text_add(vm, &t, &cut) || !text_add(vm, &t, &end)) return false;
    *out = text_value(&t);
    return true;
}

static MUST filter_wordcount(struct vm *vm, struct call *c, struct value *out) {
    struct value text;
    bool in_word = false;
    if (!to_str(vm, &c->self, &text)) return false;
    if (!vm_charge(vm, COST_CHAR * (size_t)text.len)) return false;
    *out = value_int(0);
    for (size_t i = 0; i < text.len;) {
        int32_t cp;
        i += utf8_step(text.s + i, text.len - i, &cp);
        bool is_word = cp == '_' || unicode_is_letter(cp) || unicode_is_number(cp);
        out->i += is_word && !in_word;
        in_word = is_word;
    }
    return true;
}

static MUST filter_format(struct vm *vm, struct call *c, struct value *out) {
    struct value text, values = value_of(V_TUPLE);
    if (!to_str(vm, &c->self, &text)) return false;
    if (c->args->n_kw && c->args->n_pos)
        return vm_fail(vm, "format takes values or names, not both");
    if (c->args->n_kw) {
        values.kind = V_DICT;
        if (!dict_new(vm, &values.dict)) return false;
        for (size_t i = 0; i < c->args->n_kw; i++) {
            if (!dict_put(vm, values.dict, &c->args->kw[i].name, c->args->kw[i].v)) return false;
        }
    } else {
        if (!list_new(vm, c->args->n_pos, &values.list)) return false;
        for (size_t i = 0; i < c->args->n_pos; i++)
            values.list->item[values.list->n++] = c->args->pos[i];
    }
    return format_percent(vm, &text, &values, out);
}

/* --- numbers --- */

enum { MOST_DIGITS = 400 };                          // of what is read as a float
static const double BEYOND = 9223372036854775808.0;  // 2^63: the least above all whole numbers

/* *out: without the white space around it; what reading it takes is paid for. */
static MUST number_text(struct vm *vm, const struct value *v, struct value *out) {
    if (!str_strip(vm, v, NULL, true, true, out)) return false;
    size_t len = out->len;
    return vm_charge(vm, len < MOST_DIGITS ? COST_REAL + COST_STEP * len : COST_CHAR * len);
}

static int digit_of(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    return (c | 32) >= 'a' && (c | 32) <= 'z' ? (c | 32) - 'a' + 10 : INT_MAX;
}

/* As Python's int() reads it: a sign, 0x or its like for that base or base 0, digits with single _ between.
 * fits: *out has it; else it is a whole number of more than 64 bits. */
static bool parse_whole(const struct value *s, int base, int64_t *out, bool *fits) {
    const char *at = s->s, *end = at + s->len;
    bool is_minus = at < end && *at == '-', was_digit = false;
    if (at < end && (*at == '-' || *at == '+')) at++;
    char mark = end - at > 1 && *at == '0' ? (char)(at[1] | 32) : '\0';
    int marked = mark == 'x' ? 16 : mark == 'o' ? 8 : mark == 'b' ? 2 : 0;
    if (marked && (base == 0 || base == marked)) {
        base = marked;
        at += 2;
        was_digit = true;  // as far as one _ goes
    }
    if (!base) base = 10;
    if (at == end) return false;
    *out = 0;
    *fits = true;
    for (; at < end; at++) {
        int digit = digit_of(*at);
        if (digit >= base && (*at != '_' || !was_digit)) return false;
        was_digit = digit < base;
        if (!was_digit || !*fits) continue;
        *fits = !__builtin_mul_overflow(*out, base, out) &&
                !__builtin_add_overflow(*out, is_minus ? -digit : digit, out);
    }
    return was_digit;
}

static bool parse_float(const struct value *s, double *out) {
    char digits[MOST_DIGITS], *end;
    if (!s->len || s->len >= sizeof digits) return false;
    for (uint32_t i = 0; i < s->len; i++) {
        if ((s->s[i] | 32) == 'x' || s->s[i] == '(' || !s->s[i])
            return false;  // C knows more than Python
        digits[i] = s->s[i];
    }
    digits[s->len] = '\0';
    *out = strtod(digits, &end);
    return end != digits && !*end;
}

/* Where Python takes the default for a text that is no finite number, and for what is none; only of
 * infinity itself it makes no whole number. */
static MUST filter_int(struct vm *vm, struct call *c, struct value *out) {
    const struct value *v = &c->self;
    struct value text;
    int64_t base, whole;
    double d = v->kind == V_REAL ? v->d : NAN;
    bool fits;
    if (v->kind == V_UNDEFINED) return vm_fail(vm, "int: the value is undefined");
    if (!number_arg(vm, c, 1, 10, &base)) return false;
    if (base < 0 || base > 36 || base == 1) return vm_fail(vm, "int takes a base from 2 to 36");
    *out = given(&c->arg[0]) ? c->arg[0] : value_int(0);
    if (v->kind == V_INT || v->kind == V_BOOL) {
        *out = value_int(v->kind == V_INT ? v->i : v->yes);
        return true;
    }
    if (isinf(d)) return vm_fail(vm, "int: infinity is no whole number");
    if (v->kind == V_STR) {
        if (!number_text(vm, v, &text)) return false;
        if (parse_whole(&text, (int)base, &whole, &fits)) {
            *out = value_int(whole);
            return fits || whole_too_large(vm);
        }
        if (!parse_float(&text, &d) || isinf(d)) return true;
    }
    if (isnan(d)) return true;
    if (d < -BEYOND || d >= BEYOND) return whole_too_large(vm);
    *out = value_int((int64_t)d);
    return true;
}

static MUST filter_float(struct vm *vm, struct call *c, struct value *out) {
    double d;
    if (c->self.kind == V_UNDEFINED) return vm_fail(vm, "float: the value is undefined");
    *out = given(&c->arg[0]) ? c->arg[0] : value_real(0);
    if (value_is_number(&c->self)) *out = value_real(value_number(&c->self));
    struct value text = c->self;
    if (text.kind == V_STR && !number_text(vm, &c->self, &text)) return false;
    if (text.kind == V_STR && parse_float(&text, &d)) *out = value_real(d);
    return true;
}

static MUST filter_abs(struct vm *vm, struct call *c, struct value *out) {
    if (!value_is_number(&c->self)) return vm_fail(vm, "a %s has no sign", value_type(&c->self));
    return value_negate(vm, &c->self, signbit(value_number(&c->self)), out);
}

/* To 10^-places, and in the midst between two of them to the even one. */
static MUST round_whole(struct vm *vm, int64_t i, int64_t places, struct value *out) {
    uint64_t u = i < 0 ? 0 - (uint64_t)i : (uint64_t)i, unit = 1;
    *out = value_int(places < -19 ? 0 : i);
    if (places >= 0 || places < -19) return true;
    for (; places < 0; places++) unit *= 10;
    uint64_t part = u % unit, whole = u - part;
    if (part > unit / 2 || (part == unit / 2 && u / unit % 2)) whole += unit;
    if (whole > (uint64_t)INT64_MAX + (i < 0)) return whole_too_large(vm);
    *out = value_int((int64_t)(i < 0 ? 0 - whole : whole));
    return true;
}

/* A whole number stays one, but where it is rounded up or down: there jinja2 divides. */
static MUST filter_round(struct vm *vm, struct call *c, struct value *out) {
    const struct value *v = &c->self, *how = &c->arg[1];
    bool is_ceil = given(how) && value_is(how, "ceil");
    bool is_floor = given(how) && value_is(how, "floor"), is_whole = v->kind != V_REAL;
    int64_t places;
    if (!value_is_number(v)) return vm_fail(vm, "a %s cannot be rounded", value_type(v));
    if (!number_arg(vm, c, 0, 0, &places)) return false;
    if (given(how) && !is_ceil && !is_floor && !value_is(how, "common")) {
        return vm_fail(vm, "round knows common, ceil and floor");
    }
    if (is_whole && !is_ceil && !is_floor) {
        return round_whole(vm, v->kind == V_INT ? v->i : v->yes, places, out);
    }
    double d = value_number(v);
    *out = value_real(d);
    if (is_whole && places >= 0) return true;
    if (!vm_charge(vm, 2 * COST_REAL)) return false;  // there and back
    if (places < -300 || places > 300) return vm_fail(vm, "round takes places from -300 to 300");
    double scale = pow(10, (double)places);
    if (is_ceil || is_floor) {
        d = (is_ceil ? ceil(d * scale) : floor(d * scale)) / scale;
    } else if (places >= 0 && isfinite(d) && fabs(d) < 1e16) {
        char text[400];
        snprintf(text, sizeof text, "%.*f", (int)places, d);  // the nearest decimal, ties to even
        d = strtod(text, NULL);
    } else if (isfinite(d)) {
        d = places < 0 ? nearbyint(d * scale) / scale : d;
    }
    *out = value_real(d);
    return true;
}

/* --- others --- */

static MUST filter_default(struct vm *vm, struct call *c, struct value *out) {
    (void)vm;
    bool wanted =
        c->self.kind == V_UNDEFINED || (flag(&c->arg[1], false) && !value_truth(&c->self));
    *out = c->self;
    if (wanted) *out = given(&c->arg[0]) ? c->arg[0] : value_text("");
    return true;
}

static MUST filter_safe(struct vm *vm, struct call *c, struct value *out) {
    if (!to_str(vm, &c->self, out)) return false;
    out->is_safe = true;
    return true;
}

static MUST filter_attr(struct vm *vm, struct call *c, struct value *out) {
    struct value name;
    if (!to_str(vm, &c->arg[0], &name)) return false;
    if (c->self.kind == V_DICT) {  // attributes alone, no items
        const struct builtin *fn = method_find(V_DICT, &name);
        if (!fn) *out = value_undefined(&name);
        if (!fn) return true;
    }
    return value_attr(vm, &c->self, &name, out);
}

static MUST separators(struct vm *vm, const struct value *v, struct json_style *s) {
    if (!given(v) || v->kind == V_NONE) return true;
    bool ok = (v->kind == V_TUPLE || v->kind == V_LIST) && v->list->n == 2 &&
              v->list->item[0].kind == V_STR && v->list->item[1].kind == V_STR;
    if (!ok) return vm_fail(vm, "tojson takes two separators");
    s->comma = v->list->item[0];
    s->colon = v->list->item[1];
    return true;
}

static MUST filter_tojson(struct vm *vm, struct call *c, struct value *out) {
    struct json_style s = {.is_ascii = flag(&c->arg[0], false),
                           .is_sorted = flag(&c->arg[3], false),
                           .indent = value_of(V_NONE),
                           .comma = value_text(", "),
                           .colon = value_text(": ")};
    struct text t = {0}, pad = {0};
    int64_t width;
    if (c->arg[1].kind == V_STR) {
        s.indent = c->arg[1];
    } else if (given(&c->arg[1]) && c->arg[1].kind != V_NONE) {
        if (!number_arg(vm, c, 1, 0, &width) || !text_pad(vm, &pad, " ", 1, width)) return false;
        s.indent = text_value(&pad);
    }
    if (s.indent.kind == V_STR) s.comma = value_text(",");
    if (!separators(vm, &c->arg[2], &s) || !print_json(vm, &t, &c->self, &s)) return false;
    *out = text_value(&t);
    return true;
}

static MUST filter_length(struct vm *vm, struct call *c, struct value *out) {
    out->kind = V_INT;
    int64_t n;
    if (!value_length(vm, &c->self, &n)) return false;
    *out = value_int(n);
    return true;
}

const struct builtin *filter_find(const struct value *name) {
    static const struct builtin table[] = {
        {"abs", "", filter_abs},
        {"attr", "!name", filter_attr},
        {"capitalize", "*", as_method},
        {"center", "*", as_method},
        {"count", "", filter_length},
        {"d", "default_value boolean", filter_default},
        {"default", "default_value boolean", filter_default},
        {"e", "", filter_escape},
        {"escape", "", filter_escape},
        {"float", "default", filter_float},
        {"forceescape", "", filter_escape},
        {"format", "*", filter_format},
        {"indent", "width first blank", filter_indent},
        {"int", "default base", filter_int},
        {"length", "", filter_length},
        {"lower", "*", as_method},
        {"replace", "!old !new count", filter_replace},
        {"round", "precision method", filter_round},
        {"safe", "", filter_safe},
        {"string", "", filter_string},
        {"title", "", filter_title},
        {"tojson", "ensure_ascii indent separators sort_keys", filter_tojson},
        {"trim", "chars", filter_trim},
        {"truncate", "length killwords end leeway", filter_truncate},
        {"upper", "*", as_method},
        {"urlencode", "", filter_urlencode},
        {"wordcount", "", filter_wordcount},
    };
    const struct builtin *fn = builtin_find(table, sizeof table / sizeof *table, name);
    return fn ? fn : sequence_filter_find(name);
}

/* --- global functions --- */

static MUST global_range(struct vm *vm, struct call *c, struct value *out) {
    int64_t n[3] = {0, 0, 1};
    size_t given_n = c->args->n_pos;
    struct list *l;
    if (!given_n || given_n > 3 || c->args->n_kw) return vm_fail(vm, "range takes 1 to 3 numbers");
    for (size_t i = 0; i < given_n; i++) {
        const struct value *v = &c->args->pos[i];
        if (v->kind != V_INT && v->kind != V_BOOL) {
            return vm_fail(vm, "range takes whole numbers, not %s", value_type(v));
        }
        n[given_n == 1 ? 1 : i] = v->kind == V_INT ? v->i : v->yes;
    }
    if (!n[2]) return vm_fail(vm, "range cannot have step 0");
    if (!list_new(vm, 0, &l)) return false;
    for (int64_t i = n[0]; n[2] > 0 ? i < n[1] : i > n[1];) {
        if (l->n == JINJA_RANGE)
            return vm_limit(vm, "range gives more than %d numbers", JINJA_RANGE);
        if (!list_add(vm, l, value_int(i))) return false;
        if (__builtin_add_overflow(i, n[2], &i)) break;
    }
    *out = value_list(V_LIST, l);
    return true;
}

/* dict() and namespace(): a mapping or pairs, and names. */
static MUST fill_dict(struct vm *vm, struct call *c, struct value *out) {
    const struct args *a = c->args;
    struct list *pairs;
    *out = value_of(V_DICT);
    if (a->n_pos > 1) return vm_fail(vm, "%s takes one mapping and names", c->name);
    if (!dict_new(vm, &out->dict)) return false;
    const struct value *from = a->n_pos ? a->pos : NULL;
    if (from && from->kind == V_UNDEFINED)
        return vm_fail(vm, "%s: the value is undefined", c->name);
    for (uint32_t i = 0; from && from->kind == V_DICT && i < from->dict->n; i++) {
        if (!dict_put(vm, out->dict, &from->dict->key[i], from->dict->val[i])) return false;
    }
    if (from && from->kind != V_DICT) {
        if (!value_items(vm, from, &pairs)) return false;
        for (size_t i = 0; i < pairs->n; i++) {
            struct list *pair;
            if (!value_items(vm, &pairs->item[i], &pair)) return false;
            if (pair->n != 2) return vm_fail(vm, "%s takes pairs of key and value", c->name);
            if (!dict_put(vm, out->dict, &pair->item[0], pair->item[1])) return false;
        }
    }
    for (size_t i = 0; i < a->n_kw; i++) {
        if (!dict_put(vm, out->dict, &a->kw[i].name, a->kw[i].v)) return false;
    }
    return true;
}

static MUST global_namespace(struct vm *vm, struct call *c, struct value *out) {
    if (!fill_dict(vm, c, out)) return false;
    out->kind = V_SPACE;
    return true;
}

static MUST global_raise(struct vm *vm, struct call *c, struct value *out) {
    struct value text;
    if (!to_str(vm, &c->arg[0], &text)) return false;
    *out = text;
    int len = (int)(text.len < 250 ? text.len : 250);
    (void)vm_fail(vm, "the template refuses: %.*s", len, text.s);
    vm->e->code = ERR_UNSUPPORTED;
    return false;
}

/* One directive of strftime; is_bare: without the zeros in front. Its length, -1: none such. */
static int put_date(char *out, size_t cap, char what, const struct tm *tm, bool is_bare) {
    static const char *const day[] = {"Sunday",   "Monday", "Tuesday", "Wednesday",
                                      "Thursday", "Friday", "Saturday"},
                             *const month[] = {"January",   "February", "March",    "April",
                                               "May",       "June",     "July",     "August",
                                               "September", "October",  "November", "December"};
    int n = -1, width = 2, hour = tm->tm_hour % 12 ? tm->tm_hour % 12 : 12;
    switch (what) {
    case 'A': return snprintf(out, cap, "%s", day[tm->tm_wday]);
    case 'a': return snprintf(out, cap, "%.3s", day[tm->tm_wday]);
    case 'B': return snprintf(out, cap, "%s", month[tm->tm_mon]);
    case 'b':
    case 'h': return snprintf(out, cap, "%.3s", month[tm->tm_mon]);
    case 'p': return snprintf(out, cap, "%s", tm->tm_hour < 12 ? "AM" : "PM");
    case 'F':
        return snprintf(out, cap, "%d-%02d-%02d", tm->tm_year + 1900, tm->tm_mon + 1, tm->tm_mday);
    case 'T': return snprintf(out, cap, "%02d:%02d:%02d", tm->tm_hour, tm->tm_min, tm->tm_sec);
    case 'R': return snprintf(out, cap, "%02d:%02d", tm->tm_hour, tm->tm_min);
    case 'D':
    case 'x':
        return snprintf(out, cap, "%02d/%02d/%02d", tm->tm_mon + 1, tm->tm_mday, tm->tm_year % 100);
    case 'X': return snprintf(out, cap, "%02d:%02d:%02d", tm->tm_hour, tm->tm_min, tm->tm_sec);
    case 'c':
        return snprintf(out, cap, "%.3s %.3s %2d %02d:%02d:%02d %d", day[tm->tm_wday],
                        month[tm->tm_mon], tm->tm_mday, tm->tm_hour, tm->tm_min, tm->tm_sec,
                        tm->tm_year + 1900);
    case 'e': return snprintf(out, cap, is_bare ? "%d" : "%2d", tm->tm_mday);
    case 'Y': n = tm->tm_year + 1900, width = 4; break;
    case 'y': n = tm->tm_year % 100; break;
    case 'm': n = tm->tm_mon + 1; break;
    case 'd': n = tm->tm_mday; break;
    case 'H': n = tm->tm_hour; break;
    case 'I': n = hour; break;
    case 'M': n = tm->tm_min; break;
    case 'S': n = tm->tm_sec; break;
    case 'j': n = tm->tm_yday + 1, width = 3; break;
    case 'u': n = tm->tm_wday ? tm->tm_wday : 7, width = 1; break;
    case 'w': n = tm->tm_wday, width = 1; break;
    case 'f': n = 0, width = 6; break;
    case 'Z':
    case 'z': return 0;  // the clock on the wall knows no zone
    case '%': return snprintf(out, cap, "%%");
    default: return -1;
    }
    return snprintf(out, cap, "%0*d", is_bare ? 1 : width, n);
}

static MUST global_strftime(struct vm *vm, struct call *c, struct value *out) {
    struct value fmt;
    struct text t = {0};
    struct tm tm;
    time_t now = (time_t)vm->now;
    if (!to_str(vm, &c->arg[0], &fmt)) return false;
    if (!gmtime_r(&now, &tm)) return vm_fail(vm, "the clock shows no date");
    for (size_t i = 0; i < fmt.len; i++) {
        char date[64];
        bool is_bare = i + 2 < fmt.len && fmt.s[i + 1] == '-';
        size_t at = i + 1 + is_bare;
        int n = fmt.s[i] == '%' && at < fmt.len
                    ? put_date(date, sizeof date, fmt.s[at], &tm, is_bare)
                    : -1;
        struct value one = value_part(&fmt, i, 1);
        if (!vm_charge(vm, n < 0 ? COST_CHAR : 4 * COST_STEP)) return false;
        if (n < 0 ? !text_add(vm, &t, &one) : !text_bytes_add(vm, &t, date, (size_t)n, false))
            return false;
        if (n >= 0) i = at;
    }
    *out = text_value(&t);
    return true;
}

static MUST make_turns(struct vm *vm, enum value_kind kind, const struct value *item, size_t n,
                       struct value *out) {
    *out = value_of(kind);
    if (!vm_push(vm, sizeof *out->turns, &out->turns)) return false;
    if (!list_new(vm, n, &out->turns->list)) return false;
    for (size_t i = 0; i < n; i++) out->turns->list->item[out->turns->list->n++] = item[i];
    return true;
}

static MUST global_cycler(struct vm *vm, struct call *c, struct value *out) {
    if (!c->args->n_pos || c->args->n_kw) return vm_fail(vm, "cycler needs values");
    return make_turns(vm, V_CYCLER, c->args->pos, c->args->n_pos, out);
}

static MUST global_joiner(struct vm *vm, struct call *c, struct value *out) {
    struct value sep = given(&c->arg[0]) ? c->arg[0] : value_text(", ");
    return make_turns(vm, V_JOINER, &sep, 1, out);
}

const struct builtin *global_find(const struct value *name) {
    static const struct builtin table[] = {
        {"range", "*", global_range},
        {"namespace", "*", global_namespace},
        {"dict", "*", fill_dict},
        {"raise_exception", "!message", global_raise},
        {"strftime_now", "!format", global_strftime},
        {"cycler", "*", global_cycler},
        {"joiner", "sep", global_joiner},
    };
    return builtin_find(table, sizeof table / sizeof *table, name);
}
