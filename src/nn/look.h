/* look.h - whether guessing the next layer's experts pays, judged by the steps themselves.
 *
 * A guess that is right saves waiting; one that is wrong costs a read, and any costs arithmetic and, where all
 * cores compute, the readers' share of them. Which is more depends on the disk, the cores, the model and the
 * text, so it is tried: for LOOK_TRIAL steps every other pair of steps guesses, and for the LOOK_STAND after
 * them what was better stands. Steps differ by what happens to be missing far more than by guessing; so the
 * steps without are fitted by a line, time over tiles missing, and those with are held against it. After
 * LOOK_CLEAR steps with guesses of which most were wrong there are no more in a trial.
 */
#ifndef NN_LOOK_H
#define NN_LOOK_H

#include <stdbool.h>
#include <stdint.h>

enum { LOOK_TRIAL = 48, LOOK_CLEAR = 8, LOOK_STAND = 480 };

/* What a step took. */
struct look_step {
    double time;             // in any unit
    double missing;          // tiles that were not in memory, or only as they had been guessed
    uint64_t guessed, used;  // tiles read for a guess, and those of them that were wanted
};

struct look_sums {
    double n, m, t, mm, mt;  // steps, missing, time, products
};

/* All zero: at the start of a trial. */
struct look {
    uint32_t step;
    bool pays;  // what the last trial said
    struct look_sums with, without;
    uint64_t guessed, used;
};

/* Whether the step that comes is to guess. */
bool look_guesses(const struct look *a);
/* It is over. */
void look_done(struct look *a, const struct look_step *s);

#endif
