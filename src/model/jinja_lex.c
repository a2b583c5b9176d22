/* A template to tokens. Text between tags is cut here as white-space control asks: a line end after a
 * block is dropped (trim_blocks), blanks before a block that begins a line are (lstrip_blocks), a minus
 * sign drops all white space, a plus sign none. */
#include "model/jinja_own.h"

#include "base/text.h"
#include "base/unicode.h"

#include <stdlib.h>

static bool lex_fail(const struct lexer *x, struct err *e, const char *what) {
    return err_set(e, ERR_FORMAT, "line %u: %s", x->line, what);
}

MUST lex_open(struct lexer *x, struct pool *p, const char *s, size_t len, struct err *e) {
    char *copy = pool_push(p, len + 1);
    size_t n = 0;
    if (!copy) return err_set(e, ERR_MEMORY, "no memory for a template of %zu bytes", len);
    for (size_t i = 0; i < len; i++) {
        copy[n++] = s[i] == '\r' ? '\n' : s[i];
        if (s[i] == '\r' && i + 1 < len && s[i + 1] == '\n') i++;
    }
    if (n && copy[n - 1] == '\n') n--;  // the last line end is the file's, not the text's
    *x = (struct lexer){.pool = p, .s = copy, .len = n, .line = 1, .is_line_start = true};
    return true;
}

static bool stands(const struct lexer *x, size_t at, const char *what) {
    size_t n = strlen(what);
    return at <= x->len && n <= x->len - at && !memcmp(x->s + at, what, n);
}

/* Past the white space at `at`. */
static size_t skip_space(const struct lexer *x, size_t at) {
    while (at < x->len) {
        int32_t cp;
        size_t n = utf8_step(x->s + at, x->len - at, &cp);
        if (!py_is_space(cp)) break;
        at += n;
    }
    return at;
}

static void move_to(struct lexer *x, size_t at) {
    for (size_t i = x->at; i < at; i++) x->line += x->s[i] == '\n';
    x->at = at;
}

/* Past a tag's end, if one stands here: `-` drops white space, `+` keeps the line end that a block's
 * end would drop. 0: none. */
static size_t tag_end(const struct lexer *x, size_t at, const char *end, bool trims) {
    size_t n = strlen(end);
    if (at < x->len && x->s[at] == '-' && stands(x, at + 1, end)) return skip_space(x, at + 1 + n);
    if (trims && at < x->len && x->s[at] == '+' && stands(x, at + 1, end)) return at + 1 + n;
    if (!stands(x, at, end)) return 0;
    at += n;
    return at + (trims && at < x->len && x->s[at] == '\n');
}

/* The length that remains of the text s [len] before a tag with this sign. */
static size_t cut_before(const char *s, size_t len, char sign, bool is_block, bool is_line_start) {
    size_t n = len;
    if (sign == '-') {
        return space_end(s, len);
    }
    if (sign == '+' || !is_block) return len;
    size_t line = len;
    while (line && s[line - 1] != '\n') line--;
    if (!line && !is_line_start) return len;
    while (n > line && (ascii_is_space(s[n - 1]))) n--;
    return n == line ? line : len;
}

static void set_text(const struct lexer *x, struct token *t, size_t from, size_t len) {
    *t = (struct token){.kind = T_TEXT, .line = x->line};
    t->v = (struct value){.kind = V_STR, .s = x->s + from, .len = (uint32_t)len};
}

/* The tag {% word %} at `at`: where it ends, or 0. */
static size_t word_tag(const struct lexer *x, size_t at, const char *word, bool trims) {
    if (!stands(x, at, "{%")) return 0;
    at += 2;
    if (at < x->len && (x->s[at] == '-' || x->s[at] == '+')) at++;
    at = skip_space(x, at);
    if (!stands(x, at, word)) return 0;
    at = skip_space(x, at + strlen(word));
    if (!trims && stands(x, at, "+")) return 0;
    size_t end = tag_end(x, at, "%}", trims);
    return end;
}

