/* lanes.h - the fixed order in which 16 partial sums become one, in plain C. */
#ifndef KERNELS_LANES_H
#define KERNELS_LANES_H

#include "quants.h"

#include <stddef.h>

/* lane [16] to one number: l + 8, l + 4, l + 2, l + 1. */
static inline float tree_sum(float *lane) {
    for (size_t half = FLOAT_LANES / 2; half > 0; half /= 2) {
        for (size_t l = 0; l < half; l++) lane[l] = lane[l] + lane[l + half];
    }
    return lane[0];
}

#endif
