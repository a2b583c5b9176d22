#include "model/gguf.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    KEY_MAX = 65535,     // bytes, by the format
    NAME_MAX_LEN = 255,  // of a tensor; ggml's own limit is 63
    ALIGN_MAX = 1 << 20,
    KV_MIN = 8 + 1 + 4 + 1,  // smallest key-value pair in bytes
    TENSOR_MIN = 8 + 1 + 4 + 8 + 4 + 8,
    STRING_ARRAY_MAX = MODEL_MAX_META / 8,  // an empty string takes 8 bytes
};

/* Source of sizes: ggml's block structures; checked against the golden blocks in tests/test_gguf.c.
 * Numbers left out were removed from the format (4, 5, 31-33, 36-38). */
static const struct tensor_format formats[] = {
    [0] = {"F32", 1, 4},         [1] = {"F16", 1, 2},         [2] = {"Q4_0", 32, 18},
    [3] = {"Q4_1", 32, 20},      [6] = {"Q5_0", 32, 22},      [7] = {"Q5_1", 32, 24},
    [8] = {"Q8_0", 32, 34},      [9] = {"Q8_1", 32, 36},      [10] = {"Q2_K", 256, 84},
    [11] = {"Q3_K", 256, 110},   [12] = {"Q4_K", 256, 144},   [13] = {"Q5_K", 256, 176},
    [14] = {"Q6_K", 256, 210},   [15] = {"Q8_K", 256, 292},   [16] = {"IQ2_XXS", 256, 66},
    [17] = {"IQ2_XS", 256, 74},  [18] = {"IQ3_XXS", 256, 98}, [19] = {"IQ1_S", 256, 50},
    [20] = {"IQ4_NL", 32, 18},   [21] = {"IQ3_S", 256, 110},  [22] = {"IQ2_S", 256, 82},
    [23] = {"IQ4_XS", 256, 136}, [24] = {"I8", 1, 1},         [25] = {"I16", 1, 2},
    [26] = {"I32", 1, 4},        [27] = {"I64", 1, 8},        [28] = {"F64", 1, 8},
    [29] = {"IQ1_M", 256, 56},   [30] = {"BF16", 1, 2},       [34] = {"TQ1_0", 256, 54},
    [35] = {"TQ2_0", 256, 66},   [39] = {"MXFP4", 32, 17},    [40] = {"NVFP4", 64, 36},
    [41] = {"Q1_0", 128, 18},    [42] = {"Q2_0", 64, 18},
};

enum { N_FORMAT = sizeof formats / sizeof *formats };

const struct tensor_format *tensor_format(uint32_t type) {
    if (type >= N_FORMAT || !formats[type].name) return NULL;
    return &formats[type];
}

/* A value type's name and its bytes; 0 for the two whose size the file tells. */
static const struct {
    const char *name;
    uint8_t bytes;
} types[N_GGUF_TYPE] = {
    [GGUF_U8] = {"u8", 1},       [GGUF_I8] = {"i8", 1},     [GGUF_U16] = {"u16", 2},
    [GGUF_I16] = {"i16", 2},     [GGUF_U32] = {"u32", 4},   [GGUF_I32] = {"i32", 4},
    [GGUF_F32] = {"f32", 4},     [GGUF_BOOL] = {"bool", 1}, [GGUF_STRING] = {"string", 0},
    [GGUF_ARRAY] = {"array", 0}, [GGUF_U64] = {"u64", 8},   [GGUF_I64] = {"i64", 8},
    [GGUF_F64] = {"f64", 8},
};

const char *gguf_type_name(uint32_t type) {
    return type < N_GGUF_TYPE ? types[type].name : "unknown";
}

const char *gguf_show(char out[static 64], const char *text) {
    size_t i = 0;
    for (; i < 63 && text[i]; i++) {
        unsigned char b = (unsigned char)text[i];
        out[i] = b < 0x20 || b > 0x7e ? '?' : text[i];
    }
    out[i] = 0;
    if (text[i]) memcpy(out + 60, "...", 4);
    return out;
}

/* What both passes share. In the first, mem is NULL and `need` grows; in the second it is filled. */
struct pass {
    struct gguf *g;
    struct arena *mem;
    size_t need;
    char name[KEY_MAX + 1];  // the key or tensor name at hand
    char what[96];           // "key x.y" or "tensor x", for messages
};

