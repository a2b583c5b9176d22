/* Gates of several nodes in one process: who gets in, who does not, and what strangers can do to
 * those who may. */
#include "base/log.h"
#include "duo.h"
#include "net/gate.h"
#include "net/preamble.h"
#include "tap.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

enum { CHANNELS = 8, FLOOD = 500, HANDSHAKES = 8 };

struct side {
    struct ident ident;
    struct keys keys;
    struct gate *gate;
    struct chan *chan[CHANNELS];
    struct gate_peer peer[CHANNELS];
    unsigned n, n_failed;
    uint64_t failed_tag;
    enum gate_end failed_how;
    struct err why;
};

static struct loop loop;

/* --- running the loop until something is so --- */

static bool (*wanted)(void);
static uint64_t give_up_ns;
static struct loop_timer ticker;

static void tick(struct loop_timer *t, uint64_t now_ns) {
    if (wanted() || now_ns > give_up_ns)
        loop_stop(&loop);
    else
        loop_at(&loop, t, now_ns + 1000000);
}

/* For what takes milliseconds: a machine may be busy with other things for seconds. */
enum { PATIENCE_MS = 20000 };

/* True when it came about within ms. */
static bool run_until(bool (*want)(void), unsigned ms) {
    struct err e;
    wanted = want;
    give_up_ns = clock_ns() + ms * 1000000ULL;
    ticker.fire = tick;
    loop_at(&loop, &ticker, 1);
    bool ok = loop_run(&loop, &e);
    atomic_store(&loop.is_stopped, false);
    return ok && want();
}

/* --- sides --- */

static void on_peer(void *ctx, struct chan *c, const struct gate_peer *p) {
    struct side *s = ctx;
    if (s->n == CHANNELS) {
        chan_close(c);
        return;
    }
    s->chan[s->n] = c;
    s->peer[s->n++] = *p;
}

static void on_failed(void *ctx, uint64_t tag, enum gate_end how, const struct err *why) {
    struct side *s = ctx;
    s->n_failed++;
    s->failed_tag = tag;
    s->failed_how = how;
    s->why = *why;
}

static bool side_open(struct side *s, uint8_t id, const char *key, const char *old,
                      const char *interface, uint16_t port) {
    struct err e = {0};
    *s = (struct side){.ident = {.id = {{id}}, .instance = 1000U + id}};
    struct gate_conf c = {.loop = &loop,
                          .self = &s->ident,
                          .keys = &s->keys,
                          .interface = interface,
                          .port = port,
                          .n_handshake = HANDSHAKES,
                          .on_peer = on_peer,
                          .on_failed = on_failed,
                          .ctx = s};
    if (keys_open(&s->keys, key, old, &e) && gate_open(&s->gate, &c, &e)) return true;
    s->why = e;
    return false;
}

static void hang_up(struct side *s) {
    for (unsigned i = 0; i < s->n; i++) chan_close(s->chan[i]);
    s->n = s->n_failed = 0;
}

static void side_close(struct side *s) {
    hang_up(s);
    gate_close(s->gate);
    s->gate = NULL;
}

static struct gate_counts counts(const struct side *s) {
    struct gate_counts c;
    gate_counts(s->gate, &c);
    return c;
}

static struct sockaddr_storage at(int family, uint16_t port) {
    union {
        struct sockaddr_storage all;
        struct sockaddr_in four;
        struct sockaddr_in6 six;
    } a = {{0}};
    if (family == AF_INET) {
        a.four.sin_family = AF_INET;
        a.four.sin_port = htons(port);
        a.four.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    } else {
        a.six.sin6_family = AF_INET6;
        a.six.sin6_port = htons(port);
        a.six.sin6_addr = in6addr_loopback;
    }
    return a.all;
}

static void dial(struct side *from, const struct side *to, enum chan_kind kind, uint64_t epoch,
                 uint64_t tag) {
    struct sockaddr_storage a = at(AF_INET, gate_port(to->gate));
    gate_dial(from->gate, &a, kind, epoch, tag);
}

