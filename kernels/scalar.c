/* scalar.c - the definition. Written to be read; speed is other files' business. */
#include "exp.h"
#include "f16.h"
#include "fma.h"
#include "kernels.h"
#include "lanes.h"
#include "panel.h"
#include "topk.h"

#include <string.h>

/* Limits of a block's largest value: within them no product underflows or overflows. */
#define BLOCK_MAX 0x1p60f
#define BLOCK_MIN 0x1p-60f

static size_t blocks_of(size_t n) {
    return (n + Q_BLOCK - 1) / Q_BLOCK;
}

static size_t quads_of(size_t n_col) {
    return (n_col + COL_UNIT - 1) / COL_UNIT;
}

/* Adding and subtracting 1.5 * 2^23 rounds to an integer, half to even, for |x| <= 2^22. */
static int32_t to_int_clamped(float x, float limit) {
    float v = x > -limit ? x : -limit;  // NaN becomes -limit
    v = v < limit ? v : limit;
    return (int32_t)((v + 0x1.8p23f) - 0x1.8p23f);
}

/* max |x| of n values, NaN ignored, limited; 0 when everything is too small. */
static float block_max(const float *x, size_t n) {
    float a = 0;
    for (size_t i = 0; i < n; i++) {
        float v = f32_from_bits(f32_bits(x[i]) & 0x7fffffff);
        if (v > a) a = v;
    }
    if (a > BLOCK_MAX) a = BLOCK_MAX;
    return a >= BLOCK_MIN ? a : 0;
}

/* Weights: file order to kernel order, and to f32. */

static bool relay_q4_0(void *dst, const void *src, size_t n_row, size_t n_col) {
    struct kern_q4_0 *k = dst;
    size_t n_block = n_col / Q_BLOCK;
    bool finite = true;
    for (size_t b = 0; b < quads_of(n_col) * 4; b++) {
        for (size_t r = 0; r < ROW_GROUP; r++) {
            struct file_q4_0 f = {.d = {0}};
            memset(f.q, 0x88, sizeof f.q);  // the weight 0
            if (r < n_row && b < n_block) {
                memcpy(&f, (const char *)src + (r * n_block + b) * sizeof f, sizeof f);
            }
            uint16_t d = (uint16_t)(f.d[0] | f.d[1] << 8);
            finite = finite && f16_is_finite(d);
            k[b / 4].d[b % 4][r] = d;
            for (size_t c = 0; c < 4; c++) memcpy(k[b / 4].q[b % 4][c][r], &f.q[4 * c], 4);
        }
    }
    return finite;
}

static bool relay_q8_0(void *dst, const void *src, size_t n_row, size_t n_col) {
    struct kern_q8_0 *k = dst;
    size_t n_block = n_col / Q_BLOCK;
    bool finite = true;
    for (size_t b = 0; b < quads_of(n_col) * 4; b++) {
        for (size_t r = 0; r < ROW_GROUP; r++) {
            struct file_q8_0 f = {.d = {0}};
            if (r < n_row && b < n_block) {
                memcpy(&f, (const char *)src + (r * n_block + b) * sizeof f, sizeof f);
            }
            uint16_t d = (uint16_t)(f.d[0] | f.d[1] << 8);
            finite = finite && f16_is_finite(d);
            k[b / 4].d[b % 4][r] = d;
            for (size_t c = 0; c < 8; c++) memcpy(k[b / 4].q[b % 4][c][r], &f.q[4 * c], 4);
        }
    }
    return finite;
}

/* Float rows stay rows; only their ends are padded. */
static void relay_rows(void *dst, const void *src, size_t n_row, size_t n_col, size_t size) {
    size_t used = n_col * size;
    size_t padded = (n_col + FLOAT_LANES - 1) / FLOAT_LANES * FLOAT_LANES * size;
    for (size_t r = 0; r < ROW_GROUP; r++) {
        char *row = (char *)dst + r * padded;
        size_t have = r < n_row ? used : 0;
        if (have > 0) memcpy(row, (const char *)src + r * used, have);
        memset(row + have, 0, padded - have);
    }
}

