/* schema.c - a JSON schema to trees of rules whose texts are documents valid under it.
 *
 * Properties come in the order of the schema; what it does not name comes after them, where it allows
 * such at all by saying so. Sound, not complete: every document that can be written is valid, but for what
 * is taken and not enforced (schema_is_noted); not every valid one can be written (an object with named
 * properties has no others unless additionalProperties says so; oneOf is taken as anyOf, so that no
 * document may fit two is the author's to see). Other keywords that are not understood are refused by
 * name, as an answer that ignores them would be wrong. White space: none, a blank, or a new line and up
 * to 20 blanks or tabs, where people put some. */
#include "model/schema_own.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- sentences --- */

MUST schema_refuse(const struct schema *r, enum err_code code, const char *what, struct err *e) {
    return err_set(e, code, "schema at %s: %s", *r->path ? r->path : "its root", what);
}

MUST schema_refuse_key(const struct schema *r, enum err_code code, struct json_chars key,
                       const char *what, struct err *e) {
    return err_set(e, code, "schema at %s: \"%.*s\" %s", *r->path ? r->path : "its root",
                   (int)(key.len < 40 ? key.len : 40), key.s, what);
}

/* One step down; the length before it, to come back to. */
static size_t enter(struct schema *r, const char *name, size_t len) {
    size_t n = strlen(r->path);
    snprintf(r->path + n, sizeof r->path - n, "/%.*s", (int)(len < 60 ? len : 60), name);
    return n;
}

MUST schema_visit_at(struct schema *r, const char *name, size_t len, const struct json_value *v,
                     uint32_t *out, struct err *e) {
    size_t n = enter(r, name, len);
    bool ok = schema_visit(r, v, out, e);
    if (ok) r->path[n] = '\0';
    return ok;
}

/* --- keywords --- */

/* What a schema may have beside: notes to the reader, and what others refer to. */
static bool is_note(const char *key) {
    static const char *const note[] = {"title",      "description", "default",  "examples",
                                       "$schema",    "$id",         "$comment", "$anchor",
                                       "deprecated", "readOnly",    "$defs",    "definitions",
                                       "writeOnly",  "example",     "strict",   "discriminator"};
    for (size_t i = 0; i < sizeof note / sizeof *note; i++) {
        if (!strcmp(note[i], key)) return true;
    }
    return false;
}

static bool is_in(const char *key, const char *const *list) {
    for (; *list; list++) {
        if (!strcmp(*list, key)) return true;
    }
    return false;
}

/* A name that is none is not shown: it goes to a terminal. */
static void add_note(struct schema *r, const char *what, struct json_chars name) {
    enum { SHOWN = 32 };
    static const char plain[] = "abcdefghijklmnopqrstuvwxyz-0123456789";
    bool is_shown = name.len && name.len < SHOWN && strspn(name.s, plain) == name.len;
    char text[64];
    size_t len = strlen(r->note);
    snprintf(text, sizeof text, "%s%s%s", what, is_shown ? " " : "", is_shown ? name.s : "");
    if (strstr(r->note, text) || len + strlen(text) + 3 > sizeof r->note) return;
    snprintf(r->note + len, sizeof r->note - len, "%s%s", len ? ", " : "", text);
}

bool schema_is_noted(const char *key, const struct json_value *value) {
    struct json_chars name;
    if (!strcmp(key, "uniqueItems")) return json_kind(value) == JSON_BOOL;
    if (strcmp(key, "format") != 0 || !json_chars_of(value, &name)) return false;
    return !schema_knows_format(name.s, name.len);
}

MUST schema_take_notes(struct schema *r, const struct json_value *v, bool strings, bool lists,
                       struct err *e) {
    struct json_chars format = {NULL, 0}, none = {NULL, 0};
    bool is_unique = false;
    if (strings && !json_want_chars(v, "format", &format, e)) return err_in(e, "schema");
    if (lists && !json_want_bool(v, "uniqueItems", &is_unique, e)) return err_in(e, "schema");
    bool is_enforced = schema_knows_format(format.s, format.len) && !json_find(v, "pattern");
    if (format.s && !is_enforced) add_note(r, "format", format);
    if (is_unique) add_note(r, "uniqueItems", none);
    return true;
}

