/* Weights are drawn block by block from a hash of (seed, tensor, block): no state, so any part of the
 * file can be made alone and the same options give the same file. Values have mean zero: a common offset
 * would be a direction that every layer amplifies, and all tokens would soon look alike. */
#include "model/synth.h"
#include "model/model.h"
#include "model/synth_shape.h"
#include "model/synth_vocab.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum {
    CHUNK = 4 << 20,       // bytes a write
    BEHIND = 16,           // chunks that may be on their way to the disk
    ALIGN = 32,            // of tensors, GGUF's default
    BLOCK_MAX = 4096,      // bytes of the largest run that fill() makes at once
    TENSORS_A_LAYER = 20,  // at most
};

static const struct type {
    const char *name;
    uint32_t id;         // enum tensor_type
    uint32_t file_type;  // general.file_type, for programs that show it
    double spread;       // standard deviation of the values for a scale of 1
} types[] = {
    {"q4_0", TENSOR_Q4_0, 2, 3.2403703492039301},  // two numbers 0..7: sqrt(2 * 63 / 12)
    {"q8_0", TENSOR_Q8_0, 7, 52.253628582113},     // two numbers 0..127: sqrt(2 * 16383 / 12)
    /* As q4_0, times a scale of 4..7 in a super-block. */
    {"q4_k", TENSOR_Q4_K, 14, 3.2403703492039301 * 5.6124860801609122},  // sqrt(126 / 4)
    {"q6_k", TENSOR_Q6_K, 18, 13.057564857206 * 5.6124860801609122},     // two numbers 0..31
    {"mxfp4", TENSOR_MXFP4, 38, 2.9261749776799},  // all 16 values alike: sqrt(68.5 / 8)
    {"f16", TENSOR_F16, 1, 417.95095669391},       // two numbers 0..1023: sqrt(2 * 1048575 / 12)
};

enum { N_TYPE = sizeof types / sizeof *types, N_SCALE = 256, N_HALF = 2047 };

struct weight {
    char name[48];
    uint32_t type;
    double spread;        // of the type, see there
    uint64_t cols, rows;  // rows 0: a vector; of all experts together
    uint32_t n_expert;    // in this tensor; 0: it has no such dimension
    double std;           // of the values; 0: around `mean`, or rope factors
    float mean;
    uint64_t off, len;    // in the tensor data
    uint64_t quiet_from;  // first row of the control tokens' quarter-size rows
};

struct writer {
    const struct synth *s;
    struct synth_shape shape;
    const struct type *type;
    struct weight *weight;  // [n_weight] owned
    uint32_t n_weight;
    uint64_t data_len, total;
    uint8_t *head;  // the metadata, owned
    size_t head_len, head_cap;
    bool head_full;  // out of memory while it was made
    uint32_t n_key;
    int fd;
    uint8_t *buf;  // [CHUNK + BLOCK_MAX] owned
    size_t n_buf;
    uint64_t written;
    synth_progress *progress;
    void *ctx;
    uint16_t half[2][N_HALF];  // f16: values; quantised: scales; [1] for quiet rows
};

/* SplitMix64's finaliser (Steele, Lea, Flood 2014). */
static inline uint64_t mix(uint64_t z) {
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9U;
    z = (z ^ z >> 27) * 0x94d049bb133111ebU;
    return z ^ z >> 31;
}

enum { DRAWS = 16 };  // random words a block may use

static inline uint64_t draw(uint64_t key, uint64_t block, uint64_t i) {
    return mix(key + (block * DRAWS + i + 1) * 0x9e3779b97f4a7c15U);
}

/* To IEEE binary16, nearest, ties to even; |v| < 65504. */
static uint16_t to_half(double v) {
    uint16_t sign = v < 0 ? 0x8000 : 0;
    double a = v < 0 ? -v : v;
    uint32_t e = 0;
    /* Bring the value to [1024, 2048) steps of its exponent's ulp; e counts from the subnormals. */
    double step = 1.0 / (1 << 24);
    while (a >= 2048 * step && e < 30) step *= 2, e++;
    double q = a / step;
    uint32_t m = (uint32_t)q;
    double rest = q - m;
    if (rest > 0.5 || (rest == 0.5 && (m & 1))) m++;
    return (uint16_t)(sign | (m + (e << 10)));
}

/* ---- metadata ---- */

