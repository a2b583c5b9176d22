#include "model/pretok.h"

#include "base/unicode.h"

#include <limits.h>

enum {
    SPACES = UNI_SPACE,
    LETTERS = UNI_LETTER,
    NUMBERS = UNI_NUMBER,
    /* [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}] and [\p{Ll}\p{Lm}\p{Lo}\p{M}] */
    UPPERS = UNI_UPPER | UNI_PLAIN | UNI_MARK,
    LOWERS = UNI_LOWER | UNI_PLAIN | UNI_MARK,
    SIGNS = UNI_MARK | UNI_PUNCT | UNI_SYMBOL | UNI_OTHER,  // [^\s\p{L}\p{N}]
};

/* The code point at `at`; classes 0 and length 0 at the end of the text. */
struct step {
    int32_t cp;
    unsigned is;
    size_t len;
};

static struct step peek(const uint8_t *s, size_t len, size_t at) {
    if (at >= len) return (struct step){-1, 0, 0};
    int32_t cp;
    size_t n = unicode_decode(s + at, len - at, &cp);
    return (struct step){cp, unicode_classes(cp), n};
}

/* Where the run of code points of these classes that begins at `at` ends. */
static size_t run(const uint8_t *s, size_t len, size_t at, unsigned of) {
    for (;;) {
        struct step p = peek(s, len, at);
        if (!(p.is & of)) return at;
        at += p.len;
    }
}

/* As run, at most n of them. */
static size_t run_of(const uint8_t *s, size_t len, size_t at, unsigned of, unsigned n) {
    for (; n; n--) {
        struct step p = peek(s, len, at);
        if (!(p.is & of)) return at;
        at += p.len;
    }
    return at;
}

/* 's 't 're 've 'm 'll 'd at `at`: its length, or 0. Only ASCII letters fold: U+017F and the
 * Kelvin sign do not count as s and k here. */
enum fold { AS_IS = 0, ANY_CASE = 0x20 };  // the bit that a capital lacks

