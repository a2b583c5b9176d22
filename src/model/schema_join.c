/* schema_join.c - schemas that are to hold at once, and the types and values that they have in common.
 *
 * A schema, what its $ref leads to and the parts of its allOf are laid side by side; each way through the
 * anyOf and oneOf among them is an alternative. Of one type the parts may say things in one place only,
 * but objects, whose properties are joined, and lists of values, of which those in all are taken. */
#include "model/schema_own.h"

#include <stdlib.h>
#include <string.h>

enum type { T_NULL, T_BOOL, T_INTEGER, T_NUMBER, T_STRING, T_ARRAY, T_OBJECT, N_TYPE };

static const char *const type_name[N_TYPE] = {"null",   "boolean", "integer", "number",
                                              "string", "array",   "object"};

static const struct {
    const char *key;
    enum type type;
} about[] = {{"properties", T_OBJECT},
             {"required", T_OBJECT},
             {"additionalProperties", T_OBJECT},
             {"items", T_ARRAY},
             {"prefixItems", T_ARRAY},
             {"minItems", T_ARRAY},
             {"maxItems", T_ARRAY},
             {"uniqueItems", T_ARRAY},
             {"pattern", T_STRING},
             {"format", T_STRING},
             {"minLength", T_STRING},
             {"maxLength", T_STRING},
             {"minimum", T_NUMBER},
             {"maximum", T_NUMBER},
             {"exclusiveMinimum", T_NUMBER},
             {"exclusiveMaximum", T_NUMBER}};

enum { N_ABOUT = sizeof about / sizeof *about, REF_STEPS = 64 };

/* Ways multiply: all that a way costs is counted, keys that are looked through above all. */
static MUST charge(struct schema *r, size_t n, struct err *e) {
    if (n > SCHEMA_STEPS - r->n_step)
        return schema_refuse(r, ERR_LIMIT, "\"allOf\" and \"anyOf\" join too much", e);
    r->n_step += (uint32_t)n;
    return true;
}

/* --- types --- */

static MUST read_type(struct schema *r, struct json_chars name, bool *has, struct err *e) {
    for (unsigned i = 0; i < N_TYPE; i++) {
        if (strlen(type_name[i]) != name.len || memcmp(type_name[i], name.s, name.len)) continue;
        has[i] = true;
        return true;
    }
    return schema_refuse_key(r, ERR_FORMAT, name, "is no \"type\"", e);
}

/* The types that a part names, or those that its other keywords are about; none: it says nothing of them. */
static MUST read_types(struct schema *r, const struct json_value *v, bool *has, unsigned *n_has,
                       struct err *e) {
    const struct json_value *type = json_find(v, "type");
    struct json_chars name[N_TYPE];
    size_t n = 0;
    bool nullable = false;
    memset(has, 0, N_TYPE * sizeof *has);
    if (!json_want_bool(v, "nullable", &nullable, e)) return err_in(e, "schema");
    if (type && !json_as_strings(type, "type", name, N_TYPE, &n, e)) return err_in(e, "schema");
    for (size_t i = 0; i < n; i++) {
        if (!read_type(r, name[i], has, e)) return false;
    }
    for (size_t i = 0; !n && i < N_ABOUT; i++) {
        has[about[i].type] |= json_find(v, about[i].key) != NULL;
    }
    *n_has = 0;
    for (unsigned i = 0; i < N_TYPE; i++) *n_has += has[i];
    if (!*n_has) return true;
    has[T_NULL] |= nullable;
    has[T_INTEGER] |= has[T_NUMBER];
    return true;
}

/* Those that all parts allow; is_any: none of them says anything. */
static MUST common_types(struct schema *r, const struct joined *j, bool *has, bool *is_any,
                         struct err *e) {
    for (unsigned t = 0; t < N_TYPE; t++) has[t] = true;
    *is_any = true;
    for (unsigned i = 0; i < j->n; i++) {
        bool one[N_TYPE];
        unsigned n = 0;
        if (!charge(r, 1 + json_size(j->part[i]), e)) return false;
        if (!read_types(r, j->part[i], one, &n, e)) return false;
        for (unsigned t = 0; n && t < N_TYPE; t++) has[t] &= one[t];
        *is_any &= !n;
    }
    return true;
}

