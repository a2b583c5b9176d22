#include "model/arch.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static const struct arch archs[] = {
    {.name = "llama", .flags = ARCH_MAY_EXPERTS | ARCH_MAY_FFN_BIAS},
    {.name = "qwen2", .traits = {.pairs = ROPE_HALVES}, .flags = ARCH_QKV_BIAS},
    {.name = "qwen2moe",
     .traits = {.pairs = ROPE_HALVES, .routing = ROUTE_ALL},
     .flags = ARCH_QKV_BIAS | ARCH_EXPERTS | ARCH_SHARED},
    {.name = "qwen3", .traits = {.pairs = ROPE_HALVES}, .flags = ARCH_QK_NORM},
    {.name = "qwen3moe", .traits = {.pairs = ROPE_HALVES}, .flags = ARCH_QK_NORM | ARCH_EXPERTS},
    {.name = "gemma",
     .traits = {.pairs = ROPE_HALVES, .gate = GATE_GELU},
     .flags = ARCH_SCALE_EMBD},
    {.name = "gemma2",
     .traits = {.pairs = ROPE_HALVES, .gate = GATE_GELU},
     .flags = ARCH_SCALE_EMBD | ARCH_POST_NORMS,
     .window = 4096,
     .period = 2,
     .attn_softcap = 50,
     .final_softcap = 30,
     .wide_layers = 46},
    {.name = "gemma3",
     .traits = {.pairs = ROPE_HALVES, .gate = GATE_GELU},
     .flags = ARCH_SCALE_EMBD | ARCH_POST_NORMS | ARCH_QK_NORM,
     .period = 6,
     .local_base = 10000,
     .wide_layers = 62},
    {.name = "phi2",
     .traits = {.norm = NORM_LAYER,
                .pairs = ROPE_HALVES,
                .gate = GATE_GELU,
                .is_ungated = true,
                .is_parallel = true},
     .flags = ARCH_QKV_BIAS | ARCH_ALL_BIAS},
    /* Its window key is left alone, as other programs do: files carry it for models that were trained
     * without one as well. */
    {.name = "phi3", .traits = {.pairs = ROPE_HALVES}, .flags = ARCH_GATE_IN_UP},
    {.name = "gpt-oss",
     .traits = {.pairs = ROPE_HALVES, .gate = GATE_OAI},
     .flags = ARCH_QKV_BIAS | ARCH_ALL_BIAS | ARCH_EXPERTS | ARCH_SINKS,
     .ffn_norm = "post_attention_norm",
     .period = 2},
};

enum { N_ARCH = sizeof archs / sizeof *archs };

const struct arch *arch_find(const char *name) {
    for (size_t i = 0; i < N_ARCH; i++) {
        if (!strcmp(archs[i].name, name)) return &archs[i];
    }
    return NULL;
}

const char *arch_names(char out[static 160]) {
    size_t at = 0;
    out[0] = 0;
    for (size_t i = 0; i < N_ARCH && at < 160; i++) {
        const char *before = !i ? "" : i + 1 < N_ARCH ? ", " : " and ";
        at += (size_t)snprintf(out + at, 160 - at, "%s%s", before, archs[i].name);
    }
    return out;
}

struct keys {
    struct model *m;
    struct gguf *g;
    char key[96];
};

static const char *key_of(struct keys *k, const char *suffix) {
    snprintf(k->key, sizeof k->key, "%.48s.%s", k->m->arch_name, suffix);
    return k->key;
}

/* A number that must lie in [least, most] where it is given. */
static MUST number(struct keys *k, const char *suffix, double least, double most, double *v,
                   struct err *e) {
    const char *key = key_of(k, suffix);
    if (!gguf_find(k->g, key)) return true;
    if (!gguf_f64(k->g, key, v, e)) return false;
    if (*v >= least && *v <= most) return true;
    return err_set(e, ERR_FORMAT, "key %s is %g (%g to %g)", key, *v, least, most);
}

static MUST read_scores(struct keys *k, const struct arch *a, struct err *e) {
    struct model *m = k->m;
    uint32_t width = m->n_layer == a->wide_layers ? m->n_embd / m->n_head : m->head_dim;
    double scale = 1 / sqrtf((float)width), attn = a->attn_softcap, final = a->final_softcap;
    if (!number(k, "attention.scale", 0, 1e6, &scale, e) ||
        !number(k, "attn_logit_softcapping", 0, 1e6, &attn, e) ||
        !number(k, "final_logit_softcapping", 0, 1e6, &final, e)) {
        return false;
    }
    m->attn_scale = scale > 0 ? (float)scale : 1 / sqrtf((float)width);  // 0: "not said"
    m->attn_softcap = (float)attn;
    m->final_softcap = (float) final;
    m->embd_scale = a->flags & ARCH_SCALE_EMBD ? sqrtf((float)m->n_embd) : 1;
    return true;
}

/* Which layers are local: by a period, or as an array of booleans says. */
static MUST read_pattern(struct keys *k, const struct arch *a, uint8_t *local, struct err *e) {
    const struct model *m = k->m;
    const char *key = key_of(k, "attention.sliding_window_pattern");
    const struct gguf_kv *kv = gguf_find(k->g, key);
    uint32_t period = a->period;
    if (!kv || kv->type != GGUF_ARRAY) {
        if (!gguf_u32(k->g, key, MODEL_MAX_LAYER, &period, e)) return false;
        for (uint32_t i = 0; i < m->n_layer; i++) local[i] = !period || i % period + 1 < period;
        return true;
    }
    if (!gguf_array(k->g, key, GGUF_BOOL, &kv, e)) return false;
    if (kv->n != m->n_layer) {
        return err_set(e, ERR_FORMAT, "key %s has %" PRIu64 " items for %" PRIu32 " layers", key,
                       kv->n, m->n_layer);
    }
    for (uint32_t i = 0; i < m->n_layer; i++) local[i] = cursor_u8(&k->g->c) != 0;
    return !k->g->c.failed || cursor_err(&k->g->c, key, e);
}

