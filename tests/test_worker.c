/* Two workers over real channels: whoever has its weights says so, however long the other takes.
 * A worker that leads, and a node whose end is in our hand: what becomes of a step when a third node
 * joins in the middle of it. */
#include "cluster/coll_net.h"
#include "cluster/plan.h"
#include "engine/watch.h"
#include "engine/worker.h"
#include "mesh_maker.h"
#include "shape_maker.h"
#include "tap.h"

#include <stdio.h>
#include <time.h>

enum { NODES = 2, EPOCH = 7, POOL = 64 << 20, BATCH = 4, PROMPT = 2 * BATCH };

struct node {
    struct worker *worker;
    struct epoch *epoch;
    atomic_uint n_loaded, n_paused, n_broke;
};

static struct kernels kernels;

static void on_loading(void *ctx, uint64_t done) {
    (void)ctx, (void)done;
}

static void on_loaded(void *ctx, uint64_t epoch, const struct nn_memory *m) {
    struct node *n = ctx;
    (void)m;
    if (epoch == EPOCH) atomic_fetch_add(&n->n_loaded, 1);
}

static void on_paused(void *ctx, uint64_t epoch) {
    struct node *n = ctx;
    if (epoch == EPOCH) atomic_fetch_add(&n->n_paused, 1);
}

static void on_broke(void *ctx, uint64_t epoch, int suspect, const char *why) {
    struct node *n = ctx;
    atomic_fetch_add(&n->n_broke, 1);
    printf("# epoch %llu, suspect %d: %s\n", (unsigned long long)epoch, suspect, why);
}

static void on_product(void *ctx) {
    (void)ctx;
}

static MUST open_node(struct node *n, unsigned i, const struct model *m, const struct plan *p,
                      struct mesh *mesh, struct err *e) {
    const struct worker_conf c = {.model = m,
                                  .kernels = &kernels,
                                  .pool = POOL,
                                  .n_thread = 1,
                                  .n_reader = 1,
                                  .n_slot = 2,
                                  .on_loading = on_loading,
                                  .on_loaded = on_loaded,
                                  .on_paused = on_paused,
                                  .on_broke = on_broke,
                                  .on_product = on_product,
                                  .ctx = n};
    n->epoch = calloc(1, sizeof *n->epoch);
    if (!n->epoch) return err_set(e, ERR_MEMORY, "no memory");
    n->epoch->plan = *p;
    n->epoch->self = i;
    n->epoch->mesh = mesh;
    n->epoch->refs = 2;  // the worker's and ours
    return worker_open(&n->worker, &c, e);
}

static void end_epoch(struct node *n) {
    atomic_store(&n->epoch->is_over, true);
    mesh_abort(n->epoch->mesh);
    worker_notify(n->worker);
}

static void close_node(struct node *n) {
    worker_close(n->worker);
    epoch_release(n->epoch);
}

static bool has_loaded(struct node *n) {
    const struct timespec some = {.tv_nsec = 1000000};
    for (int i = 0; i < 20000 && !atomic_load(&n->n_loaded); i++) nanosleep(&some, NULL);
    return atomic_load(&n->n_loaded) == 1;
}

static MUST make_plan(struct plan *p, const struct model *m, struct err *e) {
    struct plan_member member[NODES] = {{.pool = POOL}, {.pool = POOL}};
    const struct plan_wish wish = {.epoch = EPOCH, .n_ctx = 48, .n_batch = BATCH, .n_seq = 1};
    bool left_out[NODES];
    for (unsigned i = 0; i < NODES; i++) member[i].id.b[0] = (uint8_t)(1 + i);
    return plan_make(p, m, &kernels, member, NODES, &wish, left_out, e);
}

static const struct shape shape = {"small", 64, 8, 4, 8, 96, 50, SHAPE_LAYERS, {W_Q8_0}};

/* --- both are workers --- */

