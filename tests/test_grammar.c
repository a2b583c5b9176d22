/* Grammars: what texts GBNF and JSON schemas take and refuse, sentences for what is wrong with them, and
 * masks: whatever a run keeps, what it allows is what a new one allows, token by token. */
#include "json_vocab.h"
#include "tap.h"

#include <stdlib.h>

static struct toy toy;
static struct tok *tok;
static struct lexicon *lex;
static uint64_t seed = 21;

static uint32_t rnd(void) {  // xorshift64*, Vigna 2016
    seed ^= seed >> 12, seed ^= seed << 25, seed ^= seed >> 27;
    return (uint32_t)((seed * 0x2545F4914F6CDD1DULL) >> 32);
}

static struct grammar *open_text(enum grammar_kind kind, const char *text, struct err *e) {
    struct grammar *g;
    *e = (struct err){0};
    return grammar_open(&g, kind, text, strlen(text), e) ? g : NULL;
}

static struct grammar_run *run_of(const struct grammar *g) {
    struct grammar_run *r;
    struct err e;
    return g && grammar_run_open(&r, g, lex, &e) ? r : NULL;
}

/* 2: a text of the grammar; 1: the beginning of one; 0: neither. */
static int takes(const struct grammar *g, const char *text) {
    int32_t id[2048];
    size_t n = 0;
    struct err e;
    for (; text[n]; n++) id[n] = JSON_BYTE0 + (unsigned char)text[n];
    struct grammar_run *r = run_of(g);
    int how = !r ? -1 : !grammar_run_sync(r, id, n, &e) ? 0 : grammar_is_whole(r) ? 2 : 1;
    grammar_run_close(r);
    return how;
}

struct language {
    enum grammar_kind kind;
    const char *grammar;
    const char *good[12], *bad[14];  // bad: not even a beginning, or with a ~ before it only that
};

