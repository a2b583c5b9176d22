#include "nodesetup.h"

#include "cluster/msg.h"
#include "cluster/plan.h"
#include "host/facts.h"

#include <string.h>

enum {
    CHANNEL_BYTES = 48 << 10,     // measured by test_chan; a peer has two, for control and data
    PEERS_MOST = PLAN_NODES - 1,  // may come where none are named
    HTTP_PART = 32,               // of the budget is for requests over HTTP
    /* Handshakes at one time, dialled or not: one for each other node of the largest cluster, and one for a
     * stranger. Two nodes hardly have more than one with each other at a time. */
    HANDSHAKE_LEAST = PLAN_NODES,
    ASKS_LEAST = 192 << 10,  // bytes for the requests that a leader keeps
    ASKS_MOST = 64 << 20,
    SEQ_MOST = 8,  // conversations in memory at one time
    SEQ_PART = 8,  // all of them together at most this part of the pool
};

static uint64_t kv_bytes(const struct model *m, const struct engine_conf *c) {
    uint64_t one = kv_row_bytes((enum kv_type)c->kv, m->head_dim);
    return 2 * one * m->n_layer * m->n_head_kv * c->n_ctx;
}

static uint32_t choose_seq(const struct setup *s) {
    uint64_t one = kv_bytes(&s->model, &s->conf);
    uint64_t n = one ? s->pool / SEQ_PART / one : 1;
    return n < 1 ? 1 : n > SEQ_MOST ? SEQ_MOST : (uint32_t)n;
}

uint64_t nodesetup_http(uint64_t budget) {
    const uint64_t least = 512 << 10, most = 128 << 20;
    uint64_t part = budget / HTTP_PART;
    return part < least ? least : part > most ? most : part;
}

static uint64_t part_of(uint64_t budget, uint64_t least, uint64_t most) {
    uint64_t part = budget / 64;
    return part < least ? least : part > most ? most : part;
}

/* For answers that are held to grammars: what following them takes. A small budget has nothing to spare. */
static uint64_t grammar_part(uint64_t budget) {
    const uint64_t least = 1 << 20;
    return budget < 16 * least ? 0 : part_of(budget, least, 48 * least);
}

/* Strangers' handshakes: a small budget has room for few at a time. */
static uint32_t choose_handshakes(uint64_t budget) {
    const uint64_t one = CHANNEL_BYTES;
    return (uint32_t)(part_of(budget, HANDSHAKE_LEAST * one, GATE_PENDING * one) / one);
}

static void take(struct setup *s, uint64_t bytes) {
    s->pool = s->pool > bytes ? s->pool - bytes : 0;
    s->program += bytes;
}

/* With others any part may do that leaves something at all. */
static MUST check_room(const struct setup *s, const struct node_conf *c, struct err *e) {
    const struct plan_member self = {.pool = s->pool, .n_thread = s->conf.n_thread};
    const struct plan_wish wish = {
        .n_ctx = s->conf.n_ctx, .kv = (uint8_t)s->conf.kv, .wire = (uint8_t)s->conf.wire};
    uint64_t least = 0;
    if (!s->model.n_layer || (s->pool && c->keys.has_key)) return true;
    if (!plan_least(&s->model, &s->kernels, &self, &wish, &least, e)) return false;
    if (s->pool >= least) return true;
    (void)err_set(e, ERR_MEMORY,
                  "needs at least %llu MiB on a node of its own, the memory budget is %s; "
                  "give more --memory",
                  (unsigned long long)(setup_whole(s, least) >> 20), BYTES_TEXT(s->budget));
    return err_in_file(e, s->is_demo ? "the demo model" : s->model.file[0].path);
}

MUST nodesetup_measure(struct setup *s, const struct machine *m, unsigned n_peer, bool http,
                       struct node_conf *c, struct err *e) {
    if (m->ctx > MSG_TOKENS_MAX) {
        return err_set(e, ERR_USAGE,
                       "nodes hand on at most %d tokens of context, not %u; give --ctx %d",
                       MSG_TOKENS_MAX, m->ctx, MSG_TOKENS_MAX);
    }
    if (!setup_budget(s, m, e)) return false;
    bool is_alone = !c->keys.has_key;
    uint64_t peers = is_alone ? 0 : n_peer ? n_peer : PEERS_MOST;
    c->n_handshake = choose_handshakes(s->budget);
    c->asks = part_of(s->budget, ASKS_LEAST, ASKS_MOST);
    take(s, peers * 2 * CHANNEL_BYTES);
    if (!is_alone) take(s, (uint64_t)c->n_handshake * CHANNEL_BYTES);
    if (http) take(s, nodesetup_http(s->budget));
    if (s->model.n_layer) take(s, grammar_part(s->budget) + c->asks);
    if (!setup_speeds(s, m, e)) return false;
    /* A mesh lays the rows of a message one after another before it sends them. */
    if (s->model.n_layer && !is_alone) take(s, plan_widest(&s->model, s->conf.n_batch));
    if (!check_room(s, c, e)) return false;
    c->model = s->model.n_layer ? &s->model : NULL;
    c->tok = s->tok;
    c->kernels = &s->kernels;
    c->model_file = s->is_demo ? "demo" : c->model ? s->model.file[0].path : NULL;
    c->grammars = grammar_part(s->budget);
    c->pool = s->pool;
    c->budget = s->budget;
    c->ram = s->mem.total;
    c->n_ctx = s->conf.n_ctx;
    c->n_batch = s->conf.n_batch;
    c->n_seq = c->model ? choose_seq(s) : 1;
    c->n_thread = s->conf.n_thread;
    c->n_decode = s->conf.n_decode;
    c->places = s->conf.places;
    c->n_reader = s->conf.n_reader;
    c->n_slot = s->conf.n_slot;
    c->kv = s->conf.kv;
    c->wire = s->conf.wire;
    c->speed = c->model ? s->tune.bps[s->tune.best] : s->read_bps;  // of the best pass, both
    c->disk_bps = s->disk_bps;
    nodesetup_board(c->board, sizeof c->board);
    return true;
}

void nodesetup_peers(const struct peers *p, struct node_conf *c) {
    _Static_assert((int)CONFIG_PEERS <= (int)NODE_PEERS, "all names must fit");
    for (unsigned i = 0; i < p->n; i++) c->peer[i] = p->at[i];
    c->n_peer = p->n;
}

void nodesetup_board(char *out, size_t cap) {
    char text[128];
    if (!facts_read("", "/proc/device-tree/model", text, sizeof text) &&
        !facts_read("", "/sys/class/dmi/id/product_name", text, sizeof text)) {
        *text = '\0';
    }
    text[strcspn(text, "\n")] = '\0';
    text_printable(out, cap, text);
}
