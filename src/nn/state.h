/* state.h - the inside of a struct nn, shared by the files of the forward pass only. */
#ifndef NN_STATE_H
#define NN_STATE_H

#include "nn/look.h"
#include "nn/matmul.h"
#include "nn/nn.h"
#include "nn/resident.h"
#include "nn/weights.h"

/* What a matrix reads: n_tok rows of n_col activations. Quantised weights eat panels packed from act
 * blocks, float weights f32 rows padded to FLOAT_LANES; a site has the forms its matrices need. */
struct site {
    uint32_t n_col, n_block;
    bool floats, quants;  // forms wanted
    size_t ld;            // f32 row length: n_col rounded up to FLOAT_LANES
    float *f;             // [n_batch, ld]
    struct act *a;        // [n_batch, n_block]
    void *panel;
};

/* A token at one of the experts that it was sent to. */
struct pair {
    uint32_t token;
    uint16_t expert;
    bool is_first;  // the lowest of the token's experts: its output comes first into the sum
    float weight;
};

/* Scratch of a layer with experts: pairs lie sorted by expert, then token, so that what an expert is
 * multiplied with lies together; outputs are made for n_row pairs at a time. */
struct moe {
    uint32_t n_row;
    float *score;                          // [n_batch, n_expert rounded up to 8] of the router
    struct pair *pick;                     // [n_batch, n_used] by token, then expert
    struct pair *pair;                     // [n_batch * n_used] the same, sorted
    uint32_t start[MODEL_MAX_EXPERT + 1];  // where each expert's pairs begin
    uint16_t *order;            // [2, n_expert] the chosen ones as they are computed: of gate
                                // and up, of down
    uint32_t n_order;           // of each
    uint32_t *want;             // [w.most_expert] their tiles, in that order
    struct site in;             // inputs of gate and up, token after token of an expert
    float *y;                   // [n_row, own embd rows rounded up to 8] of down
    struct look look;           // whether to guess the next layer's
    struct store_stats before;  // as the step under way began, if it has one token
    uint64_t since;
    /* the shared expert, a row for each token */
    uint32_t sh_cut[SLICE_MAX + 1];  // its rows of gate and up
    float *sh_score;                 // [n_batch, 8] of its router
    float *sh_gate, *sh_up;          // [n_batch, own rows rounded up to 8]
    struct site sh;                  // input of its down
    float *sh_y;                     // [n_batch, own embd rows rounded up to 8]
};

struct nn {
    struct nn_conf conf;
    const struct kernels *k;
    struct coll *coll;
    struct nn_memory memory;
    struct arena pool;
    struct weights w;
    struct store *store;
    struct matmul_state mm;
    uint32_t *n_pos;        // [n_seq] tokens of each sequence in the cache
    uint32_t seq, pos;      // of the step under way: its sequence, its first position
    uint32_t n_tok, layer;  // and its tokens, and the layer that comes next
    uint32_t n_wanted;      // rows of logits that it is to compute
    uint32_t n_logit;       // those that the last step has
    uint32_t row;           // of them, the one that is asked for
    nn_progress *progress;  // told after each layer, or NULL
    void *progress_ctx;

    /* resident small things */
    struct layer_vectors *vec;              // [n_layer]
    float *vec_mem;                         // what vec[] points into
    float *output_norm, *output_norm_bias;  // [n_embd], the bias NULL where the model has none
    float *output_bias;                     // [own vocab rows] or NULL
    double *freq;                           // [resident_tables, n_rot / 2]
    float rope_length;                      // on all cosines and sines but a local table's
    const char **path;                      // [model.n_file]
    uint8_t *embd;        // the embedding table in file order, or NULL: rows are read when needed
    uint8_t *embd_piece;  // room to read a piece of the table, when it is resident
    uint8_t *embd_room;   // memory to read one row into
    uint8_t *embd_row;    // the same, aligned for the disk
    size_t embd_row_bytes;
    const struct weight_ops *embd_ops;

    /* own share */
    uint32_t n_kv, n_q;  // own KV heads, own query heads
    uint32_t head0;      // first own query head
    uint32_t n_embd_own, n_ff_own, n_vocab_own;

