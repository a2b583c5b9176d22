/* From a container to a model: what the keys mean, and whether the tensors fit them. */
#include "model/model.h"
#include "model/arch.h"
#include "model/dllama.h"
#include "model/fingerprint.h"
#include "model/gguf.h"

#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    ARCH_NAME_MAX = 48,
    LAYER_TENSORS = 6,   // the least that a layer has
    AROUND_EXPERTS = 5,  // and besides its experts' matrices
};

_Static_assert(sizeof(struct layer_tensors) + N_EXPERT_PART * sizeof(void *) <=
                   LAYER_TENSORS * (GGUF_TENSOR_ROOM - 1),
               "a layer's entry fits what is kept free for its tensors");

struct reader {
    struct model *m;
    struct gguf g;
    const struct arch *arch;         // llama's where it is not known
    bool is_dllama;                  // which reads the vocabulary with the keys
    uint8_t *known;                  // [n_tensor] whether the architecture asked for it
    uint8_t local[MODEL_MAX_LAYER];  // which layers see a window only
    char key[96];                    // "llama.block_count"
};

static const char *arch_key(struct reader *r, const char *suffix) {
    snprintf(r->key, sizeof r->key, "%.*s.%s", ARCH_NAME_MAX, r->m->arch_name, suffix);
    return r->key;
}

/* An integer that some writers give once and some for each layer; then all must be equal. */
static MUST per_layer(struct reader *r, const char *suffix, uint32_t max, uint32_t *v,
                      struct err *e) {
    const char *key = arch_key(r, suffix);
    const struct gguf_kv *kv = gguf_find(&r->g, key);
    if (!kv || kv->type != GGUF_ARRAY) return gguf_u32(&r->g, key, max, v, e);
    if (!gguf_array(&r->g, key, kv->elem == GGUF_U32 ? GGUF_U32 : GGUF_I32, &kv, e)) return false;
    if (kv->n != r->m->n_layer || !kv->n) {
        return err_set(e, ERR_FORMAT, "key %s has %" PRIu64 " items for %" PRIu32 " layers", key,
                       kv->n, r->m->n_layer);
    }
    uint32_t first = cursor_u32(&r->g.c);
    for (uint64_t i = 1; i < kv->n; i++) {
        uint32_t next = cursor_u32(&r->g.c);
        if (next == first || r->g.c.failed) continue;
        return err_set(e, ERR_UNSUPPORTED,
                       "key %s is %" PRIu32 " in layer 0 and %" PRIu32 " in layer "
                       "%" PRIu64 "; layers of different shapes are not supported",
                       key, first, next, i);
    }
    if (r->g.c.failed) return cursor_err(&r->g.c, key, e);
    if (first > max) {
        return err_set(e, ERR_LIMIT, "key %s is %" PRIu32 " (at most %" PRIu32 ")", key, first,
                       max);
    }
    *v = first;
    return true;
}

static const char *eps_key(const struct reader *r) {
    return r->arch->traits.norm == NORM_LAYER ? "attention.layer_norm_epsilon"
                                              : "attention.layer_norm_rms_epsilon";
}

/* The integers of the shape as the file gives them; 0 where it does not. */
static MUST read_shape(struct reader *r, struct err *e) {
    struct model *m = r->m;
    const struct gguf *g = &r->g;
    double eps = 0;
    if (!gguf_u32(g, arch_key(r, "block_count"), MODEL_MAX_LAYER, &m->n_layer, e) ||
        !gguf_u32(g, arch_key(r, "embedding_length"), MODEL_MAX_EMBD, &m->n_embd, e) ||
        !gguf_u32(g, arch_key(r, "context_length"), MODEL_MAX_CTX, &m->n_ctx, e) ||
        !gguf_u32(g, arch_key(r, "vocab_size"), MODEL_MAX_VOCAB, &m->n_vocab, e) ||
        !per_layer(r, "feed_forward_length", MODEL_MAX_EMBD, &m->n_ff, e) ||
        !per_layer(r, "attention.head_count", MODEL_MAX_HEAD, &m->n_head, e)) {
        return false;
    }
    m->n_head_kv = m->n_head;
    if (!per_layer(r, "attention.head_count_kv", MODEL_MAX_HEAD, &m->n_head_kv, e)) return false;
    m->head_dim = m->n_head ? m->n_embd / m->n_head : 0;
    if (!gguf_u32(g, arch_key(r, "attention.key_length"), MODEL_MAX_EMBD, &m->head_dim, e)) {
        return false;
    }
    m->n_rot = m->head_dim;
    m->rope_base = 10000;
    if (!gguf_u32(g, arch_key(r, "rope.dimension_count"), MODEL_MAX_EMBD, &m->n_rot, e) ||
        !gguf_f64(g, arch_key(r, "rope.freq_base"), &m->rope_base, e) ||
        !gguf_f64(g, arch_key(r, eps_key(r)), &eps, e)) {
        return false;
    }
    m->norm_eps = (float)eps;
    return true;
}

