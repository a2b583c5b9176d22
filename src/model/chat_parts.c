#include "model/chat_parts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Digits go through a template unchanged, whatever it does to letters and spaces. The one 9 is the first: what
 * stands ahead of a mark makes no other with its beginning. */
#define MARK "907126"

enum { NUMBER_DIGITS = 8, MARK_ROOM = CHAT_MARK + NUMBER_DIGITS };

bool chat_is_blank(struct json_chars c) {
    while (c.len && strchr(" \t\r\n", *c.s)) c.s++, c.len--;
    return !c.len;
}

bool chat_is_word(struct json_chars c, const char *word) {
    return c.len == strlen(word) && !memcmp(c.s, word, c.len);
}

bool chat_has_role(const struct json_value *m, const char *role) {
    struct json_chars c = {0};
    return json_chars_of(json_find(m, "role"), &c) && chat_is_word(c, role);
}

/* --- what there is --- */

static bool is_part(const struct json_value *v, bool of_tool) {
    if (json_kind(v) != JSON_OBJECT) return false;
    return json_kind(json_find(v, "text")) == JSON_STRING ||
           (!of_tool && json_kind(json_find(v, "type")) == JSON_STRING);
}

/* The content of a message, if it is a list of parts, else NULL. */
static const struct json_value *parts_of(const struct json_value *m) {
    const struct json_value *content = json_find(m, "content"), *part;
    bool of_tool = chat_has_role(m, "tool");
    struct json_iter it;
    if (json_kind(content) != JSON_ARRAY) return NULL;
    for (json_members(&it, content); json_next(&it, NULL, &part);) {
        if (!is_part(part, of_tool)) return NULL;
    }
    return content;
}

static bool is_bare(const struct json_value *m) {
    return chat_has_role(m, "assistant") && json_size(json_find(m, "tool_calls")) &&
           !json_find(m, "content");
}

/* Message n, from 1. */
static void add_message(struct chat_parts *p, const struct json_value *m, size_t n) {
    const struct json_value *part, *list = parts_of(m);
    bool of_user = chat_has_role(m, "user");
    struct json_chars text = {0};
    struct json_iter it;
    size_t n_said = 0;  // in parts
    if (json_chars_of(json_find(m, "content"), &text)) {
        p->n_plain++;
        n_said += of_user && !chat_is_blank(text);
    }
    for (json_members(&it, list); json_next(&it, NULL, &part);) {
        bool is_text = json_chars_of(json_find(part, "text"), &text);
        n_said += is_text && !chat_is_blank(text);
        if (is_text || p->odd) continue;
        p->odd = n;
        (void)json_chars_of(json_find(part, "type"), &p->kind);
    }
    p->n_bare += is_bare(m);
    p->n_list += list != NULL;
    p->n_text += n_said;
    if (of_user) p->n_user += n_said;
}

void chat_parts(struct chat_parts *p, const struct json_value *messages) {
    const struct json_value *m;
    struct json_iter it;
    size_t n = 0;
    *p = (struct chat_parts){0};
    for (json_members(&it, messages); json_next(&it, NULL, &m);) add_message(p, m, ++n);
}

/* --- marks --- */

/* Counts where a mark stands, and adds by what digit is behind it. */
static size_t count_mark(const char *mark, const char *text, size_t len, size_t next[9]) {
    const char *s = text, *end = text + len;
    size_t n = 0, n_mark = strlen(mark);
    for (; (s = memmem(s, (size_t)(end - s), mark, n_mark)); n++) {
        s += n_mark;
        if (s < end && *s >= '0' && *s < '9') next[*s - '0']++;
    }
    return n;
}

/* With the rarest digit behind it each time, a mark stands in a ninth of the places at most. */
MUST chat_mark(struct chat_parts *p, const struct json_value *messages, const char *prompt,
               size_t len, struct err *e) {
    char *text;
    size_t n_text;
    if (!json_print(messages, &text, &n_text, e)) return false;
    snprintf(p->mark, sizeof p->mark, MARK);
    for (size_t n = strlen(MARK); n + 1 < sizeof p->mark; n++) {
        size_t next[9] = {0}, least = 0;
        size_t found = count_mark(p->mark, text, n_text, next);
        found += count_mark(p->mark, prompt, len, next);
        if (!found) break;
        for (size_t i = 1; i < 9; i++) least = next[i] < next[least] ? i : least;
        p->mark[n] = (char)('0' + least);
        p->mark[n + 1] = '\0';
    }
    free(text);
    return true;
}

