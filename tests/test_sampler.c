/* Sampling: the generator's published answers, each step on cases small enough to do by hand, all of them
 * together against the definitions on a sorted list, and a vocabulary of full size in time. */
#include "model/sampler.h"
#include "shuffle.h"
#include "tap.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { BIG = 128256 };

/* Random123 1.14, kat_vectors, philox4x32 10: counter, key, result (its first two words). */
static void test_philox(void) {
    static const struct {
        uint32_t c[4], k[2], r[2];
    } kat[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d}},
        {{~0U, ~0U, ~0U, ~0U}, {~0U, ~0U}, {0x408f276d, 0x41c83b0e}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb}},
    };
    for (size_t i = 0; i < sizeof kat / sizeof *kat; i++) {
        uint64_t position = (uint64_t)kat[i].c[1] << 32 | kat[i].c[0];
        uint64_t sequence = (uint64_t)kat[i].c[3] << 32 | kat[i].c[2];
        uint64_t key = (uint64_t)kat[i].k[1] << 32 | kat[i].k[0];
        uint64_t bits = ((uint64_t)kat[i].r[0] << 32 | kat[i].r[1]) >> 11;
        tap_ok(sample_uniform(key, sequence, position) == (double)bits / 9007199254740992.0,
               "Philox4x32-10, published answer %zu", i);
    }
    double sum = 0, low = 1, high = 0;
    for (uint64_t i = 0; i < 100000; i++) {
        double u = sample_uniform(1, 2, i);
        sum += u;
        if (u < low) low = u;
        if (u > high) high = u;
    }
    tap_ok(fabs(sum / 1e5 - 0.5) < 0.005 && low >= 0 && high < 1 && low < 1e-3 && high > 0.999,
           "uniform: mean %.4f", sum / 1e5);
}

static void test_weights(void) {
    double worst = 0;
    for (int i = 0; i < 20000; i++) {
        struct candidate c[2] = {{0, 0.0F, 0}, {1, -(float)(rnd() % 80000) / 1000.0F, 0}};
        float temp = i % 2 ? 1.0F : (float)(rnd() % 5000 + 1000) / 1000.0F;
        sample_weigh(c, 2, temp);
        double want = exp((double)c[1].logit / (double)temp);
        double off = fabs((double)c[1].p - want) / want;
        if (c[0].p != 1) off = 1;
        if (off > worst) worst = off;
    }
    tap_ok(worst < 6.1e-8, "weights within float's rounding of libm's exp: %.2g", worst);
    struct candidate odd[4] = {{0, INFINITY, 0}, {1, INFINITY, 0}, {2, 3, 0}, {3, NAN, 0}};
    sample_weigh(odd, 4, 1);
    tap_ok(odd[0].p == 1 && odd[1].p == 1 && odd[2].p == 0 && odd[3].p == 0,
           "infinite logits share everything, NaN gets nothing");
    struct candidate none[2] = {{0, -INFINITY, 0}, {1, NAN, 0}};
    sample_weigh(none, 2, 1);
    tap_ok(none[0].p == 1 && none[1].p == 1, "nothing to choose by: all alike");
}

static int by_logit(const void *a, const void *b) {
    const struct candidate *x = a, *y = b;
    if (x->logit != y->logit) return x->logit > y->logit ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

/* Patterns that break bad quicksorts, and random ones with many ties. */
static void fill(struct candidate *c, size_t n, int kind) {
    for (size_t i = 0; i < n; i++) {
        float v = (float)(rnd() % 1000) / 10.0F - 50.0F;
        if (kind == 1) v = (float)i;
        if (kind == 2) v = -(float)i;
        if (kind == 3) v = 1;
        if (kind == 4) v = (float)(i < n / 2 ? i : n - i);
        if (kind == 5) v = i % 2 ? 0.0F : -0.0F;
        if (kind == 6) v = (float)rnd() / 1e6F;
        c[i] = (struct candidate){.id = (int32_t)i, .logit = v};
    }
}

static bool equal(const struct candidate *a, const struct candidate *b, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (a[i].id != b[i].id || a[i].logit != b[i].logit) return false;
    }
    return true;
}

