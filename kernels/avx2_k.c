/* avx2_k.c - Q6_K on x86-64 with AVX2, FMA and F16C. Same bits as scalar_k.c.
 *
 * maddubs wants one operand unsigned, so the weights stay 0..63, and the 32 that is too much is taken
 * off again as 32 * (sum of the activations). Int16 sums of four chunks may wrap around on the way;
 * the difference is at most 4 * 2 * 32 * 127 = 32512 and exact.
 */
#include "f16.h"
#include "kernels.h"

#include <immintrin.h>
#include <string.h>

#define ALWAYS static inline __attribute__((always_inline))
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif
/* Tells gcc that v is used here: keeps it from reordering the sums until they spill. */
#define KEEP(v) __asm__ volatile("" : "+x"(v))

enum {
    PREFETCH_AHEAD = 9216,    // one sequential stream of weights, so far ahead into L2 (measured)
    D_BYTES = 2 * ROW_GROUP,  // the d of a super-block of 8 rows
    SPAN = 64,                // super-blocks whose activations are summed at once
    TILE_TOK = 4,             // tokens of a tile
    PASS_BYTES = 192 * 1024,  // activations that go over the weights in one pass (L2)
};

/* Re-laying. */

/* 16 bytes of each of 8 rows, `step` apart, to four runs of [8 rows][4 bytes]. */
ALWAYS void transpose_words(void *dst, const char *src, size_t step) {
    __m256i v[4], *out = dst;
    UNROLL
    for (size_t r = 0; r < 4; r++) {
        v[r] = _mm256_loadu2_m128i((const __m128i *)(src + (r + 4) * step),
                                   (const __m128i *)(src + r * step));
    }
    __m256i a = _mm256_unpacklo_epi32(v[0], v[1]), b = _mm256_unpackhi_epi32(v[0], v[1]);
    __m256i c = _mm256_unpacklo_epi32(v[2], v[3]), d = _mm256_unpackhi_epi32(v[2], v[3]);
    _mm256_store_si256(out, _mm256_unpacklo_epi64(a, c));
    _mm256_store_si256(out + 1, _mm256_unpackhi_epi64(a, c));
    _mm256_store_si256(out + 2, _mm256_unpacklo_epi64(b, d));
    _mm256_store_si256(out + 3, _mm256_unpackhi_epi64(b, d));
}

/* 16 bytes of each of 8 rows, `step` apart, to [16][8 rows]. */
ALWAYS void transpose_bytes(void *dst, const char *src, size_t step) {
    __m128i v[8], w[8], *out = dst;
    UNROLL
    for (size_t r = 0; r < 8; r++) v[r] = _mm_loadu_si128((const __m128i *)(src + r * step));
    UNROLL
    for (size_t r = 0; r < 4; r++) {  // rows r and r + 4 side by side, then 2 apart, then 1
        w[2 * r] = _mm_unpacklo_epi8(v[r], v[r + 4]);
        w[2 * r + 1] = _mm_unpackhi_epi8(v[r], v[r + 4]);
    }
    UNROLL
    for (size_t i = 0; i < 2; i++) {
        __m128i even0 = _mm_unpacklo_epi8(w[i], w[4 + i]),
                even1 = _mm_unpackhi_epi8(w[i], w[4 + i]);
        __m128i odd0 = _mm_unpacklo_epi8(w[2 + i], w[6 + i]);
        __m128i odd1 = _mm_unpackhi_epi8(w[2 + i], w[6 + i]);
        _mm_store_si128(out + 4 * i, _mm_unpacklo_epi8(even0, odd0));
        _mm_store_si128(out + 4 * i + 1, _mm_unpackhi_epi8(even0, odd0));
        _mm_store_si128(out + 4 * i + 2, _mm_unpacklo_epi8(even1, odd1));
        _mm_store_si128(out + 4 * i + 3, _mm_unpackhi_epi8(even1, odd1));
    }
}

#include "relay_k.inc"

/* Matrices. */

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

/* Four weights, 0..63, of each of 8 rows: chunk c of block k of a half. w: the super-block. */
ALWAYS __m256i load_weights(const char *w, size_t half, size_t k, size_t c) {
    const __m256i own = _mm256_set1_epi8(0x3f), rest = _mm256_set1_epi8((char)0xc0);
    const char *q = w + offsetof(struct kern_q6_k, q) + 768 * half + 32 * c;
    if (k < 3) return _mm256_and_si256(_mm256_load_si256((const __m256i *)(q + 256 * k)), own);
    __m256i v = _mm256_and_si256(_mm256_load_si256((const __m256i *)q), rest);
    UNROLL
    for (size_t p = 1; p < 3; p++) {
        __m256i more = _mm256_load_si256((const __m256i *)(q + 256 * p));
        v = _mm256_or_si256(_mm256_srli_epi16(v, 2), _mm256_and_si256(more, rest));
    }
    return _mm256_srli_epi16(v, 2);
}

