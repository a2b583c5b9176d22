/* nn.c - carving a slice's memory, loading it, and asking it for candidates. */
#include "nn/state.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

_Static_assert((int)MODEL_MAX_HEAD_DIM == (int)HEAD_DIM_MAX,
               "what a model may have, attention computes");

enum { DISK_ALIGN = 16 << 10 };  // what disks ask for at most, as far as memory is planned for it

/* --- what memory is needed: one list for measuring and for carving --- */

struct need {
    void *at;  // address of the pointer to set, NULL ends the list
    size_t bytes;
};

enum { NEED_MAX = 64 };  // 53 of a qwen2moe in slices whose layers are of many types

struct needs {
    struct need item[NEED_MAX];
    unsigned n;
    bool overflow;
};

static void need(struct needs *l, void *at, size_t n, size_t size) {
    size_t bytes;
    if (__builtin_mul_overflow(n, size, &bytes)) l->overflow = true, bytes = 0;
    assert(l->n < NEED_MAX);
    l->item[l->n++] = (struct need){at, bytes};
}

static uint64_t needs_bytes(const struct needs *l) {
    uint64_t sum = 0;
    for (unsigned i = 0; i < l->n; i++) sum += (l->item[i].bytes + 63) / 64 * 64;
    return sum;
}

static MUST needs_push(const struct needs *l, struct arena *a, struct err *e) {
    for (unsigned i = 0; i < l->n; i++) {
        if (!l->item[i].bytes) continue;
        if (!arena_array(a, l->item[i].at, l->item[i].bytes, 1, "scratch", e)) return false;
    }
    return true;
}

/* Which forms the matrices that read a site want. */
static void site_wants(struct site *s, const struct matrix *m) {
    s->n_col = m->n_col;
    s->n_block = (m->n_col + Q_BLOCK - 1) / Q_BLOCK;
    s->ld = round_up(m->n_col, FLOAT_LANES);
    if (m->ops->is_float)
        s->floats = true;
    else
        s->quants = true;
}

/* n_row rows, of which n_pack at a time are multiplied. */
static void need_site(struct needs *l, struct site *s, size_t n_row, uint32_t n_pack,
                      bool always_f) {
    if (s->floats || always_f) need(l, &s->f, n_row * s->ld, sizeof(float));
    if (!s->quants) return;
    need(l, &s->a, n_row * s->n_block, sizeof(struct act));
    need(l, &s->panel, panel_bytes(s->n_col, n_pack > 1 ? round_up(n_pack, 8) : 1), 1);
}

static void find_expert_sites(struct nn *n, const struct layer_matrices *l) {
    site_wants(&n->in, &l->router);
    if (n->conf.model->n_ff_shared) {
        site_wants(&n->in, &l->sh_router);
        site_wants(&n->in, &l->sh_gate), site_wants(&n->in, &l->sh_up);
        site_wants(&n->moe.sh, &l->sh_down);
    }
    for (uint32_t i = 0; i < n->conf.model->n_expert; i++) {
        const struct expert_matrices *x = &l->expert[i];
        site_wants(&n->in, &x->gate), site_wants(&n->in, &x->up);
        site_wants(&n->moe.in, &x->gate), site_wants(&n->moe.in, &x->up);
        site_wants(&n->ff, &x->down);
    }
}

static void find_sites(struct nn *n) {
    const struct weights *w = &n->w;
    for (uint32_t i = 0; i < n->conf.model->n_layer; i++) {
        const struct layer_matrices *l = &w->layer[i];
        site_wants(&n->in, &l->q), site_wants(&n->in, &l->k), site_wants(&n->in, &l->v);
        site_wants(&n->att, &l->o);
        if (n->conf.model->n_expert) {
            find_expert_sites(n, l);
            continue;
        }
        if (n->conf.model->layer[i].gate) site_wants(&n->in, &l->gate);
        site_wants(&n->in, &l->up);
        site_wants(&n->ff, &l->down);
    }
    site_wants(&n->in, &w->output);
}

