/* Cutting text into words: examples of each pattern's own turns, and time in proportion to the length
 * on texts made to be slow. tests/pretok.t compares the cuts with the published patterns themselves. */
#include "model/pretok.h"
#include "tap.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

static void check(const char *name, const char *text, const char *want) {
    char got[512];
    size_t n = 0, len = strlen(text);
    struct pretok p;
    struct pretok_words w;
    if (!tap_ok(pretok_find(&p, name), "%s is known", name)) return;
    pretok_begin(&w, p.cut, (const uint8_t *)text, len);
    for (size_t at = 0, k; (k = pretok_next(&w)); at = w.at) {
        if (at) got[n++] = '|';
        memcpy(got + n, text + at, k);
        n += k;
    }
    got[n] = 0;
    if (!tap_ok(!strcmp(got, want), "%s", name)) printf("# got %s\n# want %s\n", got, want);
}

static void check_words(void) {
    check("gpt-2", "Hello world's 12345  x", "Hello| world|'s| 12345| | x");
    check("llama-bpe", "Hello world's 12345  x", "Hello| world|'s| |123|45| | x");
    check("gpt-2", "it'S WE'LL a\n\n b \t", "it|'|S| WE|'|LL| a|\n\n| b| \t");
    check("llama-bpe", "it'S WE'LL a\n\n b \t", "it|'S| WE|'LL| a|\n\n| b| \t");
    check("llama-bpe", "a \n \n  b", "a| \n \n| | b");
    check("llama-bpe", "#x !!\r\n\r\nx ?\t(y", "#x| !!\r\n\r\n|x| ?|\t|(y");
    check("gpt-2", "#x !!\r\n\r\nx ?\t(y", "#|x| !!|\r\n\r|\n|x| ?|\t|(|y");
    check("llama-bpe", "½²³Ⅷ é世e\xcc\x81", "½²³|Ⅷ| é世e|\xcc\x81");
    check("gpt-2", "½²³Ⅷ é世e\xcc\x81", "½²³Ⅷ| é世e|\xcc\x81");
    check("llama-bpe", "\xff\xc3 a\xffz' 'x''s", "\xff\xc3| a|\xffz|'| '|x|''|s");
    check("qwen2", "in 1984: it's", "in| |1|9|8|4|:| it|'s");
    check("qwen35", "e\xcc\x81t\xcc\x82 \xcc\x81", "e\xcc\x81t\xcc\x82| \xcc\x81");
    check("minicpm5", "a  1234 b", "a|  |123|4| b");
    check("seed-coder", "x = 12;\n\ny", "x| =| |1|2|;|\n\n|y");
    check("tekken", "HelloWorld camelCase JSONData 日A", "Hello|World| camel|Case| JSONData| 日|A");
    check("tekken", "a/b//\n 12", "a|/b|//\n| |1|2");
    check("gpt-4o", "IT'S it's 12345 !/\n/x", "IT'S| it's| |123|45| !/\n/|x");
    check("gpt-4o", "DON'T stopNow'LL", "DON'T| stop|Now'LL");
    check("smollm", "in 1984  x1", "in| |1|9|8|4| | x|1");
    check("falcon", "a+b == 12345  (x)", "a|+|b| |==| |123|45|  |(|x|)");
    check("bloom", "Hei, a1'b  12 (x)…\n!", "Hei|,| a1'b| | 12| (|x|)…\n!");
    check("viking", "x12, 3", "x|1|2|,| |3");
    check("default", "a+b `x` it's 12345\t\n c (y)",
          "a|+|b| `|x|`| it|'|s| |123|45|\t\n| c| |(|y|)");
    check("gemma4", "a b\n\n c!\r\n", "a b|\n\n| c!\r|\n");
    check("deepseek-llm", "Hi 世界 12.5\n ok ", "Hi| |世界| |12|.|5|\n| ok| ");
    check("deepseek-coder", "f(x) 世12\n", "f|(|x|)| |世|1|2|\n");
    check("deepseek-v3", "f(x) = 12345 日本é\n\n  y", "f|(x|)| =| |123|45| |日本|é|\n\n| | y");
}

/* What llama.cpp makes of each name (llama-vocab.cpp, as of November 2026): those with the same patterns and the
 * same settings on a line. It says ignore_merges for whole_words, clean_spaces for tidy, add_bos for bos and
 * escape_whitespaces for marks. */
