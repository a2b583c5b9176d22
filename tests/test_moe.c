/* Layers with experts: the same logits to the bit however many slices, tokens at once or streamed
 * tiles there are, and however the file keeps the experts; and files that claim nonsense about them. The
 * models are made here, random and small. */
#include "gguf_maker.h"
#include "nn_ways.h"
#include "quants.h"
#include "tap.h"

#include <unistd.h>

enum { N_LAYER = 2, VOCAB = WAY_VOCAB, EMBD = 96, HEADS = 6, KV_HEADS = 3, HEAD_DIM = 32 };

enum layout { TOGETHER, APART, DENSE };  // DENSE: expert 0 alone, under a dense model's names

struct spec_moe {
    const char *what;
    uint32_t n_expert, n_used, n_ff;
    uint32_t router, gate, up, down[N_LAYER];  // weight types
    uint32_t plain;                            // of all other matrices
    enum layout layout;
    bool is_flat;             // the router knows no difference
    const char *drop, *flip;  // tensor left out; tensor of another type
    uint32_t flip_type;
    const char *key;  // one more key, or in place of one
    uint32_t value;
};

/* --- the file --- */

struct making {
    const struct spec_moe *s;
    struct blob info, data;
    uint32_t n_tensor;
};

static uint64_t mix(uint64_t z) {  // SplitMix64's finaliser (Steele, Lea, Flood 2014)
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9U;
    z = (z ^ z >> 27) * 0x94d049bb133111ebU;
    return z ^ z >> 31;
}

/* n values from `key`; the same for the same key, so that two layouts hold the same weights. */
static void put_weights(struct blob *b, uint32_t type, uint64_t n, uint64_t key, bool is_zero) {
    for (uint64_t i = 0; i < n; i++) {
        uint64_t r = mix(key + (i + 1) * 0x9e3779b97f4a7c15U);
        float f = (float)((int)(r & 255) - 128) / 512;
        uint32_t bits;
        if (is_zero) f = 0;
        memcpy(&bits, &f, 4);
        if (type == W_F32) blob_int(b, bits, 4);
        if (type == W_F16) blob_int(b, 0x3000 | (r & 0x83ff), 2);   // +-0.125 .. 0.25
        if (type == W_Q8_0 && i % 32 == 0) blob_int(b, 0x1800, 2);  // 2^-9
        if (type == W_Q8_0) blob_int(b, is_zero ? 0 : r & 255, 1);
        if (type == W_Q4_0 && i % 32 == 0) blob_int(b, 0x2800, 2);  // 2^-5
        if (type == W_Q4_0 && i % 2) blob_int(b, r & 255, 1);
    }
}

static void put_tensor(struct making *m, const char *name, uint32_t type, const uint64_t dim[3],
                       uint64_t key, uint32_t n_part) {
    const struct spec_moe *s = m->s;
    uint32_t n_dim = dim[2] ? 3 : dim[1] ? 2 : 1;
    uint64_t n = dim[0] * (dim[1] ? dim[1] : 1);
    if (s->drop && !strcmp(s->drop, name)) return;
    if (s->flip && !strcmp(s->flip, name)) type = s->flip_type;
    blob_text(&m->info, name);
    blob_int(&m->info, n_dim, 4);
    for (uint32_t i = 0; i < n_dim; i++) blob_int(&m->info, dim[i], 8);
    blob_int(&m->info, type, 4);
    blob_int(&m->info, m->data.n, 8);
    bool is_zero = s->is_flat && strstr(name, "gate_inp");
    for (uint32_t i = 0; i < n_part; i++) put_weights(&m->data, type, n, key + i, is_zero);
    while (m->data.n % 32) blob_int(&m->data, 0, 1);
    m->n_tensor++;
}

static void put_plain(struct making *m, int layer, const char *what, uint32_t type, uint64_t cols,
                      uint64_t rows) {
    char name[64];
    uint64_t key = (uint64_t)(layer + 1) << 32, dim[3] = {cols, rows, 0};
    for (const char *c = what; *c; c++) key = key * 31 + (uint8_t)*c;
    snprintf(name, sizeof name, layer < 0 ? "%.0d%s.weight" : "blk.%d.%s.weight",
             layer < 0 ? 0 : layer, what);
    put_tensor(m, name, type, dim, mix(key), 1);
}

