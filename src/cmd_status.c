/* cmd_status.c - the cluster as a node sees it, on a terminal. */
#include "asknode.h"
#include "base/config.h"
#include "base/json.h"
#include "base/log.h"
#include "base/status.h"
#include "verbs.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    ANSWER_MS = 10000,
    BAR_WIDTH = 24,
};

struct status_conf {
    const char *host;
    bool is_json;
};

static const struct opt status_opt[] = {
    {"--host", OPT_TEXT, offsetof(struct status_conf, host), "HOST[:PORT]",
     "the node to ask (this machine's)", 0, 0},
    {"--json", OPT_FLAG, offsetof(struct status_conf, is_json), NULL,
     "the node's /status.json as it came", 0, 0},
};

/* "host", "host:port", "[::1]:port"; the port of this machine's settings where there is none. */
static MUST take_address(const char *text, struct node_address *a, struct err *e) {
    struct config *c = malloc(sizeof *c);
    struct err ignored;
    if (!c) return err_set(e, ERR_MEMORY, "no memory to start with");
    log_set(LOG_ERROR, NULL);
    config_init(c);
    if (!config_load(c, NULL, &ignored)) config_init(c);
    snprintf(a->port, sizeof a->port, "%u", c->port);
    free(c);
    if (!text) text = "127.0.0.1";
    bool is_six = *text == '[';
    const char *host = text + is_six, *end = is_six ? strchr(host, ']') : strrchr(text, ':');
    size_t len = end ? (size_t)(end - host) : strlen(host);
    const char *port = end ? end + is_six : "";
    uint64_t n = 1;
    bool ok = len > 0 && len < sizeof a->host && (!is_six || end) && !strpbrk(text, "/ @\r\n") &&
              (!*port || (*port == ':' && text_u64(port + 1, &n) && n >= 1 && n <= 65535));
    if (!ok) {
        return err_set(e, ERR_USAGE,
                       "--host takes a name or an address and a port, such as 10.0.0.5:8080, not "
                       "\"%.60s\"",
                       text);
    }
    memcpy(a->host, host, len);
    a->host[len] = '\0';
    if (*port) snprintf(a->port, sizeof a->port, "%u", (unsigned)n);
    return true;
}

/* ---- what it says, for people: what is absent or of another kind is 0 or "" */

static double real(const struct json_value *v, const char *key) {
    double r = 0;
    struct err e;
    return v && json_want_real(v, key, -1e300, 1e300, &r, &e) ? r : 0;
}

static uint64_t whole(const struct json_value *v, const char *key) {
    double r = real(v, key);
    return r > 0 && r < 0x1p63 ? (uint64_t)r : 0;
}

enum { WORD = STATUS_TEXT };  // no text of a status is longer

static const char *word(const struct json_value *v, const char *key, char out[static WORD]) {
    struct json_chars c = {.s = "", .len = 0};
    struct err e;
    char text[WORD];
    if (!v || !json_want_chars(v, key, &c, &e)) c.len = 0;
    if (c.len >= sizeof text) c.len = sizeof text - 1;
    memcpy(text, c.s, c.len);
    text[c.len] = '\0';
    return text_printable(out, WORD, text);
}
#define WORD_OF(v, key) word(v, key, (char[WORD]){0})

static const struct json_value *part(const struct json_value *v, const char *key) {
    const struct json_value *p = v ? json_find(v, key) : NULL;
    return json_kind(p) == JSON_OBJECT ? p : NULL;
}

static const struct json_value *list(const struct json_value *v, const char *key) {
    const struct json_value *p = v ? json_find(v, key) : NULL;
    return json_kind(p) == JSON_ARRAY ? p : NULL;
}

static void print_cluster(const struct json_value *root) {
    const struct json_value *cluster = part(root, "cluster"), *node = part(root, "node");
    size_t n = json_size(list(cluster, "nodes"));
    const char *print = WORD_OF(cluster, "fingerprint");
    printf("node      %s at %s, %s", WORD_OF(node, "name"), WORD_OF(node, "address"),
           WORD_OF(node, "state"));
    bool is_told = strcmp(WORD_OF(node, "state"), "JOINING") == 0 ||
                   strcmp(WORD_OF(node, "state"), "FAILED") == 0;
    if (is_told && *WORD_OF(node, "why")) printf(": %s", WORD_OF(node, "why"));
    printf("\ncluster   ");
    if (print[strspn(print, "0")]) {
        printf("%s, ", print);
    } else {
        printf("no key, ");
    }
    printf("%zu node%s, epoch %llu", n, n == 1 ? "" : "s",
           (unsigned long long)whole(cluster, "epoch"));
    printf(", dair %s\n", WORD_OF(root, "version"));
}

static void print_speed(const struct json_value *plan, const struct json_value *load) {
    double measured = real(plan, "measured_tps");
    printf("speed     ");
    if (measured > 0) printf("%.*f tokens/s, ", measured < 10 ? 2 : 1, measured);
    if (*WORD_OF(plan, "limited_by")) printf("limited by %s, ", WORD_OF(plan, "limited_by"));
    printf("%llu running, %llu waiting\n", (unsigned long long)whole(load, "running"),
           (unsigned long long)whole(load, "waiting"));
}