static void put(struct writer *w, const void *p, size_t n) {
    if (w->head_len + n > w->head_cap && !w->head_full) {
        size_t cap = w->head_cap ? 2 * w->head_cap : 1 << 20;
        while (cap < w->head_len + n) cap *= 2;
        uint8_t *more = realloc(w->head, cap);
        w->head_full = !more;
        if (more) w->head = more, w->head_cap = cap;
    }
    if (w->head_full) return;
    memcpy(w->head + w->head_len, p, n);
    w->head_len += n;
}

static void put_int(struct writer *w, uint64_t v, size_t n) {
    uint8_t b[8];
    for (size_t i = 0; i < 8; i++) b[i] = (uint8_t)(v >> 8 * i);
    put(w, b, n);
}

static void put_text(struct writer *w, const char *s, size_t len) {
    put_int(w, len, 8);
    put(w, s, len);
}

/* Value types of GGUF that are written here. */
enum { KV_U32 = 4, KV_I32 = 5, KV_F32 = 6, KV_BOOL = 7, KV_STRING = 8, KV_ARRAY = 9 };

/* A key that begins with a dot is the architecture's own. */
static void put_key(struct writer *w, const char *key, uint32_t type) {
    char whole[80];
    int n = snprintf(whole, sizeof whole, "%s%s", *key == '.' ? w->shape.family->arch : "", key);
    w->n_key++;
    put_text(w, whole, (size_t)n);
    put_int(w, type, 4);
}

static void put_u32(struct writer *w, const char *key, uint32_t v) {
    put_key(w, key, KV_U32);
    put_int(w, v, 4);
}

static void put_f32(struct writer *w, const char *key, float v) {
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    put_key(w, key, KV_F32);
    put_int(w, bits, 4);
}

static void put_string(struct writer *w, const char *key, const char *v) {
    put_key(w, key, KV_STRING);
    put_text(w, v, strlen(v));
}

static void put_array(struct writer *w, const char *key, uint32_t elem, uint64_t n) {
    put_key(w, key, KV_ARRAY);
    put_int(w, elem, 4);
    put_int(w, n, 8);
}

static void put_shape(struct writer *w) {
    const struct synth_shape *h = &w->shape;
    const struct synth_family *f = h->family;
    char name[80];
    snprintf(name, sizeof name, "synthetic %s", w->s->shape);
    put_string(w, "general.architecture", f->arch);
    put_string(w, "general.name", name);
    put_u32(w, "general.file_type", w->type->file_type);
    put_u32(w, "general.quantization_version", 2);
    put_u32(w, ".block_count", h->n_layer);
    put_u32(w, ".context_length", h->n_ctx);
    put_u32(w, ".embedding_length", h->n_embd);
    put_u32(w, ".feed_forward_length", h->n_ff_dense ? h->n_ff_dense : h->n_ff);
    put_u32(w, ".attention.head_count", h->n_head);
    put_u32(w, ".attention.head_count_kv", h->n_head_kv);
    put_u32(w, ".attention.key_length", h->head_dim);
    put_u32(w, ".attention.value_length", h->head_dim);
    if (f->says_dims) {
        put_u32(w, ".rope.dimension_count", h->head_dim);
        put_u32(w, ".vocab_size", h->n_vocab);
    }
    if (h->n_expert) {
        put_u32(w, ".expert_count", h->n_expert);
        put_u32(w, ".expert_used_count", h->n_used);
    }
    if (h->n_ff_dense) put_u32(w, ".expert_feed_forward_length", h->n_ff);
    put_f32(w, ".rope.freq_base", (float)f->rope_base);
    put_f32(w, ".attention.layer_norm_rms_epsilon", f->eps);
    if (f->window) put_u32(w, ".attention.sliding_window", f->window);
    if (f->yarn > 0) {
        put_string(w, ".rope.scaling.type", "yarn");
        put_f32(w, ".rope.scaling.factor", f->yarn);
        put_u32(w, ".rope.scaling.original_context_length", f->n_ctx_orig);
    }
}