/* A stranger's connection, from 127.0.0.`host`; -1: none. */
static int stranger_from(uint8_t host, uint16_t port, const void *bytes, size_t n) {
    union {
        struct sockaddr_storage all;
        struct sockaddr any;
        struct sockaddr_in in;
    } a = {at(AF_INET, port)}, from = {at(AF_INET, 0)};
    from.in.sin_addr.s_addr = htonl(INADDR_LOOPBACK - 1 + host);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return -1;
    if (!bind(fd, &from.any, sizeof from.in) && !connect(fd, &a.any, sizeof(struct sockaddr_in)) &&
        (!n || send(fd, bytes, n, MSG_NOSIGNAL) == (ssize_t)n)) {
        fcntl(fd, F_SETFL, O_NONBLOCK);
        return fd;
    }
    close(fd);
    return -1;
}

static int stranger(uint16_t port, const void *bytes, size_t n) {
    return stranger_from(1, port, bytes, n);
}

static struct side a, b;
static char key1[KEY_TEXT], key2[KEY_TEXT];

static bool both_have_one(void) {
    return a.n == 1 && b.n == 1;
}
static bool a_failed(void) {
    return a.n_failed;
}
static bool b_failed(void) {
    return b.n_failed;
}
static bool both_failed(void) {
    return a.n_failed && b.n_failed;
}

/* A frame each way over the channels at hand. */
static bool talks(void) {
    const uint8_t *p;
    size_t len;
    struct err e;
    char text[] = "hello";
    struct iovec v = {text, sizeof text};
    if (chan_send(a.chan[0], &v, 1, &e) != CHAN_DONE) return false;
    if (chan_send(b.chan[0], &v, 1, &e) != CHAN_DONE) return false;
    for (int i = 0; i < 2; i++) {
        struct chan *c = i ? a.chan[0] : b.chan[0];
        struct pollfd f = {.fd = chan_fd(c), .events = POLLIN};
        enum chan_io io;
        while ((io = chan_recv(c, &p, &len, &e)) == CHAN_AGAIN && poll(&f, 1, 1000) > 0) continue;
        if (io != CHAN_DONE || len != sizeof text || strcmp((const char *)p, text) != 0)
            return false;
    }
    return true;
}

static bool is_through(const struct side *s, const struct side *peer, bool dialled) {
    const struct gate_peer *p = &s->peer[0];
    return !ident_cmp(&p->id, &peer->ident.id) && p->instance == peer->ident.instance &&
           p->is_dialled == dialled && p->addr.ss_family == AF_INET;
}

