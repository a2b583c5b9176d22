#include "engine/spec.h"

#include <assert.h>
#include <string.h>

enum {
    MANY = 8,         // tokens of a match that is hardly ever by chance
    FIRST_PLAIN = 3,  // plain steps of which the fastest counts
    FIRST_TRUST = 4,  // steps that this is then believed for; the next makes it twice as many
    LAST_TRUST = 64,
    FIRST_BELIEF = 8,  // the same of a longer step, which may have been disturbed
    LAST_BELIEF = 256,
    FIRST_REST =
        32,  // tokens, after guesses of the small model that do not pay; then twice as many
    LAST_REST = 256,
    FEW = 4,  // guesses to see how it does
    SPEC_ALIGN = 64,
};

static const double UP = 0.2, MOST_UP = 1.5;  // of a cost that grows
static const double SUDDEN = 0.8;             // of a plain step's time: it was disturbed before
static const double LEARN = 0.1;              // weight of a new observation
static const double WORTH = 1.05;             // gain below which guessing does not pay
static const double FIRST_CHANCE[] = {0.3, 0.4, 0.6, 0.8, 0.7};  // by what it was guessed from
/* Of a guess made ahead to be of use: where the disk is fast, each makes the sweep longer by a seventh of what
 * it takes to make (measured at 3.4 GB/s beside two cores). */
static const double LEAST_CHANCE = 0.15;
static const double FIRST_CREDIT = 2, LEAST_CREDIT = -1, MOST_CREDIT = 8, EARNED = 0.01;  // steps
/* Of the small model's account: for the first tries; and for a text of which it knows nothing. */
static const double FIRST_ACCOUNT = 3, MOST_ACCOUNT = 32;
static const double LEAST_KEEP = 0.01, MOST_KEEP = 0.9;

static uint32_t slots_of(uint32_t cap) {
    uint32_t n = 64;
    while (n < cap + cap / 2 && n < 1U << 31) n *= 2;
    return n;
}

static size_t aligned(size_t n) {
    return (n + SPEC_ALIGN - 1) / SPEC_ALIGN * SPEC_ALIGN;
}

size_t spec_bytes(uint32_t cap) {
    return aligned(cap * sizeof(int32_t)) + 2 * aligned(slots_of(cap) * sizeof(uint32_t));
}

void spec_init(struct guesses *s, void *mem, uint32_t cap, uint32_t most, bool has_ngrams,
               double slope) {
    assert(most <= SPEC_MOST);
    uint8_t *at = mem;
    *s = (struct guesses){.has_ngrams = has_ngrams,
                          .most = most,
                          .cap = cap,
                          .mask = slots_of(cap) - 1,
                          .credit = FIRST_CREDIT,
                          .slope = slope};
    s->token = (int32_t *)(void *)at;
    at += aligned(cap * sizeof *s->token);
    s->pair = (uint32_t *)(void *)at;
    s->triple = (uint32_t *)(void *)(at + aligned((s->mask + 1UL) * sizeof *s->pair));
    for (int i = 0; i < N_SPEC_FROM; i++) s->right[i] = FIRST_CHANCE[i];
    spec_clear(s);
}

void spec_hire(struct guesses *s, double keep) {
    s->keep = keep < LEAST_KEEP ? LEAST_KEEP : keep > MOST_KEEP ? MOST_KEEP : keep;
    s->account = FIRST_ACCOUNT;
}

void spec_clear(struct guesses *s) {
    memset(s->pair, 0, (s->mask + 1UL) * sizeof *s->pair);
    memset(s->triple, 0, (s->mask + 1UL) * sizeof *s->triple);
    s->n = 0;
    s->unchecked = -1;
    s->rest = FIRST_REST;
    s->rested = 0;
    double *p = &s->right[FROM_DRAFT];
    if (*p < FIRST_CHANCE[FROM_DRAFT]) *p = FIRST_CHANCE[FROM_DRAFT];
}

/* --- what was right --- */

static enum spec_from by_length(uint32_t len) {
    return len >= MANY ? FROM_MANY : len > 3 ? FROM_SOME : len == 3 ? FROM_THREE : FROM_TWO;
}

/* What the guess behind n right ones goes by: they make the match longer. */
static enum spec_from after(enum spec_from from, uint32_t n) {
    static const uint32_t least[] = {[FROM_TWO] = 2, [FROM_THREE] = 3, [FROM_SOME] = 4};
    return from >= FROM_MANY ? from : by_length(least[from] + n);
}

static void see(struct guesses *s, enum spec_from from, bool is_right) {
    double *p = &s->right[from];
    *p += LEARN * (is_right - *p);
}

static void add_credit(struct guesses *s, double steps) {
    s->credit += steps;
    if (s->credit > MOST_CREDIT) s->credit = MOST_CREDIT;
    if (s->credit < LEAST_CREDIT) s->credit = LEAST_CREDIT;
}

