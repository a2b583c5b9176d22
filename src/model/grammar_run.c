/* grammar_run.c - where a text stands in a grammar.
 *
 * A place is a state of the automaton and a stack of places to return to; stacks are lists of cells, each
 * distinct one made once, so that a place is 64 bits. A set of places (only such as wait for a byte) is a
 * mode; modes are found again by their places, and steps between them are kept by class of byte: the
 * automaton is made deterministic as far as texts go, as regular expression matchers do. When the room
 * for any of it is full, all is forgotten but the mode that the text stands in: slower, never wrong. */
#include "model/grammar_own.h"

#include <stdlib.h>
#include <string.h>

enum {
    MODES = 2048,
    STEPS = 1 << 17,  // modes times classes, at most
    PLACES = 1 << 15,
    CELLS = 1 << 13,
    SEEN = 1 << 14,  // slots for the places that one step comes through
    SEEN_MOST = SEEN / 2,
    NAMED = 1 << 15,      // ids in all lists that are kept
    LIST_MOST = 1 << 12,  // ids of a list that is kept
    DEAD = 0              // no mode
};

static const uint32_t FULL = UINT32_MAX - 1, UNKNOWN = UINT32_MAX, NO_LIST = UINT32_MAX;

#define PLACE(state, stack) ((uint64_t)(state) << 32 | (stack))

struct cell {
    uint32_t back, below;  // state to return to, then the rest of the stack
    uint32_t depth, link;
};

struct mode {
    uint32_t at, n;  // its places
    uint32_t hash, link;
    uint32_t list, n_list;   // of what may come next; list NO_LIST: not known
    bool is_whole, is_long;  // is_long: more than LIST_MOST tokens
};

struct grammar_run {
    const struct grammar *g;
    const struct lexicon *lex;
    uint32_t here;     // the mode of the text so far
    size_t n_id;       // tokens of it
    uint64_t id_hash;  // and which
    uint64_t n_look;   // tokens of the vocabulary come by

    uint32_t n_mode, most_mode;
    struct mode mode[MODES];
    uint32_t bucket[MODES];
    uint32_t *step;  // [most_mode][n_class] mode, or UNKNOWN
    uint32_t n_place;
    uint64_t place[PLACES];
    uint32_t n_cell;  // from 1; 0 is the empty stack
    struct cell cell[CELLS];
    uint32_t cell_bucket[CELLS];
    uint32_t n_named;
    int32_t named[NAMED];

    /* one step */
    uint64_t work[SEEN];
    uint64_t seen[SEEN];
    uint32_t stamp[SEEN], now;
    uint32_t n_work, n_seen;
    uint64_t next[GRAMMAR_WAYS];  // places that wait for a byte
    uint32_t n_next;
    bool is_whole, is_full, has_many;
    uint32_t move[CELLS];

    uint32_t path[DETOK_MAX + 1];  // modes after each byte of the token that is looked at
};

static uint32_t mix(uint64_t x) {
    x ^= x >> 32;
    x *= 0x9e3779b97f4a7c15;
    return (uint32_t)(x >> 32);
}

/* --- stacks --- */

static uint32_t *cell_slot(struct grammar_run *r, uint32_t back, uint32_t below) {
    return &r->cell_bucket[mix(PLACE(back, below)) & (CELLS - 1)];
}

/* UINT32_MAX: too deep, or no room (is_full). */
static uint32_t push(struct grammar_run *r, uint32_t back, uint32_t below) {
    uint32_t depth = below ? r->cell[below].depth + 1 : 1, *slot = cell_slot(r, back, below);
    if (depth > GRAMMAR_DEPTH) return UINT32_MAX;
    for (uint32_t i = *slot; i; i = r->cell[i].link) {
        if (r->cell[i].back == back && r->cell[i].below == below) return i;
    }
    if (r->n_cell == CELLS) {
        r->is_full = true;
        return UINT32_MAX;
    }
    r->cell[r->n_cell] = (struct cell){back, below, depth, *slot};
    *slot = r->n_cell;
    return r->n_cell++;
}

/* --- one step --- */

static void visit(struct grammar_run *r, uint32_t state, uint32_t stack) {
    uint64_t p = PLACE(state, stack);
    uint32_t i = mix(p) & (SEEN - 1);
    for (; r->stamp[i] == r->now; i = (i + 1) & (SEEN - 1)) {
        if (r->seen[i] == p) return;
    }
    if (r->n_seen == SEEN_MOST) {
        r->has_many = true;
        return;
    }
    r->n_seen++;
    r->stamp[i] = r->now;
    r->seen[i] = p;
    r->work[r->n_work++] = p;
}

