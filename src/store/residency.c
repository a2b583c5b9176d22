/* residency.c - which tiles stay.
 *
 * Every tile is used once a sweep, so none is worth more than another and any fixed set of the same
 * size saves the same reading. What differs is when the disk must pause: while a run of resident
 * tiles computes, the ring fills up. So resident ones are dealt out evenly by bytes, as Bresenham
 * deals out the steps of a line.
 */
#include "store/store.h"

#include "store/cache.h"
#include "store/ring.h"

#include <string.h>

enum { RESIDENT_ALIGN = 64 };

static uint64_t mem_bytes(const struct tile *t) {
    return (t->mem + RESIDENT_ALIGN - 1) & ~(uint64_t)(RESIDENT_ALIGN - 1);
}

struct choice {
    uint64_t total, limit, pinned, passed;
};

/* Has the line, risen to `passed` of `total`, room for this tile? A double holds these products to
 * less than a byte, and the limit itself is kept in integers. */
static bool is_due(const struct choice *c, uint64_t mem) {
    if (c->limit >= c->total) return true;
    double line = (double)c->passed * ((double)c->limit / (double)c->total);
    return (double)(c->pinned + mem) <= line && mem <= c->limit - c->pinned;
}

static void count(struct store_stats *s, const struct tile *t, bool stays) {
    if (stays) {
        s->n_pinned++;
        s->pinned_bytes += mem_bytes(t);
    } else {
        s->n_streamed++;
        s->streamed_bytes_per_sweep += t->len;
    }
}

/* which NULL: the first n. */
static const struct tile *tile_at(const struct tile *tile, const uint32_t *which, uint32_t i) {
    return &tile[which ? which[i] : i];
}

void store_choose_among(const struct tile *tile, const uint32_t *which, uint32_t n,
                        uint64_t pin_bytes, struct store_stats *s, uint8_t *resident) {
    struct choice c = {.limit = pin_bytes};
    *s = (struct store_stats){0};
    for (uint32_t i = 0; i < n; i++) c.total += mem_bytes(tile_at(tile, which, i));
    for (uint32_t i = 0; i < n; i++) {
        uint64_t mem = mem_bytes(tile_at(tile, which, i));
        c.passed += mem;
        bool stays = is_due(&c, mem);
        if (stays) c.pinned += mem;
        count(s, tile_at(tile, which, i), stays);
        if (resident) resident[i] = stays;
    }
}

void store_choose(const struct tile *tile, uint32_t n_tile, uint64_t pin_bytes,
                  struct store_stats *s, uint8_t *resident) {
    store_choose_among(tile, NULL, n_tile, pin_bytes, s, resident);
}

uint64_t store_choose_demand(const struct tile *tile, uint32_t n_demand, uint64_t cache_bytes,
                             struct store_stats *s) {
    struct cache_plan p;
    cache_plan(&p, tile, n_demand, cache_bytes);
    s->cached_bytes = p.mem;
    s->missing_bytes = p.missing;
    s->n_missing = n_demand - p.n_place;
    return p.least;
}

/* Before the file is open its block size is a guess; 4096 is what nearly all have. */
uint64_t store_ring_bytes(uint32_t longest, uint32_t n_slot) {
    struct direct usual = {.off_align = 4096, .mem_align = 4096};
    uint64_t len = n_slot * (uint64_t)ring_slot_bytes(&usual, longest);
    return len + ring_align(len);
}
