/* test_cipher.c - the cipher below the channels, whoever provides its primitives on this machine (see
 * image/toolchain/mbedtls.alt.c): the published example, and every way to cut a text into updates. */
#include "tap.h"

#include <mbedtls/chacha20.h>
#include <mbedtls/chachapoly.h>
#include <mbedtls/poly1305.h>
#include <string.h>

enum { LONG = 700, TAG = 16 };

static mbedtls_chachapoly_context aead;

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

/* The counter's first block, RFC 8439 2.3.2, by way of RFC 8439 A.1's all-zero key. */
static void keystream(void) {
    static const uint8_t want[16] = {0x76, 0xb8, 0xe0, 0xad, 0xa0, 0xf1, 0x3d, 0x90,
                                     0x40, 0x5d, 0x6a, 0xe5, 0x53, 0x86, 0xbd, 0x28};
    uint8_t zero[64] = {0}, out[64];
    mbedtls_chacha20_context c;
    mbedtls_chacha20_init(&c);
    mbedtls_chacha20_setkey(&c, zero);
    mbedtls_chacha20_starts(&c, zero, 0);
    int r = mbedtls_chacha20_update(&c, sizeof zero, zero, out);
    tap_ok(!r && !memcmp(out, want, sizeof want), "RFC 8439's keystream of zeros");
    mbedtls_chacha20_starts(&c, zero, UINT32_MAX - 2);
    tap_ok(mbedtls_chacha20_update(&c, LONG, (uint8_t[LONG]){0}, (uint8_t[LONG]){0}) != 0,
           "keystream is not used twice when the counter comes round");
    mbedtls_chacha20_free(&c);
}

/* A text in three updates, cut at a and b, gives what it gives in one. */
static void cuts(void) {
    static uint8_t text[LONG], whole[LONG], parts[LONG], mac[TAG], mac_parts[TAG];
    uint8_t key[32] = {1}, nonce[12] = {2};
    for (unsigned i = 0; i < LONG; i++) text[i] = (uint8_t)(i * 37);
    mbedtls_chacha20_context c;
    mbedtls_poly1305_context p;
    mbedtls_chacha20_init(&c);
    mbedtls_poly1305_init(&p);
    mbedtls_chacha20_setkey(&c, key);
    mbedtls_chacha20_starts(&c, nonce, 1);
    mbedtls_chacha20_update(&c, LONG, text, whole);
    mbedtls_poly1305_starts(&p, key);
    mbedtls_poly1305_update(&p, text, LONG);
    mbedtls_poly1305_finish(&p, mac);
    unsigned bad = 0;
    for (size_t a = 0; a <= 200; a += 7) {
        for (size_t b = a; b <= LONG; b += 13) {
            const size_t at[] = {0, a, b, LONG};
            mbedtls_chacha20_starts(&c, nonce, 1);
            mbedtls_poly1305_starts(&p, key);
            for (int i = 0; i < 3; i++) {
                mbedtls_chacha20_update(&c, at[i + 1] - at[i], text + at[i], parts + at[i]);
                mbedtls_poly1305_update(&p, text + at[i], at[i + 1] - at[i]);
            }
            mbedtls_poly1305_finish(&p, mac_parts);
            bad += memcmp(parts, whole, LONG) != 0 || memcmp(mac, mac_parts, TAG) != 0;
        }
    }
    tap_ok(bad == 0, "any three updates give what one gives");
    mbedtls_chacha20_free(&c);
    mbedtls_poly1305_free(&p);
}

int main(void) {
    mbedtls_chachapoly_init(&aead);
    published();
    keystream();
    cuts();
    mbedtls_chachapoly_free(&aead);
    return tap_done();
}
