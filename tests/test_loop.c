/* test_loop.c - base/loop: sources, timers, wake-ups from elsewhere, and removal in mid-batch. */
#include "base/clock.h"
#include "base/loop.h"
#include "tap.h"

#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <unistd.h>

static _Noreturn void bail(const char *why) {
    printf("Bail out! %s\n", why);
    exit(1);
}

struct rig {
    struct loop loop;
    struct loop_fd a, b;
    struct loop_timer t[3];
    int pipe_a[2], pipe_b[2];
    int n_a, n_b, n_posted, order[3], n_order;
    sem_t has_posted;
};

static void on_posted(void *ctx) {
    struct rig *r = ctx;
    r->n_posted++;
    sem_post(&r->has_posted);
}

/* Whichever comes first takes both out of the loop: the other's event is in the same batch. */
static void on_first(struct loop_fd *f, uint32_t events) {
    struct rig *r = f->owner;
    (void)events;
    *(f == &r->a ? &r->n_a : &r->n_b) += 1;
    loop_forget(&r->loop, &r->a);
    loop_forget(&r->loop, &r->b);
}

static void on_timer(struct loop_timer *t, uint64_t now) {
    struct rig *r = t->owner;
    (void)now;
    r->order[r->n_order++] = (int)(t - r->t);
    if (r->n_order == 2) loop_stop(&r->loop);
}

static void *post_from_elsewhere(void *ctx) {
    struct rig *r = ctx;
    loop_post(&r->loop);
    sem_wait(&r->has_posted);
    loop_stop(&r->loop);
    return NULL;
}

static void open_rig(struct rig *r) {
    struct err e = {0};
    *r = (struct rig){0};
    if (sem_init(&r->has_posted, 0, 0)) bail("no semaphore");
    if (!loop_open(&r->loop, on_posted, r, &e)) bail(e.text);
    if (pipe(r->pipe_a) || pipe(r->pipe_b)) bail("no pipes");
    r->a = (struct loop_fd){.fd = r->pipe_a[0], .ready = on_first, .owner = r};
    r->b = (struct loop_fd){.fd = r->pipe_b[0], .ready = on_first, .owner = r};
    for (int i = 0; i < 3; i++) r->t[i] = (struct loop_timer){.fire = on_timer, .owner = r};
}

static void close_rig(struct rig *r) {
    loop_close(&r->loop);
    for (int i = 0; i < 2; i++) close(r->pipe_a[i]), close(r->pipe_b[i]);
}

static void test_timers(void) {
    struct rig r;
    struct err e = {0};
    open_rig(&r);
    uint64_t now = clock_ns();
    loop_at(&r.loop, &r.t[0], now + 30000000);
    loop_at(&r.loop, &r.t[1], now + 10000000);
    loop_at(&r.loop, &r.t[2], now + 5000000);
    loop_cancel(&r.loop, &r.t[2]);
    loop_at(&r.loop, &r.t[0], now + 20000000);  // moved
    tap_ok(loop_run(&r.loop, &e), "the loop runs to loop_stop");
    tap_ok(r.n_order == 2 && r.order[0] == 1 && r.order[1] == 0,
           "timers fire in the order they are due");
    tap_ok(clock_ns() - now >= 20000000, "and not before");
    close_rig(&r);
}

static void test_removal(void) {
    struct rig r;
    struct err e = {0};
    open_rig(&r);
    if (write(r.pipe_a[1], "x", 1) != 1 || write(r.pipe_b[1], "x", 1) != 1) bail("no write");
    tap_ok(loop_watch(&r.loop, &r.a, EPOLLIN, &e) && loop_watch(&r.loop, &r.b, EPOLLIN, &e),
           "two sources are watched");
    uint64_t now = clock_ns();
    loop_at(&r.loop, &r.t[0], now + 5000000);
    loop_at(&r.loop, &r.t[1], now + 5000000);
    tap_ok(loop_run(&r.loop, &e), "the loop runs");
    tap_ok(r.n_a + r.n_b == 1, "a source that was removed in the same batch is not called");
    close_rig(&r);
}

static void test_post(void) {
    struct rig r;
    struct err e = {0};
    pthread_t thread;
    open_rig(&r);
    if (pthread_create(&thread, NULL, post_from_elsewhere, &r)) bail("no thread");
    tap_ok(loop_run(&r.loop, &e),
           "a post from another thread wakes the loop, and it stops when told");
    pthread_join(thread, NULL);
    close_rig(&r);

    open_rig(&r);
    for (int i = 0; i < 100; i++) loop_post(&r.loop);
    uint64_t now = clock_ns();
    loop_at(&r.loop, &r.t[0], now + 5000000);
    loop_at(&r.loop, &r.t[1], now + 10000000);
    tap_ok(loop_run(&r.loop, &e) && r.n_posted == 1, "several at once count as one");
    close_rig(&r);
}

int main(void) {
    test_timers();
    test_removal();
    test_post();
    return tap_done();
}