static bool relay_f16(void *dst, const void *src, size_t n_row, size_t n_col) {
    relay_rows(dst, src, n_row, n_col, sizeof(uint16_t));
    const uint16_t *w = dst;
    size_t n = weight_group_bytes(W_F16, n_col) / sizeof *w;
    unsigned bad = 0;
    for (size_t i = 0; i < n; i++) {
        bad |= (w[i] & 0x7c00U) == 0x7c00U;
    }
    return !bad;
}

static bool relay_bf16(void *dst, const void *src, size_t n_row, size_t n_col) {
    relay_rows(dst, src, n_row, n_col, sizeof(uint16_t));
    const uint16_t *w = dst;
    size_t n = weight_group_bytes(W_BF16, n_col) / sizeof *w;
    unsigned bad = 0;
    for (size_t i = 0; i < n; i++) {
        bad |= (w[i] & 0x7f80U) == 0x7f80U;
    }
    return !bad;
}

static bool relay_f32(void *dst, const void *src, size_t n_row, size_t n_col) {
    relay_rows(dst, src, n_row, n_col, sizeof(float));
    const float *w = dst;
    size_t n = weight_group_bytes(W_F32, n_col) / sizeof *w;
    unsigned bad = 0;
    for (size_t i = 0; i < n; i++) {
        bad |= (f32_bits(w[i]) & 0x7f800000U) == 0x7f800000U;
    }
    return !bad;
}

static void dequant_q4_0(float *x, const void *src, size_t n_col) {
    for (size_t b = 0; b < n_col / Q_BLOCK; b++) {
        struct file_q4_0 f;
        memcpy(&f, (const char *)src + b * sizeof f, sizeof f);
        float d = f16_to_f32((uint16_t)(f.d[0] | f.d[1] << 8));
        for (size_t i = 0; i < Q_BLOCK / 2; i++) {
            x[b * Q_BLOCK + i] = (float)((f.q[i] & 15) - 8) * d;
            x[b * Q_BLOCK + i + Q_BLOCK / 2] = (float)((f.q[i] >> 4) - 8) * d;
        }
    }
}

static void dequant_q8_0(float *x, const void *src, size_t n_col) {
    for (size_t b = 0; b < n_col / Q_BLOCK; b++) {
        struct file_q8_0 f;
        memcpy(&f, (const char *)src + b * sizeof f, sizeof f);
        float d = f16_to_f32((uint16_t)(f.d[0] | f.d[1] << 8));
        for (size_t i = 0; i < Q_BLOCK; i++) x[b * Q_BLOCK + i] = (float)f.q[i] * d;
    }
}

static void dequant_f16(float *x, const void *src, size_t n_col) {
    for (size_t i = 0; i < n_col; i++) x[i] = f16_to_f32(load_u16((const char *)src + 2 * i));
}

static void dequant_bf16(float *x, const void *src, size_t n_col) {
    for (size_t i = 0; i < n_col; i++) x[i] = bf16_to_f32(load_u16((const char *)src + 2 * i));
}

static void dequant_f32(float *x, const void *src, size_t n_col) {
    memcpy(x, src, n_col * sizeof *x);
}

/* Matrix times activations. */

static int32_t dot_q4_0(const struct kern_q4_0 *k, size_t b, size_t row, struct token_block x) {
    int32_t sum = 0;
    for (size_t i = 0; i < Q_BLOCK / 2; i++) {
        uint8_t v = k->q[b][i / 4][row][i % 4];
        sum += ((v & 15) - 8) * x.q[i / 4 * x.step + i % 4];
        sum += ((v >> 4) - 8) * x.q[(i / 4 + 4) * x.step + i % 4];
    }
    return sum;
}

