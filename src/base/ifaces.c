#include "base/ifaces.h"

#include <errno.h>
#include <linux/if_addr.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <stdio.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

enum { ROOM = 32 << 10 };  // what the kernel fills at most in one answer of a dump

bool iface_has(const struct iface *i, int family) {
    for (uint32_t k = 0; k < i->n_addr; k++) {
        if (i->addr[k].family == family) return true;
    }
    return false;
}

static bool same_prefix(const uint8_t *a, const uint8_t *b, unsigned bits) {
    if (memcmp(a, b, bits / 8) != 0) return false;
    unsigned rest = bits % 8;
    return !rest || (a[bits / 8] ^ b[bits / 8]) >> (8 - rest) == 0;
}

bool iface_is_on_link(const struct iface *i, int family, const uint8_t *b) {
    /* RFC 3927 section 2.6.2 and RFC 4291 section 2.5.6: always on the link. */
    if (family == AF_INET && b[0] == 169 && b[1] == 254) return true;
    if (family == AF_INET6 && b[0] == 0xfe && (b[1] & 0xc0) == 0x80) return true;
    for (uint32_t k = 0; k < i->n_addr; k++) {
        const struct if_addr *a = &i->addr[k];
        if (a->family == family && same_prefix(a->b, b, a->prefix)) return true;
    }
    return false;
}

/* ---- the kernel's answers: it is trusted, but lengths are still compared */

struct list {
    struct iface *out;
    size_t cap, n;
};

static void add_link(struct list *l, struct nlmsghdr *h) {
    struct ifinfomsg info;
    if (h->nlmsg_len < NLMSG_LENGTH(sizeof info) || l->n == l->cap) return;
    memcpy(&info, NLMSG_DATA(h), sizeof info);
    const unsigned want = IFF_UP | IFF_RUNNING;
    if ((info.ifi_flags & want) != want || info.ifi_index <= 0) return;
    struct iface *i = &l->out[l->n++];
    *i = (struct iface){.index = (uint32_t)info.ifi_index,
                        .is_loopback = info.ifi_flags & IFF_LOOPBACK,
                        .can_multicast = (info.ifi_flags & IFF_MULTICAST) &&
                                         !(info.ifi_flags & (IFF_LOOPBACK | IFF_POINTOPOINT))};
    size_t left = h->nlmsg_len - NLMSG_LENGTH(sizeof info);
    for (struct rtattr *a = IFLA_RTA(NLMSG_DATA(h)); RTA_OK(a, left); a = RTA_NEXT(a, left)) {
        if (a->rta_type != IFLA_IFNAME) continue;
        size_t n = strnlen(RTA_DATA(a), RTA_PAYLOAD(a));
        if (n < sizeof i->name) memcpy(i->name, RTA_DATA(a), n);
    }
}

static void add_addr(struct list *l, struct nlmsghdr *h) {
    struct ifaddrmsg info;
    if (h->nlmsg_len < NLMSG_LENGTH(sizeof info)) return;
    memcpy(&info, NLMSG_DATA(h), sizeof info);
    if (info.ifa_family != AF_INET && info.ifa_family != AF_INET6) return;
    struct if_addr got = {.family = info.ifa_family, .prefix = info.ifa_prefixlen};
    uint32_t flags = info.ifa_flags;
    size_t len = if_addr_len(got.family);
    bool has = false, is_local = false;
    size_t left = h->nlmsg_len - NLMSG_LENGTH(sizeof info);
    for (struct rtattr *a = IFA_RTA(NLMSG_DATA(h)); RTA_OK(a, left); a = RTA_NEXT(a, left)) {
        if (a->rta_type == IFA_FLAGS && RTA_PAYLOAD(a) >= sizeof flags) {
            memcpy(&flags, RTA_DATA(a), sizeof flags);
        }
        /* IFA_LOCAL is ours; IFA_ADDRESS too, unless there is a local one beside it. */
        bool is_addr = a->rta_type == IFA_LOCAL || (a->rta_type == IFA_ADDRESS && !is_local);
        if (is_addr && RTA_PAYLOAD(a) >= len) {
            memcpy(got.b, RTA_DATA(a), len);
            has = true;
            is_local = a->rta_type == IFA_LOCAL;
        }
    }
    if (!has || got.prefix > len * 8) return;
    if (flags & (IFA_F_TENTATIVE | IFA_F_DADFAILED | IFA_F_DEPRECATED)) return;
    for (size_t k = 0; k < l->n; k++) {
        struct iface *i = &l->out[k];
        if (i->index == info.ifa_index && i->n_addr < IF_ADDRS) i->addr[i->n_addr++] = got;
    }
}

