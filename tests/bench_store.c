/* bench_store.c - does the disk ever wait? A sweep's time against max(reading, computing) alone.
 *
 *   bench_store FILE [make=MIB] [tile=BYTES] [slots=N] [readers=N] [threads=N] [pin=MIB] [passes=N]
 *               [seconds=S] [raw=S]
 *
 * FILE is read as one sweep of tiles; make= writes it first (random bytes). Without arguments a
 * file of 512 MiB is made here and removed. Computing is `passes` sums over every 256 KiB unit,
 * dealt out by a counter. The same run measures the raw rate (as many readers, the same buffers,
 * before and after) and computing alone, so that a disk that drifts is seen.
 * Say raw=5 seconds=5 or more for a throttled disk: the first part of a throttle is a burst.
 *
 * A slower disk, with cgroup v1, as root (8:0 is the disk's MAJOR:MINOR, see lsblk):
 *   g=/sys/fs/cgroup/blkio/bench; mkdir $g
 *   echo "8:0 1000000000" > $g/blkio.throttle.read_bps_device
 *   (echo $$ > $g/cgroup.procs; exec bench_store FILE passes=4 raw=5 seconds=10); rmdir $g
 * and with cgroup v2: echo "8:0 rbps=1000000000" > $g/io.max.
 */
#include "base/clock.h"
#include "base/par.h"
#include "store/diskprobe.h"
#include "store/store.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum { UNIT = 256 << 10, ALONE_BYTES = 64 << 20 };

struct bench {
    const char *path;
    uint64_t make, tile_len, slots, readers, threads, pin, passes, seconds, raw;
    struct tile *tile;
    uint32_t n_tile, units_per_tile;
    uint64_t bytes;
    struct store *store;
    uint8_t *alone;  // computing alone: [ALONE_BYTES]
    _Atomic uint32_t next;
    _Atomic uint32_t *done;  // [n_tile]
    _Atomic uint64_t sum;
    _Atomic bool failed;
    double sweep_s, alone_s;
    uint32_t n_sweep;
    struct err err;
};

static uint64_t compute(const uint8_t *p, size_t n, uint64_t passes) {
    uint64_t sum[4] = {0};
    for (uint64_t pass = 0; pass < passes; pass++) {
        for (size_t i = 0; i + 32 <= n; i += 32) {
            for (size_t k = 0; k < 4; k++) {
                uint64_t v;
                memcpy(&v, p + i + 8 * k, 8);
                sum[k] += v ^ pass;
            }
        }
    }
    return sum[0] ^ sum[1] ^ sum[2] ^ sum[3];
}

static void sweep_work(void *ctx, int thread, int n_thread) {
    struct bench *b = ctx;
    uint64_t sum = 0;
    (void)n_thread;
    for (;;) {
        uint32_t u = atomic_fetch_add(&b->next, 1);
        uint32_t i = u / b->units_per_tile;
        if (i >= b->n_tile) break;
        uint32_t at = u % b->units_per_tile * UNIT;
        uint32_t len = b->tile[i].len;
        struct view v = {.p = b->alone + (uint64_t)i * b->tile_len % (ALONE_BYTES - TILE_MAX)};
        struct err e;
        if (b->store && !store_get(b->store, i, &v, &e)) {
            if (thread == 0) b->err = e;
            atomic_store(&b->failed, true);
            return;
        }
        if (at < len) sum += compute(v.p + at, len - at < UNIT ? len - at : UNIT, b->passes);
        if (atomic_fetch_add(&b->done[i], 1) + 1 < b->units_per_tile) continue;
        atomic_store(&b->done[i], 0);
        if (b->store) store_put(b->store, i);
    }
    atomic_fetch_add(&b->sum, sum);
}

static double one_sweep(struct bench *b, struct par *team) {
    uint64_t begin = clock_ns();
    atomic_store(&b->next, 0);
    par_run(team, sweep_work, b);
    return (double)(clock_ns() - begin) * 1e-9;
}

static void run_alone(void *ctx, struct par *team) {
    struct bench *b = ctx;
    b->alone_s = one_sweep(b, team);
    double again = one_sweep(b, team);
    if (again < b->alone_s) b->alone_s = again;
}

