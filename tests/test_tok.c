/* Tokenizers of all kinds on small vocabularies: exact results, hostile texts within a time, and text that
 * comes back from its tokens. */
#include "base/unicode.h"
#include "tok_trial.h"

#include <stdlib.h>
#include <time.h>

/* Token texts with '|' between them, for comparing and for reading. */
static const char *shown(const struct tok *t, const char *text, size_t len, unsigned flags) {
    static char out[4096];
    int32_t id[1024];
    size_t n = 0, at = 0;
    struct err e = {0};
    if (!tok_encode(t, text, len, flags, id, 1024, &n, &e)) return e.text[0] ? "error" : "?";
    for (size_t i = 0; i < n; i++) {
        const char *piece;
        size_t k = tok_piece(t, id[i], true, &piece);
        at += (size_t)snprintf(out + at, sizeof out - at, i ? "|" : "");
        for (size_t b = 0; b < k; b++) {
            bool plain = piece[b] >= 32 && piece[b] < 127;
            if (plain)
                out[at++] = piece[b];
            else
                at += (size_t)snprintf(out + at, sizeof out - at, "\\x%02x", (uint8_t)piece[b]);
        }
    }
    out[at] = 0;
    return out;
}

static void check(const struct tok *t, const char *text, unsigned flags, const char *want) {
    const char *got = shown(t, text, strlen(text), flags);
    if (!tap_ok(!strcmp(got, want), "%s", want)) printf("# got %s\n", got);
}

static size_t utf8(int32_t cp, uint8_t out[static 4]) {
    size_t n = cp < 0x80 ? 1 : cp < 0x800 ? 2 : cp < 0x10000 ? 3 : 4;
    for (size_t i = n - 1; i > 0; i--, cp >>= 6) out[i] = (uint8_t)(0x80 | (cp & 0x3f));
    out[0] = (uint8_t)(n == 1 ? cp : (0xf00 >> n & 0xff) | cp);
    return n;
}

static void test_unicode(void) {
    bool same = true;
    for (int32_t cp = 0; cp <= 0x10ffff; cp++) {
        uint8_t s[4];
        int32_t back;
        size_t n = utf8(cp, s);
        if (cp >= 0xd800 && cp < 0xe000) continue;
        same &= unicode_decode(s, n, &back) == n && back == cp;
        same &= n == 1 || (unicode_decode(s, n - 1, &back) == 1 && back == -1);
    }
    tap_ok(same, "every code point decodes, and is malformed when cut");
    static const char *const bad[] = {"\x80", "\xc0\x80",         "\xe0\x80\x80", "\xed\xa0\x80",
                                      "\xff", "\xf4\x90\x80\x80", "\xc3("};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        const uint8_t *s = (const uint8_t *)bad[i];
        int32_t cp;
        same &= unicode_decode(s, strlen(bad[i]), &cp) == 1 && cp == -1;
    }
    tap_ok(same, "malformed bytes are taken one by one");
    static const struct {
        int32_t cp;
        unsigned is;
    } of[] = {{0xe9, UNI_LOWER},
              {0xc9, UNI_UPPER},
              {0x1c5, UNI_UPPER},
              {0x4e16, UNI_PLAIN},
              {0x2b0, UNI_PLAIN},
              {'z', UNI_LOWER},
              {'Z', UNI_UPPER},
              {0x301, UNI_MARK},
              {0xbd, UNI_NUMBER},
              {0x2167, UNI_NUMBER},
              {0x96a, UNI_NUMBER},
              {'7', UNI_NUMBER},
              {0x2014, UNI_PUNCT},
              {'%', UNI_PUNCT},
              {'_', UNI_PUNCT},
              {'$', UNI_SYMBOL},
              {0x20ac, UNI_SYMBOL},
              {-1, UNI_SYMBOL},
              {0x200b, UNI_OTHER},
              {0, UNI_OTHER},
              {0x3000, UNI_SPACE},
              {' ', UNI_SPACE},
              {'\r', UNI_SPACE | UNI_LINE}};
    for (size_t i = 0; i < sizeof of / sizeof *of; i++) {
        if (unicode_classes(of[i].cp) == of[i].is) continue;
        tap_ok(false, "U+%04X has classes %#x, not %#x", (unsigned)of[i].cp,
               unicode_classes(of[i].cp), of[i].is);
    }
    bool alike = true;  // the short way for ASCII
    for (int32_t cp = 0; cp < 0x80; cp++) {
        bool letter = (cp | 32) >= 'a' && (cp | 32) <= 'z', digit = cp >= '0' && cp <= '9';
        alike &= !(unicode_classes(cp) & UNI_LETTER) == !letter;
        alike &= !(unicode_classes(cp) & UNI_NUMBER) == !digit;
    }
    tap_ok(alike, "letters and numbers of ASCII");
    tap_ok(unicode_is_space(0x85) && unicode_is_space(0x3000) && unicode_is_space('\v') &&
               !unicode_is_space(0x200b) && !unicode_is_space(0x180e) && !unicode_is_space(-1),
           "white space");
    tap_ok(ascii_is_space('\t') && ascii_is_space(' ') && !ascii_is_space('\x85') &&
               !ascii_is_space('\xa0'),
           "no byte inside a character is white space");
}

