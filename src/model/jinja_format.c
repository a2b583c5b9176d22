/* Formatting: "%s" % values and "{}".format(values), as far as Python's templates of text go. */
#include "model/jinja_own.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { WIDEST = 10000, MOST_DIGITS = 100 };

/* How one value is written, whichever way it was asked for. */
struct spec {
    const char *fill;  // [fill_len], one code point
    size_t fill_len;
    char align;  // < > ^ = or 0
    char sign;   // + - space or 0
    char group;  // , _ or 0: between the digits of what is large
    bool is_alternate;
    int64_t width, digits;  // digits -1: not given
    char type;              // 0: none
};

/* --- numbers as digits --- */

static MUST whole_digits(struct vm *vm, const struct value *v, const struct spec *s, char *out,
                         size_t cap) {
    int64_t i = v->kind == V_BOOL ? v->yes : v->i;
    uint64_t u = i < 0 ? 0 - (uint64_t)i : (uint64_t)i;
    size_t n = 0;
    bool any = false;
    switch (s->type) {
    case 'x': snprintf(out, cap, "%" PRIx64, u); return true;
    case 'X': snprintf(out, cap, "%" PRIX64, u); return true;
    case 'o': snprintf(out, cap, "%" PRIo64, u); return true;
    case 'b':
        for (int bit = 63; bit >= 0; bit--) {
            any = any || u >> bit & 1;
            if (any || !bit) out[n++] = (char)('0' + (u >> bit & 1));
        }
        out[n] = '\0';
        return true;
    case 'd':
    case 'i':
    case 'u':
    case 'n':
    case 0: snprintf(out, cap, "%" PRIu64, u); return true;
    default: return vm_fail(vm, "a whole number has no format \"%c\"", s->type);
    }
}

static MUST real_digits(struct vm *vm, double d, const struct spec *s, char *out, size_t cap) {
    int digits = (int)(s->digits < 0 ? 6 : s->digits);
    d = fabs(d);
    if (!vm_charge(vm, COST_REAL)) return false;
    switch (s->type) {
    case 'e': snprintf(out, cap, "%.*e", digits, d); return true;
    case 'E': snprintf(out, cap, "%.*E", digits, d); return true;
    case 'f':
    case 'F': snprintf(out, cap, "%.*f", digits, d); return true;
    case 'g': snprintf(out, cap, "%.*g", digits, d); return true;
    case 'G': snprintf(out, cap, "%.*G", digits, d); return true;
    case '%': snprintf(out, cap, "%.*f%%", digits, d * 100); return true;
    case 0:
        if (s->digits < 0) {
            if (!print_real(vm, out, d)) return false;
        } else {
            snprintf(out, cap, "%.*g", digits ? digits : 1, d);
        }
        return true;
    default: return vm_fail(vm, "a number has no format \"%c\"", s->type);
    }
}

static bool is_by_bits(const struct spec *s) {
    return s->type && strchr("xXob", s->type);
}

/* The digits in front of a number, with separators between every three of them, or four of those that stand
 * for bits; zeros in front of them until there are `least` characters. None of them is the first. */
static MUST put_groups(struct vm *vm, struct text *t, const char *digits, const struct spec *s,
                       int64_t least) {
    bool is_hex = s->type == 'x' || s->type == 'X';
    size_t whole = strspn(digits, is_hex ? "0123456789abcdefABCDEF" : "0123456789");
    size_t each = is_by_bits(s) ? 4 : 3, n = whole;
    const char between[2] = {s->group};
    least -= (int64_t)strlen(digits + whole);
    while (whole && (int64_t)(n + (n - 1) / each) < least) n++;
    for (size_t left = n; left; left--) {
        const char one[2] = {left > whole ? '0' : digits[whole - left]};
        if (left < n && left % each == 0 && !text_chars(vm, t, between)) return false;
        if (!text_chars(vm, t, one)) return false;
    }
    return text_chars(vm, t, digits + whole);
}

