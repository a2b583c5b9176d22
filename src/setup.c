#include "setup.h"

#include "store/diskprobe.h"

#include <string.h>

#define MIB ((uint64_t)1 << 20)

enum { CTX_DEFAULT = 4096, BATCH_MOST = 64 };
static const double FAST_DISK = 2e9;               // bytes/s that two readers cannot saturate

MUST setup_open(struct setup *s, const char *path, enum model_part part, struct err *e) {
    uint64_t base = 0, len = 0;
    memset(s, 0, sizeof *s);
    kernels_init(&s->kernels, cpu_features());
    s->n_core = host_cores();
    if (!path) {
        if (!model_demo(s->demo_path, &base, &len, e)) return false;
        s->is_demo = true;
        path = s->demo_path;
    }
    return model_open_part(&s->model, path, base, len, part, e);
}

MUST setup_tok(struct setup *s, struct err *e) {
    return tok_open(&s->tok, &s->model.vocab, e);
}

void setup_close(struct setup *s) {
    if (s->tok) tok_close(s->tok);
    s->tok = NULL;
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
    uint64_t s = budget / 64;
    return s < 2 * MIB ? 2 * MIB : s > 16 * MIB ? 16 * MIB : s;
}

/* The smallest whole budget that leaves the engine `pool` bytes, to the MiB above. */
static uint64_t budget_for(uint64_t program, uint64_t pool) {
    uint64_t b = (program + pool) / MIB * MIB;
    while (b < program + slack_of(b) + pool) b += MIB;
    return b;
}

static MUST set_budget(struct setup *s, struct amount memory, struct err *e) {
    if (!host_mem(&s->mem, e)) return false;
    bool is_asked = memory.bytes || memory.percent > 0;
    s->budget = is_asked ? amount_of(memory, s->mem.total) : host_budget(&s->mem);
    uint64_t most = s->mem.total < s->mem.cgroup_limit ? s->mem.total : s->mem.cgroup_limit;
    if (s->budget > most) {
        return err_set(e, ERR_MEMORY, "--memory %s is more than the %s that can be had here",
                       BYTES_TEXT(s->budget), BYTES_TEXT(most));
    }
    s->program = s->mem.rss;
    s->slack = slack_of(s->budget);
    uint64_t off = s->program + s->slack;
    s->pool = s->budget > off ? s->budget - off : 0;
    return true;
}

static MUST measure(const struct setup *s, uint32_t batch, uint32_t slot, uint64_t pool,
                    struct nn_memory *m, struct err *e) {
    struct engine_conf c = s->conf;
    c.n_batch = batch;
    c.n_slot = slot;
    c.budget = pool;
    return engine_measure(&c, m, e);
}

/* The smallest pool that works at all. */
static MUST least_pool(const struct setup *s, uint64_t *pool, struct err *e) {
    struct nn_memory m;
    if (!measure(s, 1, 2, ENGINE_PLENTY, &m, e)) {
        return err_in(e, s->is_demo ? "demo model" : s->model.file.path);
    }
    *pool = m.min_budget;
    return true;
}

static MUST too_small(const struct setup *s, struct err *e) {
    const char *name = s->is_demo ? "the demo model" : s->model.file.path;
    return err_set(
        e, ERR_MEMORY,
        "%.150s needs at least %llu MiB (with a context of %u tokens), the memory budget "
        "is %s; give more --memory or a smaller --ctx",
        name, (unsigned long long)(s->least / MIB), s->conf.n_ctx, BYTES_TEXT(s->budget));
}

/* Fewer tokens at once while scratch takes more than a quarter of the pool and that helps. */
static MUST choose_batch(struct setup *s, struct err *e) {
    struct nn_memory now, next;
    uint32_t batch = s->conf.n_ctx < BATCH_MOST ? s->conf.n_ctx : BATCH_MOST;
    if (!measure(s, batch, 2, ENGINE_PLENTY, &now, e)) return false;
    while (batch > 1 && (now.scratch_bytes > s->pool / 4 || now.min_budget > s->pool)) {
        if (!measure(s, batch / 2, 2, ENGINE_PLENTY, &next, e)) return false;
        if (now.min_budget <= s->pool && next.scratch_bytes > now.scratch_bytes / 10 * 9) break;
        batch /= 2;
        now = next;
    }
    s->conf.n_batch = batch;
    return true;
}

