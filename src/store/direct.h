/* direct.h - reading a file past the page cache.
 *
 * O_DIRECT where the filesystem takes it, with the alignment that statx reports; otherwise pread
 * followed by POSIX_FADV_DONTNEED for what was read, so that weights never fill the page cache
 * (squashfs refuses O_DIRECT, tmpfs has no rules). Never mapped.
 */
#ifndef STORE_DIRECT_H
#define STORE_DIRECT_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

struct direct {
    const char *path;  // borrowed
    int fd;
    bool is_direct;                 // false: the fallback
    uint32_t mem_align, off_align;  // powers of two, 512 <= mem <= off; 1 each for the fallback
    uint64_t size;                  // bytes in the file at open
};

MUST direct_open(struct direct *d, const char *path, struct err *e);
void direct_close(struct direct *d);

/* Room that direct_read needs for len bytes at any offset. */
size_t direct_room(const struct direct *d, size_t len);

/* Read bytes [off, off + len) into buf, which has direct_room(len) bytes and is aligned to
 * mem_align; *at gets where the first wanted byte lies in buf. Short reads and EINTR are continued;
 * EIO is tried three times in all. *n_read (may be NULL) grows by the bytes that the disk gave.
 * Fails: ERR_IO naming file and offset; ERR_FORMAT when the file ends before off + len ("was it cut
 * while in use?"). Thread: any; buf is the caller's. */
MUST direct_read(const struct direct *d, void *buf, uint64_t off, size_t len, uint8_t **at,
                 uint64_t *n_read, struct err *e);

#endif