/* What follows is at most KEY_MAX: a message must not grow with the file's names. */
static void describe(struct pass *p, const char *kind, const char *name) {
    char shown[64];
    snprintf(p->what, sizeof p->what, "%s %s", kind, gguf_show(shown, name));
}

/* n bytes of the arena in the second pass; only counted (and NULL) in the first. */
static MUST keep(struct pass *p, size_t n, size_t align, void *out, struct err *e) {
    void *at = NULL;
    if (!p->mem) {
        p->need += n + align;
    } else if (!(at = arena_push(p->mem, n, align))) {
        return err_set(e, ERR_FORMAT, "the file changed while it was read");
    }
    memcpy(out, &at, sizeof at);
    return true;
}

/* Read a name of 1..max bytes of printable ASCII into p->name. */
static MUST read_name(struct pass *p, const char *kind, uint32_t i, size_t max, size_t *len,
                      struct err *e) {
    struct cursor *c = &p->g->c;
    snprintf(p->what, sizeof p->what, "name of %s %" PRIu32, kind, i);
    uint64_t n = cursor_u64(c);
    if (c->failed) return cursor_err(c, p->what, e);
    if (n > cursor_left(c)) {
        return err_set(e, ERR_FORMAT, "%s: claims %" PRIu64 " bytes where %" PRIu64 " are left",
                       p->what, n, cursor_left(c));
    }
    if (n == 0) return err_set(e, ERR_FORMAT, "%s is empty", p->what);
    if (n > max) {
        return err_set(e, ERR_LIMIT, "%s has %" PRIu64 " bytes (at most %zu)", p->what, n, max);
    }
    if (!cursor_bytes(c, p->name, n)) return cursor_err(c, p->what, e);
    p->name[n] = 0;
    for (size_t k = 0; k < n; k++) {
        unsigned char b = (unsigned char)p->name[k];
        if (b >= 0x20 && b < 0x7f) continue;
        return err_set(e, ERR_FORMAT, "%s holds byte 0x%02x, which is not printable ASCII", p->what,
                       b);
    }
    *len = n;
    describe(p, kind, p->name);
    return true;
}

/* Keep p->name; NULL in the first pass. */
static MUST keep_name(struct pass *p, size_t len, const char **out, struct err *e) {
    char *name = NULL;
    if (!keep(p, len + 1, 1, &name, e)) return false;
    if (name) memcpy(name, p->name, len + 1);
    *out = name;
    return true;
}

static MUST read_string(struct pass *p, struct gguf_kv *kv, struct err *e) {
    struct cursor *c = &p->g->c;
    kv->n = cursor_u64(c);
    if (c->failed) return cursor_err(c, p->what, e);
    if (kv->n > cursor_left(c)) {
        return err_set(e, ERR_FORMAT,
                       "%s: a string of %" PRIu64 " bytes where %" PRIu64 " are left", p->what,
                       kv->n, cursor_left(c));
    }
    if (kv->n > MODEL_MAX_META) {
        return err_set(e, ERR_LIMIT, "%s: a string of %" PRIu64 " bytes (at most %d)", p->what,
                       kv->n, MODEL_MAX_META);
    }
    char *text = NULL;
    if (!keep(p, kv->n + 1, 1, &text, e)) return false;
    kv->text = text;
    if (!(text ? cursor_bytes(c, text, kv->n) : cursor_skip(c, kv->n))) {
        return cursor_err(c, p->what, e);
    }
    if (text) text[kv->n] = 0;
    return true;
}

/* Walk an array of strings without keeping it: every length is checked here, once. */
static MUST skip_strings(struct pass *p, const struct gguf_kv *kv, struct err *e) {
    struct cursor *c = &p->g->c;
    for (uint64_t i = 0; i < kv->n; i++) {
        uint64_t len = cursor_u64(c);
        if (c->failed) return cursor_err(c, p->what, e);
        if (len > cursor_left(c)) {
            return err_set(e, ERR_FORMAT,
                           "%s: string %" PRIu64 " claims %" PRIu64 " bytes where %" PRIu64
                           " are left",
                           p->what, i, len, cursor_left(c));
        }
        if (c->pos - kv->pos + len > MODEL_MAX_META) {
            return err_set(e, ERR_LIMIT, "%s is larger than %d bytes", p->what, MODEL_MAX_META);
        }
        if (!cursor_skip(c, len)) return cursor_err(c, p->what, e);
    }
    return true;
}

