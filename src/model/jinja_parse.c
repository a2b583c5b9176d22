/* Statements to a tree, and the template as a whole. */
#include "model/jinja_own.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

/* --- tools --- */

bool parse_fail(struct parser *p, const char *fmt, ...) {
    char what[200];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    int len = (int)(p->now.v.len < 40 ? p->now.v.len : 40);
    switch (p->now.kind) {
    case T_NAME:
        return err_set(p->e, ERR_FORMAT, "line %u: %s before \"%.*s\"", p->now.line, what, len,
                       p->now.v.s);
    case T_OP:
        return err_set(p->e, ERR_FORMAT, "line %u: %s before \"%c\"", p->now.line, what,
                       (char)p->now.op);
    case T_END: return err_set(p->e, ERR_FORMAT, "line %u: %s at the end", p->now.line, what);
    default: return err_set(p->e, ERR_FORMAT, "line %u: %s", p->now.line, what);
    }
}

MUST parse_next(struct parser *p) {
    if (p->has_ahead) {
        p->now = p->ahead;
        p->has_ahead = false;
        return true;
    }
    return lex_next(&p->lex, &p->now, p->e);
}

MUST parse_look(struct parser *p) {
    if (p->has_ahead) return true;
    p->has_ahead = lex_next(&p->lex, &p->ahead, p->e);
    return p->has_ahead;
}

bool parse_is_op(const struct parser *p, uint16_t op) {
    return p->now.kind == T_OP && p->now.op == op;
}

bool parse_is_name(const struct parser *p, const char *name) {
    return p->now.kind == T_NAME && value_is(&p->now.v, name);
}

MUST parse_want_op(struct parser *p, uint16_t op) {
    if (parse_is_op(p, op)) return parse_next(p);
    return parse_fail(p, "\"%c\" is missing", (char)op);
}

MUST parse_node(struct parser *p, enum node_kind kind, struct node **out) {
    *out = pool_push(&p->t->pool, sizeof **out);
    if (!*out) {
        return err_set(p->e, ERR_MEMORY, "the template needs more than %d MiB of memory",
                       JINJA_MEMORY >> 20);
    }
    (*out)->kind = (uint8_t)kind;
    (*out)->line = p->now.line;
    return true;
}

/* The place in s->order of the name, or of the first behind it. Halving, so that no choice of names
 * makes a template of many slow to read. */
static uint32_t symbol_place(const struct symbols *s, const struct value *name, bool *is_known) {
    uint32_t from = 0, to = s->n;
    *is_known = false;
    while (from < to && !*is_known) {
        uint32_t mid = (from + to) / 2;
        const struct value *v = &s->name[s->order[mid]];
        int cmp = (v->len > name->len) - (v->len < name->len);
        if (!cmp) cmp = memcmp(v->s, name->s, v->len);
        if (!cmp) *is_known = true;
        if (cmp < 0) from = mid + 1;
        if (cmp >= 0) to = mid;
    }
    return to;
}

MUST parse_symbol(struct parser *p, const struct value *name, uint32_t *sym) {
    struct symbols *s = &p->t->symbols;
    bool is_known;
    uint32_t place = symbol_place(s, name, &is_known);
    *sym = is_known ? s->order[place] : s->n;
    if (is_known) return true;
    if (s->n == MOST_SYMBOLS) {
        return err_set(p->e, ERR_LIMIT, "line %u: more than %d names", p->now.line, MOST_SYMBOLS);
    }
    if (s->n == s->cap) {
        uint32_t cap = s->cap ? 2 * s->cap : 32;
        struct value *more = pool_push(&p->t->pool, cap * sizeof *more);
        if (!more) return err_set(p->e, ERR_MEMORY, "no memory for the template's names");
        if (s->n) memcpy(more, s->name, s->n * sizeof *more);
        s->name = more;
        s->cap = cap;
    }
    memmove(s->order + place + 1, s->order + place, (s->n - place) * sizeof *s->order);
    s->order[place] = (uint16_t)s->n;
    s->name[s->n++] = *name;
    return true;
}

MUST parse_enter(struct parser *p) {
    if (p->nest++ < JINJA_NEST) return true;
    return err_set(p->e, ERR_LIMIT, "line %u: it is nested more than %d deep", p->now.line,
                   JINJA_NEST);
}

void parse_leave(struct parser *p) {
    p->nest--;
}

