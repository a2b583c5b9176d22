#include "net/chan.h"

#include "base/clock.h"

#include <assert.h>
#include <errno.h>
#include <mbedtls/hkdf.h>
#include <mbedtls/psa_util.h>
#include <mbedtls/ssl.h>
#include <psa/crypto.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    HEADER = 4,              // a frame's length
    RECORD = 16383,          // most plaintext in one record: 2^14 less its content type
    RECORD_EXTRA = 22,       // header, content type, tag
    RX_CAP = 32 << 10,       // asked of the socket at a time
    TX_FLUSH = 256 << 10,    // sealed bytes that are sent before more is sealed
    FIRST_LIMIT = 64 << 10,  // frames, before chan_limit()
    SPARE = 256              // for what the library sends by itself
};

/* The socket failed or ended under the library's hands; why is in sys_errno. */
enum { BIO_FAILED = -1 };

/* Bytes [at, len) are still to be used. */
struct bytes {
    uint8_t *p;
    size_t at, len, cap;
};

struct chan {
    int fd;
    int sys_errno;  // of the send or recv that failed, 0: the other side closed
    bool is_open;   // the handshake is done
    bool is_failed;
    bool is_measured;
    struct bytes tx, rx;  // sealed, for the socket; from the socket, still sealed
    struct bytes frame;   // chan_recv: the frame being put together
    size_t limit;
    size_t left;           // of the frame that chan_frame() announced
    uint8_t head[HEADER];  // of the next one
    unsigned n_head;
    bool in_frame;   // chan_recv: its length is known
    uint64_t io_ns;  // of crypt_ns, to be taken off: time in the socket
    struct chan_stats stats;
    mbedtls_ssl_context ssl;
    mbedtls_ssl_config conf;
    uint8_t stage[RECORD];  // plaintext of the record being filled
};

static const uint16_t groups[] = {MBEDTLS_SSL_IANA_TLS_GROUP_X25519, 0};
static const int suites[] = {MBEDTLS_TLS1_3_CHACHA20_POLY1305_SHA256, 0};
/* Public and the same for all: who is who stands in the PSK itself. */
static const uint8_t identity[] = "dair/1";

/* --- keys and random numbers --- */

static bool random_bytes(uint8_t *out, size_t n) {
    while (n) {
        ssize_t got = getrandom(out, n, 0);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return false;
        out += got;
        n -= (size_t)got;
    }
    return true;
}

/* Mbed TLS's own source of random numbers (MBEDTLS_PSA_CRYPTO_EXTERNAL_RNG). */
psa_status_t mbedtls_psa_external_get_random(mbedtls_psa_external_random_context_t *context,
                                             uint8_t *output, size_t size, size_t *length) {
    (void)context;
    *length = 0;
    if (!random_bytes(output, size)) return PSA_ERROR_INSUFFICIENT_ENTROPY;
    *length = size;
    return PSA_SUCCESS;
}

MUST chan_random(void *out, size_t n, struct err *e) {
    return random_bytes(out, n) || err_sys(e, "the system gives no random numbers");
}

MUST chan_init(struct err *e) {
    psa_status_t status = psa_crypto_init();
    /* Filled at its first use, without a lock: not by two threads' first handshakes. */
    (void)mbedtls_ssl_list_ciphersuites();
    return status == PSA_SUCCESS || err_set(e, ERR_IO, "no cryptography (PSA %d)", (int)status);
}

static MUST derive(const struct cluster_key *k, const void *info, size_t n_info, uint8_t *out,
                   size_t n_out, struct err *e) {
    const mbedtls_md_info_t *sha256 = mbedtls_md_info_from_type(MBEDTLS_MD_SHA256);
    int r = mbedtls_hkdf(sha256, NULL, 0, k->b, KEY_LEN, info, n_info, out, n_out);
    return r == 0 || err_set(e, ERR_IO, "cannot derive a key (-0x%04x)", (unsigned)-r);
}

MUST chan_key_print(const struct cluster_key *k, uint64_t *print, struct err *e) {
    static const char info[] = "dair/1 fingerprint";
    uint8_t b[8];
    *print = 0;
    if (!derive(k, info, sizeof info - 1, b, sizeof b, e)) return false;
    for (unsigned i = 0; i < sizeof b; i++) *print |= (uint64_t)b[i] << (8 * i);
    if (!*print) *print = 1;  // 0 is "no key"
    return true;
}

