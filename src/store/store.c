#include "store/store.h"

#include "store/fetch.h"
#include "store/ring.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Buffers for loading when everything stays and there is no ring: enough for two readers to run
 * ahead of the conversion. Given back before the first token. */
enum { LOAD_SLOTS = 4, LOAD_ARENA_LEAST = 8 << 20, TILE_ALIGN = 64 };

/* Where a tile is found. */
struct place {
    uint8_t *mem;    // resident: its bytes; else NULL
    uint8_t *later;  // streamed until it is taken to there; else NULL
    uint32_t turn;   // streamed: its place among the streamed tiles of a sweep
    uint32_t then;   // and when others have been taken
};

struct store {
    struct store_conf conf;
    struct store_stats chosen;
    struct direct *file;   // [n_file]
    uint32_t n_open;       // files open so far
    struct place *place;   // [n_tile]
    uint32_t *order;       // [n_tile]: the streamed tiles, then those that are loaded
    const uint32_t *kept;  // [n_kept], inside order: resident ones, and what fills the cache
    uint32_t n_kept;
    uint32_t longest;  // bytes of the longest tile
    struct ring ring;
    struct fetch fetch;        // with tiles on demand
    struct arena more;         // what store_grow was given: tables, and places of tiles
    uint64_t grown_at;         // turn of the ring by which they are taken, UINT64_MAX: never
    struct store_stats grown;  // what is chosen from then on
};

static bool is_demand(const struct store *s, uint32_t i) {
    return i >= s->conf.n_tile - s->conf.n_demand;
}

static bool open_files(struct store *s, struct err *e) {
    const struct store_conf *c = &s->conf;
    s->chosen.is_direct = true;
    for (uint32_t i = 0; i < c->n_file; i++) {
        if (!direct_open(&s->file[i], c->file[i], e)) return false;
        s->n_open = i + 1;
        if (!s->file[i].is_direct) s->chosen.is_direct = false;
    }
    for (uint32_t i = 0; i < c->n_tile; i++) {
        const struct tile *t = &c->tile[i];
        assert(t->file < c->n_file && t->len > 0);
        const struct direct *d = &s->file[t->file];
        if (t->off > d->size || t->len > d->size - t->off) {
            return err_set(e, ERR_FORMAT,
                           "%s: has %" PRIu64 " bytes, but %" PRIu32 " are needed at byte %" PRIu64,
                           d->path, d->size, t->len, t->off);
        }
        if (t->len > s->longest) s->longest = t->len;
    }
    return true;
}

/* Split the tiles in two and give the resident ones their memory. */
static bool place_tiles(struct store *s, const uint8_t *resident, struct err *e) {
    const struct store_conf *c = &s->conf;
    uint32_t n_streamed = 0;
    uint32_t *kept = s->order + s->chosen.n_streamed;
    s->kept = kept;
    for (uint32_t i = 0; i < c->n_tile - c->n_demand; i++) {
        if (!resident[i]) {
            s->place[i].turn = n_streamed;
            s->order[n_streamed++] = i;
            continue;
        }
        s->place[i].mem = arena_push(c->pool, c->tile[i].mem, TILE_ALIGN);
        if (!s->place[i].mem) {
            return err_set(e, ERR_MEMORY,
                           "%s: no room for %" PRIu64
                           " bytes of resident weights (%zu of %zu used)",
                           c->pool->name, s->chosen.pinned_bytes, c->pool->used, c->pool->cap);
        }
        kept[s->n_kept++] = i;
    }
    return true;
}

static bool open_demand(struct store *s, struct err *e) {
    const struct store_conf *c = &s->conf;
    uint32_t *kept = s->order + s->chosen.n_streamed;
    if (!c->n_demand) return true;
    if (!fetch_open(&s->fetch, c, s->file, s->longest, e)) return false;
    store_choose_demand(c->tile + c->n_tile - c->n_demand, c->n_demand, c->cache_bytes, &s->chosen);
    for (uint32_t i = c->n_tile - c->n_demand; i < c->n_tile; i++) {
        if (fetch_at(&s->fetch, i)) kept[s->n_kept++] = i;
    }
    return true;
}

