#include "model/picker.h"

#include <math.h>

enum { FIRST_LOOK = 24 };  // candidates beyond those needed, as a grammar may refuse some

void picker_init(struct picker *p, const struct sampler *s, struct grammar_run *run,
                 uint32_t n_vocab) {
    p->sampler = s;
    p->run = run;
    p->n_vocab = n_vocab;
    p->is_all = false;
    p->want.k = p->want.n_id = 0;
    p->adjust.n = 0;
}

/* --- what is wanted --- */

static void want_all(struct picker *p) {
    p->want.k = p->n_vocab;
    p->want.n_id = 0;
    p->is_all = true;
}

/* Tokens whose logit falls may hide so many others; those whose logit rises could be anywhere. */
static void want_best(struct picker *p, size_t k) {
    struct want *w = &p->want;
    w->n_id = 0;
    for (uint32_t i = 0; i < p->adjust.n; i++) {
        const struct adjusted *a = &p->adjust.at[i];
        bool is_known = (uint32_t)a->id < p->n_vocab;
        if (a->is_raised && is_known && w->n_id < WANT_IDS) w->id[w->n_id++] = a->id;
    }
    p->is_all = false;
    w->k = (uint32_t)k;
    if (k > WANT_TOP || w->n_id == WANT_IDS || k + w->n_id > p->n_vocab) want_all(p);
}

/* All that the grammar allows, by name, where these are not too many. */
static bool want_named(struct picker *p, size_t n) {
    if (n > WANT_IDS) return false;
    p->want.k = 0;
    p->want.n_id = (uint32_t)n;
    p->is_all = true;
    return true;
}

static bool want_recalled(struct picker *p) {
    const int32_t *id;
    size_t n;
    if (!p->run || !grammar_recalls(p->run, &id, &n) || !n || !want_named(p, n)) return false;
    for (size_t i = 0; i < n; i++) p->want.id[i] = id[i];
    return true;
}

MUST picker_begin(struct picker *p, const int32_t *id, size_t n_prompt, size_t n, struct err *e) {
    if (p->run && !grammar_run_sync(p->run, id + n_prompt, n - n_prompt, e)) return false;
    adjust_make(&p->adjust, p->sampler, id, n);
    if (want_recalled(p)) return true;
    size_t k = sampler_needs(p->sampler, p->n_vocab) + p->adjust.n;
    want_best(p, p->run ? k + FIRST_LOOK : k);
    return true;
}

/* The candidates were too few: all that are allowed, or more of the best, or all there are. */
static void want_more(struct picker *p, size_t n_allowed) {
    if (want_named(p, n_allowed)) return;
    if (p->want.k < WANT_TOP) {
        want_best(p, WANT_TOP);
    } else {
        want_all(p);
    }
}

/* --- choosing --- */

/* Leaves out what was brought twice (among the best and by name), what is no number, what is banned and what
 * the grammar refuses. Returns how many are left; *n_sure: of them those whose place in the order is known, whatever
 * was not brought. */
static size_t sift(struct picker *p, struct candidate *c, size_t n, size_t *n_sure) {
    size_t n_best = n - p->want.n_id, kept = 0;
    bool is_known = p->run && p->is_all && !p->want.k;  // named because they are allowed
    *n_sure = 0;
    for (size_t i = 0; i < n; i++) {
        const struct adjusted *a = adjust_find(&p->adjust, c[i].id);
        if (isnan(c[i].logit) || (i < n_best && p->want.n_id && a && a->is_raised)) continue;
        if (a && a->bias == -INFINITY) continue;
        if (p->run && !is_known && !grammar_allows(p->run, c[i].id)) continue;
        *n_sure += !a;
        c[kept++] = c[i];
    }
    return kept;
}

/* Most biases ban nothing, and then nobody is to look for a ban. */
static bool has_banned(const struct picker *p) {
    for (uint32_t i = 0; i < p->adjust.n; i++) {
        if (p->adjust.at[i].bias == -INFINITY) return true;
    }
    return false;
}

static MUST nothing_left(const struct picker *p, int32_t *id, struct err *e) {
    bool is_some_banned = has_banned(p);
    if (!p->run) {
        return err_set(e, ERR_FORMAT, "the model's output is not a number at any token%s",
                       is_some_banned ? " that is not banned" : "");
    }
    *id = PICK_END;
    return grammar_is_whole(p->run) ||
           err_set(e, ERR_FORMAT,
                   "no token of the vocabulary with a number for its logit goes on with the "
                   "grammar%s",
                   is_some_banned ? ", but for banned ones" : "");
}

MUST picker_next(struct picker *p, struct candidate *c, size_t n, uint64_t sequence,
                 uint64_t position, int32_t *id, struct err *e) {
    size_t n_sure, k = sampler_needs(p->sampler, p->n_vocab);
    bool is_short = n - p->want.n_id < p->want.k;  // there are no more numbers
    n = sift(p, c, n, &n_sure);
    if (!p->is_all && !is_short && n_sure < k) {
        size_t n_allowed = p->run ? grammar_allowed(p->run, p->want.id, WANT_IDS) : WANT_IDS + 1;
        if (!n_allowed) return nothing_left(p, id, e);
        want_more(p, n_allowed);
        *id = PICK_MORE;
        return true;
    }
    if (!n) return nothing_left(p, id, e);
    sample_adjust(p->sampler, &p->adjust, c, n);
    *id = sample(p->sampler, c, n, sequence, position);
    return true;
}
