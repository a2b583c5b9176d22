/* cmd_node.c - the service: settings, model, identity, then a node and its page until a signal comes.
 *
 * A machine must boot: what is wrong in a file is named in the log and worked around; what is wrong on
 * the command line ends it, unless we are the machine's first process, which never gives up. */
#include "base/ifaces.h"
#include "base/log.h"
#include "base/text.h"
#include "cluster/msg.h"
#include "front/front.h"
#include "front/status_json.h"
#include "host/facts.h"
#include "modelpath.h"
#include "nodesetup.h"
#include "setup_show.h"
#include "verbs.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    POLL_MS = 250,
    WARMTH_POLLS = 8,
    DRAIN_MS = 10000,
    SETTLE_MS = 1000,
    STOP_S = 10,
    PATH_CAP = 4096,
    TELL_CAP = 600
};

struct node_cli {
    const char *config;
    const char *given[CONFIG_KEYS], *later[CONFIG_LATERS];
};

static const struct opt node_opt[] = {
    {"--config", OPT_TEXT, offsetof(struct node_cli, config), "FILE",
     "settings from a file, over those of /etc/dair.conf", 0, 0},
#define KEY(name, kind, takes, init, from, to, help)                                               \
    {"--" #name, OPT_TEXT, offsetof(struct node_cli, given[CONFIG_KEY_##name]), takes, help, 0, 0},
#define LATER(name, ...)                                                                           \
    {"--" #name, OPT_TEXT, offsetof(struct node_cli, later[CONFIG_LATER_##name]), "VALUE", NULL,   \
     0,          0},
#include "base/config.def"
#undef KEY
#undef LATER
};

/* Names of the keys, to hand over what the command line says. */
static const char *const key_name[] = {
#define KEY(name, ...) #name,
#define LATER(...)
#include "base/config.def"
#undef KEY
#undef LATER
};
static const char *const later_name[] = {
#define KEY(name, ...)
#define LATER(name, ...) #name,
#include "base/config.def"
#undef KEY
#undef LATER
};

struct service {
    const struct node_cli *cli;
    struct config config;
    struct setup *setup;
    struct ident ident;
    struct node_conf conf;
    struct node *node;
    struct front *front;
    bool is_init;         // we are the machine's first process
    bool is_model_asked;  // by the command line
    char state[PATH_CAP], model[PATH_CAP];

    struct status now;  // what the log has told of
    enum node_state told;
    char told_text[TELL_CAP];
};

/* ---- settings */

static MUST load_settings(struct service *s, struct err *e) {
    const struct node_cli *cli = s->cli;
    config_init(&s->config);
    if (!config_load(&s->config, cli->config, e)) {
        if (!s->is_init) return false;
        log_both(LOG_ERROR, "config", e->full, e->text);
    }
    for (unsigned i = 0; i < CONFIG_KEYS; i++) {
        if (cli->given[i] && !config_set(&s->config, key_name[i], cli->given[i], e)) return false;
    }
    for (unsigned i = 0; i < CONFIG_LATERS; i++) {
        if (cli->later[i] && !config_set(&s->config, later_name[i], cli->later[i], e)) return false;
    }
    log_set((enum log_level)s->config.log, stderr);
    return true;
}

/* A failure that the command line asked for ends us; any other is told, and we go on without. */
static MUST bear(const struct service *s, bool is_asked, const char *without, const struct err *e) {
    if (is_asked && !s->is_init) return false;
    char shown[LOG_LINE], kept[LOG_LINE];
    snprintf(shown, sizeof shown, "%s; %s", e->full, without);
    snprintf(kept, sizeof kept, "%s; %s", e->text, without);
    log_both(LOG_ERROR, "node", shown, kept);
    return true;
}

static MUST open_keys(struct service *s, struct err *e) {
    struct config *c = &s->config;
    bool is_asked = s->cli->given[CONFIG_KEY_cluster_key] || getenv("DAIR_CLUSTER_KEY");
    bool ok = keys_open(&s->conf.keys, c->cluster_key, c->cluster_key_old, e);
    explicit_bzero(c->cluster_key, sizeof c->cluster_key);
    explicit_bzero(c->cluster_key_old, sizeof c->cluster_key_old);
    if (!ok) {
        memset(&s->conf.keys, 0, sizeof s->conf.keys);
        return bear(s, is_asked, "without a cluster key this node works alone", e);
    }
    if (!s->conf.keys.has_key) {
        log_warn("node",
                 "no cluster_key is set: this node works ALONE; make a key with `dair keygen` "
                 "and give it to all nodes");
    }
    return true;
}

/* Where a node remembers who it is; "": nowhere. */
static void find_state(struct service *s) {
    const char *base = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    if (*s->config.state) {
        snprintf(s->state, sizeof s->state, "%s", s->config.state);
    } else if (s->is_init) {
        snprintf(s->state, sizeof s->state, "/data/state");
    } else if (base && *base == '/') {
        snprintf(s->state, sizeof s->state, "%.4000s/dair", base);
    } else if (home && *home == '/') {
        snprintf(s->state, sizeof s->state, "%.4000s/.local/state/dair", home);
    }
}

static MUST open_ident(struct service *s, struct err *e) {
    find_state(s);
    if (!ident_open(&s->ident, *s->state ? s->state : NULL, e)) {
        *s->state = '\0';
        if (!bear(s, *s->config.state != 0, "this node has another id after each start", e) ||
            !ident_open(&s->ident, NULL, e)) {
            return false;
        }
    }
    if (*s->config.hostname) {
        snprintf(s->ident.name, sizeof s->ident.name, "%s", s->config.hostname);
    }
    return true;
}

/* ---- model */

static const char without_model[] =
    "this node goes on without a model, answering no requests itself";

/* A line whose place the console has by its path, and who asks for the status by a word. */
static void log_place(enum log_level level, const char *before, const char *path, const char *word,
                      const char *after) {
    char shown[LOG_LINE], kept[LOG_LINE], place[128];
    text_shorten(place, sizeof place, path, 0);
    snprintf(shown, sizeof shown, "%s%s%s", before, place, after);
    snprintf(kept, sizeof kept, "%s%s%s", before, word, after);
    log_both(level, "node", shown, kept);
}

/* The only model of the folder, or the first by name. s->model "": there is none. */
static MUST look_for_model(struct service *s, struct err *e) {
    const char *dir = s->config.models;
    int n = modelpath_first(dir, s->model, sizeof s->model, e);
    if (n == 0) {
        log_place(LOG_WARN, "there is no .gguf or .m file in ", dir, "the models folder",
                  ": this node has no model and answers no requests itself");
    }
    if (n > 1) {
        char many[32], first[160];
        snprintf(many, sizeof many, "%d models in ", n);
        snprintf(first, sizeof first, ", taking the first by name, %.80s; `model =` chooses",
                 text_name(s->model));
        log_place(LOG_INFO, many, dir, "the models folder", first);
    }
    return n >= 0;
}

/* An empty setup, for a node without a model. */
static MUST no_model(struct service *s, struct err *e) {
    setup_close(s->setup);
    memset(s->setup, 0, sizeof *s->setup);
    s->setup->n_core = host_cores();
    return setup_kernels(&s->setup->kernels, e);
}

static MUST open_model(struct service *s, const char *word, struct err *e) {
    const char *name = word ? word : *s->config.model ? s->config.model : NULL;
    s->is_model_asked = word || s->cli->given[CONFIG_KEY_model];
    bool is_demo = !name && !*s->config.models;
    if (!setup_kernels(&s->setup->kernels, e)) return false;  // DAIR_CPU is wrong
    if (name) modelpath(s->config.models, name, s->model, sizeof s->model);
    if (!name && !is_demo && !look_for_model(s, e)) {
        if (!bear(s, s->cli->given[CONFIG_KEY_models] != NULL, without_model, e)) return false;
    }
    if (!is_demo && !*s->model) return no_model(s, e);
    const char *tokenizer = *s->config.tokenizer ? s->config.tokenizer : NULL;
    if (setup_open(s->setup, is_demo ? NULL : s->model, tokenizer, MODEL_ALL, e) &&
        setup_tok(s->setup, e)) {
        const char *note = tok_note(s->setup->tok);
        if (note) log_warn("node", "%s", note);
        return true;
    }
    return bear(s, s->is_model_asked, without_model, e) && no_model(s, e);
}

/* ---- start */

static struct machine machine_of(const struct config *c) {
    return (struct machine){.ctx = c->ctx,
                            .kv = c->kv,
                            .wire = c->wire,
                            .threads = c->threads,
                            .pin = c->pin,
                            .memory = c->memory};
}

static MUST measure_with(struct service *s, const struct machine *m, struct err *e) {
    return nodesetup_measure(s->setup, m, s->config.peers.n, true, &s->conf, e);
}

/* Fits the node to machine and model. What a file asks too much of gives way. */
static MUST measure(struct service *s, struct err *e) {
    struct machine m = machine_of(&s->config);
    uint32_t most = s->setup->model.n_ctx;
    if (most && m.ctx > most && !s->cli->given[CONFIG_KEY_ctx]) {
        log_warn("config",
                 "ctx = %u is more than the %u tokens the model was made for, taking these", m.ctx,
                 most);
        m.ctx = most;
    }
    if (m.ctx > MSG_TOKENS_MAX) {
        log_warn("config", "ctx = %u is more than the %d tokens that a node hands on, taking these",
                 m.ctx, MSG_TOKENS_MAX);
        m.ctx = MSG_TOKENS_MAX;
    }
    if (measure_with(s, &m, e)) return true;
    if (e->code == ERR_MEMORY && (m.memory.bytes || m.memory.percent > 0)) {
        m.memory = (struct amount){0};
        return bear(s, s->cli->given[CONFIG_KEY_memory] != NULL, "taking what is free", e) &&
               measure_with(s, &m, e);
    }
    if (!most || e->code == ERR_USAGE) return false;
    /* Weights without a kernel, a disk that does not read. */
    return bear(s, s->is_model_asked, without_model, e) && no_model(s, e) && measure_with(s, &m, e);
}

static void log_banner(const struct service *s) {
    struct utsname u;
    const struct node_conf *c = &s->conf;
    const struct setup *t = s->setup;
    if (uname(&u) != 0) memset(&u, 0, sizeof u);
    log_info("node", "dair %s: %s, %s%s%s, %d core%s, %s of memory", DAIR_VERSION, s->ident.name,
             u.machine, *c->board ? ", " : "", c->board, t->n_core, t->n_core == 1 ? "" : "s",
             BYTES_TEXT(t->mem.total));
    char threads[256], what[256];
    log_info("node", "budget %s, of it %s for weights and context; kernels %s, %u thread%s",
             BYTES_TEXT(c->budget), BYTES_TEXT(c->pool), t->kernels.name, c->n_thread,
             c->n_thread == 1 ? "" : "s");
    if (!c->model) return;
    setup_threads(t, threads, sizeof threads);
    log_info("node", "threads that write: %s", threads);
    snprintf(what, sizeof what, ": %s, %u layer%s, %s in %s; weights %s, disk %s",
             c->model->arch_name, c->model->n_layer, c->model->n_layer == 1 ? "" : "s",
             BYTES_TEXT(c->model->data_len), setup_type(c->model), RATE_TEXT(c->speed),
             RATE_TEXT(c->disk_bps));
    log_place(LOG_INFO, "model ", c->model_file, text_name(c->model_file), what);
}

static MUST start_front(struct service *s, struct err *e) {
    const struct config *c = &s->config;
    const struct front_conf f = {.node = s->node,
                                 .tok = s->setup->tok,
                                 .n_ctx = s->conf.n_ctx,
                                 .memory = nodesetup_http(s->conf.budget),
                                 .port = (uint16_t)c->port,
                                 .interface = s->conf.interface};
    return front_open(&s->front, &f, e) || bear(s, true, "this node works without the HTTP API", e);
}

static MUST start(struct service *s, struct err *e) {
    const struct config *c = &s->config;
    struct node_conf *n = &s->conf;
    if (*c->interface && !ifaces_check(c->interface, e)) return false;
    if (!open_keys(s, e) || !open_ident(s, e) || !measure(s, e)) return false;
    log_banner(s);
    nodesetup_peers(&c->peers, n);
    n->ident = &s->ident;
    n->interface = *c->interface ? c->interface : NULL;
    n->is_discovered = c->discovery;
    n->http_port = (uint16_t)c->port;
    n->cluster_port = (uint16_t)c->cluster_port;
    n->share = c->share.wish;
    n->is_even = c->share.is_even;
    return node_open(&s->node, n, e) && start_front(s, e);
}

/* ---- telling the log */

static void describe(const struct status *t, char *out, size_t cap) {
    unsigned n = t->cluster.n_node, working = 0;
    char serves[300];
    for (unsigned i = 0; i < n; i++) working += t->cluster.node[i].is_working;
    if (!t->model.bytes && t->state != STATE_FAILED) {
        status_no_model(t, out, cap);
        return;
    }
    snprintf(serves, sizeof serves, "%.80s (%s)%s%.64s%s", t->model.name,
             BYTES_TEXT(t->model.bytes), *t->address ? " at http://" : "", t->address,
             *t->address ? "/" : "");
    switch (t->state) {
    case STATE_ALONE:
        snprintf(out, cap, "this node serves %s by itself; with a cluster_key it would join others",
                 serves);
        break;
    case STATE_READY:
        snprintf(out, cap, "%u %s %s", working, working == 1 ? "node serves" : "nodes serve",
                 serves);
        break;
    case STATE_DEGRADED:
        snprintf(out, cap, "%u %s %s; a node was lost and is waited for", working,
                 working == 1 ? "node serves" : "nodes serve", serves);
        break;
    case STATE_LOADING:
        snprintf(out, cap, "%u %s %.80s (%s)", n, n == 1 ? "node loads" : "nodes load",
                 t->model.name, BYTES_TEXT(t->model.bytes));
        break;
    case STATE_JOINING:
    case STATE_FAILED:
    case N_STATE: snprintf(out, cap, "%s", t->why); break;
    }
}

static void tell_state(struct service *s) {
    const struct status *t = &s->now;
    char text[TELL_CAP];
    describe(t, text, sizeof text);
    if (t->state == s->told && strcmp(text, s->told_text) == 0) return;
    s->told = t->state;
    memcpy(s->told_text, text, strlen(text) + 1);
    log_line(t->state == STATE_FAILED ? LOG_ERROR : LOG_INFO, "node", "%s: %s",
             state_name(t->state), text);
}

static void tell(struct service *s) {
    node_status(s->node, &s->now);
    if (s->now.cluster.n_node == 0) return;  // it has only just begun
    tell_state(s);
}

/* ---- signals */

static void watched(sigset_t *set) {
    sigemptyset(set);
    sigaddset(set, SIGTERM);
    sigaddset(set, SIGINT);
    sigaddset(set, SIGHUP);
    sigaddset(set, SIGCHLD);
}

/* Who has patience no more says so by a second signal. */
static void leave_now(int sig) {
    static const char text[] = "dair node: stopped at once by a second signal\n";
    ssize_t ignored = write(STDERR_FILENO, text, sizeof text - 1);
    (void)ignored;
    _exit(128 + sig);
}

/* An engine that hangs, as in a disk that does not answer, would hold us for ever. */
static void leave_late(int sig) {
    static const char text[] = "dair node: the engine does not stop, leaving without it\n";
    ssize_t ignored = write(STDERR_FILENO, text, sizeof text - 1);
    (void)ignored, (void)sig;
    _exit(EXIT_FAILURE);
}

static void wait_for_end(struct service *s) {
    const struct timespec poll = {.tv_nsec = POLL_MS * 1000000L};
    sigset_t set;
    watched(&set);
    for (unsigned i = 0;; i++) {
        if (i % WARMTH_POLLS == 0) node_temperature(s->node, facts_temperature(""));
        int sig = sigtimedwait(&set, NULL, &poll);
        while (s->is_init && waitpid(-1, NULL, WNOHANG) > 0) {
        }
        if (sig == SIGTERM || sig == SIGINT || (sig == SIGHUP && !s->is_init)) {
            log_info("node", "%s: leaving in good order, answers under way have %d s",
                     sig == SIGINT ? "interrupted" : "asked to stop", DRAIN_MS / 1000);
            return;
        }
        tell(s);
    }
}

static void stop(struct service *s) {
    struct sigaction act = {.sa_handler = leave_now};
    sigset_t set;
    sigaction(SIGTERM, &act, NULL);
    sigaction(SIGINT, &act, NULL);
    watched(&set);
    sigdelset(&set, SIGCHLD);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    if (s->node) node_drain(s->node, DRAIN_MS);
    act.sa_handler = leave_late;
    sigaction(SIGALRM, &act, NULL);
    alarm(STOP_S);
    if (s->front) front_settle(s->front, SETTLE_MS);
    if (s->front) front_close(s->front);
    if (s->node) node_close(s->node);
    log_info("node", "stopped");
}

/* Everything that is started inherits a mask that leaves signals to this thread. */
static MUST serve(struct service *s, const char *word, struct err *e) {
    sigset_t set;
    watched(&set);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    s->told = N_STATE;
    if (!load_settings(s, e) || !open_model(s, word, e)) return false;
    bool ok = start(s, e);
    if (ok) wait_for_end(s);
    if (s->node) stop(s);
    return ok;
}

static MUST node(void *conf, const char *word, struct setup *setup, struct err *e) {
    struct service *s = calloc(1, sizeof *s);
    if (!s) return err_set(e, ERR_MEMORY, "no memory to start with");
    s->cli = conf;
    s->setup = setup;
    s->is_init = getpid() == 1;
    bool ok = serve(s, word, e);
    free(s);
    return ok;
}

static int node_main(const struct verb *v, int argc, char **argv) {
    struct node_cli c = {0};
    return verb_on_model(v, argc, argv, &c, node);
}

const struct verb verb_node = {
    .name = "node",
    .usage = "[MODEL] [options]",
    .summary = "Be a node: find the others, share the work, serve the HTTP API",
    .notes =
        "Every option is also a line `key = value` of a config file. What counts: the command\n"
        "line, then DAIR_CLUSTER_KEY in the environment, then --config, then /etc/dair.conf.\n"
        "Without a model and a models folder, the model inside this program is served. SIGTERM ends\n"
        "it in good order, a second one at once.\n",
    .opt = node_opt,
    .n_opt = sizeof node_opt / sizeof *node_opt,
    .max_word = 1,
    .run = node_main,
};
