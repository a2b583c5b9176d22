/* test_kernels.c - the kernels against independent arithmetic, and every variant against scalar.
 *
 * The first part computes the contract anew, from file-order bytes with libm's fmaf or in binary64,
 * so that a wrong scalar.c cannot pass; the second runs the self-test for every feature subset of
 * this CPU. Attention and rotation: test_attend.c. Prints TAP.
 */
#include "exp.h"
#include "f16.h"
#include "fma.h"
#include "kernel_tests.h"
#include "tap.h"

#include <float.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool same_bits(float a, float b) {
    return f32_bits(a) == f32_bits(b);
}

/* Halves. */

static double half_value(unsigned h) {  // finite, positive
    unsigned e = h >> 10, m = h & 1023;
    return e == 0 ? ldexp(m, -24) : ldexp(1024 + m, (int)e - 25);
}

static void test_f16(void) {
    bool exact = true, back = true, rounds = true;
    for (unsigned h = 0; h < 0x7c00; h++) {
        double v = half_value(h);
        exact &= f16_to_f32((uint16_t)h) == v && f16_to_f32((uint16_t)(h | 0x8000)) == -v;
        back &= f32_to_f16((float)v) == h && f32_to_f16((float)-v) == (h | 0x8000);
        /* Midway to the next one goes to the even; a hair beside it goes to the nearer. */
        double next = h == 0x7bff ? 65536 : half_value(h + 1);
        float mid = (float)((v + next) / 2);
        rounds &= f32_to_f16(mid) == (h & 1 ? h + 1 : h);
        rounds &= f32_to_f16(nextafterf(mid, 0)) == h;
        rounds &= f32_to_f16(nextafterf(mid, INFINITY)) == h + 1;
    }
    for (unsigned h = 0x7c01; h < 0x8000; h++) {
        exact &= isnan(f16_to_f32((uint16_t)h)) && isnan(f16_to_f32((uint16_t)(h | 0x8000)));
        uint16_t again = f32_to_f16(f16_to_f32((uint16_t)h));
        back &= (again & 0x7c00) == 0x7c00 && (again & 0x3ff) != 0;
    }
    exact &= f16_to_f32(0x7c00) == INFINITY && f16_to_f32(0xfc00) == -INFINITY;
    back &= f32_to_f16(INFINITY) == 0x7c00 && f32_to_f16(-INFINITY) == 0xfc00;
    back &= f32_to_f16(FLT_MAX) == 0x7c00 && f32_to_f16(-0.0f) == 0x8000;
    tap_ok(exact, "f16: all 65536 values are exact in f32");
    tap_ok(back, "f16: all values come back");
    tap_ok(rounds, "f16: rounds to nearest, ties to even");
    bool above = bf16_above(1.0f) == 0x3f80 && bf16_above(nextafterf(1.0f, 2.0f)) == 0x3f81;
    for (int i = 0; i < 10000; i++) {
        float f = fabsf(rnd_float()) + 0x1p-60f, up = bf16_to_f32(bf16_above(f));
        above &= up >= f && up <= f * 1.0079f;
    }
    tap_ok(above, "bf16: the next above");
}

/* fma and exp. */

static float any_float(void) {
    uint32_t r = rnd();
    if (r % 4 == 0) return f32_from_bits(rnd());
    return ldexpf(rnd_float(), (int)(rnd() % 60) - 30);
}

static void test_fma(void) {
    bool same = true;
    for (int i = 0; i < 3000000; i++) {
        float a = any_float(), b = any_float(), c = any_float();
        if (i % 3 == 0) c = -(a * b) * (1.0f + (float)(rnd() % 3) * 0x1p-23f);  // cancels
        if (i % 7 == 0) c = ldexpf(c, -140), a = ldexpf(a, -70), b = ldexpf(b, -70);
        float want = fmaf(a, b, c), got = fma_exact(a, b, c);
        same &= isnan(want) ? isnan(got) : same_bits(want, got);
    }
    tap_ok(same, "fma without the instruction: libm's bits");
    /* a * b is just below halfway between two floats: rounding twice would go wrong. */
    float a = 1.0f + 0x1p-12f, b = 1.0f + 0x1p-12f, c = 0x1p-76f;
    tap_ok(same_bits(fma_exact(a, b, c), fmaf(a, b, c)) &&
               same_bits(fma_exact(a, b, -c), fmaf(a, b, -c)),
           "fma: no double rounding");
    bool root = true;
    for (int i = 0; i < 100000; i++) {
        float v = fabsf(any_float());
        root &= isnan(v) || same_bits(k_sqrt(v), sqrtf(v));
    }
    tap_ok(root, "square root: libm's bits");
}

