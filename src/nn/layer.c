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

static const void *site_input(const struct site *s, const struct matrix *mat) {
    return mat->ops->is_float ? (const void *)s->f : s->panel;
}

/* Complete a site from all slices' parts, in the form that mat, which reads it, eats: another layer's
 * matrix may be of another kind. cut [n_slice + 1] are the slices' columns. */
static MUST site_gather(struct nn *n, struct site *s, const struct matrix *mat, const uint32_t *cut,
                        uint32_t n_tok, struct err *e) {
    size_t at[SLICE_MAX + 1];
    bool floats = mat->ops->is_float;
    for (unsigned i = 0; i <= n->conf.n_slice; i++) {
        at[i] =
            floats ? cut[i] * sizeof(float) : (cut[i] + Q_BLOCK - 1) / Q_BLOCK * sizeof(struct act);
    }
    void *buf = floats ? (void *)s->f : s->a;
    size_t stride = floats ? s->ld * sizeof(float) : s->n_block * sizeof(struct act);
    if (!n->coll->gather(n->coll, buf, stride, n_tok, at, e)) return false;
    if (!floats) site_pack(n, s, n_tok);
    return true;
}

/* Own activations src [n_own] of token t into the site, from column col on, in the same form. */
static void site_put(const struct nn *n, const struct site *s, const struct matrix *mat, uint32_t t,
                     uint32_t col, const float *src, uint32_t n_own) {
    if (!n_own) return;
    if (mat->ops->is_float) {
        memcpy(s->f + t * s->ld + col, src, n_own * sizeof(float));
    } else {
        n->k->quantise(s->a + (size_t)t * s->n_block + col / Q_BLOCK, src, n_own);
    }
}

/* --- branch outputs: round to the wire type, gather, add to the residual --- */

static size_t wire_block(enum wire_type type) {
    return type == WIRE_Q16  ? sizeof(struct wire16)
           : type == WIRE_Q8 ? sizeof(struct act)
                             : Q_BLOCK * sizeof(float);
}

static void to_wire(void *ctx, int thread, int n_thread) {
    const struct token_work *w = ctx;
    const struct nn *n = w->n;
    uint32_t col = n->conf.cuts.embd[n->conf.self];
    for (uint32_t t = (uint32_t)thread; t < w->n_tok; t += (uint32_t)n_thread) {
        uint8_t *row = n->wire + t * n->wire_stride + col / Q_BLOCK * wire_block(n->conf.wire);
        const float *y = n->y + t * w->src_ld;
        switch (n->conf.wire) {
        case WIRE_Q16: n->k->to_wire16((struct wire16 *)(void *)row, y, n->n_embd_own); break;
        case WIRE_Q8: n->k->quantise((struct act *)(void *)row, y, n->n_embd_own); break;
        case WIRE_F32: memcpy(row, y, n->n_embd_own * sizeof(float)); break;
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

static MUST add_branch(struct nn *n, struct par *team, uint32_t n_tok, struct err *e) {
    struct token_work w = {.n = n, .n_tok = n_tok, .src_ld = round_up(n->n_embd_own, ROW_GROUP)};
    if (n->n_embd_own) run_tokens(team, to_wire, &w);
    size_t at[SLICE_MAX + 1], block = wire_block(n->conf.wire);
    for (unsigned i = 0; i <= n->conf.n_slice; i++) {
        at[i] = (n->conf.cuts.embd[i] + Q_BLOCK - 1) / Q_BLOCK * block;
    }
    if (!n->coll->gather(n->coll, n->wire, n->wire_stride, n_tok, at, e)) return false;
    run_tokens(team, add_wire, &w);
    return true;
}

/* --- attention --- */

/* Where the cache of own KV head h of a layer starts, in bytes. */
static size_t kv_at(const struct nn *n, uint32_t layer, uint32_t h) {
    return ((size_t)layer * n->n_kv + h) * n->conf.n_ctx * n->conf.model->head_dim * n->kv_elem;
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
    float scale = 1.0F / __builtin_sqrtf((float)hd);
    for (uint32_t i = (uint32_t)thread; i < w->n_tok * n->n_q; i += (uint32_t)n_thread) {
        uint32_t t = i / n->n_q, h = i % n->n_q;
        size_t at = kv_at(n, w->layer, h / group);
        n->k->attend(n->head + (size_t)i * hd, n->q + t * ldq + h * hd, n->key + at, n->value + at,
                     n->conf.kv, hd, hd, n->pos + t + 1, scale);
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
        {&l->q, site_input(&n->in, &l->q), n->q, round_up(n->n_q * hd, ROW_GROUP)},
        {&l->k, site_input(&n->in, &l->k), n->kx, round_up(n->n_kv * hd, ROW_GROUP)},
        {&l->v, site_input(&n->in, &l->v), n->v, round_up(n->n_kv * hd, ROW_GROUP)},
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
    const struct mm_job o = {&l->o, site_input(&n->att, &l->o), n->y,
                             round_up(n->n_embd_own, ROW_GROUP)};
    return matmul(&n->mm, team, &o, 1, n_tok, e) && add_branch(n, team, n_tok, e);
}

/* --- feed-forward --- */

static void gate_tokens(void *ctx, int thread, int n_thread) {
    const struct token_work *w = ctx;
    const struct nn *n = w->n;
    uint32_t ld = round_up(n->n_ff_own, ROW_GROUP), col = n->conf.cuts.ff[n->conf.self];
    for (uint32_t t = (uint32_t)thread; t < w->n_tok; t += (uint32_t)n_thread) {
        float *g = n->gate + t * ld;
        n->k->silu_mul(g, g, n->up + t * ld, n->n_ff_own);
        site_put(n, &n->ff, &n->w.layer[w->layer].down, t, col, g, n->n_ff_own);
    }
}

static MUST feed_forward(struct nn *n, struct par *team, uint32_t layer, uint32_t n_tok,
                         struct err *e) {
    const struct layer_matrices *l = &n->w.layer[layer];
    uint32_t ld = round_up(n->n_ff_own, ROW_GROUP);
    site_from_norm(n, team, &n->in, n->norm[layer].ffn, 0, n_tok);
    const struct mm_job gate_up[] = {
        {&l->gate, site_input(&n->in, &l->gate), n->gate, ld},
        {&l->up, site_input(&n->in, &l->up), n->up, ld},
    };
    if (!matmul(&n->mm, team, gate_up, 2, n_tok, e)) return false;
    struct token_work w = {.n = n, .layer = layer, .n_tok = n_tok};
    if (n->n_ff_own) run_tokens(team, gate_tokens, &w);
    if (!site_gather(n, &n->ff, &l->down, n->conf.cuts.ff, n_tok, e)) return false;
    const struct mm_job down = {&l->down, site_input(&n->ff, &l->down), n->y,
                                round_up(n->n_embd_own, ROW_GROUP)};
    return matmul(&n->mm, team, &down, 1, n_tok, e) && add_branch(n, team, n_tok, e);
}

MUST layer_run(struct nn *n, struct par *team, uint32_t layer, uint32_t n_tok, struct err *e) {
    return attention(n, team, layer, n_tok, e) && feed_forward(n, team, layer, n_tok, e);
}
