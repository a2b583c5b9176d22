/* ring.h - a fixed sequence of tiles, read ahead by threads through a ring of buffers.
 *
 * Turn q (0, 1, ...) is tile order[q % n_order], and its buffer is slot q % n_slot. A reader claims
 * the next turn, waits until the slot's former tile is put, reads, publishes. Tiles may be put in
 * any order; "up to which turn all are put" is what readers wait for. From some turn on the sequence
 * may be another: see ring_switch().
 */
#ifndef STORE_RING_H
#define STORE_RING_H

#include "base/bell.h"
#include "store/store.h"

#include <pthread.h>
#include <stdalign.h>

enum { RING_READERS = 8, RING_LINE = 64 };

struct ring_slot {
    alignas(RING_LINE) _Atomic uint32_t ready;  // low half of (turn + 1) of what lies here
    _Atomic uint32_t done;                      // the same of what was put last
    uint8_t *at;                                // the tile, inside buf
    uint8_t *buf;                               // borrowed from an arena
};

struct ring {
    const struct direct *file;  // all borrowed
    const struct tile *tile;
    const uint32_t *order;   // [n_order] indices of tiles
    struct ring_slot *slot;  // [n_slot] owned
    uint32_t n_order, n_slot, n_reader;
    uint64_t end;  // turns in all
    /* From turn `then` on (UINT64_MAX: never) it is then_order[(q - then) % n_then]; of none of them
     * there are no more turns. */
    _Atomic uint64_t then;
    const uint32_t *then_order;
    uint32_t n_then;
    pthread_t reader[RING_READERS];

    alignas(RING_LINE) _Atomic uint64_t claimed;
    alignas(RING_LINE) _Atomic uint64_t n_put;  // all turns below are put
    struct bell room;                           // readers sleep here until a slot is free
    alignas(RING_LINE) struct bell news;        // users sleep here until a tile is there
    _Atomic bool stop;
    _Atomic bool failed;   // err is complete and final
    _Atomic bool failing;  // someone is writing err
    struct err err;
    uint32_t failed_tile;  // whose read that was; valid with err
    alignas(RING_LINE) _Atomic uint64_t read_bytes, read_ns, wait_ns;
};

/* Bytes from one slot to the next when the longest tile has len bytes. */
size_t ring_slot_bytes(const struct direct *d, uint32_t len);
/* How a ring of len bytes is to be aligned: to a huge page once it fills one. */
size_t ring_align(uint64_t len);

/* Take n_slot buffers from the arena, touching them, for tiles of up to `longest` bytes of any of
 * the files [n_file]. Fails: ERR_MEMORY. */
MUST ring_open(struct ring *r, const struct direct *file, uint32_t n_file, const struct tile *tile,
               uint32_t n_slot, uint32_t longest, struct arena *a, struct err *e);
void ring_close(struct ring *r);

/* A reader's thread: little stack, no signals. 0, or what pthread_create says. */
int ring_thread(pthread_t *thread, void *(*body)(void *), void *arg);

/* Read turns [0, end) of order [n_order > 0] with n_reader threads. Fails: ERR_MEMORY. */
MUST ring_start(struct ring *r, const uint32_t *order, uint32_t n_order, uint64_t end,
                uint32_t n_reader, struct err *e);
/* From turn `at` on go through order [n_order] instead, or end. Once for each start; turns below at
 * are as before, and at is n_slot turns or more beyond those that are put. Nothing is got or put
 * meanwhile. */
void ring_switch(struct ring *r, const uint32_t *order, uint32_t n_order, uint64_t at);
/* The first turn that is not put of what has this place in the sequence, and place_then in the one
 * after the switch. Its turn of this sweep, if that is not put. */
uint64_t ring_turn(const struct ring *r, uint32_t place, uint32_t place_then);
/* The first error stands; every get fails with it from now on. */
void ring_fail(struct ring *r, uint32_t tile, const struct err *e);
/* Ends the readers wherever they are, a pread under way excepted. May be called again. */
void ring_stop(struct ring *r);

/* Wait for turn q and see its bytes. Fails: the reader's error. Thread: any. */
MUST ring_get(struct ring *r, uint64_t q, const uint8_t **p, struct err *e);
/* Whether ring_get(q) would have to wait now. */
bool ring_waits(const struct ring *r, uint64_t q);
/* Turn q is done with, and was not put before. Thread: any. */
void ring_put(struct ring *r, uint64_t q);

static inline uint64_t ring_n_put(const struct ring *r) {
    return atomic_load_explicit(&r->n_put, memory_order_acquire);
}

#endif
