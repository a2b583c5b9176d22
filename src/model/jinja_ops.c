/* What Python's values do: truth, equality, order, arithmetic, attributes, items and slices. */
#include "model/jinja_own.h"

#include "base/unicode.h"

#include <math.h>

const char *value_type(const struct value *v) {
    static const char *const name[] = {
        [V_MISSING] = "nothing", [V_UNDEFINED] = "Undefined",
        [V_NONE] = "NoneType",   [V_BOOL] = "bool",
        [V_INT] = "int",         [V_REAL] = "float",
        [V_STR] = "str",         [V_LIST] = "list",
        [V_TUPLE] = "tuple",     [V_DICT] = "dict",
        [V_VIEW] = "dict view",  [V_ITER] = "generator",
        [V_SPACE] = "Namespace", [V_LOOP] = "LoopContext",
        [V_MACRO] = "Macro",     [V_BUILTIN] = "function",
        [V_METHOD] = "method",   [V_CYCLER] = "Cycler",
        [V_JOINER] = "Joiner",
    };
    return name[v->kind];
}

bool value_is_number(const struct value *v) {
    return v->kind == V_BOOL || v->kind == V_INT || v->kind == V_REAL;
}

static bool is_whole(const struct value *v) {
    return v->kind == V_BOOL || v->kind == V_INT;
}

static int64_t whole(const struct value *v) {
    return v->kind == V_BOOL ? v->yes : v->i;
}

double value_number(const struct value *v) {
    return v->kind == V_REAL ? v->d : (double)whole(v);
}

static bool is_sequence(const struct value *v) {
    return v->kind == V_LIST || v->kind == V_TUPLE;
}

bool value_truth(const struct value *v) {
    switch (v->kind) {
    case V_MISSING:
    case V_UNDEFINED:
    case V_NONE: return false;
    case V_BOOL: return v->yes;
    case V_INT: return v->i != 0;
    case V_REAL: return v->d != 0;
    case V_STR: return v->len != 0;
    case V_LIST:
    case V_TUPLE:
    case V_VIEW: return v->list->n != 0;
    case V_DICT: return v->dict->n != 0;
    default: return true;
    }
}

/* --- equality and order --- */

static MUST equal_lists(struct vm *vm, const struct list *a, const struct list *b, bool *yes) {
    *yes = a->n == b->n;
    for (size_t i = 0; *yes && i < a->n; i++) {
        if (!value_equal(vm, &a->item[i], &b->item[i], yes)) return false;
    }
    return true;
}

static MUST equal_dicts(struct vm *vm, const struct dict *a, const struct dict *b, bool *yes) {
    *yes = a->n == b->n;
    for (uint32_t i = 0; *yes && i < a->n; i++) {
        struct value *other;
        if (!dict_find(vm, b, &a->key[i], &other)) return false;
        *yes = other != NULL;
        if (other && !value_equal(vm, &a->val[i], other, yes)) return false;
    }
    return true;
}

MUST value_equal(struct vm *vm, const struct value *a, const struct value *b, bool *yes) {
    bool ok = true;
    *yes = false;
    if (!vm_charge(vm, COST_ITEM)) return false;
    if (value_is_number(a) && value_is_number(b)) {
        *yes =
            is_whole(a) && is_whole(b) ? whole(a) == whole(b) : value_number(a) == value_number(b);
        return true;
    }
    if (a->kind != b->kind) return true;
    switch (a->kind) {
    case V_UNDEFINED:
    case V_NONE: *yes = true; return true;
    case V_STR: return value_same(vm, a, b, yes);
    case V_LIST:
    case V_TUPLE:
        if (!vm_enter(vm)) return false;
        ok = equal_lists(vm, a->list, b->list, yes);
        vm_leave(vm);
        return ok;
    case V_DICT:
        if (!vm_enter(vm)) return false;
        ok = equal_dicts(vm, a->dict, b->dict, yes);
        vm_leave(vm);
        return ok;
    default: *yes = a->list == b->list; return true;  // the same object
    }
}

