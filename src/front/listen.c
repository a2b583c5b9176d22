#include "front/listen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BACKLOG = 128 };

union at {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
};

static MUST to_address(const char *address, uint16_t port, union at *out, struct err *e) {
    memset(out, 0, sizeof *out);
    if (address && inet_pton(AF_INET, address, &out->v4.sin_addr) == 1) {
        out->v4.sin_family = AF_INET;
        out->v4.sin_port = htons(port);
        return true;
    }
    if (address && inet_pton(AF_INET6, address, &out->v6.sin6_addr) != 1) {
        return err_set(e, ERR_USAGE, "\"%.64s\" is no address to listen at", address);
    }
    out->v6.sin6_family = AF_INET6;
    out->v6.sin6_port = htons(port);
    return true;
}

static int new_socket(int family) {
    return socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
}

static bool bind_to(int fd, const union at *at, const char *interface) {
    int one = 1, zero = 0;
    bool is_v6 = at->any.sa_family == AF_INET6;
    socklen_t len = is_v6 ? sizeof at->v6 : sizeof at->v4;
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) != 0) return false;
    if (is_v6 && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof zero) != 0) return false;
    if (interface &&
        setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, interface, (socklen_t)strlen(interface)) != 0) {
        return false;
    }
    return bind(fd, &at->any, len) == 0 && listen(fd, BACKLOG) == 0;
}

MUST listen_open(const char *address, const char *interface, uint16_t port, int *out,
                 uint16_t *actual, struct err *e) {
    union at at;
    socklen_t len = sizeof at;
    if (!to_address(address, port, &at, e)) return false;
    int fd = new_socket(at.any.sa_family);
    if (fd < 0 && !address) {  // a kernel without IPv6
        at = (union at){.v4 = {.sin_family = AF_INET, .sin_port = htons(port)}};
        fd = new_socket(AF_INET);
    }
    if (fd < 0) return err_sys(e, "no socket to listen with");
    if (!bind_to(fd, &at, interface) || getsockname(fd, &at.any, &len) != 0) {
        int saved = errno;
        close(fd);
        errno = saved;
        return err_sys(e, "cannot listen on port %u%s%.16s", port, interface ? " of " : "",
                       interface ? interface : "");
    }
    *actual = ntohs(at.any.sa_family == AF_INET ? at.v4.sin_port : at.v6.sin6_port);
    *out = fd;
    return true;
}
