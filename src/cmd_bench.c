/* cmd_bench.c - how fast this machine is, each figure beside the limit it runs against. */
#include "base/progress.h"
#include "gemv.h"
#include "host/facts.h"
#include "setup_show.h"
#include "store/diskprobe.h"
#include "verbs.h"

#include <string.h>

#define MIB  ((uint64_t)1 << 20)
#define BIG  (512 * MIB)  // many times any cache, or repeated passes would be read from it
#define MANY (64 * MIB)   // with so many tokens that it hardly matters

enum { LIST_MAX = 16, TOKENS_FEW = 16, CTX_BENCH = 512, CTX_LEAST = 8, PROMPT = 128 };
static const double SECONDS = 0.4;  // for each figure of the matrix kernels

struct bench_conf {
    struct machine machine;
    const char *tokenizer, *threads;
    uint32_t n_predict;
    bool is_roofline, is_json;
};

#define AT(field) offsetof(struct bench_conf, field)
static const struct opt bench_opt[] = {
    {"--threads", OPT_TEXT, AT(threads), "A,B,..",
     "numbers of threads to measure with, the model by the last (1,all)", 0, 0},
    {"-n", OPT_U32, AT(n_predict), "N", "tokens to let the model write (32)", 2, 100000},
    {"--roofline", OPT_FLAG, AT(is_roofline), NULL,
     "matrix kernels at 1 to 128 tokens at once, up to where computing limits", 0, 0},
    TOKENIZER_OPTION(struct bench_conf),
    MACHINE_OPTION(struct bench_conf, "--memory", OPT_AMOUNT, memory, "SIZE",
                   "memory to use in all: 512M, 4G, or 50% of the RAM", 0, 0),
    MACHINE_OPTION(struct bench_conf, "--ctx", OPT_U32, ctx, "N", "tokens of context (512)",
                   CTX_LEAST, MODEL_MAX_CTX),
    MACHINE_OPTION(struct bench_conf, "--slices", OPT_TEXT, slices, "N|A:B:..",
                   "share the work as N machines would, or in uneven shares (1)", 0, 0),
    {"--json", OPT_FLAG, AT(is_json), NULL, "a JSON object for each figure", 0, 0},
};

struct bench {
    const struct bench_conf *conf;
    struct setup *s;
    unsigned n_count;
    unsigned count[LIST_MAX];   // threads to measure with
    double read_bps[LIST_MAX];  // memory, by count
    double disk_bps;
    struct json json;
};

/* One figure; limit 0: it has none. Rates in units of `unit`. */
struct figure {
    const char *what;
    unsigned threads, tokens;  // 0: does not apply
    double value;
    const char *unit;
    double limit;
    const char *limit_by;
};

static void put_figure(struct bench *b, const struct figure *f) {
    struct json *j = &b->json;
    if (!b->conf->is_json) {
        char with[32] = "";
        if (f->threads)
            snprintf(with, sizeof with, "%u thread%s", f->threads, f->threads > 1 ? "s" : "");
        if (f->tokens) snprintf(with, sizeof with, "%u at once", f->tokens);
        printf("%-24s %-12s %9.2f %-9s", f->what, with, f->value, f->unit);
        if (f->limit > 0) {
            printf(" %5.1f %% of %.2f, %s", 100 * f->value / f->limit, f->limit, f->limit_by);
        }
        printf("\n");
        fflush(stdout);
        return;
    }
    json_object(j);
    json_put_text(j, "what", f->what);
    if (f->threads) json_put_u64(j, "threads", f->threads);
    if (f->tokens) json_put_u64(j, "tokens_at_once", f->tokens);
    json_put_real(j, "value", f->value);
    json_put_text(j, "unit", f->unit);
    if (f->limit > 0) {
        json_put_real(j, "limit", f->limit);
        json_put_text(j, "limit_by", f->limit_by);
    }
    json_end(j);
    json_line(j);
    fflush(stdout);
}

/* "model name : X" of /proc/cpuinfo, or the board's name from the device tree. */
static void cpu_name(char *out, size_t cap) {
    static char text[8192];
    const char *root = "/";
    out[0] = '\0';
    if (facts_read(root, "proc/device-tree/model", text, sizeof text)) {
        text_printable(out, cap, text);
        return;
    }
    if (!facts_read(root, "proc/cpuinfo", text, sizeof text)) return;
    const char *at = strstr(text, "model name");
    at = at ? strchr(at, ':') : NULL;
    if (!at) return;
    at += strspn(at, ": \t");
    size_t n = strcspn(at, "\n");
    snprintf(out, cap, "%.*s", (int)(n < cap ? n : cap - 1), at);
}

