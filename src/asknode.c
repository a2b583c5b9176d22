/* asknode.c - one request over HTTP/1.0, so that the answer ends where the connection does. */
#include "asknode.h"

#include "base/clock.h"

#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Waits for fd until `until_ns`; false: the time is over. */
static bool wait_fd(int fd, short events, uint64_t until_ns) {
    struct pollfd p = {.fd = fd, .events = events};
    for (;;) {
        uint64_t now = clock_ns();
        int ms = now < until_ns ? (int)((until_ns - now) / 1000000) : 0;
        int n = poll(&p, 1, ms);
        if (n > 0) return true;
        if (n == 0 || errno != EINTR) return false;
    }
}

static int connect_one(const struct addrinfo *i, uint64_t until_ns) {
    int fd = socket(i->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int bad = 0;
    socklen_t len = sizeof bad;
    if (fd < 0) return -1;
    if (connect(fd, i->ai_addr, i->ai_addrlen) == 0) return fd;
    if (errno != EINPROGRESS) bad = errno;
    if (!bad && !wait_fd(fd, POLLOUT, until_ns)) bad = ETIMEDOUT;
    if (!bad && getsockopt(fd, SOL_SOCKET, SO_ERROR, &bad, &len) != 0) bad = errno;
    if (!bad) return fd;
    close(fd);
    errno = bad;
    return -1;
}

static MUST dial(const struct node_address *a, uint64_t until_ns, int *fd, struct err *e) {
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    struct addrinfo *all = NULL;
    int code = getaddrinfo(a->host, a->port, &hints, &all);
    if (code != 0) {
        return err_set(e, ERR_IO, "cannot find the machine %.120s: %s; give its address instead",
                       a->host, gai_strerror(code));
    }
    *fd = -1;
    for (const struct addrinfo *i = all; i && *fd < 0; i = i->ai_next) {
        *fd = connect_one(i, until_ns);
    }
    int why = errno;
    freeaddrinfo(all);
    if (*fd >= 0) return true;
    errno = why;
    if (why != ECONNREFUSED) return err_sys(e, "cannot reach %.120s port %s", a->host, a->port);
    return err_set(e, ERR_IO,
                   "nobody listens at %.120s port %s; is `dair node` running there? --host names "
                   "another",
                   a->host, a->port);
}

static MUST send_request(int fd, const struct node_address *a, uint64_t until_ns, struct err *e) {
    char text[sizeof a->host + 128];
    bool is_six = strchr(a->host, ':') != NULL;
    size_t at = 0, len = (size_t)snprintf(text, sizeof text,
                                          "GET /status.json HTTP/1.0\r\nHost: %s%s%s:%s\r\n\r\n",
                                          is_six ? "[" : "", a->host, is_six ? "]" : "", a->port);
    while (at < len) {
        ssize_t n = send(fd, text + at, len - at, MSG_NOSIGNAL);
        if (n > 0) at += (size_t)n;
        if (n >= 0 || errno == EINTR || (errno == EAGAIN && wait_fd(fd, POLLOUT, until_ns)))
            continue;
        return err_sys(e, "cannot ask %.120s", a->host);
    }
    return true;
}

static MUST receive(int fd, const struct node_address *a, uint64_t until_ns, unsigned ms,
                    struct node_answer *out, struct err *e) {
    while (out->len < ASKNODE_MOST) {
        ssize_t n = recv(fd, out->text + out->len, ASKNODE_MOST - out->len, 0);
        if (n == 0) break;
        if (n > 0) out->len += (size_t)n;
        if (n > 0 || errno == EINTR) continue;
        if (errno != EAGAIN) return err_sys(e, "%.120s broke off its answer", a->host);
        if (!wait_fd(fd, POLLIN, until_ns)) {
            return err_set(e, ERR_IO, "%.120s port %s did not answer within %u s", a->host, a->port,
                           ms / 1000);
        }
    }
    out->text[out->len] = '\0';
    if (out->len < ASKNODE_MOST) return true;
    return err_set(e, ERR_LIMIT, "the answer of %.120s is longer than %d bytes", a->host,
                   ASKNODE_MOST);
}

/* The body of an answer that says 200. */
static MUST find_body(struct node_answer *t, const struct node_address *a, struct err *e) {
    const char *end = strstr(t->text, "\r\n\r\n");
    bool is_http = strncmp(t->text, "HTTP/1.", 7) == 0 && end;
    if (!is_http || strncmp(t->text + 8, " 200", 4) != 0) {
        return err_set(e, ERR_FORMAT,
                       "what listens at %.120s port %s is no dair node (it answers %.30s); --host "
                       "names another",
                       a->host, a->port, is_http ? t->text + 9 : "something else than HTTP");
    }
    t->body = end + 4;
    return true;
}

MUST asknode(const struct node_address *a, unsigned ms, struct node_answer *out, struct err *e) {
    uint64_t until = clock_ns() + (uint64_t)ms * 1000000;
    int fd;
    *out = (struct node_answer){.text = malloc(ASKNODE_MOST + 1)};
    if (!out->text) return err_set(e, ERR_MEMORY, "no memory for the answer");
    if (!dial(a, until, &fd, e)) return false;
    bool ok = send_request(fd, a, until, e) && receive(fd, a, until, ms, out, e);
    close(fd);
    return ok && find_body(out, a, e);
}

void asknode_free(struct node_answer *out) {
    free(out->text);
    *out = (struct node_answer){0};
}