static char sign_at(const struct lexer *x, size_t at) {
    char c = at < x->len ? x->s[at] : '\0';
    return c == '-' || c == '+' ? c : '\0';
}

static void after_tag(struct lexer *x, size_t end) {
    x->is_line_start = end && x->s[end - 1] == '\n';
    move_to(x, end);
}

/* The text of {% raw %}, which begins at x->at. */
static MUST lex_raw(struct lexer *x, size_t begin_end, struct token *t, struct err *e) {
    size_t from = begin_end, at = from, end = 0;
    for (; at < x->len; at++) {
        if (x->s[at] == '{' && (end = word_tag(x, at, "endraw", true))) break;
    }
    if (!end) return lex_fail(x, e, "{% raw %} has no {% endraw %}");
    set_text(x, t, from, cut_before(x->s + from, at - from, sign_at(x, at + 2), true, false));
    after_tag(x, end);
    return true;
}

static MUST skip_comment(struct lexer *x, size_t at, struct err *e) {
    for (size_t i = at + 2; i < x->len; i++) {
        size_t end = tag_end(x, i, "#}", true);
        if (!end) continue;
        after_tag(x, end);
        return true;
    }
    return lex_fail(x, e, "a comment has no end: #} is missing");
}

static size_t find_tag(const struct lexer *x, size_t from) {
    for (size_t i = from; i + 1 < x->len; i++) {
        if (x->s[i] == '{' && strchr("{%#", x->s[i + 1]) && x->s[i + 1]) return i;
    }
    return x->len;
}

/* Text up to the next tag, and that tag's beginning with the call after. */
static MUST lex_text(struct lexer *x, struct token *t, struct err *e) {
    for (;;) {
        size_t from = x->at, at = find_tag(x, from);
        bool is_var = stands(x, at, "{{"), is_comment = stands(x, at, "{#");
        size_t len = at - from, raw = word_tag(x, at, "raw", false);
        char sign = sign_at(x, at + 2);
        if (at < x->len) {
            len = cut_before(x->s + from, len, sign, !is_var, x->is_line_start);
        }
        set_text(x, t, from, len);
        if (at == x->len) {
            move_to(x, at);
            if (!len) t->kind = T_END;
            return true;
        }
        if (len) {  // the tag comes with the next call: nothing remains before it to be cut
            move_to(x, at);
            x->is_line_start = false;
            return true;
        }
        move_to(x, at);
        if (is_comment) {
            if (!skip_comment(x, at, e)) return false;
        } else if (raw) {
            move_to(x, raw);
            return lex_raw(x, raw, t, e);
        } else {
            *t = (struct token){.kind = is_var ? T_VAR_BEGIN : T_BLOCK_BEGIN, .line = x->line};
            x->mode = is_var ? LEX_VAR : LEX_BLOCK;
            move_to(x, at + 2 + (sign != 0));
            return true;
        }
    }
}

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

static int digit_of(char c) {
    return is_digit(c) ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : 99;
}

/* Digits of a base with single underscores between, appended to out. */
static size_t take_digits(const struct lexer *x, size_t at, int base, char *out, size_t *n,
                          size_t cap) {
    for (;; at++) {
        char c = at < x->len ? x->s[at] : '\0';
        if (c == '_' && *n && at + 1 < x->len && digit_of(x->s[at + 1]) < base) continue;
        if (digit_of(c) >= base) return at;
        if (*n + 1 < cap) out[*n] = c;
        ++*n;
    }
}

