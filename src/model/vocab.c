/* The vocabulary as the file has it: lengths checked against each other, texts packed end to end. What
 * the tokens mean is model/tok's business. */
#include "model/gguf.h"
#include "model/pretok.h"

#include <inttypes.h>
#include <string.h>

/* The strings of an array, end to end in *text with bounds in *start [n + 1]. */
static MUST read_strings(struct gguf *g, struct arena *mem, const struct gguf_kv *kv,
                         const char **text, const uint32_t **start, struct err *e) {
    size_t room = kv->bytes - 8 * kv->n, at = 0;
    char *bytes = arena_push(mem, room, 1);
    uint32_t *bound;
    if (!bytes) return err_set(e, ERR_FORMAT, "%s: the file changed while it was read", kv->key);
    if (!arena_array(mem, &bound, kv->n + 1, sizeof *bound, kv->key, e)) return false;
    for (uint64_t i = 0; i < kv->n; i++) {
        uint64_t len = cursor_u64(&g->c);
        bound[i] = (uint32_t)at;
        if (g->c.failed || len > room - at || !cursor_bytes(&g->c, bytes + at, len)) {
            return cursor_err(&g->c, kv->key, e);
        }
        at += len;
    }
    bound[kv->n] = (uint32_t)at;
    *text = bytes;
    *start = bound;
    return true;
}

static MUST same_length(const struct gguf_kv *kv, uint32_t n_token, struct err *e) {
    if (kv->n == n_token) return true;
    return err_set(e, ERR_FORMAT, "%s has %" PRIu64 " items, but there are %" PRIu32 " tokens",
                   kv->key, kv->n, n_token);
}

static MUST read_scores(struct vocab *v, struct gguf *g, struct arena *mem, struct err *e) {
    const struct gguf_kv *kv;
    float *score;
    if (!gguf_array(g, "tokenizer.ggml.scores", GGUF_F32, &kv, e)) return false;
    if (!kv) return true;
    if (!same_length(kv, v->n_token, e)) return false;
    if (!arena_array(mem, &score, v->n_token, sizeof *score, kv->key, e)) return false;
    for (uint32_t i = 0; i < v->n_token; i++) {
        score[i] = cursor_f32(&g->c);
        if (score[i] != score[i]) {  // NaN has no place in an order of merges
            return err_set(e, ERR_FORMAT, "%s: item %" PRIu32 " is not a number", kv->key, i);
        }
    }
    v->score = score;
    return !g->c.failed || cursor_err(&g->c, kv->key, e);
}

static MUST read_types(struct vocab *v, struct gguf *g, struct arena *mem, struct err *e) {
    const char *key = "tokenizer.ggml.token_type";
    const struct gguf_kv *kv = gguf_find(g, key);
    uint8_t *type;
    /* Both signs are found in the wild; the values are 1 to 6. */
    bool is_u32 = kv && kv->type == GGUF_ARRAY && kv->elem == GGUF_U32;
    if (!gguf_array(g, key, is_u32 ? GGUF_U32 : GGUF_I32, &kv, e)) return false;
    if (kv && !same_length(kv, v->n_token, e)) return false;
    if (!arena_array(mem, &type, v->n_token, 1, key, e)) return false;
    for (uint32_t i = 0; i < v->n_token; i++) {
        uint32_t t = kv ? cursor_u32(&g->c) : TOKEN_NORMAL;
        type[i] = (uint8_t)(t >= TOKEN_NORMAL && t <= TOKEN_BYTE ? t : TOKEN_NORMAL);
    }
    v->type = type;
    return !g->c.failed || cursor_err(&g->c, key, e);
}

static MUST read_merges(struct vocab *v, struct gguf *g, struct arena *mem, struct err *e) {
    const struct gguf_kv *kv;
    if (!gguf_array(g, "tokenizer.ggml.merges", GGUF_STRING, &kv, e)) return false;
    if (!kv || !kv->n) {
        return err_set(e, ERR_FORMAT,
                       "the vocabulary merges by rank (%s), but the file has no "
                       "tokenizer.ggml.merges",
                       v->kind);
    }
    v->n_merge = (uint32_t)kv->n;
    return read_strings(g, mem, kv, &v->merge_text, &v->merge, e);
}

