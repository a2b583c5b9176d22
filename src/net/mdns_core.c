#include "net/mdns_state.h"

#include <string.h>

MUST core_init(struct mdns_core *m, const struct mdns_conf *c, const struct mdns_hooks *hooks,
               uint64_t seed, struct err *e) {
    memset(m, 0, offsetof(struct mdns_core, link));
    for (uint32_t k = 0; k < MDNS_LINKS; k++) m->link[k].is_used = false;
    for (int i = 0; i < MDNS_HELD; i++) m->held[i].is_used = false;
    for (int i = 0; i < MDNS_PEERS; i++) m->peer[i].is_used = false;
    m->hooks = *hooks;
    m->rng = seed | 1;
    m->facts = c->facts;
    m->port[SVC_DAIR] = c->cluster_port;
    m->port[SVC_HTTP] = c->http_port;
    m->port[SVC_OLLAMA] = c->ollama_port;
    size_t n = strlen(c->host);
    if (!n || n >= sizeof m->base || strchr(c->host, '.')) {
        return err_set(e, ERR_USAGE, "\"%s\" cannot be a host name", c->host);
    }
    memcpy(m->base, c->host, n + 1);
    if (!own_names(m, e)) return false;
    memcpy(m->told_label, m->label, sizeof m->told_label);
    m->n_shared = 1;
    own_shared(m);
    own_texts(m);
    return true;
}

/* ---- links */

static void set_iface(struct mdns_link *l, const struct iface *i) {
    l->on = *i;
    if (l->on.n_addr > IF_ADDRS) l->on.n_addr = IF_ADDRS;
    own_back(l);
}

void core_link_up(struct mdns_core *m, uint32_t link, const struct iface *i, uint8_t family,
                  uint64_t now) {
    struct mdns_link *l = &m->link[link];
    bool is_first = true;
    for (uint32_t k = 0; k < m->n_link; k++) is_first = is_first && !m->link[k].is_used;
    *l = (struct mdns_link){.is_used = true, .family = family};
    if (link >= m->n_link) m->n_link = link + 1;
    set_iface(l, i);
    /* Nobody was heard for a while: the shared name may be another's by now. */
    if (is_first && m->claim != CLAIM_NONE) shared_start(m, m->n_shared, now);
    respond_probe(l, now + 1 + core_random(m, PROBE_START_MS));
    browse_start(m, l, now);
}

void core_link_down(struct mdns_core *m, uint32_t link, uint64_t now) {
    uint32_t index = m->link[link].on.index;
    bool is_alone = true;
    m->link[link].is_used = false;
    for (int i = 0; i < MDNS_HELD; i++) {
        if (m->held[i].link == link) m->held[i].is_used = false;
    }
    for (uint32_t k = 0; k < m->n_link; k++) {
        if (m->link[k].is_used && m->link[k].on.index == index) is_alone = false;
    }
    if (!is_alone) return;
    browse_forget_link(m, index);
    browse_report(m, now);
}

static bool has_addr(const struct iface *i, const struct if_addr *a) {
    for (uint32_t k = 0; k < i->n_addr && k < IF_ADDRS; k++) {
        if (i->addr[k].family == a->family && memcmp(i->addr[k].b, a->b, sizeof a->b) == 0)
            return true;
    }
    return false;
}

void core_link_addrs(struct mdns_core *m, uint32_t link, const struct iface *i, uint64_t now) {
    struct mdns_link *l = &m->link[link];
    uint64_t gone = 0, all = 0;
    bool is_new = i->n_addr != l->on.n_addr;
    for (uint32_t k = 0; k < l->on.n_addr; k++) {
        if (!has_addr(i, &l->on.addr[k]))
            gone |= SLOT_BIT(S_ADDR + k) | SLOT_BIT(S_BACK + k) | SLOT_BIT(S_SHARED + k);
    }
    if (!gone && !is_new) {
        set_iface(l, i);  // a prefix may have changed
        return;
    }
    respond_goodbye(m, link, gone);
    set_iface(l, i);
    for (uint32_t k = 0; k < IF_ADDRS; k++) {  // other addresses in these slots now
        l->sent_at[S_ADDR + k] = l->sent_at[S_BACK + k] = l->sent_at[S_SHARED + k] = 0;
        all |= SLOT_BIT(S_ADDR + k) | SLOT_BIT(S_BACK + k) | SLOT_BIT(S_SHARED + k);
    }
    l->due &= ~gone;
    if (l->proof != PROOF_HELD) return;
    l->announce |= all;
    l->n_announce = ANNOUNCE_TIMES;
    l->announce_at = now;
}

