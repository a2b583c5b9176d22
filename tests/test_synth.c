/* Synthetic models: readable by our own reader, the same every time, sane in their numbers. */
#include "kernels.h"
#include "model/model.h"
#include "model/synth.h"
#include "tap.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[] = "/tmp/test_synth.XXXXXX";

static char *path_of(char out[static 256], const char *name) {
    snprintf(out, 256, "%s/%s", dir, name);
    return out;
}

/* The whole file; a test that cannot read what it has just written has nothing more to say. */
static uint8_t *slurp(const char *path, size_t *len) {
    FILE *f = fopen(path, "rb");
    struct stat st;
    if (!f || fstat(fileno(f), &st) != 0) abort();
    uint8_t *p = malloc((size_t)st.st_size + 1);
    if (!p) abort();
    *len = fread(p, 1, (size_t)st.st_size, f);
    fclose(f);
    return p;
}

static float f32_at(const uint8_t *p, uint64_t i) {
    float f;
    memcpy(&f, p + 4 * i, 4);
    return f;
}

static void check_spread(const char *type, const struct tensor *t, const uint8_t *file,
                         double want) {
    double sum = 0, squares = 0;
    uint64_t rows = t->dim[1] * t->dim[2], n = t->dim[0] * rows;
    struct kernels k;
    float row[512];
    kernels_init(&k, 0);
    if (t->dim[0] > 512) abort();
    for (uint64_t r = 0; r < rows; r++) {
        const uint8_t *at = file + t->off + r * (t->len / rows);
        weight_ops(&k, (int)t->type)->dequant(row, at, t->dim[0]);
        for (uint64_t i = 0; i < t->dim[0]; i++) {
            double v = (double)row[i];
            sum += v;
            squares += v * v;
        }
    }
    double mean = sum / (double)n, std = sqrt(squares / (double)n - mean * mean);
    tap_ok(fabs(mean) < 5 * want / sqrt((double)n) && fabs(std / want - 1) < 0.02,
           "%s: %s has mean %.5f, deviation %.4f for %.4f", type, t->name, mean, std, want);
}

static const struct tensor *find(const struct model *m, const char *name) {
    for (uint32_t i = 0; i < m->n_tensor; i++) {
        if (!strcmp(m->tensor[i].name, name)) return &m->tensor[i];
    }
    return NULL;
}

static void check_tiny(const char *type) {
    char a[256], b[256], c[256];
    struct err e = {.code = ERR_NONE, .text = ""};
    struct model m;
    struct synth s = {"tiny,layers=2", type, path_of(a, "a.gguf"), 1};
    struct synth again = s, other = s;
    again.out = path_of(b, "b.gguf");
    other.out = path_of(c, "c.gguf");
    other.seed = 2;
    if (!tap_ok(synth_write(&s, NULL, NULL, &e) && synth_write(&again, NULL, NULL, &e) &&
                    synth_write(&other, NULL, NULL, &e),
                "%s: written %s", type, e.text)) {
        return;
    }
    size_t la = 0, lb = 0, lc = 0;
    uint8_t *pa = slurp(a, &la), *pb = slurp(b, &lb), *pc = slurp(c, &lc);
    tap_ok(la == lb && !memcmp(pa, pb, la), "%s: the same seed, the same file", type);
    tap_ok(la == lc && memcmp(pa, pc, la) != 0, "%s: another seed, another file", type);
    if (tap_ok(model_open(&m, a, 0, 0, &e), "%s: opens %s", type, e.text)) {
        tap_ok(m.n_layer == 2 && m.n_embd == 256 && m.n_vocab == 512 && m.output != m.token_embd,
               "%s: shape", type);
        tap_ok(m.file[0].data_off + m.data_len <= la && la - m.file[0].data_off - m.data_len < 64,
               "%s: size", type);
        check_spread(type, find(&m, "blk.1.attn_q.weight"), pa, 1.5 / 16);
        check_spread(type, find(&m, "blk.1.ffn_down.weight"), pa, 1 / sqrt(512.0));
        model_close(&m);
    }
    free(pa);
    free(pb);
    free(pc);
    unlink(a);
    unlink(b);
    unlink(c);
}

