#include "model/picker.h"

void picker_init(struct picker *p, const struct sampler *s, uint32_t n_vocab) {
    p->sampler = s;
    p->n_vocab = n_vocab;
    p->want.k = p->want.n_id = 0;
    p->adjust.n = 0;
}

/* Tokens whose logit falls may hide so many others; those whose logit rises could be anywhere. */
void picker_begin(struct picker *p, const int32_t *id, size_t n) {
    struct want *w = &p->want;
    size_t k = sampler_needs(p->sampler, p->n_vocab);
    adjust_make(&p->adjust, p->sampler, id, n);
    w->n_id = 0;
    for (uint32_t i = 0; i < p->adjust.n; i++) {
        const struct adjusted *a = &p->adjust.at[i];
        bool is_known = (uint32_t)a->id < p->n_vocab;
        if (a->is_raised && is_known && w->n_id < WANT_IDS) w->id[w->n_id++] = a->id;
    }
    k += p->adjust.n;
    if (k > WANT_TOP || w->n_id == WANT_IDS || k + w->n_id > p->n_vocab) {
        k = p->n_vocab;
        w->n_id = 0;
    }
    w->k = (uint32_t)k;
}

/* One of the best that was brought by name, too, counts once. */
static size_t drop_twins(const struct picker *p, struct candidate *c, size_t n) {
    size_t n_best = n - p->want.n_id, kept = 0;
    if (!p->want.n_id) return n;
    for (size_t i = 0; i < n; i++) {
        const struct adjusted *a = i < n_best ? adjust_find(&p->adjust, c[i].id) : NULL;
        if (!a || !a->is_raised) c[kept++] = c[i];
    }
    return kept;
}

MUST picker_next(struct picker *p, struct candidate *c, size_t n, uint64_t sequence,
                 uint64_t position, int32_t *id, struct err *e) {
    n = drop_twins(p, c, n);
    if (!n) return err_set(e, ERR_FORMAT, "the model's output is not a number at any token");
    sample_adjust(p->sampler, &p->adjust, c, n);
    *id = sample(p->sampler, c, n, sequence, position);
    return true;
}
