/* avx512.c - x86-64 with AVX-512 (F, BW, DQ, VL) and its VNNI. Same bits as scalar.c. A register holds two groups of 8 rows side by side or, with one token, where
 * a second stream of weights would cost more than it brings, two chunks of one group. */
#include "kernels.h"
#include "x86.h"

enum {
    VEC_ROWS = 16,
    TILE_TOK = 4,             // tokens of a tile
    PREFETCH_AHEAD = 9216,    // one sequential stream of weights, so far ahead into L2 (measured)
    PASS_BYTES = 192 * 1024,  // activations that go over the weights in one pass (L2)
};

typedef __m512 vf;
typedef __m512i vi;

ALWAYS vi load_words(const char *p, size_t step) {
    __m256i lo = _mm256_load_si256((const __m256i *)p);
    return _mm512_inserti64x4(_mm512_castsi256_si512(lo),
                              _mm256_load_si256((const __m256i *)(p + step)), 1);
}

ALWAYS vi load_pair(const char *p) {
    return _mm512_loadu_si512(p);
}

ALWAYS __m128i load_eights(const char *p, size_t step) {
    return _mm_unpacklo_epi64(_mm_loadl_epi64((const __m128i *)p),
                              _mm_loadl_epi64((const __m128i *)(p + step)));
}

ALWAYS vi load_bytes(const char *p, size_t step) {
    return _mm512_cvtepu8_epi32(load_eights(p, step));
}

ALWAYS vi load_signed(const char *p, size_t step) {
    return _mm512_cvtepi8_epi32(load_eights(p, step));
}

ALWAYS vf load_scales(const char *p, size_t step) {
    __m256i lo = _mm256_castsi128_si256(_mm_load_si128((const __m128i *)p));
    return _mm512_cvtph_ps(
        _mm256_inserti128_si256(lo, _mm_load_si128((const __m128i *)(p + step)), 1));
}

ALWAYS vi all_bytes(int x) {
    return _mm512_set1_epi8((char)x);
}

ALWAYS vi all_words(int32_t x) {
    return _mm512_set1_epi32(x);
}

ALWAYS vf all_floats(float x) {
    return _mm512_set1_ps(x);
}

ALWAYS vi all_parts(const void *p) {
    return _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)p));
}

ALWAYS vi chunk_bits(size_t c) {
    return _mm512_inserti64x4(all_bytes(1 << c), _mm256_set1_epi8((char)(2 << c)), 1);
}

ALWAYS vi spread(const int8_t *x, size_t c) {
    __m512i all = _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *)x));
    int lo = (int)c, hi = lo + 1;
    return _mm512_permutexvar_epi32(
        _mm512_setr_epi32(lo, lo, lo, lo, lo, lo, lo, lo, hi, hi, hi, hi, hi, hi, hi, hi), all);
}

ALWAYS __m256i fold(vi v) {
    return _mm256_add_epi32(_mm512_castsi512_si256(v), _mm512_extracti64x4_epi64(v, 1));
}

ALWAYS __m256 low8(vf v) {
    return _mm512_castps512_ps256(v);
}

ALWAYS vi srl16(vi v, int n) {
    return _mm512_srl_epi16(v, _mm_cvtsi32_si128(n));
}

ALWAYS vi srl32(vi v, int n) {
    return _mm512_srl_epi32(v, _mm_cvtsi32_si128(n));
}

ALWAYS vi sll32(vi v, int n) {
    return _mm512_sll_epi32(v, _mm_cvtsi32_si128(n));
}

ALWAYS vi look_up(vi table, vi v) {
    return _mm512_shuffle_epi8(table, v);
}

ALWAYS vi add_where(vi v, vi h, vi bit, vi x) {
    return _mm512_mask_add_epi8(v, _mm512_test_epi8_mask(h, bit), v, x);
}

ALWAYS vi dot(vi sum, vi w, vi x) {
    return _mm512_dpbusd_epi32(sum, w, x);
}

ALWAYS __m128i dot4(__m128i sum, __m128i w, __m128i x) {
    return _mm_dpbusd_epi32(sum, w, x);
}

ALWAYS vf to_floats(vi v) {
    return _mm512_cvtepi32_ps(v);
}

ALWAYS vf as_floats(vi v) {
    return _mm512_castsi512_ps(v);
}

ALWAYS vf multiply_add(vf a, vf b, vf c) {
    return _mm512_fmadd_ps(a, b, c);
}

ALWAYS void store_floats(float *p, vf v, size_t n) {
    if (n >= VEC_ROWS) {
        _mm512_storeu_ps(p, v);
    } else {
        _mm256_storeu_ps(p, low8(v));
    }
}

#include "vnni.inc"

/* Types for which 8 lanes are no better than AVX2 (measured). */

static void matmul_q3_k(float *y, size_t ldy, const void *w, size_t n_group, size_t n_col,
                        const void *x, size_t n_tok) {
    matmul_quantised(W_Q3_K, y, ldy, w, n_group, n_col, x, n_tok);
}

static void matmul_q5_k(float *y, size_t ldy, const void *w, size_t n_group, size_t n_col,
                        const void *x, size_t n_tok) {
    matmul_quantised(W_Q5_K, y, ldy, w, n_group, n_col, x, n_tok);
}

static void matmul_q6_k(float *y, size_t ldy, const void *w, size_t n_group, size_t n_col,
                        const void *x, size_t n_tok) {
    matmul_quantised(W_Q6_K, y, ldy, w, n_group, n_col, x, n_tok);
}

void kernels_avx512(struct kernels *k) {
    k->name = "avx512";
    k->tile_groups = 2 * VEC_ROWS / ROW_GROUP;
    install(k);
    k->weights[W_Q3_K].matmul = matmul_q3_k;
    k->weights[W_Q5_K].matmul = matmul_q5_k;
    k->weights[W_Q6_K].matmul = matmul_q6_k;
}
