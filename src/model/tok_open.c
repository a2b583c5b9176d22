/* Building a tokenizer's tables from the vocabulary of a model file. */
#include "model/gguf.h"
#include "model/tok_tables.h"

#include <string.h>

/* Names by which models end a turn or a text. Files mark some of them as ordinary text, which would
 * let them leak into answers; by these names they are control tokens. */
static const char *const end_names[] = {
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|end_of_text|>",
    "<|eom_id|>",
    "<|endoftext|>",
    "<end_of_turn>",
    "<turn|>",
    "<|return|>",
    "<|call|>",
    "<|calls|>",
    "<|flush|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "<end_of_utterance>",
    "[EOS]",
    "<|END_OF_TURN_TOKEN|>",
    "<｜end▁of▁sentence｜>",
    "<eos>",
    "<|tool_response>",
    "[e~[",
    /* Padding, and what begins the next file when a model fills in code. */
    "<|fim_pad|>",
    "<fim-pad>",
    "<fim_pad>",
    "<PAD>",
    "[PAD]",
    "<|fim_repo|>",
    "<|repo_name|>",
    "<fim-repo>",
    "<REPO>",
    "<reponame>",
    "<|file_sep|>",
};

/* Names of the marks around a gap that a model fills in. Files call some of them ordinary words, and
 * what a user writes would become them. */
static const char *const gap_names[] = {
    "<|fim_prefix|>", "<fim-prefix>",    "<fim_prefix>",    "<｜fim▁begin｜>", "<PRE>",
    "▁<PRE>",         "<|code_prefix|>", "<|prefix|>",      "<|fim_suffix|>",  "<fim-suffix>",
    "<fim_suffix>",   "<｜fim▁hole｜>",  "<SUF>",           "▁<SUF>",          "<|code_suffix|>",
    "<|suffix|>",     "<|fim_middle|>",  "<fim-middle>",    "<fim_middle>",    "<｜fim▁end｜>",
    "<MID>",          "▁<MID>",          "<|code_middle|>", "<|middle|>",
};

static void mark_end(struct tok *t, int32_t id) {
    if (id >= 0) t->attr[id] |= ATTR_END;
}

/* One that the file may have called a word. */
static void mark_control(struct tok *t, int32_t id) {
    if (id >= 0) t->attr[id] = (uint8_t)((t->attr[id] & ~ATTR_TYPE) | TOKEN_CONTROL);
}

static void mark_control_end(struct tok *t, int32_t id) {
    mark_control(t, id);
    mark_end(t, id);
}

static int32_t in_range(const struct vocab *v, int32_t id) {
    return id >= 0 && (uint32_t)id < v->n_token ? id : -1;
}

static int32_t find_name(const struct tok *t, const char *name) {
    return tok_find(t, name, strlen(name));
}

static bool has_name(const struct tok *t, const char *name) {
    return find_name(t, name) >= 0;
}

/* In harmony (gpt-oss, Solar) <|end|> ends one message of several, whatever the file says of it; the answer
 * ends with others. */
static void keep_messages(struct tok *t) {
    int32_t message = find_name(t, "<|end|>");
    if (message < 0 || !(has_name(t, "<|call|>") || has_name(t, "<|calls|>"))) return;
    if (has_name(t, "<|return|>") || has_name(t, "<|flush|>")) {
        t->attr[message] &= (uint8_t)~ATTR_END;
    }
}

static void mark_names(struct tok *t, const struct vocab *v) {
    for (size_t i = 0; i < sizeof end_names / sizeof *end_names; i++) {
        mark_control_end(t, find_name(t, end_names[i]));
    }
    for (size_t i = 0; i < sizeof gap_names / sizeof *gap_names; i++) {
        mark_control(t, find_name(t, gap_names[i]));
    }
    /* SentencePiece's own is one of its first three tokens; another is an HTML tag. */
    int32_t s = find_name(t, "</s>");
    if (s < 3) mark_control_end(t, s);
    mark_end(t, t->eos);
    mark_end(t, in_range(v, v->eot));
    mark_end(t, in_range(v, v->eom));
    keep_messages(t);
    for (uint32_t i = 0; i < v->n_end; i++) mark_end(t, in_range(v, v->end[i]));
}

/* Phi-3 drops white space after its control tokens, three excepted. Its file does not say so; we know
 * it by the names of its tokens. */
static void mark_strips(struct tok *t) {
    static const char *const known[] = {"<|placeholder1|>", "<|assistant|>", "<|end|>", "<|user|>"};
    static const char *const except[] = {"<unk>", "<s>", "<|endoftext|>"};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        int32_t id = find_name(t, known[i]);
        if (id < 0 || (t->attr[id] & ATTR_TYPE) != TOKEN_CONTROL) return;
    }
    for (uint32_t i = 0; i < t->n_token; i++) {
        if (tok_is_special(t, (int32_t)i)) t->attr[i] |= ATTR_STRIP;
    }
    for (size_t i = 0; i < sizeof except / sizeof *except; i++) {
        int32_t id = find_name(t, except[i]);
        if (id >= 0) t->attr[id] &= (uint8_t)~ATTR_STRIP;
    }
}

