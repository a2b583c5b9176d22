#include "net/gate.h"

#include "base/clock.h"
#include "base/log.h"
#include "net/gate_listen.h"
#include "net/preamble.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { ACCEPT_BATCH = 16, PAUSE_MS = 200 };

static const uint64_t MS = 1000000;

/* A connection that is not proved yet. */
struct pending {
    struct gate *g;
    struct pending *prev, *next;  // oldest first
    struct loop_fd fd;
    struct loop_timer deadline;
    struct chan *chan;  // once the preamble is right; owns the socket then
    bool is_connecting;
    bool is_dialled;
    bool is_dead;  // could not even be dialled; `why` waits to be told
    bool is_old_key;
    uint8_t out[PREAMBLE_LEN], in[PREAMBLE_LEN];
    unsigned out_len, sent, got;
    struct node_id self;  // as we told the peer
    uint64_t self_instance;
    enum chan_kind kind;
    uint64_t epoch, tag;
    struct preamble peer;
    struct sockaddr_storage addr;
    struct err why;
};

struct gate {
    struct gate_conf conf;
    struct gate_listen listen;
    struct loop_timer resume;  // accepting, after the system had no descriptors left
    struct pending *first, *last;
    unsigned n_in;   // of them not dialled
    unsigned n_tls;  // of all, those with a channel
    struct gate_counts counts;
    struct log_limit limit[N_GATE_END], full;
};

/* --- addresses --- */

static void plain_address(struct sockaddr_storage *a) {
    struct sockaddr_in6 six;
    if (a->ss_family != AF_INET6) return;
    memcpy(&six, a, sizeof six);
    if (!IN6_IS_ADDR_V4MAPPED(&six.sin6_addr)) return;
    struct sockaddr_in four = {.sin_family = AF_INET, .sin_port = six.sin6_port};
    memcpy(&four.sin_addr, six.sin6_addr.s6_addr + 12, 4);
    memset(a, 0, sizeof *a);
    memcpy(a, &four, sizeof four);
}

/* The host's part of an address: *n bytes. */
static const void *host_of(const struct sockaddr_storage *a, size_t *n) {
    const void *p = a;
    *n = a->ss_family == AF_INET ? 4 : 16;
    if (a->ss_family == AF_INET) return &((const struct sockaddr_in *)p)->sin_addr;
    return &((const struct sockaddr_in6 *)p)->sin6_addr;
}

static bool same_host(const struct sockaddr_storage *a, const struct sockaddr_storage *b) {
    size_t n;
    const void *of_a = host_of(a, &n);
    return a->ss_family == b->ss_family && !memcmp(of_a, host_of(b, &n), n);
}

static const char *host_text(const struct sockaddr_storage *a, char out[static INET6_ADDRSTRLEN]) {
    size_t n;
    if (a->ss_family != AF_INET && a->ss_family != AF_INET6) return "?";
    return inet_ntop(a->ss_family, host_of(a, &n), out, INET6_ADDRSTRLEN) ? out : "?";
}

/* --- the life of one that is pending --- */

static struct pending *pending_new(struct gate *g, int fd, const struct sockaddr_storage *addr) {
    struct pending *p = calloc(1, sizeof *p);
    if (!p) return NULL;
    p->g = g;
    p->fd = (struct loop_fd){.fd = fd, .owner = p};
    p->deadline = (struct loop_timer){.owner = p};
    p->addr = *addr;
    p->self = g->conf.self->id;
    p->self_instance = g->conf.self->instance;
    p->prev = g->last;
    *(g->last ? &g->last->next : &g->first) = p;
    g->last = p;
    return p;
}

/* Gone from the gate; the socket is left to whoever has it now. */
static void pending_free(struct pending *p) {
    struct gate *g = p->g;
    loop_forget(g->conf.loop, &p->fd);
    loop_cancel(g->conf.loop, &p->deadline);
    if (p->prev)
        p->prev->next = p->next;
    else
        g->first = p->next;
    if (p->next)
        p->next->prev = p->prev;
    else
        g->last = p->prev;
    if (!p->is_dialled) g->n_in--;
    if (p->chan) g->n_tls--;
    free(p);
}

