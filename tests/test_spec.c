/* Guesses from the text, and when they are worth checking. */
#include "engine/spec.h"
#include "tap.h"

#include <stdlib.h>

enum { CAP = 4096 };

static struct guesses s;
static void *mem;

static void start(double slope) {
    spec_init(&s, mem, CAP, SPEC_MOST, true, slope);
}

/* What a plain step takes is believed after a few. */
static void plain(double seconds) {
    for (int i = 0; i < 3; i++) spec_took(&s, 1, seconds);
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
    tap_ok(!spec_worth(&s, 8, FROM_MANY, 0, 0, &gain), "nothing before a plain step was measured");
    plain(0.1);
    for (int i = 0; i < 50; i++) spec_learn(&s, FROM_MANY, 4, 4);
    uint32_t sure = spec_worth(&s, 8, FROM_MANY, 0, 0, &gain);
    tap_ok(sure == 8 && gain > 2, "sure guesses: all, gain %.1f", gain);
    for (int i = 0; i < 50; i++) spec_learn(&s, FROM_TWO, 4, 0);
    tap_ok(!spec_worth(&s, 8, FROM_TWO, 0, 0, &gain), "wrong guesses: none");
    for (int i = 0; i < 9; i++) spec_took(&s, 5, 0.9);
    tap_ok(spec_worth(&s, 4, FROM_MANY, 0, 0, NULL) < 4, "a step of five that takes nine: shorter");
    tap_ok(!spec_worth(&s, 8, FROM_MANY, 0.1, 0, NULL), "guesses as dear as tokens: none");
    start(0.3);
    plain(0.1);
    for (int i = 0; i < 50; i++) spec_learn(&s, FROM_DRAFT, 4, 4);
    tap_ok(!spec_draft(&s, 8, 0.1, 0, 0, NULL), "none of a draft either");
    tap_ok(spec_draft(&s, 8, 0.1, 3, 0, NULL) == 3, "but those that are there cost nothing");
    tap_ok(spec_ahead(&s, 8), "what is always right is worth going on behind");
    for (int i = 0; i < 6; i++) spec_learn(&s, FROM_DRAFT, 1, 0);
    tap_ok(spec_ahead(&s, 2) && !spec_ahead(&s, 8), "half right, only behind a few");
    start(0.01);
    plain(1);
    spec_took(&s, 32, 1.1);
    uint32_t dear = spec_worth(&s, 31, FROM_TWO, 0, 0, NULL);
    tap_ok(dear >= 4, "where a step costs the same whatever its length, even doubtful ones: %u",
           dear);
}

/* Costs of steps as long as none was yet. */
static void check_costs(void) {
    start(0.4);
    plain(1);
    for (int i = 0; i < 50; i++) spec_learn(&s, FROM_MANY, 4, 4);
    tap_ok(spec_worth(&s, 15, FROM_MANY, 0, 0, NULL) == 8, "none is known: what the credit allows");
    spec_took(&s, 3, 1.1);
    uint32_t n = spec_worth(&s, 15, FROM_MANY, 0, 0, NULL);
    tap_ok(n == 9, "two tokens more cost a tenth of a step, so others do not cost 0.4 each: %u", n);
    start(0.05);
    plain(1);
    for (int i = 0; i < 50; i++) spec_learn(&s, FROM_MANY, 4, 4);
    spec_took(&s, 11, 1.1);
    spec_took(&s, 13, 1.6);
    tap_ok(spec_worth(&s, 12, FROM_MANY, 0, 0, NULL) == 10,
           "the longest step was slow: shorter ones");
    for (int i = 0; i < 10; i++) spec_took(&s, 11, 1.1), spec_took(&s, 1, 1);
    tap_ok(spec_worth(&s, 12, FROM_MANY, 0, 0, NULL) == 12, "but not for good because of one time");
}

/* The more guesses were right, the longer is the match that the next one goes by. */
static void check_growth(void) {
    start(0.05);
    plain(1);
    spec_took(&s, 32, 2);
    for (int i = 0; i < 50; i++) spec_learn(&s, FROM_SOME, 8, 8);
    tap_ok(s.right[FROM_SOME] > 0.99 && s.right[FROM_MANY] > 0.99, "right ones make a match many");
    uint32_t n = spec_worth(&s, 31, FROM_TWO, 0, 0, NULL);
    tap_ok(n == 31, "two tokens seen before are doubtful, but if right all is: %u", n);
    for (int i = 0; i < 50; i++) spec_learn(&s, FROM_TWO, 1, 0);
    tap_ok(!spec_worth(&s, 31, FROM_TWO, 0, 0, NULL), "hardly ever right, the first ends it");
}

