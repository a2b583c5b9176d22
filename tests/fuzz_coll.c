/* Any frames as what another node sends in gathers and casts. What must hold: a gather fails with a
 * sentence, for good, or the other's part is such as its kind may be; and nothing but that part is
 * written, whatever the lengths and the pieces in which bytes come. The channel below is no TLS: what
 * comes through that is what this is given. */
#include "cluster/coll_net.h"
#include "kernels.h"
#include "model/sampler.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/uio.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void expect(bool ok) {
    if (!ok) abort();
}

/* --- the channel: what is left of the input --- */

static struct {
    const uint8_t *p;
    size_t left;
    uint64_t sent, received;
} in;
static int always;  // readable

static unsigned next(void) {
    if (!in.left) return 0;
    in.left--;
    return *in.p++;
}

void __wrap_chan_close(struct chan *c);
void __wrap_chan_close(struct chan *c) {
    (void)c;
}

void __wrap_chan_limit(struct chan *c, size_t frame);
void __wrap_chan_limit(struct chan *c, size_t frame) {
    (void)c, (void)frame;
}

void __wrap_chan_measure(struct chan *c, bool on);
void __wrap_chan_measure(struct chan *c, bool on) {
    (void)c, (void)on;
}

int __wrap_chan_fd(const struct chan *c);
int __wrap_chan_fd(const struct chan *c) {
    (void)c;
    return always;
}

uint32_t __wrap_chan_events(const struct chan *c);
uint32_t __wrap_chan_events(const struct chan *c) {
    (void)c;
    return EPOLLIN;
}

void __wrap_chan_stats(const struct chan *c, struct chan_stats *s);
void __wrap_chan_stats(const struct chan *c, struct chan_stats *s) {
    (void)c;
    *s = (struct chan_stats){.sent_payload = in.sent, .received_payload = in.received};
}

enum chan_io __wrap_chan_send(struct chan *c, const struct iovec *part, int n_part, struct err *e);
enum chan_io __wrap_chan_send(struct chan *c, const struct iovec *part, int n_part, struct err *e) {
    (void)c, (void)e;
    for (int i = 0; i < n_part; i++) in.sent += part[i].iov_len;
    return in.sent & 1 ? CHAN_AGAIN : CHAN_DONE;
}

enum chan_io __wrap_chan_flush(struct chan *c, struct err *e);
enum chan_io __wrap_chan_flush(struct chan *c, struct err *e) {
    (void)c, (void)e;
    return CHAN_DONE;
}

static enum chan_io over(struct err *e) {
    err_set(e, ERR_IO, "the other side closed the connection");
    return CHAN_FAILED;
}

enum chan_io __wrap_chan_frame(struct chan *c, size_t *len, struct err *e);
enum chan_io __wrap_chan_frame(struct chan *c, size_t *len, struct err *e) {
    (void)c;
    if (in.left < 2) return over(e);
    *len = next();
    *len |= (size_t)next() << 8;
    return CHAN_DONE;
}

/* A byte says how many come now, 0: all; with its highest bit the one behind it is repeated. */
enum chan_io __wrap_chan_take(struct chan *c, void *dst, size_t n, size_t *got, struct err *e);
enum chan_io __wrap_chan_take(struct chan *c, void *dst, size_t n, size_t *got, struct err *e) {
    (void)c;
    if (!in.left) return over(e);
    unsigned how = next();
    size_t some = how & 0x7f && (how & 0x7f) < n ? how & 0x7f : n;
    if (how & 0x80) {
        memset(dst, (int)next(), some);
    } else {
        if (some > in.left) return over(e);
        memcpy(dst, in.p, some);
        in.p += some;
        in.left -= some;
    }
    in.received += *got = some;
    return some == n ? CHAN_DONE : CHAN_AGAIN;
}

/* --- what is done with it --- */

enum { ROWS = 64, BLOCKS = 20, WIDEST = ROWS * BLOCKS * 68, CANARY = 0xa5, MESSAGES = 8 };

static void check_acts(const uint8_t *p, size_t n) {
    struct act a;
    for (size_t i = 0; i < n; i++) {
        memcpy(&a, p + i * sizeof a, sizeof a);
        uint32_t bits = (uint32_t)a.d << 16;
        float d;
        memcpy(&d, &bits, sizeof d);
        expect(isfinite(d) && d >= 0);
        for (size_t k = 0; k < Q_BLOCK; k++) expect(a.q[k] != -128);
    }
}

static void check_wire16(const uint8_t *p, size_t n) {
    struct wire16 w;
    for (size_t i = 0; i < n; i++) {
        memcpy(&w, p + i * sizeof w, sizeof w);
        expect(isfinite(w.d) && w.d >= 0);
    }
}

/* A gather of two: the own part is CANARY, and so is all that nobody sends. */
static bool gather(struct mesh *m, struct err *e) {
    static const size_t block[] = {[COLL_ACT] = sizeof(struct act),
                                   [COLL_WIRE16] = sizeof(struct wire16),
                                   [COLL_F32] = sizeof(float),
                                   [COLL_CANDIDATE] = sizeof(struct candidate)};
    static uint8_t buf[2 * WIDEST + ROWS * 64];
    enum coll_kind kind = (enum coll_kind)(next() % 4);
    size_t n_row = 1 + next() % ROWS, gap = next() % 64;
    size_t at[SLICE_MAX + 1] = {0};
    at[1] = next() % BLOCKS * block[kind];
    at[2] = at[1] + next() % BLOCKS * block[kind];
    size_t stride = at[2] + gap;
    struct coll *c = mesh_coll(m);
    memset(buf, CANARY, stride * n_row);
    bool ok = c->gather(c, kind, buf, stride, n_row, at, e);
    for (size_t r = 0; r < n_row; r++) {
        const uint8_t *row = buf + r * stride;
        size_t from = at[!c->self], to = at[!c->self + 1];
        for (size_t i = 0; i < stride; i++) expect((i >= from && i < to) || row[i] == CANARY);
        if (ok && kind == COLL_ACT) check_acts(row + from, (to - from) / block[kind]);
        if (ok && kind == COLL_WIRE16) check_wire16(row + from, (to - from) / block[kind]);
    }
    return ok;
}

static bool hear(struct mesh *m, struct err *e) {
    uint8_t text[100];
    size_t cap = next() % sizeof text, len = 0;
    memset(text, CANARY, sizeof text);
    bool ok = mesh_hear(m, text, cap, &len, e);
    expect(!ok || len <= cap);
    for (size_t i = cap; i < sizeof text; i++) expect(text[i] == CANARY);
    return ok;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static int other;
    struct mesh *m;
    struct err e = {0};
    if (!always) {
        always = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
        expect(always > 0);
    }
    in.p = data;
    in.left = size;
    in.sent = in.received = 0;
    /* The one that hears is not the first of the plan. */
    unsigned self = next() & 1;
    expect(mesh_open(&m, self, 2, WIDEST, &e));
    mesh_link(m, !self, (struct chan *)(void *)&other);
    expect(mesh_wait(m, &e));
    bool ok = true;
    for (unsigned i = 0; ok && in.left && i < MESSAGES; i++) {
        ok = self && next() & 1 ? hear(m, &e) : gather(m, &e);
        expect(ok || (e.code != ERR_NONE && *e.text));
    }
    if (!ok) {
        struct err again = {0};
        expect(mesh_suspect(m) == (int)!self);
        expect(!mesh_greet(m, &again) && again.code == e.code);
    }
    mesh_close(m);
    return 0;
}