static void check_experts(const char *type) {
    char a[256];
    struct err e = {.code = ERR_NONE, .text = ""};
    struct model m;
    struct synth s = {"moe-tiny,layers=2", type, path_of(a, "moe.gguf"), 1};
    size_t len;
    if (!tap_ok(synth_write(&s, NULL, NULL, &e) && model_open(&m, a, 0, 0, &e),
                "%s: with experts %s", type, e.text)) {
        return;
    }
    uint8_t *p = slurp(a, &len);
    const struct tensor *down = find(&m, "blk.1.ffn_down_exps.weight");
    uint64_t off = 0;
    tap_ok(m.n_expert == 8 && m.n_used == 2 && m.layer[1].router->type == TENSOR_F32 &&
               model_expert(&m, 1, 3, EXPERT_DOWN, &off) == down &&
               off == down->off + down->len / 8 * 3,
           "%s: 8 experts, 2 of them for a token", type);
    check_spread(type, m.layer[1].router, p, 1.5 / 16);
    check_spread(type, m.layer[0].gate, p, 1.2 / 16);
    check_spread(type, down, p, 1.0 / 16);
    free(p);
    model_close(&m);
    unlink(a);
}

/* The vocabulary: all different, each merge of two that are there, every byte has a token. */
static void check_vocabulary(const struct vocab *v) {
    uint32_t n_slot = 1 << 19, same = 0, control = 0, longest = 0;
    uint32_t *slot = malloc(n_slot * sizeof *slot);
    if (!slot) return;
    memset(slot, 0xff, n_slot * sizeof *slot);
    for (uint32_t i = 0; i < v->n_token; i++) {
        uint32_t len = v->start[i + 1] - v->start[i], h = 2166136261U;
        const char *s = v->text + v->start[i];
        for (uint32_t k = 0; k < len; k++) h = (h ^ (uint8_t)s[k]) * 16777619U;
        for (h &= n_slot - 1; slot[h] != UINT32_MAX; h = (h + 1) & (n_slot - 1)) {
            uint32_t o = slot[h];
            if (v->start[o + 1] - v->start[o] == len && !memcmp(v->text + v->start[o], s, len))
                same++;
        }
        slot[h] = i;
        control += v->type[i] == TOKEN_CONTROL;
        if (len > longest) longest = len;
    }
    free(slot);
    tap_ok(!same, "%u tokens, all different", (unsigned)v->n_token);
    tap_ok(control == 256 && v->type[v->bos] == TOKEN_CONTROL && v->type[v->eot] == TOKEN_CONTROL,
           "control tokens");
    uint32_t bad = 0;
    for (uint32_t i = 0; i < v->n_merge; i++) {
        /* The token that merge i makes is the pair without its space. */
        const char *pair = v->merge_text + v->merge[i], *made = v->text + v->start[256 + i];
        uint32_t len = v->merge[i + 1] - v->merge[i], k = 0;
        while (k < len && pair[k] != ' ') k++;
        uint32_t right = len - k - 1;
        bad += k == 0 || k >= len - 1 || v->start[257 + i] - v->start[256 + i] != len - 1 ||
               memcmp(made, pair, k) != 0 || memcmp(made + k, pair + k + 1, right) != 0;
    }
    tap_ok(!bad && v->n_merge == v->n_token - 512, "%u merges make the tokens in order",
           (unsigned)v->n_merge);
    tap_ok(longest < 64, "the longest token has %u bytes", (unsigned)longest);
}

static void check_big(void) {
    char a[256];
    struct err e = {.code = ERR_NONE, .text = ""};
    struct model m;
    struct synth s = {"llama-3.2-1b,layers=1", "q4_0", path_of(a, "1b.gguf"), 1};
    size_t len;
    if (!tap_ok(synth_write(&s, NULL, NULL, &e) && model_open(&m, a, 0, 0, &e), "1b opens %s",
                e.text)) {
        return;
    }
    uint8_t *file = slurp(a, &len);
    tap_ok(m.n_embd == 2048 && m.n_head == 32 && m.n_head_kv == 8 && m.head_dim == 64 &&
               m.n_ff == 8192 && m.n_vocab == 128256 && m.output == m.token_embd &&
               m.rope_base == 500000 && m.n_ctx == 131072,
           "llama 3.2 1b's shape, tied");
    tap_ok(m.rope_freqs && f32_at(file + m.rope_freqs->off, 0) == 1 &&
               f32_at(file + m.rope_freqs->off, 31) == 32,
           "frequency factors from 1 to 32");
    check_vocabulary(&m.vocab);
    free(file);
    model_close(&m);
    unlink(a);
}

