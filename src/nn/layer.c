/* layer.c - one transformer block on a slice (Touvron et al. 2023: pre-norm, rotary, grouped-query
 * attention, SwiGLU). Reads top to bottom; every gather is the place where the slices meet.
 *
 * What is gathered is exactly what the next kernel eats (act blocks, or f32 where weights are floats);
 * branch outputs are rounded to the wire type even when there is one slice, so that any number of
 * slices gives the same bits. */
#include "nn/state.h"

#include <string.h>

/* Work on one token at a time, spread over the team. */
struct token_work {
    struct nn *n;
    struct site *site;
    const float *weight;
    const float *src;  // [n_tok, src_ld]
    size_t src_ld;
    uint32_t first, n_tok, layer;
    uint32_t from, to;  // of the own columns, these
};

static void run_tokens(struct par *team, par_work *f, struct token_work *w) {
    if (w->n_tok == 1)
        f(w, 0, 1);
    else
        par_run(team, f, w);
}

/* Panels from the act blocks, for the matrices that eat them: a copy, too short to share out. */
static void site_pack(const struct nn *n, const struct site *s, uint32_t n_tok) {
    if (s->quants) n->k->pack(s->panel, s->a, s->n_block, s->n_block, n_tok);
}

static void norm_tokens(void *ctx, int thread, int n_thread) {
    const struct token_work *w = ctx;
    const struct site *s = w->site;
    const struct model *m = w->n->conf.model;
    for (uint32_t t = (uint32_t)thread; t < w->n_tok; t += (uint32_t)n_thread) {
        float *y = s->f + t * s->ld;
        w->n->k->rmsnorm(y, w->src + (w->first + t) * w->src_ld, w->weight, m->n_embd, m->norm_eps);
        if (s->quants) w->n->k->quantise(s->a + (size_t)t * s->n_block, y, s->n_col);
    }
}

void site_from_norm(struct nn *n, struct par *team, struct site *s, const float *weight,
                    uint32_t first, uint32_t n_tok) {
    struct token_work w = {.n = n,
                           .site = s,
                           .weight = weight,
                           .first = first,
                           .n_tok = n_tok,
                           .src = n->x,
                           .src_ld = s->n_col};
    run_tokens(team, norm_tokens, &w);
    site_pack(n, s, n_tok);
}

/* --- gathers: a large one begins when half of the own columns are done --- */

/* What of a row is whose, in the form that is gathered. */
struct spans {
    enum coll_kind kind;
    size_t at[SLICE_MAX + 1], mid[SLICE_MAX];
    bool is_split;            // bytes [at[i], mid[i]) go first
    uint32_t n_own, n_first;  // own columns, those that go first
};

static size_t bytes_of(enum coll_kind kind, uint32_t n) {
    size_t blocks = (n + Q_BLOCK - 1) / Q_BLOCK;
    return kind == COLL_F32      ? n * sizeof(float)
           : kind == COLL_WIRE16 ? blocks * sizeof(struct wire16)
                                 : blocks * sizeof(struct act);
}

/* cut [n_slice + 1]: the slices' columns, begun at whole blocks. */
static void spans_make(struct spans *p, const struct nn *n, enum coll_kind kind,
                       const uint32_t *cut, uint32_t n_tok) {
    const struct coll *c = n->coll;
    *p = (struct spans){.kind = kind, .n_own = cut[c->self + 1] - cut[c->self]};
    for (unsigned i = 0; i <= c->n; i++) p->at[i] = bytes_of(kind, cut[i]);
    p->is_split = c->early && p->at[c->n] * n_tok * (c->n - 1) >= c->early * c->n;
    for (unsigned i = 0; p->is_split && i < c->n; i++) {
        uint32_t half = (cut[i + 1] - cut[i]) / 2 / Q_BLOCK * Q_BLOCK;
        p->mid[i] = bytes_of(kind, cut[i] + half);
        if (i == c->self) p->n_first = half;
    }
}

/* The units of mat, all of own rows, that hold the first n_row. */
static uint32_t units_to(const struct nn *n, const struct matrix *mat, uint32_t n_row) {
    uint32_t u = 0;
    while (u < mat->n_unit) {
        const struct unit *at = &n->w.unit[mat->unit0 + u];
        if (n->w.rows[at->tile].row + at->group * ROW_GROUP >= n_row) break;
        u++;
    }
    return u;
}

/* Columns done by one piece of work into where they are gathered from. */
static void run_columns(struct par *team, par_work *f, struct token_work *w, uint32_t from,
                        uint32_t to) {
    w->from = from;
    w->to = to;
    if (from < to) run_tokens(team, f, w);
}