/* Experts are chosen by the router's softmax and weighted by it. Keys that ask for another way are
 * refused by name. */
static MUST check_routing(struct reader *r, struct err *e) {
    static const struct {
        const char *suffix;
        uint32_t most;
    } plain[] = {{"expert_gating_func", 1},  // 0: not said, 1: softmax
                 {"expert_group_count", 1},
                 {"expert_shared_count", 0}};  // but where the architecture has one
    double scale = 0;
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++) {
        uint32_t v = 0, more = r->arch->flags & ARCH_SHARED && i == 2;
        const char *key = arch_key(r, plain[i].suffix);
        if (!gguf_u32(&r->g, key, UINT32_MAX, &v, e)) return false;
        if (v <= plain[i].most + more) continue;
        return err_set(e, ERR_UNSUPPORTED,
                       "key %s is %" PRIu32 "; this version routes to experts by softmax only, "
                       "without groups and, in architecture %s, %s shared",
                       key, v, r->arch->name, more ? "one" : "none");
    }
    const char *key = arch_key(r, "expert_weights_scale");
    if (!gguf_f64(&r->g, key, &scale, e)) return false;
    if (scale == 0 || scale == 1) return true;
    return err_set(e, ERR_UNSUPPORTED, "key %s is %g; this version has no scale for experts", key,
                   scale);
}

static MUST read_experts(struct reader *r, struct err *e) {
    struct model *m = r->m;
    if (!gguf_u32(&r->g, arch_key(r, "expert_count"), MODEL_MAX_EXPERT, &m->n_expert, e) ||
        !gguf_u32(&r->g, arch_key(r, "expert_used_count"), UINT32_MAX, &m->n_used, e)) {
        return false;
    }
    uint32_t dense = m->n_ff;
    if (r->arch->flags & ARCH_EXPERTS) {
        if (dense && m->n_used) m->n_ff = dense / m->n_used;  // where the file says nothing else
        if (!gguf_u32(&r->g, arch_key(r, "expert_feed_forward_length"), MODEL_MAX_EMBD, &m->n_ff,
                      e)) {
            return false;
        }
    }
    if (r->arch->flags & ARCH_SHARED) {
        m->n_ff_shared = dense;
        if (!gguf_u32(&r->g, arch_key(r, "expert_shared_feed_forward_length"), MODEL_MAX_EMBD,
                      &m->n_ff_shared, e)) {
            return false;
        }
    }
    if (m->n_used > m->n_expert) {
        return err_set(e, ERR_FORMAT, "%" PRIu32 " experts of %" PRIu32 " are to be used",
                       m->n_used, m->n_expert);
    }
    if (m->n_used > MODEL_MAX_USED) {
        return err_set(e, ERR_LIMIT, "%" PRIu32 " experts are to be used for a token (at most %d)",
                       m->n_used, MODEL_MAX_USED);
    }
    return true;
}

static MUST required(struct reader *r, const char *suffix, uint32_t value, struct err *e) {
    if (value) return true;
    const char *key = arch_key(r, suffix);
    return err_set(e, ERR_FORMAT, "key %s is %s", key, gguf_find(&r->g, key) ? "0" : "missing");
}

static MUST check_heads(struct reader *r, struct err *e) {
    struct model *m = r->m;
    uint32_t v_dim = m->n_embd / m->n_head;
    if (m->n_head % m->n_head_kv) {
        return err_set(e, ERR_FORMAT, "%" PRIu32 " heads cannot share %" PRIu32 " key-value heads",
                       m->n_head, m->n_head_kv);
    }
    if (!gguf_find(&r->g, arch_key(r, "attention.key_length")) && m->n_embd % m->n_head) {
        return err_set(e, ERR_FORMAT,
                       "embedding length %" PRIu32 " is no multiple of %" PRIu32 " heads",
                       m->n_embd, m->n_head);
    }
    if (!gguf_u32(&r->g, arch_key(r, "attention.value_length"), MODEL_MAX_EMBD, &v_dim, e)) {
        return false;
    }
    if (v_dim != m->head_dim) {
        return err_set(e, ERR_UNSUPPORTED,
                       "keys have %" PRIu32 " values a head and values %" PRIu32
                       "; they must be equal",
                       m->head_dim, v_dim);
    }
    if (m->head_dim > MODEL_MAX_HEAD_DIM) {
        return err_set(e, ERR_UNSUPPORTED,
                       "attention heads of %" PRIu32 " values; this version runs up to %d",
                       m->head_dim, MODEL_MAX_HEAD_DIM);
    }
    if ((uint64_t)m->n_head * m->head_dim > MODEL_MAX_EMBD) {
        return err_set(e, ERR_LIMIT, "%" PRIu32 " heads of %" PRIu32 " values (at most %d in all)",
                       m->n_head, m->head_dim, MODEL_MAX_EMBD);
    }
    if (m->n_rot % 2 || m->n_rot > m->head_dim || !m->n_rot) {
        return err_set(e, ERR_FORMAT,
                       "rope.dimension_count is %" PRIu32 " for heads of %" PRIu32
                       "; it must be even and no larger",
                       m->n_rot, m->head_dim);
    }
    return true;
}

