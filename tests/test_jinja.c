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
    gives("{{ 'a' | center(-9223372036854775807 - 1) }}{{ 'b'.zfill(-9223372036854775807 - 1) }}",
          "ab");
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

/* --- what it costs --- */

/* Templates whose work grows far beyond their size. Sizes are such that an interpreter that forgets to
 * count comes to an end after some seconds, and fails here. */
static void test_hostile(void) {
    static const char twice[] =  // lists that hold the one before twice: 2^28 ones, in 28 lists
        "{% set ns = namespace(l=[1], k=[1], d={1: 1}, e={1: 1}, t=(1,)) %}{% for i in range(28) %}"
        "{% set ns.l = [ns.l, ns.l] %}{% set ns.k = [ns.k, ns.k] %}{% set ns.d = {1: ns.d, 2: ns.d} %}"
        "{% set ns.e = {1: ns.e, 2: ns.e} %}{% endfor %}"
        "{% for i in range(6) %}{% set ns.t = (ns.t,) * 30 %}{% endfor %}";
    static const struct {
        const char *setup, *template;
    } known[] = {
        {twice, "{{ ns.l == ns.k }}"},
        {twice, "{{ ns.d == ns.e }}"},
        {twice, "{{ [ns.l, ns.l] | sort | length }}"},
        {twice, "{{ {ns.t: 1} | length }}"},
        {"{% set l = range(100000) | list %}",
         "{% for i in range(2000) %}{% if -1 in l %}{% endif %}{% endfor %}"},
        {"{% set b = 'b' * 40000 %}{% set t = 'a' * 40000 ~ 'b' %}", "{{ b.strip(t) }}"},
        {"{% set b = 'a' * 80000 %}{% set t = 'a' * 40000 ~ 'b' %}", "{{ b.rfind(t) }}"},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        char text[2048];
        snprintf(text, sizeof text, "%s%s", known[i].setup, known[i].template);
        refused(text, ERR_LIMIT, "steps");
    }
}

/* The steps of a template that begins with N as a name for this number. */
static uint64_t steps_of(size_t n, const char *setup, const char *template, struct err *e) {
    char text[2048];
    struct jinja_text out = {0};
    snprintf(
        text, sizeof text,
        "{%% set N = %zu %%}{%% set b = 'a' * N %%}{%% set l = range(N) | list %%}%s{%% if 1 %%}%s"
        "{%% endif %%}",
        n, setup, template);
    uint64_t steps = render(text, &out, e) ? out.steps : 0;
    jinja_text_free(&out);
    return steps;
}

/* What is done to a text of N bytes or a list of N items costs a step for every 32 of them at least,
 * and how often it is done is what counts: nothing is rounded away. */
