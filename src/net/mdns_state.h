/* mdns_state.h - the rules of multicast DNS without sockets and clocks: private to mdns*.c and
 * tests.
 *
 * A state machine: fed with the time, links and packets, it hands out packets and news through
 * hooks. So every timing rule is tested with a made-up clock, and any bytes can be thrown at it.
 * Nothing is allocated: all tables are in the struct, with a limit each.
 *
 * A link is an interface and a family. Names are the node's, so a conflict on one link renames it
 * on all; whether the names are proved (probed) is known for each link. What can be announced is a
 * table of slots (enum slot); sets of them are bit masks, and each link knows when it last sent
 * each slot.
 *
 * Sections cited are of RFC 6762 unless said. Times are milliseconds of a monotonic clock, never 0.
 */
#ifndef NET_MDNS_STATE_H
#define NET_MDNS_STATE_H

#include "base/ifaces.h"
#include "net/dns.h"
#include "net/mdns.h"

enum {
    MDNS_PORT = 5353,
    MDNS_LINKS = 16,
    MDNS_HELD = 8,    // queries that said more known answers follow
    MDNS_MARKS = 64,  // own packets remembered, to know them when multicast brings them back
    MDNS_CONFLICTS = 15,
    TXT_ROOM = 192,
};

enum {
    PROBE_START_MS = 250,  // 8.1: random, 0 to this
    PROBE_GAP_MS = 250,    // 8.1
    PROBE_TIMES = 3,       // 8.1
    PROBE_LOST_MS = 1000,  // 8.2
    CONFLICT_WINDOW_MS = 10000,
    CONFLICT_WAIT_MS = 5000,  // 8.1: after 15 conflicts in 10 s
    ANNOUNCE_TIMES = 2,       // 8.3
    ANNOUNCE_GAP_MS = 1000,
    RECORD_GAP_MS = 1000,  // 6: between two multicasts of a record
    DEFEND_GAP_MS = 250,   // 6: the same when a probe is answered
    SHARED_LEAST_MS = 20,  // 6: delay of an answer that others may give too
    SHARED_SPAN_MS = 100,
    TC_LEAST_MS = 400,  // 7.2
    TC_SPAN_MS = 100,
    BROWSE_FIRST_MS = 1000,  // 5.2: doubling up to
    BROWSE_MOST_MS = 3600000,
    GOODBYE_MS = 1000,     // 10.1, 10.2: what was taken back lives this much longer
    UNICAST_EACH_MS = 50,  // answers by unicast: one in each, and at once
    UNICAST_BURST = 40,
    RECEIVE_PER_MS = 300,  // bytes read: the worst take 0.3 us each, and the loop has other work
    RECEIVE_BURST_MS = 1500,
    CLAIM_GAP_MS = 500,     // the shared name: between questions who has it
    CLAIM_TIMES = 3,        // longer than RECORD_GAP_MS in all: an answer may have to wait for that
    BROWSE_GAP_MS = 1000,   // between two questions who is there
    ASK_GAP_MS = 100,       // between two rounds of questions about peers
    INCOMPLETE_MS = 30000,  // a peer of which only the name is known is forgotten
};

enum { TTL_HOST = 120, TTL_OTHER = 4500, TTL_SHARED = 10, TTL_LEGACY = 10, TTL_MOST = 4500 };

enum service { SVC_DAIR, SVC_HTTP, SVC_OLLAMA, SERVICES };

enum slot {
    S_PTR = 0,                     // [SERVICES] _dair._tcp -> instance
    S_META = S_PTR + SERVICES,     // [SERVICES] _services._dns-sd._udp -> _dair._tcp (RFC 6763 9)
    S_SRV = S_META + SERVICES,     // [SERVICES]
    S_TXT = S_SRV + SERVICES,      // [SERVICES]
    S_ADDR = S_TXT + SERVICES,     // [IF_ADDRS] A and AAAA of the host
    S_BACK = S_ADDR + IF_ADDRS,    // [IF_ADDRS] address -> host
    S_SHARED = S_BACK + IF_ADDRS,  // [IF_ADDRS] A and AAAA of the shared name
    S_CLUSTER = S_SHARED + IF_ADDRS,  // TXT of the shared name: which cluster has it
    S_NSEC = S_CLUSTER + 1,           // [SERVICES] of instances: there is nothing else (6.1)
    S_NSEC_HOST = S_NSEC + SERVICES,
    SLOTS,
};
_Static_assert(SLOTS <= 64, "a set of slots is one word");
#define SLOT_BIT(s)     ((uint64_t)1 << (s))
#define SLOT_BITS(s, n) (((((uint64_t)1) << (n)) - 1) << (s))

struct mdns_end {  // where a packet came from or goes to
    uint8_t family;
    uint8_t b[16];  // 4 or 16 bytes, the rest zero
    uint16_t port;
};

struct mdns_hooks {
    /* Send p [n] on a link: to the group, or to one (to not NULL). Borrowed until return. */
    void (*send)(void *ctx, uint32_t link, const struct mdns_end *to, const uint8_t *p, size_t n);
    void (*on_peer)(void *ctx, const struct mdns_peer *p);
    void (*on_gone)(void *ctx, const struct mdns_peer *p);
    void (*on_name)(void *ctx, const char *host);
    void *ctx;
};

