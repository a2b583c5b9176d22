/* Filters on sequences. What jinja2 makes a generator is an iterator here too: it is gone through
 * once, has no length and no items. Its items are found at once, though. */
#include "model/jinja_own.h"

#include "base/unicode.h"

#include <stdlib.h>

static bool given(const struct value *v) {
    return v->kind != V_MISSING;
}

static bool flag(const struct value *v, bool otherwise) {
    return given(v) ? value_truth(v) : otherwise;
}

static MUST as_iter(struct vm *vm, struct list *l, struct value *out) {
    struct iter *it;
    if (!vm_push(vm, sizeof *it, &it)) return false;
    *it = (struct iter){.list = l};
    *out = value_of(V_ITER);
    out->iter = it;
    return true;
}

/* The items of what is filtered, copied. */
static MUST copy_items(struct vm *vm, const struct value *v, struct list **out) {
    struct list *l;
    if (!value_items(vm, v, &l) || !list_new(vm, l->n, out)) return false;
    for (size_t i = 0; i < l->n; i++) (*out)->item[(*out)->n++] = l->item[i];
    return true;
}

/* --- attributes of items: "a.b.0" --- */

/* otherwise: what stands for a part that is missing, or NULL. */
static MUST dotted_attr(struct vm *vm, const struct value *item, const struct value *path,
                        const struct value *otherwise, struct value *out) {
    *out = *item;
    if (path->kind != V_STR) return value_item(vm, item, path, out);
    for (uint32_t at = 0; at <= path->len;) {
        const char *dot = memchr(path->s + at, '.', path->len - at);
        uint32_t len = dot ? (uint32_t)(dot - (path->s + at)) : path->len - at;
        if (!vm_charge(vm, COST_STEP + COST_SCAN * (size_t)len)) return false;
        struct value name = value_part(path, at, len), of = *out, index;
        bool is_index = len > 0 && len < 10;
        int64_t n = 0;
        for (uint32_t i = 0; i < len && is_index; i++) {
            is_index = name.s[i] >= '0' && name.s[i] <= '9';
            n = n * 10 + (name.s[i] - '0');
        }
        index = is_index ? value_int(n) : name;
        if (!value_item(vm, &of, &index, out)) return false;
        if (otherwise && out->kind == V_UNDEFINED) *out = *otherwise;
        at += len + 1;
    }
    return true;
}

/* What an item is compared by: itself or an attribute, in small letters unless case matters. otherwise: as
 * for dotted_attr(). */
static MUST sort_key(struct vm *vm, const struct value *item, const struct value *attribute,
                     const struct value *otherwise, bool is_cased, struct value *out) {
    struct args none = {0};
    struct value name = value_text("lower");
    bool has = given(attribute) && attribute->kind != V_NONE;
    *out = *item;
    if (has && !dotted_attr(vm, item, attribute, otherwise, out)) return false;
    if (is_cased || out->kind != V_STR) return true;
    struct value text = *out;
    return call_builtin(vm, str_method_find(&name), &text, &none, out);
}

static MUST item_keys(struct vm *vm, const struct list *l, const struct value *attribute,
                      const struct value *otherwise, bool is_cased, struct list **out) {
    if (!list_new(vm, l->n, out)) return false;
    for (size_t i = 0; i < l->n; i++) {
        struct value key;
        if (!sort_key(vm, &l->item[i], attribute, otherwise, is_cased, &key)) return false;
        if (!list_add(vm, *out, key)) return false;
    }
    return true;
}

/* Keys of the attributes "a,b": tuples, also for one or none. So equal items need no order. */
static MUST item_tuples(struct vm *vm, const struct list *l, const struct value *attribute,
                        bool is_cased, struct list **out) {
    bool is_text = attribute->kind == V_STR;
    if (!list_new(vm, l->n, out)) return false;
    for (size_t i = 0; i < l->n; i++) {
        struct list *parts;
        struct value key, part = *attribute;
        if (!list_new(vm, 1, &parts)) return false;
        for (uint32_t at = 0; !at || (is_text && at <= attribute->len);) {
            if (is_text) {
                const char *comma = memchr(attribute->s + at, ',', attribute->len - at);
                uint32_t end = comma ? (uint32_t)(comma - attribute->s) : attribute->len;
                part = value_part(attribute, at, end - at);
                at = end;
            }
            if (!sort_key(vm, &l->item[i], &part, NULL, is_cased, &key)) return false;
            if (!list_add(vm, parts, key)) return false;
            at++;
        }
        if (!list_add(vm, *out, value_list(V_TUPLE, parts))) return false;
    }
    return true;
}

