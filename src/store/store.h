/* store.h - tiles from the disk to the cores: what fits stays in RAM, the rest streams by.
 *
 * The weights of one sweep (one pass over the model, every tile once, always in the same order) are
 * cut into tiles by the owner; the store has never heard of tensors. Given the bytes it may keep,
 * store_open() chooses the resident tiles spread evenly over the sweep (Bresenham by bytes: for a
 * cyclic sweep a fixed set is optimal, and spreading lets reading and computing overlap). The
 * others are read again in every sweep by reader threads that run ahead through a ring of buffers,
 * across the end of a sweep into the next: the disk never waits while a slot is free.
 *
 * Tiles that a sweep needs only some of, which it knows late (experts), are on demand: the last ones of the
 * list, no part of the sweep. store_want() names those that come next; what is not in memory is read at
 * once, into the place of another (cache.h).
 *
 * A resident tile lies in memory in the owner's own form (kernel order), made by the owner's
 * `convert` when it is loaded; a streamed one is handed out as it stands in the file.
 *
 * Threads: readers are the store's own; get and put may be called by any thread of a compute team.
 * After store_load nothing allocates but store_grow.
 */
#ifndef STORE_STORE_H
#define STORE_STORE_H

#include "base/arena.h"
#include "store/direct.h"

enum { TILE_MAX = 4 << 20, TILE_MIN = 64 << 10 };

struct tile {
    uint32_t file;  // index into store_conf.file
    uint32_t len;   // bytes in the file
    uint64_t off;
    uint64_t mem;  // bytes when resident (a multiple of 64)
};

struct store_conf {
    const char *const *file;  // [n_file] paths, borrowed
    uint32_t n_file;
    const struct tile *tile;  // [n_tile] in the order of use, borrowed while open
    uint32_t n_tile;
    uint32_t n_demand;     // so many of them, the last ones, are on demand
    uint64_t pin_bytes;    // at most this much for resident tiles
    uint64_t cache_bytes;  // and for those on demand
    double half_life;      // of a use in the cache, counted in uses
    uint32_t n_slot;       // ring buffers, >= 2 if anything streams
    uint32_t n_reader;     // reader threads, 1..8
    uint32_t n_fetch;      // and of tiles on demand, the same; each has a buffer
    struct arena *pool;    // ring, resident tiles and cache are pushed here
    /* Bring raw file bytes of tile i into the owner's form at dst [tile.mem], 64-aligned. Called during
     * store_load by its thread; of tiles on demand by readers, several at once; after store_grow by who
     * puts a tile. */
    bool (*convert)(void *owner, uint32_t i, void *dst, const void *raw, struct err *e);
    void *owner;
};

struct view {
    const uint8_t *p;
    bool resident;  // p is in the owner's form; else raw file bytes (any alignment)
};

struct store_stats {
    uint64_t pinned_bytes, streamed_bytes_per_sweep;  // of memory; of file, per sweep
    uint32_t n_pinned, n_streamed;
    uint64_t read_bytes;     // given by the disk to the readers since load
    uint64_t read_ns;        // time readers spent in reads, summed over them
    uint64_t wait_ns;        // time that getters found their tile not there, summed over threads
    uint64_t cached_bytes;   // of memory, places of tiles on demand
    uint64_t missing_bytes;  // in the files, of those that find no place at once
    uint32_t n_missing;
    uint64_t hits, misses;   // of those wanted since load: in memory, or read, be it for a guess
    uint64_t guessed, used;  // of tiles read for a guess since load: all; those wanted later
    bool is_direct;          // every file is read with O_DIRECT
};

struct store;

/* How the budget would be used for the tiles of a sweep, without opening anything: fills pinned_bytes,
 * streamed_bytes_per_sweep, n_pinned, n_streamed. resident [n_tile] (may be NULL) says which. */
void store_choose(const struct tile *tile, uint32_t n_tile, uint64_t pin_bytes,
                  struct store_stats *s, uint8_t *resident);
/* The same for those on demand: fills cached_bytes, missing_bytes, n_missing. Returns the least bytes that
 * they can do with. */
uint64_t store_choose_demand(const struct tile *tile, uint32_t n_demand, uint64_t cache_bytes,
                             struct store_stats *s);