static void check_in(void) {
    if (!tap_ok(side_open(&a, 1, key1, NULL, NULL, 0) && side_open(&b, 2, key1, NULL, NULL, 0),
                "two gates %s%s", a.why.text, b.why.text)) {
        return;
    }
    double start = clock_s();
    dial(&a, &b, CHAN_CONTROL, 0, 11);
    bool ok = run_until(both_have_one, PATIENCE_MS);
    tap_ok(ok && is_through(&a, &b, true) && is_through(&b, &a, false) && a.peer[0].tag == 11 &&
               !b.peer[0].tag && talks(),
           "the lower id dials: %.1f ms, and they talk", (clock_s() - start) * 1e3);
    hang_up(&a), hang_up(&b);
    dial(&b, &a, CHAN_DATA, 77, 12);
    ok = run_until(both_have_one, PATIENCE_MS);
    tap_ok(ok && is_through(&b, &a, true) && is_through(&a, &b, false) && talks(),
           "the higher id dials: the roles stay");
    tap_ok(a.peer[0].kind == CHAN_DATA && a.peer[0].epoch == 77 && b.peer[0].epoch == 77,
           "kind and epoch are told");
    hang_up(&a), hang_up(&b);
    struct sockaddr_storage six = at(AF_INET6, gate_port(b.gate));
    gate_dial(a.gate, &six, CHAN_CONTROL, 0, 13);
    (void)run_until(both_have_one, PATIENCE_MS);
    if (both_have_one())
        tap_ok(b.peer[0].addr.ss_family == AF_INET6 && talks(), "over IPv6");
    else
        tap_skip("no IPv6 here: %s", a.why.text);
    hang_up(&a), hang_up(&b);
    dial(&a, &a, CHAN_CONTROL, 0, 14);
    ok = run_until(a_failed, PATIENCE_MS);
    tap_ok(ok && a.failed_tag == 14 && a.failed_how == GATE_SELF && !a.n, "own connection: %s",
           a.why.text);
    hang_up(&a);
    int fd = stranger(0, NULL, 0);
    if (fd >= 0) close(fd);
    side_close(&b);
    struct sockaddr_storage nobody = at(AF_INET, 1);
    gate_dial(a.gate, &nobody, CHAN_CONTROL, 0, 15);
    tap_ok(!a.n_failed && run_until(a_failed, PATIENCE_MS) && a.failed_tag == 15,
           "nobody there: %s", a.why.text);
    hang_up(&a);
    tap_ok(side_open(&b, 1, key1, NULL, NULL, 0), "a gate with the same id");
    b.ident.instance = 5;
    dial(&a, &b, CHAN_CONTROL, 0, 16);
    tap_ok(run_until(both_have_one, PATIENCE_MS) && talks(),
           "same id, another instance: let through");
    hang_up(&a), hang_up(&b);
    side_close(&b);
    side_close(&a);
}

static void check_keys(void) {
    static const struct {
        bool a_new, a_old, b_new, b_old;  // which of key1 (new) and key2 (old) they hold
        bool is_old;
    } row[] = {{true, true, false, true, true},
               {true, true, true, true, false},
               {true, true, true, false, false},
               {false, true, true, true, true}};
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        const char *ak = row[i].a_new ? key1 : key2, *bk = row[i].b_new ? key1 : key2;
        bool ok = side_open(&a, 1, ak, row[i].a_new && row[i].a_old ? key2 : NULL, NULL, 0) &&
                  side_open(&b, 2, bk, row[i].b_new && row[i].b_old ? key2 : NULL, NULL, 0);
        dial(i & 1 ? &a : &b, i & 1 ? &b : &a, CHAN_CONTROL, 0, 1);
        tap_ok(ok && run_until(both_have_one, PATIENCE_MS) && talks() &&
                   a.peer[0].is_old_key == row[i].is_old && b.peer[0].is_old_key == row[i].is_old,
               "a key being changed, case %zu", i);
        side_close(&a), side_close(&b);
    }
    bool ok = side_open(&a, 1, key1, key2, NULL, 0) && side_open(&b, 2, key2, key1, NULL, 0);
    dial(&a, &b, CHAN_CONTROL, 0, 1);
    tap_ok(ok && run_until(both_have_one, PATIENCE_MS) && talks(),
           "changed in opposite directions");
    side_close(&a), side_close(&b);
}

static unsigned logged(const char *what) {
    static char line[LOG_KEPT][LOG_LINE];
    size_t n = log_recent(line, LOG_KEPT);
    unsigned found = 0;
    for (size_t i = 0; i < n; i++) found += strstr(line[i], what) != NULL;
    return found;
}

