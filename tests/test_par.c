/* test_par.c - the compute team: every member runs once a run, orders hold, idle costs nothing. */
#include "base/clock.h"
#include "base/par.h"
#include "tap.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifdef __SANITIZE_THREAD__
enum { SLOWED = 1, N_RUN = 2000 };
#elif defined __SANITIZE_ADDRESS__
enum { SLOWED = 0, N_RUN = 4000 };
#else
enum { SLOWED = 0, N_RUN = 20000 };
#endif

struct tally {
    long plain[PAR_MAX];  // each its own: only the team's ordering makes the sum below right
    _Atomic int wrong;
    int n_expected;
};

static void add_one(void *ctx, int thread, int n_thread) {
    struct tally *t = ctx;
    if (n_thread != t->n_expected || thread < 0 || thread >= n_thread)
        atomic_fetch_add(&t->wrong, 1);
    t->plain[thread]++;
}

static void many_runs(void *ctx, struct par *team) {
    struct tally *t = ctx;
    for (int run = 1; run <= N_RUN; run++) {
        par_run(team, add_one, t);
        for (int i = 0; i < par_threads(team); i++) {
            if (t->plain[i] != run) atomic_fetch_add(&t->wrong, 1);
        }
        /* Now and then long enough for the members to fall asleep. */
        if (run % (N_RUN / 8) == 0) nanosleep(&(struct timespec){.tv_nsec = 3000000}, NULL);
    }
}

static void test_counts(int n) {
    struct tally t = {.n_expected = n};
    struct err e = {0};
    bool ok = par_enter(n, many_runs, &t, &e);
    tap_ok(ok && t.wrong == 0, "team of %d: each member runs each of %d runs once", n, N_RUN);
}

/* Uneven work: the run must last as long as its slowest member. */
static void uneven(void *ctx, int thread, int n_thread) {
    (void)n_thread;
    struct tally *t = ctx;
    nanosleep(&(struct timespec){.tv_nsec = 2000000L * thread}, NULL);
    t->plain[thread]++;
}

static void uneven_runs(void *ctx, struct par *team) {
    struct tally *t = ctx;
    for (int run = 1; run <= 5; run++) {
        par_run(team, uneven, t);
        for (int i = 0; i < par_threads(team); i++) {
            if (t->plain[i] != run) atomic_fetch_add(&t->wrong, 1);
        }
    }
}

/* Widths up and down, with runs between or none; who is left out must not run, who is called must. */
struct widths {
    _Atomic int ran[PAR_MAX];
    int n, wrong;
};

static void mark(void *ctx, int thread, int n_thread) {
    struct widths *w = ctx;
    if (n_thread != w->n) atomic_fetch_add(&w->ran[0], 1000);
    atomic_fetch_add(&w->ran[thread], 1);
}

static void change_widths(void *ctx, struct par *team) {
    struct widths *w = ctx;
    uint32_t dice = 12345;
    for (int i = 0; i < N_RUN / 4; i++) {
        dice = dice * 1664525 + 1013904223;
        w->n = 1 + (int)(dice >> 20) % par_threads(team);
        par_width(team, w->n);
        if (dice >> 16 & 3) continue;  // three changes out of four are changed again at once
        for (int run = 0; run < 3; run++) {
            for (int k = 0; k < par_threads(team); k++) atomic_store(&w->ran[k], 0);
            par_run(team, mark, w);
            for (int k = 0; k < par_threads(team); k++) {
                w->wrong += atomic_load(&w->ran[k]) != (k < w->n);
            }
        }
        if (i % (N_RUN / 32) == 0) nanosleep(&(struct timespec){.tv_nsec = 3000000}, NULL);
    }
}

static void test_widths(int n) {
    struct widths w = {0};
    struct err e = {0};
    bool ok = par_enter(n, change_widths, &w, &e);
    tap_ok(ok && !w.wrong, "team of %d at %d widths: those run that shall", n, N_RUN / 4);
}