static void put_experts(struct making *m, int layer, const char *what, uint32_t type, uint64_t cols,
                        uint64_t rows) {
    const struct spec_moe *s = m->s;
    char name[64];
    uint64_t key = mix((uint64_t)(layer + 1) << 40 | (uint64_t)(uint8_t)what[4] << 32);
    uint64_t dim[3] = {cols, rows, s->layout == TOGETHER ? s->n_expert : 0};
    snprintf(name, sizeof name, "blk.%d.%s_exps.weight", layer, what);
    if (s->layout == TOGETHER) {
        put_tensor(m, name, type, dim, key, s->n_expert);
        return;
    }
    for (uint32_t i = 0; i < (s->layout == DENSE ? 1 : s->n_expert); i++) {
        if (s->layout == DENSE) snprintf(name, sizeof name, "blk.%d.%s.weight", layer, what);
        if (s->layout == APART) snprintf(name, sizeof name, "blk.%d.%s.%u.weight", layer, what, i);
        put_tensor(m, name, type, dim, key + i, 1);
    }
}

static void put_layer(struct making *m, int i) {
    const struct spec_moe *s = m->s;
    put_plain(m, i, "attn_norm", W_F32, EMBD, 0);
    put_plain(m, i, "attn_q", m->s->plain, EMBD, HEADS * HEAD_DIM);
    put_plain(m, i, "attn_k", m->s->plain, EMBD, KV_HEADS * HEAD_DIM);
    put_plain(m, i, "attn_v", m->s->plain, EMBD, KV_HEADS * HEAD_DIM);
    put_plain(m, i, "attn_output", m->s->plain, HEADS * HEAD_DIM, EMBD);
    put_plain(m, i, "ffn_norm", W_F32, EMBD, 0);
    if (s->layout != DENSE) put_plain(m, i, "ffn_gate_inp", s->router, EMBD, s->n_expert);
    put_experts(m, i, "ffn_gate", s->gate, EMBD, s->n_ff);
    put_experts(m, i, "ffn_up", s->up, EMBD, s->n_ff);
    put_experts(m, i, "ffn_down", s->down[i], s->n_ff, EMBD);
}

static uint32_t put_keys(struct blob *b, const struct spec_moe *s) {
    const struct {
        const char *key;
        uint32_t v;
    } ints[] = {{"llama.block_count", N_LAYER},
                {"llama.embedding_length", EMBD},
                {"llama.feed_forward_length", s->n_ff},
                {"llama.attention.head_count", HEADS},
                {"llama.attention.head_count_kv", KV_HEADS},
                {"llama.attention.key_length", HEAD_DIM},
                {"llama.attention.value_length", HEAD_DIM},
                {"llama.context_length", 64},
                {"llama.expert_count", s->layout == DENSE ? 0 : s->n_expert},
                {"llama.expert_used_count", s->layout == DENSE ? 0 : s->n_used}};
    uint32_t n = 4;
    kv_str(b, "general.architecture", "llama");
    for (size_t i = 0; i < sizeof ints / sizeof *ints; i++) {
        if (s->key && !strcmp(s->key, ints[i].key)) continue;
        kv_u32(b, ints[i].key, ints[i].v);
        n++;
    }
    if (s->key) kv_u32(b, s->key, s->value), n++;
    kv_f32(b, "llama.attention.layer_norm_rms_epsilon", 1e-5F);
    kv_str(b, "tokenizer.ggml.model", "llama");
    kv_array(b, "tokenizer.ggml.tokens", 8, VOCAB);
    for (int i = 0; i < VOCAB; i++) {
        char text[16];
        snprintf(text, sizeof text, "t%d", i);
        blob_text(b, text);
    }
    return n;
}

static bool open_made(const struct spec_moe *s, struct model *m, int *fd, struct err *e) {
    struct making mk = {.s = s};
    struct blob file = {0}, keys = {0};
    char path[64];
    uint32_t n_key = put_keys(&keys, s);
    put_plain(&mk, -1, "token_embd", s->plain, EMBD, VOCAB);
    put_plain(&mk, -1, "output_norm", W_F32, EMBD, 0);
    for (int i = 0; i < N_LAYER; i++) put_layer(&mk, i);
    blob_put(&file, "GGUF", 4);
    blob_int(&file, 3, 4);
    blob_int(&file, mk.n_tensor, 8);
    blob_int(&file, n_key, 8);
    blob_put(&file, keys.p, keys.n);
    blob_put(&file, mk.info.p, mk.info.n);
    while (file.n % 32) blob_int(&file, 0, 1);
    blob_put(&file, mk.data.p, mk.data.n);
    blob_file(file.p, file.n, fd, path);
    free(file.p), free(keys.p), free(mk.info.p), free(mk.data.p);
    return model_open(m, path, 0, 0, e);
}

