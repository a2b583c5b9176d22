/* selftest.c - does this build of the kernels, on this very CPU, return scalar's bits?
 *
 * The input is seeded and holds the values that have broken kernels before: zero, subnormal and
 * largest scales, extreme weights, blocks that do not fill a panel, NaN and infinity, positions on
 * both sides of a block of attention. One NaN is as good as another (CPUs differ in its payload).
 */
#include "f16.h"
#include "kernels.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

struct selftest {
    const struct kernels *ref, *got;
    char *scratch;  // SELFTEST_BYTES
    size_t used;
    uint64_t seed, digest;
    uint32_t tried[N_WEIGHT_TYPE];  // bit n: this type with n tokens
    size_t n_bad;
    void (*say)(void *ctx, const char *line);
    void *ctx;
};

static uint32_t rnd(struct selftest *s) {  // xorshift64*, Vigna 2016
    s->seed ^= s->seed >> 12;
    s->seed ^= s->seed << 25;
    s->seed ^= s->seed >> 27;
    return (uint32_t)(s->seed * 0x2545F4914F6CDD1DULL >> 32);
}

/* Uniform in [-1, 1). */
static float rnd_float(struct selftest *s) {
    return (float)((int32_t)(rnd(s) >> 8) - (1 << 23)) * 0x1p-23f;
}

/* Filled with a pattern, so that what a kernel forgets to write differs from run to run of it. */
static void *take(struct selftest *s, size_t bytes, int pattern) {
    char *p = s->scratch + s->used;
    s->used += (bytes + 63) / 64 * 64;
    assert(s->used <= SELFTEST_BYTES);
    memset(p, pattern, bytes);
    return p;
}

static void fail(struct selftest *s, const char *what, size_t at, const char *detail) {
    char line[160];
    s->n_bad++;
    if (!s->say) return;
    snprintf(line, sizeof line, "%s: %s differs from scalar at byte %zu (%s)", what, s->got->name,
             at, detail);
    s->say(s->ctx, line);
}

static void compare(struct selftest *s, const char *what, const char *detail, const void *ref,
                    const void *got, size_t bytes) {
    const uint8_t *a = ref, *b = got;
    for (size_t i = 0; i < bytes; i++) s->digest = (s->digest ^ a[i]) * 1099511628211ULL;
    for (size_t i = 0; i < bytes; i++) {
        if (a[i] != b[i]) {
            fail(s, what, i, detail);
            return;
        }
    }
}

static void one_nan(float *x, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (x[i] != x[i]) x[i] = f32_from_bits(0x7fc00000);
    }
}

static void compare_floats(struct selftest *s, const char *what, const char *detail, float *ref,
                           float *got, size_t n) {
    one_nan(ref, n);
    one_nan(got, n);
    compare(s, what, detail, ref, got, n * sizeof *ref);
}

/* What the input of a case is made of. */
enum mode {
    PLAIN,
    ZERO_SCALES,
    SUBNORMAL_SCALES,
    HUGE_SCALES,
    SOME_ZERO,
    WEIGHTS_LOW,    // bits 0, bytes (Q8_0's weights, Q6_K's scales) -128
    WEIGHTS_HIGH,   // bits 1, bytes 127
    WEIGHTS_MIXED,  // the two extremes by turns
    SIGNS,          // activations +-1: quantised to +-127
    TINY,           // activations near and below the smallest that counts
    N_MODE,
};

static const char *const mode_names[N_MODE] = {
    "plain",       "zero scales",  "subnormal scales", "huge scales", "some zero",
    "weights low", "weights high", "weights mixed",    "signs",       "tiny",
};

static void make_activations(struct selftest *s, float *x, size_t n, enum mode mode) {
    static const float odd[] = {0x1p-60f, 0x1.fffffep-61f, 0x1p-149f, 0x1p60f, 0x1p61f, 0x1p127f};
    for (size_t i = 0; i < n; i++) {
        float f = rnd_float(s);
        switch (mode) {
        case HUGE_SCALES: f *= 1e30f; break;
        case SOME_ZERO: f = i / Q_BLOCK % 3 == 0 ? 0 : f; break;
        case WEIGHTS_LOW: f = 1; break;
        case WEIGHTS_HIGH: f = -1; break;
        case SIGNS: f = f < 0 ? -1 : 1; break;
        case TINY: f = i / Q_BLOCK % 2 ? f * 1e-37f : f * odd[i / Q_BLOCK / 2 % 6]; break;
        default: f = rnd(s) % 64 == 0 ? f * 1e6f : f; break;
        }
        x[i] = f;
    }
}

