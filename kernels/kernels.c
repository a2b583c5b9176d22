/* kernels.c - the table, sizes, and rows of the cache. */
#include "kernels.h"

#include <string.h>

static const struct {
    unsigned need;
    void (*install)(struct kernels *);
} variants[] = {
    {0, kernels_scalar},  // worst first: later rows overwrite what they improve
    {0, kernels_scalar_q},
    {0, kernels_scalar_k},
    {0, kernels_scalar_attend},
#if defined(__x86_64__)
    {CPU_AVX2, kernels_avx2},
    {CPU_AVX2, kernels_avx2_q},
    {CPU_AVX2, kernels_avx2_attend},
    {CPU_AVX2 | CPU_AVXVNNI, kernels_avxvnni},
    {CPU_AVX2 | CPU_AVX512, kernels_avx512},
    {CPU_AVX2 | CPU_AVX512 | CPU_ZEN5, kernels_zen5},
    {CPU_AVX2 | CPU_AVX512, kernels_avx512_float},
    {CPU_AVX2 | CPU_AVX512, kernels_avx512_attend},
#elif defined(__aarch64__)
    {CPU_NEON, kernels_neon},
    {CPU_NEON, kernels_neon_relay},
    {CPU_NEON, kernels_neon_q},
    {CPU_NEON, kernels_neon_attend},
    {CPU_NEON | CPU_DOTPROD, kernels_dotprod},
#endif
};

void kernels_init(struct kernels *k, unsigned cpu) {
    for (size_t i = 0; i < sizeof variants / sizeof *variants; i++) {
        if ((variants[i].need & ~cpu) == 0) variants[i].install(k);
    }
}

static size_t round_up(size_t n, size_t unit) {
    return (n + unit - 1) / unit * unit;
}

/* File order: bytes of a block of so many columns. Kernel order: bytes of 8 rows of so many columns,
 * and of what the head holds of one block of theirs. */
static const struct {
    uint16_t file_cols, file_bytes, kern_cols, kern_bytes, head_bytes;
} forms[N_WEIGHT_TYPE] = {
    [W_F32] = {1, 4, FLOAT_LANES, FLOAT_LANES *ROW_GROUP * 4, 0},
    [W_F16] = {1, 2, FLOAT_LANES, FLOAT_LANES *ROW_GROUP * 2, 0},
    [W_BF16] = {1, 2, FLOAT_LANES, FLOAT_LANES *ROW_GROUP * 2, 0},
    [W_Q4_0] = {Q_BLOCK, sizeof(struct file_q4_0), COL_UNIT, sizeof(struct kern_q4_0), 0},
    [W_Q4_1] = {Q_BLOCK, sizeof(struct file_q4_1), COL_UNIT, sizeof(struct kern_q4_1), 0},
    [W_Q5_0] = {Q_BLOCK, sizeof(struct file_q5_0), COL_UNIT, sizeof(struct kern_q5_0), 0},
    [W_Q5_1] = {Q_BLOCK, sizeof(struct file_q5_1), COL_UNIT, sizeof(struct kern_q5_1), 0},
    [W_Q8_0] = {Q_BLOCK, sizeof(struct file_q8_0), COL_UNIT, sizeof(struct kern_q8_0), 0},
    [W_IQ4_NL] = {Q_BLOCK, sizeof(struct file_q4_0), COL_UNIT, sizeof(struct kern_q4_0), 0},
    [W_MXFP4] = {Q_BLOCK, sizeof(struct file_mxfp4), Q_BLOCK, sizeof(struct kern_mxfp4), ROW_GROUP},
    [W_Q2_K] = {Q_SUPER, sizeof(struct file_q2_k), Q_SUPER, sizeof(struct kern_q2_k),
                sizeof(struct head_q2_k)},
    [W_Q3_K] = {Q_SUPER, sizeof(struct file_q3_k), Q_SUPER, sizeof(struct kern_q3_k),
                sizeof(struct head_q3_k)},
    [W_Q4_K] = {Q_SUPER, sizeof(struct file_q4_k), Q_SUPER, sizeof(struct kern_q4_k), 0},
    [W_Q5_K] = {Q_SUPER, sizeof(struct file_q5_k), Q_SUPER, sizeof(struct kern_q5_k), 0},
    [W_Q6_K] = {Q_SUPER, sizeof(struct file_q6_k), Q_SUPER, sizeof(struct kern_q6_k),
                sizeof(uint16_t[ROW_GROUP])},
    [W_IQ4_XS] = {Q_SUPER, sizeof(struct file_iq4_xs), Q_SUPER, sizeof(struct kern_iq4_xs), 0},
};

