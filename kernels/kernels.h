/* kernels.h - the arithmetic, and the one table it is called through.
 *
 * Pure functions: no allocation, no I/O, no threads, no failure, no libm. scalar.c defines the right
 * answer; every other variant returns the same bits (tests/test_kernels.c), whatever the CPU, the
 * number of tokens at once, or how rows are split: so a cluster of unlike boards computes what one
 * board would.
 *
 * The numeric contract, version CONTRACT_VERSION (round to nearest even, no contraction, no
 * reassociation; fma means one rounding):
 *  - Activations, per 32 values: a = max |x| (NaN ignored), at most 2^60; a < 2^-60 gives d = 0 and
 *    q = 0; otherwise d = a / 127 rounded up to bf16, q = rint(x * (1 / d)) clamped to +-127 (NaN
 *    gives -127).
 *  - Quantised weights: acc = +0; blocks of 32 in order; I = exact int32 sum of w * q, S of q;
 *    acc = fma(dw * dx, (float)I, acc). By type:
 *      Q4_0, Q5_0, Q8_0, IQ4_NL, MXFP4  dw = d; w the integer or the table's value
 *      Q4_1, Q5_1  dw = d, w = the bits; then acc = fma(m, dx * (float)S, acc)
 *      Q4_K, Q5_K  dw = d * sc; then acc = fma(-(dmin * m), dx * (float)S, acc)
 *      IQ4_XS      dw = d * (sc - 32)
 *      Q3_K, Q6_K  two scales of 16 values each: dw = d, I = sc_a * I_a + sc_b * I_b (below 2^20, 2^24)
 *      Q2_K        likewise (I below 2^18); then acc = fma(-(dmin * dx), (float)M, acc) with
 *                  M = m_a * S_a + m_b * S_b (below 2^16)
 *    d * sc, dmin * m and dx * S are exact; the panel has -8 * S and dx * S.
 *  - Float weights: 16 lanes, lane i mod 16 by fma in ascending i; lanes are added as the tree
 *    l + 8, l + 4, l + 2, l + 1. The same lanes and tree for every float sum (RMSNorm, q . k).
 *  - Attention: scores per 64 positions counted from 0: m = max, p = exp(s - m), l = sum of p in 16
 *    lanes and the tree, o = sum of p * v by fma in ascending position; blocks are folded in
 *    ascending order (see attend).
 *  - Experts: choice, weights and the order of the sum as src/nn/moe.c says, with exp.h.
 *
 * Threads: all functions are reentrant.
 */
#ifndef KERNELS_KERNELS_H
#define KERNELS_KERNELS_H

#include "quants.h"

#include <stdbool.h>
#include <stddef.h>

enum { CONTRACT_VERSION = 1 };

enum cpu_feature {
    CPU_AVX2 = 1 << 0,  // with FMA and F16C
    CPU_NEON = 1 << 1,
    CPU_AVXVNNI = 1 << 2,  // dpbusd in AVX2's encoding
    CPU_AVX512 = 1 << 3,   // F, BW, DQ, VL and VNNI
    CPU_DOTPROD = 1 << 4,  // ARMv8.2's sdot
    CPU_ZEN5 = 1 << 5,     // AVX-512 at its full width
};

/* How keys and values are kept. KV_Q8_0: struct act, a head's last block padded with zeros. */
enum kv_type { KV_F32, KV_F16, KV_Q8_0 };

enum {
    ATTEND_BLOCK = 64,    // positions whose softmax is made at once (contract)
    HEAD_DIM_MAX = 512,   // the caller refuses more
    ATTEND_QUERIES = 16,  // of a call
    ATTEND_UNPACKED =
        4096,  // floats of keys or values that it holds at once (16 KiB: half of an L1)
};

/* The cached positions of a KV head, and how query heads see them. */
struct attention {
    enum kv_type type;
    size_t hd;      // values of a head, at most HEAD_DIM_MAX
    size_t stride;  // values from a position to the next; KV_Q8_0: a multiple of 32
    float scale;    // of q . k
    float softcap;  // 0: none
};

