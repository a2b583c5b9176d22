#include "model/chat.h"

#include "model/chat_fit.h"
#include "model/chat_parts.h"
#include "model/gguf.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

struct chat {
    const struct tok *tok;
    const char *where;  // the file that has the template, NULL: it was given
    struct jinja *jinja;
    struct jinja *tool_jinja;  // for requests with tools, or NULL: as the others
    struct err tool_err;       // why the model's own for them is none
    enum chat_kind kind;
    struct reasoning_style style;
    struct json_chars bos, eos, unk;  // texts of the tokens
    struct json_doc *switches[2];     // variables that turn thinking off, on
};

/* One turn after the other, as the ChatML family writes them. */
static const char chatml[] =
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

/* Nothing but the texts; a system text stands ahead of the others. */
static const char plain[] =
    "{% for m in messages %}{{ m.content }}{% if not loop.last %}{{ '\\n\\n' }}{% endif %}{% endfor %}";

static bool has_token(const struct tok *t, const char *name) {
    return tok_is_special(t, tok_find(t, name, strlen(name)));
}

/* The spelling of a token, "" where there is none. */
static struct json_chars token_text(const struct tok *t, int32_t id) {
    struct json_chars c = {.s = ""};
    if (id >= 0) c.len = tok_piece(t, id, true, &c.s);
    return c;
}

/* Names under which templates know the switch. */
static MUST read_switches(struct chat *c, struct err *e) {
    static const char *const text[2] = {
        "{\"enable_thinking\":false,\"thinking\":false,\"reasoning\":false,"
        "\"reasoning_effort\":\"low\"}",
        "{\"enable_thinking\":true,\"thinking\":true,\"reasoning\":true}"};
    for (int i = 0; i < 2; i++) {
        size_t len = strlen(text[i]);
        if (!json_read(&c->switches[i], text[i], len, len, e)) return false;
    }
    return true;
}

/* Adds the file to what is wrong with its template. */
static bool in_file(const struct chat *c, struct err *e) {
    return c->where ? err_in_file(e, c->where) : false;
}

static MUST open_format(struct chat *c, const struct model *m, const char *text, size_t len,
                        struct err *e) {
    bool is_given = text != NULL;
    c->kind = CHAT_TEMPLATE;
    if (!text && m->chat_template && *m->chat_template) {
        text = m->chat_template;
        len = strlen(text);
    }
    if (!text) {
        bool is_chatml = has_token(c->tok, "<|im_start|>") && has_token(c->tok, "<|im_end|>");
        c->kind = is_chatml ? CHAT_FALLBACK : CHAT_PLAIN;
        text = is_chatml ? chatml : plain;
        len = strlen(text);
    }
    c->style = reasoning_style(text, len);
    const char *tools = is_given || !m->tool_template ? "" : m->tool_template;
    size_t n_tools = strlen(tools);
    if (c->style.kind == REASONING_NONE) c->style = reasoning_style(tools, n_tools);
    if (c->kind != CHAT_TEMPLATE && has_token(c->tok, "</think>")) {
        c->style = reasoning_style("<think>", strlen("<think>"));
    }
    /* Most requests have no tools, and can do without. */
    if (n_tools && !jinja_compile(&c->tool_jinja, tools, n_tools, &c->tool_err)) {
        (void)err_in(&c->tool_err, "tool_use, the model's template for tools");
        (void)in_file(c, &c->tool_err);
    }
    return (jinja_compile(&c->jinja, text, len, e) || in_file(c, e)) && read_switches(c, e);
}

MUST chat_open(struct chat **out, const struct model *m, const struct tok *t, const char *text,
               size_t len, struct err *e) {
    *out = NULL;
    struct chat *c = calloc(1, sizeof *c);
    if (!c) return err_set(e, ERR_MEMORY, "no memory for the chat template");
    c->tok = t;
    if (!text && m->n_file && !m->file[0].base) c->where = m->file[0].path;
    c->bos = token_text(t, m->vocab.bos);
    c->eos = token_text(t, m->vocab.eos);
    c->unk = token_text(t, m->vocab.unk);
    if (!open_format(c, m, text, len, e)) {
        chat_close(c);
        return false;
    }
    *out = c;
    return true;
}

void chat_close(struct chat *c) {
    if (!c) return;
    for (int i = 0; i < 2; i++) {
        if (c->switches[i]) json_free(c->switches[i]);
    }
    jinja_free(c->jinja);
    jinja_free(c->tool_jinja);
    free(c);
}

