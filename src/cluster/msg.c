/* msg.c - messages to bytes and back, one pair of functions a type.
 *
 * Measured values go as whole numbers (bytes a second, millionths of a share, tenths of a degree), so
 * that there is no NaN to refuse and every message has one encoding only. */
#include "cluster/msg.h"
#include "cluster/varint.h"
#include "net/preamble.h"

#include <math.h>

enum {
    VERSION = PROTOCOL_VERSION,
    SHARE_UNIT = 1000000,
    SHARE_MAX = 1000,  // times an average machine
    KELVIN_TENTHS = 2731,
    KELVIN_TENTHS_MAX = 10000,
    THREAD_MAX = 1 << 16,
};

#define EPOCH_MAX ((uint64_t)1 << 62)  // one more is always there
#define RATE_MAX  ((uint64_t)1 << 50)  // bytes a second: a double holds it exactly

const char *msg_name(enum msg_type t) {
    static const char *const name[N_MSG] = {
        "",        "HELLO", "BEAT",   "PLAN", "READY",  "REFUSED", "BROKEN",
        "SERVING", "ASK",   "TOKENS", "DONE", "CANCEL", "LEAVE",
    };
    return t > 0 && t < N_MSG ? name[t] : "unknown";
}

/* --- pieces --- */

static void put_text(struct bytes *b, const char *s, size_t cap) {
    size_t len = strnlen(s, cap - 1);
    put_var(b, len);
    for (size_t i = 0; i < len; i++) {
        uint8_t ch = (uint8_t)s[i];
        put_u8(b, ch < ' ' || ch == 127 ? '?' : ch);
    }
}

static void take_text(struct cursor *c, char *s, size_t cap) {
    size_t len = (size_t)take_upto(c, cap - 1);
    if (!cursor_bytes(c, s, len)) len = 0;
    s[len] = 0;
    for (size_t i = 0; i < len; i++) {
        uint8_t ch = (uint8_t)s[i];
        if (ch < ' ' || ch == 127) c->failed = true;
    }
}

static void put_rate(struct bytes *b, double v) {
    double most = (double)RATE_MAX;
    put_var(b, !(v > 0) ? 0 : v > most ? RATE_MAX : (uint64_t)(v + 0.5));
}

static double take_rate(struct cursor *c) {
    return (double)take_upto(c, RATE_MAX);
}

static void put_thousandths(struct bytes *b, double v) {
    put_rate(b, v * 1000);
}

static double take_thousandths(struct cursor *c) {
    return take_rate(c) / 1000;
}

static void put_bool(struct bytes *b, bool v) {
    put_u8(b, v);
}

static bool take_bool(struct cursor *c) {
    return take_upto(c, 1) != 0;
}

static void put_id(struct bytes *b, const struct node_id *id) {
    put_bytes(b, id->b, ID_LEN);
}

static void take_id(struct cursor *c, struct node_id *id) {
    if (!cursor_bytes(c, id->b, ID_LEN)) *id = (struct node_id){{0}};
}

static void put_f32(struct bytes *b, float v) {
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    if (!isfinite(v)) b->is_bad = true;
    put_fixed(b, bits, 4);
}

static float take_f32(struct cursor *c) {
    float v = cursor_f32(c);
    if (!isfinite(v)) c->failed = true;
    return c->failed ? 0 : v;
}

/* --- HELLO --- */

