/* worker.h - the engine's thread: one epoch after another, one step after another.
 *
 * In an epoch a node carves its memory, reads its share of the weights, waits for the data channels
 * and then works: the leader picks the next step (which sequence, which tokens), tells the others,
 * and all of them run it; the leader samples. The compute team lives as long as the thread.
 *
 * Threads: the functions here are for the cluster's thread, but for worker_open, worker_close and
 * worker_figures.
 */
#ifndef ENGINE_WORKER_H
#define ENGINE_WORKER_H

#include "cluster/cluster.h"
#include "engine/seqs.h"
#include "model/tok.h"

struct worker_conf {
    const struct model *model;
    const struct kernels *kernels;
    const struct tok *tok;
    uint64_t pool;      // bytes for everything an epoch needs
    uint64_t grammars;  // bytes for all grammars that are followed at one time; 0: none are
    uint64_t asks;      // bytes for all requests that are kept while we lead
    uint32_t n_thread, n_decode, n_reader, n_slot;  // see nn.h
    struct par_places places;
    /* Called on the worker's thread. on_loading: bytes of weights that are in memory so far. */
    void (*on_loading)(void *ctx, uint64_t done);
    void (*on_loaded)(void *ctx, uint64_t epoch, const struct nn_memory *m);
    void (*on_paused)(void *ctx, uint64_t epoch);
    /* suspect: the slice that does not answer; -1: our own fault. */
    void (*on_broke)(void *ctx, uint64_t epoch, int suspect, const char *why);
    void (*on_product)(void *ctx);  // worker_take has something
    void *ctx;
};

/* What came out of the leader's work: a token of an answer, or its end. */
struct product {
    uint64_t epoch, ticket;
    struct node_id front;
    bool is_end;
    uint32_t at;  // place of the token in the answer
    int32_t id;
    enum done_why why;
    char text[ERR_TEXT];  // the reason of an end that is none of the text
};

struct worker_figures {
    bool is_leading;
    uint32_t running, waiting, n_seq;
    uint64_t tokens;
    double tokens_per_s;                     // of late, 0 when idle
    double compute_ms, disk_ms, network_ms;  // of a step that makes a token, of late
    struct mesh_stats net;                   // all epochs
    uint64_t read_bytes;                     // weights from the disk, the same; loading not counted
};

struct worker;
MUST worker_open(struct worker **out, const struct worker_conf *c, struct err *e);
void worker_close(struct worker *w);  // after the epoch at hand was ended

/* The next epoch; the reference is the worker's. */
void worker_epoch(struct worker *w, struct epoch *e);
/* The epoch at hand changed: it is over, or serves. */
void worker_notify(struct worker *w);

/* A request for the epoch at hand. Fails: as seqs_add; ERR_STOPPED when that is another epoch. */
MUST worker_ask(struct worker *w, uint64_t epoch, const struct node_id *front, const struct ask *a,
                struct err *e);
void worker_cancel(struct worker *w, const struct node_id *front, uint64_t ticket);
bool worker_take(struct worker *w, struct product *out);

/* A number that is another one whenever the worker has got on with what it has to do (a layer, or bytes of
 * one: a slow disk takes minutes for a wide layer), or waits for other nodes in good order; false: it has
 * nothing to do. Any thread. */
bool worker_pulse(struct worker *w, uint64_t *pulse);

void worker_figures(struct worker *w, struct worker_figures *out);

/* A node joins n_node others, who have spent so long on `done` layers of a step that makes a token:
 * whether it is ended first. Not if much is left and so little done that to do it again with a node
 * more takes no longer. */
bool worker_ends_step(uint64_t spent_ns, uint32_t done, uint32_t n_layer, uint32_t n_node);

#endif
