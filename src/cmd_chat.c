/* cmd_chat.c - a conversation on the terminal. What was said stays in the KV cache: of each turn only
 * what is new is computed. */
#include "answer_text.h"
#include "base/progress.h"
#include "model/chat.h"
#include "sampling.h"
#include "setup_show.h"
#include "verbs.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct chat_conf {
    struct machine machine;
    struct sampling sampling;
    const char *tokenizer, *prompt, *file, *system, *draft;
    uint32_t n_predict;
    int think;
    bool is_json, is_quiet;
};

#define AT(field) offsetof(struct chat_conf, field)
static const struct opt chat_opt[] = {
    {"-p", OPT_TEXT, AT(prompt), "TEXT", "say this first", 0, 0},
    {"-f", OPT_TEXT, AT(file), "FILE", "say this file's text first, - for standard input", 0, 0},
    {"--system", OPT_TEXT, AT(system), "TEXT", "what the model is told about its part", 0, 0},
    {"--think", OPT_CHOICE, AT(think), "auto|on|off",
     "whether a thinking model thinks first (auto: as its template does)", 0, 0},
    {"-n", OPT_U32, AT(n_predict), "N",
     "most tokens of an answer, 0: until the context is full (0)", 0, MODEL_MAX_CTX},
    TOKENIZER_OPTION(struct chat_conf),
    SAMPLING_OPTIONS(struct chat_conf),
    MACHINE_OPTIONS(struct chat_conf),
    GUESS_OPTIONS(struct chat_conf),
    {"--json", OPT_FLAG, AT(is_json), NULL,
     "a JSON object for each token, one at the end of a turn", 0, 0},
    {"--quiet", OPT_FLAG, AT(is_quiet), NULL, "no forecast, no notes, no prompt sign, no thoughts",
     0, 0},
};

enum {
    LONG_TOKEN = 16,    // bytes; texts have more of them for a token only by being no language
    COMMAND_ROOM = 64,  // of a line, besides a text of the most that can be said
};

static atomic_bool stop_asked;  // the signal flag

static void on_signal(int sig) {
    (void)sig;
    atomic_store(&stop_asked, true);
}

struct message {
    const char *role;  // static
    char *text;        // [len], owned
    size_t len;
};

/* Everything of a conversation. ids: of the last turn, prompt and answer, as far as they went. */
struct talk {
    const struct chat_conf *conf;
    const struct setup *setup;
    struct engine *engine;
    struct chat *chat;
    struct sampler sampler;
    struct held held;
    enum chat_think think;
    const char *system;       // NULL: none
    char *own_system;         // where /system's is kept, owned
    struct message *message;  // [n_message], owned
    size_t n_message, cap_message;
    int32_t *id, *next;  // [n_ctx], owned
    size_t n_id;
    struct answer_text out;  // the answer under way
    struct progress progress;
    bool has_failed;  // a turn or a command
    bool tells_notes, is_told[CHAT_NOTES];
};

/* --- the answer --- */

static bool is_end(void *ctx, int32_t id) {
    const struct talk *t = ctx;
    return tok_is_end(t->setup->tok, id);
}

static bool on_token(void *ctx, int32_t id) {
    struct talk *t = ctx;
    progress_end(&t->progress);
    t->id[t->n_id++] = id;
    return answer_text_push(&t->out, id) && !atomic_load(&stop_asked);
}

static void on_prefill(void *ctx, uint32_t done, uint32_t total) {
    struct talk *t = ctx;
    progress_update(&t->progress, done, total);
}

/* The first Ctrl-C ends the answer, a second one the program. */
static void catch_interrupt(bool is_on) {
    struct sigaction act = {.sa_handler = is_on ? on_signal : SIG_DFL,
                            .sa_flags = (int)(SA_RESETHAND | SA_RESTART)};
    atomic_store(&stop_asked, false);
    sigaction(SIGINT, &act, NULL);
}

/* --- history --- */