static MUST check_experts(struct reader *r, struct err *e) {
    struct model *m = r->m;
    unsigned flags = r->arch->flags;
    if (flags & ARCH_EXPERTS && !required(r, "expert_count", m->n_expert, e)) return false;
    if (flags & ARCH_SHARED &&
        !required(r, "expert_shared_feed_forward_length", m->n_ff_shared, e)) {
        return false;
    }
    if (!m->n_expert) return true;
    if (!(flags & (ARCH_EXPERTS | ARCH_MAY_EXPERTS))) {
        return err_set(e, ERR_UNSUPPORTED, "architecture %s with %" PRIu32 " experts",
                       r->arch->name, m->n_expert);
    }
    return required(r, "expert_used_count", m->n_used, e) && check_routing(r, e);
}

static MUST check_shape(struct reader *r, struct err *e) {
    struct model *m = r->m;
    if (!required(r, "block_count", m->n_layer, e) ||
        !required(r, "embedding_length", m->n_embd, e) ||
        !required(r, "feed_forward_length", m->n_ff, e) ||
        !required(r, "attention.head_count", m->n_head, e) ||
        !required(r, "attention.head_count_kv", m->n_head_kv, e) ||
        !required(r, "attention.key_length", m->head_dim, e) ||
        !required(r, "context_length", m->n_ctx, e) || !check_heads(r, e)) {
        return false;
    }
    if (!check_experts(r, e)) return false;
    const char *key = arch_key(r, eps_key(r));
    if (!gguf_find(&r->g, key)) return err_set(e, ERR_FORMAT, "key %s is missing", key);
    if (!(m->norm_eps > 0 && m->norm_eps <= 1)) {
        return err_set(e, ERR_FORMAT, "key %s is %g", key, (double)m->norm_eps);
    }
    if (!isfinite(m->rope_base) || m->rope_base < 1) {
        return err_set(e, ERR_FORMAT, "key %s is %g", arch_key(r, "rope.freq_base"), m->rope_base);
    }
    return true;
}

/* What a tensor must be: rows 0: a vector, which must be F32; deep > 1: a matrix for each expert. */
struct want {
    uint64_t cols, rows, deep;
};

static MUST wrong_shape(const struct tensor *t, const struct want *w, struct err *e) {
    char is[96] = "", want[72];
    int at = snprintf(want, sizeof want, "%" PRIu64, w->cols);
    if (w->rows) at += snprintf(want + at, sizeof want - (size_t)at, ", %" PRIu64, w->rows);
    if (w->deep > 1) snprintf(want + at, sizeof want - (size_t)at, ", %" PRIu64, w->deep);
    for (uint32_t k = 0; k < t->n_dim; k++) {
        size_t end = strlen(is);
        snprintf(is + end, sizeof is - end, "%s%" PRIu64, k ? ", " : "", t->dim[k]);
    }
    return err_set(e, ERR_FORMAT, "tensor %s is [%s], but the model's shape wants [%s]", t->name,
                   is, want);
}

/* The tensor `name` if it is there, of the shape it must have. */
static MUST take(struct reader *r, const char *name, struct want w, const struct tensor **out,
                 struct err *e) {
    const struct tensor *t = *out = gguf_tensor(&r->g, name);
    if (!t) return true;
    r->known[t - r->g.tensor] = 1;
    if (t->dim[0] != w.cols || t->dim[1] != (w.rows ? w.rows : 1) ||
        t->dim[2] != (w.deep ? w.deep : 1) || t->dim[3] != 1) {
        return wrong_shape(t, &w, e);
    }
    size_t len = strlen(name);
    bool is_bias = len > 5 && !strcmp(name + len - 5, ".bias");
    if ((!w.rows || is_bias) && t->type != TENSOR_F32) {
        return err_set(e, ERR_UNSUPPORTED, "tensor %s is %s; vectors must be F32", name,
                       tensor_format(t->type)->name);
    }
    return true;
}