static size_t contraction(const uint8_t *s, size_t len, size_t at, enum fold fold) {
    if (len - at < 2 || s[at] != '\'') return 0;
    unsigned a = s[at + 1] | fold;
    if (a == 's' || a == 't' || a == 'm' || a == 'd') return 2;
    if (len - at < 3) return 0;
    unsigned b = s[at + 2] | fold;
    if ((a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l')) return 3;
    return 0;
}

/* A run of white space: all of it at the end of the text; before a word all but the last code point,
 * which goes with the word: \s+(?!\S)|\s+ */
static size_t spaces(const uint8_t *s, size_t len) {
    size_t at = 0, last = 0;
    for (;;) {
        struct step p = peek(s, len, at);
        if (!p.len) return at;
        if (!(p.is & SPACES)) return last ? last : at;
        last = at;
        at += p.len;
    }
}

/* 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
 * (Radford et al. 2019, encoder.py) */
static size_t next_gpt2(const uint8_t *s, size_t len) {
    size_t n = contraction(s, len, 0, AS_IS), at = s[0] == ' ';
    if (n) return n;
    unsigned is = peek(s, len, at).is;
    if (is & LETTERS) return run(s, len, at, LETTERS);
    if (is & NUMBERS) return run(s, len, at, NUMBERS);
    if (is & SIGNS) return run(s, len, at, SIGNS);
    return spaces(s, len);
}

/* The line of patterns that began with cl100k, as a table of what differs:
 *   (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*
 *   |\s*[\r\n]+|\s+(?!\S)|\s+                                   (tokenizer.json of Llama 3)
 * With case (that of o200k) a word is [^\r\n\p{L}\p{N}]?UPPERS*LOWERS+ or
 * [^\r\n\p{L}\p{N}]?UPPERS+LOWERS*, and a contraction may follow. */
struct style {
    unsigned digits;     // most numbers in a word
    unsigned letters;    // what words are made of
    bool is_cased;       // words break where the case says
    bool apart, behind;  // contractions are words, or follow one
    bool slash;          // [\r\n/]* after signs
    bool no_lines;       // signs take no line ends after them
};

/* UPPERS*LOWERS+ at `at`: where it ends, or 0. The greedy first part gives back what the second needs. */
static size_t upper_lower(const uint8_t *s, size_t len, size_t at) {
    size_t mid = at, both = 0;  // both: where the last code point of either kind ends
    for (;;) {
        struct step p = peek(s, len, mid);
        if (!(p.is & UPPERS)) break;
        mid += p.len;
        if (p.is & LOWERS) both = mid;
    }
    size_t end = run(s, len, mid, LOWERS);
    return end > mid ? end : both;
}

static size_t upper_then_lower(const uint8_t *s, size_t len, size_t at) {
    size_t mid = run(s, len, at, UPPERS);
    return mid > at ? run(s, len, mid, LOWERS) : 0;
}

/* Where the word of letters ends that begins here, perhaps with one code point before them; 0: none. */
static size_t word(const uint8_t *s, size_t len, const struct style *t) {
    struct step first = peek(s, len, 0);
    size_t before = first.is & (LETTERS | NUMBERS | UNI_LINE) ? 0 : first.len;
    size_t at;
    if (!t->is_cased) {
        if (before && (at = run(s, len, before, t->letters)) > before) return at;
        return run(s, len, 0, t->letters);
    }
    size_t end = before ? upper_lower(s, len, before) : 0;
    if (!end) end = upper_lower(s, len, 0);
    if (!end && before) end = upper_then_lower(s, len, before);
    if (!end) end = upper_then_lower(s, len, 0);
    if (end && t->behind) end += contraction(s, len, end, ANY_CASE);
    return end;
}

/* \s*[\r\n]+|\s+(?!\S)|\s+ : up to the last line end of the run when it has one. */
static size_t spaces_or_lines(const uint8_t *s, size_t len) {
    size_t at = 0, line = 0;
    for (;;) {
        struct step p = peek(s, len, at);
        if (!(p.is & SPACES)) break;
        at += p.len;
        if (p.is & UNI_LINE) line = at;
    }
    return line ? line : spaces(s, len);
}

static size_t signs(const uint8_t *s, size_t len, const struct style *t) {
    unsigned of = SIGNS & ~t->letters;
    size_t from = s[0] == ' ', at = run(s, len, from, of);
    if (at == from) return 0;
    if (t->no_lines) return at;
    for (;;) {
        at = run(s, len, at, UNI_LINE);
        if (!t->slash || at >= len || s[at] != '/') return at;
        at++;
    }
}

static size_t next_styled(const uint8_t *s, size_t len, const struct style *t) {
    size_t n = t->apart ? contraction(s, len, 0, ANY_CASE) : 0;
    if (!n) n = word(s, len, t);
    if (!n) n = run_of(s, len, 0, NUMBERS, t->digits);
    if (!n) n = signs(s, len, t);
    return n ? n : spaces_or_lines(s, len);
}

static size_t next_llama3(const uint8_t *s, size_t len) {
    static const struct style t = {.digits = 3, .letters = LETTERS, .apart = true};
    return next_styled(s, len, &t);
}

static size_t next_qwen2(const uint8_t *s, size_t len) {
    static const struct style t = {.digits = 1, .letters = LETTERS, .apart = true};
    return next_styled(s, len, &t);
}

static size_t next_qwen35(const uint8_t *s, size_t len) {
    static const struct style t = {.digits = 1, .letters = LETTERS | UNI_MARK, .apart = true};
    return next_styled(s, len, &t);
}

static size_t next_seed(const uint8_t *s, size_t len) {
    static const struct style t = {
        .digits = 1, .letters = LETTERS, .apart = true, .no_lines = true};
    return next_styled(s, len, &t);
}

/* \p{N}+ for what a stage before has cut. */
static size_t next_minicpm5(const uint8_t *s, size_t len) {
    static const struct style t = {.digits = UINT_MAX, .letters = LETTERS, .apart = true};
    return next_styled(s, len, &t);
}

static size_t next_tekken(const uint8_t *s, size_t len) {
    static const struct style t = {.digits = 1, .is_cased = true, .slash = true};
    return next_styled(s, len, &t);
}

static size_t next_gpt4o(const uint8_t *s, size_t len) {
    static const struct style t = {.digits = 3, .is_cased = true, .behind = true, .slash = true};
    return next_styled(s, len, &t);
}

/* ---- stages that set apart what they match here, if it is anything, and leave the rest in one piece */

static size_t a_number(const uint8_t *s, size_t len) {
    return run_of(s, len, 0, NUMBERS, 1);
}

static size_t three_numbers(const uint8_t *s, size_t len) {
    return run_of(s, len, 0, NUMBERS, 3);
}

static size_t numbers(const uint8_t *s, size_t len) {
    return run(s, len, 0, NUMBERS);
}

static size_t a_line_end(const uint8_t *s, size_t len) {
    (void)len;
    return s[0] == '\r' || s[0] == '\n';
}

static bool is_digit(uint8_t c) {
    return c >= '0' && c <= '9';
}

static size_t three_digits(const uint8_t *s, size_t len) {
    return len >= 3 && is_digit(s[0]) && is_digit(s[1]) && is_digit(s[2]) ? 3 : 0;
}

/* Punctuation and the symbols of ASCII, but for one. */
static size_t marks_but(const uint8_t *s, size_t len, int32_t left_out) {
    size_t at = 0;
    for (;;) {
        struct step p = peek(s, len, at);
        bool symbol = p.is & UNI_SYMBOL && p.cp >= 0 && p.cp < 0x80 && p.cp != left_out;
        if (!symbol && !(p.is & UNI_PUNCT)) return at;
        at += p.len;
    }
}

/* ?[^(\s|.,!?…。，、।۔،)]+ , with the space: all but what ends sentences and their parts */
static size_t bloom_words(const uint8_t *s, size_t len) {
    static const int32_t ends[] = {'(',    ')',    '|',    '.',    ',',   '!',   '?',
                                   0x2026, 0x3001, 0x3002, 0xff0c, 0x964, 0x6d4, 0x60c};
    size_t from = s[0] == ' ', at = from;
    for (;;) {
        struct step p = peek(s, len, at);
        bool is_end = !p.len || p.is & SPACES;
        for (size_t i = 0; i < sizeof ends / sizeof *ends && !is_end; i++) is_end = p.cp == ends[i];
        if (is_end) return at > from ? at : 0;
        at += p.len;
    }
}

/* [\p{P}\$\+<=>\^~\|`]+ */
static size_t falcon_marks(const uint8_t *s, size_t len) {
    return marks_but(s, len, -1);
}

/* [\p{P}\$\+<=>\^~\|]+ */
static size_t default_marks(const uint8_t *s, size_t len) {
    return marks_but(s, len, '`');
}

/* [^\n]+|[\n]+ */
static size_t next_lines(const uint8_t *s, size_t len) {
    bool is_end = s[0] == '\n';
    size_t at = 1;
    while (at < len && (s[at] == '\n') == is_end) at++;
    return at;
}

/* \s?X+ for a class X given by a test. */
static size_t after_space(const uint8_t *s, size_t len, bool (*is)(const struct step *p)) {
    struct step first = peek(s, len, 0);
    size_t from = first.is & SPACES ? first.len : 0, at = from;
    for (struct step p = peek(s, len, at); p.len && is(&p); p = peek(s, len, at)) at += p.len;
    if (at > from) return at;
    at = 0;  // the white space itself may be of X
    for (struct step p = first; p.len && is(&p); p = peek(s, len, at)) at += p.len;
    return at;
}

struct range {
    int32_t from, to;
};

static bool among(int32_t cp, const struct range *r, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (cp >= r[i].from && cp <= r[i].to) return true;
    }
    return false;
}

/* Letters with case as DeepSeek's tokenizer.json lists them: those of an older Unicode, and beyond the
 * first plane of six scripts only. */
static bool is_deepseek_letter(const struct step *p) {
    static const struct range left_out[] = {{0x1c80, 0x1c8f}, {0x2d00, 0x2d2f}, {0xa78f, 0xab6f}};
    static const struct range high[] = {{0x10400, 0x1044f}, {0x104b0, 0x104fb}, {0x10c80, 0x10cb2},
                                        {0x10cc0, 0x10cf2}, {0x118a0, 0x118df}, {0x1e900, 0x1e943}};
    if (!(p->is & (UNI_UPPER | UNI_LOWER))) return false;
    if (p->cp < 0x80) return true;
    if (p->cp >= 0x10000) return among(p->cp, high, sizeof high / sizeof *high);
    return !among(p->cp, left_out, sizeof left_out / sizeof *left_out);
}

/* [!-/:-~！-／：-～‘-‟　-。]; that it begins a range with U+3000 is lost on llama.cpp, which makes a vertical
 * tab of every white space beyond ASCII, but not on the engine (Oniguruma) that the model's own runs on. */
static bool is_deepseek_mark(const struct step *p) {
    static const struct range r[] = {{'!', '/'},       {':', '~'},       {0xff01, 0xff0f},
                                     {0xff1a, 0xff5e}, {0x2018, 0x201f}, {0x3000, 0x3002}};
    return among(p->cp, r, sizeof r / sizeof *r);
}

static bool is_letter(const struct step *p) {
    return p->is & LETTERS;
}

static bool is_punct(const struct step *p) {
    return p->is & UNI_PUNCT;
}

static size_t deepseek_letters(const uint8_t *s, size_t len) {
    return after_space(s, len, is_deepseek_letter);
}

static size_t deepseek_marks(const uint8_t *s, size_t len) {
    return after_space(s, len, is_deepseek_mark);
}

static size_t coder_letters(const uint8_t *s, size_t len) {
    return after_space(s, len, is_letter);
}

static size_t coder_marks(const uint8_t *s, size_t len) {
    return after_space(s, len, is_punct);
}

static size_t run_among(const uint8_t *s, size_t len, const struct range *r, size_t n) {
    size_t at = 0;
    for (;;) {
        struct step p = peek(s, len, at);
        if (!p.len || !among(p.cp, r, n)) return at;
        at += p.len;
    }
}

/* [一-龥ࠀ-一가-퟿]+ */
static size_t deepseek_han(const uint8_t *s, size_t len) {
    static const struct range r[] = {{0x800, 0x9fa5}, {0xac00, 0xd7ff}};
    return run_among(s, len, r, sizeof r / sizeof *r);
}

/* [一-龥぀-ゟ゠-ヿ]+ */
static size_t deepseek3_han(const uint8_t *s, size_t len) {
    static const struct range r[] = {{0x3040, 0x30ff}, {0x4e00, 0x9fa5}};
    return run_among(s, len, r, sizeof r / sizeof *r);
}

static bool is_ascii_letter(uint8_t c) {
    return (c | 0x20) >= 'a' && (c | 0x20) <= 'z';
}

/* [!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+
 * | ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+ (tokenizer.json of DeepSeek-V3) */
static size_t deepseek3_words(const uint8_t *s, size_t len) {
    enum { MARKS = UNI_PUNCT | UNI_SYMBOL, WORDS = LETTERS | UNI_MARK };
    struct step first = peek(s, len, 0);
    if (first.is & MARKS && s[0] < 0x80 && len > 1 && is_ascii_letter(s[1])) {
        size_t at = 1;
        while (at < len && is_ascii_letter(s[at])) at++;
        return at;
    }
    size_t at = first.is & (UNI_LINE | LETTERS | MARKS) ? 0 : first.len, end;
    if (at && (end = run(s, len, at, WORDS)) > at) return end;
    if ((end = run(s, len, 0, WORDS))) return end;
    at = s[0] == ' ';
    if ((end = run(s, len, at, MARKS)) > at) return run(s, len, end, UNI_LINE);
    return first.is & SPACES ? spaces_or_lines(s, len) : 0;
}

/* \s+$ : white space at the end of the piece, apart from what is before it. */
static size_t next_last_spaces(const uint8_t *s, size_t len) {
    size_t at = 0, from = len;
    while (at < len) {
        struct step p = peek(s, len, at);
        if (!(p.is & SPACES)) {
            from = len;
        } else if (from == len) {
            from = at;
        }
        at += p.len;
    }
    return from ? from : len;
}

/* ---- the cuts */

struct stage {
    size_t (*next)(const uint8_t *s, size_t len);  // bytes at s that it takes for one piece, or 0
    bool is_apart;  // it may take nothing: what is between is a piece
};

enum { APART = true };

static const struct stage stages[N_PRETOK_CUT][PRETOK_STAGES] = {
    [PRETOK_GPT2] = {{next_gpt2, 0}},
    [PRETOK_LLAMA3] = {{next_llama3, 0}},
    [PRETOK_QWEN2] = {{next_qwen2, 0}},
    [PRETOK_QWEN35] = {{next_qwen35, 0}},
    [PRETOK_MINICPM5] = {{three_numbers, APART}, {next_minicpm5, 0}},
    [PRETOK_SEED] = {{next_seed, 0}},
    [PRETOK_TEKKEN] = {{next_tekken, 0}},
    [PRETOK_GPT4O] = {{next_gpt4o, 0}},
    [PRETOK_DIGITS_GPT2] = {{a_number, APART}, {next_gpt2, 0}},
    [PRETOK_BLOOM] = {{bloom_words, APART}},
    [PRETOK_VIKING] = {{bloom_words, APART}, {a_number, APART}},
    [PRETOK_FALCON] = {{falcon_marks, APART}, {next_gpt2, 0}, {three_digits, APART}},
    [PRETOK_DEFAULT] = {{default_marks, APART},
                        {next_gpt2, 0},
                        {numbers, APART},
                        {three_digits, APART}},
    [PRETOK_DEEPSEEK] = {{a_line_end, APART},
                         {deepseek_letters, APART},
                         {deepseek_marks, APART},
                         {next_last_spaces, 0},
                         {deepseek_han, APART},
                         {numbers, APART}},
    [PRETOK_DEEPSEEK_CODER] = {{a_line_end, APART},
                               {coder_letters, APART},
                               {coder_marks, APART},
                               {deepseek_han, APART},
                               {a_number, APART}},
    [PRETOK_DEEPSEEK3] = {{three_numbers, APART}, {deepseek3_han, APART}, {deepseek3_words, APART}},
    [PRETOK_LINES] = {{next_lines, 0}},
};

/* What the stage takes of s [len > 0], or all up to where it takes something. */
static size_t piece(const struct stage *stage, const uint8_t *s, size_t len) {
    size_t n = stage->next(s, len);
    if (n || !stage->is_apart) return n;
    for (size_t at = peek(s, len, 0).len; at < len; at += peek(s, len, at).len) {
        if (stage->next(s + at, len - at)) return at;
    }
    return len;
}

void pretok_begin(struct pretok_words *w, enum pretok_cut cut, const uint8_t *s, size_t len) {
    *w = (struct pretok_words){.cut = cut, .s = s, .end = {len}};
}

size_t pretok_next(struct pretok_words *w) {
    const struct stage *stage = stages[w->cut];
    size_t from = w->at, k = 0;
    if (from == w->end[0]) return 0;
    for (; k < PRETOK_STAGES && stage[k].next; k++) {
        if (w->end[k + 1] > from) continue;
        w->end[k + 1] = from + piece(&stage[k], w->s + from, w->end[k] - from);
    }
    w->at = w->end[k];
    return w->at - from;
}
