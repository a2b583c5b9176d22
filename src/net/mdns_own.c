#include "net/mdns_state.h"

#include <stdio.h>
#include <string.h>

static const char *const type_name[SERVICES] = {"_dair._tcp.local", "_http._tcp.local",
                                                "_ollama._tcp.local"};

/* ---- names and texts */

MUST own_names(struct mdns_core *m, struct err *e) {
    char suffix[16] = "";
    if (m->n_rename) snprintf(suffix, sizeof suffix, "-%u", m->n_rename + 1);
    size_t room = sizeof m->label - 1 - strlen(suffix);
    snprintf(m->label, sizeof m->label, "%.*s%s", (int)room, m->base, suffix);
    bool ok = dns_name(&m->local, "local") && dns_name(&m->meta, "_services._dns-sd._udp.local") &&
              dns_name_under(&m->host, m->label, &m->local);
    for (int i = 0; ok && i < SERVICES; i++) {
        ok = dns_name(&m->type[i], type_name[i]) &&
             dns_name_under(&m->instance[i], m->label, &m->type[i]);
    }
    return ok || err_set(e, ERR_USAGE, "\"%s\" cannot be a host name", m->base);
}

bool own_shared_name(struct dns_name *n, uint32_t n_shared, char label[static MDNS_NAME]) {
    if (n_shared > 1) {
        snprintf(label, MDNS_NAME, "dair-%u", n_shared);
    } else {
        snprintf(label, MDNS_NAME, "dair");
    }
    struct dns_name local;
    return dns_name(&local, "local") && dns_name_under(n, label, &local);
}

void own_shared(struct mdns_core *m) {
    (void)own_shared_name(&m->shared, m->n_shared, m->shared_label);
}

/* Without a key a node is a cluster of its own: two of them must not share a name. */
uint64_t own_cluster(const struct mdns_core *m) {
    if (m->facts.cluster) return m->facts.cluster;
    uint64_t v = 0;
    for (int i = 0; i < 8; i++) v = v << 8 | m->facts.id.b[i];
    return v;
}

static uint16_t add_text(uint8_t *txt, uint16_t at, size_t room, const char *s) {
    size_t n = strlen(s);
    if (n > 255 || at + 1 + n > room) return at;
    txt[at] = (uint8_t)n;
    memcpy(txt + at + 1, s, n);
    return (uint16_t)(at + 1 + n);
}

void own_texts(struct mdns_core *m) {
    const struct mdns_facts *f = &m->facts;
    char s[48], id[ID_HEX];
    uint8_t *t = m->txt[SVC_DAIR];
    uint16_t n = 0;
    for (int i = 0; i < ID_LEN; i++) snprintf(id + 2 * (ptrdiff_t)i, 3, "%02x", f->id.b[i]);
#define TEXT(...) (snprintf(s, sizeof s, __VA_ARGS__), n = add_text(t, n, TXT_ROOM, s))
    TEXT("id=%s", id);
    TEXT("in=%016llx", (unsigned long long)f->instance);
    TEXT("cf=%016llx", (unsigned long long)f->cluster);
    TEXT("mf=%016llx", (unsigned long long)f->model);
    TEXT("cv=%u", f->contract);
    TEXT("ep=%llu", (unsigned long long)f->epoch);
    m->txt_len[SVC_DAIR] = n;
    m->txt_len[SVC_HTTP] = add_text(m->txt[SVC_HTTP], 0, TXT_ROOM, "path=/");
    m->txt_len[SVC_OLLAMA] = add_text(m->txt[SVC_OLLAMA], 0, TXT_ROOM, "");
    snprintf(s, sizeof s, "cf=%016llx", (unsigned long long)own_cluster(m));
    m->cluster_len = add_text(m->cluster_txt, 0, sizeof m->cluster_txt, s);
#undef TEXT
}