/* Activations that no model should make, but a kernel must survive. */
static void make_hostile(struct selftest *s, float *x, size_t n) {
    static const uint32_t bits[] = {0x7f800000, 0xff800000, 0x7fc00000, 0xffc00001, 0x7f7fffff,
                                    0xff7fffff, 0x00000001, 0x80000000, 0x477ff000, 0x33000000};
    for (size_t i = 0; i < n; i++) {
        x[i] = rnd(s) % 8 ? rnd_float(s) * 100.0f : f32_from_bits(bits[rnd(s) % 10]);
    }
}

static uint16_t make_scale(struct selftest *s, enum mode mode) {
    uint16_t d = (uint16_t)((rnd(s) & 0x83ff) | (5 + rnd(s) % 8) << 10);  // 2^-10 .. 2^-2
    switch (mode) {
    case ZERO_SCALES: return d & 0x8000;
    case SUBNORMAL_SCALES: return d & 0x83ff;
    case HUGE_SCALES: return (d & 0x8000) | 0x7bff;  // 65504
    case SOME_ZERO: return rnd(s) % 4 ? d : 0;
    default: return d;
    }
}

/* Where the f16 scales of a quantised type's block are; those of MXFP4 are a byte. */
static const struct kind {
    enum weight_type type;
    unsigned n_scale, at[2];
    size_t whole;  // from here on bytes are signed numbers, not bits
} kinds[] = {
    {W_Q4_0, 1, {0}, SIZE_MAX},
    {W_Q8_0, 1, {0}, 0},
    {W_Q6_K, 1, {offsetof(struct file_q6_k, d)}, offsetof(struct file_q6_k, sc)},
    {W_Q4_1, 2, {0, 2}, SIZE_MAX},
    {W_Q5_0, 1, {0}, SIZE_MAX},
    {W_Q5_1, 2, {0, 2}, SIZE_MAX},
    {W_IQ4_NL, 1, {0}, SIZE_MAX},
    {W_MXFP4, 0, {0}, SIZE_MAX},
    {W_Q2_K, 2, {offsetof(struct file_q2_k, d), offsetof(struct file_q2_k, dmin)}, SIZE_MAX},
    {W_Q3_K, 1, {offsetof(struct file_q3_k, d)}, SIZE_MAX},
    {W_Q4_K, 2, {0, 2}, SIZE_MAX},
    {W_Q5_K, 2, {0, 2}, SIZE_MAX},
    {W_IQ4_XS, 1, {0}, SIZE_MAX},
};
enum { N_KIND = sizeof kinds / sizeof *kinds };

static size_t block_bytes(enum weight_type type) {
    return weight_row_bytes((int)type, weight_block((int)type));
}

static uint8_t make_exponent(struct selftest *s, enum mode mode) {
    uint32_t r = rnd(s);
    switch (mode) {
    case ZERO_SCALES: return (uint8_t)(r % FP4_EXP_LOW);
    case SUBNORMAL_SCALES: return (uint8_t)(FP4_EXP_LOW - 2 + r % 4);
    case HUGE_SCALES: return FP4_EXP_HIGH;
    case SOME_ZERO: return r % 4 ? (uint8_t)(110 + r / 4 % 20) : 0;
    default: return (uint8_t)(110 + r % 20);
    }
}

/* A quantised type's block. */
static void make_block(struct selftest *s, const struct kind *k, char *w, enum mode mode) {
    for (size_t i = 0; i < block_bytes(k->type); i++) {
        uint32_t r = rnd(s);
        bool whole = i >= k->whole;
        switch (mode) {
        case WEIGHTS_LOW: w[i] = (char)(whole ? 0x80 : 0x00); break;
        case WEIGHTS_HIGH: w[i] = (char)(whole ? 0x7f : 0xff); break;
        case WEIGHTS_MIXED:
            w[i] = (char)(r & 1 ? (whole ? 0x80 : 0xf0) : (whole ? 0x7f : 0x0f));
            break;
        default: w[i] = (char)r; break;
        }
    }
    for (size_t i = 0; i < k->n_scale; i++) {
        uint16_t d = make_scale(s, mode);
        memcpy(w + k->at[i], &d, sizeof d);
    }
    if (k->type == W_MXFP4) w[0] = (char)make_exponent(s, mode);
}

