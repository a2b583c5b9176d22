/* asks.h - a front's requests: prompt and answer as ids, and who wants to hear of it.
 *
 * What a node keeps so that an answer survives the loss of any other: with these ids any epoch can go
 * on. Plain data, kept under the node's lock.
 */
#ifndef ENGINE_ASKS_H
#define ENGINE_ASKS_H

#include "cluster/msg.h"
#include "engine/node.h"

struct front_ask {
    bool is_used, is_cancelled;
    uint64_t ticket, asked_ns;
    uint64_t epoch;  // it was handed to, 0: to none yet
    unsigned n_handed;
    int32_t *id;  // [n_prompt + n_predict], owned
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

#endif
