/* tok_trial.h - what the tests of tokenizers share: chance, an opened toy, texts that have something to
 * merge. */
#ifndef TESTS_TOK_TRIAL_H
#define TESTS_TOK_TRIAL_H

#include "model/tok.h"
#include "tap.h"
#include "toy_vocab.h"

static uint64_t seed = 1;

static inline uint32_t rnd(uint32_t n) {  // xorshift64*, Vigna 2016
    seed ^= seed >> 12, seed ^= seed << 25, seed ^= seed >> 27;
    return (uint32_t)((seed * 0x2545F4914F6CDD1DULL) >> 32) % n;
}

static inline struct tok *open_toy(const struct toy *y) {
    struct tok *t = NULL;
    struct err e = {0};
    if (!tok_open(&t, &y->v, &e)) printf("# %s\n", e.text);
    return t;
}

/* A text of letters that merge, spaces and whole characters. */
static inline size_t random_text(char *s, size_t max) {
    static const char *const bits[] = {"a", "b", "a",  "b",   "he", "l",   "l",  "o",
                                       " ", " ", " ",  "wor", "ld", "é",   "世", "the",
                                       "h", "x", "'s", "12",  "3",  "界a", "t"};
    size_t n = 0;
    for (uint32_t k = rnd(40); k; k--) {
        const char *b = bits[rnd(sizeof bits / sizeof *bits)];
        if (n + strlen(b) > max) break;
        memcpy(s + n, b, strlen(b));
        n += strlen(b);
    }
    return n;
}

#endif
