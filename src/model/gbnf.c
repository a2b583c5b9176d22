/* gbnf.c - GBNF (the notation of llama.cpp's grammars) to trees of rules.
 *
 * name ::= alternatives, a line each but inside parentheses and after ::= and |; "text", [set], [^set],
 * . (any character), name, (group), and after them * + ? {n} {n,} {n,m}; # begins a comment. Escapes:
 * \n \r \t \\ \" \[ \] \xHH \uHHHH \UHHHHHHHH, all of code points. The whole text is a "root". */
#include "model/grammar_own.h"

#include <stdlib.h>
#include <string.h>

enum { NAME_SLOTS = 2 * GRULES };

struct name {
    const char *s;  // where it stood first
    uint32_t len;
    uint32_t rule1;  // the rule + 1; 0: a free slot
    bool is_defined;
};

struct reader {
    const char *s;
    size_t at, len;
    unsigned nest;
    struct gtree tree;
    struct name *name;  // [NAME_SLOTS] by hash
    uint32_t *slot;     // [GRULES] of a rule
    char shown[64];
};

/* --- characters --- */

static MUST fail_at(const struct reader *r, size_t at, const char *what, struct err *e) {
    unsigned line = 1, column = 1;
    for (size_t i = 0; i < at && i < r->len; i++) {
        bool is_end = r->s[i] == '\n';
        line += is_end;
        column = is_end ? 1 : column + ((r->s[i] & 0xc0) != 0x80);
    }
    return err_set(e, ERR_FORMAT, "grammar %u:%u: %s", line, column, what);
}

static MUST fail(const struct reader *r, const char *what, struct err *e) {
    return fail_at(r, r->at, what, e);
}

/* The character at hand, -1 at the end. */
static int peek(const struct reader *r) {
    return r->at < r->len ? (unsigned char)r->s[r->at] : -1;
}

static bool take(struct reader *r, char c) {
    bool is_there = peek(r) == (unsigned char)c;
    r->at += is_there;
    return is_there;
}

enum lines { ONE_LINE, MANY_LINES };

static void skip_space(struct reader *r, enum lines lines) {
    for (;;) {
        int c = peek(r);
        if (c == '#') {
            while (peek(r) >= 0 && peek(r) != '\n' && peek(r) != '\r') r->at++;
        } else if (c == ' ' || c == '\t' || (lines == MANY_LINES && (c == '\n' || c == '\r'))) {
            r->at++;
        } else {
            return;
        }
    }
}

static MUST read_hex(struct reader *r, unsigned n, uint32_t *cp, struct err *e) {
    *cp = 0;
    for (unsigned i = 0; i < n; i++) {
        int c = peek(r), low = c | 32;
        int digit = c >= '0' && c <= '9' ? c - '0' : low >= 'a' && low <= 'f' ? low - 'a' + 10 : -1;
        if (digit < 0) return fail(r, "a hexadecimal digit is missing", e);
        *cp = *cp << 4 | (uint32_t)digit;
        r->at++;
    }
    if (*cp <= 0x10ffff && (*cp < 0xd800 || *cp > 0xdfff)) return true;
    return fail(r, "the number is no character's", e);
}

static MUST read_escape(struct reader *r, uint32_t *cp, struct err *e) {
    static const char from[] = "nrt\\\"[]", to[] = "\n\r\t\\\"[]";
    int c = peek(r);
    const char *known = c > 0 ? strchr(from, c) : NULL;
    r->at += c >= 0;
    if (known) {
        *cp = (uint32_t)to[known - from];
        return true;
    }
    switch (c) {
    case 'x': return read_hex(r, 2, cp, e);
    case 'u': return read_hex(r, 4, cp, e);
    case 'U': return read_hex(r, 8, cp, e);
    default: r->at -= c >= 0; return fail(r, "an unknown escape after \\", e);
    }
}

