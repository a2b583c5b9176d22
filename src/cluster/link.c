/* link.c - control channels: where to dial, who is through, and the messages on them. */
#include "base/clock.h"
#include "base/log.h"
#include "cluster/cluster_state.h"
#include "net/lookup.h"

#include <assert.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- the table --- */

struct link *link_find(struct cluster *c, const struct node_id *id) {
    for (unsigned i = 0; i < MEMBER_MAX; i++) {
        struct link *l = &c->link[i];
        if (l->chan && !l->is_twin && id_is(&l->peer.id, id)) return l;
    }
    return NULL;
}

static void link_free(struct link *l) {
    loop_forget(&l->all->loop, &l->fd);
    chan_close(l->chan);
    l->chan = NULL;
}

void link_drop(struct link *l) {
    bool was_member = l->has_hello && !l->is_twin;
    struct cluster *c = l->all;
    struct node_id id = l->peer.id;
    link_free(l);
    if (!was_member) return;
    members_down(c->members, &id, clock_ns());
    cluster_unalert(c, &id);
    c->conf.events.on_change(c->conf.events.ctx);  // requests may have been with it
}

void links_close(struct cluster *c) {
    for (unsigned i = 0; i < MEMBER_MAX; i++) {
        if (c->link[i].chan) link_free(&c->link[i]);
    }
}

static void link_lost(struct link *l, const struct err *why) {
    char id[ID_HEX];
    ident_text(&l->peer.id, id);
    log_info("cluster", "%s (%.8s) is not connected any more: %s",
             l->has_hello ? l->facts.name : "a node", id, why->text);
    link_drop(l);
}

/* --- messages --- */

bool link_send(struct link *l, struct msg *m) {
    struct cluster *c = l->all;
    struct err e = {0};
    m->sequence = ++l->sent;
    size_t n = msg_encode(m, c->out, c->out_cap);
    if (!n) {
        log_error("cluster", "a message of kind %s does not fit", msg_name(m->type));
        l->sent--;
        return false;
    }
    const struct iovec part = {c->out, n};
    enum chan_io io = chan_send(l->chan, &part, 1, &e);
    if (io != CHAN_FAILED && loop_watch(&c->loop, &l->fd, chan_events(l->chan), &e)) return true;
    link_lost(l, &e);
    return false;
}

static void send_hello(struct link *l) {
    struct msg m = {.type = MSG_HELLO, .u.facts = l->all->conf.facts};
    /* How old we are, in ms: of two nodes with one id the younger takes another. */
    m.epoch = (clock_ns() - l->all->conf.ident->started_ns) / 1000000;
    (void)link_send(l, &m);
}

/* Two nodes with one id: a card was cloned. Both see this; only one may give way. */
static void meet_twin(struct link *l, const struct msg *hello) {
    struct cluster *c = l->all;
    const struct ident *self = c->conf.ident;
    uint64_t age = (clock_ns() - self->started_ns) / 1000000, other = hello->epoch;
    uint64_t gap = age > other ? age - other : other - age;
    /* Ages are compared to the second; below that the instances decide. */
    bool we_yield = gap > 1000 ? age < other : self->instance < l->peer.instance;
    link_free(l);
    if (!we_yield) return;
    struct err e = {0};
    cluster_alert(c, ALERT_TWIN,
                  "another node has the same id (a copied card or folder); this one, the "
                  "younger, takes a new id");
    if (!ident_renew(c->conf.ident, &e)) {
        cluster_alert(c, ALERT_TWIN, e.text);
        return;
    }
    links_close(c);
    epoch_end(c);
    members_rename(c->members, &self->id, self->instance, clock_ns());
    memcpy(c->conf.facts.name, self->name, ID_NAME);
    members_call(c->members, self->name);
    for (unsigned i = 0; i < TARGETS; i++) c->target[i].next_ns = 0;
    cluster_announce(c);
}

static void on_hello(struct link *l, const struct msg *m) {
    struct cluster *c = l->all;
    if (l->is_twin) {
        meet_twin(l, m);
        return;
    }
    l->has_hello = true;
    l->facts = m->u.facts;
    char id[ID_HEX];
    ident_text(&l->peer.id, id);
    log_info("cluster", "%s (%.8s, %s) is connected", l->facts.name, id, l->facts.arch);
    members_up(c->members, &l->peer.id, l->peer.instance, &l->facts, clock_ns());
}

