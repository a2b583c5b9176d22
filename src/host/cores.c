/* cores.c - hyper-threads share the core's one path to memory, so a second one adds nothing to a
 * multiply that waits for weights: count physical cores. */
#include "host/cores.h"

#include "host/cgroup.h"
#include "host/facts.h"
#include "host/host.h"

#include <stdio.h>
#include <string.h>

struct siblings {
    const struct cpus *may;
    int cpu;
    bool is_first;
};

static void look_at(void *ctx, int cpu) {
    struct siblings *s = ctx;
    if (cpu < s->cpu && CPU_ISSET_S(cpu, sizeof s->may->set, s->may->set)) s->is_first = false;
}

/* The lowest CPU of each core stands for it; a CPU without a list is a core. */
static bool stands_for_core(const char *root, const struct cpus *may, int cpu) {
    char path[96];
    char text[256];
    struct siblings s = {.may = may, .cpu = cpu, .is_first = true};
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", cpu);
    if (facts_read(root, path, text, sizeof text)) {
        facts_cpu_list(text, CORES_CPUS_MAX, look_at, &s);
    }
    return s.is_first;
}

int cores_count(const char *root, const struct cpus *may) {
    int n = 0;
    for (int cpu = 0; cpu < CORES_CPUS_MAX; cpu++) {
        if (CPU_ISSET_S(cpu, sizeof may->set, may->set) && stands_for_core(root, may, cpu)) n++;
    }
    /* Rounded down: a team that waits for its slowest member gains nothing by one throttled. */
    double quota = cgroup_cpus(root);
    if (quota > 0 && quota < n) n = (int)quota;
    return n < 1 ? 1 : n;
}

int host_cores(void) {
    struct cpus may;
    memset(&may, 0, sizeof may);
    if (sched_getaffinity(0, sizeof may.set, may.set) != 0) return 1;
    return cores_count("", &may);
}
