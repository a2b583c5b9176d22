/* Running statements: output, loops, macros; and the rendering as a whole. */
#include "model/jinja_own.h"

#include <stdlib.h>

/* A loop under way. What it goes through is a list; a filter is asked item by item. */
struct loop {
    struct list *all;
    size_t at;  // of all: looked at so far
    const struct node *node;
    struct scope *scope;  // around the loop
    bool has_now, has_next, has_before, has_changed;
    struct value now, next, before, changed;
    int64_t index0, depth0;
};

/* A scope that outlives the C function: macros defined in it keep it. */
static MUST push_scope(struct vm *vm, struct scope *up, struct scope **out) {
    if (!vm_push(vm, sizeof **out, out)) return false;
    **out = (struct scope){.up = up};
    vm->scope = *out;
    return true;
}

/* The scope again for a loop's next round, unless a macro holds on to it. */
static MUST next_scope(struct vm *vm, struct scope *up, struct scope **own) {
    struct scope *s = *own;
    if (!s || s->is_kept) return push_scope(vm, up, own);
    while (s->first) {
        struct var *v = s->first;
        s->first = v->next;
        v->next = vm->spare;
        vm->spare = v;
    }
    vm->scope = s;
    return true;
}

/* --- giving values --- */

static MUST assign_items(struct vm *vm, const struct node *target, const struct value *v) {
    struct list *l;
    size_t i = 0, want = 0;
    for (const struct node *n = target->a; n; n = n->next) want++;
    if (!value_items(vm, v, &l)) return false;
    if (l->n != want) {
        return vm_fail(vm, "%zu names cannot take %zu values", want, l->n);
    }
    for (const struct node *n = target->a; n; n = n->next) {
        if (!exec_assign(vm, n, l->item[i++])) return false;
    }
    return true;
}

MUST exec_assign(struct vm *vm, const struct node *target, struct value v) {
    struct value space;
    vm->line = target->line;
    if (!vm_charge(vm, COST_ITEM)) return false;
    switch (target->kind) {
    case N_NAME: return vm_assign(vm, target->sym, v);
    case N_SPACE_ATTR:
        if (!vm_lookup(vm, target->sym, &space)) return false;
        if (space.kind != V_SPACE) {
            return vm_fail(vm, "an attribute can only be set on a namespace");
        }
        return dict_put(vm, space.dict, &target->v, v);
    default: return assign_items(vm, target, &v);
    }
}

/* --- output --- */

static MUST exec_output(struct vm *vm, const struct node *n) {
    struct value v;
    return eval(vm, n->a, &v) && print_str(vm, vm->out, &v);
}

/* What a body prints, as a string. */
static MUST capture(struct vm *vm, const struct node *body, struct value *out) {
    struct text t = {0}, *before = vm->out;
    // cppcheck-suppress autoVariables ; only until the body is done
    vm->out = &t;
    bool ok = exec(vm, body);
    vm->out = before;
    if (!ok) return false;
    *out = text_value(&t);
    return true;
}

static MUST capture_scoped(struct vm *vm, const struct node *body, const struct node *filters,
                           struct value *out) {
    struct scope *before = vm->scope, *own;
    struct value text;
    if (!push_scope(vm, before, &own) || !capture(vm, body, &text)) return false;
    vm->scope = before;
    *out = text;
    return !filters || eval_filter(vm, filters, &text, out);
}

/* --- loops --- */

static MUST bind_item(struct vm *vm, const struct loop *l, const struct value *item) {
    return exec_assign(vm, l->node->a, *item);
}

/* Whether the loop's filter takes the item; it knows the loop's names, not `loop`. */
static MUST is_wanted(struct vm *vm, const struct loop *l, const struct value *item, bool *yes) {
    struct scope *before = vm->scope, *own;
    struct value v;
    *yes = true;
    if (!l->node->e) return true;
    if (!push_scope(vm, l->scope, &own)) return false;
    if (!bind_item(vm, l, item) || !eval(vm, l->node->e, &v)) return false;
    vm->scope = before;
    *yes = value_truth(&v);
    return true;
}

/* Fills l->next, if there is one more. */
static MUST look_ahead(struct vm *vm, struct loop *l) {
    while (!l->has_next && l->at < l->all->n) {
        const struct value *item = &l->all->item[l->at++];
        if (!vm_charge(vm, COST_STEP) || !is_wanted(vm, l, item, &l->has_next)) return false;
        l->next = *item;
    }
    return true;
}

