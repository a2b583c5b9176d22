/* jinja_own.h - what the interpreter's files share; private to jinja*.c.
 *
 * jinja_lex.c makes tokens, jinja_parse.c (statements) and jinja_expr.c (expressions) a tree of nodes,
 * jinja_exec.c and jinja_eval.c walk it. Values live in a pool that is dropped whole. Functions that
 * can fail return false with the failure in vm->e, written by vm_fail().
 */
#ifndef MODEL_JINJA_OWN_H
#define MODEL_JINJA_OWN_H

#include "model/jinja.h"

#include <string.h>

/* --- memory --- */

struct pool {
    struct pool_chunk *chunk;
    char *at, *end;
    size_t total;  // bytes taken from the system, JINJA_MEMORY at most
};
/* n bytes, zeroed, for any type; NULL past the limit or without memory. */
void *pool_push(struct pool *p, size_t n);
void pool_free(struct pool *p);

/* --- values --- */

enum value_kind {
    V_MISSING,  // an argument that was not given
    V_UNDEFINED,
    V_NONE,
    V_BOOL,
    V_INT,
    V_REAL,
    V_STR,
    V_LIST,
    V_TUPLE,
    V_DICT,
    V_VIEW,   // keys(), values(), items(): a list without subscripts
    V_ITER,   // what can be gone through once
    V_SPACE,  // namespace()
    V_LOOP,
    V_MACRO,
    V_BUILTIN,  // a global function
    V_METHOD,   // a function and the value it belongs to
    V_CYCLER,
    V_JOINER,
};

struct value {
    uint8_t kind;
    bool is_data;  // V_STR whose bytes all have one origin
    bool
        is_safe;  // V_STR that counts as escaped (Python's Markup): what is added to it gets escaped
    uint32_t len;  // V_STR, V_UNDEFINED (of the name); V_VIEW: 0 items, 1 keys, 2 values
    union {
        bool yes;
        int64_t i;
        double d;
        const char *s;  // V_STR; V_UNDEFINED: the name that was not found
        struct list *list;
        struct dict *dict;
        struct iter *iter;
        struct loop *loop;
        const struct macro *macro;
        const struct builtin *builtin;
        const struct method *method;
        struct turns *turns;
    };
    const uint8_t *mark;  // V_STR of mixed origin: for each byte 1 for data, 0 else
};

struct list {
    struct value *item;
    size_t n, cap;
    bool is_group;  // of groupby: its two items have names
};

struct dict {
    struct value *key, *val;  // [n] in order of insertion
    uint32_t n, cap;
    uint32_t *slot;  // [2 * cap] index + 1, once there are more than a few
};

struct iter {
    struct list *list;
    size_t at;
};

struct method {
    struct value self;
    const struct builtin *fn;
};

struct turns {  // cycler and joiner
    struct list *list;
    size_t at;
};

/* --- the tree --- */

enum node_kind {
    /* expressions */
    N_CONST,
    N_NAME,     // sym
    N_LIST,     // a: items
    N_TUPLE,    // a: items
    N_DICT,     // a: key, value, key, ..
    N_ATTR,     // a . v
    N_ITEM,     // a [ b ]
    N_SLICE,    // a [ b : c : d ], each may be NULL
    N_CALL,     // a ( b )
    N_FILTER,   // a | v ( b ); a is NULL for a block's
    N_TEST,     // a is v ( b )
    N_NOT,      // a
    N_NEG,      // a
    N_POS,      // a
    N_BINARY,   // a op b
    N_AND,      // a, b
    N_OR,       // a, b
    N_COMPARE,  // a, b: operands
    N_OPERAND,  // op a
    N_CONCAT,   // a: items
    N_COND,     // b if a else c
    N_KEYWORD,  // v = a, in arguments
    N_STAR,     // *a
    N_STARS,    // **a
    /* statements */
    N_TEXT,
    N_OUTPUT,    // a: values
    N_IF,        // a, b: body, c: else
    N_FOR,       // a: target, b: what, c: body, d: else, e: filter; flag: recursive
    N_SET,       // a = b
    N_CAPTURE,   // a = b (filters) of the body c
    N_MACRO,     // sym, a: parameters, c: body
    N_PARAM,     // sym, a: default or NULL
    N_CALLER,    // a: parameters, b: the call, c: body
    N_FILTERED,  // b (filters) of the body c
    N_WITH,      // a: targets, b: values, c: body
    N_SCOPE,     // c: body
    N_BREAK,
    N_CONTINUE,
    N_SPACE_ATTR,  // sym . v, as a target
};

