/* cmd_doctor.c - what is wrong here and what helps: a line for each thing that was looked at. */
#include "base/config.h"
#include "host/facts.h"
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

enum { SENTENCE = 320, WEB_PORT = 8080, NODE_PORT = 9998 };
static const uint32_t MDNS_GROUP = 0xe00000fb;  // 224.0.0.251
static const uint64_t MEMORY_LEAST = 256 * MIB;
static const time_t CLOCK_LEAST = 1735689600;  // 2025: no board that boots this is older
static const double SLOW_DISK = 100e6;         // bytes/s
static const double PROBE_SECONDS = 0.3;

struct doctor {
    struct json json;
    bool is_json;
    unsigned n_wrong;
};

struct doctor_conf {
    const char *tokenizer;
    bool is_json;
};

static const struct opt doctor_opt[] = {
    TOKENIZER_OPTION(struct doctor_conf),
    {"--json", OPT_FLAG, offsetof(struct doctor_conf, is_json), NULL, "a JSON object for each line",
     0, 0, NULL},
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
        say(d, "cpu", "unset DAIR_CPU", "%s", e.text);
        return;
    }
    bool is_slow = strcmp(k.name, "scalar") == 0;
    say(d, "cpu", is_slow ? "use a CPU with AVX2 or NEON, and do not set DAIR_CPU" : NULL,
        "%d cores, kernels %s", host_cores(), k.name);
}

static void look_at_memory(struct doctor *d) {
    struct host_mem m;
    struct err e;
    if (!host_mem(&m, &e)) {
        say(d, "memory", "mount /proc", "%s", e.text);
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
    char text[128];
    bool has = facts_read("", file, text, sizeof text);
    bool is_never = !has || strstr(text, "[never]");
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

static void look_at_port(struct doctor *d, int port, const char *what, const char *remedy) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0) (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    bool is_free = fd >= 0 && bind(fd, (struct sockaddr *)&at, sizeof at) == 0;
    int why = errno;
    if (fd >= 0) close(fd);
    if (is_free) {
        say(d, "port", NULL, "%d (%s) is free", port, what);
        return;
    }
    say(d, "port", remedy, "%d (%s): %s", port, what, strerror(why));
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

static void look_at_key(struct doctor *d) {
    struct config c;
    struct keys k;
    struct err e;
    config_init(&c);
    bool ok = config_load(&c, NULL, &e) && keys_open(&k, c.cluster_key, c.cluster_key_old, &e);
    explicit_bzero(c.cluster_key, sizeof c.cluster_key);
    explicit_bzero(c.cluster_key_old, sizeof c.cluster_key_old);
    if (!ok) {
        say(d, "key", "make one with `dair keygen`", "%s", e.text);
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
    uint32_t chunk = m->data_len < TILE_MAX ? TILE_MIN : TILE_MAX;
    if (!direct_open(&file, f->path, &e) ||
        !disk_probe(f->path, f->data_off, f->data_len, chunk, 2, PROBE_SECONDS, &speed, &e)) {
        say(d, "disk", "check the disk, or copy the model to another", "%s", e.text);
        return;
    }
    bool is_direct = file.is_direct;
    direct_close(&file);
    say(d, "disk",
        speed.bytes_per_s < SLOW_DISK ? "put the model on an SSD"
        : !is_direct                  ? "put the model on ext4, xfs or btrfs: this one wants "
                                        "every byte to go through the page cache"
                                      : NULL,
        "the model's gives %s, %s", RATE_TEXT(speed.bytes_per_s),
        is_direct ? "past the page cache" : "not past the page cache");
}

static void look_at_model(struct doctor *d, struct setup *s, const char *path,
                          const char *tokenizer) {
    struct err e;
    if (!setup_open(s, path, tokenizer, MODEL_ALL, &e) || !setup_tok(s, &e)) {
        say(d, "model", "get the file anew, or another; `dair inspect` says more", "%s", e.text);
        return;
    }
    say(d, "model", NULL, "%s: %s, %s", s->is_demo ? "the one inside" : s->model.file[0].path,
        s->model.arch_name, BYTES_TEXT(s->model.data_len));
    look_at_disk(d, s);
}

static MUST doctor(void *conf, const char *path, struct setup *s, struct err *e) {
    const struct doctor_conf *c = conf;
    struct doctor d = {.is_json = c->is_json};
    json_file(&d.json, stdout);
    look_at_cpu(&d);
    look_at_threads(&d);
    look_at_memory(&d);
    look_at_pages(&d);
    look_at_clock(&d);
    look_at_port(&d, WEB_PORT, "page and API", "end what has it, or give --port");
    look_at_port(&d, NODE_PORT, "other nodes", "end what has it, or give --cluster-port");
    look_at_multicast(&d);
    look_at_key(&d);
    look_at_model(&d, s, path, c->tokenizer);
    if (!d.n_wrong) return true;
    return err_set(e, ERR_STOPPED, "%u thing%s wrong", d.n_wrong, d.n_wrong > 1 ? "s are" : " is");
}

static int doctor_main(const struct verb *v, int argc, char **argv) {
    struct doctor_conf c = {0};
    return verb_on_model(v, argc, argv, &c, doctor);
}

const struct verb verb_doctor = {
    .name = "doctor",
    .usage = "[MODEL] [options]",
    .summary = "Say what is wrong here and what helps, a line each",
    .notes = "Exit status 0 when nothing is wrong, else 1. Takes a second.\n",
    .opt = doctor_opt,
    .n_opt = sizeof doctor_opt / sizeof *doctor_opt,
    .max_word = 1,
    .run = doctor_main,
};
