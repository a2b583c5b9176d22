/* chat_parts.h - the contents of messages that many templates do not take: OpenAI's lists of parts, texts
 * where lists are wanted, and none beside the calls of an assistant. Such messages are written anew, as a
 * document of their own.
 *
 * A part is an object with a type or a text. What tools return may be a list of other things, which is
 * the template's to print. Threads: any.
 */
#ifndef MODEL_CHAT_PARTS_H
#define MODEL_CHAT_PARTS_H

#include "base/json.h"

enum { CHAT_MARK = 24 };  // bytes of what marks begin with

/* What there is in the messages. */
struct chat_parts {
    size_t n_list;           // contents that are lists of parts
    size_t n_plain;          // and that are a text
    size_t n_user;           // texts of users that say something, in parts or not
    size_t n_text;           // these, and those in parts of others
    size_t n_bare;           // assistants with calls and no content, or null
    size_t odd;              // the first message, from 1, with a part that is no text; 0: none has
    struct json_chars kind;  // its type
    char mark[CHAT_MARK];    // what the marks of CHAT_MARKED begin with
};

enum chat_cast {
    CHAT_PLAINLY = 0,
    CHAT_JOINED =
        1 << 0,  // lists of parts are one text, a part a line; what is no text is left out
    CHAT_FILLED = 1 << 1,  // no content is an empty one
    CHAT_NULLED = 1 << 2,  // it is null
    CHAT_LISTED = 1 << 3,  // a text is a list of one part
    CHAT_MARKED = 1 << 4,  // those texts are marks to be looked for, and parts have one, too
};

bool chat_is_blank(struct json_chars c);
bool chat_is_word(struct json_chars c, const char *word);
bool chat_has_role(const struct json_value *m, const char *role);

void chat_parts(struct chat_parts *p, const struct json_value *messages);

/* Chooses marks that are neither in the messages nor in the prompt that was made of them. Fails: ERR_MEMORY. */
MUST chat_mark(struct chat_parts *p, const struct json_value *messages, const char *prompt,
               size_t len, struct err *e);

/* messages: a list of objects, of which parts tells; with CHAT_MARKED after chat_mark(). *d is owned. Fails: ERR_MEMORY. */
MUST chat_cast(struct json_doc **d, const struct json_value *messages, unsigned cast,
               const struct chat_parts *parts, struct err *e);

/* Texts that are not in a prompt. */
struct chat_unsaid {
    size_t n;         // all and one where it has parts with all their names
    bool is_printed;  // which is so
    bool has_user;    // one is a user's
};

/* Of a prompt that was made with CHAT_MARKED. Fails: ERR_MEMORY. */
MUST chat_unmarked(const struct chat_parts *p, const char *prompt, size_t len,
                   struct chat_unsaid *out, struct err *e);

#endif
