#include "engine/guesser.h"

#include "base/clock.h"
#include "model/picker.h"

#include <stdlib.h>

enum {
    DRAFT_BATCH = 64,
    FIRST_REST =
        32,  // tokens, after guesses of the small model that did not pay; then twice as many
    LAST_REST = 256,
};

/* A further token of a step, before it is measured, as part of a step of one: in memory it costs
 * arithmetic, from a disk hardly anything. */
static const double SLOPE_RAM = 0.4, SLOPE_DISK = 0.05;
static const double LEARN = 0.1;

struct guesser {
    const struct engine_conf *conf;
    struct arena mem;
    struct guesses spec;
    const struct gen_request *req;

    /* guesses handed out, and how far they proved right */
    int32_t guess[SPEC_MOST];
    uint32_t n_guess, n_right;
    bool is_open;  // none was wrong yet
    enum spec_from from;

    /* the small model */
    struct nn *draft;  // or NULL
    struct picker picker;
    struct coll alone;
    double draft_s;     // a token of it
    uint32_t n_common;  // tokens in its cache that are the text's, guesses not counted
    uint32_t rest, rested;
};

static struct nn_conf draft_conf(const struct engine_conf *c) {
    struct nn_conf n = {
        .model = c->draft,
        .kernels = c->kernels,
        .n_slice = 1,
        .n_seq = 1,
        .n_ctx = c->n_ctx < c->draft->n_ctx ? c->n_ctx : c->draft->n_ctx,
        .kv = c->kv,
        .wire = c->wire,
        .budget = ENGINE_PLENTY,
        .n_reader = c->n_reader,
        .n_slot = 2,
        .n_thread = c->n_slice > 1 ? 1 : c->n_thread,
        .n_decode = c->n_slice > 1 ? 1 : c->n_decode,
    };
    n.n_batch = n.n_ctx < DRAFT_BATCH ? n.n_ctx : DRAFT_BATCH;
    cuts_make(&n.cuts, c->draft, 1, &(double){1});
    return n;
}

MUST guesser_measure(const struct engine_conf *c, uint64_t *bytes, struct err *e) {
    struct nn_memory m;
    *bytes = c->n_guess ? spec_bytes(c->n_ctx) : 0;
    if (!c->n_guess || !c->draft) return true;
    struct nn_conf n = draft_conf(c);
    if (!nn_measure(&n, &m, e)) return err_in(e, "draft model");
    *bytes += m.kv_bytes + m.scratch_bytes + m.fixed_bytes + m.pin_bytes + m.embd_bytes;
    return true;
}

MUST guesser_open(struct guesser **out, const struct engine_conf *c, bool streams, struct err *e) {
    struct guesser *g = calloc(1, sizeof *g);
    void *mem = NULL;
    if (!g) return err_set(e, ERR_MEMORY, "no memory for guessing ahead");
    g->conf = c;
    coll_alone(&g->alone);
    bool ok = arena_open(&g->mem, "guesses", spec_bytes(c->n_ctx) + 64, e) &&
              arena_array(&g->mem, &mem, spec_bytes(c->n_ctx), 1, "guesses", e);
    if (ok && c->draft) {
        struct nn_conf n = draft_conf(c);
        ok = nn_open(&g->draft, &n, &g->alone, e) || err_in(e, "draft model");
    }
    if (!ok) {
        guesser_close(g);
        return false;
    }
    spec_init(&g->spec, mem, c->n_ctx, c->n_guess, c->spec != SPEC_DRAFT,
              streams ? SLOPE_DISK : SLOPE_RAM);
    *out = g;
    return true;
}

MUST guesser_load(struct guesser *g, struct err *e) {
    return !g->draft || nn_load(g->draft, NULL, NULL, e) || err_in(e, "draft model");
}

void guesser_close(struct guesser *g) {
    if (!g) return;
    nn_close(g->draft);
    arena_close(&g->mem);
    free(g);
}

void guesser_start(struct guesser *g, const struct gen_request *r) {
    g->req = r;
    g->n_guess = g->n_common = g->rested = 0;
    g->rest = FIRST_REST / 2;
    g->is_open = false;
    if (g->draft) {
        nn_truncate(g->draft, 0, 0);
        picker_init(&g->picker, &r->sampler, NULL, g->conf->draft->n_vocab);
    }
    spec_clear(&g->spec);
    for (uint32_t i = 0; i < r->n_prompt; i++) spec_push(&g->spec, r->prompt[i]);
}

