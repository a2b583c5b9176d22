/* plan_wire.c - the compact form of a plan: ids once, cuts as shares in units, layers only counted. */
#include "cluster/plan.h"
#include "cluster/varint.h"

enum { TOTAL_MAX = MODEL_MAX_VOCAB };  // of rows of any kind

static uint32_t gcd(uint32_t a, uint32_t b) {
    while (b) {
        uint32_t r = a % b;
        a = b;
        b = r;
    }
    return a;
}

/* The largest number that divides all inner cuts of this kind; 1 when there is none but 0. */
static uint32_t unit_of(const struct plan *p, unsigned rows) {
    uint32_t unit = 0;
    for (unsigned i = 0; i < p->n_run; i++) {
        const struct plan_run *r = &p->run[i];
        for (unsigned j = 1; r->rows == rows && j < p->n_node; j++) unit = gcd(unit, r->cut[j]);
    }
    return unit ? unit : 1;
}

static bool is_id_zero(const struct node_id *id) {
    static const struct node_id zero;
    return !ident_cmp(id, &zero);
}

static bool are_nodes_sound(const struct plan *p) {
    if (p->n_node < 1 || p->n_node > PLAN_NODES || ident_cmp(&p->leader, &p->node[0]) != 0) {
        return false;
    }
    for (unsigned i = 0; i < p->n_node; i++) {
        if (is_id_zero(&p->node[i]) || !p->instance[i]) return false;
        if (plan_slice(p, &p->node[i]) != (int)i) return false;  // twice in the plan
    }
    return true;
}

/* Runs come kind by kind, each kind's layers from 0 on without a gap, cuts ascending to one total. */
static bool are_runs_sound(const struct plan *p) {
    if (p->n_run > PLAN_RUNS) return false;
    unsigned rows = 0;
    uint32_t layer = 0, total = 0;
    for (unsigned i = 0; i < p->n_run; i++) {
        const struct plan_run *r = &p->run[i];
        bool is_first = !i || r->rows != rows, is_vocab = r->rows == ROWS_VOCAB;
        if (r->rows >= N_ROWS || r->rows < rows || (is_vocab && !is_first)) return false;
        if (is_first) {
            layer = 0;
            total = r->cut[p->n_node];
        }
        if (is_vocab ? r->n_layer : !r->n_layer) return false;
        if (r->first_layer != layer || layer + r->n_layer > MODEL_MAX_LAYER) return false;
        if (r->cut[0] || r->cut[p->n_node] != total || total > TOTAL_MAX) return false;
        for (unsigned j = 0; j < p->n_node; j++) {
            if (r->cut[j + 1] < r->cut[j]) return false;
        }
        rows = r->rows;
        layer += r->n_layer;
    }
    return true;
}

static bool is_sound(const struct plan *p) {
    return p->epoch && p->n_ctx && p->n_ctx <= MODEL_MAX_CTX && p->n_batch &&
           p->n_batch <= PLAN_BATCH && p->n_sweep >= p->n_batch && p->n_sweep <= PLAN_SWEEP &&
           p->n_seq && p->n_seq <= PLAN_SEQS && p->safe_seq && p->safe_seq <= p->n_seq &&
           p->safe_ctx <= p->n_ctx && p->kv <= KV_Q8_0 && p->wire <= WIRE_F32 &&
           are_nodes_sound(p) && are_runs_sound(p);
}

static void put_kind(struct bytes *b, const struct plan *p, unsigned rows) {
    unsigned first = 0, n = 0;
    for (unsigned i = 0; i < p->n_run; i++) {
        if (p->run[i].rows == rows && !n++) first = i;
    }
    put_var(b, n);
    if (!n) return;
    uint32_t unit = unit_of(p, rows);
    put_var(b, p->run[first].cut[p->n_node]);
    put_var(b, unit);
    for (unsigned i = first; i < first + n; i++) {
        const struct plan_run *r = &p->run[i];
        if (rows != ROWS_VOCAB) put_var(b, r->n_layer);
        for (unsigned j = 0; j + 1 < p->n_node; j++) {
            put_var(b, (r->cut[j + 1] - r->cut[j]) / unit);
        }
    }
}

