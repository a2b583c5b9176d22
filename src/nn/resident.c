#include "nn/state.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

/* `count` floats from `first` on of each of n_part runs of `step` floats of a tensor, side by side. */
struct vector {
    float **at;
    const struct tensor *t;
    uint64_t first, step;
    uint32_t count, n_part;
};

enum { LINE = 16, VECTORS = sizeof(struct layer_vectors) / sizeof(float *) };

static size_t floats_of(const struct vector *v) {
    size_t n = (size_t)v->count * v->n_part;
    return (n + LINE - 1) / LINE * LINE;
}

/* Those of a layer that are there. */
static unsigned list(const struct nn *n, uint32_t layer, struct layer_vectors *v,
                     struct vector out[VECTORS]) {
    const struct model *m = n->conf.model;
    const struct layer_tensors *t = &m->layer[layer];
    const struct cuts *c = &n->conf.cuts;
    unsigned s = n->conf.self, found = 0;
    uint32_t hd = m->head_dim, kv0 = c->kv_head[s] * hd, parts = m->n_expert ? m->n_expert : 1;
    uint32_t d = m->n_embd, own = n->n_embd_own, ff = n->n_ff_own;
    const struct vector all[VECTORS] = {
        {&v->attn_norm, t->attn_norm, 0, 0, d, 1},
        {&v->attn_norm_bias, t->attn_norm_bias, 0, 0, d, 1},
        {&v->ffn_norm, t->ffn_norm, 0, 0, d, 1},
        {&v->ffn_norm_bias, t->ffn_norm_bias, 0, 0, d, 1},
        {&v->post_attn, t->post_attn, 0, 0, d, 1},
        {&v->post_ffn, t->post_ffn, 0, 0, d, 1},
        {&v->q_norm, t->q_norm, 0, 0, hd, 1},
        {&v->k_norm, t->k_norm, 0, 0, hd, 1},
        {&v->q_bias, t->q_bias, n->head0 * hd, 0, n->n_q * hd, 1},
        {&v->k_bias, t->k_bias, t->k_row + kv0, 0, n->n_kv * hd, 1},
        {&v->v_bias, t->v_bias, t->v_row + kv0, 0, n->n_kv * hd, 1},
        {&v->sinks, t->sinks, n->head0, 0, n->n_q, 1},
        {&v->o_bias, t->o_bias, c->embd[s], 0, own, 1},
        {&v->gate_bias, t->gate_bias, c->ff[s], m->n_ff, ff, parts},
        {&v->up_bias, t->up_bias, c->ff[s], m->n_ff, ff, parts},
        {&v->down_bias, t->down_bias, c->embd[s], d, own, parts},
        {&v->router_bias, t->router_bias, 0, 0, m->n_expert, 1},
    };
    for (unsigned i = 0; i < VECTORS; i++) {
        if (all[i].t) out[found++] = all[i];
    }
    return found;
}

size_t resident_floats(const struct nn *n) {
    struct layer_vectors none;
    struct vector v[VECTORS];
    size_t sum = 0;
    for (uint32_t i = 0; i < n->conf.model->n_layer; i++) {
        unsigned found = list(n, i, &none, v);
        for (unsigned k = 0; k < found; k++) sum += floats_of(&v[k]);
    }
    return sum;
}

/* Floats [first, first + count) of a tensor. */
static MUST read_floats(struct nn *n, float *at, const struct tensor *t, uint64_t first,
                        size_t count, struct err *e) {
    if (!nn_read(n, at, t, first * sizeof *at, count * sizeof *at, e)) return false;
    for (size_t i = 0; i < count; i++) {
        if (!isfinite(at[i])) {
            return err_set(e, ERR_FORMAT, "tensor %s holds a number that is not finite, %" PRIu64,
                           t->name, first + i);
        }
    }
    return true;
}

