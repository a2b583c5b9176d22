#include "net/mdns_state.h"

#include <netinet/in.h>
#include <string.h>

enum {
    REFRESH_TIMES = 4,
    REFRESH_LEAST_S = 30,  // what lives shorter is not asked for again
    SLACK_MS = 3000,       // what is due that soon is asked for along with what is due
    LOOKS_MOST = 4,        // searches of one packet for a newcomer's cluster
};

/* ---- lives */

static void life_begin(struct mdns_core *m, struct mdns_life *life, uint32_t ttl_s, uint64_t now) {
    if (ttl_s > TTL_MOST) ttl_s = TTL_MOST;
    *life = (struct mdns_life){.at = now,
                               .ttl_s = ttl_s,
                               .jitter_ms = core_random(m, ttl_s * 20),
                               .n_asked = ttl_s < REFRESH_LEAST_S ? REFRESH_TIMES : 0};
}

static void life_let_go(struct mdns_life *life, uint64_t now) {
    if (!life->at) return;
    *life = (struct mdns_life){.at = now, .ttl_s = GOODBYE_MS / 1000, .n_asked = REFRESH_TIMES};
}

static uint64_t life_end(const struct mdns_life *life) {
    return life->at + (uint64_t)life->ttl_s * 1000;
}

/* 5.2: at 80, 85, 90 and 95 % of the time to live, plus up to 2 %, a question is due. 0: not
 * known. */
static uint64_t life_next(const struct mdns_life *life) {
    if (!life->at || life->n_asked >= REFRESH_TIMES) return life->at ? life_end(life) : 0;
    return life->at + (uint64_t)life->ttl_s * 10 * (80 + 5U * life->n_asked) + life->jitter_ms;
}

static bool life_is_over(const struct mdns_life *life, uint64_t now) {
    return life->at && now >= life_end(life);
}

static bool life_is_due(const struct mdns_life *life, uint64_t now) {
    return life->at && life->n_asked < REFRESH_TIMES && life_next(life) <= now;
}

/* ---- the table */

static struct mdns_known *find(struct mdns_core *m, const struct dns_name *instance) {
    for (uint32_t i = 0; i < m->n_peer; i++) {
        if (m->peer[i].is_used && dns_name_is(&m->peer[i].instance, instance)) return &m->peer[i];
    }
    return NULL;
}

static void forget(struct mdns_core *m, struct mdns_known *p) {
    p->is_used = false;
    if (!p->is_reported) return;
    p->is_reported = false;
    m->counts.peers--;
    if (m->hooks.on_gone) m->hooks.on_gone(m->hooks.ctx, &p->told);
}

/* A full table: one that is only a name gives way; one of another cluster to one of ours. Who
 * claims our fingerprint may lie, so those never give way to each other. */
static struct mdns_known *victim(struct mdns_core *m, bool is_our_cluster, uint64_t now) {
    struct mdns_known *v = NULL;
    for (uint32_t i = 0; i < m->n_peer; i++) {
        struct mdns_known *p = &m->peer[i];
        if (p->is_reported || now - p->since < GOODBYE_MS) continue;
        if (!v || p->since < v->since) v = p;
    }
    for (uint32_t i = 0; i < m->n_peer && !v && is_our_cluster; i++) {
        if (m->peer[i].facts.cluster != m->facts.cluster) v = &m->peer[i];
    }
    if (v) forget(m, v);
    return v;
}

static struct mdns_known *add(struct mdns_core *m, const struct dns_name *instance,
                              bool is_our_cluster, uint64_t now) {
    struct mdns_known *p = NULL;
    for (uint32_t i = 0; i < m->n_peer && !p; i++) {
        if (!m->peer[i].is_used) p = &m->peer[i];
    }
    if (!p && m->n_peer < MDNS_PEERS) p = &m->peer[m->n_peer++];
    if (!p) p = victim(m, is_our_cluster, now);
    if (!p) {
        m->counts.ignored_peers++;
        return NULL;
    }
    *p = (struct mdns_known){.is_used = true, .since = now, .instance = *instance};
    return p;
}

static void touch(struct mdns_core *m, struct mdns_known *p) {
    p->is_dirty = m->is_dirty = true;
}

/* ---- what others say */

struct heard {
    struct mdns_core *m;
    const struct mdns_link *l;
    const struct dns_reader *packet;
    int n_look;
    uint64_t now;
};