/* --- written anew --- */

struct caster {
    FILE *to;
    unsigned cast;
    const struct chat_parts *parts;
    bool of_user;            // the message
    size_t n_user, n_other;  // texts that were marked so far
    bool is_ok;              // there was memory for all
};

static struct json_chars numbered(const struct caster *c, size_t i, char room[MARK_ROOM]) {
    int n = snprintf(room, MARK_ROOM, "%s%0*zu", c->parts->mark, NUMBER_DIGITS, i);
    return (struct json_chars){room, (size_t)n};
}

static void put_text(struct caster *c, struct json_chars text) {
    struct json j;
    json_file(&j, c->to);
    json_string(&j, text.s, text.len);
}

static void put_key(struct caster *c, struct json_chars key, bool *is_more) {
    if (*is_more) fputc(',', c->to);
    *is_more = true;
    put_text(c, key);
    fputc(':', c->to);
}

static void put_value(struct caster *c, const struct json_value *v) {
    char *text;
    size_t len;
    struct err e;
    if (!json_print(v, &text, &len, &e)) {
        c->is_ok = false;
        return;
    }
    fwrite(text, 1, len, c->to);
    free(text);
}

/* A text, or the mark in its place, which lies in room. The marks of users are the first. */
static struct json_chars said(struct caster *c, struct json_chars text, char room[MARK_ROOM]) {
    if (!(c->cast & CHAT_MARKED) || chat_is_blank(text)) return text;
    return numbered(c, c->of_user ? c->n_user++ : c->parts->n_user + c->n_other++, room);
}

static void put_joined(struct caster *c, const struct json_value *list) {
    char *all = NULL, room[MARK_ROOM];
    size_t len = 0;
    const struct json_value *part;
    struct json_iter it;
    FILE *to = open_memstream(&all, &len);
    if (!to) {
        c->is_ok = false;
        return;
    }
    for (json_members(&it, list); json_next(&it, NULL, &part);) {
        struct json_chars text = {0};
        if (!json_chars_of(json_find(part, "text"), &text)) continue;
        if (ftell(to) > 0) fputc('\n', to);
        text = said(c, text, room);
        fwrite(text.s, 1, text.len, to);
    }
    if (ferror(to)) c->is_ok = false;
    if (fclose(to) != 0) c->is_ok = false;
    if (c->is_ok) put_text(c, (struct json_chars){all, len});
    free(all);
}

/* A name that only those prompts have which print parts as they are. */
static void put_name_mark(struct caster *c) {
    char room[MARK_ROOM];
    bool is_more = true;
    put_key(c, numbered(c, c->parts->n_text, room), &is_more);
    fputc('0', c->to);
}

static void put_part(struct caster *c, const struct json_value *part) {
    const struct json_value *v, *text = json_find(part, "text");
    struct json_iter it;
    struct json_chars key = {0}, chars;
    char room[MARK_ROOM];
    bool is_more = false;
    fputc('{', c->to);
    for (json_members(&it, part); json_next(&it, &key, &v);) {
        put_key(c, key, &is_more);
        if (v == text && json_chars_of(v, &chars)) {
            put_text(c, said(c, chars, room));
        } else {
            put_value(c, v);
        }
    }
    put_name_mark(c);
    fputc('}', c->to);
}

static void put_marked(struct caster *c, const struct json_value *list) {
    const struct json_value *part;
    struct json_iter it;
    bool is_more = false;
    fputc('[', c->to);
    for (json_members(&it, list); json_next(&it, NULL, &part);) {
        if (is_more) fputc(',', c->to);
        is_more = true;
        put_part(c, part);
    }
    fputc(']', c->to);
}