static MUST need(struct reader *r, const char *name, struct want w, const struct tensor **out,
                 struct err *e) {
    if (!take(r, name, w, out, e)) return false;
    return *out || err_set(e, ERR_FORMAT, "tensor %s is missing", name);
}

struct layer_want {
    const char *name;
    struct want want;
    const struct tensor **out;
    bool is_bias, is_optional;
};

static MUST need_all(struct reader *r, uint32_t layer, const struct layer_want *w, size_t n,
                     struct err *e) {
    for (size_t k = 0; k < n; k++) {
        char name[64];
        snprintf(name, sizeof name, "blk.%" PRIu32 ".%s.%s", layer, w[k].name,
                 w[k].is_bias ? "bias" : "weight");
        bool ok = w[k].is_optional ? take(r, name, w[k].want, w[k].out, e)
                                   : need(r, name, w[k].want, w[k].out, e);
        if (!ok) return false;
    }
    return true;
}

static bool layer_has(struct reader *r, uint32_t layer, const char *what) {
    char name[64];
    snprintf(name, sizeof name, "blk.%" PRIu32 ".%s.weight", layer, what);
    return gguf_tensor(&r->g, name) != NULL;
}

/* Queries, keys and values: three tensors, or the rows of one. */
static MUST read_qkv(struct reader *r, uint32_t i, struct layer_tensors *l, struct err *e) {
    const struct model *m = r->m;
    uint64_t d = m->n_embd, q = (uint64_t)m->n_head * m->head_dim;
    uint64_t kv = (uint64_t)m->n_head_kv * m->head_dim;
    bool may = !(r->arch->flags & ARCH_QKV_BIAS);
    const struct layer_want apart[] = {
        {"attn_q", {d, q, 1}, &l->q, false, false},
        {"attn_k", {d, kv, 1}, &l->k, false, false},
        {"attn_v", {d, kv, 1}, &l->v, false, false},
        {"attn_q", {q, 0, 1}, &l->q_bias, true, may},
        {"attn_k", {kv, 0, 1}, &l->k_bias, true, may},
        {"attn_v", {kv, 0, 1}, &l->v_bias, true, may},
    };
    const struct layer_want one[] = {{"attn_qkv", {d, q + 2 * kv, 1}, &l->q, false, false},
                                     {"attn_qkv", {q + 2 * kv, 0, 1}, &l->q_bias, true, may}};
    if (!layer_has(r, i, "attn_qkv")) {
        return need_all(r, i, apart, sizeof apart / sizeof *apart, e);
    }
    if (!need_all(r, i, one, sizeof one / sizeof *one, e)) return false;
    l->k = l->v = l->q;
    l->k_bias = l->v_bias = l->q_bias;
    l->k_row = (uint32_t)q;
    l->v_row = (uint32_t)(q + kv);
    return true;
}

static MUST read_norms(struct reader *r, uint32_t i, struct layer_tensors *l, struct err *e) {
    const struct model *m = r->m;
    unsigned flags = r->arch->flags;
    const char *ffn = r->arch->ffn_norm ? r->arch->ffn_norm : "ffn_norm";
    const struct want row = {m->n_embd, 0, 1}, head = {m->head_dim, 0, 1};
    bool has_bias = m->traits.norm == NORM_LAYER, has_ffn = !m->traits.is_parallel;
    const struct layer_want want[] = {{"attn_norm", row, &l->attn_norm, false, false},
                                      {"attn_norm", row, &l->attn_norm_bias, true, false},
                                      {ffn, row, &l->ffn_norm, false, false},
                                      {ffn, row, &l->ffn_norm_bias, true, false}};
    const struct layer_want heads[] = {{"attn_q_norm", head, &l->q_norm, false, false},
                                       {"attn_k_norm", head, &l->k_norm, false, false}};
    const struct layer_want post[] = {{"post_attention_norm", row, &l->post_attn, false, false},
                                      {"post_ffw_norm", row, &l->post_ffn, false, false}};
    return need_all(r, i, want, has_bias ? 2 : 1, e) &&
           (!has_ffn || need_all(r, i, want + 2, has_bias ? 2 : 1, e)) &&
           (!(flags & ARCH_QK_NORM) || need_all(r, i, heads, 2, e)) &&
           (!(flags & ARCH_POST_NORMS) || need_all(r, i, post, 2, e));
}