enum chat_kind chat_kind(const struct chat *c) {
    return c->kind;
}

const char *chat_note(const struct chat *c) {
    static const char *const note[] = {
        [CHAT_PLAIN] = "the model has no chat template: the prompt goes in as it is",
        [CHAT_FALLBACK] = "the model has no chat template: ChatML is used, as it has its tokens",
        [CHAT_TEMPLATE] = NULL};
    return note[c->kind];
}

const char *chat_family(const struct model *m) {
    static const struct {
        const char *name, *marks[2];
    } known[] = {{"llama3", {"<|start_header_id|>", "<|eot_id|>"}},
                 {"phi4", {"<|im_start|>", "<|im_sep|>"}},
                 {"chatml", {"<|im_start|>", "<|im_end|>"}},
                 {"llama2", {"[INST]", "<<SYS>>"}},
                 {"mistral", {"[INST]", "[/INST]"}},
                 {"gemma", {"<start_of_turn>", "<end_of_turn>"}},
                 {"harmony", {"<|start|>", "<|channel|>"}},
                 {"phi3", {"<|user|>", "<|end|>"}},
                 {"deepseek", {"<｜User｜>", "<｜Assistant｜>"}}};
    const char *text = m->chat_template ? m->chat_template : "";
    if (!*text) return "none";
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (strstr(text, known[i].marks[0]) && strstr(text, known[i].marks[1]))
            return known[i].name;
    }
    return "template";
}

/* --- rendering --- */

/* Seconds as the clock on the wall shows them. */
static int64_t wall_clock(void) {
    time_t now = time(NULL);
    struct tm tm;
    return localtime_r(&now, &tm) ? (int64_t)now + tm.tm_gmtoff : (int64_t)now;
}

enum { VARS = 64, OWN_VARS = 16 };

struct vars {
    struct jinja_var var[VARS + OWN_VARS];
    char name[VARS][64];  // of those that come from outside
    size_t n;
};

/* A variable for each member, but for those that the request has of its own. */
static MUST add_members(struct vars *v, const struct json_value *o, bool is_trusted,
                        struct err *e) {
    struct json_iter at;
    struct json_chars key;
    const struct json_value *item;
    for (json_members(&at, o); json_next(&at, &key, &item);) {
        if (v->n == VARS || key.len >= sizeof v->name[0]) {
            return err_set(e, ERR_LIMIT,
                           "the template gets %d variables at most, with names below %zu bytes",
                           VARS, sizeof v->name[0]);
        }
        memcpy(v->name[v->n], key.s, key.len);
        v->name[v->n][key.len] = '\0';
        if (!strcmp(v->name[v->n], "messages") || !strcmp(v->name[v->n], "tools")) continue;
        v->var[v->n] = (struct jinja_var){v->name[v->n], item, .is_trusted = is_trusted};
        v->n++;
    }
    return true;
}

static void add(struct vars *v, const char *name, const struct json_value *json) {
    v->var[v->n++] = (struct jinja_var){.name = name, .json = json};
}

static void add_text(struct vars *v, const char *name, struct json_chars text) {
    v->var[v->n++] = (struct jinja_var){.name = name, .text = text, .is_trusted = true};
}

static MUST check_messages(const struct json_value *messages, struct err *e) {
    struct json_iter at;
    const struct json_value *m;
    size_t n = 0;
    if (json_kind(messages) != JSON_ARRAY) {
        return err_set(e, ERR_FORMAT, "the messages must be a list, not %s",
                       json_kind_name(json_kind(messages)));
    }
    for (json_members(&at, messages); json_next(&at, NULL, &m); n++) {
        struct json_chars role = {0};
        if (json_kind(m) == JSON_OBJECT && json_want_chars(m, "role", &role, e) && role.s) continue;
        return err_set(e, ERR_FORMAT, "message %zu must be an object with a \"role\"", n + 1);
    }
    return n || err_set(e, ERR_FORMAT, "there are no messages");
}

/* A template would take what it finds in an object for tools. */
static MUST check_tools(const struct chat_request *r, struct err *e) {
    enum json_kind kind = json_kind(r->tools);
    if (!r->tools || r->is_exact || kind == JSON_ARRAY || kind == JSON_NULL) return true;
    return err_set(e, ERR_FORMAT, "the tools must be a list, not %s", json_kind_name(kind));
}

