#include "setup.h"

#include "store/diskprobe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MIB ((uint64_t)1 << 20)

enum {
    CTX_DEFAULT = 4096,
    /* Tokens through a layer at once: 128 are as fast as 512, 32 take a quarter longer. */
    BATCH_MOST = 128,
    BATCH_NODE = 64,      // of a node: what is gathered at once grows with it
    PROMPT_USUAL = 1024,  // tokens, where the prompt is not known yet
    BATCH_STREAM = 64,    // of a model that streams: its scratch takes from what stays
    BATCH_PART = 16,      // of what a token reads: so much may a batch's scratch take
    BATCH_LEAST = 16,     // below, prompts are slow, and a step has no room for all guesses
    ANSWER_USUAL = 128,   // the same of the answer
    GUESS_PART = 64,     // of what a token reads, or of the pool: so much may guessing take from it
    KEEP_PART = 8,       // of the pool, at most, for texts to come
    GUESS_LEAST = 2048,  // of the pool, which no step's time shows
    SCORE_TIMES = 4,     // scoring takes so much more
    GUESS_RAM = 15,      // guesses in a step; more cost as much as tokens
    READERS_USUAL = 2,
    READERS_FAST = 4,
    RING_USUAL = 8,
    RING_LEAST = 4,
    RING_PART = 16,  // of what a token streams, at most
    CHUNK_UNIT = 4096,
    PAGE_PART = 512
};
static const double FAST_DISK = 2e9;       // bytes/s that two readers cannot saturate
static const double CLEARLY_SLOWER = 0.8;  // below this part of the memory's speed a kernel limits
static const double DISK_SECONDS = 0.15;   // to read for a measurement

/* All variants' names: "scalar, avx2 and neon". */
static void list_variants(char *to, size_t size) {
    int n = snprintf(to, size, "%s", cpu_variant(0));
    for (size_t i = 1; cpu_variant(i) && n > 0 && (size_t)n < size; i++) {
        const char *before = cpu_variant(i + 1) ? ", " : " and ";
        n += snprintf(to + n, size - (size_t)n, "%s%s", before, cpu_variant(i));
    }
}

MUST setup_kernels(struct kernels *k, struct err *e) {
    const char *name = getenv("DAIR_CPU");
    bool known = true;
    if (name && *name) (void)cpu_restrict(0, name, &known);
    if (!known) {
        char all[120];
        list_variants(all, sizeof all);
        return err_set(e, ERR_USAGE, "DAIR_CPU knows %s, not \"%.60s\"", all, name);
    }
    kernels_init(k, cpu_features());
    return true;
}

MUST setup_open(struct setup *s, const char *path, const char *tokenizer, enum model_part part,
                struct err *e) {
    uint64_t base = 0, len = 0;
    memset(s, 0, sizeof *s);
    if (!setup_kernels(&s->kernels, e)) return false;
    s->n_core = host_cores();
    if (path) return model_open_with(&s->model, path, tokenizer, part, e);
    if (tokenizer) return err_set(e, ERR_USAGE, "--tokenizer needs a model, a .m file");
    if (!model_demo(s->demo_path, &base, &len, e)) return false;
    s->is_demo = true;
    return model_open_part(&s->model, s->demo_path, base, len, part, e);
}

MUST setup_tok(struct setup *s, struct err *e) {
    const struct model *m = &s->model;
    const char *path = m->tokenizer ? m->tokenizer->path : m->file[0].path;
    return tok_open(&s->tok, &m->vocab, e) || err_in_file(e, s->is_demo ? "demo model" : path);
}

