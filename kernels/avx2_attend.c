/* avx2_attend.c - attention, LayerNorm, RoPE over halves and activations with AVX2, FMA and F16C. Same
 * bits as scalar_attend.c.
 *
 * Positions of a block that are not seen have the score -infinity: their weight is +0, which changes
 * neither the lanes of the sum nor a largest score. */
#include "avx2.h"
#include "f16.h"
#include "kernels.h"

#include <string.h>

/* Values i..i + 7 of a cache; i is a multiple of 8 from the start of a row. */
ALWAYS __m256 load_kv(const void *p, size_t i, enum kv_type type) {
    if (type != KV_Q8_0) return load_float(p, i, type == KV_F16);
    const struct act *b = (const struct act *)p + i / Q_BLOCK;
    __m128i q = _mm_loadl_epi64((const __m128i *)(b->q + i % Q_BLOCK));
    return _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(q)),
                         _mm256_set1_ps(bf16_to_f32(b->d)));
}

/* The n <= 8 of them that are there, zeros behind them; a block of Q8_0 is always whole. */
ALWAYS __m256 load_some(const void *p, size_t i, size_t n, enum kv_type type) {
    if (n == VEC || type == KV_Q8_0) return load_kv(p, i, type);
    float part[VEC] = {0};
    size_t size = type == KV_F16 ? sizeof(uint16_t) : sizeof(float);
    memcpy(part, (const char *)p + i * size, n * size);
    return load_kv(part, 0, type);
}

/* q [hd rounded up to 16, padded with zeros] times four keys. */
ALWAYS __m128 score_four(const float *q, const void *k, const size_t row[4], size_t hd,
                         enum kv_type type) {
    __m256 lo[4], hi[4];
    UNROLL
    for (size_t j = 0; j < 4; j++) lo[j] = hi[j] = _mm256_setzero_ps();
    size_t i = 0;
    for (; i + FLOAT_LANES <= hd; i += FLOAT_LANES) {
        __m256 q0 = _mm256_load_ps(q + i), q1 = _mm256_load_ps(q + i + VEC);
        UNROLL
        for (size_t j = 0; j < 4; j++) {
            lo[j] = _mm256_fmadd_ps(q0, load_kv(k, row[j] + i, type), lo[j]);
            hi[j] = _mm256_fmadd_ps(q1, load_kv(k, row[j] + i + VEC, type), hi[j]);
        }
    }
    if (i < hd) {
        size_t n0 = hd - i < VEC ? hd - i : VEC, n1 = hd - i - n0;
        for (size_t j = 0; j < 4; j++) {
            __m256 k0 = load_some(k, row[j] + i, n0, type);
            lo[j] = _mm256_fmadd_ps(_mm256_load_ps(q + i), k0, lo[j]);
            if (n1 == 0) continue;
            __m256 k1 = load_some(k, row[j] + i + VEC, n1, type);
            hi[j] = _mm256_fmadd_ps(_mm256_load_ps(q + i + VEC), k1, hi[j]);
        }
    }
    __m128 s[4];
    UNROLL
    for (size_t j = 0; j < 4; j++) {
        __m256 a = _mm256_add_ps(lo[j], hi[j]);
        s[j] = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    }
    __m128 s01 = _mm_add_ps(_mm_movelh_ps(s[0], s[1]), _mm_movehl_ps(s[1], s[0]));
    __m128 s23 = _mm_add_ps(_mm_movelh_ps(s[2], s[3]), _mm_movehl_ps(s[3], s[2]));
    return _mm_hadd_ps(s01, s23);
}

/* k_tanh(s / cap) * cap. */
ALWAYS __m256 cap8(__m256 s, float cap) {
    const __m256 one = _mm256_set1_ps(1.0f), two = _mm256_set1_ps(2.0f);
    __m256 e = exp8(_mm256_mul_ps(_mm256_mul_ps(s, _mm256_set1_ps(1.0f / cap)), two));
    __m256 t = _mm256_sub_ps(one, _mm256_div_ps(two, _mm256_add_ps(one, e)));
    return _mm256_mul_ps(t, _mm256_set1_ps(cap));
}

ALWAYS __m128 cap_four(__m128 s, float cap) {
    return _mm256_castps256_ps128(cap8(_mm256_zextps128_ps256(s), cap));
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
        __m128 s = _mm_mul_ps(score_four(q, k, row, a->hd, type), _mm_set1_ps(a->scale));
        _mm_store_ps(p + j, a->softcap > 0 ? cap_four(s, a->softcap) : s);
    }
    for (size_t j = 0; j < from; j++) p[j] = -__builtin_inff();
    for (size_t j = to; j < end; j++) p[j] = -__builtin_inff();
    __m256 m = _mm256_set1_ps(-__builtin_inff());
    for (size_t j = 0; j < end; j += VEC) m = _mm256_max_ps(_mm256_load_ps(p + j), m);
    __m128 x = _mm_max_ps(_mm256_castps256_ps128(m), _mm256_extractf128_ps(m, 1));
    x = _mm_max_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)));
}

