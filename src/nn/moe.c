/* moe.c - the feed-forward part of a layer with experts (top k of a softmax: Jiang et al. 2024, "Mixtral
 * of Experts", section 2.1), and with one that all tokens go to (Dai et al. 2024, "DeepSeekMoE", 3.2).
 *
 * Every slice routes for itself: the router is small, so each computes all of its rows, and as all see
 * the same activations to the bit, all choose the same. A slice then computes its rows of every chosen
 * expert's matrices. What the slices hand each other is one gather of the gated activations of all
 * pairs of token and expert, and one of the branch: as many as a dense layer has.
 *
 * The contract. The n_used best by router output, ties to the lower index, a NaN after all numbers;
 * p = exp(v - best) (exp.h), summed in descending order of v; the weight is p / sum. Where the model's
 * routing says so, the sum is over all experts, in ascending order. The branch is weight * y of the lowest chosen expert, to which weight * y of the others is added in ascending
 * order, each product and each sum rounded to f32; then 1 / (1 + exp(-g)) * y of the shared expert, g
 * being its router's output; only then it is rounded to the wire type. Biases as in layer.c: of the
 * router before the choice, of down before the weight.
 *
 * For several tokens an expert is multiplied once with all that chose it. Experts go together in runs, as
 * many neighbours as the scratch holds. Once the router has spoken all their tiles are wanted of the store,
 * in the order in which they will be used: within a run first what is in memory, so that the rest may
 * arrive meanwhile. The order is free as every pair has an output of its own.
 *
 * A token by itself looks ahead: what the next layer's router says of the residual stream as it is before
 * this layer's experts is a guess at whom it will choose, and lets the disk work during attention. Others
 * report that it names 74 to 89 % of a trained model's experts (GLM-5.2 74, DeepSeek-V2-Lite 79,
 * Qwen3-30B-A3B 89), that 71 to 86 % of what is read for it is used, and that it may still lose time. So whether
 * it pays is tried while running (look.h). A guess touches nothing but the cache.
 */
#include "base/clock.h"
#include "exp.h"
#include "nn/state.h"

#include <string.h>

/* Experts [from, stop) under way: their jobs, and the pairs [first, first + n_pair). */
struct run {
    struct nn *n;
    struct par *team;
    const struct layer_matrices *l;
    const struct layer_vectors *v;
    uint32_t n_tok;
    const struct site *in;  // what they read
    unsigned n_part;        // matrices of an expert
    struct mm_job job[MM_JOBS];
    unsigned n_job;
    uint32_t from, stop, first, n_pair;
    size_t used;  // bytes of panels
};

/* --- routing --- */

static bool is_better(float a, float b) {
    return a > b || (b != b && a == a);
}

/* The k best of score [n] into pick [k], by expert, with their weights. */
static void choose(struct pair *pick, uint32_t token, const float *score, uint32_t n, uint32_t k,
                   enum routing routing) {
    uint32_t best[MODEL_MAX_USED] = {0}, n_best = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (n_best == k && !is_better(score[i], score[best[k - 1]])) continue;
        uint32_t at = n_best < k ? n_best++ : k - 1;
        for (; at > 0 && is_better(score[i], score[best[at - 1]]); at--) best[at] = best[at - 1];
        best[at] = i;
    }
    float sum = 0, top = score[best[0]];
    for (uint32_t j = 0; j < n_best; j++) {
        float p = k_exp(score[best[j]] - top);
        sum += p;
        uint32_t at = j;
        for (; at > 0 && pick[at - 1].expert > best[j]; at--) pick[at] = pick[at - 1];
        pick[at] = (struct pair){.token = token, .expert = (uint16_t)best[j], .weight = p};
    }
    if (routing == ROUTE_ALL) sum = 0;
    for (uint32_t i = 0; routing == ROUTE_ALL && i < n; i++) sum += k_exp(score[i] - top);
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

