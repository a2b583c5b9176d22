/* What the writer writes can be parsed, whatever bytes went in; the reader refuses what is not JSON,
 * or too much of it, and says what is wrong with a value. */
#include "base/json.h"

#include "base/text.h"
#include "tap.h"

#include <math.h>
#include <stdlib.h>
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

static struct json_doc *doc;
static struct err e;

static const struct json_value *read_text(const char *text, size_t len) {
    json_free(doc);
    doc = NULL;
    e = (struct err){0};
    return json_read(&doc, text, len, 1 << 20, &e) ? json_root(doc) : NULL;
}

#define READ(text) read_text(text, sizeof(text) - 1)

static void fails(const char *text, size_t len, enum err_code code, const char *says) {
    bool ok = !read_text(text, len) && e.code == code && strstr(e.text, says);
    char shown[40];
    tap_ok(ok, "refused: %s", text_printable(shown, sizeof shown, text));
    if (!ok) printf("# %d %s\n", e.code, e.text);
}

#define FAILS(text, code, says) fails(text, sizeof(text) - 1, code, says)

static void test_not_json(void) {
    static char many[1 << 21];
    FAILS("", ERR_FORMAT, "not JSON");
    FAILS("{", ERR_FORMAT, "not JSON");
    FAILS("[1,]", ERR_FORMAT, "at byte 2");
    FAILS("{} x", ERR_FORMAT, "not JSON");
    FAILS("[01]", ERR_FORMAT, "not JSON");
    FAILS("[NaN]", ERR_FORMAT, "not JSON");
    FAILS("[1e400]", ERR_FORMAT, "not JSON");
    FAILS("[\"\xff\"]", ERR_FORMAT, "not JSON");
    FAILS("[\"\\ud83d\"]", ERR_FORMAT, "not JSON");
    FAILS("[\"a\nb\"]", ERR_FORMAT, "not JSON");
    FAILS("[1/*no*/]", ERR_FORMAT, "not JSON");
    FAILS("[\"\\", ERR_FORMAT, "not JSON");
    memset(many, '[', 65);
    fails(many, 65, ERR_LIMIT, "nested more than 64 deep at byte 64");
    memset(many + 64, ']', 64);
    tap_ok(read_text(many, 128) != NULL, "64 deep is read");
    memset(many, '{', 64);
    memcpy(many, "[\"", 2);
    memcpy(many + 64, "\\\"[[\"]", 6);
    tap_ok(read_text(many, 70) != NULL, "brackets in a string do not count");
    for (size_t i = 0; i < sizeof many; i += 2) memcpy(many + i, "1,", 2);
    many[0] = '[';
    fails(many, (1 << 20), ERR_LIMIT, "more than 524288 values");
    fails(many, sizeof many, ERR_LIMIT, "2097152 bytes");
    memcpy(many + (1 << 20) - 2, "]", 2);
    memcpy(many, "[1,1", 4);
    memset(many + 100, ' ', 100);
    tap_ok(read_text(many, (1 << 20) - 1) != NULL || e.code == ERR_FORMAT, "as many are read");
}

static void test_read_values(void) {
    const struct json_value *v = READ(
        "\xef\xbb\xbf{\"s\":\"a\\u0000b\",\"s\":\"second\",\"i\":16.0,\"big\":18446744073709551615,"
        "\"neg\":-9223372036854775808,\"r\":0.5,\"t\":true,\"n\":null,\"o\":{},"
        "\"list\":[\"x\",\"yy\"],\"ids\":[1,2,3],\"half\":1.5}");
    struct json_chars s = {"old", 3};
    int64_t i = 5;
    double r = 7;
    bool b = false;
    const struct json_value *o = NULL;
    tap_ok(json_kind(v) == JSON_OBJECT && json_size(v) == 12, "an object, after a byte-order mark");
    tap_ok(json_want_chars(v, "s", &s, &e) && s.len == 3 && memcmp(s.s, "a\0b", 4) == 0,
           "a string with a NUL in it; the first of two keys");
    tap_ok(json_want_int(v, "i", 0, 16, &i, &e) && i == 16, "16.0 is 16");
    tap_ok(json_want_int(v, "neg", INT64_MIN, 0, &i, &e) && i == INT64_MIN, "the least of them");
    tap_ok(json_want_real(v, "r", 0, 1, &r, &e) && fabs(r - 0.5) < 1e-9, "a number");
    tap_ok(json_want_bool(v, "t", &b, &e) && b, "true");
    tap_ok(json_want_object(v, "o", &o, &e) && json_size(o) == 0, "an object");
    i = 5;
    tap_ok(json_want_int(v, "n", 0, 1, &i, &e) && json_want_int(v, "none", 0, 1, &i, &e) && i == 5,
           "null and nothing leave what was");
    tap_ok(!json_find(v, "n") && json_kind(NULL) == JSON_NULL, "null is nothing");
    struct json_chars two[2];
    int32_t ids[3];
    size_t n;
    tap_ok(json_as_strings(json_find(v, "list"), "list", two, 2, &n, &e) && n == 2 &&
               two[1].len == 2,
           "a list of strings");
    tap_ok(json_as_strings(json_find(v, "s"), "s", two, 2, &n, &e) && n == 1, "or one of them");
    tap_ok(json_as_ints(json_find(v, "ids"), "ids", 1, 3, ids, 3, &n, &e) && n == 3 && ids[2] == 3,
           "a list of numbers");
    tap_ok(json_kind(json_item(json_find(v, "ids"), 1)) == JSON_NUMBER &&
               json_kind(json_item(json_find(v, "ids"), 3)) == JSON_NULL,
           "items");
}