static bool ends_with(const struct jinja_text *t, const char *what) {
    size_t len = t->len, n = strlen(what);
    while (len && strchr(" \n", t->text[len - 1])) len--;
    return len >= n && !memcmp(t->text + len - n, what, n);
}

/* As if the template itself had ended with them. */
static MUST add_marks(struct jinja_text *t, const char *marks, struct err *e) {
    size_t len = strlen(marks);
    char *text = realloc(t->text, t->len + len + 1);
    if (!text) return err_set(e, ERR_MEMORY, "no memory for a prompt of %zu bytes", t->len);
    t->text = text;
    memcpy(t->text + t->len, marks, len + 1);
    t->len += len;
    t->span[t->n_span - 1].len += len;
    return true;
}

/* A template that opens the reasoning in any case: it is closed again, empty. */
static MUST close_thinking(const struct chat *c, struct chat_prompt *p, struct err *e) {
    p->is_thinking = false;
    return add_marks(&p->text, "\n", e) && add_marks(&p->text, c->style.close, e) &&
           add_marks(&p->text, "\n\n", e);
}

/* A rendering: what was asked for, in a form of the messages. */
struct job {
    const struct chat *chat;
    struct chat_request r;
    const struct jinja *jinja;
    struct chat_way way;
    int64_t clock;
    uint64_t *spent;  // steps of the renderings so far
};

/* A grammar allows no thoughts unless it was made for them, which ON says. */
static enum chat_think think_of(const struct chat_request *r) {
    return r->think == CHAT_THINK_AUTO && r->is_held ? CHAT_THINK_OFF : r->think;
}

static MUST fill_vars(const struct job *job, const struct chat_fit *fit,
                      const struct json_value *gen, struct vars *v, struct err *e) {
    const struct chat *c = job->chat;
    const struct chat_request *r = &job->r;
    add_text(v, "bos_token", c->bos);
    add_text(v, "eos_token", c->eos);
    add_text(v, "unk_token", c->unk);
    enum chat_think think = think_of(r);
    if (think != CHAT_THINK_AUTO) {
        const struct json_doc *d = c->switches[think == CHAT_THINK_ON];
        if (!add_members(v, json_root(d), true, e)) return false;
    }
    if (!add_members(v, r->extra, false, e)) return false;
    add(v, "messages", r->messages);
    v->var[v->n - 1].swap = fit->swap;
    v->var[v->n - 1].n_swap = fit->n;
    add(v, "add_generation_prompt", gen);
    if (r->tools) add(v, "tools", r->tools);
    return true;
}

/* A template that takes long is not rendered time and again. */
static MUST render_text(const struct job *job, const struct chat_fit *fit, struct jinja_text *out,
                        struct err *e) {
    const char *word = job->r.add_generation_prompt ? "true" : "false";
    struct json_doc *gen = NULL;
    if (*job->spent > JINJA_STEPS) {
        return err_set(e, ERR_LIMIT, "the chat template takes too long to be tried in other ways");
    }
    if (!json_read(&gen, word, strlen(word), strlen(word), e)) return false;
    struct vars *v = calloc(1, sizeof *v);
    bool ok = v ? fill_vars(job, fit, json_root(gen), v, e) &&
                      (jinja_render(job->jinja, v->var, v->n, job->clock, out, e) ||
                       in_file(job->chat, e))
                : err_set(e, ERR_MEMORY, "no memory for the template's variables");
    *job->spent += out->steps;
    free(v);
    json_free(gen);
    return ok;
}

static MUST render(const struct job *job, struct chat_facts *facts, struct chat_prompt *out,
                   struct err *e) {
    const struct chat *c = job->chat;
    struct chat_fit fit;
    *out = (struct chat_prompt){.is_merged = job->way.form & CHAT_MERGED};
    bool ok =
        chat_fit(&fit, job->r.messages, &job->way, e) && render_text(job, &fit, &out->text, e);
    *facts = fit.facts;
    chat_fit_free(&fit);
    if (!ok) return false;
    const struct jinja_text *t = &out->text;
    if (!job->r.add_generation_prompt || !t->n_span || t->span[t->n_span - 1].is_data) return true;
    bool is_off = think_of(&job->r) == CHAT_THINK_OFF;
    if (c->style.kind == REASONING_TAGS && ends_with(t, c->style.open)) {
        out->is_thinking = true;
        ok = !is_off || close_thinking(c, out, e);
    } else if (c->style.kind == REASONING_HARMONY && ends_with(t, "<|start|>assistant")) {
        /* A grammar has no word for the channel, so it is opened for it. */
        out->is_answering = is_off && job->r.is_held;
        ok = !out->is_answering || add_marks(&out->text, "<|channel|>final<|message|>", e);
    }
    if (!ok) chat_prompt_free(out);
    return ok;
}

