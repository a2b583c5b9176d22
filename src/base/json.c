#include "base/json.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

void json_file(struct json *j, FILE *f) {
    *j = (struct json){.file = f};
}

void json_mem(struct json *j, char *mem, size_t cap) {
    *j = (struct json){.mem = mem, .cap = cap};
    mem[0] = '\0';
}

static void put(struct json *j, const char *s, size_t n) {
    if (j->file) {
        fwrite(s, 1, n, j->file);  // the caller asks ferror() once, at the end
    } else if (!j->is_full && n < j->cap - j->len) {
        memcpy(j->mem + j->len, s, n);
        j->mem[j->len + n] = '\0';
    } else {
        j->is_full = true;
    }
    j->len += n;
}

static void put_text(struct json *j, const char *s) {
    put(j, s, strlen(s));
}

/* What must stand before a value or a key: the comma, if one is due. */
static void separate(struct json *j) {
    if (j->has_item[j->depth]) put(j, ",", 1);
    j->has_item[j->depth] = true;
}

static void before_value(struct json *j) {
    assert(j->has_key == j->is_object[j->depth]);
    if (!j->has_key) separate(j);
    j->has_key = false;
}

static void open_level(struct json *j, bool is_object) {
    before_value(j);
    assert(j->depth < JSON_DEPTH);
    j->depth++;
    j->has_item[j->depth] = false;
    j->is_object[j->depth] = is_object;
    put(j, is_object ? "{" : "[", 1);
}

void json_object(struct json *j) {
    open_level(j, true);
}

void json_array(struct json *j) {
    open_level(j, false);
}

void json_end(struct json *j) {
    assert(j->depth > 0 && !j->has_key);
    put(j, j->is_object[j->depth] ? "}" : "]", 1);
    j->depth--;
}

/* Length of the UTF-8 sequence at s [n > 0], 0 when it is not one (Unicode 15, table 3-7). */
static size_t utf8_len(const uint8_t *s, size_t n) {
    if (s[0] < 0x80) return 1;
    size_t len = s[0] >= 0xc2 && s[0] <= 0xdf   ? 2
                 : s[0] >= 0xe0 && s[0] <= 0xef ? 3
                 : s[0] >= 0xf0 && s[0] <= 0xf4 ? 4
                                                : 0;
    if (len == 0 || len > n) return 0;
    uint8_t low = s[0] == 0xe0 ? 0xa0 : s[0] == 0xf0 ? 0x90 : 0x80;
    uint8_t high = s[0] == 0xed ? 0x9f : s[0] == 0xf4 ? 0x8f : 0xbf;
    if (s[1] < low || s[1] > high) return 0;
    for (size_t i = 2; i < len; i++) {
        if ((s[i] & 0xc0) != 0x80) return 0;
    }
    return len;
}

static void put_escaped(struct json *j, uint8_t c) {
    static const char plain[] = "\b\f\n\r\t\"\\", letter[] = "bfnrt\"\\";
    const char *at = c ? strchr(plain, c) : NULL;
    char out[8];
    if (at) {
        snprintf(out, sizeof out, "\\%c", letter[at - plain]);
    } else {
        snprintf(out, sizeof out, "\\u%04x", c);
    }
    put_text(j, out);
}

static void put_string(struct json *j, const char *text, size_t len) {
    const uint8_t *s = (const uint8_t *)text;
    size_t from = 0, i = 0;
    put(j, "\"", 1);
    while (i < len) {
        size_t n = utf8_len(s + i, len - i);
        bool is_plain = n > 1 || (n == 1 && s[i] >= 0x20 && !strchr("\"\\\x7f", s[i]));
        if (is_plain) {
            i += n;
            continue;
        }
        put(j, text + from, i - from);
        if (n == 1) {
            put_escaped(j, s[i]);
        } else {
            put_text(j, "\xef\xbf\xbd");
        }
        from = ++i;
    }
    put(j, text + from, len - from);
    put(j, "\"", 1);
}

void json_key(struct json *j, const char *key) {
    assert(j->is_object[j->depth] && !j->has_key);
    separate(j);
    put_string(j, key, strlen(key));
    put(j, ":", 1);
    j->has_key = true;
}

void json_string(struct json *j, const char *s, size_t len) {
    before_value(j);
    put_string(j, s, len);
}

void json_text(struct json *j, const char *s) {
    if (!s) {
        json_null(j);
        return;
    }
    json_string(j, s, strlen(s));
}

void json_u64(struct json *j, uint64_t v) {
    char out[24];
    before_value(j);
    snprintf(out, sizeof out, "%" PRIu64, v);
    put_text(j, out);
}

void json_i64(struct json *j, int64_t v) {
    char out[24];
    before_value(j);
    snprintf(out, sizeof out, "%" PRId64, v);
    put_text(j, out);
}

void json_real(struct json *j, double v) {
    char out[40];
    before_value(j);
    if (isfinite(v)) {
        snprintf(out, sizeof out, "%.6g", v);
    } else {
        snprintf(out, sizeof out, "null");
    }
    put_text(j, out);
}

void json_bool(struct json *j, bool v) {
    before_value(j);
    put_text(j, v ? "true" : "false");
}

void json_null(struct json *j) {
    before_value(j);
    put_text(j, "null");
}

void json_put_text(struct json *j, const char *key, const char *s) {
    json_key(j, key);
    json_text(j, s);
}

void json_put_u64(struct json *j, const char *key, uint64_t v) {
    json_key(j, key);
    json_u64(j, v);
}

void json_put_real(struct json *j, const char *key, double v) {
    json_key(j, key);
    json_real(j, v);
}

void json_put_bool(struct json *j, const char *key, bool v) {
    json_key(j, key);
    json_bool(j, v);
}

void json_line(struct json *j) {
    assert(j->depth == 0);
    put(j, "\n", 1);
    j->has_item[0] = false;
}
