/* layer.c - one transformer block on a slice (Touvron et al. 2023: pre-norm, rotary, grouped-query
 * attention, SwiGLU). Reads top to bottom; every gather is the place where the slices meet. What an
 * architecture does differently is a trait of the model or a vector that it has.
 *
 * The order of what is optional, which is part of the contract. A bias is added to a matrix' output by
 * whoever has the row, before anything else is done with it. Queries and keys: bias, norm of each head,
 * rotation; then keys are rounded into the cache. A branch's norm reads the whole output as it was
 * rounded to the wire type, on every slice alike, and its result is added to the residual.
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
    const float *weight, *bias;  // of a norm
    const float *add, *post;     // bias and norm of a branch's output, or NULL
    const float *src;            // [n_tok, src_ld]
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
void site_pack(const struct nn *n, const struct site *s, uint32_t n_tok) {
    if (s->quants) n->k->pack(s->panel, s->a, s->n_block, s->n_block, n_tok);
}

static void norm_tokens(void *ctx, int thread, int n_thread) {
    const struct token_work *w = ctx;
    const struct site *s = w->site;
    const struct model *m = w->n->conf.model;
    for (uint32_t t = (uint32_t)thread; t < w->n_tok; t += (uint32_t)n_thread) {
        const float *x = w->src + (w->first + t) * w->src_ld;
        if (!w->bias && !s->floats) {
            struct act *q = s->a + (size_t)t * s->n_block;
            w->n->k->rmsnorm_quantise(q, x, w->weight, m->n_embd, m->norm_eps);
            continue;
        }
        float *y = s->f + t * s->ld;
        if (w->bias)
            w->n->k->layernorm(y, x, w->weight, w->bias, m->n_embd, m->norm_eps);
        else
            w->n->k->rmsnorm(y, x, w->weight, m->n_embd, m->norm_eps);
        if (s->quants) w->n->k->quantise(s->a + (size_t)t * s->n_block, y, s->n_col);
    }
}

void site_from_norm(struct nn *n, struct par *team, struct site *s, const float *weight,
                    const float *bias, uint32_t first, uint32_t n_tok) {
    struct token_work w = {.n = n,
                           .site = s,
                           .weight = weight,
                           .bias = bias,
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
        float *y = n->y + t * w->src_ld + w->from;
        if (w->add) n->k->add(y, w->add + w->from, n_col);
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
        float *to = w->post ? n->in.f + t * n->in.ld : x;  // what was in there is used up
        if (w->post) memset(to, 0, d * sizeof *to);
        switch (n->conf.wire) {
        case WIRE_Q16: n->k->add_wire16(to, row, d); break;
        case WIRE_Q8: n->k->add_act(to, row, d); break;
        case WIRE_F32: n->k->add(to, row, d); break;
        }
        if (!w->post) continue;
        n->k->rmsnorm(to, to, w->post, d, n->conf.model->norm_eps);
        n->k->add(x, to, d);
    }
}

static enum coll_kind wire_kind(enum wire_type type) {
    return type == WIRE_Q16 ? COLL_WIRE16 : type == WIRE_Q8 ? COLL_ACT : COLL_F32;
}

/* The output of a branch: own rows of mat, gathered and added. */
static MUST add_branch(struct nn *n, struct par *team, const struct matrix *mat,
                       const struct site *in, const float *bias, const float *post, uint32_t n_tok,
                       struct err *e) {
    uint32_t ld = round_up(n->n_embd_own, ROW_GROUP);
    struct token_work w = {.n = n, .n_tok = n_tok, .src_ld = ld, .add = bias, .post = post};
    struct mm_job job = {.mat = mat, .x = site_input(in, mat), .y = n->y, .ldy = ld};
    struct spans p;
    spans_make(&p, n, wire_kind(n->conf.wire), n->conf.cuts.embd, n_tok);
    if (!multiply_and_gather(n, team, &job, 1, to_wire, &w, &p, n->wire, n->wire_stride, e)) {
        return false;
    }
    run_tokens(team, add_wire, &w);
    return true;
}

