/* schema_regex.c - the pattern of a JSON schema: ECMAScript's regular expressions, of them characters,
 * classes, groups, alternatives and repetition.
 *
 * What matches is the text that the JSON string stands for; so each character becomes what JSON writes
 * for it. An alternative may match anywhere unless it has ^ or $ itself. Look-around, back references and
 * word borders are refused. */
#include "model/schema_own.h"

#include <string.h>

enum { SET_MOST = 128 };  // ranges of one class

struct regex {
    struct gtree *t;
    const unsigned char *s;
    size_t at, len;
    unsigned nest;
};

struct set {
    struct grange range[SET_MOST];
    size_t n;
};

static MUST refuse(const struct regex *r, enum err_code code, const char *what, struct err *e) {
    return err_set(e, code, "pattern at byte %zu: %s", r->at, what);
}

static int peek(const struct regex *r) {
    return r->at < r->len ? r->s[r->at] : -1;
}

static bool take(struct regex *r, char c) {
    bool is_there = peek(r) == (unsigned char)c;
    r->at += is_there;
    return is_there;
}

/* --- sets --- */

static MUST add_range(const struct regex *r, struct set *s, uint32_t from, uint32_t to,
                      struct err *e) {
    if (s->n == SET_MOST) return refuse(r, ERR_LIMIT, "a class of too many parts", e);
    s->range[s->n++] = (struct grange){from, to};
    return true;
}

static const struct grange digit_set[] = {{'0', '9'}};
static const struct grange word_set[] = {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}};
static const struct grange space_set[] = {
    {'\t', '\r'},     {' ', ' '},       {0xa0, 0xa0},     {0x1680, 0x1680}, {0x2000, 0x200a},
    {0x2028, 0x2029}, {0x202f, 0x202f}, {0x205f, 0x205f}, {0x3000, 0x3000}, {0xfeff, 0xfeff}};

/* \d \w \s, or with a capital all others; false: none of these letters. */
static bool find_class(int c, const struct grange **set, size_t *n, bool *is_not) {
    static const struct {
        char letter;
        const struct grange *set;
        size_t n;
    } known[] = {{'d', digit_set, 1}, {'w', word_set, 4}, {'s', space_set, 10}};
    for (size_t i = 0; i < 3; i++) {
        if ((c | 32) != known[i].letter) continue;
        *set = known[i].set;
        *n = known[i].n;
        *is_not = c != known[i].letter;
        return true;
    }
    return false;
}

/* Ascending and apart, as they stand above. */
static MUST add_class(const struct regex *r, struct set *out, const struct grange *set, size_t n,
                      bool is_not, struct err *e) {
    uint32_t next = 0;
    for (size_t i = 0; i < n; i++) {
        bool ok = !is_not ? add_range(r, out, set[i].from, set[i].to, e)
                          : set[i].from == next || add_range(r, out, next, set[i].from - 1, e);
        if (!ok) return false;
        next = set[i].to + 1;
    }
    return !is_not || add_range(r, out, next, 0x10ffff, e);
}

static MUST read_hex(struct regex *r, unsigned n, uint32_t *cp, struct err *e) {
    *cp = 0;
    for (unsigned i = 0; i < n; i++, r->at++) {
        int c = peek(r), low = c | 32;
        int d = c >= '0' && c <= '9' ? c - '0' : low >= 'a' && low <= 'f' ? low - 'a' + 10 : -1;
        if (d < 0) return refuse(r, ERR_FORMAT, "a hexadecimal digit is missing", e);
        *cp = *cp << 4 | (uint32_t)d;
    }
    return true;
}