static void test_tanh(void) {
    double worst = 0;
    for (uint32_t u = 0; u < f32_bits(100.0f); u += 997) {
        for (int sign = 0; sign < 2; sign++) {
            float x = f32_from_bits(u | (uint32_t)sign << 31);
            worst = fmax(worst, fabs((double)k_tanh(x) - tanh((double)x)));
        }
    }
    printf("# tanh: largest error %.1e\n", worst);
    tap_ok(worst < 0x1p-22 && k_tanh(INFINITY) == 1 && k_tanh(-INFINITY) == -1 &&
               isnan(k_tanh(NAN)),
           "tanh: error below 2^-22");
}

static void test_exp(void) {
    double worst = 0;
    for (uint32_t u = 0; u < f32_bits(88.72f); u += 997) {
        for (int sign = 0; sign < 2; sign++) {
            float x = f32_from_bits(u | (uint32_t)sign << 31);
            if (x < -86.5f) continue;
            double want = exp((double)x), ulp = ldexp(1, ilogb(want) - 23);
            double error = fabs((double)k_exp(x) - want) / ulp;
            if (error > worst) worst = error;
        }
    }
    printf("# exp: largest error %.3f ulp\n", worst);
    tap_ok(worst < 1.01, "exp: error at most 1.01 ulp");
    tap_ok(k_exp(0.0f) == 1 && k_exp(-0.0f) == 1 && k_exp(-86.6f) == 0 && k_exp(-INFINITY) == 0 &&
               k_exp(89.0f) == INFINITY && k_exp(INFINITY) == INFINITY && isnan(k_exp(NAN)),
           "exp: edges");
}

/* Sizes and the table. */

static void test_table(void) {
    struct kernels k;
    kernels_init(&k, 0);
    tap_ok(strcmp(k.name, "scalar") == 0 && weight_ops(&k, W_Q4_0) == &k.weights[W_Q4_0] &&
               weight_ops(&k, W_F16)->is_float && !weight_ops(&k, W_Q4_0)->is_float &&
               weight_ops(&k, 4) == NULL && weight_ops(&k, 9) == NULL &&
               weight_ops(&k, -1) == NULL && weight_ops(&k, N_WEIGHT_TYPE) == NULL,
           "table: operations by GGUF type");
    tap_ok(weight_row_bytes(W_Q4_0, 64) == 36 && weight_row_bytes(W_Q8_0, 64) == 68 &&
               weight_row_bytes(W_Q6_K, 512) == 420 && weight_row_bytes(W_F16, 7) == 14 &&
               weight_row_bytes(W_F32, 7) == 28 && weight_row_bytes(99, 64) == 0,
           "sizes: rows in file order");
    bool no_larger = true;
    for (int type = 0; type < N_WEIGHT_TYPE; type++) {
        size_t group = weight_group_bytes(type, 8192), rows = 8 * weight_row_bytes(type, 8192);
        no_larger &=
            group == rows && group % 64 == 0 && (group > 0) == (weight_ops(&k, type) != NULL);
        no_larger &= weight_group_bytes(type, 2816) <= 8 * weight_row_bytes(type, 2816) * 102 / 100;
    }
    tap_ok(no_larger, "sizes: kernel order takes no more than the file, but for padding");
    tap_ok(weight_group_bytes(W_Q4_0, 32) == 576 && weight_group_bytes(W_Q4_0, 160) == 1152 &&
               weight_group_bytes(W_Q8_0, 128) == 1088 &&
               weight_group_bytes(W_Q6_K, 256) == 1664 + 64 &&
               weight_group_bytes(W_Q6_K, 1280) == 5 * 1664 + 128 &&
               weight_group_bytes(W_F16, 17) == 8 * 32 * 2 &&
               weight_group_bytes(W_F32, 16) == 8 * 16 * 4 && weight_group_bytes(99, 64) == 0,
           "sizes: groups in kernel order");
    tap_ok(panel_bytes(128, 1) == 192 && panel_bytes(32, 8) == 1408 && panel_bytes(160, 9) == 5632,
           "sizes: panels");
    bool known = false, unknown = true;
    unsigned all = CPU_AVX2 | CPU_NEON | CPU_AVXVNNI | CPU_AVX512 | CPU_ZEN5;
    tap_ok(cpu_restrict(all, "avx2", &known) == CPU_AVX2 && known &&
               cpu_restrict(all, "avx512", NULL) == (CPU_AVX2 | CPU_AVX512) &&
               cpu_restrict(all & ~CPU_ZEN5, "zen5", NULL) == (CPU_AVX2 | CPU_AVX512) &&
               cpu_restrict(CPU_NEON, "avx2", NULL) == 0 &&
               cpu_restrict(all, "scalar", NULL) == 0 &&
               cpu_restrict(all, "fast", &unknown) == all && !unknown &&
               cpu_restrict(all, NULL, NULL) == all,
           "cpu: a name only takes away");
}

/* Weights. */

