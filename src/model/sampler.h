/* sampler.h - from logits to a token: bias, penalties, top-n-sigma, top-k, typical, top-p, min-p,
 * temperature, draw.
 *
 * They act in this order (llama.cpp's, whose definitions they follow); a grammar comes before all of
 * them (picker.h). Penalties look at the last tokens of prompt and answer, and random numbers are a
 * counter-based function of (seed, sequence, position), so sampling has no state beyond the tokens: a
 * sequence continued on another node goes on with the same text. No allocation, no libm (own exp and
 * log in double arithmetic): the same choice on every machine.
 *
 * Candidates come in any order, and what is chosen does not depend on it, for sums are of whole numbers.
 * Nothing is sorted: a draw, too, wants only the one token at which the sum of the larger ones' weights
 * passes a value, and a few walks over all candidates find it.
 *
 * In a struct of zeros everything but top_p is off and the choice greedy.
 */
#ifndef MODEL_SAMPLER_H
#define MODEL_SAMPLER_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

enum {
    SAMPLER_BIAS = 128,     // most tokens with a bias of their own
    SAMPLER_WINDOW = 4096,  // most tokens that penalties look back
    SAMPLER_BIAS_VALUE = 1000,
    SAMPLER_LAST_N = 64  // what last_n is where nobody says
};

struct bias {
    int32_t id;
    float value;  // added to the logit; -INFINITY: as if it did not exist
};

struct sampler {
    float temp;     // <= 0: greedy
    int32_t top_k;  // <= 0: all
    float top_p;    // >= 1: off
    float min_p;    // <= 0: off
    uint64_t seed;
    float typical;        // 0 or 1: off
    float repeat;         // 0 or 1: off; logits above 0 are divided by it, others multiplied
    float presence;       // taken off the logit of a token that the window has
    float frequency;      // taken off for each time that it has it
    int32_t last_n;       // the window: so many tokens back; 0: no penalties
    float top_n_sigma;    // 0: off
    float temp_range;     // 0: off; the temperature goes from temp - range to temp + range
    float temp_exponent;  // as the entropy to this power does from 0 to its maximum
    uint32_t n_bias;
    struct bias bias[SAMPLER_BIAS];
};

struct candidate {
    int32_t id;
    float logit;
    float p;  // the steps' own
};

/* A value out of range. Fails: ERR_USAGE naming the option; ERR_LIMIT for too many biases. */
MUST sampler_check(const struct sampler *s, struct err *e);
/* A bias for a token that this vocabulary does not have. Fails: ERR_USAGE. */
MUST sampler_check_ids(const struct sampler *s, uint32_t n_vocab, struct err *e);

/* How many of the largest logits sample() needs to see, after bias and penalties: 1 for greedy, top_k, or
 * n_vocab. */
size_t sampler_needs(const struct sampler *s, size_t n_vocab);

/* The steps, each on c [n] in place, returning how many remain (at least min_keep >= 1), in the order in
 * which they came. By their order is meant: by descending logit, ties by ascending id; ids are 0 or more,
 * each there once. NaN logits count as -infinity. */
size_t sample_top_k(struct candidate *c, size_t n, int32_t k);  // k <= 0 keeps all
size_t sample_top_p(struct candidate *c, size_t n, float p, size_t min_keep);
size_t sample_min_p(struct candidate *c, size_t n, float p, size_t min_keep);
/* Locally typical sampling (Meister et al. 2022): what is nearest to the mean surprise, until its
 * probability is above p; of what is as near, as a float, the lower id first. */
size_t sample_typical(struct candidate *c, size_t n, float p, size_t min_keep);
/* Those more than so many standard deviations of all logits below the largest to -inf. */
void sample_top_n_sigma(struct candidate *c, size_t n, float sigmas);
/* The temperature that their entropy makes of these options; temp where range is 0, or of a single one. */
float sample_temp(struct candidate *c, size_t n, float temp, float range, float exponent);
/* Makes p what the draw weighs them by at a temperature above 0: 1 for the largest logit, which it returns. */
float sample_weigh(struct candidate *c, size_t n, float temp);

/* The tokens whose logits bias and penalties change, for a sequence of n_seen tokens so far. */
struct adjusted {
    int32_t id;
    uint32_t count;  // in the window
    float bias;      // of all of them; -INFINITY: banned
    bool is_raised;  // its logit may become larger
};
struct adjust {
    uint32_t n;
    struct adjusted at[SAMPLER_WINDOW + SAMPLER_BIAS];  // ascending in id, each once
};
void adjust_make(struct adjust *a, const struct sampler *s, const int32_t *seen, size_t n_seen);
const struct adjusted *adjust_find(const struct adjust *a, int32_t id);  // NULL: unchanged
float sample_adjusted(const struct sampler *s, const struct adjusted *a, float logit);
/* Of all c [n]. */
void sample_adjust(const struct sampler *s, const struct adjust *a, struct candidate *c, size_t n);

/* The rest of the chain; c [n] is overwritten. -1: there are none. */
int32_t sample(const struct sampler *s, struct candidate *c, size_t n, uint64_t sequence,
               uint64_t position);

/* Uniform in [0, 1): counter-based (Philox4x32-10, Salmon et al. 2011), 53 bits. */
double sample_uniform(uint64_t seed, uint64_t sequence, uint64_t position);

#endif
