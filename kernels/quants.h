/* quants.h - weight and activation blocks, byte for byte.
 *
 * File order is GGUF's (row major; its type numbers are used everywhere). Kernel order is ours: 8
 * rows interleaved, 4 weights of each row in turn, so that one 32-bit lane holds 4 weights of one
 * row on every instruction set; re-laying is a transposition of 32-bit words (Q6_K's bits are regrouped,
 * too). Groups of 8 rows are contiguous. Columns are padded to 128 with zero scales (Q6_K: they are a
 * multiple of 256), rows to 8.
 */
#ifndef KERNELS_QUANTS_H
#define KERNELS_QUANTS_H

#include <stdint.h>

enum {
    Q_BLOCK = 32,      // values that share a scale
    Q_SUPER = 256,     // values of a super-block of Q6_K: columns are a multiple of it
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

/* Kernel order: 8 rows x 128 columns. */
struct kern_q4_0 {
    uint16_t d[4][ROW_GROUP];       // [block][row] f16
    uint8_t q[4][4][ROW_GROUP][4];  // [block][c][row][i]: low = w[4c + i], high = w[16 + 4c + i]
};
struct kern_q8_0 {
    uint16_t d[4][ROW_GROUP];
    int8_t q[4][8][ROW_GROUP][4];  // [block][c][row][i] = w[4c + i]
};
/* 8 rows x 256 columns. Of a half's four blocks three lie whole in a byte each, and the fourth in what
 * they leave: unpacking takes half the instructions that GGUF's order would. A d [8 rows], f16, would
 * break the lines of 64 bytes; so a group of rows begins with all of them, d [super-block][row], padded
 * with zeros to 64 bytes. */
struct kern_q6_k {
    int8_t sc[16][ROW_GROUP];          // [16 columns][row]
    uint8_t q[2][3][8][ROW_GROUP][4];  // [half][k][c][row][i]: bits 0-5 = weight 4c + i of block k,
                                       // bits 6-7 = bits 2k and 2k + 1 of the weight of block 3
};
_Static_assert(sizeof(struct kern_q4_0) == 576, "9 cache lines");
_Static_assert(sizeof(struct kern_q8_0) == 1088, "17 cache lines");
_Static_assert(sizeof(struct kern_q6_k) == 1664, "26 cache lines");

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

/* Activation panels: what the matrix kernels eat, for T = 1 (decode) or 8 tokens at once. */
#define PANEL(T)                                                                                   \
    struct panel##T {                                                                              \
        float d[T];        /* scale of token t */                                                  \
        int32_t s8[T];     /* -8 * (sum of q): Q4_0's start; << 4 is -128 * sum, Q8_0 on VNNI */   \
        int8_t q[8][T][4]; /* [c][token][i] = q[4c + i] */                                         \
    }
PANEL(1);
PANEL(8);
_Static_assert(sizeof(struct panel1) == 40 && sizeof(struct panel8) == 320, "40 bytes a token");

#endif
