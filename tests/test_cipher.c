/* test_cipher.c - the cipher below the channels, which others than Mbed TLS provide (see
 * image/toolchain/mbedtls.alt.c): the published example, and every length beside the AEAD put together from
 * Mbed TLS's own two primitives in plain C. */
#include "tap.h"

#include <mbedtls/chacha20.h>
#include <mbedtls/chachapoly.h>
#include <mbedtls/poly1305.h>
#include <string.h>

enum { LONG = 20000, AAD = 21, TAG = 16 };

static mbedtls_chachapoly_context aead;

#ifdef __x86_64__
extern uint32_t OPENSSL_ia32cap_P[4];  // what the cipher goes by
#endif

/* RFC 8439, 2.8.2 */
static void published(void) {
    static const char text[] =
        "Ladies and Gentlemen of the class of '99: If I could offer you only one "
        "tip for the future, sunscreen would be it.";
    static const uint8_t nonce[12] = {7, 0, 0, 0, 0x40, 0x41, 0x42, 0x43, 0x44, 0x45, 0x46, 0x47};
    static const uint8_t aad[] = {0x50, 0x51, 0x52, 0x53, 0xc0, 0xc1,
                                  0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7};
    static const uint8_t first[16] = {0xd3, 0x1a, 0x8d, 0x34, 0x64, 0x8e, 0x60, 0xdb,
                                      0x7b, 0x86, 0xaf, 0xbc, 0x53, 0xef, 0x7e, 0xc2};
    static const uint8_t want[TAG] = {0x1a, 0xe1, 0x0b, 0x59, 0x4f, 0x09, 0xe2, 0x6a,
                                      0x7e, 0x90, 0x2e, 0xcb, 0xd0, 0x60, 0x06, 0x91};
    const size_t n = sizeof text - 1;
    uint8_t key[32], sealed[sizeof text], opened[sizeof text], tag[TAG];
    for (unsigned i = 0; i < sizeof key; i++) key[i] = (uint8_t)(0x80 + i);
    mbedtls_chachapoly_setkey(&aead, key);
    const uint8_t *plain = (const uint8_t *)text;
    int r =
        mbedtls_chachapoly_encrypt_and_tag(&aead, n, nonce, aad, sizeof aad, plain, sealed, tag);
    tap_ok(!r && !memcmp(sealed, first, sizeof first) && !memcmp(tag, want, TAG),
           "RFC 8439's example is sealed");
    r = mbedtls_chachapoly_auth_decrypt(&aead, n, nonce, aad, sizeof aad, tag, sealed, opened);
    tap_ok(!r && !memcmp(opened, text, n), "and opened");
    unsigned wrong = 0;
    for (size_t bit = 0; bit < 8 * n; bit++) {
        sealed[bit / 8] ^= (uint8_t)(1 << bit % 8);
        wrong +=
            !mbedtls_chachapoly_auth_decrypt(&aead, n, nonce, aad, sizeof aad, tag, sealed, opened);
        sealed[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    tap_ok(wrong == 0, "one wrong bit anywhere is refused");
}

/* RFC 8439, 2.8, from the two primitives. */
static void by_the_book(const uint8_t key[32], const uint8_t nonce[12], const uint8_t *aad,
                        size_t n_aad, const uint8_t *text, size_t n, uint8_t *out, uint8_t *tag) {
    static const uint8_t zero[64];
    uint8_t once[64], lengths[16] = {0};
    mbedtls_chacha20_context c;
    mbedtls_poly1305_context p;
    mbedtls_chacha20_init(&c);
    mbedtls_poly1305_init(&p);
    mbedtls_chacha20_setkey(&c, key);
    mbedtls_chacha20_starts(&c, nonce, 0);
    mbedtls_chacha20_update(&c, sizeof zero, zero, once);
    mbedtls_chacha20_update(&c, n, text, out);
    for (int i = 0; i < 8; i++) {
        lengths[i] = (uint8_t)((uint64_t)n_aad >> 8 * i);
        lengths[8 + i] = (uint8_t)((uint64_t)n >> 8 * i);
    }
    mbedtls_poly1305_starts(&p, once);
    mbedtls_poly1305_update(&p, aad, n_aad);
    mbedtls_poly1305_update(&p, zero, -n_aad % 16);
    mbedtls_poly1305_update(&p, out, n);
    mbedtls_poly1305_update(&p, zero, -n % 16);
    mbedtls_poly1305_update(&p, lengths, sizeof lengths);
    mbedtls_poly1305_finish(&p, tag);
    mbedtls_chacha20_free(&c);
    mbedtls_poly1305_free(&p);
}

static void lengths(const char *how) {
    static uint8_t text[LONG], want[LONG], got[LONG + TAG], want_tag[TAG], tag[TAG], aad[AAD];
    uint8_t key[32], nonce[12];
    unsigned bad = 0, open = 0, beyond = 0;
    for (size_t i = 0; i < sizeof text; i++) text[i] = (uint8_t)(i * 37 + i / 251);
    for (size_t n = 0; n <= LONG; n += n < 1100 ? 1 : 97) {
        size_t n_aad = n % (AAD + 1);
        for (size_t i = 0; i < sizeof key; i++) key[i] = (uint8_t)(n * 7 + i * n);
        for (size_t i = 0; i < sizeof nonce; i++) nonce[i] = (uint8_t)(n + i);
        for (size_t i = 0; i < n_aad; i++) aad[i] = (uint8_t)(n ^ i);
        by_the_book(key, nonce, aad, n_aad, text, n, want, want_tag);
        mbedtls_chachapoly_setkey(&aead, key);
        memcpy(got, text, n);
        memset(got + n, 0x5a, TAG);
        int r = mbedtls_chachapoly_encrypt_and_tag(&aead, n, nonce, aad, n_aad, got, got, tag);
        bad += r || memcmp(got, want, n) || memcmp(tag, want_tag, TAG);
        r = mbedtls_chachapoly_auth_decrypt(&aead, n, nonce, aad, n_aad, want_tag, got, got);
        open += r || memcmp(got, text, n);
        for (int i = 0; i < TAG; i++) beyond += got[n + i] != 0x5a;
    }
    tap_ok(!bad, "sealed in place like by the book, 0 to %d bytes%s", LONG, how);
    tap_ok(!open, "and opened in place%s", how);
    tap_ok(!beyond, "nothing is written behind the text");
}

/* What is refused leaves nothing of the text. */
static void refused(void) {
    uint8_t key[32] = {3}, nonce[12] = {4}, text[100], sealed[100], out[100], tag[TAG];
    unsigned left = 0, taken = 0;
    memset(text, 0x77, sizeof text);
    mbedtls_chachapoly_setkey(&aead, key);
    int r =
        mbedtls_chachapoly_encrypt_and_tag(&aead, sizeof text, nonce, NULL, 0, text, sealed, tag);
    for (int bit = 0; bit < 8 * TAG; bit++) {
        tag[bit / 8] ^= (uint8_t)(1 << bit % 8);
        memset(out, 0xff, sizeof out);
        taken += mbedtls_chachapoly_auth_decrypt(&aead, sizeof text, nonce, NULL, 0, tag, sealed,
                                                 out) != MBEDTLS_ERR_CHACHAPOLY_AUTH_FAILED;
        for (size_t i = 0; i < sizeof out; i++) left += out[i] != 0;
        tag[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    tap_ok(!r && !taken && !left, "each wrong tag is refused, and its text cleared");
}

int main(void) {
    mbedtls_chachapoly_init(&aead);
    published();
    lengths("");
#ifdef __x86_64__
    uint32_t asked = OPENSSL_ia32cap_P[2];
    OPENSSL_ia32cap_P[2] = 0;
    lengths(" without AVX2");
    OPENSSL_ia32cap_P[2] = asked;
#endif
    refused();
    mbedtls_chachapoly_free(&aead);
    return tap_done();
}
