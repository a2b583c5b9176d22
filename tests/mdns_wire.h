/* mdns_wire.h - some nodes' mDNS cores on a made-up link with a made-up clock, for test_mdns*.c.
 *
 * What is sent reaches everyone at once, the sender too, as multicast does; all of it is kept in
 * seen.
 */
#ifndef TESTS_MDNS_WIRE_H
#define TESTS_MDNS_WIRE_H

#include "net/mdns_state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NODES = 8, SEEN = 4096, QUEUE = 256 };

struct seen {
    uint64_t at;
    bool is_response, is_unicast;
    struct mdns_end from, to;
    uint16_t id, flags, n_count[DNS_SECTIONS];
    size_t n;
    uint8_t b[DNS_SEND_MAX];
};

struct wire;
struct node {
    struct wire *w;
    uint8_t last;  // 192.0.2.last and fe80::last
    int n_peer, n_news, n_name;
    char name[MDNS_NAME];
    struct mdns_peer peer, gone;  // the last ones told
    struct mdns_core core;
};

struct packet {
    struct mdns_end from, to;
    bool is_multicast;
    size_t n;
    uint8_t b[DNS_SEND_MAX];
};

struct wire {
    uint64_t now, seed;
    uint32_t n_node, n_seen, head, tail;
    bool is_cut;  // nothing arrives
    struct node node[NODES];
    struct seen seen[SEEN];
    struct packet queue[QUEUE];
};

static inline struct wire *wire_new(void) {
    struct wire *w = calloc(1, sizeof *w);
    if (!w) abort();
    w->now = 1000;
    w->seed = 12345;
    return w;
}

static inline void wire_free(struct wire *w) {
    free(w);
}

static inline void wire_put(struct wire *w, struct mdns_end from, const struct mdns_end *to,
                            const uint8_t *p, size_t n) {
    struct dns_reader r;
    if (w->tail - w->head < QUEUE) {
        struct packet *q = &w->queue[w->tail++ % QUEUE];
        *q = (struct packet){.from = from, .is_multicast = !to, .n = n};
        if (to) q->to = *to;
        memcpy(q->b, p, n);
    }
    if (w->n_seen == SEEN || !dns_read(&r, p, n)) return;
    struct seen *s = &w->seen[w->n_seen++];
    *s = (struct seen){
        .at = w->now, .from = from, .is_unicast = to, .id = r.id, .flags = r.flags, .n = n};
    if (to) s->to = *to;
    s->is_response = r.flags & DNS_RESPONSE;
    memcpy(s->n_count, r.left, sizeof s->n_count);
    memcpy(s->b, p, n);
}

static inline struct mdns_end wire_end(uint8_t last, uint16_t port) {
    return (struct mdns_end){.family = AF_INET, .b = {192, 0, 2, last}, .port = port};
}

static inline void wire_send(void *ctx, uint32_t link, const struct mdns_end *to, const uint8_t *p,
                             size_t n) {
    struct node *a = ctx;
    (void)link;
    wire_put(a->w, wire_end(a->last, MDNS_PORT), to, p, n);
}

static inline void wire_peer(void *ctx, const struct mdns_peer *p) {
    struct node *a = ctx;
    a->n_peer = (int)a->core.counts.peers;
    a->n_news++;
    a->peer = *p;
}
static inline void wire_gone(void *ctx, const struct mdns_peer *p) {
    struct node *a = ctx;
    a->n_peer = (int)a->core.counts.peers;
    a->n_news++;
    a->gone = *p;
}
static inline void wire_name(void *ctx, const char *host) {
    struct node *a = ctx;
    a->n_name++;
    snprintf(a->name, sizeof a->name, "%s", host);
}

static inline struct iface wire_iface(uint8_t last) {
    return (struct iface){
        .index = 2,
        .can_multicast = true,
        .name = "wire",
        .n_addr = 2,
        .addr = {{.family = AF_INET, .prefix = 24, .b = {192, 0, 2, last}},
                 {.family = AF_INET6, .prefix = 64, .b = {0xfe, 0x80, [15] = last}}}};
}

