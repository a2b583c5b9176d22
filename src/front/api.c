#include "front/api.h"

#include "base/log.h"
#include "front/sampling_json.h"
#include "front/status_json.h"

#include <stdlib.h>
#include <string.h>

enum {
    READING = 48 << 20,  // memory for tokenising, unless told
    ANSWERS = 16 << 20,  // for answers under way, unless told
    MAX_TOKENS = 16,     // OpenAI's default for this endpoint
};

/* Why a request is refused. */
struct refusal {
    unsigned status;
    const char *code;  // NULL: the status's own
    struct err err;
};

void api_init(struct api *a, struct node *node, const struct tok *tok, uint32_t n_ctx,
              uint64_t reading, uint64_t answers) {
    *a = (struct api){.jobs = {.node = node, .tok = tok}, .n_ctx = n_ctx};
    a->jobs.most_bytes = answers ? answers : ANSWERS;
    pthread_mutex_init(&a->jobs.lock, NULL);
    uint64_t most = (reading ? reading : READING) / TOK_BYTES;
    if (tok && most > (uint64_t)n_ctx * tok_longest(tok)) most = (uint64_t)n_ctx * tok_longest(tok);
    a->prompt_bytes = (size_t)most;
}

void api_destroy(struct api *a) {
    pthread_mutex_destroy(&a->jobs.lock);
}

/* --- options --- */

/* What is asked for beside the prompt. */
struct options {
    struct sampler sampler;
    struct stop stop;
    enum grammar_kind grammar;
    char *grammar_text;  // owned, until a job takes it
    size_t n_grammar;
    char note[GRAMMAR_NOTE];  // what of it is not enforced
    int64_t max_tokens;
    bool is_stream, has_usage, is_echo;
    char model[JOB_NAME];
};

/* Keys that change the answer and are not served: only the value that changes nothing passes. */
static bool is_neutral(const struct json_value *root, const char *key, double neutral) {
    const struct json_value *v = json_find(root, key);
    struct err ignored;
    struct json_chars s = {"", 0};
    double x;
    bool b = false;
    switch (json_kind(v)) {
    case JSON_NULL: return true;
    case JSON_BOOL: return json_want_bool(root, key, &b, &ignored) && !b;
    case JSON_NUMBER: return json_want_real(root, key, neutral, neutral, &x, &ignored);
    case JSON_STRING: return json_want_chars(root, key, &s, &ignored) && s.len == 0;
    case JSON_ARRAY:
    case JSON_OBJECT: break;
    }
    return json_size(v) == 0;
}

static MUST check_unserved(const struct json_value *root, struct err *e) {
    static const struct {
        const char *key;
        double neutral;
    } unserved[] = {{"n", 1},
                    {"best_of", 1},
                    {"logprobs", -1},
                    {"suffix", 0},
                    /* llama.cpp's */
                    {"mirostat", 0},
                    {"dry_multiplier", 0},
                    {"xtc_probability", 0},
                    {"adaptive_target", -1},
                    {"n_probs", 0},
                    {"min_keep", 0},
                    {"samplers", 0},
                    {"ignore_eos", 0},
                    {"n_indent", 0},
                    {"t_max_predict_ms", 0},
                    /* vLLM's */
                    {"repetition_penalty", 1},
                    {"min_tokens", 0}};
    for (size_t i = 0; i < sizeof unserved / sizeof *unserved; i++) {
        if (is_neutral(root, unserved[i].key, unserved[i].neutral)) continue;
        if (i == 0) {
            return err_set(e, ERR_UNSUPPORTED,
                           "\"n\" can only be 1; for several answers give \"prompt\" as a list "
                           "that has the prompt several times");
        }
        return err_set(e, ERR_UNSUPPORTED, "\"%s\" is not supported here; leave it out",
                       unserved[i].key);
    }
    return true;
}

static MUST read_stop(const struct json_value *root, struct stop *stop, struct err *e) {
    struct json_chars string[STOP_MAX];
    size_t n = 0;
    const struct json_value *v = json_find(root, "stop");
    if (v && !json_as_strings(v, "stop", string, STOP_MAX, &n, e)) return false;
    return stop_init(stop, string, n, e);
}