/* n hexadecimal digits, all of the text. */
static bool read_hex(const uint8_t *s, size_t n, size_t want, uint8_t *out) {
    if (n != want) return false;
    for (size_t i = 0; i < n; i++) {
        uint8_t c = s[i], v;
        if (c >= '0' && c <= '9') {
            v = (uint8_t)(c - '0');
        } else if ((c | 32) >= 'a' && (c | 32) <= 'f') {
            v = (uint8_t)((c | 32) - 'a' + 10);
        } else {
            return false;
        }
        out[i / 2] = (uint8_t)(i % 2 ? out[i / 2] | v : v << 4);
    }
    return true;
}

static bool read_word(const uint8_t *s, size_t n, uint64_t *out) {
    uint8_t b[8];
    if (!read_hex(s, n, 16, b)) return false;
    *out = 0;
    for (int i = 0; i < 8; i++) *out = *out << 8 | b[i];
    return true;
}

static bool read_number(const uint8_t *s, size_t n, uint64_t most, uint64_t *out) {
    *out = 0;
    for (size_t i = 0; i < n; i++) {
        if (s[i] < '0' || s[i] > '9' || *out > (most - (uint64_t)(s[i] - '0')) / 10) return false;
        *out = *out * 10 + (uint64_t)(s[i] - '0');
    }
    return n > 0;
}

static const char *const fact_key[] = {"id", "in", "cf", "mf", "cv", "ep"};
enum { FACTS = sizeof fact_key / sizeof *fact_key };

static bool read_fact(unsigned key, const uint8_t *s, size_t n, struct mdns_facts *f) {
    uint64_t v = 0;
    switch (key) {
    case 0: return read_hex(s, n, (size_t)2 * ID_LEN, f->id.b);
    case 1: return read_word(s, n, &f->instance);
    case 2: return read_word(s, n, &f->cluster);
    case 3: return read_word(s, n, &f->model);
    case 4:
        if (!read_number(s, n, UINT32_MAX, &v)) return false;
        f->contract = (uint32_t)v;
        return true;
    default: return read_number(s, n, UINT64_MAX, &f->epoch);
    }
}

bool own_read_facts(const uint8_t *txt, size_t len, struct mdns_facts *f) {
    unsigned seen = 0;
    size_t pos = 0, n;
    const uint8_t *s;
    memset(f, 0, sizeof *f);
    while (dns_txt_next(txt, len, &pos, &s, &n)) {
        if (n < 3 || s[2] != '=') continue;
        for (unsigned k = 0; k < FACTS; k++) {
            bool is_key = (s[0] | 32) == fact_key[k][0] && (s[1] | 32) == fact_key[k][1];
            if (!is_key || (seen & 1U << k)) continue;
            if (!read_fact(k, s + 3, n - 3, f)) return false;
            seen |= 1U << k;
        }
    }
    return pos == len && (seen & 3) == 3;
}

bool own_same_facts(const struct mdns_facts *a, const struct mdns_facts *b) {
    return ident_cmp(&a->id, &b->id) == 0 && a->instance == b->instance &&
           a->cluster == b->cluster && a->model == b->model && a->contract == b->contract &&
           a->epoch == b->epoch;
}

bool own_read_cluster(const uint8_t *txt, size_t len, uint64_t *cluster) {
    size_t pos = 0, n;
    const uint8_t *s;
    while (dns_txt_next(txt, len, &pos, &s, &n)) {
        if (n > 3 && (s[0] | 32) == 'c' && (s[1] | 32) == 'f' && s[2] == '=') {
            return read_word(s + 3, n - 3, cluster);
        }
    }
    return false;
}

void own_back(struct mdns_link *l) {
    for (uint32_t i = 0; i < l->on.n_addr; i++) {
        dns_name_reverse(&l->back[i], l->on.addr[i].b, if_addr_len(l->on.addr[i].family));
    }
}

/* ---- slots */

static uint64_t addr_slots(const struct mdns_link *l, unsigned first) {
    return SLOT_BITS(first, l->on.n_addr);
}

uint64_t own_claimed(const struct mdns_core *m, const struct mdns_link *l) {
    uint64_t s = addr_slots(l, S_ADDR);
    for (unsigned i = 0; i < SERVICES; i++) {
        if (m->port[i]) s |= SLOT_BIT(S_SRV + i) | SLOT_BIT(S_TXT + i);
    }
    return s;
}

