/* Slices give one text on models of unusual shape too: heads that fill no block, layers of different
 * weight types, odd vocabularies. The models are made here, random and small. */
#include "engine/engine.h"
#include "shape_maker.h"
#include "tap.h"

enum { N_LAYER = 3, N_PREDICT = 16 };

struct answer {
    int32_t id[N_PREDICT];
    uint32_t n;
};

static bool keep(void *ctx, int32_t id) {
    struct answer *a = ctx;
    a->id[a->n++] = id;
    return true;
}

static MUST run(const struct model *m, unsigned n_slice, struct answer *a, struct err *e) {
    static struct kernels k;
    kernels_init(&k, cpu_features());
    struct engine_conf c = {.model = m,
                            .kernels = &k,
                            .n_slice = n_slice,
                            .n_ctx = 64,
                            .n_batch = 5,
                            .n_thread = 2,
                            .budget = 64 << 20,
                            .n_reader = 1,
                            .n_slot = 2};
    for (unsigned i = 0; i < n_slice; i++) c.share[i] = 1;
    static const int32_t prompt[] = {3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5};
    struct gen_request q = {.prompt = prompt,
                            .n_prompt = sizeof prompt / sizeof *prompt,
                            .n_predict = N_PREDICT,
                            .on_token = keep,
                            .ctx = a};
    struct gen_result out;
    struct engine *g = NULL;
    *a = (struct answer){0};
    bool ok =
        engine_open(&g, &c, e) && engine_load(g, NULL, NULL, e) && engine_generate(g, &q, &out, e);
    engine_close(g);
    return ok;
}

/* Where every slice begins: whole blocks of what is gathered, whole groups of each matrix's own rows. */
static bool cuts_whole(const struct model *m, unsigned n) {
    double share[SLICE_MAX];
    struct cuts c;
    uint32_t width = m->n_head / m->n_head_kv * m->head_dim;
    for (unsigned i = 0; i < n; i++) share[i] = 1 + i % 3;
    cuts_make(&c, m, n, share);
    for (unsigned i = 0; i < n; i++) {
        if (c.kv_head[i] == m->n_head_kv) continue;  // begins at the end: has none
        if (c.kv_head[i] * width % Q_BLOCK || c.kv_head[i] * m->head_dim % ROW_GROUP) return false;
    }
    return c.kv_head[0] == 0 && c.kv_head[n] == m->n_head_kv;
}

static void check(const struct shape *s) {
    static const unsigned slices[] = {2, 3, 4, 5, 7};
    struct blob file = shape_build(s);
    struct model m;
    struct err e = {0};
    struct answer want;
    char path[64];
    int fd;
    blob_file(file.p, file.n, &fd, path);
    free(file.p);
    if (tap_ok(model_open(&m, path, 0, 0, &e), "%s: opens %s", s->what, e.text)) {
        tap_ok(run(&m, 1, &want, &e) && want.n == N_PREDICT, "%s: runs %s", s->what, e.text);
        for (unsigned n = 1; n <= SLICE_MAX; n++) {
            if (!cuts_whole(&m, n)) tap_ok(false, "%s: %u slices begin in a group", s->what, n);
        }
        for (size_t i = 0; i < sizeof slices / sizeof *slices; i++) {
            struct answer a;
            bool ok = run(&m, slices[i], &a, &e);
            tap_ok(ok && !memcmp(&a, &want, sizeof a), "%s: %u slices %s", s->what, slices[i],
                   ok ? "" : e.text);
        }
        model_close(&m);
    }
    close(fd);
}

int main(void) {
    static const struct shape shapes[] = {
        {"F32 and F16 among Q8_0", 64, 8, 4, 8, 96, 50, N_LAYER, {W_F32, W_Q8_0, W_F16}},
        {"heads of 4 values", 1024, 128, 16, 4, 96, 50, N_LAYER, {W_Q8_0, W_Q8_0, W_Q8_0}},
        {"heads of 12 values", 1024, 64, 8, 12, 96, 33, N_LAYER, {W_Q8_0, W_Q8_0, W_Q8_0}},
        {"heads of 20 values, floats", 64, 16, 8, 20, 96, 50, N_LAYER, {W_F32, W_F32, W_F32}},
        {"one KV head", 64, 4, 1, 16, 64, 31, N_LAYER, {W_Q8_0, W_F16, W_Q8_0}},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) check(&shapes[i]);
    return tap_done();
}
