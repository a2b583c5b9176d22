/* distributed-llama's files: what is read of them, the same logits to the bit as the same weights give in
 * a GGUF file, the .t that is found by itself, and hostile headers. */
#include "arch_maker.h"
#include "dllama_maker.h"
#include "model/tok.h"
#include "nn/nn.h"
#include "tap.h"

#include <sys/stat.h>

/* A .m and a .t in memory; given: the .t is, by its path. */
struct pair {
    int m_fd, t_fd;
    char m[64], t[64];
};

static void pair_open(struct pair *p, const struct blob *m, const struct blob *t) {
    blob_file(m->p, m->n, &p->m_fd, p->m);
    blob_file(t->p, t->n, &p->t_fd, p->t);
}

static void pair_close(struct pair *p) {
    close(p->m_fd);
    close(p->t_fd);
}

static const char template[] = "{% for m in messages %}{{ m.content }}{% endfor %}";

/* --- what is read --- */

static bool is_tensor(const struct model *m, uint32_t i, const char *name, uint32_t type,
                      uint64_t cols, uint64_t rows, uint64_t *at) {
    const struct tensor *t = &m->tensor[i];
    bool ok = i < m->n_tensor && !strcmp(t->name, name) && t->type == type && t->dim[0] == cols &&
              t->dim[1] == rows && t->off == *at && !t->file;
    if (!ok) printf("# tensor %u: %s at %llu\n", i, t->name, (unsigned long long)t->off);
    *at += t->len;
    return ok;
}

static void check_shape(void) {
    struct dl_pairs p = dl_tiny(DL_LLAMA);
    dl_set(&p, DL_WEIGHTS, 2);
    dl_set(&p, DL_THETA, 500000);
    struct blob m = dl_model(&p), t = dl_tokens(template, NULL);
    struct pair files;
    struct model a;
    struct err e = {0};
    pair_open(&files, &m, &t);
    bool ok = model_open_with(&a, files.m, files.t, MODEL_ALL, &e);
    if (tap_ok(ok, "a .m and its .t open %s", e.text)) {
        uint64_t at = 8 + 8 * (uint64_t)p.n;
        tap_ok(!strcmp(a.arch_name, "llama") && a.n_layer == 1 && a.n_embd == 32 && a.n_ff == 64 &&
                   a.n_head == 4 && a.n_head_kv == 2 && a.head_dim == 8 && a.n_vocab == 8 &&
                   a.n_ctx == 128 && a.n_rot == 8,
               "its shape");
        tap_ok(a.rope_base == 500000 && a.norm_eps == 1e-6F && a.traits.pairs == ROPE_NEIGHBOURS &&
                   a.rope_scaling == ROPE_NONE,
               "its numbers");
        tap_ok(is_tensor(&a, 0, "token_embd.weight", TENSOR_F32, 32, 8, &at) &&
                   is_tensor(&a, 1, "blk.0.attn_q.weight", TENSOR_Q4_0, 32, 32, &at) &&
                   is_tensor(&a, 2, "blk.0.attn_k.weight", TENSOR_Q4_0, 32, 16, &at) &&
                   is_tensor(&a, 3, "blk.0.attn_v.weight", TENSOR_Q4_0, 32, 16, &at) &&
                   is_tensor(&a, 4, "blk.0.attn_output.weight", TENSOR_Q4_0, 32, 32, &at) &&
                   is_tensor(&a, 5, "blk.0.ffn_gate.weight", TENSOR_Q4_0, 32, 64, &at) &&
                   is_tensor(&a, 6, "blk.0.ffn_down.weight", TENSOR_Q4_0, 64, 32, &at) &&
                   is_tensor(&a, 7, "blk.0.ffn_up.weight", TENSOR_Q4_0, 32, 64, &at) &&
                   is_tensor(&a, 8, "blk.0.attn_norm.weight", TENSOR_F32, 32, 1, &at) &&
                   is_tensor(&a, 9, "blk.0.ffn_norm.weight", TENSOR_F32, 32, 1, &at) &&
                   is_tensor(&a, 10, "output_norm.weight", TENSOR_F32, 32, 1, &at) &&
                   is_tensor(&a, 11, "output.weight", TENSOR_Q4_0, 32, 8, &at) && at == m.n,
               "its tensors, in place");
        tap_ok(!strcmp(a.chat_template, template) && !strcmp(a.vocab.kind, "dllama") &&
                   a.vocab.bos == 5 && a.vocab.eos == 6 && a.vocab.add_bos && a.tokenizer &&
                   !strcmp(a.tokenizer->path, files.t) && a.n_file == 1,
               "its vocabulary and template");
        tap_ok(a.vocab.type[2] == TOKEN_NORMAL && a.vocab.type[5] == TOKEN_CONTROL &&
                   a.vocab.type[6] == TOKEN_CONTROL && a.vocab.type[7] == TOKEN_USER,
               "tokens from BOS on are special");
        tap_ok(!strcmp(a.container, "distributed-llama") && a.data_len == m.n - 8 - 8 * p.n,
               "what it is");
        model_close(&a);
    }
    pair_close(&files);
    free(m.p), free(t.p);
}

