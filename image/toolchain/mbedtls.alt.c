/* mbedtls.alt.c - the two primitives of ChaCha20-Poly1305 that Mbed TLS lets others provide.
 *
 * Mbed TLS has no SIMD code for them on x86; libsodium has, chosen by the CPU at run time: 4352 bytes
 * are sealed or opened in 0.4 of the time (1088 bytes: in half of it; 68 bytes: a quarter of a
 * microsecond more). The AEAD put together from them (RFC 8439), and the comparison of tags, stay Mbed
 * TLS's. Of libsodium only these two are compiled (libs.sh), so what the rest of it would provide to
 * them stands here: cleared memory and an end when it is misused.
 */
#ifdef __x86_64__

#include "crypto_onetimeauth_poly1305.h"
#include "crypto_stream_chacha20.h"
#include "private/implementations.h"
#include "randombytes.h"
#include "runtime.h"
#include "utils.h"

#include <mbedtls/chacha20.h>
#include <mbedtls/poly1305.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(sizeof(crypto_onetimeauth_poly1305_state) == sizeof(mbedtls_poly1305_context),
               "room for the state");

static crypto_onetimeauth_poly1305_state *state(mbedtls_poly1305_context *c) {
    return (crypto_onetimeauth_poly1305_state *)c->state;
}

/* Before main(), so before there are threads. */
__attribute__((constructor)) static void choose(void) {
    (void)_sodium_runtime_get_cpu_features();
    (void)_crypto_stream_chacha20_pick_best_implementation();
    (void)_crypto_onetimeauth_poly1305_pick_best_implementation();
}

void sodium_memzero(void *const p, const size_t n) {
    explicit_bzero(p, n);
}

void sodium_misuse(void) {
    abort();
}

/* For its functions that make keys, which nobody calls. */
void randombytes_buf(void *const p, const size_t n) {
    (void)p;
    (void)n;
    abort();
}

void mbedtls_chacha20_init(mbedtls_chacha20_context *c) {
    memset(c, 0, sizeof *c);
}

void mbedtls_chacha20_free(mbedtls_chacha20_context *c) {
    if (c) explicit_bzero(c, sizeof *c);
}

int mbedtls_chacha20_setkey(mbedtls_chacha20_context *c, const unsigned char key[32]) {
    memcpy(c->key, key, sizeof c->key);
    return 0;
}

int mbedtls_chacha20_starts(mbedtls_chacha20_context *c, const unsigned char nonce[12],
                            uint32_t counter) {
    memcpy(c->nonce, nonce, sizeof c->nonce);
    c->counter = counter;
    c->left = 0;
    return 0;
}

static void xor_with(unsigned char *out, const unsigned char *in, const unsigned char *with,
                     size_t n) {
    for (size_t i = 0; i < n; i++) out[i] = in[i] ^ with[i];
}

/* The block counter must not come round: that would use keystream twice. */
static int counter_lasts(const mbedtls_chacha20_context *c, size_t n) {
    uint64_t blocks = ((uint64_t)n + 63) / 64;
    return blocks <= UINT32_MAX - c->counter;
}

int mbedtls_chacha20_update(mbedtls_chacha20_context *c, size_t n, const unsigned char *in,
                            unsigned char *out) {
    size_t k = n < c->left ? n : c->left;
    if (!counter_lasts(c, n - k)) return MBEDTLS_ERR_CHACHA20_BAD_INPUT_DATA;
    if (k) { /* TLS never comes here: a record is one update */
        unsigned char stream[64] = {0};
        crypto_stream_chacha20_ietf_xor_ic(stream, stream, sizeof stream, c->nonce, c->counter - 1,
                                           c->key);
        xor_with(out, in, stream + sizeof stream - c->left, k);
        explicit_bzero(stream, sizeof stream);
        c->left -= (unsigned)k;
        in += k, out += k, n -= k;
    }
    if (!n) return 0;
    crypto_stream_chacha20_ietf_xor_ic(out, in, n, c->nonce, c->counter, c->key);
    c->counter += (uint32_t)((n + 63) / 64);
    c->left = (unsigned)(-n % 64);
    return 0;
}

void mbedtls_poly1305_init(mbedtls_poly1305_context *c) {
    memset(c, 0, sizeof *c);
}

void mbedtls_poly1305_free(mbedtls_poly1305_context *c) {
    if (c) explicit_bzero(c, sizeof *c);
}

int mbedtls_poly1305_starts(mbedtls_poly1305_context *c, const unsigned char key[32]) {
    return crypto_onetimeauth_poly1305_init(state(c), key);
}

int mbedtls_poly1305_update(mbedtls_poly1305_context *c, const unsigned char *in, size_t n) {
    return crypto_onetimeauth_poly1305_update(state(c), in, n);
}

int mbedtls_poly1305_finish(mbedtls_poly1305_context *c, unsigned char mac[16]) {
    return crypto_onetimeauth_poly1305_final(state(c), mac);
}

#endif
