/* bench_disk FILE SECONDS READERS: GB/s of a raw reader with huge-page buffers, the disk's own limit that
 * bench.pl puts beside what streaming reaches. */
#include "store/diskprobe.h"

#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv) {
    struct disk_speed s;
    struct direct d;
    struct err e;
    if (argc != 4) return fprintf(stderr, "usage: bench_disk FILE SECONDS READERS\n"), 2;
    if (!direct_open(&d, argv[1], &e)) return fprintf(stderr, "%s\n", e.full), 1;
    uint64_t len = d.size;
    direct_close(&d);
    if (!disk_probe(argv[1], 0, len, 4 << 20, (uint32_t)strtoul(argv[3], NULL, 10),
                    strtod(argv[2], NULL), &s, &e)) {
        return fprintf(stderr, "%s\n", e.full), 1;
    }
    printf("%.4f\n", s.bytes_per_s * 1e-9);
    return 0;
}