/* p [from, to) to exp(p - m), the others to +0; returns the sum. */
ALWAYS float weights_block(float *p, float m, size_t to) {
    __m256 lane[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
    for (size_t j = 0; j < (to + FLOAT_LANES - 1) / FLOAT_LANES * 2; j++) {
        __m256 e = exp8(_mm256_sub_ps(_mm256_load_ps(p + j * VEC), _mm256_set1_ps(m)));
        _mm256_store_ps(p + j * VEC, e);
        lane[j % 2] = _mm256_add_ps(lane[j % 2], e);
    }
    return sum_tree(lane[0], lane[1]);
}

/* o [8 * n_vec, or `some` when n_vec is 1] = sum of p[j] * v[at + j * stride] for j of [from, to). */
ALWAYS void weigh_values(float *o, const float *p, const void *v, size_t at, size_t from, size_t to,
                         size_t stride, size_t n_vec, size_t some, enum kv_type type) {
    __m256 acc[8];
    UNROLL
    for (size_t i = 0; i < n_vec; i++) acc[i] = _mm256_setzero_ps();
    for (size_t j = from; j < to; j++) {
        __m256 pj = _mm256_broadcast_ss(p + j);
        size_t row = at + j * stride;
        UNROLL
        for (size_t i = 0; i < n_vec; i++) {
            __m256 vv =
                n_vec == 1 ? load_some(v, row, some, type) : load_kv(v, row + i * VEC, type);
            acc[i] = _mm256_fmadd_ps(pj, vv, acc[i]);
        }
    }
    UNROLL
    for (size_t i = 0; i < n_vec; i++) _mm256_store_ps(o + i * VEC, acc[i]);
}

ALWAYS void values_block(float *o, const float *p, const void *v, const struct attention *a,
                         size_t at, size_t from, size_t to, enum kv_type type) {
    for (size_t i = 0; i < a->hd;) {
        size_t first = at * a->stride + i, left = a->hd - i;
        if (left >= 64) {
            weigh_values(o + i, p, v, first, from, to, a->stride, 8, 0, type);
            i += 64;
        } else if (left >= 32) {
            weigh_values(o + i, p, v, first, from, to, a->stride, 4, 0, type);
            i += 32;
        } else {
            weigh_values(o + i, p, v, first, from, to, a->stride, 1, left < VEC ? left : VEC, type);
            i += VEC;
        }
    }
}

ALWAYS void attend_as(float *out, const float *q, const void *k, const void *v,
                      const struct attention *a, enum kv_type type) {
    _Alignas(32) float o_all[HEAD_DIM_MAX], o[HEAD_DIM_MAX], qa[HEAD_DIM_MAX], p[ATTEND_BLOCK];
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
        for (size_t i = 0; i < hd; i += VEC) {
            __m256 old = _mm256_mul_ps(_mm256_load_ps(o_all + i), _mm256_set1_ps(s));
            old = _mm256_fmadd_ps(_mm256_load_ps(o + i), _mm256_set1_ps(t), old);
            _mm256_store_ps(o_all + i, old);
        }
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
        __m256 a = _mm256_loadu_ps(x + i), b = _mm256_loadu_ps(x + n_pair + i);
        __m256 lo = _mm256_loadu_ps(cs + 2 * i), hi = _mm256_loadu_ps(cs + 2 * i + VEC);
        /* c0 c1 c4 c5 c2 c3 c6 c7 and the sines alike; then in order. */
        __m256d c2 = _mm256_castps_pd(_mm256_shuffle_ps(lo, hi, 0x88));
        __m256d s2 = _mm256_castps_pd(_mm256_shuffle_ps(lo, hi, 0xdd));
        __m256 c = _mm256_castpd_ps(_mm256_permute4x64_pd(c2, 0xd8));
        __m256 s = _mm256_castpd_ps(_mm256_permute4x64_pd(s2, 0xd8));
        _mm256_storeu_ps(x + i, _mm256_fmsub_ps(a, c, _mm256_mul_ps(b, s)));
        _mm256_storeu_ps(x + n_pair + i, _mm256_fmadd_ps(b, c, _mm256_mul_ps(a, s)));
    }
    for (; i < n_pair; i++) {
        float a = x[i], b = x[n_pair + i], c = cs[2 * i], s = cs[2 * i + 1];
        x[i] = k_fma(a, c, -(b * s));
        x[n_pair + i] = k_fma(b, c, a * s);
    }
}

