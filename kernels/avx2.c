/* avx2.c - x86-64 with AVX2, FMA and F16C. Same bits as scalar.c; see kernels.h for what each does.
 *
 * The 16 lanes of the contract are two registers, `lo` (lanes 0-7) and `hi` (8-15). Where an
 * operand may be NaN the order of min/max operands matters: the instructions return the second.
 */
#include "avx2.h"
#include "f16.h"
#include "kernels.h"
#include "relay.h"
#include "topk.h"

#include <string.h>

enum {
    PREFETCH_AHEAD = 1024,    // one sequential stream of weights, so far ahead into L2 (measured)
    TILE_TOK = 4,             // tokens of a tile of quantised weights
    FLOAT_TILE_TOK = 3,       // and of float weights
    PASS_BYTES = 192 * 1024,  // activations that go over the weights in one pass (L2)
};

/* Re-laying. */

/* s8 [8 tokens] = -8 * the sums of q [8][8 tokens][4]. */
ALWAYS void block_sums(int32_t *s8, const int8_t *q) {
    __m256i sum = _mm256_setzero_si256();  // int16: at most 16 * 127
    UNROLL
    for (size_t c = 0; c < 8; c++) {
        __m256i v = _mm256_load_si256((const __m256i *)(q + 32 * c));
        sum = _mm256_add_epi16(sum, _mm256_maddubs_epi16(_mm256_set1_epi8(1), v));
    }
    _mm256_store_si256((__m256i *)s8, _mm256_madd_epi16(sum, _mm256_set1_epi16(-8)));
}

#include "relay.inc"

/* Matrices of quantised weights. */

ALWAYS __m256i broadcast_word(const char *p) {
    int32_t v;
    memcpy(&v, p, sizeof v);
    return _mm256_set1_epi32(v);
}

ALWAYS __m256 broadcast_float(const char *p) {
    float v;
    memcpy(&v, p, sizeof v);
    return _mm256_set1_ps(v);
}

/* A tile: n_vec groups of 8 rows, `group` bytes apart, times n_tok tokens from `first` on of panels
 * of `width` tokens; weights `ahead` bytes ahead are fetched, if not 0. width, n_tok and n_vec are
 * constants where it is inlined. */
