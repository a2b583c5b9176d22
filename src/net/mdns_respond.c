#include "net/mdns_state.h"

#include <string.h>

enum { ECHO_MOST = 8, RIVALS = 16 };

static const uint64_t NSECS = SLOT_BITS(S_NSEC, SERVICES + 1);
static const uint64_t SHARED_NAME = SLOT_BITS(S_SHARED, IF_ADDRS + 1);
static const uint64_t NOT_UNIQUE = SLOT_BITS(S_PTR, 2 * SERVICES) | SHARED_NAME;

/* ---- sending */

struct reply {
    uint32_t link;
    const struct mdns_end *to;       // NULL: to the group
    const struct dns_reader *query;  // of a legacy querier, else NULL
    bool is_goodbye;
};

static void begin_reply(struct mdns_core *m, const struct reply *y) {
    dns_begin(&m->out, y->query ? y->query->id : 0, DNS_RESPONSE | DNS_AA);
    if (!y->query) return;
    m->out.is_plain = true;
    struct dns_reader r = *y->query;
    struct dns_item it;
    for (int i = 0; i < ECHO_MOST && r.left[DNS_QUESTION] && dns_next(&r, &it); i++) {
        (void)dns_put_question(&m->out, &it.name, it.type, false);
    }
}

static bool put_slot(struct mdns_core *m, const struct reply *y, unsigned s,
                     enum dns_section section) {
    const struct mdns_link *l = &m->link[y->link];
    uint8_t data[DNS_DATA];
    size_t n = own_data(m, l, s, data);
    uint32_t ttl = y->is_goodbye ? 0 : own_ttl(s);
    if (y->query && ttl > TTL_LEGACY) ttl = TTL_LEGACY;
    return dns_put_record(&m->out, section, own_name(m, l, s), own_type(l, s),
                          own_is_unique(s) && !y->query, ttl, data, n);
}

/* Answers in as many packets as they need, but one only to a single receiver: it could have lied
 * about who it is. */
static void send_slots(struct mdns_core *m, const struct reply *y, uint64_t answers,
                       uint64_t along) {
    begin_reply(m, y);
    while (answers) {
        unsigned s = take_slot(&answers);
        if (put_slot(m, y, s, DNS_ANSWER)) continue;
        if (y->to) break;
        core_send(m, y->link, y->to, true);
        begin_reply(m, y);
        (void)put_slot(m, y, s, DNS_ANSWER);
    }
    while (along) (void)put_slot(m, y, take_slot(&along), DNS_ADDITIONAL);
    if (m->out.count[DNS_ANSWER]) core_send(m, y->link, y->to, !y->to);
}

/* Of the slots, those not multicast for gap_ms (section 6). */
static uint64_t ready(const struct mdns_link *l, uint64_t slots, uint64_t gap_ms, uint64_t now) {
    uint64_t got = 0;
    while (slots) {
        unsigned s = take_slot(&slots);
        if (!l->sent_at[s] || now - l->sent_at[s] >= gap_ms) got |= SLOT_BIT(s);
    }
    return got;
}

static void multicast(struct mdns_core *m, uint32_t link, uint64_t slots, uint64_t now) {
    struct mdns_link *l = &m->link[link];
    slots &= own_slots(m, l);
    if (!slots) return;
    uint64_t along = ready(l, own_along(m, l, slots), RECORD_GAP_MS, now);
    uint64_t sent = slots | along;
    send_slots(m, &(struct reply){.link = link}, slots, along);
    l->due &= ~sent;  // whoever asked has heard it
    if (!l->due) l->due_at = 0;
    while (sent) l->sent_at[take_slot(&sent)] = now;
}

static void multicast_later(struct mdns_core *m, struct mdns_link *l, uint64_t slots,
                            uint64_t now) {
    if (!slots) return;
    uint64_t at = now + SHARED_LEAST_MS + core_random(m, SHARED_SPAN_MS + 1);
    l->due |= slots;
    if (!l->due_at || at < l->due_at) l->due_at = at;
}

/* What became due, unless it was sent less than a second ago: that waits on. */
static void send_due(struct mdns_core *m, uint32_t link, uint64_t now) {
    struct mdns_link *l = &m->link[link];
    l->due &= own_slots(m, l);
    multicast(m, link, ready(l, l->due, RECORD_GAP_MS, now), now);
    uint64_t left = l->due, next = UINT64_MAX;
    while (left) next = sooner(next, l->sent_at[take_slot(&left)] + RECORD_GAP_MS);
    l->due_at = l->due ? next : 0;
}