enum { COLS = 320, ROWS = 21, TOKS = 11, GROUPS = (ROWS + 7) / 8 };

static void *zeroed(size_t bytes) {
    void *p = aligned_alloc(64, (bytes + 63) / 64 * 64);
    if (!p) exit(1);
    return memset(p, 0, (bytes + 63) / 64 * 64);
}

static void test_dequant(const struct kernels *k) {
    /* d = 0.5; bytes 0x00, 0xf8, 0x1f ...: the low nibble is weight i, the high one 16 + i. */
    uint8_t q4[18] = {0x00, 0x38, 0x00, 0xf8, 0x1f};
    float x[32];
    weight_ops(k, W_Q4_0)->dequant(x, q4, 32);
    tap_ok(x[0] == -4 && x[16] == -4 && x[1] == 0 && x[17] == 3.5f && x[2] == 3.5f &&
               x[18] == -3.5f && x[3] == -4,
           "dequant: a Q4_0 block by hand");
    uint8_t q8[34] = {0x00, 0xc0, 0x80, 0x7f, 0x01};  // d = -2
    weight_ops(k, W_Q8_0)->dequant(x, q8, 32);
    tap_ok(x[0] == 256 && x[1] == -254 && x[2] == -2 && x[3] == 0 && x[31] == 0,
           "dequant: a Q8_0 block by hand");
    /* d = 2; weight 0: 1 + 16 * 2 - 32 = 1, weight 64: 15 + 16 * 1 - 32 = -1, both times their scale. */
    uint8_t q6[210] = {[0] = 0xf1, [128] = 0x12, [192] = 3, [196] = 0x80, [209] = 0x40};
    float x6[256];
    weight_ops(k, W_Q6_K)->dequant(x6, q6, 256);
    tap_ok(x6[0] == 6 && x6[64] == 256 && x6[1] == -192 && x6[16] == 0 && x6[65] == 8192 &&
               x6[128] == 0 && x6[255] == 0,
           "dequant: a Q6_K block by hand");
    uint8_t halves[6] = {0x00, 0x3c, 0x01, 0x00, 0xff, 0xfb};
    weight_ops(k, W_F16)->dequant(x, halves, 3);
    tap_ok(x[0] == 1 && x[1] == 0x1p-24f && x[2] == -65504, "dequant: F16 by hand");
}

/* Weight i of 256 of a row, from file-order bytes, by the formats' definitions and in binary64:
 * d * sc * w - m * mn, exact. */
struct part {
    double d, m;
    int sc, mn, w;
};

static double half_at(const uint8_t *f) {
    double d = half_value((f[0] | f[1] << 8) & 0x7fff);
    return f[1] & 0x80 ? -d : d;
}

static unsigned bit_at(const uint8_t *f, size_t i) {
    return f[i / 8] >> i % 8 & 1;
}

/* Of 16 bytes: the low nibbles are the first 16 values, the high nibbles the rest. */
static unsigned nibble_at(const uint8_t *f, size_t i) {
    return i < 16 ? f[i] % 16 : f[i - 16] / 16;
}

/* Blocks of 32; i counts in the block f. */
static struct part part_of_32(int type, const uint8_t *f, size_t i) {
    static const int iq4[] = {-127, -104, -83, -65, -49, -35, -22, -10,
                              1,    13,   25,  38,  53,  69,  89,  113};
    static const double fp4[] = {0, 0.5, 1, 1.5, 2, 3, 4, 6};
    struct part p = {.d = type == W_MXFP4 ? 0 : half_at(f), .sc = 1};
    switch (type) {
    case W_Q4_0: p.w = (int)nibble_at(f + 2, i) - 8; break;
    case W_Q4_1: p.w = (int)nibble_at(f + 4, i), p.m = half_at(f + 2), p.mn = -1; break;
    case W_Q5_0: p.w = (int)(nibble_at(f + 6, i) + 16 * bit_at(f + 2, i)) - 16; break;
    case W_Q5_1:
        p.w = (int)(nibble_at(f + 8, i) + 16 * bit_at(f + 4, i));
        p.m = half_at(f + 2), p.mn = -1;
        break;
    case W_Q8_0: p.w = f[2 + i] < 128 ? f[2 + i] : f[2 + i] - 256; break;
    case W_IQ4_NL: p.w = iq4[nibble_at(f + 2, i)]; break;
    case W_IQ4_XS: p.w = iq4[nibble_at(f, i)]; break;
    case W_MXFP4:
        p.d = ldexp(0.5, f[0] - 127);
        p.w = (int)(2 * fp4[nibble_at(f + 1, i) % 8]) * (nibble_at(f + 1, i) < 8 ? 1 : -1);
        break;
    }
    return p;
}

