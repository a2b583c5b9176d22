/* Byte-level BPE (Radford et al. 2019): text is cut into words, each byte of a word is a symbol, and
 * neighbours merge in the order in which training found the pairs. Vocabularies spell bytes as
 * printable code points; we translate once at open and work on token ids. With Gemma 4's, texts stand as
 * SentencePiece has them, and symbols are characters. */
#include "model/tok_tables.h"

#include <string.h>

/* Bytes that are printable in Latin-1 stand for themselves; the others take 0x100, 0x101, ... in
 * ascending order: 0x00-0x20 (33 of them), 0x7f-0xa0 (34), 0xad. */
size_t bpe_spell(uint8_t byte, char out[static 2]) {
    unsigned cp = byte;
    if (byte <= 0x20) {
        cp = 0x100U + byte;
    } else if (byte >= 0x7f && byte <= 0xa0) {
        cp = 0x121U + byte - 0x7f;
    } else if (byte == 0xad) {
        cp = 0x143;
    }
    if (cp < 0x80) {
        out[0] = (char)cp;
        return 1;
    }
    out[0] = (char)(0xc0 | cp >> 6);
    out[1] = (char)(0x80 | (cp & 0x3f));
    return 2;
}

/* The byte that code point cp spells, or -1. */
static int unspell(unsigned cp) {
    if (cp > 0x20 && cp < 0x7f) return (int)cp;
    if (cp > 0xa0 && cp < 0x100 && cp != 0xad) return (int)cp;
    if (cp >= 0x100 && cp <= 0x120) return (int)cp - 0x100;
    if (cp >= 0x121 && cp <= 0x142) return (int)cp - 0x121 + 0x7f;
    return cp == 0x143 ? 0xad : -1;
}

int64_t bpe_unspell(const char *s, size_t len, char *out) {
    int64_t n = 0;
    for (size_t i = 0; i < len; i++) {
        unsigned c = (uint8_t)s[i];
        if (c >= 0xc2 && c <= 0xc5 && i + 1 < len && ((uint8_t)s[i + 1] & 0xc0) == 0x80) {
            c = (c & 0x1f) << 6 | ((uint8_t)s[++i] & 0x3f);
        } else if (c >= 0x80) {
            return -1;
        }
        int b = unspell(c);
        if (b < 0) return -1;
        out[n++] = (char)b;
    }
    return n;
}

static uint32_t pair_hash(uint32_t left, uint32_t right) {
    uint64_t h = ((uint64_t)left << 32 | right) * 0x9e3779b97f4a7c15;  // 2^64 / golden ratio
    return (uint32_t)(h >> 32) ^ (uint32_t)(h >> 15);
}

/* "left right": the space is not the first byte, so that a token may begin with one. */
static bool split(const char *s, size_t len, size_t *at) {
    const char *space = len > 1 ? memchr(s + 1, ' ', len - 1) : NULL;
    if (!space) return false;
    *at = (size_t)(space - s);
    return *at + 1 < len;
}

static MUST add_pair(struct tok *t, uint32_t rank, const char *s, size_t len, struct err *e) {
    enum { PROBE_MAX = 4096 };  // never reached unless a file is made to collide
    char joined[TOKEN_MAX];
    size_t at;
    if (!split(s, len, &at)) return err_set(e, ERR_FORMAT, "merge %u is not a pair", rank);
    if (len - 1 > t->longest) return true;
    memcpy(joined, s, at);
    memcpy(joined + at, s + at + 1, len - at - 1);
    int32_t left = tok_word(t, s, at), right = tok_word(t, s + at + 1, len - at - 1);
    int32_t id = tok_word(t, joined, len - 1);
    /* A merge of texts that are no tokens can never show in the result. */
    if (left < 0 || right < 0 || id < 0) return true;
    uint32_t i = pair_hash((uint32_t)left, (uint32_t)right) & t->pair_mask;
    for (int probe = 0; probe < PROBE_MAX; probe++, i = (i + 1) & t->pair_mask) {
        struct pair_slot *p = &t->pair[i];
        if (!p->rank1) {
            *p = (struct pair_slot){(uint32_t)left, (uint32_t)right, rank + 1, id};
            return true;
        }
        if (p->left == (uint32_t)left && p->right == (uint32_t)right) return true;  // first counts
    }
    return err_set(e, ERR_FORMAT, "the vocabulary's merges collide");
}