static void check_experts(void) {
    struct dl_pairs p = dl_tiny(DL_QWEN3_MOE);
    struct blob m = dl_model(&p), t = dl_tokens("", NULL);
    struct pair files;
    struct model a;
    struct err e = {0};
    pair_open(&files, &m, &t);
    bool ok = model_open_with(&a, files.m, files.t, MODEL_ALL, &e);
    if (tap_ok(ok, "one with experts opens %s", e.text)) {
        uint64_t off, at = a.layer[0].router->off + a.layer[0].router->len;
        tap_ok(a.n_expert == 3 && a.n_used == 2 && a.n_ff == 32 && a.head_dim == 16 &&
                   a.traits.pairs == ROPE_HALVES && !*a.chat_template,
               "its shape");
        bool right = true;
        for (uint32_t x = 0; x < 3; x++) {
            static const enum expert_part order[] = {EXPERT_GATE, EXPERT_DOWN, EXPERT_UP};
            for (int k = 0; k < 3; k++, at += 32 * 32 * 4) {
                (void)model_expert(&a, 0, x, order[k], &off);
                right = right && off == at;
            }
        }
        tap_ok(right && a.layer[0].q_norm->off == at && a.layer[0].k_norm->off == at + 64,
               "its experts, gate, down and up of each, then the norms of heads");
        model_close(&a);
    }
    pair_close(&files);
    free(m.p), free(t.p);
}

static uint64_t print_of(const struct blob *m, const struct blob *t) {
    struct pair files;
    struct model a;
    struct err e;
    uint64_t print = 0;
    pair_open(&files, m, t);
    if (model_open_with(&a, files.m, files.t, MODEL_ALL, &e)) {
        print = a.fingerprint;
        model_close(&a);
    }
    pair_close(&files);
    return print;
}

static void check_fingerprint(void) {
    struct dl_pairs p = dl_tiny(DL_QWEN3);
    struct blob m = dl_model(&p), t = dl_tokens("", NULL);
    uint64_t first = print_of(&m, &t);
    m.p[m.n - 1] ^= 1;
    uint64_t weights = print_of(&m, &t);
    m.p[m.n - 1] ^= 1;
    t.p[t.n - 1] = '}';
    uint64_t words = print_of(&m, &t);
    t.p[t.n - 1] = '>';
    tap_ok(first && weights && words && first == print_of(&m, &t), "a fingerprint");
    tap_ok(first != weights && first != words && weights != words,
           "another .m or .t has another fingerprint");
    free(m.p), free(t.p);
}

