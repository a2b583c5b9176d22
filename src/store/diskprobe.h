/* diskprobe.h - how fast this file's disk is, by reading it as the store does. */
#ifndef STORE_DISKPROBE_H
#define STORE_DISKPROBE_H

#include "base/arena.h"
#include "store/direct.h"

struct disk_speed {
    double bytes_per_s;
    uint64_t bytes;  // read for this
    double seconds;
};

/* Read [off, off + len) of path in chunks of `chunk` bytes with n_reader threads into huge-page
 * buffers for at most `seconds`, wrapping around. Fails: ERR_IO, ERR_MEMORY. */
MUST disk_probe(const char *path, uint64_t off, uint64_t len, uint32_t chunk, uint32_t n_reader,
                double seconds, struct disk_speed *out, struct err *e);

#endif
