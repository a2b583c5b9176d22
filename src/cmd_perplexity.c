/* cmd_perplexity.c - how well a model foretells a text, as exp of the mean of -ln p.
 *
 * The text is cut into windows of the context's length that know nothing of each other; the first token
 * of each (the beginning-of-text token, where the vocabulary has one) is given, all others are scored. */
#include "base/progress.h"
#include "setup_show.h"
#include "verbs.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    TEXT_MOST = 64 << 20,
    WINDOW = 512,  // tokens, unless --ctx says otherwise
    WINDOW_LEAST = 2,
    ROWS_AT_ONCE = 64,
};

struct ppl_conf {
    struct machine machine;
    const char *tokenizer, *file;
    bool is_json, is_quiet;
};

#define AT(field) offsetof(struct ppl_conf, field)
static const struct opt ppl_opt[] = {
    {"-f", OPT_TEXT, AT(file), "FILE", "the text, - for standard input", 0, 0},
    TOKENIZER_OPTION(struct ppl_conf),
    MACHINE_OPTION(struct ppl_conf, "--ctx", OPT_U32, ctx, "N",
                   "tokens of a window (the model's context, at most 512)", WINDOW_LEAST,
                   MODEL_MAX_CTX),
    MACHINE_OPTION(struct ppl_conf, "--memory", OPT_AMOUNT, memory, "SIZE",
                   "memory to use in all: 512M, 4G, or 50% of the RAM", 0, 0),
    MACHINE_OPTION(struct ppl_conf, "--kv", OPT_CHOICE, kv, "f32|f16|q8_0",
                   "how the context is kept in memory (f16)", 0, 0),
    MACHINE_OPTION(struct ppl_conf, "--wire", OPT_CHOICE, wire, "q16|q8|f32",
                   "rounding of what machines would send each other (q16)", 0, 0),
    THREAD_OPTIONS(struct ppl_conf),
    {"--json", OPT_FLAG, AT(is_json), NULL, "the result as a JSON object", 0, 0},
    {"--quiet", OPT_FLAG, AT(is_quiet), NULL, "no progress, only the result", 0, 0},
};

/* The text as tokens, and what is known of it so far. */
struct text {
    int32_t *id;  // [n], malloc'ed
    size_t n;
    int32_t *window;  // [n_ctx]
    double *nll;      // [n_ctx]
    size_t done;      // tokens of windows that are over
    uint64_t n_scored;
    double sum, sum_sq, seconds;
    struct progress progress;
};

static MUST read_text(const struct ppl_conf *c, const struct setup *s, struct text *t,
                      struct err *e) {
    char *text;
    size_t len;
    if (!c->file) return err_set(e, ERR_USAGE, "no text: give -f FILE (- for standard input)");
    size_t most = setup_text_most(s) < TEXT_MOST ? setup_text_most(s) : TEXT_MOST;
    if (!verb_read_all(c->file, most, &text, &len, e)) {
        if (e->code != ERR_LIMIT || most == TEXT_MOST) return false;
        return setup_check_text(s, "text", most + 1, e);
    }
    size_t cap = tok_bound(len) + 2;
    t->id = malloc(cap * sizeof *t->id);
    bool ok = t->id ? tok_encode(s->tok, text, len, 0, t->id, cap, &t->n, e)
                    : err_set(e, ERR_MEMORY, "no memory for a text of %zu bytes", len);
    free(text);
    if (!ok) return false;
    if (t->n >= 2) {
        int32_t *exact = realloc(t->id, t->n * sizeof *t->id);
        if (exact) t->id = exact;
        return true;
    }
    return err_set(e, ERR_FORMAT, "%s has %zu token%s; two are the least",
                   strcmp(c->file, "-") ? c->file : "the text", t->n, t->n == 1 ? "" : "s");
}

static bool on_scored(void *ctx, uint64_t done, uint64_t total) {
    struct text *t = ctx;
    (void)total;
    progress_update(&t->progress, t->done + done, t->n);
    return true;
}

/* The next tokens of the text, behind the one that begins texts. */
static MUST score_window(struct engine *g, const struct setup *s, struct text *t, struct err *e) {
    const struct vocab *v = &s->model.vocab;
    uint32_t n = 0;
    if (v->add_bos && v->bos >= 0) t->window[n++] = v->bos;
    size_t left = t->n - t->done, room = s->conf.n_ctx - n, take = left < room ? left : room;
    memcpy(t->window + n, t->id + t->done, take * sizeof *t->id);
    n += (uint32_t)take;
    if (!engine_score(g, t->window, n, t->nll, on_scored, t, e)) return false;
    for (uint32_t i = 0; i + 1 < n; i++) {
        t->sum += t->nll[i];
        t->sum_sq += t->nll[i] * t->nll[i];
    }
    if (isnan(t->sum)) {
        return err_set(e, ERR_FORMAT,
                       "the model's output is not a number in tokens %zu to %zu of the text",
                       t->done + 1, t->done + take);
    }
    t->n_scored += n - 1;
    t->done += take;
    return true;
}

