/* test_tune.c - which number of threads is taken, by rates of machines that were measured and of made-up
 * ones; then a measurement here. */
#include "base/clock.h"
#include "model/model.h"
#include "tap.h"
#include "tune.h"

#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static void expect_counts(unsigned n_thread, const char *want) {
    unsigned count[TUNE_COUNTS];
    unsigned n = tune_counts(n_thread, count);
    char text[64] = "";
    size_t len = 0;
    for (unsigned i = 0; i < n; i++) {
        len += (size_t)snprintf(text + len, sizeof text - len, "%s%u", i ? " " : "", count[i]);
    }
    tap_ok(strcmp(text, want) == 0, "of %u threads: %s", n_thread, text);
}

static void expect_choice(unsigned want, const char *what, unsigned n, const double *bps) {
    unsigned got = tune_choose(bps, n);
    tap_ok(got == want, "%s: the number at place %u", what, got);
}

static void test_choice(void) {
    expect_counts(1, "1");
    expect_counts(2, "2 1");
    expect_counts(3, "3 2 1");
    expect_counts(4, "4 3 2 1");
    expect_counts(6, "6 4 3 1");
    expect_counts(16, "16 12 8 4 1");
    expect_counts(256, "256 192 128 64 1");

    expect_choice(0, "one thread", 1, (double[]){5e9});
    expect_choice(2, "a Pi 5: two are faster than four", 4,
                  (double[]){11.6e9, 12.4e9, 13.2e9, 9.3e9});
    expect_choice(1, "three as fast as two: three", 4, (double[]){11.6e9, 13.0e9, 13.2e9, 9.3e9});
    expect_choice(0, "each adds its own", 4, (double[]){4e9, 3e9, 2e9, 1e9});
    expect_choice(0, "all alike but for noise", 4, (double[]){10e9, 10.2e9, 9.9e9, 10.1e9});
    expect_choice(3, "a matrix in the cache, so small that waking others costs more", 4,
                  (double[]){1e9, 1e9, 1.2e9, 2e9});
    expect_choice(0, "no rate at all", 2, (double[]){0, 0});
}

static bool is_sane(const struct tune *t, unsigned n) {
    bool ok = t->n == n && t->best < n && t->rest_s > 0 && t->rest_s < 1 && t->stream_bps > 1e5;
    ok = ok && t->lasting_bps > 1e5 && t->lasting_bps <= 1.01 * t->bps[t->best];
    for (unsigned i = 0; i < t->n; i++) ok = ok && t->bps[i] > 1e6 && t->bps[i] < 1e13;
    return ok;
}

/* The least of several: what else the machine does only adds. */
static double least_rest(struct tune_conf *c, uint32_t n_pos) {
    struct tune t;
    struct err e;
    double least = 1e9;
    c->n_pos = n_pos;
    for (int i = 0; i < 8; i++) {
        if (!tune_measure(c, &t, &e)) return 0;
        if (t.rest_s < least) least = t.rest_s;
    }
    return least;
}

static unsigned n_apart;

static void norm_apart(float *y, const float *x, const float *w, size_t n, float eps) {
    (void)eps;
    for (size_t i = 0; i < n; i++) y[i] = x[i] * w[i];
    n_apart++;
}

/* What attention was given: calls with keys of a type and stride that were not expected, and how far apart
 * the first and the last keys lie. */
static struct {
    struct attention want;
    float cap;
    atomic_uint n_call, n_other;
    atomic_uintptr_t low, high;
} given;

static void attend_noted(const struct query *query, size_t n, const void *k, const void *v,
                         const struct attention *a, float *room) {
    (void)n, (void)v, (void)room;
    uintptr_t at = (uintptr_t)k;
    given.n_call++;
    if (a->type != given.want.type || a->stride != given.want.stride) given.n_other++;
    if (a->softcap != given.cap || query->first != 0) given.n_other++;
    if (at < given.low) given.low = at;
    if (at > given.high) given.high = at;
}

