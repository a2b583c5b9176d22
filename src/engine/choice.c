#include "engine/choice.h"

/* Only sequences with a place in the cache have a run. */
static uint64_t grammars_taken(const struct seqs *all) {
    uint64_t sum = 0;
    for (uint32_t i = 0; i < all->n_slot; i++) {
        const struct seq *q = all->in_slot[i] < 0 ? NULL : &all->seq[all->in_slot[i]];
        if (q && q->run) sum += grammar_bytes(q->grammar) + grammar_run_bytes(q->grammar);
    }
    return sum;
}

static MUST follow_grammar(struct choice *c, const struct seqs *all, struct seq *q, struct err *e) {
    if (q->kind == GRAMMAR_NONE || q->run) return true;
    if (!c->grammars) {
        return err_set(e, ERR_LIMIT,
                       "the node that leads has too little memory to hold answers to grammars; "
                       "give it 16 MiB or more of --memory");
    }
    if (!c->lexicon && !lexicon_open(&c->lexicon, c->tok, e)) return false;
    if (!grammar_open(&q->grammar, q->kind, q->grammar_text, q->n_grammar, e)) {
        return err_in(e, "the grammar");
    }
    uint64_t taken = grammars_taken(all), bytes = grammar_bytes(q->grammar);
    bytes += grammar_run_bytes(q->grammar) + lexicon_bytes(c->lexicon);
    if (taken && taken + bytes > c->grammars) {  // one is always possible
        return err_set(
            e, ERR_MEMORY,
            "other answers are held to grammars, and the node that leads has no memory for "
            "more of them at a time");
    }
    return grammar_run_open(&q->run, q->grammar, c->lexicon, e) || err_in(e, "the grammar");
}

MUST choice_begin(struct choice *c, const struct seqs *all, struct seq *q, struct err *e) {
    if (!follow_grammar(c, all, q, e)) return false;
    picker_init(&c->picker, &q->sampler, q->run, c->n_vocab);
    return picker_begin(&c->picker, q->id, q->n_prompt, q->n_id, e);
}

/* Only for want of memory it may be asked again. */
enum done_why choice_refused(const struct err *why) {
    if (why->code == ERR_MEMORY) return DONE_REFUSED;
    return why->code == ERR_FORMAT ? DONE_FAILED : DONE_IMPOSSIBLE;
}

void choice_close(struct choice *c) {
    lexicon_close(c->lexicon);
}
