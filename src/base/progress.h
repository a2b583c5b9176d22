/* progress.h - how far a long piece of work has come, for a person who waits.
 *
 * Nothing is shown for work that ends within two seconds. On a terminal one line is drawn in place;
 * elsewhere (a log, a serial console's capture) a line is written every few seconds at most.
 */
#ifndef BASE_PROGRESS_H
#define BASE_PROGRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum progress_unit { PROGRESS_BYTES, PROGRESS_TOKENS };

struct progress {
    const char *what;  // "loading", borrowed
    enum progress_unit unit;
    FILE *to;  // NULL: silent
    bool is_terminal;
    bool is_shown;   // something was written
    unsigned width;  // columns of the terminal
    uint64_t start_ns, last_ns;
    uint64_t done, total;
};

/* The clock starts now. */
void progress_start(struct progress *p, const char *what, enum progress_unit unit, FILE *to);
/* Called as often as one likes, from one thread. */
void progress_update(struct progress *p, uint64_t done, uint64_t total);
/* Takes the bar off the terminal. Safe to call twice. */
void progress_end(struct progress *p);
double progress_seconds(const struct progress *p);

/* The line itself, without its end: what, bar, percent, amount, rate, and the time left unless it is too early
 * to say; at most width columns, the bar shrinks first. Pure. out [cap]; returns its length. */
size_t progress_line(const struct progress *p, double seconds, char *out, size_t cap);

/* What progress_update would do `since_start` seconds after the start and `since_last` after the last
 * line: nothing, or draw. Pure. */
bool progress_is_due(const struct progress *p, double since_start, double since_last);

#endif
