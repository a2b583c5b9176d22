/* bench_kernels.c - speed of the kernels against a loop that only reads memory, in one run.
 *
 * Machines wander by 10-30 %, so only ratios within a run count: loop and kernel take turns over
 * slices of 64 MiB (more than a cache, short enough to find quiet moments on a busy machine), and
 * the best of each is used. Usage: bench_kernels [MiB of weights, default 512] [rounds, default 9] [a
 * type of weights, and nothing else]; DAIR_CPU chooses the variant.
 */
#include "kernels.h"
#include "read_loop.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum { N_THREAD_MAX = 2, UNIT_BYTES = 256 * 1024, SLICE_BYTES = 64 << 20, HUGE_PAGE = 2 << 20 };

static struct kernels kern;
static int rounds = 9;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void *big(size_t bytes) {
    bytes = (bytes + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    char *p =
        mmap(NULL, bytes + HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) {
        perror("mmap");
        exit(1);
    }
    p += HUGE_PAGE - (uintptr_t)p % HUGE_PAGE;
    madvise(p, bytes, MADV_HUGEPAGE);
    memset(p, 0, bytes);
    return p;
}

static uint64_t seed = 1;

static uint32_t rnd(void) {  // xorshift64*, Vigna 2016
    seed ^= seed >> 12, seed ^= seed << 25, seed ^= seed >> 27;
    return (uint32_t)(seed * 0x2545F4914F6CDD1DULL >> 32);
}

static void fill_floats(float *x, size_t n) {
    for (size_t i = 0; i < n; i++) x[i] = (float)((int32_t)(rnd() >> 8) - (1 << 23)) * 0x1p-21f;
}

/* A job is run by thread `me` of `n`. */
struct job {
    void (*run)(const struct job *job, size_t me, size_t n);
    int type;
    size_t n_col, n_group, n_tok, bytes;
    const char *w;
    const void *x;
    float *y;
};

static volatile uint64_t sink;
static atomic_size_t read_ahead;

static void read_memory(const struct job *job, size_t me, size_t n) {
    size_t share = job->bytes / n / 4096 * 4096;
    sink = read_loop(job->w + me * share, share, read_ahead);
}

static void multiply(const struct job *job, size_t me, size_t n) {
    const struct weight_ops *ops = weight_ops(&kern, job->type);
    size_t group = weight_group_bytes(job->type, job->n_col);
    size_t unit = UNIT_BYTES / group ? UNIT_BYTES / group : 1;
    if (unit > 1) unit &= ~(size_t)1;
    if (job->n_tok == 1) unit *= 8;  // as the threads take them
    size_t end = job->n_group * (me + 1) / n;
    for (size_t g = job->n_group * me / n; g < end; g += unit) {
        size_t here = end - g < unit ? end - g : unit;
        ops->matmul(job->y + g * ROW_GROUP, job->n_group * ROW_GROUP, job->w + g * group, here,
                    job->n_col, job->x, job->n_tok);
    }
}

static struct team {
    atomic_uint start, done;
    const struct job *job;
} team;

static void *helper(void *arg) {
    (void)arg;
    for (unsigned seen = 0;; seen++) {
        while (atomic_load(&team.start) == seen) sched_yield();
        team.job->run(team.job, 1, 2);
        atomic_store(&team.done, 1);
    }
    return NULL;
}

static double run_job(const struct job *job, size_t n_thread) {
    double t = now();
    if (n_thread == 1) {
        job->run(job, 0, 1);
    } else {
        team.job = job;
        atomic_store(&team.done, 0);
        atomic_fetch_add(&team.start, 1);
        job->run(job, 0, 2);
        while (!atomic_load(&team.done)) sched_yield();
    }
    return now() - t;
}

static void least(double *best, double t) {
    if (*best == 0 || t < *best) *best = t;
}

static const struct {
    const char *name;
    int type;
    size_t step,
        high;  // where the upper bytes of scales (or floats) are; others are all kept small
} types[] = {
    {"Q4_0", W_Q4_0, 18, 1},  {"Q8_0", W_Q8_0, 34, 1},      {"Q6_K", W_Q6_K, 210, 209},
    {"Q4_K", W_Q4_K, 1, 0},   {"Q5_K", W_Q5_K, 1, 0},       {"IQ4_NL", W_IQ4_NL, 18, 1},
    {"MXFP4", W_MXFP4, 1, 0}, {"Q5_0", W_Q5_0, 22, 1},      {"Q4_1", W_Q4_1, 1, 0},
    {"Q5_1", W_Q5_1, 1, 0},   {"IQ4_XS", W_IQ4_XS, 136, 1}, {"Q3_K", W_Q3_K, 110, 109},
    {"Q2_K", W_Q2_K, 1, 0},   {"BF16", W_BF16, 2, 1},       {"F16", W_F16, 2, 1},
    {"F32", W_F32, 4, 3},
};

/* Weights of n_group groups, re-laid from random rows; returns GB of file order per second. */
static double make_weights(char *w, size_t kind, size_t n_col, size_t n_group) {
    int type = types[kind].type;
    const struct weight_ops *ops = weight_ops(&kern, type);
    size_t row = weight_row_bytes(type, n_col), group = weight_group_bytes(type, n_col);
    size_t n_file = 4 << 20, n_part = n_file / (row * ROW_GROUP) ? n_file / (row * ROW_GROUP) : 1;
    char *file = big(n_part * row * ROW_GROUP);
    size_t bytes = n_part * row * ROW_GROUP;
    for (size_t i = 0; i < bytes; i++) file[i] = (char)rnd();
    for (size_t i = types[kind].high; i < bytes; i += types[kind].step) file[i] &= 0x3f;
    double best = 0;
    for (size_t g = 0; g < n_group; g += n_part) {
        size_t here = n_group - g < n_part ? n_group - g : n_part;
        double t = now();
        for (size_t i = 0; i < here; i++) {
            ops->relay(w + (g + i) * group, file + i * row * ROW_GROUP, ROW_GROUP, n_col);
        }
        if (here == n_part) least(&best, now() - t);
    }
    munmap(file, n_part * row * ROW_GROUP);
    return best > 0 ? (double)(n_part * row * ROW_GROUP) / best * 1e-9 : 0;
}

/* Activations of n_tok tokens as the type's kernel eats them. */
static void *make_input(int type, size_t n_col, size_t n_tok) {
    float *x = big(n_tok * n_col * sizeof *x);
    fill_floats(x, n_tok * n_col);
    if (weight_ops(&kern, type)->is_float) return x;
    size_t n_block = n_col / Q_BLOCK;
    struct act *q = big(n_tok * n_block * sizeof *q);
    kern.quantise(q, x, n_tok * n_col);
    void *panel = big(panel_bytes(n_col, n_tok));
    kern.pack(panel, q, n_block, n_block, n_tok);
    return panel;
}

/* only: the name of a type, or NULL for all. */
static void bench_matrices(size_t mib, const char *only) {
    static const size_t toks[] = {2, 4, 8, 64, 512};
    for (size_t k = 0; k < sizeof types / sizeof *types; k++) {
        int type = types[k].type;
        if (only && strcmp(only, types[k].name) != 0) continue;
        for (size_t n_col = 2048; n_col <= 8192; n_col *= 4) {
            size_t group = weight_group_bytes(type, n_col), n_group = (mib << 20) / group;
            char *w = big(n_group * group);
            double relay = make_weights(w, k, n_col, n_group);
            float *y = big(512 * 2048 * 8 * sizeof *y);
            printf("%-6s K=%zu  relay %.1f GB/s\n", types[k].name, n_col, relay);
            size_t slice = SLICE_BYTES / group < n_group ? SLICE_BYTES / group : n_group;
            size_t n_slice = n_group / slice;
            struct job job = {multiply, type, n_col, slice, 1, slice * group, w, NULL, y};
            struct job reader = job;
            reader.run = read_memory;
            job.x = make_input(type, n_col, 1);
            for (size_t n_thread = 1; n_thread <= N_THREAD_MAX; n_thread++) {
                double read = 0, gemv = 0;
                for (size_t i = 0; i < (size_t)rounds * n_slice; i++) {
                    atomic_store(&read_ahead, read_aheads[i % N_AHEAD]);
                    reader.w = w + i % n_slice * slice * group;
                    job.w = w + (i + n_slice / 2) % n_slice * slice * group;
                    least(&read, run_job(&reader, n_thread));
                    least(&gemv, run_job(&job, n_thread));
                }
                printf("  1 token,  %zu thread%s: read %5.1f GB/s  matmul %5.1f GB/s  ratio %.3f\n",
                       n_thread, n_thread == 1 ? " " : "s", (double)job.bytes / read * 1e-9,
                       (double)job.bytes / gemv * 1e-9, read / gemv);
            }
            job.w = w;
            job.n_group = 2048 / ROW_GROUP;  // 2048 rows: a matrix of a layer, warm
            for (size_t i = 0; i < sizeof toks / sizeof *toks; i++) {
                job.n_tok = toks[i];
                job.x = make_input(type, n_col, job.n_tok);
                printf("  %3zu tokens:", job.n_tok);
                for (size_t n_thread = 1; n_thread <= N_THREAD_MAX; n_thread++) {
                    double best = 0;
                    for (int j = 0; j < (i < 4 ? 5 * rounds : rounds); j++)
                        least(&best, run_job(&job, n_thread));
                    printf("  %zu thread%s %.0f GMAC/s", n_thread, n_thread == 1 ? " " : "s",
                           (double)job.n_tok * 2048 * (double)n_col / best * 1e-9);
                }
                printf("\n");
            }
            munmap(w, n_group * group);
            fflush(stdout);
        }
    }
}

/* Best seconds of one call of stmt. */
#define TIME(best, times, stmt)                                                                    \
    for (int r_ = 0; r_ < 5 * rounds; r_++) {                                                      \
        double t_ = now();                                                                         \
        for (int i_ = 0; i_ < (times); i_++) {                                                     \
            stmt;                                                                                  \
            __asm__ volatile("" ::: "memory");                                                     \
        }                                                                                          \
        least(&(best), (now() - t_) / (times));                                                    \
    }

/* n query heads that see one KV head; rows of keys and values `stride` values apart. */
static double attend_ns(size_t hd, size_t n, enum kv_type type, size_t stride, const void *k,
                        const void *v) {
    enum { N_POS = 1024 };
    static float *q, *out, *room;
    struct attention a = {type, hd, stride, 0.125f, 0};
    struct query query[ATTEND_QUERIES];
    double best = 0;
    if (!q) {
        q = big(ATTEND_QUERIES * 128 * sizeof *q), out = big(ATTEND_QUERIES * 128 * sizeof *out);
        room = big(attend_room(128) * sizeof *room);
        fill_floats(q, ATTEND_QUERIES * 128);
    }
    for (size_t t = 0; t < n; t++) {
        query[t] = (struct query){.q = q + t * hd, .out = out + t * hd, .n_pos = N_POS};
    }
    TIME(best, 4, kern.attend(query, n, k, v, &a, room));
    return best / N_POS / (double)n * 1e9;
}

static void bench_attend(void) {
    enum { N_POS = 1024, STRIDE = 512, ALL = N_POS * STRIDE };
    float *kv = big(2 * ALL * sizeof *kv);
    uint16_t *half = big(2 * ALL * sizeof *half);
    struct act *blocks = big(2 * ALL / Q_BLOCK * sizeof *blocks);
    fill_floats(kv, 2 * ALL);
    kern.quantise(blocks, kv, 2 * ALL);
    kern.to_f16(half, kv, 2 * ALL);
    for (size_t hd = 64; hd <= 128; hd *= 2) {
        for (size_t n = 1; n <= ATTEND_QUERIES; n *= 4) {
            printf("attend hd %3zu, 1024 positions, %2zu queries: f16 %.1f  f32 %.1f  side by side "
                   "f16 %.1f  q8_0 %.1f ns/position/query\n",
                   hd, n, attend_ns(hd, n, KV_F16, STRIDE, half, half + ALL),
                   attend_ns(hd, n, KV_F32, STRIDE, kv, kv + ALL),
                   attend_ns(hd, n, KV_F16, hd, half, half + ALL),
                   attend_ns(hd, n, KV_Q8_0, hd, blocks, blocks + ALL / Q_BLOCK));
        }
    }
}

static void bench_vectors(void) {
    enum { N = 8192, VOCAB = 128256 };
    static float x[N], y[N], w[N], cs[N];
    static struct act q[N / Q_BLOCK];
    static struct wire16 wire[N / Q_BLOCK];
    static uint16_t half[N];
    _Alignas(64) static char panel[N / Q_BLOCK * sizeof(struct panel1)];
    static int32_t id[256];
    static float val[256];
    fill_floats(x, N);
    fill_floats(w, N);
    double t[13] = {0};
    TIME(t[0], 20, kern.quantise(q, x, N));
    TIME(t[1], 20, kern.pack(panel, q, N / Q_BLOCK, N / Q_BLOCK, 1));
    TIME(t[2], 20, kern.rmsnorm(y, x, w, 2048, 1e-5f));
    TIME(t[12], 20, kern.rmsnorm_quantise(q, x, w, 2048, 1e-5f));
    TIME(t[3], 20, kern.silu_mul(y, x, w, N));
    TIME(t[4], 20, kern.to_f16(half, x, N));
    TIME(t[5], 20, kern.to_wire16(wire, x, N));
    memset(y, 0, sizeof y);
    TIME(t[6], 20, kern.add_wire16(y, wire, N));
    double freq[32];
    rope_freqs(freq, 500000, 64);
    TIME(t[7], 20, rope_angles(cs, freq, 32, 1234));
    TIME(t[8], 20, kern.rope(w, cs, 32));
    float *logits = big(VOCAB * sizeof *logits);
    fill_floats(logits, VOCAB);
    TIME(t[9], 2, kern.topk(id, val, 1, logits, VOCAB));
    TIME(t[10], 2, kern.topk(id, val, 40, logits, VOCAB));
    TIME(t[11], 2, kern.topk(id, val, 64, logits, VOCAB));
    printf("8192 values: quantise %.2f us  pack %.2f us  to_wire16 %.2f us  add_wire16 %.2f us\n",
           t[0] * 1e6, t[1] * 1e6, t[5] * 1e6, t[6] * 1e6);
    printf(
        "rmsnorm 2048: %.2f us  with quantising %.2f us  silu_mul 8192: %.2f us  to_f16 8192: %.2f us\n",
        t[2] * 1e6, t[12] * 1e6, t[3] * 1e6, t[4] * 1e6);
    printf("rope_angles 32 pairs: %.2f us  rope 32 pairs: %.3f us\n", t[7] * 1e6, t[8] * 1e6);
    printf("topk of 128256: k=1 %.1f us  k=40 %.1f us  k=64 %.1f us\n", t[9] * 1e6, t[10] * 1e6,
           t[11] * 1e6);
}

int main(int argc, char **argv) {
    size_t mib = argc > 1 ? strtoul(argv[1], NULL, 10) : 512;
    if (argc > 2) rounds = (int)strtol(argv[2], NULL, 10);
    if (mib == 0 || rounds <= 0) {
        fprintf(stderr, "usage: bench_kernels [MiB of weights] [rounds] [type]\n");
        return 1;
    }
    kernels_init(&kern, cpu_features());
    printf("variant %s, %zu MiB of weights, %d rounds\n", kern.name, mib, rounds);
    pthread_t thread;
    if (pthread_create(&thread, NULL, helper, NULL) != 0) return 1;
    if (argc <= 3) bench_vectors();
    if (argc <= 3) bench_attend();
    bench_matrices(mib, argc > 3 ? argv[3] : NULL);
    return 0;
}