static void refuse(const struct toy *y, enum err_code code, const char *word) {
    struct tok *t;
    struct err e = {0};
    bool ok = tok_open(&t, &y->v, &e);
    tap_ok(!ok && e.code == code && strstr(e.text, word), "refused: %s", ok ? "no" : e.text);
    if (ok) tok_close(t);
}

static void test_spm(void) {
    static struct toy y;
    toy_spm(&y);
    struct tok *t = open_toy(&y);
    if (!tap_ok(t, "a SentencePiece vocabulary opens")) return;
    check(t, "the hello world", 0, " the| hello| world");
    check(t, "the hello world", TOK_BOS, "<s>| the| hello| world");
    check(t, "abab", 0, " |ab|ab");  // ab and ba tie: the leftmost wins
    check(t, "aba", 0, " |ab|a");
    check(t, "é世x", 0, " |\\xc3\\xa9|\\xe4\\xb8\\x96|x");
    check(t, "\xff", 0, " |\\xff");
    check(t, "", TOK_BOS, "<s>");
    check(t, "the", TOK_BOS | TOK_EOS, "<s>| the");  // the vocabulary does not ask for EOS
    check(t, "     a", 0, "    |  |a");
    check(t, "\xe2\x96\x81", 0, "  ");  // U+2581 is a space
    check(t, "a</s>[ctl]", 0, " |a|<|/|s|>|[|c|t|l|]");
    check(t, "a</s>[ctl]the", TOK_SPECIAL, " |a|</s>|[ctl]| the");
    check(t, "a<user><userx<user>", 0, " |a|<user><| |u|s|e|r|x|<user>");  // longest first
    tap_ok(!strcmp(shown(t, "a\0b", 3, 0), " |a|\\x00|b"), "NUL is a byte like others");
    tap_ok(tok_is_end(t, 2) && !tok_is_end(t, 1) && tok_is_control(t, 1) && !tok_is_control(t, 300),
           "control tokens and ends");
    tap_ok(tok_find(t, "<user>", 6) > 0 && tok_find(t, "nix", 3) == -1, "tokens by text");
    const char *piece;
    tap_ok(tok_piece(t, 1, false, &piece) == 0 && tok_piece(t, -5, true, &piece) == 0 &&
               tok_piece(t, 1 << 30, true, &piece) == 0,
           "no piece for hidden tokens and for ids that are none");
    tok_close(t);
    y.v.add_eos = true;
    t = open_toy(&y);
    check(t, "the", TOK_BOS, "<s>| the");
    check(t, "the", TOK_EOS, " the|</s>");
    check(t, "the", TOK_BOS | TOK_EOS, "<s>| the|</s>");
    tok_close(t);
}

/* A vocabulary that puts no space first, as Gemma's before the fourth. */
static void test_no_prefix(void) {
    static struct toy y;
    toy_spm(&y);
    y.v.add_space_prefix = false;
    struct tok *t = open_toy(&y);
    if (!tap_ok(t, "a SentencePiece vocabulary that puts no space first opens")) return;
    check(t, "the hello world", 0, "the| hello| world");
    check(t, "the", TOK_BOS, "<s>|the");
    check(t, " the", TOK_BOS, "<s>| the");
    check(t, "a<user>the", 0, "a|<user>|the");
    struct detok d;
    char out[64];
    detok_init(&d, t, false);
    size_t n = detok_push(&d, tok_find(t, "\xe2\x96\x81the", 6), out, sizeof out);
    tap_ok(n == 4 && !memcmp(out, " the", 4), "and its first space is one of the text");
    tok_close(t);
}

