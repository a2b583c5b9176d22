/* engine.c - slices, their threads, and the loop from token to token.
 *
 * One slice runs on a thread of the engine's with a compute team; several have a thread each and no team.
 * Either way a slice runs generate(), the same program on the same tokens. */
#include "engine/engine.h"

#include "base/bell.h"
#include "base/clock.h"
#include "engine/guesser.h"

#include <assert.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct slice_run {
    struct engine *g;
    unsigned index;
    struct nn *nn;
    struct coll alone;
    struct guesser *guesser;     // the first slice's; NULL: no guesses are made
    bool may_draft;              // while the disk is waited for
    uint32_t n_read, n_reading;  // prompt tokens done, and in the step under way
    uint32_t n_sure;             // positions of the cache that hold prompt and answer
    struct picker picker;
    struct grammar_run *run;  // NULL: no grammar
    int32_t *seen;            // [n_prompt + n_predict] prompt and answer so far, while generating
    struct err err;
    bool ok;
};

struct engine {
    struct engine_conf conf;
    struct coll_local *local;  // NULL with one slice
    struct slice_run slice[SLICE_MAX];
    struct nn_memory memory;  // sum over slices
    bool is_broken;           // a step was broken off: its slice is in mid-sweep
    bool is_spent;            // so that nothing can follow
    /* the request in progress */
    struct gen_request req;
    struct gen_result *result;
    struct store_stats at_decode;  // when the first answer token was there
    /* with one slice: its thread, and what that is asked to do (work NULL: to end) */
    pthread_t thread;
    bool has_thread;
    struct bell asked, done;
    void (*work)(void *ctx, struct par *team);
    void *work_ctx;
    bool has_no_team;  // fault says why; nothing more can be asked
    struct err fault;
};

static void share_conf(const struct engine_conf *c, unsigned i, uint64_t budget,
                       struct nn_conf *out) {
    *out = (struct nn_conf){
        .model = c->model,
        .kernels = c->kernels,
        .self = i,
        .n_slice = c->n_slice,
        .n_seq = 1,
        .n_ctx = c->n_ctx,
        .n_batch = c->n_batch,
        .n_sweep = c->n_sweep,
        .n_logit = c->n_logit > c->n_guess + 1 ? c->n_logit : c->n_guess + 1,
        .kv = c->kv,
        .wire = c->wire,
        .budget = budget,
        .n_reader = c->n_reader,
        .n_slot = c->n_slot,
        .n_thread = c->n_slice > 1 ? 1 : c->n_thread,
        .n_decode = c->n_slice > 1 ? 1 : c->n_decode,
    };
    cuts_make(&out->cuts, c->model, c->n_slice, c->share);
}

/* Every slice gets the least that it can work with, and of the rest its part by weights. */
MUST engine_slice_conf(const struct engine_conf *c, unsigned i, struct nn_conf *out,
                       struct err *e) {
    uint64_t least = 0, own_least = 0, weights = 0, own_weights = 0, aside = 0;
    if (!guesser_measure(c, &aside, e)) return false;
    for (unsigned s = 0; s < c->n_slice; s++) {
        struct nn_memory m;
        share_conf(c, s, NN_PLENTY, out);
        if (!nn_measure(out, &m, e)) return false;
        least += m.min_budget;
        weights += m.weight_bytes;
        if (s != i) continue;
        own_least = m.min_budget;
        own_weights = m.weight_bytes;
    }
    uint64_t budget = c->budget > aside ? c->budget - aside : 0;
    if (c->n_slice > 1 && budget >= least) {
        double part = (double)own_weights / (double)weights;
        budget = own_least + (uint64_t)((double)(budget - least) * part);
    } else if (c->n_slice > 1) {
        budget = (uint64_t)((double)budget * ((double)own_least / (double)least));
    }
    share_conf(c, i, budget, out);
    return true;
}

