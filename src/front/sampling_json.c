#include "front/sampling_json.h"

#include "base/text.h"
#include "model/model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

static MUST read_seed(const struct json_value *root, uint64_t *seed, struct err *e) {
    int64_t given = -1;
    if (!json_want_int(root, "seed", INT64_MIN, INT64_MAX, &given, e)) return false;
    *seed = (uint64_t)given;
    if (given != -1) return true;
    if (getrandom(seed, sizeof *seed, 0) == sizeof *seed) return true;
    return err_sys(e, "no random number for a seed");
}

static MUST want_float(const struct json_value *root, const char *key, double min, double max,
                       float *out, struct err *e) {
    double x = (double)*out;
    if (!json_want_real(root, key, min, max, &x, e)) return false;
    *out = (float)x;
    return true;
}

static MUST add_bias(struct sampler *s, int64_t id, const struct json_value *v, struct err *e) {
    if (s->n_bias == SAMPLER_BIAS) {
        return err_set(e, ERR_LIMIT, "\"logit_bias\" has more than %d tokens, the most taken here",
                       SAMPLER_BIAS);
    }
    struct bias *b = &s->bias[s->n_bias++];
    *b = (struct bias){.id = (int32_t)id};
    double most = SAMPLER_BIAS_VALUE, x;
    if (json_kind(v) == JSON_BOOL && !json_bool_of(v)) {  // llama.cpp's way to ban
        b->value = -INFINITY;
        return true;
    }
    if (!json_as_real(v, "logit_bias", -most, most, &x, e)) return false;
    b->value = (float)x;
    return true;
}

/* {"ID": VALUE, ..}, OpenAI's way. */
static MUST read_bias_object(const struct json_value *v, struct sampler *s, struct err *e) {
    struct json_iter at;
    struct json_chars key;
    json_members(&at, v);
    while (json_next(&at, &key, &v)) {
        uint64_t id;
        if (strlen(key.s) != key.len || !text_u64(key.s, &id) || id > INT32_MAX) {
            return err_set(e, ERR_FORMAT, "\"logit_bias\" must name tokens by id, not \"%.40s\"",
                           key.s);
        }
        if (!add_bias(s, (int64_t)id, v, e)) return false;
    }
    return true;
}

/* [[ID, VALUE], ..], llama.cpp's way. */
static MUST read_bias_list(const struct json_value *v, struct sampler *s, struct err *e) {
    if (json_size(v) > SAMPLER_BIAS) {
        return err_set(e, ERR_LIMIT, "\"logit_bias\" has %zu tokens, and %d is the most taken here",
                       json_size(v), SAMPLER_BIAS);
    }
    for (size_t i = 0; i < json_size(v); i++) {
        const struct json_value *pair = json_item(v, i);
        int64_t id;
        if (json_kind(pair) != JSON_ARRAY || json_size(pair) != 2) {
            return err_set(e, ERR_FORMAT, "\"logit_bias\" as a list must hold pairs [id, value]");
        }
        if (!json_as_int(json_item(pair, 0), "logit_bias", 0, INT32_MAX, &id, e)) return false;
        if (!add_bias(s, id, json_item(pair, 1), e)) return false;
    }
    return true;
}

static MUST read_bias(const struct json_value *root, struct sampler *s, struct err *e) {
    const struct json_value *v = json_find(root, "logit_bias");
    if (!v) return true;
    if (json_kind(v) == JSON_OBJECT) return read_bias_object(v, s, e);
    if (json_kind(v) == JSON_ARRAY) return read_bias_list(v, s, e);
    return err_set(e, ERR_FORMAT, "\"logit_bias\" must be an object or a list, not %s",
                   json_kind_name(json_kind(v)));
}

