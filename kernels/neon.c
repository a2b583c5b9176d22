/* neon.c - AArch64's baseline (ARMv8.0: Cortex-A53, A72): no dot product instruction. Same bits as
 * scalar.c; see kernels.h for what each does.
 *
 * The 16 lanes of the contract are four registers. Products of bytes are gathered in int16 as long
 * as they fit and then added pairwise into int32, which is what those cores do best.
 */
#include "neon.h"
#include "f16.h"
#include "kernels.h"
#include "topk.h"

#include <string.h>

enum {
    PREFETCH_AHEAD = 1536,    // about the latency of a Pi's memory times its bandwidth
    TILE_TOK = 2,             // 4 would need more registers than there are (gcc: 3 times slower)
    PASS_BYTES = 128 * 1024,  // activations that go over the weights in one pass (L2)
};

/* Re-laying. */

/* 16 bytes of each of 8 rows, `step` apart, to four runs of [8 rows][4 bytes]. */
ALWAYS void transpose_words(void *dst, const char *src, size_t step) {
    uint8_t *out = dst;
    UNROLL
    for (size_t half = 0; half < 2; half++) {
        uint32x4_t v[4];
        UNROLL
        for (size_t r = 0; r < 4; r++) {
            const uint8_t *row = (const uint8_t *)src + (half * 4 + r) * step;
            v[r] = vreinterpretq_u32_u8(vld1q_u8(row));
        }
        uint64x2_t a = vreinterpretq_u64_u32(vtrn1q_u32(v[0], v[1]));
        uint64x2_t b = vreinterpretq_u64_u32(vtrn2q_u32(v[0], v[1]));
        uint64x2_t c = vreinterpretq_u64_u32(vtrn1q_u32(v[2], v[3]));
        uint64x2_t d = vreinterpretq_u64_u32(vtrn2q_u32(v[2], v[3]));
        vst1q_u8(out + 16 * half, vreinterpretq_u8_u64(vtrn1q_u64(a, c)));
        vst1q_u8(out + 16 * half + 32, vreinterpretq_u8_u64(vtrn1q_u64(b, d)));
        vst1q_u8(out + 16 * half + 64, vreinterpretq_u8_u64(vtrn2q_u64(a, c)));
        vst1q_u8(out + 16 * half + 96, vreinterpretq_u8_u64(vtrn2q_u64(b, d)));
    }
}

ALWAYS unsigned scales_are_bad(const uint16_t *d) {
    const uint16x8_t exponent = vdupq_n_u16(0x7c00);
    return vmaxvq_u16(vceqq_u16(vandq_u16(vld1q_u16(d), exponent), exponent));
}

/* s8 [8 tokens] = -8 * the sums of q [8][8 tokens][4]. */
ALWAYS void block_sums(int32_t *s8, const int8_t *q) {
    UNROLL
    for (size_t h = 0; h < 2; h++) {
        int16x8_t sum = vdupq_n_s16(0);  // at most 16 * 127
        UNROLL
        for (size_t c = 0; c < 8; c++) sum = vpadalq_s8(sum, vld1q_s8(q + 32 * c + 16 * h));
        vst1q_s32(s8 + 4 * h, vmulq_n_s32(vpaddlq_s16(sum), -8));
    }
}

#include "relay.inc"

/* Matrices of quantised weights. */

/* Four activations of one token in every lane. */
ALWAYS int8x16_t broadcast_word(const char *p) {
    int32_t v;
    memcpy(&v, p, sizeof v);
    return vreinterpretq_s8_s32(vdupq_n_s32(v));
}

