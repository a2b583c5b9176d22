#include "model/stop.h"

#include <string.h>

MUST stop_init(struct stop *s, const struct json_chars *string, size_t n, struct err *e) {
    s->n = 0;
    s->start[0] = 0;
    for (size_t i = 0; i < n; i++) {
        size_t used = s->start[s->n], len = string[i].len;
        if (!len) continue;
        if (s->n == STOP_MAX || len > STOP_BYTES - used) {
            return err_set(e, ERR_LIMIT,
                           "stop takes at most %d strings, and %d bytes of all together", STOP_MAX,
                           STOP_BYTES);
        }
        memcpy(s->text + used, string[i].s, len);
        s->start[++s->n] = (uint16_t)(used + len);
    }
    return true;
}

enum begun { BEGUN_NO, BEGUN_PART, BEGUN_WHOLE };

/* Does text [rest] begin with a stop string, or with the part of one that there is room for? */
static enum begun begins(const struct stop *s, const char *text, size_t rest) {
    enum begun best = BEGUN_NO;
    for (unsigned i = 0; i < s->n; i++) {
        const char *want = s->text + s->start[i];
        size_t n = s->start[i + 1] - s->start[i];
        enum begun b = n <= rest ? BEGUN_WHOLE : BEGUN_PART;
        if (b > best && memcmp(text, want, n < rest ? n : rest) == 0) best = b;
    }
    return best;
}

/* What begins first decides, whole or not. */
size_t stop_scan(const struct stop *s, const char *text, size_t len, bool *is_stop) {
    for (size_t at = 0; at < len; at++) {
        enum begun b = begins(s, text + at, len - at);
        *is_stop = b == BEGUN_WHOLE;
        if (b != BEGUN_NO) return at;
    }
    *is_stop = false;
    return len;
}

size_t stop_end(const struct stop *s, const char *text, size_t len, bool *is_stop) {
    size_t at = 0;
    while (at < len && begins(s, text + at, len - at) != BEGUN_WHOLE) at++;
    *is_stop = at < len;
    return at;
}
