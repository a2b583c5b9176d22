/* Whether guessing experts pays is judged by steps that differ by other things far more. */
#include "nn/look.h"

#include "tap.h"

static uint64_t state = 88172645463325252U;

static double draw(void) {  // in [0, 1)
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (double)(state >> 11) / 9007199254740992.0;
}

/* What a model and its machine are like. */
struct world {
    double gain;          // part of the time that a guess saves
    double noise;         // of a step's time
    double more_missing;  // of steps that guess, by chance
    double right;         // of what is read for a guess
};

/* A whole trial; what comes of it. */
static bool judged(struct look *l, const struct world *w) {
    for (int i = 0; i < LOOK_TRIAL; i++) {
        bool guesses = look_guesses(l);
        struct look_step s = {.missing = 20 + 80 * draw()};
        if (guesses) s.missing *= 1 + w->more_missing;
        s.time = 16e6 + 1e6 * s.missing;
        if (guesses) s.time *= 1 - w->gain;
        s.time *= 1 + w->noise * (draw() - 0.5);
        if (guesses) s.guessed = 30, s.used = (uint64_t)(30 * w->right);
        look_done(l, &s);
    }
    return look_guesses(l);
}

static int count(const struct world *w) {
    int n = 0;
    for (int i = 0; i < 100; i++) {
        struct look l = {0};
        n += judged(&l, w);
    }
    return n;
}

static void check_verdict(void) {
    int n = count(&(struct world){.gain = 0.1, .noise = 0.1, .right = 0.8});
    tap_ok(n >= 98, "a gain of 10 %% is seen in %d trials of 100", n);
    n = count(&(struct world){.gain = -0.05, .noise = 0.1, .right = 0.8});
    tap_ok(n <= 2, "a loss of 5 %% is taken for a gain in %d", n);
    n = count(&(struct world){.gain = 0, .noise = 0.1, .right = 0.8});
    tap_ok(n <= 10, "and nothing at all in %d", n);
    n = count(&(struct world){.gain = 0.1, .noise = 0.1, .more_missing = 0.3, .right = 0.8});
    tap_ok(n >= 98, "a gain while more is missing by chance: seen in %d", n);
    n = count(&(struct world){.gain = -0.05, .noise = 0.1, .more_missing = -0.3, .right = 0.8});
    tap_ok(n <= 2, "a loss while less is missing: taken for a gain in %d", n);
    n = count(&(struct world){.gain = 0.1, .noise = 0.1, .right = 0.3});
    tap_ok(n == 0, "reads of which most are of no use: given up whatever the time");
    n = count(&(struct world){.gain = 0.1, .noise = 0.1, .right = 0});
    tap_ok(n == 0, "of which none is");
}

/* Nothing is missing, or always as much, or no time passes. */
static void check_corners(void) {
    for (int i = 0; i < 4; i++) {
        struct look l = {0};
        for (int k = 0; k < 3 * (LOOK_TRIAL + LOOK_STAND); k++) {
            look_done(&l, &(struct look_step){.time = i & 1 ? 1e6 : 0, .missing = i & 2 ? 7 : 0});
        }
        tap_ok(!l.pays, "%s time, %s missing: no gain", i & 1 ? "equal" : "no",
               i & 2 ? "as much" : "nothing");
    }
}

/* Every trial has as many steps with as without, and there is another after those for which it stands. */
static void check_again(void) {
    const struct world good = {.gain = 0.2, .right = 1}, bad = {.gain = -0.2, .right = 1};
    struct look l = {0};
    int n_bad = 0, n_with = 0;
    for (int i = 0; i < 6; i++) {
        bool pays = judged(&l, i % 2 ? &good : &bad);
        n_bad += pays != (i % 2 == 1);
        for (int k = 0; k < LOOK_STAND; k++) {
            n_bad += look_guesses(&l) != pays;
            look_done(&l, &(struct look_step){.time = 1});
        }
    }
    tap_ok(!n_bad, "what a trial says stands until the next one, which may say otherwise");
    for (int i = 0; i < LOOK_TRIAL; i++) {
        n_with += look_guesses(&l);
        look_done(&l, &(struct look_step){.time = 1, .guessed = 2, .used = 1});
    }
    tap_ok(n_with == LOOK_TRIAL / 2, "half of a trial's steps guess");
}

/* Where guesses are wrong, or there is nothing to read for them, few are made. */
static void check_few(void) {
    for (uint64_t guessed = 0; guessed <= 30; guessed += 30) {
        struct look l = {0};
        int n_with = 0;
        for (int i = 0; i < LOOK_TRIAL + LOOK_STAND; i++) {
            bool guesses = look_guesses(&l);
            n_with += guesses;
            struct look_step s = {.time = guesses ? 1 : 2, .missing = 50};
            if (guesses) s.guessed = guessed, s.used = guessed / 3;
            look_done(&l, &s);
        }
        tap_ok(n_with == LOOK_CLEAR, "%llu reads for guesses, a third of use: %d steps guess",
               (unsigned long long)guessed, n_with);
    }
}

int main(void) {
    check_verdict();
    check_corners();
    check_again();
    check_few();
    return tap_done();
}
