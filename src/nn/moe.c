/* moe.c - the feed-forward part of a layer with experts (top k of a softmax, renormalised: Jiang et al.
 * 2024, "Mixtral of Experts", section 2.1).
 *
 * Every slice routes for itself: the router is small, so each computes all of its rows, and as all see
 * the same activations to the bit, all choose the same. A slice then computes its rows of every chosen
 * expert's matrices. What the slices hand each other is one gather of the gated activations of all
 * pairs of token and expert, and one of the branch: as many as a dense layer has.
 *
 * The contract. The n_used best by router output, ties to the lower index, a NaN after all numbers;
 * p = exp(v - best) (exp.h), summed in descending order of v; the weight is p / sum. The branch is
 * weight * y of the lowest chosen expert, to which weight * y of the others is added in ascending
 * order, each product and each sum rounded to f32; only then it is rounded to the wire type.
 *
 * For several tokens an expert is multiplied once with all that chose it. Experts go together in runs:
 * as many as the scratch holds, and with streamed weights not across one that nobody chose, whose tiles
 * must be let go in their turn.
 */
#include "exp.h"
#include "nn/state.h"

#include <string.h>

/* Experts under way: their jobs, and the pairs [first, first + n_pair). */
struct run {
    struct nn *n;
    struct par *team;
    const struct layer_matrices *l;
    uint32_t n_tok;
    par_work *finish;  // what becomes of the outputs; ctx is the run
    struct mm_job job[MM_JOBS];
    unsigned n_job;
    uint32_t first, n_pair;
    size_t room, used;  // bytes of panels
};

/* --- routing --- */

static bool is_better(float a, float b) {
    return a > b || (b != b && a == a);
}

/* The k best of score [n] into pick [k], by expert, with their weights. */
static void choose(struct pair *pick, uint32_t token, const float *score, uint32_t n, uint32_t k) {
    bool is_taken[MODEL_MAX_EXPERT] = {false};
    float sum = 0, top = 0;
    for (uint32_t j = 0; j < k; j++) {
        uint32_t best = n;
        for (uint32_t i = 0; i < n; i++) {
            if (!is_taken[i] && (best == n || is_better(score[i], score[best]))) best = i;
        }
        is_taken[best] = true;
        if (!j) top = score[best];
        float p = k_exp(score[best] - top);
        sum += p;
        uint32_t at = j;
        for (; at > 0 && pick[at - 1].expert > best; at--) pick[at] = pick[at - 1];
        pick[at] = (struct pair){.token = token, .expert = (uint16_t)best, .weight = p};
    }
    for (uint32_t j = 0; j < k; j++) {
        pick[j].weight /= sum;
        pick[j].is_first = j == 0;
    }
}

/* Sort by counting: tokens stay in order within an expert. */
static void sort_pairs(struct moe *moe, uint32_t n_expert, uint32_t n_pair) {
    uint32_t at[MODEL_MAX_EXPERT];
    memset(moe->start, 0, sizeof moe->start);
    for (uint32_t i = 0; i < n_pair; i++) moe->start[moe->pick[i].expert + 1]++;
    for (uint32_t x = 0; x < n_expert; x++) {
        at[x] = moe->start[x];
        moe->start[x + 1] += moe->start[x];
    }
    for (uint32_t i = 0; i < n_pair; i++) moe->pair[at[moe->pick[i].expert]++] = moe->pick[i];
}

static MUST route(struct nn *n, struct par *team, const struct matrix *router, uint32_t n_tok,
                  struct err *e) {
    const struct model *m = n->conf.model;
    struct moe *moe = &n->moe;
    uint32_t ld = round_up(m->n_expert, ROW_GROUP);
    const struct mm_job job = {
        .mat = router, .x = site_input(&n->in, router), .y = moe->score, .ldy = ld};
    if (!matmul(&n->mm, team, &job, 1, n_tok, e)) return false;
    for (uint32_t t = 0; t < n_tok; t++) {
        choose(moe->pick + (size_t)t * m->n_used, t, moe->score + (size_t)t * ld, m->n_expert,
               m->n_used);
    }
    sort_pairs(moe, m->n_expert, n_tok * m->n_used);
    return true;
}