/* Tokens of both models must be the same texts, or every guess would be wrong. */
static MUST check_vocab(const struct setup *s, struct err *e) {
    const struct vocab *a = &s->model.vocab, *b = &s->draft.vocab;
    bool same = s->model.n_vocab == s->draft.n_vocab && a->n_token == b->n_token &&
                !memcmp(a->start, b->start, (a->n_token + 1UL) * sizeof *a->start) &&
                !memcmp(a->text, b->text, a->start[a->n_token]);
    if (same) return true;
    (void)err_set(
        e, ERR_UNSUPPORTED,
        "its vocabulary is not that of the model it shall guess for; take one of the same "
        "family");
    return err_in_file(e, s->draft.file[0].path);
}

MUST setup_draft(struct setup *s, const char *path, struct err *e) {
    return model_open(&s->draft, path, 0, 0, e) && check_vocab(s, e);
}

void setup_close(struct setup *s) {
    if (s->tok) tok_close(s->tok);
    s->tok = NULL;
    if (s->draft.mem.base) model_close(&s->draft);
    memset(&s->draft, 0, sizeof s->draft);
    if (s->model.mem.base) model_close(&s->model);
    memset(&s->model, 0, sizeof s->model);
}

MUST setup_context(const struct setup *s, const struct machine *m, uint32_t *n_ctx, struct err *e) {
    uint32_t most = s->model.n_ctx;
    if (m->ctx > most) {
        return err_set(e, ERR_USAGE, "--ctx %u is more than the %u tokens the model was made for",
                       m->ctx, most);
    }
    *n_ctx = m->ctx ? m->ctx : most < CTX_DEFAULT ? most : CTX_DEFAULT;
    return true;
}

static MUST set_slices(struct engine_conf *c, const char *text, struct err *e) {
    double v[SLICE_MAX];
    c->n_slice = 1;
    c->share[0] = 1;
    if (!text) return true;
    size_t n = options_list(text, ':', 1e-3, 1e6, v, SLICE_MAX);
    bool is_count = n == 1 && v[0] >= 1 && v[0] <= SLICE_MAX && v[0] == (double)(unsigned)v[0];
    if (n == 0 || (n == 1 && !is_count)) {
        return err_set(e, ERR_USAGE,
                       "--slices takes a number up to %d or up to %d shares such as 3:2:1, not "
                       "\"%.60s\"",
                       SLICE_MAX, SLICE_MAX, text);
    }
    c->n_slice = is_count ? (unsigned)v[0] : (unsigned)n;
    for (unsigned i = 0; i < c->n_slice; i++) c->share[i] = is_count ? 1 : v[i];
    return true;
}

/* What is kept back of a budget: thread stacks, page tables, buffers of the C library. */
static uint64_t slack_of(uint64_t budget) {
    uint64_t s = budget / 64, most = 16 * MIB;
    if (s < 2 * MIB) return 2 * MIB;
    /* Buffers do not grow any more; page tables do, and are charged to the control group. */
    return s <= most ? s : most + (budget - 64 * most) / PAGE_PART;
}

/* The smallest whole budget that leaves the engine `pool` bytes, to the MiB above. */
static uint64_t budget_for(uint64_t program, uint64_t pool) {
    uint64_t b = (program + pool) / MIB * MIB;
    while (b < program + slack_of(b) + pool) b += MIB;
    return b;
}

uint64_t setup_whole(const struct setup *s, uint64_t pool) {
    return budget_for(s->program, pool);
}

/* What the budget leaves the engine. */
static void take_budget(struct setup *s, uint64_t budget) {
    s->budget = budget;
    s->slack = slack_of(budget);
    uint64_t off = s->program + s->slack + s->text;
    s->pool = budget > off ? budget - off : 0;
}

MUST setup_budget(struct setup *s, const struct machine *m, struct err *e) {
    if (!host_mem(&s->mem, e)) return false;
    bool is_asked = m->memory.bytes || m->memory.percent > 0;
    uint64_t most = s->mem.total < s->mem.cgroup_limit ? s->mem.total : s->mem.cgroup_limit;
    uint64_t budget = is_asked ? amount_of(m->memory, most) : host_budget(&s->mem);
    if (budget > most) {
        return err_set(e, ERR_MEMORY, "--memory %s is more than the %s that can be had here",
                       BYTES_TEXT(budget), BYTES_TEXT(most));
    }
    s->program = s->mem.rss;
    take_budget(s, budget);
    return true;
}

