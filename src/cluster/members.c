/* members.c - who is there and what they say; the table of peers and what is told of it. */
#include "cluster/members_own.h"

#include <assert.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

/* --- actions --- */

static bool is_of_epoch(enum action_type t) {
    return t == ACT_ADOPT || t == ACT_ABANDON || t == ACT_SERVE || t == ACT_SERVING;
}

/* Take back what was not fetched yet and is overtaken: nobody need load a plan that is over. */
static void take_back(struct members *m, bool (*is_old)(enum action_type)) {
    unsigned n = 0;
    for (unsigned i = 0; i < m->n_action; i++) {
        if (is_old(m->action[i].type)) continue;
        if (n != i) m->action[n] = m->action[i];
        n++;
    }
    m->n_action = n;
}

static bool is_plan(enum action_type t) {
    return t == ACT_PLAN;
}

void cancel_plan(struct members *m) {
    m->is_planning = false;
    take_back(m, is_plan);
}

/* Should a caller not fetch for long, what is for people and strangers is lost first. */
struct action *act(struct members *m, enum action_type type) {
    if (type == ACT_ADOPT || type == ACT_ABANDON) take_back(m, is_of_epoch);
    bool is_idle = type == ACT_ALERT || type == ACT_REFUSE;
    unsigned room = is_idle ? ACTION_MAX / 2 : ACTION_MAX;
    struct action *a = m->n_action < room ? &m->action[m->n_action++] : &m->spill;
    *a = (struct action){.type = type};
    return a;
}

void alert(struct members *m, enum alert_code code, const char *fmt, ...) {
    va_list ap;
    struct action *a = act(m, ACT_ALERT);
    a->alert = code;
    va_start(ap, fmt);
    vsnprintf(a->text, sizeof a->text, fmt, ap);
    va_end(ap);
}

bool members_next(struct members *m, struct action *out) {
    *out = (struct action){.type = ACT_NONE};
    if (m->n_action) {
        *out = m->action[0];
        memmove(m->action, m->action + 1, --m->n_action * sizeof *out);
        return true;
    }
    if (!m->is_beat_due) return false;
    m->is_beat_due = false;
    out->type = ACT_BEAT;
    return true;
}

bool is_due(struct members *m, uint64_t now, uint64_t at) {
    if (now >= at) return true;
    if (at < m->wake_ns) m->wake_ns = at;
    return false;
}

void see_epoch(struct members *m, uint64_t epoch) {
    uint64_t most = m->seen + EPOCH_JUMP;
    if (epoch > m->seen) m->seen = epoch < most ? epoch : most;
}

/* Callers read their clocks at different moments: time never goes back here. */
uint64_t advance(struct members *m, uint64_t now) {
    if (now > m->now_ns) m->now_ns = now;
    return m->now_ns;
}

/* --- the table --- */

struct peer *peer_find(struct members *m, const struct node_id *id) {
    for (unsigned i = 0; i < MEMBER_MAX; i++) {
        if (m->peer[i].is_used && is_same(&m->peer[i].id, id)) return &m->peer[i];
    }
    return NULL;
}

bool works(const struct members *m, const struct peer *p) {
    if (!m->has_plan || !p->is_used) return false;
    int i = plan_slice(&m->plan, &p->id);
    return i >= 0 && m->plan.instance[i] == p->instance;
}

bool is_alike(const struct members *m, const struct peer *p) {
    const struct facts *f = &m->conf.facts;
    uint64_t model = f->model ? f->model : m->conf.gave_up;
    return model && p->facts.model == model && p->facts.contract == f->contract &&
           p->facts.kv == f->kv && p->facts.wire == f->wire;
}

bool is_able(const struct members *m, const struct peer *p) {
    return m->conf.facts.model && is_alike(m, p);
}

/* Of at most 64 gaps the 99th percentile is the longest. */
uint64_t peer_patience(const struct peer *p) {
    uint64_t most = 0;
    for (unsigned i = 0; i < p->n_gap && i < GAP_KEPT; i++) {
        if (p->gap_us[i] > most) most = p->gap_us[i];
    }
    uint64_t ns = 8 * most * 1000;
    if (ns < GONE_MIN_MS * MS) return GONE_MIN_MS * MS;
    return ns < GONE_MAX_MS * MS ? ns : GONE_MAX_MS * MS;
}