void respond_goodbye(struct mdns_core *m, uint32_t link, uint64_t slots) {
    const struct mdns_link *l = &m->link[link];
    slots &= own_slots(m, l) & ~NSECS;
    if (l->proof == PROOF_HELD && slots) {
        send_slots(m, &(struct reply){.link = link, .is_goodbye = true}, slots, 0);
    }
}

/* ---- claiming names (section 8) */

void respond_probe(struct mdns_link *l, uint64_t at) {
    l->proof = PROOF_PROBING;
    l->n_probe = l->n_announce = 0;
    l->probe_at = at;
    l->announce_at = l->due_at = 0;
    l->announce = l->due = 0;
}

/* The first probe alone asks for a unicast answer: port 5353 is shared with other responders of
 * this machine, and the kernel hands a unicast packet to one of them, who may not be us. */
static void send_probe(struct mdns_core *m, uint32_t link) {
    struct mdns_link *l = &m->link[link];
    uint64_t slots = own_claimed(m, l);
    dns_begin(&m->out, 0, 0);
    (void)dns_put_question(&m->out, &m->host, DNS_ANY, !l->n_probe);
    for (unsigned i = 0; i < SERVICES; i++) {
        if (m->port[i]) (void)dns_put_question(&m->out, &m->instance[i], DNS_ANY, !l->n_probe);
    }
    while (slots) {
        unsigned s = take_slot(&slots);
        uint8_t data[DNS_DATA];
        size_t n = own_data(m, l, s, data);
        (void)dns_put_record(&m->out, DNS_AUTHORITY, own_name(m, l, s), own_type(l, s), false,
                             own_ttl(s), data, n);
    }
    core_send(m, link, NULL, true);
    l->n_probe++;
}

static void hold(struct mdns_core *m, struct mdns_link *l, uint64_t now) {
    l->proof = PROOF_HELD;
    l->probe_at = 0;
    l->announce = own_slots(m, l) & ~NSECS;
    l->n_announce = ANNOUNCE_TIMES;
    l->announce_at = now;
    m->is_slow = false;
    if (strcmp(m->label, m->told_label) == 0) return;
    memcpy(m->told_label, m->label, sizeof m->told_label);
    if (m->hooks.on_name) m->hooks.on_name(m->hooks.ctx, m->label);
}

static void rename_host(struct mdns_core *m, uint64_t now) {
    struct err e;
    uint32_t i = m->n_rename++ % MDNS_CONFLICTS;
    uint64_t oldest = m->conflict_at[i];
    m->conflict_at[i] = now;
    if (oldest && now - oldest < CONFLICT_WINDOW_MS) m->is_slow = true;
    /* A longer number in a name that could be one before: it fits, as the base is cut for it. */
    if (!own_names(m, &e)) return;
    for (uint32_t k = 0; k < m->n_link; k++) {
        struct mdns_link *l = &m->link[k];
        if (!l->is_used) continue;
        uint64_t wait = m->is_slow ? CONFLICT_WAIT_MS : 0;
        respond_probe(l, now + wait + core_random(m, PROBE_START_MS + 1));
        memset(l->sent_at, 0, sizeof l->sent_at);
        l->defended_at = 0;
        browse_start(m, l, now);  // who has the old name was taken for us until now
    }
}

void respond_announce(struct mdns_core *m, uint64_t slots, uint64_t now) {
    for (uint32_t k = 0; k < m->n_link; k++) {
        struct mdns_link *l = &m->link[k];
        if (!l->is_used || l->proof != PROOF_HELD) continue;
        l->announce |= slots & ~NSECS;
        l->n_announce = ANNOUNCE_TIMES;
        l->announce_at = now;
    }
}

static void send_announcement(struct mdns_core *m, uint32_t link, uint64_t now) {
    struct mdns_link *l = &m->link[link];
    uint64_t slots = l->announce & own_slots(m, l), at_once = ready(l, slots, RECORD_GAP_MS, now);
    multicast(m, link, at_once, now);
    multicast_later(m, l, slots & ~at_once, now);
    l->announce_at = --l->n_announce ? now + ANNOUNCE_GAP_MS : 0;
    if (!l->n_announce) l->announce = 0;
}

