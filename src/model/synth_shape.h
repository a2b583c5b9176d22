/* synth_shape.h - the shapes that synthetic models come in, as differences between families.
 *
 * For model/synth.c only. Sources: the models' published config.json, and the keys and tensor names that
 * GGUF files of the families have (arch.h).
 */
#ifndef MODEL_SYNTH_SHAPE_H
#define MODEL_SYNTH_SHAPE_H

#include "base/err.h"

#include <stdint.h>

#define SYNTH_AS_EXPERTS UINT32_MAX

/* What the file says, and has, differently. */
struct synth_family {
    const char *arch;      // general.architecture, and before its keys
    const char *pre;       // tokenizer.ggml.pre
    const char *ffn_norm;  // name of that tensor
    double rope_base;
    float eps;
    bool says_dims;       // keys of RoPE's dimensions and the vocabulary's size
    bool has_qk_norm;     // norms of queries and keys
    bool has_bias;        // of every matrix but the last, and a sink for each head
    uint32_t window;      // key of the sliding window, 0: none
    float yarn;           // factor of its scaling, 0: none
    uint32_t n_ctx_orig;  // and the context before
    uint32_t rest;        // enum tensor_type of all matrices but experts, or SYNTH_AS_EXPERTS
};

struct synth_shape {
    const char *name;  // NULL: none
    const struct synth_family *family;
    uint32_t n_layer, n_embd, n_ff, n_head, n_head_kv, head_dim, n_vocab, n_special, n_ctx;
    double rope_factor;  // llama 3.1 frequency factors, 0: none
    bool tied;
    uint32_t n_expert, n_used;  // 0: dense
    uint32_t n_ff_dense;        // of a dense layer, were there one: said beside the experts' n_ff;
                                // 0: nothing is said
};

/* "NAME", to be cut with ",layers=N", ",vocab=N", ",experts=N". Fails: ERR_USAGE, naming what there is. */
MUST synth_shape_parse(struct synth_shape *out, const char *text, struct err *e);

#endif
