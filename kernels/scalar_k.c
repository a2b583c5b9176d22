/* scalar_k.c - the definition for weights whose scales have scales: the K-quants and IQ4_XS. As
 * scalar.c: to be read. Blocks are numbered through the row; `at` counts super-blocks.
 */
#include "block.h"
#include "f16.h"

/* d or dmin of a row, from file order to its place. */
static bool put_scale(uint16_t *place, const uint8_t d[2]) {
    *place = load_u16(d);
    return f16_is_finite(*place);
}

/* n bytes of a row, to chunks of four in kernel order. */
static void put_words(uint8_t (*q)[ROW_GROUP][4], size_t row, const uint8_t *file, size_t n) {
    for (size_t c = 0; c < n / 4; c++) memcpy(q[c][row], &file[4 * c], 4);
}

static const void *behind_head(const void *group, int type, size_t n_col) {
    return (const char *)group + weight_head_bytes(type, n_col);
}

static void *body(void *group, int type, size_t n_col) {
    return (char *)group + weight_head_bytes(type, n_col);
}

/* Number n of sixteen of 6 bits. */
static int six_at(const struct six_bits *s, size_t n, size_t row) {
    int lo = n < 8 ? s->lo[n][row] & 15 : s->lo[n - 8][row] >> 4;
    return lo | (s->hi[n % 4][row] >> n / 4 * 2 & 3) << 4;
}

static void put_six(struct six_bits *s, size_t n, size_t row, int v) {
    s->lo[n % 8][row] |= (uint8_t)((v & 15) << n / 8 * 4);
    s->hi[n % 4][row] |= (uint8_t)(v >> 4 << n / 4 * 2);
}

/* Q2_K. */

static bool put_q2_k(void *group, size_t n_col, size_t row, size_t at, const void *file) {
    struct head_q2_k *h = (struct head_q2_k *)group + at;
    struct kern_q2_k *k = (struct kern_q2_k *)body(group, W_Q2_K, n_col) + at;
    struct file_q2_k f;
    memcpy(&f, file, sizeof f);
    for (size_t i = 0; i < 16; i++) k->sc[i][row] = f.sc[i];
    put_words(k->q[0], row, f.q, 32);
    put_words(k->q[1], row, f.q + 32, 32);
    bool ok = put_scale(&h->d[row], f.d);
    return put_scale(&h->dmin[row], f.dmin) && ok;
}

static void q2_k_scales(struct block *out, uint8_t a, uint8_t b) {
    out->sc[0] = a & 15, out->sc[1] = b & 15;
    out->mn[0] = a >> 4, out->mn[1] = b >> 4;
}

static void file_q2_k(struct block *out, const void *row, size_t b) {
    struct file_q2_k f;
    size_t s = b % 8;
    memcpy(&f, (const char *)row + b / 8 * sizeof f, sizeof f);
    out->d = f16_to_f32(load_u16(f.d));
    out->m = f16_to_f32(load_u16(f.dmin));
    q2_k_scales(out, f.sc[2 * s], f.sc[2 * s + 1]);
    for (size_t i = 0; i < Q_BLOCK; i++) out->q[i] = f.q[s / 4 * 32 + i] >> s % 4 * 2 & 3;
}

static void kern_q2_k(struct block *out, const void *group, size_t n_col, size_t row, size_t b) {
    const struct head_q2_k *h = (const struct head_q2_k *)group + b / 8;
    const struct kern_q2_k *k = behind_head(group, W_Q2_K, n_col);
    size_t s = b % 8;
    k += b / 8;
    out->d = f16_to_f32(h->d[row]);
    out->m = f16_to_f32(h->dmin[row]);
    q2_k_scales(out, k->sc[2 * s][row], k->sc[2 * s + 1][row]);
    for (size_t i = 0; i < Q_BLOCK; i++) {
        out->q[i] = k->q[s / 4][i / 4][row][i % 4] >> s % 4 * 2 & 3;
    }
}

static bool relay_q2_k(void *dst, const void *src, size_t n_row, size_t n_col) {
    return relay_blocks(put_q2_k, W_Q2_K, dst, src, n_row, n_col);
}

static void dequant_q2_k(float *x, const void *src, size_t n_col) {
    dequant_blocks(file_q2_k, x, src, n_col);
}

