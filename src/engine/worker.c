/* worker.c - see worker.h. Reads from the bottom up: the thread, an epoch, leading and following, one
 * step. */
#include "engine/worker.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/par.h"
#include "engine/choice.h"
#include "engine/figures.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    NO_CHOICE = -3,  // beside PICK_MORE and PICK_END
    PRODUCTS = 512,
    /* From so many tokens on a step takes far longer than that of one, which everybody waits for anyway: at
     * each of its places the leader says whether it is still wanted. */
    LONG_STEP = 32,
    JOIN_WAITS_S = 30,  // for the end of a step that makes a token, at least
};

/* What the leader tells the others: run these tokens at this place of this sequence. */
struct step {
    uint32_t seq, pos;
    uint32_t n_tok;                        // 0: nothing to run, more is wanted of the step before
    uint32_t k, n_id;                      // wanted of the last token (struct want); 0: no logits
    int32_t token[PLAN_SWEEP + WANT_IDS];  // [n_tok + n_id]: those to run, those asked for
};

struct worker {
    struct worker_conf conf;
    pthread_t thread;
    bool has_thread;
    struct par *team;

    pthread_mutex_t lock;  // of everything to the blank line
    pthread_cond_t changed;
    bool is_quitting;
    struct epoch *order;  // the next epoch, NULL: none
    uint64_t epoch;       // that seqs belong to; 0: not leading
    struct seqs seqs;
    uint32_t n_ctx, n_seq;
    struct product product[PRODUCTS];
    uint32_t n_made, n_taken;
    struct figures figures;
    const struct mesh *mesh;  // of the epoch at work, NULL: none; nn is there while it is

    _Atomic uint64_t moved_ns;  // when it last got on; 0: has nothing to do

    /* the thread's own */
    struct epoch *now;
    struct nn *nn;
    struct step step;
    struct want want;
    struct choice choice;
    bool is_leaders_fault;
    const struct seq *asked;  // whose step is under way, where we lead
    bool is_long;             // it is one to be asked about
    bool is_stopped;          // it was broken off, by all nodes at the same place
    uint64_t step_ns;         // when it began
    bool has_paused;          // the cluster knows that a node may join now
    struct err no_word;       // why nothing was agreed on; its code 0: nothing went wrong
};

static void moves(struct worker *w) {
    atomic_store_explicit(&w->moved_ns, clock_ns(), memory_order_relaxed);
}

static void rests(struct worker *w) {
    atomic_store_explicit(&w->moved_ns, 0, memory_order_relaxed);
}

/* In the epoch at work, from the disk; the lock is held. */
static uint64_t bytes_read(const struct worker *w) {
    struct store_stats disk = {0};
    if (w->mesh) nn_stats(w->nn, &disk);
    return disk.read_bytes;
}

bool worker_pulse(struct worker *w, uint64_t *pulse) {
    uint64_t at = atomic_load(&w->moved_ns);
    pthread_mutex_lock(&w->lock);
    *pulse = at + bytes_read(w) + (w->mesh ? mesh_pulse(w->mesh) : 0);
    pthread_mutex_unlock(&w->lock);
    return at != 0;
}

static bool is_over(struct worker *w) {
    return atomic_load_explicit(&w->now->is_over, memory_order_acquire);
}

/* --- one step --- */

/* Whether the user of the step under way still waits for it. */
static bool is_wanted(struct worker *w) {
    pthread_mutex_lock(&w->lock);
    bool is = !w->asked->is_cancelled;
    pthread_mutex_unlock(&w->lock);
    return is;
}

/* The leader's word to all others, in the step's flow: nobody enters the next layer whom the others leave
 * alone there. */
static MUST agree(struct worker *w, struct err *e) {
    uint8_t goes_on = 1;
    size_t len = 1;
    if (w->now->self == 0) {
        goes_on = is_wanted(w);
        if (!mesh_cast(w->now->mesh, &goes_on, len, e)) return false;
    } else if (!mesh_hear(w->now->mesh, &goes_on, sizeof goes_on, &len, e)) {
        return false;
    }
    w->is_stopped = !goes_on;
    return true;
}

bool worker_ends_step(uint64_t spent_ns, uint32_t done, uint32_t n_layer, uint32_t n_node) {
    if (!done) return true;  // how long it takes is not known yet
    uint64_t left_ns = spent_ns / done * (n_layer - done);
    return left_ns <= JOIN_WAITS_S * (uint64_t)1000000000 || done * (n_node + 1) > n_layer;
}

/* A node joins, and the next epoch reads every prompt anew: of the step under way only a token is
 * kept. */
