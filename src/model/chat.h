/* chat.h - conversations as a model expects them: its own template rendered, and made tokens of.
 *
 * The template is the model's (tokenizer.chat_template, or for requests with tools .tool_use where there
 * is one) or one given instead. Without any, ChatML is used where the vocabulary has its tokens, and else
 * the texts go in as they are; chat_note() says so.
 * Templates differ about what they take. Arguments of tool calls may be given as an object or as its JSON
 * (OpenAI's form), and reach the template as an object unless it wants the JSON, or the JSON has whole
 * numbers that 64 bits do not hold. A developer's messages are the system's where the template refuses them
 * or leaves one out. System texts that it refuses begin the next user turn, or end the last; where it takes
 * the first, only the others. Where it leaves out one (of the first 16), so do that one and those behind it,
 * or all where it refuses that.
 * Where a template refuses or leaves out the texts of a content that is a list of parts, or prints the parts with
 * all their names, it gets them as one text, a part a line; other parts are refused then. Where it refuses
 * texts, or leaves out a user's, it gets every text as a list of one part, if it leaves out no user's then.
 * Calls without a content get an empty one where it refuses them, or null if it leaves them out beside that.
 * None of this is done to a request that is exact: a template gets it, and refuses or prints it, as with jinja2.
 * Control tokens come from the template, never from what people write: look-alikes in messages and
 * tools stay plain text (see jinja.h). Roles that everybody uses and the texts of the vocabulary's own
 * tokens count as the template's.
 *
 * Threads: read only after chat_open.
 */
#ifndef MODEL_CHAT_H
#define MODEL_CHAT_H

#include "model/jinja.h"
#include "model/reasoning.h"
#include "model/tok.h"

struct chat;

/* text NULL: the model's own template. m and t are borrowed. Fails: as jinja_compile; a tool_use that is
 * bad fails the requests with tools only. *c is owned; free with chat_close (NULL is fine). */
MUST chat_open(struct chat **c, const struct model *m, const struct tok *t, const char *text,
               size_t len, struct err *e);
void chat_close(struct chat *c);

enum chat_kind {
    CHAT_PLAIN,     // no format: texts as they are
    CHAT_FALLBACK,  // ChatML, because the vocabulary has its tokens
    CHAT_TEMPLATE,
};
enum chat_kind chat_kind(const struct chat *c);
/* A sentence for the user when there is no template, or NULL. */
const char *chat_note(const struct chat *c);
/* Which family of formats a model's template is of, for people: "llama3", "chatml", ..; "template" for
 * others, "none" without. Nothing hangs on it. */
const char *chat_family(const struct model *m);

enum chat_think { CHAT_THINK_AUTO, CHAT_THINK_ON, CHAT_THINK_OFF };

struct chat_request {
    const struct json_value *messages;  // a list of objects: role, content, ..
    const struct json_value *tools;     // a list, or NULL
    const struct json_value *extra;     // an object: more variables for the template, or NULL; not
                                        // its `messages` and `tools`
    bool add_generation_prompt;         // the model is to answer
    enum chat_think think;              // AUTO: as the template does by itself
    bool is_held;   // to a grammar, from the first token: AUTO is without thoughts then
    bool is_exact;  // the messages reach the template as they are
};

struct chat_prompt {
    struct jinja_text text;
    bool is_thinking;    // it ends inside a reasoning that the answer goes on with
    bool is_answering;   // it ends inside the answer, which nothing else can follow
    bool is_unswitched;  // the template knows thoughts, but not the switch that was asked for
    bool is_toolless;    // there are tools, but the template does not look at them
    bool is_merged;      // a system text stands in a user turn
    bool is_systemless;  // one is not in the prompt, as no user turn could take it
    bool is_resultless;  // nor is what tools returned
    bool is_callless;    // nor are calls of tools
    bool is_partial;     // a message has a part that is no text
    bool is_userless;    // what a user says is not in the prompt
};

/* Fails: ERR_FORMAT when messages are no such list, ERR_LIMIT when their tool calls have too long
 * arguments, ERR_UNSUPPORTED when a part is no text and the template takes no parts, or as jinja_render; as jinja_compile when there are tools and tool_use is bad. Free with chat_prompt_free. */
MUST chat_render(const struct chat *c, const struct chat_request *r, struct chat_prompt *out,
                 struct err *e);
void chat_prompt_free(struct chat_prompt *p);
/* Sentence i for the user, of what a prompt is otherwise than was asked for, or NULL. */
enum { CHAT_NOTES = 8 };
const char *chat_prompt_note(const struct chat_prompt *p, int i);

/* Tokens of a rendered prompt; BOS once, if the vocabulary asks for it or the template has it.
 * Fails: as tok_encode_parts. */
MUST chat_encode(const struct chat *c, const struct chat_prompt *p, int32_t *out, size_t cap,
                 size_t *n, struct err *e);
/* Room that is enough for chat_encode. */
size_t chat_bound(const struct chat_prompt *p);

/* A splitter for the answer to a prompt. With has_controls the answer's control tokens must be part of
 * the text that it is given. */
void chat_split(const struct chat *c, const struct chat_prompt *p, struct reasoning *out);
bool chat_has_controls(const struct chat *c);

/* One user turn, system may be NULL: the two texts as a messages list, malloc'ed JSON. NULL: no
 * memory. Bytes that are not UTF-8 become U+FFFD. */
char *chat_turn(const char *system, const char *user, size_t user_len, size_t *len);

#endif
