#include "base/progress.h"

#include "base/clock.h"
#include "base/text.h"

#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static const double PATIENCE_S = 2, REDRAW_S = 0.1, LINE_S = 5;
static const double SURE_PART = 0.03, SURE_S = 10;  // the time left is told after either

static bool is_drawable(FILE *f) {
    const char *term = getenv("TERM");
    return isatty(fileno(f)) && !(term && strcmp(term, "dumb") == 0);
}

static unsigned columns(FILE *f) {
    struct winsize w;
    if (ioctl(fileno(f), TIOCGWINSZ, &w) == 0 && w.ws_col >= 20) return w.ws_col;
    return 80;
}

void progress_start(struct progress *p, const char *what, enum progress_unit unit, FILE *to) {
    *p = (struct progress){.what = what, .unit = unit, .to = to, .width = 80};
    if (to) {
        p->is_terminal = is_drawable(to);
        p->width = columns(to);
    }
    p->start_ns = p->last_ns = clock_ns();
}

bool progress_is_due(const struct progress *p, double since_start, double since_last) {
    if (!p->to || since_start < PATIENCE_S) return false;
    return !p->is_shown || since_last >= (p->is_terminal ? REDRAW_S : LINE_S);
}

static const char *amount_text(const struct progress *p, uint64_t n, char out[static TEXT_MAX]) {
    if (p->unit == PROGRESS_BYTES) return text_bytes(out, n);
    snprintf(out, TEXT_MAX, "%llu", (unsigned long long)n);
    return out;
}

size_t progress_line(const struct progress *p, double seconds, char *out, size_t cap) {
    double rate = seconds > 0 ? (double)p->done / seconds : 0;
    double part = p->total ? (double)p->done / (double)p->total : 0;
    if (part > 1) part = 1;
    char rate_text[TEXT_MAX], tail[160], left[TEXT_MAX + 8] = "";
    if (p->unit == PROGRESS_BYTES) {
        text_rate(rate_text, rate);
    } else {
        snprintf(rate_text, sizeof rate_text, "%.1f tokens/s", rate);
    }
    bool is_sure = part >= SURE_PART || seconds >= SURE_S;
    if (rate > 0 && p->done < p->total && is_sure) {
        snprintf(left, sizeof left, ", %s left", TIME_TEXT((double)(p->total - p->done) / rate));
    }
    int n = snprintf(tail, sizeof tail, " %3.0f %%  %s of %s, %s%s", part * 100,
                     amount_text(p, p->done, (char[TEXT_MAX]){0}),
                     amount_text(p, p->total, (char[TEXT_MAX]){0}), rate_text, left);
    size_t used = strlen(p->what) + 3 + (size_t)n;  // what, blank, brackets, tail
    char bar[40 + 3] = "";
    if (used + 5 < p->width) {
        size_t room = p->width - used - 1;  // the last column stays free: some terminals wrap there
        text_bar(bar, room < 40 ? room : 40, 1, &(struct bar_part){part, '#'}, 1);
    }
    int len = snprintf(out, cap, "%s %s%s", p->what, bar, tail);
    size_t got = len < 0 ? 0 : (size_t)len < cap ? (size_t)len : cap - 1;
    if (got >= p->width) {
        got = p->width - 1;
        out[got] = '\0';
    }
    return got;
}

void progress_update(struct progress *p, uint64_t done, uint64_t total) {
    uint64_t now = clock_ns();
    p->done = done;
    p->total = total;
    double since_start = (double)(now - p->start_ns) * 1e-9;
    if (!progress_is_due(p, since_start, (double)(now - p->last_ns) * 1e-9)) return;
    char line[256];
    progress_line(p, since_start, line, sizeof line);
    fprintf(p->to, p->is_terminal ? "\r%s\033[K" : "%s\n", line);
    fflush(p->to);
    p->is_shown = true;
    p->last_ns = now;
}

void progress_end(struct progress *p) {
    if (p->is_shown && p->is_terminal) {
        fputs("\r\033[K", p->to);
        fflush(p->to);
    }
    p->is_shown = false;
    p->to = NULL;
}

double progress_seconds(const struct progress *p) {
    return (double)(clock_ns() - p->start_ns) * 1e-9;
}
