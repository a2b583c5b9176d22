/* node.c - the front's side of requests, and the way between cluster and worker. */
#include "engine/node.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#include "engine/asks.h"
#include "engine/worker.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

struct node {
    struct node_conf conf;
    struct keys keys;
    struct cluster *cluster;
    struct worker *worker;  // NULL: no model

    pthread_mutex_t lock;  // of everything below
    pthread_cond_t changed;
    struct asks asks;
    bool is_draining;
    unsigned n_serving;  // nodes of the serving epoch, 0: none serves
    uint64_t n_resubmitted;
    uint64_t pulse, pulse_ns, watch_ns;  // the worker's, since when, when it was looked at
    char hopeless[400];       // why no request can be answered, as far as can be seen; else ""
    struct nn_memory memory;  // of the epoch at work
    double wire_bytes;
};

/* --- requests --- */

static MUST check_ask(const struct node *n, const struct ask_request *r, struct err *e) {
    if (!r->n_prompt) return err_set(e, ERR_USAGE, "the prompt is empty");
    if (n->conf.model && r->n_prompt >= n->conf.n_ctx) {
        return err_set(e, ERR_LIMIT,
                       "the prompt has %u tokens, but the context holds %u and must leave room for "
                       "an answer",
                       r->n_prompt, n->conf.n_ctx);
    }
    if (r->n_grammar > GRAMMAR_TEXT) {
        return err_set(e, ERR_LIMIT, "a grammar of %u bytes, and %d is the most taken here",
                       r->n_grammar, GRAMMAR_TEXT);
    }
    return sampler_check(&r->sampler, e);
}

MUST node_ask(struct node *n, const struct ask_request *a, uint64_t *ticket, struct err *e) {
    struct ask_request r = *a;
    if (!check_ask(n, a, e)) return false;
    uint32_t room = n->conf.n_ctx - r.n_prompt;
    if (r.n_predict > room) r.n_predict = room;
    pthread_mutex_lock(&n->lock);
    bool ok = !n->is_draining || err_set(e, ERR_STOPPED, "this node is shutting down");
    ok = ok && (!*n->hopeless || err_set(e, ERR_UNSUPPORTED, "%s", n->hopeless));
    ok = ok && asks_add(&n->asks, &r, clock_ns(), ticket, e);
    pthread_mutex_unlock(&n->lock);
    if (ok) cluster_wake(n->cluster);
    return ok;
}

void node_cancel(struct node *n, uint64_t ticket) {
    pthread_mutex_lock(&n->lock);
    struct front_ask *a = asks_find(&n->asks, ticket);
    if (a) {
        /* The cluster's thread tells the leader, then forgets it. */
        a->request.on_tokens = NULL;
        a->request.on_end = NULL;
        a->is_cancelled = true;
    }
    pthread_mutex_unlock(&n->lock);
    if (a) cluster_wake(n->cluster);
}

static void end_ask(struct node *n, struct front_ask *a, enum ask_end end, const struct err *why) {
    if (a->request.on_end) a->request.on_end(a->request.ctx, end, why);
    asks_drop(a);
    pthread_cond_broadcast(&n->changed);
}

/* --- from here on the cluster's thread --- */

/* Hand what is new, or was with an epoch that is over, to the epoch that serves. */
static void hand_over(struct node *n) {
    struct node_id leader;
    uint64_t epoch;
    bool has_leader =
        cluster_leader(n->cluster, &leader, &epoch) && cluster_knows(n->cluster, &leader);
    for (unsigned i = 0; i < NODE_ASKS; i++) {
        struct front_ask *a = &n->asks.ask[i];
        if (!a->is_used || a->is_cancelled) continue;
        if (!has_leader) a->epoch = 0;
        if (!has_leader || a->epoch == epoch) continue;
        struct msg m;
        asks_message(a, epoch, clock_ns(), &m);
        if (a->n_handed++) n->n_resubmitted++;
        a->epoch = epoch;
        /* May come back at once, to ourselves: the answer to it is a message, too. */
        pthread_mutex_unlock(&n->lock);
        bool ok = cluster_send(n->cluster, &leader, &m);
        pthread_mutex_lock(&n->lock);
        if (!ok && a->is_used) a->epoch = 0;
    }
}

