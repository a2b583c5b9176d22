/* Gather over the network is gather in one process: the same bytes, whatever the sizes, delays and
 * the buffers of sockets; and a peer that goes or lies is named. Nodes are threads here, joined by real
 * TCP connections and real channels. */
#include "base/clock.h"
#include "kernels.h"
#include "mesh_maker.h"
#include "model/sampler.h"
#include "tap.h"

#include <errno.h>
#include <sched.h>
#include <stdatomic.h>

enum { NODES = 8 };

static uint64_t next(uint64_t *seed) {  // xorshift64*, Vigna 2016
    *seed ^= *seed >> 12, *seed ^= *seed << 25, *seed ^= *seed >> 27;
    return *seed * 0x2545F4914F6CDD1DULL;
}

static void nap(uint64_t us) {
    const struct timespec t = {(time_t)(us / 1000000), (long)(us % 1000000) * 1000};
    nanosleep(&t, NULL);
}

/* One gather: what all nodes know of it. */
struct plan_of {
    enum coll_kind kind;
    size_t at[SLICE_MAX + 1], stride, n_row;
};

struct limits {
    size_t most_row, most_part;  // rows; bytes of one node's part of a row
    uint64_t most_delay_us;
};

static struct plan_of plan_nth(uint64_t seed, unsigned nth, unsigned n, const struct limits *l) {
    static const size_t block[] = {[COLL_ACT] = sizeof(struct act),
                                   [COLL_WIRE16] = sizeof(struct wire16),
                                   [COLL_F32] = sizeof(float),
                                   [COLL_CANDIDATE] = sizeof(struct candidate)};
    uint64_t s = seed + 0x9e3779b97f4a7c15ULL * (nth + 1);
    struct plan_of p = {.kind = (enum coll_kind)(next(&s) % 4)};
    p.n_row = 1 + (next(&s) % 3 ? next(&s) % l->most_row : 0);
    for (unsigned i = 0; i < n; i++) {
        size_t blocks = next(&s) % 4 ? next(&s) % (l->most_part / block[p.kind]) : 0;
        p.at[i + 1] = p.at[i] + blocks * block[p.kind];
    }
    p.stride = p.at[n] + next(&s) % 100;
    return p;
}

/* Bytes of node i's part of row r: such as its kind may be. */
static void fill(const struct plan_of *p, unsigned i, uint64_t seed, uint8_t *buf) {
    for (size_t r = 0; r < p->n_row; r++) {
        uint8_t *row = buf + r * p->stride;
        size_t b = p->at[i], end = p->at[i + 1];
        uint64_t s = seed ^ (r + 1) * 0x100000001b3ULL ^ (uint64_t)(i + 1) << 40;
        for (size_t k = b; k < end; k++) row[k] = (uint8_t)(next(&s) >> 56);
        for (size_t k = b; p->kind == COLL_ACT && k < end; k += sizeof(struct act)) {
            row[k + 1] &= 0x3f;
            for (size_t q = 0; q < Q_BLOCK; q++) row[k + 2 + q] |= 1;  // so not 0x80
        }
        for (size_t k = b; p->kind == COLL_WIRE16 && k < end; k += sizeof(struct wire16)) {
            row[k + 3] &= 0x3f;
        }
    }
}

struct node {
    unsigned i, n, rounds;
    uint64_t seed;
    struct limits limits;
    struct mesh *mesh;
    struct coll *local;
    size_t room;
    uint64_t payload;
    unsigned wrong;
    bool ok;
    struct err err;
};

static bool rounds(struct node *k, uint8_t *a, uint8_t *b) {
    struct coll *net = mesh_coll(k->mesh);
    uint64_t delay = k->seed + k->i;
    if (net->self != k->i || net->n != k->n || !mesh_wait(k->mesh, &k->err)) return false;
    for (unsigned r = 0; r < k->rounds; r++) {
        struct plan_of p = plan_nth(k->seed, r, k->n, &k->limits);
        size_t len = p.stride * p.n_row;
        memset(a, 0xaa, len);
        fill(&p, k->i, k->seed + r, a);
        memcpy(b, a, len);
        if (k->limits.most_delay_us && next(&delay) % 2) {
            nap(next(&delay) % k->limits.most_delay_us);
        }
        if (!net->gather(net, p.kind, a, p.stride, p.n_row, p.at, &k->err)) return false;
        k->payload += (p.at[k->i + 1] - p.at[k->i]) * p.n_row * (k->n - 1);
        if (!k->local) {  // then the others' parts are made again
            for (unsigned i = 0; i < k->n; i++) fill(&p, i, k->seed + r, b);
        } else if (!k->local->gather(k->local, p.kind, b, p.stride, p.n_row, p.at, &k->err)) {
            return false;
        }
        k->wrong += memcmp(a, b, len) != 0;
    }
    return true;
}

