/* jinja.h - chat templates: an interpreter of the Jinja language, as jinja2 3.1 understands it.
 *
 * A template is compiled once and rendered with variables taken from JSON. Set up as models expect:
 * trim_blocks, lstrip_blocks, break and continue, `generation` blocks, raise_exception, strftime_now;
 * tojson keeps keys in their order and leaves characters as they are. Numbers, lists and None print as
 * Python prints them. Left out, and refused by name: import, include, extends, trans,
 * autoescape (but for false).
 *
 * Each byte of the text knows where it came from. Strings out of the variables are data, unless the
 * variable is trusted; what the template itself spells is not. Marks follow the bytes through every
 * filter and method, so that the tokenizer can take control tokens from the template alone.
 *
 * Templates come from strangers, and so does what is filled in: all is bounded by the limits below, a
 * failure is one sentence with the line of the template. Threads: a compiled template is read only.
 *
 * Source: the jinja2 template designer documentation; behaviour compared with jinja2 3.1.6.
 */
#ifndef MODEL_JINJA_H
#define MODEL_JINJA_H

#include "base/json.h"

enum {
    JINJA_SOURCE = 1 << 20,   // bytes of a template
    JINJA_NEST = 100,         // blocks, brackets and operators within each other
    JINJA_DEPTH = 500,        // expressions, blocks and macros under way at a time
    JINJA_VALUE_DEPTH = 100,  // lists in lists, as they are compared and printed
    JINJA_RANGE = 100000,     // items of range()
    JINJA_STEPS = 20 << 20,   // nodes evaluated, and what else takes about as long
    JINJA_MEMORY = 64 << 20,  // bytes of values, for compiling and for rendering
    JINJA_OUTPUT = 16 << 20,  // bytes of the text
};

struct jinja;

/* Fails: ERR_FORMAT with the line; ERR_UNSUPPORTED for a statement that is left out; ERR_LIMIT,
 * ERR_MEMORY. *t is owned; free with jinja_free (NULL is fine). */
MUST jinja_compile(struct jinja **t, const char *text, size_t len, struct err *e);
void jinja_free(struct jinja *t);

/* Within a variable's JSON: what the template sees in the place of a value. by NULL: nothing, the item
 * is left out of its list. */
struct jinja_swap {
    const struct json_value *of, *by;
};

/* A variable: a value of a JSON document, or where that is NULL a text. Later ones replace earlier
 * ones of the same name; null is None. */
struct jinja_var {
    const char *name;
    const struct json_value *json;
    const struct jinja_swap *swap;  // [n_swap] in the order of the document
    size_t n_swap;
    struct json_chars text;
    bool is_trusted;  // its strings count as the template's own
};

/* Text of one origin. */
struct jinja_span {
    size_t at, len;
    bool is_data;
};

struct jinja_text {
    char *text;  // [len], NUL-terminated, owned
    size_t len;
    struct jinja_span *span;  // [n_span], owned: they cover the text, neighbours differ
    size_t n_span;
    size_t n_dict;   // dicts printed as Python prints them: hardly what a model was trained on
    uint64_t steps;  // of JINJA_STEPS that were taken, also by what failed
};

/* now: seconds since 1970 as the clock on the wall shows them, for strftime_now.
 * Fails: ERR_FORMAT where jinja2 raises anything; ERR_UNSUPPORTED where the template itself refuses
 * (raise_exception); ERR_LIMIT, ERR_MEMORY.
 * *out is freed with jinja_text_free, and empty after a failure, but for the steps. */
MUST jinja_render(const struct jinja *t, const struct jinja_var *var, size_t n_var, int64_t now,
                  struct jinja_text *out, struct err *e);
void jinja_text_free(struct jinja_text *out);

#endif
