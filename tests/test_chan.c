/* The secure channel over real sockets: frames of all sizes, exact figures, and every way in which
 * what comes is not what a holder of the key sent. */
#include "duo.h"
#include "tap.h"

#include <pthread.h>
#include <sys/epoll.h>
#include <sys/resource.h>

enum { BIG = 1 << 20, RECORD = 16383, EXTRA = 22, HEADER = 4 };

static uint8_t *pattern;  // [BIG]

static bool send_frame(struct duo *d, int from, const void *p, size_t n) {
    union {
        const void *from;
        void *base;
    } u = {p};
    struct iovec v[2] = {{u.base, n / 3}, {(uint8_t *)u.base + n / 3, n - n / 3}};
    return chan_send(d->c[from], v, 2, &d->e[from]) != CHAN_FAILED;
}

static uint64_t wire(uint64_t n) {
    n += HEADER;
    return n + (n + RECORD - 1) / RECORD * EXTRA;
}

static bool gets(struct duo *d, int to, size_t n) {
    const uint8_t *p;
    size_t len;
    return duo_recv(d, to, &p, &len) == CHAN_DONE && len == n && !memcmp(p, pattern, n);
}

static bool refuses(struct duo *d, int to, enum err_code code) {
    const uint8_t *p;
    size_t len;
    enum chan_io io = duo_recv(d, to, &p, &len);
    if (io == CHAN_FAILED && d->e[to].code == code) return true;
    printf("# end %d: %d, code %d %s\n", to, (int)io, d->e[to].code, d->e[to].text);
    return false;
}

static void check_handshake(void) {
    struct duo d;
    enum { N = 50 };
    bool ok = true;
    double least = 1;
    for (int i = 0; i < N; i++) {
        double start = clock_s();
        ok = ok && duo_ready(&d, false);
        if (clock_s() - start < least) least = clock_s() - start;
        duo_close(&d);
    }
    tap_ok(ok, "%d handshakes, the fastest %.2f ms for both sides", N, least * 1e3);
    ok = duo_ready(&d, true);
    tap_ok(ok, "one through a relay: client sends %u bytes, server %u", (unsigned)d.way[0].n,
           (unsigned)d.way[1].n);
    duo_close(&d);
}

/* By chan_recv, and by chan_frame and chan_take in pieces. */
static bool round_trip(struct duo *d, int from, size_t n) {
    static uint8_t to[BIG];
    if (!send_frame(d, from, pattern, n) || !gets(d, !from, n)) return false;
    if (!send_frame(d, from, pattern, n)) return false;
    uint64_t end = clock_ns() + 1000000000U;
    size_t len = SIZE_MAX, at = 0;
    while (len == SIZE_MAX || at < len) {
        enum chan_io io;
        size_t got = 0, want = (at * 7 + 1000) % 5003 + 1;
        if (len == SIZE_MAX) {
            io = chan_frame(d->c[!from], &len, &d->e[!from]);
            if (io == CHAN_DONE && len != n) return false;
        } else {
            if (want > len - at) want = len - at;
            io = chan_take(d->c[!from], to + at, want, &got, &d->e[!from]);
            at += got;
            if (io == CHAN_DONE && got != want) return false;
        }
        if (io == CHAN_FAILED || clock_ns() > end) return false;
        duo_pump(d);
        if (io == CHAN_AGAIN && chan_flush(d->c[from], &d->e[from]) == CHAN_FAILED) return false;
    }
    return !memcmp(to, pattern, n);
}

static void check_sizes(void) {
    static const size_t size[] = {0,     1,     2,     3,     4350,  16378,  16379,  16380,   16383,
                                  16384, 32761, 32762, 32763, 65535, 100000, 262144, BIG - 1, BIG};
    enum { N = sizeof size / sizeof *size };
    struct duo d;
    struct chan_stats a, b;
    uint64_t payload = 0, wired = 0;
    if (!tap_ok(duo_ready(&d, true), "open")) return;
    chan_limit(d.c[0], BIG);
    chan_limit(d.c[1], BIG);
    uint64_t before = d.way[0].n;
    for (size_t i = 0; i < N; i++) {
        tap_ok(round_trip(&d, 0, size[i]) && round_trip(&d, 1, size[i]), "%zu bytes, both ways",
               size[i]);
        payload += 2 * size[i];
        wired += 2 * wire(size[i]);
    }
    chan_stats(d.c[0], &a);
    chan_stats(d.c[1], &b);
    tap_ok(a.sent_payload == payload && a.sent_wire == wired, "what was sent is counted");
    tap_ok(b.received_payload == payload && b.received_wire == wired, "and what came");
    tap_ok(b.sent_wire == wired && a.received_wire == wired, "the other way too");
    duo_pump(&d);
    tap_ok(d.way[0].n - before == wired, "the wire agrees: %u bytes", (unsigned)wired);
    tap_ok(a.crypt_ns == 0, "time is not taken unless asked for");
    duo_close(&d);
}

