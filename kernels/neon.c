/* neon.c - AArch64's baseline (ARMv8.0: Cortex-A53, A72): no dot product instruction. Same bits as
 * scalar.c; see kernels.h for what each does.
 *
 * The 16 lanes of the contract are four registers. Quantised weights are in neon_q.c, what brings
 * weights into kernel order is in neon_relay.c.
 */
#include "neon.h"
#include "f16.h"
#include "kernels.h"
#include "topk.h"

#include <string.h>

enum { TILE_TOK = 2 };

/* Matrices of floats. */

/* Weights i .. i + 3. */
ALWAYS float32x4_t load_weights(const char *w, size_t i, enum weight_type type) {
    if (type != W_BF16) return load_float(w, i, type == W_F16);
    const uint16_t *p = (const uint16_t *)(const void *)w + i;
    return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16));
}

/* Two rows times n_tok tokens; the next two rows are fetched when `ahead`. */
ALWAYS void tile_float(float *y, size_t ldy, const char *w, size_t row_bytes, enum weight_type type,
                       bool ahead, const float *x, size_t n, size_t n_tok) {
    float32x4_t acc[2][TILE_TOK][4];
    UNROLL
    for (size_t t = 0; t < n_tok; t++) {
        UNROLL
        for (size_t h = 0; h < 4; h++) acc[0][t][h] = acc[1][t][h] = vdupq_n_f32(0);
    }
    for (size_t i = 0; i < n; i += FLOAT_LANES) {
        if (ahead) {
            const char *next = w + 2 * row_bytes + (type == W_F32 ? 4 * i : 2 * i);
            __builtin_prefetch(next, 0, 2);
            __builtin_prefetch(next + row_bytes, 0, 2);
        }
        UNROLL
        for (size_t h = 0; h < 4; h++) {
            float32x4_t w0 = load_weights(w, i + h * VEC, type);
            float32x4_t w1 = load_weights(w + row_bytes, i + h * VEC, type);
            UNROLL
            for (size_t t = 0; t < n_tok; t++) {
                float32x4_t xt = vld1q_f32(x + t * n + i + h * VEC);
                acc[0][t][h] = vfmaq_f32(acc[0][t][h], w0, xt);
                acc[1][t][h] = vfmaq_f32(acc[1][t][h], w1, xt);
            }
        }
    }
    UNROLL
    for (size_t t = 0; t < n_tok; t++) {
        y[t * ldy] = sum_tree(acc[0][t]);
        y[t * ldy + 1] = sum_tree(acc[1][t]);
    }
}

ALWAYS void matmul_float(float *y, size_t ldy, const char *w, enum weight_type type, size_t n_group,
                         size_t n_col, const float *x, size_t n_tok) {
    size_t n = (n_col + FLOAT_LANES - 1) / FLOAT_LANES * FLOAT_LANES;
    size_t row_bytes = n * (type == W_F32 ? sizeof(float) : sizeof(uint16_t));
    size_t pass = PASS_BYTES / (n * sizeof(float) + 1) / TILE_TOK * TILE_TOK;
    if (pass == 0) pass = TILE_TOK;
    for (size_t tok = 0; tok < n_tok; tok += pass) {
        size_t end = n_tok - tok < pass ? n_tok : tok + pass;
        for (size_t r = 0; r < n_group * ROW_GROUP; r += 2) {
            const char *wr = w + r * row_bytes;
            for (size_t t = tok; t < end; t += 2) {
                float *yt = y + t * ldy + r;
                bool ahead = t == 0;
                if (t + 1 < end) {
                    tile_float(yt, ldy, wr, row_bytes, type, ahead, x + t * n, n, 2);
                } else {
                    tile_float(yt, ldy, wr, row_bytes, type, ahead, x + t * n, n, 1);
                }
            }
        }
    }
}

static void matmul_f16(float *y, size_t ldy, const void *w, size_t n_group, size_t n_col,
                       const void *x, size_t n_tok) {
    matmul_float(y, ldy, w, W_F16, n_group, n_col, x, n_tok);
}

static void matmul_f32(float *y, size_t ldy, const void *w, size_t n_group, size_t n_col,
                       const void *x, size_t n_tok) {
    matmul_float(y, ldy, w, W_F32, n_group, n_col, x, n_tok);
}

static void matmul_bf16(float *y, size_t ldy, const void *w, size_t n_group, size_t n_col,
                        const void *x, size_t n_tok) {
    matmul_float(y, ldy, w, W_BF16, n_group, n_col, x, n_tok);
}

/* Activations. */

/* The 32 values of block b of x [n] to v, zeros behind the end. */
ALWAYS void load_block(float32x4_t v[8], const float *x, size_t n, size_t b) {
    float part[Q_BLOCK];
    const float *from = x + b * Q_BLOCK;
    if (n - b * Q_BLOCK < Q_BLOCK) {
        memset(part, 0, sizeof part);
        memcpy(part, from, (n - b * Q_BLOCK) * sizeof *x);
        from = part;
    }
    UNROLL
    for (size_t i = 0; i < 8; i++) v[i] = vld1q_f32(from + i * VEC);
}

