/* One text whatever the split: slices, shares, threads, batch, budget. Runs the demo model. */
#include "engine/engine.h"
#include "engine/guesser.h"
#include "parrot.h"
#include "shape_maker.h"
#include "tap.h"

enum { N_PROMPT = 41, N_PREDICT = 80 };

struct run {
    unsigned n_slice;
    double share[SLICE_MAX];
    unsigned n_thread;
    uint32_t n_batch, n_sweep;
    uint64_t budget;
    enum spec_kind spec;
    bool is_loop;  // a prompt that repeats itself
    bool drafts;   // the model's first layer guesses for it
    float temp;
    enum wire_type wire;
    enum kv_type kv;
};

struct answer {
    int32_t id[N_PREDICT];
    uint32_t n, n_told;  // told: of the prompt
    uint64_t streamed, pinned, of_prompt;
    struct nn_memory memory;
    struct gen_result result;
};

static struct model model, first_layer;  // the latter is the former without the other layers
static struct kernels kernels;
static int32_t prompt[N_PROMPT], loop[N_PROMPT];

static void read_on(void *ctx, uint32_t done, uint32_t total) {
    struct answer *a = ctx;
    (void)done, (void)total;
    a->n_told++;
}

static bool keep(void *ctx, int32_t id) {
    struct answer *a = ctx;
    a->id[a->n++] = id;
    return true;
}

static MUST answer(const struct run *r, struct answer *a, struct err *e) {
    struct engine_conf c = {
        .model = &model,
        .kernels = &kernels,
        .n_slice = r->n_slice ? r->n_slice : 1,
        .n_ctx = 128,
        .n_batch = r->n_batch ? r->n_batch : 16,
        .n_sweep = r->n_sweep,
        .spec = r->spec,
        .n_guess = r->spec == SPEC_OFF ? 0 : 15,
        .draft = r->drafts ? &first_layer : NULL,
        .kv = r->kv,
        .wire = r->wire,
        .n_thread = r->n_thread ? r->n_thread : 1,
        .budget = r->budget ? r->budget : 64 << 20,
        .n_reader = 2,
        .n_slot = 3,
    };
    for (unsigned i = 0; i < c.n_slice; i++) c.share[i] = r->share[i] > 0 ? r->share[i] : 1;
    struct gen_request q = {
        .prompt = r->is_loop ? loop : prompt,
        .n_prompt = N_PROMPT,
        .n_predict = N_PREDICT,
        .sampler = {.temp = r->temp, .top_k = 40, .top_p = 0.95F, .min_p = 0.05F, .seed = 7},
        .on_token = keep,
        .on_prefill = read_on,
        .ctx = a,
    };
    struct gen_result out = {0};
    struct engine *g;
    *a = (struct answer){0};
    if (!engine_open(&g, &c, e)) return false;
    bool ok = engine_load(g, NULL, NULL, e) && engine_generate(g, &q, &out, e);
    struct store_stats s;
    engine_stats(g, &s);
    a->result = out;
    a->streamed = out.streamed_bytes;
    a->of_prompt = out.prompt_bytes;
    a->pinned = s.pinned_bytes;
    a->memory = *engine_memory(g);
    engine_close(g);
    return ok;
}

static void same(const struct run *r, const struct answer *want, const char *what) {
    struct answer a;
    struct err e = {0};
    bool ok = answer(r, &a, &e);
    tap_ok(ok && a.n == want->n && !memcmp(a.id, want->id, sizeof a.id), "%s%s%s", what,
           ok ? "" : ": ", ok ? "" : e.text);
}

/* The least budget that runs: everything streams but what is left over. */
static uint64_t least_with(unsigned n_slice, const struct model *draft) {
    struct engine_conf c = {.model = &model,
                            .kernels = &kernels,
                            .n_slice = n_slice,
                            .n_ctx = 128,
                            .n_batch = 16,
                            .n_thread = 1,
                            .spec = draft ? SPEC_DRAFT : SPEC_OFF,
                            .n_guess = draft ? 15 : 0,
                            .draft = draft,
                            .budget = 64 << 20,
                            .n_slot = 3};
    struct nn_memory m;
    struct err e;
    for (unsigned i = 0; i < n_slice; i++) c.share[i] = 1;
    if (!engine_measure(&c, &m, &e)) return 0;
    return m.min_budget + n_slice * (512 << 10);
}

