#include "front/job.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

enum {
    TAKE = 256,        // ids made text of at once, so that other clients are served in between
    ASK_BYTES = 2048,  // of a choice and its connection's stream, besides
    /* Of a token of the answer: its id here and in the node's copy, and its text until it has left. */
    TOKEN_BYTES = 4 + 4 + 8
};

static const char *const sse_type = "text/event-stream";
static const char *const sse_quiet = ": waiting\n\n";

struct job *job_new(struct job_shared *s, struct http_request *q, uint32_t n) {
    static const char digit[] = "0123456789abcdef";
    uint8_t random[12];
    struct job *j = calloc(1, sizeof *j + n * sizeof *j->choice);
    if (!j) return NULL;
    j->shared = s;
    j->q = q;
    j->n_choice = n;
    j->created = (uint64_t)time(NULL);
    for (uint32_t i = 0; i < n; i++) {
        j->choice[i].job = j;
        detok_init_within(&j->choice[i].detok, s->tok, false);
    }
    if (getrandom(random, sizeof random, 0) < 0) memset(random, 0, sizeof random);
    size_t at = (size_t)snprintf(j->id, sizeof j->id, "cmpl-");
    for (size_t i = 0; i < sizeof random; i++) {
        j->id[at++] = digit[random[i] >> 4];
        j->id[at++] = digit[random[i] & 15];
    }
    return j;
}

/* No callback comes any more. */
static void cancel(struct choice *c) {
    if (!c->is_asked) return;
    node_cancel(c->job->shared->node, c->ticket);
    c->is_asked = false;
    c->job->shared->n_ask--;
}

void job_free(struct job *j) {
    for (uint32_t i = 0; i < j->n_choice; i++) {
        struct choice *c = &j->choice[i];
        cancel(c);
        j->shared->bytes -= c->bytes;
        free(c->prompt);
        free(c->id);
        free(c->text);
    }
    free(j->grammar_text);
    free(j);
}

/* --- callbacks of the node --- */

static void on_tokens(void *ctx, const int32_t *id, uint32_t n) {
    struct choice *c = ctx;
    struct job *j = c->job;
    pthread_mutex_lock(&j->shared->lock);
    uint32_t room = c->n_predict - c->n_id;
    if (n > room) n = room;
    memcpy(c->id + c->n_id, id, n * sizeof *id);
    c->n_id += n;
    http_wake(j->q);
    pthread_mutex_unlock(&j->shared->lock);
}

static void on_end(void *ctx, enum ask_end end, const struct err *why) {
    struct choice *c = ctx;
    struct job_shared *s = c->job->shared;
    pthread_mutex_lock(&s->lock);
    c->is_ended = true;
    c->end = end;
    if (why) c->why = *why;
    http_wake(c->job->q);
    pthread_mutex_unlock(&s->lock);  // the job may be gone from here on
}

/* --- ids to text --- */

static MUST make_room(struct choice *c, size_t more, struct err *e) {
    if (more <= c->cap - c->len) return true;
    size_t cap = 2 * c->cap + more;
    char *grown = realloc(c->text, cap);
    if (!grown) return err_set(e, ERR_MEMORY, "no memory for the answer's text");
    c->text = grown;
    c->cap = cap;
    return true;
}

MUST job_prefix(struct choice *c, const char *text, size_t len, struct err *e) {
    if (!make_room(c, len, e)) return false;
    memcpy(c->text + c->len, text, len);
    c->sure = c->len += len;
    return true;
}

/* What of the text is sure now, as the function finds; ends the answer where a stop string begins. */
static void find_stop(struct choice *c, size_t (*scan)(const struct stop *s, const char *text,
                                                       size_t len, bool *is_stop)) {
    bool is_stop;
    c->sure += scan(&c->job->stop, c->text + c->sure, c->len - c->sure, &is_stop);
    if (!is_stop) return;
    c->len = c->sure;
    c->finish = "stop";
    cancel(c);
}

static void finish(struct choice *c) {
    cancel(c);
    c->len += detok_flush(&c->detok, c->text + c->len, c->cap - c->len);
    find_stop(c, stop_end);
    if (!c->finish) c->finish = c->end == ASK_LENGTH ? "length" : "stop";
}

