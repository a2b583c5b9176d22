/* Methods of strings, dictionaries, lists and the rest. What would change a value in place is refused,
 * as the sandbox does in which models' templates run. */
#include "model/jinja_own.h"

#include "base/unicode.h"

static bool given(const struct value *v) {
    return v->kind != V_MISSING && v->kind != V_NONE;
}

static MUST want_str(struct vm *vm, const struct call *c, int i) {
    if (c->arg[i].kind == V_STR) return true;
    return vm_fail(vm, "%s takes a string, not %s", c->name, value_type(&c->arg[i]));
}

static MUST want_int(struct vm *vm, const struct call *c, int i, int64_t otherwise, int64_t *out) {
    *out = otherwise;
    if (!given(&c->arg[i])) return true;
    if (c->arg[i].kind != V_INT && c->arg[i].kind != V_BOOL) {
        return vm_fail(vm, "%s takes a whole number, not %s", c->name, value_type(&c->arg[i]));
    }
    *out = c->arg[i].kind == V_INT ? c->arg[i].i : c->arg[i].yes;
    return true;
}

static bool ends_with(const struct value *s, const struct value *what, bool at_start) {
    if (what->len > s->len) return false;
    return !memcmp(s->s + (at_start ? 0 : s->len - what->len), what->s, what->len);
}

/* --- cutting --- */

static MUST str_strips(struct vm *vm, struct call *c, struct value *out) {
    bool left = c->name[0] != 'r', right = c->name[0] != 'l';
    if (given(&c->arg[0]) && !want_str(vm, c, 0)) return false;
    return str_strip(vm, &c->self, given(&c->arg[0]) ? &c->arg[0] : NULL, left, right, out);
}

static MUST str_remove(struct vm *vm, struct call *c, struct value *out) {
    bool is_prefix = c->name[6] == 'p';
    if (!want_str(vm, c, 0) || !vm_charge(vm, c->arg[0].len)) return false;
    *out = c->self;
    if (!ends_with(&c->self, &c->arg[0], is_prefix)) return true;
    *out = value_part(&c->self, is_prefix ? c->arg[0].len : 0, c->self.len - c->arg[0].len);
    return true;
}

/* Words between white space; what remains after `most` cuts is the last. */
static MUST split_words(struct vm *vm, const struct value *s, int64_t most, struct list *l) {
    struct value rest;
    if (!str_strip(vm, s, NULL, true, false, &rest)) return false;
    for (int64_t n = 0; rest.len; n++) {
        size_t len = 0;
        int32_t cp;
        if (n == most) return list_add(vm, l, rest);
        while (len < rest.len) {
            size_t step = utf8_step(rest.s + len, rest.len - len, &cp);
            if (py_is_space(cp)) break;
            len += step;
        }
        if (!vm_charge(vm, COST_CHAR * len)) return false;
        if (!list_add(vm, l, value_part(&rest, 0, len))) return false;
        struct value after = value_part(&rest, len, rest.len - len);
        if (!str_strip(vm, &after, NULL, true, false, &rest)) return false;
    }
    return true;
}

/* The same from the right, in reverse order. */
static MUST split_words_right(struct vm *vm, const struct value *s, int64_t most, struct list *l) {
    struct value rest;
    if (!str_strip(vm, s, NULL, false, true, &rest)) return false;
    for (int64_t n = 0; rest.len; n++) {
        size_t from = rest.len;
        if (n == most) return list_add(vm, l, rest);
        while (from) {
            size_t at = from - 1;
            int32_t cp;
            while (at && ((uint8_t)rest.s[at] & 0xc0) == 0x80) at--;
            (void)utf8_step(rest.s + at, rest.len - at, &cp);
            if (py_is_space(cp)) break;
            from = at;
        }
        if (!vm_charge(vm, COST_CHAR * (rest.len - from))) return false;
        if (!list_add(vm, l, value_part(&rest, from, rest.len - from))) return false;
        struct value before = value_part(&rest, 0, from);
        if (!str_strip(vm, &before, NULL, false, true, &rest)) return false;
    }
    return true;
}

