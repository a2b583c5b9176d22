#include "front/front.h"

#include "base/log.h"
#include "front/api.h"
#include "front/status_json.h"

#include <stdlib.h>
#include <string.h>

struct front {
    struct node *node;
    struct api api;
    struct http *http;
};

/* What a status page shows at one moment. */
struct snapshot {
    struct status status;
    char log[LOG_KEPT][LOG_LINE];
    size_t n_log;
};

static struct snapshot *snapshot(const struct front *f) {
    struct snapshot *s = calloc(1, sizeof *s);
    if (!s) return NULL;
    node_status(f->node, &s->status);
    s->n_log = log_recent(s->log, LOG_KEPT);
    return s;
}

static void no_memory(struct http_request *q) {
    http_error(q, 503, NULL, "no memory to tell the status");
}

static void get_status(void *ctx, struct http_request *q) {
    struct snapshot *s = snapshot(ctx);
    struct json j = {0};
    char none[1], *text = NULL;
    if (s) {
        json_mem(&j, none, sizeof none);
        status_json(&j, &s->status, s->log, s->n_log);
        size_t room = j.len + 1;
        text = malloc(room);
        if (text) {
            json_mem(&j, text, room);
            status_json(&j, &s->status, s->log, s->n_log);
        }
    }
    if (text) {
        http_reply(q, 200, "application/json", text, j.len);
    } else {
        no_memory(q);
    }
    free(text);
    free(s);
}

static void get_health(void *ctx, struct http_request *q) {
    struct snapshot *s = snapshot(ctx);
    struct json j;
    char text[4096];
    if (!s) {
        no_memory(q);
        return;
    }
    json_mem(&j, text, sizeof text);
    bool is_ok = status_health(&j, &s->status);
    http_reply(q, is_ok ? 200 : 503, "application/json", text, j.is_full ? 0 : j.len);
    free(s);
}

static void get_root(void *ctx, struct http_request *q) {
    static const char text[] = "Distributed-AirLLM " DAIR_VERSION "\n\n"
                               "GET  /health          whether it serves\n"
                               "GET  /status.json     all that the node knows of itself\n"
                               "POST /v1/completions  OpenAI's API\n";
    (void)ctx;
    http_reply(q, 200, "text/plain; charset=utf-8", text, sizeof text - 1);
}

static void post_completions(void *ctx, struct http_request *q) {
    struct front *f = ctx;
    api_completions(&f->api, q);
}

static const struct http_route route[] = {
    {"GET", "/", false, get_root},
    {"GET", "/health", false, get_health},
    {"GET", "/status.json", false, get_status},
    {"POST", "/v1/completions", true, post_completions},
};

MUST front_open(struct front **out, const struct front_conf *c, struct err *e) {
    struct front *f = calloc(1, sizeof *f);
    *out = NULL;
    if (!f) return err_set(e, ERR_MEMORY, "no memory for the HTTP service");
    f->node = c->node;
    /* Nearly half for reading a body and making tokens of it, one at a time; for answers under way as much
     * as the smallest node needs for twelve; the rest for connections and bodies on their way in. */
    uint64_t part = c->memory / 32;
    api_init(&f->api, c->node, c->tok, c->n_ctx, 15 * part, 5 * part);
    struct http_conf conf = {.interface = c->interface,
                             .api_key = c->api_key,
                             .port = c->port,
                             .memory = 12 * part,
                             .times = c->times,
                             .route = route,
                             .n_route = sizeof route / sizeof *route,
                             .ctx = f};
    if (!http_open(&f->http, &conf, e)) {
        api_destroy(&f->api);
        free(f);
        return false;
    }
    log_info("front", "HTTP on port %u", http_port(f->http));
    *out = f;
    return true;
}

uint16_t front_port(const struct front *f) {
    return http_port(f->http);
}

void front_settle(struct front *f, unsigned ms) {
    http_settle(f->http, ms);
}

void front_close(struct front *f) {
    http_close(f->http);
    api_destroy(&f->api);
    free(f);
}
