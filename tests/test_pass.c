/* test_pass.c - a step that is broken off at any place: what is asked next comes out as if it had never
 * been begun, whether weights stay or stream, experts too; and other sequences go on. */
#include "kernels.h"
#include "model/synth.h"
#include "nn/nn.h"
#include "tap.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BATCH = 8, SWEEP = 28, N_CTX = 64, BEFORE = 5, N_SEQ = 2 };

struct trial {
    const char *what;
    struct nn *nn;
    uint32_t n_vocab;
    float *want;       // [2, n_vocab] logits of either sequence
    unsigned stop_at;  // the place at which the step is broken off, from 1; 0: at none
    unsigned n_told, n_bad;
    bool ok;
    struct err err;
};

static int32_t token[2][SWEEP + BEFORE], unwanted[SWEEP];

static bool on_layer(void *ctx, uint32_t done, uint32_t n_layer) {
    struct trial *t = ctx;
    (void)done, (void)n_layer;
    return ++t->n_told != t->stop_at;
}

/* All of the sequence but the first `from` tokens in one step. */
static bool ends(struct trial *t, struct par *team, uint32_t seq, uint32_t from, float *logits) {
    uint32_t first, n;
    t->stop_at = 0;
    nn_truncate(t->nn, seq, from);
    if (!nn_step(t->nn, team, seq, token[seq] + from, SWEEP + BEFORE - from, 1, &t->err))
        return false;
    memcpy(logits, nn_logits(t->nn, &first, &n), t->n_vocab * sizeof *logits);
    return true;
}

/* In one of the sequences, behind its first tokens, at each place in turn. */
static bool break_off(struct trial *t, struct par *team, unsigned n_place) {
    float *got = malloc(t->n_vocab * sizeof *got);
    bool ok = true;
    for (unsigned i = 1; ok && i <= n_place; i++) {
        uint32_t seq = i % 2;
        nn_truncate(t->nn, seq, BEFORE);
        t->n_told = 0;
        t->stop_at = i;
        bool was_whole = nn_step(t->nn, team, seq, unwanted, SWEEP, 1, &t->err);
        bool is_stopped = !was_whole && t->err.code == ERR_STOPPED;
        t->n_bad += !is_stopped || nn_pos(t->nn, seq) != BEFORE;
        ok = is_stopped && nn_pass(t->nn, &t->err);
        for (uint32_t s = 0; ok && s < 2; s++) {
            ok = ends(t, team, s, s == seq ? BEFORE : SWEEP, got);
            t->n_bad += memcmp(got, t->want + s * t->n_vocab, t->n_vocab * sizeof *got) != 0;
        }
    }
    free(got);
    return ok;
}

/* Begun and left before each of its pieces. */
static bool leave(struct trial *t, struct par *team, unsigned *n_piece) {
    float *got = malloc(t->n_vocab * sizeof *got);
    bool ok = true, is_over = false;
    for (*n_piece = 0; ok && !is_over; ++*n_piece) {
        nn_truncate(t->nn, 0, BEFORE);
        t->stop_at = 0;
        ok = nn_begin(t->nn, 0, unwanted, SWEEP, 1, &t->err);
        for (unsigned i = 0; ok && i < *n_piece; i++) ok = nn_go_on(t->nn, team, &is_over, &t->err);
        t->n_bad += nn_pos(t->nn, 0) != (is_over ? BEFORE + SWEEP : BEFORE);
        ok = ok && nn_pass(t->nn, &t->err);
        for (uint32_t s = 0; ok && s < 2; s++) {
            ok = ends(t, team, s, s ? SWEEP : BEFORE, got);
            t->n_bad += memcmp(got, t->want + s * t->n_vocab, t->n_vocab * sizeof *got) != 0;
        }
    }
    free(got);
    return ok;
}

static void run(void *ctx, struct par *team) {
    struct trial *t = ctx;
    nn_watch(t->nn, on_layer, t);
    t->ok = ends(t, team, 0, 0, t->want);
    t->ok = t->ok && ends(t, team, 1, 0, t->want + t->n_vocab);
    nn_truncate(t->nn, 0, BEFORE);
    t->n_told = 0;
    t->ok = t->ok && nn_step(t->nn, team, 0, unwanted, SWEEP, 1, &t->err);
    unsigned n_place = t->n_told;
    t->ok = t->ok && ends(t, team, 0, BEFORE, t->want);
    t->ok = t->ok && break_off(t, team, n_place);
    tap_ok(t->ok && !t->n_bad, "%s: broken off at each of %u places %s", t->what, n_place,
           t->ok ? "" : t->err.text);
    t->n_bad = 0;
    t->ok = t->ok && leave(t, team, &n_place);
    tap_ok(t->ok && !t->n_bad && n_place > 2, "%s: left before each of %u pieces %s", t->what,
           n_place, t->ok ? "" : t->err.text);
}

static MUST open_nn(struct trial *t, const struct model *m, const struct kernels *k,
                    struct coll *alone, double keep, struct err *e) {
    uint64_t least;
    struct nn_memory mem;
    struct nn_conf c = {.model = m,
                        .kernels = k,
                        .n_slice = 1,
                        .n_seq = N_SEQ,
                        .n_ctx = N_CTX,
                        .n_batch = BATCH,
                        .n_sweep = SWEEP + BEFORE,
                        .kv = KV_F16,
                        .budget = NN_PLENTY,
                        .n_reader = 2,
                        .n_slot = 3,
                        .n_thread = 2};
    cuts_make(&c.cuts, m, 1, &(double){1});
    if (!nn_least(&c, &least, e) || !nn_measure(&c, &mem, e)) return false;
    if (keep < 1) c.budget = least + (uint64_t)((double)mem.weight_bytes * keep);
    return nn_open(&t->nn, &c, alone, e) && nn_load(t->nn, NULL, NULL, e);
}

static void check(const char *shape, const char *what, double keep, bool streams) {
    struct trial t = {.what = what};
    char path[] = "/tmp/test_pass.XXXXXX";
    struct kernels k;
    struct model m = {0};
    struct coll alone;
    struct err e = {0};
    int fd = mkstemp(path);
    if (fd < 0) abort();
    close(fd);
    kernels_init(&k, cpu_features());
    coll_alone(&alone);
    struct synth s = {shape, "q8_0", path, 1};
    bool ok = synth_write(&s, NULL, NULL, &e) && model_open(&m, path, 0, 0, &e) &&
              open_nn(&t, &m, &k, &alone, keep, &e);
    if (tap_ok(ok && (nn_memory(t.nn)->disk_bytes > 0) == streams, "%s: opens %s", what, e.text)) {
        t.n_vocab = m.n_vocab;
        t.want = calloc(2 * (size_t)m.n_vocab, sizeof *t.want);
        if (!t.want || !par_enter(2, run, &t, &e)) tap_ok(false, "%s: %s", what, e.text);
    }
    free(t.want);
    nn_close(t.nn);
    model_close(&m);
    unlink(path);
}

int main(void) {
    for (uint32_t i = 0; i < SWEEP + BEFORE; i++) {
        token[0][i] = (int32_t)(7 + 3 * i % 91);
        token[1][i] = (int32_t)(11 + 5 * i % 97);
        if (i < SWEEP) unwanted[i] = (int32_t)(200 - i);
    }
    check("tiny,layers=6", "all stays", 1, false);
    check("tiny,layers=6", "half streams", 0.6, true);
    check("tiny,layers=6", "most streams", 0.3, true);
    check("moe-tiny", "experts", 1, false);
    check("moe-tiny", "experts that stream", 0.2, true);
    return tap_done();
}