/* Whether another job makes the same prompt. A template that refuses it tells the two apart. */
static bool is_same(const struct job *other, const struct chat_prompt *p) {
    struct chat_prompt q;
    struct chat_facts ignored;
    struct err e;
    bool same = render(other, &ignored, &q, &e) && q.text.len == p->text.len &&
                !memcmp(q.text.text, p->text.text, q.text.len);
    chat_prompt_free(&q);
    return same;
}

static bool is_same_switched(struct job job, const struct chat_prompt *p) {
    job.r.think = job.r.think == CHAT_THINK_ON ? CHAT_THINK_OFF : CHAT_THINK_ON;
    return is_same(&job, p);
}

static bool is_same_toolless(struct job job, const struct chat_prompt *p) {
    job.r.tools = NULL;
    return is_same(&job, p);
}

static bool is_same_retold(struct job job, const struct chat_prompt *p) {
    job.way.form |= CHAT_RETOLD;
    return is_same(&job, p);
}

static bool is_same_recalled(struct job job, const struct chat_prompt *p) {
    job.way.form |= CHAT_RECALLED;
    return is_same(&job, p);
}

/* --- the form that a template takes --- */

enum { SYSTEMS = 16 };  // system messages that are looked for in a prompt

/* Whether the template says nothing of one of the first n system texts: another makes the same prompt.
 * *at: the first such. */
static bool is_system_lost(struct job job, size_t n, const struct chat_prompt *p, size_t *at) {
    job.way.form |= CHAT_ALTERED;
    for (size_t i = 0; i < n && i < SYSTEMS; i++) {
        *at = job.way.altered = i;
        if (is_same(&job, p)) return true;
    }
    return false;
}

struct found {
    struct chat_prompt prompt;
    struct chat_way way;
    bool any;                 // there is a prompt
    bool is_lost;             // a system text is not in it
    size_t n_dict;            // printed in it, perhaps arguments
    struct err err;           // of the first way that made none
    struct chat_facts facts;  // of the messages
    bool was_lost;            // a system text, in the way tried last
    size_t lost_at;           // the first such
};

/* Keeps p if it is the best so far, else frees it. True: a better one cannot be. */
static bool weigh(const struct job *job, struct chat_prompt *p, struct found *f) {
    size_t n = job->way.form & CHAT_MERGED ? job->way.merged : f->facts.n_system;
    bool is_lost = is_system_lost(*job, n, p, &f->lost_at);
    size_t n_dict = f->facts.has_arguments ? p->text.n_dict : 0;
    bool is_better = is_lost == f->is_lost ? n_dict < f->n_dict : f->is_lost;
    f->was_lost |= is_lost;
    if (f->any && !is_better) {
        chat_prompt_free(p);
        return false;
    }
    chat_prompt_free(&f->prompt);
    f->prompt = *p;
    f->way = job->way;
    f->any = true;
    f->is_lost = is_lost;
    f->n_dict = n_dict;
    return !is_lost && !n_dict;
}

/* With arguments as objects, and as texts where that is not all right. False: no other way shall be tried. */
static bool try_way(struct job job, const struct chat_way *way, struct found *f) {
    f->was_lost = false;
    for (unsigned form = CHAT_OBJECTS; form <= CHAT_TEXTS; form <<= 1) {
        struct chat_prompt p;
        struct err e;
        if (form == CHAT_TEXTS && !f->facts.has_arguments) break;
        job.way = *way;
        job.way.form |= form;
        if (render(&job, &f->facts, &p, &e)) {
            if (weigh(&job, &p, f)) return false;
            continue;
        }
        if (!f->err.code) f->err = e;
        if (e.code != ERR_FORMAT && e.code != ERR_UNSUPPORTED) return false;
    }
    return !f->any || f->is_lost;
}

/* What may do better than a way that the template refused, or in which it left out a system text. Many know
 * the system, but no developer: these are renamed. Then user turns take the text that was left out and those
 * behind it; where it refuses, all but the first, which many take at the very beginning, and at last all.
 * False: nothing may. */
