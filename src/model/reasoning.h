/* reasoning.h - what a thinking model says to itself, told from its answer while both stream.
 *
 * Most models put tags around their reasoning, <think> and </think> or others; some prompts end with
 * the opening tag. gpt-oss speaks on channels (harmony): analysis is reasoning, final is the answer,
 * commentary to somebody is a call of a tool. Tags may be cut anywhere by the borders of tokens: what
 * may be the beginning of one is held back until it is known. White space around reasoning and before
 * the answer is dropped.
 *
 * A plain value without allocation. Threads: the owner's.
 */
#ifndef MODEL_REASONING_H
#define MODEL_REASONING_H

#include <stdbool.h>
#include <stddef.h>

enum reasoning_kind { REASONING_NONE, REASONING_TAGS, REASONING_HARMONY };

/* How a format marks it. open, close: static strings, for REASONING_TAGS. */
struct reasoning_style {
    enum reasoning_kind kind;
    const char *open, *close;
};

/* By what stands in a template; .kind REASONING_NONE when it knows none. */
struct reasoning_style reasoning_style(const char *template, size_t len);

enum reasoning_part {
    REASONING_ANSWER,
    REASONING_THOUGHT,
    REASONING_CALL,  // harmony: a message to a tool, its header first, up to and with <|message|>
};

/* Gets a piece [len > 0] of one part, in order. */
typedef void reasoning_sink(void *ctx, enum reasoning_part part, const char *s, size_t len);

enum { REASONING_HELD = 256 };

struct reasoning {
    struct reasoning_style style;
    enum { REASONING_START, REASONING_IN, REASONING_SKIP, REASONING_OUT, REASONING_HEADER } state;
    enum reasoning_part part;  // harmony: of the message under way
    char held[REASONING_HELD];
    size_t n_held;
};

/* is_inside: the prompt ended within the reasoning. */
void reasoning_init(struct reasoning *r, struct reasoning_style style, bool is_inside);
void reasoning_push(struct reasoning *r, const char *s, size_t len, reasoning_sink *sink,
                    void *ctx);
/* The answer is over: what is held comes out. */
void reasoning_end(struct reasoning *r, reasoning_sink *sink, void *ctx);

#endif
