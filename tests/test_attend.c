/* test_attend.c - attention and rotation of every variant against the formulas in binary64. That the
 * variants equal each other to the bit is test_kernels.c's business. */
#include "kernel_tests.h"
#include "tap.h"

#include <stdio.h>
#include <stdlib.h>

/* Against the formula with libm's log, for pairs before, on and behind the ramp. */
static void test_yarn(void) {
    double freq[32], was[32], worst = 0;
    const struct yarn y = {8, 1, 32, 1, 4096};
    const double two_pi = 8 * atan(1);
    rope_freqs(was, 150000, 64);
    memcpy(freq, was, sizeof freq);
    rope_yarn(freq, 150000, 64, &y);
    double low = floor(64 * log(4096 / (32 * two_pi)) / (2 * log(150000)));
    double high = ceil(64 * log(4096 / two_pi) / (2 * log(150000)));
    for (int i = 0; i < 32; i++) {
        double ramp = fmin(1, fmax(0, (i - low) / (high - low)));
        worst = fmax(worst, fabs(freq[i] / (was[i] * ((1 - ramp) + ramp / 8)) - 1));
    }
    tap_ok(worst < 1e-13 && freq[0] == was[0] && freq[31] == was[31] / 8 && low > 4 && high < 28,
           "rope_yarn: a ramp from whole to divided frequencies");
    tap_ok(fabs(rope_yarn_length(32, 1) - (1 + 0.1 * log(32))) < 1e-14 &&
               rope_yarn_length(0.5, 1) == 1 && rope_yarn_length(32, 0) == 1,
           "rope_yarn_length: one and a tenth of a logarithm");
}

/* How many of a are b times part. (A loop of its own: gcc 12 for AArch64 dies of a sum of ints beside a
 * maximum of doubles.) */
static int count_parts(const double *a, const double *b, double part) {
    int n = 0;
    for (int i = 0; i < 64; i++) n += a[i] == b[i] * part;
    return n;
}

static void test_rope_llama3(void) {
    const struct rope_stretch y = {8, 1, 4, 8192};
    double freq[64], was[64], worst = 0;
    const double two_pi = 8 * atan(1);
    rope_freqs(was, 500000, 128);
    memcpy(freq, was, sizeof freq);
    rope_llama3(freq, 128, &y);
    for (int i = 0; i < 64; i++) {
        double turns = 8192 * was[i] / two_pi, smooth = (turns - 1) / 3;
        double want = turns > 4   ? was[i]
                      : turns < 1 ? was[i] / 8
                                  : (1 - smooth) * was[i] / 8 + smooth * was[i];
        worst = fmax(worst, fabs(freq[i] / want - 1));
    }
    int n_kept = count_parts(freq, was, 1), n_slow = count_parts(freq, was, 0.125);
    tap_ok(
        worst < 1e-7 && n_kept == 29 && n_slow == 29,
        "rope_llama3: %d pairs keep their frequency, %d have an eighth, those between some of it",
        n_kept, n_slow);
}

static void test_rope(const struct kernels *k) {
    /* 92600 and 93000 are next to 2^16 * sqrt(2), where the logarithm's series is longest. */
    static const double bases[] = {10000, 500000, 92600, 93000, 1e-3, 1e9};
    double freq[64], worst = 0;
    for (size_t b = 0; b < sizeof bases / sizeof *bases; b++) {
        size_t n = b % 2 ? 64 : 50;
        rope_freqs(freq, bases[b], 2 * n);
        for (size_t i = 0; i < n; i++) {
            double want = pow(bases[b], -(double)i / (double)n);
            worst = fmax(worst, fabs(freq[i] / want - 1));
        }
    }
    printf("# rope_freqs: largest relative error %.1e\n", worst);
    tap_ok(worst < 1e-13, "rope_freqs: near pow()");
    rope_freqs(freq, 500000, 128);
    float cs[128];
    size_t n_equal = 0, n = 0;
    double error = 0;
    for (uint32_t pos = 0; pos < 1U << 26; pos += 1 + pos / 50) {
        rope_angles(cs, freq, 64, pos);
        for (size_t i = 0; i < 64; i++, n += 2) {
            double angle = pos * freq[i], c = cos(angle), s = sin(angle);
            error = fmax(error, fmax(fabs(cs[2 * i] - c), fabs(cs[2 * i + 1] - s)));
            n_equal += (size_t)(cs[2 * i] == (float)c) + (size_t)(cs[2 * i + 1] == (float)s);
        }
    }
    printf("# rope_angles: %zu of %zu equal libm's, largest error %.3e\n", n_equal, n, error);
    tap_ok(error < 0x1p-25 + 1e-12 && (double)n_equal > 0.9999 * (double)n,
           "rope_angles: near libm");
    float x[128], was[128];
    for (int i = 0; i < 128; i++) x[i] = was[i] = rnd_float();
    rope_angles(cs, freq, 64, 777);
    k->rope(x, cs, 63);
    bool good = x[126] == was[126] && x[127] == was[127];
    for (size_t i = 0; i < 63; i++) {
        double c = cos(777 * freq[i]), s = sin(777 * freq[i]), a = was[2 * i], b = was[2 * i + 1];
        good &= is_near(x[2 * i], a * c - b * s, 0, 3e-7);
        good &= is_near(x[2 * i + 1], b * c + a * s, 0, 3e-7);
    }
    tap_ok(good, "rope: rotates adjacent pairs");
    memcpy(x, was, sizeof x);
    k->rope_halves(x, cs, 61);
    for (size_t i = 0; i < 61; i++) {
        double c = cos(777 * freq[i]), s = sin(777 * freq[i]), a = was[i], b = was[61 + i];
        good &= is_near(x[i], a * c - b * s, 0, 3e-7) && is_near(x[61 + i], b * c + a * s, 0, 3e-7);
    }
    for (size_t i = 122; i < 128; i++) good &= x[i] == was[i];
    tap_ok(good, "rope_halves: rotates value i with i + n_pair");
}

