/* test_mdns_browse.c - finding other nodes by multicast DNS, and who has the shared name; with a
 * made-up clock and wire, against nodes, liars and floods. */
#include "mdns_wire.h"
#include "tap.h"

#include <arpa/inet.h>

static const char TYPE[] = "_dair._tcp.local";

/* ---- finding */

static void test_find(void) {
    struct wire *w = wire_new();
    for (uint8_t i = 1; i <= 4; i++) {
        char host[16];
        snprintf(host, sizeof host, "n%d", i);
        node_add(w, host, (uint16_t)(7000 + i), i, 1);
    }
    wire_run(w, 3500);
    bool all = true;
    for (int i = 0; i < 4; i++) all = all && w->node[i].n_peer == 3;
    const struct mdns_peer *p = &w->node[0].peer;
    struct sockaddr_in in;
    struct sockaddr_in6 in6;
    memcpy(&in, &p->addr[0], sizeof in);
    memcpy(&in6, &p->addr[1], sizeof in6);
    tap_ok(all, "four nodes, each finds three in 2.5 s");
    tap_ok(p->port == 7000 + p->facts.id.b[0] && p->facts.instance == 100U + p->facts.id.b[0] &&
               p->facts.cluster == 1 && p->facts.model == 0xabcdef && p->facts.contract == 3 &&
               p->facts.epoch == 9,
           "all facts arrive");
    tap_ok(p->n_addr == 2 && in.sin_family == AF_INET && ntohs(in.sin_port) == p->port &&
               in6.sin6_family == AF_INET6 && ntohs(in6.sin6_port) == p->port &&
               in6.sin6_scope_id == 2,
           "both addresses, with port and scope");
    w->n_seen = 0;
    for (int i = 0; i < 4; i++) w->node[i].n_news = 0;
    wire_run(w, 3600000);
    all = true;
    for (int i = 0; i < 4; i++) all = all && w->node[i].n_peer == 3 && w->node[i].n_news == 0;
    tap_ok(all, "an hour later nothing has changed");
    tap_ok(w->n_seen < 1000, "and %u packets were enough for four", w->n_seen);
    struct node *a = &w->node[3];
    w->is_cut = false;
    core_goodbye(&a->core, w->now);
    w->n_node = 3;
    wire_run(w, w->now + 900);
    all = w->node[0].n_peer == 3;
    wire_run(w, w->now + 300);
    tap_ok(all && w->node[0].n_peer == 2 && w->node[0].gone.facts.id.b[0] == 4,
           "a goodbye: gone after a second");
    wire_free(w);
}

static void test_questions(void) {
    struct wire *w = wire_new();
    node_add(w, "n1", 7001, 1, 1);
    node_add(w, "n2", 7002, 2, 1);
    wire_run(w, 5000000);
    uint64_t at[32] = {0};
    int n = 0, n_qu = 0, n_known = 0;
    for (uint32_t i = 0; i < w->n_seen && n < 32; i++) {
        const struct seen *s = &w->seen[i];
        const struct dns_item *q = find_item(s, DNS_QUESTION, TYPE, DNS_PTR);
        if (s->is_response || s->from.b[3] != 1 || !q) continue;
        at[n++] = s->at;
        n_qu += q->top;
        if (n == 5) n_known = s->n_count[DNS_ANSWER];
    }
    bool doubling = n > 8 && at[0] <= 1000 + 120 && at[1] - at[0] == 1000;
    for (int i = 2; i < 8; i++)
        doubling = doubling && at[i] - at[i - 1] == 2 * (at[i - 1] - at[i - 2]);
    tap_ok(doubling, "who is there? after 1, 2, 4, 8 s and so on");
    tap_ok(n_qu == 1, "only the first wishes a unicast answer");
    tap_ok(n_known == 2, "known answers are told: the other's and our own");
    wire_free(w);
}

