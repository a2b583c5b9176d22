/* shuffle.h - random numbers, the same in every run, and candidates in an order that means nothing. */
#ifndef TESTS_SHUFFLE_H
#define TESTS_SHUFFLE_H

#include "model/sampler.h"

static uint64_t seed = 7;

static uint32_t rnd(void) {  // xorshift64*, Vigna 2016
    seed ^= seed >> 12, seed ^= seed << 25, seed ^= seed >> 27;
    return (uint32_t)((seed * 0x2545F4914F6CDD1DULL) >> 32);
}

static void shuffle(struct candidate *c, size_t n) {
    for (size_t i = n; i > 1; i--) {
        size_t k = rnd() % i;
        struct candidate t = c[k];
        c[k] = c[i - 1];
        c[i - 1] = t;
    }
}

#endif
