/* golden_logits MODEL KV WIRE: driver of golden_logits.pl.
 *
 * Reads requests from stdin, a line each: "logits id id ..." answers with the logits after every token,
 * "greedy N id id ..." with N ids chosen greedily. Answers on stdout: for logits a line "logits T V" and
 * T * V raw f32; for greedy a line "greedy id id ...". Exit status as dair's. */
#include "nn/nn.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_TOKENS = 4096 };

struct driver {
    struct model model;
    struct kernels k;
    struct coll coll;
    struct nn *nn;
    struct err err;
    bool ok;
};

static size_t parse_ids(char *s, int32_t *id) {
    size_t n = 0;
    for (char *t = strtok(s, " \n"); t && n < MAX_TOKENS; t = strtok(NULL, " \n")) {
        id[n++] = (int32_t)strtol(t, NULL, 10);
    }
    return n;
}

static bool do_logits(struct driver *d, struct par *team, const int32_t *id, size_t n) {
    printf("logits %zu %u\n", n, d->model.n_vocab);
    for (size_t i = 0; i < n; i++) {
        uint32_t first, count;
        if (!nn_step(d->nn, team, 0, id + i, 1, NN_LOGITS, &d->err)) return false;
        const float *logits = nn_logits(d->nn, &first, &count);
        fwrite(logits, sizeof *logits, count, stdout);
    }
    return true;
}

static bool do_greedy(struct driver *d, struct par *team, int32_t *id, size_t n) {
    int32_t want = id[0];
    printf("greedy");
    for (size_t i = 1; i + 1 < n; i++) {
        if (!nn_step(d->nn, team, 0, id + i, 1, NN_NO_LOGITS, &d->err)) return false;
    }
    int32_t last = id[n - 1];
    for (int32_t i = 0; i < want; i++) {
        struct candidate *c;
        size_t got;
        if (!nn_step(d->nn, team, 0, &last, 1, NN_LOGITS, &d->err)) return false;
        if (!nn_candidates(d->nn, 1, &c, &got, &d->err)) return false;
        last = got ? c[0].id : 0;
        printf(" %d", last);
    }
    printf("\n");
    return true;
}

static void serve(void *ctx, struct par *team) {
    struct driver *d = ctx;
    static char line[MAX_TOKENS * 12];
    static int32_t id[MAX_TOKENS];
    d->ok = true;
    while (d->ok && fgets(line, sizeof line, stdin)) {
        nn_truncate(d->nn, 0, 0);
        char *args = strchr(line, ' ');
        if (!args) continue;
        size_t n = parse_ids(args + 1, id);
        if (!strncmp(line, "logits", 6))
            d->ok = do_logits(d, team, id, n);
        else if (n > 1)
            d->ok = do_greedy(d, team, id, n);
    }
}

/* Which of the names [n] the word is; false: none, which is told. */
static bool find_name(const char *word, const char *const *name, int n, int *which) {
    for (*which = 0; *which < n; ++*which) {
        if (!strcmp(word, name[*which])) return true;
    }
    fprintf(stderr, "golden_logits: there is no \"%s\" here\n", word);
    return false;
}

static bool open_all(struct driver *d, const char *path, int kv, int wire) {
    if (!model_open(&d->model, path, 0, 0, &d->err)) return false;
    kernels_init(&d->k, cpu_features());
    coll_alone(&d->coll);
    struct nn_conf c = {
        .model = &d->model,
        .kernels = &d->k,
        .n_slice = 1,
        .n_seq = 1,
        .n_ctx = 512,
        .n_batch = 1,
        .kv = (enum kv_type)kv,
        .wire = (enum wire_type)wire,
        .budget = 1ULL << 30,
        .n_reader = 2,
        .n_slot = 4,
        .n_thread = 1,
    };
    cuts_make(&c.cuts, &d->model, 1, (const double[]){1});
    return nn_open(&d->nn, &c, &d->coll, &d->err) && nn_load(d->nn, NULL, NULL, &d->err) &&
           par_enter(1, serve, d, &d->err) && d->ok;
}

int main(int argc, char **argv) {
    static const char *const kv_name[] = {[KV_F32] = "f32", [KV_F16] = "f16", [KV_Q8_0] = "q8_0"};
    static const char *const wire_name[] = {
        [WIRE_F32] = "f32", [WIRE_Q16] = "q16", [WIRE_Q8] = "q8"};
    static struct driver d;
    int kv, wire;
    if (argc != 4 || !find_name(argv[2], kv_name, 3, &kv) ||
        !find_name(argv[3], wire_name, 3, &wire)) {
        return fprintf(stderr, "usage: golden_logits MODEL f32|f16|q8_0 f32|q16|q8\n"), 2;
    }
    bool ok = open_all(&d, argv[1], kv, wire);
    if (!ok) fprintf(stderr, "%s\n", d.err.text);
    nn_close(d.nn);
    model_close(&d.model);
    return ok ? 0 : err_exit_status(&d.err);
}