/* A peer falls silent: asked for at 80, 85, 90, 95 % of its records' life, then gone. */
static void test_silence(void) {
    struct wire *w = wire_new();
    struct node *a = node_add(w, "n1", 7001, 1, 1);
    node_add(w, "n2", 7002, 2, 1);
    wire_run(w, 8000);
    uint64_t since = a->core.peer[0].srv.at;
    w->n_node = 1;
    w->n_seen = 0;
    wire_run(w, since + 119000);
    int n = 0;
    bool right = true;
    for (uint32_t i = 0; i < w->n_seen; i++) {
        if (!has(&w->seen[i], DNS_QUESTION, "n2._dair._tcp.local", DNS_SRV)) continue;
        uint64_t share = (w->seen[i].at - since) * 1000 / 120000, want = 800U + 50U * (unsigned)n++;
        /* Up to 2 % late on purpose, up to 3 s early along with other records. */
        right = right && share + 30 >= want && share <= want + 22;
    }
    tap_ok(n == 4 && right, "%d questions before the service record ends", n);
    bool there = a->n_peer == 1;
    wire_run(w, since + 121000);
    tap_ok(there && a->n_peer == 0, "then the peer is gone");
    wire_run(w, since + 200000);
    tap_ok(!a->core.peer[0].is_used, "and forgotten");
    wire_free(w);
}

/* ---- strangers' words */

static uint8_t *add_text(uint8_t *t, const char *s) {
    *t = (uint8_t)strlen(s);
    memcpy(t + 1, s, *t);
    return t + 1 + *t;
}

static void put_peer(struct dns_writer *o, const char *label, uint16_t port, uint32_t ttl,
                     const char *cluster) {
    struct dns_name type, inst, host, local;
    char text[40];
    (void)dns_name(&type, TYPE);
    (void)dns_name(&local, "local");
    (void)dns_name_under(&inst, label, &type);
    (void)dns_name_under(&host, label, &local);
    uint8_t srv[DNS_DATA] = {[4] = (uint8_t)(port >> 8), [5] = (uint8_t)port}, txt[256], *t = txt;
    memcpy(srv + 6, host.b, host.len);
    t = add_text(t, "id=000102030405060708090a0b0c0d0e0f");
    t = add_text(t, "in=00000000000000ff");
    snprintf(text, sizeof text, "cf=%s", cluster);
    t = add_text(t, text);
    (void)dns_put_record(o, DNS_ANSWER, &type, DNS_PTR, false, ttl, inst.b, inst.len);
    (void)dns_put_record(o, DNS_ANSWER, &inst, DNS_TXT, true, ttl, txt, (size_t)(t - txt));
    (void)dns_put_record(o, DNS_ANSWER, &inst, DNS_SRV, true, ttl, srv, 6 + (size_t)host.len);
}

static void put_addr(struct dns_writer *o, const char *label, uint32_t ttl, uint32_t v4,
                     bool flush) {
    struct dns_name host, local;
    const uint8_t b[4] = {(uint8_t)(v4 >> 24), (uint8_t)(v4 >> 16), (uint8_t)(v4 >> 8),
                          (uint8_t)v4};
    (void)dns_name(&local, "local");
    (void)dns_name_under(&host, label, &local);
    (void)dns_put_record(o, DNS_ANSWER, &host, DNS_A, flush, ttl, b, 4);
}

static void say(struct wire *w, struct dns_writer *o) {
    wire_inject(w, 9, MDNS_PORT, true, o);
    wire_deliver(w);
    dns_begin(o, 0, DNS_RESPONSE | DNS_AA);
}

static const uint32_t NET = 0xc0000200;  // 192.0.2.0