static int compare(double a, double b) {
    return (a > b) - (a < b);
}

MUST value_order(struct vm *vm, const struct value *a, const struct value *b, const char *op,
                 int *order) {
    if (!vm_charge(vm, COST_ITEM)) return false;
    if (value_is_number(a) && value_is_number(b)) {
        *order = is_whole(a) && is_whole(b) ? (whole(a) > whole(b)) - (whole(a) < whole(b))
                                            : compare(value_number(a), value_number(b));
        return true;
    }
    if (a->kind == V_STR && b->kind == V_STR) {
        size_t n = a->len < b->len ? a->len : b->len;
        if (!vm_charge(vm, n)) return false;
        *order = memcmp(a->s, b->s, n);  // UTF-8 sorts as its code points do
        if (!*order) *order = (a->len > b->len) - (a->len < b->len);
        return true;
    }
    if (a->kind == b->kind && is_sequence(a)) {
        size_t n = a->list->n < b->list->n ? a->list->n : b->list->n;
        for (size_t i = 0; i < n; i++) {
            bool same;
            if (!vm_enter(vm)) return false;
            if (!value_equal(vm, &a->list->item[i], &b->list->item[i], &same)) return false;
            if (!same && !value_order(vm, &a->list->item[i], &b->list->item[i], op, order)) {
                return false;
            }
            vm_leave(vm);
            if (!same) return true;
        }
        *order = (a->list->n > b->list->n) - (a->list->n < b->list->n);
        return true;
    }
    return vm_fail(vm, "%s has no order between %s and %s", op, value_type(a), value_type(b));
}

MUST value_in(struct vm *vm, const struct value *item, const struct value *in, bool *yes) {
    struct value *found;
    struct list *l = NULL;
    int64_t at;
    *yes = false;
    switch (in->kind) {
    case V_STR:
        if (item->kind != V_STR) {
            return vm_fail(vm, "only a string can be in a string, not %s", value_type(item));
        }
        if (!str_find(vm, in, 0, in->len, item, &at)) return false;
        *yes = at >= 0;
        return true;
    case V_DICT:
        if (!dict_find(vm, in->dict, item, &found)) return false;
        *yes = found != NULL;
        return true;
    default:
        if (!value_items(vm, in, &l) || !l) return false;
        for (size_t i = 0; i < l->n && !*yes; i++) {
            if (!value_equal(vm, item, &l->item[i], yes)) return false;
        }
        return true;
    }
}

/* --- items --- */

MUST value_length(struct vm *vm, const struct value *v, int64_t *n) {
    size_t chars;
    switch (v->kind) {
    case V_UNDEFINED: *n = 0; return true;
    case V_STR:
        if (!utf8_count(vm, v, &chars)) return false;
        *n = (int64_t)chars;
        return true;
    case V_LIST:
    case V_TUPLE:
    case V_VIEW: *n = (int64_t)v->list->n; return true;
    case V_DICT: *n = v->dict->n; return true;
    default: return vm_fail(vm, "a %s has no length", value_type(v));
    }
}

static MUST chars_of(struct vm *vm, const struct value *s, struct list *l) {
    struct value plain = *s;
    int32_t cp;
    plain.is_safe = false;
    if (!vm_charge(vm, COST_SCAN * (size_t)s->len)) return false;
    for (size_t i = 0, n; i < s->len; i += n) {
        n = utf8_step(s->s + i, s->len - i, &cp);
        if (!list_add(vm, l, value_part(&plain, i, n))) return false;
    }
    return true;
}