/* Of each token the best by a layer's router, which reads n->in. */
static MUST pick(struct nn *n, struct par *team, uint32_t layer, uint32_t n_tok, struct err *e) {
    const struct matrix *router = &n->w.layer[layer].router;
    const float *bias = n->vec[layer].router_bias;
    const struct model *m = n->conf.model;
    struct moe *moe = &n->moe;
    uint32_t ld = round_up(m->n_expert, ROW_GROUP);
    const struct mm_job job = {
        .mat = router, .x = site_input(&n->in, router), .y = moe->score, .ldy = ld};
    if (!matmul(&n->mm, team, &job, 1, n_tok, e)) return false;
    for (uint32_t t = 0; t < n_tok; t++) {
        float *score = moe->score + (size_t)t * ld;
        if (bias) n->k->add(score, bias, m->n_expert);
        choose(moe->pick + (size_t)t * m->n_used, t, score, m->n_expert, m->n_used,
               m->traits.routing);
    }
    return true;
}

static MUST route(struct nn *n, struct par *team, uint32_t layer, uint32_t n_tok, struct err *e) {
    const struct model *m = n->conf.model;
    if (!pick(n, team, layer, n_tok, e)) return false;
    sort_pairs(&n->moe, m->n_expert, n_tok * m->n_used);
    return true;
}

/* --- runs --- */

static uint32_t pairs_of(const struct nn *n, uint32_t expert) {
    return n->moe.start[expert + 1] - n->moe.start[expert];
}

/* The next run: as many experts as there is room for, at least one; false when there are no more. */
static bool run_next(struct run *r) {
    const struct nn *n = r->n;
    const struct moe *moe = &n->moe;
    size_t room = panel_bytes(r->in->n_col, moe->n_row > 1 ? round_up(moe->n_row, 8) : 1);
    size_t used = 0;
    bool is_shared = r->n_tok == 1 && r->n_part == 2;  // the input of all: nothing is packed
    unsigned n_job = 0;
    r->from = r->stop;
    r->first = moe->start[r->from];
    for (; r->stop < n->conf.model->n_expert; r->stop++) {
        uint32_t n_pair = pairs_of(n, r->stop);
        if (!n_pair) continue;
        used += panel_bytes(r->in->n_col, n_pair);
        n_job += r->n_part;
        bool fits = moe->start[r->stop + 1] - r->first <= moe->n_row && n_job <= MM_JOBS &&
                    (is_shared || used <= room);
        if (!fits && n_job > r->n_part) break;
    }
    r->n_pair = moe->start[r->stop] - r->first;
    r->n_job = 0;
    r->used = 0;
    return r->n_pair > 0;
}

static void run_begin(struct run *r, struct nn *n, struct par *team, uint32_t layer, uint32_t n_tok,
                      const struct site *in, unsigned n_part) {
    *r = (struct run){.n = n,
                      .team = team,
                      .l = &n->w.layer[layer],
                      .v = &n->vec[layer],
                      .n_tok = n_tok,
                      .in = in,
                      .n_part = n_part};
}

/* The jobs, then what becomes of their outputs. */
static MUST run_end(struct run *r, par_work *finish, struct err *e) {
    if (!matmul(&r->n->mm, r->team, r->job, r->n_job, r->n_tok, e)) return false;
    if (r->n_tok == 1)
        finish(r, 0, 1);  // too short to share out
    else
        par_run(r->team, finish, r);
    return true;
}

/* An expert's matrix; y [n_pair of the run, ld]. */
static void run_add(struct run *r, const struct matrix *mat, const struct site *in, float *y,
                    uint32_t ld, uint32_t expert) {
    size_t at = r->n->moe.start[expert] - r->first;
    r->job[r->n_job++] = (struct mm_job){.mat = mat,
                                         .x = site_input(in, mat),
                                         .y = y + at * ld,
                                         .ldy = ld,
                                         .n_tok = pairs_of(r->n, expert)};
}

/* Panels of rows a [n_pair, n_block] behind those of the run. */
static void run_pack(struct run *r, struct site *in, const struct act *a, uint32_t n_pair) {
    in->panel = (uint8_t *)in->panel + r->used;
    r->n->k->pack(in->panel, a, in->n_block, in->n_block, n_pair);
    r->used += panel_bytes(in->n_col, n_pair);
}

/* --- the order, and what is wanted of the store --- */

static bool has(const struct nn *n, const struct matrix *mat) {
    for (uint32_t i = mat->tile0; i < mat->tile0 + mat->n_tile; i++) {
        if (!store_has(n->store, i)) return false;
    }
    return true;
}

/* The chosen ones, run by run, what is in memory first. Each is asked about once, for while guesses are read it
 * may change. */
