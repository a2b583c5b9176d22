#include "model/dllama.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum {
    MAGIC = 0x0a00abcd,
    MAGIC_OLD = 0xabcd00,  // and the next number
    MAGIC_TOK = 0x567124,
    MAGIC_TOK_OLD = 0x567123,
    PAIRS_MOST = 64,
    KEYS = 24,       // that are made of a header, at most
    KEY_ROOM = 112,  // bytes of a key's name and value, at most, but for long texts
    TABLE_ALIGN = 64,
    TABLES = 16,  // arrays pushed, at most
};

bool dllama_is(int fd, uint64_t base, uint64_t len) {
    uint8_t b[4];
    if (len < sizeof b || base > INT64_MAX) return false;
    if (pread(fd, b, sizeof b, (off_t)base) != (ssize_t)sizeof b) return false;
    uint32_t magic = (uint32_t)b[3] << 24 | (uint32_t)b[2] << 16 | (uint32_t)b[1] << 8 | b[0];
    return magic == MAGIC || (magic | 1) == (MAGIC_OLD | 1) || magic == MAGIC_TOK ||
           magic == MAGIC_TOK_OLD;
}

/* --- the header --- */

enum field {
    F_VERSION,
    F_ARCH,
    F_DIM,
    F_HIDDEN,
    F_LAYERS,
    F_HEADS,
    F_KV_HEADS,
    F_EXPERTS,
    F_USED,
    F_VOCAB,
    F_CTX,
    F_ACT,
    F_THETA,
    F_WEIGHTS,
    F_FACTOR,
    F_LOW,
    F_HIGH,
    F_ORIG,
    F_ROPE,
    F_HEAD_DIM,
    F_EPSILON,
    F_EXPERT_HIDDEN,
    N_FIELD
};

enum { LLAMA = 0xabcd00, QWEN3, QWEN3_MOE };          // F_ARCH
enum { ROPE_TYPE_LLAMA, ROPE_FALCON, ROPE_LLAMA31 };  // F_ROPE: neighbours, halves, as the first
enum { ACT_GELU, ACT_SILU };                          // F_ACT

static const struct dllama_field fields[N_FIELD] = {
    [F_VERSION] = {"version", 0, 0, 0},
    [F_ARCH] = {"arch_type", LLAMA, QWEN3_MOE, DLLAMA_NEEDED},
    [F_DIM] = {"dim", 1, MODEL_MAX_EMBD, DLLAMA_NEEDED},
    [F_HIDDEN] = {"hidden_dim", 1, MODEL_MAX_EMBD, DLLAMA_NEEDED},
    [F_LAYERS] = {"n_layers", 1, MODEL_MAX_LAYER, DLLAMA_NEEDED},
    [F_HEADS] = {"n_heads", 1, MODEL_MAX_HEAD, DLLAMA_NEEDED},
    [F_KV_HEADS] = {"n_kv_heads", 1, MODEL_MAX_HEAD, DLLAMA_NEEDED},
    [F_EXPERTS] = {"n_experts", 0, MODEL_MAX_EXPERT, 0},
    [F_USED] = {"n_active_experts", 0, MODEL_MAX_USED, 0},
    [F_VOCAB] = {"vocab_size", 1, MODEL_MAX_VOCAB, DLLAMA_NEEDED},
    [F_CTX] = {"max_seq_len", 1, MODEL_MAX_CTX, DLLAMA_NEEDED},
    [F_ACT] = {"hidden_act", ACT_GELU, ACT_SILU, ACT_SILU},
    [F_THETA] = {"rope_theta", 1, INT32_MAX, 10000},
    [F_WEIGHTS] = {"weights_float_type", 0, 3, DLLAMA_NEEDED},
    [F_FACTOR] = {"rope_scaling_factor", 1, 1 << 20, 1},
    [F_LOW] = {"rope_scaling_low_freq_factor", 0, 1 << 20, 0},
    [F_HIGH] = {"rope_scaling_high_freq_factor", 0, 1 << 20, 0},
    [F_ORIG] = {"rope_scaling_orig_max_seq_len", 0, MODEL_MAX_CTX, 0},
    [F_ROPE] = {"rope_type", ROPE_TYPE_LLAMA, ROPE_LLAMA31, ROPE_TYPE_LLAMA},
    [F_HEAD_DIM] = {"head_dim", 0, MODEL_MAX_EMBD, 0},
    [F_EPSILON] = {"norm_epsilon", 5, 6, 5},
    [F_EXPERT_HIDDEN] = {"moe_hidden_dim", 0, MODEL_MAX_EMBD, 0},
};

