/* arch.h - what sets one architecture apart from another: the rows of one table, and the keys that only
 * some of them read. For model/ only; what the forward pass needs of it is struct traits.
 *
 * Sources: the families' published papers and configurations, GGUF's key and tensor names.
 */
#ifndef MODEL_ARCH_H
#define MODEL_ARCH_H

#include "model/gguf.h"

/* What tensors a layer must have (or, where it says so, may), and what is done besides. Biases of
 * attention may be there in any architecture. */
enum arch_flag {
    ARCH_QKV_BIAS = 1 << 0,       // of queries, keys and values
    ARCH_ALL_BIAS = 1 << 1,       // of the output of attention and of the feed-forward part
    ARCH_QK_NORM = 1 << 2,        // of queries and keys, head by head
    ARCH_POST_NORMS = 1 << 3,     // of both branches' outputs
    ARCH_SINKS = 1 << 4,          // a score for each head that takes weight off its positions
    ARCH_EXPERTS = 1 << 5,        // a router and experts
    ARCH_MAY_EXPERTS = 1 << 6,    // either
    ARCH_SHARED = 1 << 7,         // an expert for all tokens besides
    ARCH_GATE_IN_UP = 1 << 8,     // one tensor: gate's rows, then up's
    ARCH_SCALE_EMBD = 1 << 9,     // embeddings are multiplied by the root of their length
    ARCH_MAY_FFN_BIAS = 1 << 10,  // of a feed-forward part without experts
};

struct arch {
    const char *name;
    struct traits traits;
    unsigned flags;
    const char *ffn_norm;  // what its tensor is called; NULL: "ffn_norm"
    uint32_t window,
        period;         // of each `period` layers all but the last see `window` positions (its
                        // default, 0: only with the key); period 0: all see all
    double local_base;  // of RoPE in layers with a window, unscaled; 0: as in the others
    float attn_softcap, final_softcap;  // defaults, 0: none
    uint32_t
        wide_layers;  // a model of so many layers scales scores by n_embd / n_head, not head_dim
};

/* NULL: not one of ours. */
const struct arch *arch_find(const char *name);
/* All names, for a sentence. */
const char *arch_names(char out[static 160]);

/* The keys of scores, windows, embeddings and RoPE into m, whose shape is known; local [n_layer]: which
 * layers have the window. Fails: ERR_FORMAT, ERR_UNSUPPORTED naming the key. */
MUST arch_read(struct model *m, const struct arch *a, struct gguf *g, uint8_t *local,
               struct err *e);

#endif
