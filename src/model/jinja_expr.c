/* Expressions to a tree, with the precedence that jinja2 gives: if, or, and, not, comparisons, + -, ~,
 * * / // %, **, signs, and behind a value .name [item] (call) |filter and `is` test. */
#include "model/jinja_own.h"

#include <stdio.h>

static MUST parse_unary(struct parser *p, bool with_filter, struct node **out);
static MUST parse_primary(struct parser *p, unsigned flags, struct node **out);

/* Appends to a list of nodes whose end is at *tail. */
static void append(struct node ***tail, struct node *n) {
    **tail = n;
    *tail = &n->next;
}

static MUST parse_name(struct parser *p, struct value *name) {
    if (p->now.kind != T_NAME) return parse_fail(p, "a name is missing");
    *name = p->now.v;
    return parse_next(p);
}

/* --- what stands behind a value --- */

/* One argument: value, name=value, *values or **values. */
static MUST parse_arg(struct parser *p, unsigned *seen, struct node **out) {
    enum { KEYWORD = 1, STAR = 2, STARS = 4 };
    bool is_stars = parse_is_op(p, OP_POW);
    if (is_stars || parse_is_op(p, '*')) {
        unsigned bit = is_stars ? STARS : STAR;
        if (*seen & (bit | STARS)) return parse_fail(p, "an argument stands in the wrong place");
        *seen |= bit;
        return parse_next(p) && parse_node(p, is_stars ? N_STARS : N_STAR, out) &&
               parse_expression(p, true, &(*out)->a);
    }
    if (p->now.kind == T_NAME) {
        if (!parse_look(p)) return false;
        if (p->ahead.kind == T_OP && p->ahead.op == '=') {
            if (*seen & STARS) return parse_fail(p, "an argument stands in the wrong place");
            *seen |= KEYWORD;
            return parse_node(p, N_KEYWORD, out) && parse_name(p, &(*out)->v) && parse_next(p) &&
                   parse_expression(p, true, &(*out)->a);
        }
    }
    if (*seen) return parse_fail(p, "an argument stands in the wrong place");
    return parse_expression(p, true, out);
}

static MUST parse_args(struct parser *p, struct node **out) {
    struct node **tail = out;
    unsigned seen = 0;
    if (!parse_want_op(p, '(')) return false;
    while (!parse_is_op(p, ')')) {
        struct node *n;
        if (tail != out && !parse_want_op(p, ',')) return false;
        if (parse_is_op(p, ')')) break;
        if (!parse_arg(p, &seen, &n)) return false;
        append(&tail, n);
    }
    return parse_next(p);
}

static MUST parse_call(struct parser *p, struct node *callee, struct node **out) {
    if (!parse_node(p, N_CALL, out)) return false;
    (*out)->a = callee;
    return parse_args(p, &(*out)->b);
}

/* Part `which` of a slice, where it is written. */
static MUST parse_bound(struct parser *p, struct node **out) {
    if (parse_is_op(p, ':') || parse_is_op(p, ']') || parse_is_op(p, ',')) return true;
    return parse_expression(p, true, out);
}

static MUST parse_subscript(struct parser *p, struct node *of, struct node **out) {
    struct node *first = NULL;
    if (!parse_next(p) || !parse_node(p, N_ITEM, out)) return false;
    struct node *n = *out;
    n->a = of;
    if (parse_is_op(p, ']')) return parse_fail(p, "a subscript is empty");
    if (!parse_bound(p, &first)) return false;
    if (!parse_is_op(p, ':')) {
        n->b = first;
        if (parse_is_op(p, ',')) return parse_fail(p, "a subscript of several parts is not known");
        return parse_want_op(p, ']');
    }
    n->kind = N_SLICE;
    n->b = first;
    if (!parse_next(p) || !parse_bound(p, &n->c)) return false;
    if (parse_is_op(p, ':') && !(parse_next(p) && parse_bound(p, &n->d))) return false;
    return parse_want_op(p, ']');
}

static MUST parse_dot(struct parser *p, struct node *of, struct node **out) {
    if (!parse_next(p)) return false;
    if (p->now.kind == T_INT) {
        if (!parse_node(p, N_ITEM, out)) return false;
        (*out)->a = of;
        if (!parse_node(p, N_CONST, &(*out)->b)) return false;
        (*out)->b->v = p->now.v;
        return parse_next(p);
    }
    if (!parse_node(p, N_ATTR, out)) return false;
    (*out)->a = of;
    return parse_name(p, &(*out)->v);
}

static MUST parse_postfix(struct parser *p, struct node **n) {
    for (;;) {
        bool ok = true;
        if (parse_is_op(p, '.')) {
            ok = parse_dot(p, *n, n);
        } else if (parse_is_op(p, '[')) {
            ok = parse_subscript(p, *n, n);
        } else if (parse_is_op(p, '(')) {
            ok = parse_call(p, *n, n);
        } else {
            return true;
        }
        if (!ok) return false;
    }
}

