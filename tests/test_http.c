/* The HTTP front: limits, routes, completions whole and streamed, clients that leave, drip and lie.
 * Real nodes are asked in http.t. */
#include "base/log.h"
#include "front/limits.h"
#include "http_double.h"
#include "tap.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>

enum { HALF_OPEN = 300 };

/* --- tests --- */

static const struct manner plain = {"the hello world", 0, 0, ASK_EOS, ERR_IO, false};

static void test_paths(void) {
    tap_ok(get_path("GET", "/") == 200 && has("/v1/completions"), "/ says what there is");
    tap_ok(get_path("GET", "/health") == 200 && strcmp(reply.body, "{\"status\":\"ok\"}") == 0,
           "/health");
    tap_ok(get_path("HEAD", "/health") == 200 && reply.n_body == 0, "HEAD has no body");
    tap_ok(get_path("GET", "/v1/nope") == 404 && has("\"not_found_error\""), "unknown path: 404");
    tap_ok(get_path("GET", "/v1/../health") == 404, "no paths are walked: 404");
    tap_ok(get_path("DELETE", "/health") == 405 && has_head("Allow: GET, HEAD, OPTIONS"),
           "wrong method: 405 with Allow");
    tap_ok(get_path("GET", "/v1/completions") == 405 && has_head("Allow: POST, OPTIONS"),
           "GET of completions: 405");
    tap_ok(get_path("OPTIONS", "/v1/completions") == 204 && has_head("Allow: POST") &&
               !has_head("Access-Control"),
           "OPTIONS: 204, and no word on other origins");
    tap_ok(get_path("GET", "/status.json?x=1") == 200 &&
               has("\"alerts\":[{\"code\":\"left_out\",\"text\":\"hot\"") &&
               has("\"temperature_c\":null") && has("\"log\":[") && has("\"disk_gbps\":0.5,"),
           "/status.json");
    tap_ok(has("\"throttled\":null") && has("\"link_mbps\":null") && has("\"remedy\":null") &&
               has("\"predicted_tps\":null"),
           "says null of what nobody measures");
    fake.status.state = STATE_LOADING;
    snprintf(fake.status.why, sizeof fake.status.why, "reading");
    tap_ok(get_path("GET", "/health") == 503 &&
               has("{\"status\":\"loading\",\"why\":\"reading\"}") && has_head("Retry-After"),
           "/health while loading");
    fake.status.state = STATE_ALONE;
    tap_ok(get_path("GET", "/health") == 200, "/health of a node alone that serves");
    fake.status.state = STATE_READY;
}

#define RAW(text) exchange(text, sizeof(text) - 1)

static void test_requests(void) {
    int status = RAW("\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\r\n\r\n");
    tap_ok(status == 400 || (status == 0 && !reply.n_raw), "a TLS greeting: 400 or closed");
    tap_ok(RAW("GET / HELLO/1.1\r\nHost: x\r\n\r\n") == 400, "garbage: 400");
    tap_ok(RAW("GET /health HTTP/1.0\r\n\r\n") == 200, "HTTP/1.0");
    tap_ok(RAW("GET /health HTTP/1.1\r\nConnection: close\r\n\r\n") == 400, "no Host: 400");
    tap_ok(RAW("POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n"
               "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n") == 400,
           "Content-Length and Transfer-Encoding: 400");
    tap_ok(RAW("POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n"
               "Content-Length: 3\r\n\r\n{}") == 400,
           "two Content-Lengths: 400");
    tap_ok(RAW("POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n") == 411,
           "no length: 411");
    tap_ok(RAW("POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
               "Content-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}") == 415 &&
               has("with curl: --json, or"),
           "text/plain: 415, and what helps");
    tap_ok(RAW("POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
               "Origin: http://evil.example\r\nContent-Length: 2\r\n\r\n{}") == 415,
           "a page's request of no type: 415");
    tap_ok(RAW("POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
               "Content-Length: 2\r\n\r\n{}") == 400 &&
               has("\\\"prompt\\\" is missing"),
           "no Content-Type is taken for JSON");
    tap_ok(RAW("POST /v1/completions HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
               "Content-Length: 99999999\r\n\r\n") == 413,
           "a body that is told to be too large: 413 before it is sent");
    tap_ok(RAW("POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
               "Transfer-Encoding: chunked\r\n\r\n"
               "a\r\n{\"prompt\":\r\n8\r\n\"a\",\"a\":\r\n2\r\n1}\r\n0\r\n\r\n") == 200,
           "a chunked body");
    static char big[80 << 10];
    size_t n = (size_t)snprintf(big, sizeof big, "GET / HTTP/1.1\r\nHost: x\r\nX-Big: ");
    memset(big + n, 'a', sizeof big - n - 4);
    memcpy(big + sizeof big - 4, "\r\n\r\n", 4);
    status = exchange(big, sizeof big);
    tap_ok(status == 431 || status == 413, "64 KiB of a header: refused (%d)", status);
}

