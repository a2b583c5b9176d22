#include "store/direct.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
    ALIGN_LEAST = 512,      // smaller is legal on some disks and helps nobody
    ALIGN_USUAL = 4096,     // where the kernel does not say (before 6.1, or tmpfs)
    ALIGN_MOST = 64 << 10,  // above this a tile's margins cost more than the page cache does
    READ_MOST = 1 << 30,    // pread's own limit is a page less than 2 GiB
    EIO_TRIES = 3,
    EINTR_TRIES = 1000,
    STUCK_TRIES = 3,
};

/* statx(2) as the kernel writes it, up to the two fields we want: older C libraries lack them. */
enum { WANT_DIOALIGN = 0x2000 };
struct kernel_statx {
    uint32_t mask;
    uint32_t other[37];
    uint32_t dio_mem_align;
    uint32_t dio_offset_align;
    uint64_t more[12];
};
_Static_assert(offsetof(struct kernel_statx, dio_mem_align) == 0x98, "statx is kernel ABI");
_Static_assert(sizeof(struct kernel_statx) == 256, "statx is kernel ABI");

static bool is_power_of_2(uint32_t v) {
    return v && (v & (v - 1)) == 0;
}

/* What O_DIRECT asks of this file; false: it will not have it. */
static bool ask_align(struct direct *d) {
    struct kernel_statx sx = {0};
    d->mem_align = d->off_align = ALIGN_USUAL;
    long r = syscall(SYS_statx, d->fd, "", AT_EMPTY_PATH, WANT_DIOALIGN, &sx);
    if (r != 0 || !(sx.mask & WANT_DIOALIGN)) return true;
    if (!is_power_of_2(sx.dio_mem_align) || !is_power_of_2(sx.dio_offset_align)) return false;
    if (sx.dio_mem_align > ALIGN_MOST || sx.dio_offset_align > ALIGN_MOST) return false;
    d->mem_align = sx.dio_mem_align < ALIGN_LEAST ? ALIGN_LEAST : sx.dio_mem_align;
    d->off_align = sx.dio_offset_align < d->mem_align ? d->mem_align : sx.dio_offset_align;
    return true;  // off_align is a multiple of mem_align, so that a read can be resumed in place
}

/* Some filesystems take the flag and refuse the first read. Other faults show in the real reads. */
static bool first_read_refused(const struct direct *d) {
    void *block = aligned_alloc(ALIGN_MOST, ALIGN_MOST);
    if (!block) return false;
    bool refused = pread(d->fd, block, d->off_align, 0) < 0 && errno == EINVAL;
    free(block);
    return refused;
}

static bool open_plain(struct direct *d, int flags, struct err *e) {
    if (d->fd >= 0) close(d->fd);
    d->is_direct = false;
    d->mem_align = d->off_align = 1;
    d->fd = open(d->path, flags);
    return d->fd >= 0 || err_sys(e, "cannot open the file");
}

static bool measure(struct direct *d, struct err *e) {
    struct stat st;
    if (fstat(d->fd, &st) != 0) return err_sys(e, "cannot stat the file");
    if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)) {
        return err_set(e, ERR_FORMAT, "is not a file");
    }
    off_t end = st.st_size;
    if (S_ISBLK(st.st_mode)) end = lseek(d->fd, 0, SEEK_END);  // whose st_size is 0
    if (end < 0) return err_sys(e, "its length");
    d->size = (uint64_t)end;
    return true;
}

MUST direct_open(struct direct *d, const char *path, struct err *e) {
    /* Not to block on a FIFO that someone named like a model; regular files ignore it. */
    int flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
    *d = (struct direct){.path = path, .is_direct = true};
    d->fd = open(path, flags | O_DIRECT);
    if (d->fd < 0 && errno != EINVAL) {
        return err_sys(e, "cannot open the file") || err_in_file(e, path);
    }
    if (d->fd < 0 && !open_plain(d, flags, e)) return err_in_file(e, path);
    if (!measure(d, e)) goto fail;
    if (d->is_direct && (!ask_align(d) || first_read_refused(d)) && !open_plain(d, flags, e)) {
        goto fail;
    }
    return true;
fail:
    direct_close(d);
    return err_in_file(e, path);
}