/* A node of cluster `cluster`, on the link from now on. */
static inline struct node *node_add(struct wire *w, const char *host, uint16_t port, uint8_t last,
                                    uint64_t cluster) {
    struct node *a = &w->node[w->n_node++];
    *a = (struct node){.w = w, .last = last};
    const struct mdns_hooks hooks = {wire_send, wire_peer, wire_gone, wire_name, a};
    const struct mdns_conf conf = {.host = host,
                                   .facts = {.id = {{last}},
                                             .instance = 100U + last,
                                             .cluster = cluster,
                                             .model = 0xabcdef,
                                             .contract = 3,
                                             .epoch = 9},
                                   .cluster_port = port,
                                   .http_port = 80,
                                   .ollama_port = 11434};
    const struct iface on = wire_iface(last);
    struct err e;
    if (!core_init(&a->core, &conf, &hooks, (w->seed += 0x9e3779b97f4a7c15U), &e)) abort();
    core_link_up(&a->core, 0, &on, AF_INET, w->now);
    return a;
}

static inline void wire_deliver(struct wire *w) {
    while (w->head != w->tail) {
        const struct packet p = w->queue[w->head++ % QUEUE];
        for (uint32_t i = 0; i < w->n_node && !w->is_cut; i++) {
            struct node *a = &w->node[i];
            if (!p.is_multicast && p.to.b[3] != a->last) continue;
            core_packet(&a->core, 0, &p.from, p.is_multicast, p.b, p.n, w->now);
        }
    }
}

/* Until `until`, which is now then. What is sent at that moment is not delivered yet. */
static inline void wire_run(struct wire *w, uint64_t until) {
    for (;;) {
        uint64_t next = UINT64_MAX;
        wire_deliver(w);
        for (uint32_t i = 0; i < w->n_node; i++) {
            uint64_t at = core_next(&w->node[i].core);
            if (at < next) next = at;
        }
        if (next > until) break;
        if (next > w->now) w->now = next;
        for (uint32_t i = 0; i < w->n_node; i++) core_tick(&w->node[i].core, w->now);
        if (w->now == until) return;
    }
    w->now = until;
}

/* A stranger's packet: to the group, or to each node. */
static inline void wire_inject(struct wire *w, uint8_t last, uint16_t port, bool is_multicast,
                               struct dns_writer *o) {
    const struct mdns_end to = {
        .family = AF_INET, .b = {192, 0, 2, w->node[0].last}, .port = MDNS_PORT};
    wire_put(w, wire_end(last, port), is_multicast ? NULL : &to, o->b, dns_end(o));
}

/* The item of that name and type in a section (or in any record section: -1), valid for a while. */
static inline const struct dns_item *find_item(const struct seen *s, int section, const char *name,
                                               uint16_t type) {
    static struct dns_item pool[32];
    static unsigned n;
    struct dns_item *it = &pool[n++ % 32];
    struct dns_name want;
    struct dns_reader r;
    if (!s || !dns_name(&want, name) || !dns_read(&r, s->b, s->n)) return NULL;
    while (dns_next(&r, it)) {
        bool is_there = section < 0 ? it->section != DNS_QUESTION : (int)it->section == section;
        if (is_there && it->type == type && dns_name_is(&it->name, &want)) return it;
    }
    return NULL;
}
static inline const struct dns_item *rec(const struct seen *s, const char *name, uint16_t type) {
    return find_item(s, -1, name, type);
}
static inline bool has(const struct seen *s, enum dns_section section, const char *name,
                       uint16_t type) {
    return find_item(s, (int)section, name, type) != NULL;
}
/* The first response with such a record. */
static inline const struct seen *seen_with(const struct wire *w, enum dns_section section,
                                           const char *name, uint16_t type) {
    for (uint32_t i = 0; i < w->n_seen; i++) {
        if (w->seen[i].is_response && has(&w->seen[i], section, name, type)) return &w->seen[i];
    }
    return NULL;
}

#endif