static bool next_way(struct chat_way *way, const struct found *f) {
    const struct chat_facts *m = &f->facts;
    if (m->has_developer && !(way->form & CHAT_RENAMED)) {
        way->form |= CHAT_RENAMED;
        return true;
    }
    bool was_merged = way->form & CHAT_MERGED;
    if (!m->n_system || !m->has_user || (was_merged && !way->merged)) return false;
    way->form |= CHAT_MERGED;
    way->merged = f->was_lost ? f->lost_at : !was_merged && m->n_system > 1;
    return true;
}

/* The first way that the template takes, else the best that renders; job->way tells which. */
static MUST find_way(struct job *job, struct chat_prompt *out, struct err *e) {
    struct found f = {.err.code = ERR_NONE};
    struct chat_way way = {.form = CHAT_AS_IS};
    while (try_way(*job, &way, &f) && next_way(&way, &f)) continue;
    *out = f.prompt;
    job->way = f.way;
    if (!f.any) {
        *e = f.err;
        return false;
    }
    out->is_systemless = f.is_lost;
    out->is_resultless = f.facts.has_results && is_same_retold(*job, out);
    out->is_callless = f.facts.has_calls && is_same_recalled(*job, out);
    return true;
}

/* --- the contents that a template takes --- */

/* The messages with other contents, and what a template makes of them. */
struct cast {
    unsigned cast;  // enum chat_cast
    struct job job;
    struct json_doc *doc;  // of the job's messages, NULL: the request's own
    struct chat_prompt prompt;
    bool any;                   // there is a prompt
    struct chat_unsaid unsaid;  // in it, or not as texts
    struct err err;
};

static void drop_cast(struct cast *c) {
    chat_prompt_free(&c->prompt);
    json_free(c->doc);
    *c = (struct cast){0};
}

/* Texts that are not in a prompt: marks in their place tell. A template that refuses these tells them
 * apart. What the other renderings took is not held against this one, without which a text could be lost. */
static MUST count_unsaid(struct job job, const struct cast *c, struct chat_parts *parts,
                         struct chat_unsaid *out, struct err *e) {
    struct json_doc *d = NULL;
    struct chat_prompt p = {0};
    struct chat_facts ignored;
    const struct jinja_text *t = &c->prompt.text;
    uint64_t spent = 0, *before = job.spent;
    if (!chat_mark(parts, job.r.messages, t->text, t->len, e) ||
        !chat_cast(&d, job.r.messages, c->cast | CHAT_MARKED, parts, e)) {
        return false;
    }
    job.r.messages = json_root(d);
    job.spent = &spent;
    bool ok = render(&job, &ignored, &p, e);
    *before += spent;
    ok = ok ? chat_unmarked(parts, p.text.text, p.text.len, out, e)
            : e->code == ERR_FORMAT || e->code == ERR_UNSUPPORTED;
    chat_prompt_free(&p);
    json_free(d);
    return ok;
}

/* The messages that are given anew as cast says, which is with what they are. */
static void try_cast(const struct job *job, unsigned cast, struct chat_parts *parts,
                     struct cast *c) {
    *c = (struct cast){.cast = cast, .job = *job};
    if (cast && !chat_cast(&c->doc, job->r.messages, cast, parts, &c->err)) return;
    if (c->doc) c->job.r.messages = json_root(c->doc);
    c->any = find_way(&c->job, &c->prompt, &c->err);
    if (!c->any || !(parts->n_list || parts->n_user)) return;
    struct job marked = c->job;
    marked.r.messages = job->r.messages;
    c->any = count_unsaid(marked, c, parts, &c->unsaid, &c->err);
}

static bool is_refused(const struct cast *c) {
    return !c->any && (c->err.code == ERR_FORMAT || c->err.code == ERR_UNSUPPORTED);
}

/* As it is given, calls may be left out; made fit, perhaps it is for that. */
static bool is_right(const struct cast *c) {
    const struct chat_prompt *p = &c->prompt;
    return c->any && !c->unsaid.n && !p->is_systemless && !p->is_merged &&
           !(c->cast && p->is_callless);
}

/* Of two refusals the later one: it is not about contents any more. Texts as lists are a last resort, and good
 * only where users are heard. */
