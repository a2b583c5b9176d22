/* avx512_attend.c - attention, LayerNorm, RoPE over halves and activations on AVX-512: the contract's 16
 * lanes are one register. */
#include "avx512.h"
#include "f16.h"
#include "kernels.h"

#include <string.h>

enum { VECS = FLOAT_LANES / VEC, TILE = 4, TILE_VECS = 4, FEW = 1 };

typedef __m512 vec;

ALWAYS vec vec_all(float f) {
    return _mm512_set1_ps(f);
}

ALWAYS vec vec_load(const float *p) {
    return _mm512_loadu_ps(p);
}

ALWAYS void vec_store(float *p, vec v) {
    _mm512_storeu_ps(p, v);
}

ALWAYS vec vec_fma(vec a, vec b, vec c) {
    return _mm512_fmadd_ps(a, b, c);
}

/* Where a is NaN these instructions return b. */
ALWAYS vec vec_above(vec a, vec b) {
    return _mm512_max_ps(a, b);
}

ALWAYS vec vec_below(vec a, vec b) {
    return _mm512_min_ps(a, b);
}

ALWAYS float vec_max(vec v) {
    return _mm512_reduce_max_ps(v);
}

/* k_exp() of exp.h. */
ALWAYS vec vec_exp(vec x) {
    const vec round = vec_all(EXP_ROUND), lowest = vec_all(EXP_LO);
    vec c = vec_below(vec_all(EXP_HI), vec_above(lowest, x));
    vec z = vec_fma(c, vec_all(EXP_LOG2E), round);
    vec n = z - round;
    vec r = vec_fma(n, vec_all(-EXP_LN2_HI), c);
    r = vec_fma(n, vec_all(-EXP_LN2_LO), r);
    vec p = vec_fma(vec_all(EXP_C6), r, vec_all(EXP_C5));
    p = vec_fma(p, r, vec_all(EXP_C4));
    p = vec_fma(p, r, vec_all(EXP_C3));
    p = vec_fma(p, r, vec_all(EXP_C2));
    p = vec_fma(p * r, r, r) + vec_all(1.0f);
    __m512i scale = _mm512_add_epi32(_mm512_slli_epi32(_mm512_castps_si512(z), 23),
                                     _mm512_set1_epi32((int)EXP_BIAS));
    vec y = p * _mm512_castsi512_ps(scale) * vec_all(2.0f);
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, lowest, _CMP_NLT_UQ), y);
}

ALWAYS float vec_sum(const vec lane[VECS]) {
    vec v[4] = {lane[0], lane[0], lane[0], lane[0]};
    return _mm_cvtss_f32(four_trees(v));
}

ALWAYS void vec_pairs(const float *p, vec *a, vec *b) {
    const __m512i even =
        _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    vec lo = vec_load(p), hi = vec_load(p + VEC);
    *a = _mm512_permutex2var_ps(lo, even, hi);
    *b = _mm512_permutex2var_ps(lo, _mm512_add_epi32(even, _mm512_set1_epi32(1)), hi);
}

ALWAYS vec load_kv(const void *p, size_t i, enum kv_type type) {
    if (type == KV_F32) return vec_load((const float *)p + i);
    if (type == KV_F16) {
        return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)((const uint16_t *)p + i)));
    }
    const struct act *b = (const struct act *)p + i / Q_BLOCK;
    __m128i q = _mm_loadu_si128((const __m128i *)(b->q + i % Q_BLOCK));
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(q)) * vec_all(bf16_to_f32(b->d));
}

ALWAYS void key_sums(float *out, vec (*lane)[VECS], size_t n) {
    UNROLL
    for (size_t j = 0; j < n; j += 4) {
        vec v[4] = {lane[j][0], lane[j + 1][0], lane[j + 2][0], lane[j + 3][0]};
        _mm_storeu_ps(out + j, four_trees(v));
    }
}

#include "attend.inc"

void kernels_avx512_attend(struct kernels *k) {
    install(k);
}