static uint8_t *put(uint8_t *to, const void *from, size_t n) {
    memcpy(to, from, n);
    return to + n;
}

static uint8_t *put_u64(uint8_t *to, uint64_t v) {
    for (unsigned i = 0; i < 8; i++) to[i] = (uint8_t)(v >> (8 * i));
    return to + 8;
}

static MUST derive_psk(const struct chan_setup *s, uint8_t psk[static PSK_LEN], struct err *e) {
    bool is_client = s->role == CHAN_CLIENT;
    uint8_t info[sizeof identity + 2 * (ID_LEN + 8) + 9], *p = info;
    p = put(p, identity, sizeof identity);  // its NUL parts it from what follows
    p = put(p, (is_client ? &s->self : &s->peer)->b, ID_LEN);
    p = put_u64(p, is_client ? s->self_instance : s->peer_instance);
    p = put(p, (is_client ? &s->peer : &s->self)->b, ID_LEN);
    p = put_u64(p, is_client ? s->peer_instance : s->self_instance);
    *p++ = (uint8_t)s->kind;
    p = put_u64(p, s->epoch);
    assert(p == info + sizeof info);
    return derive(&s->key, info, sizeof info, psk, PSK_LEN, e);
}

/* --- the socket below TLS --- */

/* Room for n more; what was used is given up first. */
static bool bytes_room(struct bytes *b, size_t n) {
    if (b->at == b->len) b->at = b->len = 0;
    if (b->cap - b->len >= n) return true;
    if (b->at) {
        memmove(b->p, b->p + b->at, b->len - b->at);
        b->len -= b->at;
        b->at = 0;
        if (b->cap - b->len >= n) return true;
    }
    size_t cap = b->cap ? b->cap : 4096;
    while (cap - b->len < n) cap *= 2;
    uint8_t *p = realloc(b->p, cap);
    if (!p) return false;
    b->p = p;
    b->cap = cap;
    return true;
}

/* Mbed TLS hands over a record: kept, so that all records of a frame go out by one send(). How much
 * may be kept is checked before anything is sealed. */
static int on_sealed(void *ctx, const unsigned char *p, size_t n) {
    struct chan *c = ctx;
    if (n > INT32_MAX || !bytes_room(&c->tx, n)) return MBEDTLS_ERR_SSL_ALLOC_FAILED;
    memcpy(c->tx.p + c->tx.len, p, n);
    c->tx.len += n;
    if (c->is_open) c->stats.sent_wire += n;
    return (int)n;
}

static int fill(struct chan *c) {
    uint64_t start = c->is_measured ? clock_ns() : 0;
    ssize_t got;
    do got = recv(c->fd, c->rx.p, c->rx.cap, MSG_DONTWAIT);
    while (got < 0 && errno == EINTR);
    if (c->is_measured) c->io_ns += clock_ns() - start;
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return MBEDTLS_ERR_SSL_WANT_READ;
    c->rx.at = 0;
    c->rx.len = got > 0 ? (size_t)got : 0;
    c->sys_errno = got < 0 ? errno : 0;
    return got > 0 ? 0 : BIO_FAILED;
}

/* Mbed TLS wants bytes; what the socket has is taken in larger pieces than it asks for. */
static int on_wanted(void *ctx, unsigned char *p, size_t n) {
    struct chan *c = ctx;
    if (c->rx.at == c->rx.len) {
        int r = fill(c);
        if (r) return r;
    }
    size_t have = c->rx.len - c->rx.at;
    if (n > have) n = have;
    memcpy(p, c->rx.p + c->rx.at, n);
    c->rx.at += n;
    if (c->is_open) c->stats.received_wire += n;
    return (int)n;
}

static enum chan_io failed(struct chan *c) {
    c->is_failed = true;
    return CHAN_FAILED;
}

/* What Mbed TLS's code r means, in the words of whoever is not at fault. */
static enum chan_io tls_failed(struct chan *c, int r, const char *when, struct err *e) {
    switch (r) {
    case BIO_FAILED:
        errno = c->sys_errno;
        if (errno)
            err_sys(e, "the connection was lost %s", when);
        else
            err_set(e, ERR_IO, "the other side closed the connection %s", when);
        break;
    case MBEDTLS_ERR_SSL_CONN_EOF:
    case MBEDTLS_ERR_SSL_PEER_CLOSE_NOTIFY:
        err_set(e, ERR_IO, "the other side closed the connection %s", when);
        break;
    case MBEDTLS_ERR_SSL_ALLOC_FAILED: err_set(e, ERR_MEMORY, "no memory for a connection"); break;
    case MBEDTLS_ERR_SSL_FATAL_ALERT_MESSAGE:
        err_set(e, ERR_IO, "the other side refused %s", when);
        break;
    default:
        err_set(e, ERR_FORMAT,
                "what came is not from a holder of the key, or was changed on the "
                "way (-0x%04x %s)",
                (unsigned)-r, when);
    }
    return failed(c);
}

