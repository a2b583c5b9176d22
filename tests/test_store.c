/* test_store.c - every byte of every tile, sweep after sweep, whatever stays, streams or breaks.
 *
 * With arguments it is the subject of store_faults.t, which breaks its system calls from outside:
 *   test_store sweep FILE N_SWEEP PIN_BYTES N_READER   prints a hash for each sweep of FILE
 *   test_store demand FILE N_SWEEP CACHE_BYTES N_READER   the same with all tiles on demand
 *   test_store again FILE KEEP                         see read_again()
 */
#include "base/clock.h"
#include "store/diskprobe.h"
#include "store_trial.h"
#include "tap.h"

#include <fcntl.h>
#include <math.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* Whole sweeps with these settings; says what went wrong. */
static bool run_trial(struct scene *s, uint64_t pin, uint32_t n_slot, uint32_t n_reader,
                      int n_thread, uint32_t n_round, struct err *e) {
    static struct trial t;
    struct seen seen = {0};
    struct store_stats st;
    bool ok = trial_open(&t, s, pin, n_slot, n_reader, e) &&
              store_load(t.store, progress, &seen, e) && trial_sweeps(&t, n_thread, n_round, e);
    if (ok && t.sweeper.n_failed) {
        *e = t.sweeper.err;
        ok = false;
    }
    if (ok && t.sweeper.n_wrong) {
        ok = err_set(e, ERR_FORMAT, "%u tiles wrong", (unsigned)t.sweeper.n_wrong);
    }
    if (ok) {
        store_stats(t.store, &st);
        if (st.pinned_bytes > pin || t.sweeper.n_resident != n_round * st.n_pinned ||
            seen.done != seen.total || seen.calls != st.n_pinned + s->n_demand - st.n_missing ||
            st.n_pinned + st.n_streamed != sweep_tiles(s) ||
            st.read_bytes < n_round * st.streamed_bytes_per_sweep ||
            st.hits + st.misses != t.sweeper.n_wanted || (!st.n_missing && st.misses) ||
            st.used > st.guessed + n_reader || (!st.n_missing && st.guessed) ||
            (st.n_streamed == 0 && !st.misses && !st.guessed && st.read_bytes > 0)) {
            ok = err_set(e, ERR_FORMAT, "the statistics are not what was done");
        }
    }
    trial_close(&t);
    return ok;
}

static void test_random(const char *dir, const char *what, int n_trial, size_t len) {
    static struct scene s;
    struct err e = {0};
    bool ok = scene_open(&s, dir, len);
    if (!ok) (void)err_sys(&e, "%s", dir);
    for (int i = 0; ok && i < n_trial; i++) {
        uint32_t most = i % 3 == 0 ? 700000 : 90000;
        cut_tiles(&s, i % 3 == 1 ? 1 : 60000, most);
        uint64_t all = total_mem(&s);
        uint64_t pin = i % 4 == 0 ? 0 : rnd(all + all / 8);
        s.n_demand = i % 3 == 2 ? 1 + (uint32_t)rnd(s.n_tile) : 0;
        s.cache_bytes = rnd(all);
        ok = run_trial(&s, pin, 2 + (uint32_t)rnd(8), 1 + (uint32_t)rnd(4), 1 + (int)rnd(3), 3, &e);
    }
    tap_ok(ok, "%s: %d stores drawn by lot, 3 sweeps each%s%s", what, n_trial, ok ? "" : ": ",
           ok ? "" : e.text);
    scene_close(&s);
}