static void tick_link(struct mdns_core *m, uint32_t link, uint64_t now) {
    struct mdns_link *l = &m->link[link];
    if (l->probe_at && now >= l->probe_at) {
        if (l->n_probe < PROBE_TIMES) {
            send_probe(m, link);
            l->probe_at = now + PROBE_GAP_MS;
        } else {
            hold(m, l, now);
        }
    }
    if (l->announce_at && now >= l->announce_at) send_announcement(m, link, now);
    if (l->due_at && now >= l->due_at) send_due(m, link, now);
}

/* ---- two who probe for one name at a time (section 8.2) */

struct rival {
    uint16_t type, len;
    uint8_t data[DNS_DATA];
};
struct rivals {
    unsigned n;
    struct rival r[RIVALS];  // in order
};

static int rival_cmp(const struct rival *a, const struct rival *b) {
    if (a->type != b->type) return a->type < b->type ? -1 : 1;
    int c = memcmp(a->data, b->data, a->len < b->len ? a->len : b->len);
    return c ? c : (a->len > b->len) - (a->len < b->len);
}

/* Data is cut to what we could have ourselves: no cut changes who is first. */
static void rival_add(struct rivals *all, uint16_t type, const uint8_t *data, size_t len) {
    struct rival r = {.type = type, .len = (uint16_t)(len < DNS_DATA ? len : DNS_DATA)};
    if (all->n == RIVALS) return;
    if (r.len) memcpy(r.data, data, r.len);
    unsigned i = all->n++;
    for (; i > 0 && rival_cmp(&r, &all->r[i - 1]) < 0; i--) all->r[i] = all->r[i - 1];
    all->r[i] = r;
}

/* Theirs for `name` come later in order than ours: they win. */
static bool is_lost(struct mdns_core *m, const struct mdns_link *l, const struct dns_name *name,
                    const struct dns_reader *r) {
    struct rivals ours = {0}, theirs = {0};
    struct dns_reader copy = *r;
    struct dns_item it;
    while (dns_next(&copy, &it)) {
        if (it.section == DNS_AUTHORITY && it.cls == DNS_IN && dns_name_is(&it.name, name)) {
            rival_add(&theirs, it.type, it.data, it.len);
        }
    }
    if (!theirs.n) return false;
    uint64_t slots = own_claimed(m, l);
    while (slots) {
        unsigned s = take_slot(&slots);
        if (own_name(m, l, s) != name) continue;
        uint8_t data[DNS_DATA];
        rival_add(&ours, own_type(l, s), data, own_data(m, l, s, data));
    }
    for (unsigned i = 0; i < ours.n && i < theirs.n; i++) {
        int c = rival_cmp(&theirs.r[i], &ours.r[i]);
        if (c) return c > 0;
    }
    return theirs.n > ours.n;
}

static void break_tie(struct mdns_core *m, struct mdns_link *l, const struct dns_reader *r,
                      uint64_t now) {
    bool lost = is_lost(m, l, &m->host, r);
    for (unsigned i = 0; i < SERVICES; i++) {
        if (m->port[i] && is_lost(m, l, &m->instance[i], r)) lost = true;
    }
    if (lost) respond_probe(l, now + PROBE_LOST_MS);
}

/* ---- answering (sections 5 to 7) */

static bool may_unicast(struct mdns_core *m, uint64_t now) {
    return may_pass(&m->unicast_at, UNICAST_BURST * UNICAST_EACH_MS, UNICAST_EACH_MS, now);
}

static void answer(struct mdns_core *m, uint32_t link, const struct mdns_end *from, uint64_t many,
                   uint64_t one, bool is_probe, uint64_t now) {
    struct mdns_link *l = &m->link[link];
    const uint64_t gap = is_probe ? DEFEND_GAP_MS : RECORD_GAP_MS;
    /* 5.4: by unicast only what all have heard within the last quarter of its time to live. */
    for (uint64_t left = one; left;) {
        unsigned s = take_slot(&left);
        uint64_t recent = is_probe ? DEFEND_GAP_MS : (uint64_t)own_ttl(s) * 1000 / 4;
        if (!l->sent_at[s] || now - l->sent_at[s] >= recent) many |= SLOT_BIT(s);
    }
    one &= ~many;
    if (one && may_unicast(m, now)) {
        uint64_t along = own_along(m, l, one);
        send_slots(m, &(struct reply){.link = link, .to = from}, one, along);
    } else {
        many |= one;
    }
    uint64_t at_once = ready(l, is_probe ? many : many & ~NOT_UNIQUE, gap, now);
    multicast(m, link, at_once, now);
    multicast_later(m, l, many & ~at_once, now);
}

