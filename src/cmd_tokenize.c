/* cmd_tokenize.c - text to token ids and back. */
#include "setup_show.h"
#include "verbs.h"

#include <stdlib.h>
#include <string.h>

enum { TEXT_MOST = 256 << 20 };

struct text_conf {
    const char *tokenizer, *text;
    bool is_special, is_bos, is_json;
};

#define AT(field) offsetof(struct text_conf, field)
static const struct opt tokenize_opt[] = {
    {"-p", OPT_TEXT, AT(text), "TEXT", "the text (else standard input, all of it)", 0, 0},
    TOKENIZER_OPTION(struct text_conf),
    {"--special", OPT_FLAG, AT(is_special), NULL,
     "control tokens written in the text count as such", 0, 0},
    {"--bos", OPT_FLAG, AT(is_bos), NULL,
     "put start and end tokens around it, if the model wants them", 0, 0},
    {"--json", OPT_FLAG, AT(is_json), NULL, "one JSON object: ids, count", 0, 0},
};

static const struct opt detokenize_opt[] = {
    {"-p", OPT_TEXT, AT(text), "IDS", "the ids (else standard input, all of it)", 0, 0},
    TOKENIZER_OPTION(struct text_conf),
    {"--special", OPT_FLAG, AT(is_special), NULL, "show control tokens too", 0, 0},
    {"--json", OPT_FLAG, AT(is_json), NULL, "one JSON object: text", 0, 0},
};

/* What the two verbs work on. */
struct input {
    const char *text;
    size_t len;
    char *owned;
};

static MUST read_input(const struct text_conf *c, struct input *in, struct err *e) {
    if (c->text) {
        *in = (struct input){.text = c->text, .len = strlen(c->text)};
        return true;
    }
    if (!verb_read_all("-", TEXT_MOST, &in->owned, &in->len, e)) return false;
    in->text = in->owned;
    return true;
}

static void print_ids(const int32_t *id, size_t n, bool is_json) {
    struct json j;
    if (!is_json) {
        for (size_t i = 0; i < n; i++) printf("%s%d", i ? " " : "", id[i]);
        printf("\n");
        return;
    }
    json_file(&j, stdout);
    json_object(&j);
    json_key(&j, "ids");
    json_array(&j);
    for (size_t i = 0; i < n; i++) json_i64(&j, id[i]);
    json_end(&j);
    json_put_u64(&j, "count", n);
    json_end(&j);
    json_line(&j);
}

static MUST tokenize(const struct text_conf *c, const struct tok *t, const struct input *in,
                     struct err *e) {
    size_t cap = tok_bound(in->len) + 2, n;  // and BOS and EOS
    int32_t *id = malloc(cap * sizeof *id);
    if (!id) return err_set(e, ERR_MEMORY, "no memory for the ids of %zu bytes", in->len);
    unsigned flags = (c->is_bos ? TOK_BOS | TOK_EOS : 0U) | (c->is_special ? TOK_SPECIAL : 0U);
    bool ok = tok_encode(t, in->text, in->len, flags, id, cap, &n, e);
    if (ok) print_ids(id, n, c->is_json);
    free(id);
    return ok;
}

/* The next id of the input; commas and brackets count as blanks, so that JSON lists work too.
 * *has is false at the end. Fails: ERR_FORMAT, ERR_LIMIT. */
static MUST next_id(const struct input *in, size_t *at, uint32_t count, int32_t *id, bool *has,
                    struct err *e) {
    static const char blank[] = " \t\r\n,[]";
    while (*at < in->len && in->text[*at] && strchr(blank, in->text[*at])) (*at)++;
    *has = *at < in->len;
    if (!*has) return true;
    char word[24] = "";
    size_t n = 0;
    uint64_t v;
    while (*at < in->len && in->text[*at] && !strchr(blank, in->text[*at]) && n + 1 < sizeof word) {
        word[n++] = in->text[(*at)++];
    }
    if (!text_u64(word, &v)) return err_set(e, ERR_FORMAT, "\"%s\" is not a token id", word);
    if (v >= count) {
        return err_set(e, ERR_FORMAT, "there is no token %s: the vocabulary has %u", word, count);
    }
    *id = (int32_t)v;
    return true;
}

/* One pass over the ids; with json == NULL to stdout as it comes. */
static MUST detokenize(const struct text_conf *c, const struct tok *t, const struct input *in,
                       struct err *e) {
    size_t room = tok_longest(t) + 64, len = 0, at = 0;
    char *piece = malloc(room), *all = NULL;
    FILE *to = c->is_json ? open_memstream(&all, &len) : stdout;
    bool ok = (piece && to) || err_set(e, ERR_MEMORY, "no memory for the text");
    struct detok d;
    detok_init(&d, t, c->is_special);
    int32_t id = 0;
    bool has = ok;
    while (ok && has) {
        ok = next_id(in, &at, tok_count(t), &id, &has, e);
        if (ok && has) fwrite(piece, 1, detok_push(&d, id, piece, room), to);
    }
    if (ok) fwrite(piece, 1, detok_flush(&d, piece, room), to);
    if (c->is_json && to) fclose(to);
    if (ok && c->is_json) {
        struct json j;
        json_file(&j, stdout);
        json_object(&j);
        json_key(&j, "text");
        json_string(&j, all, len);
        json_end(&j);
        json_line(&j);
    }
    free(all);
    free(piece);
    return ok;
}

typedef MUST text_work(const struct text_conf *c, const struct tok *t, const struct input *in,
                       struct err *e);

static MUST on_text(const struct text_conf *c, const char *path, struct setup *s, text_work *work,
                    struct err *e) {
    struct input in = {0};
    if (!setup_open(s, path, c->tokenizer, MODEL_VOCAB, e) || !setup_tok(s, e)) return false;
    setup_note(s, stderr);
    bool ok = read_input(c, &in, e) && work(c, s->tok, &in, e);
    free(in.owned);
    return ok;
}

static MUST tokenize_work(void *conf, const char *path, struct setup *s, struct err *e) {
    return on_text(conf, path, s, tokenize, e);
}

static MUST detokenize_work(void *conf, const char *path, struct setup *s, struct err *e) {
    return on_text(conf, path, s, detokenize, e);
}

static int tokenize_main(const struct verb *v, int argc, char **argv) {
    return verb_on_model(v, argc, argv, &(struct text_conf){0}, tokenize_work);
}

static int detokenize_main(const struct verb *v, int argc, char **argv) {
    return verb_on_model(v, argc, argv, &(struct text_conf){0}, detokenize_work);
}

const struct verb verb_tokenize = {
    .name = "tokenize",
    .usage = "[MODEL] [options] < TEXT",
    .summary = "Text to the numbers of its tokens",
    .opt = tokenize_opt,
    .n_opt = sizeof tokenize_opt / sizeof *tokenize_opt,
    .max_word = 1,
    .run = tokenize_main,
};

const struct verb verb_detokenize = {
    .name = "detokenize",
    .usage = "[MODEL] [options] < IDS",
    .summary = "Numbers of tokens back to text",
    .opt = detokenize_opt,
    .n_opt = sizeof detokenize_opt / sizeof *detokenize_opt,
    .max_word = 1,
    .run = detokenize_main,
};
