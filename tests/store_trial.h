/* store_trial.h - files of random bytes cut into tiles, and a store of them that is swept by a team, every byte
 * compared. */
#ifndef TESTS_STORE_TRIAL_H
#define TESTS_STORE_TRIAL_H

#include "base/par.h"
#include "store/store.h"

#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifdef __SANITIZE_THREAD__
enum { SLOWER = 4 };  // thread sanitizer: fewer and smaller trials
#else
enum { SLOWER = 1 };
#endif
enum { N_FILE = 2, TILES_MOST = 600, XOR_MARK = 0x5a, PIECES = 3 };

struct content {
    char path[256];
    uint8_t *bytes;
    size_t len;
};

struct scene {
    struct content file[N_FILE];
    const char *path[N_FILE];
    struct tile tile[TILES_MOST];
    uint32_t n_tile, n_demand;  // the latter of the former
    uint64_t cache_bytes;
    uint32_t spoilt;    // a tile that cannot be converted, or 0
    _Atomic bool hold;  // what is being converted waits
    _Atomic uint32_t n_held;
};

static uint64_t rng = 88172645463325252U;
static inline uint64_t rnd(uint64_t below) {
    rng ^= rng << 13;
    rng ^= rng >> 7;
    rng ^= rng << 17;
    return below ? rng % below : 0;
}

static inline bool make_file(struct content *c, const char *dir, const char *name, size_t len) {
    snprintf(c->path, sizeof c->path, "%s/%s.%d", dir, name, (int)getpid());
    c->len = len;
    c->bytes = malloc(len + 8);
    if (!c->bytes) return false;
    for (size_t i = 0; i < len; i += 8) {
        uint64_t v = rnd(UINT64_MAX);
        memcpy(c->bytes + i, &v, 8);
    }
    FILE *f = fopen(c->path, "wb");
    bool ok = f && fwrite(c->bytes, 1, len, f) == len;
    if (f && fclose(f) != 0) ok = false;
    return ok;
}

/* Tiles of mixed sizes at odd offsets, the last one ending with its file. */
static inline void cut_tiles(struct scene *s, uint32_t least, uint32_t most) {
    s->n_tile = 0;
    for (uint32_t f = 0; f < N_FILE; f++) {
        uint64_t at = 1 + rnd(5000);
        while (at < s->file[f].len && s->n_tile < TILES_MOST) {
            uint64_t len = least + rnd(most - least + 1);
            if (len > s->file[f].len - at) len = s->file[f].len - at;
            s->tile[s->n_tile++] = (struct tile){
                .file = f, .len = (uint32_t)len, .off = at, .mem = (len + 127) & ~(uint64_t)63};
            at += len + rnd(3) * rnd(700);
        }
    }
}

static inline bool scene_open(struct scene *s, const char *dir, size_t len) {
    memset(s, 0, sizeof *s);
    bool ok = make_file(&s->file[0], dir, "store-a", len) &&
              make_file(&s->file[1], dir, "store-b", len / 3 + 17);
    for (int i = 0; i < N_FILE; i++) s->path[i] = s->file[i].path;
    return ok;
}

static inline void scene_close(struct scene *s) {
    for (int i = 0; i < N_FILE; i++) {
        unlink(s->file[i].path);
        free(s->file[i].bytes);
    }
}

static inline bool convert(void *owner, uint32_t i, void *dst, const void *raw, struct err *e) {
    struct scene *s = owner;
    const uint8_t *from = raw;
    uint8_t *to = dst;
    if ((uintptr_t)dst % 64) return err_set(e, ERR_FORMAT, "tile %u lies badly", i);
    if (s->hold) s->n_held++;
    while (s->hold) sched_yield();
    if (i && i == s->spoilt) return err_set(e, ERR_FORMAT, "tile %u is spoilt", i);
    for (uint32_t k = 0; k < s->tile[i].len; k++) to[k] = from[k] ^ XOR_MARK;
    return true;
}

static inline bool is_right(const struct scene *s, uint32_t i, const struct view *v) {
    const struct tile *t = &s->tile[i];
    const uint8_t *want = s->file[t->file].bytes + t->off;
    if (!v->resident) return memcmp(v->p, want, t->len) == 0;
    for (uint32_t k = 0; k < t->len; k++) {
        if ((v->p[k] ^ XOR_MARK) != want[k]) return false;
    }
    return true;
}

struct sweeper {
    const struct scene *scene;
    struct store *store;
    uint32_t n_round;
    _Atomic uint32_t n_wrong, n_failed, n_resident;
    _Atomic uint32_t next;  // piece to be dealt
    _Atomic uint32_t done[TILES_MOST];
    uint32_t list[TILES_MOST], n_list;       // wanted
    uint32_t next_list[TILES_MOST], n_next;  // and after it
    uint64_t n_wanted;
    struct err err;  // of thread 0
};

static inline uint32_t sweep_tiles(const struct scene *s) {
    return s->n_tile - s->n_demand;
}

/* Pieces of tiles dealt out by a counter, as a multiply does: puts come in no order, and members
 * that are ahead wait for the disk while others still hold older tiles. */
static inline void deal(void *ctx, int thread, int n_thread) {
    struct sweeper *w = ctx;
    struct err e;
    (void)n_thread;
    for (;;) {
        uint32_t unit = atomic_fetch_add(&w->next, 1);
        uint32_t i = unit / PIECES;
        struct view v;
        if (w->n_list && i < w->n_list)
            i = w->list[i];
        else if (w->n_list || i >= sweep_tiles(w->scene))
            return;
        if (!store_get(w->store, i, &v, thread ? &e : &w->err)) {
            atomic_fetch_add(&w->n_failed, 1);
            return;
        }
        if (unit % PIECES == 0 && v.resident && !w->n_list) atomic_fetch_add(&w->n_resident, 1);
        if (!is_right(w->scene, i, &v)) atomic_fetch_add(&w->n_wrong, 1);
        if (atomic_fetch_add(&w->done[i], 1) + 1 == PIECES) {
            atomic_store(&w->done[i], 0);
            store_put(w->store, i);
        }
    }
}