/* One character of a literal or a set. */
static MUST read_char(struct reader *r, uint32_t *cp, struct err *e) {
    int c = peek(r);
    if (c < 0) return fail(r, "the text ends inside quotes or brackets", e);
    if (take(r, '\\')) return read_escape(r, cp, e);
    unsigned len = c < 0x80 ? 1 : c >= 0xf0 && c < 0xf5 ? 4 : c >= 0xe0 ? 3 : c >= 0xc2 ? 2 : 0;
    if (c >= 0xf5 || !len || len > r->len - r->at) return fail(r, "not UTF-8", e);
    *cp = len == 1 ? (uint32_t)c : (uint32_t)c & (0x7fU >> len);
    for (unsigned i = 1; i < len; i++) {
        unsigned char more = (unsigned char)r->s[r->at + i];
        if ((more & 0xc0) != 0x80) return fail(r, "not UTF-8", e);
        *cp = *cp << 6 | (more & 0x3f);
    }
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    if (*cp < least[len] || *cp > 0x10ffff || (*cp >= 0xd800 && *cp < 0xe000)) {
        return fail(r, "not UTF-8", e);
    }
    r->at += len;
    return true;
}

/* --- names --- */

static bool is_word(int c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_';
}

static uint32_t hash(const char *s, size_t len) {
    uint32_t h = 2166136261;  // FNV-1a
    for (size_t i = 0; i < len; i++) h = (h ^ (uint8_t)s[i]) * 16777619;
    return h;
}

/* The rule of a name, made when it is new. */
static MUST find_name(struct reader *r, const char *s, size_t len, struct name **out,
                      struct err *e) {
    uint32_t i = hash(s, len) & (NAME_SLOTS - 1);
    for (; r->name[i].rule1; i = (i + 1) & (NAME_SLOTS - 1)) {
        *out = &r->name[i];
        if ((*out)->len == len && memcmp((*out)->s, s, len) == 0) return true;
    }
    uint32_t rule = gtree_rule(&r->tree);
    if (r->tree.is_full) {
        return err_set(e, ERR_LIMIT, "the grammar has more than %d rules", GRULES);
    }
    r->slot[rule] = i;
    r->name[i] = (struct name){.s = s, .len = (uint32_t)len, .rule1 = rule + 1};
    *out = &r->name[i];
    return true;
}

static MUST read_name(struct reader *r, struct name **out, struct err *e) {
    size_t from = r->at;
    while (is_word(peek(r))) r->at++;
    return find_name(r, r->s + from, r->at - from, out, e);
}

static const char *name_of(const void *ctx, uint32_t rule) {
    struct reader *r = (struct reader *)(uintptr_t)ctx;
    const struct name *n = &r->name[r->slot[rule]];
    size_t len = n->len < sizeof r->shown - 1 ? n->len : sizeof r->shown - 1;
    memcpy(r->shown, n->s, len);
    r->shown[len] = '\0';
    return r->shown;
}

/* --- items --- */

static size_t utf8(uint32_t cp, char out[static 4]) {
    if (cp < 0x80) {
        out[0] = (char)cp;
        return 1;
    }
    size_t len = cp < 0x800 ? 2 : cp < 0x10000 ? 3 : 4;
    static const unsigned char head[] = {0, 0, 0xc0, 0xe0, 0xf0};
    for (size_t i = len; i-- > 1; cp >>= 6) out[i] = (char)(0x80 | (cp & 0x3f));
    out[0] = (char)(head[len] | cp);
    return len;
}

/* Grown to twice its size; false: no memory, and *p is as it was. */
static bool twice(void *p, size_t *cap, size_t size) {
    void *old, *grown;
    memcpy(&old, p, sizeof old);
    grown = realloc(old, 2 * *cap * size);
    if (!grown) return false;
    memcpy(p, &grown, sizeof grown);
    *cap *= 2;
    // cppcheck-suppress memleak ; *p has it
    return true;
}

static MUST no_memory(struct err *e) {
    return err_set(e, ERR_MEMORY, "no memory for a grammar");
}

