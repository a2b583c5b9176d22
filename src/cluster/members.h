/* members.h - who is here, who leads, which epoch it is: a pure state machine.
 *
 * Fed with what happens (channels up and down, messages, time), it answers with actions. It knows no
 * sockets, no clock of its own and no threads, so that a thousand simulated networks can be tried.
 *
 * Rules (ARCHITECTURE 6): a proved control channel with fresh beats is a member. Gone at a lost
 * channel, or after max(1 s, 8 x the 99th percentile of its gaps between beats), 5 s at most. Two
 * members are linked when each hears the other (a link that works one way is down). The leader plans
 * over a mutually linked set. Among those with the model the lowest id leads; a leader stays as long
 * as it lives; where two meet (after a split), the one with the lower id stays and the other's
 * members join it. Each change of the working set is a new epoch, one above any that was heard of.
 * A node whose leader lives takes plans from no other (but from a lower leader when parts merge).
 * A guest ranks behind every node that is none, and leads nobody but itself.
 *
 * What the caller sends, and when (msg.epoch is the epoch meant):
 *   ACT_ADOPT of a plan that we lead -> MSG_PLAN to every other node of the plan, before anything else
 *   ACT_SERVE                        -> MSG_SERVING to every other node of the plan
 *   ACT_BEAT, and every BEAT_NS      -> MSG_BEAT (members_beat) to everybody
 *   ACT_REFUSE                       -> MSG_REFUSED (reason, text) to action.id
 *   after members_loaded()           -> MSG_READY to the plan's leader, unless that is us
 *   after members_broke()            -> MSG_BROKEN to the plan's leader, unless that is us
 *   before members_leave()           -> MSG_LEAVE to everybody
 * ACT_ADOPT ends the epoch before it without an ACT_ABANDON; an action that is
 * overtaken before it was fetched is taken back. ACT_DROP: the member is forgotten already;
 * a members_down() for it afterwards does no harm. A node that works in no plan (no model, not yet
 * taken in, or its model given up) still follows a leader that it hears, never one of another model
 * than its own: its ACT_SERVING and members_is_serving() mean that the leader takes work from it.
 * members_leader() names it. A second channel to a known start of a node is the caller's to sort
 * out: members_up() again with the same instance only counts as a sign of life.
 */
#ifndef CLUSTER_MEMBERS_H
#define CLUSTER_MEMBERS_H

#include "cluster/msg.h"

enum {
    BEAT_NS = 250000000,
    GONE_MIN_MS = 1000,
    GONE_MAX_MS = 5000,
    START_MS = 1500,      // a start looks around this long before anybody leads
    START_MAX_MS = 4000,  // and this long while still more appear
    QUIET_MS = 400,    // no change of the members for this long before a joining node is taken in
    READY_MS = 60000,  // loading longer than this without any progress: left out
};

enum action_type {
    ACT_NONE,
    ACT_PLAN,     // we lead: make a plan over `set`, epoch `epoch`; then members_planned()
    ACT_ADOPT,    // we follow (or lead) this plan now: abandon the old one, load, connect
    ACT_ABANDON,  // the epoch we worked on is over and there is no new one yet
    ACT_SERVE,    // we lead and all are ready: tell the set, take work
    ACT_SERVING,  // the leader said that the epoch takes work: (re)submit to it
    ACT_DROP,     // close the control channel to `id`: gone, or a duplicate
    ACT_BEAT,     // send beats now, something changed
    ACT_REFUSE,   // answer `id` with MSG_REFUSED, `text` says why
    ACT_ALERT,    // `alert`, for people `text`; of `id`, if that is not zero, while it is connected
};

struct action {
    enum action_type type;
    struct node_id id;
    uint64_t instance;  // DROP, REFUSE: which start of that node is meant; PLAN..: of the leader
    uint64_t epoch;
    enum refused_reason reason;  // REFUSE
    unsigned n_set;
    struct node_id set[PLAN_NODES];  // PLAN, SERVE: ourselves first
    const struct plan *plan;         // ADOPT: valid until the next call that is not members_next
    char text[STATUS_TEXT];
    enum alert_code alert;
    bool is_told;  // ALERT: it was said before, and the node is back
};

struct members;

struct members_conf {
    struct node_id self;
    uint64_t instance;
    struct facts facts;
    uint64_t gave_up;   // facts.model 0: the model that its requests are for all the same, 0: none
    unsigned expected;  // named peers (peers =) to wait for at the start, up to START_MAX_MS
    bool is_alone;      // no key: leads itself at once
};

/* One allocation. */
MUST members_open(struct members **out, const struct members_conf *c, uint64_t now_ns,
                  struct err *e);
void members_close(struct members *m);
/* Our id was renewed: all channels are closed by the caller, everything starts anew. */
void members_rename(struct members *m, const struct node_id *self, uint64_t instance,
                    uint64_t now_ns);

/* One named peer fewer is waited for at the start: it is this node. */
void members_expect_less(struct members *m);
/* Our name is another now; the others learn it by our beats. */
void members_call(struct members *m, const char *name);

/* Something was seen that may become a member soon (mDNS, a dial under way). */
void members_hint(struct members *m, uint64_t now_ns);
/* A control channel is up and said hello. */
void members_up(struct members *m, const struct node_id *id, uint64_t instance,
                const struct facts *f, uint64_t now_ns);
void members_down(struct members *m, const struct node_id *id, uint64_t now_ns);
/* Any other message of a member's that concerns membership: BEAT PLAN READY REFUSED BROKEN SERVING
 * LEAVE. */
void members_heard(struct members *m, const struct node_id *id, const struct msg *msg,
                   uint64_t now_ns);
/* What came of ACT_PLAN: the plan (then ACT_ADOPT follows, and the caller sends it to the set), or
 * NULL: no plan is possible (text why: we are FAILED until something changes). */
void members_planned(struct members *m, const struct plan *p, const char *why, uint64_t now_ns);
/* Our own engine: loaded and connected for this epoch; or the epoch broke (suspect NULL: not known,
 * or our own fault). */
void members_loaded(struct members *m, uint64_t epoch, uint64_t now_ns);
void members_broke(struct members *m, uint64_t epoch, const struct node_id *suspect,
                   uint64_t now_ns);
/* We shut down: ACT_... as needed so that a leader who leaves hands over without a gap. */
void members_leave(struct members *m, uint64_t now_ns);

/* Time passes: timeouts, settling. Returns when it wants to be called next (at most BEAT_NS ahead);
 * what comes in meanwhile may bring that forward, so call it after that too. */
uint64_t members_tick(struct members *m, uint64_t now_ns);
/* The next thing to do; ACT_NONE: nothing. Call until then after each of the above. */
bool members_next(struct members *m, struct action *out);

/* For beats and status. */
void members_beat(const struct members *m, struct beat *out);  // leader, epoch, seen, hear, state
enum node_state members_state(const struct members *m, const char **why);
struct member_view {
    struct node_id id;
    uint64_t instance;
    struct facts facts;
    struct beat beat;
    bool has_beat, is_linked, is_working, is_other_model;
};
unsigned members_list(const struct members *m, struct member_view *out, unsigned cap);
const struct plan *members_plan(const struct members *m);  // NULL: none
bool members_is_serving(const struct members *m);
/* Works in no plan, but follows a leader all the same. *epoch: in which that takes work, 0: in none now. */
bool members_leader(const struct members *m, struct node_id *leader, uint64_t *epoch);
/* A member was lost and is waited for: by us, or as the leader says that we follow without a part in its
 * plan. */
bool members_waits(struct members *m);

#endif