static MUST split_at(struct vm *vm, const struct value *s, const struct value *sep, int64_t most,
                     struct list *l) {
    size_t at = 0;
    for (int64_t n = 0; n != most; n++) {
        int64_t end;
        if (!str_find(vm, s, at, s->len, sep, &end)) return false;
        if (end < 0) break;
        if (!list_add(vm, l, value_part(s, at, (size_t)end - at))) return false;
        at = (size_t)end + sep->len;
    }
    return list_add(vm, l, value_part(s, at, s->len - at));
}

/* *found: -1 when it stands nowhere. */
static MUST find_last(struct vm *vm, const struct value *s, size_t from, size_t to,
                      const struct value *what, int64_t *found) {
    *found = -1;
    if (from > to || what->len > to - from) return true;
    for (size_t at = to - what->len + 1; *found < 0 && at-- > from;) {
        bool begins = !what->len || s->s[at] == *what->s;
        if (!vm_charge(vm, begins ? COST_ITEM + what->len : COST_SCAN)) return false;
        if (begins && !memcmp(s->s + at, what->s, what->len)) *found = (int64_t)at;
    }
    return true;
}

static MUST split_at_right(struct vm *vm, const struct value *s, const struct value *sep,
                           int64_t most, struct list *l) {
    size_t end = s->len;
    for (int64_t n = 0; n != most; n++) {
        int64_t at;
        if (!find_last(vm, s, 0, end, sep, &at)) return false;
        if (at < 0) break;
        size_t from = (size_t)at + sep->len;
        if (!list_add(vm, l, value_part(s, from, end - from))) return false;
        end = (size_t)at;
    }
    return list_add(vm, l, value_part(s, 0, end));
}

static void turn(struct list *l) {
    for (size_t i = 0; i < l->n / 2; i++) {
        struct value v = l->item[i];
        l->item[i] = l->item[l->n - 1 - i];
        l->item[l->n - 1 - i] = v;
    }
}

static MUST str_splits(struct vm *vm, struct call *c, struct value *out) {
    bool from_right = c->name[0] == 'r', ok;
    struct list *l;
    int64_t most;
    if (given(&c->arg[0]) && !want_str(vm, c, 0)) return false;
    if (!want_int(vm, c, 1, -1, &most) || !list_new(vm, 0, &l)) return false;
    if (given(&c->arg[0])) {
        if (!c->arg[0].len) return vm_fail(vm, "%s cannot split at nothing", c->name);
        ok = from_right ? split_at_right(vm, &c->self, &c->arg[0], most, l)
                        : split_at(vm, &c->self, &c->arg[0], most, l);
    } else {
        ok = from_right ? split_words_right(vm, &c->self, most, l)
                        : split_words(vm, &c->self, most, l);
    }
    if (from_right) turn(l);
    *out = value_list(V_LIST, l);
    return ok;
}

size_t str_line(const struct value *s, size_t at, size_t *next) {
    int32_t cp;
    for (size_t n; at < s->len; at += n) {
        n = utf8_step(s->s + at, s->len - at, &cp);
        bool is_end = (cp >= '\n' && cp <= '\r') || (cp >= 0x1c && cp <= 0x1e) || cp == 0x85 ||
                      cp == 0x2028 || cp == 0x2029;
        if (!is_end) continue;
        *next = at + n;
        if (cp == '\r' && *next < s->len && s->s[*next] == '\n') ++*next;
        return at;
    }
    *next = at;
    return at;
}

static MUST str_splitlines(struct vm *vm, struct call *c, struct value *out) {
    const struct value *s = &c->self;
    bool keep = given(&c->arg[0]) && value_truth(&c->arg[0]);
    struct list *l;
    if (!vm_charge(vm, COST_CHAR * (size_t)s->len) || !list_new(vm, 0, &l)) return false;
    for (size_t at = 0, next; at < s->len; at = next) {
        size_t end = str_line(s, at, &next);
        if (!list_add(vm, l, value_part(s, at, (keep ? next : end) - at))) return false;
    }
    *out = value_list(V_LIST, l);
    return true;
}