MUST value_items(struct vm *vm, const struct value *v, struct list **out) {
    struct list *l;
    switch (v->kind) {
    case V_LIST:
    case V_TUPLE:
    case V_VIEW: *out = v->list; return true;
    case V_UNDEFINED: return list_new(vm, 0, out);
    case V_STR: return list_new(vm, 0, out) && chars_of(vm, v, *out);
    case V_DICT:
        if (!list_new(vm, v->dict->n, out)) return false;
        for (uint32_t i = 0; i < v->dict->n; i++) {
            if (!list_add(vm, *out, v->dict->key[i])) return false;
        }
        return true;
    case V_ITER:
        if (!vm_push(vm, sizeof *l, &l)) return false;
        *l = *v->iter->list;
        if (l->n) l->item += v->iter->at;  // an empty list has no items to point at
        l->n -= v->iter->at;
        l->cap = l->n;
        v->iter->at = v->iter->list->n;
        *out = l;
        return true;
    default: return vm_fail(vm, "a %s cannot be iterated", value_type(v));
    }
}

static MUST bind(struct vm *vm, const struct value *self, const struct builtin *fn,
                 struct value *out) {
    struct method *m;
    if (!vm_push(vm, sizeof *m, &m)) return false;
    *m = (struct method){*self, fn};
    *out = value_of(V_METHOD);
    out->method = m;
    return true;
}

/* An attribute that is not an item. *found is false when there is none. */
static MUST macro_attr(struct vm *vm, const struct macro *m, const struct value *name,
                       struct value *out) {
    static const struct {
        const char *name;
        uint16_t bit;
    } known[] = {
        {"catch_varargs", MACRO_VARARGS}, {"catch_kwargs", MACRO_KWARGS}, {"caller", MACRO_CALLER}};
    struct list *l;
    *out = value_of(V_MISSING);
    if (value_is(name, "name")) *out = m->name;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (value_is(name, known[i].name)) *out = value_bool(m->node->op & known[i].bit);
    }
    if (!value_is(name, "arguments")) return true;
    if (!list_new(vm, 0, &l)) return false;
    for (const struct node *p = m->node->a; p; p = p->next) {
        if (!list_add(vm, l, vm->t->symbols.name[p->sym])) return false;
    }
    *out = value_list(V_TUPLE, l);
    return true;
}

static MUST own_attr(struct vm *vm, const struct value *v, const struct value *name,
                     struct value *out, bool *found) {
    const struct builtin *fn;
    struct value *at;
    *found = true;
    switch (v->kind) {
    case V_SPACE:
        if (!dict_find(vm, v->dict, name, &at)) return false;
        *found = at != NULL;
        if (at) *out = *at;
        return true;
    case V_LOOP:
        if (!loop_attr(vm, v->loop, name, out)) return false;
        if (out->kind != V_MISSING) return true;
        break;
    case V_MACRO:
        if (!macro_attr(vm, v->macro, name, out)) return false;
        if (out->kind != V_MISSING) return true;
        break;
    case V_CYCLER:
        if (value_is(name, "current")) {
            *out = v->turns->list->item[v->turns->at];
            return true;
        }
        break;
    case V_TUPLE:
        if (v->list->is_group && (value_is(name, "grouper") || value_is(name, "list"))) {
            *out = v->list->item[value_is(name, "list")];
            return true;
        }
        break;
    default: break;
    }
    fn = method_find(v->kind, name);
    *found = fn != NULL;
    return !fn || bind(vm, v, fn, out);
}

static bool undefined_has_none(struct vm *vm, const struct value *v, const struct value *what) {
    if (!v->s)
        return vm_fail(vm, "the value that was not found has no %.*s", (int)what->len, what->s);
    return vm_fail(vm, "\"%.*s\" is undefined", (int)(v->len < 100 ? v->len : 100), v->s);
}

MUST value_attr(struct vm *vm, const struct value *v, const struct value *name, struct value *out) {
    bool found;
    if (v->kind == V_UNDEFINED) return undefined_has_none(vm, v, name);
    if (!own_attr(vm, v, name, out, &found)) return false;
    if (found) return true;
    if (v->kind == V_DICT) {
        struct value *at;
        if (!dict_find(vm, v->dict, name, &at)) return false;
        if (at) {
            *out = *at;
            return true;
        }
    }
    *out = value_undefined(name);
    return true;
}

