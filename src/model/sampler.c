#include "model/sampler.h"

#include <math.h>
#include <string.h>

/* ---- numbers */

/* e^x for x <= 0 in plain double arithmetic, so that every machine has the same bits: x = k ln 2 + r,
 * then the Taylor series of e^r, whose next term is below 2^-42 for |r| <= ln 2 / 2. */
static double exp_neg(double x) {
    static const double ln2_hi = 0x1.62e42fee00000p-1, ln2_lo = 0x1.a39ef35793c76p-33;
    static const double over[] = {1.0 / 3628800, 1.0 / 362880, 1.0 / 40320, 1.0 / 5040, 1.0 / 720,
                                  1.0 / 120,     1.0 / 24,     1.0 / 6,     1.0 / 2,    1.0};
    if (!(x > -708.0)) return 0.0;  // subnormal from here on: nothing a probability needs
    int k = (int)(x * 0x1.71547652b82fep+0 - 0.5);
    double r = (x - k * ln2_hi) - k * ln2_lo, y = 0;
    for (size_t i = 0; i < sizeof over / sizeof *over; i++) y = (y + over[i]) * r;
    uint64_t bits = (uint64_t)(1023 + k) << 52;
    double scale;
    memcpy(&scale, &bits, sizeof scale);
    return (1.0 + y) * scale;
}

/* ln x for x > 0: x = 2^k m with m in [sqrt(1/2), sqrt(2)), then ln m = 2 atanh((m - 1) / (m + 1)), whose
 * series' 13th term is below 2^-60 there. */
static double log_pos(double x) {
    static const double ln2_hi = 0x1.62e42fee00000p-1, ln2_lo = 0x1.a39ef35793c76p-33;
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    int k = (int)(bits >> 52) - 1023;
    bits = (bits & 0xfffffffffffff) | (uint64_t)1023 << 52;
    double m, y = 0;
    memcpy(&m, &bits, sizeof m);
    if (m > 0x1.6a09e667f3bcdp+0) m /= 2, k++;
    double z = (m - 1) / (m + 1), zz = z * z;
    for (int i = 25; i > 0; i -= 2) y = y * zz + 1.0 / i;
    return k * ln2_hi + (2 * z * y + k * ln2_lo);
}

/* x^y for x in [0, 1], y >= 0. */
static double pow_unit(double x, double y) {
    if (x <= 0) return y > 0 ? 0.0 : 1.0;
    return y == 1 ? x : exp_neg(y * log_pos(x));
}

/* Philox4x32-10: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", 2011. */
static void philox(uint32_t c[4], uint32_t k0, uint32_t k1) {
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xd2511f53 * c[0], p1 = (uint64_t)0xcd9e8d57 * c[2];
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c[1] ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c[3] ^ k1;
        c[0] = n0, c[1] = (uint32_t)p1, c[2] = n2, c[3] = (uint32_t)p0;
        k0 += 0x9e3779b9, k1 += 0xbb67ae85;
    }
}

double sample_uniform(uint64_t seed, uint64_t sequence, uint64_t position) {
    uint32_t c[4] = {(uint32_t)position, (uint32_t)(position >> 32), (uint32_t)sequence,
                     (uint32_t)(sequence >> 32)};
    philox(c, (uint32_t)seed, (uint32_t)(seed >> 32));
    uint64_t bits = ((uint64_t)c[0] << 32 | c[1]) >> 11;
    return (double)bits * 0x1p-53;
}

/* ---- order and weights */

/* What comes first: the larger logit or, where this is given, the surprise nearer to the mean. */
struct typical {
    float max;    // the largest logit
    double mean;  // of how far the logits are below it
};

/* Smaller is earlier; equal ones by ascending id. NaN ranks with -infinity, -0 with 0. */
static uint64_t rank_of(const struct candidate *c, const struct typical *t) {
    float v = 0.0F - c->logit;
    if (t) v = (float)fabs(((double)t->max - (double)c->logit) - t->mean);
    if (isnan(v)) v = INFINITY;
    uint32_t u;
    memcpy(&u, &v, sizeof u);
    u ^= -(u >> 31) | 0x80000000;
    return (uint64_t)u << 32 | (uint32_t)c->id;
}

