/* arch_oracle.h - logits of a made model in binary64, straight from the published formulas: whole rows,
 * no blocks, no cache. Knows nothing of the program that it is compared with.
 *
 * RMSNorm: Zhang, Sennrich 2019. RoPE: Su et al. 2021. YaRN: Peng et al. 2023. Llama 3.1's scaling between
 * 1 and 4 turns: Meta's reference code (2024). Attention sinks, clamped
 * SwiGLU, top-k before softmax: gpt-oss's reference code as published with its weights (2025). */
#ifndef TESTS_ARCH_ORACLE_H
#define TESTS_ARCH_ORACLE_H

#include "arch_maker.h"

enum { ORACLE_TOKENS = 24, ORACLE_WIDE = 512 };

struct oracle {
    const struct made *m;
    uint32_t n_ctx;  // decides between LongRoPE's tables
    double x[ORACLE_TOKENS][ORACLE_WIDE];
    double q[ORACLE_TOKENS][ORACLE_WIDE], k[ORACLE_TOKENS][ORACLE_WIDE],
        v[ORACLE_TOKENS][ORACLE_WIDE];
};

static inline const struct made_tensor *oracle_find(const struct oracle *o, int layer,
                                                    const char *name) {
    char full[80];
    snprintf(full, sizeof full, layer < 0 ? "%.0d%s" : "blk.%d.%s", layer < 0 ? 0 : layer, name);
    for (uint32_t i = 0; i < o->m->n_tensor; i++) {
        if (!strcmp(o->m->tensor[i].name, full)) return &o->m->tensor[i];
    }
    return NULL;
}

/* y [n] = rows [row, row + n) of part `deep` of a matrix times x, plus the bias at the same place. */
static inline void oracle_rows(const struct oracle *o, int layer, const char *name, uint64_t deep,
                               uint64_t row, uint64_t n, const double *x, double *y) {
    char weight[64], bias[64];
    snprintf(weight, sizeof weight, "%s.weight", name);
    snprintf(bias, sizeof bias, "%s.bias", name);
    const struct made_tensor *w = oracle_find(o, layer, weight), *b = oracle_find(o, layer, bias);
    uint64_t rows = w->rows ? w->rows : 1;
    for (uint64_t r = 0; r < n; r++) {
        y[r] = b ? (double)made_value(b, deep * rows + row + r) : 0;
        for (uint64_t c = 0; c < w->cols; c++) {
            y[r] += (double)made_value(w, ((deep * rows) + row + r) * w->cols + c) * x[c];
        }
    }
}

static inline void oracle_norm(const struct oracle *o, int layer, const char *name, uint32_t n,
                               const double *x, double *y) {
    char weight[64], bias[64];
    snprintf(weight, sizeof weight, "%s.weight", name);
    snprintf(bias, sizeof bias, "%s.bias", name);
    const struct made_tensor *w = oracle_find(o, layer, weight), *b = oracle_find(o, layer, bias);
    double mean = 0, square = 0;
    for (uint32_t i = 0; i < n && b; i++) mean += x[i] / n;
    for (uint32_t i = 0; i < n; i++) square += (x[i] - mean) * (x[i] - mean) / n;
    for (uint32_t i = 0; i < n; i++) {
        y[i] = (x[i] - mean) / sqrt(square + (double)1e-5F) * (double)made_value(w, i);
        if (b) y[i] += (double)made_value(b, i);
    }
}

static inline bool oracle_is_local(const struct made *m, int layer) {
    return m->window && (uint32_t)layer % m->period + 1 < m->period;
}

/* Angle of pair i at a position, and by how much the pair grows. */
static inline double oracle_angle(const struct oracle *o, int layer, uint32_t i, uint32_t pos,
                                  double *grow) {
    const struct made *m = o->m;
    bool is_plain = oracle_is_local(m, layer) && m->local_base > 0;
    double base = is_plain ? m->local_base : m->base, pi = acos(-1);
    double f = pow((double)(float)base, -2.0 * i / m->n_rot), s = m->factor > 0 ? m->factor : 1;
    *grow = m->attn_factor > 0 && !is_plain ? (double)(float)m->attn_factor : 1;
    if (is_plain || !m->scaling) return f * pos;
    if (!strcmp(m->scaling, "linear")) return f / s * pos;
    if (!strcmp(m->scaling, "longrope")) {
        bool is_long = o->n_ctx > m->n_ctx_orig;
        const char *name = is_long ? "rope_factors_long.weight" : "rope_factors_short.weight";
        return f / (double)made_value(oracle_find(o, -1, name), i) / s * pos;
    }
    if (!strcmp(m->scaling, "llama3")) {
        double turns = m->n_ctx_orig * f / (2 * pi), keep = fmin(1, fmax(0, (turns - 1) / (4 - 1)));
        return ((1 - keep) * f / s + keep * f) * pos;
    }
    double low = floor(m->n_rot * log(m->n_ctx_orig / (32 * 2 * pi)) / (2 * log(base)));
    double high = ceil(m->n_rot * log(m->n_ctx_orig / (2 * pi)) / (2 * log(base)));
    low = fmax(low, 0), high = fmin(high, m->n_rot - 1);
    double ramp = fmin(1, fmax(0, (i - low) / fmax(high - low, 0.001)));
    *grow *= 1 + 0.1 * log(s);
    return (f * (1 - ramp) + f / s * ramp) * pos;
}