static bool index_of(const struct value *at, size_t n, size_t *i) {
    if (!is_whole(at)) return false;
    int64_t k = whole(at);
    if (k < 0) k += (int64_t)n;
    *i = (size_t)k;
    return k >= 0 && (uint64_t)k < n;
}

MUST value_item(struct vm *vm, const struct value *v, const struct value *at, struct value *out) {
    size_t i, n;
    bool found = false;
    static const struct value subscript = {.kind = V_STR, .s = "item", .len = 4};
    if (v->kind == V_UNDEFINED) return undefined_has_none(vm, v, &subscript);
    if (is_sequence(v) && index_of(at, v->list->n, &i)) {
        *out = v->list->item[i];
        return true;
    }
    if (v->kind == V_STR && is_whole(at)) {
        int32_t cp;
        if (!utf8_count(vm, v, &n)) return false;
        if (index_of(at, n, &i)) {
            if (!utf8_offset(vm, v, i, &n)) return false;
            *out = value_part(v, n, utf8_step(v->s + n, v->len - n, &cp));
            return true;
        }
    }
    bool is_key = at->kind < V_LIST || at->kind == V_TUPLE;  // others are in no dictionary
    if (v->kind == V_DICT && is_key) {
        struct value *item;
        if (!dict_find(vm, v->dict, at, &item)) return false;
        if (item) {
            *out = *item;
            return true;
        }
    }
    if (at->kind == V_STR && !own_attr(vm, v, at, out, &found)) return false;
    if (!found) *out = value_undefined(at);
    return true;
}

/* The three numbers of a slice for n items, as Python clamps them. */
static MUST slice_range(struct vm *vm, const struct value at[3], int64_t n, int64_t r[3]) {
    for (int i = 0; i < 3; i++) {
        if (at[i].kind != V_NONE && !is_whole(&at[i])) {
            return vm_fail(vm, "a slice takes whole numbers, not %s", value_type(&at[i]));
        }
    }
    int64_t step = at[2].kind == V_NONE ? 1 : whole(&at[2]);
    if (!step) return vm_fail(vm, "a slice cannot have step 0");
    if (step < -INT32_MAX) step = -INT32_MAX;
    if (step > INT32_MAX) step = INT32_MAX;
    int64_t low = step < 0 ? -1 : 0, high = step < 0 ? n - 1 : n;
    for (int i = 0; i < 2; i++) {
        if (at[i].kind == V_NONE) {
            r[i] = (i == 0) == (step > 0) ? low : high;
            continue;
        }
        int64_t k = whole(&at[i]);
        if (k < 0) k = k < -n ? low : k + n;
        r[i] = k < low ? low : k > high ? high : k;
    }
    r[2] = step;
    return true;
}

static MUST slice_str(struct vm *vm, const struct value *s, const int64_t r[3], struct value *out) {
    struct list *l;
    struct text t = {0};
    if (r[2] == 1) {
        size_t from, to;
        if (!utf8_offset(vm, s, (size_t)r[0], &from)) return false;
        if (!utf8_offset(vm, s, (size_t)r[1], &to)) return false;
        *out = value_part(s, from, to > from ? to - from : 0);
        return true;
    }
    if (!list_new(vm, 0, &l) || !chars_of(vm, s, l)) return false;
    for (int64_t i = r[0]; r[2] > 0 ? i < r[1] : i > r[1]; i += r[2]) {
        if (!text_add(vm, &t, &l->item[i])) return false;
    }
    *out = text_value(&t);
    return true;
}

