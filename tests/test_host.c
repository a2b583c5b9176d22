/* test_host.c - memory and cores, of made-up machines first and then of this one. */
#include "base/clock.h"
#include "host/cgroup.h"
#include "host/cores.h"
#include "host/facts.h"
#include "host/host.h"
#include "tap.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define GIB (UINT64_C(1) << 30)
static const uint64_t RAM = 16 * GIB;
static char root[64];

/* Write text to the made-up machine's file, with its folders. */
static void put(const char *path, const char *text) {
    char full[PATH_MAX];
    snprintf(full, sizeof full, "%s%s", root, path);
    for (char *p = full + strlen(root) + 1; (p = strchr(p, '/')); p++) {
        *p = 0;
        (void)mkdir(full, 0700);
        *p = '/';
    }
    FILE *f = fopen(full, "w");
    if (!f) return;
    fputs(text, f);
    fclose(f);
}

static void clear_root(void) {
    char cmd[128];
    if (strncmp(root, "/tmp/dair-host-", 15) != 0) return;
    snprintf(cmd, sizeof cmd, "rm -rf '%s'", root);
    if (system(cmd) != 0) printf("# %s is left\n", root);
}

static void new_root(void) {
    if (root[0]) clear_root();
    strcpy(root, "/tmp/dair-host-XXXXXX");
    if (!mkdtemp(root)) exit(1);
}

static void expect(uint64_t limit, uint64_t used, const char *what) {
    struct cgroup_mem m = cgroup_memory(root, RAM);
    bool ok = m.limit == limit && (limit == UINT64_MAX || m.used == used);
    tap_ok(ok, "%s: limit %llu, used %llu", what, (unsigned long long)m.limit,
           (unsigned long long)m.used);
}

static void test_v2(void) {
    new_root();
    expect(UINT64_MAX, 0, "no groups at all");
    put("/proc/self/cgroup", "0::/user.slice/my app/dair\n");
    put("/proc/self/mountinfo",
        "22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n"
        "26 24 0:23 / /sys/fs/my\\040groups rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n");
    expect(UINT64_MAX, 0, "v2, no files");
    put("/sys/fs/my groups/user.slice/memory.max", "max\n");
    put("/sys/fs/my groups/user.slice/my app/dair/memory.max", "max\n");
    put("/sys/fs/my groups/user.slice/my app/dair/memory.current", "1000000\n");
    expect(UINT64_MAX, 0, "v2, no limit");
    put("/sys/fs/my groups/user.slice/my app/dair/memory.max", "2147483648\n");
    put("/sys/fs/my groups/user.slice/my app/dair/memory.stat",
        "anon 5000\ninactive_file_other 7\ninactive_file 400000\nactive_file 3\n");
    expect(2 * GIB, 600000, "v2, own limit, page cache not counted");
    put("/sys/fs/my groups/user.slice/memory.max", "4294967296\n");
    put("/sys/fs/my groups/user.slice/memory.current", "4000000000\n");
    expect(4 * GIB, 4000000000, "v2, a fuller ancestor leaves less");
    put("/sys/fs/my groups/user.slice/my app/dair/memory.high", "1600000\n");
    expect(1600000, 600000, "v2, memory.high");
    put("/sys/fs/my groups/user.slice/my app/dair/memory.max", "-junk\n");
    put("/sys/fs/my groups/user.slice/my app/dair/memory.high", "\n");
    put("/sys/fs/my groups/user.slice/memory.max", "99999999999999999999999999\n");
    expect(UINT64_MAX, 0, "v2, junk is no limit");
    put("/proc/self/cgroup", "0::/../outside\n");
    put("/sys/fs/my groups/memory.max", "1073741824\n");
    put("/sys/fs/my groups/memory.current", "5\n");
    expect(GIB, 5, "v2, a namespace whose path leads outside");
}