static void test_addresses(void) {
    const uint32_t bad[] = {0, 0x7f000001, 0xe0000001, 0xffffffff, 0xc6336401, NET + 1};
    struct wire *w = wire_new();
    struct node *a = node_add(w, "n1", 7001, 1, 1);
    struct dns_writer o;
    wire_run(w, 3000);
    dns_begin(&o, 0, DNS_RESPONSE);
    put_peer(&o, "x", 7001, 120, "00000000000000aa");
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) put_addr(&o, "x", 120, bad[i], false);
    say(w, &o);
    tap_ok(a->n_peer == 0 && a->core.peer[0].is_used,
           "nowhere, loopback, a group, everywhere, elsewhere, ourselves: no peer");
    put_addr(&o, "x", 120, NET + 50, true);
    say(w, &o);
    tap_ok(a->n_peer == 1 && a->peer.n_addr == 1, "an address of the link: a peer");
    wire_run(w, w->now + 1500);
    put_addr(&o, "x", 120, NET + 51, true);
    say(w, &o);
    tap_ok(a->peer.n_addr == 2, "a new address with the flush bit: for a second there are two");
    wire_run(w, w->now + 1200);
    struct sockaddr_in in;
    memcpy(&in, &a->peer.addr[0], sizeof in);
    tap_ok(a->n_peer == 1 && a->peer.n_addr == 1 && ntohl(in.sin_addr.s_addr) == NET + 51,
           "then the new one");
    int news = a->n_news;
    for (int i = 0; i < 5; i++) {
        put_peer(&o, "x", 7001, 120, "00000000000000aa");
        put_addr(&o, "x", 120, NET + 51, true);
        say(w, &o);
        wire_run(w, w->now + 2000);
    }
    tap_ok(a->n_news == news, "the same again is no news");
    put_peer(&o, "x", 7009, 120, "00000000000000aa");
    say(w, &o);
    tap_ok(a->peer.port == 7009 && a->n_news == news + 1, "another port is");
    put_peer(&o, "x", 0, 120, "00000000000000aa");
    say(w, &o);
    tap_ok(a->peer.port == 7009, "port 0 is not looked at");
    for (uint32_t i = 0; i < 40; i++) put_addr(&o, "x", 120, NET + 100 + i, false);
    say(w, &o);
    tap_ok(a->peer.n_addr == MDNS_ADDRS, "of many addresses the first %d", MDNS_ADDRS);
    put_peer(&o, "a\x1b[2J\"\xff/..", 7002, 120, "00000000000000aa");
    put_addr(&o, "a\x1b[2J\"\xff/..", 120, NET + 60, false);
    say(w, &o);
    tap_ok(strcmp(a->peer.host, "a??2J???..") == 0, "a name for terminals becomes %s",
           a->peer.host);
    wire_free(w);
}

static void test_facts(void) {
    struct mdns_facts f;
    const char id[] = "\43id=000102030405060708090a0b0c0d0e0f", in[] = "\23in=00000000000000ff";
    uint8_t t[400];
#define READS(...)                                                                                 \
    (n = (size_t)snprintf((char *)t, sizeof t, __VA_ARGS__), own_read_facts(t, n, &f))
    size_t n;
    tap_ok(READS("%s%s", id, in) && f.id.b[15] == 15 && f.instance == 255 && !f.cluster && !f.epoch,
           "id and instance are enough");
    tap_ok(!READS("%s", id) && !READS("%s", in), "and needed");
    tap_ok(READS("%s\4ep=7\4EP=8\1x\3z=1\2=y%s", id, in) && f.epoch == 7,
           "the first of a key counts");
    tap_ok(READS("%s\4CV=7%s", id, in) && f.contract == 7, "in any case");
    tap_ok(!READS("%s\15cv=4294967296%s", id, in) &&
               !READS("%s\27ep=18446744073709551616%s", id, in),
           "numbers have an end");
    tap_ok(READS("%s\27ep=18446744073709551615%s", id, in) && f.epoch == UINT64_MAX, "to the last");
    tap_ok(!READS("%s\3ep=%s", id, in) && !READS("%s\5ep=-1%s", id, in),
           "nothing and signs are none");
    tap_ok(!READS("%s\42id=000102030405060708090a0b0c0d0e0%s", "", in), "31 digits are no id");
    tap_ok(!READS("%s%s\7x=", id, in), "a string past the end spoils it");
#undef READS
}

