/* bench_gather SELF PORT SECONDS PARTS ADDRESS...: gather between processes, one for each address.
 *
 * Node i listens at its address, port PORT + i. PARTS: 2176 or 2176x64 (rows), comma between. Before each
 * nodes 0 and 1 measure the path with plain TCP: alpha is half of a small round trip, beta what a long
 * transfer gets. Node 0 prints a line of JSON for each part: the time of a gather beside
 * alpha + (N - 1) * part / beta, what it costs in CPU time, and what the same exchange takes with nothing
 * but TCP: the least that these machines can do. */
#include "base/clock.h"
#include "kernels.h"
#include "mesh_maker.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <sys/resource.h>

enum { PARTS = 16, PINGS = 2000, BULK = 256 << 10, DIAL_SECONDS = 10, RAW = 0x80, SPIN_NS = 50000 };

static const double BULK_SECONDS = 0.4;

struct part {
    size_t bytes, rows;
};

struct bench {
    unsigned self, n;
    uint16_t port;
    double seconds;
    char **address;
    struct part part[PARTS];
    unsigned n_part;
    int raw[SLICE_MAX];              // plain TCP to each
    double alpha, alpha_spin, beta;  // seconds; bytes a second
    struct mesh *mesh;
};

static struct sockaddr_in address_of(const struct bench *b, unsigned i) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)(b->port + i))};
    if (inet_pton(AF_INET, b->address[i], &a.sin_addr) != 1) {
        fprintf(stderr, "%s is no address\n", b->address[i]);
        exit(2);
    }
    return a;
}

static void die(const char *what) {
    perror(what);
    exit(1);
}

/* --- plain TCP --- */

static void all_out(int fd, const void *p, size_t n) {
    for (const char *c = p; n;) {
        ssize_t k = send(fd, c, n, MSG_NOSIGNAL);
        if (k <= 0) die("send");
        c += k, n -= (size_t)k;
    }
}

static void all_in(int fd, void *p, size_t n, bool spin) {
    for (char *c = p; n;) {
        ssize_t k = recv(fd, c, n, spin ? MSG_DONTWAIT : 0);
        if (k < 0 && errno == EAGAIN) continue;
        if (k <= 0) die("recv");
        c += k, n -= (size_t)k;
    }
}

static double ping(const struct bench *b, bool spin) {
    char small[16] = {0};
    double best = 1e9;
    for (int run = 0; run < 3; run++) {
        double t = clock_s();
        for (int i = 0; i < PINGS / 3; i++) {
            if (!b->self) all_out(b->raw[!b->self], small, sizeof small);
            all_in(b->raw[!b->self], small, sizeof small, spin);
            if (b->self) all_out(b->raw[!b->self], small, sizeof small);
        }
        t = (clock_s() - t) / (PINGS / 3) / 2;
        if (t < best) best = t;
    }
    return best;
}

/* Node 0 sends as much as goes in the time, a 1 as the last byte; node 1 says what came in how long. */
static double bulk(const struct bench *b) {
    static char buf[BULK];
    double rate = 0;
    if (b->self) {
        uint64_t got = 0;
        ssize_t n = recv(b->raw[!b->self], buf, sizeof buf, 0);
        double first = clock_s(), now = first;
        while (n > 0 && !buf[n - 1] && (n = recv(b->raw[!b->self], buf, sizeof buf, 0)) > 0) {
            got += (uint64_t)n;
            now = clock_s();
        }
        rate = (double)got / (now - first);
        all_out(b->raw[!b->self], &rate, sizeof rate);
        return rate;
    }
    for (double end = clock_s() + BULK_SECONDS; clock_s() < end;)
        all_out(b->raw[!b->self], buf, sizeof buf);
    all_out(b->raw[!b->self], "\1", 1);
    all_in(b->raw[!b->self], &rate, sizeof rate, false);
    return rate;
}

/* --- joining --- */

static int dial(const struct bench *b, unsigned to, uint8_t who) {
    struct sockaddr_in a = address_of(b, to);
    for (double end = clock_s() + DIAL_SECONDS; clock_s() < end; usleep(20000)) {
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (!connect(fd, (struct sockaddr *)&a, sizeof a)) {
            all_out(fd, &who, 1);
            return fd;
        }
        close(fd);
    }
    fprintf(stderr, "node %u does not answer\n", to);
    exit(1);
}

static void add(const struct bench *b, unsigned peer, int fd) {
    struct chan_setup s = mesh_setup(b->self, peer);
    struct chan *c;
    struct err e;
    mesh_socket(fd, 0);
    if (!chan_open(&c, fd, &s, &e) || !mesh_shake(c, &e)) {
        fprintf(stderr, "node %u to %u: %s\n", b->self, peer, e.text);
        exit(1);
    }
    mesh_link(b->mesh, peer, c);
}