static void find_shares(struct nn *n) {
    const struct cuts *c = &n->conf.cuts;
    const struct model *m = n->conf.model;
    unsigned s = n->conf.self;
    uint32_t group = m->n_head / m->n_head_kv;
    n->n_kv = c->kv_head[s + 1] - c->kv_head[s];
    n->n_q = n->n_kv * group;
    n->head0 = c->kv_head[s] * group;
    n->n_embd_own = c->embd[s + 1] - c->embd[s];
    n->n_ff_own = c->ff[s + 1] - c->ff[s];
    n->n_vocab_own = c->vocab[s + 1] - c->vocab[s];
    n->kv_row = kv_row_bytes(n->conf.kv, m->head_dim);
    n->attend_floats = attend_room(m->head_dim);
    if (m->n_ff_shared) cuts_shared(c, m, n->conf.n_slice, n->moe.sh_cut);
}

/* Feed-forward: a row for each token, or with experts for each pair of token and expert. */
static void ff_needs(struct nn *n, struct needs *l) {
    const struct model *m = n->conf.model;
    uint32_t t = n->conf.n_batch, n_row = t > m->n_used ? t : m->n_used;
    size_t n_pair = (size_t)t * m->n_used;
    need(l, &n->gate, (size_t)n_row * round_up(n->n_ff_own, ROW_GROUP), sizeof(float));
    need(l, &n->up, (size_t)n_row * round_up(n->n_ff_own, ROW_GROUP), sizeof(float));
    need_site(l, &n->ff, m->n_expert ? n_pair : t, n_row, false);
    if (!m->n_expert) return;
    n->moe.n_row = n_row;
    need(l, &n->moe.score, (size_t)t * round_up(m->n_expert, ROW_GROUP), sizeof(float));
    need(l, &n->moe.pick, n_pair, sizeof *n->moe.pick);
    need(l, &n->moe.pair, n_pair, sizeof *n->moe.pair);
    need(l, &n->moe.order, (size_t)2 * m->n_expert, sizeof *n->moe.order);
    need(l, &n->moe.want, n->w.most_expert, sizeof *n->moe.want);
    need(l, &n->moe.y, (size_t)n_row * round_up(n->n_embd_own, ROW_GROUP), sizeof(float));
    if (t > 1) need_site(l, &n->moe.in, n_row, n_row, false);
    if (!m->n_ff_shared) return;
    uint32_t own =
        round_up(n->moe.sh_cut[n->conf.self + 1] - n->moe.sh_cut[n->conf.self], ROW_GROUP);
    need(l, &n->moe.sh_score, (size_t)t * ROW_GROUP, sizeof(float));
    need(l, &n->moe.sh_gate, (size_t)t * own, sizeof(float));
    need(l, &n->moe.sh_up, (size_t)t * own, sizeof(float));
    need_site(l, &n->moe.sh, t, t, false);
    need(l, &n->moe.sh_y, (size_t)t * round_up(n->n_embd_own, ROW_GROUP), sizeof(float));
}

/* RMSNorm alone goes straight to the quantised form. */
static bool norms_want_floats(const struct model *m) {
    bool yes = m->output_norm_bias;
    for (uint32_t i = 0; i < m->n_layer; i++) {
        const struct layer_tensors *l = &m->layer[i];
        yes |= l->attn_norm_bias || l->ffn_norm_bias || l->post_attn || l->post_ffn;
    }
    return yes;
}

static void scratch_needs(struct nn *n, struct needs *l) {
    const struct model *m = n->conf.model;
    uint32_t t = n->conf.n_batch;
    size_t hd = m->head_dim;
    need(l, &n->x_all, (size_t)n->conf.n_sweep * m->n_embd, sizeof(float));
    need(l, &n->angle_all, (size_t)n->conf.n_sweep * m->n_rot, resident_tables(m) * sizeof(float));
    need_site(l, &n->in, t, t, norms_want_floats(m));
    need_site(l, &n->att, t, t, false);
    ff_needs(n, l);
    need(l, &n->q, (size_t)t * round_up((uint32_t)(n->n_q * hd), ROW_GROUP), sizeof(float));
    need(l, &n->kx, (size_t)t * round_up((uint32_t)(n->n_kv * hd), ROW_GROUP), sizeof(float));
    need(l, &n->v, (size_t)t * round_up((uint32_t)(n->n_kv * hd), ROW_GROUP), sizeof(float));
    need(l, &n->y, (size_t)t * round_up(n->n_embd_own, ROW_GROUP), sizeof(float));
    need(l, &n->head, t * n->n_q * hd, sizeof(float));
    need(l, &n->attend_room, n->conf.n_thread, n->attend_floats * sizeof(float));
    need(l, &n->wire, t, n->wire_stride);
    need(l, &n->logits, (size_t)n->conf.n_logit * round_up(n->n_vocab_own, ROW_GROUP),
         sizeof(float));
    need(l, &n->cand, m->n_vocab, sizeof(struct candidate));
    if (n->conf.n_slice > 1) need(l, &n->cand_all, m->n_vocab, sizeof(struct candidate));
    need(l, &n->top_id, TOPK_MAX, sizeof(int32_t));
    need(l, &n->top_val, TOPK_MAX, sizeof(float));
    need(l, &n->mm.scratch, n->conf.n_thread, n->w.unit_bytes);
    need(l, &n->mm.left, n->w.n_tile, sizeof *n->mm.left);
}

