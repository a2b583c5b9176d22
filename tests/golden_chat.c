/* golden_chat FILE CASES: conversations as users get them rendered (model/chat.c), against what jinja2
 * made of them, for golden_templates.pl. FILE: {template, expected: {case: {output} or {error}}}; CASES:
 * {now, defaults, cases}. Every case prints a line, "ok NAME" or "not ok NAME: ..". Exit 3: a file that
 * cannot be read.
 *
 * With the messages as they are given, a prompt must be jinja2's to the byte. As users get it, too, but for
 * what it has reason to: a system text stands in a user's turn only where jinja2's prompt has none of it, or
 * there is none; arguments of calls are JSON only where jinja2 fails on the object, or prints it as Python
 * does. OpenAI's other forms are tried, too, and must give the same: calls with arguments as a text, contents
 * as a list of one part. Texts are such lists only where jinja2 fails on texts or loses a user's, and give then
 * what the template makes of the lists.
 * Messages that are given in such forms, which many templates print as Python's lists, leave out or refuse,
 * must give what the template makes of them in the plain form, or say as much. */
#include "golden_json.h"
#include "model/chat.h"
#include "toy_vocab.h"

#include <ctype.h>

static time_t now;

/* The libc's stands back: prompts with a date want the day on which jinja2 rendered them. */
time_t time(time_t *t) {
    if (t) *t = now;
    return now;
}

static struct toy toy;
static struct tok *tok;

/* Whether a text at s is a part of a longer word. */
static bool is_part(const char *s, const char *all, struct json_chars what) {
    unsigned char before = s > all ? (unsigned char)s[-1] : ' ', next = (unsigned char)s[what.len];
    return (isalnum((unsigned char)*s) && isalnum(before)) ||
           (isalnum((unsigned char)s[what.len - 1]) && isalnum(next));
}

enum { LEAST = 3 };  // bytes of a word that does not stand in a prompt by chance

static struct json_chars trimmed(struct json_chars what) {
    while (what.len && strchr(" \t\r\n", *what.s)) what.s++, what.len--;
    while (what.len && strchr(" \t\r\n", what.s[what.len - 1])) what.len--;
    return what;
}

/* Where it stands from s on; words: not as a part of longer ones. */
static const char *find(const char *all, const char *s, struct json_chars what, bool words) {
    const char *end = all + strlen(all);
    while ((s = memmem(s, (size_t)(end - s), what.s, what.len)) && words && is_part(s, all, what)) {
        s++;
    }
    return s;
}

static bool has(const char *text, struct json_chars what, bool words) {
    what = trimmed(what);
    if (words && what.len < LEAST) return false;
    return !what.len || find(text, text, what, words);
}

/* Whether the texts of that role are all in the prompt. */
static bool has_all(const char *prompt, const struct json_value *messages, const char *role,
                    bool words) {
    struct json_iter at;
    const struct json_value *m;
    bool all = true;
    for (json_members(&at, messages); json_next(&at, NULL, &m);) {
        if (strcmp(text_at(m, "role").s, role) != 0) continue;
        all = all && has(prompt, text_at(m, "content"), words);
    }
    return all;
}

static bool has_calls(const struct json_value *messages) {
    struct json_iter at;
    const struct json_value *m;
    bool any = false;
    for (json_members(&at, messages); json_next(&at, NULL, &m);) {
        any = any || json_find(m, "tool_calls");
    }
    return any;
}

/* Why a prompt that is not jinja2's is wrong; NULL: it is right. */
static const char *fault(const struct chat_prompt *p, const struct json_value *messages,
                         struct json_chars want) {
    const char *text = p->text.text;
    if (p->is_merged) {
        bool takes_texts = !want.s || has_all(want.s, messages, "user", false);
        bool has_texts = has_all(text, messages, "system", false) &&
                         (!takes_texts || has_all(text, messages, "user", false));
        bool has_system = want.s && has_all(want.s, messages, "system", true);
        if (!has_texts) return "a text is not in it";
        return has_system ? "jinja2 has the system text" : NULL;
    }
    if (want.s && !strstr(want.s, "{'")) return "another prompt";
    if (!has_calls(messages)) return "it should fail";
    bool has_arguments = strstr(text, "{\"") || strstr(text, "{\\\"") || strstr(text, "{}");
    return has_arguments || p->is_callless ? NULL : "no arguments";
}

