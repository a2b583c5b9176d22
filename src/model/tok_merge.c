/* The merge loop that all kinds share: a list of symbols and a heap of candidate pairs. */
#include "model/tok_tables.h"

#include <assert.h>
#include <stdlib.h>

static void heap_push(struct encoder *en, struct merge_item item) {
    struct merge_item *h = en->heap;
    size_t i = en->n_heap++;
    while (i && h[(i - 1) / 2].key > item.key) {
        h[i] = h[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    h[i] = item;
}

static struct merge_item heap_pop(struct encoder *en) {
    struct merge_item *h = en->heap, top = h[0], last = h[--en->n_heap];
    size_t n = en->n_heap, i = 0;
    for (;;) {
        size_t kid = 2 * i + 1;
        if (kid >= n) break;
        if (kid + 1 < n && h[kid + 1].key < h[kid].key) kid++;
        if (h[kid].key >= last.key) break;
        h[i] = h[kid];
        i = kid;
    }
    h[i] = last;
    return top;
}

static void consider(struct encoder *en, int32_t left, int32_t right) {
    if (left < 0 || right < 0) return;
    const struct sym *a = &en->sym[left], *b = &en->sym[right];
    uint32_t prio;
    int32_t id;
    bool found =
        en->t->kind == TOK_BPE ? bpe_pair(en, a, b, &prio, &id) : spm_pair(en, a, b, &prio, &id);
    if (!found) return;
    uint64_t key = (uint64_t)prio << 32 | (uint32_t)left;
    heap_push(en, (struct merge_item){.key = key, .len = a->len + b->len, .id = id});
}

/* A pair one of whose symbols has merged with another since. */
static bool is_stale(const struct encoder *en, const struct merge_item *item) {
    const struct sym *a = &en->sym[(uint32_t)item->key];
    return !a->len || a->next < 0 || a->len + en->sym[a->next].len != item->len;
}

/* The pairs that are left are fewer than the symbols that are left. */
static void drop_stale(struct encoder *en) {
    size_t n = en->n_heap;
    en->n_heap = 0;
    for (size_t i = 0; i < n; i++) {
        if (!is_stale(en, &en->heap[i])) heap_push(en, en->heap[i]);
    }
}

/* Each merge takes one pair off the heap and puts at most two on. So the heap outgrows the n symbols by an
 * eighth (TOK_BYTES counts on no more) after n/8 merges at the earliest, when n/4 are stale: they are
 * seldom looked for. */
void tok_merge(struct encoder *en) {
    size_t most = en->n_sym + en->n_sym / 8;
    en->n_heap = 0;
    for (size_t i = 1; i < en->n_sym; i++) consider(en, (int32_t)i - 1, (int32_t)i);
    while (en->n_heap) {
        struct merge_item item = heap_pop(en);
        if (is_stale(en, &item)) continue;
        int32_t left = (int32_t)(uint32_t)item.key;
        struct sym *a = &en->sym[left], *b = &en->sym[a->next];
        a->len = item.len;
        a->id = item.id;
        a->next = b->next;
        b->len = 0;
        if (a->next >= 0) en->sym[a->next].prev = left;
        if (en->n_heap + 2 > most) drop_stale(en);
        assert(en->n_heap + 2 <= 2 * en->cap_sym);
        consider(en, a->prev, left);
        consider(en, left, a->next);
    }
}

MUST encoder_reserve(struct encoder *en, size_t n, struct err *e) {
    if (n <= en->cap_sym) return true;
    size_t cap = en->cap_sym ? en->cap_sym : 256;
    while (cap < n) cap *= 2;
    free(en->sym);
    free(en->heap);
    en->cap_sym = 0;
    en->sym = malloc(cap * sizeof *en->sym);
    en->heap = malloc(2 * cap * sizeof *en->heap);
    if (!en->sym || !en->heap) {
        return err_set(e, ERR_MEMORY, "no memory to tokenise a stretch of %zu bytes", n);
    }
    en->cap_sym = cap;
    return true;
}

void encoder_free(struct encoder *en) {
    free(en->sym);
    free(en->heap);
    free(en->copy);
}

MUST encoder_copy(struct encoder *en, size_t n, struct err *e) {
    if (n <= en->cap_copy) return true;
    free(en->copy);
    en->cap_copy = 0;
    en->copy = malloc(n);
    if (!en->copy) return err_set(e, ERR_MEMORY, "no memory to tokenise %zu bytes", n);
    en->cap_copy = n;
    return true;
}