static void test_order(void) {
    static const size_t sizes[] = {0, 1, 2, 3, 15, 16, 17, 33, 100, 1000, 20000};
    struct candidate *a = calloc(BIG, sizeof *a), *b = calloc(BIG, sizeof *b);
    bool top = true;
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        for (int kind = 0; kind < 7; kind++) {
            size_t n = sizes[s];
            fill(a, n, kind);
            memcpy(b, a, n * sizeof *a);
            qsort(b, n, sizeof *b, by_logit);
            int32_t k = (int32_t)(rnd() % (rnd() % 2 ? 50 : 25000)) + 1;
            shuffle(a, n);
            size_t left = sample_top_k(a, n, k);
            qsort(a, left, sizeof *a, by_logit);
            top &= left == ((size_t)k < n ? (size_t)k : n) && equal(a, b, left);
        }
    }
    tap_ok(top, "top-k is the head of the list that qsort makes: descending logit, ascending id");
    free(a);
    free(b);
}

static void test_steps(void) {
    /* Probabilities 8/15, 4/15, 2/15, 1/15. */
    float ln2 = 0.69314718F;
    struct candidate base[4] = {{7, 3 * ln2, 0}, {3, 2 * ln2, 0}, {9, ln2, 0}, {1, 0, 0}}, c[4];
    memcpy(c, base, sizeof c);
    tap_ok(sample_top_p(c, 4, 0.7F, 1) == 2 && c[0].id == 7 && c[1].id == 3, "top-p 0.7");
    memcpy(c, base, sizeof c);
    tap_ok(sample_top_p(c, 4, 0.0F, 1) == 1 && c[0].id == 7, "top-p 0 leaves one");
    memcpy(c, base, sizeof c);
    tap_ok(sample_top_p(c, 4, 0.1F, 3) == 3, "top-p keeps at least as many as asked");
    memcpy(c, base, sizeof c);
    tap_ok(sample_top_p(c, 4, 1, 1) == 4, "top-p 1 keeps all");
    memcpy(c, base, sizeof c);
    tap_ok(sample_min_p(c, 4, 0.2F, 1) == 3, "min-p 0.2");
    memcpy(c, base, sizeof c);
    tap_ok(sample_min_p(c, 4, 1, 2) == 2, "min-p keeps at least as many as asked");
    memcpy(c, base, sizeof c);
    tap_ok(sample_min_p(c, 4, 0, 1) == 4, "min-p 0 keeps all");
    memcpy(c, base, sizeof c);
    sample_weigh(c, 4, 0.5F);
    tap_ok(c[0].p == 1 && fabs((double)c[1].p - 1 / 4.0) < 1e-6 &&
               fabs((double)c[3].p - 1 / 64.0) < 1e-6,
           "temperature 0.5 squares the odds");
    double entropy = log(15) - (8 * 3 + 4 * 2 + 2) / 15.0 * log(2), t = 0.5 + entropy / log(4);
    tap_ok(fabs((double)sample_temp(c, 4, 1, 0.5F, 1) - t) < 1e-6,
           "a dynamic temperature follows the entropy");
    tap_ok(sample_temp(c, 1, 0.7F, 0.5F, 1) == 0.7F, "of which a single one has none");
    memcpy(c, base, sizeof c);
    tap_ok(sample_top_k(c, 4, 0) == 4 && c[0].id == 7, "top-k 0 keeps all");
}

