/* neon_attend.c - attention, LayerNorm, RoPE over halves and activations on AArch64's baseline. Same bits
 * as scalar_attend.c.
 *
 * Positions of a block that are not seen have the score -infinity: their weight is +0, which changes
 * neither the lanes of the sum nor a largest score. */
#include "f16.h"
#include "kernels.h"
#include "neon.h"

#include <string.h>

/* Values i..i + 3 of a cache; i is a multiple of 4 from the start of a row. */
ALWAYS float32x4_t load_kv(const void *p, size_t i, enum kv_type type) {
    if (type != KV_Q8_0) return load_float(p, i, type == KV_F16);
    const struct act *b = (const struct act *)p + i / Q_BLOCK;
    int32_t four;
    memcpy(&four, b->q + i % Q_BLOCK, sizeof four);
    int16x8_t q = vmovl_s8(vreinterpret_s8_s32(vdup_n_s32(four)));
    return vmulq_n_f32(vcvtq_f32_s32(vmovl_s16(vget_low_s16(q))), bf16_to_f32(b->d));
}

/* The n <= 4 of them that are there, zeros behind them; a block of Q8_0 is always whole. */
ALWAYS float32x4_t load_some(const void *p, size_t i, size_t n, enum kv_type type) {
    if (n == VEC || type == KV_Q8_0) return load_kv(p, i, type);
    float part[VEC] = {0};
    size_t size = type == KV_F16 ? sizeof(uint16_t) : sizeof(float);
    memcpy(part, (const char *)p + i * size, n * size);
    return load_kv(part, 0, type);
}

/* q [hd rounded up to 16, padded with zeros] times four keys. */
ALWAYS float32x4_t score_four(const float *q, const void *k, const size_t row[4], size_t hd,
                              enum kv_type type) {
    float32x4_t lane[4][4];
    UNROLL
    for (size_t j = 0; j < 4; j++) {
        lane[j][0] = lane[j][1] = lane[j][2] = lane[j][3] = vdupq_n_f32(0);
    }
    size_t i = 0;
    for (; i + FLOAT_LANES <= hd; i += FLOAT_LANES) {
        UNROLL
        for (size_t h = 0; h < 4; h++) {
            float32x4_t qh = vld1q_f32(q + i + h * VEC);
            UNROLL
            for (size_t j = 0; j < 4; j++) {
                float32x4_t kh = load_kv(k, row[j] + i + h * VEC, type);
                lane[j][h] = vfmaq_f32(lane[j][h], qh, kh);
            }
        }
    }
    if (i < hd) {
        UNROLL
        for (size_t h = 0; h < 4; h++) {
            size_t at = i + h * VEC;
            float32x4_t qh = vld1q_f32(q + at);
            UNROLL
            for (size_t j = 0; j < 4 && at < hd; j++) {
                float32x4_t kh = load_some(k, row[j] + at, hd - at < VEC ? hd - at : VEC, type);
                lane[j][h] = vfmaq_f32(lane[j][h], qh, kh);
            }
        }
    }
    float32x4_t s[4];
    UNROLL
    for (size_t j = 0; j < 4; j++) {
        s[j] = vaddq_f32(vaddq_f32(lane[j][0], lane[j][2]), vaddq_f32(lane[j][1], lane[j][3]));
    }
    float32x4_t s01 = vaddq_f32(vcombine_f32(vget_low_f32(s[0]), vget_low_f32(s[1])),
                                vcombine_f32(vget_high_f32(s[0]), vget_high_f32(s[1])));
    float32x4_t s23 = vaddq_f32(vcombine_f32(vget_low_f32(s[2]), vget_low_f32(s[3])),
                                vcombine_f32(vget_high_f32(s[2]), vget_high_f32(s[3])));
    return vpaddq_f32(s01, s23);
}