/* A stable merge sort of order [n], which are places in `key`. */
static MUST merge_sort(struct vm *vm, const struct list *key, bool is_reversed, uint32_t *order,
                       uint32_t *spare, size_t n) {
    for (size_t width = 1; width < n; width *= 2) {
        for (size_t from = 0; from < n; from += 2 * width) {
            size_t mid = from + width < n ? from + width : n;
            size_t end = from + 2 * width < n ? from + 2 * width : n, a = from, b = mid;
            for (size_t k = from; k < end; k++) {
                int cmp = a < mid ? 0 : 1;
                if (a < mid && b < end) {
                    const struct value *x = &key->item[order[a]], *y = &key->item[order[b]];
                    if (!value_order(vm, x, y, "sort", &cmp)) return false;
                    if (is_reversed) cmp = -cmp;
                }
                spare[k] = order[cmp > 0 ? b++ : a++];
            }
        }
        if (!vm_charge(vm, COST_ITEM * n)) return false;  // they have moved twice
        memcpy(order, spare, n * sizeof *order);
    }
    return true;
}

static MUST sort_list(struct vm *vm, struct list *l, const struct list *key, bool is_reversed) {
    uint32_t *order, *spare;
    struct value *item;
    if (!vm_push(vm, (l->n + 1) * sizeof *order, &order)) return false;
    if (!vm_push(vm, (l->n + 1) * sizeof *spare, &spare)) return false;
    if (!vm_push(vm, (l->n + 1) * sizeof *item, &item)) return false;
    for (size_t i = 0; i < l->n; i++) order[i] = (uint32_t)i;
    if (l->n == 1) {  // Python compares nothing then either
        return true;
    }
    if (!merge_sort(vm, key, is_reversed, order, spare, l->n)) return false;
    for (size_t i = 0; i < l->n; i++) item[i] = l->item[order[i]];
    if (l->n) memcpy(l->item, item, l->n * sizeof *item);
    return true;
}

/* --- the filters --- */

static MUST filter_list(struct vm *vm, struct call *c, struct value *out) {
    struct list *l;
    if (!copy_items(vm, &c->self, &l)) return false;
    *out = value_list(V_LIST, l);
    return true;
}

static MUST filter_sort(struct vm *vm, struct call *c, struct value *out) {
    struct list *l, *key;
    if (!copy_items(vm, &c->self, &l)) return false;
    if (!item_tuples(vm, l, &c->arg[2], flag(&c->arg[1], false), &key)) return false;
    *out = value_list(V_LIST, l);
    return sort_list(vm, l, key, flag(&c->arg[0], false));
}

static MUST filter_dictsort(struct vm *vm, struct call *c, struct value *out) {
    bool by_value = given(&c->arg[1]) && value_is(&c->arg[1], "value");
    struct list *l, *by, *key;
    struct value none = {0};
    if (given(&c->arg[1]) && !by_value && !value_is(&c->arg[1], "key")) {
        return vm_fail(vm, "dictsort sorts by key or by value");
    }
    if (c->self.kind != V_DICT) return vm_fail(vm, "dictsort takes a dict");
    const struct dict *d = c->self.dict;
    if (!list_new(vm, d->n, &l) || !list_new(vm, d->n, &by)) return false;
    for (uint32_t i = 0; i < d->n; i++) {
        struct list *pair;
        if (!list_new(vm, 2, &pair) || !list_add(vm, pair, d->key[i])) return false;
        if (!list_add(vm, pair, d->val[i]) || !list_add(vm, l, value_list(V_TUPLE, pair)))
            return false;
        if (!list_add(vm, by, by_value ? d->val[i] : d->key[i])) return false;
    }
    if (!item_keys(vm, by, &none, NULL, flag(&c->arg[0], false), &key)) return false;
    *out = value_list(V_LIST, l);
    return sort_list(vm, l, key, flag(&c->arg[2], false));
}

