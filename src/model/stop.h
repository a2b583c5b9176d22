/* stop.h - stop strings: where an answer ends, and how much of it may be shown before that is known.
 *
 * A stop string may span any number of tokens, so text that could be its beginning is held back until
 * more text decides. Plain value, no allocation.
 */
#ifndef MODEL_STOP_H
#define MODEL_STOP_H

#include "base/json.h"

enum { STOP_MAX = 16, STOP_BYTES = 1024 };  // strings; bytes of all of them

struct stop {
    uint8_t n;
    uint16_t start[STOP_MAX + 1];  // string i: text [start[i], start[i + 1])
    char text[STOP_BYTES];
};

/* Copies them; empty ones are left out. Fails: ERR_LIMIT. */
MUST stop_init(struct stop *s, const struct json_chars *string, size_t n, struct err *e);

/* How many bytes of text [len] are surely before a stop string. *is_stop: one begins there. The
 * caller keeps the rest, and brings it again with what follows. */
size_t stop_scan(const struct stop *s, const char *text, size_t len, bool *is_stop);

/* The same when no more text comes: what is only the beginning of a stop string is none. */
size_t stop_end(const struct stop *s, const char *text, size_t len, bool *is_stop);

#endif