/* Where a vocabulary spells no mark, a space is one id all the same. */
static void test_no_mark(struct toy *y, const char *kind) {
    uint32_t id = 0, n_token = y->v.n_token;
    while (id < n_token && memcmp(y->text + y->start[id], "\xe2\x96\x81", 4 - 1) != 0) id++;
    y->text[y->start[id]] = 'x';
    struct tok *t = open_toy(y);
    int32_t ids[64];
    size_t n = 0;
    struct err e = {0};
    bool ok = t && tok_encode(t, "         ", 9, 0, ids, 64, &n, &e);
    tap_ok(ok && n <= tok_bound(9), "%s without a mark: %zu ids, %zu allowed", kind, n,
           tok_bound(9));
    check(t, "c c", 0, y->v.add_space_prefix ? " |c| |c" : "c| |c");
    tok_close(t);
}

/* Byte-level merges of texts that stand as they are, as Gemma 4's. */
static void test_marks(void) {
    static struct toy y;
    toy_marks(&y);
    struct tok *t = open_toy(&y);
    if (!tap_ok(t, "a vocabulary of marks and merges opens")) return;
    check(t, "the hello world", TOK_BOS, "<bos>|the| hello| world");
    check(t, " the  the", 0, " the|  |the");  // all of a line is one word: the spaces merge first
    check(t, "o the", 0, "o| the");
    check(t, "abab", 0, "ab|ab");
    check(t, "aba b", 0, "ab|a| |b");
    check(t, "abc", 0, "ab|c");  // what no merges lead to is not found
    check(t, "a\nb\n\nc", 0, "a|\\x0a|b|\\x0a\\x0a|c");
    check(t, "a\n\n\nb", 0, "a|\\x0a\\x0a\\x0a|b");  // but a run of line ends is
    check(t, "\n\n\n\n\n", 0, "\\x0a\\x0a|\\x0a\\x0a|\\x0a");
    check(t, "a\r\n\n", 0, "a|\\x0d|\\x0a\\x0a");
    check(t, "é世x", 0, "\\xc3\\xa9\\xe4\\xb8\\x96|x");
    check(t, "€\xff", 0, "\\xe2|\\x82|\\xac|\\xff");
    check(t, "\xe2\x96\x81hello", 0, " hello");  // U+2581 is a space
    check(t, "<0x41>", 0, "<|0|x|4|1|>");
    check(t, "<|turn>a</s><user>", 0, "<|||t|u|r|n|>|a|<|/|s|>|<user>");
    check(t, "<|turn>the<turn|>", TOK_SPECIAL, "<|turn>|the|<turn|>");
    tap_ok(!strcmp(shown(t, "a\0b", 3, 0), "a|\\x00|b"), "NUL is a byte like others");
    tap_ok(tok_is_end(t, tok_find(t, "<turn|>", 7)) && tok_is_end(t, y.v.eos) &&
               tok_is_end(t, tok_find(t, "<|tool_response>", 16)),
           "what ends an answer of Gemma 4");
    tap_ok(!tok_is_end(t, tok_find(t, "</s>", 4)), "a tag does not");
    tok_close(t);
    y.v.n_merge = 0;
    refuse(&y, ERR_FORMAT, "merges");
}

static void test_plain(void) {
    static struct toy y;
    toy_plain(&y, true);
    static int32_t more;
    more = y.v.bos + 2;
    y.v.end = &more;
    y.v.n_end = 1;
    struct tok *t = open_toy(&y);
    if (!tap_ok(t, "a vocabulary of bytes and scores opens")) return;
    check(t, "the hello world", 0, "the| hello| world");
    check(t, "hello world", TOK_BOS, "<|begin|>|hello| world");  // no space is put in front
    check(t, "abab", 0, "ab|ab");                                // ab and ba tie: the leftmost wins
    check(t, "aba b", 0, "ab|a| |b");
    check(t, "o b", 0, "o |b");  // spaces are bytes as others
    check(t, "é世", 0, "\\xc3\\xa9|\\xe4\\xb8\\x96");
    check(t, "\xe4\xb8q\xff", 0, "\\xe4\\xb8|q|\\xff");
    check(t, "\xe2\x96\x81", 0, "\\xe2|\\x96|\\x81");  // U+2581 is no space here
    check(t, "<|eot_id|>a", 0, "<|||e|o|t|_|i|d|||>|a");
    check(t, "<|eot_id|>the", TOK_SPECIAL, "<|eot_id|>|the");
    check(t, "a<think>", 0, "a|<think>");
    tap_ok(!strcmp(shown(t, "a\0b", 3, 0), "a|\\x00|b"), "NUL is a byte like others");
    tap_ok(tok_is_end(t, y.v.eos) && tok_is_end(t, more) && !tok_is_end(t, y.v.bos),
           "all its ends are ends");
    tok_close(t);
    toy_plain(&y, false);
    t = open_toy(&y);
    if (!tap_ok(t, "one of characters opens")) return;
    check(t, "the hello world", 0, "the| hello| world");
    check(t, "世q\xff", 0, "\\xe4\\xb8\\x96|q|\\xff");  // q by its byte token
    int32_t id[8];
    size_t n = 0;
    struct err e = {0};
    bool ok = tok_encode(t, "q", 1, 0, id, 8, &n, &e);
    tap_ok(ok && n == 1 && id[0] == 'q', "what is no character of its own is a byte");
    check(t, "<0x41>", 0, "<|0|x|4|1|>");  // a byte token is not written out
    tok_close(t);
    toy_init(&y, "dllama", "");
    toy_add(&y, "ab", 0, TOKEN_NORMAL);
    t = open_toy(&y);
    check(t, "xab\xc3", 0, "ab");  // what it cannot spell is left out
    tok_close(t);
}