/* A name with dots. */
static MUST parse_dotted(struct parser *p, struct value *name) {
    if (!parse_name(p, name)) return false;
    while (parse_is_op(p, '.')) {
        struct value more = {0};
        if (!parse_next(p) || !parse_name(p, &more)) return false;
        name->len = (uint32_t)(more.s + more.len - name->s);  // as it stands in the source
    }
    return true;
}

MUST parse_filters(struct parser *p, struct node *input, bool is_inline, struct node **out) {
    *out = input;
    while (is_inline || parse_is_op(p, '|')) {
        struct node *n;
        if (!is_inline && !parse_next(p)) return false;
        if (!parse_node(p, N_FILTER, &n)) return false;
        n->a = *out;
        if (!parse_dotted(p, &n->v)) return false;
        n->fn = filter_find(&n->v);
        if (!n->fn) p->unknown = n;
        if (parse_is_op(p, '(') && !parse_args(p, &n->b)) return false;
        *out = n;
        is_inline = false;
    }
    return true;
}

/* Whether a test's argument may stand here without brackets. */
static bool begins_argument(const struct parser *p) {
    switch (p->now.kind) {
    case T_STRING:
    case T_INT:
    case T_REAL: return true;
    case T_NAME:
        return !parse_is_name(p, "else") && !parse_is_name(p, "or") && !parse_is_name(p, "and");
    case T_OP: return p->now.op == '[' || p->now.op == '{';
    default: return false;
    }
}

static MUST parse_test(struct parser *p, struct node *of, struct node **out) {
    struct node *n;
    if (!parse_next(p)) return false;
    bool is_not = parse_is_name(p, "not");
    if (is_not && !parse_next(p)) return false;
    if (!parse_node(p, N_TEST, &n)) return false;
    n->a = of;
    if (!parse_dotted(p, &n->v)) return false;
    n->fn = test_find(&n->v);
    if (!n->fn) p->unknown = n;
    if (parse_is_op(p, '(')) {
        if (!parse_args(p, &n->b)) return false;
    } else if (begins_argument(p)) {
        if (parse_is_name(p, "is")) return parse_fail(p, "a test cannot follow a test");
        if (!parse_primary(p, TUPLE_PLAIN, &n->b) || !parse_postfix(p, &n->b)) return false;
    }
    *out = n;
    if (!is_not) return true;
    if (!parse_node(p, N_NOT, out)) return false;
    (*out)->a = n;
    return true;
}

static MUST parse_behind(struct parser *p, struct node **n) {
    for (;;) {
        bool ok = true;
        if (parse_is_op(p, '|')) {
            ok = parse_filters(p, *n, false, n);
        } else if (parse_is_name(p, "is")) {
            ok = parse_test(p, *n, n);
        } else if (parse_is_op(p, '(')) {
            ok = parse_call(p, *n, n);
        } else {
            return true;
        }
        if (!ok) return false;
    }
}

/* --- primaries --- */

static MUST parse_items(struct parser *p, uint16_t close, struct node **tail) {
    for (bool first = true; !parse_is_op(p, close); first = false) {
        struct node *n;
        if (!first && !parse_want_op(p, ',')) return false;
        if (parse_is_op(p, close)) break;
        if (!parse_expression(p, true, &n)) return false;
        append(&tail, n);
        if (close != '}') continue;
        if (!parse_want_op(p, ':') || !parse_expression(p, true, &n)) return false;
        append(&tail, n);
    }
    return parse_next(p);
}

static MUST parse_bracket(struct parser *p, struct node **out) {
    uint16_t op = p->now.op;
    if (!parse_enter(p) || !parse_next(p)) return false;
    bool ok = true;
    if (op == '(') {
        ok = parse_tuple(p, TUPLE_PARENS, out) && parse_want_op(p, ')');
    } else {
        ok = parse_node(p, op == '[' ? N_LIST : N_DICT, out) &&
             parse_items(p, op == '[' ? ']' : '}', &(*out)->a);
    }
    parse_leave(p);
    return ok;
}

/* Strings that follow each other are one. */
static MUST parse_strings(struct parser *p, struct node **out) {
    if (!parse_node(p, N_CONST, out)) return false;
    (*out)->v = p->now.v;
    if (!parse_next(p)) return false;
    while (p->now.kind == T_STRING) {
        struct value *v = &(*out)->v;
        char *s = pool_push(&p->t->pool, (size_t)v->len + p->now.v.len + 1);
        if (!s) return err_set(p->e, ERR_MEMORY, "no memory for the template's texts");
        memcpy(s, v->s, v->len);
        memcpy(s + v->len, p->now.v.s, p->now.v.len);
        v->s = s;
        v->len += p->now.v.len;
        if (!parse_next(p)) return false;
    }
    return true;
}

