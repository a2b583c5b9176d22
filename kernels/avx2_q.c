/* avx2_q.c - quantised weights of the types that scalar_q.c and scalar_k.c define, on x86-64 with AVX2,
 * FMA and F16C. Same bits.
 *
 * All types go one way. A run is what lies together in kernel order: 4 or 8 blocks of 32 columns of 8
 * rows. weights() takes four weights of each row out of it, as bytes; scales() the rest, as floats. One
 * token (decode) is multiplied as the bytes come; for more, a run is unpacked into L1 once and then
 * goes over all tokens, so that unpacking costs next to nothing. A minimum is kept with the sign with
 * which it is added.
 */
#include "avx2.h"
#include "f16.h"
#include "kernels.h"
#include "relay.h"
#include "x86.h"

enum {
    PREFETCH_AHEAD = 2048,    // one sequential stream of weights, so far ahead into L2 (measured)
    TILE_TOK = 4,             // tokens of a tile
    TILE_VEC = 2,             // and groups of 8 rows
    PASS_TOK = 128,           // tokens of a pass: their sums stay in L1; a multiple of 8
    PASS_BYTES = 192 * 1024,  // and of their activations as many columns as stay in L2
    RUN_BLOCKS = 8,           // most blocks of a run
};

/* Bytes that maddubs multiplies: what they reach decides how many of its sums fit int16. */
enum reach {
    UP_TO_15,  // all 8 chunks of a block: 16 * 15 * 127 = 30480
    UP_TO_31,  // 4 chunks: 8 * 31 * 127 = 31496
    UP_TO_63,  // 2 chunks: 4 * 63 * 127 = 32004
    SIGNED,    // |w| times x with the sign of w, 1 chunk: 2 * 127 * 127 = 32258
};

ALWAYS enum reach reach_of(enum weight_type type) {
    if (type == W_IQ4_NL || type == W_IQ4_XS) return SIGNED;
    if (type == W_Q6_K) return UP_TO_63;
    return type == W_Q4_1 || type == W_Q4_K || type == W_Q2_K || type == W_Q3_K ? UP_TO_15
                                                                                : UP_TO_31;
}

ALWAYS bool has_min(enum weight_type type) {
    return type == W_Q4_1 || type == W_Q5_1 || type == W_Q4_K || type == W_Q5_K;
}

/* Two scales in a block of 32. */
ALWAYS bool in_halves(enum weight_type type) {
    return type == W_Q2_K || type == W_Q3_K || type == W_Q6_K;
}

/* Bytes and blocks of a run; MXFP4, a block of which stands alone, may end with fewer. */
ALWAYS size_t run_bytes(enum weight_type type) {
    switch (type) {
    case W_Q4_1: return sizeof(struct kern_q4_1);
    case W_Q5_0: return sizeof(struct kern_q5_0);
    case W_Q5_1: return sizeof(struct kern_q5_1);
    case W_IQ4_NL: return sizeof(struct kern_q4_0);
    case W_MXFP4: return 4 * sizeof(struct kern_mxfp4);
    case W_Q2_K: return sizeof(struct kern_q2_k);
    case W_Q3_K: return sizeof(struct kern_q3_k);
    case W_Q4_K: return sizeof(struct kern_q4_k);
    case W_Q5_K: return sizeof(struct kern_q5_k);
    case W_Q6_K: return sizeof(struct kern_q6_k);
    default: return sizeof(struct kern_iq4_xs);
    }
}

ALWAYS size_t run_blocks(enum weight_type type) {
    bool super = type == W_IQ4_XS || (type >= W_Q2_K && type <= W_Q6_K);
    return super ? Q_SUPER / Q_BLOCK : COL_UNIT / Q_BLOCK;
}

/* Bytes of the head that belong to a run. */
ALWAYS size_t run_head(enum weight_type type) {
    switch (type) {
    case W_MXFP4: return 4 * ROW_GROUP;
    case W_Q2_K: return sizeof(struct head_q2_k);
    case W_Q3_K: return sizeof(struct head_q3_k);
    case W_Q6_K: return sizeof(uint16_t[ROW_GROUP]);
    default: return 0;
    }
}

struct run {
    _Alignas(64) uint8_t q[RUN_BLOCKS][8][ROW_GROUP][4];  // [block][c]: as weights() gives them
    float d[RUN_BLOCKS][ROW_GROUP];                       // scale
    float m[RUN_BLOCKS][ROW_GROUP];  // what the panel's xs is multiplied with; Q2_K: -dmin
    int16_t sc[2 * RUN_BLOCKS][ROW_GROUP][2];  // in halves: their scales, each twice,
    int16_t pair[RUN_BLOCKS][ROW_GROUP][2];    // and what the sums of halves are multiplied with
};

/* Taking a run apart. */

ALWAYS __m256i load_bytes(const char *p) {
    return _mm256_load_si256((const __m256i *)(const void *)p);
}

