/* Two workers over real channels: whoever has its weights says so, however long the other takes. */
#include "cluster/plan.h"
#include "engine/worker.h"
#include "mesh_maker.h"
#include "shape_maker.h"
#include "tap.h"

#include <stdio.h>
#include <time.h>

enum { NODES = 2, EPOCH = 7, POOL = 64 << 20 };

struct node {
    struct worker *worker;
    struct epoch *epoch;
    atomic_uint n_loaded, n_broke;
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
    (void)ctx, (void)epoch;
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
    const struct plan_wish wish = {.epoch = EPOCH, .n_ctx = 48, .n_batch = 4, .n_seq = 1};
    bool left_out[NODES];
    for (unsigned i = 0; i < NODES; i++) member[i].id.b[0] = (uint8_t)(1 + i);
    return plan_make(p, m, &kernels, member, NODES, &wish, left_out, e);
}

int main(void) {
    static const struct shape shape = {"small", 64, 8, 4, 8, 96, 50, 3, {W_Q8_0}};
    static struct node node[NODES];
    static struct plan plan;
    struct mesh *mesh[NODES];
    struct model m;
    struct blob file = shape_build(&shape);
    char path[64];
    struct err e = {0};
    int fd;
    blob_file(file.p, file.n, &fd, path);
    free(file.p);
    kernels_init(&kernels, cpu_features());
    bool ok = chan_init(&e) && model_open(&m, path, 0, 0, &e) && make_plan(&plan, &m, &e) &&
              mesh_make(mesh, NODES, 1 << 16, 0, &e);
    for (unsigned i = 0; ok && i < NODES; i++) ok = open_node(&node[i], i, &m, &plan, mesh[i], &e);
    if (!tap_ok(ok, "two nodes, joined %s", e.text)) return tap_done();
    worker_epoch(node[1].worker, node[1].epoch);
    tap_ok(has_loaded(&node[1]), "one has its weights and says so; the leader has not begun");
    worker_epoch(node[0].worker, node[0].epoch);
    tap_ok(has_loaded(&node[0]), "the leader follows");
    for (unsigned i = 0; i < NODES; i++) end_epoch(&node[i]);
    for (unsigned i = 0; i < NODES; i++) close_node(&node[i]);
    tap_ok(!node[0].n_broke && !node[1].n_broke, "nothing broke, also when the epoch was ended");
    model_close(&m);
    close(fd);
    return tap_done();
}
