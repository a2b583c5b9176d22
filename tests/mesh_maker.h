/* mesh_maker.h - meshes over real TCP connections and real channels, all in this process. */
#ifndef TESTS_MESH_MAKER_H
#define TESTS_MESH_MAKER_H

#include "cluster/coll_net.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static inline struct chan_setup mesh_setup(unsigned self, unsigned peer) {
    struct chan_setup s = {.role = self < peer ? CHAN_CLIENT : CHAN_SERVER,
                           .kind = CHAN_DATA,
                           .epoch = 7,
                           .self_instance = 100 + self,
                           .peer_instance = 100 + peer};
    s.self.b[0] = (uint8_t)(1 + self);
    s.peer.b[0] = (uint8_t)(1 + peer);
    memset(s.key.b, 42, sizeof s.key.b);
    return s;
}

static inline void mesh_socket(int fd, int buffer) {
    if (buffer) {
        (void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof buffer);
        (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof buffer);
    }
    (void)fcntl(fd, F_SETFL, O_NONBLOCK);
}

/* Two ends of a TCP connection over the loopback; buffer: bytes of the sockets' buffers, 0: as it is. */
static inline bool mesh_tcp(int fd[2], int buffer) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof a;
    int l = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    fd[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool ok = !bind(l, (struct sockaddr *)&a, len) && !listen(l, 1) &&
              !getsockname(l, (struct sockaddr *)&a, &len) &&
              !connect(fd[0], (struct sockaddr *)&a, len);
    fd[1] = ok ? accept(l, NULL, NULL) : -1;
    close(l);
    if (fd[1] < 0) return close(fd[0]), false;
    mesh_socket(fd[0], buffer);
    mesh_socket(fd[1], buffer);
    return true;
}

/* A channel's handshake to its end, whoever does the other one. */
static inline MUST mesh_shake(struct chan *c, struct err *e) {
    for (;;) {
        enum chan_io io = chan_handshake(c, e);
        if (io != CHAN_AGAIN) return io == CHAN_DONE;
        struct pollfd p = {.fd = chan_fd(c), .events = (short)chan_events(c)};
        if (poll(&p, 1, 10000) <= 0) return err_set(e, ERR_IO, "no handshake within 10 s");
    }
}

struct mesh_shaker {
    struct chan *chan;
    struct err err;
    bool ok;
};

static inline void *mesh_shake_thread(void *ctx) {
    struct mesh_shaker *s = ctx;
    s->ok = mesh_shake(s->chan, &s->err);
    return NULL;
}

/* Both ends of a channel between nodes i and j. */
static inline MUST mesh_pair(unsigned i, unsigned j, int buffer, struct chan *out[2],
                             struct err *e) {
    int fd[2];
    struct chan_setup s[2] = {mesh_setup(i, j), mesh_setup(j, i)};
    if (!mesh_tcp(fd, buffer)) return err_set(e, ERR_IO, "no TCP over the loopback");
    if (!chan_open(&out[0], fd[0], &s[0], e) || !chan_open(&out[1], fd[1], &s[1], e)) return false;
    struct mesh_shaker other = {.chan = out[1]};
    pthread_t t;
    if (pthread_create(&t, NULL, mesh_shake_thread, &other)) return err_set(e, ERR_IO, "thread");
    bool ok = mesh_shake(out[0], e);
    pthread_join(t, NULL);
    if (ok && !other.ok) *e = other.err;
    return ok && other.ok;
}

/* n nodes, all joined: m [n]. */
static inline MUST mesh_make(struct mesh **m, unsigned n, size_t widest, int buffer,
                             struct err *e) {
    struct chan *c[2];
    for (unsigned i = 0; i < n; i++) {
        if (!mesh_open(&m[i], i, n, widest, e)) return false;
    }
    for (unsigned i = 0; i < n; i++) {
        for (unsigned j = i + 1; j < n; j++) {
            if (!mesh_pair(i, j, buffer, c, e)) return false;
            mesh_link(m[i], j, c[0]);
            mesh_link(m[j], i, c[1]);
        }
    }
    return true;
}

#endif
