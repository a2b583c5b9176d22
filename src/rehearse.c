#include "rehearse.h"

#include "base/clock.h"

#include <math.h>

#define MIB ((uint64_t)1 << 20)

enum {
    CTX = 512,     // positions of its context, at most
    TOKENS = 4,    // timed at least
    MOST = 32,     // and at most
    ROUTED = 96,   // where a router chooses: few experts tell little of how many are missed
    HALVINGS = 14  // of the range in which the budget is looked for
};
/* So much a text tells of another: five, by a layer of eight experts with room for 0.91 of them, missed 0.041 to
 * 0.087, and the first 60 tokens of a sixth 0.044; chosen evenly it had been 0.094. */
static const double BEFORE = 8;
static const uint64_t LAYERS_LEAST = 64 * MIB;  // so much of the layers
/* Of all of it: where tokens take longer, fewer are timed, or none. */
static const double SECONDS = 0.4, SECONDS_MOST = 1.5;
/* Where a router chooses: to time; for the least of it, were experts chosen evenly; to load. */
static const double SECONDS_ROUTED = 1, LEAST_ROUTED = 1.5, LOAD_ROUTED = 1;

/* --- what was learned --- */

double rehearsed_hits(const struct rehearsed *h, const struct nn_memory *m) {
    double missed = 1 - nn_hit_share(m);
    return 1 - (h->skew > 0 ? pow(missed, h->skew) : missed);
}

uint64_t rehearsed_bytes(const struct rehearsed *h, const struct nn_memory *m) {
    double missed = 1 - nn_hit_share(m), swept = (double)m->tiles.streamed_bytes_per_sweep;
    if (!(missed > 0)) return m->disk_bytes;
    return (uint64_t)(swept +
                      ((double)m->disk_bytes - swept) / missed * (1 - rehearsed_hits(h, m)));
}

static void forecast_of(const struct rehearsed *h, const struct nn_memory *m, const struct rates *r,
                        struct forecast *out) {
    struct nn_memory likely = *m;
    likely.disk_bytes = rehearsed_bytes(h, m);
    engine_forecast(&likely, r, out);
}

void rehearsed_forecast(const struct rehearsed *h, const struct nn_memory *m, const struct rates *r,
                        struct forecast *out) {
    forecast_of(h, m, r, out);
    if (!m->disk_bytes || !(h->times > 0)) return;
    /* Waiting by turns costs a short model's token as much as a long one's; a slow disk what it slows. */
    double token_s = 1 / out->decode_tps;
    out->decode_tps = 1 / (h->extra_s > 0 ? token_s + h->extra_s : token_s * h->times);
}

/* --- a model like the whole, but shorter --- */

/* Without the part of the weights that is no layer's. */
static uint32_t least_layers(const struct model *m) {
    uint64_t rest = m->token_embd->len + (m->output == m->token_embd ? 0 : m->output->len);
    uint64_t layer = (m->data_len - rest) / m->n_layer;
    uint64_t n = layer ? (LAYERS_LEAST + layer - 1) / layer : m->n_layer;
    return n < m->n_layer ? (uint32_t)n : m->n_layer;
}

/* Of what every token reads. */
static double part_kept(const struct nn_memory *m) {
    uint64_t all = m->sweep_bytes - m->expert_bytes;
    return 1 - (double)m->tiles.streamed_bytes_per_sweep / (double)all;
}

/* Experts for themselves: where there are few layers, the rest is more of all. */
static bool keeps_as_much(const struct nn_memory *m, const struct nn_memory *whole) {
    if (!whole->n_demand) return part_kept(m) >= part_kept(whole);
    return part_kept(m) >= part_kept(whole) && nn_hit_share(m) >= nn_hit_share(whole);
}

