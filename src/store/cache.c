#include "store/cache.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { PLACE_ALIGN = 64, PLACES_LEAST = 2 };
/* How much more an account counts whose item is the very next. The places of what was passed just now serve
 * longest until it is its turn again; without this an even choice hits half a percent less often than its
 * share of places, on traces of routing 0 to 2. */
static const double NEARNESS = 3;
static const double WORTH_MOST = 1e200;

/* --- places --- */

static uint64_t mem_of(const struct tile *t) {
    return (t->mem + PLACE_ALIGN - 1) & ~(uint64_t)(PLACE_ALIGN - 1);
}

/* Sizes follow from types of weights and the ways in which a cut ends: far fewer than classes. */
static uint32_t class_of(struct cache_plan *p, uint64_t mem) {
    uint32_t k = 0;
    while (k < p->n_class && p->class[k].mem != mem) k++;
    assert(k < CACHE_CLASSES);
    if (k == p->n_class) p->class[p->n_class++] = (struct cache_class){.mem = mem};
    return k;
}

static uint64_t add_places(struct cache_class *c, uint64_t n, uint64_t left) {
    if (n > c->n_item - c->n_place) n = c->n_item - c->n_place;
    if (n > left / c->mem) n = left / c->mem;
    c->n_place += (uint32_t)n;
    return left - n * c->mem;
}

void cache_plan(struct cache_plan *p, const struct tile *tile, uint32_t n, uint64_t bytes) {
    uint64_t all = 0;
    *p = (struct cache_plan){0};
    for (uint32_t i = 0; i < n; i++) {
        struct cache_class *c = &p->class[class_of(p, mem_of(&tile[i]))];
        c->n_item++;
        c->len += tile[i].len;
        all += c->mem;
    }
    for (uint32_t k = 0; k < p->n_class; k++) {
        struct cache_class *c = &p->class[k];
        c->n_place = c->n_item < PLACES_LEAST ? c->n_item : PLACES_LEAST;
        p->least += c->n_place * c->mem;
    }
    uint64_t left = bytes > p->least ? bytes - p->least : 0;
    double part = all > p->least ? (double)left / (double)(all - p->least) : 0;
    for (uint32_t k = 0; k < p->n_class; k++) {
        struct cache_class *c = &p->class[k];
        left = add_places(c, (uint64_t)((c->n_item - c->n_place) * part), left);
    }
    for (uint32_t k = 0; k < p->n_class; k++) {
        struct cache_class *c = &p->class[k];
        left = add_places(c, c->n_item, left);
        c->first = p->n_place;
        p->n_place += c->n_place;
        p->mem += c->n_place * c->mem;
        p->missing += (uint64_t)((double)c->len * (1 - (double)c->n_place / c->n_item));
    }
}

/* The k-th item of a class has a place where the line from 0 to n_place makes a step. */
static void place_first(struct cache *c) {
    uint64_t seen[CACHE_CLASSES] = {0};
    for (uint32_t i = 0; i < c->n; i++) {
        struct cache_item *t = &c->item[i];
        const struct cache_class *k = &c->plan.class[t->class];
        assert(k->n_item > 0);  // this one is among them
        uint64_t at = seen[t->class]++;
        uint64_t before = at * k->n_place / k->n_item, after = (at + 1) * k->n_place / k->n_item;
        t->place = after > before ? k->first + (uint32_t)before : CACHE_NONE;
        if (after > before) c->held[t->place] = i;
    }
}

MUST cache_open(struct cache *c, const struct cache_plan *p, const struct tile *tile, uint32_t n,
                double half_life, struct err *e) {
    *c = (struct cache){.plan = *p, .n = n, .worth = 1, .growth = exp2(1 / half_life)};
    c->item = calloc(n, sizeof *c->item);
    c->held = calloc(p->n_place, sizeof *c->held);
    c->victims = calloc(p->n_class, sizeof *c->victims);
    if (!c->item || !c->held || !c->victims) {
        cache_close(c);
        return err_set(e, ERR_MEMORY, "the tables of %u tiles on demand: out of memory", n);
    }
    for (uint32_t i = 0; i < n; i++) {
        c->item[i].class = (uint16_t)class_of(&c->plan, mem_of(&tile[i]));
    }
    place_first(c);
    return true;
}

void cache_close(struct cache *c) {
    free(c->item);
    free(c->held);
    free(c->victims);
    *c = (struct cache){0};
}

/* --- who goes --- */

/* The account of an item that is here, raised the nearer its turn is. */
static double score_of(const struct cache *c, uint32_t i) {
    uint32_t ahead = i > c->now ? i - c->now : c->n - c->now + i;  // 1..n
    double near = 1 - (double)ahead / (double)c->n;
    return (c->item[i].score + c->worth * 1e-6) * (1 + NEARNESS * near);
}

static bool may_go(const struct cache *c, uint32_t place) {
    const struct cache_item *t = &c->item[c->held[place]];
    return !t->in_use && !t->turn && !t->is_guess;
}