/* Scale (or with `min` the minimum) of block b of Q4_K and Q5_K. */
static int k_scale(const uint8_t *sc, size_t b, bool min) {
    if (b < 4) return sc[b + 4 * min] & 63;
    return (min ? sc[b + 4] / 16 : sc[b + 4] % 16) + sc[b - 4 + 4 * min] / 64 * 16;
}

/* Super-blocks of 256: i = 128 * half + 32 * k + ..., b the block of 32. */
static struct part part_of_256(int type, const uint8_t *f, size_t i) {
    size_t half = i / 128, k = i / 32 % 4, b = i / 32, at = i % 32;
    struct part p = {.mn = 0};
    switch (type) {
    case W_Q2_K:
        p.d = half_at(f + 80), p.m = half_at(f + 82);
        p.sc = f[i / 16] % 16, p.mn = f[i / 16] / 16;
        p.w = f[16 + 32 * half + at] >> 2 * k & 3;
        break;
    case W_Q3_K: {
        size_t n = i / 16;
        int lo = f[96 + n % 8] >> n / 8 * 4 & 15, hi = f[104 + n % 4] >> n / 4 * 2 & 3;
        p.d = half_at(f + 108), p.sc = lo + 16 * hi - 32;
        p.w = (f[32 + 32 * half + at] >> 2 * k & 3) - (f[at] >> b & 1 ? 0 : 4);
        break;
    }
    case W_Q4_K:
        p.d = half_at(f), p.m = half_at(f + 2);
        p.sc = k_scale(f + 4, b, false), p.mn = k_scale(f + 4, b, true);
        p.w = f[16 + b / 2 * 32 + at] >> b % 2 * 4 & 15;
        break;
    case W_Q5_K:
        p.d = half_at(f), p.m = half_at(f + 2);
        p.sc = k_scale(f + 4, b, false), p.mn = k_scale(f + 4, b, true);
        p.w = (f[48 + b / 2 * 32 + at] >> b % 2 * 4 & 15) + (f[16 + at] >> b & 1 ? 16 : 0);
        break;
    case W_Q6_K: {
        unsigned low = f[64 * half + 32 * (k % 2) + at], high = f[128 + 32 * half + at];
        p.d = half_at(f + 208),
        p.sc = f[192 + i / 16] < 128 ? f[192 + i / 16] : f[192 + i / 16] - 256;
        p.w = (int)(k < 2 ? low % 16 : low / 16) + 16 * (int)(high >> 2 * k & 3) - 32;
        break;
    }
    case W_IQ4_XS:
        p = part_of_32(type, f + 8 + 16 * b, at);
        p.d = half_at(f);
        p.sc = (f[4 + b / 2] >> b % 2 * 4 & 15) + 16 * ((f[2 + b / 4] >> b % 4 * 2) & 3) - 32;
        break;
    }
    return p;
}

static struct part part_at(int type, const uint8_t *row, size_t i) {
    size_t unit = weight_block(type), size = weight_row_bytes(type, unit);
    const uint8_t *f = row + i / unit * size;
    return unit == Q_SUPER ? part_of_256(type, f, i % Q_SUPER) : part_of_32(type, f, i % Q_BLOCK);
}

/* A row's sum, by the contract, and what it should be in binary64; n = 0 for a row of padding. */
static float sum_row(int type, const uint8_t *row, const struct act *q, const float *x, size_t n,
                     double *exact, double *size) {
    bool halves = type == W_Q2_K || type == W_Q3_K || type == W_Q6_K;
    float acc = 0;
    *exact = *size = 0;
    for (size_t b = 0; b < n / Q_BLOCK; b++) {
        int dot[2] = {0}, sum[2] = {0};
        struct part p[2] = {part_at(type, row, b * 32), part_at(type, row, b * 32 + 16)};
        for (size_t i = 0; i < Q_BLOCK; i++) {
            struct part w = part_at(type, row, b * 32 + i);
            double f = (w.d * w.sc * w.w - w.m * w.mn) * (double)x[b * 32 + i];
            dot[i / 16] += w.w * q[b].q[i], sum[i / 16] += q[b].q[i];
            *exact += f, *size += fabs(w.d * w.sc * w.w * (double)x[b * 32 + i]) + fabs(f);
        }
        float dx = bf16_to_f32(q[b].d), d = (float)p[0].d, m = (float)p[0].m;
        if (halves) {
            acc = fmaf(d * dx, (float)(p[0].sc * dot[0] + p[1].sc * dot[1]), acc);
            acc = fmaf(-(m * dx), (float)(p[0].mn * sum[0] + p[1].mn * sum[1]), acc);
        } else {
            acc = fmaf(d * (float)p[0].sc * dx, (float)(dot[0] + dot[1]), acc);
            acc = fmaf(-(m * (float)p[0].mn), dx * (float)(sum[0] + sum[1]), acc);
        }
    }
    return acc;
}