static void test_big_body(void) {
    static char body[5 << 20];
    size_t n = (size_t)snprintf(body, sizeof body,
                                "POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                                "Content-Length: %zu\r\n\r\n",
                                sizeof body);
    tap_ok(n && exchange(body, n) == 0, "a body that does not come gets no answer yet");
    int fd = dial(1);
    begin(&reply);
    put(fd, body, n);
    memset(body, ' ', sizeof body);
    put(fd, body, sizeof body);
    get(fd, &reply, NULL, 5000);
    parse(&reply);
    close(fd);
    tap_ok(reply.status == 413 && has("4.00 MiB"),
           "a body of 5 MiB: 413, and the client can read it");
    fd = dial(1);
    begin(&reply);
    put_text(fd, "POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                 "Transfer-Encoding: chunked\r\n\r\n500000\r\n");
    put(fd, body, sizeof body);
    put_text(fd, "\r\n0\r\n\r\n");
    get(fd, &reply, NULL, 5000);
    parse(&reply);
    close(fd);
    tap_ok(reply.status == 413, "5 MiB in chunks: 413");
}

static void test_kept(void) {
    static const char one[] = "GET /health HTTP/1.1\r\nHost: x\r\n\r\n";
    static const char two[] = "GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
                              "GET /nope HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    int fd = dial(1);
    begin(&reply);
    put_text(fd, one);
    bool is_closed = get(fd, &reply, "ok\"}", 2000);
    begin(&reply);
    put_text(fd, two);
    get(fd, &reply, NULL, 2000);
    close(fd);
    const char *ok = strstr(reply.raw, "200 OK"), *no = strstr(reply.raw, "404 Not Found");
    tap_ok(!is_closed && ok && no && ok < no, "a kept connection, and two requests in one go");
}

static void test_whole(void) {
    set_manner(plain);
    tap_ok(post("{\"prompt\":\"hello\",\"model\":\"m\"}") == 200 &&
               has("\"choices\":[{\"text\":\" the hello world\",\"index\":0,\"logprobs\":null,"
                   "\"finish_reason\":\"stop\"}]") &&
               has("\"object\":\"text_completion\"") && has("\"id\":\"cmpl-") &&
               has("\"model\":\"m\""),
           "a completion");
    struct asked k = last_ask();
    tap_ok(k.r.n_prompt == 2 && k.prompt[0] == toy.v.bos && k.r.n_predict == 16 &&
               fabsf(k.r.sampler.temp - 0.8F) < 1e-6F && k.r.sampler.top_k == 40,
           "BOS, and the options of `dair run`");
    tap_ok(has("\"usage\":{\"prompt_tokens\":2,\"completion_tokens\":3,\"total_tokens\":5}"),
           "usage is exact");
    tap_ok(post("{\"prompt\":\"a\",\"max_tokens\":2}") == 200 && has("\" the hello\"") &&
               has("\"finish_reason\":\"length\"") && has("\"model\":\"toy\""),
           "max_tokens");
    tap_ok(post("{\"prompt\":\"a\",\"max_tokens\":0,\"echo\":true}") == 200 &&
               has("\"text\":\"a\""),
           "max_tokens 0 with echo");
    tap_ok(post("{\"prompt\":[\"a\",[4,5],\"b\"],\"max_tokens\":1}") == 200 && has("\"index\":2") &&
               has("\"completion_tokens\":3"),
           "several prompts are choices");
    tap_ok(post("{\"prompt\":[270,271],\"seed\":7,\"temperature\":0,\"top_k\":1,\"top_p\":0.5,"
                "\"min_p\":0,\"max_tokens\":-1,\"user\":\"u\",\"best_of\":1,\"logprobs\":null}") ==
               200,
           "a prompt of ids");
    k = last_ask();
    tap_ok(k.r.n_prompt == 2 && k.prompt[0] == 270 && k.r.sampler.seed == 7 &&
               k.r.sampler.temp <= 0 && k.r.sampler.top_k == 1 && k.r.n_predict == N_CTX - 2,
           "reaches the node with its options");
    tap_ok(post("{\"prompt\":\"a\",\"repeat_last_n\":-1}") == 200 &&
               last_ask().r.sampler.last_n == SAMPLER_WINDOW,
           "a window of -1 is the widest");
    tap_ok(post("{\"prompt\":\"a\",\"logit_bias\":[[5,false],[6,-2]]}") == 200 &&
               last_ask().r.sampler.n_bias == 2 &&
               last_ask().r.sampler.bias[0].value == -INFINITY &&
               last_ask().r.sampler.bias[1].value == -2,
           "false as a bias bans");
    tap_ok(post("{\"prompt\":\"a\",\"logit_bias\":{\"5\":false}}") == 200 &&
               last_ask().r.sampler.bias[0].value == -INFINITY,
           "in either form");
    tap_ok(post("{\"prompt\":\"a\",\"mirostat\":0,\"dry_multiplier\":0.0,\"dry_base\":1.75,"
                "\"xtc_probability\":0,\"n_probs\":0,\"min_keep\":0,\"ignore_eos\":false,"
                "\"repetition_penalty\":1,\"adaptive_target\":-1,\"samplers\":null}") == 200,
           "what is not served may be asked for where it is off");
    uint64_t seed = k.r.sampler.seed;
    tap_ok(post("{\"prompt\":\"a\"}") == 200 && last_ask().r.sampler.seed != seed,
           "no seed: another each time");
    static const char nul[] = "{\"prompt\":\"a\\u0000b\"}";
    tap_ok(post(nul) == 200 && last_ask().r.n_prompt == 5 && last_ask().prompt[3] == 3,
           "a NUL in the prompt is a byte of it");
    tap_ok(post("\xef\xbb\xbf{\"prompt\":\"a\"}") == 200, "a byte-order mark");
    tap_ok(post("{\"prompt\":\"\"}") == 200 && last_ask().r.n_prompt == 1, "an empty prompt: BOS");
}

static void refused(const char *json, int status, const char *says) {
    int got = post(json);
    bool ok = got == status && has(says) && has("{\"error\":{\"message\":");
    tap_ok(ok, "%d: %.60s", status, json);
    if (!ok) printf("# got %d %s\n", got, reply.body);
}

static void test_refusals(void) {
    static char deep[20100], wide[4000];
    refused("", 400, "the body is empty");
    refused("{", 400, "not JSON");
    refused("{} x", 400, "not JSON");
    refused("[]", 400, "must be a JSON object, not a list");
    refused("{}", 400, "missing");
    refused("{\"prompt\":\"\xc3(\"}", 400, "not JSON");
    refused("{\"prompt\":\"\\ud83d\"}", 400, "not JSON");
    refused("{\"prompt\":\"a\",\"temperature\":1e400}", 400, "not JSON");
    refused("{\"prompt\":\"a\",\"temperature\":\"hot\"}", 400,
            "\\\"temperature\\\" must be a number");
    refused("{\"prompt\":\"a\",\"temperature\":-1}", 400, "from 0 to 100");
    refused("{\"prompt\":\"a\",\"top_p\":2}", 400, "top_p");
    refused("{\"prompt\":\"a\",\"max_tokens\":-2}", 400, "max_tokens");
    refused("{\"prompt\":\"a\",\"max_tokens\":1.5}", 400, "max_tokens");
    refused("{\"prompt\":\"a\",\"stream\":1}", 400, "true or false");
    refused("{\"prompt\":\"a\",\"stop\":[1]}", 400, "stop");
    refused("{\"prompt\":\"a\",\"n\":2}", 400, "several times");
    refused("{\"prompt\":\"a\",\"logprobs\":0}", 400, "logprobs");
    refused("{\"prompt\":\"a\",\"suffix\":\"b\"}", 400, "suffix");
    static const char *const unserved[] = {"mirostat\":2",           "dry_multiplier\":0.8",
                                           "xtc_probability\":0.5",  "n_probs\":2",
                                           "min_keep\":3",           "ignore_eos\":true",
                                           "samplers\":[\"top_k\"]", "repetition_penalty\":1.1",
                                           "adaptive_target\":0.5"};
    for (size_t i = 0; i < sizeof unserved / sizeof *unserved; i++) {
        char json[80];
        snprintf(json, sizeof json, "{\"prompt\":\"a\",\"%s}", unserved[i]);
        refused(json, 400, "is not supported here");
    }
    refused("{\"prompt\":\"a\",\"presence_penalty\":1e308}", 400, "presence_penalty");
    refused("{\"prompt\":\"a\",\"repeat_penalty\":0}", 400, "repeat_penalty");
    refused("{\"prompt\":\"a\",\"typical_p\":-1}", 400, "typical_p");
    refused("{\"prompt\":\"a\",\"repeat_last_n\":5000}", 400, "repeat_last_n");
    refused("{\"prompt\":\"a\",\"repeat_last_n\":-2}", 400, "repeat_last_n");
    refused("{\"prompt\":\"a\",\"logit_bias\":{\"x\":2}}", 400, "by id");
    refused("{\"prompt\":\"a\",\"logit_bias\":{\"1\":2e9}}", 400, "logit_bias");
    refused("{\"prompt\":\"a\",\"logit_bias\":[[1]]}", 400, "pairs");
    refused("{\"prompt\":\"a\",\"logit_bias\":[[1,true]]}", 400, "logit_bias");
    refused("{\"prompt\":\"a\",\"logit_bias\":[[99999999,1]]}", 400,
            "token 99999999, and the vocab");
    refused("{\"prompt\":\"a\",\"logit_bias\":{\"99999999\":1}}", 400,
            "token 99999999, and the vocab");
    refused("{\"prompt\":\"a\",\"response_format\":{\"type\":\"xml\"}}", 400, "format");
    refused("{\"prompt\":\"a\",\"response_format\":{\"type\":\"json_schema\"}}", 400, "no schema");
    refused("{\"prompt\":\"a\",\"grammar\":\"root ::= x\"}", 400, "grammar 1:10");
    refused("{\"prompt\":\"a\",\"json_schema\":{\"not\":{}}}", 400, "\\\"not\\\" is not supported");
    refused("{\"prompt\":\"a\",\"json_schema\":{},\"grammar\":\"root ::= x\"}", 400, "only one");
    char deep_rules[900] = "{\"prompt\":\"a\",\"grammar\":\"root ::= r0\\n";
    for (int i = 0; i < 30; i++) {
        size_t n = strlen(deep_rules);
        snprintf(deep_rules + n, sizeof deep_rules - n, "r%d ::= r%d? r%d?\\n", i, i + 1, i + 1);
    }
    size_t len = strlen(deep_rules);
    snprintf(deep_rules + len, sizeof deep_rules - len, "r30 ::= \\\"a\\\"\"}");
    refused(deep_rules, 400, "in more than 2048 ways");
    tap_ok(has("\"code\":null"), "like other grammars that are refused");
    refused("{\"prompt\":5}", 400, "prompt");
    refused("{\"prompt\":[]}", 400, "prompt");
    refused("{\"prompt\":[1,\"a\"]}", 400, "prompt");
    refused("{\"prompt\":[[]]}", 400, "empty");
    refused("{\"prompt\":[999999]}", 400, "prompt");
    refused("{\"prompt\":[-1]}", 400, "prompt");
    refused("{\"prompt\":[{}]}", 400, "an object");
    memset(deep, '[', 20000);
    refused(deep, 400, "nested");
    memset(wide, 'b', 3000);
    memcpy(wide, "{\"prompt\":\"", 11);
    memcpy(wide + 3000, "\"}", 3);
    refused(wide, 400, "exceeds the available context size");
    tap_ok(has("\"context_length_exceeded\""), "and its code");
    struct manner m = plain;
    m.is_refused = true;
    m.why = ERR_LIMIT;
    set_manner(m);
    refused("{\"prompt\":\"a\"}", 429, "not now");
    tap_ok(has_head("Retry-After: 5"), "with Retry-After");
    m.why = ERR_STOPPED;
    set_manner(m);
    refused("{\"prompt\":\"a\",\"stream\":true}", 503, "not now");
    m.why = ERR_UNSUPPORTED;
    set_manner(m);
    refused("{\"prompt\":\"a\"}", 503, "not now");
    m.why = ERR_MEMORY;
    set_manner(m);
    refused("{\"prompt\":\"b\"}", 503, "not now");
    set_manner(plain);
}

static void test_stream(void) {
    unsigned n;
    set_manner((struct manner){"the hello world", 300, 20, ASK_EOS, ERR_IO, false});
    uint64_t start = clock_ns();
    tap_ok(post("{\"prompt\":\"a\",\"stream\":true,\"echo\":true,"
                "\"stream_options\":{\"include_usage\":true}}") == 200 &&
               has_head("Content-Type: text/event-stream"),
           "a stream");
    double head_ms = (double)(reply.head_ns - start) * 1e-6;
    tap_ok(head_ms < 100, "whose head comes at once: after %.1f ms", head_ms);
    const char *text = stream_text(&reply, &n);
    tap_ok(n == 4 && strcmp(text, "a the hello world") == 0, "%u events make the text", n);
    const char *finish = strstr(reply.body, "\"finish_reason\":\"stop\"");
    const char *usage = strstr(reply.body, "\"choices\":[],\"usage\":{\"prompt_tokens\":3");
    const char *done = strstr(reply.body, "data: [DONE]\n\n");
    tap_ok(finish && usage && done && finish < usage && usage < done && done[14] == '\0',
           "finish, usage, [DONE]");
    set_manner((struct manner){"é世 é世é", 0, 5, ASK_EOS, ERR_IO, false});
    tap_ok(post("{\"prompt\":\"a\",\"stream\":true,\"max_tokens\":100}") == 200 &&
               strcmp(stream_text(&reply, &n), " é世 é世é") == 0 && !has("\xef\xbf\xbd"),
           "characters are not cut");
    set_manner((struct manner){"hello", 700, 0, ASK_EOS, ERR_IO, false});
    tap_ok(post("{\"prompt\":\"a\",\"stream\":true}") == 200 && has(": waiting\n\n: waiting\n\n") &&
               has("hello"),
           "a stream without news says so");
    set_manner((struct manner){"hello world", 0, 5, ASK_FAILED, ERR_IO, false});
    tap_ok(post("{\"prompt\":\"a\",\"stream\":true}") == 200 && has("hello") &&
               has("data: {\"error\":{\"message\":\"a node was lost\",\"type\":\"server_error\"") &&
               !has("[DONE]"),
           "a failure in the middle is told");
    tap_ok(post("{\"prompt\":\"a\"}") == 500 && has("a node was lost"), "a failure: 500");
    tap_ok(post("{\"prompt\":[\"a\",\"b\"],\"stream\":true,\"max_tokens\":1}") == 200 &&
               has("\"index\":0") && has("\"index\":1") && has("[DONE]"),
           "two choices in a stream");
}

/* What a schema asks for that is not enforced is in the reply's head, in characters that fit there. */
static void test_note(void) {
#define NOTED(name)                                                                                \
    "{\"prompt\":\"a\",\"json_schema\":{\"type\":[\"string\",\"array\"],\"format\":\"" name        \
    "\",\"uniqueItems\":true}"
    static const char *const none[] = {
        "{\"prompt\":\"a\"}", "{\"prompt\":\"a\",\"grammar\":\"root ::= \\\"a\\\"\"}",
        "{\"prompt\":\"a\",\"json_schema\":{\"type\":\"string\",\"format\":\"date\"}}",
        "{\"prompt\":\"a\",\"response_format\":{\"type\":\"json_object\"}}"};
    const char *mail =
        "Warning: 299 - \"the schema asks for format email, uniqueItems: not enforced\"";
    unsigned n;
    set_manner(plain);
    tap_ok(post(NOTED("email") "}") == 200 && has_head(mail) &&
               has("\"text\":\" the hello world\""),
           "what of a schema is not enforced is told in a Warning");
    tap_ok(post("{\"prompt\":\"a\",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{"
                "\"name\":\"x\",\"schema\":{\"type\":\"array\",\"uniqueItems\":true}}}}") == 200 &&
               has_head("Warning: 299 - \"the schema asks for uniqueItems: not enforced\""),
           "also of a response_format");
    tap_ok(post(NOTED("email") ",\"stream\":true}") == 200 && has_head(mail) &&
               strcmp(stream_text(&reply, &n), " the hello world") == 0 && !has("Warning"),
           "a stream has it in its head, too");
    tap_ok(post(NOTED("a\\r\\nX-Own: 1") "}") == 200 &&
               has_head("asks for format, uniqueItems: not") && !has_head("X-Own"),
           "a name with a line's end is not in it");
    tap_ok(post(NOTED("\\\"\xc3\xa9") "}") == 200 && has_head("asks for format, uniqueItems: not"),
           "nor one with other characters");
    for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
        tap_ok(post(none[i]) == 200 && !has_head("Warning"), "nothing to say of %s", none[i]);
    }
#undef NOTED
}

