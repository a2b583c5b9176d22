/* cluster.c - the cluster's thread: events in, members.c asked, its actions done. */
#include "cluster/cluster.h"

#include "base/clock.h"
#include "base/log.h"
#include "cluster/cluster_state.h"
#include "net/lookup.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- actions --- */

/* What the members of the set said of themselves, in the form that the planner takes. */
static unsigned plan_members(struct cluster *c, const struct action *a, struct plan_member *out) {
    struct member_view view[MEMBER_MAX];
    unsigned n = 0, n_view = members_list(c->members, view, MEMBER_MAX);
    for (unsigned i = 0; i < a->n_set; i++) {
        const struct facts *f = NULL;
        uint64_t instance = 0;
        if (id_is(&a->set[i], &c->conf.ident->id)) {
            f = &c->conf.facts, instance = c->conf.ident->instance;
        }
        for (unsigned v = 0; v < n_view && !f; v++) {
            if (id_is(&view[v].id, &a->set[i])) f = &view[v].facts, instance = view[v].instance;
        }
        if (!f) continue;
        out[n++] = (struct plan_member){.id = a->set[i],
                                        .instance = instance,
                                        .budget = f->budget_bytes,
                                        .pool = f->pool_bytes,
                                        .speed = f->speed,
                                        .share = f->share,
                                        .n_thread = f->n_thread,
                                        .n_ctx = f->n_ctx,
                                        .n_seq = f->n_seq};
    }
    return n;
}

static void send_plan(struct cluster *c, const struct plan *p) {
    struct msg m = {.type = MSG_PLAN, .epoch = p->epoch, .u.plan = *p};
    for (unsigned i = 0; i < p->n_node; i++) {
        struct link *l = link_find(c, &p->node[i]);
        if (l) (void)link_send(l, &m);
    }
}

static void make_plan(struct cluster *c, const struct action *a) {
    struct plan_member member[PLAN_NODES];
    struct plan_wish wish = c->conf.wish;
    bool left_out[PLAN_NODES] = {false};
    struct plan p;
    struct err e = {0};
    wish.epoch = a->epoch;
    unsigned n = plan_members(c, a, member);
    if (!c->conf.model) {
        members_planned(c->members, NULL, "this node has no model", clock_ns());
        return;
    }
    if (!plan_make(&p, c->conf.model, c->conf.kernels, member, n, &wish, left_out, &e)) {
        members_planned(c->members, NULL, e.text, clock_ns());
        return;
    }
    for (unsigned i = 0; i < n; i++) {
        char text[STATUS_TEXT], id[ID_HEX];
        if (!left_out[i]) continue;
        ident_text(&member[i].id, id);
        snprintf(text, sizeof text,
                 "node %.8s is left out: its share of the model is more than its memory holds, "
                 "or too small to be worth a row",
                 id);
        cluster_alert(c, ALERT_LEFT_OUT, text);
    }
    send_plan(c, &p);
    members_planned(c->members, &p, NULL, clock_ns());
}

/* A node joins and nobody was lost: what is being computed need not be thrown away. */
static bool can_wait(struct cluster *c, const struct action *a) {
    if (!c->epoch || !atomic_load(&c->epoch->is_serving)) return false;
    const struct plan *p = &c->epoch->plan;
    for (unsigned i = 0; i < p->n_node; i++) {
        bool is_in = false;
        for (unsigned k = 0; k < a->n_set; k++) is_in = is_in || id_is(&a->set[k], &p->node[i]);
        if (!is_in || !cluster_knows(c, &p->node[i])) return false;
    }
    return true;
}

static void plan_for(struct cluster *c, const struct action *a) {
    if (!can_wait(c, a)) {
        make_plan(c, a);
        return;
    }
    c->joining = *a;
    c->is_joining = true;
    atomic_store(&c->epoch->is_pausing, true);
    c->conf.events.on_change(c->conf.events.ctx);
}

