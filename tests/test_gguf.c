/* The reader: what good files yield, and the sentence for each kind of bad one. */
#include "gguf_maker.h"
#include "model/model.h"
#include "tap.h"

#include <dirent.h>
#include <sys/resource.h>

static const char *testdata(void) {
    const char *dir = getenv("DAIR_TESTDATA");
    return dir ? dir : "../shared/testdata";
}

static bool open_blob(struct model *m, const struct blob *b, enum model_part part, struct err *e) {
    int fd;
    char path[64];
    blob_file(b->p, b->n, &fd, path);
    bool ok = model_open_part(m, path, 0, 0, part, e);
    close(fd);
    return ok;
}

/* Build, open, and expect `code` with `text` in the sentence (ERR_NONE: it opens). */
static void expect(const char *what, struct spec *s, enum err_code code, const char *text) {
    struct model m;
    struct err e = {.code = ERR_NONE, .text = ""};
    struct blob b = maker_build(s);
    bool ok = open_blob(&m, &b, MODEL_ALL, &e);
    bool right = ok ? code == ERR_NONE : e.code == code && strstr(e.text, text);
    tap_ok(right, "%s: %s", what, ok ? "opens" : e.text);
    if (ok) model_close(&m);
    free(b.p);
    free(s->kv.p);
}

static void check_base(void) {
    struct model m;
    struct err e;
    struct spec s = {0};
    struct blob b = maker_build(&s);
    if (!tap_ok(open_blob(&m, &b, MODEL_ALL, &e), "a small model opens")) return;
    tap_ok(m.n_layer == 1 && m.n_embd == 32 && m.n_ff == 64 && m.n_head == 4 && m.n_head_kv == 2 &&
               m.head_dim == 8 && m.n_rot == 8 && m.n_vocab == 8 && m.n_ctx == 128,
           "shape");
    tap_ok(m.rope_base == 10000 && m.rope_scaling == ROPE_NONE && m.norm_eps == 1e-5F, "defaults");
    tap_ok(m.n_tensor == 12 && m.output != m.token_embd && m.rope_freqs == NULL, "directory");
    tap_ok(m.layer[0].k->dim[0] == 32 && m.layer[0].k->dim[1] == 16 && m.layer[0].k->len == 2048,
           "a tensor's size");
    tap_ok(m.token_embd->off == m.file[0].data_off && m.file[0].data_off + m.data_len == b.n,
           "data's place");
    const struct vocab *v = &m.vocab;
    tap_ok(v->n_token == 8 && !memcmp(v->text + v->start[5], "ab", 2) &&
               v->start[6] == v->start[7] && v->start[8] == strlen("<unk><s></s>ababc"),
           "tokens, the empty one too");
    tap_ok(v->bos == 1 && v->eos == 2 && v->unk == 0 && v->eot == -1 && v->add_bos && !v->score &&
               v->type[3] == TOKEN_NORMAL,
           "a SentencePiece vocabulary's defaults");
    const char *key, *value;
    tap_ok(model_meta(&m, 0, &key, &value) && !strcmp(key, "general.architecture") &&
               !strcmp(value, "llama") && model_meta(&m, 1, &key, &value) && !strcmp(value, "1") &&
               model_meta(&m, 7, &key, &value) && !strcmp(value, "1e-05") &&
               model_meta(&m, 9, &key, &value) && !strcmp(value, "[8 items]") &&
               !model_meta(&m, 10, &key, &value),
           "keys and values as text");
    model_close(&m);
    free(b.p);
}