ALWAYS void tile_q4_0(float *y, size_t ldy, const char *w, size_t group, size_t n_quad,
                      size_t ahead, const char *panel, size_t width, size_t first, size_t n_tok,
                      size_t n_vec) {
    const __m256i nibble = _mm256_set1_epi8(15), one = _mm256_set1_epi16(1);
    __m256 acc[2][TILE_TOK];
    UNROLL
    for (size_t v = 0; v < n_vec; v++) {
        UNROLL
        for (size_t t = 0; t < n_tok; t++) acc[v][t] = _mm256_setzero_ps();
    }
    for (size_t quad = 0; quad < n_quad; quad++, w += sizeof(struct kern_q4_0)) {
        UNROLL
        for (size_t v = 0; ahead && v < n_vec; v++) prefetch_lines(w + v * group + ahead, 1);
        for (size_t b = 0; b < 4; b++, panel += sizeof(struct panel1) * width) {
            const char *d = panel + 4 * first, *s8 = d + 4 * width, *x = s8 + 4 * width;
            const char *q = w + offsetof(struct kern_q4_0, q) + 128 * b;
            __m256i sum[2][TILE_TOK];  // int16: at most 16 * 15 * 127 = 30480 in a lane
            UNROLL
            for (size_t c = 0; c < 4; c++) {
                __m256i lo[2], hi[2];
                UNROLL
                for (size_t v = 0; v < n_vec; v++) {
                    if (ahead && c % 2 == 0) prefetch_lines(q + 32 * c + v * group + ahead, 1);
                    __m256i p = _mm256_load_si256((const __m256i *)(q + 32 * c + v * group));
                    if (n_tok == 1) KEEP(p);  // or gcc loads it twice, and loads are the limit
                    lo[v] = _mm256_and_si256(p, nibble);
                    hi[v] = _mm256_and_si256(_mm256_srli_epi16(p, 4), nibble);
                }
                UNROLL
                for (size_t t = 0; t < n_tok; t++) {
                    __m256i xl = broadcast_word(x + 4 * (c * width + t));
                    __m256i xh = broadcast_word(x + 4 * ((c + 4) * width + t));
                    UNROLL
                    for (size_t v = 0; v < n_vec; v++) {
                        __m256i p = _mm256_add_epi16(_mm256_maddubs_epi16(lo[v], xl),
                                                     _mm256_maddubs_epi16(hi[v], xh));
                        sum[v][t] = c == 0 ? p : _mm256_add_epi16(sum[v][t], p);
                        KEEP(sum[v][t]);
                    }
                }
            }
            UNROLL
            for (size_t v = 0; v < n_vec; v++) {
                const char *dw = w + sizeof(uint16_t[ROW_GROUP]) * b + v * group;
                __m256 scale = _mm256_cvtph_ps(_mm_load_si128((const __m128i *)dw));
                UNROLL
                for (size_t t = 0; t < n_tok; t++) {
                    __m256i i = _mm256_add_epi32(_mm256_madd_epi16(sum[v][t], one),
                                                 broadcast_word(s8 + 4 * t));
                    __m256 dd = _mm256_mul_ps(scale, broadcast_float(d + 4 * t));
                    acc[v][t] = _mm256_fmadd_ps(dd, _mm256_cvtepi32_ps(i), acc[v][t]);
                }
            }
        }
    }
    UNROLL
    for (size_t v = 0; v < n_vec; v++) {
        UNROLL
        for (size_t t = 0; t < n_tok; t++) _mm256_storeu_ps(y + t * ldy + v * VEC, acc[v][t]);
    }
}

/* maddubs wants one operand unsigned: |w| (128 at most) times x with the sign of w; two products
 * are at most 2 * 128 * 127 = 32512, so only one chunk fits int16. */
ALWAYS void tile_q8_0(float *y, size_t ldy, const char *w, size_t group, size_t n_quad,
                      size_t ahead, const char *panel, size_t width, size_t first, size_t n_tok,
                      size_t n_vec) {
    const __m256i one = _mm256_set1_epi16(1);
    __m256 acc[2][TILE_TOK];
    UNROLL
    for (size_t v = 0; v < n_vec; v++) {
        UNROLL
        for (size_t t = 0; t < n_tok; t++) acc[v][t] = _mm256_setzero_ps();
    }
    for (size_t block = 0; block < n_quad * 4; block++, panel += sizeof(struct panel1) * width) {
        const char *quad = w + block / 4 * sizeof(struct kern_q8_0);
        const char *q = quad + offsetof(struct kern_q8_0, q) + 256 * (block % 4);
        const char *d = panel + 4 * first, *x = d + 8 * width;
        UNROLL
        for (size_t v = 0; ahead && v < n_vec; v++) {
            if (block % 4 == 0) prefetch_lines(quad + v * group + ahead, 1);
        }
        __m256i sum[2][TILE_TOK];
        UNROLL
        for (size_t c = 0; c < 8; c++) {
            __m256i wq[2], magnitude[2];
            UNROLL
            for (size_t v = 0; v < n_vec; v++) {
                if (ahead && c % 2 == 0) prefetch_lines(q + 32 * c + v * group + ahead, 1);
                wq[v] = _mm256_load_si256((const __m256i *)(q + 32 * c + v * group));
                magnitude[v] = _mm256_abs_epi8(wq[v]);
            }
            UNROLL
            for (size_t t = 0; t < n_tok; t++) {
                __m256i xc = broadcast_word(x + 4 * (c * width + t));
                UNROLL
                for (size_t v = 0; v < n_vec; v++) {
                    __m256i p = _mm256_maddubs_epi16(magnitude[v], _mm256_sign_epi8(xc, wq[v]));
                    p = _mm256_madd_epi16(p, one);
                    sum[v][t] = c == 0 ? p : _mm256_add_epi32(sum[v][t], p);
                    KEEP(sum[v][t]);
                }
            }
        }
        UNROLL
        for (size_t v = 0; v < n_vec; v++) {
            const char *dw = quad + sizeof(uint16_t[ROW_GROUP]) * (block % 4) + v * group;
            __m256 scale = _mm256_cvtph_ps(_mm_load_si128((const __m128i *)dw));
            UNROLL
            for (size_t t = 0; t < n_tok; t++) {
                __m256 dd = _mm256_mul_ps(scale, broadcast_float(d + 4 * t));
                acc[v][t] = _mm256_fmadd_ps(dd, _mm256_cvtepi32_ps(sum[v][t]), acc[v][t]);
            }
        }
    }
    UNROLL
    for (size_t v = 0; v < n_vec; v++) {
        UNROLL
        for (size_t t = 0; t < n_tok; t++) _mm256_storeu_ps(y + t * ldy + v * VEC, acc[v][t]);
    }
}