static MUST filter_reverse(struct vm *vm, struct call *c, struct value *out) {
    struct list *l, *turned;
    struct text t = {0};
    if (!value_items(vm, &c->self, &l) || !list_new(vm, l->n, &turned)) return false;
    for (size_t i = l->n; i-- > 0;) turned->item[turned->n++] = l->item[i];
    if (c->self.kind != V_STR) {
        if (c->self.kind != V_ITER) return as_iter(vm, turned, out);
        *out = value_list(V_LIST, turned);
        return true;
    }
    for (size_t i = 0; i < turned->n; i++) {
        if (!text_add(vm, &t, &turned->item[i])) return false;
    }
    *out = text_value(&t);
    return true;
}

static MUST filter_first(struct vm *vm, struct call *c, struct value *out) {
    struct list *l;
    if (c->self.kind == V_ITER) {  // takes one, leaves the rest
        struct iter *it = c->self.iter;
        *out = it->at < it->list->n ? it->list->item[it->at++] : value_undefined(NULL);
        return true;
    }
    if (!value_items(vm, &c->self, &l)) return false;
    *out = l->n ? l->item[0] : value_undefined(NULL);
    return true;
}

static MUST filter_last(struct vm *vm, struct call *c, struct value *out) {
    struct list *l;
    if (c->self.kind == V_ITER) return vm_fail(vm, "last does not go through a generator");
    if (!value_items(vm, &c->self, &l)) return false;
    *out = l->n ? l->item[l->n - 1] : value_undefined(NULL);
    return true;
}

static MUST filter_join(struct vm *vm, struct call *c, struct value *out) {
    struct value sep = value_text(""), item;
    struct text t = {0};
    struct list *l;
    if (given(&c->arg[0]) && !to_str(vm, &c->arg[0], &sep)) return false;
    if (!value_items(vm, &c->self, &l)) return false;
    for (size_t i = 0; i < l->n; i++) {
        item = l->item[i];
        bool has = given(&c->arg[1]) && c->arg[1].kind != V_NONE;
        if (has && !dotted_attr(vm, &l->item[i], &c->arg[1], NULL, &item)) return false;
        if (i && !text_add(vm, &t, &sep)) return false;
        if (!vm_charge(vm, COST_ITEM) || !print_str(vm, &t, &item)) return false;
    }
    *out = text_value(&t);
    return true;
}

static MUST filter_sum(struct vm *vm, struct call *c, struct value *out) {
    struct list *l;
    bool has = given(&c->arg[0]) && c->arg[0].kind != V_NONE;
    *out = given(&c->arg[1]) ? c->arg[1] : value_int(0);
    if (out->kind == V_STR) return vm_fail(vm, "sum does not add texts");
    if (!value_items(vm, &c->self, &l)) return false;
    for (size_t i = 0; i < l->n; i++) {
        struct value item = l->item[i], before = *out;
        if (!vm_charge(vm, COST_STEP)) return false;
        if (has && !dotted_attr(vm, &l->item[i], &c->arg[0], NULL, &item)) return false;
        if (!value_binary(vm, '+', &before, &item, out)) return false;
    }
    return true;
}

static MUST filter_extreme(struct vm *vm, struct call *c, struct value *out) {
    struct list *l, *key;
    size_t best = 0;
    int sign = c->name[1] == 'a' ? 1 : -1;  // max, min
    if (!copy_items(vm, &c->self, &l)) return false;
    if (!item_keys(vm, l, &c->arg[1], NULL, flag(&c->arg[0], false), &key)) return false;
    for (size_t i = 1; i < l->n; i++) {
        int order;
        if (!value_order(vm, &key->item[i], &key->item[best], c->name, &order)) return false;
        if (order * sign > 0) best = i;
    }
    *out = l->n ? l->item[best] : value_undefined(NULL);
    return true;
}

static MUST filter_unique(struct vm *vm, struct call *c, struct value *out) {
    struct list *l, *key, *kept;
    struct dict *seen;
    if (!copy_items(vm, &c->self, &l) || !list_new(vm, 0, &kept) || !dict_new(vm, &seen))
        return false;
    if (!item_keys(vm, l, &c->arg[1], NULL, flag(&c->arg[0], false), &key)) return false;
    for (size_t i = 0; i < l->n; i++) {
        struct value *before;
        if (!dict_find(vm, seen, &key->item[i], &before)) return false;
        if (before) continue;
        if (!dict_put(vm, seen, &key->item[i], value_of(V_NONE))) return false;
        if (!list_add(vm, kept, l->item[i])) return false;
    }
    return as_iter(vm, kept, out);
}