/* The lowest accounts of a class. */
static void find_victims(const struct cache *c, uint32_t class) {
    const struct cache_class *k = &c->plan.class[class];
    struct cache_victims *v = &c->victims[class];
    v->n = 0;
    for (uint32_t p = k->first; p < k->first + k->n_place; p++) {
        if (!may_go(c, p)) continue;
        double score = score_of(c, c->held[p]);
        if (v->n == CACHE_VICTIMS && score >= v->score[0]) continue;
        if (v->n == CACHE_VICTIMS) {  // the highest falls out
            v->n--;
            memmove(v->score, v->score + 1, v->n * sizeof *v->score);
            memmove(v->place, v->place + 1, v->n * sizeof *v->place);
        }
        uint32_t at = v->n++;
        for (; at > 0 && v->score[at - 1] < score; at--) {
            v->score[at] = v->score[at - 1];
            v->place[at] = v->place[at - 1];
        }
        v->score[at] = score;
        v->place[at] = p;
    }
}

/* When all that is not in use is on the list or a guess, which may have come late: the guess, or what comes last
 * on the list. */
static uint32_t last_of_list(const struct cache *c, uint32_t class) {
    const struct cache_class *k = &c->plan.class[class];
    uint32_t best = CACHE_NONE, turn = 0;
    for (uint32_t p = k->first; p < k->first + k->n_place; p++) {
        const struct cache_item *t = &c->item[c->held[p]];
        uint32_t at = t->is_guess ? UINT32_MAX : t->turn;
        if (!t->in_use && at > turn) best = p, turn = at;
    }
    return best;
}

static uint32_t find_victim(struct cache *c, uint32_t class) {
    struct cache_victims *v = &c->victims[class];
    for (int look = 0; look < 2; look++) {
        while (v->n > 0) {
            uint32_t p = v->place[--v->n];
            if (may_go(c, p)) return p;
        }
        if (!look) find_victims(c, class);
    }
    return CACHE_NONE;
}

/* Whoever was at place p has left it already if it was forgotten. */
static void move_in(struct cache *c, uint32_t i, uint32_t p) {
    struct cache_item *before = &c->item[c->held[p]];
    if (before->place == p) {
        before->place = CACHE_NONE;
        before->is_guess = before->is_ahead = false;
    }
    c->held[p] = i;
    c->item[i].place = p;
}

/* --- use --- */

/* But those that are still being read. */
static void drop_guesses(struct cache *c) {
    uint32_t n = 0;
    for (uint32_t k = 0; k < c->n_guess; k++) {
        struct cache_item *t = &c->item[c->guess[k]];
        if (t->in_use && t->is_guess)
            c->guess[n++] = c->guess[k];
        else
            t->is_guess = false;
    }
    c->n_guess = n;
}

void cache_next(struct cache *c, const uint32_t *item, uint32_t n) {
    drop_guesses(c);
    c->now = 0;
    for (uint32_t i = 0; i < n; i++) {
        c->item[item[i]].turn = i + 1;
        if (item[i] > c->now) c->now = item[i];
    }
    for (uint32_t k = 0; k < c->plan.n_class; k++) c->victims[k].n = 0;
}

static void count_use(struct cache *c, struct cache_item *t) {
    t->score += c->worth;
    c->worth *= c->growth;
    if (c->worth < WORTH_MOST) return;
    for (uint32_t i = 0; i < c->n; i++) c->item[i].score /= WORTH_MOST;
    c->worth /= WORTH_MOST;
}

enum cache_found cache_use(struct cache *c, uint32_t i) {
    struct cache_item *t = &c->item[i];
    enum cache_found found = t->in_use ? CACHE_COMING : CACHE_HIT;
    assert(!t->in_use || t->is_guess);
    if (t->place == CACHE_NONE) {
        uint32_t p = find_victim(c, t->class);
        if (p == CACHE_NONE) p = last_of_list(c, t->class);
        if (p == CACHE_NONE) return CACHE_FULL;
        move_in(c, i, p);
        found = CACHE_MISS;
    }
    count_use(c, t);
    t->turn = 0;
    t->in_use = true;
    t->is_guess = t->is_ahead = false;
    return found;
}

void cache_let_go(struct cache *c, uint32_t i) {
    assert(c->item[i].in_use);
    c->item[i].in_use = false;
}

/* --- guesses --- */

enum cache_found cache_guess(struct cache *c, uint32_t i) {
    struct cache_item *t = &c->item[i];
    enum cache_found found = CACHE_HIT;
    if (t->in_use || t->is_guess) return CACHE_HIT;
    if (c->n_guess == CACHE_GUESSES) return CACHE_FULL;
    if (t->place == CACHE_NONE) {
        uint32_t p = find_victim(c, t->class);
        if (p == CACHE_NONE) return CACHE_FULL;
        move_in(c, i, p);
        t->in_use = t->is_ahead = true;
        found = CACHE_MISS;
    }
    t->is_guess = true;
    c->guess[c->n_guess++] = i;
    return found;
}

bool cache_arrived(struct cache *c, uint32_t i) {
    struct cache_item *t = &c->item[i];
    assert(t->in_use);
    if (t->is_guess) t->in_use = false;
    return t->in_use;
}

void cache_forget(struct cache *c, uint32_t i) {
    struct cache_item *t = &c->item[i];
    assert(!t->in_use);
    t->place = CACHE_NONE;
    t->is_guess = t->is_ahead = false;
}
