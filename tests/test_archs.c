/* Architectures: a small random model of each against binary64 arithmetic made from the formulas, and the
 * same bits however many slices, tokens at once and streamed tiles there are. */
#include "arch_oracle.h"
#include "nn/nn.h"
#include "tap.h"

#include <pthread.h>

enum { N_TOK = ORACLE_TOKENS };

static const struct made models[] = {
    {.what = "llama", .arch = "llama", .base = 10000},
    {.what = "llama, YaRN",
     .arch = "llama",
     .base = 10000,
     .scaling = "yarn",
     .factor = 4,
     .n_ctx_orig = 300},
    {.what = "qwen2", .arch = "qwen2", .base = 1e6, .halves = true, .qkv_bias = true},
    {.what = "qwen2, scaled linearly",
     .arch = "qwen2",
     .base = 1e6,
     .halves = true,
     .qkv_bias = true,
     .scaling = "linear",
     .factor = 3},
    {.what = "qwen2moe",
     .arch = "qwen2moe",
     .base = 1e6,
     .halves = true,
     .qkv_bias = true,
     .n_expert = 5,
     .n_used = 2,
     .n_ff_shared = 160,
     .route_all = true},
    {.what = "qwen3", .arch = "qwen3", .base = 1e6, .halves = true, .qk_norm = true},
    {.what = "qwen3moe",
     .arch = "qwen3moe",
     .base = 1e6,
     .halves = true,
     .qk_norm = true,
     .n_expert = 6,
     .n_used = 3},
    {.what = "gemma",
     .arch = "gemma",
     .base = 10000,
     .halves = true,
     .gate = MADE_GELU,
     .embd_scale = 8},
    {.what = "gemma2",
     .arch = "gemma2",
     .base = 10000,
     .halves = true,
     .gate = MADE_GELU,
     .embd_scale = 8,
     .post_norms = true,
     .window = 7,
     .period = 2,
     .softcap = 2,
     .final_cap = 3},
    {.what = "gemma3, scaled linearly but for local layers",
     .arch = "gemma3",
     .base = 1e6,
     .local_base = 10000,
     .scaling = "linear",
     .factor = 8,
     .halves = true,
     .gate = MADE_GELU,
     .embd_scale = 8,
     .post_norms = true,
     .qk_norm = true,
     .window = 5,
     .period = 3},
    {.what = "phi2, rotated in part",
     .arch = "phi2",
     .base = 10000,
     .n_rot = 16,
     .halves = true,
     .gate = MADE_GELU,
     .ungated = true,
     .parallel = true,
     .layer_norm = true,
     .qkv_bias = true,
     .all_bias = true,
     .fused = true},
    {.what = "phi3, LongRoPE within its context",
     .arch = "phi3",
     .base = 10000,
     .n_rot = 24,
     .halves = true,
     .fused = true,
     .scaling = "longrope",
     .n_ctx_orig = 100},
    {.what = "phi3, LongRoPE beyond it",
     .arch = "phi3",
     .base = 10000,
     .halves = true,
     .fused = true,
     .scaling = "longrope",
     .attn_factor = 1.2,
     .n_ctx_orig = 20},
    {.what = "gpt-oss",
     .arch = "gpt-oss",
     .base = 150000,
     .halves = true,
     .gate = MADE_OAI,
     .scaling = "yarn",
     .factor = 32,
     .n_ctx_orig = 4096,
     .n_expert = 8,
     .n_used = 4,
     .qkv_bias = true,
     .all_bias = true,
     .sinks = true,
     .window = 6,
     .period = 2},
};

/* --- running it --- */

struct way {
    const char *what;
    unsigned n_slice;
    double share[SLICE_MAX];
    uint32_t n_batch;
    bool streams;
    enum kv_type kv;
    enum wire_type wire;
};

struct answer {
    float logits[N_TOK][MADE_VOCAB];
    bool is_known[N_TOK];  // steps of several tokens give the last one's only
};

struct node {
    const struct way *way;
    unsigned self;
    struct nn *nn;
    struct answer *out;
    struct coll_local *local;
    bool ok;
    struct err err;
};

static struct kernels kernels;
static int32_t token[N_TOK];

static void steps(void *ctx, struct par *team) {
    struct node *k = ctx;
    k->ok = true;
    for (uint32_t at = 0; k->ok && at < N_TOK;) {
        uint32_t n = N_TOK - at < k->way->n_batch ? N_TOK - at : k->way->n_batch, first, count;
        k->ok = nn_step(k->nn, team, 0, token + at, n, NN_LOGITS, &k->err);
        if (!k->ok) break;
        at += n;
        const float *logits = nn_logits(k->nn, &first, &count);
        if (count) memcpy(k->out->logits[at - 1] + first, logits, count * sizeof *logits);
        if (!k->self) k->out->is_known[at - 1] = true;
    }
    if (!k->ok && k->local) coll_local_leave(k->local);
}

static void *node_thread(void *ctx) {
    struct node *k = ctx;
    if (!par_enter(1, steps, k, &k->err)) k->ok = false;
    return NULL;
}

static MUST open_node(struct node *k, const struct model *m, unsigned self, struct coll *coll,
                      struct err *e) {
    const struct way *w = k->way;
    struct nn_memory mem;
    struct nn_conf c = {.model = m,
                        .kernels = &kernels,
                        .self = self,
                        .n_slice = w->n_slice,
                        .n_seq = 1,
                        .n_ctx = 32,
                        .n_batch = w->n_batch,
                        .kv = w->kv,
                        .wire = w->wire,
                        .budget = (uint64_t)1 << 40,
                        .n_reader = 1,
                        .n_slot = 2,
                        .n_thread = 1};
    cuts_make(&c.cuts, m, w->n_slice, w->share);
    if (!nn_measure(&c, &mem, e)) return false;
    if (w->streams) c.budget = mem.min_budget;
    return nn_open(&k->nn, &c, coll, e) && nn_load(k->nn, NULL, NULL, e);
}