static MUST read_literal(struct reader *r, uint32_t *item, struct err *e) {
    size_t begin = r->at++, n = 0, cap = 64;
    char *text = malloc(cap);
    bool ok = true;
    if (!text) return no_memory(e);
    while (ok && !take(r, '"')) {
        uint32_t cp = 0;
        if (r->at >= r->len) {
            ok = fail_at(r, begin, "this quote is not closed", e);
        } else if (cap - n < 4 && !twice(&text, &cap, 1)) {
            ok = no_memory(e);
        } else {
            ok = read_char(r, &cp, e);
            n += utf8(cp, text + n);
        }
    }
    if (ok) *item = gtree_bytes(&r->tree, text, n);
    free(text);
    return ok;
}

static MUST read_range(struct reader *r, struct grange *range, struct err *e) {
    if (!read_char(r, &range->from, e)) return false;
    range->to = range->from;
    bool is_range = peek(r) == '-' && r->at + 1 < r->len && r->s[r->at + 1] != ']';
    if (!is_range) return true;
    r->at++;
    if (!read_char(r, &range->to, e)) return false;
    return range->to >= range->from || fail(r, "a range of characters runs backwards", e);
}

static MUST read_set(struct reader *r, uint32_t *item, struct err *e) {
    size_t begin = r->at++, n = 0, cap = 16;
    bool is_not = take(r, '^'), ok = true;
    struct grange *range = malloc(cap * sizeof *range);
    if (!range) return no_memory(e);
    while (ok && !take(r, ']')) {
        if (r->at >= r->len) {
            ok = fail_at(r, begin, "this bracket is not closed", e);
        } else if (n == cap && !twice(&range, &cap, sizeof *range)) {
            ok = no_memory(e);
        } else {
            ok = read_range(r, &range[n++], e);
        }
    }
    if (ok && !is_not) *item = gtree_set(&r->tree, range, n);
    if (ok && is_not) *item = gtree_set_not(&r->tree, range, n);
    free(range);
    return ok;
}

static MUST read_alternatives(struct reader *r, uint32_t *out, struct err *e);

static MUST read_group(struct reader *r, uint32_t *item, struct err *e) {
    size_t begin = r->at++;
    if (++r->nest > GRAMMAR_NEST) return fail(r, "groups nest too deeply", e);
    skip_space(r, MANY_LINES);
    if (!read_alternatives(r, item, e)) return false;
    r->nest--;
    return take(r, ')') || fail_at(r, begin, "this parenthesis is not closed", e);
}

static MUST read_item(struct reader *r, uint32_t *item, struct err *e) {
    struct name *name;
    switch (peek(r)) {
    case '"': return read_literal(r, item, e);
    case '[': return read_set(r, item, e);
    case '(': return read_group(r, item, e);
    case '.':
        r->at++;
        *item = gtree_set_not(&r->tree, NULL, 0);
        return true;
    case '<':
    case '!': return fail(r, "tokens by name are not supported in a grammar here", e);
    default: break;
    }
    if (!read_name(r, &name, e)) return false;
    *item = gtree_call(&r->tree, name->rule1 - 1);
    return true;
}

static MUST read_count(struct reader *r, int32_t *n, struct err *e) {
    size_t begin = r->at;
    *n = 0;
    while (peek(r) >= '0' && peek(r) <= '9') {
        *n = *n * 10 + (peek(r) - '0');
        if (*n > GREPEAT_MAX) return fail(r, "more than 10000 repetitions", e);
        r->at++;
    }
    return r->at > begin || fail(r, "a number of repetitions is missing", e);
}

static MUST read_bounds(struct reader *r, int32_t *from, int32_t *to, struct err *e) {
    skip_space(r, MANY_LINES);
    if (!read_count(r, from, e)) return false;
    skip_space(r, MANY_LINES);
    *to = *from;
    if (take(r, ',')) {
        skip_space(r, MANY_LINES);
        *to = GREPEAT_ANY;
        if (peek(r) != '}' && !read_count(r, to, e)) return false;
        skip_space(r, MANY_LINES);
    }
    if (!take(r, '}')) return fail(r, "} is missing", e);
    return *to < 0 || *to >= *from || fail(r, "repeats at least more often than at most", e);
}