static void test_bpe(void) {
    static struct toy y;
    toy_bpe(&y, "llama-bpe");
    struct tok *t = open_toy(&y);
    if (!tap_ok(t, "a byte-level vocabulary opens")) return;
    check(t, "hello world", 0, "hello| world");
    check(t, "hello 123", TOK_BOS, "<|begin_of_text|>|hello| |123");
    check(t, "xyz axyz", 0, "xyz| |a|x|y|z");  // a whole word needs no merges
    check(t, "aaaaa", 0, "aaaa|a");
    check(t, "abaab", 0, "ab|aa|b");
    check(t, "é世", 0, "\\xc3\\xa9|\\xe4\\xb8\\x96");
    check(t, "\xe4\xb8", 0, "\\xe4\\xb8");
    check(t, "<|eot_id|>a", 0, "<|||e|o|t|_|i|d|||>|a");
    check(t, "<|eot_id|>a<|im_end|>", TOK_SPECIAL, "<|eot_id|>|a|<|im_end|>");
    check(t, "<user>a", 0, "<user>|a");
    tap_ok(!strcmp(shown(t, "\0\0", 2, 0), "\\x00|\\x00"), "NUL is a byte like others");
    struct tok_part part[] = {{"<|im_start|>", 12, false},
                              {"<|im_start|>", 12, true},
                              {"<user>", 6, true},
                              {"<|eot", 5, false},
                              {"_id|>", 5, true}};
    int32_t id[64];
    size_t n = 0;
    struct err e = {0};
    bool ok = tok_encode_parts(t, part, 5, 0, id, 64, &n, &e);
    int32_t start = tok_find(t, "<|im_start|>", 12), user = tok_find(t, "<user>", 6), n_start = 0;
    bool half = false;
    for (size_t i = 0; ok && i < n; i++) {
        n_start += id[i] == start;
        half |= id[i] == tok_find(t, "<|eot_id|>", 10);
    }
    tap_ok(ok && id[0] == start && n_start == 1 && !half && n > 8,
           "no control token stands in, or half in, a plain part");
    tap_ok(ok && tok_is_special(t, user) && tok_is_end(t, tok_find(t, "<|im_end|>", 10)),
           "known names end a turn whatever their type");
    tap_ok(!tok_encode(t, "hello hello", 11, 0, id, 1, &n, &e) && e.code == ERR_LIMIT && n == 3,
           "too little room is refused with both numbers: %s", e.text);
    tok_close(t);
    toy_bpe(&y, "gpt-2");
    t = open_toy(&y);
    check(t, "xyz", 0, "x|y|z");
    tok_close(t);
}

/* A file that does not say how its text is cut. */
static void test_default(void) {
    static const char *const names[] = {"", "default"};
    static struct toy y;
    for (int i = 0; i < 2; i++) {
        toy_bpe(&y, names[i]);
        struct tok *t = open_toy(&y);
        if (!tap_ok(t, "a byte-level vocabulary opens with \"%s\"", names[i])) return;
        check(t, "hello world1234's", TOK_BOS, "<|begin_of_text|>|hello| world|123|4|'|s");
        check(t, "xyz", 0, "x|y|z");
        const char *note = tok_note(t);
        tap_ok(note && strstr(note, "does not say"), "and says so: %s", note ? note : "no");
        tok_close(t);
    }
    toy_bpe(&y, "gpt-2");
    struct tok *t = open_toy(&y);
    tap_ok(t && !tok_note(t), "nothing to say of one that does");
    tok_close(t);
    toy_spm(&y);  // of no account there
    t = open_toy(&y);
    tap_ok(t && !tok_note(t), "nor of SentencePiece");
    tok_close(t);
}