static bool is_better(const struct cast *a, const struct cast *b) {
    bool is_bad = !a->any || a->unsaid.has_user || a->unsaid.is_printed;
    if (a->cast & CHAT_LISTED && is_bad) return false;
    if (!a->any) return !b->any && (is_refused(a) || !b->err.code);
    if (!b->any) return true;
    const struct chat_prompt *p = &a->prompt, *q = &b->prompt;
    if (a->unsaid.n != b->unsaid.n) return a->unsaid.n < b->unsaid.n;
    if (p->is_systemless != q->is_systemless) return q->is_systemless;
    if (p->is_callless != q->is_callless) return q->is_callless;
    return q->is_merged && !p->is_merged;
}

static MUST refuse_part(const struct chat_parts *parts, struct err *e) {
    char kind[64];
    return err_set(e, ERR_UNSUPPORTED,
                   "message %zu has a part that is no text (of type \"%s\"): the model's chat "
                   "template takes texts alone",
                   parts->odd, gguf_show(kind, parts->kind.s ? parts->kind.s : ""));
}

/* Whether a cast may do better than those before it. A content is put for a template that refuses none, null
 * if it leaves out the calls beside an empty one; parts that are no texts stay where their template says
 * all that is text. Texts are lists for a template that loses them, or has a system's elsewhere than beside
 * lists. */
static bool may_help(unsigned cast, const struct chat_parts *parts, const struct cast *best,
                     bool is_refused) {
    bool is_put = cast & (CHAT_FILLED | CHAT_NULLED);
    if (is_put && !(parts->n_bare && is_refused)) return false;
    if (cast & CHAT_NULLED && !(best->any && best->prompt.is_callless)) return false;
    bool is_lost = !best->any || best->unsaid.n;
    if (cast & CHAT_JOINED) return parts->n_list && (is_lost || !parts->odd);
    return !(cast & CHAT_LISTED) || (parts->n_plain && (is_lost || parts->n_list));
}

/* The first cast that the template takes as it should, else the best, of which it takes the job's messages:
 * those that were given, with a content for each, with lists of parts as texts or the other way round, and
 * both. */
static MUST find_cast(struct job *job, struct cast *best, struct err *e) {
    static const unsigned order[] = {CHAT_PLAINLY,
                                     CHAT_FILLED,
                                     CHAT_NULLED,
                                     CHAT_JOINED,
                                     CHAT_JOINED | CHAT_FILLED,
                                     CHAT_JOINED | CHAT_NULLED,
                                     CHAT_LISTED,
                                     CHAT_LISTED | CHAT_FILLED,
                                     CHAT_LISTED | CHAT_NULLED};
    struct chat_parts parts;
    bool refused = false;
    chat_parts(&parts, job->r.messages);
    for (size_t i = 0; i < sizeof order / sizeof *order; i++) {
        struct cast c;
        if (i && !may_help(order[i], &parts, best, refused)) continue;
        try_cast(job, order[i], &parts, &c);
        if (!(order[i] & (CHAT_FILLED | CHAT_NULLED))) refused = is_refused(&c);
        bool is_over = !c.any && !is_refused(&c);
        if (is_better(&c, best)) {
            struct cast worse = *best;
            *best = c;
            c = worse;
        } else if (is_over && best->unsaid.n && !(order[i] & CHAT_LISTED)) {
            best->any = false;  // nobody knows whether another says all
            best->err = c.err;
        }
        drop_cast(&c);
        if (is_over || is_right(best)) break;
    }
    *e = best->err;
    if (!best->any) return false;
    if (best->cast & CHAT_JOINED && parts.odd) return refuse_part(&parts, e);
    best->prompt.is_partial = parts.odd;
    best->prompt.is_userless = best->unsaid.has_user;
    *job = best->job;
    return true;
}

/* What is otherwise than asked for, with what it is otherwise. */
static void tell(const struct job *job, bool has_tools, struct chat_prompt *p) {
    bool is_asked = job->r.think != CHAT_THINK_AUTO && job->r.add_generation_prompt;
    bool has_none = job->chat->style.kind == REASONING_NONE;  // which is what `off` wants
    p->is_unswitched =
        is_asked && (!has_none || job->r.think == CHAT_THINK_ON) && is_same_switched(*job, p);
    p->is_toolless = has_tools && is_same_toolless(*job, p);
}

