#include "model/sampler.h"

#include <math.h>
#include <string.h>

/* ---- numbers */

/* e^x for x <= 0 in plain double arithmetic, so that every machine has the same bits: x = k ln 2 + r,
 * then the Taylor series of e^r, whose 14th term is below 2^-57 for |r| <= ln 2 / 2. */
static double exp_neg(double x) {
    static const double ln2_hi = 0x1.62e42fee00000p-1, ln2_lo = 0x1.a39ef35793c76p-33;
    if (!(x > -708.0)) return 0.0;  // subnormal from here on: nothing a probability needs
    int k = (int)(x * 0x1.71547652b82fep+0 - 0.5);
    double r = (x - k * ln2_hi) - k * ln2_lo, y = 1.0;
    for (int i = 13; i > 0; i--) y = 1.0 + y * r / i;
    uint64_t bits = (uint64_t)(1023 + k) << 52;
    double scale;
    memcpy(&scale, &bits, sizeof scale);
    return y * scale;
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

/* ---- order */

/* Smaller is earlier: descending logit, ascending id. NaN ranks with -infinity, -0 with 0. */
static uint64_t rank_of(const struct candidate *c) {
    float logit = isnan(c->logit) ? -INFINITY : c->logit + 0.0F;
    uint32_t u;
    memcpy(&u, &logit, sizeof u);
    u = u & 0x80000000 ? u : ~u & 0x7fffffff;  // ascending in -logit
    return (uint64_t)u << 32 | (uint32_t)c->id;
}

static void swap(struct candidate *a, struct candidate *b) {
    struct candidate t = *a;
    *a = *b;
    *b = t;
}

/* Restore the heap (latest at the root) below i. */
static void sift(struct candidate *c, size_t n, size_t i) {
    struct candidate item = c[i];
    uint64_t rank = rank_of(&item);
    for (;;) {
        size_t kid = 2 * i + 1;
        if (kid >= n) break;
        if (kid + 1 < n && rank_of(&c[kid + 1]) > rank_of(&c[kid])) kid++;
        if (rank_of(&c[kid]) <= rank) break;
        c[i] = c[kid];
        i = kid;
    }
    c[i] = item;
}

static void heap_make(struct candidate *c, size_t n) {
    for (size_t i = n / 2; i-- > 0;) sift(c, n, i);
}

static void heap_sort(struct candidate *c, size_t n) {
    heap_make(c, n);
    for (size_t i = n; i-- > 1;) {
        swap(&c[0], &c[i]);
        sift(c, i, 0);
    }
}

static void insertion_sort(struct candidate *c, size_t n) {
    for (size_t i = 1; i < n; i++) {
        struct candidate item = c[i];
        uint64_t rank = rank_of(&item);
        size_t k = i;
        for (; k && rank_of(&c[k - 1]) > rank; k--) c[k] = c[k - 1];
        c[k] = item;
    }
}

/* Hoare's partition around the median of three; returns the size of the first half. */
static size_t partition(struct candidate *c, size_t n) {
    if (rank_of(&c[n / 2]) < rank_of(&c[0])) swap(&c[n / 2], &c[0]);
    if (rank_of(&c[n - 1]) < rank_of(&c[0])) swap(&c[n - 1], &c[0]);
    if (rank_of(&c[n - 1]) < rank_of(&c[n / 2])) swap(&c[n - 1], &c[n / 2]);
    uint64_t pivot = rank_of(&c[n / 2]);
    size_t i = 0, j = n - 1;
    for (;;) {
        while (rank_of(&c[i]) < pivot) i++;
        while (rank_of(&c[j]) > pivot) j--;
        if (i >= j) return j + 1;
        swap(&c[i++], &c[j--]);
    }
}

/* Quicksort with the smaller half first, so that 64 ranges are room enough; a range that will not
 * halve in twice log2(n) steps is heap sorted. qsort(3) may allocate. */
void sample_sort(struct candidate *c, size_t n) {
    enum { SMALL = 16 };
    struct {
        struct candidate *c;
        size_t n;
        int depth;
    } todo[64] = {{c, n, n > 1 ? 2 * (64 - __builtin_clzll(n)) : 0}};
    for (int top = 1; top;) {
        struct candidate *at = todo[--top].c;
        size_t len = todo[top].n;
        int depth = todo[top].depth;
        if (len <= SMALL) {
            insertion_sort(at, len);
        } else if (!depth) {
            heap_sort(at, len);
        } else {
            size_t half = partition(at, len), rest = len - half;
            bool first = half > rest;  // the larger goes below, the smaller on top
            todo[top].c = first ? at : at + half;
            todo[top].n = first ? half : rest;
            todo[top++].depth = depth - 1;
            todo[top].c = first ? at + half : at;
            todo[top].n = first ? rest : half;
            todo[top++].depth = depth - 1;
        }
    }
}

/* ---- steps */

static double weight(float logit, float max) {
    return logit == max ? 1.0 : exp_neg((double)logit - (double)max);  // infinities too
}

void sample_softmax(struct candidate *c, size_t n) {
    float max = -INFINITY;
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        if (isnan(c[i].logit)) c[i].logit = -INFINITY;
        if (c[i].logit > max) max = c[i].logit;
    }
    for (size_t i = 0; i < n; i++) sum += weight(c[i].logit, max);
    for (size_t i = 0; i < n; i++) c[i].p = (float)(weight(c[i].logit, max) / sum);
}

size_t sample_top_k(struct candidate *c, size_t n, int32_t k) {
    if (k > 0 && (size_t)k < n) {
        size_t keep = (size_t)k;
        heap_make(c, keep);
        uint64_t last = rank_of(&c[0]);
        for (size_t i = keep; i < n; i++) {
            if (rank_of(&c[i]) > last) continue;
            c[0] = c[i];
            sift(c, keep, 0);
            last = rank_of(&c[0]);
        }
        n = keep;
    }
    if (k > 0) sample_sort(c, n);
    sample_softmax(c, n);
    return n;
}

