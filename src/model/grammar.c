/* grammar.c - checks trees of rules and compiles them to an automaton over bytes. Reads from the bottom
 * up: all, the checks, trees to places, characters to bytes. */
#include "model/grammar_own.h"

#include <stdlib.h>
#include <string.h>

enum { FAIL = 1, CHECK_STEPS = 50 << 20 };

struct compiler {
    const struct gtree *t;
    grammar_namer *name;
    const void *ctx;
    bool *nullable, *fruitful;  // [n_rule] may be empty; has a text at all
    bool *is_dead;              // [n_node] has no text
    uint64_t n_step;

    struct gstate *state;  // [n_state]
    uint32_t n_state, cap_state;
    uint32_t *entry;  // [n_entry] of rules, then of what is repeated
    uint32_t n_entry, cap_entry;
    bool is_full, no_memory;
};

/* --- places --- */

static uint32_t add_state(struct compiler *c, enum gstate_kind kind, uint32_t a, uint32_t b) {
    if (c->n_state == c->cap_state && !c->is_full) {
        uint32_t cap = 2 * c->cap_state + 256;
        struct gstate *grown =
            cap > 2 * GRAMMAR_STATES ? NULL : realloc(c->state, cap * sizeof *grown);
        if (grown) c->state = grown, c->cap_state = cap;
        if (!grown) c->is_full = c->no_memory = true;
    }
    if (c->n_state >= GRAMMAR_STATES) c->is_full = true;
    if (c->is_full) return FAIL;
    c->state[c->n_state] = (struct gstate){.kind = (uint8_t)kind, .a = a, .b = b};
    return c->n_state++;
}

static uint32_t split(struct compiler *c, uint32_t a, uint32_t b) {
    if (a == FAIL) return b;
    return b == FAIL ? a : add_state(c, GSTATE_SPLIT, a, b);
}

/* Places of one set that are alike are one: suffixes of UTF-8 sequences repeat. */
static uint32_t byte_state(struct compiler *c, uint8_t from, uint8_t to, uint32_t next,
                           uint32_t since) {
    enum { LOOK_BACK = 16 };
    if (next == FAIL) return FAIL;
    for (uint32_t i = c->n_state; i > since && c->n_state - i < LOOK_BACK; i--) {
        const struct gstate *s = &c->state[i - 1];
        if (s->kind == GSTATE_BYTE && s->from == from && s->to == to && s->a == next) return i - 1;
    }
    uint32_t at = add_state(c, GSTATE_BYTE, next, 0);
    if (at != FAIL) c->state[at].from = from, c->state[at].to = to;
    return at;
}

static unsigned utf8_len(uint32_t cp) {
    return cp < 0x80 ? 1 : cp < 0x800 ? 2 : cp < 0x10000 ? 3 : 4;
}

static void utf8_put(uint32_t cp, unsigned len, uint8_t *out) {
    static const uint8_t head[] = {0, 0, 0xc0, 0xe0, 0xf0};
    for (unsigned i = len; i-- > 1; cp >>= 6) out[i] = (uint8_t)(0x80 | (cp & 0x3f));
    out[0] = (uint8_t)(head[len] | cp);
}

/* The largest end so that [from, end] is one range for each byte of its sequences. */
static uint32_t utf8_piece(uint32_t from, uint32_t to) {
    static const uint32_t last[] = {0, 0x7f, 0x7ff, 0xffff, 0x10ffff};
    unsigned len = utf8_len(from);
    if (to > last[len]) to = last[len];
    for (unsigned i = 1; i < len; i++) {
        uint32_t low = ((uint32_t)1 << 6 * i) - 1;
        if ((from & ~low) == (to & ~low)) continue;
        if (from & low) return from | low;
        if ((to & low) != low) to = (to & ~low) - 1;
    }
    return to;
}

static uint32_t set_state(struct compiler *c, const struct gnode *n, uint32_t next) {
    uint32_t all = FAIL, since = c->n_state;
    for (uint32_t i = 0; i < n->b; i++) {
        uint32_t from = c->t->range[n->a + i].from, to = c->t->range[n->a + i].to, end;
        for (; from <= to && !c->is_full; from = end + 1) {
            uint8_t low[4], high[4];
            unsigned len = utf8_len(from);
            end = utf8_piece(from, to);
            utf8_put(from, len, low);
            utf8_put(end, len, high);
            uint32_t at = next;
            for (unsigned k = len; k-- > 0;) at = byte_state(c, low[k], high[k], at, since);
            all = split(c, at, all);
        }
    }
    return all;
}

