/* The vocabulary of a .t: for each token a score and its bytes as they stand in text. A token merges from
 * two others, the best score first, over the whole text; tokens from BOS on are not made by merging. */
#include "model/dllama.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    MAGIC = 0x567124,
    MAGIC_OLD = 0x567123,
    TOKEN_LEAST = 8,       // bytes of a token in the file: score and length
    END_MOST = 64,         // end tokens
    MISSING_PART = 16,     // of the model's tokens, at most one in so many may have no text
    TABLE_ALIGN = 6 * 64,  // for the tables pushed
};

enum field {
    F_VERSION,
    F_VOCAB,
    F_LONGEST,
    F_BOS,
    F_EOS,
    F_PAD,
    F_CHAT_EOS,
    F_TEMPLATE,
    F_CHAT_STOP,
    F_ENDS,
    F_ADD_BOS,
    N_FIELD
};

static const struct dllama_field fields[N_FIELD] = {
    [F_VERSION] = {"version", 1, 1, DLLAMA_NEEDED},
    [F_VOCAB] = {"vocab_size", 1, MODEL_MAX_VOCAB, DLLAMA_NEEDED},
    [F_LONGEST] = {"max_token_length", 0, INT32_MAX, 0},
    [F_BOS] = {"bos_id", 0, MODEL_MAX_VOCAB, DLLAMA_NEEDED},
    [F_EOS] = {"eos_id", -1, MODEL_MAX_VOCAB, -1},
    [F_PAD] = {"pad_id", -1, MODEL_MAX_VOCAB, -1},
    [F_CHAT_EOS] = {"chat_eos_id", -1, MODEL_MAX_VOCAB, -1},
    [F_TEMPLATE] = {"chat_template", 0, MODEL_MAX_META, 0},
    [F_CHAT_STOP] = {"chat_stop", 0, MODEL_MAX_META, 0},
    [F_ENDS] = {"n_eos_tokens", 0, END_MOST, 0},
    [F_ADD_BOS] = {"add_bos", 0, 1, 1},
};

/* --- finding it --- */

static bool is_tok(const char *name) {
    size_t n = strlen(name);
    return n > 2 && name[0] != '.' && !strcmp(name + n - 2, ".t");
}

/* The only .t of a folder; *n: how many there are. */
static MUST look(const char *dir, char *found, size_t cap, uint32_t *n, struct err *e) {
    const struct dirent *d;
    *n = 0;
    DIR *at = opendir(dir);
    if (!at) return err_sys(e, "cannot look for its tokenizer in its folder");
    while ((d = readdir(at))) {
        if (is_tok(d->d_name) && !(*n)++) snprintf(found, cap, "%s/%s", dir, d->d_name);
    }
    closedir(at);
    return true;
}

/* The .t beside a .m, of its name or the only one. */
static MUST find(const char *model, char *out, size_t cap, struct err *e) {
    static const char remedy[] = "give it by --tokenizer FILE.t";
    const char *slash = strrchr(model, '/');
    size_t stem = strlen(model), n_dir = slash ? (size_t)(slash - model) : 0;
    char dir[4096] = ".";
    uint32_t n;
    if (stem > 2 && !strcmp(model + stem - 2, ".m")) stem -= 2;
    if (stem + 3 > cap || n_dir >= sizeof dir) {
        return err_set(e, ERR_LIMIT, "a path of %zu bytes", strlen(model));
    }
    snprintf(out, cap, "%.*s.t", (int)stem, model);
    if (access(out, F_OK) == 0) return true;
    if (slash) snprintf(dir, sizeof dir, "%.*s", n_dir ? (int)n_dir : 1, model);
    if (!look(dir, out, cap, &n, e)) return false;
    if (n == 1) return true;
    if (!n) {
        return err_set(e, ERR_UNSUPPORTED,
                       "its tokenizer, a .t file, is not beside it: put it there, or %s", remedy);
    }
    return err_set(e, ERR_UNSUPPORTED,
                   "%" PRIu32 " tokenizers (.t) are beside it, none of its name: %s", n, remedy);
}

/* --- the header --- */

static MUST take_header(struct dllama_tok *t, const int32_t *v, struct err *e) {
    t->n_token = (uint32_t)v[F_VOCAB];
    t->bos = v[F_BOS];
    t->end[0] = v[F_EOS];
    t->end[1] = v[F_CHAT_EOS];
    t->n_template = (uint32_t)v[F_TEMPLATE];
    t->n_skip = (uint32_t)v[F_CHAT_STOP];
    t->n_more = (uint32_t)v[F_ENDS];
    t->add_bos = v[F_ADD_BOS];
    if (v[F_BOS] >= v[F_VOCAB]) {
        return err_set(e, ERR_FORMAT, "bos_id is %" PRId32 ", but there are %" PRId32 " tokens",
                       v[F_BOS], v[F_VOCAB]);
    }
    uint64_t least =
        (uint64_t)t->n_template + t->n_skip + 4ULL * t->n_more + (uint64_t)t->n_token * TOKEN_LEAST;
    if (least <= cursor_left(&t->c)) return true;
    return err_set(e, ERR_FORMAT,
                   "the header claims %" PRIu32 " tokens and a template of %" PRIu32
                   " bytes, which the file's %" PRIu64 " bytes do not hold",
                   t->n_token, t->n_template, t->file.len);
}