/* All that is to come is filtered now. */
static MUST loop_rest(struct vm *vm, struct loop *l, int64_t *n) {
    struct list *rest;
    if (l->node->e) {
        if (!list_new(vm, 0, &rest)) return false;
        for (; l->at < l->all->n; l->at++) {
            bool yes;
            if (!vm_charge(vm, COST_STEP)) return false;
            if (!is_wanted(vm, l, &l->all->item[l->at], &yes)) return false;
            if (yes && !list_add(vm, rest, l->all->item[l->at])) return false;
        }
        struct node *bare;
        if (!vm_push(vm, sizeof *bare, &bare)) return false;
        *bare = *l->node;
        bare->e = NULL;
        l->node = bare;
        l->all = rest;
        l->at = 0;
    }
    *n = (int64_t)(l->all->n - l->at) + l->has_next;
    return true;
}

MUST loop_attr(struct vm *vm, struct loop *l, const struct value *name, struct value *out) {
    static const char *const counts[] = {"length", "revindex", "revindex0"};
    static const struct value before = {.kind = V_STR, .s = "loop.previtem", .len = 13},
                              next = {.kind = V_STR, .s = "loop.nextitem", .len = 13};
    int64_t rest;
    *out = value_of(V_MISSING);
    if (value_is(name, "index")) *out = value_int(l->index0 + 1);
    if (value_is(name, "index0")) *out = value_int(l->index0);
    if (value_is(name, "first")) *out = value_bool(l->index0 == 0);
    if (value_is(name, "depth")) *out = value_int(l->depth0 + 1);
    if (value_is(name, "depth0")) *out = value_int(l->depth0);
    if (value_is(name, "previtem")) *out = l->has_before ? l->before : value_undefined(&before);
    for (int i = 0; i < 3; i++) {
        if (!value_is(name, counts[i])) continue;
        if (!loop_rest(vm, l, &rest)) return false;
        *out = value_int(i == 0 ? l->index0 + 1 + rest : i == 1 ? rest + 1 : rest);
    }
    bool is_last = value_is(name, "last");
    if (is_last || value_is(name, "nextitem")) {
        if (!look_ahead(vm, l)) return false;
        *out = is_last ? value_bool(!l->has_next) : l->has_next ? l->next : value_undefined(&next);
    }
    return true;
}

/* loop.cycle() and loop.changed() are methods; see method_find(). */
static MUST loop_cycle(struct vm *vm, struct call *c, struct value *out) {
    if (!c->args->n_pos) return vm_fail(vm, "loop.cycle needs values");
    *out = c->args->pos[(uint64_t)c->self.loop->index0 % c->args->n_pos];
    return true;
}

static MUST loop_changed(struct vm *vm, struct call *c, struct value *out) {
    struct loop *l = c->self.loop;
    struct list *items;
    bool same = false;
    if (!list_new(vm, c->args->n_pos, &items)) return false;
    for (size_t i = 0; i < c->args->n_pos; i++) items->item[items->n++] = c->args->pos[i];
    struct value now = value_list(V_TUPLE, items);
    if (l->has_changed && !value_equal(vm, &l->changed, &now, &same)) return false;
    l->changed = now;
    l->has_changed = true;
    *out = value_bool(!same);
    return true;
}

const struct builtin *loop_method_find(const struct value *name) {
    static const struct builtin table[] = {{"cycle", "*", loop_cycle},
                                           {"changed", "*", loop_changed}};
    return builtin_find(table, sizeof table / sizeof *table, name);
}

static MUST run_loop(struct vm *vm, struct loop *l) {
    struct scope *outer = vm->scope;
    struct value self = value_of(V_LOOP);
    struct scope *own = NULL;
    bool any = false, is_through = false;  // a round: begun, come to its end
    self.loop = l;
    for (;;) {
        if (!look_ahead(vm, l)) return false;
        if (!l->has_next) break;
        if (any) {
            l->before = l->now;
            l->has_before = true;
            l->index0++;
        }
        any = true;
        l->now = l->next;
        l->has_next = false;
        if (!next_scope(vm, l->scope, &own) || !vm_assign(vm, vm->t->sym_loop, self)) return false;
        if (!bind_item(vm, l, &l->now) || !exec(vm, l->node->c)) return false;
        enum flow flow = vm->flow;
        vm->flow = FLOW_ON;
        if (flow == FLOW_BREAK) break;
        is_through = is_through || flow == FLOW_ON;
    }
    vm->scope = outer;
    if (is_through || !l->node->d) return true;
    if (!push_scope(vm, l->scope, &own) || !exec(vm, l->node->d)) return false;
    vm->scope = outer;
    return true;
}

