/* plan.c - shares, what fits, and the cuts for the forward pass. The compact form: plan_wire.c. */
#include "cluster/plan.h"

#include <assert.h>
#include <stdio.h>

/* --- shares --- */

enum { ALIKE_PERCENT = 10 };  // speeds this close are measured noise: equal machines, equal shares

/* Speeds of members, those not known taken as the mean of the others (1 when none is known). */
static void speeds_of(const struct plan_member *member, unsigned n, double *speed) {
    double sum = 0;
    unsigned known = 0;
    for (unsigned i = 0; i < n; i++) {
        if (member[i].speed > 0) sum += member[i].speed, known++;
    }
    for (unsigned i = 0; i < n; i++) {
        speed[i] = member[i].speed > 0 ? member[i].speed : known ? sum / known : 1;
    }
}

/* From the fastest down: who is within ALIKE_PERCENT of the fastest left gets the mean of those. */
static void level(double *speed, unsigned n) {
    bool is_done[PLAN_NODES] = {false};
    for (;;) {
        double top = 0, sum = 0;
        unsigned many = 0;
        for (unsigned i = 0; i < n; i++) {
            if (!is_done[i] && speed[i] > top) top = speed[i];
        }
        if (top <= 0) return;
        double least = top / (1 + ALIKE_PERCENT / 100.0);
        for (unsigned i = 0; i < n; i++) {
            if (!is_done[i] && speed[i] >= least) sum += speed[i], many++;
        }
        for (unsigned i = 0; i < n; i++) {
            if (is_done[i] || speed[i] < least) continue;
            speed[i] = sum / many;
            is_done[i] = true;
        }
    }
}

/* A wished share is a multiple of the average machine's. */
static void weights_of(const struct plan_member *member, unsigned n, bool is_even, double *weight) {
    double mean = 0;
    speeds_of(member, n, weight);
    level(weight, n);
    if (is_even) {
        for (unsigned i = 0; i < n; i++) weight[i] = 1;
    }
    for (unsigned i = 0; i < n; i++) mean += weight[i] / n;
    for (unsigned i = 0; i < n; i++) {
        if (member[i].share > 0) weight[i] = member[i].share * mean;
    }
}

/* --- what fits --- */

struct search {
    const struct model *model;
    const struct kernels *kernels;
    const struct plan_wish *wish;
    unsigned n;
    struct plan_member member[PLAN_NODES];  // those still in
    unsigned index[PLAN_NODES];             // where they stand in the caller's list
    struct cuts cuts;
    uint32_t n_ctx, n_batch, n_sweep, n_seq;
    bool is_over;  // no plan whatever the sizes: *e says why
    struct err *e;
};

static void conf_of(const struct search *s, unsigned i, struct nn_conf *c) {
    *c = (struct nn_conf){
        .model = s->model,
        .kernels = s->kernels,
        .cuts = s->cuts,
        .self = i,
        .n_slice = s->n,
        .n_seq = s->n_seq,
        .n_ctx = s->n_ctx,
        .n_batch = s->n_batch,
        .n_sweep = s->n_sweep,
        .kv = (enum kv_type)s->wish->kv,
        .wire = (enum wire_type)s->wish->wire,
        .n_reader = 1,
        .n_slot = 2,
        .n_thread = s->member[i].n_thread ? s->member[i].n_thread : 1,
    };
}

static bool is_empty(const struct cuts *c, unsigned i) {
    return c->kv_head[i] == c->kv_head[i + 1] && c->embd[i] == c->embd[i + 1] &&
           c->ff[i] == c->ff[i + 1] && c->vocab[i] == c->vocab[i + 1];
}

/* Whether member i can work at all at these sizes, with everything streamed. */
static bool fits(struct search *s, unsigned i) {
    struct nn_conf c;
    uint64_t least;
    conf_of(s, i, &c);
    if (nn_least(&c, &least, s->e)) return least <= s->member[i].pool;
    if (s->e->code != ERR_MEMORY) s->is_over = true;
    return false;
}

static bool all_fit(struct search *s, uint32_t n_batch, uint32_t n_seq) {
    s->n_batch = n_batch;
    s->n_seq = n_seq;
    for (unsigned i = 0; i < s->n; i++) {
        if (!fits(s, i)) return false;
    }
    return true;
}

