#include "gemv.h"

#include "base/arena.h"
#include "base/clock.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>

enum { MULTIPLY_ROUNDS = 100000, MULTIPLY_PASSES = 10 };  // some 10 ms on anything
enum { COLS_USUAL = 4096, UNIT = 256 << 10, PASSES_LEAST = 2, WIDTHS_MOST = 16, PASSES_KEPT = 256 };
static const double TURN_SECONDS = 0.002;  // by then members that slept are long awake

/* A matrix in kernel order times n_tok tokens. */
struct gemv {
    const struct gemv_conf *conf;
    const struct weight_ops *ops;
    struct arena mem;
    uint8_t *w;  // [n_group] groups
    size_t n_col, group, n_group, per_unit, per_run;
    uint8_t *row;       // 8 rows in file order
    void *x;            // panels of n_tok tokens, or their floats
    float *y;           // [n_tok][8 * n_group]
    size_t begin, end;  // groups of the run
    struct par_items units;
    const unsigned *width;
    unsigned n_width;
    double best_s[WIDTHS_MOST], sum_s[WIDTHS_MOST], stream_s[WIDTHS_MOST];
    unsigned n_pass[WIDTHS_MOST];
    double pass_s[WIDTHS_MOST][PASSES_KEPT];  // of the last passes
    uint64_t n_product[WIDTHS_MOST];          // with conf.multiplies
    double multiply_s[WIDTHS_MOST];
    atomic_ullong products;  // of a pass
    uint8_t *scratch;        // [n_thread, per_unit] groups that were re-laid, with conf.streams
};

static void gemv_fill(void *ctx, int thread, int n_thread) {
    struct gemv *g = ctx;
    for (size_t i = (size_t)thread; i < g->n_group; i += (size_t)n_thread) {
        (void)g->ops->relay(g->w + i * g->group, g->row, ROW_GROUP, g->n_col);
    }
}

/* Groups of n units from `first` on: *at and those behind it. */
static size_t groups_of(const struct gemv *g, uint32_t first, uint32_t n, size_t *at) {
    *at = g->begin + first * g->per_unit;
    size_t left = g->end - *at, want = n * g->per_unit;
    return left < want ? left : want;
}

/* As a model's threads take them: units side by side in one call, where there is one token. */
static void gemv_share(void *ctx, int thread, int n_thread) {
    struct gemv *g = ctx;
    uint32_t first, n;
    (void)n_thread;
    while ((n = par_take(&g->units, thread, &first))) {
        uint32_t each = g->conf->n_tok == 1 ? n : 1;
        for (uint32_t i = 0; i < n; i += each) {
            size_t at, n_group = groups_of(g, first + i, each, &at);
            g->ops->matmul(g->y + at * ROW_GROUP, g->n_group * ROW_GROUP, g->w + at * g->group,
                           n_group, g->n_col, g->x, g->conf->n_tok);
        }
    }
}

/* As streamed weights are: from wherever they lie into memory that stays in the cache. What lies there
 * is in kernel order, but any bytes take the same time to re-lay. */
static void stream_share(void *ctx, int thread, int n_thread) {
    struct gemv *g = ctx;
    uint8_t *to = g->scratch + (size_t)thread * g->per_unit * g->group;
    uint32_t first, n;
    (void)n_thread;
    while ((n = par_take(&g->units, thread, &first))) {
        for (uint32_t i = 0; i < n; i++) {
            size_t at, n_group = groups_of(g, first + i, 1, &at);
            for (size_t k = 0; k < n_group; k++) {
                (void)g->ops->relay(to + k * g->group, g->w + (at + k) * g->group, ROW_GROUP,
                                    g->n_col);
            }
            g->ops->matmul(g->y + at * ROW_GROUP, g->n_group * ROW_GROUP, to, n_group, g->n_col,
                           g->x, g->conf->n_tok);
        }
    }
}

static void multiply_share(void *ctx, int thread, int n_thread) {
    struct gemv *g = ctx;
    (void)thread;
    (void)n_thread;
    atomic_fetch_add(&g->products, g->conf->kernels->multiply(MULTIPLY_ROUNDS));
}

static void take_multiply(struct gemv *g, struct par *team, unsigned i) {
    double begin = clock_s();
    atomic_store(&g->products, 0);
    for (unsigned pass = 0; pass < MULTIPLY_PASSES; pass++) par_run(team, multiply_share, g);
    g->multiply_s[i] += clock_s() - begin;
    g->n_product[i] += atomic_load(&g->products);
}

