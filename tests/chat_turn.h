/* chat_turn.h - what the tests of conversations share: one rendered and encoded, and looked at. */
#ifndef CHAT_TURN_H
#define CHAT_TURN_H

#include "model/chat.h"
#include "tap.h"
#include "toy_vocab.h"

#include <string.h>

enum { CAP = 1024 };

struct turn {
    struct json_doc *doc, *more, *tools;
    struct chat *chat;
    struct chat_prompt prompt;
    int32_t id[CAP];
    size_t n;
    struct err err;
};

/* For requests with tools: the model's own template for them, and the tools. */
static const char *tool_template, *tools;
static bool is_held;  // by a grammar

/* messages and extra are JSON; the template NULL: none. */
static inline bool take(struct turn *u, const struct toy *y, const struct tok *t,
                        const char *template, const char *messages, const char *extra,
                        enum chat_think think) {
    static const struct model_file file = {.path = "/a/folder/x.gguf"};
    struct model m = {.chat_template = template,
                      .tool_template = tool_template,
                      .vocab = y->v,
                      .file = &file,
                      .n_file = 1};
    struct chat_request r = {.add_generation_prompt = true, .think = think, .is_held = is_held};
    *u = (struct turn){0};
    if (!json_read(&u->doc, messages, strlen(messages), 8 << 20, &u->err)) return false;
    if (extra && !json_read(&u->more, extra, strlen(extra), 1 << 20, &u->err)) return false;
    if (tools && !json_read(&u->tools, tools, strlen(tools), 1 << 20, &u->err)) return false;
    r.messages = json_root(u->doc);
    r.tools = u->tools ? json_root(u->tools) : NULL;
    r.extra = u->more ? json_root(u->more) : NULL;
    return chat_open(&u->chat, &m, t, NULL, 0, &u->err) &&
           chat_render(u->chat, &r, &u->prompt, &u->err) &&
           chat_encode(u->chat, &u->prompt, u->id, CAP, &u->n, &u->err);
}

static inline void drop(struct turn *u) {
    chat_prompt_free(&u->prompt);
    chat_close(u->chat);
    json_free(u->doc);
    json_free(u->more);
    json_free(u->tools);
}

static inline bool is_text(const struct turn *u, const char *want) {
    return u->prompt.text.text && !strcmp(u->prompt.text.text, want);
}

static inline int count(const struct turn *u, const struct tok *t, const char *name) {
    int k = 0;
    for (size_t i = 0; i < u->n; i++) k += u->id[i] == tok_find(t, name, strlen(name));
    return k;
}

#endif
