/* avx512_float.c - products with float weights on AVX-512: the contract's 16 lanes are one register. Same
 * bits as scalar.c. */
#include "avx512.h"
#include "kernels.h"

enum {
    ROWS = 4,                 // of a tile
    TOKS = 4,                 // and its tokens
    PASS_BYTES = 192 * 1024,  // activations that go over the weights in one pass (L2)
};

ALWAYS size_t float_bytes(enum weight_type type) {
    return type == W_F32 ? sizeof(float) : sizeof(uint16_t);
}

/* Weights i .. i + 15 of a row. */
ALWAYS __m512 load_weights(enum weight_type type, const char *row, size_t i) {
    const char *p = row + i * float_bytes(type);
    if (type == W_F32) return _mm512_loadu_ps(p);
    __m256i h = _mm256_loadu_si256((const __m256i *)p);
    if (type == W_F16) return _mm512_cvtph_ps(h);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}

/* ROWS rows times n_tok tokens; the next rows are fetched when `ahead`. */
ALWAYS void tile_float(enum weight_type type, float *y, size_t ldy, const char *w, bool ahead,
                       const float *x, size_t n, size_t n_tok) {
    const size_t row = n * float_bytes(type);
    __m512 acc[TOKS][ROWS];
    UNROLL
    for (size_t t = 0; t < n_tok; t++) {
        UNROLL
        for (size_t r = 0; r < ROWS; r++) acc[t][r] = _mm512_setzero_ps();
    }
    for (size_t i = 0; i < n; i += VEC) {
        __m512 v[ROWS];
        UNROLL
        for (size_t r = 0; r < ROWS; r++) {
            v[r] = load_weights(type, w + r * row, i);
            if (ahead) prefetch_lines(w + (ROWS + r) * row + i * float_bytes(type), 1);
        }
        UNROLL
        for (size_t t = 0; t < n_tok; t++) {
            __m512 xt = _mm512_loadu_ps(x + t * n + i);
            UNROLL
            for (size_t r = 0; r < ROWS; r++) acc[t][r] = _mm512_fmadd_ps(v[r], xt, acc[t][r]);
        }
    }
    UNROLL
    for (size_t t = 0; t < n_tok; t++) _mm_storeu_ps(y + t * ldy, four_trees(acc[t]));
}

ALWAYS void matmul_float(enum weight_type type, float *y, size_t ldy, const char *w, size_t n_group,
                         size_t n_col, const float *x, size_t n_tok) {
    size_t n = (n_col + VEC - 1) / VEC * VEC, row = n * float_bytes(type);
    size_t pass = PASS_BYTES / (n * sizeof(float) + 1) / TOKS * TOKS;
    if (pass == 0) pass = TOKS;
    for (size_t tok = 0; tok < n_tok; tok += pass) {
        size_t end = n_tok - tok < pass ? n_tok : tok + pass;
        for (size_t r = 0; r < n_group * ROW_GROUP; r += ROWS) {
            const char *wr = w + r * row;
            size_t t = tok;
            for (; t + TOKS <= end; t += TOKS) {
                tile_float(type, y + t * ldy + r, ldy, wr, t == 0, x + t * n, n, TOKS);
            }
            for (; t < end; t++)
                tile_float(type, y + t * ldy + r, ldy, wr, t == 0, x + t * n, n, 1);
        }
    }
}

static void matmul_f32(float *y, size_t ldy, const void *w, size_t n_group, size_t n_col,
                       const void *x, size_t n_tok) {
    matmul_float(W_F32, y, ldy, w, n_group, n_col, x, n_tok);
}

static void matmul_f16(float *y, size_t ldy, const void *w, size_t n_group, size_t n_col,
                       const void *x, size_t n_tok) {
    matmul_float(W_F16, y, ldy, w, n_group, n_col, x, n_tok);
}

static void matmul_bf16(float *y, size_t ldy, const void *w, size_t n_group, size_t n_col,
                        const void *x, size_t n_tok) {
    matmul_float(W_BF16, y, ldy, w, n_group, n_col, x, n_tok);
}

void kernels_avx512_float(struct kernels *k) {
    k->weights[W_F32].matmul = matmul_f32;
    k->weights[W_F16].matmul = matmul_f16;
    k->weights[W_BF16].matmul = matmul_bf16;
}
