/* test_mdns.c - the responder of multicast DNS by its rules, with a made-up clock and wire. */
#include "mdns_wire.h"
#include "tap.h"

enum { ECHO = 8 };  // questions of a simple resolver that we repeat

/* ---- probing and announcing */

static void test_claim(void) {
    struct wire *w = wire_new();
    struct node *a = node_add(w, "dair-1a2b", 7000, 1, 1);
    wire_run(w, 3000);
    const struct seen *s = w->seen;
    while (!s->n_count[DNS_AUTHORITY]) s++;
    tap_ok(w->n_seen >= 6 && s[0].at <= 1000 + 251 && s[0].n_count[DNS_AUTHORITY] >= 3,
           "a probe within 250 ms, with what is claimed");
    tap_ok(has(&s[0], DNS_QUESTION, "dair-1a2b.local", DNS_ANY) &&
               has(&s[0], DNS_QUESTION, "dair-1a2b._dair._tcp.local", DNS_ANY) &&
               has(&s[0], DNS_AUTHORITY, "dair-1a2b.local", DNS_A) &&
               has(&s[0], DNS_AUTHORITY, "dair-1a2b.local", DNS_AAAA) &&
               has(&s[0], DNS_AUTHORITY, "dair-1a2b._dair._tcp.local", DNS_SRV) &&
               has(&s[0], DNS_AUTHORITY, "dair-1a2b._dair._tcp.local", DNS_TXT),
           "host and service are claimed");
    uint64_t at[5] = {0};
    int n = 0, n_answer = 0;
    for (uint32_t i = 0; i < w->n_seen && n < 3; i++) {
        if (w->seen[i].n_count[DNS_AUTHORITY]) at[n++] = w->seen[i].at;
    }
    tap_ok(n == 3 && at[1] - at[0] == 250 && at[2] - at[1] == 250, "three probes 250 ms apart");
    for (uint32_t i = 0; i < w->n_seen && n < 5; i++) {
        if (!w->seen[i].is_response) continue;
        if (n++ == 3) n_answer = w->seen[i].n_count[DNS_ANSWER];
        at[n - 1] = w->seen[i].at;
    }
    tap_ok(n == 5 && at[3] - at[2] == 250 && at[4] - at[3] == 1000,
           "two announcements a second apart");
    tap_ok(n_answer == 8, "of all records: %d", n_answer);
    const struct seen *ann = seen_with(w, DNS_ANSWER, "_dair._tcp.local", DNS_PTR);
    tap_ok(ann && !rec(ann, "_dair._tcp.local", DNS_PTR)->top &&
               rec(ann, "dair-1a2b.local", DNS_A)->top &&
               rec(ann, "dair-1a2b.local", DNS_A)->ttl == 120 &&
               rec(ann, "dair-1a2b._dair._tcp.local", DNS_TXT)->ttl == 4500 &&
               rec(ann, "dair-1a2b._dair._tcp.local", DNS_SRV)->ttl == 120,
           "shared records without the flush bit, unique ones with it; 120 s and 4500 s");
    tap_ok(rec(ann, "1.2.0.192.in-addr.arpa", DNS_PTR) &&
               rec(ann, "_services._dns-sd._udp.local", DNS_PTR),
           "address back to name, and the kind of service");
    tap_ok(a->core.link[0].proof == PROOF_HELD && !a->n_name, "the name is held as wished");
    wire_free(w);
}