static MUST read_attention(struct reader *r, uint32_t i, struct layer_tensors *l, struct err *e) {
    const struct model *m = r->m;
    uint64_t d = m->n_embd, q = (uint64_t)m->n_head * m->head_dim;
    unsigned flags = r->arch->flags;
    const struct layer_want want[] = {
        {"attn_output", {q, d, 1}, &l->o, false, false},
        {"attn_output", {d, 0, 1}, &l->o_bias, true, !(flags & ARCH_ALL_BIAS)},
        {"attn_sinks", {m->n_head, 0, 1}, &l->sinks, false, false},
    };
    l->is_local = r->local[i];
    return read_norms(r, i, l, e) && read_qkv(r, i, l, e) &&
           need_all(r, i, want, flags & ARCH_SINKS ? 3 : 2, e);
}

/* A tensor for each expert, as the first files had it. */
static MUST read_apart(struct reader *r, uint32_t i, const struct tensor *(*apart)[N_EXPERT_PART],
                       struct err *e) {
    const struct model *m = r->m;
    uint64_t d = m->n_embd, ff = m->n_ff;
    for (uint32_t x = 0; x < m->n_expert; x++) {
        char gate[32], up[32], down[32];
        snprintf(gate, sizeof gate, "ffn_gate.%" PRIu32, x);
        snprintf(up, sizeof up, "ffn_up.%" PRIu32, x);
        snprintf(down, sizeof down, "ffn_down.%" PRIu32, x);
        const struct layer_want want[] = {{gate, {d, ff, 1}, &apart[x][EXPERT_GATE], false, false},
                                          {up, {d, ff, 1}, &apart[x][EXPERT_UP], false, false},
                                          {down, {ff, d, 1}, &apart[x][EXPERT_DOWN], false, false}};
        if (!need_all(r, i, want, sizeof want / sizeof *want, e)) return false;
    }
    return true;
}

/* A feed-forward part without experts; without a gate, or with it before up in one tensor. */
static MUST read_dense(struct reader *r, uint32_t i, struct layer_tensors *l, struct err *e) {
    const struct model *m = r->m;
    uint64_t d = m->n_embd, ff = m->n_ff;
    bool is_one = r->arch->flags & ARCH_GATE_IN_UP;
    bool has_gate = !m->traits.is_ungated && !is_one;
    bool may = r->arch->flags & ARCH_MAY_FFN_BIAS, all = r->arch->flags & ARCH_ALL_BIAS;
    const struct layer_want want[] = {
        {"ffn_up", {d, is_one ? 2 * ff : ff, 1}, &l->up, false, false},
        {"ffn_down", {ff, d, 1}, &l->down, false, false},
        {"ffn_up", {ff, 0, 1}, &l->up_bias, true, may},
        {"ffn_down", {d, 0, 1}, &l->down_bias, true, may},
    };
    const struct layer_want gate[] = {{"ffn_gate", {d, ff, 1}, &l->gate, false, false},
                                      {"ffn_gate", {ff, 0, 1}, &l->gate_bias, true, may}};
    if (has_gate && !need_all(r, i, gate, may ? 2 : 1, e)) return false;
    if (!need_all(r, i, want, may || all ? 4 : 2, e)) return false;
    if (!is_one) return true;
    l->gate = l->up;
    l->up_row = (uint32_t)ff;
    return true;
}

/* An expert that all tokens go to, weighted by a router of one row. */
static MUST read_shared(struct reader *r, uint32_t i, struct layer_tensors *l, struct err *e) {
    const struct model *m = r->m;
    uint64_t d = m->n_embd, ff = m->n_ff_shared;
    const struct layer_want want[] = {
        {"ffn_gate_inp_shexp", {d, 0, 1}, &l->sh_router, false, false},
        {"ffn_gate_shexp", {d, ff, 1}, &l->sh_gate, false, false},
        {"ffn_up_shexp", {d, ff, 1}, &l->sh_up, false, false},
        {"ffn_down_shexp", {ff, d, 1}, &l->sh_down, false, false},
    };
    return !ff || need_all(r, i, want, sizeof want / sizeof *want, e);
}

