/* neon_types.h - how the types of quantised weights lie in kernel order (quants.h), for ARM's registers.
 *
 * Functions take the type and a block's place k in its span as constants; inlined they have no branch.
 * A span is the run of blocks that share bytes in ways that differ from one to the next.
 */
#ifndef KERNELS_NEON_TYPES_H
#define KERNELS_NEON_TYPES_H

#include "kernels.h"
#include "neon.h"

struct form {
    size_t unit, blocks, span;  // bytes of 8 rows in the smallest piece of kernel order, its blocks
    size_t head;                // and its bytes in the group's head; blocks of a span
    size_t largest;             // absolute value of a weight as unpack_chunk() gives it
    int32_t start;              // sums start with the panel's s8 times this
    bool has_min, has_halves;   // has minima; has a scale for 16 columns
};

ALWAYS struct form form_of(enum weight_type type) {
    const size_t f16s = sizeof(uint16_t[ROW_GROUP]);
    switch (type) {
    case W_Q8_0: return (struct form){sizeof(struct kern_q8_0), 4, 1, 0, 128, 0, false, false};
    case W_Q4_1: return (struct form){sizeof(struct kern_q4_1), 4, 1, 0, 15, 0, true, false};
    case W_Q5_0: return (struct form){sizeof(struct kern_q5_0), 4, 1, 0, 31, 2, false, false};
    case W_Q5_1: return (struct form){sizeof(struct kern_q5_1), 4, 1, 0, 31, 0, true, false};
    case W_IQ4_NL: return (struct form){sizeof(struct kern_q4_0), 4, 1, 0, 127, 0, false, false};
    case W_MXFP4: return (struct form){sizeof(struct kern_mxfp4), 1, 1, 8, 12, 0, false, false};
    case W_Q2_K:
        return (struct form){
            sizeof(struct kern_q2_k), 8, 4, sizeof(struct head_q2_k), 3, 0, true, true};
    case W_Q3_K:
        return (struct form){
            sizeof(struct kern_q3_k), 8, 4, sizeof(struct head_q3_k), 4, 0, false, true};
    case W_Q4_K: return (struct form){sizeof(struct kern_q4_k), 8, 2, 0, 15, 0, true, false};
    case W_Q5_K: return (struct form){sizeof(struct kern_q5_k), 8, 2, 0, 31, 0, true, false};
    case W_Q6_K: return (struct form){sizeof(struct kern_q6_k), 8, 4, f16s, 32, 0, false, true};
    case W_IQ4_XS: return (struct form){sizeof(struct kern_iq4_xs), 8, 1, 0, 127, 0, false, false};
    default: return (struct form){sizeof(struct kern_q4_0), 4, 1, 0, 15, 1, false, false};
    }
}

ALWAYS uint8x16_t bytes_at(const char *p) {
    return vld1q_u8((const uint8_t *)p);
}

/* v shifted left by `by`, or right when it is negative. */
ALWAYS uint8x16_t shift(uint8x16_t v, int by) {
    return vshlq_u8(v, vdupq_n_s8((int8_t)by));
}

ALWAYS uint8x8_t shift8(uint8x8_t v, int by) {
    return vshl_u8(v, vdup_n_s8((int8_t)by));
}

/* The chunk's register: weights 4c .. 4c + 3 of four rows in the bytes of its own. */

/* Where a block's bytes are, and those of the bits that are kept apart from them. w: the unit. */
ALWAYS const char *block_bytes(enum weight_type type, const char *w, size_t b) {
    switch (type) {
    case W_Q8_0: return w + offsetof(struct kern_q8_0, q) + 256 * b;
    case W_Q4_1: return w + offsetof(struct kern_q4_1, q) + 128 * b;
    case W_Q5_0: return w + offsetof(struct kern_q5_0, q) + 128 * b;
    case W_Q5_1: return w + offsetof(struct kern_q5_1, q) + 128 * b;
    case W_MXFP4: return w;
    case W_Q2_K: return w + offsetof(struct kern_q2_k, q) + 256 * (b / 4);
    case W_Q3_K: return w + offsetof(struct kern_q3_k, q) + 256 * (b / 4);
    case W_Q4_K: return w + offsetof(struct kern_q4_k, q) + 256 * (b / 2);
    case W_Q5_K: return w + offsetof(struct kern_q5_k, q) + 256 * (b / 2);
    case W_Q6_K: return w + offsetof(struct kern_q6_k, q) + 768 * (b / 4);
    case W_IQ4_XS: return w + offsetof(struct kern_iq4_xs, q) + 128 * b;
    default: return w + offsetof(struct kern_q4_0, q) + 128 * b;
    }
}

