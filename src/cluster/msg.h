/* msg.h - what nodes say to each other over control channels: compact, bounded, checked.
 *
 * A frame of the channel is one message: type (1 byte), version and flags (1), epoch and sequence
 * (varints), then the fields of its type; numbers are LEB128 varints, ids 16 bytes, text has its
 * length before it. The sequence counts a channel's messages from 1 without a gap; anything else is refused, as
 * are unknown types, leftover bytes, counts past the limits below. Nothing from the wire is an
 * address, an index or a size until it has been compared with what we have.
 */
#ifndef CLUSTER_MSG_H
#define CLUSTER_MSG_H

#include "base/status.h"
#include "cluster/plan.h"
#include "model/grammar.h"
#include "model/sampler.h"

enum {
    MSG_MAX = 512 << 10,       // bytes of a message
    MSG_TOKENS_MAX = 1 << 17,  // ids in one request
    MEMBER_MAX = 32,           // peers that a node keeps
};

enum msg_type {
    MSG_HELLO = 1,  // first on every control channel: the sender's facts
    MSG_BEAT,       // four times a second
    MSG_PLAN,       // leader: a new epoch
    MSG_READY,      // to the leader: this epoch is loaded, all data channels are up
    MSG_REFUSED,    // to a would-be leader: I follow another, or cannot do this plan
    MSG_BROKEN,     // to the leader: this epoch is over, suspect says who does not answer
    MSG_SERVING,    // leader: everybody is ready, the epoch takes work
    MSG_ASK,        // front to leader: a sequence to continue
    MSG_TOKENS,     // leader to front: the next ids of a sequence
    MSG_DONE,       // leader to front: the sequence has ended, and why
    MSG_CANCEL,     // front to leader
    MSG_LEAVE,      // this node shuts down in good order
    N_MSG
};

struct facts {
    uint32_t contract;    // version of the numeric contract
    uint64_t model;       // fingerprint, 0: has no model
    char model_name[64];  // for sentences
    char name[ID_NAME], version[24], arch[16], board[64];
    uint64_t ram_bytes, budget_bytes, pool_bytes;
    double speed, disk_bps, share;  // bytes/s; share: the user's wish or 0
    uint32_t n_thread;
    uint32_t n_ctx, n_seq;  // that it would plan for if it led; 0: has no model
    uint16_t http_port;
    uint8_t kv, wire;  // how the context and what crosses the wire are rounded: they shape the text
    bool is_guest;     // works with the others only for a while (dair run): never leads
};

/* What a leader has to do, and of late did; of a node that leads nobody all is 0. */
struct work {
    uint16_t running, waiting, slots;        // requests; how many can run at one time
    double tokens_per_s;                     // to a thousandth, as the next
    double compute_ms, disk_ms, network_ms;  // of a token
};

struct beat {
    enum node_state state;
    char name[ID_NAME];  // the sender's: another than its hello said once mDNS has found it taken
    struct node_id leader;  // followed; all zero: none
    uint64_t epoch;         // of the plan it works on, 0: none
    uint64_t seen;          // highest epoch it ever heard of
    uint8_t n_hear;
    struct node_id hear[MEMBER_MAX];  // whose beats reach it
    uint64_t pinned_bytes, streamed_bytes;
    double disk_bps, temperature_c;  // of late; of the machine
    struct work work;
};

struct ask {
    uint64_t ticket;     // the front's number for it
    uint64_t age_ms;     // since the user asked: the oldest go first
    uint32_t n_prompt;   // of n_id
    uint32_t n_id;       // prompt and what was answered so far
    const int32_t *id;   // [n_id], after decoding: in the caller's room
    uint32_t n_predict;  // answer tokens wanted in all
    struct sampler sampler;
    enum grammar_kind grammar;  // that the answer is held to
    const char *grammar_text;   // [n_grammar] bytes, after decoding: in those of the message
    uint32_t n_grammar;         // at most GRAMMAR_TEXT
    uint64_t sequence;          // for the random numbers
};

struct tokens {
    uint64_t ticket;
    uint32_t at;  // place of the first in the answer, from 0
    uint32_t n;
    const int32_t *id;
};

enum refused_reason { REFUSED_LEADER, REFUSED_MODEL, N_REFUSED };

enum done_why {
    DONE_LENGTH,
    DONE_END,
    DONE_REFUSED,     // now: there is too much to do
    DONE_FAILED,      // while it was computed
    DONE_IMPOSSIBLE,  // as it was asked
    DONE_NO_ROOM,     // prompt and answer so far fill the context of this epoch
    N_DONE
};

struct msg {
    enum msg_type type;
    uint64_t epoch, sequence;
    union {
        struct facts facts;  // HELLO
        struct beat beat;    // BEAT
        struct plan plan;    // PLAN
        struct {
            enum refused_reason reason;
            char why[ERR_TEXT];
        } refused;
        struct node_id suspect;  // BROKEN
        struct ask ask;
        struct tokens tokens;
        struct {
            uint64_t ticket;
            enum done_why why;
            char text[ERR_TEXT];  // of all but LENGTH and END
        } done;
        uint64_t ticket;  // CANCEL
    } u;
};

/* Returns the bytes written to out [cap], 0 when it does not fit or could not be decoded again (a
 * count past its limit). Control characters in texts become '?'. */
size_t msg_encode(const struct msg *m, uint8_t *out, size_t cap);
/* ids: room for [n_ids] token ids that ask and tokens then point to; that they are below n_vocab is
 * for the caller to see, as is that the sequence is the channel's next. The encoding of a message is
 * unique: what decodes encodes to the same bytes. Only the fields of its type are written to *m.
 * Fails: ERR_FORMAT, ERR_LIMIT. */
MUST msg_decode(struct msg *m, const uint8_t *in, size_t len, int32_t *ids, size_t n_ids,
                struct err *e);
const char *msg_name(enum msg_type t);

#endif