static void put_machine(struct bench *b) {
    const struct setup *s = b->s;
    char cpu[96];
    cpu_name(cpu, sizeof cpu);
    const char *name = *cpu ? cpu : "unknown CPU";
    if (!b->conf->is_json) {
        printf("machine   %s, %d cores, %s of memory, kernels %s\n", name, s->n_core,
               BYTES_TEXT(s->mem.total), s->kernels.name);
        setup_print_model(s, stdout);
        printf("budget    %s\n\n", BYTES_TEXT(s->budget));
        fflush(stdout);
        return;
    }
    json_object(&b->json);
    json_put_text(&b->json, "what", "machine");
    json_put_text(&b->json, "cpu", name);
    json_put_u64(&b->json, "cores", (uint64_t)s->n_core);
    json_put_u64(&b->json, "ram_bytes", s->mem.total);
    json_put_text(&b->json, "kernels", s->kernels.name);
    json_put_text(&b->json, "model", s->model.file[0].path);
    json_put_u64(&b->json, "budget_bytes", s->budget);
    json_end(&b->json);
    json_line(&b->json);
}

static MUST bench_memory(struct bench *b, struct err *e) {
    uint64_t bytes = b->s->pool / 2 < BIG ? b->s->pool / 2 : BIG;
    for (unsigned i = 0; i < b->n_count; i++) {
        if (!host_read_speed((int)b->count[i], bytes, &b->read_bps[i], e)) return false;
        put_figure(b, &(struct figure){.what = "memory read",
                                       .threads = b->count[i],
                                       .value = b->read_bps[i] * 1e-9,
                                       .unit = "GB/s"});
    }
    return true;
}

static MUST bench_disk(struct bench *b, struct err *e) {
    static const uint32_t reader[] = {1, 2, 4};
    const struct model_file *f = model_main_file(&b->s->model);
    uint64_t chunk = b->s->pool / 16 < TILE_MAX ? b->s->pool / 16 : TILE_MAX;
    chunk = chunk < TILE_MIN ? TILE_MIN : chunk / TILE_MIN * TILE_MIN;
    for (size_t i = 0; i < 3; i++) {
        struct disk_speed d;
        if (!disk_probe(f->path, f->data_off, f->data_len, (uint32_t)chunk, reader[i], 1, &d, e)) {
            return false;
        }
        if (d.bytes_per_s > b->disk_bps) b->disk_bps = d.bytes_per_s;
        put_figure(b, &(struct figure){.what = "disk read, past cache",
                                       .threads = reader[i],
                                       .value = d.bytes_per_s * 1e-9,
                                       .unit = "GB/s"});
    }
    return true;
}

static const struct {
    int type;
    const char *name;
} bench_type[] = {{W_Q4_0, "matrix Q4_0"}, {W_Q8_0, "matrix Q8_0"}, {W_Q4_K, "matrix Q4_K"}};
enum { TYPES = sizeof bench_type / sizeof *bench_type };

static MUST bench_gemv(struct bench *b, size_t t, unsigned at, size_t n_tok, struct err *e) {
    uint64_t room = b->s->pool / 2, most = n_tok > TOKENS_FEW ? MANY : BIG;
    const struct gemv_conf c = {.kernels = &b->s->kernels,
                                .type = bench_type[t].type,
                                .n_thread = (int)b->count[at],
                                .n_tok = n_tok,
                                .bytes = room < most ? room : most,
                                .multiplies = n_tok > 1,
                                .seconds = SECONDS};
    struct gemv_speed speed;
    if (!gemv_speed(&c, &speed, e)) return false;
    struct figure f = {.what = bench_type[t].name,
                       .threads = n_tok > 1 ? 0 : b->count[at],
                       .tokens = n_tok > 1 ? (unsigned)n_tok : 0,
                       .value = speed.bytes_per_s * 1e-9,
                       .unit = "GB/s",
                       .limit = b->read_bps[at] * 1e-9,
                       .limit_by = "memory read"};
    if (n_tok == 1 || b->conf->is_roofline) put_figure(b, &f);
    f.value = speed.usual_ops_per_s * 1e-9;
    f.unit = "Gop/s";
    f.limit = speed.multiply_per_s * 1e-9;
    f.limit_by = "multipliers alone";
    if (n_tok > 1 || b->conf->is_roofline) put_figure(b, &f);
    return true;
}

static MUST bench_kernels(struct bench *b, struct err *e) {
    unsigned last = b->n_count - 1;
    for (size_t t = 0; t < TYPES; t++) {
        for (unsigned i = 0; i < b->n_count; i++) {
            if (!bench_gemv(b, t, i, 1, e)) return false;
        }
        for (size_t n = b->conf->is_roofline ? 2 : PROMPT; n <= PROMPT; n *= 2) {
            if (!bench_gemv(b, t, last, n, e)) return false;
        }
    }
    return true;
}

static bool never_ends(void *ctx, int32_t id) {
    (void)ctx;
    (void)id;
    return false;
}

static bool goes_on(void *ctx, int32_t id) {
    (void)ctx;
    (void)id;
    return true;
}

static bool on_load(void *ctx, uint64_t done, uint64_t total) {
    progress_update(ctx, done, total);
    return true;
}