static MUST take_field(const struct dllama_field *f, int32_t value, int32_t *v, struct err *e) {
    if (*v != DLLAMA_NEEDED) {
        return err_set(e, ERR_FORMAT, "the header has %s twice", f->name);
    }
    if (value < f->least || value > f->most) {
        return err_set(e, value < f->least ? ERR_FORMAT : ERR_LIMIT,
                       "the header's %s is %" PRId32 " (%" PRId32 " to %" PRId32 " can be)",
                       f->name, value, f->least, f->most);
    }
    *v = value;
    return true;
}

MUST dllama_fields(struct cursor *c, const struct dllama_field *f, uint32_t n, int32_t *v,
                   struct err *e) {
    int32_t len = (int32_t)cursor_u32(c);
    for (uint32_t i = 0; i < n; i++) v[i] = DLLAMA_NEEDED;
    if (!c->failed && (len < 8 || len % 8 || len > 8 + 8 * PAIRS_MOST)) {
        return err_set(e, ERR_FORMAT,
                       "the header claims %" PRId32 " bytes, but it is 8 and 8 more for each of at "
                       "most %d fields",
                       len, PAIRS_MOST);
    }
    for (int32_t at = 8; at < len && !c->failed; at += 8) {
        uint32_t key = cursor_u32(c);
        int32_t value = (int32_t)cursor_u32(c);
        if (c->failed) break;
        if (key >= n || !f[key].name) {
            return err_set(e, ERR_UNSUPPORTED,
                           "the header has a field of number %" PRIu32
                           ", which this version does not know",
                           key);
        }
        if (!take_field(&f[key], value, &v[key], e)) return false;
    }
    if (c->failed) return cursor_err(c, "header", e);
    for (uint32_t i = 0; i < n; i++) {
        if (v[i] != DLLAMA_NEEDED || !f[i].name) continue;
        if (f[i].otherwise == DLLAMA_NEEDED) {
            return err_set(e, ERR_FORMAT, "the header has no %s", f[i].name);
        }
        v[i] = f[i].otherwise;
    }
    return true;
}

/* --- what it means --- */

struct header {
    int32_t v[N_FIELD];
    const char *arch;  // GGUF's name
    uint32_t type;     // enum tensor_type of the matrices
    bool is_qwen, is_scaled;
    uint64_t bytes;  // of the header
};

static MUST check_experts(struct header *h, struct err *e) {
    const int32_t *v = h->v;
    if (v[F_ARCH] != QWEN3_MOE) {
        return !v[F_EXPERTS] || err_set(e, ERR_UNSUPPORTED, "experts in architecture %s", h->arch);
    }
    if (v[F_EXPERTS] && v[F_USED] && v[F_EXPERT_HIDDEN]) return true;
    return err_set(e, ERR_FORMAT, "the header has no %s, but is of a model with experts",
                   !v[F_EXPERTS] ? "n_experts"
                   : !v[F_USED]  ? "n_active_experts"
                                 : "moe_hidden_dim");
}

/* Frequencies: plain, or stretched as Llama 3.1's are. */
static MUST check_rope(struct header *h, struct err *e) {
    const int32_t *v = h->v;
    h->is_scaled = v[F_FACTOR] != 1;
    if (!h->is_qwen && v[F_ROPE] == ROPE_FALCON) {
        return err_set(e, ERR_UNSUPPORTED, "rope_type %d (halves) in architecture %s", ROPE_FALCON,
                       h->arch);
    }
    if (h->is_qwen && h->is_scaled) {
        return err_set(e, ERR_UNSUPPORTED, "a rope_scaling_factor in architecture %s", h->arch);
    }
    if (!h->is_scaled || (v[F_LOW] && v[F_LOW] < v[F_HIGH] && v[F_ORIG])) return true;
    return err_set(e, ERR_FORMAT,
                   "the header scales frequencies between %" PRId32 " and %" PRId32
                   " turns in %" PRId32 " tokens, which cannot be",
                   v[F_LOW], v[F_HIGH], v[F_ORIG]);
}

