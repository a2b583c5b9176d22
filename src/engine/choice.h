/* choice.h - the next token of a sequence, as its request wants it chosen: by a sampler, and held to a grammar.
 *
 * choice_begin() says which logits are wanted of a step (picker.want); when the nodes have computed them,
 * picker_next() takes a token or wants more. The grammar is compiled when it is first needed, which is where
 * the answer begins or goes on after a change of epochs: then the tokens so far are read once more.
 * Thread: the worker's.
 */
#ifndef ENGINE_CHOICE_H
#define ENGINE_CHOICE_H

#include "engine/seqs.h"
#include "model/picker.h"

struct choice {
    const struct tok *tok;
    uint32_t n_vocab;
    uint64_t grammars;  // bytes for all grammars that are followed at one time; 0: none are

    struct picker picker;
    struct lexicon *lexicon;  // once a grammar was asked for
};

/* q is one of `all`. Fails with why q cannot go on, the others can: choice_refused() says in which way. */
MUST choice_begin(struct choice *c, const struct seqs *all, struct seq *q, struct err *e);
enum done_why choice_refused(const struct err *why);
void choice_close(struct choice *c);

#endif
