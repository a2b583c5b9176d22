/* neon_q.c - matrices of quantised weights on AArch64's baseline (ARMv8.0: Cortex-A53, A72): no dot
 * product instruction. Same bits as scalar.c.
 *
 * Products of bytes are gathered in int16 as long as they fit and then added pairwise into int32, which
 * is what those cores do best.
 */
#include "neon_types.h"

enum {
    TILE_TOK = 2,  // 4 would need more registers than there are (gcc: 3 times slower)
    LOAD_RUN = 4,  // chunks of which gcc may load one before it has multiplied another: with all
                   // of them it spills, with fewer an A53 waits
};

ALWAYS float32x4_t to_float(int32x4_t sum) {
    return vcvtq_f32_s32(sum);
}

/* Four activations of one token in every lane. */
ALWAYS int8x16_t broadcast_word(const char *p) {
    return vreinterpretq_s8_s32(vld1q_dup_s32((const int32_t *)(const void *)p));
}

/* How products are gathered: so many in a lane of int16, and whether two such lanes fit another. */
struct gather {
    size_t chain;
    bool pairs;
};

ALWAYS struct gather gather_of(struct form f) {
    const size_t product = f.largest * 127, n = f.has_halves ? 4 : 8;
    size_t chain = INT16_MAX / product >= 8 ? 8 : INT16_MAX / product >= 4 ? 4 : 2;
    if (chain > n) chain = n;
    return (struct gather){chain, chain == n && 2 * chain * product <= INT16_MAX};
}

/* The sums of rows from those of their pairs or quarters. */
ALWAYS int32x4_t sum_rows(struct gather g, const int16x8_t s[2], const int32x4_t v[2],
                          bool has_start, int32x4_t start) {
    if (g.pairs) {
        int16x8_t both = vpaddq_s16(s[0], s[1]);
        return has_start ? vpadalq_s16(start, both) : vpaddlq_s16(both);
    }
    int32x4_t sum = vpaddq_s32(v[0], v[1]);
    return has_start ? vaddq_s32(sum, start) : sum;
}

ALWAYS void sum_chunks(int32x4_t sum[TILE_TOK][2], enum weight_type type, const char *w, size_t b,
                       size_t k, size_t first, const char *s8, const char *x, size_t width,
                       size_t n_tok) {
    const struct form f = form_of(type);
    const struct gather g = gather_of(f);
    const size_t end = f.has_halves ? first + 4 : 8;
    int16x8_t run[TILE_TOK][2][2];   // rows 0 and 1, rows 2 and 3 of the half
    int32x4_t wide[TILE_TOK][2][2];  // the same, without `pairs`: rows 0 0 1 1, rows 2 2 3 3
    UNROLL
    for (size_t i = first; i < end; i++) {
        const size_t c = chunk_at(type, i), at = (i - first) % g.chain;
        if (i % LOAD_RUN == 0) __asm__ volatile("" : : : "memory");
        UNROLL
        for (size_t h = 0; h < 2; h++) {
            int8x16_t wc = load_chunk(type, w, b, k, c, h);
            UNROLL
            for (size_t t = 0; t < n_tok; t++) {
                int8x16_t xc = broadcast_word(x + 4 * (c * width + t));
                int16x8_t *s = run[t][h];
                s[0] = at == 0 ? vmull_s8(vget_low_s8(wc), vget_low_s8(xc))
                               : vmlal_s8(s[0], vget_low_s8(wc), vget_low_s8(xc));
                s[1] = at == 0 ? vmull_high_s8(wc, xc) : vmlal_high_s8(s[1], wc, xc);
                if (at + 1 < g.chain || g.pairs) continue;
                int32x4_t *v = wide[t][h];
                v[0] = i < first + g.chain ? vpaddlq_s16(s[0]) : vpadalq_s16(v[0], s[0]);
                v[1] = i < first + g.chain ? vpaddlq_s16(s[1]) : vpadalq_s16(v[1], s[1]);
            }
        }
    }
    UNROLL
    for (size_t t = 0; t < n_tok; t++) {
        int32x4_t start = vdupq_n_s32(f.start == 0 ? 0 : f.start * load_int(s8 + 4 * t));
        UNROLL
        for (size_t h = 0; h < 2; h++) {
            sum[t][h] = sum_rows(g, run[t][h], wide[t][h], f.start != 0, start);
        }
    }
}

/* Two tokens are 8 bytes of each chunk; one alone has all chunks in a row. */
ALWAYS void sum_halves(float32x4_t s[2], const char *x, size_t width, size_t n_tok) {
    const int8_t *p = (const int8_t *)x;
    UNROLL
    for (size_t u = 0; u < 2; u++) {
        int16x4_t sum;
        if (n_tok == 1) {
            int16x8_t all = vpaddlq_s8(vld1q_s8(p + 16 * u));
            sum = vpadd_s16(vget_low_s16(all), vget_high_s16(all));
            sum = vpadd_s16(sum, sum);
        } else {
            sum = vpaddl_s8(vld1_s8(p + 4 * width * (4 * u)));
            UNROLL
            for (size_t c = 1; c < 4; c++)
                sum = vpadal_s8(sum, vld1_s8(p + 4 * width * (4 * u + c)));
        }
        float32x2_t f = vcvt_f32_s32(vpaddl_s16(sum));
        s[u] = vcombine_f32(f, f);
    }
}

#include "neon_tile.inc"

static uint64_t multiply(size_t n) {
    int8x16_t w = vdupq_n_s8(1);
    int16x8_t sum[MULTIPLY_SUMS];
    UNROLL
    for (size_t s = 0; s < MULTIPLY_SUMS; s++) sum[s] = vdupq_n_s16(0);
    for (size_t r = 0; r < n; r++) {
        UNROLL
        for (size_t s = 0; s < MULTIPLY_SUMS; s++) {
            sum[s] = s % 2 ? vmlal_high_s8(sum[s], w, w)
                           : vmlal_s8(sum[s], vget_low_s8(w), vget_low_s8(w));
            KEEP(sum[s]);
        }
    }
    return n * MULTIPLY_SUMS * sizeof w / 2;
}

void kernels_neon_q(struct kernels *k) {
    install(k);
    k->multiply = multiply;
}