static void test_corners(const char *dir) {
    static struct scene s;
    struct err e = {0};
    if (!tap_ok(scene_open(&s, dir, 3000001), "files made")) return;
    cut_tiles(&s, 60000, 90000);
    uint64_t all = total_mem(&s);
    tap_ok(run_trial(&s, UINT64_MAX, 0, 2, 2, 3, &e), "everything stays, no slots: %s", e.text);
    tap_ok(run_trial(&s, all, 0, 1, 1, 3, &e), "everything just fits: %s", e.text);
    tap_ok(run_trial(&s, all - 1, 2, 2, 2, 5, &e), "all but one stay, two slots: %s", e.text);
    tap_ok(run_trial(&s, all - 1, 16, 8, 2, 9, &e), "one streams, 16 slots, 8 readers: %s", e.text);
    tap_ok(run_trial(&s, 0, 2, 1, 1, 4, &e), "all stream, two slots, one reader: %s", e.text);
    tap_ok(run_trial(&s, 0, 2, 8, 3, 4, &e), "eight readers for two slots: %s", e.text);
    /* On demand: places are few, as tiles are of many sizes. */
    for (uint32_t i = 0; i < s.n_tile; i++) s.tile[i].mem = 131072;
    s.n_demand = s.n_tile;
    tap_ok(run_trial(&s, 0, 0, 1, 1, 3, &e), "all on demand, two places: %s", e.text);
    s.cache_bytes = all / 2;
    tap_ok(run_trial(&s, 0, 0, 4, 3, 9, &e), "all on demand, four readers: %s", e.text);
    s.n_demand /= 2;
    tap_ok(run_trial(&s, 0, 2, 2, 2, 9, &e), "half on demand, the others stream: %s", e.text);
    s.cache_bytes = 2 * all;
    tap_ok(run_trial(&s, 2 * all, 0, 2, 2, 9, &e), "half on demand, and all in memory: %s", e.text);
    s.n_demand = 0;
    s.n_tile = 1;
    tap_ok(run_trial(&s, 0, 4, 3, 2, 20, &e), "one tile: %s", e.text);
    tap_ok(run_trial(&s, all, 0, 3, 2, 20, &e), "one tile, resident: %s", e.text);
    scene_close(&s);
}

/* What is chosen of the rest leaves all as even: within a tile of each of the two choices. */
static void spread_more(const struct tile *tile, uint8_t *stays) {
    static uint32_t rest[2000];
    static uint8_t also[2000];
    int n_bad = 0;
    for (int trial = 0; trial < 200; trial++) {
        uint64_t all = 0, biggest = 0, left = 0;
        uint32_t n = 0;
        for (int i = 0; i < 2000; i++) {
            all += tile[i].mem;
            if (tile[i].mem > biggest) biggest = tile[i].mem;
        }
        uint64_t pin = rnd(all), more, passed = 0, kept = 0;
        struct store_stats st;
        store_choose(tile, 2000, pin, &st, stays);
        for (uint32_t i = 0; i < 2000; i++) {
            if (!stays[i]) rest[n++] = i, left += tile[i].mem;
        }
        more = rnd(left);
        store_choose_among(tile, rest, n, more, &st, also);
        for (uint32_t k = 0; k < n; k++) stays[rest[k]] = also[k];
        for (int i = 0; i < 2000; i++) {
            passed += tile[i].mem;
            if (stays[i]) kept += tile[i].mem;
            double even = (double)passed * (double)(pin + more) / (double)all;
            if (fabs((double)kept - even) > 3 * (double)biggest) n_bad++;
        }
        if (st.pinned_bytes > more || st.pinned_bytes + biggest <= more) n_bad++;
    }
    tap_ok(n_bad == 0, "and so are those that are chosen later, together with them");
}

/* At no point of the sweep more than a tile away from an even distribution. */
static void test_spread(void) {
    static struct tile tile[2000];
    static uint8_t stays[2000];
    int n_bad = 0;
    for (int trial = 0; trial < 200; trial++) {
        uint64_t all = 0;
        uint64_t biggest = 0;
        for (int i = 0; i < 2000; i++) {
            uint64_t mem = 64 * (1 + rnd(trial % 2 ? 65536 : 1024));
            tile[i] = (struct tile){.len = (uint32_t)mem, .mem = mem};
            all += mem;
            if (mem > biggest) biggest = mem;
        }
        uint64_t pin = rnd(all);
        struct store_stats st;
        store_choose(tile, 2000, pin, &st, stays);
        uint64_t passed = 0;
        uint64_t kept = 0;
        for (int i = 0; i < 2000; i++) {
            passed += tile[i].mem;
            if (stays[i]) kept += tile[i].mem;
            double even = (double)passed * (double)pin / (double)all;
            if ((double)kept > even + 1 || (double)kept < even - (double)biggest - 1) n_bad++;
        }
        if (kept > pin || kept != st.pinned_bytes || kept + biggest <= pin ||
            st.streamed_bytes_per_sweep != all - kept) {
            n_bad++;
        }
    }
    tap_ok(n_bad == 0, "resident tiles are spread evenly and use the budget up to one tile");
    spread_more(tile, stays);
    struct store_stats st;
    store_choose(tile, 2000, UINT64_MAX, &st, NULL);
    tap_ok(st.n_streamed == 0 && st.n_pinned == 2000, "what fits stays");
    store_choose(tile, 2000, 0, &st, NULL);
    tap_ok(st.n_pinned == 0 && st.pinned_bytes == 0, "without memory nothing stays");
}