static MUST check_header(struct header *h, struct err *e) {
    static const char *const archs[] = {"llama", "qwen3", "qwen3moe"};
    static const uint32_t types[] = {TENSOR_F32, TENSOR_F16, TENSOR_Q4_0, TENSOR_Q8_0};
    int32_t *v = h->v;
    h->arch = archs[v[F_ARCH] - LLAMA];
    h->is_qwen = v[F_ARCH] != LLAMA;
    h->type = types[v[F_WEIGHTS]];
    if (v[F_ACT] != ACT_SILU) {
        return err_set(e, ERR_UNSUPPORTED, "hidden_act %" PRId32 " (GELU) in architecture %s",
                       v[F_ACT], h->arch);
    }
    if (!v[F_HEAD_DIM] && v[F_DIM] % v[F_HEADS]) {
        return err_set(e, ERR_FORMAT,
                       "the header has no head_dim, and its dim %" PRId32
                       " is no multiple of %" PRId32 " heads",
                       v[F_DIM], v[F_HEADS]);
    }
    if (!v[F_HEAD_DIM]) v[F_HEAD_DIM] = v[F_DIM] / v[F_HEADS];
    return check_experts(h, e) && check_rope(h, e);
}

static MUST read_header(struct header *h, struct cursor *c, struct err *e) {
    uint32_t magic = cursor_u32(c);
    if (magic == MAGIC_TOK || magic == MAGIC_TOK_OLD) {
        return err_set(e, ERR_FORMAT,
                       "a tokenizer of distributed-llama: name the model, the .m file, and give "
                       "this one by --tokenizer");
    }
    if (magic != MAGIC) {
        return err_set(e, ERR_UNSUPPORTED,
                       "an old format of distributed-llama (magic number 0x%" PRIx32
                       "): convert the model again with a current converter",
                       magic);
    }
    if (!dllama_fields(c, fields, N_FIELD, h->v, e)) return false;
    h->bytes = c->pos;
    return check_header(h, e);
}

/* --- the tensors --- */

/* A walk over them in the file's order: first to measure, then (tensor set) to list. */
struct layout {
    const struct header *h;
    uint64_t base, len;     // of the file
    uint64_t at;            // where the next one begins, relative to base
    int32_t layer, expert;  // that it is of, -1: none
    uint32_t n;
    size_t names;  // bytes of all names
    struct tensor *tensor;
    char *name;  // room for the names
};

static size_t name_tensor(const struct layout *l, const char *what, char out[static 64]) {
    int n = l->layer < 0    ? snprintf(out, 64, "%s.weight", what)
            : l->expert < 0 ? snprintf(out, 64, "blk.%" PRId32 ".%s.weight", l->layer, what)
                            : snprintf(out, 64, "blk.%" PRId32 ".%s.%" PRId32 ".weight", l->layer,
                                       what, l->expert);
    return (size_t)n + 1;
}