static void put_vocab(struct writer *w, const struct synth_vocab *v) {
    static const char chat[] =
        "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
        "{{ m['content'] | trim }}<|eot_id|>{% endfor %}{% if add_generation_prompt %}"
        "<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}";
    char text[SYNTH_PIECE_MAX], pair[2 * SYNTH_PIECE_MAX];
    put_string(w, "tokenizer.ggml.model", "gpt2");
    put_string(w, "tokenizer.ggml.pre", w->shape.family->pre);
    put_array(w, "tokenizer.ggml.tokens", KV_STRING, v->n_token);
    for (uint32_t i = 0; i < v->n_token; i++) put_text(w, text, synth_vocab_text(v, i, text));
    put_array(w, "tokenizer.ggml.token_type", KV_I32, v->n_token);
    for (uint32_t i = 0; i < v->n_token; i++) {
        put_int(w, i < v->n_plain ? TOKEN_NORMAL : TOKEN_CONTROL, 4);
    }
    put_array(w, "tokenizer.ggml.merges", KV_STRING, v->n_plain - 256);
    for (uint32_t i = 256; i < v->n_plain; i++) {
        size_t n = synth_vocab_text(v, (uint32_t)v->token[i].left, text);
        memcpy(pair, text, n);
        pair[n++] = ' ';
        size_t m = synth_vocab_text(v, (uint32_t)v->token[i].right, text);
        memcpy(pair + n, text, m);
        put_text(w, pair, n + m);
    }
    put_u32(w, "tokenizer.ggml.bos_token_id", v->n_plain + SYNTH_BOS);
    put_u32(w, "tokenizer.ggml.eos_token_id", v->n_plain + SYNTH_EOT);
    put_u32(w, "tokenizer.ggml.eot_token_id", v->n_plain + SYNTH_EOT);
    put_key(w, "tokenizer.ggml.add_bos_token", KV_BOOL);
    put_int(w, 1, 1);
    put_string(w, "tokenizer.chat_template", chat);
}

static MUST make_head(struct writer *w, struct err *e) {
    struct synth_vocab v;
    if (!synth_vocab_make(&v, w->shape.n_vocab, w->shape.n_special, e)) return false;
    put(w, "GGUF", 4);
    put_int(w, 3, 4);
    put_int(w, w->n_weight, 8);
    size_t at = w->head_len;
    put_int(w, 0, 8);  // keys, counted as they are put
    put_shape(w);
    put_vocab(w, &v);
    synth_vocab_free(&v);
    for (size_t i = 0; i < 4 && !w->head_full; i++) w->head[at + i] = (uint8_t)(w->n_key >> 8 * i);
    for (uint32_t i = 0; i < w->n_weight; i++) {
        const struct weight *t = &w->weight[i];
        put_text(w, t->name, strlen(t->name));
        put_int(w, t->n_expert ? 3 : t->rows ? 2 : 1, 4);
        put_int(w, t->cols, 8);
        if (t->rows) put_int(w, t->n_expert ? t->rows / t->n_expert : t->rows, 8);
        if (t->n_expert) put_int(w, t->n_expert, 8);
        put_int(w, t->type, 4);
        put_int(w, t->off, 8);
    }
    static const uint8_t zero[ALIGN];
    put(w, zero, (ALIGN - w->head_len % ALIGN) % ALIGN);
    w->total = w->head_len + w->data_len;
    return !w->head_full || err_set(e, ERR_MEMORY, "no memory for the file's metadata");
}

/* ---- which tensors ---- */

static struct weight *add_as(struct writer *w, uint32_t type, const char *name, uint64_t cols,
                             uint64_t rows, double std) {
    struct weight *t = &w->weight[w->n_weight++];
    *t = (struct weight){
        .type = type, .cols = cols, .rows = rows, .std = std, .mean = 1, .quiet_from = UINT64_MAX};
    snprintf(t->name, sizeof t->name, "%s.weight", name);
    for (size_t i = 0; i < N_TYPE; i++) {
        if (types[i].id == type) t->spread = types[i].spread;
    }
    const struct tensor_format *f = tensor_format(type);
    t->len = cols / f->block * f->bytes * (rows ? rows : 1);
    t->off = w->data_len;
    w->data_len += (t->len + ALIGN - 1) / ALIGN * ALIGN;
    return t;
}

/* Of a matrix that is no expert's. */
static uint32_t rest_type(const struct writer *w) {
    uint32_t rest = w->shape.family->rest;
    return rest == SYNTH_AS_EXPERTS ? w->type->id : rest;
}

static struct weight *add(struct writer *w, const char *name, uint64_t cols, uint64_t rows,
                          double std) {
    return add_as(w, rows ? rest_type(w) : TENSOR_F32, name, cols, rows, std);
}

struct in_layer {
    const char *name;
    uint64_t cols, rows;  // rows 0: a vector
    double std;           // of the values
    float bias;  // deviation of the bias that belongs to it where the family has any; 0: none
};

static struct weight *add_in(struct writer *w, uint32_t layer, const struct in_layer *t,
                             uint32_t type) {
    char name[40];
    snprintf(name, sizeof name, "blk.%u.%s", (unsigned)layer, t->name);
    return add_as(w, type, name, t->cols, t->rows, t->std);
}

