/* Messages: what is sent comes back, and nothing else is taken. With a folder as argument: writes one
 * of each kind there, as seeds for the fuzzer. */
#include "cluster/msg.h"
#include "net/preamble.h"
#include "tap.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { CAP = 4096, IDS = 256 };

static int32_t prompt[IDS];
static uint8_t out[CAP];

static struct node_id id_of(unsigned i) {
    struct node_id id = {{3, (uint8_t)(i + 1)}};
    return id;
}

static void make_facts(struct facts *f) {
    *f = (struct facts){.contract = 2,
                        .model = 0x1122334455667788,
                        .model_name = "Llama 3.2 1B",
                        .name = "dair-1a2b",
                        .version = "0.1.0",
                        .arch = "aarch64",
                        .board = "Raspberry Pi 5 Model B Rev 1.0",
                        .ram_bytes = 8ULL << 30,
                        .budget_bytes = 6ULL << 30,
                        .pool_bytes = 5ULL << 30,
                        .speed = 9.5e9,
                        .disk_bps = 4.1e8,
                        .share = 0.375,
                        .n_thread = 4,
                        .n_ctx = 8192,
                        .n_seq = 5,
                        .http_port = 80,
                        .kv = 1,
                        .wire = 2,
                        .is_guest = true};
}

static void make_beat(struct beat *b) {
    *b = (struct beat){.state = STATE_READY,
                       .name = "fifteen-letters-12",
                       .leader = id_of(0),
                       .epoch = 77,
                       .seen = 300,
                       .n_hear = 3,
                       .hear = {id_of(0), id_of(4), id_of(9)},
                       .pinned_bytes = 123456789,
                       .streamed_bytes = 1ULL << 33,
                       .disk_bps = 3.9e8,
                       .temperature_c = 61.4,
                       .work = {.running = 3,
                                .waiting = 1000,
                                .slots = 4,
                                .tokens_per_s = 12.345,
                                .compute_ms = 1.5,
                                .disk_ms = 2000.25,
                                .network_ms = 0.125}};
}

static void make_plan(struct plan *p) {
    *p = (struct plan){.epoch = 5, .leader = id_of(2), .model = 9, .n_node = 3, .n_ctx = 4096};
    p->n_batch = 32, p->n_sweep = 512, p->n_seq = 4, p->safe_seq = 3, p->safe_ctx = 2048,
    p->kv = KV_F16, p->wire = WIRE_Q16;
    static const uint32_t total[] = {8, 2048, 8192, 128256};
    for (unsigned i = 0; i < 3; i++) p->node[i] = id_of(i ? i + 4 : 2), p->instance[i] = 1000 + i;
    for (unsigned r = 0; r < N_ROWS; r++) {
        struct plan_run *q = &p->run[p->n_run++];
        *q = (struct plan_run){.rows = (uint8_t)r, .n_layer = r == ROWS_VOCAB ? 0 : 16};
        for (unsigned i = 1; i < 3; i++) q->cut[i] = total[r] / 4 * i;
        q->cut[3] = total[r];
    }
}

static const struct sampler sampler = {.temp = 0.8F,
                                       .top_k = -1,
                                       .top_p = 0.95F,
                                       .min_p = 0.05F,
                                       .seed = 0xabcdef0123456789,
                                       .typical = 0.5F,
                                       .repeat = 1.25F,
                                       .presence = -0.5F,
                                       .frequency = 0.75F,
                                       .last_n = SAMPLER_WINDOW,
                                       .top_n_sigma = 2,
                                       .temp_range = 0.25F,
                                       .temp_exponent = 1.5F,
                                       .n_bias = 2,
                                       .bias = {{7, 2.5F}, {1 << 20, -100}}};

