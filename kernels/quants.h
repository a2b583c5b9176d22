/* quants.h - weight and activation blocks, byte for byte.
 *
 * File order is GGUF's (row major; its type numbers are used everywhere). Kernel order is ours: 8
 * rows interleaved, 4 weights of each row in turn, so that one 32-bit lane holds 4 weights of one
 * row on every instruction set; re-laying is a transposition of 32-bit words (some types' high bits
 * and scales are regrouped, too). Groups of 8 rows are contiguous. Where a type's blocks of 8 rows
 * do not fill whole lines of 64 bytes, the scales of all of a group's blocks come first: its head,
 * [block][...], padded with zeros to 64 bytes. Columns are padded (see kernels.c) and rows, too, with
 * zero bytes; Q4_0 with zero scales and the weight 0. Zero scales make any other bytes harmless.
 */
#ifndef KERNELS_QUANTS_H
#define KERNELS_QUANTS_H

#include <stddef.h>
#include <stdint.h>

enum {
    Q_BLOCK = 32,      // values that share a scale
    Q_SUPER = 256,     // values of a super-block of a K-quant: columns are a multiple of it
    ROW_GROUP = 8,     // rows interleaved in kernel order
    COL_UNIT = 128,    // columns are padded to this in kernel order (quantised types)
    FLOAT_LANES = 16,  // float weights: columns are padded to this, sums run in this many lanes
};

/* GGUF type numbers of the weights we have kernels for. */
enum weight_type {
    W_F32 = 0,
    W_F16 = 1,
    W_Q4_0 = 2,
    W_Q4_1 = 3,
    W_Q5_0 = 6,
    W_Q5_1 = 7,
    W_Q8_0 = 8,
    W_Q2_K = 10,
    W_Q3_K = 11,
    W_Q4_K = 12,
    W_Q5_K = 13,
    W_Q6_K = 14,
    W_IQ4_NL = 20,
    W_IQ4_XS = 23,
    W_BF16 = 30,
    W_MXFP4 = 39,
    N_WEIGHT_TYPE = 40,
};

/* File order. Byte arrays only, so that any alignment is fine. */
struct file_q4_0 {
    uint8_t d[2];   // f16 scale
    uint8_t q[16];  // low nibble: weight i, high: weight 16 + i; value = (nibble - 8) * d
};
struct file_q8_0 {
    uint8_t d[2];
    int8_t q[32];
};
struct file_q4_1 {
    uint8_t d[2], m[2];  // f16
    uint8_t q[16];       // as Q4_0; value = nibble * d + m
};
struct file_q5_0 {
    uint8_t d[2];
    uint8_t h[4];   // bit i of 32, the lowest first: bit 4 of weight i
    uint8_t q[16];  // value = (5 bits - 16) * d
};
struct file_q5_1 {
    uint8_t d[2], m[2], h[4];
    uint8_t q[16];  // value = 5 bits * d + m
};
/* IQ4_NL has Q4_0's form; value = iq4_values[nibble] * d. */
struct file_mxfp4 {
    uint8_t e;      // E8M0: scale 2^(e - 128) for the doubled values of the table
    uint8_t q[16];  // as Q4_0; value = fp4_values[nibble] * scale
};
/* K-quants: super-blocks of 8 blocks of 32, whose scales (and minima) are small integers times d (and
 * dmin), f16. A byte's pairs of bits, or nibbles, belong to blocks that follow one another. */
struct file_q2_k {
    uint8_t sc[16];  // of 16 values: low nibble scale, high minimum
    uint8_t q[64];   // half of 4 blocks: [32], bits 2k: block k; value = d * sc * bits - dmin * m
    uint8_t d[2], dmin[2];
};
struct file_q3_k {
    uint8_t h[32];   // [32], bit b: bit 2 of the weights of block b
    uint8_t q[64];   // as Q2_K
    uint8_t sc[12];  // 16 numbers of 6 bits as in six_bits; value = d * (sc - 32) * (3 bits - 4)
    uint8_t d[2];
};
/* Scale and minimum of block b < 4: bits 0-5 of sc[b] and sc[b + 4]; of b >= 4: the low and high
 * nibble of sc[b + 4], and above it bits 6-7 of sc[b - 4] and sc[b]. */
