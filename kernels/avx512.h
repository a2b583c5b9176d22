/* avx512.h - what the AVX-512 files share. */
#ifndef KERNELS_AVX512_H
#define KERNELS_AVX512_H

#include "exp.h"
#include "kernels.h"
#include "x86.h"

#include <stddef.h>

enum { VEC = 16 };  // floats in a register

/* The contract's tree of 8, 4, 2 and 1 lanes apart, of four registers. */
ALWAYS __m128 four_trees(const __m512 v[4]) {
    __m512 a = _mm512_shuffle_f32x4(v[0], v[1], 0x44) + _mm512_shuffle_f32x4(v[0], v[1], 0xee);
    __m512 b = _mm512_shuffle_f32x4(v[2], v[3], 0x44) + _mm512_shuffle_f32x4(v[2], v[3], 0xee);
    a = _mm512_shuffle_f32x4(a, b, 0x88) + _mm512_shuffle_f32x4(a, b, 0xdd);
    a = a + _mm512_permute_ps(a, 0x4e);
    a = a + _mm512_permute_ps(a, 0xb1);
    return _mm512_castps512_ps128(_mm512_maskz_compress_ps(0x1111, a));
}

/* One token times weights of a type of vnni.inc, as struct weight_ops' matmul. */
void avx512_one(enum weight_type type, float *y, const void *w, size_t n_group, size_t n_col,
                const void *x);

#endif
