/* node_asks.c - the requests that were made here, from node_ask() to their end: handed to whichever node
 * leads, again when that changes, kept while a node that was lost is waited for. What is kept of each is in
 * asks.h; the leader's side is worker.h. */
#include "engine/node_own.h"

#include "base/clock.h"
#include "base/log.h"

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

/* Once for each plan. */
static void tell_risk(struct node *n, const struct front_ask *a) {
    uint32_t most = a->request.n_prompt + a->request.n_predict;
    if (n->plan.is_told || n->plan.n_node < 2 || most <= n->plan.safe_ctx) return;
    n->plan.is_told = true;
    if (n->plan.safe_ctx) {
        log_info(
            "node",
            "a request of up to %u tokens is taken, but if a node is lost, the others may have "
            "memory for %u: then it would wait for that node",
            most, n->plan.safe_ctx);
    } else {
        log_info("node", "if a node is lost, the others may not have the memory to work: then "
                         "answers would wait for that node");
    }
}

/* Hand what is new, or was with an epoch that is over, to the epoch that serves. */
static void hand_over(struct node *n) {
    struct node_id leader;
    uint64_t epoch, now = clock_ns();
    bool has_leader =
        cluster_leader(n->cluster, &leader, &epoch) && cluster_knows(n->cluster, &leader);
    for (unsigned i = 0; i < NODE_ASKS; i++) {
        struct front_ask *a = &n->asks.ask[i];
        if (!a->is_used || a->is_cancelled) continue;
        if (!has_leader) a->epoch = 0;
        if (!has_leader || asks_is_with(a, &leader, epoch) || now < a->again_ns) continue;
        struct msg m;
        asks_message(a, epoch, now, &m);
        if (a->n_handed) n->n_resubmitted++;
        asks_hand(a, &leader, epoch, now);
        tell_risk(n, a);
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
        bool is_there = has_leader && asks_is_with(a, &leader, epoch);
        asks_drop(a);
        pthread_cond_broadcast(&n->changed);
        if (!is_there) continue;
        pthread_mutex_unlock(&n->lock);
        (void)cluster_send(n->cluster, &leader, &m);
        pthread_mutex_lock(&n->lock);
    }
}

/* Kept for the node that was lost, or for another in its place. False: none is waited for. */
static bool park(struct node *n, struct front_ask *a, const struct err *why) {
    if (n->is_draining || !cluster_waits(n->cluster)) return false;
    if (!a->is_parked && !a->waited_ns) {
        log_warn("node", "an answer waits for a node that was lost, %d s at most: %s", ASK_PARKED_S,
                 why->text);
    }
    asks_park(a, clock_ns(), why);
    return true;
}

/* Work waits while the cluster changes; where nothing will change by itself it is refused. */
static void see_hope(struct node *n) {
    char why[sizeof n->hopeless];
    bool is_hopeless = cluster_is_hopeless(n->cluster, why, sizeof why);
    snprintf(n->hopeless, sizeof n->hopeless, "%s", is_hopeless ? why : "");
    for (unsigned i = 0; is_hopeless && i < NODE_ASKS; i++) {
        struct front_ask *a = &n->asks.ask[i];
        struct err e;
        err_set(&e, ERR_UNSUPPORTED, "%s", why);
        if (!a->is_used || (a->n_handed && park(n, a, &e))) continue;
        end_ask(n, a, ASK_FAILED, &e);
    }
}

/* Nobody is waited for any more, and the epoch that serves is the one that has no room; or it took too
 * long. */
static void end_parked(struct node *n) {
    struct node_id leader;
    uint64_t epoch, now = clock_ns();
    bool is_settled = cluster_leader(n->cluster, &leader, &epoch) && !cluster_waits(n->cluster);
    for (unsigned i = 0; i < NODE_ASKS; i++) {
        struct front_ask *a = &n->asks.ask[i];
        if (!a->is_used || !a->is_parked) continue;
        bool is_vain = n->is_draining || (is_settled && asks_is_with(a, &leader, epoch));
        if (is_vain || asks_is_over(a, now)) end_ask(n, a, ASK_FAILED, &a->why);
    }
}

void node_asks_turn(struct node *n) {
    pthread_mutex_lock(&n->lock);
    drop_cancelled(n);
    see_hope(n);
    hand_over(n);
    end_parked(n);
    pthread_mutex_unlock(&n->lock);
}

/* Of a request that nobody here waits for: our former self may have asked, before it was started anew. */
static void disown(struct node *n, const struct node_id *from, const struct msg *m) {
    struct msg cancel = {.type = MSG_CANCEL, .epoch = m->epoch, .u.ticket = m->u.tokens.ticket};
    (void)cluster_send(n->cluster, from, &cancel);
}

void node_asks_tokens(struct node *n, const struct node_id *from, const struct msg *m) {
    const struct tokens *t = &m->u.tokens;
    const int32_t *new;
    pthread_mutex_lock(&n->lock);
    struct front_ask *a = asks_find(&n->asks, t->ticket);
    if (a && !a->is_cancelled && asks_is_with(a, from, m->epoch)) {
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
    if (asks_is_cut(a, done) && park(n, a, &why)) return;
    if (asks_retry(a, done, clock_ns(), &why)) return;
    end_ask(n, a, end, end == ASK_FAILED ? &why : NULL);
}

void node_asks_done(struct node *n, const struct node_id *from, const struct msg *m) {
    pthread_mutex_lock(&n->lock);
    struct front_ask *a = asks_find(&n->asks, m->u.done.ticket);
    bool is_ours = a && !a->is_cancelled && asks_is_with(a, from, m->epoch);
    if (is_ours) end_by(n, a, m->u.done.why, m->u.done.text);
    pthread_mutex_unlock(&n->lock);
}

void node_asks_close(struct node *n) {
    for (unsigned i = 0; i < NODE_ASKS; i++) {
        struct err why;
        err_set(&why, ERR_STOPPED, "this node is shutting down");
        if (n->asks.ask[i].is_used) end_ask(n, &n->asks.ask[i], ASK_FAILED, &why);
    }
}