/* --- the plain form of messages --- */

static void print(FILE *to, const struct json_value *v) {
    char *text;
    size_t len;
    struct err e;
    if (!json_print(v, &text, &len, &e)) exit(3);
    fwrite(text, 1, len, to);
    free(text);
}

static bool is_parts(const struct json_value *content) {
    struct json_iter at;
    const struct json_value *part;
    bool all = json_kind(content) == JSON_ARRAY;
    for (json_members(&at, all ? content : NULL); json_next(&at, NULL, &part);) {
        all = all && json_kind(part) == JSON_OBJECT;
    }
    return all;
}

/* A list of parts as one text, a part a line; nothing, or null, as an empty one. */
static void put_content(FILE *to, const struct json_value *content) {
    static char joined[1 << 20];
    struct json_iter at;
    const struct json_value *part;
    struct json_chars text;
    struct json j;
    size_t n = 0;
    bool is_list = is_parts(content);
    if (content && !is_list && json_kind(content) != JSON_NULL) {
        print(to, content);
        return;
    }
    for (json_members(&at, is_list ? content : NULL); json_next(&at, NULL, &part);) {
        if (!json_chars_of(json_find(part, "text"), &text)) continue;
        if (n + text.len + 1 >= sizeof joined) exit(3);
        if (n) joined[n++] = '\n';
        memcpy(joined + n, text.s, text.len);
        n += text.len;
    }
    json_file(&j, to);
    json_string(&j, joined, n);
}

/* Arguments that are JSON of an object as that object, wherever they stand. */
static void put_plain(FILE *to, const struct json_value *v) {
    struct json_iter at;
    struct json_chars key, text;
    const struct json_value *item;
    struct json_doc *d = NULL;
    struct err e;
    char end = json_kind(v) == JSON_OBJECT ? '}' : ']';
    bool is_more = false;
    if (json_kind(v) != JSON_OBJECT && json_kind(v) != JSON_ARRAY) {
        print(to, v);
        return;
    }
    fputc(end == '}' ? '{' : '[', to);
    for (json_members(&at, v); json_next(&at, &key, &item); is_more = true) {
        struct json j;
        if (is_more) fputc(',', to);
        if (end == '}') {
            json_file(&j, to);
            json_string(&j, key.s, key.len);
            fputc(':', to);
        }
        bool is_text = end == '}' && !strcmp(key.s, "arguments") && json_chars_of(item, &text);
        if (is_text && json_read(&d, text.s, text.len, FILE_MOST, &e) &&
            json_kind(json_root(d)) == JSON_OBJECT) {
            fwrite(text.s, 1, text.len, to);
        } else {
            put_plain(to, item);
        }
        json_free(d);
        d = NULL;
    }
    fputc(end, to);
}

static void put_plain_message(FILE *to, const struct json_value *m) {
    struct json_iter at;
    struct json_chars key;
    const struct json_value *item;
    fputs("{\"content\":", to);
    put_content(to, json_find(m, "content"));
    for (json_members(&at, m); json_next(&at, &key, &item);) {
        bool is_developer = !strcmp(key.s, "role") && !strcmp(text_at(m, "role").s, "developer");
        struct json j;
        if (!strcmp(key.s, "content")) continue;
        fputc(',', to);
        json_file(&j, to);
        json_string(&j, key.s, key.len);
        fputc(':', to);
        if (is_developer) {
            fputs("\"system\"", to);
        } else {
            put_plain(to, item);
        }
    }
    fputc('}', to);
}

/* The messages as put() writes each. */
static struct json_doc *written_anew(const struct json_value *messages,
                                     void (*put)(FILE *to, const struct json_value *m)) {
    struct json_iter at;
    const struct json_value *m;
    char *text = NULL;
    size_t len = 0;
    struct json_doc *d = NULL;
    struct err e;
    bool is_more = false;
    FILE *to = open_memstream(&text, &len);
    if (!to) exit(3);
    fputc('[', to);
    for (json_members(&at, messages); json_next(&at, NULL, &m); is_more = true) {
        if (is_more) fputc(',', to);
        put(to, m);
    }
    fputc(']', to);
    if (fclose(to) != 0 || !json_read(&d, text, len, FILE_MOST, &e)) exit(3);
    free(text);
    return d;
}

