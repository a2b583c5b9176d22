/* cmd_plan.c - where everything would go and how fast that would be, before anything is loaded. */
#include "setup_show.h"
#include "verbs.h"

struct plan_conf {
    struct machine machine;
    const char *tokenizer;
    bool is_json;
};

static const struct opt plan_opt[] = {
    TOKENIZER_OPTION(struct plan_conf),
    MACHINE_OPTIONS(struct plan_conf),
    {"--json", OPT_FLAG, offsetof(struct plan_conf, is_json), NULL, "all of it as one JSON object",
     0, 0},
};

/* One slice's part: rows of each kind, and what its share of the budget goes to. */
struct part {
    struct cuts cuts;
    struct nn_memory memory;
};

static MUST measure_part(const struct setup *s, unsigned i, struct part *p, struct err *e) {
    struct nn_conf c;
    if (!engine_slice_conf(&s->conf, i, &c, e) || !nn_measure(&c, &p->memory, e)) return false;
    p->cuts = c.cuts;
    return true;
}

static void print_part(unsigned i, const struct part *p) {
    const struct nn_memory *m = &p->memory;
    const struct cuts *k = &p->cuts;
    const struct bar_part bar_part[] = {{(double)setup_kept(m), '#'}};
    char bar[32];
    printf("%5u  %5u %6u %6u %7u  %10s %10s %10s  %s\n", i + 1, k->kv_head[i + 1] - k->kv_head[i],
           k->embd[i + 1] - k->embd[i], k->ff[i + 1] - k->ff[i], k->vocab[i + 1] - k->vocab[i],
           BYTES_TEXT(setup_pinned(m)), BYTES_TEXT(m->disk_bytes), BYTES_TEXT(m->kv_bytes),
           text_bar(bar, 16, (double)m->sweep_bytes, bar_part, 1));
}

/* Budgets worth knowing: the least, some between, and what holds it all. */
enum { N_STEP = 6 };

static unsigned ladder(const struct setup *s, uint64_t budget[N_STEP]) {
    const uint64_t mib = 1 << 20;
    unsigned n = 0;
    uint64_t low = s->least, high = s->in_ram > low ? s->in_ram : low;
    for (unsigned i = 0; i < N_STEP; i++) {
        uint64_t b = (low + (high - low) * i / (N_STEP - 1) + mib - 1) / mib * mib;
        if (n == 0 || b > budget[n - 1]) budget[n++] = b;
    }
    return n;
}

static void print_ladder(const struct setup *s) {
    uint64_t budget[N_STEP] = {0};
    unsigned n = ladder(s, budget);
    printf("\nWith other budgets:\n%10s %10s  %-22s\n", "--memory", "tokens/s",
           "weights in memory");
    for (unsigned i = 0; i < n; i++) {
        struct nn_memory m;
        struct forecast f;
        if (!setup_at(s, budget[i], &m, &f)) continue;
        uint64_t kept = setup_kept(&m);
        char bar[32];
        printf("%9lluM %10.2f  %s %3.0f %%, limited by %s\n", (unsigned long long)(budget[i] >> 20),
               f.decode_tps,
               text_bar(bar, 16, (double)m.sweep_bytes, &(struct bar_part){(double)kept, '#'}, 1),
               m.sweep_bytes ? 100 * (double)kept / (double)m.sweep_bytes : 100,
               setup_limit(s, &f));
    }
}

static MUST print_plan(const struct setup *s, struct err *e) {
    unsigned n_thread = s->tune.count[s->tune.best];
    setup_print(s, stdout);
    printf("measured  memory %s, matrix kernel %s with %u thread%s, disk %s;\n"
           "          a token takes %.1f ms of computing and %.1f ms of disk\n",
           RATE_TEXT(s->read_bps), RATE_TEXT(s->compute_bps), n_thread, n_thread == 1 ? "" : "s",
           RATE_TEXT(s->disk_bps), s->forecast.compute_s * 1e3, s->forecast.disk_s * 1e3);
    printf("\n%5s  %5s %6s %6s %7s  %10s %10s %10s  %s\n", "slice", "heads", "width", "ff", "vocab",
           "kept", "a token", "context", "kept of its weights");
    for (unsigned i = 0; i < s->conf.n_slice; i++) {
        struct part p;
        if (!measure_part(s, i, &p, e)) return false;
        print_part(i, &p);
    }
    print_ladder(s);
    return true;
}

