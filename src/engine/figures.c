#include "engine/figures.h"

#include "base/clock.h"

enum { IDLE_S = 10 };  // without a token for so long: no work, no rate

static void waits(const struct nn *nn, const struct mesh *m, uint64_t *disk_ns, uint64_t *net_ns) {
    struct store_stats disk;
    struct mesh_stats net;
    nn_stats(nn, &disk);
    mesh_stats(m, &net);
    *disk_ns = disk.wait_ns;
    *net_ns = net.wait_ns;
}

void figures_start(struct figures *f, const struct nn *nn, const struct mesh *m) {
    waits(nn, m, &f->disk_ns, &f->net_ns);
}

/* Weighted towards the newest. */
void figures_token(struct figures *f, const struct nn *nn, const struct mesh *m, double seconds,
                   uint32_t n_thread) {
    uint64_t disk_ns, net_ns;
    waits(nn, m, &disk_ns, &net_ns);
    double disk_ms = (double)(disk_ns - f->disk_ns) * 1e-6;
    double net_ms = (double)(net_ns - f->net_ns) * 1e-6;
    disk_ms /= n_thread;  // disk waits are summed over the team's threads
    double rest = seconds * 1e3 - disk_ms - net_ms, now = clock_s();
    double new = f->tokens++ ? 0.1 : 1;
    f->disk_ms += new *(disk_ms - f->disk_ms);
    f->network_ms += new *(net_ms - f->network_ms);
    f->compute_ms += new *((rest > 0 ? rest : 0) - f->compute_ms);
    double gap = now - f->last_token_s;
    f->last_token_s = now;
    if (gap < IDLE_S) f->token_s += (f->token_s > 0 ? 0.1 : 1) * (gap - f->token_s);
}

static void add_net(struct mesh_stats *sum, const struct mesh *m) {
    struct mesh_stats s;
    mesh_stats(m, &s);
    sum->n_gather += s.n_gather;
    sum->sent_payload += s.sent_payload;
    sum->sent_wire += s.sent_wire;
    sum->received_payload += s.received_payload;
    sum->received_wire += s.received_wire;
    sum->wait_ns += s.wait_ns;
    sum->crypt_ns += s.crypt_ns;
}

void figures_end(struct figures *f, const struct mesh *m, uint64_t read_bytes) {
    add_net(&f->net_before, m);
    f->read_before += read_bytes;
}

double figures_rate(const struct figures *f) {
    bool is_idle = clock_s() - f->last_token_s > IDLE_S;
    return f->token_s > 0 && !is_idle ? 1 / f->token_s : 0;
}

struct mesh_stats figures_net(const struct figures *f, const struct mesh *m) {
    struct mesh_stats sum = f->net_before;
    if (m) add_net(&sum, m);
    return sum;
}