static MUST start_loop(struct vm *vm, const struct node *n, const struct value *over,
                       struct scope *scope, int64_t depth0) {
    struct loop *l;
    if (!vm_push(vm, sizeof *l, &l)) return false;
    *l = (struct loop){.node = n, .scope = scope, .depth0 = depth0};
    return value_items(vm, over, &l->all) && run_loop(vm, l);
}

static MUST exec_for(struct vm *vm, const struct node *n) {
    struct value over;
    if (!eval(vm, n->b, &over)) return false;
    vm->line = n->line;
    return start_loop(vm, n, &over, vm->scope, 0);
}

/* loop(items) of a recursive loop. */
MUST loop_call(struct vm *vm, struct loop *l, const struct args *a, struct value *out) {
    struct text t = {0}, *before = vm->out;
    struct scope *scope = vm->scope;
    if (!l->node->flag) return vm_fail(vm, "the loop is not recursive");
    if (a->n_pos != 1 || a->n_kw) return vm_fail(vm, "loop() takes one argument");
    // cppcheck-suppress autoVariables ; only until the loop is done
    vm->out = &t;
    bool ok = vm_enter(vm) && start_loop(vm, l->node, a->pos, l->scope, l->depth0 + 1);
    vm->out = before;
    if (!ok) return false;
    vm_leave(vm);
    vm->scope = scope;
    *out = text_value(&t);
    return true;
}

/* --- macros --- */

static MUST make_macro(struct vm *vm, const struct node *n, struct value *out) {
    struct macro *m;
    if (!vm_push(vm, sizeof *m, &m)) return false;
    *m = (struct macro){.node = n, .scope = vm->scope, .name = n->v};
    for (struct scope *s = vm->scope; s && !s->is_kept; s = s->up) s->is_kept = true;
    *out = value_of(V_MACRO);
    out->macro = m;
    return true;
}

/* The keyword argument of this name. *at: a->n_kw when there is none. */
static MUST keyword_for(struct vm *vm, const struct args *a, uint32_t sym, size_t *at) {
    bool same = false;
    for (*at = 0; *at < a->n_kw; ++*at) {
        if (!value_same(vm, &a->kw[*at].name, &vm->t->symbols.name[sym], &same)) return false;
        if (same) break;
    }
    return true;
}

static MUST bind_params(struct vm *vm, const struct macro *m, const struct args *a, size_t *n_pos,
                        size_t *n_kw) {
    size_t at;
    for (const struct node *p = m->node->a; p; p = p->next) {
        struct value v = value_undefined(&vm->t->symbols.name[p->sym]);
        if (!vm_charge(vm, COST_ITEM) || !keyword_for(vm, a, p->sym, &at)) return false;
        bool has_kw = at < a->n_kw;
        if (*n_pos < a->n_pos) {
            if (has_kw) return vm_fail(vm, "a macro's argument is given twice");
            v = a->pos[(*n_pos)++];
        } else if (has_kw) {
            v = a->kw[at].v;
            ++*n_kw;
        } else if (p->a && !eval(vm, p->a, &v)) {
            return false;
        }
        if (!vm_assign(vm, p->sym, v)) return false;
    }
    return true;
}

