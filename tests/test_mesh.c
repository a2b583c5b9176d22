/* The forward pass over real channels: any number of nodes says what one says alone, several
 * sequences at once what each says alone; and what it costs in bytes is what the plan says. */
#include "cluster/plan.h"
#include "mesh_maker.h"
#include "model/sampler.h"
#include "nn/nn.h"
#include "shape_maker.h"
#include "tap.h"

#include <math.h>

enum { N_SEQ = 3, N_PROMPT = 11, N_PREDICT = 12, N_CTX = 48, N_BATCH = 4, N_SWEEP = 10, NODES = 8 };

struct run {
    const struct model *model;
    unsigned n_node;
    uint32_t first_seq, n_seq;  // which of the sequences
    struct sampler sampler;
    enum wire_type wire;
    uint32_t n_sweep;  // tokens a step; 0: N_BATCH
    bool is_early;     // all gathers begin when half is done, however small
};

struct node {
    const struct run *run;
    unsigned i;
    struct coll *coll;
    struct mesh *mesh;  // NULL: alone
    struct nn *nn;
    int32_t id[N_SEQ][N_PREDICT];
    struct err err;
    bool ok;
};

static struct kernels kernels;

static int32_t prompt(const struct model *m, uint32_t seq, uint32_t i) {
    return (int32_t)((31 * i * (i + seq) + 7 * seq + 1) % m->n_vocab);
}

static MUST open_share(struct node *k, struct err *e) {
    double even[NODES];
    for (int i = 0; i < NODES; i++) even[i] = 1;
    struct nn_conf c = {.model = k->run->model,
                        .kernels = &kernels,
                        .self = k->i,
                        .n_slice = k->run->n_node,
                        .n_seq = k->run->n_seq,
                        .n_ctx = N_CTX,
                        .n_batch = N_BATCH,
                        .n_sweep = k->run->n_sweep,
                        .wire = k->run->wire,
                        .budget = 256 << 20,
                        .n_reader = 1,
                        .n_slot = 2,
                        .n_thread = 1};
    cuts_make(&c.cuts, c.model, c.n_slice, even);
    return nn_open(&k->nn, &c, k->coll, e) && nn_load(k->nn, NULL, NULL, e);
}

/* A step of sequence s with what is next for it: a piece of the prompt, or its last id. */
static MUST step(struct node *k, struct par *team, uint32_t s, uint32_t *n_read, uint32_t *n_id,
                 struct err *e) {
    const struct model *m = k->run->model;
    uint32_t seq = k->run->first_seq + s;
    uint32_t len = N_PROMPT - seq;  // of different lengths, so that the pieces differ too
    uint32_t n = 0, most = k->run->n_sweep ? k->run->n_sweep : N_BATCH;
    int32_t token[N_SWEEP];
    if (*n_read < len) {
        while (n < most && *n_read < len) token[n++] = prompt(m, seq, (*n_read)++);
    } else {
        token[n++] = k->id[s][*n_id - 1];
    }
    bool wants = *n_read == len;
    if (!nn_step(k->nn, team, s, token, n, wants ? NN_LOGITS : NN_NO_LOGITS, e)) return false;
    if (!wants) return true;
    struct candidate *c;
    size_t n_c;
    if (!nn_candidates(k->nn, sampler_needs(&k->run->sampler, m->n_vocab), &c, &n_c, e)) {
        return false;
    }
    k->id[s][(*n_id)++] = sample(&k->run->sampler, c, n_c, seq, nn_pos(k->nn, s));
    return true;
}

static void generate(void *ctx, struct par *team) {
    struct node *k = ctx;
    uint32_t n_read[N_SEQ] = {0}, n_id[N_SEQ] = {0};
    k->ok = (!k->mesh || mesh_wait(k->mesh, &k->err)) && open_share(k, &k->err);
    for (uint32_t left = k->run->n_seq; k->ok && left;) {
        left = 0;
        for (uint32_t s = 0; k->ok && s < k->run->n_seq; s++) {
            if (n_id[s] == N_PREDICT) continue;
            k->ok = step(k, team, s, &n_read[s], &n_id[s], &k->err);
            left++;
        }
    }
    if (!k->ok && k->mesh) mesh_abort(k->mesh);
    nn_close(k->nn);
}