static void check_wrong_key(void) {
    enum { N = 200 };
    if (!tap_ok(side_open(&a, 1, key1, NULL, NULL, 0) && side_open(&b, 2, key2, NULL, NULL, 0),
                "two clusters")) {
        return;
    }
    unsigned before = logged("not of this cluster"), n = 0;
    double start = clock_s();
    for (unsigned i = 0; i < N; i++) {
        a.n_failed = 0;
        dial(&a, &b, CHAN_CONTROL, 0, i);
        n += run_until(a_failed, PATIENCE_MS) && a.why.code == ERR_USAGE && a.failed_tag == i;
    }
    tap_ok(n == N, "%u of %d refused, %.0f a second: %s", n, (int)N, N / (clock_s() - start),
           a.why.text);
    tap_ok(counts(&b).wrong_key == N && counts(&a).wrong_key == N && !counts(&b).proved && !b.n,
           "counted on both sides, without effect");
    tap_ok(logged("not of this cluster") - before == 2, "logged once by each");
    /* The fingerprint is public: who says another's gets as far as the handshake. */
    b.keys.print = a.keys.print;
    for (int i = 0; i < 2; i++) {
        a.n_failed = b.n_failed = 0;
        uint64_t counted = counts(&a).wrong_key + counts(&b).wrong_key;
        dial(i ? &a : &b, i ? &b : &a, CHAN_CONTROL, 0, 1);
        tap_ok(run_until(i ? a_failed : b_failed, PATIENCE_MS) && !a.n && !b.n &&
                   counts(&a).wrong_key + counts(&b).wrong_key > counted,
               "a borrowed fingerprint: %s", (i ? &a : &b)->why.text);
    }
    side_close(&b);
    tap_ok(side_open(&b, 2, NULL, NULL, NULL, 0), "a node without a key");
    a.n_failed = 0;
    dial(&b, &a, CHAN_CONTROL, 0, 1);
    dial(&a, &b, CHAN_CONTROL, 0, 1);
    tap_ok(run_until(both_failed, PATIENCE_MS) && !a.n && !b.n, "neither gets in: %s", a.why.text);
    side_close(&a), side_close(&b);
}

static uint64_t garbage_before;
static bool more_garbage(void) {
    return counts(&a).garbage > garbage_before;
}

static void check_garbage(void) {
    uint8_t good[PREAMBLE_LEN], bad[PREAMBLE_LEN + 1000] = {0};
    static const char http[] = "GET / HTTP/1.1\r\nHost: dair.local\r\nUser-Agent: a-browser-that-"
                               "came-to-the-wrong-port\r\n\r\n";
    if (!tap_ok(side_open(&a, 1, key1, NULL, NULL, 0), "a gate")) return;
    const struct preamble p = {
        .kind = CHAN_CONTROL, .id = {{2}}, .instance = 9, .print = a.keys.print};
    preamble_write(good, &p);
    for (int i = 0; i < 7; i++) {
        size_t n = PREAMBLE_LEN;
        memcpy(bad, good, sizeof good);
        switch (i) {
        case 0: memcpy(bad, http, n = sizeof http - 1); break;
        case 1: memset(bad, 0, n = sizeof bad); break;
        case 2: bad[0] ^= 1; break;
        case 3: bad[9] = 3; break;                   // kind
        case 4: bad[10] = 1; break;                  // spare
        case 5: memset(bad + 24, 0, ID_LEN); break;  // id
        default: memset(bad + 40, 0, 8); break;      // instance
        }
        garbage_before = counts(&a).garbage;
        int fd = stranger(gate_port(a.gate), bad, n);
        bool ok = fd >= 0 && run_until(more_garbage, PATIENCE_MS);
        uint8_t answer[100];
        ssize_t got = fd >= 0 ? recv(fd, answer, sizeof answer, 0) : -1;
        bool is_reset = got < 0 && errno == ECONNRESET;
        tap_ok(ok && (got == 0 || is_reset), "garbage %d: refused, %zd bytes in answer", i, got);
        if (fd >= 0) close(fd);
    }
    /* A right preamble, then no TLS. */
    memcpy(bad, good, sizeof good);
    memset(bad + PREAMBLE_LEN, 'x', 500);
    garbage_before = counts(&a).garbage;
    int fd = stranger(gate_port(a.gate), bad, PREAMBLE_LEN + 500);
    tap_ok(fd >= 0 && run_until(more_garbage, PATIENCE_MS),
           "a right preamble and then garbage: refused");
    if (fd >= 0) close(fd);
    tap_ok(counts(&a).garbage == 8 && !counts(&a).proved && logged("what no node sends") == 1,
           "all counted, one line in the log");
    side_close(&a);
}