/* The demo's case: a model as a range of another file. */
static void check_range(void) {
    struct model m;
    struct err e;
    struct spec s = {0};
    struct blob b = maker_build(&s), outer = {0};
    int fd;
    char path[64];
    for (int i = 0; i < 777; i++) blob_int(&outer, 0xaa, 1);
    blob_put(&outer, b.p, b.n);
    blob_int(&outer, 0, 8);
    blob_file(outer.p, outer.n, &fd, path);
    bool ok = model_open(&m, path, 777, b.n, &e);
    tap_ok(ok && m.token_embd->off == m.file[0].data_off &&
               m.file[0].data_off + m.data_len == 777 + b.n,
           "a model inside another file has absolute offsets");
    if (ok) model_close(&m);
    tap_ok(!model_open(&m, path, 777, b.n + 100, &e) && e.code == ERR_FORMAT, "range: %s", e.text);
    tap_ok(!model_open(&m, path, UINT64_MAX, 100, &e) && e.code == ERR_FORMAT, "range: %s", e.text);
    tap_ok(!model_open(&m, path, 0, 0, &e) && e.code == ERR_FORMAT, "magic: %s", e.text);
    tap_ok(!model_open(&m, "/", 0, 0, &e) && e.code == ERR_FORMAT, "a folder: %s", e.text);
    tap_ok(!model_open(&m, "/nowhere", 0, 0, &e) && e.code == ERR_IO, "no file: %s", e.text);
    close(fd);
    free(b.p);
    free(outer.p);
}

static void check_keys(void) {
    struct spec s = {.version = 2};
    expect("version 2", &s, ERR_NONE, "");
    s = (struct spec){.version = 4};
    expect("version 4", &s, ERR_UNSUPPORTED, "version 4");
    s = (struct spec){.align = 8, .n_kv = 1};
    kv_u32(&s.kv, "general.alignment", 8);
    expect("alignment 8", &s, ERR_NONE, "");
    s = (struct spec){.n_kv = 1};
    kv_u32(&s.kv, "llama.block_count", 1);
    expect("a key twice", &s, ERR_FORMAT, "llama.block_count is there twice");
    s = (struct spec){.n_kv = 1};
    kv_u32(&s.kv, "x\033[31m", 1);
    expect("a control byte in a key", &s, ERR_FORMAT, "byte 0x1b");
    s = (struct spec){.n_kv = 1};
    kv_array(&s.kv, "x", 9, 1);
    expect("an array of arrays", &s, ERR_FORMAT, "array of arrays");
    s = (struct spec){.n_kv = 1};
    kv_u32(&s.kv, "split.count", 3);
    expect("a split set whose files cannot be found by name", &s, ERR_FORMAT, "set of 3 files");
    s = (struct spec){.drop_key = "general.architecture"};
    expect("no architecture", &s, ERR_FORMAT, "general.architecture");
    s = (struct spec){.drop_key = "llama.context_length"};
    expect("no context length", &s, ERR_FORMAT, "llama.context_length is missing");
    s = (struct spec){.drop_key = "tokenizer.ggml.model"};
    expect("no vocabulary", &s, ERR_FORMAT, "no vocabulary");
    s = (struct spec){.drop_key = "tokenizer.ggml.tokens"};
    expect("no tokens", &s, ERR_FORMAT, "tokenizer.ggml.tokens is missing");
}

/* Opens what s gives; m is to be closed. */
static bool open_spec(struct model *m, struct spec *s, struct err *e) {
    struct blob b = maker_build(s);
    int fd;
    char path[64];
    blob_file(b.p, b.n, &fd, path);
    bool ok = model_open(m, path, 0, 0, e);
    close(fd);
    free(b.p);
    free(s->kv.p);
    return ok;
}

static void kv_no(struct blob *b, const char *key) {
    kv_head(b, key, 7);
    blob_int(b, 0, 1);
}

