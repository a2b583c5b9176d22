/* Bounds, stickiness of failure, windows: the same bytes from memory and from a file. */
#include "base/cursor.h"
#include "tap.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { LEN = 3 * CURSOR_WINDOW + 17, PREFIX = 1000 };

static uint8_t bytes[LEN];
static uint8_t window[CURSOR_WINDOW];

static int file_of_bytes(void) {
    static const uint8_t prefix[PREFIX];
    int fd = memfd_create("cursor", MFD_CLOEXEC);
    if (write(fd, prefix, PREFIX) != PREFIX || write(fd, bytes, LEN) != LEN) exit(1);
    return fd;
}

static void check_integers(void) {
    static const uint8_t b[] = {0xff, 1, 2, 3, 4, 5, 6, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0x80, 0xbf};
    struct cursor c;
    cursor_mem(&c, b, sizeof b);
    tap_ok(cursor_u8(&c) == 0xff, "u8");
    tap_ok(cursor_u16(&c) == 0x0201, "u16 is little-endian");
    tap_ok(cursor_u32(&c) == 0x06050403, "u32");
    tap_ok(cursor_u64(&c) == 0x0807060504030201, "u64");
    tap_ok(cursor_f32(&c) == -1.0F && cursor_left(&c) == 0 && !c.failed,
           "f32, up to the last byte");
    tap_ok(cursor_u8(&c) == 0 && c.failed, "a byte past the end is 0 and fails");
    cursor_mem(&c, b, 3);
    tap_ok(cursor_u32(&c) == 0 && c.failed && cursor_u8(&c) == 0, "a failure sticks");
    tap_ok(!cursor_seek(&c, 0) && !cursor_skip(&c, 0) && cursor_left(&c) == 0,
           "nothing works after it");
    cursor_mem(&c, b, 3);
    tap_ok(!cursor_skip(&c, UINT64_MAX) && c.pos == 0, "a skip that would wrap fails");
    cursor_mem(&c, b, 3);
    tap_ok(cursor_seek(&c, 3) && !cursor_seek(&c, 4), "seek to the end, not past it");
    cursor_mem(&c, NULL, 0);
    tap_ok(cursor_bytes(&c, NULL, 0) && !c.failed, "nothing from nothing");
}

static void check_file(int fd) {
    struct cursor c;
    static uint8_t got[LEN];
    cursor_file(&c, fd, PREFIX, LEN, window);
    tap_ok(cursor_bytes(&c, got, LEN) && !memcmp(got, bytes, LEN), "a file across windows");
    tap_ok(cursor_u8(&c) == 0 && c.failed && c.sys_errno == 0, "ends where it should");
    cursor_file(&c, fd, PREFIX, LEN, window);
    bool same = true;
    uint64_t x = 1;
    for (int i = 0; i < 20000; i++) {
        x = x * 6364136223846793005U + 1442695040888963407U;
        uint64_t at = (x >> 20) % (LEN - 8);
        uint64_t want = 0;
        for (int k = 7; k >= 0; k--) want = want << 8 | bytes[at + (uint64_t)k];
        same = same && cursor_seek(&c, at) && cursor_u64(&c) == want;
    }
    tap_ok(same, "20000 random seeks read what is there");
    cursor_file(&c, fd, PREFIX, LEN + 1, window);
    struct err e;
    tap_ok(!cursor_bytes(&c, got, 1) || cursor_seek(&c, LEN), "seek to a byte that the file lacks");
    tap_ok(cursor_u8(&c) == 0 && c.failed && !cursor_err(&c, "x", &e) && e.code == ERR_FORMAT,
           "a file that shrank fails as a format error: %s", e.text);
    cursor_file(&c, -1, 0, 10, window);
    c.fd = 1000;  // not open
    tap_ok(cursor_u8(&c) == 0 && c.failed && !cursor_err(&c, "x", &e) && e.code == ERR_IO,
           "the disk's error is told: %s", e.text);
    cursor_file(&c, fd, UINT64_MAX - 4, 10, window);
    tap_ok(c.failed, "a source past the largest offset has failed from the start");
}

int main(void) {
    for (size_t i = 0; i < LEN; i++) bytes[i] = (uint8_t)(i * 2654435761U >> 13);
    check_integers();
    int fd = file_of_bytes();
    check_file(fd);
    close(fd);
    return tap_done();
}