static MUST str_partition(struct vm *vm, struct call *c, struct value *out) {
    const struct value *s = &c->self, *sep = &c->arg[0];
    bool from_right = c->name[0] == 'r';
    struct list *l;
    int64_t found;
    if (!want_str(vm, c, 0) || !list_new(vm, 3, &l)) return false;
    if (!sep->len) return vm_fail(vm, "%s cannot split at nothing", c->name);
    if (from_right ? !find_last(vm, s, 0, s->len, sep, &found)
                   : !str_find(vm, s, 0, s->len, sep, &found)) {
        return false;
    }
    size_t at = found < 0 ? (from_right ? 0 : s->len) : (size_t)found;
    size_t len = found < 0 ? 0 : sep->len;
    l->item[0] = value_part(s, 0, at);
    l->item[1] = value_part(s, at, len);
    l->item[2] = value_part(s, at + len, s->len - at - len);
    l->n = 3;
    *out = value_list(V_TUPLE, l);
    return true;
}

/* --- looking --- */

/* Bytes from..to for the code points that arguments i and i + 1 give. */
static MUST bounds(struct vm *vm, const struct call *c, int i, size_t *from, size_t *to) {
    int64_t n, a, b;
    if (!value_length(vm, &c->self, &n)) return false;
    if (!want_int(vm, c, i, 0, &a) || !want_int(vm, c, i + 1, n, &b)) return false;
    a = a < 0 ? (a + n < 0 ? 0 : a + n) : a;
    b = b < 0 ? (b + n < 0 ? 0 : b + n) : b > n ? n : b;
    *from = c->self.len + 1U;
    return (a > n || utf8_offset(vm, &c->self, (size_t)a, from)) &&
           utf8_offset(vm, &c->self, (size_t)b, to);
}

static MUST str_finds(struct vm *vm, struct call *c, struct value *out) {
    bool from_right = c->name[0] == 'r', must = strchr(c->name, 'x') != NULL;
    size_t from, to, n;
    int64_t at = -1;
    if (!want_str(vm, c, 0) || !bounds(vm, c, 1, &from, &to)) return false;
    if (from_right ? !find_last(vm, &c->self, from, to, &c->arg[0], &at)
                   : !str_find(vm, &c->self, from, to, &c->arg[0], &at)) {
        return false;
    }
    if (at < 0 && must) return vm_fail(vm, "%s: it is not in the string", c->name);
    struct value before = value_part(&c->self, 0, at < 0 ? 0 : (size_t)at);
    if (!utf8_count(vm, &before, &n)) return false;
    *out = value_int(at < 0 ? -1 : (int64_t)n);
    return true;
}

static MUST str_count(struct vm *vm, struct call *c, struct value *out) {
    size_t from, to, n;
    int64_t at;
    *out = value_int(0);
    if (!want_str(vm, c, 0) || !bounds(vm, c, 1, &from, &to)) return false;
    if (!c->arg[0].len) {
        if (from > to) return true;
        struct value part = value_part(&c->self, from, to - from);
        if (!utf8_count(vm, &part, &n)) return false;
        *out = value_int((int64_t)n + 1);
        return true;
    }
    for (;; out->i++) {
        if (!str_find(vm, &c->self, from, to, &c->arg[0], &at)) return false;
        if (at < 0) return true;
        from = (size_t)at + c->arg[0].len;
    }
}

static MUST str_starts(struct vm *vm, struct call *c, struct value *out) {
    bool at_start = c->name[0] == 's';
    size_t from, to;
    struct list one = {.item = &c->arg[0], .n = 1}, *l = &one;
    if (c->arg[0].kind == V_TUPLE) l = c->arg[0].list;
    if (!bounds(vm, c, 1, &from, &to)) return false;
    *out = value_bool(false);
    if (from > to) return true;
    struct value part = value_part(&c->self, from, to - from);
    for (size_t i = 0; i < l->n; i++) {
        if (l->item[i].kind != V_STR) {
            return vm_fail(vm, "%s takes a string, not %s", c->name, value_type(&l->item[i]));
        }
        if (!vm_charge(vm, COST_ITEM + l->item[i].len)) return false;
        out->yes = out->yes || ends_with(&part, &l->item[i], at_start);
    }
    return true;
}

/* --- what kind of characters --- */

static bool is_alpha(int32_t cp) {
    return cp >= 0 && unicode_is_letter(cp);
}

