/* Tokenizers against ways that do the obvious thing: merges that look at every pair each time, special
 * tokens by trying every length everywhere. Same ids, thousands of random texts. */
#include "base/unicode.h"
#include "model/pretok.h"
#include "tok_trial.h"

/* ---- against a merge that does the obvious thing */

struct bit {
    size_t at, len;
    int32_t id;
};

/* Score or rank of the token that joins two neighbours; smaller merges first, < 0: they do not. */
static double joined(const struct toy *y, const struct tok *t, const char *s, const struct bit *a,
                     const struct bit *b, int32_t *id) {
    if (!y->v.n_merge) {
        *id = tok_find(t, s + a->at, a->len + b->len);
        return *id < 0 || y->type[*id] != TOKEN_NORMAL ? -1 : 1000.0 - (double)y->score[*id];
    }
    for (uint32_t i = 0; a->id >= 0 && b->id >= 0 && i < y->v.n_merge; i++) {
        const char *m = y->merge_text + y->merge[i];
        size_t len = y->merge[i + 1] - y->merge[i];
        size_t left = y->start[a->id + 1] - y->start[a->id], right = len - left - 1;
        if (len <= left || right != y->start[b->id + 1] - y->start[b->id]) continue;
        if (memcmp(m, y->text + y->start[a->id], left) || m[left] != ' ') continue;
        if (memcmp(m + left + 1, y->text + y->start[b->id], right)) continue;
        char text[64];
        memcpy(text, m, left);
        memcpy(text + left, m + left + 1, right);
        *id = tok_find(t, text, left + right);
        return i;
    }
    return -1;
}

/* One word, bits filled with its symbols; merges in place and returns how many are left. */
static size_t naive(const struct toy *y, const struct tok *t, const char *s, struct bit *bit,
                    size_t n) {
    for (;;) {
        double best = -1;
        size_t at = 0;
        int32_t id = -1, to = -1;
        for (size_t i = 0; i + 1 < n; i++) {
            double p = joined(y, t, s, &bit[i], &bit[i + 1], &id);
            if (p < 0 || (best >= 0 && p >= best)) continue;
            best = p;
            at = i;
            to = id;
        }
        if (best < 0) return n;
        bit[at].len += bit[at + 1].len;
        bit[at].id = to;
        memmove(bit + at + 1, bit + at + 2, (n - at - 2) * sizeof *bit);
        n--;
    }
}

/* text: s with U+2581 for its spaces, one before it where prefix says so. */
static size_t mark_spaces(const char *s, size_t len, bool prefix, char text[static 1024]) {
    size_t n = 0;
    for (size_t i = 0; i < len + prefix; i++) {
        char c = i >= prefix ? s[i - prefix] : ' ';
        n += (size_t)snprintf(text + n, 1024 - n, c == ' ' ? "\xe2\x96\x81" : "%c", c);
    }
    return n;
}

/* The ids of text [n], of characters that merge; those that are no tokens by their bytes. */
static size_t naive_characters(const struct toy *y, const struct tok *t, const char *text, size_t n,
                               int32_t *out) {
    struct bit bit[512];
    size_t k = 0;
    for (size_t i = 0; i < n; k++) {
        int32_t cp;
        size_t step = unicode_decode((const uint8_t *)text + i, n - i, &cp);
        bit[k] = (struct bit){i, step, tok_find(t, text + i, step)};
        i += step;
    }
    k = naive(y, t, text, bit, k);
    n = 0;
    for (size_t i = 0; i < k; i++) {
        if (bit[i].id >= 0) out[n++] = bit[i].id;
        for (size_t b = 0; bit[i].id < 0 && b < bit[i].len; b++) {
            out[n++] = 3 + (uint8_t)text[bit[i].at + b];
        }
    }
    return n;
}

static size_t naive_spm(const struct toy *y, const struct tok *t, const char *s, size_t len,
                        int32_t *out) {
    char text[1024];
    size_t n = mark_spaces(s, len, true, text);
    return naive_characters(y, t, text, n, out);
}

/* The texts here have no line ends, so that each is one word. */
static size_t naive_marks(const struct toy *y, const struct tok *t, const char *s, size_t len,
                          int32_t *out) {
    char text[1024];
    size_t n = mark_spaces(s, len, false, text);
    return naive_characters(y, t, text, n, out);
}