static const struct language language[] = {
    {GRAMMAR_GBNF, "root ::= \"ab\" | \"c\"+", {"ab", "c", "ccc"}, {"~a", "b", "abc", "ca", "~"}},
    {GRAMMAR_GBNF,
     "# a comment\nroot ::= item (\",\" item)* # another\nitem ::=\n  [a-z]{2,3} | (\n \"1\" |\n\"2\"\n)\n",
     {"ab", "abc,1", "1,2,zz"},
     {"~a", "abcd", "~1,", ",", "3"}},
    {GRAMMAR_GBNF,
     "root ::= [^a-y\"\\n]*\n",
     {"", "z", "世é", "~\t"},
     {"a", "\"", "\n", "~\xe4\xb8"}},
    {GRAMMAR_GBNF,
     "root ::= .{2} \"\\x41\\u00e9\\U00004e16\\n\\\"\\\\\\t\\r\\[\\]\"",
     {"世\nAé世\n\"\\\t\r[]"},
     {"~世", "~世x", "世xB", "\xff"}},
    {GRAMMAR_GBNF,
     "root ::= \"(\" root \")\" | \"x\"",
     {"x", "(x)", "((x))"},
     {"()", "~(", ")", "(x))"}},
    {GRAMMAR_GBNF,
     "root ::= a b? a{0} a{3}\na ::= \"a\"?\nb ::= \"b\"{1,}",
     {"", "a", "ab", "bbaaa", "abaaa", "aaaa"},
     {"aaaaa", "abba~"}},
    {GRAMMAR_GBNF, "root ::= (\"a\"* \"b\"*)* \"c\"", {"c", "abbac"}, {"~ab", "cc"}},
    {GRAMMAR_GBNF, "root ::= \"a\"\n | \"b\"\n | \"\"", {"a", "b", ""}, {"ab"}},
    {GRAMMAR_GBNF, "root ::= x | \"y\"\nx ::= \"x\" x", {"y"}, {"x", "~"}},  // x has no end
    {GRAMMAR_GBNF,
     "root ::= [\xf0\x9f\x98\x80-\xf0\x9f\x99\x8f\xc3\xa9]",
     {"\xf0\x9f\x98\x81", "é"},
     {"e", "\xf0\x9f\x9a\x80", "~\xf0\x9f\x99"}},
    {GRAMMAR_SCHEMA,
     "{\"type\":\"integer\"}",
     {"0", "-7", "120"},
     {"01", "~-", "1.0", "\"1\"", " 1"}},
    {GRAMMAR_SCHEMA,
     "{\"type\":\"integer\",\"minimum\":-12,\"maximum\":134}",
     {"-12", "-1", "0", "9", "99", "100", "134"},
     {"-13", "-2x", "135", "140", "200", "-0", "1000", "-20"}},
    {GRAMMAR_SCHEMA,
     "{\"type\":\"integer\",\"exclusiveMinimum\":7}",
     {"8", "10", "70", "1000"},
     {"7", "0", "-1"}},
    {GRAMMAR_SCHEMA,
     "{\"type\":\"number\",\"exclusiveMinimum\":0,\"maximum\":2}",
     {"0.5", "1", "2", "1.25", "1.50", "0.50", "2.00", "0.0100"},
     {"~0", "2.5", "-1", "3", "~0.0", "~1.", "2.01", "0.00000000000000000"}},
    {GRAMMAR_SCHEMA,
     "{\"type\":\"number\",\"minimum\":0,\"maximum\":0.5}",
     {"0", "0.5", "0.05", "0.49", "0.0000000000000001", "0.50", "0.0", "0.10"},
     {"1", "0.51", "0.6", "0.500000001", "-0.1", "0.501", "~0."}},
    {GRAMMAR_SCHEMA,
     "{\"type\":\"number\",\"exclusiveMinimum\":0.205,\"exclusiveMaximum\":0.8}",
     {"0.21", "0.2051", "0.3", "0.79", "0.7999", "0.2050010", "0.790"},
     {"~0.205", "~0.2", "0.1", "0.8", "1", "0.2049", "~0.20500"}},
    {GRAMMAR_SCHEMA,
     "{\"type\":\"number\",\"minimum\":-1.25,\"exclusiveMaximum\":3.5}",
     {"-1.25", "-1", "-1.2", "-0.5", "0", "3", "3.4", "2.75", "-1.250", "3.0"},
     {"-1.3", "-1.26", "-2", "3.5", "3.6", "4", "~-0"}},
    {GRAMMAR_SCHEMA,
     "{\"type\":\"number\",\"minimum\":0.1,\"exclusiveMinimum\":0,\"maximum\":5.5}",
     {"0.1", "0.7", "1", "5", "5.5", "5.05"},
     {"~0", "0.0", "0.09", "5.6", "6"}},
    {GRAMMAR_SCHEMA,
     "{\"type\":\"integer\",\"minimum\":0.5,\"exclusiveMaximum\":2.5}",
     {"1", "2"},
     {"0", "3", "1.5"}},
    {GRAMMAR_SCHEMA,
     "{\"type\":\"integer\",\"minimum\":9999999999999998,\"exclusiveMaximum\":1e16}",
     {"9999999999999998", "9999999999999999"},
     {"10000000000000000", "9999999999999997"}},
    {GRAMMAR_SCHEMA,
     "{\"type\":\"number\",\"exclusiveMinimum\":-1e17,\"maximum\":-99999999999999998}",
     {"-99999999999999998", "-99999999999999999"},
     {"-100000000000000000", "-99999999999999997"}},
    {GRAMMAR_SCHEMA,
     "{\"type\":\"number\"}",
     {"1e5", "-0.5E-2", "0"},
     {"~1.", "~1e", ".5", "1e123"}},
    {GRAMMAR_SCHEMA,
     "{\"type\":[\"string\",\"null\"],\"maxLength\":3}",
     {"null", "\"\"", "\"abc\"", "\"世\\n\\u00e9\"", "\"\\ud83d\\uDE00ab\""},
     {"\"abcd", "true", "\"\\x", "\"\n", "\"\\ud83dx", "\"\\udc00"}},
    {GRAMMAR_SCHEMA,
     "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"boolean\"},\"b\":{\"const\":[1,{\"x\":null}]},"
     "\"c\\\"\":{\"enum\":[\"p\",2,null]}},\"required\":[\"b\"]}",
     {"{\"b\":[1,{\"x\":null}]}", "{\"a\": true, \"b\":[1,{\"x\":null}],\n\"c\\\"\":\"p\"}",
      "{ \"b\":[1,{\"x\":null}],\"c\\\"\":null }"},
     {"{}", "{\"a\":1", "{\"b\":[1,{\"x\":null}],\"a\"", "{\"c", "~{\"a\":true,\"b\":"}},
    {GRAMMAR_SCHEMA,
     "{\"type\":\"object\",\"properties\":{\"ab\":true,\"ac\":true,\"b\":true},"
     "\"additionalProperties\":{\"type\":\"null\"}}",
     {"{\"ab\":1,\"a\":null}", "{\"\":null,\"abc\":null,\"世\":null}", "{}", "{\"ac\":[]}",
      "{\"c\":null}"},
     {"{\"a\":1", "{\"x\":null,\"ab\"", "{\"x\":null,\"b\"", "{\"\\u"}},
    {GRAMMAR_SCHEMA,
     "{\"items\":{\"type\":\"integer\",\"maximum\":1,\"minimum\":0},\"minItems\":1,\"maxItems\":3}",
     {"[0]", "[0, 1,0]", "[ 1 ]"},
     {"[]", "[0,1,0,", "[2", "[0,]"}},
    {GRAMMAR_SCHEMA,
     "{\"prefixItems\":[{\"const\":1},{\"const\":2}],\"items\":{\"const\":3},\"minItems\":1,\"maxItems\":4}",
     {"[1]", "[1,2]", "[1,2,3,3]"},
     {"[]", "[2", "[1,3", "[1,2,3,3,"}},
    {GRAMMAR_SCHEMA,
     "{\"prefixItems\":[{\"const\":1},{\"const\":2}]}",
     {"[]", "[1]", "[1,2]"},
     {"[1,2,"}},
    {GRAMMAR_SCHEMA,
     "{\"$ref\":\"#/$defs/node\",\"$defs\":{\"node\":{\"type\":\"object\",\"properties\":{\"v\":"
     "{\"type\":\"boolean\"},\"next\":{\"anyOf\":[{\"type\":\"null\"},{\"$ref\":\"#/$defs/node\"}]}},"
     "\"required\":[\"v\",\"next\"],\"additionalProperties\":false}}}",
     {"{\"v\":true,\"next\":null}", "{\"v\":true,\"next\":{\"v\":false,\"next\":null}}"},
     {"{\"v\":true}", "{\"next\"", "{\"v\":true,\"next\":{}"}},
    {GRAMMAR_SCHEMA,
     "{\"allOf\":[{\"type\":\"object\",\"properties\":{\"a\":{\"const\":1}},\"required\":[\"a\"]},"
     "{\"$ref\":\"#/$defs/b\"}],\"$defs\":{\"b\":{\"properties\":{\"b\":{\"const\":2}}}}}",
     {"{\"a\":1}", "{\"a\":1,\"b\":2}"},
     {"{}", "{\"b\""}},
    {GRAMMAR_SCHEMA,  // what stands beside a $ref counts too, and so on
     "{\"allOf\":[{\"$ref\":\"#/$defs/a\",\"properties\":{\"b\":{\"const\":2}},\"required\":[\"b\"]},"
     "{\"properties\":{\"c\":{\"const\":3}}}],\"$defs\":{\"a\":{\"$ref\":\"#/$defs/d\","
     "\"properties\":{\"a\":{\"const\":1}},\"required\":[\"a\"]},"
     "\"d\":{\"properties\":{\"d\":{\"const\":4}},\"required\":[\"d\"]}}}",
     {"{\"d\":4,\"a\":1,\"b\":2,\"c\":3}", "{\"d\":4,\"a\":1,\"b\":2}"},
     {"{\"a\":1}", "{\"d\":4,\"b\":2}", "{\"d\":4,\"a\":1}", "{\"d\":4,\"a\":1,\"c\":3}"}},
    {GRAMMAR_SCHEMA,
     "{\"allOf\":[{\"$ref\":\"#/$defs/a\",\"required\":[\"a\"]},{\"properties\":{}}],"
     "\"$defs\":{\"a\":{\"properties\":{\"a\":{\"const\":1}}}}}",
     {"{\"a\":1}"},
     {"{}"}},
    {GRAMMAR_SCHEMA,
     "{\"properties\":{\"a\":{\"const\":1}},\"required\":[\"b\"],"
     "\"additionalProperties\":{\"const\":7}}",
     {"{\"b\":7}", "{\"a\":1,\"b\":7,\"c\":7}"},
     {"{}", "{\"b\":1}"}},
    {GRAMMAR_SCHEMA,
     "{\"type\":\"object\",\"unevaluatedProperties\":false}",
     {"{}", "{ }"},
     {"{\"a\":1}"}},
    {GRAMMAR_SCHEMA,
     "{\"type\":\"string\",\"pattern\":\"^(?:[A-F]{2}-\\\\d+|\\\"x\\\\\\\\)$\"}",
     {"\"AB-12\"", "\"\\\"x\\\\\""},
     {"\"A-", "\"AG", "\"x", "~\"AB-"}},
    {GRAMMAR_SCHEMA,
     "{\"type\":\"string\",\"pattern\":\"b+\"}",
     {"\"b\"", "\"abba\\n\""},
     {"~\"a", "\"\""}},
    {GRAMMAR_SCHEMA,
     "{\"format\":\"date\"}",
     {"\"2024-02-28\"", "\"1999-12-31\"", "\"2024-02-29\"", "\"2000-02-29\"", "\"0004-02-29\"",
      "\"1996-02-29\""},
     {"\"2023-02-29", "\"1900-02-29", "\"2024-02-30", "\"2024-13", "\"2024-04-31", "\"0000",
      "\"2102-02-29"}},
    {GRAMMAR_SCHEMA,
     "{\"format\":\"time\"}",
     {"\"23:59:59Z\"", "\"00:00:00.25+01:30\""},
     {"\"24", "\"00:60", "\"00:00:00\""}},
    {GRAMMAR_SCHEMA,
     "{\"format\":\"uuid\"}",
     {"\"01234567-89ab-cdef-0123-456789ABCDEF\""},
     {"\"0123456-", "\"g"}},
    {GRAMMAR_SCHEMA,
     "{}",
     {"null", "[1,{\"a\":[\"\"]}]", "-0.5e1", "{\"\":\"\\\\\"}"},
     {"[,", "{1", "nul1", "{\"a\" :"}},
    {GRAMMAR_SCHEMA,  // the alternatives are bound one by one, as in ECMA-262
     "{\"type\":\"string\",\"pattern\":\"^A|B|C|D$\"}",
     {"\"A\"", "\"Ax\"", "\"xBx\"", "\"C\"", "\"xD\""},
     {"\"xA\"", "\"Dx\"", "\"\"", "\"D|\""}},
    {GRAMMAR_SCHEMA,
     "{\"type\":\"string\",\"pattern\":\"^$|^a$|^\\\\$\"}",
     {"\"\"", "\"a\"", "\"$\"", "\"$b\""},
     {"\"aa", "\"b"}},
    {GRAMMAR_SCHEMA,  // formats that are not known are notes: pydantic's HttpUrl, EmailStr
     "{\"format\":\"uri\",\"minLength\":1,\"maxLength\":3,\"type\":\"string\"}",
     {"\"a\"", "\"abc\""},
     {"\"\"", "\"abcd", "1"}},
    {GRAMMAR_SCHEMA, "{\"format\":\"email\",\"pattern\":\"^a*$\"}", {"\"\"", "\"aa\""}, {"\"b"}},
    {GRAMMAR_SCHEMA, "{\"format\":\"date\",\"pattern\":\"^a*$\"}", {"\"\"", "\"aa\""}, {"\"1"}},
    {GRAMMAR_SCHEMA,  // and such do not keep schemas from being joined
     "{\"allOf\":[{\"type\":\"string\",\"minLength\":1},{\"format\":\"uri\"}],\"format\":\"email\"}",
     {"\"a\""},
     {"\"\"", "1"}},
    {GRAMMAR_SCHEMA,
     "{\"type\":\"string\",\"maxLength\":1,\"anyOf\":[{\"format\":\"uri\"},{\"format\":\"email\"}]}",
     {"\"a\""},
     {"\"ab", "1"}},
    {GRAMMAR_SCHEMA,
     "{\"type\":\"string\",\"enum\":[\"a\"],\"format\":\"uri\"}",
     {"\"a\""},
     {"\"b", "\"\""}},
    {GRAMMAR_SCHEMA,
     "{\"allOf\":[{\"type\":\"array\",\"maxItems\":1},{\"uniqueItems\":true},{\"uniqueItems\":false}]}",
     {"[]", "[1]"},
     {"[1,", "{"}},
    {GRAMMAR_SCHEMA,
     "{\"items\":{\"type\":\"integer\"},\"uniqueItems\":true,\"maxItems\":2}",
     {"[]", "[1,2]"},
     {"[1,2,", "{"}},
    {GRAMMAR_SCHEMA,
     "{\"type\":\"string\",\"anyOf\":[{\"maxLength\":1},{\"const\":\"xyz\"},{\"const\":7},"
     "{\"type\":[\"null\",\"integer\"]},false,{\"format\":\"time\"}]}",
     {"\"a\"", "\"xyz\"", "\"00:00:00Z\""},
     {"7", "null", "\"xyzz", "\"ab\""}},
    {GRAMMAR_SCHEMA,
     "{\"type\":[\"integer\",\"null\"],\"oneOf\":[{\"type\":\"number\",\"minimum\":3,\"maximum\":5},"
     "{\"type\":\"null\"}]}",
     {"3", "5", "null"},
     {"2", "3.5", "\""}},
    {GRAMMAR_SCHEMA,  // one of the two must be there
     "{\"type\":\"object\",\"properties\":{\"a\":{\"const\":1},\"b\":{\"const\":2}},"
     "\"additionalProperties\":false,\"anyOf\":[{\"required\":[\"a\"]},{\"required\":[\"b\"]}]}",
     {"{\"a\":1}", "{\"b\":2}", "{\"a\":1,\"b\":2}"},
     {"{}", "{\"c"}},
    {GRAMMAR_SCHEMA,  // described twice, but alike
     "{\"allOf\":[{\"properties\":{\"a\":{\"$ref\":\"#/$defs/a\"}}},{\"properties\":{"
     "\"a\": {\"$ref\": \"#/$defs/a\"},\"b\":true},\"required\":[\"a\"]}],\"$defs\":{\"a\":{\"const\":1}}}",
     {"{\"a\":1}", "{\"a\":1,\"b\":2}"},
     {"{}", "{\"a\":2", "{\"b\"", "{\"a\":1,\"a\""}},
    {GRAMMAR_SCHEMA,  // what no part describes is as additionalProperties says
     "{\"type\":\"object\",\"additionalProperties\":{\"const\":\"s\"},\"required\":[\"x\"],"
     "\"anyOf\":[{\"required\":[\"x\"]},{\"required\":[\"y\"]}]}",
     {"{\"x\":\"s\"}", "{\"x\":\"s\",\"y\":\"s\"}", "{\"x\":\"s\",\"z\":\"s\"}"},
     {"{}", "{\"x\":1", "{\"y\":1", "{\"x\":\"s\",\"z\":1"}},
    {GRAMMAR_SCHEMA,
     "{\"allOf\":[{\"$ref\":\"#/$defs/a\"},{\"anyOf\":[{\"$ref\":\"#/$defs/b\"},{\"$ref\":\"#/$defs/c\"}]}],"
     "\"type\":\"object\",\"$defs\":{\"a\":{\"properties\":{\"a\":{\"const\":1}}},"
     "\"b\":{\"properties\":{\"b\":{\"const\":2}}},"
     "\"c\":{\"properties\":{\"c\":{\"const\":3}},\"required\":[\"c\"]}}}",
     {"{}", "{\"a\":1}", "{\"a\":1,\"b\":2}", "{\"a\":1,\"c\":3}", "{\"c\":3}"},
     {"{\"b\":2,\"c\"", "{\"b\":2,\"a\"", "null"}},
    {GRAMMAR_SCHEMA,
     "{\"allOf\":[{\"type\":\"string\",\"enum\":[\"a\",\"b\",[1],7]},{\"$ref\":\"#/$defs/b\"}],"
     "\"$defs\":{\"b\":{\"enum\":[\"b\",[1],7,\"a\",\"d\"]}}}",
     {"\"a\"", "\"b\""},
     {"\"d", "[", "7"}},
    {GRAMMAR_SCHEMA,
     "{\"allOf\":[{\"enum\":[[1],{\"x\":null},7,null]},{\"enum\":[null,{\"x\":null},[1],[2]]}]}",
     {"[1]", "{\"x\":null}", "null"},
     {"7", "[2"}},
    {GRAMMAR_SCHEMA,
     "{\"$ref\":\"#/$defs/a\",\"required\":[\"a\"],\"$defs\":{\"a\":{\"properties\":{\"a\":{\"const\":1}}}}}",
     {"{\"a\":1}"},
     {"{}"}},
    {GRAMMAR_SCHEMA,
     "{\"nullable\":true,\"allOf\":[{\"$ref\":\"#/$defs/a\"},{\"maxItems\":0}],\"$defs\":{\"a\":{\"type\":\"array\"}}}",
     {"[]", "null"},
     {"[1", "{"}},
    {GRAMMAR_SCHEMA,  // a list that ends with null, as OpenAPI writes it
     "{\"$ref\":\"#/$defs/n\",\"$defs\":{\"n\":{\"type\":\"object\",\"required\":[\"next\"],"
     "\"properties\":{\"next\":{\"allOf\":[{\"$ref\":\"#/$defs/n\"}],\"nullable\":true}}}}}",
     {"{\"next\":null}", "{\"next\":{\"next\":null}}"},
     {"null", "{\"next\":1"}},
    {GRAMMAR_SCHEMA,
     "{\"$ref\":\"#/$defs/n\",\"$defs\":{\"n\":{\"type\":\"object\",\"required\":[\"next\"],"
     "\"properties\":{\"next\":{\"$ref\":\"#/$defs/n\",\"nullable\":true}}}}}",
     {"{\"next\":null}", "{\"next\":{\"next\":null}}"},
     {"null", "{\"next\":1"}},
    {GRAMMAR_SCHEMA,  // pydantic's unions
     "{\"discriminator\":{\"propertyName\":\"a\"},\"oneOf\":[{\"const\":1},{\"const\":2}]}",
     {"1", "2"},
     {"3"}},
    {GRAMMAR_SCHEMA,
     "{\"anyOf\":[false,{\"oneOf\":[{\"const\":\"a\"},{\"const\":\"b\"}]}]}",
     {"\"a\"", "\"b\""},
     {"\"c"}},
};