enum role { WORD, GAP, END };

/* What the token `text` is in a vocabulary that has it as a word: a word, or hidden, and then it may end an
 * answer. */
static void check_role(const char *text, enum role role) {
    static const char *const says[] = {"is a word", "marks a gap", "ends an answer"};
    static struct toy y;
    toy_bpe(&y, "gpt-2");
    toy_add(&y, text, 0, TOKEN_NORMAL);
    struct tok *t = open_toy(&y);
    int32_t id = t ? tok_find(t, text, strlen(text)) : -1;
    tap_ok(t && tok_is_end(t, id) == (role == END) && tok_is_control(t, id) == (role != WORD),
           "%s %s", text, says[role]);
    tok_close(t);
}

/* Names in `have`, up to NULL, and whether <|end|> ends an answer beside them. */
static void check_messages(const char *const *have, bool is_end) {
    static struct toy y;
    toy_bpe(&y, "gpt-2");
    y.v.eot = toy_add(&y, "<|end|>", 0, TOKEN_CONTROL);
    for (const char *const *name = have; *name; name++) toy_add(&y, *name, 0, TOKEN_CONTROL);
    struct tok *t = open_toy(&y);
    tap_ok(t && tok_is_end(t, y.v.eot) == is_end && tok_is_control(t, y.v.eot),
           "<|end|> beside %s%s%s ends %s", have[0], have[1] ? " and " : "", have[1] ? have[1] : "",
           is_end ? "an answer" : "a message");
    for (const char *const *name = have; t && *name; name++) {
        if (!tok_is_end(t, tok_find(t, *name, strlen(*name)))) tap_ok(false, "%s ends it", *name);
    }
    tok_close(t);
}

static void test_ends(void) {
    static const char *const ends[] = {
        "<|eot_id|>",
        "<|im_end|>",
        "<|end|>",
        "<|return|>",
        "<|call|>",
        "<|flush|>",
        "<|calls|>",
        "<end_of_turn>",
        "<|endoftext|>",
        "<|eom_id|>",
        "<EOT>",
        "_<EOT>",
        "[EOT]",
        "[EOS]",
        "<|end_of_text|>",
        "<end_of_utterance>",
        "<eos>",
        "<turn|>",
        "<|tool_response>",
        "<｜end▁of▁sentence｜>",
        "[e~[",
        "<|END_OF_TURN_TOKEN|>",
        /* fill-in-the-middle: padding, the next file and repository */
        "<|fim_pad|>",
        "<fim-pad>",
        "<fim_pad>",
        "<PAD>",
        "[PAD]",
        "<|fim_repo|>",
        "<|repo_name|>",
        "<fim-repo>",
        "<REPO>",
        "<reponame>",
        "<|file_sep|>",
    };
    static const char *const gaps[] = {
        "<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>",    "<｜fim▁begin｜>",
        "<PRE>",          "▁<PRE>",       "<|code_prefix|>", "<|prefix|>",
        "<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>",    "<｜fim▁hole｜>",
        "<SUF>",          "▁<SUF>",       "<|code_suffix|>", "<|suffix|>",
        "<|fim_middle|>", "<fim-middle>", "<fim_middle>",    "<｜fim▁end｜>",
        "<MID>",          "▁<MID>",       "<|code_middle|>", "<|middle|>"};
    static const char *const words[] = {"<|im_start|>x", "<pad>",    "<|start|>", "[e~", "</s",
                                        "<EOS>",         "<|fim_|>", "<pre>",     "PRE"};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) check_role(ends[i], END);
    for (size_t i = 0; i < sizeof gaps / sizeof *gaps; i++) check_role(gaps[i], GAP);
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) check_role(words[i], WORD);
    check_messages((const char *[]){"<|return|>", "<|call|>", NULL}, false);
    check_messages((const char *[]){"<|return|>", "<|calls|>", NULL}, false);
    check_messages((const char *[]){"<|flush|>", "<|calls|>", NULL}, false);
    check_messages((const char *[]){"<|flush|>", "<|call|>", NULL}, false);
    check_messages((const char *[]){"<|return|>", "<|flush|>", NULL}, true);
    check_messages((const char *[]){"<|calls|>", NULL}, true);
}

