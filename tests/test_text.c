/* Sizes in, sizes out: what users type is taken exactly or refused. */
#include "base/text.h"

#include "tap.h"

#include <string.h>

static void test_amount(void) {
    static const struct {
        const char *text;
        uint64_t bytes;
    } good[] = {
        {"1", 1},
        {"4096", 4096},
        {"1K", 1024},
        {"24M", 24 << 20},
        {"24m", 24 << 20},
        {"1.5G", 1610612736},
        {"2GiB", (uint64_t)2 << 30},
        {"2GB", (uint64_t)2 << 30},
        {"3T", (uint64_t)3 << 40},
        {"7b", 7},
    };
    static const char *const bad[] = {
        "",      "-1",   "M",  "1X",   "1 G", "0x10",        "1e3",   "nan", "inf",
        "1.2.3", "12%%", "0%", "101%", "-5%", "9999999999T", "1GiBs", ".5G", "18446744073709551616",
        "4Gi",   "0",    "0K", "0.5"};
    struct amount a;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        bool ok = text_amount(good[i].text, &a);
        tap_ok(ok && a.bytes == good[i].bytes && a.percent <= 0, "%s is %llu bytes", good[i].text,
               (unsigned long long)good[i].bytes);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        a = (struct amount){.bytes = 77};
        tap_ok(!text_amount(bad[i], &a) && a.bytes == 77, "\"%s\" is refused", bad[i]);
    }
    tap_ok(text_amount("25%", &a) && amount_of(a, 4096) == 1024, "25%% of 4096 is 1024");
    tap_ok(text_amount("512", &a) && amount_of(a, 4096) == 512, "bytes need no whole");
}

static void test_numbers(void) {
    uint64_t n = 5;
    double r = 5;
    tap_ok(text_u64("18446744073709551615", &n) && n == UINT64_MAX, "the largest number");
    n = 5;
    tap_ok(!text_u64("18446744073709551616", &n) && n == 5, "one more is refused");
    tap_ok(!text_u64("", &n) && !text_u64("+1", &n) && !text_u64("1 ", &n), "digits only");
    tap_ok(text_real("-0.5", &r) && r <= -0.5 && r >= -0.5, "-0.5");
    tap_ok(text_real("1e-3", &r) && r > 0.00099 && r < 0.00101, "1e-3");
    tap_ok(!text_real("nan", &r) && !text_real("inf", &r) && !text_real("0x1", &r),
           "no nan, inf, hex");
    tap_ok(!text_real("1e999", &r) && !text_real("", &r) && !text_real("1,5", &r), "nor others");
}

static void is(const char *got, const char *want) {
    tap_ok(strcmp(got, want) == 0, "\"%s\" is \"%s\"", got, want);
}

static void test_print(void) {
    is(BYTES_TEXT(0), "0 bytes");
    is(BYTES_TEXT(1023), "1023 bytes");
    is(BYTES_TEXT(1024), "1.00 KiB");
    is(BYTES_TEXT(24 << 20), "24.0 MiB");
    is(BYTES_TEXT(1048575), "1.00 MiB");
    is(BYTES_TEXT((uint64_t)512 << 20), "512 MiB");
    is(BYTES_TEXT(UINT64_MAX), "16.0 EiB");
    is(RATE_TEXT(3.214e9), "3.21 GB/s");
    is(RATE_TEXT(999.6e6), "1.00 GB/s");
    is(RATE_TEXT(-1), "0.00 B/s");
    is(COUNT_TEXT(9999), "9999");
    is(COUNT_TEXT(1235814400), "1.24 G");
    is(TIME_TEXT(0.25), "0.2 s");
    is(TIME_TEXT(45), "45 s");
    is(TIME_TEXT(185), "3 min 05 s");
    is(TIME_TEXT(7260), "2 h 01 min");
}

static void test_bar(void) {
    char out[16];
    is(text_bar(out, 10, 100, &(struct bar_part){50, '#'}, 1), "[#####.....]");
    is(text_bar(out, 10, 100, &(struct bar_part){0, '#'}, 1), "[..........]");
    is(text_bar(out, 10, 100, &(struct bar_part){0.001, '#'}, 1), "[#.........]");
    is(text_bar(out, 10, 100, &(struct bar_part){500, '#'}, 1), "[##########]");
    is(text_bar(out, 10, 0, &(struct bar_part){5, '#'}, 1), "[..........]");
    const struct bar_part part[] = {{60, 'a'}, {0, 'x'}, {0.1, 'b'}, {39, 'c'}};
    is(text_bar(out, 10, 100, part, 4), "[aaaaaabccc]");
}

static void test_printable(void) {
    char out[16];
    is(text_printable(out, sizeof out, "a\x1b[2J\nb"), "a?[2J?b");
    is(text_printable(out, sizeof out, "\xc3\xa9"), "\xc3\xa9");
    is(text_printable(out, 4, "abcdef"), "abc");
    is(text_printable(out, sizeof out, NULL), "");
    tap_ok(!strchr(text_printable(out, sizeof out, "x\xc2\x9b"), '\x9b'),
           "no control by UTF-8 either");
}

int main(void) {
    test_amount();
    test_numbers();
    test_print();
    test_bar();
    test_printable();
    return tap_done();
}