/* Its first line, for the test's own lines. */
static const char *shown(const char *text) {
    static char line[48];
    snprintf(line, sizeof line, "%.*s", (int)strcspn(text, "\n"), text);
    return line;
}

static void test_languages(void) {
    for (size_t i = 0; i < sizeof language / sizeof *language; i++) {
        const struct language *l = &language[i];
        struct err e;
        struct grammar *g = open_text(l->kind, l->grammar, &e);
        const char *wrong = g ? NULL : e.text;
        for (size_t k = 0; g && l->good[k] && k < 12; k++) {
            bool is_begun = l->good[k][0] == '~';
            if (takes(g, l->good[k] + is_begun) != 2) wrong = l->good[k];
        }
        for (size_t k = 0; g && k < 14 && l->bad[k]; k++) {
            bool is_begun = l->bad[k][0] == '~';
            if (takes(g, l->bad[k] + is_begun) == 2 || (is_begun && takes(g, l->bad[k] + 1) != 1)) {
                wrong = l->bad[k];
            }
        }
        tap_ok(!wrong, "language %zu, %s%s%s", i, shown(l->grammar), wrong ? ": " : "",
               wrong ? wrong : "");
        grammar_close(g);
    }
}

static const struct {
    enum grammar_kind kind;
    const char *grammar;
    enum err_code code;
    const char *says;
} refused[] = {
    {GRAMMAR_GBNF, "", ERR_FORMAT, "no rule \"root\""},
    {GRAMMAR_GBNF, "a ::= \"x\"", ERR_FORMAT, "no rule \"root\""},
    {GRAMMAR_GBNF, "root ::= \"x\"\nroot ::= \"y\"", ERR_FORMAT, "2:1"},
    {GRAMMAR_GBNF, "root ::= x\n", ERR_FORMAT, "1:10: a rule of this name is not defined"},
    {GRAMMAR_GBNF, "root ::= \"x", ERR_FORMAT, "1:10: this quote"},
    {GRAMMAR_GBNF, "root ::= [x", ERR_FORMAT, "1:10: this bracket"},
    {GRAMMAR_GBNF, "root ::= (\"x\"", ERR_FORMAT, "1:10: this parenthesis"},
    {GRAMMAR_GBNF, "root ::= \"x\")", ERR_FORMAT, "1:13"},
    {GRAMMAR_GBNF, "root ::= [z-a]", ERR_FORMAT, "backwards"},
    {GRAMMAR_GBNF, "root ::= \"\\q\"", ERR_FORMAT, "1:12: an unknown escape"},
    {GRAMMAR_GBNF, "root ::= \"\\ud800\"", ERR_FORMAT, "no character"},
    {GRAMMAR_GBNF, "root ::= \"\xff\"", ERR_FORMAT, "UTF-8"},
    {GRAMMAR_GBNF, "root ::= \"x\"{3,2}", ERR_FORMAT, "at least more often"},
    {GRAMMAR_GBNF, "root ::= \"x\"{99999}", ERR_FORMAT, "10000"},
    {GRAMMAR_GBNF, "root = \"x\"", ERR_FORMAT, "::= is missing"},
    {GRAMMAR_GBNF, "root ::= <think>", ERR_FORMAT, "tokens by name"},
    {GRAMMAR_GBNF, "root ::= root \"x\" | \"y\"", ERR_FORMAT, "\"root\" begins with itself"},
    {GRAMMAR_GBNF, "root ::= a\na ::= b? c\nb ::= \"b\"\nc ::= (a | \"x\") \"y\"", ERR_FORMAT,
     "left recursion"},
    {GRAMMAR_GBNF, "root ::= \"x\" root", ERR_FORMAT, "what it wants has no end"},
    {GRAMMAR_GBNF, "root ::= [] root", ERR_FORMAT, "what it wants has no end"},
    {GRAMMAR_GBNF, "root ::= []", ERR_FORMAT, "nothing to choose from"},
    {GRAMMAR_GBNF, "root ::= a | b\na ::= \"a\" a\nb ::= \"b\" [^\\x00-\\U0010ffff]", ERR_FORMAT,
     "nothing to choose from"},
    {GRAMMAR_SCHEMA, "{\"enum\":[]}", ERR_FORMAT, "nothing to choose from"},
    {GRAMMAR_SCHEMA, "false", ERR_FORMAT, "nothing to choose from"},
    {GRAMMAR_SCHEMA, "{\"minLength\":3,\"maxLength\":2,\"type\":\"string\"}", ERR_FORMAT,
     "nothing to choose from"},
    {GRAMMAR_SCHEMA, "[]", ERR_FORMAT, "must be an object, true or false"},
    {GRAMMAR_GBNF,
     "root ::= ((\"x\"{10000} \"yy\"){9} [a世]{9999} \"zzz\"){3} (\"x\"{10000} \"yy\"{9999}){3}",
     ERR_LIMIT, "places"},
    {GRAMMAR_SCHEMA, "[", ERR_FORMAT, "not JSON"},
    {GRAMMAR_SCHEMA, "3", ERR_FORMAT, "must be an object"},
    {GRAMMAR_SCHEMA, "false", ERR_FORMAT, "no text"},
    {GRAMMAR_SCHEMA, "{\"not\":{}}", ERR_UNSUPPORTED, "\"not\" is not supported"},
    {GRAMMAR_SCHEMA, "{\"properties\":{\"a\":{\"type\":\"string\",\"contains\":1}}}",
     ERR_UNSUPPORTED, "at /a: \"contains\""},
    {GRAMMAR_SCHEMA, "{\"type\":\"strong\"}", ERR_FORMAT, "\"strong\" is no \"type\""},
    {GRAMMAR_SCHEMA, "{\"$ref\":\"#/nowhere\"}", ERR_FORMAT, "leads nowhere"},
    {GRAMMAR_SCHEMA, "{\"$ref\":\"http://x/y\"}", ERR_FORMAT, "leads nowhere"},
    {GRAMMAR_SCHEMA, "{\"$ref\":\"#\"}", ERR_FORMAT, "begins with itself"},
    {GRAMMAR_SCHEMA, "{\"properties\":{\"a\":{\"$ref\":\"#\"}},\"required\":[\"a\"]}", ERR_FORMAT,
     "no text"},
    {GRAMMAR_SCHEMA,
     "{\"properties\":{\"a\":true},\"required\":[\"b\"],\"additionalProperties\":false}",
     ERR_FORMAT, "\"b\" is required"},
    {GRAMMAR_SCHEMA, "{\"type\":\"string\",\"allOf\":[{\"maxLength\":2},{\"pattern\":\"^a\"}]}",
     ERR_UNSUPPORTED, "only join objects"},
    {GRAMMAR_SCHEMA, "{\"allOf\":[{\"type\":\"string\",\"properties\":{}},{\"properties\":{}}]}",
     ERR_UNSUPPORTED, "only join objects"},
    {GRAMMAR_SCHEMA,
     "{\"allOf\":[{\"$ref\":\"#/$defs/a\",\"minProperties\":2},{\"properties\":{}}],"
     "\"$defs\":{\"a\":{\"properties\":{}}}}",
     ERR_UNSUPPORTED, "\"minProperties\""},
    {GRAMMAR_SCHEMA,
     "{\"allOf\":[{\"properties\":{\"a\":true},\"additionalProperties\":false},"
     "{\"properties\":{\"b\":true}}]}",
     ERR_UNSUPPORTED, "\"b\" is not among"},
    {GRAMMAR_SCHEMA,
     "{\"allOf\":[{\"properties\":{\"a\":true}},{\"properties\":{}}],"
     "\"additionalProperties\":{\"type\":\"null\"}}",
     ERR_UNSUPPORTED, "\"a\" is not among"},
    {GRAMMAR_SCHEMA,
     "{\"allOf\":[{\"properties\":{\"a\":{\"type\":\"string\"}}},{\"properties\":{\"a\":{\"type\":\"null\"}}}]}",
     ERR_UNSUPPORTED, "in one part only"},
    {GRAMMAR_SCHEMA,
     "{\"allOf\":[{\"additionalProperties\":{\"type\":\"null\"}},{\"additionalProperties\":false}],"
     "\"required\":[\"a\"]}",
     ERR_UNSUPPORTED, "\"a\" is not among"},
    {GRAMMAR_SCHEMA,
     "{\"allOf\":[{\"properties\":{},\"additionalProperties\":{\"type\":\"null\"}},"
     "{\"properties\":{},\"additionalProperties\":{\"const\":1}}]}",
     ERR_UNSUPPORTED, "\"additionalProperties\""},
    {GRAMMAR_SCHEMA,
     "{\"allOf\":[{\"$ref\":\"#/$defs/a\"},{\"properties\":{}}],"
     "\"$defs\":{\"a\":{\"$ref\":\"#/$defs/a\"}}}",
     ERR_LIMIT, "nests"},
    {GRAMMAR_SCHEMA, "{\"type\":\"integer\",\"minimum\":3,\"maximum\":2}", ERR_UNSUPPORTED,
     "bounds"},
    {GRAMMAR_SCHEMA, "{\"type\":\"integer\",\"minimum\":0.2,\"maximum\":0.8}", ERR_UNSUPPORTED,
     "no whole number lies between"},
    {GRAMMAR_SCHEMA, "{\"type\":\"number\",\"exclusiveMinimum\":0.5,\"maximum\":0.5}",
     ERR_UNSUPPORTED, "no number lies between"},
    {GRAMMAR_SCHEMA, "{\"type\":\"number\",\"minimum\":1e30,\"maximum\":2e30}", ERR_FORMAT,
     "no text that it allows"},
    {GRAMMAR_SCHEMA, "{\"type\":\"number\",\"minimum\":-2e30,\"maximum\":-1e30}", ERR_FORMAT,
     "no text that it allows"},
    {GRAMMAR_SCHEMA, "{\"minLength\":1,\"pattern\":\"a\"}", ERR_UNSUPPORTED, "leave it out"},
    {GRAMMAR_SCHEMA, "{\"maxLength\":9,\"format\":\"date\"}", ERR_UNSUPPORTED, "leave it out"},
    {GRAMMAR_SCHEMA, "{\"type\":\"string\",\"pattern\":\"(?=a)b\"}", ERR_UNSUPPORTED, "only (?: )"},
    {GRAMMAR_SCHEMA, "{\"type\":\"string\",\"pattern\":\"(^a|b$)\"}", ERR_UNSUPPORTED,
     "at the ends"},
    {GRAMMAR_SCHEMA, "{\"type\":\"string\",\"pattern\":\"a$b|c\"}", ERR_UNSUPPORTED, "at the ends"},
    {GRAMMAR_SCHEMA, "{\"type\":\"string\",\"pattern\":\"a|b)|c$\"}", ERR_FORMAT, "parenthesis"},
    {GRAMMAR_SCHEMA, "{\"type\":\"string\",\"anyOf\":[{\"type\":\"null\"},{\"const\":3}]}",
     ERR_UNSUPPORTED, "in common"},
    {GRAMMAR_SCHEMA, "{\"allOf\":[{\"enum\":[1,2]},{\"enum\":[\"1\",3]}]}", ERR_UNSUPPORTED,
     "in common"},
    {GRAMMAR_SCHEMA, "{\"allOf\":[{\"enum\":[\"a\"]},{\"minLength\":2}]}", ERR_UNSUPPORTED,
     "\"minLength\" beside"},
    {GRAMMAR_SCHEMA, "{\"type\":\"string\",\"not\":{},\"anyOf\":[{}]}", ERR_UNSUPPORTED, "\"not\""},
    {GRAMMAR_SCHEMA, "{\"type\":\"object\",\"anyOf\":[{\"not\":{}},{}]}", ERR_UNSUPPORTED,
     "\"not\""},
    {GRAMMAR_SCHEMA, "{\"type\":\"object\",\"anyOf\":{}}", ERR_FORMAT, "must be a list"},
    {GRAMMAR_SCHEMA, "{\"type\":\"object\",\"anyOf\":[{\"$ref\":\"#\"}]}", ERR_LIMIT, "nests"},
    {GRAMMAR_SCHEMA, "{\"type\":\"array\",\"uniqueItems\":3}", ERR_FORMAT, "uniqueItems"},
    {GRAMMAR_SCHEMA, "{\"type\":\"string\",\"pattern\":\"a\\\\b\"}", ERR_UNSUPPORTED, "escape"},
    {GRAMMAR_SCHEMA, "{\"type\":\"string\",\"pattern\":\"(a\"}", ERR_FORMAT, "not closed"},
    {GRAMMAR_SCHEMA, "{\"type\":\"array\",\"minItems\":20000}", ERR_LIMIT, "10000"},
    {GRAMMAR_SCHEMA, "{\"type\":\"array\",\"minItems\":\"a\"}", ERR_FORMAT, "minItems"},
    {GRAMMAR_SCHEMA, "{\"allOf\":[{\"minLength\":1},{\"format\":7}]}", ERR_FORMAT, "format"},
    {GRAMMAR_SCHEMA, "{\"allOf\":[{\"minLength\":1},{\"format\":\"date\"}]}", ERR_UNSUPPORTED,
     "only join objects"},
    {GRAMMAR_SCHEMA, "{\"enum\":[\"a\"],\"format\":\"date\"}", ERR_UNSUPPORTED,
     "\"format\" beside"},
    {GRAMMAR_SCHEMA, "{\"enum\":[1],\"minimum\":3}", ERR_UNSUPPORTED, "\"minimum\" beside"},
};

