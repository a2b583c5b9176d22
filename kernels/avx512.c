/* avx512.c - x86-64 with AVX-512 (F, BW, DQ, VL) and its VNNI. Same bits as scalar.c. A register holds two
 * groups of 8 rows side by side or, with one token, two chunks of one group. For one token these are Zen 5's
 * kernels, which does 512 bits at once; others have avx512_one.c. */
#include "avx512.h"
#include "kernels.h"
#include "x86.h"

enum {
    VEC_ROWS = 16,
    TILE_TOK = 4,             // tokens of a tile
    PASS_BYTES = 192 * 1024,  // activations that go over the weights in one pass (L2)
    PANELS_AHEAD = 0,
};

typedef __m512 vf;
typedef __m512i vi;

ALWAYS vi load_words(const char *p, size_t step) {
    __m256i lo = _mm256_load_si256((const __m256i *)p);
    return _mm512_inserti64x4(_mm512_castsi256_si512(lo),
                              _mm256_load_si256((const __m256i *)(p + step)), 1);
}

ALWAYS vi load_pair(const char *p) {
    return _mm512_loadu_si512(p);
}

ALWAYS __m128i load_eights(const char *p, size_t step) {
    return _mm_unpacklo_epi64(_mm_loadl_epi64((const __m128i *)p),
                              _mm_loadl_epi64((const __m128i *)(p + step)));
}

ALWAYS vi load_bytes(const char *p, size_t step) {
    return _mm512_cvtepu8_epi32(load_eights(p, step));
}

ALWAYS vi load_signed(const char *p, size_t step) {
    return _mm512_cvtepi8_epi32(load_eights(p, step));
}

ALWAYS vf load_scales(const char *p, size_t step) {
    __m256i lo = _mm256_castsi128_si256(_mm_load_si128((const __m128i *)p));
    return _mm512_cvtph_ps(
        _mm256_inserti128_si256(lo, _mm_load_si128((const __m128i *)(p + step)), 1));
}

ALWAYS vi all_bytes(int x) {
    return _mm512_set1_epi8((char)x);
}

ALWAYS vi all_words(int32_t x) {
    return _mm512_set1_epi32(x);
}

ALWAYS vf all_floats(float x) {
    return _mm512_set1_ps(x);
}

ALWAYS vi all_parts(const void *p) {
    return _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)p));
}

ALWAYS vi chunk_bits(size_t c) {
    return _mm512_inserti64x4(all_bytes(1 << c), _mm256_set1_epi8((char)(2 << c)), 1);
}

ALWAYS __m256i fold(vi v) {
    return _mm256_add_epi32(_mm512_castsi512_si256(v), _mm512_extracti64x4_epi64(v, 1));
}

ALWAYS __m256 low8(vf v) {
    return _mm512_castps512_ps256(v);
}

ALWAYS vi srl16(vi v, int n) {
    return _mm512_srl_epi16(v, _mm_cvtsi32_si128(n));
}

ALWAYS vi srl32(vi v, int n) {
    return _mm512_srl_epi32(v, _mm_cvtsi32_si128(n));
}

ALWAYS vi sll32(vi v, int n) {
    return _mm512_sll_epi32(v, _mm_cvtsi32_si128(n));
}

ALWAYS vi sra32(vi v, int n) {
    return _mm512_sra_epi32(v, _mm_cvtsi32_si128(n));
}

ALWAYS vi widen(__m256i v) {
    return _mm512_zextsi256_si512(v);
}

ALWAYS vi look_up(vi table, vi v) {
    return _mm512_shuffle_epi8(table, v);
}

ALWAYS vi add_where(vi v, vi h, vi bit, vi x) {
    return _mm512_mask_add_epi8(v, _mm512_test_epi8_mask(h, bit), v, x);
}

ALWAYS vi add_words(vi a, vi b) {
    return _mm512_add_epi32(a, b);
}

ALWAYS vi dot(vi sum, vi w, vi x) {
    return _mm512_dpbusd_epi32(sum, w, x);
}

ALWAYS vi dot_word(vi sum, vi w, const int8_t *x, size_t c) {
    __m512i all = _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *)x));
    int lo = (int)c, hi = lo + 1;
    all = _mm512_permutexvar_epi32(
        _mm512_setr_epi32(lo, lo, lo, lo, lo, lo, lo, lo, hi, hi, hi, hi, hi, hi, hi, hi), all);
    return dot(sum, w, all);
}

ALWAYS __m128i dot4(__m128i sum, __m128i w, __m128i x) {
    return _mm_dpbusd_epi32(sum, w, x);
}

ALWAYS vf to_floats(vi v) {
    return _mm512_cvtepi32_ps(v);
}

ALWAYS vf as_floats(vi v) {
    return _mm512_castsi512_ps(v);
}

ALWAYS vf multiply_add(vf a, vf b, vf c) {
    return _mm512_fmadd_ps(a, b, c);
}

ALWAYS void store_floats(float *p, vf v, size_t n) {
    if (n >= VEC_ROWS) {
        _mm512_storeu_ps(p, v);
    } else {
        _mm256_storeu_ps(p, low8(v));
    }
}

struct six {
    vi n[16];
};

ALWAYS void load_six(struct six *s, const char *p, size_t step) {
    vi *out = s->n;
    UNROLL
    for (size_t n = 0; n < 8; n++) {
        vi lo = load_bytes(p + ROW_GROUP * n, step);
        out[n] = lo & all_words(15);
        out[n + 8] = srl32(lo, 4);
    }
    UNROLL
    for (size_t n = 0; n < 4; n++) {
        vi hi = load_bytes(p + ROW_GROUP * (8 + n), step);
        UNROLL
        for (size_t i = 0; i < 4; i++) {
            vi two = i < 2 ? sll32(hi, 4 - 2 * (int)i) : srl32(hi, 2 * (int)i - 4);
            out[n + 4 * i] |= two & all_words(0x30);
        }
    }
}