static void test_stop(void) {
    unsigned n;
    /* Long enough that it would not end by itself before it is cancelled. */
    set_manner((struct manner){"the hello world the hello world the hello world the hello world", 0,
                               100, ASK_EOS, ERR_IO, false});
    tap_ok(post("{\"prompt\":\"a\",\"stop\":\"lo wor\"}") == 200 && has("\" the hel\"") &&
               has("\"finish_reason\":\"stop\""),
           "a stop string over a token border");
    tap_ok(settled() && last_ask().is_cancelled, "ends the work");
    set_manner((struct manner){"the hello world", 0, 5, ASK_EOS, ERR_IO, false});
    tap_ok(post("{\"prompt\":\"a\",\"stop\":[\"xyz\",\"o w\",\" world\"],\"stream\":true}") ==
                   200 &&
               strcmp(stream_text(&reply, &n), " the hell") == 0,
           "the first of several, nothing of it in the stream");
    tap_ok(post("{\"prompt\":\"a\",\"stop\":\"hello worlds\",\"stream\":true}") == 200 &&
               strcmp(stream_text(&reply, &n), " the hello world") == 0,
           "what only looked like one is given out");
    tap_ok(post("{\"prompt\":\"a\",\"stop\":[\" the\",\"\"]}") == 200 && has("\"text\":\"\""),
           "one at the very beginning");
}

