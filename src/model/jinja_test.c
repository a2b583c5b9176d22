/* Tests: what stands behind `is`. */
#include "model/jinja_own.h"

#include "base/unicode.h"

#include <math.h>

static MUST answer(struct value *out, bool yes) {
    *out = value_bool(yes);
    return true;
}

static MUST is_defined(struct vm *vm, struct call *c, struct value *out) {
    (void)vm;
    return answer(out, c->self.kind != V_UNDEFINED);
}

static MUST is_undefined(struct vm *vm, struct call *c, struct value *out) {
    (void)vm;
    return answer(out, c->self.kind == V_UNDEFINED);
}

static MUST is_none(struct vm *vm, struct call *c, struct value *out) {
    (void)vm;
    return answer(out, c->self.kind == V_NONE);
}

static MUST is_boolean(struct vm *vm, struct call *c, struct value *out) {
    (void)vm;
    return answer(out, c->self.kind == V_BOOL);
}

static MUST is_true(struct vm *vm, struct call *c, struct value *out) {
    (void)vm;
    return answer(out, c->self.kind == V_BOOL && c->self.yes);
}

static MUST is_false(struct vm *vm, struct call *c, struct value *out) {
    (void)vm;
    return answer(out, c->self.kind == V_BOOL && !c->self.yes);
}

static MUST is_integer(struct vm *vm, struct call *c, struct value *out) {
    (void)vm;
    return answer(out, c->self.kind == V_INT);
}

static MUST is_float(struct vm *vm, struct call *c, struct value *out) {
    (void)vm;
    return answer(out, c->self.kind == V_REAL);
}

static MUST is_number(struct vm *vm, struct call *c, struct value *out) {
    (void)vm;
    return answer(out, value_is_number(&c->self));
}

static MUST is_string(struct vm *vm, struct call *c, struct value *out) {
    (void)vm;
    return answer(out, c->self.kind == V_STR);
}

static MUST is_mapping(struct vm *vm, struct call *c, struct value *out) {
    (void)vm;
    return answer(out, c->self.kind == V_DICT);
}

/* What has a length and items: dictionaries too, and, as jinja2 has it, what is undefined. */
static MUST is_sequence(struct vm *vm, struct call *c, struct value *out) {
    (void)vm;
    uint8_t k = c->self.kind;
    return answer(out,
                  k == V_STR || k == V_LIST || k == V_TUPLE || k == V_DICT || k == V_UNDEFINED);
}

static MUST is_iterable(struct vm *vm, struct call *c, struct value *out) {
    (void)vm;
    uint8_t k = c->self.kind;
    return answer(out, k == V_STR || k == V_LIST || k == V_TUPLE || k == V_DICT || k == V_VIEW ||
                           k == V_ITER || k == V_UNDEFINED || k == V_LOOP);
}

static MUST is_callable(struct vm *vm, struct call *c, struct value *out) {
    (void)vm;
    uint8_t k = c->self.kind;
    return answer(out, k == V_MACRO || k == V_BUILTIN || k == V_METHOD || k == V_JOINER ||
                           k == V_UNDEFINED || k == V_LOOP);
}

static MUST is_escaped(struct vm *vm, struct call *c, struct value *out) {
    (void)vm;
    return answer(out, c->self.kind == V_STR && c->self.is_safe);
}

/* Letters of the one case, and none of the other. */
static MUST has_case(struct vm *vm, const struct value *v, bool is_upper, bool *yes) {
    bool any = false;
    *yes = false;
    if (!vm_charge(vm, COST_CHAR * (size_t)v->len)) return false;
    for (size_t i = 0; i < v->len;) {
        int32_t cp;
        i += utf8_step(v->s + i, v->len - i, &cp);
        if (cp < 0) continue;
        if (is_upper ? unicode_is_lower(cp) : unicode_is_upper(cp)) return true;
        any = any || (is_upper ? unicode_is_upper(cp) : unicode_is_lower(cp));
    }
    *yes = any;
    return true;
}

static MUST is_lower(struct vm *vm, struct call *c, struct value *out) {
    struct value text;
    bool yes;
    return to_str(vm, &c->self, &text) && has_case(vm, &text, false, &yes) && answer(out, yes);
}

static MUST is_upper(struct vm *vm, struct call *c, struct value *out) {
    struct value text;
    bool yes;
    return to_str(vm, &c->self, &text) && has_case(vm, &text, true, &yes) && answer(out, yes);
}