static void test_conflict(void) {
    struct wire *w = wire_new();
    node_add(w, "dair-1a2b", 7000, 1, 1);
    wire_run(w, 4000);
    struct node *b = node_add(w, "dair-1a2b", 7000, 2, 2);
    wire_run(w, 9000);
    tap_ok(strcmp(b->core.label, "dair-1a2b-2") == 0 && b->n_name == 1 &&
               strcmp(b->name, "dair-1a2b-2") == 0,
           "who comes later is renamed, and told once: %s", b->core.label);
    tap_ok(strcmp(w->node[0].core.label, "dair-1a2b") == 0 && !w->node[0].n_name,
           "who was first stays");
    struct node *c = node_add(w, "DAIR-1A2B", 7001, 3, 3);
    wire_run(w, 15000);
    tap_ok(strcmp(c->core.label, "DAIR-1A2B-3") == 0, "the third is -3, in any case: %s",
           c->core.label);
    tap_ok(w->node[0].n_peer == 2 && b->n_peer == 2 && c->n_peer == 2, "and all know each other");
    wire_free(w);
    int n_both = 0;
    for (uint64_t seed = 1; seed <= 50; seed++) {
        w = wire_new();
        w->seed = seed * 7919;
        node_add(w, "dair-1a2b", 7000, 1, 1);
        node_add(w, "dair-1a2b", 7000, 2, 2);
        node_add(w, "dair-1a2b", 7000, 3, 3);
        wire_run(w, 9000);
        char got[3][MDNS_NAME];
        for (int i = 0; i < 3; i++) memcpy(got[i], w->node[i].core.label, MDNS_NAME);
        bool all = strcmp(got[0], got[1]) && strcmp(got[1], got[2]) && strcmp(got[0], got[2]);
        bool first = !strcmp(got[0], "dair-1a2b") || !strcmp(got[1], "dair-1a2b") ||
                     !strcmp(got[2], "dair-1a2b");
        if (all && first) n_both++;
        wire_free(w);
    }
    tap_ok(n_both == 50, "three at a time: each another name, one as wished, in %d of 50 trials",
           n_both);
}

/* A probe by someone with the address 192.0.2.last for the host's name alone. */
static void probe_from(struct wire *w, uint8_t last) {
    struct dns_writer o;
    struct dns_name host;
    const uint8_t addr[4] = {192, 0, 2, last};
    (void)dns_name(&host, "dair-1a2b.local");
    dns_begin(&o, 0, 0);
    (void)dns_put_question(&o, &host, DNS_ANY, true);
    (void)dns_put_record(&o, DNS_AUTHORITY, &host, DNS_A, false, 120, addr, 4);
    wire_inject(w, 9, MDNS_PORT, true, &o);
}

static void test_tie(void) {
    /* Ours is A 192.0.2.5 and an AAAA: one record later in order than theirs of one. */
    for (int later = 0; later < 2; later++) {
        struct wire *w = wire_new();
        struct node *a = node_add(w, "dair-1a2b", 7000, 5, 1);
        wire_run(w, a->core.link[0].probe_at);
        probe_from(w, later ? 6 : 4);
        uint64_t now = w->now;
        wire_deliver(w);
        tap_ok(
            a->core.link[0].probe_at == (later ? now + 1000 : now + 250) && a->core.n_rename == 0,
            later ? "whose data is later wins: we wait a second" : "whose data is earlier loses");
        wire_free(w);
    }
    struct wire *w = wire_new();
    struct node *a = node_add(w, "dair-1a2b", 7000, 5, 1);
    wire_run(w, a->core.link[0].probe_at);
    probe_from(w, 5);
    wire_deliver(w);
    tap_ok(a->core.link[0].n_probe == 1, "of equal beginnings the one with more records wins");
    wire_free(w);
}

static void claim_by(struct wire *w, const char *name, uint8_t last) {
    struct dns_writer o;
    struct dns_name host;
    const uint8_t addr[4] = {192, 0, 2, last};
    (void)dns_name(&host, name);
    dns_begin(&o, 0, DNS_RESPONSE | DNS_AA);
    (void)dns_put_record(&o, DNS_ANSWER, &host, DNS_A, true, 120, addr, 4);
    wire_inject(w, 9, MDNS_PORT, true, &o);
}

