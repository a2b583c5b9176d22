/* Conversations whose contents are lists of parts or missing, which some templates take and others do not. */
#include "chat_turn.h"

static struct toy bpe;

/* Contents that are lists of parts, which some templates take. */
static void test_parts(const struct tok *b) {
#define TEXT(t)         "{\"type\":\"text\",\"text\":" t "}"
#define SAY(role, list) "{\"role\":\"" role "\",\"content\":" list "}"
#define LISTS                                                                                      \
    "{{ m.role }}:{% if m.content is string %}{{ m.content }}{% else %}{% for p in m.content %}"   \
    "({{ p.text if p.type == 'text' else p.type }}){% endfor %}{% endif %};"
#define EACH(body) "{% for m in messages %}" body "{% endfor %}"
#define LONG       "0123456789abcdef"
    static const char lists[] = EACH(LISTS), prints[] = EACH("{{ m.content }};"),
                      json[] = EACH("{{ m.content | tojson if m.content is not string else "
                                    "m.content }};"),
                      joins[] = EACH("{{ m.role + ':' + m.content }};"),
                      drops[] = EACH("{{ m.content if m.content is string }};"),
                      one[] =
                          EACH("{{ m.content if m.content is string else m.content[0].text }};"),
                      upper[] = EACH("{{ m.content[0].text | upper }};"),
                      users[] = EACH("{% if m.role == 'user' %}" LISTS
                                     "{% else %}{{ m.role + ':' + m.content }};{% endif %}"),
                      marks[] = EACH("{{ m.content | join('') if m.content is string }}"),
                      never[] = "{{ raise_exception('never') }}";
    static const char two[] = "[" SAY("user", "[" TEXT("\"a <|end|>\"") "," TEXT("\"b\"") "]") "]",
                      digits[] =
                          "[" SAY("user", "\"3584190726 90712600000000 90712600000001\"") "," SAY(
                              "user", "[" TEXT("\"a\"") "," TEXT("\"b\"") "]") "]",
                      odd[] = "[" SAY("user", "[{\"type\":\"\\u001b[1m\\u00e4" LONG LONG LONG LONG
                                              "\"}]") "]",
                      image[] = "[" SAY("user", "\"x\"") "," SAY(
                          "user", "[" TEXT("\"a\"") ",{\"type\":"
                                                    "\"image_url\"}]") "]";
    static const struct {
        const char *name, *template, *messages, *want;  // NULL: refused
        const char *note;                               // or reason
    } c[] = {
        {"taken", lists, two, "user:(a <|end|>)(b);", NULL},
        {"printed as Python does", prints, two, "a <|end|>\nb;", NULL},
        {"printed as JSON", json, two, "a <|end|>\nb;", NULL},
        {"refused", joins, two, "user:a <|end|>\nb;", NULL},
        {"left out", drops, two, "a <|end|>\nb;", NULL},
        {"of which one is left out", one, two, "a <|end|>\nb;", NULL},
        {"changed", upper, "[" SAY("user", "[" TEXT("\"a\"") "]") "]", "A;", NULL},
        {"that say nothing", drops, "[" SAY("user", "[" TEXT("\" \"") "]") "]", ";", NULL},
        {"none of them", joins, "[" SAY("user", "[]") "]", "user:;", NULL},
        {"taken from users, refused from the system", users,
         "[" SAY("system", "[" TEXT("\"S\"") "]") "," SAY("user", "[" TEXT("\"a\"") "]") "]",
         "system:S;user:a;", NULL},
        {"beside texts", joins,
         "[" SAY("user", "\"x\"") "," SAY("assistant", "[" TEXT("\"a\"") "," TEXT("\"\"") "]") "]",
         "user:x;assistant:a\n;", NULL},
        {"of tools", joins, "[" SAY("tool", "[" TEXT("\"a\"") "]") "]", "tool:a;", NULL},
        {"of tools, which are something else", json, "[" SAY("tool", "[{\"type\":\"x\"}]") "]",
         "[{\"type\": \"x\"}];", NULL},
        {"that are no parts", json, "[" SAY("user", "[{\"a\":1}]") "]", "[{\"a\": 1}];", NULL},
        {"beside digits that mark texts elsewhere, taken", lists, digits,
         "user:3584190726 90712600000000 90712600000001;user:(a)(b);", NULL},
        {"beside such digits, printed", prints, digits,
         "3584190726 90712600000000 90712600000001;a\nb;", NULL},
        {"beside such digits, left out", drops, digits,
         "3584190726 90712600000000 90712600000001;a\nb;", NULL},
        {"marked where nothing can be told", marks, two, "a <|end|>\nb", NULL},
        {"an image, taken", lists, image, "user:x;user:(a)(image_url);", "no text"},
        {"an image, printed", prints, image, NULL,
         "message 2 has a part that is no text (of type "
         "\"image_url\")"},
        {"an image, refused", joins, image, NULL, "texts alone"},
        {"something else, with a name that no terminal shall see", joins, odd, NULL,
         "(of type \"?[1m??" LONG LONG LONG "012345...\")"},
        {"an image, left out with the text", drops, image, NULL, "texts alone"},
        {"an image, and another reason", never, image, NULL, "never"},
        {"another reason", never, two, NULL, "never"},
    };
    struct turn u;
    for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
        bool ok = take(&u, &bpe, b, c[i].template, c[i].messages, NULL, CHAT_THINK_AUTO);
        const char *said = ok ? chat_prompt_note(&u.prompt, 6) : u.err.text;
        bool is_said = c[i].note ? said && strstr(said, c[i].note) : !said;
        tap_ok(ok == !!c[i].want && is_said && (!ok || is_text(&u, c[i].want)) &&
                   !count(&u, b, "<|end|>"),
               "parts, %s: %s, %s", c[i].name, ok ? u.prompt.text.text : "none",
               said ? said : "no note");
        drop(&u);
    }
