/* cluster.h - a node among nodes: the thread that finds, proves, hears and follows the others.
 *
 * One thread runs an event loop over mDNS, the gate and the control channels; it feeds members.c and
 * does what that says. It does nothing that takes long, so that its beats (four a second) tell of the
 * node's life and not of its load. What an epoch computes is the engine's: it gets a struct epoch and
 * holds it until it has noticed that it is over.
 *
 * Walk: gate or mDNS -> link.c: control channels -> members.c: who leads -> plan.c -> struct epoch with
 * a mesh of data channels -> the engine.
 */
#ifndef CLUSTER_CLUSTER_H
#define CLUSTER_CLUSTER_H

#include "cluster/coll_net.h"
#include "cluster/members.h"
#include "net/gate.h"
#include "net/mdns.h"

#include <stdatomic.h>

/* One epoch's work, shared by the cluster's and the engine's threads; freed when both let go. */
struct epoch {
    struct plan plan;  // constant
    unsigned self;     // our slice
    struct mesh *mesh;
    atomic_bool is_over;     // abandon it: the mesh is aborted, too
    atomic_bool is_serving;  // all nodes are ready
    /* A node joins: finish the step if that is worth the wait, say cluster_paused(), begin no
     * other. A step that does not get on ends the epoch anyway. */
    atomic_bool is_pausing;
    atomic_uint refs;
};
void epoch_release(struct epoch *e);

/* Called on the cluster's thread; short. */
struct cluster_events {
    /* A new epoch to work on; the one before it is over. The callee holds a reference. */
    void (*on_epoch)(void *ctx, struct epoch *e);
    /* The epoch at hand is over and there is none yet; or it takes work now (is_serving). */
    void (*on_change)(void *ctx);
    /* ASK and CANCEL (we lead), TOKENS and DONE (we are the front). */
    void (*on_message)(void *ctx, const struct node_id *from, const struct msg *m);
    /* A beat is about to be sent: fills in disk_bps, temperature_c and work. */
    void (*on_beat)(void *ctx, struct beat *b);
    /* After cluster_wake(), and at every beat. */
    void (*on_wake)(void *ctx);
    void *ctx;
};

enum { CLUSTER_PEERS = 16 };

struct cluster_conf {
    struct ident *ident;      // borrowed; renewed by the cluster when another node has the same
    const struct keys *keys;  // borrowed
    struct facts facts;       // what we say of ourselves
    const char *interface;
    const char *peer[CLUSTER_PEERS];  // host:port
    unsigned n_peer;
    bool is_discovered;
    uint16_t cluster_port, ollama_port;  // wanted
    uint32_t n_handshake;                // of strangers at one time, see gate.h

    const struct model *model;  // NULL: none
    const struct kernels *kernels;
    struct plan_wish wish;  // n_ctx, n_batch, n_seq at most, kv, wire, is_even
    struct cluster_events events;
};

struct cluster;
/* Opens sockets. Fails: ERR_IO, ERR_USAGE (a peer that is no host:port). */
MUST cluster_open(struct cluster **out, const struct cluster_conf *c, struct err *e);
/* Starts the thread; no event comes before. Fails: ERR_MEMORY. */
MUST cluster_start(struct cluster *c, struct err *e);
/* Says goodbye, ends the epoch and the thread: no event comes after. The other calls stay safe. */
void cluster_stop(struct cluster *c);
void cluster_close(struct cluster *c);  // stopped before, and nobody else knows it any more

/* Any thread. */
void cluster_wake(struct cluster *c);
void cluster_leave(struct cluster *c);  // announce that we go
/* The engine: this epoch is loaded and its mesh complete; or it broke, by a peer (slice) or, with
 * suspect < 0, for a reason of our own that makes us unfit (why). */
void cluster_loaded(struct cluster *c, uint64_t epoch);
void cluster_paused(struct cluster *c, uint64_t epoch);
void cluster_broke(struct cluster *c, uint64_t epoch, int suspect, const char *why);
/* Our engine hangs: the others go on without us. */
void cluster_stuck(struct cluster *c, uint64_t epoch, const char *why);
void cluster_measured(struct cluster *c, uint64_t pinned, uint64_t streamed);

/* The cluster's thread only, from the events: send to a member; to ourselves it comes back by
 * on_message. False: no such member now. */
bool cluster_send(struct cluster *c, const struct node_id *to, struct msg *m);
bool cluster_knows(struct cluster *c, const struct node_id *id);  // ourselves, or connected
/* Its tokens are not ours, or its numbers: known of a member only. */
bool cluster_has_other_model(const struct cluster *c, const struct node_id *id);
uint64_t cluster_epoch(const struct cluster *c);    // at hand, 0: none
unsigned cluster_serving(const struct cluster *c);  // nodes of the serving epoch, 0: none serves
bool cluster_leader(const struct cluster *c, struct node_id *leader,
                    uint64_t *epoch);  // serving only

/* Nobody here will serve unless someone does something: we have FAILED, or have no model and hear of no
 * leader; why [cap] says it. The cluster's thread only. */
bool cluster_is_hopeless(struct cluster *c, char *why, size_t cap);

/* A member was lost and is waited for: with it an epoch may come that has memory for more. The cluster's
 * thread only. */
bool cluster_waits(const struct cluster *c);

/* Any thread. What the leader that is followed says of its work; false: none is, or we lead. */
bool cluster_work(struct cluster *c, struct work *w);

/* Any thread: state, nodes, network counters, alerts of the status; the rest is left alone. */
void cluster_status(struct cluster *c, struct status *s);

#endif