/* What is not checked is compared with what comes, and so comes back when the text repeats. */
static void check_return(void) {
    int32_t out[SPEC_MOST];
    enum spec_from from = FROM_TWO;
    start(0.4);
    plain(0.1);
    for (int i = 0; i < N_SPEC_FROM; i++) s.right[i] = 0;
    push_run(0, 40);
    unsigned waited = 0;
    for (int32_t i = 0; i < 40 && !spec_guess(&s, 8, out, &from); i++, waited++) spec_push(&s, i);
    tap_ok(waited > 4 && waited < 40, "a repetition is noticed after %u tokens", waited);
    unsigned checked = 0;
    start(0.4);
    plain(0.1);
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

/* --- what deceives: whole answers with made-up costs --- */

enum { LONG = 3000, MOST = 15, START_UP = 3 };

static uint32_t lot;
static uint32_t draw(uint32_t below) {
    lot = lot * 1664525 + 1013904223;
    return (uint32_t)((uint64_t)lot * below >> 32);
}

/* What comes at place `at` of a text, whose next `n` tokens are guessed. */
typedef int32_t next_fn(uint32_t at, const int32_t *guess, uint32_t n, uint32_t i);

static int32_t new_words(uint32_t at, const int32_t *guess, uint32_t n, uint32_t i) {
    (void)guess, (void)n, (void)i;
    return (int32_t)at + 1000;
}
static int32_t of_eight(uint32_t at, const int32_t *guess, uint32_t n, uint32_t i) {
    (void)at, (void)guess, (void)n, (void)i;
    return (int32_t)draw(8);
}
static int32_t of_sixty(uint32_t at, const int32_t *guess, uint32_t n, uint32_t i) {
    (void)at, (void)guess, (void)n, (void)i;
    return (int32_t)draw(60);
}
static int32_t a_loop(uint32_t at, const int32_t *guess, uint32_t n, uint32_t i) {
    (void)guess, (void)n, (void)i;
    return (int32_t)(at % 24);
}
static int32_t stops(uint32_t at, const int32_t *guess, uint32_t n, uint32_t i) {
    return at < LONG / 3 ? a_loop(at, guess, n, i) : of_eight(at, guess, n, i);
}
static int32_t by_turns(uint32_t at, const int32_t *guess, uint32_t n, uint32_t i) {
    return at / 40 % 2 ? of_eight(at, guess, n, i) : a_loop(at, guess, n, i);
}
static int32_t nine_and_out(uint32_t at, const int32_t *guess, uint32_t n, uint32_t i) {
    (void)guess, (void)n, (void)i;
    return at % 10 == 9 ? (int32_t)at + 1000 : (int32_t)(at % 10);
}
/* Not what is guessed, and yet not new. */
static int32_t liar(uint32_t at, const int32_t *guess, uint32_t n, uint32_t i) {
    (void)at;
    int32_t id = (int32_t)draw(3);
    return i < n && guess[i] == id ? (id + 1) % 3 : id;
}
/* Gives in to short guesses until long ones are dared. */
static int32_t trap(uint32_t at, const int32_t *guess, uint32_t n, uint32_t i) {
    return n && n < 4 && i < n ? guess[i] : liar(at, guess, n, i);
}

struct deceit {
    double slope, thought;  // what a further token costs, and is thought to at first
    double draft_s;         // 0: no small model
    uint32_t right_pct;     // of its guesses
    double keep;            // of a plain step, what it takes to have it
    uint32_t ahead;         // guesses that it makes in a step, for when all before were right
    enum { QUIET, BAD_START, NOISY } clock;
};

/* A step that would take so long, when the answer is `at` seconds old. */
static double took(const struct deceit *d, double at, double seconds) {
    return d->clock == BAD_START && at < 15 ? 3 * seconds : seconds;
}

/* The same by the clock, which every so often tells what something else took. */
static double told(const struct deceit *d, double seconds) {
    if (d->clock != NOISY) return seconds;
    return seconds * (draw(100) ? 0.9 + draw(200) / 1e3 : 5);
}

/* A plain step has a second. The most that the answer is late at any place, beyond 3 % of what it takes
 * without guesses; *gain: how much faster the whole is. */
static double late(const struct deceit *d, next_fn *next, double *gain) {
    double on = 0, off = 0, worst = 0;
    uint32_t n_read = 0, ready = 0;
    lot = 1;
    spec_init(&s, mem, CAP, MOST, true, d->thought);
    spec_hire(&s, d->keep);
    push_run(0, 2);
    for (uint32_t at = 0; at < LONG;) {
        int32_t guess[SPEC_MOST], text[SPEC_MOST + 1];
        bool is_right[SPEC_MOST];
        enum spec_from from = FROM_DRAFT;
        bool has_draft = d->draft_s > 0 && spec_pays(&s);
        uint32_t n = has_draft        ? spec_draft(&s, MOST, d->draft_s, ready, at - n_read, NULL)
                     : d->draft_s > 0 ? 0
                                      : spec_guess(&s, MOST, guess, &from);
        if (has_draft && n) {
            for (uint32_t i = 0; i < n; i++) is_right[i] = draw(100) < d->right_pct;
            double t = d->draft_s * ((n > ready ? n - ready : 0) + (at - n_read) / 3.0);
            spec_spent(&s, t);
            on += t;
            n_read = at;
        }
        uint32_t right = 0, came = 0;
        do {
            text[came] = next(at + came, guess, d->draft_s > 0 ? 0 : n, came);
            if (d->draft_s > 0 ? came == n || !is_right[came]
                               : came == n || guess[came] != text[came]) {
                came++;
                break;
            }
            right = ++came;
        } while (true);
        double t = took(d, on, 1 + d->slope * n - (has_draft ? 0 : d->keep));
        spec_took(&s, n + 1, told(d, t));
        on += t;
        for (uint32_t i = 0; i < came; i++) spec_push(&s, text[i]);
        if (n) spec_learn(&s, from, right < n ? right + 1 : n, right);
        bool hits = has_draft && n && right == n && draw(100) < d->right_pct;
        for (ready = 0; hits && ready < d->ahead && spec_ahead(&s, n + 1 + ready);) ready++;
        if (ready) n_read = at + came;
        at += came;
        while (came--) off += took(d, off, 1 - d->keep);
        if (on - 1.03 * off > worst) worst = on - 1.03 * off;
    }
    *gain = off / on;
    return worst;
}

static const struct {
    const char *name;
    next_fn *next;
} story[] = {
    {"new words", new_words},
    {"one of eight", of_eight},
    {"one of sixty", of_sixty},
    {"a loop", a_loop},
    {"a loop that ends", stops},
    {"loop and noise by turns", by_turns},
    {"nine tokens and another", nine_and_out},
    {"never what is guessed", liar},
    {"a trap", trap},
};

struct sum {
    double worst, least, most;
};

/* All costs and clocks. While steps take three times as long, so does what may be lost; and a third more
 * until it is noticed that they do no longer. */
static void try_all(struct sum *sum, struct deceit d, next_fn *next) {
    static const double slope[] = {0.01, 0.1, 0.4, 1}, thought[] = {0.05, 0.4};
    for (int run = 0; run < 4 * 2 * 3; run++) {
        double gain;
        d.slope = slope[run % 4];
        d.thought = thought[run / 4 % 2];
        d.clock = run / 8;
        double l = late(&d, next, &gain);
        if (d.clock == BAD_START) l /= 4;
        if (l > sum->worst) sum->worst = l;
        if (gain < sum->least) sum->least = gain;
        if (gain > sum->most) sum->most = gain;
    }
}

static void judge_by(const struct sum *sum, double most, const char *what) {
    tap_ok(sum->worst <= most, "%s: at worst %.2f steps late, %.3f to %.2f x as fast", what,
           sum->worst, sum->least, sum->most);
}

static void judge(const struct sum *sum, const char *what) {
    judge_by(sum, START_UP, what);
}

/* A small model whose memory makes each step longer: until it is known to be of no use that costs three
 * steps and its last try, and one that is of use stays. Steps are here as long as with it. */
static void check_keep(void) {
    static const double keep[] = {0.1, 0.33, 0.43, 0.6};
    for (uint32_t i = 0; i < 4; i++) {
        for (uint32_t pct = 0; pct <= 100; pct += 25) {
            struct sum sum = {.least = 1e9};
            char what[80];
            struct deceit d = {.draft_s = 0.05, .right_pct = pct, .keep = keep[i]};
            snprintf(what, sizeof what, "of 100 right %u, its keep %.2f of a step", pct, d.keep);
            try_all(&sum, d, new_words);
            judge_by(&sum, START_UP + 1, what);
        }
        double gain;
        struct deceit d = {.slope = 0.01, .thought = 0.05, .draft_s = 0.05, .keep = keep[i]};
        d.right_pct = 90;
        (void)late(&d, new_words, &gain);
        if (d.keep < 0.5) {
            tap_ok(gain > 1.5 && spec_pays(&s), "right 90, its keep %.2f: it stays, %.2f x as fast",
                   d.keep, gain);
        } else {
            tap_ok(!spec_pays(&s), "a keep of %.2f is too dear for a try", d.keep);
        }
        d.right_pct = 0;
        (void)late(&d, new_words, &gain);
        tap_ok(!spec_pays(&s), "never right, its keep %.2f: it goes", d.keep);
    }
}

/* Whatever the text, the cost of a step and the clock, guessing costs a few steps at most. */
static void check_loss(void) {
    for (size_t i = 0; i < sizeof story / sizeof *story; i++) {
        struct sum sum = {.least = 1e9};
        try_all(&sum, (struct deceit){0}, story[i].next);
        judge(&sum, story[i].name);
    }
    for (uint32_t pct = 0; pct <= 90; pct += 15) {
        struct sum sum = {.least = 1e9};
        char what[64];
        for (int i = 0; i < 3; i++) {
            static const double draft_s[] = {0.02, 0.2, 0.7};
            for (uint32_t ahead = 0; ahead <= 8; ahead += 4) {
                struct deceit d = {.draft_s = draft_s[i], .right_pct = pct, .ahead = ahead};
                try_all(&sum, d, new_words);
            }
        }
        snprintf(what, sizeof what, "a small model that is right %u times of 100", pct);
        judge(&sum, what);
    }
}

int main(void) {
    mem = aligned_alloc(64, spec_bytes(CAP));
    check_lookup();
    check_latest();
    check_worth();
    check_costs();
    check_growth();
    check_return();
    check_loss();
    check_keep();
    free(mem);
    return tap_done();
}