/* --- items --- */

enum { N_ITEM = 400 };

struct sharing {
    struct par_items items;
    _Atomic int taken[N_ITEM + 1], n_taken, wrong;
    uint32_t first, end;
    bool in_order;
    int slow;  // this member begins its share, and waits for the others to take all the rest; -1: none
};

static void wait_for_others(struct sharing *s, int all) {
    uint64_t begin = clock_ns();
    while (atomic_load(&s->n_taken) < all && clock_ns() - begin < 10000000000U) sched_yield();
    if (atomic_load(&s->n_taken) < all) atomic_fetch_add(&s->wrong, 1);
}

static void take_items(void *ctx, int thread, int n_thread) {
    struct sharing *s = ctx;
    uint32_t first, n, before = s->first, all = s->end - s->first;
    uint32_t own = s->first + (uint32_t)((uint64_t)all * (uint32_t)thread / (uint32_t)n_thread);
    while ((n = par_take(&s->items, thread, &first))) {
        if (n > 8 || first < s->first || first + n > s->end || (s->in_order && first < before)) {
            atomic_fetch_add(&s->wrong, 1);
            return;
        }
        before = first;
        for (uint32_t i = first; i < first + n; i++) atomic_fetch_add(&s->taken[i], 1);
        atomic_fetch_add(&s->n_taken, (int)n);
        if (thread != s->slow || first != own) continue;
        wait_for_others(s, (int)all);
    }
}

static void share_items(void *ctx, struct par *team) {
    struct sharing *s = ctx;
    uint32_t dice = 999;
    for (int run = 0; run < N_RUN / 4; run++) {
        dice = dice * 1664525 + 1013904223;
        s->first = (dice >> 8) % N_ITEM;
        s->end = s->first + (dice >> 20) % (N_ITEM - s->first + 1);
        s->in_order = dice >> 19 & 1;
        bool has_slow = run % 16 == 0 && !s->in_order && par_threads(team) > 1;
        s->slow = has_slow ? (int)(dice >> 4) % par_threads(team) : -1;
        atomic_store(&s->n_taken, 0);
        for (uint32_t i = 0; i <= N_ITEM; i++) atomic_store(&s->taken[i], 0);
        par_deal(&s->items, team, s->first, s->end, s->in_order);
        par_run(team, take_items, s);
        for (uint32_t i = 0; i <= N_ITEM; i++) {
            if (s->taken[i] != (i >= s->first && i < s->end)) atomic_fetch_add(&s->wrong, 1);
        }
    }
}

static void test_items(int n) {
    static struct sharing s;
    struct err e = {0};
    atomic_store(&s.wrong, 0);
    bool ok = par_enter(n, share_items, &s, &e);
    tap_ok(ok && s.wrong == 0, "team of %d shares out: each item once, a slow member's by others",
           n);
}

/* The first bite of each begins where its part of all does. */
static void begin_share(void *ctx, int thread, int n_thread) {
    struct sharing *s = ctx;
    uint32_t first;
    int n = (int)par_take(&s->items, thread, &first);
    if (first != (uint32_t)(N_ITEM * thread / n_thread) || n < 1) atomic_fetch_add(&s->wrong, 1);
    atomic_fetch_add(&s->n_taken, 1);
    wait_for_others(s, n_thread);
}

static void begin_shares(void *ctx, struct par *team) {
    struct sharing *s = ctx;
    for (int n = par_threads(team); n >= 1; n--) {
        par_width(team, n);
        atomic_store(&s->n_taken, 0);
        par_deal(&s->items, team, 0, N_ITEM, false);
        par_run(team, begin_share, s);
    }
}

static void test_shares(void) {
    static struct sharing s;
    struct err e = {0};
    bool ok = par_enter(5, begin_shares, &s, &e);
    tap_ok(ok && s.wrong == 0, "members begin side by side, also when fewer take part");
}

/* --- places --- */

struct stays {
    struct par_places places;
    _Atomic int wrong, roaming, after;
};