/* As many read-ahead buffers as a quarter of the pool holds, up to `most`, at least two. */
static MUST choose_ring(struct setup *s, uint32_t most, struct err *e) {
    for (uint32_t slot = most; slot >= 2; slot /= 2) {
        bool ok = measure(s, s->conf.n_batch, slot, s->pool, &s->memory, e);
        if (!ok && e->code != ERR_MEMORY) return false;
        if (ok && (slot == 2 || s->memory.ring_bytes <= s->pool / 4)) {
            s->conf.n_slot = slot;
            return true;
        }
    }
    return too_small(s, e);
}

MUST setup_fit(struct setup *s, const struct machine *m, struct err *e) {
    struct engine_conf *c = &s->conf;
    struct nn_memory most;
    uint64_t least = 0;
    *c = (struct engine_conf){.model = &s->model, .kernels = &s->kernels, .n_reader = 2};
    c->kv = (enum kv_type)m->kv;
    c->wire = (enum wire_type)m->wire;
    c->n_thread = m->threads ? m->threads : (unsigned)s->n_core;
    if (!setup_context(s, m, &c->n_ctx, e) || !set_slices(c, m->slices, e)) return false;
    if (!set_budget(s, m->memory, e) || !least_pool(s, &least, e)) return false;
    s->least = budget_for(s->program, least);
    if (least > s->pool) return too_small(s, e);
    if (!choose_batch(s, e) || !measure(s, c->n_batch, 2, ENGINE_PLENTY, &most, e)) return false;
    /* Without the embedding table, of which a token reads one row only. */
    s->in_ram =
        budget_for(s->program, most.kv_bytes + most.scratch_bytes + most.ring_bytes +
                                   most.fixed_bytes + most.weight_bytes + most.tiles.n_pinned * 64);
    c->budget = s->pool;
    return choose_ring(s, 8, e);
}

static MUST probe_disk(struct setup *s, struct err *e) {
    struct disk_speed d;
    uint64_t chunk = s->model.data_len / 64;
    if (chunk > s->pool / 8) chunk = s->pool / 8;
    if (chunk > TILE_MAX) chunk = TILE_MAX;
    if (chunk < TILE_MIN) chunk = TILE_MIN;
    chunk &= ~(uint64_t)(TILE_MIN - 1);
    if (!disk_probe(s->model.file.path, s->model.data_off, s->model.data_len, (uint32_t)chunk,
                    s->conf.n_reader, 0.3, &d, e)) {
        return false;
    }
    s->disk_bps = d.bytes_per_s;
    return true;
}

MUST setup_probe(struct setup *s, enum setup_disk disk, struct err *e) {
    unsigned n = s->conf.n_slice > 1 ? s->conf.n_slice : s->conf.n_thread;
    uint64_t bytes = s->pool / 2 < 64 * MIB ? s->pool / 2 : 64 * MIB;
    if (!host_read_speed((int)n, bytes, &s->read_bps, e)) return false;
    bool streams = s->memory.tiles.streamed_bytes_per_sweep > 0;
    if ((streams || disk == DISK_ALWAYS) && !probe_disk(s, e)) return false;
    if (streams && s->disk_bps > FAST_DISK) {
        s->conf.n_reader = 4;
        if (!choose_ring(s, 16, e) || !probe_disk(s, e)) return false;
    }
    engine_forecast(&s->memory, s->read_bps, s->disk_bps, &s->forecast);
    return true;
}

bool setup_at(const struct setup *s, uint64_t budget, struct nn_memory *m, struct forecast *f) {
    struct err e;
    uint64_t off = s->program + slack_of(budget);
    for (uint32_t slot = s->conf.n_slot; budget > off && slot >= 2; slot /= 2) {
        uint32_t batch = slot > 2 ? s->conf.n_batch : 1;
        if (!measure(s, batch, slot, budget - off, m, &e)) continue;
        if (slot > 2 && m->ring_bytes > (budget - off) / 4) continue;
        engine_forecast(m, s->read_bps, s->disk_bps, f);
        return true;
    }
    return false;
}

uint64_t setup_pinned(const struct nn_memory *m) {
    return m->tiles.pinned_bytes + m->embd_bytes + m->fixed_bytes;
}

const char *setup_type(const struct model *m) {
    enum { N_TYPE = 64 };  // GGUF's numbers are below
    uint64_t sum[N_TYPE] = {0};
    uint32_t best = 0;
    for (uint32_t i = 0; i < m->n_tensor; i++) {
        uint32_t type = m->tensor[i].type;
        if (type >= N_TYPE) continue;
        sum[type] += m->tensor[i].len;
        if (sum[type] > sum[best]) best = type;
    }
    const struct tensor_format *f = tensor_format(best);
    return f ? f->name : "?";
}