static bool is_digit(int32_t cp) {
    return cp >= 0 && unicode_is_number(cp);
}

static bool is_alnum(int32_t cp) {
    return is_alpha(cp) || is_digit(cp);
}

static bool is_ascii(int32_t cp) {
    return cp >= 0 && cp < 0x80;
}

static bool is_printable(int32_t cp) {
    return cp >= 0 && unicode_is_printable(cp);
}

static MUST str_is(struct vm *vm, struct call *c, struct value *out) {
    static const struct {
        const char *name;
        bool (*is)(int32_t cp);
        bool when_empty;
    } known[] = {{"isalpha", is_alpha, false},   {"isdigit", is_digit, false},
                 {"isnumeric", is_digit, false}, {"isdecimal", is_digit, false},
                 {"isalnum", is_alnum, false},   {"isspace", py_is_space, false},
                 {"isascii", is_ascii, true},    {"isprintable", is_printable, true}};
    if (!vm_charge(vm, COST_CHAR * (size_t)c->self.len)) return false;
    for (size_t k = 0; k < sizeof known / sizeof *known; k++) {
        if (strcmp(known[k].name, c->name) != 0) continue;
        bool yes = c->self.len || known[k].when_empty;
        for (size_t i = 0; i < c->self.len && yes;) {
            int32_t cp;
            i += utf8_step(c->self.s + i, c->self.len - i, &cp);
            yes = known[k].is(cp);
        }
        *out = value_bool(yes);
    }
    return true;
}

static MUST str_is_title(struct vm *vm, struct call *c, struct value *out) {
    bool is_within = false, any = false, yes = true;
    if (!vm_charge(vm, COST_CHAR * (size_t)c->self.len)) return false;
    for (size_t i = 0; i < c->self.len && yes;) {
        int32_t cp;
        i += utf8_step(c->self.s + i, c->self.len - i, &cp);
        bool is_upper = cp >= 0 && unicode_is_upper(cp), is_lower = cp >= 0 && unicode_is_lower(cp);
        yes = is_within ? !is_upper : !is_lower;
        is_within = is_upper || is_lower;
        any = any || is_within;
    }
    *out = value_bool(yes && any);
    return true;
}

static MUST str_is_identifier(struct vm *vm, struct call *c, struct value *out) {
    const struct value *s = &c->self;
    bool yes = s->len;
    if (!vm_charge(vm, COST_CHAR * (size_t)s->len)) return false;
    for (size_t i = 0; i < s->len && yes;) {
        int32_t cp;
        bool is_first = !i;
        i += utf8_step(s->s + i, s->len - i, &cp);
        yes = cp == '_' || (is_alnum(cp) && !(is_first && unicode_is_number(cp)));
    }
    *out = value_bool(yes);
    return true;
}

static MUST str_is_case(struct vm *vm, struct call *c, struct value *out) {
    struct value name = value_text(c->name + 2);  // islower, isupper: as the tests
    struct args none = {0};
    return call_builtin(vm, test_find(&name), &c->self, &none, out);
}

/* --- letters --- */

enum letter_case { CASE_LOWER, CASE_UPPER, CASE_TITLE, CASE_FIRST, CASE_SWAP };

static int32_t change_case(int32_t cp, enum letter_case how, bool is_start) {
    switch (how) {
    case CASE_LOWER: return unicode_lower(cp);
    case CASE_UPPER: return unicode_upper(cp);
    case CASE_SWAP: return unicode_is_upper(cp) ? unicode_lower(cp) : unicode_upper(cp);
    default: return is_start ? unicode_title(cp) : unicode_lower(cp);
    }
}

