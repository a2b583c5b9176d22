/* grammar.h - holding an answer to a grammar: which tokens may come next, and may it end here.
 *
 * A grammar is given as GBNF (the notation of llama.cpp's grammars) or as a JSON schema, and is compiled
 * to a pushdown automaton over bytes: characters become their UTF-8 sequences, so that a token may end
 * inside a character. While a text grows, the set of places in the grammar where it may stand (each with
 * its stack of rules to return to) is one state; states and the steps between them are made when first
 * needed and kept, so that a byte usually costs one look into a table.
 *
 * Bounds. Text 64 KiB, GRAMMAR_STATES places, groups nested GRAMMAR_NEST deep. A text that is inside of
 * more than GRAMMAR_DEPTH rules at once, or can be read in more than GRAMMAR_WAYS ways, is not allowed:
 * no token leads there. Left recursion is refused. A run takes what grammar_run_bytes() says.
 *
 * Threads: a grammar and a lexicon are read-only once open; a run belongs to one thread. Nothing
 * allocates but the functions that open.
 */
#ifndef MODEL_GRAMMAR_H
#define MODEL_GRAMMAR_H

#include "model/tok.h"

enum {
    GRAMMAR_TEXT = 64 << 10,   // bytes of the source
    GRAMMAR_STATES = 1 << 16,  // places of the automaton
    GRAMMAR_NEST = 64,         // groups within groups, schemas within schemas
    GRAMMAR_DEPTH = 250,       // rules that a text is inside of
    GRAMMAR_NOTE = 160,        // bytes of grammar_note()
    GRAMMAR_WAYS = 2048        // places where a text may stand at once
};

enum grammar_kind { GRAMMAR_NONE, GRAMMAR_GBNF, GRAMMAR_SCHEMA, N_GRAMMAR_KIND };

struct grammar;

/* Fails: ERR_FORMAT naming line and column, or the place in the schema; ERR_UNSUPPORTED naming what of
 * a schema is not known here; ERR_LIMIT, also when there is no beginning within the bounds; ERR_MEMORY. *g is
 * owned. */
MUST grammar_open(struct grammar **g, enum grammar_kind kind, const char *text, size_t len,
                  struct err *e);
void grammar_close(struct grammar *g);  // NULL is fine
size_t grammar_bytes(const struct grammar *g);
/* What it asks for that is not enforced, a sentence to tell; NULL: nothing. Valid as long as g. */
const char *grammar_note(const struct grammar *g);

/* The texts of a vocabulary's tokens in order, so that all that begin alike are refused at once: 14
 * bytes a token and their text, less what it shares with the one before. Borrows t. */
struct lexicon;
MUST lexicon_open(struct lexicon **l, const struct tok *t, struct err *e);
void lexicon_close(struct lexicon *l);  // NULL is fine
size_t lexicon_bytes(const struct lexicon *l);

struct grammar_run;
/* Stands at the beginning. Borrows both. Fails: ERR_MEMORY. */
MUST grammar_run_open(struct grammar_run **r, const struct grammar *g, const struct lexicon *l,
                      struct err *e);
void grammar_run_close(struct grammar_run *r);  // NULL is fine
size_t grammar_run_bytes(const struct grammar *g);

/* Go on to where the answer id [n] ends. What was seen before is not read again: id must begin with it,
 * or be shorter (an answer taken back), which starts again. Fails: ERR_FORMAT when the answer is not a
 * beginning of a text of the grammar. */
MUST grammar_run_sync(struct grammar_run *r, const int32_t *id, size_t n, struct err *e);

/* May this token come next? Tokens that end an answer may where grammar_is_whole(). Control tokens and
 * tokens without text never. */
bool grammar_allows(struct grammar_run *r, int32_t id);
/* The answer so far is a text of the grammar. */
bool grammar_is_whole(const struct grammar_run *r);

/* All tokens that may come next, ascending, into id [cap]; more than cap of them: cap + 1. Never walks
 * more of the vocabulary than shares a beginning with what the grammar allows. */
size_t grammar_allowed(struct grammar_run *r, int32_t *id, size_t cap);
/* The same where it is known already, from the last time the text stood here; else false. */
bool grammar_recalls(const struct grammar_run *r, const int32_t **id, size_t *n);

#endif