/* Follow forks, calls and returns from a place to all that wait for a byte. */
static void settle(struct grammar_run *r, uint32_t first, uint32_t first_stack) {
    visit(r, first, first_stack);
    while (r->n_work) {
        uint64_t p = r->work[--r->n_work];
        uint32_t stack = (uint32_t)p, below;
        const struct gstate *s = &r->g->state[p >> 32];
        switch ((enum gstate_kind)s->kind) {
        case GSTATE_FAIL: break;
        case GSTATE_RETURN:
            if (stack) visit(r, r->cell[stack].back, r->cell[stack].below);
            if (!stack) r->is_whole = true;
            break;
        case GSTATE_BYTE:
            if (r->n_next < GRAMMAR_WAYS) {
                r->next[r->n_next++] = p;
            } else {
                r->has_many = true;
            }
            break;
        case GSTATE_SPLIT:
            visit(r, s->a, stack);
            visit(r, s->b, stack);
            break;
        case GSTATE_CALL:
            below = push(r, s->b, stack);
            if (below != UINT32_MAX) visit(r, r->g->entry[s->a], below);
            break;
        case GSTATE_TAIL: visit(r, r->g->entry[s->a], stack); break;
        }
    }
}

static void start_step(struct grammar_run *r) {
    if (++r->now == 0) {
        memset(r->stamp, 0, sizeof r->stamp);
        r->now = 1;
    }
    r->n_work = r->n_seen = r->n_next = 0;
    r->is_whole = r->is_full = r->has_many = false;
}

static void sort_places(uint64_t *p, uint32_t n) {
    uint32_t gap = 1;
    while (gap < n / 3) gap = 3 * gap + 1;
    for (; gap; gap /= 3) {
        for (uint32_t i = gap; i < n; i++) {
            uint64_t item = p[i];
            uint32_t k = i;
            for (; k >= gap && p[k - gap] > item; k -= gap) p[k] = p[k - gap];
            p[k] = item;
        }
    }
}

/* --- modes --- */

static uint32_t hash_places(const uint64_t *p, uint32_t n, bool is_whole) {
    uint64_t h = is_whole;
    for (uint32_t i = 0; i < n; i++) h = (h ^ p[i]) * 0x100000001b3 + (h >> 40);
    return mix(h);
}

static uint32_t make_mode(struct grammar_run *r, const uint64_t *p, uint32_t n, bool is_whole,
                          uint32_t hash) {
    if (r->n_mode == r->most_mode || n > PLACES - r->n_place) return FULL;
    struct mode *m = &r->mode[r->n_mode];
    uint32_t *slot = &r->bucket[hash & (MODES - 1)];
    *m = (struct mode){.at = r->n_place,
                       .n = n,
                       .hash = hash,
                       .link = *slot,
                       .list = NO_LIST,
                       .is_whole = is_whole};
    memmove(r->place + r->n_place, p, n * sizeof *p);
    r->n_place += n;
    uint32_t *step = r->step + (size_t)r->n_mode * r->g->n_class;
    for (uint32_t i = 0; i < r->g->n_class; i++) step[i] = UNKNOWN;
    *slot = r->n_mode;
    return r->n_mode++;
}

/* The mode of the step just made, DEAD, or FULL. */
static uint32_t end_step(struct grammar_run *r) {
    if (r->has_many) return DEAD;
    if (r->is_full) return FULL;
    if (!r->n_next && !r->is_whole) return DEAD;
    sort_places(r->next, r->n_next);
    uint32_t h = hash_places(r->next, r->n_next, r->is_whole);
    for (uint32_t i = r->bucket[h & (MODES - 1)]; i; i = r->mode[i].link) {
        const struct mode *m = &r->mode[i];
        if (m->hash == h && m->n == r->n_next && m->is_whole == r->is_whole &&
            !memcmp(r->place + m->at, r->next, m->n * sizeof *r->next)) {
            return i;
        }
    }
    return make_mode(r, r->next, r->n_next, r->is_whole, h);
}

static uint32_t make_step(struct grammar_run *r, uint32_t from, uint8_t byte) {
    const struct mode *m = &r->mode[from];
    start_step(r);
    for (uint32_t i = 0; i < m->n && !r->has_many; i++) {
        uint64_t p = r->place[m->at + i];
        const struct gstate *s = &r->g->state[p >> 32];
        if (byte >= s->from && byte <= s->to) settle(r, s->a, (uint32_t)p);
    }
    return end_step(r);
}

/* Where a byte leads: a mode, DEAD, or FULL, which is not kept. */
static uint32_t step(struct grammar_run *r, uint32_t from, uint8_t byte) {
    uint32_t *known = &r->step[(size_t)from * r->g->n_class + r->g->class_of[byte]];
    if (*known != UNKNOWN) return *known;
    uint32_t to = make_step(r, from, byte);
    if (to != FULL) *known = to;
    return to;
}

