/* dllama_maker.h - small files of distributed-llama, a .m and its .t, put together in memory. */
#ifndef TESTS_DLLAMA_MAKER_H
#define TESTS_DLLAMA_MAKER_H

#include "gguf_maker.h"

enum {
    DL_MAGIC = 0x0a00abcd,
    DL_MAGIC_TOK = 0x567124,
    DL_LLAMA = 0xabcd00,
    DL_QWEN3 = 0xabcd01,
    DL_QWEN3_MOE = 0xabcd02,
    DL_PAIRS = 48,
};

/* Keys of both headers. */
enum {
    DL_ARCH = 1,
    DL_DIM,
    DL_HIDDEN,
    DL_LAYERS,
    DL_HEADS,
    DL_KV_HEADS,
    DL_EXPERTS,
    DL_USED,
    DL_VOCAB,
    DL_CTX,
    DL_ACT,
    DL_THETA,
    DL_WEIGHTS,
    DL_FACTOR,
    DL_LOW,
    DL_HIGH,
    DL_ORIG,
    DL_ROPE,
    DL_HEAD_DIM,
    DL_EPSILON,
    DL_EXPERT_HIDDEN,
};
enum {
    DL_TOK_VERSION = 0,
    DL_TOK_VOCAB = 1,
    DL_TOK_LONGEST = 2,
    DL_TOK_BOS = 3,
    DL_TOK_EOS = 4,
    DL_TOK_TEMPLATE = 7,
    DL_TOK_STOP = 8,
    DL_TOK_ENDS = 9,
    DL_TOK_ADD_BOS = 10,
};

struct dl_pairs {
    uint32_t n;
    int32_t key[DL_PAIRS], value[DL_PAIRS];
};

/* Adds a pair, or changes the one that is there. */
static inline void dl_set(struct dl_pairs *p, int32_t key, int32_t value) {
    uint32_t i = 0;
    while (i < p->n && p->key[i] != key) i++;
    if (i == DL_PAIRS) abort();
    if (i == p->n) p->n++;
    p->key[i] = key;
    p->value[i] = value;
}

static inline int32_t dl_get(const struct dl_pairs *p, int32_t key) {
    for (uint32_t i = 0; i < p->n; i++) {
        if (p->key[i] == key) return p->value[i];
    }
    return 0;
}

static inline void dl_drop(struct dl_pairs *p, int32_t key) {
    for (uint32_t i = 0; i < p->n; i++) {
        if (p->key[i] != key) continue;
        p->n--;
        p->key[i] = p->key[p->n];
        p->value[i] = p->value[p->n];
    }
}

static inline void dl_header(struct blob *b, uint32_t magic, const struct dl_pairs *p) {
    blob_int(b, magic, 4);
    blob_int(b, 8 + 8 * (uint64_t)p->n, 4);
    for (uint32_t i = 0; i < p->n; i++) {
        blob_int(b, (uint32_t)p->key[i], 4);
        blob_int(b, (uint32_t)p->value[i], 4);
    }
}

/* A model of one layer, 32 wide, 8 tokens; with experts where arch has them. */
static inline struct dl_pairs dl_tiny(int32_t arch) {
    struct dl_pairs p = {0};
    dl_set(&p, 0, 0);
    dl_set(&p, DL_ARCH, arch);
    dl_set(&p, DL_DIM, 32);
    dl_set(&p, DL_HIDDEN, 64);
    dl_set(&p, DL_LAYERS, 1);
    dl_set(&p, DL_HEADS, 4);
    dl_set(&p, DL_KV_HEADS, 2);
    dl_set(&p, DL_VOCAB, 8);
    dl_set(&p, DL_CTX, 128);
    dl_set(&p, DL_WEIGHTS, 0);
    dl_set(&p, DL_EPSILON, 6);
    if (arch != DL_LLAMA) dl_set(&p, DL_HEAD_DIM, 16);
    if (arch != DL_QWEN3_MOE) return p;
    dl_set(&p, DL_EXPERTS, 3);
    dl_set(&p, DL_USED, 2);
    dl_set(&p, DL_EXPERT_HIDDEN, 32);
    return p;
}

/* Bytes of n weights of a float type, and of a model's weights. */
static inline uint64_t dl_bytes(int32_t type, uint64_t n) {
    return type == 0 ? 4 * n : type == 1 ? 2 * n : type == 2 ? n / 32 * 18 : n / 32 * 34;
}

static inline uint64_t dl_data(const struct dl_pairs *p) {
    uint64_t d = (uint64_t)dl_get(p, DL_DIM), n_head = (uint64_t)dl_get(p, DL_HEADS);
    uint64_t hd = (uint64_t)dl_get(p, DL_HEAD_DIM), v = (uint64_t)dl_get(p, DL_VOCAB);
    uint64_t x = (uint64_t)dl_get(p, DL_EXPERTS), layers = (uint64_t)dl_get(p, DL_LAYERS);
    uint64_t ff = (uint64_t)dl_get(p, x ? DL_EXPERT_HIDDEN : DL_HIDDEN);
    int32_t type = dl_get(p, DL_WEIGHTS);
    if (!hd && n_head) hd = d / n_head;
    uint64_t q = n_head * hd, kv = (uint64_t)dl_get(p, DL_KV_HEADS) * hd;
    uint64_t layer = 2 * dl_bytes(type, d * q) + 2 * dl_bytes(type, d * kv) + 8 * d;
    layer += 3 * dl_bytes(type, d * ff) * (x ? x : 1) + 4 * d * x;
    if (dl_get(p, DL_ARCH) != DL_LLAMA) layer += 8 * hd;
    return 4 * d * v + layers * layer + 4 * d + dl_bytes(type, d * v);
}

/* The whole .m, its weights any bytes that are numbers as floats. */
static inline struct blob dl_model(const struct dl_pairs *p) {
    struct blob b = {0};
    dl_header(&b, DL_MAGIC, p);
    for (uint64_t i = 0; i < dl_data(p); i++) blob_int(&b, i * 2654435761U >> 25, 1);
    return b;
}

static inline void dl_token(struct blob *b, float score, const void *text, size_t n) {
    uint32_t bits;
    memcpy(&bits, &score, sizeof bits);
    blob_int(b, bits, 4);
    blob_int(b, n, 4);
    blob_put(b, text, n);
}

/* The vocabulary of the tiny model: five regular tokens, then BOS, end and a word of its own. */
static inline struct blob dl_tokens(const char *template, struct dl_pairs *p) {
    static const char *const texts[] = {"a", "b", "ab", " ", "c", "<s>", "<|eot_id|>", "<think>"};
    struct blob b = {0};
    struct dl_pairs all = {0};
    dl_set(&all, DL_TOK_BOS, 5);
    dl_set(&all, DL_TOK_VERSION, 1);
    dl_set(&all, DL_TOK_VOCAB, 8);
    dl_set(&all, DL_TOK_LONGEST, 10);
    dl_set(&all, DL_TOK_TEMPLATE, (int32_t)strlen(template));
    dl_set(&all, DL_TOK_ENDS, 1);
    dl_set(&all, DL_TOK_ADD_BOS, 1);
    for (uint32_t i = 0; p && i < p->n; i++) dl_set(&all, p->key[i], p->value[i]);
    dl_header(&b, DL_MAGIC_TOK, &all);
    blob_put(&b, template, strlen(template));
    blob_int(&b, 6, 4);
    for (uint32_t i = 0; i < 8; i++) dl_token(&b, -(float)i, texts[i], strlen(texts[i]));
    return b;
}

#endif