static void log_broken(const struct link *l, const struct msg *m) {
    char id[ID_HEX];
    ident_text(&m->u.suspect, id);
    log_info("cluster", "%s says that epoch %llu broke: %.8s does not answer it", l->facts.name,
             (unsigned long long)m->epoch, id);
}

static void on_msg(struct link *l, const struct msg *m) {
    struct cluster *c = l->all;
    if (m->type == MSG_BROKEN) {
        log_broken(l, m);
        cluster_plan_joining(c);
    }
    if (m->type == MSG_HELLO) {
        on_hello(l, m);
        return;
    }
    if (m->type == MSG_BEAT) memcpy(l->facts.name, m->u.beat.name, ID_NAME);
    switch (m->type) {
    case MSG_ASK:
    case MSG_TOKENS:
    case MSG_DONE:
    case MSG_CANCEL: {
        struct node_id from = l->peer.id;
        c->conf.events.on_message(c->conf.events.ctx, &from, m);
        break;
    }
    default: members_heard(c->members, &l->peer.id, m, clock_ns()); break;
    }
}

static MUST check_order(const struct link *l, const struct msg *m, struct err *e) {
    if (m->sequence != l->received + 1) {
        return err_set(e, ERR_FORMAT, "message %llu came where %llu was due",
                       (unsigned long long)m->sequence, (unsigned long long)l->received + 1);
    }
    if ((m->type == MSG_HELLO) != (l->received == 0)) {
        return err_set(e, ERR_FORMAT, "a hello comes first and once");
    }
    return true;
}

enum { MSGS_AT_ONCE = 32 };  // then others have their turn; epoll calls again

static void link_read(struct link *l) {
    struct cluster *c = l->all;
    for (unsigned i = 0; l->chan && i < MSGS_AT_ONCE; i++) {
        const uint8_t *p;
        size_t len;
        struct err e = {0};
        enum chan_io io = chan_recv(l->chan, &p, &len, &e);
        if (io == CHAN_AGAIN) return;
        struct msg *m = &c->in;
        if (io == CHAN_FAILED || !msg_decode(m, p, len, c->ids, c->n_ids, &e) ||
            !check_order(l, m, &e)) {
            link_lost(l, &e);
            return;
        }
        l->received++;
        l->heard_ns = clock_ns();
        on_msg(l, m);
    }
    /* More may lie in the channel's buffer, of which the socket knows nothing. */
    if (l->chan) loop_post(&c->loop), c->has_unread = true;
}

void links_read(struct cluster *c) {
    if (!c->has_unread) return;
    c->has_unread = false;
    for (unsigned i = 0; i < MEMBER_MAX; i++) {
        if (c->link[i].chan) link_read(&c->link[i]);
    }
    cluster_settle(c);
}

/* Before its hello a peer is no member, and nobody else would miss its beats. */
void links_tidy(struct cluster *c, uint64_t now) {
    for (unsigned i = 0; i < MEMBER_MAX; i++) {
        struct link *l = &c->link[i];
        struct err e;
        if (!l->chan || l->has_hello || now < l->heard_ns + HELLO_NS) continue;
        err_set(&e, ERR_IO, "it has not said hello");
        link_lost(l, &e);
    }
}

static void on_ready(struct loop_fd *f, uint32_t events) {
    struct link *l = f->owner;
    struct cluster *c = l->all;
    struct err e = {0};
    if ((events & EPOLLOUT) && chan_flush(l->chan, &e) == CHAN_FAILED) {
        link_lost(l, &e);
    } else if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
        link_read(l);
    }
    if (l->chan && !loop_watch(&c->loop, &l->fd, chan_events(l->chan), &e)) link_lost(l, &e);
    cluster_settle(c);
}

/* Of two channels between the same two processes the one stays that the lower id dialled; a channel
 * of a former life of the peer gives way to the new one unless it is alive still. */
enum { FRESH_NS = 2 * BEAT_NS };

static bool is_better(const struct cluster *c, const struct link *old, const struct gate_peer *p) {
    if (old->peer.instance != p->instance) return clock_ns() - old->heard_ns > FRESH_NS;
    if (old->has_hello && clock_ns() - old->heard_ns < FRESH_NS) return false;
    bool we_are_lower = ident_cmp(&c->conf.ident->id, &p->id) < 0;
    return p->is_dialled == we_are_lower && old->peer.is_dialled != we_are_lower;
}