static inline void oracle_turn(const struct oracle *o, int layer, const char *norm, uint32_t pos,
                               double *x) {
    const struct made *m = o->m;
    if (m->qk_norm) oracle_norm(o, layer, norm, m->hd, x, x);
    for (uint32_t i = 0; i < m->n_rot / 2; i++) {
        uint32_t ia = m->halves ? i : 2 * i, ib = m->halves ? i + m->n_rot / 2 : 2 * i + 1;
        double grow, t = oracle_angle(o, layer, i, pos, &grow), a = x[ia], b = x[ib];
        x[ia] = grow * (a * cos(t) - b * sin(t));
        x[ib] = grow * (b * cos(t) + a * sin(t));
    }
}

static inline void oracle_qkv(struct oracle *o, int layer, uint32_t pos, const double *h) {
    const struct made *m = o->m;
    uint32_t q = m->n_head * m->hd, kv = m->n_kv * m->hd;
    if (m->fused) {
        oracle_rows(o, layer, "attn_qkv", 0, 0, q, h, o->q[pos]);
        oracle_rows(o, layer, "attn_qkv", 0, q, kv, h, o->k[pos]);
        oracle_rows(o, layer, "attn_qkv", 0, q + kv, kv, h, o->v[pos]);
    } else {
        oracle_rows(o, layer, "attn_q", 0, 0, q, h, o->q[pos]);
        oracle_rows(o, layer, "attn_k", 0, 0, kv, h, o->k[pos]);
        oracle_rows(o, layer, "attn_v", 0, 0, kv, h, o->v[pos]);
    }
    for (uint32_t i = 0; i < m->n_head; i++) {
        oracle_turn(o, layer, "attn_q_norm", pos, o->q[pos] + i * m->hd);
    }
    for (uint32_t i = 0; i < m->n_kv; i++) {
        oracle_turn(o, layer, "attn_k_norm", pos, o->k[pos] + i * m->hd);
    }
}

static inline void oracle_head(const struct oracle *o, int layer, uint32_t pos, uint32_t h,
                               double *out) {
    const struct made *m = o->m;
    uint32_t g = h / (m->n_head / m->n_kv) * m->hd, first = 0;
    double p[ORACLE_TOKENS], sum = 0;
    const struct made_tensor *sinks = oracle_find(o, layer, "attn_sinks.weight");
    if (oracle_is_local(m, layer) && pos + 1 > m->window) first = pos + 1 - m->window;
    if (sinks) sum = exp((double)made_value(sinks, h));
    for (uint32_t j = first; j <= pos; j++) {
        double s = 0;
        for (uint32_t i = 0; i < m->hd; i++) s += o->q[pos][h * m->hd + i] * o->k[j][g + i];
        s /= sqrt(m->hd);
        if (m->softcap > 0) s = m->softcap * tanh(s / m->softcap);
        sum += p[j] = exp(s);
    }
    for (uint32_t i = 0; i < m->hd; i++) {
        out[i] = 0;
        for (uint32_t j = first; j <= pos; j++) out[i] += p[j] / sum * o->v[j][g + i];
    }
}

static inline double oracle_gate(const struct made *m, double g, double up) {
    switch (m->gate) {
    case MADE_SILU: return g / (1 + exp(-g)) * up;
    case MADE_GELU:
        return 0.5 * g * (1 + tanh(sqrt(2 / acos(-1)) * (g + 0.044715 * g * g * g))) * up;
    default:
        g = fmin(g, 7), up = fmax(-7, fmin(7, up));
        return g / (1 + exp(-1.702 * g)) * (up + 1);
    }
}

/* One feed-forward network, whose matrices are called as the formats say. */
static inline void oracle_mlp(const struct oracle *o, int layer, const char *gate, const char *up,
                              const char *down, uint64_t deep, uint32_t ff, const double *h,
                              double *y) {
    double g[ORACLE_WIDE], u[ORACLE_WIDE];
    bool is_one = o->m->fused && gate && !strcmp(gate, "ffn_gate");
    if (gate && !is_one) oracle_rows(o, layer, gate, deep, 0, ff, h, g);
    if (is_one) oracle_rows(o, layer, up, deep, 0, ff, h, g);
    oracle_rows(o, layer, up, deep, is_one ? ff : 0, ff, h, u);
    for (uint32_t i = 0; i < ff; i++)
        u[i] = gate ? oracle_gate(o->m, g[i], u[i]) : oracle_gate(o->m, u[i], 1);
    oracle_rows(o, layer, down, deep, 0, o->m->d, u, y);
}

