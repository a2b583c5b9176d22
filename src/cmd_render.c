/* cmd_render.c - a conversation as the model sees it. */
#include "model/chat.h"
#include "setup.h"
#include "verbs.h"

#include <stdlib.h>
#include <string.h>

enum { FILE_MOST = 64 << 20 };

struct render_conf {
    const char *tokenizer, *messages, *template, *tools;
    int think;
    bool is_bare, is_exact, is_json;
};

#define AT(field) offsetof(struct render_conf, field)
static const struct opt render_opt[] = {
    {"--messages", OPT_TEXT, AT(messages), "FILE.json",
     "the conversation: a list of messages, or an object with `messages`, `tools` and more "
     "variables; - for standard input",
     0, 0},
    TOKENIZER_OPTION(struct render_conf),
    {"--template", OPT_TEXT, AT(template), "FILE.jinja", "instead of the model's own", 0, 0},
    {"--tools", OPT_TEXT, AT(tools), "FILE.json", "the tools that the model may call", 0, 0},
    {"--no-generation-prompt", OPT_FLAG, AT(is_bare), NULL, "without the beginning of an answer", 0,
     0},
    {"--as-given", OPT_FLAG, AT(is_exact), NULL,
     "the messages reach the template as they are, also in forms that it does not take", 0, 0},
    {"--think", OPT_CHOICE, AT(think), "auto|on|off",
     "whether a thinking model thinks first (auto: as its template does)", 0, 0},
    {"--json", OPT_FLAG, AT(is_json), NULL, "one JSON object: text, ids, count", 0, 0},
};

/* What is read, to be freed. */
struct render_input {
    char *template;
    size_t template_len;
    struct json_doc *messages, *tools;
};

static MUST read_json(const char *path, struct json_doc **d, struct err *e) {
    char *text;
    size_t len;
    if (!verb_read_all(path, FILE_MOST, &text, &len, e)) return false;
    bool ok = json_read(d, text, len, FILE_MOST, e);
    free(text);
    return ok || err_in(e, path);
}

static MUST read_input(const struct render_conf *c, struct render_input *in, struct err *e) {
    if (!c->messages) {
        return err_set(e, ERR_USAGE,
                       "no conversation: give --messages FILE.json (- for standard input)");
    }
    if (!read_json(c->messages, &in->messages, e)) return false;
    if (c->tools && !read_json(c->tools, &in->tools, e)) return false;
    return !c->template ||
           verb_read_all(c->template, FILE_MOST, &in->template, &in->template_len, e);
}

static MUST print_json(const struct chat *chat, const struct chat_prompt *p, struct err *e) {
    size_t cap = chat_bound(p), n;
    int32_t *id = malloc(cap * sizeof *id);
    struct json j;
    if (!id) return err_set(e, ERR_MEMORY, "no memory for the ids of %zu bytes", p->text.len);
    bool ok = chat_encode(chat, p, id, cap, &n, e);
    if (ok) {
        json_file(&j, stdout);
        json_object(&j);
        json_key(&j, "text");
        json_string(&j, p->text.text, p->text.len);
        json_key(&j, "ids");
        json_array(&j);
        for (size_t i = 0; i < n; i++) json_i64(&j, id[i]);
        json_end(&j);
        json_put_u64(&j, "count", n);
        json_end(&j);
        json_line(&j);
    }
    free(id);
    return ok;
}

static MUST render_input(const struct render_conf *c, const struct setup *s,
                         const struct render_input *in, struct err *e) {
    const struct json_value *root = json_root(in->messages);
    bool is_object = json_kind(root) == JSON_OBJECT;
    struct chat_request r = {.messages = is_object ? json_find(root, "messages") : root,
                             .tools = in->tools   ? json_root(in->tools)
                                      : is_object ? json_member(root, "tools")
                                                  : NULL,
                             .extra = is_object ? root : NULL,
                             .add_generation_prompt = true,
                             .think = (enum chat_think)c->think,
                             .is_exact = c->is_exact};
    struct chat *chat = NULL;
    struct chat_prompt p = {0};
    if (is_object && !json_want_bool(root, "add_generation_prompt", &r.add_generation_prompt, e)) {
        return false;
    }
    r.add_generation_prompt = r.add_generation_prompt && !c->is_bare;
    if (!chat_open(&chat, &s->model, s->tok, in->template, in->template_len, e)) {
        return c->template ? err_in(e, c->template) : false;
    }
    if (chat_note(chat)) fprintf(stderr, "note      %s\n", chat_note(chat));
    bool ok = chat_render(chat, &r, &p, e);
    for (int i = 0; ok && i < CHAT_NOTES; i++) {
        const char *note = chat_prompt_note(&p, i);
        if (note) fprintf(stderr, "note      %s\n", note);
    }
    if (ok && c->is_json) {
        ok = print_json(chat, &p, e);
    } else if (ok) {
        fwrite(p.text.text, 1, p.text.len, stdout);
    }
    chat_prompt_free(&p);
    chat_close(chat);
    return ok;
}

static MUST render(void *conf, const char *path, struct setup *s, struct err *e) {
    const struct render_conf *c = conf;
    struct render_input in = {0};
    bool ok = setup_open(s, path, c->tokenizer, MODEL_VOCAB, e) && setup_tok(s, e) &&
              read_input(c, &in, e) && render_input(c, s, &in, e);
    free(in.template);
    if (in.messages) json_free(in.messages);
    if (in.tools) json_free(in.tools);
    return ok;
}

static int render_main(const struct verb *v, int argc, char **argv) {
    return verb_on_model(v, argc, argv, &(struct render_conf){0}, render);
}

const struct verb verb_render = {
    .name = "render",
    .usage = "[MODEL] --messages FILE.json [options]",
    .summary = "A conversation as the model sees it",
    .notes =
        "Control tokens come from the template alone; --json shows what the text is as tokens.\n",
    .opt = render_opt,
    .n_opt = sizeof render_opt / sizeof *render_opt,
    .max_word = 1,
    .run = render_main,
};
