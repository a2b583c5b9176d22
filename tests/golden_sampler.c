/* golden_sampler: the sampling steps as a filter, for golden_samplers.pl. A line of input:
 *   logits L...            sets the logits; no answer
 *   prev ID...             the tokens so far; no answer
 *   STEP [ARGUMENT...]     top_k K, top_p P MIN, min_p P MIN, typical P MIN, temp T,
 *                          temp_ext T RANGE EXPONENT, top_n_sigma N,
 *                          penalties LAST_N REPEAT FREQUENCY PRESENCE: answers "id logit p" of each
 *                          candidate left, separated by commas, or "unsupported" */
#include "model/sampler.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N_MAX = 1 << 18, PREV_MAX = 1024 };

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

static size_t read_ids(const char *s, int32_t *id) {
    size_t n = 0;
    char *end;
    for (long v = strtol(s, &end, 10); end != s && n < PREV_MAX; v = strtol(s, &end, 10)) {
        id[n++] = (int32_t)v;
        s = end;
    }
    return n;
}

static void penalise(const double *a, const int32_t *prev, size_t n_prev, struct candidate *c,
                     size_t n) {
    static struct adjust adjust;
    struct sampler s = {.last_n = (int32_t)a[0],
                        .repeat = (float)a[1],
                        .frequency = (float)a[2],
                        .presence = (float)a[3]};
    adjust_make(&adjust, &s, prev, n_prev);
    sample_adjust(&s, &adjust, c, n);
}

/* What the draw does at a temperature: its weights, beside logits that are divided by it, as the oracle's are.
 * At none it takes one. */
static void heat(const double *a, struct candidate *c, size_t n) {
    struct sampler s = {
        .temp = (float)a[0], .top_p = 1, .temp_range = (float)a[1], .temp_exponent = (float)a[2]};
    float temp = sample_temp(c, n, s.temp, s.temp_range, s.temp_exponent);
    if (s.temp_range > 0 && n == 1) temp = 1;  // the oracle leaves it as it is
    if (temp <= 0) {
        int32_t id = sample(&s, c, n, 0, 0);
        for (size_t i = 0; i < n; i++) {
            if (c[i].id != id) c[i].logit = -INFINITY;
        }
        temp = 1;
    }
    sample_weigh(c, n, temp);
    for (size_t i = 0; i < n; i++) c[i].logit /= temp;
}

static void print_shares(const struct candidate *c, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += (double)c[i].p;
    for (size_t i = 0; i < n; i++) {
        printf("%s%d %.9g %.9g", i ? "," : "", c[i].id, (double)c[i].logit,
               (double)(float)((double)c[i].p / sum));
    }
    putchar('\n');
}

static bool apply(const char *line, const int32_t *prev, size_t n_prev, struct candidate *c,
                  size_t *n) {
    char step[32] = "";
    double a[4] = {0};
    int args = sscanf(line, "%31s %lf %lf %lf %lf", step, a, a + 1, a + 2, a + 3);
    size_t keep = args < 3 ? 1 : (size_t)a[1];
    float x = (float)a[0];
    if (args < 2) return false;
    if (!strcmp(step, "temp") || !strcmp(step, "temp_ext")) {
        heat(a, c, *n);
        return true;
    }
    if (!strcmp(step, "top_k")) {
        *n = sample_top_k(c, *n, (int32_t)x);
    } else if (!strcmp(step, "top_p")) {
        *n = sample_top_p(c, *n, x, keep);
    } else if (!strcmp(step, "min_p")) {
        *n = sample_min_p(c, *n, x, keep);
    } else if (!strcmp(step, "typical")) {
        *n = sample_typical(c, *n, x, keep);
    } else if (!strcmp(step, "top_n_sigma")) {
        sample_top_n_sigma(c, *n, x);
    } else if (!strcmp(step, "penalties")) {
        penalise(a, prev, n_prev, c, *n);
    } else {
        return false;
    }
    sample_weigh(c, *n, 1);
    return true;
}

int main(void) {
    struct candidate *logits = calloc(N_MAX, sizeof *logits), *c = calloc(N_MAX, sizeof *c);
    static int32_t prev[PREV_MAX];
    size_t n_logits = 0, n_prev = 0, room = 0;
    char *line = NULL;
    while (getline(&line, &room, stdin) > 0) {
        if (!strncmp(line, "logits ", 7)) {
            n_logits = read_logits(line + 7, logits);
            continue;
        }
        if (!strncmp(line, "prev ", 5)) {
            n_prev = read_ids(line + 5, prev);
            continue;
        }
        size_t n = n_logits;
        memcpy(c, logits, n * sizeof *c);
        if (apply(line, prev, n_prev, c, &n)) {
            print_shares(c, n);
        } else {
            puts("unsupported");
        }
        fflush(stdout);
    }
    free(line);
    free(logits);
    free(c);
    return 0;
}