static void test_loading(const struct model *m, const struct plan *plan) {
    static struct node node[NODES];
    struct mesh *mesh[NODES];
    struct err e = {0};
    bool ok = mesh_make(mesh, NODES, 1 << 16, 0, &e);
    for (unsigned i = 0; ok && i < NODES; i++) ok = open_node(&node[i], i, m, plan, mesh[i], &e);
    if (!tap_ok(ok, "two nodes, joined %s", e.text)) return;
    worker_epoch(node[1].worker, node[1].epoch);
    tap_ok(has_loaded(&node[1]), "one has its weights and says so; the leader has not begun");
    worker_epoch(node[0].worker, node[0].epoch);
    tap_ok(has_loaded(&node[0]), "the leader follows");
    for (unsigned i = 0; i < NODES; i++) end_epoch(&node[i]);
    for (unsigned i = 0; i < NODES; i++) close_node(&node[i]);
    tap_ok(!node[0].n_broke && !node[1].n_broke, "nothing broke, also when the epoch was ended");
}

/* --- a node joins --- */

/* The head of what a leader casts for a step, and its tokens. */
struct cast {
    uint32_t seq, pos, n_tok, k, n_id;
    int32_t token[PROMPT + WANT_IDS];
};

/* The other node. Nobody computes a layer alone: when we are through layer 3, the leader has seen
 * the end of layer 2, and for that it waited for what we sent after layer 1. */
struct hand {
    const struct model *model;
    const struct plan *plan;
    struct mesh *mesh;
    struct nn *nn;
    struct node *leader;
    bool has_token;  // the step to join in makes a token
    bool is_now;     // it is under way
    bool has_seen;
    unsigned n_paused;  // seen through layer 3 of it
    struct err err;
    bool ok;
};

static bool on_layer(void *ctx, uint32_t done, uint32_t n_layer) {
    struct hand *h = ctx;
    (void)n_layer;
    if (h->is_now && done == 1) atomic_store(&h->leader->epoch->is_pausing, true);
    if (!h->is_now || done < 3) return true;
    h->n_paused = atomic_load(&h->leader->n_paused);
    h->has_seen = true;
    return false;
}

static MUST open_hand(struct hand *h, struct err *e) {
    struct nn_conf c = {.model = h->model,
                        .kernels = &kernels,
                        .self = 1,
                        .n_slice = NODES,
                        .n_ctx = h->plan->n_ctx,
                        .n_batch = h->plan->n_batch,
                        .n_sweep = h->plan->n_sweep,
                        .n_seq = h->plan->n_seq,
                        .kv = (enum kv_type)h->plan->kv,
                        .wire = (enum wire_type)h->plan->wire,
                        .budget = POOL,
                        .n_reader = 1,
                        .n_slot = 2,
                        .n_thread = 1};
    if (!plan_cuts(h->plan, h->model, &c.cuts, e)) return false;
    if (!nn_open(&h->nn, &c, mesh_coll(h->mesh), e)) return false;
    nn_watch(h->nn, on_layer, h);
    return nn_load(h->nn, NULL, NULL, e) && mesh_wait(h->mesh, e) && mesh_greet(h->mesh, e);
}

static void follow(void *ctx, struct par *team) {
    struct hand *h = ctx;
    struct cast s = {0};
    size_t len;
    h->ok = open_hand(h, &h->err);
    while (h->ok && !h->has_seen) {
        h->ok = mesh_hear(h->mesh, &s, sizeof s, &len, &h->err);
        bool has_token = s.k || s.n_id;
        h->is_now = has_token == h->has_token;
        h->ok = h->ok &&
                (nn_step(h->nn, team, s.seq, s.token, s.n_tok, has_token, &h->err) || h->has_seen);
    }
}