MUST value_slice(struct vm *vm, const struct value *v, const struct value at[3],
                 struct value *out) {
    int64_t n, r[3];
    struct list *l;
    if (v->kind != V_STR && !is_sequence(v)) {
        return vm_fail(vm, "a %s cannot be sliced", value_type(v));
    }
    if (!value_length(vm, v, &n) || !slice_range(vm, at, n, r)) return false;
    if (v->kind == V_STR) return slice_str(vm, v, r, out);
    if (!list_new(vm, 0, &l)) return false;
    for (int64_t i = r[0]; r[2] > 0 ? i < r[1] : i > r[1]; i += r[2]) {
        if (!list_add(vm, l, v->list->item[i])) return false;
    }
    *out = value_list(v->kind, l);
    return true;
}

/* --- arithmetic --- */

bool whole_too_large(struct vm *vm) {
    return vm_fail(vm, "a whole number grows beyond 64 bits");
}

static MUST whole_power(struct vm *vm, int64_t a, int64_t b, int64_t *out) {
    int64_t r = 1;
    for (; b; b >>= 1) {
        if ((b & 1) && __builtin_mul_overflow(r, a, &r)) return whole_too_large(vm);
        if (b > 1 && __builtin_mul_overflow(a, a, &a)) return whole_too_large(vm);
    }
    *out = r;
    return true;
}

static MUST whole_binary(struct vm *vm, uint16_t op, int64_t a, int64_t b, struct value *out) {
    int64_t r = 0;
    bool over = false;
    switch (op) {
    case '+': over = __builtin_add_overflow(a, b, &r); break;
    case '-': over = __builtin_sub_overflow(a, b, &r); break;
    case '*': over = __builtin_mul_overflow(a, b, &r); break;
    case OP_POW:
        if (!whole_power(vm, a, b, &r)) return false;
        break;
    default:
        if (!b) return vm_fail(vm, "division by zero");
        if (b == -1) {
            over = op == OP_FLOOR && __builtin_sub_overflow(0, a, &r);
            break;
        }
        r = op == '%' ? a % b : a / b;
        if (a % b && (a < 0) != (b < 0)) r = op == '%' ? r + b : r - 1;  // Python rounds down
        break;
    }
    if (over) return whole_too_large(vm);
    *out = value_int(r);
    return true;
}

static MUST real_binary(struct vm *vm, uint16_t op, double a, double b, struct value *out) {
    double r = 0;
    if (strchr("/%", op & 0xff) && b == 0) return vm_fail(vm, "division by zero");
    if ((op == '%' || op == OP_POW) && !vm_charge(vm, COST_REAL)) return false;
    switch (op) {
    case '+': r = a + b; break;
    case '-': r = a - b; break;
    case '*': r = a * b; break;
    case '/': r = a / b; break;
    case OP_POW: r = pow(a, b); break;
    case OP_FLOOR: r = floor(a / b); break;
    default:
        r = fmod(a, b);
        if (r != 0 && (r < 0) != (b < 0)) r += b;
        break;
    }
    if (op == OP_POW && isfinite(a) && isfinite(b) && !isfinite(r)) {
        return vm_fail(vm, "a power has no value");
    }
    *out = value_real(r);
    return true;
}

static MUST repeat(struct vm *vm, const struct value *v, int64_t n, struct value *out) {
    struct text t = {0};
    struct list *l;
    if (v->kind == V_STR) {
        for (int64_t i = 0; v->len && i < n; i++) {
            if (!text_add(vm, &t, v)) return false;
        }
        *out = text_value(&t);
        out->is_safe = v->is_safe;
        return true;
    }
    if (!list_new(vm, 0, &l)) return false;
    for (int64_t k = 0; v->list->n && k < n; k++) {
        for (size_t i = 0; i < v->list->n; i++) {
            if (!list_add(vm, l, v->list->item[i])) return false;
        }
    }
    *out = value_list(v->kind, l);
    return true;
}

