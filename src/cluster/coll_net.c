/* coll_net.c - gather over channels, without ever waiting to send while there is something to read.
 *
 * All that goes between two nodes in an epoch are messages in an order that both know: the gathers and
 * casts, numbered. A message is cut into frames of up to CHUNK bytes, so that sealing, sending,
 * receiving and opening of a large one overlap. Each peer's stream is read strictly in order and only
 * as far as the present message goes: what a faster peer has sent of the next one waits in the socket.
 */
#include "cluster/coll_net.h"

#include "base/clock.h"
#include "kernels.h"

#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    HEAD = 4,               // of each frame: kind of message (4 bits), its number (28 bits)
    CHUNK = 2 * 16383 - 8,  // of a message in a frame: with HEAD and length two full TLS records
    CAST = COLL_CANDIDATE + 1,  // kind of a message that is no gather
    EARLY = 32 << 10,           // see coll.h: pieces of prompts, whose sending takes longest
    SPIN_NS = 50000,  // then sleep in the kernel, and at once if the last wait took longer
    PULSE_MS = 1000,  // but show that we live
    NUMBER_MASK = (1 << 28) - 1,
};

struct link {
    struct chan *chan;
    /* of the message under way */
    size_t sent;   // bytes of the own part handed to the channel
    bool keeps;    // the channel holds bytes that the socket did not take
    bool due;      // something is still to come from this peer
    size_t got;    // bytes of its part that are there
    size_t frame;  // bytes of the present frame still to come, its head not counted
    size_t n_head;
    bool in_frame;
    uint8_t head[HEAD];
};

/* One message of every node to every other. */
struct message {
    unsigned kind;  // enum coll_kind or CAST
    const uint8_t *own;
    size_t own_len;
    uint8_t *buf;  // received rows: stride apart, of which peer i fills [at[i], to[i])
    size_t stride, n_row;
    const size_t *at, *to;
};

struct mesh {
    struct coll coll;  // first: a struct coll * of ours is a struct mesh *
    unsigned self, n;
    size_t widest;
    uint8_t *pack;  // [widest] own part of several rows, one after another
    uint32_t number;
    int wake;    // eventfd, readable from mesh_abort() on
    bool spins;  // the last wait was short: the next one is first spent spinning
    atomic_bool aborted;
    _Atomic uint64_t pulse;  // turns of all exchanges
    atomic_int suspect;
    pthread_mutex_t lock;  // of link[].chan and is_ready until mesh_wait() has returned
    pthread_cond_t linked;
    bool is_ready;
    struct err broken;  // the failure that ended it
    struct link link[SLICE_MAX];
    struct message begun;  // the first part of the next gather; .n_row 0: none
    size_t begun_at[SLICE_MAX + 1], begun_mid[SLICE_MAX];
    _Atomic uint64_t n_gather, sent_payload, sent_wire, received_payload, received_wire, wait_ns,
        crypt_ns;
};

/* --- opening and linking --- */

static MUST gather(struct coll *c, enum coll_kind kind, void *buf, size_t stride, size_t n_row,
                   const size_t *at, struct err *e);
static MUST begin(struct coll *c, enum coll_kind kind, void *buf, size_t stride, size_t n_row,
                  const size_t *at, const size_t *mid, struct err *e);

MUST mesh_open(struct mesh **out, unsigned self, unsigned n, size_t widest, struct err *e) {
    assert(n >= 1 && n <= SLICE_MAX && self < n);
    struct mesh *m = calloc(1, sizeof *m);
    if (!m) return err_set(e, ERR_MEMORY, "no memory to join %u nodes", n);
    *m = (struct mesh){
        .coll = {.self = self, .n = n, .early = EARLY, .gather = gather, .begin = begin},
        .self = self,
        .n = n,
        .widest = widest,
        .pack = malloc(widest + 1),
        .wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
        .suspect = -1,
    };
    pthread_mutex_init(&m->lock, NULL);
    pthread_cond_init(&m->linked, NULL);
    if (m->pack && m->wake >= 0) {
        *out = m;
        return true;
    }
    bool is_memory = !m->pack;
    if (!is_memory) err_sys(e, "cannot make an eventfd");
    mesh_close(m);
    return is_memory ? err_set(e, ERR_MEMORY, "no memory for messages of %zu bytes", widest)
                     : false;
}

void mesh_close(struct mesh *m) {
    if (!m) return;
    for (unsigned i = 0; i < m->n; i++) {
        if (m->link[i].chan) chan_close(m->link[i].chan);
    }
    if (m->wake >= 0) close(m->wake);
    pthread_cond_destroy(&m->linked);
    pthread_mutex_destroy(&m->lock);
    free(m->pack);
    free(m);
}