/* The packet itself shows the instance to be of our cluster. */
static bool shows_our_cluster(struct heard *h, const struct dns_name *instance) {
    struct dns_reader r = *h->packet;
    struct dns_item it;
    struct mdns_facts f;
    if (!h->m->facts.cluster || h->n_look++ >= LOOKS_MOST) return false;
    while (dns_next(&r, &it)) {
        if (it.section == DNS_QUESTION || it.type != DNS_TXT || !dns_name_is(&it.name, instance))
            continue;
        return own_read_facts(it.data, it.len, &f) && f.cluster == h->m->facts.cluster;
    }
    return false;
}

static bool is_table_full(const struct mdns_core *m) {
    for (uint32_t i = 0; i < m->n_peer; i++) {
        if (!m->peer[i].is_used) return false;
    }
    return m->n_peer == MDNS_PEERS;
}

static void hear_ptr(struct heard *h, const struct dns_item *it) {
    struct mdns_core *m = h->m;
    struct dns_name instance = {.len = (uint8_t)it->len};
    memcpy(instance.b, it->data, it->len);
    if (!dns_name_is_under(&instance, &m->type[SVC_DAIR])) return;
    if (dns_name_is(&instance, &m->instance[SVC_DAIR])) return;  // ours, or a conflict over it
    struct mdns_known *p = find(m, &instance);
    if (!it->ttl) {
        if (p) life_let_go(&p->ptr, h->now);
        return;
    }
    if (!p) p = add(m, &instance, is_table_full(m) && shows_our_cluster(h, &instance), h->now);
    if (!p) return;
    if (!p->ptr.at) touch(m, p);
    life_begin(m, &p->ptr, it->ttl, h->now);
}

static void hear_srv(struct heard *h, struct mdns_known *p, const struct dns_item *it) {
    struct dns_name host = {.len = (uint8_t)(it->len - 6)};
    memcpy(host.b, it->data + 6, host.len);
    uint16_t port = (uint16_t)(it->data[4] << 8 | it->data[5]);
    bool same = p->srv.at && p->port == port && dns_name_is(&p->host, &host);
    if (!it->ttl) {
        if (same) life_let_go(&p->srv, h->now);
        return;
    }
    if (!port || !dns_name_is_under(&host, &h->m->local) || dns_name_is(&host, &h->m->host)) return;
    if (!same) {
        if (!dns_name_is(&p->host, &host)) p->n_addr = 0;
        p->host = host;
        p->port = port;
        touch(h->m, p);
    }
    life_begin(h->m, &p->srv, it->ttl, h->now);
}

static void hear_txt(struct heard *h, struct mdns_known *p, const struct dns_item *it) {
    struct mdns_facts f;
    if (!own_read_facts(it->data, it->len, &f)) return;
    bool same = p->txt.at && own_same_facts(&f, &p->facts);
    if (!it->ttl) {
        if (same) life_let_go(&p->txt, h->now);
        return;
    }
    if (!same) {
        p->facts = f;
        touch(h->m, p);
    }
    life_begin(h->m, &p->txt, it->ttl, h->now);
}

/* Only what can be an address of a machine on this link: what strangers name is connected to. */
static bool is_usable(const struct mdns_link *l, uint8_t family, const uint8_t *b) {
    static const uint8_t zero[16];
    if (memcmp(b, zero, family == AF_INET ? 1 : 15) == 0) return false;  // 0.x.x.x, ::, ::1
    if (family == AF_INET && (b[0] >= 224 || (b[0] == 127 && !l->on.is_loopback))) return false;
    if (family == AF_INET6 && b[0] == 0xff) return false;
    return iface_is_on_link(&l->on, family, b);
}

static void hear_addr_of(struct heard *h, struct mdns_known *p, const struct dns_item *it) {
    const uint8_t family = it->type == DNS_A ? AF_INET : AF_INET6;
    const uint32_t index = h->l->on.index;
    struct mdns_addr *mine = NULL;
    for (uint32_t i = 0; i < p->n_addr; i++) {
        struct mdns_addr *a = &p->addr[i];
        if (a->family != family || a->index != index) continue;
        if (memcmp(a->b, it->data, it->len) == 0) {
            mine = a;
        } else if (it->top && h->now - a->life.at > GOODBYE_MS) {
            life_let_go(&a->life, h->now);  // 10.2: the set of a second ago is replaced
        }
    }
    if (!it->ttl) {
        if (mine) life_let_go(&mine->life, h->now);
        return;
    }
    if (!mine) {
        if (p->n_addr == MDNS_ADDRS || !is_usable(h->l, family, it->data)) return;
        mine = &p->addr[p->n_addr++];
        *mine = (struct mdns_addr){.index = index, .family = family};
        memcpy(mine->b, it->data, it->len);
        touch(h->m, p);
    }
    life_begin(h->m, &mine->life, it->ttl, h->now);
}

