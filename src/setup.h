/* setup.h - from a model and a memory budget to an engine that fits: what run, plan and bench share.
 *
 * The order matters for the budget: everything that the program takes besides the engine's pool (the
 * model's directory, the tokenizer, the prompt) is taken first, then setup_fit() measures what is
 * left. Thread: main.
 */
#ifndef SETUP_H
#define SETUP_H

#include "base/progress.h"
#include "base/text.h"
#include "engine/engine.h"
#include "host/host.h"
#include "model/tok.h"
#include "options.h"
#include "rehearse.h"
#include "tune.h"

enum pin { PIN_AUTO, PIN_ON, PIN_OFF };

/* Options about this machine; a verb's struct holds one as its field `machine`. */
struct machine {
    uint32_t ctx;          // 0: what the model has, at most 4096
    int kv, wire;          // enum kv_type, enum wire_type
    uint32_t threads;      // 0: as many as are fastest
    int pin;               // enum pin
    struct amount memory;  // 0: what the machine has to spare
    const char *slices;    // NULL: one
    int spec;              // enum spec_kind
};

#define MACHINE_DEFAULT                                                                            \
    { .kv = KV_F16, .wire = WIRE_Q16, .spec = SPEC_AUTO }
#define MACHINE_OPTION(T, name, kind, field, ...)                                                  \
    { name, kind, offsetof(T, machine.field), __VA_ARGS__ }
#define THREAD_OPTIONS(T)                                                                          \
    MACHINE_OPTION(T, "--threads", OPT_AUTO, threads, "auto|N",                                    \
                   "threads that compute (auto: as many as are fastest)", 1, PAR_MAX),             \
        MACHINE_OPTION(T, "--pin", OPT_CHOICE, pin, "auto|on|off",                                 \
                       "keep each thread on a core (auto: on a machine that does nothing else)",   \
                       0, 0)
#define MACHINE_OPTIONS(T)                                                                         \
    MACHINE_OPTION(T, "--memory", OPT_AMOUNT, memory, "SIZE",                                      \
                   "memory to use in all: 512M, 4G, or 50% of the RAM", 0, 0),                     \
        MACHINE_OPTION(T, "--ctx", OPT_U32, ctx, "N",                                              \
                       "tokens of prompt and answer together (the model's, at most 4096)", 1,      \
                       MODEL_MAX_CTX),                                                             \
        MACHINE_OPTION(T, "--kv", OPT_CHOICE, kv, "f32|f16|q8_0",                                  \
                       "how the context is kept in memory (f16)", 0, 0),                           \
        MACHINE_OPTION(T, "--wire", OPT_CHOICE, wire, "q16|q8|f32",                                \
                       "rounding of what machines would send each other (q16)", 0, 0),             \
        THREAD_OPTIONS(T),                                                                         \
        MACHINE_OPTION(T, "--slices", OPT_TEXT, slices, "N|A:B:..",                                \
                       "share the work as N machines would, or in uneven shares (1)", 0, 0)

/* Guessing ahead; a verb's struct holds the draft's path as its field `draft`. */
#define GUESS_OPTIONS(T)                                                                           \
    MACHINE_OPTION(T, "--spec", OPT_CHOICE, spec, "off|ngram|draft|auto",                          \
                   "guess ahead, check several tokens at once: the same text (auto)", 0, 0),       \
    {                                                                                              \
        "--draft", OPT_TEXT, offsetof(T, draft), "MODEL",                                          \
            "a small model of the same family that guesses ahead", 0, 0                            \
    }

/* The tokenizer of a .m; a verb's struct holds it as its field `tokenizer`. */
#define TOKENIZER_OPTION(T)                                                                        \
    {                                                                                              \
        "--tokenizer", OPT_TEXT, offsetof(T, tokenizer), "FILE.t",                                 \
            "the vocabulary of a .m model (the .t beside it)", 0, 0                                \
    }

struct setup {
    char demo_path[4096];
    bool is_demo;
    struct model model;
    struct model draft;  // guesses ahead; zeroed: there is none
    struct tok *tok;     // NULL until setup_tok
    struct kernels kernels;
    int n_core;
    uint32_t n_logit;   // tokens to score in a step, for setup_fit; 0: none are
    uint32_t n_prompt;  // tokens of the prompt to come, for setup_fit; 0: not known
    uint32_t n_answer;  // and of the answer, for setup_probe

    /* setup_fit */
    struct host_mem mem;
    uint64_t budget;   // bytes for the whole process
    uint64_t program;  // of that, what was in use before the engine
    uint64_t slack;    // kept back for stacks, page tables and small change
    uint64_t text;     // set aside by setup_keep_text()
    uint64_t pool;     // the rest: the engine's
    uint64_t in_ram;   // budget with which nothing streams
    uint64_t least;    // smallest budget that runs at all
    struct engine_conf conf;
    struct nn_memory memory;
    bool has_places;  // conf.places are chosen

