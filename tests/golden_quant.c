/* golden_quant TYPE: driver of golden.pl. Blocks in file order on stdin, their f32 values on stdout, by
 * the same dequantiser that reads embedding rows. Exit 4: no kernel for the type. */
#include "kernels.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    int type;
} types[] = {
    {"F32", W_F32},   {"F16", W_F16},       {"BF16", W_BF16},     {"Q4_0", W_Q4_0},
    {"Q4_1", W_Q4_1}, {"Q5_0", W_Q5_0},     {"Q5_1", W_Q5_1},     {"Q8_0", W_Q8_0},
    {"Q2_K", W_Q2_K}, {"Q3_K", W_Q3_K},     {"Q4_K", W_Q4_K},     {"Q5_K", W_Q5_K},
    {"Q6_K", W_Q6_K}, {"IQ4_NL", W_IQ4_NL}, {"IQ4_XS", W_IQ4_XS}, {"MXFP4", W_MXFP4},
};

int main(int argc, char **argv) {
    struct kernels k;
    kernels_init(&k, cpu_features());
    for (size_t i = 0; argc == 2 && i < sizeof types / sizeof *types; i++) {
        if (strcmp(types[i].name, argv[1])) continue;
        enum { MAX_BLOCKS = 1 << 17 };
        size_t values = weight_block(types[i].type),
               bytes = weight_row_bytes(types[i].type, values);
        uint8_t *in = malloc(MAX_BLOCKS * bytes);
        float *out = malloc(MAX_BLOCKS * values * sizeof *out);
        if (!in || !out) exit(1);
        size_t n = fread(in, bytes, MAX_BLOCKS, stdin);
        weight_ops(&k, types[i].type)->dequant(out, in, n * values);
        bool ok = fwrite(out, sizeof *out, n * values, stdout) == n * values;
        free(in);
        free(out);
        return ok ? 0 : 1;
    }
    return 4;
}
