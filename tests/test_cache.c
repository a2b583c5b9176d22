/* test_cache.c - the policy of tiles on demand, on traces of routing: drawn evenly, and recorded of a model
 * with random weights that reads a text which repeats itself and drifts. */
#include "kernels.h"
#include "model/synth.h"
#include "nn/state.h"
#include "store/cache.h"
#include "tap.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LAYER_MOST = 16, USED_MOST = 8, TOKEN_MOST = 4096, HALF_LIFE_TOKENS = 16 };

struct trace {
    uint32_t n_layer, n_expert, n_used, n_token;
    uint32_t pick[TOKEN_MOST][LAYER_MOST][USED_MOST];  // as numbers among all layers' experts
};

static uint64_t rng = 88172645463325252U;
static uint32_t rnd(uint32_t below) {
    rng ^= rng << 13;
    rng ^= rng >> 7;
    rng ^= rng << 17;
    return (uint32_t)(rng >> 11) % below;
}

/* --- traces --- */

static void draw_evenly(struct trace *t) {
    *t = (struct trace){.n_layer = 12, .n_expert = 128, .n_used = 8, .n_token = TOKEN_MOST};
    for (uint32_t i = 0; i < t->n_token; i++) {
        for (uint32_t l = 0; l < t->n_layer; l++) {
            for (uint32_t k = 0; k < t->n_used; k++) {
                uint32_t x, j;
                do {
                    x = l * t->n_expert + rnd(t->n_expert);
                    for (j = 0; j < k && t->pick[i][l][j] != x; j++) continue;
                } while (j < k);
                t->pick[i][l][k] = x;
            }
        }
    }
}

/* Half of the words come again soon; the others are rare or not by Zipf's law, of one of four topics. */
static void make_text(int32_t *token, uint32_t n, uint32_t n_vocab) {
    uint32_t topic = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (i % 128 == 0) topic = rnd(4);
        if (i >= 16 && rnd(2)) {
            token[i] = token[i - 1 - rnd(16)];
            continue;
        }
        double u = (rnd(1 << 20) + 1.0) / (1 << 20);
        uint32_t rank = (uint32_t)(exp(u * log(n_vocab / 4.0)) - 1);
        token[i] = (int32_t)((rank * 4 + topic) % n_vocab);
    }
}

struct recorder {
    struct trace *t;
    struct nn *nn;
    int32_t token[TOKEN_MOST];
    struct err err;
    bool ok;
};

static bool on_layer(void *ctx, uint32_t done, uint32_t n_layer) {
    struct recorder *r = ctx;
    struct trace *t = r->t;
    if (!done) return true;  // loading
    (void)n_layer;
    for (uint32_t k = 0; k < t->n_used; k++) {
        t->pick[t->n_token][done - 1][k] = (done - 1) * t->n_expert + r->nn->moe.pick[k].expert;
    }
    return true;
}

static void read_text(void *ctx, struct par *team) {
    struct recorder *r = ctx;
    uint32_t n = 1024;
    r->ok = true;
    nn_watch(r->nn, on_layer, r);
    for (r->t->n_token = 0; r->ok && r->t->n_token < n; r->t->n_token++) {
        r->ok = nn_step(r->nn, team, 0, &r->token[r->t->n_token], 1, NN_NO_LOGITS, &r->err);
    }
}