static void test_defence(void) {
    struct wire *w = wire_new();
    struct node *a = node_add(w, "dair-1a2b", 7000, 5, 1);
    wire_run(w, 5000);
    w->n_seen = 0;
    claim_by(w, "dair-1a2b.local", 5);
    claim_by(w, "dair-1a2c.local", 77);
    wire_deliver(w);
    tap_ok(w->n_seen == 2 && !a->core.counts.conflicts,
           "the same data or another name is no conflict");
    w->n_seen = 0;
    claim_by(w, "Dair-1A2B.local", 77);
    wire_deliver(w);
    tap_ok(a->core.counts.conflicts == 1 && w->n_seen == 2 &&
               has(&w->seen[1], DNS_ANSWER, "dair-1a2b.local", DNS_A),
           "other data: we say at once that it is ours");
    w->n_seen = 0;
    claim_by(w, "dair-1a2b.local", 77);
    wire_deliver(w);
    wire_run(w, w->now + 300);
    tap_ok(a->core.link[0].proof == PROOF_PROBING && w->n_seen >= 2 &&
               w->seen[1].n_count[DNS_AUTHORITY],
           "again within 10 s: we probe anew");
    wire_run(w, w->now + 3000);
    tap_ok(a->core.link[0].proof == PROOF_HELD && a->core.n_rename == 0,
           "and keep it when no one answers");
    w->n_seen = 0;
    probe_from(w, 77);
    wire_deliver(w);
    tap_ok(w->n_seen == 2 && w->seen[1].at == w->seen[0].at && w->seen[1].is_response &&
               has(&w->seen[1], DNS_ANSWER, "dair-1a2b.local", DNS_A),
           "a probe is answered at once");
    wire_run(w, w->now + 200);
    w->n_seen = 0;
    probe_from(w, 77);
    wire_deliver(w);
    bool unicast = w->n_seen == 2 && w->seen[1].is_unicast;
    wire_run(w, w->now + 60);
    w->n_seen = 0;
    probe_from(w, 77);
    wire_deliver(w);
    tap_ok(unicast && w->n_seen == 2 && !w->seen[1].is_unicast,
           "to all not more often than each 250 ms, else to the asker");
    wire_free(w);
}

/* Whatever it calls itself, someone has that name already. */
static void test_rename_limit(void) {
    struct wire *w = wire_new();
    struct node *a = node_add(w, "dair-1a2b", 7000, 5, 1);
    uint64_t at[40] = {0};
    uint32_t n = 0;
    while (n < 20 && w->now < 200000) {
        char name[MDNS_NAME + 8];
        wire_run(w, a->core.link[0].probe_at);
        if (a->core.link[0].n_probe) {
            snprintf(name, sizeof name, "%s.local", a->core.label);
            claim_by(w, name, 77);
            wire_deliver(w);
            at[n++] = w->now;
        }
    }
    tap_ok(n == 20 && at[14] - at[0] < 10000, "15 conflicts within %llu ms are taken quickly",
           (unsigned long long)(at[14] - at[0]));
    bool slow = true;
    for (uint32_t i = 16; i < n; i++) slow = slow && at[i] - at[i - 1] >= 5000;
    tap_ok(slow, "after that 5 s pass before each attempt");
    tap_ok(strcmp(a->core.label, "dair-1a2b-21") == 0 && !a->n_name,
           "%s is not told before it is held", a->core.label);
    wire_run(w, w->now + 7000);
    tap_ok(a->n_name == 1 && strcmp(a->name, a->core.label) == 0, "then it is");
    wire_free(w);
    char longest[MDNS_NAME];
    memset(longest, 'x', sizeof longest - 1);
    longest[sizeof longest - 1] = 0;
    w = wire_new();
    a = node_add(w, longest, 7000, 5, 1);
    snprintf(longest, sizeof longest, "%s", a->core.label);
    wire_run(w, a->core.link[0].probe_at);
    char name[MDNS_NAME + 8];
    snprintf(name, sizeof name, "%s.local", longest);
    claim_by(w, name, 77);
    wire_deliver(w);
    tap_ok(strlen(a->core.label) == 63 && strcmp(a->core.label + 61, "-2") == 0,
           "a name of 63 letters is cut for its number");
    wire_free(w);
}

/* ---- answering */

struct question {
    const char *name;
    uint16_t type;
    bool top;
};