static void test_prices(void) {
    static const struct {
        const char *setup, *work;
    } known[] = {
        {"{% set c = b ~ '' %}", "b == c"},
        {"{% set c = b ~ '' %}", "b < c"},
        {"{% set c = b ~ '' %}", "b.startswith(c)"},
        {"{% set c = b ~ '' %}", "b.removesuffix(c)"},
        {"{% set c = b ~ '' %}", "{c: 1}[b]"},
        {"{% set c = (b ~ 'b') %}", "b in c"},
        {"", "b | length"},
        {"", "b[99999999]"},
        {"", "b[-1]"},
        {"", "b[1:]"},
        {"", "b[::2]"},
        {"", "b | trim('a')"},
        {"{% set b = ' ' * N %}", "b | trim"},
        {"{% set b = ' ' * N %}", "b | int"},
        {"{% set b = ' ' * N %}", "b | float"},
        {"{% set b = '0' * N %}", "b | int"},
        {"{% set b = ' ' * N %}", "b.isspace()"},
        {"{% set b = 'a ' * N %}", "b.split()"},
        {"", "b.rsplit()"},
        {"", "b.split('b')"},
        {"", "b.rsplit('ab')"},
        {"", "b.partition('b')"},
        {"", "b.rpartition('b')"},
        {"", "b.splitlines()"},
        {"", "b.find('b')"},
        {"", "b.rfind('b')"},
        {"", "b.count('b')"},
        {"", "b.count('')"},
        {"", "b.isalpha()"},
        {"", "b is lower"},
        {"", "b is upper"},
        {"", "b | upper"},
        {"", "b | title"},
        {"", "b | escape"},
        {"", "b | urlencode"},
        {"", "b | indent"},
        {"", "b | truncate(9)"},
        {"", "b | wordcount"},
        {"", "b | center(9)"},
        {"", "b | replace('a', '')"},
        {"", "b | list"},
        {"", "b | reverse"},
        {"", "b | tojson"},
        {"", "[b] | string"},
        {"", "b ~ b"},
        {"", "b + b"},
        {"", "'x' * N"},
        {"", "[1] * N"},
        {"", "' ' | center(N)"},
        {"", "b % ()"},
        {"", "b.format()"},
        {"", "strftime_now(b)"},
        {"{% set b = '%Z' * N %}", "strftime_now(b)"},
        {"{% set b = '%' ~ '-' * N ~ 'd' %}", "b % 1"},
        {"{% set b = '{:' ~ '0' * N ~ 'd}' %}", "b.format(1)"},
        {"{% set k = l[:] %}", "l == k"},
        {"{% set k = l[:] %}", "l < k"},
        {"{% set k = l[:] %}", "l + k"},
        {"", "l[::-1]"},
        {"", "-1 in l"},
        {"", "l.count(-1)"},
        {"", "l | sort"},
        {"", "l | max"},
        {"", "l | sum"},
        {"", "l | unique"},
        {"", "l | reverse"},
        {"", "l | join"},
        {"", "l | map('abs')"},
        {"", "[1] | map(attribute=b)"},
        {"", "[1] | selectattr(b)"},
        {"", "[1] | sort(attribute=b)"},
        {"", "l | select('none')"},
        {"", "l | batch(3)"},
        {"", "l | tojson"},
        {"", "l | string"},
        {"", "l | groupby('x', 0)"},
        {"", "dict(b=l) | tojson"},
        {"{% set ns = namespace() %}{% set ns.a = ns %}{% set p = 'a' ~ '.a' * N %}",
         "[ns] | map(attribute=p)"},
        {"{% set t = (1,) * N %}", "{t: 1}"},
        {"{% set t = ('b',) * N %}", "b.startswith(t)"},
        {"{% set d = dict(l | map('string') | batch(2)) %}", "dict(d)"},
        {"{% set d = dict(l | map('string') | batch(2)) %}", "d.copy()"},
        {"{% set d = dict(l | map('string') | batch(2)) %}", "d == d.copy()"},
        {"{% set d = dict(l | map('string') | batch(2)) %}", "dict(**d)"},
        {"{% set d = dict(l | map('string') | batch(2)) %}", "d | dictsort"},
        {"{% set d = dict(l | map('string') | batch(2)) %}", "d.items()"},
    };
    enum { SMALL = 500, LARGE = 8500 };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        char work[512];
        struct err e = {0};
        uint64_t steps[2][2];
        snprintf(work, sizeof work, "{%% if %s %%}{%% endif %%}", known[i].work);
        for (int k = 0; k < 2; k++) {
            size_t n = k ? LARGE : SMALL;
            steps[k][0] = steps_of(n, known[i].setup, "", &e);
            steps[k][1] = steps_of(n, known[i].setup, work, &e);
        }
        uint64_t small = steps[0][1] - steps[0][0], large = steps[1][1] - steps[1][0];
        bool has_all = steps[0][1] && steps[1][1];
        tap_ok(has_all && large >= small + (LARGE - SMALL) / 32, "%s: %llu steps, %llu %s",
               known[i].work, (unsigned long long)small, (unsigned long long)large, e.text);
    }
}

/* Arithmetic that takes a while takes steps too. */
static void test_floats_cost(void) {
    static const struct {
        const char *setup, *work;
    } known[] = {
        {"", "1e308 % 5e-324"},
        {"", "1.5 | round(300)"},
        {"", "8.9884656743115795e307 | tojson"},
        {"", "5e-324 | string"},
        {"", "'%.100f' % 1e308"},
        {"{% set s = '1' * 390 %}", "s | float"},
        {"{% set s = '0.' ~ '1' * 390 %}", "s | int"},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        char work[512];
        struct err e = {0};
        snprintf(work, sizeof work, "{%% if %s %%}{%% endif %%}", known[i].work);
        uint64_t without = steps_of(1, known[i].setup, "", &e);
        uint64_t with = steps_of(1, known[i].setup, work, &e);
        tap_ok(with >= without + 100, "%s: %llu steps %s", known[i].work,
               (unsigned long long)(with - without), e.text);
    }
}