/* Hand each message of one dump to add. */
static bool dump(int fd, uint16_t type, void (*add)(struct list *, struct nlmsghdr *),
                 struct list *l, struct err *e) {
    struct {
        struct nlmsghdr h;
        struct rtgenmsg g;
    } ask = {.h = {.nlmsg_len = NLMSG_LENGTH(sizeof(struct rtgenmsg)),
                   .nlmsg_type = type,
                   .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP},
             .g = {.rtgen_family = AF_UNSPEC}};
    if (send(fd, &ask, ask.h.nlmsg_len, 0) < 0) return err_sys(e, "asking for network interfaces");
    for (;;) {
        _Alignas(struct nlmsghdr) uint8_t room[ROOM];
        ssize_t got = recv(fd, room, sizeof room, 0);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return err_sys(e, "reading network interfaces");
        size_t left = (size_t)got;
        for (struct nlmsghdr *h = (struct nlmsghdr *)room; NLMSG_OK(h, left);
             h = NLMSG_NEXT(h, left)) {
            if (h->nlmsg_type == NLMSG_DONE) return true;
            if (h->nlmsg_type == NLMSG_ERROR) {
                return err_set(e, ERR_IO, "the kernel does not list network interfaces");
            }
            add(l, h);
        }
    }
}

MUST ifaces_list(struct iface *out, size_t cap, size_t *n, struct err *e) {
    struct list l = {.out = out, .cap = cap};
    const struct timeval patience = {.tv_sec = 2};  // the kernel answers at once; never hang on it
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    if (fd < 0) return err_sys(e, "the system gives no netlink socket");
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    bool ok = dump(fd, RTM_GETLINK, add_link, &l, e) && dump(fd, RTM_GETADDR, add_addr, &l, e);
    close(fd);
    *n = l.n;
    return ok;
}

MUST ifaces_check(const char *name, struct err *e) {
    struct iface up[IFACES];
    char list[256] = "";
    size_t n = 0, len = 0;
    struct err ignored;
    if (if_nametoindex(name)) return true;
    if (!ifaces_list(up, IFACES, &n, &ignored)) n = 0;
    for (size_t i = 0; i < n && len < sizeof list; i++) {
        int more =
            snprintf(list + len, sizeof list - len, "%s%s", i ? ", " : "; up are ", up[i].name);
        len += more > 0 ? (size_t)more : 0;
    }
    return err_set(e, ERR_USAGE, "there is no network interface called %.60s%s", name, list);
}

MUST ifaces_watch(int *fd, struct err *e) {
    struct sockaddr_nl a = {.nl_family = AF_NETLINK,
                            .nl_groups = RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR};
    *fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE);
    if (*fd >= 0 && bind(*fd, (struct sockaddr *)&a, sizeof a) == 0) return true;
    err_sys(e, "the system gives no netlink socket");
    if (*fd >= 0) close(*fd);
    *fd = -1;
    return false;
}

bool ifaces_changed(int fd) {
    uint8_t room[4096];
    bool any = false;
    for (;;) {
        ssize_t n = recv(fd, room, sizeof room, MSG_DONTWAIT | MSG_TRUNC);
        if (n < 0 && errno == EINTR) continue;
        /* ENOBUFS: so much changed that the kernel dropped word of it. */
        if (n < 0 && errno != ENOBUFS) return any;
        any = true;
    }
}