/* What a file says of its vocabulary beside the tokens. */
static void check_vocab_keys(void) {
    struct model m;
    struct err e = {0};
    struct spec s = {0};
    bool ok = open_spec(&m, &s, &e);
    tap_ok(ok && m.vocab.add_space_prefix && m.vocab.add_bos && !m.vocab.add_eos,
           "SentencePiece puts a space and BOS first");
    if (ok) model_close(&m);
    s = (struct spec){.n_kv = 2};
    kv_no(&s.kv, "tokenizer.ggml.add_space_prefix");
    kv_no(&s.kv, "tokenizer.ggml.add_bos_token");
    ok = open_spec(&m, &s, &e);
    tap_ok(ok && !m.vocab.add_space_prefix && !m.vocab.add_bos, "unless the file says no");
    if (ok) model_close(&m);
    s = (struct spec){.n_kv = 3, .drop_key = "tokenizer.ggml.model"};
    kv_str(&s.kv, "tokenizer.ggml.model", "gemma4");
    kv_no(&s.kv, "tokenizer.ggml.add_bos_token");
    kv_array(&s.kv, "tokenizer.ggml.merges", 8, 1);
    blob_text(&s.kv, "a b");
    ok = open_spec(&m, &s, &e);
    tap_ok(ok && m.vocab.add_bos && !m.vocab.add_space_prefix && m.vocab.n_merge == 1 &&
               !strcmp(m.vocab.pre, "gemma4"),
           "Gemma 4 puts BOS first whatever the file says, and no space: %s", e.text);
    if (ok) model_close(&m);
    s = (struct spec){.n_kv = 1, .drop_key = "tokenizer.ggml.model"};
    kv_str(&s.kv, "tokenizer.ggml.model", "gemma4");
    expect("no merges", &s, ERR_FORMAT, "gemma4");
}

static void heads_as_array(struct spec *s, uint32_t elem, uint32_t n, uint32_t v) {
    *s = (struct spec){.n_kv = 1, .drop_key = "llama.attention.head_count_kv"};
    kv_array(&s->kv, "llama.attention.head_count_kv", elem, n);
    for (uint32_t i = 0; i < n; i++) blob_int(&s->kv, v, 4);
}

static void check_shape(void) {
    struct spec s;
    heads_as_array(&s, 5, 1, 2);
    expect("head_count_kv as an array", &s, ERR_NONE, "");
    heads_as_array(&s, 4, 2, 2);
    expect("an array for another number of layers", &s, ERR_FORMAT, "2 items for 1 layers");
    heads_as_array(&s, 5, 1, UINT32_MAX);
    expect("a negative item", &s, ERR_LIMIT, "head_count_kv");
    heads_as_array(&s, 6, 1, 2);
    expect("an array of floats", &s, ERR_FORMAT, "array of f32");
    s = (struct spec){.n_kv = 1};
    kv_u32(&s.kv, "llama.attention.value_length", 4);
    expect("values of another length than keys", &s, ERR_UNSUPPORTED, "8 values a head");
    s = (struct spec){.n_kv = 1};
    kv_u32(&s.kv, "llama.attention.key_length", 16);
    expect("key length that the tensors do not have", &s, ERR_UNSUPPORTED, "must be equal");
    s = (struct spec){.n_kv = 2};
    kv_u32(&s.kv, "llama.attention.key_length", 16);
    kv_u32(&s.kv, "llama.attention.value_length", 16);
    expect("both lengths", &s, ERR_FORMAT, "attn_q.weight is [32, 32]");
    s = (struct spec){.n_kv = 2};
    kv_u32(&s.kv, "llama.attention.key_length", 520);
    kv_u32(&s.kv, "llama.attention.value_length", 520);
    expect("heads longer than attention computes with", &s, ERR_UNSUPPORTED, "heads of 520 values");
    s = (struct spec){.n_kv = 1};
    kv_u32(&s.kv, "llama.expert_count", 4);
    expect("experts without a use", &s, ERR_FORMAT, "expert_used_count is missing");
    s = (struct spec){.n_kv = 1, .drop_key = "llama.attention.layer_norm_rms_epsilon"};
    kv_f32(&s.kv, "llama.attention.layer_norm_rms_epsilon", 0.0F / 0.0F);
    expect("epsilon is not a number", &s, ERR_FORMAT, "epsilon");
    s = (struct spec){.n_kv = 1};
    kv_f32(&s.kv, "llama.rope.freq_base", -1);
    expect("a negative base", &s, ERR_FORMAT, "freq_base is -1");
    s = (struct spec){.n_kv = 1};
    kv_f32(&s.kv, "llama.rope.freq_base", 1e-37F);
    expect("a base that makes frequencies immense", &s, ERR_FORMAT, "freq_base is 1e-37");
    s = (struct spec){.n_kv = 2};
    kv_str(&s.kv, "llama.rope.scaling.type", "linear");
    kv_f32(&s.kv, "llama.rope.scaling.factor", 1e-30F);
    expect("a factor that does", &s, ERR_FORMAT, "scaling.factor is 1e-30");
}

