/* text.h - numbers as people write and read them: sizes, rates, times, bars.
 *
 * Sizes are powers of 1024 (memory and files), rates powers of 1000 (as disks and memory are sold);
 * the units printed say which: MiB against MB/s.
 */
#ifndef BASE_TEXT_H
#define BASE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A size as a user gives it: bytes, or a share of something that is known only later. */
struct amount {
    uint64_t bytes;
    double percent;  // > 0: this much of the whole, and bytes is 0
};

/* "4096", "512M", "1.5G", "2GiB" (K M G T, powers of 1024; a byte at least) or "75%" (above 0, up to
 * 100). False, and *out untouched, for anything else. */
bool text_amount(const char *s, struct amount *out);
uint64_t amount_of(struct amount a, uint64_t whole);

/* Decimal digits only, the whole string; false when it does not fit. */
bool text_u64(const char *s, uint64_t *out);
/* A finite decimal number such as -0.5 or 1e-3, the whole string. */
bool text_real(const char *s, double *out);

enum { TEXT_MAX = 32 };  // room for any of the following, the NUL included

const char *text_bytes(char out[static TEXT_MAX], uint64_t bytes);     // "1.50 GiB"
const char *text_rate(char out[static TEXT_MAX], double bytes_per_s);  // "3.21 GB/s"
const char *text_count(char out[static TEXT_MAX], uint64_t n);         // "1.24 G", "128 k", "7"
const char *text_time(char out[static TEXT_MAX], double seconds);      // "45 s", "3 min 05 s"

/* The same with room of their own, for arguments of printf; valid to the end of the block. */
#define BYTES_TEXT(n) text_bytes((char[TEXT_MAX]){0}, n)
#define RATE_TEXT(n)  text_rate((char[TEXT_MAX]){0}, n)
#define COUNT_TEXT(n) text_count((char[TEXT_MAX]){0}, n)
#define TIME_TEXT(s)  text_time((char[TEXT_MAX]){0}, s)

/* s with control characters as '?', cut to cap - 1 bytes: names out of files that others wrote must not
 * steer the terminal. NULL gives "". */
const char *text_printable(char *out, size_t cap, const char *s);

/* s, or with "..." in the place of its middle where it has more than cap - 1 bytes: at most `head` bytes of
 * its beginning, and of its end as much as there is room for. Sequences of UTF-8 stay whole. */
const char *text_shorten(char *out, size_t cap, const char *s, size_t head);

/* What a path ends in, behind its last slash. */
const char *text_name(const char *path);

/* One part of a bar: how much of the whole, drawn with which character. */
struct bar_part {
    double amount;
    char mark;
};

/* "[####==..]": width characters between the brackets for `whole`; parts from the left, each that is
 * not zero at least one character while there is room, the rest is '.'. out: width + 3 bytes. */
const char *text_bar(char *out, size_t width, double whole, const struct bar_part *part,
                     size_t n_part);

#endif
