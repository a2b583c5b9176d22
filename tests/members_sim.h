/* members_sim.h - a network of simulated nodes: the real state machine and message codec; time, links,
 * loading and dying are the test's. Steps of 10 ms, everything drawn from one seed.
 *
 * A channel is a pair of ordered streams: what cannot pass waits and comes late (as TCP does), unless
 * the channel is closed meanwhile. Links fail in each direction by itself, with a reset or in silence.
 * Data channels are modelled as a condition: all nodes of the plan reach each other and are at the
 * same epoch; otherwise loading does not end, or the epoch breaks. */
#ifndef TESTS_MEMBERS_SIM_H
#define TESTS_MEMBERS_SIM_H

#include "cluster/members.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SIM_NODES = 16, SIM_QUEUE = 128, SIM_BYTES = 1024, SIM_STEP_MS = 10, SIM_MS = 1000000 };

struct sim_packet {
    uint64_t at_ns;
    uint32_t conn;
    uint16_t len;  // 0: the channel was closed
    uint8_t bytes[SIM_BYTES];
};

struct sim_pipe {
    unsigned first, n;
    struct sim_packet *packet;  // [SIM_QUEUE]
};

struct sim_node {
    struct members *m;  // NULL: not alive
    struct facts facts;
    uint64_t gave_up;
    uint64_t instance, tick_ns, beat_ns;
    uint32_t conn[SIM_NODES];  // our end of the channel to each, 0: none
    uint64_t sequence[SIM_NODES], down_ns[SIM_NODES], dial_ns[SIM_NODES];
    bool is_stuck;     // never gets its weights loaded
    bool cannot_plan;  // as a leader
    uint32_t load_ms;  // 0: random
    /* what it works on */
    bool is_working, is_loaded, is_serving;
    uint64_t epoch, leader_no, load_ns, broke_ns, last_epoch;
    unsigned suspect;
    struct plan plan;
    uint64_t ready_epoch;  // said READY for
    unsigned ready_leader;
    /* for tests */
    unsigned n_adopt, n_alert, n_refuse, n_serving;
    uint64_t serving_ns;         // since when
    enum alert_code alert_code;  // of the last one
    char alert[300];
};

struct sim {
    uint64_t rng, now_ns;
    unsigned n;
    uint32_t last_conn;
    struct sim_node node[SIM_NODES];
    struct sim_pipe pipe[SIM_NODES][SIM_NODES];
    bool cut[SIM_NODES][SIM_NODES];       // from i to j nothing passes
    bool bad_data[SIM_NODES][SIM_NODES];  // data channels break soon after they are up
    uint32_t delay_ms, load_ms;           // at most
    bool is_silent;                       // cuts and deaths send no resets
    unsigned n_wrong;                     // invariants that were violated
    char wrong[200];
};

static inline uint64_t sim_random(struct sim *s, uint64_t below) {
    s->rng ^= s->rng << 13;
    s->rng ^= s->rng >> 7;
    s->rng ^= s->rng << 17;
    return (s->rng >> 11) % below;
}

__attribute__((format(printf, 2, 3))) static inline void sim_wrong(struct sim *s, const char *fmt,
                                                                   ...) {
    va_list ap;
    va_start(ap, fmt);
    if (!s->n_wrong++) vsnprintf(s->wrong, sizeof s->wrong, fmt, ap);
    va_end(ap);
}

static inline struct node_id sim_id(unsigned i) {
    struct node_id id = {{1, (uint8_t)(i + 1)}};
    return id;
}

static inline unsigned sim_no(const struct node_id *id) {
    return id->b[1] - 1U;
}

static inline bool sim_both(const struct sim *s, unsigned i, unsigned j) {
    return !s->cut[i][j] && !s->cut[j][i];
}

/* --- channels --- */

static inline void sim_push(struct sim *s, unsigned from, unsigned to, const uint8_t *p,
                            size_t len) {
    struct sim_pipe *q = &s->pipe[from][to];
    if (q->n == SIM_QUEUE) return;  // the channel is closed for it below
    struct sim_packet *k = &q->packet[(q->first + q->n) % SIM_QUEUE];
    k->at_ns = s->now_ns + (1 + sim_random(s, s->delay_ms)) * SIM_MS;
    if (q->n) {
        uint64_t before = q->packet[(q->first + q->n - 1) % SIM_QUEUE].at_ns;
        if (k->at_ns < before) k->at_ns = before;
    }
    k->conn = s->node[from].conn[to];
    k->len = (uint16_t)len;
    if (len) memcpy(k->bytes, p, len);
    q->n++;
}