static void add_memory(struct nn_memory *sum, const struct nn_memory *m) {
    sum->kv_bytes += m->kv_bytes;
    sum->scratch_bytes += m->scratch_bytes;
    sum->ring_bytes += m->ring_bytes;
    sum->fixed_bytes += m->fixed_bytes;
    sum->embd_bytes += m->embd_bytes;
    sum->pin_bytes += m->pin_bytes;
    sum->weight_bytes += m->weight_bytes;
    sum->sweep_bytes += m->sweep_bytes;
    sum->token_bytes += m->token_bytes;
    sum->disk_bytes += m->disk_bytes;
    sum->expert_bytes += m->expert_bytes;
    sum->cache_bytes += m->cache_bytes;
    sum->n_demand += m->n_demand;
    sum->min_budget += m->min_budget;
    if (m->n_slot > sum->n_slot) sum->n_slot = m->n_slot;
    sum->tiles.pinned_bytes += m->tiles.pinned_bytes;
    sum->tiles.streamed_bytes_per_sweep += m->tiles.streamed_bytes_per_sweep;
    sum->tiles.n_pinned += m->tiles.n_pinned;
    sum->tiles.n_streamed += m->tiles.n_streamed;
    sum->tiles.cached_bytes += m->tiles.cached_bytes;
    sum->tiles.missing_bytes += m->tiles.missing_bytes;
    sum->tiles.n_missing += m->tiles.n_missing;
}

MUST engine_measure(const struct engine_conf *c, struct nn_memory *sum, struct err *e) {
    *sum = (struct nn_memory){0};
    for (unsigned i = 0; i < c->n_slice; i++) {
        struct nn_conf nc;
        struct nn_memory m;
        if (!engine_slice_conf(c, i, &nc, e) || !nn_measure(&nc, &m, e)) return false;
        add_memory(sum, &m);
    }
    if (!guesser_measure(c, &sum->guess_bytes, e)) return false;
    sum->min_budget += sum->guess_bytes;
    return true;
}

/* The slower of two that overlap; where they are about as slow they wait for each other by turns. */
static double slower_of(double a, double b) {
    a *= a;
    b *= b;
    return sqrt(sqrt(a * a + b * b));
}

void engine_forecast(const struct nn_memory *m, const struct rates *r, struct forecast *out) {
    /* The weights that a token computes with pass the cores once, streamed ones too. */
    double part = m->sweep_bytes ? (double)m->token_bytes / (double)m->sweep_bytes : 1;
    double stream = (double)m->disk_bytes, all = (double)m->weight_bytes * part;
    double kept = all > stream ? all - stream : 0;
    double compute = kept / r->compute_bps + r->rest_s, ahead_s = 0, missed_s = 0;
    if (stream > 0) {
        double swept = (double)m->tiles.streamed_bytes_per_sweep;
        if (swept > stream) swept = stream;
        compute += stream / r->stream_bps;
        ahead_s = swept / r->disk_bps;
        missed_s = (stream - swept) / r->disk_bps;
    }
    *out = (struct forecast){
        .decode_tps = 1 / (slower_of(compute, ahead_s) + missed_s),
        .compute_s = compute,
        .disk_s = ahead_s + missed_s,
        .disk_bound = ahead_s + missed_s > compute,
    };
}

/* --- the engine's thread: with one slice it enters the team once, for all that is asked --- */

static void serve(void *ctx, struct par *team) {
    struct engine *g = ctx;
    par_pin(team, &g->conf.places);
    for (uint32_t n_done = 0;; n_done++) {
        while (bell_seen(&g->asked) == n_done) bell_wait(&g->asked, n_done);
        if (!g->work) return;
        g->work(g->work_ctx, team);
        bell_ring(&g->done);
    }
}

static void *engine_thread(void *ctx) {
    struct engine *g = ctx;
    (void)pthread_setname_np(pthread_self(), "dair-engine");
    if (par_enter((int)g->conf.n_thread, serve, g, &g->fault)) return NULL;
    g->has_no_team = true;
    bell_ring(&g->done);
    return NULL;
}

/* Runs work(ctx, team) on the engine's thread, which is started when it is first needed. */
static MUST run_on_team(struct engine *g, void (*work)(void *ctx, struct par *team), void *ctx,
                        struct err *e) {
    if (g->has_no_team) {
        *e = g->fault;
        return false;
    }
    uint32_t seen = bell_seen(&g->done);
    g->work = work;
    g->work_ctx = ctx;
    if (!g->has_thread && pthread_create(&g->thread, NULL, engine_thread, g)) {
        return err_set(e, ERR_MEMORY, "the system gives no thread for the engine");
    }
    g->has_thread = true;
    bell_ring(&g->asked);
    while (bell_seen(&g->done) == seen) bell_wait(&g->done, seen);
    if (!g->has_no_team) return true;
    *e = g->fault;
    return false;
}