static void test_two(void) {
    static struct reply other;
    unsigned n;
    set_manner((struct manner){"the hello world the hello world", 20, 30, ASK_EOS, ERR_IO, false});
    int a = post_begin("{\"prompt\":\"a\",\"stream\":true}", 1);
    int b = post_begin("{\"prompt\":\"b\",\"stream\":true}", 2);
    begin(&reply);
    begin(&other);
    get(a, &reply, "hello", 2000);
    get(b, &other, "hello", 2000);
    bool is_both = !strstr(reply.raw, "DONE") && !strstr(other.raw, "DONE");
    get(a, &reply, NULL, 2000);
    get(b, &other, NULL, 2000);
    close(a);
    close(b);
    parse(&reply);
    parse(&other);
    bool ok = strcmp(stream_text(&reply, &n), " the hello world the hello world") == 0;
    tap_ok(is_both && ok &&
               strcmp(stream_text(&other, &n), " the hello world the hello world") == 0,
           "two streams at once");
}

/* All that the node takes, each with a list of prompts. */
static void test_full(void) {
    static const char prompts[] =
        "{\"prompt\":[\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\","
        "\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\"],\"stream\":true}";
    int fd[NODE_ASKS / JOB_CHOICES];
    set_manner((struct manner){"hello", 2000, 0, ASK_EOS, ERR_IO, false});
    for (size_t i = 0; i < NODE_ASKS / JOB_CHOICES; i++) {
        fd[i] = post_begin(prompts, 5);
        begin(&reply);
        get(fd[i], &reply, "\r\n\r\n", 1000);
    }
    refused("{\"prompt\":\"a\"}", 429, "64 requests are under way");
    tap_ok(get_path("GET", "/health") == 200, "others are served");
    for (size_t i = 0; i < NODE_ASKS / JOB_CHOICES; i++) close(fd[i]);
    tap_ok(settled(), "all of a request's work ends with it");
}