static uint64_t least_budget(unsigned n_slice) {
    return least_with(n_slice, NULL);
}

static void check_all(float temp) {
    struct answer want;
    struct err e;
    char what[128];
    struct run base = {.temp = temp};
    bool ok = answer(&base, &want, &e);
    tap_ok(ok && want.n == N_PREDICT, "temperature %.1f: an answer of %u tokens %s", (double)temp,
           want.n, ok ? "" : e.text);
    static const unsigned slices[] = {2, 3, 4, 7, 16};
    for (size_t i = 0; i < sizeof slices / sizeof *slices; i++) {
        struct run r = {.temp = temp, .n_slice = slices[i]};
        snprintf(what, sizeof what, "temperature %.1f: %u slices", (double)temp, slices[i]);
        same(&r, &want, what);
    }
    struct run uneven = {.temp = temp, .n_slice = 3, .share = {5, 1, 2}};
    same(&uneven, &want, "uneven shares 5:1:2");
    struct run threads = {.temp = temp, .n_thread = 3};
    same(&threads, &want, "three threads");
    static const uint32_t batch[] = {1, 2, 7, 41, 64};
    for (size_t i = 0; i < sizeof batch / sizeof *batch; i++) {
        struct run r = {.temp = temp, .n_batch = batch[i], .n_thread = 2};
        snprintf(what, sizeof what, "prompt in steps of %u tokens", batch[i]);
        same(&r, &want, what);
    }
    struct run small = {.temp = temp, .budget = least_budget(1)};
    same(&small, &want, "least budget, streaming");
    struct run sweep = {.temp = temp, .n_batch = 4, .n_sweep = 32, .n_thread = 2};
    same(&sweep, &want, "the prompt layer by layer, 4 tokens at a time, in two steps");
    sweep.budget = small.budget + (1 << 20);
    same(&sweep, &want, "the same, streaming");
    sweep.n_slice = 3;
    sweep.budget = least_budget(3) * 5 / 4 + (3 << 20);
    same(&sweep, &want, "the same, three slices");
    struct run small3 = {.temp = temp, .n_slice = 3, .budget = least_budget(3) * 5 / 4};
    same(&small3, &want, "three slices on small budgets, streaming");
}

static MUST make_parrot(int fd, const char *path, struct err *e) {
    static const struct shape s = {.n_embd = 256,
                                   .n_head = 4,
                                   .n_kv = 2,
                                   .head_dim = 64,
                                   .n_ff = 512,
                                   .n_vocab = 512,
                                   .n_layer = 4,
                                   .type = {W_Q8_0, W_Q8_0, W_Q8_0, W_Q8_0}};
    struct blob b = shape_build_as(&s, 128, true);
    bool ok = write(fd, b.p, b.n) == (ssize_t)b.n;
    free(b.p);
    return ok && model_open(&model, path, 0, 0, e) && parrot_make(&model);
}

