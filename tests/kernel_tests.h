/* kernel_tests.h - what the tests of kernels share: numbers, nearness, and the variants of this CPU. */
#ifndef TESTS_KERNEL_TESTS_H
#define TESTS_KERNEL_TESTS_H

#include "kernels.h"

#include <math.h>
#include <string.h>

static inline uint32_t rnd(void) {  // xorshift64*, Vigna 2016
    static uint64_t seed = 1;
    seed ^= seed >> 12, seed ^= seed << 25, seed ^= seed >> 27;
    return (uint32_t)(seed * 0x2545F4914F6CDD1DULL >> 32);
}

static inline float rnd_float(void) {  // [-1, 1)
    return (float)((int32_t)(rnd() >> 8) - (1 << 23)) * 0x1p-23f;
}

static inline bool is_near(double got, double want, double relative, double absolute) {
    return fabs(got - want) <= relative * fabs(want) + absolute;
}

/* Test every variant that this CPU has: its name restricts the features to those it needs. False: the
 * best was not among them. */
static inline bool each_variant(void (*test)(const struct kernels *k, void *ctx), void *ctx) {
    unsigned have = cpu_features();
    if (have & CPU_AVX512) have |= CPU_ZEN5;  // every such CPU can run its kernels
    bool best = false;
    for (size_t i = 0; cpu_variant(i); i++) {
        struct kernels k;
        kernels_init(&k, cpu_restrict(have, cpu_variant(i), NULL));
        if (strcmp(k.name, cpu_variant(i)) != 0) continue;  // the CPU cannot do it
        test(&k, ctx);
        kernels_init(&k, have);
        best |= strcmp(k.name, cpu_variant(i)) == 0;
    }
    return best;
}

#endif