/* Each of so many schemas is joined from the next one, twice: all of them would be 2^60. */
static void test_doubled(void) {
    enum { MANY = 60 };
    static char text[MANY * 100 + 200];
    struct err e;
    size_t n = (size_t)sprintf(text,
                               "{\"allOf\":[{\"$ref\":\"#/$defs/0\"},{\"properties\":{}}],"
                               "\"$defs\":{\"%d\":{\"properties\":{}}",
                               MANY);
    for (int i = 0; i < MANY; i++) {
        n += (size_t)sprintf(text + n,
                             ",\"%d\":{\"properties\":{},\"allOf\":["
                             "{\"$ref\":\"#/$defs/%d\"},{\"$ref\":\"#/$defs/%d\"}]}",
                             i, i + 1, i + 1);
    }
    memcpy(text + n, "}}", 3);
    struct grammar *g = open_text(GRAMMAR_SCHEMA, text, &e);
    tap_ok(!g && e.code == ERR_LIMIT, "schemas joined again and again: %s", g ? "taken" : e.text);
    grammar_close(g);
}

/* Each of so many parts has two ways: all of them together would be 2^40. */
static void test_many_ways(void) {
    enum { MANY = 40 };
    static char text[MANY * 100];
    struct err e;
    size_t n = (size_t)sprintf(text, "{\"allOf\":[{}");
    for (int i = 0; i < MANY; i++) {
        n += (size_t)sprintf(text + n, ",{\"anyOf\":[{\"type\":\"null\"},{\"enum\":[\"%d\"]}]}", i);
    }
    memcpy(text + n, "]}", 3);
    struct grammar *g = open_text(GRAMMAR_SCHEMA, text, &e);
    tap_ok(!g && e.code == ERR_LIMIT, "ways that multiply: %s", g ? "taken" : e.text);
    grammar_close(g);
    /* 4096 ways are few, but not through thousands of keys. */
    static char wide[GRAMMAR_TEXT];
    n = (size_t)sprintf(wide, "{\"allOf\":[{\"type\":\"string\"");
    for (int i = 0; i < 4000; i++) n += (size_t)sprintf(wide + n, ",\"title\":0");
    n += (size_t)sprintf(wide + n, "}");
    for (int i = 0; i < 12; i++) {
        n += (size_t)sprintf(wide + n, ",{\"anyOf\":[{\"type\":\"null\"},{\"type\":\"null\"}]}");
    }
    memcpy(wide + n, "]}", 3);
    g = open_text(GRAMMAR_SCHEMA, wide, &e);
    tap_ok(!g && e.code == ERR_LIMIT, "ways through many keys: %s", g ? "taken" : e.text);
    grammar_close(g);
}

