#include "engine/asks.h"

#include <stdlib.h>
#include <string.h>

enum { AGAIN_NS = 500000000 };

MUST asks_add(struct asks *s, const struct ask_request *r, uint64_t now_ns, uint64_t *ticket,
              struct err *e) {
    struct front_ask *a = NULL;
    for (unsigned i = 0; i < NODE_ASKS && !a; i++) {
        if (!s->ask[i].is_used) a = &s->ask[i];
    }
    if (!a) return err_set(e, ERR_LIMIT, "%d requests are under way; try again later", NODE_ASKS);
    size_t cap = (size_t)r->n_prompt + r->n_predict;
    int32_t *id = malloc(cap * sizeof *id);
    char *grammar = malloc(r->n_grammar + 1);
    if (!id || !grammar) {
        free(id);
        free(grammar);
        return err_set(e, ERR_MEMORY, "no memory for a request of %zu tokens", cap);
    }
    memcpy(id, r->prompt, r->n_prompt * sizeof *id);
    if (r->n_grammar) memcpy(grammar, r->grammar_text, r->n_grammar);
    *a = (struct front_ask){.is_used = true,
                            .ticket = ++s->last_ticket,
                            .asked_ns = now_ns,
                            .id = id,
                            .n_id = r->n_prompt,
                            .grammar = grammar,
                            .request = *r};
    *ticket = a->ticket;
    return true;
}

struct front_ask *asks_find(struct asks *s, uint64_t ticket) {
    for (unsigned i = 0; i < NODE_ASKS; i++) {
        if (s->ask[i].is_used && s->ask[i].ticket == ticket) return &s->ask[i];
    }
    return NULL;
}

void asks_drop(struct front_ask *a) {
    free(a->id);
    free(a->grammar);
    *a = (struct front_ask){0};
}

unsigned asks_count(const struct asks *s) {
    unsigned n = 0;
    for (unsigned i = 0; i < NODE_ASKS; i++) n += s->ask[i].is_used;
    return n;
}

unsigned asks_handed(const struct asks *s) {
    unsigned n = 0;
    for (unsigned i = 0; i < NODE_ASKS; i++) {
        n += s->ask[i].is_used && s->ask[i].epoch && !s->ask[i].is_parked;
    }
    return n;
}

void asks_message(const struct front_ask *a, uint64_t epoch, uint64_t now_ns, struct msg *m) {
    m->type = MSG_ASK;
    m->epoch = epoch;
    m->u.ask = (struct ask){.ticket = a->ticket,
                            .age_ms = (now_ns - a->asked_ns) / 1000000,
                            .n_prompt = a->request.n_prompt,
                            .n_id = a->n_id,
                            .id = a->id,
                            .n_predict = a->request.n_predict,
                            .sampler = a->request.sampler,
                            .grammar = a->request.grammar,
                            .grammar_text = a->grammar,
                            .n_grammar = a->request.n_grammar,
                            .sequence = a->request.sequence};
}

int asks_take(struct front_ask *a, uint32_t at, const int32_t *id, uint32_t n,
              const int32_t **new) {
    uint32_t have = a->n_id - a->request.n_prompt, want = a->request.n_predict;
    if (at > have || n > want || at > want - n) return -1;
    uint32_t known = have - at;
    if (known >= n) return 0;
    n -= known;
    memcpy(a->id + a->n_id, id + known, n * sizeof *id);
    *new = a->id + a->n_id;
    a->n_id += n;
    a->waited_ns = 0;
    return (int)n;
}

bool asks_is_cut(const struct front_ask *a, enum done_why done) {
    /* Only the same nodes from beginning to end may say where a context ends. */
    if (a->n_handed < 2) return false;
    uint32_t n = a->n_id - a->request.n_prompt;
    return done == DONE_NO_ROOM || (done == DONE_LENGTH && n < a->request.n_predict);
}

enum ask_end asks_end(const struct front_ask *a, enum done_why done, const char *text,
                      struct err *why) {
    const struct ask_request *r = &a->request;
    bool is_cut = asks_is_cut(a, done);
    switch (done) {
    case DONE_END: return ASK_EOS;
    case DONE_LENGTH:
        if (!is_cut) return ASK_LENGTH;
        err_set(
            why, ERR_MEMORY,
            "the nodes have changed, and those at work now have memory for %u tokens of prompt and "
            "answer: this answer ends early, after %u of up to %u tokens",
            a->n_id, a->n_id - r->n_prompt, r->n_predict);
        break;
    case DONE_NO_ROOM: err_set(why, is_cut ? ERR_MEMORY : ERR_USAGE, "%s", text); break;
    case DONE_IMPOSSIBLE: err_set(why, ERR_USAGE, "%s", text); break;
    case DONE_REFUSED: err_set(why, ERR_LIMIT, "%s", text); break;
    case DONE_FAILED:
    case N_DONE: err_set(why, ERR_IO, "%s", text); break;
    }
    return ASK_FAILED;
}

void asks_hand(struct front_ask *a, const struct node_id *leader, uint64_t epoch, uint64_t now_ns) {
    if (a->is_parked) a->waited_ns += now_ns - a->parked_ns;
    a->is_parked = false;
    a->leader = *leader;
    a->epoch = epoch;
    a->n_handed++;
}

bool asks_is_with(const struct front_ask *a, const struct node_id *leader, uint64_t epoch) {
    return epoch && a->epoch == epoch && !ident_cmp(&a->leader, leader);
}

void asks_park(struct front_ask *a, uint64_t now_ns, const struct err *why) {
    if (!a->is_parked) a->parked_ns = now_ns;
    a->is_parked = true;
    a->why = *why;
}

bool asks_retry(struct front_ask *a, enum done_why done, uint64_t now_ns, const struct err *why) {
    if (done != DONE_REFUSED || a->n_handed < 2) return false;
    asks_park(a, now_ns, why);
    a->epoch = 0;
    a->again_ns = now_ns + AGAIN_NS;
    return true;
}

bool asks_is_over(const struct front_ask *a, uint64_t now_ns) {
    uint64_t most_ns = ASK_PARKED_S * (uint64_t)1000000000;
    return a->is_parked && a->waited_ns + now_ns - a->parked_ns >= most_ns;
}