static void end_thread(struct engine *g) {
    if (!g->has_thread) return;
    g->work = NULL;
    bell_ring(&g->asked);
    pthread_join(g->thread, NULL);
}

/* --- open, load, close --- */

MUST engine_open(struct engine **out, const struct engine_conf *c, struct err *e) {
    struct engine *g = calloc(1, sizeof *g);
    if (!g) return err_set(e, ERR_MEMORY, "no memory for the engine's bookkeeping");
    g->conf = *c;
    if (c->n_slice > 1 && !coll_local_open(&g->local, c->n_slice, e)) goto fail;
    for (unsigned i = 0; i < c->n_slice; i++) {
        struct slice_run *s = &g->slice[i];
        struct nn_conf nc;
        *s = (struct slice_run){.g = g, .index = i};
        coll_alone(&s->alone);
        struct coll *coll = g->local ? coll_local_at(g->local, i) : &s->alone;
        if (!engine_slice_conf(c, i, &nc, e) || !nn_open(&s->nn, &nc, coll, e)) goto fail;
        add_memory(&g->memory, nn_memory(s->nn));
    }
    bool streams = g->memory.disk_bytes > 0;
    struct slice_run *s = &g->slice[0];
    if (c->n_guess && !guesser_open(&s->guesser, c, streams, e)) goto fail;
    s->may_draft = c->n_guess && c->draft && !g->local && !g->memory.n_demand &&
                   g->memory.tiles.n_streamed > 0;
    *out = g;
    return true;
fail:
    engine_close(g);
    return false;
}

void engine_close(struct engine *g) {
    if (!g) return;
    end_thread(g);
    guesser_close(g->slice[0].guesser);
    for (unsigned i = 0; i < g->conf.n_slice; i++) nn_close(g->slice[i].nn);
    coll_local_close(g->local);
    free(g);
}

/* Progress of one slice's load as part of all. */
struct load_progress {
    store_progress *report;
    void *ctx;
    uint64_t before, total;
};

static bool on_load(void *ctx, uint64_t done, uint64_t total) {
    const struct load_progress *p = ctx;
    (void)total;
    return !p->report || p->report(p->ctx, p->before + done, p->total);
}

static uint64_t loaded_bytes(const struct slice_run *s) {
    const struct store_stats *t = &nn_memory(s->nn)->tiles;
    return t->pinned_bytes + t->cached_bytes;
}

MUST engine_load(struct engine *g, store_progress *progress, void *ctx, struct err *e) {
    struct load_progress p = {.report = progress, .ctx = ctx};
    for (unsigned i = 0; i < g->conf.n_slice; i++) {
        p.total += loaded_bytes(&g->slice[i]);
    }
    if (g->slice[0].guesser && !guesser_load(g->slice[0].guesser, e)) return false;
    for (unsigned i = 0; i < g->conf.n_slice; i++) {
        if (!nn_load(g->slice[i].nn, on_load, &p, e)) return false;
        p.before += loaded_bytes(&g->slice[i]);
    }
    return true;
}

void engine_stats(const struct engine *g, struct store_stats *sum) {
    *sum = (struct store_stats){.is_direct = true};
    for (unsigned i = 0; i < g->conf.n_slice; i++) {
        struct store_stats s;
        nn_stats(g->slice[i].nn, &s);
        sum->pinned_bytes += s.pinned_bytes;
        sum->streamed_bytes_per_sweep += s.streamed_bytes_per_sweep;
        sum->n_pinned += s.n_pinned;
        sum->n_streamed += s.n_streamed;
        sum->read_bytes += s.read_bytes;
        sum->read_ns += s.read_ns;
        sum->wait_ns += s.wait_ns;
        sum->cached_bytes += s.cached_bytes;
        sum->hits += s.hits;
        sum->misses += s.misses;
        sum->guessed += s.guessed;
        sum->used += s.used;
        sum->is_direct = sum->is_direct && s.is_direct;
    }
}

const struct nn_memory *engine_memory(const struct engine *g) {
    return &g->memory;
}

/* --- generating --- */

