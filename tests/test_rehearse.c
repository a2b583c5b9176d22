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

static bool is_near(double a, double b) {
    return a > b - 1e-9 && a < b + 1e-9;
}

static bool is_sane(double times) {
    return times > 0.001 && times < 1000 && times != 1;
}

/* The disk is no limit: waits alone count, not how fast the rest was. */
static bool is_wait(const struct rehearsed *h) {
    return is_near(h->times, 1) && h->extra_s >= 0 && h->extra_s < 1;
}

/* Of 1000 bytes of experts, of which a token is sent to 200; 50 others stream. */
static struct nn_memory routed(uint64_t missing) {
    return (struct nn_memory){.sweep_bytes = 1500,
                              .token_bytes = 700,
                              .weight_bytes = 1500,
                              .expert_bytes = 1000,
                              .disk_bytes = 50 + missing / 5,
                              .tiles = {.streamed_bytes_per_sweep = 50, .missing_bytes = missing}};
}

static void test_learned(void) {
    struct nn_memory m = routed(400);
    const struct rehearsed no = {0}, even = {.times = 2, .skew = 1}, uneven = {.skew = 2};
    struct forecast plain, f;
    tap_ok(is_near(rehearsed_hits(&no, &m), 0.6) && is_near(rehearsed_hits(&even, &m), 0.6),
           "chosen evenly, or not tried: as many hits as have a place");
    tap_ok(rehearsed_bytes(&no, &m) == 130 && rehearsed_bytes(&even, &m) == 130,
           "and as many bytes as that");
    tap_ok(is_near(rehearsed_hits(&uneven, &m), 0.84) && rehearsed_bytes(&uneven, &m) == 82,
           "some oftener than others: fewer are missed, %.2f, and read",
           rehearsed_hits(&uneven, &m));
    engine_forecast(&m, &FAST, &plain);
    rehearsed_forecast(&no, &m, &FAST, &f);
    tap_ok(is_near(f.decode_tps, plain.decode_tps), "not tried: the arithmetic alone");
    rehearsed_forecast(&even, &m, &FAST, &f);
    tap_ok(is_near(f.decode_tps * 2, plain.decode_tps), "twice as long: half as fast");
    const struct rehearsed later = {.times = 2, .extra_s = 0.25, .skew = 1};
    rehearsed_forecast(&later, &m, &FAST, &f);
    tap_ok(is_near(1 / f.decode_tps, 1 / plain.decode_tps + 0.25),
           "so much longer where the disk was not the limit: as much, however long a token takes");
    rehearsed_forecast(&uneven, &m, &FAST, &f);
    tap_ok(f.disk_s < plain.disk_s, "fewer missed: less time of the disk");
    m = routed(0);
    struct rates slow = FAST;
    slow.disk_bps = 1e3;
    struct forecast none;
    struct nn_memory some = routed(400);
    engine_forecast(&m, &slow, &none);
    engine_forecast(&some, &slow, &f);
    tap_ok(is_near(1 / f.decode_tps, 1 / none.decode_tps + 0.08) && is_near(f.disk_s, 0.13),
           "what streams is read meanwhile, experts missed are waited for");
    tap_ok(is_near(rehearsed_hits(&uneven, &m), 1) && rehearsed_bytes(&uneven, &m) == 50,
           "where all have a place none is missed");
    m = routed(1000);
    tap_ok(is_near(rehearsed_hits(&uneven, &m), 0) && rehearsed_bytes(&uneven, &m) == 250,
           "where none has one all are");
    m = (struct nn_memory){.sweep_bytes = 9, .token_bytes = 9, .weight_bytes = 9, .disk_bytes = 4};
    tap_ok(rehearsed_bytes(&even, &m) == 4, "without experts what streams is read");
    m.disk_bytes = 0;
    engine_forecast(&m, &FAST, &plain);
    rehearsed_forecast(&even, &m, &FAST, &f);
    tap_ok(is_near(f.decode_tps, plain.decode_tps),
           "all in memory: what the disk cost is no matter");
}