static MUST filter_items(struct vm *vm, struct call *c, struct value *out) {
    struct list *l;
    struct args none = {0};
    struct value name = value_text("items"), view;
    if (c->self.kind == V_UNDEFINED) return list_new(vm, 0, &l) && as_iter(vm, l, out);
    if (c->self.kind != V_DICT)
        return vm_fail(vm, "items takes a dict, not a %s", value_type(&c->self));
    if (!call_builtin(vm, method_find(V_DICT, &name), &c->self, &none, &view)) return false;
    return as_iter(vm, view.list, out);
}

/* batch: rows of n items; slice: n rows. */
static MUST filter_rows(struct vm *vm, struct call *c, struct value *out) {
    struct list *l, *rows, *row = NULL;
    bool is_batch = c->name[0] == 'b', has_fill = given(&c->arg[1]) && c->arg[1].kind != V_NONE;
    if (c->arg[0].kind != V_INT || c->arg[0].i < 1 || c->arg[0].i > JINJA_RANGE) {
        return vm_fail(vm, "%s takes a number of items from 1 to %d", c->name, JINJA_RANGE);
    }
    size_t n = (size_t)c->arg[0].i;
    if (!value_items(vm, &c->self, &l) || !list_new(vm, 0, &rows)) return false;
    size_t each = l->n / n, longer = l->n % n, at = 0;
    size_t count = is_batch ? (l->n + n - 1) / n : n;
    for (size_t k = 0; k < count; k++) {
        size_t want = is_batch ? n : each + (k < longer);
        if (!list_new(vm, want + 1, &row)) return false;
        for (size_t i = 0; i < want && at < l->n; i++) row->item[row->n++] = l->item[at++];
        bool is_short =
            is_batch ? row->n < n : k >= longer;  // of rows alike each, as jinja2 has it
        while (has_fill && is_short) {
            if (!list_add(vm, row, c->arg[1])) return false;
            is_short = is_batch && row->n < n;
        }
        if (!list_add(vm, rows, value_list(V_LIST, row))) return false;
    }
    return as_iter(vm, rows, out);
}

/* Arguments behind the first `skip`, for the filter or test that map and select call. */
static struct args rest_of(const struct args *a, size_t skip) {
    struct args rest = *a;
    if (skip) rest.pos += skip;  // without any there is nothing to point at
    rest.n_pos -= skip;
    return rest;
}

static const struct value *keyword(const struct args *a, const char *name) {
    for (size_t i = 0; i < a->n_kw; i++) {
        if (value_is(&a->kw[i].name, name)) return &a->kw[i].v;
    }
    return NULL;
}

static MUST filter_map(struct vm *vm, struct call *c, struct value *out) {
    const struct args *a = c->args;
    const struct value *attribute = keyword(a, "attribute"), *otherwise = keyword(a, "default");
    const struct builtin *fn = NULL;
    struct list *l, *to;
    if (!value_truth(&c->self)) return list_new(vm, 0, &to) && as_iter(vm, to, out);
    if (!a->n_pos && attribute) {
        if (a->n_kw > 1U + (otherwise != NULL))
            return vm_fail(vm, "map does not know this argument");
    } else {
        if (!a->n_pos) return vm_fail(vm, "map needs a filter or an attribute");
        fn = filter_find(&a->pos[0]);
        if (!fn) return vm_fail(vm, "map: there is no such filter");
    }
    if (!value_items(vm, &c->self, &l) || !list_new(vm, l->n, &to)) return false;
    struct args rest = fn ? rest_of(a, 1) : (struct args){0};
    for (size_t i = 0; i < l->n; i++) {
        struct value v;
        if (!vm_enter(vm) || !vm_charge(vm, COST_STEP)) return false;
        if (fn ? !call_builtin(vm, fn, &l->item[i], &rest, &v)
               : !dotted_attr(vm, &l->item[i], attribute, otherwise, &v)) {
            return false;
        }
        vm_leave(vm);
        if (!list_add(vm, to, v)) return false;
    }
    return as_iter(vm, to, out);
}