struct file_q4_k {
    uint8_t d[2], dmin[2];
    uint8_t sc[12];
    uint8_t q[128];  // [pair of blocks][32]: low nibble the first; value = d * sc * bits - dmin * m
};
struct file_q5_k {
    uint8_t d[2], dmin[2];
    uint8_t sc[12];  // as Q4_K
    uint8_t h[32];   // bit b: bit 4 of the weights of block b
    uint8_t q[128];  // as Q4_K
};
/* value = d * (sc - 32) * iq4_values[nibble]. */
struct file_iq4_xs {
    uint8_t d[2];
    uint8_t sc_hi[2];  // bits 2b of 16: bits 4-5 of the scale of block b
    uint8_t sc_lo[4];  // [pair of blocks]: low nibble the first
    uint8_t q[128];    // [block], each as Q4_0
};
/* Two halves of four blocks. Block k of half h, weight i: the low 4 bits are in ql[64h + 32(k % 2) + i],
 * in its low nibble if k < 2; the high 2 bits are bits 2k of qh[32h + i]; scales sc[8h + 2k] for
 * i < 16 and sc[8h + 2k + 1] behind. value = d * sc * (6 bits - 32). */
struct file_q6_k {
    uint8_t ql[128];
    uint8_t qh[64];
    int8_t sc[16];
    uint8_t d[2];
};
_Static_assert(sizeof(struct file_q4_0) == 18, "GGUF Q4_0");
_Static_assert(sizeof(struct file_q8_0) == 34, "GGUF Q8_0");
_Static_assert(sizeof(struct file_q6_k) == 210, "GGUF Q6_K");
_Static_assert(sizeof(struct file_q4_1) == 20, "GGUF Q4_1");
_Static_assert(sizeof(struct file_q5_0) == 22, "GGUF Q5_0");
_Static_assert(sizeof(struct file_q5_1) == 24, "GGUF Q5_1");
_Static_assert(sizeof(struct file_mxfp4) == 17, "GGUF MXFP4");
_Static_assert(sizeof(struct file_q2_k) == 84, "GGUF Q2_K");
_Static_assert(sizeof(struct file_q3_k) == 110, "GGUF Q3_K");
_Static_assert(sizeof(struct file_q4_k) == 144, "GGUF Q4_K");
_Static_assert(sizeof(struct file_q5_k) == 176, "GGUF Q5_K");
_Static_assert(sizeof(struct file_iq4_xs) == 136, "GGUF IQ4_XS");

