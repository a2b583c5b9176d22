/* cmd_selftest.c - does this CPU compute what every other one does? */
#include "base/json.h"
#include "setup.h"
#include "verbs.h"

#include <inttypes.h>
#include <stdlib.h>

struct selftest_conf {
    bool is_json;
};

static const struct opt selftest_opt[] = {
    {"--json", OPT_FLAG, offsetof(struct selftest_conf, is_json), NULL,
     "the result as a JSON object", 0, 0},
};

static void say(void *ctx, const char *line) {
    fprintf(ctx, "%s\n", line);
}

static void print_result(const struct selftest_conf *c, const struct kernels *k, uint64_t digest,
                         size_t bad, bool right) {
    char hex[20];
    struct json j;
    snprintf(hex, sizeof hex, "%016" PRIx64, digest);
    if (!c->is_json) {
        printf("kernels %s, digest %s, %s\n", k->name, hex, right ? "ok" : "WRONG");
        return;
    }
    json_file(&j, stdout);
    json_object(&j);
    json_put_text(&j, "kernels", k->name);
    json_put_u64(&j, "contract", CONTRACT_VERSION);
    json_put_text(&j, "digest", hex);
    json_put_u64(&j, "mismatches", bad);
    json_put_bool(&j, "ok", right);
    json_end(&j);
    json_line(&j);
}

static int selftest_main(const struct verb *v, int argc, char **argv) {
    struct selftest_conf c = {0};
    struct err e = {0};
    const char *word[1];
    enum parsed parsed = options_parse(v, argc, argv, &c, word, &e);
    if (parsed != PARSED) return parsed == PARSED_HELP ? 0 : verb_fail(v, &e);
    struct kernels k;
    if (!setup_kernels(&k, &e)) return verb_fail(v, &e);
    void *scratch = aligned_alloc(64, SELFTEST_BYTES);
    if (!scratch) {
        (void)err_set(&e, ERR_MEMORY, "no memory for the test (%d bytes)", SELFTEST_BYTES);
        return verb_fail(v, &e);
    }
    uint64_t digest = 0;
    size_t bad = kernels_selftest(&k, scratch, &digest, say, stderr);
    free(scratch);
    /* All variants of one program may agree and still be wrong, as after a compiler's fault. */
    bool right = !bad && digest == SELFTEST_DIGEST;
    print_result(&c, &k, digest, bad, right);
    if (right) return 0;
    if (bad) {
        (void)err_set(&e, ERR_IO,
                      "the %s kernels of this program compute wrongly on this CPU (%zu "
                      "differences); DAIR_CPU=scalar avoids them",
                      k.name, bad);
    } else {
        (void)err_set(&e, ERR_IO,
                      "this program computes wrongly on this CPU: the digest should be %016" PRIx64,
                      (uint64_t)SELFTEST_DIGEST);
    }
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
