/* cgroup.c - where our groups are is in /proc/self/cgroup, where their files are in mountinfo.
 *
 * The path in /proc/self/cgroup counts from the hierarchy's root, the mount may show only a branch
 * of it (a container's): what the mount does not show is cut from the front, and where that fails
 * we are at the mount itself.
 */
#include "host/cgroup.h"

#include "host/facts.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TEXT_MAX = 32 << 10, LEVELS_MAX = 64 };

struct hierarchy {
    bool is_v2;
    char mount[PATH_MAX];  // where it is mounted
    char path[PATH_MAX];   // our group, from the mount: "" or "/a/b"
};

/* Is word an element of a list with this separator that ends at any other character of ends? */
static bool has_word(const char *list, const char *word, char separator, const char *ends) {
    size_t len = strlen(word);
    for (;;) {
        size_t n = strcspn(list, ends);
        const char *next = memchr(list, separator, n);
        size_t item = next ? (size_t)(next - list) : n;
        if (item == len && memcmp(list, word, len) == 0) return true;
        if (!next) return false;
        list = next + 1;
    }
}

/* A field of mountinfo, where space, tab, newline and backslash are \ooo. */
static void unescape(char *to, size_t cap, const char *from, size_t len) {
    size_t n = 0;
    for (size_t i = 0; i < len && n + 1 < cap; i++) {
        if (from[i] == '\\' && i + 3 < len) {
            to[n++] =
                (char)((from[i + 1] - '0') * 64 + (from[i + 2] - '0') * 8 + from[i + 3] - '0');
            i += 3;
        } else {
            to[n++] = from[i];
        }
    }
    to[n] = 0;
}

/* Field k (from 0) of a line, as start and length. */
static const char *field(const char *line, int k, size_t *len) {
    for (; k > 0; k--) {
        line += strcspn(line, " \n");
        if (*line == ' ') line++;
    }
    *len = strcspn(line, " \n");
    return line;
}

/* "id:controllers:path" of our line; v2 is "0::path". */
static bool find_group(const char *groups, const char *controller, bool v2, char path[PATH_MAX]) {
    for (const char *p = groups; p && *p; p = strchr(p, '\n'), p = p ? p + 1 : NULL) {
        const char *list = strchr(p, ':');
        const char *at = list ? strchr(list + 1, ':') : NULL;
        if (!at) continue;
        bool ours = v2 ? strncmp(p, "0::", 3) == 0 : has_word(list + 1, controller, ',', ":\n");
        size_t len = strcspn(at + 1, "\n");
        if (!ours || len >= PATH_MAX) continue;
        memcpy(path, at + 1, len);
        path[len] = 0;
        return true;
    }
    return false;
}

/* One line of mountinfo: "id parent dev root mountpoint options [tags] - type source options". */
static bool is_mount(const char *line, const char *controller, bool v2, struct hierarchy *h,
                     char shown[PATH_MAX]) {
    size_t n;
    const char *end = line + strcspn(line, "\n");
    const char *dash = strstr(line, " - ");
    if (!dash || dash > end) return false;
    const char *type = field(dash + 3, 0, &n);
    if (v2 ? n != 7 || memcmp(type, "cgroup2", 7) != 0 : n != 6 || memcmp(type, "cgroup", 6) != 0) {
        return false;
    }
    const char *options = field(dash + 3, 2, &n);
    if (!v2 && !has_word(options, controller, ',', " \n")) return false;
    const char *p = field(line, 3, &n);
    unescape(shown, PATH_MAX, p, n);
    p = field(line, 4, &n);
    unescape(h->mount, sizeof h->mount, p, n);
    return true;
}

static bool find_hierarchy(const char *root, const char *controller, bool v2, struct hierarchy *h) {
    static const char *const LIST = "/proc/self/mountinfo";
    char *text = malloc(TEXT_MAX);
    char shown[PATH_MAX];
    bool found = false;
    h->is_v2 = v2;
    if (text && facts_read(root, "/proc/self/cgroup", text, TEXT_MAX) &&
        find_group(text, controller, v2, h->path) && facts_read(root, LIST, text, TEXT_MAX)) {
        for (const char *p = text; p && !found; p = strchr(p, '\n'), p = p ? p + 1 : NULL) {
            found = is_mount(p, controller, v2, h, shown);
        }
    }
    free(text);
    if (!found) return false;
    size_t len = strcmp(shown, "/") == 0 ? 0 : strlen(shown);
    bool below = strncmp(h->path, shown, len) == 0 && (h->path[len] == '/' || h->path[len] == 0);
    if (!below || strstr(h->path, "/..")) {
        h->path[0] = 0;
    } else {
        memmove(h->path, h->path + len, strlen(h->path + len) + 1);
    }
    if (strcmp(h->path, "/") == 0) h->path[0] = 0;
    return true;
}

