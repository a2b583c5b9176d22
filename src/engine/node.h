/* node.h - a node at work: cluster, engine and their threads behind one door.
 *
 * Composes discovery, membership and channels (cluster) with the forward pass (nn). Every node takes
 * requests: the one that took it is its front, keeps prompt and answer as token ids, and hands the
 * work to the leader of the epoch. When an epoch ends, whatever the reason, the front hands the ids to
 * the next one: the answer goes on with the same text.
 *
 * Threads: node_* may be called from any thread; callbacks come on the cluster's thread and must be
 * short. They never come after node_cancel() has returned.
 */
#ifndef ENGINE_NODE_H
#define ENGINE_NODE_H

#include "base/status.h"
#include "cluster/cluster.h"
#include "engine/engine.h"
#include "model/tok.h"

enum { NODE_ASKS = 64, NODE_PEERS = 16 };  // requests at one time; named peers

struct node_conf {
    struct ident *ident;  // borrowed
    struct keys keys;
    const char *interface;         // NULL: all
    const char *peer[NODE_PEERS];  // host:port
    unsigned n_peer;
    bool is_discovered;                             // announce and browse by mDNS
    bool is_guest;                                  // dair run --workers
    uint16_t http_port, ollama_port, cluster_port;  // what is announced; cluster_port 0: any

    /* the model; NULL: this node has none (it says so, and answers no requests) */
    const struct model *model;
    const struct tok *tok;  // knows which tokens end an answer; NULL without a model
    const struct kernels *kernels;
    const char *model_file;
    uint64_t pool, budget, ram;  // bytes for the engine, for the process, of the machine
    uint64_t grammars;           // bytes for the grammars of answers under way
    uint64_t asks;               // bytes for the requests that a leader keeps
    uint32_t n_handshake;        // of strangers at one time, see gate.h
    uint32_t n_ctx, n_batch, n_seq, n_thread, n_decode, n_reader, n_slot;
    struct par_places places;
    enum kv_type kv;
    enum wire_type wire;
    double speed, disk_bps, share;  // measured bytes/s; share: the user's wish, 0: by speed
    bool is_even;                   // share everything evenly
    char board[64];
};

struct node;
MUST node_open(struct node **out, const struct node_conf *c, struct err *e);
/* Takes no new requests, says goodbye, waits at most `ms` for answers under way. */
void node_drain(struct node *n, unsigned ms);
void node_close(struct node *n);

void node_status(struct node *n, struct status *out);
/* Of the machine, as it is now; NAN: not known. */
void node_temperature(struct node *n, double celsius);

enum ask_end { ASK_LENGTH, ASK_EOS, ASK_FAILED };

struct ask_request {
    const int32_t *prompt;  // [n_prompt], copied
    uint32_t n_prompt, n_predict;
    struct sampler sampler;
    enum grammar_kind grammar;  // that the answer is held to
    const char *grammar_text;   // [n_grammar], copied; grammar_open() takes it
    uint32_t n_grammar;
    uint64_t sequence;  // for the random numbers: 0 gives what `dair run` gives
    /* The next n ids of the answer, in order, each once. */
    void (*on_tokens)(void *ctx, const int32_t *id, uint32_t n);
    /* The last call. why: of ASK_FAILED, else NULL; ERR_MEMORY when the nodes have become fewer, those left
     * hold less context than the answer needs and the lost did not come back (asks.h); ERR_USAGE when none
     * can hold the prompt. */
    void (*on_end)(void *ctx, enum ask_end end, const struct err *why);
    void *ctx;
};

/* Refused at once, with a sentence: ERR_LIMIT when NODE_ASKS are under way or the prompt does not fit
 * the context; ERR_STOPPED while draining; ERR_UNSUPPORTED when there is no model in the cluster.
 * Work waits while the cluster changes. */
MUST node_ask(struct node *n, const struct ask_request *a, uint64_t *ticket, struct err *e);
/* No callback for the ticket any more. Unknown tickets are fine. */
void node_cancel(struct node *n, uint64_t ticket);

/* Wait until the node serves with at least `n_node` nodes, or FAILED (then *e says why), or the time
 * is over (ERR_STOPPED). */
MUST node_wait(struct node *n, unsigned n_node, unsigned ms, struct err *e);

#endif
