/* par.c - the team waits in its own loop, not in OpenMP's.
 *
 * A region of libgomp costs 0.4 us and its idle members burn their cores or, told to be passive,
 * need 40 us to wake; one of ours costs a quarter of that and falls asleep by itself. So OpenMP is
 * asked once, for the threads, and everything after that is two counters.
 */
#include "base/par.h"

#include "base/bell.h"

#include <assert.h>
#include <pthread.h>
#include <sched.h>
#include <stdalign.h>
#include <string.h>
#include <unistd.h>
#ifdef _OPENMP
#include <omp.h>
#endif

/* A wait spins RELAX_SPIN steps of 10-70 ns, then yields the core RELAX_YIELD times at 0.3 us or
 * more, and then asks to sleep: 50 to 100 us in all if nobody else wants the core. It yields early
 * for the sake of a busy box, where a member may share its core with the one it waits for. */
enum { RELAX_SPIN = 40, RELAX_YIELD = 128, CACHE_LINE = 64, SETS = PAR_CPUS / CPU_SETSIZE };

struct par {
    alignas(CACHE_LINE) struct bell start;  // one ring a run
    par_work *work;
    void *ctx;
    int n;                // members
    int n_run;            // of them those who take part in runs
    int stay;             // and those who still will after this run
    unsigned first_turn;  // where a wait begins: RELAX_SPIN when there are too few cores to spin on
    atomic_bool quit;
    /* for members that do not take part */
    struct bell wider;      // one ring for each time that some are called back
    _Atomic int width;      // those called have a lower number
    _Atomic uint32_t from;  // the run after which they come in
    bool is_pinned;
    cpu_set_t before[SETS];                // where the caller was, and with it all of its team
    alignas(CACHE_LINE) _Atomic int left;  // members still at work
    struct bell done;
};

struct member {
    struct par *team;
    int id;
    pthread_t thread;
};

#if defined(__x86_64__) || defined(__i386__)
static inline void cpu_relax(void) {
    __builtin_ia32_pause();
}
#elif defined(__aarch64__)
/* `yield` is a no-op on the cores that we know; isb holds the pipeline for some 10 ns. */
static inline void cpu_relax(void) {
    __asm__ volatile("isb" ::: "memory");
}
#else
static inline void cpu_relax(void) {
    atomic_signal_fence(memory_order_seq_cst);
}
#endif

bool par_relax(unsigned *turn) {
    if (*turn < RELAX_SPIN) {
        cpu_relax();
    } else if (*turn < RELAX_SPIN + RELAX_YIELD) {
        sched_yield();
    } else {
        return true;
    }
    (*turn)++;
    return false;
}

/* A member left out, who noted `seen` before its last run ended: it must not take an earlier call for its
 * own. Returns the number of the last run before it is in again. */
static uint32_t wait_for_call(struct par *t, int id, uint32_t seen) {
    for (;;) {
        while (bell_seen(&t->wider) == seen) bell_wait(&t->wider, seen);
        seen = bell_seen(&t->wider);
        if (atomic_load(&t->quit) || id < atomic_load_explicit(&t->width, memory_order_acquire)) {
            return atomic_load_explicit(&t->from, memory_order_relaxed);
        }
    }
}

/* OpenMP keeps the threads for its next team, which may have no places. */
static void go_back(const struct par *t) {
    if (t->is_pinned) (void)sched_setaffinity(0, sizeof t->before, t->before);
}

static void member_loop(struct par *t, int id) {
    uint32_t run = 0;
    for (;;) {
        unsigned turn = t->first_turn;
        while (bell_seen(&t->start) == run) {
            if (par_relax(&turn)) bell_wait(&t->start, run);
        }
        if (atomic_load(&t->quit)) break;
        run++;
        t->work(t->ctx, id, t->n_run);
        bool stays = id < t->stay;
        uint32_t seen = bell_seen(&t->wider);
        if (atomic_fetch_sub_explicit(&t->left, 1, memory_order_acq_rel) == 1) {
            bell_ring(&t->done);
        }
        if (stays) continue;
        run = wait_for_call(t, id, seen);
        if (atomic_load(&t->quit)) break;
    }
    go_back(t);
}

