#include "options.h"

#include <string.h>

/* Options of the contract that a verb does not have yet, and what they are. */
static const struct {
    const char *verb, *name, *what;
} later[] = {
    {"plan", "--nodes", "planning for several machines"},
    {"bench", "--nodes", "measuring several machines"},
    {"chat", "--workers", "a conversation that other nodes share"},
    {"chat", "--raw", "a conversation without a chat format"},
};

/* Options that are looked for elsewhere than where they are. */
static const struct {
    const char *name, *verb;
} elsewhere[] = {{"--template", "render"}, {"--tools", "render"}, {"--messages", "render"}};

/* Does the |-separated list hold word [len]? Its index, or -1. */
static int find_word(const char *list, const char *word, size_t len) {
    for (int i = 0; *list; i++) {
        size_t n = strcspn(list, "|");
        if (n == len && memcmp(list, word, n) == 0) return i;
        list += n + (list[n] == '|');
    }
    return -1;
}

static MUST set_choice(const struct opt *o, void *to, const char *value, struct err *e) {
    int i = find_word(o->arg, value, strlen(value));
    if (i >= 0) {
        memcpy(to, &i, sizeof i);
        return true;
    }
    return err_set(e, ERR_USAGE, "%s takes %s, not \"%.60s\"", o->name, o->arg, value);
}

static MUST set_number(const struct opt *o, void *to, const char *value, struct err *e) {
    uint64_t n = 0;
    double r = 0;
    bool is_real = o->kind == OPT_REAL;
    const char *takes = is_real               ? "a number"
                        : o->kind == OPT_AUTO ? "auto or a whole number"
                        : o->kind == OPT_MOST ? "-1 or a whole number"
                                              : "a whole number";
    if (is_real ? !text_real(value, &r) : !text_u64(value, &n)) {
        return err_set(e, ERR_USAGE, "%s takes %s, not \"%.60s\"", o->name, takes, value);
    }
    if (!is_real) r = (double)n;
    if (o->kind != OPT_U64 && (r < o->from || r > o->to)) {
        return err_set(e, ERR_USAGE, "%s takes %.10g to %.10g, not %.60s", o->name, o->from, o->to,
                       value);
    }
    uint32_t small = (uint32_t)n;
    bool is_small = o->kind == OPT_U32 || o->kind == OPT_AUTO || o->kind == OPT_MOST;
    if (is_real) memcpy(to, &r, sizeof r);
    if (o->kind == OPT_U64) memcpy(to, &n, sizeof n);
    if (is_small) memcpy(to, &small, sizeof small);
    return true;
}

static MUST add_text(const struct opt *o, struct text_list *list, const char *value,
                     struct err *e) {
    if (list->n >= (unsigned)o->to) {
        return err_set(e, ERR_USAGE, "%s can be given %.0f times at most", o->name, o->to);
    }
    list->text[list->n++] = value;
    return true;
}

static MUST set_value(const struct opt *o, void *conf, const char *value, struct err *e) {
    void *to = (char *)conf + o->at;
    struct amount a;
    if (o->kind == OPT_AUTO && strcmp(value, "auto") == 0) {
        memcpy(to, &(uint32_t){0}, sizeof(uint32_t));
        return true;
    }
    if (o->kind == OPT_MOST && strcmp(value, "-1") == 0) {
        uint32_t most = (uint32_t)o->to;
        memcpy(to, &most, sizeof most);
        return true;
    }
    switch (o->kind) {
    case OPT_FLAG: break;  // has no value
    case OPT_TEXT: memcpy(to, &value, sizeof value); break;
    case OPT_U32:
    case OPT_AUTO:
    case OPT_MOST:
    case OPT_U64:
    case OPT_REAL: return set_number(o, to, value, e);
    case OPT_CHOICE: return set_choice(o, to, value, e);
    case OPT_LIST: return add_text(o, to, value, e);
    case OPT_PEERS: return config_peers(to, value, e) || err_in(e, o->name);
    case OPT_AMOUNT:
        if (!text_amount(value, &a)) {
            return err_set(e, ERR_USAGE, "%s takes a size such as 512M, 4G or 50%%, not \"%.60s\"",
                           o->name, value);
        }
        memcpy(to, &a, sizeof a);
        break;
    }
    return true;
}

/* Do option name and word [len] agree? Settings have underscores in files and dashes here. */
static bool same_name(const char *name, const char *word, size_t len) {
    size_t i = 0;
    while (i < len && (name[i] == word[i] || (name[i] == '_' && word[i] == '-') ||
                       (name[i] == '-' && word[i] == '_'))) {
        i++;
    }
    return i == len && !name[i];
}

static bool unknown(const struct verb *v, const char *name, size_t len, struct err *e) {
    for (size_t i = 0; i < sizeof later / sizeof *later; i++) {
        if (strcmp(later[i].verb, v->name) != 0 || !same_name(later[i].name, name, len)) continue;
        return err_set(e, ERR_USAGE, "%s (%s) is not in this version; see dair %s --help",
                       later[i].name, later[i].what, v->name);
    }
    for (size_t i = 0; i < sizeof elsewhere / sizeof *elsewhere; i++) {
        if (!same_name(elsewhere[i].name, name, len)) continue;
        return err_set(e, ERR_USAGE, "%s is an option of `dair %s`; see dair %s --help",
                       elsewhere[i].name, elsewhere[i].verb, v->name);
    }
    return err_set(e, ERR_USAGE, "unknown option %.*s; see dair %s --help",
                   (int)(len < 60 ? len : 60), name, v->name);
}

