#include "engine/watch.h"

bool watch_is_stuck(struct watch *w, bool is_at_work, uint64_t pulse, uint64_t now_ns) {
    const uint64_t second = 1000000000;
    /* After a pause of the whole process (a debugger, a suspended machine) we know nothing. */
    if (!is_at_work || pulse != w->pulse || now_ns - w->looked_ns > 2 * second) {
        w->since_ns = now_ns;
    }
    w->looked_ns = now_ns;
    w->pulse = is_at_work ? pulse : 0;
    if (now_ns - w->since_ns < WATCH_STUCK_S * second) return false;
    w->since_ns = now_ns;
    return true;
}
