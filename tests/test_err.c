/* Sentences that are too long: what goes is the middle of a long path, not the name of the file, nor the reason,
 * nor what helps. */
#include "base/err.h"

#include "base/text.h"
#include "tap.h"

#include <errno.h>
#include <string.h>

enum { DEEP = 60 };

/* "/folder-0/folder-1/.../model.gguf", longer than any sentence. */
static const char *deep_path(void) {
    static char path[DEEP * 12 + 32];
    size_t n = 0;
    for (int i = 0; i < DEEP; i++) {
        n += (size_t)snprintf(path + n, sizeof path - n, "/folder-%d", i);
    }
    snprintf(path + n, sizeof path - n, "/model.gguf");
    return path;
}

static bool ends(const char *s, const char *with) {
    size_t n = strlen(s), k = strlen(with);
    return n >= k && !strcmp(s + n - k, with);
}

/* No sequence of UTF-8 is cut in two. */
static bool is_whole(const char *s) {
    for (size_t i = 0, more = 0; s[i] || more; i++) {
        bool is_next = ((unsigned char)s[i] & 0xc0) == 0x80;
        if (is_next != (more > 0)) return false;
        unsigned char c = (unsigned char)s[i];
        more = is_next ? more - 1 : c >= 0xf0 ? 3 : c >= 0xe0 ? 2 : c >= 0xc0 ? 1 : 0;
    }
    return true;
}

static void test_shorten(void) {
    char out[12];
    tap_ok(!strcmp(text_shorten(out, sizeof out, "hello world", 4), "hello world"), "what fits");
    tap_ok(!strcmp(text_shorten(out, sizeof out, "hello, world", 4), "hell...orld"), "%s", out);
    tap_ok(!strcmp(text_shorten(out, sizeof out, "/a/long/path", 0), "...ong/path"), "%s", out);
    tap_ok(!strcmp(text_shorten(out, sizeof out, "hello, world", 99), "hello, w..."), "%s", out);
    tap_ok(!strcmp(text_shorten(out, 4, "hello", 0), "..."), "%s", out);
    tap_ok(!strcmp(text_shorten(out, 3, "hello", 1), "he"), "no room for dots: %s", out);
    tap_ok(!*text_shorten(out, 1, "hello", 0), "no room");
    const char *letters = "\u00e9\u00e9\u00e9\u20ac\u20ac\u20ac\u20ac\U0001f600\u00e9";
    bool ok = true;
    for (size_t cap = 1; cap <= sizeof out; cap++) {
        for (size_t head = 0; head < cap; head++) {
            ok = ok && is_whole(text_shorten(out, cap, letters, head)) && strlen(out) < cap;
        }
    }
    tap_ok(ok, "no letter is cut in two");
}

static void test_set(void) {
    struct err e;
    const char *path = deep_path();
    (void)err_set(&e, ERR_FORMAT, "%s: ends after 7 bytes (was it cut?)", path);
    tap_ok(strlen(e.text) < sizeof e.text && strlen(e.text) > 380 &&
               ends(e.text, "/model.gguf: ends after 7 bytes (was it cut?)"),
           "its name: %s", e.text);
    errno = ENOENT;
    (void)err_sys(&e, "cannot open the file %s", path);
    tap_ok(!strncmp(e.text, "cannot open the file /folder-0/", 31) &&
               strstr(e.text, "/model.gguf: ") && ends(e.text, strerror(ENOENT)),
           "and the reason: %s", e.text);
}

static void test_in(void) {
    struct err e;
    const char *path = deep_path(), *at_end = path + strlen(path) - 300;
    char what[512], remedy[ERR_TEXT];
    (void)err_set(&e, ERR_FORMAT, "tensor a is no number");
    snprintf(what, sizeof what, "%s", at_end);
    (void)err_in(&e, what);
    tap_ok(!strncmp(e.text, what, 300) && ends(e.text, ".gguf: tensor a is no number"),
           "a path that fits is whole: %s", e.text);
    (void)err_set(&e, ERR_FORMAT, "tensor a is no number");
    (void)err_in(&e, path);
    tap_ok(strlen(e.text) == sizeof e.text - 1 && !strncmp(e.text, "...", 3) &&
               ends(e.text, "/model.gguf: tensor a is no number"),
           "of one that does not, the end: %s", e.text);
    memset(remedy, 'x', sizeof remedy);
    snprintf(remedy + sizeof remedy - 9, 9, "; do so");
    (void)err_set(&e, ERR_FORMAT, "it is bad: %s", remedy + 20);
    (void)err_in(&e, path);
    tap_ok(strlen(e.text) < sizeof e.text && strstr(e.text, "/model.gguf: it is bad: xxx") &&
               ends(e.text, "xxx; do so"),
           "both are long: the name, the beginning of the sentence and its end: %s", e.text);
}

/* Who may not know our folders is told the name, whatever becomes of a long path. */
static void test_file(void) {
    struct err e;
    errno = ENOENT;
    (void)err_sys(&e, "cannot open the file");
    (void)err_in_file(&e, "/a/folder/x.gguf");
    (void)err_in(&e, "draft model");
    char want[ERR_TEXT];
    snprintf(want, sizeof want, "draft model: x.gguf: cannot open the file: %s", strerror(ENOENT));
    tap_ok(!strcmp(e.text, want), "for anybody: %s", e.text);
    snprintf(want, sizeof want, "draft model: /a/folder/x.gguf: cannot open the file: %s",
             strerror(ENOENT));
    tap_ok(!strcmp(e.full, want), "for the console: %s", e.full);
    (void)err_set(&e, ERR_FORMAT, "tensor a is no number");
    (void)err_in_file(&e, deep_path());
    tap_ok(!strcmp(e.text, "model.gguf: tensor a is no number"), "of a long path the name: %s",
           e.text);
    tap_ok(strlen(e.full) == sizeof e.full - 1 &&
               ends(e.full, "/model.gguf: tensor a is no number"),
           "and the end: %s", e.full);
    (void)err_in_file(&e, "demo model");
    tap_ok(!strncmp(e.text, "demo model: model.gguf", 22), "a name is no path: %s", e.text);
}

int main(void) {
    test_shorten();
    test_set();
    test_in();
    test_file();
    return tap_done();
}