static void check_many(void) {
    enum { N = 20000 };
    struct duo d;
    unsigned sent = 0, got = 0, wrong = 0;
    if (!tap_ok(duo_ready(&d, false), "open")) return;
    uint64_t end = clock_ns() + 20000000000U;
    while (got < N && !wrong && clock_ns() < end) {
        const uint8_t *p;
        size_t len;
        for (int k = 0; k < 64 && sent < N; k++, sent++) {
            if (!send_frame(&d, 0, pattern + sent % 1000, sent % 300)) wrong++;
            if (chan_events(d.c[0]) & EPOLLOUT) k = 64;
        }
        while (chan_recv(d.c[1], &p, &len, &d.e[1]) == CHAN_DONE) {
            if (len != got % 300 || memcmp(p, pattern + got % 1000, len) != 0) wrong++;
            got++;
        }
        if (chan_flush(d.c[0], &d.e[0]) == CHAN_FAILED) wrong++;
    }
    tap_ok(got == N && !wrong, "%u of %d frames in order", got, (int)N);
    duo_close(&d);
}

/* A frame whose bytes come one by one, or stop anywhere. */
static void check_halves(void) {
    struct duo d;
    unsigned early = 0, failed = 0;
    if (!tap_ok(duo_ready(&d, true), "open")) return;
    enum { LEN = 100 };
    struct duo_way *w = &d.way[0];
    w->hold_from = w->n;
    if (!send_frame(&d, 0, pattern, LEN)) failed++;
    for (int i = 0; i < 100 && w->n_held < wire(LEN); i++) duo_wait(&d, 10), duo_pump(&d);
    for (size_t i = 0; i < w->n_held; i++) {
        const uint8_t *p;
        size_t len;
        enum chan_io io = chan_recv(d.c[1], &p, &len, &d.e[1]);
        early += io == CHAN_DONE;
        failed += io == CHAN_FAILED || send(d.relay[1], w->held + i, 1, MSG_NOSIGNAL) != 1;
    }
    tap_ok(w->n_held == wire(LEN) && !early && !failed, "byte by byte: nothing before the last");
    tap_ok(gets(&d, 1, LEN), "and then the frame");
    duo_close(&d);
    if (!tap_ok(duo_ready(&d, true), "open")) return;
    w->hold_from = w->n + 50;
    (void)!send_frame(&d, 0, pattern, LEN);
    for (int i = 0; i < 100 && !w->n_held; i++) duo_wait(&d, 10), duo_pump(&d);
    chan_close(d.c[0]);
    d.c[0] = NULL;
    w->hold_from = 0;
    tap_ok(refuses(&d, 1, ERR_IO), "the peer vanishes in mid-record: %s", d.e[1].text);
    duo_close(&d);
    if (!tap_ok(duo_ready(&d, true), "open")) return;
    w->hold_from = w->n + 2 * (RECORD + EXTRA);
    (void)!send_frame(&d, 0, pattern, 60000);
    for (int i = 0; i < 100 && !w->n_held; i++) duo_wait(&d, 10), duo_pump(&d);
    chan_close(d.c[0]);
    d.c[0] = NULL;
    tap_ok(refuses(&d, 1, ERR_IO) && strstr(d.e[1].text, "in the middle"), "in mid-frame: %s",
           d.e[1].text);
    duo_close(&d);
    if (!tap_ok(duo_ready(&d, false), "open")) return;
    (void)!send_frame(&d, 0, pattern, LEN);
    chan_close(d.c[0]);
    d.c[0] = NULL;
    tap_ok(gets(&d, 1, LEN) && refuses(&d, 1, ERR_IO) && strstr(d.e[1].text, "between"),
           "after a frame: %s", d.e[1].text);
    tap_ok(refuses(&d, 1, ERR_IO), "and it stays so: %s", d.e[1].text);
    duo_close(&d);
}

