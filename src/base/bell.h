/* bell.h - sleeping until another thread rings: a futex with a count.
 *
 * Whoever waits notes bell_seen(), then looks at the condition, then calls bell_wait() with what
 * was noted: a ring in between makes the wait return at once, so none is lost. Ringing while nobody
 * sleeps costs one atomic addition and no system call. A wait may end without cause: look again.
 */
#ifndef BASE_BELL_H
#define BASE_BELL_H

#include <limits.h>
#include <linux/futex.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

struct bell {
    _Atomic uint32_t rings;  // the futex word
    _Atomic uint32_t sleepers;
};

static inline uint32_t bell_seen(struct bell *b) {
    return atomic_load_explicit(&b->rings, memory_order_acquire);
}

/* Sequentially consistent on both sides: either the ringer sees the sleeper, or the kernel sees
 * the new count and does not put the sleeper to sleep. */
static inline void bell_ring(struct bell *b) {
    atomic_fetch_add(&b->rings, 1);
    if (atomic_load(&b->sleepers) > 0) {
        (void)syscall(SYS_futex, &b->rings, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
    }
}

static inline void bell_wait(struct bell *b, uint32_t seen) {
    atomic_fetch_add(&b->sleepers, 1);
    if (atomic_load(&b->rings) == seen) {
        (void)syscall(SYS_futex, &b->rings, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
    }
    atomic_fetch_sub(&b->sleepers, 1);
}

#endif
