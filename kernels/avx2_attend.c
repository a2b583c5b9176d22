/* avx2_attend.c - attention, LayerNorm, RoPE over halves and activations with AVX2, FMA and F16C. */
#include "avx2.h"
#include "f16.h"
#include "kernels.h"

#include <string.h>

enum { VECS = FLOAT_LANES / VEC, TILE = 1, TILE_VECS = 8, FEW = 4 };

typedef __m256 vec;

ALWAYS vec vec_all(float f) {
    return _mm256_set1_ps(f);
}

ALWAYS vec vec_load(const float *p) {
    return _mm256_loadu_ps(p);
}

ALWAYS void vec_store(float *p, vec v) {
    _mm256_storeu_ps(p, v);
}

ALWAYS vec vec_fma(vec a, vec b, vec c) {
    return _mm256_fmadd_ps(a, b, c);
}

/* Where a is NaN these instructions return b. */
ALWAYS vec vec_above(vec a, vec b) {
    return _mm256_max_ps(a, b);
}

ALWAYS vec vec_below(vec a, vec b) {
    return _mm256_min_ps(a, b);
}

ALWAYS float vec_max(vec v) {
    __m128 x = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    x = _mm_max_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)));
}

ALWAYS vec vec_exp(vec v) {
    return exp8(v);
}

ALWAYS float vec_sum(const vec lane[VECS]) {
    return sum_tree(lane[0], lane[1]);
}

ALWAYS void vec_pairs(const float *p, vec *a, vec *b) {
    __m256 lo = _mm256_loadu_ps(p), hi = _mm256_loadu_ps(p + VEC);
    /* a0 a1 a4 a5 a2 a3 a6 a7 and b alike; then in order. */
    __m256d a2 = _mm256_castps_pd(_mm256_shuffle_ps(lo, hi, 0x88));
    __m256d b2 = _mm256_castps_pd(_mm256_shuffle_ps(lo, hi, 0xdd));
    *a = _mm256_castpd_ps(_mm256_permute4x64_pd(a2, 0xd8));
    *b = _mm256_castpd_ps(_mm256_permute4x64_pd(b2, 0xd8));
}

ALWAYS vec load_kv(const void *p, size_t i, enum kv_type type) {
    if (type != KV_Q8_0) return load_float(p, i, type == KV_F16);
    const struct act *b = (const struct act *)p + i / Q_BLOCK;
    __m128i q = _mm_loadl_epi64((const __m128i *)(b->q + i % Q_BLOCK));
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(q)) * vec_all(bf16_to_f32(b->d));
}

/* Lanes 4 apart added: of a in the lower half, of b in the upper one. */
ALWAYS vec half_sums(vec a, vec b) {
    return _mm256_permute2f128_ps(a, b, 0x20) + _mm256_permute2f128_ps(a, b, 0x31);
}

ALWAYS void eight_sums(float *out, vec (*lane)[VECS]) {
    vec v[8], s[4];
    UNROLL
    for (size_t j = 0; j < 8; j++) v[j] = lane[j][0] + lane[j][1];
    UNROLL
    for (size_t j = 0; j < 4; j++) s[j] = half_sums(v[j], v[j + 4]);
    vec s01 = _mm256_shuffle_ps(s[0], s[1], 0x44) + _mm256_shuffle_ps(s[0], s[1], 0xee);
    vec s23 = _mm256_shuffle_ps(s[2], s[3], 0x44) + _mm256_shuffle_ps(s[2], s[3], 0xee);
    vec_store(out, _mm256_shuffle_ps(s01, s23, 0x88) + _mm256_shuffle_ps(s01, s23, 0xdd));
}

ALWAYS void four_sums(float *out, vec (*lane)[VECS]) {
    vec s02 = half_sums(lane[0][0] + lane[0][1], lane[2][0] + lane[2][1]);
    vec s13 = half_sums(lane[1][0] + lane[1][1], lane[3][0] + lane[3][1]);
    vec s = _mm256_shuffle_ps(s02, s13, 0x44) + _mm256_shuffle_ps(s02, s13, 0xee);
    s = s + _mm256_permute_ps(s, 0xb1);
    _mm_storeu_ps(out,
                  _mm_shuffle_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1), 0x88));
}

ALWAYS void key_sums(float *out, vec (*lane)[VECS], size_t n) {
    if (n == 8)
        eight_sums(out, lane);
    else
        four_sums(out, lane);
}

#include "attend.inc"

void kernels_avx2_attend(struct kernels *k) {
    install(k);
}
