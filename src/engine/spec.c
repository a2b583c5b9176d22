#include "engine/spec.h"

#include <assert.h>
#include <string.h>

enum {
    MANY = 8,     // tokens of a match that is hardly ever by chance
    STALE = 256,  // steps after which a measured cost is not believed any more
    SPEC_ALIGN = 64,
};

static const double UP = 0.2, MOST_UP = 1.5;  // of a cost that grows
static const double LEARN = 0.1;              // weight of a new observation
static const double WORTH = 1.05;             // gain below which guessing does not pay
static const double FIRST_CHANCE = 0.5;

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
                          .slope = slope};
    s->token = (int32_t *)(void *)at;
    at += aligned(cap * sizeof *s->token);
    s->pair = (uint32_t *)(void *)at;
    s->triple = (uint32_t *)(void *)(at + aligned((s->mask + 1UL) * sizeof *s->pair));
    for (int i = 0; i < N_SPEC_FROM; i++) s->right[i] = FIRST_CHANCE;
    spec_clear(s);
}

void spec_clear(struct guesses *s) {
    memset(s->pair, 0, (s->mask + 1UL) * sizeof *s->pair);
    memset(s->triple, 0, (s->mask + 1UL) * sizeof *s->triple);
    s->n = 0;
    s->unchecked = -1;
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
    if (s->unchecked >= 0) spec_learn(s, s->unchecked_from, 1, s->unchecked == id);
    s->unchecked = -1;
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
    *from = len >= MANY ? FROM_MANY : len > 3 ? FROM_SOME : len == 3 ? FROM_THREE : FROM_TWO;
    /* Where the earlier text meets the end, it goes on with its own guesses: a repetition. */
    for (uint32_t i = 0; i < most; i++) {
        out[i] = at + i < s->n ? s->token[at + i] : out[at + i - s->n];
    }
    return most;
}

/* --- what pays --- */

static bool knows(const struct guesses *s, uint32_t n) {
    return s->cost[n] > 0 && (n == 1 || s->n_step - s->seen[n] < STALE);
}

/* Between two that are known, or beyond them by the slope. */
static double cost_of(const struct guesses *s, uint32_t n) {
    uint32_t low = n, high = n;
    while (low > 1 && !knows(s, low)) low--;
    while (high <= SPEC_MOST && !knows(s, high)) high++;
    double c = s->cost[low];
    if (low == n) return c;
    if (high > SPEC_MOST + 1 || !knows(s, high)) return c + (n - low) * s->slope * s->cost[1];
    return c + (s->cost[high] - c) * (n - low) / (high - low);
}

uint32_t spec_worth(const struct guesses *s, uint32_t n, enum spec_from from, double draft_s,
                    double *gain) {
    double chain = 1, expect = 1, best = WORTH;
    uint32_t worth = 0;
    /* Without knowing what a plain step takes, find out; and again after a while. */
    bool is_known = s->cost[1] > 0 && s->n_step - s->seen[1] < STALE;
    for (uint32_t k = 1; is_known && k <= n && k <= s->most; k++) {
        chain *= s->right[from];
        expect += chain;
        double g = expect * s->cost[1] / (cost_of(s, k + 1) + k * draft_s);
        if (g > best) best = g, worth = k;
    }
    if (gain) *gain = worth ? best : 1;
    return worth;
}

uint32_t spec_guess(struct guesses *s, uint32_t most, int32_t *out, enum spec_from *from) {
    s->unchecked = -1;
    if (most > s->most) most = s->most;
    uint32_t n = most ? spec_look_up(s, most, out, from) : 0;
    uint32_t worth = n ? spec_worth(s, n, *from, 0, NULL) : 0;
    if (n && !worth) {
        s->unchecked = out[0];
        s->unchecked_from = *from;
    }
    return worth;
}

void spec_learn(struct guesses *s, enum spec_from from, uint32_t n_checked, uint32_t n_right) {
    double *p = &s->right[from];
    for (uint32_t i = 0; i < n_right; i++) *p += LEARN * (1 - *p);
    if (n_right < n_checked) *p -= LEARN * *p;
}

/* Down by halves, up in small steps: what disturbs a step now and then makes it longer only. */
void spec_took(struct guesses *s, uint32_t n, double seconds) {
    if (n > SPEC_MOST + 1) return;
    s->n_step++;
    if (s->cost[1] > 0) {
        double was = cost_of(s, n);
        seconds = seconds < was ? was + (seconds - was) / 2 : was + UP * (seconds - was);
        if (seconds > MOST_UP * was) seconds = MOST_UP * was;
    }
    s->cost[n] = seconds;
    s->seen[n] = s->n_step;
}