/* What a family's file says and has, besides what opening it checks. */
static bool is_family(const char *shape, const char *type, struct model *m, char a[static 256]) {
    struct err e = {.code = ERR_NONE, .text = ""};
    struct synth s = {shape, type, path_of(a, "family.gguf"), 1};
    return tap_ok(synth_write(&s, NULL, NULL, &e) && model_open(m, a, 0, 0, &e), "%s, %s: opens %s",
                  shape, type, e.text);
}

static void check_qwen3(void) {
    char a[256];
    struct model m;
    if (is_family("qwen3-0.6b,layers=1,vocab=2048", "q6_k", &m, a)) {
        tap_ok(!strcmp(m.arch_name, "qwen3") && m.n_layer == 1 && m.n_embd == 1024 &&
                   m.n_ff == 3072 && m.n_head == 16 && m.n_head_kv == 8 && m.head_dim == 128 &&
                   m.n_rot == 128 && m.n_vocab == 2048 && m.output == m.token_embd &&
                   m.rope_base == 1e6 && m.n_ctx == 40960 && m.layer[0].q_norm &&
                   m.layer[0].k_norm && m.layer[0].q->type == TENSOR_Q6_K,
               "qwen3 0.6b's shape, tied, with norms of heads");
        model_close(&m);
    }
    if (is_family("qwen3-30b-a3b,layers=2,vocab=1024,experts=9", "q4_k", &m, a)) {
        tap_ok(!strcmp(m.arch_name, "qwen3moe") && m.n_layer == 2 && m.n_embd == 2048 &&
                   m.n_ff == 768 && m.n_head == 32 && m.n_head_kv == 4 && m.head_dim == 128 &&
                   m.n_expert == 9 && m.n_used == 8 && m.output != m.token_embd &&
                   m.rope_base == 1e6 && m.layer[1].q_norm && m.layer[1].gate->dim[2] == 9 &&
                   m.layer[1].router->type == TENSOR_F32,
               "qwen3 30b-a3b's shape");
        model_close(&m);
    }
    unlink(a);
}

static void check_gpt_oss(void) {
    char a[256];
    struct model m;
    size_t len;
    if (!is_family("gpt-oss-20b,layers=2,experts=4,vocab=1024", "mxfp4", &m, a)) return;
    const struct layer_tensors *l = &m.layer[0];
    tap_ok(!strcmp(m.arch_name, "gpt-oss") && m.n_embd == 2880 && m.n_ff == 2880 &&
               m.n_head == 64 && m.n_head_kv == 8 && m.head_dim == 64 && m.n_expert == 4 &&
               m.n_used == 4 && m.rope_base == 150000 && m.n_ctx == 131072,
           "gpt-oss's shape");
    tap_ok(m.window == 128 && l->is_local && !m.layer[1].is_local && m.rope_scaling == ROPE_YARN &&
               m.rope_factor == 32 && m.n_ctx_orig == 4096,
           "gpt-oss: every other layer has a window; YaRN");
    tap_ok(l->gate->type == TENSOR_MXFP4 && l->down->type == TENSOR_MXFP4 &&
               l->q->type == TENSOR_Q8_0 && m.output->type == TENSOR_Q8_0 &&
               m.token_embd->type == TENSOR_Q8_0 && l->router->type == TENSOR_F32,
           "gpt-oss: experts of the type asked for, the rest in Q8_0");
    uint8_t *p = slurp(a, &len);
    double sum = 0, squares = 0;
    uint64_t n = l->gate_bias->dim[0] * l->gate_bias->dim[1];
    for (uint64_t i = 0; i < n; i++) {
        double v = (double)f32_at(p + l->gate_bias->off, i);
        sum += v;
        squares += v * v;
    }
    tap_ok(n == 4 * 2880 && l->sinks && l->q_bias && l->o_bias && l->router_bias && l->up_bias &&
               l->down_bias && fabs(sum / (double)n) < 0.01 &&
               fabs(sqrt(squares / (double)n) / 0.1 - 1) < 0.05,
           "gpt-oss: sinks, and biases around 0");
    free(p);
    model_close(&m);
    unlink(a);
}