/* The largest sizes at which all fit: first fewer sequences, then smaller steps. */
static bool find_sizes(struct search *s) {
    uint32_t batch = s->wish->n_batch, most = s->wish->n_seq;
    if (all_fit(s, batch, most)) return true;
    if (s->is_over || !all_fit(s, 1, 1)) return false;
    while (!all_fit(s, batch, 1)) batch = batch / 2 > 1 ? batch / 2 : 1;
    uint32_t low = 1;
    for (uint32_t high = most + 1; low + 1 < high;) {
        uint32_t mid = low + (high - low) / 2;
        if (all_fit(s, batch, mid)) {
            low = mid;
        } else {
            high = mid;
        }
    }
    s->n_batch = batch;
    s->n_seq = low;
    return true;
}

static void cut_up(struct search *s) {
    double weight[PLAN_NODES];
    weights_of(s->member, s->n, s->wish->is_even, weight);
    cuts_make(&s->cuts, s->model, s->n, weight);
}

/* Of the members that get no row at all, or whose share is too much for them at the least sizes, the
 * one with the smallest pool; 0, the leader, when no other is to blame. */
static unsigned worst(struct search *s) {
    unsigned w = 0;
    s->n_batch = s->n_seq = 1;
    for (unsigned i = 1; i < s->n; i++) {
        if (is_empty(&s->cuts, i)) return i;
        if (!fits(s, i) && (!w || s->member[i].pool < s->member[w].pool)) w = i;
    }
    return w;
}

static bool has_idle(const struct search *s) {
    for (unsigned i = 1; i < s->n; i++) {
        if (is_empty(&s->cuts, i)) return true;
    }
    return false;
}

static void leave_out(struct search *s, unsigned w) {
    for (unsigned i = w; i + 1 < s->n; i++) {
        s->member[i] = s->member[i + 1];
        s->index[i] = s->index[i + 1];
    }
    s->n--;
}

/* All members at this context, then fewer. */
static bool search_members(struct search *s, const struct plan_member *member, unsigned n) {
    s->n = n;
    for (unsigned i = 0; i < n; i++) {
        s->member[i] = member[i];
        s->index[i] = i;
    }
    for (;;) {
        cut_up(s);
        if (!has_idle(s) && find_sizes(s)) return true;
        unsigned w = s->is_over ? 0 : worst(s);
        if (s->is_over || !w) return false;  // without the others the leader's share only grows
        leave_out(s, w);
    }
}

/* --- tokens a step --- */

enum {
    SLOTS_USUAL = 8,   // read-ahead buffers of a member, if it has room for them
    READERS_USUAL = 2  // and threads that read
};

/* What member i makes of its memory if it takes so many tokens a step. */
static bool measure_sweep(struct search *s, unsigned i, uint32_t n_sweep, struct nn_memory *m) {
    struct nn_conf c;
    struct err e;
    s->n_sweep = n_sweep;
    conf_of(s, i, &c);
    c.budget = s->member[i].pool;
    c.n_reader = READERS_USUAL;
    return nn_choose_slots(&c, SLOTS_USUAL, m, &e);
}

/* With a streaming model a prompt is to pass each layer while the layer's tiles stay, so that it takes one
 * sweep of the disk; the member that has the least memory for that decides. */
static void choose_sweep(struct search *s) {
    const uint32_t wish = s->wish->n_sweep, batch = s->n_batch;
    uint32_t sweep = wish < s->n_ctx ? wish : s->n_ctx;
    struct nn_memory without[PLAN_NODES], with;
    bool streams = false, ok = true;
    for (unsigned i = 0; i < s->n && ok; i++) {
        ok = measure_sweep(s, i, batch, &without[i]);
        streams = streams || (ok && without[i].disk_bytes);
    }
    if (!streams || !ok) sweep = batch;
    for (unsigned i = 0; i < s->n && sweep > batch; i++) {
        while (sweep > batch && !(measure_sweep(s, i, sweep, &with) &&
                                  nn_sweep_pays(&with, &without[i], s->member[i].pool))) {
            sweep /= 2;
        }
    }
    s->n_sweep = sweep > batch ? sweep : batch;
}

/* --- the plan --- */

static void add_run(struct plan *p, enum plan_kind_of_rows rows, uint32_t n_layer,
                    const uint32_t *cut) {
    struct plan_run *r = &p->run[p->n_run++];
    *r = (struct plan_run){.rows = (uint8_t)rows, .n_layer = (uint16_t)n_layer};
    memcpy(r->cut, cut, (p->n_node + 1U) * sizeof *cut);
}