static void *node_thread(void *ctx) {
    struct node *k = ctx;
    if (!par_enter(1, generate, k, &k->err)) k->ok = false;
    return NULL;
}

/* All nodes' ids, which must be equal, to out. */
static MUST run(const struct run *r, int32_t out[N_SEQ][N_PREDICT], struct err *e) {
    static struct node k[NODES];
    struct mesh *m[NODES] = {0};
    struct coll alone;
    pthread_t t[NODES];
    coll_alone(&alone);
    bool ok = r->n_node == 1 || mesh_make(m, r->n_node, 1 << 20, 0, e);
    for (unsigned i = 0; ok && i < r->n_node; i++) {
        k[i] =
            (struct node){.run = r, .i = i, .mesh = m[i], .coll = m[i] ? mesh_coll(m[i]) : &alone};
        if (r->is_early) k[i].coll->early = 1;
        if (pthread_create(&t[i], NULL, node_thread, &k[i])) abort();
    }
    bool all = ok;
    for (unsigned i = 0; ok && i < r->n_node; i++) {
        pthread_join(t[i], NULL);
        if (!k[i].ok) {
            all = false, *e = k[i].err;
        } else if (memcmp(k[i].id, k[0].id, sizeof k[i].id) != 0) {
            all = err_set(e, ERR_FORMAT, "node %u has other ids than node 0", i);
        }
    }
    if (ok) memcpy(out, k[0].id, sizeof k[0].id);
    for (unsigned i = 0; i < r->n_node; i++) mesh_close(m[i]);
    return all;
}

static void check(const char *what, struct run r) {
    static const struct {
        unsigned n;
        bool is_early;
        uint32_t n_sweep;
    } nodes[] = {{1, false, 0}, {1, false, N_SWEEP}, {2, false, 0},      {2, false, N_SWEEP},
                 {2, true, 0},  {3, false, 0},       {3, true, N_SWEEP}, {5, true, 0},
                 {8, false, 0}, {8, true, 0}};
    int32_t want[N_SEQ][N_PREDICT] = {{0}}, one[N_SEQ][N_PREDICT], got[N_SEQ][N_PREDICT];
    struct err e = {0};
    r.n_node = 1, r.n_seq = 1;
    for (r.first_seq = 0; r.first_seq < N_SEQ; r.first_seq++) {
        if (!run(&r, one, &e)) {
            tap_ok(false, "%s: sequence %u alone: %s", what, r.first_seq, e.text);
            return;
        }
        memcpy(want[r.first_seq], one[0], sizeof one[0]);
    }
    unsigned kinds = 0;
    for (int i = 1; i < N_PREDICT; i++) kinds += want[0][i] != want[0][i - 1];
    tap_ok(kinds > 1 && memcmp(want[0], want[1], sizeof want[0]) != 0, "%s: texts that differ",
           what);
    r.first_seq = 0, r.n_seq = N_SEQ;
    for (size_t i = 0; i < sizeof nodes / sizeof *nodes; i++) {
        r.n_node = nodes[i].n;
        r.is_early = nodes[i].is_early;
        r.n_sweep = nodes[i].n_sweep;
        bool ok = run(&r, got, &e);
        tap_ok(ok && !memcmp(got, want, sizeof got), "%s: %u nodes%s%s, %d sequences by turns %s",
               what, r.n_node, r.is_early ? ", gathers in halves" : "",
               r.n_sweep ? ", several batches a step" : "", N_SEQ, ok ? "" : e.text);
    }
}

static MUST open_shape(const struct shape *s, struct model *m, int *fd, struct err *e) {
    struct blob file = shape_build(s);
    char path[64];
    blob_file(file.p, file.n, fd, path);
    free(file.p);
    return model_open(m, path, 0, 0, e);
}

/* --- ids of a peer that lies --- */

static struct {
    struct coll coll;
    int32_t id;  // what slice 1 proposes
} liar;

