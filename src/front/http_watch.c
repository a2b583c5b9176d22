/* http_watch.c - connections: who is let in, who has gone, who takes too long.
 *
 * The watch, a thread of its own, accepts clients into slots and hands them to the library, whose thread
 * tells of their begin and end (http_conn_begun, http_conn_over). A slot has its socket until then; all in it is under the
 * lock. Where no more can be accepted, or interfaces cannot be followed, that is tried again later. */
#include "base/log.h"
#include "front/http_own.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

enum { WATCH_MS = 250 };  // how late a deadline may be noticed

void http_watch_poke(const struct http *h) {
    if (eventfd_write(h->wake_fd, 1) != 0) log_debug("http", "the watch is not woken");
}

/* --- connections --- */

/* Who has waited longest for its (next) request goes, so that others get in. Under the lock. */
static void make_room(struct http *h) {
    struct conn *oldest = NULL;
    for (size_t i = 0; i < HTTP_CONNS; i++) {
        struct conn *k = &h->conn[i];
        if (k->fd < 0 || !k->is_known || !k->since_ns) continue;
        if (!oldest || k->since_ns < oldest->since_ns) oldest = k;
    }
    if (!oldest) return;
    shutdown(oldest->fd, SHUT_RDWR);
    oldest->since_ns = oldest->deadline_ns = 0;  // once is enough
}

static struct conn *conn_of(struct http *h, int fd) {
    for (size_t i = 0; i < HTTP_CONNS; i++) {
        if (h->conn[i].fd == fd) return &h->conn[i];
    }
    return NULL;
}

static void free_conn(struct http *h, struct conn *k) {
    *k = (struct conn){.fd = -1};
    h->n_conn--;
}

struct conn *http_conn_begun(struct http *h, int fd) {
    pthread_mutex_lock(&h->lock);
    struct conn *k = conn_of(h, fd);
    if (k) k->is_known = true;
    pthread_mutex_unlock(&h->lock);
    return k;
}

void http_conn_over(struct http *h, struct conn *k) {
    pthread_mutex_lock(&h->lock);
    bool was_full = h->n_conn >= h->limits.conns;
    free_conn(h, k);
    pthread_mutex_unlock(&h->lock);
    if (was_full) http_watch_poke(h);  // others may wait to get in
}

/* A slot for the new connection. A slot of this number is of one that the library gave up unsaid, for
 * want of memory. */
static void claim(struct http *h, int fd) {
    pthread_mutex_lock(&h->lock);
    if (h->n_conn >= h->limits.conns * 3 / 4) make_room(h);
    struct conn *k = conn_of(h, fd);
    if (k) free_conn(h, k);
    k = conn_of(h, -1);
    assert(k);  // fewer than all are in use
    *k = (struct conn){
        .fd = fd, .since_ns = clock_ns(), .deadline_ns = in_ms(h->conf.times.header_ms)};
    h->n_conn++;
    pthread_mutex_unlock(&h->lock);
}

static void unclaim(struct http *h, int fd) {
    pthread_mutex_lock(&h->lock);
    struct conn *k = conn_of(h, fd);
    if (k) free_conn(h, k);
    pthread_mutex_unlock(&h->lock);
}

static bool is_full(struct http *h) {
    pthread_mutex_lock(&h->lock);
    bool is = h->n_conn >= h->limits.conns;
    pthread_mutex_unlock(&h->lock);
    return is;
}

/* Lets in who waits at a listening socket. */
static void let_in(struct http *h, int listener) {
    while (!is_full(h)) {
        struct sockaddr_storage from;
        socklen_t len = sizeof from;
        struct sockaddr *at = (struct sockaddr *)(void *)&from;
        int fd = accept4(listener, at, &len, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0) {
            /* No descriptors or no memory: the socket stays readable, we must not spin on it. */
            bool is_calm = errno == EAGAIN || errno == ECONNABORTED || errno == EINTR;
            if (!is_calm) h->accept_ns = in_ms(WATCH_MS);
            return;
        }
        claim(h, fd);
        if (!http_hand_over(h, fd, at, len)) unclaim(h, fd);
    }
}

/* --- the watch --- */

static bool has_hung_up(int fd) {
    struct pollfd p = {.fd = fd, .events = POLLRDHUP};
    return poll(&p, 1, 0) > 0 && (p.revents & (POLLRDHUP | POLLHUP | POLLERR));
}

