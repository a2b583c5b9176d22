#include "tune.h"

#include "base/arena.h"
#include "base/clock.h"
#include "gemv.h"

#include <string.h>

#define MIB ((uint64_t)1 << 20)

enum {
    RUNS_LAYER = 4,  // times that the team is given matrices: q k v; o; gate up; down
    CACHES = 8,      // a matrix so many times the cache is read from memory
    TOP = 64,        // candidates that a sampler asks for
    BATCHES = 3,
};
/* Virtual machines hide what is often 32 MiB, and shared: 64 MiB of weights ran at 60 GB/s there, where any
 * more of them, and the model, ran at 45. */
#define CACHE_UNKNOWN (64 * MIB)
static const double MATRIX_SECONDS = 0.12, BATCH_SECONDS = 0.002;
/* Models of LARGE bytes are worth a longer look, and without others between: virtual machines give memory that
 * rested at 45 to 55 GB/s and memory that is read without end at 31. */
static const double STEADY_SECONDS = 0.5;
static const uint64_t LARGE = 256 * MIB;
static const double ALIKE = 0.97;  // of the fastest: the same but for noise

unsigned tune_counts(unsigned n_thread, unsigned count[static TUNE_COUNTS]) {
    const unsigned wish[TUNE_COUNTS] = {n_thread, n_thread * 3 / 4, n_thread / 2, n_thread / 4, 1};
    unsigned n = 0;
    for (unsigned i = 0; i < TUNE_COUNTS; i++) {
        if (wish[i] && (!n || wish[i] < count[n - 1])) count[n++] = wish[i];
    }
    return n;
}

unsigned tune_choose(const double *bps, unsigned n) {
    double most = 0;
    unsigned best = 0;
    for (unsigned i = 0; i < n; i++) most = bps[i] > most ? bps[i] : most;
    while (best + 1 < n && bps[best] < ALIKE * most) best++;
    return best;
}

/* --- the matrices --- */

uint64_t tune_beyond_cache(uint64_t cache) {
    uint64_t bytes = CACHES * (cache ? cache : CACHE_UNKNOWN);
    if (bytes < 16 * MIB) bytes = 16 * MIB;
    return bytes < 256 * MIB ? bytes : 256 * MIB;
}

static uint64_t matrix_bytes(const struct tune_conf *c) {
    uint64_t bytes = tune_beyond_cache(c->cache);
    if (bytes > c->bytes) bytes = c->bytes;
    return bytes < c->memory ? bytes : c->memory;
}

static struct gemv_conf matrices_of(const struct tune_conf *c) {
    return (struct gemv_conf){
        .kernels = c->kernels,
        .type = c->type,
        .n_thread = (int)c->n_thread,
        .places = c->places,
        .n_tok = 1,
        .n_col = c->model->n_embd,
        .bytes = matrix_bytes(c),
        .run_bytes = c->bytes / (RUNS_LAYER * (uint64_t)c->model->n_layer + 1),
        .unit_bytes = c->unit_bytes,
        .streams = true,
        .seconds = MATRIX_SECONDS,
    };
}

static MUST measure_matrices(const struct tune_conf *c, struct tune *t, struct err *e) {
    struct gemv_speed speed[TUNE_COUNTS];
    struct gemv_conf g = matrices_of(c);
    if (!gemv_speeds(&g, t->count, t->n, speed, e)) return false;
    for (unsigned i = 0; i < t->n; i++) t->bps[i] = speed[i].bytes_per_s;
    t->best = tune_choose(t->bps, t->n);
    t->lasting_bps = speed[t->best].lasting_per_s;
    t->stream_bps = speed[t->best].stream_per_s;
    if (c->bytes < LARGE) return true;
    g.streams = false;
    g.seconds = STEADY_SECONDS;
    if (!gemv_speeds(&g, &t->count[t->best], 1, speed, e)) return false;
    t->lasting_bps = speed[0].lasting_per_s;
    return true;
}

/* --- all else: norms, positions, attention, activation, rounding; then the choice among logits --- */

struct rest {
    const struct tune_conf *conf;
    unsigned n_thread;
    uint32_t n_pos;
    uint32_t n_kv_layer;   // layers' keys and values: all, or enough to read them from memory
    uint32_t layer;        // that is passed now
    size_t kv_row;         // bytes of a position's key of one head
    size_t widest;         // of the vectors below
    float *x, *y, *ones;   // [widest]
    float *angle;          // [n_rot]
    struct act *a;         // [widest / 32]
    void *panel;           // of widest values
    struct wire16 *wire;   // [widest / 32]
    float *room;           // [n_thread] of attention, a head each
    uint8_t *key, *value;  // [n_kv_layer, n_head_kv, n_pos, kv_row]
    float *logit;          // [n_vocab]
    double *freq;          // [n_rot / 2]
    int32_t id[TOP];
    float top[TOP];
    double seconds;  // a token
};