/* k_tanh(s / cap) * cap. */
ALWAYS float32x4_t cap_four(float32x4_t s, float cap) {
    const float32x4_t one = vdupq_n_f32(1.0f), two = vdupq_n_f32(2.0f);
    float32x4_t e = exp4(vmulq_f32(vmulq_n_f32(s, 1.0f / cap), two));
    return vmulq_n_f32(vsubq_f32(one, vdivq_f32(two, vaddq_f32(one, e))), cap);
}

/* Scores of positions [from, to) of the block at `at` to p, -infinity to the others of its registers;
 * returns the largest, NaN ignored. */
ALWAYS float score_block(float *p, const float *q, const void *k, const struct attention *a,
                         size_t at, size_t from, size_t to, enum kv_type type) {
    size_t end = (to + FLOAT_LANES - 1) / FLOAT_LANES * FLOAT_LANES;
    for (size_t j = from / 4 * 4; j < to; j += 4) {
        size_t row[4];
        UNROLL
        for (size_t l = 0; l < 4; l++) row[l] = (at + (j + l < to ? j + l : to - 1)) * a->stride;
        float32x4_t s = vmulq_n_f32(score_four(q, k, row, a->hd, type), a->scale);
        vst1q_f32(p + j, a->softcap > 0 ? cap_four(s, a->softcap) : s);
    }
    for (size_t j = 0; j < from; j++) p[j] = -__builtin_inff();
    for (size_t j = to; j < end; j++) p[j] = -__builtin_inff();
    float32x4_t m = vdupq_n_f32(-__builtin_inff());
    for (size_t j = 0; j < end; j += VEC) m = max_number(vld1q_f32(p + j), m);
    return vmaxvq_f32(m);
}

/* p [from, to) to exp(p - m), the others to +0; returns the sum. */
ALWAYS float weights_block(float *p, float m, size_t to) {
    float32x4_t lane[4] = {vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0)};
    for (size_t j = 0; j < to; j += FLOAT_LANES) {
        UNROLL
        for (size_t h = 0; h < 4; h++) {
            float32x4_t e = exp4(vsubq_f32(vld1q_f32(p + j + h * VEC), vdupq_n_f32(m)));
            vst1q_f32(p + j + h * VEC, e);
            lane[h] = vaddq_f32(lane[h], e);
        }
    }
    return sum_tree(lane);
}

/* o [4 * n_vec, or `some` when n_vec is 1] = sum of p[j] * v[at + j * stride] for j of [from, to). */
ALWAYS void weigh_values(float *o, const float *p, const void *v, size_t at, size_t from, size_t to,
                         size_t stride, size_t n_vec, size_t some, enum kv_type type) {
    float32x4_t acc[16];
    UNROLL
    for (size_t i = 0; i < n_vec; i++) acc[i] = vdupq_n_f32(0);
    for (size_t j = from; j < to; j++) {
        float32x4_t pj = vld1q_dup_f32(p + j);
        size_t row = at + j * stride;
        UNROLL
        for (size_t i = 0; i < n_vec; i++) {
            float32x4_t vv =
                n_vec == 1 ? load_some(v, row, some, type) : load_kv(v, row + i * VEC, type);
            acc[i] = vfmaq_f32(acc[i], pj, vv);
        }
    }
    UNROLL
    for (size_t i = 0; i < n_vec; i++) vst1q_f32(o + i * VEC, acc[i]);
}

ALWAYS void values_block(float *o, const float *p, const void *v, const struct attention *a,
                         size_t at, size_t from, size_t to, enum kv_type type) {
    for (size_t i = 0; i < a->hd;) {
        size_t first = at * a->stride + i, left = a->hd - i;
        if (left >= 64) {
            weigh_values(o + i, p, v, first, from, to, a->stride, 16, 0, type);
            i += 64;
        } else if (left >= 16) {
            weigh_values(o + i, p, v, first, from, to, a->stride, 4, 0, type);
            i += 16;
        } else {
            weigh_values(o + i, p, v, first, from, to, a->stride, 1, left < VEC ? left : VEC, type);
            i += VEC;
        }
    }
}

