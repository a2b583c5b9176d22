/* chan.h - a secure channel over a TCP connection; the only file that knows mbedTLS.
 *
 * TLS 1.3, PSK with ephemeral ECDH (RFC 8446), ChaCha20-Poly1305. PSK = HKDF-SHA256(cluster key,
 * "dair/1" | client id | client instance | server id | server instance | kind | epoch): a recorded
 * handshake is worth nothing against another node, start, kind or epoch. Who holds the key is trusted;
 * who does not never gets past the handshake.
 *
 * A channel carries frames: a length of 4 bytes (little-endian) and so many bytes, at most the limit
 * that was set. Everything is non-blocking: what the socket does not take now waits in the channel's
 * own buffers, which are bounded. What came in may wait there too, where no poll sees it: read until
 * CHAN_AGAIN, and once after the handshake without waiting. A failure is final; close it.
 * Cost: 22 bytes a record of at most 16383, 4 a frame; about 48 KiB of memory a channel. No allocation
 * once buffers have grown.
 * Thread: one at a time for a channel; it may be handed from one to another.
 */
#ifndef NET_CHAN_H
#define NET_CHAN_H

#include "net/key.h"

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

enum chan_kind { CHAN_CONTROL = 1, CHAN_DATA = 2 };
enum chan_role { CHAN_CLIENT, CHAN_SERVER };

struct chan_setup {
    enum chan_role role;  // who is the TLS client: the lower (id, instance), whoever dialled
    enum chan_kind kind;
    uint64_t epoch;  // data: of which epoch; control: 0
    struct node_id self, peer;
    uint64_t self_instance, peer_instance;
    struct cluster_key key;
};

struct chan;

enum chan_io { CHAN_FAILED = -1, CHAN_AGAIN = 0, CHAN_DONE = 1 };

/* Once per process, before any other call. */
MUST chan_init(struct err *e);
/* Derive a public 64-bit fingerprint of a key (for key.c). */
MUST chan_key_print(const struct cluster_key *k, uint64_t *print, struct err *e);
/* n random bytes of the operating system (for ident.c and key.c too). */
MUST chan_random(void *out, size_t n, struct err *e);

/* Takes over the connected, non-blocking socket fd (closed by chan_close, and on failure here). */
MUST chan_open(struct chan **out, int fd, const struct chan_setup *s, struct err *e);
void chan_close(struct chan *c);

/* Go on with the handshake. CHAN_AGAIN: wait until chan_events() are ready. CHAN_FAILED: *e says why;
 * ERR_USAGE when it looks like another key. */
enum chan_io chan_handshake(struct chan *c, struct err *e);

/* Frames up to this many bytes; before it 64 KiB. Takes the buffer for sending them now: chan_send() and
 * chan_take() allocate nothing after it. That of chan_recv() grows with the frames that come. */
void chan_limit(struct chan *c, size_t frame);

/* Send one frame of the given parts with one write if the socket takes it (more from 256 KiB up);
 * what it does not take is kept and goes out by chan_flush(). CHAN_AGAIN: kept (all or in part); wait
 * for EPOLLOUT. part is only read.
 * Fails: ERR_IO; ERR_LIMIT when the frame is past the limit, or when more than two frames' worth
 * would have to be kept. */
enum chan_io chan_send(struct chan *c, const struct iovec *part, int n_part, struct err *e);
enum chan_io chan_flush(struct chan *c, struct err *e);

/* The next whole frame: *p [*len], valid until the next call with this channel. CHAN_AGAIN: not there
 * yet. Fails: ERR_IO (closed by the peer, reset), ERR_FORMAT (a length past the limit, bad record). */
enum chan_io chan_recv(struct chan *c, const uint8_t **p, size_t *len, struct err *e);

/* The data plane wants no copy of the frame: its length first (CHAN_DONE), then its bytes in pieces
 * straight to where they belong. *got: how many came in this call; CHAN_DONE when these are all n.
 * The next chan_frame only when all of a frame is taken (an empty one needs no chan_take). */
enum chan_io chan_frame(struct chan *c, size_t *len, struct err *e);
enum chan_io chan_take(struct chan *c, void *dst, size_t n, size_t *got, struct err *e);

int chan_fd(const struct chan *c);
uint32_t
chan_events(const struct chan *c);  // EPOLLIN, and EPOLLOUT while something waits to go out

struct chan_stats {
    uint64_t sent_payload, sent_wire;  // bytes of frames without / with our header, TLS
    uint64_t received_payload, received_wire;
    uint64_t crypt_ns;  // time in sealing and opening (with chan_measure on)
};
void chan_stats(const struct chan *c, struct chan_stats *s);
void chan_measure(struct chan *c, bool on);

#endif