static void *node_thread(void *ctx) {
    struct node *k = ctx;
    uint8_t *a = malloc(k->room), *b = malloc(k->room);
    if (a && b) k->ok = rounds(k, a, b);
    free(a), free(b);
    return NULL;
}

static void check_rounds(const char *what, unsigned n, unsigned n_round, const struct limits *l,
                         bool with_local, int buffer) {
    struct mesh *m[NODES] = {0};
    struct node k[NODES] = {0};
    struct coll_local *local = NULL;
    pthread_t t[NODES];
    struct err e = {0};
    size_t widest = l->most_row * l->most_part;
    if (!mesh_make(m, n, widest, buffer, &e) || !coll_local_open(&local, n, &e)) {
        tap_ok(false, "%s: %s", what, e.text);
        return;
    }
    uint64_t begun = clock_ns();
    for (unsigned i = 0; i < n; i++) {
        k[i] = (struct node){.i = i,
                             .n = n,
                             .rounds = n_round,
                             .seed = 1000 * n + n_round,
                             .limits = *l,
                             .mesh = m[i],
                             .local = with_local ? coll_local_at(local, i) : NULL,
                             .room = (n * l->most_part + 100) * l->most_row};
        if (pthread_create(&t[i], NULL, node_thread, &k[i])) abort();
    }
    unsigned wrong = 0;
    bool ok = true, counted = true;
    for (unsigned i = 0; i < n; i++) {
        pthread_join(t[i], NULL);
        struct mesh_stats s;
        mesh_stats(m[i], &s);
        ok = ok && k[i].ok;
        wrong += k[i].wrong;
        if (!k[i].ok) e = k[i].err;
        counted = counted && s.n_gather == n_round && s.sent_payload == k[i].payload &&
                  s.sent_wire >= s.sent_payload;
    }
    double took = (double)(clock_ns() - begun) * 1e-9;
    tap_ok(ok && !wrong, "%s: %u nodes, %u gathers, %u wrong (%.1f s) %s", what, n, n_round, wrong,
           took, ok ? "" : e.text);
    tap_ok(!ok || counted, "%s: what was sent is counted", what);
    for (unsigned i = 0; i < n; i++) mesh_close(m[i]);
    coll_local_close(local);
}

/* --- ends --- */

struct waiter {
    struct mesh *m;
    bool (*f)(struct mesh *m, struct err *e);
    struct err err;
    bool ok;
    atomic_bool done;
};

static bool do_wait(struct mesh *m, struct err *e) {
    return mesh_wait(m, e);
}

static bool do_hear(struct mesh *m, struct err *e) {
    uint8_t p[64];
    size_t n;
    return mesh_wait(m, e) && mesh_hear(m, p, sizeof p, &n, e);
}

enum { ROW = 4096 };

/* Own part of 34 * 64 bytes, as much from each of up to three others, in one row. */
static bool do_gather(struct mesh *m, struct err *e) {
    uint8_t buf[ROW * NODES] = {0};
    struct coll *c = mesh_coll(m);
    size_t at[SLICE_MAX + 1] = {0};
    for (unsigned i = 0; i < c->n; i++) at[i + 1] = at[i] + 64 * sizeof(struct act);
    return mesh_wait(m, e) && c->gather(c, COLL_ACT, buf, sizeof buf, 1, at, e);
}

/* --- what a gather asks of the kernel --- */

static atomic_uint n_send, n_delayed, n_poll, n_yield;

ssize_t __real_send(int fd, const void *p, size_t n, int flags);
ssize_t __wrap_send(int fd, const void *p, size_t n, int flags);
ssize_t __wrap_send(int fd, const void *p, size_t n, int flags) {
    int is_nodelay = 0;
    socklen_t len = sizeof is_nodelay;
    (void)getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &is_nodelay, &len);
    n_send++;
    n_delayed += !is_nodelay;
    return __real_send(fd, p, n, flags);
}