ALWAYS void attend_as(float *out, const float *q, const void *k, const void *v,
                      const struct attention *a, enum kv_type type) {
    float o_all[HEAD_DIM_MAX], o[HEAD_DIM_MAX], qa[HEAD_DIM_MAX], p[ATTEND_BLOCK];
    size_t hd = a->hd, start = a->first / ATTEND_BLOCK * ATTEND_BLOCK;
    float m_all = 0, l_all = 0;
    memset(qa + hd / FLOAT_LANES * FLOAT_LANES, 0, hd % FLOAT_LANES ? FLOAT_LANES * sizeof *qa : 0);
    memcpy(qa, q, hd * sizeof *q);
    for (size_t at = start; at < a->n_pos; at += ATTEND_BLOCK) {
        size_t from = at == start ? a->first - start : 0;
        size_t to = a->n_pos - at < ATTEND_BLOCK ? a->n_pos - at : ATTEND_BLOCK;
        float m = score_block(p, qa, k, a, at, from, to, type);
        float l = weights_block(p, m, to);
        values_block(at == start ? o_all : o, p, v, a, at, from, to, type);
        if (at == start) {
            l_all = l;
            m_all = m;
            continue;
        }
        float m_new = m > m_all ? m : m_all;
        float s = k_exp(m_all - m_new), t = k_exp(m - m_new);
        for (size_t i = 0; i < hd; i++) o_all[i] = k_fma(o[i], t, o_all[i] * s);
        l_all = k_fma(l, t, l_all * s);
        m_all = m_new;
    }
    float s = 1;
    if (a->sink) {
        float m = *a->sink > m_all ? *a->sink : m_all;
        s = k_exp(m_all - m);
        l_all = k_fma(l_all, s, k_exp(*a->sink - m));
    }
    float inv = s / l_all;
    for (size_t i = 0; i < hd; i++) out[i] = o_all[i] * inv;
}

static void attend(float *out, const float *q, const void *k, const void *v,
                   const struct attention *a) {
    switch (a->type) {
    case KV_F32: attend_as(out, q, k, v, a, KV_F32); break;
    case KV_F16: attend_as(out, q, k, v, a, KV_F16); break;
    case KV_Q8_0: attend_as(out, q, k, v, a, KV_Q8_0); break;
    }
}

static void rope_halves(float *x, const float *cs, size_t n_pair) {
    size_t i = 0;
    for (; i + VEC <= n_pair; i += VEC) {
        float32x4x2_t r = vld2q_f32(cs + 2 * i);
        float32x4_t a = vld1q_f32(x + i), b = vld1q_f32(x + n_pair + i);
        float32x4_t down = vnegq_f32(vmulq_f32(b, r.val[1])), up = vmulq_f32(a, r.val[1]);
        vst1q_f32(x + i, vfmaq_f32(down, a, r.val[0]));
        vst1q_f32(x + n_pair + i, vfmaq_f32(up, b, r.val[0]));
    }
    for (; i < n_pair; i++) {
        float a = x[i], b = x[n_pair + i], c = cs[2 * i], s = cs[2 * i + 1];
        x[i] = k_fma(a, c, -(b * s));
        x[n_pair + i] = k_fma(b, c, a * s);
    }
}

