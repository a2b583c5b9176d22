/* avx512_one.c - one token with AVX-512's VNNI in registers of 256 bits: Zen 4 works on 512 in two halves, and
 * what takes a whole register to spread activations over (avx512.c) costs it 0.4 to 0.5 of its speed
 * (Q4_0 in L2 41 GB/s a core, here 68; Q4_K 27 and 53; its memory gives 30). For all but Zen 5, measured on
 * Zen 4 only.
 * Same bits as scalar.c. */
#include "avx512.h"
#include "kernels.h"
#include "x86.h"

#define DPBUSD256 _mm256_dpbusd_epi32
#define DPBUSD128 _mm_dpbusd_epi32
#define DOT_WORD  dot_broadcast

/* The instruction itself spreads the activations; gcc would spend another one on it. */
ALWAYS __m256i dot_broadcast(__m256i sum, __m256i w, const void *p) {
    __asm__("vpdpbusd %2%{1to8%}, %1, %0" : "+v"(sum) : "v"(w), "m"(*(const int32_t *)p));
    return sum;
}

#include "vnni_8.inc"

#include "vnni.inc"

#include "vnni_one.inc"

#define ONE(name, type)                                                                            \
    case type: matmul_one(type, unit_one, y, w, n_group, n_col, x); break;

void avx512_one(enum weight_type type, float *y, const void *w, size_t n_group, size_t n_col,
                const void *x) {
    switch (type) {
        VNNI_TYPES(ONE)
        VNNI_WIDE_TYPES(ONE)
    default: break;
    }
}