static void order_runs(struct run *r, uint16_t *order) {
    const struct nn *n = r->n;
    uint16_t missing[MODEL_MAX_EXPERT];
    uint32_t at = 0;
    while (run_next(r)) {
        uint32_t n_missing = 0;
        for (uint32_t i = r->from; i < r->stop; i++) {
            const struct expert_matrices *x = &r->l->expert[i];
            if (!pairs_of(n, i)) continue;
            if (r->n_part == 1 ? has(n, &x->down) : has(n, &x->gate) && has(n, &x->up))
                order[at++] = (uint16_t)i;
            else
                missing[n_missing++] = (uint16_t)i;
        }
        memcpy(order + at, missing, n_missing * sizeof *missing);
        at += n_missing;
    }
}

static uint32_t list_tiles(uint32_t *want, const struct matrix *mat) {
    for (uint32_t i = 0; i < mat->n_tile; i++) want[i] = mat->tile0 + i;
    return mat->n_tile;
}

static void want_experts(struct nn *n, struct par *team, uint32_t layer, uint32_t n_tok) {
    struct moe *moe = &n->moe;
    uint32_t n_expert = n->conf.model->n_expert, n_want = 0;
    const struct expert_matrices *x = n->w.layer[layer].expert;
    uint16_t *first = moe->order, *second = moe->order + n_expert;
    struct run r;
    run_begin(&r, n, team, layer, n_tok, &moe->in, 2);
    order_runs(&r, first);
    run_begin(&r, n, team, layer, n_tok, &n->ff, 1);
    order_runs(&r, second);
    moe->n_order = 0;
    for (uint32_t i = 0; i < n_expert; i++) moe->n_order += pairs_of(n, i) > 0;
    for (uint32_t i = 0; i < moe->n_order; i++) {
        n_want += list_tiles(moe->want + n_want, &x[first[i]].gate);
        n_want += list_tiles(moe->want + n_want, &x[first[i]].up);
    }
    for (uint32_t i = 0; i < moe->n_order; i++) {
        n_want += list_tiles(moe->want + n_want, &x[second[i]].down);
    }
    store_want(n->store, moe->want, n_want);
}

/* --- looking ahead --- */

/* Likeliest first; few. */
static void sort_picks(struct pair *pick, uint32_t n) {
    for (uint32_t i = 1; i < n; i++) {
        struct pair p = pick[i];
        uint32_t at = i;
        for (; at > 0 && is_better(p.weight, pick[at - 1].weight); at--) pick[at] = pick[at - 1];
        pick[at] = p;
    }
}

/* Of an expert gate and up come first, as they are used first, but all of a likelier one before another's. */
static void guess_experts(struct nn *n, uint32_t layer) {
    const struct expert_matrices *x = n->w.layer[layer].expert;
    const struct moe *moe = &n->moe;
    uint32_t n_guess = 0;
    for (uint32_t i = 0; i < n->conf.model->n_used; i++) {
        const struct expert_matrices *of = &x[moe->pick[i].expert];
        n_guess += list_tiles(moe->want + n_guess, &of->gate);
        n_guess += list_tiles(moe->want + n_guess, &of->up);
        n_guess += list_tiles(moe->want + n_guess, &of->down);
    }
    store_guess(n->store, moe->want, n_guess);
}

/* Spoils n->in. A router that streams is not there yet; one that stays is used without its turn. */
static MUST look_ahead(struct nn *n, struct par *team, uint32_t layer, struct err *e) {
    const struct layer_vectors *v = &n->vec[layer];
    bool keeps = n->mm.keeps;
    if (!has(n, &n->w.layer[layer].router)) return true;
    site_from_norm(n, team, &n->in, v->ffn_norm, v->ffn_norm_bias, 0, 1);
    n->mm.keeps = true;
    bool ok = pick(n, team, layer, 1, e);
    n->mm.keeps = keeps;
    if (!ok) return false;
    sort_picks(n->moe.pick, n->conf.model->n_used);
    guess_experts(n, layer);
    return true;
}

/* Where layers begin and end a step of one token, it is timed, so that whether guessing pays is known. */
static bool may_look(const struct nn *n) {
    return n->n_tok == 1 && n->memory.n_demand > 0;
}

