/* Evaluating expressions. */
#include "model/jinja_own.h"

#include <stdarg.h>
#include <stdio.h>

/* --- failing, and the limits --- */

__attribute__((format(printf, 3, 0))) static bool fail(struct vm *vm, enum err_code code,
                                                       const char *fmt, va_list ap) {
    char what[300];
    vsnprintf(what, sizeof what, fmt, ap);
    return err_set(vm->e, code, "the chat template, line %u: %s", vm->line, what);
}

bool vm_fail(struct vm *vm, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    (void)fail(vm, ERR_FORMAT, fmt, ap);
    va_end(ap);
    return false;
}

bool vm_limit(struct vm *vm, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    (void)fail(vm, ERR_LIMIT, fmt, ap);
    va_end(ap);
    return false;
}

bool vm_spent(struct vm *vm) {
    return vm_limit(vm, "it takes more than %d steps", JINJA_STEPS);
}

MUST vm_enter(struct vm *vm) {
    if (vm->depth >= JINJA_DEPTH) {
        return vm_limit(vm, "it goes more than %d levels deep", JINJA_DEPTH);
    }
    vm->depth++;
    return true;
}

void vm_leave(struct vm *vm) {
    vm->depth--;
}

/* --- variables --- */

MUST vm_lookup(struct vm *vm, uint32_t sym, struct value *out) {
    *out = value_of(V_MISSING);
    for (const struct scope *s = vm->scope; s; s = s->up) {
        if (s->is_root) {
            *out = vm->global[sym];
            return true;
        }
        for (const struct var *v = s->first; v; v = v->next) {
            if (!vm_charge(vm, COST_ITEM)) return false;
            if (v->sym != sym) continue;
            *out = v->v;
            return true;
        }
    }
    return true;
}

MUST vm_assign(struct vm *vm, uint32_t sym, struct value v) {
    struct scope *s = vm->scope;
    if (s->is_root) {
        vm->global[sym] = v;
        return true;
    }
    for (struct var *at = s->first; at; at = at->next) {
        if (!vm_charge(vm, COST_ITEM)) return false;
        if (at->sym != sym) continue;
        at->v = v;
        return true;
    }
    struct var *more = vm->spare;
    if (more) {
        vm->spare = more->next;
    } else if (!vm_push(vm, sizeof *more, &more)) {
        return false;
    }
    *more = (struct var){sym, v, s->first};
    s->first = more;
    return true;
}

static MUST eval_name(struct vm *vm, const struct node *n, struct value *out) {
    const struct value *name = &vm->t->symbols.name[n->sym];
    if (!vm_lookup(vm, n->sym, out)) return false;
    if (out->kind != V_MISSING) return true;
    const struct builtin *fn = global_find(name);
    *out = value_undefined(name);
    if (fn) {
        *out = value_of(V_BUILTIN);
        out->builtin = fn;
    }
    return true;
}

/* --- arguments and calls --- */

static MUST add_keyword(struct vm *vm, struct args *a, size_t *cap, struct keyword k) {
    for (size_t i = 0; i < a->n_kw; i++) {
        const struct value *name = &a->kw[i].name;
        bool same;
        if (!value_same(vm, name, &k.name, &same)) return false;
        if (same) return vm_fail(vm, "argument %.*s is given twice", (int)name->len, name->s);
    }
    if (a->n_kw == *cap) {
        struct keyword *more;
        *cap = *cap ? 2 * *cap : 4;
        if (!vm_push(vm, *cap * sizeof *more, &more)) return false;
        if (a->n_kw) memcpy(more, a->kw, a->n_kw * sizeof *more);
        a->kw = more;
    }
    a->kw[a->n_kw++] = k;
    return true;
}

static MUST add_stars(struct vm *vm, struct args *a, size_t *cap, const struct value *v) {
    if (v->kind != V_DICT) return vm_fail(vm, "** takes a dict, not a %s", value_type(v));
    for (uint32_t i = 0; i < v->dict->n; i++) {
        if (v->dict->key[i].kind != V_STR) return vm_fail(vm, "** takes keys that are names");
        if (!add_keyword(vm, a, cap, (struct keyword){v->dict->key[i], v->dict->val[i]})) {
            return false;
        }
    }
    return true;
}