static void test_refusals(void) {
    static struct toy y;
    toy_bpe(&y, "no-such-cut");
    refuse(&y, ERR_UNSUPPORTED, "no-such-cut");
    toy_bpe(&y, "\x1b]0;x\a\xc2\x9b");
    refuse(&y, ERR_UNSUPPORTED, "\"?]0;x???\"");  // what it says must not steer the terminal
    toy_bpe(&y, "gemma4");  // of another kind, which begins with BOS whatever the file says
    refuse(&y, ERR_UNSUPPORTED, "only for vocabularies of kind \"gemma4\"");
    toy_bpe(&y, "gpt-2");
    y.v.n_merge = 0;
    refuse(&y, ERR_FORMAT, "merges");
    y.v.n_merge = 1;  // with one, a search for another ends
    struct tok *t = open_toy(&y);
    if (tap_ok(t, "a vocabulary of one merge opens")) check(t, "ab", 0, "a|b");
    tok_close(t);
    toy_bpe(&y, "gpt-2");
    memset(y.merge_text, 'x', y.merge[1]);
    refuse(&y, ERR_FORMAT, "merge 0");
    toy_init(&y, "bert", "");
    refuse(&y, ERR_UNSUPPORTED, "bert");
    toy_init(&y, "\x1b[2J", "");
    refuse(&y, ERR_UNSUPPORTED, "\"?[2J\"");
    toy_init(&y, "llama", "");
    refuse(&y, ERR_LIMIT, "0 tokens");
    toy_add(&y, "a", 0, TOKEN_NORMAL);
    refuse(&y, ERR_FORMAT, "byte tokens");
    y.v.score = NULL;
    refuse(&y, ERR_FORMAT, "scores");
    toy_spm(&y);
    char text[DETOK_MAX + 1];
    memset(text, 'a', sizeof text - 1);
    text[sizeof text - 1] = 0;
    toy_add(&y, text, 0, TOKEN_NORMAL);
    refuse(&y, ERR_LIMIT, "4096 bytes");
}

/* ---- back to text */

static bool valid_utf8(const char *s, size_t len) {
    for (size_t i = 0; i < len;) {
        int32_t cp;
        i += unicode_decode((const uint8_t *)s + i, len - i, &cp);
        if (cp < 0) return false;
    }
    return true;
}

/* All ids through a stream; *whole says that each output was valid UTF-8 by itself. */
static size_t stream(const struct tok *t, const int32_t *id, size_t n, char *out, size_t cap,
                     bool *whole) {
    struct detok d;
    size_t at = 0;
    detok_init(&d, t, false);
    *whole = true;
    for (size_t i = 0; i < n; i++) {
        size_t k = detok_push(&d, id[i], out + at, cap - at);
        *whole &= valid_utf8(out + at, k);
        at += k;
    }
    return at + detok_flush(&d, out + at, cap - at);
}

static void test_back(const struct toy *y, const char *kind) {
    struct tok *t = open_toy(y);
    int bad = 0, torn = 0;
    for (int round = 0; t && round < 3000; round++) {
        char s[512], back[1024];
        int32_t id[2048];
        size_t len, n = 0;
        bool whole, text = round % 2;
        struct err e = {0};
        len = text ? random_text(s, 200) : rnd(64);
        for (size_t i = 0; !text && i < len; i++) s[i] = (char)rnd(256);
        bad += !tok_encode(t, s, len, 0, id, 2048, &n, &e) || n > tok_bound(len);
        size_t k = stream(t, id, n, back, sizeof back, &whole);
        bad += k != len || memcmp(s, back, k);
        torn += text && !whole;
    }
    tap_ok(!bad, "%s: any bytes come back from their tokens, 3000 texts", kind);
    tap_ok(!torn, "%s: no character is torn on the way", kind);
    tok_close(t);
}

