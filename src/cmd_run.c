/* cmd_run.c - one prompt, one answer: the forecast before, the answer as it comes, the truth after. */
#include "answer_text.h"
#include "base/clock.h"
#include "base/progress.h"
#include "guest.h"
#include "model/chat.h"
#include "sampling.h"
#include "setup_show.h"
#include "verbs.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct run_conf {
    struct machine machine;
    const char *tokenizer, *prompt, *file, *system, *draft;
    uint32_t n_predict;
    struct sampling sampling;
    int think;  // enum chat_think
    bool is_raw, is_json, is_quiet;
    struct peers worker;
    const char *config, *cluster_key, *interface;
};

#define AT(field) offsetof(struct run_conf, field)
static const struct opt run_opt[] = {
    {"-p", OPT_TEXT, AT(prompt), "TEXT", "the prompt", 0, 0},
    {"-f", OPT_TEXT, AT(file), "FILE",
     "the prompt from a file, - for standard input; without the newline at its end", 0, 0},
    {"-n", OPT_U32, AT(n_predict), "N",
     "most tokens of the answer, 0: until the context is full (256)", 0, MODEL_MAX_CTX},
    {"--raw", OPT_FLAG, AT(is_raw), NULL, "go on with the text as it stands: no chat format", 0, 0},
    {"--system", OPT_TEXT, AT(system), "TEXT", "what the model is told about its part", 0, 0},
    {"--think", OPT_CHOICE, AT(think), "auto|on|off",
     "whether a thinking model thinks first (auto: as its template does)", 0, 0},
    TOKENIZER_OPTION(struct run_conf),
    SAMPLING_OPTIONS(struct run_conf),
    MACHINE_OPTIONS(struct run_conf),
    GUESS_OPTIONS(struct run_conf),
    {"--workers", OPT_PEERS, AT(worker), "HOST:PORT ..", "share the work with these nodes", 0, 0},
    {"--cluster_key", OPT_TEXT, AT(cluster_key), "KEY",
     "their key; better in DAIR_CLUSTER_KEY, as others see command lines", 0, 0},
    {"--config", OPT_TEXT, AT(config), "FILE", "a node's settings, of which the key is used", 0, 0},
    {"--interface", OPT_TEXT, AT(interface), "NAME", "the only network interface to use", 0, 0},
    {"--json", OPT_FLAG, AT(is_json), NULL, "a JSON object for each token, a last one with figures",
     0, 0},
    {"--quiet", OPT_FLAG, AT(is_quiet), NULL, "no forecast, no notes, no progress, no summary", 0,
     0},
};

static atomic_bool stop_asked;  // the signal flag

static void on_signal(int sig) {
    (void)sig;
    atomic_store(&stop_asked, true);
}

struct answer {
    const struct setup *setup;
    struct sampler sampler;
    struct held held;
    struct answer_text out;
    struct progress progress;
};

static bool is_end(void *ctx, int32_t id) {
    const struct answer *a = ctx;
    return tok_is_end(a->setup->tok, id);
}

static bool on_token(void *ctx, int32_t id) {
    struct answer *a = ctx;
    progress_end(&a->progress);
    return answer_text_push(&a->out, id);
}

static void on_prefill(void *ctx, uint32_t done, uint32_t total) {
    struct answer *a = ctx;
    progress_update(&a->progress, done, total);
}

/* Never cut silently: a prompt that does not fit is refused. It is well-formed, and for a model with a
 * longer context it would do: not ERR_LIMIT, which is about files. */
static MUST too_long(const struct setup *s, uint32_t n_ctx, const char *least, size_t n,
                     struct err *e) {
    if (n_ctx < s->model.n_ctx) {
        return err_set(e, ERR_UNSUPPORTED,
                       "the prompt has %s%zu tokens, the context holds %u with the answer; give a "
                       "larger --ctx (this model: up to %u)",
                       least, n, n_ctx, s->model.n_ctx);
    }
    return err_set(e, ERR_UNSUPPORTED,
                   "the prompt has %s%zu tokens, the context of this model holds %u with the "
                   "answer; shorten the prompt",
                   least, n, n_ctx);
}

/* Bytes of a prompt past which check_bytes() refuses it. */
static size_t most_bytes(const struct setup *s, uint32_t n_ctx) {
    size_t by_ctx = n_ctx * tok_longest(s->tok), by_memory = setup_text_most(s);
    if (by_ctx < TEXT_CHEAP) by_ctx = TEXT_CHEAP;
    return by_ctx < by_memory ? by_ctx : by_memory;
}

