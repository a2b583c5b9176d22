/* Strings with their marks, texts under way, lists and dictionaries. */
#include "model/jinja_own.h"

#include "base/unicode.h"

/* --- strings by code point --- */

size_t utf8_step(const char *s, size_t len, int32_t *cp) {
    return unicode_decode((const uint8_t *)s, len, cp);
}

MUST utf8_count(struct vm *vm, const struct value *s, size_t *n) {
    int32_t cp;
    *n = 0;
    if (!vm_charge(vm, COST_SCAN * (size_t)s->len)) return false;
    for (size_t i = 0; i < s->len; ++*n) i += utf8_step(s->s + i, s->len - i, &cp);
    return true;
}

MUST utf8_offset(struct vm *vm, const struct value *s, size_t index, size_t *at) {
    int32_t cp;
    *at = 0;
    for (; index && *at < s->len; index--) *at += utf8_step(s->s + *at, s->len - *at, &cp);
    return vm_charge(vm, COST_SCAN * *at);
}

size_t utf8_write(int32_t cp, char out[static 4]) {
    if (cp < 0x80) {
        out[0] = (char)cp;
        return 1;
    }
    if (cp < 0x800) {
        out[0] = (char)(0xc0 | cp >> 6);
        out[1] = (char)(0x80 | (cp & 63));
        return 2;
    }
    if (cp < 0x10000) {
        out[0] = (char)(0xe0 | cp >> 12);
        out[1] = (char)(0x80 | (cp >> 6 & 63));
        out[2] = (char)(0x80 | (cp & 63));
        return 3;
    }
    out[0] = (char)(0xf0 | cp >> 18);
    out[1] = (char)(0x80 | (cp >> 12 & 63));
    out[2] = (char)(0x80 | (cp >> 6 & 63));
    out[3] = (char)(0x80 | (cp & 63));
    return 4;
}

bool py_is_space(int32_t cp) {
    return (cp >= 0x1c && cp <= 0x1f) || unicode_is_space(cp);
}

/* The last character of s [len > 0]: its length, 0 when the bytes there are none. */
static size_t last_char(const char *s, size_t len, int32_t *cp) {
    enum { LONGEST = 4 };
    size_t n = 1;
    while (n < len && n < LONGEST && ((uint8_t)s[len - n] & 0xc0) == 0x80) n++;
    return utf8_step(s + len - n, n, cp) == n ? n : 0;
}

size_t space_end(const char *s, size_t len) {
    int32_t cp;
    for (size_t n; len; len -= n) {
        n = last_char(s, len, &cp);
        if (!n || !py_is_space(cp)) break;
    }
    return len;
}

static MUST is_stripped(struct vm *vm, int32_t cp, const struct value *chars, bool *yes) {
    size_t i = 0;
    *yes = !chars && py_is_space(cp);
    while (chars && !*yes && i < chars->len) {
        int32_t c;
        i += utf8_step(chars->s + i, chars->len - i, &c);
        *yes = c == cp;
    }
    return vm_charge(vm, COST_ITEM + COST_SCAN * i);
}

MUST str_strip(struct vm *vm, const struct value *s, const struct value *chars, bool left,
               bool right, struct value *out) {
    size_t from = 0, to = s->len, n;
    int32_t cp;
    bool yes = true;
    for (; left && from < to; from += n) {
        n = utf8_step(s->s + from, to - from, &cp);
        if (!is_stripped(vm, cp, chars, &yes)) return false;
        if (!yes) break;
    }
    for (; right && to > from; to -= n) {
        n = last_char(s->s + from, to - from, &cp);
        yes = false;
        if (n && !is_stripped(vm, cp, chars, &yes)) return false;
        if (!yes) break;
    }
    *out = value_part(s, from, to - from);
    return true;
}

MUST str_find(struct vm *vm, const struct value *s, size_t from, size_t to,
              const struct value *what, int64_t *at) {
    *at = what->len || from > to ? -1 : (int64_t)from;
    if (!what->len || from > to) return vm_charge(vm, COST_ITEM);
    const char *found = memmem(s->s + from, to - from, what->s, what->len);
    if (found) {
        *at = found - s->s;
        to = (size_t)*at;
    }
    return vm_charge(vm, COST_ITEM + COST_SCAN * (to - from + what->len));
}