static void check_rope(void) {
    struct model m;
    struct err e;
    struct spec s = {.n_kv = 1};
    kv_f32(&s.kv, "llama.rope.scale_linear", 4);
    struct blob b = maker_build(&s);
    bool ok = open_blob(&m, &b, MODEL_ALL, &e);
    tap_ok(ok && m.rope_scaling == ROPE_LINEAR && m.rope_factor == 4, "scale_linear, the old key");
    if (ok) model_close(&m);
    free(b.p);
    kv_str(&s.kv, "llama.rope.scaling.type", "none");
    s.n_kv = 2;
    b = maker_build(&s);
    ok = open_blob(&m, &b, MODEL_ALL, &e);
    tap_ok(ok && m.rope_scaling == ROPE_NONE, "type none wins over a factor");
    if (ok) model_close(&m);
    free(b.p);
    free(s.kv.p);
    s = (struct spec){.n_kv = 1};
    kv_str(&s.kv, "llama.rope.scaling.type", "dynamic");
    expect("an unknown scaling", &s, ERR_UNSUPPORTED, "\"dynamic\"");
    s = (struct spec){.n_kv = 2};
    kv_str(&s.kv, "llama.rope.scaling.type", "yarn");
    kv_f32(&s.kv, "llama.rope.scaling.yarn_beta_fast", 0);
    expect("YaRN that divides by zero", &s, ERR_FORMAT, "yarn_beta_fast is 0");
    s = (struct spec){.add_tensor = "rope_freqs.weight"};
    expect("rope_freqs of another length", &s, ERR_FORMAT, "rope_freqs.weight is [32]");
}

static void check_tensors(void) {
    struct spec s = {.drop_tensor = "blk.0.ffn_up.weight"};
    expect("a tensor is missing", &s, ERR_FORMAT, "blk.0.ffn_up.weight is missing");
    s = (struct spec){.drop_tensor = "output.weight"};
    expect("tied output", &s, ERR_NONE, "");
    s = (struct spec){.add_tensor = "output.weight"};
    expect("a tensor twice", &s, ERR_FORMAT, "output.weight is there twice");
    s = (struct spec){.add_tensor = "blk.0.attn_q.bias"};
    expect("a bias that attention may have", &s, ERR_NONE, "");
    s = (struct spec){.add_tensor = "blk.0.ffn_down.bias"};
    expect("and its feed-forward part", &s, ERR_NONE, "");
    s = (struct spec){.add_tensor = "blk.0.attn_norm.bias"};
    expect("a bias that its norms may not", &s, ERR_UNSUPPORTED, "blk.0.attn_norm.bias");
    s = (struct spec){.add_tensor = "blk.0.attn_q_norm.weight"};
    expect("a tensor of another architecture", &s, ERR_UNSUPPORTED, "attn_q_norm");
    s = (struct spec){.retype = "output_norm.weight", .type = TENSOR_F16};
    expect("a norm in F16", &s, ERR_UNSUPPORTED, "vectors must be F32");
    s = (struct spec){.retype = "blk.0.attn_q.weight", .type = TENSOR_Q4_0};
    expect("one weight in Q4_0", &s, ERR_NONE, "");
    s = (struct spec){.retype = "blk.0.attn_q.weight", .type = TENSOR_Q4_K};
    expect("rows shorter than a block", &s, ERR_FORMAT, "block of 256");
    s = (struct spec){.retype = "blk.0.attn_q.weight", .type = 36};
    expect("a removed type", &s, ERR_FORMAT, "type 36");
    s = (struct spec){.retype = "blk.0.attn_q.weight", .type = 43};
    expect("a type of later days", &s, ERR_UNSUPPORTED, "type 43, which is newer");
    s = (struct spec){.retype = "blk.0.attn_q.weight", .type = UINT32_MAX};
    expect("a type beyond all", &s, ERR_UNSUPPORTED, "newer than this version");
    s = (struct spec){.shift = 32};
    expect("tensors that overlap", &s, ERR_FORMAT, "overlap");
    s = (struct spec){.shift = 4};
    expect("an offset that is not aligned", &s, ERR_FORMAT, "no multiple of the alignment");
    s = (struct spec){.shift = UINT64_MAX - 31};
    expect("an offset that wraps", &s, ERR_FORMAT, "tensors token_embd.weight and output_norm");
}