/* The budget with which as large a part stays as of the whole: the least that keeps no less. */
static MUST find_budget(struct engine_conf *c, const struct nn_memory *whole, struct nn_memory *m,
                        struct err *e) {
    uint64_t most = c->budget, least = 0;
    for (int i = 0; i < HALVINGS; i++) {
        uint64_t mid = least + (most - least) / 2;
        c->budget = mid;
        struct err small;
        if (engine_measure(c, m, &small) && keeps_as_much(m, whole)) {
            most = mid;
        } else {
            least = mid;
        }
    }
    c->budget = most;
    return engine_measure(c, m, e);
}

/* Without a draft, guesses, or batches. */
struct cut {
    struct model model;
    struct engine_conf conf;
    struct nn_memory memory;
    struct rates rates;
    struct forecast forecast;  // experts chosen evenly
    bool is_routed;
    uint32_t n_skip, n_timed;  // tokens; none timed: no time for it, or no context
};

/* Tokens that use up what was read ahead when nothing was computed yet. */
static uint32_t tokens_ahead(const struct nn_memory *m) {
    uint64_t n = m->disk_bytes ? m->ring_bytes / m->disk_bytes : 0;
    return 2 + (n < MOST ? (uint32_t)n : MOST);
}

/* Experts are there oftener than if chosen evenly, so how many tokens there is time for the clock says then. */
static uint32_t tokens_routed(uint32_t least, double load_s, double token_s) {
    return load_s > LOAD_ROUTED || least * token_s > LEAST_ROUTED ? 0 : ROUTED;
}

static uint32_t tokens_swept(uint32_t least, double load_s, double token_s) {
    double n = SECONDS / token_s;
    if (load_s + least * token_s > SECONDS_MOST) return 0;
    return n < TOKENS ? TOKENS : n > MOST ? MOST : (uint32_t)n;
}

static uint32_t tokens_timed(const struct cut *t) {
    const struct nn_memory *m = &t->memory;
    uint32_t before = 1 + t->n_skip, least = 1 + t->n_skip + TOKENS;
    double kept = (double)(m->tiles.pinned_bytes + m->tiles.cached_bytes + m->ring_bytes);
    double load_s = kept / t->rates.disk_bps, token_s = 1 / t->forecast.decode_tps;
    if (t->conf.n_ctx < least) return 0;
    uint32_t n =
        t->is_routed ? tokens_routed(least, load_s, token_s) : tokens_swept(least, load_s, token_s);
    uint32_t room = t->conf.n_ctx - before;
    return n < room ? n : room;
}

static MUST make_cut(struct cut *t, const struct engine_conf *of, const struct nn_memory *whole,
                     const struct rates *r, uint32_t n_layer, struct err *e) {
    struct engine_conf *c = &t->conf;
    t->model = *of->model;
    t->model.n_layer = n_layer;
    t->rates = *r;
    t->rates.rest_s *= (double)n_layer / (double)of->model->n_layer;
    *c = *of;
    c->model = &t->model;
    c->draft = NULL;
    c->n_guess = c->n_logit = c->n_sweep = 0;
    c->n_batch = 1;
    if (whole->n_slot) c->n_slot = whole->n_slot;  // 0: only experts stream
    c->spec = SPEC_OFF;
    if (c->n_ctx > CTX) c->n_ctx = CTX;
    if (!find_budget(c, whole, &t->memory, e)) return false;
    engine_forecast(&t->memory, &t->rates, &t->forecast);
    t->is_routed = whole->n_demand > 0;
    t->n_skip = tokens_ahead(&t->memory);
    t->n_timed = tokens_timed(t);
    return true;
}

/* Layers differ in how unevenly they choose experts, so as many as there is time for. */
static MUST choose_cut(struct cut *t, const struct engine_conf *of, const struct nn_memory *whole,
                       const struct rates *r, struct err *e) {
    uint32_t least = least_layers(of->model), n = whole->n_demand ? of->model->n_layer : least;
    for (;; n = n / 2 > least ? n / 2 : least) {
        if (!make_cut(t, of, whole, r, n, e)) return false;
        if (t->n_timed || n == least) return true;
    }
}

/* --- running it --- */

