/* listen.h - the TCP sockets at which a service is heard: one for all interfaces, or one for each
 * address of a given interface, kept up with as addresses come and go (DHCP renews, a cable is
 * plugged).
 *
 * Binding to addresses needs no rights and, unlike binding to the device (SO_BINDTODEVICE), also hears
 * this machine itself. One thread at a time.
 */
#ifndef BASE_LISTEN_H
#define BASE_LISTEN_H

#include "base/ifaces.h"

enum { LISTENERS = 2 * IF_ADDRS };  // the interface's and loopback's

struct listen_conf {
    const char *interface;  // NULL or "": all
    bool has_loopback;      // with an interface: at loopback's addresses, too
    uint16_t port;          // 0: any
    const char *who, *key;  // for a sentence: "the other nodes", the setting that names the port
};

struct listener {
    int fd;               // non-blocking
    struct if_addr addr;  // unused when there is one for all
};

struct listen {
    struct listen_conf conf;  // strings borrowed; port: the one that was got
    int changes_fd;           // readable when addresses change; -1: nothing to follow
    uint32_t n;
    struct listener at[LISTENERS];
};

/* An interface without an address yet is no failure. Closed by listen_close(), after a failure too.
 * Fails: ERR_USAGE for an unknown interface; ERR_IO when the port is taken or not ours to take. */
MUST listen_open(struct listen *l, const struct listen_conf *c, struct err *e);
void listen_close(struct listen *l);

/* After changes_fd was readable: sockets for new addresses, none for those that went; the others stay
 * open but may change places. Fails: as listen_open, with those kept that could be had. */
MUST listen_follow(struct listen *l, struct err *e);

#endif
