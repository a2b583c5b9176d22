/* Special tokens in a text, longer ones first, in a time that no vocabulary can blow up.
 *
 * They are kept sorted. The specials that stand at a place of the text are all beginnings of the one
 * that sorts just before what stands there, so a binary search finds the longest and links lead to the
 * shorter ones. A heap takes the places in order. What is placed there blocks any later, hence no
 * longer one exactly when it covers its first or last byte; then the place is tried again with what
 * fits before it. Whatever blocks a place in turn lies between it and the last, is no shorter than what
 * is tried, and each try is shorter than the one before: 1 + 2 + ... + 91 > TOKEN_MAX, so that a place
 * is tried at most 91 times.
 */
#include "model/tok_tables.h"

#include "base/unicode.h"

#include <stdlib.h>
#include <string.h>

/* How many bytes a and b have in common, at least `from` and at most n of them. */
static size_t common(const char *a, const char *b, size_t from, size_t n) {
    size_t i = from;
    for (; i + 8 <= n; i += 8) {
        uint64_t x, y;
        memcpy(&x, a + i, 8);
        memcpy(&y, b + i, 8);
        if (x != y) break;
    }
    while (i < n && a[i] == b[i]) i++;
    return i;
}

static const char *text_of(const struct tok *t, const struct special *sp) {
    return t->text + t->start[sp->id];
}

/* Of the specials that special k begins with, itself included, the longest of at most `room` bytes. */
static uint32_t fitting(const struct tok *t, int among, uint32_t k, size_t room) {
    const struct special *sp = t->special;
    if (among == AMONG_USER && !sp[k].user) k = sp[k].link[among].up;
    while (sp[k].len > room) {
        const struct special_link *link = &sp[k].link[among];
        k = sp[link->jump].len > room ? link->jump : link->up;
    }
    return k;
}

static int by_text(const void *a, const void *b, void *arg) {
    const struct tok *t = arg;
    const struct special *x = a, *y = b;
    size_t n = x->len < y->len ? x->len : y->len;
    const char *s = text_of(t, x), *r = text_of(t, y);
    size_t i = common(s, r, 0, n);
    if (i < n) return (uint8_t)s[i] < (uint8_t)r[i] ? -1 : 1;
    return x->len < y->len ? -1 : x->len > y->len;
}

/* Links of special k to what it begins with; those before it are linked. */
static void make_links(struct tok *t, uint32_t k) {
    struct special *sp = t->special, *at = &sp[k];
    uint32_t up = 0;
    if (k > 1) {
        size_t n = sp[k - 1].len < at->len ? sp[k - 1].len : at->len;
        up = fitting(t, AMONG_ALL, k - 1, common(text_of(t, &sp[k - 1]), text_of(t, at), 0, n));
    }
    for (int among = AMONG_USER; among <= AMONG_ALL; among++) {
        if (among == AMONG_ALL || sp[up].user) {
            at->link[among].up = up;
        } else {
            at->link[among].up = sp[up].link[among].up;
        }
        uint32_t p = at->link[among].up, j = sp[p].link[among].jump;
        uint32_t depth = sp[p].link[among].depth, depth_j = sp[j].link[among].depth;
        uint32_t jj = sp[j].link[among].jump;
        bool same = depth - depth_j == depth_j - sp[jj].link[among].depth;
        at->link[among].jump = same ? jj : p;
        at->link[among].depth = depth + 1;
    }
}

/* Of two tokens with one text only the first can be found. */
static bool is_sought(const struct tok *t, uint32_t id) {
    if (!tok_is_special(t, (int32_t)id)) return false;
    return tok_find(t, t->text + t->start[id], t->start[id + 1] - t->start[id]) == (int32_t)id;
}

MUST special_build(struct tok *t, struct err *e) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < t->n_token; i++) n += is_sought(t, i);
    if (!arena_array(&t->mem, &t->special, n + 1, sizeof *t->special, "special tokens", e))
        return false;
    t->special[0].id = -1;
    for (uint32_t i = 0; i < t->n_token; i++) {
        if (!is_sought(t, i)) continue;
        struct special *sp = &t->special[++t->n_special];
        sp->id = (int32_t)i;
        sp->len = (uint16_t)(t->start[i + 1] - t->start[i]);
        sp->user = (t->attr[i] & ATTR_TYPE) == TOKEN_USER;
        t->has_user |= sp->user;
    }
    qsort_r(t->special + 1, n, sizeof *t->special, by_text, t);
    for (uint32_t k = 1, c = 0; c <= 256; c++) {
        while (k <= n && (uint8_t)*text_of(t, &t->special[k]) < c) k++;
        t->special_at[c] = k;
    }
    for (uint32_t k = 1; k <= n; k++) make_links(t, k);
    return true;
}

