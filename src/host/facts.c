#include "host/facts.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

bool facts_read(const char *root, const char *path, char *text, size_t cap) {
    char full[PATH_MAX];
    int n = snprintf(full, sizeof full, "%s%s", root, path);
    if (n < 0 || (size_t)n >= sizeof full) return false;
    int fd = open(full, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) return false;
    size_t len = 0;
    while (len < cap - 1) {
        ssize_t got = read(fd, text + len, cap - 1 - len);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) break;
        len += (size_t)got;
    }
    close(fd);
    text[len] = 0;
    return len > 0;
}

double facts_temperature(const char *root) {
    enum { ZONES = 32, MILLI_MAX = 150000 };
    long most = 0;
    for (int i = 0; i < ZONES; i++) {
        char path[64], text[32];
        snprintf(path, sizeof path, "/sys/class/thermal/thermal_zone%d/temp", i);
        long milli = facts_read(root, path, text, sizeof text) ? strtol(text, NULL, 10) : 0;
        if (milli > most && milli < MILLI_MAX) most = milli;  // what is not wired up says nonsense
    }
    return most ? (double)most / 1000 : (double)NAN;
}

static const char *next_line(const char *p) {
    p = strchr(p, '\n');
    return p ? p + 1 : NULL;
}

bool facts_number(const char *text, const char *key, uint64_t *value) {
    size_t len = strlen(key);
    for (const char *p = text; p; p = next_line(p)) {
        if (strncmp(p, key, len) != 0 || !(p[len] == ' ' || p[len] == ':')) continue;
        p += len + 1;
        p += strspn(p, " \t");
        if (*p < '0' || *p > '9') return false;
        *value = strtoull(p, NULL, 10);
        return true;
    }
    return false;
}

void facts_cpu_list(const char *text, int most, void (*have)(void *ctx, int cpu), void *ctx) {
    while (*text >= '0' && *text <= '9') {
        char *end;
        long from = strtol(text, &end, 10);
        long to = from;
        if (*end == '-') to = strtol(end + 1, &end, 10);
        for (long cpu = from; cpu <= to && cpu < most; cpu++) have(ctx, (int)cpu);
        text = *end == ',' ? end + 1 : end;
    }
}
