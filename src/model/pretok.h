/* pretok.h - cutting text into words before byte-level BPE merges inside each.
 *
 * The models publish these cuts as regular expressions, some as several that are applied one after
 * another, each inside the pieces that the one before it left. They are small and fixed, so each is a
 * hand-written scanner instead: linear in the text, nothing to compile, nothing that can backtrack far.
 */
#ifndef MODEL_PRETOK_H
#define MODEL_PRETOK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum pretok_cut {
    PRETOK_GPT2,
    PRETOK_LLAMA3,
    PRETOK_QWEN2,
    PRETOK_QWEN35,
    PRETOK_MINICPM5,
    PRETOK_SEED,
    PRETOK_TEKKEN,
    PRETOK_GPT4O,
    PRETOK_DIGITS_GPT2,
    PRETOK_BLOOM,
    PRETOK_VIKING,
    PRETOK_FALCON,
    PRETOK_DEFAULT,
    PRETOK_DEEPSEEK,
    PRETOK_DEEPSEEK_CODER,
    PRETOK_DEEPSEEK3,
    PRETOK_LINES,
    N_PRETOK_CUT
};

/* What a name in tokenizer.ggml.pre stands for. */
struct pretok {
    enum pretok_cut cut;
    bool whole_words;  // a word that is a token is taken whole, merges or not
    bool tidy;         // the model's library tidies spaces when it detokenises (see tok_tidy)
    bool bos;          // a text begins with BOS where the file does not say
    bool marks;        // no letters for bytes: texts stand as they are, U+2581 for a space
};

/* What a file may say that does not know, and what is taken where it says nothing. */
#define PRETOK_UNKNOWN "default"

/* False for a name that is not supported. */
bool pretok_find(struct pretok *p, const char *name);
size_t pretok_count(void);  // names known

/* A text on its way through the stages of a cut. Plain value. */
enum { PRETOK_STAGES = 6 };
struct pretok_words {
    enum pretok_cut cut;
    const uint8_t *s;
    size_t at;                      // where the next word begins
    size_t end[PRETOK_STAGES + 1];  // of the piece there, after so many stages
};
void pretok_begin(struct pretok_words *w, enum pretok_cut cut, const uint8_t *s, size_t len);
/* Bytes of the next word, which begins at s + at; 0 at the end of the text. Malformed bytes count as
 * symbols. Whatever the text, all words together take time in proportion to its length. */
size_t pretok_next(struct pretok_words *w);

#endif
