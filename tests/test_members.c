/* Members, epochs and leader, on thousands of simulated networks. */
#include "tap.h"

#include "members_sim.h"

static uint32_t all_of(unsigned n) {
    return (1U << n) - 1;
}

static int compare(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* Sorts; prints and checks. */
static void times(const char *what, uint64_t *ms, unsigned n, uint64_t most) {
    qsort(ms, n, sizeof *ms, compare);
    tap_ok(ms[n - 1] <= most,
           "%s: %llu ms half of the time, %llu ms at p99, %llu ms at most in %u runs (limit %llu)",
           what, (unsigned long long)ms[n / 2], (unsigned long long)ms[n * 99 / 100],
           (unsigned long long)ms[n - 1], n, (unsigned long long)most);
}

static struct sim *started(unsigned n, uint64_t seed) {
    struct sim *s = sim_open(n, seed);
    for (unsigned i = 0; i < n; i++) sim_boot(s, i);
    if (sim_until_one(s, all_of(n), 10000) == UINT64_MAX) sim_wrong(s, "no start");
    return s;
}

static void fine(const struct sim *s, const char *what) {
    if (s->n_wrong) tap_ok(false, "%s: %s", what, s->wrong);
}

/* --- how long it takes --- */

enum { RUNS = 100 };

static void check_start(void) {
    uint64_t ms[RUNS];
    for (unsigned r = 0; r < RUNS; r++) {
        struct sim *s = sim_open(4, r + 1);
        for (unsigned i = 0; i < 4; i++) {
            sim_boot(s, (i + r) % 4);
            sim_run(s, sim_random(s, 200));
        }
        ms[r] = sim_until_one(s, 15, 10000);
        fine(s, "start");
    }
    times("four nodes switched on", ms, RUNS, 3000);
}

static void check_loss(unsigned victim, bool is_silent, uint64_t most, const char *what) {
    uint64_t ms[RUNS];
    for (unsigned r = 0; r < RUNS; r++) {
        struct sim *s = started(4, r + 1);
        sim_run(s, 15000 + sim_random(s, 1000));
        s->is_silent = is_silent;
        sim_kill(s, victim);
        ms[r] = sim_until_one(s, 15U & ~(1U << victim), 10000);
        fine(s, what);
    }
    times(what, ms, RUNS, most);
}

static void check_join(void) {
    uint64_t ms[RUNS];
    bool stays = true;
    for (unsigned r = 0; r < RUNS; r++) {
        unsigned late = r % 5;
        struct sim *s = sim_open(5, r + 1);
        for (unsigned i = 0; i < 5; i++) {
            if (i != late) sim_boot(s, i);
        }
        sim_until_one(s, 31U & ~(1U << late), 10000);
        uint64_t leader = s->node[(late + 1) % 5].leader_no;
        sim_run(s, 2000 + sim_random(s, 500));
        sim_boot(s, late);
        ms[r] = sim_until_one(s, 31, 10000);
        stays = stays && s->node[late].leader_no == leader;
        fine(s, "join");
    }
    times("a fifth node joins", ms, RUNS, 2000);
    tap_ok(stays, "the leader stays, though the new one's id may be lower");
}

static void check_split(bool is_silent) {
    uint64_t apart[RUNS], again[RUNS];
    bool is_lower = true;
    for (unsigned r = 0; r < RUNS; r++) {
        struct sim *s = started(6, r + 1);
        uint32_t half = 1 + (uint32_t)sim_random(s, 62);
        sim_run(s, 15000);
        s->is_silent = is_silent;
        for (unsigned i = 0; i < 6; i++) {
            for (unsigned j = 0; j < i; j++) {
                if ((half >> i & 1) != (half >> j & 1)) sim_cut(s, i, j, true);
            }
        }
        uint64_t a = sim_until_one(s, half, 10000), b = sim_until_one(s, 63 & ~half, 10000);
        apart[r] = a > b ? a : b;
        sim_run(s, 3000);
        unsigned low = 6;
        for (unsigned i = 6; i-- > 0;)
            low = s->node[i].leader_no < low ? (unsigned)s->node[i].leader_no : low;
        sim_heal(s);
        again[r] = sim_until_one(s, 63, 20000);
        is_lower = is_lower && s->node[0].leader_no == low;
        fine(s, "split");
    }
    times(is_silent ? "a silent split: both parts serve" : "a split: both parts serve", apart, RUNS,
          is_silent ? 4500 : 1000);
    times("healed: one again", again, RUNS, 5000);
    tap_ok(is_lower, "of two leaders the one with the lower id stays");
}

/* --- single stories --- */

static void check_flap(bool is_silent, unsigned period_ms) {
    struct sim *s = started(4, 5);
    unsigned before = s->node[1].n_adopt;
    s->is_silent = is_silent;
    for (unsigned t = 0; t < 120000; t += period_ms) {
        sim_cut(s, 3, 0, true), sim_cut(s, 3, 1, true), sim_cut(s, 3, 2, true);
        sim_run(s, period_ms / 2);
        sim_heal(s);
        sim_run(s, period_ms / 2);
    }
    unsigned epochs = s->node[1].n_adopt - before;
    tap_ok(epochs <= 30 && !s->n_wrong,
           "a node that comes and goes every %u ms for 120 s costs the others %u epochs", period_ms,
           epochs);
    uint64_t ms = sim_until_one(s, 15, 70000);
    tap_ok(ms != UINT64_MAX, "once it stays it is taken in, after %llu ms", (unsigned long long)ms);
}

/* A channel that is bad once in a while, with good times between. */
static void check_forgiven(void) {
    struct sim *s = started(3, 4);
    uint64_t first = 0, out = 0;
    for (unsigned round = 0; round < 4; round++) {
        s->bad_data[1][2] = s->bad_data[2][1] = true;
        bool is_out = sim_until_one(s, 3, 60000) != UINT64_MAX;
        s->bad_data[1][2] = s->bad_data[2][1] = false;
        out = sim_until_one(s, 7, 100000);
        if (!first) first = out;
        tap_ok(is_out && out <= first + 1000,
               "after a good minute an offence is the first: out for %llu ms",
               (unsigned long long)out);
        sim_run(s, 40000);
        sim_cut(s, 1, 0, true);  // another's flapping costs the epoch, and nobody its good time
        sim_run(s, 3000);
        sim_heal(s);
        sim_run(s, 60000);
    }
}

static void check_bad_data(void) {
    struct sim *s = started(4, 9);
    s->bad_data[1][3] = s->bad_data[3][1] = true;
    unsigned before = s->node[0].n_adopt;
    uint64_t ms = sim_until_one(s, 7, 10000);
    tap_ok(
        ms != UINT64_MAX && !s->n_wrong,
        "a data channel that breaks again and again: the higher id is left out after %llu ms, %u "
        "epochs",
        (unsigned long long)ms, s->node[0].n_adopt - before);
    sim_run(s, 60000);
    tap_ok(s->node[0].n_adopt - before <= 25, "a minute of it: %u epochs",
           s->node[0].n_adopt - before);
    s->bad_data[1][3] = s->bad_data[3][1] = false;
    tap_ok(sim_until_one(s, 15, 70000) != UINT64_MAX, "mended: all four work again");
}

static void check_one_way(void) {
    for (unsigned victim = 0; victim < 4; victim++) {
        struct sim *s = started(4, 20 + victim);
        unsigned other = (victim + 1) % 4, out = victim > other ? victim : other;
        sim_cut(s, victim, other, false);
        sim_run(s, 12000);
        const struct sim_node *l = &s->node[s->node[(victim + 2) % 4].leader_no];
        struct node_id a = sim_id(victim), b = sim_id(other);
        bool is_apart = plan_slice(&l->plan, &a) < 0 || plan_slice(&l->plan, &b) < 0;
        tap_ok(
            l->m && l->is_serving && is_apart && l->plan.n_node == 3 && !s->n_wrong,
            "a link from %u to %u that works one way is down: %u works in no plan with the other",
            victim, other, out);
    }
}

static void check_models(void) {
    struct sim *s = sim_open(4, 3);
    s->node[1].facts.model = 78;
    snprintf(s->node[1].facts.model_name, 64, "Other");
    s->node[2].facts.model = 0;
    for (unsigned i = 0; i < 4; i++) sim_boot(s, i);
    uint64_t ms = sim_until_one(s, 9, 8000);
    tap_ok(ms != UINT64_MAX, "nodes of one model work together in spite of others");
    tap_ok(strstr(s->node[1].alert, "Toy") && strstr(s->node[1].alert, "Other") &&
               s->node[1].alert_code == ALERT_OTHER_MODEL && s->node[1].n_refuse >= 2,
           "another model is not taken in, by name: %s", s->node[1].alert);
    const char *why;
    sim_run(s, 1000);
    tap_ok(sim_is_one(s, 2), "it serves its own model by itself");
    enum node_state state = members_state(s->node[2].m, &why);
    tap_ok(state == STATE_READY && members_is_serving(s->node[2].m) && !s->node[2].is_working,
           "a node without a model hands work on: %s, %s", state_name(state), why);
    unsigned told = s->node[2].n_serving;
    sim_kill(s, 0);
    sim_run(s, 5000);
    tap_ok(s->node[2].n_serving > told && members_is_serving(s->node[2].m) && !s->n_wrong,
           "and is told when the next leader serves");
}

/* Whom node i asks to work for it: 100 nobody. */
static unsigned asks_whom(const struct sim *s, unsigned i) {
    struct node_id leader;
    uint64_t epoch = 0;
    return members_leader(s->node[i].m, &leader, &epoch) && epoch ? sim_no(&leader) : 100;
}

/* Tokens of one model are nonsense to another, whoever is at work and whoever is not. */
static void check_asked(void) {
    bool is_own = true, is_asked = true;
    for (unsigned r = 0; r < RUNS; r++) {
        struct sim *s = sim_open(5, r + 1);
        for (unsigned i = 0; i < 2; i++) s->node[i].facts.model = 78;
        s->node[4].facts.model = 0;
        s->node[4].gave_up = 77;
        for (unsigned i = 0; i < 2; i++) sim_boot(s, i);
        sim_until_one(s, 3, 8000);
        for (unsigned i = 2; i < 5; i++) sim_boot(s, i);
        for (unsigned step = 0; step < 1200; step++) {
            if (step == 800) sim_kill(s, (unsigned)s->node[3].leader_no);
            sim_step(s);
            for (unsigned i = 2; i < 5; i++) {
                unsigned whom = s->node[i].m ? asks_whom(s, i) : 100;
                is_own = is_own && (whom == 2 || whom == 3 || whom == 100);
            }
        }
        unsigned left = s->node[2].m ? 2 : 3;
        is_asked = is_asked && sim_is_one(s, 1U << left) && asks_whom(s, 4) == left && !s->n_wrong;
    }
    tap_ok(is_asked, "who gave its model up asks the next leader that has it");
    tap_ok(is_own, "nobody ever asks a leader with another model");
}

static void check_guest(void) {
    struct sim *s = sim_open(3, 4);
    s->node[0].facts.is_guest = true;
    sim_boot(s, 0);
    tap_ok(sim_until_one(s, 1, 5000) != UINT64_MAX && s->node[0].leader_no == 0,
           "a guest by itself serves");
    sim_boot(s, 2);
    tap_ok(sim_until_one(s, 5, 8000) != UINT64_MAX && s->node[2].leader_no == 2,
           "when a node appears that one leads, though the guest's id is lower");
    sim_boot(s, 1);
    tap_ok(sim_until_one(s, 7, 8000) != UINT64_MAX && s->node[1].leader_no == 2, "one more joins");
    sim_kill(s, 2);
    tap_ok(sim_until_one(s, 3, 8000) != UINT64_MAX && s->node[0].leader_no == 1 && !s->n_wrong,
           "the leader dies: the other node leads, not the guest");
}

static void check_leave(unsigned who) {
    struct sim *s = started(4, 6);
    sim_run(s, 11000);
    struct msg m = {.type = MSG_LEAVE};
    sim_all(s, who, &m, NULL);
    members_leave(s->node[who].m, s->now_ns);
    sim_drain(s, who);
    uint64_t ms = sim_until_one(s, 15U & ~(1U << who), 5000);
    const char *why;
    const struct members *other = s->node[(who + 1) % 4].m;
    tap_ok(ms <= 700 && members_state(other, &why) == STATE_READY && !s->n_wrong,
           "%s leaves in good order: the others go on after %llu ms, %s",
           who ? "a node" : "the leader", (unsigned long long)ms,
           state_name(members_state(other, &why)));
}

static void check_states(void) {
    const char *why;
    struct sim *s = sim_open(2, 7);
    sim_boot(s, 0);
    enum node_state state = members_state(s->node[0].m, &why);
    tap_ok(state == STATE_JOINING, "at first: JOINING, %s", why);
    while (!s->node[0].is_working) sim_step(s);
    tap_ok(members_state(s->node[0].m, &why) == STATE_LOADING, "with a plan: LOADING");
    sim_until_one(s, 1, 5000);
    tap_ok(members_state(s->node[0].m, &why) == STATE_READY, "serving: READY");
    sim_boot(s, 1);
    sim_until_one(s, 3, 5000);
    sim_kill(s, 1);
    sim_until_one(s, 1, 5000);
    tap_ok(members_state(s->node[0].m, &why) == STATE_DEGRADED, "a member lost: DEGRADED");
    sim_boot(s, 1);
    tap_ok(sim_until_one(s, 3, 15000) != UINT64_MAX &&
               members_state(s->node[0].m, &why) == STATE_READY,
           "it is back after a restart: READY");
    sim_kill(s, 1);
    sim_run(s, 602000);
    tap_ok(members_state(s->node[0].m, &why) == STATE_READY && !s->n_wrong,
           "ten minutes later nobody waits for it any more: READY");
    s = sim_open(2, 8);
    s->node[0].cannot_plan = true;
    sim_boot(s, 0);
    sim_run(s, 3000);
    state = members_state(s->node[0].m, &why);
    tap_ok(state == STATE_FAILED && strstr(why, "no room"), "no plan is possible: FAILED, %s", why);
    sim_boot(s, 1);
    tap_ok(sim_until_one(s, 3, 8000) != UINT64_MAX && s->node[0].leader_no == 1 && !s->n_wrong,
           "a node that can plan leads, and takes in the other");
}

static void check_alone(void) {
    struct members *m;
    struct action a;
    struct err e;
    const char *why;
    struct plan p = {.n_node = 1};
    struct members_conf c = {.self = sim_id(0), .instance = 5, .is_alone = true};
    c.facts.model = 1;
    bool ok =
        members_open(&m, &c, 1, &e) && members_next(m, &a) && a.type == ACT_PLAN && a.n_set == 1;
    p.epoch = a.epoch;
    p.leader = p.node[0] = c.self;
    p.instance[0] = 5;
    members_planned(m, &p, NULL, 2);
    ok = ok && members_next(m, &a) && a.type == ACT_ADOPT && a.plan->epoch == 1;
    members_loaded(m, 1, 3);
    while (members_next(m, &a) && a.type != ACT_SERVE) continue;
    tap_ok(ok && a.type == ACT_SERVE && members_state(m, &why) == STATE_ALONE,
           "without a key a node plans for itself at once: ALONE");
    members_close(m);
}

static void check_twins(void) {
    struct sim *s = started(3, 12);
    struct node_id id = sim_id(2);
    struct facts f = s->node[2].facts;
    unsigned before = s->node[0].n_adopt;
    struct action a;
    members_up(s->node[0].m, &id, 4711, &f, s->now_ns);
    bool is_dropped = false;
    while (members_next(s->node[0].m, &a)) {
        is_dropped = is_dropped || (a.type == ACT_DROP && a.instance == 4711);
    }
    sim_run(s, 2000);
    tap_ok(is_dropped && s->node[0].n_adopt == before && sim_is_one(s, 7),
           "a second node with a living one's id is turned away, and nothing else happens");
}

/* Milliseconds until node 0 serves no more. */
static uint64_t serves_for(struct sim *s) {
    uint64_t ms = 0;
    for (; s->node[0].is_serving && ms < 100000; ms += 100) sim_run(s, 100);
    return ms;
}

static void check_stuck(void) {
    struct sim *s = sim_open(3, 13);
    s->node[2].is_stuck = true;
    for (unsigned i = 0; i < 3; i++) sim_boot(s, i);
    sim_run(s, READY_MS);
    tap_ok(!s->node[0].is_serving, "a node that does not get ready is waited for");
    tap_ok(sim_until_one(s, 3, 8000) != UINT64_MAX && !s->n_wrong, "but not for ever: %s",
           s->node[0].alert);
    tap_ok(s->node[0].alert_code == ALERT_LEFT_OUT, "and that is what the alert is about");
    uint64_t last = serves_for(s);
    for (unsigned i = 0; i < 2; i++) {
        sim_run(s, READY_MS);
        bool is_back = sim_until_one(s, 3, 8000) != UINT64_MAX;
        uint64_t now = serves_for(s);
        tap_ok(is_back && now > 3 * last / 2,
               "tried again, the others serve without it: for %u s, %u s before",
               (unsigned)(now / 1000), (unsigned)(last / 1000));
        last = now;
    }
}

/* Loading may take its time as long as it gets on, the leader's own too. */
static void check_slow(void) {
    for (unsigned slow = 0; slow < 2; slow++) {
        struct sim *s = sim_open(3, 14);
        s->node[slow].load_ms = 3 * READY_MS / 2;
        for (unsigned i = 0; i < 3; i++) sim_boot(s, i);
        bool ok = sim_until_one(s, 7, 2 * READY_MS) != UINT64_MAX;
        for (unsigned i = 0; i < 3; i++) ok = ok && s->node[i].n_adopt == 1;
        tap_ok(ok, "a %s that loads for %d s and shows progress is waited for by all",
               slow ? "node" : "leader", 3 * READY_MS / 2000);
    }
}

/* When a leader dies, the end of a data channel may be seen before that of the control channel. */
static void check_broken_first(void) {
    struct sim *s = started(2, 17);
    const struct node_id leader = sim_id(0);
    struct members *m = s->node[1].m;
    members_broke(m, s->node[1].epoch, &leader, s->now_ns);
    members_down(m, &leader, s->now_ns);
    tap_ok(members_waits(m), "a leader whose channels end one after the other is missed");
}

static void check_rename(void) {
    struct sim *s = started(2, 15);
    struct node_id id = sim_id(9);
    const char *why;
    members_rename(s->node[0].m, &id, 99, s->now_ns);
    struct action a;
    bool is_over = members_next(s->node[0].m, &a) && a.type == ACT_ABANDON;
    tap_ok(is_over && members_state(s->node[0].m, &why) == STATE_JOINING &&
               !members_plan(s->node[0].m),
           "under a new id all begins anew");
}

/* Whatever comes in whatever order: rules are kept, nothing grows without end. */
static void check_nonsense(void) {
    struct sim *s = started(4, 16);
    static struct msg m;
    static struct action a;
    struct members *me = s->node[0].m;
    struct node_id self = sim_id(0);
    uint64_t last = s->node[0].epoch, now = s->now_ns;
    bool ok = true;
    for (unsigned k = 0; k < 200000; k++) {
        unsigned from = 1 + (unsigned)sim_random(s, 5);
        struct node_id id = sim_id(from), any = sim_id((unsigned)sim_random(s, 6));
        now += sim_random(s, 20) * SIM_MS;
        m = (struct msg){.type = (enum msg_type)(1 + sim_random(s, N_MSG - 1))};
        m.epoch = last + sim_random(s, 4);
        if (m.type == MSG_BEAT) {
            m.u.beat =
                (struct beat){.state = (enum node_state)sim_random(s, N_STATE), .epoch = last};
            m.u.beat.leader = any;
            m.u.beat.seen = m.epoch;
            for (unsigned i = 0; i < 5; i++) m.u.beat.hear[m.u.beat.n_hear++] = sim_id(i);
        }
        if (m.type == MSG_PLAN) {
            m.u.plan = (struct plan){.epoch = m.epoch, .leader = id, .model = 77, .n_node = 2};
            m.u.plan.node[0] = id, m.u.plan.node[1] = sim_id(0);
            m.u.plan.instance[0] = from, m.u.plan.instance[1] = s->node[0].instance;
        }
        if (m.type == MSG_BROKEN) m.u.suspect = any;
        if (!sim_random(s, 50)) members_up(me, &id, from, &s->node[from].facts, now);
        if (!sim_random(s, 300)) members_down(me, &id, now);
        if (!sim_random(s, 40)) members_broke(me, last, &any, now);
        members_heard(me, &id, &m, now);
        for (unsigned n = 0; sim_random(s, 40) && members_next(me, &a); n++) {
            ok = ok && n < 1000;
            if (a.type == ACT_PLAN) members_planned(me, NULL, "not now", now);
            if (a.type != ACT_ADOPT) continue;
            ok = ok && a.plan->epoch > last && plan_slice(a.plan, &self) >= 0;
            last = a.plan->epoch;
            members_loaded(me, last, now);
        }
    }
    tap_ok(ok, "200000 messages that make no sense: epochs rise to %llu, rules are kept",
           (unsigned long long)last);
}

/* A node that has heard of almost the last epoch there can be, and a leader that plans it. */
static void check_huge(void) {
    const uint64_t huge = (uint64_t)1 << 62;
    struct sim *s = started(3, 18);
    static struct msg m;
    struct node_id id = sim_id(0);
    for (unsigned i = 1; i < 3; i++) {
        const struct plan *p = &s->node[i].plan;
        m = (struct msg){.type = MSG_PLAN, .epoch = huge, .u.plan = *p};
        m.u.plan.epoch = huge;
        members_heard(s->node[i].m, &id, &m, s->now_ns);
        members_beat(s->node[0].m, &m.u.beat);
        m.type = MSG_BEAT;
        m.u.beat.seen = huge;
        members_heard(s->node[i].m, &id, &m, s->now_ns);
    }
    tap_ok(sim_until_one(s, 7, 5000) != UINT64_MAX, "epoch 2^62 is heard of: three serve on");
    sim_kill(s, 0);
    tap_ok(sim_until_one(s, 6, 5000) != UINT64_MAX && s->node[1].epoch < huge / 2,
           "the one that told of it dies: two serve in epoch %llu",
           (unsigned long long)s->node[1].epoch);
    sim_boot(s, 0);
    tap_ok(sim_until_one(s, 7, 10000) != UINT64_MAX, "and three with one that knows nothing of it");
    fine(s, "a huge epoch");
}

/* --- thousands of networks --- */

/* One thing that happens to the network. */
static void mishap(struct sim *s) {
    unsigned i = (unsigned)sim_random(s, s->n), j = (unsigned)sim_random(s, s->n);
    s->is_silent = sim_random(s, 2);
    switch (sim_random(s, 6)) {
    case 0:
        if (s->node[i].m) sim_kill(s, i);
        break;
    case 1:
        if (!s->node[i].m) sim_boot(s, i);
        break;
    case 2:
        if (i != j) sim_cut(s, i, j, true);
        break;
    case 3:
        if (i != j) sim_cut(s, i, j, false);
        break;
    case 4: {
        uint32_t half = (uint32_t)sim_random(s, 1U << s->n);
        for (unsigned a = 0; a < s->n; a++) {
            for (unsigned b = 0; b < a; b++) {
                if ((half >> a & 1) != (half >> b & 1)) sim_cut(s, a, b, true);
            }
        }
        break;
    }
    default: sim_heal(s);
    }
}

static uint32_t alive(const struct sim *s) {
    uint32_t set = 0;
    for (unsigned i = 0; i < s->n; i++) set |= s->node[i].m ? 1U << i : 0;
    return set;
}

/* Some networks have a guest, or a node without a model. */
static void vary(struct sim *s) {
    if (s->n < 2) return;
    if (!sim_random(s, 4)) s->node[sim_random(s, s->n)].facts.is_guest = true;
    if (!sim_random(s, 4)) s->node[sim_random(s, s->n)].facts.model = 0;
}

static uint32_t with_model(const struct sim *s) {
    uint32_t set = 0;
    for (unsigned i = 0; i < s->n; i++) set |= s->node[i].facts.model ? 1U << i : 0;
    return set;
}

/* Nobody is led by a guest but itself; a node without a model has a leader that takes its work. */
static void check_roles(struct sim *s, uint32_t part) {
    for (unsigned i = 0; i < s->n; i++) {
        const struct sim_node *n = &s->node[i];
        bool has_others = part & with_model(s);
        if (!(part >> i & 1) || !n->m) continue;
        if (n->is_working && n->leader_no != i && s->node[n->leader_no].facts.is_guest) {
            sim_wrong(s, "a guest leads");
        }
        for (unsigned g = 0; g < s->n; g++) {
            uint32_t able = part & with_model(s);
            if (s->node[g].facts.is_guest && able == 1U << g) has_others = false;
        }
        if (!n->facts.model && has_others && !members_is_serving(n->m)) {
            sim_wrong(s, "node %u without a model finds no leader", i);
        }
    }
}

/* After up to six mishaps all is well; half of the time but for a split that stays. */
static uint64_t scenario(unsigned n, uint64_t seed, unsigned *epochs) {
    struct sim *s = sim_open(n, seed);
    s->delay_ms = 1 + (uint32_t)sim_random(s, 60);
    s->load_ms = 50 + (uint32_t)sim_random(s, 1000);
    vary(s);
    for (unsigned i = 0; i < n; i++) {
        if (sim_random(s, 8)) sim_boot(s, i);
        if (sim_random(s, 2)) sim_run(s, sim_random(s, 800));
    }
    for (uint64_t k = sim_random(s, 7); k > 0; k--) {
        sim_run(s, sim_random(s, 3000));
        mishap(s);
    }
    sim_run(s, sim_random(s, 3000));
    sim_heal(s);
    uint32_t half = sim_random(s, 2) ? (uint32_t)sim_random(s, 1U << n) : 0;
    for (unsigned a = 0; a < n; a++) {
        for (unsigned b = 0; b < a; b++) {
            if ((half >> a & 1) != (half >> b & 1)) sim_cut(s, a, b, true);
        }
    }
    uint32_t left = alive(s) & half & with_model(s), right = alive(s) & ~half & with_model(s);
    uint64_t t0 = s->now_ns;
    bool ok = sim_until_one(s, left, 60000) != UINT64_MAX;
    ok = ok && sim_until_one(s, right, 60000) != UINT64_MAX;
    uint64_t ms = ok ? (s->now_ns - t0) / SIM_MS : UINT64_MAX;
    *epochs = 0;
    for (unsigned i = 0; i < n; i++) *epochs += s->node[i].n_adopt;
    sim_run(s, 5000);
    check_roles(s, alive(s) & half);
    check_roles(s, alive(s) & ~half);
    if (ok && (!sim_is_one(s, left) || !sim_is_one(s, right))) sim_wrong(s, "it did not last");
    if (!ok) sim_wrong(s, "it does not come together");
    if (s->n_wrong) printf("# %u nodes, seed %llu: %s\n", n, (unsigned long long)seed, s->wrong);
    return s->n_wrong ? UINT64_MAX : ms;
}

static void check_random(unsigned runs) {
    static uint64_t ms[20000];
    unsigned bad = 0, most_epochs = 0;
    for (unsigned r = 0; r < runs; r++) {
        unsigned epochs, n = r % 50 ? 1 + r % 8 : 16;
        ms[r] = scenario(n, 1000 + r, &epochs);
        bad += ms[r] == UINT64_MAX;
        if (epochs / n > most_epochs) most_epochs = epochs / n;
    }
    tap_ok(!bad,
           "%u networks with crashes, splits and one-way links: %u do not come together or break a "
           "rule; most epochs a node: %u",
           runs, bad, most_epochs);
    times("from the last mishap until all who can reach each other serve in one epoch", ms, runs,
          15000);
}

int main(int argc, char **argv) {
    if (argc == 3) {
        unsigned epochs;
        unsigned long long ms =
            scenario((unsigned)atoi(argv[1]), strtoull(argv[2], NULL, 10), &epochs);
        printf("# %llu ms, %u epochs\n", ms, epochs);
        return 0;
    }
    check_start();
    check_loss(3, false, 1000, "a follower is killed");
    check_loss(0, false, 1000, "the leader is killed");
    check_loss(3, true, 2500, "a follower's plug is pulled");
    check_loss(0, true, 2500, "the leader's plug is pulled");
    check_join();
    check_split(false);
    check_split(true);
    check_forgiven();
    check_flap(false, 3000);
    check_flap(false, 600);
    check_flap(true, 7000);
    check_bad_data();
    check_one_way();
    check_models();
    check_asked();
    check_guest();
    check_leave(0);
    check_leave(2);
    check_states();
    check_alone();
    check_twins();
    check_stuck();
    check_slow();
    check_broken_first();
    check_rename();
    check_nonsense();
    check_huge();
    check_random(argc == 2 ? (unsigned)atoi(argv[1]) : 2500);
    return tap_done();
}