/* One query head of a token. */
struct query {
    const float *q;  // [hd]
    float *out;      // [hd]
    size_t first,
        n_pos;  // positions [first, n_pos) are seen; first < n_pos, those before are readable
    const float *sink;  // the score of one more position, whose value is zero; NULL: none
};

/* What is done with one type of weights. */
struct weight_ops {
    bool is_float;  // activations are f32 rows, not panels

    /* One group of 8 rows from file order to kernel order. src: n_row rows of n_col values, each
     * weight_row_bytes() apart; rows n_row..7 become zero. dst: weight_group_bytes(), 64-aligned.
     * False when a scale (or a float weight) is not finite, or an exponent of MXFP4 above
     * FP4_EXP_HIGH; dst is then still written. */
    bool (*relay)(void *dst, const void *src, size_t n_row, size_t n_col);

    /* One row in file order to f32: x [n_col]. */
    void (*dequant)(float *x, const void *src, size_t n_col);

    /* y[t * ldy + r] = w[r,:] . x[t,:] for the 8 * n_group rows of w (kernel order, 64-aligned) and
     * t < n_tok. x: for float weights f32 [n_tok][n_col rounded up to 16], the padding zero, 64-
     * aligned; otherwise what pack() made of n_tok tokens. y is written for whole groups. */
    void (*matmul)(float *y, size_t ldy, const void *w, size_t n_group, size_t n_col, const void *x,
                   size_t n_tok);
};

struct kernels {
    const char *name;      // best variant that contributed, one of cpu_variant()
    unsigned tile_groups;  // groups of rows that matmul takes at once: fewer cost it as much time
    struct weight_ops weights[N_WEIGHT_TYPE];  // by enum weight_type; all NULL where there is none

    /* x [n] to blocks q [ceil(n / 32)], missing values are zero. */
    void (*quantise)(struct act *q, const float *x, size_t n);
    /* Tokens' blocks to panels: q [n_tok][ldq], the first n_block of each row; out: panel1 for
     * n_tok = 1, else ceil(n_tok / 8) runs of panel8; n_block is padded to a multiple of 4 with
     * zeros, missing tokens are zero. panel_bytes() tells the size. 64-aligned. */
    void (*pack)(void *panel, const struct act *q, size_t ldq, size_t n_block, size_t n_tok);

    /* n rounds of nothing but the instruction that matmul of quantised weights consists of, with the
     * addition of its results where it has none itself, all in registers: what a core's multipliers give
     * at this moment. Returns how many products of bytes were made. */
    uint64_t (*multiply)(size_t n);

    /* y = (x * s) * w, s = 1 / sqrt(sum(x^2) / n + eps). y may be x. */
    void (*rmsnorm)(float *y, const float *x, const float *w, size_t n, float eps);
    /* What quantise() makes of the result of rmsnorm(), in one go: q [ceil(n / 32)]. */
    void (*rmsnorm_quantise)(struct act *q, const float *x, const float *w, size_t n, float eps);
    /* Rotate pairs (a, b) = (x[2i], x[2i+1]) of one head by the angles cs [n_pair][cos, sin] (RoPE:
     * Su et al. 2021, 3.4.2, pairs adjacent as arch llama has them in GGUF):
     * a' = fma(a, cos, -(b * sin)), b' = fma(b, cos, a * sin). */
    void (*rope)(float *x, const float *cs, size_t n_pair);
    /* The same with the pairs (x[i], x[n_pair + i]) (other architectures; "neox" in GGUF's terms). */
    void (*rope_halves)(float *x, const float *cs, size_t n_pair);
    /* y = fma((x - mean) * s, w, b), mean = sum(x) / n, s = 1 / sqrt(sum((x - mean)^2) / n + eps).
     * y may be x. */
    void (*layernorm)(float *y, const float *x, const float *w, const float *b, size_t n,
                      float eps);
    /* y = silu(gate) * up, silu(g) = g / (1 + exp(-g)), exp as in exp.h. y may be gate or up. */
    void (*silu_mul)(float *y, const float *gate, const float *up, size_t n);
    /* y = gelu(gate) * up, gelu as k_gelu() of exp.h; up NULL: without. y may be gate or up. */
    void (*gelu_mul)(float *y, const float *gate, const float *up, size_t n);
    /* k_swiglu_oai() of exp.h. y may be gate or up. */
    void (*swiglu_oai)(float *y, const float *gate, const float *up, size_t n);
    /* x = tanh(x * (1 / cap)) * cap, tanh as k_tanh() of exp.h. */
    void (*softcap)(float *x, size_t n, float cap);