static void make(struct msg *m, enum msg_type type) {
    *m = (struct msg){.type = type, .epoch = 5, .sequence = 1000};
    switch (type) {
    case MSG_HELLO: make_facts(&m->u.facts); break;
    case MSG_BEAT: make_beat(&m->u.beat); break;
    case MSG_PLAN: make_plan(&m->u.plan); break;
    case MSG_REFUSED:
        m->u.refused.reason = REFUSED_MODEL;
        memset(m->u.refused.why, 'w', sizeof m->u.refused.why - 1);  // as long as they come
        break;
    case MSG_BROKEN: m->u.suspect = id_of(3); break;
    case MSG_ASK:
        m->u.ask = (struct ask){.ticket = 12, .age_ms = 345, .n_prompt = 40, .n_id = 50};
        m->u.ask.id = prompt;
        m->u.ask.n_predict = 100;
        m->u.ask.sampler = sampler;
        m->u.ask.grammar = GRAMMAR_GBNF;
        m->u.ask.grammar_text = "root ::= [a-z]";
        m->u.ask.n_grammar = 14;
        m->u.ask.sequence = 6;
        break;
    case MSG_TOKENS:
        m->u.tokens = (struct tokens){.ticket = 12, .at = 7, .n = 3, .id = prompt};
        break;
    case MSG_DONE:
        m->u.done.ticket = 12;
        m->u.done.why = DONE_FAILED;
        memset(m->u.done.text, 't', sizeof m->u.done.text - 1);
        break;
    case MSG_CANCEL: m->u.ticket = 1ULL << 60; break;
    case MSG_READY:
    case MSG_SERVING:
    case MSG_LEAVE:
    case N_MSG: break;
    }
}

static bool is_same_facts(const struct facts *a, const struct facts *b) {
    return a->contract == b->contract && a->model == b->model &&
           !strcmp(a->model_name, b->model_name) && !strcmp(a->name, b->name) &&
           !strcmp(a->version, b->version) && !strcmp(a->arch, b->arch) &&
           !strcmp(a->board, b->board) && a->ram_bytes == b->ram_bytes &&
           a->budget_bytes == b->budget_bytes && a->pool_bytes == b->pool_bytes &&
           fabs(a->speed - b->speed) < 1 && fabs(a->disk_bps - b->disk_bps) < 1 &&
           fabs(a->share - b->share) < 1e-9 && a->n_thread == b->n_thread && a->n_ctx == b->n_ctx &&
           a->n_seq == b->n_seq && a->http_port == b->http_port && a->is_guest == b->is_guest &&
           a->kv == b->kv && a->wire == b->wire;
}

static bool is_same_work(const struct work *a, const struct work *b) {
    return a->running == b->running && a->waiting == b->waiting && a->slots == b->slots &&
           fabs(a->tokens_per_s - b->tokens_per_s) < 1e-9 &&
           fabs(a->compute_ms - b->compute_ms) < 1e-9 && fabs(a->disk_ms - b->disk_ms) < 1e-9 &&
           fabs(a->network_ms - b->network_ms) < 1e-9;
}

static bool is_same_beat(const struct beat *a, const struct beat *b) {
    return a->state == b->state && !strcmp(a->name, b->name) &&
           !ident_cmp(&a->leader, &b->leader) && a->epoch == b->epoch && a->seen == b->seen &&
           a->n_hear == b->n_hear && !memcmp(a->hear, b->hear, a->n_hear * sizeof *a->hear) &&
           a->pinned_bytes == b->pinned_bytes && a->streamed_bytes == b->streamed_bytes &&
           fabs(a->disk_bps - b->disk_bps) < 1 && fabs(a->temperature_c - b->temperature_c) < 0.1 &&
           is_same_work(&a->work, &b->work);
}

static bool is_same_ask(const struct ask *a, const struct ask *b) {
    return a->ticket == b->ticket && a->age_ms == b->age_ms && a->n_prompt == b->n_prompt &&
           a->n_id == b->n_id && !memcmp(a->id, b->id, a->n_id * sizeof *a->id) &&
           a->n_predict == b->n_predict && a->sequence == b->sequence && a->grammar == b->grammar &&
           a->n_grammar == b->n_grammar &&
           !memcmp(a->grammar_text, b->grammar_text, a->n_grammar) &&
           !memcmp(&a->sampler, &b->sampler,
                   offsetof(struct sampler, bias) + a->sampler.n_bias * sizeof(struct bias));
}