ALWAYS vi six_of(const struct six *s, size_t i) {
    return s->n[i];
}

#include "vnni.inc"

ALWAYS size_t most_lines(enum weight_type type) {
    (void)type;
    return SIZE_MAX;
}

/* Of 1.2 to 6.4 KiB all are alike (Zen 5). */
ALWAYS size_t fetch_ahead(enum weight_type type) {
    (void)type;
    return 2304;
}

#include "vnni_one.inc"

#define one_token avx512_one

#include "vnni_tile.inc"

/* --- Q4_K and Q5_K times one token: a register has the two blocks of a pair side by side --- */

/* Numbers 2i and 2i + 1 of 6 bits, for each row: i = 0 .. 3 are scales of pair i, 4 .. 7 minima. */
ALWAYS void load_six_pairs(vi out[8], const char *p) {
    vi hi[2];
    UNROLL
    for (size_t i = 0; i < 2; i++) hi[i] = load_bytes(p + ROW_GROUP * (8 + 2 * i), ROW_GROUP);
    UNROLL
    for (size_t i = 0; i < 4; i++) {
        vi lo = load_bytes(p + 2 * ROW_GROUP * i, ROW_GROUP);
        out[i] = lo & all_words(15);
        out[i + 4] = srl32(lo, 4);
    }
    UNROLL
    for (size_t i = 0; i < 8; i++) {
        vi two = i < 4 ? sll32(hi[i % 2], i < 2 ? 4 : 2) : srl32(hi[i % 2], i < 6 ? 0 : 2);
        out[i] |= two & all_words(0x30);
    }
}

ALWAYS __m256 high8(vf v) {
    return _mm512_extractf32x8_ps(v, 1);
}

/* a in the lower half, b in the upper one. */
ALWAYS vf two_floats(float a, float b) {
    return _mm512_mask_mov_ps(all_floats(a), 0xff00, all_floats(b));
}

/* Products of pair g's weights with its 64 activations, block by block. */
ALWAYS vi pair_sums(enum weight_type type, const char *w, size_t g, const struct panel1 *x) {
    vi sum[2] = {all_words(0), all_words(0)};
    UNROLL
    for (size_t c = 0; c < 8; c += 2) {
        UNROLL
        for (size_t k = 0; k < 2; k++) {
            vi q = load_chunk(type, w, 0, true, g, k, c);
            sum[k] = dot_word(sum[k], q, x[k].q[0][0], c);
        }
    }
    if (is_shifted(type)) sum[1] = sra32(sum[1], 4);
    return add_words(_mm512_shuffle_i64x2(sum[0], sum[1], 0x44),
                     _mm512_shuffle_i64x2(sum[0], sum[1], 0xee));
}

ALWAYS __m256 unit_pairs(enum weight_type type, __m256 acc, const char *w, const char *head,
                         const struct panel1 *x, const char *ahead) {
    vi six[8];
    (void)head;  // has none
    vf d = load_scales(w, 0), m = -load_scales(w + offsetof(struct kern_q4_k, dmin), 0);
    load_six_pairs(six, w + offsetof(struct kern_q4_k, sc));
    UNROLL
    for (size_t g = 0; g < 4; g++, x += 2) {
        fetch_part(type, ahead, g, 4);
        vf sum = to_floats(pair_sums(type, w, g, x));
        vf dx = two_floats(x[0].d[0], x[1].d[0]);
        vf scale = d * to_floats(six[g]) * dx, min = m * to_floats(six[g + 4]);
        acc = _mm256_fmadd_ps(low8(scale), low8(sum), acc);
        acc = _mm256_fmadd_ps(low8(min), _mm256_set1_ps(x[0].xs[0]), acc);
        acc = _mm256_fmadd_ps(high8(scale), high8(sum), acc);
        acc = _mm256_fmadd_ps(high8(min), _mm256_set1_ps(x[1].xs[0]), acc);
    }
    return acc;
}

/* struct weight_ops' matmul of a type for Zen 5. */
#define STREAMED(name, type)                                                                       \
    static void streamed_##name(float *y, size_t ldy, const void *w, size_t n_group, size_t n_col, \
                                const void *x, size_t n_tok) {                                     \
        const bool pairs = type == W_Q4_K || type == W_Q5_K;                                       \
        if (n_tok == 1)                                                                            \
            matmul_one(type, pairs ? unit_pairs : unit_one, y, w, n_group, n_col, x);              \
        else                                                                                       \
            matmul_##name(y, ldy, w, n_group, n_col, x, n_tok);                                    \
    }
#define INSTALL_STREAMED(name, type) k->weights[type].matmul = streamed_##name;

VNNI_TYPES(MATMUL)
VNNI_WIDE_TYPES(MATMUL)
VNNI_TYPES(STREAMED)
VNNI_WIDE_TYPES(STREAMED)

void kernels_avx512(struct kernels *k) {
    k->name = "avx512";
    k->multiply = multiply;
    k->tile_groups = 2 * VEC_ROWS / ROW_GROUP;
    VNNI_TYPES(INSTALL)
    VNNI_WIDE_TYPES(INSTALL)
}

void kernels_zen5(struct kernels *k) {
    k->name = "zen5";
    VNNI_TYPES(INSTALL_STREAMED)
    VNNI_WIDE_TYPES(INSTALL_STREAMED)
}
