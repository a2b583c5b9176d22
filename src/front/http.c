/* http.c - a request from its first header to the end of its reply; the service opened and closed. The door
 * to libmicrohttpd.
 *
 * on_request() is the way in: the head is checked, the body taken, the route's handler called, which replies,
 * or streams, or leaves a job that does so later. All of it runs on the library's thread but http_wake(), and
 * opening and closing, which are the owner's. A request that is refused (refuse()) gets a reply that says
 * why. Where there is no memory for a reply, or a stream's client does not take it, the connection ends; the
 * job learns it by its end(). */
#include "base/json.h"
#include "base/log.h"
#include "base/text.h"
#include "front/http_own.h"

#include <assert.h>
#include <microhttpd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

enum {
    IDLE_S = 30,         // a client that neither sends nor takes anything
    CONNS_SPARE = 8,     // the library counts one for a moment longer than we do
    DISCARD = 16 << 20,  // of a refused body, read so that the client gets to read our reply
    CHUNK = 4 << 10,     // bytes of a stream sent at once
};

/* --- replies --- */

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

/* Lets its job go on until there is a reply, or nothing to do: then it is paused. MHD_NO: it ends. */
static enum MHD_Result step_on(struct http_request *q) {
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

/* --- bodies --- */

static void refuse(struct http_request *q, unsigned status, const char *why) {
    q->refused = status;
    q->why = why;
}

const char *http_body(const struct http_request *q, size_t *len) {
    *len = q->n_body;
    return q->body ? q->body : "";
}

static void drop_body(struct http_request *q) {
    q->h->body_bytes -= q->cap_body;
    free(q->body);
    q->body = NULL;
    q->n_body = q->cap_body = 0;
}

/* Room for cap bytes; false: refused. */
static bool grow_body(struct http_request *q, size_t cap) {
    const struct http_limits *most = &q->h->limits;
    if (cap > most->body) cap = most->body;
    if (cap - q->cap_body <= most->bodies - q->h->body_bytes) {
        char *grown = realloc(q->body, cap);
        if (grown) {
            q->h->body_bytes += cap - q->cap_body;
            q->body = grown;
            q->cap_body = cap;
            return true;
        }
    }
    refuse(q, MHD_HTTP_SERVICE_UNAVAILABLE,
           "too many requests are being received at once; try again");
    return false;
}

/* A piece of the body; false: no more of it is wanted, the connection ends. */
static bool add_body(struct http_request *q, const char *data, size_t len) {
    if (!q->refused && len > q->h->limits.body - q->n_body) {
        refuse(q, MHD_HTTP_CONTENT_TOO_LARGE, q->h->limits.too_large);
    }
    if (!q->refused && len > q->cap_body - q->n_body) {
        size_t twice = q->cap_body ? 2 * q->cap_body : HTTP_BODY_FIRST;
        size_t want = q->n_body + len;
        if (grow_body(q, want > twice ? want : twice)) assert(len <= q->cap_body - q->n_body);
    }
    if (q->refused) {
        drop_body(q);
        q->discarded += len;
        return q->discarded <= DISCARD;
    }
    memcpy(q->body + q->n_body, data, len);
    q->n_body += len;
    return true;
}

/* --- what the head of a request tells --- */

static const char *header(const struct http_request *q, const char *name) {
    return MHD_lookup_connection_value(q->c, MHD_HEADER_KIND, name);
}

static bool is_json(const char *type) {
    static const char json[] = "application/json";
    size_t n = sizeof json - 1;
    return strncasecmp(type, json, n) == 0 && (type[n] == '\0' || strchr("; \t", type[n]));
}

/* Takes as long for any wrong key of the right length. */
static bool is_key(const char *want, const char *got) {
    size_t n = strlen(want);
    unsigned char diff = 0;
    if (strlen(got) != n) return false;
    for (size_t i = 0; i < n; i++) diff |= (unsigned char)(want[i] ^ got[i]);
    return diff == 0;
}

static bool has_key(const struct http_request *q) {
    const char *want = q->h->api_key, *bearer = header(q, MHD_HTTP_HEADER_AUTHORIZATION);
    const char *plain = header(q, "X-Api-Key");
    if (!want) return true;
    if (bearer && strncasecmp(bearer, "Bearer ", 7) == 0 && is_key(want, bearer + 7)) return true;
    return plain && is_key(want, plain);
}

/* The route, or one of the same path. */
static const struct http_route *find_route(const struct http *h, const char *path,
                                           const char *method, bool *is_method) {
    const char *wanted = strcmp(method, "HEAD") == 0 ? "GET" : method;
    const struct http_route *found = NULL;
    *is_method = false;
    for (size_t i = 0; i < h->conf.n_route && !*is_method; i++) {
        const struct http_route *r = &h->conf.route[i];
        if (strcmp(r->path, path) != 0) continue;
        *is_method = strcmp(r->method, wanted) == 0;
        if (*is_method || !found) found = r;
    }
    return found;
}

/* What the headers alone tell. */
static void check_head(struct http_request *q, const char *path, const char *method) {
    const char *length = header(q, MHD_HTTP_HEADER_CONTENT_LENGTH);
    const char *coding = header(q, MHD_HTTP_HEADER_TRANSFER_ENCODING);
    const char *type = header(q, MHD_HTTP_HEADER_CONTENT_TYPE);
    uint64_t n = 0;
    bool is_method, is_post = strcmp(method, "POST") == 0;
    q->has_body = coding || (length && strcmp(length, "0") != 0);
    q->route = find_route(q->h, path, method, &is_method);
    if (length && coding) {
        refuse(q, MHD_HTTP_BAD_REQUEST, "Content-Length and Transfer-Encoding exclude each other");
        q->discarded = DISCARD;  // where this body ends is not sure
    } else if (length && (!text_u64(length, &n) || n > q->h->limits.body)) {
        refuse(q, MHD_HTTP_CONTENT_TOO_LARGE, q->h->limits.too_large);
        if (n > DISCARD) q->discarded = DISCARD;
    } else if (!q->route) {
        refuse(q, MHD_HTTP_NOT_FOUND, "there is nothing at this path");
    } else if (strcmp(method, "OPTIONS") == 0) {
        refuse(q, MHD_HTTP_NO_CONTENT, "");
    } else if (!is_method) {
        refuse(q, MHD_HTTP_METHOD_NOT_ALLOWED, "this path does not take that method");
    } else if (q->route->is_keyed && !has_key(q)) {
        refuse(q, MHD_HTTP_UNAUTHORIZED,
               "an API key is asked for here: send it as \"Authorization: Bearer KEY\"");
    } else if (is_post && (type ? !is_json(type) : header(q, MHD_HTTP_HEADER_ORIGIN) != NULL)) {
        /* What a page of another site may send unasked is of another type, or of none. */
        refuse(q, MHD_HTTP_UNSUPPORTED_MEDIA_TYPE,
               "the body must be of type application/json; with curl: --json, or -H "
               "'Content-Type: application/json'");
    } else if (is_post && !length && !coding) {
        refuse(q, MHD_HTTP_LENGTH_REQUIRED, "a body is wanted, with Content-Length or chunked");
    }
    if (n && !q->refused) (void)grow_body(q, (size_t)n);
}

/* --- requests --- */

static void reply_refusal(struct http_request *q) {
    if (q->refused == MHD_HTTP_NO_CONTENT) {
        http_reply(q, MHD_HTTP_NO_CONTENT, NULL, "", 0);
    } else {
        http_error(q, q->refused, NULL, q->why);
    }
}

static struct http_request *begin(struct http *h, struct MHD_Connection *c, const char *path,
                                  const char *method) {
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(c, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    struct http_request *q = info && info->socket_context ? calloc(1, sizeof *q) : NULL;
    if (!q) return NULL;
    q->h = h;
    q->c = c;
    q->conn = info->socket_context;
    check_head(q, path, method);
    pthread_mutex_lock(&h->lock);
    q->conn->since_ns = 0;
    q->conn->deadline_ns = q->has_body ? in_ms(h->conf.times.body_ms) : 0;
    pthread_mutex_unlock(&h->lock);
    return q;
}

/* Called for the headers, for each piece of the body, at its end, and after each pause. */
static enum MHD_Result on_request(void *ctx, struct MHD_Connection *c, const char *path,
                                  const char *method, const char *version, const char *data,
                                  size_t *n_data, void **request) {
    struct http *h = ctx;
    struct http_request *q = *request;
    (void)version;
    if (!q) {
        q = *request = begin(h, c, path, method);
        if (!q) return MHD_NO;
        const char *expect = header(q, MHD_HTTP_HEADER_EXPECT);
        bool is_now = q->refused && (expect || q->discarded);  // its body will not come, or not end
        if (is_now) reply_refusal(q);
        return q->is_queued || !is_now ? MHD_YES : MHD_NO;
    }
    if (*n_data) {
        bool goes_on = add_body(q, data, *n_data);
        *n_data = 0;
        return goes_on ? MHD_YES : MHD_NO;
    }
    if (q->is_replied) return MHD_YES;
    if (!q->is_handled) {
        pthread_mutex_lock(&h->lock);
        q->conn->deadline_ns = 0;
        pthread_mutex_unlock(&h->lock);
        q->is_handled = true;
        if (q->refused) {
            reply_refusal(q);
        } else {
            q->route->handle(h->conf.ctx, q);
        }
        drop_body(q);
    }
    return step_on(q);
}

static void on_completed(void *ctx, struct MHD_Connection *c, void **request,
                         enum MHD_RequestTerminationCode how) {
    struct http *h = ctx;
    struct http_request *q = *request;
    (void)c;
    (void)how;
    if (!q) return;
    pthread_mutex_lock(&h->lock);
    q->conn->q = NULL;
    q->conn->since_ns = clock_ns();
    q->conn->deadline_ns = in_ms(h->conf.times.next_ms);
    pthread_mutex_unlock(&h->lock);
    if (q->job) q->job->end(q->job);
    drop_body(q);
    free(q->out);
    free(q);
    *request = NULL;
}

/* --- connections --- */

static void on_connection(void *ctx, struct MHD_Connection *c, void **slot,
                          enum MHD_ConnectionNotificationCode what) {
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(c, MHD_CONNECTION_INFO_CONNECTION_FD);
    if (what == MHD_CONNECTION_NOTIFY_STARTED) {
        *slot = info ? http_conn_begun(ctx, info->connect_fd) : NULL;
    } else if (*slot) {
        http_conn_over(ctx, *slot);  // the library closes the socket after this
    }
}

bool http_hand_over(struct http *h, int fd, const struct sockaddr *from, socklen_t len) {
    return MHD_add_connection(h->daemon, fd, from, len) == MHD_YES;
}

/* --- opening and closing --- */

static MUST start_daemon(struct http *h, struct err *e) {
    const struct http_limits *m = &h->limits;
    const struct listen_conf c = {.interface = h->conf.interface,
                                  .has_loopback = true,
                                  .port = h->conf.port,
                                  .who = "the HTTP API",
                                  .key = "port"};
    if (!listen_open(&h->listen, &c, e)) return false;
    h->port = h->listen.conf.port;
    h->daemon = MHD_start_daemon(
        MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ITC |
            MHD_USE_NO_LISTEN_SOCKET,
        0, NULL, NULL, on_request, h, MHD_OPTION_NOTIFY_COMPLETED, on_completed, h,
        MHD_OPTION_NOTIFY_CONNECTION, on_connection, h, MHD_OPTION_CONNECTION_TIMEOUT,
        (unsigned)IDLE_S, MHD_OPTION_CONNECTION_LIMIT, m->conns + CONNS_SPARE,
        MHD_OPTION_PER_IP_CONNECTION_LIMIT, m->per_ip, MHD_OPTION_CONNECTION_MEMORY_LIMIT, m->head,
        MHD_OPTION_CLIENT_DISCIPLINE_LVL, 1, MHD_OPTION_END);
    return h->daemon || err_set(e, ERR_MEMORY, "the HTTP service does not start");
}

/* What was started of it before it failed, or all. */
static void destroy(struct http *h) {
    if (h->daemon) MHD_stop_daemon(h->daemon);
    if (h->listen.n || h->listen.changes_fd >= 0) listen_close(&h->listen);
    if (h->wake_fd >= 0) close(h->wake_fd);
    pthread_mutex_destroy(&h->lock);
    free(h->api_key);
    free(h);
}

static MUST start(struct http *h, struct err *e) {
    const char *key = h->conf.api_key;
    if (key && *key && !(h->api_key = strdup(key))) {
        return err_set(e, ERR_MEMORY, "no memory for the API key");
    }
    h->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (h->wake_fd < 0) return err_sys(e, "no event for the HTTP watch");
    return start_daemon(h, e) && http_watch_start(h, e);
}

MUST http_open(struct http **out, const struct http_conf *c, struct err *e) {
    struct http *h = calloc(1, sizeof *h);
    *out = NULL;
    if (!h) return err_set(e, ERR_MEMORY, "no memory for the HTTP service");
    h->conf = *c;
    h->wake_fd = h->listen.changes_fd = -1;
    http_limits_times(&h->conf.times);
    http_limits_of(&h->limits, c->memory);
    pthread_mutex_init(&h->lock, NULL);
    for (size_t i = 0; i < HTTP_CONNS; i++) h->conn[i].fd = -1;
    bool ok = start(h, e);
    h->conf.api_key = NULL;  // borrowed until here
    if (!ok) {
        destroy(h);
        return false;
    }
    *out = h;
    return true;
}

uint16_t http_port(const struct http *h) {
    return h->port;
}

static bool is_settled(struct http *h) {
    bool is = true;
    pthread_mutex_lock(&h->lock);
    for (size_t i = 0; i < HTTP_CONNS; i++) is = is && !h->conn[i].q;
    pthread_mutex_unlock(&h->lock);
    return is;
}

/* The library tells nobody but on_completed() that a reply has left, so this looks again and again. */
void http_settle(struct http *h, unsigned ms) {
    const struct timespec pause = {.tv_nsec = 2000000};
    uint64_t until = in_ms(ms);
    while (!is_settled(h) && clock_ns() < until) nanosleep(&pause, NULL);
}

void http_close(struct http *h) {
    http_watch_stop(h);
    destroy(h);
}