static MUST read_array(struct pass *p, struct gguf_kv *kv, struct err *e) {
    struct cursor *c = &p->g->c;
    kv->elem = cursor_u32(c);
    kv->n = cursor_u64(c);
    kv->pos = c->pos;
    if (c->failed) return cursor_err(c, p->what, e);
    if (kv->elem >= N_GGUF_TYPE || kv->elem == GGUF_ARRAY) {
        return err_set(e, ERR_FORMAT, "%s is an array of %s (type %" PRIu32 "), which no key uses",
                       p->what, kv->elem == GGUF_ARRAY ? "arrays" : "an unknown kind", kv->elem);
    }
    uint64_t least = types[kv->elem].bytes ? types[kv->elem].bytes : 8;
    if (kv->n > cursor_left(c) / least) {
        return err_set(e, ERR_FORMAT,
                       "%s claims %" PRIu64 " items of %s where %" PRIu64 " bytes are left",
                       p->what, kv->n, types[kv->elem].name, cursor_left(c));
    }
    if (kv->n > STRING_ARRAY_MAX) {
        return err_set(e, ERR_LIMIT, "%s has %" PRIu64 " items (at most %d)", p->what, kv->n,
                       STRING_ARRAY_MAX);
    }
    if (kv->elem == GGUF_STRING) {
        if (!skip_strings(p, kv, e)) return false;
    } else if (!cursor_skip(c, kv->n * least)) {
        return cursor_err(c, p->what, e);
    }
    kv->bytes = c->pos - kv->pos;
    /* The vocabulary's arrays are copied later and never take more than they do in the file, but for
     * the types (a byte for each token even where the file has none) and the last bounds. */
    if (!strncmp(p->name, "tokenizer.ggml.", 15)) p->need += kv->bytes + kv->n + 256;
    return true;
}

static double float_of(uint64_t bits) {
    double d;
    memcpy(&d, &bits, sizeof d);
    return d;
}

static uint64_t bits_of(double d) {
    uint64_t bits;
    memcpy(&bits, &d, sizeof bits);
    return bits;
}

static MUST read_scalar(struct pass *p, struct gguf_kv *kv, struct err *e) {
    struct cursor *c = &p->g->c;
    switch (kv->type) {
    case GGUF_U8: kv->bits = cursor_u8(c); break;
    case GGUF_I8: kv->bits = (uint64_t)(int8_t)cursor_u8(c); break;
    case GGUF_U16: kv->bits = cursor_u16(c); break;
    case GGUF_I16: kv->bits = (uint64_t)(int16_t)cursor_u16(c); break;
    case GGUF_U32: kv->bits = cursor_u32(c); break;
    case GGUF_I32: kv->bits = (uint64_t)(int32_t)cursor_u32(c); break;
    case GGUF_F32: kv->bits = bits_of((double)cursor_f32(c)); break;
    case GGUF_BOOL: kv->bits = cursor_u8(c); break;
    case GGUF_F64: kv->bits = bits_of(cursor_f64(c)); break;
    default: kv->bits = cursor_u64(c); break;
    }
    if (c->failed) return cursor_err(c, p->what, e);
    if (kv->type == GGUF_BOOL && kv->bits > 1) {
        return err_set(e, ERR_FORMAT, "%s is a bool with value %" PRIu64, p->what, kv->bits);
    }
    return true;
}

static bool is_float(const struct gguf_kv *kv) {
    return kv->type == GGUF_F32 || kv->type == GGUF_F64;
}

static bool is_signed(const struct gguf_kv *kv) {
    return kv->type == GGUF_I8 || kv->type == GGUF_I16 || kv->type == GGUF_I32 ||
           kv->type == GGUF_I64;
}

static bool is_integer(const struct gguf_kv *kv) {
    return kv->type < N_GGUF_TYPE && types[kv->type].bytes && !is_float(kv) &&
           kv->type != GGUF_BOOL;
}