static void put_result(const struct ppl_conf *c, const struct setup *s, const struct text *t) {
    double n = (double)t->n_scored, mean = t->sum / n;
    double var = n > 1 ? (t->sum_sq - t->sum * mean) / (n - 1) : 0;
    double error = sqrt((var > 0 ? var : 0) / n), ppl = exp(mean);
    if (!c->is_json) {
        printf("perplexity %.4f +- %.4f, nll %.5f +- %.5f, %llu tokens in windows of %u\n", ppl,
               ppl * error, mean, error, (unsigned long long)t->n_scored, s->conf.n_ctx);
        return;
    }
    struct json j;
    json_file(&j, stdout);
    json_object(&j);
    json_put_real(&j, "nll", mean);
    json_put_real(&j, "nll_error", error);
    json_put_real(&j, "perplexity", ppl);
    json_put_real(&j, "perplexity_error", ppl * error);
    json_put_u64(&j, "tokens", t->n_scored);
    json_put_real(&j, "tokens_per_s", t->seconds > 0 ? n / t->seconds : 0);
    setup_json(s, &j);
    json_end(&j);
    json_line(&j);
}

static MUST score_all(const struct ppl_conf *c, struct setup *s, struct text *t, struct err *e) {
    FILE *bars = c->is_json || c->is_quiet ? NULL : stderr;
    struct engine *g;
    if (!engine_open(&g, &s->conf, e)) return false;
    bool ok = setup_load(g, &t->progress, bars, e);
    progress_start(&t->progress, "reading the text", PROGRESS_TOKENS, bars);
    while (ok && t->done < t->n) ok = score_window(g, s, t, e);
    t->seconds = progress_seconds(&t->progress);
    progress_end(&t->progress);
    engine_close(g);
    return ok;
}

/* A window of one token has nothing to score. */
static MUST set_window(const struct setup *s, struct machine *m, struct err *e) {
    uint32_t most = s->model.n_ctx;
    if (!m->ctx) m->ctx = most < WINDOW ? most : WINDOW;
    if (m->ctx >= WINDOW_LEAST) return true;
    return err_set(e, ERR_UNSUPPORTED,
                   "the model was made for a context of %u, a window needs %d tokens; take another "
                   "model",
                   most, WINDOW_LEAST);
}

static MUST work(const struct ppl_conf *c, const char *path, struct setup *s, struct text *t,
                 struct err *e) {
    struct machine m = c->machine;
    m.spec = SPEC_OFF;
    if (!setup_open(s, path, c->tokenizer, MODEL_ALL, e) || !setup_tok(s, e) ||
        !set_window(s, &m, e) || !setup_budget(s, &m, e) || !read_text(c, s, t, e)) {
        return false;
    }
    t->window = malloc(m.ctx * sizeof *t->window);
    t->nll = malloc(m.ctx * sizeof *t->nll);
    if (!t->window || !t->nll) return err_set(e, ERR_MEMORY, "no memory for %u tokens", m.ctx);
    s->n_prompt = s->n_logit = m.ctx < ROWS_AT_ONCE ? m.ctx : ROWS_AT_ONCE;
    if (!setup_fit(s, &m, e) || !setup_probe(s, DISK_IF_NEEDED, e)) return false;
    if (!c->is_json && !c->is_quiet) setup_print_model(s, stderr);
    if (!score_all(c, s, t, e)) return false;
    put_result(c, s, t);
    return true;
}

static MUST perplexity(void *conf, const char *path, struct setup *s, struct err *e) {
    struct text t = {0};
    bool ok = work(conf, path, s, &t, e);
    free(t.id);
    free(t.window);
    free(t.nll);
    return ok;
}

static int perplexity_main(const struct verb *v, int argc, char **argv) {
    struct ppl_conf c = {.machine = MACHINE_DEFAULT};
    return verb_on_model(v, argc, argv, &c, perplexity);
}

const struct verb verb_perplexity = {
    .name = "perplexity",
    .usage = "[MODEL] -f FILE [options]",
    .summary = "Say how well the model foretells a text",
    .notes =
        "The text is cut into windows of --ctx tokens; all but the first token of each are "
        "scored.\nnll is the mean of -ln p, perplexity its exp, each with its standard error.\n"
        "llama-perplexity scores the second half of each window only, so its figures are lower.\n",
    .opt = ppl_opt,
    .n_opt = sizeof ppl_opt / sizeof *ppl_opt,
    .max_word = 1,
    .run = perplexity_main,
};