/* What the nibbles of IQ4_NL and IQ4_XS mean, and those of MXFP4 (E2M1, doubled). */
static const int8_t iq4_values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                      1,    13,   25,  38,  53,  69,  89,  113};
static const int8_t fp4_values[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
/* Exponents of MXFP4: below LOW the block counts as zero, above HIGH it is refused, so that nothing
 * over- or underflows. */
enum { FP4_EXP_LOW = 69, FP4_EXP_HIGH = 168 };

/* Kernel order: 8 rows x 128 columns. */
struct kern_q4_0 {
    uint16_t d[4][ROW_GROUP];       // [block][row] f16
    uint8_t q[4][4][ROW_GROUP][4];  // [block][c][row][i]: low = w[4c + i], high = w[16 + 4c + i]
};
struct kern_q8_0 {
    uint16_t d[4][ROW_GROUP];
    int8_t q[4][8][ROW_GROUP][4];  // [block][c][row][i] = w[4c + i]
};
struct kern_q4_1 {
    uint16_t d[4][ROW_GROUP], m[4][ROW_GROUP];
    uint8_t q[4][4][ROW_GROUP][4];  // as Q4_0
};
struct kern_q5_0 {
    uint16_t d[4][ROW_GROUP];
    uint8_t h[4][ROW_GROUP][4];     // [block][row][i]: bit c = bit 4 of weight 4c + i, c < 8
    uint8_t q[4][4][ROW_GROUP][4];  // as Q4_0
};
struct kern_q5_1 {
    uint16_t d[4][ROW_GROUP], m[4][ROW_GROUP];
    uint8_t h[4][ROW_GROUP][4];
    uint8_t q[4][4][ROW_GROUP][4];
};
/* IQ4_NL: struct kern_q4_0. */
/* 8 rows x 32 columns; head: uint8_t [block][row], the upper bits of the f32 scale: e - 1, or 0 for a
 * block that counts as zero. */
struct kern_mxfp4 {
    uint8_t q[4][ROW_GROUP][4];  // as Q4_0
};
/* 8 rows x 256 columns from here on. Sixteen numbers of 6 bits for each row. */
struct six_bits {
    uint8_t lo[8][ROW_GROUP];  // bits 0-3 of number n and, in the high nibble, of number n + 8
    uint8_t hi[4]
              [ROW_GROUP];  // bits 4-5 of the numbers n, n + 4, n + 8 and n + 12, the lowest first
};
struct kern_q2_k {                  // head: struct head_q2_k
    uint8_t sc[16][ROW_GROUP];      // [16 columns][row]: scale | minimum << 4
    uint8_t q[2][8][ROW_GROUP][4];  // [half][c][row][i]: bits 2k = weight 4c + i of block k
};
struct head_q2_k {
    uint16_t d[ROW_GROUP], dmin[ROW_GROUP];
};
struct kern_q3_k {                  // head: struct head_q3_k
    uint8_t h[8][ROW_GROUP][4];     // [c][row][i]: bit b = bit 2 of weight 4c + i of block b
    uint8_t q[2][8][ROW_GROUP][4];  // as Q2_K
};
struct head_q3_k {
    uint16_t d[ROW_GROUP];
    struct six_bits sc;  // [16 columns]
};
struct kern_q4_k {
    uint16_t d[ROW_GROUP], dmin[ROW_GROUP];
    struct six_bits sc;             // the 8 blocks' scales, then their minima
    uint8_t q[4][8][ROW_GROUP][4];  // [p][c][row][i]: low = weight 4c + i of block 2p, high: 2p + 1
};
struct kern_q5_k {
    uint16_t d[ROW_GROUP], dmin[ROW_GROUP];
    struct six_bits sc;
    uint8_t h[8][ROW_GROUP][4];  // [c][row][i]: bit b = bit 4 of weight 4c + i of block b
    uint8_t q[4][8][ROW_GROUP][4];
};
struct kern_iq4_xs {
    uint16_t d[ROW_GROUP];
    uint8_t sc_hi[2][ROW_GROUP];    // bits 4-5 of the scales of blocks n, n + 2, n + 4 and n + 6
    uint8_t sc_lo[4][ROW_GROUP];    // bits 0-3 of the scale of block n and, above, of block n + 4
    uint8_t q[8][4][ROW_GROUP][4];  // [block], each as Q4_0
};
/* Q6_K. Of a half's four blocks three lie whole in a byte each, and the fourth in what
 * they leave: unpacking takes half the instructions that GGUF's order would. Head: uint16_t d [row], f16. */
struct kern_q6_k {
    int8_t sc[16][ROW_GROUP];          // [16 columns][row]
    uint8_t q[2][3][8][ROW_GROUP][4];  // [half][k][c][row][i]: bits 0-5 = weight 4c + i of block k,
                                       // bits 6-7 = bits 2k and 2k + 1 of the weight of block 3
};
_Static_assert(sizeof(struct kern_q4_0) == 576, "9 cache lines");
_Static_assert(sizeof(struct kern_q8_0) == 1088, "17 cache lines");
_Static_assert(sizeof(struct kern_q6_k) == 1664, "26 cache lines");
_Static_assert(sizeof(struct kern_q4_1) == 640, "10 cache lines");
_Static_assert(sizeof(struct kern_q5_0) == 704, "11 cache lines");
_Static_assert(sizeof(struct kern_q5_1) == 768, "12 cache lines");
_Static_assert(sizeof(struct kern_mxfp4) == 128, "2 cache lines");
_Static_assert(sizeof(struct kern_q2_k) == 640 && sizeof(struct head_q2_k) == 32, "10 lines");
_Static_assert(sizeof(struct kern_q3_k) == 768 && sizeof(struct head_q3_k) == 112, "12 lines");
_Static_assert(sizeof(struct kern_q4_k) == 1152, "18 cache lines");
_Static_assert(sizeof(struct kern_q5_k) == 1408, "22 cache lines");
_Static_assert(sizeof(struct kern_iq4_xs) == 1088, "17 cache lines");

/* 32 activations as they are quantised, gathered between slices and sent: d is a bf16 (the upper
 * half of an f32), q in [-127, 127]. 34 bytes without loss. */
struct act {
    uint16_t d;
    int8_t q[Q_BLOCK];
};
_Static_assert(sizeof(struct act) == 34, "wire form");

/* 32 branch outputs on the wire: value = q * d. */
struct wire16 {
    float d;
    int16_t q[Q_BLOCK];
};
_Static_assert(sizeof(struct wire16) == 68, "wire form");

/* The largest d that quantising gives, of values of 2^60: as bits. */
enum { ACT_D_MOST = 0x5a02, WIRE16_D_MOST = 0x56000100 };

/* Activation panels: what the matrix kernels eat, for T = 1 (decode) or 8 tokens at once. */
#define PANEL(T)                                                                                   \
    struct panel##T {                                                                              \
        float d[T];        /* scale of token t */                                                  \
        int32_t s8[T];     /* -8 * (sum of q): Q4_0's start; << 4 is -128 * sum, Q8_0 on VNNI */   \
        int8_t q[8][T][4]; /* [c][token][i] = q[4c + i] */                                         \
        float xs[T];       /* d * (sum of q), which is exact: what minima are multiplied with */   \
    }
PANEL(1);
PANEL(8);
_Static_assert(sizeof(struct panel1) == 44 && sizeof(struct panel8) == 352, "44 bytes a token");
_Static_assert(sizeof(struct panel8) % 32 == 0 && offsetof(struct panel8, q) % 32 == 0,
               "registers are loaded aligned");

#endif