/* 6.7: a simple resolver that speaks from a port of its own. */
static void answer_legacy(struct mdns_core *m, uint32_t link, const struct mdns_end *from,
                          uint64_t slots, const struct dns_reader *query, uint64_t now) {
    if (!slots || query->left[DNS_QUESTION] > ECHO_MOST) return;
    if (!may_unicast(m, now)) return;
    uint64_t along = own_along(m, &m->link[link], slots);
    send_slots(m, &(struct reply){.link = link, .to = from, .query = query}, slots, along);
}

static bool same_end(const struct mdns_end *a, const struct mdns_end *b) {
    return a->family == b->family && a->port == b->port && memcmp(a->b, b->b, sizeof a->b) == 0;
}

/* 7.2: more known answers follow in packets of their own. False: no room, answer now. */
static bool hold_query(struct mdns_core *m, struct mdns_held h, uint64_t now) {
    for (int i = 0; i < MDNS_HELD; i++) {
        if (m->held[i].is_used) continue;
        m->held[i] = h;
        m->held[i].is_used = true;
        m->held[i].at = now + TC_LEAST_MS + core_random(m, TC_SPAN_MS + 1);
        return true;
    }
    return false;
}

static void more_known(struct mdns_core *m, uint32_t link, const struct mdns_end *from,
                       uint64_t known) {
    for (int i = 0; i < MDNS_HELD; i++) {
        struct mdns_held *h = &m->held[i];
        if (!h->is_used || h->link != link || !same_end(&h->from, from)) continue;
        h->multicast &= ~known;
        h->unicast &= ~known;
    }
}

/* 7.1: the slots that the querier knows well enough. */
static uint64_t known_slots(const struct mdns_core *m, const struct mdns_link *l,
                            const struct dns_item *it) {
    uint64_t same = own_same(m, l, own_slots(m, l), it), known = 0;
    while (same) {
        unsigned s = take_slot(&same);
        if (it->ttl >= own_ttl(s) / 2) known |= SLOT_BIT(s);
    }
    return known;
}

void respond_query(struct mdns_core *m, uint32_t link, const struct mdns_end *from,
                   bool is_multicast, const struct dns_reader *r, uint64_t now) {
    struct mdns_link *l = &m->link[link];
    const bool is_legacy = from->port != MDNS_PORT, is_probe = r->left[DNS_AUTHORITY] > 0;
    struct dns_reader copy = *r;
    struct dns_item it;
    uint64_t many = 0, one = 0, known = 0;
    if (l->proof == PROOF_PROBING) {
        if (is_probe && !is_legacy) break_tie(m, l, r, now);
        return;
    }
    while (dns_next(&copy, &it) && it.section <= DNS_ANSWER) {
        if (it.section == DNS_ANSWER) {
            known |= known_slots(m, l, &it);
        } else if (it.top || is_legacy || !is_multicast) {
            one |= own_asked(m, l, &it);
        } else {
            many |= own_asked(m, l, &it);
        }
    }
    more_known(m, link, from, known);
    many &= ~known;
    one &= ~(known | many);
    if (is_legacy) {
        answer_legacy(m, link, from, one, r, now);
        return;
    }
    if (!(many | one)) return;
    struct mdns_held h = {.link = link, .from = *from, .multicast = many, .unicast = one};
    if ((r->flags & DNS_TC) && !is_probe && hold_query(m, h, now)) return;
    answer(m, link, from, many, one, is_probe, now);
}

/* ---- hearing others */

/* 7.4: another has just said what we were about to say. 6.6, 10.1: it said so with little time
 * left, or takes back what is ours too: say it again. */
static void heard_same(struct mdns_core *m, struct mdns_link *l, uint64_t same, uint32_t ttl,
                       uint64_t now) {
    while (same) {
        unsigned s = take_slot(&same);
        if (ttl >= own_ttl(s) && !own_is_unique(s)) l->due &= ~SLOT_BIT(s);
        if (ttl < own_ttl(s) / 2 && l->proof == PROOF_HELD) multicast_later(m, l, SLOT_BIT(s), now);
    }
}