static bool open_tables(struct store *s, struct err *e) {
    const struct store_conf *c = &s->conf;
    s->file = calloc(c->n_file, sizeof *s->file);
    s->place = calloc(c->n_tile + 1U, sizeof *s->place);
    s->order = calloc(c->n_tile + 1U, sizeof *s->order);
    uint8_t *resident = calloc(c->n_tile + 1U, 1);
    bool ok = s->file && s->place && s->order && resident;
    if (!ok) {
        (void)err_set(e, ERR_MEMORY, "the tables of %u tiles: out of memory", c->n_tile);
    } else {
        store_choose(c->tile, c->n_tile - c->n_demand, c->pin_bytes, &s->chosen, resident);
        ok = open_files(s, e) && place_tiles(s, resident, e) && open_demand(s, e);
    }
    free(resident);
    return ok;
}

MUST store_open(struct store **out, const struct store_conf *c, struct err *e) {
    assert(c->n_file > 0);
    assert(c->n_reader >= 1 && c->n_reader <= RING_READERS);
    *out = NULL;
    struct store *s = aligned_alloc(alignof(struct store), sizeof *s);
    if (!s) return err_set(e, ERR_MEMORY, "the store's own %zu bytes: out of memory", sizeof *s);
    memset(s, 0, sizeof *s);
    s->conf = *c;
    s->grown_at = UINT64_MAX;
    if (!open_tables(s, e)) goto fail;
    if (s->chosen.n_streamed > 0) {
        assert(c->n_slot >= 2);
        if (!ring_open(&s->ring, s->file, c->n_file, c->tile, c->n_slot, s->longest, c->pool, e)) {
            goto fail;
        }
    }
    *out = s;
    return true;
fail:
    store_close(s);
    return false;
}

/* The readers fetch, this thread converts. */
static bool load_through(struct store *s, struct ring *r, store_progress *progress, void *ctx,
                         struct err *e) {
    const struct store_conf *c = &s->conf;
    uint32_t n = s->n_kept;
    uint64_t total = 0;
    uint64_t done = 0;
    for (uint32_t q = 0; q < n; q++) total += c->tile[s->kept[q]].len;
    bool ok = ring_start(r, s->kept, n, n, c->n_reader, e);
    for (uint32_t q = 0; ok && q < n; q++) {
        uint32_t i = s->kept[q];
        uint8_t *to = is_demand(s, i) ? fetch_at(&s->fetch, i) : s->place[i].mem;
        const uint8_t *raw;
        ok = ring_get(r, q, &raw, e) && c->convert(c->owner, i, to, raw, e);
        if (!ok) break;
        ring_put(r, q);
        done += c->tile[i].len;
        if (progress && !progress(ctx, done, total)) ok = err_set(e, ERR_STOPPED, "stopped");
    }
    ring_stop(r);
    return ok;
}

/* Everything stays, so there is no ring yet. */
static bool load_all(struct store *s, store_progress *progress, void *ctx, struct err *e) {
    uint64_t need = store_ring_bytes(s->longest, LOAD_SLOTS);
    for (uint32_t i = 0; i < s->conf.n_file; i++) {
        need += 2 * LOAD_SLOTS * (uint64_t)s->file[i].off_align;  // where a block is above 4096
    }
    struct arena a;
    struct ring *r = &s->ring;
    if (need < LOAD_ARENA_LEAST) need = LOAD_ARENA_LEAST;  // so that it gets huge pages
    if (!arena_open(&a, "load", need, e)) return false;
    bool ok = ring_open(r, s->file, s->conf.n_file, s->conf.tile, LOAD_SLOTS, s->longest, &a, e) &&
              load_through(s, r, progress, ctx, e);
    ring_close(r);
    arena_close(&a);
    return ok;
}

/* Nothing streams, but the cache is to be filled: its readers are not at work yet. */
static bool load_cache(struct store *s, store_progress *progress, void *ctx, struct err *e) {
    const struct store_conf *c = &s->conf;
    struct arena a = {.name = "load", .base = s->fetch.reader[0].buf, .cap = s->fetch.buf_len};
    struct ring *r = &s->ring;
    bool ok = ring_open(r, s->file, c->n_file, c->tile, c->n_fetch, s->longest, &a, e) &&
              load_through(s, r, progress, ctx, e);
    ring_close(r);
    return ok;
}