/* The definition: by distance from the entropy, until more than p is had. */
static size_t typical_by_hand(const struct candidate *c, size_t n, double p, bool *kept) {
    bool *left = calloc(n, sizeof *left);
    double *q = calloc(n, sizeof *q), sum = 0, entropy = 0, had = 0;
    size_t n_kept = 0;
    for (size_t i = 0; i < n; i++) sum += q[i] = exp((double)c[i].logit);
    for (size_t i = 0; i < n; i++) q[i] /= sum, entropy -= q[i] * log(q[i]);
    for (size_t i = 0; i < n; i++) left[i] = true, kept[i] = false;
    while (n_kept < n && !(had > p)) {
        size_t best = n;
        for (size_t i = 0; i < n; i++) {
            if (!left[i]) continue;
            double off = fabs(-log(q[i]) - entropy);
            if (best == n || off < fabs(-log(q[best]) - entropy)) best = i;
        }
        left[best] = false, kept[best] = true, n_kept++;
        had += q[best];
    }
    free(left);
    free(q);
    return n_kept;
}

static void test_typical(void) {
    enum { N = 60 };
    int wrong = 0, inside = 0;
    for (int round = 0; round < 500; round++) {
        struct candidate c[N];
        float logit[N];
        bool kept[N];
        fill(c, N, 6);
        for (size_t i = 0; i < N; i++) c[i].logit /= 400.0F;  // up to 10
        qsort(c, N, sizeof *c, by_logit);
        for (size_t i = 0; i < N; i++) logit[i] = c[i].logit;
        float p = (float)(rnd() % 999 + 1) / 1000.0F;
        size_t want = typical_by_hand(c, N, (double)p, kept), n = sample_typical(c, N, p, 1);
        bool same = n == want;
        for (size_t i = 0, k = 0; same && i < N; i++) {
            if (kept[i]) same = c[k++].logit == logit[i];
        }
        wrong += !same;
        inside += !kept[0];
    }
    tap_ok(!wrong && inside > 50, "typical: %d of 500 differ; %d leave out the likeliest", wrong,
           inside);
    struct sampler s = {.temp = 0, .typical = 0.1F, .top_p = 1};
    struct candidate c[3] = {{5, 3, 0}, {6, 1, 0}, {7, 1, 0}};
    tap_ok(sample(&s, c, 3, 0, 0) == 5 && sampler_needs(&s, BIG) == BIG,
           "greedy with typical needs more than the likeliest");
}

/* ---- all steps, by the definitions: on a sorted list, with libm and sums of doubles */

struct plain {
    struct candidate *c;  // in order
    size_t n;
    double *q;     // their probabilities
    bool is_sure;  // no decision was as near as rounding may decide it
};

static bool is_near(double a, double b) {
    return fabs(a - b) <= 1e-7 * (1 + fabs(a));
}

static void plain_softmax(struct plain *p, float temp) {
    double sum = 0, max = (double)p->c[0].logit;
    for (size_t i = 0; i < p->n; i++) {
        double v = (double)p->c[i].logit;
        sum += p->q[i] = v == max ? 1 : exp((v - max) / (double)temp);
    }
    for (size_t i = 0; i < p->n; i++) p->q[i] /= sum;
}

static void plain_sigma(struct plain *p, float sigmas) {
    double sum = 0, off = 0, n_real = 0, max = (double)p->c[0].logit;
    if (!isfinite(max)) return;
    for (size_t i = 0; i < p->n; i++) {
        if (isfinite(p->c[i].logit)) sum += (double)p->c[i].logit, n_real++;
    }
    for (size_t i = 0; i < p->n; i++) {
        double d = (double)p->c[i].logit - sum / n_real;
        if (isfinite(p->c[i].logit)) off += d * d;
    }
    double dev = sqrt(off / n_real), least = max - (double)sigmas * dev;
    for (size_t i = 1; i < p->n; i++) {
        double v = (double)p->c[i].logit;
        if (isfinite(v) && fabs(v - least) <= 1e-6 * dev) p->is_sure = false;
        if (v < least) p->c[i].logit = -INFINITY;
    }
}