enum proof { PROOF_PROBING, PROOF_HELD };  // of our names on a link

struct mdns_link {
    bool is_used;
    uint8_t family;
    struct iface on;                 // both families' addresses are announced
    struct dns_name back[IF_ADDRS];  // names of S_BACK
    enum proof proof;
    uint8_t n_probe, n_announce;     // sent; still to send
    uint64_t probe_at, announce_at;  // 0: none due
    uint64_t announce;               // slots
    uint64_t due, due_at;            // slots to be multicast as answers, and when
    uint64_t defended_at;
    uint64_t browse_at, browsed_at;
    uint32_t browse_ms;       // to the next question after that; 0: the first is to come
    uint64_t sent_at[SLOTS];  // last multicast; 0: never
};

struct mdns_held {
    bool is_used;
    uint32_t link;
    struct mdns_end from;
    uint64_t multicast, unicast;  // slots
    uint64_t at;
};

struct mdns_life {  // of something learned
    uint64_t at;    // received; 0: not known
    uint32_t ttl_s;
    uint32_t jitter_ms;
    uint8_t n_asked;  // of the refreshing questions at 80, 85, 90 and 95 %
};

struct mdns_addr {
    struct mdns_life life;
    uint32_t index;  // of the interface
    uint8_t family;
    uint8_t b[16];
};

struct mdns_known {  // a peer as learned so far
    bool is_used, is_reported, is_dirty;
    uint8_t n_asked;         // questions for what lacks
    uint64_t since, ask_at;  // ask_at 0: nothing lacks
    struct dns_name instance, host;
    struct mdns_life ptr, srv, txt;
    uint16_t port;
    struct mdns_facts facts;
    uint32_t n_addr;
    struct mdns_addr addr[MDNS_ADDRS];
    struct mdns_peer told;  // as last reported
};

enum claim { CLAIM_NONE, CLAIM_ASKING, CLAIM_HELD };  // of the shared name

struct mdns_core {
    struct mdns_hooks hooks;
    uint64_t rng;
    /* what we announce */
    char base[MDNS_NAME], label[MDNS_NAME], told_label[MDNS_NAME], shared_label[MDNS_NAME];
    uint32_t n_rename;
    struct mdns_facts facts;
    uint16_t port[SERVICES];
    bool is_serving;
    struct dns_name local, meta, type[SERVICES], instance[SERVICES], host, shared;
    uint8_t txt[SERVICES][TXT_ROOM], cluster_txt[32];
    uint16_t txt_len[SERVICES], cluster_len;
    uint64_t conflict_at[MDNS_CONFLICTS];  // of the last renames, a ring by n_rename
    bool is_slow;                          // too many of them: wait before each attempt
    enum claim claim;
    uint32_t n_shared, n_claim;  // 1: dair, 2: dair-2; questions asked
    uint64_t claim_at;
    /* links and peers */
    uint64_t mark[MDNS_MARKS];
    uint32_t n_mark;
    uint64_t unicast_at, receive_at;  // when the allowances are full again
    uint64_t asked_at;                // last round of questions about peers
    bool is_dirty;                    // some peer is
    uint32_t n_link, n_peer;          // those behind have never been used
    struct mdns_counts counts;
    /* From here on core_init clears is_used alone: the rest is set when that is. */
    struct mdns_link link[MDNS_LINKS];
    struct mdns_held held[MDNS_HELD];
    struct mdns_known peer[MDNS_PEERS];
    struct dns_writer out;
};

/* ---- mdns_core.c: what the socket layer and tests call. The conf's loop and callbacks are not
 * used; hooks is copied. Of what it calls, a hook may call core_update and core_serve. */
MUST core_init(struct mdns_core *m, const struct mdns_conf *c, const struct mdns_hooks *hooks,
               uint64_t seed, struct err *e);
/* A link is there: probe and announce on it. i is copied. */
void core_link_up(struct mdns_core *m, uint32_t link, const struct iface *i, uint8_t family,
                  uint64_t now);
void core_link_down(struct mdns_core *m, uint32_t link, uint64_t now);
/* Its addresses changed: what is gone is taken back, what is new announced. */
void core_link_addrs(struct mdns_core *m, uint32_t link, const struct iface *i, uint64_t now);
/* A packet of any bytes; is_multicast: it was sent to the group. */
void core_packet(struct mdns_core *m, uint32_t link, const struct mdns_end *from, bool is_multicast,
                 const uint8_t *p, size_t n, uint64_t now);
/* Do what is due. */
void core_tick(struct mdns_core *m, uint64_t now);
/* When core_tick has something to do next; UINT64_MAX: never. */
uint64_t core_next(const struct mdns_core *m);
void core_update(struct mdns_core *m, const struct mdns_facts *f, uint64_t now);
void core_serve(struct mdns_core *m, bool is_serving, uint64_t now);
void core_goodbye(struct mdns_core *m, uint64_t now);