size_t setup_text_most(const struct setup *s) {
    uint64_t most = s->pool / TOK_BYTES;
    return most < TEXT_CHEAP ? TEXT_CHEAP : (size_t)most;
}

static void keep_text(struct setup *s, uint64_t bytes) {
    s->text = bytes;
    take_budget(s, s->budget);
}

void setup_keep_text(struct setup *s, size_t want) {
    uint64_t most = s->pool / KEEP_PART, bytes = (uint64_t)want * TOK_BYTES;
    keep_text(s, bytes < most ? bytes : most);
}

size_t setup_kept_text(const struct setup *s) {
    uint64_t len = s->text / TOK_BYTES;
    return len < TEXT_CHEAP ? TEXT_CHEAP : (size_t)len;
}

MUST setup_check_text(const struct setup *s, const char *what, size_t len, struct err *e) {
    if (len <= setup_text_most(s)) return true;
    return err_set(e, ERR_MEMORY,
                   "a %s of %zu bytes or more may take %s to be made tokens of, more than the "
                   "memory budget of %s leaves; give more --memory or a shorter %s",
                   what, len, BYTES_TEXT((uint64_t)len * TOK_BYTES), BYTES_TEXT(s->budget), what);
}

static MUST measure(const struct setup *s, uint32_t batch, uint32_t slot, uint64_t pool,
                    struct nn_memory *m, struct err *e) {
    struct engine_conf c = s->conf;
    c.n_batch = batch;
    if (batch < s->conf.n_batch) c.n_sweep = 0;
    if (c.n_guess >= batch) c.n_guess = batch - 1;
    if (c.n_logit > batch) c.n_logit = batch;
    c.n_slot = slot;
    c.budget = pool;
    return engine_measure(&c, m, e);
}

/* The same with the pool as it is, and with all of it for the large model: a draft may be given up. */
static MUST measure_alone(struct setup *s, uint32_t batch, uint32_t slot, struct nn_memory *m,
                          struct err *e) {
    const struct model *draft = s->conf.draft;
    s->conf.draft = NULL;
    bool ok = measure(s, batch, slot, s->pool, m, e);
    s->conf.draft = draft;
    return ok;
}

/* The smallest pool that works at all. */
static MUST least_pool(const struct setup *s, uint64_t *pool, struct err *e) {
    struct nn_memory m;
    if (!measure(s, 1, 2, NN_PLENTY, &m, e)) {
        return err_in_file(e, s->is_demo ? "demo model" : s->model.file[0].path);
    }
    *pool = m.min_budget;
    return true;
}

static MUST too_small(const struct setup *s, struct err *e) {
    (void)err_set(e, ERR_MEMORY,
                  "needs at least %llu MiB (with a context of %u tokens), the memory budget is %s; "
                  "give more --memory or a smaller --ctx",
                  (unsigned long long)(s->least / MIB), s->conf.n_ctx, BYTES_TEXT(s->budget));
    return err_in_file(e, s->is_demo ? "the demo model" : s->model.file[0].path);
}

/* As many guesses as so many bytes hold rows of logits for, the one of every step not counted; and tokens
 * to score. */
static void choose_guesses(struct setup *s, uint32_t most, uint64_t bytes) {
    struct engine_conf *c = &s->conf;
    uint64_t row = s->model.n_vocab * sizeof(float);
    uint64_t rows = bytes / row, score = s->pool / GUESS_PART * SCORE_TIMES / row;
    c->n_guess = c->spec == SPEC_OFF ? 0 : rows < most ? (uint32_t)rows : most;
    c->n_logit = score < s->n_logit ? (uint32_t)score : s->n_logit;
    if (s->n_logit && !c->n_logit) c->n_logit = 1;
}