/* As store_choose among some of the tiles only: which [n], ascending; resident [n]. */
void store_choose_among(const struct tile *tile, const uint32_t *which, uint32_t n,
                        uint64_t pin_bytes, struct store_stats *s, uint8_t *resident);
/* Bytes the ring takes for tiles of up to `longest` bytes; so much again, with a buffer for each reader, where tiles are on
 * demand. */
uint64_t store_ring_bytes(uint32_t longest, uint32_t n_slot);

/* Fails: ERR_IO, ERR_MEMORY (the pool is too small). *s is owned. */
MUST store_open(struct store **s, const struct store_conf *c, struct err *e);

/* Read the resident tiles (progress may be NULL; called with bytes done of total from this thread),
 * then start the readers. Fails: ERR_IO, ERR_FORMAT, or what convert said. */
/* False ends the load with ERR_STOPPED; the store can then only be closed. */
typedef bool store_progress(void *ctx, uint64_t done, uint64_t total);
MUST store_load(struct store *s, store_progress *progress, void *ctx, struct err *e);

/* Keep more of what streams, in at most so many bytes besides the pool: further tiles, spread as evenly.
 * Each is taken from the ring as it is put in a sweep, so that the disk reads nothing for it: in the
 * next one, or, where the ring holds more than a sweep, in the one after those that it may hold. Once,
 * after store_load, between sweeps; maps memory, and allocates nothing else. What convert then says
 * comes out of every store_get. *more_bytes: of memory, the tiles'; 0 where none fits. Fails: ERR_MEMORY, and
 * all is as before. */
MUST store_grow(struct store *s, uint64_t bytes, uint64_t *more_bytes, struct err *e);

/* Tiles on demand, in the order in which they will be got; all of the list before have been put, but for
 * tiles that were resident. No thread may wait for one while it owes the put of an earlier one. With
 * n_demand 0 there is nothing to do. Allocates nothing. Thread: one. */
void store_want(struct store *s, const uint32_t *tile, uint32_t n);
/* Tiles on demand that may be wanted next, likeliest first: what is in memory of them stays so, what is not is
 * read where the readers have nothing else to do, until the next store_want. A hint only: one that cannot be
 * read is no error. Allocates nothing. Thread: the same, after it wanted. */
void store_guess(struct store *s, const uint32_t *tile, uint32_t n);
/* Whether it is in memory. Of those on demand it may not be true for long, either way, while guesses are being
 * read. Thread: the same, before it wants. */
bool store_has(struct store *s, uint32_t i);

/* Whether it is there in the owner's form, so that store_get would not wait; of those on demand, which were
 * wanted. Any thread. */
bool store_ready(const struct store *s, uint32_t i);

/* Wait until tile i is there (spinning briefly, then asleep). All threads of a team may get the
 * same tile; it stays valid until store_put(i), called once per sweep when all are done with it, by
 * any thread. Within a sweep the order of puts is free (a slot is read anew once all before it are
 * put too); all puts of a sweep come before the first get of the next. A get may have to wait for
 * the put of the streamed tile n_slot places before: whoever owes that one may not be who waits.
 * Fails: the reader's error, which is final: every later get fails with it. */
MUST store_get(struct store *s, uint32_t i, struct view *v, struct err *e);
void store_put(struct store *s, uint32_t i);
/* Whether store_get(i) of a tile of the sweep would have to wait for the disk now. */
bool store_waits(const struct store *s, uint32_t i);
/* What a tile holds is of no use: every get fails from now on, also those that wait, as that tile is never put.
 * The first error stands. Any thread. */
void store_fail(struct store *s, uint32_t i, const struct err *e);
/* After store_get failed: the tile whose read did. Readers run ahead, so it is seldom the one asked for. */
uint32_t store_failed(const struct store *s, uint32_t asked);

/* Bytes of a file outside the sweep (an embedding row) into buf, as direct_read. */
MUST store_read(struct store *s, uint32_t file, void *buf, uint64_t off, size_t len, uint8_t **at,
                struct err *e);
size_t store_read_room(const struct store *s, size_t len);

void store_stats(const struct store *s, struct store_stats *out);
/* Stops the readers (also in the middle of a sweep) and closes the files; the pool is the caller's.
 * Nobody may be in store_get(). */
void store_close(struct store *s);

#endif