static void matmul_q4_0(float *y, size_t ldy, const void *w, size_t n_group, size_t n_col,
                        const void *x, size_t n_tok) {
    size_t n_quad = quads_of(n_col);
    for (size_t t = 0; t < n_tok; t++) {
        for (size_t r = 0; r < n_group * ROW_GROUP; r++) {
            const struct kern_q4_0 *k = (const struct kern_q4_0 *)w + r / ROW_GROUP * n_quad;
            float acc = 0;
            for (size_t b = 0; b < n_quad * 4; b++) {
                struct token_block tb = panel_block(x, n_quad * 4, n_tok, t, b);
                float d = f16_to_f32(k[b / 4].d[b % 4][r % ROW_GROUP]) * tb.d;
                acc = k_fma(d, (float)dot_q4_0(&k[b / 4], b % 4, r % ROW_GROUP, tb), acc);
            }
            y[t * ldy + r] = acc;
        }
    }
}

static int32_t dot_q8_0(const struct kern_q8_0 *k, size_t b, size_t row, struct token_block x) {
    int32_t sum = 0;
    for (size_t i = 0; i < Q_BLOCK; i++) {
        sum += k->q[b][i / 4][row][i % 4] * x.q[i / 4 * x.step + i % 4];
    }
    return sum;
}

static void matmul_q8_0(float *y, size_t ldy, const void *w, size_t n_group, size_t n_col,
                        const void *x, size_t n_tok) {
    size_t n_quad = quads_of(n_col);
    for (size_t t = 0; t < n_tok; t++) {
        for (size_t r = 0; r < n_group * ROW_GROUP; r++) {
            const struct kern_q8_0 *k = (const struct kern_q8_0 *)w + r / ROW_GROUP * n_quad;
            float acc = 0;
            for (size_t b = 0; b < n_quad * 4; b++) {
                struct token_block tb = panel_block(x, n_quad * 4, n_tok, t, b);
                float d = f16_to_f32(k[b / 4].d[b % 4][r % ROW_GROUP]) * tb.d;
                acc = k_fma(d, (float)dot_q8_0(&k[b / 4], b % 4, r % ROW_GROUP, tb), acc);
            }
            y[t * ldy + r] = acc;
        }
    }
}

static void matmul_f16(float *y, size_t ldy, const void *w, size_t n_group, size_t n_col,
                       const void *x, size_t n_tok) {
    size_t n = (n_col + FLOAT_LANES - 1) / FLOAT_LANES * FLOAT_LANES;
    for (size_t t = 0; t < n_tok; t++) {
        for (size_t r = 0; r < n_group * ROW_GROUP; r++) {
            const uint16_t *wr = (const uint16_t *)w + r * n;
            const float *xt = (const float *)x + t * n;
            float lane[FLOAT_LANES] = {0};
            for (size_t i = 0; i < n; i++) {
                lane[i % FLOAT_LANES] = k_fma(f16_to_f32(wr[i]), xt[i], lane[i % FLOAT_LANES]);
            }
            y[t * ldy + r] = tree_sum(lane);
        }
    }
}

static void matmul_bf16(float *y, size_t ldy, const void *w, size_t n_group, size_t n_col,
                        const void *x, size_t n_tok) {
    size_t n = (n_col + FLOAT_LANES - 1) / FLOAT_LANES * FLOAT_LANES;
    for (size_t t = 0; t < n_tok; t++) {
        for (size_t r = 0; r < n_group * ROW_GROUP; r++) {
            const uint16_t *wr = (const uint16_t *)w + r * n;
            const float *xt = (const float *)x + t * n;
            float lane[FLOAT_LANES] = {0};
            for (size_t i = 0; i < n; i++) {
                lane[i % FLOAT_LANES] = k_fma(bf16_to_f32(wr[i]), xt[i], lane[i % FLOAT_LANES]);
            }
            y[t * ldy + r] = tree_sum(lane);
        }
    }
}

static void matmul_f32(float *y, size_t ldy, const void *w, size_t n_group, size_t n_col,
                       const void *x, size_t n_tok) {
    size_t n = (n_col + FLOAT_LANES - 1) / FLOAT_LANES * FLOAT_LANES;
    for (size_t t = 0; t < n_tok; t++) {
        for (size_t r = 0; r < n_group * ROW_GROUP; r++) {
            const float *wr = (const float *)w + r * n, *xt = (const float *)x + t * n;
            float lane[FLOAT_LANES] = {0};
            for (size_t i = 0; i < n; i++) {
                lane[i % FLOAT_LANES] = k_fma(wr[i], xt[i], lane[i % FLOAT_LANES]);
            }
            y[t * ldy + r] = tree_sum(lane);
        }
    }
}