/* A vocabulary smaller than the model's table, with the ends in the header, and one of the old kind. */
static void check_vocabularies(void) {
    struct dl_pairs p = dl_tiny(DL_LLAMA), more = {0};
    struct pair files;
    struct model a;
    struct err e = {0};
    dl_set(&p, DL_VOCAB, 16 * 8);
    struct blob m = dl_model(&p), t = {0}, old = {0};
    dl_set(&more, DL_TOK_VERSION, 1);
    dl_set(&more, DL_TOK_VOCAB, 120);
    dl_set(&more, DL_TOK_BOS, 110);
    dl_set(&more, DL_TOK_EOS, 111);
    dl_set(&more, 6, 112);  // chat_eos_id
    dl_set(&more, DL_TOK_TEMPLATE, 4);
    dl_set(&more, DL_TOK_STOP, 3);
    dl_header(&t, DL_MAGIC_TOK, &more);
    blob_put(&t, "textend", 7);
    for (int i = 0; i < 120; i++) dl_token(&t, -(float)i, &(char){(char)i}, 1);
    pair_open(&files, &m, &t);
    bool ok = model_open_with(&a, files.m, files.t, MODEL_ALL, &e);
    if (tap_ok(ok, "fewer tokens than rows, as models with padded tables have %s", e.text)) {
        tap_ok(a.vocab.n_token == 128 && a.vocab.type[119] == TOKEN_CONTROL &&
                   a.vocab.type[120] == TOKEN_UNUSED && a.vocab.start[128] == 120,
               "the others are unused");
        tap_ok(a.vocab.n_end == 2 && a.vocab.end[0] == 111 && a.vocab.end[1] == 112 &&
                   a.vocab.add_bos && !strcmp(a.chat_template, "text"),
               "ends in the header; a text to stop at is passed over");
        model_close(&a);
    }
    pair_close(&files);
    blob_int(&old, 0x567123, 4);
    static const int32_t head[] = {128, 1, 1, 2, -1};  // tokens, longest, BOS, EOS, padding
    for (int i = 0; i < 5; i++) blob_int(&old, (uint32_t)head[i], 4);
    for (int i = 0; i < 128; i++) dl_token(&old, -(float)i, &(char){(char)i}, 1);
    pair_open(&files, &m, &old);
    ok = model_open_with(&a, files.m, files.t, MODEL_ALL, &e);
    if (tap_ok(ok, "a .t of the old kind %s", e.text)) {
        tap_ok(a.vocab.bos == 1 && a.vocab.eos == 2 && a.vocab.type[1] == TOKEN_CONTROL &&
                   a.vocab.type[2] == TOKEN_CONTROL && a.vocab.type[3] == TOKEN_NORMAL,
               "BOS in front: what follows it is no special token, but the end");
        model_close(&a);
    }
    pair_close(&files);
    free(m.p), free(t.p), free(old.p);
}

/* --- the same weights as a GGUF file --- */

enum { N_TOK = 24 };

static struct kernels kernels;
static int32_t token[N_TOK];

struct run {
    struct nn *nn;
    float logits[N_TOK][MADE_VOCAB];
    bool ok;
    struct err err;
};

static void steps(void *ctx, struct par *team) {
    struct run *r = ctx;
    uint32_t first, count;
    r->ok = true;
    for (int i = 0; r->ok && i < N_TOK; i++) {
        r->ok = nn_step(r->nn, team, 0, token + i, 1, NN_LOGITS, &r->err);
        if (r->ok) memcpy(r->logits[i], nn_logits(r->nn, &first, &count), sizeof r->logits[i]);
    }
}

static bool logits_of(const struct model *m, struct run *r) {
    struct coll alone;
    struct nn_conf c = {.model = m,
                        .kernels = &kernels,
                        .n_slice = 1,
                        .n_seq = 1,
                        .n_ctx = 32,
                        .n_batch = 1,
                        .kv = KV_F16,
                        .wire = WIRE_Q16,
                        .budget = (uint64_t)1 << 30,
                        .n_reader = 1,
                        .n_slot = 2,
                        .n_thread = 1};
    memset(r, 0, sizeof *r);
    coll_alone(&alone);
    cuts_make(&c.cuts, m, 1, (const double[]){1});
    bool ok = nn_open(&r->nn, &c, &alone, &r->err) && nn_load(r->nn, NULL, NULL, &r->err) &&
              par_enter(1, steps, r, &r->err) && r->ok;
    nn_close(r->nn);
    return ok;
}

/* The bytes of one tensor of a made model, or of one expert's part of it; NULL name: the table of
 * embeddings as floats. */
static void put_tensor(struct blob *b, struct made *m, int layer, const char *name, int64_t part) {
    char full[64];
    struct blob data = {0};
    snprintf(full, sizeof full, layer < 0 ? "%.0d%s.weight" : "blk.%d.%s.weight",
             layer < 0 ? 0 : layer, name);
    for (uint32_t i = 0; i < m->n_tensor; i++) {
        const struct made_tensor *t = &m->tensor[i];
        if (strcmp(t->name, full) != 0) continue;
        uint64_t n = t->cols * (t->rows ? t->rows : 1);
        uint64_t len = t->type == W_F32 ? 4 * n : n / 32 * 34;
        made_data(&data, t);
        if (!data.p) abort();
        blob_put(b, data.p + (part < 0 ? 0 : (uint64_t)part * len), len);
        free(data.p);
        return;
    }
    abort();
}