MUST schema_check_keys(struct schema *r, const struct json_value *v, const char *const *list,
                       const char *what, struct err *e) {
    struct json_iter at;
    struct json_chars key;
    const struct json_value *value;
    json_members(&at, v);
    while (json_next(&at, &key, &value)) {
        bool is_false = json_kind(value) == JSON_BOOL && !json_is_true(value);
        if (is_note(key.s) || is_in(key.s, list) || schema_is_noted(key.s, value)) continue;
        if (is_false && !strcmp(key.s, "unevaluatedProperties")) continue;
        return schema_refuse_key(r, ERR_UNSUPPORTED, key, what, e);
    }
    return true;
}

MUST schema_list(struct schema *r, const struct json_value *v, const char *key,
                 const struct json_value **out, struct err *e) {
    *out = json_find(v, key);
    if (!*out || json_kind(*out) == JSON_ARRAY) return true;
    struct json_chars name = {key, strlen(key)};
    return schema_refuse_key(r, ERR_FORMAT, name, "must be a list", e);
}

static MUST want_count(const struct json_value *v, const char *key, int32_t *out, struct err *e) {
    int64_t n = *out;
    if (!json_want_int(v, key, 0, INT64_MAX, &n, e)) return false;
    *out = n > GREPEAT_MAX ? GREPEAT_MAX : (int32_t)n;
    return true;
}

MUST schema_counts(struct schema *r, const struct json_value *v, const char *min, const char *max,
                   int32_t *from, int32_t *to, struct err *e) {
    int64_t least = 0;
    *from = 0;
    *to = GREPEAT_ANY;
    if (!json_want_int(v, min, 0, INT64_MAX, &least, e) || !want_count(v, max, to, e)) {
        return err_in(e, "schema");
    }
    if (least > GREPEAT_MAX)
        return schema_refuse(r, ERR_LIMIT, "more than 10000 are wanted at least", e);
    *from = (int32_t)least;
    return true;
}

/* --- strings and numbers --- */

MUST schema_string(struct schema *r, const struct json_value *v, uint32_t *out, struct err *e) {
    int32_t from, to;
    struct json_chars pattern = {NULL, 0}, format = {NULL, 0};
    if (!schema_counts(r, v, "minLength", "maxLength", &from, &to, e)) return false;
    if (!json_want_chars(v, "pattern", &pattern, e) || !json_want_chars(v, "format", &format, e)) {
        return err_in(e, "schema");
    }
    bool has_counts = from || to >= 0;
    bool is_form = format.s && !pattern.s;  // beside a pattern a format is noted only
    uint32_t form = is_form ? schema_format(&r->tree, format.s, format.len) : 0;
    if (has_counts && (pattern.s || form)) {
        return schema_refuse(r, ERR_UNSUPPORTED,
                             "a length cannot stand beside \"pattern\" or \"format\" here; "
                             "leave it out, or write it into the pattern as {2,5}",
                             e);
    }
    if (pattern.s) {
        schema_common(r, RULE_CHARACTER);
        if (!schema_pattern(&r->tree, pattern.s, pattern.len, r->common[RULE_CHARACTER], out, e)) {
            return err_in(e, "schema");
        }
    } else if (form) {
        *out = form;
    } else if (!has_counts) {
        *out = schema_common(r, RULE_STRING);
        return true;
    } else {
        if (to >= 0 && from > to)
            *out = gtree_never(&r->tree);
        else
            *out = gtree_repeat(&r->tree, schema_common(r, RULE_CHARACTER), (uint32_t)from, to);
    }
    *out = schema_quoted(r, *out);
    return true;
}

