/* cluster_state.h - the inside of a struct cluster, shared by cluster*.c, link.c and epoch.c only. All of
 * it belongs to the cluster's thread, but what stands under `lock`. */
#ifndef CLUSTER_CLUSTER_STATE_H
#define CLUSTER_CLUSTER_STATE_H

#include "cluster/cluster.h"

#include <pthread.h>

enum {
    TARGETS = 64,    // places where a node may be
    HELD_DATA = 16,  // data channels that came before their plan
    PAST_EPOCHS = 8,
    PAST_NS = 2000000000,
    DIAL_AGAIN_NS = 100000000,  // a data channel that failed
    DIAL_FIRST_NS = 250000000,  // a control channel: doubled each time up to
    DIAL_MOST_NS = 2000000000,  // ... while there is hope, and then up to
    DIAL_HOPE = 12,
    ELDER_WAITS_NS = 1500000000,  // the higher id dials only if the lower one has not by then
    NOTES = 16,
    ALERT_S = 600,  // an alert that does not come again is shown so long
    FITNESS = 2,    // failures of our own before we give up the model
};

static const uint64_t DIAL_GIVE_UP_NS = 6000000000;  // in vain for so long: it broke
static const uint64_t HELD_NS = 10000000000;         // a data channel that came before its plan
static const uint64_t HELLO_NS = 5000000000;         // a proved peer that says nothing
static const uint64_t UNREACHED_NS = 10000000000;
static const uint64_t NAMES_STAY_NS = 10000000000;

/* A control channel to a node that has proved to hold the key. */
struct link {
    struct cluster *all;
    struct chan *chan;  // NULL: this place is free
    struct loop_fd fd;
    struct gate_peer peer;
    struct facts facts;
    bool has_hello, is_twin;  // is_twin: has our own id
    uint64_t sent, received;  // messages; their numbers
    uint64_t heard_ns;        // when the last one came
};

/* A place where a node may be found: told by mDNS, or named by the user. */
struct target {
    bool is_used, is_named, is_dialling, has_id;
    bool is_asked;  // where it is
    bool is_self;   // named, and once was this node
    uint32_t peer;  // named: the number of the name
    struct node_id id;
    uint64_t instance;
    uint32_t n_addr, next_addr, failures;
    struct sockaddr_storage addr[MDNS_ADDRS];
    uint64_t next_ns;
    char why[ERR_TEXT];    // named: of the last dial, which came to nothing; else ""
    bool has_other_key;    // than we have, as the last dial showed
    uint32_t n_other_key;  // dials that did, since it was last connected
};

/* The data channel to one node of the epoch at hand. */
struct data_dial {
    bool is_linked, is_dialling;
    uint64_t begun_ns, next_ns;
};

struct held {
    struct chan *chan;
    struct gate_peer peer;
    uint64_t until_ns;
};

/* An epoch that is over keeps its channels open for a moment: who has not heard of its end yet would
 * take a closed one for a lost node. */
struct past_epoch {
    struct epoch *epoch;
    uint64_t until_ns;
};

/* What the engine's thread has to say. */
struct note {
    enum { NOTE_LOADED, NOTE_PAUSED, NOTE_BROKE, NOTE_UNFIT, NOTE_STUCK } what;
    uint64_t epoch;
    int suspect;
    char why[STATUS_TEXT];
};

