/* guesser.h - what may follow an answer under way: from its own text (spec.h), or from a small model.
 *
 * The small model is resident and follows the text in a cache of its own; its guesses are the tokens that
 * it would draw with the same random numbers. It makes them between steps; and in a step, where the team
 * would wait for the disk, those of the next one, as if all that are being checked were right and the token
 * behind them its own next guess. Where that comes true the next step has them for nothing.
 *
 * It reads the prompt when the large model has, rests while its guesses do not pay, and is given up when it
 * is not worth its keep: its memory is then free, and it does not come back, as whoever guesses ahead must
 * never lose much. Thread: the engine's first slice.
 */
#ifndef ENGINE_GUESSER_H
#define ENGINE_GUESSER_H

#include "engine/engine.h"

struct guesser;

/* Bytes of the engine's budget that guessing takes, 0 without. Fails: as nn_measure. */
MUST guesser_measure(const struct engine_conf *c, uint64_t *bytes, struct err *e);

/* c is borrowed. streams: the large model is read from the disk in each step. */
MUST guesser_open(struct guesser **out, const struct engine_conf *c, bool streams, struct err *e);
MUST guesser_load(struct guesser *g, struct err *e);  // fails as nn_load
void guesser_close(struct guesser *g);                // NULL is fine

/* A new answer to this request, borrowed until the next. */
void guesser_start(struct guesser *g, const struct gen_request *r);
/* The small model reads the prompt. Before the first token of the answer. Fails: as nn_step. */
MUST guesser_read(struct guesser *g, struct par *team, struct err *e);
/* If the small model does not pay, it is closed for good: returns the bytes of the engine's budget that
 * are free now, once; else 0. Between steps. */
uint64_t guesser_drop(struct guesser *g);
/* A token of the answer. */
void guesser_push(struct guesser *g, int32_t id);
/* Up to `most` guesses that are worth checking into out. Fails: as nn_step. */
MUST guesser_guess(struct guesser *g, struct par *team, uint32_t most, int32_t *out, uint32_t *n,
                   struct err *e);
/* Whether there may be guesses to make where the step that comes waits for the disk; and a nn_work, of a
 * struct guesser, that makes a piece of one for the step after it. */
bool guesser_goes_ahead(const struct guesser *g);
MUST guesser_go_ahead(void *ctx, struct par *team, bool *did, struct err *e);
/* What the small model did in this answer so far. */
void guesser_tell(const struct guesser *g, struct gen_result *out);
/* The step of n tokens took so long. */
void guesser_took(struct guesser *g, uint32_t n, double seconds);

#endif