/* Values nested far deeper than a stack of calls may grow: refused wherever one goes through them. */
static void test_deep_values(void) {
    static const char lists[] = "{% set ns = namespace(l=[], k=[]) %}{% for i in range(30000) %}"
                                "{% set ns.l = [ns.l] %}{% set ns.k = [ns.k] %}{% endfor %}",
                      dicts[] = "{% set ns = namespace(l={}, k={}) %}{% for i in range(30000) %}"
                                "{% set ns.l = {1: ns.l} %}{% set ns.k = {1: ns.k} %}{% endfor %}",
                      tuples[] = "{% set ns = namespace(l=(), k=()) %}{% for i in range(30000) %}"
                                 "{% set ns.l = (ns.l,) %}{% set ns.k = (ns.k,) %}{% endfor %}",
                      itself[] = "{% set ns = namespace() %}{% set ns.l = ns %}";
    static const struct {
        const char *setup, *work;
    } known[] = {
        {lists, "ns.l == ns.k"},
        {lists, "ns.l < ns.k"},
        {lists, "ns.l in [ns.k]"},
        {lists, "[ns.k].count(ns.l)"},
        {lists, "[ns.l, ns.k] | sort"},
        {lists, "[ns.l, ns.k] | min"},
        {lists, "[ns.l] | select('lt', ns.k) | list"},
        {lists, "ns.l"},
        {lists, "ns.l ~ ''"},
        {lists, "ns.l | upper"},
        {lists, "ns.l | tojson"},
        {lists, "[ns.l] | join"},
        {lists, "'%s' % [ns.l]"},
        {lists, "'{!r}'.format(ns.l)"},
        {dicts, "ns.l == ns.k"},
        {dicts, "ns.l"},
        {dicts, "ns.l | tojson"},
        {tuples, "ns.l == ns.k"},
        {tuples, "{ns.l: 1}"},
        {tuples, "[ns.l] | unique | list"},
        {itself, "ns"},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        char text[512];
        snprintf(text, sizeof text, "%s{{ %s }}", known[i].setup, known[i].work);
        refused(text, ERR_LIMIT, "deep");
    }
}

static void test_floats(void) {
    gives("{{ [5e-324, 1.5e-323, 2.2250738585072014e-308, 4.35e-310, 1.7976931348623157e308] }}",
          "[5e-324, 1.5e-323, 2.2250738585072014e-308, 4.35e-310, 1.7976931348623157e+308]");
    gives("{{ [1e22, 1e23, 100.0, 0.1, 9007199254740993.0, 123456789012345680.0, 0.3, -0.0] }}",
          "[1e+22, 1e+23, 100.0, 0.1, 9007199254740992.0, 1.2345678901234568e+17, 0.3, -0.0]");
    gives(
        "{{ [1e-5, 0.0001, 1e15, 1e16, 12345.678e-9, 5.0, 2.0 ** 0.5, 0.0] }}",
        "[1e-05, 0.0001, 1000000000000000.0, 1e+16, 1.2345678e-05, 5.0, 1.4142135623730951, 0.0]");
}

/* A loop's else stands for what no round came to its end of, whether there were rounds or not. */
static void test_loop_else(void) {
    gives("{% for i in l %}{% if i == 3 %}{% break %}{% endif %}{{ i }}{% else %}E{% endfor %}",
          "E");
    gives("{% for i in l %}{% continue %}{% else %}E{% endfor %}", "E");
    gives("{% for i in l %}{% if i == 1 %}{% break %}{% endif %}{{ i }}{% else %}E{% endfor %}",
          "3");
    gives("{% for i in [] %}{{ i }}{% else %}E{% endfor %}", "E");
}