/* A token's id; one that names no token counts as absent, as in other programs. */
static MUST read_id(const struct vocab *v, const struct gguf *g, const char *key, int32_t fallback,
                    int32_t *id, struct err *e) {
    uint64_t bits = (uint64_t)(int64_t)fallback;
    if (!gguf_int(g, key, &bits, e)) return false;
    *id = bits < v->n_token ? (int32_t)bits : -1;
    return true;
}

static MUST read_ids(struct vocab *v, const struct gguf *g, bool spm, struct err *e) {
    return read_id(v, g, "tokenizer.ggml.bos_token_id", spm ? 1 : -1, &v->bos, e) &&
           read_id(v, g, "tokenizer.ggml.eos_token_id", spm ? 2 : -1, &v->eos, e) &&
           read_id(v, g, "tokenizer.ggml.eot_token_id", -1, &v->eot, e) &&
           read_id(v, g, "tokenizer.ggml.eom_token_id", -1, &v->eom, e) &&
           read_id(v, g, "tokenizer.ggml.unknown_token_id", spm ? 0 : -1, &v->unk, e);
}

/* Where the file does not say: SentencePiece vocabularies and llama 3's begin a text with BOS. */
static bool bos_by_default(const struct vocab *v, bool spm) {
    struct pretok pre;
    return spm || (pretok_find(&pre, v->pre) && pre.bos);
}

MUST vocab_read(struct vocab *v, struct gguf *g, struct arena *mem, struct err *e) {
    const struct gguf_kv *kv;
    char shown[64];
    *v = (struct vocab){
        .kind = "", .pre = "", .bos = -1, .eos = -1, .eot = -1, .eom = -1, .unk = -1};
    if (!gguf_str(g, "tokenizer.ggml.model", &v->kind, e) ||
        !gguf_str(g, "tokenizer.ggml.pre", &v->pre, e)) {
        return false;
    }
    bool spm = !strcmp(v->kind, "llama"), gemma4 = !strcmp(v->kind, "gemma4");
    if (!spm && !gemma4 && strcmp(v->kind, "gpt2") != 0) {
        if (!*v->kind)
            return err_set(e, ERR_FORMAT,
                           "the file has no vocabulary "
                           "(key tokenizer.ggml.model is missing)");
        return err_set(e, ERR_UNSUPPORTED,
                       "vocabulary of kind \"%s\" (this version knows llama, gpt2 and "
                       "gemma4)",
                       gguf_show(shown, v->kind));
    }
    if (gemma4) v->pre = v->kind;
    if (!gguf_array(g, "tokenizer.ggml.tokens", GGUF_STRING, &kv, e)) return false;
    if (!kv || !kv->n) {
        return err_set(e, ERR_FORMAT,
                       "the vocabulary has no tokens (key tokenizer.ggml.tokens is %s)",
                       kv ? "empty" : "missing");
    }
    if (kv->n > MODEL_MAX_VOCAB) {
        return err_set(e, ERR_LIMIT, "%s has %" PRIu64 " items (at most %d)", kv->key, kv->n,
                       MODEL_MAX_VOCAB);
    }
    if (!read_strings(g, mem, kv, &v->text, &v->start, e)) return false;
    v->n_token = (uint32_t)kv->n;
    if (!read_scores(v, g, mem, e) || !read_types(v, g, mem, e)) return false;
    if (!spm && !read_merges(v, g, mem, e)) return false;
    v->add_bos = bos_by_default(v, spm);
    v->add_space_prefix = spm;
    if (!read_ids(v, g, spm, e) || !gguf_bool(g, "tokenizer.ggml.add_bos_token", &v->add_bos, e) ||
        !gguf_bool(g, "tokenizer.ggml.add_eos_token", &v->add_eos, e) ||
        !gguf_bool(g, "tokenizer.ggml.add_space_prefix", &v->add_space_prefix, e)) {
        return false;
    }
    if (gemma4) v->add_bos = true;  // its first files say no, but without it models babble
    return true;
}