static void step_begins(struct nn *n) {
    store_stats(n->store, &n->moe.before);
    n->moe.since = clock_ns();
}

static void step_ends(struct nn *n) {
    const struct store_stats *then = &n->moe.before;
    struct store_stats now;
    store_stats(n->store, &now);
    struct look_step s = {.time = (double)(clock_ns() - n->moe.since),
                          .guessed = now.guessed - then->guessed,
                          .used = now.used - then->used,
                          .missing = (double)(now.misses - then->misses)};
    look_done(&n->moe.look, &s);
}

/* --- gate and up --- */

/* The inputs of an expert's pairs, side by side. A single token's serve all its experts. */
static struct site gate_input(struct run *r, uint32_t expert) {
    const struct nn *n = r->n;
    if (r->n_tok == 1) return n->in;
    struct site in = n->moe.in;
    uint32_t first = n->moe.start[expert], n_pair = pairs_of(n, expert);
    const struct pair *p = n->moe.pair + first;
    if (in.floats) {
        in.f += (size_t)(first - r->first) * in.ld;
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
        float *g = n->gate + (size_t)i * ld, *up = n->up + (size_t)i * ld;
        size_t of = (size_t)n->moe.pair[r->first + i].expert * n->n_ff_own;
        if (r->v->gate_bias) n->k->add(g, r->v->gate_bias + of, n->n_ff_own);
        if (r->v->up_bias) n->k->add(up, r->v->up_bias + of, n->n_ff_own);
        activate(n, g, up, n->n_ff_own);
        site_put(n, &n->ff, reader, r->first + i, col, g, n->n_ff_own);
    }
}

static MUST gate_and_up(struct nn *n, struct par *team, uint32_t layer, uint32_t n_tok,
                        struct err *e) {
    const uint16_t *next = n->moe.order, *end = next + n->moe.n_order;
    uint32_t ld = round_up(n->n_ff_own, ROW_GROUP);
    struct run r;
    run_begin(&r, n, team, layer, n_tok, &n->moe.in, 2);
    while (run_next(&r)) {
        for (; next < end && *next < r.stop; next++) {
            const struct expert_matrices *x = &r.l->expert[*next];
            struct site in = gate_input(&r, *next);
            run_add(&r, &x->gate, &in, n->gate, ld, *next);
            run_add(&r, &x->up, &in, n->up, ld, *next);
        }
        if (!run_end(&r, gate_pairs, e)) return false;
    }
    return true;
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
        float *y = n->moe.y + (size_t)i * ld, *sum = n->y + (size_t)p->token * ld, w = p->weight;
        const float *bias = r->v->down_bias;
        if (bias) n->k->add(y, bias + (size_t)p->expert * n->n_embd_own, n->n_embd_own);
        if (p->is_first) {
            for (uint32_t c = 0; c < n->n_embd_own; c++) sum[c] = w * y[c];
        } else {
            for (uint32_t c = 0; c < n->n_embd_own; c++) sum[c] += w * y[c];
        }
    }
}

/* The pairs' rows are side by side already. */
static struct site down_input(struct run *r, uint32_t expert) {
    struct site in = r->n->ff;
    size_t first = r->n->moe.start[expert];
    if (in.floats) in.f += first * in.ld;
    if (in.quants) run_pack(r, &in, in.a + first * in.n_block, pairs_of(r->n, expert));
    return in;
}

static MUST down(struct nn *n, struct par *team, uint32_t layer, uint32_t n_tok, struct err *e) {
    const uint16_t *next = n->moe.order + n->conf.model->n_expert, *end = next + n->moe.n_order;
    uint32_t ld = round_up(n->n_embd_own, ROW_GROUP);
    struct run r;
    run_begin(&r, n, team, layer, n_tok, &n->ff, 1);
    while (run_next(&r)) {
        for (; next < end && *next < r.stop; next++) {
            struct site in = down_input(&r, *next);
            run_add(&r, &r.l->expert[*next].down, &in, n->moe.y, ld, *next);
        }
        if (!run_end(&r, add_pairs, e)) return false;
    }
    return true;
}

/* --- the shared expert --- */

struct shared_work {
    struct nn *n;
    const struct matrix *down;
    uint32_t n_tok, n_own;
};