static MUST recase(struct vm *vm, const struct value *s, enum letter_case how, struct value *out) {
    struct text t = {0};
    bool is_start = true;
    if (!vm_charge(vm, COST_CHAR * (size_t)s->len)) return false;
    for (size_t i = 0, n; i < s->len; i += n) {
        int32_t cp;
        char letter[4];
        n = utf8_step(s->s + i, s->len - i, &cp);
        bool is_data = s->mark ? s->mark[i] : s->is_data;
        if (how == CASE_UPPER && cp == 0xdf) {  // sharp s has no capital letter but two
            if (!text_bytes_add(vm, &t, "SS", 2, is_data)) return false;
            continue;
        }
        if (cp == 0x130 && change_case(cp, how, is_start) == 'i') {  // the dot stays
            if (!text_bytes_add(vm, &t, "i\u0307", 3, is_data)) return false;
            is_start = false;
            continue;
        }
        size_t len = cp < 0 ? 0 : utf8_write(change_case(cp, how, is_start), letter);
        if (!text_bytes_add(vm, &t, len ? letter : s->s + i, len ? len : n, is_data)) return false;
        is_start = how == CASE_TITLE && cp >= 0 && !unicode_is_lower(cp) && !unicode_is_upper(cp);
    }
    *out = text_value(&t);
    return true;
}

static MUST str_case(struct vm *vm, struct call *c, struct value *out) {
    enum letter_case how = CASE_LOWER;
    switch (c->name[0]) {
    case 'u': how = CASE_UPPER; break;
    case 't': how = CASE_TITLE; break;
    case 's': how = CASE_SWAP; break;
    case 'c': how = c->name[2] == 'p' ? CASE_FIRST : CASE_LOWER; break;  // capitalize, casefold
    default: break;
    }
    return recase(vm, &c->self, how, out);
}

static MUST str_replace(struct vm *vm, struct call *c, struct value *out) {
    const struct value *s = &c->self, *old = &c->arg[0];
    struct text t = {0};
    int64_t most;
    size_t at = 0;
    if (!want_str(vm, c, 0) || !want_str(vm, c, 1) || !want_int(vm, c, 2, -1, &most)) return false;
    for (int64_t n = 0; n != most; n++) {
        int64_t end;
        if (!str_find(vm, s, at, s->len, old, &end)) return false;
        if (end < 0) break;
        if (!old->len) {  // between all characters
            int32_t cp;
            if (!text_add(vm, &t, &c->arg[1])) return false;
            if (at == s->len) break;
            end = (int64_t)(at + utf8_step(s->s + at, s->len - at, &cp));
        }
        struct value part = value_part(s, at, (size_t)end - at);
        if (!text_add(vm, &t, &part)) return false;
        if (old->len && !text_add(vm, &t, &c->arg[1])) return false;
        at = (size_t)end + old->len;
    }
    struct value rest = value_part(s, at, s->len - at);
    if (!text_add(vm, &t, &rest)) return false;
    *out = text_value(&t);
    return true;
}

static MUST str_join(struct vm *vm, struct call *c, struct value *out) {
    struct text t = {0};
    struct list *l;
    if (!value_items(vm, &c->arg[0], &l)) return false;
    for (size_t i = 0; i < l->n; i++) {
        if (l->item[i].kind != V_STR) {
            return vm_fail(vm, "join takes strings, not %s", value_type(&l->item[i]));
        }
        if (i && !text_add(vm, &t, &c->self)) return false;
        if (!text_add(vm, &t, &l->item[i])) return false;
    }
    *out = text_value(&t);
    return true;
}

/* ljust, rjust, center, zfill. */
static MUST str_pad(struct vm *vm, struct call *c, struct value *out) {
    struct value fill = given(&c->arg[1]) ? c->arg[1] : value_text(c->name[0] == 'z' ? "0" : " ");
    struct text t = {0};
    int64_t width, n = 0;
    if (!want_int(vm, c, 0, c->name[0] == 'c' ? 80 : 0, &width)) return false;
    if (fill.kind == V_STR && !value_length(vm, &fill, &n)) return false;
    if (n != 1) return vm_fail(vm, "%s fills with one character", c->name);
    if (!value_length(vm, &c->self, &n)) return false;
    int64_t more = width > n ? width - n : 0;
    int64_t left = c->name[0] == 'l' ? 0 : more;
    if (c->name[0] == 'c') left = more / 2 + (more & width & 1);
    size_t sign = c->name[0] == 'z' && c->self.len && strchr("+-", c->self.s[0]) ? 1 : 0;
    struct value head = value_part(&c->self, 0, sign);
    struct value tail = value_part(&c->self, sign, c->self.len - sign);
    if (!text_add(vm, &t, &head) || !text_pad(vm, &t, fill.s, fill.len, left)) return false;
    if (!text_add(vm, &t, &tail) || !text_pad(vm, &t, fill.s, fill.len, more - left)) return false;
    *out = text_value(&t);
    return true;
}

