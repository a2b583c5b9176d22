/* panel.h - one token's values in the activation panels, for the scalar kernels. */
#ifndef KERNELS_PANEL_H
#define KERNELS_PANEL_H

#include "quants.h"

#include <stddef.h>

/* One token's block of 32 in a panel: value i is q[i / 4 * step + i % 4]. */
struct token_block {
    float d;
    const int8_t *q;
    size_t step;
};

static inline struct token_block panel_block(const void *x, size_t n_block, size_t n_tok,
                                             size_t tok, size_t block) {
    if (n_tok == 1) {
        const struct panel1 *p = (const struct panel1 *)x + block;
        return (struct token_block){p->d[0], p->q[0][0], sizeof p->q[0]};
    }
    const struct panel8 *p = (const struct panel8 *)x + tok / 8 * n_block + block;
    return (struct token_block){p->d[tok % 8], p->q[0][tok % 8], sizeof p->q[0]};
}

#endif