/* Of all of an expert's rows, [cols, n_expert]; else a vector. */
static void add_bias(struct writer *w, uint32_t layer, const struct in_layer *t,
                     uint32_t n_expert) {
    if (!w->shape.family->has_bias || t->bias <= 0) return;
    struct in_layer bias = {t->name, t->rows, 0, (double)t->bias, 0};
    if (n_expert) bias.cols = t->rows / n_expert, bias.rows = n_expert;
    struct weight *made = add_in(w, layer, &bias, TENSOR_F32);
    snprintf(made->name, sizeof made->name, "blk.%u.%s.bias", (unsigned)layer, t->name);
    made->mean = 0;
}

/* The router stays in floats, as other programs' quantisers leave it. Its outputs spread by 1.5, so that
 * one of the chosen experts weighs more than the other. */
static void add_experts(struct writer *w, uint32_t i) {
    const struct synth_shape *h = &w->shape;
    uint64_t d = h->n_embd, ff = h->n_ff, n = h->n_expert;
    double of_d = 1 / sqrt((double)d);
    const struct in_layer router = {"ffn_gate_inp", d, n, 1.5 * of_d, 0.3F};
    const struct in_layer want[] = {
        {"ffn_gate_exps", d, n * ff, 1.2 * of_d, 0.1F},
        {"ffn_up_exps", d, n * ff, of_d, 0.1F},
        {"ffn_down_exps", ff, n * d, 1 / sqrt((double)ff), 0.05F},
    };
    add_in(w, i, &router, TENSOR_F32);
    add_bias(w, i, &router, 0);
    for (size_t k = 0; k < sizeof want / sizeof *want; k++) {
        add_in(w, i, &want[k], w->type->id)->n_expert = h->n_expert;
        add_bias(w, i, &want[k], h->n_expert);
    }
}

static void add_layer(struct writer *w, uint32_t i) {
    const struct synth_shape *h = &w->shape;
    const struct synth_family *f = h->family;
    uint64_t d = h->n_embd, q = (uint64_t)h->n_head * h->head_dim;
    uint64_t kv = (uint64_t)h->n_head_kv * h->head_dim, ff = h->n_ff;
    /* Gains: queries and keys 1.5, so that attention scores spread by about 2 and heads pick; the rest
     * about 1, so that each branch adds less than its input and the sum grows with sqrt(layers). */
    double of_d = 1 / sqrt((double)d);
    const struct in_layer want[] = {
        {"attn_norm", d, 0, 0, 0},
        {"attn_q", d, q, 1.5 * of_d, 0.1F},
        {"attn_k", d, kv, 1.5 * of_d, 0.1F},
        {"attn_v", d, kv, of_d, 0.1F},
        {"attn_output", q, d, 1 / sqrt((double)q), 0.05F},
        {f->ffn_norm, d, 0, 0, 0},
        {"ffn_gate", d, ff, 1.2 * of_d, 0},
        {"ffn_up", d, ff, of_d, 0},
        {"ffn_down", ff, d, 1 / sqrt((double)ff), 0},
    };
    const struct in_layer heads[] = {{"attn_q_norm", h->head_dim, 0, 0, 0},
                                     {"attn_k_norm", h->head_dim, 0, 0, 0}};
    const struct in_layer sinks = {"attn_sinks", h->n_head, 0, 1, 0};
    size_t n = sizeof want / sizeof *want - (h->n_expert ? 3 : 0);  // experts instead of the last
    for (size_t k = 0; k < n; k++) {
        add_in(w, i, &want[k], want[k].rows ? rest_type(w) : TENSOR_F32);
        add_bias(w, i, &want[k], 0);
    }
    /* A norm undoes the gains of what it follows. */
    for (size_t k = 0; f->has_qk_norm && k < 2; k++) {
        add_in(w, i, &heads[k], TENSOR_F32)->mean = 1.5F;
    }
    if (f->has_bias) add_in(w, i, &sinks, TENSOR_F32)->mean = 0;
    if (h->n_expert) add_experts(w, i);
}

/* Rows must be whole blocks. */
static MUST check_rows(const struct writer *w, struct err *e) {
    for (uint32_t i = 0; i < w->n_weight; i++) {
        const struct weight *t = &w->weight[i];
        const struct tensor_format *f = tensor_format(t->type);
        if (t->cols % f->block == 0) continue;
        return err_set(e, ERR_USAGE,
                       "shape %s has rows of %u weights, and %s comes in blocks of %u; take q4_0, "
                       "q8_0 or mxfp4",
                       w->shape.name, (unsigned)t->cols, w->type->name, (unsigned)f->block);
    }
    return true;
}