#undef TEXT
#undef SAY
#undef LISTS
#undef EACH
#undef LONG
}

/* Whether all parts are said takes a rendering, which may fail by itself. */
static void test_long_parts(const struct tok *b) {
#define SLOW                                                                                       \
    "{% set l = range(100) %}{% for i in range(100000) %}{% for j in l %}{% endfor %}{% endfor %}"
#define SLOWER                                                                                     \
    "{% set l = range(1000) %}{% for i in range(100000) %}{% for j in l %}{% endfor %}{% endfor %}"
#define PART(role) "{\"role\":\"" role "\",\"content\":[{\"type\":\"text\",\"text\":\"a\"}]}"
    static const struct {
        const char *name, *template, *messages, *want;
    } c[] = {
        {"and all are said", SLOW "{% for m in messages %}{{ m.content[0].text }}{% endfor %}",
         "[" PART("user") "," PART("tool") "]", "aa"},
        {"and none is", SLOW "{{ messages[0].content if messages[0].content is string }}",
         "[" PART("user") "]", NULL},
        {"too long to tell what is said",
         "{% if messages[0].content[0] | length > 2 %}" SLOWER "{% endif %}", "[" PART("user") "]",
         NULL},
    };
    struct turn u;
    for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
        bool ok = take(&u, &bpe, b, c[i].template, c[i].messages, NULL, CHAT_THINK_AUTO);
        tap_ok(c[i].want ? ok && is_text(&u, c[i].want) : !ok && u.err.code == ERR_LIMIT,
               "parts that take long, %s: %s, %s", c[i].name, ok ? u.prompt.text.text : "none",
               u.err.text);
        drop(&u);
    }
#undef SLOW
#undef SLOWER
#undef PART
}

/* Calls beside which nothing is said. */
static void test_bare(const struct tok *b) {
#define BARE(content)                                                                              \
    "[{\"role\":\"user\",\"content\":\"q\"},{\"role\":\"assistant\"," content                      \
    "\"tool_calls\":[{\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}}]}]"
#define NAME "{{ m.tool_calls[0].function.name if m.tool_calls }}"
    static const char
        absent[] = BARE(""),
        null[] = BARE("\"content\":null,"),
        list[] = "[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"q\"}]},"
                 "{\"role\":\"assistant\",\"tool_calls\":[{\"function\":{\"name\":\"f\"}}]}]",
        calm[] = "[{\"role\":\"user\",\"content\":\"q\"},{\"role\":\"assistant\"}]";
    static const char joins[] = "{% for m in messages %}{{ ':' + m.content }}" NAME "{% endfor %}",
                      prints[] = "{% for m in messages %}{{ m.content }}" NAME "{% endfor %}",
                      checks[] = "{% for m in messages %}{{ ':' + m.content }}"
                                 "{% if m.content == '' %}" NAME "{% endif %}{% endfor %}",
                      none[] = "{% for m in messages %}{% if m.content is none %}" NAME
                               "{% else %}{{ ':' + m.content }}{% endif %}{% endfor %}",
                      texts[] = "{% for m in messages %}{{ ':' + m.content }}{% endfor %}",
                      refuses[] = "{{ raise_exception('no calls') if messages[1].tool_calls and "
                                  "messages[1].content is string }}{{ '' + messages[1].content }}";
    static const struct {
        const char *name, *template, *messages, *want;
        bool has_note;
    } c[] = {
        {"no content", joins, absent, ":q:f", false},
        {"null", joins, null, ":q:f", false},
        {"no content, which is taken", prints, absent, "qf", false},
        {"null, which is printed", prints, null, "qNonef", false},
        {"no content, where it must be empty", checks, absent, ":q:f", false},
        {"no content, where it must be null", none, absent, ":qf", false},
        {"null, where it must be that", none, null, ":qf", false},
        {"calls that are left out", texts, absent, ":q:", true},
        {"beside a list of parts", joins, list, ":q:f", false},
        {"another reason", refuses, absent, NULL, false},
        {"no calls", joins, calm, NULL, false},
    };
    struct turn u;
    for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
        bool ok = take(&u, &bpe, b, c[i].template, c[i].messages, NULL, CHAT_THINK_AUTO);
        const char *note = chat_prompt_note(&u.prompt, 5);
        tap_ok(ok == !!c[i].want && !note == !c[i].has_note && (!ok || is_text(&u, c[i].want)),
               "calls, %s: %s%s, %s", c[i].name, ok ? u.prompt.text.text : "", u.err.text,
               note ? note : "no note");
        drop(&u);
    }
