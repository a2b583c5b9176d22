/* cmd_doctor.c - what is wrong here and what helps: a line for each thing that was looked at. */
#include "asknode.h"
#include "base/config.h"
#include "base/json.h"
#include "base/log.h"
#include "host/facts.h"
#include "modelpath.h"
#include "net/key.h"
#include "setup.h"
#include "store/diskprobe.h"
#include "verbs.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MIB ((uint64_t)1 << 20)

enum { SENTENCE = ERR_TEXT, ASK_MS = 3000, PATH_CAP = 4096, WARNINGS = 16 };
static const uint32_t MDNS_GROUP = 0xe00000fb;  // 224.0.0.251
static const uint64_t MEMORY_LEAST = 256 * MIB;
static const time_t CLOCK_LEAST = 1735689600;  // 2025: no board that boots this is older
static const double SLOW_DISK = 100e6;         // bytes/s
static const double PROBE_SECONDS = 0.3;

struct doctor {
    struct json json;
    struct config config;  // what `dair node` would take
    bool is_running;       // a node, at its port
    bool is_key_bad;       // which was said
    bool is_json;
    unsigned n_wrong;
};

struct doctor_conf {
    const char *tokenizer, *config;
    bool is_json;
};

static const struct opt doctor_opt[] = {
    TOKENIZER_OPTION(struct doctor_conf),
    {"--config", OPT_TEXT, offsetof(struct doctor_conf, config), "FILE",
     "the settings of `dair node` from a file, over those of /etc/dair.conf", 0, 0},
    {"--json", OPT_FLAG, offsetof(struct doctor_conf, is_json), NULL, "a JSON object for each line",
     0, 0},
};

/* What was looked at, and how it is; remedy NULL: nothing is wrong. */
static void say(struct doctor *d, const char *what, const char *remedy, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

static void say(struct doctor *d, const char *what, const char *remedy, const char *format, ...) {
    char text[SENTENCE];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    d->n_wrong += remedy != NULL;
    if (!d->is_json) {
        printf("%-8s  %-5s %s%s%s\n", what, remedy ? "WRONG" : "ok", text, remedy ? "; " : "",
               remedy ? remedy : "");
        return;
    }
    json_object(&d->json);
    json_put_text(&d->json, "what", what);
    json_put_bool(&d->json, "ok", !remedy);
    json_put_text(&d->json, "text", text);
    if (remedy) json_put_text(&d->json, "remedy", remedy);
    json_end(&d->json);
    json_line(&d->json);
}

/* --- the machine --- */

static void look_at_cpu(struct doctor *d) {
    struct kernels k;
    struct err e;
    if (!setup_kernels(&k, &e)) {
        say(d, "cpu", "unset DAIR_CPU", "%s", e.full);
        return;
    }
    bool is_slow = strcmp(k.name, "scalar") == 0;
    say(d, "cpu", is_slow ? "use a CPU with AVX2 or NEON, and do not set DAIR_CPU" : NULL,
        "%d core%s, kernels %s", host_cores(), host_cores() == 1 ? "" : "s", k.name);
}

static void look_at_memory(struct doctor *d) {
    struct host_mem m;
    struct err e;
    if (!host_mem(&m, &e)) {
        say(d, "memory", "mount /proc", "%s", e.full);
        return;
    }
    uint64_t budget = host_budget(&m);
    bool is_group = m.cgroup_limit < m.total;
    say(d, "memory",
        budget >= MEMORY_LEAST ? NULL
        : is_group             ? "raise the limit of the memory group"
                               : "end other programs, or add memory",
        "%s of %s can be used%s", BYTES_TEXT(budget), BYTES_TEXT(m.total),
        is_group ? ", limited by a control group" : "");
}

static void look_at_pages(struct doctor *d) {
    static const char *const file = "/sys/kernel/mm/transparent_hugepage/enabled";
    char text[128] = "";
    if (!facts_read("", file, text, sizeof text)) {
        say(d, "pages", "mount /sys, or run a kernel with transparent huge pages",
            "it cannot be told whether there are huge pages: without, all is read at half its speed");
        return;
    }
    bool is_never = strstr(text, "[never]") != NULL;
    text[strcspn(text, "\n")] = '\0';
    say(d, "pages", is_never ? "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled" : NULL,
        is_never ? "no huge pages: disk and memory are read at half their speed" : "huge pages: %s",
        text);
}

static void look_at_threads(struct doctor *d) {
    struct rlimit r;
    const char *omp = getenv("OMP_THREAD_LIMIT");
    uint64_t most = getrlimit(RLIMIT_NPROC, &r) == 0 ? r.rlim_cur : RLIM_INFINITY;
    uint64_t need = (uint64_t)host_cores() + 16;
    if (omp && strtoull(omp, NULL, 10) < (uint64_t)host_cores()) {
        say(d, "threads", "unset OMP_THREAD_LIMIT", "OMP_THREAD_LIMIT is %.20s", omp);
        return;
    }
    say(d, "threads", most < need ? "raise it with ulimit -u" : NULL,
        most == RLIM_INFINITY ? "no limit" : "at most %llu for this user",
        (unsigned long long)most);
}

static void look_at_clock(struct doctor *d) {
    time_t now = time(NULL);
    struct tm tm;
    char text[32] = "?";
    if (gmtime_r(&now, &tm)) strftime(text, sizeof text, "%Y-%m-%d %H:%M UTC", &tm);
    say(d, "clock", now < CLOCK_LEAST ? "set it, or let NTP do so: logs are dated by it" : NULL,
        "%s", text);
}

/* --- the network --- */

static bool is_free(unsigned port, int *why) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0) (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    bool ok = fd >= 0 && bind(fd, (struct sockaddr *)&at, sizeof at) == 0;
    *why = errno;
    if (fd >= 0) close(fd);
    return ok;
}