/* ---- mdns_own.c: what we announce */
MUST own_names(struct mdns_core *m, struct err *e);  // from base and n_rename
void own_texts(struct mdns_core *m);                 // from facts
void own_shared(struct mdns_core *m);                // from n_shared
void own_back(struct mdns_link *l);                  // from the addresses
bool own_shared_name(struct dns_name *n, uint32_t n_shared, char label[static MDNS_NAME]);
uint64_t own_cluster(const struct mdns_core *m);  // whose the shared name is
/* The facts in a TXT record; false when id or instance lacks or anything is not as we write it. The
 * first of a key counts (RFC 6763 6.4), unknown keys are skipped. */
bool own_read_facts(const uint8_t *txt, size_t len, struct mdns_facts *f);
bool own_same_facts(const struct mdns_facts *a, const struct mdns_facts *b);
/* The cluster alone, as in S_CLUSTER. */
bool own_read_cluster(const uint8_t *txt, size_t len, uint64_t *cluster);
/* Slots that exist on a link: those announced now, or all that the names are probed for. */
uint64_t own_slots(const struct mdns_core *m, const struct mdns_link *l);
uint64_t own_claimed(const struct mdns_core *m, const struct mdns_link *l);
const struct dns_name *own_name(const struct mdns_core *m, const struct mdns_link *l,
                                unsigned slot);
uint16_t own_type(const struct mdns_link *l, unsigned slot);
uint32_t own_ttl(unsigned slot);
bool own_is_unique(unsigned slot);
size_t own_data(const struct mdns_core *m, const struct mdns_link *l, unsigned slot,
                uint8_t out[static DNS_DATA]);
/* The item's data is the slot's; names in it compare as names do. */
bool own_is_data(const struct mdns_core *m, const struct mdns_link *l, unsigned slot,
                 const struct dns_item *it);
/* Of the slots, those that the item is a copy of (name, type, data) or asks for. */
uint64_t own_same(const struct mdns_core *m, const struct mdns_link *l, uint64_t slots,
                  const struct dns_item *it);
uint64_t own_asked(const struct mdns_core *m, const struct mdns_link *l, const struct dns_item *it);
/* What goes along with answers in the additional section (RFC 6763 section 12). */
uint64_t own_along(const struct mdns_core *m, const struct mdns_link *l, uint64_t slots);

/* ---- mdns_respond.c: probing, announcing, answering, conflicts */
void respond_query(struct mdns_core *m, uint32_t link, const struct mdns_end *from,
                   bool is_multicast, const struct dns_reader *r, uint64_t now);
void respond_response(struct mdns_core *m, uint32_t link, const struct dns_reader *r, uint64_t now);
void respond_tick(struct mdns_core *m, uint64_t now);
uint64_t respond_next(const struct mdns_core *m);
void respond_probe(struct mdns_link *l, uint64_t at);                      // start over
void respond_announce(struct mdns_core *m, uint64_t slots, uint64_t now);  // on all links
void respond_goodbye(struct mdns_core *m, uint32_t link, uint64_t slots);

/* ---- mdns_shared.c: who has dair.local */
void shared_start(struct mdns_core *m, uint32_t n_shared, uint64_t now);
void shared_stop(struct mdns_core *m);
void shared_record(struct mdns_core *m, const struct dns_item *it, uint64_t now);
void shared_tick(struct mdns_core *m, uint64_t now);

/* ---- mdns_browse.c: the other nodes */
void browse_start(struct mdns_core *m, struct mdns_link *l, uint64_t now);
void browse_response(struct mdns_core *m, uint32_t link, const struct dns_reader *r, uint64_t now);
void browse_tick(struct mdns_core *m, uint64_t now);
uint64_t browse_next(const struct mdns_core *m);
void browse_forget_link(struct mdns_core *m, uint32_t index);  // no link is left on this interface
void browse_report(struct mdns_core *m, uint64_t now);

/* ---- shared by them */
static inline uint32_t core_random(struct mdns_core *m, uint32_t below) {
    m->rng ^= m->rng << 13;
    m->rng ^= m->rng >> 7;
    m->rng ^= m->rng << 17;
    return (uint32_t)((m->rng >> 32) * below >> 32);
}
static inline uint64_t sooner(uint64_t next, uint64_t at) {
    return at && at < next ? at : next;
}
/* Take the lowest slot out of a set that is not empty. */
static inline unsigned take_slot(uint64_t *slots) {
    unsigned s = (unsigned)__builtin_ctzll(*slots);
    *slots &= *slots - 1;
    return s;
}
/* A token bucket in one word (GCRA): may something of this cost pass? Costs are times: what passes
 * in the long run fills the time, and burst_ms of it may pass at once. */
static inline bool may_pass(uint64_t *full_at, uint64_t burst_ms, uint64_t cost_ms, uint64_t now) {
    if (*full_at < now) *full_at = now;
    if (*full_at - now + cost_ms > burst_ms) return false;
    *full_at += cost_ms;
    return true;
}
/* Send what is in m->out, if it holds anything, on one link; it is remembered as ours when
 * is_own. */
void core_send(struct mdns_core *m, uint32_t link, const struct mdns_end *to, bool is_own);

#endif
