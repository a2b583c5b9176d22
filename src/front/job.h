/* job.h - one completion under way: token ids come in from the node, text goes out to the client.
 *
 * Threads: the node's callbacks only append ids (room for all of them was taken at the start) and
 * wake the request. All else runs on the HTTP thread, as steps of the request.
 * Locks: callbacks take job_shared.lock and, inside, http's. node_* is called with neither: a callback
 * that runs meanwhile can go on, so node_cancel() may wait for it. After node_cancel() nothing of the
 * job is touched by others, and it is freed.
 */
#ifndef FRONT_JOB_H
#define FRONT_JOB_H

#include "engine/node.h"
#include "front/http.h"
#include "model/stop.h"
#include "model/tok.h"

#include <pthread.h>

enum { JOB_CHOICES = 16, JOB_NAME = 128 };

/* What all jobs share. */
struct job_shared {
    struct node *node;
    const struct tok *tok;
    pthread_mutex_t lock;
    unsigned n_ask;              // of them, at the node; HTTP thread
    uint64_t bytes, most_bytes;  // that they take; HTTP thread
};

struct choice {
    struct job *job;
    int32_t *prompt;  // [n_prompt], owned, until it is asked
    uint32_t n_prompt, n_predict;
    uint64_t ticket, bytes;
    bool is_asked;

    /* under job_shared.lock */
    int32_t *id;  // [n_predict], owned
    uint32_t n_id;
    bool is_ended;
    enum ask_end end;
    struct err why;

    uint32_t n_read;  // of id
    struct detok detok;
    char *text;             // [cap], owned: what is not yet sent
    size_t len, cap, sure;  // sure: bytes of it before which no stop string can begin any more
    const char *finish;     // finish_reason; NULL: goes on
    bool is_told;           // the client knows
};

struct job {
    struct http_job http;  // first
    struct job_shared *shared;
    struct http_request *q;
    struct stop stop;
    struct sampler sampler;
    enum grammar_kind grammar;
    char *grammar_text;  // [n_grammar], owned
    uint32_t n_grammar;
    bool is_stream, has_usage;
    char id[40], model[JOB_NAME];
    uint64_t created;
    uint32_t n_choice;
    struct choice choice[];  // [n_choice]
};

/* With n choices, all else zero but id and created. NULL: no memory. Owned until job_start succeeds. */
struct job *job_new(struct job_shared *s, struct http_request *q, uint32_t n);
void job_free(struct job *j);

/* Text that the client gets first (echo). */
MUST job_prefix(struct choice *c, const char *text, size_t len, struct err *e);

/* Asks the node for all choices; the reply comes by itself, and the job ends itself. On failure the
 * job is as if it had not been started. Fails: as node_ask; ERR_MEMORY. */
MUST job_start(struct job *j, struct err *e);

/* The HTTP status for a failure of the node. */
unsigned job_status(const struct err *e);

#endif
