/* node.c - a node's threads, and the way between cluster and worker. The requests that were made here are
 * in node_asks.c. */
#include "engine/node_own.h"

#include "base/clock.h"
#include "base/text.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

/* --- the cluster's thread --- */

_Static_assert(sizeof((struct product *)0)->text == ERR_TEXT &&
                   sizeof((struct msg *)0)->u.done.text == ERR_TEXT,
               "the reason of an end comes to its user as long as it was");

static void send_product(struct node *n, const struct product *p) {
    struct msg m = {.epoch = p->epoch};
    if (p->is_end) {
        m.type = MSG_DONE;
        m.u.done.ticket = p->ticket;
        m.u.done.why = p->why;
        snprintf(m.u.done.text, sizeof m.u.done.text, "%s", p->text);
    } else {
        m.type = MSG_TOKENS;
        m.u.tokens = (struct tokens){.ticket = p->ticket, .at = p->at, .n = 1, .id = &p->id};
    }
    /* A front that is gone asks anew should it come back. */
    if (!cluster_send(n->cluster, &p->front, &m)) worker_cancel(n->worker, &p->front, p->ticket);
}

static const uint64_t SECOND_NS = 1000000000;

/* The beats come from another thread and would tell nothing of the engine. */
static void watch(struct node *n) {
    uint64_t pulse = 0, epoch = cluster_epoch(n->cluster);
    bool is_at_work = n->worker && epoch && worker_pulse(n->worker, &pulse);
    if (!watch_is_stuck(&n->watch, is_at_work, pulse, clock_ns())) return;
    cluster_stuck(n->cluster, epoch,
                  "its disk or its engine has not moved for 20 s; see to the disk and "
                  "start it again");
}

static void on_wake(void *ctx) {
    struct node *n = ctx;
    struct product p;
    if (!n->cluster) return;  // still opening
    watch(n);
    while (n->worker && worker_take(n->worker, &p)) send_product(n, &p);
    node_asks_turn(n);
}

static struct work work_of(const struct worker_figures *f) {
    return (struct work){.running = (uint16_t)f->running,
                         .waiting = (uint16_t)f->waiting,
                         .slots = (uint16_t)f->n_seq,
                         .tokens_per_s = f->tokens_per_s,
                         .compute_ms = f->compute_ms,
                         .disk_ms = f->disk_ms,
                         .network_ms = f->network_ms};
}

/* The disk is asked while there is work, so what it gave in a second is its speed then. */
static void see_disk(struct node *n, uint64_t read, uint64_t now) {
    uint64_t ns = now - n->read_ns;
    if (ns < SECOND_NS) return;
    n->disk_bps = n->read_ns ? (double)(read - n->read) * 1e9 / (double)ns : 0;
    n->read = read;
    n->read_ns = now;
}

static void on_beat(void *ctx, struct beat *b) {
    struct node *n = ctx;
    struct worker_figures f = {0};
    if (n->worker) worker_figures(n->worker, &f);
    if (f.is_leading) b->work = work_of(&f);
    pthread_mutex_lock(&n->lock);
    see_disk(n, f.read_bytes, clock_ns());
    b->disk_bps = n->disk_bps;
    b->temperature_c = n->temperature_c;
    pthread_mutex_unlock(&n->lock);
}

static void on_epoch(void *ctx, struct epoch *e) {
    struct node *n = ctx;
    if (n->worker)
        worker_epoch(n->worker, e);
    else
        epoch_release(e);
    pthread_mutex_lock(&n->lock);
    const struct plan *p = &e->plan;
    n->wire_bytes = plan_wire_bytes(p, n->conf.model, e->self);
    n->plan.n_node = p->n_node;
    n->plan.n_ctx = p->n_ctx;
    n->plan.n_sweep = p->n_sweep;
    n->plan.safe_seq = p->safe_seq;
    n->plan.safe_ctx = p->safe_ctx;
    n->plan.is_told = false;
    pthread_mutex_unlock(&n->lock);
}

static void on_change(void *ctx) {
    struct node *n = ctx;
    if (n->worker) worker_notify(n->worker);
    if (!n->cluster) return;
    unsigned n_serving = cluster_serving(n->cluster);
    pthread_mutex_lock(&n->lock);
    n->n_serving = n_serving;
    pthread_cond_broadcast(&n->changed);
    pthread_mutex_unlock(&n->lock);
    cluster_wake(n->cluster);
}

