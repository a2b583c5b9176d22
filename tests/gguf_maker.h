/* gguf_maker.h - small GGUF files for tests, put together in memory and opened through a memfd. */
#ifndef TESTS_GGUF_MAKER_H
#define TESTS_GGUF_MAKER_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct blob {
    uint8_t *p;
    size_t n, cap;
};

static inline void blob_put(struct blob *b, const void *p, size_t n) {
    if (b->n + n > b->cap) {
        b->cap = 2 * (b->n + n);
        b->p = realloc(b->p, b->cap);
        if (!b->p) abort();
    }
    if (n) memcpy(b->p + b->n, p, n);
    b->n += n;
}

static inline void blob_int(struct blob *b, uint64_t v, size_t n) {
    uint8_t bytes[8];
    for (size_t i = 0; i < 8; i++) bytes[i] = (uint8_t)(v >> 8 * i);
    blob_put(b, bytes, n);
}

static inline void blob_text(struct blob *b, const char *s) {
    blob_int(b, strlen(s), 8);
    blob_put(b, s, strlen(s));
}

static inline void kv_head(struct blob *b, const char *key, uint32_t type) {
    blob_text(b, key);
    blob_int(b, type, 4);
}

static inline void kv_u32(struct blob *b, const char *key, uint32_t v) {
    kv_head(b, key, 4);
    blob_int(b, v, 4);
}

static inline void kv_f32(struct blob *b, const char *key, float v) {
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    kv_head(b, key, 6);
    blob_int(b, bits, 4);
}

static inline void kv_str(struct blob *b, const char *key, const char *v) {
    kv_head(b, key, 8);
    blob_text(b, v);
}

static inline void kv_array(struct blob *b, const char *key, uint32_t elem, uint64_t n) {
    kv_head(b, key, 9);
    blob_int(b, elem, 4);
    blob_int(b, n, 8);
}

/* A model of one layer, 32 wide, 8 tokens: valid as it is, with what a test changes of it. */
struct spec {
    uint32_t version;
    uint32_t align;
    const char *drop_key;     // left out
    const char *drop_tensor;  // left out
    struct blob kv;           // added at the end of the keys
    uint32_t n_kv;            // how many
    const char *add_tensor;   // [32] F32
    const char *retype;       // this tensor's type is
    uint32_t type;
    uint64_t shift;     // added to the second tensor's offset
    uint32_t from, to;  // only these of the tensors; to 0: all
    bool bare;          // without the model's keys: one of the later files of a split set
};

enum { MAKER_E = 32, MAKER_VOCAB = 8 };

static inline bool maker_keeps(uint32_t *n, const struct spec *s, const char *key) {
    if (s->drop_key && !strcmp(s->drop_key, key)) return false;
    ++*n;
    return true;
}

static inline uint32_t maker_keys(struct blob *b, const struct spec *s) {
    static const struct {
        const char *key;
        uint32_t v;
    } ints[] = {{"llama.block_count", 1},          {"llama.embedding_length", MAKER_E},
                {"llama.feed_forward_length", 64}, {"llama.attention.head_count", 4},
                {"llama.context_length", 128},     {"llama.attention.head_count_kv", 2}};
    uint32_t n = 0;
    if (s->bare) {
        blob_put(b, s->kv.p, s->kv.n);
        return s->n_kv;
    }
    if (maker_keeps(&n, s, "general.architecture")) kv_str(b, "general.architecture", "llama");
    for (size_t i = 0; i < sizeof ints / sizeof *ints; i++) {
        if (maker_keeps(&n, s, ints[i].key)) kv_u32(b, ints[i].key, ints[i].v);
    }
    if (maker_keeps(&n, s, "llama.attention.layer_norm_rms_epsilon")) {
        kv_f32(b, "llama.attention.layer_norm_rms_epsilon", 1e-5F);
    }
    if (maker_keeps(&n, s, "tokenizer.ggml.model")) kv_str(b, "tokenizer.ggml.model", "llama");
    if (maker_keeps(&n, s, "tokenizer.ggml.tokens")) {
        static const char *const tokens[MAKER_VOCAB] = {"<unk>", "<s>", "</s>", "a",
                                                        "b",     "ab",  "",     "c"};
        kv_array(b, "tokenizer.ggml.tokens", 8, MAKER_VOCAB);
        for (int i = 0; i < MAKER_VOCAB; i++) blob_text(b, tokens[i]);
    }
    blob_put(b, s->kv.p, s->kv.n);
    return n + s->n_kv;
}

/* The whole file; free(.p). */
static inline struct blob maker_build(const struct spec *s) {
    static const struct {
        const char *name;
        uint64_t cols, rows;
    } t[] = {{"token_embd.weight", 32, 8},
             {"output_norm.weight", 32, 0},
             {"output.weight", 32, 8},
             {"blk.0.attn_norm.weight", 32, 0},
             {"blk.0.attn_q.weight", 32, 32},
             {"blk.0.attn_k.weight", 32, 16},
             {"blk.0.attn_v.weight", 32, 16},
             {"blk.0.attn_output.weight", 32, 32},
             {"blk.0.ffn_norm.weight", 32, 0},
             {"blk.0.ffn_gate.weight", 32, 64},
             {"blk.0.ffn_up.weight", 32, 64},
             {"blk.0.ffn_down.weight", 64, 32},
             {"(added)", 32, 0}};
    struct blob file = {0}, keys = {0}, infos = {0};
    uint64_t off = 0, align = s->align ? s->align : 32;
    uint32_t n_kv = maker_keys(&keys, s), n_tensor = 0;
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        bool added = i == sizeof t / sizeof *t - 1;
        const char *name = added ? s->add_tensor : t[i].name;
        if (s->to && !added && (i < s->from || i >= s->to)) continue;
        if (!name || (s->drop_tensor && !strcmp(s->drop_tensor, name))) continue;
        uint32_t type = s->retype && !strcmp(s->retype, name) ? s->type : 0;
        blob_text(&infos, name);
        blob_int(&infos, t[i].rows ? 2 : 1, 4);
        blob_int(&infos, t[i].cols, 8);
        if (t[i].rows) blob_int(&infos, t[i].rows, 8);
        blob_int(&infos, type, 4);
        blob_int(&infos, off + (n_tensor == 1 ? s->shift : 0), 8);
        off += (4 * t[i].cols * (t[i].rows ? t[i].rows : 1) + align - 1) / align * align;
        n_tensor++;
    }
    blob_put(&file, "GGUF", 4);
    blob_int(&file, s->version ? s->version : 3, 4);
    blob_int(&file, n_tensor, 8);
    blob_int(&file, n_kv, 8);
    blob_put(&file, keys.p, keys.n);
    blob_put(&file, infos.p, infos.n);
    while (file.n % align) blob_int(&file, 0, 1);
    while (off--) blob_int(&file, off * 2654435761U, 1);
    free(keys.p);
    free(infos.p);
    return file;
}

/* A file in memory with these bytes; *fd to close, path to open. */
static inline void blob_file(const void *p, size_t n, int *fd, char path[static 64]) {
    *fd = memfd_create("gguf", MFD_CLOEXEC);
    if (*fd < 0) abort();
    for (size_t at = 0; at < n;) {
        ssize_t k = write(*fd, (const uint8_t *)p + at, n - at);
        if (k <= 0) abort();
        at += (size_t)k;
    }
    snprintf(path, 64, "/proc/self/fd/%d", *fd);
}

#endif