static bool is_worth_its_end(const struct worker *w, uint32_t done, uint32_t n_layer) {
    bool has_token = w->step.k || w->step.n_id;
    uint64_t spent_ns = clock_ns() - w->step_ns;
    return has_token && worker_ends_step(spent_ns, done, n_layer, w->now->plan.n_node);
}

static void say_paused(struct worker *w) {
    if (!w->has_paused) w->conf.on_paused(w->conf.ctx, w->now->plan.epoch);
    w->has_paused = true;
}

static void see_joining(struct worker *w, uint32_t done, uint32_t n_layer) {
    if (w->now->self != 0 || !atomic_load(&w->now->is_pausing)) return;
    if (!is_worth_its_end(w, done, n_layer)) say_paused(w);
}

/* A streaming model's step takes seconds: an epoch that is over is left within a layer, and so is what nobody
 * waits for. */
static bool on_layer(void *ctx, uint32_t done, uint32_t n_layer) {
    struct worker *w = ctx;
    moves(w);
    if (is_over(w)) return false;
    see_joining(w, done, n_layer);
    return !w->is_long || (agree(w, &w->no_word) && !w->is_stopped);
}

/* Sent as it lies in memory; all our machines are little-endian. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "steps and candidates are little-endian");

/* The step's tokens through the layers, or w->is_stopped. */
static MUST run_tokens(struct worker *w, const struct step *s, uint32_t n_logit, struct err *e) {
    w->is_long = s->n_tok >= LONG_STEP;
    w->is_stopped = false;
    w->step_ns = clock_ns();
    w->no_word = (struct err){0};
    nn_truncate(w->nn, s->seq, s->pos);
    bool ok = nn_step(w->nn, w->team, s->seq, s->token, s->n_tok, n_logit, e);
    w->is_long = false;
    if (ok) return true;
    if (w->is_stopped) return nn_pass(w->nn, e);
    if (w->no_word.code) *e = w->no_word;
    return false;
}

static MUST run_step(struct worker *w, const struct step *s, struct candidate **c, size_t *n,
                     struct err *e) {
    bool wants = s->k || s->n_id;
    moves(w);
    if (s->n_tok && !run_tokens(w, s, wants ? NN_LOGITS : NN_NO_LOGITS, e)) return false;
    if (!wants || w->is_stopped) return true;
    w->want.k = s->k;
    w->want.n_id = s->n_id;
    memcpy(w->want.id, s->token + s->n_tok, s->n_id * sizeof w->want.id[0]);
    return nn_wanted(w->nn, &w->want, c, n, e);
}

static size_t step_bytes(const struct step *s) {
    return offsetof(struct step, token) + (s->n_tok + (size_t)s->n_id) * sizeof s->token[0];
}

/* --- following --- */

/* The leader holds the key like all of us, but a mistake of its must not become a crash of ours. */
static MUST check_step(struct worker *w, const struct step *s, size_t len, struct err *e) {
    const struct plan *p = &w->now->plan;
    uint32_t n_vocab = w->conf.model->n_vocab;
    bool ok = len >= offsetof(struct step, token) && s->n_tok <= p->n_sweep &&
              s->n_id <= WANT_IDS && len == step_bytes(s) && s->seq < p->n_seq &&
              s->pos <= nn_pos(w->nn, s->seq) && s->n_tok <= p->n_ctx - s->pos && s->k <= n_vocab &&
              (s->n_tok || s->k || s->n_id);
    for (uint32_t i = 0; ok && i < s->n_tok + s->n_id; i++) {
        bool is_first = i == 0 || i == s->n_tok;
        ok = s->token[i] >= 0 && (uint32_t)s->token[i] < n_vocab &&
             (i < s->n_tok || is_first || s->token[i] > s->token[i - 1]);
    }
    return ok || err_set(e, ERR_FORMAT, "the leader asked for a step that cannot be");
}

/* Who waits for the leader's word does not rest: the mesh's pulse goes on, so that a thread that hangs
 * here is seen as well. */
static MUST follow(struct worker *w, struct err *e) {
    while (!is_over(w)) {
        size_t len, n;
        struct candidate *c;
        moves(w);
        if (!mesh_hear(w->now->mesh, &w->step, sizeof w->step, &len, e)) return false;
        if (!check_step(w, &w->step, len, e)) {
            w->is_leaders_fault = true;
            return false;
        }
        if (!run_step(w, &w->step, &c, &n, e)) return false;
    }
    return true;
}

/* --- leading --- */