static void sim_drain(struct sim *s, unsigned i);

static inline void sim_close(struct sim *s, unsigned i, unsigned j) {
    if (!s->node[i].conn[j]) return;
    sim_push(s, i, j, NULL, 0);
    s->node[i].conn[j] = 0;
    s->node[i].dial_ns[j] = s->now_ns + (100 + sim_random(s, 300)) * SIM_MS;
}

static inline void sim_send(struct sim *s, unsigned i, unsigned j, struct msg *m) {
    uint8_t out[SIM_BYTES];
    if (!s->node[i].conn[j]) return;
    m->sequence = ++s->node[i].sequence[j];
    size_t n = msg_encode(m, out, sizeof out);
    if (!n) sim_wrong(s, "%s does not encode", msg_name(m->type));
    if (s->pipe[i][j].n >= SIM_QUEUE - 2) {
        struct node_id id = sim_id(j);
        sim_close(s, i, j);
        members_down(s->node[i].m, &id, s->now_ns);
        return;
    }
    sim_push(s, i, j, out, n);
}

static inline void sim_all(struct sim *s, unsigned i, struct msg *m, const struct plan *p) {
    for (unsigned j = 0; j < s->n; j++) {
        struct node_id id = sim_id(j);
        if (j != i && (!p || plan_slice(p, &id) >= 0)) sim_send(s, i, j, m);
    }
}

static inline void sim_beat(struct sim *s, unsigned i) {
    struct sim_node *n = &s->node[i];
    static struct msg m;
    m = (struct msg){.type = MSG_BEAT};
    members_beat(n->m, &m.u.beat);
    /* What is loaded shows in the beats, unless nothing moves. */
    if (n->is_working && s->now_ns < n->load_ns && !n->is_stuck) m.u.beat.pinned_bytes = s->now_ns;
    n->beat_ns = s->now_ns + BEAT_NS;
    sim_all(s, i, &m, NULL);
}

/* --- what a node does --- */

static inline void sim_make_plan(struct sim *s, unsigned i, const struct action *a) {
    static struct plan p;
    struct sim_node *n = &s->node[i];
    if (n->cannot_plan) {
        members_planned(n->m, NULL, "no room for the model", s->now_ns);
        return;
    }
    p = (struct plan){.epoch = a->epoch, .leader = a->set[0], .model = n->facts.model};
    p.n_node = (uint8_t)a->n_set;
    p.n_ctx = p.n_batch = p.n_sweep = p.n_seq = p.safe_seq = 1;
    for (unsigned k = 0; k < a->n_set; k++) {
        unsigned j = sim_no(&a->set[k]);
        p.node[k] = a->set[k];
        p.instance[k] = n->instance;
        struct member_view view[MEMBER_MAX];
        unsigned n_view = k ? members_list(n->m, view, MEMBER_MAX) : 0;
        for (unsigned v = 0; v < n_view; v++) {
            if (sim_no(&view[v].id) == j) p.instance[k] = view[v].instance;
        }
    }
    members_planned(n->m, &p, NULL, s->now_ns);
}

static inline void sim_adopt(struct sim *s, unsigned i, const struct plan *p) {
    struct sim_node *n = &s->node[i];
    struct node_id self = sim_id(i);
    if (p->epoch <= n->last_epoch) sim_wrong(s, "node %u: an epoch that is not above its last", i);
    if (plan_slice(p, &self) < 0) sim_wrong(s, "node %u: a plan without it", i);
    n->last_epoch = n->epoch = p->epoch;
    n->leader_no = sim_no(&p->leader);
    n->plan = *p;
    n->is_working = true;
    n->is_loaded = n->is_serving = false;
    n->broke_ns = 0;
    n->n_adopt++;
    uint64_t ms = n->load_ms ? n->load_ms : s->load_ms / 2 + sim_random(s, s->load_ms / 2 + 1);
    n->load_ns = s->now_ns + ms * SIM_MS;
    if (n->leader_no != i) return;
    static struct msg m;
    m = (struct msg){.type = MSG_PLAN, .epoch = p->epoch};
    m.u.plan = *p;
    sim_all(s, i, &m, p);
}

