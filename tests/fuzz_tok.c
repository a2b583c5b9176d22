/* Tokenizers of all kinds on any bytes, and on vocabularies spoilt by the input. What must hold: the
 * ids are in range and no more than the bound; without control tokens the text comes back; parts give
 * no control token from a plain one. */
#include "model/pretok.h"
#include "model/tok.h"
#include "toy_vocab.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void expect(bool ok) {
    if (!ok) abort();
}

static void back_to_text(const struct tok *t, const int32_t *id, size_t n, const char *s,
                         size_t len) {
    char *out = malloc(n * tok_longest(t) + 8);
    struct detok d;
    size_t at = 0;
    detok_init(&d, t, false);
    for (size_t i = 0; i < n; i++) at += detok_push(&d, id[i], out + at, tok_longest(t) + 4);
    at += detok_flush(&d, out + at, 4);
    /* SentencePiece spells a space U+2581, so that one in the text comes back as a space. */
    if (!memmem(s, len, "\xe2\x96\x81", 3)) expect(at == len && !memcmp(out, s, len));
    expect(tok_tidy(t, out, at) <= at);
    free(out);
}

static void encode(const struct tok *t, const char *s, size_t len, unsigned flags, bool back) {
    size_t cap = tok_bound(len), n = 0;
    int32_t *id = malloc(cap * sizeof *id);
    struct err e;
    expect(tok_encode(t, s, len, flags, id, cap, &n, &e) && n <= cap);
    for (size_t i = 0; i < n; i++) expect(id[i] >= 0 && (uint32_t)id[i] < tok_count(t));
    if (back) back_to_text(t, id, n, s, len);
    struct tok_part part[3] = {{s, len / 3, false},
                               {s + len / 3, len / 3, true},
                               {s + len / 3 * 2, len - len / 3 * 2, true}};
    expect(tok_encode_parts(t, part, 3, 0, id, cap, &n, &e));
    expect(tok_encode_parts(t, part + 1, 2, 0, id, cap, &n, &e));
    /* <unk> stands for a byte that a spoilt vocabulary cannot spell. */
    for (size_t i = 0; i < n; i++) expect(!tok_is_control(t, id[i]) || !id[i]);
    free(id);
}

/* Overwrite texts, types, scores and merges of a vocabulary by the input; bounds stay sound, as the
 * reader of the file sees to that. */
static void spoil(struct toy *y, const uint8_t *data, size_t size) {
    for (size_t i = 0; i + 3 <= size; i += 3) {
        uint32_t at = data[i] * 2U % y->v.n_token;
        switch (data[i + 1] >> 6) {
        case 0: y->text[y->start[at]] = (char)data[i + 2]; break;
        case 1: y->type[at] = data[i + 2] % 9; break;
        case 2: y->score[at] = (float)data[i + 2] - 128.0F; break;
        default: y->merge_text[(data[i + 1] & 63) * 3U] = (char)data[i + 2]; break;
        }
    }
}

/* What the vocabularies are: without pre-tokenizers, then byte-level ones by their names, of which those
 * left out have the cut and the ways of one that is here. */
enum { SPM, STRIPS, PLAIN_BYTES, PLAIN, MARKS, BYTE_LEVEL };
static const char *const pres[] = {
    "llama-bpe", "gpt-2",    "dbrx",         "trillion",       "qwen2",       "megrez",
    "qwen35",    "minicpm5", "tekken",       "seed-coder",     "gpt-4o",      "smollm",
    "starcoder", "falcon",   "deepseek-llm", "deepseek-coder", "deepseek-v3", "default",
};
enum { KINDS = BYTE_LEVEL + sizeof pres / sizeof *pres };

static void make(struct toy *y, unsigned kind) {
    static const char *const strips[] = {"<|placeholder1|>", "<|assistant|>", "<|end|>",
                                         "<|user|>"};
    switch (kind) {
    case SPM: toy_spm(y); return;
    case PLAIN_BYTES:
    case PLAIN: toy_plain(y, kind == PLAIN_BYTES); return;
    case MARKS: toy_marks(y); return;
    case STRIPS: break;
    default: toy_bpe(y, pres[kind - BYTE_LEVEL]); return;
    }
    /* White space goes behind special tokens, as with Phi-3; and no space comes first. */
    toy_spm(y);
    for (size_t i = 0; i < 4; i++) toy_add(y, strips[i], 0, TOKEN_CONTROL);
    y->v.add_space_prefix = false;
    y->v.add_eos = true;
}

/* SentencePiece makes one more space behind a special token, or drops one. */
static bool comes_back(unsigned kind, const char *s, size_t len) {
    return kind > STRIPS || !memmem(s, len, "<user>", 6);
}

/* The words of a cut cover the text, and none is empty. */
static void cut(const char *pre, const char *s, size_t len) {
    struct pretok p;
    struct pretok_words w;
    size_t sum = 0;
    expect(pretok_find(&p, pre));
    pretok_begin(&w, p.cut, (const uint8_t *)s, len);
    for (size_t n; (n = pretok_next(&w)); sum += n) expect(n <= len - sum);
    expect(sum == len);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct tok *good[KINDS];
    static struct toy y;
    struct err e;
    struct tok *t;
    for (unsigned i = 0; !good[KINDS - 1] && i < KINDS; i++) {
        make(&y, i);
        expect(tok_open(&good[i], &y.v, &e));
    }
    if (size < 3) return 0;
    unsigned kind = data[0] % KINDS, flags = data[1] & (TOK_BOS | TOK_SPECIAL | TOK_EOS);
    size_t n_spoil = data[2] & 1 ? data[2] % (size - 2) : 0;
    const char *s = (const char *)data + 3 + n_spoil;
    size_t len = size - 3 - n_spoil;
    if (kind == MARKS) cut("gemma4", s, len);
    if (kind >= BYTE_LEVEL) cut(pres[kind - BYTE_LEVEL], s, len);
    if (!n_spoil) {
        encode(good[kind], s, len, flags, !flags && comes_back(kind, s, len));
        return 0;
    }
    make(&y, kind);
    spoil(&y, data + 3, n_spoil);
    if (!tok_open(&t, &y.v, &e)) return 0;
    encode(t, s, len, flags, false);
    tok_close(t);
    return 0;
}
