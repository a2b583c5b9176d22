/* Strangers' and peers' bytes, in the preamble, in a handshake of either role, changed on the way
 * between two honest ends, thrown into a live channel, and as plaintext of a peer that holds the key.
 * The first byte of an input says which. Sockets are memory and random numbers are counted, so that a
 * run depends on nothing but its input and the seeds in tests/corpus/chan lead through whole
 * handshakes; DAIR_SEEDS=FOLDER writes such seeds. */
#include "net/preamble.h"

#include <mbedtls/ecp.h>
#include <mbedtls/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static ssize_t mem_recv(int fd, void *p, size_t n, int flags);
static ssize_t mem_send(int fd, const void *p, size_t n, int flags);
static int mem_close(int fd);
static int fuzz_ssl_read(mbedtls_ssl_context *ssl, unsigned char *p, size_t n);

/* The channel itself, its system calls and its TLS in our hands. */
#define recv             mem_recv
#define send             mem_send
#define close            mem_close
#define mbedtls_ssl_read fuzz_ssl_read
#include "../src/net/chan.c"
#undef mbedtls_ssl_read
#undef close
#undef send
#undef recv

enum { PIPE = 1 << 17, FLIPS = 8 };

static void expect(bool ok) {
    if (!ok) abort();
}

/* --- the world: two ends, 0 the client, 1 the server; descriptors are their numbers --- */

static struct {
    uint8_t b[PIPE];
    size_t at, len;
    bool is_closed;
} to[2];  // towards each end

static uint64_t dice[2];  // of each end
static int turn;          // whose code runs

static struct {  // sent by an end and changed on the way
    int from;
    size_t at;
    uint8_t by;
} flip[FLIPS];
static unsigned n_flip;

static struct {  // plaintext in place of TLS
    bool is_on;
    const uint8_t *p;
    size_t n;
    uint8_t step;
} plain;

static void world_reset(void) {
    for (int i = 0; i < 2; i++) {
        to[i].at = to[i].len = 0;
        to[i].is_closed = false;
        dice[i] = 0x9E3779B97F4A7C15U + (uint64_t)i;
    }
    n_flip = 0;
    plain.is_on = false;
}

ssize_t getrandom(void *p, size_t n, unsigned flags) {
    uint8_t *b = p;
    (void)flags;
    for (size_t i = 0; i < n; i++) {
        uint64_t *x = &dice[turn];
        *x ^= *x << 13, *x ^= *x >> 7, *x ^= *x << 17;
        b[i] = (uint8_t)(*x >> 32);
    }
    return (ssize_t)n;
}

static ssize_t mem_recv(int fd, void *p, size_t n, int flags) {
    (void)flags;
    size_t have = to[fd].len - to[fd].at;
    if (!have) {
        errno = EAGAIN;
        return to[fd].is_closed ? 0 : -1;
    }
    if (n > have) n = have;
    memcpy(p, to[fd].b + to[fd].at, n);
    to[fd].at += n;
    return (ssize_t)n;
}

static ssize_t mem_send(int fd, const void *p, size_t n, int flags) {
    (void)flags;
    size_t room = PIPE - to[!fd].len;
    if (!room) {
        errno = EAGAIN;
        return -1;
    }
    if (n > room) n = room;
    memcpy(to[!fd].b + to[!fd].len, p, n);
    for (unsigned i = 0; i < n_flip; i++) {
        size_t at = flip[i].at;
        if (flip[i].from == fd && at >= to[!fd].len && at < to[!fd].len + n) {
            to[!fd].b[at] ^= flip[i].by;
        }
    }
    to[!fd].len += n;
    return (ssize_t)n;
}

static int mem_close(int fd) {
    to[!fd].is_closed = true;
    return 0;
}

