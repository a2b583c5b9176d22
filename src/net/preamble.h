/* preamble.h - the first 64 bytes of each side of a connection, in the clear.
 *
 * The dialler's says what it wants and who it is, the listener's answers. Nothing in it is secret or
 * proved: it chooses the key and the roles of the handshake, which then proves both (all of it but
 * the fingerprints goes into the key of the handshake). Integers are little-endian.
 */
#ifndef NET_PREAMBLE_H
#define NET_PREAMBLE_H

#include "net/chan.h"

/* PROTOCOL_VERSION is of everything that nodes say to each other, messages and steps too, and of how a token is
 * chosen, for another leader goes on with the same text: it rises with each change of any, so that nodes
 * that would misread each other say so at the door. */
enum { PREAMBLE_LEN = 64, PROTOCOL_VERSION = 9 };

struct preamble {
    enum chan_kind kind;
    uint64_t epoch;
    struct node_id id;
    uint64_t instance;
    uint64_t print, old_print;  // of the keys held, 0: none
};

void preamble_write(uint8_t out[static PREAMBLE_LEN], const struct preamble *p);

/* Fails: ERR_FORMAT: not ours, or malformed; ERR_UNSUPPORTED: of another version. */
MUST preamble_read(struct preamble *p, const uint8_t in[static PREAMBLE_LEN], struct err *e);

/* Which key of k to use with a peer that sent p: the newest in common, by a rule that gives both sides
 * the same. NULL: none. *is_old: it is the old one of either side. */
const struct cluster_key *preamble_key(const struct keys *k, const struct preamble *p,
                                       bool we_are_client, bool *is_old);

#endif
