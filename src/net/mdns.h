/* mdns.h - finding the other nodes on the local network: multicast DNS (RFC 6762) and DNS-based
 * service discovery (RFC 6763), responder and browser.
 *
 * Announces this node's host name, its _dair._tcp service and, once it serves, _http._tcp and
 * _ollama._tcp and its address under the cluster's shared name (dair.local); browses _dair._tcp.
 * What others say is a hint, never trusted: only a channel proves a member. Needs no rights: port
 * 5353 is shared with any other responder of the machine (Avahi). A socket for each interface and
 * family. RFC 6762: probing, tie-break, defence, announcing, known answers, QU and legacy queries,
 * NSEC, rate limits; RFC 6763: service types, instances, TXT. Left out, as the RFC permits:
 * duplicate question suppression (7.3), passive observation of failures (10.5), subtypes.
 *
 * TXT of _dair._tcp: id= 32 hexadecimal digits, in= cf= mf= 16 each, cv= ep= decimal. A peer
 * without a valid id and instance is none. Addresses are those of the link's own networks. At most
 * MDNS_PEERS are kept; when full, a peer of our cluster displaces one of another. Memory: one block
 * of about 250 kB. Thread: the loop's.
 */
#ifndef NET_MDNS_H
#define NET_MDNS_H

#include "base/loop.h"
#include "net/ident.h"

#include <sys/socket.h>

enum { MDNS_PEERS = 64, MDNS_ADDRS = 8, MDNS_NAME = 64 };

struct mdns_facts {  // the TXT record of _dair._tcp
    struct node_id id;
    uint64_t instance;
    uint64_t cluster;   // fingerprint of the cluster key, 0: none
    uint64_t model;     // fingerprint of the model, 0: none
    uint32_t contract;  // version of the numeric contract
    uint64_t epoch;
};

struct mdns_peer {
    struct mdns_facts facts;
    char host[MDNS_NAME];  // "dair-1a2b"
    uint16_t port;         // of the cluster channel; in SRV, where RFC 6763 has it, and not in TXT
    uint32_t n_addr;
    struct sockaddr_storage addr[MDNS_ADDRS];  // port set, IPv6 link-local with scope
};

struct mdns_conf {
    struct loop *loop;
    const char *host;  // the name wanted, without .local
    struct mdns_facts facts;
    uint16_t cluster_port, http_port, ollama_port;  // 0: not announced
    const char *interface;  // NULL: all that can multicast; loopback only when there is no other
    /* A peer of _dair._tcp was found or its facts or addresses changed; it is gone (goodbye or not
     * heard of for its time to live). p is borrowed until return. */
    void (*on_peer)(void *ctx, const struct mdns_peer *p);  // may be NULL, as the next two
    void (*on_gone)(void *ctx, const struct mdns_peer *p);
    /* The name had to be changed after a conflict, and is held now. */
    void (*on_name)(void *ctx, const char *host);
    void *ctx;
};

/* Inside these callbacks mdns_update and mdns_serve may be called, mdns_close not. Two nodes with
 * one id do find each other: their instances differ. */
struct mdns;
/* c and what it points to is copied, but for loop. Interfaces that come later are used then; a
 * socket that cannot be opened is tried again every 10 s, with a warning in the log. Fails:
 * ERR_USAGE (host or interface is no name), ERR_MEMORY, ERR_IO (no netlink, no random numbers). */
MUST mdns_open(struct mdns **out, const struct mdns_conf *c, struct err *e);
/* New facts: announced again (at most once a second, as the RFC asks). */
void mdns_update(struct mdns *m, const struct mdns_facts *f);
/* This node serves (or no longer): its addresses under the shared name, _http._tcp, _ollama._tcp.
 * The shared name is dair.local, or dair-2.local and so on where another cluster has it. */
void mdns_serve(struct mdns *m, bool is_serving);
/* Valid until the name changes: on_name; the shared one may change at any time while serving. */
const char *mdns_host(const struct mdns *m);
const char *mdns_shared(const struct mdns *m);  // "dair", "dair-2"; "" until it is ours
/* Says goodbye. m may be NULL. */
void mdns_close(struct mdns *m);

struct mdns_counts {
    uint64_t received, malformed, sent, conflicts, ignored_peers;
    uint32_t peers, sockets;
};
void mdns_counts(const struct mdns *m, struct mdns_counts *out);

#endif