static MUST run(const struct model *m, const struct way *w, struct answer *out, struct err *e) {
    struct node node[SLICE_MAX] = {0};
    struct coll_local *local = NULL;
    pthread_t thread[SLICE_MAX];
    struct coll alone;
    bool ok = w->n_slice == 1 || coll_local_open(&local, w->n_slice, e);
    memset(out, 0, sizeof *out);
    coll_alone(&alone);
    for (unsigned i = 0; ok && i < w->n_slice; i++) {
        node[i] = (struct node){.way = w, .self = i, .out = out, .local = local};
        ok = open_node(&node[i], m, i, local ? coll_local_at(local, i) : &alone, e);
    }
    if (ok) {
        for (unsigned i = 0; i < w->n_slice; i++) {
            if (pthread_create(&thread[i], NULL, node_thread, &node[i])) abort();
        }
        for (unsigned i = 0; i < w->n_slice; i++) {
            pthread_join(thread[i], NULL);
            if (!node[i].ok) ok = false, *e = node[i].err;
        }
    }
    for (unsigned i = 0; i < w->n_slice; i++) nn_close(node[i].nn);
    coll_local_close(local);
    return ok;
}

static bool open_made(struct made *s, uint32_t type, struct model *m, int *fd) {
    struct err e;
    char path[64];
    struct blob file = made_build(s, type);
    blob_file(file.p, file.n, fd, path);
    free(file.p);
    bool ok = model_open(m, path, 0, 0, &e);
    if (!ok) printf("# %s\n", e.text), close(*fd);
    return tap_ok(ok, "%s: opens", s->what);
}

/* Largest difference to binary64 of all logits, whose spread is about 1. */
static void check_oracle(struct made *s) {
    static struct oracle o;
    static double want[N_TOK][MADE_VOCAB];
    static struct answer got;
    const struct way plain = {"", 1, {1}, 1, false, KV_F32, WIRE_F32};
    struct model m;
    struct err e;
    int fd;
    if (!open_made(s, W_F32, &m, &fd)) return;
    if (tap_ok(run(&m, &plain, &got, &e), "%s: runs", s->what)) {
        double worst = 0, spread = 0;
        o.m = s;
        o.n_ctx = 32;
        oracle_run(&o, token, N_TOK, want);
        for (int t = 0; t < N_TOK; t++) {
            for (int i = 0; i < MADE_VOCAB; i++) {
                double d = fabs(got.logits[t][i] - want[t][i]);
                worst = d <= worst ? worst : d;  // NaN is worst
                spread = fmax(spread, fabs(want[t][i]));
            }
        }
        printf("# %s: largest error %.1e of %.1f\n", s->what, worst, spread);
        tap_ok(worst < 1e-4 && spread > 0.5, "%s: near binary64", s->what);
    } else {
        printf("# %s\n", e.text);
    }
    model_close(&m);
    close(fd);
}

static bool is_same(const struct answer *a, const struct answer *want) {
    bool same = a->is_known[N_TOK - 1];
    for (int i = 0; i < N_TOK; i++) {
        if (!a->is_known[i]) continue;
        same = same && !memcmp(a->logits[i], want->logits[i], sizeof a->logits[i]);
    }
    return same;
}

static void check_ways(struct made *s, uint32_t type) {
    static const struct way ways[] = {
        {"24 tokens at once", 1, {1}, 24, false, KV_Q8_0, 0},
        {"5 tokens at once, streamed", 1, {1}, 5, true, KV_Q8_0, 0},
        {"2 slices", 2, {1, 1}, 1, false, KV_Q8_0, 0},
        {"3 slices 1:5:2, 7 tokens at once, streamed", 3, {1, 5, 2}, 7, true, KV_Q8_0, 0},
        {"5 slices", 5, {1, 1, 1, 1, 1}, 4, false, KV_Q8_0, 0},
    };
    const struct way plain = {"", 1, {1}, 1, false, KV_Q8_0, 0};
    static struct answer want, got;
    struct model m;
    struct err e;
    int fd;
    if (!open_made(s, type, &m, &fd)) return;
    bool ok = run(&m, &plain, &want, &e), moves = false;
    for (int t = 1; t < N_TOK; t++) {
        moves = moves || memcmp(want.logits[t], want.logits[t - 1], sizeof want.logits[t]) != 0;
    }
    tap_ok(ok && moves, "%s: alive", s->what);
    for (size_t i = 0; ok && i < sizeof ways / sizeof *ways; i++) {
        ok = run(&m, &ways[i], &got, &e);
        tap_ok(ok && is_same(&got, &want), "%s, %s: the same bits", s->what, ways[i].what);
    }
    if (!ok) printf("# %s\n", e.text);
    model_close(&m);
    close(fd);
}

int main(void) {
    kernels_init(&kernels, cpu_features());
    for (int i = 0; i < N_TOK; i++) token[i] = (i * i * 7 + 3) % MADE_VOCAB;
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        struct made s = models[i];
        s.d = 64, s.n_head = 6, s.n_kv = 3, s.hd = 32, s.n_ff = 96;
        if (!s.n_rot) s.n_rot = s.hd;
        check_oracle(&s);
        check_ways(&s, W_Q8_0);
    }
    return tap_done();
}
