/* gemv.h - how fast a matrix kernel gets through weights that lie in memory: what bench shows, and what
 * the forecast takes computing to cost. Thread: main, outside any team. */
#ifndef GEMV_H
#define GEMV_H

#include "base/err.h"
#include "kernels.h"

#include <stdint.h>

struct gemv_conf {
    const struct kernels *kernels;
    int type;  // enum weight_type
    int n_thread;
    size_t n_tok;    // tokens at once
    uint64_t bytes;  // memory to use in all, at most
    double seconds;  // how long to go on; two passes are made in any case
};

/* Of the best pass. Bytes: of weights in kernel order. */
struct gemv_speed {
    double bytes_per_s, ops_per_s;
};

/* Random finite weights times random tokens. Fails: ERR_MEMORY. */
MUST gemv_speed(const struct gemv_conf *c, struct gemv_speed *out, struct err *e);

#endif
