#include "net/preamble.h"

#include "base/cursor.h"

/* 8 bytes that no text protocol begins with; the line ends show a transfer that changes them. */
static const uint8_t magic[8] = {'D', 'A', 'I', 'R', '\r', '\n', 0x1A, 0};
enum { SPARE = 6 };  // zero

static uint8_t *put_u64(uint8_t *to, uint64_t v) {
    for (unsigned i = 0; i < 8; i++) to[i] = (uint8_t)(v >> (8 * i));
    return to + 8;
}

void preamble_write(uint8_t out[static PREAMBLE_LEN], const struct preamble *p) {
    uint8_t *to = out;
    memset(out, 0, PREAMBLE_LEN);
    memcpy(to, magic, sizeof magic);
    to += sizeof magic;
    *to++ = PROTOCOL_VERSION;
    *to++ = (uint8_t)p->kind;
    to = put_u64(to + SPARE, p->epoch);
    memcpy(to, p->id.b, ID_LEN);
    to = put_u64(to + ID_LEN, p->instance);
    to = put_u64(to, p->print);
    (void)put_u64(to, p->old_print);
}

MUST preamble_read(struct preamble *p, const uint8_t in[static PREAMBLE_LEN], struct err *e) {
    struct cursor c;
    uint8_t head[sizeof magic], spare[SPARE], any = 0;
    cursor_mem(&c, in, PREAMBLE_LEN);
    (void)cursor_bytes(&c, head, sizeof head);
    unsigned version = cursor_u8(&c), kind = cursor_u8(&c);
    (void)cursor_bytes(&c, spare, sizeof spare);
    *p = (struct preamble){.kind = (enum chan_kind)kind, .epoch = cursor_u64(&c)};
    (void)cursor_bytes(&c, p->id.b, ID_LEN);
    p->instance = cursor_u64(&c);
    p->print = cursor_u64(&c);
    p->old_print = cursor_u64(&c);
    if (c.failed || memcmp(head, magic, sizeof magic) != 0) {
        return err_set(e, ERR_FORMAT, "this is not the cluster port of a dair node");
    }
    if (version != PROTOCOL_VERSION) {
        return err_set(e, ERR_UNSUPPORTED,
                       "the node speaks version %u of the cluster's protocol, "
                       "this one version %u: update the older",
                       version, PROTOCOL_VERSION);
    }
    for (unsigned i = 0; i < SPARE; i++) any |= spare[i];
    uint8_t id = 0;
    for (unsigned i = 0; i < ID_LEN; i++) id |= p->id.b[i];
    if (any || !id || !p->instance || (kind != CHAN_CONTROL && kind != CHAN_DATA)) {
        return err_set(e, ERR_FORMAT, "the node opens with a malformed preamble");
    }
    return true;
}

const struct cluster_key *preamble_key(const struct keys *k, const struct preamble *p,
                                       bool we_are_client, bool *is_old) {
    uint64_t ours = k->has_key ? k->print : 0, ours_old = k->has_old ? k->old_print : 0;
    bool new_old = ours && ours == p->old_print, old_new = ours_old && ours_old == p->print;
    *is_old = false;
    if (ours && ours == p->print) return &k->key;
    *is_old = true;
    /* Two nodes that change in opposite directions have both: the client's current key goes first. */
    if (new_old && (we_are_client || !old_new)) return &k->key;
    if (old_new) return &k->old;
    if (ours_old && ours_old == p->old_print) return &k->old;
    return NULL;
}