/* Operators of two characters have their second in the upper byte. */
enum {
    OP_EQ = '=' | '=' << 8,
    OP_NE = '!' | '=' << 8,
    OP_LE = '<' | '=' << 8,
    OP_GE = '>' | '=' << 8,
    OP_POW = '*' | '*' << 8,
    OP_FLOOR = '/' | '/' << 8,
    OP_IN = 'i' | 'n' << 8,
    OP_NOT_IN = '!' | 'i' << 8,
};

/* What a macro's body speaks of, in its node's op. */
enum { MACRO_VARARGS = 1, MACRO_KWARGS = 2, MACRO_CALLER = 4 };

struct node {
    uint8_t kind;
    bool flag;
    uint16_t op;
    uint32_t line;
    uint32_t sym;
    struct node *a, *b, *c, *d, *e;
    struct node *next;         // in a list
    const struct builtin *fn;  // of a filter or test, NULL when there is none of that name
    struct value v;
};

/* Names that variables have, each once. */
enum { MOST_SYMBOLS = 4096 };

struct symbols {
    struct value *name;
    uint32_t n, cap;
    uint16_t order[MOST_SYMBOLS];  // [n]: by length, then bytes
};

struct jinja {
    struct pool pool;
    struct symbols symbols;
    const struct node *body;
    uint32_t sym_loop, sym_caller, sym_varargs, sym_kwargs;
};

/* --- tokens --- */

enum token_kind {
    T_END,
    T_TEXT,
    T_VAR_BEGIN,
    T_VAR_END,
    T_BLOCK_BEGIN,
    T_BLOCK_END,
    T_NAME,
    T_STRING,
    T_INT,
    T_REAL,
    T_OP,
};

struct token {
    enum token_kind kind;
    uint16_t op;
    uint32_t line;
    struct value v;  // text, name, string or number
};

enum lex_mode { LEX_TEXT, LEX_VAR, LEX_BLOCK };

struct lexer {
    struct pool *pool;
    const char *s;
    size_t len, at;
    uint32_t line;
    enum lex_mode mode, next_mode;  // next_mode: entered after the text before it
    bool is_line_start;             // what was read last ended a line
    size_t n_open;
    char open[JINJA_NEST];  // brackets
};

/* s [len] is copied, with its line ends made one kind. Fails: ERR_MEMORY. */
MUST lex_open(struct lexer *x, struct pool *p, const char *s, size_t len, struct err *e);
MUST lex_next(struct lexer *x, struct token *t, struct err *e);

/* --- parsing --- */

struct parser {
    struct lexer lex;
    struct token now, ahead;
    bool has_ahead;
    unsigned nest, n_loop;
    uint16_t spoken;             // MACRO_ bits of the names seen in the macro under way
    const struct node *unknown;  // a filter or test that there is none of, the latest
    struct jinja *t;
    struct err *e;
};

