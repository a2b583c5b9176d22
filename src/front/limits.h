/* limits.h - what of http.h's limits a given memory allows. Pure. */
#ifndef FRONT_LIMITS_H
#define FRONT_LIMITS_H

#include "front/http.h"

enum { HTTP_BODY_FIRST = 4096 };  // room of a body whose length is not told, and the least limit

struct http_limits {
    unsigned conns, per_ip;
    size_t head, body, bodies;
    char too_large[96];  // the sentence
};

/* memory: bytes for connections and bodies on their way in; 0: HTTP_MEMORY. */
void http_limits_of(struct http_limits *m, uint64_t memory);

/* The usual ones for those that are 0. */
void http_limits_times(struct http_times *t);

#endif