/* Not a pointer to the tile: clang would inline it too late to unroll. */
ALWAYS void tile(enum weight_type type, float *y, size_t ldy, const char *w, size_t group,
                 size_t n_quad, size_t ahead, const char *panel, size_t width, size_t first,
                 size_t n_tok, size_t n_vec) {
    if (type == W_Q4_0) {
        tile_q4_0(y, ldy, w, group, n_quad, ahead, panel, width, first, n_tok, n_vec);
    } else {
        tile_q8_0(y, ldy, w, group, n_quad, ahead, panel, width, first, n_tok, n_vec);
    }
}

/* n_vec groups of rows times the tokens tok .. end; tok is a multiple of 8. */
ALWAYS void tile_row(enum weight_type type, float *y, size_t ldy, const char *w, size_t group,
                     size_t n_quad, const char *x, size_t tok, size_t end, size_t n_vec) {
    for (size_t t = tok; t < end; t += TILE_TOK) {
        const char *panel = x + t / 8 * n_quad * 4 * sizeof(struct panel8);
        float *yt = y + t * ldy;
        size_t ahead = t == 0 ? n_vec * group : 0;  // the rows that come after these
        switch (end - t) {
        case 1: tile(type, yt, ldy, w, group, n_quad, ahead, panel, 8, t % 8, 1, n_vec); break;
        case 2: tile(type, yt, ldy, w, group, n_quad, ahead, panel, 8, t % 8, 2, n_vec); break;
        case 3: tile(type, yt, ldy, w, group, n_quad, ahead, panel, 8, t % 8, 3, n_vec); break;
        default:
            tile(type, yt, ldy, w, group, n_quad, ahead, panel, 8, t % 8, TILE_TOK, n_vec);
            break;
        }
    }
}

ALWAYS void matmul_quantised(enum weight_type type, size_t quad_bytes, float *y, size_t ldy,
                             const char *w, size_t n_group, size_t n_col, const char *x,
                             size_t n_tok) {
    size_t n_quad = (n_col + COL_UNIT - 1) / COL_UNIT, group = n_quad * quad_bytes;
    if (n_tok == 1) {
        /* Two streams keep more reads of the memory under way; what is fetched is the next two's. */
        size_t g = 0;
        for (; g + 2 <= n_group; g += 2) {
            tile(type, y + g * ROW_GROUP, ldy, w + g * group, group, n_quad, 2 * group, x, 1, 0, 1,
                 2);
        }
        if (g < n_group) {
            tile(type, y + g * ROW_GROUP, ldy, w + g * group, group, n_quad, PREFETCH_AHEAD, x, 1,
                 0, 1, 1);
        }
        return;
    }
    size_t pass = PASS_BYTES / (n_quad * 4 * sizeof(struct panel8) + 1) * 8;
    if (pass < 8) pass = 8;
    for (size_t tok = 0; tok < n_tok; tok += pass) {
        size_t end = n_tok - tok < pass ? n_tok : tok + pass, g = 0;
        for (; g + 2 <= n_group; g += 2) {
            tile_row(type, y + g * ROW_GROUP, ldy, w + g * group, group, n_quad, x, tok, end, 2);
        }
        if (g < n_group) {
            tile_row(type, y + g * ROW_GROUP, ldy, w + g * group, group, n_quad, x, tok, end, 1);
        }
    }
}

