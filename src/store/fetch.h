/* fetch.h - tiles on demand: asked for in lists, read at once by threads, kept in the cache.
 *
 * A list names what will be got next, in that order. All of it that is not in memory is given to the
 * readers at once, as far as there are places; the rest follows as tiles are put. A reader has a buffer
 * for the file's bytes and brings them into the owner's form straight into the tile's place. Tiles are
 * named by their number among all of the store's.
 *
 * While a reader has nothing to do for the list, it may read what was guessed to be wanted next. Half of them do
 * so at a time, and none begins another once the next list is there, so that a wrong guess delays what is wanted
 * by no more than what is under way.
 *
 * Whoever is ahead in a list waits only for tiles that are before his own to be put: so tiles must be
 * got and put in about the list's order, and no thread may wait for one while it owes an earlier one.
 */
#ifndef STORE_FETCH_H
#define STORE_FETCH_H

#include "base/bell.h"
#include "store/cache.h"
#include "store/ring.h"

struct fetch_reader {
    struct fetch *fetch;
    pthread_t thread;
    uint8_t *buf;  // of the pool
};

struct fetch {
    const struct direct *file;  // all borrowed
    const struct store_conf *conf;
    uint32_t base, n;        // number of the first tile on demand, and how many follow
    struct cache cache;      // under lock, as the list is
    uint8_t **place;         // [n_place] owned; what they point to is of the pool
    _Atomic uint8_t *ready;  // [n] owned: it is admitted, and lies in its place
    pthread_mutex_t lock;
    bool has_lock;
    uint32_t *list;  // [n] owned: the last one, and how far it is admitted
    uint32_t n_list, next;
    uint32_t *read;  // [n] owned: turn q is read[q % n], at most n are under way
    uint32_t guess[CACHE_GUESSES],
        n_guess;                      // that were not in memory, in the order given; under lock
    uint32_t next_guess, n_guessing;  // how far they are taken, and how many are being read

    struct fetch_reader reader[RING_READERS];
    uint32_t n_reader;
    size_t buf_len;  // of all readers' buffers, which lie side by side

    uint64_t issued, claimed;             // turns there are for the readers; taken; under lock
    alignas(RING_LINE) struct bell work;  // readers sleep here
    alignas(RING_LINE) struct bell news;  // users sleep here until a tile is there
    _Atomic bool stop, failed, failing;   // as in a ring
    struct err err;
    uint32_t failed_tile;
    alignas(RING_LINE) _Atomic uint64_t read_bytes, read_ns, wait_ns;
    _Atomic uint64_t hits, misses;   // of tiles as they were admitted; missed, if read for a guess
    _Atomic uint64_t guessed, used;  // read for a guess; and of these, admitted later
};

/* The last conf.n_demand tiles, with conf.cache_bytes for places and a buffer for each reader, which holds
 * `longest` bytes of any file. conf is borrowed while open. Fails: ERR_MEMORY. */
MUST fetch_open(struct fetch *f, const struct store_conf *c, const struct direct *file,
                uint32_t longest, struct err *e);
void fetch_close(struct fetch *f);

/* Where tile i lies; NULL: nowhere. Before fetch_start: where it is to be loaded to, for which the
 * readers' buffers may serve. */
uint8_t *fetch_at(const struct fetch *f, uint32_t i);
MUST fetch_start(struct fetch *f, struct err *e);
/* The first error stands; every get fails with it from now on. */
void fetch_fail(struct fetch *f, uint32_t i, const struct err *e);

/* Thread: one, and only when all of the list before is put. */
void fetch_want(struct fetch *f, const uint32_t *tile, uint32_t n);
/* What the next list may hold, likeliest first. Thread: the same, after a list. */
void fetch_guess(struct fetch *f, const uint32_t *tile, uint32_t n);
/* Whether it is in memory; where guesses are being read, the answer may be another the next time. Thread: the
 * same, when all of a list is put. */
bool fetch_has(struct fetch *f, uint32_t i);

/* Whether fetch_get() of one that was wanted would not wait. Thread: any. */
bool fetch_ready(const struct fetch *f, uint32_t i);
/* Of a tile that was wanted. Fails: the readers' error. Thread: any. */
MUST fetch_get(struct fetch *f, uint32_t i, const uint8_t **p, struct err *e);
void fetch_put(struct fetch *f, uint32_t i);

#endif
