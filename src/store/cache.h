/* cache.h - which of the tiles on demand stay in memory: places, and who must give one up.
 *
 * Pure bookkeeping, no reading, no threads: whoever shares one locks. Items are the tiles on demand in the
 * order in which a sweep comes by them, though it uses only some. A place holds one item of its size;
 * items of a size share its places.
 *
 * The policy is LFU with a short memory: a use is worth less the more uses came after it (half after
 * half_life of them), and every item keeps its account, also while it is not here. Of two accounts alike
 * the item whose turn is farther away goes, as Belady's rule says: the order of a sweep is known even
 * where its choices are not.
 *
 * A guess names an item that the next list may hold: it stays until then if it is here, and may take the
 * place of another if not. It does not count as a use.
 */
#ifndef STORE_CACHE_H
#define STORE_CACHE_H

#include "store/store.h"

enum { CACHE_CLASSES = 128, CACHE_VICTIMS = 32, CACHE_GUESSES = 128 };
#define CACHE_NONE UINT32_MAX  // no place

/* Items of one size. */
struct cache_class {
    uint64_t mem;                     // bytes of a place
    uint64_t len;                     // bytes of its items in the files, together
    uint32_t n_item, n_place, first;  // places [first, first + n_place)
};

struct cache_plan {
    struct cache_class class[CACHE_CLASSES];
    uint32_t n_class, n_place;
    uint64_t mem;      // bytes of all places
    uint64_t least;    // of as few as can be
    uint64_t missing;  // bytes in the files of items that find no place
};

/* Places for n items within `bytes` (but p->least in any case): in each class two, or one for its only
 * item, the rest in proportion. */
void cache_plan(struct cache_plan *p, const struct tile *tile, uint32_t n, uint64_t bytes);

struct cache_item {
    double score;    // of its uses, in units of what the next one is worth
    uint32_t place;  // CACHE_NONE: not here
    uint32_t turn;   // in the list that is being gone through, from 1; 0: not in it
    uint16_t class;
    bool in_use;    // must stay
    bool is_guess;  // must stay until the next list; in use as well: it is being read
    bool is_ahead;  // it was read for a guess and not used since
};

/* Places that may be taken, found in one look at all of a class. */
struct cache_victims {
    uint32_t place[CACHE_VICTIMS], n;
    double score[CACHE_VICTIMS];  // descending: the last is taken first
};

struct cache {
    struct cache_plan plan;
    uint32_t n;
    struct cache_item *item;        // [n] owned
    uint32_t *held;                 // [n_place] item of a place; owned
    struct cache_victims *victims;  // [n_class] owned
    double worth, growth;           // of the next use; from one to the next
    uint32_t now;                   // how far the sweep will be when the list has been used
    uint32_t guess[CACHE_GUESSES], n_guess;  // items that are one
};

/* Items that have a place from the start are spread evenly over each class. Fails: ERR_MEMORY. */
MUST cache_open(struct cache *c, const struct cache_plan *p, const struct tile *tile, uint32_t n,
                double half_life, struct err *e);
void cache_close(struct cache *c);

/* One that is being read for a guess is not here yet. */
static inline bool cache_has(const struct cache *c, uint32_t i) {
    const struct cache_item *t = &c->item[i];
    return t->place != CACHE_NONE && !(t->in_use && t->is_guess);
}

/* The items that will be used next, in this order; those of the last list have all been. Others are to
 * give up their places first. What was guessed is so no longer. */
void cache_next(struct cache *c, const uint32_t *item, uint32_t n);

/* Use the list's next item, which is then in use: it is here, or has a place now into which it must be
 * read, or is being read for a guess, or it can have none before another is let go. */
enum cache_found { CACHE_HIT, CACHE_MISS, CACHE_COMING, CACHE_FULL };
enum cache_found cache_use(struct cache *c, uint32_t i);
void cache_let_go(struct cache *c, uint32_t i);

/* Guess item i, when all of a list is in use or has been: it is here or coming, or has a place now into which
 * it must be read, or there is none. */
enum cache_found cache_guess(struct cache *c, uint32_t i);
/* What was read for a guess has come. True: it is in use, a list having named it meanwhile. */
bool cache_arrived(struct cache *c, uint32_t i);
/* It could not be read, and no list has named it: it is not here. */
void cache_forget(struct cache *c, uint32_t i);

#endif