int __real_poll(struct pollfd *p, nfds_t n, int ms);
int __wrap_poll(struct pollfd *p, nfds_t n, int ms);
int __wrap_poll(struct pollfd *p, nfds_t n, int ms) {
    n_poll++;
    return __real_poll(p, n, ms);
}

int __real_sched_yield(void);
int __wrap_sched_yield(void);
int __wrap_sched_yield(void) {
    n_yield++;
    return __real_sched_yield();
}

enum { GATHERS = 20, LATE_US = 200000, YIELDS_MOST = 5000 };  // 50 us of them; 200 ms are more

static bool do_gathers(struct mesh *m, struct err *e) {
    bool ok = true;
    for (unsigned i = 0; ok && i < GATHERS; i++) ok = do_gather(m, e);
    return ok;
}

static bool do_gather_late(struct mesh *m, struct err *e) {
    nap(LATE_US);
    return do_gather(m, e);
}

static void *waiter_thread(void *ctx) {
    struct waiter *w = ctx;
    w->ok = w->f(w->m, &w->err);
    atomic_store(&w->done, true);
    return NULL;
}

/* f[i] by each of n nodes at one time. */
static bool all_do(struct mesh **m, unsigned n, bool (*const *f)(struct mesh *m, struct err *e)) {
    struct waiter w[NODES];
    pthread_t t[NODES];
    bool ok = true;
    n_send = n_delayed = n_poll = n_yield = 0;
    for (unsigned i = 0; i < n; i++) {
        w[i] = (struct waiter){.m = m[i], .f = f[i]};
        if (pthread_create(&t[i], NULL, waiter_thread, &w[i])) abort();
    }
    for (unsigned i = 0; i < n; i++) {
        pthread_join(t[i], NULL);
        ok = ok && w[i].ok;
    }
    return ok;
}

static void check_calls(void) {
    enum { N = 3 };
    static bool (*const all[N])(struct mesh *, struct err *) = {do_gathers, do_gathers, do_gathers};
    static bool (*const late[N])(struct mesh *, struct err *) = {do_gather, do_gather,
                                                                 do_gather_late};
    struct mesh *m[N] = {0};
    struct err e = {0};
    if (!tap_ok(mesh_make(m, N, ROW, 0, &e), "three nodes %s", e.text)) return;
    bool ok = all_do(m, N, all);
    tap_ok(ok && n_send == GATHERS * N * (N - 1), "%u gathers of 3 nodes: %u writes, one a message",
           GATHERS, n_send);
    tap_ok(!n_delayed, "none of them waits for the last one's receipt");
    ok = all_do(m, N, late);
    tap_ok(ok && n_poll && n_yield < YIELDS_MOST,
           "a node is late: the others sleep (%u polls, %u yields)", n_poll, n_yield);
    for (unsigned i = 0; i < N; i++) mesh_close(m[i]);
}

static void check_abort(const char *what, bool (*f)(struct mesh *m, struct err *e),
                        bool is_linked) {
    struct mesh *m[2] = {0};
    struct err e = {0};
    bool ok = is_linked ? mesh_make(m, 2, ROW, 0, &e) : mesh_open(&m[1], 1, 2, ROW, &e);
    struct waiter w = {.m = m[1], .f = f};
    pthread_t t;
    if (!tap_ok(ok, "%s: opens %s", what, e.text)) return;
    if (pthread_create(&t, NULL, waiter_thread, &w)) abort();
    nap(20000);
    bool early = atomic_load(&w.done);
    uint64_t begun = clock_ns();
    mesh_abort(m[1]);
    pthread_join(t, NULL);
    double ms = (double)(clock_ns() - begun) * 1e-6;
    tap_ok(!early && !w.ok && w.err.code == ERR_STOPPED && ms < 200,
           "%s: stopped within %.1f ms: %s", what, ms, w.err.text);
    tap_ok(mesh_suspect(m[1]) == -1, "%s: nobody is blamed", what);
    struct err again = {0};
    tap_ok(!f(m[1], &again) && again.code == ERR_STOPPED, "%s: nor does it work later", what);
    mesh_close(m[0]);
    mesh_close(m[1]);
}