MUST sampling_read(const struct json_value *root, struct sampler *s, struct err *e) {
    int64_t top_k = 40, last_n = SAMPLER_LAST_N;
    *s = (struct sampler){.temp = 0.8F,
                          .top_p = 0.95F,
                          .min_p = 0.05F,
                          .typical = 1,
                          .repeat = 1,
                          .temp_exponent = 1};
    if (!want_float(root, "temperature", 0, 100, &s->temp, e) ||
        !want_float(root, "top_p", 0, 1, &s->top_p, e) ||
        !want_float(root, "min_p", 0, 1, &s->min_p, e) ||
        !want_float(root, "typical_p", 0, 1, &s->typical, e) ||
        !want_float(root, "repeat_penalty", 0.01, 100, &s->repeat, e) ||
        !want_float(root, "presence_penalty", -100, 100, &s->presence, e) ||
        !want_float(root, "frequency_penalty", -100, 100, &s->frequency, e) ||
        !want_float(root, "top_n_sigma", -1, 1000, &s->top_n_sigma, e) ||
        !want_float(root, "dynatemp_range", 0, 100, &s->temp_range, e) ||
        !want_float(root, "dynatemp_exponent", 0, 100, &s->temp_exponent, e) ||
        !json_want_int(root, "top_k", -1, MODEL_MAX_VOCAB, &top_k, e) ||
        !json_want_int(root, "repeat_last_n", -1, SAMPLER_WINDOW, &last_n, e) ||
        !read_bias(root, s, e) || !read_seed(root, &s->seed, e)) {
        return false;
    }
    if (s->top_n_sigma < 0) s->top_n_sigma = 0;  // llama.cpp's way to say off
    s->top_k = (int32_t)top_k;
    s->last_n = last_n < 0 ? SAMPLER_WINDOW : (int32_t)last_n;  // -1: the widest
    return sampler_check(s, e);
}

/* --- grammars --- */

/* The schema that a response_format asks for; json_object: any object. */
static MUST read_format(const struct json_value *root, const struct json_value **schema,
                        bool *is_object, struct err *e) {
    const struct json_value *format = NULL, *named = NULL;
    struct json_chars type = {"text", 4};
    if (!json_want_object(root, "response_format", &format, e)) return false;
    if (!format) return true;
    if (!json_want_chars(format, "type", &type, e)) return false;
    if (!strcmp(type.s, "text")) return true;
    *schema = json_find(format, "schema");  // llama.cpp's place for it
    if (!strcmp(type.s, "json_object")) {
        *is_object = !*schema;
        return true;
    }
    if (strcmp(type.s, "json_schema")) {
        return err_set(e, ERR_UNSUPPORTED,
                       "\"response_format\" can be text, json_object or json_schema here");
    }
    if (!json_want_object(format, "json_schema", &named, e)) return false;
    if (named) *schema = json_find(named, "schema");
    return *schema || err_set(e, ERR_FORMAT, "\"response_format\" has no schema");
}

static MUST take_text(enum grammar_kind kind, struct json_chars s, enum grammar_kind *kind_out,
                      char **text, size_t *len, struct err *e) {
    char *copy = malloc(s.len + 1);
    if (!copy) return err_set(e, ERR_MEMORY, "no memory for a grammar");
    memcpy(copy, s.s, s.len);
    copy[s.len] = '\0';
    *kind_out = kind;
    *text = copy;
    *len = s.len;
    return true;
}

static MUST find_grammar(const struct json_value *root, enum grammar_kind *kind, char **text,
                         size_t *len, struct err *e) {
    static const struct json_chars object = {"{\"type\":\"object\"}", 17};
    const struct json_value *schema = NULL, *own = json_find(root, "json_schema");
    struct json_chars gbnf = {"", 0};
    bool is_object = false;
    if (!json_want_chars(root, "grammar", &gbnf, e)) return false;
    if (!read_format(root, &schema, &is_object, e)) return false;
    if ((gbnf.len > 0) + (own != NULL) + (schema || is_object) > 1) {
        return err_set(
            e, ERR_USAGE,
            "of \"grammar\", \"json_schema\" and \"response_format\" only one can be given");
    }
    if (own) schema = own;
    if (gbnf.len) return take_text(GRAMMAR_GBNF, gbnf, kind, text, len, e);
    if (is_object) return take_text(GRAMMAR_SCHEMA, object, kind, text, len, e);
    if (!schema) return true;
    *kind = GRAMMAR_SCHEMA;
    if (json_kind(schema) != JSON_STRING) return json_print(schema, text, len, e);
    struct json_chars s;  // a schema as a text
    size_t n;
    return json_as_strings(schema, "json_schema", &s, 1, &n, e) &&
           take_text(GRAMMAR_SCHEMA, s, kind, text, len, e);
}

MUST grammar_read(const struct json_value *root, enum grammar_kind *kind, char **text, size_t *len,
                  char *note, struct err *e) {
    struct grammar *g;
    *kind = GRAMMAR_NONE;
    *text = NULL;
    *len = 0;
    *note = '\0';
    if (!find_grammar(root, kind, text, len, e)) return false;
    if (*kind == GRAMMAR_NONE) return true;
    if (grammar_open(&g, *kind, *text, *len, e)) {
        const char *said = grammar_note(g);
        if (said) snprintf(note, GRAMMAR_NOTE, "%s", said);
        grammar_close(g);
        return true;
    }
    free(*text);
    *text = NULL;
    return false;
}
