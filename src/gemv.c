#include "gemv.h"

#include "base/arena.h"
#include "base/clock.h"
#include "base/par.h"

#include <stdatomic.h>

enum { N_COL = 4096, UNIT = 256 << 10, PASSES_LEAST = 2 };

/* A matrix in kernel order times n_tok tokens. */
struct gemv {
    const struct gemv_conf *conf;
    const struct weight_ops *ops;
    struct arena mem;
    uint8_t *w;  // [n_group] groups
    size_t group, n_group, per_unit;
    uint8_t *row;  // 8 rows in file order
    void *x;       // panels of n_tok tokens, or their floats
    float *y;      // [n_tok][8 * n_group]
    atomic_size_t next;
    double best_s;
};

static void gemv_fill(void *ctx, int thread, int n_thread) {
    struct gemv *g = ctx;
    for (size_t i = (size_t)thread; i < g->n_group; i += (size_t)n_thread) {
        (void)g->ops->relay(g->w + i * g->group, g->row, ROW_GROUP, N_COL);
    }
}

static void gemv_share(void *ctx, int thread, int n_thread) {
    struct gemv *g = ctx;
    (void)thread;
    (void)n_thread;
    for (;;) {
        size_t at = atomic_fetch_add(&g->next, g->per_unit);
        if (at >= g->n_group) return;
        size_t n = g->n_group - at < g->per_unit ? g->n_group - at : g->per_unit;
        g->ops->matmul(g->y + at * ROW_GROUP, g->n_group * ROW_GROUP, g->w + at * g->group, n,
                       N_COL, g->x, g->conf->n_tok);
    }
}

static void gemv_body(void *ctx, struct par *team) {
    struct gemv *g = ctx;
    par_run(team, gemv_fill, g);
    double begin = clock_s();
    g->best_s = 1e9;
    for (unsigned pass = 0; pass < PASSES_LEAST || clock_s() - begin < g->conf->seconds; pass++) {
        atomic_store(&g->next, 0);
        double t = clock_s();
        par_run(team, gemv_share, g);
        t = clock_s() - t;
        if (t < g->best_s) g->best_s = t;
    }
}

/* Any bytes will do, but for the exponents of floats and scales: below 2, so that nothing overflows. */
static void fill_row(uint8_t *row, size_t len, int type) {
    size_t step = 1, high = 0;  // bytes of a block, and the one with the exponent's upper half
    switch (type) {
    case W_F32: step = 4, high = 3; break;
    case W_F16: step = 2, high = 1; break;
    case W_Q4_0: step = sizeof(struct file_q4_0), high = 1; break;
    case W_Q8_0: step = sizeof(struct file_q8_0), high = 1; break;
    case W_Q6_K: step = sizeof(struct file_q6_k), high = sizeof(struct file_q6_k) - 1; break;
    }
    for (size_t i = 0; i < len; i++) row[i] = (uint8_t)(i * 131 + i / 7);
    for (size_t i = high; i < len; i += step) row[i] &= 0x3f;
}

static void fill_tokens(struct gemv *g, struct act *q, float *x) {
    const struct kernels *k = g->conf->kernels;
    for (size_t t = 0; t < g->conf->n_tok; t++) {
        if (g->ops->is_float) x = (float *)g->x + t * N_COL;
        for (size_t i = 0; i < N_COL; i++) x[i] = (float)((i * 37 + t * 11) % 255) - 127;
        if (!g->ops->is_float) k->quantise(q + t * (N_COL / Q_BLOCK), x, N_COL);
    }
    if (g->ops->is_float) return;
    k->pack(g->x, q, N_COL / Q_BLOCK, N_COL / Q_BLOCK, g->conf->n_tok);
}

static MUST gemv_open(struct gemv *g, const struct gemv_conf *c, struct err *e) {
    *g = (struct gemv){.conf = c, .ops = weight_ops(c->kernels, c->type)};
    if (!g->ops) return err_set(e, ERR_UNSUPPORTED, "weights of type %d have no kernel", c->type);
    size_t rows = ROW_GROUP * weight_row_bytes(c->type, N_COL);
    size_t in = g->ops->is_float ? c->n_tok * N_COL * sizeof(float) : panel_bytes(N_COL, c->n_tok);
    g->group = weight_group_bytes(c->type, N_COL);
    size_t n_act = c->n_tok * (N_COL / Q_BLOCK);
    size_t fixed = rows + in + n_act * sizeof(struct act) + N_COL * sizeof(float) + 6 * 64;
    size_t each = g->group + ROW_GROUP * c->n_tok * sizeof(float);
    g->n_group = c->bytes > fixed + each ? (c->bytes - fixed) / each : 1;
    g->per_unit = UNIT / g->group ? UNIT / g->group : 1;
    if (!arena_open(&g->mem, "matrix", fixed + g->n_group * each, e)) return false;
    g->w = arena_push(&g->mem, g->n_group * g->group, 64);
    g->row = arena_push(&g->mem, rows, 64);
    g->x = arena_push(&g->mem, in, 64);
    g->y = arena_push(&g->mem, c->n_tok * g->n_group * ROW_GROUP * sizeof(float), 64);
    struct act *q = arena_push(&g->mem, n_act * sizeof *q, 64);
    float *x = arena_push(&g->mem, N_COL * sizeof *x, 64);
    if (!g->w || !g->row || !g->x || !g->y || !q || !x) {
        arena_close(&g->mem);
        return err_set(e, ERR_MEMORY, "the matrix to measure with does not fit %llu bytes",
                       (unsigned long long)c->bytes);
    }
    fill_row(g->row, rows, c->type);
    fill_tokens(g, q, x);
    return true;
}

MUST gemv_speed(const struct gemv_conf *c, struct gemv_speed *out, struct err *e) {
    struct gemv g;
    if (!gemv_open(&g, c, e)) return false;
    bool ok = par_enter(c->n_thread, gemv_body, &g, e);
    double bytes = (double)(g.n_group * g.group);
    double ops = 2.0 * ROW_GROUP * (double)g.n_group * N_COL * (double)c->n_tok;
    arena_close(&g.mem);
    if (!ok) return false;
    *out = (struct gemv_speed){bytes / g.best_s, ops / g.best_s};
    return true;
}