/* What the 32 that is too much adds: 32 * the sums of the activations 0-15 and 16-31 of a block, to
 * excess [2][width tokens]. Of a sum the pairs 0 1 and 2 3 of every four stay apart, one int16 each, as
 * in what maddubs makes of weights. x: q of the panel. */
ALWAYS void find_excess(int32_t *excess, const char *x, size_t width) {
    const __m256i times = _mm256_set1_epi8(32);
    if (width == 1) {
        __m256i v = _mm256_maddubs_epi16(times, _mm256_loadu_si256((const __m256i *)x));
        v = _mm256_add_epi16(v, _mm256_shuffle_epi32(v, 0x4e));
        v = _mm256_add_epi16(v, _mm256_shuffle_epi32(v, 0xb1));
        excess[0] = _mm256_extract_epi32(v, 0);
        excess[1] = _mm256_extract_epi32(v, 4);
        return;
    }
    UNROLL
    for (size_t u = 0; u < 2; u++) {
        __m256i sum = _mm256_setzero_si256();
        UNROLL
        for (size_t e = 0; e < 4; e++) {
            const char *p = x + 4 * width * (4 * u + e);
            __m256i v = _mm256_load_si256((const __m256i *)p);
            sum = _mm256_add_epi16(sum, _mm256_maddubs_epi16(times, v));
        }
        _mm256_storeu_si256((__m256i *)(excess + width * u), sum);
    }
}

/* Block k of a half of super-block w: acc[t] += 8 rows times n_tok tokens from `first` on of the panel. */
ALWAYS void block_q6_k(__m256 *acc, const char *w, __m256 scale, size_t half, size_t k,
                       const char *panel, const int32_t *excess, size_t width, size_t first,
                       size_t n_tok) {
    const char *d = panel + 4 * first, *x = panel + 8 * width;
    const char *over = (const char *)(excess + first);
    __m256i sum[TILE_TOK], total[TILE_TOK];
    __m128i sc = _mm_load_si128((const __m128i *)(w + (8 * half + 2 * k) * ROW_GROUP));
    UNROLL
    for (size_t u = 0; u < 2; u++) {
        UNROLL
        for (size_t e = 0; e < 4; e++) {
            __m256i q = load_weights(w, half, k, 4 * u + e);
            UNROLL
            for (size_t t = 0; t < n_tok; t++) {
                const char *xt = x + 4 * ((4 * u + e) * width + first + t);
                __m256i p = _mm256_maddubs_epi16(q, broadcast_word(xt));
                sum[t] = e == 0 ? p : _mm256_add_epi16(sum[t], p);
                KEEP(sum[t]);
            }
        }
        __m128i both = u == 0 ? _mm_unpacklo_epi8(sc, sc) : _mm_unpackhi_epi8(sc, sc);
        __m256i sc16 = _mm256_cvtepi8_epi16(both);
        UNROLL
        for (size_t t = 0; t < n_tok; t++) {
            __m256i exact = _mm256_sub_epi16(sum[t], broadcast_word(over + 4 * (u * width + t)));
            __m256i p = _mm256_madd_epi16(exact, sc16);
            total[t] = u == 0 ? p : _mm256_add_epi32(total[t], p);
        }
    }
    UNROLL
    for (size_t t = 0; t < n_tok; t++) {
        __m256 dd = _mm256_mul_ps(scale, broadcast_float(d + 4 * t));
        acc[t] = _mm256_fmadd_ps(dd, _mm256_cvtepi32_ps(total[t]), acc[t]);
    }
}

/* Into L2, not L1: the activations must not wait behind misses to memory. */
ALWAYS void prefetch_half(const char *p) {
    UNROLL
    for (size_t i = 0; i < sizeof(struct kern_q6_k) / 128; i++)
        _mm_prefetch(p + 64 * i, _MM_HINT_T1);
}

/* A row group: its d, its super-blocks, and how far ahead to fetch weights into L2, if not 0. */
struct rows {
    const char *d, *w;
    size_t ahead;
};