static void pack(struct rest *r, size_t n) {
    size_t n_block = (n + Q_BLOCK - 1) / Q_BLOCK;
    r->conf->kernels->pack(r->panel, r->a, n_block, n_block, 1);
}

static void quantise(struct rest *r, size_t n) {
    r->conf->kernels->quantise(r->a, r->y, n);
    pack(r, n);
}

static void norm(struct rest *r) {
    const struct model *m = r->conf->model;
    r->conf->kernels->rmsnorm_quantise(r->a, r->x, r->ones, m->n_embd, m->norm_eps);
    pack(r, m->n_embd);
}

/* Where head h has the layer's keys, or values. */
static size_t kv_at(const struct rest *r, uint32_t h) {
    return ((size_t)(r->layer % r->n_kv_layer) * r->conf->model->n_head_kv + h) * r->n_pos *
           r->kv_row;
}

static void attend_heads(void *ctx, int thread, int n_thread) {
    struct rest *r = ctx;
    const struct model *m = r->conf->model;
    size_t hd = m->head_dim;
    bool is_windowed = m->layer[r->layer].is_local && r->n_pos > m->window;
    const struct attention a = {.type = r->conf->kv,
                                .hd = hd,
                                .stride = kv_row_values(r->conf->kv, hd),
                                .scale = m->attn_scale,
                                .softcap = m->attn_softcap};
    uint32_t group = m->n_head / m->n_head_kv;
    uint32_t some = (uint32_t)attend_together(m->n_head_kv, group, (size_t)n_thread);
    uint32_t n_run = (group + some - 1) / some;
    for (uint32_t i = (uint32_t)thread; i < m->n_head_kv * n_run; i += (uint32_t)n_thread) {
        struct query query[ATTEND_QUERIES];
        uint32_t kv = i / n_run, from = i % n_run * some, n = 0;
        for (; n < some && from + n < group; n++) {
            size_t head = (kv * group + from + n) * hd;
            query[n] = (struct query){.q = r->x + head,
                                      .out = r->y + head,
                                      .first = is_windowed ? r->n_pos - m->window : 0,
                                      .n_pos = r->n_pos};
        }
        size_t at = kv_at(r, kv);
        r->conf->kernels->attend(query, n, r->key + at, r->value + at, &a,
                                 r->room + (size_t)thread * attend_room(hd));
    }
}

static void store_head(struct rest *r, size_t at) {
    const struct tune_conf *c = r->conf;
    kv_store(c->kernels, c->kv, r->key + at, r->ones, c->model->head_dim);
    kv_store(c->kernels, c->kv, r->value + at, r->ones, c->model->head_dim);
}

/* What is sent is `ones` and what is turned x itself, so that nothing grows from layer to layer. */
static void one_layer(struct rest *r, struct par *team) {
    const struct model *m = r->conf->model;
    const struct kernels *k = r->conf->kernels;
    size_t n_act = (size_t)m->n_ff * (m->n_used ? m->n_used : 1);
    for (int branch = 0; branch < 2; branch++) {
        norm(r);
        k->to_wire16(r->wire, r->ones, m->n_embd);
        k->add_wire16(r->x, r->wire, m->n_embd);
    }
    for (uint32_t h = 0; h < m->n_head + m->n_head_kv; h++) k->rope(r->x, r->angle, m->n_rot / 2);
    for (uint32_t h = 0; h < m->n_head_kv; h++) {
        store_head(r, kv_at(r, h) + (r->n_pos - 1) * r->kv_row);
    }
    par_run(team, attend_heads, r);
    quantise(r, (size_t)m->n_head * m->head_dim);
    k->silu_mul(r->y, r->x, r->x, n_act);
    quantise(r, n_act);
}

static void outside_layers(struct rest *r) {
    const struct model *m = r->conf->model;
    const struct kernels *k = r->conf->kernels;
    rope_angles(r->angle, r->freq, m->n_rot / 2, r->n_pos);
    norm(r);
    (void)k->topk(r->id, r->top, TOP, r->logit, m->n_vocab);
}

static void one_token(struct rest *r, struct par *team) {
    for (size_t i = 0; i < r->widest; i++) r->x[i] = (float)(i * 37 % 255) - 127;
    for (r->layer = 0; r->layer < r->conf->model->n_layer; r->layer++) one_layer(r, team);
    outside_layers(r);
}

