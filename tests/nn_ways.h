/* nn_ways.h - one prompt through a small model in many ways: slices in threads of their own, several
 * tokens at once, streamed or not. However it is done, the logits must be the same to the bit. */
#ifndef TESTS_NN_WAYS_H
#define TESTS_NN_WAYS_H

#include "nn/nn.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { WAY_TOKENS = 24, WAY_VOCAB = 50 };  // at most

enum budget { ALL_RESIDENT, HALF, ALL_STREAMED };

struct way {
    const char *what;
    unsigned n_slice;
    double share[SLICE_MAX];
    uint32_t n_batch;
    int n_thread;
    enum budget budget;
    enum kv_type kv;
    enum wire_type wire;
};

struct prompt {
    uint32_t n;
    int32_t token[WAY_TOKENS];
};

struct answer {
    float logits[WAY_TOKENS][WAY_VOCAB];
    bool is_known[WAY_TOKENS];  // steps of several tokens give the last one's only
};

struct way_node {
    const struct way *way;
    const struct prompt *prompt;
    unsigned self;
    struct nn *nn;
    struct answer *out;
    struct coll_local *local;
    bool ok, streams;
    struct err err;
};

static inline void way_steps(void *ctx, struct par *team) {
    struct way_node *k = ctx;
    const struct prompt *p = k->prompt;
    k->ok = true;
    for (uint32_t at = 0; k->ok && at < p->n;) {
        uint32_t n = p->n - at < k->way->n_batch ? p->n - at : k->way->n_batch, first, count;
        k->ok = nn_step(k->nn, team, 0, p->token + at, n, NN_LOGITS, &k->err);
        if (!k->ok) break;
        at += n;
        const float *logits = nn_logits(k->nn, &first, &count);
        if (first + count > WAY_VOCAB) abort();
        if (count) memcpy(k->out->logits[at - 1] + first, logits, count * sizeof *logits);
        if (!k->self) k->out->is_known[at - 1] = true;
    }
    if (!k->ok && k->local) coll_local_leave(k->local);
}

static inline void *way_thread(void *ctx) {
    struct way_node *k = ctx;
    if (!par_enter(k->way->n_thread, way_steps, k, &k->err)) k->ok = false;
    return NULL;
}

static inline MUST way_open(struct way_node *k, const struct model *m,
                            const struct kernels *kernels, struct coll *coll, struct err *e) {
    const struct way *w = k->way;
    struct nn_memory mem;
    struct nn_conf c = {.model = m,
                        .kernels = kernels,
                        .self = k->self,
                        .n_slice = w->n_slice,
                        .n_seq = 1,
                        .n_ctx = 32,
                        .n_batch = w->n_batch,
                        .kv = w->kv,
                        .wire = w->wire,
                        .budget = (uint64_t)1 << 40,
                        .n_reader = 3,
                        .n_slot = 2,
                        .n_thread = (uint32_t)w->n_thread};
    cuts_make(&c.cuts, m, w->n_slice, w->share);
    if (!nn_measure(&c, &mem, e)) return false;
    /* Half of the weights or, where disk buffers take as much, so many that some stream. */
    uint64_t least = mem.min_budget, more = w->budget == HALF ? mem.weight_bytes / 2 : 0;
    if (w->budget != ALL_RESIDENT) c.budget = least + more;
    for (; w->budget != ALL_RESIDENT && more; more /= 2) {
        c.budget = least + more;
        if (!nn_measure(&c, &mem, e)) return false;
        if (mem.disk_bytes) break;
    }
    if (!nn_open(&k->nn, &c, coll, e) || !nn_load(k->nn, NULL, NULL, e)) return false;
    k->streams = nn_memory(k->nn)->disk_bytes > 0;
    return w->budget != ALL_RESIDENT || !k->streams || err_set(e, ERR_MEMORY, "it streams");
}

/* All slices, each with a team of its own; the logits of the prompt's tokens. */
static inline MUST way_run(const struct model *m, const struct kernels *kernels,
                           const struct way *w, const struct prompt *p, struct answer *out,
                           struct err *e) {
    struct way_node node[SLICE_MAX] = {0};
    struct coll_local *local = NULL;
    pthread_t thread[SLICE_MAX];
    struct coll alone;
    bool ok = w->n_slice == 1 || coll_local_open(&local, w->n_slice, e);
    memset(out, 0, sizeof *out);
    coll_alone(&alone);
    for (unsigned i = 0; ok && i < w->n_slice; i++) {
        node[i] = (struct way_node){.way = w, .prompt = p, .self = i, .out = out, .local = local};
        ok = way_open(&node[i], m, kernels, local ? coll_local_at(local, i) : &alone, e);
    }
    if (ok) {
        for (unsigned i = 0; i < w->n_slice; i++) {
            if (pthread_create(&thread[i], NULL, way_thread, &node[i])) abort();
        }
        for (unsigned i = 0; i < w->n_slice; i++) {
            pthread_join(thread[i], NULL);
            if (!node[i].ok) ok = false, *e = node[i].err;
        }
    }
    /* Of a small slice the least buffers may hold all; but not all slices are small. */
    bool streams = w->budget == ALL_RESIDENT;
    for (unsigned i = 0; i < w->n_slice; i++) streams = streams || node[i].streams;
    if (ok && !streams) ok = err_set(e, ERR_MEMORY, "nothing streams");
    for (unsigned i = 0; i < w->n_slice; i++) nn_close(node[i].nn);
    coll_local_close(local);
    return ok;
}

static inline bool answer_is(const struct answer *a, const struct answer *want,
                             const struct prompt *p) {
    bool same = a->is_known[p->n - 1];
    for (uint32_t i = 0; i < p->n; i++) {
        if (!a->is_known[i]) continue;
        same = same && !memcmp(a->logits[i], want->logits[i], sizeof a->logits[i]);
    }
    return same;
}

/* Numbers that move with the prompt: all logits alike would compare equal for the wrong reason. */
static inline bool answer_is_alive(const struct answer *a, const struct prompt *p) {
    bool moves = false;
    for (uint32_t t = 0; t < p->n; t++) {
        for (uint32_t i = 0; i < WAY_VOCAB; i++) {
            if (a->logits[t][i] != a->logits[t][i]) return false;
        }
        if (t && memcmp(a->logits[t], a->logits[t - 1], sizeof a->logits[t]) != 0) moves = true;
    }
    return moves;
}

#endif
