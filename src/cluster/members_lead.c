/* members_lead.c - who leads, over whom, and when an epoch begins and ends. */
#include "cluster/members_own.h"

#include <assert.h>
#include <stdio.h>

/* --- sets of peers: a bit for each slot of the table --- */

static bool guest_ranks(bool a_guest, const struct node_id *a, bool b_guest,
                        const struct node_id *b) {
    return a_guest != b_guest ? b_guest : ident_cmp(a, b) < 0;
}

static bool peer_before(const struct peer *a, const struct peer *b) {
    return guest_ranks(a->facts.is_guest, &a->id, b->facts.is_guest, &b->id);
}

static bool ranks_before(const struct members *m, const struct peer *p) {
    return guest_ranks(m->conf.facts.is_guest, &m->conf.self, p->facts.is_guest, &p->id);
}

static bool is_leader(const struct peer *p) {
    return p->has_beat && !p->is_leaving && is_same(&p->beat.leader, &p->id);
}

static bool is_linked(const struct peer *p) {
    return p->has_beat && p->hears_us && !p->is_leaving;
}

static bool is_fresh(const struct peer *p, uint64_t now) {
    return now - p->heard_ns < FRESH_MS * MS;
}

bool is_doubtful(const struct peer *p, uint64_t now) {
    uint64_t half = peer_patience(p) / 2, fresh = FRESH_MS * MS;
    return now - p->heard_ns >= (half > fresh ? half : fresh);
}

static bool is_out(struct members *m, const struct node_id *id, uint64_t now) {
    const struct past *past = past_find(m, id);
    return past && !is_due(m, now, past->out_until_ns);
}

/* Whom it follows leaves it free for us: nobody, us, one whom we lost too, or a leader whom we see as
 * well and who has to give way to us. */
static bool is_free(struct members *m, struct peer *p, uint64_t now) {
    const struct node_id *l = &p->beat.leader;
    if (is_zero(l) || is_same(l, &m->conf.self)) return true;
    if (is_same(l, &m->lost) && p->beat.epoch <= m->lost_epoch &&
        !is_due(m, now, m->lost_ns + PENDING_MS * MS)) {
        return true;
    }
    struct peer *leader = is_same(l, &p->id) ? p : peer_find(m, l);
    return leader && is_leader(leader) && is_linked(leader) && !is_out(m, l, now) &&
           ranks_before(m, leader);
}

/* Whether p may work in a plan of ours. One that was just given a plan and has not shown it yet by a
 * beat is believed to take it. */
static bool is_available(struct members *m, struct peer *p, uint64_t now) {
    if (!is_linked(p) || !is_able(m, p) || is_out(m, &p->id, now)) return false;
    if (!is_due(m, now, p->hold_ns)) return false;
    if (leads(m) && works(m, p) && !p->is_joined) return true;
    return is_free(m, p, now);
}

static bool hears(const struct members *m, unsigned a, unsigned b) {
    const struct peer *p = &m->peer[a];
    if (p->hears >> b & 1) return true;
    return p->deaf_ns[b] && m->now_ns - p->deaf_ns[b] < DEAF_MS * MS;
}

static bool is_link(const struct members *m, unsigned a, unsigned b) {
    return hears(m, a, b) && hears(m, b, a);
}

/* Leave out who misses most links to the others, of equals the last in rank, until all are linked. */
static uint32_t clique(const struct members *m, uint32_t set) {
    for (;;) {
        unsigned most = 0, out = 0;
        for (unsigned i = 0; i < MEMBER_MAX; i++) {
            unsigned missing = 0;
            for (unsigned j = 0; (set >> i & 1) && j < MEMBER_MAX; j++) {
                if ((set >> j & 1) && j != i && !is_link(m, i, j)) missing++;
            }
            if (missing > most ||
                (missing && missing == most && peer_before(&m->peer[out], &m->peer[i]))) {
                most = missing;
                out = i;
            }
        }
        if (!most) return set;
        set &= ~(1U << out);
    }
}

static unsigned count(uint32_t set) {
    return (unsigned)__builtin_popcount(set);
}

