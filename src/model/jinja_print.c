/* Values as text: what str(), repr() and json.dumps() of Python write. */
#include "model/jinja_own.h"

#include "base/unicode.h"

#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* Writes the fewest digits that read back as d, as d.ddde[-]dd; their number. What has no more than
 * DBL_DIG of them comes out with all of them, and zeros behind; numbers too small for that are tried. */
static MUST fewest_digits(struct vm *vm, double d, char out[static 40], int *n) {
    enum { MOST = 17 };
    for (*n = fabs(d) < DBL_MIN ? 1 : DBL_DIG; *n <= MOST; ++*n) {
        if (!vm_charge(vm, COST_REAL)) return false;
        snprintf(out, 40, "%.*e", *n - 1, d);
        if (*n == MOST || strtod(out, NULL) == d) break;
    }
    char *e = strchr(out, 'e'), *end = e;
    if (!e) return true;  // not for a finite number
    while (*n > 1 && end[-1] == '0') end--, --*n;
    if (*n == 1 && end[-1] == '.') end--;
    memmove(end, e, strlen(e) + 1);
    return true;
}

/* The shortest decimal that reads back as the same number; plain between 1e-4 and 1e16. */
MUST print_real(struct vm *vm, char out[static 40], double d) {
    char digits[40];
    int n;
    if (!isfinite(d)) {
        snprintf(out, 40, "%s", isnan(d) ? "nan" : d < 0 ? "-inf" : "inf");
        return true;
    }
    if (!fewest_digits(vm, d, digits, &n)) return false;
    const char *e = strchr(digits, 'e');
    int exponent = e ? (int)strtol(e + 1, NULL, 10) : 0;
    if (exponent >= -4 && exponent < 16) {
        int places = n - 1 - exponent;
        snprintf(out, 40, "%.*f", places > 1 ? places : 1, d);
    } else {
        snprintf(out, 40, "%.*se%c%02d", (int)(e ? e - digits : 0), digits,
                 exponent < 0 ? '-' : '+', abs(exponent));
    }
    return true;
}

static bool is_data_at(const struct value *s, size_t i) {
    return s->mark ? s->mark[i] : s->is_data;
}

/* A character that repr() writes as an escape; false: as it is. */
static bool repr_escape(int32_t cp, uint8_t byte, char quote, char out[static 16]) {
    if (cp == '\n' || cp == '\r' || cp == '\t') {
        snprintf(out, 16, "\\%c", cp == '\n' ? 'n' : cp == '\r' ? 'r' : 't');
    } else if (cp == '\\' || cp == quote) {
        snprintf(out, 16, "\\%c", (char)cp);
    } else if (cp < 0) {
        snprintf(out, 16, "\\x%02x", byte);
    } else if (unicode_is_printable(cp)) {
        return false;
    } else {
        snprintf(out, 16,
                 cp < 0x100     ? "\\x%02x"
                 : cp < 0x10000 ? "\\u%04x"
                                : "\\U%08x",
                 (unsigned)cp);
    }
    return true;
}

static MUST repr_str(struct vm *vm, struct text *t, const struct value *s) {
    bool has_single = memchr(s->s, '\'', s->len), has_double = memchr(s->s, '"', s->len);
    char quote[2] = {has_single && !has_double ? '"' : '\'', '\0'}, escape[16];
    int32_t cp;
    if (s->is_safe && !text_chars(vm, t, "Markup(")) return false;
    if (!vm_charge(vm, COST_CHAR * (size_t)s->len) || !text_chars(vm, t, quote)) return false;
    for (size_t i = 0, n; i < s->len; i += n) {
        n = utf8_step(s->s + i, s->len - i, &cp);
        bool is_escape = repr_escape(cp, (uint8_t)s->s[i], *quote, escape);
        if (!text_bytes_add(vm, t, is_escape ? escape : s->s + i, is_escape ? strlen(escape) : n,
                            is_data_at(s, i))) {
            return false;
        }
    }
    return text_chars(vm, t, quote) && (!s->is_safe || text_chars(vm, t, ")"));
}

static MUST repr_list(struct vm *vm, struct text *t, const struct value *v) {
    const char *open = v->kind == V_TUPLE ? "(" : "[", *close = v->kind == V_TUPLE ? ")" : "]";
    const struct list *l = v->list;
    if (v->kind == V_VIEW && !text_chars(vm, t,
                                         v->len == 2 ? "dict_values("
                                         : v->len    ? "dict_keys("
                                                     : "dict_items("))
        return false;
    if (!text_chars(vm, t, open)) return false;
    for (size_t i = 0; i < l->n; i++) {
        if (i && !text_chars(vm, t, ", ")) return false;
        if (!print_repr(vm, t, &l->item[i])) return false;
    }
    if (v->kind == V_TUPLE && l->n == 1 && !text_chars(vm, t, ",")) return false;
    return text_chars(vm, t, close) && (v->kind != V_VIEW || text_chars(vm, t, ")"));
}

