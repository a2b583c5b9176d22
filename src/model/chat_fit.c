#include "model/chat_fit.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static MUST no_memory(struct err *e) {
    return err_set(e, ERR_MEMORY, "no memory to fit the conversation to its template");
}

/* d stands in for v and is owned, NULL: v is left out. */
static MUST add_swap(struct chat_fit *f, const struct json_value *v, struct json_doc *d,
                     struct err *e) {
    if (f->n == f->cap) {
        size_t cap = f->cap ? 2 * f->cap : 16;
        struct jinja_swap *swap = realloc(f->swap, cap * sizeof *swap);
        if (swap) f->swap = swap;
        struct json_doc **doc = swap ? realloc(f->doc, cap * sizeof(struct json_doc *)) : NULL;
        if (doc) f->doc = doc;
        if (!swap || !doc) {
            json_free(d);
            return no_memory(e);
        }
        f->cap = cap;
    }
    f->swap[f->n] = (struct jinja_swap){.of = v, .by = d ? json_root(d) : NULL};
    f->doc[f->n++] = d;
    return true;
}

/* A text in the place of v. */
static MUST swap_text(struct chat_fit *f, const struct json_value *v, struct json_chars text,
                      struct err *e) {
    size_t room = 6 * text.len + 3;
    char *json = malloc(room);
    struct json_doc *d = NULL;
    struct json j;
    if (!json) return no_memory(e);
    json_mem(&j, json, room);
    json_string(&j, text.s, text.len);
    bool ok = json_read(&d, json, j.len, j.len, e);
    free(json);
    return ok && add_swap(f, v, d, e);
}

/* --- arguments --- */

static MUST take_bytes(struct chat_fit *f, size_t n, struct err *e) {
    if (n > f->left) {
        return err_set(e, ERR_LIMIT, "the arguments of all tool calls have more than %d MiB",
                       CHAT_ARGUMENTS >> 20);
    }
    f->left -= n;
    return true;
}

/* Whether JSON has a whole number that 64 bits do not hold: as a value it would be rounded. */
static bool has_wide_number(const char *s) {
    for (bool is_string = false; *s; s++) {
        if (*s == '"') is_string = !is_string;
        if (is_string) {
            s += *s == '\\';
            continue;
        }
        size_t n = strspn(s, "+-.0123456789Ee");
        if (!n || !strchr("-0123456789", *s)) continue;
        errno = 0;
        (void)strtoll(s, NULL, 10);
        if (errno && strcspn(s, ".eE") >= n) return true;
        s += n - 1;
    }
    return false;
}

/* What is no object, or makes none, is the template's to judge. */
static MUST fit_text(struct chat_fit *f, const struct json_value *v, unsigned form, struct err *e) {
    struct json_chars text = {0};
    struct json_doc *d = NULL;
    struct err why;
    bool is_text = json_chars_of(v, &text);
    if (!is_text || !text.len || text.s[strspn(text.s, " \t\r\n")] != '{') return true;
    if (!take_bytes(f, text.len, e)) return false;
    if (!json_read(&d, text.s, text.len, text.len, &why)) {
        if (why.code != ERR_MEMORY) return true;
        *e = why;
        return false;
    }
    if (has_wide_number(text.s)) {
        json_free(d);
        return true;
    }
    f->has_arguments = true;
    if (form & CHAT_OBJECTS) return add_swap(f, v, d, e);
    json_free(d);
    return true;
}

static MUST fit_object(struct chat_fit *f, const struct json_value *v, unsigned form,
                       struct err *e) {
    struct json_chars text = {0};
    char *owned;
    f->has_arguments = true;
    if (!(form & CHAT_TEXTS)) return true;
    if (!json_print(v, &owned, &text.len, e)) return false;
    text.s = owned;
    bool ok = take_bytes(f, text.len, e) && swap_text(f, v, text, e);
    free(owned);
    return ok;
}

static bool is_key(struct json_chars key, const char *name) {
    return key.len == strlen(name) && !memcmp(key.s, name, key.len);
}

/* A call, or the function in it. */
static MUST fit_call(struct chat_fit *f, const struct json_value *call, unsigned form, int depth,
                     struct err *e) {
    struct json_iter at;
    struct json_chars key = {0};
    const struct json_value *v;
    bool ok = true;
    if (json_kind(call) != JSON_OBJECT) return true;
    for (json_members(&at, call); ok && json_next(&at, &key, &v);) {
        if (is_key(key, "arguments")) {
            ok = json_kind(v) == JSON_OBJECT ? fit_object(f, v, form, e) : fit_text(f, v, form, e);
        } else if (!depth && is_key(key, "function")) {
            ok = fit_call(f, v, form, 1, e);
        }
    }
    return ok;
}

static MUST fit_calls(struct chat_fit *f, const struct json_value *calls, unsigned form,
                      struct err *e) {
    struct json_iter at;
    const struct json_value *call;
    if (json_kind(calls) != JSON_ARRAY) return true;
    for (json_members(&at, calls); json_next(&at, NULL, &call);) {
        if (!fit_call(f, call, form, 0, e)) return false;
    }
    return true;
}

/* --- the system text --- */

static bool has_role(const struct json_value *m, const char *role) {
    struct json_chars c = {0};
    return json_chars_of(json_find(m, "role"), &c) && is_key(c, role);
}

/* The text of a part of a content, which may be nothing but a text. */
static bool part_text(const struct json_value *part, const struct json_value **at,
                      struct json_chars *text) {
    *at = json_kind(part) == JSON_OBJECT ? json_find(part, "text") : part;
    return json_chars_of(*at, text);
}

