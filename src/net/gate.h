/* gate.h - where nodes come in: listens, dials, and lets only holders of the key through.
 *
 * Each connection opens with a preamble in the clear (net/preamble.h), the dialler's first, then the
 * channel's handshake, all within GATE_HANDSHAKE_MS. The lower (id, instance) is the TLS client,
 * whoever dialled. Own id with own instance is refused; own id with another instance is not (a cloned
 * card: the callee sees to it). Nothing that a stranger sends has an effect before the handshake is
 * done but a count. At most GATE_PENDING that came in are in that state: one more displaces the oldest
 * of the address that has most of them. Memory for TLS is taken only once the preamble is right, and at
 * most for gate_conf.n_handshake at one time, those that we dialled included: one more postpones one in the
 * same way, but none that we dialled. Who is postponed may be a node, which dials again.
 * Thread: the loop's.
 */
#ifndef NET_GATE_H
#define NET_GATE_H

#include "base/loop.h"
#include "net/chan.h"

#include <sys/socket.h>

enum { GATE_PENDING = 64, GATE_HANDSHAKE_MS = 4000, GATE_PORT = 9998 };

struct gate_peer {  // proved by the handshake
    struct node_id id;
    uint64_t instance;
    enum chan_kind kind;
    uint64_t epoch;
    bool is_dialled;               // by us
    bool is_old_key;               // the newest key in common is the old one of either
    struct sockaddr_storage addr;  // never an IPv4 address in IPv6's clothes
    uint64_t tag;                  // of gate_dial; 0 for one that came in
};

/* Why a connection ended before it was a peer's. Each is counted, and what others do wrong is logged
 * once a minute. */
enum gate_end {
    GATE_FAILED,  // the network's doing
    GATE_GARBAGE,
    GATE_WRONG_KEY,
    GATE_SELF,  // the address is that of this very process
    GATE_LATE,
    GATE_DISPLACED,
    GATE_POSTPONED,
    GATE_VERSION,  // of the protocol
    N_GATE_END
};

struct gate_conf {
    struct loop *loop;
    const struct ident *self;  // borrowed; its id may be renewed between events
    const struct keys *keys;   // borrowed
    const char *interface;     // borrowed; its addresses, as they come and go; NULL: all
    uint16_t port;             // 0: any free one
    uint32_t n_handshake;      // at one time, 1 at least; each takes what a channel does
    /* A peer is through: c is the callee's now. Its first frames may have come already, which no
     * poll will tell: chan_recv() first. */
    void (*on_peer)(void *ctx, struct chan *c, const struct gate_peer *p);
    /* A dial came to nothing. */
    void (*on_failed)(void *ctx, uint64_t tag, enum gate_end how, const struct err *why);
    void *ctx;
};

struct gate_counts {
    uint64_t accepted, proved, wrong_key, garbage, timed_out, displaced, self, failed, postponed,
        other_version;
};

struct gate;
/* Fails: ERR_IO naming the port and the remedy; ERR_USAGE: there is no such interface. */
MUST gate_open(struct gate **out, const struct gate_conf *c, struct err *e);
void gate_close(struct gate *g);
uint16_t gate_port(const struct gate *g);
void gate_counts(const struct gate *g, struct gate_counts *out);

/* Dial addr for a channel of this kind; the outcome comes by on_peer or on_failed, later (at once only
 * when there is no memory for a dial). */
void gate_dial(struct gate *g, const struct sockaddr_storage *addr, enum chan_kind kind,
               uint64_t epoch, uint64_t tag);

#endif
