#include "model/synth_vocab.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const consonants[] = {"t",  "n",  "s",  "r",  "l",  "d", "m",  "c",  "p",  "b",
                                         "g",  "v",  "f",  "h",  "w",  "k", "th", "st", "sh", "ch",
                                         "tr", "pl", "br", "gr", "cl", "j", "z",  "qu", "y",  "x"};
static const char *const vowels[] = {"e", "a", "i", "o", "u", "ea", "ou", "io", "ai", "ee", "oo"};
static const char *const ends[] = {"n", "r", "s", "t", "l", "d", "m", "ng", "nd", "ck"};

/* Enough everyday words that an English prompt takes about a token a word. */
static const char *const words[] = {
    "the",     "of",     "and",    "to",       "in",     "a",     "is",    "that",   "it",
    "for",     "was",    "on",     "are",      "as",     "with",  "his",   "they",   "at",
    "be",      "this",   "have",   "from",     "or",     "one",   "had",   "by",     "word",
    "but",     "not",    "what",   "all",      "were",   "we",    "when",  "your",   "can",
    "said",    "there",  "use",    "an",       "each",   "which", "she",   "do",     "how",
    "their",   "if",     "will",   "up",       "other",  "about", "out",   "many",   "then",
    "them",    "these",  "so",     "some",     "her",    "would", "make",  "like",   "him",
    "into",    "time",   "has",    "look",     "two",    "more",  "write", "go",     "see",
    "number",  "no",     "way",    "could",    "people", "my",    "than",  "first",  "water",
    "been",    "call",   "who",    "oil",      "its",    "now",   "find",  "long",   "down",
    "day",     "did",    "get",    "come",     "made",   "may",   "part",  "you",    "I",
    "The",     "He",     "What",   "How",      "Why",    "Tell",  "me",    "story",  "once",
    "upon",    "little", "house",  "river",    "light",  "small", "great", "good",   "old",
    "explain", "short",  "answer", "question", "name",   "list",  "hello", "please", "computer",
    "model",
};

/* GPT-2's order of bytes: those that print come first and stand for themselves, the others follow and
 * are spelt as code points from 256 on. */
static uint32_t byte_at(uint32_t id) {
    if (id < 94) return id + 33;
    if (id < 106) return id - 94 + 161;
    if (id < 188) return id - 106 + 174;
    if (id < 221) return id - 188;
    if (id < 255) return id - 221 + 127;
    return 173;
}

static uint32_t byte_id(uint8_t byte) {
    if (byte < 33) return byte + 188U;
    if (byte < 127) return byte - 33U;
    if (byte < 161) return byte - 127U + 221U;
    if (byte == 173) return 255;
    return byte < 173 ? byte - 161U + 94U : byte - 174U + 106U;
}

static uint32_t hash(const char *s, size_t len) {
    uint32_t h = 2166136261U;  // FNV-1a
    for (size_t i = 0; i < len; i++) h = (h ^ (uint8_t)s[i]) * 16777619U;
    return h ^ h >> 15;
}

/* Slot of the token with this text, or the free one where it belongs. */
static uint32_t *slot_of(const struct synth_vocab *v, const char *s, size_t len) {
    for (uint32_t i = hash(s, len);; i++) {
        uint32_t *slot = &v->slot[i & (v->n_slot - 1)];
        if (*slot == UINT32_MAX) return slot;
        const struct synth_token *t = &v->token[*slot];
        if (t->len == len && !memcmp(t->bytes, s, len)) return slot;
    }
}

/* The token left+right, made now unless it is there; -1 when the vocabulary is full or it is too long. */
static int32_t merge(struct synth_vocab *v, int32_t left, int32_t right) {
    if (left < 0 || right < 0) return -1;
    const struct synth_token *a = &v->token[left], *b = &v->token[right];
    struct synth_token t = {.left = left, .right = right};
    size_t len = (size_t)a->len + b->len;
    if (len > sizeof t.bytes) return -1;
    memcpy(t.bytes, a->bytes, a->len);
    memcpy(t.bytes + a->len, b->bytes, b->len);
    t.len = (uint8_t)len;
    uint32_t *slot = slot_of(v, t.bytes, len);
    if (*slot != UINT32_MAX) return (int32_t)*slot;
    if (v->n == v->n_plain) return -1;
    *slot = v->n;
    v->token[v->n] = t;
    return (int32_t)v->n++;
}

/* A text as a chain of merges, a letter at a time: every prefix becomes a token. */
static int32_t chain(struct synth_vocab *v, const char *s) {
    int32_t id = (int32_t)byte_id((uint8_t)*s);
    for (s++; *s && id >= 0; s++) id = merge(v, id, (int32_t)byte_id((uint8_t)*s));
    return id;
}

#define COUNT(a) (sizeof(a) / sizeof *(a))

enum { N_OPEN = COUNT(consonants) * COUNT(vowels), N_SYLLABLE = N_OPEN * (1 + COUNT(ends)) };