/* Name and state of the node that answers at the port. */
static bool ask_node(unsigned port, char *out, size_t cap) {
    struct node_address a = {.host = "127.0.0.1"};
    struct node_answer t = {0};
    struct json_doc *doc = NULL;
    struct json_chars name = {0}, state = {0};
    struct err e;
    snprintf(a.port, sizeof a.port, "%u", port);
    bool ok = asknode(&a, ASK_MS, &t, &e) &&
              json_read(&doc, t.body, t.len - (size_t)(t.body - t.text), ASKNODE_MOST, &e);
    const struct json_value *node = ok && doc ? json_find(json_root(doc), "node") : NULL;
    ok = json_kind(node) == JSON_OBJECT && json_want_chars(node, "name", &name, &e) &&
         json_want_chars(node, "state", &state, &e) && name.s && state.s;
    if (ok) {
        char text[160];
        snprintf(text, sizeof text, "%.*s, %.*s", (int)(name.len < 64 ? name.len : 64), name.s,
                 (int)(state.len < 64 ? state.len : 64), state.s);
        text_printable(out, cap, text);
    }
    if (doc) json_free(doc);
    asknode_free(&t);
    return ok;
}

static void look_at_web_port(struct doctor *d) {
    unsigned port = d->config.port;
    char node[160];
    int why;
    if (is_free(port, &why)) {
        say(d, "port", NULL, "%u (HTTP API) is free", port);
        return;
    }
    d->is_running = why == EADDRINUSE && ask_node(port, node, sizeof node);
    if (d->is_running) {
        say(d, "port", NULL, "%u (HTTP API): a dair node is running, %s", port, node);
        return;
    }
    say(d, "port", "end what has it, or give `dair node` another with --port", "%u (HTTP API): %s",
        port, strerror(why));
}

static void look_at_cluster_port(struct doctor *d) {
    unsigned port = d->config.cluster_port;
    int why;
    if (port == 0 || is_free(port, &why)) {
        say(d, "port", NULL, port ? "%u (other nodes) is free" : "any (other nodes)", port);
    } else if (d->is_running && why == EADDRINUSE) {
        say(d, "port", NULL, "%u (other nodes) is in use, and a dair node is running", port);
    } else {
        say(d, "port", "end what has it, or give `dair node` another with --cluster-port",
            "%u (other nodes): %s", port, strerror(why));
    }
}

static void look_at_multicast(struct doctor *d) {
    const struct ip_mreqn group = {.imr_multiaddr = {htonl(MDNS_GROUP)}};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bool ok = fd >= 0 && setsockopt(fd, IPPROTO_IP, IP_ADD_MEMBERSHIP, &group, sizeof group) == 0;
    int why = errno;
    if (fd >= 0) close(fd);
    if (ok) {
        say(d, "mdns", NULL, "multicast can be joined");
        return;
    }
    say(d, "mdns", "connect a network, or name the nodes with --peers", "no multicast: %s",
        strerror(why));
}

static const char mend[] = "mend or remove the line";

static void on_warning(void *ctx, const char *warning) {
    struct doctor *d = ctx;
    char text[SENTENCE];
    if (d->config.n_warning > WARNINGS) return;
    say(d, "config", mend, "%s", text_printable(text, sizeof text, warning));
}

/* What is wrong in the settings is said; then the defaults serve. */
static void read_settings(struct doctor *d, const char *file) {
    struct err e;
    log_set(LOG_ERROR, NULL);
    config_init(&d->config);
    d->config.on_warning = on_warning;
    d->config.warning_ctx = d;
    bool ok = config_load(&d->config, file, &e);
    if (d->config.n_warning > WARNINGS) {
        /* Not so many lines, nor all of them ignored: one that sets a key again counts, and may be bad too. */
        unsigned n = d->config.n_warning - WARNINGS;
        say(d, "config", "mend those above, then look again", "%u more warning%s not shown", n,
            n > 1 ? "s are" : " is");
    }
    if (ok) return;
    d->is_key_bad = e.code != ERR_IO;  // of the environment
    say(d, d->is_key_bad ? "key" : "config",
        d->is_key_bad ? "make one with `dair keygen`" : "check the path, and who may read it", "%s",
        e.full);
    config_init(&d->config);
}