static void matmul_q2_k(float *y, size_t ldy, const void *w, size_t n_group, size_t n_col,
                        const void *x, size_t n_tok) {
    matmul_blocks(kern_q2_k, W_Q2_K, SUM_HALVES, y, ldy, w, n_group, n_col, x, n_tok);
}

/* Q3_K. */

static bool put_q3_k(void *group, size_t n_col, size_t row, size_t at, const void *file) {
    struct head_q3_k *h = (struct head_q3_k *)group + at;
    struct kern_q3_k *k = (struct kern_q3_k *)body(group, W_Q3_K, n_col) + at;
    struct file_q3_k f;
    memcpy(&f, file, sizeof f);
    for (size_t i = 0; i < 8; i++) h->sc.lo[i][row] = f.sc[i];
    for (size_t i = 0; i < 4; i++) h->sc.hi[i][row] = f.sc[8 + i];
    put_words(k->h, row, f.h, 32);
    put_words(k->q[0], row, f.q, 32);
    put_words(k->q[1], row, f.q + 32, 32);
    return put_scale(&h->d[row], f.d);
}

static void file_q3_k(struct block *out, const void *row, size_t b) {
    struct file_q3_k f;
    size_t s = b % 8;
    memcpy(&f, (const char *)row + b / 8 * sizeof f, sizeof f);
    out->d = f16_to_f32(load_u16(f.d));
    for (size_t u = 0; u < 2; u++) {
        size_t n = 2 * s + u;
        int lo = n < 8 ? f.sc[n] & 15 : f.sc[n - 8] >> 4;
        out->sc[u] = (lo | (f.sc[8 + n % 4] >> n / 4 * 2 & 3) << 4) - 32;
    }
    for (size_t i = 0; i < Q_BLOCK; i++) {
        out->q[i] = ((f.q[s / 4 * 32 + i] >> s % 4 * 2 & 3) | (f.h[i] >> s & 1) << 2) - 4;
    }
}

static void kern_q3_k(struct block *out, const void *group, size_t n_col, size_t row, size_t b) {
    const struct head_q3_k *h = (const struct head_q3_k *)group + b / 8;
    const struct kern_q3_k *k = behind_head(group, W_Q3_K, n_col);
    size_t s = b % 8;
    k += b / 8;
    out->d = f16_to_f32(h->d[row]);
    for (size_t u = 0; u < 2; u++) out->sc[u] = six_at(&h->sc, 2 * s + u, row) - 32;
    for (size_t i = 0; i < Q_BLOCK; i++) {
        size_t c = i / 4, e = i % 4;
        out->q[i] =
            ((k->q[s / 4][c][row][e] >> s % 4 * 2 & 3) | (k->h[c][row][e] >> s & 1) << 2) - 4;
    }
}

static bool relay_q3_k(void *dst, const void *src, size_t n_row, size_t n_col) {
    return relay_blocks(put_q3_k, W_Q3_K, dst, src, n_row, n_col);
}

static void dequant_q3_k(float *x, const void *src, size_t n_col) {
    dequant_blocks(file_q3_k, x, src, n_col);
}

static void matmul_q3_k(float *y, size_t ldy, const void *w, size_t n_group, size_t n_col,
                        const void *x, size_t n_tok) {
    matmul_blocks(kern_q3_k, W_Q3_K, SUM_HALVES, y, ldy, w, n_group, n_col, x, n_tok);
}

/* Q4_K and Q5_K. */

/* Scale and minimum of block s of a super-block. */
static void file_scale(const uint8_t sc[12], size_t s, int *scale, int *min) {
    if (s < 4) {
        *scale = sc[s] & 63;
        *min = sc[s + 4] & 63;
    } else {
        *scale = (sc[s + 4] & 15) | sc[s - 4] >> 6 << 4;
        // cppcheck-suppress arrayIndexOutOfBoundsCond ; s is below 8
        *min = sc[s + 4] >> 4 | sc[s] >> 6 << 4;
    }
}

static void put_scales(struct six_bits *to, size_t row, const uint8_t sc[12]) {
    for (size_t s = 0; s < 8; s++) {
        int scale, min;
        file_scale(sc, s, &scale, &min);
        put_six(to, s, row, scale);
        put_six(to, s + 8, row, min);
    }
}

