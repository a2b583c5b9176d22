/* options.h - command lines from a table: one table parses, checks and writes the help.
 *
 * A verb describes its options as rows that point into its own plain struct (by offset, so that the
 * table can be const). What a later version will bring is known by name, so that asking for it gets a
 * sentence instead of "unknown option".
 */
#ifndef OPTIONS_H
#define OPTIONS_H

#include "base/config.h"
#include "base/err.h"
#include "base/text.h"

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum opt_kind {
    OPT_FLAG,    // bool, no value
    OPT_TEXT,    // const char *, borrowed from argv
    OPT_U32,     // uint32_t, from..to
    OPT_AUTO,    // uint32_t, from..to, or the word auto: 0
    OPT_MOST,    // uint32_t, from..to, or -1: to
    OPT_U64,     // uint64_t
    OPT_REAL,    // double, from..to
    OPT_AMOUNT,  // struct amount
    OPT_CHOICE,  // int: which of the words in `arg`, separated by |
    OPT_LIST,    // struct text_list; may come again
    OPT_PEERS,   // struct peers: this word and those after it that are HOST:PORT; may come again
};

enum { OPT_TEXTS = 128 };

struct text_list {
    unsigned n;
    const char *text[OPT_TEXTS];  // borrowed from argv
};

struct opt {
    const char *name;  // as written: "--memory", "-n"; - and _ inside are the same
    enum opt_kind kind;
    size_t at;         // offset of the field in the verb's struct
    const char *arg;   // how the help calls the value; the words of a choice
    const char *help;  // NULL: not in the help
    double from, to;   // numbers; of a list, `to` is how many there can be
};

struct verb {
    const char *name;
    const char *usage;    // what follows the name: "[MODEL] -p TEXT [options]"
    const char *summary;  // one line for the list of verbs
    const char *notes;    // more for the verb's own help, or NULL
    const struct opt *opt;
    size_t n_opt;
    unsigned max_word;                                        // words without a dash that it takes
    int (*run)(const struct verb *v, int argc, char **argv);  // returns the exit status
};

enum parsed { PARSED, PARSED_HELP, PARSED_WRONG };

/* argv [argc] (without program and verb) into conf; words go to word [v->max_word], the rest NULL.
 * PARSED_HELP: the help was asked for and is printed to stdout.
 * PARSED_WRONG: e says what is wrong (ERR_USAGE). */
enum parsed options_parse(const struct verb *v, int argc, char **argv, void *conf,
                          const char **word, struct err *e);

void options_help(const struct verb *v, FILE *to);

/* A list of numbers "1,2,4" or with another mark between; at most cap, each from..to. Returns how
 * many, 0 when it is not such a list. */
size_t options_list(const char *s, char mark, double from, double to, double *out, size_t cap);

#endif