/* select, reject, selectattr, rejectattr. */
static MUST filter_select(struct vm *vm, struct call *c, struct value *out) {
    const struct args *a = c->args;
    bool is_select = c->name[0] == 's', by_attr = strlen(c->name) > 6;
    size_t skip = by_attr;
    const struct builtin *test = NULL;
    struct list *l, *kept;
    if (!value_truth(&c->self)) return list_new(vm, 0, &kept) && as_iter(vm, kept, out);
    if (a->n_pos < skip) return vm_fail(vm, "%s needs an attribute", c->name);
    if (a->n_pos > skip) {
        test = test_find(&a->pos[skip]);
        if (!test) return vm_fail(vm, "%s: there is no such test", c->name);
        skip++;
    }
    struct args rest = rest_of(a, skip);
    if (!value_items(vm, &c->self, &l) || !list_new(vm, 0, &kept)) return false;
    for (size_t i = 0; i < l->n; i++) {
        struct value v = l->item[i];
        if (!vm_charge(vm, COST_STEP)) return false;
        if (by_attr && !dotted_attr(vm, &l->item[i], &a->pos[0], NULL, &v)) return false;
        bool yes = value_truth(&v);
        if (test && !test_holds(vm, test, &v, &rest, &yes)) return false;
        if (yes == is_select && !list_add(vm, kept, l->item[i])) return false;
    }
    return as_iter(vm, kept, out);
}

/* Groups in the order of their keys: (grouper, list). */
static MUST filter_groupby(struct vm *vm, struct call *c, struct value *out) {
    struct list *l, *key, *groups, *members = NULL;
    bool is_cased = flag(&c->arg[2], false), has = given(&c->arg[1]) && c->arg[1].kind != V_NONE;
    const struct value *otherwise = has ? &c->arg[1] : NULL;
    if (!copy_items(vm, &c->self, &l)) return false;
    if (!item_keys(vm, l, &c->arg[0], otherwise, is_cased, &key)) return false;
    if (!sort_list(vm, l, key, false) || !list_new(vm, 0, &groups)) return false;
    struct value last = value_of(V_MISSING);
    for (size_t i = 0; i < l->n; i++) {
        struct value k, shown;
        struct list *pair;
        bool same = false;
        if (!sort_key(vm, &l->item[i], &c->arg[0], otherwise, is_cased, &k)) return false;
        if (!sort_key(vm, &l->item[i], &c->arg[0], otherwise, true, &shown)) return false;
        if (members && !value_equal(vm, &last, &k, &same)) return false;
        if (!same) {
            if (!list_new(vm, 2, &pair) || !list_new(vm, 0, &members)) return false;
            pair->item[pair->n++] = shown;
            pair->item[pair->n++] = value_list(V_LIST, members);
            pair->is_group = true;
            if (!list_add(vm, groups, value_list(V_TUPLE, pair))) return false;
        }
        last = k;
        if (!list_add(vm, members, l->item[i])) return false;
    }
    *out = value_list(V_LIST, groups);
    return true;
}

const struct builtin *sequence_filter_find(const struct value *name) {
    static const struct builtin table[] = {
        {"batch", "!linecount fill_with", filter_rows},
        {"dictsort", "case_sensitive by reverse", filter_dictsort},
        {"first", "", filter_first},
        {"groupby", "!attribute default case_sensitive", filter_groupby},
        {"items", "", filter_items},
        {"join", "d attribute", filter_join},
        {"last", "", filter_last},
        {"list", "", filter_list},
        {"map", "*", filter_map},
        {"max", "case_sensitive attribute", filter_extreme},
        {"min", "case_sensitive attribute", filter_extreme},
        {"reject", "*", filter_select},
        {"rejectattr", "*", filter_select},
        {"reverse", "", filter_reverse},
        {"select", "*", filter_select},
        {"selectattr", "*", filter_select},
        {"slice", "!slices fill_with", filter_rows},
        {"sort", "reverse case_sensitive attribute", filter_sort},
        {"sum", "attribute start", filter_sum},
        {"unique", "case_sensitive attribute", filter_unique},
    };
    return builtin_find(table, sizeof table / sizeof *table, name);
}