static bool is_stopped(const struct slice_run *s) {
    const struct gen_request *r = &s->g->req;
    return !s->index && r->stop && atomic_load(r->stop);
}

/* A sweep of a streaming model takes seconds: show it, and let it be stopped, layer by layer. Where the
 * engine is wanted again, only what takes many seconds is broken off. */
static bool on_layer(void *ctx, uint32_t done, uint32_t n_layer) {
    const struct slice_run *s = ctx;
    const struct gen_request *r = &s->g->req;
    bool is_short = s->n_reading <= s->g->conf.n_batch;
    if (s->n_reading && r->on_prefill) {
        uint64_t part = (uint64_t)s->n_reading * done / n_layer;
        r->on_prefill(r->ctx, s->n_read + (uint32_t)part, r->n_prompt);
    }
    return !is_stopped(s) || (r->goes_on && is_short);
}

/* The memory of a draft model that does not pay goes to weights that stream. Several slices, which use
 * their stores each in its own time, go on as before, and so does one that is given no memory. */
static void drop_draft(struct slice_run *s) {
    struct gen_result *out = s->g->result;
    uint64_t bytes = s->guesser ? guesser_drop(s->guesser) : 0;
    struct err e;
    if (!bytes) return;
    out->gave_up = true;
    if (s->g->local || !s->g->memory.tiles.n_streamed) return;
    uint64_t more;
    if (nn_grow(s->nn, bytes, &more, &e)) out->grown_bytes = more;
}

/* What the team does in the next step where it would wait for the disk. */
static void set_meanwhile(struct slice_run *s) {
    bool drafts = s->may_draft && guesser_goes_ahead(s->guesser);
    nn_meanwhile(s->nn, drafts ? guesser_go_ahead : NULL, s->guesser);
}

static MUST prefill(struct slice_run *s, struct par *team, struct err *e) {
    const struct gen_request *r = &s->g->req;
    const struct engine_conf *c = &s->g->conf;
    uint32_t most = c->n_sweep > c->n_batch ? c->n_sweep : c->n_batch;
    s->n_read = nn_pos(s->nn, 0);
    while (s->n_read < r->n_prompt) {
        if (is_stopped(s)) {
            s->g->result->end = GEN_STOPPED;
            return true;
        }
        uint32_t left = r->n_prompt - s->n_read, n = left < most ? left : most;
        s->n_reading = n;
        if (!nn_step(s->nn, team, 0, r->prompt + s->n_read, n, n == left ? NN_LOGITS : NN_NO_LOGITS,
                     e)) {
            return is_stopped(s) ? err_set(e, ERR_STOPPED, "stopped while reading the prompt")
                                 : false;
        }
        s->n_read += n;
        s->n_sure = s->n_read;
    }
    s->n_reading = 0;
    if (!s->guesser || guesser_read(s->guesser, team, e)) return true;
    if (!is_stopped(s)) return false;
    if (!r->goes_on) return err_set(e, ERR_STOPPED, "stopped while reading the prompt");
    s->g->result->end = GEN_STOPPED;  // only the draft lacks some of it, which it reads next time
    return true;
}

/* The token at place `n` of the answer, from the row of logits that foretells it. */
static MUST pick(struct slice_run *s, uint32_t row, uint32_t n, int32_t *id, struct err *e) {
    const struct gen_request *r = &s->g->req;
    uint32_t pos = r->n_prompt + n;
    nn_row(s->nn, row);
    if (!picker_begin(&s->picker, s->seen, r->n_prompt, pos, e)) return false;
    do {
        struct candidate *c;
        size_t n_c;
        if (!nn_wanted(s->nn, &s->picker.want, &c, &n_c, e)) return false;
        if (!picker_next(&s->picker, c, n_c, r->sequence, pos, id, e)) return false;
    } while (*id == PICK_MORE);
    s->seen[pos] = *id;
    return true;
}

/* The first slice decides when the user's wish ends the answer; the others then find it gone. */
static bool tell(struct slice_run *s, int32_t id) {
    const struct gen_request *r = &s->g->req;
    if (s->index) return true;
    bool go = !r->on_token || r->on_token(r->ctx, id);
    go = go && !is_stopped(s);
    if (!go) s->g->result->end = GEN_STOPPED;
    return go;
}