static double one_pass(struct gemv *g, struct par *team, par_work *share) {
    double begin = clock_s();
    for (size_t at = 0; at < g->n_group; at = g->end) {
        g->begin = at;
        g->end = g->n_group - at < g->per_run ? g->n_group : at + g->per_run;
        uint32_t n_unit = (uint32_t)((g->end - at + g->per_unit - 1) / g->per_unit);
        par_deal(&g->units, team, 0, n_unit, share == stream_share);
        par_run(team, share, g);
    }
    return clock_s() - begin;
}

static void take_turn(struct gemv *g, struct par *team, unsigned i) {
    double sum = 0;
    par_width(team, (int)g->width[i]);
    for (unsigned pass = 0; pass < PASSES_LEAST || sum < TURN_SECONDS; pass++) {
        double t = one_pass(g, team, gemv_share);
        if (t < g->best_s[i]) g->best_s[i] = t;
        sum += t;
        if (!pass) continue;  // some may have slept
        g->sum_s[i] += t;
        g->pass_s[i][g->n_pass[i]++ % PASSES_KEPT] = t;
    }
    if (g->conf->multiplies) take_multiply(g, team, i);
    if (!g->conf->streams) return;
    double t = one_pass(g, team, stream_share);
    if (t < g->stream_s[i]) g->stream_s[i] = t;
}

static void gemv_body(void *ctx, struct par *team) {
    struct gemv *g = ctx;
    if (g->conf->places) par_pin(team, g->conf->places);
    par_run(team, gemv_fill, g);
    for (unsigned i = 0; i < g->n_width; i++) g->best_s[i] = g->stream_s[i] = 1e9;
    double begin = clock_s();
    do {
        for (unsigned i = 0; i < g->n_width; i++) take_turn(g, team, i);
    } while (clock_s() - begin < g->conf->seconds);
}

/* Where a type's blocks have the upper bytes of their floats, which hold the exponents. */
struct floats {
    size_t block, at[2];
};

static struct floats floats_of(int type) {
    switch (type) {
    case W_F32: return (struct floats){4, {3, 3}};
    case W_F16:
    case W_BF16: return (struct floats){2, {1, 1}};
    case W_Q4_1: return (struct floats){sizeof(struct file_q4_1), {1, 3}};
    case W_Q5_0: return (struct floats){sizeof(struct file_q5_0), {1, 1}};
    case W_Q5_1: return (struct floats){sizeof(struct file_q5_1), {1, 3}};
    case W_Q8_0: return (struct floats){sizeof(struct file_q8_0), {1, 1}};
    case W_Q2_K: return (struct floats){sizeof(struct file_q2_k), {81, 83}};
    case W_Q3_K: return (struct floats){sizeof(struct file_q3_k), {109, 109}};
    case W_Q4_K: return (struct floats){sizeof(struct file_q4_k), {1, 3}};
    case W_Q5_K: return (struct floats){sizeof(struct file_q5_k), {1, 3}};
    case W_Q6_K: return (struct floats){sizeof(struct file_q6_k), {209, 209}};
    case W_IQ4_XS: return (struct floats){sizeof(struct file_iq4_xs), {1, 1}};
    case W_MXFP4: return (struct floats){sizeof(struct file_mxfp4), {0, 0}};
    default: return (struct floats){sizeof(struct file_q4_0), {1, 1}};
    }
}

/* Any bytes will do, but for the exponents of floats and scales: below 2, so that nothing overflows. */
static void fill_row(uint8_t *row, size_t len, int type) {
    struct floats f = floats_of(type);
    for (size_t i = 0; i < len; i++) row[i] = (uint8_t)(i * 131 + i / 7);
    for (size_t i = 0; i + f.block <= len; i += f.block) {
        row[i + f.at[0]] &= 0x3f;
        row[i + f.at[1]] &= 0x3f;
    }
}

static void fill_tokens(struct gemv *g, struct act *q, float *x) {
    const struct kernels *k = g->conf->kernels;
    size_t n_col = g->n_col, n_block = n_col / Q_BLOCK;
    for (size_t t = 0; t < g->conf->n_tok; t++) {
        if (g->ops->is_float) x = (float *)g->x + t * n_col;
        for (size_t i = 0; i < n_col; i++) x[i] = (float)((i * 37 + t * 11) % 255) - 127;
        if (!g->ops->is_float) k->quantise(q + t * n_block, x, n_col);
    }
    if (g->ops->is_float) return;
    k->pack(g->x, q, n_block, n_block, g->conf->n_tok);
}