/* A node of another version is told so, and tells its user. */
static bool has_other_version(void) {
    return counts(&a).other_version;
}

static void check_version(void) {
    uint8_t other[PREAMBLE_LEN], answer[100];
    struct err e = {0};
    struct preamble p = {.kind = CHAN_CONTROL, .id = {{2}}, .instance = 9};
    if (!tap_ok(side_open(&a, 1, key1, NULL, NULL, 0), "a gate")) return;
    p.print = a.keys.print;
    preamble_write(other, &p);
    other[8] = PROTOCOL_VERSION + 1;
    int fd = stranger(gate_port(a.gate), other, PREAMBLE_LEN);
    bool ok = fd >= 0 && run_until(has_other_version, PATIENCE_MS) && !counts(&a).garbage;
    ssize_t got = fd >= 0 ? recv(fd, answer, sizeof answer, 0) : -1;
    tap_ok(ok && got == PREAMBLE_LEN && preamble_read(&p, answer, &e) &&
               logged("another version of dair") == 1,
           "a node of another version is refused as such, and hears which version this is");
    if (fd >= 0) close(fd);
    side_close(&a);
}

static unsigned strangers;
static bool all_accepted(void) {
    return counts(&a).accepted >= strangers;
}

/* Half-open connections, silent or with a right preamble; then a peer that may come in. */
static void check_flood(bool has_preamble) {
    static int fd[FLOOD];
    uint8_t good[PREAMBLE_LEN];
    if (!tap_ok(side_open(&a, 1, key1, NULL, NULL, 0) && side_open(&b, 2, key1, NULL, NULL, 0),
                "two gates")) {
        return;
    }
    const struct preamble p = {
        .kind = CHAN_CONTROL, .id = {{200}}, .instance = 9, .print = a.keys.print};
    preamble_write(good, &p);
    long before = duo_rss_kib();
    unsigned n = 0;
    double start = clock_s();
    /* As many as the backlog at a time: beyond, connect() would wait for the loop of this thread. */
    for (unsigned i = 0; i < FLOOD; i++) {
        fd[i] = stranger(gate_port(a.gate), good, has_preamble ? sizeof good : 0);
        n += fd[i] >= 0;
        strangers = i + 1;
        if (i % 64 == 63 && i + 64 < FLOOD) (void)run_until(all_accepted, PATIENCE_MS);
    }
    double flooded = clock_s();
    dial(&b, &a, CHAN_CONTROL, 0, 1);
    bool ok = run_until(both_have_one, DUO_SANITIZED ? 4000 : 1000);
    double in = clock_s();
    strangers = FLOOD + 1;
    (void)run_until(all_accepted, PATIENCE_MS);
    struct gate_counts c = counts(&a);
    tap_ok(ok && n == FLOOD, "%s: %u connections in %.0f ms, the peer is in after %.0f ms",
           has_preamble ? "with a right preamble" : "silent", n, (flooded - start) * 1e3,
           (in - flooded) * 1e3);
    uint64_t gone = c.displaced + c.postponed + c.timed_out;
    tap_ok(c.accepted == FLOOD + 1 && gone >= FLOOD - GATE_PENDING,
           "%u displaced, %u postponed, %ld KiB of memory more", (unsigned)c.displaced,
           (unsigned)c.postponed, duo_rss_kib() - before);
    tap_ok(duo_rss_kib() - before < 100 * (HANDSHAKES + 2) || DUO_SANITIZED,
           "which is that of %d handshakes and two channels at most", (int)HANDSHAKES);
    tap_ok(talks(), "and they talk");
    for (unsigned i = 0; i < FLOOD; i++) {
        if (fd[i] >= 0) close(fd[i]);
    }
    side_close(&a), side_close(&b);
}