/* Guessing ahead changes no token, whoever guesses and however wrong. */
static void check_guesses(float temp, bool is_loop, bool is_sure) {
    struct answer want, a;
    struct err e = {0};
    struct run r = {.temp = temp, .is_loop = is_loop, .n_thread = 2};
    if (!tap_ok(answer(&r, &want, &e), "an answer without guessing %s", e.text)) return;
    const uint64_t low = least_budget(1) + (512 << 10), low3 = least_budget(3) + (2 << 20);
    first_layer = model;
    first_layer.n_layer = 1;
    const uint64_t aid = least_with(1, &first_layer), aid3 = least_with(3, &first_layer);
    const struct {
        const char *what;
        unsigned n_slice;
        uint64_t budget;
        enum spec_kind spec;
        bool drafts;
    } way[] = {
        {"in memory", 1, 0, SPEC_NGRAM, false},
        {"streaming", 1, low, SPEC_NGRAM, false},
        {"three slices", 3, 0, SPEC_NGRAM, false},
        {"three, streaming", 3, low3, SPEC_NGRAM, false},
        {"draft", 1, 0, SPEC_DRAFT, true},
        {"draft, streaming", 1, aid, SPEC_DRAFT, true},
        {"draft, streaming half", 1, aid + model.data_len / 2, SPEC_DRAFT, true},
        {"draft and text, streaming", 1, aid, SPEC_AUTO, true},
        {"three, draft, streaming", 3, aid3, SPEC_AUTO, true},
    };
    uint32_t by_draft = 0;
    for (size_t i = 0; i < sizeof way / sizeof *way; i++) {
        r.n_slice = way[i].n_slice, r.budget = way[i].budget, r.spec = way[i].spec;
        r.drafts = way[i].drafts;
        bool ok = answer(&r, &a, &e);
        uint32_t n_step = a.result.n_step, guessed = a.result.n_guessed;
        ok = ok && a.n == want.n && !memcmp(a.id, want.id, sizeof a.id);
        tap_ok(ok, "%s, %s, temperature %.1f: %u steps, %u guesses %s", way[i].what,
               is_loop ? "a loop" : "no loop", (double)temp, n_step, guessed, ok ? "" : e.text);
        uint32_t right = a.result.n_drawn - n_step;
        if (is_sure) tap_ok(right == guessed, "%u of %u were right", right, guessed);
        if (is_sure && !r.drafts) tap_ok(right > 0, "and they were tried");
        if (r.spec == SPEC_DRAFT && r.budget) by_draft += right;
    }
    /* Whether one way is fast enough for it to pay, the clock says. */
    if (is_sure) tap_ok(by_draft > 0, "streaming, the small model was right %u times", by_draft);
}

/* Two answers of one engine, the second prompt the first with its answer and a little more. */
static MUST converse(const struct engine_conf *c, struct answer a[2], struct err *e) {
    struct store_stats s;
    int32_t said[N_PROMPT + 24];
    struct gen_request q = {
        .prompt = loop, .n_prompt = N_PROMPT, .n_predict = 20, .on_token = keep};
    struct gen_result out = {0};
    struct engine *g;
    if (!engine_open(&g, c, e)) return false;
    memset(a, 0, 2 * sizeof *a);
    q.ctx = &a[0];
    bool ok = engine_load(g, NULL, NULL, e) && engine_generate(g, &q, &out, e);
    memcpy(said, loop, sizeof loop);
    memcpy(said + N_PROMPT, a[0].id, 20 * sizeof *said);
    memcpy(said + N_PROMPT + 20, loop, 4 * sizeof *said);
    q.n_keep = N_PROMPT + 20;
    q.prompt = said;
    q.n_prompt = N_PROMPT + 24;
    q.ctx = &a[1];
    a[0].result = out;
    ok = ok && engine_generate(g, &q, &out, e);
    a[1].result = out;
    a[1].memory = *engine_memory(g);
    engine_stats(g, &s);
    a[1].pinned = s.pinned_bytes;
    engine_close(g);
    return ok;
}

/* All streams but what is left over beside the first layer, which is a small model to guess with. */
static struct engine_conf streaming_conf(unsigned n_thread) {
    first_layer = model;
    first_layer.n_layer = 1;
    return (struct engine_conf){.model = &model,
                                .kernels = &kernels,
                                .n_slice = 1,
                                .share = {1},
                                .n_ctx = 128,
                                .n_batch = 16,
                                .n_thread = n_thread,
                                .budget = least_with(1, &first_layer),
                                .n_reader = 2,
                                .n_slot = 3};
}

/* What the small model has read of a conversation it does not read again. */
static void check_conversation(void) {
    struct answer plain[2], guessed[2];
    struct err e = {0};
    struct engine_conf c = streaming_conf(1);
    bool ok = converse(&c, plain, &e);
    c.spec = SPEC_AUTO;
    c.n_guess = 15;
    c.draft = &first_layer;
    ok = ok && converse(&c, guessed, &e);
    ok = ok && plain[1].n == 20 && !memcmp(plain[1].id, guessed[1].id, sizeof plain[1].id);
    tap_ok(ok && !memcmp(plain[0].id, guessed[0].id, sizeof plain[0].id),
           "a conversation with a draft: the same text %s", e.text);
}

static atomic_bool is_enough;