/* --- running it --- */

static struct kernels kernels;
static const struct prompt prompt = {13, {3, 1, 4, 1, 5, 9, 2, 6, 5, 35, 8, 49, 0}};

/* FNV-1a: the contract's bits, the same on every machine. */
static uint64_t digest(const struct answer *a) {
    uint64_t h = 0xcbf29ce484222325U;
    for (size_t i = 0; i < prompt.n * sizeof *a->logits; i++) {
        h = (h ^ ((const uint8_t *)a->logits)[i]) * 0x100000001b3U;
    }
    return h;
}

static void check(const struct spec_moe *s, enum wire_type wire, uint64_t bits) {
    static const struct way ways[] = {
        {"2 threads", 1, {1}, 1, 2, ALL_RESIDENT, KV_F32, WIRE_Q16},
        {"streamed", 1, {1}, 1, 2, ALL_STREAMED, KV_F32, WIRE_Q16},
        {"half streamed", 1, {1}, 1, 1, HALF, KV_F32, WIRE_Q16},
        {"3 tokens at once", 1, {1}, 3, 1, ALL_RESIDENT, KV_F32, WIRE_Q16},
        {"13 tokens at once", 1, {1}, 13, 2, ALL_RESIDENT, KV_F32, WIRE_Q16},
        {"13 tokens at once, streamed", 1, {1}, 13, 2, ALL_STREAMED, KV_F32, WIRE_Q16},
        {"5 tokens at once, half streamed", 1, {1}, 5, 2, HALF, KV_F32, WIRE_Q16},
        {"2 slices", 2, {1, 1}, 1, 1, ALL_RESIDENT, KV_F32, WIRE_Q16},
        {"3 slices, 4 tokens at once", 3, {1, 1, 1}, 4, 1, ALL_RESIDENT, KV_F32, WIRE_Q16},
        {"slices 3:1, streamed", 2, {3, 1}, 1, 1, ALL_STREAMED, KV_F32, WIRE_Q16},
        {"4 slices 1:5:2:1, 8 tokens, half streamed",
         4,
         {1, 5, 2, 1},
         8,
         1,
         HALF,
         KV_F32,
         WIRE_Q16},
        {"7 slices", 7, {1, 2, 1, 3, 1, 1, 2}, 6, 1, ALL_RESIDENT, KV_F32, WIRE_Q16},
    };
    const struct way plain = {"plain", 1, {1}, 1, 1, ALL_RESIDENT, KV_F32, wire};
    static struct answer want, got;
    struct model m;
    struct err e = {0};
    int fd;
    if (tap_ok(open_made(s, &m, &fd, &e), "%s: opens %s", s->what, e.text)) {
        bool ok = way_run(&m, &kernels, &plain, &prompt, &want, &e);
        tap_ok(ok && answer_is_alive(&want, &prompt), "%s: runs %s", s->what, ok ? "" : e.text);
        tap_ok(digest(&want) == bits, "%s: digest %016llx", s->what,
               (unsigned long long)digest(&want));
        for (size_t i = 0; ok && i < sizeof ways / sizeof *ways; i++) {
            struct way w = ways[i];
            w.wire = wire;
            bool ran = way_run(&m, &kernels, &w, &prompt, &got, &e);
            tap_ok(ran && answer_is(&got, &want, &prompt), "%s: %s %s", s->what, w.what,
                   ran ? "" : e.text);
        }
        model_close(&m);
    }
    close(fd);
}

/* --- what must be equal by meaning --- */

