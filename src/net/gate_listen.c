#include "net/gate_listen.h"

#include "base/log.h"

#include <netinet/in.h>
#include <netinet/tcp.h>

enum { GONE_MS = 5000, IDLE_S = 5, PROBE_S = 2, PROBES = 3 };

static void set(int fd, int level, int option, int value) {
    (void)setsockopt(fd, level, option, &value, sizeof value);
}

void gate_socket_options(int fd) {
    set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    set(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    set(fd, IPPROTO_TCP, TCP_KEEPIDLE, IDLE_S);
    set(fd, IPPROTO_TCP, TCP_KEEPINTVL, PROBE_S);
    set(fd, IPPROTO_TCP, TCP_KEEPCNT, PROBES);
    set(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, GONE_MS);
}

static void unwatch(struct gate_listen *l) {
    while (l->n_watched) loop_forget(l->loop, &l->watched[--l->n_watched]);
}

static MUST watch(struct gate_listen *l, struct err *e) {
    while (l->is_watching && l->n_watched < l->sockets.n) {
        struct loop_fd *f = &l->watched[l->n_watched];
        *f = (struct loop_fd){
            .fd = l->sockets.at[l->n_watched].fd, .ready = l->incoming, .owner = l->owner};
        if (!loop_watch(l->loop, f, EPOLLIN, e)) return false;
        l->n_watched++;
    }
    return true;
}

/* Sockets are closed and change places: out of the loop with all, and in again. */
static void on_changes(struct loop_fd *f, uint32_t events) {
    struct gate_listen *l = f->owner;
    struct err e;
    (void)events;
    unwatch(l);
    if (!listen_follow(&l->sockets, &e)) log_error("net", "%s", e.text);
    if (!watch(l, &e)) log_error("net", "%s", e.text);
}

MUST gate_listen_open(struct gate_listen *l, struct loop *loop, const char *interface,
                      uint16_t port, void (*incoming)(struct loop_fd *f, uint32_t events),
                      void *owner, struct err *e) {
    const struct listen_conf c = {
        .interface = interface, .port = port, .who = "the other nodes", .key = "cluster_port"};
    *l = (struct gate_listen){
        .loop = loop, .is_watching = true, .incoming = incoming, .owner = owner};
    if (!listen_open(&l->sockets, &c, e)) return false;
    l->port = l->sockets.conf.port;
    l->changes = (struct loop_fd){.fd = l->sockets.changes_fd, .ready = on_changes, .owner = l};
    bool is_following = l->changes.fd >= 0;
    return (!is_following || loop_watch(loop, &l->changes, EPOLLIN, e)) && watch(l, e);
}

void gate_listen_close(struct gate_listen *l) {
    unwatch(l);
    if (l->changes.events) loop_forget(l->loop, &l->changes);
    listen_close(&l->sockets);
}

void gate_listen_pause(struct gate_listen *l) {
    l->is_watching = false;
    unwatch(l);
}

MUST gate_listen_resume(struct gate_listen *l, struct err *e) {
    l->is_watching = true;
    return watch(l, e);
}