static MUST remainder_is(struct vm *vm, const struct value *v, int64_t by, int64_t want,
                         struct value *out) {
    struct value r, divisor = value_int(by), wanted = value_int(want);
    bool yes;
    if (!value_is_number(v)) return vm_fail(vm, "a %s is no number to divide", value_type(v));
    if (!value_binary(vm, '%', v, &divisor, &r) || !value_equal(vm, &r, &wanted, &yes))
        return false;
    return answer(out, yes);
}

static MUST is_even(struct vm *vm, struct call *c, struct value *out) {
    return remainder_is(vm, &c->self, 2, 0, out);
}

static MUST is_odd(struct vm *vm, struct call *c, struct value *out) {
    return remainder_is(vm, &c->self, 2, 1, out);
}

static MUST is_divisible(struct vm *vm, struct call *c, struct value *out) {
    if (c->arg[0].kind != V_INT) return vm_fail(vm, "divisibleby takes a whole number");
    return remainder_is(vm, &c->self, c->arg[0].i, 0, out);
}

static MUST is_equal(struct vm *vm, struct call *c, struct value *out) {
    bool yes;
    return value_equal(vm, &c->self, &c->arg[0], &yes) && answer(out, yes);
}

static MUST is_unequal(struct vm *vm, struct call *c, struct value *out) {
    bool yes;
    return value_equal(vm, &c->self, &c->arg[0], &yes) && answer(out, !yes);
}

static MUST is_same(struct vm *vm, struct call *c, struct value *out) {
    const struct value *a = &c->self, *b = &c->arg[0];
    bool yes = a->kind == b->kind;
    if (yes && a->kind > V_STR) yes = a->list == b->list;
    if (yes && a->kind <= V_STR && !value_equal(vm, a, b, &yes)) return false;
    return answer(out, yes);
}

static MUST is_in(struct vm *vm, struct call *c, struct value *out) {
    bool yes;
    return value_in(vm, &c->self, &c->arg[0], &yes) && answer(out, yes);
}

static MUST ordered(struct vm *vm, struct call *c, struct value *out) {
    int order;
    if (!value_order(vm, &c->self, &c->arg[0], c->name, &order)) return false;
    bool is_less = c->name[0] == 'l' || c->name[0] == '<';
    bool with_equal = !strcmp(c->name + 1, "e") || c->name[1] == '=';
    return answer(out, is_less ? order < 0 || (with_equal && !order)
                               : order > 0 || (with_equal && !order));
}

static MUST is_filter(struct vm *vm, struct call *c, struct value *out) {
    (void)vm;
    return answer(out, c->self.kind == V_STR && filter_find(&c->self));
}

static MUST is_test(struct vm *vm, struct call *c, struct value *out) {
    (void)vm;
    return answer(out, c->self.kind == V_STR && test_find(&c->self));
}

const struct builtin *test_find(const struct value *name) {
    static const struct builtin table[] = {
        {"defined", "", is_defined},
        {"undefined", "", is_undefined},
        {"none", "", is_none},
        {"boolean", "", is_boolean},
        {"true", "", is_true},
        {"false", "", is_false},
        {"integer", "", is_integer},
        {"float", "", is_float},
        {"number", "", is_number},
        {"string", "", is_string},
        {"mapping", "", is_mapping},
        {"sequence", "", is_sequence},
        {"iterable", "", is_iterable},
        {"callable", "", is_callable},
        {"escaped", "", is_escaped},
        {"lower", "", is_lower},
        {"upper", "", is_upper},
        {"even", "", is_even},
        {"odd", "", is_odd},
        {"divisibleby", "!num", is_divisible},
        {"eq", "!_other", is_equal},
        {"equalto", "!_other", is_equal},
        {"==", "!_other", is_equal},
        {"ne", "!_other", is_unequal},
        {"!=", "!_other", is_unequal},
        {"sameas", "!other", is_same},
        {"in", "!seq", is_in},
        {"lt", "!_other", ordered},
        {"lessthan", "!_other", ordered},
        {"<", "!_other", ordered},
        {"le", "!_other", ordered},
        {"<=", "!_other", ordered},
        {"gt", "!_other", ordered},
        {"greaterthan", "!_other", ordered},
        {">", "!_other", ordered},
        {"ge", "!_other", ordered},
        {">=", "!_other", ordered},
        {"filter", "", is_filter},
        {"test", "", is_test},
    };
    return builtin_find(table, sizeof table / sizeof *table, name);
}