static MUST read_options(const struct api *a, const struct json_value *root, struct options *o,
                         struct err *e) {
    struct json_chars model = {"", 0};
    const struct json_value *stream = NULL;
    o->max_tokens = MAX_TOKENS;
    if (!json_want_int(root, "max_tokens", -1, INT32_MAX, &o->max_tokens, e) ||
        !json_want_bool(root, "stream", &o->is_stream, e) ||
        !json_want_bool(root, "echo", &o->is_echo, e) ||
        !json_want_chars(root, "model", &model, e) ||
        !json_want_object(root, "stream_options", &stream, e) ||
        (stream && !json_want_bool(stream, "include_usage", &o->has_usage, e))) {
        return false;
    }
    if (model.len >= sizeof o->model) {
        return err_set(e, ERR_LIMIT, "\"model\" is longer than %d bytes", JOB_NAME - 1);
    }
    memcpy(o->model, model.s, model.len);
    o->model[model.len] = '\0';
    return sampling_read(root, &o->sampler, e) &&
           sampler_check_ids(&o->sampler, tok_count(a->jobs.tok), e) &&
           read_stop(root, &o->stop, e) && check_unserved(root, e) &&
           grammar_read(root, &o->grammar, &o->grammar_text, &o->n_grammar, o->note, e);
}

/* --- prompts --- */

/* One prompt, or each of a list of them. */
static MUST list_prompts(const struct json_value *root, const struct json_value **list, uint32_t *n,
                         struct err *e) {
    const struct json_value *v = json_find(root, "prompt");
    size_t size = json_size(v);
    list[0] = v;
    *n = 1;
    if (!v) return err_set(e, ERR_FORMAT, "\"prompt\" is missing");
    if (json_kind(v) == JSON_STRING) return true;
    if (json_kind(v) != JSON_ARRAY || size == 0) {
        return err_set(e, ERR_FORMAT,
                       "\"prompt\" must be a string, a list of token ids, or a list "
                       "of such");
    }
    if (json_kind(json_item(v, 0)) == JSON_NUMBER) return true;
    if (size > JOB_CHOICES) {
        return err_set(e, ERR_LIMIT, "\"prompt\" has %zu prompts, and %d is the most taken here",
                       size, JOB_CHOICES);
    }
    for (uint32_t i = 0; i < size; i++) {
        list[i] = json_item(v, i);
        if (json_kind(list[i]) != JSON_STRING && json_kind(list[i]) != JSON_ARRAY) {
            return err_set(e, ERR_FORMAT,
                           "\"prompt\" must hold strings or lists of token ids, not %s",
                           json_kind_name(json_kind(list[i])));
        }
    }
    *n = (uint32_t)size;
    return true;
}

static bool too_long(const struct api *a, const char *least, size_t n, struct refusal *r) {
    r->code = "context_length_exceeded";
    return err_set(&r->err, ERR_LIMIT,
                   "the prompt has %s%zu tokens, which exceeds the available context size: it "
                   "holds %u with the answer; shorten the prompt",
                   least, n, a->n_ctx);
}

static MUST encode_text(const struct api *a, struct json_chars s, struct choice *c,
                        struct refusal *r) {
    const struct tok *tok = a->jobs.tok;
    size_t longest = tok_longest(tok), cap = tok_bound(s.len), n = 0;
    if (s.len > a->prompt_bytes) {
        size_t least = (s.len + longest - 1) / longest;
        if (least > a->n_ctx) return too_long(a, "at least ", least, r);
        return err_set(&r->err, ERR_LIMIT,
                       "the prompt has %zu bytes, and %zu is the most that this node has memory to "
                       "make tokens of",
                       s.len, a->prompt_bytes);
    }
    c->prompt = malloc(cap * sizeof *c->prompt);
    if (!c->prompt) {
        r->status = 503;
        return err_set(&r->err, ERR_MEMORY, "no memory for a prompt of %zu bytes", s.len);
    }
    if (!tok_encode(tok, s.s, s.len, TOK_BOS | TOK_SPECIAL, c->prompt, cap, &n, &r->err)) {
        return false;
    }
    if (n == 0) return err_set(&r->err, ERR_FORMAT, "\"prompt\" is empty");
    if (n >= a->n_ctx) return too_long(a, "", n, r);
    c->n_prompt = (uint32_t)n;
    int32_t *exact = realloc(c->prompt, n * sizeof *exact);
    if (exact) c->prompt = exact;
    return true;
}

static MUST take_ids(const struct api *a, const struct json_value *list, struct choice *c,
                     struct refusal *r) {
    size_t n = json_size(list);
    int32_t last = (int32_t)tok_count(a->jobs.tok) - 1;
    if (n == 0) return err_set(&r->err, ERR_FORMAT, "\"prompt\" is empty");
    if (n >= a->n_ctx) return too_long(a, "", n, r);
    c->prompt = malloc(n * sizeof *c->prompt);
    if (!c->prompt) {
        r->status = 503;
        return err_set(&r->err, ERR_MEMORY, "no memory for a prompt of %zu tokens", n);
    }
    if (!json_as_ints(list, "prompt", 0, last, c->prompt, n, &n, &r->err)) return false;
    c->n_prompt = (uint32_t)n;
    return true;
}