/* --- life --- */

static MUST open_tls(struct chan *c, const struct chan_setup *s, struct err *e) {
    uint8_t psk[PSK_LEN];
    if (!derive_psk(s, psk, e)) return false;
    int end = s->role == CHAN_CLIENT ? MBEDTLS_SSL_IS_CLIENT : MBEDTLS_SSL_IS_SERVER;
    int r = mbedtls_ssl_config_defaults(&c->conf, end, MBEDTLS_SSL_TRANSPORT_STREAM,
                                        MBEDTLS_SSL_PRESET_DEFAULT);
    mbedtls_ssl_conf_rng(&c->conf, mbedtls_psa_get_random, MBEDTLS_PSA_RANDOM_STATE);
    mbedtls_ssl_conf_min_tls_version(&c->conf, MBEDTLS_SSL_VERSION_TLS1_3);
    mbedtls_ssl_conf_max_tls_version(&c->conf, MBEDTLS_SSL_VERSION_TLS1_3);
    mbedtls_ssl_conf_tls13_key_exchange_modes(&c->conf,
                                              MBEDTLS_SSL_TLS1_3_KEY_EXCHANGE_MODE_PSK_EPHEMERAL);
    mbedtls_ssl_conf_ciphersuites(&c->conf, suites);
    mbedtls_ssl_conf_groups(&c->conf, groups);
    if (!r) r = mbedtls_ssl_conf_psk(&c->conf, psk, PSK_LEN, identity, sizeof identity - 1);
    explicit_bzero(psk, sizeof psk);
    if (!r) r = mbedtls_ssl_setup(&c->ssl, &c->conf);
    if (r) return err_set(e, ERR_MEMORY, "no memory for a connection (-0x%04x)", (unsigned)-r);
    mbedtls_ssl_set_bio(&c->ssl, c, on_sealed, on_wanted, NULL);
    return true;
}

MUST chan_open(struct chan **out, int fd, const struct chan_setup *s, struct err *e) {
    *out = NULL;
    struct chan *c = calloc(1, sizeof *c);
    uint8_t *rx = malloc(RX_CAP);
    if (!c || !rx) {
        free(c);
        free(rx);
        close(fd);
        return err_set(e, ERR_MEMORY, "no memory for a connection");
    }
    c->fd = fd;
    c->rx = (struct bytes){.p = rx, .cap = RX_CAP};
    c->limit = FIRST_LIMIT;
    mbedtls_ssl_init(&c->ssl);
    mbedtls_ssl_config_init(&c->conf);
    if (!open_tls(c, s, e)) {
        chan_close(c);
        return false;
    }
    *out = c;
    return true;
}

void chan_close(struct chan *c) {
    if (!c) return;
    struct err ignored;
    if (c->is_open && !c->is_failed) {
        (void)mbedtls_ssl_close_notify(&c->ssl);
        (void)chan_flush(c, &ignored);
    }
    mbedtls_ssl_free(&c->ssl);
    mbedtls_ssl_config_free(&c->conf);
    close(c->fd);
    free(c->tx.p);
    free(c->rx.p);
    free(c->frame.p);
    explicit_bzero(c->stage, sizeof c->stage);
    free(c);
}

/* With another key a server finds the binder wrong, and its client is sent an alert. */
static bool is_other_key(int r) {
    return r == MBEDTLS_ERR_SSL_HANDSHAKE_FAILURE || r == MBEDTLS_ERR_SSL_FATAL_ALERT_MESSAGE ||
           r == MBEDTLS_ERR_SSL_UNKNOWN_IDENTITY;
}

