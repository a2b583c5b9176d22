/* cgroup.h - the limits that the kernel puts on our control groups, version 1, 2 or both.
 *
 * Every path is looked up under `root` ("" on a real machine), so that tests can show made-up
 * machines. What is missing or odd counts as no limit: the kernel enforces what we miss.
 */
#ifndef HOST_CGROUP_H
#define HOST_CGROUP_H

#include <stdbool.h>
#include <stdint.h>

struct cgroup_mem {
    uint64_t limit;  // UINT64_MAX: none
    uint64_t used;   // under that limit, less inactive_file
};

/* Of our group and its ancestors the one with the least room left. Limits of `total` bytes (the
 * machine's RAM) and above are none. */
struct cgroup_mem cgroup_memory(const char *root, uint64_t total);

/* CPUs worth of time that the quotas leave us; 0: no quota. */
double cgroup_cpus(const char *root);

#endif
