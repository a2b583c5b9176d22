#include "host/cgroup.h"
#include "host/facts.h"
#include "host/host.h"

enum { TEXT_MAX = 8192, BUDGET_PCT = 85 };

/* A line "Key:   123 kB" in bytes. */
static bool kib(const char *text, const char *key, uint64_t *bytes) {
    if (!facts_number(text, key, bytes) || *bytes > UINT64_MAX / 1024) return false;
    *bytes *= 1024;
    return true;
}

MUST host_mem(struct host_mem *m, struct err *e) {
    char text[TEXT_MAX];
    *m = (struct host_mem){0};
    if (!facts_read("", "/proc/meminfo", text, sizeof text) || !kib(text, "MemTotal", &m->total) ||
        !kib(text, "MemAvailable", &m->available)) {
        return err_set(e, ERR_IO, "/proc/meminfo does not say how much memory there is");
    }
    if (!facts_read("", "/proc/self/status", text, sizeof text) || !kib(text, "VmRSS", &m->rss)) {
        return err_set(e, ERR_IO, "/proc/self/status does not say how much memory is used");
    }
    if (!kib(text, "VmHWM", &m->peak_rss)) m->peak_rss = m->rss;
    struct cgroup_mem c = cgroup_memory("", m->total);
    m->cgroup_limit = c.limit;
    m->cgroup_used = c.used;
    return true;
}

uint64_t host_budget(const struct host_mem *m) {
    uint64_t room = m->available;
    if (m->cgroup_limit != UINT64_MAX) {
        uint64_t left = m->cgroup_limit > m->cgroup_used ? m->cgroup_limit - m->cgroup_used : 0;
        if (left < room) room = left;
    }
    room += m->rss;
    return room / 100 * BUDGET_PCT;
}