/* Slots stand for ids in all masks: made anew when one is taken or given back. */
static void map_beat(struct members *m, struct peer *p) {
    uint32_t before = p->hears;
    p->hears = 0;
    p->hears_us = false;
    for (unsigned i = 0; p->has_beat && i < p->beat.n_hear; i++) {
        const struct peer *other = peer_find(m, &p->beat.hear[i]);
        if (other) p->hears |= 1U << (other - m->peer);
        if (is_same(&p->beat.hear[i], &m->conf.self)) p->hears_us = true;
    }
    for (unsigned i = 0; i < MEMBER_MAX; i++) {
        if ((before & ~p->hears) >> i & 1) p->deaf_ns[i] = m->now_ns;
    }
}

static void map_all(struct members *m) {
    for (unsigned i = 0; i < MEMBER_MAX; i++) {
        if (m->peer[i].is_used) map_beat(m, &m->peer[i]);
    }
}

static void forget(struct members *m, struct peer *p, uint64_t now) {
    struct node_id id = p->id;
    /* Also one of the plan that has just ended: its data channel may have been seen to end first. */
    const struct past *past = past_find(m, &id);
    bool was_leader = is_same(&m->leader, &id), is_leaving = p->is_leaving;
    bool is_in = works(m, p) || (past && past->is_in);
    uint64_t epoch = m->has_plan ? m->epoch : p->beat.epoch;
    p->is_used = false;
    map_all(m);
    if (is_in && is_leaving) {
        past_left(m, &id, now);
    } else if (is_in) {
        past_lost(m, &id, now);
    }
    if (was_leader) lose_leader(m, epoch, now);
}

void peer_drop(struct members *m, struct peer *p, uint64_t now) {
    struct action *a = act(m, ACT_DROP);
    a->id = p->id;
    a->instance = p->instance;
    forget(m, p, now);
}

/* --- what to tell --- */

static enum node_state state_of(const struct members *m, uint64_t now) {
    bool is_alone = m->conf.is_alone;
    if (m->is_failed && is_zero(&m->leader)) return STATE_FAILED;
    if (m->is_serving) {
        return is_alone ? STATE_ALONE : past_missing(m, now) ? STATE_DEGRADED : STATE_READY;
    }
    if (m->has_plan) return STATE_LOADING;
    if (m->is_remote && !m->conf.facts.model) return STATE_READY;
    return is_alone && m->conf.facts.model ? STATE_LOADING : STATE_JOINING;
}

static void say_why(struct members *m) {
    const struct peer *l = is_zero(&m->leader) ? NULL : peer_find(m, &m->leader);
    char *s = m->state_why;
    size_t n = sizeof m->state_why;
    *s = 0;
    if (m->has_plan) return;
    if (!m->conf.facts.model) {
        snprintf(s, n, "this node has no model%s%s", l ? "; requests go to " : "",
                 l ? l->facts.name : "; it waits for nodes that have one");
    } else if (l) {
        snprintf(s, n, "waits for %s to take it in", l->facts.name);
    } else if (!m->is_started) {
        snprintf(s, n, "looks for other nodes");
    } else {
        snprintf(s, n, "waits for a plan");
    }
}

static void make_beat(const struct members *m, struct beat *out, enum node_state state) {
    *out = (struct beat){.state = state, .leader = m->leader, .seen = m->seen};
    out->temperature_c = NAN;
    memcpy(out->name, m->conf.facts.name, sizeof out->name);
    out->epoch = m->has_plan ? m->epoch : 0;
    for (unsigned i = 0; i < MEMBER_MAX; i++) {
        if (m->peer[i].is_used && m->peer[i].has_beat) out->hear[out->n_hear++] = m->peer[i].id;
    }
}

/* After each call: settle, and tell the others at once if they should know. */
static void finish(struct members *m, uint64_t now) {
    struct beat b;
    settle(m, now);
    say_why(m);
    make_beat(m, &b, state_of(m, now));
    if (b.state != m->told.state || b.epoch != m->told.epoch || b.n_hear != m->told.n_hear ||
        !is_same(&b.leader, &m->told.leader) || memcmp(b.hear, m->told.hear, sizeof b.hear) != 0) {
        m->is_beat_due = true;
    }
    m->told = b;
}

void members_beat(const struct members *m, struct beat *out) {
    make_beat(m, out, m->told.state);
}