/* --- runs --- */

static void run_begin(struct run *r, struct nn *n, struct par *team, uint32_t layer, uint32_t n_tok,
                      const struct site *in, par_work *finish) {
    *r = (struct run){
        .n = n, .team = team, .l = &n->w.layer[layer], .n_tok = n_tok, .finish = finish};
    r->room = panel_bytes(in->n_col, n->moe.n_row > 1 ? round_up(n->moe.n_row, 8) : 1);
}

static MUST run_end(struct run *r, struct err *e) {
    if (r->n_job && !matmul(&r->n->mm, r->team, r->job, r->n_job, r->n_tok, e)) return false;
    if (r->n_pair && r->n_tok == 1)
        r->finish(r, 0, 1);  // too short to share out
    else if (r->n_pair)
        par_run(r->team, r->finish, r);
    r->first += r->n_pair;
    r->n_pair = r->n_job = 0;
    r->used = 0;
    return true;
}

/* Room for n_pair more: ends the run when there is none. One expert always fits an empty run. */
static MUST run_room(struct run *r, const struct site *in, uint32_t n_pair, unsigned n_job,
                     struct err *e) {
    bool fits = r->n_pair + n_pair <= r->n->moe.n_row && r->n_job + n_job <= MM_JOBS &&
                r->used + panel_bytes(in->n_col, n_pair) <= r->room;
    return fits || run_end(r, e);
}

/* Nobody chose this one. */
static MUST run_skip(struct run *r, const struct matrix *mat, struct err *e) {
    bool streams = r->n->memory.tiles.n_streamed > 0;
    return (!streams || run_end(r, e)) && matmul_skip(&r->n->mm, mat, e);
}

static void run_add(struct run *r, const struct matrix *mat, const struct site *in, float *y,
                    uint32_t ld, uint32_t n_pair) {
    r->job[r->n_job++] = (struct mm_job){.mat = mat,
                                         .x = site_input(in, mat),
                                         .y = y + (size_t)r->n_pair * ld,
                                         .ldy = ld,
                                         .n_tok = n_pair};
}

/* Panels of rows a [n_pair, n_block] behind those of the run. */
static void run_pack(struct run *r, struct site *in, const struct act *a, uint32_t n_pair) {
    in->panel = (uint8_t *)in->panel + r->used;
    r->n->k->pack(in->panel, a, in->n_block, in->n_block, n_pair);
    r->used += panel_bytes(in->n_col, n_pair);
}

/* --- gate and up --- */

/* The inputs of the run's next n_pair pairs, side by side. A single token's serve all its experts. */
static struct site gate_input(struct run *r, uint32_t first, uint32_t n_pair) {
    const struct nn *n = r->n;
    if (r->n_tok == 1) return n->in;
    struct site in = n->moe.in;
    const struct pair *p = n->moe.pair + first;
    if (in.floats) {
        in.f += (size_t)r->n_pair * in.ld;
        for (uint32_t i = 0; i < n_pair; i++) {
            memcpy(in.f + i * in.ld, n->in.f + p[i].token * in.ld, in.ld * sizeof(float));
        }
    }
    if (in.quants) {
        for (uint32_t i = 0; i < n_pair; i++) {
            memcpy(in.a + (size_t)i * in.n_block, n->in.a + (size_t)p[i].token * in.n_block,
                   in.n_block * sizeof(struct act));
        }
        run_pack(r, &in, in.a, n_pair);
    }
    return in;
}

static void gate_pairs(void *ctx, int thread, int n_thread) {
    const struct run *r = ctx;
    const struct nn *n = r->n;
    const struct matrix *reader = &r->l->expert[0].down;  // all of a layer read one form
    uint32_t ld = round_up(n->n_ff_own, ROW_GROUP), col = n->conf.cuts.ff[n->conf.self];
    for (uint32_t i = (uint32_t)thread; i < r->n_pair; i += (uint32_t)n_thread) {
        float *g = n->gate + (size_t)i * ld;
        n->k->silu_mul(g, g, n->up + (size_t)i * ld, n->n_ff_own);
        site_put(n, &n->ff, reader, r->first + i, col, g, n->n_ff_own);
    }
}