static void print_context(uint64_t context, const struct json_value *after_loss) {
    uint64_t left = whole(after_loss, "context");
    printf("context %llu", (unsigned long long)context);
    if (after_loss && !left) printf(", none if a node is lost");
    if (left && left < context) printf(", %llu if a node is lost", (unsigned long long)left);
    putchar('\n');
}

static void print_model(const struct json_value *root) {
    const struct json_value *m = part(root, "model"), *plan = part(root, "plan");
    const struct json_value *ms = part(root, "time_ms");
    if (!m || !*WORD_OF(m, "name")) {
        printf("model     none: this node answers no requests itself\n");
        return;
    }
    uint64_t layers = whole(m, "layers");
    printf("model     %s: %s, %llu layer%s, ", WORD_OF(m, "name"), BYTES_TEXT(whole(m, "bytes")),
           (unsigned long long)layers, layers == 1 ? "" : "s");
    print_context(whole(m, "context"), part(plan, "after_loss"));
    print_speed(plan, part(root, "load"));
    if (real(ms, "compute") + real(ms, "disk") + real(ms, "network") > 0) {
        printf(
            "a token   %.1f ms computing, %.1f ms waiting for the disk, %.1f ms for the network\n",
            real(ms, "compute"), real(ms, "disk"), real(ms, "network"));
    }
}

static void print_node(const struct json_value *v, const char *leader) {
    uint64_t pinned = whole(v, "pinned_bytes"), streamed = whole(v, "streamed_bytes");
    const struct bar_part kept[] = {{(double)pinned, 'W'}, {(double)streamed, '~'}};
    double share = real(v, "share"), temperature = real(v, "temperature_c");
    char bar[BAR_WIDTH + 3];
    bool leads = *leader && strcmp(WORD_OF(v, "id"), leader) == 0;
    printf("%-15s%c %-22s %-9s %3.0f %%  %s %9s kept", WORD_OF(v, "name"), leads ? '*' : ' ',
           WORD_OF(v, "address"), WORD_OF(v, "state"), 100 * share,
           text_bar(bar, BAR_WIDTH, (double)(pinned + streamed), kept, 2), BYTES_TEXT(pinned));
    double disk = real(v, "disk_gbps"), disk_most = real(v, "disk_gbps_max");
    if (streamed) printf(", %s a token from the disk", BYTES_TEXT(streamed));
    if (streamed && disk > 0) printf(" at %s", RATE_TEXT(disk * 1e9));
    if (streamed && disk > 0 && disk_most > 0) printf(" of %s", RATE_TEXT(disk_most * 1e9));
    if (temperature > 0) printf(", %.0f C", temperature);
    putchar('\n');
}

static void print_status(const struct json_value *root) {
    const struct json_value *cluster = part(root, "cluster");
    const struct json_value *nodes = list(cluster, "nodes"), *alerts = list(root, "alerts");
    char leader[WORD];
    word(cluster, "leader", leader);
    print_cluster(root);
    print_model(root);
    printf("\n%-16s %-22s %-9s share  weights: W kept in memory, ~ streamed  (* leads)\n", "node",
           "address", "state");
    for (size_t i = 0; i < json_size(nodes); i++) print_node(json_item(nodes, i), leader);
    for (size_t i = 0; i < json_size(alerts); i++) {
        printf("%salert     %s\n", i ? "" : "\n", WORD_OF(json_item(alerts, i), "text"));
    }
}

static MUST show(const struct status_conf *c, const struct node_address *a, struct node_answer *t,
                 struct err *e) {
    struct json_doc *doc = NULL;
    if (!asknode(a, ANSWER_MS, t, e)) return false;
    size_t len = t->len - (size_t)(t->body - t->text);
    if (!json_read(&doc, t->body, len, ASKNODE_MOST, e)) return err_in(e, "/status.json");
    if (c->is_json) {
        fwrite(t->body, 1, len, stdout);
        if (len && t->body[len - 1] != '\n') putchar('\n');
    } else {
        print_status(json_root(doc));
    }
    json_free(doc);
    return true;
}

static int status_main(const struct verb *v, int argc, char **argv) {
    struct status_conf c = {0};
    struct node_address a;
    struct node_answer t = {0};
    struct err e = {0};
    enum parsed parsed = options_parse(v, argc, argv, &c, NULL, &e);
    if (parsed != PARSED) return parsed == PARSED_HELP ? 0 : verb_fail(v, &e);
    bool ok = take_address(c.host, &a, &e) && show(&c, &a, &t, &e);
    asknode_free(&t);
    return ok ? 0 : verb_fail(v, &e);
}

const struct verb verb_status = {
    .name = "status",
    .usage = "[options]",
    .summary = "Show a cluster as one of its nodes sees it",
    .notes =
        "The node is asked over HTTP at its port of the API (8080, or port = of /etc/dair.conf).\n",
    .opt = status_opt,
    .n_opt = sizeof status_opt / sizeof *status_opt,
    .max_word = 0,
    .run = status_main,
};
