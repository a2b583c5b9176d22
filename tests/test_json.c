/* What the writer writes can be parsed, whatever bytes went in. */
#include "base/json.h"

#include "tap.h"

#include <math.h>
#include <string.h>

static char out[4096];

static void is(const char *what, const char *want) {
    bool ok = strcmp(out, want) == 0;
    tap_ok(ok, "%s", what);
    if (!ok) printf("# got %s\n", out);
}

static void string_is(const char *what, const char *s, size_t len, const char *want) {
    struct json j;
    json_mem(&j, out, sizeof out);
    json_string(&j, s, len);
    is(what, want);
}

#define STRING_IS(what, s, want) string_is(what, s, sizeof s - 1, want)

static void test_strings(void) {
    STRING_IS("nothing", "", "\"\"");
    STRING_IS("plain text", "plain", "\"plain\"");
    STRING_IS("quote and backslash", "\"\\/", "\"\\\"\\\\/\"");
    STRING_IS("short escapes", "\b\f\n\r\t", "\"\\b\\f\\n\\r\\t\"");
    STRING_IS("other controls", "a\0b\x1f\x7f", "\"a\\u0000b\\u001f\\u007f\"");
    STRING_IS("UTF-8", "\xc3\xa9 \xe2\x82\xac \xf0\x9f\xa6\x99",
              "\"\xc3\xa9 \xe2\x82\xac \xf0\x9f\xa6\x99\"");
    STRING_IS("a stray byte", "\xff", "\"\xef\xbf\xbd\"");
    STRING_IS("a character cut off", "a\xc3", "\"a\xef\xbf\xbd\"");
    STRING_IS("overlong, two bytes", "\xc0\x80", "\"\xef\xbf\xbd\xef\xbf\xbd\"");
    STRING_IS("overlong, three bytes", "\xe0\x80\x80", "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"");
    STRING_IS("a surrogate", "\xed\xa0\x80", "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"");
    STRING_IS("past the last code point", "\xf4\x90\x80\x80",
              "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"");
    STRING_IS("a broken sequence", "\xf0\x9f\xa6x", "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbdx\"");
}

static void test_values(void) {
    struct json j;
    json_mem(&j, out, sizeof out);
    json_object(&j);
    json_put_u64(&j, "big", UINT64_MAX);
    json_key(&j, "small");
    json_i64(&j, INT64_MIN);
    json_put_real(&j, "real", 0.1);
    json_put_real(&j, "nan", (double)NAN);
    json_put_real(&j, "inf", (double)INFINITY);
    json_put_bool(&j, "yes", true);
    json_put_text(&j, "none", NULL);
    json_key(&j, "list");
    json_array(&j);
    json_u64(&j, 1);
    json_array(&j);
    json_end(&j);
    json_object(&j);
    json_end(&j);
    json_bool(&j, false);
    json_null(&j);
    json_end(&j);
    json_end(&j);
    is("all kinds of values",
       "{\"big\":18446744073709551615,\"small\":-9223372036854775808,\"real\":0.1,\"nan\":null,"
       "\"inf\":null,\"yes\":true,\"none\":null,\"list\":[1,[],{},false,null]}");
    tap_ok(!j.is_full && j.len == strlen(out), "length is counted");
}

static void test_lines(void) {
    struct json j;
    json_mem(&j, out, sizeof out);
    for (int i = 0; i < 2; i++) {
        json_object(&j);
        json_put_u64(&j, "i", (uint64_t)i);
        json_end(&j);
        json_line(&j);
    }
    is("an object a line", "{\"i\":0}\n{\"i\":1}\n");
}

static void test_full(void) {
    struct json j;
    char small[8];
    json_mem(&j, small, sizeof small);
    json_array(&j);
    json_text(&j, "abcdefgh");
    json_end(&j);
    tap_ok(j.is_full && strlen(small) < sizeof small, "memory that is too small is not overrun");
    tap_ok(j.len == strlen("[\"abcdefgh\"]"), "and the length needed is told");
}

static void test_file(void) {
    struct json j;
    FILE *f = tmpfile();
    if (!f) {
        tap_skip("no temporary file can be had here");
        return;
    }
    json_file(&j, f);
    json_text(&j, "x");
    json_line(&j);
    rewind(f);
    size_t n = fread(out, 1, sizeof out - 1, f);
    out[n] = '\0';
    fclose(f);
    is("into a file", "\"x\"\n");
}

int main(void) {
    test_strings();
    test_values();
    test_lines();
    test_full();
    test_file();
    return tap_done();
}