uint64_t own_slots(const struct mdns_core *m, const struct mdns_link *l) {
    uint64_t s = addr_slots(l, S_ADDR) | addr_slots(l, S_BACK) | SLOT_BIT(S_NSEC_HOST);
    for (unsigned i = 0; i < SERVICES; i++) {
        if (!m->port[i] || (i != SVC_DAIR && !m->is_serving)) continue;
        s |= SLOT_BIT(S_PTR + i) | SLOT_BIT(S_META + i) | SLOT_BIT(S_SRV + i) |
             SLOT_BIT(S_TXT + i) | SLOT_BIT(S_NSEC + i);
    }
    if (m->claim == CLAIM_HELD) s |= addr_slots(l, S_SHARED) | SLOT_BIT(S_CLUSTER);
    return s;
}

const struct dns_name *own_name(const struct mdns_core *m, const struct mdns_link *l,
                                unsigned slot) {
    if (slot < S_META) return &m->type[slot - S_PTR];
    if (slot < S_SRV) return &m->meta;
    if (slot < S_TXT) return &m->instance[slot - S_SRV];
    if (slot < S_ADDR) return &m->instance[slot - S_TXT];
    if (slot < S_BACK) return &m->host;
    if (slot < S_SHARED) return &l->back[slot - S_BACK];
    if (slot < S_NSEC) return &m->shared;
    if (slot < S_NSEC_HOST) return &m->instance[slot - S_NSEC];
    return &m->host;
}

static const struct if_addr *slot_addr(const struct mdns_link *l, unsigned slot) {
    return &l->on.addr[slot >= S_SHARED ? slot - S_SHARED : slot - S_ADDR];
}

uint16_t own_type(const struct mdns_link *l, unsigned slot) {
    if (slot < S_SRV) return DNS_PTR;
    if (slot < S_TXT) return DNS_SRV;
    if (slot < S_ADDR || slot == S_CLUSTER) return DNS_TXT;
    if (slot >= S_NSEC) return DNS_NSEC;
    if (slot >= S_BACK && slot < S_SHARED) return DNS_PTR;
    return slot_addr(l, slot)->family == AF_INET ? DNS_A : DNS_AAAA;
}

uint32_t own_ttl(unsigned slot) {
    if (slot >= S_SHARED && slot <= S_CLUSTER) return TTL_SHARED;
    bool names_host = (slot >= S_SRV && slot < S_TXT) || slot >= S_ADDR;
    return names_host ? TTL_HOST : TTL_OTHER;
}

bool own_is_unique(unsigned slot) {
    return slot >= S_SRV && !(slot >= S_SHARED && slot <= S_CLUSTER);
}

static size_t put_name(uint8_t *out, const struct dns_name *n) {
    memcpy(out, n->b, n->len);
    return n->len;
}

/* RFC 4034 section 4.1.2: for each block of 256 types its number, a length and a bit for each
 * type. */
static size_t nsec_data(const struct mdns_core *m, const struct mdns_link *l, unsigned slot,
                        uint8_t *out) {
    size_t n = put_name(out, own_name(m, l, slot));
    uint8_t bits[5] = {0};
    if (slot == S_NSEC_HOST) {
        if (iface_has(&l->on, AF_INET)) bits[DNS_A / 8] |= 0x80 >> DNS_A % 8;
        if (iface_has(&l->on, AF_INET6)) bits[DNS_AAAA / 8] |= 0x80 >> DNS_AAAA % 8;
    } else {
        bits[DNS_TXT / 8] |= 0x80 >> DNS_TXT % 8;
        bits[DNS_SRV / 8] |= 0x80 >> DNS_SRV % 8;
    }
    uint8_t len = sizeof bits;
    while (len > 1 && !bits[len - 1]) len--;
    out[n++] = 0;
    out[n++] = len;
    memcpy(out + n, bits, len);
    return n + len;
}