ALWAYS __m256i nibbles(__m256i v, bool high) {
    return _mm256_and_si256(high ? _mm256_srli_epi16(v, 4) : v, _mm256_set1_epi8(15));
}

/* Bit `bit` of every byte, moved to bit `to`. */
ALWAYS __m256i one_bit(__m256i v, size_t bit, size_t to) {
    __m256i s =
        bit <= to ? _mm256_slli_epi16(v, (int)(to - bit)) : _mm256_srli_epi16(v, (int)(bit - to));
    return _mm256_and_si256(s, _mm256_set1_epi8((char)(1 << to)));
}

ALWAYS __m256i look_up(const int8_t table[16], int add, __m256i index) {
    __m128i t = _mm_add_epi8(_mm_loadu_si128((const __m128i *)(const void *)table),
                             _mm_set1_epi8((char)add));
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(t), index);
}

/* What MXFP4's table is moved by to be of one sign. */
enum { FP4_BIAS = 12 };

/* Those of block k of a half of a Q6_K: of the last, two bits are above each of the others. */
ALWAYS __m256i weights_q6_k(const char *q, size_t k) {
    const __m256i own = _mm256_set1_epi8(0x3f), rest = _mm256_set1_epi8((char)0xc0);
    if (k < 3) return _mm256_and_si256(load_bytes(q + 256 * k), own);
    __m256i v = _mm256_and_si256(load_bytes(q), rest);
    UNROLL
    for (size_t p = 1; p < 3; p++) {
        __m256i more = _mm256_and_si256(load_bytes(q + 256 * p), rest);
        v = _mm256_or_si256(_mm256_srli_epi16(v, 2), more);
    }
    return _mm256_srli_epi16(v, 2);
}

/* Four weights of each row: chunk c of block b of the run at w; b is a constant for K-quants. */
ALWAYS __m256i weights(enum weight_type type, const char *w, size_t b, size_t c) {
    size_t at = 128 * b + 32 * (c % 4);  // of blocks that hold weights 4c and 16 + 4c in a byte
    switch (type) {
    case W_Q4_1: return nibbles(load_bytes(w + offsetof(struct kern_q4_1, q) + at), c >= 4);
    case W_Q5_0: {
        __m256i h = load_bytes(w + offsetof(struct kern_q5_0, h) + 32 * b);
        __m256i v = load_bytes(w + offsetof(struct kern_q5_0, q) + at);
        return _mm256_or_si256(nibbles(v, c >= 4), one_bit(h, c, 4));
    }
    case W_Q5_1: {
        __m256i h = load_bytes(w + offsetof(struct kern_q5_1, h) + 32 * b);
        __m256i v = load_bytes(w + offsetof(struct kern_q5_1, q) + at);
        return _mm256_or_si256(nibbles(v, c >= 4), one_bit(h, c, 4));
    }
    case W_IQ4_NL: {
        __m256i v = load_bytes(w + offsetof(struct kern_q4_0, q) + at);
        return look_up(iq4_values, 0, nibbles(v, c >= 4));
    }
    case W_MXFP4: return look_up(fp4_values, FP4_BIAS, nibbles(load_bytes(w + at), c >= 4));
    case W_Q2_K:
    case W_Q3_K: {
        bool three = type == W_Q3_K;
        size_t q = three ? offsetof(struct kern_q3_k, q) : offsetof(struct kern_q2_k, q);
        __m256i v = load_bytes(w + q + 256 * (b / 4) + 32 * c);
        v = _mm256_and_si256(_mm256_srli_epi16(v, (int)(b % 4 * 2)), _mm256_set1_epi8(3));
        if (!three) return v;
        return _mm256_or_si256(v, one_bit(load_bytes(w + 32 * c), b, 2));
    }
    case W_Q4_K:
        return nibbles(load_bytes(w + offsetof(struct kern_q4_k, q) + 256 * (b / 2) + 32 * c),
                       b % 2);
    case W_Q5_K: {
        __m256i v = load_bytes(w + offsetof(struct kern_q5_k, q) + 256 * (b / 2) + 32 * c);
        __m256i h = load_bytes(w + offsetof(struct kern_q5_k, h) + 32 * c);
        return _mm256_or_si256(nibbles(v, b % 2), one_bit(h, b, 4));
    }
    case W_Q6_K:
        return weights_q6_k(w + offsetof(struct kern_q6_k, q) + 768 * (b / 4) + 32 * c, b % 4);
    default: {
        __m256i v = load_bytes(w + offsetof(struct kern_iq4_xs, q) + at);
        return look_up(iq4_values, 0, nibbles(v, c >= 4));
    }
    }
}

ALWAYS __m256 load_halves(const char *p) {
    return _mm256_cvtph_ps(_mm_load_si128((const __m128i *)(const void *)p));
}