static MUST record(struct trace *t, struct err *e) {
    static struct recorder r;
    char path[] = "/tmp/test_cache.XXXXXX";
    struct kernels k;
    struct model m;
    struct coll alone;
    int fd = mkstemp(path);
    if (fd < 0) return err_sys(e, "%s", path);
    close(fd);
    struct synth s = {"moe-small", "q4_0", path, 1};
    bool ok = synth_write(&s, NULL, NULL, e) && model_open(&m, path, 0, 0, e);
    if (ok) {
        kernels_init(&k, cpu_features());
        coll_alone(&alone);
        *t = (struct trace){.n_layer = m.n_layer, .n_expert = m.n_expert, .n_used = m.n_used};
        r = (struct recorder){.t = t};
        make_text(r.token, TOKEN_MOST, m.n_vocab);
        struct nn_conf c = {.model = &m,
                            .kernels = &k,
                            .n_slice = 1,
                            .n_seq = 1,
                            .n_ctx = 1024,
                            .n_batch = 1,
                            .kv = KV_F16,
                            .budget = (uint64_t)1 << 40,
                            .n_reader = 1,
                            .n_slot = 2,
                            .n_thread = 1};
        cuts_make(&c.cuts, &m, 1, &(double){1});
        ok = nn_open(&r.nn, &c, &alone, e) && nn_load(r.nn, NULL, NULL, e) &&
             par_enter(1, read_text, &r, e);
        if (ok && !r.ok) ok = false, *e = r.err;
        nn_close(r.nn);
        model_close(&m);
    }
    unlink(path);
    return ok;
}

/* --- policies --- */

static double total(const struct trace *t) {
    return (double)t->n_token * t->n_layer * t->n_used;
}

/* Ours; *share is what of the items has a place. */
static double ours(const struct trace *t, double want, double *share) {
    static struct tile tile[LAYER_MOST * MODEL_MAX_EXPERT];
    struct cache_plan p;
    struct cache c;
    struct err e;
    uint32_t n = t->n_layer * t->n_expert;
    uint64_t hits = 0;
    for (uint32_t i = 0; i < n; i++) tile[i] = (struct tile){.len = 64, .mem = 64};
    cache_plan(&p, tile, n, (uint64_t)(want * n) * 64);
    *share = (double)p.n_place / n;
    if (!cache_open(&c, &p, tile, n, HALF_LIFE_TOKENS * t->n_layer * t->n_used, &e)) return -1;
    for (uint32_t i = 0; i < t->n_token; i++) {
        for (uint32_t l = 0; l < t->n_layer; l++) {
            const uint32_t *list = t->pick[i][l];
            cache_next(&c, list, t->n_used);
            for (uint32_t k = 0; k < t->n_used; k++) hits += cache_use(&c, list[k]) == CACHE_HIT;
            for (uint32_t k = 0; k < t->n_used; k++) cache_let_go(&c, list[k]);
        }
    }
    cache_close(&c);
    return (double)hits / total(t);
}

/* LFU that never forgets: the lowest count goes, of these the one that came first. */
static double plain_lfu(const struct trace *t, uint32_t n_place) {
    static uint32_t count[LAYER_MOST * MODEL_MAX_EXPERT], since[LAYER_MOST * MODEL_MAX_EXPERT];
    static bool here[LAYER_MOST * MODEL_MAX_EXPERT];
    uint32_t n = t->n_layer * t->n_expert, n_here = 0, now = 0;
    uint64_t hits = 0;
    memset(count, 0, sizeof count);
    memset(here, 0, sizeof here);
    for (uint32_t i = 0; i < t->n_token; i++) {
        for (uint32_t u = 0; u < t->n_layer * t->n_used; u++, now++) {
            uint32_t x = t->pick[i][u / t->n_used][u % t->n_used], worst = n;
            count[x]++;
            hits += here[x];
            if (here[x]) continue;
            for (uint32_t j = 0; n_here == n_place && j < n; j++) {
                if (!here[j]) continue;
                if (worst == n || count[j] < count[worst] ||
                    (count[j] == count[worst] && since[j] < since[worst])) {
                    worst = j;
                }
            }
            if (worst < n)
                here[worst] = false;
            else
                n_here++;
            here[x] = true;
            since[x] = now;
        }
    }
    return (double)hits / total(t);
}

/* The best that can be pinned once and for all, knowing all that will come. */
static double best_pins(const struct trace *t, uint32_t n_place) {
    static uint32_t count[LAYER_MOST * MODEL_MAX_EXPERT];
    uint32_t n = t->n_layer * t->n_expert;
    uint64_t hits = 0;
    memset(count, 0, sizeof count);
    for (uint32_t i = 0; i < t->n_token; i++) {
        for (uint32_t u = 0; u < t->n_layer * t->n_used; u++) {
            count[t->pick[i][u / t->n_used][u % t->n_used]]++;
        }
    }
    for (uint32_t k = 0; k < n_place; k++) {
        uint32_t best = 0;
        for (uint32_t j = 1; j < n; j++) {
            if (count[j] > count[best]) best = j;
        }
        hits += count[best];
        count[best] = 0;
    }
    return (double)hits / total(t);
}

