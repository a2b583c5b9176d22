/* sampling_json.h - how a request wants its tokens chosen: OpenAI's fields and llama.cpp's. */
#ifndef FRONT_SAMPLING_JSON_H
#define FRONT_SAMPLING_JSON_H

#include "base/json.h"
#include "model/grammar.h"
#include "model/sampler.h"

/* From the body of a request. A seed of -1 or none is drawn. Fails: ERR_FORMAT, ERR_USAGE, ERR_LIMIT
 * naming the field. */
MUST sampling_read(const struct json_value *root, struct sampler *s, struct err *e);

/* The grammar of "grammar", "json_schema" or "response_format", compiled once to see that it can be: its
 * text is owned, NULL for GRAMMAR_NONE. note [GRAMMAR_NOTE]: its grammar_note(), or "".
 * Fails: ERR_FORMAT, ERR_UNSUPPORTED, ERR_LIMIT, ERR_MEMORY. */
MUST grammar_read(const struct json_value *root, enum grammar_kind *kind, char **text, size_t *len,
                  char *note, struct err *e);

#endif