/* A fraction, an exponent: then it is a float. */
static size_t take_real(const struct lexer *x, size_t at, char *out, size_t *n, size_t cap) {
    if (at + 1 < x->len && x->s[at] == '.' && is_digit(x->s[at + 1])) {
        if (*n + 1 < cap) out[(*n)++] = '.';
        at = take_digits(x, at + 1, 10, out, n, cap);
    }
    if (at < x->len && (x->s[at] | 32) == 'e') {
        size_t digits = at + 1 + (at + 1 < x->len && strchr("+-", x->s[at + 1]) != NULL);
        if (digits < x->len && is_digit(x->s[digits])) {
            for (; at < digits; at++) {
                if (*n + 1 < cap) out[(*n)++] = x->s[at];
            }
            at = take_digits(x, at, 10, out, n, cap);
        }
    }
    return at;
}

static MUST lex_number(struct lexer *x, struct token *t, struct err *e) {
    char digit[64] = "";
    size_t n = 0, at = x->at;
    int base = 10;
    if (x->s[at] == '0' && at + 1 < x->len) {
        char c = (char)(x->s[at + 1] | 32);
        base = c == 'x' ? 16 : c == 'o' ? 8 : c == 'b' ? 2 : 10;
    }
    if (base != 10) at += 2;
    at = take_digits(x, at, base, digit, &n, sizeof digit);
    size_t whole = at;
    bool is_index = x->at && x->s[x->at - 1] == '.';  // list.0.1 has no number 0.1
    if (base == 10 && !is_index) at = take_real(x, at, digit, &n, sizeof digit);
    if (!n || n + 1 >= sizeof digit) return lex_fail(x, e, "this number is too long");
    *t = (struct token){.kind = at > whole ? T_REAL : T_INT, .line = x->line};
    if (at > whole) {
        t->v = value_real(strtod(digit, NULL));
    } else {
        char *end;
        unsigned long long u = strtoull(digit, &end, base);
        if (u > INT64_MAX || n > 62) return lex_fail(x, e, "this number is too large");
        if (base == 10 && digit[0] == '0' && u) return lex_fail(x, e, "a number begins with 0");
        t->v = value_int((int64_t)u);
    }
    x->at = at;
    return true;
}

/* The code point of \x, \u, \U or \ooo; *at past it. False: not one. */
static bool code_escape(const char *s, size_t len, size_t *at, int32_t *cp) {
    char c = s[*at];
    size_t n = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    uint32_t v = 0;
    size_t i = *at + (n != 0), end = n ? i + n : i + 3;
    for (; i < end && i < len; i++) {
        char d = s[i];
        unsigned digit = is_digit(d)                               ? (unsigned)(d - '0')
                         : n && (d | 32) >= 'a' && (d | 32) <= 'f' ? (unsigned)((d | 32) - 'a' + 10)
                                                                   : 99;
        if (digit > (n ? 15 : 7)) break;
        v = v * (n ? 16 : 8) + digit;
    }
    if ((n && i < end) || i == *at || v > 0x10ffff) return false;
    *at = i;
    *cp = (int32_t)v;
    return true;
}

/* As Python's string literals; an escape that it does not know stays as it is. */
static MUST unescape(struct lexer *x, const char *s, size_t len, struct value *out, struct err *e) {
    static const char letter[] = "abfnrtv\\'\"", meant[] = "\a\b\f\n\r\t\v\\'\"";
    char *to = pool_push(x->pool, len + 1);
    size_t n = 0;
    if (!to) return err_set(e, ERR_MEMORY, "no memory for a template's text");
    for (size_t i = 0; i < len;) {
        if (s[i] != '\\' || i + 1 == len) {
            to[n++] = s[i++];
            continue;
        }
        const char *simple = s[i + 1] ? strchr(letter, s[i + 1]) : NULL;
        size_t at = i + 1;
        int32_t cp;
        if (s[at] == '\n') {
            i = at + 1;
        } else if (simple) {
            to[n++] = meant[simple - letter];
            i = at + 1;
        } else if (code_escape(s, len, &at, &cp)) {
            n += utf8_write(cp, to + n);
            i = at;
        } else if (strchr("xuU", s[at])) {
            return lex_fail(x, e, "a string has an escape that is cut short");
        } else {
            to[n++] = s[i++];
        }
    }
    *out = (struct value){.kind = V_STR, .s = to, .len = (uint32_t)n};
    return true;
}

