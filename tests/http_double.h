/* http_double.h - for tests of the front: a node's double and a client over raw sockets.
 *
 * The real node cannot be made to be slow, fail or refuse on demand. The double says a text that the
 * test chooses, a token at a time, from a thread of its own and, to provoke deadlocks, under its own
 * lock. */
#ifndef TESTS_HTTP_DOUBLE_H
#define TESTS_HTTP_DOUBLE_H

#include "base/clock.h"
#include "base/json.h"
#include "front/front.h"
#include "front/job.h"
#include "toy_vocab.h"

#include <arpa/inet.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

enum { N_CTX = 256, ASKS = 80, IDS = 1024, REPLY = 1 << 20 };

static struct toy toy;
static struct tok *tok;
static struct front *front;

/* --- the node's double --- */

struct asked {
    bool is_used, is_cancelled;
    uint64_t ticket, next_ns, cancelled_ns;
    struct ask_request r;
    int32_t prompt[N_CTX], id[IDS];
    uint32_t n, at;
};

/* How the next ones go. */
struct manner {
    const char *text;
    unsigned first_ms, each_ms;
    enum ask_end end;   // after the text
    enum err_code why;  // of ASK_FAILED; of a refusal
    bool is_refused;
};

static struct {
    pthread_mutex_t lock;
    pthread_t thread;
    bool is_closing;
    uint64_t n_ask, n_over;
    struct manner manner;
    struct asked ask[ASKS], last;
    struct status status;
} fake = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void set_manner(struct manner m) {
    pthread_mutex_lock(&fake.lock);
    fake.manner = m;
    pthread_mutex_unlock(&fake.lock);
}

MUST node_ask(struct node *n, const struct ask_request *a, uint64_t *ticket, struct err *e) {
    const struct manner *m = &fake.manner;
    struct asked *k = NULL;
    size_t n_id = 0;
    (void)n;
    pthread_mutex_lock(&fake.lock);
    if (m->is_refused) {
        pthread_mutex_unlock(&fake.lock);
        return err_set(e, m->why, "not now, says the test");
    }
    for (size_t i = 0; i < ASKS && !k; i++) {
        if (!fake.ask[i].is_used) k = &fake.ask[i];
    }
    if (!k || a->n_prompt > N_CTX ||
        !tok_encode(tok, m->text, strlen(m->text), 0, k->id, IDS, &n_id, e)) {
        abort();
    }
    k->is_used = true;
    k->is_cancelled = false;
    k->ticket = *ticket = ++fake.n_ask;
    k->r = *a;
    k->n = (uint32_t)n_id;
    k->at = 0;
    k->next_ns = clock_ns() + m->first_ms * (uint64_t)1000000;
    memcpy(k->prompt, a->prompt, a->n_prompt * sizeof *a->prompt);
    fake.last = *k;
    pthread_mutex_unlock(&fake.lock);
    return true;
}

void node_cancel(struct node *n, uint64_t ticket) {
    (void)n;
    pthread_mutex_lock(&fake.lock);
    for (size_t i = 0; i < ASKS; i++) {
        struct asked *k = &fake.ask[i];
        if (!k->is_used || k->ticket != ticket) continue;
        k->is_used = false;
        k->is_cancelled = true;
        k->cancelled_ns = clock_ns();
        fake.last = *k;
        fake.n_over++;
    }
    pthread_mutex_unlock(&fake.lock);
}

void node_status(struct node *n, struct status *out) {
    (void)n;
    pthread_mutex_lock(&fake.lock);
    *out = fake.status;
    pthread_mutex_unlock(&fake.lock);
}

/* The next token of one, or its end. */
static void speak(struct asked *k) {
    struct err why = {.code = fake.manner.why, .text = "a node was lost"};
    if (k->at < k->n && k->at < k->r.n_predict) {
        k->r.on_tokens(k->r.ctx, &k->id[k->at], 1);
        k->at++;
        k->next_ns += fake.manner.each_ms * (uint64_t)1000000;
        return;
    }
    enum ask_end end = k->at == k->r.n_predict ? ASK_LENGTH : fake.manner.end;
    k->is_used = false;
    fake.n_over++;
    k->r.on_end(k->r.ctx, end, end == ASK_FAILED ? &why : NULL);
}

static void *fake_run(void *ctx) {
    bool is_closing = false;
    while (!is_closing) {
        usleep(500);
        pthread_mutex_lock(&fake.lock);
        for (size_t i = 0; i < ASKS; i++) {
            while (fake.ask[i].is_used && clock_ns() >= fake.ask[i].next_ns) speak(&fake.ask[i]);
        }
        is_closing = fake.is_closing;
        pthread_mutex_unlock(&fake.lock);
    }
    return ctx;
}

static struct asked last_ask(void) {
    pthread_mutex_lock(&fake.lock);
    struct asked k = fake.last;
    pthread_mutex_unlock(&fake.lock);
    return k;
}

/* --- a client --- */

struct reply {
    int status;
    char raw[REPLY], body[REPLY];
    size_t n_raw, n_body;
    uint64_t head_ns;  // when the first byte came
};

static struct reply reply;

