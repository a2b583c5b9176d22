/* Architectures: a small random model of each against binary64 arithmetic made from the formulas, and the
 * same bits however many slices, tokens at once and streamed tiles there are. */
#include "arch_oracle.h"
#include "nn_ways.h"
#include "tap.h"

static const struct made models[] = {
    {.what = "llama", .arch = "llama", .base = 10000},
    {.what = "llama with biases",
     .arch = "llama",
     .base = 10000,
     .qkv_bias = true,
     .ffn_bias = true},
    {.what = "llama, YaRN",
     .arch = "llama",
     .base = 10000,
     .scaling = "yarn",
     .factor = 4,
     .n_ctx_orig = 300},
    {.what = "llama, frequencies scaled as Llama 3.1's",
     .arch = "llama",
     .base = 10000,
     .scaling = "llama3",
     .factor = 8,
     .n_ctx_orig = 40},
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

static struct kernels kernels;
static struct prompt prompt = {.n = ORACLE_TOKENS};

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
    static double want[ORACLE_TOKENS][MADE_VOCAB];
    static struct answer got;
    const struct way plain = {"", 1, {1}, 1, 1, ALL_RESIDENT, KV_F32, WIRE_F32};
    struct model m;
    struct err e;
    int fd;
    if (!open_made(s, W_F32, &m, &fd)) return;
    if (tap_ok(way_run(&m, &kernels, &plain, &prompt, &got, &e), "%s: runs", s->what)) {
        double worst = 0, spread = 0;
        o.m = s;
        o.n_ctx = 32;
        oracle_run(&o, prompt.token, ORACLE_TOKENS, want);
        for (int t = 0; t < ORACLE_TOKENS; t++) {
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

static void check_ways(struct made *s, uint32_t type) {
    static const struct way ways[] = {
        {"24 tokens at once", 1, {1}, 24, 1, ALL_RESIDENT, KV_Q8_0, WIRE_Q16},
        {"5 tokens at once, streamed", 1, {1}, 5, 1, ALL_STREAMED, KV_Q8_0, WIRE_Q16},
        {"2 slices", 2, {1, 1}, 1, 1, ALL_RESIDENT, KV_Q8_0, WIRE_Q16},
        {"3 slices 1:5:2, 7 tokens at once, streamed",
         3,
         {1, 5, 2},
         7,
         1,
         ALL_STREAMED,
         KV_Q8_0,
         WIRE_Q16},
        {"5 slices", 5, {1, 1, 1, 1, 1}, 4, 1, ALL_RESIDENT, KV_Q8_0, WIRE_Q16},
    };
    const struct way plain = {"", 1, {1}, 1, 1, ALL_RESIDENT, KV_Q8_0, WIRE_Q16};
    static struct answer want, got;
    struct model m;
    struct err e;
    int fd;
    if (!open_made(s, type, &m, &fd)) return;
    bool ok = way_run(&m, &kernels, &plain, &prompt, &want, &e);
    tap_ok(ok && answer_is_alive(&want, &prompt), "%s: alive", s->what);
    for (size_t i = 0; ok && i < sizeof ways / sizeof *ways; i++) {
        ok = way_run(&m, &kernels, &ways[i], &prompt, &got, &e);
        tap_ok(ok && answer_is(&got, &want, &prompt), "%s, %s: the same bits", s->what,
               ways[i].what);
    }
    if (!ok) printf("# %s\n", e.text);
    model_close(&m);
    close(fd);
}

/* What would make a frequency infinite is told by the tensor's name, before anything is computed. */
static void check_divisors(struct made *s) {
    static struct answer got;
    const struct way plain = {"", 1, {1}, 1, 1, ALL_RESIDENT, KV_F32, WIRE_F32};
    struct model m;
    struct err e = {0};
    int fd;
    s->zero_factors = true;
    if (!open_made(s, W_F32, &m, &fd)) return;
    bool ok = way_run(&m, &kernels, &plain, &prompt, &got, &e);
    tap_ok(!ok && e.code == ERR_FORMAT && strstr(e.text, "rope_factors"), "%s: divisors of 0: %s",
           s->what, ok ? "" : e.text);
    model_close(&m);
    close(fd);
}

int main(void) {
    kernels_init(&kernels, cpu_features());
    for (int i = 0; i < ORACLE_TOKENS; i++) prompt.token[i] = (i * i * 7 + 3) % MADE_VOCAB;
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        struct made s = models[i];
        s.d = 64, s.n_head = 6, s.n_kv = 3, s.hd = 32, s.n_ff = 96;
        if (!s.n_rot) s.n_rot = s.hd;
        check_oracle(&s);
        check_ways(&s, W_Q8_0);
        if (s.n_ff_shared) {  // the most buffers that there can be
            s.what = "qwen2moe of many types";
            s.mixed = true;
            check_oracle(&s);
            check_ways(&s, W_Q8_0);
        }
        if (s.scaling && !strcmp(s.scaling, "longrope")) check_divisors(&s);
    }
    return tap_done();
}
