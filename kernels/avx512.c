/* avx512.c - x86-64 with AVX-512 (F, BW, DQ, VL) and its VNNI. Same bits as scalar.c.
 *
 * A register holds two groups of 8 rows side by side; with one token, where a second stream of weights
 * would cost more than it brings, two chunks of one group.
 */
#include "kernels.h"
#include "x86.h"

enum {
    VEC_ROWS = 16,
    TILE_GROUPS = 4,          // groups of rows of a tile
    TILE_TOK = 4,             // and its tokens
    PREFETCH_AHEAD = 9216,    // one sequential stream of weights, so far ahead into L2 (measured)
    PASS_BYTES = 192 * 1024,  // activations that go over the weights in one pass (L2)
};

typedef __m512 vf;
typedef __m512i vi;

ALWAYS vi load_words(const char *p, size_t step) {
    if (step == 32) return _mm512_loadu_si512(p);
    __m256i lo = _mm256_load_si256((const __m256i *)p);
    return _mm512_inserti64x4(_mm512_castsi256_si512(lo),
                              _mm256_load_si256((const __m256i *)(p + step)), 1);
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

ALWAYS vi spread(const int8_t *x, size_t c) {
    __m512i all = _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *)x));
    int lo = (int)c, hi = lo + 1;
    return _mm512_permutexvar_epi32(
        _mm512_setr_epi32(lo, lo, lo, lo, lo, lo, lo, lo, hi, hi, hi, hi, hi, hi, hi, hi), all);
}

ALWAYS __m256i fold(vi v) {
    return _mm256_add_epi32(_mm512_castsi512_si256(v), _mm512_extracti64x4_epi64(v, 1));
}

ALWAYS vi srl16(vi v, int n) {
    return _mm512_srli_epi16(v, n);
}

ALWAYS vi dot(vi sum, vi w, vi x) {
    return _mm512_dpbusd_epi32(sum, w, x);
}

ALWAYS vf to_floats(vi v) {
    return _mm512_cvtepi32_ps(v);
}

ALWAYS vf multiply_add(vf a, vf b, vf c) {
    return _mm512_fmadd_ps(a, b, c);
}

ALWAYS void store_floats(float *p, vf v, size_t n) {
    if (n >= VEC_ROWS) {
        _mm512_storeu_ps(p, v);
    } else {
        _mm256_storeu_ps(p, _mm512_castps512_ps256(v));
    }
}

#include "vnni.inc"

void kernels_avx512(struct kernels *k) {
    k->name = "avx512";
    k->weights[W_Q4_0].matmul = matmul_q4_0;
    k->weights[W_Q8_0].matmul = matmul_q8_0;
}