static bool refuse(void *owner, uint32_t i, void *dst, const void *raw, struct err *e) {
    (void)owner, (void)dst, (void)raw;
    return i < 20 || err_set(e, ERR_FORMAT, "tile %u has a bad hash", i);
}

/* One that was guessed and cannot be read is no fault before it is wanted. */
static void test_guess(const char *dir) {
    static struct scene s;
    static struct trial t;
    struct err e = {0};
    struct store_stats st = {0};
    struct view v;
    uint32_t bad = 0, good = 0;
    if (!tap_ok(scene_open(&s, dir, 3000001), "files made")) return;
    cut_tiles(&s, 60000, 60000);
    s.n_demand = s.n_tile;
    s.cache_bytes = 8 * 60032;
    bool ok = trial_open(&t, &s, 0, 4, 2, &e) && store_load(t.store, NULL, NULL, &e);
    for (uint32_t i = 0; ok && i < s.n_tile; i++) {
        if (store_has(t.store, i)) continue;
        good = bad;
        bad = i;
    }
    s.spoilt = bad;
    ok = ok && bad;
    if (ok) {
        store_want(t.store, NULL, 0);
        store_guess(t.store, (uint32_t[]){bad, good}, 2);
        for (; st.guessed < 2; sched_yield()) store_stats(t.store, &st);
        tap_ok(!store_has(t.store, bad) && store_has(t.store, good),
               "of two guesses the one that can be read is there");
        store_want(t.store, &good, 1);
        ok = store_get(t.store, good, &v, &e) && is_right(&s, good, &v);
        store_put(t.store, good);
        store_stats(t.store, &st);
        ok = tap_ok(ok && st.used == 1 && st.misses == 1,
                    "and is used without another read, as one that was missed %s", e.text);
        store_want(t.store, &bad, 1);
        tap_ok(!store_get(t.store, bad, &v, &e), "the other is an error once it is wanted: %s",
               e.text);
    }
    s.spoilt = 0;
    tap_ok(ok, "guesses %s", e.text);
    trial_close(&t);
    scene_close(&s);
}

/* All places are being read into for guesses as something else is wanted: it waits for one of them. */
static void test_full(const char *dir) {
    static struct scene s;
    static struct trial t;
    struct err e = {0};
    struct view v;
    uint32_t out[3] = {0}, n = 0;
    if (!tap_ok(scene_open(&s, dir, 3000001), "files made")) return;
    cut_tiles(&s, 60000, 60000);
    s.n_demand = s.n_tile;
    s.cache_bytes = 0;  // two places
    bool ok = trial_open(&t, &s, 0, 4, 4, &e) && store_load(t.store, NULL, NULL, &e);
    for (uint32_t i = 0; ok && i < s.n_tile && n < 3; i++) {
        if (!store_has(t.store, i) && s.tile[i].mem == s.tile[1].mem) out[n++] = i;
    }
    if (tap_ok(ok && n == 3, "two places for %u tiles %s", s.n_tile, e.text)) {
        store_want(t.store, NULL, 0);
        s.hold = true;
        store_guess(t.store, out, 2);
        while (s.n_held < 2) sched_yield();
        store_want(t.store, &out[2], 1);
        s.hold = false;
        ok = store_get(t.store, out[2], &v, &e) && is_right(&s, out[2], &v);
        store_put(t.store, out[2]);
        tap_ok(ok, "guesses take all places: what is wanted gets the first %s", e.text);
    }
    trial_close(&t);
    scene_close(&s);
}