static void count_end(struct gate *g, enum gate_end how, const struct pending *p,
                      const struct err *e) {
    static const char *const what[N_GATE_END] = {
        [GATE_GARBAGE] = "sent what no node sends",
        [GATE_WRONG_KEY] = "is not of this cluster",
        [GATE_LATE] = "opens a connection and does not say who it is in time",
        [GATE_VERSION] = "runs another version of dair",
        [GATE_DISPLACED] = "opens connections and does not go on with them",
        [GATE_POSTPONED] = "comes at a time with many others"};
    uint64_t *const count[N_GATE_END] = {
        &g->counts.failed,    &g->counts.garbage,   &g->counts.wrong_key, &g->counts.self,
        &g->counts.timed_out, &g->counts.displaced, &g->counts.postponed, &g->counts.other_version};
    char host[INET6_ADDRSTRLEN];
    unsigned missed;
    ++*count[how];
    if (how == GATE_LATE && p->is_dialled) return;  // it may just not be there yet
    if (!what[how] || !log_may(&g->limit[how], &missed)) return;
    log_warn("net", "refused %s, which %s: %s (%u others since this was last said)",
             host_text(&p->addr, host), what[how], e->text, missed);
}

static void pending_end(struct pending *p, enum gate_end how, const struct err *e) {
    struct gate *g = p->g;
    int fd = p->fd.fd;
    struct chan *chan = p->chan;
    bool is_dialled = p->is_dialled;
    uint64_t tag = p->tag;
    count_end(g, how, p, e);
    pending_free(p);
    if (chan)
        chan_close(chan);
    else if (fd >= 0)
        close(fd);
    if (is_dialled) g->conf.on_failed(g->conf.ctx, tag, how, e);
}

/* Of those that came in (and, if has_tls, have a channel) the oldest of the address with most: who opens
 * many gives way to who opens few. NULL: there is none. */
static struct pending *displaced(struct gate *g, bool has_tls) {
    struct pending *victim = NULL;
    unsigned most = 0;
    for (struct pending *p = g->first; p; p = p->next) {
        unsigned n = 0;
        if (p->is_dialled || (has_tls && !p->chan)) continue;
        for (struct pending *q = p; q; q = q->next) {
            bool is_one = !q->is_dialled && (!has_tls || q->chan);
            n += is_one && same_host(&p->addr, &q->addr);
        }
        if (n > most) most = n, victim = p;
    }
    return victim;
}

static const struct err too_many = {.code = ERR_LIMIT,
                                    .text = "more connections than are kept waiting"};

static const struct err crowded = {
    .code = ERR_LIMIT, .text = "more handshakes than there is memory for; a node dials again"};

static void on_deadline(struct loop_timer *t, uint64_t now_ns) {
    struct pending *p = t->owner;
    struct err e = p->why;
    (void)now_ns;
    if (p->is_dead) {
        pending_end(p, GATE_FAILED, &e);
        return;
    }
    err_set(&e, ERR_IO, "no answer within %d ms", GATE_HANDSHAKE_MS);
    pending_end(p, GATE_LATE, &e);
}

static void proved(struct pending *p) {
    struct gate *g = p->g;
    struct chan *chan = p->chan;
    const struct gate_peer peer = {.id = p->peer.id,
                                   .instance = p->peer.instance,
                                   .kind = p->kind,
                                   .epoch = p->epoch,
                                   .is_dialled = p->is_dialled,
                                   .is_old_key = p->is_old_key,
                                   .addr = p->addr,
                                   .tag = p->tag};
    g->counts.proved++;
    pending_free(p);
    g->conf.on_peer(g->conf.ctx, chan, &peer);
}

