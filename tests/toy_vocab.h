/* toy_vocab.h - vocabularies of all kinds, a few hundred tokens, made up here: for tests and fuzzers. */
#ifndef TESTS_TOY_VOCAB_H
#define TESTS_TOY_VOCAB_H

#include "model/model.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

enum { TOY_TOKENS = 512, TOY_BYTES = 16384 };

struct toy {
    struct vocab v;
    char text[TOY_BYTES], merge_text[TOY_BYTES];
    uint32_t start[TOY_TOKENS + 1], merge[TOY_TOKENS + 1];
    float score[TOY_TOKENS];
    uint8_t type[TOY_TOKENS];
};

static inline int32_t toy_add_bytes(struct toy *y, const char *text, size_t n, float score,
                                    enum token_type type) {
    uint32_t i = y->v.n_token++, len = (uint32_t)n;
    assert(i < TOY_TOKENS && y->start[i] + len <= TOY_BYTES);
    memcpy(y->text + y->start[i], text, len);
    y->start[i + 1] = y->start[i] + len;
    y->score[i] = score;
    y->type[i] = (uint8_t)type;
    return (int32_t)i;
}

static inline int32_t toy_add(struct toy *y, const char *text, float score, enum token_type type) {
    return toy_add_bytes(y, text, strlen(text), score, type);
}

static inline void toy_init(struct toy *y, const char *kind, const char *pre) {
    memset(y, 0, sizeof *y);
    y->v = (struct vocab){.kind = kind,
                          .pre = pre,
                          .text = y->text,
                          .start = y->start,
                          .score = y->score,
                          .type = y->type,
                          .merge_text = y->merge_text,
                          .merge = y->merge,
                          .bos = -1,
                          .eos = -1,
                          .eot = -1,
                          .eom = -1,
                          .unk = -1};
}

/* Text with U+2581 for each "_". */
static inline void toy_mark(const char *s, char text[static 64]) {
    size_t n = 0;
    for (text[0] = 0; *s; s++) {
        n += (size_t)snprintf(text + n, 64 - n, *s == '_' ? "\xe2\x96\x81" : "%c", *s);
    }
}

static inline void toy_byte_tokens(struct toy *y) {
    for (unsigned b = 0; b < 256; b++) {
        char name[8];
        snprintf(name, sizeof name, "<0x%02X>", b);
        toy_add(y, name, 0, TOKEN_BYTE);
    }
}

/* SentencePiece: <unk> <s> </s>, 256 bytes, then pieces that merge in a known order. "_" in the list
 * stands for U+2581. */
static inline void toy_spm(struct toy *y) {
    static const char *const pieces[] = {
        "_",  "a",  "b",    "c",    "e",     "h",      "l",    "o",      "r",    "t",   "w",  "d",
        "é",  "世", "he",   "ll",   "_t",    "the",    "hell", "_w",     "or",   "ld",  "__", "aa",
        "ab", "ba", "aaaa", "_the", "hello", "_hello", "_wor", "_world", "____", "界a",
    };
    toy_init(y, "llama", "default");
    y->v.unk = toy_add(y, "<unk>", 0, TOKEN_UNKNOWN);
    y->v.bos = toy_add(y, "<s>", 0, TOKEN_CONTROL);
    y->v.eos = toy_add(y, "</s>", 0, TOKEN_CONTROL);
    y->v.add_bos = y->v.add_space_prefix = true;
    toy_byte_tokens(y);
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
        char text[64];
        toy_mark(pieces[i], text);
        /* Later pieces merge first, but "ab" and "ba" tie. */
        float score = !strcmp(pieces[i], "ab") ? -8 : (float)i - 33;
        toy_add(y, text, score, TOKEN_NORMAL);
    }
    toy_add(y, "<user>", 0, TOKEN_USER);
    toy_add(y, "<user><", 0, TOKEN_USER);
    toy_add(y, "[ctl]", 0, TOKEN_CONTROL);
}

