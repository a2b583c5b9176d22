/* members_past.c - what is remembered of nodes: since when they work, when they were lost, how long
 * they stay out. Waiting times double with each offence and are forgotten after a minute of serving. */
#include "cluster/members_own.h"

enum {
    FLAP_MS = 10000,         // lost within this time of joining: it flaps
    FLAP_FIRST_MS = 1000,    // left out first for so long,
    BREAK_FIRST_MS = 10000,  // after two breaks of its channels for so long,
    OUT_MAX_MS = 60000,      // at most for so long; also the good time that makes up for all
    RESTART_OUT_MS =
        2000,              // at most, for a node that was started anew: that may have been the cure
    BLAME_MS = 20000,      // breaks within this time belong together
    BLAME_DEAD_MS = 1500,  // who is gone so soon after was not cut off but dead
    MISSING_MS = 600000,   // so long a lost member counts as missing
};

const struct past *past_find(const struct members *m, const struct node_id *id) {
    for (unsigned i = 0; i < PAST_MAX; i++) {
        if (m->past[i].used_ns && is_same(&m->past[i].id, id)) return &m->past[i];
    }
    return NULL;
}

/* The least recently used makes room, one that works with us last of all. */
struct past *past_of(struct members *m, const struct node_id *id, uint64_t now) {
    struct past *oldest = NULL;
    for (unsigned i = 0; i < PAST_MAX; i++) {
        struct past *p = &m->past[i];
        if (p->used_ns && is_same(&p->id, id)) {
            p->used_ns = now;
            return p;
        }
        if (!oldest || p->is_in < oldest->is_in ||
            (p->is_in == oldest->is_in && p->used_ns < oldest->used_ns)) {
            oldest = p;
        }
    }
    *oldest = (struct past){.id = *id, .used_ns = now};
    return oldest;
}

void past_in(struct members *m, const struct node_id *id, uint64_t now) {
    struct past *p = past_of(m, id, now);
    if (!p->is_in) p->joined_ns = now;
    p->is_in = true;
    p->lost_ns = 0;
}

/* Good time counts from here on. */
static void note_good(struct past *p, uint64_t now) {
    if (p->served_ns) {
        p->good_ns += now - p->served_ns;
        p->served_ns = now;
    }
    if (p->good_ns > OUT_MAX_MS * MS) p->flap_ns = p->break_ns = 0;
}

void past_serves(struct members *m, bool is_on) {
    for (unsigned i = 0; i < m->plan.n_node; i++) {
        const struct node_id *id = &m->plan.node[i];
        if (is_same(id, &m->conf.self)) continue;
        struct past *p = past_of(m, id, m->now_ns);
        note_good(p, m->now_ns);
        p->served_ns = is_on ? m->now_ns : 0;
    }
}

void past_up(struct members *m, const struct node_id *id, uint64_t instance, uint64_t now) {
    struct past *p = past_of(m, id, now);
    if (p->instance && p->instance != instance && p->out_until_ns > now + RESTART_OUT_MS * MS) {
        p->out_until_ns = now + RESTART_OUT_MS * MS;
    }
    p->instance = instance;
}

/* The next penalty of a kind, served from now on. */
static void put_out(struct past *p, uint64_t *last, uint64_t first_ms, uint64_t now) {
    note_good(p, now);
    p->good_ns = 0;
    uint64_t ns = *last ? 2 * *last : first_ms * MS;
    *last = ns < OUT_MAX_MS * MS ? ns : OUT_MAX_MS * MS;
    if (now + *last > p->out_until_ns) p->out_until_ns = now + *last;
}

static bool is_of(const struct report *r, const struct node_id *id) {
    return is_same(&r->a, id) || is_same(&r->b, id);
}

void past_lost(struct members *m, const struct node_id *id, uint64_t now) {
    struct past *p = past_of(m, id, now);
    /* It died: that, and no bad channel, is what the others saw. */
    unsigned n = m->n_report < REPORT_MAX ? m->n_report : REPORT_MAX;
    for (unsigned i = 0; i < n; i++) {
        if (is_of(&m->report[i], id)) m->report[i].at_ns = 0;
    }
    if (p->break_ns && now - p->blamed_ns < BLAME_DEAD_MS * MS) p->out_until_ns = p->break_ns = 0;
    if (!p->is_in) return;
    if (now - p->joined_ns < FLAP_MS * MS) put_out(p, &p->flap_ns, FLAP_FIRST_MS, now);
    p->is_in = false;
    p->lost_ns = now;
}

/* Left out of a plan, but alive: whatever the reason, it did not come and go. */
void past_out(struct members *m, const struct node_id *id, uint64_t now) {
    struct past *p = past_of(m, id, now);
    if (!p->is_in) return;
    p->is_in = false;
    p->lost_ns = now;
}

void past_left(struct members *m, const struct node_id *id, uint64_t now) {
    struct past *p = past_of(m, id, now);
    p->is_in = false;
    p->lost_ns = 0;
}

void past_punish(struct members *m, const struct node_id *id, uint64_t now) {
    struct past *p = past_of(m, id, now);
    put_out(p, &p->break_ns, BREAK_FIRST_MS, now);
    p->blamed_ns = now;
}

/* The same two again: the one with the higher id goes. One node in three breaks: that one goes. The
 * leader, who tells all this, stays, whatever others say of it. */
const struct node_id *past_blame(struct members *m, const struct node_id *a,
                                 const struct node_id *b, uint64_t now) {
    const struct node_id *low = ident_cmp(a, b) < 0 ? a : b, *high = low == a ? b : a;
    unsigned pair = 1, of_low = 1, of_high = 1, n = m->n_report;
    for (unsigned i = n > REPORT_MAX ? n - REPORT_MAX : 0; i < n; i++) {
        const struct report *r = &m->report[i % REPORT_MAX];
        if (!r->at_ns || now - r->at_ns > BLAME_MS * MS) continue;
        bool has_low = is_of(r, low), has_high = is_of(r, high);
        if (is_same(&r->a, low) && is_same(&r->b, high)) pair++;
        of_low += has_low;
        of_high += has_high;
    }
    m->report[m->n_report++ % REPORT_MAX] = (struct report){*low, *high, now};
    const struct node_id *self = &m->conf.self;
    if (pair >= 2) return is_same(high, self) ? low : high;
    if (of_high >= 3 && !is_same(high, self)) return high;
    if (of_low >= 3 && !is_same(low, self)) return low;
    return NULL;
}

bool past_missing(const struct members *m, uint64_t now) {
    for (unsigned i = 0; i < PAST_MAX; i++) {
        const struct past *p = &m->past[i];
        if (p->used_ns && !p->is_in && p->lost_ns && now - p->lost_ns < MISSING_MS * MS) {
            return true;
        }
    }
    return false;
}