/* What is not in memory of a list is read at once, as many as there are readers, whatever stands between: before
 * anybody waits for the first. */
static bool reads_at_once(struct scene *s, struct store *store, const uint32_t *list, uint32_t n,
                          uint32_t n_want, struct err *e) {
    uint64_t until = clock_ns() + 5000000000U;
    struct view v;
    s->n_held = 0;
    s->hold = true;
    store_want(store, list, n);
    while (s->n_held < n_want && clock_ns() < until) sched_yield();
    uint32_t n_held = s->n_held;
    s->hold = false;
    bool ok = true;
    for (uint32_t i = 0; ok && i < n; i++) {
        ok = store_get(store, list[i], &v, e) && is_right(s, list[i], &v);
        if (ok) store_put(store, list[i]);
    }
    if (ok && n_held != n_want) {
        ok = err_set(e, ERR_FORMAT, "%u of %u were being read", n_held, n_want);
    }
    return ok;
}

static void test_at_once(const char *dir) {
    static const uint32_t cases[][2] = {{1, 3}, {2, 6}, {4, 3}, {4, 4}, {8, 12}};
    static struct scene s;
    static struct trial t;
    if (!tap_ok(scene_open(&s, dir, 3000001), "files made")) return;
    cut_tiles(&s, 60000, 60000);
    s.n_demand = s.n_tile;
    s.cache_bytes = 30 * 60032;
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        uint32_t n_reader = cases[k][0], n_miss = cases[k][1], list[24], n = 0, here = 0, out = 0;
        struct err e = {0};
        struct store_stats st = {0};
        bool ok = trial_open(&t, &s, 0, 4, n_reader, &e) && store_load(t.store, NULL, NULL, &e);
        while (ok && n < 2 * n_miss) {  // by turns one that is here and one that is not
            uint32_t *i = n % 2 ? &out : &here;
            while (*i < s.n_tile && store_has(t.store, *i) == n % 2) ++*i;
            ok = *i < s.n_tile || err_set(&e, ERR_FORMAT, "too few tiles");
            if (ok) list[n++] = (*i)++;
        }
        uint32_t n_want = n_miss < n_reader ? n_miss : n_reader;
        ok = ok && reads_at_once(&s, t.store, list, n, n_want, &e);
        if (ok) store_stats(t.store, &st);
        tap_ok(ok && st.misses == n_miss && st.hits == n_miss,
               "%u tiles missing, %u readers: %u at once %s", n_miss, n_reader, n_want, e.text);
        trial_close(&t);
    }
    scene_close(&s);
}

/* Says at the third tile that nobody wants the rest. */
static bool enough(void *ctx, uint64_t done, uint64_t total) {
    unsigned *n = ctx;
    (void)done, (void)total;
    return ++*n < 3;
}

static void test_stopped(const char *dir) {
    static struct scene s;
    static struct trial t;
    struct err e = {0};
    if (!tap_ok(scene_open(&s, dir, 3000001), "files made")) return;
    cut_tiles(&s, 60000, 90000);
    for (unsigned i = 0; i < 2; i++) {
        unsigned n = 0;
        bool ok = trial_open(&t, &s, i ? 1000000 : 8000000, 4, 2, &e);
        ok = ok && !store_load(t.store, enough, &n, &e);
        tap_ok(ok && e.code == ERR_STOPPED && n == 3, "a load that is not wanted any more ends: %s",
               i ? "some stream" : "all stay");
        trial_close(&t);
    }
    scene_close(&s);
}

