/* cores.c - hyper-threads share the core's one path to memory, so a second one adds nothing to a
 * multiply that waits for weights: count physical cores. */
#include "host/cores.h"

#include "host/cgroup.h"
#include "host/facts.h"
#include "host/host.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

/* A file of a CPU's folder as text; false: there is none. */
static bool read_cpu(const char *root, int cpu, const char *name, char *text, size_t cap) {
    char path[96];
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/%s", cpu, name);
    return facts_read(root, path, text, cap);
}

struct siblings {
    const struct cpus *may;
    int cpu, before;
    bool has_zero;
};

static void look_at(void *ctx, int cpu) {
    struct siblings *s = ctx;
    if (cpu == 0) s->has_zero = true;
    if (cpu < s->cpu && CPU_ISSET_S(cpu, sizeof s->may->set, s->may->set)) s->before++;
}

/* The CPU's core: how many lower CPUs of the set are on it; a CPU without a list is a core. */
static struct siblings core_of(const char *root, const struct cpus *may, int cpu) {
    char text[256];
    struct siblings s = {.may = may, .cpu = cpu, .has_zero = cpu == 0};
    if (read_cpu(root, cpu, "topology/thread_siblings_list", text, sizeof text)) {
        facts_cpu_list(text, CORES_CPUS_MAX, look_at, &s);
    }
    return s;
}

int cores_count(const char *root, const struct cpus *may) {
    int n = 0;
    for (int cpu = 0; cpu < CORES_CPUS_MAX; cpu++) {
        if (CPU_ISSET_S(cpu, sizeof may->set, may->set)) n += !core_of(root, may, cpu).before;
    }
    /* Rounded down: a team that waits for its slowest member gains nothing by one throttled. */
    double quota = cgroup_cpus(root);
    if (quota > 0 && quota < n) n = (int)quota;
    return n < 1 ? 1 : n;
}

/* --- places --- */

/* Sorted by `rank`, ascending: second threads of cores, slow ones, CPU 0's, the number. */
struct seat {
    uint64_t rank;
    uint16_t cpu;
};

enum { SPEED_MOST = (1 << 24) - 1 };

/* How fast a core is beside its neighbours: the scheduler's figure (ARM), or the highest MHz. */
static uint64_t speed_of(const char *root, int cpu) {
    char text[32];
    uint64_t v = 0;
    if (read_cpu(root, cpu, "cpu_capacity", text, sizeof text)) {
        v = strtoull(text, NULL, 10);
    } else if (read_cpu(root, cpu, "cpufreq/cpuinfo_max_freq", text, sizeof text)) {
        v = strtoull(text, NULL, 10) / 1000;
    }
    return v < SPEED_MOST ? v : SPEED_MOST;
}

static int by_rank(const void *a, const void *b) {
    const struct seat *x = a, *y = b;
    return (x->rank > y->rank) - (x->rank < y->rank);
}

unsigned cores_order(const char *root, const struct cpus *may, struct par_places *out) {
    struct seat seat[PAR_MAX];
    unsigned n = 0, n_core = 0;
    for (int cpu = 0; cpu < CORES_CPUS_MAX && n < PAR_MAX; cpu++) {
        if (!CPU_ISSET_S(cpu, sizeof may->set, may->set)) continue;
        struct siblings s = core_of(root, may, cpu);
        uint64_t slow = SPEED_MOST - speed_of(root, cpu);
        uint64_t before = (uint64_t)s.before & 0xff;
        n_core += !s.before;
        seat[n++] = (struct seat){
            .rank = before << 56 | slow << 24 | (uint64_t)s.has_zero << 16 | (uint64_t)cpu,
            .cpu = (uint16_t)cpu,
        };
    }
    qsort(seat, n, sizeof *seat, by_rank);
    out->n = n;
    for (unsigned i = 0; i < n; i++) out->cpu[i] = seat[i].cpu;
    return n_core;
}

struct online {
    const struct cpus *may;
    bool lacks;
};

static void look_online(void *ctx, int cpu) {
    struct online *o = ctx;
    if (!CPU_ISSET_S(cpu, sizeof o->may->set, o->may->set)) o->lacks = true;
}

bool cores_are_ours(const char *root, const struct cpus *may, unsigned n_thread) {
    char text[1024];
    struct par_places all;
    struct online o = {.may = may};
    if (!facts_read(root, "/sys/devices/system/cpu/online", text, sizeof text)) return false;
    facts_cpu_list(text, CORES_CPUS_MAX, look_online, &o);
    return !o.lacks && cgroup_cpus(root) <= 0 && n_thread <= cores_order(root, may, &all);
}

uint64_t cores_cache(const char *root) {
    uint64_t most = 0;
    for (int i = 0; i < 8; i++) {
        char name[32], text[32];
        char *end;
        snprintf(name, sizeof name, "cache/index%d/size", i);
        if (!read_cpu(root, 0, name, text, sizeof text)) continue;
        uint64_t v = strtoull(text, &end, 10);
        unsigned shift = *end == 'K' ? 10 : *end == 'M' ? 20 : 0;
        if (v < UINT32_MAX && v << shift > most) most = v << shift;
    }
    return most;
}

/* --- of this machine --- */

static bool here(struct cpus *may) {
    memset(may, 0, sizeof *may);
    return sched_getaffinity(0, sizeof may->set, may->set) == 0;
}

int host_cores(void) {
    struct cpus may;
    return here(&may) ? cores_count("", &may) : 1;
}

uint64_t host_cache(void) {
    return cores_cache("");
}

/* Of all processes of this program one holds the lock on it, until it ends: two that bind their threads
 * to the same cores would be worse off than two that the kernel places. */
static bool is_first_here(void) {
    int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    if (flock(fd, LOCK_EX | LOCK_NB) == 0) return true;  // fd stays open: it is the lock
    close(fd);
    return false;
}

void host_places(unsigned n_thread, bool is_asked, struct par_places *out) {
    struct cpus may;
    out->n = 0;
    if (!here(&may)) return;
    if (!is_asked && (!cores_are_ours("", &may, n_thread) || !is_first_here())) return;
    (void)cores_order("", &may, out);
}
