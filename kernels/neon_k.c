/* neon_k.c - Q6_K on AArch64's baseline (ARMv8.0: no dot product instruction). Same bits as scalar_k.c.
 *
 * A chunk is unpacked once for all four blocks of its half. Four products of bytes fit int16 (4 * 32 *
 * 127 = 16256), and so does the sum of two such neighbours (32512).
 */
#include "f16.h"
#include "kernels.h"

#include <arm_neon.h>
#include <string.h>

#define ALWAYS static inline __attribute__((always_inline))
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

/* Tells gcc that v is used here, and memory, too: it would load and unpack ahead and spill (1340 instead
 * of 2006 instructions for a tile). Emits nothing. */
#define KEEP(v) __asm__ volatile("" : "+w"(v) : : "memory")

enum {
    VEC = 4,                  // floats in a register
    PREFETCH_AHEAD = 1536,    // about the latency of a Pi's memory times its bandwidth
    D_BYTES = 2 * ROW_GROUP,  // the d of a super-block of 8 rows
    TILE_TOK = 2,             // tokens of a tile
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

/* 16 bytes of each of 8 rows, `step` apart, to [16][8 rows]. */
ALWAYS void transpose_bytes(void *dst, const char *src, size_t step) {
    uint8x16_t v[8], w[8];
    uint8_t *out = dst;
    UNROLL
    for (size_t r = 0; r < 8; r++) v[r] = vld1q_u8((const uint8_t *)src + r * step);
    UNROLL
    for (size_t r = 0; r < 4; r++) {  // rows r and r + 4 side by side, then 2 apart, then 1
        w[2 * r] = vzip1q_u8(v[r], v[r + 4]);
        w[2 * r + 1] = vzip2q_u8(v[r], v[r + 4]);
    }
    UNROLL
    for (size_t i = 0; i < 2; i++) {
        uint8x16_t even0 = vzip1q_u8(w[i], w[4 + i]), even1 = vzip2q_u8(w[i], w[4 + i]);
        uint8x16_t odd0 = vzip1q_u8(w[2 + i], w[6 + i]), odd1 = vzip2q_u8(w[2 + i], w[6 + i]);
        vst1q_u8(out + 64 * i, vzip1q_u8(even0, odd0));
        vst1q_u8(out + 64 * i + 16, vzip2q_u8(even0, odd0));
        vst1q_u8(out + 64 * i + 32, vzip1q_u8(even1, odd1));
        vst1q_u8(out + 64 * i + 48, vzip2q_u8(even1, odd1));
    }
}

#include "relay_k.inc"

/* Matrices. */

/* Four activations of one token in every lane. */
ALWAYS int8x16_t broadcast_word(const char *p) {
    int32_t v;
    memcpy(&v, p, sizeof v);
    return vreinterpretq_s8_s32(vdupq_n_s32(v));
}

ALWAYS float load_one(const char *p) {
    float v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* Four values at index i of an array of f16. */
ALWAYS float32x4_t load_half(const char *p, size_t i) {
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16((const uint16_t *)(const void *)p + i)));
}

/* Four weights of each of 4 rows, of all four blocks of a half. q: the chunk in plane 0. */
ALWAYS void load_weights(int8x16_t w[4], const char *q) {
    const uint8x16_t own = vdupq_n_u8(0x3f);
    uint8x16_t p[3], last;
    UNROLL
    for (size_t k = 0; k < 3; k++) {
        p[k] = vld1q_u8((const uint8_t *)q + 256 * k);
        w[k] = vreinterpretq_s8_u8(vandq_u8(p[k], own));
    }
    last = vsriq_n_u8(p[1], p[0], 2);  // the pairs of bits move down as the next comes on top
    last = vsriq_n_u8(p[2], last, 2);
    w[3] = vreinterpretq_s8_u8(vshrq_n_u8(last, 2));
    UNROLL
    for (size_t k = 0; k < 4; k++) w[k] = vsubq_s8(w[k], vdupq_n_s8(32));
}

/* total[k][t] += the scaled sums of 16 columns (chunks 4u..4u+3) of block k, for 4 rows. q: the half's
 * weights of these rows; x: q of the panel of its first block; sc: the scales of its 16 columns. */
ALWAYS void sum_columns(int32x4_t total[4][TILE_TOK], const char *q, const char *x,
                        const int16x4_t sc[4], size_t u, size_t width, size_t n_tok) {
    int16x8_t sum[4][TILE_TOK][2];  // rows 0 and 1, rows 2 and 3
    UNROLL
    for (size_t e = 0; e < 4; e++) {
        int8x16_t w[4];
        load_weights(w, q + 32 * (4 * u + e));
        UNROLL
        for (size_t k = 0; k < 4; k++) {
            UNROLL
            for (size_t t = 0; t < n_tok; t++) {
                int8x16_t xt = broadcast_word(x + 40 * width * k + 4 * ((4 * u + e) * width + t));
                int16x8_t *s = sum[k][t];
                s[0] = e == 0 ? vmull_s8(vget_low_s8(w[k]), vget_low_s8(xt))
                              : vmlal_s8(s[0], vget_low_s8(w[k]), vget_low_s8(xt));
                s[1] = e == 0 ? vmull_high_s8(w[k], xt) : vmlal_high_s8(s[1], w[k], xt);
                KEEP(s[0]);
                KEEP(s[1]);
            }
        }
    }
    UNROLL
    for (size_t k = 0; k < 4; k++) {
        int32x4_t scale = vmovl_s16(sc[k]);
        UNROLL
        for (size_t t = 0; t < n_tok; t++) {
            int32x4_t i = vpaddlq_s16(vpaddq_s16(sum[k][t][0], sum[k][t][1]));
            total[k][t] = u == 0 ? vmulq_s32(i, scale) : vmlaq_s32(total[k][t], i, scale);
        }
    }
}