static bool put_q4_k(void *group, size_t n_col, size_t row, size_t at, const void *file) {
    (void)n_col;
    struct kern_q4_k *k = (struct kern_q4_k *)group + at;
    struct file_q4_k f;
    memcpy(&f, file, sizeof f);
    put_scales(&k->sc, row, f.sc);
    for (size_t p = 0; p < 4; p++) put_words(k->q[p], row, f.q + 32 * p, 32);
    bool ok = put_scale(&k->d[row], f.d);
    return put_scale(&k->dmin[row], f.dmin) && ok;
}

static void file_q4_k(struct block *out, const void *row, size_t b) {
    struct file_q4_k f;
    size_t s = b % 8;
    memcpy(&f, (const char *)row + b / 8 * sizeof f, sizeof f);
    out->d = f16_to_f32(load_u16(f.d));
    out->m = f16_to_f32(load_u16(f.dmin));
    file_scale(f.sc, s, &out->sc[0], &out->mn[0]);
    out->sc[1] = out->sc[0];
    out->mn[1] = out->mn[0];
    for (size_t i = 0; i < Q_BLOCK; i++) out->q[i] = f.q[s / 2 * 32 + i] >> s % 2 * 4 & 15;
}

static void kern_q4_k(struct block *out, const void *group, size_t n_col, size_t row, size_t b) {
    (void)n_col;
    const struct kern_q4_k *k = (const struct kern_q4_k *)group + b / 8;
    size_t s = b % 8;
    out->d = f16_to_f32(k->d[row]);
    out->m = f16_to_f32(k->dmin[row]);
    out->sc[0] = out->sc[1] = six_at(&k->sc, s, row);
    out->mn[0] = out->mn[1] = six_at(&k->sc, s + 8, row);
    for (size_t i = 0; i < Q_BLOCK; i++) {
        out->q[i] = k->q[s / 2][i / 4][row][i % 4] >> s % 2 * 4 & 15;
    }
}

static bool relay_q4_k(void *dst, const void *src, size_t n_row, size_t n_col) {
    return relay_blocks(put_q4_k, W_Q4_K, dst, src, n_row, n_col);
}

static void dequant_q4_k(float *x, const void *src, size_t n_col) {
    dequant_blocks(file_q4_k, x, src, n_col);
}

static void matmul_q4_k(float *y, size_t ldy, const void *w, size_t n_group, size_t n_col,
                        const void *x, size_t n_tok) {
    matmul_blocks(kern_q4_k, W_Q4_K, SUM_WHOLE, y, ldy, w, n_group, n_col, x, n_tok);
}

static bool put_q5_k(void *group, size_t n_col, size_t row, size_t at, const void *file) {
    (void)n_col;
    struct kern_q5_k *k = (struct kern_q5_k *)group + at;
    struct file_q5_k f;
    memcpy(&f, file, sizeof f);
    put_scales(&k->sc, row, f.sc);
    put_words(k->h, row, f.h, 32);
    for (size_t p = 0; p < 4; p++) put_words(k->q[p], row, f.q + 32 * p, 32);
    bool ok = put_scale(&k->d[row], f.d);
    return put_scale(&k->dmin[row], f.dmin) && ok;
}

static void file_q5_k(struct block *out, const void *row, size_t b) {
    struct file_q5_k f;
    size_t s = b % 8;
    memcpy(&f, (const char *)row + b / 8 * sizeof f, sizeof f);
    out->d = f16_to_f32(load_u16(f.d));
    out->m = f16_to_f32(load_u16(f.dmin));
    file_scale(f.sc, s, &out->sc[0], &out->mn[0]);
    out->sc[1] = out->sc[0];
    out->mn[1] = out->mn[0];
    for (size_t i = 0; i < Q_BLOCK; i++) {
        out->q[i] = (f.q[s / 2 * 32 + i] >> s % 2 * 4 & 15) | (f.h[i] >> s & 1) << 4;
    }
}