/* The part that says something about the type which is enforced, else any; NULL: there are several. */
static const struct json_value *part_about(const struct joined *j, enum type type) {
    const struct json_value *found = NULL;
    enum type about_type = type == T_INTEGER ? T_NUMBER : type;
    for (unsigned i = 0; i < j->n; i++) {
        for (unsigned k = 0; k < N_ABOUT; k++) {
            if (about[k].type != about_type) continue;
            const struct json_value *value = json_find(j->part[i], about[k].key);
            if (!value || schema_is_noted(about[k].key, value)) continue;
            if (found && found != j->part[i]) return NULL;
            found = j->part[i];
        }
    }
    return found ? found : j->part[0];
}

static MUST visit_type(struct schema *r, const struct joined *j, enum type type, uint32_t *out,
                       struct err *e) {
    const struct json_value *v = part_about(j, type);
    if (!v && type != T_OBJECT) {
        return schema_refuse(r, ERR_UNSUPPORTED,
                             "\"allOf\" and \"anyOf\" can only join objects and values here; of "
                             "other types one part alone can say more than the type",
                             e);
    }
    switch (type) {
    case T_NULL: *out = schema_text(r, "null"); return true;
    case T_BOOL:
        *out = schema_either(r, schema_text(r, "true"), schema_text(r, "false"));
        return true;
    case T_INTEGER: return schema_bounded(r, v, true, out, e);
    case T_NUMBER: return schema_bounded(r, v, false, out, e);
    case T_STRING: return schema_string(r, v, out, e);
    case T_ARRAY: return schema_array(r, v, out, e);
    case T_OBJECT: return schema_object(r, j, out, e);
    case N_TYPE: break;
    }
    return true;
}

static MUST add_types(struct schema *r, struct joined *j, const bool *has, bool is_any,
                      uint32_t alt, struct err *e) {
    static const char *const keys[] = {"type",
                                       "nullable",
                                       "properties",
                                       "required",
                                       "additionalProperties",
                                       "allOf",
                                       "anyOf",
                                       "oneOf",
                                       "$ref",
                                       "items",
                                       "minItems",
                                       "maxItems",
                                       "uniqueItems",
                                       "pattern",
                                       "prefixItems",
                                       "format",
                                       "minimum",
                                       "maximum",
                                       "minLength",
                                       "maxLength",
                                       "exclusiveMinimum",
                                       "exclusiveMaximum",
                                       NULL};
    for (unsigned i = 0; i < j->n; i++) {
        if (!schema_check_keys(r, j->part[i], keys, "is not supported here", e)) return false;
    }
    if (is_any) gtree_add(&r->tree, alt, schema_common(r, RULE_ANY));
    j->n_way += is_any;
    for (unsigned t = 0; !is_any && t < N_TYPE; t++) {
        uint32_t one;
        if (!has[t] || (t == T_INTEGER && has[T_NUMBER])) continue;
        if (!visit_type(r, j, (enum type)t, &one, e)) return false;
        gtree_add(&r->tree, alt, one);
        j->n_way++;
    }
    return true;
}

/* --- values --- */

static bool has_type(const struct json_value *v, const bool *has) {
    int64_t n;
    struct err ignored;
    switch (json_kind(v)) {
    case JSON_NULL: return has[T_NULL];
    case JSON_BOOL: return has[T_BOOL];
    case JSON_NUMBER:
        return has[T_NUMBER] ||
               (has[T_INTEGER] && json_as_int(v, "", INT64_MIN, INT64_MAX, &n, &ignored));
    case JSON_STRING: return has[T_STRING];
    case JSON_ARRAY: return has[T_ARRAY];
    case JSON_OBJECT: return has[T_OBJECT];
    }
    return false;
}

static bool has_values(const struct json_value *v) {
    return json_find(v, "enum") || json_member(v, "const");
}