/* What no run could begin is refused when it is read: two ways at each of so many rules, before any character. */
static void test_no_beginning(void) {
    char text[1200];
    struct err e;
    for (int deep = 5; deep <= 30; deep += 25) {
        size_t n = (size_t)sprintf(text, "root ::= r0\n");
        for (int i = 0; i < deep; i++)
            n += (size_t)sprintf(text + n, "r%d ::= r%d? r%d?\n", i, i + 1, i + 1);
        sprintf(text + n, "r%d ::= \"a\"", deep);
        struct grammar *g = open_text(GRAMMAR_GBNF, text, &e);
        tap_ok(deep == 5 ? g && takes(g, "aaa") == 2 : !g && e.code == ERR_LIMIT, "%d rules: %s",
               deep, g ? "taken" : e.text);
        grammar_close(g);
    }
}

/* As many values as may stand in one list; and what such a list has in common with a const. */
static void test_long_lists(void) {
    static char text[GRAMMAR_TEXT];
    struct err e;
    for (int is_one = 0; is_one < 2; is_one++) {
        size_t n = (size_t)sprintf(text, "{%s\"enum\":[\"Region/City_00000\"",
                                   is_one ? "\"const\":\"Region/City_01234\"," : "");
        for (int i = 1; i < GRAMMAR_WAYS; i++) {
            n += (size_t)sprintf(text + n, ",\"Region/City_%05d\"", i);
        }
        memcpy(text + n, "]}", 3);
        struct grammar *g = open_text(GRAMMAR_SCHEMA, text, &e);
        tap_ok(g && takes(g, "\"Region/City_01234\"") == 2 &&
                   takes(g, "\"Region/City_02047\"") == (is_one ? 0 : 2) &&
                   takes(g, "\"Region/City_02048\"") == 0,
               "a list of %d values%s: %s", GRAMMAR_WAYS, is_one ? " beside one" : "",
               g ? "taken" : e.text);
        grammar_close(g);
    }
}