static double *far;  // of candidate i, for the order in which the typical ones are taken

static int by_distance(const void *a, const void *b) {
    size_t x = *(const size_t *)a, y = *(const size_t *)b;
    return far[x] != far[y] ? (far[x] < far[y] ? -1 : 1) : (x < y ? -1 : x > y);
}

static double plain_entropy(const struct plain *p) {
    double entropy = 0;
    for (size_t i = 0; i < p->n; i++) entropy -= p->q[i] > 0 ? p->q[i] * log(p->q[i]) : 0;
    return entropy;
}

/* How many of q [n], taken in this order (NULL: as they are), reach p; beyond: or pass it. */
static size_t plain_until(struct plain *p, const size_t *order, double part, bool beyond) {
    double sum = 0;
    for (size_t i = 0; i < p->n; i++) {
        sum += p->q[order ? order[i] : i];
        if (is_near(sum, part)) p->is_sure = false;
        if (beyond ? sum > part : sum >= part) return i + 1;
    }
    return p->n;
}

static void plain_typical(struct plain *p, double part) {
    plain_softmax(p, 1);
    if (!isfinite(p->c[0].logit)) return;
    size_t *order = calloc(p->n, sizeof *order), kept = 0;
    bool *is_in = calloc(p->n, sizeof *is_in);
    double entropy = plain_entropy(p), first = -log(p->q[0]);
    far = calloc(p->n, sizeof *far);
    for (size_t i = 0; i < p->n; i++) {
        order[i] = i;
        far[i] = fabs(first + (double)p->c[0].logit - (double)p->c[i].logit - entropy);
    }
    qsort(order, p->n, sizeof *order, by_distance);
    size_t n = plain_until(p, order, part, true);
    for (size_t i = n > 1 ? n - 2 : 0; i < n && i + 1 < p->n; i++) {
        size_t a = order[i], b = order[i + 1];
        if (p->c[a].logit != p->c[b].logit && is_near(far[a], far[b])) p->is_sure = false;
    }
    for (size_t i = 0; i < n; i++) is_in[order[i]] = true;
    for (size_t i = 0; i < p->n; i++) {
        if (is_in[i]) p->c[kept++] = p->c[i];
    }
    p->n = kept;
    free(order);
    free(is_in);
    free(far);
}

static float plain_temp(struct plain *p, const struct sampler *s) {
    plain_softmax(p, 1);
    if (s->temp_range <= 0 || p->n < 2 || !isfinite(p->c[0].logit)) return s->temp;
    double low = fmax(0, (double)s->temp - (double)s->temp_range);
    double high = (double)s->temp + (double)s->temp_range;
    double part = fmin(1, plain_entropy(p) / log((double)p->n));
    return (float)(low + (high - low) * pow(part, (double)s->temp_exponent));
}

static int32_t plain_sample(const struct sampler *s, struct plain *p, uint64_t position) {
    for (size_t i = 0; i < p->n; i++) {
        if (isnan(p->c[i].logit)) p->c[i].logit = -INFINITY;
    }
    qsort(p->c, p->n, sizeof *p->c, by_logit);
    bool is_typical = s->typical > 0 && s->typical < 1;
    if (s->temp <= 0 && !is_typical && s->temp_range <= 0) return p->c[0].id;
    if (s->top_n_sigma > 0) plain_sigma(p, s->top_n_sigma);
    if (s->top_k > 0 && (size_t)s->top_k < p->n) p->n = (size_t)s->top_k;
    if (is_typical) plain_typical(p, (double)s->typical);
    plain_softmax(p, 1);
    if (s->top_p < 1) p->n = plain_until(p, NULL, (double)s->top_p, false);
    size_t n = 1;
    for (size_t i = 1; i < p->n; i++) {
        double of_best = p->q[i] / p->q[0];
        if (s->min_p > 0 && is_near(of_best, (double)s->min_p)) p->is_sure = false;
        n += of_best >= (double)s->min_p;
    }
    p->n = n;
    float temp = plain_temp(p, s);
    if (temp <= 0) return p->c[0].id;
    plain_softmax(p, temp);
    return p->c[plain_until(p, NULL, sample_uniform(s->seed, 5, position), true) - 1].id;
}