static void test_skew(void) {
    tap_ok(is_near(rehearsed_skew(0.9, 20, 200, 0), 1) &&
               is_near(rehearsed_skew(0.9, 20, 200, 8), 1),
           "as many missed as have no place: chosen evenly, however much is told before");
    tap_ok(is_near(rehearsed_skew(0.9, 2, 200, 0), 2), "a tenth of them: skewed by two");
    double few = rehearsed_skew(0.9, 2, 200, 8), many = rehearsed_skew(0.9, 2000, 200000, 8);
    tap_ok(few > 1 && few < 1.6 && many > 1.99 && many < 2,
           "few choices tell little, %.2f, many all, %.3f", few, many);
    double none = rehearsed_skew(0.9, 0, 100, 8);
    tap_ok(none > 1 && none < 2, "none missed of a hundred: %.2f", none);
    tap_ok(rehearsed_skew(0.9, 0, 100, 0) > 1e9, "taken by itself: none ever");
    tap_ok(is_near(rehearsed_skew(0.5, 10, 10, 0), 1) && is_near(rehearsed_skew(1, 0, 10, 8), 1) &&
               is_near(rehearsed_skew(0, 10, 10, 8), 1),
           "all missed, or a place for all or none: as even");
    const struct rehearsed warm = {.skew = rehearsed_skew(0.6, 30, 100, 0)};
    const struct nn_memory m = routed(400);
    tap_ok(is_near(rehearsed_hits(&warm, &m), 0.7), "what was missed is missed again: %.2f hit",
           rehearsed_hits(&warm, &m));
}

static void test_runs(const struct model *m, const struct kernels *k) {
    struct engine_conf c = conf_of(m, k);
    struct nn_memory whole;
    struct err e = {0};
    struct rehearsed h = {0};
    c.budget = NN_PLENTY;
    bool ok = engine_measure(&c, &whole, &e);
    c.budget = whole.min_budget + whole.weight_bytes / 2;
    ok = ok && engine_measure(&c, &whole, &e) && whole.disk_bytes > 0;
    const struct engine_conf half = c;
    tap_ok(ok, "about half of the demo model streams %s", e.text);
    struct rates disk = FAST;
    disk.disk_bps = 1e8;
    ok = rehearse(&c, &whole, &disk, &h, &e);
    tap_ok(ok && is_sane(h.times) && !(h.extra_s > 0),
           "it ran: %.2f times as long as made-up rates say %s", h.times, e.text);
    ok = rehearse(&c, &whole, &FAST, &h, &e);
    tap_ok(ok && is_wait(&h), "with a disk as fast: it waits %.3f ms a token %s", h.extra_s * 1e3,
           e.text);
    c.n_ctx = 14;
    ok = engine_measure(&c, &whole, &e) && rehearse(&c, &whole, &disk, &h, &e);
    tap_ok(ok && is_sane(h.times), "in a short context: %.2f %s", h.times, e.text);
    c.n_ctx = 1;
    ok = engine_measure(&c, &whole, &e) && rehearse(&c, &whole, &FAST, &h, &e);
    tap_ok(ok && !(h.times > 0), "in one of a single token it is not tried %s", e.text);
    c = half;
    c.n_slice = 2;
    c.share[1] = 1;
    c.budget += whole.min_budget;
    ok = engine_measure(&c, &whole, &e) && whole.disk_bytes > 0 &&
         rehearse(&c, &whole, &disk, &h, &e);
    tap_ok(ok && is_sane(h.times), "in two slices: %.2f %s", h.times, e.text);
    c = half;
    ok = engine_measure(&c, &whole, &e);
    tap_ok(ok, "the half again %s", e.text);
    struct rates slow = FAST;
    slow.disk_bps = 1e4;
    double begin = clock_s();
    ok = rehearse(&c, &whole, &slow, &h, &e);
    tap_ok(ok && !(h.times > 0) && clock_s() - begin < 1, "with a disk so slow it is not tried");
    c.budget = whole.min_budget / 2;
    tap_ok(!rehearse(&c, &whole, &FAST, &h, &e), "too little memory: %s", e.text);
}

int main(void) {
    static struct model m;
    struct kernels k;
    struct err e = {0};
    const char *path = getenv("DAIR_DEMO");
    if (!path) path = "overlay/usr/share/dair/demo.gguf";
    test_learned();
    test_skew();
    kernels_init(&k, cpu_features());
    if (tap_ok(model_open(&m, path, 0, 0, &e), "the demo model %s", e.text)) {
        test_runs(&m, &k);
        model_close(&m);
    }
    return tap_done();
}
