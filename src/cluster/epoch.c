/* epoch.c - the channels of one epoch: made for it, and gone with it.
 *
 * Who dialled the control channel dials here, too: behind a firewall that may be the only way. A channel
 * may arrive before the plan that it belongs to (the control channel is another connection): it is held
 * for a moment. */
#include "base/clock.h"
#include "base/log.h"
#include "cluster/cluster_state.h"

#include <stdlib.h>
#include <string.h>

void epoch_release(struct epoch *e) {
    if (!e || atomic_fetch_sub(&e->refs, 1) != 1) return;
    mesh_close(e->mesh);
    free(e);
}

void epoch_end(struct cluster *c) {
    struct epoch *e = c->epoch;
    if (!e) return;
    c->epoch = NULL;
    c->is_joining = false;
    atomic_store(&e->is_over, true);
    atomic_store(&e->is_serving, false);
    mesh_abort(e->mesh);
    struct past_epoch *oldest = &c->past[0];
    for (unsigned i = 1; i < PAST_EPOCHS; i++) {
        if (c->past[i].until_ns < oldest->until_ns) oldest = &c->past[i];
    }
    epoch_release(oldest->epoch);
    *oldest = (struct past_epoch){.epoch = e, .until_ns = clock_ns() + PAST_NS};
    c->conf.events.on_change(c->conf.events.ctx);
}

static int slice_of(const struct plan *p, const struct gate_peer *peer) {
    int s = plan_slice(p, &peer->id);
    return s >= 0 && p->instance[s] == peer->instance ? s : -1;
}

static void link_data(struct cluster *c, struct chan *ch, const struct gate_peer *peer) {
    int s = slice_of(&c->epoch->plan, peer);
    const struct link *l = link_find(c, &peer->id);
    if (s >= 0 && peer->is_dialled) c->dial[s].is_dialling = false;
    /* Both have dialled where the control channel was made anew, by the other side, in between. */
    bool is_wrong = l && l->peer.is_dialled != peer->is_dialled;
    if (s < 0 || (unsigned)s == c->epoch->self || is_wrong) {
        chan_close(ch);
        return;
    }
    c->dial[s].is_linked = true;
    mesh_link(c->epoch->mesh, (unsigned)s, ch);
}

MUST epoch_adopt(struct cluster *c, const struct plan *p, struct err *e) {
    int self = plan_slice(p, &c->conf.ident->id);
    struct cuts cuts;
    if (self < 0) return err_set(e, ERR_FORMAT, "a plan without us");
    if (!c->conf.model) return err_set(e, ERR_UNSUPPORTED, "this node has no model");
    /* What came over the wire is checked in full before anything is built on it. */
    if (!plan_cuts(p, c->conf.model, &cuts, e)) return false;
    epoch_end(c);
    struct epoch *ep = calloc(1, sizeof *ep);
    if (!ep) return err_set(e, ERR_MEMORY, "no memory for an epoch");
    ep->plan = *p;
    ep->self = (unsigned)self;
    atomic_store(&ep->refs, 2);
    if (!mesh_open(&ep->mesh, ep->self, p->n_node, plan_widest(c->conf.model, p->n_batch), e)) {
        free(ep);
        return false;
    }
    c->epoch = ep;
    c->n_epoch++;
    memset(c->dial, 0, sizeof c->dial);
    for (unsigned i = 0; i < HELD_DATA; i++) {
        struct held *h = &c->held[i];
        if (!h->chan || h->peer.epoch != p->epoch) continue;
        struct chan *ch = h->chan;
        h->chan = NULL;
        link_data(c, ch, &h->peer);
    }
    c->conf.events.on_epoch(c->conf.events.ctx, ep);
    epoch_dial(c, clock_ns());
    return true;
}

void epoch_take(struct cluster *c, struct chan *ch, const struct gate_peer *p) {
    if (c->epoch && c->epoch->plan.epoch == p->epoch) {
        link_data(c, ch, p);
        return;
    }
    struct held *room = NULL;
    bool is_early = !c->epoch || p->epoch > c->epoch->plan.epoch;
    for (unsigned i = 0; i < HELD_DATA && is_early && !room; i++) {
        if (!c->held[i].chan) room = &c->held[i];
    }
    if (!room) {
        chan_close(ch);
        return;
    }
    *room = (struct held){.chan = ch, .peer = *p, .until_ns = clock_ns() + HELD_NS};
}

void epoch_forget(struct cluster *c, uint64_t now) {
    for (unsigned i = 0; i < HELD_DATA; i++) {
        if (!c->held[i].chan || now < c->held[i].until_ns) continue;
        chan_close(c->held[i].chan);
        c->held[i].chan = NULL;
    }
    for (unsigned i = 0; i < PAST_EPOCHS; i++) {
        if (!c->past[i].epoch || now < c->past[i].until_ns) continue;
        epoch_release(c->past[i].epoch);
        c->past[i] = (struct past_epoch){0};
    }
}

/* A data channel's tag: the slice and the low bits of its epoch. */
static uint64_t data_tag(uint64_t epoch, unsigned slice) {
    return (uint64_t)1 << TAG_DATA_BIT | (epoch & 0xffffffff) << 8 | slice;
}

void epoch_failed(struct cluster *c, uint64_t tag) {
    unsigned slice = tag & 0xff;
    if (!c->epoch || slice >= PLAN_NODES || tag != data_tag(c->epoch->plan.epoch, slice)) return;
    struct data_dial *d = &c->dial[slice];
    uint64_t now = clock_ns();
    d->is_dialling = false;
    d->next_ns = now + DIAL_AGAIN_NS;
    if (now < d->begun_ns + DIAL_GIVE_UP_NS) return;
    d->begun_ns = now;
    cluster_broke(c, c->epoch->plan.epoch, (int)slice, "it cannot be reached for a data channel");
}

void epoch_dial(struct cluster *c, uint64_t now) {
    const struct epoch *e = c->epoch;
    for (unsigned i = 0; e && i < e->plan.n_node; i++) {
        struct data_dial *d = &c->dial[i];
        if (i == e->self || d->is_linked || d->is_dialling || now < d->next_ns) continue;
        const struct link *l = link_find(c, &e->plan.node[i]);
        if (!l || !l->peer.is_dialled) {  // none: members.c sees to it
            d->begun_ns = 0;
            continue;
        }
        if (!d->begun_ns) d->begun_ns = now;
        d->is_dialling = true;
        gate_dial(c->gate, &l->peer.addr, CHAN_DATA, e->plan.epoch, data_tag(e->plan.epoch, i));
    }
}
