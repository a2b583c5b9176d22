#include "store/fetch.h"

#include "base/clock.h"
#include "base/par.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { SMALL_PAGE = 4096, PLACE_ALIGN = 64 };

/* --- open --- */

static MUST push_buffers(struct fetch *f, uint32_t longest, struct err *e) {
    const struct store_conf *c = f->conf;
    size_t room = 0;
    for (uint32_t i = 0; i < c->n_file; i++) {
        size_t len = ring_slot_bytes(&f->file[i], longest);
        if (len > room) room = len;
    }
    size_t len = c->n_fetch * room;
    uint8_t *buf = arena_push(c->pool, len, ring_align(len));
    if (!buf) {
        return err_set(e, ERR_MEMORY, "%s: no room for %u buffers of %zu bytes (%zu of %zu used)",
                       c->pool->name, c->n_fetch, room, c->pool->used, c->pool->cap);
    }
    for (size_t i = 0; i < len; i += SMALL_PAGE) ((volatile uint8_t *)buf)[i] = 0;
    for (uint32_t i = 0; i < c->n_fetch; i++) f->reader[i].buf = buf + i * room;
    f->buf_len = len;
    return true;
}

static MUST push_places(struct fetch *f, struct err *e) {
    const struct cache_plan *p = &f->cache.plan;
    struct arena *pool = f->conf->pool;
    for (uint32_t k = 0; k < p->n_class; k++) {
        const struct cache_class *c = &p->class[k];
        uint8_t *mem = arena_push(pool, c->n_place * c->mem, PLACE_ALIGN);
        if (!mem) {
            return err_set(
                e, ERR_MEMORY, "%s: no room for %u tiles of %llu bytes on demand (%zu of %zu used)",
                pool->name, c->n_place, (unsigned long long)c->mem, pool->used, pool->cap);
        }
        for (uint32_t i = 0; i < c->n_place; i++) f->place[c->first + i] = mem + i * c->mem;
    }
    return true;
}

MUST fetch_open(struct fetch *f, const struct store_conf *c, const struct direct *file,
                uint32_t longest, struct err *e) {
    uint32_t n = c->n_demand, base = c->n_tile - n;
    struct cache_plan *p = malloc(sizeof *p);
    memset(f, 0, sizeof *f);
    f->conf = c;
    f->file = file;
    f->base = base;
    f->n = n;
    f->ready = calloc(n, sizeof *f->ready);
    f->list = calloc(n, sizeof *f->list);
    f->read = calloc(n, sizeof *f->read);
    bool ok = p && f->ready && f->list && f->read;
    if (ok) cache_plan(p, c->tile + base, n, c->cache_bytes);
    if (ok) f->place = calloc(p->n_place, sizeof *f->place);
    ok = ok && f->place && !pthread_mutex_init(&f->lock, NULL);
    if (!ok) (void)err_set(e, ERR_MEMORY, "the tables of %u tiles on demand: out of memory", n);
    f->has_lock = ok;
    ok = ok && cache_open(&f->cache, p, c->tile + base, n, c->half_life, e) &&
         push_buffers(f, longest, e) && push_places(f, e);
    free(p);
    return ok;
}

static void stop(struct fetch *f) {
    atomic_store(&f->stop, true);
    bell_ring(&f->work);
    bell_ring(&f->news);
    while (f->n_reader > 0) pthread_join(f->reader[--f->n_reader].thread, NULL);
}

void fetch_close(struct fetch *f) {
    stop(f);
    cache_close(&f->cache);
    if (f->has_lock) pthread_mutex_destroy(&f->lock);
    free(f->ready);
    free(f->list);
    free(f->read);
    free(f->place);
    memset(f, 0, sizeof *f);
}

uint8_t *fetch_at(const struct fetch *f, uint32_t i) {
    uint32_t place = f->cache.item[i - f->base].place;
    return place == CACHE_NONE ? NULL : f->place[place];
}

/* --- reading --- */

static bool is_over(struct fetch *f) {
    return atomic_load_explicit(&f->stop, memory_order_acquire) ||
           atomic_load_explicit(&f->failed, memory_order_acquire);
}

