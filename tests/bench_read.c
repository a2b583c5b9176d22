/* bench_read MIB SECONDS THREADS - GB/s at which threads that do nothing else read memory, each its part of
 * MIB in huge pages, over and over: what bench.pl puts beside a model's tokens, which last too: not
 * host_read_speed(), which forecasts by the best of a few passes. Each distance of prefetching has a share of
 * the time, and the best counts. */
#include "base/clock.h"
#include "base/par.h"
#include "read_loop.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { HUGE_PAGE = 2 << 20 };

struct bench {
    char *memory;
    size_t bytes;
    double seconds, best;
    size_t ahead;
    _Atomic uint64_t sum;
};

static void read_part(void *ctx, int thread, int n_thread) {
    struct bench *b = ctx;
    size_t part = b->bytes / (size_t)n_thread / 4096 * 4096;
    b->sum += read_loop(b->memory + (size_t)thread * part, part, b->ahead);
}

static void measure(void *ctx, struct par *team) {
    struct bench *b = ctx;
    for (size_t i = 0; i < N_AHEAD; i++) {
        b->ahead = read_aheads[i];
        double begin = clock_s(), took = 0;
        size_t n = 0;
        for (; took < b->seconds / N_AHEAD; n++) {
            par_run(team, read_part, b);
            took = clock_s() - begin;
        }
        double rate = (double)(n * b->bytes) / took;
        if (rate > b->best) b->best = rate;
    }
}

int main(int argc, char **argv) {
    struct bench b = {0};
    struct err e;
    if (argc != 4) return fprintf(stderr, "usage: bench_read MIB SECONDS THREADS\n"), 2;
    b.bytes = strtoul(argv[1], NULL, 10) << 20;
    b.seconds = strtod(argv[2], NULL);
    b.memory = aligned_alloc(HUGE_PAGE, b.bytes);
    if (!b.memory) return fprintf(stderr, "no memory\n"), 1;
    (void)madvise(b.memory, b.bytes, MADV_HUGEPAGE);
    memset(b.memory, 1, b.bytes);
    if (!par_enter(atoi(argv[3]), measure, &b, &e)) return fprintf(stderr, "%s\n", e.full), 1;
    printf("%.3f\n", b.best * 1e-9);
    free(b.memory);
    return 0;
}