static bool is_same(const struct msg *a, const struct msg *b) {
    if (a->type != b->type || a->epoch != b->epoch || a->sequence != b->sequence) return false;
    switch (a->type) {
    case MSG_HELLO: return is_same_facts(&a->u.facts, &b->u.facts);
    case MSG_BEAT: return is_same_beat(&a->u.beat, &b->u.beat);
    case MSG_PLAN: return !ident_cmp(&a->u.plan.leader, &b->u.plan.leader) && b->u.plan.n_run == 4;
    case MSG_REFUSED:
        return a->u.refused.reason == b->u.refused.reason &&
               !strcmp(a->u.refused.why, b->u.refused.why);
    case MSG_BROKEN: return !ident_cmp(&a->u.suspect, &b->u.suspect);
    case MSG_ASK: return is_same_ask(&a->u.ask, &b->u.ask);
    case MSG_TOKENS:
        return a->u.tokens.ticket == b->u.tokens.ticket && a->u.tokens.at == b->u.tokens.at &&
               a->u.tokens.n == b->u.tokens.n && b->u.tokens.id[2] == prompt[2];
    case MSG_DONE:
        return a->u.done.ticket == b->u.done.ticket && a->u.done.why == b->u.done.why &&
               !strcmp(a->u.done.text, b->u.done.text);
    case MSG_CANCEL: return a->u.ticket == b->u.ticket;
    case MSG_READY:
    case MSG_SERVING:
    case MSG_LEAVE:
    case N_MSG: break;
    }
    return true;
}

/* Whole; every byte less; one more; every bit turned. */
static void check_type(enum msg_type type) {
    static struct msg m, back;
    static uint8_t bad[CAP], again[CAP];
    int32_t ids[IDS];
    struct err e = {0};
    make(&m, type);
    size_t n = msg_encode(&m, out, sizeof out);
    bool ok = n && msg_decode(&back, out, n, ids, IDS, &e) && is_same(&m, &back);
    tap_ok(ok, "%s of %zu bytes comes back as it was %s", msg_name(type), n, e.text);
    ok = true;
    for (size_t len = 0; len < n; len++) {
        ok = ok && !msg_decode(&back, out, len, ids, IDS, &e) && !msg_encode(&m, again, len);
    }
    memcpy(bad, out, n);
    bad[n] = 0;
    ok = ok && !msg_decode(&back, bad, n + 1, ids, IDS, &e) && e.code == ERR_FORMAT;
    for (size_t i = 0; i < 8 * n; i++) {
        memcpy(bad, out, n);
        bad[i / 8] ^= (uint8_t)(1U << i % 8);
        if (!msg_decode(&back, bad, n, ids, IDS, &e)) continue;
        ok = ok && msg_encode(&back, again, sizeof again) == n && !memcmp(again, bad, n);
    }
    tap_ok(ok, "%s: cut short, lengthened, any bit turned: refused, or another message's only form",
           msg_name(type));
}

static bool refuses(const uint8_t *p, size_t n, enum err_code code) {
    static struct msg m;
    int32_t ids[IDS];
    struct err e = {0};
    return !msg_decode(&m, p, n, ids, IDS, &e) && e.code == code;
}

static void check_heads(void) {
    uint8_t b[] = {MSG_READY, PROTOCOL_VERSION << 4, 1, 1};
    static struct msg m;
    int32_t ids[IDS];
    struct err e;
    tap_ok(msg_decode(&m, b, 4, ids, IDS, &e) && m.type == MSG_READY, "the least message: 4 bytes");
    b[0] = 0;
    bool ok = refuses(b, 4, ERR_FORMAT);
    b[0] = N_MSG;
    ok = ok && refuses(b, 4, ERR_FORMAT);
    b[0] = MSG_READY, b[1] = (PROTOCOL_VERSION - 1) << 4;
    ok = ok && refuses(b, 4, ERR_FORMAT);
    b[1] = PROTOCOL_VERSION << 4 | 1;
    ok = ok && refuses(b, 4, ERR_FORMAT);
    b[1] = PROTOCOL_VERSION << 4, b[3] = 0;
    ok = ok && refuses(b, 4, ERR_FORMAT);
    tap_ok(ok, "unknown types, versions, flags and a sequence of 0 are refused");
    const uint8_t longer[] = {MSG_READY, PROTOCOL_VERSION << 4, 0x81, 0, 1};
    const uint8_t huge[] = {
        MSG_READY, PROTOCOL_VERSION << 4, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 3,
        1};
    tap_ok(refuses(longer, sizeof longer, ERR_FORMAT) && refuses(huge, sizeof huge, ERR_FORMAT),
           "a number in a longer form, and one of more than 64 bits");
}

