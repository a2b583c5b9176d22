/* members_own.h - the inside of a struct members, shared by members*.c only.
 *
 * members.c: who is there and what they say. members_lead.c: who leads, over whom, from when on.
 * members_past.c: what is remembered of nodes that were lost, so that a bad link or a node that comes
 * and goes does not keep everybody else from working. */
#ifndef CLUSTER_MEMBERS_OWN_H
#define CLUSTER_MEMBERS_OWN_H

#include "cluster/members.h"

#define MS ((uint64_t)1000000)

enum {
    GAP_KEPT = 64,
    FRESH_MS = 750,  // three beats: a node silent for longer is not taken into a new plan
    DEAF_MS = 400,  // two that stop hearing each other: one of them may be dead, that shows by then
    ONE_WAY_MS = 2500,    // a peer that does not hear us for this long is cut off
    PENDING_MS = 1500,    // who followed the leader that we lost may still find out
    BACK_OFF_MS = 250,    // after a refusal
    HOLD_MAX_MS = 8000,   // the same, doubled with each
    BREAK_MS = 50,        // after a break: the loss that caused it may be seen in this time
    CHANGE_MAX_MS = 2000  // joining nodes wait no longer for others to come to rest
};

/* What one message can add to the number of epochs. There are 2^62, honest nodes count one at a time, and a
 * node whose numbers are nonsense must not use them up. */
#define EPOCH_JUMP ((uint64_t)1 << 36)

struct peer {
    bool is_used, has_beat, is_leaving;
    bool is_ready;   // said READY for the epoch that we lead
    bool is_joined;  // its beats have shown that epoch
    bool hears_us;
    uint32_t hears;                // whom else, a bit for each slot of the table
    uint64_t deaf_ns[MEMBER_MAX];  // since when no longer whom, 0: never heard
    struct node_id id;
    uint64_t instance;
    struct facts facts;
    struct beat beat;
    uint64_t heard_ns, beat_ns, listed_ns;  // any sign; last beat; last beat that lists us
    uint64_t progress_ns;                   // of its loading
    uint64_t hold_ns;                       // refused us: not asked again before
    uint32_t n_refused;
    uint32_t n_gap, gap_us[GAP_KEPT];  // n_gap counts on; the last GAP_KEPT are there
};

/* What is remembered of a node when its channel is gone. */
struct past {
    struct node_id id;
    uint64_t instance;  // the start of it that was seen last
    uint64_t used_ns;   // 0: free
    bool is_in;         // works with us now
    uint64_t joined_ns, lost_ns;
    uint64_t served_ns;             // since when the epoch that it is in serves; 0: not
    uint64_t good_ns;               // it served before that, since it last offended
    uint64_t out_until_ns;          // not taken in before
    uint64_t blamed_ns;             // when a break of its channels was last laid to it
    uint64_t flap_ns, break_ns;     // the last penalty of either kind: the next one is twice that
    uint64_t told_model, told_key;  // people were told of this other model
};

struct report {  // the channel between two nodes broke (or one's own work: both the same)
    struct node_id a, b;
    uint64_t at_ns;
};

enum { PAST_MAX = 64, REPORT_MAX = 32, ACTION_MAX = 128, TOKENS = 6 };

struct members {
    struct members_conf conf;
    uint64_t now_ns, start_ns, appear_ns;
    uint64_t wake_ns;  // when to look again
    struct peer peer[MEMBER_MAX];
    struct past past[PAST_MAX];
    struct report report[REPORT_MAX];
    unsigned n_report;  // counts on

    struct node_id leader;  // followed or ourselves; all zero: none
    uint64_t epoch;         // the last that was adopted
    uint64_t seen;
    bool has_plan;  // works on `plan`
    struct plan plan;
    uint64_t adopted_ns;
    bool is_loaded, is_serving, is_leaving, is_started;
    bool is_remote;         // works in no plan, but its leader serves
    uint64_t remote_epoch;  // as told last

