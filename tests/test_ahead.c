/* test_ahead.c - a draft model at work while the disk is waited for: that it does, what of it is taken, and
 * that no text is another for it, also when it ends anywhere. Reads can be made slow here (see the Makefile):
 * as slow as the model itself is in memory at the time, as how busy the machine is decides what pays. */
#include "engine/engine.h"
#include "tap.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { N_PROMPT = 24, N_PREDICT = 40, N_CTX = 96, LEAST_NS = 1000000, MOST_NS = 20000000 };

ssize_t __real_pread(int fd, void *to, size_t len, off_t off);
ssize_t __wrap_pread(int fd, void *to, size_t len, off_t off);

static atomic_bool is_slow, stop;
static atomic_int stop_at;  // reads from now on, 0: never
static atomic_long slow_ns = LEAST_NS;

ssize_t __wrap_pread(int fd, void *to, size_t len, off_t off) {
    if (atomic_load(&stop_at) && atomic_fetch_sub(&stop_at, 1) == 1) atomic_store(&stop, true);
    struct timespec pause = {.tv_nsec = atomic_load(&slow_ns)};
    if (atomic_load(&is_slow)) nanosleep(&pause, NULL);
    return __real_pread(fd, to, len, off);
}

static struct model model, draft;
static struct kernels kernels;

struct answer {
    int32_t id[N_CTX];
    uint32_t n, n_most;  // after so many it is stopped
    bool by_flag;        // by the flag
    struct gen_result result;
};

static bool keep(void *ctx, int32_t id) {
    struct answer *a = ctx;
    a->id[a->n++] = id;
    if (a->n < a->n_most) return true;
    if (a->by_flag) atomic_store(&stop, true);
    return a->by_flag;
}

static struct engine_conf conf_of(unsigned n_slice, bool has_draft) {
    struct engine_conf c = {.model = &model,
                            .kernels = &kernels,
                            .n_slice = n_slice,
                            .n_ctx = N_CTX,
                            .n_batch = 16,
                            .n_thread = 2,
                            .budget = 64 << 20,
                            .n_reader = 2,
                            .n_slot = 3};
    for (unsigned i = 0; i < n_slice; i++) c.share[i] = 1;
    if (!has_draft) return c;
    c.spec = SPEC_DRAFT;
    c.n_guess = 6;
    c.draft = &draft;
    return c;
}

/* Everything streams but what is left over. */
static struct engine_conf streaming(unsigned n_slice, bool has_draft) {
    struct engine_conf c = conf_of(n_slice, has_draft);
    struct nn_memory m;
    struct err e;
    if (engine_measure(&c, &m, &e)) c.budget = m.min_budget + n_slice * (256 << 10);
    return c;
}

struct way {
    bool is_slow;  // while it answers
    float temp;
    uint32_t n_most[3];  // tokens of each part of a conversation
    bool by_flag;
    uint32_t n_predict;
    bool is_broken_off;  // in the middle of a step, after so many reads
    int n_read;
};

/* The parts of a conversation, in which each prompt is all before and a few tokens; as many as n_most says. */
static MUST converse(const struct engine_conf *c, const struct way *w, struct answer a[3],
                     struct err *e) {
    int32_t said[N_CTX];
    struct engine *g;
    bool ok = true;
    uint32_t n = 0, n_keep = 0;
    atomic_store(&is_slow, false);
    memset(a, 0, 3 * sizeof *a);
    if (!engine_open(&g, c, e)) return false;
    ok = engine_load(g, NULL, NULL, e);
    atomic_store(&is_slow, w->is_slow);
    for (int part = 0; ok && part < 3 && w->n_most[part]; part++) {
        atomic_store(&stop, false);
        for (int i = 0; i < (part ? 3 : N_PROMPT); i++, n++) said[n] = (int32_t)(n * 37 + 11) % 500;
        a[part].n_most = w->n_most[part];
        a[part].by_flag = w->by_flag;
        struct gen_request q = {
            .prompt = said,
            .n_prompt = n,
            .n_keep = n_keep,
            .n_predict = w->n_predict,
            .sampler = {.temp = w->temp, .top_k = 40, .top_p = 0.95F, .seed = 7},
            .sequence = (uint64_t)part,
            .on_token = keep,
            .ctx = &a[part],
            .stop = &stop,
            .goes_on = !w->is_broken_off};
        atomic_store(&stop_at, w->is_broken_off ? w->n_read : 0);
        ok = engine_generate(g, &q, &a[part].result, e);
        memcpy(said + n, a[part].id, a[part].n * sizeof *said);
        n += a[part].n;
        n_keep = n;
    }
    atomic_store(&is_slow, false);
    atomic_store(&stop_at, 0);
    engine_close(g);
    return ok;
}

static bool same(const struct answer a[3], const struct answer b[3]) {
    bool ok = true;
    for (int i = 0; i < 3; i++) {
        ok = ok && a[i].n == b[i].n && !memcmp(a[i].id, b[i].id, sizeof a[i].id);
    }
    return ok;
}

/* A read takes as long as a token of the answer took. */
static void set_slow(const struct gen_result *r) {
    double ns = r->n_token > 1 ? r->decode_s / (r->n_token - 1) * 1e9 : 0;
    atomic_store(&slow_ns, ns < LEAST_NS ? LEAST_NS : ns > MOST_NS ? MOST_NS : (long)ns);
}

