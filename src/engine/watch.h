/* watch.h - whether an engine hangs.
 *
 * A disk can hang for good, and with it the thread that reads from it: the others must not wait for ever.
 * Somebody else looks at its pulse (worker.h) several times a second. Plain data.
 */
#ifndef ENGINE_WATCH_H
#define ENGINE_WATCH_H

#include <stdbool.h>
#include <stdint.h>

enum { WATCH_STUCK_S = 20 };

struct watch {
    uint64_t pulse, since_ns, looked_ns;
};

/* It is at work with this pulse now, and was so at every look for WATCH_STUCK_S. Said once: then it has as
 * long again. */
bool watch_is_stuck(struct watch *w, bool is_at_work, uint64_t pulse, uint64_t now_ns);

#endif
