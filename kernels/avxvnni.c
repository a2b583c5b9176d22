/* avxvnni.c - x86-64 with AVX2 and its VNNI, as Alder Lake and its small cores have it (AVX-512 CPUs use
 * avx512.c). Same bits as scalar.c. */
#include "kernels.h"
#include "x86.h"

enum {
    VEC_ROWS = 8,
    TILE_GROUPS = 2,          // groups of rows of a tile
    TILE_TOK = 4,             // and its tokens
    PREFETCH_AHEAD = 9216,    // one sequential stream of weights, so far ahead into L2 (measured)
    PASS_BYTES = 192 * 1024,  // activations that go over the weights in one pass (L2)
};

typedef __m256 vf;
typedef __m256i vi;

ALWAYS vi load_words(const char *p, size_t step) {
    (void)step;
    return _mm256_load_si256((const __m256i *)p);
}

ALWAYS vf load_scales(const char *p, size_t step) {
    (void)step;
    return _mm256_cvtph_ps(_mm_load_si128((const __m128i *)p));
}

ALWAYS vi all_bytes(int x) {
    return _mm256_set1_epi8((char)x);
}

ALWAYS vi all_words(int32_t x) {
    return _mm256_set1_epi32(x);
}

ALWAYS vf all_floats(float x) {
    return _mm256_set1_ps(x);
}

ALWAYS vi spread(const int8_t *x, size_t c) {
    return all_words(load_i32(x + 4 * c));
}

ALWAYS vi fold(vi v) {
    return v;
}

ALWAYS vi srl16(vi v, int n) {
    return _mm256_srli_epi16(v, n);
}

ALWAYS vi dot(vi sum, vi w, vi x) {
    return _mm256_dpbusd_avx_epi32(sum, w, x);
}

ALWAYS vf to_floats(vi v) {
    return _mm256_cvtepi32_ps(v);
}

ALWAYS vf multiply_add(vf a, vf b, vf c) {
    return _mm256_fmadd_ps(a, b, c);
}

ALWAYS void store_floats(float *p, vf v, size_t n) {
    (void)n;
    _mm256_storeu_ps(p, v);
}

#include "vnni.inc"

void kernels_avxvnni(struct kernels *k) {
    k->name = "avxvnni";
    k->weights[W_Q4_0].matmul = matmul_q4_0;
    k->weights[W_Q8_0].matmul = matmul_q8_0;
}
