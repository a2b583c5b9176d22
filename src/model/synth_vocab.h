/* synth_vocab.h - a vocabulary of our own making for synthetic models: byte-level BPE with pronounceable
 * pieces, so that random weights babble in syllables and any text can be encoded.
 *
 * For model/synth.c only. Ids: 256 bytes in GPT-2's order, then one token a merge, then the control
 * tokens, laid out as in llama 3. */
#ifndef MODEL_SYNTH_VOCAB_H
#define MODEL_SYNTH_VOCAB_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

enum { SYNTH_PIECE_MAX = 64 };  // bytes of a token as it stands in the file

struct synth_token {
    uint8_t len;
    char bytes[15];       // raw
    int32_t left, right;  // the merge that makes it, -1 for a single byte
};

struct synth_vocab {
    uint32_t n_token, n_special;
    uint32_t n_plain;           // n_token - n_special
    struct synth_token *token;  // [n_plain] owned
    uint32_t *slot;             // [n_slot] ids by text, UINT32_MAX: free; owned
    uint32_t n_slot;            // a power of two
    uint32_t n;                 // tokens made so far
};

/* Fails: ERR_MEMORY; ERR_UNSUPPORTED when n_token is more than the syllables give. */
MUST synth_vocab_make(struct synth_vocab *v, uint32_t n_token, uint32_t n_special, struct err *e);
void synth_vocab_free(struct synth_vocab *v);

/* Token id as the file spells it, not ended by NUL; returns the length. */
size_t synth_vocab_text(const struct synth_vocab *v, uint32_t id, char out[static SYNTH_PIECE_MAX]);

/* Control tokens by their place among them, as in llama 3. */
enum {
    SYNTH_BOS = 0,
    SYNTH_EOS = 1,
    SYNTH_HEADER = 6,
    SYNTH_HEADER_END = 7,
    SYNTH_EOT = 9,
    SYNTH_SPECIAL_MIN = 10
};

#endif