static void test_v1(void) {
    new_root();
    put("/proc/self/cgroup",
        "9:name=systemd:/x\n4:memory:/docker/1234/inner\n3:cpu,cpuacct:/docker/1234\n0::/\n");
    put("/proc/self/mountinfo",
        "30 22 0:26 /docker/1234 /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct\n"
        "31 22 0:27 /docker/1234 /sys/fs/cgroup/memory ro master:7 - cgroup cgroup rw,memory\n"
        "32 22 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n");
    put("/sys/fs/cgroup/memory/inner/memory.limit_in_bytes", "9223372036854771712\n");
    put("/sys/fs/cgroup/memory/inner/memory.usage_in_bytes", "300000000\n");
    expect(UINT64_MAX, 0, "v1, no limit");
    put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "1073741824\n");
    put("/sys/fs/cgroup/memory/memory.usage_in_bytes", "500000000\n");
    put("/sys/fs/cgroup/memory/memory.stat",
        "cache 7\ninactive_file 1\ntotal_cache 5\ntotal_inactive_file 100000000\n");
    expect(GIB, 400000000, "v1 in a container, the parent's limit");
    put("/sys/fs/cgroup/memory/inner/memory.stat",
        "hierarchical_memory_limit 536870912\ntotal_inactive_file 50\n");
    expect(GIB / 2, 299999950, "v1, an ancestor that is not shown");
    char deep[5000] = "4:memory:";
    size_t n = strlen(deep);
    for (int i = 0; i < 2000; i++, n += 2) memcpy(deep + n, "/a", 3);
    put("/proc/self/cgroup", deep);
    expect(GIB, 400000000, "v1, a group that the mount does not show is the mount's");
    static char junk[70000];
    memset(junk, '9', sizeof junk - 1);
    put("/proc/self/cgroup", junk);
    put("/proc/self/mountinfo", junk);
    expect(UINT64_MAX, 0, "junk");
    put("/proc/self/cgroup", "4:memory:/\n");
    put("/proc/self/mountinfo", "31 22 - cgroup\n - cgroup x memory\n31 22 0:1 / - cgroup");
    expect(UINT64_MAX, 0, "mountinfo cut short");
}

static void test_cores(void) {
    struct cpus all, some;
    memset(&all, 0, sizeof all);
    memset(&some, 0, sizeof some);
    for (int i = 0; i < 8; i++) CPU_SET_S(i, sizeof all.set, all.set);
    CPU_SET_S(5, sizeof some.set, some.set);
    CPU_SET_S(2, sizeof some.set, some.set);
    CPU_SET_S(6, sizeof some.set, some.set);
    new_root();
    tap_ok(cores_count(root, &all) == 8, "8 CPUs of which nothing is known: 8 cores");
    for (int i = 0; i < 8; i++) {
        char path[96];
        char text[32];
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list",
                 i);
        snprintf(text, sizeof text, "%d,%d\n", i % 4, i % 4 + 4);
        put(path, text);
    }
    tap_ok(cores_count(root, &all) == 4, "8 CPUs, two a core: 4 cores");
    tap_ok(cores_count(root, &some) == 2, "2, 5 and 6 of them: 2 cores");
    put("/proc/self/cgroup", "0::/a\n");
    put("/proc/self/mountinfo", "26 24 0:23 / /cg rw - cgroup2 cgroup2 rw\n");
    put("/cg/a/cpu.max", "max 100000\n");
    tap_ok(cores_count(root, &all) == 4, "no quota");
    put("/cg/a/cpu.max", "350000 100000\n");
    tap_ok(cores_count(root, &all) == 3, "quota of 3.5 CPUs: 3");
    put("/cg/cpu.max", "50000 100000\n");
    tap_ok(cores_count(root, &all) == 1, "quota of half a CPU: 1");
    put("/proc/self/cgroup", "3:cpu,cpuacct:/b\n");
    put("/proc/self/mountinfo", "30 22 0:26 / /v1 ro - cgroup cgroup rw,cpu,cpuacct\n");
    put("/v1/b/cpu.cfs_quota_us", "-1\n");
    put("/v1/b/cpu.cfs_period_us", "100000\n");
    tap_ok(cores_count(root, &all) == 4, "v1, no quota");
    put("/v1/b/cpu.cfs_quota_us", "200000\n");
    tap_ok(cores_count(root, &all) == 2, "v1, quota of 2 CPUs");
    put("/sys/devices/system/cpu/cpu0/topology/thread_siblings_list", "0-999999999999,,x\n");
    tap_ok(cores_count(root, &all) == 2, "a list without end");
}

/* --- the order of places --- */

static void put_cpu(int cpu, const char *name, const char *text) {
    char path[96];
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/%s", cpu, name);
    put(path, text);
}

static struct cpus first_cpus(int n) {
    struct cpus c;
    memset(&c, 0, sizeof c);
    for (int i = 0; i < n; i++) CPU_SET_S(i, sizeof c.set, c.set);
    return c;
}