static void hear_addr(struct heard *h, const struct dns_item *it) {
    for (uint32_t i = 0; i < h->m->n_peer; i++) {
        struct mdns_known *p = &h->m->peer[i];
        if (p->is_used && p->srv.at && dns_name_is(&p->host, &it->name)) hear_addr_of(h, p, it);
    }
}

static bool is_record(const struct dns_item *it) {
    return (it->section == DNS_ANSWER || it->section == DNS_ADDITIONAL) && it->cls == DNS_IN;
}

/* Three passes, as a packet's records come in any order: an instance is known before its service,
 * the service before the addresses of its host. */
void browse_response(struct mdns_core *m, uint32_t link, const struct dns_reader *r, uint64_t now) {
    struct heard h = {.m = m, .l = &m->link[link], .packet = r, .now = now};
    struct dns_item it;
    for (int pass = 0; pass < 3; pass++) {
        struct dns_reader copy = *r;
        while (dns_next(&copy, &it)) {
            if (!is_record(&it)) continue;
            bool is_addr = it.type == DNS_A || it.type == DNS_AAAA;
            if (pass == 0 && it.type == DNS_PTR && dns_name_is(&it.name, &m->type[SVC_DAIR])) {
                hear_ptr(&h, &it);
            } else if (pass == 1 && (it.type == DNS_SRV || it.type == DNS_TXT)) {
                struct mdns_known *p = find(m, &it.name);
                if (p && it.type == DNS_SRV) hear_srv(&h, p, &it);
                if (p && it.type == DNS_TXT) hear_txt(&h, p, &it);
            } else if (pass == 2 && is_addr) {
                hear_addr(&h, &it);
            }
        }
    }
}

/* ---- news */

static bool is_own_address(const struct mdns_core *m, const struct mdns_addr *a) {
    for (uint32_t k = 0; k < m->n_link; k++) {
        const struct mdns_link *l = &m->link[k];
        for (uint32_t i = 0; l->is_used && i < l->on.n_addr; i++) {
            const struct if_addr *o = &l->on.addr[i];
            if (o->family == a->family && memcmp(o->b, a->b, sizeof a->b) == 0) return true;
        }
    }
    return false;
}

static void put_addr(struct mdns_peer *out, const struct mdns_addr *a) {
    struct sockaddr_storage s = {0};
    if (a->family == AF_INET) {
        struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(out->port)};
        memcpy(&in.sin_addr, a->b, 4);
        memcpy(&s, &in, sizeof in);
    } else {
        bool is_local = a->b[0] == 0xfe && (a->b[1] & 0xc0) == 0x80;
        struct sockaddr_in6 in6 = {.sin6_family = AF_INET6,
                                   .sin6_port = htons(out->port),
                                   .sin6_scope_id = is_local ? a->index : 0};
        memcpy(&in6.sin6_addr, a->b, 16);
        memcpy(&s, &in6, sizeof in6);
    }
    for (uint32_t i = 0; i < out->n_addr; i++) {
        if (memcmp(&out->addr[i], &s, sizeof s) == 0) return;  // heard on two links
    }
    out->addr[out->n_addr++] = s;
}

/* As the caller sees it; false while something lacks. */
static bool describe(const struct mdns_core *m, const struct mdns_known *p, struct mdns_peer *out) {
    memset(out, 0, sizeof *out);
    if (!p->ptr.at || !p->srv.at || !p->txt.at) return false;
    out->facts = p->facts;
    out->port = p->port;
    dns_name_label(&p->host, out->host, sizeof out->host);
    for (uint32_t i = 0; i < p->n_addr; i++) {
        bool is_us = p->port == m->port[SVC_DAIR] && is_own_address(m, &p->addr[i]);
        if (!is_us) put_addr(out, &p->addr[i]);
    }
    return out->n_addr > 0;
}

static bool same_peer(const struct mdns_peer *a, const struct mdns_peer *b) {
    return own_same_facts(&a->facts, &b->facts) && strcmp(a->host, b->host) == 0 &&
           a->port == b->port && a->n_addr == b->n_addr &&
           memcmp(a->addr, b->addr, a->n_addr * sizeof *a->addr) == 0;
}

