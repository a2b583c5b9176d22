/* Schemas made up at random, and documents written by walking at random through what their grammars
 * allow: every document that comes to an end is valid under its schema, as a validator of the test's own
 * sees it, which knows nothing of grammars. */
#include "base/json.h"
#include "json_vocab.h"
#include "tap.h"

#include <locale.h>
#include <math.h>
#include <regex.h>
#include <stdlib.h>

enum { TEXT = 1 << 14, STEPS = 1500 };

static struct toy toy;
static struct tok *tok;
static struct lexicon *lex;
static uint64_t seed = 77;

static uint32_t rnd(void) {  // xorshift64*, Vigna 2016
    seed ^= seed >> 12, seed ^= seed << 25, seed ^= seed >> 27;
    return (uint32_t)((seed * 0x2545F4914F6CDD1DULL) >> 32);
}

/* --- the validator --- */

static const struct json_value *root;  // of the schema

static bool valid(const struct json_value *s, const struct json_value *v);

static bool same(const struct json_value *a, const struct json_value *b) {
    char *x, *y;
    size_t n, m;
    struct err e;
    if (!json_print(a, &x, &n, &e) || !json_print(b, &y, &m, &e)) abort();
    bool ok = n == m && !memcmp(x, y, n);
    free(x);
    free(y);
    return ok;
}

static double number(const struct json_value *object, const char *key, double otherwise) {
    struct err e;
    return json_want_real(object, key, -1e300, 1e300, &otherwise, &e) ? otherwise : NAN;
}

static struct json_chars chars(const struct json_value *v) {
    struct json_chars s = {"", 0};
    struct err e;
    size_t n;
    if (json_kind(v) == JSON_STRING && !json_as_strings(v, "", &s, 1, &n, &e)) abort();
    return s;
}

static bool is_type(const char *type, const struct json_value *v) {
    double x = 0;
    struct err e;
    static const char *const name[] = {"null", "boolean", "number", "string", "array", "object"};
    if (strcmp(type, "integer")) return !strcmp(type, name[json_kind(v)]);
    return json_kind(v) == JSON_NUMBER && json_as_real(v, "", -1e300, 1e300, &x, &e) &&
           x == floor(x);
}

static bool valid_type(const struct json_value *s, const struct json_value *v) {
    const struct json_value *type = json_find(s, "type");
    struct json_chars name[8];
    struct err e;
    size_t n;
    if (!type) return true;
    if (!json_as_strings(type, "", name, 8, &n, &e)) abort();
    for (size_t i = 0; i < n; i++) {
        if (is_type(name[i].s, v)) return true;
    }
    return false;
}

static bool valid_number(const struct json_value *s, const struct json_value *v) {
    double x = 0;
    struct err e;
    if (json_kind(v) != JSON_NUMBER) return true;
    if (!json_as_real(v, "", -1e300, 1e300, &x, &e)) return false;
    return x >= number(s, "minimum", -1e300) && x <= number(s, "maximum", 1e300) &&
           x > number(s, "exclusiveMinimum", -1e301) && x < number(s, "exclusiveMaximum", 1e301);
}

static bool matches(const char *pattern, const char *text) {
    regex_t re;
    if (regcomp(&re, pattern, REG_EXTENDED | REG_NOSUB)) abort();
    bool ok = !regexec(&re, text, 0, NULL, 0);
    regfree(&re);
    return ok;
}

static bool valid_string(const struct json_value *s, const struct json_value *v) {
    if (json_kind(v) != JSON_STRING) return true;
    struct json_chars text = chars(v), format = chars(json_find(s, "format"));
    struct json_chars pattern = chars(json_find(s, "pattern"));
    double n = 0;
    for (size_t i = 0; i < text.len; i++) n += (text.s[i] & 0xc0) != 0x80;
    if (n < number(s, "minLength", 0) || n > number(s, "maxLength", 1e9)) return false;
    /* regexec() would not see what comes after a NUL. */
    bool is_seen = strlen(text.s) == text.len;
    if (pattern.len && is_seen && !matches(pattern.s, text.s)) return false;
    if (!format.len || !strcmp(format.s, "uri")) return true;
    return matches(!strcmp(format.s, "date")
                       ? "^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])$"
                       : "^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$",
                   text.s);
}

static bool valid_array(const struct json_value *s, const struct json_value *v) {
    const struct json_value *first = json_find(s, "prefixItems"), *items = json_member(s, "items");
    double n = (double)json_size(v);
    if (json_kind(v) != JSON_ARRAY) return true;
    if (n < number(s, "minItems", 0) || n > number(s, "maxItems", 1e9)) return false;
    for (size_t i = 0; i < json_size(v); i++) {
        const struct json_value *by = i < json_size(first) ? json_item(first, i) : items;
        if (by && !valid(by, json_item(v, i))) return false;
    }
    return true;
}

