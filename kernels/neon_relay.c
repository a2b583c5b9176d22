/* neon_relay.c - file order to kernel order, and activations to panels, on AArch64. Same bytes as scalar's. */
#include "f16.h"
#include "kernels.h"
#include "neon.h"
#include "relay.h"

/* 16 bytes of each of 8 rows, `step` apart, to four runs of [8 rows][4 bytes]. */
ALWAYS void transpose_words(void *dst, const char *src, size_t step) {
    uint8_t *out = dst;
    UNROLL
    for (size_t half = 0; half < 2; half++) {
        uint32x4_t v[4];
        UNROLL
        for (size_t r = 0; r < 4; r++) {
            const uint8_t *row = (const uint8_t *)src + (half * 4 + r) * step;
            v[r] = vreinterpretq_u32_u8(vld1q_u8(row));
        }
        uint64x2_t a = vreinterpretq_u64_u32(vtrn1q_u32(v[0], v[1]));
        uint64x2_t b = vreinterpretq_u64_u32(vtrn2q_u32(v[0], v[1]));
        uint64x2_t c = vreinterpretq_u64_u32(vtrn1q_u32(v[2], v[3]));
        uint64x2_t d = vreinterpretq_u64_u32(vtrn2q_u32(v[2], v[3]));
        vst1q_u8(out + 16 * half, vreinterpretq_u8_u64(vtrn1q_u64(a, c)));
        vst1q_u8(out + 16 * half + 32, vreinterpretq_u8_u64(vtrn1q_u64(b, d)));
        vst1q_u8(out + 16 * half + 64, vreinterpretq_u8_u64(vtrn2q_u64(a, c)));
        vst1q_u8(out + 16 * half + 96, vreinterpretq_u8_u64(vtrn2q_u64(b, d)));
    }
}

/* In a register: what was just stored piece by piece is not loaded as one before all is in the cache. */
ALWAYS unsigned gather_scales(uint16_t *d, const char *src, size_t step) {
    const uint16x8_t exponent = vdupq_n_u16(0x7c00);
    uint16x8_t v = vdupq_n_u16(0);
    v = vsetq_lane_u16(load_u16(src), v, 0);
    v = vsetq_lane_u16(load_u16(src + step), v, 1);
    v = vsetq_lane_u16(load_u16(src + 2 * step), v, 2);
    v = vsetq_lane_u16(load_u16(src + 3 * step), v, 3);
    v = vsetq_lane_u16(load_u16(src + 4 * step), v, 4);
    v = vsetq_lane_u16(load_u16(src + 5 * step), v, 5);
    v = vsetq_lane_u16(load_u16(src + 6 * step), v, 6);
    v = vsetq_lane_u16(load_u16(src + 7 * step), v, 7);
    vst1q_u16(d, v);
    return vmaxvq_u16(vceqq_u16(vandq_u16(v, exponent), exponent));
}

/* s8 [8 tokens] = -8 * the sums of q [8][8 tokens][4]. */
ALWAYS void block_sums(int32_t *s8, const int8_t *q) {
    UNROLL
    for (size_t h = 0; h < 2; h++) {
        int16x8_t sum = vdupq_n_s16(0);  // at most 16 * 127
        UNROLL
        for (size_t c = 0; c < 8; c++) sum = vpadalq_s8(sum, vld1q_s8(q + 32 * c + 16 * h));
        vst1q_s32(s8 + 4 * h, vmulq_n_s32(vpaddlq_s16(sum), -8));
    }
}

/* 16 bytes of each of 8 rows, `step` apart, to [16][8 rows]. */
ALWAYS void transpose_bytes(void *dst, const char *src, size_t step) {
    uint8x16_t v[8], w[8];
    uint8_t *out = dst;
    UNROLL
    for (size_t r = 0; r < 8; r++) v[r] = vld1q_u8((const uint8_t *)src + r * step);
    UNROLL
    for (size_t r = 0; r < 4; r++) {  // rows r and r + 4 side by side, then 2 apart, then 1
        w[2 * r] = vzip1q_u8(v[r], v[r + 4]);
        w[2 * r + 1] = vzip2q_u8(v[r], v[r + 4]);
    }
    UNROLL
    for (size_t i = 0; i < 2; i++) {
        uint8x16_t even0 = vzip1q_u8(w[i], w[4 + i]), even1 = vzip2q_u8(w[i], w[4 + i]);
        uint8x16_t odd0 = vzip1q_u8(w[2 + i], w[6 + i]), odd1 = vzip2q_u8(w[2 + i], w[6 + i]);
        vst1q_u8(out + 64 * i, vzip1q_u8(even0, odd0));
        vst1q_u8(out + 64 * i + 16, vzip2q_u8(even0, odd0));
        vst1q_u8(out + 64 * i + 32, vzip1q_u8(even1, odd1));
        vst1q_u8(out + 64 * i + 48, vzip2q_u8(even1, odd1));
    }
}

#include "relay.inc"
#include "relay_k.inc"
#include "relay_q.inc"

static void pack_one(struct panel1 *out, const struct act *q, size_t n_block) {
    for (size_t b = 0; b < n_block; b++) {
        int8x16_t lo = vld1q_s8(q[b].q), hi = vld1q_s8(q[b].q + 16);
        int32_t sum = vaddvq_s32(vpaddlq_s16(vpadalq_s8(vpaddlq_s8(lo), hi)));
        out[b].d[0] = bf16_to_f32(q[b].d);
        out[b].s8[0] = -8 * sum;
        out[b].xs[0] = out[b].d[0] * (float)sum;
        vst1q_s8(out[b].q[0][0], lo);
        vst1q_s8(out[b].q[4][0], hi);
    }
    for (size_t b = n_block; b < (n_block + 3) / 4 * 4; b++) memset(&out[b], 0, sizeof out[b]);
}

static void pack(void *panel, const struct act *q, size_t ldq, size_t n_block, size_t n_tok) {
    if (n_tok == 1) {
        pack_one(panel, q, n_block);
    } else {
        pack_eights(panel, q, ldq, n_block, n_tok);
    }
}

void kernels_neon_relay(struct kernels *k) {
    k->weights[W_Q4_0].relay = relay_q4_0;
    k->weights[W_Q8_0].relay = relay_q8_0;
    k->weights[W_Q4_1].relay = relay_q4_1;
    k->weights[W_Q5_0].relay = relay_q5_0;
    k->weights[W_Q5_1].relay = relay_q5_1;
    k->weights[W_IQ4_NL].relay = relay_iq4_nl;
    k->weights[W_MXFP4].relay = relay_mxfp4;
    k->weights[W_Q2_K].relay = relay_q2_k;
    k->weights[W_Q3_K].relay = relay_q3_k;
    k->weights[W_Q4_K].relay = relay_q4_k;
    k->weights[W_Q5_K].relay = relay_q5_k;
    k->weights[W_Q6_K].relay = relay_q6_k;
    k->weights[W_IQ4_XS].relay = relay_iq4_xs;
    k->pack = pack;
}
