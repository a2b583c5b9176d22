#include "engine/seqs.h"

#include <stdlib.h>
#include <string.h>

void seqs_open(struct seqs *s, uint32_t n_slot) {
    memset(s, 0, sizeof *s);
    s->n_slot = n_slot < SEQ_SLOTS ? n_slot : SEQ_SLOTS;
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
    return sampler_check(&a->sampler, e);
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
    int32_t *id = malloc((cap > a->n_id ? cap : a->n_id) * sizeof *id);
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
    if (s->end < (uint32_t)(q - s->seq) + 1) s->end = (uint32_t)(q - s->seq) + 1;
    return true;
}

void seqs_cancel(struct seqs *s, const struct node_id *front, uint64_t ticket) {
    struct seq *q = find(s, front, ticket);
    if (q) q->is_cancelled = true;
}

static struct seq *oldest_parked(struct seqs *s) {
    struct seq *best = NULL;
    for (unsigned i = 0; i < s->end; i++) {
        struct seq *q = &s->seq[i];
        if (q->is_used && q->slot < 0 && (!best || q->asked_ns < best->asked_ns)) best = q;
    }
    return best;
}

struct seq *seqs_next(struct seqs *s) {
    for (unsigned i = s->end; i-- > 0;) {
        if (s->seq[i].is_used && s->seq[i].is_cancelled) seqs_drop(s, &s->seq[i]);
    }
    for (unsigned slot = 0; slot < s->n_slot; slot++) {
        struct seq *q = s->in_slot[slot] < 0 ? oldest_parked(s) : NULL;
        if (!q) continue;
        q->slot = (int)slot;
        q->n_fed = 0;
        s->in_slot[slot] = (int)(q - s->seq);
    }
    for (unsigned i = 1; i <= s->n_slot; i++) {
        uint32_t slot = (s->turn + i) % s->n_slot;
        if (s->in_slot[slot] < 0) continue;
        s->turn = slot;
        return &s->seq[s->in_slot[slot]];
    }
    return NULL;
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