/* Every member looks at every tile; the last one puts it. */
static inline void sweep(void *ctx, int thread, int n_thread) {
    struct sweeper *w = ctx;
    struct err e;
    for (uint32_t i = 0; i < sweep_tiles(w->scene); i++) {
        struct view v;
        if (!store_get(w->store, i, &v, thread ? &e : &w->err)) {
            atomic_fetch_add(&w->n_failed, 1);
            return;
        }
        if (!is_right(w->scene, i, &v)) atomic_fetch_add(&w->n_wrong, 1);
        if (v.resident && thread == 0) atomic_fetch_add(&w->n_resident, 1);
        if (atomic_fetch_add(&w->done[i], 1) + 1 == (uint32_t)n_thread) {
            atomic_store(&w->done[i], 0);
            store_put(w->store, i);
        }
    }
}

/* Some of the tiles on demand, in any order. */
static inline void draw_some(struct sweeper *w) {
    uint32_t n = w->scene->n_demand;
    for (uint32_t i = 0; i < n; i++) w->next_list[i] = sweep_tiles(w->scene) + i;
    w->n_next = 1 + (uint32_t)rnd(n);
    for (uint32_t i = 0; i < w->n_next; i++) {
        uint32_t k = i + (uint32_t)rnd(n - i), x = w->next_list[i];
        w->next_list[i] = w->next_list[k];
        w->next_list[k] = x;
    }
}

/* Some that will be wanted next, others that will perhaps, and some twice. */
static inline void guess_some(struct sweeper *w) {
    uint32_t guess[TILES_MOST], n = (uint32_t)rnd(2 * w->n_next) % TILES_MOST;
    for (uint32_t i = 0; i < n; i++) {
        guess[i] = i % 3 ? w->next_list[rnd(w->n_next)]
                         : sweep_tiles(w->scene) + (uint32_t)rnd(w->scene->n_demand);
    }
    store_guess(w->store, guess, n);
}

static inline void want_some(struct sweeper *w) {
    if (!w->n_next) draw_some(w);
    memcpy(w->list, w->next_list, sizeof w->list);
    w->n_list = w->n_next;
    w->n_wanted += w->n_list;
    store_want(w->store, w->list, w->n_list);
    draw_some(w);
    if (rnd(3)) guess_some(w);
}

static inline void sweeps(void *ctx, struct par *team) {
    struct sweeper *w = ctx;
    for (uint32_t r = 0; r < w->n_round; r++) {
        atomic_store(&w->next, 0);
        par_run(team, r % 2 ? deal : sweep, w);
        for (int i = 0; i < 4 && w->scene->n_demand && !w->n_failed; i++) {
            want_some(w);
            atomic_store(&w->next, 0);
            par_run(team, deal, w);
        }
        w->n_list = 0;
    }
}

struct seen {
    uint64_t done, total;
    uint32_t calls;
};
static inline bool progress(void *ctx, uint64_t done, uint64_t total) {
    struct seen *p = ctx;
    if (done > p->done) p->calls++;
    p->done = done;
    p->total = total;
    return true;
}

struct trial {
    struct store_conf conf;
    struct arena pool;
    struct store *store;
    struct sweeper sweeper;
};

static inline uint32_t longest_of(const struct tile *tile, uint32_t n) {
    uint32_t longest = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (tile[i].len > longest) longest = tile[i].len;
    }
    return longest;
}

static inline bool trial_open(struct trial *t, struct scene *s, uint64_t pin, uint32_t n_slot,
                              uint32_t n_reader, struct err *e) {
    memset(t, 0, sizeof *t);
    t->conf = (struct store_conf){.file = s->path,
                                  .n_file = N_FILE,
                                  .tile = s->tile,
                                  .n_tile = s->n_tile,
                                  .n_demand = s->n_demand,
                                  .pin_bytes = pin,
                                  .cache_bytes = s->cache_bytes,
                                  .half_life = 100,
                                  .n_slot = n_slot,
                                  .n_reader = n_reader,
                                  .n_fetch = n_reader,
                                  .pool = &t->pool,
                                  .convert = convert,
                                  .owner = s};
    t->sweeper.scene = s;
    struct store_stats st;
    store_choose(s->tile, sweep_tiles(s), pin, &st, NULL);
    uint64_t ring = st.n_streamed ? store_ring_bytes(longest_of(s->tile, s->n_tile), n_slot) : 0;
    if (s->n_demand) {
        (void)store_choose_demand(s->tile + sweep_tiles(s), s->n_demand, s->cache_bytes, &st);
        ring += st.cached_bytes + store_ring_bytes(longest_of(s->tile, s->n_tile), n_reader);
    }
    return arena_open(&t->pool, "test pool", st.pinned_bytes + ring, e) &&
           store_open(&t->store, &t->conf, e);
}

static inline void trial_close(struct trial *t) {
    store_close(t->store);
    arena_close(&t->pool);
}

static inline bool trial_sweeps(struct trial *t, int n_thread, uint32_t n_round, struct err *e) {
    t->sweeper.store = t->store;
    t->sweeper.n_round = n_round;
    return par_enter(n_thread, sweeps, &t->sweeper, e);
}

static inline uint64_t total_mem(const struct scene *s) {
    uint64_t sum = 0;
    for (uint32_t i = 0; i < s->n_tile; i++) sum += s->tile[i].mem;
    return sum;
}

#endif
