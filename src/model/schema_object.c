/* schema_object.c - objects and arrays of a JSON schema. */
#include "model/schema_own.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PROPS = 512, ITEMS = 64, NAME_DEEP = 48 };

struct prop {
    struct json_chars name;
    const struct json_value *schema;  // NULL: any value
    bool is_required;
};

struct object {
    struct prop *prop;  // [n], room for PROPS
    unsigned n;
    const struct json_value *more;  // additionalProperties, NULL: not said
    bool is_closed;                 // it is false
};

/* --- arrays --- */

/* The items after the first `at`, one after another; each but the first of all behind a comma. */
static uint32_t item(struct schema *r, size_t at, uint32_t what) {
    if (!at) return what;
    return CAT(r, schema_text(r, ","), schema_common(r, RULE_SPACE), what);
}

struct items {
    uint32_t first[ITEMS];  // nodes
    size_t n;
    uint32_t rule;  // of the others, UINT32_MAX: there are none
    int32_t from, to;
};

static uint32_t others(struct schema *r, const struct items *a) {
    struct gtree *t = &r->tree;
    int32_t n = (int32_t)a->n, from = a->from > n ? a->from - n : 0;
    int32_t to = a->to < 0 ? GREPEAT_ANY : a->to > n ? a->to - n : 0;
    if (a->rule == UINT32_MAX) return from ? gtree_never(t) : gtree_list(t, GNODE_CAT);
    if (to == 0 || (to > 0 && from > to)) return from ? gtree_never(t) : gtree_list(t, GNODE_CAT);
    if (n) return gtree_repeat(t, item(r, 1, gtree_call(t, a->rule)), (uint32_t)from, to);
    uint32_t more = gtree_repeat(t, item(r, 1, gtree_call(t, a->rule)),
                                 from ? (uint32_t)from - 1 : 0, to < 0 ? to : to - 1);
    uint32_t all = CAT(r, gtree_call(t, a->rule), more);
    return from ? all : schema_maybe(r, all);
}

static uint32_t array(struct schema *r, const struct items *a) {
    uint32_t rest = others(r, a);
    for (size_t i = a->n; i-- > 0;) {
        uint32_t all = CAT(r, item(r, i, a->first[i]), rest);
        bool is_past = a->to >= 0 && i >= (size_t)a->to, is_needed = i < (size_t)a->from;
        if (is_past) {
            rest = is_needed ? gtree_never(&r->tree) : gtree_list(&r->tree, GNODE_CAT);
        } else {
            rest = is_needed ? all : schema_maybe(r, all);
        }
    }
    return CAT(r, schema_text(r, "["), schema_common(r, RULE_SPACE), rest,
               schema_common(r, RULE_SPACE), schema_text(r, "]"));
}

MUST schema_array(struct schema *r, const struct json_value *v, uint32_t *out, struct err *e) {
    const struct json_value *rest = json_find(v, "items"), *first = json_find(v, "prefixItems");
    struct items a = {.rule = UINT32_MAX};
    if (json_kind(rest) == JSON_ARRAY) {
        if (first)
            return schema_refuse(r, ERR_FORMAT, "\"items\" is a list beside \"prefixItems\"", e);
        first = rest;
        rest = NULL;
    }
    if (!schema_counts(r, v, "minItems", "maxItems", &a.from, &a.to, e)) return false;
    if (first && json_kind(first) != JSON_ARRAY) {
        return schema_refuse(r, ERR_FORMAT, "\"prefixItems\" must be a list", e);
    }
    if (first && json_size(first) > ITEMS) {
        return schema_refuse(r, ERR_LIMIT, "\"prefixItems\" has more than 64 schemas", e);
    }
    for (a.n = 0; first && a.n < json_size(first); a.n++) {
        if (!schema_visit_at(r, "prefixItems", 11, json_item(first, a.n), &a.first[a.n], e))
            return false;
    }
    uint32_t what = 0;
    bool is_open = !first || a.from > (int32_t)a.n;  // else it ends with what is named
    if (rest) {
        if (!schema_visit_at(r, "items", 5, rest, &what, e)) return false;
    } else if (is_open) {
        what = schema_common(r, RULE_ANY);
    }
    if (rest || is_open) {
        a.rule = gtree_rule(&r->tree);
        gtree_define(&r->tree, a.rule, what);
    }
    *out = array(r, &a);
    return true;
}