static void layernorm(float *y, const float *x, const float *w, const float *b, size_t n,
                      float eps) {
    const float32x4_t zero = vdupq_n_f32(0);
    float32x4_t lane[4] = {zero, zero, zero, zero};
    float rest[FLOAT_LANES] = {0};
    size_t i = 0, whole = n / FLOAT_LANES * FLOAT_LANES;
    for (; i < whole; i += FLOAT_LANES) {
        UNROLL
        for (size_t h = 0; h < 4; h++) lane[h] = vaddq_f32(lane[h], vld1q_f32(x + i + h * VEC));
    }
    memcpy(rest, x + whole, (n - whole) * sizeof *x);
    UNROLL
    for (size_t h = 0; h < 4; h++) lane[h] = vaddq_f32(lane[h], vld1q_f32(rest + h * VEC));
    float mean = sum_tree(lane) / (float)n;
    float32x4_t mv = vdupq_n_f32(mean);
    lane[0] = lane[1] = lane[2] = lane[3] = zero;
    for (i = 0; i < whole; i += FLOAT_LANES) {
        UNROLL
        for (size_t h = 0; h < 4; h++) {
            float32x4_t d = vsubq_f32(vld1q_f32(x + i + h * VEC), mv);
            lane[h] = vfmaq_f32(lane[h], d, d);
        }
    }
    for (; i < n; i++) rest[i - whole] = x[i] - mean;  // the others are still zero
    UNROLL
    for (size_t h = 0; h < 4; h++) {
        float32x4_t d = vld1q_f32(rest + h * VEC);
        lane[h] = vfmaq_f32(lane[h], d, d);
    }
    float s = 1.0f / k_sqrt(sum_tree(lane) / (float)n + eps);
    for (i = 0; i < whole; i += VEC) {
        float32x4_t d = vmulq_n_f32(vsubq_f32(vld1q_f32(x + i), mv), s);
        vst1q_f32(y + i, vfmaq_f32(vld1q_f32(b + i), d, vld1q_f32(w + i)));
    }
    for (; i < n; i++) y[i] = k_fma((x[i] - mean) * s, w[i], b[i]);
}

static void gelu_mul(float *y, const float *gate, const float *up, size_t n) {
    const float32x4_t one = vdupq_n_f32(1.0f);
    size_t i = 0;
    for (; i + VEC <= n; i += VEC) {
        float32x4_t g = vld1q_f32(gate + i);
        float32x4_t z = vfmaq_f32(vdupq_n_f32(GELU_C1), vmulq_f32(g, g), vdupq_n_f32(GELU_C3));
        float32x4_t s = vdivq_f32(g, vaddq_f32(one, exp4(vmulq_f32(g, z))));
        vst1q_f32(y + i, up ? vmulq_f32(s, vld1q_f32(up + i)) : s);
    }
    for (; i < n; i++) y[i] = k_gelu(gate[i]) * (up ? up[i] : 1.0f);
}

static void swiglu_oai(float *y, const float *gate, const float *up, size_t n) {
    const float32x4_t one = vdupq_n_f32(1.0f), limit = vdupq_n_f32(OAI_LIMIT);
    size_t i = 0;
    for (; i + VEC <= n; i += VEC) {
        float32x4_t g = vld1q_f32(gate + i);
        g = vbslq_f32(vcltq_f32(g, limit), g, limit);
        float32x4_t u = max_number(vld1q_f32(up + i), vdupq_n_f32(-OAI_LIMIT));
        u = vaddq_f32(vminq_f32(u, limit), one);
        float32x4_t s = vdivq_f32(g, vaddq_f32(one, exp4(vmulq_n_f32(g, -OAI_ALPHA))));
        vst1q_f32(y + i, vmulq_f32(s, u));
    }
    for (; i < n; i++) y[i] = k_swiglu_oai(gate[i], up[i]);
}

static void softcap(float *x, size_t n, float cap) {
    size_t i = 0;
    for (; i + VEC <= n; i += VEC) vst1q_f32(x + i, cap_four(vld1q_f32(x + i), cap));
    for (; i < n; i++) x[i] = k_tanh(x[i] * (1.0f / cap)) * cap;
}

void kernels_neon_attend(struct kernels *k) {
    k->attend = attend;
    k->rope_halves = rope_halves;
    k->layernorm = layernorm;
    k->gelu_mul = gelu_mul;
    k->swiglu_oai = swiglu_oai;
    k->softcap = softcap;
}