/* Sixteen numbers of 6 bits of 8 rows, as bytes [16][row]. */
ALWAYS void take_six(__m256i out[4], const char *six) {
    const __m256i two = _mm256_set1_epi8(0x30);
    __m256i l0 = load_bytes(six), l1 = load_bytes(six + 32), h = load_bytes(six + 64);
    __m256i h0 = _mm256_and_si256(_mm256_slli_epi16(h, 4), two);
    __m256i h1 = _mm256_and_si256(_mm256_slli_epi16(h, 2), two);
    __m256i h2 = _mm256_and_si256(h, two), h3 = _mm256_and_si256(_mm256_srli_epi16(h, 2), two);
    out[0] = _mm256_or_si256(nibbles(l0, false), h0);
    out[1] = _mm256_or_si256(nibbles(l1, false), h1);
    out[2] = _mm256_or_si256(nibbles(l0, true), h2);
    out[3] = _mm256_or_si256(nibbles(l1, true), h3);
}

ALWAYS __m128i load_eight(const void *p) {
    return _mm_loadl_epi64((const __m128i *)p);
}

ALWAYS __m256 bytes_to_floats(const void *p) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(load_eight(p)));
}

/* Of a Q4_K or Q5_K: d, -dmin, and the numbers of scales, then minima: [4 blocks][row], but by lanes of
 * 4 rows. */
struct super {
    __m256 d, m;
    __m256i n[4];
};

ALWAYS struct super take_super(const char *w) {
    const __m256i by_rows = _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7);
    struct super s = {.d = load_halves(w)};
    s.m = _mm256_xor_ps(load_halves(w + offsetof(struct kern_q4_k, dmin)), _mm256_set1_ps(-0.0f));
    take_six(s.n, w + offsetof(struct kern_q4_k, sc));
    UNROLL
    for (size_t i = 0; i < 4; i++) s.n[i] = _mm256_permutevar8x32_epi32(s.n[i], by_rows);
    return s;
}

/* Number i of n, times d. */
ALWAYS __m256 scaled(__m256 d, __m256i n, size_t i) {
    const __m256i byte = _mm256_setr_epi32(-256, -255, -254, -253, -256, -255, -254, -253);
    __m256i at = _mm256_add_epi32(byte, _mm256_set1_epi32(4 * (int)i));  // above it zeros
    return _mm256_mul_ps(d, _mm256_cvtepi32_ps(_mm256_shuffle_epi8(n, at)));
}

ALWAYS void scales_of_block(struct run *r, const struct super *s, size_t b) {
    _mm256_store_ps(r->d[b], scaled(s->d, s->n[b / 4], b % 4));
    _mm256_store_ps(r->m[b], scaled(s->m, s->n[2 + b / 4], b % 4));
}

ALWAYS void scales_k(struct run *r, const char *w) {
    struct super s = take_super(w);
    UNROLL
    for (size_t b = 0; b < 8; b++) scales_of_block(r, &s, b);
}

ALWAYS void scales_xs(struct run *r, const char *w) {
    _Alignas(32) int8_t n[8][ROW_GROUP];
    const char *hi = w + offsetof(struct kern_iq4_xs, sc_hi);
    const __m256i two = _mm256_set1_epi8(3), first = _mm256_setr_epi64x(0, 0, 2, 2);
    const __m256i second = _mm256_setr_epi64x(4, 4, 6, 6);
    __m256 d = load_halves(w);
    __m256i l = load_bytes(w + offsetof(struct kern_iq4_xs, sc_lo));
    __m256i h = _mm256_broadcastsi128_si256(_mm_load_si128((const __m128i *)(const void *)hi));
    __m256i h0 = _mm256_slli_epi16(_mm256_and_si256(_mm256_srlv_epi64(h, first), two), 4);
    __m256i h1 = _mm256_slli_epi16(_mm256_and_si256(_mm256_srlv_epi64(h, second), two), 4);
    __m256i less = _mm256_set1_epi8(32), *to = (__m256i *)(void *)n;
    _mm256_store_si256(to, _mm256_sub_epi8(_mm256_or_si256(nibbles(l, false), h0), less));
    _mm256_store_si256(to + 1, _mm256_sub_epi8(_mm256_or_si256(nibbles(l, true), h1), less));
    UNROLL
    for (size_t b = 0; b < 8; b++)
        _mm256_store_ps(r->d[b], _mm256_mul_ps(d, bytes_to_floats(n[b])));
}

