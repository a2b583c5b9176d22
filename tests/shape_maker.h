/* shape_maker.h - models of any shape with random weights, small, as GGUF files in memory. */
#ifndef TESTS_SHAPE_MAKER_H
#define TESTS_SHAPE_MAKER_H

#include "gguf_maker.h"
#include "quants.h"

enum { SHAPE_LAYERS = 4 };

struct shape {
    const char *what;
    uint32_t n_embd, n_head, n_kv, head_dim, n_ff, n_vocab, n_layer;
    uint32_t type[SHAPE_LAYERS];  // of attn_output of each layer and, from the last layer back, of
                                  // ffn_down; the others are Q8_0
};

static inline uint32_t shape_random(void) {  // xorshift64*, Vigna 2016
    static uint64_t seed = 1;
    seed ^= seed >> 12, seed ^= seed << 25, seed ^= seed >> 27;
    return (uint32_t)(seed * 0x2545F4914F6CDD1DULL >> 32);
}

/* Directory and data of a file in the making. */
struct maker {
    struct blob info, data;
    uint32_t n;
};

static inline void shape_weights(struct blob *b, uint32_t type, uint64_t n) {
    static const uint16_t f16_scale = 0x2000;  // 2^-7: branches must outweigh the embedding
    for (uint64_t i = 0; i < n; i++) {
        float f = (float)((int)(shape_random() & 255) - 128) / 128;
        uint32_t bits;
        memcpy(&bits, &f, 4);
        if (type == W_F32) blob_int(b, bits, 4);
        if (type == W_F16) blob_int(b, 0x3800 | (shape_random() & 0x83ff), 2);  // +-0.5 .. 1
        if (type == W_Q8_0) {
            if (i % 32 == 0) blob_int(b, f16_scale, 2);
            blob_int(b, shape_random() & 255, 1);
        }
    }
}

static inline void shape_tensor(struct maker *m, const char *name, uint32_t type, uint64_t cols,
                                uint64_t rows) {
    blob_text(&m->info, name);
    blob_int(&m->info, rows ? 2 : 1, 4);
    blob_int(&m->info, cols, 8);
    if (rows) blob_int(&m->info, rows, 8);
    blob_int(&m->info, type, 4);
    blob_int(&m->info, m->data.n, 8);
    shape_weights(&m->data, type, cols * (rows ? rows : 1));
    while (m->data.n % 32) blob_int(&m->data, 0, 1);
    m->n++;
}

static inline void shape_layer(struct maker *m, const struct shape *s, uint32_t i) {
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
        {"ffn_down", s->type[s->n_layer - 1 - i], s->n_ff, s->n_embd},
    };
    for (size_t j = 0; j < sizeof t / sizeof *t; j++) {
        char name[64];
        snprintf(name, sizeof name, "blk.%u.%s.weight", i, t[j].name);
        shape_tensor(m, name, t[j].type, t[j].cols, t[j].rows);
    }
}

/* n_ctx: its context; has_output: an output matrix of its own. */
static inline struct blob shape_build_as(const struct shape *s, uint32_t n_ctx, bool has_output) {
    struct maker m = {0};
    struct blob file = {0}, keys = {0};
    const struct {
        const char *key;
        uint32_t v;
    } ints[] = {{"llama.block_count", s->n_layer},
                {"llama.embedding_length", s->n_embd},
                {"llama.feed_forward_length", s->n_ff},
                {"llama.attention.head_count", s->n_head},
                {"llama.attention.head_count_kv", s->n_kv},
                {"llama.attention.key_length", s->head_dim},
                {"llama.attention.value_length", s->head_dim},
                {"llama.rope.dimension_count", s->head_dim},
                {"llama.context_length", n_ctx}};
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
    shape_tensor(&m, "token_embd.weight", W_Q8_0, s->n_embd, s->n_vocab);
    shape_tensor(&m, "output_norm.weight", W_F32, s->n_embd, 0);
    for (uint32_t i = 0; i < s->n_layer; i++) shape_layer(&m, s, i);
    if (has_output) shape_tensor(&m, "output.weight", W_Q8_0, s->n_embd, s->n_vocab);
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

static inline struct blob shape_build(const struct shape *s) {
    return shape_build_as(s, 64, false);
}

#endif