static MUST json_slices(const struct setup *s, struct json *j, struct err *e) {
    json_key(j, "placement");
    json_array(j);
    for (unsigned i = 0; i < s->conf.n_slice; i++) {
        struct part p;
        if (!measure_part(s, i, &p, e)) return false;
        const struct cuts *k = &p.cuts;
        json_object(j);
        json_put_u64(j, "kv_heads", k->kv_head[i + 1] - k->kv_head[i]);
        json_put_u64(j, "width_rows", k->embd[i + 1] - k->embd[i]);
        json_put_u64(j, "ff_rows", k->ff[i + 1] - k->ff[i]);
        json_put_u64(j, "vocab_rows", k->vocab[i + 1] - k->vocab[i]);
        json_put_u64(j, "pinned_bytes", setup_pinned(&p.memory));
        json_put_u64(j, "streamed_bytes", p.memory.disk_bytes);
        json_put_u64(j, "sweep_bytes", p.memory.sweep_bytes);
        json_put_u64(j, "kv_bytes", p.memory.kv_bytes);
        json_put_u64(j, "scratch_bytes", p.memory.scratch_bytes);
        json_put_u64(j, "ring_bytes", p.memory.ring_bytes);
        json_end(j);
    }
    json_end(j);
    return true;
}

static MUST json_plan(const struct setup *s, struct err *e) {
    struct json j;
    uint64_t budget[N_STEP] = {0};
    unsigned n = ladder(s, budget);
    json_file(&j, stdout);
    json_object(&j);
    json_put_text(&j, "file", s->model.file[0].path);
    json_put_text(&j, "name", s->model.name);
    setup_json(s, &j);
    json_put_real(&j, "compute_s", s->forecast.compute_s);
    json_put_real(&j, "disk_s", s->forecast.disk_s);
    if (!json_slices(s, &j, e)) return false;
    json_key(&j, "budgets");
    json_array(&j);
    for (unsigned i = 0; i < n; i++) {
        struct nn_memory m;
        struct forecast f;
        if (!setup_at(s, budget[i], &m, &f)) continue;
        json_object(&j);
        json_put_u64(&j, "budget_bytes", budget[i]);
        json_put_u64(&j, "streamed_bytes", m.disk_bytes);
        json_put_real(&j, "forecast_tps", f.decode_tps);
        json_put_text(&j, "limited_by", setup_limit_word(s, &f));
        json_end(&j);
    }
    json_end(&j);
    json_end(&j);
    json_line(&j);
    return true;
}

static MUST plan(void *conf, const char *path, struct setup *s, struct err *e) {
    const struct plan_conf *c = conf;
    if (!setup_open(s, path, c->tokenizer, MODEL_ALL, e) || !setup_tok(s, e)) return false;
    if (!setup_fit(s, &c->machine, e) || !setup_probe(s, DISK_ALWAYS, e)) return false;
    return c->is_json ? json_plan(s, e) : print_plan(s, e);
}

static int plan_main(const struct verb *v, int argc, char **argv) {
    struct plan_conf c = {.machine = MACHINE_DEFAULT};
    return verb_on_model(v, argc, argv, &c, plan);
}

const struct verb verb_plan = {
    .name = "plan",
    .usage = "[MODEL] [options]",
    .summary = "Say where everything would go and how fast it would be, without running it",
    .notes =
        "Takes two to four seconds: memory and disk are measured, and where weights would come from "
        "the\ndisk some layers are loaded and run on trial. The model as a whole is not loaded.\n",
    .opt = plan_opt,
    .n_opt = sizeof plan_opt / sizeof *plan_opt,
    .max_word = 1,
    .run = plan_main,
};