/* A tile: n super-blocks of 8 rows times n_tok tokens from `first` on of panels of `width`; goes on from
 * what y holds unless `fresh`. excess: for one token [n * 8][2], else room for one block. width and
 * n_tok are constants where it is inlined. */
ALWAYS void tile_q6_k(float *y, size_t ldy, struct rows r, size_t n, bool fresh, const char *panel,
                      int32_t *excess, size_t width, size_t first, size_t n_tok) {
    __m256 acc[TILE_TOK];
    UNROLL
    for (size_t t = 0; t < n_tok; t++) {
        acc[t] = fresh ? _mm256_setzero_ps() : _mm256_loadu_ps(y + t * ldy);
    }
    for (size_t b = 0; b < n; b++, r.w += sizeof(struct kern_q6_k), r.d += D_BYTES) {
        __m256 scale = _mm256_cvtph_ps(_mm_load_si128((const __m128i *)r.d));
        if (r.ahead && b % 4 == 0) _mm_prefetch(r.d + r.ahead, _MM_HINT_T1);
        for (size_t half = 0; half < 2; half++) {
            const char *next = r.w + r.ahead + sizeof(struct kern_q6_k) / 2 * half;
            if (r.ahead) prefetch_half(next);
            UNROLL
            for (size_t k = 0; k < 4; k++, panel += 40 * width) {
                if (width > 1) find_excess(excess, panel + 8 * width, width);
                block_q6_k(acc, r.w, scale, half, k, panel, excess, width, first, n_tok);
                if (width == 1) excess += 2;
            }
        }
    }
    UNROLL
    for (size_t t = 0; t < n_tok; t++) _mm256_storeu_ps(y + t * ldy, acc[t]);
}

static void matmul_one(float *y, const char *w, size_t n_group, size_t n_super, const char *x) {
    size_t head = (n_super * D_BYTES + 63) / 64 * 64;
    size_t group = head + n_super * sizeof(struct kern_q6_k);
    int32_t excess[SPAN * 8][2];  // of these columns, for all rows
    for (size_t s = 0; s < n_super; s += SPAN) {
        size_t n = n_super - s < SPAN ? n_super - s : SPAN;
        const char *panel = x + s * 8 * sizeof(struct panel1);
        for (size_t b = 0; b < n * 8; b++) find_excess(excess[b], panel + 40 * b + 8, 1);
        for (size_t g = 0; g < n_group; g++) {
            const char *d = w + g * group;
            struct rows r = {d + s * D_BYTES, d + head + s * sizeof(struct kern_q6_k),
                             PREFETCH_AHEAD};
            tile_q6_k(y + g * ROW_GROUP, 0, r, n, s == 0, panel, excess[0], 1, 0, 1);
        }
    }
}

static void matmul_q6_k(float *y, size_t ldy, const void *weights, size_t n_group, size_t n_col,
                        const void *x, size_t n_tok) {
    size_t n_super = n_col / Q_SUPER, group = weight_group_bytes(W_Q6_K, n_col);
    const char *w = weights;
    if (n_tok == 1) {
        matmul_one(y, w, n_group, n_super, x);
        return;
    }
    size_t run = n_super * 8 * sizeof(struct panel8), pass = PASS_BYTES / (run + 1) * 8;
    size_t head = group - n_super * sizeof(struct kern_q6_k);
    int32_t room[2 * 8];
    if (pass < 8) pass = 8;
    for (size_t tok = 0; tok < n_tok; tok += pass) {
        size_t end = n_tok - tok < pass ? n_tok : tok + pass;
        for (size_t g = 0; g < n_group; g++) {
            const char *d = w + g * group;
            for (size_t t = tok; t < end; t += TILE_TOK) {
                const char *panel = (const char *)x + t / 8 * run;
                float *yt = y + t * ldy + g * ROW_GROUP;
                struct rows r = {d, d + head, t == 0 ? group : 0};  // ahead: the next rows
                switch (end - t) {
                case 1: tile_q6_k(yt, ldy, r, n_super, true, panel, room, 8, t % 8, 1); break;
                case 2: tile_q6_k(yt, ldy, r, n_super, true, panel, room, 8, t % 8, 2); break;
                case 3: tile_q6_k(yt, ldy, r, n_super, true, panel, room, 8, t % 8, 3); break;
                default:
                    tile_q6_k(yt, ldy, r, n_super, true, panel, room, 8, t % 8, TILE_TOK);
                    break;
                }
            }
        }
    }
}

void kernels_avx2_k(struct kernels *k) {
    k->q6_k.relay = relay_q6_k;
    k->q6_k.matmul = matmul_q6_k;
}