    /* Round to binary16 for the KV cache, clamped to +-65504 first (NaN gives -65504). */
    void (*to_f16)(uint16_t *y, const float *x, size_t n);
    /* n <= ATTEND_QUERIES query heads that see one KV head, each as if it were alone, but quickest in runs
     * that see the same: position p's key is at k + p * stride values (of kv type), its value likewise; any
     * alignment (best: multiples of 16 values). room: attend_room() floats. A score is (q . k) * scale, then
     * with a cap tanh(score * (1 / softcap)) * softcap (exp.h). Positions go in blocks of 64 counted
     * from 0, whatever `first` is; block b gives m_b, l_b, o_b of those of its positions that are seen,
     * each in the lane of its place in the block. From the first such block's M = m, L = l, O = o:
     * M' = max(M, m_b), s = exp(M - M'), t = exp(m_b - M'), L = fma(l_b, t, L * s),
     * O = fma(o_b, t, O * s); at the end out = O * (1 / L). With a sink, before that:
     * M' = max(M, sink), s = exp(M - M'), L = fma(L, s, exp(sink - M')), out = O * (s / L). */
    void (*attend)(const struct query *query, size_t n, const void *k, const void *v,
                   const struct attention *a, float *room);

    /* Branch outputs to the wire's rounding and onto the residual. Blocks of 32, n any (a last
     * partial block is padded with zeros). d = max|x| / 32767 (NaN ignored, at most 2^60; below
     * 2^-60 zero); q = rint(x * (1 / d)) clamped to +-32767. add: x += q * d. */
    void (*to_wire16)(struct wire16 *q, const float *x, size_t n);
    void (*add_wire16)(float *x, const struct wire16 *q, size_t n);
    void (*add_act)(float *x, const struct act *q, size_t n);  // wire type q8
    void (*add)(float *x, const float *y, size_t n);           // wire type f32

    /* The k largest of x [n], ties to the lower index, NaN never: id and value in descending order.
     * Returns how many (min(k, numbers in x)). */
    size_t (*topk)(int32_t *id, float *val, size_t k, const float *x, size_t n);
};

/* Values of the smallest whole piece of a row: columns are a multiple of it. 0: no such type. */
size_t weight_block(int type);
/* Bytes of a row in file order. */
size_t weight_row_bytes(int type, size_t n_col);
/* Bytes of 8 rows in kernel order, and of the head they begin with; multiples of 64. */
size_t weight_group_bytes(int type, size_t n_col);
size_t weight_head_bytes(int type, size_t n_col);
/* Bytes of the packed panels of n_tok tokens of n_col values. */
size_t panel_bytes(size_t n_col, size_t n_tok);
/* Floats of room for a call of attend(), whatever the number of its queries. */
size_t attend_room(size_t hd);
/* How many queries to give a call where n_query see each of n_kv KV heads and n_thread threads take calls in
 * turn: many, as each call goes over all positions, but so that no thread has much more to do. */
size_t attend_together(size_t n_kv, size_t n_query, size_t n_thread);
/* The operations on a GGUF weight type, or NULL when there is no kernel for it. */
const struct weight_ops *weight_ops(const struct kernels *k, int type);

/* Angles of position pos: cs [n_pair][2] = cos, sin of the double pos * freq[i], by our own double
 * arithmetic (same bits everywhere; error < 1e-12 for |angle| < 2^26, before rounding to float). */
void rope_angles(float *cs, const double *freq, size_t n_pair, uint32_t pos);
/* freq[i] = base^(-2i / n_rot), i < n_rot / 2, without libm (relative error < 1e-13); base is a
 * normal number > 0. */
void rope_freqs(double *freq, double base, size_t n_rot);

