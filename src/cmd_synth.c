/* cmd_synth.c - random weights in a real shape, for measuring where no model can be had. */
#include "base/json.h"
#include "base/progress.h"
#include "model/synth.h"
#include "verbs.h"

#include <signal.h>
#include <stdatomic.h>
#include <sys/stat.h>

struct synth_conf {
    struct synth synth;
    bool is_json, is_quiet;
};

#define AT(field) offsetof(struct synth_conf, field)
static const struct opt synth_opt[] = {
    {"--shape", OPT_TEXT, AT(synth.shape), "NAME[,layers=N]",
     "llama-3.2-1b, llama-3.1-8b, qwen3-0.6b, gpt-oss-20b and more", 0, 0},
    {"--type", OPT_TEXT, AT(synth.type), "TYPE", "q4_0, q8_0, q4_k, q6_k, mxfp4 or f16", 0, 0},
    {"-o", OPT_TEXT, AT(synth.out), "FILE.gguf", "the file to write", 0, 0},
    {"--seed", OPT_U64, AT(synth.seed), "N", "another seed, other weights (0)", 0, 0},
    {"--json", OPT_FLAG, AT(is_json), NULL, "the result as a JSON object", 0, 0},
    {"--quiet", OPT_FLAG, AT(is_quiet), NULL, "no progress", 0, 0},
};

static atomic_bool stop_asked;  // the signal flag

static void on_signal(int sig) {
    (void)sig;
    atomic_store(&stop_asked, true);
}

/* Gigabytes must not stay behind; the second Ctrl-C ends the process at once. */
static void catch_signals(void) {
    struct sigaction act = {.sa_handler = on_signal, .sa_flags = (int)(SA_RESETHAND | SA_RESTART)};
    sigaction(SIGINT, &act, NULL);
    sigaction(SIGTERM, &act, NULL);
}

static bool on_written(void *ctx, uint64_t done, uint64_t total) {
    progress_update(ctx, done, total);
    return !atomic_load(&stop_asked);
}

static MUST synth(const struct synth_conf *c, struct err *e) {
    const struct synth *s = &c->synth;
    const char *missing = !s->shape  ? "--shape NAME, such as llama-3.2-1b"
                          : !s->type ? "--type TYPE, such as q4_0"
                          : !s->out  ? "-o FILE.gguf"
                                     : NULL;
    if (missing) return err_set(e, ERR_USAGE, "%s is needed; see dair synth --help", missing);
    struct progress p;
    catch_signals();
    progress_start(&p, "writing", PROGRESS_BYTES, c->is_json || c->is_quiet ? NULL : stderr);
    bool ok = synth_write(s, on_written, &p, e);
    double seconds = progress_seconds(&p);
    progress_end(&p);
    struct stat st;
    if (!ok) return false;
    if (stat(s->out, &st) != 0) return err_sys(e, "%s", s->out);
    if (c->is_json) {
        struct json j;
        json_file(&j, stdout);
        json_object(&j);
        json_put_text(&j, "file", s->out);
        json_put_u64(&j, "bytes", (uint64_t)st.st_size);
        json_put_real(&j, "seconds", seconds);
        json_end(&j);
        json_line(&j);
    } else if (!c->is_quiet) {
        fprintf(stderr, "%s: %s in %s\n", s->out, BYTES_TEXT((uint64_t)st.st_size),
                TIME_TEXT(seconds));
    }
    return true;
}

static int synth_main(const struct verb *v, int argc, char **argv) {
    struct synth_conf c = {0};
    struct err e = {0};
    const char *word[1];
    enum parsed parsed = options_parse(v, argc, argv, &c, word, &e);
    if (parsed != PARSED) return parsed == PARSED_HELP ? 0 : verb_fail(v, &e);
    return synth(&c, &e) ? 0 : verb_fail(v, &e);
}

const struct verb verb_synth = {
    .name = "synth",
    .usage = "--shape NAME --type TYPE -o FILE.gguf [options]",
    .summary = "Write a model of random weights in a real shape, to measure with",
    .opt = synth_opt,
    .n_opt = sizeof synth_opt / sizeof *synth_opt,
    .run = synth_main,
};
