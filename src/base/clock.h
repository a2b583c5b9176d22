/* clock.h - monotonic time. */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <stdint.h>
#include <time.h>

static inline uint64_t clock_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000U + (uint64_t)t.tv_nsec;
}

static inline double clock_s(void) {
    return (double)clock_ns() * 1e-9;
}

/* So much in so many seconds (or tokens, or steps); 0 in none. */
static inline double clock_rate(double n, double in) {
    return in > 0 ? n / in : 0;
}

#endif