/* The old header has no keys: tokens, longest token, BOS, EOS, padding. */
static void read_old(struct cursor *c, int32_t *v) {
    static const uint8_t order[] = {F_VOCAB, F_LONGEST, F_BOS, F_EOS, F_PAD};
    for (uint32_t i = 0; i < N_FIELD; i++) v[i] = fields[i].otherwise;
    for (size_t i = 0; i < sizeof order; i++) v[order[i]] = (int32_t)cursor_u32(c);
}

static MUST read_header(struct dllama_tok *t, struct err *e) {
    struct cursor *c = &t->c;
    int32_t v[N_FIELD];
    uint32_t magic = cursor_u32(c);
    if (c->failed) return cursor_err(c, "header", e);
    if (magic == MAGIC) return dllama_fields(c, fields, N_FIELD, v, e) && take_header(t, v, e);
    if (magic != MAGIC_OLD) {
        return err_set(e, ERR_FORMAT,
                       "not a tokenizer of distributed-llama (.t): it starts with 0x%08" PRIx32,
                       magic);
    }
    read_old(c, v);
    if (c->failed) return cursor_err(c, "header", e);
    for (uint32_t i = F_VOCAB; i <= F_PAD; i++) {
        if (v[i] >= fields[i].least && v[i] <= fields[i].most) continue;
        return err_set(e, ERR_FORMAT, "the header's %s is %" PRId32, fields[i].name, v[i]);
    }
    return take_header(t, v, e);
}

static MUST open_path(struct dllama_tok *t, uint8_t *window, struct err *e) {
    t->file = (struct model_file){.path = t->path};
    if (!gguf_open_file(t->path, 0, &t->file.len, &t->fd, e)) return false;
    if (t->file.len > MODEL_MAX_META) {
        return err_set(e, ERR_LIMIT, "%" PRIu64 " bytes of vocabulary (at most %d)", t->file.len,
                       MODEL_MAX_META);
    }
    t->file.meta_len = t->file.data_off = t->file.len;
    cursor_file(&t->c, t->fd, 0, t->file.len, window);
    return read_header(t, e);
}

MUST dllama_tok_open(struct dllama_tok *t, const char *model, const char *path, uint8_t *window,
                     struct err *e) {
    char found[4096 + 256];
    *t = (struct dllama_tok){.fd = -1};
    if (!path && !find(model, found, sizeof found, e)) return false;
    t->path = strdup(path ? path : found);
    if (!t->path) return err_set(e, ERR_MEMORY, "no memory for the tokenizer's path");
    return open_path(t, window, e) || err_in_file(e, t->path);
}

void dllama_tok_close(struct dllama_tok *t) {
    if (t->fd >= 0) close(t->fd);
    free(t->path);
    *t = (struct dllama_tok){.fd = -1};
}

/* --- the tokens --- */

static uint32_t rows_of(const struct dllama_tok *t, uint32_t n_row) {
    return n_row > t->n_token ? n_row : t->n_token;
}

size_t dllama_tok_room(const struct dllama_tok *t, uint32_t n_row) {
    /* Text bytes are those of the file; a bound, a score and a type for each token; the ends. */
    return (size_t)t->file.len + ((size_t)rows_of(t, n_row) + 1) * (4 + 4 + 1) +
           (END_MOST + 2) * sizeof(int32_t) + TABLE_ALIGN;
}

static MUST read_template(struct dllama_tok *t, struct arena *mem, const char **out,
                          struct err *e) {
    char *text;
    if (!arena_array(mem, &text, (size_t)t->n_template + 1, 1, "chat template", e)) return false;
    if (!cursor_bytes(&t->c, text, t->n_template)) return cursor_err(&t->c, "chat_template", e);
    *out = text;
    return cursor_skip(&t->c, t->n_skip) || cursor_err(&t->c, "chat_stop", e);
}

