/* The template language: what templates of ours give, as jinja2 gives it; where bytes come from; that
 * what is wrong or too much is refused with a sentence. */
#include "model/jinja.h"
#include "tap.h"

#include <stdlib.h>
#include <string.h>

static const char variables[] =
    "{\"s\":\"Hello <|end|> w\u00f6rld\",\"n\":5,\"l\":[3,1,2],\"w\":[\"b\",\"A\",\"c\"],\"none\":null,"
    "\"d\":{\"b\":1,\"a\":{\"x\":[1,2.5,true]}},\"m\":[{\"role\":\"user\",\"content\":\"hi\"},"
    "{\"role\":\"<|end|>\",\"content\":\"yo\"}],\"u\":\"  a b \\n c  \"}";

static struct json_doc *doc;

static bool render(const char *template, struct jinja_text *out, struct err *e) {
    struct jinja_var var[32];
    char name[32][16];
    size_t n = 0;
    struct jinja *t = NULL;
    struct json_iter at;
    struct json_chars key;
    const struct json_value *item;
    for (json_members(&at, json_root(doc)); json_next(&at, &key, &item); n++) {
        snprintf(name[n], sizeof name[n], "%.*s", (int)key.len, key.s);
        var[n] = (struct jinja_var){.name = name[n], .json = item};
    }
    var[n++] = (struct jinja_var){.name = "own", .text = {"<|end|>", 7}, .is_trusted = true};
    bool ok = jinja_compile(&t, template, strlen(template), e) &&
              jinja_render(t, var, n, 1767323045, out, e);
    jinja_free(t);
    return ok;
}

static void gives(const char *template, const char *want) {
    struct jinja_text out = {0};
    struct err e = {0};
    bool ok = render(template, &out, &e);
    bool same = ok && out.len == strlen(want) && !memcmp(out.text, want, out.len);
    if (!tap_ok(same, "%s", template)) {
        printf("# got \"%s\"\n# want \"%s\"\n", ok ? out.text : e.text, want);
    }
    jinja_text_free(&out);
}

/* It fails with this code, and a sentence that has these words in it. */
static void refused(const char *template, enum err_code code, const char *words) {
    struct jinja_text out = {0};
    struct err e = {0};
    bool ok = render(template, &out, &e);
    bool as_said = !ok && e.code == code && strstr(e.text, words) && !out.text;
    tap_ok(as_said, "refused: %.60s: %s", template, e.text);
    jinja_text_free(&out);
}

/* The marks of all bytes, T for the template's and d for data. */
static void marks(const char *template, const char *want) {
    struct jinja_text out = {0};
    struct err e = {0};
    char got[256] = "";
    size_t n = 0;
    if (render(template, &out, &e)) {
        for (size_t i = 0; i < out.n_span && n < sizeof got - 1; i++) {
            const struct jinja_span *s = &out.span[i];
            bool adjoins = s->at == n && (!i || out.span[i - 1].is_data != s->is_data);
            for (size_t k = 0; k < s->len && n < sizeof got - 1; k++) {
                got[n++] = !adjoins ? '?' : s->is_data ? 'd' : 'T';
            }
        }
    }
    tap_ok(!strcmp(got, want), "marks of %s: %s", template, *e.text ? e.text : got);
    jinja_text_free(&out);
}

static void test_language(void) {
    gives("a{{ n + 1 }}b{# c #}", "a6b");
    gives(
        "{{ 7 // 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 2 ** 10 }} {{ 1e16 }} {{ 0.1 + 0.2 }}",
        "3 -4 2 3.5 1024 1e+16 0.30000000000000004");
    gives("{{ [1, 1.0, true, none, 'a\"', \"it's\"] }} {{ (1,) }} {{ {'a': {}} }}",
          "[1, 1.0, True, None, 'a\"', \"it's\"] (1,) {'a': {}}");
    gives("{{ 1 < 2 < 3 }} {{ 'a' in 'abc' }} {{ 2 not in l }} {{ not n }} {{ 1 == true }}",
          "True True False False True");
    gives("{{ s[0] }}{{ s[-4:] }}{{ l[::-1] }}{{ s[1:9:3] }}{{ l[9] is defined }}",
          "H\u00f6rld[2, 1, 3]eo|False");
}

