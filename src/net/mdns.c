/* The sockets under mdns_core: one for each interface and family, opened and closed as these come
 * and go. Options and their order were found by trial (shared ports, loopback, no rights
 * needed). */
#include "base/clock.h"
#include "base/log.h"
#include "net/mdns_state.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#ifndef IPV6_MULTICAST_ALL
#define IPV6_MULTICAST_ALL 29  // linux/in6.h, which does not go with netinet/in.h
#endif

enum {
    BATCH = 32,        // packets read before others of the loop have their turn
    SETTLE_MS = 200,   // interfaces change in several steps: looked at after that
    RETRY_MS = 10000,  // a socket that could not be opened
    NS_PER_MS = 1000000,
};

static const uint8_t group4[4] = {224, 0, 0, 251};
static const uint8_t group6[16] = {0xff, 0x02, [15] = 0xfb};

struct mdns_sock {
    struct loop_fd source;  // fd -1: none
    struct mdns *m;
    uint32_t link;
    uint8_t local[4];  // IPv4: the address that multicast is sent from
};

struct mdns {
    struct mdns_conf conf;
    char host[MDNS_NAME], interface[IF_NAMESIZE];
    struct loop_timer due, settle;
    struct loop_fd watch;
    struct mdns_sock sock[MDNS_LINKS];  // by link
    struct log_limit trouble, unsent;
    struct mdns_core core;
};

static uint64_t now_ms(void) {
    return clock_ns() / NS_PER_MS + 1;
}

static void arm(struct mdns *m) {
    uint64_t next = core_next(&m->core);
    if (next == UINT64_MAX) {
        loop_cancel(m->conf.loop, &m->due);
    } else {
        loop_at(m->conf.loop, &m->due, next * NS_PER_MS);
    }
}

static void on_due(struct loop_timer *t, uint64_t now_ns) {
    struct mdns *m = t->owner;
    (void)now_ns;
    core_tick(&m->core, now_ms());
    arm(m);
}

/* ---- packets */

union control {
    struct cmsghdr align;
    uint8_t room[CMSG_SPACE(sizeof(struct in6_pktinfo)) + CMSG_SPACE(sizeof(struct in_pktinfo))];
};

static socklen_t put_address(struct sockaddr_storage *s, uint8_t family, const uint8_t *b,
                             uint16_t port, uint32_t index) {
    memset(s, 0, sizeof *s);
    if (family == AF_INET) {
        struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(port)};
        memcpy(&in.sin_addr, b, 4);
        memcpy(s, &in, sizeof in);
        return sizeof in;
    }
    struct sockaddr_in6 in6 = {
        .sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_scope_id = index};
    memcpy(&in6.sin6_addr, b, 16);
    memcpy(s, &in6, sizeof in6);
    return sizeof in6;
}

/* A unicast answer leaves by the interface the question came from; multicast does so by the
 * socket's options. */
static void put_interface(struct msghdr *h, union control *c, const struct mdns_sock *s,
                          const struct mdns_link *l) {
    memset(c, 0, sizeof *c);
    h->msg_control = c;
    if (l->family == AF_INET) {
        struct in_pktinfo info = {.ipi_ifindex = (int)l->on.index};
        memcpy(&info.ipi_spec_dst, s->local, 4);
        h->msg_controllen = CMSG_SPACE(sizeof info);
        c->align = (struct cmsghdr){
            .cmsg_len = CMSG_LEN(sizeof info), .cmsg_level = IPPROTO_IP, .cmsg_type = IP_PKTINFO};
        memcpy(CMSG_DATA(&c->align), &info, sizeof info);
    } else {
        struct in6_pktinfo info = {.ipi6_ifindex = l->on.index};
        h->msg_controllen = CMSG_SPACE(sizeof info);
        c->align = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof info),
                                    .cmsg_level = IPPROTO_IPV6,
                                    .cmsg_type = IPV6_PKTINFO};
        memcpy(CMSG_DATA(&c->align), &info, sizeof info);
    }
}