static bool valid_object(const struct json_value *s, const struct json_value *v) {
    const struct json_value *props = json_find(s, "properties"), *list = json_find(s, "required");
    const struct json_value *more = json_member(s, "additionalProperties"), *member;
    struct json_iter at;
    struct json_chars key;
    if (json_kind(v) != JSON_OBJECT) return true;
    for (size_t i = 0; i < json_size(list); i++) {
        if (!json_member(v, chars(json_item(list, i)).s)) return false;
    }
    json_members(&at, v);
    while (json_next(&at, &key, &member)) {
        const struct json_value *by = json_member(props, key.s);
        if (!by) by = more;
        if (by && !valid(by, member)) return false;
    }
    return true;
}

static bool valid_among(const struct json_value *s, const char *key, const struct json_value *v) {
    const struct json_value *list = json_find(s, key);
    for (size_t i = 0; i < json_size(list); i++) {
        if (valid(json_item(list, i), v)) return true;
    }
    return !list;
}

static bool valid_by_all(const struct json_value *s, const struct json_value *v) {
    const struct json_value *list = json_find(s, "allOf");
    for (size_t i = 0; i < json_size(list); i++) {
        if (!valid(json_item(list, i), v)) return false;
    }
    return true;
}

static bool valid(const struct json_value *s, const struct json_value *v) {
    struct json_chars ref = chars(json_find(s, "$ref"));
    const struct json_value *list = json_find(s, "enum"), *constant = json_member(s, "const");
    if (json_kind(s) == JSON_BOOL) return json_is_true(s);
    if (ref.len && !valid(json_find(json_find(root, "$defs"), ref.s + strlen("#/$defs/")), v))
        return false;
    bool is_in = !list;
    for (size_t i = 0; i < json_size(list); i++) is_in |= same(json_item(list, i), v);
    if (!is_in || (constant && !same(constant, v))) return false;
    return valid_type(s, v) && valid_number(s, v) && valid_string(s, v) && valid_array(s, v) &&
           valid_object(s, v) && valid_among(s, "anyOf", v) && valid_among(s, "oneOf", v) &&
           valid_by_all(s, v);
}

/* --- schemas at random --- */

static void put_schema(struct json *j, int depth);

static void put_named(struct json *j, const char *key, int depth) {
    json_key(j, key);
    put_schema(j, depth);
}

/* Every second one a whole number. */
static void put_bound(struct json *j, const char *key, double x) {
    json_key(j, key);
    if (rnd() % 2)
        json_i64(j, (int64_t)x);
    else
        json_real(j, x);
}

static void put_number(struct json *j) {
    double step = rnd() % 2 ? 1000 : 8, from = (rnd() % 4000) / step - rnd() % 250;
    json_put_text(j, "type", rnd() % 2 ? "integer" : "number");
    put_bound(j, rnd() % 2 ? "minimum" : "exclusiveMinimum", from);
    if (rnd() % 2) return;
    put_bound(j, rnd() % 2 ? "maximum" : "exclusiveMaximum", from + 3 + rnd() % 300 / step);
}

/* A format that is not known, beside a length. */
static void put_note(struct json *j) {
    if (rnd() % 2) return;
    json_put_text(j, "format", "uri");
    json_put_u64(j, "maxLength", 5);
}

static void put_string(struct json *j) {
    static const char *const pattern[] = {"^[a-c]{2,4}x?$", "^(ab|[0-9]+-)*$", "b.a", "^\"?[^a-z]$",
                                          "^x|b$|^[0-9]{2}$"};
    uint32_t least = rnd() % 4;
    json_put_text(j, "type", "string");
    switch (rnd() % 4) {
    case 0: json_put_text(j, "pattern", pattern[rnd() % 5]); break;
    case 1: json_put_text(j, "format", rnd() % 2 ? "date" : "uuid"); break;
    case 2:
        json_put_u64(j, "minLength", least);
        json_put_u64(j, "maxLength", least + rnd() % 5);
        break;
    default: put_note(j); break;
    }
}

static void put_array(struct json *j, int depth) {
    uint32_t least = rnd() % 3, n = rnd() % 3;
    json_put_text(j, "type", "array");
    if (rnd() % 3 == 0) {
        json_key(j, "prefixItems");
        json_array(j);
        for (uint32_t i = 0; i < n; i++) put_schema(j, depth + 1);
        json_end(j);
    }
    put_named(j, "items", depth + 1);
    json_put_u64(j, "minItems", least);
    if (rnd() % 3) json_put_u64(j, "maxItems", least + rnd() % 4);
}