    /* cache of own KV heads: [n_seq][n_layer][n_kv][n_ctx][head_dim] of kv type */
    uint8_t *key, *value;
    size_t kv_row;  // bytes of a head's values at one position

    /* of all tokens of a step */
    float *x_all;      // [n_sweep, n_embd] the residual stream
    float *angle_all;  // [resident_tables, n_sweep, n_rot / 2, 2]

    /* scratch, for n_batch tokens */
    struct moe moe;           // with experts; ff then has a row for each pair
    float *x, *angle;         // of the batch at work, in the above
    struct site in, att, ff;  // inputs of q k v gate up output; of o; of down
    float *q, *kx, *v;        // [n_batch, own rows rounded up to 8]
    float *y;                 // [n_batch, own embd rows rounded up to 8]: output of o and down
    float *gate, *up;         // [n_batch or moe.n_row, own ff rows rounded up to 8]
    float *head;              // [n_batch, own query heads * head_dim] attention output
    float *attend_room;       // [n_thread, attend_floats]
    size_t attend_floats;     // attend_room() of a head
    uint8_t *wire;            // [n_batch, wire_stride] branch outputs as gathered
    size_t wire_stride;
    float *logits;               // [conf.n_logit, own vocab rows rounded up to 8]
    struct candidate *cand;      // [n_vocab]
    struct candidate *cand_all;  // [n_vocab] gathered from all slices
    int32_t *top_id;             // [TOPK_MAX]
    float *top_val;
};

/* Bytes of 32 branch outputs on the wire. */
static inline size_t wire_block(enum wire_type type) {
    return type == WIRE_Q16  ? sizeof(struct wire16)
           : type == WIRE_Q8 ? sizeof(struct act)
                             : Q_BLOCK * sizeof(float);
}

enum { TOPK_MAX = WANT_TOP };  // above, all logits are handed on

static inline uint32_t round_up(uint32_t n, uint32_t to) {
    return (n + to - 1) / to * to;
}

/* layer.c: one transformer block over n_tok tokens at positions n->pos on. */
MUST layer_run(struct nn *n, struct par *team, uint32_t layer, uint32_t n_tok, struct err *e);

/* layer.c: the model's norm of x rows [first, first + n_tok) into the site's forms. bias NULL: RMS. */
void site_from_norm(struct nn *n, struct par *team, struct site *s, const float *weight,
                    const float *bias, uint32_t first, uint32_t n_tok);

/* layer.c: panels of n_tok rows' act blocks, for the matrices that eat them. */
void site_pack(const struct nn *n, const struct site *s, uint32_t n_tok);

/* layer.c: what a feed-forward part makes of count values of gate and up (NULL: ungated), in gate. */
void activate(const struct nn *n, float *gate, const float *up, uint32_t count);

/* What mat is multiplied with. */
static inline const void *site_input(const struct site *s, const struct matrix *mat) {
    return mat->ops->is_float ? (const void *)s->f : s->panel;
}

/* layer.c: own activations src [n_own] into a row of the site, from column col on, in the form that mat,
 * which reads it, eats. */
void site_put(const struct nn *n, const struct site *s, const struct matrix *mat, uint32_t row,
              uint32_t col, const float *src, uint32_t n_own);

/* layer.c: complete n_row rows of a site from all slices' parts, in the form that mat, which reads it,
 * eats: another layer's matrix may be of another kind. cut [n_slice + 1] are the slices' columns. */
MUST site_gather(struct nn *n, struct site *s, const struct matrix *mat, const uint32_t *cut,
                 uint32_t n_row, struct err *e);

/* layer.c: own rows of a branch's output, n->y, rounded to the wire type, gathered, through the norm
 * `post` if not NULL, and added to x. */
MUST branch_end(struct nn *n, struct par *team, const float *post, uint32_t n_tok, struct err *e);

/* moe.c: the feed-forward part of a layer with experts. */
MUST moe_run(struct nn *n, struct par *team, uint32_t layer, uint32_t n_tok, struct err *e);

#endif
