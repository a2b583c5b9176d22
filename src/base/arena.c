#include "base/arena.h"

#include <assert.h>
#include <string.h>
#include <sys/mman.h>

enum { HUGE_PAGE = 2 << 20 };

MUST arena_open(struct arena *a, const char *name, size_t cap, struct err *e) {
    size_t len;
    if (__builtin_add_overflow(cap, (size_t)HUGE_PAGE, &len)) {
        return err_set(e, ERR_MEMORY, "%s: %zu bytes is more than the address space", name, cap);
    }
    void *p =
        mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) {
        return err_set(e, ERR_MEMORY, "%s: the system refused %zu bytes of memory", name, cap);
    }
    uintptr_t at = ((uintptr_t)p + HUGE_PAGE - 1) & ~(uintptr_t)(HUGE_PAGE - 1);
    *a = (struct arena){.name = name, .base = (uint8_t *)at, .cap = cap, .map = p, .map_len = len};
    /* A kernel without transparent huge pages says EINVAL: slower, never wrong. Small arenas stay
     * on ordinary pages, where a huge one would only be waste. */
    if (cap >= 4 * (size_t)HUGE_PAGE) (void)madvise(a->base, cap, MADV_HUGEPAGE);
    return true;
}

void arena_close(struct arena *a) {
    if (a->map) munmap(a->map, a->map_len);
    *a = (struct arena){0};
}

void *arena_push(struct arena *a, size_t n, size_t align) {
    assert(!a->sealed && align && (align & (align - 1)) == 0);
    size_t at = (a->used + align - 1) & ~(align - 1);
    if (at > a->cap || n > a->cap - at) return NULL;
    a->used = at + n;
    return a->base + at;
}

MUST arena_array(struct arena *a, void *out, size_t n, size_t size, const char *what,
                 struct err *e) {
    size_t len;
    void *p = NULL;
    if (!__builtin_mul_overflow(n, size, &len)) p = arena_push(a, len, 64);
    if (!p) {
        return err_set(e, ERR_MEMORY, "%s: no room for %zu x %zu bytes of %s (%zu of %zu used)",
                       a->name, n, size, what, a->used, a->cap);
    }
    memcpy(out, &p, sizeof p);
    return true;
}

void arena_seal(struct arena *a) {
    a->sealed = true;
}