static void put_object(struct json *j, int depth) {
    static const char *const name[] = {"a", "ab", "name", "na\"me", "世", "x\\", ""};
    uint32_t from = rnd() % 7, n = rnd() % 5;
    json_put_text(j, "type", "object");
    json_key(j, "properties");
    json_object(j);
    for (uint32_t i = 0; i < n; i++) put_named(j, name[(from + i) % 7], depth + 1);
    json_end(j);
    json_key(j, "required");
    json_array(j);
    for (uint32_t i = 0; i < n; i++) {
        if (rnd() % 2) json_text(j, name[(from + i) % 7]);
    }
    json_end(j);
    if (rnd() % 3 == 0)
        json_put_bool(j, "additionalProperties", false);
    else if (rnd() % 2)
        put_named(j, "additionalProperties", depth + 1);
}

static void put_values(struct json *j) {
    json_key(j, "enum");
    json_array(j);
    json_text(j, "a\n\"");
    json_i64(j, -17);
    json_null(j);
    json_array(j);
    json_bool(j, true);
    json_end(j);
    json_end(j);
}

static void put_any_of(struct json *j, int depth) {
    json_key(j, rnd() % 2 ? "anyOf" : "oneOf");
    json_array(j);
    for (uint32_t i = rnd() % 3 + 1; i; i--) put_schema(j, depth + 1);
    json_end(j);
}

static void put_list(struct json *j, const char *key) {
    json_key(j, key);
    json_array(j);
}

static void put_values_of(struct json *j, uint32_t from) {
    json_object(j);
    put_list(j, "enum");
    for (uint32_t i = from; i < from + 4; i++) {
        if (i % 3) json_i64(j, i);
        if (i % 3 == 0) json_text(j, i % 2 ? "a" : "b");
    }
    json_end(j);
    json_end(j);
}

/* An object that is joined: its own properties, one of several ways, and what else it must have. */
static void put_joined_object(struct json *j, int depth) {
    static const char *const name[] = {"p", "q", "r", "s"};
    bool is_open = rnd() % 4 == 0;
    if (rnd() % 2) json_put_text(j, "type", "object");
    if (is_open) put_named(j, "additionalProperties", depth + 3);
    json_key(j, "properties");
    json_object(j);
    for (uint32_t i = 0; i < 2; i++) put_named(j, name[i], depth + 1);
    json_end(j);
    put_list(j, "allOf");
    for (uint32_t i = 0; i < 2; i++) {
        json_object(j);
        put_list(j, i ? "oneOf" : "anyOf");
        for (uint32_t k = 0; k < 2; k++) {
            json_object(j);
            json_key(j, "properties");
            json_object(j);
            if (k && !is_open) put_named(j, name[2 + i], depth + 3);
            json_end(j);
            put_list(j, "required");
            json_text(j, name[k ? 2 + i : rnd() % 4]);
            json_end(j);
            json_end(j);
        }
        json_end(j);
        json_end(j);
    }
    json_end(j);
}

/* Types beside alternatives, some of which do not fit; lists of which few values are in all. */
static void put_joined(struct json *j, int depth) {
    if (depth <= 2 && rnd() % 2) {
        put_joined_object(j, depth);
    } else if (rnd() % 2) {
        put_list(j, "type");
        json_text(j, rnd() % 2 ? "string" : "integer");
        json_text(j, "null");
        json_end(j);
        put_list(j, "anyOf");
        for (uint32_t i = depth > 3 ? 0 : rnd() % 3; i; i--) put_schema(j, depth + 1);
        json_object(j);
        put_string(j);
        json_end(j);
        json_object(j);
        put_number(j);
        json_end(j);
        json_end(j);
    } else {
        put_list(j, "allOf");
        for (uint32_t i = 0; i < 3; i++) put_values_of(j, rnd() % 3);
        json_end(j);
    }
}

static void put_schema(struct json *j, int depth) {
    json_object(j);
    switch (rnd() % (depth > 3 ? 6 : 11)) {
    case 0: json_put_text(j, "type", "boolean"); break;
    case 1: put_number(j); break;
    case 2: put_string(j); break;
    case 3: put_values(j); break;
    case 4: json_put_text(j, "type", "null"); break;
    case 5: put_joined(j, depth); break;
    case 6: put_any_of(j, depth); break;
    case 7: json_put_text(j, "$ref", "#/$defs/tree"); break;
    case 8: put_array(j, depth); break;
    default: put_object(j, depth); break;
    }
    json_end(j);
}