static void matmul_q4_0(float *y, size_t ldy, const void *w, size_t n_group, size_t n_col,
                        const void *x, size_t n_tok) {
    matmul_quantised(W_Q4_0, sizeof(struct kern_q4_0), y, ldy, w, n_group, n_col, x, n_tok);
}

static void matmul_q8_0(float *y, size_t ldy, const void *w, size_t n_group, size_t n_col,
                        const void *x, size_t n_tok) {
    matmul_quantised(W_Q8_0, sizeof(struct kern_q8_0), y, ldy, w, n_group, n_col, x, n_tok);
}

/* Eight values at index i of an array of f32 or f16: float weights, keys, values. */
/* Eight weights at index i of a row. */
ALWAYS __m256 load_weights(const void *p, size_t i, enum weight_type type) {
    if (type != W_BF16) return load_float(p, i, type == W_F16);
    __m128i v = _mm_loadu_si128((const __m128i *)(const void *)((const uint16_t *)p + i));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(v), 16));
}

/* Two rows times n_tok tokens; the next two rows are fetched when `ahead`. */
ALWAYS void tile_float(float *y, size_t ldy, const char *w, size_t row_bytes, enum weight_type type,
                       bool ahead, const float *x, size_t n, size_t n_tok) {
    __m256 acc[2][FLOAT_TILE_TOK][2];
    UNROLL
    for (size_t r = 0; r < 2; r++) {
        UNROLL
        for (size_t t = 0; t < n_tok; t++) acc[r][t][0] = acc[r][t][1] = _mm256_setzero_ps();
    }
    for (size_t i = 0; i < n; i += FLOAT_LANES) {
        if (ahead) {
            const char *next = w + 2 * row_bytes + (type == W_F32 ? 4 * i : 2 * i);
            _mm_prefetch(next, _MM_HINT_T1);
            _mm_prefetch(next + row_bytes, _MM_HINT_T1);
        }
        UNROLL
        for (size_t h = 0; h < 2; h++) {
            __m256 w0 = load_weights(w, i + h * VEC, type);
            __m256 w1 = load_weights(w + row_bytes, i + h * VEC, type);
            UNROLL
            for (size_t t = 0; t < n_tok; t++) {
                __m256 xt = _mm256_load_ps(x + t * n + i + h * VEC);
                acc[0][t][h] = _mm256_fmadd_ps(w0, xt, acc[0][t][h]);
                acc[1][t][h] = _mm256_fmadd_ps(w1, xt, acc[1][t][h]);
            }
        }
    }
    UNROLL
    for (size_t t = 0; t < n_tok; t++) {
        y[t * ldy] = sum_tree(acc[0][t][0], acc[0][t][1]);
        y[t * ldy + 1] = sum_tree(acc[1][t][0], acc[1][t][1]);
    }
}

