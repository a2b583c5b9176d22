/* test_seqs.c - the leader's sequences and the front's requests: order, places, and nothing lost. */
#include "engine/asks.h"
#include "engine/seqs.h"
#include "tap.h"

#include <stdlib.h>
#include <string.h>

#define PLENTY ((uint64_t)64 << 20)

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
    seqs_open(s, 2, 2, PLENTY);
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

/* A whole prompt at a time, unless someone's answer would pause for it. */
static void test_decoding(void) {
    struct seqs *s = malloc(sizeof *s);
    struct err e = {0};
    seqs_open(s, 3, 3, PLENTY);
    if (!add(s, 1, 300, &e) || !add(s, 2, 200, &e) || !add(s, 3, 100, &e)) abort();
    struct seq *a = seqs_next(s), *b = seqs_next(s), *c = seqs_next(s);
    tap_ok(!seqs_decodes(s, a) && !seqs_decodes(s, b), "three that begin: none decodes");
    b->n_fed = 3;
    tap_ok(!seqs_decodes(s, a), "nor does one in the middle of its prompt");
    b->n_fed = 5, b->id[b->n_id++] = 9;
    tap_ok(seqs_decodes(s, a) && seqs_decodes(s, c), "one with a token that is not fed does");
    tap_ok(!seqs_decodes(s, b), "which does not wait for itself");
    seqs_cancel(s, &front, b->ticket);
    tap_ok(!seqs_decodes(s, a), "nor does anybody for one that is cancelled");
    seqs_close(s);
    free(s);
}

/* As add(), but nothing was answered yet. */
static bool add_new(struct seqs *s, uint64_t ticket, uint64_t age_ms, struct err *e) {
    const struct ask a = {.ticket = ticket,
                          .age_ms = age_ms,
                          .n_prompt = 3,
                          .n_id = 3,
                          .id = ids,
                          .n_predict = 4,
                          .sampler = {.temp = 0, .top_p = 1}};
    return seqs_add(s, &front, &a, 64, 100, 1000000000000, e);
}

/* The sum of 1 << ticket of those that have a place. */
static unsigned placed(const struct seqs *s) {
    unsigned sum = 0;
    for (unsigned i = 0; i < SEQS_MAX; i++) {
        if (s->seq[i].is_used && s->seq[i].slot >= 0) sum |= 1U << s->seq[i].ticket;
    }
    return sum;
}

/* Only as many are begun as survive a loss; those that were begun before one have all places. */
static void test_losses(void) {
    struct seqs *s = malloc(sizeof *s);
    struct err e = {0};
    seqs_open(s, 3, 1, PLENTY);
    if (!add_new(s, 1, 300, &e) || !add_new(s, 2, 400, &e)) abort();
    tap_ok(seqs_next(s) && placed(s) == 1U << 2, "of three places one may be taken by a new one");
    bool ok = add(s, 3, 500, &e) && add(s, 4, 200, &e) && seqs_next(s);
    tap_ok(ok && placed(s) == (1U << 2 | 1U << 3 | 1U << 4), "those under way take the others");
    seqs_cancel(s, &front, 3);
    tap_ok(seqs_next(s) && placed(s) == (1U << 2 | 1U << 4), "a place that is free is kept free");
    seqs_cancel(s, &front, 2);
    seqs_cancel(s, &front, 4);
    tap_ok(seqs_next(s) && placed(s) == 1U << 1, "until none is taken");
    seqs_close(s);

    seqs_open(s, 2, 2, PLENTY);
    if (!add_new(s, 5, 100, &e) || !add_new(s, 6, 200, &e)) abort();
    struct seq *q = seqs_next(s);
    q->n_fed = 3;
    ok = add(s, 7, 50, &e) && seqs_next(s);
    tap_ok(ok && placed(s) == (1U << 5 | 1U << 6), "an answer under way that is the newest waits");
    ok = add(s, 8, 300, &e) && seqs_next(s);
    tap_ok(ok && placed(s) == (1U << 6 | 1U << 8), "an older one takes the place of the newest");
    seqs_cancel(s, &front, 6);
    seqs_cancel(s, &front, 8);
    ok = (q = seqs_next(s)) && placed(s) == (1U << 5 | 1U << 7);
    tap_ok(ok && !q->n_fed && !seqs_next(s)->n_fed, "which begins anew when it has one again");
    seqs_close(s);
    free(s);
}