/* Embeddings are small against what the layers add: otherwise a tied model's best guess for the next
 * token is the one it has just read. The last norm brings logits to a spread of about 2. */
static MUST lay_out(struct writer *w, struct err *e) {
    const struct synth_shape *h = &w->shape;
    const double embd_std = 0.02, logit_std = 2;
    w->weight = calloc((size_t)h->n_layer * TENSORS_A_LAYER + 4, sizeof *w->weight);
    if (!w->weight) return err_set(e, ERR_MEMORY, "no memory for %u layers", (unsigned)h->n_layer);
    uint64_t quiet = h->n_vocab - h->n_special;
    double gain = 1 / sqrt((double)h->n_embd);
    add(w, "token_embd", h->n_embd, h->n_vocab, embd_std)->quiet_from = quiet;
    if (h->rope_factor > 0) add(w, "rope_freqs", h->head_dim / 2, 0, 0);
    for (uint32_t i = 0; i < h->n_layer; i++) add_layer(w, i);
    struct weight *norm = add(w, "output_norm", h->n_embd, 0, 0);
    norm->mean = (float)(h->tied ? logit_std * gain / embd_std : logit_std);
    if (!h->tied) add(w, "output", h->n_embd, h->n_vocab, gain)->quiet_from = quiet;
    return check_rows(w, e);
}

/* ---- values ---- */

/* E8M0: the powers of two on both sides of the unit, so often that their mean square is its square. */
static void make_exponents(uint16_t *exponent, double unit) {
    int e;
    double part = frexp(unit, &e) * 2;  // unit = part * 2^(e - 1), part in [1, 2)
    for (int i = 0; i < N_SCALE; i++) {
        bool above = i < (part * part - 1) / 3 * N_SCALE;
        exponent[i] = (uint16_t)(127 + e - 1 + above);
    }
}

/* Tables for a tensor's spread: the scales of quantised blocks are even in [0.5, 1.5) of the mean one
 * (super-blocks, which are few and have scales of their own, a quarter of that), halves follow the triangle that the sum of two numbers makes. Control tokens' rows are a quarter of
 * the size, so that greedy text does not end by chance. */
static void make_tables(struct writer *w, const struct weight *t) {
    if (t->type == TENSOR_F32) return;
    for (int quiet = 0; quiet < 2; quiet++) {
        double unit = t->std / t->spread / (quiet ? 4 : 1);
        if (t->type == TENSOR_F16) {
            for (int i = 0; i < N_HALF; i++) w->half[quiet][i] = to_half(unit * (i - 1023));
            continue;
        }
        if (t->type == TENSOR_MXFP4) {
            make_exponents(w->half[quiet], unit);
            continue;
        }
        double width = tensor_format(t->type)->block == 256 ? 0.25 : 1;
        double mean = unit / sqrt(1 + width * width / 12);  // E[s^2] of an even s around 1
        for (int i = 0; i < N_SCALE; i++) {
            w->half[quiet][i] = to_half(mean * (1 + width * (i / (double)N_SCALE - 0.5)));
        }
    }
}

static inline void store16(uint8_t *p, uint16_t v) {
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}

static inline void store64(uint8_t *p, uint64_t v) {
    for (int i = 0; i < 8; i++) p[i] = (uint8_t)(v >> 8 * i);
}

/* Each fills one block of a row; the first random word gives scale and sign. */
static inline uint16_t pick_scale(const uint16_t *half, uint64_t r) {
    return (uint16_t)(half[r & (N_SCALE - 1)] | (r >> 48 & 0x8000));
}

static void fill_q4_0(uint8_t *p, uint64_t key, uint64_t block, const uint16_t *half) {
    const uint64_t low = 0x7777777777777777U, one = 0x1111111111111111U;
    store16(p, pick_scale(half, draw(key, block, 0)));
    for (uint64_t i = 0; i < 2; i++) {
        uint64_t a = draw(key, block, 1 + 2 * i), b = draw(key, block, 2 + 2 * i);
        store64(p + 2 + 8 * i, (a & low) + (b & low) + one);  // 1..15, 8 stands for 0
    }
}

static void fill_q8_0(uint8_t *p, uint64_t key, uint64_t block, const uint16_t *half) {
    const uint64_t low = 0x7f7f7f7f7f7f7f7fU, one = 0x0101010101010101U;
    store16(p, pick_scale(half, draw(key, block, 0)));
    for (uint64_t i = 0; i < 4; i++) {
        uint64_t a = draw(key, block, 1 + 2 * i), b = draw(key, block, 2 + 2 * i);
        store64(p + 2 + 8 * i, ((a & low) + (b & low) + one) ^ (one << 7));  // -127..127
    }
}

