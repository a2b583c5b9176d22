/* json_vocab.h - a vocabulary for tests of grammars: all bytes, and pieces that cross the borders of
 * what JSON is made of, cut characters in two, or are alike. */
#ifndef TESTS_JSON_VOCAB_H
#define TESTS_JSON_VOCAB_H

#include "model/grammar.h"
#include "toy_vocab.h"

enum { JSON_BYTE0 = 3 };  // id of byte 0

static inline void json_vocab(struct toy *y) {
    static const char *const pieces[] = {
        "{\"",        "\":",    "\", \"", "\"}",   "},",      "}]",       "[{",     "[[",    "]]",
        "],",         "\": \"", "\": {",  "true",  "false",   "null",     "tr",     "ue",    "nul",
        "12",         "123",    "1234",   "0",     "00",      "-1",       "1.5",    "e1",    "E+",
        ".",          ".0",     "  ",     "\n",    "\n  ",    "\n    ",   " \"",    ", ",    ": ",
        "name",       "na",     "me",     "age",   "\"age\"", "a",        "ab",     "abc",   "b",
        "x",          "xx",     "xxx",    "hello", "\\",      "\\n",      "\\u",    "\\u00", "\"\"",
        "{}",         "[]",     "é",      "世",    "\xc3",    "\xe4\xb8", "\x96界", "root",  "::=",
        "0123456789", "2024",   "-0",     "T1",
    };
    toy_init(y, "llama", "default");
    y->v.unk = toy_add(y, "<unk>", 0, TOKEN_UNKNOWN);
    y->v.bos = toy_add(y, "<s>", 0, TOKEN_CONTROL);
    y->v.eos = toy_add(y, "</s>", 0, TOKEN_CONTROL);
    for (unsigned b = 0; b < 256; b++) {
        char name[8];
        snprintf(name, sizeof name, "<0x%02X>", b);
        toy_add(y, name, 0, TOKEN_BYTE);
    }
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
        toy_add(y, pieces[i], -(float)i, TOKEN_NORMAL);
    }
    toy_add(y, "{\"", -1000, TOKEN_NORMAL);  // a twin
    toy_add(y, "", -1001, TOKEN_NORMAL);
    toy_add(y, "[ctl]", 0, TOKEN_CONTROL);
}

/* The vocabulary and its lexicon; false: something is wrong with the test itself. */
static inline bool json_lexicon(struct toy *y, struct tok **t, struct lexicon **l) {
    struct err e;
    json_vocab(y);
    return tok_open(t, &y->v, &e) && lexicon_open(l, *t, &e);
}

#endif