static int fuzz_ssl_read(mbedtls_ssl_context *ssl, unsigned char *p, size_t n) {
    if (!plain.is_on) return mbedtls_ssl_read(ssl, p, n);
    if (!plain.n) return MBEDTLS_ERR_SSL_WANT_READ;
    if (n > plain.n) n = plain.n;
    if (n > plain.step) n = plain.step;
    memcpy(p, plain.p, n);
    plain.p += n;
    plain.n -= n;
    return (int)n;
}

/* --- the costly part of a handshake, which is the same nearly every time: remembered --- */

typedef int rng(void *ctx, unsigned char *p, size_t n);
typedef mbedtls_ecp_group group;
typedef mbedtls_ecp_point point;
int __real_mbedtls_ecp_mul(group *g, point *r, const mbedtls_mpi *m, const point *p, rng *f,
                           void *c);
int __wrap_mbedtls_ecp_mul(group *g, point *r, const mbedtls_mpi *m, const point *p, rng *f,
                           void *c);
int __wrap_mbedtls_ecp_mul_restartable(group *g, point *r, const mbedtls_mpi *m, const point *p,
                                       rng *f, void *c, mbedtls_ecp_restart_ctx *x);

enum { KNOWN = 64, WORD = 32 };

static struct { uint8_t m[WORD], p[WORD], r[WORD]; } known[KNOWN];
static unsigned n_known;

int __wrap_mbedtls_ecp_mul(group *g, point *r, const mbedtls_mpi *m, const point *p, rng *f,
                           void *c) {
    uint8_t mb[WORD], pb[WORD];
    expect(!mbedtls_mpi_write_binary(m, mb, WORD) &&
           !mbedtls_mpi_write_binary(&p->MBEDTLS_PRIVATE(X), pb, WORD));
    for (unsigned i = 0; i < n_known && i < KNOWN; i++) {
        if (memcmp(known[i].m, mb, WORD) != 0 || memcmp(known[i].p, pb, WORD) != 0) continue;
        expect(!mbedtls_mpi_lset(&r->MBEDTLS_PRIVATE(Y), 0));
        expect(!mbedtls_mpi_lset(&r->MBEDTLS_PRIVATE(Z), 1));
        return mbedtls_mpi_read_binary(&r->MBEDTLS_PRIVATE(X), known[i].r, WORD);
    }
    const uint64_t was[2] = {dice[0], dice[1]};
    int result = __real_mbedtls_ecp_mul(g, r, m, p, f, c);
    memcpy(dice, was, sizeof was);  // known or not, the numbers after it are the same
    if (result) return result;
    unsigned to_fill = n_known++ % KNOWN;
    memcpy(known[to_fill].m, mb, WORD);
    memcpy(known[to_fill].p, pb, WORD);
    expect(!mbedtls_mpi_write_binary(&r->MBEDTLS_PRIVATE(X), known[to_fill].r, WORD));
    return 0;
}

int __wrap_mbedtls_ecp_mul_restartable(group *g, point *r, const mbedtls_mpi *m, const point *p,
                                       rng *f, void *c, mbedtls_ecp_restart_ctx *x) {
    (void)x;
    return __wrap_mbedtls_ecp_mul(g, r, m, p, f, c);
}

/* --- ends --- */

static struct chan *end_open(int end) {
    struct chan_setup s = {.role = end ? CHAN_SERVER : CHAN_CLIENT,
                           .kind = CHAN_CONTROL,
                           .self = {{(uint8_t)(1 + end)}},
                           .peer = {{(uint8_t)(2 - end)}},
                           .self_instance = 1,
                           .peer_instance = 1,
                           .key = {{1, 2, 3}}};
    struct chan *c;
    struct err e;
    turn = end;
    expect(chan_open(&c, end, &s, &e));
    return c;
}

static enum chan_io shake(struct chan *c, int end) {
    struct err e = {0};
    turn = end;
    enum chan_io io = chan_handshake(c, &e);
    expect(io != CHAN_FAILED || (e.code && *e.text));
    return io;
}

