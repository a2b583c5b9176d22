#include "engine/guesser.h"

#include "base/clock.h"
#include "model/picker.h"

#include <stdlib.h>
#include <string.h>

enum {
    DRAFT_BATCH = 64,
    N_TIMED = 3,
    DRAFTED_MOST = 2 * SPEC_MOST + 1  // those of a step, the token behind them, those of the next
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
    double draft_s;                 // a guess of it
    uint32_t n_room;                // tokens that it can follow
    uint32_t n_common;              // behind so many tokens of the text there are
    int32_t drafted[DRAFTED_MOST];  // guesses, each by those before it
    uint32_t n_drafted;             // its cache may hold the last one, or not yet
    bool is_reading;                // the cache is being given a token, by layers
    bool goes_ahead;                // it may guess for the step after the one under way
    uint32_t n_ahead;               // of these guesses those taken, in this answer
    uint32_t n_handed, n_true;      // guesses of it to check, and those that came true
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
        .budget = NN_PLENTY,
        .n_reader = c->n_reader,
        .n_slot = 2,
        .n_thread = c->n_slice > 1 ? 1 : c->n_thread,
        .n_decode = c->n_slice > 1 ? 1 : c->n_decode,
    };
    n.n_batch = n.n_ctx < DRAFT_BATCH ? n.n_ctx : DRAFT_BATCH;
    cuts_make(&n.cuts, c->draft, 1, &(double){1});
    return n;
}

static uint64_t bytes_of(const struct nn_memory *m) {
    return m->kv_bytes + m->scratch_bytes + m->fixed_bytes + m->pin_bytes + m->embd_bytes;
}

MUST guesser_measure(const struct engine_conf *c, uint64_t *bytes, struct err *e) {
    struct nn_memory m;
    *bytes = c->n_guess ? spec_bytes(c->n_ctx) : 0;
    if (!c->n_guess || !c->draft) return true;
    struct nn_conf n = draft_conf(c);
    if (!nn_measure(&n, &m, e)) return err_in(e, "draft model");
    *bytes += bytes_of(&m);
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
    if (c->draft) {
        g->n_room = draft_conf(c).n_ctx;
        spec_hire(&g->spec, c->draft_keep);
    }
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
    /* Of a conversation the small model has read what was said before. */
    uint32_t held = g->draft ? nn_pos(g->draft, 0) : 0, same = 0;
    uint32_t n = g->n_common < held ? g->n_common : held;
    if (n > r->n_prompt) n = r->n_prompt;
    while (same < n && g->spec.token[same] == r->prompt[same]) same++;
    g->n_common = same;
    g->n_drafted = 0;
    g->n_ahead = g->n_handed = g->n_true = 0;
    g->n_guess = 0;
    g->is_open = false;
    g->goes_ahead = false;
    if (g->draft) {
        nn_truncate(g->draft, 0, same);
        picker_init(&g->picker, &r->sampler, NULL, g->conf->draft->n_vocab);
    }
    spec_clear(&g->spec);
    for (uint32_t i = 0; i < r->n_prompt; i++) spec_push(&g->spec, r->prompt[i]);
}

/* What came of the last guesses is known when one is wrong, or all have been compared; of an answer that ended
 * within them, of those before its end. */
static void judge(struct guesser *g, bool is_wrong) {
    if (g->is_open) spec_learn(&g->spec, g->from, g->n_right + is_wrong, g->n_right);
    g->is_open = false;
}

uint64_t guesser_drop(struct guesser *g) {
    judge(g, false);
    if (!g->draft || spec_pays(&g->spec)) return 0;
    uint64_t bytes = bytes_of(nn_memory(g->draft));
    nn_close(g->draft);
    g->draft = NULL;
    return bytes;
}

void guesser_tell(const struct guesser *g, struct gen_result *out) {
    out->n_drafted = g->n_handed;
    out->n_drafted_right = g->n_true;
    out->n_ahead = g->n_ahead;
    out->draft_s = g->draft_s;
}

void guesser_push(struct guesser *g, int32_t id) {
    if (g->is_open && g->n_right < g->n_guess && g->guess[g->n_right] == id) {
        g->n_right++;
        g->n_true += g->from == FROM_DRAFT;
    } else {
        judge(g, g->n_right < g->n_guess);
    }
    spec_push(&g->spec, id);
}