ALWAYS const char *high_bytes(enum weight_type type, const char *w, size_t b) {
    switch (type) {
    case W_Q5_0: return w + offsetof(struct kern_q5_0, h) + 32 * b;
    case W_Q5_1: return w + offsetof(struct kern_q5_1, h) + 32 * b;
    case W_Q5_K: return w + offsetof(struct kern_q5_k, h);
    default: return w + offsetof(struct kern_q3_k, h);
    }
}

/* Nibble chunks: 0 .. 3 are low, 4 .. 7 the high ones of the same bytes. */
ALWAYS uint8x16_t nibble(const char *q, size_t c) {
    uint8x16_t v = bytes_at(q + 32 * (c % 4));
    return c < 4 ? vandq_u8(v, vdupq_n_u8(15)) : vshrq_n_u8(v, 4);
}

/* Bits 2k and 2k + 1 at the bottom, others above them. */
ALWAYS uint8x16_t pair_down(uint8x16_t v, size_t k) {
    switch (k) {
    case 0: return v;
    case 1: return vshrq_n_u8(v, 2);
    case 2: return vshrq_n_u8(v, 4);
    default: return vshrq_n_u8(v, 6);
    }
}

/* Chunk c of block b, k-th of its span, of rows 4h .. 4h + 3. */
ALWAYS int8x16_t load_chunk(enum weight_type type, const char *w, size_t b, size_t k, size_t c,
                            size_t h) {
    const char *q = block_bytes(type, w, b) + 16 * h, *high = high_bytes(type, w, b) + 16 * h;
    const uint8x16_t bit4 = vdupq_n_u8(0x10), low4 = vdupq_n_u8(15), low2 = vdupq_n_u8(3);
    uint8x16_t v;
    switch (type) {
    case W_Q8_0: v = bytes_at(q + 32 * c); break;
    case W_Q5_0:
    case W_Q5_1: v = vbslq_u8(bit4, shift(bytes_at(high), 4 - (int)c), nibble(q, c)); break;
    case W_IQ4_NL:
    case W_IQ4_XS: return vqtbl1q_s8(vld1q_s8(iq4_values), nibble(q, c));
    case W_MXFP4: return vqtbl1q_s8(vld1q_s8(fp4_values), nibble(q, c));
    case W_Q4_K:
    case W_Q5_K:
        v = bytes_at(q + 32 * c);
        v = k == 0 ? vandq_u8(v, low4) : vshrq_n_u8(v, 4);
        if (type == W_Q5_K) v = vbslq_u8(bit4, shift(bytes_at(high + 32 * c), 4 - (int)b), v);
        break;
    case W_Q2_K: v = vandq_u8(pair_down(bytes_at(q + 32 * c), k), low2); break;
    case W_Q3_K:  // with bit 2 as it is, less 4: without it, all bits above are ones
        v = vtstq_u8(bytes_at(high + 32 * c), vdupq_n_u8((uint8_t)(1U << b)));
        v = vbslq_u8(low2, pair_down(bytes_at(q + 32 * c), k), vmvnq_u8(v));
        break;
    case W_Q6_K:
        q += 32 * c;
        v = vandq_u8(bytes_at(q + 256 * (k % 3)), vdupq_n_u8(0x3f));
        if (k == 3) {  // the pairs of bits that three planes have left move down one by one
            v = vsriq_n_u8(bytes_at(q + 256), bytes_at(q), 2);
            v = vshrq_n_u8(vsriq_n_u8(bytes_at(q + 512), v, 2), 2);
        }
        v = vsubq_u8(v, vdupq_n_u8(32));
        break;
    default: v = nibble(q, c); break;
    }
    return vreinterpretq_s8_u8(v);
}

