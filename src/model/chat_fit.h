/* chat_fit.h - the forms of a conversation that templates differ about: what the arguments of a tool's
 * call are, and whether there is a system role. The messages stay; swaps say what a template sees in
 * their place.
 *
 * Threads: the owner's.
 */
#ifndef MODEL_CHAT_FIT_H
#define MODEL_CHAT_FIT_H

#include "model/jinja.h"

enum {
    CHAT_ARGUMENTS = 4 << 20,  // bytes of all calls' arguments
};

enum chat_form {
    CHAT_AS_IS = 0,
    CHAT_OBJECTS = 1 << 0,  // arguments that are an object in JSON: as the object
    CHAT_TEXTS = 1 << 1,    // arguments that are an object: as JSON
    CHAT_MERGED = 1 << 2,   // system texts begin the first user turn, from one of them on
    CHAT_ALTERED = 1 << 3,  // one of them is another
};

struct chat_fit {
    struct jinja_swap *swap;  // [n]
    struct json_doc **doc;    // [n] where what stands in is kept, or NULL
    size_t n, cap;
    size_t left;         // of CHAT_ARGUMENTS
    bool has_arguments;  // CHAT_OBJECTS and CHAT_TEXTS make a difference
    /* The texts of system messages ahead of the first user turn, with blank lines between; none where
     * that turn has no text. */
    char *system;  // [system_len], NUL-terminated
    size_t system_len;
    size_t n_system;  // messages ahead of that turn that begin with such a text
};

/* messages: a list of objects; borrowed while the swaps are used. at: the system message that CHAT_MERGED
 * begins with, or that CHAT_ALTERED alters, counted as in n_system. Fails: ERR_LIMIT past CHAT_ARGUMENTS,
 * ERR_MEMORY. Free with chat_fit_free in any case. */
MUST chat_fit(struct chat_fit *f, const struct json_value *messages, unsigned form, size_t at,
              struct err *e);
void chat_fit_free(struct chat_fit *f);

#endif