void par_run(struct par *t, par_work *work, void *ctx) {
    if (t->n_run == 1) {
        work(ctx, 0, 1);
        return;
    }
    t->work = work;
    t->ctx = ctx;
    atomic_store_explicit(&t->left, t->n_run - 1, memory_order_relaxed);
    bell_ring(&t->start);
    work(ctx, 0, t->n_run);
    unsigned turn = t->first_turn;
    for (;;) {
        uint32_t seen = bell_seen(&t->done);
        if (atomic_load_explicit(&t->left, memory_order_acquire) == 0) return;
        if (par_relax(&turn)) bell_wait(&t->done, seen);
    }
}

static void do_nothing(void *ctx, int thread, int n_thread) {
    (void)ctx, (void)thread, (void)n_thread;
}

/* Members go in the course of a run, so that all know of it before the next begins. */
void par_width(struct par *t, int n) {
    assert(n >= 1 && n <= t->n);
    if (n == t->n_run) return;
    t->stay = n;
    if (n < t->n_run) {
        par_run(t, do_nothing, NULL);
        t->n_run = n;
        return;
    }
    atomic_store_explicit(&t->from, bell_seen(&t->start), memory_order_relaxed);
    atomic_store_explicit(&t->width, n, memory_order_release);
    t->n_run = n;
    bell_ring(&t->wider);
}

/* --- places --- */

static void go_to_place(void *ctx, int thread, int n_thread) {
    const struct par_places *p = ctx;
    cpu_set_t set[SETS];
    (void)n_thread;
    memset(set, 0, sizeof set);
    CPU_SET_S(p->cpu[(unsigned)thread % p->n], sizeof set, set);
    (void)sched_setaffinity(0, sizeof set, set);
}

static bool where_is(pid_t thread, cpu_set_t set[SETS]) {
    memset(set, 0, SETS * sizeof *set);
    return sched_getaffinity(thread, SETS * sizeof *set, set) == 0;
}

void par_pin(struct par *t, const struct par_places *p) {
    struct par_places places = *p;
    if (!p->n || (!t->is_pinned && !where_is(0, t->before))) return;
    t->is_pinned = true;
    par_run(t, go_to_place, &places);
}

void par_roam(void) {
    cpu_set_t set[SETS];
    if (where_is(getpid(), set)) (void)sched_setaffinity(0, sizeof set, set);
}

int par_threads(const struct par *t) {
    return t->n;
}

static void team_quit(struct par *t) {
    atomic_store(&t->quit, true);
    bell_ring(&t->start);
    bell_ring(&t->wider);
    go_back(t);
}

static void *member_main(void *arg) {
    struct member *m = arg;
    (void)pthread_setname_np(pthread_self(), "dair-compute");
    member_loop(m->team, m->id);
    return NULL;
}

static void members_stop(struct member *m, int n) {
    team_quit(m[0].team);
    for (int i = 1; i < n; i++) pthread_join(m[i].thread, NULL);
}

static bool members_start(struct par *t, struct member *m, struct err *e) {
    m[0] = (struct member){.team = t};
    for (int i = 1; i < t->n; i++) {
        m[i] = (struct member){.team = t, .id = i};
        int fault = pthread_create(&m[i].thread, NULL, member_main, &m[i]);
        if (fault) {
            members_stop(m, i);
            return err_set(e, ERR_MEMORY, "the system gives %d of %d compute threads: %s", i, t->n,
                           strerror(fault));
        }
    }
    return true;
}

static void team_init(struct par *t, int n_thread) {
    cpu_set_t cpus;
    bool crowded = sched_getaffinity(0, sizeof cpus, &cpus) == 0 && CPU_COUNT(&cpus) < n_thread;
    *t = (struct par){.n = n_thread,
                      .n_run = n_thread,
                      .stay = n_thread,
                      .width = n_thread,
                      .first_turn = crowded ? RELAX_SPIN : 0};
}