enum node_state members_state(const struct members *m, const char **why) {
    if (why) *why = m->told.state == STATE_FAILED ? m->why : m->state_why;
    return m->told.state;
}

/* --- life --- */

static void begin(struct members *m, uint64_t now) {
    m->start_ns = m->appear_ns = m->wake_ns = now;
    m->n_token = TOKENS;
    finish(m, now);
}

MUST members_open(struct members **out, const struct members_conf *c, uint64_t now_ns,
                  struct err *e) {
    struct members *m = calloc(1, sizeof *m);
    if (!m) return err_set(e, ERR_MEMORY, "no memory for the table of members");
    m->conf = *c;
    begin(m, now_ns);
    *out = m;
    return true;
}

void members_close(struct members *m) {
    free(m);
}

void members_rename(struct members *m, const struct node_id *self, uint64_t instance,
                    uint64_t now_ns) {
    struct members_conf c = m->conf;
    uint64_t seen = m->seen;
    bool had_plan = m->has_plan;
    c.self = *self;
    c.instance = instance;
    *m = (struct members){.conf = c, .seen = seen};
    if (had_plan) act(m, ACT_ABANDON);
    begin(m, now_ns);
}

void members_call(struct members *m, const char *name) {
    snprintf(m->conf.facts.name, sizeof m->conf.facts.name, "%.*s", ID_NAME - 1, name);
}

uint64_t members_tick(struct members *m, uint64_t now_ns) {
    now_ns = advance(m, now_ns);
    finish(m, now_ns);
    return m->wake_ns;
}

void members_expect_less(struct members *m) {
    if (m->conf.expected) m->conf.expected--;
}

void members_hint(struct members *m, uint64_t now_ns) {
    now_ns = advance(m, now_ns);
    m->appear_ns = now_ns;
    finish(m, now_ns);
}

void members_leave(struct members *m, uint64_t now_ns) {
    now_ns = advance(m, now_ns);
    m->is_leaving = true;
    end_epoch(m);
    m->leader = (struct node_id){{0}};
    cancel_plan(m);
    finish(m, now_ns);
}

/* --- peers come and go --- */

/* What is to be seen as long as the node is connected. */
static void alert_of(struct members *m, const struct peer *p, enum alert_code code, bool is_told,
                     const char *text) {
    struct action *a = act(m, ACT_ALERT);
    a->alert = code;
    a->id = p->id;
    a->is_told = is_told;
    snprintf(a->text, sizeof a->text, "%s", text);
}

/* Told once for each node and model: reconnecting is no news. */
static void compare_models(struct members *m, struct peer *p, uint64_t now) {
    const struct facts *us = &m->conf.facts, *them = &p->facts;
    struct past *past = past_of(m, &p->id, now);
    uint64_t key = (uint64_t)them->contract << 9 | them->kv << 5 | them->wire << 1 | 1;
    bool is_known = past->told_key == key && past->told_model == them->model;
    if (!us->model || is_able(m, p)) return;
    past->told_key = key;
    past->told_model = them->model;
    if (!them->model) {
        char text[STATUS_TEXT];
        snprintf(text, sizeof text, "%s has no model: it answers no requests itself", them->name);
        alert_of(m, p, ALERT_NO_MODEL, is_known, text);
        return;
    }
    struct action r = {.type = ACT_REFUSE, .id = p->id, .instance = p->instance};
    r.reason = REFUSED_MODEL;
    enum alert_code code = us->model != them->model ? ALERT_OTHER_MODEL : ALERT_OTHER_NUMBERS;
    if (us->model != them->model) {
        snprintf(r.text, sizeof r.text,
                 "%s has the model %s (%016llx), %s has %s (%016llx): they do not work together "
                 "until all have the same file",
                 them->name, them->model_name, (unsigned long long)them->model, us->name,
                 us->model_name, (unsigned long long)us->model);
    } else if (us->contract == them->contract) {
        snprintf(r.text, sizeof r.text,
                 "%s and %s round numbers differently: give all nodes the same `kv` and the same "
                 "`wire` setting",
                 them->name, us->name);
    } else {
        snprintf(
            r.text, sizeof r.text,
            "%s computes %s by version %u of the numeric contract (%s), %s by version %u (%s): "
            "they do not work together until all have the same version",
            them->name, them->model_name, them->contract, them->version, us->name, us->contract,
            us->version);
    }
    *act(m, ACT_REFUSE) = r;
    alert_of(m, p, code, is_known, r.text);
}