ALWAYS void matmul_float(float *y, size_t ldy, const char *w, enum weight_type type, size_t n_group,
                         size_t n_col, const float *x, size_t n_tok) {
    size_t n = (n_col + FLOAT_LANES - 1) / FLOAT_LANES * FLOAT_LANES;
    size_t row_bytes = n * (type != W_F32 ? sizeof(uint16_t) : sizeof(float));
    size_t pass = PASS_BYTES / (n * sizeof(float) + 1) / FLOAT_TILE_TOK * FLOAT_TILE_TOK;
    if (pass == 0) pass = FLOAT_TILE_TOK;
    for (size_t tok = 0; tok < n_tok; tok += pass) {
        size_t end = n_tok - tok < pass ? n_tok : tok + pass;
        for (size_t r = 0; r < n_group * ROW_GROUP; r += 2) {
            const char *wr = w + r * row_bytes;
            for (size_t t = tok; t < end; t += FLOAT_TILE_TOK) {
                float *yt = y + t * ldy + r;
                bool ahead = t == 0;
                switch (end - t) {
                case 1: tile_float(yt, ldy, wr, row_bytes, type, ahead, x + t * n, n, 1); break;
                case 2: tile_float(yt, ldy, wr, row_bytes, type, ahead, x + t * n, n, 2); break;
                default: tile_float(yt, ldy, wr, row_bytes, type, ahead, x + t * n, n, 3); break;
                }
            }
        }
    }
}

static void matmul_f16(float *y, size_t ldy, const void *w, size_t n_group, size_t n_col,
                       const void *x, size_t n_tok) {
    matmul_float(y, ldy, w, W_F16, n_group, n_col, x, n_tok);
}

static void matmul_bf16(float *y, size_t ldy, const void *w, size_t n_group, size_t n_col,
                        const void *x, size_t n_tok) {
    matmul_float(y, ldy, w, W_BF16, n_group, n_col, x, n_tok);
}

static void matmul_f32(float *y, size_t ldy, const void *w, size_t n_group, size_t n_col,
                       const void *x, size_t n_tok) {
    matmul_float(y, ldy, w, W_F32, n_group, n_col, x, n_tok);
}

/* Activations. */

/* The 32 values of block b of x [n] to v, zeros behind the end. */
ALWAYS void load_block(__m256 v[4], const float *x, size_t n, size_t b) {
    float part[Q_BLOCK];
    const float *from = x + b * Q_BLOCK;
    if (n - b * Q_BLOCK < Q_BLOCK) {
        memset(part, 0, sizeof part);
        memcpy(part, from, (n - b * Q_BLOCK) * sizeof *x);
        from = part;
    }
    UNROLL
    for (size_t i = 0; i < 4; i++) v[i] = _mm256_loadu_ps(from + i * VEC);
}

/* max |v|, NaN ignored, at most 2^60; 0 when below 2^-60. */
ALWAYS float block_max(const __m256 v[4]) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    __m256 m = _mm256_setzero_ps();
    UNROLL
    for (size_t i = 0; i < 4; i++) m = _mm256_max_ps(_mm256_andnot_ps(sign, v[i]), m);
    __m128 a = _mm_max_ps(_mm256_castps256_ps128(m), _mm256_extractf128_ps(m, 1));
    a = _mm_max_ps(a, _mm_movehl_ps(a, a));
    a = _mm_min_ss(_mm_max_ss(a, _mm_movehdup_ps(a)), _mm_set_ss(0x1p60f));
    float max = _mm_cvtss_f32(a);
    return max >= 0x1p-60f ? max : 0;
}

/* rint(v * inv), clamped to +-limit; NaN gives -limit. */
ALWAYS __m256i to_int(__m256 v, float inv, float limit) {
    __m256 s = _mm256_mul_ps(v, _mm256_set1_ps(inv));
    s = _mm256_min_ps(_mm256_max_ps(s, _mm256_set1_ps(-limit)), _mm256_set1_ps(limit));
    return _mm256_cvtps_epi32(s);
}

