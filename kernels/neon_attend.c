/* neon_attend.c - attention, LayerNorm, RoPE over halves and activations on AArch64's baseline. */
#include "f16.h"
#include "kernels.h"
#include "neon.h"

#include <string.h>

enum { VECS = FLOAT_LANES / VEC, TILE = 2, TILE_VECS = 8, FEW = 1 };

typedef float32x4_t vec;

ALWAYS vec vec_all(float f) {
    return vdupq_n_f32(f);
}

ALWAYS vec vec_load(const float *p) {
    return vld1q_f32(p);
}

ALWAYS void vec_store(float *p, vec v) {
    vst1q_f32(p, v);
}

ALWAYS vec vec_fma(vec a, vec b, vec c) {
    return vfmaq_f32(c, a, b);
}

ALWAYS vec vec_above(vec a, vec b) {
    return max_number(a, b);
}

ALWAYS vec vec_below(vec a, vec b) {
    return vbslq_f32(vcltq_f32(a, b), a, b);
}

ALWAYS float vec_max(vec v) {
    return vmaxvq_f32(v);
}

ALWAYS vec vec_exp(vec v) {
    return exp4(v);
}

ALWAYS float vec_sum(const vec lane[VECS]) {
    return sum_tree(lane);
}

ALWAYS void vec_pairs(const float *p, vec *a, vec *b) {
    float32x4x2_t v = vld2q_f32(p);
    *a = v.val[0];
    *b = v.val[1];
}

ALWAYS vec load_kv(const void *p, size_t i, enum kv_type type) {
    if (type != KV_Q8_0) return load_float(p, i, type == KV_F16);
    const struct act *b = (const struct act *)p + i / Q_BLOCK;
    int16x8_t q =
        vmovl_s8(vreinterpret_s8_s32(vdup_n_s32(load_int((const char *)b->q + i % Q_BLOCK))));
    return vmulq_n_f32(vcvtq_f32_s32(vmovl_s16(vget_low_s16(q))), bf16_to_f32(b->d));
}

ALWAYS void four_sums(float *out, vec (*lane)[VECS]) {
    vec s[4];
    UNROLL
    for (size_t j = 0; j < 4; j++) s[j] = (lane[j][0] + lane[j][2]) + (lane[j][1] + lane[j][3]);
    vec s01 = vcombine_f32(vget_low_f32(s[0]), vget_low_f32(s[1])) +
              vcombine_f32(vget_high_f32(s[0]), vget_high_f32(s[1]));
    vec s23 = vcombine_f32(vget_low_f32(s[2]), vget_low_f32(s[3])) +
              vcombine_f32(vget_high_f32(s[2]), vget_high_f32(s[3]));
    vec_store(out, vpaddq_f32(s01, s23));
}

ALWAYS void key_sums(float *out, vec (*lane)[VECS], size_t n) {
    UNROLL
    for (size_t j = 0; j < n; j += 4) four_sums(out + j, lane + j);
}

#include "attend.inc"

void kernels_neon_attend(struct kernels *k) {
    install(k);
}