static void test_detok(void) {
    static struct toy y;
    toy_spm(&y);
    struct tok *t = open_toy(&y);
    struct detok d;
    char out[64];
    int32_t e2 = 3 + 0xe2, b82 = 3 + 0x82, ac = 3 + 0xac;
    detok_init(&d, t, false);
    size_t n = detok_push(&d, 1, out, 64);
    n += detok_push(&d, tok_find(t, "\xe2\x96\x81the", 6), out + n, 64 - n);
    tap_ok(n == 3 && !memcmp(out, "the", 3), "the first space is dropped, BOS is not shown");
    n = detok_push(&d, tok_find(t, "\xe2\x96\x81the", 6), out, 64);
    tap_ok(n == 4 && !memcmp(out, " the", 4), "later spaces stay");
    detok_init_within(&d, t, true);
    n = detok_push(&d, tok_find(t, "\xe2\x96\x81the", 6), out, 64);
    n += detok_push(&d, 2, out + n, 64 - n);
    tap_ok(n == 8 && !memcmp(out, " the</s>", 8),
           "within a text nothing is dropped; control shown");
    n = detok_push(&d, e2, out, 64) + detok_push(&d, b82, out, 64);
    tap_ok(!n && detok_push(&d, ac, out, 64) == 3 && !memcmp(out, "€", 3),
           "a character is held back");
    n = detok_push(&d, e2, out, 64);
    n += detok_push(&d, 3 + 'x', out, 64);
    tap_ok(n == 2 && !memcmp(out, "\xe2x", 2), "what cannot become one is let go as it is");
    n = detok_push(&d, e2, out, 64);
    n += detok_push(&d, b82, out, 64);
    n += detok_flush(&d, out, 64);
    tap_ok(n == 2 && !memcmp(out, "\xe2\x82", 2), "the end lets go of everything");
    tok_close(t);
    toy_bpe(&y, "gpt-2");
    t = open_toy(&y);
    char tidy[] = " a . b ' c 's 't 've ?";
    n = tok_tidy(t, tidy, strlen(tidy));
    tap_ok(n == 16 && !memcmp(tidy, " a. b'c's 't've?", 16), "tidied: %.*s", (int)n, tidy);
    tok_close(t);
}

/* ---- hostile texts */

static void fill(char *s, size_t len, const char *pattern, size_t n) {
    for (size_t i = 0; i < len; i++) s[i] = n ? pattern[i % n] : (char)rnd(256);
}

static double cpu_seconds(void) {
    struct timespec ts;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
    return (double)ts.tv_sec + 1e-9 * (double)ts.tv_nsec;
}

static void test_hostile(const struct tok *t, const char *kind, size_t len) {
    static const struct {
        const char *name, *pattern;
        size_t n;
    } texts[] = {
        {"a", "a", 1},
        {"spaces", " ", 1},
        {"NULs", "\0", 1},
        {"bytes 0xff", "\xff", 1},
        {"combining marks", "\xcc\x81", 2},
        {"line ends", "\n", 1},
        {"ab", "ab", 2},
        {"<", "<", 1},
        {"<|", "<|", 2},
        {"random bytes", "", 0},
        {"space and line", " \n", 2},
        {"apostrophes", "'", 1},
    };
    char *s = malloc(len);
    int32_t *id = malloc(tok_bound(len) * sizeof *id);
    double worst = 0;
    int bad = 0;
    const char *name = "";
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct err e = {0};
        size_t n = 0;
        fill(s, len, texts[i].pattern, texts[i].n);
        double from = cpu_seconds();
        bad += !tok_encode(t, s, len, TOK_SPECIAL, id, tok_bound(len), &n, &e) || !n;
        double took = cpu_seconds() - from;
        if (took > worst) worst = took, name = texts[i].name;
    }
    /* A quadratic merge would take an hour; a sanitizer or an emulator costs a factor of ten. */
    tap_ok(!bad && worst < 20, "%s: 1 MB of anything is encoded in time (worst %s: %.2f s)", kind,
           name, worst);
    free(id);
    free(s);
}

/* A toy vocabulary and 4000 user-defined tokens: `fixed` bytes of 'a', or as many more as tokens came
 * before, then `tail` bytes that differ. */
struct many {
    struct vocab v;
    char *text;  // owned, as are the others
    uint32_t *start;
    uint8_t *type;
};

static struct many many_specials(const struct toy *y, uint32_t fixed, bool grows, uint32_t tail) {
    enum { MANY = 4000 };
    struct vocab v = y->v;
    uint32_t n = v.n_token + MANY, at = v.start[v.n_token];
    char *text = malloc(at + (size_t)MANY * (fixed + MANY + tail + 1));
    uint32_t *start = malloc((n + 1) * sizeof *start);
    uint8_t *type = malloc(n);
    memcpy(text, v.text, at);
    memcpy(start, v.start, (v.n_token + 1) * sizeof *start);
    memcpy(type, v.type, v.n_token);
    for (uint32_t i = 0; i < MANY; i++) {
        uint32_t len = fixed + (grows ? i : 0);
        memset(text + at, 'a', len);
        for (uint32_t k = 0, bits = i; k < tail; k++, bits /= 16) {
            text[at + len + k] = "Zbcdefghijklmnop"[bits % 16];  // around 'a'
        }
        type[v.n_token + i] = TOKEN_USER;
        at += len + tail;
        start[v.n_token + i + 1] = at;
    }
    v.n_token = n;
    v.text = text;
    v.start = start;
    v.type = type;
    return (struct many){v, text, start, type};
}