static inline void oracle_experts(const struct oracle *o, int layer, const double *h, double *out) {
    const struct made *m = o->m;
    double score[64], y[ORACLE_WIDE], all = 0, chosen = 0;
    bool is_in[64] = {false};
    oracle_rows(o, layer, "ffn_gate_inp", 0, 0, m->n_expert, h, score);
    for (uint32_t i = 0; i < m->n_expert; i++) all += exp(score[i]);
    for (uint32_t k = 0; k < m->n_used; k++) {
        uint32_t best = m->n_expert;
        for (uint32_t i = 0; i < m->n_expert; i++) {
            if (!is_in[i] && (best == m->n_expert || score[i] > score[best])) best = i;
        }
        is_in[best] = true;
        chosen += exp(score[best]);
    }
    for (uint32_t c = 0; c < m->d; c++) out[c] = 0;
    for (uint32_t i = 0; i < m->n_expert; i++) {
        if (!is_in[i]) continue;
        oracle_mlp(o, layer, "ffn_gate_exps", "ffn_up_exps", "ffn_down_exps", i, m->n_ff, h, y);
        for (uint32_t c = 0; c < m->d; c++) {
            out[c] += exp(score[i]) / (m->route_all ? all : chosen) * y[c];
        }
    }
    if (!m->n_ff_shared) return;
    oracle_rows(o, layer, "ffn_gate_inp_shexp", 0, 0, 1, h, score);
    oracle_mlp(o, layer, "ffn_gate_shexp", "ffn_up_shexp", "ffn_down_shexp", 0, m->n_ff_shared, h,
               y);
    for (uint32_t c = 0; c < m->d; c++) out[c] += y[c] / (1 + exp(-score[0]));
}

static inline void oracle_layer(struct oracle *o, int layer, uint32_t pos) {
    const struct made *m = o->m;
    double h[ORACLE_WIDE], heads[ORACLE_WIDE], y[ORACLE_WIDE], *x = o->x[pos];
    oracle_norm(o, layer, "attn_norm", m->d, x, h);
    oracle_qkv(o, layer, pos, h);
    for (uint32_t i = 0; i < m->n_head; i++) oracle_head(o, layer, pos, i, heads + i * m->hd);
    oracle_rows(o, layer, "attn_output", 0, 0, m->d, heads, y);
    if (m->post_norms) oracle_norm(o, layer, "post_attention_norm", m->d, y, y);
    for (uint32_t c = 0; c < m->d; c++) x[c] += y[c];
    if (!m->parallel) {
        oracle_norm(o, layer, m->sinks ? "post_attention_norm" : "ffn_norm", m->d, x, h);
    }
    if (m->n_expert)
        oracle_experts(o, layer, h, y);
    else
        oracle_mlp(o, layer, m->ungated ? NULL : "ffn_gate", "ffn_up", "ffn_down", 0, m->n_ff, h,
                   y);
    if (m->post_norms) oracle_norm(o, layer, "post_ffw_norm", m->d, y, y);
    for (uint32_t c = 0; c < m->d; c++) x[c] += y[c];
}

/* logits [n_tok][MADE_VOCAB] of a model whose matrices are floats. */
static inline void oracle_run(struct oracle *o, const int32_t *token, uint32_t n_tok,
                              double (*logits)[MADE_VOCAB]) {
    const struct made *m = o->m;
    const struct made_tensor *embd = oracle_find(o, -1, "token_embd.weight");
    const struct made_tensor *bias = oracle_find(o, -1, "output.bias");
    for (uint32_t t = 0; t < n_tok; t++) {
        for (uint32_t c = 0; c < m->d; c++) {
            o->x[t][c] = (double)made_value(embd, (uint64_t)token[t] * m->d + c);
            if (m->embd_scale > 0) o->x[t][c] *= m->embd_scale;
        }
    }
    for (int i = 0; i < MADE_LAYERS; i++) {
        for (uint32_t t = 0; t < n_tok; t++) oracle_layer(o, i, t);
    }
    for (uint32_t t = 0; t < n_tok; t++) {
        double h[ORACLE_WIDE];
        oracle_norm(o, -1, "output_norm", m->d, o->x[t], h);
        oracle_rows(o, -1, "token_embd", 0, 0, MADE_VOCAB, h, logits[t]);
        for (uint32_t i = 0; i < MADE_VOCAB; i++) {
            if (bias) logits[t][i] += (double)made_value(bias, i);
            if (m->final_cap > 0) logits[t][i] = m->final_cap * tanh(logits[t][i] / m->final_cap);
        }
    }
}

#endif