static MUST repr_dict(struct vm *vm, struct text *t, const struct dict *d) {
    if (!text_chars(vm, t, "{")) return false;
    for (uint32_t i = 0; i < d->n; i++) {
        if (i && !text_chars(vm, t, ", ")) return false;
        if (!print_repr(vm, t, &d->key[i]) || !text_chars(vm, t, ": ")) return false;
        if (!print_repr(vm, t, &d->val[i])) return false;
    }
    return text_chars(vm, t, "}");
}

/* Nested values within each other, as deep as JINJA_VALUE_DEPTH: each level is counted as many. */
static MUST enter_value(struct vm *vm) {
    for (int i = 0; i < JINJA_DEPTH / JINJA_VALUE_DEPTH; i++) {
        if (vm_enter(vm)) continue;
        return false;
    }
    return true;
}

static void leave_value(struct vm *vm) {
    for (int i = 0; i < JINJA_DEPTH / JINJA_VALUE_DEPTH; i++) vm_leave(vm);
}

MUST print_repr(struct vm *vm, struct text *t, const struct value *v) {
    char out[64];
    bool ok;
    if (!vm_charge(vm, COST_ITEM)) return false;
    switch (v->kind) {
    case V_UNDEFINED: return text_chars(vm, t, "Undefined");
    case V_NONE: return text_chars(vm, t, "None");
    case V_BOOL: return text_chars(vm, t, v->yes ? "True" : "False");
    case V_INT: snprintf(out, sizeof out, "%" PRId64, v->i); return text_chars(vm, t, out);
    case V_REAL: return print_real(vm, out, v->d) && text_chars(vm, t, out);
    case V_STR: return repr_str(vm, t, v);
    case V_LIST:
    case V_TUPLE:
    case V_VIEW:
    case V_DICT:
    case V_SPACE:
        if (!enter_value(vm)) return false;
        if (v->kind == V_SPACE && !text_chars(vm, t, "<Namespace ")) return false;
        ok = v->kind == V_DICT || v->kind == V_SPACE ? repr_dict(vm, t, v->dict)
                                                     : repr_list(vm, t, v);
        leave_value(vm);
        return ok && (v->kind != V_SPACE || text_chars(vm, t, ">"));
    default: snprintf(out, sizeof out, "<%s>", value_type(v)); return text_chars(vm, t, out);
    }
}

MUST print_str(struct vm *vm, struct text *t, const struct value *v) {
    if (v->kind == V_STR) return text_add(vm, t, v);
    vm->n_dict += v->kind == V_DICT;
    return v->kind == V_UNDEFINED || print_repr(vm, t, v);
}

MUST to_str(struct vm *vm, const struct value *v, struct value *out) {
    struct text t = {0};
    if (v->kind == V_STR) {
        *out = *v;
        return true;
    }
    if (!print_str(vm, &t, v)) return false;
    *out = text_value(&t);
    return true;
}

/* --- JSON --- */

static bool json_escape(int32_t cp, bool is_ascii, char out[static 16]) {
    static const char plain[] = "\b\f\n\r\t\"\\", letter[] = "bfnrt\"\\";
    const char *at = cp > 0 && cp < 0x80 ? strchr(plain, cp) : NULL;
    if (at) {
        snprintf(out, 16, "\\%c", letter[at - plain]);
    } else if (cp < 0x20 || (is_ascii && cp > 0x7e && cp < 0x10000)) {
        snprintf(out, 16, "\\u%04x", (unsigned)(cp < 0 ? 0xfffd : cp));
    } else if (is_ascii && cp >= 0x10000) {
        unsigned rest = (unsigned)cp - 0x10000;
        snprintf(out, 16, "\\u%04x\\u%04x", 0xd800 | rest >> 10, 0xdc00 | (rest & 0x3ff));
    } else {
        return false;
    }
    return true;
}

static MUST json_str(struct vm *vm, struct text *t, const struct value *s, bool is_ascii) {
    char escape[16];
    int32_t cp;
    if (!vm_charge(vm, COST_CHAR * (size_t)s->len) || !text_chars(vm, t, "\"")) return false;
    for (size_t i = 0, n; i < s->len; i += n) {
        n = utf8_step(s->s + i, s->len - i, &cp);
        bool is_escape = json_escape(cp, is_ascii, escape);
        if (!text_bytes_add(vm, t, is_escape ? escape : s->s + i, is_escape ? strlen(escape) : n,
                            is_data_at(s, i))) {
            return false;
        }
    }
    return text_chars(vm, t, "\"");
}