/* Every prefix of a good file fails with a sentence; every changed byte opens or fails so. */
static void check_damage(void) {
    struct spec s = {0};
    struct blob b = maker_build(&s);
    struct model m;
    struct err e;
    int bad = 0, n = 0;
    const size_t meta = 2048;  // more than the keys and the directory
    if (!tap_ok(b.n > meta, "something to damage")) return;
    for (size_t len = 0; len < b.n; len += len < meta ? 1 : 97) {
        struct blob cut = {.p = b.p, .n = len};
        e.code = ERR_NONE;
        if (open_blob(&m, &cut, MODEL_ALL, &e)) {
            bad++;
            model_close(&m);
        } else if (e.code != ERR_FORMAT) {
            bad++;
        }
        n++;
    }
    tap_ok(!bad, "%d cut files are refused as malformed", n);
    uint64_t x = 7;
    for (n = bad = 0; n < 20000; n++) {
        x = x * 6364136223846793005U + 1442695040888963407U;
        size_t at = (size_t)(x >> 33) % meta;
        uint8_t was = b.p[at];
        b.p[at] = (uint8_t)(x >> 20);
        e.code = ERR_NONE;
        if (open_blob(&m, &b, n % 3 ? MODEL_ALL : MODEL_DIRECTORY, &e)) {
            model_close(&m);
        } else if (e.code == ERR_NONE || e.code == ERR_IO || !*e.text) {
            bad++;
        }
        b.p[at] = was;
    }
    tap_ok(!bad, "%d files with one wrong byte open or are refused", n);
    free(b.p);
}