/* Of a model that streams `disk` bytes a token: so much more would be read without the memory. */
static uint64_t guess_bytes(const struct setup *s, uint64_t disk) {
    uint64_t least = s->pool / GUESS_LEAST, most = s->pool / GUESS_PART;
    disk /= GUESS_PART;
    return disk < least ? least : disk < most ? disk : most;
}

static uint32_t batch_of(const struct setup *s, uint32_t n) {
    return n < s->conf.n_ctx ? n : s->conf.n_ctx;
}

/* Nothing streams with the pool as it is. */
static bool holds_all(const struct setup *s, uint32_t batch) {
    struct nn_memory m;
    struct err e;
    return measure(s, batch, RING_USUAL, s->pool, &m, &e) && !m.disk_bytes;
}

/* Tokens at once. Weights come first: what a batch's scratch takes from them each answer token pays for,
 * and only prompts are faster by it. So as many as let all stay; else as many as make a token read no more
 * than a fair part more than with one at a time, and leave room for a ring. By bytes of memory, not of
 * tiles: the more stays the smaller the batch, so that a larger budget never keeps less for its sake. */
static MUST choose_batch(struct setup *s, struct err *e) {
    struct engine_conf *c = &s->conf;
    struct nn_memory one, m;
    if (holds_all(s, batch_of(s, BATCH_LEAST))) {
        c->n_batch = batch_of(s, BATCH_MOST);
        while (c->n_batch > BATCH_LEAST && !holds_all(s, c->n_batch)) c->n_batch /= 2;
        return true;
    }
    if (!measure_alone(s, 1, 2, &one, e)) return false;
    uint64_t part = one.disk_bytes / BATCH_PART, least = one.sweep_bytes / (4 * BATCH_PART);
    uint64_t more = part > least ? part : least;
    if (more > s->pool / 4 || s->n_logit) more = s->pool / 4;  // to score is to read a prompt
    for (c->n_batch = batch_of(s, BATCH_STREAM); c->n_batch > 1; c->n_batch /= 2) {
        if (!measure(s, c->n_batch, 2, NN_PLENTY, &m, e)) return false;
        if (m.min_budget <= s->pool && m.scratch_bytes <= one.scratch_bytes + more) break;
    }
    return true;
}

/* A streaming model's prompt in as few sweeps as can be: all of it through each layer while the layer's
 * tiles stay, where the ring can hold them; else in larger batches. Either takes memory from resident
 * tiles, but may make a token read a part more only. */
static MUST choose_sweep(struct setup *s, struct err *e) {
    struct engine_conf *c = &s->conf;
    struct nn_memory m, alone;
    uint32_t want = s->n_prompt ? s->n_prompt : PROMPT_USUAL;
    if (want > c->n_ctx) want = c->n_ctx;
    if (!measure(s, c->n_batch, 2, s->pool, &m, e)) return e->code == ERR_MEMORY;
    if (!m.disk_bytes) return true;
    if (!measure_alone(s, c->n_batch, 2, &alone, e)) return e->code == ERR_MEMORY;
    if (alone.disk_bytes) choose_guesses(s, SPEC_MOST, guess_bytes(s, alone.disk_bytes));
    if (!measure(s, c->n_batch, RING_USUAL, s->pool, &m, e)) return e->code == ERR_MEMORY;
    struct nn_memory plain = m;
    uint64_t most = nn_fair_read(plain.disk_bytes, s->pool);
    for (c->n_sweep = want; c->n_sweep > c->n_batch; c->n_sweep /= 2) {
        if (measure(s, c->n_batch, RING_USUAL, s->pool, &m, e) &&
            nn_sweep_pays(&m, &plain, s->pool)) {
            return true;
        }
    }
    c->n_sweep = 0;
    while (c->n_batch < want && measure(s, c->n_batch * 2, RING_USUAL, s->pool, &m, e) &&
           m.disk_bytes <= most) {
        c->n_batch *= 2;
    }
    return true;
}