/* The likeliest tokens, but for those that were just there: else the text soon goes in circles, the more so with
 * layers left out, and its experts with it. */
static const struct sampler NO_CIRCLES = {.presence = 8, .last_n = 64};

struct run {
    const struct cut *cut;
    struct engine *engine;
    uint32_t n_token, n_timed;
    double begin, end;
    struct store_stats before, after;
};

static bool is_enough(const struct run *run) {
    if (run->n_timed >= run->cut->n_timed) return true;
    return run->cut->is_routed && run->n_timed >= TOKENS && run->end - run->begin > SECONDS_ROUTED;
}

static bool on_token(void *ctx, int32_t id) {
    struct run *run = ctx;
    (void)id;
    run->end = clock_s();
    engine_stats(run->engine, &run->after);
    if (++run->n_token > run->cut->n_skip) {
        run->n_timed++;
    } else {
        run->begin = run->end;
        run->before = run->after;
    }
    return !is_enough(run);
}

static MUST try_cut(struct run *run, struct err *e) {
    const struct cut *t = run->cut;
    struct gen_result res;
    const int32_t first = 0;
    const struct gen_request q = {.prompt = &first,
                                  .n_prompt = 1,
                                  .sampler = NO_CIRCLES,
                                  .n_predict = t->n_skip + t->n_timed,
                                  .on_token = on_token,
                                  .ctx = run};
    if (!engine_open(&run->engine, &t->conf, e)) return false;
    bool ok = engine_load(run->engine, NULL, NULL, e) && engine_generate(run->engine, &q, &res, e);
    engine_close(run->engine);
    return ok;
}

double rehearsed_skew(double share, double missed, double chosen, double before) {
    double likely = (missed + before) / (chosen + before / (1 - share));
    return share > 0 && share < 1 && likely < 1 ? log(likely) / log(1 - share) : 1;
}

/* By experts: their tiles are wanted and missed one by one. */
static double skew_seen(const struct run *run, double before) {
    const struct cut *t = run->cut;
    double missed = (double)(run->after.misses - run->before.misses);
    double wanted = (double)(run->after.hits - run->before.hits) + missed;
    double chosen = (double)run->n_timed * t->model.n_layer * t->model.n_used;
    if (!(wanted > 0)) return 1;
    return rehearsed_skew(nn_hit_share(&t->memory), missed / wanted * chosen, chosen, before);
}

/* A token, by a thread on average; those that wait for another's tile do not count, so at least. */
static double waited_s(const struct run *run) {
    const struct engine_conf *c = &run->cut->conf;
    unsigned alone = c->n_decode ? c->n_decode : c->n_thread;
    double all = (double)(run->after.wait_ns - run->before.wait_ns) * 1e-9;
    return all / run->n_timed / (c->n_slice > 1 ? c->n_slice : alone);
}

/* Where the disk is no limit a run of half a second shows, but for the waits, mostly how fast memory was just then,
 * of which tune.h knows more. */
static double extra_wait(const struct forecast *f, double waited) {
    double foreseen = 1 / f->decode_tps - f->compute_s;
    return waited > foreseen ? waited - foreseen : 0;
}

MUST rehearse(const struct engine_conf *c, const struct nn_memory *whole, const struct rates *r,
              struct rehearsed *out, struct err *e) {
    struct cut t;
    struct run run = {.cut = &t};
    struct forecast f;
    *out = (struct rehearsed){0};
    if (!choose_cut(&t, c, whole, r, e)) return false;
    if (!t.n_timed) return true;
    if (!try_cut(&run, e)) return false;
    const struct rehearsed seen = {.skew = skew_seen(&run, 0)};
    out->skew = skew_seen(&run, BEFORE);
    forecast_of(&seen, &t.memory, &t.rates, &f);
    if (f.disk_bound) {
        out->times = (run.end - run.begin) / run.n_timed * f.decode_tps;
    } else {
        out->times = 1;
        out->extra_s = extra_wait(&f, waited_s(&run));
    }
    return true;
}