/* Quick tokens from another thread, and many streams: none is lost, none hangs. */
static void test_crowd(void) {
    enum { CROWD = 40 };
    static const char *const text =
        "the hello world the hello world the hello world the hello world";
    static char want[256];
    int fd[CROWD];
    unsigned n, n_same = 0;
    snprintf(want, sizeof want, " %s", text);
    set_manner((struct manner){text, 0, 1, ASK_EOS, ERR_IO, false});
    uint64_t start = clock_ns();
    for (int i = 0; i < CROWD; i++) {
        fd[i] = post_begin("{\"prompt\":\"a\",\"stream\":true,\"max_tokens\":100}", 6);
    }
    for (int i = 0; i < CROWD; i++) {
        begin(&reply);
        get(fd[i], &reply, NULL, 5000);
        parse(&reply);
        n_same += strcmp(stream_text(&reply, &n), want) == 0 && has("[DONE]");
        close(fd[i]);
    }
    tap_ok(n_same == CROWD, "%u of %d streams at once are whole, after %.0f ms", n_same, CROWD,
           ms_since(start));
}

static unsigned asked_so_far(void) {
    pthread_mutex_lock(&fake.lock);
    unsigned n = (unsigned)fake.n_ask;
    pthread_mutex_unlock(&fake.lock);
    return n;
}