static void refused(const char *shape, const char *type, const char *out, enum err_code code) {
    struct err e = {.code = ERR_NONE, .text = ""};
    struct synth s = {shape, type, out, 1};
    bool ok = synth_write(&s, NULL, NULL, &e);
    tap_ok(!ok && e.code == code, "%s, %s: %s", shape, type, e.text);
}

/* What exists and is no file stays what it is: a rename would put the model in its place. */
static void check_special(void) {
    char a[256], part[256];
    struct stat st;
    path_of(a, "pipe");
    path_of(part, "pipe.part");
    if (!tap_ok(mkfifo(a, 0600) == 0, "a pipe is made")) return;
    refused("tiny", "q4_0", a, ERR_USAGE);
    tap_ok(stat(a, &st) == 0 && S_ISFIFO(st.st_mode), "the pipe is still one");
    refused("tiny", "q4_0", dir, ERR_USAGE);
    tap_ok(access(part, F_OK) != 0, "nothing was written for them");
    unlink(a);
    path_of(a, "model");
    path_of(part, "model.part");
    if (!tap_ok(mkdir(part, 0700) == 0, "a folder is made")) return;
    refused("tiny", "q4_0", a, ERR_USAGE);
    rmdir(part);
}

static bool stops_later(void *ctx, uint64_t done, uint64_t total) {
    int *n = ctx;
    return ++*n < 3 || done == total;
}

static void check_stopped(void) {
    char a[256], part[256];
    struct err e = {.code = ERR_NONE, .text = ""};
    struct synth s = {"llama-3.2-1b,layers=1", "q4_0", path_of(a, "stopped.gguf"), 1};
    int n = 0;
    path_of(part, "stopped.gguf.part");
    bool ok = synth_write(&s, stops_later, &n, &e);
    tap_ok(!ok && e.code == ERR_STOPPED && n == 3, "stopped when progress says so: %s", e.text);
    tap_ok(access(a, F_OK) != 0 && access(part, F_OK) != 0, "nothing is left of what was stopped");
}

int main(void) {
    char a[256];
    if (!mkdtemp(dir)) return 1;
    check_tiny("q4_0");
    check_tiny("q8_0");
    check_tiny("q4_k");
    check_tiny("q6_k");
    check_tiny("mxfp4");
    check_tiny("f16");
    check_experts("q4_0");
    check_experts("f16");
    check_big();
    check_qwen3();
    check_gpt_oss();
    refused("gpt-oss-20b", "q4_k", path_of(a, "x"), ERR_USAGE);
    refused("tiny,experts=2", "q4_0", a, ERR_USAGE);
    refused("moe-tiny,experts=1", "q4_0", a, ERR_USAGE);
    refused("tiny,vocab=2000000", "q4_0", a, ERR_USAGE);
    refused("tiny,layers=2,", "q4_0", a, ERR_USAGE);
    refused("llama", "q4_0", path_of(a, "x"), ERR_USAGE);
    refused("tiny,layers=0", "q4_0", a, ERR_USAGE);
    refused("tiny,layers=2x", "q4_0", a, ERR_USAGE);
    refused("tiny,depth=2", "q4_0", a, ERR_USAGE);
    refused("tiny", "q9_0", a, ERR_USAGE);
    refused("tiny", "q4_0", "/nowhere/x.gguf", ERR_IO);
    refused("llama-3.1-70b,layers=1024", "f16", a, ERR_IO);
    check_special();
    check_stopped();
    tap_ok(access(path_of(a, "x.part"), F_OK) != 0, "nothing is left of what was refused");
    rmdir(dir);
    return tap_done();
}
