/* Settings as people's editors leave them: all that is sound is taken, the rest is named with its line. */
#include "base/config.h"
#include "base/log.h"

#include "tap.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char lines[LOG_KEPT][LOG_LINE];

/* Whether one of the last n log lines has this text. */
static bool logged(const char *text, size_t n) {
    n = log_recent(lines, n);
    for (size_t i = 0; i < n; i++) {
        if (strstr(lines[i], text)) return true;
    }
    return false;
}

static void parse(struct config *c, const char *text) {
    config_init(c);
    config_parse(c, "t.conf", text, strlen(text));
}

static void test_defaults(void) {
    struct config c;
    config_init(&c);
    tap_ok(c.port == 8080 && c.cluster_port == 9998, "ports");
    tap_ok(!*c.cluster_key && !*c.model && !*c.hostname && !*c.state,
           "no key, model, name, folder");
    tap_ok(c.kv == 1 && c.wire == 0 && c.log == 2 && c.discovery, "f16, q16, info, discovery");
    tap_ok(!c.memory.bytes && c.memory.percent <= 0 && c.ctx == 0,
           "memory and context by the rest");
    tap_ok(!c.share.is_even && c.share.wish <= 0 && c.peers.n == 0, "share by speed, no peers");
}

static void test_lines(void) {
    struct config c;
    parse(&c, "# a comment\n\n  port = 81\t# why\nPort=82x\n");
    tap_ok(c.port == 8080 && c.n_warning == 2, "a bad value: the default, not the value before");
    parse(&c, "Cluster-Port=7000\nmemory=50%\nwire = Q8\nkv=\"f32\"\nDISCOVERY = No\n");
    tap_ok(c.n_warning == 0, "upper case, dashes, quotes are fine");
    tap_ok(c.cluster_port == 7000 && c.memory.percent > 49 && c.wire == 1 && c.kv == 0 &&
               !c.discovery,
           "and taken");
    parse(&c, "model = 'a # b.gguf' # c\nmodels = /m#1\nstate = \" s \"\n");
    tap_ok(!strcmp(c.model, "a # b.gguf") && !strcmp(c.models, "/m#1") && !strcmp(c.state, " s "),
           "# in quotes or inside a word is none of a comment");
    parse(&c, "port = 99\nport =\nmemory =\n");
    tap_ok(c.port == 8080 && !c.memory.bytes, "no value: the default");
    parse(&c, "hostname = Kitchen-1\nshare = 2.5\npeers = a, 10.0.0.2:77 [fe80::1]:5;[::2]\n");
    tap_ok(!strcmp(c.hostname, "kitchen-1") && c.share.wish > 2.4 && c.n_warning == 0,
           "name and share");
    tap_ok(c.peers.n == 4 && !strcmp(c.peers.at[0], "a:9998") &&
               !strcmp(c.peers.at[1], "10.0.0.2:77") && !strcmp(c.peers.at[2], "[fe80::1]:5") &&
               !strcmp(c.peers.at[3], "[::2]:9998"),
           "peers, with the usual port where there is none");
    parse(&c, "share = even\nlog = debug");
    tap_ok(c.share.is_even && c.log == 3, "the last line needs no end");
}