/* varargs and kwargs: what no parameter took. */
static MUST bind_rest(struct vm *vm, const struct macro *m, const struct args *a, size_t n_pos,
                      size_t n_kw) {
    struct value v;
    size_t at;
    if (!keyword_for(vm, a, vm->t->sym_caller, &at)) return false;
    bool has_caller = at < a->n_kw;
    for (const struct node *p = m->node->a; p; p = p->next) {
        has_caller = has_caller && p->sym != vm->t->sym_caller;  // a parameter took it
    }
    if (has_caller && m->node->op & MACRO_CALLER) {
        n_kw++;
        if (!vm_assign(vm, vm->t->sym_caller, a->kw[at].v)) return false;
    }
    if (m->node->op & MACRO_VARARGS) {
        struct list *l;
        if (!list_new(vm, a->n_pos, &l)) return false;
        for (; n_pos < a->n_pos; n_pos++) l->item[l->n++] = a->pos[n_pos];
        if (!vm_assign(vm, vm->t->sym_varargs, value_list(V_TUPLE, l))) return false;
    }
    if (m->node->op & MACRO_KWARGS) {
        v = value_of(V_DICT);
        if (!dict_new(vm, &v.dict)) return false;
        for (size_t i = 0; i < a->n_kw; i++) {
            bool taken = value_is(&a->kw[i].name, "caller");
            for (const struct node *p = m->node->a; p && !taken; p = p->next) {
                if (!vm_charge(vm, COST_ITEM) || !keyword_for(vm, a, p->sym, &at)) return false;
                taken = at == i;
            }
            if (!taken && !dict_put(vm, v.dict, &a->kw[i].name, a->kw[i].v)) return false;
        }
        n_kw = a->n_kw;
        if (!vm_assign(vm, vm->t->sym_kwargs, v)) return false;
    }
    if (n_pos == a->n_pos && n_kw == a->n_kw) return true;
    return vm_fail(vm, "macro %.*s does not take %s", (int)m->name.len, m->name.s,
                   n_pos < a->n_pos                              ? "so many arguments"
                   : has_caller && !(m->node->op & MACRO_CALLER) ? "a caller"
                                                                 : "an argument of this name");
}

MUST exec_macro(struct vm *vm, const struct macro *m, const struct args *a, struct value *out) {
    struct scope *before = vm->scope, *own;
    uint32_t line = vm->line;
    size_t n_pos = 0, n_kw = 0;
    if (!vm_enter(vm) || !push_scope(vm, m->scope, &own)) return false;
    if (!bind_params(vm, m, a, &n_pos, &n_kw) || !bind_rest(vm, m, a, n_pos, n_kw)) return false;
    if (!capture(vm, m->node->c, out)) return false;
    vm->scope = before;
    vm->line = line;
    vm_leave(vm);
    return true;
}

/* {% call %}: the call, with one argument more. */
static MUST exec_caller(struct vm *vm, const struct node *n) {
    struct value fn, caller, out;
    struct args a;
    if (!eval(vm, n->b->a, &fn) || !eval_args(vm, n->b->b, &a)) return false;
    if (!make_macro(vm, n, &caller)) return false;
    struct keyword *kw;
    if (!vm_push(vm, (a.n_kw + 1) * sizeof *kw, &kw)) return false;
    if (a.n_kw) memcpy(kw, a.kw, a.n_kw * sizeof *kw);
    kw[a.n_kw++] = (struct keyword){value_text("caller"), caller};
    a.kw = kw;
    return eval_call(vm, &fn, &a, &out) && print_str(vm, vm->out, &out);
}

/* --- the other statements --- */

static MUST exec_if(struct vm *vm, const struct node *n) {
    while (n && n->kind == N_IF) {
        struct value v;
        if (!eval(vm, n->a, &v)) return false;
        if (value_truth(&v)) return exec(vm, n->b);
        /* An elif is an if alone in the else branch. */
        if (!n->c || n->c->kind != N_IF || n->c->next) return exec(vm, n->c);
        n = n->c;
    }
    return true;
}

static MUST exec_set(struct vm *vm, const struct node *n) {
    struct value v;
    bool ok = n->kind == N_SET ? eval(vm, n->b, &v) : capture_scoped(vm, n->c, n->b, &v);
    return ok && exec_assign(vm, n->a, v);
}

static MUST exec_with(struct vm *vm, const struct node *n) {
    struct scope *before = vm->scope, *own;
    struct list values = {0};
    size_t i = 0;
    for (const struct node *e = n->b; e; e = e->next) {
        struct value v;
        if (!eval(vm, e, &v) || !list_add(vm, &values, v)) return false;
    }
    if (!push_scope(vm, before, &own)) return false;
    for (const struct node *t = n->a; t && i < values.n; t = t->next) {
        if (!exec_assign(vm, t, values.item[i++])) return false;
    }
    if (!exec(vm, n->c)) return false;
    vm->scope = before;
    return true;
}