/* What cannot fit goes no further. The prompt has at least len bytes. */
static MUST check_bytes(const struct setup *s, uint32_t n_ctx, size_t len, struct err *e) {
    size_t longest = tok_longest(s->tok);
    if (len <= most_bytes(s, n_ctx)) return true;
    if (len > n_ctx * longest) {
        return too_long(s, n_ctx, "at least ", (len + longest - 1) / longest, e);
    }
    return setup_check_text(s, "prompt", len, e);
}

/* The text of -p or -f; *owned is to be freed. */
static MUST read_prompt(const struct run_conf *c, const struct setup *s, uint32_t n_ctx,
                        const char **text, size_t *len, char **owned, struct err *e) {
    *owned = NULL;
    if (c->prompt && c->file)
        return err_set(e, ERR_USAGE, "give the prompt by -p or by -f, not both");
    if (!c->prompt && !c->file) {
        return err_set(e, ERR_USAGE, "no prompt: give -p TEXT or -f FILE (- for standard input)");
    }
    if (c->file) {
        size_t most = most_bytes(s, n_ctx);
        if (verb_read_all(c->file, most, owned, len, e)) {
            *text = *owned;
            *len = verb_prompt_len(*owned, *len);
            return true;
        }
        return e->code == ERR_LIMIT ? check_bytes(s, n_ctx, most + 1, e) : false;
    }
    *text = c->prompt;
    *len = strlen(c->prompt);
    return check_bytes(s, n_ctx, *len, e);
}

/* What there is to tell: of the format, of the schema, of this prompt. */
enum { NOTE_FORMAT, NOTE_SCHEMA, NOTE_PROMPT, NOTES = NOTE_PROMPT + CHAT_NOTES };

struct prompt {
    int32_t *id;  // [n], malloc'ed
    size_t n;
    const char *note[NOTES];     // or NULL
    struct reasoning reasoning;  // tells the answer from what the model says to itself
    bool shows_controls;         // the splitter must see control tokens
    bool is_continued;           // the answer goes on with the prompt's own text
};

static MUST make_room(struct prompt *p, size_t cap, struct err *e) {
    p->id = malloc(cap * sizeof *p->id);
    return p->id || err_set(e, ERR_MEMORY, "no memory for a prompt of %zu tokens", cap);
}

/* One turn, rendered by the model's template. */
static MUST encode_turn(const struct run_conf *c, const struct chat *chat, const char *text,
                        size_t len, struct prompt *p, struct err *e) {
    struct json_doc *turn = NULL;
    struct chat_prompt rendered = {0};
    size_t turn_len = 0, cap;
    char *json = chat_turn(c->system, text, len, &turn_len);
    bool ok = json || err_set(e, ERR_MEMORY, "no memory for a prompt of %zu bytes", len);
    ok = ok && json_read(&turn, json, turn_len, turn_len, e);
    free(json);
    if (!ok) return false;
    struct chat_request r = {.messages = json_root(turn),
                             .add_generation_prompt = true,
                             .think = (enum chat_think)c->think,
                             .is_held = c->sampling.grammar || c->sampling.schema};
    ok = chat_render(chat, &r, &rendered, e);
    json_free(turn);
    if (!ok) return false;
    cap = chat_bound(&rendered);
    ok = make_room(p, cap, e) && chat_encode(chat, &rendered, p->id, cap, &p->n, e);
    for (int i = 0; i < CHAT_NOTES; i++) p->note[NOTE_PROMPT + i] = chat_prompt_note(&rendered, i);
    chat_split(chat, &rendered, &p->reasoning);
    p->shows_controls = chat_has_controls(chat);
    chat_prompt_free(&rendered);
    return ok;
}

/* The text as it stands: --raw, or a model without any format. */
static MUST encode_text(const struct run_conf *c, const struct setup *s, const char *text,
                        size_t len, struct prompt *p, struct err *e) {
    size_t cap = tok_bound(len);
    p->is_continued = true;
    reasoning_init(&p->reasoning, (struct reasoning_style){.kind = REASONING_NONE}, false);
    if (c->system) {
        return err_set(e, ERR_USAGE,
                       "--system needs a chat template, and %s; put the text into the "
                       "prompt",
                       c->is_raw ? "--raw turns it off" : "this model has none");
    }
    unsigned flags = TOK_BOS | (c->is_raw ? TOK_SPECIAL : 0U);
    return make_room(p, cap, e) && tok_encode(s->tok, text, len, flags, p->id, cap, &p->n, e);
}

