/* coll_net.h - the data plane of one epoch: a channel to every other node of the plan, and gather over
 * them.
 *
 * Channels are made for one epoch and die with it, so nothing of an older epoch can ever arrive here;
 * each message also carries its number, and anything out of order is refused. Gather is direct and
 * rotated: step s sends to node i + s and expects from node i - s, so that no port is flooded. A message
 * goes by one write, a large one in frames of 32 KiB, so that sealing, sending and receiving overlap;
 * nothing ever waits to send without receiving too. Large gathers begin while the other half is
 * still computed (coll.h: early). Waiting: 50 us of trying with sched_yield, then poll. What arrives is
 * checked before it is used: lengths, int8 payloads (-128 refused), scales.
 * Threads: mesh_link, mesh_abort: any; the rest: the engine's only.
 */
#ifndef CLUSTER_COLL_NET_H
#define CLUSTER_COLL_NET_H

#include "net/chan.h"
#include "nn/coll.h"

struct mesh;

/* n nodes, of which this is `self`. widest: bytes of the widest message of one gather (all rows of
 * the own part) and of a cast. */
MUST mesh_open(struct mesh **out, unsigned self, unsigned n, size_t widest, struct err *e);
/* Nobody may be inside it any more. Closes the channels. */
void mesh_close(struct mesh *m);

/* The channel to node `peer` (its kind is CHAN_DATA); the mesh owns it from now on. A second one for
 * the same node replaces the first if that was not used yet, else it is closed. */
void mesh_link(struct mesh *m, unsigned peer, struct chan *c);
/* All channels are there. Fails: ERR_STOPPED after mesh_abort. */
MUST mesh_wait(struct mesh *m, struct err *e);
/* A byte to and from everybody, once after mesh_wait: a channel that only its dialler believes in shows
 * here, and not in the first request. Returns when the slowest has come so far. */
MUST mesh_greet(struct mesh *m, struct err *e);
/* Everything that waits or will wait in the mesh fails with ERR_STOPPED, at once. A node that goes
 * closes its channels: to its peers it then looks as one that failed, so abort them first. */
void mesh_abort(struct mesh *m);

struct coll *mesh_coll(struct mesh *m);

/* From node 0 to all others: the same few bytes (what the next step is). */
MUST mesh_cast(struct mesh *m, const void *p, size_t len, struct err *e);
/* The other end of it: waits as long as it takes. Fails: ERR_LIMIT when longer than cap. */
MUST mesh_hear(struct mesh *m, void *p, size_t cap, size_t *len, struct err *e);

/* Another number at least every second while the engine waits in here for others. Any thread. */
uint64_t mesh_pulse(const struct mesh *m);

/* Whose channel failed, -1: nobody's. */
int mesh_suspect(const struct mesh *m);

struct mesh_stats {
    uint64_t n_gather, sent_payload, sent_wire, received_payload, received_wire;
    uint64_t wait_ns, crypt_ns;  // inside gathers; sealing and opening
};
/* Any thread. */
void mesh_stats(const struct mesh *m, struct mesh_stats *s);

#endif