static void stop_when_read(void *ctx, uint32_t done, uint32_t total) {
    (void)ctx;
    if (done == total) atomic_store(&is_enough, true);
}

/* Stopped when a prompt is read, which the draft has not seen and reads to its end, or not if that takes several
 * batches: it goes on with the same engine. */
static void check_stopped(uint32_t n_prompt) {
    int32_t said[128];
    for (uint32_t i = 0; i < n_prompt; i++) said[i] = prompt[i % N_PROMPT];
    atomic_store(&is_enough, false);
    struct engine_conf c = streaming_conf(1);
    struct answer plain = {0}, later = {0};
    struct gen_request q = {.prompt = loop,
                            .n_prompt = N_PROMPT,
                            .n_predict = 20,
                            .on_token = keep,
                            .ctx = &plain,
                            .goes_on = true};
    struct gen_result out = {0};
    struct engine *g;
    struct err e = {0};
    c.budget = 64 << 20;
    c.n_batch = 128;
    c.spec = SPEC_DRAFT;
    c.n_guess = 15;
    c.draft = &first_layer;
    bool ok = engine_open(&g, &c, &e);
    if (!tap_ok(ok, "an engine with a draft %s", e.text)) return;
    ok = engine_load(g, NULL, NULL, &e) && engine_generate(g, &q, &out, &e);
    struct gen_request stopped = q;
    stopped.prompt = said;
    stopped.n_prompt = n_prompt;
    stopped.on_prefill = stop_when_read;
    stopped.stop = &is_enough;
    stopped.ctx = &later;
    ok = ok && engine_generate(g, &stopped, &out, &e);
    tap_ok(ok && out.end == GEN_STOPPED && !engine_is_spent(g),
           "stopped when %u tokens are read, it is usable %s", n_prompt, e.text);
    later = (struct answer){0};
    q.ctx = &later;
    ok = ok && engine_generate(g, &q, &out, &e);
    tap_ok(ok && later.n == plain.n && !memcmp(later.id, plain.id, sizeof later.id),
           "and says what it had said %s", e.text);
    engine_close(g);
}

/* A small model that is hardly ever right, and whose memory would keep half of the weights: it goes, and they
 * stay instead. */
static void check_given_up(void) {
    struct answer plain[2], guessed[2];
    struct err e = {0};
    struct engine_conf c = streaming_conf(2);
    bool ok = converse(&c, plain, &e);
    c.spec = SPEC_DRAFT;
    c.n_guess = 15;
    c.draft = &first_layer;
    c.draft_keep = 0.3;
    ok = ok && converse(&c, guessed, &e);
    ok = ok && !memcmp(plain[0].id, guessed[0].id, sizeof plain[0].id) &&
         !memcmp(plain[1].id, guessed[1].id, sizeof plain[1].id);
    tap_ok(ok, "a draft that does not pay: the same text %s", e.text);
    uint64_t grown = guessed[0].result.grown_bytes + guessed[1].result.grown_bytes;
    uint64_t more = guessed[1].pinned - guessed[1].memory.tiles.pinned_bytes;
    tap_ok(ok && grown && (guessed[0].result.gave_up != guessed[1].result.gave_up),
           "it is given up, once");
    tap_ok(ok && more > 0 && more <= grown, "%llu bytes of weights stay instead, of %llu",
           (unsigned long long)more, (unsigned long long)grown);
}

static void check_memory(void) {
    struct answer a;
    struct err e;
    struct run r = {.budget = least_budget(1)};
    bool ok = answer(&r, &a, &e);
    tap_ok(ok && a.memory.tiles.n_streamed > 0 && a.streamed > 0,
           "a small budget streams: %llu bytes", (unsigned long long)(ok ? a.streamed : 0));
    r.budget = least_budget(1) / 2;
    ok = answer(&r, &a, &e);
    tap_ok(!ok && e.code == ERR_MEMORY, "too small a budget is refused: %s", e.text);
    struct run sweep = {
        .n_batch = 4, .n_sweep = N_PROMPT, .n_thread = 2, .budget = r.budget * 2 + (1 << 20)};
    ok = answer(&sweep, &a, &e);
    uint64_t once = a.memory.tiles.streamed_bytes_per_sweep;
    tap_ok(ok && once && a.of_prompt <= 2 * once && a.of_prompt >= once / 2,
           "a prompt of %d tokens, 4 at a time, has one sweep: %llu bytes, where 11 are %llu",
           N_PROMPT, (unsigned long long)a.of_prompt, (unsigned long long)once * 11);
    tap_ok(ok && a.n_told == model.n_layer * 11, "of each of its 11 batches a layer is told: %u",
           a.n_told);
    struct answer other;
    struct run f32 = {.wire = WIRE_F32, .kv = KV_F32};
    tap_ok(answer(&f32, &other, &e) && other.n == N_PREDICT, "f32 cache and wire run");
}