/* The first n in rank. */
static uint32_t first_of(const struct members *m, uint32_t set, unsigned n) {
    while (count(set) > n) {
        int last = -1;
        for (int i = 0; i < MEMBER_MAX; i++) {
            if ((set >> i & 1) && (last < 0 || peer_before(&m->peer[last], &m->peer[i]))) last = i;
        }
        set &= ~(1U << last);
    }
    return set;
}

/* Of these the ones for a plan: those that work already before others, all linked. */
static uint32_t choose(const struct members *m, uint32_t set) {
    uint32_t old = 0, all = 0;
    for (unsigned i = 0; i < MEMBER_MAX; i++) {
        if ((set >> i & 1) && works(m, &m->peer[i])) old |= 1U << i;
    }
    old = first_of(m, clique(m, old), PLAN_NODES - 1);
    for (unsigned i = 0; i < MEMBER_MAX; i++) {
        bool is_in = set >> i & 1 && !(old >> i & 1);
        for (unsigned j = 0; j < MEMBER_MAX && is_in; j++) {
            is_in = !(old >> j & 1) || is_link(m, i, j);
        }
        if (is_in) all |= 1U << i;
    }
    return old | first_of(m, clique(m, all), PLAN_NODES - 1 - count(old));
}

static uint32_t available(struct members *m, uint64_t now) {
    uint32_t set = 0;
    if (m->conf.facts.is_guest) return 0;
    for (unsigned i = 0; i < MEMBER_MAX; i++) {
        if (m->peer[i].is_used && is_available(m, &m->peer[i], now)) set |= 1U << i;
    }
    return set;
}

static uint32_t only_fresh(const struct members *m, uint32_t set, uint64_t now) {
    for (unsigned i = 0; i < MEMBER_MAX; i++) {
        if (!is_fresh(&m->peer[i], now)) set &= ~(1U << i);
    }
    return set;
}

/* --- epochs --- */

void set_serving(struct members *m, bool is_on) {
    if (m->is_serving != is_on) past_serves(m, is_on);
    m->is_serving = is_on;
}

void end_epoch(struct members *m) {
    if (!m->has_plan) return;
    set_serving(m, false);
    m->has_plan = m->is_loaded = false;
    act(m, ACT_ABANDON)->epoch = m->epoch;
}

static void end_remote(struct members *m) {
    if (!m->is_remote) return;
    act(m, ACT_ABANDON)->epoch = m->remote_epoch;
    m->is_remote = false;
    m->remote_epoch = 0;
}

/* Our leader is gone or leads no longer. `epoch`: in which it was followed. */
void lose_leader(struct members *m, uint64_t epoch, uint64_t now) {
    m->lost = m->leader;
    m->lost_ns = now;
    m->lost_epoch = epoch;
    m->leader = (struct node_id){{0}};
    cancel_plan(m);
    end_epoch(m);
    end_remote(m);
}

/* Who was in the plan before and is not in this one was lost. */
static void note_members(struct members *m, const struct plan *p, uint64_t now) {
    for (unsigned i = 0; i < m->plan.n_node; i++) {
        const struct node_id *id = &m->plan.node[i];
        const struct peer *peer = peer_find(m, id);
        if (is_same(id, &m->conf.self) || plan_slice(p, id) >= 0) continue;
        if (peer && peer->is_leaving) {
            past_left(m, id, now);
        } else if (peer) {
            past_out(m, id, now);
        } else {
            past_lost(m, id, now);
        }
    }
    for (unsigned i = 0; i < p->n_node; i++) {
        if (!is_same(&p->node[i], &m->conf.self)) past_in(m, &p->node[i], now);
    }
}

