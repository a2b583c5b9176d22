/* tok_tables.h - what the tokenizer's files share; private to tok*.c and detok.c.
 *
 * Everything hangs in one arena, the struct itself too. Token texts are kept twice: as the
 * vocabulary spells them (keys of the hash) and as they stand in text (pieces), because both ways
 * are hot and the two spellings differ for most tokens.
 */
#ifndef MODEL_TOK_TABLES_H
#define MODEL_TOK_TABLES_H

#include "model/pretok.h"
#include "model/tok.h"

enum { TOKEN_MAX = DETOK_MAX - 4 };  // longest token text accepted

/* Bits beside enum token_type in tok.attr. */
enum {
    ATTR_TYPE = 7,
    ATTR_END = 1 << 3,    // end of generation
    ATTR_STRIP = 1 << 4,  // white space after it belongs to it
    ATTR_ALIEN = 1 << 5,  // byte_letters: text outside the byte alphabet, not for merging
};

struct token_slot {
    uint32_t tag;  // the hash, to save most comparisons
    int32_t id1;   // id + 1; 0 is empty
};

/* A byte-level merge: tokens left and right, side by side, become id. */
struct pair_slot {
    uint32_t left, right;
    uint32_t rank1;  // rank + 1; 0 is empty
    int32_t id;
};

enum { AMONG_USER, AMONG_ALL };  // in plain text only user-defined specials are looked for

/* The specials that a text begins with are a chain from the longest to shorter ones. */
struct special_link {
    uint32_t up;     // the longest that this one begins with, 0: none
    uint32_t jump;   // one further up (Myers 1983): any of the chain is found in O(log n)
    uint32_t depth;  // steps to the end
};

/* A token that is looked for in text before anything else. */
struct special {
    int32_t id;
    uint16_t len;
    bool user;                    // user-defined, hence looked for in any text
    struct special_link link[2];  // among AMONG_
};

enum tok_kind {
    TOK_SPM,    // SentencePiece
    TOK_BPE,    // merges by rank, inside the words of a cut
    TOK_PLAIN,  // distributed-llama's: SentencePiece's merges of texts as they stand, spaces too
};

struct tok {
    struct arena mem;
    enum tok_kind kind;
    struct pretok pre;  // TOK_BPE only
    bool byte_letters;  // texts are spelled in letters for bytes (GPT-2's)
    bool marks;         // a space is spelled U+2581
    uint32_t n_token;
    uint32_t longest;             // bytes of the longest text or piece
    const char *text;             // as the vocabulary spells them
    const uint32_t *start;        // [n_token + 1] into text
    const char *piece;            // as they stand in text
    const uint32_t *piece_start;  // [n_token + 1] into piece
    uint8_t *attr;                // [n_token] enum token_type and ATTR_ bits
    struct token_slot *slot;      // [slot_mask + 1] by text
    uint32_t slot_mask;
    uint32_t *prio;          // but TOK_BPE: [n_token] smaller merges first
    struct pair_slot *pair;  // TOK_BPE: [pair_mask + 1] by (left, right)
    uint32_t pair_mask;
    struct special *special;  // [1 + n_special] by text; [0], of length 0, ends all chains
    uint32_t n_special;
    uint32_t special_at[257];  // by first byte: where in special they begin, and the end
    bool has_user;
    int32_t byte_id[256];  // token of a single byte, or -1
    int32_t bos, eos, unk;
    bool add_bos, add_eos, space_prefix;
    bool word_marks;  // TOK_SPM: spaces stand only at the front of tokens
};

/* One symbol of the text being merged; a linked list threaded through an array. */
struct sym {
    int32_t prev, next;  // -1: none
    int32_t id;          // token, or -1
    uint32_t at, len;    // bytes of the buffer; len 0: merged away
};

struct merge_item {
    uint64_t key;  // priority, then position: the smallest is merged first
    uint32_t len;  // of the pair when it was seen; another length now means it is stale
    int32_t id;
};

/* Scratch and output of one call of tok_encode. */
struct encoder {
    const struct tok *t;
    const char *buf;          // bytes the symbols point into
    struct sym *sym;          // [cap_sym], owned
    struct merge_item *heap;  // [2 * cap_sym], owned
    size_t n_sym, cap_sym, n_heap;
    char *copy;  // text escaped for the vocabulary, owned
    size_t cap_copy;
    int32_t *out;
    size_t cap, n;  // ids wanted may exceed what out holds; the caller says so
};

uint32_t tok_hash(const char *s, size_t len);
/* The id of a token by its spelling among those that plain text may become, or -1. */
int32_t tok_word(const struct tok *t, const char *s, size_t len);
void tok_emit(struct encoder *en, int32_t id);

/* Room for n symbols, or for a copy of n bytes. Fails: ERR_MEMORY. */
MUST encoder_reserve(struct encoder *en, size_t n, struct err *e);
MUST encoder_copy(struct encoder *en, size_t n, struct err *e);
void encoder_free(struct encoder *en);

/* What special_mark says about each byte of a text: an id where a special token begins, MARK_TAKEN - k
 * for the byte k > 0 bytes after, and for the others what they were before. */
enum { MARK_FREE = -1, MARK_PLAIN = -2, MARK_TAKEN = -3 };  // MARK_PLAIN: a byte of a plain part

/* Tables of the special tokens. Texts, attributes and hash are ready. */
MUST special_build(struct tok *t, struct err *e);
/* Find special tokens in s [len]: longer ones first, of one length from left to right. In mark [len],
 * MARK_FREE and MARK_PLAIN on entry. Fails: ERR_MEMORY. */
MUST special_mark(const struct tok *t, const char *s, size_t len, int32_t *mark, struct err *e);

/* Merge the n_sym symbols of the list until no pair of neighbours is a token. O(n log n). */
void tok_merge(struct encoder *en);

/* s [len] to en->copy [*n], with marks for its spaces and, prefix, one before it. Fails: ERR_MEMORY. */
MUST spm_escape(struct encoder *en, const char *s, size_t len, bool prefix, size_t *n,
                struct err *e);
/* Merge and emit s [n > 0] beginning with its characters; what is no token by its bytes. */
MUST spm_run(struct encoder *en, const char *s, size_t n, struct err *e);

/* The byte-level alphabet (GPT-2): each byte has one code point below 0x144. */
size_t bpe_spell(uint8_t byte, char out[static 2]);
/* Bytes spelled by s [len] to out [len], or -1 when s uses anything outside the alphabet. */
int64_t bpe_unspell(const char *s, size_t len, char *out);

/* Find the tokens <0x00> to <0xFF>, which some files do not mark as bytes. Before pieces are made. */
void spm_mark_bytes(struct tok *t);
/* Build the tables of one kind (spm: of all but TOK_BPE) from v; texts, attr, hash and, without
 * byte_letters, byte_id are ready. */
MUST spm_build(struct tok *t, const struct vocab *v, struct err *e);
MUST bpe_build(struct tok *t, const struct vocab *v, struct err *e);
/* Encode one stretch of plain text [len > 0]. prefix: it follows a control token or opens the text. */
MUST spm_encode(struct encoder *en, const char *s, size_t len, bool prefix, struct err *e);
MUST bpe_encode(struct encoder *en, const char *s, size_t len, struct err *e);
/* Merge priority of two neighbours and what they become; false when they do not merge. */
bool spm_pair(const struct encoder *en, const struct sym *a, const struct sym *b, uint32_t *prio,
              int32_t *id);
bool bpe_pair(const struct encoder *en, const struct sym *a, const struct sym *b, uint32_t *prio,
              int32_t *id);

#endif
