#include "base/err.h"

#include "base/text.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum {
    LONGEST = 4096 + 2 * ERR_TEXT,  // of a sentence with a path in it
    HEAD = 120,                     // bytes kept of the beginning of one that is too long
    WHAT_LEAST = 160,               // and of the end of what it is prepended with
};

/* fmt, and ": why" unless that is NULL. */
__attribute__((format(printf, 3, 0))) static void put(struct err *e, const char *why,
                                                      const char *fmt, va_list ap) {
    char all[LONGEST];
    size_t n_why = why ? strlen(why) + 2 : 0;
    vsnprintf(all, sizeof all - n_why, fmt, ap);
    if (why) snprintf(all + strlen(all), n_why + 1, ": %s", why);
    text_shorten(e->text, sizeof e->text, all, HEAD);
}

bool err_set(struct err *e, enum err_code code, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    e->code = code;
    put(e, NULL, fmt, ap);
    va_end(ap);
    return false;
}

bool err_sys(struct err *e, const char *fmt, ...) {
    const char *why = strerror(errno);
    va_list ap;
    va_start(ap, fmt);
    e->code = ERR_IO;
    put(e, why, fmt, ap);
    va_end(ap);
    return false;
}

bool err_in(struct err *e, const char *what) {
    char inner[sizeof e->text];
    size_t len = strlen(e->text), most = sizeof e->text - 1 - 2;
    size_t room = most - WHAT_LEAST > len ? most - len : WHAT_LEAST;
    memcpy(inner, e->text, len + 1);
    text_shorten(e->text, room + 1, what, 0);
    size_t n = strlen(e->text);
    e->text[n++] = ':';
    e->text[n++] = ' ';
    text_shorten(e->text + n, sizeof e->text - n, inner, HEAD);
    return false;
}

int err_exit_status(const struct err *e) {
    switch (e->code) {
    case ERR_NONE: return 0;
    case ERR_USAGE: return 2;
    case ERR_FORMAT:
    case ERR_LIMIT: return 3;
    case ERR_UNSUPPORTED:
    case ERR_MEMORY: return 4;
    case ERR_IO:
    case ERR_STOPPED: break;
    }
    return 1;
}