MUST value_escape(struct vm *vm, const struct value *s, struct value *out) {
    static const char special[] = "&<>'\"", *const spelled[] = {"&amp;", "&lt;", "&gt;", "&#39;",
                                                                "&#34;"};
    struct text t = {0};
    if (!vm_charge(vm, COST_CHAR * (size_t)s->len)) return false;
    for (size_t i = 0; i < s->len; i++) {
        const char *at = s->s[i] ? strchr(special, s->s[i]) : NULL;
        const char *to = at ? spelled[at - special] : s->s + i;
        bool is_data = s->mark ? s->mark[i] : s->is_data;
        if (!text_bytes_add(vm, &t, to, at ? strlen(to) : 1, is_data)) return false;
    }
    *out = text_value(&t);
    out->is_safe = true;
    return true;
}

static MUST join_strings(struct vm *vm, const struct value *a, const struct value *b,
                         struct value *out) {
    bool is_safe = a->is_safe || b->is_safe;
    const struct value *part[2] = {a, b};
    struct text t = {0};
    struct value escaped;
    for (int i = 0; i < 2; i++) {
        bool is_plain = is_safe && !part[i]->is_safe;
        if (is_plain && !value_escape(vm, part[i], &escaped)) return false;
        if (!text_add(vm, &t, is_plain ? &escaped : part[i])) return false;
    }
    *out = text_value(&t);
    out->is_safe = is_safe;
    return true;
}

static MUST join_two(struct vm *vm, const struct value *a, const struct value *b,
                     struct value *out) {
    struct list *l;
    if (a->kind == V_STR) return join_strings(vm, a, b, out);
    if (!list_new(vm, a->list->n + b->list->n, &l)) return false;
    for (size_t i = 0; i < a->list->n; i++) l->item[l->n++] = a->list->item[i];
    for (size_t i = 0; i < b->list->n; i++) l->item[l->n++] = b->list->item[i];
    *out = value_list(a->kind, l);
    return true;
}

static bool is_joinable(const struct value *v) {
    return v->kind == V_STR || is_sequence(v);
}

MUST value_binary(struct vm *vm, uint16_t op, const struct value *a, const struct value *b,
                  struct value *out) {
    if (a->kind == V_UNDEFINED || b->kind == V_UNDEFINED) {
        if (op == '%' && a->kind == V_STR) return format_percent(vm, a, b, out);
        return undefined_has_none(vm, a->kind == V_UNDEFINED ? a : b,
                                  &(struct value){.s = "use", .len = 3});
    }
    if (is_whole(a) && is_whole(b) && op != '/' && !(op == OP_POW && whole(b) < 0)) {
        return whole_binary(vm, op, whole(a), whole(b), out);
    }
    if (value_is_number(a) && value_is_number(b)) {
        return real_binary(vm, op, value_number(a), value_number(b), out);
    }
    if (op == '%' && a->kind == V_STR) return format_percent(vm, a, b, out);
    if (op == '+' && a->kind == b->kind && is_joinable(a)) return join_two(vm, a, b, out);
    if (op == '*' && is_joinable(a) && is_whole(b)) return repeat(vm, a, whole(b), out);
    if (op == '*' && is_joinable(b) && is_whole(a)) return repeat(vm, b, whole(a), out);
    char name[3] = {(char)op, (char)(op >> 8), '\0'};
    return vm_fail(vm, "%s does not go between %s and %s", name, value_type(a), value_type(b));
}

MUST value_negate(struct vm *vm, const struct value *v, bool is_minus, struct value *out) {
    if (v->kind == V_UNDEFINED)
        return undefined_has_none(vm, v, &(struct value){.s = "sign", .len = 4});
    if (v->kind == V_REAL) {
        *out = value_real(is_minus ? -v->d : v->d);
        return true;
    }
    if (!is_whole(v)) return vm_fail(vm, "a %s has no sign", value_type(v));
    if (is_minus && whole(v) == INT64_MIN) return whole_too_large(vm);
    *out = value_int(is_minus ? -whole(v) : whole(v));
    return true;
}