    struct node_id lost;  // the leader that we lost, while others may still find out
    uint64_t lost_ns, lost_epoch;

    /* leading */
    bool is_planning, is_broken;
    bool has_served;  // in this leadership
    uint64_t plan_epoch;
    uint64_t plan_ns;  // not before
    uint64_t
        refill_ns;  // when the next token is there: limits epochs to one a second in the long run
    unsigned n_token;
    unsigned n_asked;
    struct node_id asked[PLAN_NODES];
    uint64_t asked_instance[PLAN_NODES];
    uint32_t wanted;  // members that a plan of now would have; since when
    uint64_t wanted_ns, differs_ns;

    bool is_failed;
    uint64_t unfit_ns;  // does not lead before
    char why[STATUS_TEXT];
    char state_why[STATUS_TEXT];  // of JOINING

    /* what was last told by a beat */
    struct beat told;
    bool is_beat_due;
    unsigned n_action;
    struct action action[ACTION_MAX], spill;
};

static inline bool is_same(const struct node_id *a, const struct node_id *b) {
    return !ident_cmp(a, b);
}

static inline bool is_zero(const struct node_id *id) {
    static const struct node_id zero;
    return is_same(id, &zero);
}

static inline bool leads(const struct members *m) {
    return is_same(&m->leader, &m->conf.self);
}

/* members.c */
struct peer *peer_find(struct members *m, const struct node_id *id);
void peer_drop(struct members *m, struct peer *p, uint64_t now);  // with ACT_DROP
uint64_t peer_patience(const struct peer *p);                     // ns of silence until it is gone
void cancel_plan(struct members *m);
struct action *act(struct members *m, enum action_type type);
void alert(struct members *m, enum alert_code code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
uint64_t advance(struct members *m, uint64_t now);
void see_epoch(struct members *m, uint64_t epoch);
bool works(const struct members *m, const struct peer *p);     // in the plan that we work on
bool is_able(const struct members *m, const struct peer *p);   // has the same model, as we have
bool is_alike(const struct members *m, const struct peer *p);  // or as we had before we gave it up
/* Whether the time has come; if not, we want to be called then. */
bool is_due(struct members *m, uint64_t now, uint64_t at);

/* members_lead.c */
void settle(struct members *m, uint64_t now);
void end_epoch(struct members *m);
void set_serving(struct members *m, bool is_on);  // all that depends on it, too
bool is_doubtful(const struct peer *p,
                 uint64_t now);  // silent for so long that one more doubt tells
void lose_leader(struct members *m, uint64_t epoch, uint64_t now);
void on_broken(struct members *m, const struct node_id *by, const struct node_id *suspect,
               uint64_t now);
void on_plan(struct members *m, const struct peer *p, const struct plan *plan, uint64_t now);
void on_refused(struct members *m, struct peer *p, const struct msg *msg, uint64_t now);

/* members_past.c */
struct past *past_of(struct members *m, const struct node_id *id, uint64_t now);
const struct past *past_find(const struct members *m, const struct node_id *id);
void past_up(struct members *m, const struct node_id *id, uint64_t instance, uint64_t now);
void past_in(struct members *m, const struct node_id *id, uint64_t now);
void past_serves(struct members *m, bool is_on);  // all of the plan
void past_out(struct members *m, const struct node_id *id, uint64_t now);
void past_lost(struct members *m, const struct node_id *id, uint64_t now);
void past_left(struct members *m, const struct node_id *id, uint64_t now);  // in good order
void past_punish(struct members *m, const struct node_id *id, uint64_t now);
/* A break between a and b: who is to be left out for it; NULL: nobody yet. */
const struct node_id *past_blame(struct members *m, const struct node_id *a,
                                 const struct node_id *b, uint64_t now);
bool past_missing(const struct members *m, uint64_t now);  // a member was lost and is not back

#endif
