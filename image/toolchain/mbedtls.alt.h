/* mbedtls.alt.h - contexts of ChaCha20 and Poly1305 for mbedtls.alt.c. Mbed TLS includes it, under the
 * names chacha20_alt.h and poly1305_alt.h, in place of its own. */
#ifndef MBEDTLS_ALT_H
#define MBEDTLS_ALT_H

#include <stdint.h>

typedef struct mbedtls_chacha20_context {
    unsigned char key[32], nonce[12];
    uint32_t counter; /* of the next block of 64 bytes */
    unsigned left;    /* bytes of the block before it that the last update did not use, its last ones */
} mbedtls_chacha20_context;

typedef struct mbedtls_poly1305_context {
    _Alignas(16) unsigned char state[256]; /* libsodium's */
} mbedtls_poly1305_context;

#endif
