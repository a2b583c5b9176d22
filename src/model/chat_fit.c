#include "model/chat_fit.h"

#include "model/chat_parts.h"

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
    f->facts.has_arguments = true;
    if (form & CHAT_OBJECTS) return add_swap(f, v, d, e);
    json_free(d);
    return true;
}

static MUST fit_object(struct chat_fit *f, const struct json_value *v, unsigned form,
                       struct err *e) {
    struct json_chars text = {0};
    char *owned;
    f->facts.has_arguments = true;
    if (!(form & CHAT_TEXTS)) return true;
    if (!json_print(v, &owned, &text.len, e)) return false;
    text.s = owned;
    bool ok = take_bytes(f, text.len, e) && swap_text(f, v, text, e);
    free(owned);
    return ok;
}

/* Of a function; CHAT_RECALLED: another one. */
static MUST fit_name(struct chat_fit *f, const struct json_value *v, unsigned form, struct err *e) {
    struct json_chars name = {0};
    if (!json_chars_of(v, &name)) return true;
    f->facts.has_calls = true;
    if (!(form & CHAT_RECALLED)) return true;
    const char *other = memchr(name.s, '0', name.len) ? "1" : "0";
    return swap_text(f, v, (struct json_chars){other, 1}, e);
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
        if (chat_is_word(key, "arguments")) {
            ok = json_kind(v) == JSON_OBJECT ? fit_object(f, v, form, e) : fit_text(f, v, form, e);
        } else if (chat_is_word(key, "name")) {
            ok = fit_name(f, v, form, e);
        } else if (!depth && chat_is_word(key, "function")) {
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

/* --- texts --- */

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

static bool has_text(const struct json_value *m) {
    const struct json_value *where;
    struct json_chars text = {0};
    return first_text(m, &where, &text) && !chat_is_blank(text);
}

/* OpenAI's name for who speaks before the user has changed. */
static bool is_system(const struct json_value *m) {
    return chat_has_role(m, "system") || chat_has_role(m, "developer");
}

static MUST add_text(struct chat_fit *f, struct json_chars text, struct err *e) {
    char *more = realloc(f->text, f->len + text.len + 3);
    if (!more) return no_memory(e);
    f->text = more;
    if (f->len) {
        memcpy(f->text + f->len, "\n\n", 2);
        f->len += 2;
    }
    memcpy(f->text + f->len, text.s, text.len);
    f->len += text.len;
    return true;
}

static MUST add_system(struct chat_fit *f, const struct json_value *m, struct err *e) {
    const struct json_value *content = json_find(m, "content"), *part, *where;
    struct json_iter i;
    struct json_chars text = {0};
    if (json_kind(content) != JSON_ARRAY) {
        return !part_text(content, &where, &text) || chat_is_blank(text) || add_text(f, text, e);
    }
    for (json_members(&i, content); json_next(&i, NULL, &part);) {
        if (part_text(part, &where, &text) && !chat_is_blank(text) && !add_text(f, text, e))
            return false;
    }
    return true;
}

/* One message after the other. */
struct walk {
    const struct chat_way *way;
    const struct json_value *messages;
    const struct json_value *last;  // user turn with a text
    size_t n_system;                // so far
};

static bool is_merged(const struct walk *w, const struct json_value *m, size_t n_system) {
    return w->way->form & CHAT_MERGED && w->last && n_system >= w->way->merged && is_system(m);
}

/* What stands behind the last user turn. */
static MUST add_rest(struct chat_fit *f, const struct walk *w, struct err *e) {
    const struct json_value *m;
    struct json_iter it;
    size_t n = w->n_system;
    bool is_behind = false;
    for (json_members(&it, w->messages); json_next(&it, NULL, &m);) {
        if (is_behind && is_merged(w, m, n) && !add_system(f, m, e)) return false;
        n += is_behind && is_system(m) && has_text(m);
        is_behind = is_behind || m == w->last;
    }
    return true;
}

/* The system texts that wait for a user turn, its own, and those that no other takes. */
static MUST merge(struct chat_fit *f, const struct json_value *user, const struct walk *w,
                  struct err *e) {
    const struct json_value *where;
    struct json_chars text = {0};
    if (!first_text(user, &where, &text)) return true;  // not as a user turn with a text
    size_t before = f->len;
    if (!add_text(f, text, e)) return false;
    size_t with = f->len;
    if (user == w->last && !add_rest(f, w, e)) return false;
    bool is_more = before || f->len > with;
    text = (struct json_chars){f->text, f->len};
    f->len = 0;
    return !is_more || swap_text(f, where, text, e);
}

/* A text that a template which looks at it makes something else of. */
static MUST alter(struct chat_fit *f, const struct json_value *m, const struct walk *w,
                  struct err *e) {
    const struct json_value *where;
    struct json_chars text = {0};
    (void)w;
    if (!first_text(m, &where, &text)) return true;  // not after has_text()
    const char *other = memchr(text.s, '0', text.len) ? "1" : "0";
    return swap_text(f, where, (struct json_chars){other, 1}, e);
}

/* --- all of it --- */

/* What becomes of a content; NULL: nothing. */
typedef bool change(struct chat_fit *f, const struct json_value *m, const struct walk *w,
                    struct err *e);

static change *change_of(const struct chat_fit *f, const struct json_value *m,
                         const struct walk *w) {
    unsigned form = w->way->form;
    const struct json_value *where;
    struct json_chars text;
    if (form & CHAT_ALTERED && is_system(m) && has_text(m) && w->n_system == w->way->altered) {
        return alter;
    }
    if (form & CHAT_RETOLD && chat_has_role(m, "tool") && has_text(m)) return alter;
    bool takes = form & CHAT_MERGED && chat_has_role(m, "user") && (f->len || m == w->last);
    return takes && first_text(m, &where, &text) ? merge : NULL;
}

/* Swaps stand in the order of the document, so members are taken as they come. */
static MUST fit_message(struct chat_fit *f, const struct json_value *m, const struct walk *w,
                        struct err *e) {
    change *to = change_of(f, m, w);
    const struct json_value *v, *content = to ? json_find(m, "content") : NULL;
    const struct json_value *role =
        w->way->form & CHAT_RENAMED && chat_has_role(m, "developer") ? json_find(m, "role") : NULL;
    struct json_iter at;
    struct json_chars key = {0};
    bool ok = true;
    for (json_members(&at, m); ok && json_next(&at, &key, &v);) {
        if (chat_is_word(key, "tool_calls")) ok = fit_calls(f, v, w->way->form, e);
        if (v == role) ok = swap_text(f, v, (struct json_chars){"system", 6}, e);
        if (v == content) ok = to(f, m, w, e);
    }
    return ok;
}

static const struct json_value *last_user(const struct json_value *messages) {
    const struct json_value *m, *where, *last = NULL;
    struct json_chars text;
    struct json_iter it;
    for (json_members(&it, messages); json_next(&it, NULL, &m);) {
        if (chat_has_role(m, "user") && first_text(m, &where, &text)) last = m;
    }
    return last;
}

MUST chat_fit(struct chat_fit *f, const struct json_value *messages, const struct chat_way *way,
              struct err *e) {
    const struct json_value *m;
    struct json_iter it;
    struct walk w = {.way = way, .messages = messages, .last = last_user(messages)};
    bool ok = true, is_behind = false;  // the last user turn
    *f = (struct chat_fit){.left = CHAT_ARGUMENTS, .facts.has_user = w.last};
    for (json_members(&it, messages); ok && json_next(&it, NULL, &m);) {
        if (is_merged(&w, m, w.n_system)) {
            ok = (is_behind || add_system(f, m, e)) && add_swap(f, m, NULL, e);
        } else {
            ok = fit_message(f, m, &w, e);
        }
        is_behind = is_behind || m == w.last;
        w.n_system += is_system(m) && has_text(m);
        f->facts.has_results = f->facts.has_results || (chat_has_role(m, "tool") && has_text(m));
        f->facts.has_developer = f->facts.has_developer || chat_has_role(m, "developer");
    }
    f->facts.n_system = w.n_system;
    return ok;
}

void chat_fit_free(struct chat_fit *f) {
    for (size_t i = 0; i < f->n; i++) json_free(f->doc[i]);
    free(f->swap);
    free(f->doc);
    free(f->text);
    *f = (struct chat_fit){0};
}
