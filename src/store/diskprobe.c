/* diskprobe.c - the denominator: what threads that only read get from this disk.
 *
 * Same buffers, same call and same number of threads as the ring's readers, but nobody waits for
 * anybody, so the store can be as fast as this and not faster.
 */
#include "store/diskprobe.h"

#include "base/clock.h"
#include "store/ring.h"

#include <pthread.h>
#include <string.h>

enum { PROBE_ARENA_LEAST = 8 << 20, PROBE_STACK = 256 << 10 };

struct probe {
    const struct direct *file;
    uint64_t off, len;
    uint32_t chunk;
    uint64_t until_ns;
    _Atomic uint64_t next;   // chunks handed out
    _Atomic uint64_t bytes;  // wanted bytes that arrived
    _Atomic bool failed;
};

struct prober {
    struct probe *probe;
    uint8_t *buf;
    pthread_t thread;
    bool failed;
    struct err err;
};

static void *prober_main(void *arg) {
    struct prober *m = arg;
    struct probe *p = m->probe;
    uint64_t n_chunk = (p->len + p->chunk - 1) / p->chunk;
    while (!m->failed && !atomic_load(&p->failed) && clock_ns() < p->until_ns) {
        uint64_t at = atomic_fetch_add(&p->next, 1) % n_chunk * p->chunk;
        uint64_t len = p->len - at < p->chunk ? p->len - at : p->chunk;
        uint8_t *data;
        m->failed = !direct_read(p->file, m->buf, p->off + at, len, &data, NULL, &m->err);
        if (!m->failed) atomic_fetch_add(&p->bytes, len);
    }
    if (m->failed) atomic_store(&p->failed, true);
    return NULL;
}

static bool probe_run(struct probe *p, struct prober *m, uint32_t n_reader, double seconds,
                      struct disk_speed *out, struct err *e) {
    uint32_t n = 0;
    int fault = 0;
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    (void)pthread_attr_setstacksize(&attr, PROBE_STACK);
    uint64_t begin = clock_ns();
    p->until_ns = begin + (uint64_t)(seconds * 1e9);
    while (n < n_reader && !fault) {
        fault = pthread_create(&m[n].thread, &attr, prober_main, &m[n]);
        if (!fault) n++;
    }
    pthread_attr_destroy(&attr);
    if (fault) atomic_store(&p->failed, true);
    for (uint32_t i = 0; i < n; i++) pthread_join(m[i].thread, NULL);
    for (uint32_t i = 0; i < n; i++) {
        if (!m[i].failed) continue;
        *e = m[i].err;
        return false;
    }
    if (fault) return err_set(e, ERR_MEMORY, "reader threads: %s", strerror(fault));
    out->bytes = atomic_load(&p->bytes);
    out->seconds = (double)(clock_ns() - begin) * 1e-9;
    out->bytes_per_s = (double)out->bytes / out->seconds;
    return true;
}

MUST disk_probe(const char *path, uint64_t off, uint64_t len, uint32_t chunk, uint32_t n_reader,
                double seconds, struct disk_speed *out, struct err *e) {
    struct direct d;
    struct arena a = {0};
    struct prober m[RING_READERS] = {0};
    if (n_reader < 1 || n_reader > RING_READERS || chunk == 0 || len == 0) {
        (void)err_set(e, ERR_USAGE, "a probe needs bytes to read and 1 to %d threads",
                      RING_READERS);
        return err_in_file(e, path);
    }
    if (!direct_open(&d, path, e)) return false;
    struct probe p = {.file = &d, .off = off, .len = len, .chunk = chunk};
    size_t room = ring_slot_bytes(&d, chunk);
    size_t need = n_reader * room < PROBE_ARENA_LEAST ? PROBE_ARENA_LEAST : n_reader * room;
    bool ok = arena_open(&a, "disk probe", need, e);
    for (uint32_t i = 0; ok && i < n_reader; i++) {
        m[i].probe = &p;
        ok = arena_array(&a, &m[i].buf, room, 1, "buffers", e);
        if (ok) memset(m[i].buf, 0, room);
    }
    ok = ok && probe_run(&p, m, n_reader, seconds, out, e);
    arena_close(&a);
    direct_close(&d);
    return ok;
}