/* --- places --- */

static void check_plan(void) {
    static struct tile tile[3000];
    static struct cache_plan p;
    int n_bad = 0;
    for (int trial = 0; trial < 300; trial++) {
        uint32_t n = 1 + rnd(3000), n_size = 1 + rnd(20);
        uint64_t all = 0;
        for (uint32_t i = 0; i < n; i++) {
            uint32_t size = 64 * (1 + rnd(n_size) * 1000);
            tile[i] = (struct tile){.len = size, .mem = size};
            all += size;
        }
        uint64_t bytes = trial % 3 ? (uint64_t)rnd(1 << 30) * (all / 1000000 + 1) : all;
        cache_plan(&p, tile, n, bytes);
        uint64_t held = 0;
        struct cache c;
        struct err e;
        if (p.mem > (bytes > p.least ? bytes : p.least) || (bytes >= all && p.n_place != n) ||
            (bytes >= all && p.missing) || !cache_open(&c, &p, tile, n, 100, &e)) {
            n_bad++;
            continue;
        }
        for (uint32_t i = 0; i < n; i++) held += cache_has(&c, i) ? tile[i].mem : 0;
        for (uint32_t k = 0; k < p.n_class; k++) {
            n_bad += !p.class[k].n_place || p.class[k].n_place > p.class[k].n_item;
        }
        n_bad += held != p.mem;  // every place has its first item
        cache_close(&c);
    }
    tap_ok(!n_bad, "places of all sizes within the bytes given, all of them held");
}

/* Lists longer than the places: in order, each in time, and never more in use than there are. */
static void check_short(void) {
    enum { N = 40, PLACES = 5 };
    struct tile tile[N];
    struct cache_plan p;
    struct cache c;
    struct err e;
    int n_bad = 0, n_hit = 0;
    for (int i = 0; i < N; i++) tile[i] = (struct tile){.len = 64, .mem = 64};
    cache_plan(&p, tile, N, 64 * PLACES);
    if (!tap_ok(cache_open(&c, &p, tile, N, 10, &e), "a cache of five")) return;
    for (int round = 0; round < 200; round++) {
        uint32_t list[N], n = 1 + rnd(N), next = 0, done = 0;
        for (uint32_t i = 0; i < N; i++) list[i] = i;
        for (uint32_t i = 0; i < n; i++) {
            uint32_t j = i + rnd(N - i), x = list[i];
            list[i] = list[j];
            list[j] = x;
        }
        cache_next(&c, list, n);
        while (done < n) {
            enum cache_found f = CACHE_FULL;
            while (next < n && (f = cache_use(&c, list[next])) != CACHE_FULL) {
                n_hit += f == CACHE_HIT;
                next++;
            }
            n_bad += next - done > PLACES || next == done;
            n_bad += next < n && next - done < PLACES;  // refused with a place left
            if (next == done) break;
            for (uint32_t k = 1 + rnd(next - done); k > 0; k--) cache_let_go(&c, list[done++]);
        }
    }
    tap_ok(!n_bad && n_hit > 0, "lists longer than the cache are served in order (%d hits)", n_hit);
    cache_close(&c);
}

/* Whether places and items agree, none is lost, and who is guessed is here. */
static int count_wrong(const struct cache *c) {
    int n_bad = 0;
    for (uint32_t i = 0; i < c->n; i++) {
        const struct cache_item *t = &c->item[i];
        n_bad += t->place != CACHE_NONE && c->held[t->place] != i;
        n_bad += (t->is_guess || t->in_use) && t->place == CACHE_NONE;
    }
    for (uint32_t k = 0; k < c->n_guess; k++) n_bad += c->guess[k] >= c->n;
    return n_bad;
}