/* A super-block is eight blocks of draws. Scales are 4..7 and minima 8 times that, so with dmin = d the
 * nibble 8 stands for 0. */
static void fill_q4_k(uint8_t *p, uint64_t key, uint64_t block, const uint16_t *half) {
    const uint64_t low = 0x7777777777777777U, one = 0x1111111111111111U;
    uint64_t first = draw(key, 8 * block, 0);
    store16(p, pick_scale(half, first));
    store16(p + 2, pick_scale(half, first));
    for (int i = 0; i < 4; i++) {
        uint8_t a = 4 | (first >> (8 + 2 * i) & 3), b = 4 | (first >> (16 + 2 * i) & 3);
        p[4 + i] = a;  // scale and minimum of block i, and of 4 + i, whose bits 4-5 lie apart
        p[8 + i] = (uint8_t)(8 * a | (b >> 1 & 3) << 6);
        p[12 + i] = (uint8_t)(b | (8 * b & 15) << 4);
    }
    for (uint64_t i = 0; i < 16; i++) {
        uint64_t a = draw(key, 8 * block + i / 2, 1 + i % 2),
                 b = draw(key, 8 * block + i / 2, 3 + i % 2);
        store64(p + 16 + 8 * i, (a & low) + (b & low) + one);
    }
}

/* Eight weights of each block of a half at a time, 1..63; 32 stands for 0. */
static void fill_q6_k(uint8_t *p, uint64_t key, uint64_t block, const uint16_t *half) {
    const uint64_t low = 0x1f1f1f1f1f1f1f1fU, one = 0x0101010101010101U;
    const uint64_t nibble = 0x0f0f0f0f0f0f0f0fU, two = 0x0303030303030303U;
    uint64_t first = draw(key, 8 * block, 0);
    for (uint64_t i = 0; i < 8; i++) {
        uint64_t w[4], high = 0, at = i / 4 * 64 + i % 4 * 8;
        for (uint64_t k = 0; k < 4; k++) {
            uint64_t a = draw(key, 8 * block + i, 1 + k), b = draw(key, 8 * block + i, 5 + k);
            w[k] = (a & low) + (b & low) + one;
            high |= (w[k] >> 4 & two) << 2 * k;
        }
        store64(p + at, (w[0] & nibble) | (w[2] & nibble) << 4);
        store64(p + at + 32, (w[1] & nibble) | (w[3] & nibble) << 4);
        store64(p + 128 + 8 * i, high);
    }
    for (int i = 0; i < 16; i++) p[192 + i] = 4 | (first >> (8 + 2 * i) & 3);
    store16(p + 208, pick_scale(half, first));
}

static void fill_mxfp4(uint8_t *p, uint64_t key, uint64_t block, const uint16_t *exponent) {
    p[0] = (uint8_t)exponent[draw(key, block, 0) & (N_SCALE - 1)];
    for (uint64_t i = 0; i < 2; i++) store64(p + 1 + 8 * i, draw(key, block, 1 + i));
}

enum { HALVES = 3 * DRAWS };  // a "block" of halves: three from each word

static void fill_f16(uint8_t *p, uint64_t key, uint64_t block, const uint16_t *half, size_t n) {
    for (size_t i = 0; i < n; i++) {
        uint64_t r = draw(key, block, i / 3) >> 20 * (i % 3);
        store16(p + 2 * i, half[(r & 1023) + (r >> 10 & 1023)]);
    }
}

static void store_f32(uint8_t *p, float v) {
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    for (int i = 0; i < 4; i++) p[i] = (uint8_t)(bits >> 8 * i);
}

/* The sum of two even numbers: a triangle of this deviation. */
static void fill_f32(uint8_t *p, uint64_t key, uint64_t block, double std, size_t n) {
    const double spread = 417.95095669391;  // as halves have it
    for (size_t i = 0; i < n; i++) {
        uint64_t r = draw(key, block, i / 3) >> 20 * (i % 3);
        double v = (double)((r & 1023) + (r >> 10 & 1023)) - 1023;
        store_f32(p + 4 * i, (float)(std / spread * v));
    }
}

/* Llama 3.1's frequency factors: wavelengths longer than the first training context are stretched by
 * `factor`, short ones are kept, with a linear passage between. Source: the models' published code. */
