/* read_loop.h - a loop that only reads memory: what bounds how fast weights can be used. */
#ifndef READ_LOOP_H
#define READ_LOOP_H

#include <stddef.h>
#include <stdint.h>

#if defined(__x86_64__)
#define READ_WIDE __attribute__((target("avx2")))
#else
#define READ_WIDE
#endif

enum { LINE_WORDS = 8 };

/* How many lines ahead to prefetch differs by machine: users try all, and the best counts. */
enum { N_AHEAD = 5 };
static const size_t read_aheads[N_AHEAD] = {32, 64, 144, 288, 576};

/* All words of `bytes` (a multiple of 256) at p, by exclusive or: none can be left unread. */
READ_WIDE static uint64_t read_loop(const char *p, size_t bytes, size_t ahead) {
    const uint64_t *word = (const uint64_t *)(const void *)p;
    uint64_t a[4 * LINE_WORDS] = {0};
    for (size_t i = 0; i < bytes / sizeof *word; i += 4 * LINE_WORDS) {
        for (size_t l = 0; l < 4; l++) __builtin_prefetch(word + i + (l + ahead) * LINE_WORDS);
        for (size_t l = 0; l < 4 * LINE_WORDS; l++) a[l] ^= word[i + l];
    }
    for (size_t l = 1; l < 4 * LINE_WORDS; l++) a[0] ^= a[l];
    return a[0];
}

#endif