/* One connection. Under the lock. */
static void check_conn(const struct http *h, struct conn *k, uint64_t now) {
    struct http_request *q = k->q;
    if (!k->is_known) return;
    if (k->deadline_ns && now >= k->deadline_ns) {
        shutdown(k->fd, SHUT_RDWR);
        k->deadline_ns = 0;
    }
    if (!q || q->is_gone) return;
    uint64_t quiet_ns = h->conf.times.quiet_ms * (uint64_t)1000000;
    if (has_hung_up(k->fd)) {
        q->is_gone = true;
        http_unpause(q);
    } else if (q->is_paused && q->is_stream && q->quiet && now - q->said_ns >= quiet_ns) {
        q->is_quiet = true;
        http_unpause(q);
    }
}

enum { AT_WAKE, AT_CHANGES, AT_LISTEN };

/* What to wait for: in this order, then the clients that wait for us. Returns how many. */
static nfds_t list_fds(struct http *h, struct pollfd *fd, int *ms) {
    nfds_t n = AT_LISTEN;
    fd[AT_WAKE] = (struct pollfd){.fd = h->wake_fd, .events = POLLIN};
    fd[AT_CHANGES] = (struct pollfd){.fd = h->listen.changes_fd, .events = POLLIN};
    bool is_open = clock_ns() >= h->accept_ns;
    pthread_mutex_lock(&h->lock);
    is_open = is_open && h->n_conn < h->limits.conns;
    for (uint32_t i = 0; i < h->listen.n; i++) {
        fd[n++] = (struct pollfd){.fd = is_open ? h->listen.at[i].fd : -1, .events = POLLIN};
    }
    for (size_t i = 0; i < HTTP_CONNS; i++) {
        const struct conn *k = &h->conn[i];
        if (k->fd < 0 || !k->q || k->q->is_gone) continue;
        fd[n++] = (struct pollfd){.fd = k->fd, .events = POLLRDHUP};
    }
    *ms = h->n_conn || !is_open ? WATCH_MS : -1;
    pthread_mutex_unlock(&h->lock);
    return n;
}

/* Lets clients in, and sleeps until there is one, one that waits for us leaves, or it is time to look
 * at the deadlines. A client that only closes its sending side counts as gone: those of HTTP do not
 * do that. */
static void *watch(void *ctx) {
    struct http *h = ctx;
    struct pollfd fd[AT_LISTEN + LISTENERS + HTTP_CONNS];
    struct err e;
    bool is_closing = false;
    (void)pthread_setname_np(pthread_self(), "dair-http");
    while (!is_closing) {
        int ms = -1;
        nfds_t n = list_fds(h, fd, &ms);
        poll(fd, n, ms);
        if (fd[AT_WAKE].revents) {
            eventfd_t ignored;
            eventfd_read(h->wake_fd, &ignored);
        }
        for (uint32_t i = 0; i < h->listen.n; i++) {
            if (fd[AT_LISTEN + i].revents) let_in(h, h->listen.at[i].fd);
        }
        if (fd[AT_CHANGES].revents && !listen_follow(&h->listen, &e))
            log_error("http", "%s", e.text);
        uint64_t now = clock_ns();
        pthread_mutex_lock(&h->lock);
        for (size_t i = 0; i < HTTP_CONNS; i++) {
            if (h->conn[i].fd >= 0) check_conn(h, &h->conn[i], now);
        }
        is_closing = h->is_closing;
        pthread_mutex_unlock(&h->lock);
    }
    return NULL;
}

MUST http_watch_start(struct http *h, struct err *e) {
    int bad = pthread_create(&h->watch, NULL, watch, h);
    if (!bad) return true;
    errno = bad;
    return err_sys(e, "no thread for the HTTP watch");
}

void http_watch_stop(struct http *h) {
    pthread_mutex_lock(&h->lock);
    h->is_closing = true;  // nothing pauses any more
    for (size_t i = 0; i < HTTP_CONNS; i++) {
        if (h->conn[i].fd >= 0 && h->conn[i].q) http_unpause(h->conn[i].q);
    }
    pthread_mutex_unlock(&h->lock);
    http_watch_poke(h);
    pthread_join(h->watch, NULL);
}