/* apart: of this layer, when experts have tensors of their own; else NULL. */
static MUST read_ffn(struct reader *r, uint32_t i, struct layer_tensors *l,
                     const struct tensor *(*apart)[N_EXPERT_PART], struct err *e) {
    const struct model *m = r->m;
    uint64_t d = m->n_embd, ff = m->n_ff, n = m->n_expert;
    const struct layer_want experts[] = {
        {"ffn_gate_inp", {d, n, 1}, &l->router, false, false},
        {"ffn_gate_exps", {d, ff, n}, &l->gate, false, false},
        {"ffn_up_exps", {d, ff, n}, &l->up, false, false},
        {"ffn_down_exps", {ff, d, n}, &l->down, false, false},
    };
    const struct layer_want biases[] = {
        {"ffn_gate_inp", {n, 0, 1}, &l->router_bias, true, false},
        {"ffn_gate_exps", {ff, n, 1}, &l->gate_bias, true, false},
        {"ffn_up_exps", {ff, n, 1}, &l->up_bias, true, false},
        {"ffn_down_exps", {d, n, 1}, &l->down_bias, true, false},
    };
    if (!n) return read_dense(r, i, l, e);
    if (r->arch->flags & ARCH_ALL_BIAS && !need_all(r, i, biases, 4, e)) return false;
    if (!apart) return need_all(r, i, experts, 4, e) && read_shared(r, i, l, e);
    if (!need_all(r, i, experts, 1, e) || !read_apart(r, i, apart, e)) return false;
    l->gate = apart[0][EXPERT_GATE];
    l->up = apart[0][EXPERT_UP];
    l->down = apart[0][EXPERT_DOWN];
    l->apart = (const struct tensor *const(*)[N_EXPERT_PART])apart;
    return read_shared(r, i, l, e);
}

static MUST read_layers(struct reader *r, struct err *e) {
    struct model *m = r->m;
    struct layer_tensors *layer;
    const struct tensor *(*apart)[N_EXPERT_PART] = NULL;
    bool is_apart = m->n_expert && gguf_tensor(&r->g, "blk.0.ffn_gate.0.weight");
    uint64_t least = (uint64_t)m->n_layer *
                     (is_apart ? m->n_expert * N_EXPERT_PART + AROUND_EXPERTS : LAYER_TENSORS);
    if (least > r->g.n_tensor) {
        return err_set(e, ERR_FORMAT, "%" PRIu32 " layers cannot be made of %" PRIu32 " tensors",
                       m->n_layer, r->g.n_tensor);
    }
    size_t n_apart = is_apart ? (size_t)m->n_layer * m->n_expert : 0;
    if (!arena_array(&m->mem, &layer, m->n_layer, sizeof *layer, "layers", e)) return false;
    if (is_apart && !arena_array(&m->mem, &apart, n_apart, sizeof *apart, "experts", e)) {
        return false;
    }
    for (uint32_t i = 0; i < m->n_layer; i++) {
        layer[i] = (struct layer_tensors){0};
        if (!read_attention(r, i, &layer[i], e) ||
            !read_ffn(r, i, &layer[i], apart ? apart + (size_t)i * m->n_expert : NULL, e)) {
            return false;
        }
    }
    m->layer = layer;
    return true;
}

/* A weight that we would leave out makes another model of it: better none than a wrong one. */
static MUST check_known(const struct reader *r, struct err *e) {
    char shown[64];
    for (uint32_t i = 0; i < r->g.n_tensor; i++) {
        if (r->known[i]) continue;
        const char *name = gguf_show(shown, r->g.tensor[i].name);
        return err_set(e, ERR_UNSUPPORTED,
                       "tensor %s is not one that this version knows in a model "
                       "of architecture %s",
                       name, r->arch->name);
    }
    return true;
}

static MUST read_tensors(struct reader *r, struct err *e) {
    struct model *m = r->m;
    if (!arena_array(&m->mem, &r->known, r->g.n_tensor, 1, "tensors", e)) return false;
    const struct tensor *t = gguf_tensor(&r->g, "token_embd.weight");
    uint64_t rows = t ? t->dim[1] : 1;
    if (rows > MODEL_MAX_VOCAB) {
        return err_set(e, ERR_LIMIT, "tensor token_embd.weight has %" PRIu64 " rows (at most %d)",
                       rows, MODEL_MAX_VOCAB);
    }
    const struct want table = {m->n_embd, rows, 1}, norm = {m->n_embd, 0, 1};
    const struct want freqs = {m->n_rot / 2, 0, 1}, bias = {rows, 0, 1};
    bool has_bias = m->traits.norm == NORM_LAYER;
    if (!need(r, "token_embd.weight", table, &m->token_embd, e) ||
        !need(r, "output_norm.weight", norm, &m->output_norm, e) ||
        (has_bias && !need(r, "output_norm.bias", norm, &m->output_norm_bias, e)) ||
        !take(r, "output.weight", table, &m->output, e) ||
        !take(r, "output.bias", bias, &m->output_bias, e) ||
        !take(r, "rope_freqs.weight", freqs, &m->rope_freqs, e) ||
        !take(r, "rope_factors_long.weight", freqs, &m->rope_long, e) ||
        !take(r, "rope_factors_short.weight", freqs, &m->rope_short, e)) {
        return false;
    }
    if (!m->rope_long != !m->rope_short) {
        return err_set(e, ERR_FORMAT, "tensor rope_factors_%s.weight is missing",
                       m->rope_long ? "short" : "long");
    }
    if (!m->output) m->output = m->token_embd;
    m->n_vocab = (uint32_t)rows;
    return read_layers(r, e) && check_known(r, e);
}

