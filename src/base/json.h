/* json.h - writing JSON (RFC 8259) to a file or into memory, without allocating.
 *
 * The writer places commas and quotes and escapes text; bytes that are not valid UTF-8 become U+FFFD,
 * so that what comes out can always be parsed. Values that JSON lacks (NaN, infinities) become null.
 * Misuse (a value without a key inside an object, too deep a nesting) is a mistake of ours: asserted.
 */
#ifndef BASE_JSON_H
#define BASE_JSON_H

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

#endif
