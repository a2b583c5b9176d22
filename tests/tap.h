/* tap.h - what a test prints: one line a check, in the Test Anything Protocol, for `prove`.
 *
 * A test is a program: main() calls tap_ok() for each thing it checks and ends with
 * `return tap_done();`. A failed check does not end the test. Thread: main only.
 */
#ifndef TESTS_TAP_H
#define TESTS_TAP_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>

/* The program's own counts; a test is one translation unit. */
static struct {
    int n;
    int failed;
} tap;

/* "ok N - what" or "not ok N - what"; returns cond, so that a test can stop what depends on it. */
__attribute__((format(printf, 2, 3))) static inline bool tap_ok(bool cond, const char *fmt, ...) {
    va_list ap;
    printf("%sok %d - ", cond ? "" : "not ", ++tap.n);
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    putchar('\n');
    fflush(stdout);
    if (!cond) tap.failed++;
    return cond;
}

/* Counts as passed; the text says what is missing. */
__attribute__((format(printf, 1, 2))) static inline void tap_skip(const char *fmt, ...) {
    va_list ap;
    printf("ok %d # SKIP ", ++tap.n);
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    putchar('\n');
    fflush(stdout);
}

/* Print the plan; the exit status for main. */
static inline int tap_done(void) {
    printf("1..%d\n", tap.n);
    return tap.failed ? 1 : 0;
}

#endif
