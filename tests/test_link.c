/* A node's control channels beside a peer that holds the key and does not do what nodes do. */
#include "base/clock.h"
#include "base/log.h"
#include "cluster/cluster_state.h"
#include "tap.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>

enum { MUTE = MEMBER_MAX, MORE = 2, LEAST_S = 2, SURE_S = 4, MOST_S = 10 };

static struct loop loop;
static struct chan *chan[MUTE + MORE];
static unsigned n_chan;

static void on_peer(void *ctx, struct chan *c, const struct gate_peer *p) {
    (void)ctx, (void)p;
    chan[n_chan++] = c;
    loop_stop(&loop);
}

static void on_failed(void *ctx, uint64_t tag, enum gate_end how, const struct err *why) {
    (void)ctx, (void)tag, (void)how, (void)why;
    loop_stop(&loop);
}

static void on_epoch(void *ctx, struct epoch *e) {
    (void)ctx;
    epoch_release(e);
}
static void on_event(void *ctx) {
    (void)ctx;
}
static void on_beat(void *ctx, struct beat *b) {
    (void)ctx, (void)b;
}
static void on_message(void *ctx, const struct node_id *from, const struct msg *m) {
    (void)ctx, (void)from, (void)m;
}

/* A node by itself, without a model. */
static MUST node_open(struct cluster **out, struct ident *ident, const struct keys *keys,
                      uint16_t port, struct err *e) {
    const struct cluster_conf c = {.ident = ident,
                                   .keys = keys,
                                   .interface = "lo",
                                   .cluster_port = port,
                                   .n_handshake = 8,
                                   .facts = {.name = "node"},
                                   .wish = {.n_ctx = 64, .n_batch = 1, .n_seq = 1},
                                   .events = {.on_epoch = on_epoch,
                                              .on_change = on_event,
                                              .on_message = on_message,
                                              .on_beat = on_beat,
                                              .on_wake = on_event}};
    return cluster_open(out, &c, e);
}

/* Its thread does not run yet: the alerts are ours to give. Sentences end with the remedy, so they are kept
 * whole; and one that comes again pushes no other out. */
static void check_alerts(struct cluster *c) {
    struct status s;
    char line[1][LOG_LINE], text[STATUS_TEXT + 100];
    memset(text, 'x', sizeof text);
    memcpy(text + STATUS_TEXT - 9, "--memory", 9);
    cluster_alert(c, ALERT_OLD_KEY, "a short one");
    for (unsigned i = 0; i < STATUS_ALERTS; i++) cluster_alert(c, ALERT_TWIN, text);
    tap_ok(log_recent(line, 1) == 1 && strstr(line[0], "x--memory"),
           "a long alert is logged whole");
    text[STATUS_TEXT - 1] = 'x';
    text[sizeof text - 1] = '\0';
    cluster_alert(c, ALERT_TWIN, text);
    cluster_show(c);
    cluster_status(c, &s);
    tap_ok(s.n_alert == 2 && !strcmp(s.alert[0].text, "a short one") &&
               strlen(s.alert[1].text) == STATUS_TEXT - 1 && strstr(s.alert[1].text, "x--memory"),
           "and shown once, also where it has to be cut (%u alerts)", s.n_alert);
    tap_ok(s.alert[0].code == ALERT_OLD_KEY && s.alert[1].code == ALERT_TWIN,
           "each with what it is about");
}