/* max |v|, NaN ignored, at most 2^60; 0 when below 2^-60. */
ALWAYS float block_max(const float32x4_t v[8]) {
    float32x4_t m = vdupq_n_f32(0);
    UNROLL
    for (size_t i = 0; i < 8; i++) m = max_number(vabsq_f32(v[i]), m);
    float max = vmaxvq_f32(m);
    if (max > 0x1p60f) max = 0x1p60f;
    return max >= 0x1p-60f ? max : 0;
}

/* rint(v * inv), clamped to +-limit; NaN gives -limit. */
ALWAYS int16x4_t to_int(float32x4_t v, float inv, float limit) {
    float32x4_t s = max_number(vmulq_n_f32(v, inv), vdupq_n_f32(-limit));
    return vmovn_s32(vcvtnq_s32_f32(vminq_f32(s, vdupq_n_f32(limit))));
}

ALWAYS void quantise_block(struct act *q, const float32x4_t v[8]) {
    float a = block_max(v);
    if (a == 0) {
        *q = (struct act){0};
        return;
    }
    q->d = bf16_above(a / 127.0f);
    float inv = 1.0f / bf16_to_f32(q->d);
    UNROLL
    for (size_t i = 0; i < 8; i += 2) {
        int16x8_t w = vcombine_s16(to_int(v[i], inv, 127), to_int(v[i + 1], inv, 127));
        vst1_s8(q->q + i * VEC, vmovn_s16(w));
    }
}

static void quantise(struct act *q, const float *x, size_t n) {
    for (size_t b = 0; b * Q_BLOCK < n; b++) {
        float32x4_t v[8];
        load_block(v, x, n, b);
        quantise_block(&q[b], v);
    }
}

/* What rmsnorm() multiplies x by. */
ALWAYS float norm_scale(const float *x, size_t n, float eps) {
    float32x4_t lane[4] = {vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0)};
    size_t i = 0, whole = n / FLOAT_LANES * FLOAT_LANES;
    for (; i < whole; i += FLOAT_LANES) {
        UNROLL
        for (size_t h = 0; h < 4; h++) {
            float32x4_t v = vld1q_f32(x + i + h * VEC);
            lane[h] = vfmaq_f32(lane[h], v, v);
        }
    }
    float rest[FLOAT_LANES] = {0};
    memcpy(rest, x + whole, (n - whole) * sizeof *x);
    UNROLL
    for (size_t h = 0; h < 4; h++) {
        float32x4_t v = vld1q_f32(rest + h * VEC);
        lane[h] = vfmaq_f32(lane[h], v, v);  // a square of zero changes nothing
    }
    return 1.0f / k_sqrt(sum_tree(lane) / (float)n + eps);
}

static void rmsnorm(float *y, const float *x, const float *w, size_t n, float eps) {
    float s = norm_scale(x, n, eps);
    size_t i = 0;
    for (; i + VEC <= n; i += VEC) {
        float32x4_t v = vmulq_n_f32(vld1q_f32(x + i), s);
        vst1q_f32(y + i, vmulq_f32(v, vld1q_f32(w + i)));
    }
    for (; i < n; i++) y[i] = (x[i] * s) * w[i];
}

static void rmsnorm_quantise(struct act *q, const float *x, const float *w, size_t n, float eps) {
    float s = norm_scale(x, n, eps), rest[Q_BLOCK];
    size_t at = 0;
    for (; at + Q_BLOCK <= n; at += Q_BLOCK) {
        float32x4_t v[8];
        UNROLL
        for (size_t i = 0; i < 8; i++) {
            v[i] = vmulq_n_f32(vld1q_f32(x + at + i * VEC), s);
            v[i] = vmulq_f32(v[i], vld1q_f32(w + at + i * VEC));
        }
        quantise_block(&q[at / Q_BLOCK], v);
    }
    for (size_t i = at; i < n; i++) rest[i - at] = (x[i] * s) * w[i];
    quantise(&q[at / Q_BLOCK], rest, n - at);
}

static void rope(float *x, const float *cs, size_t n_pair) {
    size_t i = 0;
    for (; i + 4 <= n_pair; i += 4) {
        float32x4x2_t v = vld2q_f32(x + 2 * i), a = vld2q_f32(cs + 2 * i);
        float32x4_t down = vnegq_f32(vmulq_f32(v.val[1], a.val[1]));
        float32x4_t up = vmulq_f32(v.val[0], a.val[1]);
        v.val[0] = vfmaq_f32(down, v.val[0], a.val[0]);
        v.val[1] = vfmaq_f32(up, v.val[1], a.val[0]);
        vst2q_f32(x + 2 * i, v);
    }
    for (; i < n_pair; i++) {
        float a = x[2 * i], b = x[2 * i + 1], c = cs[2 * i], s = cs[2 * i + 1];
        x[2 * i] = k_fma(a, c, -(b * s));
        x[2 * i + 1] = k_fma(b, c, a * s);
    }
}