static void ask_with(struct wire *w, uint16_t port, bool is_multicast, uint16_t flags,
                     const struct question *q, int n, const struct dns_writer *known) {
    struct dns_writer o;
    struct dns_name name;
    dns_begin(&o, 0x1234, flags);
    for (int i = 0; i < n; i++) {
        (void)dns_name(&name, q[i].name);
        (void)dns_put_question(&o, &name, q[i].type, q[i].top);
    }
    if (known) {
        struct dns_reader r;
        struct dns_item it;
        (void)dns_read(&r, known->b, known->n);
        while (dns_next(&r, &it)) {
            (void)dns_put_record(&o, DNS_ANSWER, &it.name, it.type, false, it.ttl, it.data, it.len);
        }
    }
    w->n_seen = 0;
    wire_inject(w, 9, port, is_multicast, &o);
    wire_deliver(w);
}
#define ASK(w, port, mc, name, type, top)                                                          \
    ask_with(w, port, mc, 0, &(struct question){name, type, top}, 1, NULL)

static const char INSTANCE[] = "dair-1a2b._dair._tcp.local";
static const char TYPE[] = "_dair._tcp.local";
static const char HOST[] = "dair-1a2b.local";

static void known_ptr(struct dns_writer *o, uint32_t ttl) {
    struct dns_name type, inst;
    (void)dns_name(&type, TYPE);
    (void)dns_name(&inst, INSTANCE);
    dns_begin(o, 0, 0);
    (void)dns_put_record(o, DNS_ANSWER, &type, DNS_PTR, false, ttl, inst.b, inst.len);
    (void)dns_end(o);
}

/* All that is sent within a second after the question. */
static const struct seen *answer_to(struct wire *w) {
    uint64_t until = w->now + 1000;
    wire_run(w, until);
    for (uint32_t i = 1; i < w->n_seen; i++) {
        if (w->seen[i].is_response) return &w->seen[i];
    }
    return NULL;
}

static void quiet(struct wire *w) {
    wire_run(w, w->now + 2000);
}

static void test_answers(void) {
    struct wire *w = wire_new();
    node_add(w, "dair-1a2b", 7000, 5, 1);
    wire_run(w, 20000);
    ASK(w, MDNS_PORT, true, HOST, DNS_A, false);
    tap_ok(w->n_seen == 2 && w->seen[1].is_response && has(&w->seen[1], DNS_ANSWER, HOST, DNS_A) &&
               has(&w->seen[1], DNS_ADDITIONAL, HOST, DNS_AAAA) && w->seen[1].id == 0 &&
               w->seen[1].flags == (DNS_RESPONSE | DNS_AA) && !w->seen[1].n_count[DNS_QUESTION],
           "what is ours alone is answered at once");
    ASK(w, MDNS_PORT, true, HOST, DNS_A, false);
    const struct seen *s = answer_to(w);
    tap_ok(s && s->at - w->seen[0].at >= 1000, "and again not before a second is over");
    quiet(w);
    int quarter[4] = {0}, bad = 0;
    for (int i = 0; i < 400; i++) {
        ASK(w, MDNS_PORT, true, TYPE, DNS_PTR, false);
        uint64_t asked = w->seen[0].at;
        s = answer_to(w);
        uint64_t took = s ? s->at - asked : 0;
        if (took < 20 || took > 120) {
            bad++;
        } else {
            quarter[(took - 20) * 4 / 101]++;
        }
        wire_run(w, w->now + 200);
    }
    bool even = true;
    for (int i = 0; i < 4; i++) even = even && quarter[i] > 70 && quarter[i] < 130;
    tap_ok(!bad && even, "others may answer too: spread over 20 to 120 ms (%d %d %d %d of 400)",
           quarter[0], quarter[1], quarter[2], quarter[3]);
    quiet(w);
    ASK(w, MDNS_PORT, true, TYPE, DNS_PTR, false);
    s = answer_to(w);
    tap_ok(s && has(s, DNS_ADDITIONAL, INSTANCE, DNS_SRV) &&
               has(s, DNS_ADDITIONAL, INSTANCE, DNS_TXT) && has(s, DNS_ADDITIONAL, HOST, DNS_A),
           "with all that is needed next to it");
    quiet(w);
    wire_free(w);
}