static bool logits_of(const struct spec_moe *s, struct answer *a) {
    const struct way plain = {"plain", 1, {1}, 4, 1, ALL_RESIDENT, KV_F32, WIRE_Q16};
    struct model m;
    struct err e;
    int fd;
    bool ok = open_made(s, &m, &fd, &e);
    if (ok) {
        ok = way_run(&m, &kernels, &plain, &prompt, a, &e);
        model_close(&m);
    }
    close(fd);
    if (!ok) printf("# %s: %s\n", s->what, e.text);
    return ok;
}

static void equal(const char *what, const struct spec_moe *a, const struct spec_moe *b,
                  bool wanted) {
    static struct answer x, y;
    bool ok = logits_of(a, &x) && logits_of(b, &y);
    tap_ok(ok && answer_is(&x, &y, &prompt) == wanted, "%s", what);
}

static void check_meaning(void) {
    const struct spec_moe base = {.what = "base",
                                  .n_expert = 6,
                                  .n_used = 2,
                                  .n_ff = 64,
                                  .plain = W_Q8_0,
                                  .router = W_F32,
                                  .gate = W_Q8_0,
                                  .up = W_Q8_0,
                                  .down = {W_Q8_0, W_F16}};
    struct spec_moe a = base, b = base;
    b.layout = APART;
    equal("a tensor for each expert, or one for all", &a, &b, true);
    a.n_expert = a.n_used = 1;
    b = a;
    b.layout = DENSE;
    equal("one expert is a dense model", &a, &b, true);
    a = base;
    a.n_used = 1;
    a.is_flat = true;
    equal("of equals the first is taken", &a, &b, true);
    a.is_flat = false;
    equal("of others not always", &a, &b, false);
    a = b = base;
    b.n_used = 3;
    equal("a third expert changes the answer", &a, &b, false);
}

/* --- files that claim nonsense --- */

static void refused(const char *what, const struct spec_moe *s, enum err_code code,
                    const char *text) {
    struct model m;
    struct err e = {0};
    int fd;
    bool ok = open_made(s, &m, &fd, &e);
    if (ok) {  // then the forward pass refuses
        struct nn_memory mem;
        struct nn_conf c = {.model = &m, .kernels = &kernels, .n_slice = 1, .n_seq = 1};
        c.n_ctx = c.n_batch = c.n_reader = c.n_thread = 1;
        c.n_slot = 2;
        c.budget = (uint64_t)1 << 40;
        cuts_make(&c.cuts, &m, 1, (const double[]){1});
        ok = nn_measure(&c, &mem, &e);
        model_close(&m);
    }
    close(fd);
    tap_ok(!ok && e.code == code && strstr(e.text, text), "%s: %s", what, e.text);
}

static void refused_key(const char *key, uint32_t value, enum err_code code, const char *text) {
    struct spec_moe s = {.n_expert = 4, .n_used = 2, .n_ff = 32, .key = key, .value = value};
    refused(key, &s, code, text);
}

static void check_hostile(void) {
    const char *count = "llama.expert_count", *used = "llama.expert_used_count";
    refused_key(count, 0, ERR_FORMAT, "2 experts of 0");
    refused_key(count, 1, ERR_FORMAT, "2 experts of 1");
    refused_key(count, 257, ERR_LIMIT, "expert_count is 257 (at most 256)");
    refused_key(count, UINT32_MAX, ERR_LIMIT, "expert_count");
    refused_key(count, 5, ERR_FORMAT, "ffn_gate_inp.weight is [96, 4]");
    refused_key(used, 0, ERR_FORMAT, "expert_used_count is 0");
    refused_key(used, 5, ERR_FORMAT, "5 experts of 4");
    refused_key("llama.expert_gating_func", 2, ERR_UNSUPPORTED, "gating_func is 2");
    refused_key("llama.expert_group_count", 2, ERR_UNSUPPORTED, "group_count is 2");
    refused_key("llama.expert_shared_count", 1, ERR_UNSUPPORTED, "shared_count is 1");
    struct spec_moe s = {.n_expert = 20, .n_used = 17, .n_ff = 32};
    refused("17 experts at once", &s, ERR_LIMIT, "at most 16");
    s = (struct spec_moe){.n_expert = 4, .n_used = 2, .n_ff = 32};
    s.drop = "blk.1.ffn_gate_inp.weight";
    refused("no router", &s, ERR_FORMAT, "blk.1.ffn_gate_inp.weight is missing");
    s.drop = "blk.0.ffn_up_exps.weight";
    refused("no experts' up", &s, ERR_FORMAT, "blk.0.ffn_up_exps.weight is missing");
    s.layout = APART;
    s.drop = "blk.1.ffn_down.3.weight";
    refused("no down of one", &s, ERR_FORMAT, "blk.1.ffn_down.3.weight is missing");
    s.drop = "blk.0.ffn_gate.0.weight";
    refused("no gate of the first", &s, ERR_FORMAT, "ffn_gate_exps.weight is missing");
    s.drop = NULL;
    s.flip = "blk.0.ffn_down.2.weight";
    s.flip_type = W_Q8_0;
    refused("floats beside quantised", &s, ERR_UNSUPPORTED, "all floats or all quantised");
    s = (struct spec_moe){.n_expert = 4, .n_used = 2, .n_ff = 32, .layout = DENSE};
    s.key = count, s.value = 4;
    refused("a dense model with a count", &s, ERR_FORMAT, "expert_used_count is 0");
    s.key = "llama.expert_used_count", s.value = 1;
    refused("a dense model with a use", &s, ERR_FORMAT, "1 experts of 0");
}

