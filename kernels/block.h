/* block.h - a block of 32 weights of one row, taken apart, and what the scalar kernels of all types
 * but Q4_0, Q8_0 and floats do with it. The functions are inlined where the type is known.
 */
#ifndef KERNELS_BLOCK_H
#define KERNELS_BLOCK_H

#include "fma.h"
#include "kernels.h"
#include "panel.h"

#include <string.h>

#define BLOCK_INLINE static inline __attribute__((always_inline))

/* Weight i = (d * sc[i / 16]) * q[i] - m * mn[i / 16]. */
struct block {
    float d, m;
    int sc[2], mn[2];
    int q[Q_BLOCK];
};

/* How a type adds a block to a row's sum. */
enum block_sum {
    SUM_WHOLE,   // one scale and minimum: times the sums of 32
    SUM_HALVES,  // two: folded into the sums of 16, as integers
};

/* put: block `at` (of weight_block() columns) of one row to its place in a group that was all zeros;
 * false when a scale is refused. */
BLOCK_INLINE bool relay_blocks(bool (*put)(void *group, size_t n_col, size_t row, size_t at,
                                           const void *file),
                               int type, void *dst, const void *src, size_t n_row, size_t n_col) {
    size_t n_block = n_col / weight_block(type), size = weight_row_bytes(type, weight_block(type));
    const char *file = src;
    bool ok = true;
    memset(dst, 0, weight_group_bytes(type, n_col));
    for (size_t r = 0; r < n_row; r++) {
        for (size_t at = 0; at < n_block; at++, file += size) ok &= put(dst, n_col, r, at, file);
    }
    return ok;
}

/* read: block b (of 32) of a row in file order. */
BLOCK_INLINE void dequant_blocks(void (*read)(struct block *out, const void *row, size_t b),
                                 float *x, const void *src, size_t n_col) {
    for (size_t b = 0; b < n_col / Q_BLOCK; b++) {
        struct block k = {.d = 0};
        read(&k, src, b);
        for (size_t i = 0; i < Q_BLOCK; i++) {
            float scale = k.d * (float)k.sc[i / 16], min = k.m * (float)k.mn[i / 16];
            x[b * Q_BLOCK + i] = scale * (float)k.q[i] - min;
        }
    }
}

BLOCK_INLINE float add_block(enum block_sum how, const struct block *k, struct token_block x,
                             float acc) {
    int32_t dot[2] = {0}, sum[2] = {0};
    for (size_t i = 0; i < Q_BLOCK; i++) {
        int32_t q = (int32_t)x.q[i / 4 * x.step + i % 4];
        dot[i / 16] += k->q[i] * q;
        sum[i / 16] += q;
    }
    if (how == SUM_HALVES) {
        acc = k_fma(k->d * x.d, (float)(k->sc[0] * dot[0] + k->sc[1] * dot[1]), acc);
        if (k->m == 0) return acc;  // to add zero changes no bit
        return k_fma(-(k->m * x.d), (float)(k->mn[0] * sum[0] + k->mn[1] * sum[1]), acc);
    }
    acc = k_fma(k->d * (float)k->sc[0] * x.d, (float)(dot[0] + dot[1]), acc);
    if (k->m == 0) return acc;
    return k_fma(-(k->m * (float)k->mn[0]), x.d * (float)(sum[0] + sum[1]), acc);
}

/* read: block b of a row of a group in kernel order. */
BLOCK_INLINE void matmul_blocks(void (*read)(struct block *out, const void *group, size_t n_col,
                                             size_t row, size_t b),
                                int type, enum block_sum how, float *y, size_t ldy, const void *w,
                                size_t n_group, size_t n_col, const void *x, size_t n_tok) {
    size_t n_block = n_col / Q_BLOCK, n_panel = (n_block + 3) / 4 * 4;
    size_t size = weight_group_bytes(type, n_col);
    for (size_t r = 0; r < n_group * ROW_GROUP; r++) {
        const void *group = (const char *)w + r / ROW_GROUP * size;
        for (size_t t = 0; t < n_tok; t++) y[t * ldy + r] = 0;
        for (size_t b = 0; b < n_block; b++) {
            struct block k = {.d = 0};
            read(&k, group, n_col, r % ROW_GROUP, b);
            for (size_t t = 0; t < n_tok; t++) {
                struct token_block tb = panel_block(x, n_panel, n_tok, t, b);
                y[t * ldy + r] = add_block(how, &k, tb, y[t * ldy + r]);
            }
        }
    }
}

/* Weight i of 16 bytes that hold weights i and 16 + i, in file order and in kernel order. */
BLOCK_INLINE int file_nibble(const uint8_t q[16], size_t i) {
    return i < 16 ? q[i] & 15 : q[i - 16] >> 4;
}

BLOCK_INLINE int kern_nibble(const uint8_t q[4][ROW_GROUP][4], size_t row, size_t i) {
    int v = q[i / 4 % 4][row][i % 4];
    return i < 16 ? v & 15 : v >> 4;
}

#endif