static void invent(char *text) {
    struct json j;
    json_mem(&j, text, TEXT);
    json_object(&j);
    json_key(&j, "$defs");
    json_object(&j);
    json_key(&j, "tree");
    json_object(&j);
    json_put_text(&j, "type", "object");
    json_key(&j, "properties");
    json_object(&j);
    json_key(&j, "left");
    json_object(&j);
    json_put_text(&j, "$ref", "#/$defs/tree");
    json_end(&j);
    put_named(&j, "right", 4);
    json_end(&j);
    json_end(&j);
    json_end(&j);
    if (rnd() % 2)
        put_object(&j, 1);
    else
        put_array(&j, 1);
    json_end(&j);
    if (j.is_full) abort();
}

/* --- documents at random --- */

/* Anything may come, but often what brings a text to its end. */
static int32_t choose(const int32_t *id, size_t n) {
    static const char *const closing[] = {"\"", "}", "]", "\"}", "}]"};
    for (size_t i = 0; i < n; i++) {
        if (tok_is_end(tok, id[i]) && rnd() % 2) return id[i];
    }
    for (int tries = 0; tries < 4; tries++) {
        const char *want = closing[rnd() % 5], *piece;
        for (size_t i = 0; i < n; i++) {
            size_t len = tok_piece(tok, id[i], false, &piece);
            if (len == strlen(want) && !memcmp(piece, want, len) && rnd() % 3) return id[i];
        }
    }
    return id[rnd() % n];
}

/* A document into text [TEXT]; false: it did not come to an end. */
static bool write_document(struct grammar_run *r, char *text, bool *is_stuck) {
    static int32_t id[STEPS], allowed[TOY_TOKENS];
    size_t len = 0;
    struct err e;
    for (size_t n = 0; n < STEPS; n++) {
        const char *piece;
        if (!grammar_run_sync(r, id, n, &e)) abort();
        size_t n_allowed = grammar_allowed(r, allowed, TOY_TOKENS);
        *is_stuck = n_allowed == 0;
        if (*is_stuck) return false;
        id[n] = choose(allowed, n_allowed);
        text[len] = '\0';
        if (tok_is_end(tok, id[n])) return true;
        size_t more = tok_piece(tok, id[n], false, &piece);
        if (len + more >= TEXT) return false;
        memcpy(text + len, piece, more);
        len += more;
    }
    return false;
}

/* Of one schema some documents: -1: a wrong one, else how many ended. */
static int try_schema(const char *schema, struct grammar_run *r, const struct json_doc *s) {
    static char text[TEXT];
    int ended = 0;
    for (int i = 0; i < 4; i++) {
        struct json_doc *doc;
        struct err e;
        bool is_stuck = false;
        if (!write_document(r, text, &is_stuck)) {
            if (!is_stuck) continue;
            printf("# no way on: %s\n# schema: %s\n", text, schema);
            return -1;
        }
        root = json_root(s);
        bool is_json = json_read(&doc, text, strlen(text), TEXT, &e);
        bool ok = is_json && valid(root, json_root(doc));
        json_free(doc);
        if (!ok) {
            printf("# %s: %s\n# schema: %s\n", is_json ? "not valid" : e.text, text, schema);
            return -1;
        }
        ended++;
    }
    return ended;
}

int main(void) {
    static char schema[TEXT];
    int wrong = 0, taken = 0, ended = 0, n = 400;
    if (!setlocale(LC_CTYPE, "C.UTF-8") || !json_lexicon(&toy, &tok, &lex)) return 1;
    for (int i = 0; i < n; i++) {
        struct grammar *g;
        struct grammar_run *r;
        struct json_doc *s;
        struct err e;
        invent(schema);
        if (!grammar_open(&g, GRAMMAR_SCHEMA, schema, strlen(schema), &e)) {
            bool is_fair =
                strstr(e.text, "no text that it allows") || strstr(e.text, "begins with itself");
            if (!is_fair) printf("# %s: %s\n", e.text, schema), wrong++;
            continue;
        }
        if (!grammar_run_open(&r, g, lex, &e) || !json_read(&s, schema, strlen(schema), TEXT, &e))
            abort();
        int how = try_schema(schema, r, s);
        wrong += how < 0;
        ended += how > 0 ? how : 0;
        taken++;
        json_free(s);
        grammar_run_close(r);
        grammar_close(g);
    }
    tap_ok(!wrong, "%d documents of %d schemas are valid; wrong: %d", ended, taken, wrong);
    tap_ok(taken > n * 2 / 3 && ended > taken * 2, "most schemas are taken, most documents end");
    lexicon_close(lex);
    tok_close(tok);
    return tap_done();
}