/* From 127.0.0.`host`. */
static int dial(unsigned host) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in from = {.sin_family = AF_INET, .sin_addr = {htonl(0x7f000000U + host)}};
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons(front_port(front)),
                             .sin_addr = {htonl(INADDR_LOOPBACK)}};
    if (fd < 0 || bind(fd, (struct sockaddr *)&from, sizeof from) != 0 ||
        connect(fd, (struct sockaddr *)&to, sizeof to) != 0) {
        perror("dial");
        exit(1);
    }
    return fd;
}

static void put(int fd, const char *s, size_t len) {
    while (len) {
        ssize_t n = send(fd, s, len, MSG_NOSIGNAL);
        if (n <= 0) return;
        s += n;
        len -= (size_t)n;
    }
}

static void put_text(int fd, const char *s) {
    put(fd, s, strlen(s));
}

/* What comes within ms, until the other side closes (returns true) or `until` stands in it. */
static bool get(int fd, struct reply *r, const char *until, int ms) {
    uint64_t end = clock_ns() + (uint64_t)ms * 1000000;
    while (r->n_raw < REPLY - 1) {
        uint64_t now = clock_ns();
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (now >= end || poll(&p, 1, (int)((end - now) / 1000000) + 1) <= 0) return false;
        ssize_t n = recv(fd, r->raw + r->n_raw, REPLY - 1 - r->n_raw, 0);
        if (n <= 0) return true;
        if (!r->n_raw) r->head_ns = clock_ns();
        r->n_raw += (size_t)n;
        r->raw[r->n_raw] = '\0';
        if (until && strstr(r->raw, until)) return false;
    }
    return false;
}

/* Status and body out of what came. */
static void parse(struct reply *r) {
    const char *head_end = strstr(r->raw, "\r\n\r\n");
    r->status = strncmp(r->raw, "HTTP/1.", 7) == 0 ? atoi(r->raw + 9) : 0;
    r->n_body = 0;
    r->body[0] = '\0';
    if (!head_end) return;
    const char *s = head_end + 4, *end = r->raw + r->n_raw;
    const char *chunked = strcasestr(r->raw, "Transfer-Encoding: chunked");
    if (!chunked || chunked > head_end) {
        r->n_body = (size_t)(end - s);
        memcpy(r->body, s, r->n_body);
    }
    while (chunked && chunked < head_end && s < end) {
        char *after;
        size_t n = strtoul(s, &after, 16);
        if (!n || after + 2 + n > end) break;
        memcpy(r->body + r->n_body, after + 2, n);
        r->n_body += n;
        s = after + 2 + n + 2;
    }
    r->body[r->n_body] = '\0';
}

static void begin(struct reply *r) {
    r->n_raw = 0;
    r->raw[0] = '\0';
}

/* Any bytes, and what comes until the connection is closed. */
static int exchange(const char *bytes, size_t len) {
    int fd = dial(1);
    begin(&reply);
    put(fd, bytes, len);
    get(fd, &reply, NULL, 5000);
    close(fd);
    parse(&reply);
    return reply.status;
}

static int get_path(const char *method, const char *path) {
    char text[256];
    int n = snprintf(text, sizeof text, "%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
                     method, path);
    return exchange(text, (size_t)n);
}

static size_t post_text(char *out, size_t cap, const char *json, size_t len) {
    int n = snprintf(out, cap,
                     "POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                     "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n",
                     len);
    memcpy(out + n, json, len);
    return (size_t)n + len;
}

static int post_n(const char *json, size_t len) {
    static char text[REPLY];
    return exchange(text, post_text(text, sizeof text, json, len));
}

static int post(const char *json) {
    return post_n(json, strlen(json));
}

/* Sends and does not wait. */
static int post_begin(const char *json, unsigned host) {
    char text[4096];
    int fd = dial(host);
    put(fd, text, post_text(text, sizeof text, json, strlen(json)));
    return fd;
}

static bool has(const char *s) {
    return strstr(reply.body, s) != NULL;
}

static bool has_head(const char *s) {
    const char *at = strcasestr(reply.raw, s), *end = strstr(reply.raw, "\r\n\r\n");
    return at && end && at < end;
}

/* The texts of all events put together; *n_event: how many have one. */
static const char *stream_text(const struct reply *r, unsigned *n_event) {
    static char all[8192];
    size_t len = 0;
    *n_event = 0;
    for (const char *s = r->body; (s = strstr(s, "data: {")); s++) {
        const char *end = strstr(s, "\n\n");
        struct json_doc *d;
        struct err e;
        if (!end || !json_read(&d, s + 6, (size_t)(end - s - 6), REPLY, &e)) return "not JSON";
        const struct json_value *choice = json_find(json_root(d), "choices");
        struct json_chars text = {"", 0};
        if (json_size(choice) && json_want_chars(json_item(choice, 0), "text", &text, &e)) {
            memcpy(all + len, text.s, text.len);
            *n_event += text.len > 0;
        }
        len += text.len;
        json_free(d);
    }
    all[len] = '\0';
    return all;
}

static bool settled(void) {
    for (int i = 0; i < 200; i++) {
        pthread_mutex_lock(&fake.lock);
        bool is_over = fake.n_ask == fake.n_over;
        pthread_mutex_unlock(&fake.lock);
        if (is_over) return true;
        usleep(5000);
    }
    return false;
}

static double ms_since(uint64_t ns) {
    return (double)(clock_ns() - ns) * 1e-6;
}

#endif