enum { POS = 200, HD = 48, STRIDE = 64 };

/* The same in binary64 from values in f32. */
static void attend_far(double *out, const float *q, const float *key, const float *val,
                       const struct attention *a, const struct query *ask) {
    double score[POS], max = ask->sink ? *ask->sink : -1e9, sum = 0;
    for (size_t p = ask->first; p < ask->n_pos; p++) {
        score[p] = 0;
        for (size_t i = 0; i < HD; i++) score[p] += (double)q[i] * key[p * STRIDE + i];
        score[p] *= a->scale;
        if (a->softcap > 0) score[p] = a->softcap * tanh(score[p] / a->softcap);
        max = fmax(max, score[p]);
    }
    if (ask->sink) sum = exp(*ask->sink - max);
    for (size_t p = ask->first; p < ask->n_pos; p++) sum += score[p] = exp(score[p] - max);
    for (size_t i = 0; i < HD; i++) {
        out[i] = 0;
        for (size_t p = ask->first; p < ask->n_pos; p++)
            out[i] += score[p] / sum * val[p * STRIDE + i];
    }
}

static void test_attend(const struct kernels *k) {
    static float key[POS * STRIDE], val[POS * STRIDE];
    static uint16_t key16[POS * STRIDE], val16[POS * STRIDE];
    static struct act key8[POS * STRIDE / Q_BLOCK], val8[POS * STRIDE / Q_BLOCK];
    float q[HD], out[HD], out16[HD], out8[HD], *room = malloc(attend_room(HD) * sizeof *room);
    bool near = true, alike = true;
    /* Whole numbers up to 127 of which one is reached are exact in all three kinds. */
    for (size_t i = 0; i < POS * STRIDE; i++) {
        key[i] = i % 32 == 1  ? 127.0f / 32
                 : i % STRIDE ? (float)(rnd() % 255) / 32 - 127.0f / 32
                              : 1;
        val[i] = i % 32 == 1 ? 127.0f / 64 : (float)(rnd() % 255) / 64 - 127.0f / 64;
    }
    k->to_f16(key16, key, POS * STRIDE);
    k->to_f16(val16, val, POS * STRIDE);
    k->quantise(key8, key, POS * STRIDE);
    k->quantise(val8, val, POS * STRIDE);
    for (size_t n = 1; n <= POS; n += 1 + n / 16) {
        float sink = rnd_float() * 20;
        struct attention a = {KV_F32, HD, STRIDE, 0.05f, 0};
        struct query ask = {q, out, 0, n, NULL};
        if (n % 3 == 1) ask.first = rnd() % n;
        if (n % 4 == 2) a.softcap = 5;
        if (n % 5 == 3) ask.sink = &sink;
        for (size_t i = 0; i < HD; i++) q[i] = rnd_float() * 4;
        if (n % 2) q[0] = -400;  // all scores far below 0
        double want[HD];
        attend_far(want, q, key, val, &a, &ask);
        k->attend(&ask, 1, key, val, &a, room);
        a.type = KV_F16, ask.out = out16;
        k->attend(&ask, 1, key16, val16, &a, room);
        a.type = KV_Q8_0, ask.out = out8;
        k->attend(&ask, 1, key8, val8, &a, room);
        alike &= memcmp(out, out16, sizeof out) == 0 && memcmp(out, out8, sizeof out) == 0;
        for (size_t i = 0; i < HD; i++) near &= is_near(out[i], want[i], 0, 1e-5);
    }
    free(room);
    tap_ok(near, "attend: near binary64, with window, cap and sink");
    tap_ok(alike, "attend: f16 and q8_0 equal f32 of the same values");
}

static void test_variant(const struct kernels *k, void *ctx) {
    (void)ctx;
    printf("# %s\n", k->name);
    test_rope(k);
    test_attend(k);
}

int main(void) {
    test_yarn();
    test_rope_llama3();
    tap_ok(each_variant(test_variant, NULL), "the best variant was among them");
    return tap_done();
}