static void leaves(const char *json, bool is_read, const char *what) {
    unsigned before = asked_so_far();
    int fd = post_begin(json, 3);
    begin(&reply);
    if (is_read) {
        get(fd, &reply, "hello", 2000);
    } else {
        for (int ms = 0; ms < 2000 && asked_so_far() == before; ms++) usleep(1000);
    }
    uint64_t left = clock_ns();
    close(fd);
    bool ok = settled();
    struct asked k = last_ask();
    double ms = (double)(int64_t)(k.cancelled_ns - left) * 1e-6;
    tap_ok(ok && k.is_cancelled && ms >= 0 && ms < 100, "%s: cancelled after %.1f ms", what, ms);
}

static void test_leave(void) {
    set_manner((struct manner){"the hello world hello world", 5, 1000, ASK_EOS, ERR_IO, false});
    leaves("{\"prompt\":\"a\"}", false, "a client that leaves before the reply");
    set_manner((struct manner){"hello world hello world", 5, 500, ASK_EOS, ERR_IO, false});
    leaves("{\"prompt\":\"a\",\"stream\":true}", true, "a client that leaves in mid-stream");
}

static void test_many(void) {
    static int fd[HALF_OPEN];
    set_manner(plain);
    for (size_t i = 0; i < HALF_OPEN; i++) {
        fd[i] = dial(10 + (unsigned)i / 60);
        put_text(fd[i], "GET /health HTTP/1.1\r\nX-Slow: ");
    }
    uint64_t start = clock_ns();
    int status = post("{\"prompt\":\"a\"}");
    double ms = ms_since(start);
    tap_ok(status == 200 && ms < 500,
           "%d half-open connections, and a request is answered in %.1f ms", HALF_OPEN, ms);
    for (size_t i = 0; i < HALF_OPEN; i++) close(fd[i]);
    for (size_t i = 0; i < 100; i++) fd[i] = dial(20);
    int closed = 0;
    bool is_closed[100] = {false};
    for (int turn = 0; turn < 2000 && closed < 100 - HTTP_PER_IP; turn++, usleep(1000)) {
        for (size_t i = 0; i < 100; i++) {
            char c;
            if (is_closed[i] || (recv(fd[i], &c, 1, MSG_DONTWAIT) < 0 && errno != ECONNRESET))
                continue;
            is_closed[i] = true;
            closed++;
        }
    }
    for (size_t i = 0; i < 100; i++) close(fd[i]);
    tap_ok(closed == 100 - HTTP_PER_IP, "one address holds %d connections: %d of 100 were closed",
           HTTP_PER_IP, closed);
}