MUST chat_render(const struct chat *c, const struct chat_request *r, struct chat_prompt *out,
                 struct err *e) {
    uint64_t spent = 0;
    bool has_tools = json_kind(r->tools) == JSON_ARRAY && json_size(r->tools);
    struct cast best = {0};
    struct chat_facts ignored;
    struct job job = {.chat = c,
                      .r = *r,
                      .jinja = has_tools && c->tool_jinja ? c->tool_jinja : c->jinja,
                      .clock = wall_clock(),
                      .spent = &spent};
    *out = (struct chat_prompt){0};
    if (has_tools && c->tool_err.code) {
        *e = c->tool_err;
        return false;
    }
    if (!check_messages(r->messages, e) || !check_tools(r, e)) return false;
    bool ok = r->is_exact ? render(&job, &ignored, &best.prompt, e) : find_cast(&job, &best, e);
    if (ok) {
        tell(&job, has_tools, &best.prompt);
        *out = best.prompt;
        best.prompt = (struct chat_prompt){0};
    }
    drop_cast(&best);
    return ok;
}

const char *chat_prompt_note(const struct chat_prompt *p, int i) {
    static const char *const note[CHAT_NOTES] = {
        "--think changes nothing in the prompt: the model's chat template has no such switch",
        "the tools are not in the prompt: the model's chat template does not look at them",
        "the chat template has no system role there: a system text stands in a user turn",
        "a system text is not in the prompt: the model's chat template leaves it out",
        "what tools returned is not in the prompt: the model's chat template leaves it out",
        "calls of tools are not in the prompt: the model's chat template leaves them out",
        "a message has a part that is no text: the model gets what its chat template writes of it",
        "what a user says is not in the prompt: the model's chat template leaves it out"};
    const bool is_so[CHAT_NOTES] = {p->is_unswitched, p->is_toolless,   p->is_merged,
                                    p->is_systemless, p->is_resultless, p->is_callless,
                                    p->is_partial,    p->is_userless};
    return is_so[i] ? note[i] : NULL;
}

void chat_prompt_free(struct chat_prompt *p) {
    jinja_text_free(&p->text);
    *p = (struct chat_prompt){0};
}

/* --- tokens --- */

size_t chat_bound(const struct chat_prompt *p) {
    return tok_bound(p->text.len);
}

MUST chat_encode(const struct chat *c, const struct chat_prompt *p, int32_t *out, size_t cap,
                 size_t *n, struct err *e) {
    const struct jinja_text *t = &p->text;
    struct tok_part *part = malloc((t->n_span + 1) * sizeof *part);
    *n = 0;
    if (!part) return err_set(e, ERR_MEMORY, "no memory for a prompt of %zu bytes", t->len);
    for (size_t i = 0; i < t->n_span; i++) {
        const struct jinja_span *s = &t->span[i];
        part[i] = (struct tok_part){t->text + s->at, s->len, s->is_data};
    }
    /* Many templates write BOS themselves; then the tokenizer must not add another. */
    bool has_bos = c->bos.len && t->n_span && !t->span[0].is_data && t->span[0].len >= c->bos.len &&
                   !memcmp(t->text, c->bos.s, c->bos.len);
    bool ok = tok_encode_parts(c->tok, part, t->n_span, has_bos ? 0U : TOK_BOS, out, cap, n, e);
    free(part);
    return ok;
}

void chat_split(const struct chat *c, const struct chat_prompt *p, struct reasoning *out) {
    const struct reasoning_style none = {.kind = REASONING_NONE};
    reasoning_init(out, p->is_answering ? none : c->style, p->is_thinking);
}

bool chat_has_controls(const struct chat *c) {
    if (c->style.kind == REASONING_HARMONY) return true;
    if (c->style.kind != REASONING_TAGS) return false;
    int32_t id = tok_find(c->tok, c->style.close, strlen(c->style.close));
    return tok_is_control(c->tok, id);
}

static void put_message(struct json *j, const char *role, const char *text, size_t len) {
    json_object(j);
    json_put_text(j, "role", role);
    json_key(j, "content");
    json_string(j, text, len);
    json_end(j);
}

char *chat_turn(const char *system, const char *user, size_t user_len, size_t *len) {
    size_t room = 6 * (user_len + (system ? strlen(system) : 0)) + 128;
    char *text = malloc(room);
    struct json j;
    if (!text) return NULL;
    json_mem(&j, text, room);
    json_array(&j);
    if (system) put_message(&j, "system", system, strlen(system));
    put_message(&j, "user", user, user_len);
    json_end(&j);
    *len = j.len;
    return text;
}