/* A bound with a fraction, by as few digits as tell it from other numbers: as the schema has it, most likely. Where
 * there are not enough digits, the nearest number that has takes its place. */
static void split(struct bound *b, int side) {
    char text[48];
    double size = fabs(b->x), seen = 0;
    for (int n = 1; n <= FRACTION_DIGITS && seen != size; n++) {
        snprintf(text, sizeof text, "%.*f", n, size);
        seen = strtod(text, NULL);
    }
    char *point = strchr(text, '.');
    size_t len = strlen(point + 1);
    while (len && point[len] == '0') len--;
    memcpy(b->rest, point + 1, len);
    b->rest[len] = '\0';
    b->whole = strtoll(text, NULL, 10);
    bool is_least = (side < 0) != (b->x < 0);  // of all sizes
    if (seen != size) b->is_out = is_least == (seen < size);
}

/* side: -1 for the least, 1 for the most. */
static MUST read_bound(const struct json_value *v, const char *key, int side, bool is_out,
                       struct bound *out, struct err *e) {
    const struct json_value *b = json_find(v, key);
    struct err ignored;
    *out = (struct bound){.is_there = b != NULL, .is_whole = true, .is_out = is_out};
    if (!b) return true;
    if (json_as_int(b, key, INT64_MIN, INT64_MAX, &out->at, &ignored)) {
        out->x = (double)out->at;
    } else {
        if (!json_as_real(b, key, -1e300, 1e300, &out->x, e)) return err_in(e, "schema");
        double to = side < 0 ? ceil(out->x) : floor(out->x);
        out->is_whole = to == out->x;
        out->at = to > (double)NUMBER_MOST    ? INT64_MAX
                  : to < -(double)NUMBER_MOST ? INT64_MIN
                                              : (int64_t)to;
    }
    out->whole = out->at > NUMBER_MOST || out->at < -NUMBER_MOST ? NUMBER_MOST : llabs(out->at);
    if (!out->is_whole) split(out, side);
    return true;
}

/* Whether `a` leaves less than b. Two that round to the same whole number: itself, then by size. */
static bool is_tighter(const struct bound *a, const struct bound *b, int side) {
    if (!a->is_there || !b->is_there) return a->is_there;
    if (a->at != b->at) return side < 0 ? a->at > b->at : a->at < b->at;
    if (a->is_whole || b->is_whole) return a->is_whole && (a->is_out || !b->is_whole);
    return side < 0 ? a->x > b->x : a->x < b->x;
}

static MUST read_side(const struct json_value *v, const char *key, const char *exclusive, int side,
                      struct bound *out, struct err *e) {
    const struct bound none = {.at = side * NUMBER_MOST,
                               .x = side * (double)NUMBER_MOST,
                               .whole = NUMBER_MOST,
                               .is_whole = true};
    struct bound other;
    if (!read_bound(v, key, side, false, out, e)) return false;
    if (!read_bound(v, exclusive, side, true, &other, e)) return false;
    if (is_tighter(&other, out, side)) *out = other;
    if (!out->is_there) *out = none;
    return true;
}

static MUST nothing_between(const struct schema *r, const char *what, struct err *e) {
    char text[80];
    snprintf(text, sizeof text, "no %s lies between its bounds; change one of them", what);
    return schema_refuse(r, ERR_UNSUPPORTED, text, e);
}