static void test_refusals(const char *dir) {
    static struct scene s;
    static struct trial t;
    struct err e = {0};
    if (!tap_ok(scene_open(&s, dir, 3000001), "files made")) return;
    cut_tiles(&s, 60000, 90000);
    bool ok = trial_open(&t, &s, 2000000, 4, 2, &e);
    if (ok) store_close(t.store);
    t.conf.convert = refuse;
    t.pool.used = 0;
    ok = ok && store_open(&t.store, &t.conf, &e) && !store_load(t.store, NULL, NULL, &e);
    tap_ok(ok && strstr(e.text, "has a bad hash"), "what convert says comes out: %s", e.text);
    trial_close(&t);

    const char *path = s.path[1];
    s.path[1] = "no/such/file";
    ok = trial_open(&t, &s, 0, 4, 2, &e);
    tap_ok(!ok && e.code == ERR_IO && strstr(e.full, "no/such/file"), "no file: %s", e.full);
    arena_close(&t.pool);
    s.path[1] = dir;
    ok = trial_open(&t, &s, 0, 4, 2, &e);
    tap_ok(!ok && strstr(e.full, dir) && !strstr(e.text, "/"), "a folder: %s", e.full);
    arena_close(&t.pool);
    s.path[1] = path;

    s.tile[s.n_tile - 1].len++;
    ok = trial_open(&t, &s, 0, 4, 2, &e);
    tap_ok(!ok && e.code == ERR_FORMAT, "a tile past the end: %s", e.text);
    arena_close(&t.pool);
    s.tile[s.n_tile - 1].len--;

    struct arena small;
    t.conf.pool = &small;
    ok = arena_open(&small, "small pool", 100000, &e) && store_open(&t.store, &t.conf, &e);
    tap_ok(!ok && e.code == ERR_MEMORY, "too small a pool: %s", e.text);
    t.conf.pin_bytes = 1000000;
    ok = store_open(&t.store, &t.conf, &e);
    tap_ok(!ok && e.code == ERR_MEMORY, "for what stays, too: %s", e.text);
    arena_close(&small);
    scene_close(&s);
}

/* A file cut while it streams: an error soon and for ever, never a hang. */
static void test_truncation(const char *dir) {
    static struct scene s;
    static struct trial t;
    struct err e = {0};
    if (!tap_ok(scene_open(&s, dir, 3000001), "files made")) return;
    cut_tiles(&s, 60000, 90000);
    bool ok = trial_open(&t, &s, 800000, 4, 2, &e) && store_load(t.store, NULL, NULL, &e) &&
              trial_sweeps(&t, 2, 2, &e) && t.sweeper.n_failed == 0;
    tap_ok(ok, "two sweeps before the cut");
    ok = ok && truncate(s.path[0], 1000001) == 0 && trial_sweeps(&t, 2, 2, &e);
    tap_ok(ok && t.sweeper.n_failed >= 2 && t.sweeper.n_wrong == 0 &&
               t.sweeper.err.code == ERR_FORMAT && strstr(t.sweeper.err.full, s.path[0]),
           "cut: %s", t.sweeper.err.text);
    struct view v;
    uint32_t n_refused = 0;
    for (uint32_t i = 0; ok && i < s.n_tile; i++) n_refused += !store_get(t.store, i, &v, &e);
    tap_ok(n_refused == s.n_tile, "and the error is final, for resident tiles too");
    trial_close(&t);
    /* On demand: tiles of either file are wanted, sooner or later of the one that was cut. */
    scene_close(&s);
    if (!tap_ok(scene_open(&s, dir, 3000001), "files made")) return;
    cut_tiles(&s, 60000, 90000);
    for (uint32_t i = 0; i < s.n_tile; i++) s.tile[i].mem = 131072;
    s.n_demand = s.n_tile;
    s.cache_bytes = 8 * 131072;
    ok = trial_open(&t, &s, 0, 0, 2, &e) && store_load(t.store, NULL, NULL, &e) &&
         trial_sweeps(&t, 2, 2, &e) && t.sweeper.n_failed == 0;
    ok = ok && truncate(s.path[0], 1000001) == 0 && trial_sweeps(&t, 2, 9, &e);
    tap_ok(ok && t.sweeper.n_failed >= 1 && t.sweeper.n_wrong == 0, "cut, on demand");
    ok = ok && !store_get(t.store, 0, &v, &e) && e.code == ERR_FORMAT &&
         strstr(e.full, s.path[0]) && s.tile[store_failed(t.store, 1)].file == 0;
    tap_ok(ok, "an error that names file and tile: %s", e.text);
    trial_close(&t);
    s.n_demand = 0;
    scene_close(&s);
}