/* As peer `id`: through the gate, and then not a word. */
static MUST dial(const struct keys *keys, uint8_t id, uint16_t port, struct err *e) {
    struct ident self = {.id = {{id, 1}}, .instance = 100U + id};
    const struct gate_conf c = {.loop = &loop,
                                .self = &self,
                                .keys = keys,
                                .interface = "lo",
                                .n_handshake = 8,
                                .on_peer = on_peer,
                                .on_failed = on_failed};
    union {
        struct sockaddr_storage all;
        struct sockaddr_in four;
    } a = {.four = {.sin_family = AF_INET,
                    .sin_port = htons(port),
                    .sin_addr = {htonl(INADDR_LOOPBACK)}}};
    struct gate *g;
    if (!gate_open(&g, &c, e)) return false;
    unsigned before = n_chan;
    gate_dial(g, &a.all, CHAN_CONTROL, 0, 1);
    bool ok = loop_run(&loop, e);
    atomic_store(&loop.is_stopped, false);
    gate_close(g);
    return ok && n_chan > before;
}

/* Reads what comes until the other side hangs up, `ms` at most. */
static bool is_closed(struct chan *c, uint64_t until_ns) {
    struct err e;
    const uint8_t *p;
    size_t len;
    for (;;) {
        enum chan_io io = chan_recv(c, &p, &len, &e);
        if (io == CHAN_FAILED) return true;
        uint64_t now = clock_ns();
        if (now >= until_ns) return false;
        if (io == CHAN_DONE) continue;
        struct pollfd f = {.fd = chan_fd(c), .events = POLLIN};
        (void)poll(&f, 1, (int)((until_ns - now) / 1000000 + 1));
    }
}

/* A port that was free a moment ago. */
static uint16_t free_port(const struct keys *keys, struct err *e) {
    struct ident self = {.id = {{1}}, .instance = 1};
    const struct gate_conf c = {
        .loop = &loop, .self = &self, .keys = keys, .interface = "lo", .n_handshake = 1};
    struct gate *g;
    uint16_t port = 0;
    if (gate_open(&g, &c, e)) port = gate_port(g), gate_close(g);
    return port;
}

static void check_mute(const struct keys *keys, uint16_t port) {
    struct err e = {0};
    double start = clock_s(), first = 0;
    unsigned n = 0;
    for (unsigned i = 0; i < MUTE; i++) n += dial(keys, (uint8_t)(10 + i), port, &e);
    if (!tap_ok(n == MUTE, "%u peers are through and say nothing %s", n, e.text)) return;
    if (clock_s() - start < SURE_S)
        tap_ok(dial(keys, 100, port, &e) && is_closed(chan[MUTE], clock_ns() + 1000000000),
               "one more is turned away: there is no place");
    else
        tap_skip("so many handshakes take as long as one may stay mute");
    uint64_t until = clock_ns() + (uint64_t)MOST_S * 1000000000;
    for (unsigned i = n = 0; i < MUTE; i++) {
        n += is_closed(chan[i], until);
        if (!i) first = clock_s() - start;
    }
    tap_ok(n == MUTE && first > LEAST_S, "%u are dropped, the first after %.1f s, all after %.1f s",
           n, first, clock_s() - start);
    tap_ok(dial(keys, 101, port, &e) && !is_closed(chan[MUTE + 1], clock_ns() + 500000000),
           "and one more has a place");
    for (unsigned i = 0; i < n_chan; i++) chan_close(chan[i]);
}

int main(void) {
    struct err e = {0};
    struct keys keys;
    struct ident ident = {.id = {{1}}, .instance = 7, .started_ns = clock_ns()};
    struct cluster *node = NULL;
    char key[KEY_TEXT];
    log_set(LOG_WARN, NULL);
    bool ok = chan_init(&e) && loop_open(&loop, NULL, NULL, &e) && key_make(key, &e) &&
              keys_open(&keys, key, NULL, &e);
    uint16_t port = ok ? free_port(&keys, &e) : 0;
    ok = port && node_open(&node, &ident, &keys, port, &e);
    if (tap_ok(ok, "a node %s", e.text)) check_alerts(node);
    ok = ok && cluster_start(node, &e);
    if (tap_ok(ok, "at work %s", e.text)) check_mute(&keys, port);
    cluster_stop(node);
    cluster_close(node);
    loop_close(&loop);
    return tap_done();
}