/* The order of chunks: those that share bytes follow each other. */
ALWAYS size_t chunk_at(enum weight_type type, size_t i) {
    switch (type) {
    case W_Q8_0:
    case W_Q2_K:
    case W_Q3_K:
    case W_Q4_K:
    case W_Q5_K:
    case W_Q6_K: return i;
    default: return i / 2 + i % 2 * 4;
    }
}

/* Scales. */

struct rows8 {
    float32x4_t h[2];
};

#ifdef __ARM_FEATURE_DOTPROD  // A76: converting is four times slower than adding

/* v - bias: v becomes the low bits of 2^23. */
ALWAYS struct rows8 to_floats(uint8x8_t v, int bias) {
    const uint16x8_t top = vdupq_n_u16(0x4b00), wide = vmovl_u8(v);
    const float32x4_t less = vdupq_n_f32(0x1p23f + (float)bias);
    return (struct rows8){{vsubq_f32(vreinterpretq_f32_u16(vzip1q_u16(wide, top)), less),
                           vsubq_f32(vreinterpretq_f32_u16(vzip2q_u16(wide, top)), less)}};
}

ALWAYS struct rows8 signed_to_floats(uint8x8_t v) {
    return to_floats(veor_u8(v, vdup_n_u8(0x80)), 128);
}

#else

ALWAYS struct rows8 words_to_floats(int16x8_t v) {
    return (struct rows8){
        {vcvtq_f32_s32(vmovl_s16(vget_low_s16(v))), vcvtq_f32_s32(vmovl_high_s16(v))}};
}

ALWAYS struct rows8 to_floats(uint8x8_t v, int bias) {
    int16x8_t wide = vreinterpretq_s16_u16(vmovl_u8(v));
    return words_to_floats(bias ? vsubq_s16(wide, vdupq_n_s16((int16_t)bias)) : wide);
}

ALWAYS struct rows8 signed_to_floats(uint8x8_t v) {
    return words_to_floats(vmovl_s8(vreinterpret_s8_u8(v)));
}

#endif

ALWAYS struct rows8 half_floats(const char *p) {
    return (struct rows8){{load_float(p, 0, true), load_float(p, 4, true)}};
}

ALWAYS struct rows8 product(struct rows8 a, struct rows8 b) {
    return (struct rows8){{vmulq_f32(a.h[0], b.h[0]), vmulq_f32(a.h[1], b.h[1])}};
}

ALWAYS struct rows8 negated(struct rows8 a) {
    return (struct rows8){{vnegq_f32(a.h[0]), vnegq_f32(a.h[1])}};
}

/* Number n of sixteen of 6 bits. */
ALWAYS uint8x8_t six_bits_at(const char *p, size_t n) {
    uint8x8_t lo = vld1_u8((const uint8_t *)p + offsetof(struct six_bits, lo) + 8 * (n % 8));
    uint8x8_t hi = vld1_u8((const uint8_t *)p + offsetof(struct six_bits, hi) + 8 * (n % 4));
    lo = shift8(lo, -4 * (int)(n / 8));
    hi = shift8(hi, 4 - 2 * (int)(n / 4));
    return vand_u8(vbsl_u8(vdup_n_u8(15), lo, hi), vdup_n_u8(63));
}

ALWAYS uint8x8_t xs_scale(const char *w, size_t b) {
    const uint8_t *p = (const uint8_t *)w;
    uint8x8_t lo = vld1_u8(p + offsetof(struct kern_iq4_xs, sc_lo) + 8 * (b % 4));
    uint8x8_t hi = vld1_u8(p + offsetof(struct kern_iq4_xs, sc_hi) + 8 * (b % 2));
    lo = shift8(lo, -4 * (int)(b / 4));
    hi = shift8(hi, 4 - 2 * (int)(b / 2));
    return vand_u8(vbsl_u8(vdup_n_u8(15), lo, hi), vdup_n_u8(63));
}