void link_take(struct cluster *c, struct chan *ch, const struct gate_peer *p) {
    struct link *l = NULL, *old = link_find(c, &p->id);
    bool is_twin = id_is(&p->id, &c->conf.ident->id);
    if (p->is_dialled) {
        struct target *t = &c->target[p->tag % TARGETS];
        t->is_dialling = false;
        t->failures = t->n_other_key = 0;
        *t->why = '\0';
        t->next_ns = clock_ns() + DIAL_MOST_NS;  // should it be the lesser of two
        if (t->is_named) t->id = p->id, t->has_id = !is_twin;
    }
    if (old && !is_better(c, old, p)) {
        chan_close(ch);
        return;
    }
    if (old) link_drop(old);
    for (unsigned i = 0; i < MEMBER_MAX && !l; i++) {
        if (!c->link[i].chan) l = &c->link[i];
    }
    if (!l) {
        cluster_alert(c, ALERT_CROWDED,
                      "more nodes than this version keeps (32): one was turned away");
        chan_close(ch);
        return;
    }
    *l =
        (struct link){.all = c, .chan = ch, .peer = *p, .is_twin = is_twin, .heard_ns = clock_ns()};
    l->fd = (struct loop_fd){.fd = chan_fd(ch), .ready = on_ready, .owner = l};
    chan_limit(ch, MSG_MAX);
    if (p->is_old_key) {
        cluster_alert(c, ALERT_OLD_KEY,
                      "a node still uses the old cluster key; give it the new one and then "
                      "remove cluster_key_old everywhere");
    }
    members_hint(c->members, clock_ns());
    send_hello(l);
    /* What came with the last bytes of the handshake is in the channel's buffer already. */
    if (l->chan) link_read(l);
    cluster_settle(c);
}

/* --- where to dial --- */

static struct target *target_of(struct cluster *c, const struct node_id *id) {
    for (unsigned i = 0; i < TARGETS; i++) {
        struct target *t = &c->target[i];
        if (t->is_used && !t->is_named && id_is(&t->id, id)) return t;
    }
    return NULL;
}

/* A free place, or that of whoever has been dialled in vain most often. */
static struct target *target_free(struct cluster *c) {
    struct target *best = NULL;
    for (unsigned i = 0; i < TARGETS; i++) {
        struct target *t = &c->target[i];
        if (t->is_dialling || t->is_named) continue;
        if (!t->is_used) return t;
        if (t->failures && (!best || t->failures > best->failures)) best = t;
    }
    if (best) *best = (struct target){0};
    return best;
}

void target_seen(struct cluster *c, const struct mdns_peer *p) {
    const struct keys *k = c->conf.keys;
    const struct ident *self = c->conf.ident;
    uint64_t now = clock_ns();
    if (p->facts.instance == self->instance || !p->n_addr) return;
    if (p->facts.cluster != k->print && !(k->has_old && p->facts.cluster == k->old_print)) {
        if (!c->other_clusters++) {
            log_info("cluster", "%s is there too, with another cluster key: not ours", p->host);
        }
        return;
    }
    struct target *t = target_of(c, &p->facts.id);
    bool is_new = !t || t->instance != p->facts.instance;
    if (!t) t = target_free(c);
    if (!t) return;
    if (is_new) {
        bool we_dial = ident_cmp(&self->id, &p->facts.id) <= 0;
        *t = (struct target){.is_used = true,
                             .has_id = true,
                             .is_dialling = t->is_dialling,
                             .id = p->facts.id,
                             .instance = p->facts.instance,
                             .next_ns = now + (we_dial ? 0 : ELDER_WAITS_NS)};
        members_hint(c->members, now);
    }
    t->failures = 0;
    t->n_addr = p->n_addr;
    memcpy(t->addr, p->addr, sizeof t->addr);
    targets_dial(c, now);
    cluster_settle(c);
}

void target_gone(struct cluster *c, const struct mdns_peer *p) {
    struct target *t = target_of(c, &p->facts.id);
    if (t && t->instance == p->facts.instance) t->is_used = false;
}

static void take_addrs(struct target *t, const struct lookup_result *r) {
    if (!r->n_addr) return;
    t->n_addr = r->n_addr;
    memcpy(t->addr, r->addr, r->n_addr * sizeof *r->addr);
}