static float some(float from, float to) {
    return from + (to - from) * (float)(rnd() % 10000) / 10000.0F;
}

static void invent(struct sampler *s) {
    *s = (struct sampler){.temp = rnd() % 6 ? some(0.1F, 3) : 0,
                          .top_k = rnd() % 3 ? 0 : (int32_t)(rnd() % 3000),
                          .top_p = rnd() % 2 ? 1 : some(0, 1),
                          .min_p = rnd() % 2 ? 0 : some(0, 0.3F),
                          .seed = rnd(),
                          .typical = rnd() % 3 ? 0 : some(0, 1),
                          .top_n_sigma = rnd() % 4 ? 0 : some(0.1F, 4),
                          .temp_range = rnd() % 4 ? 0 : some(0, 1),
                          .temp_exponent = some(0, 2)};
}

/* Like a model's, then with ever more of what is no plain number. */
static void fill_nasty(struct candidate *c, size_t n, int kind) {
    static const float odd[] = {NAN,    -NAN,  -INFINITY, -3e38F, 3e38F,
                                1e-45F, -0.0F, 0.0F,      1e-20F, INFINITY};
    size_t n_odd = kind == 11 ? 3 : kind == 10 ? 9 : 10;
    if (kind < 7) fill(c, n, kind);
    for (size_t i = 0; i < n && kind >= 7; i++) {
        float v = some(-4, 4) + some(-4, 4) + some(-4, 4);
        if (rnd() % 2000 == 0) v += some(0, 10);
        if (kind == 8) v = (float)(int)v;  // ties
        if (kind == 9 && rnd() % 2) v = rnd() % 2 ? NAN : -INFINITY;
        if (kind == 10 || kind == 11 || (kind == 12 && rnd() % 8 == 0)) v = odd[rnd() % n_odd];
        c[i] = (struct candidate){.id = (int32_t)i, .logit = v};
    }
    for (size_t i = 0; i < n; i++) c[i].id *= 7;  // gaps, and ids of three bytes
}

/* As picked by the definitions; the same in whatever order they come. */
static void test_plain(void) {
    static const size_t sizes[] = {1, 2, 3, 17, 40, 256, 1000, 5000};
    enum { KINDS = 13 };
    struct candidate *a = calloc(BIG, sizeof *a), *b = calloc(BIG, sizeof *b);
    double *q = calloc(BIG, sizeof *q);
    for (int kind = 0; kind < KINDS; kind++) {
        int wrong = 0, moved = 0, n_sure = 0, rounds = 161;
        for (int i = 0; i < rounds; i++) {
            size_t n = i == 160 ? BIG : sizes[i % 8];
            struct sampler s;
            struct plain p = {.c = b, .n = n, .q = q, .is_sure = true};
            invent(&s);
            fill_nasty(a, n, kind);
            shuffle(a, n);
            memcpy(b, a, n * sizeof *a);
            int32_t got = sample(&s, b, n, 5, (uint64_t)i);
            memcpy(b, a, n * sizeof *a);
            int32_t want = plain_sample(&s, &p, (uint64_t)i);
            wrong += p.is_sure && got != want;
            n_sure += p.is_sure;
            shuffle(a, n);
            moved += got != sample(&s, a, n, 5, (uint64_t)i);
        }
        tap_ok(!wrong && !moved && n_sure > rounds / 2,
               "logits of kind %d: of %d choices %d differ from the definitions', %d in "
               "another order; %d are sure",
               kind, rounds, wrong, moved, n_sure);
    }
    free(a);
    free(b);
    free(q);
}