static void run_sweeps(void *ctx, struct par *team) {
    struct bench *b = ctx;
    (void)one_sweep(b, team);  // the burst at the start, and the ring that was full
    double sum = 0;
    while (!atomic_load(&b->failed) && (b->n_sweep < 2 || sum < (double)b->seconds)) {
        sum += one_sweep(b, team);
        b->n_sweep++;
    }
    b->sweep_s = sum / b->n_sweep;
}

static bool keep(void *owner, uint32_t i, void *dst, const void *raw, struct err *e) {
    const struct bench *b = owner;
    (void)e;
    memcpy(dst, raw, b->tile[i].len);
    return true;
}

static bool make_file(const struct bench *b, struct err *e) {
    static uint64_t block[1 << 17];
    uint64_t v = 88172645463325252U;
    FILE *f = fopen(b->path, "wb");
    bool ok = f != NULL;
    for (uint64_t m = 0; ok && m < b->make; m++) {
        for (size_t i = 0; i < sizeof block / sizeof *block; i++) {
            v ^= v << 13, v ^= v >> 7, v ^= v << 17;
            block[i] = v;
        }
        ok = fwrite(block, sizeof block, 1, f) == 1;
    }
    if (f && fclose(f) != 0) ok = false;
    return ok || err_sys(e, "writing %s", b->path);
}

static bool cut(struct bench *b, struct err *e) {
    struct direct d;
    if (!direct_open(&d, b->path, e)) return false;
    b->bytes = d.size;
    direct_close(&d);
    if (b->tile_len < 4096 || b->tile_len > TILE_MAX || !b->bytes) {
        return err_set(e, ERR_USAGE, "tile=4096..%d, and a file with bytes in it", TILE_MAX);
    }
    b->n_tile = (uint32_t)((b->bytes + b->tile_len - 1) / b->tile_len);
    b->units_per_tile = (uint32_t)((b->tile_len + UNIT - 1) / UNIT);
    b->tile = calloc(b->n_tile, sizeof *b->tile);
    b->done = calloc(b->n_tile, sizeof *b->done);
    if (!b->tile || !b->done) return err_set(e, ERR_MEMORY, "out of memory");
    for (uint32_t i = 0; i < b->n_tile; i++) {
        uint64_t at = i * b->tile_len;
        uint64_t len = b->bytes - at < b->tile_len ? b->bytes - at : b->tile_len;
        b->tile[i] =
            (struct tile){.len = (uint32_t)len, .off = at, .mem = (len + 63) & ~(uint64_t)63};
    }
    return true;
}

/* The first part is thrown away: a throttle that rested lets a burst through. */
static bool raw_rate(const struct bench *b, struct disk_speed *sp, struct err *e) {
    return disk_probe(b->path, 0, b->bytes, (uint32_t)b->tile_len, (uint32_t)b->readers, 0.3, sp,
                      e) &&
           disk_probe(b->path, 0, b->bytes, (uint32_t)b->tile_len, (uint32_t)b->readers,
                      (double)b->raw, sp, e);
}

static void report(const struct bench *b, const struct store_stats *st, double raw) {
    double streamed = (double)st->streamed_bytes_per_sweep;
    double io = streamed / raw;
    double bound = io > b->alone_s ? io : b->alone_s;
    struct rusage ru;
    getrusage(RUSAGE_SELF, &ru);
    printf("%u tiles of %" PRIu64 " bytes, %u resident (%.0f MB), %.0f MB streamed a sweep%s\n",
           b->n_tile, b->tile_len, st->n_pinned, (double)st->pinned_bytes * 1e-6, streamed * 1e-6,
           st->is_direct ? "" : ", not O_DIRECT");
    printf("alone: reading %.3f s (raw %.3f GB/s), computing %.3f s; %u sweeps of %.3f s\n", io,
           raw * 1e-9, b->alone_s, b->n_sweep, b->sweep_s);
    printf("sweep / max(reading, computing) = %.3f; disk at %.1f %% of raw; peak rss %ld MiB\n",
           b->sweep_s / bound, 100 * streamed / b->sweep_s / raw, ru.ru_maxrss / 1024);
}

