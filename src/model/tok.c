#include "model/tok_tables.h"

#include <stdlib.h>
#include <string.h>

/* Multiply and fold, eight bytes at a time; only compared within one process. */
uint32_t tok_hash(const char *s, size_t len) {
    uint64_t h = len * 0x9e3779b97f4a7c15;
    for (; len >= 8; s += 8, len -= 8) {
        uint64_t v;
        memcpy(&v, s, 8);
        h = (h ^ v) * 0xff51afd7ed558ccd;
        h ^= h >> 32;
    }
    uint64_t v = 0;
    memcpy(&v, s, len);
    h = (h ^ v) * 0xff51afd7ed558ccd;
    h ^= h >> 29;
    h *= 0xc4ceb9fe1a85ec53;
    return (uint32_t)(h >> 32);
}

static int32_t lookup(const struct tok *t, const char *s, size_t len) {
    if (!len || len > t->longest) return -1;
    uint32_t tag = tok_hash(s, len);
    for (uint32_t i = tag & t->slot_mask;; i = (i + 1) & t->slot_mask) {
        const struct token_slot *slot = &t->slot[i];
        if (!slot->id1) return -1;
        if (slot->tag != tag) continue;
        uint32_t at = t->start[slot->id1 - 1], n = t->start[slot->id1] - at;
        if (n == len && !memcmp(t->text + at, s, len)) return slot->id1 - 1;
    }
}

int32_t tok_find(const struct tok *t, const char *text, size_t len) {
    return lookup(t, text, len);
}

int32_t tok_word(const struct tok *t, const char *s, size_t len) {
    int32_t id = lookup(t, s, len);
    if (id < 0 || t->attr[id] & ATTR_ALIEN) return -1;
    switch (t->attr[id] & ATTR_TYPE) {
    case TOKEN_NORMAL:
    case TOKEN_USER:
    case TOKEN_UNUSED: return id;
    default: return -1;  // control tokens never come out of plain text
    }
}

void tok_emit(struct encoder *en, int32_t id) {
    if (en->n < en->cap) en->out[en->n] = id;
    en->n++;
}

static bool is_type(const struct tok *t, int32_t id, enum token_type type) {
    return id >= 0 && (t->attr[id] & ATTR_TYPE) == type;
}

bool tok_is_special(const struct tok *t, int32_t id) {
    if (id < 0 || (uint32_t)id >= t->n_token) return false;
    unsigned type = t->attr[id] & ATTR_TYPE;
    return type == TOKEN_CONTROL || type == TOKEN_USER || type == TOKEN_UNKNOWN;
}

static MUST encode_text(struct encoder *en, const char *s, size_t len, bool prefix, struct err *e) {
    if (en->t->kind == TOK_BPE) return bpe_encode(en, s, len, e);
    return spm_encode(en, s, len, prefix, e);
}

/* Special tokens as they stand, the text between them encoded. */
static MUST encode_marked(struct encoder *en, const char *s, size_t len, const int32_t *mark,
                          struct err *e) {
    bool prefix = true;
    for (size_t i = 0; i < len;) {
        if (mark[i] >= 0) {
            tok_emit(en, mark[i++]);
            prefix = true;
        } else if (mark[i] <= MARK_TAKEN) {
            i++;
        } else {
            size_t end = i;
            while (end < len && (mark[end] == MARK_FREE || mark[end] == MARK_PLAIN)) end++;
            if (!encode_text(en, s + i, end - i, prefix, e)) return false;
            prefix = false;
            i = end;
        }
    }
    return true;
}

/* The whole text s [len], which part[] describes; scratch of en is the caller's to free. */
static MUST encode_all(struct encoder *en, const char *s, size_t len, const struct tok_part *part,
                       size_t n_part, struct err *e) {
    const struct tok *t = en->t;
    bool all = false;
    for (size_t i = 0; i < n_part; i++) all |= !part[i].plain;
    if (!len) return true;
    if (all ? !t->n_special : !t->has_user) return encode_text(en, s, len, true, e);
    int32_t *mark = malloc(len * sizeof *mark);
    if (!mark) return err_set(e, ERR_MEMORY, "no memory to tokenise %zu bytes", len);
    for (size_t i = 0, at = 0; i < n_part; i++) {
        for (size_t k = 0; k < part[i].len; k++) {
            mark[at++] = part[i].plain ? MARK_PLAIN : MARK_FREE;
        }
    }
    bool ok = special_mark(t, s, len, mark, e) && encode_marked(en, s, len, mark, e);
    free(mark);
    return ok;
}

MUST tok_encode_parts(const struct tok *t, const struct tok_part *part, size_t n_part,
                      unsigned flags, int32_t *out, size_t cap, size_t *n, struct err *e) {
    enum { TEXT_MAX = 1 << 29 };  // positions are 32 bits wide, spaces may become three bytes
    size_t len = 0;
    for (size_t i = 0; i < n_part; i++) {
        if (part[i].len > TEXT_MAX - len) {
            return err_set(e, ERR_LIMIT, "the text is longer than %d bytes", TEXT_MAX);
        }
        len += part[i].len;
    }
    char *joined = NULL;
    if (n_part > 1) {
        joined = malloc(len + 1);
        if (!joined) return err_set(e, ERR_MEMORY, "no memory to tokenise %zu bytes", len);
        for (size_t i = 0, at = 0; i < n_part; at += part[i++].len) {
            if (part[i].len) memcpy(joined + at, part[i].text, part[i].len);
        }
    }
    struct encoder en = {.t = t, .out = out, .cap = cap};
    if (flags & TOK_BOS && t->add_bos && t->bos >= 0) tok_emit(&en, t->bos);
    bool ok = encode_all(&en, joined ? joined : n_part ? part[0].text : "", len, part, n_part, e);
    if (flags & TOK_EOS && t->add_eos && t->eos >= 0) tok_emit(&en, t->eos);
    free(joined);
    encoder_free(&en);
    *n = en.n;
    if (!ok) return false;
    if (en.n <= cap) return true;
    return err_set(e, ERR_LIMIT, "the text is %zu tokens long, there is room for %zu", en.n, cap);
}

MUST tok_encode(const struct tok *t, const char *text, size_t len, unsigned flags, int32_t *out,
                size_t cap, size_t *n, struct err *e) {
    struct tok_part part = {.text = text, .len = len, .plain = !(flags & TOK_SPECIAL)};
    return tok_encode_parts(t, &part, 1, flags, out, cap, n, e);
}

/* A token for each byte; after each control token SentencePiece may put a space, and one at the
 * beginning; BOS and EOS. */
size_t tok_bound(size_t len) {
    return len > SIZE_MAX / 2 - 3 ? SIZE_MAX : 2 * len + 3;
}

bool tok_is_control(const struct tok *t, int32_t id) {
    if (id < 0 || (uint32_t)id >= t->n_token) return false;
    return is_type(t, id, TOKEN_CONTROL) || is_type(t, id, TOKEN_UNKNOWN);
}

bool tok_is_end(const struct tok *t, int32_t id) {
    return id >= 0 && (uint32_t)id < t->n_token && t->attr[id] & ATTR_END;
}

uint32_t tok_count(const struct tok *t) {
    return t->n_token;
}

size_t tok_longest(const struct tok *t) {
    return t->longest;
}

size_t tok_piece(const struct tok *t, int32_t id, bool special, const char **bytes) {
    *bytes = "";
    if (id < 0 || (uint32_t)id >= t->n_token) return 0;
    if (!special && tok_is_control(t, id)) return 0;
    *bytes = t->piece + t->piece_start[id];
    return t->piece_start[id + 1] - t->piece_start[id];
}
