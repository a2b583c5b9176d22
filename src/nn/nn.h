/* nn.h - one slice of a transformer: tokens in, candidates for the next token out.
 *
 * A struct nn owns the KV cache, scratch and store of one slice; the cache holds n_seq sequences that
 * know nothing of each other. Its thread is the one that runs the compute team (base/par); several
 * slices in a process have a thread each. nn_step() appends tokens to a sequence; the logits of the
 * last one can then be asked for as the k best candidates. Nothing is allocated after nn_open().
 *
 * The walk: nn_step (forward.c) -> layer (layer.c, experts in moe.c) -> matmul (matmul.c: tiles from the
 * store, units to the team, kernels) -> gather (coll.h).
 */
#ifndef NN_NN_H
#define NN_NN_H

#include "base/arena.h"
#include "base/par.h"
#include "kernels.h"
#include "model/model.h"
#include "model/picker.h"
#include "nn/coll.h"
#include "nn/slice.h"
#include "store/store.h"

enum wire_type { WIRE_Q16, WIRE_Q8, WIRE_F32 };

struct nn_conf {
    const struct model *model;
    const struct kernels *kernels;
    struct cuts cuts;
    unsigned self, n_slice;  // which share of the cuts this is
    uint32_t n_seq;          // sequences in the KV cache, at least 1
    uint32_t n_ctx;          // positions of each
    uint32_t n_batch;        // tokens that go through a layer together
    /* Most tokens in one step; 0: n_batch. More than that go through each layer batch by batch while its
     * tiles stay, so that a prompt takes one sweep; the ring then holds a layer's streamed tiles. */
    uint32_t n_sweep;
    uint32_t n_logit;  // most tokens of a step whose logits can be had; 0: one
    enum kv_type kv;
    enum wire_type wire;
    uint64_t budget;    // bytes this slice may use for everything in its pool
    uint32_t n_reader;  // reader threads
    uint32_t n_slot;    // ring buffers
    uint32_t n_thread;  // size of the team that will run nn_step
    uint32_t n_decode;  // of it, members that work on a step of few tokens; 0: all
};

/* What the budget of one slice goes to: the same arithmetic for `plan`, the forecast and nn_open. */
struct nn_memory {
    uint64_t kv_bytes, scratch_bytes, ring_bytes;
    uint64_t fixed_bytes;   // norms, tables of tiles
    uint64_t guess_bytes;   // of the engine: what guesses ahead, its model included; 0 for a slice
    uint64_t embd_bytes;    // the embedding table, resident only when all else is; else 0
    uint64_t pin_bytes;     // room for resident tiles
    uint64_t weight_bytes;  // all tiles of this slice, resident form
    uint64_t sweep_bytes;   // all tiles of this slice, file form: what a sweep reads
    uint64_t token_bytes;   // of them what a token computes with: not the experts it is not sent to
    uint64_t
        disk_bytes;  // of them what a token reads, if experts are chosen evenly; 0: nothing streams
    uint64_t cache_bytes;   // room for experts on demand; 0: all stay, or there are none
    uint64_t expert_bytes;  // of sweep_bytes, the experts'
    uint32_t n_slot;        // ring buffers: those asked for, or as many as a layer streams
    uint32_t n_demand;      // tiles of experts on demand
    uint32_t n_fetch;  // threads that read those: n_reader, but no more than n_slot was asked for
    struct store_stats tiles;  // what the store makes of it
    uint64_t min_budget;       // least budget that runs at all (every tile streamed)
};

/* Of the experts that a token is sent to, those expected in memory, if chosen evenly. */
static inline double nn_hit_share(const struct nn_memory *m) {
    if (!m->expert_bytes) return 1;
    return 1 - (double)m->tiles.missing_bytes / (double)m->expert_bytes;
}

/* Fails: ERR_UNSUPPORTED naming a tensor whose type has no kernel; ERR_MEMORY, with the numbers, when
 * the budget is below min_budget. */
MUST nn_measure(const struct nn_conf *c, struct nn_memory *out, struct err *e);

/* Only min_budget of it, whatever the budget: for who tries many sizes. Fails: as nn_measure, never for want
 * of memory of the budget. */
MUST nn_least(const struct nn_conf *c, uint64_t *bytes, struct err *e);

/* c->n_slot: as many read-ahead buffers, up to `most`, as c->budget has a fair part for; out: what that makes.
 * Fails: as nn_measure, with two. */
MUST nn_choose_slots(struct nn_conf *c, uint32_t most, struct nn_memory *out, struct err *e);

/* Of a token that reads `disk` bytes, what it may read at most for the sake of prompts: what makes those
 * fast takes memory from weights. */
uint64_t nn_fair_read(uint64_t disk, uint64_t budget);