/* Random bytes, but scales of an ordinary size. */
static void fill_blocks(int type, uint8_t *file, size_t n_block) {
    static const size_t at[N_WEIGHT_TYPE] = {
        [W_Q2_K] = 81,
        [W_Q3_K] = 109,
        [W_Q6_K] = 209,
        [W_MXFP4] = 0,
    };
    bool two =
        type == W_Q4_1 || type == W_Q5_1 || (type >= W_Q2_K && type <= W_Q5_K && type != W_Q3_K);
    size_t size = weight_row_bytes(type, weight_block(type)), high = at[type] ? at[type] : 1;
    for (size_t i = 0; i < n_block * size; i++) file[i] = (uint8_t)rnd();
    for (uint8_t *f = file; n_block > 0; n_block--, f += size) {
        if (type == W_MXFP4) f[0] = (uint8_t)(120 + rnd() % 8);
        if (type == W_MXFP4) continue;
        f[high] = (f[high] & 0x83) | 0x20;
        if (two) f[high + 2] = (f[high + 2] & 0x83) | 0x20;
    }
}

static void test_quantised(const struct kernels *k, int type, const char *name) {
    const struct weight_ops *ops = weight_ops(k, type);
    size_t cols = weight_block(type) == Q_SUPER ? 2 * Q_SUPER : COLS, blocks = cols / Q_BLOCK;
    size_t row = weight_row_bytes(type, cols), group = weight_group_bytes(type, cols);
    uint8_t *file = zeroed(ROWS * row);
    char *w = zeroed(GROUPS * group);
    float *x = zeroed(TOKS * cols * sizeof *x), *y = zeroed(TOKS * GROUPS * 8 * sizeof *y);
    struct act *q = zeroed(TOKS * blocks * sizeof *q);
    void *panel = zeroed(panel_bytes(cols, TOKS));
    bool values = true, bits = true, sums = true, zero = true;
    fill_blocks(type, file, ROWS * cols / weight_block(type));
    for (size_t r = 0; r < ROWS; r++) {
        ops->dequant(x, file + r * row, cols);
        for (size_t i = 0; i < cols; i++) {
            struct part p = part_at(type, file + r * row, i);
            values &= x[i] == (float)(p.d * p.sc * p.w - p.m * p.mn);
        }
    }
    tap_ok(values, "dequant %s, %s: exact, then rounded once", name, k->name);
    for (size_t i = 0; i < TOKS * cols; i++) x[i] = rnd_float() * 3;
    for (size_t g = 0; g < GROUPS; g++) {
        size_t n_row = g + 1 < GROUPS ? 8 : ROWS - 8 * g;
        bits &= ops->relay(w + g * group, file + g * 8 * row, n_row, cols);
    }
    k->quantise(q, x, TOKS * cols);
    k->pack(panel, q, blocks, blocks, TOKS);
    ops->matmul(y, GROUPS * 8, w, GROUPS, cols, panel, TOKS);
    for (size_t t = 0; t < TOKS; t++) {
        for (size_t r = 0; r < ROWS; r++) {
            double exact, size;
            float acc =
                sum_row(type, file + r * row, q + t * blocks, x + t * cols, cols, &exact, &size);
            bits &= same_bits(acc, y[t * GROUPS * 8 + r]);
            sums &= fabs(acc - exact) < 0.01 * size;
        }
        for (size_t r = ROWS; r < GROUPS * 8; r++) zero &= y[t * GROUPS * 8 + r] == 0;
    }
    tap_ok(bits && sums && zero, "matmul %s, %s: the contract's bits, near the true product", name,
           k->name);
    free(file), free(w), free(x), free(y), free(q), free(panel);
}

/* More tokens than go over the weights in one pass, and wider than what a pass holds of them: the bits of
 * one token at a time. */
static void test_many(const struct kernels *k, int type, const char *name) {
    enum { MANY = 133, WIDE = 2048, UNITS = 3, LD = 8 * UNITS, BLOCKS = WIDE / Q_BLOCK };
    const struct weight_ops *ops = weight_ops(k, type);
    size_t row = weight_row_bytes(type, WIDE), group = weight_group_bytes(type, WIDE);
    uint8_t *file = zeroed(LD * row);
    char *w = zeroed(UNITS * group), *panel = zeroed(panel_bytes(WIDE, MANY));
    float *x = zeroed(MANY * WIDE * sizeof *x), *y = zeroed(MANY * LD * sizeof *y);
    struct act *q = zeroed(MANY * BLOCKS * sizeof *q);
    bool same = true;
    fill_blocks(type, file, LD * WIDE / weight_block(type));
    for (size_t i = 0; i < MANY * WIDE; i++) x[i] = rnd_float() * 3;
    for (size_t g = 0; g < UNITS; g++)
        same &= ops->relay(w + g * group, file + g * 8 * row, 8, WIDE);
    k->quantise(q, x, MANY * WIDE);
    k->pack(panel, q, BLOCKS, BLOCKS, MANY);
    ops->matmul(y, LD, w, UNITS, WIDE, panel, MANY);
    for (size_t t = 0; t < MANY; t++) {
        float one[LD];
        k->pack(panel, q + t * BLOCKS, BLOCKS, BLOCKS, 1);
        ops->matmul(one, LD, w, UNITS, WIDE, panel, 1);
        same &= !memcmp(one, y + t * LD, sizeof one);
    }
    tap_ok(same, "matmul %s, %s: %d tokens at once as one by one", name, k->name, MANY);
    free(file), free(w), free(panel), free(x), free(y), free(q);
}

