/* Choosing from what was asked for must choose what the whole vocabulary gives: random logits, samplers
 * and histories, the candidates brought as a cluster brings them, against a plain walk over all. */
#include "model/picker.h"
#include "tap.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { VOCAB = 3000, SEEN = 300 };

static uint64_t seed = 5;

static uint32_t rnd(void) {  // xorshift64*, Vigna 2016
    seed ^= seed >> 12, seed ^= seed << 25, seed ^= seed >> 27;
    return (uint32_t)((seed * 0x2545F4914F6CDD1DULL) >> 32);
}

static float logit[VOCAB];
static int32_t seen[SEEN];

/* All, in order. */
static size_t everything(struct candidate *c) {
    size_t n = 0;
    for (int32_t i = 0; i < VOCAB; i++) {
        if (!isnan(logit[i])) c[n++] = (struct candidate){.id = i, .logit = logit[i]};
    }
    sample_sort(c, n);
    return n;
}

static size_t bring(const struct want *w, struct candidate *c) {
    size_t n = everything(c);
    if (w->k < n) n = w->k;
    for (uint32_t i = 0; i < w->n_id; i++) {
        c[n++] = (struct candidate){.id = w->id[i], .logit = logit[w->id[i]]};
    }
    return n;
}

/* What the definitions say, without a thought for what is needed. */
static int32_t by_all(const struct sampler *s, size_t n_seen, uint64_t position) {
    static struct candidate c[VOCAB];
    size_t n = everything(c), from = 0;
    if (n_seen > (size_t)s->last_n) from = n_seen - (size_t)s->last_n;
    for (size_t i = 0; i < n; i++) {
        uint32_t count = 0;
        for (uint32_t b = 0; b < s->n_bias; b++) {
            if (s->bias[b].id == c[i].id) c[i].logit += s->bias[b].value;
        }
        for (size_t k = from; k < n_seen; k++) count += seen[k] == c[i].id;
        if (!count) continue;
        c[i].logit = c[i].logit > 0 ? c[i].logit / s->repeat : c[i].logit * s->repeat;
        c[i].logit -= (float)count * s->frequency + s->presence;
    }
    sample_sort(c, n);
    return sample(s, c, n, 3, position);
}

static float some(float from, float to) {
    return from + (to - from) * (float)(rnd() % 1000) / 1000.0F;
}

static void invent(struct sampler *s) {
    *s = (struct sampler){.temp = rnd() % 3 ? some(0.1F, 3) : 0,
                          .top_k = rnd() % 4 ? (int32_t)(rnd() % 60) + 1 : 0,
                          .top_p = rnd() % 2 ? 1 : some(0.5F, 1),
                          .min_p = rnd() % 2 ? 0 : some(0, 0.2F),
                          .seed = rnd(),
                          .typical = rnd() % 2 ? 0 : some(0.1F, 1),
                          .repeat = rnd() % 3 ? some(1, 2) : some(0.5F, 1),
                          .presence = rnd() % 3 ? some(0, 2) : some(-2, 0),
                          .frequency = rnd() % 3 ? some(0, 1) : some(-1, 0),
                          .last_n = (int32_t)(rnd() % 100),
                          .temp_range = rnd() % 3 ? 0 : some(0, 1),
                          .temp_exponent = some(0, 2)};
    if (rnd() % 5 == 0) s->top_n_sigma = some(0.1F, 4);
    if (rnd() % 2) return;
    s->n_bias = rnd() % 20;
    for (uint32_t i = 0; i < s->n_bias; i++) {
        s->bias[i] = (struct bias){(int32_t)(rnd() % VOCAB), some(-8, 8)};
    }
}

static int32_t by_picker(struct picker *p, size_t n_seen, uint64_t position, uint32_t *most) {
    static struct candidate c[VOCAB];
    struct err e;
    int32_t id = -1;
    picker_begin(p, seen, n_seen);
    *most = p->want.k + p->want.n_id;
    while (id < 0) {
        if (*most > VOCAB) return -1;
        if (!picker_next(p, c, bring(&p->want, c), 3, position, &id, &e)) return -1;
    }
    return id;
}

static void test_exact(void) {
    static struct picker p;
    int wrong = 0, few = 0, rounds = 2000;
    for (int i = 0; i < rounds; i++) {
        struct sampler s;
        struct err e = {0};
        uint32_t most = 0;
        invent(&s);
        bool is_flat = rnd() % 8 == 0;  // many ties
        for (int k = 0; k < VOCAB; k++) logit[k] = is_flat ? (float)(rnd() % 4) : some(-8, 12);
        for (int k = 0; k < SEEN; k++) seen[k] = (int32_t)(rnd() % (rnd() % 2 ? 40 : VOCAB));
        size_t n_seen = rnd() % SEEN;
        picker_init(&p, &s, VOCAB);
        int32_t want = by_all(&s, n_seen, (uint64_t)i);
        int32_t got = by_picker(&p, n_seen, (uint64_t)i, &most);
        wrong += got != want || !sampler_check(&s, &e);
        few += most < VOCAB / 4;
    }
    tap_ok(!wrong && few > rounds / 2,
           "%d of %d choices differ from the whole vocabulary's, %d "
           "of them made without it",
           wrong, rounds, few);
}

static void test_numbers(void) {
    static struct picker p;
    struct sampler s = {.temp = 1, .top_k = 5, .top_p = 1};
    struct err e = {0};
    uint32_t most;
    int32_t id;
    for (int k = 0; k < VOCAB; k++) logit[k] = NAN;
    logit[17] = -3;
    picker_init(&p, &s, VOCAB);
    tap_ok(by_picker(&p, 0, 0, &most) == 17, "one number among them is the choice");
    tap_ok(!picker_next(&p, NULL, 0, 0, 0, &id, &e) && e.code == ERR_FORMAT, "none: %s", e.text);
}

int main(void) {
    test_exact();
    test_numbers();
    return tap_done();
}