static inline void sim_serve(struct sim *s, unsigned i, uint64_t epoch) {
    struct sim_node *n = &s->node[i];
    struct msg m = {.type = MSG_SERVING, .epoch = epoch};
    if (!n->is_working || n->epoch != epoch || n->leader_no != i || !n->is_loaded) {
        sim_wrong(s, "node %u serves what it does not lead", i);
    }
    for (unsigned k = 1; k < n->plan.n_node; k++) {
        const struct sim_node *o = &s->node[sim_no(&n->plan.node[k])];
        bool is_same_start = o->m && o->instance == n->plan.instance[k];
        if (is_same_start && (o->ready_epoch < epoch)) {
            sim_wrong(s, "node %u serves before %u is ready", i, sim_no(&n->plan.node[k]));
        }
    }
    n->is_serving = true;
    n->serving_ns = s->now_ns;
    sim_all(s, i, &m, &n->plan);
}

static inline void sim_act(struct sim *s, unsigned i, const struct action *a) {
    struct sim_node *n = &s->node[i];
    struct msg m = {0};
    switch (a->type) {
    case ACT_PLAN: sim_make_plan(s, i, a); break;
    case ACT_ADOPT: sim_adopt(s, i, a->plan); break;
    case ACT_ABANDON: n->is_working = n->is_loaded = n->is_serving = false; break;
    case ACT_SERVE: sim_serve(s, i, a->epoch); break;
    case ACT_SERVING:
        n->is_serving = true;
        n->serving_ns = s->now_ns;
        n->n_serving++;
        if (n->is_working && n->epoch != a->epoch) sim_wrong(s, "node %u serves two epochs", i);
        break;
    case ACT_DROP:
        if (s->node[sim_no(&a->id)].instance == a->instance || !n->conn[sim_no(&a->id)]) {
            sim_close(s, i, sim_no(&a->id));
        }
        break;
    case ACT_BEAT: sim_beat(s, i); break;
    case ACT_REFUSE:
        m.type = MSG_REFUSED;
        m.epoch = a->epoch;
        m.u.refused.reason = a->reason;
        n->n_refuse++;
        sim_send(s, i, sim_no(&a->id), &m);
        break;
    case ACT_ALERT:
        n->n_alert++;
        n->alert_code = a->alert;
        memcpy(n->alert, a->text, sizeof n->alert);
        break;
    case ACT_NONE: break;
    }
}

static void sim_drain(struct sim *s, unsigned i) {
    struct action a;
    while (s->node[i].m && members_next(s->node[i].m, &a)) sim_act(s, i, &a);
    s->node[i].tick_ns = s->now_ns;
}

/* Loading ends when all of the plan are there; an epoch breaks when one is not any more. */
static inline int sim_absent(const struct sim *s, unsigned i) {
    const struct sim_node *n = &s->node[i];
    for (unsigned k = 0; k < n->plan.n_node; k++) {
        unsigned j = sim_no(&n->plan.node[k]);
        const struct sim_node *o = &s->node[j];
        bool is_there = o->m && o->instance == n->plan.instance[k] && o->is_working &&
                        o->epoch == n->epoch && o->leader_no == n->leader_no;
        if (j != i && (!is_there || !sim_both(s, i, j))) return (int)j;
    }
    return -1;
}

static inline int sim_bad_data(const struct sim *s, unsigned i) {
    for (unsigned k = 0; k < s->node[i].plan.n_node; k++) {
        unsigned j = sim_no(&s->node[i].plan.node[k]);
        if (s->bad_data[i][j]) return (int)j;
    }
    return -1;
}