/* What is read by a row of the embedding table at a time: it, or more of small tensors. */
static size_t row_room(const struct nn *n) {
    enum { LEAST = 64 << 10 };
    return n->embd_row_bytes > LEAST ? n->embd_row_bytes : LEAST;
}

static void fixed_needs(struct nn *n, struct needs *l) {
    const struct model *m = n->conf.model;
    need(l, &n->n_pos, n->conf.n_seq, sizeof *n->n_pos);
    need(l, &n->vec, m->n_layer, sizeof *n->vec);
    need(l, &n->vec_mem, resident_floats(n), sizeof(float));
    need(l, &n->output_norm, m->n_embd, sizeof(float));
    if (m->output_norm_bias) need(l, &n->output_norm_bias, m->n_embd, sizeof(float));
    if (m->output_bias) need(l, &n->output_bias, n->n_vocab_own, sizeof(float));
    need(l, &n->freq, m->n_rot / 2, resident_tables(m) * sizeof(double));
    need(l, &n->path, m->n_file, sizeof *n->path);
    need(l, &n->embd_room, row_room(n) + 4 * DISK_ALIGN, 1);
}

static void kv_needs(struct nn *n, struct needs *l) {
    const struct model *m = n->conf.model;
    size_t elems = (size_t)m->n_layer * n->n_kv * n->conf.n_ctx;
    size_t all = (size_t)n->conf.n_seq * n->kv_row;  // of every sequence
    need(l, &n->key, elems, all);
    need(l, &n->value, elems, all);
}

static uint64_t wire_row_bytes(const struct nn *n) {
    return (n->conf.model->n_embd + Q_BLOCK - 1) / Q_BLOCK * wire_block(n->conf.wire);
}

/* Everything that follows from the configuration and the weights' directory (n->w is built). */
static MUST shape_up(struct nn *n, struct err *e) {
    const struct tensor *t = n->conf.model->token_embd;
    n->embd_ops = weight_ops(n->k, (int)t->type);
    if (!n->embd_ops) {
        return err_set(e, ERR_UNSUPPORTED, "tensor %s is of a type that has no kernel", t->name);
    }
    n->embd_row_bytes = weight_row_bytes((int)t->type, t->dim[0]);
    n->wire_stride = (wire_row_bytes(n) + 63) / 64 * 64;
    find_sites(n);
    find_shares(n);
    return true;
}

enum {
    POOL_ALIGN = 4 << 20,   // lost at most to aligning disk buffers to huge pages
    EMBD_PIECE = 1 << 20,   // the embedding table is read in pieces of this size
    HALF_LIFE_TOKENS = 16,  // measured on traces of routing, see tests/test_cache.c
};

/* --- the budget --- */

/* Of any layer, the tiles that stream. */
static uint32_t most_streamed(const struct nn *n, const uint8_t *resident) {
    const struct weights *w = &n->w;
    uint32_t n_layer = n->conf.model->n_layer, most = 0;
    for (uint32_t l = 0; l < n_layer; l++) {
        uint32_t end = l + 1 < n_layer ? w->layer[l + 1].q.tile0 : w->output.tile0, count = 0;
        for (uint32_t i = w->layer[l].q.tile0; i < end; i++) count += !resident[i];
        if (count > most) most = count;
    }
    return most;
}