static MUST add_message(struct talk *t, const char *role, const char *text, size_t len,
                        struct err *e) {
    if (t->n_message == t->cap_message) {
        size_t cap = t->cap_message ? 2 * t->cap_message : 16;
        struct message *more = realloc(t->message, cap * sizeof *more);
        if (!more) return err_set(e, ERR_MEMORY, "no memory for the conversation");
        t->message = more;
        t->cap_message = cap;
    }
    char *copy = malloc(len + 1);
    if (!copy) return err_set(e, ERR_MEMORY, "no memory for the conversation");
    memcpy(copy, text, len);
    copy[len] = '\0';
    struct message *m = &t->message[t->n_message++];
    m->role = role;
    m->text = copy;
    m->len = len;
    return true;
}

static void drop_messages(struct talk *t, size_t keep) {
    while (t->n_message > keep) free(t->message[--t->n_message].text);
}

static void put_messages(struct json *j, const struct talk *t) {
    json_array(j);
    for (size_t i = 0; i <= t->n_message; i++) {
        struct message m = {"system", (char *)(uintptr_t)t->system, 0};
        if (i) m = t->message[i - 1];
        if (!i && !t->system) continue;
        json_object(j);
        json_put_text(j, "role", m.role);
        json_key(j, "content");
        json_string(j, m.text, i ? m.len : strlen(m.text));
        json_end(j);
    }
    json_end(j);
}

static MUST messages_json(const struct talk *t, struct json_doc **d, struct err *e) {
    struct json j;
    char none[1];
    json_mem(&j, none, sizeof none);
    put_messages(&j, t);
    size_t len = j.len;
    char *text = malloc(len + 1);
    if (!text) return err_set(e, ERR_MEMORY, "no memory for the conversation");
    json_mem(&j, text, len + 1);
    put_messages(&j, t);
    bool ok = json_read(d, text, len, len, e);
    free(text);
    return ok;
}

/* --- a turn --- */

/* The whole conversation as tokens, to t->next. Fails when it leaves no room for an answer. */
static MUST encode(struct talk *t, size_t *n, struct err *e) {
    struct json_doc *d = NULL;
    struct chat_prompt p = {0};
    uint32_t n_ctx = t->setup->conf.n_ctx;
    if (!messages_json(t, &d, e)) return false;
    struct chat_request r = {.messages = json_root(d),
                             .add_generation_prompt = true,
                             .think = t->think,
                             .is_held = t->held.grammar != NULL};
    bool ok = chat_render(t->chat, &r, &p, e);
    json_free(d);
    if (!ok) return false;
    ok = chat_encode(t->chat, &p, t->next, n_ctx, n, e);
    for (int i = 0; i < CHAT_NOTES && t->tells_notes; i++) {
        const char *note = t->is_told[i] ? NULL : chat_prompt_note(&p, i);
        if (note) fprintf(stderr, "note      %s\n", note);
        t->is_told[i] |= note != NULL;
    }
    chat_split(t->chat, &p, &t->out.reasoning);
    chat_prompt_free(&p);
    if (*n < n_ctx) return ok;
    return err_set(e, ERR_UNSUPPORTED,
                   "the conversation has %zu tokens, the context holds %u with the answer; /clear "
                   "begins anew, --ctx makes it longer",
                   *n, n_ctx);
}

/* What of the new prompt the cache already holds. */
static uint32_t common(const struct talk *t, size_t n) {
    size_t k = 0;
    while (k < n && k < t->n_id && t->id[k] == t->next[k]) k++;
    return (uint32_t)k;
}

/* What is shown must be what the grammar saw, a blank in front included. */
static void start_text(const struct talk *t, struct detok *d) {
    if (t->held.grammar) {
        detok_init_within(d, t->setup->tok, false);
    } else {
        detok_init(d, t->setup->tok, chat_has_controls(t->chat));
    }
}

static void begin_answer(struct talk *t) {
    start_text(t, &t->out.detok);
    answer_text_begin(&t->out);
}

/* For programs, which wait for it: how the turn ended. */
static void json_turn(struct talk *t, size_t n_prompt, const struct gen_result *r) {
    struct json *j = &t->out.json;
    json_object(j);
    answer_text_json_end(&t->out, n_prompt, r);
    json_put_u64(j, "kept_tokens", r->n_kept);
    json_end(j);
    json_line(j);
    fflush(stdout);
}