/* Reads for guesses end when they like, well or not, and some of them are wanted by then. */
static void check_guesses(void) {
    enum { N = 40, PLACES = 12 };
    struct tile tile[N];
    struct cache_plan p;
    struct cache c;
    struct err e;
    int n_bad = 0, n_right = 0, n_coming = 0, n_forgotten = 0;
    uint32_t reading[N], n_reading = 0;
    for (int i = 0; i < N; i++) tile[i] = (struct tile){.len = 64, .mem = 64};
    cache_plan(&p, tile, N, 64 * PLACES);
    if (!tap_ok(cache_open(&c, &p, tile, N, 10, &e), "a cache of twelve")) return;
    for (int round = 0; round < 5000; round++) {
        uint32_t from = rnd(N), n = 1 + rnd(PLACES / 2);
        uint32_t list[PLACES];
        for (uint32_t i = 0; i < n; i++) list[i] = (from + 3 * i) % N;
        for (int k = 0; k < 4; k++) {
            uint32_t i = rnd(2) ? list[rnd(n)] : rnd(N);
            bool is_here = cache_has(&c, i);
            enum cache_found f = cache_guess(&c, i);
            n_bad += is_here && f == CACHE_MISS;
            if (f == CACHE_MISS) reading[n_reading++] = i;
        }
        for (uint32_t k = n_reading; k-- > 0;) {
            uint32_t i = reading[k];
            if (rnd(3)) continue;
            reading[k] = reading[--n_reading];
            n_bad += cache_arrived(&c, i);  // nobody wants anything now
            if (!rnd(4)) cache_forget(&c, i), n_forgotten++;
        }
        n_bad += count_wrong(&c);
        cache_next(&c, list, n);
        for (uint32_t k = 0; k < n; k++) {
            bool is_ahead = c.item[list[k]].is_ahead;
            enum cache_found f = cache_use(&c, list[k]);
            while (f == CACHE_FULL && n_reading > 0) {  // what is read for nothing makes room
                uint32_t i = reading[--n_reading];
                if (!cache_arrived(&c, i)) f = cache_use(&c, list[k]);
            }
            n_bad += f == CACHE_FULL || (is_ahead && f == CACHE_MISS);
            n_right += is_ahead;
            n_coming += f == CACHE_COMING;
        }
        for (uint32_t k = n_reading; k-- > 0;) {
            if (c.item[reading[k]].is_guess) continue;
            n_bad += !cache_arrived(&c, reading[k]);
            reading[k] = reading[--n_reading];
        }
        for (uint32_t k = 0; k < n; k++) cache_let_go(&c, list[k]);
        n_bad += count_wrong(&c) + (n_reading > PLACES);
    }
    tap_ok(!n_bad && n_right > n_coming && n_coming > 0 && n_forgotten > 0,
           "guesses: %d right, %d of them late, %d forgotten; %d faults", n_right, n_coming,
           n_forgotten, n_bad);
    cache_close(&c);
}

int main(void) {
    static struct trace even, real;
    struct err e = {0};
    double share;
    check_plan();
    check_short();
    draw_evenly(&even);
    for (int pct = 25; pct <= 75; pct += 25) {
        double hit = ours(&even, pct / 100.0, &share);
        double error = sqrt(share * (1 - share) / total(&even));
        tap_ok(hit >= share - 3 * error, "drawn evenly, %d %% have a place: %.2f %% are hits", pct,
               100 * hit);
    }
    bool ok = record(&real, &e);
    if (!tap_ok(ok, "a trace recorded: %u tokens %s", real.n_token, e.text)) return tap_done();
    for (int pct = 15; pct <= 60; pct += 15) {
        double hit = ours(&real, pct / 100.0, &share);
        uint32_t n_place = (uint32_t)(share * real.n_layer * real.n_expert + 0.5);
        double lfu = plain_lfu(&real, n_place), pins = best_pins(&real, n_place);
        tap_ok(
            hit >= lfu && hit >= pins,
            "recorded, %d %% have a place: %.2f %% are hits, of an LFU that never forgets %.2f, of "
            "the best pins %.2f",
            pct, 100 * hit, 100 * lfu, 100 * pins);
    }
    check_guesses();
    return tap_done();
}