/* A byte every 100 ms: how long until the connection is closed. */
static double drip(const char *head) {
    int fd = dial(4);
    uint64_t start = clock_ns();
    begin(&reply);
    put_text(fd, head);
    while (ms_since(start) < 5000) {
        put_text(fd, "a");
        if (get(fd, &reply, NULL, 100)) break;
    }
    close(fd);
    return ms_since(start);
}

static void test_drip(void) {
    double head = drip("GET /health HTTP/1.1\r\nX-Slow: ");
    tap_ok(head > 900 && head < 2000, "headers that drip in: closed after %.0f ms of 1000", head);
    double body = drip("POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n");
    tap_ok(body > 1100 && body < 2200, "a body that drips in: closed after %.0f ms of 1200", body);
    int fd = dial(4);
    begin(&reply);
    put_text(fd, "GET /health HTTP/1.1\r\nHost: x\r\n\r\n");
    get(fd, &reply, "ok\"}", 1000);
    uint64_t start = clock_ns();
    bool is_closed = get(fd, &reply, NULL, 5000);
    double idle = ms_since(start);
    tap_ok(is_closed && idle > 1200 && idle < 2500, "an idle kept connection: closed after %.0f ms",
           idle);
    close(fd);
}

static void open_front(const char *api_key, const struct tok *t, uint64_t memory) {
    struct err e;
    struct front_conf c = {
        .tok = t,
        .n_ctx = N_CTX,
        .api_key = api_key,
        .memory = memory,
        .times = {.header_ms = 1000, .body_ms = 1200, .next_ms = 1400, .quiet_ms = 100},
    };
    if (!front_open(&front, &c, &e)) {
        printf("Bail out! %s\n", e.text);
        exit(1);
    }
}

static void test_key(void) {
    open_front("secret", tok, 0);
    tap_ok(get_path("GET", "/health") == 200, "/health needs no key");
    tap_ok(post("{\"prompt\":\"a\"}") == 401 && has("\"authentication_error\"") &&
               has_head("WWW-Authenticate: Bearer"),
           "no key: 401");
#define WITH(header)                                                                               \
    RAW("POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" header                 \
        "\r\nContent-Length: 14\r\n\r\n{\"prompt\":\"a\"}")
    tap_ok(WITH("Authorization: Bearer secreT") == 401, "a wrong key: 401");
    tap_ok(WITH("Authorization: Bearer secret") == 200, "the key");
    tap_ok(WITH("X-Api-Key: secret") == 200, "the key, as others send it");
    front_close(front);
}

static bool under_way(uint64_t n) {
    for (int i = 0; i < 400; i++) {
        pthread_mutex_lock(&fake.lock);
        bool is = fake.n_ask - fake.n_over == n;
        pthread_mutex_unlock(&fake.lock);
        if (is) return true;
        usleep(1000);
    }
    return false;
}