/* --- padding --- */

static MUST put_padded(struct vm *vm, struct text *t, const struct value *body, const char *sign,
                       const struct spec *s, char align) {
    size_t n_body;
    if (s->align) align = s->align;
    if (!utf8_count(vm, body, &n_body)) return false;
    int64_t more = s->width - (int64_t)n_body - (int64_t)strlen(sign);
    if (more < 0) more = 0;
    int64_t left = align == '>' || align == '=' ? more : align == '^' ? more / 2 : 0;
    if (align == '=' && !text_chars(vm, t, sign)) return false;
    if (!text_pad(vm, t, s->fill, s->fill_len, left)) return false;
    if (align != '=' && !text_chars(vm, t, sign)) return false;
    return text_add(vm, t, body) && text_pad(vm, t, s->fill, s->fill_len, more - left);
}

static MUST put_number(struct vm *vm, struct text *t, const struct value *v, const struct spec *s) {
    char digits[512] = "", lead[4];
    struct text groups = {0};
    bool is_real = v->kind == V_REAL || (s->type && strchr("eEfFgG%", s->type));
    bool has_zeros = s->align == '=' && s->fill_len == 1 && *s->fill == '0';
    double d = value_number(v);
    const char *sign = signbit(d) ? "-" : s->sign == '+' ? "+" : s->sign == ' ' ? " " : "";
    bool ok = is_real ? real_digits(vm, d, s, digits, sizeof digits)
                      : whole_digits(vm, v, s, digits, sizeof digits);
    if (!ok) return false;
    if ((s->group && s->type == 'n') || (s->group == ',' && is_by_bits(s))) {
        return vm_fail(vm, "a format has no \"%c\" with \"%c\"", s->group, s->type);
    }
    bool is_marked = s->is_alternate && is_by_bits(s);
    const char mark[3] = {'0', s->type};
    snprintf(lead, sizeof lead, "%s%s", sign, is_marked ? mark : "");
    struct value body = value_text(digits);
    if (s->group) {
        int64_t least = has_zeros ? s->width - (int64_t)strlen(lead) : 0;
        if (!put_groups(vm, &groups, digits, s, least)) return false;
        body = text_value(&groups);
    }
    return put_padded(vm, t, &body, lead, s, '>');
}

static MUST put_string(struct vm *vm, struct text *t, const struct value *v, const struct spec *s) {
    struct value cut = *v;
    size_t n_cut;
    if (s->digits >= 0) {
        if (!utf8_offset(vm, v, (size_t)s->digits, &n_cut)) return false;
        cut = value_part(v, 0, n_cut);
    }
    return put_padded(vm, t, &cut, "", s, '<');
}

/* --- {} --- */

static bool take_number(const char *s, size_t len, size_t *at, int64_t *out) {
    bool any = false;
    *out = 0;
    for (; *at < len && s[*at] >= '0' && s[*at] <= '9'; ++*at) {
        if (*out > WIDEST) return false;
        *out = *out * 10 + (s[*at] - '0');
        any = true;
    }
    return any;
}