static void report(struct mdns_core *m, struct mdns_known *p, uint64_t now) {
    struct mdns_peer is;
    p->is_dirty = false;
    if (!describe(m, p, &is)) {
        if (!p->ask_at) {
            p->n_asked = 0;
            p->ask_at = now + SHARED_LEAST_MS + core_random(m, SHARED_SPAN_MS + 1);
        }
        if (!p->is_reported) return;
        p->is_reported = false;
        p->since = now;
        m->counts.peers--;
        if (m->hooks.on_gone) m->hooks.on_gone(m->hooks.ctx, &p->told);
        return;
    }
    p->ask_at = 0;
    if (p->is_reported && same_peer(&is, &p->told)) return;
    if (!p->is_reported) m->counts.peers++;
    p->is_reported = true;
    p->told = is;
    if (m->hooks.on_peer) m->hooks.on_peer(m->hooks.ctx, &p->told);
}

void browse_report(struct mdns_core *m, uint64_t now) {
    if (!m->is_dirty) return;
    m->is_dirty = false;
    for (uint32_t i = 0; i < m->n_peer; i++) {
        if (m->peer[i].is_used && m->peer[i].is_dirty) report(m, &m->peer[i], now);
    }
}

static void drop_addr(struct mdns_core *m, struct mdns_known *p, uint32_t i) {
    p->addr[i] = p->addr[--p->n_addr];
    touch(m, p);
}

void browse_forget_link(struct mdns_core *m, uint32_t index) {
    for (uint32_t k = 0; k < m->n_peer; k++) {
        struct mdns_known *p = &m->peer[k];
        for (uint32_t i = 0; p->is_used && i < p->n_addr;) {
            if (p->addr[i].index == index) {
                drop_addr(m, p, i);
            } else {
                i++;
            }
        }
    }
}

/* ---- questions */

void browse_start(struct mdns_core *m, struct mdns_link *l, uint64_t now) {
    l->browse_at = now + SHARED_LEAST_MS + core_random(m, SHARED_SPAN_MS + 1);
    l->browse_ms = 0;
    for (uint32_t i = 0; i < m->n_peer;
         i++) {  // names known from before may be complete again here
        struct mdns_known *p = &m->peer[i];
        if (!p->is_used || p->is_reported) continue;
        p->n_asked = 0;
        p->ask_at = l->browse_at;
    }
}

/* Who is there? With those that we know (7.1), us among them: so our own question, coming back by
 * multicast, asks us for nothing. The first question wishes unicast answers (5.4); as another
 * responder of this machine may get them, the next follows soon. */
static void browse(struct mdns_core *m, uint32_t link, uint64_t now) {
    struct mdns_link *l = &m->link[link];
    const struct dns_name *type = &m->type[SVC_DAIR];
    bool is_first = !l->browse_ms;
    l->browse_ms = is_first ? BROWSE_FIRST_MS : l->browse_ms * 2;
    if (l->browse_ms > BROWSE_MOST_MS) l->browse_ms = BROWSE_MOST_MS;
    l->browse_at = now + l->browse_ms;
    l->browsed_at = now;
    dns_begin(&m->out, 0, 0);
    (void)dns_put_question(&m->out, type, DNS_PTR, is_first);
    if (own_slots(m, l) & SLOT_BIT(S_PTR + SVC_DAIR)) {
        (void)dns_put_record(&m->out, DNS_ANSWER, type, DNS_PTR, false, TTL_OTHER,
                             m->instance[SVC_DAIR].b, m->instance[SVC_DAIR].len);
    }
    for (uint32_t i = 0; i < m->n_peer; i++) {
        const struct mdns_known *p = &m->peer[i];
        if (!p->is_used || !p->ptr.at || life_end(&p->ptr) <= now) continue;
        uint32_t left = (uint32_t)((life_end(&p->ptr) - now) / 1000);
        if (left <= p->ptr.ttl_s / 2) continue;
        const struct dns_name *n = &p->instance;
        if (dns_put_record(&m->out, DNS_ANSWER, type, DNS_PTR, false, left, n->b, n->len)) continue;
        m->out.flags |= DNS_TC;  // 7.2: the rest follows
        core_send(m, link, NULL, false);
        dns_begin(&m->out, 0, 0);
        (void)dns_put_record(&m->out, DNS_ANSWER, type, DNS_PTR, false, left, n->b, n->len);
    }
    core_send(m, link, NULL, false);
}

static void send_questions(struct mdns_core *m) {
    for (uint32_t k = 0; k < m->n_link; k++) {
        if (m->link[k].is_used) core_send(m, k, NULL, false);
    }
    dns_begin(&m->out, 0, 0);
}

static void ask(struct mdns_core *m, const struct dns_name *name, uint16_t type) {
    if (dns_put_question(&m->out, name, type, false)) return;
    send_questions(m);
    (void)dns_put_question(&m->out, name, type, false);
}

