/* schema_text.c - what JSON looks like: space, strings, numbers, any value. */
#include "model/schema_own.h"

uint32_t schema_text(struct schema *r, const char *s) {
    return gtree_text(&r->tree, s);
}

uint32_t schema_cat(struct schema *r, const uint32_t *what, size_t n) {
    return gtree_cat(&r->tree, what, n);
}

uint32_t schema_maybe(struct schema *r, uint32_t what) {
    return gtree_repeat(&r->tree, what, 0, 1);
}

uint32_t schema_either(struct schema *r, uint32_t a, uint32_t b) {
    uint32_t alt = gtree_list(&r->tree, GNODE_ALT);
    gtree_add(&r->tree, alt, a);
    gtree_add(&r->tree, alt, b);
    return alt;
}

static uint32_t set(struct schema *r, const struct grange *range, size_t n) {
    return gtree_set(&r->tree, range, n);
}

static uint32_t space(struct schema *r) {
    static const struct grange blank[] = {{' ', ' '}, {'\t', '\t'}};
    uint32_t line = CAT(r, schema_text(r, "\n"), gtree_repeat(&r->tree, set(r, blank, 2), 0, 20));
    return schema_maybe(r, schema_either(r, schema_text(r, " "), line));
}

/* \uXXXX, surrogates only as pairs. */
static uint32_t escaped_code(struct schema *r) {
    static const struct grange hex[] = {{'0', '9'}, {'a', 'f'}, {'A', 'F'}},
                               not_d[] = {{'0', '9'},
                                          {'a', 'c'},
                                          {'A', 'C'},
                                          {'e', 'f'},
                                          {'E', 'F'}},
                               d[] = {{'d', 'd'}, {'D', 'D'}}, low[] = {{'0', '7'}},
                               first[] = {{'8', '9'}, {'a', 'b'}, {'A', 'B'}},
                               second[] = {{'c', 'f'}, {'C', 'F'}};
    struct gtree *t = &r->tree;
    uint32_t alt = gtree_list(t, GNODE_ALT);
    gtree_add(t, alt, CAT(r, set(r, not_d, 5), gtree_repeat(t, set(r, hex, 3), 3, 3)));
    gtree_add(t, alt, CAT(r, set(r, d, 2), set(r, low, 1), gtree_repeat(t, set(r, hex, 3), 2, 2)));
    gtree_add(t, alt,
              CAT(r, set(r, d, 2), set(r, first, 3), gtree_repeat(t, set(r, hex, 3), 2, 2),
                  schema_text(r, "\\u"), set(r, d, 2), set(r, second, 2),
                  gtree_repeat(t, set(r, hex, 3), 2, 2)));
    return CAT(r, schema_text(r, "\\u"), alt);
}

static uint32_t character(struct schema *r) {
    static const struct grange no[] = {{0, 0x1f}, {'"', '"'}, {'\\', '\\'}},
                               letter[] = {{'"', '"'}, {'\\', '\\'}, {'/', '/'}, {'b', 'b'},
                                           {'f', 'f'}, {'n', 'n'},   {'r', 'r'}, {'t', 't'}};
    uint32_t alt = gtree_list(&r->tree, GNODE_ALT);
    gtree_add(&r->tree, alt, gtree_set_not(&r->tree, no, 3));
    gtree_add(&r->tree, alt, CAT(r, schema_text(r, "\\"), set(r, letter, 8)));
    gtree_add(&r->tree, alt, escaped_code(r));
    return alt;
}

uint32_t schema_quoted(struct schema *r, uint32_t inside) {
    return CAT(r, schema_text(r, "\""), inside, schema_text(r, "\""));
}

uint32_t schema_any_number(struct schema *r) {
    static const struct grange digit[] = {{'0', '9'}}, first[] = {{'1', '9'}},
                               e[] = {{'e', 'e'}, {'E', 'E'}}, sign[] = {{'+', '+'}, {'-', '-'}};
    struct gtree *t = &r->tree;
    uint32_t whole = schema_either(
        r, schema_text(r, "0"),
        CAT(r, set(r, first, 1), gtree_repeat(t, set(r, digit, 1), 0, NUMBER_DIGITS - 1)));
    uint32_t part = CAT(r, schema_text(r, "."), gtree_repeat(t, set(r, digit, 1), 1, 16));
    uint32_t power = CAT(r, set(r, e, 2), schema_maybe(r, set(r, sign, 2)),
                         gtree_repeat(t, set(r, digit, 1), 1, 2));
    return CAT(r, schema_maybe(r, schema_text(r, "-")), whole, schema_maybe(r, part),
               schema_maybe(r, power));
}

/* "[", of items with commas between, "]"; or the same of an object's members. */
static uint32_t listed(struct schema *r, const char *open, uint32_t rule, const char *close) {
    struct gtree *t = &r->tree;
    uint32_t more = CAT(r, schema_text(r, ","), schema_common(r, RULE_SPACE), gtree_call(t, rule));
    uint32_t all = CAT(r, gtree_call(t, rule), gtree_repeat(t, more, 0, GREPEAT_ANY));
    return CAT(r, schema_text(r, open), schema_common(r, RULE_SPACE), schema_maybe(r, all),
               schema_common(r, RULE_SPACE), schema_text(r, close));
}

static uint32_t any_object(struct schema *r) {
    uint32_t member = gtree_rule(&r->tree);
    gtree_define(&r->tree, member,
                 CAT(r, schema_common(r, RULE_STRING), schema_text(r, ":"),
                     schema_common(r, RULE_SPACE), schema_common(r, RULE_ANY)));
    return listed(r, "{", member, "}");
}

static uint32_t any_array(struct schema *r) {
    uint32_t item = gtree_rule(&r->tree);
    gtree_define(&r->tree, item, schema_common(r, RULE_ANY));
    return listed(r, "[", item, "]");
}

static uint32_t any_value(struct schema *r) {
    uint32_t alt = gtree_list(&r->tree, GNODE_ALT);
    static const char *const word[] = {"null", "true", "false"};
    for (size_t i = 0; i < 3; i++) gtree_add(&r->tree, alt, schema_text(r, word[i]));
    gtree_add(&r->tree, alt, schema_any_number(r));
    gtree_add(&r->tree, alt, schema_common(r, RULE_STRING));
    gtree_add(&r->tree, alt, schema_common(r, RULE_OBJECT));
    gtree_add(&r->tree, alt, schema_common(r, RULE_ARRAY));
    return alt;
}

static uint32_t common_body(struct schema *r, enum schema_rule which) {
    switch (which) {
    case RULE_SPACE: return space(r);
    case RULE_CHARACTER: return character(r);
    case RULE_STRING:
        return schema_quoted(
            r, gtree_repeat(&r->tree, schema_common(r, RULE_CHARACTER), 0, GREPEAT_ANY));
    case RULE_ANY: return any_value(r);
    case RULE_OBJECT: return any_object(r);
    case RULE_ARRAY: return any_array(r);
    case N_SCHEMA_RULE: break;
    }
    return 0;
}

uint32_t schema_common(struct schema *r, enum schema_rule which) {
    if (!r->common[which]) {
        r->common[which] = gtree_rule(&r->tree);
        if (r->tree.is_full) return 0;
        gtree_define(&r->tree, r->common[which], common_body(r, which));
    }
    return gtree_call(&r->tree, r->common[which]);
}