/* Of a ring of `slot` buffers, which m is with: is it worth its memory? One that holds a layer may be
 * larger. What it takes, each token reads anew, and more than half of what streams is never of use. */
static bool is_fair(const struct setup *s, const struct nn_memory *m, uint32_t slot,
                    uint64_t pool) {
    uint64_t fair = pool / (s->conf.n_sweep ? 2 : 4);
    bool serves = slot <= RING_LEAST ||
                  (slot <= m->tiles.n_streamed / 2 && m->ring_bytes <= m->disk_bytes / RING_PART);
    return slot == 2 || (serves && m->ring_bytes <= fair);
}

/* As many read-ahead buffers as are fair, up to `most`, at least two. */
static MUST choose_ring(struct setup *s, uint32_t most, struct err *e) {
    for (uint32_t slot = most; slot >= 2; slot /= 2) {
        struct nn_memory alone;
        bool ok = measure(s, s->conf.n_batch, slot, s->pool, &s->memory, e) &&
                  measure_alone(s, s->conf.n_batch, slot, &alone, e);
        if (!ok && e->code != ERR_MEMORY) return false;
        if (ok && is_fair(s, &alone, slot, s->pool)) {
            s->conf.n_slot = slot;
            return true;
        }
    }
    return too_small(s, e);
}

/* What a run does with its budget, and the table of others with each of them. */
static MUST fit_pool(struct setup *s, struct err *e) {
    struct engine_conf *c = &s->conf;
    c->budget = s->pool;
    c->n_sweep = 0;
    c->n_reader = READERS_USUAL;
    choose_guesses(s, GUESS_RAM, s->pool / GUESS_PART);
    if (!choose_batch(s, e) || !choose_sweep(s, e)) return false;
    if (c->n_guess >= c->n_batch) c->n_guess = c->n_batch - 1;
    if (c->n_logit > c->n_batch) c->n_logit = c->n_batch;
    return choose_ring(s, RING_USUAL, e);
}

/* With this budget nothing streams. */
static bool would_hold_all(const struct setup *s, uint64_t budget) {
    struct setup t = *s;
    take_budget(&t, budget);
    choose_guesses(&t, GUESS_RAM, t.pool / GUESS_PART);
    return holds_all(&t, batch_of(s, BATCH_LEAST));
}

/* The least such budget, to the MiB. What the weights take is not enough: loading wants some buffers,
 * and of uneven slices one may lack what another has too much of. */
static uint64_t in_ram_from(const struct setup *s, uint64_t low) {
    uint64_t high = low, step = MIB;
    while (!would_hold_all(s, high) && high < NN_PLENTY) {
        low = high + MIB;
        high += step;
        step *= 2;
    }
    while (low < high) {
        uint64_t mid = low + (high - low) / 2 / MIB * MIB;
        if (would_hold_all(s, mid))
            high = mid;
        else
            low = mid + MIB;
    }
    return high;
}

/* The team, and where it is to stay. Slices have a thread each, which the kernel places. */
static void choose_threads(struct setup *s, const struct machine *m) {
    struct engine_conf *c = &s->conf;
    c->n_thread = m->threads ? m->threads : (unsigned)(s->n_core < PAR_MAX ? s->n_core : PAR_MAX);
    s->has_count = m->threads > 0;
    if (s->has_places || c->n_slice > 1 || m->pin == PIN_OFF) return;
    host_places(c->n_thread, m->pin == PIN_ON, &c->places);
    s->has_places = true;
}