/* Facts of files made by others; 0 layers: refused, with this code. */
static const struct {
    const char *file;
    uint32_t n_layer, n_embd, n_head, n_head_kv, head_dim, n_ff;
    enum err_code code;
} facts[] = {
    {"rnd-llama-F32.gguf", 2, 256, 4, 2, 64, 512, ERR_NONE},
    {"rnd-llama-F16.gguf", 2, 256, 4, 2, 64, 512, ERR_NONE},
    {"rnd-llama-BF16.gguf", 2, 256, 4, 2, 64, 512, ERR_NONE},
    {"rnd-llama-Q4_0.gguf", 2, 256, 4, 2, 64, 512, ERR_NONE},
    {"rnd-llama-Q4_1.gguf", 2, 256, 4, 2, 64, 512, ERR_NONE},
    {"rnd-llama-Q8_0.gguf", 2, 256, 4, 2, 64, 512, ERR_NONE},
    {"rnd-llama-Q2_K.gguf", 2, 256, 4, 2, 64, 512, ERR_NONE},
    {"rnd-llama-Q3_K_M.gguf", 2, 256, 4, 2, 64, 512, ERR_NONE},
    {"rnd-llama-Q4_K_M.gguf", 2, 256, 4, 2, 64, 512, ERR_NONE},
    {"rnd-llama-Q5_K_M.gguf", 2, 256, 4, 2, 64, 512, ERR_NONE},
    {"rnd-llama-Q6_K.gguf", 2, 256, 4, 2, 64, 512, ERR_NONE},
    {"rnd-llama-IQ4_NL.gguf", 2, 256, 4, 2, 64, 512, ERR_NONE},
    {"rnd-llama-linear-Q8_0.gguf", 2, 256, 4, 2, 64, 512, ERR_NONE},
    {"rnd-llama-tied-mha-Q8_0.gguf", 2, 256, 4, 4, 64, 512, ERR_NONE},
    {"rnd-llama3-Q8_0.gguf", 2, 256, 4, 2, 64, 512, ERR_NONE},
    {"stories260K-F32.gguf", 5, 64, 8, 4, 8, 172, ERR_NONE},
    {"stories260K-F16.gguf", 5, 64, 8, 4, 8, 172, ERR_NONE},
    {"stories260K-Q4_0.gguf", 5, 64, 8, 4, 8, 172, ERR_NONE},
    {"stories260K-Q5_1.gguf", 5, 64, 8, 4, 8, 172, ERR_NONE},
    {"stories260K-Q8_0.gguf", 5, 64, 8, 4, 8, 172, ERR_NONE},
    {"rnd-mixtral-Q8_0.gguf", 2, 256, 4, 2, 64, 256, ERR_NONE},
    {"rnd-qwen3-Q8_0.gguf", 2, 256, 4, 2, 128, 512, ERR_NONE},
    {"rnd-qwen2moe-Q8_0.gguf", 2, 256, 4, 2, 64, 256, ERR_NONE},
    {"rnd-gemma-Q8_0.gguf", 2, 256, 4, 1, 64, 512, ERR_NONE},
    {"rnd-ph2-Q8_0.gguf", 2, 256, 4, 4, 64, 512, ERR_NONE},
    {"rnd-ph3-Q8_0.gguf", 2, 256, 4, 4, 64, 512, ERR_NONE},
    {"split-rnd-llama-Q8_0-00001-of-00003.gguf", 2, 256, 4, 2, 64, 512, ERR_NONE},
    {"split-rnd-llama-Q8_0-00002-of-00003.gguf", 0, 0, 0, 0, 0, 0, ERR_UNSUPPORTED},
};

static void check_facts(void) {
    for (size_t i = 0; i < sizeof facts / sizeof *facts; i++) {
        char path[4096];
        struct model m;
        struct err e = {.code = ERR_NONE};
        snprintf(path, sizeof path, "%s/C-models/%s", testdata(), facts[i].file);
        if (access(path, R_OK) != 0) {
            tap_skip("%s is not there", path);
        } else if (!model_open(&m, path, 0, 0, &e)) {
            tap_ok(facts[i].code == e.code, "%s: %s", facts[i].file, e.text);
        } else {
            tap_ok(m.n_layer == facts[i].n_layer && m.n_embd == facts[i].n_embd &&
                       m.n_head == facts[i].n_head && m.n_head_kv == facts[i].n_head_kv &&
                       m.head_dim == facts[i].head_dim && m.n_ff == facts[i].n_ff &&
                       m.n_vocab == 512 && m.vocab.n_token == 512 && m.vocab.score,
                   "%s has the shape that it was made with", facts[i].file);
            model_close(&m);
        }
    }
}

/* Every file of the folder can be inspected, whatever its architecture. */
static void check_inspect(void) {
    char dir[4096], path[5000];
    snprintf(dir, sizeof dir, "%s/C-models", testdata());
    DIR *d = opendir(dir);
    if (!d) {
        tap_skip("%s is not there", dir);
        return;
    }
    int n = 0, bad = 0;
    for (struct dirent *f; (f = readdir(d));) {
        struct model m;
        struct err e;
        size_t len = strlen(f->d_name);
        if (len < 5 || strcmp(f->d_name + len - 5, ".gguf") != 0) continue;
        snprintf(path, sizeof path, "%s/%s", dir, f->d_name);
        bool ok = model_open_part(&m, path, 0, 0, MODEL_DIRECTORY, &e);
        n++;
        if (ok && m.n_tensor && m.n_param && m.n_kv) {
            model_close(&m);
        } else {
            bad++;
            printf("# %s: %s\n", f->d_name, ok ? "empty" : e.text);
        }
    }
    closedir(d);
    tap_ok(!bad && n, "%d files can be inspected", n);
}

