#include "base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

bool err_set(struct err *e, enum err_code code, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    e->code = code;
    vsnprintf(e->text, sizeof e->text, fmt, ap);
    va_end(ap);
    return false;
}

bool err_sys(struct err *e, const char *fmt, ...) {
    int saved = errno;
    va_list ap;
    va_start(ap, fmt);
    e->code = ERR_IO;
    int n = vsnprintf(e->text, sizeof e->text, fmt, ap);
    va_end(ap);
    if (n >= 0 && (size_t)n < sizeof e->text) {
        snprintf(e->text + n, sizeof e->text - (size_t)n, ": %s", strerror(saved));
    }
    return false;
}

bool err_in(struct err *e, const char *what) {
    char inner[sizeof e->text];
    memcpy(inner, e->text, sizeof inner);
    int n = snprintf(e->text, sizeof e->text, "%.120s: ", what);
    snprintf(e->text + n, sizeof e->text - (size_t)n, "%.*s", (int)sizeof e->text - n - 1, inner);
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
