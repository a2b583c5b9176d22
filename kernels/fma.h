/* fma.h - a * b + c with one rounding, and the square root, without libm.
 *
 * The contract needs fmaf's exact bits. Where the CPU has the instruction we use it; elsewhere the
 * sum is made in binary64, where the product of two floats is exact, and rounded to odd, which
 * makes the second rounding to binary32 harmless (Boldo and Melquiond 2008, "Emulation of FMA and
 * correctly rounded sums", section 3).
 */
#ifndef KERNELS_FMA_H
#define KERNELS_FMA_H

#include <stdint.h>
#include <string.h>

#if defined(__x86_64__)
#include <xmmintrin.h>
static inline float k_sqrt(float x) {
    return _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(x)));
}
#elif defined(__aarch64__)
#include <arm_neon.h>
static inline float k_sqrt(float x) {
    return vget_lane_f32(vsqrt_f32(vdup_n_f32(x)), 0);
}
#else
static inline float k_sqrt(float x) {
    return __builtin_sqrtf(x);
}
#endif

static inline float fma_exact(float a, float b, float c) {
    double p = (double)a * b;
    double s = p + c;
    uint64_t u;
    memcpy(&u, &s, sizeof u);
    if ((u >> 52 & 0x7ff) == 0x7ff) return (float)s;
    double back = s - p;  // Knuth's two-sum: err is exactly p + c - s
    double err = (p - (s - back)) + (c - back);
    if (err != 0 && (u & 1) == 0) {
        /* s was rounded and is even: its odd neighbour on the side of the true sum. */
        u += (err > 0) == (s > 0) ? 1 : UINT64_MAX;
        memcpy(&s, &u, sizeof s);
    }
    return (float)s;
}

#if defined(__FMA__) || defined(__aarch64__)
static inline float k_fma(float a, float b, float c) {
    return __builtin_fmaf(a, b, c);
}
#else
static inline float k_fma(float a, float b, float c) {
    return fma_exact(a, b, c);
}
#endif

#endif
