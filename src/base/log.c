#include "base/log.h"

#include "base/clock.h"
#include "base/text.h"

#include <pthread.h>
#include <stdarg.h>
#include <string.h>

static const uint64_t MINUTE_NS = 60000000000U;

/* The one global that is not const: the log belongs to the process, not to a module. */
static struct {
    pthread_mutex_t lock;
    enum log_level most;
    FILE *to;
    bool is_set;
    uint64_t start_ns, n;
    char ring[LOG_KEPT][LOG_LINE];
} all = {.lock = PTHREAD_MUTEX_INITIALIZER, .most = LOG_INFO};

static const char *const level_name[] = {"error", "warn", "info", "debug"};

void log_set(enum log_level most, FILE *to) {
    pthread_mutex_lock(&all.lock);
    all.most = most;
    all.to = to;
    all.is_set = true;
    if (!all.start_ns) all.start_ns = clock_ns();
    pthread_mutex_unlock(&all.lock);
}

/* The line with its head. */
static void make_line(char line[static LOG_LINE], enum log_level level, const char *module,
                      uint64_t now, const char *text) {
    snprintf(line, LOG_LINE, "%9.3f %-7s %-5s ", (double)(now - all.start_ns) * 1e-9, module,
             level_name[level]);
    size_t n = strlen(line);
    text_printable(line + n, LOG_LINE - n, text);
}

void log_both(enum log_level level, const char *module, const char *shown, const char *kept) {
    char line[LOG_LINE];
    pthread_mutex_lock(&all.lock);
    if (level <= all.most) {
        uint64_t now = clock_ns();
        if (!all.start_ns) all.start_ns = now;
        make_line(all.ring[all.n++ % LOG_KEPT], level, module, now, kept);
        make_line(line, level, module, now, shown);
        FILE *to = all.is_set ? all.to : stderr;
        if (to) {
            fprintf(to, "%s\n", line);
            fflush(to);
        }
    }
    pthread_mutex_unlock(&all.lock);
}

void log_line(enum log_level level, const char *module, const char *fmt, ...) {
    char text[LOG_LINE];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    log_both(level, module, text, text);
}

size_t log_recent(char (*line)[LOG_LINE], size_t n) {
    pthread_mutex_lock(&all.lock);
    size_t have = all.n < LOG_KEPT ? (size_t)all.n : LOG_KEPT;
    if (n > have) n = have;
    for (size_t i = 0; i < n; i++) memcpy(line[i], all.ring[(all.n - n + i) % LOG_KEPT], LOG_LINE);
    pthread_mutex_unlock(&all.lock);
    return n;
}

_Bool log_may(struct log_limit *l, unsigned *missed) {
    uint64_t now = clock_ns();
    *missed = l->missed;
    if (now < l->next_ns) {
        l->missed++;
        return false;
    }
    l->next_ns = now + MINUTE_NS;
    l->missed = 0;
    return true;
}
