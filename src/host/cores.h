/* cores.h - host_cores() and its kin for any root folder and set of CPUs: tests show them other machines. */
#ifndef HOST_CORES_H
#define HOST_CORES_H

#include "base/par.h"

#include <sched.h>

enum { CORES_CPUS_MAX = PAR_CPUS };
struct cpus {
    cpu_set_t set[CORES_CPUS_MAX / CPU_SETSIZE];
};

/* Physical cores with a CPU in the set, but no more than the quota pays for; at least 1. */
int cores_count(const char *root, const struct cpus *may);

/* CPUs of the set in the order in which a team should take them: one of each core before any core's
 * second; among these the faster cores first; of equal ones that of CPU 0 last, where most interrupts
 * land, the others by number. Returns how many are the first of their core. */
unsigned cores_order(const char *root, const struct cpus *may, struct par_places *out);

/* Whether so many threads would have a core each, of a machine that is wholly ours: every CPU that is
 * online is in the set, no quota throttles us. */
bool cores_are_ours(const char *root, const struct cpus *may, unsigned n_thread);

/* Bytes of the largest cache of CPU 0; 0: not known. */
uint64_t cores_cache(const char *root);

#endif
