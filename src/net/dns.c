#include "net/dns.h"

#include <string.h>

enum {
    HOPS_MOST = 16,  // pointers followed in one name: bounds the time a message can take
    POINTER = 0xc0,
    TOP = 0x8000,
};

static uint8_t lower(uint8_t c) {
    return c >= 'A' && c <= 'Z' ? (uint8_t)(c + ('a' - 'A')) : c;
}

/* A length byte is at most 63 and so never a letter: whole names compare as bytes. */
static bool same_bytes(const uint8_t *a, const uint8_t *b, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (a[i] != b[i] && lower(a[i]) != lower(b[i])) return false;
    }
    return true;
}

/* ---- names */

static bool add_label(struct dns_name *n, const void *label, size_t len) {
    if (!len || len > DNS_LABEL || n->len + 1 + len + 1 > DNS_NAME) return false;
    n->b[n->len] = (uint8_t)len;
    memcpy(n->b + n->len + 1, label, len);
    n->len = (uint8_t)(n->len + 1 + len);
    return true;
}

static void add_root(struct dns_name *n) {
    n->b[n->len++] = 0;
}

bool dns_name(struct dns_name *n, const char *text) {
    n->len = 0;
    while (*text) {
        size_t len = strcspn(text, ".");
        if (!add_label(n, text, len)) return false;
        text += len + (text[len] == '.');
    }
    add_root(n);
    return true;
}

bool dns_name_under(struct dns_name *n, const char *label, const struct dns_name *parent) {
    n->len = 0;
    if (!add_label(n, label, strlen(label)) || n->len + parent->len > DNS_NAME) return false;
    memcpy(n->b + n->len, parent->b, parent->len);
    n->len = (uint8_t)(n->len + parent->len);
    return true;
}

void dns_name_reverse(struct dns_name *n, const uint8_t *b, size_t len) {
    static const char hex[] = "0123456789abcdef";
    n->len = 0;
    for (size_t i = len; i-- > 0;) {
        if (len == 4) {
            char digits[3];
            size_t k = 0;
            if (b[i] >= 100) digits[k++] = (char)('0' + b[i] / 100);
            if (b[i] >= 10) digits[k++] = (char)('0' + b[i] / 10 % 10);
            digits[k++] = (char)('0' + b[i] % 10);
            (void)add_label(n, digits, k);
        } else {
            (void)add_label(n, hex + (b[i] & 15), 1);
            (void)add_label(n, hex + (b[i] >> 4), 1);
        }
    }
    (void)add_label(n, len == 4 ? "in-addr" : "ip6", len == 4 ? 7 : 3);
    (void)add_label(n, "arpa", 4);
    add_root(n);
}

bool dns_name_is(const struct dns_name *a, const struct dns_name *b) {
    return a->len == b->len && same_bytes(a->b, b->b, a->len);
}

bool dns_name_is_under(const struct dns_name *n, const struct dns_name *parent) {
    size_t label = n->b[0] + (size_t)1;
    return n->b[0] && label + parent->len == n->len &&
           same_bytes(n->b + label, parent->b, parent->len);
}

