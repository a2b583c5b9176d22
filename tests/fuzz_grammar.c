/* Any bytes as a grammar (first byte even: GBNF, odd: a JSON schema; the second seeds the choices). It is
 * refused with a sentence, or a walk through what it allows finds: tokens listed are tokens allowed, what
 * was chosen is taken, what was taken can be taken back, and a document that is whole is JSON where a
 * schema was given. */
#include "base/json.h"
#include "json_vocab.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { STEPS = 60, TEXT = 1 << 14 };

static struct toy toy;
static struct tok *tok;
static struct lexicon *lex;

static void expect(bool ok) {
    if (!ok) abort();
}

static void check_list(struct grammar_run *r, const int32_t *id, size_t n, uint32_t x) {
    size_t k = 0;
    for (int32_t i = 0; i < (int32_t)tok_count(tok); i++) {
        bool is_listed = k < n && id[k] == i;
        k += is_listed;
        if ((uint32_t)i % 16 == x % 16) expect(grammar_allows(r, i) == is_listed);
    }
    expect(k == n);
}

static void check_document(const char *text, size_t len) {
    struct json_doc *doc;
    struct err e;
    /* Deeper than the reader goes is still JSON. */
    expect(json_read(&doc, text, len, TEXT, &e) || e.code == ERR_LIMIT);
    json_free(doc);
}

static void walk(struct grammar_run *r, bool is_schema, uint32_t x) {
    static int32_t id[STEPS], allowed[TOY_TOKENS];
    static char text[TEXT];
    size_t len = 0, n = 0;
    struct err e;
    for (; n < STEPS; n++) {
        expect(grammar_run_sync(r, id, n, &e));
        size_t n_allowed = grammar_allowed(r, allowed, TOY_TOKENS);
        check_list(r, allowed, n_allowed, x);
        if (is_schema && grammar_is_whole(r)) check_document(text, len);
        if (!n_allowed) break;
        x = x * 1664525 + 1013904223;
        id[n] = allowed[(x >> 8) % n_allowed];
        if (tok_is_end(tok, id[n])) break;
        const char *piece;
        size_t more = tok_piece(tok, id[n], false, &piece);
        expect(len + more < TEXT);
        memcpy(text + len, piece, more);
        len += more;
    }
    expect(grammar_run_sync(r, id, n, &e));
    size_t n_allowed = grammar_allowed(r, allowed, TOY_TOKENS);
    expect(grammar_run_sync(r, id, n / 2, &e));
    expect(n / 2 == n || grammar_allows(r, id[n / 2]));
    expect(grammar_run_sync(r, id, n, &e));
    expect(grammar_allowed(r, allowed, TOY_TOKENS) == n_allowed);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct grammar *g;
    struct grammar_run *r;
    struct err e = {0};
    if (!lex) expect(json_lexicon(&toy, &tok, &lex));
    if (size < 2 || size > GRAMMAR_TEXT) return 0;
    bool is_schema = data[0] & 1;
    if (!grammar_open(&g, is_schema ? GRAMMAR_SCHEMA : GRAMMAR_GBNF, (const char *)data + 2,
                      size - 2, &e)) {
        expect(e.code != ERR_NONE && *e.text);
        return 0;
    }
    if (grammar_run_open(&r, g, lex, &e)) {
        walk(r, is_schema, data[1]);
        grammar_run_close(r);
    } else {
        expect(e.code == ERR_LIMIT);
    }
    grammar_close(g);
    return 0;
}