/* A word that can only be one more machine: HOST:PORT, or some with commas. */
static bool is_peer(const char *s) {
    const char *port = strrchr(s, ':');
    return port && port > s && *s != '-' && port[1] && !port[1 + strspn(port + 1, "0123456789")];
}

/* The value of o, at argv[++*i]. */
static MUST take_value(const struct opt *o, int argc, char **argv, int *i, void *conf,
                       struct err *e) {
    if (*i + 1 >= argc) {
        return err_set(e, ERR_USAGE, "%s needs a value: %s %s", o->name, o->name, o->arg);
    }
    if (!set_value(o, conf, argv[++*i], e)) return false;
    while (o->kind == OPT_PEERS && *i + 1 < argc && is_peer(argv[*i + 1])) {
        if (!set_value(o, conf, argv[++*i], e)) return false;
    }
    return true;
}

/* One option at argv[*i]; advances *i past its value. */
static MUST take_option(const struct verb *v, int argc, char **argv, int *i, void *conf,
                        struct err *e) {
    const char *arg = argv[*i];
    const char *equals = arg[1] == '-' ? strchr(arg, '=') : NULL;
    size_t len = equals ? (size_t)(equals - arg) : strlen(arg);
    const struct opt *o = NULL;
    for (size_t k = 0; k < v->n_opt && !o; k++) {
        if (same_name(v->opt[k].name, arg, len)) o = &v->opt[k];
    }
    if (!o) return unknown(v, arg, len, e);
    if (o->kind == OPT_FLAG) {
        if (equals) return err_set(e, ERR_USAGE, "%s takes no value", o->name);
        memcpy((char *)conf + o->at, &(bool){true}, sizeof(bool));
        return true;
    }
    if (equals) return set_value(o, conf, equals + 1, e);
    return take_value(o, argc, argv, i, conf, e);
}

enum parsed options_parse(const struct verb *v, int argc, char **argv, void *conf,
                          const char **word, struct err *e) {
    unsigned n_word = 0;
    bool only_words = false;
    for (unsigned i = 0; i < v->max_word; i++) word[i] = NULL;
    for (int i = 0; i < argc; i++) {
        const char *a = argv[i];
        if (!only_words && strcmp(a, "--") == 0) {
            only_words = true;
        } else if (!only_words && (strcmp(a, "--help") == 0 || strcmp(a, "-h") == 0)) {
            options_help(v, stdout);
            return PARSED_HELP;
        } else if (!only_words && a[0] == '-' && a[1]) {
            if (!take_option(v, argc, argv, &i, conf, e)) return PARSED_WRONG;
        } else if (n_word < v->max_word) {
            word[n_word++] = a;
        } else {
            (void)err_set(e, ERR_USAGE, "\"%.60s\" is one word too many; see dair %s --help", a,
                          v->name);
            return PARSED_WRONG;
        }
    }
    return PARSED;
}

enum { HELP_LEFT = 24, HELP_WIDTH = 100 };  // columns

/* Text from this column on, in lines that begin below HELP_LEFT. */
static void put_wrapped(const char *text, size_t column, FILE *to) {
    for (text += strspn(text, " "); *text; text += strspn(text, " ")) {
        size_t len = strcspn(text, " ");
        bool fits = column + 1 + len <= HELP_WIDTH;
        if (!fits) column = (size_t)fprintf(to, "\n%*s", HELP_LEFT, "") - 1;
        column += (size_t)fprintf(to, " %.*s", (int)len, text);
        text += len;
    }
    fputc('\n', to);
}

void options_help(const struct verb *v, FILE *to) {
    fprintf(to, "dair %s %s\n\n%s.\n", v->name, v->usage, v->summary);
    if (v->n_opt) fprintf(to, "\n");
    for (size_t i = 0; i < v->n_opt; i++) {
        const struct opt *o = &v->opt[i];
        char left[64];
        if (!o->help) continue;
        snprintf(left, sizeof left, "%s%s%s", o->name, o->arg ? " " : "", o->arg ? o->arg : "");
        for (char *c = left; *c && *c != ' '; c++) *c = *c == '_' ? '-' : *c;
        put_wrapped(o->help, (size_t)fprintf(to, "  %-22s", left), to);
    }
    fprintf(to, "  %-22s %s\n", "--help", "this text");
    if (v->notes) fprintf(to, "\n%s", v->notes);
}

size_t options_list(const char *s, char mark, double from, double to, double *out, size_t cap) {
    size_t n = 0;
    while (n < cap) {
        const char *end = strchr(s, mark);
        size_t len = end ? (size_t)(end - s) : strlen(s);
        char item[32];
        if (len >= sizeof item) return 0;
        memcpy(item, s, len);
        item[len] = '\0';
        if (!text_real(item, &out[n]) || out[n] < from || out[n] > to) return 0;
        n++;
        if (!end) return n;
        s = end + 1;
    }
    return 0;
}
