/* Token ids back to text, piece by piece, never ending inside a UTF-8 sequence. */
#include "model/tok_tables.h"

#include <string.h>

void detok_init(struct detok *d, const struct tok *t, bool special) {
    *d = (struct detok){.t = t, .first = t->space_prefix, .special = special};
}

void detok_init_within(struct detok *d, const struct tok *t, bool special) {
    *d = (struct detok){.t = t, .special = special};
}

/* Bytes at the end of s [len] that begin a sequence and may yet complete it: 0 to 3. What can no
 * longer become valid UTF-8 is not held back. */
static size_t unfinished(const uint8_t *s, size_t len) {
    for (size_t n = 1; n <= 3 && n <= len; n++) {
        uint8_t c = s[len - n];
        if (c < 0x80) return 0;
        if (c < 0xc0) continue;
        size_t want = c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : 2;
        if (c < 0xc2 || c > 0xf4 || n >= want) return 0;
        if (n == 1) return 1;
        uint8_t d = s[len - n + 1];
        bool bad = (c == 0xe0 && d < 0xa0) || (c == 0xed && d > 0x9f) || (c == 0xf0 && d < 0x90) ||
                   (c == 0xf4 && d > 0x8f);
        return bad ? 0 : n;
    }
    return 0;
}

size_t detok_push(struct detok *d, int32_t id, char *out, size_t cap) {
    const char *piece;
    size_t len = tok_piece(d->t, id, d->special, &piece);
    if (!len) return 0;
    if (d->first && piece[0] == ' ' && !tok_is_control(d->t, id)) {
        piece++;
        len--;
    }
    d->first = false;
    size_t n = d->n_held;
    if (cap < n + len) len = cap > n ? cap - n : 0;  // the caller broke the contract: stay inside
    if (cap < n) return 0;
    memcpy(out, d->held, n);
    memcpy(out + n, piece, len);
    n += len;
    size_t keep = unfinished((const uint8_t *)out, n);
    memcpy(d->held, out + n - keep, keep);
    d->n_held = (uint8_t)keep;
    return n - keep;
}

size_t detok_flush(struct detok *d, char *out, size_t cap) {
    size_t n = d->n_held <= cap ? d->n_held : cap;
    memcpy(out, d->held, n);
    d->n_held = 0;
    return n;
}

/* " ." and its like lose the space. */
static size_t tidy_stops(char *s, size_t len) {
    size_t n = 0;
    for (size_t i = 0; i < len; i++) {
        bool stop = s[i] == '.' || s[i] == ',' || s[i] == '?' || s[i] == '!';
        if (stop && i && s[i - 1] == ' ') n--;
        s[n++] = s[i];
    }
    return n;
}

/* " ' " becomes "'". */
static size_t tidy_quotes(char *s, size_t len) {
    size_t n = 0;
    char prev = 0;
    for (size_t i = 0; i < len; i++) {
        if (s[i] == '\'' && prev == ' ' && i + 1 < len && s[i + 1] == ' ') {
            s[n - 1] = '\'';
            prev = 0;
            i++;
        } else {
            prev = s[i];
            s[n++] = s[i];
        }
    }
    return n;
}

/* " 's", " 'm", " 're" and " 've" lose the space. */
static size_t tidy_endings(char *s, size_t len) {
    size_t n = 0;
    char prev = 0;
    for (size_t i = 0; i < len; i++) {
        char c = s[i], a = i + 1 < len ? s[i + 1] : 0, b = i + 2 < len ? s[i + 2] : 0;
        bool ending = a == 's' || a == 'm' || ((a == 'r' || a == 'v') && b == 'e');
        if (c == '\'' && prev == ' ' && ending) n--;
        prev = c;
        s[n++] = c;
    }
    return n;
}

size_t tok_tidy(const struct tok *t, char *text, size_t len) {
    if (t->kind != TOK_BPE || !t->pre.tidy) return len;
    return tidy_endings(text, tidy_quotes(text, tidy_stops(text, len)));
}