/* What jinja2 refuses, too. */
static void test_python_refuses(void) {
    refused("{% macro f() %}a{% endmacro %}{% call f() %}b{% endcall %}", ERR_FORMAT, "caller");
    gives(
        "{% macro f(caller=none) %}a{{ caller() if caller }}{% endmacro %}{% call f() %}b{% endcall %}{{ f() }}",
        "aba");
    refused("{% filter length %}abc{% endfilter %}", ERR_FORMAT, "text");
    refused("{{ n | indent }}", ERR_FORMAT, "indent");
    refused("{{ none | indent }}", ERR_FORMAT, "indent");
    refused("{{ n | truncate(9) }}", ERR_FORMAT, "length");
    refused("{{ '{:+}'.format('a') }}", ERR_FORMAT, "sign");
    refused("{{ '%x' % 2.0 }}", ERR_FORMAT, "whole");
    refused("{{ 1_ }}", ERR_FORMAT, "}}");
    refused("{{ dict(nothing) }}", ERR_FORMAT, "undefined");
    refused("{% for i in [] %}{{ i | nosuch }}{% endfor %}", ERR_FORMAT,
            "line 1: there is no filter \"nosuch\"");
    refused("{% macro f() %}\n{{ 1 is nosuch }}{% endmacro %}", ERR_FORMAT,
            "line 2: there is no test \"nosuch\"");
    refused("{{ n or (n | nosuch) }}", ERR_FORMAT, "nosuch");
    refused("{% if not n %}{% for i in l %}{{ i | nosuch }}{% endfor %}{% endif %}", ERR_FORMAT,
            "nosuch");
    gives("{% if not n %}{{ l | nosuch }}{% elif n == 4 and 0 is nosuch %}{% endif %}", "");
    gives("{{ n | nosuch if not n }}{{ 'a' if n else n | nosuch }}", "a");
}

static void test_methods(void) {
    gives("{{ 'a\r\nb\n\n c\u2028d\n' | indent }}|{{ 'a\n' | indent(2, true, true) }}|",
          "a\n    b\n\n     c\n    d\n|  a\n  |");
    gives(
        "{{ l.copy() }}{{ l.index(1, 1) }}{{ (1, 2, 1).index(1, -1) }}{{ [1, 2].index(2, 1, 9) }}",
        "[3, 1, 2]121");
    refused("{{ l.index(3, 1) }}", ERR_FORMAT, "not in the list");
    gives("{{ 'Ab C'.istitle() }}{{ 'ab'.istitle() }}{{ ''.istitle() }}{{ 'AB'.istitle() }}",
          "TrueFalseFalseFalse");
    gives(
        "{{ 'a_1'.isidentifier() }}{{ '1a'.isidentifier() }}{{ ''.isidentifier() }}{{ '\u00e9'.isidentifier() }}",
        "TrueFalseFalseTrue");
    gives("{{ '\u0663a'.isidentifier() }}{{ 'a\u0663'.isidentifier() }}", "FalseTrue");
    gives("{{ 'abc' | truncate(9223372036854775807) }}", "abc");
    refused("{{ 'abc' | truncate(3, leeway=-9223372036854775807) }}", ERR_FORMAT, "leeway");
    refused("{% macro f() %}{{ caller() }}{% endmacro %}{% call f(x=1) %}b{% endcall %}",
            ERR_FORMAT, "an argument of this name");
    gives("{{ -0.0 | abs }}{{ -3 | abs }}{{ true | abs }}", "0.031");
    gives("{{ 'a b'.isprintable() }}{{ 'a\n'.isprintable() }}{{ ''.isprintable() }}",
          "TrueFalseTrue");
    gives("{{ 'a\tb\n\tc'.expandtabs() }}|{{ '\ta\t'.expandtabs(4) }}|{{ 'a\tb'.expandtabs(0) }}",
          "a       b\n        c|    a   |ab");
    gives("{{ '{:>5}|{:,}'.format(true, false) }}", "    1|0");
    gives("{{ '{:#b} {:#o} {:#x}'.format(5, 8, 255) }}", "0b101 0o10 0xff");
    gives("{{ [1, 2, 3, 4] | slice(2, 'x') | list }}", "[[1, 2, 'x'], [3, 4, 'x']]");
    gives("{{ [{'o': {'p': 1}}, {}] | groupby('o.p', default=0) }}",
          "[(0, [{}]), (1, [{'o': {'p': 1}}])]");
    gives(
        "{% for g in ['b', 'a', 'B'] | groupby(0) %}{{ g.grouper }}{{ g['list'] }}{{ g.x }}{% endfor %}",
        "a['a']b['b', 'B']");
}

