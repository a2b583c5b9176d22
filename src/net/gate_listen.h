/* gate_listen.h - the gate's listening sockets: one for all interfaces, or one for each address of a
 * given interface, kept up with as addresses come and go (DHCP renews, a cable is plugged). Binding to
 * addresses needs no rights and, unlike binding to the device, also hears this machine itself. */
#ifndef NET_GATE_LISTEN_H
#define NET_GATE_LISTEN_H

#include "base/loop.h"
#include "net/ifaces.h"

enum { GATE_LISTENERS = IF_ADDRS };

struct gate_listener {
    struct loop_fd fd;
    struct if_addr addr;  // unused when there is one for all
};

struct gate_listen {
    struct loop *loop;
    const char *interface;  // borrowed
    uint16_t port;
    bool is_watching;
    void (*incoming)(struct loop_fd *f, uint32_t events);
    void *owner;
    struct loop_fd changes;  // of addresses
    uint32_t n;
    struct gate_listener listener[GATE_LISTENERS];
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