static inline void sim_engine(struct sim *s, unsigned i) {
    struct sim_node *n = &s->node[i];
    if (!n->is_working) return;
    int absent = sim_absent(s, i);
    if (!n->is_loaded) {
        if (n->is_stuck || s->now_ns < n->load_ns || absent >= 0) return;
        n->is_loaded = true;
        if (n->leader_no != i) {
            struct msg m = {.type = MSG_READY, .epoch = n->epoch};
            n->ready_epoch = n->epoch;
            n->ready_leader = (unsigned)n->leader_no;
            sim_send(s, i, (unsigned)n->leader_no, &m);
        }
        members_loaded(n->m, n->epoch, s->now_ns);
        sim_drain(s, i);
        return;
    }
    if (absent < 0) absent = sim_bad_data(s, i);
    if (absent >= 0 && !n->broke_ns) {
        n->suspect = (unsigned)absent;
        uint64_t ms = s->is_silent ? 1000 + sim_random(s, 1000) : 10 + sim_random(s, 50);
        n->broke_ns = s->now_ns + ms * SIM_MS;
    }
    if (!n->broke_ns || s->now_ns < n->broke_ns) return;
    struct msg m = {.type = MSG_BROKEN, .epoch = n->epoch, .u.suspect = sim_id(n->suspect)};
    n->is_loaded = n->is_serving = false;
    n->broke_ns = 0;
    n->load_ns = UINT64_MAX;
    if (n->leader_no != i) sim_send(s, i, (unsigned)n->leader_no, &m);
    members_broke(n->m, n->epoch, &m.u.suspect, s->now_ns);
    sim_drain(s, i);
}

/* --- the world --- */

static inline void sim_boot(struct sim *s, unsigned i) {
    struct sim_node *n = &s->node[i];
    struct members_conf c = {.self = sim_id(i), .facts = n->facts, .gave_up = n->gave_up};
    struct err e;
    n->instance = c.instance = 1 + sim_random(s, UINT64_MAX - 1);
    n->is_working = n->is_loaded = n->is_serving = false;
    n->last_epoch = n->epoch = n->ready_epoch = 0;
    n->beat_ns = s->now_ns + BEAT_NS;
    memset(n->conn, 0, sizeof n->conn);
    if (!members_open(&n->m, &c, s->now_ns, &e)) abort();
    sim_drain(s, i);
}

static inline void sim_lost(struct sim *s, unsigned i, unsigned j, bool is_told) {
    struct node_id id = sim_id(j);
    if (!s->node[i].conn[j]) return;
    s->node[i].conn[j] = 0;
    s->node[i].dial_ns[j] = s->now_ns + (100 + sim_random(s, 300)) * SIM_MS;
    if (!is_told || !s->node[i].m) return;
    members_down(s->node[i].m, &id, s->now_ns);
    sim_drain(s, i);
}

/* Die: with resets (a process that was killed) or in silence (a plug that was pulled). */
static inline void sim_kill(struct sim *s, unsigned i) {
    members_close(s->node[i].m);
    s->node[i].m = NULL;
    s->node[i].is_working = s->node[i].is_serving = false;
    for (unsigned j = 0; j < s->n; j++) {
        s->node[i].conn[j] = 0;
        s->pipe[i][j].n = s->pipe[j][i].n = 0;
        if (!s->is_silent && !s->cut[i][j]) sim_lost(s, j, i, true);
    }
}

static inline void sim_cut(struct sim *s, unsigned i, unsigned j, bool both) {
    s->cut[i][j] = true;
    if (both) s->cut[j][i] = true;
    if (s->is_silent || !both) return;
    s->pipe[i][j].n = s->pipe[j][i].n = 0;
    sim_lost(s, i, j, true);
    sim_lost(s, j, i, true);
}

static inline void sim_heal(struct sim *s) {
    memset(s->cut, 0, sizeof s->cut);
}

static inline void sim_connect(struct sim *s, unsigned i, unsigned j) {
    uint32_t conn = ++s->last_conn;
    for (int side = 0; side < 2; side++) {
        unsigned a = side ? j : i, b = side ? i : j;
        sim_lost(s, a, b, true);
        s->pipe[a][b].n = 0;
    }
    for (int side = 0; side < 2; side++) {
        unsigned a = side ? j : i, b = side ? i : j;
        struct sim_node *n = &s->node[a];
        struct node_id id = sim_id(b);
        n->conn[b] = conn;
        n->sequence[b] = 0;
        members_up(n->m, &id, s->node[b].instance, &s->node[b].facts, s->now_ns);
        sim_drain(s, a);
    }
}