static void check_vocabulary(void) {
    char path[4096];
    struct model m;
    struct err e;
    snprintf(path, sizeof path, "%s/A-tokenizers/built-llama-bpe.gguf", testdata());
    if (access(path, R_OK) != 0) {
        tap_skip("%s is not there", path);
        return;
    }
    if (!tap_ok(model_open_part(&m, path, 0, 0, MODEL_VOCAB, &e), "a vocabulary alone opens"))
        return;
    const struct vocab *v = &m.vocab;
    tap_ok(v->n_token == 128256 && v->n_merge == 280147 && v->bos == 128000,
           "llama 3's vocabulary");
    size_t strings = v->start[v->n_token] + v->merge[v->n_merge];
    size_t least = strings + 4 * (v->n_token + v->n_merge);
    tap_ok(m.mem.used < least + least / 10, "takes %zu bytes for %zu of strings and bounds",
           m.mem.used, least);
    model_close(&m);
    tap_ok(!model_open(&m, path, 0, 0, &e), "is no model: %s", e.text);
}

/* Block sizes against blocks that ggml made. The file is JSON, looked through by hand. */
static void check_formats(void) {
    char path[4096];
    snprintf(path, sizeof path, "%s/D-quant/quant_golden.json", testdata());
    FILE *f = fopen(path, "r");
    if (!f) {
        tap_skip("%s is not there", path);
        return;
    }
    static char text[1 << 16];
    size_t len = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[len] = 0;
    int n = 0, bad = 0;
    for (const char *p = text; (p = strstr(p, "\"type_id\":")); p++) {
        const char *q = strstr(p, "\"block_elems\":"), *r = strstr(p, "\"block_bytes\":");
        if (!q || !r) break;
        const struct tensor_format *t = tensor_format((uint32_t)atoi(p + 10));
        bool ok = t && t->block == (uint32_t)atoi(q + 14) && t->bytes == (uint32_t)atoi(r + 14);
        n++;
        if (!ok) printf("# type %d\n", atoi(p + 10));
        bad += !ok;
    }
    tap_ok(n > 20 && !bad, "%d block formats as ggml has them", n);
    const struct tensor_format *q2 = tensor_format(42);
    tap_ok(q2 && !strcmp(q2->name, "Q2_0") && q2->block == 64 && q2->bytes == 18,
           "Q2_0, which has no golden blocks");
    tap_ok(!tensor_format(4) && !tensor_format(31) && !tensor_format(43) &&
               !tensor_format(UINT32_MAX),
           "removed and unknown types have none");
}

/* This program carries a "model", so that the search is tested where it happens. */
__attribute__((section(".dair.demo"), used)) static const char carried[] = "carried along";

static void check_demo(void) {
    char path[4096], got[sizeof carried];
    uint64_t base, len;
    struct err e;
    if (!tap_ok(model_demo(path, &base, &len, &e), "the demo section is found")) return;
    FILE *f = fopen(path, "r");
    tap_ok(f && len == sizeof carried && fseek(f, (long)base, SEEK_SET) == 0 &&
               fread(got, 1, sizeof got, f) == sizeof got && !memcmp(got, carried, sizeof got),
           "and holds what was put there");
    if (f) fclose(f);
}

int main(void) {
    check_base();
    check_range();
    check_keys();
    check_vocab_keys();
    check_shape();
    check_rope();
    check_tensors();
    check_damage();
    check_formats();
    check_facts();
    check_inspect();
    check_vocabulary();
    check_demo();
    return tap_done();
}