static void write_plan(struct plan *p, const struct search *s) {
    *p = (struct plan){
        .epoch = s->wish->epoch,
        .leader = s->member[0].id,
        .model = s->wish->model,
        .n_node = (uint8_t)s->n,
        .n_ctx = s->n_ctx,
        .n_batch = s->n_batch,
        .n_sweep = s->n_sweep,
        .n_seq = s->n_seq,
        .safe_seq = s->n_seq,
        .safe_ctx = s->n_ctx,
        .kv = s->wish->kv,
        .wire = s->wish->wire,
    };
    for (unsigned i = 0; i < s->n; i++) {
        p->node[i] = s->member[i].id;
        p->instance[i] = s->member[i].instance;
    }
    add_run(p, ROWS_KV_HEAD, s->model->n_layer, s->cuts.kv_head);
    add_run(p, ROWS_EMBD, s->model->n_layer, s->cuts.embd);
    add_run(p, ROWS_FF, s->model->n_layer, s->cuts.ff);
    add_run(p, ROWS_VOCAB, 0, s->cuts.vocab);
}

/* By itself at the least sizes, whatever its pool. */
static MUST measure_alone(struct search *s, const struct plan_member *leader, struct nn_memory *m,
                          struct err *e) {
    struct nn_conf c;
    s->n = 1;
    s->member[0] = *leader;
    s->n_batch = s->n_seq = 1;
    cut_up(s);
    conf_of(s, 0, &c);
    c.budget = NN_PLENTY;
    return nn_measure(&c, m, e);
}

static uint32_t least_ctx(const struct model *m) {
    return m->n_ctx < 256 ? m->n_ctx : 256;
}

MUST plan_least(const struct model *m, const struct kernels *k, const struct plan_member *member,
                const struct plan_wish *wish, uint64_t *bytes, struct err *e) {
    struct search s = {.model = m, .kernels = k, .wish = wish, .e = e, .n_ctx = least_ctx(m)};
    struct nn_memory of;
    if (wish->n_ctx < s.n_ctx) s.n_ctx = wish->n_ctx;
    if (!measure_alone(&s, member, &of, e)) return false;
    *bytes = of.min_budget;
    return true;
}

/* How much is missing. */
static MUST refuse(struct search *s, const struct plan_member *leader, struct err *e) {
    struct nn_memory m;
    if (!measure_alone(s, leader, &m, e)) return false;
    const uint64_t mib = 1 << 20;
    bool is_known = leader->pool && leader->budget > leader->pool;
    uint64_t whole = leader->budget - leader->pool + m.min_budget;
    char more[48] = "give it more --memory";
    if (is_known) {
        snprintf(more, sizeof more, "give it --memory %lluM or more",
                 (unsigned long long)((whole + mib - 1) / mib));
    }
    return err_set(
        e, ERR_MEMORY,
        "the leader's memory budget leaves %.1f MiB for the model's work, but %.1f MiB is "
        "the least on its own: %.1f for %u tokens of context, %.1f scratch, the rest for "
        "tables and disk buffers; %s",
        (double)leader->pool / 1048576, (double)m.min_budget / 1048576,
        (double)m.kv_bytes / 1048576, s->n_ctx, (double)m.scratch_bytes / 1048576, more);
}

/* The largest context at which members can work. False: none, or is_over. */
static bool search_plan(struct search *s, const struct plan_member *member, unsigned n) {
    uint32_t floor = least_ctx(s->model);
    s->n_ctx = s->wish->n_ctx;
    while (!search_members(s, member, n)) {
        if (s->is_over || s->n_ctx <= floor) return false;
        s->n_ctx = s->n_ctx / 2 > floor ? s->n_ctx / 2 : floor;
    }
    return true;
}

/* What those who are left would wish for. More than the least of all losses so far is not asked for; of
 * the context not while it could be had for sequences. */
static struct plan_wish wish_after(const struct plan *p, const struct plan_wish *wish,
                                   const struct plan_member *member, unsigned lost) {
    struct plan_wish w = *wish;
    if (!lost && member[1].n_ctx) w.n_ctx = member[1].n_ctx;
    if (!lost && member[1].n_seq) w.n_seq = member[1].n_seq;
    if (w.n_seq > p->safe_seq) w.n_seq = p->safe_seq;
    if (w.n_seq == 1 && w.n_ctx == wish->n_ctx && p->safe_ctx) w.n_ctx = p->safe_ctx;
    return w;
}