/* The next tensor; rows 0: a vector. Columns and rows are below 2^33. */
static MUST lay(struct layout *l, uint32_t type, uint64_t cols, uint64_t rows, const char *what,
                struct err *e) {
    const struct tensor_format *f = tensor_format(type);
    uint64_t n = rows ? rows : 1, len, end;
    char name[64];
    size_t n_name = name_tensor(l, what, name);
    if (cols % f->block) {
        return err_set(e, ERR_FORMAT,
                       "tensor %s: rows of %" PRIu64 " values are no multiple of %s's block of "
                       "%" PRIu32,
                       name, cols, f->name, f->block);
    }
    if (l->n == MODEL_MAX_TENSOR) {
        return err_set(e, ERR_LIMIT, "the header describes more than %d tensors", MODEL_MAX_TENSOR);
    }
    if (__builtin_mul_overflow(cols / f->block * f->bytes, n, &len) ||
        __builtin_add_overflow(l->at, len, &end) || end > l->len) {
        return err_set(e, ERR_FORMAT,
                       "tensor %s, at byte %" PRIu64 ", goes past the end of the file, which has "
                       "%" PRIu64 " bytes (an incomplete download?)",
                       name, l->at, l->len);
    }
    if (l->tensor) {
        l->tensor[l->n] = (struct tensor){.name = memcpy(l->name, name, n_name),
                                          .type = type,
                                          .n_dim = rows ? 2 : 1,
                                          .dim = {cols, n, 1, 1},
                                          .off = l->base + l->at,
                                          .len = len};
        l->name += n_name;
    }
    l->at = end;
    l->names += n_name;
    l->n++;
    return true;
}

static MUST lay_mlp(struct layout *l, uint64_t ff, struct err *e) {
    uint64_t d = (uint64_t)l->h->v[F_DIM];
    uint32_t type = l->h->type;
    return lay(l, type, d, ff, "ffn_gate", e) && lay(l, type, ff, d, "ffn_down", e) &&
           lay(l, type, d, ff, "ffn_up", e);
}

static MUST lay_ffn(struct layout *l, struct err *e) {
    const int32_t *v = l->h->v;
    bool ok;
    if (!v[F_EXPERTS]) return lay_mlp(l, (uint64_t)v[F_HIDDEN], e);
    ok = lay(l, TENSOR_F32, (uint64_t)v[F_DIM], (uint64_t)v[F_EXPERTS], "ffn_gate_inp", e);
    for (l->expert = 0; ok && l->expert < v[F_EXPERTS]; l->expert++) {
        ok = lay_mlp(l, (uint64_t)v[F_EXPERT_HIDDEN], e);
    }
    l->expert = -1;
    return ok;
}

static MUST lay_layer(struct layout *l, struct err *e) {
    const int32_t *v = l->h->v;
    uint32_t type = l->h->type;
    uint64_t d = (uint64_t)v[F_DIM], hd = (uint64_t)v[F_HEAD_DIM];
    uint64_t q = hd * (uint64_t)v[F_HEADS], kv = hd * (uint64_t)v[F_KV_HEADS];
    bool is_qwen = l->h->is_qwen;
    return lay(l, type, d, q, "attn_q", e) && lay(l, type, d, kv, "attn_k", e) &&
           lay(l, type, d, kv, "attn_v", e) && lay(l, type, q, d, "attn_output", e) &&
           lay_ffn(l, e) && (!is_qwen || lay(l, TENSOR_F32, hd, 0, "attn_q_norm", e)) &&
           (!is_qwen || lay(l, TENSOR_F32, hd, 0, "attn_k_norm", e)) &&
           lay(l, TENSOR_F32, d, 0, "attn_norm", e) && lay(l, TENSOR_F32, d, 0, "ffn_norm", e);
}

static MUST lay_all(struct layout *l, struct err *e) {
    const int32_t *v = l->h->v;
    uint64_t d = (uint64_t)v[F_DIM], vocab = (uint64_t)v[F_VOCAB];
    l->at = l->h->bytes;
    l->layer = l->expert = -1;
    bool ok = lay(l, TENSOR_F32, d, vocab, "token_embd", e);
    for (l->layer = 0; ok && l->layer < v[F_LAYERS]; l->layer++) ok = lay_layer(l, e);
    l->layer = -1;
    return ok && lay(l, TENSOR_F32, d, 0, "output_norm", e) &&
           lay(l, l->h->type, d, vocab, "output", e);
}

static MUST measure(struct layout *l, struct err *e) {
    if (!lay_all(l, e)) return false;
    if (l->at == l->len) return true;
    return err_set(e, ERR_FORMAT,
                   "the header describes %" PRIu64 " bytes, but the file has %" PRIu64
                   ": not the model that it says it is",
                   l->at, l->len);
}

