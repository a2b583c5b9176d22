/* The token path allocates nothing: between the first token of an answer and its last, no call of
 * malloc and its kin, not even from inside the C library. Linked with --wrap (see the Makefile). */
#include "engine/engine.h"
#include "kernels.h"
#include "mesh_maker.h"
#include "model/synth.h"
#include "tap.h"

#include <math.h>
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

enum { N_PREDICT = 24, PLENTY = 64 << 20, LITTLE = 2 << 20 };

static bool watch(void *ctx, int32_t id) {
    unsigned *n = ctx;
    (void)id;
    atomic_store(&watching, ++*n < N_PREDICT);  // the last token ends the answer
    return true;
}

/* How an answer is made; of zeros: greedily, by one slice, with F32 keys and values, and nobody guesses. */
struct way {
    const char *what;
    unsigned n_slice;  // 0: one
    uint64_t budget;
    struct sampler sampler;
    enum kv_type kv;
    enum spec_kind spec;
    const struct model *draft;
    double draft_keep;  // above 0: it is not to pay
    const struct grammar *grammar;
    const struct lexicon *lexicon;
};

static struct engine_conf conf_of(const struct way *w, const struct model *m,
                                  const struct kernels *k) {
    struct engine_conf c = {.model = m,
                            .kernels = k,
                            .n_slice = w->n_slice ? w->n_slice : 1,
                            .n_ctx = 128,
                            .n_batch = 8,
                            .spec = w->spec,
                            .n_guess = w->spec ? 4 : 0,
                            .draft = w->draft,
                            .draft_keep = w->draft_keep,
                            .kv = w->kv,
                            .n_thread = 2,
                            .budget = w->budget,
                            .n_reader = 2,
                            .n_slot = 3};
    for (unsigned i = 0; i < c.n_slice; i++) c.share[i] = 1;
    return c;
}

static void check(const struct model *m, const struct kernels *k, const struct way *w) {
    static const int32_t prompt[] = {1, 2, 3, 4};
    struct engine_conf c = conf_of(w, m, k);
    unsigned n = 0;
    struct gen_request q = {.prompt = prompt,
                            .n_prompt = 4,
                            .n_predict = N_PREDICT,
                            .sampler = w->sampler,
                            .grammar = w->grammar,
                            .lexicon = w->lexicon,
                            .on_token = watch,
                            .ctx = &n};
    struct gen_result out;
    struct engine *g = NULL;
    struct err e = {0};
    atomic_store(&calls, 0);
    bool ok = engine_open(&g, &c, &e) && engine_load(g, NULL, NULL, &e) &&
              engine_generate(g, &q, &out, &e);
    atomic_store(&watching, false);
    tap_ok(ok && n == N_PREDICT, "%s: %u tokens %s", w->what, n, ok ? "" : e.text);
    tap_ok(!atomic_load(&calls), "%s: %u allocations", w->what, atomic_load(&calls));
    if (ok && w->budget < PLENTY)
        tap_ok(out.streamed_bytes > 0, "%s: %llu bytes read", w->what,
               (unsigned long long)out.streamed_bytes);
    if (ok && w->spec == SPEC_NGRAM)
        tap_ok(out.n_guessed > 0, "%s: %u guesses", w->what, out.n_guessed);
    if (ok && w->draft_keep > 0)
        tap_ok(out.gave_up && out.grown_bytes, "%s: and it was given up", w->what);
    engine_close(g);
}

/* --- what an answer may be asked --- */

/* All that changes a distribution; each token of the window, and of the answer, has a penalty. */
static const struct sampler everything = {.temp = 0.9F,
                                          .top_k = 400,
                                          .top_p = 0.95F,
                                          .min_p = 0.001F,
                                          .seed = 2,
                                          .typical = 0.97F,
                                          .repeat = 1.2F,
                                          .presence = 0.3F,
                                          .frequency = 0.2F,
                                          .last_n = 64,
                                          .temp_range = 0.3F,
                                          .temp_exponent = 1,
                                          .n_bias = 3,
                                          .bias = {{5, 2}, {6, -3}, {7, -INFINITY}}};
static const struct sampler drawn = {.temp = 0.8F, .top_p = 0.9F, .seed = 1};

static void check_plain(const struct model *m, const struct kernels *k) {
    const struct way ways[] = {
        {.what = "in memory, greedy", .budget = PLENTY},
        {.what = "in memory, sampled from all logits", .budget = PLENTY, .sampler = drawn},
        {.what = "streaming", .budget = LITTLE},
        {.what = "three slices", .n_slice = 3, .budget = PLENTY, .sampler = drawn},
    };
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) check(m, k, &ways[i]);
}

