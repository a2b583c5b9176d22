/* mbedtls.alt.c - ChaCha20-Poly1305 (RFC 8439), which Mbed TLS lets others provide.
 *
 * Its own is plain C. BoringSSL has cipher and authenticator in one pass, in assembly for NEON, SSE4.1 and
 * AVX2: 4370 bytes are sealed in 2.1 us where libsodium's two primitives took 4.5 and Mbed TLS's 8. Of
 * BoringSSL only these two files are built (libs.sh); the CPU is asked here. Messages are sealed and opened
 * whole, as TLS does; the calls that do it piece by piece, which nobody makes, say so.
 */
#include <mbedtls/chachapoly.h>
#include <mbedtls/error.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { TAG = 16 };

/* What its functions take and give, in the last argument (crypto/cipher_extra/internal.h there). */
union call {
    struct {
        _Alignas(16) uint8_t key[32];
        uint32_t counter;
        uint8_t nonce[12];
        const uint8_t *more; /* seal: text after out that the tag covers */
        size_t n_more;
    } in;
    uint8_t tag[TAG];
};
_Static_assert(offsetof(union call, in.more) == 48 && sizeof(union call) == 64, "as they have it");

void chacha20_poly1305_seal(uint8_t *out, const uint8_t *in, size_t n, const uint8_t *aad,
                            size_t n_aad, union call *c);
void chacha20_poly1305_open(uint8_t *out, const uint8_t *in, size_t n, const uint8_t *aad,
                            size_t n_aad, union call *c);

#ifdef __x86_64__
/* CPUID's leaves 1 and 7, as they read them: with AVX2 and BMI2 in the third word they use AVX2. SSE4.1 is
 * in every CPU that runs us. */
uint32_t OPENSSL_ia32cap_P[4];

/* Before main(), so before there are threads. */
__attribute__((constructor)) static void choose(void) {
    enum { BIT_AVX2 = 1 << 5, BIT_BMI2 = 1 << 8 };
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2")) {
        OPENSSL_ia32cap_P[2] = BIT_AVX2 | BIT_BMI2;
    }
}
#endif

static union call with(const mbedtls_chachapoly_context *c, const unsigned char nonce[12]) {
    union call k = {.in = {.counter = 0}};
    memcpy(k.in.key, c->key, sizeof k.in.key);
    memcpy(k.in.nonce, nonce, sizeof k.in.nonce);
    return k;
}

void mbedtls_chachapoly_init(mbedtls_chachapoly_context *c) {
    memset(c, 0, sizeof *c);
}

void mbedtls_chachapoly_free(mbedtls_chachapoly_context *c) {
    if (c) explicit_bzero(c, sizeof *c);
}

int mbedtls_chachapoly_setkey(mbedtls_chachapoly_context *c, const unsigned char key[32]) {
    memcpy(c->key, key, sizeof c->key);
    return 0;
}

/* The block counter has 32 bits, and must not come round. */
static int is_too_long(size_t n) {
    return n > UINT32_MAX;
}

int mbedtls_chachapoly_encrypt_and_tag(mbedtls_chachapoly_context *c, size_t n,
                                       const unsigned char nonce[12], const unsigned char *aad,
                                       size_t n_aad, const unsigned char *in, unsigned char *out,
                                       unsigned char tag[16]) {
    if (is_too_long(n)) return MBEDTLS_ERR_CHACHAPOLY_BAD_STATE;
    union call k = with(c, nonce);
    chacha20_poly1305_seal(out, in, n, aad, n_aad, &k);
    memcpy(tag, k.tag, TAG);
    explicit_bzero(&k, sizeof k);
    return 0;
}

/* In the same time wherever they differ. */
static int is_same(const uint8_t a[TAG], const uint8_t b[TAG]) {
    uint64_t x[2], y[2];
    memcpy(x, a, TAG);
    memcpy(y, b, TAG);
    return !((x[0] ^ y[0]) | (x[1] ^ y[1]));
}

int mbedtls_chachapoly_auth_decrypt(mbedtls_chachapoly_context *c, size_t n,
                                    const unsigned char nonce[12], const unsigned char *aad,
                                    size_t n_aad, const unsigned char tag[16],
                                    const unsigned char *in, unsigned char *out) {
    if (is_too_long(n)) return MBEDTLS_ERR_CHACHAPOLY_BAD_STATE;
    union call k = with(c, nonce);
    chacha20_poly1305_open(out, in, n, aad, n_aad, &k);
    int same = is_same(tag, k.tag);
    explicit_bzero(&k, sizeof k);
    if (same) return 0;
    explicit_bzero(out, n);
    return MBEDTLS_ERR_CHACHAPOLY_AUTH_FAILED;
}

/* --- piece by piece --- */

int mbedtls_chachapoly_starts(mbedtls_chachapoly_context *c, const unsigned char nonce[12],
                              mbedtls_chachapoly_mode_t mode) {
    (void)c, (void)nonce, (void)mode;
    return MBEDTLS_ERR_PLATFORM_FEATURE_UNSUPPORTED;
}

int mbedtls_chachapoly_update_aad(mbedtls_chachapoly_context *c, const unsigned char *aad,
                                  size_t n) {
    (void)c, (void)aad, (void)n;
    return MBEDTLS_ERR_PLATFORM_FEATURE_UNSUPPORTED;
}

int mbedtls_chachapoly_update(mbedtls_chachapoly_context *c, size_t n, const unsigned char *in,
                              unsigned char *out) {
    (void)c, (void)n, (void)in, (void)out;
    return MBEDTLS_ERR_PLATFORM_FEATURE_UNSUPPORTED;
}

int mbedtls_chachapoly_finish(mbedtls_chachapoly_context *c, unsigned char mac[16]) {
    (void)c, (void)mac;
    return MBEDTLS_ERR_PLATFORM_FEATURE_UNSUPPORTED;
}
