/* neon.h - what the AArch64 files share: the tree of sums, exp of a register, loads and lanes. */
#ifndef KERNELS_NEON_H
#define KERNELS_NEON_H

#include "exp.h"

#include <arm_neon.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#define ALWAYS static inline __attribute__((always_inline))
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

/* Tells gcc that v is used here, in a register, and that memory is, too: it would load and unpack ahead
 * and spill. Emits nothing. */
#define KEEP(v) __asm__ volatile("" : "+w"(v) : : "memory")

enum {
    MULTIPLY_SUMS = 12,       // of multiply(): enough to hide the latency
    VEC = 4,                  // floats in a register
    PREFETCH_AHEAD = 1536,    // about the latency of a Pi's memory times its bandwidth
    PASS_BYTES = 128 * 1024,  // activations that go over the weights in one pass (L2)
};

ALWAYS float sum_tree(const float32x4_t lane[4]) {
    float32x4_t a = vaddq_f32(vaddq_f32(lane[0], lane[2]), vaddq_f32(lane[1], lane[3]));
    float32x2_t b = vadd_f32(vget_low_f32(a), vget_high_f32(a));
    return vget_lane_f32(vpadd_f32(b, b), 0);
}

/* a where it is a number above b, else b: what max does to NaN depends on the instruction set. */
ALWAYS float32x4_t max_number(float32x4_t a, float32x4_t b) {
    return vbslq_f32(vcgtq_f32(a, b), a, b);
}

/* k_exp() of exp.h, four at once. */
ALWAYS float32x4_t exp4(float32x4_t x) {
    const float32x4_t round = vdupq_n_f32(EXP_ROUND), lowest = vdupq_n_f32(EXP_LO);
    float32x4_t c = vminq_f32(vmaxq_f32(x, lowest), vdupq_n_f32(EXP_HI));
    float32x4_t z = vfmaq_f32(round, c, vdupq_n_f32(EXP_LOG2E));
    float32x4_t n = vsubq_f32(z, round);
    float32x4_t r = vfmaq_f32(c, n, vdupq_n_f32(-EXP_LN2_HI));
    r = vfmaq_f32(r, n, vdupq_n_f32(-EXP_LN2_LO));
    float32x4_t p = vfmaq_f32(vdupq_n_f32(EXP_C5), vdupq_n_f32(EXP_C6), r);
    p = vfmaq_f32(vdupq_n_f32(EXP_C4), p, r);
    p = vfmaq_f32(vdupq_n_f32(EXP_C3), p, r);
    p = vfmaq_f32(vdupq_n_f32(EXP_C2), p, r);
    p = vaddq_f32(vfmaq_f32(r, vmulq_f32(p, r), r), vdupq_n_f32(1.0f));
    uint32x4_t scale = vshlq_n_u32(vreinterpretq_u32_f32(z), 23);
    scale = vaddq_u32(scale, vdupq_n_u32(EXP_BIAS));
    float32x4_t y = vmulq_f32(vmulq_f32(p, vreinterpretq_f32_u32(scale)), vdupq_n_f32(2.0f));
    return vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(y), vcltq_f32(x, lowest)));
}

/* Values i..i + 3 of p, halves or floats. */
ALWAYS float32x4_t load_float(const void *p, size_t i, bool half) {
    if (!half) return vld1q_f32((const float *)p + i);
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16((const uint16_t *)p + i)));
}

ALWAYS int32_t load_int(const char *p) {
    int32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* v times lane t of x. */
ALWAYS float32x4_t mul_lane(float32x4_t v, float32x4_t x, size_t t) {
    switch (t) {
    case 0: return vmulq_laneq_f32(v, x, 0);
    case 1: return vmulq_laneq_f32(v, x, 1);
    case 2: return vmulq_laneq_f32(v, x, 2);
    default: return vmulq_laneq_f32(v, x, 3);
    }
}

/* a + v times lane t of x, rounded once. */
ALWAYS float32x4_t fma_lane(float32x4_t a, float32x4_t v, float32x4_t x, size_t t) {
    switch (t) {
    case 0: return vfmaq_laneq_f32(a, v, x, 0);
    case 1: return vfmaq_laneq_f32(a, v, x, 1);
    case 2: return vfmaq_laneq_f32(a, v, x, 2);
    default: return vfmaq_laneq_f32(a, v, x, 3);
    }
}

/* n floats, 1, 2 or 4 (what is behind them may be anything). */
ALWAYS float32x4_t load_lanes(const char *p, size_t n) {
    const float *f = (const float *)(const void *)p;
    if (n == 1) return vsetq_lane_f32(*f, vdupq_n_f32(0), 0);
    return n == 2 ? vcombine_f32(vld1_f32(f), vdup_n_f32(0)) : vld1q_f32(f);
}

#endif
