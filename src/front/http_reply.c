/* http_reply.c - what handlers and jobs call: replies and their headers, waiting for what others do,
 * streams. On the library's thread, but http_wake(). Where there is no memory for a reply, or a stream's
 * client does not take it, the connection ends; the job learns it by its end(). */
#include "base/json.h"
#include "base/log.h"
#include "front/http_own.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK = 4 << 10 };  // bytes of a stream sent at once

struct meaning {
    unsigned status;
    const char *type, *code;
};

static const struct meaning *meaning(unsigned status) {
    static const struct meaning all[] = {
        {400, "invalid_request_error", NULL},
        {401, "authentication_error", "invalid_api_key"},
        {404, "not_found_error", "not_found"},
        {405, "invalid_request_error", "method_not_allowed"},
        {411, "invalid_request_error", "length_required"},
        {413, "invalid_request_error", "too_large"},
        {415, "invalid_request_error", "unsupported_media_type"},
        {429, "rate_limit_error", "rate_limit_exceeded"},
        {503, "unavailable_error", "unavailable"},
        {500, "server_error", "server_error"},
    };
    size_t i = 0, last = sizeof all / sizeof *all - 1;
    while (i < last && all[i].status != status) i++;
    return &all[i];
}

static void add(struct MHD_Response *r, const char *name, const char *value) {
    if (MHD_add_response_header(r, name, value) != MHD_YES) log_debug("http", "no %s header", name);
}

void http_warn(struct http_request *q, const char *text) {
    int n = snprintf(q->warning, sizeof q->warning, "299 - \"%s", text);
    size_t len = n < (int)sizeof q->warning - 1 ? (size_t)n : sizeof q->warning - 2;
    for (size_t i = strlen("299 - \""); i < len; i++) {
        char *c = &q->warning[i];
        if (*c < ' ' || *c > '~' || *c == '"' || *c == '\\') *c = '?';
    }
    memcpy(q->warning + len, "\"", 2);
}

static const char *allowed(const struct http_route *r) {
    return strcmp(r->method, "GET") == 0 ? "GET, HEAD, OPTIONS" : "POST, OPTIONS";
}