void guesser_took(struct guesser *g, uint32_t n, double seconds) {
    g->goes_ahead = false;
    spec_took(&g->spec, n, seconds);
}

/* --- the small model --- */

/* The guess at place n of the text, of which what was guessed before it stands behind the end. */
static MUST draft_pick(struct guesser *g, uint32_t n, int32_t *id, struct err *e) {
    if (!picker_begin(&g->picker, g->spec.token, 0, n, e)) return false;
    do {
        struct candidate *c;
        size_t n_c;
        if (!nn_wanted(g->draft, &g->picker.want, &c, &n_c, e) ||
            !picker_next(&g->picker, c, n_c, g->req->sequence, n, id, e)) {
            return err_in(e, "draft model");
        }
    } while (*id == PICK_MORE);
    g->spec.token[n] = *id;
    return true;
}

/* Whether the text and `most` guesses after it fit its cache. */
static bool has_room(const struct guesser *g, uint32_t most) {
    const uint32_t n = g->spec.n + most;
    return n < g->n_room && n < g->spec.cap;
}

/* As many tokens as its cache holds of the text, but for the last one, whose logits are wanted. */
static uint32_t n_read(const struct guesser *g) {
    const struct guesses *s = &g->spec;
    uint32_t held = nn_pos(g->draft, 0), n = g->n_common < held ? g->n_common : held;
    while (n < held && n < s->n && s->token[n] == g->drafted[n - g->n_common]) n++;
    return n < s->n ? n : s->n - 1;
}

/* It reads tokens until its cache holds `end` of the text, after which nothing is drafted yet. */
static MUST read_on(struct guesser *g, struct par *team, uint32_t end, struct err *e) {
    const struct guesses *s = &g->spec;
    uint32_t at = n_read(g);
    if (g->is_reading && !nn_pass(g->draft, e)) return false;
    g->is_reading = false;
    nn_truncate(g->draft, 0, at);
    g->n_common = at;
    g->n_drafted = 0;
    while (at < end) {
        uint32_t left = end - at, n = left < DRAFT_BATCH ? left : DRAFT_BATCH;
        bool is_last = left == n;  // it takes less time than starting anew
        if (!is_last && g->req->stop && atomic_load(g->req->stop))
            return err_set(e, ERR_STOPPED, "stopped");
        if (!nn_step(g->draft, team, 0, s->token + at, n, NN_NO_LOGITS, e)) return false;
        g->n_common = at += n;
    }
    g->n_common = s->n;
    return true;
}

/* What disturbs the clock makes it longer only. */
static void note_time(struct guesser *g, double t) {
    if (!(g->draft_s > 0)) g->draft_s = t;
    g->draft_s += (t < g->draft_s ? 0.5 : LEARN) * (t - g->draft_s);
}

/* The last few tokens one by one, to know how long that takes. */
MUST guesser_read(struct guesser *g, struct par *team, struct err *e) {
    const uint32_t n = g->spec.n, all_but = n > N_TIMED ? n - N_TIMED : 0;
    double t0 = clock_s();
    if (!g->draft || !has_room(g, 0)) return true;
    if (!read_on(g, team, all_but, e)) return false;
    for (uint32_t i = nn_pos(g->draft, 0); i < n; i++) {
        double t = clock_s();
        if (!nn_step(g->draft, team, 0, &g->spec.token[i], 1, NN_LOGITS, e)) return false;
        note_time(g, clock_s() - t);
    }
    spec_read(&g->spec, clock_s() - t0);
    return true;
}

/* Whether the text has come to what was drafted, or is on its way there; *ready guesses are then behind its
 * end. */
static bool follows(const struct guesser *g, uint32_t *ready) {
    const struct guesses *s = &g->spec;
    uint32_t i = 0, at = g->n_common;
    while (i < g->n_drafted && at < s->n && s->token[at] == g->drafted[i]) i++, at++;
    *ready = at == s->n ? g->n_drafted - i : 0;
    return at == s->n;
}

/* Only the last n guesses are guesses yet. */
static void forget_first(struct guesser *g, uint32_t n) {
    uint32_t n_gone = g->n_drafted - n;
    g->n_common += n_gone;
    g->n_drafted = n;
    memmove(g->drafted, g->drafted + n_gone, n * sizeof *g->drafted);
}