/* ---- packets */

/* FNV-1a: the packets of others need not be unlike ours in it, only our own be known again. */
static uint64_t mark_of(const uint8_t *p, size_t n) {
    uint64_t h = 0xcbf29ce484222325U;
    for (size_t i = 0; i < n; i++) h = (h ^ p[i]) * 0x100000001b3U;
    return h;
}

void core_send(struct mdns_core *m, uint32_t link, const struct mdns_end *to, bool is_own) {
    if (dns_is_empty(&m->out)) return;
    size_t n = dns_end(&m->out);
    if (is_own) m->mark[m->n_mark++ % MDNS_MARKS] = mark_of(m->out.b, n);
    m->counts.sent++;
    m->hooks.send(m->hooks.ctx, link, to, m->out.b, n);
}

static bool is_marked(const struct mdns_core *m, const uint8_t *p, size_t n) {
    if (n > DNS_SEND_MAX) return false;
    uint64_t mark = mark_of(p, n);
    for (uint32_t i = 0; i < m->n_mark && i < MDNS_MARKS; i++) {
        if (m->mark[i] == mark) return true;
    }
    return false;
}

void core_packet(struct mdns_core *m, uint32_t link, const struct mdns_end *from, bool is_multicast,
                 const uint8_t *p, size_t n, uint64_t now) {
    struct mdns_link *l = &m->link[link];
    struct dns_reader r;
    if (!l->is_used || from->family != l->family) return;
    m->counts.received++;
    if (!may_pass(&m->receive_at, RECEIVE_BURST_MS, 1 + n / RECEIVE_PER_MS, now)) return;
    if (!iface_is_on_link(&l->on, from->family, from->b)) return;
    if (!dns_read(&r, p, n) || !dns_is_sound(&r)) {
        m->counts.malformed++;
        return;
    }
    if (r.flags & (DNS_OPCODE | DNS_RCODE)) return;  // 18.3, 18.11
    bool is_response = r.flags & DNS_RESPONSE;
    if (is_response && from->port != MDNS_PORT) return;  // section 6
    /* Multicast comes back to its sender, over each interface on the same link. Questions are not
     * looked at: those of another node may be the same to the byte. */
    if ((is_response || r.left[DNS_AUTHORITY]) && is_marked(m, p, n)) return;
    if (!is_response) {
        respond_query(m, link, from, is_multicast, &r, now);
        return;
    }
    respond_response(m, link, &r, now);
    browse_response(m, link, &r, now);
    browse_report(m, now);
}

/* ---- time and orders */

void core_tick(struct mdns_core *m, uint64_t now) {
    respond_tick(m, now);
    shared_tick(m, now);
    browse_tick(m, now);
    browse_report(m, now);
}

uint64_t core_next(const struct mdns_core *m) {
    uint64_t a = respond_next(m), b = browse_next(m);
    return sooner(a < b ? a : b, m->claim_at);
}

void core_update(struct mdns_core *m, const struct mdns_facts *f, uint64_t now) {
    uint64_t was = own_cluster(m);
    if (own_same_facts(&m->facts, f)) return;
    m->facts = *f;
    own_texts(m);
    respond_announce(m, SLOT_BIT(S_TXT + SVC_DAIR), now);
    if (m->claim != CLAIM_NONE && own_cluster(m) != was) shared_start(m, 1, now);
}

void core_serve(struct mdns_core *m, bool is_serving, uint64_t now) {
    const uint64_t own = SLOT_BIT(S_PTR) | SLOT_BIT(S_META) | SLOT_BIT(S_SRV) | SLOT_BIT(S_TXT);
    const uint64_t slots = own << SVC_HTTP | own << SVC_OLLAMA;
    if (is_serving == m->is_serving) return;
    if (is_serving) {
        m->is_serving = true;
        respond_announce(m, slots, now);
        shared_start(m, 1, now);
        return;
    }
    for (uint32_t k = 0; k < m->n_link; k++) {
        if (m->link[k].is_used) respond_goodbye(m, k, slots);
    }
    shared_stop(m);
    m->is_serving = false;
}

void core_goodbye(struct mdns_core *m, uint64_t now) {
    (void)now;
    for (uint32_t k = 0; k < m->n_link; k++) {
        if (m->link[k].is_used) respond_goodbye(m, k, UINT64_MAX);
    }
}