static void check_strangers(void) {
    static const char *const what[] = {"another key",
                                       "another epoch",
                                       "another kind",
                                       "another client id",
                                       "another client instance",
                                       "another server id",
                                       "another server instance"};
    for (unsigned i = 0; i < sizeof what / sizeof *what; i++) {
        struct duo d;
        struct chan_setup s[2];
        duo_setups(s);
        switch (i) {
        case 0: s[0].key.b[KEY_LEN - 1] ^= 1; break;
        case 1: s[0].epoch++; break;
        case 2: s[0].kind = CHAN_DATA; break;
        case 3: s[0].self.b[ID_LEN - 1] ^= 1; break;
        case 4: s[0].self_instance ^= 1ULL << 63; break;
        case 5: s[0].peer.b[0] ^= 128; break;
        default: s[0].peer_instance++; break;
        }
        bool ok = duo_open(&d, s, false) && !duo_handshake(&d);
        tap_ok(ok && d.io[0] == CHAN_FAILED && d.io[1] == CHAN_FAILED && d.e[0].code == ERR_USAGE &&
                   d.e[1].code == ERR_USAGE,
               "%s: %s / %s", what[i], d.e[0].text, d.e[1].text);
        duo_close(&d);
    }
    for (int role = 0; role < 2; role++) {
        struct duo d;
        struct chan_setup s[2];
        duo_setups(s);
        s[0].role = s[1].role = role ? CHAN_CLIENT : CHAN_SERVER;
        bool ok = duo_open(&d, s, false);
        tap_ok(ok && !duo_handshake(&d), "two %s: no channel", role ? "clients" : "servers");
        duo_close(&d);
    }
}

/* Where the n-th byte of a recorded stream of records is one of the version's, which TLS ignores. */
static bool is_version(const uint8_t *kept, uint64_t total, uint64_t n) {
    for (uint64_t at = 0; at + 5 <= total; at += 5U + (kept[at + 3] << 8 | kept[at + 4])) {
        if (n == at + 1 || n == at + 2) return true;
    }
    return false;
}

static void check_tampered(void) {
    struct duo clean, d;
    struct chan_setup s[2];
    duo_setups(s);
    if (!tap_ok(duo_ready(&clean, true), "open")) return;
    for (int from = 0; from < 2; from++) {
        unsigned tried = 0, through = 0, hung = 0;
        for (uint64_t at = 0; at < clean.way[from].n; at += at < 16 ? 1 : 5) {
            bool ok = duo_open(&d, s, true);
            d.way[from].flip_at = at + 1;
            d.way[from].flip = (uint8_t)(1U << (at % 8));
            ok = ok && duo_handshake(&d);
            /* The client is done first: what the server then refuses it learns by the close. */
            bool is_hung = !ok && d.io[0] == CHAN_AGAIN && d.io[1] == CHAN_AGAIN;
            tried++;
            if (ok && !is_version(clean.way[from].kept, clean.way[from].n, at)) through++;
            /* A length that was made longer waits for bytes that never come: the gate's deadline. */
            hung += is_hung;
            duo_close(&d);
        }
        tap_ok(tried > 20 && !through && hung < tried / 4,
               "%u changes in the %s's part of a handshake: %u pass, %u wait for more", tried,
               from ? "server" : "client", through, hung);
    }
    duo_close(&clean);
    unsigned bad = 0, n = 0;
    for (unsigned at = 1; at <= wire(40); at += 3, n++) {
        bool ok = duo_ready(&d, true);
        d.way[0].flip_at = d.way[0].n + at;
        d.way[0].flip = at == 4 ? 0x80 : 1;
        ok = ok && send_frame(&d, 0, pattern, 40);
        const uint8_t *p;
        size_t len;
        ok = ok && duo_recv(&d, 1, &p, &len) == CHAN_FAILED && d.e[1].code == ERR_FORMAT;
        if (!ok) bad++, printf("# byte %u: %s\n", at, d.e[1].text);
        duo_close(&d);
    }
    tap_ok(!bad && n > 20, "%u changes in a frame, each refused (%u not)", n, bad);
}

