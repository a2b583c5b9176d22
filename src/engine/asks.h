/* asks.h - a front's requests: prompt and answer as ids, and who wants to hear of it.
 *
 * What a node keeps so that an answer survives the loss of any other: with these ids any epoch can go
 * on. Plain data, kept under the node's lock.
 */
#ifndef ENGINE_ASKS_H
#define ENGINE_ASKS_H

#include "cluster/msg.h"
#include "engine/node.h"

/* So long an answer without room waits for a node that was lost: time to start it again, or another in its
 * place, and less than the ten minutes after which clients commonly give up. */
enum { ASK_PARKED_S = 300 };

struct front_ask {
    bool is_used, is_cancelled;
    uint64_t ticket, asked_ns;
    /* It was handed to, epoch 0: to none yet. Two leaders that were cut off from each other may count one
     * epoch each by the same number. */
    struct node_id leader;
    uint64_t epoch;
    unsigned n_handed;
    bool is_parked;      // `epoch` has no room for it: it waits for another
    uint64_t parked_ns;  // since when
    uint64_t waited_ns;  // in that way before, since its last token
    uint64_t again_ns;   // not handed on before
    struct err why;      // to be said should it wait in vain
    int32_t *id;         // [n_prompt + n_predict], owned
    uint32_t n_id;
    char *grammar;               // [request.n_grammar], owned
    struct ask_request request;  // its pointers to others' memory are not used after asks_add
};

struct asks {
    uint64_t last_ticket;  // begins anywhere: what was asked before a restart is not ours
    struct front_ask ask[NODE_ASKS];
};

MUST asks_add(struct asks *s, const struct ask_request *r, uint64_t now_ns, uint64_t *ticket,
              struct err *e);
struct front_ask *asks_find(struct asks *s, uint64_t ticket);
void asks_drop(struct front_ask *a);
unsigned asks_count(const struct asks *s);
unsigned asks_handed(const struct asks *s);  // of these: a leader has them

/* The message that hands it to a leader. */
void asks_message(const struct front_ask *a, uint64_t epoch, uint64_t now_ns, struct msg *m);
/* Tokens [at, at + n) of the answer: what is known already is passed over. Returns how many are new and
 * where they begin in id; -1 when there is a gap or more than were asked for. */
int asks_take(struct front_ask *a, uint32_t at, const int32_t *id, uint32_t n, const int32_t **new);
/* How it ended for who asked; why: of ASK_FAILED. An answer that had to go on with less memory, and was
 * cut for it, has failed (ERR_MEMORY), and so has one that cannot go on; a prompt that cannot be begun was
 * asked wrongly (ERR_USAGE). text: the leader's sentence. */
enum ask_end asks_end(const struct front_ask *a, enum done_why done, const char *text,
                      struct err *why);
/* Whether it ended so only because its nodes have become fewer: with more of them it could go on. */
bool asks_is_cut(const struct front_ask *a, enum done_why done);
/* It goes to the leader of this epoch. */
void asks_hand(struct front_ask *a, const struct node_id *leader, uint64_t epoch, uint64_t now_ns);
/* Whether it is with that leader, in that epoch. */
bool asks_is_with(const struct front_ask *a, const struct node_id *leader, uint64_t epoch);
/* It waits for another epoch; why: what asks_end() says. */
void asks_park(struct front_ask *a, uint64_t now_ns, const struct err *why);
/* It was handed on before, and this leader has no place for it now: it asks again a little later. False: it
 * is new, and refused. */
bool asks_retry(struct front_ask *a, enum done_why done, uint64_t now_ns, const struct err *why);
/* It is parked, and was for so long, all told, that nobody waits any more. */
bool asks_is_over(const struct front_ask *a, uint64_t now_ns);

#endif
