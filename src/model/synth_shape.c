#include "model/synth_shape.h"
#include "model/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const struct synth_family llama = {.arch = "llama",
                                          .pre = "llama-bpe",
                                          .ffn_norm = "ffn_norm",
                                          .rope_base = 500000,
                                          .eps = 1e-5F,
                                          .says_dims = true,
                                          .rest = SYNTH_AS_EXPERTS};
static const struct synth_family qwen3 = {.arch = "qwen3",
                                          .pre = "qwen2",
                                          .ffn_norm = "ffn_norm",
                                          .rope_base = 1000000,
                                          .eps = 1e-6F,
                                          .has_qk_norm = true,
                                          .rest = SYNTH_AS_EXPERTS};
static const struct synth_family qwen3moe = {.arch = "qwen3moe",
                                             .pre = "qwen2",
                                             .ffn_norm = "ffn_norm",
                                             .rope_base = 1000000,
                                             .eps = 1e-6F,
                                             .has_qk_norm = true,
                                             .rest = SYNTH_AS_EXPERTS};
static const struct synth_family gpt_oss = {.arch = "gpt-oss",
                                            .pre = "gpt-4o",
                                            .ffn_norm = "post_attention_norm",
                                            .rope_base = 150000,
                                            .eps = 1e-5F,
                                            .has_bias = true,
                                            .window = 128,
                                            .yarn = 32,
                                            .n_ctx_orig = 4096,
                                            .rest = TENSOR_Q8_0};

static const struct synth_shape shapes[] = {
    {"tiny", &llama, 4, 256, 512, 4, 2, 64, 512, 16, 2048, 0, false, 0, 0, 0},
    {"moe-tiny", &llama, 4, 256, 256, 4, 2, 64, 512, 16, 2048, 0, false, 8, 2, 0},
    {"moe-small", &qwen3moe, 8, 256, 256, 4, 2, 64, 2048, 64, 2048, 0, false, 32, 4, 1024},
    {"llama-3.2-1b", &llama, 16, 2048, 8192, 32, 8, 64, 128256, 256, 131072, 32, true, 0, 0, 0},
    {"llama-3.2-3b", &llama, 28, 3072, 8192, 24, 8, 128, 128256, 256, 131072, 32, true, 0, 0, 0},
    {"llama-3.1-8b", &llama, 32, 4096, 14336, 32, 8, 128, 128256, 256, 131072, 8, false, 0, 0, 0},
    {"llama-3.1-70b", &llama, 80, 8192, 28672, 64, 8, 128, 128256, 256, 131072, 8, false, 0, 0, 0},
    {"mixtral-8x7b", &llama, 32, 4096, 14336, 32, 8, 128, 32000, 256, 32768, 0, false, 8, 2, 0},
    {"qwen3-0.6b", &qwen3, 28, 1024, 3072, 16, 8, 128, 151936, 256, 40960, 0, true, 0, 0, 0},
    {"qwen3-30b-a3b", &qwen3moe, 48, 2048, 768, 32, 4, 128, 151936, 256, 40960, 0, false, 128, 8,
     6144},
    {"gpt-oss-20b", &gpt_oss, 24, 2880, 2880, 64, 8, 64, 201088, 256, 131072, 0, false, 32, 4,
     2880},
};

enum { N_SHAPE = sizeof shapes / sizeof *shapes, VOCAB_LEAST = 1024 };

static MUST find_shape(struct synth_shape *out, const char *text, size_t len, struct err *e) {
    char known[200] = "";
    for (size_t i = 0; i < N_SHAPE; i++) {
        size_t at = strlen(known);
        snprintf(known + at, sizeof known - at, "%s%s", i ? ", " : "", shapes[i].name);
        if (strlen(shapes[i].name) == len && !strncasecmp(text, shapes[i].name, len)) {
            *out = shapes[i];
            return true;
        }
    }
    return err_set(e, ERR_USAGE, "unknown shape \"%.40s\"; there are %s, each also with ,layers=N",
                   text, known);
}

/* One cut, "layers=2"; *text is moved behind it. */
static MUST cut_shape(struct synth_shape *s, const char **text, struct err *e) {
    const struct {
        const char *key;
        uint32_t *at;
        uint32_t least, most;
    } cuts[] = {{"layers=", &s->n_layer, 1, MODEL_MAX_LAYER},
                {"vocab=", &s->n_vocab, VOCAB_LEAST, s->n_vocab},
                {"experts=", &s->n_expert, s->n_used, s->n_expert}};
    size_t n = s->n_expert ? 3 : 2;
    for (size_t i = 0; i < n; i++) {
        size_t len = strlen(cuts[i].key);
        if (strncmp(*text, cuts[i].key, len) != 0) continue;
        char *end;
        unsigned long v = strtoul(*text + len, &end, 10);
        if ((*end && *end != ',') || v < cuts[i].least || v > cuts[i].most) {
            return err_set(e, ERR_USAGE, "shape %s: after %s goes a number from %u to %u", s->name,
                           cuts[i].key, (unsigned)cuts[i].least, (unsigned)cuts[i].most);
        }
        *cuts[i].at = (uint32_t)v;
        *text = end;
        return true;
    }
    return err_set(e, ERR_USAGE, "shape \"%s,%.40s\": after the name goes ,layers=N or ,vocab=N%s",
                   s->name, *text, s->n_expert ? " or ,experts=N" : "");
}

MUST synth_shape_parse(struct synth_shape *out, const char *text, struct err *e) {
    size_t len = strcspn(text, ",");
    if (!find_shape(out, text, len, e)) return false;
    for (text += len; *text == ',';) {
        text++;
        if (!cut_shape(out, &text, e)) return false;
    }
    return true;
}