struct value value_part(const struct value *s, size_t from, size_t len) {
    struct value v = *s;
    v.s += from;
    v.len = (uint32_t)len;
    if (v.mark) v.mark += from;
    return v;
}

struct value value_undefined(const struct value *name) {
    struct value v = {.kind = V_UNDEFINED};
    if (name && name->kind == V_STR) {
        v.s = name->s;
        v.len = name->len;
    }
    return v;
}

MUST value_same(struct vm *vm, const struct value *a, const struct value *b, bool *yes) {
    *yes = false;
    if (a->len != b->len) return vm_charge(vm, COST_ITEM);
    if (!vm_charge(vm, COST_ITEM + a->len)) return false;
    *yes = !memcmp(a->s, b->s, a->len);
    return true;
}

bool value_is(const struct value *v, const char *text) {
    return v->kind == V_STR && v->len == strlen(text) && !memcmp(v->s, text, v->len);
}

MUST value_copy(struct vm *vm, const char *s, size_t len, struct value *out) {
    char *to = NULL;
    if (!vm_push(vm, len + 1, &to)) return false;
    memcpy(to, s, len);
    *out = (struct value){.kind = V_STR, .s = to, .len = (uint32_t)len};
    return true;
}

/* --- texts --- */

static MUST text_room(struct vm *vm, struct text *t, size_t more) {
    if (more <= t->cap - t->len) return true;
    if (more > JINJA_OUTPUT - t->len) {
        return vm_limit(vm, "a text grows beyond %d MiB", JINJA_OUTPUT >> 20);
    }
    size_t cap = 2 * t->cap + more + 64;
    char *s;
    uint8_t *mark;
    if (!vm_push(vm, cap, &s) || !vm_push(vm, cap, &mark)) return false;
    if (t->len) {
        memcpy(s, t->s, t->len);
        memcpy(mark, t->mark, t->len);
    }
    t->s = s;
    t->mark = mark;
    t->cap = cap;
    return true;
}

MUST text_bytes_add(struct vm *vm, struct text *t, const char *s, size_t len, bool is_data) {
    if (!vm_charge(vm, COST_ITEM + len)) return false;
    if (!len) return true;
    if (!text_room(vm, t, len)) return false;
    memcpy(t->s + t->len, s, len);
    memset(t->mark + t->len, is_data, len);
    t->len += len;
    t->has_data |= is_data;
    t->has_own |= !is_data;
    return true;
}

MUST text_add(struct vm *vm, struct text *t, const struct value *s) {
    size_t at = t->len;
    if (!text_bytes_add(vm, t, s->s, s->len, s->is_data)) return false;
    if (s->mark && s->len) {
        memcpy(t->mark + at, s->mark, s->len);
        t->has_data = t->has_own = true;
    }
    return true;
}

MUST text_chars(struct vm *vm, struct text *t, const char *s) {
    return text_bytes_add(vm, t, s, strlen(s), false);
}

MUST text_pad(struct vm *vm, struct text *t, const char *s, size_t len, int64_t n) {
    for (; n > 0; n--) {
        if (!text_bytes_add(vm, t, s, len, false)) return false;
    }
    return true;
}

struct value text_value(struct text *t) {
    struct value v = {.kind = V_STR, .s = t->len ? t->s : "", .len = (uint32_t)t->len};
    v.is_data = t->has_data;
    if (t->has_data && t->has_own) v.mark = t->mark;
    return v;
}

/* --- lists --- */

MUST list_new(struct vm *vm, size_t cap, struct list **out) {
    if (!vm_push(vm, sizeof **out, out)) return false;
    (*out)->cap = cap;
    return !cap || vm_push(vm, cap * sizeof *(*out)->item, &(*out)->item);
}

MUST list_add(struct vm *vm, struct list *l, struct value v) {
    if (!vm_charge(vm, COST_ITEM)) return false;
    if (l->n == l->cap) {
        size_t cap = l->cap ? 2 * l->cap : 4;
        struct value *item;
        if (!vm_push(vm, cap * sizeof *item, &item)) return false;
        if (l->n) memcpy(item, l->item, l->n * sizeof *item);
        l->item = item;
        l->cap = cap;
    }
    l->item[l->n++] = v;
    return true;
}