MUST branch_end(struct nn *n, struct par *team, const float *post, uint32_t n_tok, struct err *e) {
    uint32_t ld = round_up(n->n_embd_own, ROW_GROUP);
    struct token_work w = {.n = n, .n_tok = n_tok, .src_ld = ld, .post = post};
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
    size_t head = ((size_t)n->seq * n->conf.model->n_layer + layer) * n->n_kv + h;
    return head * n->conf.n_ctx * n->kv_row;
}

/* Norm, if there is one, and rotation of a head. */
static void turn(const struct nn *n, float *x, const float *norm, const float *cs) {
    const struct model *m = n->conf.model;
    if (norm) n->k->rmsnorm(x, x, norm, m->head_dim, m->norm_eps);
    if (m->traits.pairs == ROPE_HALVES)
        n->k->rope_halves(x, cs, m->n_rot / 2);
    else
        n->k->rope(x, cs, m->n_rot / 2);
}

/* Complete own queries and keys, and put keys and values into the cache. */
static void rotate_and_cache(void *ctx, int thread, int n_thread) {
    const struct token_work *w = ctx;
    const struct nn *n = w->n;
    const struct model *m = n->conf.model;
    const struct layer_vectors *v = &n->vec[w->layer];
    uint32_t hd = m->head_dim, n_q = n->n_q * hd, n_k = n->n_kv * hd;
    uint32_t ldq = round_up(n_q, ROW_GROUP), ldk = round_up(n_k, ROW_GROUP);
    const float *angle = n->angle;
    if (m->rope_base_local > 0 && m->layer[w->layer].is_local) {
        angle += (size_t)n->conf.n_sweep * m->n_rot;
    }
    for (uint32_t t = (uint32_t)thread; t < w->n_tok; t += (uint32_t)n_thread) {
        const float *cs = angle + (size_t)t * m->n_rot;
        float *q = n->q + t * ldq, *k = n->kx + t * ldk, *value = n->v + t * ldk;
        if (v->q_bias) n->k->add(q, v->q_bias, n_q);
        if (v->k_bias) n->k->add(k, v->k_bias, n_k);
        if (v->v_bias) n->k->add(value, v->v_bias, n_k);
        for (uint32_t h = 0; h < n->n_q; h++) turn(n, q + h * hd, v->q_norm, cs);
        for (uint32_t h = 0; h < n->n_kv; h++) {
            size_t at = kv_at(n, w->layer, h) + (n->pos + t) * n->kv_row;
            turn(n, k + h * hd, v->k_norm, cs);
            kv_store(n->k, n->conf.kv, n->key + at, k + h * hd, hd);
            kv_store(n->k, n->conf.kv, n->value + at, value + h * hd, hd);
        }
    }
}

/* The heads of all tokens that see an own KV head, token by token, are its queries; a thread takes a run of
 * them at a time. */