ALWAYS void quantise_block(struct act *q, const __m256 v[4]) {
    float a = block_max(v);
    if (a == 0) {
        *q = (struct act){0};
        return;
    }
    q->d = bf16_above(a / 127.0f);
    float inv = 1.0f / bf16_to_f32(q->d);
    __m256i lo = _mm256_packs_epi32(to_int(v[0], inv, 127), to_int(v[1], inv, 127));
    __m256i hi = _mm256_packs_epi32(to_int(v[2], inv, 127), to_int(v[3], inv, 127));
    /* The packs work in 128-bit halves and leave words 0 2 4 6 1 3 5 7. */
    __m256i bytes = _mm256_permutevar8x32_epi32(_mm256_packs_epi16(lo, hi),
                                                _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    _mm256_storeu_si256((__m256i *)q->q, bytes);
}

static void quantise(struct act *q, const float *x, size_t n) {
    for (size_t b = 0; b * Q_BLOCK < n; b++) {
        __m256 v[4];
        load_block(v, x, n, b);
        quantise_block(&q[b], v);
    }
}

static void pack_one(struct panel1 *out, const struct act *q, size_t n_block) {
    const __m256i one8 = _mm256_set1_epi8(1), minus8 = _mm256_set1_epi16(-8);
    for (size_t b = 0; b < n_block; b++) {
        __m256i v = _mm256_loadu_si256((const __m256i *)q[b].q);
        __m256i s = _mm256_madd_epi16(_mm256_maddubs_epi16(one8, v), minus8);
        __m128i h = _mm_add_epi32(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1));
        h = _mm_add_epi32(h, _mm_unpackhi_epi64(h, h));
        h = _mm_add_epi32(h, _mm_shuffle_epi32(h, 1));
        int32_t s8 = _mm_cvtsi128_si32(h);
        float d = bf16_to_f32(q[b].d);
        out[b].d[0] = d;
        out[b].s8[0] = s8;
        out[b].xs[0] = d * (float)(s8 / -8);
        _mm256_storeu_si256((__m256i *)out[b].q, v);
    }
    for (size_t b = n_block; b < (n_block + 3) / 4 * 4; b++) memset(&out[b], 0, sizeof out[b]);
}

static void pack(void *panel, const struct act *q, size_t ldq, size_t n_block, size_t n_tok) {
    if (n_tok == 1) {
        pack_one(panel, q, n_block);
    } else {
        pack_eights(panel, q, ldq, n_block, n_tok);
    }
}

/* What rmsnorm() multiplies x by. */
ALWAYS float norm_scale(const float *x, size_t n, float eps) {
    __m256 lo = _mm256_setzero_ps(), hi = lo;
    size_t i = 0, whole = n / FLOAT_LANES * FLOAT_LANES;
    for (; i < whole; i += FLOAT_LANES) {
        __m256 a = _mm256_loadu_ps(x + i), b = _mm256_loadu_ps(x + i + VEC);
        lo = _mm256_fmadd_ps(a, a, lo);
        hi = _mm256_fmadd_ps(b, b, hi);
    }
    float rest[FLOAT_LANES] = {0};
    memcpy(rest, x + whole, (n - whole) * sizeof *x);
    __m256 a = _mm256_loadu_ps(rest), b = _mm256_loadu_ps(rest + VEC);
    lo = _mm256_fmadd_ps(a, a, lo);  // a square of zero changes nothing
    hi = _mm256_fmadd_ps(b, b, hi);
    return 1.0f / k_sqrt(sum_tree(lo, hi) / (float)n + eps);
}

static void rmsnorm(float *y, const float *x, const float *w, size_t n, float eps) {
    float s = norm_scale(x, n, eps);
    __m256 sv = _mm256_set1_ps(s);
    size_t i = 0;
    for (; i + VEC <= n; i += VEC) {
        __m256 v = _mm256_mul_ps(_mm256_loadu_ps(x + i), sv);
        _mm256_storeu_ps(y + i, _mm256_mul_ps(v, _mm256_loadu_ps(w + i)));
    }
    for (; i < n; i++) y[i] = (x[i] * s) * w[i];
}