#ifdef _OPENMP
/* libgomp ends the process when a thread cannot be had, so try with plain threads first. */
static bool team_run(struct par *t, void (*body)(void *, struct par *), void *ctx, struct err *e) {
    struct member m[PAR_MAX];
    if (!members_start(t, m, e)) return false;
    members_stop(m, t->n);
    team_init(t, t->n);

    int n_got = 0;
    omp_set_dynamic(0);
#pragma omp parallel num_threads(t->n)
    {
        bool whole = omp_get_num_threads() == t->n;
        if (omp_get_thread_num() == 0) {
            n_got = omp_get_num_threads();
            if (whole) {
                body(ctx, t);
                team_quit(t);
            }
        } else if (whole) {
            member_loop(t, omp_get_thread_num());
        }
    }
    if (n_got == t->n) return true;
    return err_set(e, ERR_MEMORY,
                   "OpenMP gives %d of %d compute threads (is OMP_THREAD_LIMIT set?)", n_got, t->n);
}
#else
static bool team_run(struct par *t, void (*body)(void *, struct par *), void *ctx, struct err *e) {
    struct member m[PAR_MAX];
    if (!members_start(t, m, e)) return false;
    body(ctx, t);
    members_stop(m, t->n);
    return true;
}
#endif

MUST par_enter(int n_thread, void (*body)(void *ctx, struct par *team), void *ctx, struct err *e) {
    if (n_thread < 1 || n_thread > PAR_MAX) {
        return err_set(e, ERR_USAGE, "%d compute threads: 1 to %d are possible", n_thread, PAR_MAX);
    }
    struct par team;
    team_init(&team, n_thread);
    if (n_thread > 1) return team_run(&team, body, ctx, e);
    body(ctx, &team);
    go_back(&team);
    return true;
}

/* --- items --- */

struct span {
    uint32_t at, end;
};

static struct span unpack(uint64_t v) {
    return (struct span){(uint32_t)(v >> 32), (uint32_t)v};
}

static uint64_t pack(uint32_t at, uint32_t end) {
    return (uint64_t)at << 32 | end;
}

void par_deal(struct par_items *p, const struct par *team, uint32_t first, uint32_t end,
              bool in_order) {
    uint64_t n = end - first, n_share = in_order ? 1 : (uint64_t)team->n_run;
    p->n_share = (int)n_share;
    p->per_share = (uint32_t)team->n_run / (uint32_t)n_share;
    for (uint64_t i = 0; i < n_share; i++) {
        uint32_t from = first + (uint32_t)(n * i / n_share);
        uint32_t to = first + (uint32_t)(n * (i + 1) / n_share);
        atomic_store_explicit(&p->share[i].span, pack(from, to), memory_order_relaxed);
    }
}

/* A span seen once is never there again, as its first item is taken by then: comparing is enough. */
static bool change(_Atomic uint64_t *span, uint64_t *seen, uint64_t to) {
    return atomic_compare_exchange_strong_explicit(span, seen, to, memory_order_relaxed,
                                                   memory_order_relaxed);
}

static uint32_t take_front(struct par_items *p, _Atomic uint64_t *span, uint32_t *first) {
    uint64_t seen = atomic_load_explicit(span, memory_order_relaxed);
    for (;;) {
        struct span left = unpack(seen);
        if (left.at >= left.end) return 0;
        uint32_t n = (left.end - left.at) / (3 * p->per_share);
        n = n > 8 ? 8 : n ? n : 1;
        if (!change(span, &seen, pack(left.at + n, left.end))) continue;
        *first = left.at;
        return n;
    }
}

/* Half of the longest share to own, which is empty; false when all are. */
static bool take_over(struct par_items *p, _Atomic uint64_t *own) {
    for (;;) {
        int of = 0;
        uint64_t seen = 0;
        uint32_t most = 0;
        for (int i = 0; i < p->n_share; i++) {
            uint64_t v = atomic_load_explicit(&p->share[i].span, memory_order_relaxed);
            struct span s = unpack(v);
            if (s.at < s.end && s.end - s.at > most) most = s.end - s.at, of = i, seen = v;
        }
        if (!most) return false;
        struct span s = unpack(seen);
        uint32_t half = (most + 1) / 2;
        if (!change(&p->share[of].span, &seen, pack(s.at, s.end - half))) continue;
        atomic_store_explicit(own, pack(s.end - half, s.end), memory_order_relaxed);
        return true;
    }
}

uint32_t par_take(struct par_items *p, int thread, uint32_t *first) {
    _Atomic uint64_t *own = &p->share[p->n_share > 1 ? thread : 0].span;
    uint32_t n;
    while (!(n = take_front(p, own, first))) {
        if (!take_over(p, own)) return 0;
    }
    return n;
}
