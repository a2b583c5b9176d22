/* Listening sockets: for all interfaces, for one and loopback, and as addresses come and go. */
#include "base/listen.h"
#include "tap.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* Somebody listens at the address. */
static bool is_heard(const char *at, uint16_t port) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    inet_pton(AF_INET, at, &to.sin_addr);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool is = fd >= 0 && connect(fd, (struct sockaddr *)&to, sizeof to) == 0;
    close(fd);
    return is;
}

static struct listen_conf conf(const char *interface, uint16_t port) {
    return (struct listen_conf){
        .interface = interface, .port = port, .has_loopback = true, .who = "a test", .key = "key"};
}

static void check_all(void) {
    struct listen a, b;
    struct err e = {0};
    struct listen_conf c = conf(NULL, 0);
    if (!tap_ok(listen_open(&a, &c, &e), "open for all %s", e.text)) return;
    uint16_t port = a.conf.port;
    tap_ok(a.n == 1 && port && a.changes_fd < 0, "one socket, any port: %u", port);
    tap_ok(is_heard("127.0.0.1", port), "is heard");
    c = conf("", port);
    tap_ok(!listen_open(&b, &c, &e) && e.code == ERR_IO && strstr(e.text, "a test, is taken") &&
               strstr(e.text, "as key"),
           "a taken port: %s", e.text);
    listen_close(&a);
    tap_ok(!is_heard("127.0.0.1", port), "closed");
    c = conf("nothere0", 0);
    tap_ok(!listen_open(&b, &c, &e) && e.code == ERR_USAGE && b.n == 0, "no interface: %s", e.text);
}

static bool set_lo(bool is_up) {
    struct ifreq r = {.ifr_name = "lo"};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return false;
    r.ifr_flags = is_up ? IFF_UP : 0;
    bool ok = ioctl(fd, SIOCSIFFLAGS, &r) == 0;
    close(fd);
    return ok;
}

/* Word of the change has come and was followed. */
static bool follows(struct listen *l, bool until_heard) {
    struct err e = {0};
    for (int i = 0; i < 100; i++) {
        struct pollfd p = {.fd = l->changes_fd, .events = POLLIN};
        if (poll(&p, 1, 50) > 0 && !listen_follow(l, &e)) break;
        if (until_heard == (l->n > 0)) return true;
    }
    printf("# %u sockets; %s\n", l->n, e.text);
    return false;
}

static void check_changes(void) {
    struct listen l;
    struct err e = {0};
    if (unshare(CLONE_NEWNET)) {
        tap_ok(true, "no network of our own here # SKIP wants root");
        return;
    }
    struct listen_conf c = conf("lo", 9000);
    tap_ok(listen_open(&l, &c, &e) && l.n == 0, "an interface without an address is waited for");
    tap_ok(set_lo(true) && follows(&l, true) && is_heard("127.0.0.1", 9000), "it comes: heard");
    uint32_t n = l.n;
    tap_ok(listen_follow(&l, &e) && l.n == n, "no news: the same %u sockets", n);
    tap_ok(set_lo(false) && follows(&l, false), "it goes: no socket");
    tap_ok(set_lo(true) && follows(&l, true) && is_heard("127.0.0.1", 9000), "and again");
    listen_close(&l);
}

int main(void) {
    check_all();
    check_changes();
    return tap_done();
}