static void forget(struct grammar_run *r) {
    memset(r->bucket, 0, sizeof r->bucket);
    r->n_mode = 1;
    r->n_place = 0;
    r->n_named = 0;
}

/* Keep what the stacks of the places [n] are made of. A cell lies below those made of it, so one pass
 * moves them all. */
static void keep_cells(struct grammar_run *r, uint64_t *p, uint32_t n) {
    memset(r->move, 0, sizeof r->move);
    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t s = (uint32_t)p[i]; s && !r->move[s]; s = r->cell[s].below) r->move[s] = 1;
    }
    uint32_t n_cell = r->n_cell;
    memset(r->cell_bucket, 0, sizeof r->cell_bucket);
    r->n_cell = 1;
    for (uint32_t s = 1; s < n_cell; s++) {
        struct cell c = r->cell[s];
        if (r->move[s]) r->move[s] = push(r, c.back, c.below ? r->move[c.below] : 0);
    }
    for (uint32_t i = 0; i < n; i++) {
        uint32_t s = (uint32_t)p[i];
        p[i] = PLACE(p[i] >> 32, s ? r->move[s] : 0);
    }
}

/* All but the mode of the text. */
static void make_room(struct grammar_run *r) {
    struct mode m = r->mode[r->here];
    uint64_t *p = r->place;
    memmove(p, r->place + m.at, m.n * sizeof *p);
    keep_cells(r, p, m.n);
    sort_places(p, m.n);
    forget(r);
    r->here = make_mode(r, p, m.n, m.is_whole, hash_places(p, m.n, m.is_whole));
}

/* --- opening --- */

static void start(struct grammar_run *r) {
    forget(r);
    memset(r->cell_bucket, 0, sizeof r->cell_bucket);
    r->n_cell = 1;
    r->n_id = 0;
    r->id_hash = 0;
    start_step(r);
    settle(r, r->g->entry[0], 0);
    r->here = end_step(r);
    if (r->here == FULL) r->here = DEAD;
}

static uint32_t modes_for(const struct grammar *g) {
    uint32_t n = STEPS / g->n_class;
    return n > MODES ? MODES : n;
}

size_t grammar_run_bytes(const struct grammar *g) {
    return sizeof(struct grammar_run) + (size_t)modes_for(g) * g->n_class * sizeof(uint32_t);
}

MUST grammar_run_open(struct grammar_run **out, const struct grammar *g, const struct lexicon *l,
                      struct err *e) {
    struct grammar_run *r = calloc(1, grammar_run_bytes(g));
    *out = r;
    if (!r) return err_set(e, ERR_MEMORY, "no memory to follow a grammar");
    r->g = g;
    r->lex = l;
    r->step = (uint32_t *)(void *)(r + 1);
    r->most_mode = modes_for(g);
    start(r);
    if (r->here != DEAD) return true;
    grammar_run_close(r);
    *out = NULL;
    return err_set(
        e, ERR_LIMIT,
        "the grammar's first character is inside of more than %d rules, or can be read in "
        "more than %d ways",
        GRAMMAR_DEPTH, GRAMMAR_WAYS);
}

void grammar_run_close(struct grammar_run *r) {
    free(r);
}

/* --- texts --- */

/* Where s [len] leads from the mode of the text: a mode, or DEAD. Makes room at most once: what does not
 * fit beside nothing else is refused, so that the answer does not depend on what was looked at before. */
static uint32_t read_text(struct grammar_run *r, const char *s, size_t len) {
    for (int attempt = 0; attempt < 2; attempt++) {
        uint32_t at = r->here;
        for (size_t i = 0; i < len && at != DEAD && at != FULL; i++) {
            at = step(r, at, (uint8_t)s[i]);
        }
        if (at != FULL) return at;
        make_room(r);
    }
    return DEAD;
}

static uint64_t hash_id(uint64_t h, int32_t id) {
    return (h ^ (uint32_t)id) * 0x9e3779b97f4a7c15 + (h >> 29);
}

static uint64_t hash_ids(const int32_t *id, size_t n) {
    uint64_t h = 0;
    for (size_t i = 0; i < n; i++) h = hash_id(h, id[i]);
    return h;
}

MUST grammar_run_sync(struct grammar_run *r, const int32_t *id, size_t n, struct err *e) {
    if (n < r->n_id || hash_ids(id, r->n_id) != r->id_hash) start(r);
    for (; r->n_id < n; r->n_id++) {
        const char *piece;
        size_t len = tok_piece(r->lex->tok, id[r->n_id], false, &piece);
        uint32_t to = read_text(r, piece, len);
        if (to == DEAD) {
            return err_set(e, ERR_FORMAT, "token %zu of the answer is not what the grammar allows",
                           r->n_id + 1);
        }
        r->here = to;
        r->id_hash = hash_id(r->id_hash, id[r->n_id]);
    }
    return true;
}