MUST targets_name(struct cluster *c, struct err *e) {
    if (!c->conf.n_peer) return true;
    if (!lookup_open(&c->lookup, c->conf.peer, c->conf.n_peer, e)) return false;
    for (unsigned i = 0; i < c->conf.n_peer; i++) {
        struct target *t = target_free(c);
        struct lookup_result r;
        assert(t);  // there are more places than names
        t->is_used = t->is_named = true;
        t->peer = i;
        /* A service starts before its network; who runs once wants to know of a mistake now. */
        if (!c->conf.facts.is_guest) continue;
        if (!lookup_now(c->conf.peer[i], &r, e)) return false;
        take_addrs(t, &r);
    }
    return true;
}

static uint64_t dial_pause(unsigned failures) {
    uint64_t most = failures < DIAL_HOPE ? DIAL_MOST_NS : (uint64_t)16 * DIAL_MOST_NS;
    uint64_t pause = (uint64_t)DIAL_FIRST_NS << (failures < 10 ? failures : 10);
    return pause < most ? pause : most;
}

static void ask_where(struct cluster *c, struct target *t) {
    if (t->is_asked) return;
    t->is_asked = true;
    lookup_ask(c->lookup, t->peer);
}

static const uint64_t SELF_NS = 300000000000;  // a peer that is this node is looked at again

/* Of the node at the address that was dialled. */
static void tell_version(struct cluster *c, const struct target *t, const struct err *why) {
    char text[STATUS_TEXT], host[NI_MAXHOST];
    const struct sockaddr_storage *a = &t->addr[t->next_addr % t->n_addr];
    if (getnameinfo((const void *)a, sizeof *a, host, sizeof host, NULL, 0, NI_NUMERICHOST)) return;
    snprintf(text, sizeof text, "cannot work with the node at %.60s: %.300s", host, why->text);
    cluster_alert(c, ALERT_OTHER_VERSION, text);
}

/* One list of peers for all nodes names each to itself, too. The address is looked at again after a while:
 * names move, and whoever answers has proved nothing. */
void target_is_self(struct cluster *c, uint64_t tag) {
    struct target *t = &c->target[tag % TARGETS];
    t->is_dialling = false;
    t->n_other_key = 0;
    t->has_other_key = false;
    *t->why = '\0';
    t->next_addr++;
    t->next_ns = clock_ns() + SELF_NS;
    if (!t->is_named) return;
    ask_where(c, t);
    if (t->is_self) return;
    t->is_self = true;
    log_info("cluster", "peer %s is this node itself", c->conf.peer[t->peer]);
    members_expect_less(c->members);
}

void target_failed(struct cluster *c, uint64_t tag, enum gate_end how, const struct err *why) {
    struct target *t = &c->target[tag % TARGETS];
    if (how == GATE_VERSION && t->n_addr) tell_version(c, t, why);
    t->is_dialling = false;
    if (t->is_named) snprintf(t->why, sizeof t->why, "%.*s", ERR_TEXT - 1, why->text);
    t->has_other_key = how == GATE_WRONG_KEY;
    t->n_other_key += t->has_other_key;
    t->next_addr++;
    /* Of several addresses each is tried before it counts. */
    bool all_failed = t->n_addr && t->next_addr % t->n_addr == 0;
    if (all_failed) t->failures++;
    t->next_ns = clock_ns() + dial_pause(t->failures);
    if (all_failed && t->is_named) ask_where(c, t);  // it may have moved
}

static void hear_where(struct cluster *c, struct target *t, uint64_t now) {
    struct lookup_result r;
    if (!t->is_asked || !lookup_take(c->lookup, t->peer, &r)) return;
    t->is_asked = false;
    take_addrs(t, &r);
    if (t->n_addr) return;
    if (!t->failures++) {
        log_warn("cluster", "peer %s cannot be resolved yet; it is asked for again and again",
                 c->conf.peer[t->peer]);
    }
    t->next_ns = now + dial_pause(t->failures);
}

void targets_dial(struct cluster *c, uint64_t now) {
    for (unsigned i = 0; i < TARGETS; i++) {
        struct target *t = &c->target[i];
        if (!t->is_used || t->is_dialling) continue;
        if (t->is_named) hear_where(c, t, now);
        if (now < t->next_ns) continue;
        if (t->is_named && !t->n_addr) ask_where(c, t);
        if (!t->n_addr) continue;
        if (t->has_id && link_find(c, &t->id)) continue;
        t->is_dialling = true;
        gate_dial(c->gate, &t->addr[t->next_addr % t->n_addr], CHAN_CONTROL, 0, i);
    }
}
