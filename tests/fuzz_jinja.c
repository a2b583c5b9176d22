/* Any template on any messages: rendered within the limits or refused with a sentence. What must hold:
 * the spans cover the text, neighbours differ, and where a template cannot spell a control token, none
 * comes out, whatever the messages say; and an answer of that text falls into the same thoughts and
 * answer however it is cut. The input: a template, a zero byte, an object of variables. */
#include "model/chat.h"
#include "toy_vocab.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void expect(bool ok) {
    if (!ok) abort();
}

static void check_spans(const struct jinja_text *t) {
    size_t at = 0;
    expect(t->text && strlen(t->text) <= t->len);
    for (size_t i = 0; i < t->n_span; i++) {
        expect(t->span[i].at == at && t->span[i].len);
        expect(!i || t->span[i].is_data != t->span[i - 1].is_data);
        at += t->span[i].len;
    }
    expect(at == t->len);
}

static void check_tokens(const struct tok *tok, const struct chat *c, const struct chat_prompt *p,
                         bool has_none) {
    size_t cap = chat_bound(p), n = 0;
    int32_t *id = malloc(cap * sizeof *id);
    struct err e;
    expect(id && chat_encode(c, p, id, cap, &n, &e) && n <= cap);
    for (size_t i = 1; i < n && has_none; i++) expect(!tok_is_control(tok, id[i]));
    free(id);
}

struct heard {
    size_t len;
    uint64_t hash;  // FNV-1a of the parts' bytes
};

static void hear(void *ctx, enum reasoning_part part, const char *s, size_t len) {
    struct heard *h = ctx;
    expect(len && part <= REASONING_CALL);
    h->len += len;
    for (size_t i = 0; i < len; i++) {
        h->hash = (h->hash ^ (uint64_t)part << 8 ^ (uint8_t)s[i]) * 0x100000001b3U;
    }
}

static struct heard split(const struct chat *c, const struct chat_prompt *p, size_t step) {
    struct heard h = {.hash = 0xcbf29ce484222325U};
    struct reasoning r;
    chat_split(c, p, &r);
    for (size_t at = 0, n; at < p->text.len; at += n) {
        n = p->text.len - at < step ? p->text.len - at : step;
        reasoning_push(&r, p->text.text + at, n, hear, &h);
    }
    reasoning_end(&r, hear, &h);
    expect(h.len <= p->text.len);
    return h;
}

static void check_split(const struct chat *c, const struct chat_prompt *p) {
    struct heard by_byte = split(c, p, 1), at_once = split(c, p, p->text.len + 1);
    expect(by_byte.len == at_once.len && by_byte.hash == at_once.hash);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct toy y;
    static struct tok *tok;
    static struct model m;
    struct err e = {0};
    if (!tok) {
        toy_bpe(&y, "llama-bpe");
        expect(tok_open(&tok, &y.v, &e));
        m.vocab = y.v;
        m.vocab.bos = m.vocab.eos = -1;  // so that the variables of these names are empty
    }
    const uint8_t *zero = size ? memchr(data, 0, size) : NULL;
    if (!zero) return 0;
    struct json_doc *d;
    struct chat *c = NULL;
    struct chat_prompt p = {0};
    size_t len = (size_t)(zero - data), rest = size - len - 1;
    if (!json_read(&d, (const char *)zero + 1, rest, 1 << 16, &e)) return 0;
    const struct json_value *root = json_root(d);
    struct chat_request r = {.messages = json_find(root, "messages"),
                             .tools = json_find(root, "tools"),
                             .extra = json_kind(root) == JSON_OBJECT ? root : NULL,
                             .add_generation_prompt = len & 1,
                             .think = (enum chat_think)(len % 3)};
    bool ok = chat_open(&c, &m, tok, (const char *)data, len, &e) && chat_render(c, &r, &p, &e);
    if (ok) {
        check_spans(&p.text);
        check_split(c, &p);
        check_tokens(tok, c, &p, !memchr(data, '|', len) && !memchr(data, '\\', len));
    } else {
        expect(e.code != ERR_NONE && *e.text && !p.text.text);
    }
    chat_prompt_free(&p);
    chat_close(c);
    json_free(d);
    return 0;
}