static void end_line(struct talk *t) {
    answer_text_end(&t->out);
    fputc('\n', stdout);
    fflush(stdout);
}

static void end_answer(struct talk *t, size_t n_prompt, const struct gen_result *r) {
    if (t->conf->is_json)
        json_turn(t, n_prompt, r);
    else
        end_line(t);
}

struct kept {
    char *text;  // [cap]
    size_t len, cap;
};

static void keep_part(void *ctx, enum reasoning_part part, const char *s, size_t len) {
    struct kept *k = ctx;
    if (part == REASONING_THOUGHT || len > k->cap - k->len) return;
    memcpy(k->text + k->len, s, len);
    k->len += len;
}

/* The answer for the history: its tokens once more, without thoughts and what follows a stop string. */
static MUST keep_answer(struct talk *t, size_t from, struct reasoning split, struct err *e) {
    size_t cap = DETOK_MAX, len = 0;
    const char *piece;
    for (size_t i = from; i < t->n_id; i++)
        cap += tok_piece(t->setup->tok, t->id[i], true, &piece) + 4;
    char *all = malloc(cap);
    struct kept k = {.text = malloc(cap), .cap = cap};
    struct detok d;
    bool is_stop, ok = all && k.text;
    if (ok) {
        start_text(t, &d);
        for (size_t i = from; i < t->n_id; i++)
            len += detok_push(&d, t->id[i], all + len, cap - len);
        len += detok_flush(&d, all + len, cap - len);
        reasoning_push(&split, all, stop_end(&t->out.stop, all, len, &is_stop), keep_part, &k);
        reasoning_end(&split, keep_part, &k);
        ok = add_message(t, "assistant", k.text, k.len, e);
    } else {
        ok = err_set(e, ERR_MEMORY, "no memory for the conversation");
    }
    free(all);
    free(k.text);
    return ok;
}

/* A new engine, in the place of one that is spent. */
static MUST load_engine(struct talk *t, struct err *e) {
    engine_close(t->engine);
    t->engine = NULL;
    if (!engine_open(&t->engine, &t->setup->conf, e)) return false;
    if (setup_load(t->engine, &t->progress, t->conf->is_quiet ? NULL : stderr, e)) return true;
    engine_close(t->engine);
    t->engine = NULL;
    return false;
}

/* Ctrl-C while the prompt was read: there is no answer, and perhaps no engine any more. */
static MUST recover(struct talk *t, size_t n_prompt, bool *is_said, struct err *e) {
    *is_said = false;
    if (t->conf->is_json) json_turn(t, n_prompt, &(struct gen_result){.end = GEN_STOPPED});
    if (!t->conf->is_quiet) fputs("[stopped while reading, as if it had not been said]\n", stderr);
    return !engine_is_spent(t->engine) || load_engine(t, e);
}

/* A turn of the model. is_said: there is an answer. */
static MUST answer(struct talk *t, bool *is_said, struct err *e) {
    size_t n;
    if (!encode(t, &n, e)) return false;
    uint32_t keep = common(t, n), room = t->setup->conf.n_ctx - (uint32_t)n;
    uint32_t most = t->conf->n_predict;
    struct gen_result out;
    struct reasoning split = t->out.reasoning;
    int32_t *swap = t->id;
    t->id = t->next;
    t->next = swap;
    t->n_id = n;
    struct gen_request r = {.prompt = t->id,
                            .n_prompt = (uint32_t)n,
                            .n_keep = keep,
                            .n_predict = most && most < room ? most : room,
                            .sampler = t->sampler,
                            .grammar = t->held.grammar,
                            .lexicon = t->held.lexicon,
                            .is_end = is_end,
                            .on_token = on_token,
                            .on_prefill = on_prefill,
                            .ctx = t,
                            .stop = &stop_asked,
                            .goes_on = true};
    begin_answer(t);
    progress_start(&t->progress, "reading", PROGRESS_TOKENS, t->conf->is_quiet ? NULL : stderr);
    catch_interrupt(true);
    bool ok = engine_generate(t->engine, &r, &out, e);
    bool is_stopped = atomic_load(&stop_asked);
    catch_interrupt(false);
    progress_end(&t->progress);
    if (is_stopped && (ok ? !out.n_token : e->code == ERR_STOPPED))
        return recover(t, n, is_said, e);
    if (!ok) {
        if (!t->conf->is_json) end_line(t);
        return false;
    }
    if (!answer_text_check(&t->out, e)) return false;
    end_answer(t, n, &out);
    if (!t->conf->is_quiet) {
        fprintf(stderr, "[%zu tokens read, %u kept, %u answered%s]\n", n - out.n_kept, out.n_kept,
                out.n_token, answer_text_ended(&t->out, out.end, r.n_predict != most));
    }
    *is_said = true;
    if (engine_is_spent(t->engine) && !load_engine(t, e)) return false;
    return keep_answer(t, n, split, e);
}