static MUST take_ask(struct node *n, const struct node_id *from, const struct msg *m,
                     struct err *e) {
    if (cluster_has_other_model(n->cluster, from)) {
        return err_set(e, ERR_UNSUPPORTED,
                       "the node that leads has another model than the one asked");
    }
    return worker_ask(n->worker, m->epoch, from, &m->u.ask, e);
}

static void on_ask(struct node *n, const struct node_id *from, const struct msg *m) {
    struct err e = {0};
    if (!n->worker || take_ask(n, from, m, &e)) return;
    /* Another epoch: its front will hear of ours and ask again. */
    if (e.code == ERR_STOPPED) return;
    bool is_busy = e.code == ERR_LIMIT || e.code == ERR_MEMORY;
    struct msg done = {.type = MSG_DONE, .epoch = m->epoch};
    done.u.done.ticket = m->u.ask.ticket;
    done.u.done.why = is_busy ? DONE_REFUSED : e.code == ERR_USAGE ? DONE_NO_ROOM : DONE_IMPOSSIBLE;
    snprintf(done.u.done.text, sizeof done.u.done.text, "%.*s", (int)sizeof done.u.done.text - 1,
             e.text);
    (void)cluster_send(n->cluster, from, &done);
}

static void on_message(void *ctx, const struct node_id *from, const struct msg *m) {
    struct node *n = ctx;
    switch (m->type) {
    case MSG_ASK: on_ask(n, from, m); break;
    case MSG_TOKENS: node_asks_tokens(n, from, m); break;
    case MSG_DONE: node_asks_done(n, from, m); break;
    case MSG_CANCEL:
        if (n->worker) worker_cancel(n->worker, from, m->u.ticket);
        break;
    default: break;  // membership's: never handed to us
    }
}

/* --- the worker's thread --- */

/* The leader waits for who makes progress. */
static void on_loading(void *ctx, uint64_t done) {
    const struct node *n = ctx;
    cluster_measured(n->cluster, done, 0);
}

static void on_loaded(void *ctx, uint64_t epoch, const struct nn_memory *m) {
    struct node *n = ctx;
    pthread_mutex_lock(&n->lock);
    n->memory = *m;
    pthread_mutex_unlock(&n->lock);
    cluster_measured(n->cluster, m->tiles.pinned_bytes + m->tiles.cached_bytes, m->disk_bytes);
    cluster_loaded(n->cluster, epoch);
}

static void on_broke(void *ctx, uint64_t epoch, int suspect, const char *why) {
    const struct node *n = ctx;
    cluster_broke(n->cluster, epoch, suspect, why);
}

static void on_paused(void *ctx, uint64_t epoch) {
    const struct node *n = ctx;
    cluster_paused(n->cluster, epoch);
}

static void on_product(void *ctx) {
    const struct node *n = ctx;
    cluster_wake(n->cluster);
}

/* --- opening and closing --- */

static struct facts facts_of(const struct node_conf *c) {
    struct utsname u;
    struct facts f = {.contract = CONTRACT_VERSION,
                      .model = c->model ? c->model->fingerprint : 0,
                      .ram_bytes = c->ram,
                      .budget_bytes = c->budget,
                      .pool_bytes = c->pool,
                      .speed = c->speed,
                      .disk_bps = c->disk_bps,
                      .share = c->share,
                      .n_thread = c->n_thread,
                      .n_ctx = c->model ? c->n_ctx : 0,
                      .n_seq = c->model ? c->n_seq : 0,
                      .http_port = c->http_port,
                      .kv = (uint8_t)c->kv,
                      .wire = (uint8_t)c->wire,
                      .is_guest = c->is_guest};
    memcpy(f.name, c->ident->name, sizeof f.name);
    snprintf(f.version, sizeof f.version, "%s", DAIR_VERSION);
    snprintf(f.arch, sizeof f.arch, "%.15s", uname(&u) ? "" : u.machine);
    snprintf(f.board, sizeof f.board, "%.*s", (int)sizeof f.board - 1, c->board);
    if (c->model) text_printable(f.model_name, sizeof f.model_name, c->model->name);
    return f;
}

