/* Reasoning told from the answer, however the text is cut. */
#include "model/reasoning.h"
#include "tap.h"

#include <string.h>
#include <unistd.h>

struct told {
    char text[3][512];
    size_t n[3];
};

static void on_part(void *ctx, enum reasoning_part part, const char *s, size_t len) {
    struct told *t = ctx;
    if (t->n[part] + len >= sizeof t->text[part]) return;
    memcpy(t->text[part] + t->n[part], s, len);
    t->n[part] += len;
}

static void split(struct reasoning_style style, bool is_inside, const char *text, size_t piece,
                  struct told *t) {
    struct reasoning r;
    size_t len = strlen(text);
    memset(t, 0, sizeof *t);
    reasoning_init(&r, style, is_inside);
    for (size_t i = 0; i < len; i += piece) {
        reasoning_push(&r, text + i, len - i < piece ? len - i : piece, on_part, t);
    }
    reasoning_end(&r, on_part, t);
}

/* In pieces of every length the same. */
static void check(const char *template, bool is_inside, const char *text, const char *answer,
                  const char *thought, const char *call) {
    struct reasoning_style style = reasoning_style(template, strlen(template));
    size_t len = strlen(text), bad = 0;
    struct told t;
    for (size_t piece = 1; piece <= len; piece++) {
        split(style, is_inside, text, piece, &t);
        if (strcmp(t.text[REASONING_ANSWER], answer) ||
            strcmp(t.text[REASONING_THOUGHT], thought) || strcmp(t.text[REASONING_CALL], call)) {
            bad = piece;
            break;
        }
    }
    if (!tap_ok(!bad, "%s%s", text, is_inside ? " (inside)" : "")) {
        printf("# in pieces of %zu: answer \"%s\", thought \"%s\", call \"%s\"\n", bad,
               t.text[REASONING_ANSWER], t.text[REASONING_THOUGHT], t.text[REASONING_CALL]);
    }
}

static void test_tags(void) {
    static const char own[] = "{{ '<think>' }}";
    check(own, false, "<think>\nsum \n</think>\n\n4", "4", "sum", "");
    check(own, true, "\n sum\nit\n</think>\n\n 4\n", "4\n", "sum\nit", "");
    check(own, false, " 4 <think>no</think>", " 4 <think>no</think>", "", "");
    check(own, false, "<thin> is no tag", "<thin> is no tag", "", "");
    check(own, false, "<think></think>4", "4", "", "");
    check(own, true, "never </thin ended  ", "", "never </thin ended", "");
    check(own, true, "", "", "", "");
    check("[THINK]", false, "[THINK]a < b[/THINK]c", "c", "a < b", "");
    /* A template that only takes thoughts out of past answers: the model opens the tag itself. */
    check("{{ m.content.split('</think>')[-1] }}", false, "<think>\nsum</think>\n4", "4", "sum",
          "");
    check("{{ m.content.split('</think>')[-1] }}", false, "4 < 5", "4 < 5", "", "");
    check("{{ c | replace('[/THINK]', '') }}", false, "[THINK]a[/THINK]b", "b", "a", "");
    check("no such tags", false, "<think>a</think>b", "<think>a</think>b", "", "");
}

static void test_harmony(void) {
    static const char own[] = "<|channel|> analysis";
    check(own, false,
          "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>4",
          "4", "hm", "");
    check(own, false, "<|channel|>final<|message|>a <| b<|return|>", "a <| b", "", "");
    check(own, false,
          "<|channel|>commentary to=functions.f <|constrain|>json<|message|>{\"a\":1}<|call|>", "",
          "", "<|channel|>commentary to=functions.f <|constrain|>json<|message|>{\"a\":1}");
    check(own, false, "<|channel|>commentary<|message|>I look<|end|>", "I look", "", "");
    check(own, false, "<|channel|>analysis<|message|>cut", "", "cut", "");
    check("<|channel|>", false, "<|channel|>x", "<|channel|>x", "", "");
}

/* White space without end must neither be lost nor fill the splitter. */
static void test_space(void) {
    static const char own[] = "<think>";
    struct reasoning_style style = reasoning_style(own, strlen(own));
    char text[401];
    struct told t;
    memset(text, ' ', 400);
    text[400] = '\0';
    memcpy(text, "a", 1);
    memcpy(text + 390, "b", 1);
    split(style, true, text, 400, &t);
    tap_ok(t.n[REASONING_THOUGHT] == 391, "white space within reasoning stays: %zu",
           t.n[REASONING_THOUGHT]);
    memset(text, ' ', 400);
    split(style, false, text, 7, &t);
    tap_ok(t.n[REASONING_ANSWER] == 400, "white space alone is an answer: %zu",
           t.n[REASONING_ANSWER]);
    memset(text + 250, '<', 150);
    split(style, true, text, 400, &t);
    tap_ok(t.n[REASONING_THOUGHT] >= 150, "what begins like a tag again and again comes out: %zu",
           t.n[REASONING_THOUGHT]);
}

/* n bytes c between two texts. */
static const char *stretched(const char *before, char c, size_t n, const char *after) {
    static char text[512];
    size_t len = strlen(before);
    memcpy(text, before, len);
    memset(text + len, c, n);
    memcpy(text + len + n, after, strlen(after) + 1);
    return text;
}

/* What is longer than the splitter holds: it goes on, and is the same in all pieces. */
static void test_long(void) {
    static const char harmony[] = "<|channel|> analysis";
    static const char *const opens[] = {"<|channel|>", "<|start|>", "", "<|start|><|channel|>"};
    static char spaces[200];
    for (size_t i = 0; i < sizeof opens / sizeof *opens; i++) {
        const char *text = stretched(opens[i], 'x', 300, "");
        check(harmony, false, text, text, "", "");
        text = stretched(opens[i], 'x', 260 - strlen(opens[i]), "<|message|>a");
        check(harmony, false, text, text, "", "");
        check(harmony, false, stretched(opens[i], 'x', 245 - strlen(opens[i]), "<|message|>a"), "a",
              "", "");
    }
    check("<think>", false, stretched("", ' ', 127, "<think>a</think>b"), "b", "a", "");
    const char *text = stretched("", ' ', 128, "<think>a</think>b");
    check("<think>", false, text, text, "", "");
    spaces[0] = 'a';
    memset(spaces + 1, ' ', 129);  // white space that is shown before it is known what follows
    check("<think>", true, stretched("a", ' ', 128, "</think>b"), "b", "a", "");
    check("<think>", true, stretched("a", ' ', 257, "</think>b"), "b", spaces, "");
}

int main(void) {
    alarm(20);  // one that does not go on is a failure
    test_tags();
    test_harmony();
    test_space();
    test_long();
    return tap_done();
}
