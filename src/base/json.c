#include "base/json.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <yyjson.h>

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

struct json_doc {
    yyjson_doc *doc;
    yyjson_val *root;
};

/* yyjson's functions take what they only read without const. */
static yyjson_val *val(const struct json_value *v) {
    return (yyjson_val *)(uintptr_t)v;
}

static const struct json_value *value(yyjson_val *v) {
    return (const struct json_value *)v;
}

/* How deep it goes and how many values it has at most, for the parser knows no limit of its own.
 * Whether it is JSON at all is not seen here. */
static MUST check_size(const char *s, size_t len, struct err *e) {
    size_t depth = 0, n = 1;
    bool in_string = false;
    for (size_t i = 0; i < len; i++) {
        if (in_string) {
            in_string = s[i] != '"';
            i += s[i] == '\\';  // what it escapes ends nothing
            continue;
        }
        switch (s[i]) {
        case '"': in_string = true; break;
        case '[':
        case '{':
            n++;
            if (++depth > JSON_READ_DEPTH) {
                return err_set(e, ERR_LIMIT, "nested more than %d deep at byte %zu",
                               JSON_READ_DEPTH, i);
            }
            break;
        case ']':
        case '}': depth -= depth > 0; break;
        case ',':
        case ':': n++; break;
        default: break;
        }
    }
    if (n > JSON_READ_VALUES) return err_set(e, ERR_LIMIT, "more than %d values", JSON_READ_VALUES);
    return true;
}

MUST json_read(struct json_doc **out, const char *text, size_t len, size_t most, struct err *e) {
    yyjson_alc alc;
    yyjson_read_err why;
    *out = NULL;
    if (len > most) {
        return err_set(e, ERR_LIMIT, "%zu bytes, and %zu is the most taken here", len, most);
    }
    if (len >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) {
        text += 3;
        len -= 3;
    }
    if (!check_size(text, len, e)) return false;
    /* Enough for any text of this length: the pages that the parser does not touch cost nothing. */
    size_t size = yyjson_read_max_memory_usage(len, YYJSON_READ_NOFLAG);
    struct json_doc *d = malloc(sizeof *d + size);
    if (!d) return err_set(e, ERR_MEMORY, "no memory to read %zu bytes of JSON", len);
    yyjson_alc_pool_init(&alc, d + 1, size);
    /* It only reads without YYJSON_READ_INSITU, whatever its prototype says. */
    d->doc = yyjson_read_opts((char *)(uintptr_t)text, len, YYJSON_READ_NOFLAG, &alc, &why);
    if (!d->doc) {
        free(d);
        bool is_memory = why.code == YYJSON_READ_ERROR_MEMORY_ALLOCATION;
        return err_set(e, is_memory ? ERR_MEMORY : ERR_FORMAT, "not JSON: %s at byte %zu", why.msg,
                       why.pos);
    }
    d->root = yyjson_doc_get_root(d->doc);
    *out = d;
    return true;
}

void json_free(struct json_doc *d) {
    free(d);  // the document stands in the same block
}

const struct json_value *json_root(const struct json_doc *d) {
    return value(d->root);
}

enum json_kind json_kind(const struct json_value *v) {
    switch (yyjson_get_type(val(v))) {
    case YYJSON_TYPE_BOOL: return JSON_BOOL;
    case YYJSON_TYPE_NUM: return JSON_NUMBER;
    case YYJSON_TYPE_STR: return JSON_STRING;
    case YYJSON_TYPE_ARR: return JSON_ARRAY;
    case YYJSON_TYPE_OBJ: return JSON_OBJECT;
    default: return JSON_NULL;
    }
}

const char *json_kind_name(enum json_kind k) {
    static const char *const name[] = {"null",     "true or false", "a number",
                                       "a string", "a list",        "an object"};
    return name[k];
}

const struct json_value *json_find(const struct json_value *object, const char *key) {
    yyjson_val *v = yyjson_obj_get(val(object), key);
    return yyjson_is_null(v) ? NULL : value(v);
}

const struct json_value *json_member(const struct json_value *object, const char *key) {
    return value(yyjson_obj_get(val(object), key));
}

bool json_is_true(const struct json_value *v) {
    return yyjson_is_true(val(v));
}

MUST json_print(const struct json_value *v, char **text, size_t *len, struct err *e) {
    *text = yyjson_val_write(val(v), YYJSON_WRITE_NOFLAG, len);
    return *text || err_set(e, ERR_MEMORY, "no memory for a JSON value");
}

size_t json_size(const struct json_value *v) {
    return yyjson_get_len(val(v));
}

const struct json_value *json_item(const struct json_value *array, size_t i) {
    return value(yyjson_arr_get(val(array), i));
}

void json_members(struct json_iter *it, const struct json_value *v) {
    size_t n = yyjson_is_ctn(val(v)) ? json_size(v) : 0;
    *it = (struct json_iter){.left = n, .is_object = yyjson_is_obj(val(v))};
    if (n) it->at = value(unsafe_yyjson_get_first(val(v)));
}

bool json_next(struct json_iter *it, struct json_chars *key, const struct json_value **item) {
    if (!it->left) return false;
    it->left--;
    yyjson_val *v = val(it->at);
    if (it->is_object) {
        if (key) *key = (struct json_chars){unsafe_yyjson_get_str(v), unsafe_yyjson_get_len(v)};
        v++;  // the value stands behind its key
    }
    *item = value(v);
    it->at = value(unsafe_yyjson_get_next(v));
    return true;
}

bool json_chars_of(const struct json_value *v, struct json_chars *out) {
    if (json_kind(v) != JSON_STRING) return false;
    *out = (struct json_chars){yyjson_get_str(val(v)), yyjson_get_len(val(v))};
    return true;
}