static MUST open_worker(struct node *n, struct err *e) {
    const struct node_conf *c = &n->conf;
    const struct worker_conf wc = {.model = c->model,
                                   .kernels = c->kernels,
                                   .tok = c->tok,
                                   .pool = c->pool,
                                   .grammars = c->grammars,
                                   .asks = c->asks,
                                   .n_thread = c->n_thread,
                                   .n_decode = c->n_decode,
                                   .places = c->places,
                                   .n_reader = c->n_reader,
                                   .n_slot = c->n_slot,
                                   .on_loading = on_loading,
                                   .on_loaded = on_loaded,
                                   .on_paused = on_paused,
                                   .on_broke = on_broke,
                                   .on_product = on_product,
                                   .ctx = n};
    return !c->model || worker_open(&n->worker, &wc, e);
}

static MUST open_cluster(struct node *n, struct err *e) {
    const struct node_conf *c = &n->conf;
    struct cluster_conf cc = {.ident = c->ident,
                              .keys = &n->keys,
                              .facts = facts_of(c),
                              .interface = c->interface,
                              .n_peer = c->n_peer,
                              .is_discovered = c->is_discovered,
                              .cluster_port = c->cluster_port,
                              .ollama_port = c->ollama_port,
                              .n_handshake = c->n_handshake,
                              .model = c->model,
                              .kernels = c->kernels,
                              .wish = {.model = c->model ? c->model->fingerprint : 0,
                                       .n_ctx = c->n_ctx,
                                       .n_batch = c->n_batch < PLAN_BATCH ? c->n_batch : PLAN_BATCH,
                                       .n_sweep = c->n_ctx < PLAN_SWEEP ? c->n_ctx : PLAN_SWEEP,
                                       .n_seq = c->n_seq,
                                       .kv = (uint8_t)c->kv,
                                       .wire = (uint8_t)c->wire,
                                       .is_even = c->is_even},
                              .events = {.on_epoch = on_epoch,
                                         .on_change = on_change,
                                         .on_message = on_message,
                                         .on_beat = on_beat,
                                         .on_wake = on_wake,
                                         .ctx = n}};
    memcpy(cc.peer, c->peer, sizeof cc.peer);
    return cluster_open(&n->cluster, &cc, e) && cluster_start(n->cluster, e);
}

MUST node_open(struct node **out, const struct node_conf *c, struct err *e) {
    struct node *n = calloc(1, sizeof *n);
    if (!n) return err_set(e, ERR_MEMORY, "no memory for the node's bookkeeping");
    n->conf = *c;
    n->temperature_c = NAN;
    n->keys = c->keys;
    n->asks.last_ticket = c->ident->instance;
    pthread_mutex_init(&n->lock, NULL);
    pthread_cond_init(&n->changed, NULL);
    if (!chan_init(e) || !open_worker(n, e) || !open_cluster(n, e)) {
        node_close(n);
        return false;
    }
    *out = n;
    return true;
}

static void wait_until(struct node *n, uint64_t deadline_ns) {
    uint64_t now = clock_ns(), left = deadline_ns > now ? deadline_ns - now : 0;
    if (left > 50000000) left = 50000000;  // states also change without a signal
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    t.tv_nsec += (long)left;
    if (t.tv_nsec >= 1000000000) t.tv_nsec -= 1000000000, t.tv_sec++;
    pthread_cond_timedwait(&n->changed, &n->lock, &t);
}

void node_drain(struct node *n, unsigned ms) {
    uint64_t deadline = clock_ns() + ms * (uint64_t)1000000;
    pthread_mutex_lock(&n->lock);
    n->is_draining = true;
    while (asks_count(&n->asks) && clock_ns() < deadline) wait_until(n, deadline);
    pthread_mutex_unlock(&n->lock);
    cluster_leave(n->cluster);
}

void node_close(struct node *n) {
    if (!n) return;
    /* The worker may speak to the cluster until it has ended. */
    cluster_stop(n->cluster);
    worker_close(n->worker);
    cluster_close(n->cluster);
    node_asks_close(n);
    pthread_mutex_destroy(&n->lock);
    pthread_cond_destroy(&n->changed);
    free(n);
}

