/* gemv.h - how fast a matrix kernel gets through weights that lie in memory: what bench shows, and what
 * the forecast takes computing to cost. Thread: main, outside any team. */
#ifndef GEMV_H
#define GEMV_H

#include "base/par.h"
#include "kernels.h"

#include <stdint.h>

struct gemv_conf {
    const struct kernels *kernels;
    int type;                         // enum weight_type
    int n_thread;                     // size of the team
    const struct par_places *places;  // of its members, or NULL
    size_t n_tok;                     // tokens at once
    size_t n_col;                     // of the matrix, 0: 4096
    uint64_t bytes;                   // memory to use in all, at most
    uint64_t
        run_bytes;  // weights that the team is given at once, as those of a model's matrix; 0: all
    uint64_t unit_bytes;  // of which a member takes so many, 0: 256 KiB
    bool multiplies;      // measure what the multipliers give between the passes, too
    bool streams;         // measure what streamed weights cost, too
    double seconds;       // how long to go on; two passes are made in any case
};

/* Of the best pass. Bytes: of weights in kernel order. */
struct gemv_speed {
    double bytes_per_s;
    double lasting_per_s;    // bytes, of the slower half of the last 256 passes
    double usual_ops_per_s;  // operations, of all together
    double multiply_per_s;   // and those of kernels->multiply(), with conf.multiplies; else 0
    double stream_per_s;     // bytes re-laid and then multiplied, with conf.streams; else 0
};

/* Random finite weights times random tokens. Fails: ERR_MEMORY. */
MUST gemv_speed(const struct gemv_conf *c, struct gemv_speed *out, struct err *e);

/* The same with each of n widths of the team, which take turns. */
MUST gemv_speeds(const struct gemv_conf *c, const unsigned *width, unsigned n,
                 struct gemv_speed *out, struct err *e);

#endif
