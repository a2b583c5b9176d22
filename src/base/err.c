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
    memcpy(e->full, e->text, sizeof e->full);
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

static void prepend(char text[static ERR_TEXT], const char *what) {
    char inner[ERR_TEXT];
    size_t len = strlen(text), most = ERR_TEXT - 1 - 2;
    size_t room = most - WHAT_LEAST > len ? most - len : WHAT_LEAST;
    memcpy(inner, text, len + 1);
    text_shorten(text, room + 1, what, 0);
    size_t n = strlen(text);
    text[n++] = ':';
    text[n++] = ' ';
    text_shorten(text + n, ERR_TEXT - n, inner, HEAD);
}

bool err_in(struct err *e, const char *what) {
    prepend(e->text, what);
    prepend(e->full, what);
    return false;
}

bool err_in_file(struct err *e, const char *path) {
    prepend(e->text, text_name(path));
    prepend(e->full, path);
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