static MUST too_small(const struct nn *n, uint64_t budget, uint64_t need, const struct nn_memory *m,
                      struct err *e) {
    return err_set(e, ERR_MEMORY,
                   "the memory budget leaves %.1f MiB for the model's work, but %.1f MiB is "
                   "the least: %.1f for %u tokens of context, %.1f scratch, the rest for "
                   "tables and disk buffers; give it more --memory or a smaller --ctx",
                   (double)budget / 1048576, (double)need / 1048576, (double)m->kv_bytes / 1048576,
                   n->conf.n_seq * n->conf.n_ctx, (double)m->scratch_bytes / 1048576);
}

static bool holds_layers(const struct nn_conf *c) {
    return c->n_sweep > c->n_batch;
}

/* What of the budget is the ring's and what the resident tiles'. A step of several batches wants a ring
 * that holds what a layer streams; the larger it is, the more that becomes. */
static MUST share_sweep(const struct nn *n, uint64_t budget, uint64_t base, struct nn_memory *m,
                        struct err *e) {
    const struct weights *w = &n->w;
    bool holds = holds_layers(&n->conf);
    uint8_t *resident = malloc(w->n_sweep + 1U);
    if (!resident) return err_set(e, ERR_MEMORY, "no memory to plan %u tiles", w->n_sweep);
    for (uint32_t held = n->conf.n_slot; held > m->n_slot;) {
        m->n_slot = held;
        m->ring_bytes = store_ring_bytes(w->longest, held);
        if (budget < base + m->ring_bytes) break;
        m->pin_bytes = budget - base - m->ring_bytes;
        store_choose(w->tile, w->n_sweep, m->pin_bytes, &m->tiles, resident);
        if (holds) held = most_streamed(n, resident) + n->conf.n_slot / 2;  // and reads ahead
    }
    free(resident);
    return budget >= base + m->ring_bytes || too_small(n, budget, base + m->ring_bytes, m, e);
}

/* Experts on demand: what is not theirs is in memory first, as every token wants it. Of the rest they get
 * what is left, but in any case places for as much as a ring would hold. */
static MUST share_experts(const struct nn *n, uint64_t budget, uint64_t base, struct nn_memory *m,
                          struct err *e) {
    const struct weights *w = &n->w;
    const struct tile *expert = w->tile + w->n_sweep;
    uint64_t sweep = w->mem_bytes - w->expert_mem + 64ULL * w->n_sweep, longest = 0;
    uint64_t all = w->expert_mem + 64ULL * (w->n_tile - w->n_sweep);
    m->n_demand = w->n_tile - w->n_sweep;
    for (uint32_t i = 0; i < m->n_demand; i++) {
        if (expert[i].mem > longest) longest = expert[i].mem;
    }
    m->n_fetch = n->conf.n_reader < n->conf.n_slot ? n->conf.n_reader : n->conf.n_slot;
    uint64_t buffers = store_ring_bytes(w->longest, m->n_fetch);
    uint64_t least = store_choose_demand(expert, m->n_demand, 0, &m->tiles);
    if (n->conf.n_slot > 2) least += (n->conf.n_slot - 2) * longest;
    if (least > all) least = all;
    base += buffers;
    m->cache_bytes = least;
    m->ring_bytes = 0;
    if (budget >= base + least + sweep) {
        m->pin_bytes = sweep;
        m->cache_bytes = budget - base - sweep < all ? budget - base - sweep : all;
        store_choose(w->tile, w->n_sweep, sweep, &m->tiles, NULL);
    } else if (!share_sweep(n, budget, base + least, m, e)) {
        return false;
    }
    m->ring_bytes += buffers;
    (void)store_choose_demand(expert, m->n_demand, m->cache_bytes, &m->tiles);
    return true;
}

/* What a token is expected to read. */
static void expect(const struct nn *n, struct nn_memory *m) {
    const struct model *of = n->conf.model;
    m->disk_bytes = m->tiles.streamed_bytes_per_sweep;
    if (of->n_expert) m->disk_bytes += m->tiles.missing_bytes / of->n_expert * of->n_used;
}

/* Sizes of everything that is no weight. */
static MUST measure_base(struct nn *n, uint64_t dir_bytes, struct nn_memory *m, struct err *e) {
    struct needs scratch = {0}, fixed = {0}, kv = {0};
    scratch_needs(n, &scratch);
    fixed_needs(n, &fixed);
    kv_needs(n, &kv);
    if (scratch.overflow || fixed.overflow || kv.overflow) {
        return err_set(e, ERR_MEMORY,
                       "%u contexts of %u tokens are more than the address space holds",
                       n->conf.n_seq, n->conf.n_ctx);
    }
    *m = (struct nn_memory){
        .kv_bytes = needs_bytes(&kv),
        .scratch_bytes = needs_bytes(&scratch),
        .fixed_bytes = needs_bytes(&fixed) + dir_bytes,
    };
    m->min_budget = m->kv_bytes + m->scratch_bytes + m->fixed_bytes;
    m->min_budget += store_ring_bytes(n->w.longest, 2);
    return true;
}