static void join(struct bench *b) {
    struct sockaddr_in a = address_of(b, b->self);
    int on = 1, l = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    (void)setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(l, (struct sockaddr *)&a, sizeof a) || listen(l, SLICE_MAX)) die("listen");
    /* Those below dial first, so that handshakes do not wait for each other in a ring. */
    int fd[SLICE_MAX];
    for (unsigned left = 2 * b->self; left; left--) {
        uint8_t who;
        int c = accept(l, NULL, NULL);
        if (c < 0) die("accept");
        all_in(c, &who, 1, false);
        (who & RAW ? b->raw : fd)[who % SLICE_MAX] = c;
    }
    for (unsigned i = 0; i < b->self; i++) add(b, i, fd[i]);
    for (unsigned i = b->self + 1; i < b->n; i++) {
        b->raw[i] = dial(b, i, (uint8_t)(RAW | b->self));
        add(b, i, dial(b, i, (uint8_t)b->self));
    }
    for (unsigned i = 0; i < b->n; i++) {
        if (i == b->self) continue;
        (void)setsockopt(b->raw[i], IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        (void)setsockopt(b->raw[i], IPPROTO_TCP, TCP_CONGESTION, "reno", 4);  // as the mesh does
    }
    close(l);
}

/* --- gathers --- */