/* After a backslash, a single character. */
static MUST read_escape(struct regex *r, uint32_t *cp, struct err *e) {
    static const char from[] = "nrtfv0", to[] = "\n\r\t\f\v";
    int c = peek(r);
    const char *known = c > 0 ? strchr(from, c) : NULL;
    if (c < 0) return refuse(r, ERR_FORMAT, "it ends with a backslash", e);
    bool is_letter = (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z') || c >= 0x80;
    if (is_letter && !known && c != 'x' && c != 'u') {
        return refuse(r, ERR_UNSUPPORTED, "this escape is not supported here", e);
    }
    r->at++;
    if (known) {
        *cp = (uint32_t)to[known - from];
        return true;
    }
    if (c == 'x') return read_hex(r, 2, cp, e);
    if (c == 'u') return read_hex(r, 4, cp, e);
    *cp = (uint32_t)c;
    return true;
}

/* A character as it stands; the text is valid UTF-8, as it came out of JSON. */
static uint32_t read_utf8(struct regex *r) {
    uint32_t c = r->s[r->at++];
    unsigned more = c >= 0xf0 ? 3 : c >= 0xe0 ? 2 : c >= 0xc0 ? 1 : 0;
    if (more) c &= 0x3fU >> more;
    while (more-- && r->at < r->len) c = c << 6 | (r->s[r->at++] & 0x3f);
    return c;
}

/* One part of a class: a letter's class, a character, or a range of them. */
static MUST read_part(struct regex *r, struct set *s, struct err *e) {
    const struct grange *set;
    size_t n;
    bool is_not;
    uint32_t from, to;
    if (take(r, '\\')) {
        if (find_class(peek(r), &set, &n, &is_not)) {
            r->at++;
            return add_class(r, s, set, n, is_not, e);
        }
        if (!read_escape(r, &from, e)) return false;
    } else {
        from = read_utf8(r);
    }
    to = from;
    if (peek(r) == '-' && r->at + 1 < r->len && r->s[r->at + 1] != ']') {
        r->at++;
        if (take(r, '\\')) {
            if (!read_escape(r, &to, e)) return false;
        } else {
            to = read_utf8(r);
        }
    }
    if (to < from) return refuse(r, ERR_FORMAT, "a range runs backwards", e);
    return add_range(r, s, from, to, e);
}

static MUST read_set(struct regex *r, uint32_t *out, struct err *e) {
    struct set s = {.n = 0};
    bool is_not = take(r, '^');
    while (!take(r, ']')) {
        if (r->at >= r->len) return refuse(r, ERR_FORMAT, "a bracket is not closed", e);
        if (!read_part(r, &s, e)) return false;
    }
    *out = schema_char(r->t, s.range, s.n, is_not);
    return true;
}

/* What JSON writes for a character of the set: itself, or with a backslash. Control characters that have
 * no short escape are left out. */
uint32_t schema_char(struct gtree *t, const struct grange *range, size_t n, bool is_not) {
    static const char special[] = "\"\\\b\f\n\r\t", letter[] = "\"\\bfnrt";
    uint32_t alt = gtree_list(t, GNODE_ALT);
    struct grange plain[2 * SET_MOST + 8];
    size_t n_plain = 0;
    for (size_t i = 0; i < n && !is_not; i++) {  // without what must be escaped
        const struct grange hole[] = {{' ', '!'}, {'#', '['}, {']', 0x10ffff}};
        for (size_t k = 0; k < 3 && n_plain < 2 * SET_MOST + 8; k++) {
            uint32_t from = range[i].from > hole[k].from ? range[i].from : hole[k].from;
            uint32_t to = range[i].to < hole[k].to ? range[i].to : hole[k].to;
            if (from <= to) plain[n_plain++] = (struct grange){from, to};
        }
    }
    if (is_not) {
        memcpy(plain, range, n * sizeof *plain);
        plain[n] = (struct grange){0, 0x1f};
        plain[n + 1] = (struct grange){'"', '"'};
        plain[n + 2] = (struct grange){'\\', '\\'};
        n_plain = n + 3;
    }
    gtree_add(t, alt, is_not ? gtree_set_not(t, plain, n_plain) : gtree_set(t, plain, n_plain));
    for (size_t k = 0; special[k]; k++) {
        bool is_in = false;
        uint32_t cp = (unsigned char)special[k];
        for (size_t i = 0; i < n; i++) is_in |= cp >= range[i].from && cp <= range[i].to;
        const char both[] = {'\\', letter[k]};
        if (is_in != is_not) gtree_add(t, alt, gtree_bytes(t, both, 2));
    }
    return alt;
}

/* --- items --- */

static MUST read_alternatives(struct regex *r, uint32_t *out, struct err *e);

static MUST read_group(struct regex *r, uint32_t *out, struct err *e) {
    if (take(r, '?') && !take(r, ':')) {
        return refuse(r, ERR_UNSUPPORTED, "only (?: ) and ( ) are supported here", e);
    }
    if (++r->nest > GRAMMAR_NEST) return refuse(r, ERR_LIMIT, "groups nest too deeply", e);
    if (!read_alternatives(r, out, e)) return false;
    r->nest--;
    return take(r, ')') || refuse(r, ERR_FORMAT, "a parenthesis is not closed", e);
}

static MUST read_item(struct regex *r, uint32_t *out, struct err *e) {
    static const struct grange line_end[] = {{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}};
    const struct grange *set;
    struct grange one;
    size_t n;
    bool is_not;
    if (take(r, '(')) return read_group(r, out, e);
    if (take(r, '[')) return read_set(r, out, e);
    if (take(r, '.')) {
        *out = schema_char(r->t, line_end, 3, true);
        return true;
    }
    int c = peek(r);
    if (c == '^' || c == '$') {
        return refuse(r, ERR_UNSUPPORTED,
                      "^ and $ can only stand at the ends, as in ^(?:a|b)$ or ^a$|^b$", e);
    }
    if (c == '*' || c == '+' || c == '?' || c == '{' || c == '}' || c == ']') {
        return refuse(r, ERR_FORMAT, "nothing stands before it", e);
    }
    if (take(r, '\\')) {
        if (find_class(peek(r), &set, &n, &is_not)) {
            r->at++;
            *out = schema_char(r->t, set, n, is_not);
            return true;
        }
        if (!read_escape(r, &one.from, e)) return false;
    } else {
        one.from = read_utf8(r);
    }
    one.to = one.from;
    *out = schema_char(r->t, &one, 1, false);
    return true;
}

static MUST read_count(struct regex *r, int32_t *n, struct err *e) {
    size_t begin = r->at;
    for (*n = 0; peek(r) >= '0' && peek(r) <= '9'; r->at++) {
        *n = *n * 10 + (peek(r) - '0');
        if (*n > GREPEAT_MAX) return refuse(r, ERR_LIMIT, "more than 10000 repetitions", e);
    }
    return r->at > begin || refuse(r, ERR_FORMAT, "a number is missing", e);
}

static MUST read_repeat(struct regex *r, uint32_t *item, struct err *e) {
    int32_t from = 0, to = GREPEAT_ANY;
    if (take(r, '+')) {
        from = 1;
    } else if (take(r, '?')) {
        to = 1;
    } else if (take(r, '{')) {
        if (!read_count(r, &from, e)) return false;
        to = from;
        if (take(r, ',')) {
            to = GREPEAT_ANY;
            if (peek(r) != '}' && !read_count(r, &to, e)) return false;
        }
        if (!take(r, '}')) return refuse(r, ERR_FORMAT, "} is missing", e);
        if (to >= 0 && to < from) return refuse(r, ERR_FORMAT, "at least is more than at most", e);
    } else if (!take(r, '*')) {
        return true;
    }
    take(r, '?');  // lazy or greedy: the same texts match
    *item = gtree_repeat(r->t, *item, (uint32_t)from, to);
    return true;
}

static MUST read_alternatives(struct regex *r, uint32_t *out, struct err *e) {
    *out = gtree_list(r->t, GNODE_ALT);
    do {
        uint32_t list = gtree_list(r->t, GNODE_CAT), item;
        while (r->at < r->len && peek(r) != '|' && peek(r) != ')') {
            if (!read_item(r, &item, e) || !read_repeat(r, &item, e)) return false;
            gtree_add(r->t, list, item);
        }
        gtree_add(r->t, *out, list);
    } while (take(r, '|'));
    return true;
}

enum { AT_BEGIN = 1, AT_END = 2, N_ENDS = 4 };

/* One alternative of the whole pattern; ends: which of ^ and $ it has. */
static MUST read_branch(struct regex *r, unsigned *ends, uint32_t *out, struct err *e) {
    uint32_t item;
    *out = gtree_list(r->t, GNODE_CAT);
    *ends = take(r, '^') ? AT_BEGIN : 0;
    while (r->at < r->len && peek(r) != '|' && peek(r) != ')') {
        bool is_last = r->at + 1 == r->len || r->s[r->at + 1] == '|';
        if (is_last && take(r, '$')) {
            *ends |= AT_END;
            return true;
        }
        if (!read_item(r, &item, e) || !read_repeat(r, &item, e)) return false;
        gtree_add(r->t, *out, item);
    }
    return true;
}

/* What stands before and after an alternative is free where no ^ or $ does. Those with the same ends share
 * it: if each had its own, a text could stand in all of them at once. */
MUST schema_pattern(struct gtree *t, const char *pattern, size_t len, uint32_t any, uint32_t *out,
                    struct err *e) {
    struct regex r = {.t = t, .s = (const unsigned char *)pattern, .len = len};
    uint32_t branch, list[N_ENDS];
    bool is_used[N_ENDS] = {false};
    unsigned ends;
    for (unsigned i = 0; i < N_ENDS; i++) list[i] = gtree_list(t, GNODE_ALT);
    do {
        if (!read_branch(&r, &ends, &branch, e)) return false;
        gtree_add(t, list[ends], branch);
        is_used[ends] = true;
    } while (take(&r, '|'));
    *out = gtree_list(t, GNODE_ALT);
    for (unsigned i = 0; i < N_ENDS; i++) {
        if (!is_used[i]) continue;
        uint32_t all = gtree_list(t, GNODE_CAT);
        if (!(i & AT_BEGIN)) gtree_add(t, all, gtree_repeat(t, gtree_call(t, any), 0, GREPEAT_ANY));
        gtree_add(t, all, list[i]);
        if (!(i & AT_END)) gtree_add(t, all, gtree_repeat(t, gtree_call(t, any), 0, GREPEAT_ANY));
        gtree_add(t, *out, all);
    }
    return r.at == r.len || refuse(&r, ERR_FORMAT, "a parenthesis too many", e);
}