enum { EACH_LOSS = 8 };  // nodes up to which every loss is looked at

/* Of many nodes, where machines are alike, the loss of the one with the most memory stands for all: 16 more
 * plans for a model of many experts take so long that a leader would be taken for lost. */
static bool stands_for(const struct plan_member *a, double weight_a, const struct plan_member *b,
                       double weight_b) {
    return weight_a >= weight_b && weight_a <= weight_b && a->n_thread == b->n_thread &&
           (a->pool > b->pool || (a->pool == b->pool && a < b));
}

static void search_loss(struct plan *p, const struct search *s, const struct plan_member *member,
                        unsigned n, unsigned lost) {
    struct plan_member rest[PLAN_NODES];
    struct plan_wish wish = wish_after(p, s->wish, member, lost);
    struct err e;
    struct search left = {.model = s->model, .kernels = s->kernels, .wish = &wish, .e = &e};
    memcpy(rest, member, lost * sizeof *rest);
    memcpy(rest + lost, member + lost + 1, (n - lost - 1) * sizeof *rest);
    if (!search_plan(&left, rest, n - 1)) left.n_ctx = 0, left.n_seq = p->safe_seq;
    if (left.n_ctx < p->safe_ctx) p->safe_ctx = left.n_ctx;
    if (left.n_seq < p->safe_seq) p->safe_seq = left.n_seq;
}

static void search_losses(struct plan *p, const struct search *s, const struct plan_member *member,
                          unsigned n, const bool left_out[]) {
    double weight[PLAN_NODES];
    weights_of(member, n, s->wish->is_even, weight);
    for (unsigned i = 0; i < n && n > 1; i++) {
        bool is_needed = !left_out[i];
        for (unsigned j = 1; i && j < n && n > EACH_LOSS && is_needed; j++) {
            is_needed = left_out[j] || !stands_for(&member[j], weight[j], &member[i], weight[i]);
        }
        if (is_needed) search_loss(p, s, member, n, i);
    }
}

MUST plan_make(struct plan *p, const struct model *m, const struct kernels *k,
               const struct plan_member *member, unsigned n, const struct plan_wish *wish,
               bool left_out[], struct err *e) {
    assert(n >= 1 && n <= PLAN_NODES && wish->n_ctx && wish->n_batch && wish->n_seq);
    assert(wish->n_batch <= PLAN_BATCH && wish->n_sweep <= PLAN_SWEEP && wish->n_seq <= PLAN_SEQS);
    struct search s = {.model = m, .kernels = k, .wish = wish, .e = e};
    for (unsigned i = 0; i < n; i++) left_out[i] = true;
    if (!search_plan(&s, member, n)) return !s.is_over && refuse(&s, member, e);
    for (unsigned i = 0; i < s.n; i++) left_out[s.index[i]] = false;
    choose_sweep(&s);
    write_plan(p, &s);
    search_losses(p, &s, member, n, left_out);
    return true;
}

/* --- reading a plan --- */

int plan_slice(const struct plan *p, const struct node_id *id) {
    for (int i = 0; i < p->n_node; i++) {
        if (!ident_cmp(&p->node[i], id)) return i;
    }
    return -1;
}

/* A head's cut must fill whole blocks of what is gathered and whole groups of rows (nn/slice.h). */
static bool is_cut(const struct model *m, enum plan_kind_of_rows rows, uint32_t at,
                   uint32_t total) {
    if (!at || at == total) return true;
    if (rows != ROWS_KV_HEAD) return at % Q_BLOCK == 0;
    uint64_t width = m->n_head / m->n_head_kv * m->head_dim;
    return at * width % Q_BLOCK == 0 && (uint64_t)at * m->head_dim % ROW_GROUP == 0;
}

