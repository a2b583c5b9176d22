/* Slices give one text on models of unusual shape too: heads that fill no block, layers of different
 * weight types, odd vocabularies. The models are made here, random and small. */
#include "engine/engine.h"
#include "gguf_maker.h"
#include "tap.h"

enum { N_LAYER = 3, N_PREDICT = 16 };

struct shape {
    const char *what;
    uint32_t n_embd, n_head, n_kv, head_dim, n_ff, n_vocab;
    uint32_t type[N_LAYER];  // of each layer's attn_output and ffn_down; the others are Q8_0
};

static uint64_t seed = 1;

static uint32_t rnd(void) {  // xorshift64*, Vigna 2016
    seed ^= seed >> 12, seed ^= seed << 25, seed ^= seed >> 27;
    return (uint32_t)(seed * 0x2545F4914F6CDD1DULL >> 32);
}

/* Directory and data of a file in the making. */
struct maker {
    struct blob info, data;
    uint32_t n;
};

static void put_weights(struct blob *b, uint32_t type, uint64_t n) {
    static const uint16_t f16_scale = 0x2000;  // 2^-7: branches must outweigh the embedding
    for (uint64_t i = 0; i < n; i++) {
        float f = (float)((int)(rnd() & 255) - 128) / 128;
        uint32_t bits;
        memcpy(&bits, &f, 4);
        if (type == W_F32) blob_int(b, bits, 4);
        if (type == W_F16) blob_int(b, 0x3800 | (rnd() & 0x83ff), 2);  // +-0.5 .. 1
        if (type == W_Q8_0) {
            if (i % 32 == 0) blob_int(b, f16_scale, 2);
            blob_int(b, rnd() & 255, 1);
        }
    }
}

static void put_tensor(struct maker *m, const char *name, uint32_t type, uint64_t cols,
                       uint64_t rows) {
    blob_text(&m->info, name);
    blob_int(&m->info, rows ? 2 : 1, 4);
    blob_int(&m->info, cols, 8);
    if (rows) blob_int(&m->info, rows, 8);
    blob_int(&m->info, type, 4);
    blob_int(&m->info, m->data.n, 8);
    put_weights(&m->data, type, cols * (rows ? rows : 1));
    while (m->data.n % 32) blob_int(&m->data, 0, 1);
    m->n++;
}

static void put_layer(struct maker *m, const struct shape *s, uint32_t i) {
    const struct {
        const char *name;
        uint32_t type;
        uint64_t cols, rows;
    } t[] = {
        {"attn_norm", W_F32, s->n_embd, 0},
        {"attn_q", W_Q8_0, s->n_embd, s->n_head * s->head_dim},
        {"attn_k", W_Q8_0, s->n_embd, s->n_kv * s->head_dim},
        {"attn_v", W_Q8_0, s->n_embd, s->n_kv * s->head_dim},
        {"attn_output", s->type[i], s->n_head * s->head_dim, s->n_embd},
        {"ffn_norm", W_F32, s->n_embd, 0},
        {"ffn_gate", W_Q8_0, s->n_embd, s->n_ff},
        {"ffn_up", W_Q8_0, s->n_embd, s->n_ff},
        {"ffn_down", s->type[N_LAYER - 1 - i], s->n_ff, s->n_embd},
    };
    for (size_t j = 0; j < sizeof t / sizeof *t; j++) {
        char name[64];
        snprintf(name, sizeof name, "blk.%u.%s.weight", i, t[j].name);
        put_tensor(m, name, t[j].type, t[j].cols, t[j].rows);
    }
}

static struct blob build(const struct shape *s) {
    struct maker m = {0};
    struct blob file = {0}, keys = {0};
    const struct {
        const char *key;
        uint32_t v;
    } ints[] = {{"llama.block_count", N_LAYER},
                {"llama.embedding_length", s->n_embd},
                {"llama.feed_forward_length", s->n_ff},
                {"llama.attention.head_count", s->n_head},
                {"llama.attention.head_count_kv", s->n_kv},
                {"llama.attention.key_length", s->head_dim},
                {"llama.attention.value_length", s->head_dim},
                {"llama.rope.dimension_count", s->head_dim},
                {"llama.context_length", 64}};
    uint32_t n_key = sizeof ints / sizeof *ints + 4;
    kv_str(&keys, "general.architecture", "llama");
    for (size_t i = 0; i < sizeof ints / sizeof *ints; i++) kv_u32(&keys, ints[i].key, ints[i].v);
    kv_f32(&keys, "llama.attention.layer_norm_rms_epsilon", 1e-5F);
    kv_str(&keys, "tokenizer.ggml.model", "llama");
    kv_array(&keys, "tokenizer.ggml.tokens", 8, s->n_vocab);
    for (uint32_t i = 0; i < s->n_vocab; i++) {
        char text[16];
        snprintf(text, sizeof text, "t%u", i);
        blob_text(&keys, text);
    }
    put_tensor(&m, "token_embd.weight", W_Q8_0, s->n_embd, s->n_vocab);
    put_tensor(&m, "output_norm.weight", W_F32, s->n_embd, 0);
    for (uint32_t i = 0; i < N_LAYER; i++) put_layer(&m, s, i);
    blob_put(&file, "GGUF", 4);
    blob_int(&file, 3, 4);
    blob_int(&file, m.n, 8);
    blob_int(&file, n_key, 8);
    blob_put(&file, keys.p, keys.n);
    blob_put(&file, m.info.p, m.info.n);
    while (file.n % 32) blob_int(&file, 0, 1);
    blob_put(&file, m.data.p, m.data.n);
    free(keys.p);
    free(m.info.p);
    free(m.data.p);
    return file;
}

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
    struct blob file = build(s);
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
        {"F32 and F16 among Q8_0", 64, 8, 4, 8, 96, 50, {W_F32, W_Q8_0, W_F16}},
        {"heads of 4 values", 1024, 128, 16, 4, 96, 50, {W_Q8_0, W_Q8_0, W_Q8_0}},
        {"heads of 12 values", 1024, 64, 8, 12, 96, 33, {W_Q8_0, W_Q8_0, W_Q8_0}},
        {"heads of 20 values, floats", 64, 16, 8, 20, 96, 50, {W_F32, W_F32, W_F32}},
        {"one KV head", 64, 4, 1, 16, 64, 31, {W_Q8_0, W_F16, W_Q8_0}},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) check(&shapes[i]);
    return tap_done();
}
