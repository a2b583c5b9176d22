/* model.h - what every reader of a model file yields: shape, tensor directory, vocabulary.
 *
 * Opening reads the file's metadata only (by pread in small windows, never mapped); the weights stay
 * on disk and are named by (file, offset). Everything hangs in one arena, dropped by model_close().
 * The directory is validated here, once: after model_open() every tensor of the architecture is
 * there, has the right shape and lies inside its file, so later layers need not ask again.
 *
 * Formats: GGUF v2 and v3 (ggml docs/gguf.md), also split into a set of files, of which the first is
 * opened and names the others; distributed-llama's .m with a .t (model/dllama.h). Threads: read-only
 * after open.
 */
#ifndef MODEL_MODEL_H
#define MODEL_MODEL_H

#include "base/arena.h"
#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

/* Limits on what a file may claim; past them it is refused with the numbers. */
enum {
    MODEL_MAX_LAYER = 1024,
    MODEL_MAX_EMBD = 1 << 20,  // also d_ff and heads * head_dim
    MODEL_MAX_HEAD_DIM = 512,  // what attention computes with
    MODEL_MAX_HEAD = 4096,
    MODEL_MAX_VOCAB = 1 << 22,
    MODEL_MAX_CTX = 1 << 24,
    MODEL_MAX_TENSOR = 1 << 16,
    MODEL_MAX_KV = 1 << 16,
    MODEL_MAX_META = 1 << 28,  // bytes of metadata kept: strings and arrays
    MODEL_MAX_EXPERT = 256,    // of a layer
    MODEL_MAX_USED = 16,       // of them for one token
    MODEL_MAX_FILE = 512,      // of a split set
};

/* Of what divides the frequencies of rotary embeddings, whose bases are 1 at least: with much larger frequencies
 * angles would have no digits left. Files people have: 1 and more. */
#define MODEL_LEAST_FACTOR 1e-3

/* GGUF tensor types; all sizes are known, kernels exist for some (see weight_ops). */
enum tensor_type {
    TENSOR_F32 = 0,
    TENSOR_F16 = 1,
    TENSOR_Q4_0 = 2,
    TENSOR_Q4_1 = 3,
    TENSOR_Q5_0 = 6,
    TENSOR_Q5_1 = 7,
    TENSOR_Q8_0 = 8,
    TENSOR_Q2_K = 10,
    TENSOR_Q3_K = 11,
    TENSOR_Q4_K = 12,
    TENSOR_Q5_K = 13,
    TENSOR_Q6_K = 14,
    TENSOR_BF16 = 30,
    TENSOR_MXFP4 = 39,
};

/* A type's name and block, e.g. {"Q4_0", 32, 18}; NULL for a type that GGUF does not define (or has
 * removed). Covers every type number GGUF defines, so that inspect can name what run refuses. */
struct tensor_format {
    const char *name;
    uint32_t block;  // values a block
    uint32_t bytes;  // bytes a block
};
const struct tensor_format *tensor_format(uint32_t type);

struct tensor {
    const char *name;
    uint32_t type;  // enum tensor_type or any other GGUF number with a tensor_format
    uint32_t n_dim;
    uint64_t dim[4];  // dim[0] is the row length (columns), dim[1] the rows; absent ones are 1
    uint32_t file;    // index into model.file
    uint64_t off;     // in that file, absolute (a model embedded in another file included)
    uint64_t len;     // bytes
};

/* One file of weights. The demo model is a range of our own executable. Of the range's bytes the first
 * meta_len describe the model and those from data_off (absolute) on are weights. */
struct model_file {
    const char *path;
    uint64_t base, len;  // bytes of the file that are the model
    uint64_t meta_len, data_off;
    uint64_t data_len;  // bytes of the tensors in it
};

/* How an architecture's layers differ from llama's, which are all zero. What they have besides (biases,
 * norms of queries and keys, norms of the branches, sinks, a shared expert) is there or NULL in
 * struct layer_tensors. */
