/* http_own.h - what the files of the HTTP service share; private to http*.c.
 *
 * http_watch.c lets clients in, and out again; http.c takes their requests to a handler, and what that and
 * jobs reply to them. limits.c says how much of it all there may be.
 *
 * Ownership: a struct conn lasts from accept() until the library tells of its end, a request from its
 * head until the library tells that it is over; it owns its texts. Sockets are the library's.
 * Threads: what is not under the lock is the library's thread's, or does not change. Functions are for that
 * thread, too, unless they say otherwise.
 */
#ifndef FRONT_HTTP_OWN_H
#define FRONT_HTTP_OWN_H

#include "base/clock.h"
#include "base/listen.h"
#include "front/limits.h"

#include <pthread.h>
#include <sys/socket.h>

/* A connection, as the watch knows it. */
struct conn {
    int fd;                  // -1: the slot is free
    bool is_known;           // to the library: it will tell of its end
    uint64_t since_ns;       // waits for a request since then; 0: has one
    uint64_t deadline_ns;    // for what it must send; 0: none
    struct http_request *q;  // its job is under way
};

struct http {
    struct http_conf conf;
    struct http_limits limits;
    char *api_key;  // owned copy, or NULL
    struct MHD_Daemon *daemon;
    uint16_t port;
    size_t body_bytes;  // of all bodies; the library's thread
    pthread_t watch;
    int wake_fd;  // wakes the watch
    struct listen listen;
    uint64_t accept_ns;  // before then nobody is let in; the watch's thread

    pthread_mutex_t lock;  // what follows, and what struct http_request says
    bool is_closing;
    uint32_t n_conn;
    struct conn conn[HTTP_CONNS];
};

struct http_request {
    struct http *h;
    struct conn *conn;
    struct MHD_Connection *c;
    const struct http_route *route;
    bool has_body;
    unsigned refused;  // status of a refusal that waits for the rest of the body
    const char *why;   // and its sentence
    char *body;        // [cap_body]
    size_t n_body, cap_body, discarded;
    bool is_handled, is_replied, is_queued, is_finished, is_broken;
    char warning[HTTP_WARNING];  // "": none
    const char *quiet;
    char *out;  // [cap_out]: written, from at_out on not yet sent
    size_t at_out, n_out, cap_out;

    /* under the lock */
    struct http_job *job;
    bool is_paused, is_woken, is_gone, is_quiet;
    bool is_stream;
    uint64_t said_ns;  // when the stream last said something
};

static inline uint64_t in_ms(unsigned ms) {
    return clock_ns() + ms * (uint64_t)1000000;
}

/* ---- http_watch.c: start, stop and poke from any thread */

MUST http_watch_start(struct http *h, struct err *e);
void http_watch_stop(struct http *h);        // from now on nothing waits
void http_watch_poke(const struct http *h);  // something is new that it looks at
/* The library has taken up the connection of this socket: its slot, NULL if there is none. */
struct conn *http_conn_begun(struct http *h, int fd);
void http_conn_over(struct http *h, struct conn *k);

/* ---- http.c */

/* A socket to the library, from the watch's thread; false: it closed it. */
bool http_hand_over(struct http *h, int fd, const struct sockaddr *from, socklen_t len);
/* It is looked at again. Under the lock, from any thread. */
void http_unpause(struct http_request *q);

#endif