size_t plan_encode(const struct plan *p, uint8_t *out, size_t cap) {
    struct bytes b = {.p = out, .cap = cap};
    if (!is_sound(p)) return 0;
    put_var(&b, p->epoch);
    put_fixed(&b, p->model, 8);
    put_u8(&b, p->n_node);
    for (unsigned i = 0; i < p->n_node; i++) {
        put_bytes(&b, p->node[i].b, ID_LEN);
        put_fixed(&b, p->instance[i], 8);
    }
    put_var(&b, p->n_ctx);
    put_var(&b, p->n_batch);
    put_var(&b, p->n_sweep);
    put_var(&b, p->n_seq);
    put_var(&b, p->safe_seq);
    put_var(&b, p->safe_ctx);
    put_u8(&b, p->kv);
    put_u8(&b, p->wire);
    for (unsigned rows = 0; rows < N_ROWS; rows++) put_kind(&b, p, rows);
    return b.is_bad ? 0 : b.len;
}

/* Cuts from shares; what is left of the total belongs to the last. */
static void take_cuts(struct cursor *c, struct plan_run *r, unsigned n_node, uint32_t total,
                      uint32_t unit) {
    r->cut[0] = 0;
    for (unsigned j = 0; j + 1 < n_node; j++) {
        uint64_t at = r->cut[j] + take_upto(c, TOTAL_MAX) * unit;
        if (at > total) c->failed = true;
        r->cut[j + 1] = c->failed ? 0 : (uint32_t)at;
    }
    r->cut[n_node] = total;
}

static void take_kind(struct cursor *c, struct plan *p, unsigned rows) {
    unsigned room = PLAN_RUNS - p->n_run;
    if (rows == ROWS_VOCAB && room > 1) room = 1;
    unsigned n = (unsigned)take_upto(c, room);
    if (!n) return;
    uint32_t total = (uint32_t)take_upto(c, TOTAL_MAX), unit = (uint32_t)take_upto(c, TOTAL_MAX);
    uint32_t layer = 0;
    for (unsigned i = 0; i < n && !c->failed; i++) {
        struct plan_run *r = &p->run[p->n_run++];
        uint32_t layers = rows == ROWS_VOCAB ? 0 : (uint32_t)take_upto(c, MODEL_MAX_LAYER);
        *r = (struct plan_run){
            .rows = (uint8_t)rows, .first_layer = (uint16_t)layer, .n_layer = (uint16_t)layers};
        take_cuts(c, r, p->n_node, total, unit);
        layer += layers;
        if (layer > MODEL_MAX_LAYER) c->failed = true;
    }
    if (!c->failed && unit != unit_of(p, rows)) c->failed = true;
}

MUST plan_decode(struct plan *p, const uint8_t *in, size_t len, struct err *e) {
    struct cursor c;
    cursor_mem(&c, in, len);
    p->epoch = take_var(&c);
    p->model = cursor_u64(&c);
    p->n_node = (uint8_t)take_upto(&c, PLAN_NODES);
    for (unsigned i = 0; i < p->n_node; i++) {
        cursor_bytes(&c, p->node[i].b, ID_LEN);
        p->instance[i] = cursor_u64(&c);
    }
    p->n_ctx = (uint32_t)take_upto(&c, MODEL_MAX_CTX);
    p->n_batch = (uint32_t)take_upto(&c, PLAN_BATCH);
    p->n_sweep = (uint32_t)take_upto(&c, PLAN_SWEEP);
    p->n_seq = (uint32_t)take_upto(&c, PLAN_SEQS);
    p->safe_seq = (uint32_t)take_upto(&c, PLAN_SEQS);
    p->safe_ctx = (uint32_t)take_upto(&c, MODEL_MAX_CTX);
    p->kv = cursor_u8(&c);
    p->wire = cursor_u8(&c);
    p->n_run = 0;
    for (unsigned rows = 0; rows < N_ROWS && !c.failed; rows++) take_kind(&c, p, rows);
    if (c.failed) return err_set(e, ERR_FORMAT, "plan: cut short, or a number past its limit");
    if (cursor_left(&c)) return err_set(e, ERR_FORMAT, "plan: bytes left over");
    if (p->n_node) p->leader = p->node[0];
    if (!is_sound(p)) return err_set(e, ERR_FORMAT, "plan: its nodes, sizes or cuts are no plan");
    return true;
}