static void produce(struct worker *w, const struct product *p) {
    pthread_mutex_lock(&w->lock);
    while (w->n_made - w->n_taken == PRODUCTS && !is_over(w)) {
        pthread_cond_wait(&w->changed, &w->lock);
    }
    if (w->n_made - w->n_taken < PRODUCTS) w->product[w->n_made++ % PRODUCTS] = *p;
    pthread_mutex_unlock(&w->lock);
    w->conf.on_product(w->conf.ctx);
}

bool worker_take(struct worker *w, struct product *out) {
    pthread_mutex_lock(&w->lock);
    bool has = w->n_made != w->n_taken;
    if (has) *out = w->product[w->n_taken++ % PRODUCTS];
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->lock);
    return has;
}

static void end_seq(struct worker *w, struct seq *q, enum done_why why, const char *text) {
    struct product p = {.epoch = w->now->plan.epoch,
                        .ticket = q->ticket,
                        .front = q->front,
                        .is_end = true,
                        .why = why};
    snprintf(p.text, sizeof p.text, "%.*s", (int)sizeof p.text - 1, text);
    pthread_mutex_lock(&w->lock);
    seqs_drop(&w->seqs, q);
    pthread_mutex_unlock(&w->lock);
    produce(w, &p);
}

static void begin_figures(struct worker *w) {
    pthread_mutex_lock(&w->lock);
    figures_start(&w->figures, w->nn, w->now->mesh);
    pthread_mutex_unlock(&w->lock);
}

static void count_token(struct worker *w, double seconds) {
    uint32_t n_thread = w->conf.n_decode ? w->conf.n_decode : w->conf.n_thread;
    pthread_mutex_lock(&w->lock);
    figures_token(&w->figures, w->nn, w->now->mesh, seconds, n_thread);
    pthread_mutex_unlock(&w->lock);
}

static void take_token(struct worker *w, struct seq *q, int32_t id) {
    if (tok_is_end(w->conf.tok, id)) {
        end_seq(w, q, DONE_END, "");
        return;
    }
    struct product p = {.epoch = w->now->plan.epoch,
                        .ticket = q->ticket,
                        .front = q->front,
                        .at = q->n_id - q->n_prompt,
                        .id = id};
    q->id[q->n_id++] = id;
    produce(w, &p);
    if (q->n_id - q->n_prompt >= q->n_predict) end_seq(w, q, DONE_LENGTH, "");
}

static MUST cast_step(struct worker *w, struct candidate **c, size_t *n, struct err *e) {
    const struct step *s = &w->step;
    *n = 0;
    return mesh_cast(w->now->mesh, s, step_bytes(s), e) && run_step(w, s, c, n, e);
}

static void put_want(struct step *s, const struct want *want) {
    s->k = want->k;
    s->n_id = want->n_id;
    memcpy(s->token + s->n_tok, want->id, want->n_id * sizeof want->id[0]);
}

/* The next token of q from the candidates of the step just done, or from more of them. e then says why
 * this sequence cannot go on; false: the epoch cannot. */
static MUST choose(struct worker *w, const struct seq *q, struct candidate *c, size_t n,
                   int32_t *id, struct err *why, struct err *e) {
    for (;;) {
        if (!picker_next(&w->choice.picker, c, n, q->sequence, q->n_fed, id, why)) {
            *id = NO_CHOICE;
            return true;
        }
        if (*id != PICK_MORE) return true;
        w->step.n_tok = 0;
        put_want(&w->step, &w->choice.picker.want);
        if (!cast_step(w, &c, &n, e)) return false;
    }
}

/* Of a step of q's: nobody's answer pauses while another's whole prompt is read. */
static uint32_t most_tokens(struct worker *w, const struct seq *q) {
    const struct plan *p = &w->now->plan;
    pthread_mutex_lock(&w->lock);
    bool is_shared = seqs_decodes(&w->seqs, q);
    pthread_mutex_unlock(&w->lock);
    return is_shared ? p->n_batch : p->n_sweep;
}