/* Both ends until neither moves; true when both are done. */
static bool shake_both(struct chan *c[2]) {
    enum chan_io io[2] = {CHAN_AGAIN, CHAN_AGAIN};
    for (int i = 0; i < 8; i++) {
        if (io[i & 1] == CHAN_AGAIN) io[i & 1] = shake(c[i & 1], i & 1);
        if (io[i & 1] == CHAN_FAILED) return false;
    }
    return io[0] == CHAN_DONE && io[1] == CHAN_DONE;
}

/* --- what an input can be --- */

static void try_preamble(const uint8_t *data, size_t size) {
    uint8_t in[PREAMBLE_LEN] = {0}, back[PREAMBLE_LEN];
    struct preamble p;
    struct err e = {0};
    memcpy(in, data, size < sizeof in ? size : sizeof in);
    if (!preamble_read(&p, in, &e)) {
        expect(e.code == ERR_FORMAT || e.code == ERR_UNSUPPORTED);
        return;
    }
    preamble_write(back, &p);
    expect(!memcmp(in, back, sizeof in));
    struct keys k = {.has_key = true, .has_old = data[0] & 1, .print = 1, .old_print = 2};
    for (int is_client = 0; is_client < 2; is_client++) {
        bool is_old;
        const struct cluster_key *key = preamble_key(&k, &p, is_client, &is_old);
        expect(!key || key == &k.key || (k.has_old && key == &k.old));
    }
}

static void give(int end, const uint8_t *data, size_t size) {
    if (size > PIPE - to[end].len) size = PIPE - to[end].len;
    memcpy(to[end].b + to[end].len, data, size);
    to[end].len += size;
}

/* The bytes in two parts, then the end of the connection. */
static void try_handshake(int end, const uint8_t *data, size_t size) {
    struct chan *c = end_open(end);
    size_t half = size ? data[size - 1] * size / 256 : 0;
    enum chan_io io = shake(c, end);
    give(end, data, half);
    if (io == CHAN_AGAIN) io = shake(c, end);
    give(end, data + half, size - half);
    to[end].is_closed = true;
    if (io == CHAN_AGAIN) io = shake(c, end);
    if (io == CHAN_AGAIN) io = shake(c, end);
    expect(io != CHAN_AGAIN);
    chan_close(c);
}

/* A frame arrives as it was sent or not at all. */
static void try_changed(const uint8_t *data, size_t size) {
    struct chan *c[2] = {end_open(0), end_open(1)};
    static uint8_t text[300];
    for (; size >= 4 && n_flip < FLIPS; data += 4, size -= 4) {
        flip[n_flip].from = data[0] & 1;
        flip[n_flip].at = (size_t)data[1] << 8 | data[2];
        flip[n_flip++].by = data[3];
    }
    if (shake_both(c)) {
        struct iovec v = {text, sizeof text};
        struct err e = {0};
        const uint8_t *p;
        size_t len;
        for (int i = 0; i < 2; i++) {
            expect(chan_send(c[i], &v, 1, &e) == CHAN_DONE);
            enum chan_io io = chan_recv(c[!i], &p, &len, &e);
            expect(io != CHAN_DONE || (len == sizeof text && !memcmp(p, text, len)));
            if (io == CHAN_FAILED) break;
        }
    }
    chan_close(c[0]);
    chan_close(c[1]);
}

static void try_live(const uint8_t *data, size_t size) {
    struct chan *c[2] = {end_open(0), end_open(1)};
    struct err e = {0};
    const uint8_t *p;
    size_t len;
    expect(shake_both(c));
    int end = size ? data[0] & 1 : 0;
    give(end, data, size);
    expect(chan_recv(c[end], &p, &len, &e) != CHAN_DONE);
    chan_close(c[0]);
    chan_close(c[1]);
}