/* --- the terminal --- */

static const char help_text[] =
    "/help         this\n"
    "/clear        forget what was said\n"
    "/system TEXT  begin anew with this about the model's part\n"
    "/think WORD   auto, on or off: whether it thinks first\n"
    "/quit         leave (so does Ctrl-D)\n"
    "Ctrl-C ends an answer, twice the program. Else: what the model is told.\n";

static void clear(struct talk *t) {
    drop_messages(t, 0);
}

/* False: it was said why not. */
static bool set_think(struct talk *t, const char *word) {
    static const char *const words[] = {"auto", "on", "off"};
    for (int i = 0; i < 3; i++) {
        if (strcmp(words[i], word) != 0) continue;
        t->think = (enum chat_think)i;
        memset(t->is_told, 0, sizeof t->is_told);
        return true;
    }
    fputs("/think takes auto, on or off", stderr);
    if (*word) fprintf(stderr, ", not \"%.40s\"", word);
    fputc('\n', stderr);
    return false;
}

/* Making tokens of a text takes memory, of which so much is kept. */
static MUST check_line(const struct talk *t, size_t len, struct err *e) {
    size_t most = setup_kept_text(t->setup);
    return len <= most ||
           err_set(e, ERR_LIMIT,
                   "a line of %zu bytes is more than the %zu that can be taken here; "
                   "a larger --ctx or more --memory takes more",
                   len, most);
}

static bool set_system(struct talk *t, const char *text) {
    struct err e;
    char *copy = NULL;
    if (!*text) {
        fputs("/system takes a text: what the model is told about its part\n", stderr);
        return false;
    }
    bool ok = check_line(t, strlen(text), &e);
    if (ok) copy = strdup(text);
    if (ok && !copy) ok = err_set(&e, ERR_MEMORY, "no memory for the text");
    if (!ok) {
        fprintf(stderr, "dair chat: %s\n", e.full);
        return false;
    }
    free(t->own_system);
    t->system = t->own_system = copy;
    clear(t);
    return true;
}

/* What stands behind a command's name, which ends there; "": nothing. */
static char *argument(char *line) {
    char *word = line + strcspn(line, " \t");
    if (*word) *word++ = '\0';
    word += strspn(word, " \t");
    for (size_t n = strlen(word); n && strchr(" \t", word[n - 1]);) word[--n] = '\0';
    return word;
}

/* A line that begins with a slash. False: leave. */
static MUST command(struct talk *t, char *line, size_t len) {
    if (memchr(line, '\0', len)) {
        fputs("a command has no NUL bytes in it; /help lists them\n", stderr);
        t->has_failed = true;
        return true;
    }
    const char *word = argument(line);
    bool is_help = !strcmp(line, "/help"), is_clear = !strcmp(line, "/clear");
    bool is_quit = !strcmp(line, "/quit") || !strcmp(line, "/exit"), ok = true;
    if (!strcmp(line, "/think")) {
        ok = set_think(t, word);
    } else if (!strcmp(line, "/system")) {
        ok = set_system(t, word);
    } else if (!is_help && !is_clear && !is_quit) {
        fprintf(stderr,
                "there is no command \"%.40s\"; /help lists them, and behind a blank it is said "
                "to the model\n",
                line);
        ok = false;
    } else if (*word) {
        fprintf(stderr, "%s takes nothing, not \"%.40s\"\n", line, word);
        ok = false;
    } else if (is_help) {
        fputs(help_text, stderr);
    } else if (is_clear) {
        clear(t);
    } else {
        return false;
    }
    t->has_failed |= !ok;
    return true;
}