static void put_facts(struct bytes *b, const struct facts *f) {
    bool is_wish = f->share > 0, is_huge = f->share > SHARE_MAX;
    put_var(b, f->contract);
    put_fixed(b, f->model, 8);
    put_text(b, f->model_name, sizeof f->model_name);
    put_text(b, f->name, sizeof f->name);
    put_text(b, f->version, sizeof f->version);
    put_text(b, f->arch, sizeof f->arch);
    put_text(b, f->board, sizeof f->board);
    put_var(b, f->ram_bytes);
    put_var(b, f->budget_bytes);
    put_var(b, f->pool_bytes);
    put_rate(b, f->speed);
    put_rate(b, f->disk_bps);
    put_rate(b, !is_wish ? 0 : (is_huge ? SHARE_MAX : f->share) * SHARE_UNIT);
    put_var(b, f->n_thread < THREAD_MAX ? f->n_thread : THREAD_MAX);
    put_var(b, f->n_ctx);
    put_var(b, f->n_seq);
    put_var(b, f->http_port);
    put_var(b, f->kv);
    put_var(b, f->wire);
    put_bool(b, f->is_guest);
}

static void take_facts(struct cursor *c, struct facts *f) {
    *f = (struct facts){.contract = (uint32_t)take_upto(c, UINT32_MAX), .model = cursor_u64(c)};
    take_text(c, f->model_name, sizeof f->model_name);
    take_text(c, f->name, sizeof f->name);
    take_text(c, f->version, sizeof f->version);
    take_text(c, f->arch, sizeof f->arch);
    take_text(c, f->board, sizeof f->board);
    f->ram_bytes = take_var(c);
    f->budget_bytes = take_var(c);
    f->pool_bytes = take_var(c);
    f->speed = take_rate(c);
    f->disk_bps = take_rate(c);
    f->share = (double)take_upto(c, (uint64_t)SHARE_MAX * SHARE_UNIT) / SHARE_UNIT;
    f->n_thread = (uint32_t)take_upto(c, THREAD_MAX);
    f->n_ctx = (uint32_t)take_upto(c, MODEL_MAX_CTX);
    f->n_seq = (uint32_t)take_upto(c, PLAN_SEQS);
    f->http_port = (uint16_t)take_upto(c, UINT16_MAX);
    f->kv = (uint8_t)take_upto(c, 15);
    f->wire = (uint8_t)take_upto(c, 15);
    f->is_guest = take_bool(c);
}

/* --- BEAT --- */

/* Tenths of a kelvin, 0: not known. */
static uint64_t kelvin(double celsius) {
    double t = celsius * 10 + KELVIN_TENTHS + 0.5;
    return t >= 1 && t < KELVIN_TENTHS_MAX + 1 ? (uint64_t)t : 0;
}

static void put_work(struct bytes *b, const struct work *w) {
    put_var(b, w->running);
    put_var(b, w->waiting);
    put_var(b, w->slots);
    put_thousandths(b, w->tokens_per_s);
    put_thousandths(b, w->compute_ms);
    put_thousandths(b, w->disk_ms);
    put_thousandths(b, w->network_ms);
}

static void take_work(struct cursor *c, struct work *w) {
    w->running = (uint16_t)take_upto(c, UINT16_MAX);
    w->waiting = (uint16_t)take_upto(c, UINT16_MAX);
    w->slots = (uint16_t)take_upto(c, UINT16_MAX);
    w->tokens_per_s = take_thousandths(c);
    w->compute_ms = take_thousandths(c);
    w->disk_ms = take_thousandths(c);
    w->network_ms = take_thousandths(c);
}

static void put_beat(struct bytes *b, const struct beat *t) {
    if ((unsigned)t->state >= N_STATE || t->n_hear > MEMBER_MAX) b->is_bad = true;
    put_u8(b, (uint8_t)t->state);
    put_text(b, t->name, sizeof t->name);
    put_id(b, &t->leader);
    put_var(b, t->epoch);
    put_var(b, t->seen);
    put_u8(b, t->n_hear);
    for (unsigned i = 0; i < t->n_hear && i < MEMBER_MAX; i++) put_id(b, &t->hear[i]);
    put_var(b, t->pinned_bytes);
    put_var(b, t->streamed_bytes);
    put_rate(b, t->disk_bps);
    put_var(b, kelvin(t->temperature_c));
    put_work(b, &t->work);
}