/* A step: the answer's newest token, and behind it what may follow. */
struct ahead {
    uint32_t n;  // guesses in the step
    int32_t token[SPEC_MOST + 1];
};

/* What may follow token n of the answer: guesses of the first slice, handed to the others, as what pays is known
 * by the clock. */
static MUST look_ahead(struct slice_run *s, struct par *team, uint32_t n, struct ahead *a,
                       struct err *e) {
    struct engine *g = s->g;
    uint32_t left = g->req.n_predict - n - 2;  // tokens wanted beyond the one of the step itself
    uint32_t most = left < g->conf.n_guess ? left : g->conf.n_guess;
    struct candidate box[SPEC_MOST + 1];
    a->n = 0;
    if (!g->conf.n_guess) return true;
    drop_draft(s);
    if (s->guesser && !guesser_guess(s->guesser, team, most, a->token + 1, &a->n, e)) return false;
    set_meanwhile(s);
    if (!g->local) return true;
    size_t at[SLICE_MAX + 1] = {0};
    for (unsigned i = 1; i <= g->conf.n_slice; i++) at[i] = sizeof box;
    box[0].id = (int32_t)a->n;
    for (uint32_t i = 1; i <= a->n; i++) box[i].id = a->token[i];
    struct coll *c = coll_local_at(g->local, s->index);
    if (!c->gather(c, COLL_CANDIDATE, box, sizeof box, 1, at, e)) return false;
    a->n = (uint32_t)box[0].id;
    for (uint32_t i = 1; i <= a->n; i++) a->token[i] = box[i].id;
    return true;
}

/* The step that foretells what follows token n of the answer. */
static MUST decode_step(struct slice_run *s, struct par *team, uint32_t n, const struct ahead *a,
                        struct err *e) {
    const struct gen_request *r = &s->g->req;
    struct gen_result *out = s->g->result;
    double t0 = clock_s();
    nn_truncate(s->nn, 0, r->n_prompt + n);
    if (!nn_step(s->nn, team, 0, a->token, a->n + 1, a->n + 1, e)) return false;
    if (s->guesser) guesser_took(s->guesser, a->n + 1, clock_s() - t0);
    if (s->index) return true;
    out->n_step++;
    out->n_guessed += a->n;
    return true;
}

/* Of each position the sampler's draw decides; while it agrees with the guess, the next row of the same
 * step foretells the next. */
static MUST decode(struct slice_run *s, struct par *team, struct err *e) {
    const struct gen_request *r = &s->g->req;
    struct gen_result *out = s->g->result;
    struct ahead a = {0};
    uint32_t row = 0;
    for (uint32_t n = 0; n < r->n_predict; n++) {
        int32_t id = -1;
        if (!pick(s, row, n, &id, e)) return false;
        s->n_sure = r->n_prompt + n;
        if (!s->index) out->n_drawn = n;
        if (s->guesser && id != PICK_END)
            guesser_push(s->guesser, id);  // the last one, too: was it foreseen?
        if (id == PICK_END || (r->is_end && r->is_end(r->ctx, id))) {
            if (!s->index) out->end = GEN_EOS;
            return true;
        }
        if (!s->index) out->n_token = n + 1;
        if (!tell(s, id)) return true;
        if (n + 1 == r->n_predict) break;
        if (row < a.n && a.token[row + 1] == id) {
            row++;
            continue;
        }
        row = 0;
        a.token[0] = id;
        bool has_looked = look_ahead(s, team, n, &a, e);
        if (!has_looked || !decode_step(s, team, n, &a, e)) {
            if (!is_stopped(s)) return false;
            /* Where the draft was stopped as it caught up, only it lacks some of the text. */
            if (has_looked || e->code != ERR_STOPPED) s->g->is_broken = true;
            out->end = GEN_STOPPED;
            return true;
        }
    }
    return true;
}

/* What the cache holds of the prompt stays; its last token is computed in any case, for the logits. */
static void go_on(struct slice_run *s) {
    const struct gen_request *r = &s->g->req;
    uint32_t held = nn_pos(s->nn, 0), keep = r->n_keep < held ? r->n_keep : held;
    if (keep > r->n_prompt - 1) keep = r->n_prompt - 1;
    nn_truncate(s->nn, 0, keep);
    if (!s->index) s->g->result->n_kept = keep;
    s->n_sure = keep;
}