static void check_replay(void) {
    struct duo d, fresh;
    if (!tap_ok(duo_ready(&d, true) && send_frame(&d, 0, pattern, 500) && gets(&d, 1, 500),
                "a stream is recorded")) {
        return;
    }
    int fd[2];
    struct chan_setup s[2];
    struct err e = {0};
    duo_setups(s);
    fresh = (struct duo){.relay = {-1, -1}};
    bool ok = duo_tcp(fd) && chan_open(&fresh.c[1], fd[1], &s[1], &e) &&
              send(fd[0], d.way[0].kept, (size_t)d.way[0].n, 0) == (ssize_t)d.way[0].n;
    enum chan_io io = CHAN_AGAIN;
    for (int i = 0; i < 100 && ok && io == CHAN_AGAIN; i++) {
        io = chan_handshake(fresh.c[1], &e);
        duo_wait(&fresh, 10);
    }
    tap_ok(ok && io == CHAN_FAILED, "replayed to another run of the same server: %s", e.text);
    close(fd[0]);
    duo_close(&fresh);
    /* The last frame once more, and the one before last left out, in the live stream. */
    size_t n = (size_t)wire(500);
    ok = send(d.relay[1], d.way[0].kept + d.way[0].n - n, n, MSG_NOSIGNAL) == (ssize_t)n;
    tap_ok(ok && refuses(&d, 1, ERR_FORMAT), "a frame said twice: %s", d.e[1].text);
    duo_close(&d);
    if (!tap_ok(duo_ready(&d, true), "open")) return;
    d.way[0].hold_from = d.way[0].n;
    ok = send_frame(&d, 0, pattern, 500) && send_frame(&d, 0, pattern, 500);
    for (int i = 0; i < 100 && d.way[0].n_held < 2 * n; i++) duo_wait(&d, 10), duo_pump(&d);
    ok = ok && send(d.relay[1], d.way[0].held + n, n, MSG_NOSIGNAL) == (ssize_t)n;
    tap_ok(ok && refuses(&d, 1, ERR_FORMAT), "a frame left out: %s", d.e[1].text);
    duo_close(&d);
    if (!tap_ok(duo_ready(&d, true), "open")) return;
    ok = send_frame(&d, 0, pattern, 500) && gets(&d, 1, 500);
    ok = ok && send(d.relay[0], d.way[0].kept + d.way[0].n - n, n, MSG_NOSIGNAL) == (ssize_t)n;
    tap_ok(ok && refuses(&d, 0, ERR_FORMAT), "a frame reflected: %s", d.e[0].text);
    duo_close(&d);
}