MUST node_wait(struct node *n, unsigned n_node, unsigned ms, struct err *e) {
    uint64_t deadline = clock_ns() + ms * (uint64_t)1000000;
    struct status *s = malloc(sizeof *s);
    if (!s) return err_set(e, ERR_MEMORY, "no memory for a status");
    bool is_failed = false, is_serving = false;
    for (;;) {
        cluster_status(n->cluster, s);
        pthread_mutex_lock(&n->lock);
        is_serving = n->n_serving >= n_node;
        is_failed = s->state == STATE_FAILED;
        bool is_late = clock_ns() >= deadline;
        if (!is_serving && !is_failed && !is_late) wait_until(n, deadline);
        pthread_mutex_unlock(&n->lock);
        if (is_serving || is_failed || is_late) break;
    }
    if (is_failed) err_set(e, ERR_MEMORY, "%s", s->why);
    if (!is_failed && !is_serving) {
        err_set(e, ERR_STOPPED, "no cluster of %u nodes after %u s%s%s", n_node, ms / 1000,
                *s->why ? ": " : "", s->why);
    }
    free(s);
    return is_serving;
}

void node_temperature(struct node *n, double celsius) {
    pthread_mutex_lock(&n->lock);
    n->temperature_c = celsius;
    pthread_mutex_unlock(&n->lock);
}

/* --- status --- */

static void show_model(const struct node *n, struct status *s) {
    const struct model *m = n->conf.model;
    if (!m) return;
    text_printable(s->model.name, sizeof s->model.name, m->name);
    text_printable(s->model.file, sizeof s->model.file, text_name(n->conf.model_file));
    snprintf(s->model.fingerprint, sizeof s->model.fingerprint, "%016llx",
             (unsigned long long)m->fingerprint);
    s->model.bytes = m->data_len;
    s->model.layers = m->n_layer;
    s->model.context = n->conf.n_ctx;
}

static void show_net(struct status *s, const struct mesh_stats *m) {
    s->net.sent_payload = m->sent_payload;
    s->net.sent_wire = m->sent_wire;
    s->net.received_payload = m->received_payload;
    s->net.received_wire = m->received_wire;
    s->net.crypt_ns = m->crypt_ns;
    s->net.gathers = m->n_gather;
}

/* The leader's, whoever that is. */
static void show_work(struct status *s, const struct work *w) {
    s->load.running = w->running;
    s->load.waiting = w->waiting;
    s->load.slots = w->slots;
    s->load.tokens_per_second = s->plan.measured_tps = w->tokens_per_s;
    s->load.accepted_per_step = 1;
    s->time_ms.compute = w->compute_ms;
    s->time_ms.disk = w->disk_ms;
    s->time_ms.network = w->network_ms;
    snprintf(s->plan.kind, sizeof s->plan.kind, "tensor");
    bool is_known = w->compute_ms + w->disk_ms + w->network_ms > 0;
    const char *limit = w->disk_ms > w->compute_ms && w->disk_ms > w->network_ms ? "disk"
                        : w->network_ms > w->compute_ms                          ? "network"
                                                                                 : "compute";
    snprintf(s->plan.limited_by, sizeof s->plan.limited_by, "%s", is_known ? limit : "");
}

/* Our own requests that the leader's figures do not have: those that it has not yet told of are taken to run
 * where places are free, the others wait here. */
static void show_asks(const struct node *n, struct status *s) {
    unsigned handed = asks_handed(&n->asks), told = s->load.running + s->load.waiting;
    unsigned more = handed > told ? handed - told : 0;
    unsigned room = s->load.slots > s->load.running ? s->load.slots - s->load.running : 0;
    unsigned run = more < room ? more : room;
    s->load.running += run;
    s->load.waiting += more - run + asks_count(&n->asks) - handed;
}

void node_status(struct node *n, struct status *s) {
    struct worker_figures f = {0};
    struct work w;
    cluster_status(n->cluster, s);
    show_model(n, s);
    if (n->worker) worker_figures(n->worker, &f);
    if (!cluster_work(n->cluster, &w)) w = f.is_leading ? work_of(&f) : (struct work){0};
    show_work(s, &w);
    show_net(s, &f.net);
    s->load.tokens = f.tokens;
    s->load.read_bytes = f.read_bytes;
    pthread_mutex_lock(&n->lock);
    show_asks(n, s);
    s->plan.wire_bytes_per_token = n->wire_bytes;
    if (n->plan.n_node) s->model.context = n->plan.n_ctx;
    s->plan.sweep_tokens = n->plan.n_sweep;
    if (n->plan.n_node > 1) {
        s->plan.context_after_loss = n->plan.safe_ctx;
        s->plan.slots_after_loss = n->plan.safe_seq;
    }
    s->net.resubmitted = n->n_resubmitted;
    pthread_mutex_unlock(&n->lock);
}
