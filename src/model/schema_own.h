/* schema_own.h - what schema*.c share. Nodes are gtree's; each is used once, what is wanted more often is a
 * rule. */
#ifndef MODEL_SCHEMA_OWN_H
#define MODEL_SCHEMA_OWN_H

#include "base/json.h"
#include "model/grammar_own.h"

/* ---- the reader */

enum {
    SCHEMA_REFS = 512,
    SCHEMA_PATH = 160,
    SCHEMA_PARTS = 128,
    SCHEMA_STEPS = 1 << 21  // of joining: keys looked through, bytes of values compared
};

/* Rules that many schemas want, made when first wanted. */
enum schema_rule {
    RULE_SPACE,
    RULE_CHARACTER,
    RULE_STRING,
    RULE_ANY,
    RULE_OBJECT,
    RULE_ARRAY,
    N_SCHEMA_RULE
};

struct schema_ref {
    const struct json_value *to;
    uint32_t rule;
};

/* Schemas that are to hold at once: one, what its $ref and allOf lead to, and of each anyOf and oneOf among
 * them one way. */
struct joined {
    const struct json_value *whole;  // whose parts they are
    const struct json_value *part[SCHEMA_PARTS];
    unsigned n;
    bool is_never;  // false is among them
    unsigned n_way;
};

struct schema {
    struct gtree tree;
    const struct json_value *root;
    struct schema_ref ref[SCHEMA_REFS];
    unsigned n_ref, n_read;
    uint32_t n_step;
    char note[GRAMMAR_NOTE - 40];    // what is not enforced, each once
    uint32_t common[N_SCHEMA_RULE];  // rule, 0: not yet (that is the root's)
    unsigned nest;
    char path[SCHEMA_PATH];  // of the schema at hand, for sentences
};

/* A schema at v, or at the member or item of that name of the one at hand. Depth: GRAMMAR_NEST. */
MUST schema_visit(struct schema *r, const struct json_value *v, uint32_t *out, struct err *e);
MUST schema_visit_at(struct schema *r, const char *name, size_t len, const struct json_value *v,
                     uint32_t *out, struct err *e);
/* A schema that says more than one $ref, anyOf or oneOf: v as joined. */
MUST schema_join(struct schema *r, const struct json_value *v, uint32_t *out, struct err *e);
/* Whether both are written alike. Fails: ERR_LIMIT when much was compared already; ERR_MEMORY. */
MUST schema_alike(struct schema *r, const struct json_value *a, const struct json_value *b,
                  bool *is_alike, struct err *e);
MUST schema_object(struct schema *r, const struct joined *j, uint32_t *out, struct err *e);
MUST schema_array(struct schema *r, const struct json_value *v, uint32_t *out, struct err *e);
MUST schema_string(struct schema *r, const struct json_value *v, uint32_t *out, struct err *e);
MUST schema_bounded(struct schema *r, const struct json_value *v, bool is_integer, uint32_t *out,
                    struct err *e);

/* Where "#/$defs/x" leads; NULL: nowhere here. */
const struct json_value *schema_target(const struct schema *r, struct json_chars ref);
/* The list at `key` of anyOf and its like; *out NULL: there is none. */
MUST schema_list(struct schema *r, const struct json_value *v, const char *key,
                 const struct json_value **out, struct err *e);
/* A keyword that is taken and not enforced. */
bool schema_is_noted(const char *key, const struct json_value *value);
/* That the schema asks for such; strings, lists: what types are allowed. */
MUST schema_take_notes(struct schema *r, const struct json_value *v, bool strings, bool lists,
                       struct err *e);
/* Every key must be a note, not enforced or one of the list, which NULL ends; what: for the sentence. */
MUST schema_check_keys(struct schema *r, const struct json_value *v, const char *const *list,
                       const char *what, struct err *e);
/* From and to, of minLength and its like; to GREPEAT_ANY: not said. */
MUST schema_counts(struct schema *r, const struct json_value *v, const char *min, const char *max,
                   int32_t *from, int32_t *to, struct err *e);
/* Sentences that begin with the place. */
MUST schema_refuse(const struct schema *r, enum err_code code, const char *what, struct err *e);
MUST schema_refuse_key(const struct schema *r, enum err_code code, struct json_chars key,
                       const char *what, struct err *e);

/* ---- texts */

uint32_t schema_text(struct schema *r, const char *s);
uint32_t schema_cat(struct schema *r, const uint32_t *what, size_t n);
#define CAT(r, ...)                                                                                \
    schema_cat(r, (const uint32_t[]){__VA_ARGS__},                                                 \
               sizeof((uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t))

uint32_t schema_maybe(struct schema *r, uint32_t what);
uint32_t schema_either(struct schema *r, uint32_t a, uint32_t b);
uint32_t schema_quoted(struct schema *r, uint32_t inside);
uint32_t schema_any_number(struct schema *r);
/* A call of the rule. */
uint32_t schema_common(struct schema *r, enum schema_rule which);

/* ---- numbers, patterns, formats */

enum { NUMBER_DIGITS = 18, FRACTION_DIGITS = 16 };  // before and behind the point
#define NUMBER_MOST ((int64_t)999999999999999999)

/* One of a number: its size in decimal. */
struct bound {
    double x;
    int64_t at;     // rounded to whole numbers inwards
    int64_t whole;  // without its sign, what is before the point, at most NUMBER_MOST
    char rest[FRACTION_DIGITS + 1];  // and the digits behind it, the last not 0
    bool is_there, is_whole;
    bool is_out;  // the bound itself is
};

/* A bound that is not there is as far as numbers go here. */
struct bounds {
    struct bound from, to;
};

/* Texts of the whole numbers from .. to (never if there are none). */
uint32_t schema_integer(struct gtree *t, int64_t from, int64_t to);
/* Those of all numbers within the bounds, with FRACTION_DIGITS at most. */
uint32_t schema_number(struct gtree *t, const struct bounds *b);

/* The inside of a JSON string whose text matches the ECMAScript pattern; any: rule for any character.
 * Fails: ERR_UNSUPPORTED, ERR_FORMAT, ERR_LIMIT naming what of it. */
MUST schema_pattern(struct gtree *t, const char *pattern, size_t len, uint32_t any, uint32_t *out,
                    struct err *e);
/* One character of a JSON string out of a set, escaped where JSON wants it. */
uint32_t schema_char(struct gtree *t, const struct grange *range, size_t n, bool is_not);

bool schema_knows_format(const char *name, size_t len);
/* The inside of a string of that format; 0: a format that is not known here. */
uint32_t schema_format(struct gtree *t, const char *name, size_t len);

#endif
