/* key.h - the cluster's key: how people carry it, and what is derived from it.
 *
 * Text form (from `dair keygen`, cluster_key in the config): 160 random bits as 32 symbols of
 * Crockford's base 32 (no I L O U; case, spaces and dashes are free, I and L read as 1, O as 0), in
 * eight groups of four, then one check symbol over them: a mistyped key is refused as mistyped, not
 * later as wrong. Nothing else is taken as a key, so that no weak one can be.
 */
#ifndef NET_KEY_H
#define NET_KEY_H

#include "base/err.h"
#include "net/ident.h"

#include <stdbool.h>
#include <stdint.h>

enum { KEY_LEN = 20, KEY_TEXT = 48, PSK_LEN = 32 };

struct cluster_key {
    uint8_t b[KEY_LEN];
};

struct keys {  // what a node accepts: the key, and while it is being changed the old one
    bool has_key, has_old;
    struct cluster_key key, old;
    uint64_t print, old_print;  // fingerprints: public, they only tell clusters apart
};

MUST key_make(char out[static KEY_TEXT], struct err *e);
/* Fails: ERR_USAGE: too short, a symbol that is none, or the check symbol does not match. */
MUST key_parse(struct cluster_key *k, const char *text, struct err *e);
/* key or old may be NULL or "": none. */
MUST keys_open(struct keys *k, const char *key, const char *old, struct err *e);

#endif