static MUST gate_and_up(struct nn *n, struct par *team, uint32_t layer, uint32_t n_tok,
                        struct err *e) {
    const uint32_t *start = n->moe.start, ld = round_up(n->n_ff_own, ROW_GROUP);
    struct run r;
    run_begin(&r, n, team, layer, n_tok, &n->moe.in, gate_pairs);
    for (uint32_t i = 0; i < n->conf.model->n_expert; i++) {
        const struct expert_matrices *x = &r.l->expert[i];
        uint32_t n_pair = start[i + 1] - start[i];
        if (!n_pair) {
            if (!run_skip(&r, &x->gate, e) || !run_skip(&r, &x->up, e)) return false;
            continue;
        }
        if (!run_room(&r, &n->moe.in, n_pair, 2, e)) return false;
        struct site in = gate_input(&r, start[i], n_pair);
        run_add(&r, &x->gate, &in, n->gate, ld, n_pair);
        run_add(&r, &x->up, &in, n->up, ld, n_pair);
        r.n_pair += n_pair;
    }
    return run_end(&r, e);
}

/* --- down --- */

/* A thread has some of the tokens, each with its experts in ascending order. */
static void add_pairs(void *ctx, int thread, int n_thread) {
    const struct run *r = ctx;
    const struct nn *n = r->n;
    uint32_t ld = round_up(n->n_embd_own, ROW_GROUP);
    for (uint32_t i = 0; i < r->n_pair; i++) {
        const struct pair *p = &n->moe.pair[r->first + i];
        if (p->token % (uint32_t)n_thread != (uint32_t)thread) continue;
        const float *y = n->moe.y + (size_t)i * ld;
        float *sum = n->y + (size_t)p->token * ld, w = p->weight;
        if (p->is_first) {
            for (uint32_t c = 0; c < n->n_embd_own; c++) sum[c] = w * y[c];
        } else {
            for (uint32_t c = 0; c < n->n_embd_own; c++) sum[c] += w * y[c];
        }
    }
}

/* The pairs' rows are side by side already. */
static struct site down_input(struct run *r, uint32_t first, uint32_t n_pair) {
    struct site in = r->n->ff;
    if (in.floats) in.f += first * in.ld;
    if (in.quants) run_pack(r, &in, in.a + (size_t)first * in.n_block, n_pair);
    return in;
}

static MUST down(struct nn *n, struct par *team, uint32_t layer, uint32_t n_tok, struct err *e) {
    const uint32_t *start = n->moe.start, ld = round_up(n->n_embd_own, ROW_GROUP);
    struct run r;
    run_begin(&r, n, team, layer, n_tok, &n->ff, add_pairs);
    for (uint32_t i = 0; i < n->conf.model->n_expert; i++) {
        const struct expert_matrices *x = &r.l->expert[i];
        uint32_t n_pair = start[i + 1] - start[i];
        if (!n_pair) {
            if (!run_skip(&r, &x->down, e)) return false;
            continue;
        }
        if (!run_room(&r, &n->ff, n_pair, 1, e)) return false;
        struct site in = down_input(&r, start[i], n_pair);
        run_add(&r, &x->down, &in, n->moe.y, ld, n_pair);
        r.n_pair += n_pair;
    }
    return run_end(&r, e);
}

MUST moe_run(struct nn *n, struct par *team, uint32_t layer, uint32_t n_tok, struct err *e) {
    const struct layer_matrices *l = &n->w.layer[layer];
    uint32_t n_pair = n_tok * n->conf.model->n_used;
    site_from_norm(n, team, &n->in, n->norm[layer].ffn, 0, n_tok);
    return route(n, team, &l->router, n_tok, e) && gate_and_up(n, team, layer, n_tok, e) &&
           site_gather(n, &n->ff, &l->expert[0].down, n->conf.cuts.ff, n_pair, e) &&
           down(n, team, layer, n_tok, e) && branch_end(n, team, n_tok, e);
}