/* Sizes of everything, given the directory. */
static MUST measure(struct nn *n, uint64_t dir_bytes, struct nn_memory *m, struct err *e) {
    if (!measure_base(n, dir_bytes, m, e)) return false;
    const struct weights *w = &n->w;
    m->weight_bytes = w->mem_bytes;
    m->sweep_bytes = m->token_bytes = w->file_bytes;
    m->expert_bytes = w->expert_bytes;
    const struct model *of = n->conf.model;
    if (of->n_expert) {
        m->token_bytes -= w->expert_bytes / of->n_expert * (of->n_expert - of->n_used);
    }
    uint64_t base = m->kv_bytes + m->scratch_bytes + m->fixed_bytes;
    if (of->n_expert) {
        m->min_budget +=
            store_ring_bytes(w->longest, 2) +
            store_choose_demand(w->tile + w->n_sweep, w->n_tile - w->n_sweep, 0, &m->tiles);
    }
    /* While everything is loaded the store needs a few buffers besides. */
    uint64_t budget = n->conf.budget, loading = store_ring_bytes(w->longest, 4);
    uint64_t all = base + w->mem_bytes + 64ULL * w->n_tile + loading;
    if (budget >= all) {
        const struct tensor *t = n->conf.model->token_embd;
        uint64_t table = t->len + EMBD_PIECE + 8 * DISK_ALIGN;
        m->embd_bytes = budget - all >= table ? table : 0;
        m->pin_bytes = w->mem_bytes + 64ULL * w->n_tile;
        if (m->min_budget > all) m->min_budget = all;
        store_choose(w->tile, w->n_tile, m->pin_bytes, &m->tiles, NULL);
    } else if (!(of->n_expert ? share_experts : share_sweep)(n, budget, base, m, e)) {
        return false;
    }
    expect(n, m);
    return true;
}

/* What was left to us. */
static struct nn_conf complete(const struct nn_conf *c) {
    struct nn_conf out = *c;
    if (out.n_sweep < out.n_batch) out.n_sweep = out.n_batch;
    if (!out.n_logit) out.n_logit = 1;
    assert(out.n_seq >= 1 && out.n_logit <= out.n_batch);
    return out;
}

static MUST dir_bytes(const struct nn_conf *c, size_t *bytes, struct err *e) {
    struct weights w;
    struct arena a;
    if (!weights_count(&w, c, &a, bytes, e)) return false;
    arena_close(&a);
    return true;
}

MUST nn_measure(const struct nn_conf *c, struct nn_memory *out, struct err *e) {
    struct nn n = {.conf = complete(c), .k = c->kernels};
    struct arena a, tiles;
    size_t dir;
    if (!weights_count(&n.w, c, &a, &dir, e)) return false;
    bool ok = weights_tiles(&n.w, c->model, &tiles, e);
    if (ok) {
        ok = shape_up(&n, e) && measure(&n, dir, out, e);
        arena_close(&tiles);
    }
    arena_close(&a);
    return ok;
}

MUST nn_least(const struct nn_conf *c, uint64_t *bytes, struct err *e) {
    struct nn n = {.conf = complete(c), .k = c->kernels};
    struct nn_memory m = {0};
    struct arena a;
    size_t dir;
    bool ok;
    if (c->model->n_expert) {  // how many of their tiles are of a size decides, too
        n.conf.budget = NN_PLENTY;
        ok = nn_measure(&n.conf, &m, e);
    } else {
        if (!weights_count(&n.w, c, &a, &dir, e)) return false;
        ok = shape_up(&n, e) && measure_base(&n, dir, &m, e);
        arena_close(&a);
    }
    *bytes = m.min_budget;
    return ok;
}

enum {
    SWEEP_PART = 16,  // of what a token reads: so much more, for the sake of prompts
    RING_PART = 4,    // of the budget: a ring that only reads ahead takes less
    HELD_PART = 2     // one that holds a layer
};