static void drop_cancelled(struct node *n) {
    struct node_id leader;
    uint64_t epoch;
    bool has_leader = cluster_leader(n->cluster, &leader, &epoch);
    for (unsigned i = 0; i < NODE_ASKS; i++) {
        struct front_ask *a = &n->asks.ask[i];
        if (!a->is_used || !a->is_cancelled) continue;
        struct msg m = {.type = MSG_CANCEL, .epoch = epoch, .u.ticket = a->ticket};
        bool is_there = has_leader && a->epoch == epoch;
        asks_drop(a);
        pthread_cond_broadcast(&n->changed);
        if (!is_there) continue;
        pthread_mutex_unlock(&n->lock);
        (void)cluster_send(n->cluster, &leader, &m);
        pthread_mutex_lock(&n->lock);
    }
}

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

/* Work waits while the cluster changes; where nothing will change by itself it is refused. */
static void see_hope(struct node *n) {
    char why[sizeof n->hopeless];
    bool is_hopeless = cluster_is_hopeless(n->cluster, why, sizeof why);
    snprintf(n->hopeless, sizeof n->hopeless, "%s", is_hopeless ? why : "");
    for (unsigned i = 0; is_hopeless && i < NODE_ASKS; i++) {
        struct err e;
        err_set(&e, ERR_UNSUPPORTED, "%s", why);
        if (n->asks.ask[i].is_used) end_ask(n, &n->asks.ask[i], ASK_FAILED, &e);
    }
}

enum { STUCK_S = 20 };
static const uint64_t SECOND_NS = 1000000000;

/* A disk can hang for good, and the thread that reads from it: the others must not wait for ever. The
 * beats come from another thread and would tell nothing. */
static void watch(struct node *n) {
    uint64_t pulse, now = clock_ns(), epoch = cluster_epoch(n->cluster);
    bool is_at_work = n->worker && epoch && worker_pulse(n->worker, &pulse);
    /* After a pause of the whole process (a debugger, a suspended machine) we know nothing. */
    if (!is_at_work || pulse != n->pulse || now - n->watch_ns > 2 * SECOND_NS) n->pulse_ns = now;
    n->watch_ns = now;
    n->pulse = is_at_work ? pulse : 0;
    if (now - n->pulse_ns < STUCK_S * SECOND_NS) return;
    n->pulse_ns = now;
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
    pthread_mutex_lock(&n->lock);
    drop_cancelled(n);
    see_hope(n);
    hand_over(n);
    pthread_mutex_unlock(&n->lock);
}

static void on_epoch(void *ctx, struct epoch *e) {
    struct node *n = ctx;
    if (n->worker)
        worker_epoch(n->worker, e);
    else
        epoch_release(e);
    pthread_mutex_lock(&n->lock);
    n->wire_bytes = plan_wire_bytes(&e->plan, n->conf.model, e->self);
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
    done.u.done.why = is_busy ? DONE_REFUSED : DONE_IMPOSSIBLE;
    snprintf(done.u.done.text, sizeof done.u.done.text, "%.*s", (int)sizeof done.u.done.text - 1,
             e.text);
    (void)cluster_send(n->cluster, from, &done);
}

/* Of a request that nobody here waits for: our former self may have asked, before it was started anew. */
static void disown(struct node *n, const struct node_id *from, const struct msg *m) {
    struct msg cancel = {.type = MSG_CANCEL, .epoch = m->epoch, .u.ticket = m->u.tokens.ticket};
    (void)cluster_send(n->cluster, from, &cancel);
}

static void on_tokens(struct node *n, const struct node_id *from, const struct msg *m) {
    const struct tokens *t = &m->u.tokens;
    const int32_t *new;
    pthread_mutex_lock(&n->lock);
    struct front_ask *a = asks_find(&n->asks, t->ticket);
    if (a && !a->is_cancelled && a->epoch == m->epoch) {
        int fresh = asks_take(a, t->at, t->id, t->n, &new);
        if (fresh < 0) {
            a->epoch = 0;  // something was lost: ask again from what we have
        } else if (fresh > 0 && a->request.on_tokens) {
            a->request.on_tokens(a->request.ctx, new, (uint32_t)fresh);
        }
    }
    pthread_mutex_unlock(&n->lock);
    if (!a) disown(n, from, m);
}

static void end_by(struct node *n, struct front_ask *a, enum done_why done, const char *text) {
    struct err why;
    enum ask_end end = asks_end(a, done, text, &why);
    end_ask(n, a, end, end == ASK_FAILED ? &why : NULL);
}

static void on_done(struct node *n, const struct msg *m) {
    pthread_mutex_lock(&n->lock);
    struct front_ask *a = asks_find(&n->asks, m->u.done.ticket);
    if (a && !a->is_cancelled && a->epoch == m->epoch) end_by(n, a, m->u.done.why, m->u.done.text);
    pthread_mutex_unlock(&n->lock);
}

