/* avxvnni.c - x86-64 with AVX2 and its VNNI, as Alder Lake and its small cores have it (CPUs with AVX-512 use
 * avx512*.c). Same bits as scalar.c. */
#include "kernels.h"
#include "x86.h"

#define DPBUSD256           _mm256_dpbusd_avx_epi32
#define DPBUSD128           _mm_dpbusd_avx_epi32
#define DOT_WORD(sum, w, p) DPBUSD256(sum, w, _mm256_set1_epi32(load_i32(p)))

enum {
    TILE_TOK = 4,             // tokens of a tile
    PASS_BYTES = 192 * 1024,  // activations that go over the weights in one pass (L2)
};

#include "vnni_8.inc"

#include "vnni.inc"

#include "vnni_one.inc"

ALWAYS void one_token(enum weight_type type, float *y, const void *w, size_t n_group, size_t n_col,
                      const void *x) {
    matmul_one(type, unit_one, y, w, n_group, n_col, x);
}

#include "vnni_tile.inc"

VNNI_TYPES(MATMUL)

void kernels_avxvnni(struct kernels *k) {
    k->name = "avxvnni";
    k->multiply = multiply;
    VNNI_TYPES(INSTALL)
}