static struct peer *free_slot(struct members *m) {
    for (unsigned i = 0; i < MEMBER_MAX; i++) {
        if (!m->peer[i].is_used) return &m->peer[i];
    }
    return NULL;
}

static void turn_away(struct members *m, const struct node_id *id, uint64_t instance) {
    struct action *a = act(m, ACT_DROP);
    a->id = *id;
    a->instance = instance;
}

void members_up(struct members *m, const struct node_id *id, uint64_t instance,
                const struct facts *f, uint64_t now_ns) {
    now_ns = advance(m, now_ns);
    struct peer *p = peer_find(m, id);
    if (p && p->instance == instance) {
        p->facts = *f;
        p->heard_ns = now_ns;
        finish(m, now_ns);
        return;
    }
    if (p && now_ns - p->heard_ns < 2 * (uint64_t)BEAT_NS) {
        alert(m, ALERT_TWIN,
              "a second node calls itself %s: two cards with one image? It is turned away",
              f->name);
        turn_away(m, id, instance);
        return;
    }
    if (p) forget(m, p, now_ns);
    p = is_same(id, &m->conf.self) ? NULL : free_slot(m);
    if (!p) {
        alert(m, ALERT_CROWDED, "%s is turned away: this node keeps %d others at most", f->name,
              MEMBER_MAX);
        turn_away(m, id, instance);
        return;
    }
    *p = (struct peer){.is_used = true, .id = *id, .instance = instance, .facts = *f};
    for (unsigned i = 0; i < MEMBER_MAX; i++) m->peer[i].deaf_ns[p - m->peer] = 0;
    p->heard_ns = p->listed_ns = p->progress_ns = m->appear_ns = now_ns;
    past_up(m, id, instance, now_ns);
    map_all(m);
    compare_models(m, p, now_ns);
    m->is_beat_due = true;
    finish(m, now_ns);
}

void members_down(struct members *m, const struct node_id *id, uint64_t now_ns) {
    now_ns = advance(m, now_ns);
    struct peer *p = peer_find(m, id);
    if (!p) return;
    forget(m, p, now_ns);
    finish(m, now_ns);
}

/* --- what they say --- */

/* Our leader's own beats show when the epoch is over: it leads no longer, or in another epoch. (A
 * plan that we are in comes before the beat that shows it.) */
static void heard_leader(struct members *m, const struct peer *p, uint64_t now) {
    if (!is_same(&p->beat.leader, &p->id)) {
        lose_leader(m, m->has_plan ? m->epoch : p->beat.epoch, now);
    } else if (m->has_plan && p->beat.epoch != m->epoch) {
        end_epoch(m);
    }
}

/* One who works in our plan: taken over, going on, or out of it. */
static void heard_worker(struct members *m, struct peer *p, bool is_progress, uint64_t now) {
    bool is_in = is_same(&p->beat.leader, &m->conf.self) && p->beat.epoch == m->epoch;
    if (is_in) p->is_joined = true;
    if (is_in && is_progress) p->progress_ns = now;
    if (!is_in && (p->is_joined || p->is_ready)) {
        m->is_broken = true;
        set_serving(m, false);
    }
}

static void on_beat(struct members *m, struct peer *p, const struct beat *b, uint64_t now) {
    if (p->has_beat) {
        uint64_t gap = (now - p->beat_ns) / 1000;
        p->gap_us[p->n_gap++ % GAP_KEPT] = gap < UINT32_MAX ? (uint32_t)gap : UINT32_MAX;
        if (p->n_gap == 2 * GAP_KEPT) p->n_gap = GAP_KEPT;
    }
    bool is_progress = b->pinned_bytes != p->beat.pinned_bytes;
    p->beat = *b;
    memcpy(p->facts.name, b->name, sizeof p->facts.name);
    p->has_beat = true;
    p->beat_ns = now;
    map_beat(m, p);
    if (p->hears_us) p->listed_ns = now;
    see_epoch(m, b->seen);
    see_epoch(m, b->epoch);
    if (is_same(&m->leader, &p->id)) heard_leader(m, p, now);
    if (leads(m) && works(m, p)) heard_worker(m, p, is_progress, now);
}