/* distributed-llama's: of bytes, or of characters with byte tokens besides; then pieces that merge from
 * two others, the first of them first, but "ab" and "ba" tie; special tokens from BOS on. */
static inline void toy_plain(struct toy *y, bool of_bytes) {
    static const char *const letters[] = {" ", "a", "b", "c", "d", "e", "h", "l", "o",  "r", "t",
                                          "w", "x", "s", "'", "1", "2", "3", "é", "世", "界"};
    static const char *const pieces[] = {
        "he",    "ll",   " t",     "the",      "lo",  " w",   "or",   "ld",
        "aa",    "  ",   "é",      "ab",       "ba",  "hell", "aaaa", " the",
        "hello", " wor", " world", "    ",     "wor", "o ",   "'s",   "\xe4\xb8",
        "世",    "12",   " hello", "\xe7\x95", "界",  "界a",  "b ",
    };
    toy_init(y, "dllama", "");
    for (unsigned b = 0; b < 256; b++) {
        char name[8] = {(char)b};
        if (!of_bytes) snprintf(name, sizeof name, "<0x%02X>", b);
        toy_add_bytes(y, name, of_bytes ? 1 : 6, -1e6F, TOKEN_NORMAL);
    }
    for (size_t i = 0; !of_bytes && i < sizeof letters / sizeof *letters; i++) {
        toy_add(y, letters[i], -1e6F, TOKEN_NORMAL);
    }
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
        size_t len = strlen(pieces[i]);
        bool is_letter = (uint8_t)*pieces[i] >= 0x80 && len < 4;
        if (!of_bytes && is_letter) continue;
        toy_add(y, pieces[i], strcmp(pieces[i], "ba") ? -(float)i : -11, TOKEN_NORMAL);
    }
    y->v.bos = toy_add(y, "<|begin|>", 0, TOKEN_CONTROL);
    y->v.eos = toy_add(y, "<|done|>", 0, TOKEN_CONTROL);
    toy_add(y, "<|eot_id|>", 0, TOKEN_CONTROL);
    toy_add(y, "<think>", 0, TOKEN_USER);
    y->v.add_bos = true;
}

/* How byte-level vocabularies spell a byte, by the rule of the original: printable ones as they are,
 * the others 256, 257, ... in order. */
