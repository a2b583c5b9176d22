/* cmd_keygen.c - a new key for a cluster. */
#include "base/json.h"
#include "net/key.h"
#include "verbs.h"

#include <string.h>

struct keygen_conf {
    bool is_json;
};

static const struct opt keygen_opt[] = {
    {"--json", OPT_FLAG, offsetof(struct keygen_conf, is_json), NULL, "the result as a JSON object",
     0, 0},
};

static int keygen_main(const struct verb *v, int argc, char **argv) {
    struct keygen_conf c = {0};
    struct err e = {0};
    const char *word[1];
    char key[KEY_TEXT];
    enum parsed parsed = options_parse(v, argc, argv, &c, word, &e);
    if (parsed != PARSED) return parsed == PARSED_HELP ? 0 : verb_fail(v, &e);
    if (!key_make(key, &e)) return verb_fail(v, &e);
    if (c.is_json) {
        struct json j;
        json_file(&j, stdout);
        json_object(&j);
        json_put_text(&j, "cluster_key", key);
        json_end(&j);
        json_line(&j);
    } else {
        printf("%s\n", key);
    }
    explicit_bzero(key, sizeof key);
    return 0;
}

const struct verb verb_keygen = {
    .name = "keygen",
    .usage = "[--json]",
    .summary = "Make a key for a cluster",
    .notes = "Give the key to every node: as cluster_key = KEY in its /etc/dair.conf, or as\n"
             "DAIR_CLUSTER_KEY in its environment. Nodes with the same key find and trust each\n"
             "other; whoever has the key can be a node, so keep it as a password. To change it,\n"
             "give the former one as cluster_key_old until all have the new one.\n",
    .opt = keygen_opt,
    .n_opt = sizeof keygen_opt / sizeof *keygen_opt,
    .run = keygen_main,
};