MUST schema_bounded(struct schema *r, const struct json_value *v, bool is_integer, uint32_t *out,
                    struct err *e) {
    struct bounds b;
    if (!read_side(v, "minimum", "exclusiveMinimum", -1, &b.from, e) ||
        !read_side(v, "maximum", "exclusiveMaximum", 1, &b.to, e)) {
        return false;
    }
    int64_t from = b.from.at, to = b.to.at;
    if (is_integer) {
        if (b.from.is_out && b.from.is_whole && from < INT64_MAX) from++;
        if (b.to.is_out && b.to.is_whole && to > INT64_MIN) to--;
        if (from > to) return nothing_between(r, "whole number", e);
        *out = schema_integer(&r->tree, from, to);
    } else if (!b.from.is_there && !b.to.is_there) {
        *out = schema_any_number(r);
    } else {
        bool is_one = b.from.x == b.to.x && (!b.from.is_whole || from == to);
        if (b.from.x > b.to.x || (is_one && (b.from.is_out || b.to.is_out))) {
            return nothing_between(r, "number", e);
        }
        bool is_past = from > NUMBER_MOST || to < -NUMBER_MOST;
        *out = is_past ? gtree_never(&r->tree) : schema_number(&r->tree, &b);
    }
    return true;
}

/* --- kinds of schemas --- */

/* One way or another, each a schema of its own. */
static MUST visit_any_of(struct schema *r, const struct json_value *v, const char *key,
                         uint32_t *out, struct err *e) {
    const struct json_value *list, *way;
    struct json_iter at;
    if (!schema_list(r, v, key, &list, e)) return false;
    *out = gtree_list(&r->tree, GNODE_ALT);
    json_members(&at, list);
    while (json_next(&at, NULL, &way)) {
        uint32_t one;
        if (!schema_visit_at(r, key, strlen(key), way, &one, e)) return false;
        gtree_add(&r->tree, *out, one);
    }
    return true;
}

/* Where v has "nullable", null as well. */
static MUST add_null(struct schema *r, const struct json_value *v, uint32_t *out, struct err *e) {
    bool nullable = false;
    uint32_t other = *out;
    if (!json_want_bool(v, "nullable", &nullable, e)) return err_in(e, "schema");
    if (!nullable) return true;
    *out = gtree_list(&r->tree, GNODE_ALT);
    gtree_add(&r->tree, *out, other);
    gtree_add(&r->tree, *out, schema_text(r, "null"));
    return true;
}

/* Of "/a/b~1c" the part from `at` to the next slash, unescaped; false: too long. */
static bool next_part(struct json_chars ref, size_t *at, char *out, size_t cap) {
    size_t n = 0;
    for (++*at; *at < ref.len && ref.s[*at] != '/'; ++*at) {
        char c = ref.s[*at];
        if (c == '~' && *at + 1 < ref.len) c = ref.s[++*at] == '1' ? '/' : '~';
        if (n + 1 == cap) return false;
        out[n++] = c;
    }
    out[n] = '\0';
    return true;
}

const struct json_value *schema_target(const struct schema *r, struct json_chars ref) {
    const struct json_value *v = r->root;
    char part[128];
    if (!ref.len || ref.s[0] != '#' || (ref.len > 1 && ref.s[1] != '/')) return NULL;
    for (size_t at = 1; at < ref.len && v;) {
        if (!next_part(ref, &at, part, sizeof part)) return NULL;
        if (json_kind(v) == JSON_OBJECT) {
            v = json_find(v, part);
        } else if (json_kind(v) == JSON_ARRAY && *part &&
                   strspn(part, "0123456789") == strlen(part)) {
            v = json_item(v, strtoul(part, NULL, 10));
        } else {
            v = NULL;
        }
    }
    return v;
}

/* A rule for each place that is referred to; it is read when all others are, so that schemas may go in
 * circles. */
static MUST visit_ref(struct schema *r, struct json_chars ref, uint32_t *out, struct err *e) {
    const struct json_value *to = schema_target(r, ref);
    if (!to)
        return schema_refuse_key(r, ERR_FORMAT, ref, "leads nowhere; only #/.. is supported here",
                                 e);
    unsigned i = 0;
    while (i < r->n_ref && r->ref[i].to != to) i++;
    if (i == SCHEMA_REFS)
        return schema_refuse(r, ERR_LIMIT, "more than 512 places are referred to", e);
    if (i == r->n_ref) r->ref[r->n_ref++] = (struct schema_ref){to, gtree_rule(&r->tree)};
    *out = gtree_call(&r->tree, r->ref[i].rule);
    return true;
}