static MUST read_arch(struct reader *r, struct err *e) {
    struct model *m = r->m;
    char shown[64], names[160];
    if (!gguf_find(&r->g, "general.architecture")) {
        return err_set(e, ERR_FORMAT, "key general.architecture is missing: not a language model?");
    }
    r->arch = arch_find(m->arch_name);
    if (!r->arch) {
        return err_set(e, ERR_UNSUPPORTED, "architecture \"%s\" (this version runs %s)",
                       gguf_show(shown, m->arch_name), arch_names(names));
    }
    return true;
}

static MUST read_vocab(struct reader *r, struct err *e) {
    return r->is_dllama || vocab_read(&r->m->vocab, &r->g, &r->m->mem, e);
}

/* Everything that running needs. */
static MUST read_all(struct reader *r, struct err *e) {
    struct model *m = r->m;
    if (!read_arch(r, e) || !read_shape(r, e) || !read_experts(r, e) || !check_shape(r, e) ||
        !arch_read(m, r->arch, &r->g, r->local, e) || !read_tensors(r, e) || !read_vocab(r, e)) {
        return false;
    }
    if (m->vocab.n_token == m->n_vocab) return true;
    return err_set(e, ERR_FORMAT,
                   "the vocabulary has %" PRIu32 " tokens, but token_embd.weight has %" PRIu32
                   " rows",
                   m->vocab.n_token, m->n_vocab);
}

static MUST read_directory(struct reader *r, struct err *e) {
    struct model *m = r->m;
    const struct gguf *g = &r->g;
    m->name = m->arch_name = m->chat_template = m->tool_template = "";
    m->container = r->is_dllama ? "distributed-llama" : "GGUF";
    m->version = g->version;
    m->n_tensor = g->n_tensor;
    m->tensor = g->tensor;
    m->n_kv = g->n_kv;
    m->kv = g->kv;
    for (uint32_t i = 0; i < g->n_tensor; i++) {  // no overflow: they lie apart in their files
        const struct tensor *t = &g->tensor[i];
        const struct tensor_format *f = tensor_format(t->type);
        m->n_param += t->len / f->bytes * f->block;
        m->data_len += t->len;
    }
    return gguf_str(g, "general.architecture", &m->arch_name, e) &&
           gguf_str(g, "general.name", &m->name, e) &&
           gguf_str(g, "tokenizer.chat_template", &m->chat_template, e) &&
           gguf_str(g, "tokenizer.chat_template.tool_use", &m->tool_template, e);
}

/* Shape and vocabulary as far as they go; what is wrong with them is for model_open to say. */
static void read_what_is_there(struct reader *r) {
    struct model *m = r->m;
    struct err ignored;
    r->arch = arch_find(m->arch_name);
    if (!r->arch) r->arch = arch_find("llama");
    if (strlen(m->arch_name) <= ARCH_NAME_MAX) {
        (void)!(read_shape(r, &ignored) && read_experts(r, &ignored));
    }
    (void)!read_vocab(r, &ignored);
    m->token_embd = gguf_tensor(&r->g, "token_embd.weight");
    m->output_norm = gguf_tensor(&r->g, "output_norm.weight");
    m->output = gguf_tensor(&r->g, "output.weight");
    m->rope_freqs = gguf_tensor(&r->g, "rope_freqs.weight");
    if (!m->output) m->output = m->token_embd;
    if (!m->n_vocab) m->n_vocab = m->vocab.n_token;
}

static MUST print_file(const struct model_file *f, uint8_t *window, uint64_t *out, struct err *e) {
    struct fingerprint_of of = {-1, f->base, f->len, f->meta_len, f->data_off - f->base};
    uint64_t len = f->len;
    bool ok =
        gguf_open_file(f->path, f->base, &len, &of.fd, e) && fingerprint_take(&of, window, out, e);
    if (of.fd >= 0) close(of.fd);
    return ok;
}