static inline void sim_deliver(struct sim *s, unsigned from, unsigned to) {
    static struct msg m;
    struct sim_pipe *q = &s->pipe[from][to];
    struct sim_node *n = &s->node[to];
    struct node_id id = sim_id(from);
    struct err e;
    while (q->n && !s->cut[from][to] && q->packet[q->first].at_ns <= s->now_ns) {
        struct sim_packet k = q->packet[q->first];
        q->first = (q->first + 1) % SIM_QUEUE;
        q->n--;
        if (!n->m || !n->conn[from] || n->conn[from] != k.conn) continue;
        if (!k.len) {
            sim_lost(s, to, from, true);
            continue;
        }
        if (!msg_decode(&m, k.bytes, k.len, NULL, 0, &e)) {
            sim_wrong(s, "%s", e.text);
            continue;
        }
        members_heard(n->m, &id, &m, s->now_ns);
        sim_drain(s, to);
    }
}

static inline void sim_step(struct sim *s) {
    s->now_ns += SIM_STEP_MS * SIM_MS;
    for (unsigned i = 0; i < s->n; i++) {
        struct sim_node *n = &s->node[i];
        if (!n->m) continue;
        for (unsigned j = 0; j < s->n; j++) {
            bool dials = j != i && s->node[j].m && !n->conn[j] && n->dial_ns[j] <= s->now_ns;
            if (dials && sim_both(s, i, j)) sim_connect(s, i, j);
            sim_deliver(s, j, i);
        }
        if (n->beat_ns <= s->now_ns) sim_beat(s, i);
        if (n->tick_ns <= s->now_ns) {
            uint64_t next = members_tick(n->m, s->now_ns);
            sim_drain(s, i);
            n->tick_ns = next > s->now_ns ? next : s->now_ns;
        }
        sim_engine(s, i);
    }
}

static inline void sim_run(struct sim *s, uint64_t ms) {
    for (uint64_t t = 0; t < ms; t += SIM_STEP_MS) sim_step(s);
}

/* n nodes with the same model, none of them on yet. */
static inline struct sim *sim_open(unsigned n, uint64_t seed) {
    static struct sim sim;
    static struct sim_packet packet[SIM_NODES][SIM_NODES][SIM_QUEUE];
    struct sim *s = &sim;
    for (unsigned i = 0; i < SIM_NODES; i++) members_close(s->node[i].m);
    memset(s, 0, sizeof *s);
    s->rng = seed * 0x9E3779B97F4A7C15ULL + 1;
    s->now_ns = 1000 * SIM_MS;
    s->n = n;
    s->delay_ms = 15;
    s->load_ms = 200;
    for (int i = 0; i < 8; i++) sim_random(s, 2);
    for (unsigned i = 0; i < SIM_NODES; i++) {
        struct facts *f = &s->node[i].facts;
        *f = (struct facts){.contract = 1, .model = 77, .model_name = "Toy"};
        snprintf(f->name, sizeof f->name, "dair-%04x", i + 1);
        for (unsigned j = 0; j < SIM_NODES; j++) s->pipe[i][j].packet = packet[i][j];
    }
    return s;
}

/* All nodes of this set (a bit each) serve in one epoch of exactly them. */
static inline bool sim_is_one(const struct sim *s, uint32_t set) {
    int first = -1;
    for (unsigned i = 0; i < s->n; i++) {
        const struct sim_node *n = &s->node[i];
        if (!(set >> i & 1)) continue;
        if (!n->m || !n->is_working || !n->is_serving || !members_is_serving(n->m)) return false;
        if (n->broke_ns || n->plan.n_node != __builtin_popcount(set)) return false;
        if (first < 0) first = (int)i;
        const struct sim_node *o = &s->node[first];
        if (n->epoch != o->epoch || n->leader_no != o->leader_no) return false;
        if (!(set >> n->leader_no & 1)) return false;
    }
    return true;
}

/* Run until they do; the milliseconds it took, or UINT64_MAX. */
static inline uint64_t sim_until_one(struct sim *s, uint32_t set, uint64_t most_ms) {
    for (uint64_t t = 0; t <= most_ms; t += SIM_STEP_MS) {
        if (sim_is_one(s, set)) return t;
        sim_step(s);
    }
    return UINT64_MAX;
}

#endif