/* Keys and values are measured as they are kept: their type, and as many layers as fit. */
static void expect_kept(struct tune_conf c, struct model *m, enum kv_type kv, const char *name) {
    struct kernels k = *c.kernels;
    struct tune t;
    struct err e = {0};
    size_t head = c.n_pos * kv_row_bytes(kv, m->head_dim), heads = m->n_layer * m->n_head_kv;
    k.attend = attend_noted;
    c.kernels = &k;
    c.kv = kv;
    c.is_fixed = true;
    c.n_thread = 1;
    m->attn_softcap = given.cap = 3;
    given.want = (struct attention){.type = kv, .stride = kv_row_values(kv, m->head_dim)};
    given.n_call = given.n_other = 0;
    given.low = UINTPTR_MAX;
    given.high = 0;
    bool ok = tune_measure(&c, &t, &e);
    m->attn_softcap = 0;
    tap_ok(ok && given.n_call && !given.n_other && given.high - given.low == (heads - 1) * head,
           "attention reads %s as it is kept, of all layers, with the cap: %u of %u calls do not, "
           "%zu heads %s",
           name, given.n_other, given.n_call, heads, e.text);
}

static void test_attention(struct tune_conf *c, struct model *m) {
    static struct layer_tensors near_ones[64];
    const struct layer_tensors *layers = m->layer;
    double near = least_rest(c, 100), far = least_rest(c, 5000);
    tap_ok(near > 0 && far > 2 * near, "far into a text: %.3f ms besides, not %.3f", far * 1e3,
           near * 1e3);
    if (!tap_ok(m->n_layer <= 64, "at most 64 layers")) return;
    for (uint32_t i = 0; i < m->n_layer; i++) {
        near_ones[i] = layers[i];
        near_ones[i].is_local = true;
    }
    m->layer = near_ones;
    m->window = 100;
    double local = least_rest(c, 5000);
    m->layer = layers;
    m->window = 0;
    tap_ok(local > 0 && far > 1.5 * local, "there, in layers that see the last 100: %.3f ms",
           local * 1e3);
    c->n_pos = 100;
    expect_kept(*c, m, KV_F32, "F32");
    expect_kept(*c, m, KV_F16, "F16");
    expect_kept(*c, m, KV_Q8_0, "Q8_0");
}

static struct tune_conf conf_here(const struct kernels *k, const struct model *m) {
    static const struct par_places nowhere = {0};
    return (struct tune_conf){.kernels = k,
                              .model = m,
                              .type = W_Q8_0,
                              .kv = KV_F16,
                              .n_thread = 2,
                              .places = &nowhere,
                              .bytes = m->data_len,
                              .memory = 64 << 20,
                              .n_pos = 100};
}

static void test_here(struct model *m) {
    struct kernels k;
    struct err e = {0};
    struct tune t;
    kernels_init(&k, cpu_features());
    struct tune_conf c = conf_here(&k, m);
    double begin = clock_s();
    bool ok = tune_measure(&c, &t, &e);
    double took = clock_s() - begin;
    tap_ok(ok && is_sane(&t, 2) && took < 5,
           "the demo model: %.2f GB/s with 2, %.2f with 1, %.3f ms besides, in %.2f s %s",
           t.bps[0] * 1e-9, t.bps[1] * 1e-9, t.rest_s * 1e3, took, e.text);
    c.is_fixed = true;
    tap_ok(tune_measure(&c, &t, &e) && is_sane(&t, 1), "so many were asked for: no other is tried");
    test_attention(&c, m);
    c.is_fixed = false;
    c.bytes = 256 << 20;
    begin = clock_s();
    ok = tune_measure(&c, &t, &e);
    took = clock_s() - begin;
    tap_ok(ok && took > 0.5 && t.lasting_bps > 1e5, "a large model: half a second more, %.2f s",
           took);
    c.bytes = m->data_len;
    k.rmsnorm = norm_apart;
    tap_ok(tune_measure(&c, &t, &e) && n_apart == 0,
           "a norm is timed as it runs: with its rounding");
    c.memory = 4096;
    tap_ok(tune_measure(&c, &t, &e) && t.rest_s == 0,
           "in 4 KiB nothing is measured but a few rows");
    c.n_thread = PAR_MAX + 1;
    tap_ok(!tune_measure(&c, &t, &e), "more threads than can be: %s", e.text);
}

int main(void) {
    static struct model m;
    struct err e = {0};
    const char *path = getenv("DAIR_DEMO");
    if (!path) path = "overlay/usr/share/dair/demo.gguf";
    test_choice();
    if (tap_ok(model_open(&m, path, 0, 0, &e), "the demo model %s", e.text)) {
        test_here(&m);
        model_close(&m);
    }
    return tap_done();
}