static const struct {
    struct pretok is;
    const char *names;
} facts[] = {
    {{.cut = PRETOK_LLAMA3, .whole_words = true, .tidy = true, .bos = true},
     "llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2"},
    {{.cut = PRETOK_LLAMA3, .tidy = true}, "dbrx smaug-bpe glm4 chatglm-bpe"},
    {{.cut = PRETOK_MINICPM5, .whole_words = true, .tidy = true}, "minicpm5"},
    {{.cut = PRETOK_TEKKEN, .whole_words = true, .bos = true}, "tekken"},
    {{.cut = PRETOK_GPT2, .tidy = true},
     "gpt-2 phi-2 mpt olmo jais gigachat a.x-4.0 mellum exaone4"},
    {{.cut = PRETOK_GPT2}, "trillion granite-docling"},
    {{.cut = PRETOK_QWEN2},
     "qwen2 deepseek-r1-qwen kormo hunyuan grok-2 bailingmoe bailingmoe2 llada-moe "
     "solar-open"},
    {{.cut = PRETOK_QWEN2, .tidy = true}, "megrez stablelm2"},
    {{.cut = PRETOK_QWEN35}, "qwen35"},
    {{.cut = PRETOK_SEED}, "seed-coder"},
    {{.cut = PRETOK_GPT4O}, "gpt-4o llama4 kanana2 minimax-m2 talkie"},
    {{.cut = PRETOK_DIGITS_GPT2}, "smollm command-r"},
    {{.cut = PRETOK_DIGITS_GPT2, .tidy = true},
     "starcoder refact codeshell exaone minerva-7b mellum2"},
    {{.cut = PRETOK_BLOOM}, "poro-chat"},
    {{.cut = PRETOK_BLOOM, .tidy = true}, "bloom gpt3-finnish"},
    {{.cut = PRETOK_VIKING}, "viking"},
    {{.cut = PRETOK_FALCON, .tidy = true}, "falcon"},
    {{.cut = PRETOK_DEFAULT, .tidy = true}, "default"},
    {{.cut = PRETOK_DEEPSEEK}, "deepseek-llm"},
    {{.cut = PRETOK_DEEPSEEK_CODER}, "deepseek-coder"},
    {{.cut = PRETOK_DEEPSEEK3}, "deepseek-v3 hunyuan-dense joyai-llm hy_v4"},
    {{.cut = PRETOK_LINES, .tidy = true, .bos = true, .marks = true}, "gemma4"},
};

static void check_facts(void) {
    size_t n = 0;
    for (size_t i = 0; i < sizeof facts / sizeof *facts; i++) {
        const struct pretok *want = &facts[i].is;
        char names[160], *at = names, *name;
        snprintf(names, sizeof names, "%s", facts[i].names);
        while ((name = strsep(&at, " "))) {
            struct pretok p;
            bool ok = pretok_find(&p, name) && p.cut == want->cut && p.tidy == want->tidy &&
                      p.whole_words == want->whole_words && p.bos == want->bos &&
                      p.marks == want->marks;
            tap_ok(ok, "%s: its cut and its settings", name);
            n++;
        }
    }
    tap_ok(n == pretok_count(), "these are all %zu names (%zu)", n, pretok_count());
}

static void check_names(void) {
    struct pretok p;
    tap_ok(!pretok_find(&p, "") && !pretok_find(&p, "Default") && !pretok_find(&p, "llama-bp"),
           "a name that is not known is not");
}

/* Seconds that one cut of the text takes; the best of some. */
static double seconds(enum pretok_cut cut, const uint8_t *s, size_t len, size_t *words) {
    double best = 1e9;
    for (int i = 0; i < 3; i++) {
        struct timespec a, b;
        struct pretok_words w;
        size_t sum = 0;
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &a);
        pretok_begin(&w, cut, s, len);
        *words = 0;
        for (size_t n; (n = pretok_next(&w)); sum += n) ++*words;
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &b);
        double t = (double)(b.tv_sec - a.tv_sec) + (double)(b.tv_nsec - a.tv_nsec) * 1e-9;
        if (t < best) best = t;
        if (sum != len) return 1e9;
    }
    return best;
}

/* A unit over and over, then an end: 16 times the text takes 16 times as long, and not 256. */
static void check_linear(void) {
    enum { SMALL = 4000, TIMES = 16 };
    static const char *const unit[] = {"a",
                                       "A",
                                       " ",
                                       "\n",
                                       "\t",
                                       "1",
                                       "!",
                                       "/",
                                       "'",
                                       "　",
                                       "世",
                                       "é",
                                       "ʰA",
                                       "Aa",
                                       " \n",
                                       "\xcc\x81",
                                       "\xf0\x9f\x98\x80",
                                       "\xff",
                                       "'s",
                                       "a1",
                                       " a",
                                       "  a",
                                       "\n/",
                                       "\x01",
                                       "A\xcc\x81",
                                       "!\n",
                                       "１",
                                       "日A",
                                       "ʰAAA",
                                       ". ",
                                       "$",
                                       "½",
                                       "a \n b!"};
    static const char *const end[] = {"", "x", "\n"};
    char *text = malloc(SMALL * TIMES + 64);
    if (!text) abort();
    for (int cut = 0; cut < N_PRETOK_CUT; cut++) {
        double worst = 0;
        const char *which = "";
        bool whole = true;
        for (size_t u = 0; u < sizeof unit / sizeof *unit; u++) {
            for (size_t k = 0; k < sizeof end / sizeof *end; k++) {
                double t[2];
                for (size_t big = 0; big < 2; big++) {
                    size_t n = 0, step = strlen(unit[u]), to = big ? SMALL * TIMES : SMALL, words;
                    for (; n + step <= to; n += step) memcpy(text + n, unit[u], step);
                    memcpy(text + n, end[k], strlen(end[k]) + 1);
                    n += strlen(end[k]);
                    t[big] = seconds((enum pretok_cut)cut, (uint8_t *)text, n, &words);
                    whole &= t[big] < 1e9;
                }
                double ratio = t[1] / (t[0] + 20e-6);
                if (ratio > worst) worst = ratio, which = unit[u];
            }
        }
        tap_ok(whole && worst < 4 * TIMES,
               "cut %d takes time by length (%d x the text, %.1f x: %s)", cut, TIMES, worst,
               which[0] < ' ' || strchr(which, '\n') ? "(control)" : which);
    }
    free(text);
}

int main(void) {
    check_words();
    check_names();
    check_facts();
    check_linear();
    return tap_done();
}