static void make_floats(struct selftest *s, int type, char *w, size_t n, enum mode mode) {
    for (size_t i = 0; i < n; i++) {
        float f = mode == HUGE_SCALES ? rnd_float(s) * 0x1p100f : rnd_float(s);
        uint16_t h = type == W_F16 ? make_scale(s, mode) : (uint16_t)(f32_bits(f) >> 16);
        if (type == W_F32) memcpy(w + 4 * i, &f, 4);
        if (type != W_F32) memcpy(w + 2 * i, &h, 2);
    }
}

static void make_weights(struct selftest *s, int type, char *w, size_t n_row, size_t n_col,
                         enum mode mode) {
    for (size_t i = 0; i < N_KIND; i++) {
        if ((int)kinds[i].type != type) continue;
        size_t size = block_bytes(kinds[i].type);
        for (size_t b = 0; b < n_row * n_col / weight_block(type); b++) {
            make_block(s, &kinds[i], w + b * size, mode);
        }
        return;
    }
    make_floats(s, type, w, n_row * n_col, mode);
}

/* The activations of one matrix product, in the form that its kernel eats. */
static const void *prepare(struct selftest *s, const struct kernels *k,
                           const struct weight_ops *ops, const float *x, size_t n_col, size_t n_tok,
                           int pattern) {
    if (ops->is_float) {
        size_t padded = (n_col + FLOAT_LANES - 1) / FLOAT_LANES * FLOAT_LANES;
        float *rows = take(s, n_tok * padded * sizeof *rows, 0);
        for (size_t t = 0; t < n_tok; t++) {
            memcpy(rows + t * padded, x + t * n_col, n_col * sizeof *x);
        }
        return rows;
    }
    size_t n_block = n_col / Q_BLOCK;
    struct act *q = take(s, n_tok * n_block * sizeof *q, pattern);
    for (size_t t = 0; t < n_tok; t++) k->quantise(q + t * n_block, x + t * n_col, n_col);
    void *panel = take(s, panel_bytes(n_col, n_tok), 0);
    k->pack(panel, q, n_block, n_block, n_tok);
    return panel;
}

/* All tokens and groups at once, every token alone, and every group alone: one answer. */
static void check_matmul(struct selftest *s, int type, size_t n_col, size_t n_row, size_t n_tok,
                         enum mode mode) {
    const struct weight_ops *ref = weight_ops(s->ref, type), *got = weight_ops(s->got, type);
    size_t n_group = (n_row + ROW_GROUP - 1) / ROW_GROUP, group = weight_group_bytes(type, n_col);
    size_t row = weight_row_bytes(type, n_col), rows = n_group * ROW_GROUP, ldy = rows + 3;
    char name[48];
    snprintf(name, sizeof name, "type %d, %s", type, mode_names[mode]);
    s->tried[type] |= 1U << n_tok;
    s->used = 0;
    char *file = (char *)take(s, n_row * row + 64, 0) + 1;  // a file's bytes lie anywhere
    char *wa = take(s, n_group * group, 1), *wb = take(s, n_group * group, 2);
    float *x = take(s, n_tok * n_col * sizeof *x, 0);
    float *ya = take(s, n_tok * ldy * sizeof *ya, 0), *yb = take(s, n_tok * ldy * sizeof *yb, 0);
    make_weights(s, type, file, n_row, n_col, mode);
    make_activations(s, x, n_tok * n_col, mode);
    for (size_t g = 0; g < n_group; g++) {
        size_t here = n_row - g * ROW_GROUP < ROW_GROUP ? n_row - g * ROW_GROUP : ROW_GROUP;
        const char *from = file + g * ROW_GROUP * row;
        if (!ref->relay(wa + g * group, from, here, n_col)) fail(s, "scalar refuses", g, name);
        if (!got->relay(wb + g * group, from, here, n_col)) fail(s, "relay refuses", g, name);
    }
    compare(s, "relay", name, wa, wb, n_group * group);
    size_t mark = s->used;
    const void *xa = prepare(s, s->ref, ref, x, n_col, n_tok, 0);
    const void *xb = prepare(s, s->got, got, x, n_col, n_tok, 1);
    if (!ref->is_float) compare(s, "pack", name, xa, xb, panel_bytes(n_col, n_tok));
    ref->matmul(ya, ldy, wa, n_group, n_col, xa, n_tok);
    got->matmul(yb, ldy, wb, n_group, n_col, xb, n_tok);
    compare_floats(s, "matmul", name, ya, yb, n_tok * ldy);
    memset(yb, 0, n_tok * ldy * sizeof *yb);
    for (size_t g = 0; g < n_group; g++) {
        got->matmul(yb + g * ROW_GROUP, ldy, wb + g * group, 1, n_col, xb, n_tok);
    }
    compare_floats(s, "matmul by groups", name, ya, yb, n_tok * ldy);
    memset(yb, 0, n_tok * ldy * sizeof *yb);
    for (size_t t = 0; t < n_tok; t++) {
        s->used = mark;
        xb = prepare(s, s->got, got, x + t * n_col, n_col, 1, 1);
        got->matmul(yb + t * ldy, ldy, wb, n_group, n_col, xb, 1);
    }
    compare_floats(s, "matmul by tokens", name, ya, yb, n_tok * ldy);
    float *da = take(s, n_col * sizeof *da, 1), *db = take(s, n_col * sizeof *db, 2);
    ref->dequant(da, file, n_col);
    got->dequant(db, file, n_col);
    compare_floats(s, "dequant", name, da, db, n_col);
}

