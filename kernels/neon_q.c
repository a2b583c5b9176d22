/* neon_q.c - matrices of quantised weights on AArch64's baseline (ARMv8.0: Cortex-A53, A72): no dot
 * product instruction. Same bits as scalar.c.
 *
 * Products of bytes are gathered in int16 as long as they fit and then added pairwise into int32, which
 * is what those cores do best.
 */
#include "neon_types.h"

enum {
    TILE_TOK = 2,  // 4 would need more registers than there are (gcc: 3 times slower)
    LOAD_RUN = 4,  // chunks of which gcc may load one before it has multiplied another: with all
                   // of them it spills, with fewer an A53 waits
};

ALWAYS float32x4_t to_float(int32x4_t sum) {
    return vcvtq_f32_s32(sum);
}

/* Four activations of one token in every lane. */
ALWAYS int8x16_t broadcast_word(const char *p) {
    return vreinterpretq_s8_s32(vld1q_dup_s32((const int32_t *)(const void *)p));
}

/* How products are gathered: so many in a lane of int16, and whether two such lanes fit another. */
struct gather {
    size_t chain;
    bool pairs;
};

ALWAYS struct gather gather_of(struct form f) {
    const size_t product = f.largest * 127, n = f.has_halves ? 4 : 8;
    size_t chain = INT16_MAX / product >= 8 ? 8 : INT16_MAX / product >= 4 ? 4 : 2;
    if (chain > n) chain = n;
    return (struct gather){chain, chain == n && 2 * chain * product <= INT16_MAX};
}

/* The sums of rows from those of their pairs or quarters. */
ALWAYS int32x4_t sum_rows(struct gather g, const int16x8_t s[2], const int32x4_t v[2],
                          bool has_start, int32x4_t start) {
    if (g.pairs) {
        int16x8_t both = vpaddq_s16(s[0], s[1]);
        return has_start ? vpadalq_s16(start, both) : vpaddlq_s16(both);
    }
    int32x4_t sum = vpaddq_s32(v[0], v[1]);
    return has_start ? vaddq_s32(sum, start) : sum;
}

ALWAYS void sum_any(int32x4_t sum[TILE_TOK][2], enum weight_type type, const char *w, size_t b,
                    size_t k, size_t first, const char *s8, const char *x, size_t width,
                    size_t n_tok) {
    const struct form f = form_of(type);
    const struct gather g = gather_of(f);
    const size_t end = f.has_halves ? first + 4 : 8;
    int16x8_t run[TILE_TOK][2][2];   // rows 0 and 1, rows 2 and 3 of the half
    int32x4_t wide[TILE_TOK][2][2];  // the same, without `pairs`: rows 0 0 1 1, rows 2 2 3 3
    UNROLL
    for (size_t i = first; i < end; i++) {
        const size_t c = chunk_at(type, i), at = (i - first) % g.chain;
        if (i % LOAD_RUN == 0) __asm__ volatile("" : : : "memory");
        UNROLL
        for (size_t h = 0; h < 2; h++) {
            int8x16_t wc = load_chunk(type, w, b, k, c, h);
            UNROLL
            for (size_t t = 0; t < n_tok; t++) {
                int8x16_t xc = broadcast_word(x + 4 * (c * width + t));
                int16x8_t *s = run[t][h];
                s[0] = at == 0 ? vmull_s8(vget_low_s8(wc), vget_low_s8(xc))
                               : vmlal_s8(s[0], vget_low_s8(wc), vget_low_s8(xc));
                s[1] = at == 0 ? vmull_high_s8(wc, xc) : vmlal_high_s8(s[1], wc, xc);
                if (at + 1 < g.chain || g.pairs) continue;
                int32x4_t *v = wide[t][h];
                v[0] = i < first + g.chain ? vpaddlq_s16(s[0]) : vpadalq_s16(v[0], s[0]);
                v[1] = i < first + g.chain ? vpaddlq_s16(s[1]) : vpadalq_s16(v[1], s[1]);
            }
        }
    }
    UNROLL
    for (size_t t = 0; t < n_tok; t++) {
        int32x4_t start = vdupq_n_s32(f.start == 0 ? 0 : f.start * load_int(s8 + 4 * t));
        UNROLL
        for (size_t h = 0; h < 2; h++) {
            sum[t][h] = sum_rows(g, run[t][h], wide[t][h], f.start != 0, start);
        }
    }
}

/* Two tokens times a block of Q4_0, Q4_1 or Q8_0, in an order in which an A53, which runs instructions as they stand,
 * waits little for results: eight sums take turns, and what is to be multiplied next is made between
 * multiplications. (Of Q4_K's blocks, which are taken by twos, it would spill.)
 *
 * A step is the products of a chunk: w0, w1 are its rows 0 .. 3 and 4 .. 7, x0, x1 the tokens' activations, of letter a
 * and b by turns. p: two tokens' next activations, r: bytes to unpack. Sums 0 .. 3 are of the first two rows of
 * each four (rows 0 1 by token, then 4 5), 4 .. 7 of the others. */
