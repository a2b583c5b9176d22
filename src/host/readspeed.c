/* readspeed.c - what the cores can read together, the ceiling of any multiply by resident weights.
 *
 * Plain C: sixteen 64-bit words (of SSE2 or NEON eight registers) and a prefetch some lines ahead keep a
 * core's misses busy; with twice as many, registers are spilled. How far ahead is best differs by
 * machine and by how many read: all distances are tried.
 */
#include "base/arena.h"
#include "base/clock.h"
#include "base/par.h"
#include "host/host.h"

#include <string.h>

enum { PASSES = 3, LINE = 8, WORDS = 2 * LINE, SPEED_ARENA_LEAST = 8 << 20 };
enum { N_AHEAD = 5 };
static const size_t aheads[N_AHEAD] = {16, 32, 64, 144, 288};  // lines

struct speed {
    uint64_t *mem;  // [n_word]
    size_t n_word, ahead;
    uint64_t sum[PAR_MAX];  // kept, or the reading would be optimised away
    double best_s;
};

static uint64_t read_words(const uint64_t *p, size_t n, size_t ahead) {
    uint64_t sum[WORDS] = {0};
    for (size_t i = 0; i + WORDS <= n; i += WORDS) {
        for (size_t l = 0; l < WORDS / LINE; l++) __builtin_prefetch(p + i + (l + ahead) * LINE);
        for (int k = 0; k < WORDS; k++) sum[k] ^= p[i + k];
    }
    for (int k = 1; k < WORDS; k++) sum[0] ^= sum[k];
    return sum[0];
}

static size_t share(const struct speed *s, int thread, int n_thread, size_t *n) {
    size_t each = s->n_word / (size_t)n_thread / WORDS * WORDS;
    *n = each;
    return each * (size_t)thread;
}

/* Memory never written is one page of zeros, read from the cache. */
static void fill_share(void *ctx, int thread, int n_thread) {
    struct speed *s = ctx;
    size_t n;
    size_t at = share(s, thread, n_thread, &n);
    memset(s->mem + at, thread + 1, n * sizeof *s->mem);
}

static void read_share(void *ctx, int thread, int n_thread) {
    struct speed *s = ctx;
    size_t n;
    size_t at = share(s, thread, n_thread, &n);
    s->sum[thread] += read_words(s->mem + at, n, s->ahead);
}

static void time_passes(void *ctx, struct par *team) {
    struct speed *s = ctx;
    par_run(team, fill_share, s);
    for (int pass = 0; pass < PASSES * N_AHEAD; pass++) {
        s->ahead = aheads[pass % N_AHEAD];
        uint64_t begin = clock_ns();
        par_run(team, read_share, s);
        double took = (double)(clock_ns() - begin) * 1e-9;
        if (pass == 0 || took < s->best_s) s->best_s = took;
    }
}

MUST host_read_speed(int n_thread, uint64_t bytes, double *bytes_per_s, struct err *e) {
    struct arena a;
    struct speed s = {.n_word = bytes / sizeof *s.mem};
    size_t need = bytes < SPEED_ARENA_LEAST ? SPEED_ARENA_LEAST : bytes;
    if (!arena_open(&a, "read speed", need, e)) return false;
    bool ok = arena_array(&a, &s.mem, s.n_word, sizeof *s.mem, "words", e) &&
              par_enter(n_thread, time_passes, &s, e);
    if (ok) {
        volatile uint64_t keep = s.sum[0];
        (void)keep;
        *bytes_per_s = s.best_s > 0 ? (double)bytes / s.best_s : 0;
    }
    arena_close(&a);
    return ok;
}