/* A node joins in layer 2 of the first step of a prompt, or of the last, which makes a token. */
static void test_joining(const struct model *m, const struct plan *plan, bool has_token) {
    static const int32_t prompt[PROMPT] = {1, 2, 3, 4, 5, 6, 7, 8};
    struct node leader = {0};
    struct mesh *mesh[NODES];
    struct err e = {0};
    const struct ask ask = {
        .ticket = 1, .n_prompt = PROMPT, .n_id = PROMPT, .id = prompt, .n_predict = 2};
    bool ok = mesh_make(mesh, NODES, 1 << 16, 0, &e) && open_node(&leader, 0, m, plan, mesh[0], &e);
    if (!tap_ok(ok, "a leader %s", e.text)) return;
    struct hand h = {.model = m, .plan = plan, .mesh = mesh[1], .leader = &leader};
    h.has_token = has_token;
    worker_epoch(leader.worker, leader.epoch);
    ok = has_loaded(&leader) && worker_ask(leader.worker, EPOCH, &plan->node[0], &ask, &e) &&
         par_enter(1, follow, &h, &e);
    tap_ok(ok && h.ok && h.has_seen, "a step is under way %s%s", e.text, h.ok ? "" : h.err.text);
    tap_ok(h.n_paused == !has_token, "one that makes %s",
           has_token ? "a token is not left" : "none is left");
    end_epoch(&leader);
    mesh_abort(mesh[1]);
    close_node(&leader);
    nn_close(h.nn);
    mesh_close(mesh[1]);
    tap_ok(!leader.n_broke, "nothing broke");
}

static void test_rule(void) {
    static const struct {
        uint32_t spent_s, done, n_layer, n_node;
        bool ends;
        const char *why;
    } t[] = {
        {600, 0, 40, 2, true, "a step of which nothing is known yet"},
        {1, 1, 31, 2, true, "one that takes 30 s more, just begun"},
        {1, 1, 32, 2, false, "one that takes 31 s more, just begun"},
        {20, 10, 30, 2, false, "a third done, of two nodes: three take as long for all of it"},
        {22, 11, 30, 2, true, "more than a third"},
        {22, 11, 30, 1, false, "which is less than half, of one node"},
        {48, 16, 30, 1, true, "more than half"},
        {3000, 29, 30, 2, true, "one that is nearly done, however long"},
    };
    for (unsigned i = 0; i < sizeof t / sizeof t[0]; i++) {
        uint64_t ns = t[i].spent_s * (uint64_t)1000000000;
        bool ends = worker_ends_step(ns, t[i].done, t[i].n_layer, t[i].n_node);
        tap_ok(ends == t[i].ends, "%s is %s", t[i].why, t[i].ends ? "ended" : "left");
    }
}

/* Looks at a pulse, once a second but where it says otherwise. */
static void test_watch(void) {
    const uint64_t second = 1000000000;
    struct watch w = {0};
    uint64_t now = 100 * second;
    int n = 0;
    for (uint64_t i = 0; i < 60; i++) n += watch_is_stuck(&w, true, i, now += second);
    for (unsigned i = 0; i < 60; i++) n += watch_is_stuck(&w, false, 0, now += second);
    tap_ok(!n, "a pulse, and nothing to do");
    for (unsigned i = 0; i < WATCH_STUCK_S; i++) n += watch_is_stuck(&w, true, 7, now += second);
    tap_ok(!n && watch_is_stuck(&w, true, 7, now += second), "%d s without one", WATCH_STUCK_S);
    for (unsigned i = 1; i < WATCH_STUCK_S; i++) n += watch_is_stuck(&w, true, 7, now += second);
    tap_ok(!n && watch_is_stuck(&w, true, 7, now += second), "and as long again");
    for (unsigned i = 1; i < WATCH_STUCK_S; i++) n += watch_is_stuck(&w, true, 7, now += second);
    tap_ok(!n && !watch_is_stuck(&w, true, 7, now += 100 * second), "a machine that was asleep");
    n = watch_is_stuck(&w, true, 7, now + second) + watch_is_stuck(&w, true, 8, now + 2 * second);
    tap_ok(!n, "and woke up");
}

int main(void) {
    static struct plan plan;
    struct model m;
    struct blob file = shape_build(&shape);
    char path[64];
    struct err e = {0};
    int fd;
    blob_file(file.p, file.n, &fd, path);
    free(file.p);
    kernels_init(&kernels, cpu_features());
    bool ok = chan_init(&e) && model_open(&m, path, 0, 0, &e) && make_plan(&plan, &m, &e);
    if (!tap_ok(ok, "a model and a plan %s", e.text)) return tap_done();
    test_loading(&m, &plan);
    test_joining(&m, &plan, false);
    test_joining(&m, &plan, true);
    test_rule();
    test_watch();
    model_close(&m);
    close(fd);
    return tap_done();
}