size_t weight_block(int type) {
    return type < 0 || type >= N_WEIGHT_TYPE ? 0 : forms[type].file_cols;
}

size_t weight_row_bytes(int type, size_t n_col) {
    size_t unit = weight_block(type);
    return unit ? n_col / unit * forms[type].file_bytes : 0;
}

size_t weight_head_bytes(int type, size_t n_col) {
    size_t unit = weight_block(type);
    return unit ? round_up(n_col / unit * forms[type].head_bytes, 64) : 0;
}

size_t weight_group_bytes(int type, size_t n_col) {
    if (weight_block(type) == 0) return 0;
    size_t unit = forms[type].kern_cols;
    return weight_head_bytes(type, n_col) + (n_col + unit - 1) / unit * forms[type].kern_bytes;
}

size_t kv_row_bytes(enum kv_type type, size_t hd) {
    switch (type) {
    case KV_F32: return hd * sizeof(float);
    case KV_F16: return hd * sizeof(uint16_t);
    case KV_Q8_0: return round_up(hd, Q_BLOCK) / Q_BLOCK * sizeof(struct act);
    }
    return 0;
}

size_t kv_row_values(enum kv_type type, size_t hd) {
    return type == KV_Q8_0 ? round_up(hd, Q_BLOCK) : hd;
}

void kv_store(const struct kernels *k, enum kv_type type, void *row, const float *x, size_t hd) {
    switch (type) {
    case KV_F32: memcpy(row, x, hd * sizeof *x); break;
    case KV_F16: k->to_f16(row, x, hd); break;
    case KV_Q8_0: k->quantise(row, x, hd); break;
    }
}

size_t panel_bytes(size_t n_col, size_t n_tok) {
    size_t n_block = round_up(n_col, COL_UNIT) / Q_BLOCK;
    size_t bytes = n_tok == 1 ? n_block * sizeof(struct panel1)
                              : (n_tok + 7) / 8 * n_block * sizeof(struct panel8);
    return round_up(bytes, 64);
}

const struct weight_ops *weight_ops(const struct kernels *k, int type) {
    if (type < 0 || type >= N_WEIGHT_TYPE || !k->weights[type].matmul) return NULL;
    return &k->weights[type];
}

size_t attend_room(size_t hd) {
    return ATTEND_UNPACKED + ATTEND_QUERIES * (2 * round_up(hd, FLOAT_LANES) + ATTEND_BLOCK);
}

/* Queries of the thread that has most to do. */
static size_t most_queries(size_t n_kv, size_t n_query, size_t n_thread, size_t together) {
    size_t calls = n_kv * ((n_query + together - 1) / together);
    return (calls + n_thread - 1) / n_thread * together;
}

size_t attend_together(size_t n_kv, size_t n_query, size_t n_thread) {
    size_t some = n_query < ATTEND_QUERIES ? n_query : ATTEND_QUERIES;
    size_t most = most_queries(n_kv, n_query, n_thread, some);
    for (size_t half = some / 2; half; half /= 2) {
        size_t now = most_queries(n_kv, n_query, n_thread, half);
        if (8 * now <= 7 * most) some = half, most = now;
    }
    return some;
}