static void put_embedding(struct blob *b, const struct made *m) {
    const struct made_tensor *t = &m->tensor[0];
    for (uint64_t i = 0; i < t->cols * t->rows; i++) {
        float f = made_value(t, i);
        uint32_t bits;
        if (t->type == W_Q8_0) f = (float)(int8_t)lrintf(f * 1000) / 2048;  // as made_data
        memcpy(&bits, &f, sizeof bits);
        blob_int(b, bits, 4);
    }
}

static struct blob model_of(struct made *m, uint32_t type) {
    struct blob b = {0};
    struct dl_pairs p = {0};
    bool is_qwen = m->qk_norm;
    dl_set(&p, DL_ARCH, m->n_expert ? DL_QWEN3_MOE : is_qwen ? DL_QWEN3 : DL_LLAMA);
    dl_set(&p, DL_DIM, (int32_t)m->d);
    dl_set(&p, DL_HIDDEN, (int32_t)m->n_ff);
    dl_set(&p, DL_LAYERS, MADE_LAYERS);
    dl_set(&p, DL_HEADS, (int32_t)m->n_head);
    dl_set(&p, DL_KV_HEADS, (int32_t)m->n_kv);
    dl_set(&p, DL_HEAD_DIM, (int32_t)m->hd);
    dl_set(&p, DL_EXPERTS, (int32_t)m->n_expert);
    dl_set(&p, DL_USED, (int32_t)m->n_used);
    dl_set(&p, DL_VOCAB, MADE_VOCAB);
    dl_set(&p, DL_CTX, 64);
    dl_set(&p, DL_THETA, (int32_t)m->base);
    dl_set(&p, DL_WEIGHTS, type == W_F32 ? 0 : 3);
    if (m->n_expert) dl_set(&p, DL_EXPERT_HIDDEN, (int32_t)m->n_ff);
    if (m->scaling) {
        dl_set(&p, DL_ROPE, 2);
        dl_set(&p, DL_FACTOR, (int32_t)m->factor);
        dl_set(&p, DL_LOW, 1);
        dl_set(&p, DL_HIGH, 4);
        dl_set(&p, DL_ORIG, (int32_t)m->n_ctx_orig);
    }
    dl_header(&b, DL_MAGIC, &p);
    put_embedding(&b, m);
    for (int i = 0; i < MADE_LAYERS; i++) {
        static const char *const attn[] = {"attn_q", "attn_k", "attn_v", "attn_output"};
        static const char *const ffn[] = {"ffn_gate", "ffn_down", "ffn_up"};
        static const char *const exps[] = {"ffn_gate_exps", "ffn_down_exps", "ffn_up_exps"};
        for (int k = 0; k < 4; k++) put_tensor(&b, m, i, attn[k], -1);
        for (int k = 0; !m->n_expert && k < 3; k++) put_tensor(&b, m, i, ffn[k], -1);
        if (m->n_expert) put_tensor(&b, m, i, "ffn_gate_inp", -1);
        for (uint32_t x = 0; x < m->n_expert; x++) {
            for (int k = 0; k < 3; k++) put_tensor(&b, m, i, exps[k], x);
        }
        if (is_qwen) put_tensor(&b, m, i, "attn_q_norm", -1);
        if (is_qwen) put_tensor(&b, m, i, "attn_k_norm", -1);
        put_tensor(&b, m, i, "attn_norm", -1);
        put_tensor(&b, m, i, "ffn_norm", -1);
    }
    put_tensor(&b, m, -1, "output_norm", -1);
    put_tensor(&b, m, -1, "token_embd", -1);
    return b;
}

static struct blob words_of_made(void) {
    struct blob b = {0};
    struct dl_pairs p = {0};
    dl_set(&p, DL_TOK_VERSION, 1);
    dl_set(&p, DL_TOK_VOCAB, MADE_VOCAB);
    dl_set(&p, DL_TOK_BOS, MADE_VOCAB - 2);
    dl_header(&b, DL_MAGIC_TOK, &p);
    for (int i = 0; i < MADE_VOCAB; i++) {
        char text[16];
        int n = snprintf(text, sizeof text, "t%d", i);
        dl_token(&b, 0, text, (size_t)n);
    }
    return b;
}

