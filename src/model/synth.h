/* synth.h - random weights in a real shape, as a GGUF that other programs load too: for measuring and
 * testing where no model can be had. Seeded and counter-based: the same options, the same file. */
#ifndef MODEL_SYNTH_H
#define MODEL_SYNTH_H

#include "base/err.h"

#include <stdint.h>

struct synth {
    const char *shape;  // "llama-3.2-1b", "gpt-oss-20b", to be cut with ",layers=N" and the like
    const char *type;   // "q4_0", "q8_0", "q4_k", "q6_k", "mxfp4", "f16"; of gpt-oss the experts'
    const char *out;    // written as out.part, renamed when whole
    uint64_t seed;
};

/* Called now and then with bytes done of total; false stops. */
typedef bool synth_progress(void *ctx, uint64_t done, uint64_t total);

/* Fails: ERR_USAGE for an unknown shape or type (naming the known ones), and where `out` is there and no
 * file; ERR_IO, with the space needed and left when the disk is too small (checked beforehand);
 * ERR_STOPPED. Nothing is left behind then. */
MUST synth_write(const struct synth *s, synth_progress *progress, void *ctx, struct err *e);

#endif
