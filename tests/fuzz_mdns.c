/* Any packets at any times, in any order with links, facts and serving that change. What is sent
 * must be sound, tables must keep their bounds, and time must go on.
 *
 * Input: steps of [what][how], a packet with [length, 2 bytes][bytes] after that; the first byte
 * chooses a node that has just started or one that holds its names and serves.
 */
#include "net/mdns_state.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { WAKES = 8, START = 1000, LINKS = 4, PIECE = 16 };

static struct mdns_core core, held;
static int n_peer;
static unsigned n_sent, sum;

static void on_send(void *ctx, uint32_t link, const struct mdns_end *to, const uint8_t *p,
                    size_t n) {
    struct dns_reader r;
    (void)ctx;
    (void)to;
    if (link >= MDNS_LINKS || !core.link[link].is_used) abort();
    if (n > DNS_SEND_MAX || !dns_read(&r, p, n) || !dns_is_sound(&r)) abort();
    n_sent++;
}

/* Every byte of it, so that a sanitizer sees one that was never written. */
static void use(const struct mdns_peer *p) {
    if (!memchr(p->host, 0, sizeof p->host) || !p->n_addr || p->n_addr > MDNS_ADDRS || !p->port)
        abort();
    for (size_t i = 0; i < p->n_addr * sizeof *p->addr; i++) sum += ((const uint8_t *)p->addr)[i];
}
static void on_peer(void *ctx, const struct mdns_peer *p) {
    (void)ctx;
    use(p);
}
static void on_gone(void *ctx, const struct mdns_peer *p) {
    (void)ctx;
    use(p);
    n_peer++;
}
static void on_name(void *ctx, const char *host) {
    (void)ctx;
    sum += (unsigned)strlen(host);
}

static struct iface iface_of(uint32_t index, uint8_t how) {
    struct iface i = {
        .index = index,
        .can_multicast = true,
        .name = "fuzz",
        .n_addr = 2,
        .addr = {{.family = AF_INET, .prefix = 24, .b = {192, 0, 2, (uint8_t)(how & 3)}},
                 {.family = AF_INET6, .prefix = 64, .b = {0xfe, 0x80, [15] = 1}}}};
    if (how & 4)
        i.addr[i.n_addr++] = (struct if_addr){.family = AF_INET, .prefix = 8, .b = {10, 1, 1, 1}};
    return i;
}

/* Links 0 and 1 are one interface, 2 is another. */
static void toggle_link(uint32_t link, uint8_t how, uint64_t now) {
    const struct iface i = iface_of(link / 2 + 2, how);
    if (!core.link[link].is_used) {
        core_link_up(&core, link, &i, link == 1 ? AF_INET6 : AF_INET, now);
    } else if (how & 8) {
        core_link_addrs(&core, link, &i, now);
    } else {
        core_link_down(&core, link, now);
    }
}

static void start(void) {
    const struct mdns_hooks hooks = {on_send, on_peer, on_gone, on_name, NULL};
    const struct mdns_conf conf = {.host = "dair-1a2b",
                                   .facts = {.id = {{1}}, .instance = 1, .cluster = 2},
                                   .cluster_port = 7000,
                                   .http_port = 80,
                                   .ollama_port = 11434};
    struct err e;
    if (!core_init(&core, &conf, &hooks, 1, &e)) abort();
    toggle_link(0, 0, START);
}

/* Up to `until`; a core that wants to wake again and again at one moment does not let time go
 * on. */
static void pass(uint64_t *now, uint64_t until) {
    int n = 0;
    for (uint64_t next; (next = core_next(&core)) <= until && n < WAKES; n++) {
        uint64_t was = *now;
        if (next > *now) *now = next;
        core_tick(&core, *now);
        if (core_next(&core) <= was && n == WAKES - 1) abort();
    }
    if (until > *now && n < WAKES) *now = until;
}

static const uint8_t *packet(const uint8_t *p, const uint8_t *end, uint8_t how, uint64_t now) {
    uint8_t copy[DNS_READ_MAX];
    struct mdns_end from = {
        .family = AF_INET, .b = {192, 0, 2, (uint8_t)(how & 7)}, .port = MDNS_PORT};
    if (end - p < 2) return end;
    size_t n = (size_t)(p[0] << 8 | p[1]);
    p += 2;
    if (n > (size_t)(end - p)) n = (size_t)(end - p);
    if (n > sizeof copy) n = sizeof copy;
    uint32_t link = how >> 3 & 1;
    if (link)
        from =
            (struct mdns_end){.family = AF_INET6, .b = {0xfe, 0x80, [15] = 9}, .port = MDNS_PORT};
    if (how & 16) from.port = 40000;
    /* A block of its own size: reading past it is seen. */
    uint8_t *own = n < 64 ? calloc(1, n + !n) : copy;
    if (!own) abort();
    if (n) memcpy(own, p, n);
    core_packet(&core, link, &from, !(how & 32), own, n, now);
    if (own != copy) free(own);
    return p + n;
}

static void check(void) {
    uint32_t n = 0;
    for (int i = 0; i < MDNS_PEERS; i++) {
        const struct mdns_known *p = &core.peer[i];
        if (!p->is_used) continue;
        n += p->is_reported;
        if (p->n_addr > MDNS_ADDRS || (p->is_reported && !p->ptr.at)) abort();
    }
    if (n != core.counts.peers || core.label[sizeof core.label - 1]) abort();
}

/* The node that holds its names: what can differ from a fresh one, as copying all takes longer than
 * most inputs do. */
static void recall(void) {
    memcpy(&core, &held, offsetof(struct mdns_core, link));
    memcpy(core.link, held.link, LINKS * sizeof *core.link);
    for (int i = 0; i < MDNS_HELD; i++) core.held[i].is_used = false;
    for (int i = 0; i < MDNS_PEERS; i++) core.peer[i].is_used = false;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const uint8_t *p = data, *end = data + size;
    uint64_t now = START;
    if (!held.rng) {
        start();
        toggle_link(1, 0, START);
        core_serve(&core, true, now);
        for (uint64_t t = START; t < START + 5000; t += 100) pass(&now, t);
        memcpy(&held, &core, sizeof core);
        now = START;
    }
    if (p < end && (*p++ & 1)) {
        recall();
        now += 5000;
    } else {
        start();
    }
    n_sent = 0;
    unsigned steps = 0;
    while (end - p >= 2) {
        uint8_t what = p[0], how = p[1];
        p += 2;
        steps++;
        switch (what & 7) {
        case 1: pass(&now, now + ((uint64_t)1 << (how & 15))); break;
        case 2: core_serve(&core, how & 1, now); break;
        case 3: {
            struct mdns_facts f = core.facts;
            f.epoch = how >> 2;
            f.cluster = how & 3;
            core_update(&core, &f, now);
            break;
        }
        case 4: toggle_link(how >> 4 & (LINKS - 1), how, now); break;
        default: p = packet(p, end, how, now); break;
        }
    }
    check();
    if (n_sent > (steps + 1) * WAKES * PIECE) abort();
    core_goodbye(&core, now);
    return 0;
}