static MUST encode(const struct run_conf *c, const struct setup *s, const char *text, size_t len,
                   struct prompt *p, struct err *e) {
    struct chat *chat = NULL;
    if (c->is_raw) return encode_text(c, s, text, len, p, e);
    if (!chat_open(&chat, &s->model, s->tok, NULL, 0, e)) return false;
    p->note[NOTE_FORMAT] = chat_note(chat);
    bool ok = chat_kind(chat) == CHAT_PLAIN ? encode_text(c, s, text, len, p, e)
                                            : encode_turn(c, chat, text, len, p, e);
    chat_close(chat);
    return ok;
}

/* The text becomes tokens, and its own memory is given back before the budget is drawn up. */
static MUST prepare_prompt(const struct run_conf *c, struct setup *s, struct prompt *p,
                           struct err *e) {
    const char *text = "";
    char *owned;
    size_t len = 0;
    uint32_t n_ctx;
    if (!setup_context(s, &c->machine, &n_ctx, e) || !setup_budget(s, &c->machine, e)) return false;
    if (!read_prompt(c, s, n_ctx, &text, &len, &owned, e)) return false;
    bool ok = encode(c, s, text, len, p, e);
    free(owned);
    if (!ok) return false;
    if (p->n == 0) return err_set(e, ERR_USAGE, "the prompt is empty");
    if (p->n >= n_ctx) return too_long(s, n_ctx, "", p->n, e);
    int32_t *exact = malloc(p->n * sizeof *exact);
    if (!exact) return err_set(e, ERR_MEMORY, "no memory for a prompt of %zu tokens", p->n);
    memcpy(exact, p->id, p->n * sizeof *exact);
    free(p->id);
    p->id = exact;
    s->n_prompt = (uint32_t)p->n;
    s->n_answer = c->n_predict;
    return true;
}

static MUST prepare_answer(struct answer *a, const struct run_conf *c, const struct setup *s,
                           const struct prompt *p, struct err *e) {
    a->setup = s;
    a->out.is_json = c->is_json;
    a->out.hides_thoughts = c->is_quiet;
    /* What is shown must be what the grammar saw, a blank in front included. */
    if (p->is_continued || a->held.grammar) {
        detok_init_within(&a->out.detok, s->tok, false);
    } else {
        detok_init(&a->out.detok, s->tok, p->shows_controls);
    }
    a->out.reasoning = p->reasoning;
    return answer_text_open(&a->out, s->tok, e);
}

/* What happened, beside what was expected. */
struct figures {
    struct gen_result r;
    struct store_stats stats;
    uint64_t peak_rss;
    double prefill_tps, decode_tps, io_bps, per_token;
    double per_step;            // tokens of a decode step
    double wait_s;              // of a computing thread on average, while decoding
    unsigned n_node;            // with --workers; else 0
    uint64_t pinned, streamed;  // then of this node, streamed for each token
};

/* Who computes the answer: an engine of our own, or one together with other nodes. */
struct worker {
    struct engine *alone;
    struct guest *guest;
};

static void take_figures(struct figures *f, const struct worker *w, const struct engine_conf *c,
                         size_t n_prompt) {
    struct host_mem mem;
    struct err ignored;
    if (w->alone) engine_stats(w->alone, &f->stats);
    if (w->guest) f->n_node = guest_nodes(w->guest, &f->pinned, &f->streamed);
    f->prefill_tps = clock_rate((double)n_prompt, f->r.prefill_s);
    f->decode_tps = clock_rate(f->r.n_drawn, f->r.decode_s);
    f->per_step = w->guest ? 1 : clock_rate(f->r.n_drawn, f->r.n_step);
    f->io_bps = clock_rate((double)f->r.streamed_bytes, f->r.decode_s);
    f->per_token = clock_rate((double)f->r.streamed_bytes, f->r.n_drawn);
    f->wait_s = (double)f->r.wait_ns * 1e-9 / (c->n_slice > 1 ? c->n_slice : c->n_decode);
    f->peak_rss = host_mem(&mem, &ignored) ? mem.peak_rss : 0;
}

