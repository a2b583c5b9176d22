/* varint.h - numbers on the wire: LEB128, seven bits a byte, low ones first, as short as they can be;
 * and a writer that knows its room. Reading is base/cursor's. For the files of cluster only. */
#ifndef CLUSTER_VARINT_H
#define CLUSTER_VARINT_H

#include "base/cursor.h"

#include <string.h>

struct bytes {
    uint8_t *p;
    size_t cap, len;
    bool is_bad;  // it did not fit, or something may not be written: nothing of it counts
};

static inline void put_bytes(struct bytes *b, const void *p, size_t n) {
    if (b->is_bad || n > b->cap - b->len) {
        b->is_bad = true;
        return;
    }
    if (n) memcpy(b->p + b->len, p, n);
    b->len += n;
}

static inline void put_u8(struct bytes *b, uint8_t v) {
    put_bytes(b, &v, 1);
}

static inline void put_fixed(struct bytes *b, uint64_t v, size_t n) {
    for (size_t i = 0; i < n; i++) put_u8(b, (uint8_t)(v >> 8 * i));
}

static inline void put_var(struct bytes *b, uint64_t v) {
    for (; v >= 128; v >>= 7) put_u8(b, (uint8_t)(v | 128));
    put_u8(b, (uint8_t)v);
}

/* 0 with c->failed set: past the end, more than 64 bits, or longer than need be (a number has one
 * form only). */
static inline uint64_t take_var(struct cursor *c) {
    uint64_t v = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        uint8_t b = cursor_u8(c);
        if (c->failed) return 0;
        bool is_long = shift == 63 && b > 1, is_padded = shift && !b;
        if (is_long || is_padded) break;
        v |= (uint64_t)(b & 127) << shift;
        if (b < 128) return v;
    }
    c->failed = true;
    return 0;
}

/* A number of at most `most`, else the cursor fails. */
static inline uint64_t take_upto(struct cursor *c, uint64_t most) {
    uint64_t v = take_var(c);
    if (v > most) c->failed = true;
    return c->failed ? 0 : v;
}

#endif
