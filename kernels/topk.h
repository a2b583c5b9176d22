/* topk.h - the heap behind topk(): the worst of the best k stands at the root. */
#ifndef KERNELS_TOPK_H
#define KERNELS_TOPK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Order by value, then the lower index first. */
static inline bool topk_worse(float va, int32_t ia, float vb, int32_t ib) {
    return va < vb || (va == vb && ia > ib);
}

/* Put (v, i) where the root was and let it sink. n: entries of the heap. */
static inline void topk_sink(int32_t *id, float *val, size_t n, float v, int32_t i) {
    size_t at = 0;
    for (size_t child = 1; child < n; child = 2 * at + 1) {
        if (child + 1 < n && topk_worse(val[child + 1], id[child + 1], val[child], id[child])) {
            child++;
        }
        if (!topk_worse(val[child], id[child], v, i)) break;
        val[at] = val[child];
        id[at] = id[child];
        at = child;
    }
    val[at] = v;
    id[at] = i;
}

/* Add (v, i) to a heap of n entries. */
static inline void topk_rise(int32_t *id, float *val, size_t n, float v, int32_t i) {
    size_t at = n;
    while (at > 0) {
        size_t parent = (at - 1) / 2;
        if (!topk_worse(v, i, val[parent], id[parent])) break;
        val[at] = val[parent];
        id[at] = id[parent];
        at = parent;
    }
    val[at] = v;
    id[at] = i;
}

/* Heap to descending order: the worst goes to the end, again and again. */
static inline void topk_sort(int32_t *id, float *val, size_t n) {
    for (size_t last = n; last-- > 1;) {
        float v = val[last];
        int32_t i = id[last];
        val[last] = val[0];
        id[last] = id[0];
        topk_sink(id, val, last, v, i);
    }
}

/* Fill the heap with the first k numbers of x. *at: how many values were looked at. */
static inline size_t topk_fill(int32_t *id, float *val, size_t k, const float *x, size_t n,
                               size_t *at) {
    size_t have = 0, i = 0;
    for (; i < n && have < k; i++) {
        if (x[i] == x[i]) topk_rise(id, val, have++, x[i], (int32_t)i);
    }
    *at = i;
    return have;
}

/* Offer x[i .. end) to a full heap. */
static inline void topk_offer(int32_t *id, float *val, size_t k, const float *x, size_t i,
                              size_t end) {
    for (; i < end; i++) {
        if (x[i] > val[0]) topk_sink(id, val, k, x[i], (int32_t)i);
    }
}

#endif
