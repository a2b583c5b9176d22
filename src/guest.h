/* guest.h - `dair run --workers`: this process joins named nodes for one answer.
 *
 * A guest brings its own memory and disk, keeps nothing, announces nothing and never leads. Asking is
 * as with engine_generate(), so that who shows the answer need not know who computes it.
 * Thread: main.
 */
#ifndef GUEST_H
#define GUEST_H

#include "base/config.h"
#include "setup.h"

struct guest_conf {
    const struct peers *worker;            // borrowed until guest_close
    const char *config, *key, *interface;  // --config, --cluster-key, --interface, or NULL
    FILE *tell;                            // how joining goes; NULL: nowhere
    const atomic_bool *stop;
};

struct guest;

/* Measures this machine, joins the workers and waits until all of them serve together. s is opened
 * with its tokenizer and stays open. Fails: ERR_USAGE without a key; ERR_IO when somebody does not
 * come; ERR_STOPPED by *stop; ERR_MEMORY and what the cluster says. */
MUST guest_open(struct guest **out, struct setup *s, const struct machine *m,
                const struct guest_conf *c, struct err *e);

/* As engine_generate; on_prefill is not called, streamed_bytes and wait_ns stay 0. */
MUST guest_generate(struct guest *g, const struct gen_request *r, struct gen_result *out,
                    struct err *e);

/* Nodes that work together now, this one among them; what of the weights this one keeps and reads
 * from its disk for each token. */
unsigned guest_nodes(struct guest *g, uint64_t *pinned, uint64_t *streamed);

/* Leaves in good order. */
void guest_close(struct guest *g);

#endif
