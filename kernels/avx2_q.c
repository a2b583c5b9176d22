/* avx2_q.c - quantised weights of the types that scalar_q.c and scalar_k.c define, but Q6_K, on x86-64
 * with AVX2, FMA and F16C. Same bits.
 *
 * All types go one way. A run is what lies together in kernel order: 4 or 8 blocks of 32 columns of 8
 * rows. weights() takes four weights of each row out of it, as bytes; scales() the rest, as floats. One
 * token (decode) is multiplied as the bytes come; for more, a run is unpacked into L1 once and then
 * goes over all tokens, so that unpacking costs next to nothing. A minimum is kept as -1/8 of itself,
 * to go with the panel's -8 * (sum of q): powers of two change no bit.
 */
#include "avx2.h"
#include "f16.h"
#include "kernels.h"
#include "x86.h"

enum {
    PREFETCH_AHEAD = 12288,   // one sequential stream of weights, so far ahead into L2
    TILE_TOK = 4,             // tokens of a tile
    PASS_BYTES = 192 * 1024,  // activations that go over the weights in one pass (L2)
    RUN_BLOCKS = 8,           // most blocks of a run
};

/* Bytes that maddubs multiplies: what they reach decides how many of its sums fit int16. */
enum reach {
    UP_TO_15,  // all 8 chunks of a block: 16 * 15 * 127 = 30480
    UP_TO_31,  // 4 chunks: 8 * 31 * 127 = 31496
    SIGNED,    // |w| times x with the sign of w, 1 chunk: 2 * 127 * 127 = 32258
};

ALWAYS enum reach reach_of(enum weight_type type) {
    if (type == W_IQ4_NL || type == W_IQ4_XS) return SIGNED;
    return type == W_Q4_1 || type == W_Q4_K || type == W_Q2_K || type == W_Q3_K ? UP_TO_15
                                                                                : UP_TO_31;
}

ALWAYS bool has_min(enum weight_type type) {
    return type == W_Q4_1 || type == W_Q5_1 || type == W_Q4_K || type == W_Q5_K;
}

/* Two scales in a block of 32. */
ALWAYS bool in_halves(enum weight_type type) {
    return type == W_Q2_K || type == W_Q3_K;
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
    default: return sizeof(struct kern_iq4_xs);
    }
}

ALWAYS size_t run_blocks(enum weight_type type) {
    bool super = type == W_IQ4_XS || (type >= W_Q2_K && type <= W_Q5_K);
    return super ? Q_SUPER / Q_BLOCK : COL_UNIT / Q_BLOCK;
}

/* Bytes of the head that belong to a run. */
ALWAYS size_t run_head(enum weight_type type) {
    switch (type) {
    case W_MXFP4: return 4 * ROW_GROUP;
    case W_Q2_K: return sizeof(struct head_q2_k);
    case W_Q3_K: return sizeof(struct head_q3_k);
    default: return 0;
    }
}

struct run {
    _Alignas(64) uint8_t q[RUN_BLOCKS][8][ROW_GROUP][4];  // [block][c]: as weights() gives them
    float d[RUN_BLOCKS][ROW_GROUP];                       // scale
    float m[RUN_BLOCKS][ROW_GROUP];            // -1/8 of what is times the sum; Q2_K: -dmin
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
ALWAYS void take_six(uint8_t out[16][ROW_GROUP], const char *six) {
    const __m256i two = _mm256_set1_epi8(0x30);
    __m256i *to = (__m256i *)(void *)out;
    __m256i l0 = load_bytes(six), l1 = load_bytes(six + 32), h = load_bytes(six + 64);
    __m256i h0 = _mm256_and_si256(_mm256_slli_epi16(h, 4), two);
    __m256i h1 = _mm256_and_si256(_mm256_slli_epi16(h, 2), two);
    __m256i h2 = _mm256_and_si256(h, two), h3 = _mm256_and_si256(_mm256_srli_epi16(h, 2), two);
    _mm256_store_si256(to, _mm256_or_si256(nibbles(l0, false), h0));
    _mm256_store_si256(to + 1, _mm256_or_si256(nibbles(l1, false), h1));
    _mm256_store_si256(to + 2, _mm256_or_si256(nibbles(l0, true), h2));
    _mm256_store_si256(to + 3, _mm256_or_si256(nibbles(l1, true), h3));
}

ALWAYS __m128i load_eight(const void *p) {
    return _mm_loadl_epi64((const __m128i *)p);
}

ALWAYS __m256 bytes_to_floats(const void *p) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(load_eight(p)));
}