static void generate(void *ctx, struct par *team) {
    struct slice_run *s = ctx;
    struct engine *g = s->g;
    struct gen_result *out = g->result;
    struct store_stats at_start = {0};
    double t0 = clock_s();
    if (!s->index) engine_stats(g, &at_start);
    go_on(s);
    picker_init(&s->picker, &g->req.sampler, s->run, g->conf.model->n_vocab);
    memcpy(s->seen, g->req.prompt, g->req.n_prompt * sizeof *s->seen);
    drop_draft(s);
    if (s->guesser) guesser_start(s->guesser, &g->req);
    set_meanwhile(s);
    if (!s->index) nn_watch(s->nn, on_layer, s);
    s->ok = prefill(s, team, &s->err);
    double t1 = clock_s();
    if (!s->index) engine_stats(g, &g->at_decode);
    bool is_over = !s->index && out->end == GEN_STOPPED;  // before it began
    s->ok = s->ok && (is_over || decode(s, team, &s->err));
    if (s->ok) nn_truncate(s->nn, 0, s->n_sure);  // guesses that nobody asked for
    if (!s->index) {
        struct store_stats now;
        engine_stats(g, &now);
        if (s->guesser) guesser_tell(s->guesser, out);
        out->prefill_s = t1 - t0;
        out->decode_s = clock_s() - t1;
        out->prompt_bytes = g->at_decode.read_bytes - at_start.read_bytes;
        out->streamed_bytes = now.read_bytes - g->at_decode.read_bytes;
        out->wait_ns = now.wait_ns - g->at_decode.wait_ns;
        out->expert_hits = now.hits - g->at_decode.hits;
        out->expert_misses = now.misses - g->at_decode.misses;
        out->expert_guesses = now.guessed - g->at_decode.guessed;
        out->expert_guesses_used = now.used - g->at_decode.used;
    }
    /* A slice that fails or is told to stop must not leave the others waiting for it. */
    bool stopped = !s->index && out->end == GEN_STOPPED;
    if (g->local && (!s->ok || stopped)) coll_local_leave(g->local);
}

static void *slice_thread(void *ctx) {
    struct slice_run *s = ctx;
    (void)pthread_setname_np(pthread_self(), "dair-engine");
    if (!par_enter(1, generate, s, &s->err)) s->ok = false;
    return NULL;
}

static MUST run_slices(struct engine *g, struct err *e) {
    pthread_t thread[SLICE_MAX];
    unsigned n = 0;
    for (; n < g->conf.n_slice; n++) {
        if (pthread_create(&thread[n], NULL, slice_thread, &g->slice[n])) {
            err_set(e, ERR_MEMORY, "the system gives no thread for slice %u", n);
            coll_local_leave(g->local);
            break;
        }
    }
    bool ok = n == g->conf.n_slice;
    for (unsigned i = 0; i < n; i++) pthread_join(thread[i], NULL);
    return ok;
}

/* Of several slices' failures the cause is the one that does not merely tell of another's end. */
static MUST judge(const struct engine *g, struct err *e) {
    if (g->result->end == GEN_STOPPED && g->slice[0].ok) return true;
    const struct slice_run *cause = NULL;
    for (unsigned i = 0; i < g->conf.n_slice; i++) {
        const struct slice_run *s = &g->slice[i];
        if (!s->ok && (!cause || cause->err.code == ERR_STOPPED)) cause = s;
    }
    if (!cause) return true;
    *e = cause->err;
    return false;
}

static void drop_notes(struct engine *g) {
    for (unsigned i = 0; i < g->conf.n_slice; i++) {
        free(g->slice[i].seen);
        grammar_run_close(g->slice[i].run);
        g->slice[i].seen = NULL;
        g->slice[i].run = NULL;
    }
}

/* What each slice writes down while it generates. */
static MUST take_notes(struct engine *g, struct err *e) {
    const struct gen_request *r = &g->req;
    size_t n = r->n_prompt + r->n_predict;
    bool ok = true;
    for (unsigned i = 0; ok && i < g->conf.n_slice; i++) {
        struct slice_run *s = &g->slice[i];
        s->seen = malloc(n * sizeof *s->seen);
        ok = s->seen != NULL || err_set(e, ERR_MEMORY, "no memory for %zu tokens", n);
        ok = ok && (!r->grammar || grammar_run_open(&s->run, r->grammar, r->lexicon, e));
    }
    if (!ok) drop_notes(g);
    return ok;
}