static void check_same(const struct made *what, uint32_t type) {
    static struct run a, b;
    struct made s = *what;
    s.d = 64, s.n_head = 6, s.n_kv = 3, s.hd = s.n_rot = 32, s.n_ff = 96;
    struct blob gguf = made_build(&s, type), m = model_of(&s, type), t = words_of_made();
    struct model from_gguf = {0}, from_m = {0};
    struct pair files;
    struct err e = {0};
    char path[64];
    int fd;
    blob_file(gguf.p, gguf.n, &fd, path);
    pair_open(&files, &m, &t);
    bool ok = model_open(&from_gguf, path, 0, 0, &e) &&
              model_open_with(&from_m, files.m, files.t, MODEL_ALL, &e);
    if (tap_ok(ok, "%s in %s opens as GGUF and as .m %s", s.what, type == W_F32 ? "F32" : "Q8_0",
               e.text)) {
        bool ran = logits_of(&from_gguf, &a) && logits_of(&from_m, &b);
        if (!ran) printf("# %s%s\n", a.err.text, b.err.text);
        tap_ok(ran && !memcmp(a.logits, b.logits, sizeof a.logits) && a.logits[0][0] != 0 &&
                   a.logits[0][0] != a.logits[1][0],
               "and gives the same logits to the bit");
    }
    if (from_gguf.mem.base) model_close(&from_gguf);
    if (from_m.mem.base) model_close(&from_m);
    pair_close(&files);
    close(fd);
    free(gguf.p), free(m.p), free(t.p);
}

/* --- the .t beside the .m --- */

static void put_file(const char *dir, const char *name, const struct blob *b) {
    char path[128];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(b->p, 1, b->n, f) != b->n || fclose(f) != 0) abort();
}

static void check_path(const char *dir, const char *name, const char *tokenizer, const char *want) {
    char path[128];
    struct model m;
    struct err e = {0};
    snprintf(path, sizeof path, "%s/%s", dir, name);
    bool ok = model_open_with(&m, path, tokenizer, MODEL_ALL, &e);
    const char *found = ok ? strrchr(m.tokenizer->path, '/') + 1 : "";
    bool right = ok ? !strcmp(found, want) : strstr(e.text, want) && e.code == ERR_UNSUPPORTED;
    tap_ok(right, "%s: %s", name, ok ? found : e.text);
    if (ok) model_close(&m);
}

static void check_beside(void) {
    char dir[] = "/tmp/dair-dllama-XXXXXX", other[64], path[128];
    struct dl_pairs p = dl_tiny(DL_LLAMA);
    struct blob m = dl_model(&p), t = dl_tokens("", NULL);
    struct model a;
    struct err e = {0};
    static const char *const names[] = {"a.m", "b.m", "other.t", "b.t", ".hidden.t"};
    if (!mkdtemp(dir)) abort();
    snprintf(other, sizeof other, "%s/other.t", dir);
    put_file(dir, "a.m", &m);
    put_file(dir, ".hidden.t", &t);
    check_path(dir, "a.m", NULL, "--tokenizer FILE.t");
    snprintf(path, sizeof path, "%s/a.m", dir);
    bool ok = model_open_part(&a, path, 0, 0, MODEL_DIRECTORY, &e);
    tap_ok(ok && !strcmp(a.name, "a") && a.n_tensor == 12 && !a.tokenizer,
           "without one it can be looked at");
    if (ok) model_close(&a);
    put_file(dir, "other.t", &t);
    check_path(dir, "a.m", NULL, "other.t");
    put_file(dir, "b.m", &m);
    put_file(dir, "b.t", &t);
    check_path(dir, "b.m", NULL, "b.t");
    check_path(dir, "a.m", NULL, "2 tokenizers (.t) are beside it");
    check_path(dir, "b.m", other, "other.t");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        unlink(path);
    }
    rmdir(dir);
    free(m.p), free(t.p);
}

/* --- what is wrong with them --- */

/* Opened in every way; false when one succeeds or fails without a sentence. */
static bool fails(const struct blob *m, const struct blob *t, struct err *e) {
    struct pair files;
    bool ok = true;
    pair_open(&files, m, t);
    for (int part = MODEL_ALL; part <= MODEL_VOCAB; part++) {
        struct model a;
        e->code = ERR_NONE;
        *e->text = '\0';
        if (model_open_with(&a, files.m, files.t, (enum model_part)part, e)) {
            model_close(&a);
            ok = false;
        }
        ok = ok && e->code != ERR_NONE && e->code != ERR_IO && *e->text && !strchr(e->text, '\n');
    }
    pair_close(&files);
    return ok;
}

