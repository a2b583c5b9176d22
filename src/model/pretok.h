/* pretok.h - cutting text into words before byte-level BPE merges inside each.
 *
 * The models publish these cuts as regular expressions. They are small and fixed, so each is a
 * hand-written scanner instead: linear in the text, nothing to compile, nothing that can backtrack.
 */
#ifndef MODEL_PRETOK_H
#define MODEL_PRETOK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum pretok_cut { PRETOK_GPT2, PRETOK_LLAMA3 };

/* What a name in tokenizer.ggml.pre stands for. */
struct pretok {
    const char *name;
    enum pretok_cut cut;
    bool whole_words;  // a word that is a token is taken whole, merges or not
    bool tidy;         // the model's library tidies spaces when it detokenises (see tok_tidy)
};

/* NULL for a name that is not supported. */
const struct pretok *pretok_find(const char *name);

/* Bytes of the first word of s [len >= 1]; at least 1. Malformed bytes count as symbols. */
size_t pretok_next(enum pretok_cut cut, const uint8_t *s, size_t len);

#endif