/* want: the CPUs in order, as "2 3 1 0". */
static void expect_order(const struct cpus *may, unsigned n_core, const char *want,
                         const char *what) {
    struct par_places p;
    unsigned got = cores_order(root, may, &p);
    char text[1024] = "";
    size_t n = 0;
    for (unsigned i = 0; i < p.n; i++) {
        n += (size_t)snprintf(text + n, sizeof text - n, "%s%d", i ? " " : "", p.cpu[i]);
    }
    tap_ok(got == n_core && strcmp(text, want) == 0, "%s: %u cores, %s", what, got, text);
}

static void test_order(void) {
    struct cpus four = first_cpus(4), twelve = first_cpus(12);
    new_root();
    expect_order(&four, 4, "1 2 3 0", "4 CPUs of which nothing is known");
    for (int i = 0; i < 4; i++) put_cpu(i, "topology/thread_siblings_list", i < 2 ? "0-1" : "2-3");
    expect_order(&four, 2, "2 0 3 1", "two cores of two threads");
    tap_ok(!cores_are_ours(root, &four, 2), "what is online is not known: not ours");
    put("/sys/devices/system/cpu/online", "0-3\n");
    tap_ok(cores_are_ours(root, &four, 2), "two threads on them, all ours");
    tap_ok(!cores_are_ours(root, &four, 3), "three have no core each");
    put("/sys/devices/system/cpu/online", "0-3,7\n");
    tap_ok(!cores_are_ours(root, &four, 2), "CPU 7 is somebody else's");
    put("/sys/devices/system/cpu/online", "0-3\n");
    put("/proc/self/cgroup", "0::/a\n");
    put("/proc/self/mountinfo", "26 24 0:23 / /cg rw - cgroup2 cgroup2 rw\n");
    put("/cg/a/cpu.max", "400000 100000\n");
    tap_ok(!cores_are_ours(root, &four, 2), "a quota: not ours");

    /* Two P-cores of two threads, eight E-cores; as Linux numbers them. */
    new_root();
    for (int i = 0; i < 12; i++) {
        char list[16];
        snprintf(list, sizeof list, "%d-%d", i < 4 ? i / 2 * 2 : i, i < 4 ? i / 2 * 2 + 1 : i);
        put_cpu(i, "topology/thread_siblings_list", list);
        put_cpu(i, "cpufreq/cpuinfo_max_freq", i < 4 ? "4500000\n" : "3300000\n");
    }
    expect_order(&twelve, 10, "2 0 4 5 6 7 8 9 10 11 3 1", "a hybrid: P-cores, E-cores, the rest");

    /* big.LITTLE: the little ones first in number. */
    new_root();
    for (int i = 0; i < 4; i++) put_cpu(i, "cpu_capacity", i < 2 ? "446\n" : "1024\n");
    expect_order(&four, 4, "2 3 1 0", "big.LITTLE");
    put_cpu(2, "cpu_capacity", "99999999999999999999\n");
    put_cpu(3, "cpu_capacity", "-junk\n");
    expect_order(&four, 4, "2 1 0 3", "figures that are none");
}

static void test_cache(void) {
    new_root();
    tap_ok(cores_cache(root) == 0, "no cache is known");
    put_cpu(0, "cache/index0/size", "64K\n");
    put_cpu(0, "cache/index2/size", "512K\n");
    put_cpu(0, "cache/index3/size", "2M\n");
    tap_ok(cores_cache(root) == 2 << 20, "the largest of three caches");
    put_cpu(0, "cache/index3/size", "99999999999999999M\n");
    tap_ok(cores_cache(root) == 512 << 10, "junk is none");
}

static void test_budget(void) {
    struct host_mem m = {.available = 8 * GIB, .cgroup_limit = UINT64_MAX, .rss = GIB};
    uint64_t all = host_budget(&m);
    m.cgroup_limit = 4 * GIB;
    m.cgroup_used = 2 * GIB;
    uint64_t some = host_budget(&m);
    m.cgroup_used = 5 * GIB;
    uint64_t none = host_budget(&m);
    tap_ok(all / 1000 == 9 * GIB / 100 * 85 / 1000 && some / 1000 == 3 * GIB / 100 * 85 / 1000 &&
               none / 1000 == GIB / 100 * 85 / 1000,
           "budget: 85 %% of what is left, what we have included");
}