/* Beside the same without any guesses: returns how many guesses were made ahead. */
static uint32_t check(const struct engine_conf *c, const struct way *w, const char *what) {
    struct answer plain[3], got[3];
    struct engine_conf off = conf_of(1, false);
    struct way quick = *w;
    struct err e = {0};
    uint32_t n_ahead = 0, n_guessed = 0;
    quick.is_slow = false;
    bool ok = converse(&off, &quick, plain, &e);
    if (ok) set_slow(&plain[0].result);
    ok = ok && converse(c, w, got, &e);
    for (int i = 0; ok && i < 3; i++) {
        n_ahead += got[i].result.n_ahead;
        n_guessed += got[i].result.n_guessed;
    }
    tap_ok(ok && plain[0].n && same(plain, got) && n_ahead <= n_guessed,
           "%s, temperature %.1f: the same text, %u of %u guesses made ahead %s", what,
           (double)w->temp, n_ahead, n_guessed, ok ? "" : e.text);
    return n_ahead;
}

/* Drafts that are always right, as they are the model itself, sometimes, and hardly ever. */
static void check_drafts(float temp) {
    struct way w = {.temp = temp, .n_most = {N_PREDICT}, .n_predict = N_PREDICT};
    draft = model;
    struct engine_conf in_memory = conf_of(1, true), one = streaming(1, true),
                       three = streaming(3, true);
    uint32_t n = check(&in_memory, &w, "in memory");
    tap_ok(!n, "nothing is drafted ahead where nothing is waited for");
    (void)check(&one, &w, "streaming");
    w.is_slow = true;
    n = check(&one, &w, "from a slow disk");
    tap_ok(n > 0, "guesses are drafted ahead");
    n = check(&three, &w, "three slices");
    tap_ok(!n, "slices have no team that waits");
    draft.n_ctx = N_PROMPT + 30;
    (void)check(&one, &w, "a draft of a short context");
    for (draft = model; draft.n_layer > 1;) {
        char what[64];
        draft.n_layer -= draft.n_layer > 3 ? 1 : 2;
        one = streaming(1, true);
        snprintf(what, sizeof what, "a draft of %u layers", draft.n_layer);
        (void)check(&one, &w, what);
    }
    uint32_t n_ahead = 0;
    for (int hundredths = 95; hundredths >= 80; hundredths -= 5) {
        draft = model;
        draft.attn_scale *= (float)hundredths / 100;
        one = streaming(1, true);
        n_ahead += check(&one, &w, "a draft that is right mostly");
    }
    tap_ok(n_ahead > 0, "of those that are right mostly guesses are taken, too: %u", n_ahead);
}

/* What was drafted ahead for an answer that ended stays out of the next. */
static void check_ends(float temp) {
    draft = model;
    struct engine_conf c = streaming(1, true);
    uint32_t n_ahead = 0;
    for (uint32_t most = 7; most < 24; most += 8) {
        struct way w = {
            .is_slow = true, .temp = temp, .n_most = {most, 16, 9}, .n_predict = N_PREDICT};
        char what[64];
        snprintf(what, sizeof what, "stopped after %u tokens, and a conversation goes on", most);
        n_ahead += check(&c, &w, what);
        w.by_flag = true;
        n_ahead += check(&c, &w, "the same by a signal");
    }
    tap_ok(n_ahead > 0, "guesses were drafted ahead: %u", n_ahead);
    struct way all = {.is_slow = true, .temp = temp, .n_most = {N_CTX}, .n_predict = N_CTX};
    n_ahead = check(&c, &all, "to the end of the context");
    tap_ok(n_ahead > 0, "guesses are drafted ahead");
    struct answer a[3];
    struct err e = {0};
    bool ok = converse(&c, &all, a, &e) && a[0].n == N_CTX - N_PROMPT;
    tap_ok(ok, "which it fills: %u tokens %s", a[0].n, e.text);
}

/* Broken off in mid-step, where the draft may be in the middle of a token. */
static void check_broken_off(void) {
    draft = model;
    struct engine_conf c = streaming(1, true), off = conf_of(1, false);
    struct way w = {.n_most = {N_PREDICT}, .n_predict = N_PREDICT};
    struct answer plain[3], got[3];
    struct err e = {0};
    if (!tap_ok(converse(&off, &w, plain, &e), "an answer %s", e.text)) return;
    w.is_slow = true;
    w.is_broken_off = true;
    for (w.n_read = 250; w.n_read < 400; w.n_read += 29) {
        bool ok = converse(&c, &w, got, &e) && got[0].result.end == GEN_STOPPED;
        ok = ok && got[0].n < N_PREDICT &&
             !memcmp(got[0].id, plain[0].id, got[0].n * sizeof(int32_t));
        tap_ok(ok, "stopped after %d reads and %u tokens %s", w.n_read, got[0].n, e.text);
    }
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
    check_drafts(0);
    check_drafts(0.8F);
    check_ends(0);
    check_ends(0.8F);
    check_broken_off();
    model_close(&model);
    return tap_done();
}