/* Whether a call has arguments as a text. */
static bool has_text_arguments(const struct json_value *m) {
    struct json_iter at;
    const struct json_value *call;
    struct json_chars text;
    bool any = false;
    for (json_members(&at, json_find(m, "tool_calls")); json_next(&at, NULL, &call);) {
        const struct json_value *f = json_find(call, "function");
        any = any || json_chars_of(json_find(f ? f : call, "arguments"), &text);
    }
    return any;
}

/* Whether messages are in a form that not every template takes. */
static bool is_odd(const struct json_value *messages) {
    struct json_iter at;
    const struct json_value *m;
    bool any = false;
    for (json_members(&at, messages); json_next(&at, NULL, &m);) {
        any = any || json_kind(json_find(m, "content")) != JSON_STRING ||
              !strcmp(text_at(m, "role").s, "developer") || has_text_arguments(m);
    }
    return any;
}

static const char parts_form[] = " (parts)";

/* A case, and what jinja2 made of it. */
struct given {
    const struct json_value *messages;
    const struct json_doc *plain;  // the messages in the form that every template takes
    struct json_chars want;        // .s NULL: it fails
    /* Of the plain ones, and of these with texts as lists of one part; .text NULL: the template fails, or there
     * are none. */
    const struct jinja_text *ref, *listed;
};

/* How a prompt compares with another one that says the same. */
struct said {
    const char *prompt, *want;
    const char *tail, *want_tail;  // behind the last of the texts so far
    bool is_less, is_more;         // the prompt has a text less, or more often
};

/* Counts a text, and moves the tail behind its last place. */
static size_t count(const char *all, struct json_chars text, bool words, const char **tail) {
    size_t n = 0;
    for (const char *s = all; (s = find(all, s, text, words)); n++) {
        s += text.len;
        if (s > *tail) *tail = s;
    }
    return n;
}

static void must_keep(struct said *s, struct json_chars text, bool words) {
    text = trimmed(text);
    if (!text.len) return;
    size_t n = count(s->prompt, text, words, &s->tail);
    size_t n_want = count(s->want, text, words, &s->want_tail);
    s->is_less = s->is_less || n < n_want;
    s->is_more = s->is_more || n > n_want;
}

/* All names, texts and numbers. */
static void must_keep_value(struct said *s, const struct json_value *v) {
    struct json_iter at;
    struct json_chars key = {0}, text;
    const struct json_value *item;
    bool is_list = json_kind(v) == JSON_ARRAY || json_kind(v) == JSON_OBJECT;
    for (json_members(&at, is_list ? v : NULL); json_next(&at, &key, &item);) {
        if (json_kind(v) == JSON_OBJECT) must_keep(s, key, true);
        must_keep_value(s, item);
    }
    if (json_chars_of(v, &text)) must_keep(s, text, true);
    if (json_kind(v) != JSON_NUMBER) return;
    char *number;
    struct err e;
    if (!json_print(v, &number, &text.len, &e)) exit(3);
    must_keep(s, (struct json_chars){number, text.len}, true);
    free(number);
}

/* Parts may stand without a space between them. */
static void must_keep_content(struct said *s, const struct json_value *content) {
    struct json_iter at;
    struct json_chars text;
    const struct json_value *part;
    bool is_list = json_kind(content) == JSON_ARRAY;
    if (json_chars_of(content, &text)) must_keep(s, text, true);
    for (json_members(&at, is_list ? content : NULL); json_next(&at, NULL, &part);) {
        if (json_chars_of(json_find(part, "text"), &text)) must_keep(s, text, false);
    }
}

static void must_keep_calls(struct said *s, const struct json_value *calls) {
    struct json_iter at;
    struct json_chars name;
    const struct json_value *call;
    for (json_members(&at, calls); json_next(&at, NULL, &call);) {
        const struct json_value *f = json_find(call, "function");
        if (!f) f = call;
        if (json_chars_of(json_find(f, "name"), &name)) must_keep(s, name, true);
        must_keep_value(s, json_find(f, "arguments"));
    }
}

