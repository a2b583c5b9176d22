#include "base/config.h"

#include "base/log.h"
#include "base/text.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum kind {
    KIND_TEXT,
    KIND_SECRET,
    KIND_NAME,
    KIND_NUMBER,
    KIND_COUNT,
    KIND_WORD,
    KIND_SWITCH,
    KIND_AMOUNT,
    KIND_PEERS,
    KIND_SHARE
};

struct key {
    const char *name;
    enum kind kind;
    size_t at;
    const char *takes, *init;
    double from, to;
};

static const struct key keys[CONFIG_KEYS] = {
#define KEY(name, kind, takes, init, from, to, help)                                               \
    {#name, KIND_##kind, offsetof(struct config, name), takes, init, from, to},
#define LATER(...)
#include "base/config.def"
#undef KEY
#undef LATER
};

struct later {
    const char *name, *what, *without;
};

static const struct later later[] = {
#define KEY(name, ...)
#define LATER(name, what, without) {#name, what, without},
#include "base/config.def"
#undef KEY
#undef LATER
};
enum { N_LATER = sizeof later / sizeof *later };

static char low(char c) {
    return c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
}

static bool is_alnum(char c) {
    return (low(c) >= 'a' && low(c) <= 'z') || (c >= '0' && c <= '9');
}

static bool is_blank(char c) {
    return c == ' ' || c == '\t';
}

static bool same_key(const char *a, const char *b) {
    for (; *a && (low(*a) == low(*b) || (*a == '_' && *b == '-')); a++) b++;
    return !*a && !*b;
}

static const struct key *find_key(const char *name) {
    for (size_t i = 0; i < CONFIG_KEYS; i++) {
        if (same_key(keys[i].name, name)) return &keys[i];
    }
    return NULL;
}

static const struct later *find_later(const char *name) {
    for (size_t i = 0; i < N_LATER; i++) {
        if (same_key(later[i].name, name)) return &later[i];
    }
    return NULL;
}

/* Index in the |-separated list; -1: none of them. */
static int find_word(const char *list, const char *word) {
    size_t len = strlen(word);
    for (int i = 0; *list; i++) {
        size_t n = strcspn(list, "|"), same = 0;
        while (n == len && same < n && low(word[same]) == list[same]) same++;
        if (n == len && same == n) return i;
        list += n + (list[n] == '|');
    }
    return -1;
}

static MUST set_switch(const struct key *k, bool *to, const char *value, struct err *e) {
    int i = find_word("off|on|no|yes|false|true|0|1", value);
    if (i < 0) return err_set(e, ERR_USAGE, "%s is on or off, not \"%.60s\"", k->name, value);
    *to = i & 1;
    return true;
}

static MUST set_word(const struct key *k, int *to, const char *value, struct err *e) {
    int i = find_word(k->takes, value);
    if (i < 0) {
        return err_set(e, ERR_USAGE, "%s takes %s, not \"%.60s\"", k->name, k->takes, value);
    }
    *to = i;
    return true;
}

static MUST set_number(const struct key *k, uint32_t *to, const char *value, struct err *e) {
    uint64_t n;
    if (!text_u64(value, &n) || (double)n < k->from || (double)n > k->to) {
        return err_set(e, ERR_USAGE, "%s takes %sa whole number from %.10g to %.10g, not \"%.60s\"",
                       k->name, k->kind == KIND_COUNT ? "auto or " : "", k->from, k->to, value);
    }
    *to = (uint32_t)n;
    return true;
}

static MUST set_count(const struct key *k, uint32_t *to, const char *value, struct err *e) {
    *to = 0;
    return find_word("auto", value) >= 0 || set_number(k, to, value, e);
}

static MUST set_amount(const struct key *k, struct amount *to, const char *value, struct err *e) {
    if (!*value) *to = (struct amount){0};
    if (!*value || text_amount(value, to)) return true;
    return err_set(e, ERR_USAGE, "%s takes a size such as 512M, 4G or 50%%, not \"%.60s\"", k->name,
                   value);
}

static MUST set_share(const struct key *k, struct share *to, const char *value, struct err *e) {
    double wish = 0;
    int word = find_word("auto|even", value);
    if (word < 0 && (!text_real(value, &wish) || wish < 1e-3 || wish > 1e6)) {
        return err_set(e, ERR_USAGE, "%s takes auto, even or a number such as 1.5, not \"%.60s\"",
                       k->name, value);
    }
    *to = (struct share){.is_even = word == 1, .wish = wish};
    return true;
}

static MUST set_text(const struct key *k, char *to, const char *value, struct err *e) {
    size_t len = strlen(value);
    if (len >= CONFIG_TEXT) {
        return err_set(e, ERR_USAGE, "%s takes at most %d bytes, not %zu", k->name, CONFIG_TEXT - 1,
                       len);
    }
    memcpy(to, value, len + 1);
    return true;
}

/* A name for the network: what a DNS label may hold, and short enough for every table. */
static MUST set_name(const struct key *k, char *to, const char *value, struct err *e) {
    size_t len = strlen(value);
    bool ok = len < CONFIG_NAME && value[0] != '-' && (len == 0 || value[len - 1] != '-');
    for (size_t i = 0; ok && i < len; i++) ok = is_alnum(value[i]) || value[i] == '-';
    if (!ok) {
        return err_set(e, ERR_USAGE,
                       "%s takes up to %d letters, digits and dashes between them, not \"%.60s\"",
                       k->name, CONFIG_NAME - 1, value);
    }
    for (size_t i = 0; i <= len; i++) to[i] = low(value[i]);
    return true;
}

/* "host", "host:1234", "1.2.3.4:1234", "[fe80::1%eth0]:1234"; the port is added where there is none. */
static bool one_peer(const char *s, size_t len, char out[CONFIG_PEER]) {
    char text[CONFIG_PEER];
    if (len == 0 || len + sizeof ":9998" > sizeof text) return false;
    memcpy(text, s, len);
    text[len] = '\0';
    const char *close = text[0] == '[' ? strchr(text, ']') : NULL;
    const char *port = strchr(close ? close : text, ':');
    size_t n_host = close ? (size_t)(close - text) + 1 : strcspn(text, ":");
    uint64_t n = CONFIG_CLUSTER_PORT;
    if (n_host == 0 || (close && n_host < 4) || (text[0] == '[' && !close)) return false;
    if (close && port != close + 1 && close[1]) return false;
    if (strpbrk(close ? close + 1 : text, "[]/@\"'#=")) return false;
    if (port && (!text_u64(port + 1, &n) || n < 1 || n > 65535)) return false;
    for (size_t i = 0; i < len; i++) {
        if ((uint8_t)text[i] <= ' ' || (uint8_t)text[i] >= 0x7f) return false;
    }
    snprintf(out, CONFIG_PEER, "%.*s:%u", (int)n_host, text, (unsigned)n);
    return true;
}

MUST config_peers(struct peers *p, const char *list, struct err *e) {
    static const char between[] = ", ;\t";
    unsigned n = p->n;
    for (list += strspn(list, between); *list; list += strspn(list, between)) {
        size_t len = strcspn(list, between);
        if (n == CONFIG_PEERS) {
            return err_set(e, ERR_USAGE, "at most %d nodes can be named, \"%.*s\" is one too many",
                           CONFIG_PEERS, (int)(len < 60 ? len : 60), list);
        }
        if (!one_peer(list, len, p->at[n])) {
            return err_set(e, ERR_USAGE,
                           "a node is named as HOST:PORT, such as 10.0.0.5:%d, not \"%.*s\"",
                           CONFIG_CLUSTER_PORT, (int)(len < 60 ? len : 60), list);
        }
        n++;
        list += len;
    }
    p->n = n;
    return true;
}

static MUST set_peers(const struct key *k, struct peers *to, const char *value, struct err *e) {
    struct peers fresh = {0};
    if (!config_peers(&fresh, value, e)) return err_in(e, k->name);
    *to = fresh;
    return true;
}

static MUST set_value(struct config *c, const struct key *k, const char *value, struct err *e) {
    void *to = (char *)c + k->at;
    switch (k->kind) {
    case KIND_TEXT:
    case KIND_SECRET: return set_text(k, to, value, e);
    case KIND_NAME: return set_name(k, to, value, e);
    case KIND_NUMBER: return set_number(k, to, value, e);
    case KIND_COUNT: return set_count(k, to, value, e);
    case KIND_WORD: return set_word(k, to, value, e);
    case KIND_SWITCH: return set_switch(k, to, value, e);
    case KIND_AMOUNT: return set_amount(k, to, value, e);
    case KIND_PEERS: return set_peers(k, to, value, e);
    case KIND_SHARE: break;
    }
    return set_share(k, to, value, e);
}

static MUST set_or_default(struct config *c, const struct key *k, const char *value,
                           struct err *e) {
    return set_value(c, k, *value ? value : k->init, e);
}

static void set_default(struct config *c, const struct key *k) {
    struct err e;
    if (!set_value(c, k, k->init, &e)) abort();  // config.def is wrong
}

void config_init(struct config *c) {
    memset(c, 0, sizeof *c);
    for (size_t i = 0; i < CONFIG_KEYS; i++) set_default(c, &keys[i]);
}

MUST config_set(struct config *c, const char *key, const char *value, struct err *e) {
    const struct key *k = find_key(key);
    const struct later *l = k ? NULL : find_later(key);
    if (k) return set_or_default(c, k, value, e);
    if (!l) return err_set(e, ERR_USAGE, "there is no setting \"%.60s\"", key);
    return err_set(e, ERR_USAGE, "%s (%s) is not in this version; leave it out%s%s", l->name,
                   l->what, *l->without ? ": " : "", l->without);
}

/* ---- text to lines, whatever an editor made of it */

enum coding { UTF_8, UTF_16_LE, UTF_16_BE };

struct source {
    const uint8_t *p, *end;
    enum coding coding;
    const char *name;
    unsigned line;
    bool seen[CONFIG_KEYS];
};

static void source_open(struct source *s, const char *name, const char *text, size_t len) {
    *s = (struct source){
        .p = (const uint8_t *)text, .end = (const uint8_t *)text + len, .name = name};
    if (len >= 2 && memcmp(text, "\xff\xfe", 2) == 0) s->coding = UTF_16_LE;
    if (len >= 2 && memcmp(text, "\xfe\xff", 2) == 0) s->coding = UTF_16_BE;
    if (s->coding != UTF_8) s->p += 2;
    if (len >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) s->p += 3;
}

static uint32_t unit16(const struct source *s, const uint8_t *p) {
    return s->coding == UTF_16_LE ? p[0] | (uint32_t)p[1] << 8 : p[1] | (uint32_t)p[0] << 8;
}

/* One code point of UTF-16; what is no character is U+FFFD. */
static uint32_t take16(struct source *s) {
    if (s->end - s->p < 2) {
        s->p = s->end;
        return 0xfffd;
    }
    uint32_t a = unit16(s, s->p);
    s->p += 2;
    if (a < 0xd800 || a > 0xdfff) return a;
    uint32_t b = s->end - s->p >= 2 ? unit16(s, s->p) : 0;
    if (a > 0xdbff || b < 0xdc00 || b > 0xdfff) return 0xfffd;
    s->p += 2;
    return 0x10000 + ((a & 0x3ff) << 10) + (b & 0x3ff);
}

/* The next character as UTF-8 to out; its bytes. Bytes of UTF-8 are taken as they are, one by one. */
static size_t take(struct source *s, char out[static 4]) {
    if (s->coding == UTF_8) {
        out[0] = (char)*s->p++;
        return 1;
    }
    uint32_t c = take16(s);
    size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    static const uint8_t lead[] = {0, 0, 0xc0, 0xe0, 0xf0};
    for (size_t i = n; i-- > 0; c >>= 6) {
        out[i] = (char)(i ? 0x80 | (c & 0x3f) : n > 1 ? lead[n] | c : c);
    }
    return n;
}

enum line_end { LINE_FINE, LINE_LONG, LINE_BINARY, LINE_NONE };

/* The next line without its end (LF, CRLF or CR) to out. */
static enum line_end take_line(struct source *s, char out[static CONFIG_LINE]) {
    enum line_end how = LINE_FINE;
    size_t len = 0;
    if (s->p >= s->end) return LINE_NONE;
    s->line++;
    while (s->p < s->end) {
        char c[4];
        size_t n = take(s, c);
        if (n == 1 && c[0] == '\n') break;
        if (n == 1 && c[0] == '\r') {
            const uint8_t *before = s->p;
            if (s->p < s->end && (take(s, c) != 1 || c[0] != '\n')) s->p = before;
            break;
        }
        if (n == 1 && ((uint8_t)c[0] < ' ' || c[0] == 0x7f) && c[0] != '\t') how = LINE_BINARY;
        if (len + n >= CONFIG_LINE) {
            how = LINE_LONG;
        } else {
            memcpy(out + len, c, n);
            len += n;
        }
    }
    out[len] = '\0';
    return how;
}

/* ---- lines to settings */

static void tell(struct config *c, const struct err *e) {
    c->n_warning++;
    if (c->on_warning) {
        c->on_warning(c->warning_ctx, e->full);
    } else {
        log_both(LOG_WARN, "config", e->full, e->text);
    }
}

static void warn(struct config *c, const struct source *s, const char *text) {
    char where[80], name[64];
    struct err e;
    snprintf(where, sizeof where, "%s:%u", text_shorten(name, sizeof name, s->name, 0), s->line);
    (void)err_set(&e, ERR_USAGE, "%s", text);
    (void)err_in_file(&e, where);
    tell(c, &e);
}

static char *trim(char *s) {
    s += strspn(s, " \t");
    size_t n = strlen(s);
    while (n && is_blank(s[n - 1])) n--;
    s[n] = '\0';
    return s;
}

/* Where a comment begins: # at the start or after a blank. */
static size_t comment_at(const char *s) {
    size_t i = 0;
    while (s[i] && !(s[i] == '#' && (i == 0 || is_blank(s[i - 1])))) i++;
    return i;
}

/* The value without quotes and comment; NULL: a quote that is not closed, or text after it. */
static char *bare(char *s) {
    char quote = *s;
    if (quote != '"' && quote != '\'') {
        s[comment_at(s)] = '\0';
        return trim(s);
    }
    char *end = strchr(s + 1, quote);
    if (!end) return NULL;
    const char *rest = trim(end + 1);
    if (*rest && *rest != '#') return NULL;
    *end = '\0';
    return s + 1;
}

/* A setting that stands in a file. */
static void take_setting(struct config *c, struct source *s, const char *name, const char *value) {
    const struct key *k = find_key(name);
    const struct later *l = k ? NULL : find_later(name);
    char text[ERR_TEXT];
    struct err e;
    if (!k) {
        snprintf(text, sizeof text, "%.60s %s, ignored%s%s", name,
                 l ? "comes with a later version" : "is not a known key",
                 l && *l->without ? ": " : "", l ? l->without : "");
        warn(c, s, text);
        return;
    }
    if (s->seen[k - keys]) {
        snprintf(text, sizeof text, "%s was set before in this file, this line counts", k->name);
        warn(c, s, text);
    }
    s->seen[k - keys] = true;
    if (set_or_default(c, k, value, &e)) return;
    snprintf(text, sizeof text, "%.250s; the default is used", e.text);
    warn(c, s, text);
    set_default(c, k);
}

static void take_text(struct config *c, struct source *s, char *line) {
    char *text = trim(line), *equals = strchr(text, '=');
    if (!*text || *text == '#') return;
    if (!equals) {
        warn(c, s, "this line is not key = value, ignored");
        return;
    }
    *equals = '\0';
    const char *name = trim(text), *value = bare(trim(equals + 1));
    if (!*name) {
        warn(c, s, "a line without a key, ignored");
    } else if (!value) {
        warn(c, s, "the value begins with a quote that does not end it, ignored");
    } else {
        take_setting(c, s, name, value);
    }
}

void config_parse(struct config *c, const char *name, const char *text, size_t len) {
    struct source s;
    char line[CONFIG_LINE];
    source_open(&s, name, text, len < CONFIG_FILE ? len : CONFIG_FILE);
    for (enum line_end how; (how = take_line(&s, line)) != LINE_NONE;) {
        if (len > CONFIG_FILE && s.p >= s.end) {
            warn(c, &s, "the file is longer than 64 KiB, from here on it is ignored");
        } else if (how == LINE_LONG) {
            warn(c, &s, "this line is longer than 4095 bytes, ignored");
        } else if (how == LINE_BINARY) {
            warn(c, &s, "this line is not plain text, ignored; save the file as UTF-8");
        } else {
            take_text(c, &s, line);
        }
    }
}

MUST config_read(struct config *c, const char *path, struct err *e) {
    FILE *f = fopen(path, "re");
    if (!f) return err_sys(e, "cannot open the config file") || err_in_file(e, path);
    char *text = malloc(CONFIG_FILE + 1);
    errno = ENOMEM;
    size_t len = text ? fread(text, 1, CONFIG_FILE + 1, f) : 0;
    bool ok = text && !ferror(f);
    if (ok) {
        config_parse(c, path, text, len);
    } else {
        (void)(err_sys(e, "cannot read the config file") || err_in_file(e, path));
    }
    free(text);
    fclose(f);
    return ok;
}

MUST config_load(struct config *c, const char *file, struct err *e) {
    static const char usual[] = "/etc/dair.conf";
    struct err soft;
    if (access(usual, F_OK) == 0 && !config_read(c, usual, &soft)) tell(c, &soft);
    if (file && !config_read(c, file, e)) return false;
    const char *key = getenv("DAIR_CLUSTER_KEY");
    return key && *key ? config_set(c, "cluster_key", key, e) : true;
}