/* Alike as JSON writes them: 1 and 1.0 are not, so that one too few is taken, never one too many. */
static MUST compare(struct schema *r, const struct json_value *a, const char *text, size_t len,
                    bool *is_same, struct err *e) {
    char *s;
    size_t n;
    if (!json_print(a, &s, &n, e)) return false;
    *is_same = n == len && !memcmp(s, text, n);
    free(s);
    return charge(r, n + 1, e);
}

MUST schema_alike(struct schema *r, const struct json_value *a, const struct json_value *b,
                  bool *is_alike, struct err *e) {
    char *s;
    size_t len;
    if (!json_print(a, &s, &len, e)) return false;
    bool ok = charge(r, len + 1, e) && compare(r, b, s, len, is_alike, e);
    free(s);
    return ok;
}

/* Is the value among those of the part, if it names any? One of its own enum is only held to its const. */
static MUST is_listed(struct schema *r, const struct json_value *part, bool is_own,
                      const char *text, size_t len, bool *is_in, struct err *e) {
    const struct json_value *list = is_own ? NULL : json_find(part, "enum"), *v;
    const struct json_value *one = json_member(part, "const");
    struct json_iter at;
    *is_in = !list;
    json_members(&at, list);
    while (!*is_in && json_next(&at, NULL, &v)) {
        if (!compare(r, v, text, len, is_in, e)) return false;
    }
    return !one || !*is_in || compare(r, one, text, len, is_in, e);
}

/* A value of the part `from` as it stands, if the types and all parts allow it. */
static MUST add_value(struct schema *r, struct joined *j, const struct json_value *from,
                      const struct json_value *v, const bool *has, uint32_t alt, struct err *e) {
    char *s;
    size_t len;
    bool is_in = true;
    if (!has_type(v, has)) return true;
    if (!json_print(v, &s, &len, e)) return false;
    bool ok = charge(r, len + 1, e);
    for (unsigned i = 0; ok && is_in && i < j->n; i++) {
        ok = is_listed(r, j->part[i], j->part[i] == from, s, len, &is_in, e);
    }
    if (ok && is_in) {
        gtree_add(&r->tree, alt, gtree_bytes(&r->tree, s, len));
        j->n_way++;
    }
    free(s);
    return ok;
}

static MUST add_values(struct schema *r, struct joined *j, const struct json_value *from,
                       const bool *has, uint32_t alt, struct err *e) {
    static const char *const keys[] = {"enum",  "const", "type", "nullable", "allOf",
                                       "anyOf", "oneOf", "$ref", NULL};
    const struct json_value *list = json_find(from, "enum"), *v;
    struct json_iter at;
    for (unsigned i = 0; i < j->n; i++) {
        if (!schema_check_keys(r, j->part[i], keys,
                               "beside \"enum\" or \"const\" is not supported here", e))
            return false;
    }
    if (!list) return add_value(r, j, from, json_member(from, "const"), has, alt, e);
    if (json_kind(list) != JSON_ARRAY)
        return schema_refuse(r, ERR_FORMAT, "\"enum\" must be a list", e);
    if (json_size(list) > GRAMMAR_WAYS)
        return schema_refuse(r, ERR_LIMIT, "\"enum\" has more than 2048 values", e);
    json_members(&at, list);
    while (json_next(&at, NULL, &v)) {
        if (!add_value(r, j, from, v, has, alt, e)) return false;
    }
    return true;
}

/* --- joining --- */

/* The parts as they stand: alternatives for each type that they allow, or for each value. */
static MUST add_way(struct schema *r, struct joined *j, uint32_t alt, struct err *e) {
    const struct json_value *from = NULL;
    bool has[N_TYPE], is_any;
    if (!common_types(r, j, has, &is_any, e)) return false;
    for (unsigned i = 0; i < j->n && !from; i++) {
        if (has_values(j->part[i])) from = j->part[i];
    }
    for (unsigned i = 0; i < j->n; i++) {
        if (!schema_take_notes(r, j->part[i], has[T_STRING], has[T_ARRAY], e)) return false;
    }
    return from ? add_values(r, j, from, has, alt, e) : add_types(r, j, has, is_any, alt, e);
}

