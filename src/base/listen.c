#include "base/listen.h"

#include "base/log.h"

#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <unistd.h>

enum { BACKLOG = 128 };

union address {
    struct sockaddr any;
    struct sockaddr_in four;
    struct sockaddr_in6 six;
};

static MUST port_err(const struct listen *l, int why, struct err *e) {
    const struct listen_conf *c = &l->conf;
    errno = why;
    if (why == EADDRINUSE) {
        return err_sys(e,
                       "port %u, for %s, is taken: another dair is running, or give a free one as "
                       "%s",
                       c->port, c->who, c->key);
    }
    return err_sys(e, "cannot listen for %s on port %u", c->who, c->port);
}

static void set(int fd, int level, int option, int value) {
    (void)setsockopt(fd, level, option, &value, sizeof value);
}

/* A socket on that address; returns 0 or errno. */
static int listen_on(struct listen *l, const union address *a, bool is_dual, int *out) {
    union address at = *a;
    bool is_six = at.any.sa_family == AF_INET6;
    socklen_t len = is_six ? sizeof at.six : sizeof at.four;
    *(is_six ? &at.six.sin6_port : &at.four.sin_port) = htons(l->conf.port);
    int fd = socket(at.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return errno;
    set(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    if (is_six) set(fd, IPPROTO_IPV6, IPV6_V6ONLY, !is_dual);
    if (bind(fd, &at.any, len) || listen(fd, BACKLOG) || getsockname(fd, &at.any, &len)) {
        int why = errno;
        close(fd);
        return why;
    }
    l->conf.port = ntohs(is_six ? at.six.sin6_port : at.four.sin_port);
    *out = fd;
    return 0;
}

/* IPv6 and IPv4 by one socket; IPv4 alone where the kernel has no IPv6. */
static MUST open_all(struct listen *l, struct err *e) {
    const union address six = {.six = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_ANY_INIT}};
    const union address four = {.four = {.sin_family = AF_INET}};
    int why = listen_on(l, &six, true, &l->at[0].fd);
    if (why == EAFNOSUPPORT || why == EADDRNOTAVAIL) {
        why = listen_on(l, &four, false, &l->at[0].fd);
    }
    if (why) return port_err(l, why, e);
    l->n = 1;
    return true;
}

static bool same_addr(const struct if_addr *a, const struct if_addr *b) {
    return a->family == b->family && !memcmp(a->b, b->b, sizeof a->b);
}

static MUST open_addr(struct listen *l, uint32_t index, const struct if_addr *addr, struct err *e) {
    union address a = {0};
    struct listener *to = &l->at[l->n];
    if (addr->family == AF_INET) {
        a.four.sin_family = AF_INET;
        memcpy(&a.four.sin_addr, addr->b, 4);
    } else {
        a.six.sin6_family = AF_INET6;
        memcpy(&a.six.sin6_addr, addr->b, 16);
        if (IN6_IS_ADDR_LINKLOCAL(&a.six.sin6_addr)) a.six.sin6_scope_id = index;
    }
    int why = listen_on(l, &a, false, &to->fd);
    if (why == EADDRNOTAVAIL) return true;  // it has just gone
    if (why) return port_err(l, why, e);
    to->addr = *addr;
    l->n++;
    return true;
}

static bool is_wanted(const struct listen *l, const struct iface *i) {
    return !strcmp(i->name, l->conf.interface) || (l->conf.has_loopback && i->is_loopback);
}

static bool is_heard(const struct listen *l, const struct if_addr *a) {
    bool is = false;
    for (uint32_t k = 0; k < l->n; k++) is = is || same_addr(&l->at[k].addr, a);
    return is;
}

static bool is_gone(const struct if_addr *addr, const struct iface *const *wanted, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t a = 0; a < wanted[i]->n_addr; a++) {
            if (same_addr(addr, &wanted[i]->addr[a])) return false;
        }
    }
    return true;
}

static MUST match_addresses(struct listen *l, struct err *e) {
    struct iface all[IFACES];
    const struct iface *wanted[IFACES];
    size_t n_all;
    uint32_t n = 0;
    bool ok = true;
    if (!ifaces_list(all, IFACES, &n_all, e)) return false;
    for (size_t i = 0; i < n_all; i++) {
        if (is_wanted(l, &all[i])) wanted[n++] = &all[i];
    }
    for (uint32_t k = l->n; k-- > 0;) {
        if (!is_gone(&l->at[k].addr, wanted, n)) continue;
        close(l->at[k].fd);
        l->at[k] = l->at[--l->n];
    }
    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t a = 0; a < wanted[i]->n_addr && l->n < LISTENERS; a++) {
            const struct if_addr *addr = &wanted[i]->addr[a];
            if (!is_heard(l, addr)) ok = open_addr(l, wanted[i]->index, addr, e) && ok;
        }
    }
    return ok;
}

static MUST open_interface(struct listen *l, struct err *e) {
    if (!ifaces_check(l->conf.interface, e)) return false;
    /* Watched first: what changes meanwhile is heard of. */
    if (!ifaces_watch(&l->changes_fd, e) || !match_addresses(l, e)) return false;
    if (!l->n) log_warn("net", "%s has no address yet; waiting for one", l->conf.interface);
    return true;
}

MUST listen_open(struct listen *l, const struct listen_conf *c, struct err *e) {
    *l = (struct listen){.conf = *c, .changes_fd = -1};
    bool is_all = !c->interface || !*c->interface;
    if (is_all ? open_all(l, e) : open_interface(l, e)) return true;
    listen_close(l);
    return false;
}

void listen_close(struct listen *l) {
    while (l->n) close(l->at[--l->n].fd);
    if (l->changes_fd >= 0) close(l->changes_fd);
    l->changes_fd = -1;
}

MUST listen_follow(struct listen *l, struct err *e) {
    return !ifaces_changed(l->changes_fd) || match_addresses(l, e);
}