/* Closing while readers wait for slots, or read, or before and in the middle of a load. */
static void test_close(const char *dir) {
    static struct scene s;
    static struct trial t;
    struct err e = {0};
    if (!tap_ok(scene_open(&s, dir, 6000001), "files made")) return;
    cut_tiles(&s, 60000, 90000);
    uint64_t begin = clock_ns();
    bool ok = true;
    for (uint32_t i = 0; ok && i < 40; i++) {
        struct view v;
        ok = trial_open(&t, &s, i % 2 ? 1000000 : 0, 2 + i % 7, 1 + i % 4, &e);
        if (ok && i > 2) ok = store_load(t.store, NULL, NULL, &e);
        for (uint32_t k = 0; ok && i > 5 && k < i; k++) {
            ok = store_get(t.store, k, &v, &e) && is_right(&s, k, &v);
            if (ok && k + 1 < i) store_put(t.store, k);
        }
        if (i % 5 == 0) nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
        trial_close(&t);
    }
    double took = (double)(clock_ns() - begin) * 1e-9;
    tap_ok(ok && took < 20, "40 stores closed at any moment, %.2f s in all%s%s", took,
           ok ? "" : ": ", ok ? "" : e.text);
    scene_close(&s);
}

static void *aligned(size_t len) {
    return aligned_alloc(64 << 10, (len + (64 << 10) - 1) & ~(size_t)0xffff);
}

/* Any offset and length of a file, up to its last byte and one more. */
static bool check_reads(const struct content *c, bool want_direct, struct err *e) {
    struct direct d;
    if (!direct_open(&d, c->path, e)) return false;
    bool ok = d.size == c->len && (d.is_direct || !want_direct);
    uint8_t *at = NULL;
    uint64_t n_read = 0;
    uint8_t *buf = aligned(direct_room(&d, 300000));
    for (int i = 0; ok && buf && i < 300; i++) {
        size_t len = 1 + rnd(i % 2 ? 300000 : 600);
        uint64_t off = i % 3 == 0 ? c->len - len : rnd(c->len - len);
        size_t room = direct_room(&d, len);
        memset(buf, 0xee, room);
        ok = direct_read(&d, buf, off, len, &at, &n_read, e) && at >= buf &&
             at + len <= buf + room && memcmp(at, c->bytes + off, len) == 0;
    }
    if (ok && direct_read(&d, buf, c->len - 10, 11, &at, NULL, e)) ok = false;
    if (ok && direct_read(&d, buf, c->len + 100000, 1, &at, NULL, e)) ok = false;
    if (ok && direct_read(&d, buf, UINT64_MAX - 5, 4, &at, NULL, e)) ok = false;
    if (ok && e->code != ERR_FORMAT) ok = false;
    free(buf);
    direct_close(&d);
    return ok;
}

static void test_direct(const char *dir, bool want_direct, const char *what) {
    struct content c = {0};
    struct err e = {0};
    bool ok = make_file(&c, dir, "direct", 1000003) && check_reads(&c, want_direct, &e);
    tap_ok(ok, "%s: reads at any offset, of any length, to the last byte: %s", what, e.text);
    unlink(c.path);
    free(c.bytes);
}

/* Files that refuse O_DIRECT when opened, as squashfs does: /proc, and ramfs where it mounts. */
static void test_refusing(void) {
    struct direct d;
    struct err e = {0};
    uint8_t line[16];
    uint8_t *at = line;
    bool ok = direct_open(&d, "/proc/version", &e) && !d.is_direct &&
              direct_read(&d, line, 2, 10, &at, NULL, &e) && memcmp(at, "nux versio", 10) == 0;
    tap_ok(ok, "a file that takes no O_DIRECT is read all the same: %s", e.text);
    direct_close(&d);
    char dir[] = "/tmp/dair-ramfs-XXXXXX";
    if (!mkdtemp(dir)) return;
    if (unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
        mount("none", dir, "ramfs", 0, NULL) == 0) {
        test_direct(dir, false, "ramfs");
        test_random(dir, "ramfs", 6, 3000001);
        umount(dir);
    } else {
        tap_skip("ramfs: may not be mounted here");
    }
    rmdir(dir);
}