MUST store_load(struct store *s, store_progress *progress, void *ctx, struct err *e) {
    if (s->conf.n_tile == 0) return true;  // a slice without a share
    bool streams = s->chosen.n_streamed > 0;
    bool ok = streams            ? !s->n_kept || load_through(s, &s->ring, progress, ctx, e)
              : s->conf.n_demand ? load_cache(s, progress, ctx, e)
                                 : load_all(s, progress, ctx, e);
    if (!ok || (s->conf.n_demand && !fetch_start(&s->fetch, e))) return false;
    return !streams ||
           ring_start(&s->ring, s->order, s->chosen.n_streamed, UINT64_MAX, s->conf.n_reader, e);
}

void store_want(struct store *s, const uint32_t *tile, uint32_t n) {
    if (s->conf.n_demand) fetch_want(&s->fetch, tile, n);
}

void store_guess(struct store *s, const uint32_t *tile, uint32_t n) {
    if (s->conf.n_demand) fetch_guess(&s->fetch, tile, n);
}

bool store_has(struct store *s, uint32_t i) {
    return is_demand(s, i) ? fetch_has(&s->fetch, i) : s->place[i].mem != NULL;
}

/* The first turn of this streamed tile that is not put: the caller has put it in the sweep before,
 * and nobody puts it in this one while it is wanted. */
static uint64_t turn_now(const struct store *s, const struct place *at) {
    return ring_turn(&s->ring, at->turn, at->then);
}

uint32_t store_failed(const struct store *s, uint32_t asked) {
    if (atomic_load_explicit(&s->ring.failed, memory_order_acquire)) return s->ring.failed_tile;
    if (atomic_load_explicit(&s->fetch.failed, memory_order_acquire)) return s->fetch.failed_tile;
    return asked;
}

void store_fail(struct store *s, uint32_t i, const struct err *e) {
    ring_fail(&s->ring, i, e);
    if (s->conf.n_demand) fetch_fail(&s->fetch, i, e);
}

/* Of any of the readers. */
static bool has_failed(const struct store *s, struct err *e) {
    if (atomic_load_explicit(&s->ring.failed, memory_order_acquire))
        *e = s->ring.err;
    else if (atomic_load_explicit(&s->fetch.failed, memory_order_acquire))
        *e = s->fetch.err;
    else
        return false;
    return true;
}

MUST store_get(struct store *s, uint32_t i, struct view *v, struct err *e) {
    assert(i < s->conf.n_tile);
    const struct place *at = &s->place[i];
    bool ok = true;
    *v = (struct view){.p = at->mem, .resident = at->mem || is_demand(s, i)};
    if (is_demand(s, i))
        ok = fetch_get(&s->fetch, i, &v->p, e);
    else if (!at->mem)
        ok = ring_get(&s->ring, turn_now(s, at), &v->p, e);
    return ok && !has_failed(s, e);
}

bool store_ready(const struct store *s, uint32_t i) {
    return is_demand(s, i) ? fetch_ready(&s->fetch, i) : s->place[i].mem != NULL;
}

bool store_waits(const struct store *s, uint32_t i) {
    const struct place *at = &s->place[i];
    return !at->mem && !is_demand(s, i) && ring_waits(&s->ring, turn_now(s, at));
}

/* Into memory as it passes for the last time: all are done with it, and its slot still holds it. */
static void take(struct store *s, uint32_t i, uint64_t turn) {
    const struct store_conf *c = &s->conf;
    struct place *at = &s->place[i];
    const uint8_t *raw;
    struct err e;
    if (turn + s->chosen.n_streamed < s->grown_at) return;
    if (!ring_get(&s->ring, turn, &raw, &e)) return;  // as every get says from now on
    if (c->convert(c->owner, i, at->later, raw, &e))
        at->mem = at->later;
    else
        ring_fail(&s->ring, i, &e);
}

void store_put(struct store *s, uint32_t i) {
    assert(i < s->conf.n_tile);
    const struct place *at = &s->place[i];
    if (is_demand(s, i)) {
        fetch_put(&s->fetch, i);
    } else if (!at->mem) {
        uint64_t turn = turn_now(s, at);
        if (at->later) take(s, i, turn);
        ring_put(&s->ring, turn);
    }
}