static void test_text(void) {
    gives("{{ '\u0130X' | lower }}{{ 'A\u0130'.casefold() }}{{ '\u0130' | lower | length }}",
          "i\u0307xai\u03072");
    gives("{{ u.split() }}{{ u | trim }}{{ u.strip().replace('b', 'B', 1) }}",
          "['a', 'b', 'c']a b \n ca B \n c");
    gives("{{ d | tojson }}{{ d | tojson(indent=1) }}",
          "{\"b\": 1, \"a\": {\"x\": [1, 2.5, true]}}"
          "{\n \"b\": 1,\n \"a\": {\n  \"x\": [\n   1,\n   2.5,\n   true\n  ]\n }\n}");
    gives("{{ '%5.1f|%-4s|%d' % (3.14159, 'a', 7) }} {{ '{:>4}{!r}{a}'.format(1, 'x', a=2) }}",
          "  3.1|a   |7    1'x'2");
    gives("{{ l | sort | join('-') }} {{ w | sort }} {{ m | map(attribute='content') | list }}",
          "1-2-3 ['A', 'b', 'c'] ['hi', 'yo']");
    gives("{{ m | selectattr('role', 'equalto', 'user') | map('length') | first }}", "2");
    gives("{{ nothing | map('upper') | list }}{{ [] | map('upper') | map('lower') | join }}", "[]");
    gives("{{ [0, 1] | select | list }}{{ [0, 1] | reject | list }}", "[1][0]");
    gives("{{ strftime_now('%d %b %Y %H:%M') }}", "02 Jan 2026 03:04");
    gives("{{ nothing }}{{ nothing is defined }}{{ d.zz | default('q') }}{{ none.x }}", "Falseq");
}

/* What `safe` and `escape` mark as escaped already (Python's Markup): adding to it escapes the rest. */
static void test_markup(void) {
    gives("{{ 'a\"' | safe + '<\"' }} {{ '<' + '<' | safe }} {{ '<' | safe ~ '<' }}",
          "a\"&lt;&#34; &lt;< <<");
    gives("{{ 'f: ' | safe + d | tojson + '\\n' | safe }}",
          "f: {&#34;b&#34;: 1, &#34;a&#34;: {&#34;x&#34;: [1, 2.5, true]}}\n");
    gives("{{ '<' | e | e }}{{ '<' | safe | e }}{{ '<' | safe | forceescape }} {{ '<' | e + '<' }}",
          "&lt;<&lt; &lt;&lt;");
    gives("{{ '<a ' | safe | trim | upper + '<' }} {{ ('<a' | safe)[:1] + '<' }} "
          "{{ ('<,' | safe).split(',')[0].strip() + '<' }} {{ ('<' | safe) * 2 + '<' }}",
          "<A&lt; <&lt; <&lt; <<&lt;");
    gives("{% set x = '<' | safe %}{{ x + '<' }}{% set y %}{{ x }}{% endset %}{{ y + '<' }}"
          "{{ x | replace('a', '') + '<' }}{{ [x] | join + '<' }}{{ x | list | first + '<' }}",
          "<&lt;<<<<<<<<");
    gives(
        "{{ '<' | safe is escaped }} {{ '<' is escaped }} {{ ['<' | safe] }} {{ '<' | safe == '<' }}",
        "True False [Markup('<')] True");
    marks("{{ own | safe + m[1].role }}", "TTTTTTTddddddddddddd");
}

static void test_statements(void) {
    gives("  {% if n > 3 %}\n  yes\n  {% endif %}\nend\n", "  yes\nend");
    gives("a {%- if n -%} b {%- endif %} c", "ab c");
    gives(
        "{% for i in l if i > 1 %}{{ loop.index }}{{ i }}{{ ',' if not loop.last }}{% else %}-{% endfor %}",
        "13,22");
    gives(
        "{% set x = 1 %}{% set ns = namespace(t=0) %}{% for i in l %}{% set x = 9 %}"
        "{% set ns.t = ns.t + i %}{% if i == 1 %}{% break %}{% endif %}{% endfor %}{{ x }}{{ ns.t }}",
        "14");
    gives("{% macro f(a, b=2) %}{{ a }}{{ b }}{{ caller() if caller }}{% endmacro %}"
          "{{ f(1) }}{{ f(b=3, a=4) }}{% call f(0) %}!{% endcall %}",
          "124302!");
    gives("{% macro f(a, b=2) %}{{ varargs }}{% endmacro %}{{ f.name }}{{ f.arguments }}"
          "{{ f.catch_varargs }}{{ f.catch_kwargs }}{{ f.caller }}",
          "f('a', 'b')TrueFalseFalse");
    gives("{% macro f() %}{{ caller() }}{{ kwargs }}{% endmacro %}{{ f.arguments }}"
          "{{ f.catch_varargs }}{{ f.catch_kwargs }}{{ f.caller }}",
          "()FalseTrueTrue");
    gives("{% autoescape false %}{{ '<' }}{% endautoescape %}", "<");
    gives("{% set t %}x{{ n }}{% endset %}{% filter upper %}{{ t }}{% endfilter %}", "X5");
    gives("{% raw %}{{ a }}{% endraw %}{% generation %}g{% endgeneration %}", "{{ a }}g");
    gives("{% set x = l | map('string') %}{{ x | list }}{{ x | list }}", "['3', '1', '2'][]");
}