/* --- dictionaries --- */

enum { DICT_LINEAR = 8 };  // as many are looked through one by one

MUST dict_new(struct vm *vm, struct dict **out) {
    return vm_push(vm, sizeof **out, out);
}

/* Equal keys have equal hashes: 1, 1.0 and True are one key. */
static MUST hash_key(struct vm *vm, const struct value *k, unsigned depth, uint64_t *h) {
    enum { TUPLE_DEPTH = 8 };
    *h = (*h ^ 0x9e37) * 0xff51afd7ed558ccd;
    if (!vm_charge(vm, COST_ITEM + (k->kind == V_STR ? k->len : 0))) return false;
    switch (k->kind) {
    case V_NONE:
    case V_UNDEFINED: return true;
    case V_BOOL:
    case V_INT:
    case V_REAL: {
        double d = value_number(k) + 0.0;
        uint64_t bits;
        if (d == 0) d = 0;
        memcpy(&bits, &d, sizeof bits);
        *h = (*h ^ bits ^ bits >> 33) * 0xff51afd7ed558ccd;  // small numbers differ in high bits
        *h ^= *h >> 29;
        return true;
    }
    case V_STR:
        for (uint32_t i = 0; i < k->len; i++) *h = (*h ^ (uint8_t)k->s[i]) * 0x100000001b3;
        *h ^= *h >> 29;
        return true;
    case V_TUPLE:
        if (depth == TUPLE_DEPTH) return vm_limit(vm, "a key is nested too deep");
        for (size_t i = 0; k->list->item && i < k->list->n; i++) {
            if (!hash_key(vm, &k->list->item[i], depth + 1, h)) return false;
        }
        return true;
    default: return vm_fail(vm, "a %s cannot be a key", value_type(k));
    }
}

/* Where key stands, or the empty slot where it would. */
static MUST dict_slot(struct vm *vm, const struct dict *d, const struct value *key,
                      uint32_t **out) {
    uint64_t h = 0;
    uint32_t mask = 2 * d->cap - 1;
    if (!hash_key(vm, key, 0, &h)) return false;
    for (uint32_t i = (uint32_t)(h ^ h >> 32) & mask;; i = (i + 1) & mask) {
        *out = &d->slot[i];
        if (!**out) return true;
        bool same;
        if (!vm_charge(vm, COST_ITEM)) return false;
        if (!value_equal(vm, &d->key[**out - 1], key, &same)) return false;
        if (same) return true;
    }
}

MUST dict_find(struct vm *vm, const struct dict *d, const struct value *key, struct value **out) {
    *out = NULL;
    if (d->slot) {
        uint32_t *slot;
        if (!dict_slot(vm, d, key, &slot)) return false;
        if (*slot) *out = &d->val[*slot - 1];
        return true;
    }
    uint64_t h = 0;
    if (!hash_key(vm, key, 0, &h)) return false;  // refuses what cannot be a key
    for (uint32_t i = 0; i < d->n; i++) {
        bool same;
        if (!value_equal(vm, &d->key[i], key, &same)) return false;
        if (!same) continue;
        *out = &d->val[i];
        return true;
    }
    return true;
}

static MUST dict_grow(struct vm *vm, struct dict *d) {
    struct dict more = {.n = d->n, .cap = d->cap ? 2 * d->cap : DICT_LINEAR};
    if (!vm_push(vm, more.cap * sizeof *more.key, &more.key)) return false;
    if (!vm_push(vm, more.cap * sizeof *more.val, &more.val)) return false;
    if (d->key && d->val) {
        memcpy(more.key, d->key, d->n * sizeof *d->key);
        memcpy(more.val, d->val, d->n * sizeof *d->val);
    }
    if (more.cap > DICT_LINEAR) {
        if (!vm_push(vm, 2 * (size_t)more.cap * sizeof *more.slot, &more.slot)) return false;
        for (uint32_t i = 0; i < d->n; i++) {
            uint32_t *slot;
            if (!dict_slot(vm, &more, &more.key[i], &slot)) return false;
            *slot = i + 1;
        }
    }
    *d = more;
    return true;
}

