/* test_mdns_lo.c - mDNS on real sockets: two nodes find each other over loopback, without any
 * rights.
 *
 * With arguments it is a node for mdns.t, on the real network:
 *   test_mdns_lo node HOST PORT ID CLUSTER [INTERFACE]
 * prints "peer HOST PORT ID CLUSTER EPOCH ADDRESS...", "gone HOST" and "name HOST" as they happen,
 * and obeys lines of its stdin: serve, stop, epoch N, status; the end of it is the end.
 */
#include "base/clock.h"
#include "base/ifaces.h"
#include "base/log.h"
#include "net/mdns.h"
#include "tap.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const uint64_t SECOND = 1000000000U;

/* ---- a node for scripts */

struct tool {
    struct loop loop;
    struct loop_fd input;
    struct mdns *m;
    struct mdns_facts facts;
    size_t n;
    char line[256];
};

static void tool_peer(void *ctx, const struct mdns_peer *p) {
    char text[INET6_ADDRSTRLEN];
    (void)ctx;
    printf("peer %s %u %02x %llx %llu", p->host, p->port, p->facts.id.b[0],
           (unsigned long long)p->facts.cluster, (unsigned long long)p->facts.epoch);
    for (uint32_t i = 0; i < p->n_addr; i++) {
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
        memcpy(&in, &p->addr[i], sizeof in);
        memcpy(&in6, &p->addr[i], sizeof in6);
        bool is_4 = p->addr[i].ss_family == AF_INET;
        printf(" %s",
               inet_ntop(p->addr[i].ss_family, is_4 ? (void *)&in.sin_addr : (void *)&in6.sin6_addr,
                         text, sizeof text));
        if (!is_4) printf("%%%u", in6.sin6_scope_id);
    }
    puts("");
}

static void tool_gone(void *ctx, const struct mdns_peer *p) {
    (void)ctx;
    printf("gone %s\n", p->host);
}

static void tool_name(void *ctx, const char *host) {
    (void)ctx;
    printf("name %s\n", host);
}

static void obey(struct tool *t, const char *line) {
    struct mdns_counts c;
    if (strcmp(line, "serve") == 0) mdns_serve(t->m, true);
    if (strcmp(line, "stop") == 0) mdns_serve(t->m, false);
    if (strncmp(line, "epoch ", 6) == 0) {
        t->facts.epoch = strtoull(line + 6, NULL, 10);
        mdns_update(t->m, &t->facts);
    }
    if (strcmp(line, "status") != 0) return;
    mdns_counts(t->m, &c);
    printf("status %s %s. peers %u sockets %u malformed %llu conflicts %llu\n", mdns_host(t->m),
           mdns_shared(t->m), c.peers, c.sockets, (unsigned long long)c.malformed,
           (unsigned long long)c.conflicts);
}

static void on_input(struct loop_fd *f, uint32_t events) {
    struct tool *t = f->owner;
    (void)events;
    ssize_t n = read(f->fd, t->line + t->n, sizeof t->line - 1 - t->n);
    if (n <= 0) {
        loop_stop(&t->loop);
        return;
    }
    t->n += (size_t)n;
    for (char *end; (end = memchr(t->line, '\n', t->n));) {
        *end = 0;
        obey(t, t->line);
        size_t used = (size_t)(end + 1 - t->line);
        memmove(t->line, end + 1, t->n -= used);
    }
}

static int tool(int argc, char **argv) {
    struct tool t = {0};
    struct err e;
    if (argc < 6) return 2;
    setvbuf(stdout, NULL, _IOLBF, 0);
    t.facts.id.b[0] = (uint8_t)strtoul(argv[4], NULL, 16);
    t.facts.instance = clock_ns() | 1;
    t.facts.cluster = strtoull(argv[5], NULL, 16);
    t.facts.contract = 1;
    struct mdns_conf c = {.loop = &t.loop,
                          .host = argv[2],
                          .facts = t.facts,
                          .cluster_port = (uint16_t)strtoul(argv[3], NULL, 10),
                          .http_port = 80,
                          .ollama_port = 11434,
                          .interface = argc > 6 ? argv[6] : NULL,
                          .on_peer = tool_peer,
                          .on_gone = tool_gone,
                          .on_name = tool_name};
    t.input = (struct loop_fd){.fd = STDIN_FILENO, .ready = on_input, .owner = &t};
    bool ok = loop_open(&t.loop, NULL, NULL, &e) && mdns_open(&t.m, &c, &e) &&
              loop_watch(&t.loop, &t.input, EPOLLIN, &e) && loop_run(&t.loop, &e);
    if (!ok) printf("error %s\n", e.text);
    mdns_close(t.m);
    loop_close(&t.loop);
    return !ok;
}

/* ---- two in one loop */

struct pair {
    struct loop loop;
    struct loop_timer limit, step;
    struct mdns *m[2];
    struct mdns_facts facts[2];
    int stage;
    bool found[2], updated, gone, late;
    struct mdns_peer peer;
    char name[MDNS_NAME];
};
struct half {
    struct pair *p;
    int i;
};

static void on_late(struct loop_timer *t, uint64_t now_ns) {
    struct pair *p = t->owner;
    (void)now_ns;
    p->late = true;
    loop_stop(&p->loop);
}

/* Not inside a callback of the one that is closed. */
static void on_step(struct loop_timer *t, uint64_t now_ns) {
    struct pair *p = t->owner;
    (void)now_ns;
    if (p->stage == 1) {
        p->facts[1].epoch = 77;
        mdns_update(p->m[1], &p->facts[1]);
    } else {
        mdns_close(p->m[1]);
        p->m[1] = NULL;
    }
}