static void check_cast(void) {
    struct mesh *m[3] = {0};
    struct err e = {0};
    uint8_t in[100], big[10];
    size_t len = 0;
    bool ok = mesh_make(m, 3, 10, 0, &e) && mesh_wait(m[0], &e) && mesh_wait(m[1], &e) &&
              mesh_wait(m[2], &e);
    for (int i = 0; ok && i < 3; i++) {
        const char text[] = "what the next step is";
        ok = mesh_cast(m[0], text, sizeof text - (size_t)i, &e);
        for (int k = 1; ok && k < 3; k++) {
            ok = mesh_hear(m[k], in, sizeof in, &len, &e) && len == sizeof text - (size_t)i &&
                 !memcmp(in, text, len);
        }
    }
    tap_ok(ok, "a few bytes from the first node to all others %s", e.text);
    ok = ok && mesh_cast(m[0], in, sizeof in, &e) && !mesh_hear(m[1], big, sizeof big, &len, &e);
    tap_ok(ok && e.code == ERR_LIMIT, "more than was said to fit is refused: %s", e.text);
    for (int i = 0; i < 3; i++) mesh_close(m[i]);
}

/* --- peers that go or lie --- */

enum lie {
    LIE_NONE,
    LIE_NUMBER,
    LIE_KIND,
    LIE_SHORT,
    LIE_LONG,
    LIE_EMPTY,
    LIE_128,
    LIE_NAN,
    LIE_INF,
    LIE_NEGATIVE,
    LIE_LARGE,
    LIE_LEAVES,
    N_LIE
};

/* The message of do_gather(): 4 bytes of head, 64 blocks. */
static void speak(struct chan *c, enum lie lie, uint32_t number) {
    static uint8_t msg[4 + 65 * sizeof(struct act)];
    uint32_t head = number | (uint32_t)(lie == LIE_KIND ? COLL_F32 : COLL_ACT) << 28;
    size_t len = 4 + 64 * sizeof(struct act);
    struct err e = {0};
    memset(msg, 0, sizeof msg);
    if (lie == LIE_NUMBER) head++;
    for (int i = 0; i < 4; i++) msg[i] = (uint8_t)(head >> 8 * i);
    uint8_t *block = msg + 4 + 63 * sizeof(struct act);
    if (lie == LIE_128) block[33] = 0x80;
    if (lie == LIE_NAN) block[0] = 0xc0, block[1] = 0x7f;
    if (lie == LIE_INF) block[0] = 0x80, block[1] = 0x7f;
    if (lie == LIE_NEGATIVE) block[0] = 0x80, block[1] = 0xbf;
    if (lie == LIE_LARGE) block[0] = ACT_D_MOST % 256 + 1, block[1] = ACT_D_MOST / 256;
    if (lie == LIE_SHORT) len--;
    if (lie == LIE_LONG) len += sizeof(struct act);
    if (lie == LIE_EMPTY) len = 0;
    const struct iovec v = {msg, len};
    enum chan_io io = chan_send(c, &v, 1, &e);
    for (int i = 0; io == CHAN_AGAIN && i < 1000; i++) io = chan_flush(c, &e), nap(1000);
}

/* Node 0 of 3; node 1 is honest, node 2 is not; both are raw channels here. */
static void check_lie(enum lie lie, const char *what, enum err_code want) {
    struct mesh *m = NULL;
    struct chan *one[2], *two[2];
    struct err e = {0};
    pthread_t t;
    bool ok =
        mesh_open(&m, 0, 3, ROW, &e) && mesh_pair(0, 1, 0, one, &e) && mesh_pair(0, 2, 0, two, &e);
    if (!tap_ok(ok, "%s: opens %s", what, e.text)) return;
    mesh_link(m, 1, one[0]);
    mesh_link(m, 2, two[0]);
    struct waiter w = {.m = m, .f = do_gather};
    if (pthread_create(&t, NULL, waiter_thread, &w)) abort();
    speak(one[1], LIE_NONE, 0);
    if (lie == LIE_LEAVES) {
        nap(5000);
        chan_close(two[1]);
    } else {
        speak(two[1], lie, 0);
    }
    pthread_join(t, NULL);
    if (lie == LIE_NONE) {
        tap_ok(w.ok && mesh_suspect(m) == -1, "%s: taken %s", what, w.err.text);
    } else {
        tap_ok(!w.ok && w.err.code == want && mesh_suspect(m) == 2 && strstr(w.err.text, "node 2"),
               "%s: %s", what, w.err.text);
    }
    chan_close(one[1]);
    if (lie != LIE_LEAVES) chan_close(two[1]);
    mesh_close(m);
}

