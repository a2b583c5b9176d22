/* golden_json.h - what the drivers of golden_templates.pl read. */
#ifndef TESTS_GOLDEN_JSON_H
#define TESTS_GOLDEN_JSON_H

#include "base/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { FILE_MOST = 64 << 20 };

/* Ends the program with 3 where the file cannot be read. */
static struct json_doc *read_file(const char *path) {
    static struct err e;
    struct json_doc *d = NULL;
    FILE *f = fopen(path, "rb");
    char *text = malloc(FILE_MOST);
    if (!f || !text) exit(3);
    size_t len = fread(text, 1, FILE_MOST, f);
    fclose(f);
    if (!json_read(&d, text, len, FILE_MOST, &e)) {
        fprintf(stderr, "%s: %s\n", path, e.text);
        exit(3);
    }
    free(text);
    return d;
}

static struct json_chars text_at(const struct json_value *o, const char *key) {
    struct json_chars c = {"", 0};
    const struct json_value *v = json_find(o, key);
    if (v) (void)json_chars_of(v, &c);
    return c;
}

/* "2026-01-02T03:04:05", whatever follows. */
static int64_t clock_of(struct json_chars text) {
    struct tm tm = {0};
    if (!text.len || !strptime(text.s, "%Y-%m-%dT%H:%M:%S", &tm)) return 0;
    return timegm(&tm);
}

/* A case has a line. */
static void show(const char *what, const char *s) {
    printf("%s \"", what);
    for (size_t i = 0; s[i] && i < 60; i++) {
        if (s[i] == '\n') {
            printf("\\n");
        } else {
            putchar(s[i]);
        }
    }
    putchar('"');
}

/* Where two texts part, from the beginning of a character on. */
static void show_parting(const char *a, size_t n_a, const char *b, size_t n_b) {
    size_t at = 0;
    while (at < n_a && at < n_b && a[at] == b[at]) at++;
    while (at && at < n_a && ((unsigned char)a[at] & 0xc0) == 0x80) at--;
    printf(": at %zu", at);
    show(" got", a + at);
    show(", want", b + at);
}

#endif