static MUST str_expand(struct vm *vm, struct call *c, struct value *out) {
    const struct value *s = &c->self;
    struct text t = {0};
    int64_t size, column = 0;
    if (!want_int(vm, c, 0, 8, &size) || !vm_charge(vm, COST_CHAR * (size_t)s->len)) return false;
    for (size_t i = 0, n; i < s->len; i += n) {
        int32_t cp;
        n = utf8_step(s->s + i, s->len - i, &cp);
        struct value one = value_part(s, i, n);
        int64_t pad = size > 0 ? size - column % size : 0;
        column = cp == '\n' || cp == '\r' ? 0 : column + (cp == '\t' ? pad : 1);
        if (cp == '\t' ? !text_pad(vm, &t, " ", 1, pad) : !text_add(vm, &t, &one)) return false;
    }
    *out = text_value(&t);
    return true;
}

static MUST str_format(struct vm *vm, struct call *c, struct value *out) {
    return format_braces(vm, &c->self, c->args, out);
}

const struct builtin *str_method_find(const struct value *name) {
    static const struct builtin table[] = {
        {"capitalize", "", str_case},
        {"casefold", "", str_case},
        {"center", "width _fill", str_pad},
        {"count", "!_sub _start _end", str_count},
        {"endswith", "!_suffix _start _end", str_starts},
        {"expandtabs", "tabsize", str_expand},
        {"find", "!_sub _start _end", str_finds},
        {"format", "*", str_format},
        {"index", "!_sub _start _end", str_finds},
        {"isalnum", "", str_is},
        {"isalpha", "", str_is},
        {"isascii", "", str_is},
        {"isdecimal", "", str_is},
        {"isdigit", "", str_is},
        {"isidentifier", "", str_is_identifier},
        {"islower", "", str_is_case},
        {"isnumeric", "", str_is},
        {"isprintable", "", str_is},
        {"isspace", "", str_is},
        {"istitle", "", str_is_title},
        {"isupper", "", str_is_case},
        {"join", "!_items", str_join},
        {"ljust", "!_width _fill", str_pad},
        {"lower", "", str_case},
        {"lstrip", "_chars", str_strips},
        {"partition", "!_sep", str_partition},
        {"removeprefix", "!_prefix", str_remove},
        {"removesuffix", "!_suffix", str_remove},
        {"replace", "!_old !_new _count", str_replace},
        {"rfind", "!_sub _start _end", str_finds},
        {"rindex", "!_sub _start _end", str_finds},
        {"rjust", "!_width _fill", str_pad},
        {"rpartition", "!_sep", str_partition},
        {"rsplit", "sep maxsplit", str_splits},
        {"rstrip", "_chars", str_strips},
        {"split", "sep maxsplit", str_splits},
        {"splitlines", "keepends", str_splitlines},
        {"startswith", "!_prefix _start _end", str_starts},
        {"strip", "_chars", str_strips},
        {"swapcase", "", str_case},
        {"title", "", str_case},
        {"upper", "", str_case},
        {"zfill", "!_width", str_pad},
    };
    return builtin_find(table, sizeof table / sizeof *table, name);
}

/* --- dictionaries, lists, cyclers --- */

static MUST dict_get(struct vm *vm, struct call *c, struct value *out) {
    struct value *at;
    if (!dict_find(vm, c->self.dict, &c->arg[0], &at)) return false;
    *out = at ? *at : c->arg[1].kind == V_MISSING ? value_of(V_NONE) : c->arg[1];
    return true;
}

static MUST dict_views(struct vm *vm, struct call *c, struct value *out) {
    const struct dict *d = c->self.dict;
    struct list *l, *pair;
    if (!list_new(vm, d->n, &l)) return false;
    for (uint32_t i = 0; i < d->n; i++) {
        struct value v = c->name[0] == 'k' ? d->key[i] : d->val[i];
        if (c->name[0] == 'i') {
            if (!list_new(vm, 2, &pair)) return false;
            pair->item[pair->n++] = d->key[i];
            pair->item[pair->n++] = d->val[i];
            v = value_list(V_TUPLE, pair);
        }
        if (!list_add(vm, l, v)) return false;
    }
    *out = value_list(V_VIEW, l);
    out->len = c->name[0] == 'k' ? 1 : c->name[0] == 'v' ? 2 : 0;
    return true;
}