static MUST list_tensors(struct gguf *g, struct arena *mem, struct layout *l, struct err *e) {
    struct layout again = {.h = l->h, .base = l->base, .len = l->len};
    g->n_tensor = l->n;
    if (!arena_array(mem, &g->tensor, l->n, sizeof *g->tensor, "tensors", e) ||
        !arena_array(mem, &g->tensor_by_name, l->n, sizeof *g->tensor_by_name, "tensors", e) ||
        !arena_array(mem, &again.name, l->names, 1, "names", e)) {
        return false;
    }
    again.tensor = g->tensor;
    if (!lay_all(&again, e)) return false;
    for (uint32_t i = 0; i < g->n_tensor; i++) g->tensor_by_name[i] = &g->tensor[i];
    return gguf_sort_tensors(g, e);
}

/* --- the keys --- */

struct keys {
    struct gguf *g;
    struct arena *mem;
    const char *arch;
    bool ok;  // there was room for all
};

static const char *keep_text(struct keys *k, const char *text) {
    size_t n = strlen(text) + 1;
    char *copy = arena_push(k->mem, n, 1);
    k->ok = k->ok && copy;
    return copy ? memcpy(copy, text, n) : "";
}

/* A key of this type; with the architecture's name before it where it begins with a dot. */
static struct gguf_kv *add_key(struct keys *k, const char *name, uint32_t type) {
    char key[96];
    assert(k->g->n_kv < KEYS);
    struct gguf_kv *kv = &k->g->kv[k->g->n_kv++];
    snprintf(key, sizeof key, "%s%s", *name == '.' ? k->arch : "", name);
    *kv = (struct gguf_kv){.key = keep_text(k, key), .type = type};
    return kv;
}

static void add_text(struct keys *k, const char *name, const char *text) {
    struct gguf_kv *kv = add_key(k, name, GGUF_STRING);
    kv->text = text;
    kv->n = strlen(text);
}

static void add_number(struct keys *k, struct gguf_kv *kv) {
    char text[GGUF_VALUE_TEXT];
    gguf_value_text(text, kv);
    kv->text = keep_text(k, text);
}

static void add_int(struct keys *k, const char *name, int32_t v) {
    struct gguf_kv *kv = add_key(k, name, GGUF_U32);
    kv->bits = (uint64_t)v;
    add_number(k, kv);
}

static void add_real(struct keys *k, const char *name, float v) {
    struct gguf_kv *kv = add_key(k, name, GGUF_F32);
    double wide = (double)v;
    memcpy(&kv->bits, &wide, sizeof wide);
    add_number(k, kv);
}

/* The model's name is its file's. */
static void add_name(struct keys *k, const char *path) {
    char name[128];
    const char *slash = strrchr(path, '/');
    snprintf(name, sizeof name, "%s", slash ? slash + 1 : path);
    size_t n = strlen(name);
    if (n > 2 && !strcmp(name + n - 2, ".m")) name[n - 2] = '\0';
    add_text(k, "general.name", keep_text(k, name));
}

static void add_keys(struct keys *k, const struct header *h) {
    const int32_t *v = h->v;
    add_text(k, "general.architecture", h->arch);
    add_int(k, ".block_count", v[F_LAYERS]);
    add_int(k, ".context_length", v[F_CTX]);
    add_int(k, ".embedding_length", v[F_DIM]);
    add_int(k, ".feed_forward_length", v[F_HIDDEN]);
    add_int(k, ".vocab_size", v[F_VOCAB]);
    add_int(k, ".attention.head_count", v[F_HEADS]);
    add_int(k, ".attention.head_count_kv", v[F_KV_HEADS]);
    add_int(k, ".attention.key_length", v[F_HEAD_DIM]);
    add_int(k, ".attention.value_length", v[F_HEAD_DIM]);
    add_real(k, ".attention.layer_norm_rms_epsilon", v[F_EPSILON] == 5 ? 1e-5F : 1e-6F);
    add_real(k, ".rope.freq_base", (float)v[F_THETA]);
    if (h->is_scaled) {
        add_text(k, ".rope.scaling.type", "llama3");
        add_real(k, ".rope.scaling.factor", (float)v[F_FACTOR]);
        add_real(k, ".rope.scaling.low_freq_factor", (float)v[F_LOW]);
        add_real(k, ".rope.scaling.high_freq_factor", (float)v[F_HIGH]);
        add_int(k, ".rope.scaling.original_context_length", v[F_ORIG]);
    }
    if (!v[F_EXPERTS]) return;
    add_int(k, ".expert_count", v[F_EXPERTS]);
    add_int(k, ".expert_used_count", v[F_USED]);
    add_int(k, ".expert_feed_forward_length", v[F_EXPERT_HIDDEN]);
}

