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

MUST sampler_check(const struct sampler *s, struct err *e) {
    if (!isfinite(s->temp)) return err_set(e, ERR_USAGE, "temp is not a number");
    if (s->temp > 100) {
        return err_set(e, ERR_USAGE, "temp %g is out of range: 0 to 100", (double)s->temp);
    }
    if (isnan(s->top_p) || s->top_p < 0) {
        return err_set(e, ERR_USAGE, "top-p %g is out of range: 0 to 1", (double)s->top_p);
    }
    if (isnan(s->min_p) || s->min_p > 1) {
        return err_set(e, ERR_USAGE, "min-p %g is out of range: 0 to 1", (double)s->min_p);
    }
    return true;
}

size_t sampler_needs(const struct sampler *s, size_t n_vocab) {
    if (s->temp <= 0) return n_vocab ? 1 : 0;
    return s->top_k > 0 && (size_t)s->top_k < n_vocab ? (size_t)s->top_k : n_vocab;
}

int32_t sample(const struct sampler *s, struct candidate *c, size_t n, uint64_t sequence,
               uint64_t position) {
    if (!n) return -1;
    if (s->temp <= 0) return c[0].id;
    if (s->top_k > 0 && (size_t)s->top_k < n) n = (size_t)s->top_k;
    if (s->top_p < 1) n = sample_top_p(c, n, s->top_p, 1);
    if (s->min_p > 0) n = sample_min_p(c, n, s->min_p, 1);
    /* From the largest down, so that a very low temperature cannot overflow them all. */
    float max = c[0].logit;
    for (size_t i = 0; i < n && isfinite(max); i++) c[i].logit -= max;
    sample_temp(c, n, s->temp);
    double sum = 0, at;
    for (size_t i = 0; i < n; i++) sum += (double)c[i].p;
    at = sample_uniform(s->seed, sequence, position) * sum;
    for (size_t i = 0; i + 1 < n; i++) {
        at -= (double)c[i].p;
        if (at < 0) return c[i].id;
    }
    return c[n - 1].id;
}
