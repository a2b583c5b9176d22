/* scalar_q.c - the definition for quantised weights in blocks of 32: Q4_1, Q5_0, Q5_1, IQ4_NL, MXFP4.
 * As scalar.c: to be read.
 */
#include "block.h"
#include "f16.h"

/* Kernel order is filled. d and m: f16 scales of a block of a row, in file order. */
static bool put_scale(uint16_t *place, const uint8_t d[2]) {
    *place = load_u16(d);
    return f16_is_finite(*place);
}

static void put_words(uint8_t q[4][ROW_GROUP][4], size_t row, const uint8_t file[16]) {
    for (size_t c = 0; c < 4; c++) memcpy(q[c][row], &file[4 * c], 4);
}

/* Bit 4 of weight i: in file order, and in kernel order. */
static int file_high(const uint8_t h[4], size_t i) {
    return (h[i / 8] >> i % 8 & 1) << 4;
}

static int kern_high(const uint8_t h[4], size_t i) {
    return (h[i % 4] >> i / 4 & 1) << 4;
}

static void put_high(uint8_t h[4], const uint8_t file[4]) {
    for (size_t i = 0; i < Q_BLOCK; i++) {
        h[i % 4] |= (uint8_t)(file_high(file, i) >> 4 << i / 4);
    }
}

/* Q4_1: the minimum is not subtracted but added. */

static bool put_q4_1(void *group, size_t n_col, size_t row, size_t at, const void *file) {
    (void)n_col;
    struct kern_q4_1 *k = (struct kern_q4_1 *)group + at / 4;
    struct file_q4_1 f;
    memcpy(&f, file, sizeof f);
    put_words(k->q[at % 4], row, f.q);
    bool ok = put_scale(&k->d[at % 4][row], f.d);
    return put_scale(&k->m[at % 4][row], f.m) && ok;
}

static void file_q4_1(struct block *out, const void *row, size_t b) {
    struct file_q4_1 f;
    memcpy(&f, (const char *)row + b * sizeof f, sizeof f);
    out->d = f16_to_f32(load_u16(f.d));
    out->m = f16_to_f32(load_u16(f.m));
    out->sc[0] = out->sc[1] = 1;
    out->mn[0] = out->mn[1] = -1;
    for (size_t i = 0; i < Q_BLOCK; i++) out->q[i] = file_nibble(f.q, i);
}

static void kern_q4_1(struct block *out, const void *group, size_t n_col, size_t row, size_t b) {
    (void)n_col;
    const struct kern_q4_1 *k = (const struct kern_q4_1 *)group + b / 4;
    out->d = f16_to_f32(k->d[b % 4][row]);
    out->m = f16_to_f32(k->m[b % 4][row]);
    out->sc[0] = out->sc[1] = 1;
    out->mn[0] = out->mn[1] = -1;
    for (size_t i = 0; i < Q_BLOCK; i++) out->q[i] = kern_nibble(k->q[b % 4], row, i);
}

static bool relay_q4_1(void *dst, const void *src, size_t n_row, size_t n_col) {
    return relay_blocks(put_q4_1, W_Q4_1, dst, src, n_row, n_col);
}

static void dequant_q4_1(float *x, const void *src, size_t n_col) {
    dequant_blocks(file_q4_1, x, src, n_col);
}

static void matmul_q4_1(float *y, size_t ldy, const void *w, size_t n_group, size_t n_col,
                        const void *x, size_t n_tok) {
    matmul_blocks(kern_q4_1, W_Q4_1, SUM_WHOLE, y, ldy, w, n_group, n_col, x, n_tok);
}

/* Q5_0. */

static bool put_q5_0(void *group, size_t n_col, size_t row, size_t at, const void *file) {
    (void)n_col;
    struct kern_q5_0 *k = (struct kern_q5_0 *)group + at / 4;
    struct file_q5_0 f;
    memcpy(&f, file, sizeof f);
    put_words(k->q[at % 4], row, f.q);
    put_high(k->h[at % 4][row], f.h);
    return put_scale(&k->d[at % 4][row], f.d);
}

static void file_q5_0(struct block *out, const void *row, size_t b) {
    struct file_q5_0 f;
    memcpy(&f, (const char *)row + b * sizeof f, sizeof f);
    out->d = f16_to_f32(load_u16(f.d));
    out->sc[0] = out->sc[1] = 1;
    for (size_t i = 0; i < Q_BLOCK; i++) out->q[i] = (file_nibble(f.q, i) | file_high(f.h, i)) - 16;
}

