/* avx2.h - what the AVX2 files share: the tree of sums, exp of a register, loads of floats, and what
 * re-laying needs. */
#ifndef KERNELS_AVX2_H
#define KERNELS_AVX2_H

#include "exp.h"
#include "x86.h"

#include <stdbool.h>
#include <stddef.h>

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

/* 16 bytes of each of 8 rows, `step` apart, to four runs of [8 rows][4 bytes]. */
ALWAYS void transpose_words(void *dst, const char *src, size_t step) {
    __m256i v[4], *out = dst;
    UNROLL
    for (size_t r = 0; r < 4; r++) {
        v[r] = _mm256_loadu2_m128i((const __m128i *)(src + (r + 4) * step),
                                   (const __m128i *)(src + r * step));
    }
    __m256i a = _mm256_unpacklo_epi32(v[0], v[1]), b = _mm256_unpackhi_epi32(v[0], v[1]);
    __m256i c = _mm256_unpacklo_epi32(v[2], v[3]), d = _mm256_unpackhi_epi32(v[2], v[3]);
    _mm256_store_si256(out, _mm256_unpacklo_epi64(a, c));
    _mm256_store_si256(out + 1, _mm256_unpackhi_epi64(a, c));
    _mm256_store_si256(out + 2, _mm256_unpacklo_epi64(b, d));
    _mm256_store_si256(out + 3, _mm256_unpackhi_epi64(b, d));
}

/* 16 bytes of each of 8 rows, `step` apart, to [16][8 rows]. */
ALWAYS void transpose_bytes(void *dst, const char *src, size_t step) {
    __m128i v[8], w[8], *out = dst;
    UNROLL
    for (size_t r = 0; r < 8; r++) v[r] = _mm_loadu_si128((const __m128i *)(src + r * step));
    UNROLL
    for (size_t r = 0; r < 4; r++) {  // rows r and r + 4 side by side, then 2 apart, then 1
        w[2 * r] = _mm_unpacklo_epi8(v[r], v[r + 4]);
        w[2 * r + 1] = _mm_unpackhi_epi8(v[r], v[r + 4]);
    }
    UNROLL
    for (size_t i = 0; i < 2; i++) {
        __m128i even0 = _mm_unpacklo_epi8(w[i], w[4 + i]),
                even1 = _mm_unpackhi_epi8(w[i], w[4 + i]);
        __m128i odd0 = _mm_unpacklo_epi8(w[2 + i], w[6 + i]);
        __m128i odd1 = _mm_unpackhi_epi8(w[2 + i], w[6 + i]);
        _mm_store_si128(out + 4 * i, _mm_unpacklo_epi8(even0, odd0));
        _mm_store_si128(out + 4 * i + 1, _mm_unpackhi_epi8(even0, odd0));
        _mm_store_si128(out + 4 * i + 2, _mm_unpacklo_epi8(even1, odd1));
        _mm_store_si128(out + 4 * i + 3, _mm_unpackhi_epi8(even1, odd1));
    }
}

/* In a register: 16 bytes that were just stored as eight pairs are not loaded before all are in the cache. */
ALWAYS unsigned gather_scales(uint16_t *d, const char *src, size_t step) {
    const __m128i exponent = _mm_set1_epi16(0x7c00);
    __m128i v = _mm_setzero_si128();
    v = _mm_insert_epi16(v, load_u16(src), 0);
    v = _mm_insert_epi16(v, load_u16(src + step), 1);
    v = _mm_insert_epi16(v, load_u16(src + 2 * step), 2);
    v = _mm_insert_epi16(v, load_u16(src + 3 * step), 3);
    v = _mm_insert_epi16(v, load_u16(src + 4 * step), 4);
    v = _mm_insert_epi16(v, load_u16(src + 5 * step), 5);
    v = _mm_insert_epi16(v, load_u16(src + 6 * step), 6);
    v = _mm_insert_epi16(v, load_u16(src + 7 * step), 7);
    _mm_store_si128((__m128i *)d, v);
    v = _mm_and_si128(v, exponent);
    return (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi16(v, exponent));
}

#endif