static void test_warnings(void) {
    static const struct {
        const char *text, *warning;
    } bad[] = {
        {"\n\nmemroy = 4G", "t.conf:3: memroy is not a known key, ignored"},
        {"just words", "t.conf:1: this line is not key = value"},
        {"memory = lots", "t.conf:1: memory takes a size such as 512M"},
        {"port = 0", "t.conf:1: port takes a whole number from 1 to 65535, not \"0\""},
        {"port = 70000", "t.conf:1: port takes"},
        {"port = -1", "t.conf:1: port takes"},
        {"kv = f64", "t.conf:1: kv takes f32|f16|q8_0, not \"f64\"; the default is used"},
        {"discovery = maybe", "t.conf:1: discovery is on or off"},
        {"share = 0", "t.conf:1: share takes auto, even or a number"},
        {"share = nan", "t.conf:1: share takes"},
        {"hostname = two words", "t.conf:1: hostname takes up to 15 letters"},
        {"hostname = -a", "t.conf:1: hostname takes"},
        {"peers = :1", "t.conf:1: peers: a node is named as HOST:PORT"},
        {"peers = a:b", "t.conf:1: peers: a node is named"},
        {"peers = a:0", "t.conf:1: peers: a node is named"},
        {"peers = fe80::1", "t.conf:1: peers: a node is named"},
        {"peers = [::1", "t.conf:1: peers: a node is named"},
        {"peers = [::1]7", "t.conf:1: peers: a node is named"},
        {"peers = 1 2 3 4 5 6 7 8 9 a b c d e f g h", "\"h\" is one too many"},
        {"threads = 0", "t.conf:1: threads takes auto or a whole number from 1 to 256, not \"0\""},
        {" = 5", "t.conf:1: a line without a key, ignored"},
        {"=", "t.conf:1: a line without a key, ignored"},
        {"leds = on", "t.conf:1: leds comes with a later version, ignored"},
        {"api_key = s3cret",
         "t.conf:1: api_key comes with a later version, ignored: the HTTP API stays open to all"},
        {"admin-token = s3cret",
         "t.conf:1: admin-token comes with a later version, ignored: the HTTP API stays open"},
        {"model = \"a", "t.conf:1: the value begins with a quote"},
        {"model = \"a\" b", "t.conf:1: the value begins with a quote"},
        {"model = a\x01", "t.conf:1: this line is not plain text"},
        {"port = 1\nctx = 5\nport = 2", "t.conf:3: port was set before in this file"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct config c;
        parse(&c, bad[i].text);
        if (!tap_ok(c.n_warning == 1 && logged(bad[i].warning, 1), "%s", bad[i].warning)) {
            printf("# %s\n", lines[0]);
        }
    }
    tap_ok(!logged("s3cret", LOG_KEPT), "a secret is not in the log");
}

static void test_codings(void) {
    static const char le[] = "\xff\xfep\0o\0r\0t\0=\0\x38\0\x31\0\r\0\n\0m\0o\0d\0e\0l\0=\0\xe4\0"
                             "\x3d\xd8\x0a\xde\n\0k\0v\0=\0q";
    static const char be[] = "\xfe\xff\0p\0o\0r\0t\0=\0\x38\0\x32\0\n\0x\0=\xd8\0\0y";
    struct config c;
    config_init(&c);
    config_parse(&c, "t.conf", le, sizeof le - 1);
    tap_ok(c.port == 81 && !strcmp(c.model, "\xc3\xa4\xf0\x9f\x98\x8a"), "UTF-16, little-endian");
    tap_ok(c.n_warning == 1 && logged("t.conf:3: kv takes", 1), "cut in a character: a bad value");
    config_init(&c);
    config_parse(&c, "t.conf", be, sizeof be - 1);
    tap_ok(c.port == 82 && c.n_warning == 1 && logged("t.conf:2: x is not", 1), "and big-endian");
    parse(&c, "\xef\xbb\xbfport = 83\r\nmemroy = 1\r\nctx = 4\r\n");
    tap_ok(c.port == 83 && c.ctx == 4 && logged("t.conf:2: memroy", 1), "mark of UTF-8, CRLF");
    parse(&c, "port = 84\rmemroy = 1\r\rctx = 6\r");
    tap_ok(c.port == 84 && c.ctx == 6 && logged("t.conf:2: memroy", 1), "CR alone");
    config_init(&c);
    config_parse(&c, "t.conf", le + 2, sizeof le - 3);
    tap_ok(c.port == 8080 && logged("not plain text, ignored; save the file as UTF-8", 3),
           "UTF-16 without its mark is named");
    parse(&c, "\xef\xbb\xbf");
    tap_ok(c.n_warning == 0, "nothing but a mark");
    config_parse(&c, "t.conf", "\xff\xfe", 2);
    config_parse(&c, "t.conf", "\xff\xfe\x41", 3);
    tap_ok(c.n_warning == 1, "half a character is no setting");
}

static void test_limits(void) {
    struct config c;
    size_t len = CONFIG_FILE + 5000;
    char *text = malloc(len + 1);
    if (!text) abort();
    memset(text, 'x', len);
    text[len] = '\0';
    memcpy(text, "port = 81\n#", 11);
    memcpy(text + 6000, "\nctx = 7\n#", 10);
    for (size_t i = 7000; i < len; i += 1000) text[i] = '\n', text[i + 1] = '#';
    memcpy(text + CONFIG_FILE + 1000, "\nport = 83\n", 11);
    config_init(&c);
    config_parse(&c, "t.conf", text, len);
    tap_ok(c.port == 81 && c.ctx == 7, "the first 64 KiB count");
    tap_ok(c.n_warning == 2 && logged("the file is longer than 64 KiB", 1), "the rest is named");
    tap_ok(logged("t.conf:2: this line is longer than 4095 bytes", 2), "so is a long line");
    memset(text, 'x', 2000);
    memcpy(text, "model = ", 8);
    text[2000] = '\0';
    parse(&c, text);
    tap_ok(!*c.model && logged("model takes at most 1023 bytes", 1), "and a long value");
    memcpy(text + 8 + 1023, "\0", 1);
    parse(&c, text);
    tap_ok(strlen(c.model) == 1023 && !c.n_warning, "which may have 1023 bytes");
    free(text);
}

static void test_strict(void) {
    struct config c;
    struct err e = {0};
    config_init(&c);
    tap_ok(config_set(&c, "cluster-port", "0", &e) && c.cluster_port == 0, "a key with a dash");
    tap_ok(!config_set(&c, "port", "x", &e) && e.code == ERR_USAGE && c.port == 8080, "%s", e.text);
    tap_ok(!config_set(&c, "prot", "1", &e) && e.code == ERR_USAGE, "%s", e.text);
    tap_ok(!config_set(&c, "threads", "0", &e) && e.code == ERR_USAGE, "%s", e.text);
    tap_ok(!config_set(&c, "api-key", "1", &e) && e.code == ERR_USAGE &&
               strstr(e.text, "API stays open"),
           "%s", e.text);
    tap_ok(!config_set(&c, "leds", "1", &e) && e.code == ERR_USAGE, "%s", e.text);
    struct peers p = {.n = 1};
    tap_ok(!config_peers(&p, "a,b c:d", &e) && p.n == 1, "%s", e.text);
    tap_ok(config_peers(&p, "a,b c:1", &e) && p.n == 4, "peers are added");
}

/* Files over defaults, the environment over files. */
static void test_files(void) {
    char path[] = "/tmp/test_config.XXXXXX";
    static const char text[] = "cluster_key = of-the-file\nport = 90\n";
    struct config c;
    struct err e = {0};
    int fd = mkstemp(path);
    tap_ok(fd >= 0 && write(fd, text, sizeof text - 1) == (ssize_t)sizeof text - 1, "a file");
    close(fd);
    config_init(&c);
    unsetenv("DAIR_CLUSTER_KEY");
    tap_ok(config_load(&c, path, &e) && c.port == 90 && !strcmp(c.cluster_key, "of-the-file"),
           "is read");
    setenv("DAIR_CLUSTER_KEY", "of-the-environment", 1);
    tap_ok(config_load(&c, path, &e) && !strcmp(c.cluster_key, "of-the-environment"),
           "DAIR_CLUSTER_KEY counts more");
    tap_ok(config_set(&c, "cluster_key", "mine", &e) && !strcmp(c.cluster_key, "mine"),
           "the command line most");
    unlink(path);
    tap_ok(!config_load(&c, path, &e) && e.code == ERR_IO, "%s", e.text);
    tap_ok(!config_read(&c, "/", &e) && e.code == ERR_IO, "%s", e.text);
}

int main(void) {
    log_set(LOG_DEBUG, NULL);
    test_defaults();
    test_lines();
    test_warnings();
    test_codings();
    test_limits();
    test_strict();
    test_files();
    return tap_done();
}