static size_t naive_bpe(const struct toy *y, const struct tok *t, const char *s, size_t len,
                        int32_t *out) {
    size_t n = 0;
    struct pretok_words w;
    pretok_begin(&w, PRETOK_GPT2, (const uint8_t *)s, len);
    for (size_t at = 0, word; (word = pretok_next(&w)); at = w.at) {
        struct bit bit[512];
        for (size_t i = 0; i < word; i++) bit[i] = (struct bit){at + i, 1, (uint8_t)s[at + i]};
        size_t k = naive(y, t, s, bit, word);
        for (size_t i = 0; i < k; i++) out[n++] = bit[i].id;
    }
    return n;
}

/* As distributed-llama's own program: bytes gather until they are a token, then tokens merge. Every text
 * here is one that it can spell. */
static size_t naive_plain(const struct toy *y, const struct tok *t, const char *s, size_t len,
                          int32_t *out) {
    struct bit bit[512];
    size_t k = 0;
    for (size_t i = 0, from = 0; i < len; i++) {
        int32_t id = tok_find(t, s + from, i + 1 - from);
        if (id < 0 || id >= y->v.bos) continue;
        bit[k++] = (struct bit){from, i + 1 - from, id};
        from = i + 1;
    }
    k = naive(y, t, s, bit, k);
    for (size_t i = 0; i < k; i++) out[i] = bit[i].id;
    return k;
}

typedef size_t naive_way(const struct toy *y, const struct tok *t, const char *s, size_t len,
                         int32_t *out);

/* A text in which, if the vocabulary has them, all neighbours merge. */
static size_t all_merge(char *s, size_t len) {
    for (size_t i = 0; i < len; i++) s[i] = "ab"[rnd(2)];
    return len;
}

/* Words of a and b: pairs come up faster than they merge. */
static void add_words(struct toy *y) {
    for (unsigned len = 2; len <= 6; len++) {
        for (unsigned bits = 0; bits < 1U << len; bits++) {
            char word[8] = "";
            for (unsigned i = 0; i < len; i++) word[i] = "ab"[bits >> i & 1];
            toy_add(y, word, (float)rnd(100), TOKEN_NORMAL);
        }
    }
}

static void test_naive(const struct toy *y, naive_way *way, const char *what) {
    struct tok *t = open_toy(y);
    int bad = 0;
    for (int round = 0; t && round < 3000 && !bad; round++) {
        char s[256];
        int32_t got[1024], want[1024];
        size_t len = round % 4 ? random_text(s, 200) : all_merge(s, 1 + rnd(200)), n = 0, m;
        struct err e = {0};
        if (!len) continue;
        bad += !tok_encode(t, s, len, 0, got, 1024, &n, &e);
        m = way(y, t, s, len, want);
        bad += n != m || memcmp(got, want, n * sizeof *got);
        if (bad) printf("# %.*s\n", (int)len, s);
    }
    tap_ok(t && !bad, "%s merges as the naive way does, 3000 texts", what);
    tok_close(t);
}

static void test_merges(void) {
    static struct toy y;
    toy_spm(&y);
    test_naive(&y, naive_spm, "SentencePiece");
    /* With this token words can no longer be merged one by one. */
    toy_add(&y, "o\xe2\x96\x81", 1, TOKEN_NORMAL);
    test_naive(&y, naive_spm, "SentencePiece, spaces inside tokens,");
    toy_spm(&y);
    add_words(&y);
    test_naive(&y, naive_spm, "SentencePiece, words that grow from all sides,");
    toy_bpe(&y, "gpt-2");
    test_naive(&y, naive_bpe, "byte-level");
    toy_marks(&y);
    test_naive(&y, naive_marks, "a vocabulary of marks and merges");
    toy_plain(&y, true);
    test_naive(&y, naive_plain, "a vocabulary of bytes and scores");
    toy_plain(&y, false);
    test_naive(&y, naive_plain, "one of characters and scores");
}

/* ---- special tokens against a search that tries every length everywhere */

enum { SPECIAL_TEXT = 64 };

static bool user_token(const struct toy *y, int32_t id) {
    return y->type[id] == TOKEN_USER;
}