static void check_limits(void) {
    static struct msg m, back;
    static int32_t many[MSG_TOKENS_MAX + 1];
    static uint8_t room[MSG_MAX];
    static int32_t ids[MSG_TOKENS_MAX];
    struct err e = {0};
    make(&m, MSG_ASK);
    m.u.ask.id = many;
    m.u.ask.n_id = MSG_TOKENS_MAX;
    for (size_t i = 0; i < MSG_TOKENS_MAX; i++) many[i] = (int32_t)(i % 128256);
    size_t n = msg_encode(&m, room, sizeof room);
    tap_ok(n && msg_decode(&back, room, n, ids, MSG_TOKENS_MAX, &e) &&
               !memcmp(ids, many, sizeof ids),
           "the longest request: %zu bytes", n);
    tap_ok(!msg_decode(&back, room, n, ids, 100, &e) && e.code == ERR_FORMAT,
           "more ids than there is room for: %s", e.text);
    m.u.ask.n_id++;
    tap_ok(!msg_encode(&m, room, sizeof room), "one more is not even sent");
    make(&m, MSG_BEAT);
    m.u.beat.n_hear = MEMBER_MAX + 1;
    bool ok = !msg_encode(&m, room, sizeof room);
    make(&m, MSG_ASK);
    m.u.ask.sampler.temp = NAN;
    ok = ok && !msg_encode(&m, room, sizeof room);
    make(&m, MSG_ASK);
    m.u.ask.n_prompt = 51;
    ok = ok && !msg_encode(&m, room, sizeof room);
    make(&m, MSG_PLAN);
    m.epoch = 6;
    ok = ok && !msg_encode(&m, room, sizeof room);
    tap_ok(ok,
           "nor are 33 peers, a temperature that is no number, a prompt longer than all, a plan of "
           "another epoch");
}

static void check_texts(void) {
    static struct msg m, back;
    int32_t ids[IDS];
    struct err e = {0};
    make(&m, MSG_HELLO);
    memset(m.u.facts.board, 'x', sizeof m.u.facts.board - 1);
    m.u.facts.model_name[1] = '\n';
    m.u.facts.speed = -1;
    m.u.facts.disk_bps = NAN;
    m.u.facts.share = -3;
    size_t n = msg_encode(&m, out, sizeof out);
    tap_ok(n && msg_decode(&back, out, n, ids, IDS, &e) && strlen(back.u.facts.board) == 63 &&
               back.u.facts.model_name[1] == '?' && back.u.facts.speed <= 0 &&
               back.u.facts.disk_bps <= 0 && back.u.facts.share <= 0,
           "texts in full, control characters replaced, what is not known is 0");
    uint8_t *at = memmem(out, n, "xxx", 3);
    at[1] = 7;
    tap_ok(refuses(out, n, ERR_FORMAT), "a control character from outside is refused");
    make(&m, MSG_BEAT);
    m.u.beat.temperature_c = NAN;
    m.u.beat.work.tokens_per_s = NAN;
    m.u.beat.work.disk_ms = INFINITY;
    n = msg_encode(&m, out, sizeof out);
    tap_ok(msg_decode(&back, out, n, ids, IDS, &e) && isnan(back.u.beat.temperature_c) &&
               back.u.beat.work.tokens_per_s <= 0 && isfinite(back.u.beat.work.disk_ms),
           "a temperature that is not known stays so, and no figure is none");
}

static void check_sizes(void) {
    static struct msg m;
    make(&m, MSG_BEAT);
    m.u.beat.n_hear = 15;
    size_t beat = msg_encode(&m, out, sizeof out);
    make(&m, MSG_PLAN);
    size_t plan = msg_encode(&m, out, sizeof out);
    tap_ok(beat && beat < 400 && plan && plan < 200,
           "a beat among 16 nodes: %zu bytes; a plan for 3: %zu", beat, plan);
}

/* One seed of each kind. */
static int write_seeds(const char *folder) {
    static struct msg m;
    for (int t = 1; t < N_MSG; t++) {
        char path[512];
        make(&m, (enum msg_type)t);
        snprintf(path, sizeof path, "%s/%s", folder, msg_name((enum msg_type)t));
        FILE *f = fopen(path, "wb");
        if (!f) return 1;
        size_t n = msg_encode(&m, out, sizeof out);
        bool ok = fwrite(out, 1, n, f) == n;
        if (fclose(f) || !ok) return 1;
    }
    return 0;
}

int main(int argc, char **argv) {
    for (int i = 0; i < IDS; i++) prompt[i] = i * i * 7;
    if (argc > 1) return write_seeds(argv[1]);
    for (int t = 1; t < N_MSG; t++) check_type((enum msg_type)t);
    check_heads();
    check_limits();
    check_texts();
    check_sizes();
    return tap_done();
}