static int n_cpus(void) {
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 0;
}

static void look_where(void *ctx, int thread, int n_thread) {
    struct stays *s = ctx;
    cpu_set_t set;
    (void)n_thread;
    bool ok = sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) == 1 &&
              CPU_ISSET(s->places.cpu[(unsigned)thread % s->places.n], &set);
    if (!ok) atomic_fetch_add(&s->wrong, 1);
}

static void *roam(void *ctx) {
    struct stays *s = ctx;
    int before = n_cpus();
    par_roam();
    atomic_store(&s->roaming, before == 1 ? n_cpus() : -before);
    return NULL;
}

static void go_and_look(void *ctx, struct par *team) {
    struct stays *s = ctx;
    pthread_t other;
    par_pin(team, &s->places);
    par_run(team, look_where, s);
    par_width(team, 1);
    par_run(team, look_where, s);
    if (pthread_create(&other, NULL, roam, s) == 0) pthread_join(other, NULL);
}

static void add_cpus(void *ctx, int thread, int n_thread) {
    _Atomic int *sum = ctx;
    (void)thread, (void)n_thread;
    atomic_fetch_add(sum, n_cpus());
}

/* What the members of a later team may use, all together. */
static void count_cpus(void *ctx, struct par *team) {
    _Atomic int sum = 0;
    par_run(team, add_cpus, &sum);
    *(int *)ctx = sum;
}

static void *pinned_team(void *ctx) {
    struct stays *s = ctx;
    struct err e = {0};
    if (!par_enter(3, go_and_look, s, &e)) atomic_store(&s->wrong, -1);
    atomic_store(&s->after, n_cpus());
    int members = 0;
    if (!par_enter(3, count_cpus, &members, &e) || members != 3 * n_cpus()) {
        atomic_store(&s->after, -members);
    }
    return NULL;
}

/* On a thread of its own, as the engine's is: the process's first stays free. */
static void test_places(void) {
    struct stays s = {0};
    cpu_set_t set;
    pthread_t other;
    int all = n_cpus();
    if (sched_getaffinity(0, sizeof set, &set) != 0) return;
    for (unsigned i = 0; i < CPU_SETSIZE && s.places.n < 2; i++) {
        if (CPU_ISSET(i, &set)) s.places.cpu[s.places.n++] = (uint16_t)i;
    }
    if (pthread_create(&other, NULL, pinned_team, &s) == 0) pthread_join(other, NULL);
    tap_ok(!s.wrong, "each of 3 members at its place on %u CPUs", s.places.n);
    tap_ok(s.roaming == all, "a thread that one of them started roams all %d: %d", all, s.roaming);
    tap_ok(s.after == all, "places are given back with the team: %d", s.after);
    tap_ok(n_cpus() == all, "the first thread was never bound");
}

static double cpu_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double idle_half_second(void) {
    double before = cpu_s();
    nanosleep(&(struct timespec){.tv_nsec = 500000000}, NULL);
    return (cpu_s() - before) / 0.5;
}

/* All of it idle, then the half that is left out of a busy one's runs. */
static void idle_team(void *ctx, struct par *team) {
    double *burnt = ctx;
    struct tally t = {.n_expected = par_threads(team)};
    par_run(team, add_one, &t);
    burnt[0] = idle_half_second();
    par_width(team, 1);
    burnt[1] = idle_half_second();
}

static void test_idle(void) {
    double burnt[2] = {1, 1};
    struct err e = {0};
    bool ok = par_enter(3, idle_team, burnt, &e);
    tap_ok(ok && burnt[0] < 0.02, "an idle team sleeps: %.2f %% of a core", 100 * burnt[0]);
    tap_ok(ok && burnt[1] < 0.02, "so do those left out: %.2f %%", 100 * burnt[1]);
}

static void nothing(void *ctx, int thread, int n_thread) {
    (void)ctx, (void)thread, (void)n_thread;
}