    /* setup_probe */
    bool has_count;  // so many threads were asked for
    struct tune
        tune;  // the matrix kernel of most of the weights, one token; how many threads decode
    double read_bps;             // memory, by these
    double compute_bps;          // the matrix kernel, by these
    double disk_bps;             // the model's disk; 0: not measured
    struct rehearsed rehearsed;  // zeroed: not tried
    uint32_t disk_chunk;         // bytes of the reads that this was measured with
    struct forecast forecast;
};

/* DAIR_CPU, if set, must name a variant. Fails: ERR_USAGE. */
MUST setup_kernels(struct kernels *k, struct err *e);

/* path NULL: the model inside this program. tokenizer: as in model_open_with. Also fills kernels. */
MUST setup_open(struct setup *s, const char *path, const char *tokenizer, enum model_part part,
                struct err *e);
MUST setup_tok(struct setup *s, struct err *e);
void setup_close(struct setup *s);  // safe after a failure, and on a zeroed struct

/* The model that guesses ahead for the one that is open; a .m has its .t beside it. Fails: as model_open;
 * ERR_UNSUPPORTED when its vocabulary is another. */
MUST setup_draft(struct setup *s, const char *path, struct err *e);

/* The context that --ctx asks for. Fails: ERR_USAGE when the model cannot. */
MUST setup_context(const struct setup *s, const struct machine *m, uint32_t *n_ctx, struct err *e);

/* The budget, and what of it is left now. Fails: ERR_MEMORY when the machine has not as much. */
MUST setup_budget(struct setup *s, const struct machine *m, struct err *e);

/* Tokenising takes memory: how long a text may be for what setup_budget() found to be left. TEXT_CHEAP bytes
 * always do, so that it can be said exactly how many tokens they are. */
enum { TEXT_CHEAP = 16 << 10 };
size_t setup_text_most(const struct setup *s);
/* Sets memory aside, between setup_budget() and setup_fit(), for texts of `want` bytes that come while the
 * model runs; an eighth of what is left at most. After setup_fit(): how long they may be. */
void setup_keep_text(struct setup *s, size_t want);
size_t setup_kept_text(const struct setup *s);
/* Fails: ERR_MEMORY when a text (what: "prompt") of at least len bytes is longer than that. */
MUST setup_check_text(const struct setup *s, const char *what, size_t len, struct err *e);

/* Budget, then batch and ring so that they fit. Fails: ERR_MEMORY with what is needed at least;
 * ERR_USAGE for --slices; ERR_UNSUPPORTED for a type of weights without a kernel. */
MUST setup_fit(struct setup *s, const struct machine *m, struct err *e);

/* Measure memory, the kernel and, if something streams (or always), the disk; then the forecast. A
 * fast disk gets more readers, and some layers are run on trial (rehearse.h). Up to four seconds, within
 * the pool's bytes. */
enum setup_disk { DISK_IF_NEEDED, DISK_ALWAYS };
MUST setup_probe(struct setup *s, enum setup_disk disk, struct err *e);

/* The least whole budget that leaves the engine `pool` bytes. */
uint64_t setup_whole(const struct setup *s, uint64_t pool);

/* For a node, whose part of the model is known only with a plan: its context, threads and kinds of
 * rounding into conf, memory, kernel and disk measured. After setup_budget(); without a model (setup
 * zeroed but for kernels and cores) only the memory. At most a second. */
MUST setup_speeds(struct setup *s, const struct machine *m, struct err *e);

/* Reads the weights, which a person sees on `bars` (NULL: nobody does). Fails: as engine_load. */
MUST setup_load(struct engine *g, struct progress *p, FILE *bars, struct err *e);

/* What limits a forecast: for people, as "reading memory"; for programs: disk, compute, memory. */
const char *setup_limit(const struct setup *s, const struct forecast *f);
const char *setup_limit_word(const struct setup *s, const struct forecast *f);

/* At another whole budget: what setup_fit and setup_probe would make of it, with the speeds that were
 * measured at this one. False when it is too small. */
bool setup_at(const struct setup *s, uint64_t budget, struct nn_memory *m, struct forecast *f);

/* Weights kept in memory as bytes of RAM, tables included; and as bytes of the file, without. */
uint64_t setup_pinned(const struct nn_memory *m);
uint64_t setup_kept(const struct nn_memory *m);

/* The type that most of the weights have, leaving out a table of which a token reads one row. */
const char *setup_type(const struct model *m);

#endif
