#include "store/ring.h"

#include "base/clock.h"
#include "base/par.h"

#include <assert.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

enum {
    HUGE_PAGE = 2 << 20,
    SMALL_PAGE = 4096,
    SLOT_UNIT = 256 << 10,  // large slots begin at multiples of it: a tenth faster (measured)
    READER_STACK = 256 << 10,
};

size_t ring_slot_bytes(const struct direct *d, uint32_t len) {
    size_t align = d->mem_align > SMALL_PAGE ? d->mem_align : SMALL_PAGE;
    size_t room = direct_room(d, len);
    if (room >= HUGE_PAGE && d->off_align <= SMALL_PAGE && align < SLOT_UNIT) align = SLOT_UNIT;
    return (room + align - 1) & ~(align - 1);
}

size_t ring_align(uint64_t len) {
    return len >= HUGE_PAGE ? HUGE_PAGE : 64 << 10;
}

/* One block size for all slots: the largest that any file asks for. */
static size_t slot_bytes(const struct direct *file, uint32_t n_file, uint32_t longest) {
    size_t most = 0;
    for (uint32_t i = 0; i < n_file; i++) {
        size_t len = ring_slot_bytes(&file[i], longest);
        if (len > most) most = len;
    }
    return most;
}

MUST ring_open(struct ring *r, const struct direct *file, uint32_t n_file, const struct tile *tile,
               uint32_t n_slot, uint32_t longest, struct arena *a, struct err *e) {
    size_t room = slot_bytes(file, n_file, longest);
    size_t len = n_slot * room;
    memset(r, 0, sizeof *r);
    r->file = file;
    r->tile = tile;
    r->n_slot = n_slot;
    atomic_store(&r->then, UINT64_MAX);
    uint8_t *buf = arena_push(a, len, ring_align(len));
    if (!buf) {
        return err_set(e, ERR_MEMORY, "%s: no room for %u buffers of %zu bytes (%zu of %zu used)",
                       a->name, n_slot, room, a->used, a->cap);
    }
    r->slot = aligned_alloc(alignof(struct ring_slot), n_slot * sizeof *r->slot);
    if (!r->slot) return err_set(e, ERR_MEMORY, "the ring's table: out of memory");
    memset(r->slot, 0, n_slot * sizeof *r->slot);
    for (uint32_t i = 0; i < n_slot; i++) r->slot[i].buf = buf + i * room;
    /* Now rather than under the first reads: page faults inside pread halve the disk's speed. */
    for (size_t i = 0; i < len; i += SMALL_PAGE) ((volatile uint8_t *)buf)[i] = 0;
    return true;
}

void ring_close(struct ring *r) {
    ring_stop(r);
    free(r->slot);
    memset(r, 0, sizeof *r);
}

static bool is_over(const struct ring *r) {
    return atomic_load_explicit(&r->stop, memory_order_acquire) ||
           atomic_load_explicit(&r->failed, memory_order_acquire);
}

static void wake_all(struct ring *r) {
    bell_ring(&r->news);
    bell_ring(&r->room);
}

/* A reader gets to a turn only after those n_slot before it were put, and so after the switch, if the
 * turn lies beyond it. */
static bool is_beyond(const struct ring *r, uint64_t q) {
    return q >= atomic_load_explicit(&r->then, memory_order_acquire);
}

static uint32_t tile_of(const struct ring *r, uint64_t q) {
    return is_beyond(r, q) ? r->then_order[(q - r->then) % r->n_then] : r->order[q % r->n_order];
}

static bool has_turn(const struct ring *r, uint64_t q) {
    return !is_beyond(r, q) || r->n_then > 0;
}

void ring_fail(struct ring *r, uint32_t tile, const struct err *e) {
    if (atomic_exchange(&r->failing, true)) return;
    r->err = *e;
    r->failed_tile = tile;
    atomic_store_explicit(&r->failed, true, memory_order_release);
    wake_all(r);
}

static bool wait_for_room(struct ring *r, uint64_t q) {
    for (;;) {
        uint32_t seen = bell_seen(&r->room);
        if (is_over(r)) return false;
        if (q < ring_n_put(r) + r->n_slot) return true;
        bell_wait(&r->room, seen);
    }
}

static bool read_turn(struct ring *r, uint64_t q, struct err *e) {
    struct ring_slot *s = &r->slot[q % r->n_slot];
    const struct tile *t = &r->tile[tile_of(r, q)];
    uint64_t n_read = 0;
    uint64_t begin = clock_ns();
    bool ok = direct_read(&r->file[t->file], s->buf, t->off, t->len, &s->at, &n_read, e);
    atomic_fetch_add_explicit(&r->read_ns, clock_ns() - begin, memory_order_relaxed);
    atomic_fetch_add_explicit(&r->read_bytes, n_read, memory_order_relaxed);
    if (!ok) return false;
    atomic_store_explicit(&s->ready, (uint32_t)(q + 1), memory_order_release);
    bell_ring(&r->news);
    return true;
}

