/* seqs.h - the leader's sequences: who is computed next, who waits for a place.
 *
 * A sequence is prompt and answer as token ids. As many as the plan has room for hold a place in the
 * KV cache and take turns, a step each; the others are parked, the oldest first in line, and nothing
 * is ever failed for lack of places. Only as many are begun as would keep their places if a node were
 * lost; the places above that are for those which were begun before the last loss. An answer that outgrows the plan's context is cut there. Plain
 * data: no threads, no clock.
 */
#ifndef ENGINE_SEQS_H
#define ENGINE_SEQS_H

#include "cluster/msg.h"

enum { SEQS_MAX = 1024, SEQ_SLOTS = PLAN_SEQS };

struct seq {
    bool is_used, is_cancelled;
    struct node_id front;
    uint64_t ticket, asked_ns;  // asked_ns: when its user asked, by our clock
    uint64_t bytes;
    int32_t *id;  // [n_prompt + n_predict], owned
    uint32_t n_prompt, n_id, n_fed, n_predict;
    struct sampler sampler;
    uint64_t sequence;
    enum grammar_kind kind;
    char *grammar_text;  // [n_grammar], owned
    uint32_t n_grammar;
    struct grammar *grammar;  // owned; NULL: none, or not yet needed
    struct grammar_run *run;  // the same
    int slot;                 // place in the KV cache, -1: parked
};

struct seqs {
    uint32_t n_slot, n_begin;    // places; none is begun while so many are taken
    uint64_t bytes, most_bytes;  // of what is kept of all requests
    uint32_t end;                // none is used from here on
    struct seq seq[SEQS_MAX];
    int in_slot[SEQ_SLOTS];  // index of the sequence, -1: free
    uint32_t turn;           // slot that was computed last
};

/* n_begin: 1..n_slot. most_bytes: for the ids, grammars and settings of all requests; one is always taken. */
void seqs_open(struct seqs *s, uint32_t n_slot, uint32_t n_begin, uint64_t most_bytes);
void seqs_close(struct seqs *s);  // drops all

/* Where it stands in its grammar is found again from its tokens when that is next needed. */
void seqs_forget(struct seq *q);

/* A copy of what was asked; one with the same front and ticket is replaced. n_ctx: positions that a
 * sequence can have; the answer is cut to them. Fails: ERR_LIMIT (too many now), ERR_USAGE (prompt and answer
 * so far leave no room in the context), ERR_FORMAT (ids that the vocabulary does not have, a sampler that
 * cannot be), ERR_MEMORY. */
MUST seqs_add(struct seqs *s, const struct node_id *front, const struct ask *a, uint32_t n_ctx,
              uint32_t n_vocab, uint64_t now_ns, struct err *e);
void seqs_cancel(struct seqs *s, const struct node_id *front, uint64_t ticket);
void seqs_drop(struct seqs *s, struct seq *q);

/* The next one to compute: cancelled ones are dropped, free places given to the oldest parked, then
 * the slots in turn. An answer under way that was handed in late takes the place of the newest, if that was
 * asked later. NULL: nothing to do. */
struct seq *seqs_next(struct seqs *s);
/* Whether another than q comes to its next token with its next step. */
bool seqs_decodes(const struct seqs *s, const struct seq *q);
void seqs_count(const struct seqs *s, uint32_t *running, uint32_t *waiting);

#endif