MUST parse_known(struct parser *p, const struct node *before) {
    const struct node *n = p->unknown;
    if (n == before) return true;
    return err_set(p->e, ERR_FORMAT, "line %u: there is no %s \"%.*s\"", n->line,
                   n->kind == N_TEST ? "test" : "filter", (int)(n->v.len < 60 ? n->v.len : 60),
                   n->v.s);
}

static MUST word(struct parser *p, const char *name) {
    if (parse_is_name(p, name)) return parse_next(p);
    return parse_fail(p, "\"%s\" is missing", name);
}

static MUST block_end(struct parser *p) {
    if (p->now.kind == T_BLOCK_END) return parse_next(p);
    return parse_fail(p, "%%} is missing");
}

/* --- bodies --- */

static MUST parse_statement(struct parser *p, struct node **out);

/* {{ values }} */
static MUST parse_output(struct parser *p, struct node **out) {
    if (!parse_next(p) || !parse_node(p, N_OUTPUT, out)) return false;
    if (!parse_tuple(p, TUPLE_PLAIN, &(*out)->a)) return false;
    if (p->now.kind == T_VAR_END) return parse_next(p);
    return parse_fail(p, "}} is missing");
}

/* Up to one of the words (NULL: the end of the template), which becomes the present token. */
static MUST parse_until(struct parser *p, const char *const *ends, struct node **out) {
    struct node **tail = out;
    for (;;) {
        struct node *n = NULL;
        switch (p->now.kind) {
        case T_END:
            if (!ends) return true;
            return parse_fail(p, "{%% %s %%} is missing", ends[0]);
        case T_TEXT:
            if (!parse_node(p, N_TEXT, &n)) return false;
            n->v = p->now.v;
            if (!parse_next(p)) return false;
            break;
        case T_VAR_BEGIN:
            if (!parse_output(p, &n)) return false;
            break;
        default:
            if (!parse_next(p)) return false;
            for (size_t i = 0; ends && ends[i]; i++) {
                if (parse_is_name(p, ends[i])) return true;
            }
            if (!parse_statement(p, &n) || !block_end(p)) return false;
            break;
        }
        if (!n) continue;
        *tail = n;
        tail = &n->next;
    }
}

MUST parse_body(struct parser *p, struct node **out) {
    return parse_next(p) && parse_until(p, NULL, out);
}

/* The rest of a statement's first tag, its body, and the word that ends it. */
static MUST parse_block(struct parser *p, const char *end, struct node **out) {
    const char *const ends[] = {end, NULL};
    return block_end(p) && parse_until(p, ends, out) && parse_next(p);
}

/* --- statements --- */

static MUST parse_branches(struct parser *p, struct node **out) {
    static const char *const ends[] = {"endif", "elif", "else", NULL};
    for (;;) {
        if (!parse_node(p, N_IF, out) || !parse_next(p)) return false;
        struct node *n = *out;
        if (!parse_tuple(p, TUPLE_NO_COND, &n->a)) return false;
        if (!block_end(p) || !parse_until(p, ends, &n->b)) return false;
        if (parse_is_name(p, "elif")) {
            out = &n->c;
            continue;
        }
        if (parse_is_name(p, "endif")) return parse_next(p);
        return parse_next(p) && parse_block(p, "endif", &n->c);
    }
}

static MUST parse_if(struct parser *p, struct node **out) {
    const struct node *unknown = p->unknown;
    bool ok = parse_branches(p, out);
    p->unknown = unknown;
    return ok;
}

static MUST parse_for(struct parser *p, struct node **out) {
    static const char *const ends[] = {"endfor", "else", NULL};
    if (!parse_node(p, N_FOR, out) || !parse_next(p)) return false;
    struct node *n = *out;
    if (!parse_target(p, TUPLE_IN, &n->a) || !word(p, "in")) return false;
    if (!parse_tuple(p, TUPLE_NO_COND | TUPLE_RECURSIVE, &n->b)) return false;
    const struct node *unknown = p->unknown;
    if (parse_is_name(p, "if")) {
        if (!parse_next(p) || !parse_expression(p, true, &n->e)) return false;
    }
    if (parse_is_name(p, "recursive")) {
        n->flag = true;
        if (!parse_next(p)) return false;
    }
    p->n_loop++;
    if (!block_end(p) || !parse_until(p, ends, &n->c)) return false;
    p->n_loop--;
    bool has_else = parse_is_name(p, "else");
    if (!parse_next(p) || (has_else && !parse_block(p, "endfor", &n->d))) return false;
    return parse_known(p, unknown);
}

