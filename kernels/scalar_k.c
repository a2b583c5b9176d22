/* scalar_k.c - the definition for weights whose scales have scales: Q6_K. As scalar.c: to be read. */
#include "f16.h"
#include "fma.h"
#include "kernels.h"
#include "panel.h"

#include <string.h>

/* Bytes of the d [super-block][row] at the head of a group of rows. */
static size_t head_bytes(size_t n_col) {
    return weight_group_bytes(W_Q6_K, n_col) - n_col / Q_SUPER * sizeof(struct kern_q6_k);
}

/* Six bits of weight `at` of block `block` (0..7) of a super-block; 32 is the weight 0. */
static unsigned file_bits(const struct file_q6_k *f, size_t block, size_t at) {
    size_t half = block / 4, k = block % 4;
    unsigned l = f->ql[64 * half + 32 * (k % 2) + at], h = f->qh[32 * half + at];
    return (k < 2 ? l & 15 : l >> 4) | (h >> 2 * k & 3) << 4;
}

static unsigned kern_bits(const struct kern_q6_k *q, size_t row, size_t block, size_t at) {
    size_t half = block / 4, k = block % 4, c = at / 4, i = at % 4;
    if (k < 3) return q->q[half][k][c][row][i] & 63;
    return q->q[half][0][c][row][i] >> 6 | q->q[half][1][c][row][i] >> 6 << 2 |
           q->q[half][2][c][row][i] >> 6 << 4;
}

/* One super-block of one row. */
static void relay_row(struct kern_q6_k *q, size_t row, const struct file_q6_k *f) {
    for (size_t i = 0; i < 16; i++) q->sc[i][row] = f->sc[i];
    for (size_t half = 0; half < 2; half++) {
        for (size_t k = 0; k < 3; k++) {
            for (size_t i = 0; i < Q_BLOCK; i++) {
                unsigned own = file_bits(f, 4 * half + k, i), last = file_bits(f, 4 * half + 3, i);
                q->q[half][k][i / 4][row][i % 4] = (uint8_t)(own | (last >> 2 * k & 3) << 6);
            }
        }
    }
}

static bool relay_q6_k(void *dst, const void *src, size_t n_row, size_t n_col) {
    size_t n_super = n_col / Q_SUPER, head = head_bytes(n_col);
    void *first = (char *)dst + head;
    struct kern_q6_k *k = first;
    uint16_t *d = memset(dst, 0, head);
    bool finite = true;
    for (size_t b = 0; b < n_super; b++) {
        for (size_t r = 0; r < ROW_GROUP; r++) {
            struct file_q6_k f = {.d = {0}};
            if (r < n_row) memcpy(&f, (const char *)src + (r * n_super + b) * sizeof f, sizeof f);
            relay_row(&k[b], r, &f);
            d[b * ROW_GROUP + r] = (uint16_t)(f.d[0] | f.d[1] << 8);
            finite = finite && f16_is_finite(d[b * ROW_GROUP + r]);
        }
    }
    return finite;
}

static void dequant_q6_k(float *x, const void *src, size_t n_col) {
    for (size_t b = 0; b < n_col / Q_SUPER; b++, x += Q_SUPER) {
        struct file_q6_k f;
        memcpy(&f, (const char *)src + b * sizeof f, sizeof f);
        float d = f16_to_f32((uint16_t)(f.d[0] | f.d[1] << 8));
        for (size_t i = 0; i < Q_SUPER; i++) {
            int w = (int)file_bits(&f, i / Q_BLOCK, i % Q_BLOCK) - 32;
            x[i] = (d * (float)f.sc[i / 16]) * (float)w;
        }
    }
}

/* sc_a * I_a + sc_b * I_b of block 0..7 of a super-block. */
static int32_t dot_q6_k(const struct kern_q6_k *k, size_t block, size_t row, struct token_block x) {
    int32_t sum[2] = {0};
    for (size_t i = 0; i < Q_BLOCK; i++) {
        int w = (int)kern_bits(k, row, block, i) - 32;
        sum[i / 16] += w * x.q[i / 4 * x.step + i % 4];
    }
    return k->sc[2 * block][row] * sum[0] + k->sc[2 * block + 1][row] * sum[1];
}

static void matmul_q6_k(float *y, size_t ldy, const void *w, size_t n_group, size_t n_col,
                        const void *x, size_t n_tok) {
    size_t n_super = n_col / Q_SUPER, n_block = n_super * 8;
    size_t group = weight_group_bytes(W_Q6_K, n_col);
    for (size_t t = 0; t < n_tok; t++) {
        for (size_t r = 0; r < n_group * ROW_GROUP; r++) {
            const void *own = (const char *)w + r / ROW_GROUP * group;
            const void *first = (const char *)own + head_bytes(n_col);
            const struct kern_q6_k *k = first;
            const uint16_t *scale = own;
            float acc = 0;
            for (size_t b = 0; b < n_block; b++) {
                struct token_block tb = panel_block(x, n_block, n_tok, t, b);
                uint16_t d = scale[b / 8 * ROW_GROUP + r % ROW_GROUP];
                int32_t sum = dot_q6_k(&k[b / 8], b % 8, r % ROW_GROUP, tb);
                acc = k_fma(f16_to_f32(d) * tb.d, (float)sum, acc);
            }
            y[t * ldy + r] = acc;
        }
    }
}

void kernels_scalar_k(struct kernels *k) {
    k->weights[W_Q6_K] = (struct weight_ops){false, relay_q6_k, dequant_q6_k, matmul_q6_k};
}