static void pair_peer(void *ctx, const struct mdns_peer *peer) {
    struct half *h = ctx;
    struct pair *p = h->p;
    if (peer->facts.id.b[1] != 0x5a) return;  // another program's, on this machine
    p->found[h->i] = true;
    if (h->i == 0) p->peer = *peer;
    if (h->i == 0 && peer->facts.epoch == 77) p->updated = true;
    if (p->stage == 0 && p->found[0] && p->found[1]) {
        p->stage = 1;
        loop_at(&p->loop, &p->step, clock_ns());
    } else if (p->stage == 1 && p->updated) {
        p->stage = 2;
        loop_at(&p->loop, &p->step, clock_ns());
    }
}

static void pair_gone(void *ctx, const struct mdns_peer *peer) {
    struct half *h = ctx;
    if (peer->facts.id.b[1] != 0x5a) return;
    h->p->gone = true;
    loop_stop(&h->p->loop);
}

static void test_pair(void) {
    static struct pair p;
    struct half half[2] = {{&p, 0}, {&p, 1}};
    struct err e = {0};
    char host[2][MDNS_NAME];
    p.limit = (struct loop_timer){.fire = on_late, .owner = &p};
    p.step = (struct loop_timer){.fire = on_step, .owner = &p};
    bool ok = loop_open(&p.loop, NULL, NULL, &e);
    for (int i = 0; i < 2 && ok; i++) {
        snprintf(host[i], sizeof host[i], "dairtest-%d-%d", (int)getpid(), i);
        p.facts[i] = (struct mdns_facts){
            .id = {{(uint8_t)i, 0x5a}}, .instance = 1U + (unsigned)i, .cluster = 5};
        const struct mdns_conf c = {.loop = &p.loop,
                                    .host = host[i],
                                    .facts = p.facts[i],
                                    .cluster_port = (uint16_t)(7001 + i),
                                    .interface = "lo",
                                    .on_peer = pair_peer,
                                    .on_gone = pair_gone,
                                    .ctx = &half[i]};
        ok = mdns_open(&p.m[i], &c, &e);
    }
    if (!tap_ok(ok, "two nodes on loopback %s", e.text)) return;
    loop_at(&p.loop, &p.limit, clock_ns() + 20 * SECOND);
    ok = loop_run(&p.loop, &e);
    tap_ok(ok && p.found[0] && p.found[1], "find each other");
    struct sockaddr_in in;
    memcpy(&in, &p.peer.addr[0], sizeof in);
    tap_ok(p.peer.n_addr == 1 && in.sin_family == AF_INET &&
               ntohl(in.sin_addr.s_addr) >> 24 == 127 && p.peer.port == 7002 &&
               ntohs(in.sin_port) == 7002 && strcmp(p.peer.host, host[1]) == 0 &&
               p.peer.facts.cluster == 5,
           "with name, port, facts and address");
    tap_ok(p.updated, "hear of new facts");
    tap_ok(p.gone && !p.late, "and of a goodbye");
    mdns_close(p.m[0]);
    mdns_close(p.m[1]);
    loop_close(&p.loop);
}

static void test_misuse(void) {
    struct loop loop;
    struct err e;
    struct mdns *m;
    if (!loop_open(&loop, NULL, NULL, &e)) return;
    struct mdns_conf c = {.loop = &loop, .host = ""};
    tap_ok(!mdns_open(&m, &c, &e) && e.code == ERR_USAGE && !m, "no name: %s", e.text);
    c.host = "a.b";
    tap_ok(!mdns_open(&m, &c, &e) && e.code == ERR_USAGE, "no dots: %s", e.text);
    c.host = "ok";
    c.interface = "a-name-that-is-too-long";
    tap_ok(!mdns_open(&m, &c, &e) && e.code == ERR_USAGE, "no interface: %s", e.text);
    c.interface = "dairnone0";
    tap_ok(mdns_open(&m, &c, &e), "an interface that may come later is waited for");
    if (m) {
        struct mdns_counts n;
        mdns_counts(m, &n);
        tap_ok(n.sockets == 0 && strcmp(mdns_host(m), "ok") == 0 && strcmp(mdns_shared(m), "") == 0,
               "without a socket");
        mdns_close(m);
    }
    loop_close(&loop);
}

static void test_ifaces(void) {
    struct iface i[IFACES];
    struct err e;
    size_t n = 0;
    bool lo = false;
    if (!tap_ok(ifaces_list(i, IFACES, &n, &e), "interfaces are listed")) return;
    for (size_t k = 0; k < n; k++) {
        if (strcmp(i[k].name, "lo") == 0) {
            lo = i[k].is_loopback && !i[k].can_multicast && iface_has(&i[k], AF_INET) &&
                 i[k].addr[0].b[0] == 127;
        }
    }
    tap_ok(lo, "loopback among %zu", n);
    const struct iface on = {.n_addr = 1,
                             .addr = {{.family = AF_INET, .prefix = 22, .b = {10, 1, 4, 7}}}};
    tap_ok(iface_is_on_link(&on, AF_INET, (const uint8_t[]){10, 1, 7, 255}) &&
               !iface_is_on_link(&on, AF_INET, (const uint8_t[]){10, 1, 8, 0}) &&
               iface_is_on_link(&on, AF_INET, (const uint8_t[]){169, 254, 1, 1}) &&
               iface_is_on_link(&on, AF_INET6, (const uint8_t[16]){0xfe, 0xbf}) &&
               !iface_is_on_link(&on, AF_INET6, (const uint8_t[16]){0xfe, 0xc0}),
           "networks and link-local addresses are on the link");
}

int main(int argc, char **argv) {
    if (argc > 1) return tool(argc, argv);
    log_set(LOG_WARN, NULL);
    test_ifaces();
    test_misuse();
    test_pair();
    return tap_done();
}
