#include "model/reasoning.h"

#include "base/unicode.h"

#include <string.h>

/* Marks of harmony. */
static const char channel_mark[] = "<|channel|>", message_mark[] = "<|message|>";
static const char *const body_ends[] = {"<|end|>", "<|return|>", "<|call|>", "<|start|>",
                                        "<|channel|>"};
enum { N_BODY_END = sizeof body_ends / sizeof *body_ends };

static bool has(const char *s, size_t len, const char *what) {
    return memmem(s, len, what, strlen(what)) != NULL;
}

/* Where the model opens its thoughts by itself, a template may have the closing tag alone, to take them out
 * of past answers. */
struct reasoning_style reasoning_style(const char *template, size_t len) {
    static const struct reasoning_style known[] = {
        {REASONING_HARMONY, channel_mark, NULL},
        {REASONING_TAGS, "<think>", "</think>"},
        {REASONING_TAGS, "[THINK]", "[/THINK]"},
        {REASONING_TAGS, "<seed:think>", "</seed:think>"},
        {REASONING_TAGS, "<|START_THINKING|>", "<|END_THINKING|>"},
        {REASONING_TAGS, "<|inner_prefix|>", "<|inner_suffix|>"},
        {REASONING_TAGS, "<|channel>thought", "<channel|>"},
        {REASONING_TAGS, "<reasoning>", "</reasoning>"},
        {REASONING_TAGS, "◁think▷", "◁/think▷"},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        const char *open = known[i].open, *close = known[i].close;
        if (!has(template, len, open) && !(close && has(template, len, close))) continue;
        if (known[i].kind == REASONING_TAGS) return known[i];
        /* Others have channels too; harmony's are known by this name. */
        if (has(template, len, "analysis")) return known[i];
    }
    return (struct reasoning_style){.kind = REASONING_NONE};
}

void reasoning_init(struct reasoning *r, struct reasoning_style style, bool is_inside) {
    *r = (struct reasoning){.style = style};
    switch (style.kind) {
    case REASONING_NONE: r->state = REASONING_OUT; break;
    case REASONING_TAGS: r->state = is_inside ? REASONING_IN : REASONING_START; break;
    case REASONING_HARMONY: r->state = REASONING_HEADER; break;
    }
}

static void put(reasoning_sink *sink, void *ctx, enum reasoning_part part, const char *s,
                size_t len) {
    if (len) sink(ctx, part, s, len);
}

static void drop(struct reasoning *r, size_t n) {
    r->n_held -= n;
    memmove(r->held, r->held + n, r->n_held);
}

/* Hands out the first n held bytes. */
static void give(struct reasoning *r, size_t n, enum reasoning_part part, reasoning_sink *sink,
                 void *ctx) {
    put(sink, ctx, part, r->held, n);
    drop(r, n);
}

static size_t leading_space(const struct reasoning *r) {
    size_t n = 0;
    while (n < r->n_held && ascii_is_space(r->held[n])) n++;
    return n;
}

/* Where `mark` begins in the held bytes, or where what may become it does; n_held: nowhere. */
static size_t find(const struct reasoning *r, const char *mark, bool *is_whole) {
    size_t len = strlen(mark);
    *is_whole = false;
    for (size_t i = 0; i < r->n_held; i++) {
        size_t n = r->n_held - i < len ? r->n_held - i : len;
        if (memcmp(r->held + i, mark, n) != 0) continue;
        *is_whole = n == len;
        return i;
    }
    return r->n_held;
}

/* Before anything was said: white space, then perhaps the opening tag. True: go on. */
static bool step_start(struct reasoning *r) {
    bool is_whole;
    size_t space = leading_space(r), at;
    if (space >= REASONING_HELD / 2) {
        r->state = REASONING_OUT;  // so much of it is no prelude to a tag
        return true;
    }
    if (space == r->n_held) return false;
    at = find(r, r->style.open, &is_whole);
    if (at == space && !is_whole) return false;
    r->state = at == space ? REASONING_IN : REASONING_OUT;
    if (at == space) drop(r, at + strlen(r->style.open));
    return true;
}

/* Inside: white space at the end is kept back, as the closing tag may follow it; what cannot be kept is
 * let go in runs of one length, so that it does not matter how the text is cut. */