static void print_disk(const struct setup *s, const struct figures *f) {
    if (f->n_node) {
        fprintf(stderr, "cluster   %u nodes; this one keeps %s and streams %s for each token\n",
                f->n_node, BYTES_TEXT(f->pinned), BYTES_TEXT(f->streamed));
    } else if (s->memory.disk_bytes && f->r.n_step) {
        fprintf(
            stderr,
            "disk      %s of %s measured, %s for each token, waited for it %.0f %% of the time\n",
            RATE_TEXT(f->io_bps), RATE_TEXT(s->disk_bps), BYTES_TEXT((uint64_t)f->per_token),
            100 * clock_rate(f->wait_s, f->r.decode_s));
        if (s->memory.n_demand) {
            uint64_t wanted = f->r.expert_hits + f->r.expert_misses;
            fprintf(stderr, "experts   %.0f %% of those wanted were in memory (forecast %.0f %%)\n",
                    100 * clock_rate((double)f->r.expert_hits, (double)wanted),
                    100 * rehearsed_hits(&s->rehearsed, &s->memory));
        }
    }
}

/* What it did, or what speaks for that it did nothing. */
static void print_draft(const struct setup *s, const struct figures *f) {
    const struct gen_result *r = &f->r;
    if (!s->conf.draft) return;
    fprintf(stderr, "draft     ");
    if (r->gave_up) {
        fprintf(stderr, "did not pay and was given up");
    } else if (r->n_drafted) {
        fprintf(stderr, "%u of its %u guesses were right", r->n_drafted_right, r->n_drafted);
    } else if (!r->n_step) {
        fprintf(stderr, "made no guesses: the answer was over before");
    } else if (!(r->draft_s > 0)) {
        fprintf(stderr, "made no guesses: the text is longer than its context");
    } else {
        fprintf(stderr,
                "made no guesses, which did not promise to pay: one takes %.2g ms, a step %.2g ms",
                1e3 * r->draft_s, 1e3 * clock_rate(r->decode_s, r->n_step));
    }
    if (r->grown_bytes) {
        fprintf(stderr, "; its %s of memory hold weights now", BYTES_TEXT(r->grown_bytes));
    }
    fputc('\n', stderr);
}

static void print_summary(const struct answer *a, size_t n_prompt, const struct figures *f) {
    const struct setup *s = a->setup;
    bool is_full = n_prompt + f->r.n_token >= s->conf.n_ctx;
    FILE *to = stderr;
    fprintf(to, "answer    %u token%s%s", f->r.n_token, f->r.n_token == 1 ? "" : "s",
            answer_text_ended(&a->out, f->r.end, is_full));
    if (f->r.n_step) fprintf(to, ", %.*f tokens/s", f->decode_tps < 10 ? 2 : 1, f->decode_tps);
    if (f->r.n_step && !f->n_node) {
        fprintf(to, " (forecast %.*f)", s->forecast.decode_tps < 10 ? 2 : 1,
                s->forecast.decode_tps);
    }
    if (f->per_step > 1.005) fprintf(to, ", %.2f a step by guessing ahead", f->per_step);
    fprintf(to, "; prompt %zu token%s, %.1f tokens/s\n", n_prompt, n_prompt == 1 ? "" : "s",
            f->prefill_tps);
    print_disk(s, f);
    print_draft(s, f);
    fprintf(to, "memory    %s used at most, of %s\n", BYTES_TEXT(f->peak_rss),
            BYTES_TEXT(s->budget));
}

/* What an engine of our own read, and what was expected; or our part of a cluster's work. */
static void json_work(struct json *j, const struct setup *s, const struct figures *f) {
    if (f->n_node) {
        json_put_u64(j, "nodes", f->n_node);
        json_put_u64(j, "budget_bytes", s->budget);
        json_put_u64(j, "pinned_bytes", f->pinned);
        json_put_u64(j, "sweep_streamed_bytes", f->streamed);
        json_put_u64(j, "ctx", s->conf.n_ctx);
        json_put_u64(j, "threads", s->conf.n_thread);
        return;
    }
    json_put_u64(j, "prompt_bytes", f->r.prompt_bytes);
    json_put_u64(j, "streamed_bytes", f->r.streamed_bytes);
    json_put_real(j, "streamed_bytes_per_token", f->per_token);
    json_put_u64(j, "read_bytes", f->stats.read_bytes);
    json_put_u64(j, "expert_hits", f->r.expert_hits);
    json_put_u64(j, "expert_misses", f->r.expert_misses);
    json_put_u64(j, "expert_guesses", f->r.expert_guesses);
    json_put_u64(j, "expert_guesses_used", f->r.expert_guesses_used);
    json_put_real(j, "io_gbps", f->io_bps * 1e-9);
    json_put_real(j, "wait_s", f->wait_s);
    json_put_bool(j, "is_direct", f->stats.is_direct);
    json_put_u64(j, "kept_bytes", f->stats.pinned_bytes + f->stats.cached_bytes);
    json_put_bool(j, "draft_given_up", f->r.gave_up);
    json_put_u64(j, "grown_bytes", f->r.grown_bytes);
    setup_json(s, j);
}

