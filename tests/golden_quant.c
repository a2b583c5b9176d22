/* golden_quant TYPE: driver of golden.pl. Blocks in file order on stdin, their f32 values on stdout, by
 * the same dequantiser that reads embedding rows. Exit 4: no kernel for the type. */
#include "kernels.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    int type;
    size_t bytes, values;
} types[] = {
    {"F32", W_F32, 4, 1},     {"F16", W_F16, 2, 1},       {"Q4_0", W_Q4_0, 18, 32},
    {"Q8_0", W_Q8_0, 34, 32}, {"Q6_K", W_Q6_K, 210, 256},
};

int main(int argc, char **argv) {
    struct kernels k;
    kernels_init(&k, cpu_features());
    for (size_t i = 0; argc == 2 && i < sizeof types / sizeof *types; i++) {
        if (strcmp(types[i].name, argv[1])) continue;
        enum { MAX_BLOCKS = 1 << 17 };
        uint8_t *in = malloc(MAX_BLOCKS * types[i].bytes);
        float *out = malloc(MAX_BLOCKS * types[i].values * sizeof *out);
        if (!in || !out) exit(1);
        size_t n = fread(in, types[i].bytes, MAX_BLOCKS, stdin);
        weight_ops(&k, types[i].type)->dequant(out, in, n * types[i].values);
        bool ok = fwrite(out, sizeof *out, n * types[i].values, stdout) == n * types[i].values;
        free(in);
        free(out);
        return ok ? 0 : 1;
    }
    return 4;
}
