/* http.h - HTTP/1.1 for strangers: limits, routes, bodies, replies that come later, streams. Behind it
 * stands libmicrohttpd.
 *
 * One thread of the library serves all connections; handlers and steps run on it and must be short. A
 * second thread watches: it wakes what waits when its client has gone, and closes who takes too long.
 * What is refused before a handler sees it: more than HTTP_CONNS connections or HTTP_PER_IP of one
 * address, headers or a body that drip in, a body of more than HTTP_BODY (413), or of no told length
 * (411), Content-Length beside Transfer-Encoding (400), another type than JSON (415: a page of another
 * site may not send it unasked), unknown paths (404) and methods (405), a wrong key (401). Cross-origin
 * use is not offered: no Access-Control header is ever sent.
 *
 * These limits are for plenty of memory: with less of it (struct http_conf) connections, heads and
 * bodies are fewer and smaller (limits.h).
 *
 * Locks: http_wake() takes this module's mutex and, inside, the library's; handlers, steps and end()
 * are called with neither, so they may block on locks under which others call http_wake().
 */
#ifndef FRONT_HTTP_H
#define FRONT_HTTP_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

enum {
    HTTP_MEMORY = 48 << 20,      // bytes, unless told: enough for all of the following
    HTTP_CONNS = 256,            // connections; from 3/4 on, who waits longest for a request goes
    HTTP_PER_IP = 64,            // of them, from one address
    HTTP_HEAD = 32 << 10,        // bytes of request line and headers
    HTTP_BODY = 4 << 20,         // bytes of one body
    HTTP_BODIES = 12 << 20,      // of all bodies on their way in
    HTTP_HEADER_MS = 10000,      // for the first request's headers to be there
    HTTP_NEXT_MS = 30000,        // for the next request on a kept connection
    HTTP_BODY_MS = 30000,        // for a body to be there
    HTTP_QUIET_MS = 5000,        // a stream that has nothing to say says its `quiet` text
    HTTP_STREAM_ROOM = 4 << 20,  // bytes of a stream that wait to be sent
    HTTP_WARNING = 200,          // bytes of a warning
    HTTP_ERROR = 4096,           // bytes, enough for the JSON of an error
};

struct http;
struct http_request;

/* What is done for a request whose reply comes later; embedded in its owner. */
struct http_job {
    /* Something happened: http_wake() was called, or what was written has left. Writes what there is
     * to write, or replies. May be called without a reason. */
    void (*step)(struct http_job *j, struct http_request *q);
    /* The last call, always: the reply is sent or the client has gone. Nobody may use the request
     * after it returns; it stops those who would wake it. */
    void (*end)(struct http_job *j);
};

struct http_route {
    const char *method;  // "GET" (HEAD comes with it) or "POST"
    const char *path;
    bool is_keyed;  // asks for the API key, where there is one
    void (*handle)(void *ctx, struct http_request *q);
};

struct http_times {
    unsigned header_ms, next_ms, body_ms, quiet_ms;  // 0: as above
};

struct http_conf {
    const char *interface;  // to listen at its addresses and at loopback's; NULL: all; borrowed
    const char *api_key;    // NULL: none is asked for
    uint16_t port;          // 0: any
    uint64_t memory;        // bytes for connections and bodies; 0: HTTP_MEMORY
    struct http_times times;
    const struct http_route *route;  // [n_route], borrowed
    size_t n_route;
    void *ctx;  // for the handlers
};

/* Fails: ERR_USAGE for an unknown interface; ERR_IO when the port is taken or not ours to take; ERR_MEMORY. */
MUST http_open(struct http **out, const struct http_conf *c, struct err *e);
uint16_t http_port(const struct http *h);
/* Until every reply has left, at most so long; who comes meanwhile is served, too. */
void http_settle(struct http *h, unsigned ms);
/* Every job ends. From another thread than the handlers'. */
void http_close(struct http *h);

/* The body as it came; valid until the handler returns. */
const char *http_body(const struct http_request *q, size_t *len);

/* A handler or a step, but one only, and where no stream was begun: reply (body is copied). */
void http_reply(struct http_request *q, unsigned status, const char *type, const char *body,
                size_t len);
/* {"error":{"message","type","param","code"}}; code: NULL for the status's own. 429 and 503 carry
 * Retry-After. */
void http_error(struct http_request *q, unsigned status, const char *code, const char *message);
/* Only that JSON, for a stream. Returns its length, 0: out is too small. */
size_t http_error_text(char *out, size_t cap, unsigned status, const char *code,
                       const char *message);

/* Before the reply or the stream is begun: its head has `Warning: 299 - "text"` (RFC 7234, 5.5), as
 * Kubernetes tells its clients of what was taken but not as asked. What is not printable ASCII becomes '?';
 * what is too long is cut. The last one counts. */
void http_warn(struct http_request *q, const char *text);

/* From a handler: the reply comes from the job's steps. Each step is called when no earlier one runs. */
void http_wait(struct http_request *q, struct http_job *j);
/* From a handler that called http_wait(), or a step: begin a reply of unknown length; its head leaves at
 * once. quiet: sent when nothing was for a while (a constant, or NULL). */
void http_stream(struct http_request *q, const char *type, const char *quiet);
/* Append to the stream. What does not fit HTTP_STREAM_ROOM breaks it off. */
void http_write(struct http_request *q, const char *s, size_t len);
void http_finish(struct http_request *q);  // no more of the stream

/* Any thread, until the job's end() returns: its step shall be called. */
void http_wake(struct http_request *q);

#endif