static void test_self(void) {
    struct direct d;
    struct err e = {0};
    uint8_t *buf = aligned(8192);
    uint8_t *at = buf;
    bool ok = buf && direct_open(&d, "/proc/self/exe", &e) &&
              direct_read(&d, buf, 1, 3, &at, NULL, &e) && memcmp(at, "ELF", 3) == 0;
    tap_ok(ok, "the program reads itself: %s", e.text);
    direct_close(&d);
    char fifo[] = "/tmp/dair-fifo-XXXXXX";
    int fd = mkstemp(fifo);
    if (fd >= 0) close(fd);
    ok = unlink(fifo) == 0 && mkfifo(fifo, 0600) == 0 && !direct_open(&d, fifo, &e);
    tap_ok(ok && strstr(e.text, "is not a file"), "a FIFO is refused at once: %s", e.text);
    unlink(fifo);
    free(buf);
}

static void test_probe(const char *dir) {
    struct content c = {0};
    struct disk_speed sp = {0};
    struct err e = {0};
    bool ok = make_file(&c, dir, "probe", 5000001) &&
              disk_probe(c.path, 13, c.len - 13, 300000, 2, 0.05, &sp, &e);
    tap_ok(ok && sp.bytes > 0 && sp.bytes_per_s > 0 && sp.seconds < 5, "probe: %.0f MB/s %s",
           sp.bytes_per_s * 1e-6, e.text);
    tap_ok(!disk_probe("no/such/file", 0, 1000, 1000, 2, 0.05, &sp, &e), "probe: %s", e.text);
    ok = truncate(c.path, 100) == 0 && disk_probe(c.path, 0, c.len, 300000, 2, 0.05, &sp, &e);
    tap_ok(!ok, "probe: %s", e.text);
    unlink(c.path);
    free(c.bytes);
}

/* Readers that have nothing to do sleep, and so does who waits for them. */
static void test_idle(const char *dir) {
    static struct scene s;
    static struct trial t;
    struct err e = {0};
    struct timespec a, b;
    if (!tap_ok(scene_open(&s, dir, 3000001), "files made")) return;
    cut_tiles(&s, 60000, 90000);
    bool ok = trial_open(&t, &s, 0, 4, 4, &e) && store_load(t.store, NULL, NULL, &e);
    nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &a);
    nanosleep(&(struct timespec){.tv_nsec = 300000000}, NULL);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &b);
    double burnt = (double)(b.tv_sec - a.tv_sec) + 1e-9 * (double)(b.tv_nsec - a.tv_nsec);
    tap_ok(ok && burnt < 0.006, "an idle store sleeps: %.2f %% of a core", burnt / 0.003);
    trial_close(&t);
    scene_close(&s);
}

static bool copy(void *owner, uint32_t i, void *dst, const void *raw, struct err *e) {
    const struct tile *tile = owner;
    (void)e;
    memcpy(dst, raw, tile[i].len);
    return true;
}

static bool hash_sweep(struct store *s, const struct tile *tile, uint32_t n, struct err *e) {
    static uint32_t all[10000];
    uint64_t hash = 14695981039346656037U;
    for (uint32_t i = 0; i < n; i++) all[i] = i;
    store_want(s, all, n);
    for (uint32_t i = 0; i < n; i++) {
        struct view v;
        if (!store_get(s, i, &v, e)) return false;
        for (uint32_t k = 0; k < tile[i].len; k++) hash = (hash ^ v.p[k]) * 1099511628211U;
        store_put(s, i);
    }
    printf("sweep %016llx\n", (unsigned long long)hash);
    return true;
}