MUST eval_args(struct vm *vm, const struct node *list, struct args *out) {
    struct list pos = {0}, *items;
    size_t cap = 0;
    *out = (struct args){0};
    for (const struct node *n = list; n; n = n->next) {
        bool wraps = n->kind == N_KEYWORD || n->kind == N_STAR || n->kind == N_STARS;
        struct value v;
        if (!eval(vm, wraps ? n->a : n, &v)) return false;
        if (n->kind == N_KEYWORD) {
            if (!add_keyword(vm, out, &cap, (struct keyword){n->v, v})) return false;
        } else if (n->kind == N_STARS) {
            if (!add_stars(vm, out, &cap, &v)) return false;
        } else if (n->kind == N_STAR) {
            if (!value_items(vm, &v, &items)) return false;
            for (size_t i = 0; i < items->n; i++) {
                if (!list_add(vm, &pos, items->item[i])) return false;
            }
        } else if (!list_add(vm, &pos, v)) {
            return false;
        }
    }
    out->pos = pos.item;
    out->n_pos = pos.n;
    return true;
}

/* The next name of a list of parameters: its text, whether it must be given. False at the end. */
static bool next_param(const char **at, const char **name, size_t *len, bool *is_needed) {
    while (**at == ' ') ++*at;
    *is_needed = **at == '!';
    if (*is_needed) ++*at;
    *name = *at;
    *len = strcspn(*at, " ");
    *at += *len;
    return *len > 0;
}

static MUST bind_args(struct vm *vm, const struct builtin *fn, struct call *c) {
    const struct args *a = c->args;
    const char *at = fn->params, *name;
    size_t len, i = 0, used = 0;
    bool is_needed;
    for (; next_param(&at, &name, &len, &is_needed); i++) {
        bool has = i < a->n_pos;
        if (has) c->arg[i] = a->pos[i];
        if (!vm_charge(vm, COST_ITEM * a->n_kw)) return false;
        for (size_t k = 0; k < a->n_kw; k++) {
            const struct keyword *kw = &a->kw[k];
            if (*name == '_' || kw->name.len != len || memcmp(kw->name.s, name, len) != 0) continue;
            if (has)
                return vm_fail(vm, "%s: argument %.*s is given twice", fn->name, (int)len, name);
            c->arg[i] = kw->v;
            has = true;
            used++;
        }
        if (is_needed && !has) {
            return vm_fail(vm, "%s needs an argument more", fn->name);
        }
    }
    if (a->n_pos > i) return vm_fail(vm, "%s takes %zu arguments at most", fn->name, i);
    if (used < a->n_kw) return vm_fail(vm, "%s does not take an argument of this name", fn->name);
    return true;
}

MUST call_builtin(struct vm *vm, const struct builtin *fn, const struct value *self,
                  const struct args *a, struct value *out) {
    struct call c = {.args = a, .name = fn->name};
    if (self) c.self = *self;
    if (!vm_charge(vm, COST_STEP)) return false;
    if (*fn->params != '*' && !bind_args(vm, fn, &c)) return false;
    return fn->fn(vm, &c, out);
}

/* The methods of a string that counts as escaped give such. */
static MUST call_method(struct vm *vm, const struct method *m, const struct args *a,
                        struct value *out) {
    if (!call_builtin(vm, m->fn, &m->self, a, out)) return false;
    if (out->kind == V_STR && m->self.kind == V_STR) out->is_safe = m->self.is_safe;
    return true;
}