_Static_assert(sizeof((struct panel8){0}.q[0]) == 32, "WORDS() steps over eight tokens");
// clang-format off
#define MUL(mul, s, w, x) mul " %[s" #s "].8h,%[w" w "].8b,%[x" x "].8b\n"
#define MUL_HIGH(mul, s, w, x) mul "2 %[s" #s "].8h,%[w" w "].16b,%[x" x "].16b\n"
#define STEP(of, mul, next, loads)                                          \
    mul(MUL, 0, of "0", of "0") mul(MUL, 1, of "0", of "1") next            \
    mul(MUL, 2, of "1", of "0") mul(MUL, 3, of "1", of "1")                 \
    mul(MUL_HIGH, 4, of "0", of "0") loads mul(MUL_HIGH, 5, of "0", of "1") \
    mul(MUL_HIGH, 6, of "1", of "0") mul(MUL_HIGH, 7, of "1", of "1")
#define FIRST(how, s, w, x) how("smull", s, w, x)
#define ADD(how, s, w, x) how("smlal", s, w, x)
/* Where two chunks fill an int16, the sums before go to int32. */
#define WIDEN(s) "saddlp %[v" #s "].4s,%[s" #s "].8h\n"
#define GATHER(s) "sadalp %[v" #s "].4s,%[s" #s "].8h\n"
#define WIDEN_FIRST(how, s, w, x) WIDEN(s) FIRST(how, s, w, x)
#define GATHER_FIRST(how, s, w, x) GATHER(s) FIRST(how, s, w, x)

#define WORDS(c) "ldr %d[p],[%[x],32*" #c "]\n"
#define SPREAD(to) "dup %[x" to "0].4s,%[p].s[0]\n dup %[x" to "1].4s,%[p].s[1]\n"
#define BYTES(to, c) "ldp %q[" to "0],%q[" to "1],[%[q],32*" #c "]\n"
#define LOW(to, h) "and %[w" to #h "].16b,%[r" #h "].16b,%[low].16b\n"
#define HIGH(to, h) "ushr %[w" to #h "].16b,%[r" #h "].16b,4\n"
#define UNPACK(how, to) how(to, 0) SPREAD(to) how(to, 1)

/* Chunks c and c + 4 are the low and the high nibbles of the same bytes. */
#define SUM_NIBBLES                                                         \
    WORDS(0) BYTES("r", 0) SPREAD("a") WORDS(4) LOW("a", 0) LOW("a", 1)     \
    STEP("a", FIRST, UNPACK(HIGH, "b"), WORDS(1) BYTES("r", 1))             \
    STEP("b", ADD, UNPACK(LOW, "a"), WORDS(5))                              \
    STEP("a", ADD, UNPACK(HIGH, "b"), WORDS(2) BYTES("r", 2))               \
    STEP("b", ADD, UNPACK(LOW, "a"), WORDS(6))                              \
    STEP("a", ADD, UNPACK(HIGH, "b"), WORDS(3) BYTES("r", 3))               \
    STEP("b", ADD, UNPACK(LOW, "a"), WORDS(7))                              \
    STEP("a", ADD, UNPACK(HIGH, "b"), "")                                   \
    STEP("b", ADD, "", "")
#define SUM_BYTES                                                           \
    WORDS(0) BYTES("wa", 0) SPREAD("a") WORDS(1)                            \
    STEP("a", FIRST, BYTES("wb", 1) SPREAD("b"), WORDS(2))                  \
    STEP("b", ADD, BYTES("wa", 2) SPREAD("a"), WORDS(3))                    \
    STEP("a", WIDEN_FIRST, BYTES("wb", 3) SPREAD("b"), WORDS(4))            \
    STEP("b", ADD, BYTES("wa", 4) SPREAD("a"), WORDS(5))                    \
    STEP("a", GATHER_FIRST, BYTES("wb", 5) SPREAD("b"), WORDS(6))           \
    STEP("b", ADD, BYTES("wa", 6) SPREAD("a"), WORDS(7))                    \
    STEP("a", GATHER_FIRST, BYTES("wb", 7) SPREAD("b"), "")                 \
    STEP("b", ADD, "", "")                                                  \
    GATHER(0) GATHER(1) GATHER(2) GATHER(3)                                 \
    GATHER(4) GATHER(5) GATHER(6) GATHER(7)
// clang-format on

#define OUT(v)    [v] "=&w"(v)
#define SUMS      OUT(s0), OUT(s1), OUT(s2), OUT(s3), OUT(s4), OUT(s5), OUT(s6), OUT(s7)
#define WIDE_SUMS OUT(v0), OUT(v1), OUT(v2), OUT(v3), OUT(v4), OUT(v5), OUT(v6), OUT(v7)
#define CHUNKS                                                                                     \
    OUT(wa0), OUT(wa1), OUT(wb0), OUT(wb1), OUT(xa0), OUT(xa1), OUT(xb0), OUT(xb1), OUT(p)