static void test_float(const struct kernels *k, int type, const char *name) {
    enum { N = 37, PADDED = 48 };
    const struct weight_ops *ops = weight_ops(k, type);
    size_t size = type == W_F32 ? 4 : 2, group = weight_group_bytes(type, N);
    char *file = zeroed(8 * N * size), *w = zeroed(group);
    float value[8][N], *x = zeroed(3 * PADDED * sizeof *x), y[3][8];
    for (size_t i = 0; i < 8 * N; i++) {
        uint16_t h = (uint16_t)((rnd() & 0x83ff) | (8 + rnd() % 12) << 10);
        value[i / N][i % N] = type == W_F16 ? f16_to_f32(h) : rnd_float();
        if (type == W_BF16) h = (uint16_t)(f32_bits(value[i / N][i % N]) >> 16);
        if (type == W_BF16) value[i / N][i % N] = bf16_to_f32(h);
        if (type != W_F32) memcpy(file + 2 * i, &h, 2);
        if (type == W_F32) memcpy(file + 4 * i, &value[i / N][i % N], 4);
    }
    for (size_t i = 0; i < 3 * PADDED; i++) x[i] = i % PADDED < N ? rnd_float() : 0;
    bool bits = ops->relay(w, file, 8, N);
    ops->matmul(&y[0][0], 8, w, 1, N, x, 3);
    for (size_t t = 0; t < 3; t++) {
        for (size_t r = 0; r < 8; r++) {
            float l[16] = {0};
            for (size_t i = 0; i < N; i++)
                l[i % 16] = fmaf(value[r][i], x[t * PADDED + i], l[i % 16]);
            for (size_t i = 0; i < 8; i++) l[i] += l[i + 8];
            float sum = ((l[0] + l[4]) + (l[2] + l[6])) + ((l[1] + l[5]) + (l[3] + l[7]));
            bits &= same_bits(sum, y[t][r]);
        }
    }
    tap_ok(bits, "matmul %s, %s: 16 lanes and the tree", name, k->name);
    free(file), free(w), free(x);
}

/* Activations. */

static void test_quantise(const struct kernels *k) {
    bool good = true;
    for (int round = 0; round < 3000; round++) {
        float x[70] = {0}, scale = ldexpf(1, (int)(rnd() % 120) - 60);
        size_t n = 1 + rnd() % 70;
        struct act q[3];
        struct wire16 w[3];
        memset(q, 0x55, sizeof q);
        memset(w, 0x55, sizeof w);
        for (size_t i = 0; i < n; i++) x[i] = rnd_float() * scale;
        k->quantise(q, x, n);
        k->to_wire16(w, x, n);
        for (size_t b = 0; b < (n + 31) / 32; b++) {
            float max = 0;
            for (size_t i = 0; i < 32; i++) {
                if (32 * b + i < n) max = fmaxf(max, fabsf(x[32 * b + i]));
            }
            float d = bf16_to_f32(q[b].d), inv = 1 / d, inv16 = 1 / w[b].d;
            bool small = max < 0x1p-60f;
            good &= small ? d == 0 && w[b].d == 0
                          : d >= max / 127 && d < max / 127 * 1.0079f && w[b].d == max / 32767;
            for (size_t i = 0; i < 32; i++) {
                float v = 32 * b + i < n ? x[32 * b + i] : 0;
                good &= q[b].q[i] == (small ? 0 : (int)nearbyintf(v * inv));
                good &= w[b].q[i] == (small ? 0 : (int)nearbyintf(v * inv16));
            }
        }
    }
    tap_ok(good, "quantise and to_wire16: scale, rounding, length");
    float x[32] = {INFINITY, -INFINITY, NAN, 1, 0x1p60f, -0x1p59f};
    struct act q;
    struct wire16 w;
    k->quantise(&q, x, 32);
    k->to_wire16(&w, x, 32);
    uint32_t bits;
    memcpy(&bits, &w.d, sizeof bits);
    tap_ok(bf16_to_f32(q.d) >= 0x1p60f / 127 && q.d == ACT_D_MOST && bits == WIRE16_D_MOST &&
               q.q[0] == 127 && q.q[1] == -127 && q.q[2] == -127 && q.q[3] == 0 && q.q[4] >= 126 &&
               w.d == 0x1p60f / 32767 && w.q[0] == 32767 && w.q[1] == -32767 && w.q[2] == -32767,
           "quantise and to_wire16: NaN and infinity are bounded");
    float sum[40], sum2[40];
    struct act qs[2] = {{.d = 0x3f00}, {.d = 0x4000}};
    struct wire16 ws[2] = {{.d = 0.5f}, {.d = 2.0f}};
    for (int i = 0; i < 40; i++) {
        qs[i / 32].q[i % 32] = (int8_t)(i - 20);
        ws[i / 32].q[i % 32] = (int16_t)(1000 * (i - 20));
        sum[i] = sum2[i] = 1;
    }
    k->add_act(sum, qs, 40);
    k->add_wire16(sum2, ws, 40);
    k->add(sum, sum2, 39);
    bool added = true;
    for (int i = 0; i < 40; i++) {
        float f = (i < 32 ? 0.5f : 2.0f) * (float)(i - 20);
        added &= sum2[i] == 1 + 1000 * f && sum[i] == (i < 39 ? 2 + 1001 * f : 1 + f);
    }
    tap_ok(added, "add, add_act, add_wire16: by hand");
}