static void adopt(struct members *m, const struct plan *p, uint64_t now) {
    set_serving(m, false);
    note_members(m, p, now);
    if (!is_same(&m->leader, &p->leader)) m->has_served = false;
    m->plan = *p;
    m->epoch = p->epoch;
    m->leader = p->leader;
    see_epoch(m, p->epoch);
    m->lost = (struct node_id){{0}};
    m->adopted_ns = now;
    m->has_plan = m->is_started = true;
    m->is_loaded = m->is_broken = m->is_failed = false;
    cancel_plan(m);
    m->is_remote = false;
    m->remote_epoch = m->differs_ns = 0;
    for (unsigned i = 0; i < MEMBER_MAX; i++) {
        struct peer *peer = &m->peer[i];
        peer->is_ready = peer->is_joined = false;
        peer->progress_ns = now;
    }
    struct action *a = act(m, ACT_ADOPT);
    a->id = p->leader;
    a->epoch = p->epoch;
    a->instance = p->instance[0];
    a->plan = &m->plan;
}

static bool has_token(struct members *m, uint64_t now) {
    if (!m->refill_ns) m->refill_ns = now;
    while (m->n_token < TOKENS && m->refill_ns <= now) {
        m->n_token++;
        m->refill_ns += 1000 * MS;
    }
    if (m->n_token == TOKENS) m->refill_ns = now + 1000 * MS;
    return m->n_token || is_due(m, now, m->refill_ns);
}

static void ask_plan(struct members *m, uint32_t set) {
    struct action *a = act(m, ACT_PLAN);
    m->n_token--;
    m->is_planning = true;
    m->is_broken = false;
    m->plan_epoch = ++m->seen;
    a->id = m->conf.self;
    a->instance = m->conf.instance;
    a->epoch = m->plan_epoch;
    a->set[0] = m->conf.self;
    m->asked[0] = m->conf.self;
    m->asked_instance[0] = m->conf.instance;
    a->n_set = 1;
    while (set) {
        unsigned next = MEMBER_MAX;
        for (unsigned i = 0; i < MEMBER_MAX; i++) {
            bool is_in = set >> i & 1;
            if (is_in && (next == MEMBER_MAX || peer_before(&m->peer[i], &m->peer[next]))) next = i;
        }
        set &= ~(1U << next);
        m->asked[a->n_set] = m->peer[next].id;
        m->asked_instance[a->n_set] = m->peer[next].instance;
        a->set[a->n_set++] = m->peer[next].id;
    }
    m->n_asked = a->n_set;
    m->differs_ns = 0;
}

static bool was_asked(const struct members *m, const struct peer *p) {
    for (unsigned i = 0; i < m->n_asked; i++) {
        if (is_same(&m->asked[i], &p->id)) return m->asked_instance[i] == p->instance;
    }
    return false;
}

/* Anybody who was not thought of in the last plan? */
static bool has_new(const struct members *m, uint32_t set) {
    for (unsigned i = 0; i < MEMBER_MAX; i++) {
        if ((set >> i & 1) && !was_asked(m, &m->peer[i])) return true;
    }
    return false;
}

/* --- leading --- */

static bool has_lost(const struct members *m, uint32_t set) {
    unsigned n = 0;
    for (unsigned i = 0; i < MEMBER_MAX; i++) n += (set >> i & 1) && works(m, &m->peer[i]);
    return n + 1 < m->plan.n_node;
}

static void leave_out_slow(struct members *m, uint64_t now) {
    for (unsigned i = 0; i < MEMBER_MAX; i++) {
        struct peer *p = &m->peer[i];
        if (!p->is_used || !works(m, p) || p->is_ready) continue;
        if (!is_due(m, now, p->progress_ns + READY_MS * MS)) continue;
        alert(m, ALERT_LEFT_OUT, "%s did not get ready in %d s and is left out for a while",
              p->facts.name, READY_MS / 1000);
        past_punish(m, &p->id, now);
    }
}

static bool all_ready(const struct members *m) {
    for (unsigned i = 0; i < m->plan.n_node; i++) {
        if (is_same(&m->plan.node[i], &m->conf.self)) continue;
        bool is_there = false;
        for (unsigned j = 0; j < MEMBER_MAX; j++) {
            const struct peer *p = &m->peer[j];
            if (p->is_used && is_same(&p->id, &m->plan.node[i])) is_there = p->is_ready;
        }
        if (!is_there) return false;
    }
    return true;
}