/* Every count of tokens in as many draws, in an order that has short and long ones in any few of them. */
enum { TOKENS = 21, TOKEN_STEP = 8 };

static size_t count_of(size_t draw) {
    return 1 + draw * TOKEN_STEP % TOKENS;
}

static void check_floats(struct selftest *s) {
    static const size_t cols[] = {1, 7, 16, 40, 100, 288, 513};
    for (size_t i = 0; i < 2 * TOKENS; i++) {
        /* In the second half a count meets another width than in the first. */
        size_t n_col = cols[(i + i / TOKENS) % 7], n_row = 1 + rnd(s) % 24, n_tok = count_of(i);
        enum mode mode = i < TOKENS ? PLAIN : HUGE_SCALES;
        check_matmul(s, W_F32, n_col, n_row, n_tok, mode);
        check_matmul(s, W_F16, n_col, n_row, n_tok, mode);
        check_matmul(s, W_BF16, n_col, n_row, n_tok, mode);
    }
}

static void check_matrices(struct selftest *s) {
    static const size_t cols[] = {32, 64, 96, 128, 160, 256, 1024, 2080};
    size_t n_draw[N_KIND] = {0};
    for (size_t i = 0; i < 8 * N_MODE; i++) {
        size_t n_row = 1 + rnd(s) % 24;
        for (size_t k = 0; k < N_KIND; k++) {
            int type = (int)kinds[k].type;
            size_t n_col = weight_block(type) == Q_SUPER ? Q_SUPER * (1 + i % 8) : cols[i % 8];
            if (k > 2 && (i + k) % 3 != 0) continue;  // under emulation all would take long
            check_matmul(s, type, n_col, n_row, count_of(n_draw[k]++), (enum mode)(i / 8));
        }
    }
    check_floats(s);
    for (int type = 0; type < N_WEIGHT_TYPE; type++) {
        assert(!weight_ops(s->ref, type) || s->tried[type] == (2U << TOKENS) - 2);
    }
}

/* A scale or float weight that is not finite must be seen wherever it is; at: its place in a block. */
static void check_refusal(struct selftest *s, int type, const void *bad, size_t size, size_t at) {
    const struct weight_ops *ref = weight_ops(s->ref, type), *got = weight_ops(s->got, type);
    size_t n_col = weight_block(type) == Q_SUPER ? 5 * Q_SUPER : 160, n_row = 8;
    size_t bytes = n_row * weight_row_bytes(type, n_col);
    char name[32];
    snprintf(name, sizeof name, "type %d", type);
    for (; at < bytes; at += block_bytes((enum weight_type)type) * 3) {
        s->used = 0;
        char *file = take(s, bytes, 0);
        void *w = take(s, weight_group_bytes(type, n_col), 0);
        memcpy(file + at, bad, size);
        if (ref->relay(w, file, n_row, n_col)) fail(s, "scalar takes infinity", at, name);
        if (got->relay(w, file, n_row, n_col)) fail(s, "relay takes infinity", at, name);
    }
}

