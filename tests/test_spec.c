/* Guesses from the text, and when they are worth checking. */
#include "engine/spec.h"
#include "tap.h"

#include <stdlib.h>

enum { CAP = 512 };

static struct guesses s;
static void *mem;

static void start(double slope) {
    spec_init(&s, mem, CAP, SPEC_MOST, true, slope);
}

static void push_run(int32_t from, unsigned n) {
    for (unsigned i = 0; i < n; i++) spec_push(&s, from + (int32_t)i);
}

static void check_lookup(void) {
    int32_t out[SPEC_MOST];
    enum spec_from from = FROM_DRAFT;
    start(0.3);
    push_run(100, 20);
    tap_ok(!spec_look_up(&s, 4, out, &from), "a text without repetition gives no guess");
    push_run(105, 2);
    uint32_t n = spec_look_up(&s, 4, out, &from);
    tap_ok(n == 4 && from == FROM_TWO && out[0] == 107 && out[3] == 110,
           "two tokens seen before: what followed them");
    spec_push(&s, 107);
    n = spec_look_up(&s, 4, out, &from);
    tap_ok(n == 4 && from == FROM_THREE && out[0] == 108, "three tokens");
    push_run(108, 6);
    n = spec_look_up(&s, 4, out, &from);
    tap_ok(n == 4 && from == FROM_MANY && out[0] == 114, "many tokens");
    start(0.3);
    for (int i = 0; i < 9; i++) spec_push(&s, i % 3);
    n = spec_look_up(&s, 10, out, &from);
    bool ok = n == 10;
    for (int i = 0; ok && i < 10; i++) ok = out[i] == i % 3;
    tap_ok(ok, "a repetition goes on beyond the end of the text");
    start(0.3);
    for (int i = 0; i < 4 * CAP; i++) spec_push(&s, i % 50);
    tap_ok(!spec_look_up(&s, 4, out, &from), "past its room it is silent");
    spec_clear(&s);
    push_run(0, 3);
    tap_ok(!spec_look_up(&s, 4, out, &from), "a cleared one has forgotten");
}

/* A newer occurrence hides an older one. */
static void check_latest(void) {
    int32_t out[1];
    enum spec_from from;
    start(0.3);
    static const int32_t text[] = {7, 8, 9, 1, 7, 8, 9, 2, 7, 8, 9};
    for (size_t i = 0; i < sizeof text / sizeof *text; i++) spec_push(&s, text[i]);
    tap_ok(spec_look_up(&s, 1, out, &from) == 1 && out[0] == 2, "the last occurrence counts");
}

static void check_worth(void) {
    double gain;
    start(0.3);
    tap_ok(!spec_worth(&s, 8, FROM_MANY, 0, &gain), "nothing before a plain step was measured");
    spec_took(&s, 1, 0.1);
    for (int i = 0; i < 50; i++) spec_learn(&s, FROM_MANY, 4, 4);
    uint32_t sure = spec_worth(&s, 8, FROM_MANY, 0, &gain);
    tap_ok(sure == 8 && gain > 2, "sure guesses: all, gain %.1f", gain);
    for (int i = 0; i < 50; i++) spec_learn(&s, FROM_TWO, 4, 0);
    tap_ok(!spec_worth(&s, 8, FROM_TWO, 0, &gain), "wrong guesses: none");
    for (int i = 0; i < 9; i++) spec_took(&s, 5, 0.9);
    tap_ok(spec_worth(&s, 4, FROM_MANY, 0, NULL) < 4, "a step of five that takes nine: shorter");
    tap_ok(!spec_worth(&s, 8, FROM_MANY, 0.1, NULL), "guesses as dear as tokens: none");
    start(0.01);
    spec_took(&s, 1, 1);
    uint32_t dear = spec_worth(&s, 31, FROM_TWO, 0, NULL);
    tap_ok(dear >= 4, "where a step costs the same whatever its length, even doubtful ones: %u",
           dear);
}

/* What is not checked is compared with what comes, and so comes back when the text repeats. */
static void check_return(void) {
    int32_t out[SPEC_MOST];
    enum spec_from from = FROM_TWO;
    start(0.4);
    spec_took(&s, 1, 0.1);
    for (int i = 0; i < N_SPEC_FROM; i++) s.right[i] = 0;
    push_run(0, 40);
    unsigned waited = 0;
    for (int32_t i = 0; i < 40 && !spec_guess(&s, 8, out, &from); i++, waited++) spec_push(&s, i);
    tap_ok(waited > 4 && waited < 40, "a repetition is noticed after %u tokens", waited);
    unsigned checked = 0;
    start(0.4);
    spec_took(&s, 1, 0.1);
    uint32_t r = 1;
    for (int i = 0; i < CAP; i++) {
        r = r * 1664525 + 1013904223;
        uint32_t n = spec_guess(&s, 8, out, &from);
        int32_t id = (int32_t)(r >> 29);  // of eight tokens: pairs repeat all the time
        if (n) spec_learn(&s, from, n, out[0] == id);
        checked += n;
        spec_push(&s, id);
    }
    tap_ok(checked <= CAP / 50, "%d random tokens: %u guesses were checked", CAP, checked);
}

int main(void) {
    mem = aligned_alloc(64, spec_bytes(CAP));
    check_lookup();
    check_latest();
    check_worth();
    check_return();
    free(mem);
    return tap_done();
}
