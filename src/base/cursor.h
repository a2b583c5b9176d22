/* cursor.h - bounds-checked reading of bytes that others wrote: files and, later, packets.
 *
 * A cursor walks a byte source that is either a block of memory or a file read by pread in small
 * windows (never mapped). Every read checks what remains first. The first failure sticks: later
 * reads return zero and leave the cursor failed, so a parser may read a few fields and test once.
 * Little-endian, as GGUF is. Source: none but C; formats live with their readers.
 */
#ifndef BASE_CURSOR_H
#define BASE_CURSOR_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

enum { CURSOR_WINDOW = 64 << 10 };

struct cursor {
    uint64_t pos;        // bytes consumed, relative to the start of the source
    uint64_t end;        // length of the source
    bool failed;         // a read asked for more than remained, or the disk failed
    int fd;              // -1: memory
    uint64_t base;       // fd: offset of the source in the file
    const uint8_t *mem;  // memory source, or the window [CURSOR_WINDOW], borrowed
    uint8_t *window;     // fd: the caller's window buffer
    uint64_t win_at;     // fd: source position of the window's first byte
    size_t win_len;      // fd: valid bytes in the window
    int sys_errno;       // fd: errno of the read that failed, 0 when it was the end of the source
};

/* Over len bytes at p, borrowed. */
void cursor_mem(struct cursor *c, const void *p, size_t len);

/* Over file bytes [base, base + len); window is CURSOR_WINDOW bytes, borrowed. */
void cursor_file(struct cursor *c, int fd, uint64_t base, uint64_t len, uint8_t *window);

static inline uint64_t cursor_left(const struct cursor *c) {
    return c->failed ? 0 : c->end - c->pos;
}

uint8_t cursor_u8(struct cursor *c);
uint16_t cursor_u16(struct cursor *c);
uint32_t cursor_u32(struct cursor *c);
uint64_t cursor_u64(struct cursor *c);
float cursor_f32(struct cursor *c);
double cursor_f64(struct cursor *c);

/* Copy n bytes to dst; false (and failed) when fewer remain. */
bool cursor_bytes(struct cursor *c, void *dst, size_t n);
bool cursor_skip(struct cursor *c, uint64_t n);
bool cursor_seek(struct cursor *c, uint64_t pos);

/* The sentence for a failed cursor: "what: ends at byte N" or the disk's error. Returns false. */
bool cursor_err(const struct cursor *c, const char *what, struct err *e);

#endif