static void on_message(void *ctx, const struct node_id *from, const struct msg *m) {
    struct node *n = ctx;
    switch (m->type) {
    case MSG_ASK: on_ask(n, from, m); break;
    case MSG_TOKENS: on_tokens(n, from, m); break;
    case MSG_DONE: on_done(n, m); break;
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
    cluster_measured(n->cluster, done, 0, 0);
}

static void on_loaded(void *ctx, uint64_t epoch, const struct nn_memory *m) {
    struct node *n = ctx;
    pthread_mutex_lock(&n->lock);
    n->memory = *m;
    pthread_mutex_unlock(&n->lock);
    cluster_measured(n->cluster, m->tiles.pinned_bytes + m->tiles.cached_bytes, m->disk_bytes, 0);
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
                              .model = c->model,
                              .kernels = c->kernels,
                              .wish = {.model = c->model ? c->model->fingerprint : 0,
                                       .n_ctx = c->n_ctx,
                                       .n_batch = c->n_batch,
                                       .n_seq = c->n_seq,
                                       .kv = (uint8_t)c->kv,
                                       .wire = (uint8_t)c->wire,
                                       .is_even = c->is_even},
                              .events = {.on_epoch = on_epoch,
                                         .on_change = on_change,
                                         .on_message = on_message,
                                         .on_wake = on_wake,
                                         .ctx = n}};
    memcpy(cc.peer, c->peer, sizeof cc.peer);
    return cluster_open(&n->cluster, &cc, e) && cluster_start(n->cluster, e);
}

MUST node_open(struct node **out, const struct node_conf *c, struct err *e) {
    struct node *n = calloc(1, sizeof *n);
    if (!n) return err_set(e, ERR_MEMORY, "no memory for the node's bookkeeping");
    n->conf = *c;
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
    for (unsigned i = 0; i < NODE_ASKS; i++) {
        struct err why;
        err_set(&why, ERR_STOPPED, "this node is shutting down");
        if (n->asks.ask[i].is_used) end_ask(n, &n->asks.ask[i], ASK_FAILED, &why);
    }
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

/* --- status --- */

static void show_model(const struct node *n, struct status *s) {
    const struct model *m = n->conf.model;
    if (!m) return;
    text_printable(s->model.name, sizeof s->model.name, m->name);
    text_printable(s->model.file, sizeof s->model.file, n->conf.model_file);
    snprintf(s->model.fingerprint, sizeof s->model.fingerprint, "%016llx",
             (unsigned long long)m->fingerprint);
    s->model.bytes = m->data_len;
    s->model.layers = m->n_layer;
    s->model.context = n->conf.n_ctx;
}

static void show_work(struct node *n, struct status *s) {
    struct worker_figures f = {0};
    if (n->worker) worker_figures(n->worker, &f);
    s->load.running = f.running;
    s->load.waiting = f.waiting;
    s->load.slots = f.n_seq;
    s->load.tokens = f.tokens;
    s->load.tokens_per_second = s->plan.measured_tps = f.tokens_per_s;
    s->load.accepted_per_step = 1;
    s->time_ms.compute = f.compute_ms;
    s->time_ms.disk = f.disk_ms;
    s->time_ms.network = f.network_ms;
    s->net.sent_payload = f.net.sent_payload;
    s->net.sent_wire = f.net.sent_wire;
    s->net.received_payload = f.net.received_payload;
    s->net.received_wire = f.net.received_wire;
    s->net.crypt_ns = f.net.crypt_ns;
    s->net.gathers = f.net.n_gather;
    snprintf(s->plan.kind, sizeof s->plan.kind, "tensor");
    const char *limit = f.disk_ms > f.compute_ms && f.disk_ms > f.network_ms ? "disk"
                        : f.network_ms > f.compute_ms                        ? "network"
                                                                             : "compute";
    snprintf(s->plan.limited_by, sizeof s->plan.limited_by, "%s", f.tokens ? limit : "");
}

void node_status(struct node *n, struct status *s) {
    cluster_status(n->cluster, s);
    show_model(n, s);
    show_work(n, s);
    pthread_mutex_lock(&n->lock);
    unsigned waiting = asks_count(&n->asks);
    if (waiting > s->load.running + s->load.waiting) {
        s->load.waiting = waiting - s->load.running;
    }
    s->plan.wire_bytes_per_token = n->wire_bytes;
    s->net.resubmitted = n->n_resubmitted;
    pthread_mutex_unlock(&n->lock);
}