static void kern_q5_0(struct block *out, const void *group, size_t n_col, size_t row, size_t b) {
    (void)n_col;
    const struct kern_q5_0 *k = (const struct kern_q5_0 *)group + b / 4;
    out->d = f16_to_f32(k->d[b % 4][row]);
    out->sc[0] = out->sc[1] = 1;
    for (size_t i = 0; i < Q_BLOCK; i++) {
        out->q[i] = (kern_nibble(k->q[b % 4], row, i) | kern_high(k->h[b % 4][row], i)) - 16;
    }
}

static bool relay_q5_0(void *dst, const void *src, size_t n_row, size_t n_col) {
    return relay_blocks(put_q5_0, W_Q5_0, dst, src, n_row, n_col);
}

static void dequant_q5_0(float *x, const void *src, size_t n_col) {
    dequant_blocks(file_q5_0, x, src, n_col);
}

static void matmul_q5_0(float *y, size_t ldy, const void *w, size_t n_group, size_t n_col,
                        const void *x, size_t n_tok) {
    matmul_blocks(kern_q5_0, W_Q5_0, SUM_WHOLE, y, ldy, w, n_group, n_col, x, n_tok);
}

/* Q5_1. */

static bool put_q5_1(void *group, size_t n_col, size_t row, size_t at, const void *file) {
    (void)n_col;
    struct kern_q5_1 *k = (struct kern_q5_1 *)group + at / 4;
    struct file_q5_1 f;
    memcpy(&f, file, sizeof f);
    put_words(k->q[at % 4], row, f.q);
    put_high(k->h[at % 4][row], f.h);
    bool ok = put_scale(&k->d[at % 4][row], f.d);
    return put_scale(&k->m[at % 4][row], f.m) && ok;
}

static void file_q5_1(struct block *out, const void *row, size_t b) {
    struct file_q5_1 f;
    memcpy(&f, (const char *)row + b * sizeof f, sizeof f);
    out->d = f16_to_f32(load_u16(f.d));
    out->m = f16_to_f32(load_u16(f.m));
    out->sc[0] = out->sc[1] = 1;
    out->mn[0] = out->mn[1] = -1;
    for (size_t i = 0; i < Q_BLOCK; i++) out->q[i] = file_nibble(f.q, i) | file_high(f.h, i);
}

static void kern_q5_1(struct block *out, const void *group, size_t n_col, size_t row, size_t b) {
    (void)n_col;
    const struct kern_q5_1 *k = (const struct kern_q5_1 *)group + b / 4;
    out->d = f16_to_f32(k->d[b % 4][row]);
    out->m = f16_to_f32(k->m[b % 4][row]);
    out->sc[0] = out->sc[1] = 1;
    out->mn[0] = out->mn[1] = -1;
    for (size_t i = 0; i < Q_BLOCK; i++) {
        out->q[i] = kern_nibble(k->q[b % 4], row, i) | kern_high(k->h[b % 4][row], i);
    }
}

static bool relay_q5_1(void *dst, const void *src, size_t n_row, size_t n_col) {
    return relay_blocks(put_q5_1, W_Q5_1, dst, src, n_row, n_col);
}

static void dequant_q5_1(float *x, const void *src, size_t n_col) {
    dequant_blocks(file_q5_1, x, src, n_col);
}

static void matmul_q5_1(float *y, size_t ldy, const void *w, size_t n_group, size_t n_col,
                        const void *x, size_t n_tok) {
    matmul_blocks(kern_q5_1, W_Q5_1, SUM_WHOLE, y, ldy, w, n_group, n_col, x, n_tok);
}

/* IQ4_NL: a nibble is an index. */

static bool put_iq4_nl(void *group, size_t n_col, size_t row, size_t at, const void *file) {
    (void)n_col;
    struct kern_q4_0 *k = (struct kern_q4_0 *)group + at / 4;
    struct file_q4_0 f;
    memcpy(&f, file, sizeof f);
    put_words(k->q[at % 4], row, f.q);
    return put_scale(&k->d[at % 4][row], f.d);
}

static void file_iq4_nl(struct block *out, const void *row, size_t b) {
    struct file_q4_0 f;
    memcpy(&f, (const char *)row + b * sizeof f, sizeof f);
    out->d = f16_to_f32(load_u16(f.d));
    out->sc[0] = out->sc[1] = 1;
    for (size_t i = 0; i < Q_BLOCK; i++) out->q[i] = (int)iq4_values[file_nibble(f.q, i)];
}