static void check_refusals(struct selftest *s) {
    static const uint16_t bad16[] = {0x7c00, 0xfe00}, bad_bf16[] = {0x7f80, 0xffc0};
    float bad32 = -__builtin_inff();
    uint8_t bad8 = FP4_EXP_HIGH + 1;
    for (size_t i = 0; i < N_KIND; i++) {
        for (size_t j = 0; j < 2 * kinds[i].n_scale; j++) {
            check_refusal(s, (int)kinds[i].type, &bad16[j % 2], 2, kinds[i].at[j / 2]);
        }
    }
    check_refusal(s, W_MXFP4, &bad8, 1, 0);
    check_refusal(s, W_F32, &bad32, 4, 0);
    for (size_t j = 0; j < 2; j++) {
        check_refusal(s, W_F16, &bad16[j], 2, 0);
        check_refusal(s, W_BF16, &bad_bf16[j], 2, 0);
    }
}

/* Kernels that go over a vector: every length around the sizes that matter, plain and hostile. */
static void check_vectors(struct selftest *s, size_t n, bool hostile) {
    const struct kernels *ref = s->ref, *got = s->got;
    const char *name = hostile ? "hostile" : "plain";
    size_t n_block = (n + Q_BLOCK - 1) / Q_BLOCK;
    s->used = 0;
    float *x = take(s, n * sizeof *x, 0), *w = take(s, n * sizeof *w, 0);
    float *a = take(s, n * sizeof *a, 1), *b = take(s, n * sizeof *b, 2);
    make_activations(s, x, n, hostile ? PLAIN : (enum mode)(n % N_MODE));
    if (hostile) make_hostile(s, x, n);
    make_activations(s, w, n, PLAIN);

    ref->rmsnorm(a, x, w, n, 1e-5f);
    got->rmsnorm(b, x, w, n, 1e-5f);
    compare_floats(s, "rmsnorm", name, a, b, n);
    ref->silu_mul(a, x, w, n);
    got->silu_mul(b, x, w, n);
    compare_floats(s, "silu_mul", name, a, b, n);
    memcpy(a, x, n * sizeof *x);
    memcpy(b, x, n * sizeof *x);
    ref->rope(a, w, n / 2);
    got->rope(b, w, n / 2);
    compare_floats(s, "rope", name, a, b, n);
    memcpy(a, x, n * sizeof *x);
    memcpy(b, x, n * sizeof *x);
    ref->rope_halves(a, w, n / 2);
    got->rope_halves(b, w, n / 2);
    compare_floats(s, "rope_halves", name, a, b, n);
    ref->gelu_mul(a, x, w, n);
    got->gelu_mul(b, x, w, n);
    compare_floats(s, "gelu_mul", name, a, b, n);
    ref->gelu_mul(a, x, NULL, n);
    got->gelu_mul(b, x, NULL, n);
    compare_floats(s, "gelu_mul alone", name, a, b, n);
    ref->swiglu_oai(a, x, w, n);
    got->swiglu_oai(b, x, w, n);
    compare_floats(s, "swiglu_oai", name, a, b, n);
    ref->swiglu_oai(a, w, x, n);
    got->swiglu_oai(b, w, x, n);
    compare_floats(s, "swiglu_oai", name, a, b, n);
    memcpy(a, x, n * sizeof *x);
    memcpy(b, x, n * sizeof *x);
    ref->softcap(a, n, 30.0f);
    got->softcap(b, n, 30.0f);
    compare_floats(s, "softcap", name, a, b, n);
    ref->layernorm(a, x, w, w + n / 2, n / 2, 1e-5f);
    got->layernorm(b, x, w, w + n / 2, n / 2, 1e-5f);
    compare_floats(s, "layernorm", name, a, b, n / 2);
    memcpy(a, x, n * sizeof *x);
    memcpy(b, x, n * sizeof *x);
    ref->add(a, w, n);
    got->add(b, w, n);
    compare_floats(s, "add", name, a, b, n);

    uint16_t *ha = take(s, n * sizeof *ha, 1), *hb = take(s, n * sizeof *hb, 2);
    ref->to_f16(ha, x, n);
    got->to_f16(hb, x, n);
    compare(s, "to_f16", name, ha, hb, n * sizeof *ha);

    struct act *qa = take(s, n_block * sizeof *qa, 1), *qb = take(s, n_block * sizeof *qb, 2);
    ref->quantise(qa, x, n);
    got->quantise(qb, x, n);
    compare(s, "quantise", name, qa, qb, n_block * sizeof *qa);
    ref->rmsnorm_quantise(qa, x, w, n, 1e-5f);
    got->rmsnorm_quantise(qb, x, w, n, 1e-5f);
    compare(s, "rmsnorm_quantise", name, qa, qb, n_block * sizeof *qa);
    memcpy(a, w, n * sizeof *x);
    memcpy(b, w, n * sizeof *x);
    ref->add_act(a, qa, n);
    got->add_act(b, qa, n);
    compare_floats(s, "add_act", name, a, b, n);

    struct wire16 *wa = take(s, n_block * sizeof *wa, 1), *wb = take(s, n_block * sizeof *wb, 2);
    ref->to_wire16(wa, x, n);
    got->to_wire16(wb, x, n);
    compare(s, "to_wire16", name, wa, wb, n_block * sizeof *wa);
    memcpy(a, w, n * sizeof *x);
    memcpy(b, w, n * sizeof *x);
    ref->add_wire16(a, wa, n);
    got->add_wire16(b, wa, n);
    compare_floats(s, "add_wire16", name, a, b, n);
}