static void refuse(const struct blob *m, const struct blob *t, enum err_code code,
                   const char *word) {
    struct err e = {0};
    bool ok = fails(m, t, &e);
    tap_ok(ok && e.code == code && strstr(e.text, word), "refused: %s", ok ? e.text : "not");
}

static void refuse_field(int32_t arch, int32_t key, int32_t value, enum err_code code,
                         const char *word) {
    struct dl_pairs p = dl_tiny(arch);
    struct blob m = dl_model(&p), t = dl_tokens("", NULL), bad = {0};
    dl_set(&p, key, value);
    dl_header(&bad, DL_MAGIC, &p);
    blob_put(&bad, m.p + 8, m.n - 8);
    refuse(&bad, &t, code, word);
    free(m.p), free(t.p), free(bad.p);
}

static void refuse_without(int32_t key, const char *word) {
    struct dl_pairs p = dl_tiny(DL_QWEN3_MOE);
    struct blob t = dl_tokens("", NULL);
    dl_drop(&p, key);
    struct blob bad = {0};
    dl_header(&bad, DL_MAGIC, &p);
    refuse(&bad, &t, ERR_FORMAT, word);
    free(t.p), free(bad.p);
}

static void check_fields(void) {
    static const struct {
        int32_t key;
        const char *name;
    } needed[] = {{DL_ARCH, "arch_type"},
                  {DL_DIM, "dim"},
                  {DL_HIDDEN, "hidden_dim"},
                  {DL_LAYERS, "n_layers"},
                  {DL_HEADS, "n_heads"},
                  {DL_KV_HEADS, "n_kv_heads"},
                  {DL_EXPERTS, "n_experts"},
                  {DL_USED, "n_active_experts"},
                  {DL_VOCAB, "vocab_size"},
                  {DL_CTX, "max_seq_len"},
                  {DL_WEIGHTS, "weights_float_type"},
                  {DL_EXPERT_HIDDEN, "moe_hidden_dim"}};
    for (size_t i = 0; i < sizeof needed / sizeof *needed; i++) {
        refuse_without(needed[i].key, needed[i].name);
    }
    refuse_field(DL_LLAMA, DL_ARCH, 7, ERR_FORMAT, "arch_type is 7");
    refuse_field(DL_LLAMA, DL_DIM, -32, ERR_FORMAT, "dim is -32");
    refuse_field(DL_LLAMA, DL_DIM, INT32_MAX, ERR_LIMIT, "dim is 2147483647");
    refuse_field(DL_LLAMA, DL_LAYERS, 100000, ERR_LIMIT, "n_layers is 100000");
    refuse_field(DL_LLAMA, DL_LAYERS, 1000, ERR_FORMAT, "past the end of the file");
    refuse_field(DL_LLAMA, DL_HEADS, 0, ERR_FORMAT, "n_heads is 0");
    refuse_field(DL_LLAMA, DL_HEADS, 5, ERR_FORMAT, "no multiple of 5 heads");
    refuse_field(DL_LLAMA, DL_VOCAB, 1 << 22, ERR_FORMAT, "token_embd.weight");
    refuse_field(DL_LLAMA, DL_WEIGHTS, 4, ERR_LIMIT, "weights_float_type is 4");
    refuse_field(DL_LLAMA, DL_WEIGHTS, 1, ERR_FORMAT, "describes");  // the file is longer
    refuse_field(DL_LLAMA, DL_EXPERTS, 4, ERR_UNSUPPORTED, "experts");
    refuse_field(DL_LLAMA, DL_ACT, 0, ERR_UNSUPPORTED, "GELU");
    refuse_field(DL_LLAMA, DL_ROPE, 1, ERR_UNSUPPORTED, "rope_type 1");
    refuse_field(DL_LLAMA, DL_FACTOR, 8, ERR_FORMAT, "between 0 and 0 turns");
    refuse_field(DL_LLAMA, DL_EPSILON, 7, ERR_LIMIT, "norm_epsilon is 7");
    refuse_field(DL_LLAMA, 22, 1, ERR_UNSUPPORTED, "field of number 22");
    refuse_field(DL_LLAMA, -1, 1, ERR_UNSUPPORTED, "field of number 4294967295");
    refuse_field(DL_QWEN3, DL_FACTOR, 8, ERR_UNSUPPORTED, "rope_scaling_factor");
    refuse_field(DL_QWEN3, DL_HEAD_DIM, 1 << 20, ERR_FORMAT, "attn_q.weight");
    refuse_field(DL_QWEN3_MOE, DL_EXPERTS, 257, ERR_LIMIT, "n_experts is 257");
}