static void send_reply(struct http_request *q, unsigned status, const char *type,
                       struct MHD_Response *r) {
    assert(!q->is_replied);
    q->is_replied = true;
    if (!r) return;  // no memory: the connection is closed
    if (type) add(r, MHD_HTTP_HEADER_CONTENT_TYPE, type);
    add(r, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
    add(r, "X-Content-Type-Options", "nosniff");
    if (status == MHD_HTTP_UNAUTHORIZED) add(r, MHD_HTTP_HEADER_WWW_AUTHENTICATE, "Bearer");
    if (status == MHD_HTTP_TOO_MANY_REQUESTS) add(r, MHD_HTTP_HEADER_RETRY_AFTER, "5");
    if (status == MHD_HTTP_SERVICE_UNAVAILABLE) add(r, MHD_HTTP_HEADER_RETRY_AFTER, "10");
    if (q->route && (status == MHD_HTTP_METHOD_NOT_ALLOWED || status == MHD_HTTP_NO_CONTENT)) {
        add(r, MHD_HTTP_HEADER_ALLOW, allowed(q->route));
    }
    if (q->warning[0]) add(r, MHD_HTTP_HEADER_WARNING, q->warning);
    if (q->refused && !q->is_handled) add(r, MHD_HTTP_HEADER_CONNECTION, "close");
    q->is_queued = MHD_queue_response(q->c, status, r) == MHD_YES;
    MHD_destroy_response(r);
}

void http_reply(struct http_request *q, unsigned status, const char *type, const char *body,
                size_t len) {
    send_reply(q, status, type, MHD_create_response_from_buffer_copy(len, body));
}

size_t http_error_text(char *out, size_t cap, unsigned status, const char *code,
                       const char *message) {
    const struct meaning *m = meaning(status);
    struct json j;
    json_mem(&j, out, cap);
    json_object(&j);
    json_key(&j, "error");
    json_object(&j);
    json_put_text(&j, "message", message);
    json_put_text(&j, "type", m->type);
    json_put_text(&j, "param", NULL);
    json_put_text(&j, "code", code ? code : m->code);
    json_end(&j);
    json_end(&j);
    return j.is_full ? 0 : j.len;
}

void http_error(struct http_request *q, unsigned status, const char *code, const char *message) {
    char text[HTTP_ERROR];
    http_reply(q, status, "application/json", text,
               http_error_text(text, sizeof text, status, code, message));
}

/* --- waiting for what others do --- */

void http_unpause(struct http_request *q) {
    if (!q->is_paused) return;
    q->is_paused = false;
    MHD_resume_connection(q->c);
}

void http_wake(struct http_request *q) {
    struct http *h = q->h;
    pthread_mutex_lock(&h->lock);
    q->is_woken = true;
    http_unpause(q);
    pthread_mutex_unlock(&h->lock);
}

void http_wait(struct http_request *q, struct http_job *j) {
    struct http *h = q->h;
    pthread_mutex_lock(&h->lock);
    q->job = j;
    q->conn->q = q;
    pthread_mutex_unlock(&h->lock);
    http_watch_poke(h);  // whether the client leaves is of interest from now on
}

enum next { NEXT_STEP, NEXT_QUIET, NEXT_PAUSE, NEXT_GONE };

/* What to do when there is nothing to send; NEXT_PAUSE: the connection is suspended now. */
static enum next look(struct http_request *q) {
    enum next n = NEXT_PAUSE;
    pthread_mutex_lock(&q->h->lock);
    if (q->is_gone || q->h->is_closing) {
        n = NEXT_GONE;
    } else if (q->is_woken) {
        n = NEXT_STEP;
    } else if (q->is_quiet) {
        n = NEXT_QUIET;
    } else {
        q->is_paused = true;
        MHD_suspend_connection(q->c);
    }
    q->is_woken = q->is_quiet = false;
    pthread_mutex_unlock(&q->h->lock);
    return n;
}

enum MHD_Result http_step(struct http_request *q) {
    while (!q->is_replied) {
        if (!q->job) {
            http_error(q, MHD_HTTP_INTERNAL_SERVER_ERROR, NULL, "the request was left unanswered");
            break;
        }
        switch (look(q)) {
        case NEXT_STEP:
        case NEXT_QUIET: q->job->step(q->job, q); break;
        case NEXT_PAUSE: return MHD_YES;
        case NEXT_GONE: return MHD_NO;
        }
    }
    return q->is_queued ? MHD_YES : MHD_NO;
}

/* --- streams --- */

void http_write(struct http_request *q, const char *s, size_t len) {
    if (q->is_broken) return;
    if (q->at_out == q->n_out) q->at_out = q->n_out = 0;
    if (len > HTTP_STREAM_ROOM - q->n_out) {
        q->is_broken = true;
        return;
    }
    if (len > q->cap_out - q->n_out) {
        size_t cap = 2 * q->n_out + len;
        char *grown = realloc(q->out, cap);
        if (!grown) {
            q->is_broken = true;
            return;
        }
        q->out = grown;
        q->cap_out = cap;
    }
    memcpy(q->out + q->n_out, s, len);
    q->n_out += len;
}

void http_finish(struct http_request *q) {
    q->is_finished = true;
}

static size_t take(struct http_request *q, char *buf, size_t max) {
    size_t n = q->n_out - q->at_out;
    if (n > max) n = max;
    memcpy(buf, q->out + q->at_out, n);
    q->at_out += n;
    pthread_mutex_lock(&q->h->lock);
    q->said_ns = clock_ns();
    pthread_mutex_unlock(&q->h->lock);
    return n;
}

/* The library has room for more of the stream. */
static ssize_t on_read(void *ctx, uint64_t pos, char *buf, size_t max) {
    struct http_request *q = ctx;
    (void)pos;
    for (;;) {
        if (q->is_broken) return MHD_CONTENT_READER_END_WITH_ERROR;
        if (q->at_out < q->n_out) return (ssize_t)take(q, buf, max);
        if (q->is_finished) return MHD_CONTENT_READER_END_OF_STREAM;
        switch (look(q)) {
        case NEXT_STEP: q->job->step(q->job, q); break;
        case NEXT_QUIET: http_write(q, q->quiet, strlen(q->quiet)); break;
        case NEXT_PAUSE: return 0;
        case NEXT_GONE: return MHD_CONTENT_READER_END_WITH_ERROR;
        }
    }
}

void http_stream(struct http_request *q, const char *type, const char *quiet) {
    q->quiet = quiet;
    pthread_mutex_lock(&q->h->lock);
    q->is_stream = true;
    q->is_woken = true;  // the first step comes unasked
    q->said_ns = clock_ns();
    pthread_mutex_unlock(&q->h->lock);
    struct MHD_Response *r =
        MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, CHUNK, on_read, q, NULL);
    if (r) add(r, "X-Accel-Buffering", "no");  // a proxy must not collect it
    send_reply(q, MHD_HTTP_OK, type, r);
}