static void test_flood(void) {
    struct wire *w = wire_new();
    struct node *a = node_add(w, "n1", 7001, 1, 1), *b = node_add(w, "n2", 7002, 2, 1);
    struct dns_writer o;
    char label[32];
    wire_run(w, 5000);
    w->n_node = 1;  // b is there but silent
    dns_begin(&o, 0, DNS_RESPONSE);
    struct dns_name type, inst;
    (void)dns_name(&type, TYPE);
    for (int i = 0; i < 10000; i++) {
        snprintf(label, sizeof label, "flood-%d", i);
        (void)dns_name_under(&inst, label, &type);
        (void)dns_put_record(&o, DNS_ANSWER, &type, DNS_PTR, false, 4500, inst.b, inst.len);
        if (i % 20 == 19) say(w, &o);
    }
    tap_ok(a->n_peer == 1 && a->core.counts.ignored_peers > 9000, "10 000 names: the peer stays");
    w->n_seen = 0;
    uint64_t until = w->now + 10000;
    wire_run(w, until);
    tap_ok(w->n_seen < 200, "%u packets to ask about those in 10 s", w->n_seen);
    wire_run(w, w->now + 40000);
    for (int i = 0; i < 200; i++) {
        snprintf(label, sizeof label, "liar-%d", i);
        put_peer(&o, label, 9, 4500, "0000000000000002");
        put_addr(&o, label, 4500, NET + 100, false);
        say(w, &o);
    }
    tap_ok(a->n_peer == MDNS_PEERS, "200 peers of another cluster: %d are kept", a->n_peer);
    put_peer(&o, "friend", 9, 4500, "0000000000000001");
    put_addr(&o, "friend", 4500, NET + 7, false);
    say(w, &o);
    tap_ok(a->n_peer == MDNS_PEERS && strcmp(a->peer.host, "friend") == 0 &&
               a->gone.facts.cluster == 2,
           "one of ours takes the place of such a one");
    (void)b;
    wire_free(w);
}

/* ---- the shared name */

static bool is_shared_by(const struct node *a, const char *name) {
    return a->core.claim == CLAIM_HELD && strcmp(a->core.shared_label, name) == 0;
}

static void test_serve(void) {
    struct wire *w = wire_new();
    struct node *a = node_add(w, "n1", 7001, 1, 1), *b = node_add(w, "n2", 7002, 2, 1);
    wire_run(w, 5000);
    w->n_seen = 0;
    core_serve(&a->core, true, w->now);
    core_serve(&b->core, true, w->now);
    wire_run(w, w->now + 4000);
    const struct seen *s = seen_with(w, DNS_ANSWER, "dair.local", DNS_A);
    tap_ok(s && is_shared_by(a, "dair") && is_shared_by(b, "dair") &&
               rec(s, "dair.local", DNS_A)->ttl == 10 && !rec(s, "dair.local", DNS_A)->top &&
               rec(s, "dair.local", DNS_TXT),
           "two of one cluster share dair.local: 10 s, no flush bit, and whose it is");
    s = seen_with(w, DNS_ANSWER, "_http._tcp.local", DNS_PTR);
    tap_ok(s && rec(s, "n1._http._tcp.local", DNS_SRV) && rec(s, "n1._http._tcp.local", DNS_TXT) &&
               seen_with(w, DNS_ANSWER, "_ollama._tcp.local", DNS_PTR),
           "the page and the Ollama service are announced");
    tap_ok(!a->core.counts.conflicts && !b->core.counts.conflicts, "what is shared is no conflict");
    wire_run(w, w->now + 5000);
    w->n_seen = 0;
    struct dns_writer o;
    struct dns_name name;
    (void)dns_name(&name, "dair.local");
    dns_begin(&o, 0, 0);
    (void)dns_put_question(&o, &name, DNS_A, false);
    wire_inject(w, 9, MDNS_PORT, true, &o);
    wire_run(w, w->now + 500);
    bool from[3] = {0};
    for (uint32_t i = 1; i < w->n_seen; i++) from[w->seen[i].from.b[3] % 3] = true;
    tap_ok(from[1] && from[2] && has(&w->seen[1], DNS_ADDITIONAL, "dair.local", DNS_TXT),
           "both answer for it");
    w->n_seen = 0;
    core_serve(&a->core, false, w->now);
    wire_run(w, w->now + 1200);
    s = seen_with(w, DNS_ANSWER, "dair.local", DNS_A);
    const struct seen *http = seen_with(w, DNS_ANSWER, "_http._tcp.local", DNS_PTR);
    tap_ok(s && http && rec(s, "dair.local", DNS_A)->ttl == 0 &&
               rec(http, "_http._tcp.local", DNS_PTR)->ttl == 0,
           "no longer serving: taken back");
    bool rescued = false;
    for (uint32_t i = 0; i < w->n_seen; i++) {
        const struct dns_item *it = rec(&w->seen[i], "dair.local", DNS_TXT);
        rescued = rescued || (it && it->ttl == 10 && w->seen[i].from.b[3] == 2);
    }
    tap_ok(rescued, "what the other still has it says again");
    tap_ok(a->n_peer == 1 && b->n_peer == 1, "they stay nodes");
    wire_free(w);
}

