/* test_store_grow.c - a store that is given more memory while it streams: every byte of every tile before, while
 * and after it takes more, and nothing read for it. */
#include "store_trial.h"
#include "tap.h"

/* Before and after a growth by `bytes`; how many sweeps each. */
struct grown {
    uint32_t before, after;
    uint64_t pin, bytes;
    uint32_t n_slot, n_reader;
    int n_thread;
};

static MUST more_sweeps(struct trial *t, const struct grown *g, uint32_t n_round, struct err *e) {
    if (!trial_sweeps(t, g->n_thread, n_round, e)) return false;
    if (t->sweeper.n_failed) return err_set(e, t->sweeper.err.code, "%s", t->sweeper.err.text);
    return !t->sweeper.n_wrong || err_set(e, ERR_FORMAT, "%u tiles wrong", t->sweeper.n_wrong);
}

/* In how many sweeps more it has taken what it may: at once, or when the turns that readers may have begun
 * are over. */
static uint32_t sweeps_to_take(const struct store_stats *s, uint32_t n_slot) {
    return s->n_streamed ? (n_slot + s->n_streamed - 1) / s->n_streamed : 0;
}

/* Of a store that has taken more: nothing is read that it has, nothing twice, and what it has
 * uses the bytes up to a tile and the tables. */
static MUST check_grown(const struct scene *s, struct trial *t, const struct grown *g,
                        const struct store_stats *was, struct err *e) {
    struct store_stats now;
    store_stats(t->store, &now);
    uint32_t n_take = sweeps_to_take(was, g->n_slot);
    uint64_t most = 0;
    for (uint32_t i = 0; i < s->n_tile; i++) most = s->tile[i].mem > most ? s->tile[i].mem : most;
    uint64_t tables = 16 * (uint64_t)s->n_tile + 256, more = now.pinned_bytes - was->pinned_bytes;
    if (now.n_pinned + now.n_streamed != sweep_tiles(s) || more > g->bytes) {
        return err_set(e, ERR_FORMAT, "%u stay, %u stream, %llu bytes more of %llu", now.n_pinned,
                       now.n_streamed, (unsigned long long)more, (unsigned long long)g->bytes);
    }
    if (now.n_streamed && more + most + tables < g->bytes) {
        return err_set(e, ERR_FORMAT, "%llu bytes more of %llu", (unsigned long long)more,
                       (unsigned long long)g->bytes);
    }
    uint64_t old = was->streamed_bytes_per_sweep, lean = now.streamed_bytes_per_sweep;
    uint64_t sum = (g->before + n_take) * old + (g->after - n_take) * lean;
    uint64_t ahead = (g->n_slot + g->n_reader) * most, block = 2 * 4096;
    uint64_t turns = (g->before + g->after) * was->n_streamed + g->n_slot + g->n_reader;
    if (!s->n_demand && (now.read_bytes < sum || now.read_bytes > sum + ahead + turns * block)) {
        return err_set(e, ERR_FORMAT, "%llu bytes read, for %llu",
                       (unsigned long long)now.read_bytes, (unsigned long long)sum);
    }
    uint32_t resident = (g->before + n_take) * was->n_pinned + (g->after - n_take) * now.n_pinned;
    if (t->sweeper.n_resident == resident) return true;
    return err_set(e, ERR_FORMAT, "%u times a tile was resident, not %u", t->sweeper.n_resident,
                   resident);
}

static MUST run_grown(struct scene *s, const struct grown *g, struct err *e) {
    static struct trial t;
    struct store_stats was;
    uint64_t more;
    bool ok = trial_open(&t, s, g->pin, g->n_slot, g->n_reader, e) &&
              store_load(t.store, NULL, NULL, e) && more_sweeps(&t, g, g->before, e);
    if (ok) store_stats(t.store, &was);
    ok = ok && store_grow(t.store, g->bytes, &more, e) && more_sweeps(&t, g, g->after, e) &&
         check_grown(s, &t, g, &was, e);
    trial_close(&t);
    return ok;
}

