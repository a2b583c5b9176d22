/* plan.h - who computes what: a pure function of members and model, the same on every node.
 *
 * In this version every layer is shared alike: rows of each matrix and KV-head groups, evenly or by
 * measured speed, over all members that can hold their share. The plan says who (in slice order), the
 * cuts, and the sizes on which all must agree; how a node uses its memory is its own affair.
 */
#ifndef CLUSTER_PLAN_H
#define CLUSTER_PLAN_H

#include "net/ident.h"
#include "nn/nn.h"

enum {
    PLAN_NODES = SLICE_MAX,
    PLAN_RUNS = 128,
    PLAN_BATCH = 256,  // tokens through a layer together, at most
    /* Tokens a step, at most. Of so many, computing takes far longer than reading weights once: more at
     * a time would only keep other requests waiting. */
    PLAN_SWEEP = 1024,
    PLAN_SEQS = 16,  // sequences in memory, at most
};

enum plan_kind_of_rows { ROWS_KV_HEAD, ROWS_EMBD, ROWS_FF, ROWS_VOCAB, N_ROWS };

/* One kind's cuts over a run of layers (vocabulary: layers 0, 0). */
struct plan_run {
    uint8_t rows;  // enum plan_kind_of_rows
    uint16_t first_layer, n_layer;
    uint32_t cut[PLAN_NODES + 1];
};

struct plan {
    uint64_t epoch;
    struct node_id leader;
    uint64_t model;  // fingerprint
    uint8_t n_node;
    struct node_id node[PLAN_NODES];  // in slice order; node[0] leads
    uint64_t instance[PLAN_NODES];
    uint32_t n_ctx, n_seq;      // positions a sequence, sequences in memory
    uint32_t n_batch, n_sweep;  // tokens through a layer together, tokens a step (nn.h)
    /* Whichever of the nodes is lost, the others hold this much: at most n_seq and n_ctx, which is also
     * what is said of one node. safe_ctx 0: without some node the others have no plan at all; safe_seq
     * is then of the losses that leave one. */
    uint32_t safe_seq, safe_ctx;
    uint8_t kv, wire;  // enum kv_type, enum wire_type
    uint16_t n_run;
    struct plan_run run[PLAN_RUNS];
};

/* What plan_make needs to know of a member. */
struct plan_member {
    struct node_id id;
    uint64_t instance;
    uint64_t budget, pool;  // bytes in all (0: not known), and of it for the engine
    double speed;           // bytes of weights per second; <= 0: not known
    double share;           // wished for by its user, > 0: times an average member's; else by speed
    uint32_t n_thread;
    uint32_t n_ctx, n_seq;  // that it would wish for if it led; 0: as the wish at hand
};

struct plan_wish {
    uint64_t epoch, model;
    uint32_t n_ctx, n_batch, n_seq;  // at most, and no more than PLAN_BATCH and PLAN_SEQS
    uint32_t n_sweep;                // the same, of PLAN_SWEEP; below n_batch: as that
    uint8_t kv, wire;
    bool is_even;  // all the same share, whatever their speed
};

/* Members in slice order, the leader first, the others in the order in which they would lead. Those that
 * cannot hold their share are left out, the smallest first (left_out[i] set). n_seq, then n_batch give way
 * until all others fit; n_ctx last. What a loss leaves is found in the same way, node by node. If weights
 * stream, n_sweep is as many tokens as each of them has a fair part of its memory for; else it is n_batch.
 * Fails: ERR_MEMORY with the numbers when not even the leader alone can hold the model's work. */
MUST plan_make(struct plan *p, const struct model *m, const struct kernels *k,
               const struct plan_member *member, unsigned n, const struct plan_wish *wish,
               bool left_out[], struct err *e);

/* Bytes of pool with which `member` can work alone, at the smallest sizes that plan_make() would come to.
 * Fails: as nn_measure. */
MUST plan_least(const struct model *m, const struct kernels *k, const struct plan_member *member,
                const struct plan_wish *wish, uint64_t *bytes, struct err *e);

/* The plan's cuts for the forward pass. Fails: ERR_UNSUPPORTED when layers are not all shared alike;
 * ERR_FORMAT when the cuts do not fit the model (from the wire: checked in full here). */
MUST plan_cuts(const struct plan *p, const struct model *m, struct cuts *c, struct err *e);

/* Slice of a node, -1: not in the plan. */
int plan_slice(const struct plan *p, const struct node_id *id);

/* Payload that one node sends for each token: L (N-1)/N [1.0625 (d_attn + d_ff) + 2 b d] with its own
 * shares in place of 1/N (ARCHITECTURE 6); floats where the weights are floats; d_ff once for each
 * expert that a token uses. */
double plan_wire_bytes(const struct plan *p, const struct model *m, unsigned slice);

/* Bytes of the widest message of an epoch: a batch's rows of one part, in floats, or all candidates. */
size_t plan_widest(const struct model *m, uint32_t n_batch);

/* Compact form: at most 700 bytes for 32 layers and 100 extents. decode checks every count and order;
 * Fails: ERR_FORMAT. */
size_t plan_encode(const struct plan *p, uint8_t *out, size_t cap);  // 0: does not fit
MUST plan_decode(struct plan *p, const uint8_t *in, size_t len, struct err *e);

#endif