static void *reader_main(void *arg) {
    struct ring *r = arg;
    par_roam();
    for (;;) {
        uint64_t q = atomic_fetch_add_explicit(&r->claimed, 1, memory_order_relaxed);
        if (q >= r->end || !wait_for_room(r, q) || !has_turn(r, q)) return NULL;
        struct err e;
        if (!read_turn(r, q, &e)) {
            ring_fail(r, tile_of(r, q), &e);
            return NULL;
        }
    }
}

/* Readers take no signals: those are for the thread that expects them. */
int ring_thread(pthread_t *thread, void *(*body)(void *), void *arg) {
    sigset_t all, before;
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    (void)pthread_attr_setstacksize(&attr, READER_STACK);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int fault = pthread_create(thread, &attr, body, arg);
    if (!fault) (void)pthread_setname_np(*thread, "dair-disk");
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attr);
    return fault;
}

static void rewind_ring(struct ring *r) {
    for (uint32_t i = 0; i < r->n_slot; i++) {
        atomic_store(&r->slot[i].ready, 0);
        atomic_store(&r->slot[i].done, 0);
    }
    atomic_store(&r->then, UINT64_MAX);
    atomic_store(&r->claimed, 0);
    atomic_store(&r->n_put, 0);
    atomic_store(&r->stop, false);
    atomic_store(&r->read_bytes, 0);
    atomic_store(&r->read_ns, 0);
    atomic_store(&r->wait_ns, 0);
}

MUST ring_start(struct ring *r, const uint32_t *order, uint32_t n_order, uint64_t end,
                uint32_t n_reader, struct err *e) {
    assert(r->n_reader == 0 && n_order > 0 && n_reader >= 1 && n_reader <= RING_READERS);
    rewind_ring(r);
    r->order = order;
    r->n_order = n_order;
    r->end = end;
    int fault = 0;
    while (r->n_reader < n_reader && !fault) {
        fault = ring_thread(&r->reader[r->n_reader], reader_main, r);
        if (!fault) r->n_reader++;
    }
    if (!fault) return true;
    uint32_t n_got = r->n_reader;
    ring_stop(r);
    return err_set(e, ERR_MEMORY, "the system gives %u of %u reader threads: %s", n_got, n_reader,
                   strerror(fault));
}

void ring_switch(struct ring *r, const uint32_t *order, uint32_t n_order, uint64_t at) {
    assert(atomic_load(&r->then) == UINT64_MAX && at >= ring_n_put(r) + r->n_slot);
    r->then_order = order;
    r->n_then = n_order;
    atomic_store_explicit(&r->then, at, memory_order_release);
}

uint64_t ring_turn(const struct ring *r, uint32_t place, uint32_t place_then) {
    uint64_t n_put = ring_n_put(r), from = 0;
    uint32_t n = r->n_order;
    if (is_beyond(r, n_put)) from = r->then, n = r->n_then, place = place_then;
    if (!n) return n_put;  // of a tile that could not be taken: its get fails, as all do then
    uint32_t now = (uint32_t)((n_put - from) % n);
    return n_put + (place >= now ? place - now : n - now + place);
}

void ring_stop(struct ring *r) {
    atomic_store(&r->stop, true);
    wake_all(r);
    while (r->n_reader > 0) pthread_join(r->reader[--r->n_reader], NULL);
}

static bool is_ready(const struct ring_slot *s, uint64_t q) {
    return atomic_load_explicit(&s->ready, memory_order_acquire) == (uint32_t)(q + 1);
}

bool ring_waits(const struct ring *r, uint64_t q) {
    return !is_ready(&r->slot[q % r->n_slot], q) && !is_over(r);
}

static void wait_for_tile(struct ring *r, const struct ring_slot *s, uint64_t q) {
    uint64_t begin = clock_ns();
    for (unsigned turn = 0;;) {
        uint32_t seen = bell_seen(&r->news);
        if (is_ready(s, q) || is_over(r)) break;
        if (par_relax(&turn)) bell_wait(&r->news, seen);
    }
    atomic_fetch_add_explicit(&r->wait_ns, clock_ns() - begin, memory_order_relaxed);
}

MUST ring_get(struct ring *r, uint64_t q, const uint8_t **p, struct err *e) {
    const struct ring_slot *s = &r->slot[q % r->n_slot];
    if (!is_ready(s, q)) wait_for_tile(r, s, q);
    if (atomic_load_explicit(&r->failed, memory_order_acquire)) {
        *e = r->err;
        return false;
    }
    if (!is_ready(s, q)) return err_set(e, ERR_STOPPED, "the store is being closed");
    *p = s->at;
    return true;
}

/* Two threads may put neighbouring turns at once. Each sets its own mark before it looks at the
 * other's (all sequentially consistent), so at least one of them sees both and moves n_put on. */
void ring_put(struct ring *r, uint64_t q) {
    struct ring_slot *s = &r->slot[q % r->n_slot];
    assert(atomic_load(&s->done) != (uint32_t)(q + 1));
    atomic_store(&s->done, (uint32_t)(q + 1));
    uint64_t n = atomic_load(&r->n_put);
    bool moved = false;
    while (atomic_load(&r->slot[n % r->n_slot].done) == (uint32_t)(n + 1)) {
        if (!atomic_compare_exchange_strong(&r->n_put, &n, n + 1)) continue;
        moved = true;
        n++;
    }
    if (moved) bell_ring(&r->room);
}