static void check_topk(struct selftest *s, size_t n, size_t k, bool hostile) {
    s->used = 0;
    float *x = take(s, n * sizeof *x, 0);
    /* Few different values, so that ties are many. */
    for (size_t i = 0; i < n; i++) x[i] = (float)((int)(rnd(s) % 4001) - 2000) * 0.01f;
    if (hostile) make_hostile(s, x, n);
    size_t room = k < n ? k : n;
    int32_t *ia = take(s, room * sizeof *ia, 0), *ib = take(s, room * sizeof *ib, 0);
    float *va = take(s, room * sizeof *va, 0), *vb = take(s, room * sizeof *vb, 0);
    size_t na = s->ref->topk(ia, va, k, x, n), nb = s->got->topk(ib, vb, k, x, n);
    const char *name = hostile ? "hostile" : "plain";
    compare(s, "topk count", name, &na, &nb, sizeof na);
    compare(s, "topk id", name, ia, ib, na * sizeof *ia);
    compare(s, "topk value", name, va, vb, na * sizeof *va);
}

/* Keys: of both signs, all against the query (scores below 0), with a NaN or infinity. */
enum keys { KEYS_PLAIN, KEYS_AGAINST, KEYS_HOSTILE, N_KEYS };

static void check_attend(struct selftest *s, enum kv_type type, size_t hd, size_t n_pos,
                         enum keys keys) {
    static const char *const names[N_KEYS] = {"plain", "negative scores", "hostile"};
    float sink = rnd_float(s) * 8.0f;
    size_t stride = (hd + 31) / 32 * 32 + 32 * (rnd(s) % 2), n = n_pos * stride;
    if (type != KV_Q8_0) stride = hd + 8 * (rnd(s) % 3), n = n_pos * stride;
    s->used = 0;
    float *q = take(s, ATTEND_QUERIES * hd * sizeof *q, 0);
    float *a = take(s, ATTEND_QUERIES * hd * sizeof *a, 1);
    float *b = take(s, ATTEND_QUERIES * hd * sizeof *b, 2);
    float *room = take(s, attend_room(hd) * sizeof *room, 3);
    void *kv[2];
    make_activations(s, q, hd, SIGNS);
    make_activations(s, q + hd, (ATTEND_QUERIES - 1) * hd, PLAIN);
    for (size_t i = 0; i < 2; i++) {
        float *f = take(s, n * sizeof *f, 0);
        kv[i] = f;
        for (size_t j = 0; j < n; j++) f[j] = rnd_float(s) * 4.0f;
        for (size_t j = 0; keys == KEYS_AGAINST && i == 0 && j < n; j++) {
            if ((f[j] < 0) == (q[j % stride % hd] < 0)) f[j] = -f[j];
        }
        if (keys == KEYS_HOSTILE)
            f[rnd(s) % n] = f32_from_bits(rnd(s) % 2 ? 0x7fc00000 : 0xff800000);
        if (type != KV_F32) kv[i] = take(s, n * sizeof(uint16_t) + n / 8, 0);
        if (type == KV_F16) s->ref->to_f16(kv[i], f, n);
        if (type == KV_Q8_0) s->ref->quantise(kv[i], f, n);
    }
    for (uint32_t how = 0; how < 5; how++) {
        struct attention at = {type, hd, stride, 0.25f, how & 2 ? 3.0f : 0};
        struct query ask[ATTEND_QUERIES];
        /* Runs of some that see the same, as the heads of a token do, then of the token before. */
        size_t n_ask = how ? 1 + rnd(s) % ATTEND_QUERIES : 1, run = 1 + rnd(s) % 8;
        size_t first = how & 1 ? rnd(s) % n_pos : 0;
        for (size_t t = 0; t < n_ask; t++) {
            size_t end = t / run < n_pos ? n_pos - t / run : 1, from = first + t / run % 3;
            ask[t] = (struct query){.q = q + t * hd,
                                    .out = a + t * hd,
                                    .first = !(how & 1)   ? 0
                                             : from < end ? from
                                                          : end - 1,
                                    .n_pos = end,
                                    .sink = how & 4 ? &sink : NULL};
        }
        s->ref->attend(ask, n_ask, kv[0], kv[1], &at, room);
        for (size_t t = 0; t < n_ask; t++) ask[t].out = b + t * hd;
        s->got->attend(ask, n_ask, kv[0], kv[1], &at, room);
        compare_floats(s, "attend", names[keys], a, b, n_ask * hd);
    }
}