static bool is_one_postponed(void) {
    return counts(&a).postponed == 1;
}

/* Honest nodes that start at once may be one too many for a small one: they are no flood. */
static void check_crowd(void) {
    uint8_t good[PREAMBLE_LEN];
    int fd[HANDSHAKES + 1];
    if (!tap_ok(side_open(&a, 1, key1, NULL, NULL, 0), "a gate")) return;
    for (int i = 0; i <= HANDSHAKES; i++) {
        const struct preamble p = {.kind = CHAN_CONTROL,
                                   .id = {{(uint8_t)(200 + i)}},
                                   .instance = 9,
                                   .print = a.keys.print};
        preamble_write(good, &p);
        fd[i] = stranger_from((uint8_t)(10 + i), gate_port(a.gate), good, sizeof good);
    }
    bool ok = run_until(is_one_postponed, PATIENCE_MS);
    struct gate_counts c = counts(&a);
    tap_ok(ok && !c.displaced && !c.timed_out && !c.failed,
           "of %d nodes that come at once one is put off, and not called a flood", HANDSHAKES + 1);
    for (int i = 0; i <= HANDSHAKES; i++) close(fd[i]);
    side_close(&a);
}

/* More of them at every turn, as long as it takes. */
static int more[4 * FLOOD];
static unsigned n_more;
static uint8_t more_say[PREAMBLE_LEN];
static bool in_despite(void) {
    for (int i = 0; i < 16 && n_more < 4 * FLOOD && counts(&a).accepted + 64 > n_more; i++) {
        more[n_more++] = stranger_from(2, gate_port(a.gate), more_say, sizeof more_say);
    }
    return both_have_one();
}

/* A flood that does not end, of right preambles: who comes from elsewhere is not displaced. */
static void check_endless(void) {
    if (!tap_ok(side_open(&a, 1, key1, NULL, NULL, 0) && side_open(&b, 2, key1, NULL, NULL, 0),
                "two gates")) {
        return;
    }
    const struct preamble p = {
        .kind = CHAN_CONTROL, .id = {{200}}, .instance = 9, .print = a.keys.print};
    preamble_write(more_say, &p);
    n_more = 0;
    for (int i = 0; i < 20; i++) (void)in_despite();
    double start = clock_s();
    dial(&b, &a, CHAN_CONTROL, 0, 1);
    bool ok = run_until(in_despite, 3000);
    tap_ok(ok && talks(), "%u more from one address meanwhile, the peer is in after %.0f ms",
           n_more, (clock_s() - start) * 1e3);
    for (unsigned i = 0; i < n_more; i++) {
        if (more[i] >= 0) close(more[i]);
    }
    side_close(&a), side_close(&b);
}

static bool late(void) {
    return counts(&a).timed_out >= 3 && a.n_failed;
}

/* One that says nothing, one that stops in the preamble, one that stops in the handshake, and a dial
 * that nobody answers. */
static void check_deadline(void) {
    uint8_t good[PREAMBLE_LEN];
    if (!tap_ok(side_open(&a, 1, key1, NULL, NULL, 0) && side_open(&b, 2, key1, NULL, NULL, 0),
                "two gates")) {
        return;
    }
    const struct preamble p = {
        .kind = CHAN_CONTROL, .id = {{2}}, .instance = 9, .print = a.keys.print};
    preamble_write(good, &p);
    int mute = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    union {
        struct sockaddr_storage all;
        struct sockaddr any;
        struct sockaddr_in in;
    } m = {at(AF_INET, 0)};
    socklen_t len = sizeof m;
    bool ok =
        !bind(mute, &m.any, sizeof m.in) && !listen(mute, 1) && !getsockname(mute, &m.any, &len);
    double start = clock_s();
    gate_dial(a.gate, &m.all, CHAN_CONTROL, 0, 20);
    int fd[3] = {stranger(gate_port(a.gate), NULL, 0), stranger(gate_port(a.gate), good, 20),
                 stranger(gate_port(a.gate), good, PREAMBLE_LEN)};
    ok = ok && run_until(late, GATE_HANDSHAKE_MS * 2);
    double took = (clock_s() - start) * 1e3;
    tap_ok(ok && took >= GATE_HANDSHAKE_MS - 1, "all are dropped after %.0f ms: %s", took,
           a.why.text);
    tap_ok(counts(&a).timed_out == 4 && a.failed_tag == 20, "and counted");
    for (int i = 0; i < 3; i++) close(fd[i]);
    close(mute);
    /* Closing with work in hand. */
    dial(&a, &b, CHAN_CONTROL, 0, 1);
    dial(&b, &a, CHAN_CONTROL, 0, 1);
    side_close(&a), side_close(&b);
}