static void silu_mul(float *y, const float *gate, const float *up, size_t n) {
    size_t i = 0;
    for (; i + VEC <= n; i += VEC) {
        float32x4_t g = vld1q_f32(gate + i);
        float32x4_t s = vdivq_f32(g, vaddq_f32(vdupq_n_f32(1.0f), exp4(vnegq_f32(g))));
        vst1q_f32(y + i, vmulq_f32(s, vld1q_f32(up + i)));
    }
    for (; i < n; i++) y[i] = gate[i] / (1.0f + k_exp(-gate[i])) * up[i];
}

static void to_f16(uint16_t *y, const float *x, size_t n) {
    for (size_t i = 0; i < n; i += VEC) {
        float part[VEC] = {0};
        size_t here = n - i < VEC ? n - i : VEC;
        const float *from = x + i;
        if (here < VEC) {
            memcpy(part, from, here * sizeof *x);
            from = part;
        }
        float32x4_t v = max_number(vld1q_f32(from), vdupq_n_f32(-65504.0f));
        v = vminq_f32(v, vdupq_n_f32(65504.0f));
        uint16x4_t h = vreinterpret_u16_f16(vcvt_f16_f32(v));
        if (here == VEC) {
            vst1_u16(y + i, h);
        } else {
            memcpy(y + i, &h, here * sizeof *y);
        }
    }
}

/* Branch outputs, and the residual. */

static void to_wire16(struct wire16 *q, const float *x, size_t n) {
    for (size_t b = 0; b * Q_BLOCK < n; b++) {
        float32x4_t v[8];
        load_block(v, x, n, b);
        float a = block_max(v);
        if (a == 0) {
            q[b] = (struct wire16){0};
            continue;
        }
        q[b].d = a / 32767.0f;
        float inv = 1.0f / q[b].d;
        UNROLL
        for (size_t i = 0; i < 8; i++) vst1_s16(q[b].q + i * VEC, to_int(v[i], inv, 32767));
    }
}

static void add_wire16(float *x, const struct wire16 *q, size_t n) {
    size_t i = 0;
    for (; i + VEC <= n; i += VEC) {
        const struct wire16 *b = &q[i / Q_BLOCK];
        int32x4_t w = vmovl_s16(vld1_s16(b->q + i % Q_BLOCK));
        float32x4_t v = vmulq_n_f32(vcvtq_f32_s32(w), b->d);
        vst1q_f32(x + i, vaddq_f32(vld1q_f32(x + i), v));
    }
    for (; i < n; i++) x[i] += (float)q[i / Q_BLOCK].q[i % Q_BLOCK] * q[i / Q_BLOCK].d;
}

static void add_act(float *x, const struct act *q, size_t n) {
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const struct act *b = &q[i / Q_BLOCK];
        int16x8_t w = vmovl_s8(vld1_s8(b->q + i % Q_BLOCK));
        float d = bf16_to_f32(b->d);
        float32x4_t v0 = vmulq_n_f32(vcvtq_f32_s32(vmovl_s16(vget_low_s16(w))), d);
        float32x4_t v1 = vmulq_n_f32(vcvtq_f32_s32(vmovl_s16(vget_high_s16(w))), d);
        vst1q_f32(x + i, vaddq_f32(vld1q_f32(x + i), v0));
        vst1q_f32(x + i + VEC, vaddq_f32(vld1q_f32(x + i + VEC), v1));
    }
    for (; i < n; i++) {
        x[i] += (float)q[i / Q_BLOCK].q[i % Q_BLOCK] * bf16_to_f32(q[i / Q_BLOCK].d);
    }
}

static size_t topk(int32_t *id, float *val, size_t k, const float *x, size_t n) {
    size_t i, have = topk_fill(id, val, k, x, n, &i);
    for (; have > 0 && i + FLOAT_LANES <= n; i += FLOAT_LANES) {
        float32x4_t bar = vdupq_n_f32(val[0]);
        uint32x4_t over = vdupq_n_u32(0);
        UNROLL
        for (size_t j = 0; j < 4; j++) {
            over = vorrq_u32(over, vcgtq_f32(vld1q_f32(x + i + j * VEC), bar));
        }
        if (vmaxvq_u32(over)) topk_offer(id, val, have, x, i, i + FLOAT_LANES);
    }
    if (have > 0) topk_offer(id, val, have, x, i, n);
    topk_sort(id, val, have);
    return have;
}

void kernels_neon(struct kernels *k) {
    k->name = "neon";
    k->weights[W_F16].matmul = matmul_f16;
    k->weights[W_BF16].matmul = matmul_bf16;
    k->weights[W_F32].matmul = matmul_f32;
    k->quantise = quantise;
    k->rmsnorm = rmsnorm;
    k->rmsnorm_quantise = rmsnorm_quantise;
    k->rope = rope;
    k->silu_mul = silu_mul;
    k->to_f16 = to_f16;
    k->to_wire16 = to_wire16;
    k->add_wire16 = add_wire16;
    k->add_act = add_act;
    k->topk = topk;
}