bool json_int_of(const struct json_value *v, int64_t *out) {
    if (!yyjson_is_int(val(v))) return false;
    *out = yyjson_get_sint(val(v));
    return !yyjson_is_uint(val(v)) || yyjson_get_uint(val(v)) <= INT64_MAX;
}

double json_real_of(const struct json_value *v) {
    return yyjson_get_num(val(v));
}

bool json_bool_of(const struct json_value *v) {
    return yyjson_get_bool(val(v));
}

static bool must_be(const char *name, const char *what, const struct json_value *v, struct err *e) {
    return err_set(e, ERR_FORMAT, "\"%s\" must be %s, not %s", name, what,
                   json_kind_name(json_kind(v)));
}

MUST json_want_chars(const struct json_value *object, const char *key, struct json_chars *out,
                     struct err *e) {
    const struct json_value *v = json_find(object, key);
    if (!v) return true;
    if (json_kind(v) != JSON_STRING) return must_be(key, "a string", v, e);
    *out = (struct json_chars){yyjson_get_str(val(v)), yyjson_get_len(val(v))};
    return true;
}

MUST json_as_real(const struct json_value *v, const char *name, double min, double max, double *out,
                  struct err *e) {
    if (json_kind(v) != JSON_NUMBER) return must_be(name, "a number", v, e);
    double x = yyjson_get_num(val(v));
    if (!(x >= min && x <= max)) {
        return err_set(e, ERR_FORMAT, "\"%s\" must be a number from %g to %g", name, min, max);
    }
    *out = x;
    return true;
}

MUST json_want_real(const struct json_value *object, const char *key, double min, double max,
                    double *out, struct err *e) {
    const struct json_value *v = json_find(object, key);
    return !v || json_as_real(v, key, min, max, out, e);
}

/* A number without a fraction, as far as it fits. */
static bool to_int(const struct json_value *v, int64_t *out) {
    const double limit = 9007199254740992.0;  // 2^53: beyond, a double is not exact
    if (yyjson_is_uint(val(v))) {
        uint64_t u = yyjson_get_uint(val(v));
        *out = (int64_t)u;
        return u <= INT64_MAX;
    }
    if (yyjson_is_sint(val(v))) {
        *out = yyjson_get_sint(val(v));
        return true;
    }
    double x = yyjson_get_real(val(v));
    if (!yyjson_is_real(val(v)) || !(fabs(x) <= limit) || x != floor(x)) return false;
    *out = (int64_t)x;
    return true;
}

MUST json_as_int(const struct json_value *v, const char *name, int64_t min, int64_t max,
                 int64_t *out, struct err *e) {
    int64_t x;
    if (json_kind(v) != JSON_NUMBER) return must_be(name, "a whole number", v, e);
    if (!to_int(v, &x) || x < min || x > max) {
        return err_set(e, ERR_FORMAT, "\"%s\" must be a whole number from %" PRId64 " to %" PRId64,
                       name, min, max);
    }
    *out = x;
    return true;
}

MUST json_want_int(const struct json_value *object, const char *key, int64_t min, int64_t max,
                   int64_t *out, struct err *e) {
    const struct json_value *v = json_find(object, key);
    return !v || json_as_int(v, key, min, max, out, e);
}

MUST json_want_bool(const struct json_value *object, const char *key, bool *out, struct err *e) {
    const struct json_value *v = json_find(object, key);
    if (!v) return true;
    if (json_kind(v) != JSON_BOOL) return must_be(key, "true or false", v, e);
    *out = yyjson_get_bool(val(v));
    return true;
}

MUST json_want_object(const struct json_value *object, const char *key,
                      const struct json_value **out, struct err *e) {
    const struct json_value *v = json_find(object, key);
    if (!v) return true;
    if (json_kind(v) != JSON_OBJECT) return must_be(key, "an object", v, e);
    *out = v;
    return true;
}

static bool too_many(const char *name, size_t n, size_t cap, struct err *e) {
    return err_set(e, ERR_LIMIT, "\"%s\" has %zu items, and %zu is the most taken here", name, n,
                   cap);
}

MUST json_as_strings(const struct json_value *v, const char *name, struct json_chars *out,
                     size_t cap, size_t *n, struct err *e) {
    yyjson_arr_iter at;
    yyjson_val *item;
    *n = 0;
    if (json_kind(v) == JSON_STRING && cap) {
        out[(*n)++] = (struct json_chars){yyjson_get_str(val(v)), yyjson_get_len(val(v))};
        return true;
    }
    if (json_kind(v) != JSON_ARRAY) return must_be(name, "a string or a list of strings", v, e);
    if (json_size(v) > cap) return too_many(name, json_size(v), cap, e);
    yyjson_arr_iter_init(val(v), &at);
    while ((item = yyjson_arr_iter_next(&at))) {
        if (!yyjson_is_str(item)) return must_be(name, "a list of strings alone", value(item), e);
        out[(*n)++] = (struct json_chars){yyjson_get_str(item), yyjson_get_len(item)};
    }
    return true;
}

MUST json_as_ints(const struct json_value *v, const char *name, int32_t min, int32_t max,
                  int32_t *out, size_t cap, size_t *n, struct err *e) {
    yyjson_arr_iter at;
    yyjson_val *item;
    *n = 0;
    if (json_kind(v) != JSON_ARRAY) return must_be(name, "a list of whole numbers", v, e);
    if (json_size(v) > cap) return too_many(name, json_size(v), cap, e);
    yyjson_arr_iter_init(val(v), &at);
    while ((item = yyjson_arr_iter_next(&at))) {
        int64_t x;
        if (!json_as_int(value(item), name, min, max, &x, e)) return false;
        out[(*n)++] = (int32_t)x;
    }
    return true;
}