static void take_beat(struct cursor *c, struct beat *t) {
    t->state = (enum node_state)take_upto(c, N_STATE - 1);
    take_text(c, t->name, sizeof t->name);
    take_id(c, &t->leader);
    t->epoch = take_upto(c, EPOCH_MAX);
    t->seen = take_upto(c, EPOCH_MAX);
    t->n_hear = (uint8_t)take_upto(c, MEMBER_MAX);
    for (unsigned i = 0; i < t->n_hear; i++) take_id(c, &t->hear[i]);
    t->pinned_bytes = take_var(c);
    t->streamed_bytes = take_var(c);
    t->disk_bps = take_rate(c);
    uint64_t k = take_upto(c, KELVIN_TENTHS_MAX);
    t->temperature_c = k ? ((double)k - KELVIN_TENTHS) / 10 : NAN;
    take_work(c, &t->work);
}

/* --- PLAN: the plan's own form fills the rest --- */

static void put_plan(struct bytes *b, const struct msg *m) {
    if (b->is_bad || m->u.plan.epoch != m->epoch) {
        b->is_bad = true;
        return;
    }
    size_t n = plan_encode(&m->u.plan, b->p + b->len, b->cap - b->len);
    if (!n) b->is_bad = true;
    b->len += n;
}

static MUST take_plan(struct cursor *c, struct msg *m, const uint8_t *in, struct err *e) {
    if (!plan_decode(&m->u.plan, in + c->pos, (size_t)cursor_left(c), e)) return false;
    if (m->u.plan.epoch != m->epoch) {
        return err_set(e, ERR_FORMAT, "its plan is of another epoch than the message");
    }
    cursor_skip(c, cursor_left(c));
    return true;
}

/* --- sequences --- */

static void put_tokens(struct bytes *b, const int32_t *id, uint32_t n) {
    if (n > MSG_TOKENS_MAX) b->is_bad = true;
    put_var(b, n);
    for (uint32_t i = 0; i < n && !b->is_bad; i++) {
        if (id[i] < 0) b->is_bad = true;
        put_var(b, (uint32_t)id[i]);
    }
}

/* The number of ids; more than there is room for is refused before any is read. */
static uint32_t take_tokens(struct cursor *c, int32_t *id, size_t n_id) {
    uint32_t n = (uint32_t)take_upto(c, n_id < MSG_TOKENS_MAX ? n_id : MSG_TOKENS_MAX);
    if (n > cursor_left(c)) c->failed = true;  // each takes a byte at least
    for (uint32_t i = 0; i < n && !c->failed; i++) id[i] = (int32_t)take_upto(c, INT32_MAX);
    return n;
}

static void put_sampler(struct bytes *b, const struct sampler *s) {
    put_f32(b, s->temp);
    put_fixed(b, (uint32_t)s->top_k, 4);
    put_f32(b, s->top_p);
    put_f32(b, s->min_p);
    put_fixed(b, s->seed, 8);
    put_f32(b, s->typical);
    put_f32(b, s->repeat);
    put_f32(b, s->presence);
    put_f32(b, s->frequency);
    put_f32(b, s->top_n_sigma);
    put_f32(b, s->temp_range);
    put_f32(b, s->temp_exponent);
    if (s->last_n < 0 || s->last_n > SAMPLER_WINDOW || s->n_bias > SAMPLER_BIAS) b->is_bad = true;
    put_var(b, (uint32_t)s->last_n);
    put_var(b, s->n_bias);
    for (uint32_t i = 0; i < s->n_bias && !b->is_bad; i++) {
        if (s->bias[i].id < 0) b->is_bad = true;
        put_var(b, (uint32_t)s->bias[i].id);
        put_f32(b, s->bias[i].value);
    }
}