static void check_drafts(const struct model *m, const struct kernels *k) {
    struct model draft = *m;
    struct way w = {.budget = 8 << 20, .spec = SPEC_DRAFT, .draft = &draft};
    w.what = "streaming, with a draft that is right";
    check(m, k, &w);
    w.sampler = drawn;
    w.what = "the same, sampled";
    check(m, k, &w);
    draft.n_layer = 1;
    w.sampler = (struct sampler){0};
    w.draft_keep = 0.3;
    w.budget = 6 << 20;
    w.what = "streaming, with a draft that does not pay";
    check(m, k, &w);
}

static void check_samplers(const struct model *m, const struct kernels *k) {
    struct way w = {.budget = PLENTY, .sampler = everything};
    w.what = "penalties, bias, typical, temperature by entropy";
    check(m, k, &w);
    w.sampler.top_k = 0;
    w.sampler.top_n_sigma = 2;
    w.what = "the same of all logits, and top-n-sigma";
    check(m, k, &w);
    w.n_slice = 3;
    w.what = "the same, three slices";
    check(m, k, &w);
}

static void check_kv(const struct model *m, const struct kernels *k) {
    check(m, k, &(struct way){.budget = PLENTY, .kv = KV_F16, .what = "keys and values in F16"});
    check(m, k, &(struct way){.budget = PLENTY, .kv = KV_Q8_0, .what = "and in Q8_0"});
    check(m, k,
          &(struct way){.n_slice = 3,
                        .budget = 2 * LITTLE,
                        .kv = KV_Q8_0,
                        .what = "in Q8_0, three slices, streaming"});
}

/* A text that repeats itself, whatever the model, for its guesses to be checked: one token, or two of them by
 * lot. */
static void check_ngrams(const struct model *m, const struct kernels *k) {
    struct way w = {.budget = PLENTY, .sampler = drawn, .spec = SPEC_NGRAM};
    w.sampler.n_bias = 1;
    w.sampler.bias[0] = (struct bias){40, 1000};
    w.what = "n-grams, all right";
    check(m, k, &w);
    w.sampler.n_bias = 2;
    w.sampler.bias[1] = (struct bias){41, 1000};
    w.sampler.temp = 10;
    w.budget = LITTLE;
    w.what = "n-grams, streaming, some wrong";
    check(m, k, &w);
    w.budget = PLENTY;
    w.n_slice = 3;
    w.sampler.n_bias = 1;
    w.what = "n-grams, three slices";
    check(m, k, &w);
}

/* Neither ends within the answer; their states are made as the text goes on. */
static void check_grammars(const struct model *m, const struct kernels *k) {
    static const struct {
        enum grammar_kind kind;
        const char *text, *what;
    } held[] = {
        {GRAMMAR_GBNF, "root ::= list{90}\nlist ::= \"(\" (list | [a-z]+) (\",\" list)* \") \"",
         "held to a grammar"},
        {GRAMMAR_SCHEMA,
         "{\"type\":\"array\",\"minItems\":90,\"items\":{\"type\":\"object\",\"properties\":"
         "{\"name\":{\"type\":\"string\"},\"n\":{\"type\":\"integer\"}},\"required\":[\"name\",\"n\"]}}",
         "held to a schema"},
    };
    struct tok *t = NULL;
    struct lexicon *l = NULL;
    struct err e = {0};
    bool ok = tok_open(&t, &m->vocab, &e) && lexicon_open(&l, t, &e);
    if (!tap_ok(ok, "a lexicon %s", e.text)) return;
    for (size_t i = 0; i < sizeof held / sizeof *held; i++) {
        struct grammar *g = NULL;
        ok = grammar_open(&g, held[i].kind, held[i].text, strlen(held[i].text), &e);
        if (!tap_ok(ok, "a grammar %s", e.text)) continue;
        struct way w = {.budget = PLENTY, .grammar = g, .lexicon = l, .what = held[i].what};
        check(m, k, &w);
        char what[64];
        snprintf(what, sizeof what, "%s, with all samplers", held[i].what);
        w.sampler = everything;
        w.what = what;
        check(m, k, &w);
        grammar_close(g);
    }
    lexicon_close(l);
    tok_close(t);
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
        check(&m, k, &(struct way){.budget = PLENTY, .what = "experts in memory"});
        check(&m, k, &(struct way){.budget = 5 << 20, .what = "experts streaming"});
        check(&m, k,
              &(struct way){.n_slice = 3, .budget = PLENTY, .what = "experts, three slices"});
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
    check_plain(&m, &k);
    check_drafts(&m, &k);
    check_samplers(&m, &k);
    check_kv(&m, &k);
    check_ngrams(&m, &k);
    check_grammars(&m, &k);
    model_close(&m);
    check_experts(&k);
    check_mesh();
    return tap_done();
}
