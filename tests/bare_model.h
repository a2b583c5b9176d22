/* bare_model.h - a model of any shape without weights: enough for what only counts rows and bytes. */
#ifndef TESTS_BARE_MODEL_H
#define TESTS_BARE_MODEL_H

#include "model/model.h"

#include <stdlib.h>

struct bare {
    uint32_t n_layer, n_embd, n_head, n_head_kv, head_dim, n_ff, n_vocab, n_ctx;
    enum tensor_type type;
};

enum { BARE_TENSORS = 1 << 13, BARE_LAYERS = 1024, BARE_MODELS = 64 };

/* Never given back: tests make a few. */
static struct {
    struct tensor tensor[BARE_TENSORS];
    struct layer_tensors layer[BARE_LAYERS];
    struct model model[BARE_MODELS];
    unsigned n, n_layer, n_model;
} bare_room;

static inline const struct tensor *bare_tensor(struct model *m, enum tensor_type type,
                                               uint64_t cols, uint64_t rows) {
    struct tensor *t = bare_room.tensor + bare_room.n++;
    const struct tensor_format *f = tensor_format(type);
    if (bare_room.n > BARE_TENSORS) abort();
    *t = (struct tensor){.name = "bare", .type = type, .n_dim = rows > 1 ? 2 : 1};
    t->dim[0] = cols;
    t->dim[1] = rows;
    t->dim[2] = t->dim[3] = 1;
    t->len = (cols + f->block - 1) / f->block * f->bytes * rows;
    t->off = m->data_len;
    m->data_len += t->len;
    m->n_tensor++;
    return t;
}

static inline struct model *bare_model(const struct bare *b) {
    struct model *m = &bare_room.model[bare_room.n_model++];
    struct layer_tensors *l = &bare_room.layer[bare_room.n_layer];
    bare_room.n_layer += b->n_layer;
    if (bare_room.n_model > BARE_MODELS || bare_room.n_layer > BARE_LAYERS) abort();
    m->n_layer = b->n_layer;
    m->n_embd = b->n_embd;
    m->n_head = b->n_head;
    m->n_head_kv = b->n_head_kv;
    m->head_dim = m->n_rot = b->head_dim;
    m->n_ff = b->n_ff;
    m->n_vocab = b->n_vocab;
    m->n_ctx = b->n_ctx;
    m->layer = l;
    m->token_embd = m->output = bare_tensor(m, b->type, b->n_embd, b->n_vocab);
    m->output_norm = bare_tensor(m, TENSOR_F32, b->n_embd, 1);
    uint64_t q = (uint64_t)b->n_head * b->head_dim, kv = (uint64_t)b->n_head_kv * b->head_dim;
    for (uint32_t i = 0; i < b->n_layer; i++) {
        l[i].attn_norm = bare_tensor(m, TENSOR_F32, b->n_embd, 1);
        l[i].q = bare_tensor(m, b->type, b->n_embd, q);
        l[i].k = bare_tensor(m, b->type, b->n_embd, kv);
        l[i].v = bare_tensor(m, b->type, b->n_embd, kv);
        l[i].o = bare_tensor(m, b->type, q, b->n_embd);
        l[i].ffn_norm = bare_tensor(m, TENSOR_F32, b->n_embd, 1);
        l[i].gate = bare_tensor(m, b->type, b->n_embd, b->n_ff);
        l[i].up = bare_tensor(m, b->type, b->n_embd, b->n_ff);
        l[i].down = bare_tensor(m, b->type, b->n_ff, b->n_embd);
    }
    return m;
}

#endif