static MUST parse_set(struct parser *p, struct node **out) {
    if (!parse_node(p, N_SET, out) || !parse_next(p)) return false;
    struct node *n = *out;
    if (!parse_target(p, TUPLE_SPACE, &n->a)) return false;
    if (parse_is_op(p, '=')) return parse_next(p) && parse_tuple(p, TUPLE_PLAIN, &n->b);
    n->kind = N_CAPTURE;
    const struct node *unknown = p->unknown;
    return parse_filters(p, NULL, false, &n->b) && parse_block(p, "endset", &n->c) &&
           parse_known(p, unknown);
}

static MUST parse_params(struct parser *p, struct node **out) {
    struct node **tail = out;
    bool has_default = false;
    if (!parse_want_op(p, '(')) return false;
    while (!parse_is_op(p, ')')) {
        struct node *n;
        if (tail != out && !parse_want_op(p, ',')) return false;
        if (p->now.kind != T_NAME) return parse_fail(p, "a parameter's name is missing");
        if (!parse_node(p, N_PARAM, &n) || !parse_symbol(p, &p->now.v, &n->sym)) return false;
        if (!parse_next(p)) return false;
        if (parse_is_op(p, '=')) {
            has_default = true;
            if (!parse_next(p) || !parse_expression(p, true, &n->a)) return false;
        } else if (has_default) {
            return parse_fail(p, "a parameter without default follows one with");
        }
        *tail = n;
        tail = &n->next;
    }
    return parse_next(p);
}

/* A body that is a function of its own: no break out of it. */
static MUST parse_function(struct parser *p, const char *end, struct node *n) {
    unsigned n_loop = p->n_loop;
    uint16_t spoken = p->spoken;
    const struct node *unknown = p->unknown;
    p->n_loop = 0;
    p->spoken = 0;
    bool ok = parse_block(p, end, &n->c) && parse_known(p, unknown);
    n->op = p->spoken;
    p->n_loop = n_loop;
    p->spoken |= spoken;
    return ok;
}

static MUST parse_macro(struct parser *p, struct node **out) {
    if (!parse_node(p, N_MACRO, out) || !parse_next(p)) return false;
    struct node *n = *out;
    if (p->now.kind != T_NAME) return parse_fail(p, "the macro's name is missing");
    n->v = p->now.v;
    return parse_symbol(p, &p->now.v, &n->sym) && parse_next(p) && parse_params(p, &n->a) &&
           parse_function(p, "endmacro", n);
}

static MUST parse_caller(struct parser *p, struct node **out) {
    if (!parse_node(p, N_CALLER, out) || !parse_next(p)) return false;
    struct node *n = *out;
    n->v = value_text("caller");
    if (parse_is_op(p, '(') && !parse_params(p, &n->a)) return false;
    if (!parse_expression(p, true, &n->b)) return false;
    if (n->b->kind != N_CALL) return parse_fail(p, "a call is missing");
    return parse_function(p, "endcall", n);
}

static MUST parse_filtered(struct parser *p, struct node **out) {
    const struct node *unknown = p->unknown;
    if (!parse_node(p, N_FILTERED, out) || !parse_next(p)) return false;
    return parse_filters(p, NULL, true, &(*out)->b) && parse_block(p, "endfilter", &(*out)->c) &&
           parse_known(p, unknown);
}

static MUST parse_with(struct parser *p, struct node **out) {
    if (!parse_node(p, N_WITH, out) || !parse_next(p)) return false;
    struct node *n = *out, **target = &n->a, **value = &n->b;
    while (p->now.kind != T_BLOCK_END) {
        if (target != &n->a && !parse_want_op(p, ',')) return false;
        if (!parse_target(p, TUPLE_ONE, target) || !parse_want_op(p, '=')) return false;
        if (!parse_expression(p, true, value)) return false;
        target = &(*target)->next;
        value = &(*value)->next;
    }
    const struct node *unknown = p->unknown;
    return parse_block(p, "endwith", &n->c) && parse_known(p, unknown);
}

static MUST parse_scope(struct parser *p, struct node **out, bool is_block) {
    if (!parse_node(p, N_SCOPE, out) || !parse_next(p)) return false;
    if (!is_block) return parse_function(p, "endgeneration", *out);
    if (p->now.kind != T_NAME) return parse_fail(p, "the block's name is missing");
    if (!parse_next(p) || !parse_function(p, "endblock", *out)) return false;
    return p->now.kind != T_NAME || parse_next(p);
}

