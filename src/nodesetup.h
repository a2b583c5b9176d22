/* nodesetup.h - from settings and a model to what a node is told: shared by `dair node` and the guest
 * of `dair run --workers`. Thread: main.
 */
#ifndef NODESETUP_H
#define NODESETUP_H

#include "base/config.h"
#include "engine/node.h"
#include "net/ident.h"
#include "setup.h"

/* Budget and pool, less what the channels of n_peer others (0: of as many as may come), strangers'
 * handshakes, the requests that a leader keeps and (if http) the page take; speeds; all of it into *c
 * beside what stands there: without a key nobody comes. s: opened with its tokenizer, or zeroed: a node
 * without a model.
 * Fails: as setup_budget and setup_speeds; ERR_MEMORY, with what is needed, when the budget is too small
 * to work alone and, with a key, for any share of the model. */
MUST nodesetup_measure(struct setup *s, const struct machine *m, unsigned n_peer, bool http,
                       struct node_conf *c, struct err *e);

/* Bytes kept free for all that requests over HTTP take, of such a budget. */
uint64_t nodesetup_http(uint64_t budget);

/* p's names into c, which borrows them. */
void nodesetup_peers(const struct peers *p, struct node_conf *c);

/* What this machine is called by who made it: "Raspberry Pi 5 Model B Rev 1.0", or "". */
void nodesetup_board(char *out, size_t cap);

#endif
