#include "model/fingerprint.h"

#include "base/cursor.h"

#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

/* Odd constants: the binary fractions of the square roots of 2, 3, 5 and 7. */
static const uint64_t K1 = 0x6a09e667f3bcc909ULL, K2 = 0xbb67ae8584caa73bULL,
                      K3 = 0x3c6ef372fe94f82bULL, K4 = 0xa54ff53a5f1d36f1ULL;

static uint64_t rotate(uint64_t v, int n) {
    return v << n | v >> (64 - n);
}

static uint64_t load(const uint8_t *p) {  // little-endian on every machine
    uint64_t v = 0;
    for (int i = 0; i < 8; i++) v |= (uint64_t)p[i] << 8 * i;
    return v;
}

/* Every step is a bijection of (a, b) for given input, and of the input for given (a, b). */
static void take(struct hash *h, const uint8_t *p) {
    h->a = rotate((h->a ^ load(p)) * K1, 29) + h->b;
    h->b = rotate((h->b ^ load(p + 8)) * K2, 31) + h->a;
}

void hash_init(struct hash *h, uint64_t seed) {
    *h = (struct hash){.a = seed ^ K3, .b = rotate(seed, 32) ^ K4};
}

void hash_put(struct hash *h, const void *p, size_t n) {
    const uint8_t *in = p;
    size_t have = h->len % sizeof h->rest;
    h->len += n;
    if (have) {
        size_t more = sizeof h->rest - have < n ? sizeof h->rest - have : n;
        memcpy(h->rest + have, in, more);
        in += more, n -= more;
        if (have + more < sizeof h->rest) return;
        take(h, h->rest);
    }
    for (; n >= sizeof h->rest; in += sizeof h->rest, n -= sizeof h->rest) take(h, in);
    if (n) memcpy(h->rest, in, n);
}

static uint64_t mix(uint64_t v) {  // xor-shift and multiply until every bit has met every other
    v = (v ^ v >> 32) * K1;
    v = (v ^ v >> 29) * K2;
    return v ^ v >> 32;
}

uint64_t hash_end(const struct hash *h) {
    struct hash t = *h;
    size_t have = h->len % sizeof h->rest;
    memset(t.rest + have, 0, sizeof t.rest - have);
    take(&t, t.rest);
    return mix(mix(t.a ^ h->len) + rotate(mix(t.b), 17) * K3);
}

/* --- of a file --- */

uint64_t fingerprint_piece(uint64_t from, uint64_t len, unsigned i) {
    if (len <= FINGERPRINT_PIECE) return from;
    uint64_t room = len - FINGERPRINT_PIECE, last = FINGERPRINT_PIECES - 1;
    if (len <= (uint64_t)FINGERPRINT_PIECES * FINGERPRINT_PIECE) {
        uint64_t at = (uint64_t)i * FINGERPRINT_PIECE;
        return from + (at < room ? at : room);
    }
    return from + (room / last * i + room % last * i / last);  // room * i / last, and no overflow
}

static MUST hash_range(const struct fingerprint_of *f, struct hash *h, uint64_t off, uint64_t len,
                       uint8_t *window, struct err *e) {
    struct cursor c;
    uint8_t part[FINGERPRINT_PIECE];
    cursor_file(&c, f->fd, f->base + off, len, window);
    while (len) {
        size_t n = len < sizeof part ? (size_t)len : sizeof part;
        if (!cursor_bytes(&c, part, n)) return cursor_err(&c, "fingerprint", e);
        hash_put(h, part, n);
        len -= n;
    }
    return true;
}

MUST fingerprint_take(const struct fingerprint_of *f, uint8_t *window, uint64_t *out,
                      struct err *e) {
    struct hash h;
    uint64_t data = f->data < f->len ? f->len - f->data : 0;
    uint64_t piece = data < FINGERPRINT_PIECE ? data : FINGERPRINT_PIECE;
    const uint64_t n[3] = {f->meta, f->data, f->len};
    hash_init(&h, 1);  // the version of this recipe
    for (int i = 0; i < 3; i++) {
        uint8_t le[8];
        for (int b = 0; b < 8; b++) le[b] = (uint8_t)(n[i] >> 8 * b);
        hash_put(&h, le, sizeof le);
    }
    /* Ask for all pieces at once: a disk serves many small reads together faster than in turn. */
    for (unsigned i = 0; i < FINGERPRINT_PIECES; i++) {
        uint64_t at = f->base + fingerprint_piece(f->data, data, i);
        (void)posix_fadvise(f->fd, (off_t)at, (off_t)piece, POSIX_FADV_WILLNEED);
    }
    if (!hash_range(f, &h, 0, f->meta, window, e)) return false;
    for (unsigned i = 0; i < FINGERPRINT_PIECES; i++) {
        uint64_t at = fingerprint_piece(f->data, data, i);
        if (!hash_range(f, &h, at, piece, window, e)) return false;
        (void)posix_fadvise(f->fd, (off_t)(f->base + at), (off_t)piece, POSIX_FADV_DONTNEED);
    }
    *out = hash_end(&h);
    return true;
}