/* Bytes [2 halves][row] of signed numbers to int16 [half][row] twice, and [row][half]. */
ALWAYS void spread(struct run *r, size_t b, __m128i sc, __m128i pair) {
    __m256i *to = (__m256i *)(void *)r->sc[2 * b];
    _mm256_store_si256(to, _mm256_cvtepi8_epi16(_mm_unpacklo_epi8(sc, sc)));
    _mm256_store_si256(to + 1, _mm256_cvtepi8_epi16(_mm_unpackhi_epi8(sc, sc)));
    __m128i by_row = _mm_unpacklo_epi8(pair, _mm_unpackhi_epi64(pair, pair));
    _mm256_store_si256((__m256i *)(void *)r->pair[b], _mm256_cvtepi8_epi16(by_row));
}

ALWAYS void scales_q2_k(struct run *r, const char *head, const char *w) {
    const __m128i nibble = _mm_set1_epi8(15);
    __m256 min = load_halves(head + offsetof(struct head_q2_k, dmin));
    UNROLL
    for (size_t b = 0; b < 8; b++) {
        __m128i v = _mm_load_si128((const __m128i *)(const void *)(w + 16 * b));
        spread(r, b, _mm_and_si128(v, nibble), _mm_and_si128(_mm_srli_epi16(v, 4), nibble));
    }
    _mm256_store_ps(r->d[0], load_halves(head));
    _mm256_store_ps(r->m[0], _mm256_xor_ps(min, _mm256_set1_ps(-0.0f)));
}

/* The bits are 4 too much: off again goes 4 * sc times the sum of a half. */
ALWAYS void scales_q3_k(struct run *r, const char *head) {
    _Alignas(32) char six[sizeof(struct six_bits)];
    __m256i n[4];
    memcpy(six, head + offsetof(struct head_q3_k, sc), sizeof six);
    take_six(n, six);
    UNROLL
    for (size_t b = 0; b < 8; b++) {
        __m128i v =
            b % 2 ? _mm256_extracti128_si256(n[b / 2], 1) : _mm256_castsi256_si128(n[b / 2]);
        v = _mm_sub_epi8(v, _mm_set1_epi8(32));
        spread(r, b, v, v);
    }
    _mm256_store_ps(r->d[0], load_halves(head));
}

/* The bits are 32 too much. */
ALWAYS void scales_q6_k(struct run *r, const char *head, const char *w) {
    UNROLL
    for (size_t b = 0; b < 8; b++) {
        __m128i v = _mm_load_si128((const __m128i *)(const void *)(w + 16 * b));
        spread(r, b, v, v);
    }
    _mm256_store_ps(r->d[0], load_halves(head));
}

/* head, w: the run's own. */
ALWAYS void scales(enum weight_type type, struct run *r, const char *head, const char *w) {
    switch (type) {
    case W_Q4_K:
    case W_Q5_K: scales_k(r, w); return;
    case W_IQ4_XS: scales_xs(r, w); return;
    case W_Q2_K: scales_q2_k(r, head, w); return;
    case W_Q3_K: scales_q3_k(r, head); return;
    case W_Q6_K: scales_q6_k(r, head, w); return;
    default: break;
    }
    UNROLL
    for (size_t b = 0; b < 4; b++) {
        if (type == W_MXFP4) {
            __m256i e =
                _mm256_slli_epi32(_mm256_cvtepu8_epi32(load_eight(head + ROW_GROUP * b)), 23);
            _mm256_store_ps(r->d[b], _mm256_castsi256_ps(e));
            continue;
        }
        _mm256_store_ps(r->d[b], load_halves(w + 16 * b));
        if (!has_min(type)) continue;
        _mm256_store_ps(r->m[b], load_halves(w + 64 + 16 * b));
    }
}

/* Multiplying. */

/* Of types in halves: the sums of the first and last 16 q, int16 each, of a run's blocks for each of up to 8
 * tokens. */
struct sums {
    _Alignas(32) int32_t half[RUN_BLOCKS][8];
};

/* For each token a word: the sums of its first and last 16. For one token all words alike. */
ALWAYS __m256i half_sums(const char *q, size_t width) {
    const __m256i one8 = _mm256_set1_epi8(1), one = _mm256_set1_epi16(1);
    __m256i s[2];
    if (width == 1) {
        __m256i v = _mm256_loadu_si256((const __m256i *)(const void *)q);
        v = _mm256_madd_epi16(_mm256_maddubs_epi16(one8, v), one);
        v = _mm256_add_epi32(v, _mm256_shuffle_epi32(v, 0x4e));
        v = _mm256_add_epi32(v, _mm256_shuffle_epi32(v, 0xb1));
        s[0] = _mm256_permute2x128_si256(v, v, 0x00);
        s[1] = _mm256_permute2x128_si256(v, v, 0x11);
        return _mm256_blend_epi16(s[0], _mm256_slli_epi32(s[1], 16), 0xaa);
    }
    UNROLL
    for (size_t c = 0; c < 8; c++) {
        __m256i v = _mm256_maddubs_epi16(one8, load_bytes(q + 4 * width * c));
        s[c / 4] = c % 4 == 0 ? v : _mm256_add_epi16(s[c / 4], v);
    }
    s[0] = _mm256_madd_epi16(s[0], one);
    s[1] = _mm256_madd_epi16(s[1], one);
    return _mm256_blend_epi16(s[0], _mm256_slli_epi32(s[1], 16), 0xaa);
}