static bool never(void) {
    return false;
}

/* No descriptor left: the loop does not spin, and goes on when there are some again. */
static void check_full(void) {
    struct rlimit was, now;
    if (!tap_ok(side_open(&a, 1, key1, NULL, NULL, 0), "a gate")) return;
    int fd = stranger(gate_port(a.gate), NULL, 0);
    (void)getrlimit(RLIMIT_NOFILE, &was);
    now = (struct rlimit){(rlim_t)fd + 1, was.rlim_max};
    (void)setrlimit(RLIMIT_NOFILE, &now);
    struct rusage before, after;
    (void)getrusage(RUSAGE_SELF, &before);
    (void)run_until(never, 500);
    (void)getrusage(RUSAGE_SELF, &after);
    bool none = !counts(&a).accepted;
    long cpu_ms = (after.ru_utime.tv_sec - before.ru_utime.tv_sec) * 1000 +
                  (after.ru_utime.tv_usec - before.ru_utime.tv_usec) / 1000;
    (void)setrlimit(RLIMIT_NOFILE, &was);
    strangers = 1;
    tap_ok(fd >= 0 && none && run_until(all_accepted, PATIENCE_MS),
           "no descriptors left, then some again (%ld ms of CPU in 500)", cpu_ms);
    close(fd);
    side_close(&a);
}

static void check_listening(void) {
    if (!tap_ok(side_open(&a, 1, key1, NULL, NULL, 0), "a gate")) return;
    tap_ok(!side_open(&b, 2, key1, NULL, NULL, gate_port(a.gate)) && b.why.code == ERR_IO,
           "its port is taken: %s", b.why.text);
    side_close(&a);
    tap_ok(!side_open(&a, 1, key1, NULL, "nosuchif0", 0) && a.why.code == ERR_USAGE,
           "an interface that is not there: %s", a.why.text);
    if (!side_open(&a, 1, key1, NULL, "lo", 0)) {
        tap_skip("no loopback by its name: %s", a.why.text);
        return;
    }
    tap_ok(side_open(&b, 2, key1, NULL, NULL, 0), "one on lo alone, one on all");
    dial(&b, &a, CHAN_CONTROL, 0, 1);
    tap_ok(run_until(both_have_one, PATIENCE_MS) && talks(), "they meet");
    side_close(&a), side_close(&b);
}

int main(void) {
    struct err e = {0};
    struct rlimit files = {4096, 4096};
    (void)setrlimit(RLIMIT_NOFILE, &files);
    log_set(LOG_WARN, NULL);
    if (!tap_ok(chan_init(&e) && loop_open(&loop, NULL, NULL, &e) && key_make(key1, &e) &&
                    key_make(key2, &e),
                "begin %s", e.text)) {
        return tap_done();
    }
    check_in();
    check_keys();
    check_wrong_key();
    check_garbage();
    check_version();
    check_crowd();
    check_flood(false);
    check_flood(true);
    check_endless();
    check_full();
    check_listening();
    check_deadline();
    loop_close(&loop);
    return tap_done();
}