static bool has_end(const char *text, const char *end) {
    size_t n = strlen(text), n_end = strlen(end);
    return n_end && n_end <= n && !strcmp(text + n - n_end, end);
}

/* Whether both end with the same. A text that only the prompt has is looked for in vain in the other one, whose
 * tail begins ahead of it then. */
static bool has_tail(const struct said *s) {
    const char *tail = s->tail + strspn(s->tail, " \t\r\n");
    if (has_end(s->prompt, s->want_tail)) return true;
    return s->is_more && *tail ? has_end(s->want_tail, tail) : !strcmp(s->tail, s->want_tail);
}

/* A template may write a list otherwise than a text, but must say the same, and end with the same. */
static bool is_said(const char *prompt, const struct given *g, const char *want) {
    struct said s = {.prompt = prompt, .want = want, .tail = prompt, .want_tail = want};
    struct json_iter at;
    const struct json_value *m;
    if (strstr(prompt, "'type': 'text'") || strstr(prompt, "\"type\": \"text\"")) return false;
    for (json_members(&at, g->messages); json_next(&at, NULL, &m);) {
        must_keep_content(&s, json_find(m, "content"));
    }
    for (json_members(&at, json_root(g->plain)); json_next(&at, NULL, &m);) {
        must_keep_calls(&s, json_find(m, "tool_calls"));
    }
    return !s.is_less && has_tail(&s);
}

static bool is_same(const struct jinja_text *t, const char *text, size_t len) {
    return text && t->len == len && !memcmp(t->text, text, len);
}

/* Why a prompt is wrong where the messages are not plain; NULL: it is right. */
static const char *odd_fault(const struct jinja_text *t, const struct given *g) {
    const struct jinja_text *ref = g->ref;
    if (!ref->text) return "the plain messages are refused";
    bool is_right = is_same(t, ref->text, ref->len) || is_said(t->text, g, ref->text);
    return is_right ? NULL : "another prompt than of plain messages";
}

static bool has_other_part(const struct json_value *messages) {
    struct json_iter at, in;
    struct json_chars text;
    const struct json_value *m, *part;
    bool any = false;
    for (json_members(&at, messages); json_next(&at, NULL, &m);) {
        const struct json_value *content = json_find(m, "content");
        bool has_parts = is_parts(content);
        for (json_members(&in, has_parts ? content : NULL); json_next(&in, NULL, &part);) {
            any = any || !json_chars_of(json_find(part, "text"), &text);
        }
    }
    return any;
}

/* There is nothing to say, or a part that the template cannot say. */
static bool may_refuse(const struct given *g, const struct err *e) {
    return !json_size(g->messages) || (has_other_part(g->messages) && e->code == ERR_UNSUPPORTED &&
                                       strstr(e->text, "part that is no text"));
}

/* Whether jinja2 gets no texts of users into its prompt. */
static bool is_deaf(const struct given *g) {
    return !g->want.s || !has_all(g->want.s, json_root(g->plain), "user", true);
}

/* What is wrong about a prompt that is another one than jinja2's; NULL: nothing, and *other says why. */
static const char *other_fault(const char *form, const struct chat_prompt *p, const struct given *g,
                               const char **other) {
    const char *wrong = fault(p, json_root(g->plain), g->want);
    *other = ", texts as lists";
    if (is_deaf(g) && is_same(&p->text, g->listed->text, g->listed->len)) return NULL;
    *other = p->is_merged ? ", system text merged" : ", arguments as JSON";
    if (!wrong || p->is_merged) return wrong;
    *other = ", written otherwise";
    bool may_differ = !strcmp(form, parts_form) && g->want.s;
    if (may_differ && is_said(p->text.text, g, g->want.s)) return NULL;
    return is_odd(g->messages) ? odd_fault(&p->text, g) : wrong;
}

static void tell(const char *name, const char *form, const char *wrong, const char *other) {
    printf("%s %s%s%s", wrong ? "not ok" : "ok", name, form, wrong ? "" : other);
    if (wrong) printf(": %s", wrong);
}

