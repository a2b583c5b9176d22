/* avx2_k.c - Q6_K on x86-64 with AVX2, FMA and F16C. Same bits as scalar_k.c.
 *
 * maddubs wants one operand unsigned, so the weights stay 0..63, and the 32 that is too much is taken
 * off again as 32 * (sum of the activations). Int16 sums of four chunks may wrap around on the way;
 * the difference is at most 4 * 2 * 32 * 127 = 32512 and exact.
 */
#include "avx2.h"
#include "f16.h"
#include "kernels.h"
#include "x86.h"

enum {
    PREFETCH_AHEAD = 16384,   // one sequential stream of weights, so far ahead into L2 (measured)
    D_BYTES = 2 * ROW_GROUP,  // the d of a super-block of 8 rows
    TILE_TOK = 4,             // tokens of a tile
    PASS_BYTES = 192 * 1024,  // activations that go over the weights in one pass (L2)
};

/* Re-laying. */

#include "relay_k.inc"

/* Matrices. */

/* Four weights, 0..63, of each of 8 rows: chunk c of block k of a half. w: the super-block. */
ALWAYS __m256i load_weights(const char *w, size_t half, size_t k, size_t c) {
    const __m256i own = _mm256_set1_epi8(0x3f), rest = _mm256_set1_epi8((char)0xc0);
    const char *q = w + offsetof(struct kern_q6_k, q) + 768 * half + 32 * c;
    if (k < 3) return _mm256_and_si256(_mm256_load_si256((const __m256i *)(q + 256 * k)), own);
    __m256i v = _mm256_and_si256(_mm256_load_si256((const __m256i *)q), rest);
    UNROLL
    for (size_t p = 1; p < 3; p++) {
        __m256i more = _mm256_load_si256((const __m256i *)(q + 256 * p));
        v = _mm256_or_si256(_mm256_srli_epi16(v, 2), _mm256_and_si256(more, rest));
    }
    return _mm256_srli_epi16(v, 2);
}

/* 32 * the sums of a block's first and last 16 activations; of a 16, the pairs 0 1 and 2 3 of every
 * four stay apart, as in what maddubs makes of weights. excess: [2][width tokens][2]; for one token
 * all lanes alike. x: q of the panel. */
ALWAYS void find_excess(__m256i excess[2], const char *x, size_t width) {
    const __m256i times = _mm256_set1_epi8(32);
    if (width == 1) {
        __m256i v = _mm256_maddubs_epi16(times, _mm256_loadu_si256((const __m256i *)x));
        v = _mm256_add_epi16(v, _mm256_shuffle_epi32(v, 0x4e));
        v = _mm256_add_epi16(v, _mm256_shuffle_epi32(v, 0xb1));
        excess[0] = _mm256_permute2x128_si256(v, v, 0x00);
        excess[1] = _mm256_permute2x128_si256(v, v, 0x11);
        return;
    }
    UNROLL
    for (size_t u = 0; u < 2; u++) {
        UNROLL
        for (size_t e = 0; e < 4; e++) {
            const char *p = x + 4 * width * (4 * u + e);
            __m256i v = _mm256_maddubs_epi16(times, _mm256_load_si256((const __m256i *)p));
            excess[u] = e == 0 ? v : _mm256_add_epi16(excess[u], v);
        }
    }
}