/* --- objects --- */

static MUST add_prop(struct schema *r, struct object *o, struct json_chars name,
                     const struct json_value *schema, struct err *e) {
    bool is_alike = false;
    for (unsigned i = 0; i < o->n; i++) {
        if (o->prop[i].name.len != name.len || memcmp(o->prop[i].name.s, name.s, name.len))
            continue;
        if (!o->prop[i].schema) o->prop[i].schema = schema;
        if (!schema || o->prop[i].schema == schema) return true;
        if (!schema_alike(r, o->prop[i].schema, schema, &is_alike, e)) return false;
        return is_alike ||
               schema_refuse_key(r, ERR_UNSUPPORTED, name,
                                 "is described in two ways; name it in one part only", e);
    }
    if (o->n == PROPS) return schema_refuse(r, ERR_LIMIT, "more than 512 properties", e);
    o->prop[o->n++] = (struct prop){.name = name, .schema = schema};
    return true;
}

static MUST add_required(struct schema *r, struct object *o, const struct json_value *v,
                         struct err *e) {
    const struct json_value *list = json_find(v, "required");
    if (!list) return true;
    if (json_kind(list) != JSON_ARRAY)
        return schema_refuse(r, ERR_FORMAT, "\"required\" must be a list", e);
    if (json_size(list) > PROPS) return schema_refuse(r, ERR_LIMIT, "more than 512 properties", e);
    for (size_t i = 0; i < json_size(list); i++) {
        struct json_chars name;
        size_t n;
        if (!json_as_strings(json_item(list, i), "required", &name, 1, &n, e)) {
            return err_in(e, "schema");
        }
        if (!add_prop(r, o, name, NULL, e)) return false;
        for (unsigned k = 0; k < o->n; k++) {
            struct prop *p = &o->prop[k];
            p->is_required |= p->name.len == name.len && !memcmp(p->name.s, name.s, name.len);
        }
    }
    return true;
}

static bool is_false(const struct json_value *v) {
    return json_kind(v) == JSON_BOOL && !json_is_true(v);
}

/* What it says of members that it does not name. */
static MUST read_more(struct schema *r, const struct json_value *v, struct object *o,
                      struct err *e) {
    const struct json_value *more = json_find(v, "additionalProperties");
    if (is_false(more) || is_false(json_find(v, "unevaluatedProperties"))) {
        o->is_closed = true;
    } else if (!o->more || json_is_true(o->more)) {
        if (more) o->more = more;
    } else if (more && !json_is_true(more) && more != o->more) {
        return schema_refuse(r, ERR_UNSUPPORTED,
                             "only one of the parts of \"allOf\" can have "
                             "\"additionalProperties\" that is a schema",
                             e);
    }
    return true;
}

/* The parts as one object: properties in the order of the text, then what is required. */
static MUST read_object(struct schema *r, const struct joined *j, struct object *o, struct err *e) {
    const struct json_value *props, *schema;
    struct json_iter at;
    struct json_chars name;
    for (unsigned i = 0; i < j->n; i++) {
        props = NULL;
        if (!json_want_object(j->part[i], "properties", &props, e)) return err_in(e, "schema");
        json_members(&at, props);
        while (json_next(&at, &name, &schema)) {
            if (!add_prop(r, o, name, schema, e)) return false;
        }
    }
    for (unsigned i = 0; i < j->n; i++) {
        if (!add_required(r, o, j->part[i], e) || !read_more(r, j->part[i], o, e)) return false;
    }
    return true;
}

static bool has_prop(const struct json_value *v, struct json_chars name) {
    struct json_iter at;
    struct json_chars key;
    const struct json_value *schema;
    for (json_members(&at, json_find(v, "properties")); json_next(&at, &key, &schema);) {
        if (key.len == name.len && !memcmp(key.s, name.s, name.len)) return true;
    }
    return false;
}

/* The parts of allOf do not see each other: additionalProperties of one is about all that it does not name
 * itself, so what others name could never be there, or not as they describe it; what none describes is as it
 * says. The outermost schema's unevaluatedProperties sees them all. */