static void look_at_key(struct doctor *d) {
    struct config *c = &d->config;
    struct keys k;
    struct err e;
    if (d->is_key_bad) return;
    bool ok = keys_open(&k, c->cluster_key, c->cluster_key_old, &e);
    explicit_bzero(c->cluster_key, sizeof c->cluster_key);
    explicit_bzero(c->cluster_key_old, sizeof c->cluster_key_old);
    if (!ok) {
        say(d, "key", "make one with `dair keygen`", "%s", e.full);
        return;
    }
    say(d, "key", NULL, k.has_key ? "well-formed" : "none: this machine works alone");
    explicit_bzero(&k, sizeof k);
}

/* --- the model --- */

static void look_at_disk(struct doctor *d, const struct setup *s) {
    const struct model *m = &s->model;
    const struct model_file *f = model_main_file(m);
    struct disk_speed speed;
    struct direct file;
    struct err e;
    /* Read in small pieces it says little of the disk; and it stays in memory. */
    bool is_small = m->data_len < TILE_MAX;
    uint32_t chunk = is_small ? TILE_MIN : TILE_MAX;
    bool ok = direct_open(&file, f->path, &e), is_direct = ok && file.is_direct;
    if (ok) direct_close(&file);
    if (!ok ||
        !disk_probe(f->path, f->data_off, f->data_len, chunk, 2, PROBE_SECONDS, &speed, &e)) {
        say(d, "disk", "check the disk, or copy the model to another", "%s", e.full);
        return;
    }
    say(d, "disk",
        speed.bytes_per_s < SLOW_DISK && !is_small ? "put the model on an SSD"
        : !is_direct ? "put the model on ext4, xfs or btrfs: this one wants "
                       "every byte to go through the page cache"
                     : NULL,
        "the model's gives %s, %s", RATE_TEXT(speed.bytes_per_s),
        is_direct ? "past the page cache" : "not past the page cache");
}

/* What `dair node` would serve: "" for the one inside; false: none, which was said. */
static bool find_model(struct doctor *d, char out[static PATH_CAP]) {
    const struct config *c = &d->config;
    struct err e;
    *out = '\0';
    if (*c->model) {
        modelpath(c->models, c->model, out, PATH_CAP);
        return true;
    }
    if (!*c->models) return true;
    int n = modelpath_first(c->models, out, PATH_CAP, &e);
    if (n > 0) return true;
    say(d, "model", n < 0 ? "check the path" : "copy a .gguf or .m file there", "%s",
        n < 0 ? e.full : "none in the models folder");
    return false;
}

static void look_at_model(struct doctor *d, struct setup *s, const char *word,
                          const char *tokenizer) {
    char path[PATH_CAP];
    struct err e;
    if (!word && !find_model(d, path)) return;
    if (!word && *path) word = path;
    if (!tokenizer && *d->config.tokenizer) tokenizer = d->config.tokenizer;
    if (!setup_open(s, word, tokenizer, MODEL_ALL, &e) || !setup_tok(s, &e)) {
        bool is_there = !word || access(word, F_OK) == 0 || errno != ENOENT;
        say(d, "model",
            is_there ? "get the file anew, or another; `dair inspect` says more" : "check the path",
            "%s", e.full);
        return;
    }
    say(d, "model", NULL, "%s: %s, %s", s->is_demo ? "the one inside" : s->model.file[0].path,
        s->model.arch_name, BYTES_TEXT(s->model.data_len));
    look_at_disk(d, s);
}

static void look(struct doctor *d, struct setup *s, const char *word, const struct doctor_conf *c) {
    json_file(&d->json, stdout);
    look_at_cpu(d);
    look_at_threads(d);
    look_at_memory(d);
    look_at_pages(d);
    look_at_clock(d);
    read_settings(d, c->config);
    look_at_web_port(d);
    look_at_cluster_port(d);
    look_at_multicast(d);
    look_at_key(d);
    look_at_model(d, s, word, c->tokenizer);
}

static MUST doctor(void *conf, const char *word, struct setup *s, struct err *e) {
    const struct doctor_conf *c = conf;
    struct doctor *d = calloc(1, sizeof *d);
    if (!d) return err_set(e, ERR_MEMORY, "no memory to start with");
    d->is_json = c->is_json;
    look(d, s, word, c);
    unsigned n = d->n_wrong;
    free(d);
    return !n || err_set(e, ERR_STOPPED, "%u thing%s wrong", n, n > 1 ? "s are" : " is");
}

static int doctor_main(const struct verb *v, int argc, char **argv) {
    struct doctor_conf c = {0};
    return verb_on_model(v, argc, argv, &c, doctor);
}

const struct verb verb_doctor = {
    .name = "doctor",
    .usage = "[MODEL] [options]",
    .summary = "Say what is wrong here and what helps, a line each",
    .notes = "Ports and model are those of the settings that `dair node` would take.\n"
             "Exit status 0 when nothing is wrong, else 1. Takes a second.\n",
    .opt = doctor_opt,
    .n_opt = sizeof doctor_opt / sizeof *doctor_opt,
    .max_word = 1,
    .run = doctor_main,
};