/* The tables that a growth needs while and after it: which tiles stay, and the order of the others. */
static bool push_growth(struct store *s, uint64_t bytes, uint8_t **stays, uint32_t **order) {
    uint32_t n = s->chosen.n_streamed;
    *stays = arena_push(&s->more, n, TILE_ALIGN);
    *order = arena_push(&s->more, n * sizeof **order, TILE_ALIGN);
    return *stays && *order && s->more.used + TILE_ALIGN <= bytes;
}

/* Of the tiles that stream, those that are to stay get their memory, the others new turns. */
static void choose_more(struct store *s, const uint8_t *stays, uint32_t *order) {
    for (uint32_t k = 0, n = 0; k < s->chosen.n_streamed; k++) {
        struct place *at = &s->place[s->order[k]];
        if (stays[k]) {
            at->later = arena_push(&s->more, s->conf.tile[s->order[k]].mem, TILE_ALIGN);
            assert(at->later);
        } else {
            at->then = n;
            order[n++] = s->order[k];
        }
    }
}

MUST store_grow(struct store *s, uint64_t bytes, uint64_t *more_bytes, struct err *e) {
    uint32_t n = s->chosen.n_streamed, *order;
    uint64_t n_put = ring_n_put(&s->ring);
    uint8_t *stays;
    struct store_stats more;
    assert(!s->more.base && (!n || n_put % n == 0));
    *more_bytes = 0;
    if (!n) return true;
    if (!arena_open(&s->more, "more memory for weights", bytes, e)) return false;
    bool fits = push_growth(s, bytes, &stays, &order);
    uint64_t used = (s->more.used + TILE_ALIGN - 1) & ~(uint64_t)(TILE_ALIGN - 1);
    if (fits) store_choose_among(s->conf.tile, s->order, n, bytes - used, &more, stays);
    if (!fits || !more.n_pinned) {
        arena_close(&s->more);
        return true;
    }
    *more_bytes = more.pinned_bytes;
    choose_more(s, stays, order);
    s->grown = s->chosen;
    s->grown.pinned_bytes += more.pinned_bytes;
    s->grown.n_pinned += more.n_pinned;
    s->grown.n_streamed = more.n_streamed;
    s->grown.streamed_bytes_per_sweep = more.streamed_bytes_per_sweep;
    /* Readers may have begun with as many turns as there are slots. */
    s->grown_at = n_put + (s->conf.n_slot + n - 1) / n * n;
    ring_switch(&s->ring, order, more.n_streamed, s->grown_at);
    return true;
}

MUST store_read(struct store *s, uint32_t file, void *buf, uint64_t off, size_t len, uint8_t **at,
                struct err *e) {
    assert(file < s->conf.n_file);
    return direct_read(&s->file[file], buf, off, len, at, NULL, e);
}

size_t store_read_room(const struct store *s, size_t len) {
    size_t most = 0;
    for (uint32_t i = 0; i < s->conf.n_file; i++) {
        size_t room = direct_room(&s->file[i], len);
        if (room > most) most = room;
    }
    return most;
}

static uint64_t read_of(const _Atomic uint64_t *n) {
    return atomic_load_explicit(n, memory_order_relaxed);
}

void store_stats(const struct store *s, struct store_stats *out) {
    const struct ring *r = &s->ring;
    *out = ring_n_put(r) < s->grown_at ? s->chosen : s->grown;
    const struct fetch *f = &s->fetch;
    out->read_bytes = read_of(&r->read_bytes) + read_of(&f->read_bytes);
    out->read_ns = read_of(&r->read_ns) + read_of(&f->read_ns);
    out->wait_ns = read_of(&r->wait_ns) + read_of(&f->wait_ns);
    out->hits = read_of(&f->hits);
    out->misses = read_of(&f->misses);
    out->guessed = read_of(&f->guessed);
    out->used = read_of(&f->used);
}

void store_close(struct store *s) {
    if (!s) return;
    ring_close(&s->ring);
    if (s->conf.n_demand) fetch_close(&s->fetch);
    for (uint32_t i = 0; i < s->n_open; i++) direct_close(&s->file[i]);
    arena_close(&s->more);
    free(s->file);
    free(s->place);
    free(s->order);
    free(s);
}