/* As much as a node in 6 MiB gives. */
static void test_small(void) {
    enum { SMALL = 512 << 10 };
    static char body[64 << 10];
    struct http_limits m, plenty;
    http_limits_of(&plenty, 0);
    tap_ok(plenty.conns == HTTP_CONNS && plenty.body == HTTP_BODY && plenty.head == HTTP_HEAD,
           "plenty of memory: the limits of http.h");
    http_limits_of(&m, SMALL / 8 * 3);
    tap_ok(m.conns * m.head + m.bodies <= SMALL / 8 * 3, "little: %u connections, %zu of bodies",
           m.conns, m.bodies);
    open_front(NULL, tok, SMALL);
    set_manner(plain);
    memset(body, ' ', sizeof body);
    tap_ok(post_n(body, sizeof body) == 413 && has("16.0 KiB"), "a body of 64 KiB: 413");
    tap_ok(post("{\"prompt\":\"a\",\"max_tokens\":-1}") == 200, "a usual one is served");
    set_manner((struct manner){"hello", 500, 0, ASK_EOS, ERR_IO, false});
    int fd[32], n = 0;
    for (; n < 12; n++) fd[n] = post_begin("{\"prompt\":\"a\",\"max_tokens\":-1}", 7);
    tap_ok(under_way(12), "twelve fit");
    refused("{\"prompt\":[\"a\",\"a\",\"a\",\"a\"],\"max_tokens\":-1}", 429, "no memory for more");
    while (n) close(fd[--n]);
    tap_ok(settled(), "and all end");
    front_close(front);
}

static void test_no_model(void) {
    struct status_node *other = &fake.status.cluster.node[1];
    uint64_t bytes = fake.status.model.bytes;
    fake.status.model.bytes = 0;
    open_front(NULL, NULL, 0);
    refused("{\"prompt\":\"a\"}", 503, "answers no requests itself; ask another node, or give it");
    fake.status.cluster.n_node = 2;
    *other =
        (struct status_node){.state = STATE_READY, .has_model = true, .address = "10.0.0.7:80"};
    refused("{\"prompt\":\"b\"}", 503, "ask another node, such as http://10.0.0.7:80/");
    tap_ok(get_path("GET", "/health") == 503 &&
               has("{\"status\":\"failed\",\"why\":\"this node has no model and answers no"),
           "/health of a node without a model");
    tap_ok(get_path("GET", "/status.json") == 200 && has("\"refused\":{\"wrong_key\":3,"),
           "who was refused is counted");
    fake.status.cluster.n_node = 1;
    fake.status.model.bytes = bytes;
    front_close(front);
}

static void test_close(void) {
    set_manner((struct manner){"hello world hello world", 5, 400, ASK_EOS, ERR_IO, false});
    int a = post_begin("{\"prompt\":\"a\",\"stream\":true}", 1);
    int b = post_begin("{\"prompt\":\"a\"}", 1);
    begin(&reply);
    get(a, &reply, "hello", 2000);
    uint64_t start = clock_ns();
    front_close(front);
    tap_ok(ms_since(start) < 1000 && settled(), "closing ends what is under way, in %.1f ms",
           ms_since(start));
    close(a);
    close(b);
}

static void setup(void) {
    struct err e;
    toy_spm(&toy);
    if (!tok_open(&tok, &toy.v, &e)) {
        printf("Bail out! %s\n", e.text);
        exit(1);
    }
    log_set(LOG_ERROR, stderr);
    struct status *s = &fake.status;
    s->state = STATE_READY;
    s->model.bytes = 1;
    s->net.refused_wrong_key = 3;
    snprintf(s->model.name, sizeof s->model.name, "toy");
    s->n_alert = 1;
    s->alert[0].code = ALERT_LEFT_OUT;
    snprintf(s->alert[0].text, sizeof s->alert[0].text, "hot");
    s->cluster.n_node = 1;
    s->cluster.node[0].temperature_c = (double)NAN;
    s->cluster.node[0].disk_bps = 5e8;
    fake.manner = plain;
    if (pthread_create(&fake.thread, NULL, fake_run, NULL) != 0) exit(1);
    open_front(NULL, tok, 0);
}

/* The library's own: flags that tell its thread to stop and of new connections, which an event of its
 * wakes it for besides, and a count that is looked at again under its lock. */
const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void) {
    return "race:MHD_stop_daemon\n"
           "race:^internal_add_connection\n"
           "race:^new_connection_prepare_\n";
}

int main(void) {
    setup();
    test_paths();
    test_requests();
    test_big_body();
    test_kept();
    test_whole();
    test_refusals();
    test_stream();
    test_note();
    test_stop();
    test_two();
    test_full();
    test_crowd();
    test_leave();
    test_many();
    test_drip();
    test_close();
    test_key();
    test_small();
    test_no_model();
    tap_ok(settled(), "nothing is left at the node");
    pthread_mutex_lock(&fake.lock);
    fake.is_closing = true;
    pthread_mutex_unlock(&fake.lock);
    pthread_join(fake.thread, NULL);
    tok_close(tok);
    return tap_done();
}