/* The ids that came since. Fails: as the node did; ERR_MEMORY. */
static MUST advance(struct choice *c, struct err *e) {
    struct job_shared *s = c->job->shared;
    if (c->finish) return true;
    pthread_mutex_lock(&s->lock);
    uint32_t n = c->n_id;
    bool is_ended = c->is_ended;
    pthread_mutex_unlock(&s->lock);
    if (n - c->n_read > TAKE) {
        n = c->n_read + TAKE;
        is_ended = false;
        http_wake(c->job->q);  // for the rest
    }
    while (c->n_read < n && !c->finish) {
        if (!make_room(c, DETOK_MAX + sizeof c->detok.held, e)) return false;
        c->len += detok_push(&c->detok, c->id[c->n_read++], c->text + c->len, c->cap - c->len);
        find_stop(c, stop_scan);
    }
    if (c->finish || !is_ended) return true;
    if (c->end == ASK_FAILED) {
        *e = c->why;
        return false;
    }
    if (!make_room(c, sizeof c->detok.held, e)) return false;
    finish(c);
    return true;
}

/* --- text to JSON --- */

static void put_usage(struct json *w, const struct job *j) {
    uint64_t prompt = 0, answer = 0;
    for (uint32_t i = 0; i < j->n_choice; i++) {
        prompt += j->choice[i].n_prompt;
        answer += j->choice[i].n_read;
    }
    json_key(w, "usage");
    json_object(w);
    json_put_u64(w, "prompt_tokens", prompt);
    json_put_u64(w, "completion_tokens", answer);
    json_put_u64(w, "total_tokens", prompt + answer);
    json_end(w);
}

static void put_choice(struct json *w, const struct choice *c, size_t len, const char *finish) {
    json_object(w);
    json_key(w, "text");
    json_string(w, c->text ? c->text : "", len);
    json_put_u64(w, "index", (uint64_t)(c - c->job->choice));
    json_put_text(w, "logprobs", NULL);
    json_put_text(w, "finish_reason", finish);
    json_end(w);
}

/* What a reply or an event is about. */
enum part { PART_WHOLE, PART_TEXT, PART_FINISH, PART_USAGE };

static void put_part(struct json *w, enum part p, const struct job *j, const struct choice *c) {
    json_object(w);
    json_put_text(w, "id", j->id);
    json_put_text(w, "object", "text_completion");
    json_put_u64(w, "created", j->created);
    json_put_text(w, "model", j->model);
    json_key(w, "choices");
    json_array(w);
    for (uint32_t i = 0; p == PART_WHOLE && i < j->n_choice; i++) {
        put_choice(w, &j->choice[i], j->choice[i].sure, j->choice[i].finish);
    }
    if (p == PART_TEXT) put_choice(w, c, c->sure, NULL);
    if (p == PART_FINISH) put_choice(w, c, 0, c->finish);
    json_end(w);
    if (p == PART_WHOLE || p == PART_USAGE) {
        put_usage(w, j);
    } else if (j->has_usage) {
        json_put_text(w, "usage", NULL);
    }
    json_end(w);
}

/* The part's JSON, malloc'ed; NULL: no memory. */
static char *render(enum part p, const struct job *j, const struct choice *c, size_t *len) {
    struct json w;
    char none[1];
    json_mem(&w, none, sizeof none);
    put_part(&w, p, j, c);
    char *out = malloc(w.len + 1);
    if (!out) return NULL;
    json_mem(&w, out, w.len + 1);
    put_part(&w, p, j, c);
    *len = w.len;
    return out;
}

/* --- steps --- */

static void write_text(struct job *j, const char *s) {
    http_write(j->q, s, strlen(s));
}

static MUST write_event(struct job *j, enum part p, const struct choice *c, struct err *e) {
    size_t len = 0;
    char *text = render(p, j, c, &len);
    if (!text) return err_set(e, ERR_MEMORY, "no memory for the answer");
    write_text(j, "data: ");
    http_write(j->q, text, len);
    write_text(j, "\n\n");
    free(text);
    return true;
}

static MUST write_choice(struct job *j, struct choice *c, struct err *e) {
    if (c->is_told) return true;
    if (c->sure) {
        if (!write_event(j, PART_TEXT, c, e)) return false;
        c->len -= c->sure;
        memmove(c->text, c->text + c->sure, c->len);
        c->sure = 0;
    }
    if (!c->finish) return true;
    c->is_told = true;
    return write_event(j, PART_FINISH, c, e);
}

