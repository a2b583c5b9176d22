/* lab_pretok: the cuts as a filter, for tests/pretok.t. A line is a name of tokenizer.ggml.pre and a text
 * in hexadecimal; the answer is its words, in hexadecimal, or "?" for a name that is not known. */
#include "model/pretok.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void cut(const struct pretok *p, const char *hex) {
    size_t len = strlen(hex) / 2;
    uint8_t *text = malloc(len + 1);
    if (!text) abort();
    for (size_t i = 0; i < len; i++) {
        unsigned byte = 0;
        (void)sscanf(hex + 2 * i, "%2x", &byte);
        text[i] = (uint8_t)byte;
    }
    struct pretok_words w;
    pretok_begin(&w, p->cut, text, len);
    for (size_t at = 0; pretok_next(&w); at = w.at) {
        if (at) putchar(' ');
        for (size_t i = at; i < w.at; i++) printf("%02x", text[i]);
    }
    putchar('\n');
    free(text);
}

int main(void) {
    char *line = NULL;
    size_t room = 0;
    while (getline(&line, &room, stdin) > 0) {
        struct pretok p;
        line[strcspn(line, "\n")] = 0;
        char *hex = strchr(line, ' ');
        if (!hex) break;
        *hex++ = 0;
        if (pretok_find(&p, line)) {
            cut(&p, hex);
        } else {
            puts("?");
        }
        fflush(stdout);
    }
    free(line);
    return 0;
}