/* [[fill]align][sign][#][0][width][,|_][.digits][type] */
static MUST read_spec(struct vm *vm, const struct value *text, struct spec *s) {
    const char *p = text->s;
    size_t len = text->len, at = 0;
    int32_t cp;
    *s = (struct spec){.fill = " ", .fill_len = 1, .digits = -1};
    size_t first = len ? utf8_step(p, len, &cp) : 0;
    bool has_fill = first && first < len && strchr("<>^=", p[first]);
    if (has_fill) {
        s->fill = p;
        s->fill_len = first;
        at = first;
    }
    if (at < len && strchr("<>^=", p[at])) s->align = p[at++];
    if (at < len && strchr("+- ", p[at])) s->sign = p[at++];
    if (at < len && p[at] == '#') s->is_alternate = p[at++];
    if (at < len && p[at] == '0') {
        at++;
        if (!s->align) s->align = '=';
        if (!has_fill) {
            s->fill = "0";
            s->fill_len = 1;
        }
    }
    (void)take_number(p, len, &at, &s->width);
    if (at < len && (p[at] == ',' || p[at] == '_')) s->group = p[at++];
    if (at < len && p[at] == '.') {
        at++;
        if (!take_number(p, len, &at, &s->digits)) return vm_fail(vm, "a format has no digits");
    }
    if (at < len) s->type = p[at++];
    if (at < len) return vm_fail(vm, "a format is not understood");
    if (s->width > WIDEST || s->digits > MOST_DIGITS) {
        return vm_limit(vm, "a format asks for more than %d characters or %d digits", WIDEST,
                        MOST_DIGITS);
    }
    return true;
}

MUST format_one(struct vm *vm, const struct value *v, const struct value *spec, struct value *out) {
    struct text t = {0};
    struct spec s;
    struct value text = *v;
    if (!spec->len) return to_str(vm, v, out);
    if (!read_spec(vm, spec, &s)) return false;
    if (value_is_number(v)) {
        if (!put_number(vm, &t, v, &s)) return false;
    } else {
        if (v->kind != V_STR) return vm_fail(vm, "a %s takes no format", value_type(v));
        if (s.sign || s.group) return vm_fail(vm, "a text takes no sign and no separators");
        if (s.type && s.type != 's') return vm_fail(vm, "a text has no format \"%c\"", s.type);
        if (s.align == '=') s.align = '<';
        if (!to_str(vm, v, &text) || !put_string(vm, &t, &text, &s)) return false;
    }
    *out = text_value(&t);
    return true;
}

/* How fields without a name are counted: all by themselves, or all by their numbers. */
struct counting {
    size_t next;
    bool is_own, is_numbered;
};

/* The value that a field names: a number, a name or nothing, then .attribute and [item]. */
static MUST field_value(struct vm *vm, const struct value *field, const struct args *a,
                        struct counting *n, struct value *out) {
    size_t at = 0, len = field->len;
    const char *s = field->s;
    int64_t index;
    if (take_number(s, len, &at, &index) || !len || s[0] == '.' || s[0] == '[') {
        size_t i = at ? (size_t)index : n->next++;
        *(at ? &n->is_numbered : &n->is_own) = true;
        if (n->is_own && n->is_numbered) {
            return vm_fail(vm, "format: fields are numbered all or none");
        }
        if (i >= a->n_pos) return vm_fail(vm, "format has no value %zu", i);
        *out = a->pos[i];
    } else {
        at = 0;
        while (at < len && s[at] != '.' && s[at] != '[') at++;
        struct value name = value_part(field, 0, at);
        bool found = false;
        for (size_t i = 0; i < a->n_kw && !found; i++) {
            if (!value_same(vm, &a->kw[i].name, &name, &found)) return false;
            if (found) *out = a->kw[i].v;
        }
        if (!found) return vm_fail(vm, "format has no value \"%.*s\"", (int)(at < 60 ? at : 60), s);
    }
    while (at < len) {
        bool is_item = s[at++] == '[';
        size_t from = at;
        if (!vm_charge(vm, COST_STEP)) return false;
        while (at < len && (is_item ? s[at] != ']' : s[at] != '.' && s[at] != '[')) at++;
        struct value name = value_part(field, from, at - from), of = *out, key = name;
        size_t digits = from;
        if (is_item && take_number(s, at, &digits, &index) && digits == at) key = value_int(index);
        if (is_item && at++ >= len) return vm_fail(vm, "format: ] is missing");
        if (is_item ? !value_item(vm, &of, &key, out) : !value_attr(vm, &of, &name, out))
            return false;
    }
    return true;
}