/* The end tokens, those of the list first: its first is the one that templates mean by eos_token. */
static MUST read_ends(struct dllama_tok *t, struct arena *mem, struct vocab *v, struct err *e) {
    int32_t *end;
    if (!arena_array(mem, &end, END_MOST + 2, sizeof *end, "end tokens", e)) return false;
    for (uint32_t i = 0; i < t->n_more + 2; i++) {
        int32_t id = i < t->n_more ? (int32_t)cursor_u32(&t->c) : t->end[i - t->n_more];
        if (id == -1) continue;
        if (id < 0 || (uint32_t)id >= t->n_token) {
            return err_set(e, ERR_FORMAT, "end token %" PRId32 " is none of the %" PRIu32 " tokens",
                           id, t->n_token);
        }
        end[v->n_end++] = id;
    }
    v->end = end;
    if (v->n_end) v->eos = end[0];
    return !t->c.failed || cursor_err(&t->c, "end tokens", e);
}

/* Texts and scores; rows of the model beyond the last token have none. */
static MUST read_texts(struct dllama_tok *t, struct arena *mem, struct vocab *v, struct err *e) {
    struct cursor *c = &t->c;
    size_t room = (size_t)cursor_left(c) - (size_t)t->n_token * TOKEN_LEAST, at = 0;
    char *text;
    uint32_t *start;
    float *score;
    if (!arena_array(mem, &text, room, 1, "token texts", e) ||
        !arena_array(mem, &start, v->n_token + 1, sizeof *start, "token texts", e) ||
        !arena_array(mem, &score, v->n_token, sizeof *score, "token scores", e)) {
        return false;
    }
    for (uint32_t i = 0; i < t->n_token; i++) {
        score[i] = cursor_f32(c);
        uint32_t len = cursor_u32(c);
        start[i] = (uint32_t)at;
        if (c->failed || len > room - at || !cursor_bytes(c, text + at, len)) {
            return err_set(e, ERR_FORMAT,
                           "token %" PRIu32 " of %" PRIu32 ", of %" PRIu32
                           " bytes, goes past the end of the file",
                           i, t->n_token, len);
        }
        if (score[i] != score[i]) {  // it has no place in an order of merges
            return err_set(e, ERR_FORMAT, "the score of token %" PRIu32 " is not a number", i);
        }
        at += len;
    }
    for (uint32_t i = t->n_token; i <= v->n_token; i++) start[i] = (uint32_t)at;
    v->text = text;
    v->start = start;
    v->score = score;
    if (!cursor_left(c)) return true;
    return err_set(e, ERR_FORMAT, "%" PRIu64 " bytes follow the last token", cursor_left(c));
}

/* Tokens from BOS on that models write and programs read, as their own tokenizers tell them apart. */
static bool is_written(const char *s, size_t len) {
    static const char *const names[] = {"<think>",      "</think>",        "<tool_call>",
                                        "</tool_call>", "<tool_response>", "</tool_response>"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (len == strlen(names[i]) && !memcmp(s, names[i], len)) return true;
    }
    return false;
}

/* Regular tokens stand before BOS, special ones from it on. SentencePiece's own order has BOS in front;
 * then it and the ends are all that is known to be special. */
static MUST make_types(const struct dllama_tok *t, struct arena *mem, struct vocab *v,
                       struct err *e) {
    bool is_front = (uint32_t)t->bos < t->n_token / 2;
    uint8_t *type;
    if (!arena_array(mem, &type, v->n_token, 1, "token types", e)) return false;
    for (uint32_t i = 0; i < v->n_token; i++) {
        uint32_t len = v->start[i + 1] - v->start[i];
        bool is_special = i >= (uint32_t)t->bos && !is_front;
        type[i] = i >= t->n_token                          ? TOKEN_UNUSED
                  : !is_special                            ? TOKEN_NORMAL
                  : is_written(v->text + v->start[i], len) ? TOKEN_USER
                                                           : TOKEN_CONTROL;
    }
    type[t->bos] = TOKEN_CONTROL;
    for (uint32_t i = 0; i < v->n_end; i++) type[v->end[i]] = TOKEN_CONTROL;
    v->type = type;
    return true;
}

MUST dllama_tok_read(struct dllama_tok *t, struct arena *mem, uint32_t n_row, const char **template,
                     struct vocab *v, struct err *e) {
    *v = (struct vocab){.kind = "dllama",
                        .pre = "",
                        .n_token = n_row,
                        .bos = t->bos,
                        .eos = -1,
                        .eot = -1,
                        .eom = -1,
                        .unk = -1,
                        .add_bos = t->add_bos};
    if (t->n_token > n_row || n_row - t->n_token > n_row / MISSING_PART) {
        return err_set(e, ERR_FORMAT,
                       "%" PRIu32 " tokens, but the model has %" PRIu32
                       ": the tokenizer of another one?",
                       t->n_token, n_row);
    }
    return read_template(t, mem, template, e) && read_ends(t, mem, v, e) &&
           read_texts(t, mem, v, e) && make_types(t, mem, v, e);
}
