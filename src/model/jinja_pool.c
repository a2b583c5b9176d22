/* Memory that is given back all at once: chunks from the system, up to a limit. */
#include "model/jinja_own.h"

#include <stdlib.h>

struct pool_chunk {
    struct pool_chunk *next;
    char byte[];
};

enum { CHUNK = 32 << 10, ALIGN = 16 };

void *pool_push(struct pool *p, size_t n) {
    n = (n + ALIGN - 1) & ~(size_t)(ALIGN - 1);
    if (n > JINJA_MEMORY) return NULL;
    if (n > (size_t)(p->end - p->at)) {
        size_t room = n > CHUNK / 4 ? n : CHUNK, size = sizeof(struct pool_chunk) + ALIGN + room;
        if (size > JINJA_MEMORY - p->total) return NULL;
        struct pool_chunk *c = calloc(1, size);
        if (!c) return NULL;
        p->total += size;
        c->next = p->chunk;
        p->chunk = c;
        char *at = (char *)(((uintptr_t)c->byte + ALIGN - 1) & ~(uintptr_t)(ALIGN - 1));
        if (room == n) return at;  // a large piece of its own: the chunk in use stays in use
        p->at = at;
        p->end = at + room;
    }
    void *out = p->at;
    p->at += n;
    return out;
}

void pool_free(struct pool *p) {
    for (struct pool_chunk *c = p->chunk, *next; c; c = next) {
        next = c->next;
        free(c);
    }
    *p = (struct pool){0};
}

MUST vm_push(struct vm *vm, size_t n, void *out) {
    if (!vm_charge(vm, n)) return false;  // it is cleared
    void *p = pool_push(&vm->pool, n);
    if (!p) return vm_limit(vm, "it needs more than %d MiB of memory", JINJA_MEMORY >> 20);
    memcpy(out, &p, sizeof p);
    return true;
}
