/* listen.h - the sockets at which strangers are heard. */
#ifndef FRONT_LISTEN_H
#define FRONT_LISTEN_H

#include "base/err.h"

#include <stdint.h>

/* A TCP socket that listens at address:port on the interface; NULL: all of them, both families. port
 * 0: any; *actual gets the one. *fd is owned, non-blocking. Fails: ERR_USAGE for what is no address;
 * ERR_IO when the port is taken or not ours to take. */
MUST listen_open(const char *address, const char *interface, uint16_t port, int *fd,
                 uint16_t *actual, struct err *e);

#endif