static void test_vectors(const struct kernels *k) {
    enum { N = 301 };
    float x[N], w[N], y[N], gate[N];
    uint16_t h[N];
    double sum = 0;
    for (size_t i = 0; i < N; i++) {
        x[i] = rnd_float() * 5;
        w[i] = rnd_float();
        gate[i] = rnd_float() * 30;
        sum += (double)x[i] * x[i];
    }
    k->rmsnorm(y, x, w, N, 1e-5f);
    bool good = true;
    for (size_t i = 0; i < N; i++)
        good &= is_near(y[i], x[i] / sqrt(sum / N + 1e-5) * w[i], 1e-6, 0);
    tap_ok(good, "rmsnorm: near binary64");
    k->silu_mul(y, gate, w, N);
    good = true;
    for (size_t i = 0; i < N; i++) {
        good &= is_near(y[i], gate[i] / (1 + exp(-(double)gate[i])) * w[i], 5e-7, 1e-36);
    }
    tap_ok(good, "silu_mul: near binary64");
    k->gelu_mul(y, gate, w, N);
    good = true;
    for (size_t i = 0; i < N; i++) {
        double g = gate[i], u = sqrt(2 / M_PI) * (g + 0.044715 * g * g * g);
        good &= is_near(y[i], 0.5 * g * (1 + tanh(u)) * w[i], 1e-6, 3e-6);
    }
    tap_ok(good, "gelu_mul: near binary64");
    k->gelu_mul(y, x, NULL, N);
    for (size_t i = 0; i < N; i++) {
        double g = x[i], u = sqrt(2 / M_PI) * (g + 0.044715 * g * g * g);
        good &= is_near(y[i], 0.5 * g * (1 + tanh(u)), 1e-6, 3e-6);
    }
    tap_ok(good, "gelu_mul: without a factor");
    k->swiglu_oai(y, gate, x, N);
    good = true;
    for (size_t i = 0; i < N; i++) {
        double g = fmin(gate[i], 7), up = x[i];
        good &= is_near(y[i], g / (1 + exp(-(double)1.702f * g)) * (up + 1), 2e-6, 1e-20);
    }
    k->swiglu_oai(y, x, gate, N);  // beyond both limits of the linear side
    for (size_t i = 0; i < N; i++) {
        double g = x[i], up = fmin(fmax(gate[i], -7), 7);
        good &= is_near(y[i], g / (1 + exp(-(double)1.702f * g)) * (up + 1), 2e-6, 1e-6);
    }
    tap_ok(good, "swiglu_oai: near binary64");
    memcpy(y, gate, sizeof y);
    k->softcap(y, N, 20);
    good = true;
    for (size_t i = 0; i < N; i++) good &= is_near(y[i], 20 * tanh(gate[i] / 20.0), 0, 5e-6);
    tap_ok(good, "softcap: near binary64");
    sum = 0;
    double var = 0;
    for (size_t i = 0; i < N; i++) sum += x[i] / N;
    for (size_t i = 0; i < N; i++) var += (x[i] - sum) * (x[i] - sum) / N;
    k->layernorm(y, x, w, gate, N, 1e-5f);
    good = true;
    for (size_t i = 0; i < N; i++) {
        good &= is_near(y[i], (x[i] - sum) / sqrt(var + 1e-5) * w[i] + gate[i], 1e-6, 1e-6);
    }
    tap_ok(good, "layernorm: near binary64");
    x[0] = INFINITY, x[1] = -1e9f, x[2] = NAN, x[3] = 0x1p-25f, x[4] = 65519.0f;
    k->to_f16(h, x, N);
    good = h[0] == 0x7bff && h[1] == 0xfbff && h[2] == 0xfbff && h[3] == 0 && h[4] == 0x7bff;
    for (size_t i = 5; i < N; i++) good &= fabsf(f16_to_f32(h[i]) - x[i]) <= fabsf(x[i]) * 0x1p-11f;
    tap_ok(good, "to_f16: nearest, clamped, NaN is -65504");
}