static void test_penalties(void) {
    static struct adjust a;
    struct sampler s = {.last_n = 3, .repeat = 2, .presence = 0.5F, .frequency = 0.25F};
    const int32_t seen[6] = {8, 8, 9, 4, 9, 4};
    struct candidate c[4] = {{8, 4, 0}, {9, 2, 0}, {4, -1, 0}, {1, -1.5F, 0}};
    s.n_bias = 2;
    s.bias[0] = (struct bias){1, 3};
    s.bias[1] = (struct bias){9, -1};
    adjust_make(&a, &s, seen, 6);
    sample_adjust(&s, &a, c, 4);
    qsort(c, 4, sizeof *c, by_logit);
    bool ok = c[0].id == 8 && c[0].logit == 4 && c[1].id == 1 && c[1].logit == 1.5F;
    ok = ok && c[2].id == 9 && c[2].logit == 0.5F - 0.75F && c[3].id == 4 && c[3].logit == -3;
    tap_ok(ok, "penalties of a window of three, bias before them");
    tap_ok(a.n == 3 && adjust_find(&a, 1)->is_raised && !adjust_find(&a, 9)->is_raised &&
               !adjust_find(&a, 8),
           "known: which tokens change, and which may rise");
}

static void test_sample(void) {
    struct candidate base[4] = {{7, 2, 0}, {3, 1.5F, 0}, {9, 1, 0}, {1, -1, 0}}, c[4];
    double sum = 0, e[4], chi = 0;
    int hits[4] = {0}, n = 100000;
    struct sampler s = {.temp = 1, .top_p = 1, .seed = 42};
    for (int i = 0; i < 4; i++) sum += e[i] = exp((double)base[i].logit);
    for (int i = 0; i < n; i++) {
        memcpy(c, base, sizeof c);
        int32_t id = sample(&s, c, 4, 5, (uint64_t)i);
        for (int k = 0; k < 4; k++) hits[k] += base[k].id == id;
    }
    for (int i = 0; i < 4; i++) {
        double want = n * e[i] / sum;
        chi += (hits[i] - want) * (hits[i] - want) / want;
    }
    tap_ok(chi < 16.3, "draws follow the distribution: chi square %.2f with 3 degrees", chi);
    s.temp = 1e-40F;
    memcpy(c, base, sizeof c);
    bool low = sample(&s, c, 4, 1, 1) == 7;
    s.temp = 0;
    memcpy(c, base, sizeof c);
    tap_ok(low && sample(&s, c, 4, 1, 1) == 7, "no or next to no temperature: the largest");
    s = (struct sampler){.temp = 5, .top_k = 1, .top_p = 1};
    memcpy(c, base, sizeof c);
    tap_ok(sample(&s, c, 4, 1, 1) == 7, "top-k 1 is greedy at any temperature");
    int differ = 0;
    s = (struct sampler){.temp = 1, .top_p = 1, .seed = 9};
    for (uint64_t i = 0; i < 100; i++) {
        struct candidate d[4];
        memcpy(c, base, sizeof c);
        memcpy(d, base, sizeof d);
        int32_t a = sample(&s, c, 4, 1, i), b = sample(&s, d, 4, 1, i);
        differ += a != b;
        memcpy(d, base, sizeof d);
        differ += (a != sample(&s, d, 4, 2, i)) << 8;
    }
    tap_ok(!(differ & 255) && differ >> 8 > 20, "a place draws the same twice; sequences differ");
}

