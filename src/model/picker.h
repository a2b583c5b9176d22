/* picker.h - choosing the next token of a sequence without having all logits at hand.
 *
 * The logits lie where their rows were computed, perhaps on other machines. A picker says which of them
 * it must see (struct want: the k best, and some by name), is given those, and either has chosen or
 * wants to see more. What it chooses is what the whole vocabulary would have given: whoever brings the
 * candidates need not know of sampling, and sampling not of machines.
 *
 * With a grammar it is the choice from the distribution over the tokens that the grammar allows, the
 * others being absent before any step of the sampler: not "draw, and draw again". It looks at the likeliest
 * tokens first and asks for all allowed ones only when these were too few to be sure.
 *
 * Nothing is kept from one choice to the next but what follows from the tokens so far, so a sequence may
 * be taken back, tried again, or continued elsewhere (grammar_run_sync() follows). No allocation. One
 * thread at a time.
 *
 *     picker_begin(p, ids, n_prompt, n, e);
 *     do { bring candidates for p->want } while (picker_next(p, c, n_c, .., &id, e) && id == PICK_MORE);
 */
#ifndef MODEL_PICKER_H
#define MODEL_PICKER_H

#include "model/grammar.h"
#include "model/sampler.h"

enum {
    WANT_TOP = 1024,  // most that are wanted as the best; else the whole vocabulary is
    WANT_IDS = 4096   // most that are wanted by name
};

struct want {
    uint32_t k;            // so many of the largest logits; 0: none
    uint32_t n_id;         // and those of these tokens; none when k is the whole vocabulary
    int32_t id[WANT_IDS];  // ascending, each once
};

enum { PICK_MORE = -1, PICK_END = -2 };  // instead of a token

struct picker {
    const struct sampler *sampler;  // borrowed; checked
    struct grammar_run *run;        // borrowed; NULL: any text
    uint32_t n_vocab;
    bool is_all;  // what is wanted is all that can be chosen
    struct want want;
    struct adjust adjust;
};

void picker_init(struct picker *p, const struct sampler *s, struct grammar_run *run,
                 uint32_t n_vocab);

/* The token after id [n], the prompt's n_prompt and the answer so far, is to be chosen: fills p->want.
 * Fails: as grammar_run_sync. */
MUST picker_begin(struct picker *p, const int32_t *id, size_t n_prompt, size_t n, struct err *e);

/* c [n]: the p->want.k best in any order, of equal ones those of the lower ids (fewer, when there are no
 * more numbers among the logits), then the p->want.n_id ones in their order. Overwritten. *id: the choice;
 * PICK_MORE: bring what p->want says now; PICK_END: the grammar's text is whole and the vocabulary has no
 * token to say so. sequence, position: of the token, for the random numbers.
 * Fails: ERR_FORMAT when no logit is a number, or no token of the vocabulary goes on with the grammar. */
MUST picker_next(struct picker *p, struct candidate *c, size_t n, uint64_t sequence,
                 uint64_t position, int32_t *id, struct err *e);

#endif
