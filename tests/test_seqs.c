/* test_seqs.c - the leader's sequences and the front's requests: order, places, and nothing lost. */
#include "engine/asks.h"
#include "engine/seqs.h"
#include "tap.h"

#include <stdlib.h>
#include <string.h>

static const struct node_id front = {{1}};
static const int32_t ids[8] = {5, 6, 7, 8, 9, 10, 11, 12};

static bool add(struct seqs *s, uint64_t ticket, uint64_t age_ms, struct err *e) {
    const struct ask a = {.ticket = ticket,
                          .age_ms = age_ms,
                          .n_prompt = 3,
                          .n_id = 5,
                          .id = ids,
                          .n_predict = 4,
                          .sampler = {.temp = 0, .top_p = 1}};
    return seqs_add(s, &front, &a, 64, 100, 1000000000000, e);
}

static void test_turns(void) {
    struct seqs *s = malloc(sizeof *s);
    struct err e = {0};
    uint32_t running, waiting;
    seqs_open(s, 2);
    tap_ok(!seqs_next(s), "no work: nothing to compute");
    bool ok = add(s, 1, 100, &e) && add(s, 2, 300, &e) && add(s, 3, 200, &e);
    tap_ok(ok, "three sequences for two places");
    const struct seq *a = seqs_next(s), *b = seqs_next(s), *c = seqs_next(s);
    seqs_count(s, &running, &waiting);
    tap_ok(running == 2 && waiting == 1, "two run, one is parked");
    if (!a || !b || !c) abort();
    tap_ok(a->ticket + b->ticket == 5, "the oldest two got the places");
    tap_ok(a != b && c == a, "they take turns");
    tap_ok(a->n_fed == 0 && a->n_id == 5 && a->n_prompt == 3, "what was answered so far is kept");
    seqs_cancel(s, &front, 2);
    b = seqs_next(s), c = seqs_next(s);
    tap_ok(b != c && b->ticket + c->ticket == 4, "a cancelled one's place goes to the parked one");
    seqs_close(s);
    tap_ok(!seqs_next(s), "after closing there is none");
    free(s);
}

static void test_again(void) {
    struct seqs *s = malloc(sizeof *s);
    struct err e = {0};
    seqs_open(s, 1);
    if (!add(s, 7, 0, &e)) abort();
    struct seq *old = seqs_next(s);
    bool ok = add(s, 7, 0, &e);
    tap_ok(ok && old->is_used && old->is_cancelled,
           "asked again: the old one is left to its step and goes at the next turn");
    const struct seq *now = seqs_next(s);
    tap_ok(now && now != old && now->ticket == 7 && !old->is_used, "the new one takes its place");
    seqs_close(s);
    free(s);
}

static void test_refusals(void) {
    struct seqs *s = malloc(sizeof *s);
    struct err e = {0};
    seqs_open(s, 1);
    struct ask a = {.n_prompt = 3, .n_id = 3, .id = ids, .n_predict = 1, .sampler = {.top_p = 1}};
    tap_ok(!seqs_add(s, &front, &a, 64, 7, 0, &e) && e.code == ERR_FORMAT,
           "a token past the vocabulary: %s", e.text);
    tap_ok(!seqs_add(s, &front, &a, 3, 100, 0, &e) && e.code == ERR_USAGE,
           "a prompt that fills the context: %s", e.text);
    a.n_id = 5;
    tap_ok(!seqs_add(s, &front, &a, 5, 100, 0, &e) && strstr(e.text, "(3)") &&
               strstr(e.text, "(2)"),
           "an answer begun elsewhere that fills it is not called a prompt: %s", e.text);
    a.n_prompt = 4, a.n_id = 3;
    tap_ok(!seqs_add(s, &front, &a, 64, 100, 0, &e), "less ids than the prompt: %s", e.text);
    unsigned n = 0;
    while (n <= SEQS_MAX && add(s, n, 0, &e)) n++;
    tap_ok(n == SEQS_MAX, "as many as there is room for: %s", e.text);
    seqs_close(s);
    free(s);
}

static void test_front(void) {
    struct asks *s = calloc(1, sizeof *s);
    struct err e = {0};
    uint64_t ticket = 0;
    const int32_t *new = NULL;
    const struct ask_request r = {.prompt = ids, .n_prompt = 2, .n_predict = 4};
    tap_ok(asks_add(s, &r, 1, &ticket, &e) && asks_count(s) == 1, "a request is kept");
    struct front_ask *a = asks_find(s, ticket);
    tap_ok(asks_take(a, 0, ids, 2, &new) == 2 && new[1] == 6 && a->n_id == 4, "tokens in order");
    tap_ok(asks_take(a, 1, ids + 1, 2, &new) == 1 && new[0] == 7,
           "what an earlier epoch brought already is passed over");
    tap_ok(asks_take(a, 0, ids, 3, &new) == 0, "all of it known: nothing new");
    tap_ok(asks_take(a, 4, ids, 1, &new) == -1, "a gap is seen");
    tap_ok(asks_take(a, 3, ids, 2, &new) == -1, "more than was asked for is refused");
    struct msg m;
    asks_message(a, 9, 5000001, &m);
    tap_ok(m.type == MSG_ASK && m.u.ask.n_id == 5 && m.u.ask.n_prompt == 2 && m.u.ask.age_ms == 5,
           "it is handed on with all that is known");
    asks_drop(a);
    tap_ok(!asks_find(s, ticket) && !asks_count(s), "dropped");
    unsigned n = 0;
    while (n <= NODE_ASKS && asks_add(s, &r, 1, &ticket, &e)) n++;
    tap_ok(n == NODE_ASKS && e.code == ERR_LIMIT, "a front has an end: %s", e.text);
    for (unsigned i = 0; i < NODE_ASKS; i++) asks_drop(&s->ask[i]);
    free(s);
}

/* What an end means for who asked: begun, handed on and cut, or never begun. */
static void test_ends(void) {
    struct front_ask a = {.is_used = true, .n_id = 6, .n_handed = 1};
    a.request = (struct ask_request){.n_prompt = 4, .n_predict = 8};
    struct err e = {0};
    tap_ok(asks_end(&a, DONE_END, "", &e) == ASK_EOS, "the model has ended it");
    tap_ok(asks_end(&a, DONE_LENGTH, "", &e) == ASK_LENGTH,
           "the context is full, with the same nodes all along");
    a.n_handed = 2;
    tap_ok(asks_end(&a, DONE_LENGTH, "", &e) == ASK_FAILED && e.code == ERR_MEMORY &&
               strstr(e.text, "memory for 6 tokens") && strstr(e.text, "after 2 of up to 8"),
           "it went on with nodes of less memory and was cut: %s", e.text);
    tap_ok(asks_end(&a, DONE_IMPOSSIBLE, "full", &e) == ASK_FAILED && e.code == ERR_MEMORY,
           "or could not go on at all");
    a.n_id = 12;
    tap_ok(asks_end(&a, DONE_LENGTH, "", &e) == ASK_LENGTH, "or is as long as was wished");
    a.n_id = 4;
    tap_ok(asks_end(&a, DONE_IMPOSSIBLE, "too long", &e) == ASK_FAILED && e.code == ERR_USAGE,
           "a prompt that does not fit was asked wrongly");
    tap_ok(asks_end(&a, DONE_REFUSED, "busy", &e) == ASK_FAILED && e.code == ERR_LIMIT &&
               !strcmp(e.text, "busy"),
           "one that finds no place may come again");
}

int main(void) {
    test_turns();
    test_again();
    test_refusals();
    test_front();
    test_ends();
    return tap_done();
}