static void ask_lacking(struct mdns_core *m, struct mdns_known *p, uint64_t now) {
    if (!p->srv.at) ask(m, &p->instance, DNS_SRV);
    if (!p->txt.at) ask(m, &p->instance, DNS_TXT);
    if (p->srv.at && !p->n_addr) {
        ask(m, &p->host, DNS_A);
        ask(m, &p->host, DNS_AAAA);
    }
    if (p->n_asked < 12) p->n_asked++;
    p->ask_at = now + ((uint64_t)500 << p->n_asked);
}

static bool refresh_one(struct mdns_life *life, uint64_t now) {
    if (!life_is_due(life, now + SLACK_MS)) return false;
    life->n_asked++;
    return true;
}

static void ask_again(struct mdns_core *m, struct mdns_known *p, uint64_t now) {
    bool is_due = life_is_due(&p->srv, now) || life_is_due(&p->txt, now);
    for (uint32_t i = 0; i < p->n_addr; i++) is_due = is_due || life_is_due(&p->addr[i].life, now);
    if (life_is_due(&p->ptr, now)) {
        p->ptr.n_asked++;
        for (uint32_t k = 0; k < m->n_link; k++) {
            struct mdns_link *l = &m->link[k];
            if (l->is_used) l->browse_at = l->browsed_at ? l->browsed_at + BROWSE_GAP_MS : now;
        }
    }
    if (!is_due) return;
    bool v4 = false, v6 = false;
    for (uint32_t i = 0; i < p->n_addr; i++) {
        if (!refresh_one(&p->addr[i].life, now)) continue;
        v4 = v4 || p->addr[i].family == AF_INET;
        v6 = v6 || p->addr[i].family == AF_INET6;
    }
    if (refresh_one(&p->srv, now)) ask(m, &p->instance, DNS_SRV);
    if (refresh_one(&p->txt, now)) ask(m, &p->instance, DNS_TXT);
    if (v4) ask(m, &p->host, DNS_A);
    if (v6) ask(m, &p->host, DNS_AAAA);
}

/* ---- time */

static void expire(struct mdns_core *m, struct mdns_known *p, uint64_t now) {
    struct mdns_life *life[] = {&p->srv, &p->txt};
    for (int i = 0; i < 2; i++) {
        if (!life_is_over(life[i], now)) continue;
        life[i]->at = 0;
        touch(m, p);
    }
    for (uint32_t i = 0; i < p->n_addr;) {
        if (life_is_over(&p->addr[i].life, now)) {
            drop_addr(m, p, i);
        } else {
            i++;
        }
    }
    bool is_stale = !p->is_reported && now - p->since >= INCOMPLETE_MS;
    if (is_stale || life_is_over(&p->ptr, now)) forget(m, p);
}

static uint64_t known_next(const struct mdns_known *p) {
    uint64_t next = sooner(UINT64_MAX, p->ask_at);
    next = sooner(sooner(sooner(next, life_next(&p->ptr)), life_next(&p->srv)), life_next(&p->txt));
    for (uint32_t i = 0; i < p->n_addr; i++) next = sooner(next, life_next(&p->addr[i].life));
    return p->is_reported ? next : sooner(next, p->since + INCOMPLETE_MS);
}

static void tick_peers(struct mdns_core *m, uint64_t now) {
    if (now - m->asked_at < ASK_GAP_MS) return;
    m->asked_at = now;
    dns_begin(&m->out, 0, 0);
    for (uint32_t i = 0; i < m->n_peer; i++) {
        struct mdns_known *p = &m->peer[i];
        if (!p->is_used || known_next(p) > now) continue;
        expire(m, p, now);
        if (!p->is_used) continue;
        if (p->ask_at && now >= p->ask_at) ask_lacking(m, p, now);
        ask_again(m, p, now);
    }
    send_questions(m);
}

void browse_tick(struct mdns_core *m, uint64_t now) {
    tick_peers(m, now);
    for (uint32_t k = 0; k < m->n_link; k++) {
        struct mdns_link *l = &m->link[k];
        if (l->is_used && l->browse_at && now >= l->browse_at) browse(m, k, now);
    }
}

uint64_t browse_next(const struct mdns_core *m) {
    uint64_t next = UINT64_MAX;
    for (uint32_t i = 0; i < m->n_peer; i++) {
        if (m->peer[i].is_used) {
            uint64_t at = known_next(&m->peer[i]);
            if (at < next) next = at;
        }
    }
    if (next < m->asked_at + ASK_GAP_MS) next = m->asked_at + ASK_GAP_MS;
    for (uint32_t k = 0; k < m->n_link; k++) {
        if (m->link[k].is_used) next = sooner(next, m->link[k].browse_at);
    }
    return next;
}
