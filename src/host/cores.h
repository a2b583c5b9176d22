/* cores.h - host_cores() for any root folder and set of CPUs: tests show it other machines. */
#ifndef HOST_CORES_H
#define HOST_CORES_H

#include <sched.h>

enum { CORES_CPUS_MAX = 8 * CPU_SETSIZE };
struct cpus {
    cpu_set_t set[CORES_CPUS_MAX / CPU_SETSIZE];
};

/* Physical cores with a CPU in the set, but no more than the quota pays for; at least 1. */
int cores_count(const char *root, const struct cpus *may);

#endif