size_t sample_top_p(struct candidate *c, size_t n, float p, size_t min_keep) {
    sample_softmax(c, n);
    if (p >= 1) return n;
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        sum += (double)c[i].p;
        if (sum < (double)p || i + 1 < min_keep) continue;
        n = i + 1;
    }
    sample_softmax(c, n);
    return n;
}

size_t sample_min_p(struct candidate *c, size_t n, float p, size_t min_keep) {
    if (p > 0) {
        size_t keep = n ? 1 : 0;
        while (keep < n && (keep < min_keep || weight(c[keep].logit, c[0].logit) >= (double)p))
            keep++;
        n = keep;
    }
    sample_softmax(c, n);
    return n;
}

void sample_temp(struct candidate *c, size_t n, float temp) {
    for (size_t i = 0; i < n; i++) {
        if (temp > 0) {
            c[i].logit /= temp;
        } else if (i) {
            c[i].logit = -INFINITY;
        }
    }
    sample_softmax(c, n);
}

/* -ln p of candidate i, from the logits: c [n] has its softmax, log_sum is ln of the weights' sum. */
static double surprise(const struct candidate *c, size_t i, double log_sum) {
    return log_sum + ((double)c[0].logit - (double)c[i].logit);
}

static double log_of_sum(const struct candidate *c, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += weight(c[i].logit, c[0].logit);
    return log_pos(sum);
}

static double entropy_of(const struct candidate *c, size_t n, double log_sum) {
    double entropy = 0;
    for (size_t i = 0; i < n; i++) {
        if (c[i].p > 0) entropy += (double)c[i].p * surprise(c, i, log_sum);
    }
    return entropy;
}

/* -ln p ascends along the list, so what is nearest to its mean is a run of it: grown from the place
 * where the mean would stand, to the nearer side each time. */
size_t sample_typical(struct candidate *c, size_t n, float p, size_t min_keep) {
    sample_softmax(c, n);
    if (p >= 1 || !n || !isfinite(c[0].logit)) return n;
    double log_sum = log_of_sum(c, n), entropy = entropy_of(c, n, log_sum), sum = 0;
    size_t from = 0, to;
    while (from < n && surprise(c, from, log_sum) < entropy) from++;
    to = from;
    while (to - from < n) {
        bool is_left = to == n;
        if (from && to < n) {
            double left = entropy - surprise(c, from - 1, log_sum);
            is_left = left <= surprise(c, to, log_sum) - entropy;
        }
        sum += (double)(is_left ? c[--from].p : c[to++].p);
        if (sum > (double)p && to - from >= min_keep) break;
    }
    memmove(c, c + from, (to - from) * sizeof *c);
    sample_softmax(c, to - from);
    return to - from;
}

void sample_top_n_sigma(struct candidate *c, size_t n, float sigmas) {
    double sum = 0, off = 0;
    size_t n_real = 0;
    for (size_t i = 0; i < n; i++) {
        if (isfinite(c[i].logit)) sum += (double)c[i].logit, n_real++;
    }
    if (sigmas > 0 && n_real > 1 && isfinite(c[0].logit)) {
        double mean = sum / (double)n_real;
        for (size_t i = 0; i < n; i++) {
            double d = (double)c[i].logit - mean;
            if (isfinite(c[i].logit)) off += d * d;
        }
        double least = (double)c[0].logit - (double)sigmas * sqrt(off / (double)n_real);
        for (size_t i = 1; i < n; i++) {
            if (!((double)c[i].logit >= least)) c[i].logit = -INFINITY;
        }
    }
    sample_softmax(c, n);
}

void sample_temp_dynamic(struct candidate *c, size_t n, float temp, float range, float exponent) {
    if (range > 0 && n == 1) {  // no entropy to follow, and nothing to choose
        sample_softmax(c, n);
        return;
    }
    if (range > 0 && isfinite(c[0].logit)) {
        double low = temp > range ? (double)temp - (double)range : 0,
               high = (double)temp + (double)range;
        sample_softmax(c, n);
        double part = entropy_of(c, n, log_of_sum(c, n)) / log_pos((double)n);
        if (part > 1) part = 1;
        temp = (float)(low + (high - low) * pow_unit(part, (double)exponent));
    }
    sample_temp(c, n, temp);
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
    sample_sort(c, n);
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
    if (is_greedy(s)) return c[0].id;
    if (s->top_n_sigma > 0) sample_top_n_sigma(c, n, s->top_n_sigma);
    if (s->top_k > 0 && (size_t)s->top_k < n) n = (size_t)s->top_k;
    if (is_typical(s)) n = sample_typical(c, n, s->typical, 1);
    if (s->top_p < 1) n = sample_top_p(c, n, s->top_p, 1);
    if (s->min_p > 0) n = sample_min_p(c, n, s->min_p, 1);
    /* From the largest down, so that a very low temperature cannot overflow them all. */
    float max = c[0].logit;
    for (size_t i = 0; i < n && isfinite(max); i++) c[i].logit -= max;
    sample_temp_dynamic(c, n, s->temp, s->temp_range, s->temp_exponent);
    double sum = 0, at;
    for (size_t i = 0; i < n; i++) sum += (double)c[i].p;
    at = sample_uniform(s->seed, sequence, position) * sum;
    for (size_t i = 0; i + 1 < n; i++) {
        at -= (double)c[i].p;
        if (at < 0) return c[i].id;
    }
    return c[n - 1].id;
}