/* Beside notes it has this key alone, or also the other. */
static bool has_only(const struct json_value *v, const char *key, const char *other) {
    struct json_iter at;
    struct json_chars name;
    const struct json_value *value;
    if (!json_find(v, key)) return false;
    json_members(&at, v);
    while (json_next(&at, &name, &value)) {
        if (strcmp(name.s, key) && strcmp(name.s, other) && !is_note(name.s)) return false;
    }
    return true;
}

/* allOf of one schema is that schema, whatever it is. */
static bool is_all_of_one(const struct json_value *v) {
    const struct json_value *list = json_find(v, "allOf");
    return json_kind(list) == JSON_ARRAY && json_size(list) == 1 &&
           has_only(v, "allOf", "nullable");
}

MUST schema_visit(struct schema *r, const struct json_value *v, uint32_t *out, struct err *e) {
    struct json_chars ref = {NULL, 0};
    bool ok = true;
    if (++r->nest > GRAMMAR_NEST) return schema_refuse(r, ERR_LIMIT, "it nests too deeply", e);
    if (json_kind(v) == JSON_BOOL) {
        *out = json_is_true(v) ? schema_common(r, RULE_ANY) : gtree_never(&r->tree);
    } else if (json_kind(v) != JSON_OBJECT) {
        return schema_refuse(r, ERR_FORMAT, "a schema must be an object, true or false", e);
    } else if (!json_want_chars(v, "$ref", &ref, e)) {
        return err_in(e, "schema");
    } else if (has_only(v, "$ref", "nullable")) {
        ok = visit_ref(r, ref, out, e) && add_null(r, v, out, e);
    } else if (is_all_of_one(v)) {
        ok = visit_any_of(r, v, "allOf", out, e) && add_null(r, v, out, e);
    } else if (has_only(v, "anyOf", "nullable")) {
        ok = visit_any_of(r, v, "anyOf", out, e) && add_null(r, v, out, e);
    } else if (has_only(v, "oneOf", "nullable")) {
        ok = visit_any_of(r, v, "oneOf", out, e) && add_null(r, v, out, e);
    } else {
        ok = schema_join(r, v, out, e);
    }
    r->nest--;
    return ok;
}

static MUST read_all(struct schema *r, struct err *e) {
    uint32_t body;
    uint32_t root = gtree_rule(&r->tree);
    if (!schema_visit(r, r->root, &body, e)) return false;
    gtree_define(&r->tree, root, body);
    for (; r->n_read < r->n_ref && !r->tree.is_full; r->n_read++) {
        snprintf(r->path, sizeof r->path, "a $ref");
        if (!schema_visit(r, r->ref[r->n_read].to, &body, e)) return false;
        gtree_define(&r->tree, r->ref[r->n_read].rule, body);
    }
    return true;
}

static const char *name_of(const void *ctx, uint32_t rule) {
    (void)ctx, (void)rule;
    return "$ref";
}

static MUST read_document(const struct json_value *root, struct grammar **g, struct err *e) {
    struct schema *r = calloc(1, sizeof *r);
    if (!r) return err_set(e, ERR_MEMORY, "no memory for a schema");
    r->root = root;
    gtree_init(&r->tree);
    bool ok = read_all(r, e);
    if (ok && !grammar_compile(g, &r->tree, name_of, NULL, e)) ok = err_in(e, "schema");
    if (ok && *r->note) {
        snprintf((*g)->note, sizeof(*g)->note, "the schema asks for %s: not enforced", r->note);
    }
    gtree_free(&r->tree);
    free(r);
    return ok;
}

MUST schema_read(struct grammar **g, const char *text, size_t len, struct err *e) {
    struct json_doc *doc;
    if (!json_read(&doc, text, len, GRAMMAR_TEXT, e)) return err_in(e, "schema");
    bool ok = read_document(json_root(doc), g, e);
    json_free(doc);
    return ok;
}
