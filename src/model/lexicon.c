/* lexicon.c - the texts of a vocabulary's tokens in the order of their bytes.
 *
 * The order and what each text shares with the one before make a tree of beginnings without nodes: when
 * the first k bytes of a text are refused, `next` leads past all that share them. */
#include "model/grammar_own.h"

#include <stdlib.h>
#include <string.h>

struct entry {
    const char *text;
    uint32_t len;
    int32_t id;
};

static int by_text(const void *a, const void *b) {
    const struct entry *x = a, *y = b;
    int c = memcmp(x->text, y->text, x->len < y->len ? x->len : y->len);
    if (c) return c;
    if (x->len != y->len) return x->len < y->len ? -1 : 1;
    return x->id < y->id ? -1 : 1;
}

static uint32_t shared(const struct entry *a, const struct entry *b) {
    uint32_t n = 0, most = a->len < b->len ? a->len : b->len;
    while (n < most && a->text[n] == b->text[n]) n++;
    return n;
}

static uint32_t collect(const struct tok *t, struct entry *out, uint32_t *n_end) {
    uint32_t n = 0;
    *n_end = 0;
    for (uint32_t i = 0; i < tok_count(t); i++) {
        struct entry *x = &out[n];
        x->id = (int32_t)i;
        x->len = (uint32_t)tok_piece(t, x->id, false, &x->text);
        if (tok_is_end(t, x->id)) {
            ++*n_end;
        } else if (x->len && x->len <= DETOK_MAX) {
            n++;
        }
    }
    return n;
}

static void *part(uint8_t **at, size_t bytes) {
    void *p = *at;
    *at += (bytes + 7) / 8 * 8;
    return p;
}

/* All in one block. */
static struct lexicon *reserve(const struct entry *x, uint32_t n, uint32_t n_end) {
    size_t n_rest = 0;
    for (uint32_t i = 0; i < n; i++) n_rest += x[i].len - (i ? shared(&x[i - 1], &x[i]) : 0);
    size_t bytes = sizeof(struct lexicon) + (size_t)n * 16 + (size_t)n_end * 4 + n_rest + 64;
    uint8_t *at = malloc(bytes);
    if (!at) return NULL;
    struct lexicon *l = part(&at, sizeof *l);
    *l = (struct lexicon){.n = n, .bytes = bytes};
    l->id = part(&at, n * sizeof *l->id);
    l->start = part(&at, n * sizeof *l->start);
    l->next = part(&at, n * sizeof *l->next);
    l->end_id = part(&at, n_end * sizeof *l->end_id);
    l->shared = part(&at, n * sizeof *l->shared);
    l->len = part(&at, n * sizeof *l->len);
    l->rest = at;
    return l;
}

static void fill(struct lexicon *l, const struct entry *x) {
    uint32_t at = 0;
    for (uint32_t i = 0; i < l->n; i++) {
        uint32_t k = i ? shared(&x[i - 1], &x[i]) : 0;
        l->id[i] = x[i].id;
        l->start[i] = at;
        l->shared[i] = (uint16_t)k;
        l->len[i] = (uint16_t)x[i].len;
        memcpy(l->rest + at, x[i].text + k, x[i].len - k);
        at += x[i].len - k;
    }
    for (uint32_t i = l->n; i-- > 0;) {
        uint32_t j = i + 1;
        while (j < l->n && l->shared[j] >= l->shared[i]) j = l->next[j];
        l->next[i] = j;
    }
}

MUST lexicon_open(struct lexicon **out, const struct tok *t, struct err *e) {
    uint32_t n_end, n = 0;
    struct entry *x = malloc((tok_count(t) + 1) * sizeof *x);
    struct lexicon *l = NULL;
    if (x) {
        n = collect(t, x, &n_end);
        qsort(x, n, sizeof *x, by_text);
        l = reserve(x, n, n_end);
    }
    if (!l) {
        free(x);
        return err_set(e, ERR_MEMORY, "no memory for the vocabulary's texts");
    }
    l->tok = t;
    fill(l, x);
    free(x);
    for (uint32_t i = 0; i < tok_count(t); i++) {
        if (tok_is_end(t, (int32_t)i)) l->end_id[l->n_end++] = (int32_t)i;
    }
    *out = l;
    return true;
}

void lexicon_close(struct lexicon *l) {
    free(l);
}

size_t lexicon_bytes(const struct lexicon *l) {
    return l->bytes;
}