static bool constant(const struct value *name, struct value *out) {
    bool yes = value_is(name, "true") || value_is(name, "True");
    if (yes || value_is(name, "false") || value_is(name, "False")) {
        *out = value_bool(yes);
        return true;
    }
    *out = value_of(V_NONE);
    return value_is(name, "none") || value_is(name, "None");
}

/* ns.attr, where a value is put into it. */
static MUST parse_space_attr(struct parser *p, struct node **out) {
    return parse_node(p, N_SPACE_ATTR, out) && parse_symbol(p, &p->now.v, &(*out)->sym) &&
           parse_next(p) && parse_next(p) && parse_name(p, &(*out)->v);
}

static MUST parse_variable(struct parser *p, struct node **out) {
    if (!parse_node(p, N_NAME, out) || !parse_symbol(p, &p->now.v, &(*out)->sym)) return false;
    if ((*out)->sym == p->t->sym_varargs) p->spoken |= MACRO_VARARGS;
    if ((*out)->sym == p->t->sym_kwargs) p->spoken |= MACRO_KWARGS;
    if ((*out)->sym == p->t->sym_caller) p->spoken |= MACRO_CALLER;
    return parse_next(p);
}

static MUST parse_primary(struct parser *p, unsigned flags, struct node **out) {
    struct value v;
    switch (p->now.kind) {
    case T_NAME:
        if (flags & TUPLE_SPACE) {
            if (!parse_look(p)) return false;
            if (p->ahead.kind == T_OP && p->ahead.op == '.') return parse_space_attr(p, out);
        }
        if (!constant(&p->now.v, &v)) return parse_variable(p, out);
        if (!parse_node(p, N_CONST, out)) return false;
        (*out)->v = v;
        return parse_next(p);
    case T_STRING: return parse_strings(p, out);
    case T_INT:
    case T_REAL:
        if (!parse_node(p, N_CONST, out)) return false;
        (*out)->v = p->now.v;
        return parse_next(p);
    case T_OP:
        if (p->now.op == '(' || p->now.op == '[' || p->now.op == '{') return parse_bracket(p, out);
        return parse_fail(p, "a value is missing");
    default: return parse_fail(p, "a value is missing");
    }
}

/* --- operators --- */

static MUST parse_unary(struct parser *p, bool with_filter, struct node **out) {
    bool is_minus = parse_is_op(p, '-');
    if (is_minus || parse_is_op(p, '+')) {
        if (!parse_enter(p) || !parse_next(p)) return false;
        if (!parse_node(p, is_minus ? N_NEG : N_POS, out)) return false;
        if (!parse_unary(p, false, &(*out)->a)) return false;
        parse_leave(p);
    } else if (!parse_primary(p, TUPLE_PLAIN, out)) {
        return false;
    }
    return parse_postfix(p, out) && (!with_filter || parse_behind(p, out));
}

/* Operators that group from the left, by level: 0: + -, 2: * / // %, 3: **. Level 1 is ~. */
static bool is_level(const struct parser *p, int level) {
    if (p->now.kind != T_OP) return false;
    switch (p->now.op) {
    case '+':
    case '-': return level == 0;
    case '*':
    case '/':
    case '%':
    case OP_FLOOR: return level == 2;
    case OP_POW: return level == 3;
    default: return false;
    }
}

static MUST parse_math(struct parser *p, int level, struct node **out) {
    enum { CONCAT = 1, HIGHEST = 4 };
    if (level == HIGHEST) return parse_unary(p, true, out);
    if (!parse_math(p, level + 1, out)) return false;
    if (level == CONCAT && parse_is_op(p, '~')) {
        struct node *first = *out, **tail = &first->next;
        if (!parse_node(p, N_CONCAT, out)) return false;
        (*out)->a = first;
        while (parse_is_op(p, '~')) {
            struct node *n;
            if (!parse_next(p) || !parse_math(p, level + 1, &n)) return false;
            append(&tail, n);
        }
        return true;
    }
    while (is_level(p, level)) {
        struct node *n;
        if (!parse_node(p, N_BINARY, &n)) return false;
        n->op = p->now.op;
        n->a = *out;
        if (!parse_next(p) || !parse_math(p, level + 1, &n->b)) return false;
        *out = n;
    }
    return true;
}