/* A header of four bytes more or less than its pairs, and one with a pair twice. */
static void check_headers(void) {
    static const int32_t lengths[] = {0, 4, 7, 12, -8, 8 + 8 * 65, INT32_MAX};
    struct dl_pairs p = dl_tiny(DL_LLAMA);
    struct blob m = dl_model(&p), t = dl_tokens("", NULL);
    struct blob bad = dl_model(&p);
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        for (int k = 0; k < 4; k++) bad.p[4 + k] = (uint8_t)((uint32_t)lengths[i] >> 8 * k);
        refuse(&bad, &t, ERR_FORMAT, "the header claims");
    }
    free(bad.p);
    bad = (struct blob){0};
    p.key[3] = p.key[2];
    dl_header(&bad, DL_MAGIC, &p);
    refuse(&bad, &t, ERR_FORMAT, "dim twice");
    free(bad.p);
    p = dl_tiny(DL_LLAMA);
    bad = dl_model(&p);
    blob_int(&bad, 0, 1);
    refuse(&bad, &t, ERR_FORMAT, "not the model that it says it is");
    bad.n -= 2;
    refuse(&bad, &t, ERR_FORMAT, "incomplete download");
    for (int k = 0; k < 3; k++) bad.p[k + 1] = (uint8_t)(DL_LLAMA >> 8 * (k + 1));
    bad.p[0] = 1;
    refuse(&bad, &t, ERR_UNSUPPORTED, "old format");
    refuse(&t, &t, ERR_FORMAT, "by --tokenizer");
    refuse(&m, &m, ERR_FORMAT, "not a tokenizer");
    bad.p[3] = 0xff;
    refuse(&bad, &t, ERR_FORMAT, "not a GGUF file");
    struct spec gguf = {0};
    struct blob g = maker_build(&gguf);
    refuse(&g, &t, ERR_USAGE, "--tokenizer is for");
    free(g.p), free(m.p), free(t.p), free(bad.p);
}

static void refuse_words(int32_t key, int32_t value, enum err_code code, const char *word) {
    struct dl_pairs p = dl_tiny(DL_LLAMA), more = {0};
    dl_set(&more, key, value);
    struct blob m = dl_model(&p), t = dl_tokens(template, &more);
    refuse(&m, &t, code, word);
    free(m.p), free(t.p);
}

/* Where a byte pattern of the tokens lies in a .t that ends with them. */
static void poke(struct blob *t, size_t from_end, uint32_t v) {
    for (int k = 0; k < 4; k++) t->p[t->n - from_end + (size_t)k] = (uint8_t)(v >> 8 * k);
}