static void serve(struct members *m) {
    if (!m->has_plan || m->is_serving || !m->is_loaded || m->is_broken || !all_ready(m)) return;
    set_serving(m, true);
    m->has_served = true;
    for (unsigned i = 0; i < MEMBER_MAX; i++) m->peer[i].n_refused = 0;
    struct action *a = act(m, ACT_SERVE);
    a->id = m->conf.self;
    a->instance = m->conf.instance;
    a->epoch = m->epoch;
    a->n_set = m->plan.n_node;
    memcpy(a->set, m->plan.node, sizeof a->set);
}

/* Lost or broken: a new plan at once. */
static void replan(struct members *m, uint32_t set, uint64_t now) {
    if (is_due(m, now, m->plan_ns) && has_token(m, now)) {
        ask_plan(m, choose(m, only_fresh(m, set, now)));
    } else {
        end_epoch(m);
    }
}

static void lead(struct members *m, uint64_t now) {
    if (m->is_planning) return;
    if (m->has_plan && !m->is_serving) leave_out_slow(m, now);
    uint32_t set = available(m, now), wanted = choose(m, set);
    if (!m->has_plan || m->is_broken || has_lost(m, wanted)) {
        replan(m, set, now);
        return;
    }
    serve(m);
    if (!has_new(m, wanted)) {
        m->differs_ns = 0;
        return;
    }
    if (!m->differs_ns) m->differs_ns = now;
    if (wanted != m->wanted) m->wanted_ns = now;
    m->wanted = wanted;
    bool is_quiet = is_due(m, now, m->wanted_ns + QUIET_MS * MS) ||
                    is_due(m, now, m->differs_ns + CHANGE_MAX_MS * MS);
    if (!is_quiet || !has_token(m, now)) return;
    uint32_t fresh = only_fresh(m, set, now);
    for (unsigned i = 0; i < MEMBER_MAX; i++) {
        if (works(m, &m->peer[i]))
            fresh |= set & 1U << i;  // who works is given time until it is lost
    }
    ask_plan(m, choose(m, fresh));
}

/* --- without a plan: follow whoever leads, or begin --- */

/* Our requests are tokens of our model. A node that never had one takes none, and only shows a leader. */
static bool may_follow(const struct members *m, const struct peer *p) {
    if (!p->is_used || !is_linked(p) || !is_leader(p) || p->facts.is_guest) return false;
    bool has_model = m->conf.facts.model || m->conf.gave_up;
    return has_model ? is_alike(m, p) : p->facts.model != 0;
}

static const struct peer *best_leader(const struct members *m) {
    const struct peer *best = NULL;
    for (unsigned i = 0; i < MEMBER_MAX; i++) {
        const struct peer *p = &m->peer[i];
        if (may_follow(m, p) && (!best || peer_before(p, best))) best = p;
    }
    return best;
}

/* Its beats tell whether it takes work from us, who have no part in its plan. */
static void follow(struct members *m, const struct peer *p) {
    if (!is_same(&m->leader, &p->id)) end_remote(m);
    m->leader = p->id;
    m->is_started = true;
    m->is_failed = false;
    bool serves = p->beat.state == STATE_READY || p->beat.state == STATE_DEGRADED;
    bool is_ours = p->beat.epoch == m->epoch && is_same(&p->id, &m->plan.leader);
    if (!serves || !p->beat.epoch || is_ours) {
        end_remote(m);
    } else if (m->remote_epoch != p->beat.epoch) {
        m->is_remote = true;
        m->remote_epoch = p->beat.epoch;
        struct action *a = act(m, ACT_SERVING);
        a->id = p->id;
        a->instance = p->instance;
        a->epoch = p->beat.epoch;
    }
}

/* After a start others are given time to appear. */
static bool is_start_over(struct members *m, uint64_t now) {
    if (m->is_started || m->conf.is_alone) return true;
    unsigned n = 0;
    for (unsigned i = 0; i < MEMBER_MAX; i++) n += m->peer[i].is_used;
    uint64_t at = m->start_ns + START_MS * MS, most = m->start_ns + START_MAX_MS * MS;
    if (m->appear_ns + QUIET_MS * MS > at) at = m->appear_ns + QUIET_MS * MS;
    if (n < m->conf.expected || at > most) at = most;
    if (!is_due(m, now, at)) return false;
    m->is_started = true;
    return true;
}