/* The file `name` of our group. */
static bool read_file(const char *root, const struct hierarchy *h, const char *name, char *text,
                      size_t cap) {
    char path[3 * PATH_MAX];
    int n = snprintf(path, sizeof path, "%s%s/%s", h->mount, h->path, name);
    return n > 0 && n < (int)sizeof path && facts_read(root, path, text, cap);
}

/* Leave the group for its parent; false at the mount. */
static bool go_up(struct hierarchy *h) {
    char *slash = strrchr(h->path, '/');
    if (!slash) return false;
    *slash = 0;
    return true;
}

/* A number alone in its file; "max" and what is no number are UINT64_MAX. */
static uint64_t read_number(const char *root, const struct hierarchy *h, const char *name) {
    char text[64];
    if (!read_file(root, h, name, text, sizeof text)) return UINT64_MAX;
    if (text[0] < '0' || text[0] > '9') return UINT64_MAX;
    return strtoull(text, NULL, 10);
}

static uint64_t least(uint64_t a, uint64_t b) {
    return a < b ? a : b;
}

static uint64_t room(const struct cgroup_mem *m) {
    if (m->limit == UINT64_MAX) return UINT64_MAX;
    return m->limit > m->used ? m->limit - m->used : 0;
}

/* One group's own limit; v2's memory.high counts too, past it the kernel makes us crawl. */
static struct cgroup_mem read_level(const char *root, const struct hierarchy *h, uint64_t total) {
    char stat[8192];
    uint64_t cached = 0;
    uint64_t above = UINT64_MAX;
    struct cgroup_mem m;
    if (!read_file(root, h, "memory.stat", stat, sizeof stat)) stat[0] = 0;
    (void)facts_number(stat, h->is_v2 ? "inactive_file" : "total_inactive_file", &cached);
    if (h->is_v2) {
        m.limit = least(read_number(root, h, "memory.max"), read_number(root, h, "memory.high"));
        m.used = read_number(root, h, "memory.current");
    } else {
        /* Ancestors that the mount does not show are in hierarchical_memory_limit. */
        (void)facts_number(stat, "hierarchical_memory_limit", &above);
        m.limit = least(read_number(root, h, "memory.limit_in_bytes"), above);
        m.used = read_number(root, h, "memory.usage_in_bytes");
    }
    if (m.limit >= total) m.limit = UINT64_MAX;
    if (m.used == UINT64_MAX) m.used = 0;
    m.used -= least(m.used, cached);
    return m;
}

struct cgroup_mem cgroup_memory(const char *root, uint64_t total) {
    struct cgroup_mem tightest = {.limit = UINT64_MAX};
    for (int v = 1; v <= 2; v++) {
        struct hierarchy h;
        if (!find_hierarchy(root, "memory", v == 2, &h)) continue;
        for (int level = 0; level < LEVELS_MAX; level++) {
            struct cgroup_mem m = read_level(root, &h, total);
            if (room(&m) < room(&tightest)) tightest = m;
            if (!go_up(&h)) break;
        }
    }
    return tightest;
}

/* v1: two files, -1 for none; v2: "max 100000" or "150000 100000". */
static double read_quota(const char *root, const struct hierarchy *h) {
    char text[64];
    char *end;
    double quota;
    double period;
    if (h->is_v2) {
        if (!read_file(root, h, "cpu.max", text, sizeof text)) return 0;
        quota = strtod(text, &end);
        period = end > text ? strtod(end, NULL) : 0;
    } else {
        if (!read_file(root, h, "cpu.cfs_quota_us", text, sizeof text)) return 0;
        quota = strtod(text, NULL);
        if (!read_file(root, h, "cpu.cfs_period_us", text, sizeof text)) return 0;
        period = strtod(text, NULL);
    }
    return quota > 0 && period > 0 ? quota / period : 0;
}

double cgroup_cpus(const char *root) {
    double fewest = 0;
    for (int v = 1; v <= 2; v++) {
        struct hierarchy h;
        if (!find_hierarchy(root, "cpu", v == 2, &h)) continue;
        for (int level = 0; level < LEVELS_MAX; level++) {
            double cpus = read_quota(root, &h);
            if (cpus > 0 && (fewest == 0 || cpus < fewest)) fewest = cpus;
            if (!go_up(&h)) break;
        }
    }
    return fewest;
}
