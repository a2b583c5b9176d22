/* avxvnni.c - x86-64 with AVX2 and its VNNI, as Alder Lake and its small cores have it (CPUs with AVX-512 use
 * avx512.c). Same bits as scalar.c. */
#include "kernels.h"
#include "x86.h"

enum {
    VEC_ROWS = 8,
    TILE_TOK = 4,             // tokens of a tile
    PASS_BYTES = 192 * 1024,  // activations that go over the weights in one pass (L2)
};

typedef __m256 vf;
typedef __m256i vi;

/* 8 lanes have no second part. */
ALWAYS vi load_words(const char *p, size_t step) {
    (void)step;
    return _mm256_load_si256((const __m256i *)p);
}

ALWAYS vi load_pair(const char *p) {
    return _mm256_load_si256((const __m256i *)p);
}

ALWAYS vi load_bytes(const char *p, size_t step) {
    (void)step;
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p));
}

ALWAYS vi load_signed(const char *p, size_t step) {
    (void)step;
    return _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p));
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

ALWAYS vi all_parts(const void *p) {
    return _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)p));
}

ALWAYS vi chunk_bits(size_t c) {
    return all_bytes(1 << c);
}

ALWAYS vi spread(const int8_t *x, size_t c) {
    return all_words(load_i32(x + 4 * c));
}

ALWAYS __m256i fold(vi v) {
    return v;
}

ALWAYS __m256 low8(vf v) {
    return v;
}

ALWAYS vi srl16(vi v, int n) {
    return _mm256_srl_epi16(v, _mm_cvtsi32_si128(n));
}

ALWAYS vi srl32(vi v, int n) {
    return _mm256_srl_epi32(v, _mm_cvtsi32_si128(n));
}

ALWAYS vi sll32(vi v, int n) {
    return _mm256_sll_epi32(v, _mm_cvtsi32_si128(n));
}

ALWAYS vi look_up(vi table, vi v) {
    return _mm256_shuffle_epi8(table, v);
}

ALWAYS vi add_where(vi v, vi h, vi bit, vi x) {
    return v | (_mm256_cmpeq_epi8(h & bit, bit) & x);  // v and x have no bit in common
}

ALWAYS vi add_words(vi a, vi b) {
    return _mm256_add_epi32(a, b);
}

ALWAYS vi dot(vi sum, vi w, vi x) {
    return _mm256_dpbusd_avx_epi32(sum, w, x);
}

ALWAYS __m128i dot4(__m128i sum, __m128i w, __m128i x) {
    return _mm_dpbusd_avx_epi32(sum, w, x);
}

ALWAYS vf to_floats(vi v) {
    return _mm256_cvtepi32_ps(v);
}

ALWAYS vf as_floats(vi v) {
    return _mm256_castsi256_ps(v);
}

ALWAYS vf multiply_add(vf a, vf b, vf c) {
    return _mm256_fmadd_ps(a, b, c);
}

ALWAYS void store_floats(float *p, vf v, size_t n) {
    (void)n;
    _mm256_storeu_ps(p, v);
}

#include "vnni.inc"

static void matmul_q4_k(float *y, size_t ldy, const void *w, size_t n_group, size_t n_col,
                        const void *x, size_t n_tok) {
    matmul_quantised(W_Q4_K, y, ldy, w, n_group, n_col, x, n_tok);
}

/* Q3_K, Q5_K and Q6_K stay AVX2's, which are as fast. */
void kernels_avxvnni(struct kernels *k) {
    k->name = "avxvnni";
    install(k);
    k->weights[W_Q4_K].matmul = matmul_q4_k;
}