MUST setup_fit(struct setup *s, const struct machine *m, struct err *e) {
    struct engine_conf *c = &s->conf;
    struct nn_memory most;
    uint64_t least = 0;
    *c = (struct engine_conf){
        .model = &s->model, .kernels = &s->kernels, .n_reader = READERS_USUAL, .places = c->places};
    c->kv = (enum kv_type)m->kv;
    c->wire = (enum wire_type)m->wire;
    c->spec = (enum spec_kind)m->spec;
    c->draft = s->draft.n_layer ? &s->draft : NULL;
    if (!setup_context(s, m, &c->n_ctx, e) || !set_slices(c, m->slices, e)) return false;
    choose_threads(s, m);
    if (!setup_budget(s, m, e)) return false;
    if (!least_pool(s, &least, e)) return false;
    s->least = budget_for(s->program, least);
    if (least > s->pool) keep_text(s, 0);
    if (least > s->pool) return too_small(s, e);
    if (!measure(s, 1, 2, NN_PLENTY, &most, e)) return false;
    /* Without the embedding table, of which a token reads one row only. */
    s->in_ram = in_ram_from(
        s, budget_for(s->program + s->text, most.kv_bytes + most.scratch_bytes + most.fixed_bytes +
                                                most.weight_bytes + most.tiles.n_pinned * 64));
    return fit_pool(s, e);
}

/* Reads as long as those to come are on average: small ones are slower. */
static uint32_t probe_chunk(const struct setup *s) {
    const struct store_stats *t = &s->memory.tiles;
    uint64_t bytes = t->streamed_bytes_per_sweep + t->missing_bytes;
    uint32_t n = t->n_streamed + t->n_missing;
    uint64_t chunk = n ? bytes / n : s->model.data_len / 64;
    uint64_t most = s->pool / 2 / s->conf.n_reader;
    if (chunk > most) chunk = most;
    if (chunk > TILE_MAX) chunk = TILE_MAX;
    chunk &= ~(uint64_t)(CHUNK_UNIT - 1);
    return chunk < CHUNK_UNIT ? CHUNK_UNIT : (uint32_t)chunk;
}

static MUST read_disk(const struct setup *s, double seconds, struct disk_speed *d, struct err *e) {
    const struct model_file *f = model_main_file(&s->model);
    return disk_probe(f->path, f->data_off, f->data_len, s->disk_chunk, s->conf.n_reader, seconds,
                      d, e);
}

/* The better of two: what else happens at the moment only slows it. */
static MUST probe_disk(struct setup *s, struct err *e) {
    struct disk_speed d[2];
    s->disk_chunk = probe_chunk(s);
    if (!read_disk(s, DISK_SECONDS, &d[0], e) || !read_disk(s, DISK_SECONDS, &d[1], e))
        return false;
    bool first = d[0].bytes_per_s > d[1].bytes_per_s;
    s->disk_bps = d[first ? 0 : 1].bytes_per_s;
    return true;
}

/* The type of most weights that a token passes; GGUF's number. */
static uint32_t common_type(const struct model *m) {
    enum { N_TYPE = 64 };  // GGUF's numbers are below
    uint64_t sum[N_TYPE] = {0};
    uint32_t best = 0;
    for (uint32_t i = 0; i < m->n_tensor; i++) {
        const struct tensor *t = &m->tensor[i];
        if (t->type >= N_TYPE || (t == m->token_embd && t != m->output)) continue;
        sum[t->type] += t->len;
        if (sum[t->type] > sum[best]) best = t->type;
    }
    return best;
}

/* What to measure on: matrices of so many bytes of weights in all. */
static struct tune_conf tune_on(const struct setup *s, uint64_t bytes) {
    const struct engine_conf *c = &s->conf;
    bool has_slices = c->n_slice > 1;
    uint32_t n_pos =
        s->n_prompt + (s->n_answer ? s->n_answer + 1 : ANSWER_USUAL) / 2;  // on average
    return (struct tune_conf){
        .kernels = &s->kernels,
        .model = &s->model,
        .type = (int)common_type(&s->model),
        .kv = c->kv,
        .n_thread = has_slices ? c->n_slice : c->n_thread,
        .is_fixed = has_slices || s->has_count,
        .places = &c->places,
        .unit_bytes = s->model.data_len / 64 > TILE_MIN ? s->model.data_len / 64 : TILE_MIN,
        .bytes = bytes,
        .cache = host_cache(),
        .memory = s->pool / 2,
        .n_pos = n_pos < c->n_ctx ? n_pos : c->n_ctx,
    };
}

