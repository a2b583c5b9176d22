/* cluster_show.c - what the cluster's thread knows, as a struct status. */
#include "base/ifaces.h"
#include "cluster/cluster_state.h"

#include <arpa/inet.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* As a browser wants it: with the port of the page unless that is the usual one. */
static void show_address(char out[static 64], int family, const void *raw, uint16_t port) {
    char ip[INET6_ADDRSTRLEN] = "", tail[8] = "";
    bool is_v6 = family == AF_INET6;
    if (port != 80) snprintf(tail, sizeof tail, ":%u", port);
    if (!inet_ntop(family, raw, ip, sizeof ip)) return;
    snprintf(out, 64, "%s%s%s%s", is_v6 ? "[" : "", ip, is_v6 ? "]" : "", tail);
}

static void show_peer(char out[static 64], const struct sockaddr_storage *a, uint16_t port) {
    if (!port) return;
    if (a->ss_family == AF_INET)
        show_address(out, AF_INET, &((const struct sockaddr_in *)(const void *)a)->sin_addr, port);
    else
        show_address(out, AF_INET6, &((const struct sockaddr_in6 *)(const void *)a)->sin6_addr,
                     port);
}

/* Where people find this node: an address of a network first, of this machine only if need be. */
void cluster_find_address(struct cluster *c) {
    struct iface found[IFACES];
    struct err e;
    size_t n = 0;
    int best = 0;
    char address[64] = "";
    if (!ifaces_list(found, IFACES, &n, &e)) return;
    for (size_t i = 0; i < n; i++) {
        if (c->conf.interface && strcmp(c->conf.interface, found[i].name) != 0) continue;
        for (uint32_t k = 0; k < found[i].n_addr; k++) {
            const struct if_addr *a = &found[i].addr[k];
            int rank = (a->family == AF_INET ? 2 : 1) + (found[i].is_loopback ? 0 : 2);
            if (rank <= best) continue;
            best = rank;
            show_address(address, a->family, a->b, c->conf.facts.http_port);
        }
    }
    memcpy(c->address, address, sizeof c->address);
}

static void show_node(struct status_node *n, const struct node_id *id, const struct facts *f) {
    *n = (struct status_node){.ram_bytes = f->ram_bytes,
                              .budget_bytes = f->budget_bytes,
                              .disk_bps_max = f->disk_bps,
                              .temperature_c = NAN,
                              .has_model = f->model != 0};
    ident_text(id, n->id);
    snprintf(n->name, sizeof n->name, "%s", f->name);
    snprintf(n->arch, sizeof n->arch, "%s", f->arch);
    snprintf(n->board, sizeof n->board, "%s", f->board);
}

/* A node's part of the rows, as the mean over the kinds. */
static double share_of(const struct plan *p, int slice) {
    double sum = 0;
    unsigned n = 0;
    for (unsigned i = 0; slice >= 0 && i < p->n_run; i++) {
        uint32_t all = p->run[i].cut[p->n_node];
        if (!all) continue;
        sum += (double)(p->run[i].cut[slice + 1] - p->run[i].cut[slice]) / all;
        n++;
    }
    return n ? sum / n : 0;
}

static void show_part(const struct cluster *c, struct status_node *n, const struct node_id *id) {
    const struct plan *p = c->epoch ? &c->epoch->plan : NULL;
    int slice = p ? plan_slice(p, id) : -1;
    n->is_working = slice >= 0;
    if (slice < 0) return;
    n->share = share_of(p, slice);
    n->layers = c->conf.model ? c->conf.model->n_layer : 0;
}

