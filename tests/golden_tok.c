/* golden_tok VOCAB.gguf: a tokenizer as a filter, for golden_tokenizers.pl. One command a line, bytes
 * in hexadecimal, one answer a line:
 *   encode FLAGS [HEX]     ids (FLAGS: b for BOS and EOS, s for control tokens in the text, - for none)
 *   decode FLAGS ID...     bytes (FLAGS: s to show control tokens, t to tidy spaces, - for none)
 * The first line of the output says which kind this is. Exit 4: not supported; 3: bad file. */
#include "model/tok.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static size_t unhex(const char *s, char *out) {
    size_t n = 0;
    for (unsigned byte; sscanf(s, "%2x", &byte) == 1; s += 2) out[n++] = (char)byte;
    return n;
}

static void encode(const struct tok *t, const char *flags, const char *hex, struct err *e) {
    char *text = malloc(strlen(hex) / 2 + 1);
    size_t len = unhex(hex, text), cap = tok_bound(len), n = 0;
    int32_t *id = malloc(cap * sizeof *id);
    unsigned f =
        (strchr(flags, 'b') ? TOK_BOS | TOK_EOS : 0U) | (strchr(flags, 's') ? TOK_SPECIAL : 0U);
    if (!tok_encode(t, text, len, f, id, cap, &n, e)) {
        printf("error %s\n", e->text);
        n = 0;
    }
    for (size_t i = 0; i < n; i++) printf(i ? " %d" : "%d", id[i]);
    putchar('\n');
    free(id);
    free(text);
}

static void decode(const struct tok *t, const char *flags, const char *ids) {
    size_t room = strlen(ids) / 2 * tok_longest(t) + DETOK_MAX, n = 0;
    char *text = malloc(room);
    struct detok d;
    detok_init(&d, t, strchr(flags, 's') != NULL);
    char *end;
    for (long id = strtol(ids, &end, 10); end != ids; id = strtol(ids, &end, 10)) {
        n += detok_push(&d, (int32_t)id, text + n, room - n);
        ids = end;
    }
    n += detok_flush(&d, text + n, room - n);
    if (strchr(flags, 't')) n = tok_tidy(t, text, n);
    for (size_t i = 0; i < n; i++) printf("%02x", (unsigned char)text[i]);
    putchar('\n');
    free(text);
}

static int serve(const struct tok *t, struct err *e) {
    char *line = NULL;
    size_t room = 0;
    while (getline(&line, &room, stdin) > 0) {
        char verb[8] = "", flags[8] = "";
        line[strcspn(line, "\n")] = 0;
        int at = (int)strlen(line);
        sscanf(line, "%7s %7s %n", verb, flags, &at);
        if (!strcmp(verb, "encode")) encode(t, flags, line + at, e);
        if (!strcmp(verb, "decode")) decode(t, flags, line + at);
        fflush(stdout);
    }
    free(line);
    return 0;
}

int main(int argc, char **argv) {
    struct model m;
    struct tok *t;
    struct err e = {0};
    if (argc != 2) return 2;
    if (!model_open_part(&m, argv[1], 0, 0, MODEL_VOCAB, &e)) {
        fprintf(stderr, "%s\n", e.text);
        return err_exit_status(&e);
    }
    bool bpe = !strcmp(m.vocab.kind, "gpt2");
    printf("tokenizer %s%s%s bos=%d\n", m.vocab.kind, bpe ? ":" : "", bpe ? m.vocab.pre : "",
           m.vocab.bos);
    fflush(stdout);
    int status = 0;
    if (tok_open(&t, &m.vocab, &e)) {
        status = serve(t, &e);
        tok_close(t);
    } else {
        fprintf(stderr, "%s\n", e.text);
        status = err_exit_status(&e);
    }
    model_close(&m);
    return status;
}
