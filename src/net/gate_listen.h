/* gate_listen.h - the gate's listening sockets (base/listen.h) in an event loop. */
#ifndef NET_GATE_LISTEN_H
#define NET_GATE_LISTEN_H

#include "base/listen.h"
#include "base/loop.h"

struct gate_listen {
    struct loop *loop;
    bool is_watching;
    void (*incoming)(struct loop_fd *f, uint32_t events);
    void *owner;
    uint16_t port;           // the one that was got
    struct listen sockets;   // of all these
    struct loop_fd changes;  // of addresses
    uint32_t n_watched;
    struct loop_fd watched[LISTENERS];  // one for each socket
};

/* Non-blocking sockets that call incoming (owner in f->owner) when there is something to accept.
 * Fails: ERR_IO, ERR_USAGE. */
MUST gate_listen_open(struct gate_listen *l, struct loop *loop, const char *interface,
                      uint16_t port, void (*incoming)(struct loop_fd *f, uint32_t events),
                      void *owner, struct err *e);
void gate_listen_close(struct gate_listen *l);

/* No calls until resumed. */
void gate_listen_pause(struct gate_listen *l);
MUST gate_listen_resume(struct gate_listen *l, struct err *e);

/* What every connection of the cluster has: small messages leave at once, and a peer that is gone is
 * noticed within seconds. */
void gate_socket_options(int fd);

#endif