/* Threads and what they are good for. */
static MUST probe_threads(struct setup *s, uint64_t bytes, struct err *e) {
    const struct tune_conf t = tune_on(s, bytes);
    if (!tune_measure(&t, &s->tune, e)) return false;
    s->conf.n_decode = s->conf.n_slice > 1 ? 0 : s->tune.count[s->tune.best];
    s->compute_bps = s->tune.lasting_bps;
    return true;
}

static MUST probe_memory(struct setup *s, unsigned n_thread, struct err *e) {
    uint64_t enough = tune_beyond_cache(host_cache());
    uint64_t bytes = s->pool / 2 < enough ? s->pool / 2 : enough;
    if (bytes < MIB) bytes = MIB;
    return host_read_speed((int)n_thread, bytes, &s->read_bps, e);
}

static struct rates rates_of(const struct setup *s) {
    return (struct rates){.compute_bps = s->compute_bps,
                          .stream_bps = s->tune.stream_bps,
                          .rest_s = s->tune.rest_s,
                          .disk_bps = s->disk_bps};
}

static void foretell(const struct setup *s, const struct nn_memory *m, struct forecast *f) {
    const struct rates r = rates_of(s);
    rehearsed_forecast(&s->rehearsed, m, &r, f);
}

/* What the memory of a draft model makes a step longer, of that step. */
static double draft_keep(struct setup *s) {
    struct nn_memory alone;
    struct forecast f;
    struct err e;
    if (!s->conf.draft || !s->memory.disk_bytes) return 0;
    if (!measure_alone(s, s->conf.n_batch, s->conf.n_slot, &alone, &e)) return 0;
    foretell(s, &alone, &f);
    double part = 1 - s->forecast.decode_tps / f.decode_tps;
    return part > 0 ? part : 0;
}

static void forecast(struct setup *s) {
    foretell(s, &s->memory, &s->forecast);
    s->conf.draft_keep = draft_keep(s);
}

/* The best of its passes beside the best of the loop's. */
static bool is_kernel_slow(const struct setup *s) {
    return s->tune.bps[s->tune.best] < CLEARLY_SLOWER * s->read_bps;
}

static bool on_load(void *ctx, uint64_t done, uint64_t total) {
    progress_update(ctx, done, total);
    return true;
}

MUST setup_load(struct engine *g, struct progress *p, FILE *bars, struct err *e) {
    progress_start(p, "loading", PROGRESS_BYTES, bars);
    bool ok = engine_load(g, on_load, p, e);
    progress_end(p);
    return ok;
}

const char *setup_limit(const struct setup *s, const struct forecast *f) {
    return f->disk_bound ? "the disk" : is_kernel_slow(s) ? "computing" : "reading memory";
}

const char *setup_limit_word(const struct setup *s, const struct forecast *f) {
    return f->disk_bound ? "disk" : is_kernel_slow(s) ? "compute" : "memory";
}

/* A fast disk: more readers and buffers; with few buffers two readers, or none would be ready while they
 * read. */
static MUST add_readers(struct setup *s, struct err *e) {
    s->conf.n_reader = READERS_FAST;
    if (!choose_ring(s, 2 * RING_USUAL, e)) return false;
    if (s->conf.n_slot < 2 * READERS_FAST && !s->memory.n_demand) s->conf.n_reader = READERS_USUAL;
    return true;
}

static MUST speed_up(struct setup *s, struct err *e) {
    return add_readers(s, e) && (s->conf.n_reader == READERS_USUAL || probe_disk(s, e));
}