bool engine_is_spent(const struct engine *g) {
    return g->is_spent;
}

MUST engine_generate(struct engine *g, const struct gen_request *r, struct gen_result *out,
                     struct err *e) {
    if (g->is_spent) return err_set(e, ERR_STOPPED, "the engine was stopped in mid-answer");
    if (r->n_prompt < 1) return err_set(e, ERR_USAGE, "the prompt is empty");
    if (r->n_prompt >= g->conf.n_ctx) {
        return err_set(e, ERR_LIMIT,
                       "the prompt has %u tokens, but the context holds %u and must leave room for "
                       "an answer; shorten it or give a larger --ctx",
                       r->n_prompt, g->conf.n_ctx);
    }
    uint32_t room = g->conf.n_ctx - r->n_prompt;
    *out = (struct gen_result){.end = GEN_LENGTH};
    g->req = *r;
    if (r->n_predict > room) g->req.n_predict = room;
    g->result = out;
    if (!take_notes(g, e)) return false;
    bool ok = g->conf.n_slice > 1 ? run_slices(g, e) : run_on_team(g, generate, &g->slice[0], e);
    ok = ok && judge(g, e);
    drop_notes(g);
    g->is_spent = !ok || g->is_broken || (g->local && out->end == GEN_STOPPED);
    return ok;
}

/* --- scoring --- */

struct scoring {
    struct engine *g;
    const int32_t *token;
    uint32_t n_token, at, n_row;  // of a step: its place, and its rows of logits
    double *nll;
    store_progress *progress;
    void *ctx;
    struct err *e;
    bool ok;
};

/* In double arithmetic: a sum over a hundred thousand probabilities. */
static double nll_of(const float *logit, uint32_t n, int32_t id) {
    double max = -INFINITY, sum = 0;
    for (uint32_t i = 0; i < n; i++) max = (double)logit[i] > max ? (double)logit[i] : max;
    for (uint32_t i = 0; i < n; i++) sum += exp((double)logit[i] - max);
    // cppcheck-suppress invalidFunctionArg ; the largest alone adds 1
    return max + log(sum) - (double)logit[id];
}

static void score_rows(void *ctx, int thread, int n_thread) {
    const struct scoring *s = ctx;
    for (uint32_t i = (uint32_t)thread; i < s->n_row; i += (uint32_t)n_thread) {
        uint32_t first, n;
        const float *logit = nn_logits_at(s->g->slice[0].nn, i, &first, &n);
        s->nll[s->at + i] = nll_of(logit, n, s->token[s->at + i + 1]);
    }
}

static void score(void *ctx, struct par *team) {
    struct scoring *s = ctx;
    struct nn *nn = s->g->slice[0].nn;
    uint32_t most = s->g->conf.n_logit ? s->g->conf.n_logit : 1, n = s->n_token - 1;
    nn_truncate(nn, 0, 0);
    nn_watch(nn, NULL, NULL);
    for (s->at = 0; s->at < n && s->ok; s->at += s->n_row) {
        s->n_row = n - s->at < most ? n - s->at : most;
        s->ok = nn_step(nn, team, 0, s->token + s->at, s->n_row, s->n_row, s->e);
        if (!s->ok) return;
        par_run(team, score_rows, s);
        if (s->progress && !s->progress(s->ctx, s->at + s->n_row, n)) {
            s->ok = err_set(s->e, ERR_STOPPED, "stopped");
        }
    }
}

MUST engine_score(struct engine *g, const int32_t *token, uint32_t n_token, double *nll,
                  store_progress *progress, void *ctx, struct err *e) {
    struct scoring s = {.g = g,
                        .token = token,
                        .n_token = n_token,
                        .nll = nll,
                        .progress = progress,
                        .ctx = ctx,
                        .e = e,
                        .ok = true};
    assert(g->conf.n_slice == 1 && n_token >= 1 && n_token <= g->conf.n_ctx);
    return run_on_team(g, score, &s, e) && s.ok;
}