static MUST dict_copy(struct vm *vm, struct call *c, struct value *out) {
    *out = value_of(V_DICT);
    if (!dict_new(vm, &out->dict)) return false;
    for (uint32_t i = 0; i < c->self.dict->n; i++) {
        if (!dict_put(vm, out->dict, &c->self.dict->key[i], c->self.dict->val[i])) return false;
    }
    return true;
}

static MUST list_copy(struct vm *vm, struct call *c, struct value *out) {
    struct list *l;
    if (!list_new(vm, c->self.list->n, &l)) return false;
    for (size_t i = 0; i < c->self.list->n; i++) {
        if (!list_add(vm, l, c->self.list->item[i])) return false;
    }
    *out = value_list(V_LIST, l);
    return true;
}

/* index and count; the former between two places, from the end where they are negative. */
static MUST list_search(struct vm *vm, struct call *c, struct value *out) {
    const struct list *l = c->self.list;
    int64_t n = 0, size = (int64_t)l->n, from, to;
    if (!want_int(vm, c, 1, 0, &from) || !want_int(vm, c, 2, size, &to)) return false;
    if (from < 0) from = from < -size ? 0 : from + size;
    if (to < 0) to = to < -size ? 0 : to + size;
    for (size_t i = (size_t)from; i < l->n && (int64_t)i < to; i++) {
        bool same;
        if (!value_equal(vm, &l->item[i], &c->arg[0], &same)) return false;
        n += same;
        if (!same || c->name[0] == 'c') continue;
        *out = value_int((int64_t)i);
        return true;
    }
    if (c->name[0] == 'i') return vm_fail(vm, "index: it is not in the list");
    *out = value_int(n);
    return true;
}

static MUST cycler_next(struct vm *vm, struct call *c, struct value *out) {
    struct turns *t = c->self.turns;
    (void)vm;
    if (c->name[0] == 'r') t->at = 0;  // reset
    *out = c->name[0] == 'r' ? value_of(V_NONE) : t->list->item[t->at];
    if (c->name[0] == 'n') t->at = (t->at + 1) % t->list->n;
    return true;
}

static MUST refuse(struct vm *vm, struct call *c, struct value *out) {
    (void)out;
    return vm_fail(vm, "%s would change a value in place, which is not allowed", c->name);
}

static const struct builtin dict_table[] = {
    {"get", "!_key _default", dict_get},
    {"items", "", dict_views},
    {"keys", "", dict_views},
    {"values", "", dict_views},
    {"copy", "", dict_copy},
    {"update", "*", refuse},
    {"pop", "*", refuse},
    {"popitem", "*", refuse},
    {"clear", "*", refuse},
    {"setdefault", "*", refuse},
};

static const struct builtin list_table[] = {
    {"index", "!_value _start _end", list_search},
    {"count", "!_value", list_search},
    {"copy", "", list_copy},
    {"append", "*", refuse},
    {"extend", "*", refuse},
    {"insert", "*", refuse},
    {"pop", "*", refuse},
    {"remove", "*", refuse},
    {"reverse", "*", refuse},
    {"sort", "*", refuse},
    {"clear", "*", refuse},
};

static const struct builtin cycler_table[] = {{"next", "", cycler_next},
                                              {"reset", "", cycler_next}};

const struct builtin *method_find(uint8_t kind, const struct value *name) {
    switch (kind) {
    case V_STR: return str_method_find(name);
    case V_DICT: return builtin_find(dict_table, sizeof dict_table / sizeof *dict_table, name);
    case V_LIST: return builtin_find(list_table, sizeof list_table / sizeof *list_table, name);
    case V_TUPLE: return builtin_find(list_table, 2, name);
    case V_LOOP: return loop_method_find(name);
    case V_CYCLER: return builtin_find(cycler_table, 2, name);
    default: return NULL;
    }
}