/* Activations. */

/* Of the values that are there; the others are zero. */
static void quantise_block(struct act *q, const float *x, size_t here) {
    *q = (struct act){0};
    float a = block_max(x, here);
    if (a == 0) return;
    q->d = bf16_above(a / 127.0f);
    float inv = 1.0f / bf16_to_f32(q->d);
    for (size_t i = 0; i < here; i++) q->q[i] = (int8_t)to_int_clamped(x[i] * inv, 127.0f);
}

static size_t block_length(size_t n, size_t b) {
    return n - b * Q_BLOCK < Q_BLOCK ? n - b * Q_BLOCK : Q_BLOCK;
}

static void quantise(struct act *q, const float *x, size_t n) {
    for (size_t b = 0; b < blocks_of(n); b++) {
        quantise_block(&q[b], x + b * Q_BLOCK, block_length(n, b));
    }
}

/* out: panels of `width` tokens, one for each block; d, s8, q and xs are as in PANEL(width). */
static void pack_panels(void *out, size_t width, const struct act *q, size_t ldq, size_t n_block,
                        size_t n_tok) {
    size_t padded = (n_block + 3) / 4 * 4;
    for (size_t b = 0; b < padded; b++) {
        char *p = (char *)out + b * sizeof(struct panel1) * width;
        for (size_t t = 0; t < width; t++) {
            struct act a = {0};
            if (t < n_tok && b < n_block) a = q[t * ldq + b];
            int32_t sum = 0;
            for (size_t i = 0; i < Q_BLOCK; i++) sum += a.q[i];
            int32_t s8 = -8 * sum;
            float d = bf16_to_f32(a.d), xs = d * (float)sum;
            memcpy(p + 4 * t, &d, sizeof d);
            memcpy(p + 4 * (width + t), &s8, sizeof s8);
            memcpy(p + offsetof(struct panel1, xs) * width + 4 * t, &xs, sizeof xs);
            for (size_t c = 0; c < 8; c++) {
                memcpy(p + 8 * width + 4 * (c * width + t), &a.q[4 * c], 4);
            }
        }
    }
}

static void pack(void *panel, const struct act *q, size_t ldq, size_t n_block, size_t n_tok) {
    if (n_tok == 1) {
        pack_panels(panel, 1, q, ldq, n_block, 1);
        return;
    }
    size_t run = (n_block + 3) / 4 * 4 * sizeof(struct panel8);
    for (size_t t = 0; t < n_tok; t += 8) {
        pack_panels((char *)panel + t / 8 * run, 8, q + t * ldq, ldq, n_block,
                    n_tok - t < 8 ? n_tok - t : 8);
    }
}

static float norm_scale(const float *x, size_t n, float eps) {
    float lane[FLOAT_LANES] = {0};
    for (size_t i = 0; i < n; i++) {
        lane[i % FLOAT_LANES] = k_fma(x[i], x[i], lane[i % FLOAT_LANES]);
    }
    return 1.0f / k_sqrt(tree_sum(lane) / (float)n + eps);
}

static void rmsnorm(float *y, const float *x, const float *w, size_t n, float eps) {
    float s = norm_scale(x, n, eps);
    for (size_t i = 0; i < n; i++) y[i] = (x[i] * s) * w[i];
}

static void rmsnorm_quantise(struct act *q, const float *x, const float *w, size_t n, float eps) {
    float s = norm_scale(x, n, eps);
    for (size_t b = 0; b < blocks_of(n); b++) {
        float y[Q_BLOCK];
        size_t here = block_length(n, b), at = b * Q_BLOCK;
        for (size_t i = 0; i < here; i++) y[i] = (x[at + i] * s) * w[at + i];
        quantise_block(&q[b], y, here);
    }
}