static void check_words(void) {
    enum { LAST = 8 + 7 };  // bytes of the last token, "<think>"
    struct dl_pairs p = dl_tiny(DL_LLAMA);
    struct blob m = dl_model(&p), t = dl_tokens(template, NULL);
    refuse_words(DL_TOK_VERSION, 0, ERR_FORMAT, "version is 0");
    refuse_words(DL_TOK_VERSION, 2, ERR_LIMIT, "version is 2");
    refuse_words(DL_TOK_VOCAB, 7, ERR_FORMAT, "7 tokens, but the model has 8");
    refuse_words(DL_TOK_VOCAB, 9, ERR_FORMAT, "9 tokens, but the model has 8");
    refuse_words(DL_TOK_VOCAB, 1 << 22, ERR_FORMAT, "claims 4194304 tokens");
    refuse_words(DL_TOK_VOCAB, INT32_MAX, ERR_LIMIT, "vocab_size is 2147483647");
    refuse_words(DL_TOK_BOS, 8, ERR_FORMAT, "bos_id is 8");
    refuse_words(DL_TOK_BOS, -1, ERR_FORMAT, "bos_id is -1");
    refuse_words(DL_TOK_EOS, 8, ERR_FORMAT, "end token 8");
    refuse_words(DL_TOK_TEMPLATE, 1 << 20, ERR_FORMAT, "template of 1048576 bytes");
    refuse_words(DL_TOK_TEMPLATE, 1, ERR_FORMAT, "");
    refuse_words(DL_TOK_STOP, 1 << 20, ERR_FORMAT, "do not hold");
    refuse_words(DL_TOK_ENDS, 65, ERR_LIMIT, "n_eos_tokens is 65");
    refuse_words(11, 0, ERR_UNSUPPORTED, "field of number 11");
    poke(&t, LAST, 0x7fc00000);
    refuse(&m, &t, ERR_FORMAT, "score of token 7 is not a number");
    poke(&t, LAST, 0);
    poke(&t, LAST - 4, 8);
    refuse(&m, &t, ERR_FORMAT, "token 7 of 8, of 8 bytes, goes past the end");
    poke(&t, LAST - 4, UINT32_MAX);
    refuse(&m, &t, ERR_FORMAT, "token 7 of 8");
    poke(&t, LAST - 4, 6);
    refuse(&m, &t, ERR_FORMAT, "1 bytes follow the last token");
    t.n = 0;
    refuse(&m, &t, ERR_FORMAT, "header");
    free(m.p), free(t.p);
}

/* Cut anywhere, each byte of the headers anything: a sentence or a model, never more. */
static void check_cuts(void) {
    struct dl_pairs p = dl_tiny(DL_QWEN3_MOE);
    struct blob m = dl_model(&p), t = dl_tokens(template, NULL);
    size_t n_header = 8 + 8 * (size_t)p.n;
    struct err e = {0};
    int bad = 0;
    for (size_t n = 0; n < m.n; n += n < n_header + 8 ? 1 : 997) {
        struct blob cut = {m.p, n, n};
        bad += !fails(&cut, &t, &e);
    }
    tap_ok(!bad, "a .m cut anywhere is refused");
    for (size_t n = 0; n < t.n; n++) {
        struct blob cut = {t.p, n, n};
        bad += !fails(&m, &cut, &e);
    }
    tap_ok(!bad, "a .t cut anywhere is refused");
    static const uint8_t values[] = {0, 1, 0x7f, 0x80, 0xff};
    unsigned n_open = 0;
    for (size_t i = 0; i < n_header + t.n; i++) {
        uint8_t *at = i < n_header ? m.p + i : t.p + i - n_header, was = *at;
        for (size_t k = 0; k < sizeof values; k++) {
            *at = values[k];
            struct pair files;
            struct model a;
            pair_open(&files, &m, &t);
            *e.text = '\0';
            if (model_open_with(&a, files.m, files.t, MODEL_ALL, &e)) {
                struct tok *tok;
                if (tok_open(&tok, &a.vocab, &e)) tok_close(tok);
                model_close(&a);
                n_open++;
            } else {
                bad += !*e.text;
            }
            pair_close(&files);
        }
        *at = was;
    }
    tap_ok(!bad && n_open > 100, "each byte of both changed: a model (%u times) or a sentence",
           n_open);
    free(m.p), free(t.p);
}

int main(void) {
    static const struct made models[] = {
        {.what = "llama", .arch = "llama", .base = 10000},
        {.what = "llama, frequencies scaled as Llama 3.1's",
         .arch = "llama",
         .base = 10000,
         .scaling = "llama3",
         .factor = 8,
         .n_ctx_orig = 256},
        {.what = "qwen3", .arch = "qwen3", .base = 1e6, .halves = true, .qk_norm = true},
        {.what = "qwen3moe",
         .arch = "qwen3moe",
         .base = 1e6,
         .halves = true,
         .qk_norm = true,
         .n_expert = 6,
         .n_used = 3},
    };
    kernels_init(&kernels, cpu_features());
    for (int i = 0; i < N_TOK; i++) token[i] = (i * i * 7 + 3) % MADE_VOCAB;
    check_shape();
    check_experts();
    check_fingerprint();
    check_vocabularies();
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        check_same(&models[i], W_F32);
        check_same(&models[i], W_Q8_0);
    }
    check_beside();
    check_fields();
    check_headers();
    check_words();
    check_cuts();
    return tap_done();
}
