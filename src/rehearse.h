/* rehearse.h - a short run of a model's first layers with the same part of them in memory as of the whole, on
 * the same disk, by the same threads. What the forecast's arithmetic leaves out shows in it: that the disk
 * takes time from the cores and they from it, how well reading and computing overlap, which experts are
 * wanted. Thread: main, while no engine is open. */
#ifndef REHEARSE_H
#define REHEARSE_H

#include "engine/engine.h"

/* *times: how many times as long a token took as engine_forecast() says of such a run. 1 where that would
 * take too long to try, as then the disk alone decides, and in a context of a few tokens. whole: what `c`
 * comes to, or would with a smaller budget. It takes no more memory than c->budget, and half a second, one
 * where experts are chosen, at most some two. Fails: as engine_open, engine_load, engine_generate. */
MUST rehearse(const struct engine_conf *c, const struct nn_memory *whole, const struct rates *r,
              double *times, struct err *e);

#endif