/* Everything into m and g, whose arena is open. t: NULL where there is none. */
static MUST fill(struct gguf *g, struct model *m, const struct model_file *first, struct layout *l,
                 struct dllama_tok *t, struct err *e) {
    struct keys k = {.g = g, .mem = &m->mem, .arch = l->h->arch, .ok = true};
    struct model_file *file;
    if (!arena_array(&m->mem, &file, t ? 2 : 1, sizeof *file, "files", e) ||
        !arena_array(&m->mem, &g->kv, KEYS, sizeof *g->kv, "keys", e) ||
        !arena_array(&m->mem, &g->kv_by_key, KEYS, sizeof *g->kv_by_key, "keys", e) ||
        !list_tensors(g, &m->mem, l, e)) {
        return false;
    }
    file[0] = *first;
    file[0].path = keep_text(&k, first->path);
    file[0].meta_len = l->h->bytes;
    file[0].data_off = first->base + l->h->bytes;
    file[0].data_len = l->len - l->h->bytes;
    m->file = file;
    m->n_file = 1;
    add_keys(&k, l->h);
    add_name(&k, first->path);
    if (t) {
        const char *template = "";
        file[1] = t->file;
        file[1].path = keep_text(&k, t->path);
        m->tokenizer = &file[1];
        if (!dllama_tok_read(t, &m->mem, (uint32_t)l->h->v[F_VOCAB], &template, &m->vocab, e)) {
            return err_in_file(e, t->path);
        }
        add_text(&k, "tokenizer.ggml.model", m->vocab.kind);
        if (*template) add_text(&k, "tokenizer.chat_template", template);
    }
    if (!k.ok) return err_set(e, ERR_FORMAT, "the file changed while it was read");
    return gguf_sort_keys(g, e);
}

MUST dllama_read(struct gguf *g, struct model *m, const struct model_file *first,
                 const char *tokenizer, int fd, uint8_t *window, enum model_part part,
                 struct err *e) {
    struct header h = {0};
    struct dllama_tok t = {.fd = -1};
    struct err ignored;
    *g = (struct gguf){.len = first->len, .version = 0};
    cursor_file(&g->c, fd, first->base, first->len, window);
    if (!read_header(&h, &g->c, e)) return false;
    struct layout l = {.h = &h, .base = first->base, .len = first->len};
    if (!measure(&l, e)) return false;
    g->meta_len = h.bytes;
    g->data_off = h.bytes;
    /* The window is the .t's from here on: nothing of the .m's header is read again. */
    bool is_needed = part != MODEL_DIRECTORY;
    bool has_tok = dllama_tok_open(&t, first->path, tokenizer, window, is_needed ? e : &ignored);
    bool ok = has_tok || !is_needed;
    if (ok) {
        size_t room = l.n * (sizeof *g->tensor + sizeof *g->tensor_by_name + GGUF_TENSOR_ROOM) +
                      l.names + KEYS * (sizeof *g->kv + sizeof *g->kv_by_key + KEY_ROOM) +
                      2 * sizeof *m->file + strlen(first->path) + TABLES * TABLE_ALIGN;
        if (has_tok) room += strlen(t.path) + dllama_tok_room(&t, (uint32_t)h.v[F_VOCAB]);
        ok = arena_open(&m->mem, "model directory", room, e) &&
             fill(g, m, first, &l, has_tok ? &t : NULL, e);
    }
    dllama_tok_close(&t);
    return ok;
}