MUST eval_call(struct vm *vm, const struct value *fn, const struct args *a, struct value *out) {
    switch (fn->kind) {
    case V_BUILTIN: return call_builtin(vm, fn->builtin, NULL, a, out);
    case V_METHOD: return call_method(vm, fn->method, a, out);
    case V_MACRO: return exec_macro(vm, fn->macro, a, out);
    case V_LOOP: return loop_call(vm, fn->loop, a, out);
    case V_JOINER: *out = fn->turns->at++ ? fn->turns->list->item[0] : value_text(""); return true;
    case V_UNDEFINED:
        if (fn->s) {
            return vm_fail(vm, "\"%.*s\" is undefined", (int)(fn->len < 100 ? fn->len : 100),
                           fn->s);
        }
        return vm_fail(vm, "what is called is undefined");
    default: return vm_fail(vm, "a %s cannot be called", value_type(fn));
    }
}

static MUST eval_call_node(struct vm *vm, const struct node *n, struct value *out) {
    struct value fn;
    struct args a;
    return eval(vm, n->a, &fn) && eval_args(vm, n->b, &a) && eval_call(vm, &fn, &a, out);
}

MUST eval_filter(struct vm *vm, const struct node *n, const struct value *in, struct value *out) {
    struct value v;
    struct args a;
    if (!n->a && in) {
        v = *in;
    } else if (!n->a) {
        return vm_fail(vm, "a filter has nothing before it");
    } else if (in) {
        if (!vm_enter(vm) || !eval_filter(vm, n->a, in, &v)) return false;
        vm_leave(vm);
    } else if (!eval(vm, n->a, &v)) {
        return false;
    }
    vm->line = n->line;
    if (!n->fn) {
        return vm_fail(vm, "there is no filter \"%.*s\"", (int)(n->v.len < 60 ? n->v.len : 60),
                       n->v.s);
    }
    return eval_args(vm, n->b, &a) && call_builtin(vm, n->fn, &v, &a, out);
}

MUST test_holds(struct vm *vm, const struct builtin *test, const struct value *v,
                const struct args *a, bool *yes) {
    struct value r;
    if (!call_builtin(vm, test, v, a, &r)) return false;
    *yes = value_truth(&r);
    return true;
}

static MUST eval_test(struct vm *vm, const struct node *n, struct value *out) {
    struct value v;
    struct args a;
    bool yes;
    if (!n->fn) {
        return vm_fail(vm, "there is no test \"%.*s\"", (int)(n->v.len < 60 ? n->v.len : 60),
                       n->v.s);
    }
    if (!eval(vm, n->a, &v) || !eval_args(vm, n->b, &a)) return false;
    if (!test_holds(vm, n->fn, &v, &a, &yes)) return false;
    *out = value_bool(yes);
    return true;
}

/* --- operators --- */

static MUST eval_list(struct vm *vm, const struct node *n, struct value *out) {
    struct list *l;
    if (!list_new(vm, 0, &l)) return false;
    for (const struct node *i = n->a; i; i = i->next) {
        struct value v;
        if (!eval(vm, i, &v) || !list_add(vm, l, v)) return false;
    }
    *out = value_list(n->kind == N_LIST ? V_LIST : V_TUPLE, l);
    return true;
}

static MUST eval_dict(struct vm *vm, const struct node *n, struct value *out) {
    struct dict *d;
    if (!dict_new(vm, &d)) return false;
    for (const struct node *i = n->a; i; i = i->next->next) {
        struct value key, v;
        if (!eval(vm, i, &key) || !eval(vm, i->next, &v) || !dict_put(vm, d, &key, v)) return false;
    }
    *out = value_of(V_DICT);
    out->dict = d;
    return true;
}

static MUST compare_one(struct vm *vm, uint16_t op, const struct value *a, const struct value *b,
                        bool *yes) {
    int order;
    switch (op) {
    case OP_EQ: return value_equal(vm, a, b, yes);
    case OP_NE:
        if (!value_equal(vm, a, b, yes)) return false;
        *yes = !*yes;
        return true;
    case OP_IN: return value_in(vm, a, b, yes);
    case OP_NOT_IN:
        if (!value_in(vm, a, b, yes)) return false;
        *yes = !*yes;
        return true;
    default: break;
    }
    char name[3] = {(char)op, (char)(op >> 8), '\0'};
    if (!value_order(vm, a, b, name, &order)) return false;
    *yes = op == '<' ? order < 0 : op == '>' ? order > 0 : op == OP_LE ? order <= 0 : order >= 0;
    return true;
}