static MUST json_break(struct vm *vm, struct text *t, const struct json_style *s, unsigned level) {
    if (s->indent.kind == V_NONE) return true;
    if (!text_chars(vm, t, "\n")) return false;
    for (unsigned i = 0; i < level; i++) {
        if (!text_add(vm, t, &s->indent)) return false;
    }
    return true;
}

static MUST json_value(struct vm *vm, struct text *t, const struct value *v,
                       const struct json_style *s, unsigned level);

static MUST json_list(struct vm *vm, struct text *t, const struct list *l,
                      const struct json_style *s, unsigned level) {
    if (!l->n) return text_chars(vm, t, "[]");
    if (!text_chars(vm, t, "[")) return false;
    for (size_t i = 0; i < l->n; i++) {
        if (i && !text_add(vm, t, &s->comma)) return false;
        if (!json_break(vm, t, s, level + 1)) return false;
        if (!json_value(vm, t, &l->item[i], s, level + 1)) return false;
    }
    return json_break(vm, t, s, level) && text_chars(vm, t, "]");
}

static MUST json_key_of(struct vm *vm, struct text *t, const struct value *k,
                        const struct json_style *s) {
    struct text name = {0};
    if (k->kind == V_STR) return json_str(vm, t, k, s->is_ascii);
    if (k->kind != V_NONE && !value_is_number(k)) {
        return vm_fail(vm, "tojson takes no %s as a key", value_type(k));
    }
    if (!json_value(vm, &name, k, s, 0)) return false;
    struct value text = text_value(&name);
    return json_str(vm, t, &text, s->is_ascii);
}

/* The order of d's items: as they are, or by key (by insertion: dicts are small, and steps bound it). */
static MUST json_order(struct vm *vm, const struct dict *d, bool is_sorted, uint32_t **out) {
    if (!vm_push(vm, (d->n + 1) * sizeof **out, out)) return false;
    for (uint32_t i = 0; i < d->n; i++) {
        uint32_t at = i;
        while (is_sorted && at) {
            int order;
            if (!value_order(vm, &d->key[(*out)[at - 1]], &d->key[i], "tojson", &order))
                return false;
            if (order <= 0) break;
            (*out)[at] = (*out)[at - 1];
            at--;
        }
        (*out)[at] = i;
    }
    return true;
}

static MUST json_dict(struct vm *vm, struct text *t, const struct dict *d,
                      const struct json_style *s, unsigned level) {
    uint32_t *order;
    if (!d->n) return text_chars(vm, t, "{}");
    if (!json_order(vm, d, s->is_sorted, &order) || !text_chars(vm, t, "{")) return false;
    for (uint32_t i = 0; i < d->n; i++) {
        uint32_t k = order[i];
        if (i && !text_add(vm, t, &s->comma)) return false;
        if (!json_break(vm, t, s, level + 1) || !json_key_of(vm, t, &d->key[k], s)) return false;
        if (!text_add(vm, t, &s->colon)) return false;
        if (!json_value(vm, t, &d->val[k], s, level + 1)) return false;
    }
    return json_break(vm, t, s, level) && text_chars(vm, t, "}");
}

static MUST json_value(struct vm *vm, struct text *t, const struct value *v,
                       const struct json_style *s, unsigned level) {
    char out[40];
    bool ok;
    if (!vm_charge(vm, COST_ITEM)) return false;
    switch (v->kind) {
    case V_NONE: return text_chars(vm, t, "null");
    case V_BOOL: return text_chars(vm, t, v->yes ? "true" : "false");
    case V_INT: return print_repr(vm, t, v);
    case V_REAL:
        if (!isfinite(v->d)) {
            return text_chars(vm, t, isnan(v->d) ? "NaN" : v->d < 0 ? "-Infinity" : "Infinity");
        }
        return print_real(vm, out, v->d) && text_chars(vm, t, out);
    case V_STR: return json_str(vm, t, v, s->is_ascii);
    case V_LIST:
    case V_TUPLE:
    case V_DICT:
        if (!enter_value(vm)) return false;
        ok = v->kind == V_DICT ? json_dict(vm, t, v->dict, s, level)
                               : json_list(vm, t, v->list, s, level);
        leave_value(vm);
        return ok;
    default:
        if (v->kind == V_UNDEFINED && v->s) {
            return vm_fail(vm, "\"%.*s\" is undefined, and JSON has no such thing",
                           (int)(v->len < 100 ? v->len : 100), v->s);
        }
        return vm_fail(vm, "JSON has no %s", value_type(v));
    }
}

MUST print_json(struct vm *vm, struct text *t, const struct value *v, const struct json_style *s) {
    return json_value(vm, t, v, s, 0);
}
