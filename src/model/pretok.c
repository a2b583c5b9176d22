#include "model/pretok.h"

#include "base/unicode.h"

#include <string.h>

/* Names that converters write for these two patterns. The families differ in what surrounds the
 * pattern, not in the pattern itself. */
static const struct pretok pretoks[] = {
    {"llama-bpe", PRETOK_LLAMA3, true, true},
    {"llama3", PRETOK_LLAMA3, true, true},
    {"llama-v3", PRETOK_LLAMA3, true, true},
    {"falcon3", PRETOK_LLAMA3, true, true},
    {"falcon-h1", PRETOK_LLAMA3, true, true},
    {"pixtral", PRETOK_LLAMA3, true, true},
    {"midm-2.0", PRETOK_LLAMA3, true, true},
    {"lfm2", PRETOK_LLAMA3, true, true},
    {"dbrx", PRETOK_LLAMA3, false, true},
    {"smaug-bpe", PRETOK_LLAMA3, false, true},
    {"gpt-2", PRETOK_GPT2, false, true},
    {"phi-2", PRETOK_GPT2, false, true},
    {"mpt", PRETOK_GPT2, false, true},
    {"olmo", PRETOK_GPT2, false, true},
    {"jais", PRETOK_GPT2, false, true},
    {"gigachat", PRETOK_GPT2, false, true},
    {"a.x-4.0", PRETOK_GPT2, false, true},
    {"mellum", PRETOK_GPT2, false, true},
    {"exaone4", PRETOK_GPT2, false, true},
    {"trillion", PRETOK_GPT2, false, false},
    {"granite-docling", PRETOK_GPT2, false, false},
};

const struct pretok *pretok_find(const char *name) {
    for (size_t i = 0; i < sizeof pretoks / sizeof *pretoks; i++) {
        if (!strcmp(name, pretoks[i].name)) return &pretoks[i];
    }
    return NULL;
}

/* The kinds that the patterns tell apart; CR and LF are spaces too. */
enum kind { NONE, LETTER, NUMBER, SPACE, NEWLINE, SYMBOL };

static enum kind kind_of(int32_t cp) {
    if (cp == '\r' || cp == '\n') return NEWLINE;
    if (unicode_is_letter(cp)) return LETTER;
    if (unicode_is_number(cp)) return NUMBER;
    if (unicode_is_space(cp)) return SPACE;
    return SYMBOL;
}

/* The code point at `at`: its kind and length; NONE and 0 at the end of the text. */
struct step {
    enum kind kind;
    size_t len;
};

static struct step peek(const uint8_t *s, size_t len, size_t at) {
    if (at >= len) return (struct step){NONE, 0};
    int32_t cp;
    size_t n = unicode_decode(s + at, len - at, &cp);
    return (struct step){kind_of(cp), n};
}

/* Where the run of `kind` that begins at `at` ends. */
static size_t run(const uint8_t *s, size_t len, size_t at, enum kind kind) {
    for (;;) {
        struct step p = peek(s, len, at);
        if (p.kind != kind) return at;
        at += p.len;
    }
}

/* 's 't 're 've 'm 'll 'd at s[0] == '\'': its length, or 0. Only ASCII letters fold: U+017F and the
 * Kelvin sign do not count as s and k here. */
static size_t contraction(const uint8_t *s, size_t len, bool any_case) {
    uint8_t fold = any_case ? 0x20 : 0;
    if (len < 2) return 0;
    uint8_t a = s[1] | fold;
    if (a == 's' || a == 't' || a == 'm' || a == 'd') return 2;
    if (len < 3) return 0;
    uint8_t b = s[2] | fold;
    if ((a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l')) return 3;
    return 0;
}

/* A run of white space: all of it at the end of the text; before a word all but the last code point,
 * which goes with the word: \s+(?!\S)|\s+ */
static size_t spaces(const uint8_t *s, size_t len) {
    size_t at = 0, last = 0;
    for (;;) {
        struct step p = peek(s, len, at);
        if (p.kind == NONE) return at;
        if (p.kind != SPACE && p.kind != NEWLINE) return last ? last : at;
        last = at;
        at += p.len;
    }
}

/* 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
 * (Radford et al. 2019, encoder.py) */
static size_t next_gpt2(const uint8_t *s, size_t len) {
    if (s[0] == '\'') {
        size_t n = contraction(s, len, false);
        if (n) return n;
    }
    size_t at = s[0] == ' ';
    enum kind kind = peek(s, len, at).kind;
    if (kind == LETTER || kind == NUMBER || kind == SYMBOL) return run(s, len, at, kind);
    return spaces(s, len);
}

/* \s*[\r\n]+|\s+(?!\S)|\s+ : up to the last line end of the run when it has one. */
static size_t spaces_or_lines(const uint8_t *s, size_t len) {
    size_t at = 0, line = 0;
    for (;;) {
        struct step p = peek(s, len, at);
        if (p.kind != SPACE && p.kind != NEWLINE) break;
        at += p.len;
        if (p.kind == NEWLINE) line = at;
    }
    return line ? line : spaces(s, len);
}

/* (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*
 * |\s*[\r\n]+|\s+(?!\S)|\s+ (tokenizer.json of Llama 3) */
static size_t next_llama3(const uint8_t *s, size_t len) {
    if (s[0] == '\'') {
        size_t n = contraction(s, len, true);
        if (n) return n;
    }
    struct step first = peek(s, len, 0);
    if (first.kind == LETTER) return run(s, len, first.len, LETTER);
    if (first.kind == NUMBER) {
        size_t at = first.len;
        for (int i = 1; i < 3; i++) {
            struct step p = peek(s, len, at);
            if (p.kind != NUMBER) break;
            at += p.len;
        }
        return at;
    }
    struct step second = peek(s, len, first.len);
    if (first.kind != NEWLINE && second.kind == LETTER) return run(s, len, first.len, LETTER);
    size_t at = s[0] == ' ' && second.kind == SYMBOL;
    if (at || first.kind == SYMBOL) {
        at = run(s, len, at, SYMBOL);
        return run(s, len, at, NEWLINE);
    }
    return spaces_or_lines(s, len);
}

size_t pretok_next(enum pretok_cut cut, const uint8_t *s, size_t len) {
    return cut == PRETOK_GPT2 ? next_gpt2(s, len) : next_llama3(s, len);
}