static MUST load_layer(struct nn *n, uint32_t layer, float **room, struct err *e) {
    struct vector v[VECTORS];
    n->vec[layer] = (struct layer_vectors){0};
    unsigned found = list(n, layer, &n->vec[layer], v);
    for (unsigned k = 0; k < found; k++) {
        float *at = *v[k].at = *room;
        *room += floats_of(&v[k]);
        /* Those without a gap between them, as of all experts of a whole layer, are one. */
        uint32_t n_whole = v[k].count == v[k].step ? v[k].n_part : 1;
        size_t count = (size_t)v[k].count * n_whole;
        for (uint32_t i = 0; i < v[k].n_part / n_whole && count; i++) {
            uint64_t first = v[k].first + i * v[k].step;
            if (!read_floats(n, at + i * count, v[k].t, first, count, e)) return false;
        }
    }
    return true;
}

/* --- RoPE --- */

uint32_t resident_tables(const struct model *m) {
    return m->rope_base_local > 0 ? 2 : 1;
}

/* Which tensor divides the frequencies: llama 3's, or of LongRoPE the one for this context. */
static const struct tensor *divisors(const struct nn *n) {
    const struct model *m = n->conf.model;
    if (m->rope_freqs || !m->rope_long) return m->rope_freqs;
    return n->conf.n_ctx > m->n_ctx_orig ? m->rope_long : m->rope_short;
}

/* freq_i = base^(-2i / n_rot), divided by the model's factors, then scaled. */
static MUST load_freqs(struct nn *n, struct err *e) {
    const struct model *m = n->conf.model;
    const struct tensor *by = divisors(n);
    uint32_t n_pair = m->n_rot / 2;
    rope_freqs(n->freq, m->rope_base, m->n_rot);
    if (m->rope_base_local > 0) rope_freqs(n->freq + n_pair, m->rope_base_local, m->n_rot);
    n->rope_length = (float)m->rope_attn_factor;
    if (by) {
        float *factor = n->angle_all;  // scratch of at least n_rot floats
        if (!nn_read(n, factor, by, 0, by->len, e)) return false;
        for (uint32_t i = 0; i < n_pair; i++) {
            if (!((double)factor[i] >= MODEL_LEAST_FACTOR && factor[i] < INFINITY)) {
                return err_set(e, ERR_FORMAT, "%s: a divisor of a frequency is %g", by->name,
                               (double)factor[i]);
            }
            n->freq[i] /= (double)factor[i];
        }
    }
    if (m->rope_scaling == ROPE_YARN) {
        const struct yarn y = {m->rope_factor, m->yarn_ext, m->yarn_beta_fast, m->yarn_beta_slow,
                               m->n_ctx_orig};
        double length = rope_yarn_length(m->rope_factor, 1);
        if (m->yarn_log_mul > 0) length /= rope_yarn_length(m->rope_factor, m->yarn_log_mul);
        rope_yarn(n->freq, m->rope_base, m->n_rot, &y);
        if (m->yarn_ext != 0) n->rope_length = (float)(m->rope_attn_factor * length);
    } else if (m->rope_scaling == ROPE_LLAMA3) {
        const struct rope_stretch s = {m->rope_factor, m->rope_low, m->rope_high, m->n_ctx_orig};
        if (!by) rope_llama3(n->freq, m->n_rot, &s);
    } else if (m->rope_scaling != ROPE_NONE) {
        for (uint32_t i = 0; i < n_pair; i++) n->freq[i] /= m->rope_factor;
    }
    return true;
}

MUST resident_load(struct nn *n, struct err *e) {
    const struct model *m = n->conf.model;
    float *room = n->vec_mem;
    uint32_t vocab0 = n->conf.cuts.vocab[n->conf.self];
    for (uint32_t i = 0; i < m->n_layer; i++) {
        if (!load_layer(n, i, &room, e)) return false;
    }
    return read_floats(n, n->output_norm, m->output_norm, 0, m->n_embd, e) &&
           (!m->output_norm_bias ||
            read_floats(n, n->output_norm_bias, m->output_norm_bias, 0, m->n_embd, e)) &&
           (!m->output_bias ||
            read_floats(n, n->output_bias, m->output_bias, vocab0, n->n_vocab_own, e)) &&
           load_freqs(n, e);
}
