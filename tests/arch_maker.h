/* arch_maker.h - small models of any architecture with seeded weights, as GGUF files in memory, whose
 * weights a test can compute for itself. */
#ifndef TESTS_ARCH_MAKER_H
#define TESTS_ARCH_MAKER_H

#include "gguf_maker.h"
#include "quants.h"

#include <math.h>

enum { MADE_TENSORS = 160, MADE_VOCAB = 48, MADE_LAYERS = 3 };

/* What is made, in the terms of the published models; zero: without. */
struct made {
    const char *what, *arch;
    uint32_t d, n_head, n_kv, hd, n_rot, n_ff, n_ff_shared, n_expert, n_used;
    uint32_t window, period;
    double base, local_base;
    const char *scaling;
    double factor, attn_factor, softcap, final_cap, embd_scale;
    uint32_t n_ctx_orig;
    bool halves, qkv_bias, all_bias, qk_norm, post_norms, sinks, fused, layer_norm, parallel;
    bool route_all, ffn_bias;
    bool zero_factors;  // LongRoPE's
    bool mixed;         // layer 1 has floats where others have another type
    enum { MADE_SILU, MADE_GELU, MADE_OAI } gate;
    bool ungated;
    /* filled in by the maker */
    uint32_t n_tensor;
    struct made_tensor {
        char name[64];
        uint64_t cols, rows, deep, off;
        uint32_t type;
        bool is_zero;
    } tensor[MADE_TENSORS];
};

static inline uint64_t made_mix(uint64_t z) {  // SplitMix64's finaliser (Steele, Lea, Flood 2014)
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9U;
    z = (z ^ z >> 27) * 0x94d049bb133111ebU;
    return z ^ z >> 31;
}

/* Value i of a float tensor: norms around 1, biases and sinks in +-0.5, RoPE's divisors in 1 to 3, and
 * matrices so that what they make is about as large as what they read. */
static inline float made_value(const struct made_tensor *t, uint64_t i) {
    uint64_t key = 1;
    if (t->is_zero) return 0;
    for (const char *c = t->name; c && *c; c++) key = key * 31 + (uint8_t)*c;
    float r = (float)((double)(made_mix(made_mix(key) + i) >> 40) / (1 << 23) - 1);
    if (strstr(t->name, "rope_factors")) return 2 + r;
    if (strstr(t->name, "norm.weight")) return 1 + 0.3F * r;
    if (strstr(t->name, ".bias") || strstr(t->name, "sinks")) return 0.5F * r;
    return 2 * r / sqrtf((float)t->cols);
}

static inline void made_add(struct made *m, uint32_t type, uint64_t cols, uint64_t rows,
                            uint64_t deep, int layer, const char *name) {
    struct made_tensor *t = &m->tensor[m->n_tensor++];
    if (m->n_tensor > MADE_TENSORS) abort();
    *t =
        (struct made_tensor){.cols = cols, .rows = rows, .deep = deep, .type = rows ? type : W_F32};
    bool may_differ = strstr(name, "attn_output") || strstr(name, "exps") || strstr(name, "down");
    t->is_zero = m->zero_factors && strstr(name, "rope_factors");
    if (strstr(name, ".bias") || (m->mixed && layer == 1 && may_differ)) t->type = W_F32;
    if (layer < 0)
        snprintf(t->name, sizeof t->name, "%s", name);
    else
        snprintf(t->name, sizeof t->name, "blk.%d.%s", layer, name);
}