static void lose(struct guesses *s, double seconds) {
    if (seconds > 0 && s->cost[1] > 0) add_credit(s, -seconds / s->cost[1]);
}

/* A step without the small model would take its keep less. Before the first one nobody knows what seconds
 * are worth. */
static void charge(struct guesses *s, double seconds) {
    double alone = s->cost[1] * (1 - s->keep);
    if (seconds > 0 && alone > 0) s->account -= seconds / alone;
}

void spec_learn(struct guesses *s, enum spec_from from, uint32_t n_checked, uint32_t n_right) {
    for (uint32_t i = 0; i < n_right; i++) see(s, after(from, i), true);
    if (n_right < n_checked) see(s, after(from, n_right), false);
    add_credit(s, n_right);
    if (from != FROM_DRAFT) return;
    s->account += n_right;
    if (s->account > MOST_ACCOUNT) s->account = MOST_ACCOUNT;
}

bool spec_pays(const struct guesses *s) {
    return s->account > 0;
}

/* --- the text --- */

/* The place in a table of the `len` tokens that end before `end`. */
static uint32_t *slot(const struct guesses *s, uint32_t end, uint32_t len) {
    uint64_t h = 0;
    for (uint32_t i = end - len; i < end; i++) {
        h = (h ^ (uint32_t)s->token[i]) * 0x9e3779b97f4a7c15;
        h ^= h >> 29;
    }
    return (len == 2 ? s->pair : s->triple) + ((uint32_t)(h >> 32) & s->mask);
}

void spec_push(struct guesses *s, int32_t id) {
    if (s->unchecked >= 0) see(s, s->unchecked_from, s->unchecked == id);
    s->unchecked = -1;
    s->rested++;
    if (s->n == s->cap) return;
    /* Known only now, when something follows it: a search for the end of the text finds older ones. */
    for (uint32_t len = 2; len <= 3 && len <= s->n; len++) *slot(s, s->n, len) = s->n;
    s->token[s->n++] = id;
}

/* How many tokens before `a` are those before the end of the text, up to MANY. */
static uint32_t match(const struct guesses *s, uint32_t a) {
    uint32_t n = 0;
    while (n < MANY && n < a && s->token[a - 1 - n] == s->token[s->n - 1 - n]) n++;
    return n;
}

uint32_t spec_look_up(const struct guesses *s, uint32_t most, int32_t *out, enum spec_from *from) {
    uint32_t at = 0, len = 0;
    if (!s->has_ngrams || s->n == s->cap) return 0;
    for (uint32_t by = 3; by >= 2 && len < by; by--) {
        if (s->n < by) continue;
        at = *slot(s, s->n, by);
        len = at ? match(s, at) : 0;
    }
    if (len < 2) return 0;
    *from = by_length(len);
    /* Where the earlier text meets the end, it goes on with its own guesses: a repetition. */
    for (uint32_t i = 0; i < most; i++) {
        out[i] = at + i < s->n ? s->token[at + i] : out[at + i - s->n];
    }
    return most;
}

/* --- what pays --- */

static bool knows(const struct guesses *s, uint32_t n) {
    return s->cost[n] > 0 && (n == 1 || s->n_step - s->seen[n] < s->belief[n]);
}

/* The known ones around n: *low <= n <= *high, which is past all when there is none above. */
static void around(const struct guesses *s, uint32_t n, uint32_t *low, uint32_t *high) {
    *low = *high = n;
    while (*low > 1 && !knows(s, *low)) --*low;
    while (*high <= SPEC_MOST + 1 && !knows(s, *high)) ++*high;
}

/* Between two that are known; or beyond them, where a further token costs so much. */
static double cost_by(const struct guesses *s, uint32_t n, double further) {
    uint32_t low, high;
    around(s, n, &low, &high);
    double c = s->cost[low];
    if (low == n) return c;
    if (high > SPEC_MOST + 1) return c + (n - low) * further;
    return c + (s->cost[high] - c) * (n - low) / (high - low);
}

/* Beyond the longest known step a token is thought to cost what it did up to there. */
static double cost_of(const struct guesses *s, uint32_t n) {
    uint32_t low = n;
    while (low > 1 && !knows(s, low)) low--;
    double further = low > 1 ? (s->cost[low] - s->cost[1]) / (low - 1) : s->slope * s->cost[1];
    return cost_by(s, n, further > 0 ? further : 0);
}

/* May k guesses be checked, and aside_s be spent on them? A token more is never dearer than a step. */
static bool affords(const struct guesses *s, uint32_t k, double aside_s) {
    double at_most = cost_by(s, k + 1, s->cost[1]);
    return at_most - s->cost[1] + aside_s <= s->credit * s->cost[1];
}

/* Without knowing what a plain step takes, find out; and again after a while. */
static bool knows_plain(const struct guesses *s) {
    return s->n_plain >= FIRST_PLAIN && s->n_step - s->seen[1] < s->trust;
}

/* What k guesses take besides their step. */
static double making(uint32_t k, double draft_s, uint32_t ready) {
    return k > ready ? (k - ready) * draft_s : 0;
}