/* Sums of block b of a run, for a panel of 8 tokens. */
ALWAYS void add_up(struct sums *s, size_t b, const char *panel) {
    __m256i sums = half_sums(panel + offsetof(struct panel8, q), 8);
    _mm256_store_si256((__m256i *)(void *)s->half[b], sums);
}

/* A tile's block b: n_vec groups of 8 rows times n_tok tokens, exact sums, in halves times their scales.
 * r [n_vec], unpacked; or one run as it comes at w, and n_vec blocks from b on of it times a token, each
 * from its own panel, while `ahead` is fetched. x: the panel's q from the first token on. */
ALWAYS void dots(enum weight_type type, __m256i sum[TILE_VEC][TILE_TOK], const struct run *r,
                 const char *w, size_t b, bool unpacked, struct lines ahead, const char *x,
                 size_t width, size_t n_tok, size_t n_vec) {
    enum reach reach = reach_of(type);
    size_t flush = reach == SIGNED                         ? 1
                   : reach == UP_TO_63                     ? 2
                   : reach == UP_TO_15 && !in_halves(type) ? 8
                                                           : 4;
    const __m256i one = _mm256_set1_epi16(1);
    __m256i part[TILE_VEC][TILE_TOK];
    UNROLL
    for (size_t c = 0; c < 8; c++) {
        __m256i q[TILE_VEC];
        prefetch_part(ahead, c, 8);
        UNROLL
        for (size_t v = 0; v < n_vec; v++) {
            q[v] = unpacked ? load_bytes((const char *)r[v].q[b][c]) : weights(type, w, b + v, c);
        }
        UNROLL
        for (size_t t = 0; t < n_tok; t++) {
            UNROLL
            for (size_t v = 0; v < n_vec; v++) {
                const char *xv = unpacked ? x : x + v * sizeof(struct panel1);
                __m256i xc = _mm256_set1_epi32(load_i32(xv + 4 * (c * width + t)));
                __m256i p = reach == SIGNED ? _mm256_maddubs_epi16(_mm256_abs_epi8(q[v]),
                                                                   _mm256_sign_epi8(xc, q[v]))
                                            : _mm256_maddubs_epi16(q[v], xc);
                part[v][t] = c % flush == 0 ? p : _mm256_add_epi16(part[v][t], p);
                KEEP(part[v][t]);
                if (c % flush != flush - 1) continue;
                __m256i times =
                    in_halves(type) ? load_bytes((const char *)r[v].sc[2 * b + c / 4]) : one;
                p = _mm256_madd_epi16(part[v][t], times);
                sum[v][t] = c < flush ? p : _mm256_add_epi32(sum[v][t], p);
            }
        }
    }
}

/* acc += block b with one scale. d, s8, xs: of the first token's panel. */
ALWAYS void add_whole(enum weight_type type, __m256 *acc, const struct run *r, size_t b,
                      const __m256i *sum, const char *d, const char *s8, const char *xs,
                      size_t n_tok) {
    __m256 scale = _mm256_load_ps(r->d[b]);
    UNROLL
    for (size_t t = 0; t < n_tok; t++) {
        __m256i i = sum[t], minus8 = _mm256_set1_epi32(load_i32(s8 + 4 * t));
        if (type == W_Q5_0) i = _mm256_add_epi32(i, _mm256_add_epi32(minus8, minus8));
        if (type == W_MXFP4)
            i = _mm256_add_epi32(i, _mm256_add_epi32(minus8, _mm256_srai_epi32(minus8, 1)));
        __m256 dx = _mm256_set1_ps(load_f32(d + 4 * t));
        acc[t] = _mm256_fmadd_ps(_mm256_mul_ps(scale, dx), _mm256_cvtepi32_ps(i), acc[t]);
        if (!has_min(type)) continue;
        __m256 x = _mm256_set1_ps(load_f32(xs + 4 * t));
        acc[t] = _mm256_fmadd_ps(_mm256_load_ps(r->m[b]), x, acc[t]);
    }
}

