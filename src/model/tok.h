/* tok.h - text to tokens and back: SentencePiece BPE ("llama"), byte-level BPE ("gpt2"),
 * Gemma 4's mixture of both ("gemma4") and distributed-llama's merges by score ("dllama").
 *
 * Tables are built once from the model's vocabulary into one arena; encoding uses a scratch of the
 * caller's, so that it neither allocates nor recurses, and takes O(n log n) on any text.
 * Whatever the vocabulary: to find the special tokens takes at most log2(their number) comparisons for
 * each byte of the text, of no more bytes than the longest has, and 91 lookups more (tok_special.c).
 * Pre-tokenizers by name: see pretok_names.c; Unicode classes come from base/unicode. Threads: read-only after open.
 *
 * Sources: SentencePiece (Kudo & Richardson 2018) greedy merge by score; byte-level BPE (Radford et
 * al. 2019); the pre-tokenizer patterns are those that the models' own tokenizer files publish.
 */
#ifndef MODEL_TOK_H
#define MODEL_TOK_H

#include "model/model.h"

struct tok;

/* Fails: ERR_UNSUPPORTED for another kind or pre-tokenizer, ERR_FORMAT for a vocabulary that cannot
 * work (no merges, no byte tokens), ERR_MEMORY. *t is owned; free with tok_close. */
MUST tok_open(struct tok **t, const struct vocab *v, struct err *e);
void tok_close(struct tok *t);

/* What whoever runs the model should be told of its vocabulary, a sentence, or NULL. */
const char *tok_note(const struct tok *t);

enum tok_flags {
    TOK_BOS = 1 << 0,      // BOS first, if the vocabulary asks for it
    TOK_SPECIAL = 1 << 1,  // control tokens written out in the text become tokens
    TOK_EOS = 1 << 2,      // EOS last, if the vocabulary asks for it
};

/* text [len] (any bytes, NUL included) to ids. out: room for cap ids; *n gets how many there are.
 * Allocates its scratch (not for the token path). Fails: ERR_LIMIT when more than cap, naming both;
 * ERR_MEMORY. */
MUST tok_encode(const struct tok *t, const char *text, size_t len, unsigned flags, int32_t *out,
                size_t cap, size_t *n, struct err *e);

/* Memory that it takes, at most, for each byte of a text: scratch, ids with room for tok_bound, and the text
 * itself as it is read. */
enum { TOK_BYTES = 48 };

/* The same for a text put together from parts, tokenised as one. In a plain part (what a user wrote)
 * no control token is recognised, whatever it looks like. flags: TOK_BOS, TOK_EOS. */
struct tok_part {
    const char *text;
    size_t len;
    bool plain;
};
MUST tok_encode_parts(const struct tok *t, const struct tok_part *part, size_t n_part,
                      unsigned flags, int32_t *out, size_t cap, size_t *n, struct err *e);

/* Upper bound for the number of ids that len bytes can give, BOS and EOS included. */
size_t tok_bound(size_t len);

/* The bytes of one token as they stand in text; control tokens give nothing unless `special`.
 * The SentencePiece space prefix is not removed here (see struct detok). Borrowed until tok_close.
 * Returns the length. */
size_t tok_piece(const struct tok *t, int32_t id, bool special, const char **bytes);

bool tok_is_control(const struct tok *t, int32_t id);
/* Found in text as a whole, before anything is merged: control and user-defined tokens. */
bool tok_is_special(const struct tok *t, int32_t id);
/* End of generation: eos, eot and the well-known end-of-turn tokens of the vocabulary. */
bool tok_is_end(const struct tok *t, int32_t id);
/* The id of a token by its text as the vocabulary spells it, or -1. */
int32_t tok_find(const struct tok *t, const char *text, size_t len);
uint32_t tok_count(const struct tok *t);

/* Streaming detokeniser: holds back bytes that end inside a UTF-8 sequence until it is complete (at
 * most 3) and drops the space that SentencePiece puts first. Plain value, no allocation. */
struct detok {
    const struct tok *t;
    uint8_t held[4];
    uint8_t n_held;
    bool first;    // the next piece opens the text
    bool special;  // show control tokens
};
void detok_init(struct detok *d, const struct tok *t, bool special);
/* As detok_init, but mid-text: a leading space is kept (an answer that continues a prompt). */
void detok_init_within(struct detok *d, const struct tok *t, bool special);
enum { DETOK_MAX = 4096 };  // longest output of one push: tok_open refuses longer tokens
/* Append token id; writes what is complete to out [cap >= bytes of the piece + 4], returns length. */
size_t detok_push(struct detok *d, int32_t id, char *out, size_t cap);
/* What is still held at the end, as it is. */
size_t detok_flush(struct detok *d, char *out, size_t cap);

/* Longest piece of the vocabulary in bytes. */
size_t tok_longest(const struct tok *t);

/* What the model's own library does last with a whole text: byte-level vocabularies of the GPT-2 line
 * lose the space before . , ? ! and before 's 'm 're 've. In place, returns the new length. It loses
 * bytes of the text, so struct detok leaves it out. */
size_t tok_tidy(const struct tok *t, char *text, size_t len);

#endif