/* As many alternatives, which may begin anywhere or only at the ends. */
static void test_long_patterns(void) {
    enum { MANY = 1000 };
    static const struct {
        const char *begin, *end, *good[2], *bad;
    } pattern[] = {{"", "", {"\"w0000\"", "\"a w w0999 b\""}, "\"w1000\""},
                   {"^", "", {"\"w0000\"", "\"w0999 b\""}, "\"w1"},
                   {"", "$", {"\"w0000\"", "\"a w w0999\""}, "\"w0999 b\""},
                   {"^", "$", {"\"w0000\"", "\"w0999\""}, "\"w0999 "}};
    static char text[MANY * 10 + 100];
    struct err e;
    for (size_t k = 0; k < sizeof pattern / sizeof *pattern; k++) {
        size_t n = (size_t)sprintf(text, "{\"type\":\"string\",\"pattern\":\"");
        for (int i = 0; i < MANY; i++) {
            n += (size_t)sprintf(text + n, "%sw%04d%s|", pattern[k].begin, i, pattern[k].end);
        }
        memcpy(text + n - 1, "\"}", 3);
        struct grammar *g = open_text(GRAMMAR_SCHEMA, text, &e);
        tap_ok(g && takes(g, pattern[k].good[0]) == 2 && takes(g, pattern[k].good[1]) == 2 &&
                   takes(g, pattern[k].bad) < 2,
               "%d alternatives %sw%s: %s", MANY, pattern[k].begin, pattern[k].end,
               g ? "taken" : e.text);
        grammar_close(g);
    }
}

