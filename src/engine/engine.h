/* engine.h - one sequence on this machine: prompt tokens in, answer tokens out.
 *
 * Composes nn slices (one, or N for --slices, each with its thread and its share of the budget), the
 * compute team and the sampler. All slices run the same loop and, drawing from the same candidates with
 * the same counter-based random numbers, pick the same token: nothing needs to be told around.
 */
#ifndef ENGINE_ENGINE_H
#define ENGINE_ENGINE_H

#include "engine/spec.h"
#include "nn/nn.h"

#include <stdatomic.h>

struct engine_conf {
    const struct model *model;
    const struct kernels *kernels;
    unsigned n_slice;         // 1..SLICE_MAX
    double share[SLICE_MAX];  // relative sizes of the slices
    uint32_t n_ctx, n_batch;
    uint32_t n_sweep;  // see nn.h
    enum spec_kind spec;
    uint32_t n_logit;  // tokens of a step that engine_score scores, < n_batch; 0: only generating
    uint32_t n_guess;  // most guesses that a step checks, up to SPEC_MOST; < n_batch
    const struct model *draft;  // the small model that guesses, or NULL; its vocabulary is the same
    double draft_keep;  // what its memory makes a step longer, of that step: where tiles stream
    enum kv_type kv;
    enum wire_type wire;
    unsigned n_thread;  // compute team; with several slices each slice has one thread
    unsigned n_decode;  // of it, those that work on a step of few tokens; 0: all
    struct par_places places;
    uint64_t budget;            // bytes for the pools of all slices together
    uint32_t n_reader, n_slot;  // 0: chosen by the disk speed (see engine_defaults)
};

/* What one slice gets of it all. Fails as nn_measure does on unlimited memory. */
MUST engine_slice_conf(const struct engine_conf *c, unsigned i, struct nn_conf *out, struct err *e);

/* Memory of all slices together. Fails as nn_measure; a budget of sum->min_budget is enough. */
MUST engine_measure(const struct engine_conf *c, struct nn_memory *sum, struct err *e);

/* What was measured: bytes a second that the cores compute with, of weights in memory and of streamed ones;
 * seconds that a token costs besides; bytes a second of the disk. Each by itself: what they take from each
 * other shows only when they work together (rehearse.h). */
struct rates {
    double compute_bps, stream_bps, rest_s, disk_bps;
};

struct forecast {
    double decode_tps;         // tokens/s expected
    double compute_s, disk_s;  // what each takes of a token's time
    bool disk_bound;
};
/* What streams is read while the cores compute. A router's experts that are not in memory are waited for: they come a
 * whole one at a time, and hardly anything is left to compute meanwhile (of Mixtral's bytes missed, at 2.1 GB/s, 1.0
 * of the time was waited). */
void engine_forecast(const struct nn_memory *m, const struct rates *r, struct forecast *out);

struct engine;
MUST engine_open(struct engine **out, const struct engine_conf *c, struct err *e);
MUST engine_load(struct engine *g, store_progress *progress, void *ctx, struct err *e);
void engine_close(struct engine *g);

struct gen_request {
    const int32_t *prompt;
    uint32_t n_prompt;   // >= 1; prompt and answer must fit the context
    uint32_t n_keep;     // of the prompt, as many are those of the last request and its answer
    uint32_t n_predict;  // most tokens of the answer
    struct sampler sampler;
    const struct grammar *grammar;   // that the answer is held to; NULL: none
    const struct lexicon *lexicon;   // of the model's vocabulary, with a grammar
    enum grammar_kind grammar_kind;  // the same grammar as a text, for who computes elsewhere
    const char *grammar_text;        // [n_grammar]
    uint32_t n_grammar;
    uint64_t sequence;                      // number of the sequence, for the random numbers
    bool (*is_end)(void *ctx, int32_t id);  // ends the answer (that token is not part of it)
    /* Called from the engine's thread for each token of the answer; false stops. */
    bool (*on_token)(void *ctx, int32_t id);
    void (*on_prefill)(void *ctx, uint32_t done, uint32_t total);  // layer by layer; may be NULL
    void *ctx;
    const atomic_bool *stop;  // set by a signal: the answer ends within a layer's time; may be NULL
    /* Then steps of up to a batch are finished first, so that the engine stays usable. */
    bool goes_on;
};

enum gen_end { GEN_LENGTH, GEN_EOS, GEN_STOPPED };

struct gen_result {
    uint32_t n_token;
    uint32_t n_kept;  // of the prompt, what the cache still held
    enum gen_end end;
    double prefill_s, decode_s;  // decode: from the first answer token to the last
    uint64_t prompt_bytes;       // read from the disk during prefill
    uint64_t streamed_bytes;     // and during decode
    uint64_t wait_ns;  // of that time, spent waiting for the disk, with nothing else to do
    uint64_t expert_hits,
        expert_misses;  // tiles of experts that were in memory, and those read, in decode
    uint64_t expert_guesses,
        expert_guesses_used;  // of them those read before their router spoke, and the right ones
    uint32_t n_drawn;         // tokens that decode steps gave: all but the first, and the end's
    uint32_t n_step;          // decode steps: without guesses n_token - 1, as the first token
                              // comes from the prefill
    uint32_t n_guessed;       // guesses that were checked
    uint32_t n_drafted, n_drafted_right;  // of them the draft model's, and those that came true
    uint32_t n_ahead;      // of the draft's those that were made while the disk was waited for
    double draft_s;        // one of its guesses, 0: it could not follow the text
    bool gave_up;          // the draft model did not pay, and is closed
    uint64_t grown_bytes;  // weights that its memory keeps now
};

/* Runs to the end; starts from an empty sequence, or from what the cache holds of n_keep tokens. After
 * a failure, a stop in mid-step and, with several slices, any stop the engine is spent: it can only be
 * closed. Fails: ERR_LIMIT when the prompt does not fit the
 * context (naming both lengths), or what nn_step says. */
MUST engine_generate(struct engine *g, const struct gen_request *r, struct gen_result *out,
                     struct err *e);

bool engine_is_spent(const struct engine *g);

/* How badly the model foretells a text: -ln of the probability it gives each token but the first, into
 * nll [n_token - 1]; from an empty sequence, in one slice. progress (may be NULL) is told of tokens done;
 * false stops. Fails: as nn_step; ERR_STOPPED. */
MUST engine_score(struct engine *g, const int32_t *token, uint32_t n_token, double *nll,
                  store_progress *progress, void *ctx, struct err *e);

void engine_stats(const struct engine *g, struct store_stats *sum);
const struct nn_memory *engine_memory(const struct engine *g);

#endif