static MUST lie(struct coll *c, enum coll_kind kind, void *buf, size_t stride, size_t n_row,
                const size_t *at, struct err *e) {
    (void)c, (void)e;
    for (size_t r = 0; r < n_row; r++) {
        memset((uint8_t *)buf + r * stride + at[1], 0, at[2] - at[1]);
    }
    struct candidate *all = buf;
    for (size_t i = at[1] / sizeof *all; kind == COLL_CANDIDATE && i < at[2] / sizeof *all; i++) {
        all[i] = (struct candidate){.id = liar.id, .logit = 1e9F};
    }
    return true;
}

struct lie_case {
    const char *what;
    int32_t id;
    size_t k;
    bool is_refused;
};

struct lie_run {
    struct node node;
    const struct lie_case *c;
    int32_t best;
};

static void hear_lie(void *ctx, struct par *team) {
    struct lie_run *r = ctx;
    struct node *k = &r->node;
    struct candidate *c;
    size_t n = 0;
    int32_t token = 1;
    liar.id = r->c->id;
    k->ok = open_share(k, &k->err) && nn_step(k->nn, team, 0, &token, 1, NN_LOGITS, &k->err) &&
            nn_candidates(k->nn, r->c->k, &c, &n, &k->err);
    r->best = k->ok && n ? c[0].id : -1;
    nn_close(k->nn);
}

static void check_lies(const struct model *m) {
    int32_t v = (int32_t)m->n_vocab, half = v / 2;  // a multiple of 32
    const struct lie_case cases[] = {{"its own", v - 1, 1, false},
                                     {"its first", half, 4, false},
                                     {"none", -1, 4, false},
                                     {"none of all", -1, m->n_vocab, true},
                                     {"another's", half - 1, 1, true},
                                     {"one past the last", v, 4, true},
                                     {"the lowest number", INT32_MIN, 4, true},
                                     {"the highest of all", INT32_MAX, m->n_vocab, true}};
    const struct run r = {.model = m, .n_node = 2, .n_seq = 1};
    liar.coll = (struct coll){.self = 0, .n = 2, .gather = lie};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct lie_case *c = &cases[i];
        struct lie_run l = {.node = {.run = &r, .coll = &liar.coll}, .c = c};
        struct err e = {0};
        bool ok = par_enter(1, hear_lie, &l, &e);
        if (c->is_refused) {
            ok = ok && !l.node.ok && l.node.err.code == ERR_FORMAT &&
                 strstr(l.node.err.text, "slice 1");
        } else {
            ok = ok && l.node.ok && (c->id < 0 ? l.best >= 0 && l.best < half : l.best == c->id);
        }
        tap_ok(ok, "a peer proposes %s: %s", c->what, l.node.ok ? "taken" : l.node.err.text);
    }
}

static void check_shape(const struct shape *s, bool all_wires) {
    static const struct sampler greedy = {.temp = 0},
                                few = {.temp = 0.9F, .top_k = 40, .top_p = 0.95F, .seed = 5},
                                many = {.temp = 0.9F, .top_k = 1500, .top_p = 0.95F, .seed = 5},
                                all = {.temp = 0.9F, .top_p = 0.95F, .seed = 5};
    struct model m;
    struct err e = {0};
    char what[128];
    int fd;
    if (!tap_ok(open_shape(s, &m, &fd, &e), "%s: opens %s", s->what, e.text)) return;
    snprintf(what, sizeof what, "%s, greedy", s->what);
    check(what, (struct run){.model = &m, .sampler = greedy});
    snprintf(what, sizeof what, "%s, of the best 40", s->what);
    check(what, (struct run){.model = &m, .sampler = few});
    if (all_wires) {
        check("of the best 1500", (struct run){.model = &m, .sampler = many});
        check("of all", (struct run){.model = &m, .sampler = all});
        check("wire type q8", (struct run){.model = &m, .sampler = few, .wire = WIRE_Q8});
        check("wire type f32", (struct run){.model = &m, .sampler = few, .wire = WIRE_F32});
    }
    if (all_wires) check_lies(&m);
    model_close(&m);
    close(fd);
}

/* --- bytes --- */

enum { STEPS = 20 };