/* The step is done, or there is no use in waiting for it any more. */
void cluster_plan_joining(struct cluster *c) {
    if (!c->is_joining) return;
    struct action a = c->joining;
    c->is_joining = false;
    make_plan(c, &a);
}

static void adopt(struct cluster *c, const struct plan *p) {
    struct err e = {0};
    struct plan copy = *p;  // members.c's own lives until the next call only
    if (epoch_adopt(c, &copy, &e)) {
        log_info("cluster", "epoch %llu: %u node%s, slice %u is ours",
                 (unsigned long long)copy.epoch, copy.n_node, copy.n_node == 1 ? "" : "s",
                 c->epoch->self);
        return;
    }
    cluster_alert(c, ALERT_OWN_WORK, e.text);
    members_broke(c->members, copy.epoch, NULL, clock_ns());
    struct msg m = {.type = MSG_BROKEN, .epoch = copy.epoch, .u.suspect = c->conf.ident->id};
    struct link *l = link_find(c, &copy.leader);
    if (l) (void)link_send(l, &m);
}

static void send_beats(struct cluster *c) {
    struct msg m = {.type = MSG_BEAT};
    members_beat(c->members, &m.u.beat);
    m.epoch = m.u.beat.epoch;
    pthread_mutex_lock(&c->lock);
    m.u.beat.pinned_bytes = c->pinned;
    m.u.beat.streamed_bytes = c->streamed;
    pthread_mutex_unlock(&c->lock);
    c->conf.events.on_beat(c->conf.events.ctx, &m.u.beat);
    c->disk_bps = m.u.beat.disk_bps;
    c->temperature_c = m.u.beat.temperature_c;
    for (unsigned i = 0; i < MEMBER_MAX; i++) {
        struct link *l = &c->link[i];
        if (l->chan && l->sent && !l->is_twin) (void)link_send(l, &m);
    }
}

static void serve(struct cluster *c, uint64_t epoch) {
    if (!c->epoch || c->epoch->plan.epoch != epoch) return;
    c->own_failures = 0;
    if (!atomic_exchange(&c->epoch->is_serving, true)) {
        log_info("cluster", "epoch %llu serves", (unsigned long long)epoch);
    }
    c->conf.events.on_change(c->conf.events.ctx);
}

static void tell_serving(struct cluster *c, const struct action *a) {
    for (unsigned i = 0; i < a->n_set; i++) {
        struct msg m = {.type = MSG_SERVING, .epoch = a->epoch};
        struct link *l = link_find(c, &a->set[i]);
        if (l) (void)link_send(l, &m);
    }
    serve(c, a->epoch);
}

static void refuse(struct cluster *c, const struct action *a) {
    struct msg m = {.type = MSG_REFUSED, .epoch = a->epoch};
    struct link *l = link_find(c, &a->id);
    m.u.refused.reason = a->reason;
    snprintf(m.u.refused.why, sizeof m.u.refused.why, "%.*s", (int)sizeof m.u.refused.why - 1,
             a->text);
    if (l) (void)link_send(l, &m);
}

static void act(struct cluster *c, const struct action *a) {
    struct link *l;
    switch (a->type) {
    case ACT_NONE: break;
    case ACT_PLAN: plan_for(c, a); break;
    case ACT_ADOPT: adopt(c, a->plan); break;
    case ACT_ABANDON: epoch_end(c); break;
    case ACT_SERVE: tell_serving(c, a); break;
    case ACT_SERVING: serve(c, a->epoch); break;
    case ACT_DROP:
        l = link_find(c, &a->id);
        if (l && l->peer.instance == a->instance) link_drop(l);
        break;
    case ACT_BEAT: send_beats(c); break;
    case ACT_REFUSE: refuse(c, a); break;
    case ACT_ALERT: cluster_alert_of(c, a->alert, &a->id, a->is_told, a->text); break;
    }
}

