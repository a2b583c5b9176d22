/* cmd_selftest.c - does this CPU compute what every other one does? */
#include "base/json.h"
#include "kernels.h"
#include "verbs.h"

#include <inttypes.h>
#include <stdlib.h>

struct selftest_conf {
    bool is_json;
};

static const struct opt selftest_opt[] = {
    {"--json", OPT_FLAG, offsetof(struct selftest_conf, is_json), NULL,
     "the result as a JSON object", 0, 0, NULL},
};

static void say(void *ctx, const char *line) {
    fprintf(ctx, "%s\n", line);
}

static int selftest_main(const struct verb *v, int argc, char **argv) {
    struct selftest_conf c = {0};
    struct err e = {0};
    const char *word[1];
    enum parsed parsed = options_parse(v, argc, argv, &c, word, &e);
    if (parsed != PARSED) return parsed == PARSED_HELP ? 0 : verb_fail(v, &e);
    void *scratch = aligned_alloc(64, SELFTEST_BYTES);
    if (!scratch) {
        (void)err_set(&e, ERR_MEMORY, "no memory for the test (%d bytes)", SELFTEST_BYTES);
        return verb_fail(v, &e);
    }
    struct kernels k;
    uint64_t digest = 0;
    kernels_init(&k, cpu_features());
    size_t bad = kernels_selftest(&k, scratch, &digest, say, stderr);
    free(scratch);
    if (c.is_json) {
        char hex[20];
        struct json j;
        snprintf(hex, sizeof hex, "%016" PRIx64, digest);
        json_file(&j, stdout);
        json_object(&j);
        json_put_text(&j, "kernels", k.name);
        json_put_u64(&j, "contract", CONTRACT_VERSION);
        json_put_text(&j, "digest", hex);
        json_put_u64(&j, "mismatches", bad);
        json_end(&j);
        json_line(&j);
    } else {
        printf("kernels %s, digest %016" PRIx64 ", %s\n", k.name, digest, bad ? "WRONG" : "ok");
    }
    if (!bad) return 0;
    (void)err_set(&e, ERR_IO,
                  "the %s kernels of this program compute wrongly on this CPU (%zu "
                  "differences); DAIR_CPU=scalar avoids them",
                  k.name, bad);
    return verb_fail(v, &e);
}

const struct verb verb_selftest = {
    .name = "selftest",
    .usage = "[options]",
    .summary = "Check that this CPU computes what every other one does",
    .notes = "The digest is the same on every machine that computes rightly.\n",
    .opt = selftest_opt,
    .n_opt = 1,
    .run = selftest_main,
};
