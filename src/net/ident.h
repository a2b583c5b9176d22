/* ident.h - who a node is: 128 random bits for life, 64 more for each start.
 *
 * The id is made at the first start and kept in the state folder; the instance is new at every start,
 * so that a restarted node is told from its former self, and two nodes with one id (a cloned card)
 * from each other.
 */
#ifndef NET_IDENT_H
#define NET_IDENT_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* ID_NAME: room for the longest host name that can be set, and what mDNS puts behind it where another has
 * that name: "-2". */
enum { ID_LEN = 16, ID_HEX = 2 * ID_LEN + 1, ID_NAME = 20 };

struct node_id {
    uint8_t b[ID_LEN];
};

struct ident {
    struct node_id id;
    uint64_t instance;    // random, never 0
    char name[ID_NAME];   // "dair-1a2b": the first 16 bits of the id
    char path[4096];      // the file that keeps the id; "": nowhere
    uint64_t started_ns;  // clock_ns() at ident_open: of two with one id the younger gives way
};

/* Read state_dir/node-id, or make it (folder too), durably: written aside, synced, renamed. A file
 * that is damaged is replaced, with a warning in the log. state_dir NULL: an id for this run only.
 * Fails: ERR_IO (no random numbers, folder not writable: the sentence says what to do). */
MUST ident_open(struct ident *i, const char *state_dir, struct err *e);

/* A new id in place of one that another node has too; a new instance as well. A name that was given
 * (a configured hostname) stays. */
MUST ident_renew(struct ident *i, struct err *e);

void ident_text(const struct node_id *id, char out[static ID_HEX]);
static inline int ident_cmp(const struct node_id *a, const struct node_id *b) {
    return memcmp(a->b, b->b, ID_LEN);
}

#endif