uint64_t grammar_looks(const struct grammar_run *r) {
    return r->n_look;
}

bool grammar_is_whole(const struct grammar_run *r) {
    return r->here != DEAD && r->mode[r->here].is_whole;
}

bool grammar_allows(struct grammar_run *r, int32_t id) {
    const char *piece;
    if (id < 0 || (uint32_t)id >= tok_count(r->lex->tok)) return false;
    r->n_look++;
    if (tok_is_end(r->lex->tok, id)) return grammar_is_whole(r);
    size_t len = tok_piece(r->lex->tok, id, false, &piece);
    return len && r->here != DEAD && read_text(r, piece, len) != DEAD;
}

/* --- the whole vocabulary --- */

/* Room is made in the midst of a token whose first `at` bytes are s: the modes of its path anew. */
static bool renew_path(struct grammar_run *r, const uint8_t *s, uint32_t at) {
    make_room(r);
    r->path[0] = r->here;
    for (uint32_t i = 0; i < at; i++) {
        r->path[i + 1] = step(r, r->path[i], s[i]);
        if (r->path[i + 1] == FULL) return false;
    }
    return true;
}

/* How many bytes of token i the grammar takes: all, or those before the first that it refuses. */
static uint32_t walk_token(struct grammar_run *r, uint32_t i) {
    const struct lexicon *l = r->lex;
    uint32_t k = l->shared[i], len = l->len[i];
    const uint8_t *rest = l->rest + l->start[i] - k;
    bool is_renewed = false;
    while (k < len) {
        uint32_t to = step(r, r->path[k], rest[k]);
        if (to == FULL) {
            const char *piece;
            tok_piece(l->tok, l->id[i], false, &piece);
            if (is_renewed || !renew_path(r, (const uint8_t *)piece, k)) return k;
            is_renewed = true;
            continue;
        }
        if (to == DEAD) return k;
        r->path[++k] = to;
    }
    return k;
}

static size_t walk(struct grammar_run *r, int32_t *id, size_t cap) {
    const struct lexicon *l = r->lex;
    size_t n = 0;
    r->path[0] = r->here;
    for (uint32_t i = 0; i < l->n;) {
        uint32_t k = walk_token(r, i);
        r->n_look++;
        if (k == l->len[i]) {
            if (n == cap) return cap + 1;
            id[n++] = l->id[i++];
            continue;
        }
        for (i++; i < l->n && l->shared[i] > k; i = l->next[i]) r->n_look++;
    }
    return n;
}

static void sort_ids(int32_t *id, size_t n) {
    size_t gap = 1;
    while (gap < n / 3) gap = 3 * gap + 1;
    for (; gap; gap /= 3) {
        for (size_t i = gap; i < n; i++) {
            int32_t item = id[i];
            size_t k = i;
            for (; k >= gap && id[k - gap] > item; k -= gap) id[k] = id[k - gap];
            id[k] = item;
        }
    }
}

/* The lists of all modes share a room; when it is full they are all made again when needed. */
static void keep_list(struct grammar_run *r, const int32_t *id, size_t n) {
    if (n > LIST_MOST) return;
    if (n > NAMED - r->n_named) {
        for (uint32_t i = 1; i < r->n_mode; i++) r->mode[i].list = NO_LIST;
        r->n_named = 0;
    }
    struct mode *m = &r->mode[r->here];
    m->list = r->n_named;
    m->n_list = (uint32_t)n;
    memcpy(r->named + r->n_named, id, n * sizeof *id);
    r->n_named += (uint32_t)n;
}

bool grammar_recalls(const struct grammar_run *r, const int32_t **id, size_t *n) {
    const struct mode *m = &r->mode[r->here];
    if (r->here == DEAD || m->list == NO_LIST) return false;
    *id = r->named + m->list;
    *n = m->n_list;
    return true;
}

size_t grammar_allowed(struct grammar_run *r, int32_t *id, size_t cap) {
    const int32_t *known;
    size_t n;
    if (r->here == DEAD) return 0;
    if (grammar_recalls(r, &known, &n)) {
        if (n > cap) return cap + 1;
        memcpy(id, known, n * sizeof *id);
        return n;
    }
    if (r->mode[r->here].is_long && cap <= LIST_MOST) return cap + 1;
    n = walk(r, id, cap);
    for (uint32_t i = 0; n <= cap && i < r->lex->n_end && grammar_is_whole(r); i++) {
        if (n < cap) id[n] = r->lex->end_id[i];
        n++;
    }
    if (n > cap) {
        r->mode[r->here].is_long |= cap >= LIST_MOST;
        return cap + 1;
    }
    sort_ids(id, n);
    keep_list(r, id, n);
    return n;
}
