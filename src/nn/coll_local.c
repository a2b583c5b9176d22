/* coll_local.c - slices of one process gather by copying from each other between two barriers.
 *
 * Every slice has a full-width buffer of its own, as nodes have, so that the same forward pass serves
 * both; the copy is what the network would carry. */
#include "nn/coll.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct member {
    struct coll coll;  // first: a struct coll * of ours is a struct member *
    struct coll_local *all;
    const uint8_t *buf;  // posted for the gather in progress
};

struct coll_local {
    pthread_mutex_t lock;
    pthread_cond_t turn;
    unsigned n, waiting;
    uint64_t round;  // counts barriers
    bool left;       // a slice gave up
    struct member member[];
};

/* All slices reach it, or one has left. */
static bool barrier(struct coll_local *l) {
    pthread_mutex_lock(&l->lock);
    uint64_t round = l->round;
    if (++l->waiting == l->n) {
        l->waiting = 0;
        l->round++;
        pthread_cond_broadcast(&l->turn);
    }
    while (l->round == round && !l->left) pthread_cond_wait(&l->turn, &l->lock);
    bool ok = l->round != round;
    pthread_mutex_unlock(&l->lock);
    return ok;
}

static MUST gather(struct coll *c, enum coll_kind kind, void *buf, size_t stride, size_t n_row,
                   const size_t *at, struct err *e) {
    (void)kind;  // nobody here is a stranger
    struct member *me = (struct member *)(void *)c;
    struct coll_local *l = me->all;
    me->buf = buf;
    bool ok = barrier(l);
    for (unsigned i = 0; ok && i < c->n; i++) {
        size_t len = at[i + 1] - at[i];
        if (i == c->self || !len) continue;
        for (size_t r = 0; r < n_row; r++) {
            size_t off = r * stride + at[i];
            memcpy((uint8_t *)buf + off, l->member[i].buf + off, len);
        }
    }
    /* Nobody may overwrite its part before all have copied it. */
    ok = ok && barrier(l);
    return ok || err_set(e, ERR_STOPPED, "another slice of this process has stopped");
}

static MUST gather_alone(struct coll *c, enum coll_kind kind, void *buf, size_t stride,
                         size_t n_row, const size_t *at, struct err *e) {
    (void)c, (void)kind, (void)buf, (void)stride, (void)n_row, (void)at, (void)e;
    return true;
}

void coll_alone(struct coll *c) {
    *c = (struct coll){.n = 1, .gather = gather_alone};
}

MUST coll_local_open(struct coll_local **out, unsigned n, struct err *e) {
    struct coll_local *l = calloc(1, sizeof *l + n * sizeof l->member[0]);
    if (!l) return err_set(e, ERR_MEMORY, "%u slices: no memory to join them", n);
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->turn, NULL);
    l->n = n;
    for (unsigned i = 0; i < n; i++) {
        l->member[i].coll = (struct coll){.self = i, .n = n, .gather = gather};
        l->member[i].all = l;
    }
    *out = l;
    return true;
}

struct coll *coll_local_at(struct coll_local *l, unsigned i) {
    return &l->member[i].coll;
}

void coll_local_leave(struct coll_local *l) {
    pthread_mutex_lock(&l->lock);
    l->left = true;
    pthread_cond_broadcast(&l->turn);
    pthread_mutex_unlock(&l->lock);
}

void coll_local_close(struct coll_local *l) {
    if (!l) return;
    pthread_mutex_destroy(&l->lock);
    pthread_cond_destroy(&l->turn);
    free(l);
}
