/* grammar_tree.c - trees of rules, built by the readers. */
#include "model/grammar_own.h"

#include <stdlib.h>
#include <string.h>

void gtree_init(struct gtree *t) {
    *t = (struct gtree){0};
    gtree_list(t, GNODE_EMPTY);  // node 0
}

void gtree_free(struct gtree *t) {
    free(t->node);
    free(t->range);
    free(t->bytes);
    free(t->rule);
}

/* Room for `more` items of `size` bytes after n in *array; grows by half. */
static bool grow(struct gtree *t, void *array, uint32_t n, uint32_t *cap, size_t more, size_t size,
                 size_t most) {
    if (t->is_full) return false;
    if (more <= *cap - n) return true;
    if (more > most - n) {
        t->is_full = true;
        return false;
    }
    size_t want = (size_t)n + more + n / 2 + 64;
    if (want > most) want = most;
    void *old, *grown;
    memcpy(&old, array, sizeof old);
    grown = realloc(old, want * size);
    if (!grown) {
        t->is_full = t->no_memory = true;
        return false;
    }
    memcpy(array, &grown, sizeof grown);
    *cap = (uint32_t)want;
    // cppcheck-suppress memleak ; *array has it
    return true;
}

static uint32_t add_node(struct gtree *t, enum gnode_kind kind, uint32_t a, uint32_t b, int32_t c) {
    if (!grow(t, &t->node, t->n_node, &t->cap_node, 1, sizeof *t->node, GNODES)) return 0;
    t->node[t->n_node] = (struct gnode){.kind = (uint8_t)kind, .a = a, .b = b, .c = c};
    return t->n_node++;
}

uint32_t gtree_bytes(struct gtree *t, const char *s, size_t len) {
    if (!len) return gtree_list(t, GNODE_CAT);
    if (!grow(t, &t->bytes, t->n_bytes, &t->cap_bytes, len, 1, (size_t)16 * GRAMMAR_TEXT)) return 0;
    memcpy(t->bytes + t->n_bytes, s, len);
    t->n_bytes += (uint32_t)len;
    return add_node(t, GNODE_BYTES, t->n_bytes - (uint32_t)len, (uint32_t)len, 0);
}

uint32_t gtree_text(struct gtree *t, const char *s) {
    return gtree_bytes(t, s, strlen(s));
}

static int by_from(const void *a, const void *b) {
    const struct grange *x = a, *y = b;
    return x->from < y->from ? -1 : x->from > y->from;
}

static bool put_range(struct gtree *t, uint32_t from, uint32_t to) {
    if (from > to) return true;
    if (!grow(t, &t->range, t->n_range, &t->cap_range, 1, sizeof *t->range, 1 << 17)) return false;
    t->range[t->n_range++] = (struct grange){from, to};
    return true;
}

/* Without the surrogates, which have no UTF-8. */
static bool put_characters(struct gtree *t, uint32_t from, uint32_t to) {
    enum { SURROGATE = 0xd800, AFTER = 0xe000 };
    if (from < SURROGATE && !put_range(t, from, to < SURROGATE ? to : SURROGATE - 1)) return false;
    return to < AFTER || put_range(t, from > AFTER ? from : AFTER, to);
}

/* The last n ranges in ascending order, those that touch as one. */
static void tidy(struct gtree *t, uint32_t n) {
    uint32_t kept = 0;
    if (!n) return;
    struct grange *r = t->range + (t->n_range - n);
    qsort(r, n, sizeof *r, by_from);
    for (uint32_t i = 1; i < n; i++) {
        if (r[i].from <= r[kept].to + 1) {
            if (r[i].to > r[kept].to) r[kept].to = r[i].to;
        } else {
            r[++kept] = r[i];
        }
    }
    t->n_range -= n - kept - 1;
}

static uint32_t set_node(struct gtree *t, uint32_t at) {
    if (t->is_full) return 0;
    if (at == t->n_range) return gtree_never(t);
    return add_node(t, GNODE_SET, at, t->n_range - at, 0);
}

uint32_t gtree_set(struct gtree *t, const struct grange *range, size_t n) {
    uint32_t at = t->n_range;
    for (size_t i = 0; i < n; i++) {
        if (!put_characters(t, range[i].from, range[i].to)) return 0;
    }
    tidy(t, t->n_range - at);
    return set_node(t, at);
}

uint32_t gtree_set_not(struct gtree *t, const struct grange *range, size_t n) {
    uint32_t at = t->n_range, next = 0;
    for (size_t i = 0; i < n; i++) {
        if (!put_range(t, range[i].from, range[i].to)) return 0;
    }
    tidy(t, t->n_range - at);
    uint32_t n_out = t->n_range - at;
    struct grange *out = malloc((n_out + 1) * sizeof *out);
    if (!out) {
        t->is_full = t->no_memory = true;
        return 0;
    }
    if (n_out) memcpy(out, t->range + at, n_out * sizeof *out);
    t->n_range = at;
    bool ok = true;
    for (uint32_t i = 0; i < n_out && ok; i++) {
        ok = out[i].from <= next || put_characters(t, next, out[i].from - 1);
        next = out[i].to + 1;
    }
    ok = ok && (next > 0x10ffff || put_characters(t, next, 0x10ffff));
    free(out);
    return ok ? set_node(t, at) : 0;
}

uint32_t gtree_list(struct gtree *t, enum gnode_kind kind) {
    return add_node(t, kind, 0, 0, 0);
}

void gtree_add(struct gtree *t, uint32_t list, uint32_t child) {
    if (t->is_full) return;
    /* Node 0 can be nobody's child, as it can have no sibling. */
    if (!child) child = gtree_list(t, GNODE_CAT);
    if (t->is_full) return;
    t->node[child].prev = t->node[list].a;
    t->node[list].a = child;
}

uint32_t gtree_repeat(struct gtree *t, uint32_t what, uint32_t from, int32_t to) {
    return add_node(t, GNODE_REPEAT, what, from, to);
}

uint32_t gtree_never(struct gtree *t) {
    return add_node(t, GNODE_NEVER, 0, 0, 0);
}

uint32_t gtree_rule(struct gtree *t) {
    if (!grow(t, &t->rule, t->n_rule, &t->cap_rule, 1, sizeof *t->rule, GRULES)) return 0;
    t->rule[t->n_rule] = 0;
    return t->n_rule++;
}

void gtree_define(struct gtree *t, uint32_t rule, uint32_t body) {
    if (!t->is_full) t->rule[rule] = body;
}

uint32_t gtree_call(struct gtree *t, uint32_t rule) {
    return add_node(t, GNODE_RULE, rule, 0, 0);
}

uint32_t gtree_cat(struct gtree *t, const uint32_t *what, size_t n) {
    uint32_t list = gtree_list(t, GNODE_CAT);
    for (size_t i = 0; i < n; i++) gtree_add(t, list, what[i]);
    return list;
}