enum chan_io chan_handshake(struct chan *c, struct err *e) {
    if (c->is_failed) return err_set(e, ERR_IO, "the connection has failed"), CHAN_FAILED;
    int r;
    do r = mbedtls_ssl_handshake(&c->ssl);
    while (r == MBEDTLS_ERR_SSL_WANT_READ && c->rx.at < c->rx.len);
    struct err flush;
    enum chan_io sent = chan_flush(c, r ? &flush : e);  // an alert, too, should leave
    if (r == MBEDTLS_ERR_SSL_WANT_READ || r == MBEDTLS_ERR_SSL_WANT_WRITE) {
        if (sent == CHAN_FAILED) *e = flush;
        return sent == CHAN_FAILED ? sent : CHAN_AGAIN;
    }
    if (r && is_other_key(r)) {
        err_set(e, ERR_USAGE, "the other side has another cluster key");
        return failed(c);
    }
    if (r) return tls_failed(c, r, "in the handshake", e);
    c->is_open = c->is_open || sent == CHAN_DONE;
    return sent;
}

static size_t wire_size(size_t frame) {
    size_t n = frame + HEADER;
    return n + (n + RECORD - 1) / RECORD * RECORD_EXTRA;
}

/* All that chan_send() may keep, and a last alert. Pages that are never used cost nothing. */
void chan_limit(struct chan *c, size_t frame) {
    assert(frame < UINT32_MAX / 4);
    c->limit = frame;
    size_t most = 2 * wire_size(frame) + SPARE;
    if (most <= c->tx.cap) return;
    uint8_t *p = realloc(c->tx.p, most);
    if (!p) return;  // asked for again when it is needed, and told then
    c->tx.p = p;
    c->tx.cap = most;
}

/* --- sending --- */