static void check_prompt_too_long(void) {
    struct engine_conf c = {.model = &model,
                            .kernels = &kernels,
                            .n_slice = 1,
                            .share = {1},
                            .n_ctx = 16,
                            .n_batch = 16,
                            .n_thread = 1,
                            .budget = 64 << 20,
                            .n_reader = 1,
                            .n_slot = 3};
    struct gen_request q = {.prompt = prompt, .n_prompt = N_PROMPT, .n_predict = 1};
    struct gen_result out = {0};
    struct engine *g;
    struct err e;
    bool ok = engine_open(&g, &c, &e) && engine_load(g, NULL, NULL, &e);
    tap_ok(ok && !engine_generate(g, &q, &out, &e) && e.code == ERR_LIMIT && strstr(e.text, "41") &&
               strstr(e.text, "16"),
           "a prompt longer than the context is refused naming both: %s", e.text);
    engine_close(g);
}

/* Answers that end while all guesses were right so far do not speak against guessing. */
static void check_cut_short(void) {
    struct engine_conf c = {
        .model = &model, .n_ctx = 128, .spec = SPEC_NGRAM, .n_guess = SPEC_MOST};
    struct gen_request r = {.prompt = loop, .n_prompt = N_PROMPT, .n_predict = N_PREDICT};
    struct guesser *g;
    struct err e;
    if (!tap_ok(guesser_open(&g, &c, false, &e), "guesses of an answer that ends")) return;
    uint32_t most = 0, last = 0;
    for (int i = 0; i < 40; i++) {
        int32_t guess[SPEC_MOST];
        uint32_t n = 0;
        guesser_start(g, &r);
        guesser_took(g, 1, 1e-3);
        guesser_push(g, loop[N_PROMPT % 16]);
        if (!guesser_guess(g, NULL, SPEC_MOST, guess, &n, &e)) break;
        if (n) guesser_push(g, guess[0]);
        (void)guesser_drop(g);  // as the engine does before the next answer
        if (n > most) most = n;
        last = n;
    }
    guesser_close(g);
    tap_ok(most > 1 && last == most, "%u guesses at most, %u after 40 such answers", most, last);
}

int main(void) {
    struct err e;
    const char *path = getenv("DAIR_DEMO");
    if (!path) path = "overlay/usr/share/dair/demo.gguf";
    if (!model_open(&model, path, 0, 0, &e)) {
        tap_ok(false, "open %s: %s", path, e.text);
        return tap_done();
    }
    kernels_init(&kernels, cpu_features());
    for (int i = 0; i < N_PROMPT; i++) prompt[i] = (i * 37 + 11) % (int)model.n_vocab;
    check_all(0);
    check_all(0.8F);
    for (int i = 0; i < N_PROMPT; i++) loop[i] = 288 + i % 16;
    check_guesses(0, false, false);
    check_guesses(0.8F, true, false);
    check_conversation();
    check_cut_short();
    check_stopped(N_PROMPT);
    check_stopped(120);
    check_given_up();
    check_memory();
    check_prompt_too_long();
    model_close(&model);
    char parrot[] = "/tmp/parrot-XXXXXX";
    int fd = mkstemp(parrot);
    if (tap_ok(fd >= 0 && make_parrot(fd, parrot, &e), "a model that repeats itself")) {
        check_guesses(0, true, true);
        check_conversation();
        model_close(&model);
    }
    if (fd >= 0) close(fd);
    unlink(parrot);
    return tap_done();
}