/* What follows an item, any number of times. Each wraps the one before, so they count as nesting. */
static MUST read_repeats(struct reader *r, uint32_t *item, enum lines lines, struct err *e) {
    for (unsigned n = 0;; n++) {
        int32_t from = 0, to = GREPEAT_ANY;
        skip_space(r, lines);
        if (take(r, '+')) {
            from = 1;
        } else if (take(r, '?')) {
            to = 1;
        } else if (take(r, '{')) {
            if (!read_bounds(r, &from, &to, e)) return false;
        } else if (!take(r, '*')) {
            return true;
        }
        if (n == GRAMMAR_NEST) return fail(r, "an item with too many repetitions", e);
        *item = gtree_repeat(&r->tree, *item, (uint32_t)from, to);
    }
}

static bool begins_item(int c) {
    return is_word(c) || (c > 0 && strchr("\"[(.<!", c));
}

/* The next alternative may stand on a line of its own, a line that goes on with | . */
static bool take_bar(struct reader *r, enum lines lines) {
    size_t at = r->at;
    skip_space(r, MANY_LINES);
    if (take(r, '|')) return true;
    if (lines == ONE_LINE) r->at = at;
    return false;
}

static MUST read_alternatives(struct reader *r, uint32_t *out, struct err *e) {
    enum lines lines = r->nest ? MANY_LINES : ONE_LINE;
    *out = gtree_list(&r->tree, GNODE_ALT);
    do {
        uint32_t list = gtree_list(&r->tree, GNODE_CAT), item = 0;
        skip_space(r, MANY_LINES);
        while (begins_item(peek(r))) {
            if (!read_item(r, &item, e) || !read_repeats(r, &item, lines, e)) return false;
            gtree_add(&r->tree, list, item);
        }
        gtree_add(&r->tree, *out, list);
    } while (take_bar(r, lines));
    return true;
}

/* --- rules --- */

static MUST read_rule(struct reader *r, struct err *e) {
    struct name *name;
    uint32_t body;
    size_t begin = r->at;
    if (!is_word(peek(r))) return fail(r, "the name of a rule is missing", e);
    if (!read_name(r, &name, e)) return false;
    if (name->is_defined) return fail_at(r, begin, "this rule is defined a second time", e);
    name->is_defined = true;
    skip_space(r, ONE_LINE);
    if (r->len - r->at < 3 || memcmp(r->s + r->at, "::=", 3)) return fail(r, "::= is missing", e);
    r->at += 3;
    if (!read_alternatives(r, &body, e)) return false;
    gtree_define(&r->tree, name->rule1 - 1, body);
    if (peek(r) >= 0 && peek(r) != '\n' && peek(r) != '\r') {
        return fail(r, "not what can stand in a rule", e);
    }
    skip_space(r, MANY_LINES);
    return true;
}

static MUST read_rules(struct reader *r, struct err *e) {
    struct name *root;
    if (!find_name(r, "root", 4, &root, e)) return false;  // rule 0
    skip_space(r, MANY_LINES);
    while (r->at < r->len) {
        if (!read_rule(r, e)) return false;
    }
    for (uint32_t i = 0; i < r->tree.n_rule && !r->tree.is_full; i++) {
        const struct name *n = &r->name[r->slot[i]];
        if (n->is_defined) continue;
        if (i == 0) return err_set(e, ERR_FORMAT, "grammar: there is no rule \"root\"");
        return fail_at(r, (size_t)(n->s - r->s), "a rule of this name is not defined", e);
    }
    return true;
}

MUST gbnf_read(struct grammar **g, const char *text, size_t len, struct err *e) {
    struct reader *r = calloc(1, sizeof *r);
    if (!r) return err_set(e, ERR_MEMORY, "no memory for a grammar");
    *r = (struct reader){.s = text,
                         .len = len,
                         .name = calloc(NAME_SLOTS, sizeof *r->name),
                         .slot = calloc(GRULES, sizeof *r->slot)};
    gtree_init(&r->tree);
    bool ok = r->name && r->slot;
    if (!ok) err_set(e, ERR_MEMORY, "no memory for a grammar");
    ok = ok && read_rules(r, e) && grammar_compile(g, &r->tree, name_of, r, e);
    gtree_free(&r->tree);
    free(r->name);
    free(r->slot);
    free(r);
    return ok;
}
