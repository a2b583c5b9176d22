/* asknode.h - /status.json of a running node, over HTTP. Any thread.
 */
#ifndef ASKNODE_H
#define ASKNODE_H

#include "base/err.h"

#include <stddef.h>

struct node_address {
    char host[256], port[8];
};

struct node_answer {
    char *text;
    size_t len;
    const char *body;  // ends with the text
};

/* Within `ms` milliseconds from when the host is looked up. Fails: ERR_IO; ERR_FORMAT when what listens there is no node; ERR_LIMIT. *out may
 * be freed in any case. */
MUST asknode(const struct node_address *a, unsigned ms, struct node_answer *out, struct err *e);
void asknode_free(struct node_answer *out);

/* Bytes of an answer, at most. */
enum { ASKNODE_MOST = 1 << 20 };

#endif