/* A failure that leaves the conversation going: what was said last is taken back. */
static bool goes_on(const struct err *e) {
    return e->code == ERR_UNSUPPORTED || e->code == ERR_FORMAT || e->code == ERR_LIMIT;
}

/* A turn that comes to nothing, for programs. */
static void put_error(struct talk *t, const struct err *e) {
    struct json *j = &t->out.json;
    if (!t->conf->is_json) return;
    json_object(j);
    json_put_text(j, "error", e->full);
    json_end(j);
    json_line(j);
    fflush(stdout);
}

static void refuse(struct talk *t, const struct err *e) {
    fprintf(stderr, "dair chat: %s\n", e->full);
    t->has_failed = true;
    put_error(t, e);
}

/* One turn. False: the conversation is over. */
static MUST say(struct talk *t, const char *text, size_t len, struct err *e) {
    size_t before = t->n_message;
    bool is_said = false;
    bool ok =
        check_line(t, len, e) && add_message(t, "user", text, len, e) && answer(t, &is_said, e);
    if (ok && is_said) return true;
    drop_messages(t, before);
    if (ok) return true;
    if (!goes_on(e) || !t->engine) {
        put_error(t, e);
        return false;
    }
    refuse(t, e);
    return !engine_is_spent(t->engine) || load_engine(t, e);
}

struct line {
    char *text;        // [room + 1], owned
    size_t room, len;  // len > room: only the beginning is here
};

/* The next line, without what ends it; what no line may have is counted and not kept. False: no more. */
static bool read_line(struct line *l) {
    int c = getc_unlocked(stdin);
    if (c == EOF) return false;
    l->len = 0;
    for (size_t n = 0; c != EOF && c != '\n'; c = getc_unlocked(stdin)) {
        if (n < l->room) l->text[n] = (char)c;
        n++;
        if (c != '\r') l->len = n;
    }
    l->text[l->len < l->room ? l->len : l->room] = '\0';
    return true;
}

/* What -p or -f says. */
static MUST say_first(struct talk *t, struct err *e) {
    const struct chat_conf *c = t->conf;
    size_t len, most = setup_kept_text(t->setup);
    char *text;
    if (c->prompt) {
        if (!c->is_quiet) fprintf(stderr, "> %s\n", c->prompt);
        return !*c->prompt || say(t, c->prompt, strlen(c->prompt), e);
    }
    if (!c->file) return true;
    if (!verb_read_all(c->file, most, &text, &len, e)) {
        if (e->code != ERR_LIMIT) return false;
        (void)err_set(e, ERR_LIMIT,
                      "longer than the %zu bytes that can be taken here; a larger --ctx or more "
                      "--memory takes more",
                      most);
        (void)err_in_file(e, c->file);
        refuse(t, e);
        return true;
    }
    len = verb_prompt_len(text, len);
    if (!c->is_quiet) fprintf(stderr, "> %s: %zu bytes\n", c->file, len);
    bool ok = !len || say(t, text, len, e);
    free(text);
    return ok;
}

/* A person has seen which turns failed and which commands were refused; who else gives the lines has the
 * exit status. */
static MUST converse(struct talk *t, struct err *e) {
    struct line l = {.room = setup_kept_text(t->setup) + COMMAND_ROOM};
    bool is_shown = !t->conf->is_quiet;
    if (!say_first(t, e)) return false;
    l.text = malloc(l.room + 1);
    if (!l.text) return err_set(e, ERR_MEMORY, "no memory for a line");
    bool ok = true;
    while (ok) {
        if (is_shown) fputs("> ", stderr);
        if (!read_line(&l)) break;
        if (!l.len) continue;
        if (*l.text == '/' && l.len <= l.room) {
            if (!command(t, l.text, l.len)) break;
            continue;
        }
        ok = say(t, l.text, l.len, e);
    }
    free(l.text);
    if (is_shown && isatty(STDERR_FILENO)) fputc('\n', stderr);
    if (ok && t->has_failed && !isatty(STDIN_FILENO)) return err_set(e, ERR_STOPPED, "%s", "");
    return ok;
}

/* --- start --- */