static void gate_shared(void *ctx, int thread, int n_thread) {
    const struct shared_work *w = ctx;
    const struct nn *n = w->n;
    uint32_t ld = round_up(w->n_own, ROW_GROUP), col = n->moe.sh_cut[n->conf.self];
    for (uint32_t t = (uint32_t)thread; t < w->n_tok; t += (uint32_t)n_thread) {
        float *g = n->moe.sh_gate + (size_t)t * ld;
        activate(n, g, n->moe.sh_up + (size_t)t * ld, w->n_own);
        site_put(n, &n->moe.sh, w->down, t, col, g, w->n_own);
    }
}

/* Its output, which is added when the others' is there: the sweep comes by its matrices first. */
static MUST shared(struct nn *n, struct par *team, uint32_t layer, uint32_t n_tok, struct err *e) {
    const struct layer_matrices *l = &n->w.layer[layer];
    struct moe *moe = &n->moe;
    struct shared_work w = {n, &l->sh_down, n_tok,
                            moe->sh_cut[n->conf.self + 1] - moe->sh_cut[n->conf.self]};
    uint32_t ld = round_up(w.n_own, ROW_GROUP);
    const struct mm_job in[] = {
        {.mat = &l->sh_router,
         .x = site_input(&n->in, &l->sh_router),
         .y = moe->sh_score,
         .ldy = ROW_GROUP},
        {.mat = &l->sh_gate, .x = site_input(&n->in, &l->sh_gate), .y = moe->sh_gate, .ldy = ld},
        {.mat = &l->sh_up, .x = site_input(&n->in, &l->sh_up), .y = moe->sh_up, .ldy = ld},
    };
    if (!matmul(&n->mm, team, in, 3, n_tok, e)) return false;
    par_run(team, gate_shared, &w);
    if (!site_gather(n, &moe->sh, &l->sh_down, moe->sh_cut, n_tok, e)) return false;
    if (!l->sh_down.ops->is_float) site_pack(n, &moe->sh, n_tok);
    const struct mm_job out = {.mat = &l->sh_down,
                               .x = site_input(&moe->sh, &l->sh_down),
                               .y = moe->sh_y,
                               .ldy = round_up(n->n_embd_own, ROW_GROUP)};
    return matmul(&n->mm, team, &out, 1, n_tok, e);
}

static void add_shared(struct nn *n, uint32_t n_tok) {
    uint32_t ld = round_up(n->n_embd_own, ROW_GROUP);
    for (uint32_t t = 0; t < n_tok; t++) {
        float w = 1.0F / (1.0F + k_exp(-n->moe.sh_score[(size_t)t * ROW_GROUP]));
        const float *y = n->moe.sh_y + (size_t)t * ld;
        float *sum = n->y + (size_t)t * ld;
        for (uint32_t c = 0; c < n->n_embd_own; c++) sum[c] += w * y[c];
    }
}

MUST moe_run(struct nn *n, struct par *team, uint32_t layer, uint32_t n_tok, struct err *e) {
    const struct layer_matrices *l = &n->w.layer[layer];
    const struct layer_vectors *v = &n->vec[layer];
    bool has_shared = n->conf.model->n_ff_shared > 0;
    uint32_t n_pair = n_tok * n->conf.model->n_used, n_layer = n->conf.model->n_layer;
    if (may_look(n) && !layer) step_begins(n);
    site_from_norm(n, team, &n->in, v->ffn_norm, v->ffn_norm_bias, 0, n_tok);
    if (!route(n, team, layer, n_tok, e)) return false;
    want_experts(n, team, layer, n_tok);
    if (may_look(n) && layer + 1 < n_layer && look_guesses(&n->moe.look)) {
        if (!look_ahead(n, team, layer + 1, e)) return false;
        site_from_norm(n, team, &n->in, v->ffn_norm, v->ffn_norm_bias, 0, n_tok);
    }
    if ((has_shared && !shared(n, team, layer, n_tok, e)) ||
        !gate_and_up(n, team, layer, n_tok, e) ||
        !site_gather(n, &n->ff, &l->expert[0].down, n->conf.cuts.ff, n_pair, e) ||
        !down(n, team, layer, n_tok, e)) {
        return false;
    }
    if (has_shared) add_shared(n, n_tok);
    if (may_look(n) && layer + 1 == n_layer) step_ends(n);
    return branch_end(n, team, v->post_ffn, n_tok, e);
}