static MUST eval_compare(struct vm *vm, const struct node *n, struct value *out) {
    struct value a, b;
    bool yes = true;
    if (!eval(vm, n->a, &a)) return false;
    for (const struct node *i = n->b; i && yes; i = i->next) {
        if (!eval(vm, i->a, &b)) return false;
        vm->line = i->line;
        if (!compare_one(vm, i->op, &a, &b, &yes)) return false;
        a = b;
    }
    *out = value_bool(yes);
    return true;
}

static MUST eval_concat(struct vm *vm, const struct node *n, struct value *out) {
    struct text t = {0};
    for (const struct node *i = n->a; i; i = i->next) {
        struct value v;
        if (!eval(vm, i, &v) || !print_str(vm, &t, &v)) return false;
    }
    *out = text_value(&t);
    return true;
}

static MUST eval_slice(struct vm *vm, const struct node *n, struct value *out) {
    const struct node *const part[3] = {n->b, n->c, n->d};
    struct value v, at[3];
    if (!eval(vm, n->a, &v)) return false;
    for (int i = 0; i < 3; i++) {
        at[i] = value_of(V_NONE);
        if (part[i] && !eval(vm, part[i], &at[i])) return false;
    }
    return value_slice(vm, &v, at, out);
}

static MUST eval_pair(struct vm *vm, const struct node *n, struct value *out) {
    struct value a, b;
    if (!eval(vm, n->a, &a) || !eval(vm, n->b, &b)) return false;
    vm->line = n->line;
    return n->kind == N_ITEM ? value_item(vm, &a, &b, out) : value_binary(vm, n->op, &a, &b, out);
}

static MUST eval_logic(struct vm *vm, const struct node *n, struct value *out) {
    if (!eval(vm, n->a, out)) return false;
    if (n->kind == N_NOT) {
        *out = value_bool(!value_truth(out));
        return true;
    }
    return value_truth(out) == (n->kind == N_OR) || eval(vm, n->b, out);
}

static MUST eval_cond(struct vm *vm, const struct node *n, struct value *out) {
    if (!eval(vm, n->a, out)) return false;
    const struct node *then = value_truth(out) ? n->b : n->c;
    if (then) return eval(vm, then, out);
    *out = value_undefined(NULL);
    return true;
}

static MUST eval_node(struct vm *vm, const struct node *n, struct value *out) {
    struct value v;
    switch (n->kind) {
    case N_CONST: *out = n->v; return true;
    case N_NAME: return eval_name(vm, n, out);
    case N_LIST:
    case N_TUPLE: return eval_list(vm, n, out);
    case N_DICT: return eval_dict(vm, n, out);
    case N_ATTR: return eval(vm, n->a, &v) && value_attr(vm, &v, &n->v, out);
    case N_SLICE: return eval_slice(vm, n, out);
    case N_CALL: return eval_call_node(vm, n, out);
    case N_FILTER: return eval_filter(vm, n, NULL, out);
    case N_TEST: return eval_test(vm, n, out);
    case N_NEG:
    case N_POS: return eval(vm, n->a, &v) && value_negate(vm, &v, n->kind == N_NEG, out);
    case N_ITEM:
    case N_BINARY: return eval_pair(vm, n, out);
    case N_AND:
    case N_OR:
    case N_NOT: return eval_logic(vm, n, out);
    case N_COMPARE: return eval_compare(vm, n, out);
    case N_CONCAT: return eval_concat(vm, n, out);
    case N_COND: return eval_cond(vm, n, out);
    default: return vm_fail(vm, "this is no expression");
    }
}

MUST eval(struct vm *vm, const struct node *n, struct value *out) {
    vm->line = n->line;
    if (!vm_charge(vm, COST_STEP) || !vm_enter(vm) || !eval_node(vm, n, out)) return false;
    vm_leave(vm);
    return true;
}
