/* duo.h - two ends of a channel over loopback TCP in one thread, with or without a relay between
 * them that looks at the bytes, changes, holds or keeps them. */
#ifndef TESTS_DUO_H
#define TESTS_DUO_H

#include "base/clock.h"
#include "net/chan.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum { DUO_RECORDED = 1 << 20 };

/* Sanitizers keep freed memory and more: its size then tells nothing of the product. */
#ifdef __has_feature
#define DUO_CLANG_SANITIZES (__has_feature(address_sanitizer) || __has_feature(thread_sanitizer))
#else
#define DUO_CLANG_SANITIZES 0
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || DUO_CLANG_SANITIZES
enum { DUO_SANITIZED = 1 };
#else
enum { DUO_SANITIZED = 0 };
#endif

/* Memory of this process that is in RAM. */
static inline long duo_rss_kib(void) {
    long pages = 0;
    FILE *f = fopen("/proc/self/statm", "re");
    if (f && fscanf(f, "%*s %ld", &pages) != 1) pages = 0;
    if (f) fclose(f);
    return pages * (sysconf(_SC_PAGESIZE) / 1024);
}

struct duo_way {  // bytes from one end to the other, through the relay
    uint64_t n;
    uint64_t flip_at;  // counted from 1; 0: none
    uint8_t flip;
    uint64_t hold_from;  // bytes from here on stay in the relay; UINT64_MAX: none
    uint8_t *kept;       // [DUO_RECORDED] the first bytes that passed, or NULL
    uint8_t *held;       // what waits, [DUO_RECORDED]
    size_t n_held;
};

struct duo {
    struct chan *c[2];  // client, server
    int relay[2];       // the relay's sockets towards them, -1: none
    struct duo_way way[2];
    enum chan_io io[2];
    struct err e[2];
};