MUST bpe_build(struct tok *t, const struct vocab *v, struct err *e) {
    if (!v->n_merge) return err_set(e, ERR_FORMAT, "the byte-level vocabulary has no merges");
    unsigned n_byte = 0;
    for (unsigned b = 0; b < 256; b++) {
        char name[2];
        if (t->byte_letters) t->byte_id[b] = tok_word(t, name, bpe_spell((uint8_t)b, name));
        n_byte += t->byte_id[b] >= 0;
    }
    if (!n_byte) return err_set(e, ERR_FORMAT, "the byte-level vocabulary has no byte tokens");
    uint32_t n = 2;  // one at least stays empty, where a search ends
    while (n < v->n_merge + v->n_merge / 2) n *= 2;
    t->pair_mask = n - 1;
    if (!arena_array(&t->mem, &t->pair, n, sizeof *t->pair, "merges", e)) return false;
    for (uint32_t i = 0; i < v->n_merge; i++) {
        size_t len = v->merge[i + 1] - v->merge[i];
        if (!add_pair(t, i, v->merge_text + v->merge[i], len, e)) return false;
    }
    return true;
}

bool bpe_pair(const struct encoder *en, const struct sym *a, const struct sym *b, uint32_t *prio,
              int32_t *id) {
    const struct tok *t = en->t;
    if (a->id < 0 || b->id < 0) return false;
    uint32_t left = (uint32_t)a->id, right = (uint32_t)b->id;
    for (uint32_t i = pair_hash(left, right) & t->pair_mask;; i = (i + 1) & t->pair_mask) {
        const struct pair_slot *p = &t->pair[i];
        if (!p->rank1) return false;
        if (p->left == left && p->right == right) {
            *prio = p->rank1;
            *id = p->id;
            return true;
        }
    }
}

/* The token that a whole word is, or -1. */
static int32_t whole(const struct tok *t, const char *s, size_t len) {
    char spelled[TOKEN_MAX + 2];
    size_t n = 0;
    if (!t->byte_letters) return tok_word(t, s, len);
    for (size_t i = 0; i < len; i++) {
        if (n >= t->longest) return -1;
        n += bpe_spell((uint8_t)s[i], spelled + n);
    }
    return tok_word(t, spelled, n);
}

/* Whether a word that is a token is taken whole. Gemma 4's are lines, of which only runs of ends are. */
static bool is_whole(const struct tok *t, const char *s) {
    return t->marks ? *s == '\n' : t->pre.whole_words;
}

static MUST encode_bytes(struct encoder *en, const char *s, size_t len, struct err *e) {
    const struct tok *t = en->t;
    if (!encoder_reserve(en, len, e)) return false;
    en->buf = s;
    en->n_sym = len;
    for (size_t i = 0; i < len; i++) {
        int32_t k = (int32_t)i;
        en->sym[i] = (struct sym){k - 1, k + 1, t->byte_id[(uint8_t)s[i]], (uint32_t)i, 1};
    }
    en->sym[len - 1].next = -1;
    tok_merge(en);
    for (int32_t i = 0; i >= 0; i = en->sym[i].next) {
        /* A byte that the vocabulary cannot spell is left out, as other implementations do. */
        if (en->sym[i].id >= 0) tok_emit(en, en->sym[i].id);
    }
    return true;
}

static MUST encode_word(struct encoder *en, const char *s, size_t len, struct err *e) {
    int32_t id = is_whole(en->t, s) ? whole(en->t, s, len) : -1;
    if (id < 0) return en->t->marks ? spm_run(en, s, len, e) : encode_bytes(en, s, len, e);
    tok_emit(en, id);
    return true;
}

MUST bpe_encode(struct encoder *en, const char *s, size_t len, struct err *e) {
    struct pretok_words w;
    if (en->t->marks) {
        if (!spm_escape(en, s, len, false, &len, e)) return false;
        s = en->copy;
    }
    pretok_begin(&w, en->t->pre.cut, (const uint8_t *)s, len);
    for (size_t at = 0, n; (n = pretok_next(&w)); at = w.at) {
        if (!encode_word(en, s + at, n, e)) return false;
    }
    return true;
}
