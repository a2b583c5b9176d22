/* Choosing from what was asked for must choose what the whole vocabulary gives: random logits, samplers
 * and histories, the candidates brought as a cluster brings them, against a plain walk over all. */
#include "model/grammar_own.h"
#include "model/picker.h"
#include "shuffle.h"
#include "tap.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { VOCAB = 3000, SEEN = 300 };

static float logit[VOCAB];
static int32_t seen[SEEN];

static bool is_banned(const struct sampler *s, int32_t id) {
    for (uint32_t i = 0; i < s->n_bias; i++) {
        if (s->bias[i].id == id && s->bias[i].value == -INFINITY) return true;
    }
    return false;
}

static size_t without_banned(const struct sampler *s, struct candidate *c, size_t n) {
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        if (!is_banned(s, c[i].id)) c[kept++] = c[i];
    }
    return kept;
}

static int by_logit(const void *a, const void *b) {
    const struct candidate *x = a, *y = b;
    if (x->logit != y->logit) return x->logit > y->logit ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

static void sort(struct candidate *c, size_t n) {
    qsort(c, n, sizeof *c, by_logit);
}

/* All, in order. */
static size_t everything(struct candidate *c) {
    size_t n = 0;
    for (int32_t i = 0; i < VOCAB; i++) {
        if (!isnan(logit[i])) c[n++] = (struct candidate){.id = i, .logit = logit[i]};
    }
    sort(c, n);
    return n;
}

static size_t bring(const struct want *w, struct candidate *c) {
    size_t n = everything(c);
    if (w->k < n) n = w->k;
    shuffle(c, n);
    for (uint32_t i = 0; i < w->n_id; i++) {
        c[n++] = (struct candidate){.id = w->id[i], .logit = logit[w->id[i]]};
    }
    return n;
}

/* What the definitions say, without a thought for what is needed. */
static int32_t by_all(const struct sampler *s, size_t n_seen, uint64_t position) {
    static struct candidate c[VOCAB];
    size_t n = without_banned(s, c, everything(c)), from = 0;
    if (n_seen > (size_t)s->last_n) from = n_seen - (size_t)s->last_n;
    for (size_t i = 0; i < n; i++) {
        uint32_t count = 0;
        for (uint32_t b = 0; b < s->n_bias; b++) {
            if (s->bias[b].id == c[i].id) c[i].logit += s->bias[b].value;
        }
        for (size_t k = from; k < n_seen; k++) count += seen[k] == c[i].id;
        if (!count) continue;
        c[i].logit = c[i].logit > 0 ? c[i].logit / s->repeat : c[i].logit * s->repeat;
        c[i].logit -= (float)count * s->frequency + s->presence;
    }
    sort(c, n);
    return sample(s, c, n, 3, position);
}

static float some(float from, float to) {
    return from + (to - from) * (float)(rnd() % 1000) / 1000.0F;
}

static void invent(struct sampler *s) {
    *s = (struct sampler){.temp = rnd() % 3 ? some(0.1F, 3) : 0,
                          .top_k = rnd() % 4 ? (int32_t)(rnd() % 60) + 1 : 0,
                          .top_p = rnd() % 2 ? 1 : some(0.5F, 1),
                          .min_p = rnd() % 2 ? 0 : some(0, 0.2F),
                          .seed = rnd(),
                          .typical = rnd() % 2 ? 0 : some(0.1F, 1),
                          .repeat = rnd() % 3 ? some(1, 2) : some(0.5F, 1),
                          .presence = rnd() % 3 ? some(0, 2) : some(-2, 0),
                          .frequency = rnd() % 3 ? some(0, 1) : some(-1, 0),
                          .last_n = (int32_t)(rnd() % 100),
                          .temp_range = rnd() % 3 ? 0 : some(0, 1),
                          .temp_exponent = some(0, 2)};
    if (rnd() % 5 == 0) s->top_n_sigma = some(0.1F, 4);
    if (rnd() % 2) return;
    s->n_bias = rnd() % 20;
    for (uint32_t i = 0; i < s->n_bias; i++) {
        int32_t id = (int32_t)(rnd() % VOCAB);
        s->bias[i] = (struct bias){id, rnd() % 4 ? some(-8, 8) : -INFINITY};
    }
}

static int32_t by_picker(struct picker *p, size_t n_seen, uint64_t position, uint32_t *most) {
    static struct candidate c[VOCAB];
    struct err e;
    int32_t id = -1;
    if (!picker_begin(p, seen, 0, n_seen, &e)) return -1;
    *most = p->want.k + p->want.n_id;
    while (id < 0) {
        if (*most > VOCAB) return -1;
        if (!picker_next(p, c, bring(&p->want, c), 3, position, &id, &e)) return -1;
    }
    return id;
}

static void test_exact(void) {
    static struct picker p;
    int wrong = 0, few = 0, rounds = 2000;
    for (int i = 0; i < rounds; i++) {
        struct sampler s;
        struct err e = {0};
        uint32_t most = 0;
        invent(&s);
        bool is_flat = rnd() % 8 == 0;  // many ties
        for (int k = 0; k < VOCAB; k++) logit[k] = is_flat ? (float)(rnd() % 4) : some(-8, 12);
        for (int k = 0; k < SEEN; k++) seen[k] = (int32_t)(rnd() % (rnd() % 2 ? 40 : VOCAB));
        size_t n_seen = rnd() % SEEN;
        picker_init(&p, &s, NULL, VOCAB);
        int32_t want = by_all(&s, n_seen, (uint64_t)i);
        int32_t got = by_picker(&p, n_seen, (uint64_t)i, &most);
        wrong += got != want || !sampler_check(&s, &e);
        few += most < VOCAB / 4;
    }
    tap_ok(!wrong && few > rounds / 2,
           "%d of %d choices differ from the whole vocabulary's, %d "
           "of them made without it",
           wrong, rounds, few);
}

static void test_numbers(void) {
    static struct picker p;
    struct sampler s = {.temp = 1, .top_k = 5, .top_p = 1};
    struct err e = {0};
    uint32_t most;
    int32_t id;
    for (int k = 0; k < VOCAB; k++) logit[k] = NAN;
    logit[17] = -3;
    picker_init(&p, &s, NULL, VOCAB);
    tap_ok(by_picker(&p, 0, 0, &most) == 17, "one number among them is the choice");
    tap_ok(!picker_next(&p, NULL, 0, 0, 0, &id, &e) && e.code == ERR_FORMAT, "none: %s", e.text);
}

/* However likely, and whatever else is said of it. */
static void test_banned(void) {
    static struct picker p;
    struct sampler s = {
        .top_p = 1, .n_bias = 3, .bias = {{7, -INFINITY}, {7, 1000}, {9, -INFINITY}}};
    struct err e = {0};
    uint32_t most;
    int32_t id;
    int n_banned = 0;
    for (int k = 0; k < VOCAB; k++) logit[k] = k == 7 || k == 9 ? 1e30F : -3e38F;
    logit[1000] = -2e38F;
    tap_ok(sampler_check(&s, &e), "a ban is a bias that may be");
    picker_init(&p, &s, NULL, VOCAB);
    tap_ok(by_picker(&p, 0, 0, &most) == 1000, "greedy: the best of the others");
    s.temp = 100;
    s.presence = -100;
    s.last_n = 64;
    seen[0] = 7;
    for (uint64_t i = 0; i < 2000; i++) {
        id = by_picker(&p, 1, i, &most);
        n_banned += id == 7 || id == 9 || id < 0;
    }
    tap_ok(!n_banned, "and at any temperature: %d of 2000 are banned", n_banned);
    for (int k = 0; k < VOCAB; k++) logit[k] = NAN;
    logit[7] = logit[9] = 1;
    struct candidate c[2] = {{.id = 7, .logit = 1}, {.id = 9, .logit = 1}};
    tap_ok(picker_begin(&p, seen, 0, 0, &e) && !picker_next(&p, c, 2, 3, 0, &id, &e) &&
               e.code == ERR_FORMAT && strstr(e.text, "banned"),
           "nothing else: %s", e.text);
    s.bias[0].value = s.bias[2].value = -1000;
    tap_ok(picker_begin(&p, seen, 0, 0, &e) && !picker_next(&p, c, 0, 3, 0, &id, &e) &&
               e.code == ERR_FORMAT && !strstr(e.text, "banned"),
           "a bias that bans nothing is no ban: %s", e.text);
}

/* --- with a grammar: a vocabulary with more words than can be asked for by name --- */

enum { WORDS = 6000, HELD = WORDS + 259, HELD_BYTES = 6 * WORDS + 8 * 259 };

static struct {
    struct vocab v;
    char text[HELD_BYTES];
    uint32_t start[HELD + 1];
    float score[HELD];
    uint8_t type[HELD];
} held;

static float held_logit[HELD];

static void add_word(const char *text, size_t len, enum token_type type) {
    uint32_t i = held.v.n_token++;
    memcpy(held.text + held.start[i], text, len);
    held.start[i + 1] = held.start[i] + (uint32_t)len;
    held.type[i] = (uint8_t)type;
}

static void make_vocabulary(void) {
    char word[8];
    held.v = (struct vocab){.kind = "llama",
                            .pre = "",
                            .text = held.text,
                            .start = held.start,
                            .score = held.score,
                            .type = held.type,
                            .bos = 1,
                            .eos = 2,
                            .eot = -1,
                            .unk = 0};
    add_word("<unk>", 5, TOKEN_UNKNOWN);
    add_word("<s>", 3, TOKEN_CONTROL);
    add_word("</s>", 4, TOKEN_CONTROL);
    for (unsigned b = 0; b < 256; b++) {
        add_word(word, (size_t)snprintf(word, sizeof word, "<0x%02X>", b), TOKEN_BYTE);
    }
    for (int i = 0; i < WORDS; i++) {
        size_t len = 2 + rnd() % 4;
        for (size_t k = 0; k < len; k++) word[k] = (char)('a' + rnd() % 8);
        add_word(word, len, TOKEN_NORMAL);
    }
}

static size_t bring_held(const struct want *w, struct candidate *c) {
    size_t n = HELD;
    for (int32_t i = 0; i < HELD; i++) c[i] = (struct candidate){.id = i, .logit = held_logit[i]};
    sort(c, n);
    if (w->k < n) n = w->k;
    shuffle(c, n);
    for (uint32_t i = 0; i < w->n_id; i++) {
        c[n++] = (struct candidate){.id = w->id[i], .logit = held_logit[w->id[i]]};
    }
    return n;
}

/* All that the grammar allows, and of these the choice. */
static int32_t by_all_held(const struct sampler *s, struct grammar_run *r, size_t n_seen) {
    static struct candidate c[HELD];
    static struct adjust a;
    size_t n = 0;
    for (int32_t i = 0; i < HELD; i++) {
        if (grammar_allows(r, i)) c[n++] = (struct candidate){.id = i, .logit = held_logit[i]};
    }
    adjust_make(&a, s, seen, n_seen);
    n = without_banned(s, c, n);
    sort(c, n);
    sample_adjust(s, &a, c, n);
    return n ? sample(s, c, n, 3, n_seen) : PICK_END;
}

static int32_t by_picker_held(struct picker *p, size_t n_seen, int *asked) {
    static struct candidate c[HELD + WANT_IDS];
    struct err e;
    int32_t id = PICK_MORE;
    if (!picker_begin(p, seen, 0, n_seen, &e)) return -9;
    while (id == PICK_MORE) {
        ++*asked;
        if (!picker_next(p, c, bring_held(&p->want, c), 3, n_seen, &id, &e)) return -9;
    }
    return id;
}

/* The grammar would go on, and a ban leaves nothing to go on with. */
static void test_held_banned(const struct lexicon *lex) {
    static const char text[] = "root ::= \"\\x41\"";
    static struct picker p;
    static struct candidate c[HELD + WANT_IDS];
    struct sampler s = {.top_p = 1, .n_bias = 1, .bias = {{3 + 'A', -INFINITY}}};
    struct grammar *g;
    struct grammar_run *r;
    struct err e = {0};
    int32_t id = PICK_MORE;
    bool ok = true;
    if (!grammar_open(&g, GRAMMAR_GBNF, text, strlen(text), &e)) abort();
    if (!grammar_run_open(&r, g, lex, &e)) abort();
    for (int i = 0; i < HELD; i++) held_logit[i] = 1;
    picker_init(&p, &s, r, HELD);
    if (!picker_begin(&p, seen, 0, 0, &e)) abort();
    while (ok && id == PICK_MORE) ok = picker_next(&p, c, bring_held(&p.want, c), 3, 0, &id, &e);
    tap_ok(!ok && e.code == ERR_FORMAT && strstr(e.text, "banned"),
           "all that the grammar allows is banned: %s", e.text);
    s.bias[0].value = -1000;
    held_logit[3 + 'A'] = NAN;
    if (!picker_begin(&p, seen, 0, 0, &e)) abort();
    for (ok = true, id = PICK_MORE; ok && id == PICK_MORE;) {
        ok = picker_next(&p, c, bring_held(&p.want, c), 3, 0, &id, &e);
    }
    tap_ok(!ok && e.code == ERR_FORMAT && !strstr(e.text, "banned"),
           "or has no number for its logit: %s", e.text);
    grammar_run_close(r);
    grammar_close(g);
}

static void test_held(const char *text, const struct tok *tok, const struct lexicon *lex) {
    static struct picker p;
    struct grammar *g;
    struct grammar_run *mine, *other;
    struct err e;
    int wrong = 0, asked = 0, n = 0;
    if (!grammar_open(&g, GRAMMAR_GBNF, text, strlen(text), &e)) abort();
    if (!grammar_run_open(&mine, g, lex, &e) || !grammar_run_open(&other, g, lex, &e)) abort();
    for (int answer = 0; answer < 12; answer++) {
        struct sampler s;
        invent(&s);
        if (answer % 3 == 0) s.top_n_sigma = 0, s.typical = 0, s.top_k = 5, s.temp_range = 0;
        picker_init(&p, &s, mine, HELD);
        for (size_t n_seen = 0; n_seen < 25; n_seen++) {
            for (int k = 0; k < HELD; k++) held_logit[k] = some(-8, 12);
            if (!grammar_run_sync(other, seen, n_seen, &e)) abort();
            int32_t want = by_all_held(&s, other, n_seen), id = by_picker_held(&p, n_seen, &asked);
            wrong += id != want;
            n++;
            seen[n_seen] = id;
            if (wrong || id < 0 || tok_is_end(tok, id)) break;
        }
    }
    tap_ok(!wrong,
           "%s: %d of %d choices differ from those of all that is allowed; %.2f askings each", text,
           wrong, n, (double)asked / n);
    grammar_run_close(mine);
    grammar_run_close(other);
    grammar_close(g);
}

/* What masks cost, in tokens looked at: a few of the vocabulary, as a token that is refused hides those that
 * begin like it; a list that is known costs nothing. */
static void test_looks(const char *text, const struct lexicon *lex) {
    enum { ANSWERS = 20, TOKENS = 40 };
    static int32_t id[TOKENS], allowed[HELD];
    struct grammar *g;
    struct grammar_run *r;
    struct err e;
    uint64_t looks = 0, again = 0, n_new = 0, n_again = 0;
    if (!grammar_open(&g, GRAMMAR_GBNF, text, strlen(text), &e)) abort();
    if (!grammar_run_open(&r, g, lex, &e)) abort();
    for (int answer = 0; answer < ANSWERS; answer++) {
        for (size_t n = 0; n < TOKENS; n++) {
            const int32_t *known;
            if (!grammar_run_sync(r, id, n, &e)) abort();
            bool is_known = grammar_recalls(r, &known, &(size_t){0});
            uint64_t before = grammar_looks(r);
            size_t n_allowed = grammar_allowed(r, allowed, HELD);
            *(is_known ? &again : &looks) += grammar_looks(r) - before;
            ++*(is_known ? &n_again : &n_new);
            if (!n_allowed) break;
            id[n] = allowed[rnd() % n_allowed];
            if (tok_is_end(lex->tok, id[n])) break;
        }
    }
    tap_ok(n_new && looks < n_new * (HELD / 4) && n_again && !again,
           "%s: %.1f of %d tokens looked at for each of %d masks, %d for %d that were known", text,
           (double)looks / (double)n_new, HELD, (int)n_new, (int)again, (int)n_again);
    grammar_run_close(r);
    grammar_close(g);
}

static void test_grammars(void) {
    struct tok *tok;
    struct lexicon *lex;
    struct err e;
    make_vocabulary();
    if (!tok_open(&tok, &held.v, &e) || !lexicon_open(&lex, tok, &e)) abort();
    test_held("root ::= [a-h]*", tok, lex);
    test_held("root ::= [a-g]{0,60} \"!\"", tok, lex);
    test_held("root ::= (\"ab\" [c-e]+ | [fgh]{2}){1,30}", tok, lex);
    test_held("root ::= (\"a\" | \"bcd\")+", tok, lex);
    test_held("root ::= \"abcdefgh\" [^a-h]{3}", tok, lex);
    test_held_banned(lex);
    test_looks("root ::= (\"ab\" [c-e]+ | [fgh]{2}){1,30}", lex);
    test_looks("root ::= (\"a\" | \"bcd\")+", lex);
    lexicon_close(lex);
    tok_close(tok);
}

int main(void) {
    seed = 5;
    test_exact();
    test_numbers();
    test_banned();
    test_grammars();
    return tap_done();
}