/* d: 8 floats to times the scales; m: dmin / 8 times the minima, of a Q4_K or Q5_K. */
ALWAYS void scales_k(struct run *r, const char *w) {
    _Alignas(32) uint8_t n[16][ROW_GROUP];
    __m256 d = load_halves(w);
    __m256 m =
        _mm256_mul_ps(load_halves(w + offsetof(struct kern_q4_k, dmin)), _mm256_set1_ps(0.125f));
    take_six(n, w + offsetof(struct kern_q4_k, sc));
    UNROLL
    for (size_t b = 0; b < 8; b++) {
        _mm256_store_ps(r->d[b], _mm256_mul_ps(d, bytes_to_floats(n[b])));
        _mm256_store_ps(r->m[b], _mm256_mul_ps(m, bytes_to_floats(n[b + 8])));
    }
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
    _Alignas(32) uint8_t n[16][ROW_GROUP];
    _Alignas(32) char six[sizeof(struct six_bits)];
    memcpy(six, head + offsetof(struct head_q3_k, sc), sizeof six);
    take_six(n, six);
    UNROLL
    for (size_t b = 0; b < 8; b++) {
        __m128i v = _mm_load_si128((const __m128i *)(const void *)n[2 * b]);
        v = _mm_sub_epi8(v, _mm_set1_epi8(32));
        spread(r, b, v, v);
    }
    _mm256_store_ps(r->d[0], load_halves(head));
}

/* head, w: the run's own. */
ALWAYS void scales(enum weight_type type, struct run *r, const char *head, const char *w) {
    const __m256 eighth = _mm256_set1_ps(-0.125f);
    switch (type) {
    case W_Q4_K:
    case W_Q5_K: scales_k(r, w); return;
    case W_IQ4_XS: scales_xs(r, w); return;
    case W_Q2_K: scales_q2_k(r, head, w); return;
    case W_Q3_K: scales_q3_k(r, head); return;
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
        _mm256_store_ps(r->m[b], _mm256_mul_ps(load_halves(w + 64 + 16 * b), eighth));
    }
}

/* Multiplying. */