/* One number for the bits of all probabilities and choices: the same on every machine. */
static void test_bits(void) {
    enum { N = 500 };
    static struct candidate c[N];
    struct sampler s = {.temp = 0.8F, .top_k = 100, .top_p = 0.95F, .min_p = 0.01F, .seed = 3};
    uint64_t digest = 14695981039346656037ULL;
    seed = 11;
    for (uint64_t round = 0; round < 200; round++) {
        for (int32_t i = 0; i < N; i++) {
            c[i] = (struct candidate){.id = i, .logit = (float)(rnd() % 65536) / 4096.0F};
        }
        size_t n = sample_top_k(c, N, s.top_k);
        uint32_t id = (uint32_t)sample(&s, c, n, round % 7, round);
        for (size_t i = 0; i < n; i++) {
            uint32_t p;
            memcpy(&p, &c[i].p, sizeof p);
            digest = (digest ^ p ^ (uint64_t)id << 32) * 1099511628211;
        }
    }
    tap_ok(digest == 0xc6a3c938ab5e1f06, "the bits of 200 draws are %016llx",
           (unsigned long long)digest);
}

static void test_options(void) {
    struct err e = {0};
    struct sampler s = {.temp = 0.8F, .top_k = 40, .top_p = 0.95F, .min_p = 0.05F};
    tap_ok(sampler_check(&s, &e) && sampler_needs(&s, BIG) == 40 && sampler_needs(&s, 7) == 7,
           "usual options pass; top-k says what is needed");
    s.top_k = 0;
    tap_ok(sampler_needs(&s, BIG) == BIG, "without top-k all are needed");
    s.temp = 0;
    tap_ok(sampler_needs(&s, BIG) == 1, "greedy needs one");
    struct sampler bad[] = {{.temp = NAN},
                            {.temp = 1e9F},
                            {.top_p = NAN},
                            {.top_p = -1},
                            {.min_p = 2},
                            {.min_p = NAN},
                            {.typical = NAN},
                            {.typical = 2},
                            {.repeat = 1e-9F},
                            {.repeat = INFINITY},
                            {.presence = NAN},
                            {.frequency = -1e30F},
                            {.last_n = -1},
                            {.last_n = SAMPLER_WINDOW + 1},
                            {.top_n_sigma = NAN},
                            {.temp_range = INFINITY},
                            {.temp_exponent = -1},
                            {.n_bias = 1, .bias = {{-1, 1}}},
                            {.n_bias = 1, .bias = {{1, NAN}}},
                            {.n_bias = 1, .bias = {{1, INFINITY}}},
                            {.n_bias = 1, .bias = {{1, -1001}}}};
    bool all = true;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        all &= !sampler_check(&bad[i], &e) && e.code == ERR_USAGE;
    }
    s.n_bias = SAMPLER_BIAS + 1;
    all &= !sampler_check(&s, &e) && e.code == ERR_LIMIT;
    tap_ok(all, "values out of range are refused: %s", e.text);
}

static double cpu_ms(void) {
    struct timespec ts;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
    return 1e3 * (double)ts.tv_sec + 1e-6 * (double)ts.tv_nsec;
}

static void test_speed(void) {
    struct candidate *a = calloc(BIG, sizeof *a);
    struct sampler s = {.temp = 1, .top_p = 1};
    double top = 1e9, all = 1e9;
    bool is_drawn = true;
    for (int round = 0; round < 5; round++) {
        fill(a, BIG, 6);
        double from = cpu_ms();
        sample_top_k(a, BIG, 40);
        double took = cpu_ms() - from;
        if (took < top) top = took;
        fill(a, BIG, 6);
        from = cpu_ms();
        is_drawn = sample(&s, a, BIG, 0, 0) >= 0 && is_drawn;
        took = cpu_ms() - from;
        if (took < all) all = took;
    }
    /* The goals are 1 ms and 4 ms on a plain build; sanitizers and emulators get room. */
    tap_ok(top < 50, "top-k 40 of %d in %.2f ms", BIG, top);
    tap_ok(is_drawn && all < 1000, "a draw from all %d in %.2f ms", BIG, all);
    free(a);
}

int main(void) {
    test_philox();
    test_weights();
    test_order();
    test_steps();
    test_typical();
    test_plain();
    test_penalties();
    test_sample();
    test_bits();
    test_options();
    test_speed();
    return tap_done();
}