/* The record has a name of ours and is not ours. An address of another link of ours is no conflict,
 * nor is a text of this very start of the node: a repeater was slow. */
static bool is_conflict(const struct mdns_core *m, const struct mdns_link *l,
                        const struct dns_item *it) {
    bool is_name = dns_name_is(&it->name, &m->host);
    for (unsigned i = 0; i < SERVICES; i++) {
        if (m->port[i] && dns_name_is(&it->name, &m->instance[i])) is_name = true;
    }
    if (!is_name || !it->ttl || it->type == DNS_NSEC || it->cls != DNS_IN) return false;
    bool is_type = false;
    uint64_t slots = own_claimed(m, l);
    while (slots) {
        unsigned s = take_slot(&slots);
        if (own_type(l, s) == it->type && dns_name_is(own_name(m, l, s), &it->name)) is_type = true;
    }
    if (l->proof == PROOF_HELD && !is_type) return false;
    for (uint32_t k = 0; k < m->n_link; k++) {
        const struct mdns_link *other = &m->link[k];
        if (other->is_used && own_same(m, other, own_claimed(m, other), it)) return false;
    }
    struct mdns_facts f;
    return it->type != DNS_TXT || !own_read_facts(it->data, it->len, &f) ||
           f.instance != m->facts.instance;
}

/* Section 9, with one step before it: the first time we only say that the name is ours, as one
 * packet may be forged or late; who keeps on makes us probe again. */
static void handle_conflict(struct mdns_core *m, uint32_t link, uint64_t now) {
    struct mdns_link *l = &m->link[link];
    m->counts.conflicts++;
    if (l->proof == PROOF_PROBING) {
        rename_host(m, now);
    } else if (l->defended_at && now - l->defended_at < CONFLICT_WINDOW_MS) {
        l->defended_at = now;
        respond_probe(l, now);
    } else {
        l->defended_at = now;
        uint64_t slots = own_claimed(m, l) & own_slots(m, l);
        uint64_t at_once = ready(l, slots, DEFEND_GAP_MS, now);
        multicast(m, link, at_once, now);
        multicast_later(m, l, slots & ~at_once, now);
    }
}

void respond_response(struct mdns_core *m, uint32_t link, const struct dns_reader *r,
                      uint64_t now) {
    struct mdns_link *l = &m->link[link];
    struct dns_reader copy = *r;
    struct dns_item it;
    bool is_ours = false;
    while (dns_next(&copy, &it)) {
        if (it.section != DNS_ANSWER && it.section != DNS_ADDITIONAL) continue;
        shared_record(m, &it, now);
        uint64_t same = own_same(m, l, own_slots(m, l), &it);
        if (same) {
            heard_same(m, l, same, it.ttl, now);
        } else if (is_conflict(m, l, &it)) {
            is_ours = true;
        }
    }
    if (is_ours) handle_conflict(m, link, now);
}

/* ---- time */

void respond_tick(struct mdns_core *m, uint64_t now) {
    for (uint32_t k = 0; k < m->n_link; k++) {
        if (m->link[k].is_used) tick_link(m, k, now);
    }
    for (int i = 0; i < MDNS_HELD; i++) {
        struct mdns_held *h = &m->held[i];
        if (!h->is_used || now < h->at) continue;
        h->is_used = false;
        const struct mdns_link *l = &m->link[h->link];
        if (!l->is_used || l->proof != PROOF_HELD) continue;
        uint64_t slots = own_slots(m, l);
        answer(m, h->link, &h->from, h->multicast & slots, h->unicast & slots, false, now);
    }
}

uint64_t respond_next(const struct mdns_core *m) {
    uint64_t next = UINT64_MAX;
    for (uint32_t k = 0; k < m->n_link; k++) {
        const struct mdns_link *l = &m->link[k];
        if (!l->is_used) continue;
        next = sooner(sooner(sooner(next, l->probe_at), l->announce_at), l->due_at);
    }
    for (int i = 0; i < MDNS_HELD; i++) {
        if (m->held[i].is_used) next = sooner(next, m->held[i].at);
    }
    return next;
}
