/* relay.h - what all re-laying does besides. */
#ifndef KERNELS_RELAY_H
#define KERNELS_RELAY_H

#include "quants.h"

#include <stddef.h>

/* Fetch into L2, of the 8 rows behind those at src, what lies where the blocks `at` of these are put from.
 * Rows are read side by side and each is short: by the time the hardware has seen where they go, they end.
 * size: bytes of a block in file order. */
static inline __attribute__((always_inline)) void fetch_next_rows(const char *src, size_t row_bytes,
                                                                  size_t at, size_t size) {
    const char *next = src + ROW_GROUP * (row_bytes + at * size);
    for (size_t i = 0; i < ROW_GROUP * size; i += 64) __builtin_prefetch(next + i, 0, 2);
}

#endif