/* --- the preamble --- */

static void write_preamble(struct pending *p) {
    const struct keys *k = p->g->conf.keys;
    const struct preamble ours = {.kind = p->kind,
                                  .epoch = p->epoch,
                                  .id = p->self,
                                  .instance = p->self_instance,
                                  .print = k->has_key ? k->print : 0,
                                  .old_print = k->has_old ? k->old_print : 0};
    preamble_write(p->out, &ours);
    p->out_len = PREAMBLE_LEN;
}

static enum chan_io send_preamble(struct pending *p, struct err *e) {
    while (p->sent < p->out_len) {
        ssize_t n = send(p->fd.fd, p->out + p->sent, p->out_len - p->sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return CHAN_AGAIN;
        if (n < 0) return err_sys(e, "the connection was lost"), CHAN_FAILED;
        p->sent += (unsigned)n;
    }
    return CHAN_DONE;
}

/* Not a byte more than the preamble: what follows is the channel's. */
static enum chan_io take_preamble(struct pending *p, struct err *e) {
    while (p->got < PREAMBLE_LEN) {
        ssize_t n = recv(p->fd.fd, p->in + p->got, PREAMBLE_LEN - p->got, 0);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return CHAN_AGAIN;
        if (n < 0) return err_sys(e, "the connection was lost"), CHAN_FAILED;
        if (!n) return err_set(e, ERR_IO, "the other side closed the connection"), CHAN_FAILED;
        p->got += (unsigned)n;
    }
    return CHAN_DONE;
}

/* Negative: we are the TLS client; 0: the peer is this very process. */
static int order(const struct pending *p) {
    int c = ident_cmp(&p->self, &p->peer.id);
    if (c) return c;
    return (p->self_instance > p->peer.instance) - (p->self_instance < p->peer.instance);
}

/* The peer's preamble is there: is it one to go on with, and if so, by which key and role? */
static MUST judge(struct pending *p, struct chan_setup *s, enum gate_end *how, struct err *e) {
    const struct keys *keys = p->g->conf.keys;
    *how = GATE_SELF;
    if (!order(p)) return err_set(e, ERR_IO, "the address is that of this node itself");
    *how = GATE_GARBAGE;
    if (p->peer.kind != p->kind || p->peer.epoch != p->epoch) {
        return err_set(e, ERR_FORMAT, "the node answers what it was not asked");
    }
    *how = GATE_WRONG_KEY;
    bool is_client = order(p) < 0;
    const struct cluster_key *key = preamble_key(keys, &p->peer, is_client, &p->is_old_key);
    if (!key) return err_set(e, ERR_USAGE, "the other side has another cluster key");
    *s = (struct chan_setup){.role = is_client ? CHAN_CLIENT : CHAN_SERVER,
                             .kind = p->kind,
                             .epoch = p->epoch,
                             .self = p->self,
                             .peer = p->peer.id,
                             .self_instance = p->self_instance,
                             .peer_instance = p->peer.instance,
                             .key = *key};
    return true;
}

/* Both preambles are exchanged: memory for TLS may be taken. */
static MUST begin_tls(struct pending *p, enum gate_end *how, struct err *e) {
    struct chan_setup s;
    struct gate *g = p->g;
    if (!judge(p, &s, how, e)) return false;
    if (g->n_tls >= g->conf.n_handshake) {
        struct pending *other = displaced(g, true);
        *how = p->is_dialled ? GATE_FAILED : GATE_POSTPONED;  // we dial again
        *e = crowded;
        if (!other) return false;
        pending_end(other, GATE_POSTPONED, &crowded);
    }
    *how = GATE_FAILED;
    /* The channel has the socket from here on, also when it fails; epoll forgets a closed one. */
    loop_forget(g->conf.loop, &p->fd);
    bool ok = chan_open(&p->chan, p->fd.fd, &s, e);
    if (!ok) p->fd.fd = -1;
    g->n_tls += ok;
    explicit_bzero(&s, sizeof s);
    return ok;
}

/* One that came in answers whoever sends a preamble, so that the other side can say what is wrong;
 * anything else gets no byte. */
static MUST answer(struct pending *p, enum gate_end *how, struct err *e) {
    struct err ignored;
    *how = GATE_GARBAGE;
    bool ok = preamble_read(&p->peer, p->in, e);
    if (!ok && e->code == ERR_UNSUPPORTED) *how = GATE_VERSION;
    if (p->is_dialled) return ok;
    if (!ok && *how != GATE_VERSION) return false;
    p->kind = ok ? p->peer.kind : CHAN_CONTROL;
    p->epoch = ok ? p->peer.epoch : 0;
    write_preamble(p);
    if (!ok) (void)send_preamble(p, &ignored);
    return ok;
}

static enum chan_io greet(struct pending *p, enum gate_end *how, struct err *e) {
    *how = GATE_FAILED;
    if (p->is_connecting) {
        socklen_t n = sizeof errno;
        int error = 0;
        if (getsockopt(p->fd.fd, SOL_SOCKET, SO_ERROR, &error, &n)) error = errno;
        errno = error;
        if (error) return err_sys(e, "cannot connect"), CHAN_FAILED;
        p->is_connecting = false;
        write_preamble(p);
    }
    if (send_preamble(p, e) == CHAN_FAILED) return CHAN_FAILED;
    if (p->got < PREAMBLE_LEN) {
        enum chan_io io = take_preamble(p, e);
        if (io != CHAN_DONE) return io;
        if (!answer(p, how, e)) return CHAN_FAILED;
    }
    enum chan_io io = send_preamble(p, e);
    if (io != CHAN_DONE) return io;
    return begin_tls(p, how, e) ? CHAN_DONE : CHAN_FAILED;
}

static enum chan_io advance(struct pending *p, enum gate_end *how, struct err *e) {
    if (!p->chan) {
        enum chan_io io = greet(p, how, e);
        if (io != CHAN_DONE) return io;
    }
    enum chan_io io = chan_handshake(p->chan, e);
    *how = e->code == ERR_USAGE    ? GATE_WRONG_KEY
           : e->code == ERR_FORMAT ? GATE_GARBAGE
                                   : GATE_FAILED;
    return io;
}

static uint32_t wanted(const struct pending *p) {
    if (p->chan) return chan_events(p->chan);
    if (p->is_connecting) return EPOLLOUT;
    return EPOLLIN | (p->sent < p->out_len ? EPOLLOUT : 0);
}

static void on_ready(struct loop_fd *f, uint32_t events) {
    struct pending *p = f->owner;
    enum gate_end how = GATE_FAILED;
    struct err e = {0};
    (void)events;
    enum chan_io io = advance(p, &how, &e);
    if (io == CHAN_DONE) {
        proved(p);
        return;
    }
    if (io == CHAN_AGAIN && loop_watch(p->g->conf.loop, &p->fd, wanted(p), &e)) return;
    pending_end(p, how, &e);
}

/* --- coming in --- */

static void take_in(struct gate *g, int fd, struct sockaddr_storage *addr) {
    struct err e;
    plain_address(addr);
    g->counts.accepted++;
    if (g->n_in >= GATE_PENDING) pending_end(displaced(g, false), GATE_DISPLACED, &too_many);
    struct pending *p = pending_new(g, fd, addr);
    if (!p) {
        close(fd);
        return;
    }
    g->n_in++;
    gate_socket_options(fd);
    p->fd.ready = on_ready;
    p->deadline.fire = on_deadline;
    loop_at(g->conf.loop, &p->deadline, clock_ns() + GATE_HANDSHAKE_MS * MS);
    if (!loop_watch(g->conf.loop, &p->fd, EPOLLIN, &e)) pending_end(p, GATE_FAILED, &e);
}

static void on_resume(struct loop_timer *t, uint64_t now_ns) {
    struct gate *g = t->owner;
    struct err e;
    (void)now_ns;
    if (!gate_listen_resume(&g->listen, &e)) log_error("net", "%s", e.text);
}

static void on_incoming(struct loop_fd *f, uint32_t events) {
    struct gate *g = f->owner;
    unsigned missed;
    (void)events;
    /* A few at a time: those that are pending have their turns in between. */
    for (int i = 0; i < ACCEPT_BATCH; i++) {
        struct sockaddr_storage addr = {0};
        socklen_t len = sizeof addr;
        void *any = &addr;
        int fd = accept4(f->fd, any, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            take_in(g, fd, &addr);
            continue;
        }
        if (errno == EAGAIN || errno == EWOULDBLOCK) return;
        if (errno != EMFILE && errno != ENFILE && errno != ENOBUFS && errno != ENOMEM) continue;
        /* The connection stays in the queue and would wake us for ever. */
        if (log_may(&g->full, &missed)) {
            log_error("net", "cannot accept a connection: %s", strerror(errno));
        }
        gate_listen_pause(&g->listen);
        loop_at(g->conf.loop, &g->resume, clock_ns() + PAUSE_MS * MS);
        return;
    }
}

/* --- going out --- */

void gate_dial(struct gate *g, const struct sockaddr_storage *addr, enum chan_kind kind,
               uint64_t epoch, uint64_t tag) {
    const void *any = addr;
    socklen_t len =
        addr->ss_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
    struct err e;
    struct pending *p = pending_new(g, -1, addr);
    if (!p) {
        err_set(&e, ERR_MEMORY, "no memory for a connection");
        g->conf.on_failed(g->conf.ctx, tag, GATE_FAILED, &e);
        return;
    }
    p->is_dialled = p->is_connecting = true;
    p->kind = kind;
    p->epoch = epoch;
    p->tag = tag;
    p->fd.ready = on_ready;
    p->deadline.fire = on_deadline;
    loop_at(g->conf.loop, &p->deadline, clock_ns() + GATE_HANDSHAKE_MS * MS);
    p->fd.fd = socket(addr->ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (p->fd.fd < 0) {
        err_sys(&p->why, "no socket for a connection");
    } else {
        gate_socket_options(p->fd.fd);
        if (!connect(p->fd.fd, any, len) || errno == EINPROGRESS) {
            if (loop_watch(g->conf.loop, &p->fd, EPOLLOUT, &p->why)) return;
        } else {
            err_sys(&p->why, "cannot connect");
        }
    }
    p->is_dead = true;
    loop_at(g->conf.loop, &p->deadline, clock_ns());
}

/* --- the whole --- */

MUST gate_open(struct gate **out, const struct gate_conf *c, struct err *e) {
    *out = NULL;
    struct gate *g = calloc(1, sizeof *g);
    if (!g) return err_set(e, ERR_MEMORY, "no memory for the cluster's port");
    g->conf = *c;
    g->resume = (struct loop_timer){.fire = on_resume, .owner = g};
    if (!gate_listen_open(&g->listen, c->loop, c->interface, c->port, on_incoming, g, e)) {
        gate_close(g);
        return false;
    }
    *out = g;
    return true;
}

void gate_close(struct gate *g) {
    if (!g) return;
    for (struct pending *p = g->first, *next; p; p = next) {
        next = p->next;
        struct chan *chan = p->chan;
        int fd = p->fd.fd;
        pending_free(p);
        if (chan)
            chan_close(chan);
        else if (fd >= 0)
            close(fd);
    }
    loop_cancel(g->conf.loop, &g->resume);
    gate_listen_close(&g->listen);
    free(g);
}

uint16_t gate_port(const struct gate *g) {
    return g->listen.port;
}

void gate_counts(const struct gate *g, struct gate_counts *out) {
    *out = g->counts;
}
