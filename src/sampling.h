/* sampling.h - the options of verbs that let a model write: how it chooses, and where it stops.
 * Thread: main. */
#ifndef SAMPLING_H
#define SAMPLING_H

#include "model/grammar.h"
#include "model/sampler.h"
#include "model/stop.h"
#include "setup.h"

/* A verb's struct holds one as its field `sampling`. */
struct sampling {
    double temp, top_p, min_p, typical, top_n_sigma;
    double repeat, presence, frequency, temp_range, temp_exponent;
    uint32_t top_k, last_n;
    uint64_t seed;
    struct text_list bias, stop;
    const char *grammar, *schema;
};

#define SAMPLING_DEFAULT                                                                           \
    {                                                                                              \
        .temp = 0.8, .top_k = 40, .top_p = 0.95, .min_p = 0.05, .typical = 1, .repeat = 1,         \
        .last_n = SAMPLER_LAST_N, .temp_exponent = 1                                               \
    }
#define SAMPLING_OPTION(T, name, kind, field, ...)                                                 \
    { name, kind, offsetof(T, sampling.field), __VA_ARGS__ }
#define SAMPLING_OPTIONS(T)                                                                        \
    SAMPLING_OPTION(T, "--temp", OPT_REAL, temp, "X",                                              \
                    "how freely to choose, 0: always the likeliest (0.8)", 0, 100),                \
        SAMPLING_OPTION(T, "--top-k", OPT_U32, top_k, "N",                                         \
                        "choose among the N likeliest, 0: all (40)", 0, MODEL_MAX_VOCAB),          \
        SAMPLING_OPTION(T, "--top-p", OPT_REAL, top_p, "X",                                        \
                        "choose among those that make up this probability (0.95)", 0, 1),          \
        SAMPLING_OPTION(T, "--min-p", OPT_REAL, min_p, "X",                                        \
                        "leave out what is less likely than X times the best (0.05)", 0, 1),       \
        SAMPLING_OPTION(T, "--typical", OPT_REAL, typical, "X",                                    \
                        "choose among the least surprising of this probability (0, 1: off)", 0,    \
                        1),                                                                        \
        SAMPLING_OPTION(T, "--top-n-sigma", OPT_REAL, top_n_sigma, "X",                            \
                        "leave out what is X deviations below the best (0: off)", 0, 1000),        \
        SAMPLING_OPTION(T, "--dynatemp-range", OPT_REAL, temp_range, "X",                          \
                        "temperature from --temp - X to --temp + X, by the entropy (0: off)", 0,   \
                        100),                                                                      \
        SAMPLING_OPTION(T, "--dynatemp-exp", OPT_REAL, temp_exponent, "X",                         \
                        "how it follows the entropy (1)", 0, 100),                                 \
        SAMPLING_OPTION(T, "--repeat-penalty", OPT_REAL, repeat, "X",                              \
                        "divides the logits of tokens that were there (1: off)", 0.01, 100),       \
        SAMPLING_OPTION(T, "--presence-penalty", OPT_REAL, presence, "X",                          \
                        "taken off the logits of tokens that were there (0)", -100, 100),          \
        SAMPLING_OPTION(T, "--frequency-penalty", OPT_REAL, frequency, "X",                        \
                        "the same for each time that they were there (0)", -100, 100),             \
        SAMPLING_OPTION(                                                                           \
            T, "--repeat-last-n", OPT_MOST, last_n, "N",                                           \
            "tokens back that penalties look, 0: none, -1: all, but 4096 at most (64)", 0,         \
            SAMPLER_WINDOW),                                                                       \
        SAMPLING_OPTION(T, "--logit-bias", OPT_LIST, bias, "ID:X",                                 \
                        "added to the logit of this token, -inf: never chosen; may come again", 0, \
                        SAMPLER_BIAS),                                                             \
        SAMPLING_OPTION(T, "--seed", OPT_U64, seed, "N",                                           \
                        "another seed, another answer (0, so that runs repeat)", 0, 0),            \
        SAMPLING_OPTION(T, "--stop", OPT_LIST, stop, "TEXT",                                       \
                        "end the answer before this text; may come again", 0, STOP_MAX),           \
        SAMPLING_OPTION(T, "--grammar", OPT_TEXT, grammar, "FILE|TEXT",                            \
                        "hold the answer to this grammar (GBNF)", 0, 0),                           \
        SAMPLING_OPTION(T, "--json-schema", OPT_TEXT, schema, "FILE|TEXT",                         \
                        "the answer is JSON that this schema allows", 0, 0)

/* Fails: ERR_USAGE naming the option. */
MUST sampling_make(const struct sampling *c, struct sampler *s, struct stop *stop, struct err *e);

/* The model that guesses ahead, where --spec and --draft want one, before the memory budget is drawn up.
 * path: NULL without. Fails: ERR_USAGE; as setup_draft. */
MUST sampling_draft(struct setup *s, const struct machine *m, const char *path, struct err *e);

/* What an answer is held to. */
struct held {
    enum grammar_kind kind;
    const char *file;  // where the text is from, the caller's; NULL: the option itself
    char *text;        // [len], owned
    size_t len;
    struct grammar *grammar;  // NULL: no grammar
    struct lexicon *lexicon;  // NULL until held_vocabulary
};

/* The grammar or schema of the options. Fails: ERR_USAGE, the sentence naming the option and the place in
 * it, of a file ERR_FORMAT and its name; ERR_IO for no file. held_close() also after a failure. */
MUST held_open(struct held *h, const struct sampling *c, struct err *e);
/* Before the memory budget is drawn up, so that it counts. */
MUST held_vocabulary(struct held *h, const struct tok *t, struct err *e);
void held_close(struct held *h);

#endif