static inline bool duo_tcp(int fd[2]) {
    int l = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    union {
        struct sockaddr any;
        struct sockaddr_in in;
    } a = {.in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)}};
    socklen_t n = sizeof a;
    fd[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool ok = l >= 0 && fd[0] >= 0 && !bind(l, &a.any, sizeof a.in) && !listen(l, 1) &&
              !getsockname(l, &a.any, &n) && !connect(fd[0], &a.any, sizeof a.in);
    fd[1] = ok ? accept4(l, NULL, NULL, SOCK_CLOEXEC) : -1;
    if (l >= 0) close(l);
    for (int i = 0; i < 2 && fd[1] >= 0; i++) {
        setsockopt(fd[i], IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        fcntl(fd[i], F_SETFL, O_NONBLOCK);
    }
    return fd[1] >= 0;
}

/* The setups of both ends of one honest pair. */
static inline void duo_setups(struct chan_setup s[2]) {
    s[0] = (struct chan_setup){.role = CHAN_CLIENT,
                               .kind = CHAN_CONTROL,
                               .self = {{1, 2, 3}},
                               .peer = {{4, 5, 6}},
                               .self_instance = 7,
                               .peer_instance = 8,
                               .key = {{9, 10, 11}}};
    s[1] = s[0];
    s[1].role = CHAN_SERVER;
    s[1].self = s[0].peer, s[1].peer = s[0].self;
    s[1].self_instance = s[0].peer_instance, s[1].peer_instance = s[0].self_instance;
}

static inline bool duo_open(struct duo *d, const struct chan_setup s[2], bool has_relay) {
    int near[2], far[2];
    *d = (struct duo){.relay = {-1, -1}, .io = {CHAN_AGAIN, CHAN_AGAIN}};
    d->way[0].hold_from = d->way[1].hold_from = UINT64_MAX;
    if (!duo_tcp(near)) return false;
    int server = near[1];
    if (has_relay) {
        if (!duo_tcp(far)) return false;
        d->relay[0] = near[1], d->relay[1] = far[0];
        server = far[1];
        for (int i = 0; i < 2; i++) {
            d->way[i].kept = malloc(DUO_RECORDED);
            d->way[i].held = malloc(DUO_RECORDED);
        }
    }
    return chan_open(&d->c[0], near[0], &s[0], &d->e[0]) &&
           chan_open(&d->c[1], server, &s[1], &d->e[1]);
}

static inline void duo_close(struct duo *d) {
    for (int i = 0; i < 2; i++) {
        chan_close(d->c[i]);
        if (d->relay[i] >= 0) close(d->relay[i]);
        free(d->way[i].kept);
        free(d->way[i].held);
    }
    *d = (struct duo){.relay = {-1, -1}};
}

/* One way of the relay: what is there now. A side that is gone is closed for the other too. */
static inline void duo_pass(struct duo *d, int from) {
    static uint8_t b[1 << 16];
    struct duo_way *w = &d->way[from];
    ssize_t got;
    while ((got = recv(d->relay[from], b, sizeof b, MSG_DONTWAIT)) > 0) {
        size_t n = (size_t)got;
        if (w->flip_at > w->n && w->flip_at <= w->n + n) b[w->flip_at - 1 - w->n] ^= w->flip;
        for (size_t i = 0; i < n && w->n + i < DUO_RECORDED; i++) w->kept[w->n + i] = b[i];
        size_t pass = w->hold_from > w->n ? (size_t)(w->hold_from - w->n) : 0;
        if (pass > n) pass = n;
        for (size_t at = 0; at < pass;) {
            ssize_t put = send(d->relay[!from], b + at, pass - at, MSG_NOSIGNAL);
            if (put > 0)
                at += (size_t)put;
            else if (errno != EAGAIN)
                break;
        }
        for (size_t i = pass; i < n && w->n_held < DUO_RECORDED; i++) w->held[w->n_held++] = b[i];
        w->n += n;
    }
    if (got == 0) shutdown(d->relay[!from], SHUT_WR);
}

static inline void duo_pump(struct duo *d) {
    if (d->relay[0] < 0) return;
    duo_pass(d, 0);
    duo_pass(d, 1);
}

/* False when nothing came in that time. */
static inline bool duo_wait(const struct duo *d, int ms) {
    struct pollfd p[4];
    nfds_t n = 0;
    for (int i = 0; i < 2; i++) {
        if (d->c[i]) p[n++] = (struct pollfd){.fd = chan_fd(d->c[i]), .events = POLLIN};
        if (d->relay[i] >= 0) p[n++] = (struct pollfd){.fd = d->relay[i], .events = POLLIN};
    }
    return poll(p, n, ms) > 0;
}

/* Both ends of the handshake: true when both are done. Otherwise io and e say what came of each (both
 * CHAN_AGAIN: they wait for each other); an end that failed is closed, as its owner would. All is in
 * one thread, so nothing in the sockets for 60 ms is nothing for ever. */
static inline bool duo_handshake(struct duo *d) {
    uint64_t end = clock_ns() + 5000000000U;
    for (int idle = 0; idle < 3 && clock_ns() < end;) {
        for (int i = 0; i < 2; i++) {
            if (d->io[i] != CHAN_AGAIN) continue;
            d->io[i] = chan_handshake(d->c[i], &d->e[i]);
            if (d->io[i] != CHAN_FAILED) continue;
            chan_close(d->c[i]);
            d->c[i] = NULL;
        }
        duo_pump(d);
        if (d->io[0] != CHAN_AGAIN && d->io[1] != CHAN_AGAIN) break;
        idle = duo_wait(d, 20) ? 0 : idle + 1;
    }
    return d->io[0] == CHAN_DONE && d->io[1] == CHAN_DONE;
}

static inline bool duo_ready(struct duo *d, bool has_relay) {
    struct chan_setup s[2];
    duo_setups(s);
    return duo_open(d, s, has_relay) && duo_handshake(d);
}

/* The next frame that `to` gets, at most a second. */
static inline enum chan_io duo_recv(struct duo *d, int to, const uint8_t **p, size_t *len) {
    uint64_t end = clock_ns() + 1000000000U;
    for (;;) {
        enum chan_io io = chan_recv(d->c[to], p, len, &d->e[to]);
        if (io != CHAN_AGAIN || clock_ns() > end) return io;
        struct err e;
        if (d->c[!to]) (void)chan_flush(d->c[!to], &e);
        duo_pump(d);
        duo_wait(d, 2);
    }
}

#endif