void dns_name_label(const struct dns_name *n, char *out, size_t cap) {
    size_t k = 0;
    for (; k < n->b[0] && k + 1 < cap; k++) {
        uint8_t c = n->b[1 + k], l = lower(c);
        bool plain =
            (l >= 'a' && l <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.';
        out[k] = plain ? (char)c : '?';
    }
    out[k] = 0;
}

/* ---- reading */

static uint16_t get16(struct cursor *c) {
    uint16_t hi = cursor_u8(c);
    return (uint16_t)(hi << 8 | cursor_u8(c));
}

static uint32_t get32(struct cursor *c) {
    uint32_t hi = get16(c);
    return hi << 16 | get16(c);
}

/* A pointer must lead to before the run of labels that it ends (RFC 1035 4.1.4: "a prior
 * occurrence"), so there are no loops. */
static bool get_name(struct cursor *c, struct dns_name *n) {
    uint64_t after = 0, start = c->pos;
    n->len = 0;
    for (unsigned hops = 0;;) {
        uint8_t len = cursor_u8(c);
        if (c->failed) return false;
        if ((len & POINTER) == POINTER) {
            uint64_t to = (uint64_t)(len & ~POINTER) << 8 | cursor_u8(c);
            if (c->failed || to >= start || to < DNS_HEADER || ++hops > HOPS_MOST) return false;
            if (!after) after = c->pos;
            start = to;
            if (!cursor_seek(c, to)) return false;
            continue;
        }
        if (len > DNS_LABEL || n->len + 1 + len + (len > 0) > DNS_NAME) return false;
        n->b[n->len] = len;
        if (!cursor_bytes(c, n->b + n->len + 1, len)) return false;
        n->len = (uint8_t)(n->len + 1 + len);
        if (!len) return !after || cursor_seek(c, after);
    }
}

bool dns_read(struct dns_reader *r, const uint8_t *p, size_t len) {
    *r = (struct dns_reader){.is_bad = len < DNS_HEADER || len > DNS_READ_MAX};
    if (r->is_bad) return false;
    cursor_mem(&r->at, p, len);
    r->id = get16(&r->at);
    r->flags = get16(&r->at);
    for (int s = 0; s < DNS_SECTIONS; s++) r->left[s] = get16(&r->at);
    return true;
}

/* Data of the types that have a name in them, with the name expanded into it->own. */
static bool get_data(struct cursor *c, struct dns_item *it) {
    uint64_t end = c->pos + it->len;
    size_t fixed = it->type == DNS_SRV ? 6 : 0;
    struct dns_name name;
    if (end > c->end || it->len < fixed + 1 || !cursor_bytes(c, it->own, fixed)) return false;
    if (!get_name(c, &name) || c->pos != end) return false;
    memcpy(it->own + fixed, name.b, name.len);
    it->data = it->own;
    it->len = (uint16_t)(fixed + name.len);
    return true;
}

static bool get_record(struct cursor *c, struct dns_item *it) {
    it->ttl = get32(c);
    it->len = get16(c);
    if (c->failed || it->len > cursor_left(c)) return false;
    if (it->type == DNS_PTR || it->type == DNS_CNAME || it->type == DNS_SRV) return get_data(c, it);
    if (it->type == DNS_A && it->len != 4) return false;
    if (it->type == DNS_AAAA && it->len != 16) return false;
    it->data = c->mem + c->pos;
    return cursor_skip(c, it->len);
}

bool dns_next(struct dns_reader *r, struct dns_item *it) {
    int s = 0;
    while (s < DNS_SECTIONS && !r->left[s]) s++;
    if (r->is_bad || s == DNS_SECTIONS) return false;
    r->left[s]--;
    it->section = (enum dns_section)s;
    r->is_bad = !get_name(&r->at, &it->name);
    it->type = get16(&r->at);
    uint16_t cls = get16(&r->at);
    it->top = cls & TOP;
    it->cls = cls & (TOP - 1);
    it->ttl = 0;
    it->len = 0;
    it->data = it->own;
    if (r->at.failed || (s != DNS_QUESTION && !r->is_bad && !get_record(&r->at, it)))
        r->is_bad = true;
    return !r->is_bad;
}

bool dns_is_sound(const struct dns_reader *r) {
    struct dns_reader copy = *r;
    struct dns_item it;
    while (dns_next(&copy, &it)) continue;
    return !copy.is_bad;
}

bool dns_txt_next(const uint8_t *data, size_t len, size_t *pos, const uint8_t **s, size_t *n) {
    if (*pos >= len || data[*pos] > len - *pos - 1) return false;
    *n = data[*pos];
    *s = data + *pos + 1;
    *pos += 1 + *n;
    return true;
}

/* ---- writing */

static void put(struct dns_writer *w, const void *p, size_t n) {
    if (n > sizeof w->b - w->n) {
        w->is_full = true;
        return;
    }
    if (n) memcpy(w->b + w->n, p, n);
    w->n += n;
}

static void put16(struct dns_writer *w, unsigned v) {
    put(w, (uint8_t[]){(uint8_t)(v >> 8), (uint8_t)v}, 2);
}

/* The name that begins at `at` in what was written is the same as b. */
static bool written_is(const struct dns_writer *w, size_t at, const uint8_t *b) {
    /* A name at the end of a full packet may be there in part only. */
    while (at < w->n) {
        uint8_t len = w->b[at];
        if ((len & POINTER) == POINTER) {
            if (at + 1 >= w->n) return false;
            at = (size_t)(len & ~POINTER) << 8 | w->b[at + 1];
            continue;
        }
        if (len != *b || at + len >= w->n || !same_bytes(w->b + at, b, (size_t)len + 1))
            return false;
        if (!len) return true;
        at += (size_t)len + 1;
        b += (size_t)len + 1;
    }
    return false;
}

static void put_name(struct dns_writer *w, const struct dns_name *name, bool is_plain) {
    uint8_t known = w->n_label;  // labels of this name are no target for itself: not whole yet
    for (const uint8_t *b = name->b; *b; b += (size_t)*b + 1) {
        for (uint8_t i = 0; i < known && !is_plain; i++) {
            if (!written_is(w, w->label[i], b)) continue;
            put16(w, POINTER << 8 | w->label[i]);
            return;
        }
        if (w->n_label < sizeof w->label / sizeof *w->label)
            w->label[w->n_label++] = (uint16_t)w->n;
        put(w, b, (size_t)*b + 1);
    }
    put(w, "", 1);
}

void dns_begin(struct dns_writer *w, uint16_t id, uint16_t flags) {
    w->n = DNS_HEADER;
    w->id = id;
    w->flags = flags;
    memset(w->count, 0, sizeof w->count);
    w->is_plain = w->is_full = false;
    w->n_label = 0;
}

/* What was put since n and n_label counts as one item of the section, or is undone. */
static bool keep(struct dns_writer *w, enum dns_section s, size_t n, uint8_t n_label) {
    if (w->is_full) {
        w->n = n;
        w->n_label = n_label;
        w->is_full = false;
        return false;
    }
    w->count[s]++;
    return true;
}

bool dns_put_question(struct dns_writer *w, const struct dns_name *name, uint16_t type, bool top) {
    size_t n = w->n;
    uint8_t n_label = w->n_label;
    put_name(w, name, false);
    put16(w, type);
    put16(w, DNS_IN | (top ? TOP : 0U));
    return keep(w, DNS_QUESTION, n, n_label);
}

static void put_data(struct dns_writer *w, uint16_t type, const uint8_t *data, size_t len) {
    size_t fixed = type == DNS_SRV ? 6 : 0;
    if (type != DNS_PTR && type != DNS_SRV) {
        put(w, data, len);
        return;
    }
    struct dns_name name = {.len = (uint8_t)(len - fixed)};
    memcpy(name.b, data + fixed, name.len);
    put(w, data, fixed);
    put_name(w, &name, fixed && w->is_plain);
}

bool dns_put_record(struct dns_writer *w, enum dns_section section, const struct dns_name *name,
                    uint16_t type, bool top, uint32_t ttl, const uint8_t *data, size_t len) {
    size_t n = w->n;
    uint8_t n_label = w->n_label;
    put_name(w, name, false);
    put16(w, type);
    put16(w, DNS_IN | (top ? TOP : 0U));
    put16(w, ttl >> 16);
    put16(w, ttl & 0xffff);
    size_t at = w->n;
    put16(w, 0);
    put_data(w, type, data, len);
    if (!w->is_full) {
        size_t got = w->n - at - 2;
        w->b[at] = (uint8_t)(got >> 8);
        w->b[at + 1] = (uint8_t)got;
    }
    return keep(w, section, n, n_label);
}

size_t dns_end(struct dns_writer *w) {
    size_t n = w->n;
    w->n = 0;
    put16(w, w->id);
    put16(w, w->flags);
    for (int s = 0; s < DNS_SECTIONS; s++) put16(w, w->count[s]);
    w->n = n;
    return n;
}
