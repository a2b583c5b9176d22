/* picker.h - choosing the next token of a sequence without having all logits at hand.
 *
 * The logits lie where their rows were computed, perhaps on other machines. A picker says which of them
 * it must see (struct want: the k best, and some by name), is given those, and either has chosen or
 * wants to see more. What it chooses is what the whole vocabulary would have given: whoever brings the
 * candidates need not know of sampling, and sampling not of machines.
 *
 * Nothing is kept from one choice to the next but what follows from the tokens so far, so a sequence may
 * be taken back, tried again, or continued elsewhere. No allocation. One thread at a time.
 *
 *     picker_begin(p, ids, n);
 *     do { bring candidates for p->want } while (picker_next(p, c, n_c, .., &id, e) && id < 0);
 */
#ifndef MODEL_PICKER_H
#define MODEL_PICKER_H

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

struct picker {
    const struct sampler *sampler;  // borrowed; checked
    uint32_t n_vocab;
    struct want want;
    struct adjust adjust;
};

void picker_init(struct picker *p, const struct sampler *s, uint32_t n_vocab);

/* The token after id [n], prompt and answer so far, is to be chosen: fills p->want. */
void picker_begin(struct picker *p, const int32_t *id, size_t n);

/* c [n]: the p->want.k best in descending order, ties to the lower id (fewer, when there are no more
 * numbers among the logits), then the p->want.n_id ones in their order. Overwritten. *id: the choice, or
 * -1: bring what p->want says now. sequence, position: of the token, for the random numbers.
 * Fails: ERR_FORMAT when no logit is a number. */
MUST picker_next(struct picker *p, struct candidate *c, size_t n, uint64_t sequence,
                 uint64_t position, int32_t *id, struct err *e);

#endif