void cluster_depart(struct cluster *c) {
    if (c->has_left) return;
    c->has_left = true;
    for (unsigned i = 0; i < MEMBER_MAX; i++) {
        struct msg m = {.type = MSG_LEAVE};
        if (c->link[i].chan && c->link[i].has_hello) (void)link_send(&c->link[i], &m);
    }
    members_leave(c->members, clock_ns());
}

static void tell_mdns(struct cluster *c) {
    bool is_serving_now = c->epoch && atomic_load(&c->epoch->is_serving);
    bool is_serving = is_serving_now;
    uint64_t now = clock_ns();
    if (is_serving_now) c->served_ns = now;
    /* The names stay while the cluster changes: requests wait, too. */
    if (!is_serving && now - c->served_ns < NAMES_STAY_NS) is_serving = c->is_serving_told;
    if (!c->mdns) return;
    struct mdns_facts f = c->facts_told;
    f.model = c->conf.facts.model;
    if (is_serving_now) f.epoch = c->epoch->plan.epoch;
    if (!is_serving) f.epoch = 0;
    if (f.model != c->facts_told.model || f.epoch != c->facts_told.epoch) {
        c->facts_told = f;
        mdns_update(c->mdns, &f);
    }
    if (is_serving == c->is_serving_told) return;
    c->is_serving_told = is_serving;
    mdns_serve(c->mdns, is_serving);
}

enum { ACTIONS_AT_ONCE = 1000 };  // more is a mistake of ours

void cluster_settle(struct cluster *c) {
    struct action a;
    if (c->is_settling) return;  // called from within an action: the loop below goes on anyway
    c->is_settling = true;
    uint64_t next = members_tick(c->members, clock_ns());
    unsigned n = 0;
    for (; n < ACTIONS_AT_ONCE && members_next(c->members, &a); n++) {
        act(c, &a);
        next = members_tick(c->members, clock_ns());
    }
    c->is_settling = false;
    tell_mdns(c);
    if (n) cluster_show(c);
    loop_at(&c->loop, &c->tick, next);
}

/* --- the engine's side of messages --- */

bool cluster_send(struct cluster *c, const struct node_id *to, struct msg *m) {
    if (id_is(to, &c->conf.ident->id)) {
        c->conf.events.on_message(c->conf.events.ctx, to, m);
        return true;
    }
    struct link *l = link_find(c, to);
    return l && link_send(l, m);
}

bool cluster_leader(const struct cluster *c, struct node_id *leader, uint64_t *epoch) {
    if (c->epoch && atomic_load(&c->epoch->is_serving)) {
        *leader = c->epoch->plan.leader;
        *epoch = c->epoch->plan.epoch;
        return true;
    }
    /* A node that does not take part sends its requests to the leader that it follows. */
    return !c->epoch && members_leader(c->members, leader, epoch) && *epoch;
}

bool cluster_is_hopeless(struct cluster *c, char *why, size_t cap) {
    const char *text = "";
    struct node_id leader;
    uint64_t epoch;
    enum node_state state = members_state(c->members, &text);
    if (members_leader(c->members, &leader, &epoch)) return false;
    if (state == STATE_FAILED) {
        snprintf(why, cap, "%s", text);
        return true;
    }
    bool has_looked = clock_ns() - c->started_ns > (uint64_t)START_MAX_MS * 1000000;
    snprintf(why, cap, "%s, and no other node serves",
             *c->unfit ? c->unfit : "this node has no model");
    return !c->conf.facts.model && has_looked && !c->epoch;
}

bool cluster_waits(const struct cluster *c) {
    return members_waits(c->members);
}

bool cluster_knows(struct cluster *c, const struct node_id *id) {
    return id_is(id, &c->conf.ident->id) || link_find(c, id);
}

bool cluster_has_other_model(const struct cluster *c, const struct node_id *id) {
    struct member_view view[MEMBER_MAX];
    unsigned n = members_list(c->members, view, MEMBER_MAX);
    for (unsigned i = 0; i < n; i++) {
        if (id_is(&view[i].id, id)) return view[i].is_other_model;
    }
    return false;
}