static bool measure(struct bench *b, struct err *e) {
    struct disk_speed before, after;
    struct arena pool, mem;
    struct store_stats st;
    uint32_t longest = 0;
    for (uint32_t i = 0; i < b->n_tile; i++) {
        if (b->tile[i].len > longest) longest = b->tile[i].len;
    }
    store_choose(b->tile, b->n_tile, b->pin << 20, &st, NULL);
    uint64_t ring = store_ring_bytes(longest, (uint32_t)b->slots);
    if (!arena_open(&mem, "computing alone", ALONE_BYTES, e)) return false;
    b->alone = arena_push(&mem, ALONE_BYTES, 64);
    memset(b->alone, 1, ALONE_BYTES);
    if (!arena_open(&pool, "pool", st.pinned_bytes + ring, e)) return false;
    struct store_conf c = {.file = &b->path,
                           .n_file = 1,
                           .tile = b->tile,
                           .n_tile = b->n_tile,
                           .pin_bytes = b->pin << 20,
                           .n_slot = (uint32_t)b->slots,
                           .n_reader = (uint32_t)b->readers,
                           .pool = &pool,
                           .convert = keep,
                           .owner = b};
    int n = (int)b->threads;
    struct store *store = NULL;
    bool ok = raw_rate(b, &before, e) && par_enter(n, run_alone, b, e) &&
              store_open(&store, &c, e) && store_load(store, NULL, NULL, e);
    b->store = store;
    ok = ok && par_enter(n, run_sweeps, b, e);
    if (ok && b->failed) {
        *e = b->err;
        ok = false;
    }
    if (ok) store_stats(store, &st);
    store_close(store);
    if (ok && (ok = raw_rate(b, &after, e))) {
        printf("raw before %.3f, after %.3f GB/s\n", before.bytes_per_s * 1e-9,
               after.bytes_per_s * 1e-9);
        report(b, &st, (before.bytes_per_s + after.bytes_per_s) / 2);
    }
    arena_close(&pool);
    arena_close(&mem);
    return ok;
}

static bool option(struct bench *b, const char *arg) {
    const struct {
        const char *name;
        uint64_t *value;
    } opt[] = {{"make=", &b->make},       {"tile=", &b->tile_len},   {"slots=", &b->slots},
               {"readers=", &b->readers}, {"threads=", &b->threads}, {"pin=", &b->pin},
               {"passes=", &b->passes},   {"seconds=", &b->seconds}, {"raw=", &b->raw}};
    for (size_t i = 0; i < sizeof opt / sizeof *opt; i++) {
        size_t n = strlen(opt[i].name);
        if (strncmp(arg, opt[i].name, n) != 0) continue;
        *opt[i].value = strtoull(arg + n, NULL, 10);
        return true;
    }
    return false;
}

static const char USAGE[] = "bench_store FILE [make=MIB] [tile=BYTES] [slots=N] [readers=N]\n"
                            "    [threads=N] [pin=MIB] [passes=N] [seconds=S] [raw=S]\n";

int main(int argc, char **argv) {
    static struct bench b = {.tile_len = TILE_MAX,
                             .slots = 8,
                             .readers = 2,
                             .threads = 2,
                             .passes = 1,
                             .seconds = 3,
                             .raw = 1};
    static char own[64];
    struct err e = {0};
    bool is_own = argc < 2;
    if (is_own) {
        snprintf(own, sizeof own, "bench_store.%d.tmp", (int)getpid());
        b.make = 512;
    }
    b.path = is_own ? own : argv[1];
    for (int i = 2; i < argc; i++) {
        if (option(&b, argv[i])) continue;
        fputs(USAGE, stderr);
        return 2;
    }
    bool ok = b.make == 0 || make_file(&b, &e);
    ok = ok && cut(&b, &e) && measure(&b, &e);
    if (is_own) (void)remove(own);
    if (ok) return 0;
    fprintf(stderr, "bench_store: %s\n", e.full);
    return err_exit_status(&e);
}