#define READS(p, n) "m"(*(const struct { char byte[n]; } *)(const void *)(p))
#define IN(n)       [q] "r"(q), [x] "r"(x), READS(q, n), READS(x, 232)

/* sum += 4 rows each times 2 tokens, whose pairs of sums fit int16. */
ALWAYS void sum_nibbles(int32x4_t sum[TILE_TOK][2], const char *q, const char *x) {
    int16x8_t s0, s1, s2, s3, s4, s5, s6, s7;
    uint8x16_t wa0, wa1, wb0, wb1, xa0, xa1, xb0, xb1, p, r0, r1;
    __asm__(SUM_NIBBLES : SUMS, CHUNKS, OUT(r0), OUT(r1) : IN(128), [low] "w"(vdupq_n_u8(15)));
    sum[0][0] = vpadalq_s16(sum[0][0], vpaddq_s16(s0, s4));
    sum[1][0] = vpadalq_s16(sum[1][0], vpaddq_s16(s1, s5));
    sum[0][1] = vpadalq_s16(sum[0][1], vpaddq_s16(s2, s6));
    sum[1][1] = vpadalq_s16(sum[1][1], vpaddq_s16(s3, s7));
}

ALWAYS void sum_bytes(int32x4_t sum[TILE_TOK][2], const char *q, const char *x) {
    int16x8_t s0, s1, s2, s3, s4, s5, s6, s7;
    int32x4_t v0, v1, v2, v3, v4, v5, v6, v7;
    uint8x16_t wa0, wa1, wb0, wb1, xa0, xa1, xb0, xb1, p;
    __asm__(SUM_BYTES : SUMS, CHUNKS, WIDE_SUMS : IN(256));
    sum[0][0] = vpaddq_s32(v0, v4);
    sum[1][0] = vpaddq_s32(v1, v5);
    sum[0][1] = vpaddq_s32(v2, v6);
    sum[1][1] = vpaddq_s32(v3, v7);
}

ALWAYS void sum_chunks(int32x4_t sum[TILE_TOK][2], enum weight_type type, const char *w, size_t b,
                       size_t k, size_t first, const char *s8, const char *x, size_t width,
                       size_t n_tok) {
    if (n_tok == TILE_TOK && (type == W_Q4_0 || type == W_Q4_1)) {
        UNROLL
        for (size_t t = 0; t < n_tok; t++) {
            sum[t][0] = vdupq_n_s32(form_of(type).start ? load_int(s8 + 4 * t) : 0);
            sum[t][1] = sum[t][0];
        }
        sum_nibbles(sum, block_bytes(type, w, b), x);
    } else if (n_tok == TILE_TOK && type == W_Q8_0) {
        sum_bytes(sum, block_bytes(type, w, b), x);
    } else {
        sum_any(sum, type, w, b, k, first, s8, x, width, n_tok);
    }
}

/* Two tokens are 8 bytes of each chunk; one alone has all chunks in a row. */
ALWAYS void sum_halves(float32x4_t s[2], const char *x, size_t width, size_t n_tok) {
    const int8_t *p = (const int8_t *)x;
    UNROLL
    for (size_t u = 0; u < 2; u++) {
        int16x4_t sum;
        if (n_tok == 1) {
            int16x8_t all = vpaddlq_s8(vld1q_s8(p + 16 * u));
            sum = vpadd_s16(vget_low_s16(all), vget_high_s16(all));
            sum = vpadd_s16(sum, sum);
        } else {
            sum = vpaddl_s8(vld1_s8(p + 4 * width * (4 * u)));
            UNROLL
            for (size_t c = 1; c < 4; c++)
                sum = vpadal_s8(sum, vld1_s8(p + 4 * width * (4 * u + c)));
        }
        float32x2_t f = vcvt_f32_s32(vpaddl_s16(sum));
        s[u] = vcombine_f32(f, f);
    }
}

#include "neon_tile.inc"

static uint64_t multiply(size_t n) {
    int8x16_t w = vdupq_n_s8(1);
    int16x8_t sum[MULTIPLY_SUMS];
    UNROLL
    for (size_t s = 0; s < MULTIPLY_SUMS; s++) sum[s] = vdupq_n_s16(0);
    for (size_t r = 0; r < n; r++) {
        UNROLL
        for (size_t s = 0; s < MULTIPLY_SUMS; s++) {
            sum[s] = s % 2 ? vmlal_high_s8(sum[s], w, w)
                           : vmlal_s8(sum[s], vget_low_s8(w), vget_low_s8(w));
            KEEP(sum[s]);
        }
    }
    return n * MULTIPLY_SUMS * sizeof w / 2;
}

void kernels_neon_q(struct kernels *k) {
    install(k);
    k->multiply = multiply;
}
