/* Any bytes as JSON: read within the limits or refused with a sentence; what was read is written and read
 * again to the same. */
#include "base/json.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const keys[] = {"", "a", "prompt", "stop", "n"};

/* Every getter on every value: an answer, or a failure with a sentence. */
static unsigned use(const struct json_value *v, unsigned depth) {
    struct json_chars s[4] = {0};
    int32_t id[4] = {0};
    size_t n;
    struct err e = {0};
    unsigned sum = (unsigned)json_kind(v) + (uint8_t)*json_kind_name(json_kind(v));
    if (depth > JSON_READ_DEPTH) abort();
    if (!json_as_strings(v, "x", s, 4, &n, &e) && !*e.text) abort();
    if (!json_as_ints(v, "x", -5, 5, id, 4, &n, &e) && !*e.text) abort();
    for (size_t i = 0; i < 4 && s[i].s; i++) sum += (uint8_t)s[i].s[s[i].len];
    for (size_t i = 0; i < json_size(v) && i < 8 && json_kind(v) == JSON_ARRAY; i++) {
        sum += use(json_item(v, i), depth + 1);
    }
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        int64_t x = 0;
        double r = 0;
        bool b = false;
        const struct json_value *o = NULL;
        bool ok = json_want_chars(v, keys[i], s, &e) && json_want_int(v, keys[i], -9, 9, &x, &e) &&
                  json_want_real(v, keys[i], -1, 1, &r, &e) && json_want_bool(v, keys[i], &b, &e) &&
                  json_want_object(v, keys[i], &o, &e);
        if (!ok && !*e.text) abort();
        if (x < -9 || x > 9 || !(r >= -1 && r <= 1)) abort();
        if (json_find(v, keys[i])) sum += use(json_find(v, keys[i]), depth + 1);
    }
    return sum;
}

/* A string comes back from writer and reader as it was. */
static void there_and_back(const struct json_value *v) {
    struct json_chars a = {0}, b = {0};
    size_t n;
    struct err e;
    struct json w;
    struct json_doc *d;
    if (json_kind(v) != JSON_STRING || !json_as_strings(v, "x", &a, 1, &n, &e)) return;
    size_t room = 6 * a.len + 3;
    char *text = malloc(room);
    if (!text) abort();
    json_mem(&w, text, room);
    json_string(&w, a.s, a.len);
    if (w.is_full || !json_read(&d, text, w.len, room, &e)) abort();
    if (!json_as_strings(json_root(d), "x", &b, 1, &n, &e)) abort();
    if (a.len != b.len || memcmp(a.s, b.s, a.len) != 0) abort();
    json_free(d);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct json_doc *d;
    struct err e = {0};
    if (json_read(&d, (const char *)data, size, 1 << 16, &e)) {
        volatile unsigned sink = use(json_root(d), 0);
        (void)sink;
        there_and_back(json_root(d));
        for (size_t i = 0; i < json_size(json_root(d)) && i < 8; i++) {
            if (json_kind(json_root(d)) == JSON_ARRAY) there_and_back(json_item(json_root(d), i));
        }
        json_free(d);
    } else if (e.code == ERR_NONE || !*e.text || d) {
        abort();
    }
    return 0;
}