static void json_summary(struct answer *a, size_t n_prompt, const struct figures *f) {
    struct json *j = &a->out.json;
    json_object(j);
    answer_text_json_end(&a->out, n_prompt, &f->r);
    json_put_u64(j, "peak_rss_bytes", f->peak_rss);
    json_put_real(j, "accepted_per_step", f->per_step);
    json_put_u64(j, "steps", f->r.n_step);
    json_put_u64(j, "guessed", f->r.n_guessed);
    json_put_u64(j, "drafted", f->r.n_drafted);
    json_put_u64(j, "drafted_right", f->r.n_drafted_right);
    json_put_u64(j, "drafted_ahead", f->r.n_ahead);
    json_put_real(j, "draft_s", f->r.draft_s);
    json_work(j, a->setup, f);
    json_end(j);
    json_line(j);
}

/* The second Ctrl-C ends the process at once. A write that a slow reader holds up is not cut off. */
static void catch_signals(void) {
    struct sigaction act = {.sa_handler = on_signal, .sa_flags = (int)(SA_RESETHAND | SA_RESTART)};
    sigaction(SIGINT, &act, NULL);
    sigaction(SIGTERM, &act, NULL);
}

static MUST generate(const struct run_conf *c, const struct worker *w, struct answer *a,
                     const struct prompt *p, struct figures *f, struct err *e) {
    const struct setup *s = a->setup;
    FILE *bars = c->is_json || c->is_quiet ? NULL : stderr;
    if (w->alone && !setup_load(w->alone, &a->progress, bars, e)) return false;
    uint32_t room = s->conf.n_ctx - (uint32_t)p->n;
    struct gen_request r = {
        .prompt = p->id,
        .n_prompt = (uint32_t)p->n,
        .n_predict = c->n_predict && c->n_predict < room ? c->n_predict : room,
        .sampler = a->sampler,
        .grammar = a->held.grammar,
        .lexicon = a->held.lexicon,
        .grammar_kind = a->held.kind,
        .grammar_text = a->held.text,
        .n_grammar = (uint32_t)a->held.len,
        .is_end = is_end,
        .on_token = on_token,
        .on_prefill = on_prefill,
        .ctx = a,
        .stop = &stop_asked,
    };
    catch_signals();
    progress_start(&a->progress, "reading the prompt", PROGRESS_TOKENS, bars);
    bool ok =
        w->guest ? guest_generate(w->guest, &r, &f->r, e) : engine_generate(w->alone, &r, &f->r, e);
    progress_end(&a->progress);
    return ok;
}

static MUST finish_answer(const struct run_conf *c, const struct worker *w, struct answer *a,
                          const struct prompt *p, struct figures *f, struct err *e) {
    if (!answer_text_check(&a->out, e)) return false;
    take_figures(f, w, &a->setup->conf, p->n);
    if (c->is_json) {
        json_summary(a, p->n, f);
    } else {
        answer_text_end(&a->out);
        if (isatty(STDOUT_FILENO)) fputc('\n', stdout);
        fflush(stdout);
        if (!isatty(STDOUT_FILENO) && !c->is_quiet) fputc('\n', stderr);  // both in one log
        if (!c->is_quiet) print_summary(a, p->n, f);
    }
    if (f->r.end == GEN_STOPPED && !a->out.is_stopped)
        return err_set(e, ERR_STOPPED, "the answer was stopped");
    return true;
}

