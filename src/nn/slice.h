/* slice.h - who computes what: rows of every matrix, whole KV-head groups.
 *
 * Every matrix is split by output rows only, so that no sum is ever split: distribution changes no
 * bit. Cuts fall on multiples of 32 of whatever is gathered (a quantisation block), which for the
 * heads means as many KV-head groups as fill whole blocks. A slice may get nothing of a kind.
 */
#ifndef NN_SLICE_H
#define NN_SLICE_H

#include "model/model.h"
#include "nn/coll.h"

struct cuts {                         // [n + 1] ascending; slice i has [cut[i], cut[i + 1])
    uint32_t kv_head[SLICE_MAX + 1];  // KV heads, each with its n_head / n_head_kv query heads
    uint32_t embd[SLICE_MAX + 1];     // rows of Wo and down, of each expert
    uint32_t ff[SLICE_MAX + 1];       // rows of gate and up, of each expert
    uint32_t vocab[SLICE_MAX + 1];    // rows of the output matrix
};

/* Shares in proportion to weight [n] (> 0). Pure. */
void cuts_make(struct cuts *c, const struct model *m, unsigned n, const double *weight);

/* Rows of the shared expert's gate and up, which follow the cuts of the others: at [n + 1]. Pure. */
void cuts_shared(const struct cuts *c, const struct model *m, unsigned n, uint32_t *at);

#endif
