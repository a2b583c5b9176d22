/* matmul.h - matrices times activations: tiles from the store, units to the team, kernels. */
#ifndef NN_MATMUL_H
#define NN_MATMUL_H

#include "base/par.h"
#include "nn/weights.h"

#include <pthread.h>
#include <stdatomic.h>

struct mm_job {
    const struct matrix *mat;
    const void *x;  // packed panels, or f32 rows for float weights
    float *y;       // [n_tok, ldy], ldy >= rows rounded up to 8
    size_t ldy;
    uint32_t unit, n_unit;  // which units of the matrix; n_unit 0: all
    uint32_t n_tok;         // of this job; 0: the call's
};

enum { MM_JOBS = 2 * MODEL_MAX_USED };  // gate and up of every expert of a token

struct matmul_state {
    const struct weights *w;
    struct store *store;
    _Atomic uint32_t
        *left;          // [n_tile] units not yet computed in this sweep, or since it was wanted
    uint32_t next_put;  // tiles are given back in sweep order; under lock
    pthread_mutex_t lock;
    uint8_t *scratch;  // [n_thread, w->unit_bytes] re-laid units
    bool keeps;        // the sweep comes by here again: tiles stay
    nn_work *idle;     // what else to do instead of waiting for the disk, or NULL
    void *idle_ctx;
    /* the call in progress */
    struct mm_job job[MM_JOBS];
    unsigned n_job;
    struct par_items units;
    atomic_bool failed;
    struct err err;  // of the first to fail; under lock
};

/* All jobs in one go of the team; their units must be next in the sweep, in this order, or those of
 * experts, in the order in which they were wanted of the store. Where they would wait for the disk, the
 * team does what `idle` has for it.
 * Fails as idle() and store_get, and with ERR_FORMAT for a scale that is not finite, naming the tensor. */
MUST matmul(struct matmul_state *s, struct par *team, const struct mm_job *job, unsigned n_job,
            uint32_t n_tok, struct err *e);

/* Pass over a matrix of the sweep without computing. */
MUST matmul_skip(struct matmul_state *s, const struct matrix *mat, struct err *e);

/* Pass over the next tile that the sweep at hand has not given back; *is_over: there is none, the sweep is at
 * its end or has not begun. Between calls of matmul(). */
MUST matmul_pass(struct matmul_state *s, bool *is_over, struct err *e);

/* The store's convert: file order to kernel order for tile i. owner is a struct weights. */
bool matmul_convert(void *owner, uint32_t i, void *dst, const void *raw, struct err *e);

#endif