static void test_negative(void) {
    struct wire *w = wire_new();
    node_add(w, "dair-1a2b", 7000, 5, 1);
    wire_run(w, 20000);
    ASK(w, MDNS_PORT, true, HOST, DNS_TXT, false);
    const struct seen *s = answer_to(w);
    const struct dns_item *it = s ? rec(s, HOST, DNS_NSEC) : NULL;
    tap_ok(it && it->len == 17 + 2 + 4 && memcmp(it->data + 17, "\0\4\x40\0\0\x08", 6) == 0,
           "there is no such record: NSEC names A and AAAA");
    ASK(w, MDNS_PORT, true, INSTANCE, DNS_A, false);
    s = answer_to(w);
    it = s ? rec(s, INSTANCE, DNS_NSEC) : NULL;
    tap_ok(it && memcmp(it->data + it->len - 7, "\0\5\0\0\x80\0\x40", 7) == 0, "or TXT and SRV");
    quiet(w);
    ASK(w, MDNS_PORT, true, INSTANCE, DNS_ANY, false);
    s = answer_to(w);
    tap_ok(s && s->n_count[DNS_ANSWER] == 2 && !rec(s, INSTANCE, DNS_NSEC), "ANY is all there is");
    ASK(w, MDNS_PORT, true, "dair-9999.local", DNS_A, false);
    bool other = answer_to(w) == NULL;
    ASK(w, MDNS_PORT, true, "_http._tcp.local", DNS_PTR, false);
    tap_ok(other && !answer_to(w), "no answer for names of others, nor for what is not served");
    quiet(w);
    ASK(w, MDNS_PORT, true, "_services._dns-sd._udp.local", DNS_PTR, false);
    s = answer_to(w);
    tap_ok(s && s->n_count[DNS_ANSWER] == 1, "the kinds of services, once each");
    ask_with(w, MDNS_PORT, true, DNS_RCODE, &(struct question){HOST, DNS_A, false}, 1, NULL);
    bool none = !answer_to(w);
    ask_with(w, MDNS_PORT, true, 0x2000, &(struct question){HOST, DNS_A, false}, 1, NULL);
    tap_ok(none && !answer_to(w), "an opcode or an error code: not looked at");
    wire_free(w);
}

static void test_known(void) {
    struct wire *w = wire_new();
    node_add(w, "dair-1a2b", 7000, 5, 1);
    wire_run(w, 20000);
    const struct question q = {TYPE, DNS_PTR, false}, none = {0};
    struct dns_writer known;
    known_ptr(&known, 2250);
    ask_with(w, MDNS_PORT, true, 0, &q, 1, &known);
    tap_ok(!answer_to(w), "known with half its time left: no answer");
    known_ptr(&known, 2249);
    ask_with(w, MDNS_PORT, true, 0, &q, 1, &known);
    tap_ok(answer_to(w), "with less: an answer");
    quiet(w);
    ask_with(w, MDNS_PORT, true, DNS_TC, &q, 1, NULL);
    uint64_t asked = w->now;
    const struct seen *s = answer_to(w);
    tap_ok(s && s->at - asked >= 400 && s->at - asked <= 500 + 120, "TC: after 400 to 500 ms (%d)",
           s ? (int)(s->at - asked) : 0);
    quiet(w);
    ask_with(w, MDNS_PORT, true, DNS_TC, &q, 1, NULL);
    wire_run(w, w->now + 100);
    known_ptr(&known, 4500);
    ask_with(w, MDNS_PORT, true, 0, &none, 0, &known);
    tap_ok(!answer_to(w), "unless the rest says that it is known");
    for (int i = 0; i < 2 * MDNS_HELD; i++) {
        ask_with(w, (uint16_t)MDNS_PORT, true, DNS_TC, &q, 1, NULL);
    }
    tap_ok(answer_to(w), "many with TC: none waits for ever");
    wire_free(w);
}

