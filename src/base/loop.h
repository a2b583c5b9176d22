/* loop.h - one thread that waits for many things: epoll, with caller-owned events.
 *
 * A source (struct loop_fd) or a timer (struct loop_timer) is a field of whoever owns it, so that
 * nothing is allocated; the callback finds its owner from the `owner` pointer. Everything is called
 * on the thread inside loop_run(), and may be called only there, except loop_post() and loop_stop().
 * A callback may remove and close any source, its own included.
 */
#ifndef BASE_LOOP_H
#define BASE_LOOP_H

#include "base/err.h"

#include <stdatomic.h>
#include <stdint.h>
#include <sys/epoll.h>

struct loop_fd {
    int fd;                                             // borrowed
    void (*ready)(struct loop_fd *f, uint32_t events);  // EPOLLIN, EPOLLOUT, EPOLLHUP...
    void *owner;
    uint32_t events;  // what is waited for; 0: not in the loop
};

struct loop_timer {
    void (*fire)(struct loop_timer *t, uint64_t now_ns);
    void *owner;
    uint64_t at_ns;  // when it is due; 0: not set
    struct loop_timer *next;
};

struct loop {
    int epoll_fd, wake_fd;
    struct loop_timer *timer;  // soonest first
    struct loop_fd wake;
    struct epoll_event *batch;  // events being handed out: removal blanks them
    int n_batch;
    void (*posted)(void *ctx);  // called after loop_post
    void *posted_ctx;
    atomic_bool is_stopped;
};

/* posted(ctx) is called on the loop's thread once or more after each loop_post(). */
MUST loop_open(struct loop *l, void (*posted)(void *ctx), void *ctx, struct err *e);
void loop_close(struct loop *l);

/* Watch f for `events` (EPOLLIN and so on; replaces what was watched before). Fails: ERR_IO. */
MUST loop_watch(struct loop *l, struct loop_fd *f, uint32_t events, struct err *e);
/* No callback for f after this, not even one that is already due. Before close(f->fd). */
void loop_forget(struct loop *l, struct loop_fd *f);

/* One shot at clock_ns() >= at_ns; setting again moves it. */
void loop_at(struct loop *l, struct loop_timer *t, uint64_t at_ns);
void loop_cancel(struct loop *l, struct loop_timer *t);

/* Returns after loop_stop(), or when the kernel fails us (ERR_IO). */
MUST loop_run(struct loop *l, struct err *e);

/* From any thread, also from a signal handler. */
void loop_post(struct loop *l);
void loop_stop(struct loop *l);

#endif
