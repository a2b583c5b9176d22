#include "model/chat.h"

#include "base/unicode.h"

#include <string.h>

/* A format as the texts around what people write. `marks` are in the template of every model of the
 * format, `not_mark` in none; tokens are the control tokens without which the texts mean nothing. */
struct chat_shape {
    const char *name;
    const char *marks[2];
    const char *not_mark;
    const char *tokens[3];
    const char *before_system, *after_system;  // with a system text
    const char *before_user, *after_user;
    const char *before_all;  // ahead of everything
    bool trim;               // white space around what people write is dropped
};

/* As the templates of Llama-2-chat, Llama-3-Instruct and the ChatML family render one turn. */
static const struct chat_shape shapes[] = {
    [CHAT_NONE] = {.name = "none"},
    [CHAT_LLAMA2] = {.name = "llama2",
                     .marks = {"[INST]", "<<SYS>>"},
                     .before_all = "[INST] ",
                     .before_system = "<<SYS>>\n",
                     .after_system = "\n<</SYS>>\n\n",
                     .before_user = "",
                     .after_user = " [/INST]",
                     .trim = true},
    [CHAT_LLAMA3] = {.name = "llama3",
                     .marks = {"<|start_header_id|>", "<|eot_id|>"},
                     .tokens = {"<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"},
                     .before_all = "",
                     .before_system = "<|start_header_id|>system<|end_header_id|>\n\n",
                     .after_system = "<|eot_id|>",
                     .before_user = "<|start_header_id|>user<|end_header_id|>\n\n",
                     .after_user = "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
                     .trim = true},
    [CHAT_CHATML] = {.name = "chatml",
                     .marks = {"<|im_start|>", "<|im_end|>"},
                     .not_mark = "<|im_sep|>",
                     .tokens = {"<|im_start|>", "<|im_end|>"},
                     .before_all = "",
                     .before_system = "<|im_start|>system\n",
                     .after_system = "<|im_end|>\n",
                     .before_user = "<|im_start|>user\n",
                     .after_user = "<|im_end|>\n<|im_start|>assistant\n"},
};

enum { N_SHAPE = sizeof shapes / sizeof *shapes, N_TOKEN = 3 };

static bool has(const char *template, const char *mark) {
    return mark && strstr(template, mark);
}

enum chat_format chat_detect(const struct model *m) {
    const char *tpl = m->chat_template ? m->chat_template : "";
    for (int f = CHAT_NONE + 1; f < N_SHAPE; f++) {
        const struct chat_shape *s = &shapes[f];
        if (has(tpl, s->marks[0]) && has(tpl, s->marks[1]) && !has(tpl, s->not_mark)) {
            return (enum chat_format)f;
        }
    }
    return CHAT_NONE;
}

const char *chat_name(enum chat_format f) {
    return (unsigned)f < N_SHAPE ? shapes[f].name : "none";
}

static struct tok_part fixed(const char *s) {
    return (struct tok_part){.text = s, .len = strlen(s)};
}

static struct tok_part written(const struct chat_shape *shape, const char *s) {
    size_t len = strlen(s);
    for (; shape->trim && len && ascii_is_space(*s); s++) len--;
    while (shape->trim && len && ascii_is_space(s[len - 1])) len--;
    return (struct tok_part){.text = s, .len = len, .plain = true};
}

static MUST check_tokens(const struct chat_shape *shape, const struct tok *t, struct err *e) {
    for (int i = 0; i < N_TOKEN && shape->tokens[i]; i++) {
        int32_t id = tok_find(t, shape->tokens[i], strlen(shape->tokens[i]));
        if (tok_is_special(t, id)) continue;
        return err_set(e, ERR_FORMAT, "the chat template is %s, but the vocabulary has no token %s",
                       shape->name, shape->tokens[i]);
    }
    return true;
}

MUST chat_encode(enum chat_format f, const struct tok *t, const char *system, const char *user,
                 int32_t *out, size_t cap, size_t *n, struct err *e) {
    struct tok_part part[7];
    size_t n_part = 0;
    *n = 0;
    if ((unsigned)f >= N_SHAPE) f = CHAT_NONE;
    const struct chat_shape *shape = &shapes[f];
    if (!check_tokens(shape, t, e)) return false;
    if (f == CHAT_NONE) {
        if (system) part[n_part++] = written(shape, system);
        if (system) part[n_part++] = fixed("\n\n");
        part[n_part++] = written(shape, user);
    } else {
        part[n_part++] = fixed(shape->before_all);
        if (system) part[n_part++] = fixed(shape->before_system);
        if (system) part[n_part++] = written(shape, system);
        if (system) part[n_part++] = fixed(shape->after_system);
        part[n_part++] = fixed(shape->before_user);
        part[n_part++] = written(shape, user);
        part[n_part++] = fixed(shape->after_user);
    }
    return tok_encode_parts(t, part, n_part, TOK_BOS, out, cap, n, e);
}