/* acc += block b with two scales; d: as above, half: the first token's sums. */
ALWAYS void add_halves(enum weight_type type, __m256 *acc, const struct run *r, size_t b,
                       const __m256i *sum, const char *d, const int32_t *half, size_t n_tok) {
    __m256 scale = _mm256_load_ps(r->d[0]);
    __m256i pair = load_bytes((const char *)r->pair[b]);
    UNROLL
    for (size_t t = 0; t < n_tok; t++) {
        __m256i i = sum[t], over = _mm256_madd_epi16(pair, _mm256_set1_epi32(half[t]));
        __m256 dx = _mm256_set1_ps(load_f32(d + 4 * t));
        if (type == W_Q3_K) i = _mm256_sub_epi32(i, _mm256_slli_epi32(over, 2));
        if (type == W_Q6_K) i = _mm256_sub_epi32(i, _mm256_slli_epi32(over, 5));
        acc[t] = _mm256_fmadd_ps(_mm256_mul_ps(scale, dx), _mm256_cvtepi32_ps(i), acc[t]);
        if (type != W_Q2_K) continue;
        __m256 min = _mm256_mul_ps(_mm256_load_ps(r->m[0]), dx);
        acc[t] = _mm256_fmadd_ps(min, _mm256_cvtepi32_ps(over), acc[t]);
    }
}

/* acc += block b of a tile with tokens first .. first + n_tok of its panel. */
ALWAYS void add_block(enum weight_type type, __m256 acc[TILE_VEC][TILE_TOK], const struct run *r,
                      size_t b, const struct sums *s, const char *panel, size_t first, size_t n_tok,
                      size_t n_vec) {
    const char *d = panel + 4 * first, *s8 = d + 32, *x = d + 64;
    __m256i sum[TILE_VEC][TILE_TOK];
    dots(type, sum, r, NULL, b, true, (struct lines){x, 0}, x, 8, n_tok, n_vec);
    UNROLL
    for (size_t v = 0; v < n_vec; v++) {
        if (in_halves(type)) {
            add_halves(type, acc[v], &r[v], b, sum[v], d, s->half[b] + first, n_tok);
        } else {
            add_whole(type, acc[v], &r[v], b, sum[v], d, s8, d + offsetof(struct panel8, xs),
                      n_tok);
        }
    }
}

/* acc += the n blocks from b on of a run times a token. s: NULL, or what their scales are made of, here and
 * no earlier, or gcc keeps those of the whole run on the stack. */
ALWAYS void add_one(enum weight_type type, __m256 *acc, struct run *r, const struct super *s,
                    const char *w, size_t b, size_t n, struct lines ahead, const char *panel) {
    __m256i sum[TILE_VEC][TILE_TOK];
    _Alignas(32) int32_t half[ROW_GROUP];
    dots(type, sum, r, w, b, false, ahead, panel + 8, 1, 1, n);
    UNROLL
    for (size_t i = 0; i < n; i++, panel += sizeof(struct panel1)) {
        if (s) scales_of_block(r, s, b + i);
        if (in_halves(type)) {
            _mm256_store_si256((__m256i *)(void *)half, half_sums(panel + 8, 1));
            add_halves(type, acc, r, b + i, sum[i], panel, half, 1);
        } else {
            add_whole(type, acc, r, b + i, sum[i], panel, panel + 4,
                      panel + offsetof(struct panel1, xs), 1);
        }
    }
}

/* One token times a group of rows. Blocks whose weights share bytes go in pairs, which loads them once. */
ALWAYS void one_token(enum weight_type type, float *y, const char *head, const char *w,
                      size_t n_block, const char *panel) {
    bool in_pairs = type == W_Q4_K || type == W_Q5_K;
    size_t step = in_pairs ? 2 : 1, n_step = run_blocks(type) / step, bytes = run_bytes(type);
    __m256 acc = _mm256_setzero_ps();
    struct run r;
    for (size_t at = 0; at < n_block; w += bytes, head += run_head(type)) {
        struct super s;
        if (in_pairs)
            s = take_super(w);
        else
            scales(type, &r, head, w);
        if (run_head(type)) prefetch_lines(head + PREFETCH_AHEAD / 4, 1);
        UNROLL
        for (size_t i = 0; i < n_step; i++, at += step, panel += step * sizeof(struct panel1)) {
            if (type == W_MXFP4 && at == n_block) break;
            struct lines ahead = part_of((struct lines){w + PREFETCH_AHEAD, bytes / 64}, i, n_step);
            add_one(type, &acc, &r, in_pairs ? &s : NULL, w, step * i, step, ahead, panel);
        }
    }
    _mm256_storeu_ps(y, acc);
}

ALWAYS void unpack(enum weight_type type, struct run *r, const char *head, const char *w,
                   size_t n) {
    scales(type, r, head, w);
    UNROLL
    for (size_t b = 0; b < run_blocks(type); b++) {
        if (b == n) break;
        UNROLL
        for (size_t c = 0; c < 8; c++) {
            _mm256_store_si256((__m256i *)(void *)r->q[b][c], weights(type, w, b, c));
        }
    }
}

/* What a pass has summed up, by token. */
struct strip {
    _Alignas(64) float y[PASS_TOK][TILE_VEC][ROW_GROUP];
};