static MUST insert(struct tok *t, uint32_t id, struct err *e) {
    enum { PROBE_MAX = 4096 };  // never reached unless a file is made to collide
    const char *s = t->text + t->start[id];
    size_t len = t->start[id + 1] - t->start[id];
    if (!len) return true;
    uint32_t tag = tok_hash(s, len), i = tag & t->slot_mask;
    for (int probe = 0; probe < PROBE_MAX; probe++, i = (i + 1) & t->slot_mask) {
        struct token_slot *slot = &t->slot[i];
        if (!slot->id1) {
            *slot = (struct token_slot){tag, (int32_t)id + 1};
            return true;
        }
        uint32_t at = t->start[slot->id1 - 1];
        if (slot->tag == tag && t->start[slot->id1] - at == len && !memcmp(t->text + at, s, len)) {
            return true;  // of two tokens with one text the first is found
        }
    }
    return err_set(e, ERR_FORMAT, "the vocabulary's texts collide");
}

/* Texts, attributes and the hash. */
static MUST build_texts(struct tok *t, const struct vocab *v, struct err *e) {
    uint32_t n = v->n_token, slots = 1;
    while (slots < n + n / 2 + 1) slots *= 2;
    t->slot_mask = slots - 1;
    char *text;
    uint32_t *start;
    if (!arena_array(&t->mem, &text, v->start[n], 1, "token texts", e)) return false;
    if (!arena_array(&t->mem, &start, n + 1, sizeof *start, "token texts", e)) return false;
    if (!arena_array(&t->mem, &t->attr, n, 1, "token attributes", e)) return false;
    if (!arena_array(&t->mem, &t->slot, slots, sizeof *t->slot, "tokens", e)) return false;
    if (v->start[n]) memcpy(text, v->text, v->start[n]);
    memcpy(start, v->start, (n + 1) * sizeof *start);
    t->text = text;
    t->start = start;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t len = start[i + 1] - start[i];
        if (len > TOKEN_MAX) {
            return err_set(e, ERR_LIMIT, "token %u is %u bytes long, the limit is %d", i, len,
                           TOKEN_MAX);
        }
        if (len > t->longest) t->longest = len;
        uint8_t type = v->type[i];
        t->attr[i] = type >= TOKEN_NORMAL && type <= TOKEN_BYTE ? type : TOKEN_NORMAL;
        if (!insert(t, i, e)) return false;
    }
    return true;
}

static int hex_digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* "<0x0A>" to its byte; anything else stays as it is. */
static size_t byte_piece(const char *s, size_t len, char *out) {
    if (len == 6 && !memcmp(s, "<0x", 3) && s[5] == '>') {
        int hi = hex_digit(s[3]), lo = hex_digit(s[4]);
        if (hi >= 0 && lo >= 0) {
            *out = (char)(hi << 4 | lo);
            return 1;
        }
    }
    memcpy(out, s, len);
    return len;
}

static size_t spm_piece(const char *s, size_t len, char *out) {
    size_t n = 0;
    for (size_t i = 0; i < len;) {
        if (len - i >= 3 && !memcmp(s + i, "\xe2\x96\x81", 3)) {
            out[n++] = ' ';
            i += 3;
        } else {
            out[n++] = s[i++];
        }
    }
    return n;
}

/* Token id as it stands in text, to out; never longer than its spelling. */
static size_t make_piece(struct tok *t, uint32_t id, char *out) {
    const char *s = t->text + t->start[id];
    size_t len = t->start[id + 1] - t->start[id];
    switch (t->attr[id] & ATTR_TYPE) {
    case TOKEN_NORMAL:
    case TOKEN_UNUSED:
        if (t->byte_letters) {
            int64_t n = bpe_unspell(s, len, out);
            if (n >= 0) return (size_t)n;
            t->attr[id] |= ATTR_ALIEN;
            break;
        }
        if (!t->marks) break;
        return spm_piece(s, len, out);
    case TOKEN_BYTE: return byte_piece(s, len, out);
    default: break;
    }
    memcpy(out, s, len);
    return len;
}

static MUST build_pieces(struct tok *t, struct err *e) {
    char *piece;
    uint32_t *start;
    if (!arena_array(&t->mem, &piece, t->start[t->n_token], 1, "token texts", e)) return false;
    if (!arena_array(&t->mem, &start, t->n_token + 1, sizeof *start, "token texts", e))
        return false;
    uint32_t at = 0;
    for (uint32_t i = 0; i < t->n_token; i++) {
        start[i] = at;
        at += (uint32_t)make_piece(t, i, piece + at);
    }
    start[t->n_token] = at;
    t->piece = piece;
    t->piece_start = start;
    return true;
}

/* </s> of a byte-level vocabulary is a word where the tag in a text becomes it; else it was put in to
 * end texts. Before special_build. */