static void test_clusters(void) {
    struct wire *w = wire_new();
    struct node *a = node_add(w, "n1", 7001, 1, 20), *b = node_add(w, "n2", 7002, 2, 10);
    wire_run(w, 3000);
    core_serve(&a->core, true, w->now);
    wire_run(w, 8000);
    core_serve(&b->core, true, w->now);
    wire_run(w, 13000);
    tap_ok(is_shared_by(a, "dair") && is_shared_by(b, "dair-2"),
           "who comes second is dair-2.local: %s, %s", a->core.shared_label, b->core.shared_label);
    struct node *c = node_add(w, "n3", 7003, 3, 10), *d = node_add(w, "n4", 7004, 4, 20);
    struct node *f = node_add(w, "n5", 7005, 5, 0);
    core_serve(&c->core, true, w->now);
    core_serve(&d->core, true, w->now);
    wire_run(w, 20000);
    core_serve(&f->core, true, w->now);
    wire_run(w, 25000);
    tap_ok(is_shared_by(c, "dair-2") && is_shared_by(d, "dair"), "the others of each go with it");
    tap_ok(is_shared_by(f, "dair-3"), "one without a key is a cluster of its own: %s",
           f->core.shared_label);
    tap_ok(is_shared_by(a, "dair") && is_shared_by(b, "dair-2"), "and no one moved for them");
    wire_free(w);
    int right = 0;
    for (uint64_t seed = 1; seed <= 30; seed++) {
        w = wire_new();
        w->seed = seed * 104729;
        a = node_add(w, "n1", 7001, 1, 20);
        b = node_add(w, "n2", 7002, 2, 10);
        wire_run(w, 3000);
        core_serve(&a->core, true, w->now);
        core_serve(&b->core, true, w->now);
        wire_run(w, 9000);
        right += (is_shared_by(a, "dair-2") && is_shared_by(b, "dair")) ||
                 (is_shared_by(a, "dair") && is_shared_by(b, "dair-2"));
        wire_free(w);
    }
    tap_ok(right == 30, "both at a time: one of them has it, the other the next, %d of 30", right);
}