/* YaRN (Peng et al. 2023, "YaRN: Efficient Context Window Extension", 3.2 and 3.3): pair i of n_rot / 2
 * turns n_ctx_orig * freq / 2 pi times in the training's context; those that turn beta_fast times keep
 * their frequency, those that turn beta_slow times get it divided by factor, between them a ramp. Its
 * ends are whole pairs, as other programs have them. ext: how much of it all is done, 1: all.
 * base > 1, betas > 0, n_ctx_orig > 0. Without libm. */
struct yarn {
    double factor, ext, beta_fast, beta_slow;
    uint32_t n_ctx_orig;
};
void rope_yarn(double *freq, double base, size_t n_rot, const struct yarn *y);
/* What the same makes of the length of queries and keys: 1 + 0.1 * mul * ln(factor); 1 for factor <= 1. */
double rope_yarn_length(double factor, double mul);

/* Llama 3.1's scaling (its published reference code, models/llama3, 2024): pairs that turn more than `high`
 * times in n_ctx_orig positions keep their frequency, those that turn less than `low` times get it divided
 * by factor, between them the weight goes over linearly in the turns. The divisors are rounded to floats,
 * as the files that carry them have them. low < high, factor > 0. Without libm. */
struct rope_stretch {
    double factor, low, high;
    uint32_t n_ctx_orig;
};
void rope_llama3(double *freq, size_t n_rot, const struct rope_stretch *s);

/* Bytes of one position's key (or value) of one head in the cache. */
size_t kv_row_bytes(enum kv_type type, size_t hd);
/* The same in values: attend()'s stride. */
size_t kv_row_values(enum kv_type type, size_t hd);
/* One position's key (or value) of one head, x [hd], into such a row, aligned as its type's values are. */
void kv_store(const struct kernels *k, enum kv_type type, void *row, const float *x, size_t hd);

/* Features of this CPU and kernel. DAIR_CPU=NAME restricts them to a variant's (see cpu.c). */
unsigned cpu_features(void);
/* Name i of the variants, those of other machines too, worst first: scalar, avx2, avxvnni, avx512, zen5,
 * neon, dotprod. NULL behind the last. */
const char *cpu_variant(size_t i);
/* What is left of the features `have` for the variant `name`; all of them when the name is NULL or
 * unknown. known: set if not NULL. */
unsigned cpu_restrict(unsigned have, const char *name, bool *known);
/* Fill k with the best of every kernel that the features in `cpu` allow. */
void kernels_init(struct kernels *k, unsigned cpu);

/* Variants, worst first: each replaces only what it does better. Call through kernels_init(). */
void kernels_scalar(struct kernels *k);
void kernels_avx2(struct kernels *k);
void kernels_avxvnni(struct kernels *k);
void kernels_avx512(struct kernels *k);
void kernels_avx512_float(struct kernels *k);
void kernels_zen5(struct kernels *k);
void kernels_neon(struct kernels *k);
void kernels_dotprod(struct kernels *k);
/* Quantised types but Q4_0 and Q8_0: those with blocks of 32, and those whose scales have scales. */
void kernels_scalar_q(struct kernels *k);
void kernels_scalar_k(struct kernels *k);
void kernels_avx2_q(struct kernels *k);

/* The same for attention and what only some architectures use. */
void kernels_scalar_attend(struct kernels *k);
void kernels_avx2_attend(struct kernels *k);
void kernels_avx512_attend(struct kernels *k);
void kernels_neon_attend(struct kernels *k);
/* Matrices of quantised weights, and what brings weights and activations into kernel order. */
void kernels_neon_q(struct kernels *k);
void kernels_neon_relay(struct kernels *k);

/* Run every kernel of got and of the reference on seeded input, edge values included, and compare
 * bits. Returns the number of mismatches; *digest (FNV-1a over all reference results) is one value on
 * every CPU. `say`, if not NULL, gets a line for each mismatch. scratch: SELFTEST_BYTES, 64-aligned. */
enum { SELFTEST_BYTES = 1 << 20 };
#define SELFTEST_DIGEST 0xbc657b65b2a87ecdULL  // *digest, for CONTRACT_VERSION and these panels
size_t kernels_selftest(const struct kernels *got, void *scratch, uint64_t *digest,
                        void (*say)(void *ctx, const char *line), void *ctx);

#endif
