/* rope.c - the angles of rotary embeddings (Su et al. 2021, 3.2.2), by our own double arithmetic.
 *
 * libm's sin, cos, exp and pow differ between libraries, and one bit here is another token there.
 * These use only +, -, *, / and conversions of binary64, each correctly rounded, and Taylor series,
 * which are short enough after range reduction. Once per token, so plain code will do.
 */
#include "kernels.h"

#include <string.h>

#define LN2_HI 0x1.62e42fefp-1  // 33 bits: n * LN2_HI is exact for any exponent n
#define LN2_LO 0x1.473de6af278edp-34
#define LOG2E  0x1.71547652b82fep+0
#define SQRT2  0x1.6a09e667f3bcdp+0

/* pi / 2 in three parts of 26, 26 and 53 bits: n times the first two is exact for n < 2^27. */
#define HALF_PI_1   0x1.921fb5p+0
#define HALF_PI_2   0x1.110b46p-26
#define HALF_PI_3   0x1.1a62633145c07p-54
#define TWO_OVER_PI 0x1.45f306dc9c883p-1

#define ROUND 0x1.8p52  // adding and subtracting it rounds to an integer, for |x| < 2^51

/* ln x for normal x > 0: x = m * 2^e, sqrt(1/2) <= m < sqrt(2), and
 * ln m = 2 atanh((m - 1) / (m + 1)). */
static double ln_of(double x) {
    uint64_t u;
    memcpy(&u, &x, sizeof u);
    int e = (int)(u >> 52) - 1023;
    u = (u & 0x000fffffffffffffULL) | 0x3ff0000000000000ULL;
    double m;
    memcpy(&m, &u, sizeof m);
    if (m > SQRT2) {
        m *= 0.5;
        e++;
    }
    double s = (m - 1) / (m + 1), s2 = s * s, sum = 0;  // |s| < 0.172
    for (int k = 23; k >= 1; k -= 2) sum = sum * s2 + 1.0 / k;
    return e * LN2_HI + (e * LN2_LO + 2 * s * sum);
}

/* e^x for |x| <= 700. */
static double exp_of(double x) {
    double n = x * LOG2E + ROUND - ROUND;
    double r = x - n * LN2_HI - n * LN2_LO, sum = 1;  // |r| <= ln(2) / 2
    for (int k = 14; k >= 1; k--) sum = sum * r / k + 1;
    uint64_t u = (uint64_t)((int64_t)n + 1023) << 52;
    double scale;
    memcpy(&scale, &u, sizeof scale);
    return sum * scale;
}

/* sin r and cos r for |r| <= pi / 4, by Taylor series. */
static double sin_near(double r) {
    double r2 = r * r, sum = 1;
    for (int k = 18; k >= 2; k -= 2) sum = 1 - sum * r2 / (k * (k + 1));
    return sum * r;
}

static double cos_near(double r) {
    double r2 = r * r, sum = 1;
    for (int k = 18; k >= 2; k -= 2) sum = 1 - sum * r2 / (k * (k - 1));
    return sum;
}

void rope_freqs(double *freq, double base, size_t n_rot) {
    double ln_base = ln_of(base);
    for (size_t i = 0; i < n_rot / 2; i++) {
        freq[i] = exp_of(-(double)(2 * i) / (double)n_rot * ln_base);
    }
}

/* Which pair (a fraction of one) turns `turns` times in the context. */
static double pair_of(double turns, double base, size_t n_rot, uint32_t n_ctx) {
    const double pi = 2 * (HALF_PI_1 + HALF_PI_2);
    return (double)n_rot * ln_of(n_ctx / (turns * 2 * pi)) / (2 * ln_of(base));
}

void rope_yarn(double *freq, double base, size_t n_rot, const struct yarn *y) {
    double low = pair_of(y->beta_fast, base, n_rot, y->n_ctx_orig);
    double high = pair_of(y->beta_slow, base, n_rot, y->n_ctx_orig), last = (double)n_rot - 1;
    low = low < 0 ? 0 : low > last ? last : low;
    high = high < 0 ? 0 : high > last ? last : high;
    low = (double)(int64_t)low;
    double up = (double)(int64_t)high;
    high = up < high ? up + 1 : up;
    if (high > last) high = last;
    double width = high - low > 0.001 ? high - low : 0.001;
    for (size_t i = 0; i < n_rot / 2; i++) {
        double at = ((double)i - low) / width;
        double keep = (1 - (at < 0 ? 0 : at > 1 ? 1 : at)) * y->ext;
        freq[i] = freq[i] / y->factor * (1 - keep) + freq[i] * keep;
    }
}

double rope_yarn_length(double factor, double mul) {
    return factor > 1 ? 1 + 0.1 * mul * ln_of(factor) : 1;
}

void rope_llama3(double *freq, size_t n_rot, const struct rope_stretch *s) {
    const double pi = 2 * (HALF_PI_1 + HALF_PI_2);
    for (size_t i = 0; i < n_rot / 2; i++) {
        double turns = s->n_ctx_orig * freq[i] / (2 * pi);
        double keep = (turns - s->low) / (s->high - s->low);
        keep = keep < 0 ? 0 : keep > 1 ? 1 : keep;
        freq[i] /= (double)(float)(1 / ((1 - keep) / s->factor + keep));
    }
}

void rope_angles(float *cs, const double *freq, size_t n_pair, uint32_t pos) {
    for (size_t i = 0; i < n_pair; i++) {
        double angle = (double)pos * freq[i];
        double n = angle * TWO_OVER_PI + ROUND - ROUND;
        double r = angle - n * HALF_PI_1 - n * HALF_PI_2 - n * HALF_PI_3;
        double c = cos_near(r), s = sin_near(r);
        switch ((int64_t)n & 3) {  // quarter turns
        case 0: break;
        case 1: r = c, c = -s, s = r; break;
        case 2: c = -c, s = -s; break;
        case 3: r = c, c = s, s = -r; break;
        }
        cs[2 * i] = (float)c;
        cs[2 * i + 1] = (float)s;
    }
}
