/* bench_grammar MODEL.gguf: what holding an answer to a JSON grammar costs for each token, with the
 * vocabulary of the model (its weights are not needed). A walk through a document of a schema, in
 * microseconds of one core:
 *   first   the 64 candidates at the top are looked at (random ones here), which is all most tokens need
 *   list    all allowed tokens are listed, where the text stands for the first time
 *   recall  the same list once more
 *   scan    all tokens are looked at one by one, for comparison */
#include "model/grammar.h"
#include "model/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { LIST = 4096, WALKS = 20, MOST = 400 };

static double now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

static uint32_t rnd(void) {
    static uint64_t x = 5;
    x = x * 6364136223846793005 + 1442695040888963407;
    return (uint32_t)(x >> 33);
}

struct sum {
    double first, list, recall, scan, worst;
    uint64_t n, n_scan, n_long;
};

static size_t scan(struct grammar_run *r, uint32_t n_token) {
    size_t n = 0;
    for (uint32_t i = 0; i < n_token; i++) n += grammar_allows(r, (int32_t)i);
    return n;
}

static int32_t step(struct grammar_run *r, const struct tok *t, struct sum *s) {
    static int32_t id[LIST];
    double at = now_us();
    for (int i = 0; i < 64; i++) (void)grammar_allows(r, (int32_t)(rnd() % tok_count(t)));
    s->first += now_us() - at;
    at = now_us();
    size_t n = grammar_allowed(r, id, LIST);
    double took = now_us() - at;
    s->list += took;
    if (took > s->worst) s->worst = took;
    at = now_us();
    (void)grammar_allowed(r, id, LIST);
    s->recall += now_us() - at;
    if (s->n++ % 16 == 0) {
        at = now_us();
        (void)scan(r, tok_count(t));
        s->scan += now_us() - at;
        s->n_scan++;
    }
    s->n_long += n > LIST;
    if (n <= LIST) return n ? id[rnd() % n] : -1;
    for (;;) {
        int32_t any = (int32_t)(rnd() % tok_count(t));
        if (grammar_allows(r, any)) return any;
    }
}

static void walk(const char *name, const char *schema, const struct tok *t,
                 const struct lexicon *l) {
    struct grammar *g;
    struct grammar_run *r;
    struct err e;
    struct sum s = {0};
    static int32_t id[MOST];
    if (!grammar_open(&g, GRAMMAR_SCHEMA, schema, strlen(schema), &e) ||
        !grammar_run_open(&r, g, l, &e)) {
        fprintf(stderr, "%s\n", e.text);
        exit(1);
    }
    for (int i = 0; i < WALKS; i++) {
        for (size_t n = 0; n < MOST; n++) {
            if (!grammar_run_sync(r, id, n, &e)) exit(1);
            id[n] = step(r, t, &s);
            if (id[n] < 0 || tok_is_end(t, id[n])) break;
        }
    }
    double n = (double)s.n;
    printf(
        "%-8s %6.0f tokens: first %6.1f, list %7.1f (most %7.1f), recall %5.1f, scan %8.0f us; %2.0f %% of the lists "
        "past %d\n",
        name, n, s.first / n, s.list / n, s.worst, s.recall / n, s.scan / (double)s.n_scan,
        100 * (double)s.n_long / n, LIST);
    grammar_run_close(r);
    grammar_close(g);
}

int main(int argc, char **argv) {
    struct model m;
    struct tok *t;
    struct lexicon *l;
    struct err e;
    if (argc != 2) {
        fprintf(stderr, "usage: bench_grammar MODEL.gguf\n");
        return 2;
    }
    if (!model_open_part(&m, argv[1], 0, 0, MODEL_VOCAB, &e) || !tok_open(&t, &m.vocab, &e)) {
        fprintf(stderr, "%s\n", e.text);
        return 1;
    }
    double at = now_us();
    if (!lexicon_open(&l, t, &e)) return 1;
    printf("lexicon  %u tokens: %.1f ms, %.2f MiB\n", tok_count(t), (now_us() - at) * 1e-3,
           (double)lexicon_bytes(l) / 1048576);
    walk("any", "{\"type\":\"object\"}", t, l);
    walk(
        "record",
        "{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\",\"maxLength\":40},\"age\":{\"type\":"
        "\"integer\",\"minimum\":0,\"maximum\":120},\"tags\":{\"type\":\"array\",\"items\":{\"enum\":[\"red\",\"green\","
        "\"blue\"]},\"maxItems\":5},\"born\":{\"format\":\"date\"},\"mail\":{\"type\":[\"string\",\"null\"]}},"
        "\"required\":[\"name\",\"age\",\"tags\",\"born\",\"mail\"]}",
        t, l);
    lexicon_close(l);
    tok_close(t);
    model_close(&m);
    return 0;
}
