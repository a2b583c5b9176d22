/* ifaces.h - the machine's network interfaces and their addresses, and word of changes (rtnetlink).
 *
 * Asked of the kernel directly and not by getifaddrs(), which does not tell addresses that cannot
 * be used yet (IPv6 duplicate detection) from those that can, and allocates. Thread: any.
 */
#ifndef BASE_IFACES_H
#define BASE_IFACES_H

#include "base/err.h"

#include <net/if.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

enum { IFACES = 32, IF_ADDRS = 8 };

struct if_addr {
    uint8_t family;  // AF_INET, AF_INET6
    uint8_t prefix;  // bits of the network
    uint8_t b[16];   // 4 or 16 bytes, the rest zero
};

struct iface {
    uint32_t index;
    bool is_loopback;
    bool can_multicast;  // loopback cannot, by its flags; IPv4 multicast over it works nevertheless
    char name[IF_NAMESIZE];
    uint32_t n_addr;
    struct if_addr addr[IF_ADDRS];  // that can be used now; further ones are left out
};

static inline size_t if_addr_len(int family) {
    return family == AF_INET ? 4 : 16;
}
/* The interface has an address of this family. */
bool iface_has(const struct iface *i, int family);
/* An address (4 or 16 bytes) belongs to the interface's link: link-local, or in a network of
 * its. */
bool iface_is_on_link(const struct iface *i, int family, const uint8_t *b);

/* Interfaces that are up and have a carrier, at most cap, by index.
 * Fails: ERR_IO. */
MUST ifaces_list(struct iface *out, size_t cap, size_t *n, struct err *e);

/* There is an interface of this name, up or not. Fails: ERR_USAGE naming those that are up. */
MUST ifaces_check(const char *name, struct err *e);

/* A socket that becomes readable when interfaces or addresses change; owned by the caller.
 * Fails: ERR_IO. */
MUST ifaces_watch(int *fd, struct err *e);
/* Take all that is waiting there; true when there was something. */
bool ifaces_changed(int fd);

#endif