static void show_self(struct cluster *c, struct status *s) {
    const char *why = "";
    const struct ident *self = c->conf.ident;
    s->state = members_state(c->members, &why);
    bool serves = s->state == STATE_READY || s->state == STATE_DEGRADED || s->state == STATE_ALONE;
    snprintf(s->why, sizeof s->why, "%s", why && !serves ? why : "");
    ident_text(&self->id, s->id);
    if (c->conf.facts.http_port) snprintf(s->address, sizeof s->address, "%s", c->address);
    snprintf(s->name, sizeof s->name, "%s", c->conf.facts.name);
    snprintf(s->shared_name, sizeof s->shared_name, "%s",
             c->mdns && c->is_serving_told ? mdns_shared(c->mdns) : "");
    snprintf(s->cluster.fingerprint, sizeof s->cluster.fingerprint, "%016llx",
             (unsigned long long)c->conf.keys->print);
    s->cluster.epoch = c->epoch ? c->epoch->plan.epoch : 0;
    if (c->epoch) ident_text(&c->epoch->plan.leader, s->cluster.leader);
    struct status_node *n = &s->cluster.node[0];
    show_node(n, &self->id, &c->conf.facts);
    show_part(c, n, &self->id);
    memcpy(n->address, s->address, sizeof n->address);
    n->state = s->state;
    n->pinned_bytes = c->pinned;
    n->streamed_bytes = c->streamed;
    n->disk_bps = c->disk_bps;
    n->temperature_c = c->temperature_c;
    s->cluster.n_node = 1;
}

static void show_refused(const struct cluster *c, struct status *s) {
    struct gate_counts g = {0};
    if (c->gate) gate_counts(c->gate, &g);
    s->net.refused_wrong_key = g.wrong_key;
    s->net.refused_garbage = g.garbage;
    s->net.refused_timed_out = g.timed_out;
    s->net.refused_displaced = g.displaced;
    s->net.refused_postponed = g.postponed;
    s->net.refused_other_version = g.other_version;
}

static void show_unreached(const struct cluster *c, struct status *s) {
    size_t len = 0;
    for (unsigned i = 0; i < TARGETS; i++) {
        const struct target *t = &c->target[i];
        if (!t->is_named || !*t->why) continue;
        if (t->has_other_key && t->n_other_key > s->unreached_by_key)
            s->unreached_by_key = t->n_other_key;
        if (len >= sizeof s->unreached - 1) continue;
        int n = snprintf(s->unreached + len, sizeof s->unreached - len, "%s%s: %s", len ? "; " : "",
                         c->conf.peer[t->peer], t->why);
        len += n > 0 ? (size_t)n : 0;
    }
}

static void show_work(struct cluster *c, const struct member_view *view, unsigned n_view) {
    struct node_id leader;
    uint64_t epoch;
    c->is_led = false;
    if (!cluster_leader(c, &leader, &epoch)) return;
    for (unsigned i = 0; i < n_view; i++) {
        if (!id_is(&view[i].id, &leader)) continue;
        c->is_led = true;
        c->work = view[i].beat.work;
    }
}

void cluster_show(struct cluster *c) {
    struct member_view view[MEMBER_MAX];
    struct status *s = &c->shown;
    unsigned n_view = members_list(c->members, view, MEMBER_MAX);
    pthread_mutex_lock(&c->lock);
    memset(s, 0, sizeof *s);
    show_self(c, s);
    for (unsigned i = 0; i < n_view && s->cluster.n_node < STATUS_NODES; i++) {
        struct status_node *n = &s->cluster.node[s->cluster.n_node++];
        const struct beat *b = &view[i].beat;
        show_node(n, &view[i].id, &view[i].facts);
        show_part(c, n, &view[i].id);
        n->state = b->state;
        n->pinned_bytes = b->pinned_bytes;
        n->streamed_bytes = b->streamed_bytes;
        n->disk_bps = b->disk_bps;
        if (view[i].has_beat) n->temperature_c = b->temperature_c;
        const struct link *l = link_find(c, &view[i].id);
        if (l) show_peer(n->address, &l->peer.addr, l->facts.http_port);
    }
    show_work(c, view, n_view);
    s->net.epochs = c->n_epoch;
    show_refused(c, s);
    show_unreached(c, s);
    s->n_alert = c->n_alert;
    memcpy(s->alert, c->alert, sizeof s->alert);
    pthread_mutex_unlock(&c->lock);
}
