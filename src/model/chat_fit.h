/* chat_fit.h - the forms of a conversation that templates differ about: what the arguments of a tool's
 * call are, and whether and where there is a system role. The messages stay; swaps say what a template
 * sees in their place.
 *
 * A system text is that of a message of the system or of a developer, which may be called the system's.
 * Where it cannot stand as that, it begins the next user turn that has a text, or ends the last one if no
 * such follows.
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
    CHAT_OBJECTS = 1 << 0,   // arguments that are an object in JSON: as the object
    CHAT_TEXTS = 1 << 1,     // arguments that are an object: as JSON
    CHAT_MERGED = 1 << 2,    // system texts stand in user turns, from one of them on
    CHAT_ALTERED = 1 << 3,   // one of them is another
    CHAT_RETOLD = 1 << 4,    // what tools said is something else
    CHAT_RENAMED = 1 << 5,   // developers are the system
    CHAT_RECALLED = 1 << 6,  // the functions that are called are others
};

struct chat_way {
    unsigned form;   // enum chat_form
    size_t merged;   // the system text, counted as in n_system, that CHAT_MERGED begins with
    size_t altered;  // the one that CHAT_ALTERED is about
};

/* What there is in the messages, whatever the way. */
struct chat_facts {
    bool has_arguments;  // CHAT_OBJECTS and CHAT_TEXTS make a difference
    bool has_user;       // a user turn that can take system texts
    bool has_results;    // texts of tools
    bool has_calls;      // with names of functions
    bool has_developer;  // CHAT_RENAMED makes a difference
    size_t n_system;     // messages with a system text
};

struct chat_fit {
    struct jinja_swap *swap;  // [n]
    struct json_doc **doc;    // [n] where what stands in is kept, or NULL
    size_t n, cap;
    size_t left;  // of CHAT_ARGUMENTS
    struct chat_facts facts;
    char *text;  // [len]: of a user turn, while it is put together; blank lines between
    size_t len;
};

/* messages: a list of objects; borrowed while the swaps are used. Without has_user CHAT_MERGED is not
 * done. Fails: ERR_LIMIT past CHAT_ARGUMENTS, ERR_MEMORY. Free with chat_fit_free in any case. */
MUST chat_fit(struct chat_fit *f, const struct json_value *messages, const struct chat_way *way,
              struct err *e);
void chat_fit_free(struct chat_fit *f);

#endif
