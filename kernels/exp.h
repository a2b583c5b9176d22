/* exp.h - exp(x) in binary32, one correctly rounded operation after another.
 *
 * libm's expf differs between libraries by a bit here and there; this one is equal wherever IEEE
 * 754 holds, and the vector variants repeat its steps lane by lane. Error at most 1.01 ulp. Below
 * EXP_LO the result is 0 (the smallest results would be subnormal), above 88.722 infinity.
 */
#ifndef KERNELS_EXP_H
#define KERNELS_EXP_H

#include "f16.h"
#include "fma.h"

#define EXP_LO     (-86.5f)
#define EXP_HI     89.0f  // the result is infinite, but 2^n below is still a number
#define EXP_LOG2E  0x1.715476p+0f
#define EXP_ROUND  0x1.8p23f       // adding it leaves rint(x) in the low bits
#define EXP_LN2_HI 0x1.62e400p-1f  // few bits: n * EXP_LN2_HI is exact
#define EXP_LN2_LO 0x1.7f7d1cp-20f
/* exp(r) = 1 + r + r^2 * (C2 + C3 r + ... + C6 r^4) for |r| <= ln(2) / 2. */
#define EXP_C6 0x1.6850e4p-10f
#define EXP_C5 0x1.123bccp-7f
#define EXP_C4 0x1.555b98p-5f
#define EXP_C3 0x1.55548ep-3f
#define EXP_C2 0x1.fffff8p-2f
/* The bits of 2^-1: we scale by 2^(n - 1), which does not overflow for n = 128, and double. */
#define EXP_BIAS 0x3f000000U

static inline float k_exp(float x) {
    float c = x < EXP_LO ? EXP_LO : x;  // NaN passes through
    c = c > EXP_HI ? EXP_HI : c;
    float z = k_fma(c, EXP_LOG2E, EXP_ROUND);
    float n = z - EXP_ROUND;
    float r = k_fma(n, -EXP_LN2_HI, c);
    r = k_fma(n, -EXP_LN2_LO, r);
    float p = k_fma(EXP_C6, r, EXP_C5);
    p = k_fma(p, r, EXP_C4);
    p = k_fma(p, r, EXP_C3);
    p = k_fma(p, r, EXP_C2);
    p = k_fma(p * r, r, r) + 1.0f;
    float scale = f32_from_bits((f32_bits(z) << 23) + EXP_BIAS);
    float y = p * scale * 2.0f;
    return x < EXP_LO ? 0.0f : y;
}

/* tanh: absolute error below 2^-22, which is all that its users, which cap scores, ask for; +-1 far out. */
static inline float k_tanh(float x) {
    return 1.0f - 2.0f / (1.0f + k_exp(x * 2.0f));
}

/* GELU in its tanh form (Hendrycks, Gimpel 2016): x (1 + tanh u) / 2, u = sqrt(2 / pi) (x + 0.044715 x^3),
 * is x / (1 + exp(-2 u)), and -2 u = x * (x^2 * GELU_C3 + GELU_C1). */
#define GELU_C1 (-0x1.988454p+0f)
#define GELU_C3 (-0x1.2444f2p-4f)

static inline float k_gelu(float x) {
    return x / (1.0f + k_exp(x * k_fma(x * x, GELU_C3, GELU_C1)));
}

/* The SwiGLU of gpt-oss: both sides clamped, a steeper sigmoid, and one added to the linear side. */
#define OAI_LIMIT 7.0f
#define OAI_ALPHA 1.702f

static inline float k_swiglu_oai(float gate, float up) {
    float g = gate < OAI_LIMIT ? gate : OAI_LIMIT;  // NaN becomes the limit
    float u = up > -OAI_LIMIT ? up : -OAI_LIMIT;
    u = u < OAI_LIMIT ? u : OAI_LIMIT;
    return g / (1.0f + k_exp(g * -OAI_ALPHA)) * (u + 1.0f);
}

#endif