MUST dict_put(struct vm *vm, struct dict *d, const struct value *key, struct value v) {
    struct value *at;
    if (!dict_find(vm, d, key, &at)) return false;
    if (at) {
        *at = v;
        return true;
    }
    if ((d->n == d->cap || !d->val) && !dict_grow(vm, d)) return false;
    if (d->slot) {
        uint32_t *slot;
        if (!dict_slot(vm, d, key, &slot)) return false;
        *slot = d->n + 1;
    }
    if (!d->key || !d->val) return false;  // not after dict_grow()
    d->key[d->n] = *key;
    d->val[d->n++] = v;
    return true;
}

/* --- from JSON --- */

/* Roles that everybody uses cannot be mistaken for anything else, and templates spell control tokens
 * with them ("<|" + role + "|>"). */
static bool is_known_role(const struct json_chars *key, const struct json_chars *text) {
    static const char *const known[] = {"system",   "user",      "assistant", "tool",
                                        "function", "developer", "ipython",   "model"};
    if (key->len != 4 || memcmp(key->s, "role", 4) != 0) return false;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (strlen(known[i]) == text->len && !memcmp(known[i], text->s, text->len)) return true;
    }
    return false;
}

static MUST from_chars(struct vm *vm, struct json_chars c, bool is_data, struct value *out) {
    if (c.len > JINJA_OUTPUT)
        return vm_limit(vm, "a text has more than %d MiB", JINJA_OUTPUT >> 20);
    if (!value_copy(vm, c.s, c.len, out)) return false;
    out->is_data = is_data;
    return true;
}

/* What stands in for j, and *j is it; false: j is left out. */
static bool is_seen(struct vm *vm, const struct json_value **j) {
    if (!vm->n_swap || vm->swap->of != *j) return true;
    *j = vm->swap->by;
    vm->swap++;
    vm->n_swap--;
    return *j != NULL;
}

static MUST from_object(struct vm *vm, const struct json_value *j, bool is_data,
                        struct value *out) {
    struct json_iter at;
    struct json_chars key, text;
    const struct json_value *item;
    if (!dict_new(vm, &out->dict)) return false;
    out->kind = V_DICT;
    for (json_members(&at, j); json_next(&at, &key, &item);) {
        struct value k, v;
        bool own = json_kind(item) == JSON_STRING && json_chars_of(item, &text) &&
                   is_known_role(&key, &text);
        if (!is_seen(vm, &item)) continue;
        if (!from_chars(vm, key, is_data, &k)) return false;
        if (!value_from_json(vm, item, is_data && !own, &v)) return false;
        if (!dict_put(vm, out->dict, &k, v)) return false;
    }
    return true;
}

/* Recursion ends with JSON_READ_DEPTH, twice where a value stands in for another. */
MUST value_from_json(struct vm *vm, const struct json_value *j, bool is_data, struct value *out) {
    struct json_iter at;
    struct json_chars text = {0};
    const struct json_value *item;
    *out = value_of(V_NONE);
    switch (json_kind(j)) {
    case JSON_NULL: return true;
    case JSON_BOOL: *out = value_bool(json_bool_of(j)); return true;
    case JSON_NUMBER:
        if (!json_int_of(j, &out->i)) {
            *out = value_real(json_real_of(j));
        } else {
            out->kind = V_INT;
        }
        return true;
    case JSON_STRING: return json_chars_of(j, &text) && from_chars(vm, text, is_data, out);
    case JSON_ARRAY:
        out->kind = V_LIST;
        if (!list_new(vm, json_size(j), &out->list)) return false;
        for (json_members(&at, j); json_next(&at, NULL, &item);) {
            struct value v;
            if (!is_seen(vm, &item)) continue;
            if (!value_from_json(vm, item, is_data, &v)) return false;
            if (!list_add(vm, out->list, v)) return false;
        }
        return true;
    case JSON_OBJECT: return from_object(vm, j, is_data, out);
    }
    return true;
}
