/* SentencePiece BPE (Kudo & Richardson 2018): neighbours whose joined text is a token merge, the
 * best score first, the leftmost among equals. Text that is no token falls back to byte tokens.
 * distributed-llama's vocabularies (TOK_PLAIN) are merged alike, but spell a space as a space and may be
 * of SentencePiece's kind, characters with byte tokens besides, or of the byte-level kind. */
#include "model/tok_tables.h"

#include "base/unicode.h"

#include <string.h>

static const char MARK[] = "\xe2\x96\x81";  // U+2581, how vocabularies spell a space

static bool is_mark(const char *s) {
    return !memcmp(s, MARK, 3);
}

/* Larger scores to smaller numbers, order kept; a NaN goes last. */
static uint32_t prio_of(float score) {
    uint32_t u;
    if (score != score) return UINT32_MAX;
    score += 0.0F;  // -0 and 0 are the same score
    memcpy(&u, &score, sizeof u);
    u = u & 0x80000000 ? ~u : u | 0x80000000;
    return ~u;
}

/* Whether spaces stand only at the front of tokens: "__a" but not "a_" or "a_b". */
static bool marks_lead(const struct tok *t) {
    for (uint32_t id = 0; id < t->n_token; id++) {
        const char *s = t->text + t->start[id];
        size_t len = t->start[id + 1] - t->start[id], i = 0;
        while (i + 3 <= len && is_mark(s + i)) i += 3;
        for (; i + 3 <= len; i++) {
            if (is_mark(s + i) && tok_word(t, s, len) >= 0) return false;
        }
    }
    return true;
}

void spm_mark_bytes(struct tok *t) {
    for (unsigned b = 0; b < 256; b++) {
        static const char hex[] = "0123456789ABCDEF";
        char name[6] = {'<', '0', 'x', hex[b >> 4], hex[b & 15], '>'};
        int32_t id = tok_find(t, name, sizeof name);
        if (tok_is_special(t, id)) id = -1;
        if (id >= 0) t->attr[id] = (uint8_t)((t->attr[id] & ~ATTR_TYPE) | TOKEN_BYTE);
        t->byte_id[b] = id;
    }
}

MUST spm_build(struct tok *t, const struct vocab *v, struct err *e) {
    if (!v->score) return err_set(e, ERR_FORMAT, "the SentencePiece vocabulary has no scores");
    if (!arena_array(&t->mem, &t->prio, t->n_token, sizeof *t->prio, "token scores", e)) {
        return false;
    }
    for (uint32_t i = 0; i < t->n_token; i++) t->prio[i] = prio_of(v->score[i]);
    if (t->kind == TOK_PLAIN) return true;
    t->word_marks = marks_lead(t);
    for (unsigned b = 0; b < 256; b++) {
        if (t->byte_id[b] >= 0) return true;
    }
    return err_set(e, ERR_FORMAT, "the SentencePiece vocabulary has no byte tokens");
}

bool spm_pair(const struct encoder *en, const struct sym *a, const struct sym *b, uint32_t *prio,
              int32_t *id) {
    int32_t found = tok_word(en->t, en->buf + a->at, (size_t)a->len + b->len);
    if (found < 0) return false;
    *prio = en->t->prio[found];
    *id = found;
    return true;
}

MUST spm_escape(struct encoder *en, const char *s, size_t len, bool prefix, size_t *n,
                struct err *e) {
    size_t n_space = prefix, at = 0;
    for (size_t i = 0; i < len; i++) n_space += s[i] == ' ';
    if (!encoder_copy(en, len + 3 * n_space, e)) return false;
    if (prefix) {
        memcpy(en->copy, MARK, 3);
        at = 3;
    }
    for (size_t i = 0; i < len; i++) {
        if (s[i] != ' ') {
            en->copy[at++] = s[i];
            continue;
        }
        memcpy(en->copy + at, MARK, 3);
        at += 3;
    }
    *n = at;
    return true;
}

/* The token of byte b, or what stands for it. */
static void emit_byte(struct encoder *en, char b) {
    int32_t id = en->t->byte_id[(uint8_t)b];
    if (id < 0) id = tok_word(en->t, &b, 1);
    if (id < 0) id = en->t->unk;
    if (id >= 0) tok_emit(en, id);
}

static void emit(struct encoder *en, const struct sym *s) {
    const char *text = en->buf + s->at;
    if (s->id >= 0) {
        tok_emit(en, s->id);
    } else if (en->t->marks && s->len == 3 && is_mark(text)) {
        emit_byte(en, ' ');  // tok_bound has no room for three
    } else {
        for (uint32_t i = 0; i < s->len; i++) emit_byte(en, text[i]);
    }
}

/* The first symbol of s [n > 0]: a character. Among plain texts it is the shortest token there of at most
 * a character's four bytes, which is a byte where the vocabulary is of bytes. */
static size_t first_symbol(const struct tok *t, const char *s, size_t n, int32_t *id) {
    for (size_t k = 1; t->kind == TOK_PLAIN && k <= 4 && k <= n; k++) {
        *id = tok_word(t, s, k);
        if (*id >= 0) return k;
    }
    int32_t cp;
    size_t step = unicode_decode((const uint8_t *)s, n, &cp);
    *id = tok_word(t, s, step);
    return step;
}

MUST spm_run(struct encoder *en, const char *s, size_t n, struct err *e) {
    if (!encoder_reserve(en, n, e)) return false;
    en->buf = s;
    int32_t k = 0;
    for (size_t i = 0; i < n; k++) {
        int32_t id;
        size_t step = first_symbol(en->t, s + i, n - i, &id);
        en->sym[k] = (struct sym){k - 1, k + 1, id, (uint32_t)i, (uint32_t)step};
        i += step;
    }
    en->sym[k - 1].next = -1;
    en->n_sym = (size_t)k;
    tok_merge(en);
    for (int32_t i = 0; i >= 0; i = en->sym[i].next) emit(en, &en->sym[i]);
    return true;
}

MUST spm_encode(struct encoder *en, const char *s, size_t len, bool prefix, struct err *e) {
    if (en->t->kind == TOK_PLAIN) return spm_run(en, s, len, e);
    size_t n, from = 0;
    if (!spm_escape(en, s, len, prefix && en->t->space_prefix, &n, e)) return false;
    /* Where no token goes on after a space, no merge does: words are merged one by one. */
    for (size_t i = 3; en->t->word_marks && i + 3 <= n; i++) {
        if (!is_mark(en->copy + i) || (i - from >= 3 && is_mark(en->copy + i - 3))) continue;
        if (!spm_run(en, en->copy + from, i - from, e)) return false;
        from = i;
    }
    return spm_run(en, en->copy + from, n - from, e);
}