bool parse_fail(struct parser *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
MUST parse_next(struct parser *p);  // to the next token
MUST parse_look(struct parser *p);  // fills p->ahead
bool parse_is_op(const struct parser *p, uint16_t op);
bool parse_is_name(const struct parser *p, const char *name);
MUST parse_want_op(struct parser *p, uint16_t op);
MUST parse_node(struct parser *p, enum node_kind kind, struct node **out);
MUST parse_symbol(struct parser *p, const struct value *name, uint32_t *sym);
/* Each construct within another goes through here; parse_leave() after success. */
MUST parse_enter(struct parser *p);
void parse_leave(struct parser *p);
/* Fails where a filter or test of an unknown name was seen since p->unknown was `before`. What an `if` may
 * leave out may have such, but for the blocks within. */
MUST parse_known(struct parser *p, const struct node *before);

enum tuple_flags {
    TUPLE_PLAIN = 0,
    TUPLE_SIMPLE = 1 << 0,   // primaries alone
    TUPLE_NO_COND = 1 << 1,  // no `a if b` outside brackets
    TUPLE_PARENS = 1 << 2,   // () is one
    TUPLE_IN = 1 << 3,       // ends at `in`
    TUPLE_RECURSIVE = 1 << 4,
    TUPLE_ONE = 1 << 6,    // one item, no commas
    TUPLE_SPACE = 1 << 5,  // a namespace's attribute may stand here
};
MUST parse_expression(struct parser *p, bool with_cond, struct node **out);
MUST parse_tuple(struct parser *p, unsigned flags, struct node **out);
/* Filters from the first on, where no | stands before it when is_inline. */
MUST parse_filters(struct parser *p, struct node *input, bool is_inline, struct node **out);
MUST parse_target(struct parser *p, unsigned flags, struct node **out);
MUST parse_body(struct parser *p, struct node **out);  // to the end of the template

/* --- running --- */

struct var {
    uint32_t sym;
    struct value v;
    struct var *next;
};

struct scope {
    struct scope *up;
    struct var *first;
    bool is_root;  // vm->global holds its variables
    bool is_kept;  // a macro was defined in it or within
};

/* A text under way. */
struct text {
    char *s;
    uint8_t *mark;  // [cap]
    size_t len, cap;
    bool has_data, has_own;
};

enum flow { FLOW_ON, FLOW_BREAK, FLOW_CONTINUE };

struct vm {
    const struct jinja *t;
    struct pool pool;
    struct err *e;
    uint64_t work;  // as vm_charge() counts it
    unsigned depth;
    uint32_t line;
    enum flow flow;
    struct scope root, *scope;
    struct var *spare;     // of scopes that are over
    struct value *global;  // [symbols]
    struct text *out;
    int64_t now;
    const struct jinja_swap *swap;  // [n_swap]: those to come of the variable that is read
    size_t n_swap;
    size_t n_dict;  // see struct jinja_text
};

struct macro {
    const struct node *node;  // N_MACRO or N_CALLER
    struct scope *scope;      // where it was defined
    struct value name;
};

struct keyword {
    struct value name, v;
};

struct args {
    struct value *pos;
    struct keyword *kw;
    size_t n_pos, n_kw;
};

enum { CALL_ARGS = 6 };

/* A call of a builtin. arg: as its `params` order them, V_MISSING where absent. */
struct call {
    struct value self;  // what is filtered or tested, or the object of a method
    struct value arg[CALL_ARGS];
    const struct args *args;  // all of them, for functions that take any
    const char *name;
};

/* params: names of the parameters with spaces between; "!" before one that must be given, "*" alone
 * for a function that looks at call.args itself. Names that begin with _ cannot be given by name. */
struct builtin {
    const char *name, *params;
    MUST (*fn)(struct vm *vm, struct call *c, struct value *out);
};

bool vm_fail(struct vm *vm, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
bool vm_limit(struct vm *vm, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
bool vm_spent(struct vm *vm);

/* Every loop whose length a template or a message chooses pays for itself here, before or as it runs,
 * in bytes of memcpy(); COST_STEP of them are a step. Prices are what the dearest case was measured to
 * take, so that no template makes a step last much longer than another does. */
enum {
    COST_STEP = 32,    // a node, a statement, a call
    COST_ITEM = 8,     // an item looked at, or a piece added to a text
    COST_CHAR = 6,     // a byte taken as part of a character with a class or a case
    COST_SCAN = 3,     // a byte searched, or counted as part of a character
    COST_REAL = 4096,  // a float to or from decimal, or its remainder
};
static inline MUST vm_charge(struct vm *vm, size_t cost) {
    vm->work += cost;
    return vm->work <= (uint64_t)JINJA_STEPS * COST_STEP || vm_spent(vm);
}
MUST vm_push(struct vm *vm, size_t n, void *out);
MUST vm_enter(struct vm *vm);
void vm_leave(struct vm *vm);
MUST vm_lookup(struct vm *vm, uint32_t sym, struct value *out);  // V_MISSING: there is none
MUST vm_assign(struct vm *vm, uint32_t sym, struct value v);

MUST eval(struct vm *vm, const struct node *n, struct value *out);
MUST eval_args(struct vm *vm, const struct node *list, struct args *out);
MUST eval_call(struct vm *vm, const struct value *fn, const struct args *a, struct value *out);
MUST eval_filter(struct vm *vm, const struct node *n, const struct value *in, struct value *out);
MUST exec(struct vm *vm, const struct node *list);
MUST exec_assign(struct vm *vm, const struct node *target, struct value v);
MUST exec_macro(struct vm *vm, const struct macro *m, const struct args *a, struct value *out);
MUST loop_attr(struct vm *vm, struct loop *l, const struct value *name, struct value *out);
MUST loop_call(struct vm *vm, struct loop *l, const struct args *a, struct value *out);
/* Binds the arguments and calls; self may be NULL. */
MUST call_builtin(struct vm *vm, const struct builtin *fn, const struct value *self,
                  const struct args *a, struct value *out);

const struct builtin *builtin_find(const struct builtin *table, size_t n, const struct value *name);
const struct builtin *filter_find(const struct value *name);
const struct builtin *sequence_filter_find(const struct value *name);
const struct builtin *test_find(const struct value *name);
const struct builtin *global_find(const struct value *name);
/* A method of a value of this kind, or NULL. */
const struct builtin *method_find(uint8_t kind, const struct value *name);
const struct builtin *str_method_find(const struct value *name);
const struct builtin *loop_method_find(const struct value *name);
/* Whether builtin `test` holds; used by select and its like. */
MUST test_holds(struct vm *vm, const struct builtin *test, const struct value *v,
                const struct args *a, bool *yes);

/* --- what values can do --- */

static inline struct value value_of(enum value_kind kind) {
    return (struct value){.kind = (uint8_t)kind};
}
static inline struct value value_bool(bool yes) {
    return (struct value){.kind = V_BOOL, .yes = yes};
}
static inline struct value value_int(int64_t i) {
    return (struct value){.kind = V_INT, .i = i};
}
static inline struct value value_real(double d) {
    return (struct value){.kind = V_REAL, .d = d};
}
/* A text of the template's, borrowed. */
static inline struct value value_text(const char *s) {
    return (struct value){.kind = V_STR, .s = s, .len = (uint32_t)strlen(s)};
}
static inline struct value value_list(enum value_kind kind, struct list *l) {
    return (struct value){.kind = (uint8_t)kind, .list = l};
}
struct value value_undefined(const struct value *name);
/* Bytes from..from + len of a string. */
struct value value_part(const struct value *s, size_t from, size_t len);
bool value_is(const struct value *v, const char *text);  // a string of this content
/* Whether two strings have the same bytes. */
MUST value_same(struct vm *vm, const struct value *a, const struct value *b, bool *yes);
bool value_is_number(const struct value *v);    // bool, int or float
const char *value_type(const struct value *v);  // Python's name of it
double value_number(const struct value *v);
bool value_truth(const struct value *v);
MUST value_escape(struct vm *vm, const struct value *s, struct value *out);  // for HTML
MUST value_equal(struct vm *vm, const struct value *a, const struct value *b, bool *yes);
/* *order < 0, 0, > 0. Fails where Python has no order; op: how to say so. */
MUST value_order(struct vm *vm, const struct value *a, const struct value *b, const char *op,
                 int *order);
MUST value_in(struct vm *vm, const struct value *item, const struct value *in, bool *yes);
MUST value_length(struct vm *vm, const struct value *v, int64_t *n);
/* All items of what can be iterated; an iterator is used up. The list may be the value's own. */
MUST value_items(struct vm *vm, const struct value *v, struct list **out);
MUST value_attr(struct vm *vm, const struct value *v, const struct value *name, struct value *out);
MUST value_item(struct vm *vm, const struct value *v, const struct value *at, struct value *out);
MUST value_slice(struct vm *vm, const struct value *v, const struct value at[3], struct value *out);
MUST value_binary(struct vm *vm, uint16_t op, const struct value *a, const struct value *b,
                  struct value *out);
bool whole_too_large(struct vm *vm);  // false, and says so
MUST value_negate(struct vm *vm, const struct value *v, bool is_minus, struct value *out);
MUST value_from_json(struct vm *vm, const struct json_value *j, bool is_data, struct value *out);
MUST value_copy(struct vm *vm, const char *s, size_t len, struct value *out);  // an own string

MUST list_new(struct vm *vm, size_t cap, struct list **out);
MUST list_add(struct vm *vm, struct list *l, struct value v);
MUST dict_new(struct vm *vm, struct dict **out);
MUST dict_find(struct vm *vm, const struct dict *d, const struct value *key, struct value **out);
MUST dict_put(struct vm *vm, struct dict *d, const struct value *key, struct value v);

/* --- texts --- */

MUST text_add(struct vm *vm, struct text *t, const struct value *s);  // a string
MUST text_bytes_add(struct vm *vm, struct text *t, const char *s, size_t len, bool is_data);
MUST text_chars(struct vm *vm, struct text *t, const char *s);  // own, NUL-terminated
MUST text_pad(struct vm *vm, struct text *t, const char *s, size_t len, int64_t n);  // n times
struct value text_value(struct text *t);

/* As str() and repr() print them. */
MUST print_str(struct vm *vm, struct text *t, const struct value *v);
MUST print_repr(struct vm *vm, struct text *t, const struct value *v);
MUST to_str(struct vm *vm, const struct value *v, struct value *out);  // str()
MUST print_real(struct vm *vm, char out[static 40], double d);

struct json_style {
    bool is_ascii, is_sorted;
    struct value indent;        // V_STR, or V_NONE for one line
    struct value comma, colon;  // strings
};
MUST print_json(struct vm *vm, struct text *t, const struct value *v, const struct json_style *s);

/* str % values, and str.format(). */
MUST format_percent(struct vm *vm, const struct value *fmt, const struct value *args,
                    struct value *out);
MUST format_braces(struct vm *vm, const struct value *fmt, const struct args *a, struct value *out);
MUST format_one(struct vm *vm, const struct value *v, const struct value *spec, struct value *out);

/* --- strings by code point --- */

MUST utf8_count(struct vm *vm, const struct value *s, size_t *n);
/* Of a code point; len past the end. */
MUST utf8_offset(struct vm *vm, const struct value *s, size_t index, size_t *at);
size_t utf8_step(const char *s, size_t len, int32_t *cp);
size_t utf8_write(int32_t cp, char out[static 4]);
bool py_is_space(int32_t cp);
/* *at: where it stands, -1: nowhere. */
MUST str_find(struct vm *vm, const struct value *s, size_t from, size_t to,
              const struct value *what, int64_t *at);
/* Without these characters (NULL: white space) at its ends. */
MUST str_strip(struct vm *vm, const struct value *s, const struct value *chars, bool left,
               bool right, struct value *out);
/* Where the line at `at` ends; *next: behind its line end, whichever Python knows. */
size_t str_line(const struct value *s, size_t at, size_t *next);
size_t space_end(const char *s, size_t len);  // the length without white space behind it

#endif