MUST nn_choose_slots(struct nn_conf *c, uint32_t most, struct nn_memory *out, struct err *e) {
    uint64_t fair = c->budget / (holds_layers(c) ? HELD_PART : RING_PART);
    bool ok = false;
    assert(most >= 2);
    for (uint32_t slot = most; slot >= 2; slot /= 2) {
        c->n_slot = slot;
        ok = nn_measure(c, out, e);
        if (ok && out->ring_bytes <= fair) break;
    }
    return ok;
}

uint64_t nn_fair_read(uint64_t disk, uint64_t budget) {
    uint64_t part = disk / SWEEP_PART, least = budget / (4 * SWEEP_PART);
    return disk + (part > least ? part : least);
}

bool nn_sweep_pays(const struct nn_memory *with, const struct nn_memory *without, uint64_t budget) {
    if (!without->disk_bytes) return !with->disk_bytes;
    return with->ring_bytes <= budget / HELD_PART &&
           with->disk_bytes <= nn_fair_read(without->disk_bytes, budget);
}

/* --- open --- */

/* Of a use of an expert's tile: so many tokens' uses later. */
static double half_life(const struct nn *n) {
    const struct model *m = n->conf.model;
    double tiles = n->w.n_tile - n->w.n_sweep;
    return m->n_expert ? HALF_LIFE_TOKENS * tiles / m->n_expert * m->n_used + 1 : 1;
}

static MUST open_store(struct nn *n, struct err *e) {
    const struct model *m = n->conf.model;
    for (uint32_t i = 0; i < m->n_file; i++) n->path[i] = m->file[i].path;
    struct store_conf c = {
        .file = n->path,
        .n_file = m->n_file,
        .tile = n->w.tile,
        .n_tile = n->w.n_tile,
        .n_demand = n->memory.n_demand,
        .pin_bytes = n->memory.pin_bytes,
        .cache_bytes = n->memory.cache_bytes,
        .half_life = half_life(n),
        .n_slot = n->memory.n_slot,
        .n_reader = n->conf.n_reader,
        .n_fetch = n->memory.n_fetch,
        .pool = &n->pool,
        .convert = matmul_convert,
        .owner = &n->w,
    };
    return store_open(&n->store, &c, e);
}

static MUST carve(struct nn *n, struct err *e) {
    size_t dir;
    struct nn_memory m;
    if (!dir_bytes(&n->conf, &dir, e) || !nn_measure(&n->conf, &m, e)) return false;
    /* A budget beyond what is needed is not even asked for: the end of it would be touched with the huge
     * page that it shares. */
    uint64_t all = m.kv_bytes + m.scratch_bytes + m.fixed_bytes + m.ring_bytes + m.pin_bytes +
                   m.cache_bytes + m.embd_bytes + (m.ring_bytes ? POOL_ALIGN : 0);
    if (!arena_open(&n->pool, "pool", all < n->conf.budget ? all : n->conf.budget, e)) return false;
    if (!weights_build(&n->w, &n->conf, &n->pool, e)) return false;
    if (!shape_up(n, e) || !measure(n, dir, &n->memory, e)) return false;
    struct needs l = {0};
    fixed_needs(n, &l);
    kv_needs(n, &l);
    scratch_needs(n, &l);
    if (!needs_push(&l, &n->pool, e) || !open_store(n, e)) return false;
    if (!n->memory.embd_bytes) return true;
    return arena_array(&n->pool, &n->embd, n->conf.model->token_embd->len, 1, "embedding", e) &&
           arena_array(&n->pool, &n->embd_piece, EMBD_PIECE + 4 * DISK_ALIGN, 1, "embedding", e);
}

/* Where small reads go: aligned for this disk, which may want more than was planned for. */
static MUST place_rooms(struct nn *n, struct err *e) {
    size_t row = store_read_room(n->store, row_room(n));
    if (row > row_room(n) + 3 * DISK_ALIGN) {
        (void)err_set(e, ERR_UNSUPPORTED,
                      "lies on a disk with blocks of more than %d bytes; copy it to another",
                      DISK_ALIGN);
        return err_in_file(e, n->conf.model->file[n->conf.model->token_embd->file].path);
    }
    n->embd_row = n->embd_room + (-(uintptr_t)n->embd_room & (DISK_ALIGN - 1));
    if (n->embd) n->embd_piece += -(uintptr_t)n->embd_piece & (DISK_ALIGN - 1);
    return true;
}