/* As Python has them, and refused where Python's would have more than 64 bits; nothing goes through a
 * float on its way. */
static void test_round(void) {
    gives("{{ 9223372036854775807 | round }} {{ 9007199254740993 | round }} {{ true | round }}",
          "9223372036854775807 9007199254740993 1");
    gives("{{ (-9223372036854775807 - 1) | round }} {{ 5 | round(2) }} {{ 5 | round(999) }}",
          "-9223372036854775808 5 5");
    gives(
        "{{ 9007199254740993 | round(0, 'common') }} {{ 9007199254740993 | round(method='ceil') }}",
        "9007199254740993 9007199254740992.0");
    gives("{{ 15 | round(-1) }} {{ 25 | round(-1) }} {{ -25 | round(-1) }} {{ -26 | round(-1) }}",
          "20 20 -20 -30");
    gives("{{ 9007199254740995 | round(-1) }} {{ 9007199254740996 | round(-1) }}",
          "9007199254741000 9007199254741000");
    gives("{{ 50000 | round(-5) }} {{ 150000 | round(-5) }} {{ 5 | round(-400) }}", "0 200000 0");
    gives("{{ 9223372036854775807 | round(-18) }} {{ -9223372036854775807 | round(-18) }}",
          "9000000000000000000 -9000000000000000000");
    gives("{{ 4999999999999999999 | round(-19) }} {{ 5000000000000000000 | round(-19) }}", "0 0");
    refused("{{ 9223372036854775807 | round(-1) }}", ERR_FORMAT, "64 bits");
    refused("{{ -9223372036854775807 | round(-1) }}", ERR_FORMAT, "64 bits");
    refused("{{ 5000000000000000001 | round(-19) }}", ERR_FORMAT, "64 bits");
    gives("{{ 5 | round(1, 'floor') }} {{ 5 | round(-1, 'ceil') }} {{ 5 | round(999, 'ceil') }}",
          "5.0 10.0 5.0");
    gives(
        "{{ 9223372036854775807 | round(3, 'floor') }} {{ 9007199254740993 | round(-1, 'floor') }}",
        "9.223372036854776e+18 9007199254740990.0");
    gives("{{ 2.5 | round }} {{ 2.675 | round(2) }} {{ 1e300 | round(10) }}", "2.0 2.67 1e+300");
    refused("{{ 5 | round(0, 'up') }}", ERR_FORMAT, "ceil and floor");
    refused("{{ 5 | round(-999, 'ceil') }}", ERR_FORMAT, "places");
}

static void test_int(void) {
    gives("{{ '9223372036854775807' | int }} {{ '-9223372036854775808' | int }}",
          "9223372036854775807 -9223372036854775808");
    gives("{{ '7fff_ffff_ffff_ffff' | int(base=16) }} {{ '-0x8000000000000000' | int(0, 16) }}",
          "9223372036854775807 -9223372036854775808");
    refused("{{ '99999999999999999999' | int }}", ERR_FORMAT, "64 bits");
    refused("{{ '9223372036854775808' | int }}", ERR_FORMAT, "64 bits");
    refused("{{ '-9223372036854775809' | int(7) }}", ERR_FORMAT, "64 bits");
    refused("{{ '0x8000000000000000' | int(7, 16) }}", ERR_FORMAT, "64 bits");
    refused("{{ ('9' * 1000) | int(7) }}", ERR_FORMAT, "64 bits");
    gives("{{ ('0' * 1000 ~ '5') | int }}", "5");
    gives("{{ '1e18' | int }} {{ 9.2e18 | int }} {{ -9223372036854775808.0 | int }}",
          "1000000000000000000 9200000000000000000 -9223372036854775808");
    refused("{{ '1e30' | int }}", ERR_FORMAT, "64 bits");
    refused("{{ 1e30 | int }}", ERR_FORMAT, "64 bits");
    refused("{{ 9223372036854775808.0 | int }}", ERR_FORMAT, "64 bits");
    gives(
        "{{ 'nan' | int }} {{ 'inf' | int(7) }} {{ '1e400' | int }} {{ ('nan' | float) | int(7) }}",
        "0 7 0 7");
    refused("{{ ('-inf' | float) | int }}", ERR_FORMAT, "infinity");
    gives("{{ '+12' | int }} {{ ' -1_0 ' | int }} {{ '5.9' | int }} {{ '-5.9' | int }}",
          "12 -10 5 -5");
    gives(
        "{{ '1__0' | int }} {{ '_10' | int }} {{ '10_' | int }} {{ '+ 1' | int }} {{ '-' | int }}",
        "0 0 0 0 0");
    gives(
        "{{ '0x1F' | int(0, 16) }} {{ '0x_ff' | int(0, 16) }} {{ '0b11' | int(0, 2) }} "
        "{{ '-0o17' | int(0, 8) }} {{ '0x1F' | int }} {{ '0x' | int(7, 16) }} {{ 'zz' | int(0, 36) }}",
        "31 255 3 -15 0 7 1295");
    gives("{{ '0x1F' | int(0, 0) }} {{ '017' | int(0, 0) }} {{ '0b1' | int(0, 16) }}", "31 17 177");
}

