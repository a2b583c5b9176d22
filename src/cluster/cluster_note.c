/* cluster_note.c - what other threads have to say to the cluster's: kept, its loop woken, and there acted on. */
#include "base/clock.h"
#include "base/log.h"
#include "cluster/cluster_state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void push_note(struct cluster *c, const struct note *n) {
    pthread_mutex_lock(&c->lock);
    /* Only one epoch is at work, so the newest notes are the ones that count. */
    if (c->n_note == NOTES) memmove(c->note, c->note + 1, --c->n_note * sizeof *n);
    c->note[c->n_note++] = *n;
    pthread_mutex_unlock(&c->lock);
    loop_post(&c->loop);
}

void cluster_loaded(struct cluster *c, uint64_t epoch) {
    push_note(c, &(struct note){.what = NOTE_LOADED, .epoch = epoch});
}

void cluster_paused(struct cluster *c, uint64_t epoch) {
    push_note(c, &(struct note){.what = NOTE_PAUSED, .epoch = epoch});
}

void cluster_broke(struct cluster *c, uint64_t epoch, int suspect, const char *why) {
    struct note n = {
        .what = suspect >= 0 ? NOTE_BROKE : NOTE_UNFIT, .epoch = epoch, .suspect = suspect};
    snprintf(n.why, sizeof n.why, "%.*s", (int)sizeof n.why - 1, why);
    push_note(c, &n);
}

void cluster_stuck(struct cluster *c, uint64_t epoch, const char *why) {
    struct note n = {.what = NOTE_STUCK, .epoch = epoch};
    snprintf(n.why, sizeof n.why, "%.*s", (int)sizeof n.why - 1, why);
    push_note(c, &n);
}

void cluster_measured(struct cluster *c, uint64_t pinned, uint64_t streamed) {
    pthread_mutex_lock(&c->lock);
    c->pinned = pinned;
    c->streamed = streamed;
    pthread_mutex_unlock(&c->lock);
}

void cluster_wake(struct cluster *c) {
    loop_post(&c->loop);
}

void cluster_leave(struct cluster *c) {
    pthread_mutex_lock(&c->lock);
    c->is_leaving = true;
    pthread_mutex_unlock(&c->lock);
    loop_post(&c->loop);
}

static void tell_leader(struct cluster *c, struct msg *m) {
    struct link *l = c->epoch ? link_find(c, &c->epoch->plan.leader) : NULL;
    if (l) (void)link_send(l, m);
}

/* Our own disk or memory fails us: without a model this node can still be a front. */
static void give_up_model(struct cluster *c, const char *why) {
    struct err e = {0};
    char text[STATUS_TEXT];
    snprintf(text, sizeof text, "this node does not take part any more: %.350s", why);
    cluster_alert(c, ALERT_OWN_WORK, text);
    links_close(c);
    epoch_end(c);
    c->conf.facts.model = 0;
    snprintf(c->unfit, sizeof c->unfit, "%s", why);
    members_close(c->members);
    c->members = NULL;
    struct members_conf mc = {.self = c->conf.ident->id,
                              .instance = c->conf.ident->instance,
                              .facts = c->conf.facts,
                              .gave_up = c->conf.model->fingerprint,
                              .is_alone = !c->conf.keys->has_key};
    c->started_ns = clock_ns();  // the others are found anew
    if (!members_open(&c->members, &mc, clock_ns(), &e)) {
        log_error("cluster", "%s", e.text);
        abort();
    }
    for (unsigned i = 0; i < TARGETS; i++) c->target[i].next_ns = 0;
}

static void on_note(struct cluster *c, const struct note *n) {
    if (!c->epoch || n->epoch != c->epoch->plan.epoch) return;
    const struct plan *p = &c->epoch->plan;
    struct msg m = {.epoch = n->epoch};
    switch (n->what) {
    case NOTE_LOADED:
        m.type = MSG_READY;
        tell_leader(c, &m);
        members_loaded(c->members, n->epoch, clock_ns());
        break;
    case NOTE_PAUSED: cluster_plan_joining(c); break;
    case NOTE_BROKE:
        cluster_plan_joining(c);
        log_info("cluster", "epoch %llu broke: %s", (unsigned long long)n->epoch, n->why);
        m.type = MSG_BROKEN;
        m.u.suspect = p->node[n->suspect];
        tell_leader(c, &m);
        members_broke(c->members, n->epoch, &p->node[n->suspect], clock_ns());
        break;
    case NOTE_STUCK: give_up_model(c, n->why); break;
    case NOTE_UNFIT:
        cluster_plan_joining(c);
        log_error("cluster", "epoch %llu: %s", (unsigned long long)n->epoch, n->why);
        if (++c->own_failures >= FITNESS) {
            give_up_model(c, n->why);
            break;
        }
        m.type = MSG_BROKEN;
        m.u.suspect = c->conf.ident->id;
        tell_leader(c, &m);
        members_broke(c->members, n->epoch, NULL, clock_ns());
        break;
    }
}

void cluster_posted(void *ctx) {
    struct cluster *c = ctx;
    struct note note[NOTES];
    pthread_mutex_lock(&c->lock);
    unsigned n = c->n_note;
    memcpy(note, c->note, n * sizeof *note);
    c->n_note = 0;
    bool is_leaving = c->is_leaving;
    pthread_mutex_unlock(&c->lock);
    for (unsigned i = 0; i < n; i++) on_note(c, &note[i]);
    if (is_leaving) cluster_depart(c);
    cluster_settle(c);  // what the notes led to comes first
    c->conf.events.on_wake(c->conf.events.ctx);
    cluster_settle(c);
    links_read(c);
}