/* Multiply by the jobs, of which the last one's own rows (or what `put` makes of all jobs' rows) are
 * gathered in buf; put() is given the columns that are ready. */
static MUST multiply_and_gather(struct nn *n, struct par *team, struct mm_job *job, unsigned n_job,
                                par_work *put, struct token_work *w, const struct spans *p,
                                void *buf, size_t stride, struct err *e) {
    uint32_t done = 0, first = 0;
    struct mm_job *last = &job[n_job - 1];
    if (p->is_split) {
        first = units_to(n, last->mat, p->n_first);
        last->n_unit = first;
        if (first) {
            if (!matmul(&n->mm, team, job, n_job, w->n_tok, e)) return false;
            run_columns(team, put, w, 0, p->n_first);
            done = p->n_first;
            job = last, n_job = 1;
        }
        if (!n->coll->begin(n->coll, p->kind, buf, stride, w->n_tok, p->at, p->mid, e))
            return false;
        last->unit = first;
        last->n_unit = last->mat->n_unit - first;
    }
    if ((n_job > 1 || first < last->mat->n_unit) &&
        !matmul(&n->mm, team, job, n_job, w->n_tok, e)) {
        return false;
    }
    run_columns(team, put, w, done, p->n_own);
    return n->coll->gather(n->coll, p->kind, buf, stride, w->n_tok, p->at, e);
}

void site_put(const struct nn *n, const struct site *s, const struct matrix *mat, uint32_t row,
              uint32_t col, const float *src, uint32_t n_own) {
    if (!n_own) return;
    if (mat->ops->is_float) {
        memcpy(s->f + row * s->ld + col, src, n_own * sizeof(float));
    } else {
        n->k->quantise(s->a + (size_t)row * s->n_block + col / Q_BLOCK, src, n_own);
    }
}

static enum coll_kind site_kind(const struct matrix *mat) {
    return mat->ops->is_float ? COLL_F32 : COLL_ACT;
}

/* The rows of a site in the form that mat, which reads it, eats: another layer's matrix may be of
 * another kind. */
static void *site_rows(const struct site *s, const struct matrix *mat, size_t *stride) {
    bool floats = mat->ops->is_float;
    *stride = floats ? s->ld * sizeof(float) : s->n_block * sizeof(struct act);
    return floats ? (void *)s->f : s->a;
}

MUST site_gather(struct nn *n, struct site *s, const struct matrix *mat, const uint32_t *cut,
                 uint32_t n_row, struct err *e) {
    struct spans p;
    size_t stride;
    void *rows = site_rows(s, mat, &stride);
    spans_make(&p, n, site_kind(mat), cut, 0);
    return n->coll->gather(n->coll, p.kind, rows, stride, n_row, p.at, e);
}

/* --- branch outputs: round to the wire type, gather, add to the residual --- */

static void to_wire(void *ctx, int thread, int n_thread) {
    const struct token_work *w = ctx;
    const struct nn *n = w->n;
    uint32_t col = n->conf.cuts.embd[n->conf.self] + w->from, n_col = w->to - w->from;
    for (uint32_t t = (uint32_t)thread; t < w->n_tok; t += (uint32_t)n_thread) {
        uint8_t *row = n->wire + t * n->wire_stride + col / Q_BLOCK * wire_block(n->conf.wire);
        const float *y = n->y + t * w->src_ld + w->from;
        switch (n->conf.wire) {
        case WIRE_Q16: n->k->to_wire16((struct wire16 *)(void *)row, y, n_col); break;
        case WIRE_Q8: n->k->quantise((struct act *)(void *)row, y, n_col); break;
        case WIRE_F32: memcpy(row, y, n_col * sizeof(float)); break;
        }
    }
}

static void add_wire(void *ctx, int thread, int n_thread) {
    const struct token_work *w = ctx;
    const struct nn *n = w->n;
    uint32_t d = n->conf.model->n_embd;
    for (uint32_t t = (uint32_t)thread; t < w->n_tok; t += (uint32_t)n_thread) {
        const void *row = n->wire + t * n->wire_stride;
        float *x = n->x + (size_t)t * d;
        switch (n->conf.wire) {
        case WIRE_Q16: n->k->add_wire16(x, row, d); break;
        case WIRE_Q8: n->k->add_act(x, row, d); break;
        case WIRE_F32: n->k->add(x, row, d); break;
        }
    }
}

static enum coll_kind wire_kind(enum wire_type type) {
    return type == WIRE_Q16 ? COLL_WIRE16 : type == WIRE_Q8 ? COLL_ACT : COLL_F32;
}