static void take_sampler(struct cursor *c, struct sampler *s) {
    s->temp = take_f32(c);
    s->top_k = (int32_t)cursor_u32(c);
    s->top_p = take_f32(c);
    s->min_p = take_f32(c);
    s->seed = cursor_u64(c);
    s->typical = take_f32(c);
    s->repeat = take_f32(c);
    s->presence = take_f32(c);
    s->frequency = take_f32(c);
    s->top_n_sigma = take_f32(c);
    s->temp_range = take_f32(c);
    s->temp_exponent = take_f32(c);
    s->last_n = (int32_t)take_upto(c, SAMPLER_WINDOW);
    s->n_bias = (uint32_t)take_upto(c, SAMPLER_BIAS);
    for (uint32_t i = 0; i < s->n_bias && !c->failed; i++) {
        s->bias[i].id = (int32_t)take_upto(c, INT32_MAX);
        s->bias[i].value = take_f32(c);
    }
}

static void put_grammar(struct bytes *b, const struct ask *a) {
    bool is_none = a->grammar == GRAMMAR_NONE;
    if ((unsigned)a->grammar >= N_GRAMMAR_KIND || a->n_grammar > GRAMMAR_TEXT) b->is_bad = true;
    put_u8(b, (uint8_t)a->grammar);
    if (is_none || b->is_bad) return;
    put_var(b, a->n_grammar);
    put_bytes(b, a->grammar_text, a->n_grammar);
}

static void take_grammar(struct cursor *c, struct ask *a, const uint8_t *in) {
    a->grammar = (enum grammar_kind)take_upto(c, N_GRAMMAR_KIND - 1);
    a->grammar_text = NULL;
    a->n_grammar = 0;
    if (a->grammar == GRAMMAR_NONE) return;
    a->n_grammar = (uint32_t)take_upto(c, GRAMMAR_TEXT);
    a->grammar_text = (const char *)in + c->pos;
    cursor_skip(c, a->n_grammar);
    if (c->failed) a->n_grammar = 0;
}

static void put_ask(struct bytes *b, const struct ask *a) {
    if (!a->n_prompt || a->n_prompt > a->n_id) b->is_bad = true;
    put_var(b, a->ticket);
    put_var(b, a->age_ms);
    put_var(b, a->n_prompt);
    put_tokens(b, a->id, a->n_id);
    put_var(b, a->n_predict);
    put_sampler(b, &a->sampler);
    put_grammar(b, a);
    put_var(b, a->sequence);
}

static void take_ask(struct cursor *c, struct ask *a, const uint8_t *in, int32_t *ids,
                     size_t n_ids) {
    a->ticket = take_var(c);
    a->age_ms = take_var(c);
    a->n_prompt = (uint32_t)take_upto(c, MSG_TOKENS_MAX);
    a->n_id = take_tokens(c, ids, n_ids);
    a->id = ids;
    if (!a->n_prompt || a->n_prompt > a->n_id) c->failed = true;
    a->n_predict = (uint32_t)take_upto(c, UINT32_MAX);
    take_sampler(c, &a->sampler);
    take_grammar(c, a, in);
    a->sequence = take_var(c);
}

/* --- all --- */

static void put_fields(struct bytes *b, const struct msg *m) {
    switch (m->type) {
    case MSG_HELLO: put_facts(b, &m->u.facts); break;
    case MSG_BEAT: put_beat(b, &m->u.beat); break;
    case MSG_PLAN: put_plan(b, m); break;
    case MSG_REFUSED:
        if ((unsigned)m->u.refused.reason >= N_REFUSED) b->is_bad = true;
        put_u8(b, (uint8_t)m->u.refused.reason);
        put_text(b, m->u.refused.why, sizeof m->u.refused.why);
        break;
    case MSG_BROKEN: put_id(b, &m->u.suspect); break;
    case MSG_ASK: put_ask(b, &m->u.ask); break;
    case MSG_TOKENS:
        if (m->u.tokens.at > MSG_TOKENS_MAX) b->is_bad = true;
        put_var(b, m->u.tokens.ticket);
        put_var(b, m->u.tokens.at);
        put_tokens(b, m->u.tokens.id, m->u.tokens.n);
        break;
    case MSG_DONE:
        if ((unsigned)m->u.done.why >= N_DONE) b->is_bad = true;
        put_var(b, m->u.done.ticket);
        put_u8(b, (uint8_t)m->u.done.why);
        put_text(b, m->u.done.text, sizeof m->u.done.text);
        break;
    case MSG_CANCEL: put_var(b, m->u.ticket); break;
    case MSG_READY:
    case MSG_SERVING:
    case MSG_LEAVE: break;
    case N_MSG:
    default: b->is_bad = true;
    }
}