void gguf_value_text(char out[static GGUF_VALUE_TEXT], const struct gguf_kv *kv) {
    if (kv->type == GGUF_ARRAY) {
        snprintf(out, GGUF_VALUE_TEXT, "[%" PRIu64 " items]", kv->n);
    } else if (kv->type == GGUF_BOOL) {
        snprintf(out, GGUF_VALUE_TEXT, "%s", kv->bits ? "true" : "false");
    } else if (is_float(kv)) {
        snprintf(out, GGUF_VALUE_TEXT, kv->type == GGUF_F32 ? "%.7g" : "%.15g", float_of(kv->bits));
    } else if (is_signed(kv)) {
        snprintf(out, GGUF_VALUE_TEXT, "%" PRId64, (int64_t)kv->bits);
    } else {
        snprintf(out, GGUF_VALUE_TEXT, "%" PRIu64, kv->bits);
    }
}

static MUST read_kv(struct pass *p, struct gguf_kv *kv, uint32_t i, struct err *e) {
    struct cursor *c = &p->g->c;
    size_t len;
    if (!read_name(p, "key", i, KEY_MAX, &len, e) || !keep_name(p, len, &kv->key, e)) return false;
    kv->type = cursor_u32(c);
    if (c->failed) return cursor_err(c, p->what, e);
    if (kv->type >= N_GGUF_TYPE) {
        return err_set(e, ERR_FORMAT, "%s has value type %" PRIu32 ", which GGUF does not define",
                       p->what, kv->type);
    }
    if (kv->type == GGUF_STRING) return read_string(p, kv, e);
    if (!(kv->type == GGUF_ARRAY ? read_array(p, kv, e) : read_scalar(p, kv, e))) return false;
    char *text = NULL;
    if (!keep(p, GGUF_VALUE_TEXT, 1, &text, e)) return false;
    if (text) gguf_value_text(text, kv);
    kv->text = text;
    return true;
}

/* Bytes of a tensor from its type and dimensions. */
static MUST tensor_size(const struct pass *p, struct tensor *t, struct err *e) {
    const struct tensor_format *f = tensor_format(t->type);
    if (t->type >= N_FORMAT) {
        return err_set(e, ERR_UNSUPPORTED,
                       "%s has type %" PRIu32 ", which is newer than this version; "
                       "take a file of another type, such as Q4_K_M or Q8_0",
                       p->what, t->type);
    }
    if (!f) {
        return err_set(e, ERR_FORMAT,
                       "%s has type %" PRIu32 ", which GGUF does not define (any more)", p->what,
                       t->type);
    }
    uint64_t n = 1;
    for (uint32_t k = 0; k < 4; k++) {
        if (t->dim[k] && t->dim[k] <= INT64_MAX && !__builtin_mul_overflow(n, t->dim[k], &n))
            continue;
        return err_set(e, ERR_FORMAT,
                       "%s: dimensions [%" PRIu64 ", %" PRIu64 ", %" PRIu64 ", %" PRIu64
                       "] cannot be",
                       p->what, t->dim[0], t->dim[1], t->dim[2], t->dim[3]);
    }
    if (t->dim[0] % f->block) {
        return err_set(e, ERR_FORMAT,
                       "%s: rows of %" PRIu64 " values are no multiple of %s's block of "
                       "%" PRIu32,
                       p->what, t->dim[0], f->name, f->block);
    }
    if (__builtin_mul_overflow(n / f->block, (uint64_t)f->bytes, &t->len)) {
        return err_set(e, ERR_FORMAT, "%s: %" PRIu64 " values are more than any file holds",
                       p->what, n);
    }
    return true;
}

static MUST read_tensor(struct pass *p, struct tensor *t, uint32_t i, struct err *e) {
    struct cursor *c = &p->g->c;
    size_t len;
    if (!read_name(p, "tensor", i, NAME_MAX_LEN, &len, e)) return false;
    if (!keep_name(p, len, &t->name, e)) return false;
    t->n_dim = cursor_u32(c);
    if (c->failed) return cursor_err(c, p->what, e);
    if (t->n_dim < 1 || t->n_dim > 4) {
        return err_set(e, ERR_FORMAT, "%s has %" PRIu32 " dimensions (1 to 4 can be)", p->what,
                       t->n_dim);
    }
    for (uint32_t k = 0; k < 4; k++) t->dim[k] = k < t->n_dim ? cursor_u64(c) : 1;
    t->type = cursor_u32(c);
    t->off = cursor_u64(c);
    if (c->failed) return cursor_err(c, p->what, e);
    return tensor_size(p, t, e);
}

