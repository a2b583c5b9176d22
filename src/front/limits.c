#include "front/limits.h"

#include "base/text.h"

#include <stdio.h>

enum { CONNS_LEAST = 16, HEAD_LEAST = 8 << 10 };  // with however little memory

static uint64_t within(uint64_t v, uint64_t least, uint64_t most) {
    return v < least ? least : v > most ? most : v;
}

/* Three quarters for connections, whose buffers hold their heads and what they are sent; a quarter for
 * bodies. */
void http_limits_of(struct http_limits *m, uint64_t memory) {
    if (!memory) memory = HTTP_MEMORY;
    m->head = (size_t)within(memory / 32, HEAD_LEAST, HTTP_HEAD);
    m->conns = (unsigned)within(memory / 4 * 3 / m->head, CONNS_LEAST, HTTP_CONNS);
    m->per_ip = (unsigned)within(m->conns / 4, CONNS_LEAST, HTTP_PER_IP);
    m->bodies = (size_t)within(memory / 4, HTTP_BODY_FIRST, HTTP_BODIES);
    m->body = (size_t)within(m->bodies / 3, HTTP_BODY_FIRST, HTTP_BODY);
    snprintf(m->too_large, sizeof m->too_large,
             "the body is larger than the %s that are taken here", BYTES_TEXT(m->body));
}

static unsigned or_default(unsigned ms, unsigned otherwise) {
    return ms ? ms : otherwise;
}

void http_limits_times(struct http_times *t) {
    t->header_ms = or_default(t->header_ms, HTTP_HEADER_MS);
    t->next_ms = or_default(t->next_ms, HTTP_NEXT_MS);
    t->body_ms = or_default(t->body_ms, HTTP_BODY_MS);
    t->quiet_ms = or_default(t->quiet_ms, HTTP_QUIET_MS);
}
