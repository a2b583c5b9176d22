/* golden_chat FILE CASES: conversations as users get them rendered (model/chat.c), against what jinja2
 * made of them, for golden_templates.pl. FILE: {template, expected: {case: {output} or {error}}}; CASES:
 * {now, defaults, cases}. Every case prints a line, "ok NAME" or "not ok NAME: ..". Exit 3: a file that
 * cannot be read.
 *
 * A prompt must be jinja2's. Where it is another one, and says so, it must have reason to: a system text
 * stands in a user's turn only where jinja2's prompt has none of it, or there is none; arguments of calls are
 * JSON only where jinja2 fails on the object, or prints it as Python does. OpenAI's other forms are tried,
 * too, and must give the same: calls with arguments as a text, contents as a list of one part. */
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

static bool is_part(const char *s, const char *text, char next) {
    return (s > text && isalnum((unsigned char)s[-1])) || isalnum((unsigned char)next);
}

/* words: not as a part of longer ones. */
static bool has(const char *text, struct json_chars what, bool words) {
    while (what.len && strchr(" \t\r\n", *what.s)) what.s++, what.len--;
    while (what.len && strchr(" \t\r\n", what.s[what.len - 1])) what.len--;
    const char *s = text, *end = text + strlen(text);
    while (what.len && (s = memmem(s, (size_t)(end - s), what.s, what.len)) && words &&
           is_part(s, text, s[what.len])) {
        s++;
    }
    return s;
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
        bool has_texts =
            has_all(text, messages, "system", false) && has_all(text, messages, "user", false);
        bool is_kept = want.s && has_all(want.s, messages, "system", true);
        if (!has_texts) return "a text is not in it";
        return is_kept ? "jinja2 has the system text" : NULL;
    }
    if (want.s && !strstr(want.s, "{'")) return "another prompt";
    if (!has_calls(messages)) return "it should fail";
    return strstr(text, "{\"") || strstr(text, "{\\\"") ? NULL : "no arguments";
}

static const char parts_form[] = " (parts)";

/* A template may write a list otherwise than a text, but must say the same. */
static bool is_said(const char *prompt, const struct json_value *messages, const char *want) {
    struct json_iter at;
    const struct json_value *m;
    if (strstr(prompt, "'type': 'text'") || strstr(prompt, "\"type\": \"text\"")) return false;
    for (json_members(&at, messages); json_next(&at, NULL, &m);) {
        struct json_chars text = text_at(m, "content");
        if (has(want, text, true) && !has(prompt, text, true)) return false;
    }
    return true;
}

/* messages: as they were given to jinja2. */
static void check(const char *name, const char *form, const struct chat *chat,
                  const struct chat_request *r, const struct json_value *messages,
                  struct json_chars want, const struct err *why) {
    struct chat_prompt p = {0};
    struct err e = why ? *why : (struct err){0};
    bool ok = chat && chat_render(chat, r, &p, &e);
    const struct jinja_text *t = &p.text;
    const char *wrong = NULL, *other = "";
    if (!ok) {
        wrong = want.s ? e.text : NULL;
    } else if (!want.s || t->len != want.len || memcmp(t->text, want.s, want.len) != 0) {
        wrong = fault(&p, messages, want);
        other = p.is_merged ? ", system text merged" : ", arguments as JSON";
        if (wrong && !strcmp(form, parts_form) && want.s && is_said(t->text, messages, want.s)) {
            wrong = NULL;
            other = ", written otherwise";
        }
    }
    printf("%s %s%s%s", wrong ? "not ok" : "ok", name, form, wrong ? "" : other);
    if (wrong) printf(": %s", wrong);
    if (wrong && ok && want.s) show_parting(t->text, t->len, want.s, want.len);
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

/* A message with its content, if it has any, as a list of one part. */
static void put_parts(FILE *to, const struct json_value *m) {
    struct json_iter at;
    struct json_chars key;
    const struct json_value *item;
    bool is_more = false;
    for (json_members(&at, m); json_next(&at, &key, &item); is_more = true) {
        char *value;
        size_t len;
        struct err e;
        struct json_chars said = {0};
        bool is_content = !strcmp(key.s, "content") && json_chars_of(item, &said) && said.len;
        if (!json_print(item, &value, &len, &e)) exit(3);
        fprintf(to, "%s\"%s\":", is_more ? "," : "", key.s);
        fprintf(to, is_content ? "[{\"type\":\"text\",\"text\":%s}]" : "%s", value);
        free(value);
    }
}

static struct json_doc *with_parts(const struct json_value *messages) {
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
        fputs(is_more ? ",{" : "{", to);
        put_parts(to, m);
        fputc('}', to);
    }
    fputc(']', to);
    if (fclose(to) != 0 || !json_read(&d, text, len, FILE_MOST, &e)) exit(3);
    free(text);
    return d;
}

static void check_case(const char *name, const struct chat *chat, const struct json_value *vars,
                       struct json_chars want, const struct err *why) {
    struct chat_request r = {.messages = json_find(vars, "messages"),
                             .tools = json_member(vars, "tools"),
                             .extra = vars,
                             .add_generation_prompt = false};
    const struct json_value *given = r.messages;
    struct err e;
    if (!json_want_bool(vars, "add_generation_prompt", &r.add_generation_prompt, &e)) exit(3);
    check(name, "", chat, &r, given, want, why);
    struct json_doc *parts = with_parts(given), *texts = with_texts(given);
    if (texts) {
        r.messages = json_root(texts);
        check(name, " (texts)", chat, &r, given, want, why);
    }
    r.messages = json_root(parts);
    check(name, parts_form, chat, &r, given, want, why);
    json_free(texts);
    json_free(parts);
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