static void test_again(void) {
    struct seqs *s = malloc(sizeof *s);
    struct err e = {0};
    seqs_open(s, 1, 1, PLENTY);
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
    seqs_open(s, 1, 1, PLENTY);
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

/* A leader keeps so much and no more, but one request always. */
static void test_bytes(void) {
    struct seqs *s = malloc(sizeof *s);
    struct err e = {0};
    static const char text[40000] = "root ::= \"a\"";
    struct ask a = {.n_prompt = 3,
                    .n_id = 3,
                    .id = ids,
                    .n_predict = 100,
                    .sampler = {.top_p = 1},
                    .grammar = GRAMMAR_GBNF,
                    .grammar_text = text,
                    .n_grammar = sizeof text};
    seqs_open(s, 1, 1, 100000);
    unsigned n = 0;
    while (n < 10 && seqs_add(s, &front, &a, 64, 100, 0, &e)) a.ticket = ++n;
    tap_ok(n == 2 && e.code == ERR_LIMIT && s->bytes > 80000 && s->bytes < 100000,
           "%u requests of 40 kB in 100 kB: %s", n, e.text);
    seqs_cancel(s, &front, 0);
    seqs_cancel(s, &front, 1);
    tap_ok(!seqs_next(s) && s->bytes == 0, "what they took is given back");
    s->most_bytes = 10;
    tap_ok(seqs_add(s, &front, &a, 64, 100, 0, &e), "one is always taken");
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
    tap_ok(asks_is_cut(&a, DONE_LENGTH) && !asks_is_cut(&a, DONE_END) &&
               !asks_is_cut(&a, DONE_FAILED),
           "which more nodes can mend");
    tap_ok(asks_end(&a, DONE_NO_ROOM, "full", &e) == ASK_FAILED && e.code == ERR_MEMORY &&
               asks_is_cut(&a, DONE_NO_ROOM),
           "or could not go on at all, as long as there are so few");
    a.n_id = 12;
    tap_ok(asks_end(&a, DONE_LENGTH, "", &e) == ASK_LENGTH && !asks_is_cut(&a, DONE_LENGTH),
           "or is as long as was wished");
    a.n_id = 4;
    a.n_handed = 1;
    tap_ok(asks_end(&a, DONE_NO_ROOM, "too long", &e) == ASK_FAILED && e.code == ERR_USAGE &&
               !asks_is_cut(&a, DONE_NO_ROOM),
           "a prompt that does not fit was asked wrongly");
    tap_ok(asks_end(&a, DONE_IMPOSSIBLE, "odd", &e) == ASK_FAILED && e.code == ERR_USAGE,
           "as is what no node can compute");
    tap_ok(asks_end(&a, DONE_REFUSED, "busy", &e) == ASK_FAILED && e.code == ERR_LIMIT &&
               !strcmp(e.text, "busy"),
           "one that finds no place may come again");
}

static const struct node_id leader = {{1}}, other = {{2}};

/* What waits for more memory does so for a while only, and anew when it has got on. */
static void test_parking(void) {
    const uint64_t second = 1000000000, most = ASK_PARKED_S * second;
    struct asks *s = calloc(1, sizeof *s);
    struct err e = {0}, why = {.code = ERR_MEMORY, .text = "full"};
    uint64_t ticket = 0;
    const int32_t *new = NULL;
    const struct ask_request r = {.prompt = ids, .n_prompt = 2, .n_predict = 4};
    if (!asks_add(s, &r, 1, &ticket, &e)) abort();
    struct front_ask *a = asks_find(s, ticket);
    tap_ok(!asks_is_over(a, 2 * most), "what is not parked waits without an end");
    asks_park(a, second, &why);
    tap_ok(a->is_parked && !asks_is_over(a, most) && asks_is_over(a, second + most),
           "what is parked waits for %d s", (int)ASK_PARKED_S);
    tap_ok(!asks_is_with(a, &a->leader, 0), "it is with nobody yet");
    asks_hand(a, &leader, 5, most);
    tap_ok(asks_is_with(a, &leader, 5) && !asks_is_with(a, &leader, 6) &&
               !asks_is_with(a, &other, 5),
           "two leaders may count an epoch by one number: it is with one of them");
    asks_park(a, most, &why);
    tap_ok(asks_is_over(a, second + most), "an epoch that brings nothing gives it no more time");
    asks_hand(a, &leader, 6, most);
    asks_park(a, 9 * most, &why);
    tap_ok(!asks_is_over(a, 9 * most) && asks_is_over(a, second + 9 * most),
           "but the time in which a leader had taken it does not count");
    asks_hand(a, &leader, 7, 9 * most);
    if (asks_take(a, 0, ids, 1, &new) != 1) abort();
    asks_park(a, most, &why);
    tap_ok(!asks_is_over(a, second + most) && asks_is_over(a, 2 * most) &&
               !strcmp(a->why.text, "full"),
           "one that brings a token does");
    why.text[0] = 'F';
    a->n_handed = 1;
    a->is_parked = false;
    tap_ok(!asks_retry(a, DONE_REFUSED, most, &why), "a new one that finds no place is refused");
    a->n_handed = 2;
    a->epoch = 9;
    tap_ok(!asks_retry(a, DONE_FAILED, most, &why) && asks_retry(a, DONE_REFUSED, most, &why) &&
               !a->epoch && a->again_ns > most && a->again_ns <= most + second,
           "one that was begun asks again after a moment");
    asks_drop(a);
    free(s);
}

int main(void) {
    test_turns();
    test_decoding();
    test_losses();
    test_again();
    test_refusals();
    test_front();
    test_bytes();
    test_ends();
    test_parking();
    return tap_done();
}
