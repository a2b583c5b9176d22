/* dotprod.c - matrices of quantised weights with ARMv8.2's dot product (Cortex-A76): four products of
 * bytes are added to each 32-bit lane at once. Same bits as scalar.c.
 *
 * Sums start at the bits of 1.5 * 2^23. As long as they stay within +-2^22 their bits are those of a
 * float, and taking 1.5 * 2^23 away leaves the sum as a float: the A76 converts integers at a quarter of
 * the speed at which it adds floats.
 */
#include "neon_types.h"

enum { TILE_TOK = 4, START = 0x4b400000 };

ALWAYS float32x4_t to_float(int32x4_t sum) {
    return vsubq_f32(vreinterpretq_f32_s32(sum), vdupq_n_f32(0x1.8p23f));
}

/* sum + w . the four activations in lane `lane` of x. */
ALWAYS int32x4_t dot(int32x4_t sum, int8x16_t w, int8x16_t x, size_t lane) {
    switch (lane) {
    case 0: return vdotq_laneq_s32(sum, w, x, 0);
    case 1: return vdotq_laneq_s32(sum, w, x, 1);
    case 2: return vdotq_laneq_s32(sum, w, x, 2);
    default: return vdotq_laneq_s32(sum, w, x, 3);
    }
}

ALWAYS void sum_chunks(int32x4_t sum[TILE_TOK][2], enum weight_type type, const char *w, size_t b,
                       size_t k, size_t first, const char *s8, const char *x, size_t width,
                       size_t n_tok) {
    const struct form f = form_of(type);
    const size_t end = f.has_halves ? first + 4 : 8;
    UNROLL
    for (size_t t = 0; t < n_tok; t++) {
        sum[t][0] = vdupq_n_s32(f.start == 0 ? START : START + f.start * load_int(s8 + 4 * t));
        sum[t][1] = sum[t][0];
    }
    UNROLL
    for (size_t i = first; i < end; i++) {
        size_t c = chunk_at(type, i);
        /* A lane for each token, or, with one token, for each of four chunks. */
        int8x16_t xc = vld1q_s8((const int8_t *)x + (width == 1 ? 16 * (c / 4) : 4 * width * c));
        UNROLL
        for (size_t h = 0; h < 2; h++) {
            int8x16_t wc = load_chunk(type, w, b, k, c, h);
            UNROLL
            for (size_t t = 0; t < n_tok; t++) {
                sum[t][h] = dot(sum[t][h], wc, xc, width == 1 ? c % 4 : t);
                KEEP(sum[t][h]);
            }
        }
    }
}

ALWAYS void sum_halves(float32x4_t s[2], const char *x, size_t width, size_t n_tok) {
    const int8x16_t one = vdupq_n_s8(1);
    UNROLL
    for (size_t u = 0; u < 2; u++) {
        int32x4_t sum = vdupq_n_s32(START);
        if (n_tok == 1) {
            sum = vdotq_s32(vdupq_n_s32(0), vld1q_s8((const int8_t *)x + 16 * u), one);
            sum = vdupq_n_s32(START + vaddvq_s32(sum));
        }
        UNROLL
        for (size_t c = 0; n_tok > 1 && c < 4; c++) {
            sum = vdotq_s32(sum, vld1q_s8((const int8_t *)x + 4 * width * (4 * u + c)), one);
        }
        s[u] = to_float(sum);
    }
}

#include "neon_tile.inc"

static uint64_t multiply(size_t n) {
    int8x16_t w = vdupq_n_s8(1);
    int32x4_t sum[MULTIPLY_SUMS];
    UNROLL
    for (size_t s = 0; s < MULTIPLY_SUMS; s++) sum[s] = vdupq_n_s32(0);
    for (size_t r = 0; r < n; r++) {
        UNROLL
        for (size_t s = 0; s < MULTIPLY_SUMS; s++) {
            sum[s] = vdotq_s32(sum[s], w, w);
            KEEP(sum[s]);
        }
    }
    return n * MULTIPLY_SUMS * sizeof w;
}

void kernels_dotprod(struct kernels *k) {
    k->name = "dotprod";
    install(k);
    k->multiply = multiply;
}