static void test_growth(const char *dir) {
    static struct scene s;
    struct err e = {0};
    if (!tap_ok(scene_open(&s, dir, 3000001 / SLOWER), "files made")) return;
    cut_tiles(&s, 60000 / SLOWER, 90000 / SLOWER);
    uint64_t all = total_mem(&s);
    const struct {
        const char *what;
        struct grown g;
    } corner[] = {
        {"half of what streams", {2, 4, all / 3, all / 3, 4, 2, 2}},
        {"from nothing, before the first sweep", {0, 3, 0, all / 2, 4, 2, 2}},
        {"all that is left", {2, 4, all / 2, all, 4, 2, 3}},
        {"all, of which all streams", {1, 3, 0, 2 * all, 2, 1, 1}},
        {"the last one, of many slots", {5, 20, all - 1, all, 16, 8, 2}},
        {"too little for a tile", {2, 4, all / 2, 50000 / SLOWER, 4, 2, 2}},
        {"too little for the tables", {2, 4, all / 2, 100, 4, 2, 2}},
        {"nothing", {2, 4, all / 2, 0, 4, 2, 2}},
        {"where all stay already", {2, 4, all, all, 0, 2, 2}},
        {"a few more, readers far ahead", {3, 9, all * 4 / 5, all / 10, 40, 4, 2}},
    };
    for (size_t i = 0; i < sizeof corner / sizeof *corner; i++) {
        bool ok = run_grown(&s, &corner[i].g, &e);
        tap_ok(ok, "grown by %s%s%s", corner[i].what, ok ? "" : ": ", ok ? "" : e.text);
    }
    bool ok = true;
    for (int i = 0; ok && i < 24 / SLOWER; i++) {
        cut_tiles(&s, i % 3 ? 60000 : 1, i % 3 ? 90000 : 700000);
        all = total_mem(&s);
        s.n_demand = i % 4 == 3 ? 1 + (uint32_t)rnd(s.n_tile - 1) : 0;
        s.cache_bytes = rnd(all);
        uint32_t n_slot = 2 + (uint32_t)rnd(8);
        const struct grown g = {(uint32_t)rnd(4), 2 + n_slot,           rnd(all),       rnd(all),
                                n_slot,           1 + (uint32_t)rnd(4), 1 + (int)rnd(3)};
        ok = run_grown(&s, &g, &e);
    }
    tap_ok(ok, "24 stores grown by lot%s%s", ok ? "" : ": ", ok ? "" : e.text);
    s.n_demand = 0;
    scene_close(&s);
}

static bool refuse_later(void *owner, uint32_t i, void *dst, const void *raw, struct err *e) {
    return i % 3 ? convert(owner, i, dst, raw, e) : err_set(e, ERR_FORMAT, "tile %u is bad", i);
}

static bool refuse_last(void *owner, uint32_t i, void *dst, const void *raw, struct err *e) {
    const struct scene *s = owner;
    return i + 1 < s->n_tile ? convert(owner, i, dst, raw, e)
                             : err_set(e, ERR_FORMAT, "tile %u is bad", i);
}

/* All are taken, and then the last one is bad: no turn is left of which it could be had. */
static void test_last(struct scene *s) {
    static struct trial t;
    struct err e = {0};
    struct view v;
    uint64_t more;
    bool ok = trial_open(&t, s, 0, 4, 2, &e);
    if (ok) store_close(t.store);
    t.conf.convert = refuse_last;
    t.pool.used = 0;
    ok = ok && store_open(&t.store, &t.conf, &e) && store_load(t.store, NULL, NULL, &e) &&
         store_grow(t.store, 2 * total_mem(s), &more, &e);
    for (uint32_t i = 0; ok && i < s->n_tile; i++) {
        ok = store_get(t.store, i, &v, &e) && is_right(s, i, &v);
        if (ok) store_put(t.store, i);
    }
    ok = ok && !store_get(t.store, s->n_tile - 1, &v, &e) && strstr(e.text, "is bad");
    tap_ok(ok, "the last that streams cannot be taken: %s", e.text);
    trial_close(&t);
}

/* What cannot be taken, and a store closed in the middle of taking. */
static void test_growth_ends(const char *dir) {
    static struct scene s;
    static struct trial t;
    struct err e = {0};
    uint64_t more;
    if (!tap_ok(scene_open(&s, dir, 3000001), "files made")) return;
    cut_tiles(&s, 60000, 90000);
    bool ok = trial_open(&t, &s, 0, 4, 2, &e);
    if (ok) store_close(t.store);
    t.conf.convert = refuse_later;
    t.pool.used = 0;
    ok = ok && store_open(&t.store, &t.conf, &e) && store_load(t.store, NULL, NULL, &e) &&
         trial_sweeps(&t, 2, 1, &e) && !t.sweeper.n_failed &&
         store_grow(t.store, 9000000, &more, &e) && trial_sweeps(&t, 2, 2, &e);
    struct view v;
    ok = ok && t.sweeper.n_failed && !t.sweeper.n_wrong && !store_get(t.store, 1, &v, &e);
    tap_ok(ok && strstr(e.text, "is bad") && store_failed(t.store, 1) % 3 == 0,
           "what convert says of a tile that is taken comes out: %s", e.text);
    trial_close(&t);
    ok = true;
    for (uint32_t i = 0; ok && i < 12; i++) {
        ok = trial_open(&t, &s, i % 2 ? 1000000 : 0, 2 + i % 7, 1 + i % 4, &e) &&
             store_load(t.store, NULL, NULL, &e) && store_grow(t.store, 300000 * i, &more, &e);
        for (uint32_t k = 0; ok && k < 4 * i && k < s.n_tile; k++) {
            ok = store_get(t.store, k, &v, &e) && is_right(&s, k, &v);
            if (ok) store_put(t.store, k);
        }
        trial_close(&t);
    }
    test_last(&s);
    tap_ok(ok, "closed while it grows%s%s", ok ? "" : ": ", ok ? "" : e.text);
    scene_close(&s);
}

int main(void) {
    const char *dir = getenv("TMPDIR");
    if (!dir || !*dir) dir = "/tmp";
    test_growth(dir);
    test_growth_ends(dir);
    return tap_done();
}
