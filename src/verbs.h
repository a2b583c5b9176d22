/* verbs.h - what `dair VERB` can be. Each verb is a row with its options and its function; main.c
 * lists them in the order of the help. */
#ifndef VERBS_H
#define VERBS_H

#include "options.h"

#ifndef DAIR_VERSION
#define DAIR_VERSION "unversioned"
#endif

extern const struct verb verb_run, verb_chat, verb_render, verb_inspect, verb_plan, verb_tokenize,
    verb_detokenize, verb_synth, verb_bench, verb_perplexity, verb_doctor, verb_selftest,
    verb_keygen, verb_node, verb_status;

/* Ends a verb: prints e as one sentence on stderr, if it has one, and returns its exit status. */
int verb_fail(const struct verb *v, const struct err *e);

/* What verbs on a model have in common: the options into conf, a setup, the work, the exit status.
 * path: the MODEL of the command line or NULL. The setup is closed afterwards, whatever came of it. */
struct setup;
typedef MUST verb_work(void *conf, const char *path, struct setup *s, struct err *e);
int verb_on_model(const struct verb *v, int argc, char **argv, void *conf, verb_work *work);

/* Everything a stream holds, with a NUL after it; at most `limit` bytes. *text is malloc'ed.
 * name: "-" is stdin. Fails: ERR_IO, ERR_LIMIT, ERR_MEMORY. */
MUST verb_read_all(const char *name, size_t limit, char **text, size_t *len, struct err *e);
/* Of a file that is a prompt, without the newline that editors and echo put at its end. */
size_t verb_prompt_len(const char *text, size_t len);

#endif