static MUST lead_step(struct worker *w, struct seq *q, struct err *e) {
    struct step *s = &w->step;
    struct candidate *c = NULL;
    size_t n;
    if (q->n_id - q->n_prompt >= q->n_predict) {
        end_seq(w, q, DONE_LENGTH, "");
        return true;
    }
    uint32_t left = q->n_id - q->n_fed, most = most_tokens(w, q);
    s->seq = (uint32_t)q->slot;
    s->pos = q->n_fed;
    s->n_tok = left < most ? left : most;
    s->k = s->n_id = 0;
    memcpy(s->token, q->id + q->n_fed, s->n_tok * sizeof s->token[0]);
    bool is_last = s->n_tok == left;
    struct err why;
    if (is_last) {
        if (!choice_begin(&w->choice, &w->seqs, q, &why)) {
            end_seq(w, q, choice_refused(&why), why.text);
            return true;
        }
        put_want(s, &w->choice.picker.want);
    }
    double start = clock_s();
    begin_figures(w);
    w->asked = q;
    if (!cast_step(w, &c, &n, e)) return false;
    if (w->is_stopped) return true;  // it is gone when the next one is looked for
    q->n_fed += s->n_tok;
    if (!is_last) return true;
    bool is_decode = s->n_tok == 1;
    int32_t id;
    if (!choose(w, q, c, n, &id, &why, e)) return false;
    if (id == PICK_END) {
        end_seq(w, q, DONE_END, "");
        return true;
    }
    if (id == NO_CHOICE) {
        log_error("engine", "%s", why.text);
        end_seq(w, q, DONE_FAILED, why.text);
        return true;
    }
    if (is_decode) count_token(w, clock_s() - start);
    take_token(w, q, id);
    return true;
}

/* The next sequence to compute; sleeps while there is none. NULL: the epoch is over. */
static struct seq *next_seq(struct worker *w) {
    struct seq *q = NULL;
    rests(w);
    pthread_mutex_lock(&w->lock);
    while (!is_over(w)) {
        if (atomic_load(&w->now->is_pausing)) {
            say_paused(w);
            pthread_cond_wait(&w->changed, &w->lock);
            continue;
        }
        q = seqs_next(&w->seqs);
        if (q) break;
        pthread_cond_wait(&w->changed, &w->lock);
    }
    pthread_mutex_unlock(&w->lock);
    return is_over(w) ? NULL : q;
}

static MUST lead(struct worker *w, struct err *e) {
    struct seq *q;
    while ((q = next_seq(w)) != NULL) {
        if (!lead_step(w, q, e)) return false;
    }
    return true;
}

/* --- an epoch --- */

static MUST open_nn(struct worker *w, struct err *e) {
    const struct plan *p = &w->now->plan;
    struct nn_conf c = {
        .model = w->conf.model,
        .kernels = w->conf.kernels,
        .self = w->now->self,
        .n_slice = p->n_node,
        .n_ctx = p->n_ctx,
        .n_batch = p->n_batch,
        .n_sweep = p->n_sweep,
        .n_seq = p->n_seq,
        .kv = (enum kv_type)p->kv,
        .wire = (enum wire_type)p->wire,
        .budget = w->conf.pool,
        .n_reader = w->conf.n_reader,
        .n_thread = w->conf.n_thread,
        .n_decode = w->conf.n_decode,
    };
    struct nn_memory m;
    return plan_cuts(p, w->conf.model, &c.cuts, e) && nn_choose_slots(&c, w->conf.n_slot, &m, e) &&
           nn_open(&w->nn, &c, mesh_coll(w->now->mesh), e);
}

static void start_leading(struct worker *w) {
    const struct plan *p = &w->now->plan;
    pthread_mutex_lock(&w->lock);
    seqs_open(&w->seqs, p->n_seq, p->safe_seq, w->conf.asks);
    w->n_ctx = p->n_ctx;
    w->n_seq = p->n_seq;
    w->epoch = w->now->self == 0 ? p->epoch : 0;
    pthread_mutex_unlock(&w->lock);
}

static void stop_leading(struct worker *w) {
    pthread_mutex_lock(&w->lock);
    w->epoch = 0;
    seqs_close(&w->seqs);
    figures_end(&w->figures, w->now->mesh, bytes_read(w));
    w->mesh = NULL;
    pthread_mutex_unlock(&w->lock);
}

/* A newer plan does not wait for the end of a load. */
static bool on_load(void *ctx, uint64_t done, uint64_t total) {
    struct worker *w = ctx;
    (void)total;
    moves(w);
    w->conf.on_loading(w->conf.ctx, done);
    return !is_over(w);
}

static MUST load(struct worker *w, struct err *e) {
    if (!open_nn(w, e)) return false;
    nn_watch(w->nn, on_layer, w);
    if (!nn_load(w->nn, on_load, w, e)) return false;
    rests(w);
    return mesh_wait(w->now->mesh, e);
}

/* Whoever has its weights says so before it waits for the others: a slow one must not make all look so. */
static MUST run_steps(struct worker *w, struct err *e) {
    w->conf.on_loaded(w->conf.ctx, w->now->plan.epoch, nn_memory(w->nn));
    return mesh_greet(w->now->mesh, e) && (w->now->self == 0 ? lead(w, e) : follow(w, e));
}