/* The prompt's text before the answer: as it was sent, or what its ids say. */
static MUST echo(const struct api *a, const struct json_value *v, struct choice *c, struct err *e) {
    struct json_chars s = {"", 0};
    size_t n;
    if (json_kind(v) == JSON_STRING) {
        return json_as_strings(v, "prompt", &s, 1, &n, e) && job_prefix(c, s.s, s.len, e);
    }
    struct detok d;
    char piece[DETOK_MAX + 4];
    detok_init(&d, a->jobs.tok, true);
    for (uint32_t i = 0; i < c->n_prompt; i++) {
        n = detok_push(&d, c->prompt[i], piece, sizeof piece);
        if (!job_prefix(c, piece, n, e)) return false;
    }
    n = detok_flush(&d, piece, sizeof piece);
    return job_prefix(c, piece, n, e);
}

static MUST prepare(const struct api *a, const struct json_value *v, const struct options *o,
                    struct choice *c, struct refusal *r) {
    struct json_chars s;
    size_t n;
    bool ok = json_kind(v) == JSON_STRING
                  ? json_as_strings(v, "prompt", &s, 1, &n, &r->err) && encode_text(a, s, c, r)
                  : take_ids(a, v, c, r);
    if (!ok || (o->is_echo && !echo(a, v, c, &r->err))) return false;
    uint32_t room = a->n_ctx - c->n_prompt;
    c->n_predict = o->max_tokens < 0 || o->max_tokens > room ? room : (uint32_t)o->max_tokens;
    return true;
}

/* --- requests --- */

static MUST no_model(const struct api *a, struct err *e) {
    char where[STATUS_TEXT];
    struct status *s = malloc(sizeof *s);
    if (s) node_status(a->jobs.node, s);
    err_set(e, ERR_UNSUPPORTED, "%s", status_no_model(s, where, sizeof where));
    free(s);
    return false;
}

/* What the model is called when the request does not say. */
static void name_model(const struct api *a, struct job *j) {
    struct status *s = j->model[0] ? NULL : malloc(sizeof *s);
    if (!s) return;
    node_status(a->jobs.node, s);
    snprintf(j->model, sizeof j->model, "%s", s->model.name);
    free(s);
}

/* Nothing fails for it, so that schemas written for others are taken; but it is told. */
static void log_note(struct api *a, const char *note) {
    unsigned missed;
    if (!*note || !log_may(&a->noted, &missed)) return;
    log_info("front", "a request was taken, but %s (%u others since this was last said)", note,
             missed);
}

static MUST start(struct api *a, struct http_request *q, const struct json_value *root,
                  struct refusal *r) {
    const struct json_value *prompt[JOB_CHOICES];
    struct options o = {0};
    uint32_t n;
    if (json_kind(root) != JSON_OBJECT) {
        return err_set(&r->err, ERR_FORMAT, "the body must be a JSON object, not %s",
                       json_kind_name(json_kind(root)));
    }
    if (!list_prompts(root, prompt, &n, &r->err)) return false;
    if (!read_options(a, root, &o, &r->err)) return false;
    struct job *j = job_new(&a->jobs, q, n);
    if (!j) {
        free(o.grammar_text);
        r->status = 503;
        return err_set(&r->err, ERR_MEMORY, "no memory for another request");
    }
    j->stop = o.stop;
    j->sampler = o.sampler;
    j->grammar = o.grammar;
    j->grammar_text = o.grammar_text;
    j->n_grammar = (uint32_t)o.n_grammar;
    j->is_stream = o.is_stream;
    j->has_usage = o.has_usage;
    memcpy(j->model, o.model, sizeof j->model);
    name_model(a, j);
    bool ok = true;
    for (uint32_t i = 0; i < n && ok; i++) ok = prepare(a, prompt[i], &o, &j->choice[i], r);
    if (ok) {
        if (*o.note) http_warn(q, o.note);
        ok = job_start(j, &r->err);
        if (!ok) r->status = job_status(&r->err);
    }
    if (ok) log_note(a, o.note);
    if (!ok) job_free(j);
    return ok;
}

void api_completions(struct api *a, struct http_request *q) {
    struct refusal r = {.status = 400};
    struct json_doc *doc = NULL;
    size_t len;
    const char *body = http_body(q, &len);
    bool ok;
    if (!a->jobs.tok) {
        r.status = 503;
        ok = no_model(a, &r.err);
    } else if (!len) {
        ok = err_set(&r.err, ERR_FORMAT, "the body is empty; a JSON object is wanted");
    } else if (!json_read(&doc, body, len, HTTP_BODY, &r.err)) {
        if (r.err.code == ERR_MEMORY) r.status = 503;
        ok = err_in(&r.err, "the body");
    } else {
        ok = start(a, q, json_root(doc), &r);
    }
    if (!ok) http_error(q, r.status, r.code, r.err.text);
    json_free(doc);
}