static void layernorm(float *y, const float *x, const float *w, const float *b, size_t n,
                      float eps) {
    __m256 lo = _mm256_setzero_ps(), hi = lo;
    size_t i = 0, whole = n / FLOAT_LANES * FLOAT_LANES;
    for (; i < whole; i += FLOAT_LANES) {
        lo = _mm256_add_ps(lo, _mm256_loadu_ps(x + i));
        hi = _mm256_add_ps(hi, _mm256_loadu_ps(x + i + VEC));
    }
    float rest[FLOAT_LANES] = {0};
    memcpy(rest, x + whole, (n - whole) * sizeof *x);
    lo = _mm256_add_ps(lo, _mm256_loadu_ps(rest));
    hi = _mm256_add_ps(hi, _mm256_loadu_ps(rest + VEC));
    float mean = sum_tree(lo, hi) / (float)n;
    __m256 mv = _mm256_set1_ps(mean);
    lo = hi = _mm256_setzero_ps();
    for (i = 0; i < whole; i += FLOAT_LANES) {
        __m256 d0 = _mm256_sub_ps(_mm256_loadu_ps(x + i), mv);
        __m256 d1 = _mm256_sub_ps(_mm256_loadu_ps(x + i + VEC), mv);
        lo = _mm256_fmadd_ps(d0, d0, lo);
        hi = _mm256_fmadd_ps(d1, d1, hi);
    }
    for (; i < n; i++) rest[i - whole] = x[i] - mean;  // the others are still zero
    __m256 d0 = _mm256_loadu_ps(rest), d1 = _mm256_loadu_ps(rest + VEC);
    lo = _mm256_fmadd_ps(d0, d0, lo);
    hi = _mm256_fmadd_ps(d1, d1, hi);
    float s = 1.0f / k_sqrt(sum_tree(lo, hi) / (float)n + eps);
    for (i = 0; i < whole; i += VEC) {
        __m256 d = _mm256_mul_ps(_mm256_sub_ps(_mm256_loadu_ps(x + i), mv), _mm256_set1_ps(s));
        d = _mm256_fmadd_ps(d, _mm256_loadu_ps(w + i), _mm256_loadu_ps(b + i));
        _mm256_storeu_ps(y + i, d);
    }
    for (; i < n; i++) y[i] = k_fma((x[i] - mean) * s, w[i], b[i]);
}

static void gelu_mul(float *y, const float *gate, const float *up, size_t n) {
    const __m256 one = _mm256_set1_ps(1.0f);
    size_t i = 0;
    for (; i + VEC <= n; i += VEC) {
        __m256 g = _mm256_loadu_ps(gate + i);
        __m256 z =
            _mm256_fmadd_ps(_mm256_mul_ps(g, g), _mm256_set1_ps(GELU_C3), _mm256_set1_ps(GELU_C1));
        __m256 s = _mm256_div_ps(g, _mm256_add_ps(one, exp8(_mm256_mul_ps(g, z))));
        _mm256_storeu_ps(y + i, up ? _mm256_mul_ps(s, _mm256_loadu_ps(up + i)) : s);
    }
    for (; i < n; i++) y[i] = k_gelu(gate[i]) * (up ? up[i] : 1.0f);
}

static void swiglu_oai(float *y, const float *gate, const float *up, size_t n) {
    const __m256 one = _mm256_set1_ps(1.0f), limit = _mm256_set1_ps(OAI_LIMIT);
    size_t i = 0;
    for (; i + VEC <= n; i += VEC) {
        __m256 g = _mm256_min_ps(_mm256_loadu_ps(gate + i), limit);
        __m256 u = _mm256_max_ps(_mm256_loadu_ps(up + i), _mm256_set1_ps(-OAI_LIMIT));
        u = _mm256_add_ps(_mm256_min_ps(u, limit), one);
        __m256 e = exp8(_mm256_mul_ps(g, _mm256_set1_ps(-OAI_ALPHA)));
        __m256 s = _mm256_div_ps(g, _mm256_add_ps(one, e));
        _mm256_storeu_ps(y + i, _mm256_mul_ps(s, u));
    }
    for (; i < n; i++) y[i] = k_swiglu_oai(gate[i], up[i]);
}

static void softcap(float *x, size_t n, float cap) {
    size_t i = 0;
    for (; i + VEC <= n; i += VEC) _mm256_storeu_ps(x + i, cap8(_mm256_loadu_ps(x + i), cap));
    for (; i < n; i++) x[i] = k_tanh(x[i] * (1.0f / cap)) * cap;
}

void kernels_avx2_attend(struct kernels *k) {
    k->attend = attend;
    k->rope_halves = rope_halves;
    k->layernorm = layernorm;
    k->gelu_mul = gelu_mul;
    k->swiglu_oai = swiglu_oai;
    k->softcap = softcap;
}
