/* x86.h - what the x86-64 kernels share. Everything is inlined, so that each file keeps the code of its
 * own instruction set. */
#ifndef KERNELS_X86_H
#define KERNELS_X86_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define ALWAYS static inline __attribute__((always_inline))
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#elif defined(__SANITIZE_ADDRESS__)
#define UNROLL  // what it checks hides the counts from gcc, which would say so
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif
/* Tells gcc that v is used here: without it the tile's partial sums are reordered and spilled (AVX2: 100
 * instead of 150 GMAC/s). Emits nothing. */
#define KEEP(v) __asm__ volatile("" : "+v"(v))
/* Tells gcc to load v into a register once, where it would load it again for each use: not volatile, so that
 * two of the same load become one. */
#define ONCE(v) __asm__("" : "+v"(v))

enum {
    MULTIPLY_SUMS = 12
};  // of multiply(): enough to hide the latency, and there are 16 registers

ALWAYS int32_t load_i32(const void *p) {
    int32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

ALWAYS float load_f32(const void *p) {
    float v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* Into L2, not L1: misses to memory would fill L1's few miss buffers, and the activations, which
 * fall out of L1 when a row is long, would wait behind them. */
ALWAYS void prefetch_lines(const char *p, size_t n_line) {
    UNROLL
    for (size_t i = 0; i < n_line; i++) _mm_prefetch(p + 64 * i, _MM_HINT_T1);
}

struct lines {
    const char *at;
    size_t n;
};

/* Those that fall to part i of n: all at once, they hold up what is computed (measured). */
ALWAYS struct lines part_of(struct lines l, size_t i, size_t n) {
    size_t begin = l.n * i / n, end = l.n * (i + 1) / n;
    return (struct lines){l.at + 64 * begin, end - begin};
}

ALWAYS void prefetch_part(struct lines l, size_t i, size_t n) {
    struct lines part = part_of(l, i, n);
    prefetch_lines(part.at, part.n);
}

#endif
