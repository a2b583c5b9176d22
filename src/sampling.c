#include "sampling.h"

#include "verbs.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ID:VALUE; -inf bans. */
static MUST read_bias(const char *text, struct bias *b, struct err *e) {
    const char *mark = strchr(text, ':');
    char id[16];
    uint64_t n;
    double value;
    size_t len = mark ? (size_t)(mark - text) : sizeof id;
    bool ok = len < sizeof id;
    if (ok) {
        memcpy(id, text, len);
        id[len] = '\0';
        bool is_ban = strcmp(mark + 1, "-inf") == 0;
        if (is_ban) value = -INFINITY;
        ok = text_u64(id, &n) && n <= INT32_MAX && (is_ban || text_real(mark + 1, &value));
    }
    if (!ok) {
        return err_set(e, ERR_USAGE, "--logit-bias takes ID:VALUE such as 17:-2.5, not \"%.60s\"",
                       text);
    }
    /* Past float's range a number would become a ban. */
    if (isfinite(value) && fabs(value) > SAMPLER_BIAS_VALUE) {
        return err_set(e, ERR_USAGE, "logit bias %g is out of range: -%d to %d, or -inf", value,
                       SAMPLER_BIAS_VALUE, SAMPLER_BIAS_VALUE);
    }
    *b = (struct bias){.id = (int32_t)n, .value = (float)value};
    return true;
}

static MUST read_stop(const struct text_list *list, struct stop *stop, struct err *e) {
    struct json_chars text[STOP_MAX];
    for (unsigned i = 0; i < list->n; i++) {
        text[i] = (struct json_chars){list->text[i], strlen(list->text[i])};
        if (text[i].len == 0) return err_set(e, ERR_USAGE, "--stop takes a text that is not empty");
    }
    if (stop_init(stop, text, list->n, e)) return true;
    e->code = ERR_USAGE;
    return false;
}

MUST sampling_make(const struct sampling *c, struct sampler *s, struct stop *stop, struct err *e) {
    *s = (struct sampler){.temp = (float)c->temp,
                          .top_k = (int32_t)c->top_k,
                          .top_p = (float)c->top_p,
                          .min_p = (float)c->min_p,
                          .seed = c->seed,
                          .typical = (float)c->typical,
                          .repeat = (float)c->repeat,
                          .presence = (float)c->presence,
                          .frequency = (float)c->frequency,
                          .last_n = (int32_t)c->last_n,
                          .top_n_sigma = (float)c->top_n_sigma,
                          .temp_range = (float)c->temp_range,
                          .temp_exponent = (float)c->temp_exponent,
                          .n_bias = c->bias.n};
    for (uint32_t i = 0; i < s->n_bias; i++) {
        if (!read_bias(c->bias.text[i], &s->bias[i], e)) return false;
    }
    return sampler_check(s, e) && read_stop(&c->stop, stop, e);
}

/* Rules, or JSON by how it begins. */
static bool is_like(enum grammar_kind kind, const char *given) {
    if (kind == GRAMMAR_GBNF) return strstr(given, "::=") != NULL;
    given += strspn(given, " \t\r\n");
    return *given && (strchr("{[\"", *given) || !strcmp(given, "true") || !strcmp(given, "false") ||
                      !strcmp(given, "null"));
}

/* A file where there is one of that name; what cannot be a grammar or schema was meant to be one. */
static MUST read_held(struct held *h, const char *given, struct err *e) {
    bool is_file = !strcmp(given, "-") || access(given, F_OK) == 0, is_absent = errno == ENOENT;
    if (!is_file && is_like(h->kind, given)) {
        h->len = strlen(given);
        h->text = strdup(given);
        return h->text || err_set(e, ERR_MEMORY, "no memory for a grammar");
    }
    if (!is_file && is_absent) {
        return err_set(e, ERR_IO, "%s is neither a file that is there nor %s", given,
                       h->kind == GRAMMAR_GBNF ? "a grammar (root ::= ...)" : "a schema ({...})");
    }
    h->file = given;
    return verb_read_all(given, GRAMMAR_TEXT, &h->text, &h->len, e);
}

MUST sampling_draft(struct setup *s, const struct machine *m, const char *path, struct err *e) {
    if (m->spec == SPEC_DRAFT && !path) {
        return err_set(e, ERR_USAGE, "--spec draft needs --draft MODEL");
    }
    if (path && (m->spec == SPEC_OFF || m->spec == SPEC_NGRAM)) {
        return err_set(e, ERR_USAGE,
                       "--spec %s has no use for --draft; leave one of them out, or take --spec "
                       "draft or auto",
                       m->spec == SPEC_OFF ? "off" : "ngram");
    }
    return !path || setup_draft(s, path, e);
}

MUST held_open(struct held *h, const struct sampling *c, struct err *e) {
    *h = (struct held){.kind = c->schema ? GRAMMAR_SCHEMA : GRAMMAR_GBNF};
    const char *given = c->schema ? c->schema : c->grammar;
    const char *option = c->schema ? "--json-schema" : "--grammar";
    if (c->schema && c->grammar) {
        return err_set(e, ERR_USAGE, "--grammar and --json-schema exclude each other");
    }
    if (!given) {
        h->kind = GRAMMAR_NONE;
        return true;
    }
    if (!read_held(h, given, e)) return err_in(e, option);
    if (grammar_open(&h->grammar, h->kind, h->text, h->len, e)) return true;
    if (e->code != ERR_MEMORY) e->code = h->file ? ERR_FORMAT : ERR_USAGE;
    return h->file ? err_in_file(e, h->file) : err_in(e, option);
}

MUST held_vocabulary(struct held *h, const struct tok *t, struct err *e) {
    return !h->grammar || lexicon_open(&h->lexicon, t, e);
}

void held_close(struct held *h) {
    lexicon_close(h->lexicon);
    grammar_close(h->grammar);
    free(h->text);
    *h = (struct held){0};
}
