/* coll.h - what a slice asks of its peers: one verb, gather.
 *
 * A slice is one node's share of every layer. All slices run the same program on the same tokens; the
 * only thing that crosses between them is the parts of a row that each has computed. nn knows no
 * network: coll_local.c joins N slices of one process, another layer joins nodes.
 */
#ifndef NN_COLL_H
#define NN_COLL_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

enum { SLICE_MAX = 16 };

/* What the bytes of a gather are, so that an implementation whose peers are other machines can check
 * them before they are computed with. */
enum coll_kind {
    COLL_ACT,       // struct act
    COLL_WIRE16,    // struct wire16
    COLL_F32,       // any float
    COLL_CANDIDATE  // struct candidate; whoever asked checks the ids
};

struct coll {
    unsigned self, n;  // which slice this is, of how many
    /* A gather in which a slice hands out this many bytes, in the mean and to all others together, is
     * worth begin()ning with a part of it; 0: none is. The same for all slices. */
    size_t early;
    /* buf is n_row rows, `stride` bytes apart; of each row this slice has written bytes
     * [at[self], at[self + 1]); on return the row is complete: bytes [at[i], at[i + 1]) come from
     * slice i. All slices call with the same kind, at [n + 1], stride and n_row, in the same
     * order. Fails when a peer is gone, or when what it sent is not of this kind; the failure is
     * final. */
    MUST(*gather)
    (struct coll *c, enum coll_kind kind, void *buf, size_t stride, size_t n_row, const size_t *at,
     struct err *e);
    /* The next gather, called with the same arguments, is for all of a row. Of it this slice has
     * written bytes [at[self], mid[self]) already, and does not touch them again: they may go now. All
     * slices do so, with the same mid [n]. Does not wait. NULL where early is 0. */
    MUST(*begin)
    (struct coll *c, enum coll_kind kind, void *buf, size_t stride, size_t n_row, const size_t *at,
     const size_t *mid, struct err *e);
};

/* N slices in this process, a thread each. coll[i] is for the thread that runs slice i. */
struct coll_local;
MUST coll_local_open(struct coll_local **out, unsigned n, struct err *e);
struct coll *coll_local_at(struct coll_local *l, unsigned i);
/* A slice gives up: every gather from now on fails. Called by any slice's thread. */
void coll_local_leave(struct coll_local *l);
void coll_local_close(struct coll_local *l);

/* A slice on its own: gather has nothing to do. */
void coll_alone(struct coll *c);

#endif