/* The longest special that s [len > 0] begins with, or 0. */
static uint32_t longest_at(const struct tok *t, const char *s, size_t len) {
    uint32_t lo = t->special_at[(uint8_t)*s], hi = t->special_at[(uint8_t)*s + 1], before = 0;
    size_t same_lo = 1, same_hi = 1;  // bytes in common with those around lo and hi
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        const struct special *sp = &t->special[mid];
        const char *text = text_of(t, sp);
        size_t n = sp->len < len ? sp->len : len;
        size_t i = common(text, s, same_lo < same_hi ? same_lo : same_hi, n);
        if (i == sp->len || (i < n && (uint8_t)text[i] < (uint8_t)s[i])) {
            before = mid;
            lo = mid + 1;
            same_lo = i;
        } else {
            hi = mid;
            same_hi = i;
        }
    }
    return fitting(t, AMONG_ALL, before, same_lo);
}

/* A place where a special may stand. */
struct place {
    uint64_t key;      // what is tried there, longer ones before, then its position
    uint32_t longest;  // special
    uint32_t open;     // bytes up to the next one of a plain part
};

struct places {
    struct place *item;  // [cap], a heap of the first n; owned
    size_t n, cap;
};

static size_t len_of(const struct place *p) {
    return TOKEN_MAX - (size_t)(p->key >> 32);
}

static size_t at_of(const struct place *p) {
    return (size_t)(uint32_t)p->key;
}

static uint64_t key_of(size_t len, size_t at) {
    return (uint64_t)(TOKEN_MAX - len) << 32 | at;
}

/* The longest special for a place with `room` bytes, or 0. */
static uint32_t choose(const struct tok *t, const struct place *p, size_t room) {
    uint32_t user = fitting(t, AMONG_USER, p->longest, room);
    uint32_t any = fitting(t, AMONG_ALL, p->longest, room < p->open ? room : p->open);
    return t->special[any].len > t->special[user].len ? any : user;
}

static void sift_down(struct places *h, size_t i) {
    struct place down = h->item[i];
    for (size_t k; (k = 2 * i + 1) < h->n; i = k) {
        if (k + 1 < h->n && h->item[k + 1].key < h->item[k].key) k++;
        if (down.key <= h->item[k].key) break;
        h->item[i] = h->item[k];
    }
    h->item[i] = down;
}

static void drop_first(struct places *h) {
    h->item[0] = h->item[--h->n];
    if (h->n) sift_down(h, 0);
}

static MUST add_place(struct places *h, struct place p, struct err *e) {
    if (h->n == h->cap) {
        size_t cap = h->cap ? 2 * h->cap : 64;
        struct place *item = realloc(h->item, cap * sizeof *item);
        if (!item) return err_set(e, ERR_MEMORY, "no memory for %zu special tokens", cap);
        h->item = item;
        h->cap = cap;
    }
    h->item[h->n++] = p;
    return true;
}

/* All places, as a heap. */
static MUST collect(struct places *h, const struct tok *t, const char *s, size_t len,
                    const int32_t *mark, struct err *e) {
    uint32_t open = 0;
    for (size_t i = len; i-- > 0;) {
        open = mark[i] == MARK_PLAIN ? 0 : open + 1;
        struct place p = {.longest = longest_at(t, s + i, len - i), .open = open};
        size_t n = t->special[choose(t, &p, len - i)].len;
        p.key = key_of(n, i);
        if (n && !add_place(h, p, e)) return false;
    }
    for (size_t i = h->n / 2; i-- > 0;) sift_down(h, i);
    return true;
}

static bool is_free(int32_t mark) {
    return mark == MARK_FREE || mark == MARK_PLAIN;
}

/* Bytes free from the place on, at most what is tried there. */
static size_t room_at(const struct place *p, const int32_t *mark) {
    size_t at = at_of(p), len = len_of(p), last = at + len - 1;
    if (!is_free(mark[at])) return 0;
    if (is_free(mark[last])) return len;
    return last - (size_t)(mark[last] >= 0 ? 0 : MARK_TAKEN - mark[last]) - at;
}

static void take(const struct tok *t, const struct special *sp, const char *s, size_t len,
                 size_t at, int32_t *mark) {
    size_t end = at + sp->len;
    if (t->attr[sp->id] & ATTR_STRIP) {
        while (end < len && is_free(mark[end]) && ascii_is_space(s[end])) end++;
    }
    mark[at] = sp->id;
    for (size_t i = at + 1; i < end; i++) mark[i] = MARK_TAKEN - (int32_t)(i - at);
}

MUST special_mark(const struct tok *t, const char *s, size_t len, int32_t *mark, struct err *e) {
    struct places h = {0};
    bool ok = collect(&h, t, s, len, mark, e);
    while (ok && h.n) {
        struct place *p = &h.item[0];
        size_t at = at_of(p);
        const struct special *sp = &t->special[choose(t, p, room_at(p, mark))];
        if (sp->len && sp->len < len_of(p)) {
            p->key = key_of(sp->len, at);
            sift_down(&h, 0);
            continue;
        }
        if (sp->len) take(t, sp, s, len, at, mark);
        drop_first(&h);
    }
    free(h.item);
    return ok;
}
