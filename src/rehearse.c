#include "rehearse.h"

#include "base/clock.h"

#define MIB ((uint64_t)1 << 20)

enum {
    CTX = 512,     // positions of its context, at most
    TOKENS = 4,    // timed at least
    MOST = 32,     // and at most
    ROUTED = 96,   // where a router chooses: few experts tell little of how many are missed
    HALVINGS = 14  // of the range in which the budget is looked for
};
static const uint64_t LAYERS_LEAST = 64 * MIB;  // so much of the layers
static const double SECONDS = 0.4, SECONDS_ROUTED = 1, SECONDS_MOST = 1.5;

/* Without the part of the weights that is no layer's. */
static uint32_t layers_of(const struct model *m) {
    uint64_t rest = m->token_embd->len + (m->output == m->token_embd ? 0 : m->output->len);
    uint64_t layer = (m->data_len - rest) / m->n_layer;
    uint64_t n = layer ? (LAYERS_LEAST + layer - 1) / layer : m->n_layer;
    return n < m->n_layer ? (uint32_t)n : m->n_layer;
}

static double part_kept(const struct nn_memory *m) {
    uint64_t not_kept = m->tiles.streamed_bytes_per_sweep + m->tiles.missing_bytes;
    return 1 - (double)not_kept / (double)m->sweep_bytes;
}

/* The budget with which as large a part stays as of the whole: the least that keeps no less. */
static MUST find_budget(struct engine_conf *c, double part, struct nn_memory *m, struct err *e) {
    uint64_t most = c->budget, least = 0;
    for (int i = 0; i < HALVINGS; i++) {
        uint64_t mid = least + (most - least) / 2;
        c->budget = mid;
        struct err small;
        if (engine_measure(c, m, &small) && part_kept(m) >= part) {
            most = mid;
        } else {
            least = mid;
        }
    }
    c->budget = most;
    return engine_measure(c, m, e);
}

struct timing {
    uint32_t n_token, n_skip;
    double begin, end;
};

static bool on_token(void *ctx, int32_t id) {
    struct timing *t = ctx;
    (void)id;
    t->end = clock_s();
    if (++t->n_token == t->n_skip) t->begin = t->end;
    return true;
}

static MUST run(const struct engine_conf *c, uint32_t n_skip, uint32_t n, double *token_s,
                struct err *e) {
    struct engine *g;
    struct gen_result res;
    const int32_t first = 0;
    struct timing t = {.n_skip = n_skip};
    const struct gen_request q = {
        .prompt = &first, .n_prompt = 1, .n_predict = n_skip + n, .on_token = on_token, .ctx = &t};
    if (!engine_open(&g, c, e)) return false;
    bool ok = engine_load(g, NULL, NULL, e) && engine_generate(g, &q, &res, e);
    engine_close(g);
    if (ok) *token_s = (t.end - t.begin) / n;
    return ok;
}

/* Tokens that use up what was read ahead when nothing was computed yet. */
static uint32_t tokens_ahead(const struct nn_memory *m) {
    uint64_t n = m->disk_bytes ? m->ring_bytes / m->disk_bytes : 0;
    return 2 + (n < MOST ? (uint32_t)n : MOST);
}

/* How many tokens to time; 0: it would take long, or the context is too short. */
static uint32_t tokens_timed(const struct engine_conf *c, const struct nn_memory *m,
                             const struct rates *r, double token_s) {
    uint32_t n_skip = tokens_ahead(m), least = 1 + n_skip + TOKENS;
    double kept = (double)(m->tiles.pinned_bytes + m->tiles.cached_bytes + m->ring_bytes);
    if (c->n_ctx < least || kept / r->disk_bps + least * token_s > SECONDS_MOST) return 0;
    double n = (c->model->n_expert ? SECONDS_ROUTED : SECONDS) / token_s;
    uint32_t room = c->n_ctx - 1 - n_skip, most = c->model->n_expert ? ROUTED : MOST;
    if (room < most) most = room;
    return n < TOKENS ? TOKENS : n > most ? most : (uint32_t)n;
}

MUST rehearse(const struct engine_conf *whole_conf, const struct nn_memory *whole,
              const struct rates *whole_rates, double *times, struct err *e) {
    struct model cut = *whole_conf->model;
    struct engine_conf c = *whole_conf;
    struct rates r = *whole_rates;
    struct nn_memory m;
    struct forecast f;
    double token_s;
    *times = 1;
    cut.n_layer = layers_of(whole_conf->model);
    c.model = &cut;
    c.draft = NULL;
    c.n_guess = c.n_logit = c.n_sweep = 0;
    c.n_batch = 1;
    if (whole->n_slot) c.n_slot = whole->n_slot;  // 0: only experts stream
    c.spec = SPEC_OFF;
    if (c.n_ctx > CTX) c.n_ctx = CTX;
    r.rest_s *= (double)cut.n_layer / (double)whole_conf->model->n_layer;
    if (!find_budget(&c, part_kept(whole), &m, e)) return false;
    engine_forecast(&m, &r, &f);
    uint32_t n = tokens_timed(&c, &m, &r, 1 / f.decode_tps);
    if (!n) return true;
    if (!run(&c, tokens_ahead(&m), n, &token_s, e)) return false;
    *times = token_s * f.decode_tps;
    return true;
}