/* Sums are of whole numbers: exact, so that they are the same in any order. A largest weight is 1, and
 * 2^23 tokens have room. */
static uint64_t units(double x) {
    return (uint64_t)(int64_t)(x * 0x1p40);  // signed: one instruction on x86_64
}

/* And makes -infinity of NaN. */
static float largest(struct candidate *c, size_t n) {
    float max = -INFINITY;
    for (size_t i = 0; i < n; i++) {
        if (isnan(c[i].logit)) c[i].logit = -INFINITY;
        if (c[i].logit > max) max = c[i].logit;
    }
    return max;
}

/* Not from logits divided by it, of which some may be equal, or infinite. */
float sample_weigh(struct candidate *c, size_t n, float temp) {
    float max = largest(c, n);
    for (size_t i = 0; i < n; i++) {
        double below = ((double)c[i].logit - (double)max) / (double)temp;
        c[i].p = c[i].logit == max ? 1.0F : (float)exp_neg(below);  // infinities too
    }
    return max;
}

static uint64_t weight_of(const struct candidate *c, size_t n) {
    uint64_t sum = 0;
    for (size_t i = 0; i < n; i++) sum += units((double)c[i].p);
    return sum;
}

enum { DIGIT = 8 };  // bits of a rank that are looked at at once

/* The rank of the first with which those up to it have a weight of `want`, 1 to that of all; is_count: are so
 * many. Nothing is sorted: the rank is found digit by digit, from the weights of all that share the digits
 * before and have this one. */
static uint64_t rank_where(const struct candidate *c, size_t n, const struct typical *t,
                           bool is_count, uint64_t want) {
    uint64_t found = 0;
    for (int shift = 64 - DIGIT; shift >= 0; shift -= DIGIT) {
        uint64_t sum[1 << DIGIT] = {0}, only = 0;
        size_t n_alike = 0, digit = 0;
        for (size_t i = 0; i < n; i++) {
            uint64_t rank = rank_of(&c[i], t);
            if ((rank ^ found) >> shift >> DIGIT) continue;
            sum[rank >> shift & ((1 << DIGIT) - 1)] += is_count ? 1 : units((double)c[i].p);
            only = rank;
            n_alike++;
        }
        if (n_alike == 1) return only;
        while (sum[digit] < want) want -= sum[digit++];
        found |= (uint64_t)digit << shift;
    }
    return found;
}

static uint64_t first_of(const struct candidate *c, size_t n) {
    uint64_t first = UINT64_MAX;
    for (size_t i = 0; i < n; i++) {
        uint64_t rank = rank_of(&c[i], NULL);
        if (rank < first) first = rank;
    }
    return first;
}

static int32_t id_of(uint64_t rank) {
    return (int32_t)(uint32_t)rank;
}

/* Leaves those up to this rank, and at least min_keep. */
static size_t keep(struct candidate *c, size_t n, const struct typical *t, uint64_t last,
                   size_t min_keep) {
    size_t kept = 0;
    if (min_keep > n) min_keep = n;
    if (min_keep > 1) {
        uint64_t least = rank_where(c, n, t, true, min_keep);
        if (least > last) last = least;
    }
    for (size_t i = 0; i < n; i++) {
        if (rank_of(&c[i], t) <= last) c[kept++] = c[i];
    }
    return kept;
}

/* ---- steps */

size_t sample_top_k(struct candidate *c, size_t n, int32_t k) {
    if (k <= 0 || (size_t)k >= n) return n;
    return keep(c, n, NULL, rank_where(c, n, NULL, true, (uint64_t)k), 1);
}