static void hook_send(void *ctx, uint32_t link, const struct mdns_end *to, const uint8_t *p,
                      size_t n) {
    struct mdns *m = ctx;
    struct mdns_sock *s = &m->sock[link];
    const struct mdns_link *l = &m->core.link[link];
    struct sockaddr_storage dest;
    union control control;
    uint8_t copy[DNS_SEND_MAX];
    if (s->source.fd < 0 || n > sizeof copy) return;
    memcpy(copy, p, n);
    struct iovec v = {.iov_base = copy, .iov_len = n};
    struct msghdr h = {.msg_name = &dest, .msg_iov = &v, .msg_iovlen = 1};
    if (to) {
        h.msg_namelen = put_address(&dest, to->family, to->b, to->port, l->on.index);
        put_interface(&h, &control, s, l);
    } else {
        h.msg_namelen = put_address(&dest, l->family, l->family == AF_INET ? group4 : group6,
                                    MDNS_PORT, l->on.index);
    }
    unsigned missed;
    if (sendmsg(s->source.fd, &h, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 &&
        log_may(&m->unsent, &missed)) {
        log_debug("mdns", "sending on %s: %s", l->on.name, strerror(errno));
    }
}

/* Where a packet was sent to: the interface, and whether to a group. The sockets ask for nothing
 * else, so the first control message is it. */
static bool read_control(struct msghdr *h, uint32_t *index, bool *is_multicast) {
    struct cmsghdr *c = CMSG_FIRSTHDR(h);
    if (c && c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
        struct in_pktinfo info;
        memcpy(&info, CMSG_DATA(c), sizeof info);
        *index = (uint32_t)info.ipi_ifindex;
        *is_multicast = (ntohl(info.ipi_addr.s_addr) >> 28) == 14;
        return true;
    }
    if (c && c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO) {
        struct in6_pktinfo info;
        memcpy(&info, CMSG_DATA(c), sizeof info);
        *index = (uint32_t)info.ipi6_ifindex;
        *is_multicast = info.ipi6_addr.s6_addr[0] == 0xff;
        return true;
    }
    return false;
}

static struct mdns_end end_of(const struct sockaddr_storage *s) {
    struct mdns_end end = {.family = (uint8_t)s->ss_family};
    if (s->ss_family == AF_INET) {
        struct sockaddr_in in;
        memcpy(&in, s, sizeof in);
        memcpy(end.b, &in.sin_addr, 4);
        end.port = ntohs(in.sin_port);
    } else {
        struct sockaddr_in6 in6;
        memcpy(&in6, s, sizeof in6);
        memcpy(end.b, &in6.sin6_addr, 16);
        end.port = ntohs(in6.sin6_port);
    }
    return end;
}

/* False when nothing is waiting. All sockets have one port, so a unicast packet may come in by
 * another than its interface's. */
static bool take_packet(struct mdns *m, const struct mdns_sock *s) {
    uint8_t p[DNS_READ_MAX + 1];  // one more, so that what is too long is seen to be
    struct sockaddr_storage from = {0};
    union control control;
    struct iovec v = {.iov_base = p, .iov_len = sizeof p};
    struct msghdr h = {.msg_name = &from,
                       .msg_namelen = sizeof from,
                       .msg_iov = &v,
                       .msg_iovlen = 1,
                       .msg_control = &control,
                       .msg_controllen = sizeof control};
    ssize_t n = recvmsg(s->source.fd, &h, MSG_DONTWAIT);
    if (n < 0) return errno == EINTR;
    uint32_t index;
    bool is_multicast;
    if (!read_control(&h, &index, &is_multicast)) return true;
    struct mdns_end end = end_of(&from);
    for (uint32_t k = 0; k < MDNS_LINKS; k++) {
        const struct mdns_link *l = &m->core.link[k];
        if (!l->is_used || l->on.index != index || l->family != end.family) continue;
        core_packet(&m->core, k, &end, is_multicast, p, (size_t)n, now_ms());
        break;
    }
    return true;
}

static void on_packets(struct loop_fd *f, uint32_t events) {
    struct mdns_sock *s = f->owner;
    (void)events;
    for (int i = 0; i < BATCH && f->events && take_packet(s->m, s); i++) continue;
    arm(s->m);
}

/* ---- sockets */

static bool set_option(int fd, int level, int name, const void *v, socklen_t n) {
    return setsockopt(fd, level, name, v, n) == 0;
}
static bool set_int(int fd, int level, int name, int v) {
    return set_option(fd, level, name, &v, sizeof v);
}

/* The own address in imr_address, too: without it packets over loopback leave from 0.0.0.0. */
static bool set_up_4(int fd, uint32_t index, const uint8_t *local) {
    struct ip_mreqn group = {.imr_ifindex = (int)index};
    memcpy(&group.imr_multiaddr, group4, sizeof group4);
    memcpy(&group.imr_address, local, 4);
    return set_option(fd, IPPROTO_IP, IP_ADD_MEMBERSHIP, &group, sizeof group) &&
           set_option(fd, IPPROTO_IP, IP_MULTICAST_IF, &group, sizeof group) &&
           set_int(fd, IPPROTO_IP, IP_MULTICAST_TTL, 255) && set_int(fd, IPPROTO_IP, IP_TTL, 255) &&
           set_int(fd, IPPROTO_IP, IP_MULTICAST_LOOP, 1) &&
           set_int(fd, IPPROTO_IP, IP_MULTICAST_ALL, 0) && set_int(fd, IPPROTO_IP, IP_PKTINFO, 1);
}

static bool set_up_6(int fd, uint32_t index) {
    struct ipv6_mreq group = {.ipv6mr_interface = index};
    memcpy(&group.ipv6mr_multiaddr, group6, sizeof group6);
    return set_option(fd, IPPROTO_IPV6, IPV6_JOIN_GROUP, &group, sizeof group) &&
           set_int(fd, IPPROTO_IPV6, IPV6_MULTICAST_IF, (int)index) &&
           set_int(fd, IPPROTO_IPV6, IPV6_MULTICAST_HOPS, 255) &&
           set_int(fd, IPPROTO_IPV6, IPV6_UNICAST_HOPS, 255) &&
           set_int(fd, IPPROTO_IPV6, IPV6_MULTICAST_LOOP, 1) &&
           set_int(fd, IPPROTO_IPV6, IPV6_MULTICAST_ALL, 0) &&
           set_int(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1);
}

/* REUSEADDR lets other users' responders have the port as well, REUSEPORT alone does not. */
static bool set_up(int fd, const struct iface *i, uint8_t family, const uint8_t *local) {
    static const uint8_t any[16];
    struct sockaddr_storage a;
    socklen_t n = put_address(&a, family, any, MDNS_PORT, 0);
    if (!set_int(fd, SOL_SOCKET, SO_REUSEADDR, 1) || !set_int(fd, SOL_SOCKET, SO_REUSEPORT, 1)) {
        return false;
    }
    if (family == AF_INET6 && !set_int(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1)) return false;
    if (bind(fd, (const struct sockaddr *)&a, n) != 0) return false;
    return family == AF_INET ? set_up_4(fd, i->index, local) : set_up_6(fd, i->index);
}

static const uint8_t *first_address(const struct iface *i, uint8_t family) {
    for (uint32_t k = 0; k < i->n_addr; k++) {
        if (i->addr[k].family == family) return i->addr[k].b;
    }
    return NULL;
}

static MUST open_sock(struct mdns *m, struct mdns_sock *s, const struct iface *i, uint8_t family,
                      struct err *e) {
    const uint8_t *local = first_address(i, family);
    int fd = socket(family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return err_sys(e, "a socket for %s", i->name);
    s->source = (struct loop_fd){.fd = fd, .ready = on_packets, .owner = s};
    if (family == AF_INET) memcpy(s->local, local, 4);
    if (!set_up(fd, i, family, local)) {
        err_sys(e, "multicast on %s", i->name);
    } else if (loop_watch(m->conf.loop, &s->source, EPOLLIN, e)) {
        m->core.counts.sockets++;
        return true;
    }
    close(fd);
    s->source.fd = -1;
    return false;
}

static void close_sock(struct mdns *m, struct mdns_sock *s) {
    if (s->source.fd < 0) return;
    loop_forget(m->conf.loop, &s->source);
    close(s->source.fd);
    s->source.fd = -1;
    m->core.counts.sockets--;
}

/* ---- interfaces */

/* Loopback has no IPv6 multicast (no route for ff00::/8). */
static bool is_wanted(const struct iface *i, uint8_t family) {
    return iface_has(i, family) && (family == AF_INET || !i->is_loopback);
}

/* Keep those to be used: the one that is named; or all that can multicast, or else loopback. */
static size_t choose(const struct mdns *m, struct iface *i, size_t n) {
    size_t kept = 0;
    bool any = false;
    for (size_t k = 0; k < n; k++) any = any || (i[k].can_multicast && i[k].n_addr);
    for (size_t k = 0; k < n; k++) {
        bool is = *m->interface ? strcmp(i[k].name, m->interface) == 0
                  : any         ? i[k].can_multicast
                                : i[k].is_loopback;
        if (is) i[kept++] = i[k];
    }
    return kept;
}

static uint32_t link_of(const struct mdns *m, uint32_t index, uint8_t family) {
    uint32_t k = 0;
    for (; k < MDNS_LINKS; k++) {
        const struct mdns_link *l = &m->core.link[k];
        if (l->is_used && l->on.index == index && l->family == family) break;
    }
    return k;
}

static void drop_links(struct mdns *m, const struct iface *i, size_t n) {
    for (uint32_t k = 0; k < MDNS_LINKS; k++) {
        const struct mdns_link *l = &m->core.link[k];
        bool is_there = false;
        for (size_t j = 0; j < n; j++) {
            if (i[j].index == l->on.index && is_wanted(&i[j], l->family)) is_there = true;
        }
        if (!l->is_used || is_there) continue;
        log_info("mdns", "leaves %s (IPv%c)", l->on.name, l->family == AF_INET ? '4' : '6');
        close_sock(m, &m->sock[k]);
        core_link_down(&m->core, k, now_ms());
    }
}

/* False when a socket could not be opened: to be tried again. */
static MUST use_link(struct mdns *m, const struct iface *i, uint8_t family, struct err *e) {
    uint32_t k = link_of(m, i->index, family);
    if (k < MDNS_LINKS) {
        struct mdns_sock *s = &m->sock[k];
        bool moved = family == AF_INET && memcmp(s->local, first_address(i, family), 4) != 0;
        if (moved) close_sock(m, s);
        bool ok = s->source.fd >= 0 || open_sock(m, s, i, family, e);
        core_link_addrs(&m->core, k, i, now_ms());
        return ok;
    }
    for (k = 0; k < MDNS_LINKS && m->core.link[k].is_used; k++) continue;
    if (k == MDNS_LINKS) return err_set(e, ERR_LIMIT, "more interfaces than %d", MDNS_LINKS / 2);
    if (!open_sock(m, &m->sock[k], i, family, e)) return false;
    log_info("mdns", "speaks on %s (IPv%c)", i->name, family == AF_INET ? '4' : '6');
    core_link_up(&m->core, k, i, family, now_ms());
    return true;
}

static MUST look(struct mdns *m, struct err *e) {
    struct iface i[IFACES];
    size_t n;
    bool ok = true;
    if (!ifaces_list(i, IFACES, &n, e)) return false;
    n = choose(m, i, n);
    drop_links(m, i, n);
    for (size_t k = 0; k < n; k++) {
        if (is_wanted(&i[k], AF_INET)) ok = use_link(m, &i[k], AF_INET, e) && ok;
        if (is_wanted(&i[k], AF_INET6)) ok = use_link(m, &i[k], AF_INET6, e) && ok;
    }
    arm(m);
    return ok;
}

static void on_settle(struct loop_timer *t, uint64_t now_ns) {
    struct mdns *m = t->owner;
    struct err e;
    unsigned missed;
    if (look(m, &e)) return;
    if (log_may(&m->trouble, &missed)) log_warn("mdns", "cannot be heard everywhere: %s", e.text);
    loop_at(m->conf.loop, &m->settle, now_ns + (uint64_t)RETRY_MS * NS_PER_MS);
}

static void on_change(struct loop_fd *f, uint32_t events) {
    struct mdns *m = f->owner;
    (void)events;
    if (!ifaces_changed(f->fd)) return;
    uint64_t at = clock_ns() + (uint64_t)SETTLE_MS * NS_PER_MS;
    if (!m->settle.at_ns || at < m->settle.at_ns) loop_at(m->conf.loop, &m->settle, at);
}

/* ---- what others call */

static void hook_name(void *ctx, const char *host) {
    struct mdns *m = ctx;
    log_warn("mdns", "another on this network has the name \"%s\": this node is \"%s\" now",
             m->host, host);
    if (m->conf.on_name) m->conf.on_name(m->conf.ctx, host);
}
static void hook_peer(void *ctx, const struct mdns_peer *p) {
    struct mdns *m = ctx;
    if (m->conf.on_peer) m->conf.on_peer(m->conf.ctx, p);
}
static void hook_gone(void *ctx, const struct mdns_peer *p) {
    struct mdns *m = ctx;
    if (m->conf.on_gone) m->conf.on_gone(m->conf.ctx, p);
}

static bool begin(struct mdns *m, struct err *e) {
    const struct mdns_hooks hooks = {hook_send, hook_peer, hook_gone, hook_name, m};
    uint64_t seed;
    if (getrandom(&seed, sizeof seed, 0) != sizeof seed) return err_sys(e, "no random numbers");
    if (!core_init(&m->core, &m->conf, &hooks, seed, e)) return false;
    memcpy(m->host, m->core.label, sizeof m->host);
    if (!ifaces_watch(&m->watch.fd, e)) return false;
    return loop_watch(m->conf.loop, &m->watch, EPOLLIN, e);
}

MUST mdns_open(struct mdns **out, const struct mdns_conf *c, struct err *e) {
    *out = NULL;
    struct mdns *m = calloc(1, sizeof *m);
    if (!m) return err_set(e, ERR_MEMORY, "no memory for mDNS");
    m->conf = *c;
    if (c->interface) {
        size_t n = strnlen(c->interface, sizeof m->interface);
        if (!n || n == sizeof m->interface) {
            free(m);
            return err_set(e, ERR_USAGE, "\"%s\" is no name of an interface", c->interface);
        }
        memcpy(m->interface, c->interface, n);
    }
    m->due = (struct loop_timer){.fire = on_due, .owner = m};
    m->settle = (struct loop_timer){.fire = on_settle, .owner = m};
    m->watch = (struct loop_fd){.fd = -1, .ready = on_change, .owner = m};
    for (uint32_t k = 0; k < MDNS_LINKS; k++) {
        m->sock[k] = (struct mdns_sock){.source = {.fd = -1}, .m = m, .link = k};
    }
    if (!begin(m, e)) {
        mdns_close(m);
        return err_in(e, "mDNS");
    }
    on_settle(&m->settle, clock_ns());
    *out = m;
    return true;
}

void mdns_update(struct mdns *m, const struct mdns_facts *f) {
    core_update(&m->core, f, now_ms());
    arm(m);
}

void mdns_serve(struct mdns *m, bool is_serving) {
    core_serve(&m->core, is_serving, now_ms());
    arm(m);
}

const char *mdns_host(const struct mdns *m) {
    return m->core.label;
}

const char *mdns_shared(const struct mdns *m) {
    return m->core.claim == CLAIM_HELD ? m->core.shared_label : "";
}

void mdns_close(struct mdns *m) {
    if (!m) return;
    core_goodbye(&m->core, now_ms());
    for (uint32_t k = 0; k < MDNS_LINKS; k++) close_sock(m, &m->sock[k]);
    loop_cancel(m->conf.loop, &m->due);
    loop_cancel(m->conf.loop, &m->settle);
    loop_forget(m->conf.loop, &m->watch);
    if (m->watch.fd >= 0) close(m->watch.fd);
    free(m);
}

void mdns_counts(const struct mdns *m, struct mdns_counts *out) {
    *out = m->core.counts;
}
