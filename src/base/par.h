/* par.h - the compute team: the one door to OpenMP.
 *
 * One parallel region is entered for the whole life of the team, by par_enter(); inside it the
 * caller is thread 0 and the others wait for work, spinning briefly and then sleeping in a futex,
 * so an idle team costs no CPU. par_run() hands every thread the same function and returns when all
 * have finished. A team of one calls the function directly and starts no thread.
 *
 * A team can work with fewer members for a while: where the memory limits, more cores only get in each
 * other's way. Those left out sleep for good, whatever the others do.
 *
 * Only the thread inside par_enter() may call par_run() and its kin; calls do not nest. Several threads
 * may have a team each. The child of a fork() has none: OpenMP believes in threads that it left behind.
 */
#ifndef BASE_PAR_H
#define BASE_PAR_H

#include "base/err.h"

#include <stdatomic.h>
#include <stdint.h>

struct par;

enum { PAR_MAX = 256, PAR_CPUS = 8192 };

/* Where the members of a team are to stay. */
struct par_places {
    unsigned n;             // 0: wherever the kernel puts them
    uint16_t cpu[PAR_MAX];  // [n] by member, each below PAR_CPUS; members beyond n begin anew
};

/* Work for one member: `thread` of `n_thread`, 0 is the caller of par_run(). */
typedef void par_work(void *ctx, int thread, int n_thread);

/* Run body(ctx, team) with a team of n_thread (1..PAR_MAX), the caller included; returns when body
 * has returned and the team is gone. Fails: ERR_MEMORY when threads cannot be had. */
MUST par_enter(int n_thread, void (*body)(void *ctx, struct par *team), void *ctx, struct err *e);

/* Every member runs work(ctx, thread, n); returns when the last has finished. Allocates nothing. */
void par_run(struct par *team, par_work *work, void *ctx);

/* Items that the members of a run share out among themselves. Each has a share that lies side by side and goes
 * through it from the front; who is done takes half of what the one with the most has left, from behind. So
 * what a core reads follows on what it has read, as its prefetching expects (measured: a model's weights come
 * 2 to 10 % faster than by turns), and a core that is slow or borrowed makes no straggler. Where items
 * become ready one after another, all take from one share, in order. */
struct par_items {
    int n_share;
    uint32_t per_share;  // members to a share
    struct {
        _Atomic uint64_t span;  // first not taken << 32 | end
        uint64_t apart[7];      // no two in a cache line
    } share[PAR_MAX];
};

/* Items [first, end) for the next run. Before it, by the thread that will call it. */
void par_deal(struct par_items *p, const struct par *team, uint32_t first, uint32_t end,
              bool in_order);

/* In the run, for member `thread`: some of them, *first and those behind it, a third of the share but at most 8
 * and at least one, so that all end at about the same time. Returns how many; 0: there are none. */
uint32_t par_take(struct par_items *p, int thread, uint32_t *first);

/* From now on par_run() runs with the first n members, 1..par_threads(); all of them at first. Costs two
 * runs at most, nothing when it is so already. */
void par_width(struct par *team, int n);

/* Every member goes to its place, the caller too, as far as the kernel lets it; back when the team is gone.
 * Before any par_width(). */
void par_pin(struct par *team, const struct par_places *p);

/* A thread begins where the one that started it is: let the calling one run wherever the process's first
 * thread may. */
void par_roam(void);

int par_threads(const struct par *team);  // members in all

/* One step of waiting for another thread: spin politely at first, later yield the core. `turn`
 * counts the steps; returns true once it is time to sleep in the kernel instead. */
bool par_relax(unsigned *turn);

#endif