static void run_epoch(struct worker *w) {
    struct err e = {0};
    start_leading(w);
    w->is_leaders_fault = w->has_paused = false;
    moves(w);
    bool ok = load(w, &e);
    if (ok) {
        pthread_mutex_lock(&w->lock);
        w->mesh = w->now->mesh;
        pthread_mutex_unlock(&w->lock);
        ok = run_steps(w, &e);
    }
    int suspect = w->is_leaders_fault ? 0 : mesh_suspect(w->now->mesh);
    /* A mesh that fails took its reason from a peer; ours are disk and memory. */
    if (!ok && !is_over(w) && (suspect >= 0 || e.code != ERR_STOPPED)) {
        w->conf.on_broke(w->conf.ctx, w->now->plan.epoch, suspect, e.text);
    }
    stop_leading(w);
    nn_close(w->nn);
    w->nn = NULL;
    rests(w);
}

/* --- the thread --- */

static struct epoch *next_epoch(struct worker *w) {
    pthread_mutex_lock(&w->lock);
    while (!w->order && !w->is_quitting) pthread_cond_wait(&w->changed, &w->lock);
    struct epoch *e = w->is_quitting ? NULL : w->order;
    if (e) w->order = NULL;
    pthread_mutex_unlock(&w->lock);
    return e;
}

static void work(void *ctx, struct par *team) {
    struct worker *w = ctx;
    w->team = team;
    par_pin(team, &w->conf.places);
    while ((w->now = next_epoch(w)) != NULL) {
        if (!is_over(w)) run_epoch(w);
        epoch_release(w->now);
    }
}

static void *worker_thread(void *ctx) {
    struct worker *w = ctx;
    struct err e = {0};
    (void)pthread_setname_np(pthread_self(), "dair-engine");
    if (!par_enter((int)w->conf.n_thread, work, w, &e)) log_error("engine", "%s", e.text);
    return NULL;
}

MUST worker_open(struct worker **out, const struct worker_conf *c, struct err *e) {
    struct worker *w = calloc(1, sizeof *w);
    if (!w) return err_set(e, ERR_MEMORY, "no memory for the engine's bookkeeping");
    w->conf = *c;
    w->choice =
        (struct choice){.tok = c->tok, .n_vocab = c->model->n_vocab, .grammars = c->grammars};
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->changed, NULL);
    seqs_open(&w->seqs, 1, 1, 0);
    if (pthread_create(&w->thread, NULL, worker_thread, w)) {
        worker_close(w);
        return err_set(e, ERR_MEMORY, "the system gives no thread for the engine");
    }
    w->has_thread = true;
    *out = w;
    return true;
}

void worker_close(struct worker *w) {
    if (!w) return;
    pthread_mutex_lock(&w->lock);
    w->is_quitting = true;
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->lock);
    if (w->has_thread) pthread_join(w->thread, NULL);
    epoch_release(w->order);
    choice_close(&w->choice);
    seqs_close(&w->seqs);
    pthread_mutex_destroy(&w->lock);
    pthread_cond_destroy(&w->changed);
    free(w);
}

void worker_epoch(struct worker *w, struct epoch *e) {
    pthread_mutex_lock(&w->lock);
    struct epoch *unseen = w->order;
    w->order = e;
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->lock);
    epoch_release(unseen);
}

void worker_notify(struct worker *w) {
    pthread_mutex_lock(&w->lock);
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->lock);
}

MUST worker_ask(struct worker *w, uint64_t epoch, const struct node_id *front, const struct ask *a,
                struct err *e) {
    pthread_mutex_lock(&w->lock);
    bool ok = w->epoch == epoch
                  ? seqs_add(&w->seqs, front, a, w->n_ctx, w->conf.model->n_vocab, clock_ns(), e)
                  : err_set(e, ERR_STOPPED, "another epoch");
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->lock);
    return ok;
}

void worker_cancel(struct worker *w, const struct node_id *front, uint64_t ticket) {
    pthread_mutex_lock(&w->lock);
    seqs_cancel(&w->seqs, front, ticket);
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->lock);
}

void worker_figures(struct worker *w, struct worker_figures *out) {
    const struct figures *f = &w->figures;
    pthread_mutex_lock(&w->lock);
    *out = (struct worker_figures){.is_leading = w->epoch != 0,
                                   .n_seq = w->n_seq,
                                   .tokens = f->tokens,
                                   .tokens_per_s = figures_rate(f),
                                   .compute_ms = f->compute_ms,
                                   .disk_ms = f->disk_ms,
                                   .network_ms = f->network_ms,
                                   .net = figures_net(f, w->mesh),
                                   .read_bytes = f->read_before + bytes_read(w)};
    seqs_count(&w->seqs, &out->running, &out->waiting);
    pthread_mutex_unlock(&w->lock);
}
