/* sodium.conf.h - what libsodium's configure would find out, included before each of its files: what the
 * compiler can do. What the CPU can do is asked when the program starts. */
#define CONFIGURED 1
#define _GNU_SOURCE
#define NATIVE_LITTLE_ENDIAN 1
#define HAVE_TI_MODE         1 /* integers of 128 bits */
#ifdef __x86_64__
#define HAVE_CPUID       1
#define HAVE_AVX_ASM     1 /* xgetbv: whether the system keeps the wide registers */
#define HAVE_EMMINTRIN_H 1 /* SSE2 */
#define HAVE_PMMINTRIN_H 1
#define HAVE_TMMINTRIN_H 1
#define HAVE_SMMINTRIN_H 1
#define HAVE_AVXINTRIN_H 1
#define HAVE_AVX2INTRIN_H 1
#endif