static MUST lex_string(struct lexer *x, struct token *t, struct err *e) {
    char quote = x->s[x->at];
    size_t from = x->at + 1, at = from;
    while (at < x->len && x->s[at] != quote) at += 1 + (x->s[at] == '\\');
    if (at >= x->len) return lex_fail(x, e, "a string has no end");
    *t = (struct token){.kind = T_STRING, .line = x->line};
    if (!unescape(x, x->s + from, at - from, &t->v, e)) return false;
    move_to(x, at + 1);
    return true;
}

static bool is_name_char(int32_t cp) {
    return cp == '_' || unicode_is_letter(cp) || unicode_is_number(cp);
}

/* Brackets must match; within them a tag's end is none. */
static MUST track_bracket(struct lexer *x, char c, struct err *e) {
    static const char opening[] = "([{", closing[] = ")]}";
    const char *close = strchr(closing, c);
    char text[64];
    if (strchr(opening, c)) {
        if (x->n_open == JINJA_NEST) {
            return err_set(e, ERR_LIMIT, "line %u: brackets are nested more than %d deep", x->line,
                           JINJA_NEST);
        }
        x->open[x->n_open++] = c;
    } else if (close) {
        if (!x->n_open || x->open[x->n_open - 1] != opening[close - closing]) {
            snprintf(text, sizeof text, "unexpected \"%c\"", c);
            return lex_fail(x, e, text);
        }
        x->n_open--;
    }
    return true;
}

static MUST lex_operator(struct lexer *x, struct token *t, struct err *e) {
    static const char *const pairs[] = {"**", "//", "==", "!=", "<=", ">="};
    char c = x->s[x->at], shown[80];
    *t = (struct token){.kind = T_OP, .line = x->line, .op = (uint8_t)c};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        if (!stands(x, x->at, pairs[i])) continue;
        t->op = (uint16_t)(pairs[i][0] | pairs[i][1] << 8);
        x->at += 2;
        return true;
    }
    if (!c || !strchr("+-*/%~()[]{}<>=.:|,;", c)) {
        snprintf(shown, sizeof shown, "unexpected character \"%c\"", c >= ' ' ? c : '?');
        return lex_fail(x, e, shown);
    }
    if (!track_bracket(x, c, e)) return false;
    x->at++;
    return true;
}

static MUST lex_tag(struct lexer *x, struct token *t, struct err *e) {
    bool is_var = x->mode == LEX_VAR;
    move_to(x, skip_space(x, x->at));
    if (x->at == x->len) return lex_fail(x, e, "the template ends inside a tag");
    size_t end = x->n_open ? 0 : tag_end(x, x->at, is_var ? "}}" : "%}", !is_var);
    if (end) {
        *t = (struct token){.kind = is_var ? T_VAR_END : T_BLOCK_END, .line = x->line};
        x->mode = LEX_TEXT;
        after_tag(x, end);
        return true;
    }
    char c = x->s[x->at];
    if (is_digit(c)) return lex_number(x, t, e);
    if (c == '\'' || c == '"') return lex_string(x, t, e);
    size_t at = x->at;
    while (at < x->len) {
        int32_t cp;
        size_t n = utf8_step(x->s + at, x->len - at, &cp);
        if (!is_name_char(cp)) break;
        at += n;
    }
    if (at == x->at) return lex_operator(x, t, e);
    *t = (struct token){.kind = T_NAME, .line = x->line};
    t->v = (struct value){.kind = V_STR, .s = x->s + x->at, .len = (uint32_t)(at - x->at)};
    x->at = at;
    return true;
}

MUST lex_next(struct lexer *x, struct token *t, struct err *e) {
    return x->mode == LEX_TEXT ? lex_text(x, t, e) : lex_tag(x, t, e);
}