/* The n blocks of unpacked runs times n_tok tokens. */
ALWAYS void tile(enum weight_type type, float (*y)[TILE_VEC][ROW_GROUP], const struct run *r,
                 size_t n, const struct sums *s, const char *panel, size_t first, size_t n_tok,
                 size_t n_vec) {
    __m256 acc[TILE_VEC][TILE_TOK];
    UNROLL
    for (size_t t = 0; t < n_tok; t++) {
        UNROLL
        for (size_t v = 0; v < n_vec; v++) acc[v][t] = _mm256_load_ps(y[t][v]);
    }
    for (size_t b = 0; b < n; b++, panel += sizeof(struct panel8)) {
        add_block(type, acc, r, b, s, panel, first, n_tok, n_vec);
    }
    UNROLL
    for (size_t t = 0; t < n_tok; t++) {
        UNROLL
        for (size_t v = 0; v < n_vec; v++) _mm256_store_ps(y[t][v], acc[v][t]);
    }
}

/* A matrix, and what goes over it. */
struct product {
    float *y;
    size_t ldy, group, head, n_block;  // bytes of a group and of its head
    const char *w, *x;
    size_t stride;  // from panel to panel
};

/* Blocks at .. to of n_vec groups from g on, times the n tokens from tok on, to the strip. Of a panel that
 * is not full two or four tokens are computed, and those that are not there left alone. */
ALWAYS void add_runs(enum weight_type type, struct strip *to, const struct product *p, size_t g,
                     size_t at, size_t end, size_t tok, size_t n, size_t n_vec) {
    size_t blocks = run_blocks(type), bytes = run_bytes(type);
    struct run r[TILE_VEC];
    struct sums s;
    for (; at < end; at += blocks) {
        size_t n_block = type == W_MXFP4 && end - at < blocks ? end - at : blocks;
        UNROLL
        for (size_t v = 0; v < n_vec; v++) {
            const char *head = p->w + (g + v) * p->group;
            const char *w = head + p->head + at / blocks * bytes;
            unpack(type, &r[v], head + at / blocks * run_head(type), w, n_block);
            prefetch_lines(w + n_vec * p->group, bytes / 64);
        }
        for (size_t t = 0; t < n; t += TILE_TOK) {
            const char *panel = p->x + (tok + t) / 8 * p->stride + at * sizeof(struct panel8);
            for (size_t b = 0; in_halves(type) && t % 8 == 0 && b < n_block; b++) {
                add_up(&s, b, panel + b * sizeof(struct panel8));
            }
            if (n - t <= 2)
                tile(type, to->y + t, r, n_block, &s, panel, t % 8, 2, n_vec);
            else
                tile(type, to->y + t, r, n_block, &s, panel, t % 8, TILE_TOK, n_vec);
        }
    }
}

/* The same, to y, which goes on from where it is, or begins with the first block. */
ALWAYS void add_groups(enum weight_type type, const struct product *p, size_t g, size_t at,
                       size_t end, size_t tok, size_t n, size_t n_vec) {
    struct strip s;
    float *y = p->y + tok * p->ldy + g * ROW_GROUP;
    for (size_t t = 0; t < (n + TILE_TOK - 1) / TILE_TOK * TILE_TOK; t++) {
        UNROLL
        for (size_t v = 0; v < n_vec; v++) {
            bool begins = at == 0 || t >= n;
            _mm256_store_ps(s.y[t][v], begins ? _mm256_setzero_ps()
                                              : _mm256_loadu_ps(y + t * p->ldy + v * ROW_GROUP));
        }
    }
    add_runs(type, &s, p, g, at, end, tok, n, n_vec);
    for (size_t t = 0; t < n; t++) {
        UNROLL
        for (size_t v = 0; v < n_vec; v++) {
            _mm256_storeu_ps(y + t * p->ldy + v * ROW_GROUP, _mm256_load_ps(s.y[t][v]));
        }
    }
}

ALWAYS void matmul(enum weight_type type, float *y, size_t ldy, const char *w, size_t n_group,
                   size_t n_col, const char *x, size_t n_tok) {
    struct product p = {.y = y,
                        .ldy = ldy,
                        .group = weight_group_bytes((int)type, n_col),
                        .head = weight_head_bytes((int)type, n_col),
                        .n_block = n_col / Q_BLOCK,
                        .w = w,
                        .x = x};
    if (n_tok == 1) {
        for (size_t g = 0; g < n_group; g++, w += p.group) {
            one_token(type, y + g * ROW_GROUP, w, w + p.head, p.n_block, x);
        }
        return;
    }
    p.stride = (p.n_block + 3) / 4 * 4 * sizeof(struct panel8);
    size_t blocks = run_blocks(type);
    for (size_t tok = 0, n; tok < n_tok; tok += n) {
        n = n_tok - tok < PASS_TOK ? n_tok - tok : PASS_TOK;
        size_t run = (n + 7) / 8 * blocks * sizeof(struct panel8), end;
        size_t step = (PASS_BYTES < run ? 1 : PASS_BYTES / run) * blocks;
        for (size_t at = 0; at < p.n_block; at = end) {
            size_t g = 0;
            end = p.n_block - at < step ? p.n_block : at + step;
            for (; g + TILE_VEC <= n_group; g += TILE_VEC)
                add_groups(type, &p, g, at, end, tok, n, TILE_VEC);
            if (g < n_group) add_groups(type, &p, g, at, end, tok, n, 1);
        }
    }
}

