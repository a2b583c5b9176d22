/* node_own.h - what the files of a node share: its state, and what they ask of each other.
 *
 * node.c opens it and carries between cluster and worker; node_asks.c has the requests that were made here.
 */
#ifndef ENGINE_NODE_OWN_H
#define ENGINE_NODE_OWN_H

#include "engine/asks.h"
#include "engine/node.h"
#include "engine/watch.h"
#include "engine/worker.h"

#include <pthread.h>

struct node {
    struct node_conf conf;
    struct keys keys;
    struct cluster *cluster;
    struct worker *worker;  // NULL: no model

    struct watch watch;  // of the worker; the cluster's thread's own

    pthread_mutex_t lock;  // of everything below
    pthread_cond_t changed;
    struct asks asks;
    bool is_draining;
    unsigned n_serving;  // nodes of the serving epoch, 0: none serves
    uint64_t n_resubmitted;
    uint64_t read, read_ns;          // bytes from the disk, and when
    double disk_bps, temperature_c;  // of the second before; of the machine
    char hopeless[STATUS_TEXT];  // why no request can be answered, as far as can be seen; else ""
    struct nn_memory memory;     // of the epoch at work
    double wire_bytes;
    struct {
        uint32_t n_node, n_ctx, n_sweep, safe_seq, safe_ctx;
        bool is_told;  // that an answer may not survive a loss
    } plan;            // of the epoch at hand, or of the last one; n_node 0: there was none
};

/* The requests' part of a turn of the cluster's thread, and what it heard of them from the leader. */
void node_asks_turn(struct node *n);
void node_asks_tokens(struct node *n, const struct node_id *from, const struct msg *m);
void node_asks_done(struct node *n, const struct node_id *from, const struct msg *m);
/* The node is shut down: ends them all. Thread: any, when no other is there. */
void node_asks_close(struct node *n);

#endif
