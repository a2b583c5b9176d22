/* lookup.h - addresses of named hosts, found without holding anybody up.
 *
 * A thread of its own asks the system's resolver, one name after another, as often as it is told to: the
 * network may not be there yet, and addresses change. Names are "host:port" or "[IPv6]:port".
 */
#ifndef NET_LOOKUP_H
#define NET_LOOKUP_H

#include "base/err.h"

#include <stdint.h>
#include <sys/socket.h>

enum { LOOKUP_NAMES = 16, LOOKUP_ADDRS = 4 };

struct lookup_result {
    uint32_t n_addr;  // 0: it cannot be resolved
    struct sockaddr_storage addr[LOOKUP_ADDRS];
};

/* Right away, on the caller's thread. Fails: ERR_USAGE. */
MUST lookup_now(const char *name, struct lookup_result *r, struct err *e);

struct lookup;

/* Fails: ERR_MEMORY, ERR_USAGE (no name, or too many). */
MUST lookup_open(struct lookup **out, const char *const *name, unsigned n, struct err *e);
/* NULL is fine. A resolver that is asking ends by itself later. */
void lookup_close(struct lookup *l);

void lookup_ask(struct lookup *l, unsigned i);
/* What came for name i since the last time; false: nothing. */
bool lookup_take(struct lookup *l, unsigned i, struct lookup_result *r);

#endif
