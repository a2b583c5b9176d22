/* cpu.c - what this CPU can do.
 *
 * DAIR_CPU names a variant as struct kernels does: "scalar", "avx2", "neon". It takes features away
 * and never adds any, so that a wrong value cannot crash; a name nobody knows changes nothing. It
 * is there for tests, and to compare two variants on one machine.
 */
#include "kernels.h"

#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>

/* AVX registers must be enabled by the OS as well as present in silicon: Intel SDM vol. 1, 14.3. */
static unsigned cpu_probe(void) {
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d)) return 0;
    unsigned want = bit_OSXSAVE | bit_AVX | bit_FMA | bit_F16C;
    if ((c & want) != want) return 0;
    unsigned lo, hi;
    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    if ((lo & 6) != 6) return 0;  // xmm and ymm state
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return 0;
    return b & bit_AVX2 ? CPU_AVX2 : 0;
}
#elif defined(__aarch64__)
#include <sys/auxv.h>

enum { HWCAP_BIT_ASIMD = 1 << 1 };  // asm/hwcap.h, which musl does not bring along

static unsigned cpu_probe(void) {
    return getauxval(AT_HWCAP) & HWCAP_BIT_ASIMD ? CPU_NEON : 0;
}
#else
static unsigned cpu_probe(void) {
    return 0;
}
#endif

unsigned cpu_restrict(unsigned have, const char *name, bool *known) {
    static const struct {
        const char *name;
        unsigned keep;
    } names[] = {{"scalar", 0}, {"avx2", CPU_AVX2}, {"neon", CPU_NEON}};
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