static void kern_iq4_nl(struct block *out, const void *group, size_t n_col, size_t row, size_t b) {
    (void)n_col;
    const struct kern_q4_0 *k = (const struct kern_q4_0 *)group + b / 4;
    out->d = f16_to_f32(k->d[b % 4][row]);
    out->sc[0] = out->sc[1] = 1;
    for (size_t i = 0; i < Q_BLOCK; i++) {
        out->q[i] = (int)iq4_values[kern_nibble(k->q[b % 4], row, i)];
    }
}

static bool relay_iq4_nl(void *dst, const void *src, size_t n_row, size_t n_col) {
    return relay_blocks(put_iq4_nl, W_IQ4_NL, dst, src, n_row, n_col);
}

static void dequant_iq4_nl(float *x, const void *src, size_t n_col) {
    dequant_blocks(file_iq4_nl, x, src, n_col);
}

static void matmul_iq4_nl(float *y, size_t ldy, const void *w, size_t n_group, size_t n_col,
                          const void *x, size_t n_tok) {
    matmul_blocks(kern_iq4_nl, W_IQ4_NL, SUM_WHOLE, y, ldy, w, n_group, n_col, x, n_tok);
}

/* MXFP4: the scale is a power of two. */

static bool put_mxfp4(void *group, size_t n_col, size_t row, size_t at, const void *file) {
    void *first = (char *)group + weight_head_bytes(W_MXFP4, n_col);
    struct kern_mxfp4 *k = (struct kern_mxfp4 *)first + at;
    uint8_t *head = group;
    struct file_mxfp4 f;
    memcpy(&f, file, sizeof f);
    put_words(k->q, row, f.q);
    head[at * ROW_GROUP + row] = (uint8_t)(f.e < FP4_EXP_LOW ? 0 : f.e - 1);
    return f.e <= FP4_EXP_HIGH;
}

static void file_mxfp4(struct block *out, const void *row, size_t b) {
    struct file_mxfp4 f;
    memcpy(&f, (const char *)row + b * sizeof f, sizeof f);
    /* 2^(e - 128): the exponent of an f32 is e - 1; where that is below 1 it is subnormal. */
    out->d = f32_from_bits(f.e < 2 ? 0x00200000U << f.e : (uint32_t)(f.e - 1) << 23);
    out->sc[0] = out->sc[1] = 1;
    for (size_t i = 0; i < Q_BLOCK; i++) out->q[i] = (int)fp4_values[file_nibble(f.q, i)];
}

static void kern_mxfp4(struct block *out, const void *group, size_t n_col, size_t row, size_t b) {
    const void *first = (const char *)group + weight_head_bytes(W_MXFP4, n_col);
    const struct kern_mxfp4 *k = (const struct kern_mxfp4 *)first + b;
    const uint8_t *head = group;
    out->d = f32_from_bits((uint32_t)head[b * ROW_GROUP + row] << 23);
    out->sc[0] = out->sc[1] = 1;
    for (size_t i = 0; i < Q_BLOCK; i++) out->q[i] = (int)fp4_values[kern_nibble(k->q, row, i)];
}

static bool relay_mxfp4(void *dst, const void *src, size_t n_row, size_t n_col) {
    return relay_blocks(put_mxfp4, W_MXFP4, dst, src, n_row, n_col);
}

static void dequant_mxfp4(float *x, const void *src, size_t n_col) {
    dequant_blocks(file_mxfp4, x, src, n_col);
}

static void matmul_mxfp4(float *y, size_t ldy, const void *w, size_t n_group, size_t n_col,
                         const void *x, size_t n_tok) {
    matmul_blocks(kern_mxfp4, W_MXFP4, SUM_WHOLE, y, ldy, w, n_group, n_col, x, n_tok);
}

void kernels_scalar_q(struct kernels *k) {
    k->weights[W_Q4_1] = (struct weight_ops){false, relay_q4_1, dequant_q4_1, matmul_q4_1};
    k->weights[W_Q5_0] = (struct weight_ops){false, relay_q5_0, dequant_q5_0, matmul_q5_0};
    k->weights[W_Q5_1] = (struct weight_ops){false, relay_q5_1, dequant_q5_1, matmul_q5_1};
    k->weights[W_IQ4_NL] = (struct weight_ops){false, relay_iq4_nl, dequant_iq4_nl, matmul_iq4_nl};
    k->weights[W_MXFP4] = (struct weight_ops){false, relay_mxfp4, dequant_mxfp4, matmul_mxfp4};
}