/* Whether n_sweep is worth its memory: `with` and `without` it, of the same budget. */
bool nn_sweep_pays(const struct nn_memory *with, const struct nn_memory *without, uint64_t budget);

/* A budget that nothing exceeds, to measure what is wanted. */
#define NN_PLENTY ((uint64_t)1 << 56)

struct nn;

/* Carve the pool, open the store; loads nothing yet. coll and model are borrowed. */
MUST nn_open(struct nn **out, const struct nn_conf *c, struct coll *coll, struct err *e);
void nn_close(struct nn *n);

/* Read the resident tiles and small tensors. Fails: ERR_IO, ERR_FORMAT (a scale that is not finite). */
MUST nn_load(struct nn *n, store_progress *progress, void *ctx, struct err *e);

/* Append n_tok (1..n_sweep) tokens to sequence seq. n_logit (0..conf.n_logit, <= n_tok): compute the
 * logits of so many of the last ones. The same for all slices.
 * Fails: ERR_IO, ERR_LIMIT when the context is full, or what a peer's loss says. */
enum { NN_NO_LOGITS, NN_LOGITS };
MUST nn_step(struct nn *n, struct par *team, uint32_t seq, const int32_t *token, uint32_t n_tok,
             uint32_t n_logit, struct err *e);

/* A step of up to a batch in pieces, between which anything else may be done, steps of other slices too: it
 * begins with the tokens, and goes on by a layer at a time, then the logits; *is_over: that was all. The team
 * is taken as wide as it is. Left unfinished it is as one that was ended, see nn_pass(). Fail: as nn_step. */
MUST nn_begin(struct nn *n, uint32_t seq, const int32_t *token, uint32_t n_tok, uint32_t n_logit,
              struct err *e);
MUST nn_go_on(struct nn *n, struct par *team, bool *is_over, struct err *e);

/* The team as wide as nn_step makes it for so many tokens. */
void nn_widen(const struct nn *n, struct par *team, uint32_t n_tok);

/* A piece of work for the team of another; *did: false when there was none. */
typedef bool nn_work(void *ctx, struct par *team, bool *did, struct err *e);

/* What is to be done in a step whenever a tile of the sweep is waited for, as long as there is any; in short
 * pieces, as the step goes on only between them, and with the team as wide as it is. What it fails with ends
 * the step. NULL: nothing. */
void nn_meanwhile(struct nn *n, nn_work *work, void *ctx);

/* The k best logits of the last step's last token over all slices, in descending order, ties to the
 * lower id: *out [*n_out], valid until the next call; for a k in the thousands it may be all of them,
 * by ascending id. Collective. k = 1..n_vocab. Fails: as gather, and with ERR_FORMAT for a slice that
 * names tokens that are not its own. */
MUST nn_candidates(struct nn *n, size_t k, struct candidate **out, size_t *n_out, struct err *e);

/* What a picker wants of the last step, as picker_next() takes it; *out as from nn_candidates. May be
 * asked for again. Collective: all slices want the same. Ids are below n_vocab, ascending. */
MUST nn_wanted(struct nn *n, const struct want *w, struct candidate **out, size_t *n_out,
               struct err *e);

/* Of which token of the last step the two above speak from now on: `row` of those whose logits were
 * computed, 0 is the first of them. */
void nn_row(struct nn *n, uint32_t row);

/* This slice's logits of the last step's last token, or of row: [n_vocab share], valid until the next
 * step. */
const float *nn_logits(const struct nn *n, uint32_t *first, uint32_t *count);
const float *nn_logits_at(const struct nn *n, uint32_t row, uint32_t *first, uint32_t *count);

/* Be told after each layer of a step, or each batch of it, and between the reads of nn_load; false ends it
 * with ERR_STOPPED, after which the slice can only be closed, or after a step go on with nn_pass(). The
 * places in a step are the same for all slices, and they have to stop at the same one. NULL: nobody. */
typedef bool nn_progress(void *ctx, uint32_t layers_done, uint32_t n_layer);
void nn_watch(struct nn *n, nn_progress *progress, void *ctx);

/* After a step that was ended so: its sequence is as it was before, and steps can follow once what was left
 * of the sweep has passed. Nothing is computed of that, but what streams is read. Whoever watches is told of
 * each tile. Fails: ERR_IO, ERR_STOPPED; the slice can then only be closed. */
MUST nn_pass(struct nn *n, struct err *e);

/* Keep more of what streams, in so many bytes beyond the budget; between steps, once. As store_grow. */
MUST nn_grow(struct nn *n, uint64_t bytes, uint64_t *more_bytes, struct err *e);

uint32_t nn_pos(const struct nn *n, uint32_t seq);
void nn_truncate(struct nn *n, uint32_t seq, uint32_t pos);  // forget positions from pos on
void nn_stats(const struct nn *n, struct store_stats *out);
const struct nn_memory *nn_memory(const struct nn *n);

#endif
