/* kernels.c - the table, and sizes. */
#include "kernels.h"

static const struct {
    unsigned need;
    void (*install)(struct kernels *);
} variants[] = {
    {0, kernels_scalar},  // worst first: later rows overwrite what they improve
    {0, kernels_scalar_k},
    {0, kernels_scalar_attend},
#if defined(__x86_64__)
    {CPU_AVX2, kernels_avx2},
    {CPU_AVX2, kernels_avx2_k},
    {CPU_AVX2, kernels_avx2_attend},
    {CPU_AVX2 | CPU_AVXVNNI, kernels_avxvnni},
    {CPU_AVX2 | CPU_AVX512, kernels_avx512},
#elif defined(__aarch64__)
    {CPU_NEON, kernels_neon},
    {CPU_NEON, kernels_neon_k},
    {CPU_NEON, kernels_neon_attend},
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

size_t weight_row_bytes(int type, size_t n_col) {
    switch (type) {
    case W_F32: return n_col * sizeof(float);
    case W_F16: return n_col * sizeof(uint16_t);
    case W_Q4_0: return n_col / Q_BLOCK * sizeof(struct file_q4_0);
    case W_Q8_0: return n_col / Q_BLOCK * sizeof(struct file_q8_0);
    case W_Q6_K: return n_col / Q_SUPER * sizeof(struct file_q6_k);
    default: return 0;
    }
}

size_t weight_group_bytes(int type, size_t n_col) {
    switch (type) {
    case W_F32: return ROW_GROUP * round_up(n_col, FLOAT_LANES) * sizeof(float);
    case W_F16: return ROW_GROUP * round_up(n_col, FLOAT_LANES) * sizeof(uint16_t);
    case W_Q4_0: return round_up(n_col, COL_UNIT) / COL_UNIT * sizeof(struct kern_q4_0);
    case W_Q8_0: return round_up(n_col, COL_UNIT) / COL_UNIT * sizeof(struct kern_q8_0);
    case W_Q6_K: {
        size_t n_super = n_col / Q_SUPER;
        return n_super * sizeof(struct kern_q6_k) +
               round_up(n_super * sizeof(uint16_t[ROW_GROUP]), 64);
    }
    default: return 0;
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
