/* mbedtls.conf.h - what of Mbed TLS is compiled; takes the place of its mbedtls_config.h.
 *
 * TLS 1.3 with an external PSK and ephemeral X25519, ChaCha20-Poly1305 with SHA-256, and nothing
 * else: no certificates, no older protocol, no PSK without ECDH, no tickets, no early data, no
 * renegotiation. No AES: its GCM is no faster here even on CPUs with AES instructions, and both ends
 * are ours. What is not compiled needs no security fix.
 */
#define MBEDTLS_HAVE_ASM
#define MBEDTLS_PLATFORM_C

/* Random numbers are the operating system's, by getrandom(2) in src/net/chan.c: no generator of the
 * library's own with a state to seed, to share between threads or to leak. */
#define MBEDTLS_PSA_CRYPTO_C
#define MBEDTLS_PSA_CRYPTO_EXTERNAL_RNG
#define MBEDTLS_USE_PSA_CRYPTO
/* Else each record is copied to and from buffers of PSA's own: 8 to 10 allocations a record. */
#define MBEDTLS_PSA_ASSUME_EXCLUSIVE_BUFFERS
/* Else 32 keys in all, and each connection holds several. */
#define MBEDTLS_PSA_KEY_STORE_DYNAMIC

/* Channels belong to different threads, and the store of keys is one. */
#define MBEDTLS_THREADING_C
#define MBEDTLS_THREADING_PTHREAD

#define MBEDTLS_CHACHA20_C
#define MBEDTLS_POLY1305_C
#define MBEDTLS_CHACHAPOLY_C
#define MBEDTLS_CHACHAPOLY_ALT /* BoringSSL's, see mbedtls.alt.c */
#define MBEDTLS_MD_C
#define MBEDTLS_SHA256_C
#define MBEDTLS_HKDF_C
#define MBEDTLS_BIGNUM_C
#define MBEDTLS_ECP_C
#define MBEDTLS_ECDH_C
#define MBEDTLS_ECP_DP_CURVE25519_ENABLED

#define MBEDTLS_SSL_TLS_C
#define MBEDTLS_SSL_CLI_C
#define MBEDTLS_SSL_SRV_C
#define MBEDTLS_SSL_PROTO_TLS1_3
#define MBEDTLS_SSL_TLS1_3_KEY_EXCHANGE_MODE_PSK_EPHEMERAL_ENABLED
#define MBEDTLS_SSL_KEEP_PEER_CERTIFICATE /* no certificate is kept; the library insists */
#define MBEDTLS_SSL_IN_CONTENT_LEN  16384
#define MBEDTLS_SSL_OUT_CONTENT_LEN 16384
/* Else records are filled up to multiples of 16: seven bytes each for nothing that is secret. */
#define MBEDTLS_SSL_CID_TLS1_3_PADDING_GRANULARITY 1