static void walk(void *ctx, struct par *team) {
    struct node *k = ctx;
    int32_t token = 1;
    k->ok = mesh_wait(k->mesh, &k->err) && open_share(k, &k->err);
    for (int i = 0; k->ok && i < STEPS; i++) {
        k->ok = nn_step(k->nn, team, 0, &token, 1, NN_NO_LOGITS, &k->err);
    }
    if (!k->ok) mesh_abort(k->mesh);
    nn_close(k->nn);
}

static void *walk_thread(void *ctx) {
    struct node *k = ctx;
    if (!par_enter(1, walk, k, &k->err)) k->ok = false;
    return NULL;
}

/* The plan of such a run, as far as plan_wire_bytes() looks. */
static double planned_bytes(const struct model *m, unsigned n, unsigned i) {
    static const double even[NODES] = {1, 1, 1, 1, 1, 1, 1, 1};
    static struct plan p;
    struct cuts c;
    cuts_make(&c, m, n, even);
    p = (struct plan){.n_node = (uint8_t)n, .n_run = 3, .wire = WIRE_Q16};
    const uint32_t *cut[] = {c.kv_head, c.embd, c.ff};
    static const uint8_t rows[] = {ROWS_KV_HEAD, ROWS_EMBD, ROWS_FF};
    for (int k = 0; k < 3; k++) {
        p.run[k] = (struct plan_run){.rows = rows[k], .n_layer = (uint16_t)m->n_layer};
        memcpy(p.run[k].cut, cut[k], sizeof p.run[k].cut);
    }
    return plan_wire_bytes(&p, m, i);
}

static void check_bytes(const struct model *m, unsigned n, bool with_overhead) {
    static struct node k[NODES];
    const struct run r = {.model = m, .n_node = n, .n_seq = 1};
    struct mesh *mesh[NODES] = {0};
    pthread_t t[NODES];
    struct err e = {0};
    double part = (double)(n - 1) / n;
    double want =
        m->n_layer * part * (1.0625 * (m->n_head * m->head_dim + m->n_ff) + 2 * 2.125 * m->n_embd);
    if (!tap_ok(mesh_make(mesh, n, 1 << 20, 0, &e), "%u nodes meet %s", n, e.text)) return;
    for (unsigned i = 0; i < n; i++) {
        k[i] = (struct node){.run = &r, .i = i, .mesh = mesh[i], .coll = mesh_coll(mesh[i])};
        if (pthread_create(&t[i], NULL, walk_thread, &k[i])) abort();
    }
    for (unsigned i = 0; i < n; i++) {
        pthread_join(t[i], NULL);
        struct mesh_stats s;
        mesh_stats(mesh[i], &s);
        double got = (double)s.sent_payload / STEPS;
        double more = (double)(s.sent_wire - s.sent_payload) / (double)s.sent_payload;
        tap_ok(k[i].ok && fabs(got / want - 1) < 0.01,
               "node %u of %u sends %.0f bytes a token (the formula: %.0f) %s", i, n, got, want,
               k[i].err.text);
        tap_ok(fabs(got / planned_bytes(m, n, i) - 1) < 0.01, "as the plan says");
        bool fits = more <= 0.02;
        tap_ok(fits || !with_overhead, "and %.2f %% more for frames and their sealing", 100 * more);
    }
    for (unsigned i = 0; i < n; i++) mesh_close(mesh[i]);
}

int main(void) {
    static const struct shape mixed = {"floats among Q8_0",   64, 8, 4, 8, 96, 50, 3,
                                       {W_F32, W_Q8_0, W_F16}};
    static const struct shape plain = {"2496 words", 128, 8, 4, 16, 352, 2496, 2, {W_Q8_0, W_Q8_0}};
    static const struct shape wide = {"wide", 2048, 32, 8, 64, 4096, 64, 1, {W_Q8_0}};
    struct err e = {0};
    struct model m;
    int fd;
    kernels_init(&kernels, cpu_features());
    if (!tap_ok(chan_init(&e), "channels %s", e.text)) return tap_done();
    check_shape(&mixed, false);
    check_shape(&plain, true);
    if (tap_ok(open_shape(&wide, &m, &fd, &e), "%s: opens %s", wide.what, e.text)) {
        check_bytes(&m, 2, true);
        check_bytes(&m, 4, false);
        model_close(&m);
        close(fd);
    }
    return tap_done();
}
