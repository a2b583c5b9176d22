/* Tokenizers of all kinds on any bytes, and on vocabularies spoilt by the input. What must hold: the
 * ids are in range and no more than the bound; without control tokens the text comes back; parts give
 * no control token from a plain one. */
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

enum { N_TOY = 5 };

static void toy_of(struct toy *y, unsigned which) {
    switch (which) {
    case 0: toy_spm(y); break;
    case 1: toy_bpe(y, "llama-bpe"); break;
    case 2: toy_bpe(y, "gpt-2"); break;
    default: toy_plain(y, which == 3); break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct tok *good[N_TOY];
    static struct toy y;
    struct err e;
    for (unsigned i = 0; i < N_TOY && !good[i]; i++) {
        toy_of(&y, i);
        expect(tok_open(&good[i], &y.v, &e));
    }
    if (size < 2) return 0;
    unsigned which = data[0] % N_TOY, flags = data[0] >> 2 & (TOK_BOS | TOK_SPECIAL | TOK_EOS);
    size_t n_spoil = data[1] & 1 ? data[1] % (size - 1) : 0;
    const char *s = (const char *)data + 2 + (n_spoil < size - 2 ? n_spoil : size - 2);
    size_t len = size - (size_t)(s - (const char *)data);
    if (!n_spoil) {
        encode(good[which], s, len, flags, !flags);
        return 0;
    }
    toy_of(&y, which);
    spoil(&y, data + 2, n_spoil);
    struct tok *t;
    if (!tok_open(&t, &y.v, &e)) return 0;
    encode(t, s, len, flags, false);
    tok_close(t);
    return 0;
}