static MUST check_parts(struct schema *r, const struct joined *j, const struct object *o,
                        struct err *e) {
    for (unsigned i = 0; j->n > 1 && i < j->n; i++) {
        const struct json_value *v = j->part[i], *more = json_find(v, "additionalProperties");
        bool is_blind = v != j->whole && is_false(json_find(v, "unevaluatedProperties"));
        if (!is_blind && (!more || json_is_true(more))) continue;
        for (unsigned k = 0; k < o->n; k++) {
            bool is_additional = !o->prop[k].schema && json_kind(more) == JSON_OBJECT;
            if (is_additional || has_prop(v, o->prop[k].name)) continue;
            return schema_refuse_key(r, ERR_UNSUPPORTED, o->prop[k].name,
                                     "is not among the properties beside each "
                                     "\"additionalProperties\" that \"allOf\" joins; leave those "
                                     "out, others are not written anyway",
                                     e);
        }
    }
    return true;
}

/* A name as JSON writes it, in quotes. */
static uint32_t name_text(struct schema *r, struct json_chars s) {
    uint32_t list = gtree_list(&r->tree, GNODE_CAT);
    size_t from = 0;
    gtree_add(&r->tree, list, schema_text(r, "\""));
    for (size_t i = 0; i <= s.len; i++) {
        unsigned char c = i < s.len ? (unsigned char)s.s[i] : 0;
        if (i < s.len && c >= ' ' && c != '"' && c != '\\') continue;
        if (i > from) gtree_add(&r->tree, list, gtree_bytes(&r->tree, s.s + from, i - from));
        from = i + 1;
        char code[8];
        snprintf(code, sizeof code, c < ' ' ? "\\u%04x" : "\\%c", c);
        if (i < s.len) gtree_add(&r->tree, list, schema_text(r, code));
    }
    gtree_add(&r->tree, list, schema_text(r, "\""));
    return list;
}

static const char *next_char(struct json_chars s, size_t at, uint32_t *cp, size_t *len) {
    unsigned char c = (unsigned char)s.s[at];
    *len = c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : c >= 0xc0 ? 2 : 1;
    *cp = *len == 1 ? c : c & (0x7fU >> *len);
    for (size_t i = 1; i < *len; i++) *cp = *cp << 6 | ((unsigned char)s.s[at + i] & 0x3f);
    return s.s + at;
}

/* The rest of a name, without escapes, that is none of prop [n]: they all agree in their first `at` bytes
 * and are sorted. */
static uint32_t other_name(struct schema *r, const struct prop *const *prop, size_t n, size_t at,
                           unsigned depth) {
    static const struct grange no[] = {{0, 0x1f}, {'"', '"'}, {'\\', '\\'}};
    struct gtree *t = &r->tree;
    uint32_t alt = gtree_list(t, GNODE_ALT);
    struct grange *taken = malloc((n + 3) * sizeof *taken);
    size_t n_taken = 3, first = 0;
    if (!taken) {
        t->is_full = t->no_memory = true;
        return 0;
    }
    memcpy(taken, no, sizeof no);
    while (first < n && prop[first]->name.len == at) first++;
    if (!first) gtree_add(t, alt, gtree_list(t, GNODE_CAT));  // none of them ends here: it may
    for (size_t i = first; i < n && depth < NAME_DEEP;) {
        size_t end = i, len, len2;
        uint32_t cp, cp2;
        next_char(prop[i]->name, at, &cp, &len);
        while (end < n && (next_char(prop[end]->name, at, &cp2, &len2), cp2 == cp)) end++;
        taken[n_taken++] = (struct grange){cp, cp};
        if (cp >= ' ' && cp != '"' && cp != '\\') {
            uint32_t rest = other_name(r, prop + i, end - i, at + len, depth + 1);
            gtree_add(t, alt, CAT(r, gtree_bytes(t, prop[i]->name.s + at, len), rest));
        }
        i = end;
    }
    if (depth < NAME_DEEP) {
        uint32_t tail = gtree_repeat(t, gtree_set_not(t, no, 3), 0, GREPEAT_ANY);
        gtree_add(t, alt, CAT(r, gtree_set_not(t, taken, n_taken), tail));
    }
    free(taken);
    return alt;
}

static int by_name(const void *a, const void *b) {
    const struct prop *const *x = a, *const *y = b;
    size_t n = (*x)->name.len < (*y)->name.len ? (*x)->name.len : (*y)->name.len;
    int c = memcmp((*x)->name.s, (*y)->name.s, n);
    if (c) return c;
    return (*x)->name.len < (*y)->name.len ? -1 : (*x)->name.len > (*y)->name.len;
}