static double cpu_s(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           1e-6 * (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

struct work {
    uint8_t *buf;
    size_t at[SLICE_MAX + 1], stride, rows;
};

/* The least that a gather is: each part sent to all, rotated, and all parts read, by the same way of waiting. */
struct bare {
    const uint8_t *own;
    uint8_t *all;  // [n][len]
    size_t len, sent[SLICE_MAX], got[SLICE_MAX];
};

static bool bare_turn(const struct bench *b, struct bare *x, bool *busy) {
    bool moved = *busy = false;
    for (unsigned s = 1; s < b->n; s++) {
        unsigned to = (b->self + s) % b->n, from = (b->self + b->n - s) % b->n;
        if (x->sent[to] < x->len) {
            ssize_t k = send(b->raw[to], x->own + x->sent[to], x->len - x->sent[to],
                             MSG_NOSIGNAL | MSG_DONTWAIT);
            if (k > 0) x->sent[to] += (size_t)k, moved = true;
        }
        if (x->got[from] < x->len) {
            ssize_t k = recv(b->raw[from], x->all + from * x->len + x->got[from],
                             x->len - x->got[from], MSG_DONTWAIT);
            if (k > 0) x->got[from] += (size_t)k, moved = true;
            if (!k) die("a node has gone");
        }
        *busy = *busy || x->sent[to] < x->len || x->got[from] < x->len;
    }
    return moved;
}

static void bare_wait(const struct bench *b, const struct bare *x) {
    struct pollfd p[SLICE_MAX];
    nfds_t n = 0;
    for (unsigned i = 0; i < b->n; i++) {
        short events = (x->got[i] < x->len ? POLLIN : 0) | (x->sent[i] < x->len ? POLLOUT : 0);
        if (i != b->self && events) p[n++] = (struct pollfd){.fd = b->raw[i], .events = events};
    }
    (void)poll(p, n, 1000);
}

static double bare_gathers(const struct bench *b, struct bare *x, uint32_t n) {
    double t = clock_s();
    for (uint32_t i = 0; i < n; i++) {
        uint64_t still = 0;
        memset(x->sent, 0, sizeof x->sent);
        memset(x->got, 0, sizeof x->got);
        for (bool busy = true; busy;) {
            if (bare_turn(b, x, &busy)) {
                still = 0;
                continue;
            }
            if (!still) still = clock_ns();
            if (clock_ns() - still < SPIN_NS)
                sched_yield();
            else
                bare_wait(b, x);
        }
    }
    return (clock_s() - t) / n;
}

static double gathers(const struct bench *b, const struct work *w, uint32_t n) {
    struct coll *c = mesh_coll(b->mesh);
    struct err e;
    double t = clock_s();
    for (uint32_t i = 0; i < n; i++) {
        if (c->gather(c, COLL_ACT, w->buf, w->stride, w->rows, w->at, &e)) continue;
        fprintf(stderr, "node %u: %s\n", b->self, e.text);
        exit(1);
    }
    return clock_s() - t;
}

/* How often: node 0 says. */
static uint32_t agree(const struct bench *b, double each) {
    double want = b->seconds / each;
    uint32_t n = want < 20 ? 20 : want > 1e6 ? 1000000 : (uint32_t)want;
    struct err e;
    size_t len;
    bool ok =
        b->self ? mesh_hear(b->mesh, &n, sizeof n, &len, &e) : mesh_cast(b->mesh, &n, sizeof n, &e);
    if (!ok) fprintf(stderr, "%s\n", e.text), exit(1);
    return n;
}

/* What the path gives now: a virtual machine's speed wanders. */
static void measure_path(struct bench *b) {
    if (b->self > 1) return;
    b->alpha = ping(b, false);
    b->alpha_spin = ping(b, true);
    b->beta = bulk(b);
}

static void measure(struct bench *b, const struct part *p) {
    measure_path(b);
    struct work w = {.stride = p->bytes * b->n + 64, .rows = p->rows};
    struct mesh_stats before, after;
    for (unsigned i = 0; i < b->n; i++) w.at[i + 1] = w.at[i] + p->bytes;
    w.buf = calloc(w.rows, w.stride);
    if (!w.buf) die("calloc");
    uint32_t n = agree(b, gathers(b, &w, 20) / 20);
    gathers(b, &w, n / 4);
    mesh_stats(b->mesh, &before);
    double cpu = cpu_s(), took = gathers(b, &w, n);
    cpu = (cpu_s() - cpu) / n;
    mesh_stats(b->mesh, &after);
    struct bare x = {
        .own = w.buf, .len = p->bytes * p->rows, .all = calloc(b->n, p->bytes * p->rows)};
    if (!x.all) die("calloc");
    (void)bare_gathers(b, &x, n / 4);
    double bare_cpu = cpu_s(), bare = bare_gathers(b, &x, n);
    bare_cpu = (cpu_s() - bare_cpu) / n;
    free(x.all);
    free(w.buf);
    if (b->self) return;
    double each = took / n, bytes = (double)(p->bytes * p->rows * (b->n - 1));
    double bound = b->alpha + bytes / b->beta;
    double crypt = (double)(after.crypt_ns - before.crypt_ns) * 1e-9 / n;
    printf(
        "{\"nodes\":%u,\"part\":%zu,\"rows\":%zu,\"gathers\":%u,\"us\":%.1f,\"bound_us\":%.1f,"
        "\"ratio\":%.3f,\"ratio_sealed\":%.3f,\"alpha_us\":%.1f,\"alpha_spin_us\":%.1f,\"beta_mbps\":%.1f,"
        "\"cpu_us\":%.1f,\"crypt_us\":%.1f,\"wire_part\":%.4f,\"bare_us\":%.1f,\"bare_cpu_us\":%.1f}\n",
        b->n, p->bytes, p->rows, n, each * 1e6, bound * 1e6, each / bound, each / (bound + crypt),
        b->alpha * 1e6, b->alpha_spin * 1e6, b->beta * 1e-6, cpu * 1e6, crypt * 1e6,
        (double)(after.sent_wire - before.sent_wire) / (bytes * n), bare * 1e6, bare_cpu * 1e6);
    fflush(stdout);
}

static bool read_parts(struct bench *b, const char *s) {
    while (*s && b->n_part < PARTS) {
        char *end;
        struct part *p = &b->part[b->n_part++];
        p->bytes = strtoul(s, &end, 10);
        p->rows = *end == 'x' ? strtoul(end + 1, &end, 10) : 1;
        if (!p->bytes || p->bytes % sizeof(struct act) || !p->rows) return false;
        s = *end == ',' ? end + 1 : end;
        if (*end && *end != ',') return false;
    }
    return !*s;
}

int main(int argc, char **argv) {
    static struct bench b;
    struct err e;
    if (argc >= 7) {
        b = (struct bench){.self = (unsigned)atoi(argv[1]),
                           .n = (unsigned)argc - 5,
                           .port = (uint16_t)atoi(argv[2]),
                           .seconds = atof(argv[3]),
                           .address = argv + 5};
    }
    if (b.n < 2 || b.n > SLICE_MAX || b.self >= b.n || !read_parts(&b, argv[4])) {
        fprintf(stderr, "usage: bench_gather SELF PORT SECONDS PARTS ADDRESS ADDRESS...\n"
                        "PARTS: bytes (multiples of 34), or bytes x rows: 2176,2176x64\n");
        return 2;
    }
    size_t widest = 0;
    for (unsigned i = 0; i < b.n_part; i++) {
        size_t all = b.part[i].bytes * b.part[i].rows;
        if (all > widest) widest = all;
    }
    if (!chan_init(&e) || !mesh_open(&b.mesh, b.self, b.n, widest, &e)) {
        fprintf(stderr, "%s\n", e.text);
        return 1;
    }
    join(&b);
    if (!mesh_wait(b.mesh, &e)) return 1;
    for (unsigned i = 0; i < b.n_part; i++) measure(&b, &b.part[i]);
    (void)agree(&b, 1);  // nobody leaves before all are done
    mesh_close(b.mesh);
    return 0;
}