size_t own_data(const struct mdns_core *m, const struct mdns_link *l, unsigned slot,
                uint8_t out[static DNS_DATA]) {
    if (slot < S_META) return put_name(out, &m->instance[slot - S_PTR]);
    if (slot < S_SRV) return put_name(out, &m->type[slot - S_META]);
    if (slot < S_TXT) {  // priority 0, weight 0, port, target (RFC 2782)
        uint16_t port = m->port[slot - S_SRV];
        memset(out, 0, 4);
        out[4] = (uint8_t)(port >> 8);
        out[5] = (uint8_t)port;
        return 6 + put_name(out + 6, &m->host);
    }
    if (slot < S_ADDR) {
        unsigned i = slot - S_TXT;
        memcpy(out, m->txt[i], m->txt_len[i]);
        return m->txt_len[i];
    }
    if (slot == S_CLUSTER) {
        memcpy(out, m->cluster_txt, m->cluster_len);
        return m->cluster_len;
    }
    if (slot >= S_NSEC) return nsec_data(m, l, slot, out);
    if (slot >= S_BACK && slot < S_SHARED) return put_name(out, &m->host);
    const struct if_addr *a = slot_addr(l, slot);
    memcpy(out, a->b, if_addr_len(a->family));
    return if_addr_len(a->family);
}

bool own_is_data(const struct mdns_core *m, const struct mdns_link *l, unsigned slot,
                 const struct dns_item *it) {
    uint8_t data[DNS_DATA];
    size_t n = own_data(m, l, slot, data), fixed = 6;
    if (n != it->len) return false;
    if (it->type == DNS_PTR) fixed = 0;
    if (it->type != DNS_PTR && it->type != DNS_SRV) return memcmp(data, it->data, n) == 0;
    struct dns_name a = {.len = (uint8_t)(n - fixed)}, b = {.len = (uint8_t)(n - fixed)};
    memcpy(a.b, data + fixed, a.len);
    memcpy(b.b, it->data + fixed, b.len);
    return memcmp(data, it->data, fixed) == 0 && dns_name_is(&a, &b);
}

uint64_t own_same(const struct mdns_core *m, const struct mdns_link *l, uint64_t slots,
                  const struct dns_item *it) {
    uint64_t same = 0;
    if (it->cls != DNS_IN) return 0;
    while (slots) {
        unsigned s = take_slot(&slots);
        if (own_type(l, s) == it->type && dns_name_is(own_name(m, l, s), &it->name) &&
            own_is_data(m, l, s, it)) {
            same |= SLOT_BIT(s);
        }
    }
    return same;
}

uint64_t own_asked(const struct mdns_core *m, const struct mdns_link *l,
                   const struct dns_item *it) {
    if (it->cls != DNS_IN && it->cls != DNS_CLASS_ANY) return 0;
    uint64_t left = own_slots(m, l), got = 0, nsec = 0;
    while (left) {
        unsigned s = take_slot(&left);
        if (!dns_name_is(own_name(m, l, s), &it->name)) continue;
        if (s >= S_NSEC) {
            nsec = SLOT_BIT(s);
        } else if (it->type == DNS_ANY || it->type == own_type(l, s)) {
            got |= SLOT_BIT(s);
        }
    }
    return got ? got : nsec;
}

uint64_t own_along(const struct mdns_core *m, const struct mdns_link *l, uint64_t slots) {
    const uint64_t host = addr_slots(l, S_ADDR), shared = addr_slots(l, S_SHARED);
    uint64_t along = 0;
    for (unsigned i = 0; i < SERVICES; i++) {
        if (slots & SLOT_BIT(S_PTR + i)) along |= SLOT_BIT(S_SRV + i) | SLOT_BIT(S_TXT + i);
    }
    if ((slots | along) & SLOT_BITS(S_SRV, SERVICES)) along |= host;
    if ((slots | along) & host) {
        along |= host;
        if (!iface_has(&l->on, AF_INET) || !iface_has(&l->on, AF_INET6))
            along |= SLOT_BIT(S_NSEC_HOST);
    }
    if (slots & shared) along |= shared | SLOT_BIT(S_CLUSTER);
    return along & own_slots(m, l) & ~slots;
}