/* The output of a branch: own rows of mat, gathered and added. */
static MUST add_branch(struct nn *n, struct par *team, const struct matrix *mat,
                       const struct site *in, uint32_t n_tok, struct err *e) {
    uint32_t ld = round_up(n->n_embd_own, ROW_GROUP);
    struct token_work w = {.n = n, .n_tok = n_tok, .src_ld = ld};
    struct mm_job job = {.mat = mat, .x = site_input(in, mat), .y = n->y, .ldy = ld};
    struct spans p;
    spans_make(&p, n, wire_kind(n->conf.wire), n->conf.cuts.embd, n_tok);
    if (!multiply_and_gather(n, team, &job, 1, to_wire, &w, &p, n->wire, n->wire_stride, e)) {
        return false;
    }
    run_tokens(team, add_wire, &w);
    return true;
}

MUST branch_end(struct nn *n, struct par *team, uint32_t n_tok, struct err *e) {
    uint32_t ld = round_up(n->n_embd_own, ROW_GROUP);
    struct token_work w = {.n = n, .n_tok = n_tok, .src_ld = ld};
    struct spans p;
    spans_make(&p, n, wire_kind(n->conf.wire), n->conf.cuts.embd, 0);
    run_columns(team, to_wire, &w, 0, p.n_own);
    if (!n->coll->gather(n->coll, p.kind, n->wire, n->wire_stride, n_tok, p.at, e)) return false;
    run_tokens(team, add_wire, &w);
    return true;
}

/* --- attention --- */

/* Where the cache of own KV head h of a layer starts, for the step's sequence, in bytes. */
static size_t kv_at(const struct nn *n, uint32_t layer, uint32_t h) {
    const struct model *m = n->conf.model;
    size_t head = ((size_t)n->seq * m->n_layer + layer) * n->n_kv + h;
    return head * n->conf.n_ctx * m->head_dim * n->kv_elem;
}

static void kv_store(const struct nn *n, uint8_t *dst, const float *src, uint32_t count) {
    if (n->conf.kv == KV_F32)
        memcpy(dst, src, count * sizeof(float));
    else
        n->k->to_f16((uint16_t *)(void *)dst, src, count);
}

/* Rotate own queries and keys, and put keys and values into the cache. */
static void rotate_and_cache(void *ctx, int thread, int n_thread) {
    const struct token_work *w = ctx;
    const struct nn *n = w->n;
    const struct model *m = n->conf.model;
    uint32_t hd = m->head_dim, n_pair = m->n_rot / 2;
    uint32_t ldq = round_up(n->n_q * hd, ROW_GROUP), ldk = round_up(n->n_kv * hd, ROW_GROUP);
    for (uint32_t t = (uint32_t)thread; t < w->n_tok; t += (uint32_t)n_thread) {
        const float *cs = n->angle + (size_t)t * n_pair * 2;
        for (uint32_t h = 0; h < n->n_q; h++) n->k->rope(n->q + t * ldq + h * hd, cs, n_pair);
        for (uint32_t h = 0; h < n->n_kv; h++) {
            float *k = n->kx + t * ldk + h * hd;
            size_t at = kv_at(n, w->layer, h) + (size_t)(n->pos + t) * hd * n->kv_elem;
            n->k->rope(k, cs, n_pair);
            kv_store(n, n->key + at, k, hd);
            kv_store(n, n->value + at, n->v + t * ldk + h * hd, hd);
        }
    }
}

/* Own query heads of all tokens, one (token, head) at a time. */
static void attend_heads(void *ctx, int thread, int n_thread) {
    const struct token_work *w = ctx;
    const struct nn *n = w->n;
    const struct model *m = n->conf.model;
    uint32_t hd = m->head_dim, group = m->n_head / m->n_head_kv;
    uint32_t ldq = round_up(n->n_q * hd, ROW_GROUP);
    struct attention a = {
        .type = n->conf.kv, .hd = hd, .stride = hd, .scale = 1.0F / __builtin_sqrtf((float)hd)};
    for (uint32_t i = (uint32_t)thread; i < w->n_tok * n->n_q; i += (uint32_t)n_thread) {
        uint32_t t = i / n->n_q, h = i % n->n_q;
        size_t at = kv_at(n, w->layer, h / group);
        a.n_pos = n->pos + t + 1;
        n->k->attend(n->head + (size_t)i * hd, n->q + t * ldq + h * hd, n->key + at, n->value + at,
                     &a);
    }
}