static uint32_t add_entry(struct compiler *c, uint32_t at) {
    if (c->n_entry == c->cap_entry) {
        uint32_t cap = 2 * c->cap_entry + 64;
        uint32_t *grown = realloc(c->entry, cap * sizeof *grown);
        if (!grown) {
            c->is_full = c->no_memory = true;
            return 0;
        }
        c->entry = grown;
        c->cap_entry = cap;
    }
    c->entry[c->n_entry] = at;
    return c->n_entry++;
}

/* Nothing is remembered where nothing comes after: lists that go on and on do not nest. */
static uint32_t call_state(struct compiler *c, uint32_t entry, uint32_t next) {
    if (next == FAIL) return FAIL;
    return next == 0 ? add_state(c, GSTATE_TAIL, entry, 0) : add_state(c, GSTATE_CALL, entry, next);
}

/* --- trees to places --- */

static uint32_t compile(struct compiler *c, uint32_t node, uint32_t next);

/* One more of what is repeated; what is large is a rule of its own. */
static uint32_t once(struct compiler *c, uint32_t what, uint32_t entry, uint32_t next) {
    return entry == UINT32_MAX ? compile(c, what, next) : call_state(c, entry, next);
}

static uint32_t repeat_state(struct compiler *c, const struct gnode *n, uint32_t next) {
    const struct gnode *what = &c->t->node[n->a];
    bool is_small = what->kind == GNODE_SET || what->kind == GNODE_RULE ||
                    (what->kind == GNODE_BYTES && what->b == 1);
    bool is_dead = c->is_dead[n->a];
    uint32_t entry = UINT32_MAX;
    if (n->b == 1 && n->c == 1) return compile(c, n->a, next);
    if (is_dead) return n->b ? FAIL : next;
    if (!is_small) entry = add_entry(c, compile(c, n->a, 0));
    uint32_t at = next;
    if (n->c == GREPEAT_ANY) {
        at = add_state(c, GSTATE_SPLIT, FAIL, next);
        uint32_t body = once(c, n->a, entry, at);
        if (!c->is_full) c->state[at].a = body;
    }
    for (int32_t i = (int32_t)n->b; i < n->c && !c->is_full; i++) {
        at = split(c, once(c, n->a, entry, at), next);
    }
    for (uint32_t i = 0; i < n->b && !c->is_full; i++) at = once(c, n->a, entry, at);
    return at;
}

static uint32_t cat_state(struct compiler *c, const struct gnode *n, uint32_t next) {
    for (uint32_t i = n->a; i; i = c->t->node[i].prev) {
        if (c->is_dead[i]) return FAIL;
    }
    for (uint32_t i = n->a; i; i = c->t->node[i].prev) next = compile(c, i, next);
    return next;
}

/* The place from which a text of the node leads to `next`. Depth: that of the tree. */
static uint32_t compile(struct compiler *c, uint32_t node, uint32_t next) {
    const struct gnode *n = &c->t->node[node];
    uint32_t all = FAIL;
    if (c->is_full) return FAIL;
    switch ((enum gnode_kind)n->kind) {
    case GNODE_EMPTY: return next;
    case GNODE_NEVER: return FAIL;
    case GNODE_BYTES:
        for (uint32_t i = n->b; i-- > 0;) {
            uint8_t b = c->t->bytes[n->a + i];
            next = byte_state(c, b, b, next, c->n_state);
        }
        return next;
    case GNODE_SET: return set_state(c, n, next);
    case GNODE_CAT: return cat_state(c, n, next);
    case GNODE_ALT:
        for (uint32_t i = n->a; i; i = c->t->node[i].prev) all = split(c, compile(c, i, next), all);
        return all;
    case GNODE_REPEAT: return repeat_state(c, n, next);
    case GNODE_RULE: return c->fruitful[n->a] ? call_state(c, n->a, next) : FAIL;
    }
    return FAIL;
}

/* --- checks --- */

/* Of a node, from what is known of the rules: may it be empty (nullable), has it a text (fruitful), and would
 * it have one if there were something to choose wherever there is nothing? */
enum trait { IS_EMPTY, HAS_TEXT, HAS_END };

static bool holds(struct compiler *c, const bool *rule, enum trait trait, uint32_t node) {
    const struct gnode *n = &c->t->node[node];
    c->n_step++;
    switch ((enum gnode_kind)n->kind) {
    case GNODE_EMPTY: return true;
    case GNODE_NEVER: return trait == HAS_END;
    case GNODE_BYTES:
    case GNODE_SET: return trait != IS_EMPTY;
    case GNODE_CAT:
        for (uint32_t i = n->a; i; i = c->t->node[i].prev) {
            if (!holds(c, rule, trait, i)) return false;
        }
        return true;
    case GNODE_ALT:
        for (uint32_t i = n->a; i; i = c->t->node[i].prev) {
            if (holds(c, rule, trait, i)) return true;
        }
        return trait == HAS_END && !n->a;
    case GNODE_REPEAT: return n->b == 0 || holds(c, rule, trait, n->a);
    case GNODE_RULE: return rule[n->a];
    }
    return false;
}

