/* figures.h - what a worker measures of its work: tokens, what each took of late, and what went over the
 * network and came from the disk in all epochs.
 *
 * Plain data, kept under the worker's lock.
 */
#ifndef ENGINE_FIGURES_H
#define ENGINE_FIGURES_H

#include "cluster/coll_net.h"
#include "nn/nn.h"

struct figures {
    uint64_t tokens;
    double compute_ms, disk_ms, network_ms;  // of a step that makes a token, of late
    double last_token_s, token_s;  // when the last one came; how far they are apart, of late
    uint64_t disk_ns, net_ns;      // waits in all when the step under way began
    struct mesh_stats net_before;  // of the epochs that are over
    uint64_t read_before;          // bytes from the disk, the same
};

/* A step begins; it has made a token, in so many seconds, n_thread threads computing. */
void figures_start(struct figures *f, const struct nn *nn, const struct mesh *m);
void figures_token(struct figures *f, const struct nn *nn, const struct mesh *m, double seconds,
                   uint32_t n_thread);
/* An epoch is over, in which so many bytes came from the disk. */
void figures_end(struct figures *f, const struct mesh *m, uint64_t read_bytes);

/* Tokens in a second of late; 0: nothing was to be done. */
double figures_rate(const struct figures *f);
/* Of all epochs, the one at work included; NULL: none is. */
struct mesh_stats figures_net(const struct figures *f, const struct mesh *m);

#endif
