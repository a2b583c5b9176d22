/* The bar: silent for short work, never wider than the terminal, honest about what is left. */
#include "base/progress.h"

#include "tap.h"

#include <string.h>

static struct progress bar(unsigned width, uint64_t done, uint64_t total) {
    return (struct progress){
        .what = "loading", .to = stdout, .width = width, .done = done, .total = total};
}

static void test_due(void) {
    struct progress p = bar(80, 1, 2);
    tap_ok(!progress_is_due(&p, 1.9, 1.9), "nothing in the first two seconds");
    tap_ok(progress_is_due(&p, 2.1, 2.1), "then the first line");
    p.is_shown = true;
    tap_ok(!progress_is_due(&p, 4, 1.9), "in a log not again at once");
    tap_ok(progress_is_due(&p, 8, 5.1), "but after some seconds");
    p.is_terminal = true;
    tap_ok(progress_is_due(&p, 4, 0.11), "a terminal is drawn ten times a second");
    tap_ok(!progress_is_due(&p, 4, 0.05), "and not more often");
    p.to = NULL;
    tap_ok(!progress_is_due(&p, 100, 100), "silent when asked to be");
}

static void test_line(void) {
    char out[256];
    struct progress p = bar(80, 512 << 20, 1024 << 20);
    size_t n = progress_line(&p, 4, out, sizeof out);
    tap_ok(n == strlen(out) && n < 80, "fits 80 columns (%zu)", n);
    tap_ok(strstr(out, " 50 %") && strstr(out, "512 MiB of 1.00 GiB"), "percent and amount: %s",
           out);
    tap_ok(strstr(out, "134 MB/s") && strstr(out, "4.0 s left"), "rate and time left");
    tap_ok(strchr(out, '#') && strchr(out, '.'), "a bar");
    for (unsigned w = 20; w <= 200; w++) {
        p.width = w;
        n = progress_line(&p, 4, out, sizeof out);
        if (n >= w || n != strlen(out)) tap_ok(false, "width %u: %zu columns", w, n);
    }
    tap_ok(true, "20 to 200 columns");
    p = bar(80, 1, 400);
    progress_line(&p, 2, out, sizeof out);
    tap_ok(!strstr(out, "left"), "no guess from the first of it: %s", out);
    progress_line(&p, 11, out, sizeof out);
    tap_ok(strstr(out, "left"), "but after a while: %s", out);
    p = bar(80, 13, 400);
    progress_line(&p, 2, out, sizeof out);
    tap_ok(strstr(out, "left"), "or when it is more: %s", out);
    p = bar(80, 0, 0);
    progress_line(&p, 0, out, sizeof out);
    tap_ok(!strstr(out, "nan") && !strstr(out, "inf"), "nothing of nothing: %s", out);
    p = bar(80, 7, 5);
    progress_line(&p, 1, out, sizeof out);
    tap_ok(strstr(out, "100 %"), "never more than all");
    p = bar(100, 30, 120);
    p.unit = PROGRESS_TOKENS;
    progress_line(&p, 3, out, sizeof out);
    tap_ok(strstr(out, "30 of 120, 10.0 tokens/s, 9.0 s left"), "tokens: %s", out);
    tap_ok(progress_line(&p, 3, out, 10) == 9 && strlen(out) == 9, "a small buffer is not overrun");
}

static void test_quick(void) {
    FILE *f = tmpfile();
    if (!f) {
        tap_skip("no temporary file can be had here");
        return;
    }
    struct progress p;
    progress_start(&p, "loading", PROGRESS_BYTES, f);
    for (uint64_t i = 0; i <= 1000; i++) progress_update(&p, i, 1000);
    progress_end(&p);
    progress_end(&p);
    progress_update(&p, 1, 2);
    tap_ok(ftell(f) == 0, "short work writes nothing");
    fclose(f);
}

int main(void) {
    test_due();
    test_line();
    test_quick();
    return tap_done();
}