/* 400 KB of `run` letters a, `then` letters b and so on. */
static void test_many(const char *name, uint32_t fixed, bool grows, uint32_t tail, size_t run,
                      size_t then) {
    enum { LEN = 400000 };
    static struct toy y;
    toy_bpe(&y, "gpt-2");
    struct many m = many_specials(&y, fixed, grows, tail);
    char *s = malloc(LEN);
    int32_t *id = malloc(tok_bound(LEN) * sizeof *id);
    struct tok *t = NULL;
    struct err e = {0};
    size_t n = 0;
    for (size_t i = 0; i < LEN; i++) s[i] = i % (run + then) < run ? 'a' : 'b';
    double from = cpu_seconds();
    bool ok = tok_open(&t, &m.v, &e) && tok_encode(t, s, LEN, 0, id, tok_bound(LEN), &n, &e);
    double took = cpu_seconds() - from;
    /* Trying every length takes minutes; a sanitizer costs a factor of ten. */
    tap_ok(ok && n && took < 20, "4000 special tokens, %s: 400 KB in %.2f s %s", name, took,
           e.text);
    tok_close(t);
    free(id);
    free(s);
    free(m.type);
    free(m.start);
    free(m.text);
}

static void test_large(void) {
    const char *data = getenv("DAIR_TESTDATA");
    char path[4096];
    struct model m;
    struct tok *t;
    struct err e = {0};
    snprintf(path, sizeof path, "%s/A-tokenizers/built-llama-bpe.gguf",
             data ? data : "../shared/testdata");
    FILE *f = fopen(path, "rb");
    if (!f) {
        tap_skip("a vocabulary of 128256 tokens: no %s", path);
        return;
    }
    fclose(f);
    if (!tap_ok(model_open_part(&m, path, 0, 0, MODEL_VOCAB, &e), "a large vocabulary: %s", path))
        return;
    double from = cpu_seconds();
    if (tap_ok(tok_open(&t, &m.vocab, &e), "%s", "it opens")) {
        double took = cpu_seconds() - from;
        tap_ok(took < 2, "in %.0f ms", 1e3 * took);
        test_hostile(t, "128256 tokens", 1 << 20);
        tok_close(t);
    }
    model_close(&m);
}

int main(void) {
    test_unicode();
    test_spm();
    test_no_prefix();
    test_plain();
    test_bpe();
    test_marks();
    static struct toy y;
    toy_spm(&y);
    test_no_mark(&y, "SentencePiece");
    toy_marks(&y);
    test_no_mark(&y, "Gemma 4");
    test_default();
    test_ends();
    test_refusals();
    test_many("a, aa, aaa and so on", 1, true, 0, 1, 0);
    test_many("aaa... and an end of its own", 2000, false, 3, 1, 0);
    test_many("aaa... and an end that is nearly there", 3900, false, 3, 3900, 2);
    test_many("the longest blocked all over", 1, true, 0, 2000, 1);
    test_many("each aaa... with an end", 1, true, 3, 2999, 1);
    toy_bpe(&y, "llama-bpe");
    test_back(&y, "byte-level");
    toy_plain(&y, true);
    test_back(&y, "bytes and scores");
    toy_plain(&y, false);
    test_back(&y, "characters and scores");
    toy_marks(&y);
    test_back(&y, "marks and merges");
    toy_spm(&y);
    test_back(&y, "SentencePiece");
    test_detok();
    struct tok *t = open_toy(&y);
    test_hostile(t, "SentencePiece", 1 << 20);
    tok_close(t);
    toy_bpe(&y, "llama-bpe");
    t = open_toy(&y);
    test_hostile(t, "byte-level", 1 << 20);
    tok_close(t);
    toy_plain(&y, true);
    t = open_toy(&y);
    test_hostile(t, "bytes and scores", 1 << 20);
    tok_close(t);
    toy_marks(&y);
    t = open_toy(&y);
    test_hostile(t, "marks and merges", 1 << 20);
    tok_close(t);
    test_large();
    return tap_done();
}