void setup_print_model(const struct setup *s, FILE *to) {
    const struct model *m = &s->model;
    const char *file = strrchr(m->file.path, '/');
    char name[80];
    file = s->is_demo ? "the model inside this program" : file ? file + 1 : m->file.path;
    text_printable(name, sizeof name, m->name);
    fprintf(to, "model     %s%s%s: %s, %u layers, %s weights in %s, %s\n", name, *name ? ", " : "",
            file, m->arch_name, m->n_layer, COUNT_TEXT(m->n_param), setup_type(m),
            BYTES_TEXT(m->data_len));
}

static void print_memory(const struct setup *s, FILE *to) {
    const struct nn_memory *m = &s->memory;
    const struct bar_part part[] = {
        {(double)setup_pinned(m), 'W'}, {(double)m->kv_bytes, 'C'}, {(double)m->scratch_bytes, 's'},
        {(double)m->ring_bytes, 'r'},   {(double)s->program, 'p'},
    };
    char bar[64];
    text_bar(bar, 48, (double)s->budget, part, sizeof part / sizeof *part);
    fprintf(to, "memory    %s of %s\n", bar, BYTES_TEXT(s->budget));
    fprintf(to, "          W weights %s, C context %s (%u tokens), s scratch %s,\n",
            BYTES_TEXT(setup_pinned(m)), BYTES_TEXT(m->kv_bytes), s->conf.n_ctx,
            BYTES_TEXT(m->scratch_bytes));
    fprintf(to, "          r read-ahead %s, p program %s\n", BYTES_TEXT(m->ring_bytes),
            BYTES_TEXT(s->program));
    if (s->budget > s->mem.available + s->mem.rss) {
        fprintf(to, "          note: only %s of memory are free now\n",
                BYTES_TEXT(s->mem.available + s->mem.rss));
    }
}

void setup_print(const struct setup *s, FILE *to) {
    const struct nn_memory *m = &s->memory;
    uint64_t streamed = m->tiles.streamed_bytes_per_sweep;
    setup_print_model(s, to);
    print_memory(s, to);
    if (streamed == 0) {
        fprintf(to, "weights   all in memory, %s read from it for each token\n",
                BYTES_TEXT(m->sweep_bytes));
    } else {
        fprintf(to, "weights   %.0f %% stay in memory, %s are read from the disk for each token\n",
                m->sweep_bytes ? 100 - 100 * (double)streamed / (double)m->sweep_bytes : 0,
                BYTES_TEXT(streamed));
    }
    fprintf(to, "forecast  %.*f tokens/s, limited by %s (%s measured)\n",
            s->forecast.decode_tps < 10 ? 2 : 1, s->forecast.decode_tps,
            s->forecast.disk_bound ? "the disk" : "reading memory",
            RATE_TEXT(s->forecast.disk_bound ? s->disk_bps : s->read_bps));
}

void setup_json(const struct setup *s, struct json *j) {
    const struct nn_memory *m = &s->memory;
    json_put_u64(j, "budget_bytes", s->budget);
    json_put_u64(j, "program_bytes", s->program);
    json_put_u64(j, "least_bytes", s->least);
    json_put_u64(j, "in_ram_bytes", s->in_ram);
    json_put_u64(j, "pinned_bytes", setup_pinned(m));
    json_put_u64(j, "kv_bytes", m->kv_bytes);
    json_put_u64(j, "scratch_bytes", m->scratch_bytes);
    json_put_u64(j, "ring_bytes", m->ring_bytes);
    json_put_u64(j, "sweep_bytes", m->sweep_bytes);
    json_put_u64(j, "sweep_streamed_bytes", m->tiles.streamed_bytes_per_sweep);
    json_put_u64(j, "ctx", s->conf.n_ctx);
    json_put_u64(j, "batch", s->conf.n_batch);
    json_put_u64(j, "slots", s->conf.n_slot);
    json_put_u64(j, "readers", s->conf.n_reader);
    json_put_u64(j, "threads", s->conf.n_thread);
    json_put_u64(j, "slices", s->conf.n_slice);
    json_put_real(j, "forecast_tps", s->forecast.decode_tps);
    json_put_text(j, "limited_by", s->forecast.disk_bound ? "disk" : "memory");
    json_put_real(j, "memory_gbps", s->read_bps * 1e-9);
    json_put_real(j, "disk_gbps_max", s->disk_bps * 1e-9);
}