size_t msg_encode(const struct msg *m, uint8_t *out, size_t cap) {
    struct bytes b = {.p = out, .cap = cap < MSG_MAX ? cap : MSG_MAX};
    if (!m->sequence || m->epoch > EPOCH_MAX) return 0;
    put_u8(&b, (uint8_t)m->type);
    put_u8(&b, VERSION << 4);
    put_var(&b, m->epoch);
    put_var(&b, m->sequence);
    put_fields(&b, m);
    return b.is_bad ? 0 : b.len;
}

static MUST take_fields(struct cursor *c, struct msg *m, const uint8_t *in, int32_t *ids,
                        size_t n_ids, struct err *e) {
    switch (m->type) {
    case MSG_HELLO: take_facts(c, &m->u.facts); break;
    case MSG_BEAT: take_beat(c, &m->u.beat); break;
    case MSG_PLAN: return take_plan(c, m, in, e);
    case MSG_REFUSED:
        m->u.refused.reason = (enum refused_reason)take_upto(c, N_REFUSED - 1);
        take_text(c, m->u.refused.why, sizeof m->u.refused.why);
        break;
    case MSG_BROKEN: take_id(c, &m->u.suspect); break;
    case MSG_ASK: take_ask(c, &m->u.ask, in, ids, n_ids); break;
    case MSG_TOKENS:
        m->u.tokens.ticket = take_var(c);
        m->u.tokens.at = (uint32_t)take_upto(c, MSG_TOKENS_MAX);
        m->u.tokens.n = take_tokens(c, ids, n_ids);
        m->u.tokens.id = ids;
        break;
    case MSG_DONE:
        m->u.done.ticket = take_var(c);
        m->u.done.why = (enum done_why)take_upto(c, N_DONE - 1);
        take_text(c, m->u.done.text, sizeof m->u.done.text);
        break;
    case MSG_CANCEL: m->u.ticket = take_var(c); break;
    case MSG_READY:
    case MSG_SERVING:
    case MSG_LEAVE:
    case N_MSG: break;
    }
    return true;
}

MUST msg_decode(struct msg *m, const uint8_t *in, size_t len, int32_t *ids, size_t n_ids,
                struct err *e) {
    struct cursor c;
    if (len > MSG_MAX) return err_set(e, ERR_LIMIT, "message: longer than %d bytes", MSG_MAX);
    cursor_mem(&c, in, len);
    unsigned type = cursor_u8(&c), version = cursor_u8(&c);
    m->epoch = take_upto(&c, EPOCH_MAX);
    m->sequence = take_var(&c);
    if (c.failed || !m->sequence) return err_set(e, ERR_FORMAT, "message: its head is malformed");
    if (version != VERSION << 4) {
        return err_set(e, ERR_FORMAT, "message: version %u where this one speaks %d", version >> 4,
                       VERSION);
    }
    if (!type || type >= N_MSG) return err_set(e, ERR_FORMAT, "message: unknown type %u", type);
    m->type = (enum msg_type)type;
    if (!take_fields(&c, m, in, ids, n_ids, e)) return err_in(e, msg_name(m->type));
    if (c.failed) {
        return err_set(e, ERR_FORMAT, "%s: cut short, or a number past its limit",
                       msg_name(m->type));
    }
    if (cursor_left(&c)) {
        return err_set(e, ERR_FORMAT, "%s: bytes left over", msg_name(m->type));
    }
    return true;
}