struct cluster {
    struct cluster_conf conf;
    struct loop loop;
    struct gate *gate;
    struct mdns *mdns;
    struct lookup *lookup;  // of the named peers
    struct members *members;
    struct loop_timer beat, tick;
    pthread_t thread;
    bool has_thread;
    struct link link[MEMBER_MAX];
    struct target target[TARGETS];
    struct epoch *epoch;  // at hand, NULL: none
    struct past_epoch past[PAST_EPOCHS];
    struct data_dial dial[PLAN_NODES];
    struct held held[HELD_DATA];
    struct action joining;  // a plan that waits for the step at hand
    bool is_joining;        // there is one
    unsigned own_failures;
    char unfit[STATUS_TEXT];  // why this node gave its model up, else ""
    uint64_t served_ns;       // when an epoch was last seen to serve
    uint64_t started_ns, n_epoch, other_clusters;
    bool is_serving_told;  // mDNS knows that we serve
    struct mdns_facts facts_told;
    bool is_settling, has_left;
    uint8_t *out;  // [out_cap] room to encode a message
    size_t out_cap;
    int32_t *ids;  // [n_ids] room for decoded token ids
    size_t n_ids;
    struct msg in;                   // the message at hand
    bool has_unread;                 // channels were left with messages in their buffers
    char address[64];                // ours, for people
    double disk_bps, temperature_c;  // ours, as our last beat said
    unsigned n_beat, n_alert;
    struct status_alert alert[STATUS_ALERTS];
    uint64_t alert_ns[STATUS_ALERTS];
    struct node_id alert_of[STATUS_ALERTS];  // shown while it is connected; zero: of nobody

    pthread_mutex_t lock;
    struct note note[NOTES];
    unsigned n_note;
    bool is_leaving;
    struct status shown;  // state, nodes, alerts as of the last beat
    bool is_led;          // by another, as of then
    struct work work;     // what that one said
    uint64_t pinned, streamed;
};

/* cluster.c: do what members.c says, after anything was told to it. */
void cluster_settle(struct cluster *c);
void cluster_plan_joining(struct cluster *c);  // the plan that waits for a step, now
void cluster_announce(struct cluster *c);      // mDNS, anew: at the start and under a new id
void cluster_depart(struct cluster *c);        // the others are told that we go

/* cluster_alert.c. `of`: shown while that node is connected; is_told: it is in the log already. */
void cluster_alert_of(struct cluster *c, enum alert_code code, const struct node_id *of,
                      bool is_told, const char *text);
void cluster_alert(struct cluster *c, enum alert_code code, const char *text);
void cluster_unalert(struct cluster *c,
                     const struct node_id *of);  // what was said of a node that went
void cluster_tend_alerts(struct cluster *c, uint64_t now);

/* cluster_note.c: the loop was woken by another thread. */
void cluster_posted(void *ctx);

/* cluster_show.c */
void cluster_show(struct cluster *c);
void cluster_find_address(struct cluster *c);

/* link.c */
void link_take(struct cluster *c, struct chan *ch, const struct gate_peer *p);
void link_drop(struct link *l);  // closes; members are told
bool link_send(struct link *l, struct msg *m);
struct link *link_find(struct cluster *c, const struct node_id *id);
void links_close(struct cluster *c);
void links_read(struct cluster *c);                // what was left unread
void links_tidy(struct cluster *c, uint64_t now);  // without those that do not say hello
void target_seen(struct cluster *c, const struct mdns_peer *p);
void target_gone(struct cluster *c, const struct mdns_peer *p);
/* Named peers become targets. Fails: ERR_USAGE (no name; and for a guest: it cannot be resolved), ERR_MEMORY. */
MUST targets_name(struct cluster *c, struct err *e);
void target_failed(struct cluster *c, uint64_t tag, enum gate_end how, const struct err *why);
void target_is_self(struct cluster *c, uint64_t tag);
void targets_dial(struct cluster *c, uint64_t now);

/* epoch.c */
MUST epoch_adopt(struct cluster *c, const struct plan *p, struct err *e);
void epoch_end(struct cluster *c);
void epoch_take(struct cluster *c, struct chan *ch, const struct gate_peer *p);  // a data channel
void epoch_failed(struct cluster *c, uint64_t tag);
void epoch_dial(struct cluster *c, uint64_t now);
void epoch_forget(struct cluster *c, uint64_t now);  // what was kept for a moment

/* A dial's tag says what it was for. */
enum { TAG_DATA_BIT = 63 };
static inline bool tag_is_data(uint64_t tag) {
    return tag >> TAG_DATA_BIT;
}

static inline bool id_is(const struct node_id *a, const struct node_id *b) {
    return ident_cmp(a, b) == 0;
}

#endif