/* The first text of a message's content, and where it is. */
static bool first_text(const struct json_value *m, const struct json_value **at,
                       struct json_chars *text) {
    const struct json_value *content = json_find(m, "content"), *part;
    struct json_iter i;
    if (json_kind(content) != JSON_ARRAY) return part_text(content, at, text);
    for (json_members(&i, content); json_next(&i, NULL, &part);) {
        if (part_text(part, at, text)) return true;
    }
    return false;
}

static bool is_blank(struct json_chars c) {
    while (c.len && strchr(" \t\r\n", *c.s)) c.s++, c.len--;
    return !c.len;
}

/* A system message that counts, see n_system. */
static bool has_system(const struct json_value *m) {
    const struct json_value *where;
    struct json_chars text = {0};
    return has_role(m, "system") && first_text(m, &where, &text) && !is_blank(text);
}

static MUST add_system(struct chat_fit *f, struct json_chars text, struct err *e) {
    if (is_blank(text)) return true;
    char *more = realloc(f->system, f->system_len + text.len + 3);
    if (!more) return no_memory(e);
    f->system = more;
    if (f->system_len) {
        memcpy(f->system + f->system_len, "\n\n", 2);
        f->system_len += 2;
    }
    memcpy(f->system + f->system_len, text.s, text.len);
    f->system_len += text.len;
    f->system[f->system_len] = '\0';
    return true;
}

static MUST take_system(struct chat_fit *f, const struct json_value *m, struct err *e) {
    const struct json_value *content = json_find(m, "content"), *part, *where;
    struct json_iter i;
    struct json_chars text = {0};
    if (json_kind(content) != JSON_ARRAY) {
        return !part_text(content, &where, &text) || add_system(f, text, e);
    }
    for (json_members(&i, content); json_next(&i, NULL, &part);) {
        if (part_text(part, &where, &text) && !add_system(f, text, e)) return false;
    }
    return true;
}

/* Fills f->system with the texts of the messages from `from` on; *user is the message that takes them,
 * NULL: there is nothing to be merged. */
static MUST find_system(struct chat_fit *f, const struct json_value *messages, size_t from,
                        const struct json_value **user, struct err *e) {
    const struct json_value *m, *where;
    struct json_iter at;
    struct json_chars text;
    *user = NULL;
    for (json_members(&at, messages); !*user && json_next(&at, NULL, &m);) {
        if (has_role(m, "user")) *user = m;
        if (!has_role(m, "system")) continue;
        if (f->n_system >= from && !take_system(f, m, e)) return false;
        f->n_system += has_system(m);
    }
    if (f->system_len && *user && first_text(*user, &where, &text)) return true;
    f->system_len = f->n_system = 0;
    *user = NULL;
    return true;
}

static MUST merge(struct chat_fit *f, const struct json_value *user, struct err *e) {
    const struct json_value *where;
    struct json_chars text = {0};
    if (!first_text(user, &where, &text)) return true;  // not after find_system()
    size_t n = f->system_len;
    char *both = malloc(n + 2 + text.len);
    if (!both) return no_memory(e);
    memcpy(both, f->system, n);
    memcpy(both + n, "\n\n", 2);
    memcpy(both + n + 2, text.s, text.len);
    bool ok = swap_text(f, where, (struct json_chars){both, n + 2 + text.len}, e);
    free(both);
    return ok;
}

/* A text that a template which looks at it makes something else of. */
static MUST alter(struct chat_fit *f, const struct json_value *system, struct err *e) {
    const struct json_value *where;
    struct json_chars text = {0};
    if (!first_text(system, &where, &text)) return true;  // not after has_system()
    const char *other = memchr(text.s, '0', text.len) ? "1" : "0";
    return swap_text(f, where, (struct json_chars){other, 1}, e);
}

/* --- all of it --- */

/* Swaps stand in the order of the document, so members are taken as they come. change: of the content,
 * or NULL. */
static MUST fit_message(struct chat_fit *f, const struct json_value *m,
                        bool (*change)(struct chat_fit *, const struct json_value *, struct err *),
                        unsigned form, struct err *e) {
    const struct json_value *v, *content = change ? json_find(m, "content") : NULL;
    struct json_iter at;
    struct json_chars key = {0};
    bool ok = true;
    for (json_members(&at, m); ok && json_next(&at, &key, &v);) {
        if (is_key(key, "tool_calls")) ok = fit_calls(f, v, form, e);
        if (v == content) ok = change(f, m, e);
    }
    return ok;
}

MUST chat_fit(struct chat_fit *f, const struct json_value *messages, unsigned form, size_t at,
              struct err *e) {
    const struct json_value *m, *user;
    struct json_iter it;
    bool is_merged = form & CHAT_MERGED;
    *f = (struct chat_fit){.left = CHAT_ARGUMENTS};
    if (!find_system(f, messages, is_merged ? at : 0, &user, e)) return false;
    bool is_ahead = user;
    size_t n = 0;  // system messages so far
    for (json_members(&it, messages); json_next(&it, NULL, &m);) {
        is_ahead = is_ahead && m != user;
        if (is_merged && is_ahead && n >= at && has_role(m, "system")) {
            if (!add_swap(f, m, NULL, e)) return false;
            continue;
        }
        bool is_system = is_ahead && has_system(m);
        bool is_altered = is_system && form & CHAT_ALTERED && n == at;
        bool takes_system = is_merged && m == user;
        n += is_system;
        if (!fit_message(f, m, takes_system ? merge : is_altered ? alter : NULL, form, e)) {
            return false;
        }
    }
    return true;
}

void chat_fit_free(struct chat_fit *f) {
    for (size_t i = 0; i < f->n; i++) json_free(f->doc[i]);
    free(f->swap);
    free(f->doc);
    free(f->system);
    *f = (struct chat_fit){0};
}