/* Somebody else ought to lead. */
static bool must_wait(const struct members *m, uint32_t set) {
    for (unsigned i = 0; i < MEMBER_MAX; i++) {
        const struct peer *p = &m->peer[i];
        if (!p->is_used) continue;
        if (m->conf.facts.is_guest && is_linked(p) && is_able(m, p) && !p->facts.is_guest)
            return true;
        bool is_first = (set >> i & 1) && !ranks_before(m, p);
        if (is_first && p->beat.state != STATE_FAILED) return true;
    }
    return false;
}

static void look(struct members *m, uint64_t now) {
    const struct peer *leader = best_leader(m);
    if (leader) {
        cancel_plan(m);
        follow(m, leader);
        return;
    }
    m->leader = (struct node_id){{0}};
    end_remote(m);
    if (!m->conf.facts.model || !is_start_over(m, now) || m->is_planning) return;
    uint32_t set = only_fresh(m, available(m, now), now);
    if (!is_due(m, now, m->plan_ns) || !is_due(m, now, m->unfit_ns) || must_wait(m, set)) return;
    uint32_t chosen = choose(m, set);
    if (m->is_failed && !m->unfit_ns && count(chosen) + 1 == m->n_asked && !has_new(m, chosen)) {
        return;  // nothing has changed since no plan was possible
    }
    if (has_token(m, now)) ask_plan(m, chosen);
}

/* A leader unheard of for a while, whom another member of the plan has lost already, is lost. */
static void doubt_leader(struct members *m, uint64_t now) {
    struct peer *l = m->has_plan && !leads(m) ? peer_find(m, &m->leader) : NULL;
    if (!l || !is_doubtful(l, now)) return;
    for (unsigned i = 0; i < MEMBER_MAX; i++) {
        const struct peer *p = &m->peer[i];
        if (!p->is_used || p == l || !works(m, p) || !p->has_beat || !is_fresh(p, now)) continue;
        if (is_same(&p->beat.leader, &l->id) || (p->hears >> (l - m->peer) & 1)) continue;
        peer_drop(m, l, now);
        return;
    }
}

static void drop_silent(struct members *m, uint64_t now) {
    for (unsigned i = 0; i < MEMBER_MAX; i++) {
        struct peer *p = &m->peer[i];
        if (!p->is_used) continue;
        bool is_gone = is_due(m, now, p->heard_ns + peer_patience(p));
        bool is_deaf = is_due(m, now, p->listed_ns + ONE_WAY_MS * MS);
        if (is_gone || is_deaf) peer_drop(m, p, now);
    }
}

void settle(struct members *m, uint64_t now) {
    m->wake_ns = now + BEAT_NS;
    drop_silent(m, now);
    doubt_leader(m, now);
    if (m->is_leaving) return;
    if (leads(m)) {
        lead(m, now);
    } else if (!m->has_plan) {
        look(m, now);
    }
}

/* --- what came of it --- */

void members_planned(struct members *m, const struct plan *p, const char *why, uint64_t now_ns) {
    now_ns = advance(m, now_ns);
    /* Another's plan may have come in between. */
    if (!m->is_planning || (p && p->epoch != m->plan_epoch)) return;
    m->is_planning = false;
    if (p) {
        assert(is_same(&p->leader, &m->conf.self));
        adopt(m, p, now_ns);
    } else {
        end_epoch(m);
        m->leader = (struct node_id){{0}};
        m->is_failed = true;
        m->unfit_ns = 0;
        snprintf(m->why, sizeof m->why, "%s", why ? why : "no plan is possible");
        alert(m, ALERT_NO_PLAN, "cannot serve: %.380s", m->why);
    }
    members_tick(m, now_ns);
}

/* The leader's own work failed again and again: others may do better. */
static void resign(struct members *m, uint64_t now) {
    end_epoch(m);
    m->leader = (struct node_id){{0}};
    m->is_failed = true;
    m->unfit_ns = now + 10000 * MS;
    snprintf(m->why, sizeof m->why, "this node's own work fails again and again; see its log");
    alert(m, ALERT_OWN_WORK, "%s", m->why);
}