void mesh_link(struct mesh *m, unsigned peer, struct chan *c) {
    struct chan *old = c;
    pthread_mutex_lock(&m->lock);
    if (peer < m->n && peer != m->self && !m->is_ready) {
        old = m->link[peer].chan;
        m->link[peer].chan = c;
        pthread_cond_broadcast(&m->linked);
    }
    pthread_mutex_unlock(&m->lock);
    if (old) chan_close(old);
}

static bool is_linked(const struct mesh *m) {
    for (unsigned i = 0; i < m->n; i++) {
        if (i != m->self && !m->link[i].chan) return false;
    }
    return true;
}

static MUST stopped(struct err *e) {
    return err_set(e, ERR_STOPPED, "the cluster is changing");
}

MUST mesh_wait(struct mesh *m, struct err *e) {
    pthread_mutex_lock(&m->lock);
    while (!is_linked(m) && !atomic_load(&m->aborted)) pthread_cond_wait(&m->linked, &m->lock);
    m->is_ready = is_linked(m);
    pthread_mutex_unlock(&m->lock);
    if (atomic_load(&m->aborted)) return stopped(e);
    for (unsigned i = 0; i < m->n; i++) {
        if (i == m->self) continue;
        struct chan *c = m->link[i].chan;
        int on = 1;  // without it a small message waits for the last one's receipt
        (void)setsockopt(chan_fd(c), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        /* Where the system's choice is BBR, it would send at a pace of its own, by timers. */
        (void)setsockopt(chan_fd(c), IPPROTO_TCP, TCP_CONGESTION, "reno", 4);
        chan_limit(c, CHUNK + HEAD);
        chan_measure(c, true);
    }
    return true;
}

MUST mesh_greet(struct mesh *m, struct err *e) {
    uint8_t hello[SLICE_MAX] = {0};
    size_t at[SLICE_MAX + 1];
    for (unsigned i = 0; i <= m->n; i++) at[i] = i;
    return gather(&m->coll, COLL_CANDIDATE, hello, 0, 1, at, e);
}

void mesh_abort(struct mesh *m) {
    pthread_mutex_lock(&m->lock);
    atomic_store(&m->aborted, true);
    uint64_t one = 1;
    ssize_t n = write(m->wake, &one, sizeof one);
    (void)n;  // it fails only when it has been rung already
    pthread_cond_broadcast(&m->linked);
    pthread_mutex_unlock(&m->lock);
}

struct coll *mesh_coll(struct mesh *m) {
    return &m->coll;
}

int mesh_suspect(const struct mesh *m) {
    return atomic_load(&m->suspect);
}

/* --- what arrives is checked before anything is computed with it --- */

/* Not 0: one of eight bytes is -128. x is 0 in that byte, and only a byte of 0 (or a byte of 1 above it)
 * borrows into a top bit that was not set. */
static uint64_t has_min(const uint8_t p[static 8]) {
    uint64_t x;
    memcpy(&x, p, sizeof x);
    x ^= 0x8080808080808080;
    return (x - 0x0101010101010101) & ~x & 0x8080808080808080;
}

/* As quants.h has them: a scale that is neither negative nor larger than any can be; -128 never. */
static bool acts_are_fine(const uint8_t *p, size_t n) {
    uint64_t bad = 0;
    for (size_t b = 0; b < n; b++, p += sizeof(struct act)) {
        uint16_t d;
        memcpy(&d, p + offsetof(struct act, d), sizeof d);
        bad |= d > ACT_D_MOST;
        for (size_t i = 0; i < Q_BLOCK; i += 8) bad |= has_min(p + offsetof(struct act, q) + i);
    }
    return !bad;
}

static bool wire16_is_fine(const uint8_t *p, size_t n) {
    unsigned bad = 0;
    for (size_t b = 0; b < n; b++, p += sizeof(struct wire16)) {
        uint32_t d;
        memcpy(&d, p + offsetof(struct wire16, d), sizeof d);
        bad |= d > WIRE16_D_MOST;
    }
    return !bad;
}

static MUST check_part(const struct message *g, unsigned peer, struct err *e) {
    size_t len = g->to[peer] - g->at[peer];
    for (size_t r = 0; r < g->n_row; r++) {
        const uint8_t *p = g->buf + r * g->stride + g->at[peer];
        bool ok = true;
        if (g->kind == COLL_ACT) ok = acts_are_fine(p, len / sizeof(struct act));
        if (g->kind == COLL_WIRE16) ok = wire16_is_fine(p, len / sizeof(struct wire16));
        if (!ok) return err_set(e, ERR_FORMAT, "activations that cannot be");
    }
    return true;
}

/* --- one message: pushing and pulling until nothing is left to do --- */

static void head_make(uint8_t head[static HEAD], unsigned kind, uint32_t number) {
    uint32_t v = kind << 28 | (number & NUMBER_MASK);
    for (int i = 0; i < HEAD; i++) head[i] = (uint8_t)(v >> 8 * i);
}

/* Hand the channel what it takes of the own part: a frame at most, so that peers are served in turn. */
static MUST push(struct mesh *m, struct link *l, const struct message *g, bool *moved,
                 struct err *e) {
    if (l->keeps) {
        enum chan_io io = chan_flush(l->chan, e);
        if (io == CHAN_FAILED) return false;
        l->keeps = io == CHAN_AGAIN;
        *moved = *moved || !l->keeps;
    }
    if (l->keeps || l->sent == g->own_len) return true;
    uint8_t head[HEAD];
    size_t left = g->own_len - l->sent, len = left < CHUNK ? left : CHUNK;
    union {
        const uint8_t *from;
        void *base;  // an iovec's, which chan_send() only reads
    } part = {g->own + l->sent};
    const struct iovec v[2] = {{head, HEAD}, {part.base, len}};
    head_make(head, g->kind, m->number);
    enum chan_io io = chan_send(l->chan, v, 2, e);
    if (io == CHAN_FAILED) return false;
    l->keeps = io == CHAN_AGAIN;
    l->sent += len;
    return *moved = true;
}

/* The length of a frame has arrived: what is to come of it. */
static MUST begin_frame(struct link *l, const struct message *g, size_t part, size_t frame,
                        struct err *e) {
    size_t left = part - l->got, want = left < CHUNK ? left : CHUNK;
    if (g->kind == CAST && frame > HEAD + part) {
        return err_set(e, ERR_LIMIT, "a message of %zu bytes (at most %zu)", frame - HEAD, part);
    }
    if (frame <= HEAD || (g->kind != CAST && frame != HEAD + want)) {
        return err_set(e, ERR_FORMAT, "a message of %zu bytes where %zu were due", frame,
                       HEAD + want);
    }
    l->in_frame = true;
    l->n_head = 0;
    l->frame = frame - HEAD;
    return true;
}

static MUST check_head(const struct mesh *m, const struct link *l, const struct message *g,
                       struct err *e) {
    uint8_t want[HEAD];
    head_make(want, g->kind, m->number);
    if (!memcmp(l->head, want, HEAD)) return true;
    return err_set(e, ERR_FORMAT, "message %02x%02x%02x%02x where %02x%02x%02x%02x was due",
                   l->head[3], l->head[2], l->head[1], l->head[0], want[3], want[2], want[1],
                   want[0]);
}

/* Bytes of a frame straight to their rows. */
static enum chan_io take_rows(struct link *l, const struct message *g, unsigned peer, bool *moved,
                              struct err *e) {
    size_t width = g->to[peer] - g->at[peer];
    while (l->frame) {
        size_t row = l->got / width, col = l->got % width, n = width - col, got = 0;
        if (n > l->frame) n = l->frame;
        enum chan_io io =
            chan_take(l->chan, g->buf + row * g->stride + g->at[peer] + col, n, &got, e);
        if (io == CHAN_FAILED) return io;
        l->got += got;
        l->frame -= got;
        *moved = *moved || got;
        if (io == CHAN_AGAIN) return io;
    }
    return CHAN_DONE;
}

/* What has come from peer, a frame at most. */
static MUST pull(struct mesh *m, unsigned peer, const struct message *g, bool *moved,
                 struct err *e) {
    struct link *l = &m->link[peer];
    size_t part = (g->to[peer] - g->at[peer]) * g->n_row;
    enum chan_io io;
    if (!l->in_frame) {
        size_t frame;
        io = chan_frame(l->chan, &frame, e);
        if (io != CHAN_DONE) return io == CHAN_AGAIN;
        *moved = true;
        if (!begin_frame(l, g, part, frame, e)) return false;
    }
    if (l->n_head < HEAD) {
        size_t got = 0;
        io = chan_take(l->chan, l->head + l->n_head, HEAD - l->n_head, &got, e);
        if (io == CHAN_FAILED) return false;
        l->n_head += got;
        if (l->n_head < HEAD) return true;
        if (!check_head(m, l, g, e)) return false;
    }
    io = take_rows(l, g, peer, moved, e);
    if (io != CHAN_DONE) return io == CHAN_AGAIN;
    l->in_frame = false;
    if (g->kind != CAST && l->got < part) return true;
    l->due = false;
    return check_part(g, peer, e);
}

/* Sleep until one of the sockets that something is wanted of is ready, or mesh_abort(). */
static MUST doze(const struct mesh *m, const struct message *g, struct err *e) {
    struct pollfd p[SLICE_MAX + 1] = {{.fd = m->wake, .events = POLLIN}};
    nfds_t n = 1;
    for (unsigned i = 0; i < m->n; i++) {
        const struct link *l = &m->link[i];
        if (!l->chan || (!l->due && !l->keeps && l->sent == g->own_len)) continue;
        short events = l->due ? POLLIN : 0;
        if (chan_events(l->chan) & EPOLLOUT) events |= POLLOUT;
        p[n++] = (struct pollfd){.fd = chan_fd(l->chan), .events = events};
    }
    if (poll(p, n, PULSE_MS) < 0 && errno != EINTR)
        return err_sys(e, "cannot wait for the other nodes");
    return true;
}

static MUST fault(struct mesh *m, unsigned peer, struct err *e) {
    char what[32];
    int none = -1;
    (void)atomic_compare_exchange_strong(&m->suspect, &none, (int)peer);
    snprintf(what, sizeof what, "node %u of the plan", peer);
    return err_in(e, what);
}

/* One turn for every peer, rotated: in step s of all nodes each port is sent to by one. */
static MUST turn(struct mesh *m, const struct message *g, bool *moved, bool *busy, struct err *e) {
    *moved = *busy = false;
    for (unsigned s = 1; s < m->n; s++) {
        unsigned to = (m->self + s) % m->n, from = (m->self + m->n - s) % m->n;
        struct link *l = &m->link[to];
        if (l->keeps || l->sent < g->own_len) {
            if (!push(m, l, g, moved, e)) return fault(m, to, e);
            *busy = *busy || l->keeps || l->sent < g->own_len;
        }
        if (m->link[from].due) {
            if (!pull(m, from, g, moved, e)) return fault(m, from, e);
            *busy = *busy || m->link[from].due;
        }
    }
    return true;
}

static void count(_Atomic uint64_t *v, uint64_t n) {
    atomic_store_explicit(v, n, memory_order_relaxed);  // one writer: the engine's thread
}

static MUST exchange(struct mesh *m, const struct message *g, struct err *e) {
    uint64_t still = 0;  // since when nothing has moved
    bool moved, busy;
    for (;;) {
        if (atomic_load_explicit(&m->aborted, memory_order_relaxed)) return stopped(e);
        count(&m->pulse, m->pulse + 1);
        if (!turn(m, g, &moved, &busy, e)) return false;
        if (!busy) return true;
        if (moved && !still) continue;
        uint64_t now = clock_ns();
        if (moved) {
            m->spins = now - still < SPIN_NS;
            still = 0;
            continue;
        }
        if (!still) still = now;
        if (m->spins && now - still < SPIN_NS) {
            sched_yield();
        } else if (!doze(m, g, e)) {
            return false;
        }
    }
}

uint64_t mesh_pulse(const struct mesh *m) {
    return atomic_load_explicit(&m->pulse, memory_order_relaxed);
}

static void count_wire(struct mesh *m) {
    uint64_t sent = 0, received = 0, crypt = 0;
    for (unsigned i = 0; i < m->n; i++) {
        struct chan_stats s;
        if (!m->link[i].chan) continue;
        chan_stats(m->link[i].chan, &s);
        sent += s.sent_wire;
        received += s.received_wire;
        crypt += s.crypt_ns;
    }
    count(&m->sent_wire, sent);
    count(&m->received_wire, received);
    count(&m->crypt_ns, crypt);
}

/* Nothing of the message has gone or come yet. */
static MUST start(struct mesh *m, const struct message *g, struct err *e) {
    if (m->broken.code) {
        *e = m->broken;
        return false;
    }
    for (unsigned i = 0; i < m->n; i++) {
        struct link *l = &m->link[i];
        l->sent = i == m->self || !l->chan ? g->own_len : 0;
        l->got = 0;
        l->due = i != m->self && g->n_row && g->to[i] > g->at[i];
    }
    return true;
}

static MUST finish(struct mesh *m, const struct message *g, struct err *e) {
    bool ok = exchange(m, g, e);
    if (!ok) m->broken = *e;
    m->number++;
    count_wire(m);
    return ok;
}

/* --- gather --- */

static MUST pack_own(struct mesh *m, struct message *g, struct err *e) {
    size_t width = g->to[m->self] - g->at[m->self];
    g->own = g->buf + g->at[m->self];
    g->own_len = width * g->n_row;
    if (g->n_row <= 1 || g->stride == width) return true;
    if (g->own_len > m->widest) {
        return err_set(e, ERR_LIMIT, "a part of %zu bytes, where %zu were said to be the most",
                       g->own_len, m->widest);
    }
    for (size_t r = 0; r < g->n_row; r++) {
        memcpy(m->pack + r * width, g->own + r * g->stride, width);
    }
    g->own = m->pack;
    return true;
}

/* It goes as far as the sockets take it; sending is then the kernel's, beside what we compute. */
static MUST begin(struct coll *c, enum coll_kind kind, void *buf, size_t stride, size_t n_row,
                  const size_t *at, const size_t *mid, struct err *e) {
    struct mesh *m = (struct mesh *)(void *)c;
    assert(m->is_ready && !m->begun.n_row);
    uint64_t since = clock_ns();
    memcpy(m->begun_at, at, m->n * sizeof *at);
    memcpy(m->begun_mid, mid, m->n * sizeof *mid);
    m->begun = (struct message){.kind = kind,
                                .buf = buf,
                                .stride = stride,
                                .n_row = n_row,
                                .at = m->begun_at,
                                .to = m->begun_mid};
    if (!pack_own(m, &m->begun, e) || !start(m, &m->begun, e)) return false;
    for (bool moved = true, busy; moved;) {
        if (turn(m, &m->begun, &moved, &busy, e)) continue;
        m->broken = *e;
        return false;
    }
    count(&m->wait_ns, m->wait_ns + clock_ns() - since);
    return true;
}

static void count_payload(struct mesh *m, const struct message *g) {
    uint64_t received = 0;
    for (unsigned i = 0; i < m->n; i++) {
        if (i != m->self) received += (g->to[i] - g->at[i]) * g->n_row;
    }
    count(&m->sent_payload, m->sent_payload + (m->n - 1) * g->own_len);
    count(&m->received_payload, m->received_payload + received);
}

static MUST gather(struct coll *c, enum coll_kind kind, void *buf, size_t stride, size_t n_row,
                   const size_t *at, struct err *e) {
    struct mesh *m = (struct mesh *)(void *)c;
    struct message g = {
        .kind = kind, .buf = buf, .stride = stride, .n_row = n_row, .at = at, .to = at + 1};
    if (m->n == 1 || !n_row) return true;
    assert(m->is_ready);
    uint64_t since = clock_ns();
    if (m->begun.n_row) {
        if (!finish(m, &m->begun, e)) return false;
        count_payload(m, &m->begun);
        m->begun.n_row = 0;
        g.at = m->begun_mid;
    }
    if (!pack_own(m, &g, e) || !start(m, &g, e) || !finish(m, &g, e)) return false;
    count_payload(m, &g);
    count(&m->n_gather, m->n_gather + 1);
    count(&m->wait_ns, m->wait_ns + clock_ns() - since);
    return true;
}

/* --- from the first node to all others --- */

MUST mesh_cast(struct mesh *m, const void *p, size_t len, struct err *e) {
    static const size_t nothing[SLICE_MAX];
    assert(m->self == 0 && (m->n == 1 || m->is_ready));
    if (len < 1 || len > CHUNK) {
        return err_set(e, ERR_LIMIT, "a message of %zu bytes to all (1 to %d)", len, CHUNK);
    }
    const struct message g = {
        .kind = CAST, .own = p, .own_len = len, .n_row = 1, .at = nothing, .to = nothing};
    return start(m, &g, e) && finish(m, &g, e);
}

MUST mesh_hear(struct mesh *m, void *p, size_t cap, size_t *len, struct err *e) {
    assert(m->self > 0 && m->is_ready);
    static const size_t at[SLICE_MAX];
    const size_t to[SLICE_MAX] = {cap};
    const struct message g = {.kind = CAST, .buf = p, .n_row = 1, .at = at, .to = to};
    if (!start(m, &g, e) || !finish(m, &g, e)) return false;
    *len = m->link[0].got;
    return true;
}

void mesh_stats(const struct mesh *m, struct mesh_stats *s) {
    *s = (struct mesh_stats){
        .n_gather = m->n_gather,
        .sent_payload = m->sent_payload,
        .sent_wire = m->sent_wire,
        .received_payload = m->received_payload,
        .received_wire = m->received_wire,
        .wait_ns = m->wait_ns,
        .crypt_ns = m->crypt_ns,
    };
}