static void check(const char *name, const char *form, const struct chat *chat,
                  const struct chat_request *r, const struct given *g, const struct err *why) {
    struct chat_prompt p = {0};
    struct err e = why ? *why : (struct err){0};
    bool ok = chat && chat_render(chat, r, &p, &e);
    const struct jinja_text *t = &p.text;
    const char *wrong = NULL, *other = "";
    if (!ok) {
        wrong = g->want.s && !may_refuse(g, &e) ? e.text : NULL;
        other = g->want.s ? ", refused" : "";
    } else if (!is_same(t, g->want.s, g->want.len)) {
        wrong = other_fault(form, &p, g, &other);
    }
    tell(name, form, wrong, other);
    if (wrong && ok && g->want.s) show_parting(t->text, t->len, g->want.s, g->want.len);
    putchar('\n');
    chat_prompt_free(&p);
}

/* As given: jinja2's, or none. */
static void check_exact(const char *name, const struct chat *chat, struct chat_request r,
                        const struct given *g, const struct err *why) {
    struct chat_prompt p = {0};
    struct err e = why ? *why : (struct err){0};
    r.is_exact = true;
    bool ok = chat && chat_render(chat, &r, &p, &e);
    bool is_right = g->want.s ? ok && is_same(&p.text, g->want.s, g->want.len) : !ok;
    if (!json_size(g->messages)) is_right = !ok;
    tell(name, " (as given)", is_right ? NULL : ok ? "another prompt" : e.text, "");
    if (!is_right && ok && g->want.s) show_parting(p.text.text, p.text.len, g->want.s, g->want.len);
    putchar('\n');
    chat_prompt_free(&p);
}

/* o's members, which are names of variables, but for those that `but` has, too. */
static void put(FILE *to, const struct json_value *o, const struct json_value *but) {
    struct json_iter at;
    struct json_chars key;
    const struct json_value *item;
    for (json_members(&at, o); json_next(&at, &key, &item);) {
        char *value;
        size_t len;
        struct err e;
        if (json_member(but, key.s)) continue;
        if (!json_print(item, &value, &len, &e)) exit(3);
        fprintf(to, "%s\"%s\":%s", ftell(to) > 1 ? "," : "", key.s, value);
        free(value);
    }
}

/* A case's own members, and the defaults that it has none of, as one object. */
static struct json_doc *join(const struct json_value *own, const struct json_value *defaults) {
    char *text = NULL;
    size_t len = 0;
    struct json_doc *d = NULL;
    struct err e;
    FILE *to = open_memstream(&text, &len);
    if (!to) exit(3);
    fputc('{', to);
    put(to, own, NULL);
    put(to, defaults, own);
    fputc('}', to);
    if (fclose(to) != 0 || !json_read(&d, text, len, FILE_MOST, &e)) exit(3);
    free(text);
    return d;
}

/* The end of the JSON object that begins at s. */
static const char *object_end(const char *s) {
    int depth = 0;
    bool is_string = false;
    for (; *s; s++) {
        if (*s == '\\') {
            s += s[1] != '\0';
        } else if (*s == '"') {
            is_string = !is_string;
        } else if (!is_string) {
            depth += (*s == '{') - (*s == '}');
            if (!depth) return s + 1;
        }
    }
    return s;
}

/* The messages with arguments that are objects as texts; NULL: there are none. */
static struct json_doc *with_texts(const struct json_value *messages) {
    static const char mark[] = "\"arguments\":";
    char *text;
    size_t len;
    struct json_doc *d = NULL;
    struct err e;
    if (json_kind(messages) != JSON_ARRAY) return NULL;
    if (!json_print(messages, &text, &len, &e)) exit(3);
    char *out = malloc(2 * len + 1);
    struct json j;
    if (!out) exit(3);
    size_t n = 0;
    bool any = false;
    for (const char *s = text; *s;) {
        bool is_mark = !strncmp(s, mark, sizeof mark - 1) && s[sizeof mark - 1] == '{';
        out[n++] = *s++;
        if (!is_mark) continue;
        memcpy(out + n, s, sizeof mark - 2);
        n += sizeof mark - 2;
        s += sizeof mark - 2;
        const char *end = object_end(s);
        json_mem(&j, out + n, 2 * len + 1 - n);
        json_string(&j, s, (size_t)(end - s));
        n += j.len;
        s = end;
        any = true;
    }
    if (any && !json_read(&d, out, n, FILE_MOST, &e)) exit(3);
    free(out);
    free(text);
    return d;
}