/* Separators between groups of digits, and what stands before the digits. */
static void test_groups(void) {
    gives("{{ '{:_} {:_} {:_} {:,}'.format(1234567, -123, -1234567, 1234567) }}",
          "1_234_567 -123 -1_234_567 1,234,567");
    gives("{{ '{:_} {:_.2f} {:_%}'.format(1234567.5, 1234567.891, 1234567.5) }}",
          "1_234_567.5 1_234_567.89 123_456_750.000000%");
    gives("{{ '{:_x} {:#_X} {:_o} {:#_b}'.format(1234567890, 2 ** 40, 12345678, 1234) }}",
          "4996_02d2 0X100_0000_0000 5706_0516 0b100_1101_0010");
    gives("{{ '{:_b}'.format(-9223372036854775807 - 1) }}",
          "-1000_0000_0000_0000_0000_0000_0000_0000_0000_0000_0000_0000_0000_0000_0000_0000");
    gives("{{ '{:05,} {:06,} {:08,} {:013,}'.format(1234, 1234, 1234, 1234567) }}",
          "1,234 01,234 0,001,234 0,001,234,567");
    gives("{{ '{:010,} {:010,} {:012,} {:+012_.1f}'.format(-1234, 1234.5, 1234.5, 1234.5) }}",
          "-0,001,234 0,001,234.5 00,001,234.5 +0_001_234.5");
    gives(
        "{{ '{:0=8_x} {:#010_x} {:0<10,} {:0>10,} {:*=10,}'.format(65535, 1048576, 1234, 1234, 1234) }}",
        "000_ffff 0x010_0000 1,23400000 000001,234 *****1,234");
    gives(
        "{{ '{:#010x} {:*=#10x} {:>#6x}'.format(-255, 255, 255) }} {{ '%#06x|%#6x|%-#6x|' % (255, 255, 255) }}",
        "-0x00000ff 0x******ff   0xff 0x00ff|  0xff|0xff  |");
    gives("{{ '{:010,}'.format('inf' | float) }}", "0000000inf");
    gives("{{ '{:<010,} {:>05} {:*<06} {:^05}'.format(1234, 3, 7, 9) }}",
          "1,23400000 00003 7***** 00900");
    gives("{{ '{:010000,}'.format(1) | length }} {{ '{:010000_b}'.format(1) | length }}",
          "10001 10001");
    refused("{{ '{:,x}'.format(1) }}", ERR_FORMAT, "\",\"");
    refused("{{ '{:_n}'.format(1) }}", ERR_FORMAT, "\"_\"");
    refused("{{ '{:_,}'.format(1) }}", ERR_FORMAT, "format");
    refused("{{ '{:_}'.format('a') }}", ERR_FORMAT, "separator");
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
    test_hostile();
    test_prices();
    test_floats_cost();
    test_deep_values();
    test_floats();
    test_loop_else();
    test_python_refuses();
    test_methods();
    test_round();
    test_int();
    test_groups();
    json_free(doc);
    return tap_done();
}
