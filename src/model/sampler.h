/* sampler.h - from logits to a token: greedy, temperature, top-k, top-p, min-p.
 *
 * Order: top-k, top-p, min-p, temperature, draw (as llama.cpp's default chain). Random numbers are a
 * counter-based function of (seed, sequence, position), so sampling has no state beyond the tokens: a
 * sequence continued on another node goes on with the same text. No allocation, no libm (own exp in
 * double arithmetic): the same choice on every machine.
 */
#ifndef MODEL_SAMPLER_H
#define MODEL_SAMPLER_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

struct sampler {
    float temp;     // <= 0: greedy
    int32_t top_k;  // <= 0: all
    float top_p;    // >= 1: off
    float min_p;    // <= 0: off
    uint64_t seed;
};

struct candidate {
    int32_t id;
    float logit;
    float p;  // filled by the steps
};

/* A value out of range. Fails: ERR_USAGE naming the option. */
MUST sampler_check(const struct sampler *s, struct err *e);

/* How many of the largest logits the sampler needs to see: 1 for greedy, top_k, or n_vocab. */
size_t sampler_needs(const struct sampler *s, size_t n_vocab);

/* The steps, each on c [n] in place, returning how many remain (at least min_keep >= 1). Except for
 * sample_top_k the candidates must be sorted by descending logit, ties by ascending id; NaN logits
 * count as -infinity. Probabilities are left normalised over what remains. */
size_t sample_top_k(struct candidate *c, size_t n, int32_t k);  // sorts; k <= 0 keeps all, unsorted
void sample_sort(struct candidate *c, size_t n);
void sample_softmax(struct candidate *c, size_t n);
size_t sample_top_p(struct candidate *c, size_t n, float p, size_t min_keep);
size_t sample_min_p(struct candidate *c, size_t n, float p, size_t min_keep);
void sample_temp(struct candidate *c, size_t n, float temp);  // <= 0: all but the first to -inf

/* The whole chain; c [n] sorted as above, is overwritten. */
int32_t sample(const struct sampler *s, struct candidate *c, size_t n, uint64_t sequence,
               uint64_t position);

/* Uniform in [0, 1): counter-based (Philox4x32-10, Salmon et al. 2011), 53 bits. */
double sample_uniform(uint64_t seed, uint64_t sequence, uint64_t position);

#endif
