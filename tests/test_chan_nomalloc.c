/* A channel whose limit was set sends without allocating, and one whose buffers have grown allocates nothing, whatever the size of its frames: not here, not
 * in the library below. Linked with --wrap (see the Makefile). */
#include "duo.h"
#include "tap.h"

#include <stdatomic.h>

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);

static unsigned calls;

void *__wrap_malloc(size_t n) {
    calls++;
    return __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t size) {
    calls++;
    return __real_calloc(n, size);
}

void *__wrap_realloc(void *p, size_t n) {
    calls++;
    return __real_realloc(p, n);
}

enum { MOST = 200000 };
static uint8_t data[MOST];

static bool frame(struct duo *d, int from, size_t n) {
    const uint8_t *p;
    size_t len;
    struct iovec v[2] = {{data, n / 2}, {data + n / 2, n - n / 2}};
    return chan_send(d->c[from], v, 2, &d->e[from]) != CHAN_FAILED &&
           duo_recv(d, !from, &p, &len) == CHAN_DONE && len == n;
}

int main(void) {
    static const size_t size[] = {1, 34, 4350, 16379, 16380, 65536, MOST};
    enum { N = sizeof size / sizeof *size };
    struct err e = {0};
    struct duo d;
    if (!tap_ok(chan_init(&e), "begin %s", e.text)) return tap_done();
    unsigned before = calls;
    if (!tap_ok(duo_ready(&d, false), "open")) return tap_done();
    tap_ok(calls > before, "the counter sees %u allocations for two ends and a handshake",
           calls - before);
    chan_limit(d.c[0], MOST);
    chan_limit(d.c[1], MOST);
    before = calls;
    struct iovec v[1] = {{data, MOST}};
    for (int i = 0; i < 2; i++) {
        uint8_t to[4096];
        size_t len = 0, got, at = 0;
        tap_ok(chan_send(d.c[i], v, 1, &d.e[i]) != CHAN_FAILED, "a large frame");
        enum chan_io io = CHAN_AGAIN;
        uint64_t end = clock_ns() + 5000000000U;
        while (clock_ns() < end && (!len || at < len) && io != CHAN_FAILED) {
            size_t left = len - at;
            io = !len ? chan_frame(d.c[!i], &len, &d.e[!i])
                      : chan_take(d.c[!i], to, left < sizeof to ? left : sizeof to, &got, &d.e[!i]);
            at += len && left ? got : 0;
            if (io == CHAN_AGAIN) io = chan_flush(d.c[i], &d.e[i]);
        }
        tap_ok(len == MOST && at == len, "taken in pieces: %zu bytes", at);
    }
    tap_ok(calls == before, "without any allocation: %u", calls - before);
    before = calls;
    bool ok = frame(&d, 0, MOST) && frame(&d, 1, MOST);
    tap_ok(ok, "that of whole frames grows with the first large one: %u allocations",
           calls - before);
    before = calls;
    for (size_t i = 0; i < 100 * N; i++) ok = ok && frame(&d, i & 1, size[i % N]);
    tap_ok(ok && calls == before, "%u frames after it: %u allocations", 100U * N, calls - before);
    duo_close(&d);
    return tap_done();
}
