#include "base/cursor.h"

#include <errno.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

void cursor_mem(struct cursor *c, const void *p, size_t len) {
    *c = (struct cursor){.end = len, .fd = -1, .mem = p};
}

void cursor_file(struct cursor *c, int fd, uint64_t base, uint64_t len, uint8_t *window) {
    *c = (struct cursor){.end = len, .fd = fd, .base = base, .mem = window, .window = window};
    /* Offsets are off_t from here on: a source that would not fit has nothing to read. */
    uint64_t past;
    if (__builtin_add_overflow(base, len, &past) || past > INT64_MAX) c->failed = true;
}

enum { EIO_TRIES = 3 };

/* Move the window so that it starts at pos; false when nothing could be read. */
static bool refill(struct cursor *c) {
    uint64_t left = c->end - c->pos;
    size_t want = left < CURSOR_WINDOW ? (size_t)left : CURSOR_WINDOW;
    size_t got = 0;
    int n_try = 0;
    c->win_at = c->pos;
    c->win_len = 0;
    while (got < want) {
        ssize_t n = pread(c->fd, c->window + got, want - got, (off_t)(c->base + c->pos + got));
        if (n < 0 && errno == EINTR) continue;
        /* A cable or a bridge may fail once: the same patience as for weights. */
        if (n < 0 && errno == EIO && ++n_try < EIO_TRIES) continue;
        if (n < 0) c->sys_errno = errno;
        if (n <= 0) break;  // 0: the file shrank while we read it
        got += (size_t)n;
    }
    c->win_len = got;
    return got > 0;
}

bool cursor_bytes(struct cursor *c, void *dst, size_t n) {
    if (c->failed || n > c->end - c->pos) {
        c->failed = true;
        return false;
    }
    uint8_t *out = dst;
    if (c->fd < 0) {
        if (n) memcpy(out, c->mem + c->pos, n);
        c->pos += n;
        return true;
    }
    while (n) {
        if (c->pos < c->win_at || c->pos - c->win_at >= c->win_len) {
            if (!refill(c)) {
                c->failed = true;
                return false;
            }
        }
        size_t at = (size_t)(c->pos - c->win_at);
        size_t part = c->win_len - at < n ? c->win_len - at : n;
        memcpy(out, c->window + at, part);
        out += part;
        c->pos += part;
        n -= part;
    }
    return true;
}

/* n <= 8 bytes, little-endian; 0 on failure. */
static uint64_t take(struct cursor *c, size_t n) {
    uint8_t b[8] = {0};
    if (!cursor_bytes(c, b, n)) return 0;
    uint64_t v = 0;
    for (size_t i = 8; i-- > 0;) v = v << 8 | b[i];
    return v;
}

uint8_t cursor_u8(struct cursor *c) {
    return (uint8_t)take(c, 1);
}

uint16_t cursor_u16(struct cursor *c) {
    return (uint16_t)take(c, 2);
}

uint32_t cursor_u32(struct cursor *c) {
    return (uint32_t)take(c, 4);
}

uint64_t cursor_u64(struct cursor *c) {
    return take(c, 8);
}

float cursor_f32(struct cursor *c) {
    uint32_t bits = cursor_u32(c);
    float v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

double cursor_f64(struct cursor *c) {
    uint64_t bits = cursor_u64(c);
    double v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

bool cursor_skip(struct cursor *c, uint64_t n) {
    if (c->failed || n > c->end - c->pos) {
        c->failed = true;
        return false;
    }
    c->pos += n;
    return true;
}

bool cursor_seek(struct cursor *c, uint64_t pos) {
    if (c->failed || pos > c->end) {
        c->failed = true;
        return false;
    }
    c->pos = pos;
    return true;
}

bool cursor_err(const struct cursor *c, const char *what, struct err *e) {
    if (c->sys_errno) {
        errno = c->sys_errno;
        return err_sys(e, "%s: cannot read at byte %llu", what, (unsigned long long)c->pos);
    }
    return err_set(e, ERR_FORMAT, "%s: goes past the end of the file, which has %llu bytes", what,
                   (unsigned long long)c->end);
}
