#include "front/stop.h"

#include <string.h>

MUST stop_init(struct stop *s, const struct json_chars *string, size_t n, struct err *e) {
    s->n = 0;
    s->start[0] = 0;
    for (size_t i = 0; i < n; i++) {
        size_t used = s->start[s->n], len = string[i].len;
        if (!len) continue;
        if (s->n == STOP_MAX || len > STOP_BYTES - used) {
            return err_set(e, ERR_LIMIT,
                           "\"stop\" takes at most %d strings, and %d bytes of all together",
                           STOP_MAX, STOP_BYTES);
        }
        memcpy(s->text + used, string[i].s, len);
        s->start[++s->n] = (uint16_t)(used + len);
    }
    return true;
}

size_t stop_scan(const struct stop *s, const char *text, size_t len, bool *is_stop) {
    *is_stop = false;
    for (size_t at = 0; at < len; at++) {
        size_t rest = len - at;
        bool is_start = false;
        for (unsigned i = 0; i < s->n; i++) {
            const char *want = s->text + s->start[i];
            size_t n = s->start[i + 1] - s->start[i];
            if (memcmp(text + at, want, n < rest ? n : rest) != 0) continue;
            is_start = true;
            *is_stop |= n <= rest;
        }
        if (is_start) return at;  // what begins first decides, whole or not
    }
    return len;
}