/* A half of a super-block w: acc[t][] += 8 rows times n_tok tokens from `first` on of the panel. */
ALWAYS void half_q6_k(float32x4_t acc[TILE_TOK][2], const char *w, const char *scales, size_t half,
                      const char *panel, size_t width, size_t first, size_t n_tok) {
    const char *d = panel + 4 * first, *x = panel + 8 * width + 4 * first;
    const int8_t *sc = (const int8_t *)w + 8 * half * ROW_GROUP;
    UNROLL
    for (size_t h = 0; h < 2; h++) {  // rows 0-3, rows 4-7
        const char *q = w + offsetof(struct kern_q6_k, q) + 768 * half + 16 * h;
        float32x4_t scale = load_half(scales, 4 * h);
        int32x4_t total[4][TILE_TOK];
        UNROLL
        for (size_t u = 0; u < 2; u++) {
            int16x4_t own[4];
            UNROLL
            for (size_t k = 0; k < 4; k++) {
                int16x8_t all = vmovl_s8(vld1_s8(sc + (2 * k + u) * ROW_GROUP));
                own[k] = h == 0 ? vget_low_s16(all) : vget_high_s16(all);
            }
            sum_columns(total, q, x, own, u, width, n_tok);
        }
        UNROLL
        for (size_t k = 0; k < 4; k++) {
            UNROLL
            for (size_t t = 0; t < n_tok; t++) {
                float32x4_t dd = vmulq_n_f32(scale, load_one(d + 40 * width * k + 4 * t));
                acc[t][h] = vfmaq_f32(acc[t][h], dd, vcvtq_f32_s32(total[k][t]));
            }
        }
    }
}

/* A tile: 8 rows (d: their group) times n_tok tokens from `first` on of panels of `width`; `ahead`
 * bytes ahead are fetched, if not 0. width and n_tok are constants where it is inlined. */
ALWAYS void tile_q6_k(float *y, size_t ldy, const char *d, size_t n_super, size_t ahead,
                      const char *panel, size_t width, size_t first, size_t n_tok) {
    const char *w = d + (n_super * D_BYTES + 63) / 64 * 64;
    float32x4_t acc[TILE_TOK][2];
    UNROLL
    for (size_t t = 0; t < n_tok; t++) acc[t][0] = acc[t][1] = vdupq_n_f32(0);
    for (size_t b = 0; b < n_super; b++, w += sizeof(struct kern_q6_k), d += D_BYTES) {
        if (ahead && b % 4 == 0) __builtin_prefetch(d + ahead);
        for (size_t half = 0; half < 2; half++, panel += 4 * 40 * width) {
            UNROLL
            for (size_t i = 0; ahead && i < sizeof(struct kern_q6_k) / 128; i++) {
                __builtin_prefetch(w + ahead + sizeof(struct kern_q6_k) / 2 * half + 64 * i);
            }
            half_q6_k(acc, w, d, half, panel, width, first, n_tok);
        }
    }
    UNROLL
    for (size_t t = 0; t < n_tok; t++) {
        vst1q_f32(y + t * ldy, acc[t][0]);
        vst1q_f32(y + t * ldy + VEC, acc[t][1]);
    }
}

static void matmul_q6_k(float *y, size_t ldy, const void *weights, size_t n_group, size_t n_col,
                        const void *x, size_t n_tok) {
    size_t n_super = n_col / Q_SUPER, group = weight_group_bytes(W_Q6_K, n_col);
    const char *w = weights;
    if (n_tok == 1) {
        for (size_t g = 0; g < n_group; g++) {
            tile_q6_k(y + g * ROW_GROUP, ldy, w + g * group, n_super, PREFETCH_AHEAD, x, 1, 0, 1);
        }
        return;
    }
    size_t run = n_super * 8 * sizeof(struct panel8), pass = PASS_BYTES / (run + 1) * 8;
    if (pass < 8) pass = 8;
    for (size_t tok = 0; tok < n_tok; tok += pass) {
        size_t end = n_tok - tok < pass ? n_tok : tok + pass;
        for (size_t g = 0; g < n_group; g++) {
            const char *wg = w + g * group;
            for (size_t t = tok; t < end; t += TILE_TOK) {
                const char *panel = (const char *)x + t / 8 * run;
                float *yt = y + t * ldy + g * ROW_GROUP;
                size_t ahead = t == 0 ? group : 0;  // the rows that come after these
                if (t + 1 < end) {
                    tile_q6_k(yt, ldy, wg, n_super, ahead, panel, 8, t % 8, TILE_TOK);
                } else {
                    tile_q6_k(yt, ldy, wg, n_super, ahead, panel, 8, t % 8, 1);
                }
            }
        }
    }
}

void kernels_neon_k(struct kernels *k) {
    k->weights[W_Q6_K].relay = relay_q6_k;
    k->weights[W_Q6_K].matmul = matmul_q6_k;
}