static void time_tokens(void *ctx, struct par *team) {
    struct rest *r = ctx;
    par_pin(team, r->conf->places);
    par_width(team, (int)r->n_thread);
    one_token(r, team);
    for (int batch = 0; batch < BATCHES; batch++) {
        double begin = clock_s(), now = begin;
        unsigned n = 0;
        for (; !n || now - begin < BATCH_SECONDS; now = clock_s(), n++) one_token(r, team);
        double each = (now - begin) / n;
        if (!batch || each < r->seconds) r->seconds = each;
    }
}

static size_t widest_of(const struct model *m) {
    size_t ff = (size_t)m->n_ff * (m->n_used ? m->n_used : 1);
    size_t heads = (size_t)m->n_head * m->head_dim, most = heads > ff ? heads : ff;
    return ((most > m->n_embd ? most : m->n_embd) + 255) / 256 * 256;
}

static MUST carve(struct rest *r, struct arena *a, struct err *e) {
    const struct model *m = r->conf->model;
    size_t n_block = r->widest / Q_BLOCK, n_row = (size_t)r->n_kv_layer * m->n_head_kv * r->n_pos;
    bool ok = arena_array(a, &r->x, r->widest, sizeof *r->x, "vectors", e) &&
              arena_array(a, &r->y, r->widest, sizeof *r->y, "vectors", e) &&
              arena_array(a, &r->ones, r->widest, sizeof *r->ones, "vectors", e) &&
              arena_array(a, &r->angle, m->n_rot, sizeof *r->angle, "vectors", e) &&
              arena_array(a, &r->freq, m->n_rot / 2, sizeof *r->freq, "vectors", e) &&
              arena_array(a, &r->a, n_block, sizeof *r->a, "vectors", e) &&
              arena_array(a, &r->panel, panel_bytes(r->widest, 1), 1, "vectors", e) &&
              arena_array(a, &r->wire, n_block, sizeof *r->wire, "vectors", e) &&
              arena_array(a, &r->room, r->n_thread, attend_room(m->head_dim) * sizeof(float),
                          "vectors", e) &&
              arena_array(a, &r->key, n_row, r->kv_row, "vectors", e) &&
              arena_array(a, &r->value, n_row, r->kv_row, "vectors", e) &&
              arena_array(a, &r->logit, m->n_vocab, sizeof *r->logit, "vectors", e);
    if (!ok) return false;
    for (size_t i = 0; i < r->widest; i++) r->ones[i] = 1;
    for (size_t i = 0; i < n_row; i++) store_head(r, i * r->kv_row);
    for (uint32_t i = 0; i < m->n_vocab; i++) r->logit[i] = (float)(i * 2654435761U >> 8);
    rope_freqs(r->freq, m->rope_base, m->n_rot);
    return true;
}

/* In little memory attention sees less than it will, and in very little all of this counts as nothing:
 * then the disk is what limits. */
static MUST measure_rest(const struct tune_conf *c, struct tune *t, struct err *e) {
    const struct model *m = c->model;
    struct rest r = {.conf = c, .n_thread = t->count[t->best], .n_pos = c->n_pos};
    struct arena a;
    r.widest = widest_of(m);
    r.kv_row = kv_row_bytes(c->kv, m->head_dim);
    size_t each = 2 * m->n_head_kv * r.kv_row;  // of a position in a layer
    uint64_t vectors = r.widest * 24 + (m->n_vocab + 4UL * m->n_rot) * sizeof(float) + 16 * 64 +
                       r.n_thread * attend_room(m->head_dim) * sizeof(float);
    t->rest_s = 0;
    if (vectors + each > c->memory) return true;
    uint64_t most = (c->memory - vectors) / each;
    if (r.n_pos > most) r.n_pos = (uint32_t)most;
    uint64_t some = most / r.n_pos, enough = tune_beyond_cache(c->cache) / (each * r.n_pos) + 1;
    if (some > enough) some = enough;
    r.n_kv_layer = some < m->n_layer ? (uint32_t)some : m->n_layer;
    if (!arena_open(&a, "vectors", vectors + each * r.n_pos * r.n_kv_layer, e)) return false;
    bool ok = carve(&r, &a, e) && par_enter((int)c->n_thread, time_tokens, &r, e);
    arena_close(&a);
    t->rest_s = r.seconds;
    return ok;
}

MUST tune_measure(const struct tune_conf *c, struct tune *out, struct err *e) {
    *out = (struct tune){0};
    out->n = tune_counts(c->n_thread, out->count);
    if (c->is_fixed) out->n = 1;
    if (!measure_matrices(c, out, e)) return false;
    return measure_rest(c, out, e);
}