enum norm_kind { NORM_RMS, NORM_LAYER };            // the latter with biases
enum rope_pairs { ROPE_NEIGHBOURS, ROPE_HALVES };   // value 2i with 2i + 1, or i with i + n_rot / 2
enum gate_kind { GATE_SILU, GATE_GELU, GATE_OAI };  // see the kernels
enum routing { ROUTE_CHOSEN, ROUTE_ALL };           // softmax over the experts chosen, or over all

struct traits {
    enum norm_kind norm;
    enum rope_pairs pairs;
    enum gate_kind gate;
    enum routing routing;
    bool is_ungated;   // up and down only
    bool is_parallel;  // attention and feed-forward read the same norm of the residual
};

enum rope_scaling { ROPE_NONE, ROPE_LINEAR, ROPE_YARN, ROPE_LONG, ROPE_LLAMA3 };

enum expert_part { EXPERT_GATE, EXPERT_UP, EXPERT_DOWN, N_EXPERT_PART };

struct layer_tensors {
    const struct tensor *attn_norm, *q, *k, *v, *o;
    const struct tensor *ffn_norm;          // NULL where parallel
    const struct tensor *gate, *up, *down;  // of experts: of them all, or of the first (see apart);
                                            // gate NULL where ungated
    uint32_t k_row, v_row, up_row;          // where they begin in tensors that they share
    bool is_local;                          // attention sees model.window positions only
    const struct tensor *router;            // [n_expert rows], NULL: no experts
    const struct tensor *const (*apart)[N_EXPERT_PART];  // [n_expert] where the file has a tensor
                                                         // for each, else NULL
    /* all F32; NULL: none */
    const struct tensor *attn_norm_bias, *ffn_norm_bias, *post_attn, *post_ffn;  // [n_embd]
    const struct tensor *q_norm, *k_norm;                                        // [head_dim]
    const struct tensor *q_bias, *k_bias, *v_bias, *o_bias;  // from k_row, v_row on as the weights
    const struct tensor *sinks;                              // [n_head]
    const struct tensor *gate_bias, *up_bias, *down_bias;    // of experts: [n_expert] of them
    const struct tensor *router_bias;                        // [n_expert]
    const struct tensor *sh_router, *sh_gate, *sh_up, *sh_down;  // shared expert; its router: a row
};

enum token_type {
    TOKEN_NORMAL = 1,
    TOKEN_UNKNOWN,
    TOKEN_CONTROL,
    TOKEN_USER,
    TOKEN_UNUSED,
    TOKEN_BYTE
};

/* The vocabulary as the file has it; model/tok builds its tables from this. Bytes are not
 * terminated by NUL (a token may contain one). */
struct vocab {
    const char
        *kind;  // "llama": SentencePiece, "gpt2": byte-level BPE, "gemma4", "dllama": as in a .t
    const char *pre;  // tokenizer.ggml.pre, "" when absent; of "gemma4" its own
    uint32_t n_token;
    const char *text;       // all token texts, one after another
    const uint32_t *start;  // [n_token + 1] into text
    const float *score;     // [n_token] or NULL
    const uint8_t *type;    // [n_token] enum token_type, TOKEN_NORMAL when the file has none
    uint32_t n_merge;
    const char *merge_text;           // "left right" pairs
    const uint32_t *merge;            // [n_merge + 1] into merge_text
    int32_t bos, eos, eot, eom, unk;  // -1: none
    uint32_t n_end;
    const int32_t *end;  // [n_end] more tokens that end an answer
    bool add_bos, add_eos, add_space_prefix;
};

