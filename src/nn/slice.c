#include "nn/slice.h"

#include "kernels.h"

#include <assert.h>

/* Cut n_unit units among the slices in proportion: cut i at the rounded running share, so that the
 * pieces differ from the ideal by less than one unit and the last cut is exact. */
static void cut(uint32_t *at, uint32_t total, uint32_t unit, unsigned n, const double *weight) {
    double sum = 0, run = 0;
    for (unsigned i = 0; i < n; i++) sum += weight[i];
    uint32_t n_unit = (total + unit - 1) / unit;
    at[0] = 0;
    for (unsigned i = 0; i < n; i++) {
        run += weight[i];
        uint32_t u = i + 1 == n ? n_unit : (uint32_t)((double)n_unit * (run / sum) + 0.5);
        uint64_t row = (uint64_t)u * unit;
        at[i + 1] = row > total ? total : (uint32_t)row;
        if (at[i + 1] < at[i]) at[i + 1] = at[i];
    }
}

/* Smallest number of KV heads whose query heads fill whole blocks of 32 values, and whose own rows
 * fill whole groups of 8. */
static uint32_t kv_unit(const struct model *m) {
    uint32_t width = m->n_head / m->n_head_kv * m->head_dim;
    uint32_t u = 1;
    while (u < m->n_head_kv &&
           ((uint64_t)u * width % Q_BLOCK || (uint64_t)u * m->head_dim % ROW_GROUP)) {
        u++;
    }
    return u;
}

void cuts_make(struct cuts *c, const struct model *m, unsigned n, const double *weight) {
    assert(n >= 1 && n <= SLICE_MAX);
    *c = (struct cuts){0};
    cut(c->kv_head, m->n_head_kv, kv_unit(m), n, weight);
    cut(c->embd, m->n_embd, Q_BLOCK, n, weight);
    cut(c->ff, m->n_ff, Q_BLOCK, n, weight);
    cut(c->vocab, m->n_vocab, Q_BLOCK, n, weight);
}

void cuts_shared(const struct cuts *c, const struct model *m, unsigned n, uint32_t *at) {
    for (unsigned i = 0; i <= n; i++) {
        uint64_t row = (uint64_t)c->ff[i] * m->n_ff_shared / m->n_ff / Q_BLOCK * Q_BLOCK;
        at[i] = c->ff[i] == m->n_ff ? m->n_ff_shared : (uint32_t)row;
    }
}