static void matmul_q4_1(float *y, size_t ldy, const void *w, size_t n_group, size_t n_col,
                        const void *x, size_t n_tok) {
    matmul(W_Q4_1, y, ldy, w, n_group, n_col, x, n_tok);
}

static void matmul_q5_0(float *y, size_t ldy, const void *w, size_t n_group, size_t n_col,
                        const void *x, size_t n_tok) {
    matmul(W_Q5_0, y, ldy, w, n_group, n_col, x, n_tok);
}

static void matmul_q5_1(float *y, size_t ldy, const void *w, size_t n_group, size_t n_col,
                        const void *x, size_t n_tok) {
    matmul(W_Q5_1, y, ldy, w, n_group, n_col, x, n_tok);
}

static void matmul_iq4_nl(float *y, size_t ldy, const void *w, size_t n_group, size_t n_col,
                          const void *x, size_t n_tok) {
    matmul(W_IQ4_NL, y, ldy, w, n_group, n_col, x, n_tok);
}

static void matmul_mxfp4(float *y, size_t ldy, const void *w, size_t n_group, size_t n_col,
                         const void *x, size_t n_tok) {
    matmul(W_MXFP4, y, ldy, w, n_group, n_col, x, n_tok);
}

static void matmul_q2_k(float *y, size_t ldy, const void *w, size_t n_group, size_t n_col,
                        const void *x, size_t n_tok) {
    matmul(W_Q2_K, y, ldy, w, n_group, n_col, x, n_tok);
}

static void matmul_q3_k(float *y, size_t ldy, const void *w, size_t n_group, size_t n_col,
                        const void *x, size_t n_tok) {
    matmul(W_Q3_K, y, ldy, w, n_group, n_col, x, n_tok);
}

static void matmul_q4_k(float *y, size_t ldy, const void *w, size_t n_group, size_t n_col,
                        const void *x, size_t n_tok) {
    matmul(W_Q4_K, y, ldy, w, n_group, n_col, x, n_tok);
}

static void matmul_q5_k(float *y, size_t ldy, const void *w, size_t n_group, size_t n_col,
                        const void *x, size_t n_tok) {
    matmul(W_Q5_K, y, ldy, w, n_group, n_col, x, n_tok);
}

static void matmul_q6_k(float *y, size_t ldy, const void *w, size_t n_group, size_t n_col,
                        const void *x, size_t n_tok) {
    matmul(W_Q6_K, y, ldy, w, n_group, n_col, x, n_tok);
}

static void matmul_iq4_xs(float *y, size_t ldy, const void *w, size_t n_group, size_t n_col,
                          const void *x, size_t n_tok) {
    matmul(W_IQ4_XS, y, ldy, w, n_group, n_col, x, n_tok);
}

#include "relay_q.inc"

#include "relay_k.inc"

void kernels_avx2_q(struct kernels *k) {
    k->weights[W_Q4_1].relay = relay_q4_1;
    k->weights[W_Q4_1].matmul = matmul_q4_1;
    k->weights[W_Q5_0].relay = relay_q5_0;
    k->weights[W_Q5_0].matmul = matmul_q5_0;
    k->weights[W_Q5_1].relay = relay_q5_1;
    k->weights[W_Q5_1].matmul = matmul_q5_1;
    k->weights[W_IQ4_NL].relay = relay_iq4_nl;
    k->weights[W_IQ4_NL].matmul = matmul_iq4_nl;
    k->weights[W_MXFP4].relay = relay_mxfp4;
    k->weights[W_MXFP4].matmul = matmul_mxfp4;
    k->weights[W_Q2_K].relay = relay_q2_k;
    k->weights[W_Q2_K].matmul = matmul_q2_k;
    k->weights[W_Q3_K].relay = relay_q3_k;
    k->weights[W_Q3_K].matmul = matmul_q3_k;
    k->weights[W_Q4_K].relay = relay_q4_k;
    k->weights[W_Q4_K].matmul = matmul_q4_k;
    k->weights[W_Q5_K].relay = relay_q5_k;
    k->weights[W_Q5_K].matmul = matmul_q5_k;
    k->weights[W_Q6_K].relay = relay_q6_k;
    k->weights[W_Q6_K].matmul = matmul_q6_k;
    k->weights[W_IQ4_XS].relay = relay_iq4_xs;
    k->weights[W_IQ4_XS].matmul = matmul_iq4_xs;
}