/* The special token of all of s [len] in a text without longer ones, or -1. plain: of each byte. */
static int32_t naive_special(const struct toy *y, const struct tok *t, const char *s, size_t len,
                             const bool *plain, const int32_t *mark) {
    int32_t id = tok_find(t, s, len);
    if (!tok_is_special(t, id)) return -1;
    for (size_t i = 0; i < len; i++) {
        if (mark[i] != -1 || (plain[i] && !user_token(y, id))) return -1;
    }
    return id;
}

/* The ids of s [len]: what stands between specials goes through `bare`, which has none of them. */
static size_t naive_specials(const struct toy *y, const struct tok *t, const struct tok *bare,
                             const char *s, size_t len, const bool *plain, bool strip,
                             int32_t *out) {
    int32_t mark[SPECIAL_TEXT];
    size_t n = 0, end;
    for (size_t i = 0; i < len; i++) mark[i] = -1;
    for (size_t k = len; k > 0; k--) {
        for (size_t i = 0; i + k <= len; i++) {
            int32_t id = naive_special(y, t, s + i, k, plain + i, mark + i);
            if (id < 0) continue;
            for (end = i; end < i + k; end++) mark[end] = -2;
            mark[i] = id;
            while (strip && end < len && mark[end] == -1 && strchr(" \t\n", s[end])) {
                mark[end++] = -2;
            }
        }
    }
    for (size_t i = 0; i < len; i = end) {
        struct err e = {0};
        size_t k = 0;
        for (end = i + 1; mark[i] == -1 && end < len && mark[end] == -1;) end++;
        if (mark[i] >= 0) out[n++] = mark[i];
        if (mark[i] == -1 && !tok_encode(bare, s + i, end - i, 0, out + n, 256, &k, &e)) return 0;
        n += k;
    }
    return n;
}

static size_t random_letters(char *s, size_t n) {
    for (size_t i = 0; i < n; i++) s[i] = "aaaabbb \n\xff"[rnd(10)];
    s[n] = 0;
    return n;
}

static bool same_specials(const struct toy *y, const struct tok *t, const struct tok *bare,
                          bool strip) {
    char s[SPECIAL_TEXT + 1];
    bool plain[SPECIAL_TEXT];
    struct tok_part part[4];
    int32_t got[256], want[1024];
    size_t len = random_letters(s, 1 + rnd(SPECIAL_TEXT)), n = 0, at = 0;
    struct err e = {0};
    for (int i = 0; i < 4; i++) {
        size_t k = rnd(SPECIAL_TEXT / 2);
        if (i == 3 || k > len - at) k = len - at;
        part[i] = (struct tok_part){s + at, k, rnd(2)};
        for (size_t b = 0; b < k; b++) plain[at++] = part[i].plain;
    }
    size_t m = naive_specials(y, t, bare, s, len, plain, strip, want);
    bool ok = tok_encode_parts(t, part, 4, 0, got, 256, &n, &e);
    return ok && n == m && !memcmp(got, want, n * sizeof *got);
}

static void toy_of(struct toy *y, bool bpe, bool strip) {
    static const char *const phi3[] = {"<|placeholder1|>", "<|assistant|>", "<|end|>", "<|user|>"};
    if (bpe) {
        toy_bpe(y, "llama-bpe");
    } else {
        toy_spm(y);
    }
    for (int i = 0; strip && i < 4; i++) toy_add(y, phi3[i], 0, TOKEN_CONTROL);
}

static void test_specials(bool bpe, bool strip) {
    static struct toy y;
    int bad = 0;
    for (int round = 0; round < 200; round++) {
        toy_of(&y, bpe, strip);
        struct tok *bare = open_toy(&y);
        for (uint32_t k = 1 + rnd(24); k; k--) {
            char text[16];
            random_letters(text, 1 + rnd(rnd(2) ? 4 : 12));
            toy_add(&y, text, 0, rnd(2) ? TOKEN_USER : TOKEN_CONTROL);
        }
        struct tok *t = open_toy(&y);
        for (int i = 0; t && i < 50; i++) bad += !same_specials(&y, t, bare, strip);
        bad += !t || !bare;
        tok_close(t);
        tok_close(bare);
    }
    tap_ok(!bad, "%s%s: special tokens where trying everything finds them, 10000 texts, %d differ",
           bpe ? "byte-level" : "SentencePiece", strip ? ", white space dropped" : "", bad);
}

int main(void) {
    test_merges();
    test_specials(false, false);
    test_specials(false, true);
    test_specials(true, false);
    return tap_done();
}
