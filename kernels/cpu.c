/* cpu.c - what this CPU can do.
 *
 * DAIR_CPU names a variant as struct kernels does. It takes features away and never adds any, so that
 * a wrong value cannot crash; a name nobody knows changes nothing. It is there for tests, and to
 * compare two variants on one machine.
 */
#include "kernels.h"

#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>

/* Intel SDM vol. 2, CPUID: leaf 7, and bit 4 of eax in its sub-leaf 1. */
enum { BIT_AVXVNNI = 1 << 4, FAMILY_ZEN5 = 0x1a };
enum { XCR0_AVX = 0x06, XCR0_AVX512 = 0xe6 };  // xmm and ymm state; also masks, zmm, zmm16-31

/* AMD APM vol. 3, CPUID: the family is bits 8 and up plus bits 20 and up of leaf 1's eax, the model bits 4 and
 * up with bits 16 and up before them. Server and desktop parts only: others work on 512 bits in two halves. */
static bool is_zen5(void) {
    unsigned a, b, c, d;
    if (!__get_cpuid(0, &a, &b, &c, &d) || b != signature_AMD_ebx) return false;
    if (!__get_cpuid(1, &a, &b, &c, &d)) return false;
    unsigned family = (a >> 8 & 15) + (a >> 20 & 255), model = (a >> 4 & 15) | (a >> 12 & 0xf0);
    return family == FAMILY_ZEN5 && (model < 0x20 || model >> 4 == 4);
}

/* AVX registers must be enabled by the OS as well as present in silicon: Intel SDM vol. 1, 14.3. */
static unsigned cpu_probe(void) {
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d)) return 0;
    unsigned want = bit_OSXSAVE | bit_AVX | bit_FMA | bit_F16C;
    if ((c & want) != want) return 0;
    unsigned lo, hi;
    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    if ((lo & XCR0_AVX) != XCR0_AVX) return 0;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(b & bit_AVX2)) return 0;
    unsigned have = CPU_AVX2, n_leaf = a;
    if (is_zen5()) have |= CPU_ZEN5;
    want = bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL;
    if ((b & want) == want && (c & bit_AVX512VNNI) && (lo & XCR0_AVX512) == XCR0_AVX512) {
        have |= CPU_AVX512;
    }
    if (n_leaf >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & BIT_AVXVNNI)) {
        have |= CPU_AVXVNNI;
    }
    return have;
}
#elif defined(__aarch64__)
#include <sys/auxv.h>

/* asm/hwcap.h, which musl does not bring along */
enum { HWCAP_BIT_ASIMD = 1 << 1, HWCAP_BIT_ASIMDDP = 1 << 20 };

static unsigned cpu_probe(void) {
    unsigned long have = getauxval(AT_HWCAP);
    if (!(have & HWCAP_BIT_ASIMD)) return 0;
    return have & HWCAP_BIT_ASIMDDP ? CPU_NEON | CPU_DOTPROD : CPU_NEON;
}
#else
static unsigned cpu_probe(void) {
    return 0;
}
#endif

static const struct {
    const char *name;
    unsigned keep;
} names[] = {
    {"scalar", 0},
    {"avx2", CPU_AVX2},
    {"avxvnni", CPU_AVX2 | CPU_AVXVNNI},
    {"avx512", CPU_AVX2 | CPU_AVX512},
    {"zen5", CPU_AVX2 | CPU_AVX512 | CPU_ZEN5},
    {"neon", CPU_NEON},
    {"dotprod", CPU_NEON | CPU_DOTPROD},
};

const char *cpu_variant(size_t i) {
    return i < sizeof names / sizeof *names ? names[i].name : NULL;
}

unsigned cpu_restrict(unsigned have, const char *name, bool *known) {
    if (known) *known = false;
    for (size_t i = 0; name && i < sizeof names / sizeof *names; i++) {
        if (strcmp(name, names[i].name) == 0) {
            if (known) *known = true;
            return have & names[i].keep;
        }
    }
    return have;
}

unsigned cpu_features(void) {
    return cpu_restrict(cpu_probe(), getenv("DAIR_CPU"), NULL);
}