static MUST read_window(struct keys *k, const struct arch *a, uint8_t *local, struct err *e) {
    struct model *m = k->m;
    memset(local, 0, m->n_layer);
    if (!a->period) return true;
    m->window = a->window;
    if (!gguf_u32(k->g, key_of(k, "attention.sliding_window"), UINT32_MAX, &m->window, e)) {
        return false;
    }
    if (!m->window) return true;
    m->rope_base_local = a->local_base;
    return number(k, "rope.freq_base_swa", 1, 1e300, &m->rope_base_local, e) &&
           read_pattern(k, a, local, e);
}

/* YaRN (Peng et al. 2023): where the ramp between the two kinds of scaling lies, and how much longer
 * queries and keys become. */
static MUST read_yarn(struct keys *k, struct err *e) {
    struct model *m = k->m;
    m->yarn_ext = 1;
    m->yarn_beta_fast = 32;
    m->yarn_beta_slow = 1;
    if (!number(k, "rope.scaling.yarn_ext_factor", -1, 1, &m->yarn_ext, e) ||
        !number(k, "rope.scaling.yarn_beta_fast", 1e-3, 1e6, &m->yarn_beta_fast, e) ||
        !number(k, "rope.scaling.yarn_beta_slow", 1e-3, 1e6, &m->yarn_beta_slow, e) ||
        !number(k, "rope.scaling.yarn_log_multiplier", 0, 1e3, &m->yarn_log_mul, e)) {
        return false;
    }
    if (m->yarn_ext < 0) m->yarn_ext = 1;  // "as the type says" in some writers
    if (m->rope_base > 1) return true;
    return err_set(e, ERR_FORMAT, "key %s is %g, which YaRN cannot scale",
                   key_of(k, "rope.freq_base"), m->rope_base);
}

/* Llama 3.1's own: pairs that turn seldom in the training's context are slowed. GGUF files have a tensor
 * of divisors instead; what names this type gives the numbers they come from. */
static MUST read_llama3(struct keys *k, struct err *e) {
    struct model *m = k->m;
    m->rope_low = 1;
    m->rope_high = 4;
    if (!number(k, "rope.scaling.low_freq_factor", 1e-3, 1e6, &m->rope_low, e) ||
        !number(k, "rope.scaling.high_freq_factor", 1e-3, 1e6, &m->rope_high, e)) {
        return false;
    }
    if (m->rope_low < m->rope_high) return true;
    return err_set(e, ERR_FORMAT, "key %s is %g, not below that for high frequencies, %g",
                   key_of(k, "rope.scaling.low_freq_factor"), m->rope_low, m->rope_high);
}

/* Scaling of positions. Without a type, a factor means linear: that is what the key's first writers
 * meant, and other programs follow. */
static MUST read_rope(struct keys *k, struct err *e) {
    static const char *const types[] = {"none", "linear", "yarn", "longrope", "llama3"};
    enum { N_TYPE = sizeof types / sizeof *types };
    struct model *m = k->m;
    const char *type = "linear";
    char shown[64];
    double factor = 1;
    m->rope_factor = m->rope_attn_factor = 1;
    m->n_ctx_orig = m->n_ctx;
    if (!gguf_str(k->g, key_of(k, "rope.scaling.type"), &type, e) ||
        !gguf_f64(k->g, key_of(k, "rope.scale_linear"), &factor, e) ||
        !gguf_f64(k->g, key_of(k, "rope.scaling.factor"), &factor, e) ||
        !gguf_u32(k->g, key_of(k, "rope.scaling.original_context_length"), MODEL_MAX_CTX,
                  &m->n_ctx_orig, e) ||
        !number(k, "rope.scaling.attn_factor", 1e-3, 1e3, &m->rope_attn_factor, e)) {
        return false;
    }
    unsigned i = 0;
    while (i < N_TYPE && strcmp(type, types[i]) != 0) i++;
    if (i == N_TYPE) {
        return err_set(e, ERR_UNSUPPORTED,
                       "rope scaling of type \"%s\" (this version knows none, linear, yarn, "
                       "longrope and llama3)",
                       gguf_show(shown, type));
    }
    m->rope_scaling = (enum rope_scaling)i;
    if (m->rope_scaling == ROPE_NONE) return true;
    if (factor == 0) factor = 1;  // "off" in some writers
    if (!isfinite(factor) || factor < MODEL_LEAST_FACTOR) {
        return err_set(e, ERR_FORMAT, "key %s is %g", key_of(k, "rope.scaling.factor"), factor);
    }
    if (m->rope_scaling == ROPE_LINEAR && factor == 1) m->rope_scaling = ROPE_NONE;
    m->rope_factor = factor;
    if (!m->n_ctx_orig) m->n_ctx_orig = m->n_ctx;
    if (m->rope_scaling == ROPE_LLAMA3) return read_llama3(k, e);
    return m->rope_scaling != ROPE_YARN || read_yarn(k, e);
}

MUST arch_read(struct model *m, const struct arch *a, struct gguf *g, uint8_t *local,
               struct err *e) {
    struct keys k = {.m = m, .g = g};
    m->traits = a->traits;
    return read_scores(&k, a, e) && read_window(&k, a, local, e) && read_rope(&k, e);
}