static void says(bool ok, const char *want) {
    tap_ok(!ok && strcmp(e.text, want) == 0, "says: %s", want);
    if (ok || strcmp(e.text, want) != 0) printf("# %s\n", ok ? "nothing" : e.text);
}

static void test_wrong_values(void) {
    const struct json_value *v =
        READ("{\"s\":1,\"i\":\"1\",\"big\":18446744073709551615,\"half\":1.5,"
             "\"r\":[],\"t\":0,\"list\":[\"x\",1],\"huge\":1e300}");
    struct json_chars s, two[2];
    int64_t i;
    int32_t ids[2];
    double r;
    bool b;
    size_t n;
    const struct json_value *o;
    says(json_want_chars(v, "s", &s, &e), "\"s\" must be a string, not a number");
    says(json_want_int(v, "i", 0, 9, &i, &e), "\"i\" must be a whole number, not a string");
    says(json_want_int(v, "s", 2, 9, &i, &e), "\"s\" must be a whole number from 2 to 9");
    says(json_want_int(v, "big", 0, 9, &i, &e), "\"big\" must be a whole number from 0 to 9");
    says(json_want_int(v, "half", 0, 9, &i, &e), "\"half\" must be a whole number from 0 to 9");
    says(json_want_int(v, "huge", 0, 9, &i, &e), "\"huge\" must be a whole number from 0 to 9");
    says(json_want_real(v, "r", 0, 1, &r, &e), "\"r\" must be a number, not a list");
    says(json_want_real(v, "s", 0, 0.5, &r, &e), "\"s\" must be a number from 0 to 0.5");
    says(json_want_bool(v, "t", &b, &e), "\"t\" must be true or false, not a number");
    says(json_want_object(v, "r", &o, &e), "\"r\" must be an object, not a list");
    says(json_as_strings(json_find(v, "list"), "list", two, 2, &n, &e),
         "\"list\" must be a list of strings alone, not a number");
    says(json_as_strings(json_find(v, "list"), "list", two, 1, &n, &e),
         "\"list\" has 2 items, and 1 is the most taken here");
    says(json_as_ints(json_find(v, "list"), "list", 0, 9, ids, 2, &n, &e),
         "\"list\" must be a whole number, not a string");
    json_free(doc);
}

static void test_members(void) {
    const char *text = "{\"b\":1,\"a\":null,\"b\":\"x\"}";
    struct json_iter at;
    struct json_chars key;
    const struct json_value *v;
    char got[64] = "";
    if (!json_read(&doc, text, strlen(text), 1000, &e)) return;
    json_members(&at, json_root(doc));
    while (json_next(&at, &key, &v)) {
        size_t len = strlen(got);
        snprintf(got + len, sizeof got - len, "%s %s, ", key.s, json_kind_name(json_kind(v)));
    }
    tap_ok(!strcmp(got, "b a number, a null, b a string, "), "members in order: %s", got);
    json_free(doc);
    if (!json_read(&doc, "{}", 2, 1000, &e)) return;
    json_members(&at, json_root(doc));
    tap_ok(!json_next(&at, &key, &v) && !json_next(&at, &key, &v), "an empty object has none");
    json_free(doc);
}

int main(void) {
    test_strings();
    test_values();
    test_lines();
    test_full();
    test_file();
    test_not_json();
    test_read_values();
    test_wrong_values();
    test_members();
    return tap_done();
}