MUST nn_open(struct nn **out, const struct nn_conf *c, struct coll *coll, struct err *e) {
    struct nn *n = calloc(1, sizeof *n);
    if (!n) return err_set(e, ERR_MEMORY, "no memory for a slice's bookkeeping");
    n->conf = complete(c);
    n->k = c->kernels;
    n->coll = coll;
    pthread_mutex_init(&n->mm.lock, NULL);
    if (!carve(n, e) || !place_rooms(n, e)) {
        nn_close(n);
        return false;
    }
    n->mm.w = &n->w;
    n->mm.store = n->store;
    for (uint32_t i = 0; i < n->w.n_tile; i++) n->mm.left[i] = n->w.rows[i].n_unit;
    *out = n;
    return true;
}

void nn_close(struct nn *n) {
    if (!n) return;
    if (n->store) store_close(n->store);
    pthread_mutex_destroy(&n->mm.lock);
    arena_close(&n->pool);
    free(n);
}

/* --- load --- */

/* Bytes [off, off + len) of a tensor through `room`, `piece` bytes at a time. */
static MUST read_into(struct nn *n, uint8_t *dst, const struct tensor *t, uint64_t off,
                      uint64_t len, uint8_t *room, size_t piece, struct err *e) {
    for (uint64_t done = 0; done < len; done += piece) {
        size_t some = len - done < piece ? (size_t)(len - done) : piece;
        uint8_t *at;
        /* A large table takes as long as many layers: it can be broken off like them. */
        if (n->progress && !n->progress(n->progress_ctx, 0, n->conf.model->n_layer)) {
            return err_set(e, ERR_STOPPED, "stopped");
        }
        if (!store_read(n->store, t->file, room, t->off + off + done, some, &at, e)) {
            return err_in(e, t->name);
        }
        memcpy(dst + done, at, some);
    }
    return true;
}

MUST nn_read(struct nn *n, void *dst, const struct tensor *t, uint64_t off, uint64_t len,
             struct err *e) {
    return read_into(n, dst, t, off, len, n->embd_row, row_room(n), e);
}

MUST nn_load(struct nn *n, store_progress *progress, void *ctx, struct err *e) {
    const struct model *m = n->conf.model;
    if (!resident_load(n, e)) return false;
    if (n->embd && !read_into(n, n->embd, m->token_embd, 0, m->token_embd->len, n->embd_piece,
                              EMBD_PIECE, e)) {
        return false;
    }
    if (!store_load(n->store, progress, ctx, e)) return false;
    arena_seal(&n->pool);
    return true;
}

/* --- after a step --- */

const float *nn_logits(const struct nn *n, uint32_t *first, uint32_t *count) {
    return nn_logits_at(n, n->row, first, count);
}

void nn_row(struct nn *n, uint32_t row) {
    assert(row < n->n_logit);
    n->row = row;
}

const float *nn_logits_at(const struct nn *n, uint32_t row, uint32_t *first, uint32_t *count) {
    *first = n->conf.cuts.vocab[n->conf.self];
    *count = n->n_vocab_own;
    return n->logits + (size_t)row * round_up(n->n_vocab_own, ROW_GROUP);
}

uint32_t nn_pos(const struct nn *n, uint32_t seq) {
    assert(seq < n->conf.n_seq);
    return n->n_pos[seq];
}

void nn_truncate(struct nn *n, uint32_t seq, uint32_t pos) {
    assert(seq < n->conf.n_seq && pos <= n->n_pos[seq]);
    n->n_pos[seq] = pos;
}

void nn_watch(struct nn *n, nn_progress *progress, void *ctx) {
    n->progress = progress;
    n->progress_ctx = ctx;
}

void nn_meanwhile(struct nn *n, nn_work *work, void *ctx) {
    n->mm.idle = work;
    n->mm.idle_ctx = ctx;
}

MUST nn_grow(struct nn *n, uint64_t bytes, uint64_t *more_bytes, struct err *e) {
    return store_grow(n->store, bytes, more_bytes, e);
}

void nn_stats(const struct nn *n, struct store_stats *out) {
    store_stats(n->store, out);
}

const struct nn_memory *nn_memory(const struct nn *n) {
    return &n->memory;
}
