#include "engine/seqs.h"

#include <stdlib.h>
#include <string.h>

void seqs_open(struct seqs *s, uint32_t n_slot, uint32_t n_begin, uint64_t most_bytes) {
    memset(s, 0, sizeof *s);
    s->most_bytes = most_bytes;
    s->n_slot = n_slot < SEQ_SLOTS ? n_slot : SEQ_SLOTS;
    s->n_begin = n_begin < s->n_slot ? n_begin : s->n_slot;
    for (unsigned i = 0; i < SEQ_SLOTS; i++) s->in_slot[i] = -1;
}

void seqs_forget(struct seq *q) {
    grammar_run_close(q->run);
    grammar_close(q->grammar);
    q->run = NULL;
    q->grammar = NULL;
}

void seqs_drop(struct seqs *s, struct seq *q) {
    if (q->slot >= 0) s->in_slot[q->slot] = -1;
    free(q->id);
    free(q->grammar_text);
    seqs_forget(q);
    s->bytes -= q->bytes;
    *q = (struct seq){.slot = -1};
    while (s->end > 0 && !s->seq[s->end - 1].is_used) s->end--;
}

void seqs_close(struct seqs *s) {
    for (unsigned i = s->end; i-- > 0;) {
        if (s->seq[i].is_used) seqs_drop(s, &s->seq[i]);
    }
}

static struct seq *find(struct seqs *s, const struct node_id *front, uint64_t ticket) {
    for (unsigned i = 0; i < s->end; i++) {
        struct seq *q = &s->seq[i];
        bool is_live = q->is_used && !q->is_cancelled;
        if (is_live && q->ticket == ticket && !ident_cmp(&q->front, front)) return q;
    }
    return NULL;
}

static struct seq *find_free(struct seqs *s) {
    for (unsigned i = 0; i < SEQS_MAX; i++) {
        if (!s->seq[i].is_used) return &s->seq[i];
    }
    return NULL;
}

static MUST check(const struct ask *a, uint32_t n_ctx, uint32_t n_vocab, struct err *e) {
    if (!a->n_prompt || a->n_id < a->n_prompt) {
        return err_set(e, ERR_FORMAT, "a request without a prompt");
    }
    if (a->n_id >= n_ctx) {
        return err_set(
            e, ERR_USAGE,
            "the nodes at work have memory for %u tokens of context, which the prompt (%u) "
            "and the answer so far (%u) fill",
            n_ctx, a->n_prompt, a->n_id - a->n_prompt);
    }
    for (uint32_t i = 0; i < a->n_id; i++) {
        if (a->id[i] < 0 || (uint32_t)a->id[i] >= n_vocab) {
            return err_set(e, ERR_FORMAT, "token %d is not in the vocabulary of %u", a->id[i],
                           n_vocab);
        }
    }
    if (sampler_check(&a->sampler, e)) return true;
    e->code = ERR_FORMAT;  // its front has looked at it already
    return false;
}

MUST seqs_add(struct seqs *s, const struct node_id *front, const struct ask *a, uint32_t n_ctx,
              uint32_t n_vocab, uint64_t now_ns, struct err *e) {
    if (!check(a, n_ctx, n_vocab, e)) return false;
    /* The one that it replaces may be in the middle of a step: it goes when its turn comes. */
    seqs_cancel(s, front, a->ticket);
    struct seq *q = find_free(s);
    if (!q) return err_set(e, ERR_LIMIT, "%d requests are waiting already", SEQS_MAX);
    uint32_t room = n_ctx - a->n_prompt, n_predict = a->n_predict < room ? a->n_predict : room;
    uint32_t cap = a->n_prompt + n_predict;
    if (cap < a->n_id) cap = a->n_id;
    uint64_t bytes = sizeof *q + cap * sizeof *q->id + a->n_grammar;
    if (s->end && s->bytes + bytes > s->most_bytes) {
        return err_set(e, ERR_LIMIT,
                       "the node that leads has no memory for more requests at a time; try again "
                       "later");
    }
    int32_t *id = malloc(cap * sizeof *id);
    char *text = malloc(a->n_grammar + 1);
    if (!id || !text) {
        free(id);
        free(text);
        return err_set(e, ERR_MEMORY, "no memory for a request of %u tokens", a->n_id);
    }
    memcpy(id, a->id, a->n_id * sizeof *id);
    if (a->n_grammar) memcpy(text, a->grammar_text, a->n_grammar);
    uint64_t age_ns = a->age_ms < 86400000 ? a->age_ms * 1000000 : 86400000000000;
    *q = (struct seq){.is_used = true,
                      .front = *front,
                      .ticket = a->ticket,
                      .bytes = bytes,
                      .asked_ns = now_ns > age_ns ? now_ns - age_ns : 0,
                      .id = id,
                      .n_prompt = a->n_prompt,
                      .n_id = a->n_id,
                      .n_predict = n_predict,
                      .sampler = a->sampler,
                      .sequence = a->sequence,
                      .kind = a->grammar,
                      .grammar_text = text,
                      .n_grammar = a->n_grammar,
                      .slot = -1};
    s->bytes += bytes;
    if (s->end < (uint32_t)(q - s->seq) + 1) s->end = (uint32_t)(q - s->seq) + 1;
    return true;
}