static void rmsnorm_quantise(struct act *q, const float *x, const float *w, size_t n, float eps) {
    float s = norm_scale(x, n, eps), rest[Q_BLOCK];
    size_t at = 0;
    for (; at + Q_BLOCK <= n; at += Q_BLOCK) {
        __m256 v[4];
        UNROLL
        for (size_t i = 0; i < 4; i++) {
            v[i] = _mm256_mul_ps(_mm256_loadu_ps(x + at + i * VEC), _mm256_set1_ps(s));
            v[i] = _mm256_mul_ps(v[i], _mm256_loadu_ps(w + at + i * VEC));
        }
        quantise_block(&q[at / Q_BLOCK], v);
    }
    for (size_t i = at; i < n; i++) rest[i - at] = (x[i] * s) * w[i];
    quantise(&q[at / Q_BLOCK], rest, n - at);
}

static void rope(float *x, const float *cs, size_t n_pair) {
    size_t i = 0;
    for (; i + 4 <= n_pair; i += 4) {
        __m256 v = _mm256_loadu_ps(x + 2 * i), a = _mm256_loadu_ps(cs + 2 * i);
        __m256 swapped = _mm256_permute_ps(v, 0xb1);
        __m256 cross = _mm256_mul_ps(swapped, _mm256_movehdup_ps(a));
        _mm256_storeu_ps(x + 2 * i, _mm256_fmaddsub_ps(v, _mm256_moveldup_ps(a), cross));
    }
    for (; i < n_pair; i++) {
        float a = x[2 * i], b = x[2 * i + 1], c = cs[2 * i], s = cs[2 * i + 1];
        x[2 * i] = k_fma(a, c, -(b * s));
        x[2 * i + 1] = k_fma(b, c, a * s);
    }
}

static void silu_mul(float *y, const float *gate, const float *up, size_t n) {
    const __m256 one = _mm256_set1_ps(1.0f), sign = _mm256_set1_ps(-0.0f);
    size_t i = 0;
    for (; i + VEC <= n; i += VEC) {
        __m256 g = _mm256_loadu_ps(gate + i);
        __m256 s = _mm256_div_ps(g, _mm256_add_ps(one, exp8(_mm256_xor_ps(g, sign))));
        _mm256_storeu_ps(y + i, _mm256_mul_ps(s, _mm256_loadu_ps(up + i)));
    }
    for (; i < n; i++) y[i] = gate[i] / (1.0f + k_exp(-gate[i])) * up[i];
}

static void to_f16(uint16_t *y, const float *x, size_t n) {
    size_t i = 0;
    for (; i < n; i += VEC) {
        float part[VEC] = {0};
        size_t here = n - i < VEC ? n - i : VEC;
        const float *from = x + i;
        if (here < VEC) {
            memcpy(part, from, here * sizeof *x);
            from = part;
        }
        __m256 v = _mm256_max_ps(_mm256_loadu_ps(from), _mm256_set1_ps(-65504.0f));
        v = _mm256_min_ps(v, _mm256_set1_ps(65504.0f));
        __m128i h = _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT);
        if (here == VEC) {
            _mm_storeu_si128((__m128i *)(y + i), h);
        } else {
            memcpy(y + i, &h, here * sizeof *y);
        }
    }
}

/* Branch outputs, and the residual. */

static void to_wire16(struct wire16 *q, const float *x, size_t n) {
    for (size_t b = 0; b * Q_BLOCK < n; b++) {
        __m256 v[4];
        load_block(v, x, n, b);
        float a = block_max(v);
        if (a == 0) {
            q[b] = (struct wire16){0};
            continue;
        }
        q[b].d = a / 32767.0f;
        float inv = 1.0f / q[b].d;
        UNROLL
        for (size_t i = 0; i < 4; i += 2) {
            __m256i w = _mm256_packs_epi32(to_int(v[i], inv, 32767), to_int(v[i + 1], inv, 32767));
            w = _mm256_permute4x64_epi64(w, 0xd8);  // the pack works in halves: 0 2 1 3
            _mm256_storeu_si256((__m256i *)(q[b].q + i * VEC), w);
        }
    }
}