/* Until nothing more follows; to and fro, as rules mostly refer to those beside them. */
static MUST spread(struct compiler *c, bool *rule, enum trait trait, struct err *e) {
    uint32_t n = c->t->n_rule;
    bool has_news = true;
    for (uint32_t round = 0; has_news; round++) {
        has_news = false;
        for (uint32_t i = 0; i < n; i++) {
            uint32_t r = round % 2 ? n - 1 - i : i;
            if (rule[r] || !holds(c, rule, trait, c->t->rule[r])) continue;
            rule[r] = has_news = true;
            if (c->n_step > CHECK_STEPS) {
                return err_set(e, ERR_LIMIT, "the rules depend on each other in too long chains");
            }
        }
    }
    return true;
}

struct edges {
    uint32_t *to;     // [n]
    uint32_t n, *at;  // at [n_rule + 1]: where a rule's begin
};

/* The rules that a text of the node may begin with. */
static void collect_left(struct compiler *c, uint32_t node, struct edges *out) {
    const struct gnode *n = &c->t->node[node];
    if (n->kind == GNODE_RULE) out->to[out->n++] = n->a;
    if (n->kind == GNODE_REPEAT && n->c) collect_left(c, n->a, out);
    if (n->kind == GNODE_ALT) {
        for (uint32_t i = n->a; i; i = c->t->node[i].prev) collect_left(c, i, out);
    }
    if (n->kind != GNODE_CAT) return;
    uint32_t stop = 0;  // the first that cannot be empty; children stand last to first
    for (uint32_t i = n->a; i; i = c->t->node[i].prev) {
        if (!holds(c, c->nullable, IS_EMPTY, i)) stop = i;
    }
    for (uint32_t i = stop ? stop : n->a; i; i = c->t->node[i].prev) collect_left(c, i, out);
}

static MUST begins_with_itself(const struct compiler *c, uint32_t rule, struct err *e) {
    return err_set(e, ERR_FORMAT,
                   "rule \"%.60s\" begins with itself (left recursion); write it so that something "
                   "else comes first",
                   c->name(c->ctx, rule));
}

/* Depth first over what rules begin with; a way back to one that is open is left recursion. */
static MUST find_circle(const struct compiler *c, const struct edges *g, uint32_t *stack,
                        uint32_t *next, uint8_t *color, struct err *e) {
    enum { NEW, OPEN, DONE };
    for (uint32_t root = 0; root < c->t->n_rule; root++) {
        uint32_t depth = 0;
        if (color[root] != NEW) continue;
        stack[depth++] = root;
        color[root] = OPEN;
        next[root] = g->at[root];
        while (depth) {
            uint32_t r = stack[depth - 1];
            if (next[r] == g->at[r + 1]) {
                color[r] = DONE;
                depth--;
                continue;
            }
            uint32_t to = g->to[next[r]++];
            if (color[to] == OPEN) return begins_with_itself(c, to, e);
            if (color[to] == DONE) continue;
            color[to] = OPEN;
            next[to] = g->at[to];
            stack[depth++] = to;
        }
    }
    return true;
}

static MUST check_left(struct compiler *c, struct err *e) {
    size_t n = c->t->n_rule;
    struct edges g = {.to = malloc(c->t->n_node * sizeof *g.to),
                      .at = malloc((n + 1) * sizeof *g.at)};
    uint32_t *stack = malloc(2 * n * sizeof *stack);
    uint8_t *color = calloc(n, 1);
    bool ok = g.to && g.at && stack && color;
    if (!ok) err_set(e, ERR_MEMORY, "no memory for a grammar");
    for (uint32_t r = 0; ok && r < n; r++) {
        g.at[r] = g.n;
        collect_left(c, c->t->rule[r], &g);
        g.at[r + 1] = g.n;
    }
    ok = ok && find_circle(c, &g, stack, stack + n, color, e);
    free(g.to);
    free(g.at);
    free(stack);
    free(color);
    return ok;
}

/* Why: sets, lists of choices and ranges that have nothing in them, or rules that always want one more. */
static MUST no_text(struct compiler *c, struct err *e) {
    memset(c->fruitful, 0, c->t->n_rule * sizeof *c->fruitful);
    if (!spread(c, c->fruitful, HAS_END, e)) return false;
    return err_set(e, ERR_FORMAT, "there is no text that it allows: %s",
                   c->fruitful[0] ? "somewhere there is nothing to choose from"
                                  : "what it wants has no end");
}