/* A piece of work on the next guess: the token before it is read by layers, then it is picked. */
static MUST draft_on(struct guesser *g, struct par *team, struct err *e) {
    uint32_t place = g->n_common + g->n_drafted;
    if (g->is_reading) {
        bool is_over = false;
        if (!nn_go_on(g->draft, team, &is_over, e)) return false;
        g->is_reading = !is_over;
    } else if (nn_pos(g->draft, 0) < place) {
        if (!nn_begin(g->draft, 0, &g->spec.token[place - 1], 1, NN_LOGITS, e)) return false;
        g->is_reading = true;
    } else {
        if (!draft_pick(g, place, &g->drafted[g->n_drafted], e)) return false;
        g->n_drafted++;
    }
    return true;
}

/* Guesses for this step; those that were made ahead are there. */
static MUST draft(struct guesser *g, struct par *team, uint32_t n, int32_t *out, struct err *e) {
    uint32_t ready;
    double t0 = clock_s();
    if (follows(g, &ready))
        forget_first(g, ready);
    else if (!read_on(g, team, g->spec.n - 1, e))
        return false;
    g->n_ahead += ready < n ? ready : n;
    nn_widen(g->draft, team, 1);
    while (g->n_drafted < n) {
        uint32_t had = g->n_drafted;
        bool is_whole = !g->is_reading && nn_pos(g->draft, 0) < g->n_common + had;
        double t = clock_s();
        while (g->n_drafted == had) {
            if (!draft_on(g, team, e)) return false;
        }
        if (is_whole) note_time(g, clock_s() - t);
    }
    memcpy(out, g->drafted, n * sizeof *out);
    spec_spent(&g->spec, clock_s() - t0);
    return true;
}

/* A guess behind those that are there may be of use. None is checked at the end of the answer. */
static bool has_use(const struct guesser *g) {
    uint32_t place = g->n_common + g->n_drafted;
    return g->n_drafted < g->n_guess + 1 + g->conf->n_guess && place < g->n_room &&
           place < g->spec.cap && place + 1 < g->req->n_prompt + g->req->n_predict &&
           spec_ahead(&g->spec, g->n_drafted);
}

bool guesser_goes_ahead(const struct guesser *g) {
    return g->goes_ahead;
}

MUST guesser_go_ahead(void *ctx, struct par *team, bool *did, struct err *e) {
    struct guesser *g = ctx;
    *did = g->goes_ahead && has_use(g);
    return !*did || draft_on(g, team, e);
}

/* How many guesses the small model shall make, where others gain so much. */
static uint32_t draft_worth(struct guesser *g, uint32_t most, double others) {
    double gain;
    if (!g->draft || !has_room(g, most)) return 0;
    uint32_t ready;
    bool has_read = follows(g, &ready);
    if (others > 1 &&
        (!spec_worth(&g->spec, most, FROM_DRAFT, g->draft_s, ready, &gain) || gain <= others)) {
        return 0;
    }
    /* The last token is read for the first guess. */
    uint32_t behind = has_read ? 0 : g->spec.n - 1 - n_read(g);
    return spec_draft(&g->spec, most, g->draft_s, ready, behind, NULL);
}

MUST guesser_guess(struct guesser *g, struct par *team, uint32_t most, int32_t *out, uint32_t *n,
                   struct err *e) {
    double gain = 1;
    enum spec_from from = FROM_TWO;
    judge(g, false);
    *n = spec_guess(&g->spec, most, out, &from);
    if (*n) (void)spec_worth(&g->spec, *n, from, 0, 0, &gain);
    /* Sure guesses need no second opinion; else the better of both. */
    uint32_t by_draft = from == FROM_MANY && *n ? 0 : draft_worth(g, most, gain);
    if (by_draft) {
        if (!draft(g, team, by_draft, out, e)) return false;
        *n = by_draft;
        g->n_handed += by_draft;
        from = FROM_DRAFT;
        g->spec.unchecked = -1;
    }
    g->goes_ahead = by_draft > 0;
    g->from = from;
    g->n_guess = *n;
    g->n_right = 0;
    g->is_open = *n > 0;
    for (uint32_t i = 0; i < *n; i++) g->guess[i] = out[i];
    return true;
}