ALWAYS int32_t load_int(const char *p) {
    int32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

ALWAYS float load_one(const char *p) {
    float v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* Eight values at index i of an array of f32 or f16: float weights, keys, values. */
/* A tile: 8 rows times n_tok tokens from `first` on of panels of `width` tokens; weights `ahead`
 * bytes ahead are fetched, if not 0. width and n_tok are constants where it is inlined. */
ALWAYS void tile_q4_0(float *y, size_t ldy, const char *w, size_t n_quad, size_t ahead,
                      const char *panel, size_t width, size_t first, size_t n_tok) {
    const uint8x16_t nibble = vdupq_n_u8(15);
    float32x4_t acc[TILE_TOK][2];
    UNROLL
    for (size_t t = 0; t < n_tok; t++) acc[t][0] = acc[t][1] = vdupq_n_f32(0);
    for (size_t block = 0; block < n_quad * 4; block++, panel += 40 * width) {
        const char *quad = w + block / 4 * sizeof(struct kern_q4_0);
        const char *q = quad + offsetof(struct kern_q4_0, q) + 128 * (block % 4);
        const char *d = panel + 4 * first, *s8 = d + 4 * width, *x = s8 + 4 * width;
        if (ahead) {
            if (block % 4 == 0) __builtin_prefetch(quad + ahead);
            __builtin_prefetch(q + ahead);
            __builtin_prefetch(q + ahead + 64);
        }
        int16x8_t sum[TILE_TOK][4];  // two rows in each; at most 8 * 15 * 127 = 15240 in a lane
        UNROLL
        for (size_t c = 0; c < 4; c++) {
            UNROLL
            for (size_t h = 0; h < 2; h++) {
                uint8x16_t p = vld1q_u8((const uint8_t *)q + 32 * c + 16 * h);
                int8x16_t lo = vreinterpretq_s8_u8(vandq_u8(p, nibble));
                int8x16_t hi = vreinterpretq_s8_u8(vshrq_n_u8(p, 4));
                UNROLL
                for (size_t t = 0; t < n_tok; t++) {
                    int8x16_t xl = broadcast_word(x + 4 * (c * width + t));
                    int8x16_t xh = broadcast_word(x + 4 * ((c + 4) * width + t));
                    int16x8_t *s = &sum[t][2 * h];
                    s[0] = c == 0 ? vmull_s8(vget_low_s8(lo), vget_low_s8(xl))
                                  : vmlal_s8(s[0], vget_low_s8(lo), vget_low_s8(xl));
                    s[1] = c == 0 ? vmull_high_s8(lo, xl) : vmlal_high_s8(s[1], lo, xl);
                    s[0] = vmlal_s8(s[0], vget_low_s8(hi), vget_low_s8(xh));
                    s[1] = vmlal_high_s8(s[1], hi, xh);
                }
            }
        }
        UNROLL
        for (size_t h = 0; h < 2; h++) {
            const char *dw = quad + sizeof(uint16_t[ROW_GROUP]) * (block % 4);
            float32x4_t scale = load_float(dw, 4 * h, true);
            UNROLL
            for (size_t t = 0; t < n_tok; t++) {
                int32x4_t i = vpadalq_s16(vdupq_n_s32(load_int(s8 + 4 * t)),
                                          vpaddq_s16(sum[t][2 * h], sum[t][2 * h + 1]));
                float32x4_t dd = vmulq_n_f32(scale, load_one(d + 4 * t));
                acc[t][h] = vfmaq_f32(acc[t][h], dd, vcvtq_f32_s32(i));
            }
        }
    }
    UNROLL
    for (size_t t = 0; t < n_tok; t++) {
        vst1q_f32(y + t * ldy, acc[t][0]);
        vst1q_f32(y + t * ldy + VEC, acc[t][1]);
    }
}

ALWAYS void tile_q8_0(float *y, size_t ldy, const char *w, size_t n_quad, size_t ahead,
                      const char *panel, size_t width, size_t first, size_t n_tok) {
    float32x4_t acc[TILE_TOK][2];
    UNROLL
    for (size_t t = 0; t < n_tok; t++) acc[t][0] = acc[t][1] = vdupq_n_f32(0);
    for (size_t block = 0; block < n_quad * 4; block++, panel += 40 * width) {
        const char *quad = w + block / 4 * sizeof(struct kern_q8_0);
        const char *q = quad + offsetof(struct kern_q8_0, q) + 256 * (block % 4);
        const char *d = panel + 4 * first, *x = d + 8 * width;
        if (ahead) {
            if (block % 4 == 0) __builtin_prefetch(quad + ahead);
            UNROLL
            for (size_t l = 0; l < 4; l++) __builtin_prefetch(q + ahead + 64 * l);
        }
        int32x4_t sum[TILE_TOK][2][2];  // [token][half]: rows 0 0 1 1 and 2 2 3 3 of the half
        UNROLL
        for (size_t c = 0; c < 8; c += 2) {
            UNROLL
            for (size_t h = 0; h < 2; h++) {
                int8x16_t w0 = vld1q_s8((const int8_t *)q + 32 * c + 16 * h);
                int8x16_t w1 = vld1q_s8((const int8_t *)q + 32 * c + 32 + 16 * h);
                UNROLL
                for (size_t t = 0; t < n_tok; t++) {
                    int8x16_t x0 = broadcast_word(x + 4 * (c * width + t));
                    int8x16_t x1 = broadcast_word(x + 4 * ((c + 1) * width + t));
                    /* Two products are at most 2 * 128 * 127 = 32512: they fit int16, just. */
                    int16x8_t lo = vmull_s8(vget_low_s8(w0), vget_low_s8(x0));
                    int16x8_t hi = vmull_high_s8(w0, x0);
                    lo = vmlal_s8(lo, vget_low_s8(w1), vget_low_s8(x1));
                    hi = vmlal_high_s8(hi, w1, x1);
                    int32x4_t *s = sum[t][h];
                    s[0] = c == 0 ? vpaddlq_s16(lo) : vpadalq_s16(s[0], lo);
                    s[1] = c == 0 ? vpaddlq_s16(hi) : vpadalq_s16(s[1], hi);
                }
            }
        }
        UNROLL
        for (size_t h = 0; h < 2; h++) {
            const char *dw = quad + sizeof(uint16_t[ROW_GROUP]) * (block % 4);
            float32x4_t scale = load_float(dw, 4 * h, true);
            UNROLL
            for (size_t t = 0; t < n_tok; t++) {
                float32x4_t i = vcvtq_f32_s32(vpaddq_s32(sum[t][h][0], sum[t][h][1]));
                float32x4_t dd = vmulq_n_f32(scale, load_one(d + 4 * t));
                acc[t][h] = vfmaq_f32(acc[t][h], dd, i);
            }
        }
    }
    UNROLL
    for (size_t t = 0; t < n_tok; t++) {
        vst1q_f32(y + t * ldy, acc[t][0]);
        vst1q_f32(y + t * ldy + VEC, acc[t][1]);
    }
}

ALWAYS void tile(enum weight_type type, float *y, size_t ldy, const char *w, size_t n_quad,
                 size_t ahead, const char *panel, size_t width, size_t first, size_t n_tok) {
    if (type == W_Q4_0) {
        tile_q4_0(y, ldy, w, n_quad, ahead, panel, width, first, n_tok);
    } else {
        tile_q8_0(y, ldy, w, n_quad, ahead, panel, width, first, n_tok);
    }
}

ALWAYS void matmul_quantised(enum weight_type type, size_t quad_bytes, float *y, size_t ldy,
                             const char *w, size_t n_group, size_t n_col, const char *x,
                             size_t n_tok) {
    size_t n_quad = (n_col + COL_UNIT - 1) / COL_UNIT, group = n_quad * quad_bytes;
    size_t run = n_quad * 4 * sizeof(struct panel8);
    if (n_tok == 1) {
        for (size_t g = 0; g < n_group; g++) {
            tile(type, y + g * ROW_GROUP, ldy, w + g * group, n_quad, PREFETCH_AHEAD, x, 1, 0, 1);
        }
        return;
    }
    size_t pass = PASS_BYTES / (run + 1) * 8;
    if (pass < 8) pass = 8;
    for (size_t tok = 0; tok < n_tok; tok += pass) {
        size_t end = n_tok - tok < pass ? n_tok : tok + pass;
        for (size_t g = 0; g < n_group; g++) {
            for (size_t t = tok; t < end; t += 2) {
                size_t ahead = t == 0 ? group : 0;  // the rows that come after these
                const char *panel = x + t / 8 * run;
                float *yt = y + t * ldy + g * ROW_GROUP;
                if (t + 1 < end) {
                    tile(type, yt, ldy, w + g * group, n_quad, ahead, panel, 8, t % 8, 2);
                } else {
                    tile(type, yt, ldy, w + g * group, n_quad, ahead, panel, 8, t % 8, 1);
                }
            }
        }
    }
}

static void matmul_q4_0(float *y, size_t ldy, const void *w, size_t n_group, size_t n_col,
                        const void *x, size_t n_tok) {
    matmul_quantised(W_Q4_0, sizeof(struct kern_q4_0), y, ldy, w, n_group, n_col, x, n_tok);
}

static void matmul_q8_0(float *y, size_t ldy, const void *w, size_t n_group, size_t n_col,
                        const void *x, size_t n_tok) {
    matmul_quantised(W_Q8_0, sizeof(struct kern_q8_0), y, ldy, w, n_group, n_col, x, n_tok);
}

/* Two rows times n_tok tokens; the next two rows are fetched when `ahead`. */
ALWAYS void tile_float(float *y, size_t ldy, const char *w, size_t row_bytes, bool half, bool ahead,
                       const float *x, size_t n, size_t n_tok) {
    float32x4_t acc[2][TILE_TOK][4];
    UNROLL
    for (size_t t = 0; t < n_tok; t++) {
        UNROLL
        for (size_t h = 0; h < 4; h++) acc[0][t][h] = acc[1][t][h] = vdupq_n_f32(0);
    }
    for (size_t i = 0; i < n; i += FLOAT_LANES) {
        if (ahead) {
            const char *next = w + 2 * row_bytes + (half ? 2 * i : 4 * i);
            __builtin_prefetch(next, 0, 2);
            __builtin_prefetch(next + row_bytes, 0, 2);
        }
        UNROLL
        for (size_t h = 0; h < 4; h++) {
            float32x4_t w0 = load_float(w, i + h * VEC, half);
            float32x4_t w1 = load_float(w + row_bytes, i + h * VEC, half);
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

ALWAYS void matmul_float(float *y, size_t ldy, const char *w, bool half, size_t n_group,
                         size_t n_col, const float *x, size_t n_tok) {
    size_t n = (n_col + FLOAT_LANES - 1) / FLOAT_LANES * FLOAT_LANES;
    size_t row_bytes = n * (half ? sizeof(uint16_t) : sizeof(float));
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
                    tile_float(yt, ldy, wr, row_bytes, half, ahead, x + t * n, n, 2);
                } else {
                    tile_float(yt, ldy, wr, row_bytes, half, ahead, x + t * n, n, 1);
                }
            }
        }
    }
}

static void matmul_f16(float *y, size_t ldy, const void *w, size_t n_group, size_t n_col,
                       const void *x, size_t n_tok) {
    matmul_float(y, ldy, w, true, n_group, n_col, x, n_tok);
}

static void matmul_f32(float *y, size_t ldy, const void *w, size_t n_group, size_t n_col,
                       const void *x, size_t n_tok) {
    matmul_float(y, ldy, w, false, n_group, n_col, x, n_tok);
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

static void quantise(struct act *q, const float *x, size_t n) {
    for (size_t b = 0; b * Q_BLOCK < n; b++) {
        float32x4_t v[8];
        load_block(v, x, n, b);
        float a = block_max(v);
        if (a == 0) {
            q[b] = (struct act){0};
            continue;
        }
        q[b].d = bf16_above(a / 127.0f);
        float inv = 1.0f / bf16_to_f32(q[b].d);
        UNROLL
        for (size_t i = 0; i < 8; i += 2) {
            int16x8_t w = vcombine_s16(to_int(v[i], inv, 127), to_int(v[i + 1], inv, 127));
            vst1_s8(q[b].q + i * VEC, vmovn_s16(w));
        }
    }
}

static void pack_one(struct panel1 *out, const struct act *q, size_t n_block) {
    for (size_t b = 0; b < n_block; b++) {
        int8x16_t lo = vld1q_s8(q[b].q), hi = vld1q_s8(q[b].q + 16);
        out[b].d[0] = bf16_to_f32(q[b].d);
        out[b].s8[0] = -8 * vaddvq_s32(vpaddlq_s16(vpadalq_s8(vpaddlq_s8(lo), hi)));
        vst1q_s8(out[b].q[0][0], lo);
        vst1q_s8(out[b].q[4][0], hi);
    }
    for (size_t b = n_block; b < (n_block + 3) / 4 * 4; b++) memset(&out[b], 0, sizeof out[b]);
}

static void pack(void *panel, const struct act *q, size_t ldq, size_t n_block, size_t n_tok) {
    if (n_tok == 1) {
        pack_one(panel, q, n_block);
    } else {
        pack_eights(panel, q, ldq, n_block, n_tok);
    }
}

static void rmsnorm(float *y, const float *x, const float *w, size_t n, float eps) {
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
    float s = 1.0f / k_sqrt(sum_tree(lane) / (float)n + eps);
    for (i = 0; i < whole; i += VEC) {
        float32x4_t v = vmulq_n_f32(vld1q_f32(x + i), s);
        vst1q_f32(y + i, vmulq_f32(v, vld1q_f32(w + i)));
    }
    for (; i < n; i++) y[i] = (x[i] * s) * w[i];
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
    k->weights[W_Q4_0].relay = relay_q4_0;
    k->weights[W_Q4_0].matmul = matmul_q4_0;
    k->weights[W_Q8_0].relay = relay_q8_0;
    k->weights[W_Q8_0].matmul = matmul_q8_0;
    k->weights[W_F16].matmul = matmul_f16;
    k->weights[W_F32].matmul = matmul_f32;
    k->quantise = quantise;
    k->pack = pack;
    k->rmsnorm = rmsnorm;
    k->rope = rope;
    k->silu_mul = silu_mul;
    k->to_f16 = to_f16;
    k->to_wire16 = to_wire16;
    k->add_wire16 = add_wire16;
    k->add_act = add_act;
    k->topk = topk;
}
