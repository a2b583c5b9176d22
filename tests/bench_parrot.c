/* bench_parrot FILE.gguf: makes of it a model that repeats itself, for measuring what guessing ahead
 * gains when it is right. */
#include "parrot.h"

#include <stdio.h>

int main(int argc, char **argv) {
    static struct model m;
    struct err e;
    if (argc != 2) return 2;
    if (!model_open(&m, argv[1], 0, 0, &e)) {
        fprintf(stderr, "%s\n", e.text);
        return 1;
    }
    bool ok = parrot_make(&m);
    if (!ok) fprintf(stderr, "%s cannot be made to repeat itself\n", argv[1]);
    model_close(&m);
    return !ok;
}