static MUST try_it(struct setup *s, const struct nn_memory *m, struct err *e) {
    const struct rates r = rates_of(s);
    return rehearse(&s->conf, m, &r, &s->rehearsed, e) || err_in(e, "trying how fast it runs");
}

/* With all in memory, others want to know about less: what half of that would be read by, and a trial of it. */
static MUST probe_less(struct setup *s, struct err *e) {
    struct setup t = *s;
    struct err none;
    take_budget(&t, (s->in_ram < s->budget ? s->in_ram : s->budget) / 2);
    if (!fit_pool(&t, &none) || !t.memory.disk_bytes) return true;
    if (s->disk_bps > FAST_DISK && !speed_up(&t, e)) return false;
    if (!try_it(&t, &t.memory, e)) return false;
    s->disk_bps = t.disk_bps;
    s->disk_chunk = t.disk_chunk;
    s->rehearsed = t.rehearsed;
    return true;
}

MUST setup_probe(struct setup *s, enum setup_disk disk, struct err *e) {
    const struct nn_memory *m = &s->memory;
    double part = m->sweep_bytes ? (double)m->token_bytes / (double)m->sweep_bytes : 1;
    uint64_t bytes = (uint64_t)((double)m->weight_bytes * part);
    if (!probe_threads(s, bytes, e) || !probe_memory(s, s->tune.count[s->tune.best], e)) {
        return false;
    }
    bool streams = m->disk_bytes > 0;
    if ((streams || disk == DISK_ALWAYS) && !probe_disk(s, e)) return false;
    if (streams && s->disk_bps > FAST_DISK && !speed_up(s, e)) return false;
    if (streams && !try_it(s, m, e)) return false;
    if (!streams && disk == DISK_ALWAYS && !probe_less(s, e)) return false;
    forecast(s);
    return true;
}

static MUST speeds_of_model(struct setup *s, const struct machine *m, struct err *e) {
    struct engine_conf *c = &s->conf;
    if (!setup_context(s, m, &c->n_ctx, e) || !probe_threads(s, s->model.data_len, e)) return false;
    c->n_batch = c->n_ctx < BATCH_NODE ? c->n_ctx : BATCH_NODE;
    if (!probe_disk(s, e)) return false;
    if (s->disk_bps <= FAST_DISK) return true;
    c->n_reader = READERS_FAST;
    c->n_slot = 2 * RING_USUAL;
    return probe_disk(s, e);
}

MUST setup_speeds(struct setup *s, const struct machine *m, struct err *e) {
    struct engine_conf *c = &s->conf;
    *c = (struct engine_conf){.model = &s->model,
                              .kernels = &s->kernels,
                              .n_reader = READERS_USUAL,
                              .n_slot = RING_USUAL,
                              .places = c->places};
    c->kv = (enum kv_type)m->kv;
    c->wire = (enum wire_type)m->wire;
    choose_threads(s, m);
    if (s->model.n_layer && !speeds_of_model(s, m, e)) return false;
    return probe_memory(s, c->n_decode ? c->n_decode : c->n_thread, e);
}

bool setup_at(const struct setup *s, uint64_t budget, struct nn_memory *m, struct forecast *f) {
    struct setup t = *s;
    struct err e;
    take_budget(&t, budget);
    if (!fit_pool(&t, &e)) return false;
    if (t.memory.disk_bytes && s->disk_bps > FAST_DISK && !add_readers(&t, &e)) return false;
    *m = t.memory;
    foretell(s, m, f);
    return true;
}

uint64_t setup_pinned(const struct nn_memory *m) {
    return m->tiles.pinned_bytes + m->tiles.cached_bytes + m->embd_bytes + m->fixed_bytes;
}

uint64_t setup_kept(const struct nn_memory *m) {
    return m->sweep_bytes - m->tiles.streamed_bytes_per_sweep - m->tiles.missing_bytes;
}

const char *setup_type(const struct model *m) {
    const struct tensor_format *f = tensor_format(common_type(m));
    return f ? f->name : "?";
}
