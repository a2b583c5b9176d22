/* golden_sampler: the sampling steps as a filter, for golden_samplers.pl. A line of input:
 *   logits L...            sets the logits; no answer
 *   STEP [ARGUMENT...]     top_k K, top_p P MIN, min_p P MIN, temp T: answers "id logit p" of each
 *                          candidate left, separated by commas, or "unsupported" */
#include "model/sampler.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N_MAX = 1 << 18 };

static size_t read_logits(const char *s, struct candidate *c) {
    size_t n = 0;
    while (n < N_MAX) {
        char *end;
        float v = strtof(s, &end);
        if (end == s) break;
        c[n] = (struct candidate){.id = (int32_t)n, .logit = v};
        n++;
        s = end;
    }
    return n;
}

static bool apply(const char *line, struct candidate *c, size_t *n) {
    char step[32] = "";
    double a = 0;
    unsigned keep = 1;
    int args = sscanf(line, "%31s %lf %u", step, &a, &keep);
    if (args < 2) return false;
    if (!strcmp(step, "top_k")) {
        *n = sample_top_k(c, *n, (int32_t)a);
        return true;
    }
    sample_sort(c, *n);
    if (!strcmp(step, "top_p")) {
        *n = sample_top_p(c, *n, (float)a, keep);
    } else if (!strcmp(step, "min_p")) {
        *n = sample_min_p(c, *n, (float)a, keep);
    } else if (!strcmp(step, "temp")) {
        sample_temp(c, *n, (float)a);
    } else {
        return false;
    }
    return true;
}

int main(void) {
    struct candidate *logits = calloc(N_MAX, sizeof *logits), *c = calloc(N_MAX, sizeof *c);
    size_t n_logits = 0, room = 0;
    char *line = NULL;
    while (getline(&line, &room, stdin) > 0) {
        if (!strncmp(line, "logits ", 7)) {
            n_logits = read_logits(line + 7, logits);
            continue;
        }
        size_t n = n_logits;
        memcpy(c, logits, n * sizeof *c);
        if (!apply(line, c, &n)) {
            puts("unsupported");
        } else {
            for (size_t i = 0; i < n; i++) {
                printf("%s%d %.9g %.9g", i ? "," : "", c[i].id, (double)c[i].logit, (double)c[i].p);
            }
            putchar('\n');
        }
        fflush(stdout);
    }
    free(line);
    free(logits);
    free(c);
    return 0;
}