size_t sample_top_p(struct candidate *c, size_t n, float p, size_t min_keep) {
    if (p >= 1 || !n) return n;
    sample_weigh(c, n, 1);
    double part = (double)p * (double)weight_of(c, n);
    uint64_t want = (uint64_t)part;
    if ((double)want < part || !want) want++;
    return keep(c, n, NULL, rank_where(c, n, NULL, false, want), min_keep);
}

size_t sample_min_p(struct candidate *c, size_t n, float p, size_t min_keep) {
    if (p <= 0 || !n) return n;
    sample_weigh(c, n, 1);
    uint64_t last = first_of(c, n);
    for (size_t i = 0; i < n; i++) {
        uint64_t rank = rank_of(&c[i], NULL);
        if (c[i].p >= p && rank > last) last = rank;
    }
    return keep(c, n, NULL, last, min_keep);
}

/* How far the logits are below the largest, in the mean; c [n] is weighed. */
static double mean_below(const struct candidate *c, size_t n, float max) {
    uint64_t sum = 0;
    for (size_t i = 0; i < n; i++) {
        if (c[i].p > 0) sum += units((double)c[i].p * ((double)max - (double)c[i].logit));
    }
    return (double)sum / (double)weight_of(c, n);
}

/* -ln p is how far the logit is below the largest, and a number that is the same for all. */
size_t sample_typical(struct candidate *c, size_t n, float p, size_t min_keep) {
    float max = sample_weigh(c, n, 1);
    if (p >= 1 || !n || !isfinite(max)) return n;
    struct typical t = {.max = max, .mean = mean_below(c, n, max)};
    uint64_t want = (uint64_t)((double)p * (double)weight_of(c, n)) + 1;
    return keep(c, n, &t, rank_where(c, n, &t, false, want), min_keep);
}

/* Of the finite logits: how many, the largest and the smallest. */
static size_t span(const struct candidate *c, size_t n, double *max, double *min) {
    size_t n_real = 0;
    for (size_t i = 0; i < n; i++) {
        double v = (double)c[i].logit;
        if (!isfinite(v)) continue;
        if (!n_real || v > *max) *max = v;
        if (!n_real || v < *min) *min = v;
        n_real++;
    }
    return n_real;
}

void sample_top_n_sigma(struct candidate *c, size_t n, float sigmas) {
    double max = 0, min = 0;
    size_t n_real = span(c, n, &max, &min);
    if (sigmas <= 0 || n_real < 2 || max <= min || largest(c, n) > max) return;
    uint64_t sum = 0, off = 0;
    double scale = 1 / (max - min);
    for (size_t i = 0; i < n; i++) {
        if (isfinite(c[i].logit)) sum += units((max - (double)c[i].logit) * scale);
    }
    double mean = (double)sum * 0x1p-40 / (double)n_real;
    for (size_t i = 0; i < n; i++) {
        double d = (max - (double)c[i].logit) * scale - mean;
        if (isfinite(c[i].logit)) off += units(d * d);
    }
    double least =
        max - (double)sigmas * (max - min) * sqrt((double)off * 0x1p-40 / (double)n_real);
    for (size_t i = 0; i < n; i++) {
        if (!((double)c[i].logit >= least)) c[i].logit = -INFINITY;
    }
}

float sample_temp(struct candidate *c, size_t n, float temp, float range, float exponent) {
    float max = range > 0 && n > 1 ? sample_weigh(c, n, 1) : INFINITY;
    if (!isfinite(max)) return temp;
    double low = temp > range ? (double)temp - (double)range : 0,
           high = (double)temp + (double)range;
    double entropy = log_pos((double)weight_of(c, n) * 0x1p-40) + mean_below(c, n, max);
    double part = entropy / log_pos((double)n);
    if (part > 1) part = 1;
    return (float)(low + (high - low) * pow_unit(part, (double)exponent));
}

/* ---- bias and penalties */