static void write_error(struct job *j, const struct err *why) {
    char text[HTTP_ERROR];
    size_t n = http_error_text(text, sizeof text, job_status(why), "generation_failed", why->text);
    write_text(j, "data: ");
    http_write(j->q, text, n);
    write_text(j, "\n\n");
    http_finish(j->q);
}

static void reply_whole(struct job *j) {
    size_t len = 0;
    char *text = render(PART_WHOLE, j, NULL, &len);
    if (text) {
        http_reply(j->q, 200, "application/json", text, len);
    } else {
        http_error(j->q, 503, NULL, "no memory for the answer");
    }
    free(text);
}

static MUST stream_all(struct job *j, bool is_done, struct err *e) {
    for (uint32_t i = 0; i < j->n_choice; i++) {
        if (!write_choice(j, &j->choice[i], e)) return false;
    }
    if (!is_done) return true;
    if (j->has_usage && !write_event(j, PART_USAGE, NULL, e)) return false;
    write_text(j, "data: [DONE]\n\n");
    http_finish(j->q);
    return true;
}

static void on_step(struct http_job *h, struct http_request *q) {
    struct job *j = (struct job *)h;
    struct err e;
    bool ok = true, is_done = true;
    for (uint32_t i = 0; i < j->n_choice && ok; i++) {
        ok = advance(&j->choice[i], &e);
        is_done = is_done && j->choice[i].finish;
    }
    if (j->is_stream) {
        if (ok) ok = stream_all(j, is_done, &e);
        if (!ok) write_error(j, &e);
    } else if (!ok) {
        http_error(q, job_status(&e), "generation_failed", e.text);
    } else if (is_done) {
        reply_whole(j);
    }
}

static void on_job_end(struct http_job *h) {
    job_free((struct job *)h);
}

/* --- start --- */

unsigned job_status(const struct err *e) {
    switch (e->code) {
    case ERR_LIMIT: return 429;
    case ERR_STOPPED:
    case ERR_UNSUPPORTED:
    case ERR_MEMORY: return 503;
    case ERR_USAGE:
    case ERR_FORMAT: return 400;
    default: return 500;
    }
}

static MUST ask(struct job *j, struct choice *c, struct err *e) {
    struct ask_request r = {.prompt = c->prompt,
                            .n_prompt = c->n_prompt,
                            .n_predict = c->n_predict,
                            .sampler = j->sampler,
                            .grammar = j->grammar,
                            .grammar_text = j->grammar_text,
                            .n_grammar = j->n_grammar,
                            .sequence = (uint64_t)(c - j->choice),
                            .on_tokens = on_tokens,
                            .on_end = on_end,
                            .ctx = c};
    if (!c->n_predict) {
        c->finish = "length";
        return true;
    }
    struct job_shared *s = j->shared;
    c->bytes = ASK_BYTES + 2 * (uint64_t)j->n_grammar + c->n_prompt * sizeof *c->prompt +
               (uint64_t)c->n_predict * TOKEN_BYTES;
    s->bytes += c->bytes;
    if (s->n_ask && s->bytes > s->most_bytes) {
        return err_set(e, ERR_LIMIT,
                       "%u requests are under way, and this node has no memory for more at a time",
                       s->n_ask);
    }
    c->id = malloc(c->n_predict * sizeof *c->id);
    if (!c->id) return err_set(e, ERR_MEMORY, "no memory for %u tokens", c->n_predict);
    if (s->n_ask >= NODE_ASKS) {
        return err_set(e, ERR_LIMIT, "%u requests are under way, the most that this node takes",
                       s->n_ask);
    }
    if (!node_ask(s->node, &r, &c->ticket, e)) return false;
    c->is_asked = true;
    s->n_ask++;
    free(c->prompt);
    c->prompt = NULL;
    return true;
}

MUST job_start(struct job *j, struct err *e) {
    j->http = (struct http_job){.step = on_step, .end = on_job_end};
    for (uint32_t i = 0; i < j->n_choice; i++) {
        if (!ask(j, &j->choice[i], e)) {
            for (uint32_t k = 0; k < i; k++) cancel(&j->choice[k]);
            return false;
        }
    }
    http_wait(j->q, &j->http);
    if (j->is_stream) {
        http_stream(j->q, sse_type, sse_quiet);
    } else {
        http_wake(j->q);  // there may be nothing to wait for
    }
    return true;
}