/* Of all files: one file's alone, or a hash over those of the set, or over the .m and its .t. */
static MUST take_fingerprint(struct model *m, uint8_t *window, struct err *e) {
    struct hash h;
    uint32_t n = m->n_file + (m->tokenizer != NULL);
    hash_init(&h, 2);
    for (uint32_t i = 0; i < n; i++) {
        const struct model_file *f = i < m->n_file ? &m->file[i] : m->tokenizer;
        if (!print_file(f, window, &m->fingerprint, e)) return i ? err_in_file(e, f->path) : false;
        hash_put(&h, &m->fingerprint, sizeof m->fingerprint);
    }
    if (n > 1) m->fingerprint = hash_end(&h);
    return true;
}

/* What is opened: a range of a file, and of a .m the .t, NULL: the one beside it. */
struct source {
    struct model_file file;
    const char *tokenizer;
    int fd;
};

static MUST read_container(struct reader *r, const struct source *s, uint8_t *window,
                           enum model_part part, struct err *e) {
    const struct model_file *f = &s->file;
    r->is_dllama = dllama_is(s->fd, f->base, f->len);
    if (r->is_dllama) return dllama_read(&r->g, r->m, f, s->tokenizer, s->fd, window, part, e);
    if (!gguf_read_set(&r->g, r->m, f, s->fd, window, part, e)) return false;
    return !s->tokenizer ||
           err_set(
               e, ERR_USAGE,
               "--tokenizer is for the .m files of distributed-llama; this GGUF file has its own");
}

static MUST read_part(struct model *m, const struct source *s, enum model_part part,
                      struct err *e) {
    struct reader r = {.m = m};
    uint8_t *window = malloc(CURSOR_WINDOW);
    if (!window) return err_set(e, ERR_MEMORY, "no memory to read the metadata");
    bool ok = read_container(&r, s, window, part, e) && read_directory(&r, e);
    if (ok && part == MODEL_ALL) ok = read_all(&r, e) && take_fingerprint(m, window, e);
    if (ok && part == MODEL_VOCAB) {
        ok = read_vocab(&r, e);
        m->n_vocab = m->vocab.n_token;
    }
    if (ok && part == MODEL_DIRECTORY) read_what_is_there(&r);
    /* The page cache counts against the cgroup, and nobody reads the metadata again. */
    (void)posix_fadvise(s->fd, (off_t)s->file.base, (off_t)(r.g.meta_len + CURSOR_WINDOW),
                        POSIX_FADV_DONTNEED);
    free(window);
    return ok;
}

static MUST open_source(struct model *m, struct source *s, enum model_part part, struct err *e) {
    *m = (struct model){0};
    s->fd = -1;
    bool ok = gguf_open_file(s->file.path, s->file.base, &s->file.len, &s->fd, e) &&
              read_part(m, s, part, e);
    if (s->fd >= 0) close(s->fd);
    if (ok) return true;
    model_close(m);
    return err_in_file(e, s->file.path);
}

MUST model_open_part(struct model *m, const char *path, uint64_t base, uint64_t len,
                     enum model_part part, struct err *e) {
    struct source s = {.file = {.path = path, .base = base, .len = len}};
    return open_source(m, &s, part, e);
}

MUST model_open_with(struct model *m, const char *path, const char *tokenizer, enum model_part part,
                     struct err *e) {
    struct source s = {.file = {.path = path}, .tokenizer = tokenizer};
    return open_source(m, &s, part, e);
}

MUST model_open(struct model *m, const char *path, uint64_t base, uint64_t len, struct err *e) {
    return model_open_part(m, path, base, len, MODEL_ALL, e);
}

uint64_t model_bytes(const struct model *m) {
    uint64_t sum = 0;
    for (uint32_t i = 0; i < m->n_file; i++) sum += m->file[i].len;
    return sum;
}

const struct model_file *model_main_file(const struct model *m) {
    const struct model_file *best = &m->file[0];
    for (uint32_t i = 1; i < m->n_file; i++) {
        if (m->file[i].data_len > best->data_len) best = &m->file[i];
    }
    return best;
}

void model_close(struct model *m) {
    arena_close(&m->mem);
    *m = (struct model){0};
}

const struct tensor *model_expert(const struct model *m, uint32_t layer, uint32_t expert,
                                  enum expert_part part, uint64_t *off) {
    const struct layer_tensors *l = &m->layer[layer];
    const struct tensor *of_all[N_EXPERT_PART] = {l->gate, l->up, l->down};
    const struct tensor *t = l->apart ? l->apart[expert][part] : of_all[part];
    *off = t->off + (l->apart ? 0 : t->len / m->n_expert * expert);
    return t;
}

bool model_meta(const struct model *m, uint32_t i, const char **key, const char **value) {
    if (i >= m->n_kv) return false;
    *key = m->kv[i].key;
    *value = m->kv[i].text;
    return true;
}