static inline void made_ffn(struct made *m, uint32_t type, int i) {
    uint32_t d = m->d, ff = m->n_ff, n = m->n_expert, sh = m->n_ff_shared;
    if (!n) {
        if (!m->ungated && !m->fused) made_add(m, type, d, ff, 0, i, "ffn_gate.weight");
        made_add(m, type, d, m->fused && !m->ungated ? 2 * ff : ff, 0, i, "ffn_up.weight");
        made_add(m, type, ff, d, 0, i, "ffn_down.weight");
        if (m->ffn_bias) made_add(m, W_F32, ff, 0, 0, i, "ffn_gate.bias");
        if (m->ffn_bias || m->all_bias) made_add(m, W_F32, ff, 0, 0, i, "ffn_up.bias");
        if (m->ffn_bias || m->all_bias) made_add(m, W_F32, d, 0, 0, i, "ffn_down.bias");
        return;
    }
    made_add(m, W_F32, d, n, 0, i, "ffn_gate_inp.weight");
    made_add(m, type, d, ff, n, i, "ffn_gate_exps.weight");
    made_add(m, type, d, ff, n, i, "ffn_up_exps.weight");
    made_add(m, type, ff, d, n, i, "ffn_down_exps.weight");
    if (m->all_bias) {
        made_add(m, W_F32, n, 0, 0, i, "ffn_gate_inp.bias");
        made_add(m, W_F32, ff, n, 0, i, "ffn_gate_exps.bias");
        made_add(m, W_F32, ff, n, 0, i, "ffn_up_exps.bias");
        made_add(m, W_F32, d, n, 0, i, "ffn_down_exps.bias");
    }
    if (!sh) return;
    made_add(m, W_F32, d, 0, 0, i, "ffn_gate_inp_shexp.weight");
    made_add(m, type, d, sh, 0, i, "ffn_gate_shexp.weight");
    made_add(m, type, d, sh, 0, i, "ffn_up_shexp.weight");
    made_add(m, type, sh, d, 0, i, "ffn_down_shexp.weight");
}

static inline void made_layer(struct made *m, uint32_t type, int i) {
    uint32_t d = m->d, q = m->n_head * m->hd, kv = m->n_kv * m->hd;
    bool is_oss = m->sinks;
    made_add(m, W_F32, d, 0, 0, i, "attn_norm.weight");
    if (m->layer_norm) made_add(m, W_F32, d, 0, 0, i, "attn_norm.bias");
    if (!m->parallel)
        made_add(m, W_F32, d, 0, 0, i, is_oss ? "post_attention_norm.weight" : "ffn_norm.weight");
    if (m->fused) made_add(m, type, d, q + 2 * kv, 0, i, "attn_qkv.weight");
    if (m->fused && m->qkv_bias) made_add(m, W_F32, q + 2 * kv, 0, 0, i, "attn_qkv.bias");
    for (int k = 0; k < 3 && !m->fused; k++) {
        static const char *const w[] = {"attn_q.weight", "attn_k.weight", "attn_v.weight"};
        static const char *const b[] = {"attn_q.bias", "attn_k.bias", "attn_v.bias"};
        made_add(m, type, d, k ? kv : q, 0, i, w[k]);
        if (m->qkv_bias) made_add(m, W_F32, k ? kv : q, 0, 0, i, b[k]);
    }
    if (m->qk_norm) made_add(m, W_F32, m->hd, 0, 0, i, "attn_q_norm.weight");
    if (m->qk_norm) made_add(m, W_F32, m->hd, 0, 0, i, "attn_k_norm.weight");
    if (m->sinks) made_add(m, W_F32, m->n_head, 0, 0, i, "attn_sinks.weight");
    made_add(m, type, q, d, 0, i, "attn_output.weight");
    if (m->all_bias) made_add(m, W_F32, d, 0, 0, i, "attn_output.bias");
    if (m->post_norms) made_add(m, W_F32, d, 0, 0, i, "post_attention_norm.weight");
    if (m->post_norms) made_add(m, W_F32, d, 0, 0, i, "post_ffw_norm.weight");
    made_ffn(m, type, i);
}

struct made_keys {
    struct blob b;
    const char *arch;
    uint32_t n;
};

static inline const char *made_key(struct made_keys *k, const char *suffix) {
    static char key[96];
    snprintf(key, sizeof key, "%s.%s", k->arch, suffix);
    k->n++;
    return key;
}

static inline void made_u32(struct made_keys *k, const char *suffix, uint32_t v) {
    if (v) kv_u32(&k->b, made_key(k, suffix), v);
}

static inline void made_f32(struct made_keys *k, const char *suffix, double v) {
    if (v != 0) kv_f32(&k->b, made_key(k, suffix), (float)v);
}