static void add_wire16(float *x, const struct wire16 *q, size_t n) {
    size_t i = 0;
    for (; i + VEC <= n; i += VEC) {
        const struct wire16 *b = &q[i / Q_BLOCK];
        __m128i w = _mm_loadu_si128((const __m128i *)(b->q + i % Q_BLOCK));
        __m256 v =
            _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(w)), _mm256_set1_ps(b->d));
        _mm256_storeu_ps(x + i, _mm256_add_ps(_mm256_loadu_ps(x + i), v));
    }
    for (; i < n; i++) x[i] += (float)q[i / Q_BLOCK].q[i % Q_BLOCK] * q[i / Q_BLOCK].d;
}

static void add_act(float *x, const struct act *q, size_t n) {
    size_t i = 0;
    for (; i + VEC <= n; i += VEC) {
        const struct act *b = &q[i / Q_BLOCK];
        __m128i w = _mm_loadl_epi64((const __m128i *)(b->q + i % Q_BLOCK));
        __m256 d = _mm256_set1_ps(bf16_to_f32(b->d));
        __m256 v = _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(w)), d);
        _mm256_storeu_ps(x + i, _mm256_add_ps(_mm256_loadu_ps(x + i), v));
    }
    for (; i < n; i++) {
        x[i] += (float)q[i / Q_BLOCK].q[i % Q_BLOCK] * bf16_to_f32(q[i / Q_BLOCK].d);
    }
}

static void add(float *x, const float *y, size_t n) {
    for (size_t i = 0; i < n; i++) x[i] += y[i];
}

static size_t topk(int32_t *id, float *val, size_t k, const float *x, size_t n) {
    size_t i, have = topk_fill(id, val, k, x, n, &i);
    for (; have > 0 && i + 4 * VEC <= n; i += 4 * VEC) {
        __m256 bar = _mm256_set1_ps(val[0]), over = _mm256_setzero_ps();
        UNROLL
        for (size_t j = 0; j < 4; j++) {
            __m256 v = _mm256_loadu_ps(x + i + j * VEC);
            over = _mm256_or_ps(over, _mm256_cmp_ps(v, bar, _CMP_GT_OQ));
        }
        if (_mm256_movemask_ps(over)) topk_offer(id, val, have, x, i, i + 4 * VEC);
    }
    if (have > 0) topk_offer(id, val, have, x, i, n);
    topk_sort(id, val, have);
    return have;
}

static uint64_t multiply(size_t n) {
    __m256i w = _mm256_set1_epi8(1), x = w, sum[MULTIPLY_SUMS];
    UNROLL
    for (size_t s = 0; s < MULTIPLY_SUMS; s++) sum[s] = _mm256_setzero_si256();
    for (size_t r = 0; r < n; r++) {
        UNROLL
        for (size_t s = 0; s < MULTIPLY_SUMS; s++) {
            KEEP(w);
            sum[s] = _mm256_add_epi16(sum[s], _mm256_maddubs_epi16(w, x));
            KEEP(sum[s]);
        }
    }
    return n * MULTIPLY_SUMS * sizeof w;
}

void kernels_avx2(struct kernels *k) {
    k->name = "avx2";
    k->tile_groups = 2;
    k->weights[W_Q4_0].relay = relay_q4_0;
    k->weights[W_Q4_0].matmul = matmul_q4_0;
    k->weights[W_Q8_0].relay = relay_q8_0;
    k->weights[W_Q8_0].matmul = matmul_q8_0;
    k->weights[W_F16].matmul = matmul_f16;
    k->weights[W_BF16].matmul = matmul_bf16;
    k->weights[W_F32].matmul = matmul_f32;
    k->quantise = quantise;
    k->pack = pack;
    k->multiply = multiply;
    k->rmsnorm = rmsnorm;
    k->rmsnorm_quantise = rmsnorm_quantise;
    k->rope = rope;
    k->silu_mul = silu_mul;
    k->to_f16 = to_f16;
    k->to_wire16 = to_wire16;
    k->add_wire16 = add_wire16;
    k->add_act = add_act;
    k->add = add;
    k->topk = topk;
}
