/* grammar_own.h - what the grammar's files share; private to grammar*.c, gbnf.c, schema*.c.
 *
 * Three forms. A reader (gbnf.c, schema.c) builds a tree for each rule; grammar.c checks the trees and
 * compiles them to places of an automaton, each a step on a byte, a fork, a call or a return;
 * grammar_run.c walks those.
 */
#ifndef MODEL_GRAMMAR_OWN_H
#define MODEL_GRAMMAR_OWN_H

#include "model/grammar.h"

/* ---- trees */

enum gnode_kind {
    GNODE_EMPTY,
    GNODE_NEVER,   // no text at all
    GNODE_BYTES,   // a: where in bytes, b: how many
    GNODE_SET,     // one character; a: where in range, b: how many ranges
    GNODE_CAT,     // children one after another; a: the last child
    GNODE_ALT,     // one of the children; a: the last child
    GNODE_REPEAT,  // a: what, from b to c times
    GNODE_RULE     // a: which
};

enum { GREPEAT_ANY = -1, GREPEAT_MAX = 10000, GNODES = 1 << 17, GRULES = 1 << 14 };

struct gnode {
    uint8_t kind;
    uint32_t prev;  // the child before, 0: none
    uint32_t a, b;
    int32_t c;
};

struct grange {
    uint32_t from, to;  // code points, both included
};

/* Grows as needed up to the limits; past them, or out of memory, is_full is set and what is built is
 * void: asked for once at the end. */
struct gtree {
    struct gnode *node;  // [n_node]; 0 is GNODE_EMPTY
    uint32_t n_node, cap_node;
    struct grange *range;
    uint32_t n_range, cap_range;
    uint8_t *bytes;
    uint32_t n_bytes, cap_bytes;
    uint32_t *rule;  // [n_rule] the rule's node
    uint32_t n_rule, cap_rule;
    bool is_full, no_memory;
};

void gtree_init(struct gtree *t);
void gtree_free(struct gtree *t);

uint32_t gtree_bytes(struct gtree *t, const char *s, size_t len);
uint32_t gtree_text(struct gtree *t, const char *s);
/* One character of the ranges [n], in any order. */
uint32_t gtree_set(struct gtree *t, const struct grange *range, size_t n);
/* One character that is in none of them. */
uint32_t gtree_set_not(struct gtree *t, const struct grange *range, size_t n);
uint32_t gtree_list(struct gtree *t,
                    enum gnode_kind kind);  // GNODE_CAT (of none: empty), GNODE_ALT
void gtree_add(struct gtree *t, uint32_t list, uint32_t child);  // a child has one parent
uint32_t gtree_repeat(struct gtree *t, uint32_t what, uint32_t from, int32_t to);
uint32_t gtree_never(struct gtree *t);
uint32_t gtree_rule(struct gtree *t);  // a rule without a body yet: its number
void gtree_define(struct gtree *t, uint32_t rule, uint32_t body);
uint32_t gtree_call(struct gtree *t, uint32_t rule);
/* what [n] one after another. */
uint32_t gtree_cat(struct gtree *t, const uint32_t *what, size_t n);

/* ---- the automaton */

enum gstate_kind {
    GSTATE_RETURN,
    GSTATE_FAIL,
    GSTATE_BYTE,   // a byte from..to leads to a
    GSTATE_SPLIT,  // both a and b
    GSTATE_CALL,   // rule a, then b
    GSTATE_TAIL    // rule a, and nothing after it
};

struct gstate {
    uint8_t kind, from, to;
    uint32_t a, b;
};

struct grammar {
    struct gstate *state;  // [n_state]; 0 is GSTATE_RETURN
    uint32_t *entry;       // [n_rule] where a rule begins; rule 0 is the whole text
    uint32_t n_state, n_rule;
    uint8_t class_of[256];  // bytes that no place tells apart are of one class
    uint32_t n_class;
    char note[GRAMMAR_NOTE];  // or empty
};

/* Checks t (rule 0 is the root) and compiles it. name: of a rule for sentences, or NULL. Fails:
 * ERR_FORMAT: a rule begins with itself, or no text ever ends; ERR_LIMIT; ERR_MEMORY. */
typedef const char *grammar_namer(const void *ctx, uint32_t rule);
MUST grammar_compile(struct grammar **g, const struct gtree *t, grammar_namer *name,
                     const void *ctx, struct err *e);

/* Readers. Rule 0 of t, empty on entry, becomes the root. */
MUST gbnf_read(struct grammar **g, const char *text, size_t len, struct err *e);
MUST schema_read(struct grammar **g, const char *text, size_t len, struct err *e);

/* ---- the lexicon */

struct lexicon {
    const struct tok *tok;
    uint32_t n;        // tokens with text, in the order of it
    int32_t *id;       // [n]
    uint32_t *start;   // [n] of the token's rest in rest
    uint32_t *next;    // [n] the next token that shares less with the one before it than this
    uint16_t *shared;  // [n] bytes shared with the token before
    uint16_t *len;     // [n] bytes of the token
    uint8_t *rest;     // what it does not share
    int32_t *end_id;   // [n_end] ascending
    uint32_t n_end;
    size_t bytes;
};

/* ---- a run */

/* How many tokens of the vocabulary were looked at so far, one by one or in passing. */
uint64_t grammar_looks(const struct grammar_run *r);

#endif
