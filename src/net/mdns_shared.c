#include "net/mdns_state.h"

enum { SHARED_MOST = 16 };  // dair-16 is kept whatever others say

static const uint64_t SHARED_NAME = SLOT_BITS(S_SHARED, IF_ADDRS + 1);

void shared_start(struct mdns_core *m, uint32_t n_shared, uint64_t now) {
    shared_stop(m);
    m->n_shared = n_shared;
    own_shared(m);
    m->claim = CLAIM_ASKING;
    m->n_claim = 0;
    m->claim_at = now + 1 + core_random(m, PROBE_START_MS);
}

void shared_stop(struct mdns_core *m) {
    if (m->claim == CLAIM_HELD) {
        for (uint32_t k = 0; k < m->n_link; k++) {
            if (m->link[k].is_used) respond_goodbye(m, k, SHARED_NAME);
        }
    }
    m->claim = CLAIM_NONE;
    m->claim_at = 0;
}

static void move_on(struct mdns_core *m, uint64_t now) {
    if (m->n_shared < SHARED_MOST) shared_start(m, m->n_shared + 1, now);
}

/* Of two clusters that took a name at a time the lower fingerprint keeps it; one who is only asking
 * gives way to any that has it, and all give way to a host whose own name it is. */
static void meet(struct mdns_core *m, const struct dns_item *it, uint64_t now) {
    uint64_t theirs;
    if (it->type == DNS_TXT && own_read_cluster(it->data, it->len, &theirs)) {
        uint64_t ours = own_cluster(m);
        if (theirs == ours) return;
        if (m->claim == CLAIM_HELD && ours < theirs) {
            respond_announce(m, SHARED_NAME, now);
        } else {
            move_on(m, now);
        }
    } else if ((it->type == DNS_A || it->type == DNS_AAAA) && it->top) {
        move_on(m, now);
    }
}

/* Our own cluster has a lower name: one of us came when that was free again. */
static void follow(struct mdns_core *m, const struct dns_item *it, uint64_t now) {
    struct dns_name name;
    char label[MDNS_NAME];
    uint64_t theirs;
    if (it->type != DNS_TXT || !dns_name_is_under(&it->name, &m->local)) return;
    if (!own_read_cluster(it->data, it->len, &theirs) || theirs != own_cluster(m)) return;
    for (uint32_t n = 1; n < m->n_shared; n++) {
        if (!own_shared_name(&name, n, label) || !dns_name_is(&name, &it->name)) continue;
        shared_start(m, n, now);
        return;
    }
}

void shared_record(struct mdns_core *m, const struct dns_item *it, uint64_t now) {
    if (m->claim == CLAIM_NONE || !it->ttl || it->cls != DNS_IN) return;
    if (dns_name_is(&it->name, &m->shared)) {
        meet(m, it, now);
    } else {
        follow(m, it, now);
    }
}

void shared_tick(struct mdns_core *m, uint64_t now) {
    if (m->claim != CLAIM_ASKING || now < m->claim_at) return;
    if (m->n_claim == CLAIM_TIMES) {
        m->claim = CLAIM_HELD;
        m->claim_at = 0;
        respond_announce(m, SHARED_NAME, now);
        return;
    }
    for (uint32_t k = 0; k < m->n_link; k++) {
        if (!m->link[k].is_used) continue;
        dns_begin(&m->out, 0, 0);
        (void)dns_put_question(&m->out, &m->shared, DNS_ANY, false);
        core_send(m, k, NULL, false);
    }
    m->n_claim++;
    m->claim_at = now + CLAIM_GAP_MS;
}
