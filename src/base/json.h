/* json.h - JSON (RFC 8259): writing to a file or into memory without allocating, and reading what
 * strangers send. The one door to yyjson.
 *
 * The writer places commas and quotes and escapes text; bytes that are not valid UTF-8 become U+FFFD,
 * so that what comes out can always be parsed. Values that JSON lacks (NaN, infinities) become null.
 * Misuse (a value without a key inside an object, too deep a nesting) is a mistake of ours: asserted.
 */
#ifndef BASE_JSON_H
#define BASE_JSON_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum { JSON_DEPTH = 16 };

struct json {
    FILE *file;       // NULL: into mem
    char *mem;        // [cap], always NUL-terminated
    size_t cap, len;  // len: bytes written, or wanted once is_full
    bool is_full;     // memory only: something did not fit
    uint8_t depth;
    bool has_item[JSON_DEPTH + 1];  // a comma is due before the next one
    bool is_object[JSON_DEPTH + 1];
    bool has_key;  // a key waits for its value
};

void json_file(struct json *j, FILE *f);               // f is borrowed
void json_mem(struct json *j, char *mem, size_t cap);  // mem [cap >= 1] is borrowed

void json_object(struct json *j);
void json_array(struct json *j);
void json_end(struct json *j);  // of the innermost object or array
void json_key(struct json *j, const char *key);

void json_string(struct json *j, const char *s, size_t len);
void json_text(struct json *j, const char *s);  // NULL gives null
void json_u64(struct json *j, uint64_t v);
void json_i64(struct json *j, int64_t v);
void json_real(struct json *j, double v);  // six digits that matter
void json_bool(struct json *j, bool v);
void json_null(struct json *j);

/* Key and value in one call. */
void json_put_text(struct json *j, const char *key, const char *s);
void json_put_u64(struct json *j, const char *key, uint64_t v);
void json_put_real(struct json *j, const char *key, double v);
void json_put_bool(struct json *j, const char *key, bool v);

/* Ends the outermost value with a newline; the next one may follow (one object a line). */
void json_line(struct json *j);

/* Reading. A text is parsed whole, strictly (UTF-8 included; a byte-order mark is skipped), into a
 * block that belongs to the document; how deep it nests and how many values it has is counted before
 * anything is built. Memory touched: the text's length and 24 bytes a value, freed with the document.
 * Where a key stands twice, the first counts. Strings may hold NUL bytes: they have a length, and a
 * NUL behind it. What json_* hands out is borrowed from the document. */
enum { JSON_READ_DEPTH = 64, JSON_READ_VALUES = 1 << 19 };

struct json_doc;
struct json_value;
enum json_kind { JSON_NULL, JSON_BOOL, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT };

struct json_chars {
    const char *s;  // [len]
    size_t len;
};

/* Fails: ERR_FORMAT, naming the place; ERR_LIMIT when it is longer than `most` bytes, too deep or has
 * too many values; ERR_MEMORY. *d is owned; free with json_free. */
MUST json_read(struct json_doc **d, const char *text, size_t len, size_t most, struct err *e);
void json_free(struct json_doc *d);  // NULL is fine
const struct json_value *json_root(const struct json_doc *d);

enum json_kind json_kind(const struct json_value *v);  // NULL: JSON_NULL
const char *json_kind_name(enum json_kind k);          // "a string"
/* The value at `key` of an object; NULL when there is none, or null. */
const struct json_value *json_find(const struct json_value *object, const char *key);
/* The same, where null is a value like others. */
const struct json_value *json_member(const struct json_value *object, const char *key);
bool json_is_true(const struct json_value *v);  // the value true
/* The value as JSON without white space, NUL-terminated; *text is owned, free() it. Fails: ERR_MEMORY. */
MUST json_print(const struct json_value *v, char **text, size_t *len, struct err *e);
/* Number of items of an array or object, and item i of an array (the first ones are quick). */
size_t json_size(const struct json_value *v);
const struct json_value *json_item(const struct json_value *array, size_t i);

/* The members of an object or items of an array in the order of the text, each in constant time; null
 * values too, and a key that stands twice both times. Other values have none. */
struct json_iter {
    const struct json_value *at;
    size_t left;
    bool is_object;
};
void json_members(struct json_iter *it, const struct json_value *v);
/* The next one; key (may be NULL) is filled for objects. False after the last. */
bool json_next(struct json_iter *it, struct json_chars *key, const struct json_value **item);

/* What a value of the kind is; false for one of another kind, or (json_int_of) for a number that has a
 * fraction or exponent, or does not fit. */
bool json_chars_of(const struct json_value *v, struct json_chars *out);
bool json_int_of(const struct json_value *v, int64_t *out);
double json_real_of(const struct json_value *v);  // 0 for what is no number
bool json_bool_of(const struct json_value *v);

/* The value at `key`; where it is absent or null, *out stays what it was. Fails: ERR_FORMAT, naming
 * the key and what it must be. json_want_int takes 16.0 for 16. */
MUST json_want_chars(const struct json_value *object, const char *key, struct json_chars *out,
                     struct err *e);
MUST json_want_real(const struct json_value *object, const char *key, double min, double max,
                    double *out, struct err *e);
MUST json_want_int(const struct json_value *object, const char *key, int64_t min, int64_t max,
                   int64_t *out, struct err *e);
MUST json_want_bool(const struct json_value *object, const char *key, bool *out, struct err *e);
MUST json_want_object(const struct json_value *object, const char *key,
                      const struct json_value **out, struct err *e);

/* v, called `name` in a failure. Fails: ERR_FORMAT. */
MUST json_as_real(const struct json_value *v, const char *name, double min, double max, double *out,
                  struct err *e);
MUST json_as_int(const struct json_value *v, const char *name, int64_t min, int64_t max,
                 int64_t *out, struct err *e);

/* v, called `name` in a failure, as a list. Fails: ERR_FORMAT; ERR_LIMIT for more than cap items. */
MUST json_as_strings(const struct json_value *v, const char *name, struct json_chars *out,
                     size_t cap, size_t *n, struct err *e);  // one string counts as a list of it
MUST json_as_ints(const struct json_value *v, const char *name, int32_t min, int32_t max,
                  int32_t *out, size_t cap, size_t *n, struct err *e);

#endif