static void note_is(const char *schema, const char *want) {
    struct err e;
    struct grammar *g = open_text(GRAMMAR_SCHEMA, schema, &e);
    const char *note = g ? grammar_note(g) : e.text;
    tap_ok(g && (want ? note && !strcmp(note, want) : !note), "%s: %s", shown(schema),
           note ? note : "no note");
    grammar_close(g);
}

static void test_notes(void) {
    note_is("{\"type\":\"array\",\"uniqueItems\":false,\"items\":{\"format\":\"date\"}}", NULL);
    note_is("{\"properties\":{\"a\":{\"format\":\"email\"},\"b\":{\"format\":\"uri\"},"
            "\"c\":{\"type\":\"array\",\"uniqueItems\":true},\"d\":{\"format\":\"email\"}}}",
            "the schema asks for format email, uniqueItems, format uri: not enforced");
    note_is("{\"allOf\":[{\"type\":\"string\",\"minLength\":1},{\"format\":\"uri\"}]}",
            "the schema asks for format uri: not enforced");
    note_is("{\"enum\":[\"a\"],\"format\":\"uri\"}",
            "the schema asks for format uri: not enforced");
    note_is("{\"type\":\"integer\",\"format\":\"int32\"}", NULL);
    note_is("{\"format\":\"\\u001b[31m\"}", "the schema asks for format: not enforced");
    note_is(
        "{\"properties\":{\"a\":{\"format\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"},"
        "\"b\":{\"format\":\"bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\"},"
        "\"c\":{\"format\":\"ccccccccccccccccccccccccccccccccccccccccccccccccc\"}}}",
        "the schema asks for format: not enforced");
}