void on_broken(struct members *m, const struct node_id *by, const struct node_id *suspect,
               uint64_t now) {
    struct peer *p = peer_find(m, suspect);
    m->is_broken = true;
    set_serving(m, false);
    if (m->plan_ns < now + BREAK_MS * MS) m->plan_ns = now + BREAK_MS * MS;
    bool is_self = is_same(suspect, &m->conf.self);
    if (!p && !is_self) return;      // it is known to be dead: nobody's channel is to blame
    if (p && is_doubtful(p, now)) {  // dead rather than cut off from one
        peer_drop(m, p, now);
        return;
    }
    const struct node_id *guilty = past_blame(m, by, suspect, now);
    if (!guilty) return;
    if (is_same(guilty, &m->conf.self)) {
        resign(m, now);
        return;
    }
    const struct peer *g = peer_find(m, guilty);
    if (g) {
        alert(m, ALERT_LEFT_OUT,
              "the channel between nodes broke twice in a short time: %s is left out for a while",
              g->facts.name);
    }
    past_punish(m, guilty, now);
}

static void refuse(struct members *m, const struct peer *p, const struct plan *plan,
                   enum refused_reason reason, const char *why) {
    struct action *a = act(m, ACT_REFUSE);
    a->id = p->id;
    a->instance = p->instance;
    a->epoch = plan->epoch;
    a->reason = reason;
    snprintf(a->text, sizeof a->text, "%s", why);
    m->is_beat_due = true;  // it shows which epoch is the highest
}

void on_plan(struct members *m, const struct peer *p, const struct plan *plan, uint64_t now) {
    int self = plan_slice(plan, &m->conf.self);
    bool is_odd = plan->epoch > m->seen + EPOCH_JUMP;
    see_epoch(m, plan->epoch);
    if (!is_same(&plan->leader, &p->id) || plan->instance[0] != p->instance || self < 1) return;
    if (plan->instance[self] != m->conf.instance) return;  // meant for our former self
    if (!is_able(m, p) || plan->model != m->conf.facts.model) {
        refuse(m, p, plan, REFUSED_MODEL, "the plan is for another model than this node's");
        return;
    }
    if (m->is_leaving || p->facts.is_guest || plan->epoch <= m->epoch || is_odd) {
        refuse(m, p, plan, REFUSED_LEADER,
               "the epoch is over or out of reach, or this node leaves");
        return;
    }
    const struct peer *l = leads(m) || is_zero(&m->leader) ? NULL : peer_find(m, &m->leader);
    bool is_ours = leads(m) && ranks_before(m, p);
    bool is_other = l && l != p && peer_before(l, p) &&
                    !(is_doubtful(l, now) && !is_same(&p->beat.leader, &l->id));
    if (is_ours || is_other) {
        refuse(m, p, plan, REFUSED_LEADER, "this node has a leader that lives");
        return;
    }
    adopt(m, plan, now);
}

void on_refused(struct members *m, struct peer *p, const struct msg *msg, uint64_t now) {
    if (!leads(m) || !m->has_plan || msg->epoch != m->epoch || !works(m, p)) return;
    m->is_broken = true;
    set_serving(m, false);
    if (msg->u.refused.reason != REFUSED_LEADER) {
        alert(m, ALERT_LEFT_OUT, "%s cannot do its part: %.350s", p->facts.name,
              msg->u.refused.why);
        past_punish(m, &p->id, now);
        return;
    }
    uint64_t hold = (uint64_t)BACK_OFF_MS << (p->n_refused < 5 ? p->n_refused : 5);
    p->n_refused++;
    p->hold_ns = now + (hold < HOLD_MAX_MS ? hold : HOLD_MAX_MS) * MS;
    m->plan_ns = now + BACK_OFF_MS * MS;
    /* Who never served steps back: the leader that this node still hears may be seen by then. */
    if (!m->has_served) lose_leader(m, m->epoch, now);
}