void fetch_fail(struct fetch *f, uint32_t i, const struct err *e) {
    if (atomic_exchange(&f->failing, true)) return;
    f->err = *e;
    f->failed_tile = i;
    atomic_store_explicit(&f->failed, true, memory_order_release);
    bell_ring(&f->work);
    bell_ring(&f->news);
}

/* What the list wants comes before what is guessed. Under lock. */
static bool take_work(struct fetch *f, uint32_t *i, bool *is_guess) {
    *is_guess = f->claimed == f->issued;
    if (!*is_guess) {
        *i = f->read[f->claimed++ % f->n];
        return true;
    }
    while (f->next_guess < f->n_guess && f->n_guessing < (f->conf->n_fetch + 1) / 2) {
        uint32_t k = f->guess[f->next_guess++];
        if (cache_guess(&f->cache, k) != CACHE_MISS) continue;
        f->n_guessing++;
        *i = k + f->base;
        return true;
    }
    return false;
}

static bool wait_for_work(struct fetch *f, uint32_t *i, bool *is_guess) {
    for (;;) {
        uint32_t seen = bell_seen(&f->work);
        if (is_over(f)) return false;
        pthread_mutex_lock(&f->lock);
        bool found = take_work(f, i, is_guess);
        pthread_mutex_unlock(&f->lock);
        if (found) return true;
        bell_wait(&f->work, seen);
    }
}

static MUST read_tile(struct fetch *f, uint8_t *buf, uint32_t i, struct err *e) {
    const struct store_conf *c = f->conf;
    const struct tile *t = &c->tile[i];
    uint8_t *raw;
    uint64_t n_read = 0, begin = clock_ns();
    bool ok = direct_read(&f->file[t->file], buf, t->off, t->len, &raw, &n_read, e);
    atomic_fetch_add_explicit(&f->read_ns, clock_ns() - begin, memory_order_relaxed);
    atomic_fetch_add_explicit(&f->read_bytes, n_read, memory_order_relaxed);
    return ok && c->convert(c->owner, i, fetch_at(f, i), raw, e);
}

static void admit(struct fetch *f);

/* Of a guess, ok: it was read. Whether it is wanted by now; if not, it matters to nobody that it cannot be. */
static bool end_guess(struct fetch *f, uint32_t i, bool ok) {
    pthread_mutex_lock(&f->lock);
    bool is_wanted = cache_arrived(&f->cache, i - f->base);
    if (!ok && !is_wanted) cache_forget(&f->cache, i - f->base);
    f->n_guessing--;
    if (f->next < f->n_list) admit(f);  // its place may be what the list waits for
    pthread_mutex_unlock(&f->lock);
    atomic_fetch_add_explicit(&f->guessed, 1, memory_order_relaxed);
    return is_wanted;
}

static void *reader_main(void *arg) {
    struct fetch_reader *r = arg;
    struct fetch *f = r->fetch;
    par_roam();
    for (;;) {
        struct err e;
        uint32_t i;
        bool is_guess;
        if (!wait_for_work(f, &i, &is_guess)) return NULL;
        bool ok = read_tile(f, r->buf, i, &e);
        if (is_guess && !end_guess(f, i, ok)) continue;
        if (!ok) {
            fetch_fail(f, i, &e);
            return NULL;
        }
        atomic_store_explicit(&f->ready[i - f->base], 1, memory_order_release);
        bell_ring(&f->news);
    }
}

MUST fetch_start(struct fetch *f, struct err *e) {
    int fault = 0;
    for (uint32_t i = 0; i < f->conf->n_fetch && !fault; i++) {
        struct fetch_reader *r = &f->reader[i];
        r->fetch = f;
        fault = ring_thread(&r->thread, reader_main, r);
        if (!fault) f->n_reader++;
    }
    if (!fault) return true;
    uint32_t n = f->n_reader;
    stop(f);
    return err_set(e, ERR_MEMORY, "the system gives %u of %u reader threads: %s", n,
                   f->conf->n_fetch, strerror(fault));
}

