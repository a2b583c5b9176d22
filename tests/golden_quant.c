/* golden_quant WHAT: driver of golden.pl.
 *
 * A type of weights: blocks in file order on stdin, their f32 values on stdout, by the same dequantiser that
 * reads embedding rows. F16_to_F32, F32_to_F16: numbers on stdin, what they become on stdout, by f16.h, which
 * gives the definitions; the table's kernels must agree to the bit, but that to_f16 clamps to finite halves.
 * Exit 4: nothing here does that. */
#include "f16.h"
#include "kernels.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 1 << 17 };  // blocks, numbers

static const struct {
    const char *name;
    int type;
} types[] = {
    {"F32", W_F32},   {"F16", W_F16},       {"BF16", W_BF16},     {"Q4_0", W_Q4_0},
    {"Q4_1", W_Q4_1}, {"Q5_0", W_Q5_0},     {"Q5_1", W_Q5_1},     {"Q8_0", W_Q8_0},
    {"Q2_K", W_Q2_K}, {"Q3_K", W_Q3_K},     {"Q4_K", W_Q4_K},     {"Q5_K", W_Q5_K},
    {"Q6_K", W_Q6_K}, {"IQ4_NL", W_IQ4_NL}, {"IQ4_XS", W_IQ4_XS}, {"MXFP4", W_MXFP4},
};

static struct kernels k;

static int dequantise(int type) {
    size_t values = weight_block(type), bytes = weight_row_bytes(type, values);
    uint8_t *in = malloc(MOST * bytes);
    float *out = malloc(MOST * values * sizeof *out);
    if (!in || !out) exit(1);
    size_t n = fread(in, bytes, MOST, stdin);
    weight_ops(&k, type)->dequant(out, in, n * values);
    bool ok = fwrite(out, sizeof *out, n * values, stdout) == n * values;
    free(in);
    free(out);
    return ok ? 0 : 1;
}

static int to_f32(void) {
    static uint16_t in[MOST];
    static float out[MOST];
    size_t n = fread(in, sizeof *in, MOST, stdin);
    weight_ops(&k, W_F16)->dequant(out, in, n);
    for (size_t i = 0; i < n; i++) {
        if (f32_bits(out[i]) != f32_bits(f16_to_f32(in[i]))) return 1;
    }
    return fwrite(out, sizeof *out, n, stdout) == n ? 0 : 1;
}

static int to_f16(void) {
    static float in[MOST];
    static uint16_t out[MOST], clamped[MOST];
    size_t n = fread(in, sizeof *in, MOST, stdin);
    k.to_f16(clamped, in, n);
    for (size_t i = 0; i < n; i++) {
        out[i] = f32_to_f16(in[i]);
        uint16_t want = f16_is_finite(out[i]) ? out[i] : in[i] > 0 ? 0x7bff : 0xfbff;
        if (clamped[i] != want) return 1;
    }
    return fwrite(out, sizeof *out, n, stdout) == n ? 0 : 1;
}

int main(int argc, char **argv) {
    if (argc != 2) return 2;
    kernels_init(&k, cpu_features());
    if (!strcmp(argv[1], "F16_to_F32")) return to_f32();
    if (!strcmp(argv[1], "F32_to_F16")) return to_f16();
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        if (!strcmp(types[i].name, argv[1])) return dequantise(types[i].type);
    }
    return 4;
}
