/* bench_answer MODEL PROMPT TOKENS PIECES ROUNDS THREADS - an answer over and over, beside a loop that only reads
 * memory. A round is PIECES answers, each between two looks at what the loop gets; it ends with a line: tokens/s
 * of the prompt, tokens/s of the answer, what of that loop the answer's tokens reach. One process for both, and
 * short pieces: memory changes its speed several times a second. bench.pl stops this program after a line, to let
 * others have their turn: so a round begins with a token that does not count, as the peers' programs do. */
#include "base/clock.h"
#include "base/par.h"
#include "read_loop.h"
#include "setup.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define LOOP_BYTES ((size_t)512 << 20)  // many times any cache
enum { CTX = 512, HUGE_PAGE = 2 << 20 };

struct bench {
    struct setup setup;
    struct engine *engine;
    uint32_t n_prompt, n_predict, n_piece, n_round;
    int32_t prompt[CTX];
    char *memory;  // [LOOP_BYTES]
    size_t ahead;
    _Atomic uint64_t sum;
    struct err err;
    bool ok;
};

static bool never_ends(void *ctx, int32_t id) {
    (void)ctx, (void)id;
    return false;
}

static void read_part(void *ctx, int thread, int n_thread) {
    struct bench *b = ctx;
    size_t part = LOOP_BYTES / (size_t)n_thread / 4096 * 4096;
    b->sum += read_loop(b->memory + (size_t)thread * part, part, b->ahead);
}

/* Bytes a second. */
static double look(struct bench *b, struct par *team) {
    double begin = clock_s();
    par_run(team, read_part, b);
    return (double)LOOP_BYTES / (clock_s() - begin);
}

/* How far ahead to fetch, in turns because of a memory that changes its speed. */
static void choose_distance(struct bench *b, struct par *team) {
    double sum[N_AHEAD] = {0};
    size_t best = 0;
    for (int turn = 0; turn < 8; turn++) {
        for (size_t i = 0; i < N_AHEAD; i++) {
            b->ahead = read_aheads[i];
            sum[i] += look(b, team);
        }
    }
    for (size_t i = 1; i < N_AHEAD; i++)
        if (sum[i] > sum[best]) best = i;
    b->ahead = read_aheads[best];
}

struct sums {
    double prompt_s, answer_s;
    double loop_s;  // the loop's time for what the answers read
    uint32_t n_answered;
};

static bool piece(struct bench *b, struct par *team, struct gen_request *r, struct sums *sum) {
    struct gen_result result = {0};
    double before = look(b, team);
    if (!engine_generate(b->engine, r, &result, &b->err)) return false;
    double loop = (before + look(b, team)) / 2;
    sum->prompt_s += result.prefill_s;
    sum->answer_s += result.decode_s;
    sum->loop_s += result.n_drawn * (double)b->setup.memory.token_bytes / loop;
    sum->n_answered += result.n_drawn;
    return true;
}

static bool round_of(struct bench *b, struct par *team) {
    struct gen_request r = {.prompt = b->prompt,
                            .n_prompt = b->n_prompt,
                            .n_predict = 1,
                            .sampler = {.temp = 0, .top_p = 1},
                            .is_end = never_ends};
    struct gen_result warm = {0};
    struct sums sum = {0};
    if (!engine_generate(b->engine, &r, &warm, &b->err)) return false;
    r.n_predict = b->n_predict;
    for (uint32_t i = 0; i < b->n_piece; i++)
        if (!piece(b, team, &r, &sum)) return false;
    double s = sum.answer_s > 0 ? sum.answer_s : 1;
    printf("%.3f %.3f %.4f\n", b->n_piece * b->n_prompt / sum.prompt_s, sum.n_answered / s,
           sum.loop_s / s);
    fflush(stdout);
    return true;
}

static void rounds(void *ctx, struct par *team) {
    struct bench *b = ctx;
    par_pin(team, &b->setup.conf.places);
    choose_distance(b, team);
    b->ok = true;
    for (uint32_t i = 0; i < b->n_round && b->ok; i++) b->ok = round_of(b, team);
}

static MUST open_model(struct bench *b, const char *path, uint32_t n_thread, struct err *e) {
    struct setup *s = &b->setup;
    struct progress p;
    struct machine m = MACHINE_DEFAULT;
    m.ctx = CTX;
    m.threads = n_thread;
    m.spec = SPEC_OFF;
    s->n_prompt = b->n_prompt;
    s->n_answer = b->n_predict;
    return setup_open(s, path, NULL, MODEL_ALL, e) && setup_tok(s, e) && setup_fit(s, &m, e) &&
           setup_probe(s, DISK_IF_NEEDED, e) && engine_open(&b->engine, &s->conf, e) &&
           setup_load(b->engine, &p, NULL, e);
}

int main(int argc, char **argv) {
    static struct bench b;
    struct err e;
    if (argc != 7)
        return fprintf(stderr, "usage: bench_answer MODEL PROMPT TOKENS PIECES ROUNDS THREADS\n"),
               2;
    int n_thread = atoi(argv[6]);
    b.n_prompt = (uint32_t)atoi(argv[2]);
    b.n_predict = (uint32_t)atoi(argv[3]);
    b.n_piece = (uint32_t)atoi(argv[4]);
    b.n_round = (uint32_t)atoi(argv[5]);
    if (b.n_prompt < 1 || b.n_prompt + b.n_predict >= CTX)
        return fprintf(stderr, "prompt and answer must fit %d tokens\n", CTX), 2;
    b.memory = aligned_alloc(HUGE_PAGE, LOOP_BYTES);
    if (!b.memory) return fprintf(stderr, "no memory\n"), 1;
    (void)madvise(b.memory, LOOP_BYTES, MADV_HUGEPAGE);
    memset(b.memory, 1, LOOP_BYTES);
    bool ok = open_model(&b, argv[1], (uint32_t)n_thread, &e);
    for (uint32_t i = 0; ok && i < b.n_prompt; i++)
        b.prompt[i] = (int32_t)((i * 7919U + 3) % b.setup.model.n_vocab);
    ok = ok && par_enter(n_thread, rounds, &b, &e);
    if (ok && !b.ok) {
        e = b.err;
        ok = false;
    }
    if (!ok) fprintf(stderr, "%s\n", e.full);
    if (b.engine) engine_close(b.engine);
    setup_close(&b.setup);
    free(b.memory);
    return !ok;
}