static float rope_factor_of(const struct synth_shape *h, uint64_t i) {
    const double low = 1, high = 4, context = 8192;
    double wave =
        2 * 3.14159265358979323846 * pow(h->family->rope_base, 2.0 * (double)i / h->head_dim);
    if (wave < context / high) return 1;
    if (wave > context / low) return (float)h->rope_factor;
    double smooth = (context / wave - low) / (high - low);
    return (float)(1 / ((1 - smooth) / h->rope_factor + smooth));
}

static void fill_vector(const struct writer *w, const struct weight *t, uint64_t key, uint64_t i,
                        uint8_t *p) {
    float v;
    if (!strcmp(t->name, "rope_freqs.weight")) {
        v = rope_factor_of(&w->shape, i);
    } else if (t->std > 0) {  // even: its deviation is the root of a twelfth
        double unit = (double)(draw(key, i, 0) >> 40) / (1 << 24);
        v = (float)(t->std * 3.4641016151377544 * (unit - 0.5));
    } else {  // within a tenth of the mean
        v = t->mean * (0.9F + 0.2F * (float)(draw(key, i, 0) >> 40) / (float)(1 << 24));
    }
    store_f32(p, v);
}

/* ---- the file ---- */

static MUST write_all(int fd, const uint8_t *p, size_t n, struct err *e) {
    while (n) {
        ssize_t k = write(fd, p, n);
        if (k < 0 && errno == EINTR) continue;
        if (k < 0) return err_sys(e, "cannot write the model");
        p += k;
        n -= (size_t)k;
    }
    return true;
}

/* Write n bytes of the buffer's front. What was written BEHIND chunks ago is on the disk by then and
 * leaves the page cache, which others need more. */
static MUST flush(struct writer *w, size_t n, struct err *e) {
    if (!write_all(w->fd, w->buf, n, e)) return false;
    w->n_buf -= n;
    memmove(w->buf, w->buf + n, w->n_buf);
    off_t at = (off_t)w->written, old = at - (off_t)BEHIND * CHUNK;
    w->written += n;
    (void)sync_file_range(w->fd, at, (off_t)n, SYNC_FILE_RANGE_WRITE);
    if (old >= 0) {
        (void)sync_file_range(w->fd, old, CHUNK,
                              SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE |
                                  SYNC_FILE_RANGE_WAIT_AFTER);
        (void)posix_fadvise(w->fd, old, CHUNK, POSIX_FADV_DONTNEED);
    }
    if (!w->progress || w->progress(w->ctx, w->written, w->total)) return true;
    return err_set(e, ERR_STOPPED, "stopped; what was written of %s is removed", w->s->out);
}

/* n <= BLOCK_MAX bytes at the buffer's end are filled now. */
static MUST advance(struct writer *w, size_t n, struct err *e) {
    w->n_buf += n;
    return w->n_buf < CHUNK || flush(w, CHUNK, e);
}

static MUST write_bytes(struct writer *w, const uint8_t *p, size_t n, struct err *e) {
    while (n) {
        size_t part = n < BLOCK_MAX ? n : BLOCK_MAX;
        memcpy(w->buf + w->n_buf, p, part);
        if (!advance(w, part, e)) return false;
        p += part;
        n -= part;
    }
    return true;
}

/* A row, block by block; block numbers run through the tensor. */
static MUST write_row(struct writer *w, const struct weight *t, uint64_t key, uint64_t row,
                      struct err *e) {
    const uint16_t *half = w->half[row >= t->quiet_from];
    const struct tensor_format *f = tensor_format(t->type);
    uint64_t step = f->block == 1 ? HALVES : f->block;
    uint64_t n_block = (t->cols + step - 1) / step;
    for (uint64_t b = 0; b < n_block; b++) {
        uint8_t *p = w->buf + w->n_buf;
        uint64_t block = row * n_block + b, left = t->cols - b * step;
        size_t n = left < step ? left : step;
        switch (t->type) {
        case TENSOR_Q4_0: fill_q4_0(p, key, block, half); break;
        case TENSOR_Q8_0: fill_q8_0(p, key, block, half); break;
        case TENSOR_Q4_K: fill_q4_k(p, key, block, half); break;
        case TENSOR_Q6_K: fill_q6_k(p, key, block, half); break;
        case TENSOR_MXFP4: fill_mxfp4(p, key, block, half); break;
        case TENSOR_F32: fill_f32(p, key, block, t->std, n); break;
        default: fill_f16(p, key, block, half, n); break;
        }
        if (!advance(w, n / f->block * f->bytes, e)) return false;
    }
    return true;
}