uint64_t cluster_epoch(const struct cluster *c) {
    return c->epoch ? c->epoch->plan.epoch : 0;
}

unsigned cluster_serving(const struct cluster *c) {
    return c->epoch && atomic_load(&c->epoch->is_serving) ? c->epoch->plan.n_node : 0;
}

/* --- gate, mDNS, time --- */

static void on_peer(void *ctx, struct chan *ch, const struct gate_peer *p) {
    struct cluster *c = ctx;
    if (p->kind == CHAN_CONTROL)
        link_take(c, ch, p);
    else
        epoch_take(c, ch, p);
}

static void on_dial_failed(void *ctx, uint64_t tag, enum gate_end how, const struct err *why) {
    struct cluster *c = ctx;
    log_debug("cluster", "%s", why->text);
    if (tag_is_data(tag))
        epoch_failed(c, tag);
    else if (how == GATE_SELF)
        target_is_self(c, tag);
    else
        target_failed(c, tag, how, why);
    cluster_settle(c);
}

static void on_seen(void *ctx, const struct mdns_peer *p) {
    struct cluster *c = ctx;
    if (c->gate) target_seen(c, p);
}

static void on_gone(void *ctx, const struct mdns_peer *p) {
    target_gone(ctx, p);
}

static void on_name(void *ctx, const char *host) {
    struct cluster *c = ctx;
    snprintf(c->conf.facts.name, ID_NAME, "%.*s", ID_NAME - 1, host);
    members_call(c->members, host);
    log_info("mdns", "this node is %s.local", host);
}

/* A node without a key is found by people all the same, not by nodes. */
void cluster_announce(struct cluster *c) {
    struct err e = {0};
    const struct ident *self = c->conf.ident;
    if (!c->conf.is_discovered) return;
    mdns_close(c->mdns);
    c->mdns = NULL;
    c->is_serving_told = false;
    c->facts_told = (struct mdns_facts){.id = self->id,
                                        .instance = self->instance,
                                        .cluster = c->conf.keys->print,
                                        .model = c->conf.facts.model,
                                        .contract = c->conf.facts.contract};
    const struct mdns_conf mc = {.loop = &c->loop,
                                 .host = self->name,
                                 .facts = c->facts_told,
                                 .cluster_port = c->gate ? gate_port(c->gate) : 0,
                                 .http_port = c->conf.facts.http_port,
                                 .ollama_port = c->conf.ollama_port,
                                 .interface = c->conf.interface,
                                 .on_peer = on_seen,
                                 .on_gone = on_gone,
                                 .on_name = on_name,
                                 .ctx = c};
    if (!mdns_open(&c->mdns, &mc, &e)) cluster_alert(c, ALERT_DISCOVERY, e.text);
}

/* --- status --- */

void cluster_status(struct cluster *c, struct status *s) {
    pthread_mutex_lock(&c->lock);
    *s = c->shown;
    pthread_mutex_unlock(&c->lock);
}

bool cluster_work(struct cluster *c, struct work *w) {
    pthread_mutex_lock(&c->lock);
    bool is_led = c->is_led;
    *w = c->work;
    pthread_mutex_unlock(&c->lock);
    return is_led;
}

/* --- the thread --- */

static void on_tick(struct loop_timer *t, uint64_t now) {
    (void)now;
    cluster_settle(t->owner);
}

enum { ADDRESS_BEATS = 20 };  // 5 s

static void on_beat(struct loop_timer *t, uint64_t now) {
    struct cluster *c = t->owner;
    loop_at(&c->loop, t, now + BEAT_NS);
    send_beats(c);
    links_tidy(c, now);
    targets_dial(c, now);
    epoch_dial(c, now);
    if (c->is_joining && !can_wait(c, &c->joining)) cluster_plan_joining(c);
    epoch_forget(c, now);
    cluster_tend_alerts(c, now);
    if (c->n_beat++ % ADDRESS_BEATS == 0) cluster_find_address(c);
    cluster_settle(c);
    cluster_show(c);
    c->conf.events.on_wake(c->conf.events.ctx);
}