/* Shell's sort by id: at most some thousands, nearly always some dozens. */
static void sort_by_id(struct adjust *a) {
    uint32_t gap = 1;
    while (gap < a->n / 3) gap = 3 * gap + 1;
    for (; gap; gap /= 3) {
        for (uint32_t i = gap; i < a->n; i++) {
            struct adjusted item = a->at[i];
            uint32_t k = i;
            for (; k >= gap && a->at[k - gap].id > item.id; k -= gap) a->at[k] = a->at[k - gap];
            a->at[k] = item;
        }
    }
}

static bool has_penalty(const struct sampler *s) {
    return s->last_n > 0 &&
           ((s->repeat > 0 && s->repeat != 1) || s->presence != 0 || s->frequency != 0);
}

void adjust_make(struct adjust *a, const struct sampler *s, const int32_t *seen, size_t n_seen) {
    size_t window = has_penalty(s) ? (size_t)s->last_n : 0;
    if (window > n_seen) window = n_seen;
    a->n = 0;
    for (uint32_t i = 0; i < s->n_bias; i++) {
        a->at[a->n++] = (struct adjusted){.id = s->bias[i].id, .bias = s->bias[i].value};
    }
    for (size_t i = n_seen - window; i < n_seen; i++) {
        a->at[a->n++] = (struct adjusted){.id = seen[i], .count = 1};
    }
    sort_by_id(a);
    uint32_t n = 0;
    for (uint32_t i = 0; i < a->n; i++) {
        if (n && a->at[n - 1].id == a->at[i].id) {
            a->at[n - 1].count += a->at[i].count;
            a->at[n - 1].bias += a->at[i].bias;
        } else {
            a->at[n++] = a->at[i];
        }
    }
    a->n = n;
    bool lifts = (s->repeat > 0 && s->repeat < 1) || s->presence < 0 || s->frequency < 0;
    for (uint32_t i = 0; i < n; i++) {
        a->at[i].is_raised = a->at[i].bias > 0 || (a->at[i].count && lifts);
    }
}

const struct adjusted *adjust_find(const struct adjust *a, int32_t id) {
    uint32_t from = 0, to = a->n;
    while (from < to) {
        uint32_t mid = (from + to) / 2;
        if (a->at[mid].id < id) {
            from = mid + 1;
        } else {
            to = mid;
        }
    }
    return from < a->n && a->at[from].id == id ? &a->at[from] : NULL;
}

float sample_adjusted(const struct sampler *s, const struct adjusted *a, float logit) {
    logit += a->bias;
    if (!a->count) return logit;
    if (s->repeat > 0) logit = logit <= 0 ? logit * s->repeat : logit / s->repeat;
    return logit - ((float)a->count * s->frequency + s->presence);
}

void sample_adjust(const struct sampler *s, const struct adjust *a, struct candidate *c, size_t n) {
    if (!a->n) return;
    for (size_t i = 0; i < n; i++) {
        const struct adjusted *to = adjust_find(a, c[i].id);
        if (to) c[i].logit = sample_adjusted(s, to, c[i].logit);
    }
}

/* ---- all of it */

static MUST out_of_range(const char *what, float value, const char *range, struct err *e) {
    return err_set(e, ERR_USAGE, "%s %g is out of range: %s", what, (double)value, range);
}

static bool within(float v, float from, float to) {
    return v >= from && v <= to;  // a NaN is nowhere
}

static MUST check_bias(const struct sampler *s, struct err *e) {
    if (s->n_bias > SAMPLER_BIAS) {
        return err_set(e, ERR_LIMIT, "a logit bias for %u tokens, and %d is the most taken here",
                       s->n_bias, SAMPLER_BIAS);
    }
    for (uint32_t i = 0; i < s->n_bias; i++) {
        if (s->bias[i].id < 0) {
            return err_set(e, ERR_USAGE, "a logit bias for token %d, which cannot be",
                           s->bias[i].id);
        }
        float value = s->bias[i].value;
        if (value != -INFINITY && !within(value, -SAMPLER_BIAS_VALUE, SAMPLER_BIAS_VALUE)) {
            return out_of_range("logit bias", value, "-1000 to 1000, or -inf", e);
        }
    }
    return true;
}