static void attend_heads(void *ctx, int thread, int n_thread) {
    const struct token_work *w = ctx;
    const struct nn *n = w->n;
    const struct model *m = n->conf.model;
    const float *sinks = n->vec[w->layer].sinks;
    uint32_t hd = m->head_dim, group = m->n_head / m->n_head_kv, n_query = w->n_tok * group;
    uint32_t ldq = round_up(n->n_q * hd, ROW_GROUP);
    uint32_t together = (uint32_t)attend_together(n->n_kv, n_query, (size_t)n_thread);
    uint32_t n_run = (n_query + together - 1) / together;
    bool is_local = m->layer[w->layer].is_local;
    struct attention a = {.type = n->conf.kv,
                          .hd = hd,
                          .stride = kv_row_values(n->conf.kv, hd),
                          .scale = m->attn_scale,
                          .softcap = m->attn_softcap};
    for (uint32_t i = (uint32_t)thread; i < n->n_kv * n_run; i += (uint32_t)n_thread) {
        struct query query[ATTEND_QUERIES];
        uint32_t kv = i / n_run, from = i % n_run * together, some = 0;
        for (; some < together && from + some < n_query; some++) {
            uint32_t t = (from + some) / group, h = kv * group + (from + some) % group;
            uint32_t n_pos = n->pos + t + 1;
            query[some] = (struct query){.q = n->q + t * ldq + h * hd,
                                         .out = n->head + ((size_t)t * n->n_q + h) * hd,
                                         .n_pos = n_pos,
                                         .sink = sinks ? &sinks[h] : NULL};
            if (is_local && n_pos > m->window) query[some].first = n_pos - m->window;
        }
        size_t at = kv_at(n, w->layer, kv);
        n->k->attend(query, some, n->key + at, n->value + at, &a,
                     n->attend_room + (size_t)thread * n->attend_floats);
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
    const struct layer_vectors *v = &n->vec[layer];
    site_from_norm(n, team, &n->in, v->attn_norm, v->attn_norm_bias, 0, n_tok);
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
    return add_branch(n, team, &l->o, &n->att, v->o_bias, v->post_attn, n_tok, e);
}

/* --- feed-forward --- */

void activate(const struct nn *n, float *gate, const float *up, uint32_t count) {
    switch (n->conf.model->traits.gate) {
    case GATE_SILU: n->k->silu_mul(gate, gate, up, count); break;
    case GATE_GELU: n->k->gelu_mul(gate, gate, up, count); break;
    case GATE_OAI: n->k->swiglu_oai(gate, gate, up, count); break;
    }
}

static void gate_tokens(void *ctx, int thread, int n_thread) {
    const struct token_work *w = ctx;
    const struct nn *n = w->n;
    const struct layer_vectors *v = &n->vec[w->layer];
    bool is_ungated = n->conf.model->traits.is_ungated;
    uint32_t col = n->conf.cuts.ff[n->conf.self] + w->from, n_col = w->to - w->from;
    for (uint32_t t = (uint32_t)thread; t < w->n_tok; t += (uint32_t)n_thread) {
        float *up = n->up + t * w->src_ld + w->from, *g = n->gate + t * w->src_ld + w->from;
        if (v->up_bias) n->k->add(up, v->up_bias + w->from, n_col);
        if (v->gate_bias) n->k->add(g, v->gate_bias + w->from, n_col);
        if (is_ungated) g = up;
        activate(n, g, is_ungated ? NULL : up, n_col);
        site_put(n, &n->ff, &n->w.layer[w->layer].down, t, col, g, n_col);
    }
}

static MUST feed_forward(struct nn *n, struct par *team, uint32_t layer, uint32_t n_tok,
                         struct err *e) {
    const struct layer_matrices *l = &n->w.layer[layer];
    const struct layer_vectors *v = &n->vec[layer];
    const struct traits *is = &n->conf.model->traits;
    uint32_t ld = round_up(n->n_ff_own, ROW_GROUP);
    if (!is->is_parallel) {
        site_from_norm(n, team, &n->in, v->ffn_norm, v->ffn_norm_bias, 0, n_tok);
    }
    struct mm_job gate_up[] = {
        {.mat = &l->gate, .y = n->gate, .ldy = ld},
        {.mat = &l->up, .x = site_input(&n->in, &l->up), .y = n->up, .ldy = ld},
    };
    if (!is->is_ungated) gate_up[0].x = site_input(&n->in, &l->gate);
    unsigned skip = is->is_ungated ? 1 : 0;
    struct token_work w = {.n = n, .layer = layer, .n_tok = n_tok, .src_ld = ld};
    struct spans p;
    size_t stride;
    void *rows = site_rows(&n->ff, &l->down, &stride);
    spans_make(&p, n, site_kind(&l->down), n->conf.cuts.ff, n_tok);
    if (!multiply_and_gather(n, team, gate_up + skip, 2 - skip, gate_tokens, &w, &p, rows, stride,
                             e)) {
        return false;
    }
    if (!l->down.ops->is_float) site_pack(n, &n->ff, n_tok);
    return add_branch(n, team, &l->down, &n->ff, v->down_bias, v->post_ffn, n_tok, e);
}

MUST layer_run(struct nn *n, struct par *team, uint32_t layer, uint32_t n_tok, struct err *e) {
    if (!attention(n, team, layer, n_tok, e)) return false;
    return n->conf.model->n_expert ? moe_run(n, team, layer, n_tok, e)
                                   : feed_forward(n, team, layer, n_tok, e);
}