/* Members that are not named: their rule, or UINT32_MAX when there are none. */
static MUST more_members(struct schema *r, const struct object *o, uint32_t *rule, struct err *e) {
    uint32_t value = 0;
    bool is_open = o->more && !o->is_closed;
    *rule = UINT32_MAX;
    if (!is_open && (o->is_closed || o->n)) return true;
    if (is_open && json_kind(o->more) == JSON_OBJECT) {
        if (!schema_visit_at(r, "additionalProperties", 20, o->more, &value, e)) return false;
    } else {
        value = schema_common(r, RULE_ANY);
    }
    const struct prop **list = malloc((o->n + 1) * sizeof *list);
    if (!list) return err_set(e, ERR_MEMORY, "no memory for a schema");
    for (unsigned i = 0; i < o->n; i++) list[i] = &o->prop[i];
    qsort(list, o->n, sizeof *list, by_name);
    uint32_t name =
        o->n ? schema_quoted(r, other_name(r, list, o->n, 0, 0)) : schema_common(r, RULE_STRING);
    free(list);
    *rule = gtree_rule(&r->tree);
    gtree_define(&r->tree, *rule,
                 CAT(r, name, schema_text(r, ":"), schema_common(r, RULE_SPACE), value));
    return true;
}

/* Two rules for each place in the order: what may follow when nothing stands before (`first`), and when
 * something does (`next`, with a comma). From the last property to the first. */
static MUST object(struct schema *r, const struct object *o, uint32_t *out, struct err *e) {
    struct gtree *t = &r->tree;
    uint32_t more, first = gtree_list(t, GNODE_CAT), next = gtree_list(t, GNODE_CAT);
    if (!more_members(r, o, &more, e)) return false;
    if (more != UINT32_MAX) {
        next = gtree_repeat(t, item(r, 1, gtree_call(t, more)), 0, GREPEAT_ANY);
        first =
            schema_maybe(r, CAT(r, gtree_call(t, more),
                                gtree_repeat(t, item(r, 1, gtree_call(t, more)), 0, GREPEAT_ANY)));
    }
    for (unsigned i = o->n; i-- > 0;) {
        const struct prop *p = &o->prop[i];
        const struct json_value *schema = p->schema ? p->schema : o->more;
        uint32_t value = 0, member = gtree_rule(t), next_rule = gtree_rule(t),
                 first_rule = gtree_rule(t);
        gtree_define(t, next_rule, next);
        gtree_define(t, first_rule, first);
        if (!schema) {
            value = schema_common(r, RULE_ANY);
        } else if (!schema_visit_at(r, p->name.s, p->name.len, schema, &value, e)) {
            return false;
        }
        gtree_define(t, member,
                     CAT(r, name_text(r, p->name), schema_text(r, ":"),
                         schema_common(r, RULE_SPACE), value));
        first = CAT(r, gtree_call(t, member), gtree_call(t, next_rule));
        next = CAT(r, item(r, 1, gtree_call(t, member)), gtree_call(t, next_rule));
        if (p->is_required) continue;
        first = schema_either(r, first, gtree_call(t, first_rule));
        next = schema_either(r, next, gtree_call(t, next_rule));
    }
    *out = CAT(r, schema_text(r, "{"), schema_common(r, RULE_SPACE), first,
               schema_common(r, RULE_SPACE), schema_text(r, "}"));
    return true;
}

MUST schema_object(struct schema *r, const struct joined *j, uint32_t *out, struct err *e) {
    struct object o = {.prop = malloc(PROPS * sizeof *o.prop)};
    if (!o.prop) return err_set(e, ERR_MEMORY, "no memory for a schema");
    bool ok = read_object(r, j, &o, e) && check_parts(r, j, &o, e);
    for (unsigned i = 0; ok && i < o.n; i++) {
        const struct prop *p = &o.prop[i];
        if (p->schema || !p->is_required || !o.is_closed) continue;
        ok = schema_refuse_key(r, ERR_FORMAT, p->name, "is required, but not among the properties",
                               e);
    }
    ok = ok && object(r, &o, out, e);
    free(o.prop);
    return ok;
}