static void put_model(struct bench *b, const struct gen_result *r, uint32_t n_prompt) {
    const struct setup *s = b->s;
    bool streams = s->memory.disk_bytes > 0;
    put_figure(b, &(struct figure){.what = "model, reading a prompt",
                                   .value = n_prompt / r->prefill_s,
                                   .unit = "tokens/s"});
    put_figure(b, &(struct figure){.what = "model, answering",
                                   .value = r->n_step / r->decode_s,
                                   .unit = "tokens/s",
                                   .limit = s->forecast.decode_tps,
                                   .limit_by = setup_limit(s, &s->forecast)});
    if (streams) {
        put_figure(b, &(struct figure){.what = "disk while answering",
                                       .value = (double)r->streamed_bytes / r->decode_s * 1e-9,
                                       .unit = "GB/s",
                                       .limit = s->disk_bps * 1e-9,
                                       .limit_by = "disk read"});
    }
}

static MUST bench_model(struct bench *b, struct err *e) {
    struct setup *s = b->s;
    struct engine *g;
    struct progress p;
    int32_t prompt[PROMPT];
    uint32_t room = s->conf.n_ctx - 2;
    uint32_t n_prompt = room / 2 < PROMPT ? room / 2 : PROMPT;
    for (uint32_t i = 0; i < n_prompt; i++)
        prompt[i] = (int32_t)((i * 7919U + 3) % s->model.n_vocab);
    if (!engine_open(&g, &s->conf, e)) return false;
    progress_start(&p, "loading", PROGRESS_BYTES, b->conf->is_json ? NULL : stderr);
    bool ok = engine_load(g, on_load, &p, e);
    progress_end(&p);
    struct gen_request r = {
        .prompt = prompt,
        .n_prompt = n_prompt,
        .n_predict = b->conf->n_predict < room - n_prompt ? b->conf->n_predict : room - n_prompt,
        .sampler = {.temp = 0, .top_p = 1},
        .is_end = never_ends,
        .on_token = goes_on,
    };
    struct gen_result result = {0};
    ok = ok && engine_generate(g, &r, &result, e);
    engine_close(g);
    if (ok) put_model(b, &result, n_prompt);
    return ok;
}

/* The forecast; what is shown beside it is the better of two measurements. */
static MUST bench_forecast(struct bench *b, struct err *e) {
    struct setup *s = b->s;
    double read_bps = b->read_bps[b->n_count - 1];
    if (!setup_probe(s, DISK_IF_NEEDED, e)) return false;
    if (read_bps > s->read_bps) s->read_bps = read_bps;
    if (b->disk_bps > s->disk_bps) s->disk_bps = b->disk_bps;
    return true;
}

/* Numbers of threads: those asked for, or one and all cores. */
static MUST set_counts(struct bench *b, struct err *e) {
    double v[LIST_MAX];
    if (b->conf->threads) {
        size_t n = options_list(b->conf->threads, ',', 1, PAR_MAX, v, LIST_MAX);
        for (size_t i = 0; i < n; i++) b->count[i] = (unsigned)v[i];
        b->n_count = (unsigned)n;
        return n || err_set(e, ERR_USAGE, "--threads takes numbers such as 1,2,4, not \"%.60s\"",
                            b->conf->threads);
    }
    b->count[b->n_count++] = 1;
    if (b->s->n_core > 1) b->count[b->n_count++] = (unsigned)b->s->n_core;
    return true;
}

static MUST bench(void *conf, const char *path, struct setup *s, struct err *e) {
    const struct bench_conf *c = conf;
    struct bench b = {.conf = c, .s = s};
    struct machine m = c->machine;
    json_file(&b.json, stdout);
    if (!setup_open(s, path, c->tokenizer, MODEL_ALL, e) || !setup_tok(s, e) || !set_counts(&b, e))
        return false;
    m.threads = b.count[b.n_count - 1];
    if (!m.ctx) m.ctx = s->model.n_ctx < CTX_BENCH ? s->model.n_ctx : CTX_BENCH;
    if (m.ctx < CTX_LEAST) {
        return err_set(e, ERR_UNSUPPORTED,
                       "the model was made for a context of %u, and %d tokens are the least to "
                       "measure with; take another model",
                       m.ctx, CTX_LEAST);
    }
    s->n_prompt = PROMPT;
    s->n_answer = c->n_predict;
    if (!setup_fit(s, &m, e)) return false;
    put_machine(&b);
    return bench_memory(&b, e) && bench_disk(&b, e) && bench_kernels(&b, e) &&
           bench_forecast(&b, e) && bench_model(&b, e);
}

static int bench_main(const struct verb *v, int argc, char **argv) {
    struct bench_conf c = {.machine = MACHINE_DEFAULT, .n_predict = 32};
    return verb_on_model(v, argc, argv, &c, bench);
}

const struct verb verb_bench = {
    .name = "bench",
    .usage = "[MODEL] [options]",
    .summary = "Measure memory, disk, matrix kernels and tokens/s, each beside its limit",
    .notes = "Takes about ten seconds. Other programs running meanwhile lower the figures.\n",
    .opt = bench_opt,
    .n_opt = sizeof bench_opt / sizeof *bench_opt,
    .max_word = 1,
    .run = bench_main,
};