static int by_size(const void *a, const void *b) {
    double d = *(const double *)a - *(const double *)b;
    return (d > 0) - (d < 0);
}

enum { N_TIMED = 2001 };
static void time_runs(void *ctx, struct par *team) {
    double *us = ctx;
    for (int i = 0; i < N_TIMED; i++) {
        uint64_t t0 = clock_ns();
        par_run(team, nothing, NULL);
        us[i] = (double)(clock_ns() - t0) * 1e-3;
    }
    qsort(us, N_TIMED, sizeof *us, by_size);
}

/* Not a benchmark: the limit only tells a team that works from one that collapses. */
static void test_latency(int n, double limit_us) {
    static double us[N_TIMED];
    struct err e = {0};
    bool ok = par_enter(n, time_runs, us, &e);
    tap_ok(ok && us[N_TIMED / 2] < limit_us, "empty run of %d: median %.2f us, p90 %.2f us", n,
           us[N_TIMED / 2], us[N_TIMED * 9 / 10]);
}

static void enter_again(void *ctx, struct par *team) {
    (void)team;
    (*(int *)ctx)++;
}

static void *team_of_its_own(void *arg) {
    test_counts(2);
    return arg;
}

static void test_teams(void) {
    int n = 0;
    struct err e = {0};
    bool ok = true;
    for (int i = 0; i < 50; i++) ok = ok && par_enter(1 + i % 4, enter_again, &n, &e);
    tap_ok(ok && n == 50, "50 teams one after another");
    pthread_t other;
    if (pthread_create(&other, NULL, team_of_its_own, NULL) == 0) pthread_join(other, NULL);
}

static void do_nothing(void *ctx, struct par *team) {
    (void)ctx, (void)team;
}

/* In a child whose address space holds a few stacks only; before this process has had a team:
 * a child of fork() would inherit OpenMP's idea of it, but not the threads. */
static void test_refused(void) {
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
    tap_skip("threads refused: sanitizers need the address space that this test takes away");
#else
    enum { REFUSED = 0, WRONG = 1, GRANTED = 2 };
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        struct rlimit as = {64 << 20, 64 << 20};
        struct err e = {0};
        alarm(60);
        setrlimit(RLIMIT_AS, &as);
        if (par_enter(PAR_MAX, do_nothing, NULL, &e)) _exit(GRANTED);
        _exit(e.code == ERR_MEMORY && strstr(e.text, "compute threads") ? REFUSED : WRONG);
    }
    int status = -1;
    waitpid(pid, &status, 0);
    if (WIFEXITED(status) && WEXITSTATUS(status) == GRANTED) {
        tap_skip("threads refused: RLIMIT_AS is without effect here (an emulator?)");
        return;
    }
    tap_ok(status == 0, "threads refused by the system are a sentence, not an exit");
#endif
}

int main(void) {
    struct err e = {0};
    struct tally t = {0};
    test_refused();
    for (int n = 1; n <= 5; n++) test_counts(n);
    test_counts(16);
    tap_ok(par_enter(4, uneven_runs, &t, &e) && t.wrong == 0, "a run waits for its slowest member");
    for (int n = 1; n <= 5; n++) test_widths(n);
    for (int n = 1; n <= 4; n++) test_items(n);
    test_shares();
    test_places();
    test_idle();
    if (SLOWED) {
        tap_skip("latency: not under a sanitizer");
    } else {
        test_latency(2, 1000);
        test_latency(4, 10000);
    }
    test_teams();
    tap_ok(!par_enter(0, enter_again, NULL, &e) && e.code == ERR_USAGE, "no team of 0");
    tap_ok(!par_enter(PAR_MAX + 1, enter_again, NULL, &e) && e.code == ERR_USAGE, "nor of 257");
    unsigned turn = 0;
    unsigned steps = 0;
    while (!par_relax(&turn)) steps++;
    tap_ok(steps > 10 && steps < 10000 && par_relax(&turn), "par_relax() ends in sleep");
    return tap_done();
}