static void put_heads(void *ctx, int thread, int n_thread) {
    const struct token_work *w = ctx;
    const struct nn *n = w->n;
    uint32_t hd = n->conf.model->head_dim, width = n->n_q * hd;
    for (uint32_t t = (uint32_t)thread; t < w->n_tok; t += (uint32_t)n_thread) {
        site_put(n, &n->att, &n->w.layer[w->layer].o, t, n->head0 * hd, n->head + (size_t)t * width,
                 width);
    }
}

static MUST attention(struct nn *n, struct par *team, uint32_t layer, uint32_t n_tok,
                      struct err *e) {
    const struct layer_matrices *l = &n->w.layer[layer];
    uint32_t hd = n->conf.model->head_dim;
    site_from_norm(n, team, &n->in, n->norm[layer].attn, 0, n_tok);
    const struct mm_job qkv[] = {
        {.mat = &l->q,
         .x = site_input(&n->in, &l->q),
         .y = n->q,
         .ldy = round_up(n->n_q * hd, ROW_GROUP)},
        {.mat = &l->k,
         .x = site_input(&n->in, &l->k),
         .y = n->kx,
         .ldy = round_up(n->n_kv * hd, ROW_GROUP)},
        {.mat = &l->v,
         .x = site_input(&n->in, &l->v),
         .y = n->v,
         .ldy = round_up(n->n_kv * hd, ROW_GROUP)},
    };
    if (!matmul(&n->mm, team, qkv, 3, n_tok, e)) return false;
    struct token_work w = {.n = n, .layer = layer, .n_tok = n_tok};
    if (n->n_kv) {
        run_tokens(team, rotate_and_cache, &w);
        par_run(team, attend_heads, &w);
        run_tokens(team, put_heads, &w);
    }
    uint32_t cut[SLICE_MAX + 1];
    uint32_t width = n->conf.model->n_head / n->conf.model->n_head_kv * hd;
    for (unsigned i = 0; i <= n->conf.n_slice; i++) cut[i] = n->conf.cuts.kv_head[i] * width;
    if (!site_gather(n, &n->att, &l->o, cut, n_tok, e)) return false;
    if (!l->o.ops->is_float) site_pack(n, &n->att, n_tok);
    return add_branch(n, team, &l->o, &n->att, n_tok, e);
}

/* --- feed-forward --- */

static void gate_tokens(void *ctx, int thread, int n_thread) {
    const struct token_work *w = ctx;
    const struct nn *n = w->n;
    uint32_t col = n->conf.cuts.ff[n->conf.self] + w->from, n_col = w->to - w->from;
    for (uint32_t t = (uint32_t)thread; t < w->n_tok; t += (uint32_t)n_thread) {
        float *g = n->gate + t * w->src_ld + w->from;
        n->k->silu_mul(g, g, n->up + t * w->src_ld + w->from, n_col);
        site_put(n, &n->ff, &n->w.layer[w->layer].down, t, col, g, n_col);
    }
}

static MUST feed_forward(struct nn *n, struct par *team, uint32_t layer, uint32_t n_tok,
                         struct err *e) {
    const struct layer_matrices *l = &n->w.layer[layer];
    uint32_t ld = round_up(n->n_ff_own, ROW_GROUP);
    site_from_norm(n, team, &n->in, n->norm[layer].ffn, 0, n_tok);
    struct mm_job gate_up[] = {
        {.mat = &l->gate, .x = site_input(&n->in, &l->gate), .y = n->gate, .ldy = ld},
        {.mat = &l->up, .x = site_input(&n->in, &l->up), .y = n->up, .ldy = ld},
    };
    struct token_work w = {.n = n, .layer = layer, .n_tok = n_tok, .src_ld = ld};
    struct spans p;
    size_t stride;
    void *rows = site_rows(&n->ff, &l->down, &stride);
    spans_make(&p, n, site_kind(&l->down), n->conf.cuts.ff, n_tok);
    if (!multiply_and_gather(n, team, gate_up, 2, gate_tokens, &w, &p, rows, stride, e)) {
        return false;
    }
    if (!l->down.ops->is_float) site_pack(n, &n->ff, n_tok);
    return add_branch(n, team, &l->down, &n->ff, n_tok, e);
}

MUST layer_run(struct nn *n, struct par *team, uint32_t layer, uint32_t n_tok, struct err *e) {
    if (!attention(n, team, layer, n_tok, e)) return false;
    return n->conf.model->n_expert ? moe_run(n, team, layer, n_tok, e)
                                   : feed_forward(n, team, layer, n_tok, e);
}