struct pair {
    float v;
    int32_t i;
};

static int by_value(const void *a, const void *b) {
    const struct pair *x = a, *y = b;
    if (x->v != y->v) return x->v > y->v ? -1 : 1;
    return x->i - y->i;
}

static void test_topk(const struct kernels *k) {
    enum { N = 5000 };
    static float x[N], val[N];
    static int32_t id[N];
    static struct pair all[N];
    bool good = true;
    for (int round = 0; round < 200; round++) {
        size_t n = rnd() % N, want = round % 3 == 0 ? 1 : rnd() % 100, n_number = 0;
        for (size_t i = 0; i < n; i++) {
            x[i] = round % 5 == 0 ? (float)i : (float)((int)(rnd() % 999) - 500);
            if (rnd() % 50 == 0) x[i] = NAN;
            if (rnd() % 50 == 0) x[i] = rnd() % 2 ? -INFINITY : -0.0f;
            if (!isnan(x[i])) all[n_number++] = (struct pair){x[i], (int32_t)i};
        }
        qsort(all, n_number, sizeof *all, by_value);
        size_t got = k->topk(id, val, want, x, n);
        good &= got == (want < n_number ? want : n_number);
        for (size_t i = 0; i < got; i++) good &= id[i] == all[i].i && same_bits(val[i], all[i].v);
    }
    tap_ok(good, "topk: as sorting, ties to the lower index, no NaN");
}

/* Variants. */

static void say(void *ctx, const char *line) {
    int *n = ctx;
    if ((*n)++ < 20) printf("# %s\n", line);
}

static void add_badly(float *x, const float *y, size_t n) {
    for (size_t i = 0; i < n; i++) x[i] += y[i];
    if (n == 17) x[16] = nextafterf(x[16], 9);
}

static void test_selftest(const struct kernels *k, void *scratch) {
    uint64_t digest = 0;
    int n_line = 0;
    size_t n_bad = kernels_selftest(k, scratch, &digest, say, &n_line);
    tap_ok(n_bad == 0, "%s equals scalar", k->name);
    uint64_t once = k->multiply(1);
    tap_ok(once > 0 && k->multiply(3) == 3 * once, "%s counts what it multiplies", k->name);
    tap_ok(digest == SELFTEST_DIGEST, "digest is the contract's");
    if (digest != SELFTEST_DIGEST) printf("# digest %016llx\n", (unsigned long long)digest);
}

static void test_variant(const struct kernels *k, void *scratch) {
    static const struct {
        int type;
        const char *name;
    } quantised[] = {
        {W_Q4_0, "Q4_0"},   {W_Q4_1, "Q4_1"}, {W_Q5_0, "Q5_0"},     {W_Q5_1, "Q5_1"},
        {W_Q8_0, "Q8_0"},   {W_Q2_K, "Q2_K"}, {W_Q3_K, "Q3_K"},     {W_Q4_K, "Q4_K"},
        {W_Q5_K, "Q5_K"},   {W_Q6_K, "Q6_K"}, {W_IQ4_NL, "IQ4_NL"}, {W_IQ4_XS, "IQ4_XS"},
        {W_MXFP4, "MXFP4"},
    };
    test_dequant(k);
    for (size_t t = 0; t < sizeof quantised / sizeof *quantised; t++) {
        test_quantised(k, quantised[t].type, quantised[t].name);
        test_many(k, quantised[t].type, quantised[t].name);
    }
    test_float(k, W_F16, "F16");
    test_float(k, W_F32, "F32");
    test_float(k, W_BF16, "BF16");
    test_quantise(k);
    test_vectors(k);
    test_topk(k);
    test_selftest(k, scratch);
}

static void test_variants(void) {
    void *scratch = zeroed(SELFTEST_BYTES);
    tap_ok(each_variant(test_variant, scratch), "the best variant was among them");
    struct kernels bad;
    kernels_init(&bad, cpu_features());
    bad.add = add_badly;
    tap_ok(kernels_selftest(&bad, scratch, NULL, NULL, NULL) > 0, "selftest sees one wrong bit");
    free(scratch);
}

int main(void) {
    test_f16();
    test_fma();
    test_exp();
    test_tanh();
    test_table();
    test_variants();
    return tap_done();
}