static void on_serving(struct members *m, const struct peer *p, uint64_t epoch) {
    bool is_ours = m->has_plan && epoch == m->epoch && is_same(&m->leader, &p->id);
    if (!is_ours || !m->is_loaded || m->is_serving) return;
    set_serving(m, true);
    struct action *a = act(m, ACT_SERVING);
    a->id = p->id;
    a->instance = p->instance;
    a->epoch = epoch;
}

static void on_leave(struct members *m, struct peer *p, uint64_t now) {
    p->is_leaving = true;
    past_left(m, &p->id, now);  // whatever is seen first from now on, it is not missed
    if (is_same(&m->leader, &p->id)) lose_leader(m, m->has_plan ? m->epoch : p->beat.epoch, now);
}

void members_heard(struct members *m, const struct node_id *id, const struct msg *msg,
                   uint64_t now_ns) {
    now_ns = advance(m, now_ns);
    struct peer *p = peer_find(m, id);
    if (!p) return;
    p->heard_ns = now_ns;
    bool is_mine = leads(m) && m->has_plan && msg->epoch == m->epoch && works(m, p);
    switch (msg->type) {
    case MSG_BEAT: on_beat(m, p, &msg->u.beat, now_ns); break;
    case MSG_PLAN: on_plan(m, p, &msg->u.plan, now_ns); break;
    case MSG_READY: p->is_ready = p->is_ready || is_mine; break;
    case MSG_REFUSED: on_refused(m, p, msg, now_ns); break;
    case MSG_BROKEN:
        if (is_mine) {
            on_broken(m, id, is_zero(&msg->u.suspect) ? id : &msg->u.suspect, now_ns);
        }
        break;
    case MSG_SERVING: on_serving(m, p, msg->epoch); break;
    case MSG_LEAVE: on_leave(m, p, now_ns); break;
    case MSG_HELLO:
    case MSG_ASK:
    case MSG_TOKENS:
    case MSG_DONE:
    case MSG_CANCEL:
    case N_MSG: break;
    }
    finish(m, now_ns);
}

/* --- our own engine --- */

void members_loaded(struct members *m, uint64_t epoch, uint64_t now_ns) {
    now_ns = advance(m, now_ns);
    if (m->has_plan && epoch == m->epoch) m->is_loaded = true;
    finish(m, now_ns);
}

void members_broke(struct members *m, uint64_t epoch, const struct node_id *suspect,
                   uint64_t now_ns) {
    now_ns = advance(m, now_ns);
    if (!m->has_plan || epoch != m->epoch) return;
    struct node_id s = suspect && !is_zero(suspect) ? *suspect : m->conf.self;
    if (leads(m)) {
        on_broken(m, &m->conf.self, &s, now_ns);
    } else {
        struct peer *l = is_same(&s, &m->leader) ? peer_find(m, &s) : NULL;
        end_epoch(m);
        if (l && is_doubtful(l, now_ns)) peer_drop(m, l, now_ns);  // silent on both channels
    }
    finish(m, now_ns);
}

/* --- views --- */

unsigned members_list(const struct members *m, struct member_view *out, unsigned cap) {
    unsigned n = 0;
    for (unsigned i = 0; i < MEMBER_MAX && n < cap; i++) {
        const struct peer *p = &m->peer[i];
        if (!p->is_used) continue;
        out[n++] = (struct member_view){
            .id = p->id,
            .instance = p->instance,
            .facts = p->facts,
            .beat = p->beat,
            .has_beat = p->has_beat,
            .is_linked = p->has_beat && p->hears_us,
            .is_working = works(m, p),
            .is_other_model = m->conf.facts.model && p->facts.model && !is_able(m, p),
        };
    }
    return n;
}

const struct plan *members_plan(const struct members *m) {
    return m->has_plan ? &m->plan : NULL;
}

bool members_is_serving(const struct members *m) {
    return m->is_serving || m->is_remote;
}

bool members_waits(struct members *m) {
    const struct peer *l = m->is_remote ? peer_find(m, &m->leader) : NULL;
    return l ? l->beat.state == STATE_DEGRADED : past_missing(m, m->now_ns);
}

bool members_leader(const struct members *m, struct node_id *leader, uint64_t *epoch) {
    if (m->has_plan || leads(m) || is_zero(&m->leader)) return false;
    *leader = m->leader;
    *epoch = m->is_remote ? m->remote_epoch : 0;
    return true;
}