static void test_here(void) {
    struct host_mem m = {0};
    struct err e = {0};
    bool ok = host_mem(&m, &e);
    tap_ok(ok && m.total > 0 && m.available <= m.total && m.rss > 0 && m.peak_rss >= m.rss &&
               m.rss < m.total,
           "this machine: %llu MiB, %llu available, rss %llu KiB: %s",
           (unsigned long long)m.total >> 20, (unsigned long long)m.available >> 20,
           (unsigned long long)m.rss >> 10, e.text);
    int n = host_cores();
    tap_ok(n >= 1 && n <= (int)sysconf(_SC_NPROCESSORS_ONLN), "this machine: %d cores", n);
    struct par_places p;
    host_places((unsigned)n, true, &p);
    tap_ok(p.n >= (unsigned)n, "this machine: %u places", p.n);
    double speed = 0;
    uint64_t begin = clock_ns();
    ok = host_read_speed(n, 64 << 20, &speed, &e);
    double took = (double)(clock_ns() - begin) * 1e-9;
    tap_ok(ok && speed > 1e8 && speed < 1e13 && took < 10, "read speed %.1f GB/s, took %.3f s: %s",
           speed * 1e-9, took, e.text);
    tap_ok(!host_read_speed(0, 64 << 20, &speed, &e), "read speed of no thread: %s", e.text);
}

static bool write_text(const char *path, const char *text) {
    FILE *f = fopen(path, "w");
    if (!f) return false;
    bool ok = fputs(text, f) >= 0;
    return fclose(f) == 0 && ok;
}

/* In the child, which is in the group: 32 MiB of ours must show, and the limit. */
static int look_inside(const char *procs) {
    struct host_mem m = {0};
    struct err e = {0};
    char pid[16];
    snprintf(pid, sizeof pid, "%d", (int)getpid());
    if (!write_text(procs, pid)) return 2;
    size_t len = 32 << 20;
    char *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) return 3;
    memset(p, 1, len);
    if (!host_mem(&m, &e)) return 4;
    if (m.cgroup_limit != 256 << 20) return 5;
    if (m.cgroup_used < len || m.cgroup_used > 256 << 20) return 6;
    if (m.rss < len || m.peak_rss < len) return 7;
    return host_budget(&m) < 256 << 20 ? 0 : 8;
}

/* A group of our own below the one we are in; v1 as it is mounted on older systems. */
static void test_real_v1(void) {
    char dir[128];
    char path[192];
    snprintf(dir, sizeof dir, "/sys/fs/cgroup/memory/dair-test-%d", (int)getpid());
    if (mkdir(dir, 0755) != 0) {
        tap_skip("a real group: %s: %s", dir, strerror(errno));
        return;
    }
    snprintf(path, sizeof path, "%s/memory.limit_in_bytes", dir);
    int status = -1;
    if (write_text(path, "268435456\n")) {
        snprintf(path, sizeof path, "%s/cgroup.procs", dir);
        fflush(stdout);
        pid_t pid = fork();
        if (pid == 0) _exit(look_inside(path));
        if (pid > 0) waitpid(pid, &status, 0);
        tap_ok(status == 0, "a real group of 256 MiB is seen (%d)", status >> 8);
    } else {
        tap_skip("a real group: %s takes no limit", dir);
    }
    for (int i = 0; i < 100 && rmdir(dir) != 0 && errno == EBUSY; i++) usleep(10000);
}

static void test_temperature(void) {
    new_root();
    tap_ok(isnan(facts_temperature(root)), "no thermal zone: no temperature");
    put("/sys/class/thermal/thermal_zone0/temp", "-274000\n");
    put("/sys/class/thermal/thermal_zone1/temp", "0\n");
    put("/sys/class/thermal/thermal_zone4/temp", "4000000000\n");
    tap_ok(isnan(facts_temperature(root)), "nor where all say nonsense");
    put("/sys/class/thermal/thermal_zone2/temp", "45375\n");
    put("/sys/class/thermal/thermal_zone5/temp", "61425\n");
    put("/sys/class/thermal/thermal_zone7/temp", "");
    tap_ok(fabs(facts_temperature(root) - 61.425) < 1e-9, "the hottest one counts");
}

int main(void) {
    test_v2();
    test_v1();
    test_cores();
    test_order();
    test_cache();
    test_temperature();
    clear_root();
    test_budget();
    test_here();
    test_real_v1();
    return tap_done();
}
