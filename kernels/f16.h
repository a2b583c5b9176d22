/* f16.h - binary16 (IEEE 754-2008) and bf16 against binary32, exact for every input.
 *
 * Everything is static inline, so that a file compiled for a better CPU keeps its own copy: an
 * inline function with linkage could be merged into the baseline's.
 */
#ifndef KERNELS_F16_H
#define KERNELS_F16_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

static inline uint32_t f32_bits(float f) {
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static inline float f32_from_bits(uint32_t u) {
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static inline float f16_to_f32(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000) << 16;
    uint32_t rest = (uint32_t)(h & 0x7fff) << 13;
    if (rest >= 0x0f800000) {
        rest |= 0x7f800000;                         // infinity, or NaN with its payload
        if (rest > 0x7f800000) rest |= 0x00400000;  // as the instructions do: a NaN becomes quiet
    } else if (rest >= 1U << 23) {
        rest += 112U << 23;  // exponent bias 15 to 127
    } else {
        rest = f32_bits((float)(h & 0x7fff) * 0x1p-24f);  // zero or subnormal: units of 2^-24
    }
    return f32_from_bits(rest | sign);
}

static inline bool f16_is_finite(uint16_t h) {
    return (h & 0x7c00) != 0x7c00;
}

/* Round to nearest even; overflow gives infinity, NaN stays NaN. */
static inline uint16_t f32_to_f16(float f) {
    uint32_t u = f32_bits(f);
    uint32_t sign = u >> 16 & 0x8000;
    u &= 0x7fffffff;
    if (u > 0x7f800000) return (uint16_t)(sign | 0x7e00 | (u >> 13 & 0x1ff));
    if (u >= 0x477ff000) return (uint16_t)(sign | 0x7c00);  // 65520 and up round to infinity
    if (u < 0x38800000) {
        /* Below 2^-14 the result counts units of 2^-24; adding 1.5 * 2^23 of them rounds. */
        float units = f32_from_bits(u) * 0x1p24f + 0x1.8p23f;
        return (uint16_t)(sign | (f32_bits(units) & 0x7ff));
    }
    u += 0xfff + (u >> 13 & 1);
    return (uint16_t)(sign | (u - (112U << 23)) >> 13);
}

static inline float bf16_to_f32(uint16_t h) {
    return f32_from_bits((uint32_t)h << 16);
}

/* The next bf16 at or above f, for f >= 0 and finite. */
static inline uint16_t bf16_above(float f) {
    return (uint16_t)((f32_bits(f) + 0xffff) >> 16);
}

static inline uint16_t load_u16(const void *p) {
    uint16_t u;
    memcpy(&u, p, sizeof u);
    return u;
}

#endif
