/* test_setup.c - budgets: what is foretold of another budget is what a run with it does, whatever the budget
 * is that it is asked from; and a larger one does not keep fewer weights. */
#include "model/synth.h"
#include "setup.h"
#include "tap.h"

#include <stdlib.h>
#include <unistd.h>

#define MIB ((uint64_t)1 << 20)

static const double SLOW_DISK = 5e8, FAST_DISK = 5e9;  // bytes/s: two readers, four

static const struct {
    const char *shape, *type;
} model[] = {{"tiny", "q8_0"},
             {"tiny,layers=40", "q4_0"},
             {"llama-3.2-1b,layers=1,vocab=4096", "q4_0"},
             {"moe-tiny", "q8_0"},
             {"moe-small,layers=4", "q4_0"}};
enum { N_MODEL = sizeof model / sizeof *model };

static void fail(const struct err *e) {
    printf("Bail out! %s\n", e->text);
    exit(1);
}

/* As after setup_probe(), without measuring. */
static void fit(struct setup *s, uint64_t budget, double disk_bps) {
    struct machine m = MACHINE_DEFAULT;
    struct err e;
    m.memory.bytes = budget;
    m.threads = 1;
    m.pin = PIN_OFF;
    if (!setup_fit(s, &m, &e)) fail(&e);
    s->compute_bps = s->tune.stream_bps = 1e10;
    s->disk_bps = disk_bps;
}

static struct nn_memory at(const struct setup *s, uint64_t budget) {
    struct nn_memory m = {.sweep_bytes = 0};
    struct forecast f;
    (void)setup_at(s, budget, &m, &f);
    return m;
}

static bool is_same(const struct nn_memory *a, const struct nn_memory *b) {
    return a->disk_bytes == b->disk_bytes && a->scratch_bytes == b->scratch_bytes &&
           a->ring_bytes == b->ring_bytes && a->n_slot == b->n_slot &&
           a->embd_bytes == b->embd_bytes;
}

/* Of budgets from the least to one that holds all. */
static uint64_t finely(const struct setup *s) {
    uint64_t step = (s->in_ram - s->least) / 20;
    return step > MIB / 4 ? step : MIB / 4;
}

/* From a small budget, and from one that holds all, with the program as large. */
static void test_same(struct setup *s, const char *name) {
    unsigned n = 0, n_same = 0, n_run = 0;
    fit(s, 256 * MIB, FAST_DISK);
    struct setup from = *s;
    uint64_t small = s->least + (s->in_ram - s->least) / 3;
    fit(s, small, SLOW_DISK);
    tap_ok(s->in_ram <= from.in_ram + MIB && from.in_ram <= s->in_ram + MIB &&
               s->least <= from.least + MIB,
           "%s: from any budget the least is %u MiB and all is in memory from %u MiB", name,
           (unsigned)(s->least / MIB), (unsigned)(s->in_ram / MIB));
    uint64_t step = finely(s), most = s->in_ram + 4 * MIB;
    /* A MiB above the least, as the program may have grown by a page from one fit to the next. */
    for (uint64_t b = s->least + MIB; b <= most; b += step, n++) {
        fit(s, b, SLOW_DISK);
        s->budget = 0;  // of no importance for another
        from.program = s->program;
        from.disk_bps = SLOW_DISK;
        struct nn_memory there = at(&from, b);
        n_run += is_same(&there, &s->memory);
        struct nn_memory here = at(s, 2 * b), far = at(&from, 2 * b);
        n_same += is_same(&here, &far);
    }
    tap_ok(n > 8 && n_run == n, "%s: %u of %u budgets as a run would have them", name, n_run, n);
    tap_ok(n_same == n, "%s: %u of %u the same from another budget", name, n_same, n);
}

static double kept_of(const struct nn_memory *m) {
    return m->sweep_bytes ? (double)setup_kept(m) / (double)m->sweep_bytes : 0;
}

/* A step of the table. Between, a ring or a batch may begin that takes a part of what stays. */
static void test_steps(struct setup *s, const char *name, double disk_bps) {
    enum { STEPS = 5, OFFSETS = 4 };
    unsigned n_less = 0;
    double worst = 0;
    fit(s, 256 * MIB, disk_bps);
    uint64_t step = (s->in_ram - s->least) / STEPS;
    if (step < MIB) step = MIB;
    for (uint64_t i = 0; i < OFFSETS; i++) {
        double before = 0;
        for (uint64_t b = s->least + step * i / OFFSETS; b <= s->in_ram + step; b += step) {
            struct nn_memory m = at(s, b);
            double kept = kept_of(&m);
            n_less += kept < before;
            if (before - kept > worst) worst = before - kept;
            before = kept;
        }
    }
    tap_ok(!n_less, "%s, %s disk: no step of the table keeps less than the one before (%.3f)", name,
           disk_bps > 2e9 ? "fast" : "slow", worst);
    struct nn_memory all = at(s, s->in_ram);
    tap_ok(all.sweep_bytes && !all.disk_bytes, "%s: all is in memory with %u MiB", name,
           (unsigned)(s->in_ram / MIB));
}

/* A batch is for prompts, and every token of an answer pays for it. */
static void test_fine(struct setup *s, const char *name) {
    double most = 0, worst = 0;
    for (uint64_t b = s->least; b <= s->in_ram; b += finely(s)) {
        struct nn_memory m = at(s, b);
        double kept = kept_of(&m);
        if (kept > most) most = kept;
        if (most - kept > worst) worst = most - kept;
    }
    tap_ok(worst < 0.125, "%s: none keeps %.3f less than a smaller budget", name, worst);
}

/* What is set aside for texts is not given to anything else, and is given up where nothing else would work. */
static void test_text(struct setup *s, const char *name) {
    struct machine m = MACHINE_DEFAULT;
    struct err e;
    m.threads = 1;
    m.pin = PIN_OFF;
    uint64_t budget[] = {256 * MIB, s->least + MIB};  // the program may have grown by a page
    for (int i = 0; i < 2; i++) {
        m.memory.bytes = budget[i];
        if (!setup_budget(s, &m, &e)) fail(&e);
        uint64_t pool = s->pool;
        setup_keep_text(s, 200000);
        if (!setup_fit(s, &m, &e)) fail(&e);
        uint64_t len = setup_kept_text(s);
        if (i == 0) {
            tap_ok(len == 200000 && s->pool <= pool - len * TOK_BYTES + MIB, "%s: %u bytes of text",
                   name, (unsigned)len);
        } else {
            tap_ok(len >= TEXT_CHEAP, "%s: some bytes of text with the least", name);
        }
        s->text = 0;
    }
}

static void test_model(const char *path, const char *name) {
    struct setup s;
    struct err e;
    if (!setup_open(&s, path, NULL, MODEL_ALL, &e)) fail(&e);
    test_same(&s, name);
    test_text(&s, name);
    test_steps(&s, name, SLOW_DISK);
    test_steps(&s, name, FAST_DISK);
    test_fine(&s, name);
    setup_close(&s);
}

int main(void) {
    char dir[] = "/tmp/test_setup.XXXXXX", path[64];
    struct err e;
    if (!mkdtemp(dir)) return 1;
    snprintf(path, sizeof path, "%s/model.gguf", dir);
    for (int i = 0; i < N_MODEL; i++) {
        const struct synth s = {model[i].shape, model[i].type, path, 1};
        if (!synth_write(&s, NULL, NULL, &e)) fail(&e);
        test_model(path, model[i].shape);
        unlink(path);
    }
    rmdir(dir);
    return tap_done();
}