static void rope(float *x, const float *cs, size_t n_pair) {
    for (size_t i = 0; i < n_pair; i++) {
        float a = x[2 * i], b = x[2 * i + 1], c = cs[2 * i], s = cs[2 * i + 1];
        x[2 * i] = k_fma(a, c, -(b * s));
        x[2 * i + 1] = k_fma(b, c, a * s);
    }
}

static void silu_mul(float *y, const float *gate, const float *up, size_t n) {
    for (size_t i = 0; i < n; i++) y[i] = gate[i] / (1.0f + k_exp(-gate[i])) * up[i];
}

static void to_f16(uint16_t *y, const float *x, size_t n) {
    for (size_t i = 0; i < n; i++) {
        float v = x[i] > -65504.0f ? x[i] : -65504.0f;  // NaN becomes -65504
        y[i] = f32_to_f16(v < 65504.0f ? v : 65504.0f);
    }
}

/* Branch outputs, and the residual. */

static void to_wire16(struct wire16 *q, const float *x, size_t n) {
    for (size_t b = 0; b < blocks_of(n); b++) {
        const float *xb = x + b * Q_BLOCK;
        size_t here = n - b * Q_BLOCK < Q_BLOCK ? n - b * Q_BLOCK : Q_BLOCK;
        q[b] = (struct wire16){0};
        float a = block_max(xb, here);
        if (a == 0) continue;
        q[b].d = a / 32767.0f;
        float inv = 1.0f / q[b].d;
        for (size_t i = 0; i < here; i++) {
            q[b].q[i] = (int16_t)to_int_clamped(xb[i] * inv, 32767.0f);
        }
    }
}

static void add_wire16(float *x, const struct wire16 *q, size_t n) {
    for (size_t i = 0; i < n; i++) x[i] += (float)q[i / Q_BLOCK].q[i % Q_BLOCK] * q[i / Q_BLOCK].d;
}

static void add_act(float *x, const struct act *q, size_t n) {
    for (size_t i = 0; i < n; i++) {
        x[i] += (float)q[i / Q_BLOCK].q[i % Q_BLOCK] * bf16_to_f32(q[i / Q_BLOCK].d);
    }
}

static uint64_t multiply(size_t n) {
    int8_t w[Q_BLOCK] = {1}, x[Q_BLOCK] = {1};
    int32_t sum = 0;
    for (size_t r = 0; r < n; r++) {
        __asm__ volatile("" : : "r"(w), "r"(x) : "memory");  // as if they were others each time
        for (size_t i = 0; i < Q_BLOCK; i++) sum += w[i] * x[i];
    }
    __asm__ volatile("" : : "r"(sum));
    return n * Q_BLOCK;
}

static void add(float *x, const float *y, size_t n) {
    for (size_t i = 0; i < n; i++) x[i] += y[i];
}

static size_t topk(int32_t *id, float *val, size_t k, const float *x, size_t n) {
    size_t at, have = topk_fill(id, val, k, x, n, &at);
    if (have > 0) topk_offer(id, val, have, x, at, n);
    topk_sort(id, val, have);
    return have;
}

void kernels_scalar(struct kernels *k) {
    *k = (struct kernels){
        .name = "scalar",
        .tile_groups = 1,
        .weights[W_Q4_0] = {false, relay_q4_0, dequant_q4_0, matmul_q4_0},
        .weights[W_Q8_0] = {false, relay_q8_0, dequant_q8_0, matmul_q8_0},
        .weights[W_F16] = {true, relay_f16, dequant_f16, matmul_f16},
        .weights[W_BF16] = {true, relay_bf16, dequant_bf16, matmul_bf16},
        .weights[W_F32] = {true, relay_f32, dequant_f32, matmul_f32},
        .quantise = quantise,
        .pack = pack,
        .multiply = multiply,
        .rmsnorm = rmsnorm,
        .rmsnorm_quantise = rmsnorm_quantise,
        .rope = rope,
        .silu_mul = silu_mul,
        .to_f16 = to_f16,
        .to_wire16 = to_wire16,
        .add_wire16 = add_wire16,
        .add_act = add_act,
        .add = add,
        .topk = topk,
    };
}