/* A message with its content, if it is a text, as a list of one part. */
static void put_list(FILE *to, const struct json_value *m, bool also_empty) {
    struct json_iter at;
    struct json_chars key;
    const struct json_value *item;
    bool is_more = false;
    fputc('{', to);
    for (json_members(&at, m); json_next(&at, &key, &item); is_more = true) {
        char *value;
        size_t len;
        struct err e;
        struct json_chars said = {0};
        bool is_content = !strcmp(key.s, "content") && json_chars_of(item, &said);
        is_content = is_content && (said.len || also_empty);
        if (!json_print(item, &value, &len, &e)) exit(3);
        fprintf(to, "%s\"%s\":", is_more ? "," : "", key.s);
        fprintf(to, is_content ? "[{\"type\":\"text\",\"text\":%s}]" : "%s", value);
        free(value);
    }
    fputc('}', to);
}

static void put_parts(FILE *to, const struct json_value *m) {
    put_list(to, m, false);
}

static void put_lists(FILE *to, const struct json_value *m) {
    put_list(to, m, true);
}

static void check_case(const char *name, const struct chat *chat, const struct json_value *vars,
                       struct json_chars want, const struct err *why) {
    struct chat_request r = {.messages = json_find(vars, "messages"),
                             .tools = json_member(vars, "tools"),
                             .extra = vars,
                             .add_generation_prompt = false};
    struct json_doc *plain = written_anew(r.messages, put_plain_message);
    struct json_doc *lists = written_anew(json_root(plain), put_lists);
    struct chat_request exact;
    struct chat_prompt ref = {0}, listed = {0};
    struct given g = {.messages = r.messages,
                      .plain = plain,
                      .want = want,
                      .ref = &ref.text,
                      .listed = &listed.text};
    struct err e;
    if (!json_want_bool(vars, "add_generation_prompt", &r.add_generation_prompt, &e)) exit(3);
    exact = r;
    exact.is_exact = true;
    exact.messages = json_root(plain);
    if (chat && !chat_render(chat, &exact, &ref, &e)) ref = (struct chat_prompt){0};
    exact.messages = json_root(lists);
    if (chat && !chat_render(chat, &exact, &listed, &e)) listed = (struct chat_prompt){0};
    check(name, "", chat, &r, &g, why);
    check_exact(name, chat, r, &g, why);
    struct json_doc *parts = written_anew(g.messages, put_parts), *texts = with_texts(g.messages);
    if (texts) {
        r.messages = json_root(texts);
        check(name, " (texts)", chat, &r, &g, why);
    }
    r.messages = json_root(parts);
    check(name, parts_form, chat, &r, &g, why);
    chat_prompt_free(&ref);
    chat_prompt_free(&listed);
    json_free(texts);
    json_free(parts);
    json_free(lists);
    json_free(plain);
}

static void check_file(const struct json_value *root, const struct json_value *cases) {
    struct json_iter at;
    struct json_chars key, none = {0}, template = text_at(root, "template");
    const struct json_value *item;
    const struct model m = {.vocab = toy.v};
    struct chat *chat = NULL;
    struct err e = {0};
    bool ok = chat_open(&chat, &m, tok, template.s, template.len, &e);
    for (json_members(&at, json_find(root, "expected")); json_next(&at, &key, &item);) {
        char name[128];
        snprintf(name, sizeof name, "%.*s", (int)key.len, key.s);
        struct json_doc *vars =
            join(json_find(json_find(cases, "cases"), name), json_find(cases, "defaults"));
        check_case(name, chat, json_root(vars),
                   json_find(item, "output") ? text_at(item, "output") : none, ok ? NULL : &e);
        json_free(vars);
    }
    chat_close(chat);
}

int main(int argc, char **argv) {
    struct err e;
    if (argc != 3) return 2;
    struct json_doc *d = read_file(argv[1]), *cases = read_file(argv[2]);
    now = (time_t)clock_of(text_at(json_root(cases), "now"));
    if (setenv("TZ", "UTC0", 1) != 0) return 3;
    toy_bpe(&toy, "llama-bpe");
    if (!tok_open(&tok, &toy.v, &e)) return 3;
    check_file(json_root(d), json_root(cases));
    tok_close(tok);
    json_free(d);
    json_free(cases);
    return 0;
}