static void print_start(const struct run_conf *c, const struct setup *s, const struct prompt *p) {
    if (c->is_quiet) return;
    if (!c->is_json && c->worker.n) setup_print_model(s, stderr);
    if (!c->is_json && !c->worker.n) setup_print(s, stderr);
    for (int i = 0; i < NOTES; i++) {
        if (p->note[i]) fprintf(stderr, "note      %s\n", p->note[i]);
    }
}

static MUST hire(const struct run_conf *c, struct setup *s, const struct prompt *p,
                 struct worker *w, struct err *e) {
    static struct guest_conf g;
    if (!c->worker.n) {
        if (!setup_fit(s, &c->machine, e) || !setup_probe(s, DISK_IF_NEEDED, e)) return false;
        print_start(c, s, p);
        return engine_open(&w->alone, &s->conf, e);
    }
    g = (struct guest_conf){.worker = &c->worker,
                            .config = c->config,
                            .key = c->cluster_key,
                            .interface = c->interface,
                            .tell = c->is_json || c->is_quiet ? NULL : stderr,
                            .stop = &stop_asked};
    print_start(c, s, p);
    catch_signals();
    return guest_open(&w->guest, s, &c->machine, &g, e);
}

/* e says why there is none. Where no prompt was given either, the word may be meant as one. */
static MUST no_model(const struct run_conf *c, const char *path, struct err *e) {
    struct err why = *e;
    if (!path || c->prompt || c->file || why.code != ERR_IO) return false;
    return err_set(e, why.code, "%.360s; a prompt is given with -p", why.full);
}

static MUST answer(const struct run_conf *c, const char *path, struct setup *s, struct prompt *p,
                   struct answer *a, struct err *e) {
    struct worker w = {0};
    struct figures f = {0};
    if (!sampling_make(&c->sampling, &a->sampler, &a->out.stop, e)) return false;
    if (c->worker.n && c->draft) {
        return err_set(e, ERR_USAGE, "--draft and --workers exclude each other");
    }
    if (!held_open(&a->held, &c->sampling, e)) return false;
    if (c->worker.n && c->machine.slices) {
        return err_set(e, ERR_USAGE, "--slices and --workers exclude each other");
    }
    if (!c->worker.n && (c->cluster_key || c->config || c->interface)) {
        return err_set(e, ERR_USAGE, "%s is of use with --workers only",
                       c->cluster_key ? "--cluster-key"
                       : c->config    ? "--config"
                                      : "--interface");
    }
    if (!setup_open(s, path, c->tokenizer, MODEL_ALL, e)) return no_model(c, path, e);
    if (!setup_tok(s, e) || !sampling_draft(s, &c->machine, c->draft, e)) return false;
    if (!sampler_check_ids(&a->sampler, tok_count(s->tok), e)) return false;
    if (!held_vocabulary(&a->held, s->tok, e)) return false;
    if (a->held.grammar) p->note[NOTE_SCHEMA] = grammar_note(a->held.grammar);
    if (!prepare_prompt(c, s, p, e) || !prepare_answer(a, c, s, p, e)) return false;
    if (!hire(c, s, p, &w, e)) return false;
    bool ok = generate(c, &w, a, p, &f, e) && finish_answer(c, &w, a, p, &f, e);
    if (w.alone) engine_close(w.alone);
    guest_close(w.guest);
    return ok;
}

static MUST run(void *conf, const char *path, struct setup *s, struct err *e) {
    struct answer *a = calloc(1, sizeof *a);
    struct prompt p = {0};
    if (!a) return err_set(e, ERR_MEMORY, "no memory to start with");
    bool ok = answer(conf, path, s, &p, a, e);
    answer_text_close(&a->out);
    held_close(&a->held);
    free(p.id);
    free(a);
    return ok;
}

static int run_main(const struct verb *v, int argc, char **argv) {
    struct run_conf c = {
        .machine = MACHINE_DEFAULT, .n_predict = 256, .sampling = SAMPLING_DEFAULT};
    return verb_on_model(v, argc, argv, &c, run);
}

const struct verb verb_run = {
    .name = "run",
    .usage = "[MODEL] -p TEXT [options]",
    .summary = "Answer one prompt; the answer alone goes to standard output",
    .notes =
        "Options can be written --key value or --key=value. The same model, prompt, options and "
        "seed give\nthe same answer on every machine, whatever its threads, memory, slices or workers.\n",
    .opt = run_opt,
    .n_opt = sizeof run_opt / sizeof *run_opt,
    .max_word = 1,
    .run = run_main,
};