static MUST prepare(struct talk *t, struct setup *s, struct err *e) {
    uint32_t n_ctx;
    if (!setup_context(s, &t->conf->machine, &n_ctx, e)) return false;
    if (!answer_text_open(&t->out, s->tok, e)) return false;
    t->id = calloc(n_ctx, sizeof *t->id);
    t->next = calloc(n_ctx, sizeof *t->next);
    if (!t->id || !t->next) {
        return err_set(e, ERR_MEMORY, "no memory for a conversation of %u tokens", n_ctx);
    }
    if (!setup_budget(s, &t->conf->machine, e)) return false;
    setup_keep_text(s, (size_t)n_ctx * LONG_TOKEN);
    return setup_fit(s, &t->conf->machine, e) && setup_probe(s, DISK_IF_NEEDED, e);
}

static MUST open_engine(struct talk *t, struct setup *s, struct err *e) {
    FILE *bars = t->conf->is_quiet ? NULL : stderr;
    if (bars) setup_print(s, bars);
    const char *note = chat_note(t->chat),
               *held = t->held.grammar ? grammar_note(t->held.grammar) : NULL;
    if (t->tells_notes && note) fprintf(stderr, "note      %s\n", note);
    if (t->tells_notes && held) fprintf(stderr, "note      %s\n", held);
    if (bars) fputs("chat      /help lists the commands\n\n", bars);
    return load_engine(t, e);
}

static MUST chat(void *conf, const char *path, struct setup *s, struct err *e) {
    struct chat_conf *c = conf;
    if (c->prompt && c->file)
        return err_set(e, ERR_USAGE, "give the first turn by -p or by -f, not both");
    struct talk *t = calloc(1, sizeof *t);
    if (!t) return err_set(e, ERR_MEMORY, "no memory to start with");
    t->tells_notes = !c->is_quiet;
    c->is_quiet |= c->is_json;
    t->conf = c;
    t->setup = s;
    t->system = c->system;
    t->out.is_json = c->is_json;
    t->out.hides_thoughts = c->is_quiet;
    t->think = (enum chat_think)c->think;
    bool ok = sampling_make(&c->sampling, &t->sampler, &t->out.stop, e) &&
              held_open(&t->held, &c->sampling, e) &&
              setup_open(s, path, c->tokenizer, MODEL_ALL, e) && setup_tok(s, e) &&
              sampling_draft(s, &c->machine, c->draft, e) &&
              sampler_check_ids(&t->sampler, tok_count(s->tok), e) &&
              held_vocabulary(&t->held, s->tok, e) &&
              chat_open(&t->chat, &s->model, s->tok, NULL, 0, e) && prepare(t, s, e) &&
              open_engine(t, s, e) && converse(t, e);
    engine_close(t->engine);
    held_close(&t->held);
    chat_close(t->chat);
    drop_messages(t, 0);
    free(t->message);
    free(t->own_system);
    free(t->id);
    free(t->next);
    answer_text_close(&t->out);
    free(t);
    return ok;
}

static int chat_main(const struct verb *v, int argc, char **argv) {
    struct chat_conf c = {.machine = MACHINE_DEFAULT, .sampling = SAMPLING_DEFAULT};
    return verb_on_model(v, argc, argv, &c, chat);
}

const struct verb verb_chat = {
    .name = "chat",
    .usage = "[MODEL] [options]",
    .summary = "A conversation on the terminal; what was said is not computed again",
    .notes =
        "Lines from standard input, a turn each, after that of -p or -f; answers go to standard output,\n"
        "thoughts and all else to standard error. With --json a token's object has its id and text, or what\n"
        "it thinks as reasoning_content; a turn's last one has \"end\", or \"error\" where it came to nothing.\n"
        "Commands and empty lines have none. /help lists the commands. A line may have 16 KiB, and\n"
        "more where --ctx is large: 16 bytes for each of its tokens, or what --memory leaves. From a file\n"
        "or a pipe all lines are taken; the exit status is 1 if a turn failed or a command was refused.\n",
    .opt = chat_opt,
    .n_opt = sizeof chat_opt / sizeof *chat_opt,
    .max_word = 1,
    .run = chat_main,
};