/* A large message breaks off in the middle. */
static void check_half(void) {
    enum { PART = 200000 };
    struct mesh *m = NULL;
    struct chan *c[2];
    struct err e = {0};
    static uint8_t buf[2 * PART], msg[2 * 16383 - 4];
    size_t at[SLICE_MAX + 1] = {0, 100, 100 + PART};
    bool ok = mesh_open(&m, 0, 2, ROW, &e) && mesh_pair(0, 1, 0, c, &e);
    if (!tap_ok(ok, "opens %s", e.text)) return;
    mesh_link(m, 1, c[0]);
    msg[3] = COLL_F32 << 4;
    const struct iovec v = {msg, sizeof msg};
    ok = mesh_wait(m, &e) && chan_send(c[1], &v, 1, &e) == CHAN_DONE;
    chan_close(c[1]);
    struct coll *k = mesh_coll(m);
    bool gathered = k->gather(k, COLL_F32, buf, sizeof buf, 1, at, &e);
    tap_ok(ok && !gathered && e.code == ERR_IO && mesh_suspect(m) == 1,
           "a node that goes in mid-message: %s", e.text);
    struct err again = {0};
    tap_ok(!k->gather(k, COLL_F32, buf, sizeof buf, 1, at, &again) && again.code == ERR_IO,
           "and it stays failed");
    mesh_close(m);
}

static void check_links(void) {
    struct mesh *m = NULL;
    struct chan *c[2], *d[2];
    struct err e = {0};
    bool ok =
        mesh_open(&m, 0, 2, ROW, &e) && mesh_pair(0, 1, 0, c, &e) && mesh_pair(0, 1, 0, d, &e);
    if (!tap_ok(ok, "opens %s", e.text)) return;
    int first = chan_fd(c[0]);
    mesh_link(m, 1, c[0]);
    mesh_link(m, 1, d[0]);
    tap_ok(fcntl(first, F_GETFD) < 0 && errno == EBADF, "a second channel replaces the first");
    ok = mesh_wait(m, &e);
    chan_close(c[1]);
    struct chan *late[2];
    ok = ok && mesh_pair(0, 1, 0, late, &e);
    int fd = ok ? chan_fd(late[0]) : -1;
    if (ok) mesh_link(m, 1, late[0]);
    tap_ok(ok && fcntl(fd, F_GETFD) < 0, "but not one in use");
    if (ok) chan_close(late[1]);
    chan_close(d[1]);
    mesh_close(m);
}

int main(void) {
    struct err e;
    if (!tap_ok(chan_init(&e), "channels")) return tap_done();
    const struct limits some = {64, 3000, 0}, big = {64, 12000, 0}, slow = {3, 2000, 600};
    for (unsigned n = 2; n <= NODES; n++) check_rounds("random sizes", n, 60, &some, true, 0);
    check_rounds("large messages", 2, 8, &big, true, 0);
    check_rounds("large messages, small sockets", 4, 8, &big, false, 48 << 10);
    check_rounds("uneven delays", 4, 1000, &slow, false, 0);
    check_calls();
    check_cast();
    check_links();
    check_abort("waiting for channels", do_wait, false);
    check_abort("in a gather", do_gather, true);
    check_abort("waiting to hear", do_hear, true);
    check_lie(LIE_NONE, "an honest node", ERR_NONE);
    check_lie(LIE_NUMBER, "another number", ERR_FORMAT);
    check_lie(LIE_KIND, "another kind", ERR_FORMAT);
    check_lie(LIE_SHORT, "too short", ERR_FORMAT);
    check_lie(LIE_LONG, "too long", ERR_FORMAT);
    check_lie(LIE_EMPTY, "an empty frame", ERR_FORMAT);
    check_lie(LIE_128, "-128", ERR_FORMAT);
    check_lie(LIE_NAN, "a scale that is no number", ERR_FORMAT);
    check_lie(LIE_INF, "an infinite scale", ERR_FORMAT);
    check_lie(LIE_NEGATIVE, "a negative scale", ERR_FORMAT);
    check_lie(LIE_LARGE, "a scale that no node makes", ERR_FORMAT);
    check_lie(LIE_LEAVES, "closes", ERR_IO);
    check_half();
    return tap_done();
}
