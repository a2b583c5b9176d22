/* test_rehearse.c - the short run before a forecast: that it runs what was asked for, in its memory, and
 * that it is left out where it would take long. How near forecasts come is what `make bench` shows. */
#include "base/clock.h"
#include "rehearse.h"
#include "tap.h"

#include <stdlib.h>

static const struct rates FAST = {
    .compute_bps = 1e9, .stream_bps = 1e9, .rest_s = 1e-4, .disk_bps = 1e9};

static struct engine_conf conf_of(const struct model *m, const struct kernels *k) {
    return (struct engine_conf){.model = m,
                                .kernels = k,
                                .n_slice = 1,
                                .share = {1},
                                .n_ctx = 64,
                                .n_batch = 4,
                                .spec = SPEC_OFF,
                                .kv = KV_F16,
                                .wire = WIRE_Q16,
                                .n_thread = 2,
                                .n_reader = 1,
                                .n_slot = 2};
}

static bool is_sane(double times) {
    return times > 0.001 && times < 1000 && times != 1;
}

static void test_runs(const struct model *m, const struct kernels *k) {
    struct engine_conf c = conf_of(m, k);
    struct nn_memory whole;
    struct err e = {0};
    double times = 0;
    c.budget = NN_PLENTY;
    bool ok = engine_measure(&c, &whole, &e);
    c.budget = whole.min_budget + whole.weight_bytes / 2;
    ok = ok && engine_measure(&c, &whole, &e) && whole.disk_bytes > 0;
    const struct engine_conf half = c;
    tap_ok(ok, "about half of the demo model streams %s", e.text);
    ok = rehearse(&c, &whole, &FAST, &times, &e);
    tap_ok(ok && is_sane(times), "it ran: %.2f times as long as made-up rates say %s", times,
           e.text);
    c.n_ctx = 14;
    ok = engine_measure(&c, &whole, &e) && rehearse(&c, &whole, &FAST, &times, &e);
    tap_ok(ok && is_sane(times), "in a short context: %.2f %s", times, e.text);
    c.n_ctx = 1;
    ok = engine_measure(&c, &whole, &e) && rehearse(&c, &whole, &FAST, &times, &e);
    tap_ok(ok && times == 1, "in one of a single token it is not tried %s", e.text);
    c = half;
    c.n_slice = 2;
    c.share[1] = 1;
    c.budget += whole.min_budget;
    ok = engine_measure(&c, &whole, &e) && whole.disk_bytes > 0 &&
         rehearse(&c, &whole, &FAST, &times, &e);
    tap_ok(ok && is_sane(times), "in two slices: %.2f %s", times, e.text);
    c = half;
    ok = engine_measure(&c, &whole, &e);
    tap_ok(ok, "the half again %s", e.text);
    struct rates slow = FAST;
    slow.disk_bps = 1e4;
    double begin = clock_s();
    ok = rehearse(&c, &whole, &slow, &times, &e);
    tap_ok(ok && times == 1 && clock_s() - begin < 1, "with a disk so slow it is not tried");
    c.budget = whole.min_budget / 2;
    tap_ok(!rehearse(&c, &whole, &FAST, &times, &e), "too little memory: %s", e.text);
}

int main(void) {
    static struct model m;
    struct kernels k;
    struct err e = {0};
    const char *path = getenv("DAIR_DEMO");
    if (!path) path = "overlay/usr/share/dair/demo.gguf";
    kernels_init(&k, cpu_features());
    if (tap_ok(model_open(&m, path, 0, 0, &e), "the demo model %s", e.text)) {
        test_runs(&m, &k);
        model_close(&m);
    }
    return tap_done();
}