/* Tiles of 60000 bytes, so that none begins or ends with a block. */
static bool sweep_file(const char *path, int n_sweep, uint64_t pin, uint64_t cache,
                       uint32_t n_reader, struct err *e) {
    static struct tile tile[10000];
    struct direct d;
    if (!direct_open(&d, path, e)) return false;
    uint32_t n = 0;
    for (uint64_t at = 1; at < d.size && n < 10000; at += 60000, n++) {
        uint64_t len = d.size - at < 60000 ? d.size - at : 60000;
        tile[n] = (struct tile){.len = (uint32_t)len, .off = at, .mem = (len + 63) & ~63U};
    }
    printf("%s\n", d.is_direct ? "direct" : "not direct");
    direct_close(&d);
    struct arena pool;
    struct store *s = NULL;
    struct store_conf c = {.file = &path,
                           .n_file = 1,
                           .tile = tile,
                           .n_tile = n,
                           .n_demand = cache ? n : 0,
                           .n_slot = 4,
                           .pin_bytes = pin,
                           .cache_bytes = cache,
                           .half_life = 100,
                           .n_reader = n_reader,
                           .n_fetch = n_reader,
                           .pool = &pool,
                           .owner = tile,
                           .convert = copy};
    bool ok = arena_open(&pool, "pool", pin + cache + store_ring_bytes(longest_of(tile, n), 8), e);
    if (!ok) return false;
    ok = store_open(&s, &c, e) && store_load(s, NULL, NULL, e);
    for (int i = 0; ok && i < n_sweep; i++) ok = hash_sweep(s, tile, n, e);
    store_close(s);
    arena_close(&pool);
    return ok;
}

/* Read twice into one buffer, of which the first KEEP bytes survive in between: what a first pread
 * that claims KEEP bytes, and does nothing, ought to have read. The rest must be read on. */
static bool read_again(const char *path, size_t keep, struct err *e) {
    enum { LEN = 1200000 };
    struct direct d;
    if (!direct_open(&d, path, e)) return false;
    size_t room = direct_room(&d, LEN);
    uint8_t *buf = aligned(room);
    uint8_t *want = malloc(LEN);
    uint8_t *at = buf;
    bool ok = buf && want && direct_read(&d, buf, 0, LEN, &at, NULL, e);
    if (ok) {
        memcpy(want, at, LEN);
        memset(buf + keep, 0xee, room - keep);
        ok = direct_read(&d, buf, 0, LEN, &at, NULL, e);
    }
    if (ok) printf("%s\n", memcmp(at, want, LEN) == 0 ? "same" : "other bytes");
    free(buf);
    free(want);
    direct_close(&d);
    return ok;
}

static int subject(int argc, char **argv) {
    struct err e = {0};
    bool ok;
    bool is_demand = strcmp(argv[1], "demand") == 0;
    if (argc == 6 && (is_demand || strcmp(argv[1], "sweep") == 0)) {
        uint64_t bytes = strtoull(argv[4], NULL, 10);
        ok = sweep_file(argv[2], atoi(argv[3]), is_demand ? 0 : bytes, is_demand ? bytes : 0,
                        (uint32_t)strtoul(argv[5], NULL, 10), &e);
    } else if (argc == 4 && strcmp(argv[1], "again") == 0) {
        ok = read_again(argv[2], strtoul(argv[3], NULL, 10), &e);
    } else {
        ok = err_set(&e, ERR_USAGE, "test_store: see its first comment");
    }
    if (!ok) printf("error: %s\n", e.full);
    return ok ? 0 : err_exit_status(&e);
}

int main(int argc, char **argv) {
    if (argc > 1) return subject(argc, argv);
    const char *dir = getenv("TMPDIR");
    if (!dir || !*dir) dir = "/tmp";
    test_spread();
    test_direct(dir, false, dir);
    test_self();
    test_corners(dir);
    test_random(dir, dir, 24 / SLOWER, 8000003 / SLOWER);
    if (access("/dev/shm", W_OK) == 0) {
        test_direct("/dev/shm", false, "tmpfs");
        test_random("/dev/shm", "tmpfs", 12 / SLOWER, 4000003);
    } else {
        tap_skip("tmpfs: no /dev/shm to write to");
    }
    test_refusals(dir);
    test_stopped(dir);
    test_guess(dir);
    test_full(dir);
    test_at_once(dir);
    test_truncation(dir);
    test_close(dir);
    test_idle(dir);
    test_probe(dir);
    test_refusing();
    return tap_done();
}