MUST sampler_check_ids(const struct sampler *s, uint32_t n_vocab, struct err *e) {
    for (uint32_t i = 0; i < s->n_bias; i++) {
        if ((uint32_t)s->bias[i].id < n_vocab) continue;
        return err_set(e, ERR_USAGE,
                       "a logit bias for token %d, and the vocabulary has tokens 0 to %u",
                       s->bias[i].id, n_vocab - 1);
    }
    return true;
}

MUST sampler_check(const struct sampler *s, struct err *e) {
    if (!isfinite(s->temp)) return err_set(e, ERR_USAGE, "temp is not a number");
    if (s->temp > 100) return out_of_range("temp", s->temp, "0 to 100", e);
    if (isnan(s->top_p) || s->top_p < 0) return out_of_range("top-p", s->top_p, "0 to 1", e);
    if (isnan(s->min_p) || s->min_p > 1) return out_of_range("min-p", s->min_p, "0 to 1", e);
    if (!within(s->typical, 0, 1)) return out_of_range("typical", s->typical, "0 to 1", e);
    if (s->repeat != 0 && !within(s->repeat, 0.01F, 100)) {
        return out_of_range("repeat penalty", s->repeat, "0.01 to 100", e);
    }
    if (!within(s->presence, -100, 100)) {
        return out_of_range("presence penalty", s->presence, "-100 to 100", e);
    }
    if (!within(s->frequency, -100, 100)) {
        return out_of_range("frequency penalty", s->frequency, "-100 to 100", e);
    }
    if (s->last_n < 0 || s->last_n > SAMPLER_WINDOW) {
        return err_set(e, ERR_USAGE, "repeat-last-n %d is out of range: 0 to %d", s->last_n,
                       SAMPLER_WINDOW);
    }
    if (!within(s->top_n_sigma, 0, 1000)) {
        return out_of_range("top-n-sigma", s->top_n_sigma, "0 to 1000", e);
    }
    if (!within(s->temp_range, 0, 100)) {
        return out_of_range("dynatemp-range", s->temp_range, "0 to 100", e);
    }
    if (!within(s->temp_exponent, 0, 100)) {
        return out_of_range("dynatemp-exponent", s->temp_exponent, "0 to 100", e);
    }
    return check_bias(s, e);
}

static bool is_typical(const struct sampler *s) {
    return s->typical > 0 && s->typical < 1;
}

/* Of the steps only the typical one can leave out the likeliest. */
static bool is_greedy(const struct sampler *s) {
    return s->temp <= 0 && !is_typical(s) && s->temp_range <= 0;
}

size_t sampler_needs(const struct sampler *s, size_t n_vocab) {
    if (is_greedy(s)) return n_vocab ? 1 : 0;
    if (s->top_n_sigma > 0) return n_vocab;  // mean and deviation are of all
    return s->top_k > 0 && (size_t)s->top_k < n_vocab ? (size_t)s->top_k : n_vocab;
}

int32_t sample(const struct sampler *s, struct candidate *c, size_t n, uint64_t sequence,
               uint64_t position) {
    if (!n) return -1;
    if (is_greedy(s)) return id_of(first_of(c, n));
    if (s->top_n_sigma > 0) sample_top_n_sigma(c, n, s->top_n_sigma);
    n = sample_top_k(c, n, s->top_k);
    if (is_typical(s)) n = sample_typical(c, n, s->typical, 1);
    n = sample_top_p(c, n, s->top_p, 1);
    n = sample_min_p(c, n, s->min_p, 1);
    float temp = sample_temp(c, n, s->temp, s->temp_range, s->temp_exponent);
    if (temp <= 0) return id_of(first_of(c, n));
    sample_weigh(c, n, temp);
    uint64_t sum = weight_of(c, n);
    uint64_t at = (uint64_t)(sample_uniform(s->seed, sequence, position) * (double)sum);
    return id_of(rank_where(c, n, NULL, false, at < sum ? at + 1 : sum));
}