void seqs_cancel(struct seqs *s, const struct node_id *front, uint64_t ticket) {
    struct seq *q = find(s, front, ticket);
    if (q) q->is_cancelled = true;
}

/* Of those with n_answer tokens of answer or more. */
static struct seq *oldest_parked(struct seqs *s, uint32_t n_answer) {
    struct seq *best = NULL;
    for (unsigned i = 0; i < s->end; i++) {
        struct seq *q = &s->seq[i];
        if (!q->is_used || q->slot >= 0 || q->n_id - q->n_prompt < n_answer) continue;
        if (!best || q->asked_ns < best->asked_ns) best = q;
    }
    return best;
}

static struct seq *newest_placed(struct seqs *s) {
    struct seq *best = NULL;
    for (unsigned i = 0; i < s->n_slot; i++) {
        struct seq *q = s->in_slot[i] < 0 ? NULL : &s->seq[s->in_slot[i]];
        if (q && (!best || q->asked_ns > best->asked_ns)) best = q;
    }
    return best;
}

static void place(struct seqs *s, struct seq *q, unsigned slot) {
    q->slot = (int)slot;
    q->n_fed = 0;
    s->in_slot[slot] = (int)(q - s->seq);
}

static void fill_places(struct seqs *s) {
    uint32_t taken = 0;
    for (unsigned slot = 0; slot < s->n_slot; slot++) taken += s->in_slot[slot] >= 0;
    for (unsigned slot = 0; slot < s->n_slot; slot++) {
        struct seq *q = s->in_slot[slot] < 0 ? oldest_parked(s, taken >= s->n_begin) : NULL;
        if (!q) continue;
        place(s, q, slot);
        taken++;
    }
}

/* After a loss fronts hand in their answers one by one: what was begun meanwhile gives way. */
static void make_room(struct seqs *s) {
    for (;;) {
        struct seq *q = oldest_parked(s, 1), *last = newest_placed(s);
        if (!q || !last || q->asked_ns >= last->asked_ns) return;
        unsigned slot = (unsigned)last->slot;
        last->slot = -1;
        seqs_forget(last);
        place(s, q, slot);
    }
}

struct seq *seqs_next(struct seqs *s) {
    for (unsigned i = s->end; i-- > 0;) {
        if (s->seq[i].is_used && s->seq[i].is_cancelled) seqs_drop(s, &s->seq[i]);
    }
    fill_places(s);
    make_room(s);
    for (unsigned i = 1; i <= s->n_slot; i++) {
        uint32_t slot = (s->turn + i) % s->n_slot;
        if (s->in_slot[slot] < 0) continue;
        s->turn = slot;
        return &s->seq[s->in_slot[slot]];
    }
    return NULL;
}

bool seqs_decodes(const struct seqs *s, const struct seq *q) {
    for (unsigned i = 0; i < s->n_slot; i++) {
        const struct seq *other = s->in_slot[i] < 0 ? q : &s->seq[s->in_slot[i]];
        if (other == q || other->is_cancelled || !other->n_fed) continue;
        if (other->n_fed + 1 >= other->n_id) return true;
    }
    return false;
}

void seqs_count(const struct seqs *s, uint32_t *running, uint32_t *waiting) {
    *running = *waiting = 0;
    for (unsigned i = 0; i < s->end; i++) {
        if (!s->seq[i].is_used) continue;
        if (s->seq[i].slot >= 0)
            ++*running;
        else
            ++*waiting;
    }
}
