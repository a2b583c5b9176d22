/* main.c - finds the verb. What each does stands in cmd_VERB.c. */
#include "setup.h"
#include "verbs.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct verb *const verbs[] = {
    &verb_node,    &verb_status, &verb_run,      &verb_chat,       &verb_render,
    &verb_inspect, &verb_plan,   &verb_tokenize, &verb_detokenize, &verb_perplexity,
    &verb_bench,   &verb_synth,  &verb_selftest, &verb_doctor,     &verb_keygen,
};
enum { N_VERB = sizeof verbs / sizeof *verbs };

/* Verbs of the contract that this version does not have yet. */
static const struct {
    const char *name, *what;
} later[] = {
    {"update", "a new version for a cluster"},
};

int verb_fail(const struct verb *v, const struct err *e) {
    fflush(stdout);
    if (*e->full) fprintf(stderr, "dair %s: %s\n", v->name, e->full);
    return err_exit_status(e);
}

int verb_on_model(const struct verb *v, int argc, char **argv, void *conf, verb_work *work) {
    struct err e = {0};
    const char *path;
    enum parsed parsed = options_parse(v, argc, argv, conf, &path, &e);
    if (parsed != PARSED) return parsed == PARSED_HELP ? 0 : verb_fail(v, &e);
    struct setup *s = calloc(1, sizeof *s);
    bool ok = s ? work(conf, path, s, &e) : err_set(&e, ERR_MEMORY, "no memory to start with");
    if (s) setup_close(s);
    free(s);
    return ok ? 0 : verb_fail(v, &e);
}

static MUST read_stream(FILE *f, const char *name, size_t limit, char **text, size_t *len,
                        struct err *e) {
    size_t cap = 0, n = 0;
    char *all = NULL;
    do {
        if (cap - n < 2) {
            cap = cap ? cap * 2 : 64 << 10;
            char *more = realloc(all, cap);
            if (!more) {
                free(all);
                return err_set(e, ERR_MEMORY, "%s: no memory for %zu bytes", name, cap);
            }
            all = more;
        }
        n += fread(all + n, 1, cap - n - 1, f);
    } while (!feof(f) && !ferror(f) && n <= limit);
    *text = all;
    *len = n;
    all[n] = '\0';
    if (!ferror(f) && n <= limit) return true;
    bool ok = ferror(f) ? err_sys(e, "cannot read %s", name)
                        : err_set(e, ERR_LIMIT,
                                  "%s is longer than %zu bytes, the most that is taken; shorten it",
                                  name, limit);
    free(all);
    *text = NULL;
    return ok;
}

MUST verb_read_all(const char *name, size_t limit, char **text, size_t *len, struct err *e) {
    *text = NULL;
    if (strcmp(name, "-") == 0) return read_stream(stdin, "standard input", limit, text, len, e);
    FILE *f = fopen(name, "re");
    if (!f) return err_sys(e, "cannot open %s", name);
    bool ok = read_stream(f, name, limit, text, len, e);
    fclose(f);
    return ok;
}

size_t verb_prompt_len(const char *text, size_t len) {
    if (len && text[len - 1] == '\n') len--;
    return len && text[len] == '\n' && text[len - 1] == '\r' ? len - 1 : len;
}

static void help(FILE *to) {
    fprintf(to,
            "dair VERB [MODEL] [options]\n\n"
            "Runs language models that are larger than the memory: what does not fit is read\n"
            "from the disk as it is needed. MODEL is a .gguf file, or a .m of distributed-llama\n"
            "with its .t; without one, the small model inside this program is used.\n\n");
    for (size_t i = 0; i < N_VERB; i++) {
        fprintf(to, "  %-12s %s\n", verbs[i]->name, verbs[i]->summary);
    }
    fprintf(to, "  %-12s %s\n", "version", "Say which version this is (so does --version)");
    fprintf(to, "\n`dair help VERB` lists the options of one. Results go to standard output,\n"
                "everything else to standard error. Exit status: 0 done, 1 the work failed,\n"
                "2 wrong usage, 3 bad input file, 4 does not fit or cannot run here.\n");
}

/* What was printed has arrived, or the exit status must say so. A reader that has gone away (`| head`)
 * wanted no more and gets no message. */
static int finish(int status) {
    bool bad = fflush(stdout) != 0 || ferror(stdout);
    if (!bad || status != 0) return status;
    if (errno != EPIPE) fprintf(stderr, "dair: cannot write the result: %s\n", strerror(errno));
    return 1;
}

static const struct verb *find_verb(const char *name) {
    for (size_t i = 0; i < N_VERB; i++) {
        if (strcmp(name, verbs[i]->name) == 0) return verbs[i];
    }
    return NULL;
}

static int unknown_verb(const char *name) {
    for (size_t i = 0; i < sizeof later / sizeof *later; i++) {
        if (strcmp(name, later[i].name)) continue;
        fprintf(stderr, "dair: %s (%s) is not in this version; see dair --help\n", name,
                later[i].what);
        return 2;
    }
    fprintf(stderr, "dair: unknown verb \"%.60s\"; see dair --help\n", name);
    return 2;
}

static int main_version(void) {
    struct kernels k;
    struct err e;
    if (!setup_kernels(&k, &e)) {
        fprintf(stderr, "dair: %s\n", e.full);
        return err_exit_status(&e);
    }
    printf("dair %s (kernels %s, contract %d)\n", DAIR_VERSION, k.name, CONTRACT_VERSION);
    return finish(0);
}

static int main_help(const char *name) {
    const struct verb *v = name ? find_verb(name) : NULL;
    if (name && !v) return strcmp(name, "version") == 0 ? main_version() : unknown_verb(name);
    if (v) options_help(v, stdout);
    if (!v) help(stdout);
    return finish(0);
}

/* A closed standard stream would let a model file take its number, and be written to. What is written to a stdout
 * that was closed fails, as it is lost; sentences on stderr are not missed. */
static void open_standard(void) {
    for (int fd = 0; fd < 3; fd++) {
        if (fcntl(fd, F_GETFD) < 0 &&
            open("/dev/null", fd == STDERR_FILENO ? O_WRONLY : O_RDONLY) < 0)
            _exit(1);
    }
}

int main(int argc, char **argv) {
    open_standard();
    signal(SIGPIPE, SIG_IGN);
    if (argc < 2) {
        help(stderr);
        return 2;
    }
    const char *name = argv[1];
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "help") == 0) {
        return main_help(argc > 2 ? argv[2] : NULL);
    }
    if (strcmp(name, "--version") == 0 || strcmp(name, "version") == 0) return main_version();
    const struct verb *v = find_verb(name);
    return v ? finish(v->run(v, argc - 2, argv + 2)) : unknown_verb(name);
}