/* The comparison that stands here, 0 for none; the first of its tokens is skipped for `not in`. */
static MUST comparison(struct parser *p, uint16_t *op) {
    static const uint16_t known[] = {OP_EQ, OP_NE, OP_LE, OP_GE, '<', '>'};
    *op = 0;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (parse_is_op(p, known[i])) *op = known[i];
    }
    if (parse_is_name(p, "in")) *op = OP_IN;
    if (parse_is_name(p, "not")) {
        if (!parse_look(p)) return false;
        if (p->ahead.kind != T_NAME || !value_is(&p->ahead.v, "in")) return true;
        *op = OP_NOT_IN;
        return parse_next(p);
    }
    return true;
}

static MUST parse_compare(struct parser *p, struct node **out) {
    uint16_t op;
    if (!parse_math(p, 0, out) || !comparison(p, &op)) return false;
    if (!op) return true;
    struct node *first = *out, **tail;
    if (!parse_node(p, N_COMPARE, out)) return false;
    (*out)->a = first;
    tail = &(*out)->b;
    while (op) {
        struct node *n;
        if (!parse_node(p, N_OPERAND, &n)) return false;
        n->op = op;
        if (!parse_next(p) || !parse_math(p, 0, &n->a)) return false;
        append(&tail, n);
        if (!comparison(p, &op)) return false;
    }
    return true;
}

static MUST parse_not(struct parser *p, struct node **out) {
    if (!parse_is_name(p, "not")) return parse_compare(p, out);
    if (!parse_enter(p) || !parse_next(p) || !parse_node(p, N_NOT, out)) return false;
    if (!parse_not(p, &(*out)->a)) return false;
    parse_leave(p);
    return true;
}

static MUST parse_logic(struct parser *p, bool is_or, struct node **out) {
    if (is_or ? !parse_logic(p, false, out) : !parse_not(p, out)) return false;
    while (parse_is_name(p, is_or ? "or" : "and")) {
        struct node *n;
        if (!parse_node(p, is_or ? N_OR : N_AND, &n)) return false;
        n->a = *out;
        if (!parse_next(p)) return false;
        if (is_or ? !parse_logic(p, false, &n->b) : !parse_not(p, &n->b)) return false;
        *out = n;
    }
    return true;
}

MUST parse_expression(struct parser *p, bool with_cond, struct node **out) {
    const struct node *unknown = p->unknown;
    if (!parse_enter(p) || !parse_logic(p, true, out)) return false;
    while (with_cond && parse_is_name(p, "if")) {
        struct node *n;
        if (!parse_next(p) || !parse_node(p, N_COND, &n)) return false;
        n->b = *out;
        *out = n;
        if (!parse_logic(p, true, &n->a)) return false;
        bool has_else = parse_is_name(p, "else");
        if (has_else && !(parse_next(p) && parse_expression(p, true, &n->c))) return false;
        p->unknown = unknown;
    }
    parse_leave(p);
    return true;
}

static bool ends_tuple(const struct parser *p, unsigned flags) {
    return p->now.kind == T_VAR_END || p->now.kind == T_BLOCK_END || parse_is_op(p, ')') ||
           (flags & TUPLE_IN && parse_is_name(p, "in")) ||
           (flags & TUPLE_RECURSIVE && parse_is_name(p, "recursive"));
}

MUST parse_tuple(struct parser *p, unsigned flags, struct node **out) {
    struct node *first = NULL, **tail = &first;
    bool is_tuple = false;
    uint32_t line = p->now.line;
    for (;;) {
        struct node *n = NULL;
        if (first && !parse_want_op(p, ',')) return false;
        if (ends_tuple(p, flags)) break;
        bool ok = flags & TUPLE_SIMPLE ? parse_primary(p, flags, &n)
                                       : parse_expression(p, !(flags & TUPLE_NO_COND), &n);
        if (!ok || !n) return false;
        append(&tail, n);
        if (!parse_is_op(p, ',') || flags & TUPLE_ONE) break;
        is_tuple = true;
    }
    *out = first;
    if (!is_tuple && first) return true;
    if (!is_tuple && !(flags & TUPLE_PARENS)) return parse_fail(p, "an expression is missing");
    if (!parse_node(p, N_TUPLE, out)) return false;
    (*out)->line = line;
    (*out)->a = first;
    return true;
}

/* Names, tuples of them, attributes of namespaces: what can be given a value. */
static bool is_target(const struct node *n) {
    if (n->kind == N_NAME || n->kind == N_SPACE_ATTR) return true;
    if (n->kind != N_TUPLE && n->kind != N_LIST) return false;
    for (const struct node *i = n->a; i; i = i->next) {
        if (!is_target(i)) return false;  // as deep as brackets are
    }
    return true;
}

MUST parse_target(struct parser *p, unsigned flags, struct node **out) {
    if (!parse_tuple(p, flags | TUPLE_SIMPLE, out)) return false;
    if (!*out || !is_target(*out)) return parse_fail(p, "a value can only be given to a name");
    return true;
}
