/* golden_jinja PART FILE [CASES]: chat templates against what jinja2 made of them, for
 * golden_templates.pl. PART says how the file is laid out (see the functions); every case prints a line,
 * "ok NAME" or "not ok NAME: got .., want ..". Exit 3: a file that cannot be read. */
#include "golden_json.h"
#include "model/jinja.h"

#include <string.h>

enum { VARS = 256 };

struct vars {
    struct jinja_var var[VARS];
    char name[VARS][64];
    size_t n;
};

/* All members of an object as variables. */
static void add_all(struct vars *v, const struct json_value *o) {
    struct json_iter at;
    struct json_chars key;
    const struct json_value *item;
    for (json_members(&at, o); json_next(&at, &key, &item) && v->n < VARS;) {
        snprintf(v->name[v->n], sizeof v->name[0], "%.*s", (int)key.len, key.s);
        v->var[v->n] = (struct jinja_var){.name = v->name[v->n], .json = item};
        v->n++;
    }
}

static void add_one(struct vars *v, const char *name, const struct json_value *j) {
    if (!j || v->n == VARS) return;
    v->var[v->n++] = (struct jinja_var){.name = name, .json = j};
}

/* Renders and compares; want.s NULL: it must fail. */
static void check(const char *name, struct json_chars template, const struct vars *v, int64_t now,
                  struct json_chars want) {
    struct jinja *t = NULL;
    struct jinja_text out = {0};
    struct err e = {0};
    bool ok = jinja_compile(&t, template.s, template.len, &e) &&
              jinja_render(t, v->var, v->n, now, &out, &e);
    bool same = want.s ? ok && out.len == want.len && !memcmp(out.text, want.s, want.len) : !ok;
    printf("%s %s", same ? "ok" : "not ok", name);
    if (!same && !ok) printf(": %s", e.text);
    if (!same && ok && !want.s) show(": rendered, should fail:", out.text);
    if (!same && ok && want.s) show_parting(out.text, out.len, want.s, want.len);
    putchar('\n');
    jinja_text_free(&out);
    jinja_free(t);
}

/* FILE: {template, expected: {case: {output} or {error}}}; CASES: {now, defaults, cases}. */
static void rendered(const struct json_value *root, const struct json_value *cases) {
    struct json_iter at;
    struct json_chars key, none = {0}, template = text_at(root, "template");
    const struct json_value *item;
    for (json_members(&at, json_find(root, "expected")); json_next(&at, &key, &item);) {
        static struct vars v;
        char name[128];
        v.n = 0;
        snprintf(name, sizeof name, "%.*s", (int)key.len, key.s);
        add_all(&v, json_find(cases, "defaults"));
        add_all(&v, json_find(json_find(cases, "cases"), name));
        bool fails = !json_find(item, "output");
        check(name, template, &v, clock_of(text_at(cases, "now")),
              fails ? none : text_at(item, "output"));
    }
}

/* What a case must give: `expected`, or where jinja2 disagrees `jinja2`: a text ("ERR ..": a failure),
 * or {output} or {error}. */
static struct json_chars wanted(const struct json_value *c, const char *key) {
    struct json_chars none = {0};
    const struct json_value *j = json_find(c, "jinja2");
    bool agrees = true;
    struct err e;
    if (!json_want_bool(c, "jinja2_agrees", &agrees, &e) || !j ||
        (agrees && json_kind(j) != JSON_OBJECT))
        return text_at(c, key);
    if (json_kind(j) == JSON_OBJECT) return json_find(j, "output") ? text_at(j, "output") : none;
    struct json_chars text = text_at(c, "jinja2");
    return text.len >= 3 && !memcmp(text.s, "ERR", 3) ? none : text;
}

/* FILE: {clock, messages.., cases: [{name, template, data or context, expected.., jinja2}]}; errors
 * have neither: they must fail. */
static void listed(const struct json_value *root, const char *part) {
    struct json_iter at;
    const struct json_value *c;
    bool is_error = !strcmp(part, "errors"), is_llama = !strcmp(part, "llamacpp");
    for (json_members(&at, json_find(root, "cases")); json_next(&at, NULL, &c);) {
        static struct vars v;
        char name[160];
        struct json_chars none = {0}, called = text_at(c, "name");
        v.n = 0;
        snprintf(name, sizeof name, "%.*s", (int)called.len, called.s);
        add_all(&v, json_find(c, "data"));
        add_all(&v, json_find(c, "context"));
        if (is_llama) {
            static const char *const shared[] = {"messages", "add_generation_prompt"};
            for (int i = 0; i < 2; i++) add_one(&v, shared[i], json_find(root, shared[i]));
            struct json_chars bos = text_at(c, "bos_token"), eos = text_at(c, "eos_token");
            v.var[v.n++] = (struct jinja_var){.name = "bos_token", .text = bos};
            v.var[v.n++] = (struct jinja_var){.name = "eos_token", .text = eos};
        }
        check(name, text_at(c, "template"), &v, clock_of(text_at(root, "clock")),
              is_error ? none : wanted(c, is_llama ? "expected_jinja" : "expected"));
    }
}

int main(int argc, char **argv) {
    if (argc < 3) return 2;
    struct json_doc *d = read_file(argv[2]), *cases = argc > 3 ? read_file(argv[3]) : NULL;
    if (cases) {
        rendered(json_root(d), json_root(cases));
    } else {
        listed(json_root(d), argv[1]);
    }
    json_free(d);
    json_free(cases);
    return 0;
}