static void test_refused(void) {
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        struct err e;
        struct grammar *g = open_text(refused[i].kind, refused[i].grammar, &e);
        tap_ok(!g && e.code == refused[i].code && strstr(e.text, refused[i].says), "%s: %s",
               shown(refused[i].grammar), g ? "taken" : e.text);
        grammar_close(g);
    }
    char *long_text = calloc(1, GRAMMAR_TEXT + 2);
    memset(long_text, ' ', GRAMMAR_TEXT + 1);
    struct err e;
    tap_ok(!open_text(GRAMMAR_GBNF, long_text, &e) && e.code == ERR_LIMIT, "%s", e.text);
    long_text[GRAMMAR_TEXT] = '\0';
    memset(long_text, '(', GRAMMAR_TEXT);
    memcpy(long_text, "root ::=", 8);
    tap_ok(!open_text(GRAMMAR_GBNF, long_text, &e) && e.code == ERR_FORMAT, "%s", e.text);
    memset(long_text, '?', GRAMMAR_TEXT);
    memcpy(long_text, "root ::= \"x\"", 12);
    tap_ok(!open_text(GRAMMAR_GBNF, long_text, &e) && e.code == ERR_FORMAT, "%s", e.text);
    free(long_text);
}

/* --- masks --- */

static int32_t allowed[TOY_TOKENS + 1];

/* What a run that has seen nothing else allows after id [n]. */
static size_t by_hand(const struct grammar *g, const int32_t *id, size_t n, int32_t *out) {
    struct grammar_run *r = run_of(g);
    struct err e;
    size_t n_out = 0;
    if (!r || !grammar_run_sync(r, id, n, &e)) return SIZE_MAX;
    for (int32_t i = 0; i < (int32_t)tok_count(tok); i++) {
        if (grammar_allows(r, i)) out[n_out++] = i;
    }
    grammar_run_close(r);
    return n_out;
}

static bool same_masks(const struct grammar *g, struct grammar_run *r, const int32_t *id,
                       size_t n) {
    static int32_t want[TOY_TOKENS + 1];
    const int32_t *kept;
    size_t n_want = by_hand(g, id, n, want), n_kept;
    size_t n_got = grammar_allowed(r, allowed, TOY_TOKENS);
    bool ok = n_got == n_want && !memcmp(allowed, want, n_got * sizeof *want);
    ok = ok && grammar_recalls(r, &kept, &n_kept) && n_kept == n_got;
    ok = ok && !memcmp(kept, want, n_got * sizeof *want);
    return ok && (!n_got || grammar_allowed(r, want, n_got - 1) == n_got);
}

/* Random walks: `every` steps the mask is compared. */
static void walk(const char *what, const struct grammar *g, int walks, size_t most, size_t every) {
    static int32_t id[8192];
    struct grammar_run *r = run_of(g);
    int wrong = 0, checked = 0;
    for (int i = 0; r && i < walks; i++) {
        struct err e;
        for (size_t n = 0; n <= most; n++) {
            if (!grammar_run_sync(r, id, n, &e)) {
                wrong++;
                break;
            }
            if (n % every == 0) wrong += !same_masks(g, r, id, n), checked++;
            size_t n_allowed = grammar_allowed(r, allowed, TOY_TOKENS);
            if (!n_allowed) wrong += !grammar_is_whole(r);
            if (!n_allowed || wrong) break;
            id[n] = allowed[rnd() % n_allowed];
            if (tok_is_end(tok, id[n])) break;
        }
    }
    tap_ok(r && !wrong, "%s: %d masks as a new run makes them, %d not", shown(what), checked,
           wrong);
    grammar_run_close(r);
}

static void test_masks(void) {
    struct err e;
    for (size_t i = 0; i < sizeof language / sizeof *language; i++) {
        struct grammar *g = open_text(language[i].kind, language[i].grammar, &e);
        walk(language[i].grammar, g, 4, 40, 1);
        grammar_close(g);
    }
    /* More modes, places and cells than there is room for. */
    static const char *const wide[] = {"root ::= [a-z0-9.]{4000}",
                                       "root ::= (\"a\" root | \"b\") [abx]{0,300}",
                                       "root ::= ([abx]{0,40} [abxe]){0,40}"};
    for (size_t i = 0; i < 3; i++) {
        struct grammar *g = open_text(GRAMMAR_GBNF, wide[i], &e);
        walk(wide[i], g, 2, 3000, 97);
        grammar_close(g);
    }
}

static void test_taken_back(void) {
    struct err e;
    struct grammar *g = open_text(GRAMMAR_GBNF, "root ::= \"ab\" \"c\"* \"d\"", &e);
    struct grammar_run *r = run_of(g);
    int32_t a = JSON_BYTE0 + 'a', b = JSON_BYTE0 + 'b', c = JSON_BYTE0 + 'c', d = JSON_BYTE0 + 'd';
    int32_t id[4] = {a, b, c, d}, other[4] = {a, b, d, d};
    bool ok = grammar_run_sync(r, id, 4, &e) && grammar_is_whole(r) && grammar_allows(r, 2);
    ok = ok && grammar_run_sync(r, id, 2, &e) && grammar_allows(r, d) && !grammar_allows(r, 2);
    ok = ok && grammar_run_sync(r, other, 3, &e) && grammar_is_whole(r);
    tap_ok(ok, "an answer may be taken back and go on in another way");
    tap_ok(!grammar_run_sync(r, other, 4, &e) && e.code == ERR_FORMAT, "%s", e.text);
    tap_ok(!grammar_allows(r, -1) && !grammar_allows(r, (int32_t)tok_count(tok)) &&
               !grammar_allows(r, toy.v.bos),
           "no such token, and control tokens: never allowed");
    grammar_run_close(r);
    grammar_close(g);
}

int main(void) {
    if (!json_lexicon(&toy, &tok, &lex)) return 1;
    test_languages();
    test_refused();
    test_doubled();
    test_many_ways();
    test_no_beginning();
    test_long_lists();
    test_long_patterns();
    test_notes();
    test_masks();
    test_taken_back();
    lexicon_close(lex);
    tok_close(tok);
    return tap_done();
}
