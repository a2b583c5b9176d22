/* scalar_attend.c - the definition of attention, and of what layers of some architectures do besides:
 * LayerNorm, RoPE over halves, other activations. */
#include "exp.h"
#include "f16.h"
#include "kernels.h"
#include "lanes.h"

static float kv_value(const void *kv, enum kv_type type, size_t i) {
    const struct act *block = (const struct act *)kv + i / Q_BLOCK;
    switch (type) {
    case KV_F32: return ((const float *)kv)[i];
    case KV_F16: return f16_to_f32(((const uint16_t *)kv)[i]);
    case KV_Q8_0: return (float)block->q[i % Q_BLOCK] * bf16_to_f32(block->d);
    }
    return 0;
}

static float dot_kv(const float *q, const void *k, enum kv_type type, size_t first, size_t hd) {
    float lane[FLOAT_LANES] = {0};
    for (size_t i = 0; i < hd; i++) {
        float *l = &lane[i % FLOAT_LANES];
        *l = k_fma(q[i], kv_value(k, type, first + i), *l);
    }
    return tree_sum(lane);
}

/* What has been seen so far: the largest score, the sum of exp(score - m), the values weighted by it. */
struct seen {
    float m, l, o[HEAD_DIM_MAX];
};

/* Positions [from, to) of the block of 64 that begins at `at`. */
static void attend_block(struct seen *b, const float *q, const void *k, const void *v,
                         const struct attention *a, size_t at, size_t from, size_t to) {
    float p[ATTEND_BLOCK], lane[FLOAT_LANES] = {0};
    b->m = -__builtin_inff();
    for (size_t j = from; j < to; j++) {
        float s = dot_kv(q, k, a->type, (at + j) * a->stride, a->hd) * a->scale;
        if (a->softcap > 0) s = k_tanh(s * (1.0f / a->softcap)) * a->softcap;
        if (s > b->m) b->m = s;
        p[j] = s;
    }
    for (size_t j = from; j < to; j++) {
        p[j] = k_exp(p[j] - b->m);
        lane[j % FLOAT_LANES] = lane[j % FLOAT_LANES] + p[j];
    }
    b->l = tree_sum(lane);
    for (size_t i = 0; i < a->hd; i++) {
        b->o[i] = 0;
        for (size_t j = from; j < to; j++) {
            b->o[i] = k_fma(p[j], kv_value(v, a->type, (at + j) * a->stride + i), b->o[i]);
        }
    }
}

static void attend_one(const struct query *query, const void *k, const void *v,
                       const struct attention *a) {
    struct seen all = {0}, block;
    size_t start = query->first / ATTEND_BLOCK * ATTEND_BLOCK;
    for (size_t at = start; at < query->n_pos; at += ATTEND_BLOCK) {
        size_t from = at == start ? query->first - start : 0;
        size_t to = query->n_pos - at < ATTEND_BLOCK ? query->n_pos - at : ATTEND_BLOCK;
        // cppcheck-suppress uninitvar ; attend_block() fills it
        struct seen *b = at == start ? &all : &block;
        attend_block(b, query->q, k, v, a, at, from, to);
        if (at == start) continue;
        float m = b->m > all.m ? b->m : all.m;
        float s = k_exp(all.m - m), t = k_exp(b->m - m);
        for (size_t i = 0; i < a->hd; i++) all.o[i] = k_fma(b->o[i], t, all.o[i] * s);
        all.l = k_fma(b->l, t, all.l * s);
        all.m = m;
    }
    float s = 1;
    if (query->sink) {
        float m = *query->sink > all.m ? *query->sink : all.m;
        s = k_exp(all.m - m);
        all.l = k_fma(all.l, s, k_exp(*query->sink - m));
    }
    float inv = s / all.l;
    for (size_t i = 0; i < a->hd; i++) query->out[i] = all.o[i] * inv;
}

static void attend(const struct query *query, size_t n, const void *k, const void *v,
                   const struct attention *a, float *room) {
    (void)room;
    for (size_t t = 0; t < n; t++) attend_one(&query[t], k, v, a);
}

static void rope_halves(float *x, const float *cs, size_t n_pair) {
    for (size_t i = 0; i < n_pair; i++) {
        float a = x[i], b = x[n_pair + i], c = cs[2 * i], s = cs[2 * i + 1];
        x[i] = k_fma(a, c, -(b * s));
        x[n_pair + i] = k_fma(b, c, a * s);
    }
}

static void layernorm(float *y, const float *x, const float *w, const float *b, size_t n,
                      float eps) {
    float lane[FLOAT_LANES] = {0};
    for (size_t i = 0; i < n; i++) lane[i % FLOAT_LANES] = lane[i % FLOAT_LANES] + x[i];
    float mean = tree_sum(lane) / (float)n;
    for (size_t l = 0; l < FLOAT_LANES; l++) lane[l] = 0;
    for (size_t i = 0; i < n; i++) {
        float d = x[i] - mean;
        lane[i % FLOAT_LANES] = k_fma(d, d, lane[i % FLOAT_LANES]);
    }
    float s = 1.0f / k_sqrt(tree_sum(lane) / (float)n + eps);
    for (size_t i = 0; i < n; i++) y[i] = k_fma((x[i] - mean) * s, w[i], b[i]);
}

static void gelu_mul(float *y, const float *gate, const float *up, size_t n) {
    for (size_t i = 0; i < n; i++) y[i] = k_gelu(gate[i]) * (up ? up[i] : 1.0f);
}

static void swiglu_oai(float *y, const float *gate, const float *up, size_t n) {
    for (size_t i = 0; i < n; i++) y[i] = k_swiglu_oai(gate[i], up[i]);
}

static void softcap(float *x, size_t n, float cap) {
    for (size_t i = 0; i < n; i++) x[i] = k_tanh(x[i] * (1.0f / cap)) * cap;
}

void kernels_scalar_attend(struct kernels *k) {
    k->attend = attend;
    k->rope_halves = rope_halves;
    k->layernorm = layernorm;
    k->gelu_mul = gelu_mul;
    k->swiglu_oai = swiglu_oai;
    k->softcap = softcap;
}
