/* host.h - facts of this machine: memory, limits, cores. Read or measured when asked. */
#ifndef HOST_HOST_H
#define HOST_HOST_H

#include "base/par.h"

#include <stdint.h>

struct host_mem {
    uint64_t total;          // bytes of RAM
    uint64_t available;      // MemAvailable
    uint64_t cgroup_limit;   // of our cgroup and its ancestors (v1, v2) the one with the least room
                             // left; UINT64_MAX: none
    uint64_t cgroup_used;    // usage under that limit less reclaimable page cache (inactive_file)
    uint64_t rss, peak_rss;  // of this process
};
MUST host_mem(struct host_mem *m, struct err *e);

/* What the process may use in all: 85 % of (min(available, cgroup_limit - cgroup_used) + rss). */
uint64_t host_budget(const struct host_mem *m);

/* Cores this process may run on (affinity and cgroup CPU quota), counting one per physical core. */
int host_cores(void);

/* Bytes of the largest cache; 0: not known. */
uint64_t host_cache(void);

/* Where n_thread threads that compute are to stay, the best CPUs first. Unless it is asked for, only when
 * this process has the machine for itself (each thread a core, all CPUs ours, no other process of this
 * program that has places); else out->n is 0. Once in a process: it is remembered until its end. */
void host_places(unsigned n_thread, bool is_asked, struct par_places *out);

/* Best of a few passes of all threads reading `bytes` of huge-page memory: bytes per second.
 * Not from inside a team. Fails: ERR_MEMORY. Takes about 0.2 s for 64 MiB. */
MUST host_read_speed(int n_thread, uint64_t bytes, double *bytes_per_s, struct err *e);

#endif