uint32_t spec_worth(const struct guesses *s, uint32_t n, enum spec_from from, double draft_s,
                    uint32_t ready, double *gain) {
    double chain = 1, expect = 1, best = WORTH;
    uint32_t worth = 0;
    if (n > s->most) n = s->most;
    if (!knows_plain(s)) n = 0;
    for (uint32_t k = 1; k <= n && affords(s, k, making(k, draft_s, ready)); k++) {
        chain *= s->right[after(from, k - 1)];
        expect += chain;
        double g = expect * s->cost[1] / (cost_of(s, k + 1) + making(k, draft_s, ready));
        if (g > best) best = g, worth = k;
    }
    if (gain) *gain = worth ? best : 1;
    return worth;
}

uint32_t spec_guess(struct guesses *s, uint32_t most, int32_t *out, enum spec_from *from) {
    s->unchecked = -1;
    s->drafts = false;
    if (most > s->most) most = s->most;
    uint32_t n = most ? spec_look_up(s, most, out, from) : 0;
    uint32_t worth = n ? spec_worth(s, n, *from, 0, 0, NULL) : 0;
    if (n && !worth) {
        s->unchecked = out[0];
        s->unchecked_from = *from;
    }
    return worth;
}

uint32_t spec_draft(struct guesses *s, uint32_t most, double draft_s, uint32_t ready,
                    uint32_t behind, double *gain) {
    uint32_t n = spec_worth(s, most, FROM_DRAFT, draft_s, ready, gain);
    s->drafts = false;
    bool pays = n > 0, is_due = s->rest <= LAST_REST && s->rested >= s->rest && knows_plain(s);
    if (!pays && is_due) n = most < FEW ? most : FEW;
    /* What it has not read is read many at a time, which is faster than one by one. */
    while (n && !affords(s, n, making(n, draft_s, ready) + behind * draft_s)) n--;
    if (!n) return 0;
    s->rest = pays ? FIRST_REST : 2 * s->rest;
    s->rested = 0;
    s->drafts = true;
    return n;
}

bool spec_ahead(const struct guesses *s, uint32_t n) {
    double chance = 1;
    for (uint32_t i = 0; i < n; i++) chance *= s->right[FROM_DRAFT];
    return chance > LEAST_CHANCE;
}

/* Down by halves, up in small steps: what disturbs a step now and then makes it longer only. */
static double blend(const struct guesses *s, uint32_t n, double seconds) {
    double was = s->cost[n];
    if (n == 1 && s->n_plain <= FIRST_PLAIN) return seconds < was || !(was > 0) ? seconds : was;
    if (!knows(s, n)) return seconds;
    return seconds < was ? was + (seconds - was) / 2 : was + UP * (seconds - was);
}

/* All others are compared with a plain step: it must not have been measured in a bad moment. */
static void trust(struct guesses *s, double seconds) {
    if (s->n_plain && seconds < SUDDEN * s->cost[1]) s->n_plain = 0;
    s->n_plain++;
    if (s->n_plain <= FIRST_PLAIN) {
        s->trust = FIRST_TRUST;
    } else if (s->trust < LAST_TRUST) {
        s->trust *= 2;
    }
}

/* Without what cannot be the step's own: it takes no longer than its tokens one by one, nor much longer
 * than of late. */
static double plausible(const struct guesses *s, uint32_t n, double seconds) {
    double most = knows(s, n) ? MOST_UP * s->cost[n] : n * s->cost[1];
    return most > 0 && seconds > most ? most : seconds;
}

void spec_took(struct guesses *s, uint32_t n, double seconds) {
    if (n > SPEC_MOST + 1) return;
    s->n_step++;
    if (n == 1) trust(s, seconds);
    seconds = plausible(s, n, seconds);
    add_credit(s, EARNED);
    s->account -= s->keep / (1 - s->keep);
    if (n > 1) lose(s, seconds - s->cost[1]);
    if (n > 1 && s->drafts) charge(s, seconds - s->cost[1]);
    s->cost[n] = blend(s, n, seconds);
    s->seen[n] = s->n_step;
    s->belief[n] = s->belief[n] ? s->belief[n] * 2 : FIRST_BELIEF;
    if (s->belief[n] > LAST_BELIEF) s->belief[n] = LAST_BELIEF;
    /* A step of fewer tokens takes no longer. */
    for (uint32_t i = 1; i < n; i++) {
        if (s->cost[i] > s->cost[n]) s->cost[i] = s->cost[n];
    }
    for (uint32_t i = n + 1; i <= SPEC_MOST + 1; i++) {
        if (s->cost[i] > 0 && s->cost[i] < s->cost[n]) s->cost[i] = s->cost[n];
    }
}

void spec_spent(struct guesses *s, double seconds) {
    lose(s, seconds);
    charge(s, seconds);
}

void spec_read(struct guesses *s, double seconds) {
    charge(s, seconds);
}