/* A content that is a text. */
static void put_plain(struct caster *c, struct json_chars text) {
    char room[MARK_ROOM];
    if (c->of_user) text = said(c, text, room);
    if (!(c->cast & CHAT_LISTED)) {
        put_text(c, text);
        return;
    }
    fputs("[{\"type\":\"text\",\"text\":", c->to);
    put_text(c, text);
    if (c->cast & CHAT_MARKED) put_name_mark(c);
    fputs("}]", c->to);
}

static void put_message(struct caster *c, const struct json_value *m) {
    const struct json_value *list = parts_of(m), *content = json_find(m, "content"), *v;
    struct json_iter it;
    struct json_chars key = {0}, text;
    bool is_filled = c->cast & (CHAT_FILLED | CHAT_NULLED) && is_bare(m), is_more = false;
    c->of_user = chat_has_role(m, "user");
    fputc('{', c->to);
    for (json_members(&it, m); json_next(&it, &key, &v);) {
        if (is_filled && chat_is_word(key, "content")) continue;
        put_key(c, key, &is_more);
        if (v == list && c->cast & CHAT_JOINED) {
            put_joined(c, v);
        } else if (v == list && c->cast & CHAT_MARKED) {
            put_marked(c, v);
        } else if (v == content && json_chars_of(v, &text)) {
            put_plain(c, text);
        } else {
            put_value(c, v);
        }
    }
    if (is_filled) fputs(",\"content\":", c->to);
    if (is_filled && c->cast & CHAT_NULLED) fputs("null", c->to);
    if (is_filled && c->cast & CHAT_FILLED) put_plain(c, (struct json_chars){.s = ""});
    fputc('}', c->to);
}

MUST chat_cast(struct json_doc **d, const struct json_value *messages, unsigned cast,
               const struct chat_parts *parts, struct err *e) {
    char *text = NULL;
    size_t len = 0;
    const struct json_value *m;
    struct json_iter it;
    struct caster c = {
        .to = open_memstream(&text, &len), .cast = cast, .parts = parts, .is_ok = true};
    bool is_more = false;
    if (!c.to) return err_set(e, ERR_MEMORY, "no memory to write the messages anew");
    fputc('[', c.to);
    for (json_members(&it, messages); json_next(&it, NULL, &m);) {
        if (is_more) fputc(',', c.to);
        is_more = true;
        put_message(&c, m);
    }
    fputc(']', c.to);
    bool ok = !ferror(c.to) && c.is_ok;
    ok = fclose(c.to) == 0 && ok;
    ok = ok ? json_read(d, text, len, len, e)
            : err_set(e, ERR_MEMORY, "no memory to write the messages anew");
    free(text);
    return ok;
}

/* The number at s, of NUMBER_DIGITS digits; SIZE_MAX: there is none. */
static size_t digits(const char *s) {
    size_t n = 0;
    for (int i = 0; i < NUMBER_DIGITS; i++) {
        if (s[i] < '0' || s[i] > '9') return SIZE_MAX;
        n = 10 * n + (size_t)(s[i] - '0');
    }
    return n;
}

MUST chat_unmarked(const struct chat_parts *p, const char *prompt, size_t len,
                   struct chat_unsaid *out, struct err *e) {
    const char *s = prompt, *end = prompt + len;
    bool *is_seen = calloc(p->n_text + 1, 1);
    if (!is_seen) return err_set(e, ERR_MEMORY, "no memory to look for what parts say");
    *out = (struct chat_unsaid){.n = p->n_text};
    while ((s = memmem(s, (size_t)(end - s), p->mark, strlen(p->mark)))) {
        s += strlen(p->mark);
        size_t i = (size_t)(end - s) < NUMBER_DIGITS ? SIZE_MAX : digits(s);
        if (i > p->n_text) continue;
        s += NUMBER_DIGITS;
        out->n -= i < p->n_text && !is_seen[i];
        is_seen[i] = true;
    }
    out->is_printed = is_seen[p->n_text];
    if (out->is_printed) out->n = p->n_text + 1;
    for (size_t i = 0; i < p->n_user; i++) out->has_user = out->has_user || !is_seen[i];
    free(is_seen);
    return true;
}