static void *cluster_thread(void *ctx) {
    struct cluster *c = ctx;
    struct err e = {0};
    (void)pthread_setname_np(pthread_self(), "dair-cluster");
    cluster_announce(c);
    if (!loop_run(&c->loop, &e)) log_error("cluster", "%s", e.text);
    return NULL;
}

static MUST take_memory(struct cluster *c, struct err *e) {
    /* Others may have a larger context. Untouched, this room costs addresses only. */
    c->n_ids = MSG_TOKENS_MAX;
    /* The longest is a request: a token id takes at most 5 bytes. */
    c->out_cap = (size_t)c->conf.wish.n_ctx * 5 + GRAMMAR_TEXT + 8192;
    if (c->out_cap > MSG_MAX) c->out_cap = MSG_MAX;
    c->out = malloc(c->out_cap);
    c->ids = malloc(c->n_ids * sizeof *c->ids);
    return (c->out && c->ids) || err_set(e, ERR_MEMORY, "no memory for messages");
}

static MUST open_net(struct cluster *c, struct err *e) {
    const struct gate_conf gc = {.loop = &c->loop,
                                 .self = c->conf.ident,
                                 .keys = c->conf.keys,
                                 .interface = c->conf.interface,
                                 .port = c->conf.cluster_port,
                                 .n_handshake = c->conf.n_handshake,
                                 .on_peer = on_peer,
                                 .on_failed = on_dial_failed,
                                 .ctx = c};
    if (!gate_open(&c->gate, &gc, e)) return false;
    return targets_name(c, e);
}

MUST cluster_open(struct cluster **out, const struct cluster_conf *conf, struct err *e) {
    struct cluster *c = calloc(1, sizeof *c);
    if (!c) return err_set(e, ERR_MEMORY, "no memory for the cluster's bookkeeping");
    c->conf = *conf;
    c->temperature_c = NAN;
    pthread_mutex_init(&c->lock, NULL);
    c->loop.epoll_fd = c->loop.wake_fd = -1;
    if (!loop_open(&c->loop, cluster_posted, c, e) || !take_memory(c, e)) goto fail;
    if (conf->keys->has_key && !open_net(c, e)) goto fail;
    struct members_conf mc = {.self = conf->ident->id,
                              .instance = conf->ident->instance,
                              .facts = c->conf.facts,
                              .expected = conf->n_peer,
                              .is_alone = !conf->keys->has_key};
    uint64_t now = c->started_ns = clock_ns();
    if (!members_open(&c->members, &mc, now, e)) goto fail;
    c->beat = (struct loop_timer){.fire = on_beat, .owner = c};
    c->tick = (struct loop_timer){.fire = on_tick, .owner = c};
    loop_at(&c->loop, &c->beat, now);
    cluster_show(c);
    *out = c;
    return true;
fail:
    cluster_close(c);
    return false;
}

MUST cluster_start(struct cluster *c, struct err *e) {
    c->has_thread = !pthread_create(&c->thread, NULL, cluster_thread, c);
    return c->has_thread || err_set(e, ERR_MEMORY, "the system gives no thread for the cluster");
}

void cluster_stop(struct cluster *c) {
    if (!c || !c->has_thread) return;
    loop_stop(&c->loop);
    pthread_join(c->thread, NULL);
    c->has_thread = false;
    cluster_depart(c);
    mdns_close(c->mdns);
    c->mdns = NULL;
    epoch_end(c);
}

void cluster_close(struct cluster *c) {
    if (!c) return;
    cluster_stop(c);
    mdns_close(c->mdns);
    epoch_forget(c, UINT64_MAX);
    links_close(c);
    lookup_close(c->lookup);
    gate_close(c->gate);
    members_close(c->members);
    if (c->loop.epoll_fd >= 0) loop_close(&c->loop);
    pthread_mutex_destroy(&c->lock);
    free(c->out);
    free(c->ids);
    free(c);
}