/* One field without its braces: name[!conversion][:format]. */
static MUST put_field(struct vm *vm, struct text *t, const struct value *field,
                      const struct args *a, struct counting *n) {
    struct text shown = {0};
    struct value v, text, spec = value_text("");
    size_t end = 0;
    while (end < field->len && field->s[end] != ':' && field->s[end] != '!') end++;
    struct value name = value_part(field, 0, end);
    if (!field_value(vm, &name, a, n, &v)) return false;
    if (end < field->len && field->s[end] == '!') {
        char how = end + 1 < field->len ? field->s[end + 1] : '\0';
        if (how != 'r' && how != 's') return vm_fail(vm, "format knows !r and !s");
        if (how == 'r' ? !print_repr(vm, &shown, &v) : !print_str(vm, &shown, &v)) return false;
        v = text_value(&shown);
        end += 2;
    }
    if (end < field->len && field->s[end] != ':') return vm_fail(vm, "format: \":\" is missing");
    if (end < field->len) spec = value_part(field, end + 1, field->len - end - 1);
    return format_one(vm, &v, &spec, &text) && text_add(vm, t, &text);
}

MUST format_braces(struct vm *vm, const struct value *fmt, const struct args *a,
                   struct value *out) {
    struct text t = {0};
    struct counting n = {0};
    if (!vm_charge(vm, COST_CHAR * (size_t)fmt->len)) return false;
    for (size_t i = 0; i < fmt->len;) {
        char c = fmt->s[i];
        bool is_double = i + 1 < fmt->len && fmt->s[i + 1] == c;
        if ((c != '{' && c != '}') || is_double) {
            struct value one = value_part(fmt, i, 1);
            if (!text_add(vm, &t, &one)) return false;
            i += 1U + (c == '{' || c == '}');
            continue;
        }
        const char *end = c == '{' ? memchr(fmt->s + i, '}', fmt->len - i) : NULL;
        if (!end) return vm_fail(vm, "format: a single \"%c\"", c);
        struct value field = value_part(fmt, i + 1, (size_t)(end - (fmt->s + i)) - 1);
        if (!vm_charge(vm, COST_STEP) || !put_field(vm, &t, &field, a, &n)) return false;
        i = (size_t)(end - fmt->s) + 1;
    }
    *out = text_value(&t);
    return true;
}

/* --- % --- */

/* Where values come from: a tuple in turn, one value, or a dict by names. */
struct source {
    const struct value *args;
    size_t next;
};

static MUST next_value(struct vm *vm, struct source *from, struct value *out) {
    const struct value *a = from->args;
    bool is_tuple = a->kind == V_TUPLE;
    if (from->next >= (is_tuple ? a->list->n : 1)) return vm_fail(vm, "%% has too few values");
    *out = is_tuple ? a->list->item[from->next] : *a;
    from->next++;
    return true;
}

/* The flags, width and digits behind a %, up to the type. */
static MUST percent_spec(struct vm *vm, const struct value *fmt, size_t *at, struct source *from,
                         struct spec *s) {
    *s = (struct spec){.fill = " ", .fill_len = 1, .align = '>', .digits = -1};
    for (; *at < fmt->len && strchr("-+ #0", fmt->s[*at]); ++*at) {
        char c = fmt->s[*at];
        if (c == '-') s->align = '<';
        if (c == '+' || (c == ' ' && !s->sign)) s->sign = c;
        if (c == '#') s->is_alternate = true;
        if (c == '0' && s->align == '>') {
            s->fill = "0";
            s->align = '=';
        }
    }
    for (int i = 0; i < 2; i++) {
        int64_t *to = i ? &s->digits : &s->width;
        struct value v;
        if (i && (*at >= fmt->len || fmt->s[*at] != '.')) break;
        *at += (size_t)i;
        if (*at < fmt->len && fmt->s[*at] == '*') {
            if (!next_value(vm, from, &v)) return false;
            if (v.kind != V_INT || v.i < 0) return vm_fail(vm, "%%* takes a whole number");
            *to = v.i;
            ++*at;
        } else {
            (void)take_number(fmt->s, fmt->len, at, to);
        }
    }
    if (s->width <= WIDEST && s->digits <= MOST_DIGITS) return true;
    return vm_limit(vm, "a format asks for more than %d characters or %d digits", WIDEST,
                    MOST_DIGITS);
}