static MUST gemv_open(struct gemv *g, const struct gemv_conf *c, struct err *e) {
    size_t unit = weight_block(c->type) > Q_BLOCK ? weight_block(c->type) : Q_BLOCK;
    *g = (struct gemv){.conf = c, .ops = weight_ops(c->kernels, c->type)};
    g->n_col = ((c->n_col ? c->n_col : COLS_USUAL) + unit - 1) / unit * unit;
    if (!g->ops) return err_set(e, ERR_UNSUPPORTED, "weights of type %d have no kernel", c->type);
    size_t rows = ROW_GROUP * weight_row_bytes(c->type, g->n_col);
    size_t in =
        g->ops->is_float ? c->n_tok * g->n_col * sizeof(float) : panel_bytes(g->n_col, c->n_tok);
    g->group = weight_group_bytes(c->type, g->n_col);
    size_t n_act = c->n_tok * (g->n_col / Q_BLOCK);
    size_t fixed = rows + in + n_act * sizeof(struct act) + g->n_col * sizeof(float) + 7 * 64;
    size_t each = g->group + ROW_GROUP * c->n_tok * sizeof(float);
    g->n_group = c->bytes > fixed + each ? (c->bytes - fixed) / each : 1;
    size_t most = c->unit_bytes && c->unit_bytes < UNIT ? c->unit_bytes : UNIT;
    g->per_unit = most / g->group ? most / g->group : 1;
    size_t scratch = c->streams ? (size_t)c->n_thread * g->per_unit * g->group : 0;
    g->per_run = c->run_bytes ? (c->run_bytes + g->group - 1) / g->group : g->n_group;
    if (!arena_open(&g->mem, "matrix", fixed + g->n_group * each + scratch, e)) return false;
    g->w = arena_push(&g->mem, g->n_group * g->group, 64);
    g->row = arena_push(&g->mem, rows, 64);
    g->x = arena_push(&g->mem, in, 64);
    g->y = arena_push(&g->mem, c->n_tok * g->n_group * ROW_GROUP * sizeof(float), 64);
    struct act *q = arena_push(&g->mem, n_act * sizeof *q, 64);
    g->scratch = arena_push(&g->mem, scratch, 64);
    float *x = arena_push(&g->mem, g->n_col * sizeof *x, 64);
    if (!g->w || !g->row || !g->x || !g->y || !q || !x || !g->scratch) {
        arena_close(&g->mem);
        return err_set(e, ERR_MEMORY, "the matrix to measure with does not fit %llu bytes",
                       (unsigned long long)c->bytes);
    }
    fill_row(g->row, rows, c->type);
    fill_tokens(g, q, x);
    return true;
}

static int by_time(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* A pass of the slower half, on average. */
static double slow_pass(struct gemv *g, unsigned i) {
    size_t n = g->n_pass[i] < PASSES_KEPT ? g->n_pass[i] : PASSES_KEPT;
    double sum = 0;
    qsort(g->pass_s[i], n, sizeof *g->pass_s[i], by_time);
    for (size_t k = n / 2; k < n; k++) sum += g->pass_s[i][k];
    return sum / (double)(n - n / 2);
}

MUST gemv_speeds(const struct gemv_conf *c, const unsigned *width, unsigned n,
                 struct gemv_speed *out, struct err *e) {
    struct gemv g;
    assert(n >= 1 && n <= WIDTHS_MOST);
    if (!gemv_open(&g, c, e)) return false;
    g.width = width;
    g.n_width = n;
    bool ok = par_enter(c->n_thread, gemv_body, &g, e);
    double bytes = (double)(g.n_group * g.group);
    double ops = 2.0 * ROW_GROUP * (double)g.n_group * (double)g.n_col * (double)c->n_tok;
    arena_close(&g.mem);
    if (!ok) return false;
    for (unsigned i = 0; i < n; i++) {
        double passes_per_s = g.n_pass[i] / g.sum_s[i];
        out[i] = (struct gemv_speed){.bytes_per_s = bytes / g.best_s[i],
                                     .lasting_per_s = bytes / slow_pass(&g, i),
                                     .usual_ops_per_s = ops * passes_per_s,
                                     .stream_per_s = c->streams ? bytes / g.stream_s[i] : 0};
        if (c->multiplies) out[i].multiply_per_s = 2.0 * (double)g.n_product[i] / g.multiply_s[i];
    }
    return true;
}

MUST gemv_speed(const struct gemv_conf *c, struct gemv_speed *out, struct err *e) {
    unsigned all = (unsigned)c->n_thread;
    return gemv_speeds(c, &all, 1, out, e);
}
