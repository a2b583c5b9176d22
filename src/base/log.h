/* log.h - one line for each event that a person may want to read, and a memory of the last ones.
 *
 * "   12.345 net   info  sentence": seconds since the start, module, level. Written to stderr (the
 * serial console or the journal) and kept in a ring that status shows. error: someone must act; warn:
 * something is wrong and was dealt with. Never keys, prompts or tokens. Not used by kernels, nn and
 * other code on the token path. Any thread may log; a line is written whole.
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <stddef.h>
#include <stdio.h>

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

/* Bytes of a line, NUL included: a sentence of err.h's length, what is said before it, and the line's head;
 * lines kept. */
enum { LOG_LINE = 512, LOG_KEPT = 64 };

/* What is written: up to this level (LOG_INFO unless told), to this file (stderr; NULL: nowhere). */
void log_set(enum log_level most, FILE *to);

/* Control characters in the text become '?'; what is too long is cut. */
void log_line(enum log_level level, const char *module, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* One line in two wordings, neither of them a format: `shown` is written, `kept` is what status will show to
 * anybody who asks, so it names no folders. */
void log_both(enum log_level level, const char *module, const char *shown, const char *kept);

#define log_error(module, ...) log_line(LOG_ERROR, module, __VA_ARGS__)
#define log_warn(module, ...)  log_line(LOG_WARN, module, __VA_ARGS__)
#define log_info(module, ...)  log_line(LOG_INFO, module, __VA_ARGS__)
#define log_debug(module, ...) log_line(LOG_DEBUG, module, __VA_ARGS__)

/* The last lines that were written, oldest first: copies at most n, returns how many. */
size_t log_recent(char (*line)[LOG_LINE], size_t n);

/* Events that strangers can cause are logged once per kind and minute, with how many there were:
 * true when this one may be logged; *missed: how many were not since the last. */
struct log_limit {
    unsigned long long next_ns;
    unsigned missed;
};
_Bool log_may(struct log_limit *l, unsigned *missed);

#endif