static MUST read_kind(const struct plan *p, const struct model *m, enum plan_kind_of_rows rows,
                      uint32_t total, uint32_t *cut, struct err *e) {
    static const char *const name[N_ROWS] = {"KV heads", "embedding rows", "feed-forward rows",
                                             "vocabulary rows"};
    uint32_t layers = 0, wanted = rows == ROWS_VOCAB ? 0 : m->n_layer;
    const struct plan_run *first = NULL;
    for (unsigned i = 0; i < p->n_run; i++) {
        const struct plan_run *r = &p->run[i];
        if (r->rows != rows) continue;
        if (!first) first = r;
        if (r->first_layer != layers) {
            return err_set(e, ERR_FORMAT, "plan: a gap in the layers of its %s", name[rows]);
        }
        layers += r->n_layer;
        if (memcmp(r->cut, first->cut, (p->n_node + 1U) * sizeof *cut) != 0) {
            return err_set(e, ERR_UNSUPPORTED,
                           "plan: its %s are shared differently from layer %u on; this version "
                           "shares all layers alike",
                           name[rows], r->first_layer);
        }
    }
    if (!first) return err_set(e, ERR_FORMAT, "plan: it says nothing of %s", name[rows]);
    if (layers != wanted) {
        return err_set(e, ERR_FORMAT, "plan: %u layers of %s where the model has %u", layers,
                       name[rows], wanted);
    }
    for (unsigned i = 0; i <= p->n_node; i++) {
        uint32_t at = first->cut[i];
        bool is_end = (i || !at) && (i < p->n_node || at == total);
        if (!is_end || at > total || (i && at < cut[i - 1]) || !is_cut(m, rows, at, total)) {
            return err_set(e, ERR_FORMAT, "plan: a cut at %u of the model's %u %s", at, total,
                           name[rows]);
        }
        cut[i] = at;
    }
    return true;
}

MUST plan_cuts(const struct plan *p, const struct model *m, struct cuts *c, struct err *e) {
    *c = (struct cuts){0};
    if (p->n_node < 1 || p->n_node > PLAN_NODES || p->n_run > PLAN_RUNS) {
        return err_set(e, ERR_FORMAT, "plan: %u nodes, %u runs", p->n_node, p->n_run);
    }
    return read_kind(p, m, ROWS_KV_HEAD, m->n_head_kv, c->kv_head, e) &&
           read_kind(p, m, ROWS_EMBD, m->n_embd, c->embd, e) &&
           read_kind(p, m, ROWS_FF, m->n_ff, c->ff, e) &&
           read_kind(p, m, ROWS_VOCAB, m->n_vocab, c->vocab, e);
}

/* --- what it costs on the wire --- */

static bool is_float(const struct tensor *t) {
    return t->type == TENSOR_F32 || t->type == TENSOR_F16 || t->type == TENSOR_BF16;
}

/* Bytes of a value as the matrix that reads it wants it: 34 bytes for 32, or floats. */
static double read_bytes(const struct tensor *t) {
    return is_float(t) ? 4 : 34 / 32.0;
}

double plan_wire_bytes(const struct plan *p, const struct model *m, unsigned slice) {
    static const double branch[] = {[WIRE_Q16] = 68 / 32.0, [WIRE_Q8] = 34 / 32.0, [WIRE_F32] = 4};
    double width = (double)(m->n_head / m->n_head_kv) * m->head_dim, sum = 0;
    double used = m->n_expert ? m->n_used : 1;  // the gated rows of each expert that a token chose
    for (unsigned i = 0; i < p->n_run; i++) {
        const struct plan_run *r = &p->run[i];
        double own = r->cut[slice + 1] - r->cut[slice];
        for (uint32_t l = r->first_layer; l < r->first_layer + r->n_layer && l < m->n_layer; l++) {
            const struct layer_tensors *t = &m->layer[l];
            if (r->rows == ROWS_KV_HEAD) sum += own * width * read_bytes(t->o);
            if (r->rows == ROWS_FF) sum += own * read_bytes(t->down) * used;
            if (r->rows == ROWS_FF && t->sh_down) {  // about: its cuts follow the others'
                sum += own * m->n_ff_shared / m->n_ff * read_bytes(t->sh_down);
            }
            if (r->rows == ROWS_EMBD) sum += 2 * own * branch[p->wire];
        }
    }
    return sum * (p->n_node - 1);
}

size_t plan_widest(const struct model *m, uint32_t n_batch) {
    size_t ff = (size_t)m->n_ff * (m->n_used ? m->n_used : 1);  // of every expert of a token
    size_t heads = (size_t)m->n_head * m->head_dim;
    size_t most = m->n_embd > ff ? m->n_embd : ff;
    if (heads > most) most = heads;
    if (m->n_ff_shared > most) most = m->n_ff_shared;
    size_t chunk = n_batch * most * sizeof(float), all = m->n_vocab * sizeof(struct candidate);
    return chunk > all ? chunk : all;
}