/* A split network heals; and a cluster follows one of its own to the better name. */
static void test_heal(void) {
    struct wire *w = wire_new();
    struct node *a = node_add(w, "n1", 7001, 1, 20), *b = node_add(w, "n2", 7002, 2, 10);
    w->is_cut = true;
    wire_run(w, 3000);
    core_serve(&a->core, true, w->now);
    core_serve(&b->core, true, w->now);
    wire_run(w, 8000);
    bool both = is_shared_by(a, "dair") && is_shared_by(b, "dair");
    w->is_cut = false;
    struct dns_writer o;
    struct dns_name shared;
    (void)own_shared_name(&shared, 1, (char[MDNS_NAME]){0});
    dns_begin(&o, 0, 0);
    (void)dns_put_question(&o, &shared, DNS_A, false);
    wire_inject(w, 9, MDNS_PORT, true, &o);
    wire_run(w, 16000);
    tap_ok(both && is_shared_by(a, "dair-2") && is_shared_by(b, "dair"),
           "two halves meet: the lower fingerprint keeps it");
    w->node[1] = w->node[0];  // b goes without a word; a stays alone
    w->n_node = 1;
    w->node[0].core.hooks.ctx = &w->node[0];
    struct node *c = node_add(w, "n3", 7003, 3, 20);
    wire_run(w, w->now + 3000);
    core_serve(&c->core, true, w->now);
    wire_run(w, w->now + 6000);
    tap_ok(is_shared_by(a, "dair") && is_shared_by(c, "dair"),
           "dair.local is free again: a newcomer has it, the old follow");
    const struct iface on = wire_iface(1);
    core_link_down(&a->core, 0, w->now);
    core_link_up(&a->core, 0, &on, AF_INET, w->now);
    wire_run(w, w->now + 500);
    tap_ok(a->core.claim == CLAIM_ASKING, "who comes back asks first");
    dns_begin(&o, 0, DNS_RESPONSE);
    put_addr(&o, "dair", 120, NET + 77, true);
    say(w, &o);
    wire_run(w, w->now + 6000);
    tap_ok(is_shared_by(a, "dair-2") && is_shared_by(c, "dair-2"),
           "a host whose own name it is has it");
    const uint8_t txt[] = "\23cf=0000000000000001";
    for (uint32_t i = 0; i < 100; i++) {
        (void)own_shared_name(&shared, a->core.n_shared, (char[MDNS_NAME]){0});
        (void)dns_put_record(&o, DNS_ANSWER, &shared, DNS_TXT, false, 10, txt, sizeof txt - 1);
        say(w, &o);
        wire_run(w, w->now + 100);
    }
    tap_ok(a->core.n_shared == 16, "who claims all of them drives us to dair-16, no further");
    wire_run(w, w->now + 3000);
    tap_ok(is_shared_by(a, "dair-16"), "which is kept");
    wire_free(w);
}

static void test_update(void) {
    struct wire *w = wire_new();
    struct node *a = node_add(w, "n1", 7001, 1, 1), *b = node_add(w, "n2", 7002, 2, 1);
    wire_run(w, 8000);
    w->n_seen = 0;
    struct mdns_facts f = a->core.facts;
    for (int i = 0; i < 50; i++) {
        f.epoch++;
        core_update(&a->core, &f, w->now);
        wire_run(w, w->now + 100);
    }
    wire_run(w, w->now + 3000);
    int n = 0;
    uint64_t last = 0;
    bool slow = true;
    for (uint32_t i = 0; i < w->n_seen; i++) {
        if (!has(&w->seen[i], DNS_ANSWER, "n1._dair._tcp.local", DNS_TXT)) continue;
        slow = slow && (!n || w->seen[i].at - last >= 1000);
        last = w->seen[i].at;
        n++;
    }
    tap_ok(slow && n >= 5 && n <= 9,
           "new facts ten times a second are told once a second: %d in 8 s", n);
    tap_ok(b->peer.facts.epoch == f.epoch && !a->core.counts.conflicts, "the last of them arrives");
    w->n_seen = 0;
    core_update(&a->core, &f, w->now);
    wire_deliver(w);
    tap_ok(!w->n_seen, "the same facts are not told again");
    const struct iface more = {.index = 2,
                               .can_multicast = true,
                               .name = "wire",
                               .n_addr = 1,
                               .addr = {{.family = AF_INET, .prefix = 24, .b = {192, 0, 2, 33}}}};
    core_link_addrs(&a->core, 0, &more, w->now);
    a->last = 33;
    wire_run(w, w->now + 3000);
    struct sockaddr_in in;
    memcpy(&in, &b->peer.addr[0], sizeof in);
    tap_ok(b->n_peer == 1 && b->peer.n_addr == 1 && ntohl(in.sin_addr.s_addr) == NET + 33,
           "another address: the old ones are taken back, the new one arrives");
    tap_ok(!a->core.n_rename && !a->core.counts.conflicts, "without a conflict");
    wire_free(w);
}

int main(void) {
    test_find();
    test_questions();
    test_silence();
    test_addresses();
    test_facts();
    test_flood();
    test_serve();
    test_clusters();
    test_heal();
    test_update();
    return tap_done();
}
