/* front.h - what people and programs see of a node: HTTP, opened and closed as one.
 *
 * Serves GET /, /health, /status.json and POST /v1/completions; page, chat, metrics and Ollama's API
 * come as further routes. With an API key, /v1/ asks for it; what watches the node does not.
 */
#ifndef FRONT_FRONT_H
#define FRONT_FRONT_H

#include "engine/node.h"
#include "front/http.h"
#include "model/tok.h"

struct front_conf {
    struct node *node;        // borrowed; closed after the front
    const struct tok *tok;    // borrowed; NULL: this node has no model
    uint32_t n_ctx;           // tokens of prompt and answer together
    uint64_t memory;          // bytes for all that requests take here; 0: plenty
    uint16_t port;            // 0: any
    const char *interface;    // its addresses and loopback's; NULL: all; borrowed
    const char *api_key;      // NULL: none
    struct http_times times;  // 0: the usual ones
};

struct front;
/* Fails: as http_open. */
MUST front_open(struct front **out, const struct front_conf *c, struct err *e);
uint16_t front_port(const struct front *f);
/* After the node has been drained: until what it said has left for the clients, at most so long. */
void front_settle(struct front *f, unsigned ms);
/* What is under way ends; streams are cut off, so drain the node first. */
void front_close(struct front *f);

#endif