static void test_marks(void) {
    marks("<|a|>{{ s[6:13] }}{{ own }}", "TTTTTdddddddTTTTTTT");
    marks("{{ ('<' + s[7] + '>') | upper }}", "TdT");
    marks("{{ s.replace('Hello ', 'x').replace(' w\u00f6rld', '') }}", "Tddddddd");
    marks("{{ m[0].role }}{{ m[1].role }}", "TTTTddddddd");
    marks("{{ [m[1].role] | tojson }}", "TTdddddddTT");
    marks("{{ '%s!' % w[0] }}{{ '{}!'.format(w[0]) }}{{ w | join('') }}", "dTdTddd");
    marks("{% set x %}a{{ w[0] }}{% endset %}{{ x[1:] ~ x[0] }}{{ x | title }}", "dTTd");
    marks("{{ d | list | join }}", "dd");
}

static void test_refusals(void) {
    refused("{{ n", ERR_FORMAT, "line 1");
    refused("\n\n{% if n %}", ERR_FORMAT, "endif");
    refused("{{ 1variable }}", ERR_FORMAT, "missing");
    refused("{% set 42 = n %}", ERR_FORMAT, "name");
    refused("{{ true() }}", ERR_FORMAT, "called");
    refused("\n{{ nothing.x }}", ERR_FORMAT, "line 2: \"nothing\" is undefined");
    refused("{{ s | nosuch }}", ERR_FORMAT, "no filter \"nosuch\"");
    refused("{{ 'a' + 1 }}", ERR_FORMAT, "between str and int");
    refused("{{ '{} {0}'.format(1) }}", ERR_FORMAT, "numbered");
    refused("{{ '{0} {}'.format(1) }}", ERR_FORMAT, "numbered");
    refused("{% autoescape true %}{% endautoescape %}", ERR_UNSUPPORTED, "autoescape");
    refused("{{ raise_exception('no system, please') }}", ERR_UNSUPPORTED, "no system, please");
    refused("{{ l.append(1) }}", ERR_FORMAT, "in place");
    refused("{% include 'x' %}", ERR_UNSUPPORTED, "include");
    refused("{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}", ERR_LIMIT, "levels deep");
    refused("{% set r = range(9999) %}{% for i in r %}{% for j in r %}{% endfor %}{% endfor %}",
            ERR_LIMIT, "steps");
    refused("{{ 'aaaaaaaaaaaaaaaa' * 99999999 }}", ERR_LIMIT, "MiB");
    refused("{% set ns = namespace(x=[]) %}{% for i in range(9999) %}{% set ns.x = [ns.x, ns.x] %}"
            "{% endfor %}{{ ns.x }}",
            ERR_LIMIT, "levels deep");
    refused("{{ range(10 ** 9) }}", ERR_LIMIT, "100000");
}

/* Nesting in the source: brackets, signs, blocks. */
static void test_nesting(void) {
    static const struct {
        const char *open, *middle;
    } kind[] = {{"(", "1"},    {"[", ""},          {"-", "1"},
                {"not ", "1"}, {"{% if 1 %}", ""}, {"1 if 1 else ", "1"}};
    enum { DEEP = 20000 };
    for (size_t k = 0; k < sizeof kind / sizeof *kind; k++) {
        bool is_block = kind[k].open[0] == '{';
        size_t len = strlen(kind[k].open), n = 0;
        char *text = malloc(len * DEEP + 16);
        if (!is_block) n += (size_t)sprintf(text, "{{ ");
        for (int i = 0; i < DEEP; i++, n += len) memcpy(text + n, kind[k].open, len);
        memcpy(text + n, is_block ? "" : " }}", is_block ? 1 : 4);
        refused(text, ERR_LIMIT, "deep");
        free(text);
    }
}

int main(void) {
    struct err e = {0};
    if (!tap_ok(json_read(&doc, variables, strlen(variables), 1 << 20, &e), "variables %s",
                e.text)) {
        return tap_done();
    }
    test_language();
    test_text();
    test_markup();
    test_statements();
    test_marks();
    test_refusals();
    test_nesting();
    json_free(doc);
    return tap_done();
}