/* d and -dmin of a super-block, for types that have them. */
struct supers {
    struct rows8 d, m;
};

/* head: the unit's part of the group's head; w: the unit. */
ALWAYS struct supers load_supers(enum weight_type type, const char *head, const char *w) {
    switch (type) {
    case W_Q2_K:
        return (struct supers){half_floats(head),
                               negated(half_floats(head + offsetof(struct head_q2_k, dmin)))};
    case W_Q3_K:
    case W_Q6_K: return (struct supers){.d = half_floats(head)};
    case W_Q4_K:
    case W_Q5_K:
        return (struct supers){half_floats(w),
                               negated(half_floats(w + offsetof(struct kern_q4_k, dmin)))};
    case W_IQ4_XS: return (struct supers){.d = half_floats(w)};
    default: return (struct supers){.d = {{vdupq_n_f32(0), vdupq_n_f32(0)}}};
    }
}

/* The scale of block b (with halves, d). */
ALWAYS struct rows8 load_scale(enum weight_type type, const struct supers *s, const char *head,
                               const char *w, size_t b) {
    switch (type) {
    case W_MXFP4: {  // the upper bits of the float
        uint16x8_t e = vshll_n_u8(vld1_u8((const uint8_t *)head), 7);
        return (struct rows8){{vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(e), 16)),
                               vreinterpretq_f32_u32(vshll_n_u16(vget_high_u16(e), 16))}};
    }
    case W_Q2_K:
    case W_Q3_K:
    case W_Q6_K: return s->d;
    case W_Q4_K:
    case W_Q5_K:
        return product(s->d, to_floats(six_bits_at(w + offsetof(struct kern_q4_k, sc), b), 0));
    case W_IQ4_XS: return product(s->d, to_floats(xs_scale(w, b), 32));
    default: return half_floats(w + sizeof(uint16_t[ROW_GROUP]) * b);
    }
}

/* What is multiplied with the sum of a block's activations (with halves: with their sums times
 * half_min()), types that has_min. */
ALWAYS struct rows8 load_min(enum weight_type type, const struct supers *s, const char *w,
                             size_t b) {
    switch (type) {
    case W_Q4_1: return half_floats(w + offsetof(struct kern_q4_1, m) + 16 * b);
    case W_Q5_1: return half_floats(w + offsetof(struct kern_q5_1, m) + 16 * b);
    case W_Q2_K: return s->m;
    default:
        return product(s->m, to_floats(six_bits_at(w + offsetof(struct kern_q4_k, sc), b + 8), 0));
    }
}

/* The scale of columns 16u .. 16u + 15 of block b. */
ALWAYS struct rows8 half_scale(enum weight_type type, const char *head, const char *w, size_t b,
                               size_t u) {
    const uint8_t *sc = (const uint8_t *)w + (2 * b + u) * ROW_GROUP;  // Q2_K and Q6_K
    switch (type) {
    case W_Q2_K: return to_floats(vand_u8(vld1_u8(sc), vdup_n_u8(15)), 0);
    case W_Q3_K:
        return to_floats(six_bits_at(head + offsetof(struct head_q3_k, sc), 2 * b + u), 32);
    default: return signed_to_floats(vld1_u8(sc));
    }
}

ALWAYS struct rows8 half_min(const char *w, size_t b, size_t u) {
    return to_floats(vshr_n_u8(vld1_u8((const uint8_t *)w + (2 * b + u) * ROW_GROUP), 4), 0);
}

_Static_assert(offsetof(struct kern_q4_k, sc) == offsetof(struct kern_q5_k, sc),
               "one code for both");
_Static_assert(offsetof(struct kern_q4_0, d) == 0 && offsetof(struct kern_q8_0, d) == 0 &&
                   offsetof(struct kern_q4_1, d) == 0 && offsetof(struct kern_q5_0, d) == 0 &&
                   offsetof(struct kern_q5_1, d) == 0 && offsetof(struct kern_iq4_xs, d) == 0,
               "scales first");

#endif