static void kern_q5_k(struct block *out, const void *group, size_t n_col, size_t row, size_t b) {
    (void)n_col;
    const struct kern_q5_k *k = (const struct kern_q5_k *)group + b / 8;
    size_t s = b % 8;
    out->d = f16_to_f32(k->d[row]);
    out->m = f16_to_f32(k->dmin[row]);
    out->sc[0] = out->sc[1] = six_at(&k->sc, s, row);
    out->mn[0] = out->mn[1] = six_at(&k->sc, s + 8, row);
    for (size_t i = 0; i < Q_BLOCK; i++) {
        size_t c = i / 4, e = i % 4;
        out->q[i] = (k->q[s / 2][c][row][e] >> s % 2 * 4 & 15) | (k->h[c][row][e] >> s & 1) << 4;
    }
}

static bool relay_q5_k(void *dst, const void *src, size_t n_row, size_t n_col) {
    return relay_blocks(put_q5_k, W_Q5_K, dst, src, n_row, n_col);
}

static void dequant_q5_k(float *x, const void *src, size_t n_col) {
    dequant_blocks(file_q5_k, x, src, n_col);
}

static void matmul_q5_k(float *y, size_t ldy, const void *w, size_t n_group, size_t n_col,
                        const void *x, size_t n_tok) {
    matmul_blocks(kern_q5_k, W_Q5_K, SUM_WHOLE, y, ldy, w, n_group, n_col, x, n_tok);
}

/* Q6_K. */

/* Six bits of weight `i` of block s of a super-block; 32 is the weight 0. */
static int file_bits(const struct file_q6_k *f, size_t s, size_t i) {
    size_t half = s / 4, k = s % 4;
    int l = f->ql[64 * half + 32 * (k % 2) + i], h = f->qh[32 * half + i];
    return (k < 2 ? l & 15 : l >> 4) | (h >> 2 * k & 3) << 4;
}

static int kern_bits(const struct kern_q6_k *q, size_t row, size_t s, size_t at) {
    size_t half = s / 4, k = s % 4, c = at / 4, i = at % 4;
    if (k < 3) return q->q[half][k][c][row][i] & 63;
    return q->q[half][0][c][row][i] >> 6 | q->q[half][1][c][row][i] >> 6 << 2 |
           q->q[half][2][c][row][i] >> 6 << 4;
}

static bool put_q6_k(void *group, size_t n_col, size_t row, size_t at, const void *file) {
    uint16_t *d = (uint16_t *)group + at * ROW_GROUP;
    struct kern_q6_k *q = (struct kern_q6_k *)body(group, W_Q6_K, n_col) + at;
    struct file_q6_k f;
    memcpy(&f, file, sizeof f);
    for (size_t i = 0; i < 16; i++) q->sc[i][row] = f.sc[i];
    for (size_t half = 0; half < 2; half++) {
        for (size_t k = 0; k < 3; k++) {
            for (size_t i = 0; i < Q_BLOCK; i++) {
                int own = file_bits(&f, 4 * half + k, i), last = file_bits(&f, 4 * half + 3, i);
                q->q[half][k][i / 4][row][i % 4] = (uint8_t)(own | (last >> 2 * k & 3) << 6);
            }
        }
    }
    return put_scale(&d[row], f.d);
}

static void file_q6_k(struct block *out, const void *row, size_t b) {
    struct file_q6_k f;
    size_t s = b % 8;
    memcpy(&f, (const char *)row + b / 8 * sizeof f, sizeof f);
    out->d = f16_to_f32(load_u16(f.d));
    for (size_t u = 0; u < 2; u++) out->sc[u] = (int)f.sc[2 * s + u];
    for (size_t i = 0; i < Q_BLOCK; i++) out->q[i] = file_bits(&f, s, i) - 32;
}

static void kern_q6_k(struct block *out, const void *group, size_t n_col, size_t row, size_t b) {
    const uint16_t *d = group;
    const struct kern_q6_k *k = behind_head(group, W_Q6_K, n_col);
    size_t s = b % 8;
    k += b / 8;
    out->d = f16_to_f32(d[b / 8 * ROW_GROUP + row]);
    for (size_t u = 0; u < 2; u++) out->sc[u] = (int)k->sc[2 * s + u][row];
    for (size_t i = 0; i < Q_BLOCK; i++) out->q[i] = kern_bits(k, row, s, i) - 32;
}

static bool relay_q6_k(void *dst, const void *src, size_t n_row, size_t n_col) {
    return relay_blocks(put_q6_k, W_Q6_K, dst, src, n_row, n_col);
}

