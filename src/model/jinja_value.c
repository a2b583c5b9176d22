/* Strings with their marks, texts under way, lists and dictionaries. */
#include "model/jinja_own.h"

#include "base/unicode.h"

/* --- strings by code point --- */

size_t utf8_step(const char *s, size_t len, int32_t *cp) {
    return unicode_decode((const uint8_t *)s, len, cp);
}

size_t utf8_count(const struct value *s) {
    size_t n = 0;
    int32_t cp;
    for (size_t i = 0; i < s->len; n++) i += utf8_step(s->s + i, s->len - i, &cp);
    return n;
}

size_t utf8_offset(const struct value *s, size_t index) {
    size_t i = 0;
    int32_t cp;
    for (; index && i < s->len; index--) i += utf8_step(s->s + i, s->len - i, &cp);
    return i;
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

static bool is_stripped(int32_t cp, const struct value *chars) {
    if (!chars) return py_is_space(cp);
    for (size_t i = 0; i < chars->len;) {
        int32_t c;
        i += utf8_step(chars->s + i, chars->len - i, &c);
        if (c == cp) return true;
    }
    return false;
}

struct value str_strip(const struct value *s, const struct value *chars, bool left, bool right) {
    size_t from = 0, to = s->len;
    int32_t cp;
    while (left && from < to) {
        size_t n = utf8_step(s->s + from, to - from, &cp);
        if (!is_stripped(cp, chars)) break;
        from += n;
    }
    while (right && to > from) {
        size_t at = to - 1;
        while (at > from && ((uint8_t)s->s[at] & 0xc0) == 0x80) at--;
        if (utf8_step(s->s + at, to - at, &cp) != to - at || !is_stripped(cp, chars)) break;
        to = at;
    }
    return value_part(s, from, to - from);
}

int64_t str_find(const struct value *s, size_t from, size_t to, const struct value *what) {
    if (from > to) return -1;
    if (!what->len) return (int64_t)from;
    const char *at = memmem(s->s + from, to - from, what->s, what->len);
    return at ? at - s->s : -1;
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
    if (!vm_charge(vm, s->len)) return false;
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
        if (!vm_charge(vm, len) || !text_bytes_add(vm, t, s, len, false)) return false;
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
        *h = (*h ^ bits) * 0xff51afd7ed558ccd;
        *h ^= *h >> 32;
        return true;
    }
    case V_STR:
        for (uint32_t i = 0; i < k->len; i++) *h = (*h ^ (uint8_t)k->s[i]) * 0x100000001b3;
        *h ^= *h >> 29;
        return vm_charge(vm, k->len);
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
        if (!vm_charge(vm, 32) || !value_equal(vm, &d->key[**out - 1], key, &same)) return false;
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

bool dict_text(const struct dict *d, const char *key, size_t len, struct value *out) {
    for (uint32_t i = 0; i < d->n; i++) {
        if (d->key[i].kind != V_STR || d->key[i].len != len) continue;
        if (memcmp(d->key[i].s, key, len) != 0) continue;
        *out = d->val[i];
        return true;
    }
    return false;
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