/* Angles have one implementation only; here they go into the digest. */
static void check_angles(struct selftest *s) {
    static const uint32_t pos[] = {0, 1, 2, 63, 1000, 131071, 4000000};
    s->used = 0;
    double *freq = take(s, 32 * sizeof *freq, 0);
    float *cs = take(s, 64 * sizeof *cs, 0);
    rope_freqs(freq, 500000.0, 64);
    compare(s, "rope_freqs", "digest", freq, freq, 32 * sizeof *freq);
    rope_yarn(freq, 500000.0, 64, &(struct yarn){16, 1, 32, 1, 8192});
    compare(s, "rope_yarn", "digest", freq, freq, 32 * sizeof *freq);
    for (size_t i = 0; i < sizeof pos / sizeof *pos; i++) {
        rope_angles(cs, freq, 32, pos[i]);
        compare(s, "rope_angles", "digest", cs, cs, 64 * sizeof *cs);
    }
}

size_t kernels_selftest(const struct kernels *got, void *scratch, uint64_t *digest,
                        void (*say)(void *ctx, const char *line), void *ctx) {
    struct kernels ref;
    kernels_init(&ref, 0);
    struct selftest s = {.ref = &ref,
                         .got = got,
                         .scratch = scratch,
                         .seed = 1,
                         .digest = 14695981039346656037ULL,
                         .say = say,
                         .ctx = ctx};
    check_matrices(&s);
    check_refusals(&s);
    for (size_t n = 1; n <= 300; n += n < 70 ? 1 : 7) {
        check_vectors(&s, n, false);
        check_vectors(&s, n, true);
    }
    check_vectors(&s, 2048, false);
    static const size_t ks[] = {1, 2, 5, 40, 64, 200};
    for (size_t i = 0; i < 24; i++) {
        check_topk(&s, i % 4 == 0 ? 1 + rnd(&s) % 80 : 1000 + rnd(&s) % 3000, ks[i % 6], i / 6 % 2);
    }
    static const size_t dims[] = {8, 16, 40, 64, 80, 100, 128, 256};
    for (size_t n_pos = 1; n_pos <= 200; n_pos += n_pos % 64 < 2 || n_pos % 64 == 63 ? 1 : 9) {
        size_t hd = dims[rnd(&s) % 8];
        for (int keys = 0; keys < N_KEYS; keys++) {
            check_attend(&s, KV_F16, hd, n_pos, (enum keys)keys);
            check_attend(&s, KV_F32, hd, n_pos, (enum keys)keys);
            check_attend(&s, KV_Q8_0, hd, n_pos, (enum keys)keys);
            hd = dims[rnd(&s) % 8];
        }
    }
    check_angles(&s);
    if (digest) *digest = s.digest;
    return s.n_bad;
}