static uint32_t le32(const uint8_t *p) {
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/* One frame by chan_frame and chan_take, in pieces. */
static enum chan_io take_frame(struct chan *c, uint8_t *out, size_t *len, uint8_t piece,
                               struct err *e) {
    enum chan_io io = chan_frame(c, len, e);
    for (size_t at = 0; io == CHAN_DONE && at < *len;) {
        size_t n = piece + 1U < *len - at ? piece + 1U : *len - at, got;
        io = chan_take(c, out + at, n, &got, e);
        expect(got <= n && (io != CHAN_DONE || got == n));
        at += got;
    }
    return io;
}

/* Plaintext of a peer that holds the key: frames as the lengths say, or a refusal. */
static void try_plain(const uint8_t *data, size_t size) {
    static uint8_t out[1 << 16];
    if (size < 4) return;
    struct chan *c = end_open(0);
    struct err e = {0};
    const size_t limit = (size_t)data[0] * data[0];
    bool by_take = data[1] & 1;
    plain.is_on = true;
    plain.step = data[2] | 1;
    plain.p = data + 4;
    plain.n = size - 4;
    c->is_open = true;
    chan_limit(c, limit);
    for (size_t at = 4;;) {
        const uint8_t *p = out;
        size_t len = 0;
        enum chan_io io =
            by_take ? take_frame(c, out, &len, data[3], &e) : chan_recv(c, &p, &len, &e);
        size_t want = size - at >= 4 ? le32(data + at) : 0;
        if (io == CHAN_FAILED) expect(size - at >= 4 && want > limit && e.code == ERR_FORMAT);
        if (io == CHAN_AGAIN) expect(size - at < 4 || (want <= limit && want > size - at - 4));
        if (io != CHAN_DONE) break;
        expect(len == want && len <= limit && !memcmp(p, data + at + 4, len));
        at += 4 + len;
    }
    c->is_open = false;  // nothing to say farewell over
    chan_close(c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (!size) return 0;
    world_reset();
    switch (data[0] & 7) {
    case 0: try_preamble(data + 1, size - 1); break;
    case 1: try_handshake(1, data + 1, size - 1); break;
    case 2: try_handshake(0, data + 1, size - 1); break;
    case 3: try_changed(data + 1, size - 1); break;
    case 4: try_live(data + 1, size - 1); break;
    default: try_plain(data + 1, size - 1); break;
    }
    return 0;
}

/* --- seeds --- */

static void seed(const char *dir, const char *name, uint8_t kind, const void *p, size_t n) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "we");
    expect(f && fwrite(&kind, 1, 1, f) == 1 && fwrite(p, 1, n, f) == n && !fclose(f));
}

static void write_seeds(const char *dir) {
    static const uint8_t changes[] = {0, 0, 20, 1, 1, 0, 100, 128},
                         junk[] = {23, 3, 3, 0, 17, 1, 2};
    static const uint8_t frames[] = {20, 0, 3, 5, 3, 0, 0, 0,   'a', 'b', 'c', 0,
                                     0,  0, 0, 1, 0, 0, 0, 'd', 255, 255, 0,   0};
    uint8_t b[PREAMBLE_LEN], copy[sizeof frames];
    const struct preamble p = {
        .kind = CHAN_DATA, .epoch = 3, .id = {{1}}, .instance = 2, .print = 1, .old_print = 2};
    preamble_write(b, &p);
    seed(dir, "preamble", 0, b, sizeof b);
    world_reset();
    struct chan *c[2] = {end_open(0), end_open(1)};
    expect(shake_both(c));
    seed(dir, "client", 1, to[1].b, to[1].len);
    seed(dir, "server", 2, to[0].b, to[0].len);
    chan_close(c[0]);
    chan_close(c[1]);
    seed(dir, "changed", 3, changes, sizeof changes);
    seed(dir, "live", 4, junk, sizeof junk);
    seed(dir, "frames", 5, frames, sizeof frames);
    memcpy(copy, frames, sizeof frames);
    copy[1] = 1;
    seed(dir, "frames-taken", 5, copy, sizeof copy);
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    const char *dir = getenv("DAIR_SEEDS");
    struct err e;
    (void)argc;
    (void)argv;
    expect(chan_init(&e));
    if (dir) write_seeds(dir);
    return 0;
}
