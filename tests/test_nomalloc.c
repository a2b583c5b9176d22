/* The token path allocates nothing: between the first token of an answer and its last, no call of
 * malloc and its kin, not even from inside the C library. Linked with --wrap (see the Makefile). */
#include "engine/engine.h"
#include "kernels.h"
#include "mesh_maker.h"
#include "model/synth.h"
#include "tap.h"

#include <stdatomic.h>

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);

static atomic_bool watching;
static atomic_uint calls;

static void count(void) {
    if (atomic_load(&watching)) atomic_fetch_add(&calls, 1);
}

void *__wrap_malloc(size_t n) {
    count();
    return __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t size) {
    count();
    return __real_calloc(n, size);
}

void *__wrap_realloc(void *p, size_t n) {
    count();
    return __real_realloc(p, n);
}

enum { N_PREDICT = 24 };

static bool watch(void *ctx, int32_t id) {
    unsigned *n = ctx;
    (void)id;
    atomic_store(&watching, ++*n < N_PREDICT);  // the last token ends the answer
    return true;
}

static struct model draft;  // of no layers: none
static double draft_keep;

static void check(const struct model *m, const struct kernels *k, unsigned n_slice, uint64_t budget,
                  float temp, const char *what) {
    struct engine_conf c = {.model = m,
                            .kernels = k,
                            .n_slice = n_slice,
                            .n_ctx = 128,
                            .n_batch = 8,
                            .n_thread = 2,
                            .budget = budget,
                            .n_reader = 2,
                            .n_slot = 3};
    for (unsigned i = 0; i < n_slice; i++) c.share[i] = 1;
    if (draft.n_layer) {
        c.draft = &draft;
        c.draft_keep = draft_keep;
        c.spec = SPEC_DRAFT;
        c.n_guess = 4;
    }
    unsigned n = 0;
    int32_t prompt[] = {1, 2, 3, 4};
    struct gen_request q = {.prompt = prompt,
                            .n_prompt = 4,
                            .n_predict = N_PREDICT,
                            .sampler = {.temp = temp, .top_k = 0, .top_p = 0.9F, .seed = 1},
                            .on_token = watch,
                            .ctx = &n};
    struct gen_result out;
    struct engine *g = NULL;
    struct err e = {0};
    atomic_store(&calls, 0);
    bool ok = engine_open(&g, &c, &e) && engine_load(g, NULL, NULL, &e) &&
              engine_generate(g, &q, &out, &e);
    atomic_store(&watching, false);
    tap_ok(ok && n == N_PREDICT, "%s: %u tokens %s", what, n, ok ? "" : e.text);
    tap_ok(!atomic_load(&calls), "%s: %u allocations", what, atomic_load(&calls));
    if (ok && draft_keep > 0)
        tap_ok(out.gave_up && out.grown_bytes, "%s: and it was given up", what);
    engine_close(g);
}

/* --- gathers over secure channels: once the widest message has been --- */

enum { PART = 64 * sizeof(struct act), ROWS = 40, GATHERS = 60, WARM = 3 };

static void *gathers(void *ctx) {
    struct mesh *m = ctx;
    struct coll *c = mesh_coll(m);
    static uint8_t buf[2][ROWS * 2 * PART];
    const size_t at[SLICE_MAX + 1] = {0, PART, 2 * PART};
    struct err e;
    size_t ok = mesh_wait(m, &e);
    for (size_t i = 0; ok && i < GATHERS; i++) {
        if (i == WARM) atomic_store(&watching, true);
        ok = c->gather(c, COLL_ACT, buf[c->self], 2 * PART, i < WARM ? ROWS : 1 + i % ROWS, at, &e);
    }
    return ok ? m : NULL;
}

static void check_mesh(void) {
    struct mesh *m[2] = {0};
    struct err e;
    pthread_t t;
    void *other = NULL;
    if (!tap_ok(chan_init(&e) && mesh_make(m, 2, ROWS * PART, 0, &e), "two nodes")) return;
    atomic_store(&calls, 0);
    if (pthread_create(&t, NULL, gathers, m[1])) abort();
    bool ok = gathers(m[0]);
    atomic_store(&watching, false);
    pthread_join(t, &other);
    tap_ok(ok && other, "gathers over channels");
    tap_ok(!atomic_load(&calls), "gathers over channels: %u allocations", atomic_load(&calls));
    mesh_close(m[0]);
    mesh_close(m[1]);
}

/* Routing, runs of experts and passing over the others. */
static void check_experts(const struct kernels *k) {
    char path[] = "/tmp/nomalloc-XXXXXX";
    struct model m;
    struct err e = {0};
    int fd = mkstemp(path);
    const struct synth s = {"moe-tiny", "q8_0", path, 1};
    bool ok = fd >= 0 && synth_write(&s, NULL, NULL, &e) && model_open(&m, path, 0, 0, &e);
    if (tap_ok(ok, "a model with experts %s", e.text)) {
        check(&m, k, 1, 64 << 20, 0, "experts in memory");
        check(&m, k, 1, 5 << 20, 0, "experts streaming");
        check(&m, k, 3, 64 << 20, 0, "experts, three slices");
        model_close(&m);
    }
    if (fd >= 0) close(fd);
    unlink(path);
}

int main(void) {
    static struct model m;
    struct kernels k;
    struct err e;
    const char *path = getenv("DAIR_DEMO");
    if (!path) path = "overlay/usr/share/dair/demo.gguf";
    if (!model_open(&m, path, 0, 0, &e)) {
        tap_ok(false, "open %s: %s", path, e.text);
        return tap_done();
    }
    kernels_init(&k, cpu_features());
    atomic_store(&watching, true);
    void *volatile p = malloc(1);  // volatile: or the compiler drops the pair
    free(p);
    atomic_store(&watching, false);
    tap_ok(atomic_load(&calls) == 1, "the counter sees an allocation");
    check(&m, &k, 1, 64 << 20, 0, "in memory, greedy");
    check(&m, &k, 1, 64 << 20, 0.8F, "in memory, sampled from all logits");
    check(&m, &k, 1, 4 << 20, 0, "streaming");
    check(&m, &k, 3, 64 << 20, 0.8F, "three slices");
    draft = m;
    check(&m, &k, 1, 8 << 20, 0, "streaming, with a draft that is right");
    check(&m, &k, 1, 8 << 20, 0.8F, "the same, sampled");
    draft.n_layer = 1;
    draft_keep = 0.3;
    check(&m, &k, 1, 6 << 20, 0, "streaming, with a draft that does not pay");
    draft.n_layer = 0;
    draft_keep = 0;
    model_close(&m);
    check_experts(&k);
    check_mesh();
    return tap_done();
}