/* Syllables: consonant and vowel, then the same closed by an ending. */
static void make_syllables(struct synth_vocab *v, int32_t *syllable) {
    for (size_t i = 0; i < N_OPEN; i++) {
        syllable[i] = merge(v, chain(v, consonants[i % COUNT(consonants)]),
                            chain(v, vowels[i / COUNT(consonants)]));
    }
    for (size_t i = N_OPEN; i < N_SYLLABLE; i++) {
        syllable[i] = merge(v, syllable[i % N_OPEN], chain(v, ends[i / N_OPEN - 1]));
    }
}

static void make_words(struct synth_vocab *v) {
    char text[24];
    for (size_t i = 0; i < COUNT(words); i++) {
        snprintf(text, sizeof text, " %s", words[i]);
        chain(v, text);
        chain(v, words[i]);
    }
    for (int i = 0; i < 1000; i++) {  // numbers go in groups of up to three digits
        snprintf(text, sizeof text, "%03d", i);
        chain(v, text);
    }
    static const char *const marks[] = {"\n\n",     ".\n",  "...",  ", ", "  ", "    ",
                                        "        ", "\r\n", "--",   "==", "()", "[]",
                                        "{}",       "//",   "\"\"", "':", "?\n"};
    for (size_t i = 0; i < COUNT(marks); i++) chain(v, marks[i]);
}

/* Words of two syllables, with and without a space before, by the first syllable's rank plus the
 * second's: short and frequent ones come first. */
static void make_pairs(struct synth_vocab *v, const int32_t *syllable) {
    for (size_t sum = 0; sum < 2 * N_SYLLABLE && v->n < v->n_plain; sum++) {
        for (size_t a = sum < N_SYLLABLE ? 0 : sum - N_SYLLABLE + 1; a <= sum && a < N_SYLLABLE;
             a++) {
            int32_t space = merge(v, (int32_t)byte_id(' '), syllable[a]);
            merge(v, space, syllable[sum - a]);
            merge(v, syllable[a], syllable[sum - a]);
        }
    }
}

MUST synth_vocab_make(struct synth_vocab *v, uint32_t n_token, uint32_t n_special, struct err *e) {
    *v = (struct synth_vocab){.n_token = n_token, .n_special = n_special, .n_slot = 1024};
    v->n_plain = n_token - n_special;
    while (v->n_slot < 2 * n_token) v->n_slot *= 2;
    v->token = calloc(v->n_plain, sizeof *v->token);
    v->slot = malloc(v->n_slot * sizeof *v->slot);
    int32_t *syllable = malloc(N_SYLLABLE * sizeof *syllable);
    bool ok = v->token && v->slot && syllable;
    if (!ok) err_set(e, ERR_MEMORY, "no memory for a vocabulary of %u tokens", (unsigned)n_token);
    if (ok) {
        memset(v->slot, 0xff, v->n_slot * sizeof *v->slot);
        for (; v->n < 256; v->n++) {
            struct synth_token *t = &v->token[v->n];
            *t = (struct synth_token){.len = 1, .left = -1, .right = -1};
            t->bytes[0] = (char)byte_at(v->n);
            *slot_of(v, t->bytes, 1) = v->n;
        }
        make_words(v);
        make_syllables(v, syllable);
        make_pairs(v, syllable);
        ok = v->n == v->n_plain ||
             err_set(e, ERR_UNSUPPORTED, "syllables for %u tokens only", (unsigned)v->n);
    }
    free(syllable);
    if (!ok) synth_vocab_free(v);
    return ok;
}

void synth_vocab_free(struct synth_vocab *v) {
    free(v->token);
    free(v->slot);
    *v = (struct synth_vocab){0};
}

static size_t special_text(uint32_t i, char out[static SYNTH_PIECE_MAX]) {
    static const char *const names[SYNTH_SPECIAL_MIN] = {
        [SYNTH_BOS] = "<|begin_of_text|>",
        [SYNTH_EOS] = "<|end_of_text|>",
        [SYNTH_HEADER] = "<|start_header_id|>",
        [SYNTH_HEADER_END] = "<|end_header_id|>",
        [SYNTH_EOT] = "<|eot_id|>",
    };
    int n;
    if (i < SYNTH_SPECIAL_MIN && names[i]) {
        n = snprintf(out, SYNTH_PIECE_MAX, "%s", names[i]);
    } else {
        n = snprintf(out, SYNTH_PIECE_MAX, "<|reserved_special_token_%u|>", (unsigned)i);
    }
    return (size_t)n;
}

size_t synth_vocab_text(const struct synth_vocab *v, uint32_t id,
                        char out[static SYNTH_PIECE_MAX]) {
    if (id >= v->n_plain) return special_text(id - v->n_plain, out);
    const struct synth_token *t = &v->token[id];
    size_t n = 0;
    for (size_t i = 0; i < t->len; i++) {
        uint32_t at = byte_id((uint8_t)t->bytes[i]);
        uint32_t cp = at < 188 ? (uint8_t)t->bytes[i] : at - 188 + 256;
        if (cp >= 0x80) out[n++] = (char)(0xc0 | cp >> 6);  // below 0x800: two bytes at most
        out[n++] = (char)(cp < 0x80 ? cp : 0x80 | (cp & 0x3f));
    }
    return n;
}