/* Magic, version and the two counts. */
static MUST read_header(struct gguf *g, struct err *e) {
    struct cursor *c = &g->c;
    uint8_t magic[4];
    if (!g->len) return err_set(e, ERR_FORMAT, "the file is empty");
    if (!cursor_bytes(c, magic, 4)) return cursor_err(c, "not a GGUF file: the magic number", e);
    if (memcmp(magic, "GGUF", 4) != 0) {
        bool old = !memcmp(magic + 1, "jgg", 3) || !memcmp(magic, "lmgg", 4);
        return err_set(e, ERR_FORMAT, "not a GGUF file: it starts with bytes %02x %02x %02x %02x%s",
                       magic[0], magic[1], magic[2], magic[3],
                       old ? " (GGML, the format before GGUF: convert it with llama.cpp)" : "");
    }
    g->version = cursor_u32(c);
    if (c->failed) return cursor_err(c, "header", e);
    if (g->version && !(g->version & 0xffff)) {
        return err_set(e, ERR_UNSUPPORTED, "a big-endian GGUF file (version field 0x%08" PRIx32 ")",
                       g->version);
    }
    if (g->version != 2 && g->version != 3) {
        return err_set(e, ERR_UNSUPPORTED, "GGUF version %" PRIu32 ", this program reads 2 and 3",
                       g->version);
    }
    uint64_t n_tensor = cursor_u64(c), n_kv = cursor_u64(c);
    if (c->failed) return cursor_err(c, "header", e);
    uint64_t left = cursor_left(c);
    if (n_tensor > left / TENSOR_MIN || n_kv > left / KV_MIN) {
        return err_set(e, ERR_FORMAT,
                       "the header claims %" PRIu64 " keys and %" PRIu64
                       " tensors in a file of %" PRIu64 " bytes",
                       n_kv, n_tensor, g->len);
    }
    if (n_tensor > MODEL_MAX_TENSOR || n_kv > MODEL_MAX_KV) {
        return err_set(e, ERR_LIMIT, "%" PRIu64 " keys and %" PRIu64 " tensors (at most %d and %d)",
                       n_kv, n_tensor, MODEL_MAX_KV, MODEL_MAX_TENSOR);
    }
    g->n_tensor = (uint32_t)n_tensor;
    g->n_kv = (uint32_t)n_kv;
    return true;
}

static MUST walk(struct pass *p, struct err *e) {
    struct gguf *g = p->g;
    if (!keep(p, g->n_kv * sizeof *g->kv, 64, &g->kv, e) ||
        !keep(p, g->n_kv * sizeof *g->kv_by_key, 64, &g->kv_by_key, e) ||
        !keep(p, g->n_tensor * sizeof *g->tensor, 64, &g->tensor, e) ||
        !keep(p, g->n_tensor * sizeof *g->tensor_by_name, 64, &g->tensor_by_name, e)) {
        return false;
    }
    for (uint32_t i = 0; i < g->n_kv; i++) {
        struct gguf_kv kv = {0};
        if (!read_kv(p, &kv, i, e)) return false;
        if (p->mem) g->kv[i] = kv;
        if (g->c.pos > MODEL_MAX_META) break;
    }
    for (uint32_t i = 0; i < g->n_tensor && g->c.pos <= MODEL_MAX_META; i++) {
        struct tensor t = {0};
        if (!read_tensor(p, &t, i, e)) return false;
        if (p->mem) g->tensor[i] = t;
    }
    if (g->c.pos > MODEL_MAX_META) {
        return err_set(e, ERR_LIMIT, "more than %d bytes of metadata", MODEL_MAX_META);
    }
    g->meta_len = g->c.pos;
    return true;
}

static int kv_cmp(const void *a, const void *b) {
    const struct gguf_kv *const *x = a, *const *y = b;
    return strcmp((*x)->key, (*y)->key);
}