/* What came of the last guesses is known when one is wrong, or all have been compared. */
static void judge(struct guesser *g) {
    if (!g->is_open) return;
    uint32_t n = g->n_right < g->n_guess ? g->n_right + 1 : g->n_guess;
    spec_learn(&g->spec, g->from, n, g->n_right);
    g->is_open = false;
}

void guesser_push(struct guesser *g, int32_t id) {
    if (g->is_open && g->n_right < g->n_guess && g->guess[g->n_right] == id) {
        g->n_right++;
    } else {
        judge(g);
    }
    spec_push(&g->spec, id);
    g->rested++;
}

void guesser_took(struct guesser *g, uint32_t n, double seconds) {
    spec_took(&g->spec, n, seconds);
}

/* --- the small model --- */

/* The guess at place n of the text, of which what was guessed before it stands behind the end. */
static MUST draft_pick(struct guesser *g, uint32_t n, int32_t *id, struct err *e) {
    if (!picker_begin(&g->picker, g->spec.token, 0, n, e)) return false;
    do {
        struct candidate *c;
        size_t n_c;
        if (!nn_wanted(g->draft, &g->picker.want, &c, &n_c, e)) return false;
        if (!picker_next(&g->picker, c, n_c, g->req->sequence, n, id, e)) return false;
    } while (*id == PICK_MORE);
    g->spec.token[n] = *id;
    return true;
}

/* The small model reads what the text has more than its cache, its own guesses that came true included. */
static MUST catch_up(struct guesser *g, struct par *team, struct err *e) {
    const struct guesses *s = &g->spec;
    uint32_t kept = nn_pos(g->draft, 0) - g->n_common, i = 0;
    while (i < kept && g->n_common + i < s->n - 1 && s->token[g->n_common + i] == g->guess[i]) i++;
    uint32_t at = g->n_common + i;
    if (at >= s->n) at = s->n - 1;  // its logits are wanted
    nn_truncate(g->draft, 0, at);
    while (at < s->n) {
        uint32_t left = s->n - at, n = left < DRAFT_BATCH ? left : DRAFT_BATCH;
        if (!nn_step(g->draft, team, 0, s->token + at, n, n == left, e)) return false;
        at += n;
    }
    g->n_common = s->n;
    return true;
}

static MUST draft(struct guesser *g, struct par *team, uint32_t n, int32_t *out, struct err *e) {
    if (!catch_up(g, team, e)) return false;
    for (uint32_t i = 0; i < n; i++) {
        if (!draft_pick(g, g->spec.n + i, &out[i], e)) return false;
        if (i + 1 == n) break;
        double t0 = clock_s();
        if (!nn_step(g->draft, team, 0, &out[i], 1, NN_LOGITS, e)) return false;
        double t = clock_s() - t0;
        g->draft_s += (g->draft_s > 0 ? LEARN : 1) * (t - g->draft_s);
    }
    return true;
}

/* How many guesses the small model shall make: those that pay; or, well rested, a few to see. */
static uint32_t draft_worth(struct guesser *g, uint32_t most, double *gain) {
    *gain = 0;
    uint32_t room = g->draft ? draft_conf(g->conf).n_ctx : 0;
    if (g->spec.n + most >= room || g->spec.n + most >= g->spec.cap) return 0;
    bool is_new = g->draft_s <= 0;
    uint32_t n = is_new ? 0 : spec_worth(&g->spec, most, FROM_DRAFT, g->draft_s, gain);
    if (n) {
        g->rest = FIRST_REST / 2;
        return n;
    }
    if (!g->spec.n_step || g->rest > LAST_REST || (!is_new && g->rested < g->rest)) return 0;
    g->rest *= 2;
    g->rested = 0;
    return most < 4 ? most : 4;
}

MUST guesser_guess(struct guesser *g, struct par *team, uint32_t most, int32_t *out, uint32_t *n,
                   struct err *e) {
    double gain = 0, draft_gain;
    enum spec_from from = FROM_TWO;
    judge(g);
    *n = spec_guess(&g->spec, most, out, &from);
    if (*n) (void)spec_worth(&g->spec, *n, from, 0, &gain);
    /* Sure guesses need no second opinion; else the better of both. */
    uint32_t by_draft = from == FROM_MANY && *n ? 0 : draft_worth(g, most, &draft_gain);
    if (by_draft && (!*n || draft_gain > gain)) {
        if (!draft(g, team, by_draft, out, e)) return false;
        *n = by_draft;
        from = FROM_DRAFT;
        g->spec.unchecked = -1;
    }
    g->from = from;
    g->n_guess = *n;
    g->n_right = 0;
    g->is_open = *n > 0;
    for (uint32_t i = 0; i < *n; i++) g->guess[i] = out[i];
    return true;
}