/* --- lists --- */

/* Admit what has a place, in order; under lock. */
static void admit(struct fetch *f) {
    uint32_t n_here = 0, n_miss = 0, n_used = 0;
    for (; f->next < f->n_list; f->next++) {
        uint32_t i = f->list[f->next];
        bool is_ahead = f->cache.item[i].is_ahead;
        enum cache_found found = cache_use(&f->cache, i);
        if (found == CACHE_FULL) break;
        if (found == CACHE_MISS)
            f->read[(f->issued + n_miss++) % f->n] = i + f->base;
        else
            n_here++;
        if (found == CACHE_HIT) atomic_store_explicit(&f->ready[i], 1, memory_order_release);
        n_used += is_ahead;
    }
    atomic_fetch_add_explicit(&f->hits, n_here - n_used, memory_order_relaxed);
    atomic_fetch_add_explicit(&f->misses, n_miss + n_used, memory_order_relaxed);
    atomic_fetch_add_explicit(&f->used, n_used, memory_order_relaxed);
    f->issued += n_miss;
    if (n_miss) bell_ring(&f->work);
    if (n_here) bell_ring(&f->news);
}

void fetch_want(struct fetch *f, const uint32_t *tile, uint32_t n) {
    pthread_mutex_lock(&f->lock);
    assert(f->next == f->n_list && n <= f->n);
    for (uint32_t i = 0; i < n; i++) f->list[i] = tile[i] - f->base;
    f->n_list = n;
    f->next = f->n_guess = f->next_guess = 0;
    cache_next(&f->cache, f->list, n);
    admit(f);
    pthread_mutex_unlock(&f->lock);
}

/* Not while the list still waits for places: there is none to spare. */
void fetch_guess(struct fetch *f, const uint32_t *tile, uint32_t n) {
    pthread_mutex_lock(&f->lock);
    f->n_guess = f->next_guess = 0;
    for (uint32_t i = 0; f->next == f->n_list && i < n; i++) {
        uint32_t k = tile[i] - f->base;
        if (cache_has(&f->cache, k))
            (void)cache_guess(&f->cache, k);  // it stays
        else if (f->n_guess < CACHE_GUESSES)
            f->guess[f->n_guess++] = k;
    }
    if (f->n_guess) bell_ring(&f->work);
    pthread_mutex_unlock(&f->lock);
}

bool fetch_has(struct fetch *f, uint32_t i) {
    pthread_mutex_lock(&f->lock);
    bool has = cache_has(&f->cache, i - f->base);
    pthread_mutex_unlock(&f->lock);
    return has;
}

bool fetch_ready(const struct fetch *f, uint32_t i) {
    return atomic_load_explicit(&f->ready[i - f->base], memory_order_acquire);
}

static void wait_for_tile(struct fetch *f, uint32_t i) {
    uint64_t begin = clock_ns();
    for (unsigned turn = 0;;) {
        uint32_t seen = bell_seen(&f->news);
        if (fetch_ready(f, i) || is_over(f)) break;
        if (par_relax(&turn)) bell_wait(&f->news, seen);
    }
    atomic_fetch_add_explicit(&f->wait_ns, clock_ns() - begin, memory_order_relaxed);
}

MUST fetch_get(struct fetch *f, uint32_t i, const uint8_t **p, struct err *e) {
    if (!fetch_ready(f, i)) wait_for_tile(f, i);
    if (atomic_load_explicit(&f->failed, memory_order_acquire)) {
        *e = f->err;
        return false;
    }
    if (!fetch_ready(f, i)) return err_set(e, ERR_STOPPED, "the store is being closed");
    *p = fetch_at(f, i);
    return true;
}

void fetch_put(struct fetch *f, uint32_t i) {
    pthread_mutex_lock(&f->lock);
    atomic_store_explicit(&f->ready[i - f->base], 0, memory_order_relaxed);
    cache_let_go(&f->cache, i - f->base);
    if (f->next < f->n_list) admit(f);
    pthread_mutex_unlock(&f->lock);
}
