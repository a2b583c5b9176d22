/* answer_text.h - an answer on its way to the user: tokens to text, cut at stop strings, thoughts told from the
 * rest; as text on stdout (thoughts on stderr, a blank line behind them) or as a JSON object for each token. What
 * run and chat share. Showing allocates nothing. One for a process, opened before anything is printed: it brings
 * stdout's buffer. Thread: the engine's while it generates, else main. */
#ifndef ANSWER_TEXT_H
#define ANSWER_TEXT_H

#include "base/json.h"
#include "engine/engine.h"
#include "model/reasoning.h"
#include "model/stop.h"
#include "model/tok.h"

struct answer_text {
    bool is_json;
    bool hides_thoughts;  // of text; JSON has them as reasoning_content
    struct stop stop;     // never changes
    struct detok detok;   // this and the next are set anew for each answer
    struct reasoning reasoning;
    struct json json;  // to stdout
    bool is_stopped;   // one of the stop strings came
    int write_errno;   // stdout is broken: EPIPE when the reader has gone
    char *text;        // [room], owned: what is held back, the newest piece at the end
    size_t room, n_text;
    char *part[2];  // owned: of a token, what is answered and what is thought
    size_t n_part[2];
    bool has_thought;  // and nothing else since
};

/* Room for any token of tok. The caller has set is_json to stop, in a struct otherwise zeroed. Fails: ERR_MEMORY,
 * after which it can be closed. */
MUST answer_text_open(struct answer_text *a, const struct tok *tok, struct err *e);
void answer_text_close(struct answer_text *a);

/* A new answer, of which detok and reasoning are set. */
void answer_text_begin(struct answer_text *a);

/* A token of it. False: no more are wanted, as a stop string came or stdout is broken. */
bool answer_text_push(struct answer_text *a, int32_t id);

/* What is held back comes out, as text: a character that never became whole, what might have become a stop string
 * or a tag. */
void answer_text_end(struct answer_text *a);

/* Likewise in JSON, into an object that the caller has open: what was held back, how the answer to n_prompt tokens
 * ended, and how fast it came. */
void answer_text_json_end(struct answer_text *a, size_t n_prompt, const struct gen_result *r);

/* How it ended, to stand behind its length: "" when it came to its own end. is_full: the context held no more. */
const char *answer_text_ended(const struct answer_text *a, enum gen_end end, bool is_full);

/* Fails when stdout broke meanwhile: without a sentence when whoever read it has gone. */
MUST answer_text_check(const struct answer_text *a, struct err *e);

#endif