void direct_close(struct direct *d) {
    if (d->path && d->fd >= 0) close(d->fd);
    *d = (struct direct){.fd = -1};
}

size_t direct_room(const struct direct *d, size_t len) {
    size_t align = d->off_align;
    return (len + 2 * align - 2) & ~(align - 1);
}

/* The page cache keeps nothing of what we read: it would push out what is worth keeping. Whole
 * pages only are dropped, so round outwards. */
static void forget(const struct direct *d, uint64_t off, size_t len) {
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    uint64_t from = off & ~(page - 1);
    uint64_t to = (off + len + page - 1) & ~(page - 1);
    (void)posix_fadvise(d->fd, (off_t)from, (off_t)(to - from), POSIX_FADV_DONTNEED);
}

/* One pread, tried again after EINTR and EIO. */
static ssize_t read_some(const struct direct *d, uint8_t *to, size_t len, uint64_t off) {
    int n_eio = 0;
    int n_eintr = 0;
    if (len > READ_MOST) len = READ_MOST;
    for (;;) {
        ssize_t n = pread(d->fd, to, len, (off_t)off);
        if (n >= 0) return n;
        if (errno == EINTR && ++n_eintr < EINTR_TRIES) continue;
        if (errno == EIO && ++n_eio < EIO_TRIES) continue;
        return -1;
    }
}

static bool ends_early(const struct direct *d, uint64_t end, struct err *e) {
    struct stat st;
    uint64_t now = fstat(d->fd, &st) == 0 && S_ISREG(st.st_mode) ? (uint64_t)st.st_size : d->size;
    if (now >= end) {
        return err_set(e, ERR_IO,
                       "the disk gives nothing before byte %" PRIu64
                       ", though the file has %" PRIu64 " bytes",
                       end, now);
    }
    return err_set(e, ERR_FORMAT,
                   "ends after %" PRIu64 " bytes, but %" PRIu64
                   " are needed (was it cut while in use?)",
                   now, end);
}

static MUST read_at(const struct direct *d, void *buf, uint64_t off, size_t len, uint8_t **at,
                    uint64_t *n_read, struct err *e) {
    uint64_t mask = d->off_align - 1;
    if (off > INT64_MAX - len - 2 * mask) {
        return err_set(e, ERR_FORMAT, "byte %" PRIu64 " is past any file", off);
    }
    uint64_t begin = off & ~mask;
    uint64_t end = (off + len + mask) & ~mask;
    uint64_t have = begin;  // file bytes [begin, have) are in buf
    int n_stuck = 0;
    /* The last block of a file may be short: what counts is what is needed, not what was asked. */
    while (have < off + len) {
        uint64_t from = have & ~mask;  // a short read may end inside a block
        ssize_t n = read_some(d, (uint8_t *)buf + (from - begin), (size_t)(end - from), from);
        if (n < 0) return err_sys(e, "reading at byte %" PRIu64, from);
        if (n_read) *n_read += (uint64_t)n;
        if (from + (uint64_t)n > have) {
            have = from + (uint64_t)n;
            n_stuck = 0;
        } else if (n == 0 || ++n_stuck == STUCK_TRIES) {
            return ends_early(d, off + len, e);
        }
    }
    if (!d->is_direct) forget(d, off, len);
    *at = (uint8_t *)buf + (off - begin);
    return true;
}

MUST direct_read(const struct direct *d, void *buf, uint64_t off, size_t len, uint8_t **at,
                 uint64_t *n_read, struct err *e) {
    return read_at(d, buf, off, len, at, n_read, e) || err_in_file(e, d->path);
}
