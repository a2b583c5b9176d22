#include "nn/look.h"

static const double LEAST_GAIN = 0.02;  // below, a gain is taken for noise

/* Most of what was read is of no use, or nothing had to be. The cache suffers from it, which the times of both
 * share. */
static bool is_useless(const struct look *a) {
    return !a->used || a->used < a->guessed / 2;
}

bool look_guesses(const struct look *a) {
    if (a->step >= LOOK_TRIAL) return a->pays;
    return (a->step + 1) / 2 % 2 && (a->with.n < LOOK_CLEAR || !is_useless(a));
}

static void add(struct look_sums *s, const struct look_step *step) {
    s->n++;
    s->m += step->missing;
    s->t += step->time;
    s->mm += step->missing * step->missing;
    s->mt += step->missing * step->time;
}

/* What a step with as many tiles missing as those that guessed had would have taken without, by the line of
 * least squares. */
static double expected(const struct look *a) {
    const struct look_sums *s = &a->without;
    double spread = s->n * s->mm - s->m * s->m, slope = 0;
    if (spread > 1e-9 * s->n * s->mm) slope = (s->n * s->mt - s->m * s->t) / spread;
    if (slope < 0) slope = 0;
    return s->t / s->n + slope * (a->with.m / a->with.n - s->m / s->n);
}

static bool did_pay(const struct look *a) {
    return !is_useless(a) && a->with.t / a->with.n < (1 - LEAST_GAIN) * expected(a);
}

void look_done(struct look *a, const struct look_step *s) {
    if (a->step < LOOK_TRIAL) {
        add(look_guesses(a) ? &a->with : &a->without, s);
        a->guessed += s->guessed;
        a->used += s->used;
    }
    a->step++;
    if (a->step == LOOK_TRIAL) a->pays = did_pay(a);
    if (a->step == LOOK_TRIAL + LOOK_STAND) *a = (struct look){.pays = a->pays};
}