static MUST put_percent(struct vm *vm, struct text *t, const struct value *v, struct spec *s) {
    struct text shown = {0};
    struct value text;
    if (strchr("sra", s->type)) {
        if (s->type == 's' ? !print_str(vm, &shown, v) : !print_repr(vm, &shown, v)) return false;
        text = text_value(&shown);
        if (s->align == '=') {
            s->align = '>';
            s->fill = " ";
        }
        return put_string(vm, t, &text, s);
    }
    if (!strchr("diuxXoeEfFgG", s->type)) return vm_fail(vm, "%% knows no \"%c\"", s->type);
    if (!value_is_number(v))
        return vm_fail(vm, "%%%c takes a number, not %s", s->type, value_type(v));
    struct value whole = *v;
    if (v->kind == V_REAL && strchr("xXo", s->type)) {
        return vm_fail(vm, "%%%c takes a whole number, not a float", s->type);
    }
    if (v->kind == V_REAL && strchr("diu", s->type)) {
        if (!(fabs(v->d) < 9e18)) return vm_fail(vm, "%%%c: the number is too large", s->type);
        whole = value_int((int64_t)v->d);
    }
    if (strchr("diuxXo", s->type)) s->digits = -1;
    return put_number(vm, t, &whole, s);
}

/* One conversion, which begins behind the % at *at. */
static MUST convert(struct vm *vm, struct text *t, const struct value *fmt, size_t *at,
                    struct source *from) {
    struct value v;
    struct spec s;
    bool has_name = *at < fmt->len && fmt->s[*at] == '(';
    if (has_name) {
        const char *end = memchr(fmt->s + *at, ')', fmt->len - *at);
        if (!end) return vm_fail(vm, "%%( has no )");
        struct value name = value_part(fmt, *at + 1, (size_t)(end - (fmt->s + *at)) - 1);
        if (from->args->kind != V_DICT) return vm_fail(vm, "%%(name) needs a dict");
        if (!value_item(vm, from->args, &name, &v)) return false;
        if (v.kind == V_UNDEFINED) return vm_fail(vm, "%%(name) is not in the dict");
        *at = (size_t)(end - fmt->s) + 1;
    }
    if (!percent_spec(vm, fmt, at, from, &s)) return false;
    if (*at >= fmt->len || !fmt->s[*at]) return vm_fail(vm, "a %% stands alone");
    s.type = fmt->s[(*at)++];
    if (s.type == '%') return text_chars(vm, t, "%");
    if (!has_name && !next_value(vm, from, &v)) return false;
    return put_percent(vm, t, &v, &s);
}

MUST format_percent(struct vm *vm, const struct value *fmt, const struct value *args,
                    struct value *out) {
    struct text t = {0};
    struct source from = {.args = args};
    if (!vm_charge(vm, COST_CHAR * (size_t)fmt->len)) return false;
    for (size_t i = 0; i < fmt->len;) {
        if (fmt->s[i] != '%') {
            struct value one = value_part(fmt, i++, 1);
            if (!text_add(vm, &t, &one)) return false;
            continue;
        }
        i++;
        if (!vm_charge(vm, COST_STEP) || !convert(vm, &t, fmt, &i, &from)) return false;
    }
    if (args->kind == V_TUPLE && from.next < args->list->n) {
        return vm_fail(vm, "%% has more values than places");
    }
    if (args->kind != V_TUPLE && args->kind != V_DICT && args->kind != V_LIST && !from.next) {
        return vm_fail(vm, "%% has more values than places");
    }
    *out = text_value(&t);
    return true;
}
