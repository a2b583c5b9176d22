/* resident.h - the small things of a slice that are always in memory: norms, biases, sinks, and the
 * frequencies of RoPE. */
#ifndef NN_RESIDENT_H
#define NN_RESIDENT_H

#include "nn/nn.h"

/* Of a layer; NULL where the model has none. What belongs to rows of matrices is of own rows only. */
struct layer_vectors {
    float *attn_norm, *attn_norm_bias, *ffn_norm, *ffn_norm_bias;  // [n_embd]
    float *post_attn, *post_ffn;                                   // [n_embd]
    float *q_norm, *k_norm;                                        // [head_dim]
    float *q_bias, *k_bias, *v_bias, *sinks;                       // own heads
    float *o_bias;                                                 // own embd rows
    float *gate_bias, *up_bias, *down_bias;  // own rows, of experts [n_expert] of them
    float *router_bias;                      // [n_expert]
};

/* Floats of all layers' vectors, each rounded up to whole lines of memory. */
size_t resident_floats(const struct nn *n);
/* Tables of frequencies: one, or two where local layers have their own. */
uint32_t resident_tables(const struct model *m);
/* Read them all into n->vec, n->output_norm..., n->freq; n->pool is carved. */
MUST resident_load(struct nn *n, struct err *e);

/* nn.c: bytes [off, off + len) of a tensor to dst. */
MUST nn_read(struct nn *n, void *dst, const struct tensor *t, uint64_t off, uint64_t len,
             struct err *e);

#endif
