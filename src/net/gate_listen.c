#include "net/gate_listen.h"

#include "base/log.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <unistd.h>

enum { BACKLOG = 128, GONE_MS = 5000, IDLE_S = 5, PROBE_S = 2, PROBES = 3 };

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

union address {
    struct sockaddr any;
    struct sockaddr_in four;
    struct sockaddr_in6 six;
};

static MUST port_err(const struct gate_listen *l, int why, struct err *e) {
    errno = why;
    if (why == EADDRINUSE) {
        return err_sys(e,
                       "port %u, for the other nodes, is taken: another dair is running, or give "
                       "a free one as port",
                       l->port);
    }
    return err_sys(e, "cannot listen for the other nodes on port %u", l->port);
}

/* A socket on that address; returns 0 or errno. */
static int listen_on(struct gate_listen *l, const union address *a, bool is_dual, int *out) {
    union address at = *a;
    bool is_six = at.any.sa_family == AF_INET6;
    socklen_t len = is_six ? sizeof at.six : sizeof at.four;
    *(is_six ? &at.six.sin6_port : &at.four.sin_port) = htons(l->port);
    int fd = socket(at.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return errno;
    set(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    if (is_six) set(fd, IPPROTO_IPV6, IPV6_V6ONLY, !is_dual);
    if (bind(fd, &at.any, len) || listen(fd, BACKLOG) || getsockname(fd, &at.any, &len)) {
        int why = errno;
        close(fd);
        return why;
    }
    l->port = ntohs(is_six ? at.six.sin6_port : at.four.sin_port);
    *out = fd;
    return 0;
}

static MUST add(struct gate_listen *l, int fd, const struct if_addr *addr, struct err *e) {
    struct gate_listener *to = &l->listener[l->n];
    *to = (struct gate_listener){.fd = {.fd = fd, .ready = l->incoming, .owner = l->owner}};
    if (addr) to->addr = *addr;
    if (l->is_watching && !loop_watch(l->loop, &to->fd, EPOLLIN, e)) {
        close(fd);
        return false;
    }
    l->n++;
    return true;
}

static void drop(struct gate_listen *l, uint32_t i) {
    struct gate_listener *last = &l->listener[l->n - 1], *gone = &l->listener[i];
    struct err e;
    loop_forget(l->loop, &gone->fd);
    close(gone->fd.fd);
    if (gone != last) {  // epoll knows the place of the last one
        bool was_watched = last->fd.events;
        loop_forget(l->loop, &last->fd);
        *gone = *last;
        if (was_watched && !loop_watch(l->loop, &gone->fd, EPOLLIN, &e)) {
            log_error("net", "%s", e.text);
        }
    }
    l->n--;
}

/* IPv6 and IPv4 by one socket; IPv4 alone where the kernel has no IPv6. */
static MUST open_all(struct gate_listen *l, struct err *e) {
    const union address six = {.six = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_ANY_INIT}};
    const union address four = {.four = {.sin_family = AF_INET}};
    int fd, why = listen_on(l, &six, true, &fd);
    if (why == EAFNOSUPPORT || why == EADDRNOTAVAIL) why = listen_on(l, &four, false, &fd);
    return why ? port_err(l, why, e) : add(l, fd, NULL, e);
}

static bool same_addr(const struct if_addr *a, const struct if_addr *b) {
    return a->family == b->family && !memcmp(a->b, b->b, sizeof a->b);
}

static MUST open_addr(struct gate_listen *l, const struct iface *i, const struct if_addr *addr,
                      struct err *e) {
    union address a = {0};
    int fd;
    if (addr->family == AF_INET) {
        a.four.sin_family = AF_INET;
        memcpy(&a.four.sin_addr, addr->b, 4);
    } else {
        a.six.sin6_family = AF_INET6;
        memcpy(&a.six.sin6_addr, addr->b, 16);
        if (IN6_IS_ADDR_LINKLOCAL(&a.six.sin6_addr)) a.six.sin6_scope_id = i->index;
    }
    int why = listen_on(l, &a, false, &fd);
    return why ? port_err(l, why, e) : add(l, fd, addr, e);
}

/* A socket for each address that the interface has now, none for those it had. */
static MUST match_addresses(struct gate_listen *l, struct err *e) {
    struct iface all[IFACES], none = {0}, *i = &none;
    size_t n;
    if (!ifaces_list(all, IFACES, &n, e)) return false;
    for (size_t k = 0; k < n; k++) {
        if (!strcmp(all[k].name, l->interface)) i = &all[k];
    }
    for (uint32_t k = l->n; k-- > 0;) {
        bool stays = false;
        for (uint32_t a = 0; a < i->n_addr; a++) {
            stays = stays || same_addr(&l->listener[k].addr, &i->addr[a]);
        }
        if (!stays) drop(l, k);
    }
    for (uint32_t a = 0; a < i->n_addr && l->n < GATE_LISTENERS; a++) {
        bool is_there = false;
        for (uint32_t k = 0; k < l->n; k++) {
            is_there = is_there || same_addr(&l->listener[k].addr, &i->addr[a]);
        }
        if (!is_there && !open_addr(l, i, &i->addr[a], e)) return false;
    }
    return true;
}

static void on_changes(struct loop_fd *f, uint32_t events) {
    struct gate_listen *l = f->owner;
    struct err e;
    (void)events;
    if (ifaces_changed(f->fd) && !match_addresses(l, &e)) log_error("net", "%s", e.text);
}

static MUST open_interface(struct gate_listen *l, struct err *e) {
    int fd;
    if (!if_nametoindex(l->interface)) {
        return err_set(e, ERR_USAGE, "there is no network interface called %.60s", l->interface);
    }
    if (!ifaces_watch(&fd, e)) return false;
    l->changes = (struct loop_fd){.fd = fd, .ready = on_changes, .owner = l};
    if (!loop_watch(l->loop, &l->changes, EPOLLIN, e)) return false;
    if (!match_addresses(l, e)) return false;
    if (!l->n) log_warn("net", "%s has no address yet; waiting for one", l->interface);
    return true;
}

MUST gate_listen_open(struct gate_listen *l, struct loop *loop, const char *interface,
                      uint16_t port, void (*incoming)(struct loop_fd *f, uint32_t events),
                      void *owner, struct err *e) {
    *l = (struct gate_listen){.loop = loop,
                              .interface = interface && *interface ? interface : NULL,
                              .port = port,
                              .is_watching = true,
                              .incoming = incoming,
                              .owner = owner,
                              .changes = {.fd = -1}};
    return l->interface ? open_interface(l, e) : open_all(l, e);
}

void gate_listen_close(struct gate_listen *l) {
    while (l->n) drop(l, l->n - 1);
    if (l->changes.fd < 0) return;
    loop_forget(l->loop, &l->changes);
    close(l->changes.fd);
    l->changes.fd = -1;
}

void gate_listen_pause(struct gate_listen *l) {
    l->is_watching = false;
    for (uint32_t i = 0; i < l->n; i++) loop_forget(l->loop, &l->listener[i].fd);
}

MUST gate_listen_resume(struct gate_listen *l, struct err *e) {
    l->is_watching = true;
    for (uint32_t i = 0; i < l->n; i++) {
        if (!loop_watch(l->loop, &l->listener[i].fd, EPOLLIN, e)) return false;
    }
    return true;
}