static int tensor_cmp(const void *a, const void *b) {
    const struct tensor *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

static int tensor_off_cmp(const void *a, const void *b) {
    const struct tensor *const *x = a, *const *y = b;
    return ((*x)->off > (*y)->off) - ((*x)->off < (*y)->off);
}

MUST gguf_sort_keys(struct gguf *g, struct err *e) {
    char shown[64];
    for (uint32_t i = 0; i < g->n_kv; i++) g->kv_by_key[i] = &g->kv[i];
    if (g->n_kv) qsort(g->kv_by_key, g->n_kv, sizeof *g->kv_by_key, kv_cmp);
    for (uint32_t i = 1; i < g->n_kv; i++) {
        if (strcmp(g->kv_by_key[i - 1]->key, g->kv_by_key[i]->key) != 0) continue;
        return err_set(e, ERR_FORMAT, "key %s is there twice",
                       gguf_show(shown, g->kv_by_key[i]->key));
    }
    g->align = 32;
    if (!gguf_u32(g, "general.alignment", UINT32_MAX, &g->align, e)) return false;
    if (!g->align || (g->align & (g->align - 1)) || g->align > ALIGN_MAX) {
        return err_set(e, ERR_FORMAT,
                       "general.alignment is %" PRIu32 ", which is no power of two up "
                       "to %d",
                       g->align, ALIGN_MAX);
    }
    return true;
}

MUST gguf_sort_tensors(struct gguf *g, struct err *e) {
    char shown[64];
    if (g->n_tensor) qsort(g->tensor_by_name, g->n_tensor, sizeof *g->tensor_by_name, tensor_cmp);
    for (uint32_t i = 1; i < g->n_tensor; i++) {
        if (strcmp(g->tensor_by_name[i - 1]->name, g->tensor_by_name[i]->name) != 0) continue;
        return err_set(e, ERR_FORMAT, "tensor %s is there twice",
                       gguf_show(shown, g->tensor_by_name[i]->name));
    }
    return true;
}

/* Every tensor aligned, inside the file and clear of the others; offsets become the file's. */
static MUST place_tensors(struct gguf *g, struct err *e) {
    char shown[64], other[64];
    g->data_off = (g->meta_len + g->align - 1) & ~(uint64_t)(g->align - 1);
    for (uint32_t i = 0; i < g->n_tensor; i++) {
        struct tensor *t = &g->tensor[i];
        g->tensor_by_name[i] = t;
        uint64_t at, end;
        if (t->off & (g->align - 1)) {
            return err_set(e, ERR_FORMAT,
                           "tensor %s: offset %" PRIu64 " is no multiple of the "
                           "alignment %" PRIu32,
                           gguf_show(shown, t->name), t->off, g->align);
        }
        if (__builtin_add_overflow(t->off, g->data_off, &at) ||
            __builtin_add_overflow(at, t->len, &end) || end > g->len) {
            return err_set(e, ERR_FORMAT,
                           "tensor %s: %" PRIu64 " bytes at offset %" PRIu64 " of the data go past "
                           "the end of the file, which has %" PRIu64 " bytes (an incomplete "
                           "download?)",
                           gguf_show(shown, t->name), t->len, t->off, g->len);
        }
        t->off = at;
    }
    if (!g->n_tensor) return true;
    qsort(g->tensor_by_name, g->n_tensor, sizeof *g->tensor_by_name, tensor_off_cmp);
    for (uint32_t i = 1; i < g->n_tensor; i++) {
        const struct tensor *a = g->tensor_by_name[i - 1], *b = g->tensor_by_name[i];
        if (a->off + a->len <= b->off) continue;
        return err_set(e, ERR_FORMAT, "tensors %s and %s overlap at byte %" PRIu64,
                       gguf_show(shown, a->name), gguf_show(other, b->name), b->off);
    }
    return gguf_sort_tensors(g, e);
}

MUST gguf_read(struct gguf *g, struct arena *mem, int fd, uint64_t base, uint64_t len,
               uint8_t *window, size_t extra, struct err *e) {
    *g = (struct gguf){.len = len};
    *mem = (struct arena){0};
    cursor_file(&g->c, fd, base, len, window);
    if (!read_header(g, e)) return false;
    uint64_t start = g->c.pos;
    struct pass *p = calloc(1, sizeof *p);
    if (!p) return err_set(e, ERR_MEMORY, "no memory to read the metadata");
    p->g = g;
    bool ok = walk(p, e);
    if (ok) {
        size_t tables = g->n_tensor * (size_t)GGUF_TENSOR_ROOM;
        ok = arena_open(mem, "model directory", p->need + tables + extra, e);
        p->mem = mem;
    }
    ok = ok && (cursor_seek(&g->c, start) || cursor_err(&g->c, "header", e)) && walk(p, e) &&
         gguf_sort_keys(g, e) && place_tensors(g, e);
    free(p);
    if (!ok) {
        arena_close(mem);
        return false;
    }
    for (uint32_t i = 0; i < g->n_tensor; i++) g->tensor[i].off += base;
    return true;
}

const struct gguf_kv *gguf_find(const struct gguf *g, const char *key) {
    struct gguf_kv want = {.key = key};
    const struct gguf_kv *at = &want;
    if (!g->n_kv) return NULL;
    struct gguf_kv **hit = bsearch(&at, g->kv_by_key, g->n_kv, sizeof *g->kv_by_key, kv_cmp);
    return hit ? *hit : NULL;
}

const struct tensor *gguf_tensor(const struct gguf *g, const char *name) {
    struct tensor want = {.name = name};
    const struct tensor *at = &want;
    if (!g->n_tensor) return NULL;
    struct tensor **hit =
        bsearch(&at, g->tensor_by_name, g->n_tensor, sizeof *g->tensor_by_name, tensor_cmp);
    return hit ? *hit : NULL;
}

/* The value's own text is not shown for strings: it may be long, and the type is the point. */
static bool wrong_type(const struct gguf_kv *kv, const char *wanted, struct err *e) {
    char shown[64];
    bool array = kv->type == GGUF_ARRAY;
    return err_set(e, ERR_FORMAT, "key %s is %s%s, not %s", gguf_show(shown, kv->key),
                   array ? "an array of " : "a value of type ",
                   gguf_type_name(array ? kv->elem : kv->type), wanted);
}

MUST gguf_int(const struct gguf *g, const char *key, uint64_t *v, struct err *e) {
    const struct gguf_kv *kv = gguf_find(g, key);
    if (!kv) return true;
    if (!is_integer(kv)) return wrong_type(kv, "an integer", e);
    *v = kv->bits;
    return true;
}

MUST gguf_u32(const struct gguf *g, const char *key, uint32_t max, uint32_t *v, struct err *e) {
    uint64_t bits = *v;
    if (!gguf_int(g, key, &bits, e)) return false;
    const struct gguf_kv *kv = gguf_find(g, key);
    if (!kv) return true;
    if (is_signed(kv) && (int64_t)bits < 0) {
        return err_set(e, ERR_FORMAT, "key %s is negative (%" PRId64 ")", key, (int64_t)bits);
    }
    if (bits > max) {
        return err_set(e, ERR_LIMIT, "key %s is %" PRIu64 " (at most %" PRIu32 ")", key, bits, max);
    }
    *v = (uint32_t)bits;
    return true;
}

MUST gguf_f64(const struct gguf *g, const char *key, double *v, struct err *e) {
    const struct gguf_kv *kv = gguf_find(g, key);
    if (!kv) return true;
    if (!is_float(kv)) return wrong_type(kv, "a number with a fraction (f32)", e);
    *v = float_of(kv->bits);
    return true;
}

MUST gguf_bool(const struct gguf *g, const char *key, bool *v, struct err *e) {
    const struct gguf_kv *kv = gguf_find(g, key);
    if (!kv) return true;
    if (kv->type != GGUF_BOOL) return wrong_type(kv, "a bool", e);
    *v = kv->bits != 0;
    return true;
}

MUST gguf_str(const struct gguf *g, const char *key, const char **v, struct err *e) {
    const struct gguf_kv *kv = gguf_find(g, key);
    if (!kv) return true;
    if (kv->type != GGUF_STRING) return wrong_type(kv, "a string", e);
    *v = kv->text;
    return true;
}

MUST gguf_array(struct gguf *g, const char *key, enum gguf_type elem, const struct gguf_kv **out,
                struct err *e) {
    const struct gguf_kv *kv = gguf_find(g, key);
    *out = kv;
    if (!kv) return true;
    if (kv->type != GGUF_ARRAY || kv->elem != elem) {
        char wanted[48];
        snprintf(wanted, sizeof wanted, "an array of %s", gguf_type_name(elem));
        return wrong_type(kv, wanted, e);
    }
    return cursor_seek(&g->c, kv->pos) || cursor_err(&g->c, key, e);
}