struct model {
    struct arena mem;
    uint32_t n_file;
    const struct model_file *file;       // [n_file]; the first is what was opened
    const struct model_file *tokenizer;  // the .t of a .m, which is none of them; else NULL
    const char *container;               // "GGUF" or "distributed-llama"
    const char *name;                    // general.name or ""
    const char *arch_name;               // general.architecture
    struct traits traits;
    uint32_t version;  // of the container's format
    /* shape */
    uint32_t n_layer, n_embd, n_head, n_head_kv, head_dim, n_ff, n_vocab, n_ctx, n_rot;
    uint32_t n_expert, n_used;  // experts of a layer, and of them for a token; 0: dense
    uint32_t n_ff_shared;  // of the expert that all tokens go to, 0: none; n_ff is of the others
    float norm_eps;
    float embd_scale, attn_scale;       // of embeddings; of q . k
    float attn_softcap, final_softcap;  // of scores, of logits; 0: none
    uint32_t window;                    // positions that local layers see
    double rope_base,
        rope_base_local;  // the latter for local layers and unscaled; 0: as the others
    enum rope_scaling rope_scaling;
    double rope_factor;  // positions are divided by it; YaRN, ROPE_LLAMA3: those of slow pairs
    double rope_low, rope_high;  // ROPE_LLAMA3: turns in n_ctx_orig that make a pair slow, or not
    double rope_attn_factor;     // on cosines and sines
    uint32_t n_ctx_orig;  // context of the training before it was stretched (not ROPE_LINEAR)
    double yarn_ext, yarn_beta_fast, yarn_beta_slow, yarn_log_mul;
    const struct tensor *rope_freqs;  // llama 3: divisors [n_rot / 2] f32, which ROPE_LLAMA3
                                      // gives way to, or NULL
    const struct tensor *rope_long, *rope_short;  // LongRoPE: the same, by the context's length
    /* tensors */
    uint32_t n_tensor;
    const struct tensor *tensor;                             // [n_tensor] in file order
    const struct tensor *token_embd, *output_norm, *output;  // output == token_embd when tied
    const struct tensor *output_norm_bias, *output_bias;     // or NULL
    const struct layer_tensors *layer;                       // [n_layer]
    struct vocab vocab;
    const char *chat_template;  // "" when absent
    const char *tool_template;  // the one for requests with tools; "" when absent
    uint64_t n_param;           // weights in all tensors
    uint64_t data_len;          // bytes of all tensors
    uint64_t fingerprint;       // the same for copies of the files only (MODEL_ALL; else 0)
    uint32_t n_kv;
    const struct gguf_kv *kv;  // the file's keys, see model_meta()
};

/* Read and validate a model's metadata. Opens `path`; base and len choose a range of it (len 0: all).
 * Of a split set path is the first file; the others are looked for beside it.
 * Fails: ERR_IO; ERR_FORMAT, ERR_LIMIT for a bad file; ERR_UNSUPPORTED for an architecture, tokenizer
 * kind or option that this version cannot run. The sentence begins with the path. */
MUST model_open(struct model *m, const char *path, uint64_t base, uint64_t len, struct err *e);

/* As model_open, but stops after the directory: for inspect on files that run refuses, and for files
 * that hold only a vocabulary. Shape and tensors are filled as far as they are there. MODEL_DIRECTORY
 * takes any file of a split set and then describes that one; MODEL_VOCAB reads the first only. */
enum model_part { MODEL_ALL, MODEL_VOCAB, MODEL_DIRECTORY };
MUST model_open_part(struct model *m, const char *path, uint64_t base, uint64_t len,
                     enum model_part part, struct err *e);

/* As model_open_part; tokenizer: a .t for a .m, NULL: the one beside it. Fails also: ERR_UNSUPPORTED when a
 * .m has none, ERR_USAGE when a GGUF file is given one. */
MUST model_open_with(struct model *m, const char *path, const char *tokenizer, enum model_part part,
                     struct err *e);
void model_close(struct model *m);

/* Bytes of all files of weights, and the file that holds most of its weights. */
uint64_t model_bytes(const struct model *m);
const struct model_file *model_main_file(const struct model *m);

/* The tensor that holds a matrix of an expert, and where in its file the matrix begins. */
const struct tensor *model_expert(const struct model *m, uint32_t layer, uint32_t expert,
                                  enum expert_part part, uint64_t *off);

/* The model embedded in the running executable (section .dair.demo): its path and range.
 * Fails: ERR_UNSUPPORTED when this build has none. */
MUST model_demo(char path[static 4096], uint64_t *base, uint64_t *len, struct err *e);

/* Key-value metadata for inspect: the i-th key and its value as short text (arrays as "[n items]").
 * false past the end. Valid until close. */
bool model_meta(const struct model *m, uint32_t i, const char **key, const char **value);

#endif