#undef BARE
#undef NAME
}

/* Texts of users on templates that take lists of parts alone, and what no form of them gets into a prompt. */
static void test_texts(const struct tok *b) {
#define SAY(role, text)  "{\"role\":\"" role "\",\"content\":" text "}"
#define PART(text)       "{\"type\":\"text\",\"text\":" text "}"
#define EACH(body)       "{% for m in messages %}" body "{% endfor %}"
#define WHERE(condition) "{% for m in messages if " condition " %}"
#define TEXTS            "{% for p in m.content %}{{ p.text if p.type == 'text' }}{% endfor %};"
#define SLOW                                                                                       \
    "{% set l = range(100) %}{% for i in range(100000) %}{% for j in l %}{% endfor %}{% endfor %}"
    static const char lists[] = EACH("{{ m.role }}:" TEXTS),
                      keys[] = EACH("{% for p in m['content'] %}{% if p['type'] == 'text' %}"
                                    "{{ p['text'] }}{% endif %}{% endfor %};"),
                      selects[] = EACH("{% for p in m.content | selectattr('type', 'equalto', "
                                       "'text') %}{{ p.text }}{% endfor %};"),
                      first[] = EACH("{{ m.content[0].text }};"),
                      joins[] = EACH("{{ ':' + m.content[0].text }};"),
                      others[] = EACH("{% for p in m.content %}{{ p.text if p.type == 'text' else "
                                      "'#' }}{% endfor %};"),
                      spells[] = "Assistant, a user has said: " EACH(TEXTS),
                      both[] = EACH("{% if m.content is string %}{{ m.content }}{% else %}" TEXTS
                                    "{% endif %};"),
                      trims[] = EACH("{{ m.content | trim }};"),
                      upper[] = EACH("{{ m.content | upper }};"),
                      prints[] = EACH("{{ m.content if m.content is not string }};"),
                      rest[] = WHERE("m.role != 'user'") "{{ m.content }};{% endfor %}",
                      last[] = "{{ messages[-1].content }}",
                      half[] = EACH("{{ m.role }}:{% if m.role == 'tool' %}{{ m.content }};"
                                    "{% else %}" TEXTS "{% endif %}"),
                      nosystem[] = "{{ raise_exception('no system role') if messages[0].role == "
                                   "'system' }}" EACH(TEXTS),
                      calls[] = EACH("{{ ':' + m.content[0].text }}"
                                     "{{ m.tool_calls[0].name if m.tool_calls }};"),
                      odds[] = EACH("{% for p in m.content %}{{ p.text if p.type == 'text' else "
                                    "p.type }}{% endfor %};"),
                      never[] = "{{ raise_exception('too few') if messages | length < 9 }}" EACH(
                          "{{ '' + m.content[0].text }}"),
                      slow[] = SLOW "q";
    static const char user[] = "[" SAY("user", "\"a <|end|>\"") "]",
                      x[] = "[" SAY("user", "\"a\"") "]",
                      turns[] = "[" SAY("system", "\"S\"") "," SAY("user", "\"a\"") "," SAY(
                          "assistant", "\"b\"") "," SAY("user", "\"c\"") "," SAY("tool",
                                                                                 "\"\"") "]",
                      mixed[] = "[" SAY("user", "\"a\"") "," SAY(
                          "assistant", "[" PART("\"b\"") "]") "," SAY("user",
                                                                      "[" PART("\"c\"") "]") "]",
                      image[] = "[" SAY("user", "\"a\"") "," SAY(
                          "user", "[{\"type\":\"image\"}," PART("\"c\"") "]") "]";
    static const struct {
        const char *name, *template, *messages, *want;  // NULL: refused
        int note;                                       // -1: none
        const char *reason;
    } c[] = {
        {"by names", lists, user, "user:a <|end|>;", -1, NULL},
        {"by keys", keys, user, "a <|end|>;", -1, NULL},
        {"selected", selects, user, "a <|end|>;", -1, NULL},
        {"of one part", first, user, "a <|end|>;", -1, NULL},
        {"that refuse texts", joins, user, ":a <|end|>;", -1, NULL},
        {"that write of what is no part", others, user, "a <|end|>;", -1, NULL},
        {"that spell it themselves", spells, x, "Assistant, a user has said: a;", -1, NULL},
        {"all of a conversation", lists, turns, "system:S;user:a;assistant:b;user:c;tool:;", -1,
         NULL},
        {"beside lists", lists, mixed, "user:a;assistant:b;user:c;", -1, NULL},
        {"beside a list that loses a part", first,
         "[" SAY("user", "\"a\"") "," SAY(
             "assistant", "[" PART("\"b\"") "," PART("\"x\"") "]") "," SAY("user", "\"c\"") "]",
         "a;b;c;", -1, NULL},
        {"beside an image", odds, image, "a;imagec;", 6, NULL},
        {"a system's beside lists", lists,
         "[" SAY("system", "\"S\"") "," SAY("user", "[" PART("\"a\"") "]") "]", "system:S;user:a;",
         -1, NULL},
        {"with a system text that is refused", nosystem,
         "[" SAY("system", "\"S\"") "," SAY("user", "\"a\"") "]", "S\n\na;", 2, NULL},
        {"with calls that say nothing", calls,
         "[" SAY("user", "\"a\"") ",{\"role\":\"assistant\",\"tool_calls\":[{\"name\":\"f\"}]}]",
         ":a;:f;", -1, NULL},
        {"but for tools", half, "[" SAY("user", "\"a\"") "," SAY("tool", "\"r\"") "]",
         "user:;tool:r;", 7, NULL},
        {"that take both", both, x, "a;", -1, NULL},
        {"that trim", trims, "[" SAY("user", "\" a \"") "]", "a;", -1, NULL},
        {"that change letters", upper, user, "A <|END|>;", -1, NULL},
        {"blank", lists, "[" SAY("user", "\" \"") "]", "user:;", -1, NULL},
        {"none", lists, "[" SAY("assistant", "\"a\"") "]", "assistant:;", -1, NULL},
        {"that print lists", prints, x, ";", 7, NULL},
        {"that leave out users", rest, x, "", 7, NULL},
        {"that leave out users' lists", rest, "[" SAY("user", "[" PART("\"a\"") "]") "]", "", 7,
         NULL},
        {"of which the last is taken", last, "[" SAY("user", "\"a\"") "," SAY("user", "\"b\"") "]",
         "b", 7, NULL},
        {"too slow to be tried again", slow, x, "q", 7, NULL},
        {"refused for another reason", never, x, NULL, -1, "too few"},
    };
    struct turn u;
    for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
        bool ok = take(&u, &bpe, b, c[i].template, c[i].messages, NULL, CHAT_THINK_AUTO);
        int note = -1;
        for (int k = 0; ok && k < CHAT_NOTES; k++) {
            if (chat_prompt_note(&u.prompt, k)) note = note < 0 ? k : CHAT_NOTES;
        }
        bool is_right = c[i].want ? ok && is_text(&u, c[i].want) && note == c[i].note
                                  : !ok && strstr(u.err.text, c[i].reason);
        tap_ok(is_right && !count(&u, b, "<|end|>"), "texts, %s: %s%s, note %d", c[i].name,
               ok ? u.prompt.text.text : "", u.err.text, note);
        drop(&u);
    }
#undef SAY
#undef PART
#undef EACH
#undef WHERE
#undef TEXTS
#undef SLOW
}

int main(void) {
    struct tok *b = NULL;
    struct err e = {0};
    toy_bpe(&bpe, "llama-bpe");
    if (tap_ok(tok_open(&b, &bpe.v, &e), "vocabulary %s", e.text)) {
        test_parts(b);
        test_long_parts(b);
        test_bare(b);
        test_texts(b);
    }
    tok_close(b);
    return tap_done();
}