static inline void toy_spell(unsigned byte, char out[static 4]) {
    unsigned cp = 0, next = 256;
    for (unsigned b = 0; b <= byte; b++) {
        bool printable = (b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
        cp = printable ? b : next++;
    }
    snprintf(out, 4, cp < 128 ? "%c" : "%c%c", cp < 128 ? (int)cp : (int)(0xc0 | cp >> 6),
             (int)(0x80 | (cp & 63)));
}

static inline void toy_merge(struct toy *y, const char *left, const char *right) {
    uint32_t i = y->v.n_merge++, at = y->merge[i];
    int n = snprintf(y->merge_text + at, TOY_BYTES - at, "%s %s", left, right);
    y->merge[i + 1] = at + (uint32_t)n;
    char text[64];
    snprintf(text, sizeof text, "%s%s", left, right);
    for (uint32_t t = 0; t < y->v.n_token; t++) {
        size_t len = y->start[t + 1] - y->start[t];
        if (len == strlen(text) && !memcmp(y->text + y->start[t], text, len)) return;
    }
    toy_add(y, text, 0, TOKEN_NORMAL);
}

/* Byte-level: 256 bytes in their own order, merges, control tokens of two chat formats. */
static inline void toy_bpe(struct toy *y, const char *pre) {
    static const char *const pairs[][2] = {
        {"h", "e"},       {"l", "l"},   {"o", "w"},   {"Ġ", "w"},     {"he", "ll"},  {"Ġ", "he"},
        {"a", "a"},       {"aa", "aa"}, {"a", "b"},   {"b", "a"},     {"hell", "o"}, {"Ġw", "or"},
        {"o", "r"},       {"Ġw", "or"}, {"Ã", "©"},   {"Ġ", "Ġ"},     {"1", "2"},    {"12", "3"},
        {"Ċ", "Ċ"},       {"'", "s"},   {"l", "d"},   {"Ġwor", "ld"}, {"ä", "¸"},    {"ä¸", "ĸ"},
        {"aaaa", "aaaa"}, {"u", "s"},   {"us", "er"}, {"e", "r"},     {"s", "y"},
    };
    toy_init(y, "gpt2", pre);
    for (unsigned b = 0; b < 256; b++) {
        char text[4];
        toy_spell(b, text);
        toy_add(y, text, 0, TOKEN_NORMAL);
    }
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
        toy_merge(y, pairs[i][0], pairs[i][1]);
    toy_add(y, "xyz", 0, TOKEN_NORMAL);  // no merges lead to it
    y->v.bos = toy_add(y, "<|begin_of_text|>", 0, TOKEN_CONTROL);
    y->v.eos = toy_add(y, "<|end_of_text|>", 0, TOKEN_CONTROL);
    toy_add(y, "<|start_header_id|>", 0, TOKEN_CONTROL);
    toy_add(y, "<|end_header_id|>", 0, TOKEN_CONTROL);
    toy_add(y, "<|eot_id|>", 0, TOKEN_CONTROL);
    toy_add(y, "<|im_start|>", 0, TOKEN_CONTROL);
    toy_add(y, "<|im_end|>", 0, TOKEN_NORMAL);  // as some files have it
    toy_add(y, "<user>", 0, TOKEN_USER);
    y->v.add_bos = true;
}

/* Gemma 4's: <pad> <eos> <bos>, 256 bytes, characters, then merges of texts as they stand, U+2581 for a space
 * ("_" in the list). */
static inline void toy_marks(struct toy *y) {
    static const char *const letters[] = {"_", "a", "b", "c", "d", "e", "h", "l",  "o", "r",
                                          "t", "w", "s", "'", "1", "2", "3", "\n", "é", "世"};
    static const char *const pairs[][2] = {
        {"_", "_"},    {"__", "__"},   {"h", "e"},     {"l", "l"}, {"_", "t"},       {"he", "ll"},
        {"hell", "o"}, {"_t", "he"},   {"_", "hello"}, {"_", "w"}, {"o", "r"},       {"l", "d"},
        {"_w", "or"},  {"_wor", "ld"}, {"t", "he"},    {"a", "a"}, {"aa", "aa"},     {"a", "b"},
        {"b", "a"},    {"o", "_"},     {"\n", "\n"},   {"1", "2"}, {"aaaa", "aaaa"}, {"é", "世"},
    };
    toy_init(y, "gemma4", "gemma4");
    toy_add(y, "<pad>", 0, TOKEN_CONTROL);
    y->v.eos = toy_add(y, "<eos>", 0, TOKEN_CONTROL);
    y->v.bos = toy_add(y, "<bos>", 0, TOKEN_CONTROL);
    y->v.add_bos = true;
    toy_byte_tokens(y);
    for (size_t i = 0; i < sizeof letters / sizeof *letters; i++) {
        char text[64];
        toy_mark(letters[i], text);
        toy_add(y, text, 0, TOKEN_NORMAL);
    }
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        char left[64], right[64];
        toy_mark(pairs[i][0], left);
        toy_mark(pairs[i][1], right);
        toy_merge(y, left, right);
    }
    toy_add(y, "\n\n\n", 0, TOKEN_NORMAL);  // no merges lead to these
    toy_add(y, "abc", 0, TOKEN_NORMAL);
    toy_add(y, "</s>", 0, TOKEN_NORMAL);
    toy_add(y, "<user>", 0, TOKEN_USER);
    toy_add(y, "<|turn>", 0, TOKEN_CONTROL);
    toy_add(y, "<turn|>", 0, TOKEN_CONTROL);
    toy_add(y, "<|tool_response>", 0, TOKEN_USER);
}

#endif
