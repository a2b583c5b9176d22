/* tune.h - how many threads compute, and what a token then costs them: measured at the start, on matrices
 * and vectors of the model's shape.
 *
 * A step of one token waits for memory, and memory that two cores fill is often read more slowly by four
 * (a Raspberry Pi 5: 13.2 GB/s by two, 11.6 by four). What reads a prompt is arithmetic and takes all
 * threads in any case. Thread: main, outside any team.
 */
#ifndef TUNE_H
#define TUNE_H

#include "kernels.h"
#include "model/model.h"

#include "base/par.h"

struct tune_conf {
    const struct kernels *kernels;
    const struct model *model;
    int type;                         // of most of its weights
    enum kv_type kv;                  // of its keys and values
    unsigned n_thread;                // size of the team
    bool is_fixed;                    // so many were asked for: no others are tried
    const struct par_places *places;  // of its members
    uint64_t unit_bytes;              // of weights that a thread takes at once, at most
    uint64_t bytes;                   // of weights that a token passes, in kernel order
    uint64_t cache, memory;           // of the machine's largest cache; to use in all
    uint32_t n_pos;                   // positions that attention sees, at least 1
};

enum { TUNE_COUNTS = 5 };

struct tune {
    unsigned n;
    unsigned count[TUNE_COUNTS];  // [n] threads that were tried, descending; the first is the team
    double bps[TUNE_COUNTS];      // [n] bytes of weights a second
    unsigned best;                // the one to take
    double lasting_bps;  // then so many bytes a second, by the slower half of its last passes
    double stream_bps;   // and so many of streamed ones, which are re-laid first
    double rest_s;       // and a token costs so much besides its weights
};

/* Bytes that are read from memory when they are passed over and over, by the size of the machine's largest
 * cache; 0: not known. */
uint64_t tune_beyond_cache(uint64_t cache);

/* Numbers worth trying, descending from n_thread. Returns how many. */
unsigned tune_counts(unsigned n_thread, unsigned count[static TUNE_COUNTS]);

/* Which of rates [n] to take: of those about as fast as the fastest the first, which has the most
 * threads, as what else a token costs is shared among them. */
unsigned tune_choose(const double *bps, unsigned n);

/* 0.1 to 0.5 s, half a second more for large models; longer where memory is slow and the size of the cache
 * is not known, and where contexts are long: at least four tokens' keys and values are passed. Fails: ERR_MEMORY. */
MUST tune_measure(const struct tune_conf *c, struct tune *out, struct err *e);

#endif
