/* chat.h - chat formats by name, until templates are interpreted: llama2, llama3, chatml.
 *
 * The format is recognised by marks in the model's own template. A model without a template, or with
 * one of another kind, has CHAT_NONE: the prompt goes in as it is, and `run` says so. */
#ifndef MODEL_CHAT_H
#define MODEL_CHAT_H

#include "model/tok.h"

enum chat_format { CHAT_NONE, CHAT_LLAMA2, CHAT_LLAMA3, CHAT_CHATML };

enum chat_format chat_detect(const struct model *m);
const char *chat_name(enum chat_format f);

/* Tokens of one user turn (system may be NULL), ready for the model to answer: control tokens come
 * from the format, never from the user's text, whose look-alikes stay plain text. BOS as the
 * vocabulary asks. Fails: as tok_encode; ERR_FORMAT when the vocabulary lacks the format's tokens. */
MUST chat_encode(enum chat_format f, const struct tok *t, const char *system, const char *user,
                 int32_t *out, size_t cap, size_t *n, struct err *e);

#endif