static MUST mark_tag(struct tok *t, struct err *e) {
    int32_t id = find_name(t, "</s>"), out[4];
    struct encoder en = {.t = t, .out = out, .cap = sizeof out / sizeof *out};
    if (id < 0) return true;
    bool ok = bpe_encode(&en, "</s>", 4, e);
    if (ok && (en.n != 1 || out[0] != id)) mark_control_end(t, id);
    encoder_free(&en);
    return ok;
}

static MUST build(struct tok *t, const struct vocab *v, struct err *e) {
    t->n_token = v->n_token;
    t->bos = in_range(v, v->bos);
    t->eos = in_range(v, v->eos);
    t->unk = in_range(v, v->unk);
    t->add_bos = v->add_bos;
    t->add_eos = v->add_eos;
    t->space_prefix = v->add_space_prefix && t->kind == TOK_SPM;
    t->byte_letters = t->kind == TOK_BPE && !t->pre.marks;
    t->marks = t->kind == TOK_SPM || t->pre.marks;
    if (!build_texts(t, v, e)) return false;
    mark_names(t, v);
    if (t->kind == TOK_SPM) mark_strips(t);
    if (!t->byte_letters) spm_mark_bytes(t);
    if (!build_pieces(t, e)) return false;
    if (t->kind != TOK_BPE) return spm_build(t, v, e) && special_build(t, e);
    return bpe_build(t, v, e) && (t->marks || mark_tag(t, e)) && special_build(t, e);
}

static MUST choose_kind(const struct vocab *v, enum tok_kind *kind, struct err *e) {
    static const struct {
        const char *name;
        enum tok_kind kind;
    } known[] = {{"llama", TOK_SPM}, {"gpt2", TOK_BPE}, {"gemma4", TOK_BPE}, {"dllama", TOK_PLAIN}};
    char shown[64];
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        *kind = known[i].kind;
        if (!strcmp(v->kind, known[i].name)) return true;
    }
    return err_set(e, ERR_UNSUPPORTED, "tokenizer kind \"%s\" is not supported",
                   gguf_show(shown, v->kind));
}

static MUST choose_pretok(const struct vocab *v, struct pretok *pre, struct err *e) {
    char shown[64];
    bool is_known = pretok_find(pre, v->pre[0] ? v->pre : PRETOK_UNKNOWN);
    if (is_known && pre->marks && strcmp(v->kind, "gemma4") != 0) {
        return err_set(
            e, ERR_UNSUPPORTED,
            "pre-tokenizer \"%s\" is only for vocabularies of kind \"gemma4\", and this one "
            "is of kind \"%s\"; convert the model again with a current converter",
            gguf_show(shown, v->pre), v->kind);
    }
    if (is_known) return true;
    return err_set(e, ERR_UNSUPPORTED,
                   "pre-tokenizer \"%s\" is not one of the %zu that this version knows; with "
                   "another one the model would be given words cut in a way it has not learnt",
                   gguf_show(shown, v->pre), pretok_count());
}

const char *tok_note(const struct tok *t) {
    if (t->kind != TOK_BPE || t->pre.cut != PRETOK_DEFAULT) return NULL;
    return "the file does not say how its text is cut into words (tokenizer.ggml.pre), so the default "
           "cut is used; if answers are poor, convert the model again with a current converter";
}

MUST tok_open(struct tok **t, const struct vocab *v, struct err *e) {
    enum { MERGE_MAX = 4 * MODEL_MAX_VOCAB };
    enum tok_kind kind;
    struct pretok pre = {0};
    *t = NULL;
    if (!choose_kind(v, &kind, e)) return false;
    if (kind == TOK_BPE && !choose_pretok(v, &pre, e)) return false;
    if (!v->n_token || v->n_token > MODEL_MAX_VOCAB || v->n_merge > MERGE_MAX) {
        return err_set(e, ERR_LIMIT,
                       "the vocabulary has %u tokens and %u merges, the limits are "
                       "%d and %d",
                       v->n_token, v->n_merge, MODEL_MAX_VOCAB, MERGE_MAX);
    }
    /* Two spellings of every text; 37 bytes a token for the tables, 8 + 16 more with rounding to
     * powers of two, and all may be special; 16 bytes a merge, at most three places each. Unused room
     * costs no memory. */
    size_t cap = 2 * (size_t)v->start[v->n_token] +
                 (64 + sizeof(struct special)) * ((size_t)v->n_token + 64) +
                 48 * ((size_t)v->n_merge + 1) + sizeof(struct tok) + 4096;
    struct arena mem;
    if (!arena_open(&mem, "tokenizer", cap, e)) return false;
    struct tok *made = arena_push(&mem, sizeof *made, 64);
    if (!made) {
        arena_close(&mem);
        return err_set(e, ERR_MEMORY, "tokenizer: no room");
    }
    *made = (struct tok){.mem = mem, .kind = kind, .pre = pre};
    if (!build(made, v, e)) {
        tok_close(made);
        return false;
    }
    *t = made;
    return true;
}

void tok_close(struct tok *t) {
    if (!t) return;
    struct arena mem = t->mem;  // the struct lies in it
    arena_close(&mem);
}
