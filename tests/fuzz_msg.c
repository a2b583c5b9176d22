/* Any bytes as a message from another node. What must hold: it is refused with a sentence, or it is in
 * range and encodes to the very same bytes; a plan that came through has cuts that fit the model, or
 * is refused once more. */
#include "bare_model.h"
#include "cluster/msg.h"
#include "net/preamble.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { IDS = 512 };

static void expect(bool ok) {
    if (!ok) abort();
}

static void check_cuts(const uint32_t *cut, unsigned n, uint32_t total) {
    expect(!cut[0] && cut[n] == total);
    for (unsigned i = 0; i < n; i++) expect(cut[i] <= cut[i + 1]);
}

static void use_plan(const struct plan *p) {
    static const struct bare shape = {2, 64, 8, 4, 8, 172, 512, 512, TENSOR_Q8_0};
    static const struct model *m;
    struct cuts c;
    struct err e = {0};
    if (!m) m = bare_model(&shape);
    expect(p->n_node >= 1 && p->n_node <= PLAN_NODES && p->n_run <= PLAN_RUNS);
    for (unsigned i = 0; i < p->n_node; i++) {
        expect(plan_slice(p, &p->node[i]) == (int)i);
        expect(plan_wire_bytes(p, m, i) >= 0);
    }
    if (!plan_cuts(p, m, &c, &e)) {
        expect(e.code == ERR_FORMAT || e.code == ERR_UNSUPPORTED);
        return;
    }
    check_cuts(c.kv_head, p->n_node, m->n_head_kv);
    check_cuts(c.embd, p->n_node, m->n_embd);
    check_cuts(c.ff, p->n_node, m->n_ff);
    check_cuts(c.vocab, p->n_node, m->n_vocab);
}

static void check_ids(const int32_t *id, uint32_t n) {
    expect(n <= IDS);
    for (uint32_t i = 0; i < n; i++) expect(id[i] >= 0);
}

static void use(const struct msg *m) {
    const struct facts *f = &m->u.facts;
    switch (m->type) {
    case MSG_HELLO:
        expect(strlen(f->model_name) < sizeof f->model_name && strlen(f->name) < sizeof f->name);
        expect(strlen(f->version) < sizeof f->version && strlen(f->arch) < sizeof f->arch);
        expect(f->speed >= 0 && f->disk_bps >= 0 && f->share >= 0 && isfinite(f->speed));
        break;
    case MSG_BEAT:
        expect((unsigned)m->u.beat.state < N_STATE && m->u.beat.n_hear <= MEMBER_MAX);
        expect(strlen(m->u.beat.name) < ID_NAME);
        expect(m->u.beat.work.tokens_per_s >= 0 && isfinite(m->u.beat.work.disk_ms));
        break;
    case MSG_PLAN: use_plan(&m->u.plan); break;
    case MSG_REFUSED: expect((unsigned)m->u.refused.reason < N_REFUSED); break;
    case MSG_ASK:
        check_ids(m->u.ask.id, m->u.ask.n_id);
        expect(m->u.ask.n_prompt && m->u.ask.n_prompt <= m->u.ask.n_id);
        break;
    case MSG_TOKENS: check_ids(m->u.tokens.id, m->u.tokens.n); break;
    case MSG_DONE: expect((unsigned)m->u.done.why < N_DONE); break;
    case MSG_BROKEN:
    case MSG_CANCEL:
    case MSG_READY:
    case MSG_SERVING:
    case MSG_LEAVE: break;
    case N_MSG: abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct msg m;
    static int32_t ids[IDS];
    static uint8_t again[1 << 16], in[1 << 16];
    struct err e;
    e.code = ERR_NONE;
    *e.text = 0;
    if (size > sizeof in) return 0;
    memcpy(in, data, size);
    if (size > 1) in[1] = PROTOCOL_VERSION << 4;  // seeds of former versions still lead somewhere
    if (!msg_decode(&m, in, size, ids, IDS, &e)) {
        expect((e.code == ERR_FORMAT || e.code == ERR_LIMIT) && *e.text);
        return 0;
    }
    use(&m);
    expect(msg_encode(&m, again, sizeof again) == size && !memcmp(again, in, size));
    return 0;
}