/* Whatever leads to no text at all is left out, so that a text never runs into it. */
static MUST check(struct compiler *c, struct err *e) {
    if (!spread(c, c->nullable, IS_EMPTY, e) || !spread(c, c->fruitful, HAS_TEXT, e)) return false;
    if (!check_left(c, e)) return false;
    for (uint32_t i = 0; i < c->t->n_node; i++) {
        c->is_dead[i] = !holds(c, c->fruitful, HAS_TEXT, i);
        if (c->n_step > CHECK_STEPS) return err_set(e, ERR_LIMIT, "the rules nest too much");
    }
    return c->fruitful[0] || no_text(c, e);
}

/* --- all --- */

static void make_classes(struct grammar *g) {
    bool begins[257] = {true};
    for (uint32_t i = 0; i < g->n_state; i++) {
        if (g->state[i].kind != GSTATE_BYTE) continue;
        begins[g->state[i].from] = true;
        begins[g->state[i].to + 1] = true;
    }
    for (unsigned b = 0; b < 256; b++) {
        if (begins[b]) g->n_class++;
        g->class_of[b] = (uint8_t)(g->n_class - 1);
    }
}

static MUST too_large(const struct compiler *c, struct err *e) {
    if (c->no_memory) return err_set(e, ERR_MEMORY, "no memory for a grammar");
    return err_set(e, ERR_LIMIT,
                   "it takes more than the %d places that a grammar can have here; repeat less",
                   GRAMMAR_STATES);
}

static MUST make(struct compiler *c, struct grammar **out, struct err *e) {
    if (!check(c, e)) return false;
    add_state(c, GSTATE_RETURN, 0, 0);
    add_state(c, GSTATE_FAIL, 0, 0);
    for (uint32_t r = 0; r < c->t->n_rule; r++) add_entry(c, FAIL);
    for (uint32_t r = 0; r < c->t->n_rule && !c->is_full; r++) {
        uint32_t at = c->fruitful[r] ? compile(c, c->t->rule[r], 0) : FAIL;
        if (!c->is_full) c->entry[r] = at;
    }
    if (c->is_full) return too_large(c, e);
    struct grammar *g = calloc(1, sizeof *g);
    if (!g) return err_set(e, ERR_MEMORY, "no memory for a grammar");
    struct gstate *fit = realloc(c->state, c->n_state * sizeof *fit);
    g->state = fit ? fit : c->state;
    g->n_state = c->n_state;
    g->entry = c->entry;
    g->n_rule = c->n_entry;
    c->state = NULL;
    c->entry = NULL;
    make_classes(g);
    *out = g;
    return true;
}

MUST grammar_compile(struct grammar **g, const struct gtree *t, grammar_namer *name,
                     const void *ctx, struct err *e) {
    if (t->no_memory) return err_set(e, ERR_MEMORY, "no memory for a grammar");
    if (t->is_full) return err_set(e, ERR_LIMIT, "the grammar is larger than is taken here");
    struct compiler c = {.t = t,
                         .name = name,
                         .ctx = ctx,
                         .nullable = calloc(t->n_rule, 1),
                         .fruitful = calloc(t->n_rule, 1),
                         .is_dead = calloc(t->n_node, 1)};
    bool ok = c.nullable && c.fruitful && c.is_dead;
    if (!ok) err_set(e, ERR_MEMORY, "no memory for a grammar");
    ok = ok && make(&c, g, e);
    free(c.nullable);
    free(c.fruitful);
    free(c.is_dead);
    free(c.state);
    free(c.entry);
    return ok;
}

/* Better known now than when an answer is to begin. */
static MUST check_beginning(const struct grammar *g, struct err *e) {
    struct grammar_run *r;
    bool ok = grammar_run_open(&r, g, NULL, e);
    grammar_run_close(r);
    return ok;
}

MUST grammar_open(struct grammar **g, enum grammar_kind kind, const char *text, size_t len,
                  struct err *e) {
    *g = NULL;
    if (len > GRAMMAR_TEXT) {
        return err_set(e, ERR_LIMIT, "%zu bytes, and %d is the most taken here", len, GRAMMAR_TEXT);
    }
    bool ok = kind == GRAMMAR_SCHEMA ? schema_read(g, text, len, e) : gbnf_read(g, text, len, e);
    if (!ok || check_beginning(*g, e)) return ok;
    grammar_close(*g);
    *g = NULL;
    return false;
}

void grammar_close(struct grammar *g) {
    if (!g) return;
    free(g->state);
    free(g->entry);
    free(g);
}

size_t grammar_bytes(const struct grammar *g) {
    return sizeof *g + g->n_state * sizeof *g->state + g->n_rule * sizeof *g->entry;
}

const char *grammar_note(const struct grammar *g) {
    return *g->note ? g->note : NULL;
}