static bool step_in(struct reasoning *r, reasoning_sink *sink, void *ctx) {
    enum { RUN = REASONING_HELD / 2 + 1 };
    bool is_whole;
    if (r->part != REASONING_THOUGHT) {  // nothing of it was given yet
        drop(r, leading_space(r));
        if (!r->n_held) return false;
    }
    size_t at = find(r, r->style.close, &is_whole), text = at;
    while (text && ascii_is_space(r->held[text - 1])) text--;
    text += (at - text) / RUN * RUN;
    if (text) r->part = REASONING_THOUGHT;
    if (is_whole) {
        put(sink, ctx, REASONING_THOUGHT, r->held, text);
        drop(r, at + strlen(r->style.close));
        r->state = REASONING_SKIP;
        return true;
    }
    give(r, text, REASONING_THOUGHT, sink, ctx);
    return false;
}

static bool step_skip(struct reasoning *r) {
    drop(r, leading_space(r));
    if (!r->n_held) return false;
    r->state = REASONING_OUT;
    return true;
}

/* --- harmony --- */

/* <|channel|>NAME .. <|message|>; what opens a message for a tool is handed out with it. Where no mark
 * comes while there is room for it, it is no header at all, and better shown than swallowed: its first
 * byte at once, so that what opened it does not open it again. */
static bool step_header(struct reasoning *r, reasoning_sink *sink, void *ctx) {
    bool is_whole;
    size_t at = find(r, message_mark, &is_whole), end = at + strlen(message_mark);
    if (end > REASONING_HELD) {
        r->part = REASONING_ANSWER;
        r->state = REASONING_OUT;
        give(r, 1, r->part, sink, ctx);
        return true;
    }
    if (!is_whole) return false;
    bool is_call = has(r->held, at, " to=") || has(r->held, at, "to=functions");
    r->part = is_call                        ? REASONING_CALL
              : has(r->held, at, "analysis") ? REASONING_THOUGHT
                                             : REASONING_ANSWER;
    if (is_call) put(sink, ctx, REASONING_CALL, r->held, end);
    drop(r, end);
    r->state = REASONING_OUT;
    return true;
}

/* What is held is a header, or the beginning of one, that never ended: it says nothing. */
static bool is_header(const struct reasoning *r) {
    bool is_whole;
    return !find(r, channel_mark, &is_whole) || !find(r, "<|start|>", &is_whole);
}

/* The body of a message, up to a mark that ends it. */
static bool step_body(struct reasoning *r, reasoning_sink *sink, void *ctx) {
    size_t first = r->n_held;
    const char *mark = NULL;
    for (int i = 0; i < N_BODY_END; i++) {
        bool is_whole;
        size_t at = find(r, body_ends[i], &is_whole);
        if (at > first || (at == first && !is_whole)) continue;
        first = at;
        mark = is_whole ? body_ends[i] : NULL;
    }
    give(r, first, r->part, sink, ctx);
    if (!mark) return false;
    bool opens = !strcmp(mark, "<|start|>") || !strcmp(mark, channel_mark);
    if (!opens) drop(r, strlen(mark));
    r->state = REASONING_HEADER;
    return true;
}

/* --- both --- */

static bool step(struct reasoning *r, reasoning_sink *sink, void *ctx) {
    switch (r->state) {
    case REASONING_START: return step_start(r);
    case REASONING_IN: return step_in(r, sink, ctx);
    case REASONING_SKIP: return step_skip(r);
    case REASONING_HEADER: return step_header(r, sink, ctx);
    case REASONING_OUT:
        if (r->style.kind == REASONING_HARMONY) return step_body(r, sink, ctx);
        give(r, r->n_held, REASONING_ANSWER, sink, ctx);
        return false;
    }
    return false;
}

void reasoning_push(struct reasoning *r, const char *s, size_t len, reasoning_sink *sink,
                    void *ctx) {
    while (len) {
        size_t room = REASONING_HELD - r->n_held, n = len < room ? len : room;
        memcpy(r->held + r->n_held, s, n);
        r->n_held += n;
        s += n;
        len -= n;
        while (step(r, sink, ctx)) {
        }
    }
}

void reasoning_end(struct reasoning *r, reasoning_sink *sink, void *ctx) {
    enum reasoning_part part = r->part;
    if (r->style.kind == REASONING_TAGS) {
        bool inside = r->state == REASONING_IN;
        part = inside ? REASONING_THOUGHT : REASONING_ANSWER;
        while (inside && r->n_held && ascii_is_space(r->held[r->n_held - 1])) r->n_held--;
    }
    if (r->state == REASONING_HEADER && is_header(r)) r->n_held = 0;
    give(r, r->n_held, part, sink, ctx);
}