enum chan_io chan_flush(struct chan *c, struct err *e) {
    if (c->is_failed) return err_set(e, ERR_IO, "the connection has failed"), CHAN_FAILED;
    while (c->tx.at < c->tx.len) {
        ssize_t n =
            send(c->fd, c->tx.p + c->tx.at, c->tx.len - c->tx.at, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return CHAN_AGAIN;
        if (n < 0) {
            err_sys(e, "the connection was lost");
            return failed(c);
        }
        c->tx.at += (size_t)n;
    }
    c->tx.at = c->tx.len = 0;
    return CHAN_DONE;
}

static MUST seal(struct chan *c, const uint8_t *p, size_t n, struct err *e) {
    uint64_t start = c->is_measured ? clock_ns() : 0;
    int r = mbedtls_ssl_write(&c->ssl, p, n);
    if (c->is_measured) c->stats.crypt_ns += clock_ns() - start;
    if (r == (int)n) return true;
    (void)tls_failed(c, r < 0 ? r : MBEDTLS_ERR_SSL_INTERNAL_ERROR, "while sending", e);
    return false;
}

/* Header and parts as records, all full but the last. */
static MUST seal_frame(struct chan *c, const struct iovec *part, int n_part, size_t total,
                       struct err *e) {
    for (unsigned i = 0; i < HEADER; i++) c->stage[i] = (uint8_t)(total >> (8 * i));
    size_t staged = HEADER;
    for (int i = 0; i < n_part; i++) {
        const uint8_t *p = part[i].iov_base;
        size_t n = part[i].iov_len;
        while (n) {
            if (!staged && n >= RECORD) {  // a whole record where it lies
                if (!seal(c, p, RECORD, e)) return false;
                p += RECORD;
                n -= RECORD;
            } else {
                size_t k = n < RECORD - staged ? n : RECORD - staged;
                memcpy(c->stage + staged, p, k);
                staged += k;
                p += k;
                n -= k;
                if (staged < RECORD) continue;
                if (!seal(c, c->stage, RECORD, e)) return false;
                staged = 0;
            }
            if (c->tx.len - c->tx.at >= TX_FLUSH && chan_flush(c, e) == CHAN_FAILED) return false;
        }
    }
    return !staged || seal(c, c->stage, staged, e);
}

enum chan_io chan_send(struct chan *c, const struct iovec *part, int n_part, struct err *e) {
    size_t total = 0;
    assert(c->is_open);
    for (int i = 0; i < n_part; i++) total += part[i].iov_len;
    if (chan_flush(c, e) == CHAN_FAILED) return CHAN_FAILED;
    if (total > c->limit) {
        err_set(e, ERR_LIMIT, "a message of %zu bytes, of at most %zu", total, c->limit);
        return failed(c);
    }
    size_t kept = c->tx.len - c->tx.at;
    if (kept + wire_size(total) > 2 * wire_size(c->limit)) {
        err_set(e, ERR_LIMIT, "the other side takes nothing: %zu bytes wait for it", kept);
        return failed(c);
    }
    if (!seal_frame(c, part, n_part, total, e)) return CHAN_FAILED;
    c->stats.sent_payload += total;
    return chan_flush(c, e);
}

/* --- receiving --- */

/* Up to n bytes of plaintext; *got how many. */
static enum chan_io unseal(struct chan *c, uint8_t *to, size_t n, size_t *got, struct err *e) {
    *got = 0;
    if (c->is_failed) return err_set(e, ERR_IO, "the connection has failed"), CHAN_FAILED;
    uint64_t start = c->is_measured ? clock_ns() : 0, io = c->io_ns;
    enum chan_io result = CHAN_DONE;
    while (*got < n) {
        int r = mbedtls_ssl_read(&c->ssl, to + *got, n - *got);
        if (r > 0) {
            *got += (size_t)r;
            continue;
        }
        /* Only an empty socket ends this: nobody wakes us for what is in rx already. */
        if (r == MBEDTLS_ERR_SSL_WANT_READ && c->rx.at < c->rx.len) continue;
        if (r == MBEDTLS_ERR_SSL_WANT_READ || r == MBEDTLS_ERR_SSL_WANT_WRITE) {
            result = CHAN_AGAIN;
        } else {
            result = tls_failed(
                c, r ? r : MBEDTLS_ERR_SSL_CONN_EOF,
                c->left || c->n_head ? "in the middle of a message" : "between messages", e);
        }
        break;
    }
    if (c->is_measured && *got) c->stats.crypt_ns += clock_ns() - start - (c->io_ns - io);
    return result;
}

enum chan_io chan_frame(struct chan *c, size_t *len, struct err *e) {
    assert(c->is_open && !c->left);
    size_t got;
    enum chan_io io = unseal(c, c->head + c->n_head, HEADER - c->n_head, &got, e);
    c->n_head += (unsigned)got;
    if (io != CHAN_DONE) return io;
    size_t n = 0;
    for (unsigned i = 0; i < HEADER; i++) n |= (size_t)c->head[i] << (8 * i);
    c->n_head = 0;
    if (n > c->limit) {
        err_set(e, ERR_FORMAT, "a message of %zu bytes, of at most %zu", n, c->limit);
        return failed(c);
    }
    *len = c->left = n;
    return CHAN_DONE;
}

enum chan_io chan_take(struct chan *c, void *dst, size_t n, size_t *got, struct err *e) {
    assert(c->is_open && n <= c->left);
    enum chan_io io = unseal(c, dst, n, got, e);
    c->left -= *got;
    c->stats.received_payload += *got;
    return io;
}

/* For the frame at hand: twice what there was, so that a growing size does not grow it each time. */
static MUST frame_room(struct chan *c, struct err *e) {
    struct bytes *f = &c->frame;
    size_t cap = 256 + 2 * f->cap;
    if (cap > c->limit) cap = c->limit;
    if (cap < f->len || !cap) cap = f->len + !f->len;
    free(f->p);
    f->p = malloc(cap);
    f->cap = f->p ? cap : 0;
    return f->p || err_set(e, ERR_MEMORY, "no memory for a message of %zu bytes", cap);
}

enum chan_io chan_recv(struct chan *c, const uint8_t **p, size_t *len, struct err *e) {
    struct bytes *f = &c->frame;
    size_t got;
    if (!c->in_frame) {
        enum chan_io io = chan_frame(c, &f->len, e);
        if (io != CHAN_DONE) return io;
        f->at = 0;
        c->in_frame = true;
    }
    if ((!f->p || f->len > f->cap) && !frame_room(c, e)) return failed(c);
    enum chan_io io = chan_take(c, f->p + f->at, f->len - f->at, &got, e);
    f->at += got;
    if (io != CHAN_DONE) return io;
    c->in_frame = false;
    *p = f->p;
    *len = f->len;
    return CHAN_DONE;
}

/* --- what the owner asks --- */

int chan_fd(const struct chan *c) {
    return c->fd;
}

uint32_t chan_events(const struct chan *c) {
    return EPOLLIN | (c->tx.at < c->tx.len ? EPOLLOUT : 0);
}

void chan_stats(const struct chan *c, struct chan_stats *s) {
    *s = c->stats;
}

void chan_measure(struct chan *c, bool on) {
    c->is_measured = on;
}