/* --- what a token passes --- */

static void check_forecast(void) {
    struct spec_moe s = {.what = "8 of 2", .n_expert = 8, .n_used = 2, .n_ff = 256};
    struct model m;
    struct err e = {0};
    int fd;
    if (!tap_ok(open_made(&s, &m, &fd, &e), "opens %s", e.text)) return;
    struct nn_memory mem = {0};
    struct nn_conf c = {.model = &m, .kernels = &kernels, .n_slice = 1, .n_seq = 1};
    c.n_ctx = c.n_batch = c.n_reader = c.n_thread = 1;
    c.n_slot = 2;
    c.budget = (uint64_t)1 << 40;
    cuts_make(&c.cuts, &m, 1, (const double[]){1});
    uint64_t experts = N_LAYER * 3ULL * 8 * EMBD * 256 * sizeof(float);
    bool ok = nn_measure(&c, &mem, &e);
    tap_ok(ok && mem.sweep_bytes - mem.token_bytes == experts / 8 * 6,
           "a token passes 2 of 8 experts: %llu of %llu bytes", (unsigned long long)mem.token_bytes,
           (unsigned long long)mem.sweep_bytes);
    uint64_t least = 0;
    ok = nn_least(&c, &least, &e) && least == mem.min_budget;
    tap_ok(ok, "the least memory, measured by itself: %llu", (unsigned long long)least);
    model_close(&m);
    close(fd);
}

int main(void) {
    static const struct spec_moe specs[] = {
        {.what = "4 experts, Q8_0",
         .n_expert = 4,
         .n_used = 2,
         .n_ff = 96,
         .plain = W_Q8_0,
         .router = W_F32,
         .gate = W_Q8_0,
         .up = W_Q8_0,
         .down = {W_Q8_0, W_Q8_0}},
        {.what = "7 experts, mixed types",
         .n_expert = 7,
         .n_used = 3,
         .n_ff = 160,
         .plain = W_F16,
         .router = W_F16,
         .gate = W_F16,
         .up = W_Q4_0,
         .down = {W_F32, W_Q4_0}},
        {.what = "40 experts, 16 at once, floats",
         .n_expert = 40,
         .n_used = 16,
         .n_ff = 32,
         .plain = W_Q8_0,
         .router = W_Q8_0,
         .gate = W_F32,
         .up = W_F32,
         .down = {W_F16, W_F32}},
        {.what = "all experts, each apart",
         .n_expert = 3,
         .n_used = 3,
         .n_ff = 64,
         .plain = W_F32,  // so that no bit of a sum is rounded away
         .router = W_F32,
         .gate = W_Q8_0,
         .up = W_F16,
         .down = {W_F16, W_Q8_0},
         .layout = APART},
    };
    kernels_init(&kernels, cpu_features());
    check(&specs[0], WIRE_Q16, 0x5caac964d0fc8de8U);
    check(&specs[1], WIRE_Q8, 0x5dfef556255ca50cU);
    check(&specs[2], WIRE_Q16, 0xff716b237c60ee08U);
    check(&specs[3], WIRE_F32, 0x124d48a0114a5358U);
    check_meaning();
    check_hostile();
    check_forecast();
    return tap_done();
}
