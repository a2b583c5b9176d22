/* spec.h - guessing ahead: tokens that may come next, so that one step can check several.
 *
 * A guess changes no text: of each checked position the sampler's own draw decides, and what was guessed
 * otherwise is dropped (Leviathan et al. 2023, "Fast inference from transformers via speculative
 * decoding", with the draw fixed by seed and position instead of their correction). Guesses come from
 * the text so far (Saxena 2023, "Prompt lookup decoding": what followed the last time that these tokens
 * stood here) or from a small model.
 *
 * How many are worth checking follows from what was seen of late: the chance that a guess is right, by
 * what it was guessed from, and the seconds that steps of so many tokens took. A guess behind right ones
 * goes by a longer match than the first; and a step longer than any before goes by those. Guesses that are not
 * worth it are still compared with what comes, so that their chance stays known and costs nothing.
 *
 * What was seen may mislead: so there is a credit, in steps of one token. Each step adds a hundredth,
 * a token that a right guess saved adds one, and time beyond a plain step's is taken off; what a check may
 * cost at most must be there. However the text deceives, guessing loses two steps and 1 % of the time,
 * or a little more where the clock deceives too.
 *
 * Keeping a small model costs too: it reads prompts, and where the large one streams, its memory keeps
 * weights from staying. So it has an account, in steps as they were without it: a token that it saved adds
 * one, and what it took and its keep are taken off. Once that is used up it does not pay, whatever may
 * come: three steps are lost, and what the last try cost. Where its keep is half a step that is before
 * the first try.
 *
 * Plain data in memory that the caller gives; nothing allocates. Thread: the engine's.
 */
#ifndef ENGINE_SPEC_H
#define ENGINE_SPEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum spec_kind { SPEC_OFF, SPEC_NGRAM, SPEC_DRAFT, SPEC_AUTO };

enum { SPEC_MOST = 31 };  // guesses in a step

/* What a guess goes by: a match of so many tokens with earlier text, or the small model. */
enum spec_from { FROM_TWO, FROM_THREE, FROM_SOME, FROM_MANY, FROM_DRAFT, N_SPEC_FROM };

struct guesses {
    bool has_ngrams;
    uint32_t most;  // guesses in a step, at most SPEC_MOST

    /* the text, and where its pairs and triples of tokens stood last */
    int32_t *token;           // [cap]
    uint32_t *pair, *triple;  // [mask + 1] place of what followed, 0: none
    uint32_t n, cap, mask;

    /* what was seen of late */
    double right[N_SPEC_FROM];       // chance that a guessed token is right
    double cost[SPEC_MOST + 2];      // [n] seconds of a step of n tokens, 0: not known
    uint32_t seen[SPEC_MOST + 2];    // when that was measured, in steps
    uint32_t belief[SPEC_MOST + 2];  // and for how many it is believed
    uint32_t n_step, n_plain;
    uint32_t trust;  // steps that a plain one's cost is believed for
    double credit;   // plain steps that guessing may lose yet
    double slope;    // what a further token of a step is thought to cost, of a step of one

    /* a guess that was not worth checking, -1: none */
    int32_t unchecked;
    enum spec_from unchecked_from;

    uint32_t rest, rested;  // tokens that the small model is to rest, and has
    double keep;            // what it costs each step to have it, of a plain one
    double account;         // steps without it that it may cost yet
    bool drafts;            // the last guesses are its
};

/* Bytes for texts of up to `cap` tokens, 64-aligned. */
size_t spec_bytes(uint32_t cap);
/* mem [spec_bytes(cap)]; slope: see above, until it has been measured. */
void spec_init(struct guesses *s, void *mem, uint32_t cap, uint32_t most, bool has_ngrams,
               double slope);
/* There is a small model, which costs so much of a plain step while it is kept. */
void spec_hire(struct guesses *s, double keep);
/* Forget the text, keep what was learnt; the small model gets a new chance. */
void spec_clear(struct guesses *s);
/* The text goes on. Past cap tokens it is ignored. */
void spec_push(struct guesses *s, int32_t id);

/* Guess what comes next from the text: up to `most` tokens into out; returns how many, and by what. */
uint32_t spec_look_up(const struct guesses *s, uint32_t most, int32_t *out, enum spec_from *from);
/* Of n guesses, how many are worth checking, when each but the first `ready`, which are there, costs draft_s
 * to make and their step the seconds of so many tokens; 0 when going without is as fast, or the credit does
 * not allow it. *gain (may be NULL): tokens per second compared with going without. */
uint32_t spec_worth(const struct guesses *s, uint32_t n, enum spec_from from, double draft_s,
                    uint32_t ready, double *gain);
/* Lookup and judgement: what to check in the next step. Remembers a guess not worth it. */
uint32_t spec_guess(struct guesses *s, uint32_t most, int32_t *out, enum spec_from *from);
/* How many guesses the small model shall make, which has `ready` ones, needs draft_s for each other and has
 * not read the last `behind` tokens: those that pay; or, well rested, a few to see. */
uint32_t spec_draft(struct guesses *s, uint32_t most, double draft_s, uint32_t ready,
                    uint32_t behind, double *gain);
/* Whether it is worth making one more ahead, behind n that nobody has checked yet: all of those may well be
 * right. */
bool spec_ahead(const struct guesses *s, uint32_t n);

/* Of n_checked guesses the first n_right were right (and the next wrong, if there is one). */
void spec_learn(struct guesses *s, enum spec_from from, uint32_t n_checked, uint32_t n_right);
/* A step of n tokens took so long. */
void spec_took(struct guesses *s, uint32_t n, double seconds);
/* The small model took so long to make guesses; to read a prompt. */
void spec_spent(struct guesses *s, double seconds);
void spec_read(struct guesses *s, double seconds);
/* Whether it is worth its keep yet. */
bool spec_pays(const struct guesses *s);

#endif