/* v, where its $ref leads, and its allOf. */
static MUST add_part(struct schema *r, struct joined *j, const struct json_value *v,
                     struct err *e) {
    struct json_chars ref = {NULL, 0};
    const struct json_value *to = NULL, *list, *item;
    struct json_iter at;
    if (!charge(r, 1 + json_size(v), e)) return false;
    if (++r->nest > GRAMMAR_NEST) return schema_refuse(r, ERR_LIMIT, "it nests too deeply", e);
    if (json_kind(v) == JSON_BOOL) {
        j->is_never |= !json_is_true(v);
        r->nest--;
        return true;
    }
    if (json_kind(v) != JSON_OBJECT)
        return schema_refuse(r, ERR_FORMAT, "a schema must be an object, true or false", e);
    if (!json_want_chars(v, "$ref", &ref, e)) return err_in(e, "schema");
    if (ref.s && !charge(r, REF_STEPS, e)) return false;
    if (ref.s && !(to = schema_target(r, ref)))
        return schema_refuse_key(r, ERR_FORMAT, ref, "leads nowhere; only #/.. is supported here",
                                 e);
    if (to && !add_part(r, j, to, e)) return false;
    if (j->n == SCHEMA_PARTS)
        return schema_refuse(r, ERR_LIMIT, "\"allOf\" joins more than 128 schemas", e);
    j->part[j->n++] = v;
    if (!schema_list(r, v, "allOf", &list, e)) return false;
    json_members(&at, list);
    while (json_next(&at, NULL, &item)) {
        if (!add_part(r, j, item, e)) return false;
    }
    r->nest--;
    return true;
}

/* Each way through the anyOf (even places) and oneOf (odd ones) of the parts from `at` on. */
static MUST add_ways(struct schema *r, struct joined *j, unsigned at, uint32_t alt, struct err *e) {
    const struct json_value *list = NULL, *way;
    struct json_iter it;
    for (; !list && at < 2 * j->n; at++) {
        if (!charge(r, 1 + json_size(j->part[at / 2]), e)) return false;
        if (!schema_list(r, j->part[at / 2], at % 2 ? "oneOf" : "anyOf", &list, e)) return false;
    }
    if (r->tree.is_full) return true;
    if (!list) return add_way(r, j, alt, e);
    if (++r->nest > GRAMMAR_NEST) return schema_refuse(r, ERR_LIMIT, "it nests too deeply", e);
    unsigned n = j->n;
    json_members(&it, list);
    while (json_next(&it, NULL, &way)) {
        if (!add_part(r, j, way, e)) return false;
        if (!j->is_never && !add_ways(r, j, at, alt, e)) return false;
        j->n = n;
        j->is_never = false;
    }
    r->nest--;
    return true;
}

static MUST join(struct schema *r, struct joined *j, uint32_t alt, struct err *e) {
    const struct json_value *v = j->whole;
    bool nullable = false;
    if (!add_part(r, j, v, e)) return false;
    bool is_one = j->n == 1 && !json_find(v, "anyOf") && !json_find(v, "oneOf");
    if (!j->is_never && !add_ways(r, j, 0, alt, e)) return false;
    /* One that contradicts itself has no text, which is told where it is needed. */
    if (!j->n_way && !is_one && !r->tree.is_full) {
        return schema_refuse(
            r, ERR_UNSUPPORTED,
            "what \"type\", \"allOf\", \"anyOf\" and \"enum\" ask for has no type or "
            "value in common; \"allOf\" can only join objects and values",
            e);
    }
    if (!json_want_bool(v, "nullable", &nullable, e)) return err_in(e, "schema");
    if (nullable && !is_one) gtree_add(&r->tree, alt, schema_text(r, "null"));
    return true;
}

MUST schema_join(struct schema *r, const struct json_value *v, uint32_t *out, struct err *e) {
    struct joined *j = calloc(1, sizeof *j);
    if (!j) return err_set(e, ERR_MEMORY, "no memory for a schema");
    j->whole = v;
    *out = gtree_list(&r->tree, GNODE_ALT);
    bool ok = join(r, j, *out, e);
    free(j);
    return ok;
}