/* Nothing is escaped on its way out here, so that what asks for it is refused. */
static MUST parse_autoescape(struct parser *p, struct node **out) {
    if (!parse_node(p, N_SCOPE, out) || !parse_next(p)) return false;
    if (!parse_is_name(p, "false") && !parse_is_name(p, "False")) {
        return err_set(p->e, ERR_UNSUPPORTED,
                       "line %u: {%% autoescape %%} is known with false alone", p->now.line);
    }
    return parse_next(p) && parse_function(p, "endautoescape", *out);
}

static MUST parse_jump(struct parser *p, struct node **out) {
    bool is_break = parse_is_name(p, "break");
    if (!p->n_loop) return parse_fail(p, "there is no loop to leave");
    return parse_node(p, is_break ? N_BREAK : N_CONTINUE, out) && parse_next(p);
}

static MUST parse_print(struct parser *p, struct node **out) {
    return parse_node(p, N_OUTPUT, out) && parse_next(p) && parse_expression(p, true, &(*out)->a);
}

static MUST refuse(struct parser *p) {
    static const char *const known[] = {"import", "from", "include", "extends",
                                        "trans",  "do",   "debug"};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (!parse_is_name(p, known[i])) continue;
        return err_set(p->e, ERR_UNSUPPORTED, "line %u: {%% %s %%} is not known here", p->now.line,
                       known[i]);
    }
    return parse_fail(p, "no statement begins so,");
}

static MUST dispatch(struct parser *p, struct node **out) {
    if (parse_is_name(p, "if")) return parse_if(p, out);
    if (parse_is_name(p, "for")) return parse_for(p, out);
    if (parse_is_name(p, "set")) return parse_set(p, out);
    if (parse_is_name(p, "macro")) return parse_macro(p, out);
    if (parse_is_name(p, "call")) return parse_caller(p, out);
    if (parse_is_name(p, "filter")) return parse_filtered(p, out);
    if (parse_is_name(p, "with")) return parse_with(p, out);
    if (parse_is_name(p, "generation")) return parse_scope(p, out, false);
    if (parse_is_name(p, "block")) return parse_scope(p, out, true);
    if (parse_is_name(p, "autoescape")) return parse_autoescape(p, out);
    if (parse_is_name(p, "print")) return parse_print(p, out);
    if (parse_is_name(p, "break") || parse_is_name(p, "continue")) return parse_jump(p, out);
    return refuse(p);
}

static MUST parse_statement(struct parser *p, struct node **out) {
    if (!parse_enter(p) || !dispatch(p, out)) return false;
    parse_leave(p);
    return true;
}

/* --- the template --- */

static MUST compile(struct parser *p, const char *text, size_t len) {
    static const struct {
        const char *name;
        size_t at;
    } known[] = {{"loop", offsetof(struct jinja, sym_loop)},
                 {"caller", offsetof(struct jinja, sym_caller)},
                 {"varargs", offsetof(struct jinja, sym_varargs)},
                 {"kwargs", offsetof(struct jinja, sym_kwargs)}};
    struct node *body = NULL;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        struct value name = value_text(known[i].name);
        uint32_t *sym = (uint32_t *)((char *)p->t + known[i].at);
        if (!parse_symbol(p, &name, sym)) return false;
    }
    if (!lex_open(&p->lex, &p->t->pool, text, len, p->e) || !parse_body(p, &body)) return false;
    if (!parse_known(p, NULL)) return false;
    p->t->body = body;
    return true;
}

MUST jinja_compile(struct jinja **out, const char *text, size_t len, struct err *e) {
    *out = NULL;
    if (len > JINJA_SOURCE) {
        return err_set(e, ERR_LIMIT, "the chat template has %zu bytes, %d is the most taken here",
                       len, JINJA_SOURCE);
    }
    struct jinja *t = calloc(1, sizeof *t);
    if (!t) return err_set(e, ERR_MEMORY, "no memory for the chat template");
    struct parser p = {.t = t, .e = e};
    if (!compile(&p, text, len)) {
        jinja_free(t);
        return err_in(e, "the chat template");
    }
    *out = t;
    return true;
}

void jinja_free(struct jinja *t) {
    if (!t) return;
    pool_free(&t->pool);
    free(t);
}