/* Block k of a half: acc[t] += 8 rows times n_tok tokens from `first` on of the panel. */
ALWAYS void block_q6_k(__m256 *acc, const char *w, __m256 scale, size_t half, size_t k,
                       const char *panel, size_t width, size_t first, size_t n_tok) {
    const char *d = panel + 4 * first, *x = panel + 8 * width;
    __m256i excess[2], sum[TILE_TOK], total[TILE_TOK];
    find_excess(excess, x, width);
    __m128i sc = _mm_load_si128((const __m128i *)(w + (8 * half + 2 * k) * ROW_GROUP));
    UNROLL
    for (size_t u = 0; u < 2; u++) {
        UNROLL
        for (size_t e = 0; e < 4; e++) {
            __m256i q = load_weights(w, half, k, 4 * u + e);
            UNROLL
            for (size_t t = 0; t < n_tok; t++) {
                const char *xt = x + 4 * ((4 * u + e) * width + first + t);
                __m256i p = _mm256_maddubs_epi16(q, _mm256_set1_epi32(load_i32(xt)));
                sum[t] = e == 0 ? p : _mm256_add_epi16(sum[t], p);
                KEEP(sum[t]);
            }
        }
        __m128i both = u == 0 ? _mm_unpacklo_epi8(sc, sc) : _mm_unpackhi_epi8(sc, sc);
        __m256i sc16 = _mm256_cvtepi8_epi16(both);
        UNROLL
        for (size_t t = 0; t < n_tok; t++) {
            __m256i over = excess[u];
            if (width > 1)
                over = _mm256_set1_epi32(load_i32((const char *)&excess[u] + 4 * (first + t)));
            __m256i p = _mm256_madd_epi16(_mm256_sub_epi16(sum[t], over), sc16);
            total[t] = u == 0 ? p : _mm256_add_epi32(total[t], p);
        }
    }
    UNROLL
    for (size_t t = 0; t < n_tok; t++) {
        __m256 dd = _mm256_mul_ps(scale, _mm256_set1_ps(load_f32(d + 4 * t)));
        acc[t] = _mm256_fmadd_ps(dd, _mm256_cvtepi32_ps(total[t]), acc[t]);
    }
}

/* A tile: 8 rows (d: their group) times n_tok tokens from `first` on of panels of `width`; `ahead`
 * bytes ahead are fetched into L2, if not 0. width and n_tok are constants where it is inlined. */
ALWAYS void tile_q6_k(float *y, size_t ldy, const char *d, size_t n_super, size_t ahead,
                      const char *panel, size_t width, size_t first, size_t n_tok) {
    const char *w = d + (n_super * D_BYTES + 63) / 64 * 64;
    __m256 acc[TILE_TOK];
    UNROLL
    for (size_t t = 0; t < n_tok; t++) acc[t] = _mm256_setzero_ps();
    for (size_t b = 0; b < n_super; b++, w += sizeof(struct kern_q6_k), d += D_BYTES) {
        __m256 scale = _mm256_cvtph_ps(_mm_load_si128((const __m128i *)d));
        if (ahead && b % 4 == 0) _mm_prefetch(d + ahead, _MM_HINT_T1);
        for (size_t half = 0; half < 2; half++) {
            UNROLL
            for (size_t i = 0; ahead && i < sizeof(struct kern_q6_k) / 128; i++) {
                _mm_prefetch(w + ahead + sizeof(struct kern_q6_k) / 2 * half + 64 * i, _MM_HINT_T1);
            }
            UNROLL
            for (size_t k = 0; k < 4; k++, panel += 40 * width) {
                block_q6_k(acc, w, scale, half, k, panel, width, first, n_tok);
            }
        }
    }
    UNROLL
    for (size_t t = 0; t < n_tok; t++) _mm256_storeu_ps(y + t * ldy, acc[t]);
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
                switch (end - t) {
                case 1: tile_q6_k(yt, ldy, wg, n_super, ahead, panel, 8, t % 8, 1); break;
                case 2: tile_q6_k(yt, ldy, wg, n_super, ahead, panel, 8, t % 8, 2); break;
                case 3: tile_q6_k(yt, ldy, wg, n_super, ahead, panel, 8, t % 8, 3); break;
                default: tile_q6_k(yt, ldy, wg, n_super, ahead, panel, 8, t % 8, TILE_TOK); break;
                }
            }
        }
    }
}

void kernels_avx2_k(struct kernels *k) {
    k->weights[W_Q6_K].relay = relay_q6_k;
    k->weights[W_Q6_K].matmul = matmul_q6_k;
}
