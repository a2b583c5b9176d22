/* mbedtls.alt.h - the context of ChaCha20-Poly1305 for mbedtls.alt.c. Mbed TLS includes it, under the name
 * chachapoly_alt.h, in place of its own. */
#ifndef MBEDTLS_ALT_H
#define MBEDTLS_ALT_H

typedef struct mbedtls_chachapoly_context {
    unsigned char key[32];
} mbedtls_chachapoly_context;

#endif