static void check_limits(void) {
    struct duo d;
    if (!tap_ok(duo_ready(&d, false), "open")) return;
    chan_limit(d.c[0], 2000);
    chan_limit(d.c[1], 1000);
    tap_ok(send_frame(&d, 0, pattern, 1000) && gets(&d, 1, 1000), "a frame of the limit");
    tap_ok(send_frame(&d, 0, pattern, 1001) && refuses(&d, 1, ERR_FORMAT), "one byte more: %s",
           d.e[1].text);
    tap_ok(!send_frame(&d, 0, pattern, 2001) && d.e[0].code == ERR_LIMIT, "and at home: %s",
           d.e[0].text);
    duo_close(&d);
    /* A peer that takes nothing. */
    enum { LEN = 100000 };
    if (!tap_ok(duo_ready(&d, false), "open")) return;
    int small = 4096;
    setsockopt(chan_fd(d.c[0]), SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
    chan_limit(d.c[0], LEN);
    chan_limit(d.c[1], LEN);
    unsigned sent = 0;
    while (sent < 1000 && send_frame(&d, 0, pattern, LEN)) sent++;
    tap_ok(sent > 1 && sent < 1000 && d.e[0].code == ERR_LIMIT, "after %u frames: %s", sent,
           d.e[0].text);
    duo_close(&d);
}

static void check_partial(void) {
    enum { LEN = 60000, N = 200 };
    struct duo d;
    unsigned sent = 0, got = 0, waited = 0, bad = 0;
    if (!tap_ok(duo_ready(&d, false), "open")) return;
    int small = 4096;
    setsockopt(chan_fd(d.c[0]), SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
    chan_limit(d.c[0], LEN);
    chan_limit(d.c[1], LEN);
    uint64_t end = clock_ns() + 20000000000U;
    while (got < N && !bad && clock_ns() < end) {
        const uint8_t *p;
        size_t len;
        if (sent < N && !(chan_events(d.c[0]) & EPOLLOUT)) {
            bad += !send_frame(&d, 0, pattern, LEN - sent);
            sent++;
            waited += (chan_events(d.c[0]) & EPOLLOUT) != 0;
            if (!waited) continue;  // nobody reads before the socket is full
        }
        bad += chan_flush(d.c[0], &d.e[0]) == CHAN_FAILED;
        enum chan_io io = chan_recv(d.c[1], &p, &len, &d.e[1]);
        bad += io == CHAN_FAILED;
        if (io != CHAN_DONE) continue;
        bad += len != LEN - got || memcmp(p, pattern, len) != 0;
        got++;
    }
    tap_ok(got == N && !bad && waited, "%u frames of 60 kB through a buffer of 4 kB, %u kept", got,
           waited);
    duo_close(&d);
}

static void check_figures(void) {
    static const size_t size[] = {100, 4350, 16000, 65536};
    struct duo d;
    for (size_t i = 0; i < sizeof size / sizeof *size; i++) {
        enum { N = 400 };
        struct chan_stats a = {0}, b = {0}, was_a, was_b;
        uint64_t seal = UINT64_MAX, open = UINT64_MAX;
        bool ok = duo_ready(&d, false);
        if (!ok) break;
        chan_limit(d.c[0], size[i]);
        chan_limit(d.c[1], size[i]);
        chan_measure(d.c[0], true);
        chan_measure(d.c[1], true);
        uint64_t start = clock_ns();
        for (int k = 0; k < N && ok; k++) {
            was_a = a, was_b = b;
            ok = send_frame(&d, 0, pattern, size[i]) && gets(&d, 1, size[i]);
            chan_stats(d.c[0], &a);
            chan_stats(d.c[1], &b);
            if (a.crypt_ns - was_a.crypt_ns < seal) seal = a.crypt_ns - was_a.crypt_ns;
            if (b.crypt_ns - was_b.crypt_ns < open) open = b.crypt_ns - was_b.crypt_ns;
        }
        ok = ok && a.crypt_ns && b.crypt_ns && a.crypt_ns + b.crypt_ns < clock_ns() - start;
        tap_ok(ok, "%zu bytes: seal %.2f us (%.0f MB/s), open %.2f us (%.0f MB/s), %u bytes more",
               size[i], (double)seal / 1e3, (double)size[i] / (double)seal * 1e3,
               (double)open / 1e3, (double)size[i] / (double)open * 1e3,
               (unsigned)(wire(size[i]) - size[i]));
        duo_close(&d);
    }
}

/* Channels of different threads at the same time: the library's store of keys is one. */
static void *talk(void *ctx) {
    bool *ok = ctx;
    *ok = true;
    for (int i = 0; i < 10; i++) {
        struct duo d;
        *ok = *ok && duo_ready(&d, false);
        for (int k = 0; k < 100 && *ok; k++) {
            *ok = send_frame(&d, k & 1, pattern, 3000) && gets(&d, !(k & 1), 3000);
        }
        duo_close(&d);
    }
    return NULL;
}

static void check_threads(void) {
    enum { N = 4 };
    pthread_t t[N];
    bool ok[N] = {false};
    unsigned n = 0, good = 0;
    while (n < N && !pthread_create(&t[n], NULL, talk, &ok[n])) n++;
    for (unsigned i = 0; i < n; i++) pthread_join(t[i], NULL);
    for (unsigned i = 0; i < n; i++) good += ok[i];
    tap_ok(good == N, "%u of %d threads, each with channels of its own", good, (int)N);
}

static void check_memory(void) {
    enum { N = 40 };
    static struct duo d[N];
    /* What a first use takes once, an emulator's translation of the code included, is no channel's. */
    bool ok =
        duo_ready(&d[0], false) && send_frame(&d[0], 0, pattern, 4350) && gets(&d[0], 1, 4350);
    duo_close(&d[0]);
    long before = duo_rss_kib();
    for (int i = 0; i < N; i++) {
        ok = ok && duo_ready(&d[i], false) && send_frame(&d[i], 0, pattern, 4350) &&
             gets(&d[i], 1, 4350);
    }
    double each = (double)(duo_rss_kib() - before) / (2 * N);
    for (int i = 0; i < N; i++) duo_close(&d[i]);
    tap_ok(ok && (each < 80 || DUO_SANITIZED), "%d channels of one frame: %.0f KiB each", 2 * N,
           each);
}

int main(void) {
    struct err e = {0};
    pattern = malloc(BIG);
    if (!tap_ok(pattern && chan_init(&e), "begin %s", e.text)) return tap_done();
    for (size_t i = 0; i < BIG; i++) pattern[i] = (uint8_t)(i * 2654435761U >> 13);
    check_memory();
    check_handshake();
    check_sizes();
    check_many();
    check_halves();
    check_strangers();
    check_tampered();
    check_replay();
    check_limits();
    check_partial();
    check_figures();
    check_threads();
    free(pattern);
    return tap_done();
}
