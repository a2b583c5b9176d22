#include "nodesetup.h"

#include "host/facts.h"

#include <string.h>

enum {
    CHANNEL_BYTES = 34 << 10,  // of TLS and frames; a peer has two, for control and data
    PEERS_USUAL = 4,           // where none are named
    HTTP_BYTES = 384 << 10,    // connections, requests, the thread
    THREAD_BYTES = 64 << 10,   // of stacks touched: cluster, engine, readers
    SEQ_MOST = 8,              // conversations in memory at one time
    SEQ_PART = 8,              // all of them together at most this part of the pool
};

static uint64_t kv_bytes(const struct model *m, const struct engine_conf *c) {
    uint64_t one = c->kv == KV_F32 ? 4 : 2;
    return 2 * one * m->n_layer * m->n_head_kv * m->head_dim * c->n_ctx;
}

static uint32_t choose_seq(const struct setup *s) {
    uint64_t one = kv_bytes(&s->model, &s->conf);
    uint64_t n = one ? s->pool / SEQ_PART / one : 1;
    return n < 1 ? 1 : n > SEQ_MOST ? SEQ_MOST : (uint32_t)n;
}

uint64_t nodesetup_prompts(uint64_t budget) {
    const uint64_t least = 256 << 10, most = 48 << 20;
    uint64_t part = budget / 16;
    return part < least ? least : part > most ? most : part;
}

MUST nodesetup_measure(struct setup *s, const struct machine *m, unsigned n_peer, bool http,
                       struct node_conf *c, struct err *e) {
    if (!setup_budget(s, m, e)) return false;
    uint64_t peers = n_peer ? n_peer : PEERS_USUAL;
    uint64_t own = peers * 2 * CHANNEL_BYTES + 4 * THREAD_BYTES;
    if (http) own += HTTP_BYTES + nodesetup_prompts(s->budget);
    s->pool = s->pool > own ? s->pool - own : 0;
    s->program += own;
    if (!setup_speeds(s, m, e)) return false;
    c->model = s->model.n_layer ? &s->model : NULL;
    c->tok = s->tok;
    c->kernels = &s->kernels;
    c->model_file = s->is_demo ? "demo" : s->model.file.path;
    c->pool = s->pool;
    c->budget = s->budget;
    c->ram = s->mem.total;
    c->n_ctx = s->conf.n_ctx;
    c->n_batch = s->conf.n_batch;
    c->n_seq = c->model ? choose_seq(s) : 1;
    c->n_thread = s->conf.n_thread;
    c->n_reader = s->conf.n_reader;
    c->n_slot = s->conf.n_slot;
    c->kv = s->conf.kv;
    c->wire = s->conf.wire;
    c->speed = c->model ? s->compute_bps : s->read_bps;
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