static MUST exec_scope(struct vm *vm, const struct node *n) {
    struct value text;
    if (!capture_scoped(vm, n->c, n->b, &text)) return false;
    if (text.kind != V_STR)
        return vm_fail(vm, "a block's filters make a %s of its text", value_type(&text));
    return text_add(vm, vm->out, &text);
}

static MUST exec_one(struct vm *vm, const struct node *n) {
    struct value v;
    vm->line = n->line;
    switch (n->kind) {
    case N_TEXT: return text_add(vm, vm->out, &n->v);
    case N_OUTPUT: return exec_output(vm, n);
    case N_IF: return exec_if(vm, n);
    case N_FOR: return exec_for(vm, n);
    case N_SET:
    case N_CAPTURE: return exec_set(vm, n);
    case N_MACRO: return make_macro(vm, n, &v) && vm_assign(vm, n->sym, v);
    case N_CALLER: return exec_caller(vm, n);
    case N_FILTERED:
    case N_SCOPE: return exec_scope(vm, n);
    case N_WITH: return exec_with(vm, n);
    case N_BREAK: vm->flow = FLOW_BREAK; return true;
    case N_CONTINUE: vm->flow = FLOW_CONTINUE; return true;
    default: return vm_fail(vm, "this is no statement");
    }
}

MUST exec(struct vm *vm, const struct node *list) {
    if (!vm_enter(vm)) return false;
    for (const struct node *n = list; n && vm->flow == FLOW_ON; n = n->next) {
        if (!vm_charge(vm, COST_STEP) || !exec_one(vm, n)) return false;
    }
    vm_leave(vm);
    return true;
}

/* --- rendering --- */

static MUST set_variables(struct vm *vm, const struct jinja_var *var, size_t n_var) {
    const struct symbols *s = &vm->t->symbols;
    if (!vm_push(vm, (s->n + 1) * sizeof *vm->global, &vm->global)) return false;
    for (size_t i = 0; i < n_var; i++) {
        bool is_data = !var[i].is_trusted;
        for (uint32_t k = 0; k < s->n; k++) {
            if (!value_is(&s->name[k], var[i].name)) continue;
            struct value *v = &vm->global[k];
            vm->swap = var[i].swap;
            vm->n_swap = var[i].n_swap;
            if (var[i].json) {
                if (!value_from_json(vm, var[i].json, is_data, v)) return false;
            } else if (!value_copy(vm, var[i].text.s, var[i].text.len, v)) {
                return false;
            }
            if (v->kind == V_STR) v->is_data = is_data;
        }
    }
    return true;
}

static MUST take_text(const struct text *t, struct jinja_text *out, struct err *e) {
    size_t n = 0;
    for (size_t i = 0; i < t->len; i++) n += !i || t->mark[i] != t->mark[i - 1];
    out->text = malloc(t->len + 1);
    out->span = malloc((n + 1) * sizeof *out->span);
    if (!out->text || !out->span) {
        jinja_text_free(out);
        return err_set(e, ERR_MEMORY, "no memory for a prompt of %zu bytes", t->len);
    }
    if (t->len) memcpy(out->text, t->s, t->len);
    out->text[t->len] = '\0';
    out->len = t->len;
    for (size_t i = 0; i < t->len; i++) {
        if (!i || t->mark[i] != t->mark[i - 1]) {
            out->span[out->n_span++] = (struct jinja_span){.at = i, .is_data = t->mark[i]};
        }
        out->span[out->n_span - 1].len++;
    }
    return true;
}

MUST jinja_render(const struct jinja *t, const struct jinja_var *var, size_t n_var, int64_t now,
                  struct jinja_text *out, struct err *e) {
    struct text text = {0};
    struct vm vm = {.t = t, .e = e, .out = &text, .now = now, .root = {.is_root = true}};
    *out = (struct jinja_text){0};
    vm.scope = &vm.root;
    bool ok = set_variables(&vm, var, n_var) && exec(&vm, t->body) && take_text(&text, out, e);
    out->n_dict = vm.n_dict;
    out->steps = vm.work / COST_STEP;
    pool_free(&vm.pool);
    return ok;
}

void jinja_text_free(struct jinja_text *out) {
    free(out->text);
    free(out->span);
    *out = (struct jinja_text){0};
}