/* What panels of a run's blocks give besides q, for each of up to 8 tokens. */
struct sums {
    _Alignas(32) float x8[RUN_BLOCKS][8];  // -8 * (sum of q) * d, for minima
    int32_t half[RUN_BLOCKS][8];           // the sums of the first and last 16 q, int16 each
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

/* Sums of block b of a run; its panel is of `width` tokens. */
ALWAYS void add_up(enum weight_type type, struct sums *s, size_t b, const char *panel,
                   size_t width) {
    if (in_halves(type)) {
        _mm256_store_si256((__m256i *)(void *)s->half[b], half_sums(panel + 8 * width, width));
    } else if (has_min(type) && width == 1) {
        s->x8[b][0] = load_f32(panel) * (float)load_i32(panel + 4);
    } else if (has_min(type)) {
        __m256 s8 = _mm256_cvtepi32_ps(load_bytes(panel + 32));
        _mm256_store_ps(s->x8[b],
                        _mm256_mul_ps(_mm256_load_ps((const float *)(const void *)panel), s8));
    }
}

/* Block b of a run, 8 rows times n_tok tokens: exact sums, in halves times their scales. w: the run, or
 * r->q when it is unpacked; x: the panel's q from the first token on. */
ALWAYS void dots(enum weight_type type, __m256i *sum, const struct run *r, const char *w, size_t b,
                 bool unpacked, const char *x, size_t width, size_t n_tok) {
    enum reach reach = reach_of(type);
    size_t flush = reach == SIGNED ? 1 : reach == UP_TO_15 && !in_halves(type) ? 8 : 4;
    __m256i part[TILE_TOK], times = _mm256_set1_epi16(1);
    UNROLL
    for (size_t c = 0; c < 8; c++) {
        __m256i q = unpacked ? load_bytes(w + 256 * b + 32 * c) : weights(type, w, b, c);
        __m256i u = reach == SIGNED ? _mm256_abs_epi8(q) : q;
        if (in_halves(type)) times = load_bytes((const char *)r->sc[2 * b + c / 4]);
        UNROLL
        for (size_t t = 0; t < n_tok; t++) {
            __m256i xc = _mm256_set1_epi32(load_i32(x + 4 * (c * width + t)));
            if (reach == SIGNED) xc = _mm256_sign_epi8(xc, q);
            __m256i p = _mm256_maddubs_epi16(u, xc);
            part[t] = c % flush == 0 ? p : _mm256_add_epi16(part[t], p);
            KEEP(part[t]);
            if (c % flush != flush - 1) continue;
            p = _mm256_madd_epi16(part[t], times);
            sum[t] = c < flush ? p : _mm256_add_epi32(sum[t], p);
        }
    }
}

/* acc += block b with one scale. d, s8: of the first token's panel; x8: its sums. */
ALWAYS void add_whole(enum weight_type type, __m256 *acc, const struct run *r, size_t b,
                      const __m256i *sum, const char *d, const char *s8, const float *x8,
                      size_t n_tok) {
    __m256 scale = _mm256_load_ps(r->d[b]);
    UNROLL
    for (size_t t = 0; t < n_tok; t++) {
        __m256i i = sum[t], minus8 = _mm256_set1_epi32(load_i32(s8 + 4 * t));
        if (type == W_Q5_0) i = _mm256_add_epi32(i, _mm256_add_epi32(minus8, minus8));
        if (type == W_MXFP4)
            i = _mm256_add_epi32(i, _mm256_add_epi32(minus8, _mm256_srai_epi32(minus8, 1)));
        __m256 dd = _mm256_mul_ps(scale, _mm256_set1_ps(load_f32(d + 4 * t)));
        acc[t] = _mm256_fmadd_ps(dd, _mm256_cvtepi32_ps(i), acc[t]);
        if (!has_min(type)) continue;
        acc[t] = _mm256_fmadd_ps(_mm256_load_ps(r->m[b]), _mm256_set1_ps(x8[t]), acc[t]);
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
        acc[t] = _mm256_fmadd_ps(_mm256_mul_ps(scale, dx), _mm256_cvtepi32_ps(i), acc[t]);
        if (type != W_Q2_K) continue;
        __m256 min = _mm256_mul_ps(_mm256_load_ps(r->m[0]), dx);
        acc[t] = _mm256_fmadd_ps(min, _mm256_cvtepi32_ps(over), acc[t]);
    }
}

/* acc += block b of a run times tokens first .. first + n_tok of its panel; w as for dots(). */
ALWAYS void add_block(enum weight_type type, __m256 *acc, const struct run *r, const char *w,
                      size_t b, bool unpacked, const struct sums *s, const char *panel,
                      size_t width, size_t first, size_t n_tok) {
    const char *d = panel + 4 * first, *s8 = d + 4 * width, *x = d + 8 * width;
    __m256i sum[TILE_TOK];
    dots(type, sum, r, w, b, unpacked, x, width, n_tok);
    if (in_halves(type)) {
        add_halves(type, acc, r, b, sum, d, s->half[b] + first, n_tok);
    } else {
        add_whole(type, acc, r, b, sum, d, s8, s->x8[b] + first, n_tok);
    }
}

/* One token times a group of rows. */
ALWAYS void one_token(enum weight_type type, float *y, const char *head, const char *w,
                      size_t n_block, const char *panel) {
    size_t blocks = run_blocks(type), bytes = run_bytes(type), lines = bytes / 64 / blocks;
    __m256 acc = _mm256_setzero_ps();
    struct run r;
    struct sums s;
    for (size_t at = 0; at < n_block; at += blocks, w += bytes, head += run_head(type)) {
        scales(type, &r, head, w);
        prefetch_lines(w + PREFETCH_AHEAD + 64 * blocks * lines, bytes / 64 - blocks * lines);
        if (run_head(type)) prefetch_lines(head + PREFETCH_AHEAD / 8, 1);
        UNROLL
        for (size_t b = 0; b < blocks; b++, panel += sizeof(struct panel1)) {
            if (type == W_MXFP4 && at + b == n_block) break;
            prefetch_lines(w + PREFETCH_AHEAD + 64 * b * lines, lines);
            add_up(type, &s, b, panel, 1);
            add_block(type, &acc, &r, w, b, false, &s, panel, 1, 0, 1);
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

/* The n blocks of an unpacked run times n_tok tokens; y goes on from where it is, or begins. */
ALWAYS void tile(enum weight_type type, float *y, size_t ldy, const struct run *r, size_t n,
                 const struct sums *s, const char *panel, size_t first, size_t n_tok, bool begin) {
    __m256 acc[TILE_TOK];
    UNROLL
    for (size_t t = 0; t < n_tok; t++) {
        acc[t] = begin ? _mm256_setzero_ps() : _mm256_loadu_ps(y + t * ldy);
    }
    for (size_t b = 0; b < n; b++) {
        add_block(type, acc, r, (const char *)r->q, b, true, s, panel + b * sizeof(struct panel8),
                  8, first, n_tok);
    }
    UNROLL
    for (size_t t = 0; t < n_tok; t++) _mm256_storeu_ps(y + t * ldy, acc[t]);
}

/* Tokens tok .. end times a group of rows; tok is a multiple of 8. stride: from panel to panel. */
ALWAYS void many_tokens(enum weight_type type, float *y, size_t ldy, const char *head,
                        const char *w, size_t n_block, const char *x, size_t stride, size_t tok,
                        size_t end) {
    size_t blocks = run_blocks(type), bytes = run_bytes(type);
    struct run r;
    struct sums s;
    for (size_t at = 0; at < n_block; at += blocks, w += bytes, head += run_head(type)) {
        size_t n = type == W_MXFP4 && n_block - at < blocks ? n_block - at : blocks;
        unpack(type, &r, head, w, n);
        prefetch_lines(w + PREFETCH_AHEAD, bytes / 64);
        for (size_t t = tok; t < end; t += TILE_TOK) {
            const char *panel = x + t / 8 * stride + at * sizeof(struct panel8);
            float *yt = y + t * ldy;
            for (size_t b = 0; t % 8 == 0 && b < n; b++) {
                add_up(type, &s, b, panel + b * sizeof(struct panel8), 8);
            }
            switch (end - t) {
            case 1: tile(type, yt, ldy, &r, n, &s, panel, t % 8, 1, at == 0); break;
            case 2: tile(type, yt, ldy, &r, n, &s, panel, t % 8, 2, at == 0); break;
            case 3: tile(type, yt, ldy, &r, n, &s, panel, t % 8, 3, at == 0); break;
            default: tile(type, yt, ldy, &r, n, &s, panel, t % 8, TILE_TOK, at == 0); break;
            }
        }
    }
}

ALWAYS void matmul(enum weight_type type, float *y, size_t ldy, const char *w, size_t n_group,
                   size_t n_col, const char *x, size_t n_tok) {
    size_t group = weight_group_bytes((int)type, n_col), head = weight_head_bytes((int)type, n_col);
    size_t n_block = n_col / Q_BLOCK, stride = (n_block + 3) / 4 * 4 * sizeof(struct panel8);
    if (n_tok == 1) {
        for (size_t g = 0; g < n_group; g++, w += group) {
            one_token(type, y + g * ROW_GROUP, w, w + head, n_block, x);
        }
        return;
    }
    size_t pass = PASS_BYTES / (stride + 1) * 8;
    if (pass < 8) pass = 8;
    for (size_t tok = 0; tok < n_tok; tok += pass) {
        size_t end = n_tok - tok < pass ? n_tok : tok + pass;
        for (size_t g = 0; g < n_group; g++) {
            const char *wg = w + g * group;
            many_tokens(type, y + g * ROW_GROUP, ldy, wg, wg + head, n_block, x, stride, tok, end);
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

static void matmul_iq4_xs(float *y, size_t ldy, const void *w, size_t n_group, size_t n_col,
                          const void *x, size_t n_tok) {
    matmul(W_IQ4_XS, y, ldy, w, n_group, n_col, x, n_tok);
}

#include "relay_q.inc"

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
    k->weights[W_IQ4_XS].relay = relay_iq4_xs;
    k->weights[W_IQ4_XS].matmul = matmul_iq4_xs;
}