static MUST write_tensor(struct writer *w, uint32_t i, struct err *e) {
    static const uint8_t zero[ALIGN];
    const struct weight *t = &w->weight[i];
    uint64_t key = mix(w->s->seed + mix(i + 1));
    if (t->rows) make_tables(w, t);
    for (uint64_t row = 0; row < t->rows; row++) {
        if (!write_row(w, t, key, row, e)) return false;
    }
    for (uint64_t k = 0; !t->rows && k < t->cols; k++) {
        fill_vector(w, t, key, k, w->buf + w->n_buf);
        if (!advance(w, 4, e)) return false;
    }
    return write_bytes(w, zero, (ALIGN - t->len % ALIGN) % ALIGN, e);
}

static MUST write_whole(struct writer *w, struct err *e) {
    if (!write_bytes(w, w->head, w->head_len, e)) return false;
    for (uint32_t i = 0; i < w->n_weight; i++) {
        if (!write_tensor(w, i, e)) return false;
    }
    if (w->n_buf && !flush(w, w->n_buf, e)) return false;
    if (fsync(w->fd) != 0) return err_sys(e, "cannot bring the model to the disk");
    (void)posix_fadvise(w->fd, 0, 0, POSIX_FADV_DONTNEED);
    return true;
}

/* Space beforehand, so that a full disk is known at once and not after minutes. */
static MUST reserve(const struct writer *w, struct err *e) {
    struct statvfs fs;
    if (fstatvfs(w->fd, &fs) != 0) return err_sys(e, "cannot ask for the space left");
    uint64_t left = (uint64_t)fs.f_bavail * fs.f_frsize;
    if (left < w->total) {
        errno = ENOSPC;
        return err_sys(e, "%s needs %.2f GB and the disk has %.2f GB left", w->s->out,
                       (double)w->total / 1e9, (double)left / 1e9);
    }
    if (fallocate(w->fd, 0, 0, (off_t)w->total) == 0) return true;
    /* Some file systems cannot reserve; the check above stands then. */
    return errno != ENOSPC ||
           err_sys(e, "%s: cannot reserve %.2f GB", w->s->out, (double)w->total / 1e9);
}

/* The rename would put the model in the place of a device, say /dev/null, and none of those is a file. */
static MUST want_file(const char *path, struct err *e) {
    struct stat st;
    if (stat(path, &st) != 0 || S_ISREG(st.st_mode)) return true;
    return err_set(e, ERR_USAGE, "%s is no file; give -o the name of a file to write", path);
}

static MUST write_file(struct writer *w, struct err *e) {
    char part[4096];
    int n = snprintf(part, sizeof part, "%s.part", w->s->out);
    if (n < 0 || (size_t)n >= sizeof part) return err_set(e, ERR_USAGE, "the path is too long");
    if (!want_file(w->s->out, e) || !want_file(part, e)) return false;
    w->fd = open(part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (w->fd < 0) return err_sys(e, "cannot write %s", w->s->out);
    bool ok = reserve(w, e) && write_whole(w, e);
    if (close(w->fd) != 0 && ok) ok = err_sys(e, "cannot write %s", w->s->out);
    if (ok && rename(part, w->s->out) != 0) ok = err_sys(e, "cannot write %s", w->s->out);
    if (!ok) unlink(part);
    return ok;
}

/* ---- options ---- */

static MUST parse_type(struct writer *w, struct err *e) {
    char known[80] = "";
    for (size_t i = 0; i < N_TYPE; i++) {
        size_t at = strlen(known);
        snprintf(known + at, sizeof known - at, "%s%s", i ? ", " : "", types[i].name);
        if (!strcasecmp(w->s->type, types[i].name)) w->type = &types[i];
    }
    return w->type ||
           err_set(e, ERR_USAGE, "unknown type \"%.20s\"; there are %s", w->s->type, known);
}

MUST synth_write(const struct synth *s, synth_progress *progress, void *ctx, struct err *e) {
    struct writer *w = calloc(1, sizeof *w);
    uint8_t *buf = malloc(CHUNK + BLOCK_MAX);
    if (!w || !buf) {
        free(w);
        free(buf);
        return err_set(e, ERR_MEMORY, "no memory to make a model");
    }
    *w = (struct writer){.s = s, .fd = -1, .buf = buf, .progress = progress, .ctx = ctx};
    bool ok = synth_shape_parse(&w->shape, s->shape, e) && parse_type(w, e) && lay_out(w, e) &&
              make_head(w, e);
    ok = ok && write_file(w, e);
    free(w->buf);
    free(w->head);
    free(w->weight);
    free(w);
    return ok;
}
