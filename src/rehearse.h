/* rehearse.h - a short run of a model's first layers with the same part of them in memory as of the whole, on
 * the same disk, by the same threads. What the forecast's arithmetic leaves out shows in it: that the disk
 * takes time from the cores and they from it, how well reading and computing overlap, how often the experts
 * that a router chooses are in memory. Thread: main, while no engine is open. */
#ifndef REHEARSE_H
#define REHEARSE_H

#include "engine/engine.h"

/* What a run showed. Of the experts wanted, (1 - share)^skew are missed where `share` of them have a place: 1 if
 * they are chosen evenly, more the oftener the same ones are. So no budget that holds all misses any, and the
 * least misses all. */
struct rehearsed {
    double times;  // as long a token took as the arithmetic says, given what it read; 0: as 1
    /* Where the disk was no limit (times 1) it waited so much longer: as much for the whole model. */
    double extra_s;
    double skew;  // 0: not known, as 1
};

/* The skew of a run in which, of the experts `chosen`, `missed` were not there, where `share` of them have a place.
 * before: so many more are taken as missed, of a text that chooses evenly; the fewer the run chose, the nearer to 1. */
double rehearsed_skew(double share, double missed, double chosen, double before);

/* Not tried (zeroed) where that would take too long, as then the disk alone decides, nor in a context of a few
 * tokens.
 * whole: what `c` comes to, or would with a smaller budget. It takes no more memory than c->budget, and half
 * a second; where experts are chosen, with as many layers as that leaves time for, at most some two. Fails: as
 * engine_open, engine_load, engine_generate. */
MUST rehearse(const struct engine_conf *c, const struct nn_memory *whole, const struct rates *r,
              struct rehearsed *out, struct err *e);

/* Of the experts that a token is sent to, those expected in memory; and the bytes that it is expected to read. */
double rehearsed_hits(const struct rehearsed *h, const struct nn_memory *m);
uint64_t rehearsed_bytes(const struct rehearsed *h, const struct nn_memory *m);

/* engine_forecast() with what was learned. */
void rehearsed_forecast(const struct rehearsed *h, const struct nn_memory *m, const struct rates *r,
                        struct forecast *out);

#endif