static inline void made_put_keys(struct made_keys *k, const struct made *m) {
    kv_str(&k->b, "general.architecture", m->arch);
    k->n++;
    made_u32(k, "block_count", MADE_LAYERS);
    made_u32(k, "context_length", 64);
    made_u32(k, "embedding_length", m->d);
    made_u32(k, "feed_forward_length", m->n_ff);
    made_u32(k, "attention.head_count", m->n_head);
    made_u32(k, "attention.head_count_kv", m->n_kv);
    made_u32(k, "attention.key_length", m->hd);
    made_u32(k, "attention.value_length", m->hd);
    made_u32(k, "rope.dimension_count", m->n_rot);
    made_u32(k, "expert_count", m->n_expert);
    made_u32(k, "expert_used_count", m->n_used);
    if (m->n_expert) made_u32(k, "expert_feed_forward_length", m->n_ff);
    made_u32(k, "expert_shared_feed_forward_length", m->n_ff_shared);
    made_u32(k, "attention.sliding_window", m->window);
    if (m->period > 2) made_u32(k, "attention.sliding_window_pattern", m->period);
    made_u32(k, "rope.scaling.original_context_length", m->n_ctx_orig);
    made_f32(k, "rope.freq_base", m->base);
    made_f32(k, "rope.scaling.factor", m->factor);
    made_f32(k, "rope.scaling.attn_factor", m->attn_factor);
    made_f32(k, "attn_logit_softcapping", m->softcap);
    made_f32(k, "final_logit_softcapping", m->final_cap);
    made_f32(k, m->layer_norm ? "attention.layer_norm_epsilon" : "attention.layer_norm_rms_epsilon",
             1e-5);
    if (m->scaling) kv_str(&k->b, made_key(k, "rope.scaling.type"), m->scaling);
    kv_str(&k->b, "tokenizer.ggml.model", "llama");
    kv_array(&k->b, "tokenizer.ggml.tokens", 8, MADE_VOCAB);
    k->n += 2;
    for (int i = 0; i < MADE_VOCAB; i++) {
        char text[16];
        snprintf(text, sizeof text, "t%d", i);
        blob_text(&k->b, text);
    }
}

static inline void made_data(struct blob *b, const struct made_tensor *t) {
    uint64_t n = t->cols * (t->rows ? t->rows : 1) * (t->deep ? t->deep : 1);
    for (uint64_t i = 0; i < n; i++) {
        float f = made_value(t, i);
        uint32_t bits;
        memcpy(&bits, &f, 4);
        if (t->type == W_F32) blob_int(b, bits, 4);
        if (t->type == W_Q8_0 && i % 32 == 0) blob_int(b, 0x1000, 2);  // 2^-11
        if (t->type == W_Q8_0) blob_int(b, (uint64_t)(int64_t)lrintf(f * 1000) & 255, 1);
    }
    while (b->n % 32) blob_int(b, 0, 1);
}

/* The file; matrices are of `type`, but routers are floats. */
static inline struct blob made_build(struct made *m, uint32_t type) {
    struct made_keys k = {.arch = m->arch};
    struct blob file = {0}, data = {0};
    m->n_tensor = 0;
    made_add(m, type, m->d, MADE_VOCAB, 0, -1, "token_embd.weight");
    made_add(m, W_F32, m->d, 0, 0, -1, "output_norm.weight");
    if (m->layer_norm) made_add(m, W_F32, m->d, 0, 0, -1, "output_norm.bias");
    if (m->layer_norm || m->mixed) made_add(m, W_F32, MADE_VOCAB, 0, 0, -1, "output.bias");
    if (m->scaling && !strcmp(m->scaling, "longrope")) {
        made_add(m, W_F32, m->n_rot / 2, 0, 0, -1, "rope_factors_long.weight");
        made_add(m, W_F32, m->n_rot / 2, 0, 0, -1, "rope_factors_short.weight");
    }
    for (int i = 0; i < MADE_LAYERS; i++) made_layer(m, type, i);
    made_put_keys(&k, m);
    blob_put(&file, "GGUF", 4);
    blob_int(&file, 3, 4);
    blob_int(&file, m->n_tensor, 8);
    blob_int(&file, k.n, 8);
    blob_put(&file, k.b.p, k.b.n);
    for (uint32_t i = 0; i < m->n_tensor; i++) {
        struct made_tensor *t = &m->tensor[i];
        uint64_t dim[3] = {t->cols, t->rows, t->deep};
        uint32_t n_dim = t->deep ? 3 : t->rows ? 2 : 1;
        blob_text(&file, t->name);
        blob_int(&file, n_dim, 4);
        for (uint32_t j = 0; j < n_dim; j++) blob_int(&file, dim[j], 8);
        blob_int(&file, t->type, 4);
        blob_int(&file, data.n, 8);
        made_data(&data, t);
    }
    while (file.n % 32) blob_int(&file, 0, 1);
    blob_put(&file, data.p, data.n);
    free(data.p), free(k.b.p);
    return file;
}

#endif