static void dequant_q6_k(float *x, const void *src, size_t n_col) {
    dequant_blocks(file_q6_k, x, src, n_col);
}

static void matmul_q6_k(float *y, size_t ldy, const void *w, size_t n_group, size_t n_col,
                        const void *x, size_t n_tok) {
    matmul_blocks(kern_q6_k, W_Q6_K, SUM_HALVES, y, ldy, w, n_group, n_col, x, n_tok);
}

/* IQ4_XS. */

static int file_scale_xs(const struct file_iq4_xs *f, size_t s) {
    int hi = load_u16(f->sc_hi) >> 2 * s & 3;
    return (f->sc_lo[s / 2] >> s % 2 * 4 & 15) | hi << 4;
}

static bool put_iq4_xs(void *group, size_t n_col, size_t row, size_t at, const void *file) {
    (void)n_col;
    struct kern_iq4_xs *k = (struct kern_iq4_xs *)group + at;
    struct file_iq4_xs f;
    memcpy(&f, file, sizeof f);
    for (size_t s = 0; s < 8; s++) {
        int sc = file_scale_xs(&f, s);
        k->sc_lo[s % 4][row] |= (uint8_t)((sc & 15) << s / 4 * 4);
        k->sc_hi[s % 2][row] |= (uint8_t)(sc >> 4 << s / 2 * 2);
        put_words(k->q[s], row, f.q + 16 * s, 16);
    }
    return put_scale(&k->d[row], f.d);
}

static void file_iq4_xs(struct block *out, const void *row, size_t b) {
    struct file_iq4_xs f;
    size_t s = b % 8;
    memcpy(&f, (const char *)row + b / 8 * sizeof f, sizeof f);
    out->d = f16_to_f32(load_u16(f.d));
    out->sc[0] = out->sc[1] = file_scale_xs(&f, s) - 32;
    for (size_t i = 0; i < Q_BLOCK; i++) out->q[i] = (int)iq4_values[file_nibble(f.q + 16 * s, i)];
}

static void kern_iq4_xs(struct block *out, const void *group, size_t n_col, size_t row, size_t b) {
    (void)n_col;
    const struct kern_iq4_xs *k = (const struct kern_iq4_xs *)group + b / 8;
    size_t s = b % 8;
    int lo = k->sc_lo[s % 4][row] >> s / 4 * 4 & 15, hi = k->sc_hi[s % 2][row] >> s / 2 * 2 & 3;
    out->d = f16_to_f32(k->d[row]);
    out->sc[0] = out->sc[1] = (lo | hi << 4) - 32;
    for (size_t i = 0; i < Q_BLOCK; i++) out->q[i] = (int)iq4_values[kern_nibble(k->q[s], row, i)];
}

static bool relay_iq4_xs(void *dst, const void *src, size_t n_row, size_t n_col) {
    return relay_blocks(put_iq4_xs, W_IQ4_XS, dst, src, n_row, n_col);
}

static void dequant_iq4_xs(float *x, const void *src, size_t n_col) {
    dequant_blocks(file_iq4_xs, x, src, n_col);
}

static void matmul_iq4_xs(float *y, size_t ldy, const void *w, size_t n_group, size_t n_col,
                          const void *x, size_t n_tok) {
    matmul_blocks(kern_iq4_xs, W_IQ4_XS, SUM_WHOLE, y, ldy, w, n_group, n_col, x, n_tok);
}

void kernels_scalar_k(struct kernels *k) {
    k->weights[W_Q2_K] = (struct weight_ops){false, relay_q2_k, dequant_q2_k, matmul_q2_k};
    k->weights[W_Q3_K] = (struct weight_ops){false, relay_q3_k, dequant_q3_k, matmul_q3_k};
    k->weights[W_Q4_K] = (struct weight_ops){false, relay_q4_k, dequant_q4_k, matmul_q4_k};
    k->weights[W_Q5_K] = (struct weight_ops){false, relay_q5_k, dequant_q5_k, matmul_q5_k};
    k->weights[W_Q6_K] = (struct weight_ops){false, relay_q6_k, dequant_q6_k, matmul_q6_k};
    k->weights[W_IQ4_XS] = (struct weight_ops){false, relay_iq4_xs, dequant_iq4_xs, matmul_iq4_xs};
}
