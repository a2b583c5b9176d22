#include "base/loop.h"

#include "base/clock.h"

#include <errno.h>
#include <stddef.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { LOOP_BATCH = 64 };

static void on_wake(struct loop_fd *f, uint32_t events) {
    struct loop *l = f->owner;
    uint64_t n;
    (void)events;
    while (read(l->wake_fd, &n, sizeof n) < 0 && errno == EINTR) continue;
    if (l->posted) l->posted(l->posted_ctx);
}

MUST loop_open(struct loop *l, void (*posted)(void *ctx), void *ctx, struct err *e) {
    *l = (struct loop){.epoll_fd = -1, .wake_fd = -1, .posted = posted, .posted_ctx = ctx};
    l->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    l->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (l->epoll_fd < 0 || l->wake_fd < 0) {
        err_sys(e, "the system gives no event loop");
        loop_close(l);
        return false;
    }
    l->wake = (struct loop_fd){.fd = l->wake_fd, .ready = on_wake, .owner = l};
    if (loop_watch(l, &l->wake, EPOLLIN, e)) return true;
    loop_close(l);
    return false;
}

void loop_close(struct loop *l) {
    if (l->wake_fd >= 0) close(l->wake_fd);
    if (l->epoll_fd >= 0) close(l->epoll_fd);
    l->wake_fd = l->epoll_fd = -1;
}

MUST loop_watch(struct loop *l, struct loop_fd *f, uint32_t events, struct err *e) {
    struct epoll_event ev = {.events = events, .data.ptr = f};
    if (f->events == events) return true;
    if (epoll_ctl(l->epoll_fd, f->events ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, f->fd, &ev)) {
        return err_sys(e, "cannot wait for a socket");
    }
    f->events = events;
    return true;
}

void loop_forget(struct loop *l, struct loop_fd *f) {
    if (!f->events) return;
    (void)epoll_ctl(l->epoll_fd, EPOLL_CTL_DEL, f->fd, NULL);
    f->events = 0;
    for (int i = 0; i < l->n_batch; i++) {
        if (l->batch[i].data.ptr == f) l->batch[i].data.ptr = NULL;
    }
}

void loop_cancel(struct loop *l, struct loop_timer *t) {
    if (!t->at_ns) return;
    struct loop_timer **p = &l->timer;
    while (*p && *p != t) p = &(*p)->next;
    if (*p) *p = t->next;
    t->at_ns = 0;
}

void loop_at(struct loop *l, struct loop_timer *t, uint64_t at_ns) {
    loop_cancel(l, t);
    t->at_ns = at_ns ? at_ns : 1;
    struct loop_timer **p = &l->timer;
    while (*p && (*p)->at_ns <= t->at_ns) p = &(*p)->next;
    t->next = *p;
    *p = t;
}

/* Milliseconds to the next timer, rounded up so that it is due when we wake; -1: none. */
static int time_left(const struct loop *l) {
    if (!l->timer) return -1;
    uint64_t now = clock_ns();
    if (l->timer->at_ns <= now) return 0;
    uint64_t ms = (l->timer->at_ns - now + 999999) / 1000000;
    return ms > 60000 ? 60000 : (int)ms;
}

static void run_timers(struct loop *l) {
    uint64_t now = clock_ns();
    while (l->timer && l->timer->at_ns <= now) {
        struct loop_timer *t = l->timer;
        l->timer = t->next;
        t->at_ns = 0;
        t->fire(t, now);
    }
}

MUST loop_run(struct loop *l, struct err *e) {
    struct epoll_event ev[LOOP_BATCH];
    while (!atomic_load(&l->is_stopped)) {
        int n = epoll_wait(l->epoll_fd, ev, LOOP_BATCH, time_left(l));
        if (n < 0 && errno != EINTR) return err_sys(e, "waiting for events");
        l->batch = ev;
        l->n_batch = n < 0 ? 0 : n;
        for (int i = 0; i < l->n_batch; i++) {
            struct loop_fd *f = ev[i].data.ptr;
            if (f) f->ready(f, ev[i].events);
        }
        l->n_batch = 0;
        run_timers(l);
    }
    return true;
}

void loop_post(struct loop *l) {
    uint64_t one = 1;
    while (write(l->wake_fd, &one, sizeof one) < 0 && errno == EINTR) continue;
}

void loop_stop(struct loop *l) {
    atomic_store(&l->is_stopped, true);
    loop_post(l);
}