static void test_unicast(void) {
    struct wire *w = wire_new();
    node_add(w, "dair-1a2b", 7000, 5, 1);
    wire_run(w, 20000);
    ASK(w, MDNS_PORT, true, INSTANCE, DNS_SRV, true);
    const struct seen *s = w->n_seen > 1 ? &w->seen[1] : NULL;
    tap_ok(s && s->is_unicast && s->to.port == MDNS_PORT && s->to.b[3] == 9 &&
               rec(s, INSTANCE, DNS_SRV)->top,
           "QU: to the asker alone, as all heard it lately");
    wire_run(w, w->now + 40000);
    ASK(w, MDNS_PORT, true, INSTANCE, DNS_SRV, true);
    s = w->n_seen > 1 ? &w->seen[1] : NULL;
    tap_ok(s && !s->is_unicast, "to all when that is more than a quarter of its life ago");
    wire_run(w, w->now + 2000);
    ASK(w, MDNS_PORT, false, INSTANCE, DNS_SRV, false);
    s = w->n_seen > 1 ? &w->seen[1] : NULL;
    tap_ok(s && s->is_unicast, "a question to our address is answered to its sender's");
    ASK(w, 40000, true, HOST, DNS_A, false);
    s = w->n_seen > 1 ? &w->seen[1] : NULL;
    tap_ok(s && s->is_unicast && s->to.port == 40000 && s->id == 0x1234 &&
               has(s, DNS_QUESTION, HOST, DNS_A) && rec(s, HOST, DNS_A)->ttl == 10 &&
               !rec(s, HOST, DNS_A)->top,
           "a simple resolver: its id, its question, 10 s, no flush bit");
    struct question many[ECHO + 1];
    for (int i = 0; i <= ECHO; i++) many[i] = (struct question){HOST, DNS_A, false};
    ask_with(w, 40000, true, 0, many, ECHO + 1, NULL);
    tap_ok(!answer_to(w), "more than %d questions of such a one are not answered", ECHO);
    quiet(w);
    wire_run(w, w->now + 10000);
    uint32_t n = 0;
    for (int i = 0; i < 1000; i++) {
        ASK(w, 40000, true, HOST, DNS_A, false);
        n += w->n_seen - 1;
        if (i % 10 == 9) wire_run(w, w->now + 1);
    }
    tap_ok(n >= UNICAST_BURST && n <= UNICAST_BURST + 3, "1000 in 0.1 s: %u answers", n);
    wire_run(w, w->now + 10000);
    const struct mdns_end far = {.family = AF_INET, .b = {198, 51, 100, 1}, .port = 40000};
    struct dns_writer o;
    struct dns_name host;
    (void)dns_name(&host, HOST);
    dns_begin(&o, 1, 0);
    (void)dns_put_question(&o, &host, DNS_A, false);
    w->n_seen = 0;
    core_packet(&w->node[0].core, 0, &far, false, o.b, dns_end(&o), w->now);
    tap_ok(!w->n_seen, "nothing for those not on the link");
    struct node *a = &w->node[0];
    uint8_t big[DNS_READ_MAX] = {[2] = 0x84};
    const struct mdns_end near = wire_end(9, MDNS_PORT);
    wire_run(w, w->now + 10000);
    a->core.counts.malformed = 0;
    for (int i = 0; i < 1000; i++)
        core_packet(&a->core, 0, &near, true, big, sizeof big - 1, w->now);
    big[5] = 1;
    for (int i = 0; i < 1000; i++) core_packet(&a->core, 0, &near, true, big, DNS_HEADER, w->now);
    tap_ok(!a->core.counts.malformed, "more than 450 kB at once are not read");
    wire_run(w, w->now + 100);
    core_packet(&a->core, 0, &near, true, big, DNS_HEADER, w->now);
    tap_ok(a->core.counts.malformed == 1, "later ones are");
    wire_free(w);
}

int main(void) {
    test_claim();
    test_conflict();
    test_tie();
    test_defence();
    test_rename_limit();
    test_answers();
    test_negative();
    test_known();
    test_unicast();
    return tap_done();
}
