/* arena.h - memory is taken once, then the tap is closed.
 *
 * One mapping; pushes are never freed one by one, the arena is dropped whole. After arena_seal() a
 * push is a bug in us, not a condition, and aborts. The process has one big arena, the pool, whose
 * size is the memory budget less what the process needs besides; small ones serve loaders (a
 * tokenizer's tables, a model's directory). Mappings are 2 MiB aligned and ask for huge pages:
 * O_DIRECT into them is 2-3 times as fast, and a GEMV's TLB misses vanish.
 *
 * Memory is committed when first touched, so an arena larger than needed costs address space only.
 */
#ifndef BASE_ARENA_H
#define BASE_ARENA_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

struct arena {
    const char *name;  // for the table printed at start
    uint8_t *base;     // [cap] bytes, owned
    size_t used;       // bytes handed out
    size_t cap;        // bytes usable
    void *map;         // what was mapped (base rounded down)
    size_t map_len;
    bool sealed;
};

/* Map cap bytes, zero on first touch. Fails: ERR_MEMORY. */
MUST arena_open(struct arena *a, const char *name, size_t cap, struct err *e);
void arena_close(struct arena *a);

/* n zeroed bytes aligned to align (a power of two), or NULL when the arena is full. */
void *arena_push(struct arena *a, size_t n, size_t align);

/* As arena_push for n items of size bytes each (checked multiplication); Fails: ERR_MEMORY, naming
 * `what`. */
MUST arena_array(struct arena *a, void *out, size_t n, size_t size, const char *what,
                 struct err *e);
void arena_seal(struct arena *a);

#endif
