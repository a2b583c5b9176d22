/* avx2.h - what the AVX2 files share: the tree of sums, exp of a register, loads of floats. */
#ifndef KERNELS_AVX2_H
#define KERNELS_AVX2_H

#include "exp.h"

#include <immintrin.h>
#include <stdbool.h>
#include <stddef.h>

#define ALWAYS static inline __attribute__((always_inline))
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

enum { VEC = 8 };  // floats in a register

ALWAYS float sum_tree(__m256 lo, __m256 hi) {
    __m256 a = _mm256_add_ps(lo, hi);
    __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(b, _mm_movehdup_ps(b)));
}

/* k_exp() of exp.h, eight at once. */
ALWAYS __m256 exp8(__m256 x) {
    const __m256 round = _mm256_set1_ps(EXP_ROUND), lowest = _mm256_set1_ps(EXP_LO);
    __m256 c = _mm256_min_ps(_mm256_set1_ps(EXP_HI), _mm256_max_ps(lowest, x));
    __m256 z = _mm256_fmadd_ps(c, _mm256_set1_ps(EXP_LOG2E), round);
    __m256 n = _mm256_sub_ps(z, round);
    __m256 r = _mm256_fmadd_ps(n, _mm256_set1_ps(-EXP_LN2_HI), c);
    r = _mm256_fmadd_ps(n, _mm256_set1_ps(-EXP_LN2_LO), r);
    __m256 p = _mm256_fmadd_ps(_mm256_set1_ps(EXP_C6), r, _mm256_set1_ps(EXP_C5));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(EXP_C4));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(EXP_C3));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(EXP_C2));
    p = _mm256_add_ps(_mm256_fmadd_ps(_mm256_mul_ps(p, r), r, r), _mm256_set1_ps(1.0f));
    __m256i scale = _mm256_add_epi32(_mm256_slli_epi32(_mm256_castps_si256(z), 23),
                                     _mm256_set1_epi32((int)EXP_BIAS));
    __m256 y = _mm256_mul_ps(_mm256_mul_ps(p, _mm256_castsi256_ps(scale)), _mm256_set1_ps(2.0f));
    return _mm256_andnot_ps(_mm256_cmp_ps(x, lowest, _CMP_LT_OQ), y);
}

/* Values i..i + 7 of p, halves or floats. */
ALWAYS __m256 load_float(const void *p, size_t i, bool half) {
    if (!half) return _mm256_loadu_ps((const float *)p + i);
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)((const uint16_t *)p + i)));
}

#endif
