#include "base/text.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

/* Powers of 1024 by the letter; 0: not a unit. */
static double unit_bytes(const char *s) {
    static const char letter[] = "kmgt";
    double unit = 1;
    char low = (char)(*s | 0x20);
    const char *at = *s ? strchr(letter, low) : NULL;
    if (at) {
        for (long i = 0; i <= at - letter; i++) unit *= 1024;
        s++;
        if ((*s == 'i' || *s == 'I') && (s[1] == 'b' || s[1] == 'B')) s++;
    }
    if (*s == 'b' || *s == 'B') s++;
    return *s ? 0 : unit;
}

bool text_amount(const char *s, struct amount *out) {
    size_t len = strspn(s, "0123456789.");
    if (!is_digit(s[0]) || len > 24) return false;
    char *end;
    double v = strtod(s, &end);  // digits and a point only: neither hexadecimal nor an exponent
    if (end != s + len) return false;
    if (strcmp(end, "%") == 0) {
        if (v <= 0 || v > 100) return false;
        *out = (struct amount){.percent = v};
        return true;
    }
    double unit = unit_bytes(end);
    if (v * unit < 1 || v * unit >= 0x1p63) return false;
    *out = (struct amount){.bytes = (uint64_t)(v * unit)};
    return true;
}

uint64_t amount_of(struct amount a, uint64_t whole) {
    return a.percent > 0 ? (uint64_t)((double)whole * a.percent / 100) : a.bytes;
}

bool text_u64(const char *s, uint64_t *out) {
    uint64_t v = 0;
    if (!*s) return false;
    for (; *s; s++) {
        if (!is_digit(*s) || __builtin_mul_overflow(v, 10, &v) ||
            __builtin_add_overflow(v, (uint64_t)(*s - '0'), &v)) {
            return false;
        }
    }
    *out = v;
    return true;
}

bool text_real(const char *s, double *out) {
    if (!*s || s[strspn(s, "+-.0123456789eE")]) return false;  // no nan, inf, hexadecimal, blanks
    char *end;
    double v = strtod(s, &end);
    if (end == s || *end || !isfinite(v)) return false;
    *out = v;
    return true;
}

/* Three digits that matter, so that columns stay readable. */
static const char *scaled(char *out, double v, const char *unit) {
    int digits = v >= 99.95 ? 0 : v >= 9.995 ? 1 : 2;
    snprintf(out, TEXT_MAX, "%.*f %s", digits, v, unit);
    return out;
}

const char *text_bytes(char out[static TEXT_MAX], uint64_t bytes) {
    static const char *const unit[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    if (bytes < 1024) {
        snprintf(out, TEXT_MAX, "%u bytes", (unsigned)bytes);
        return out;
    }
    double v = (double)bytes / 1024;
    size_t i = 0;
    for (; v >= 1023.5 && i < 5; i++) v /= 1024;
    return scaled(out, v, unit[i]);
}

const char *text_rate(char out[static TEXT_MAX], double bytes_per_s) {
    static const char *const unit[] = {"B/s", "kB/s", "MB/s", "GB/s", "TB/s"};
    double v = isfinite(bytes_per_s) && bytes_per_s > 0 ? bytes_per_s : 0;
    size_t i = 0;
    for (; v >= 999.5 && i < 4; i++) v /= 1000;
    return scaled(out, fmin(v, 1e9), unit[i]);
}

const char *text_count(char out[static TEXT_MAX], uint64_t n) {
    static const char *const unit[] = {"k", "M", "G", "T", "P", "E"};
    if (n < 10000) {
        snprintf(out, TEXT_MAX, "%u", (unsigned)n);
        return out;
    }
    double v = (double)n / 1000;
    size_t i = 0;
    for (; v >= 999.5 && i < 5; i++) v /= 1000;
    return scaled(out, v, unit[i]);
}

const char *text_time(char out[static TEXT_MAX], double seconds) {
    double s = isfinite(seconds) && seconds > 0 ? fmin(seconds, 3.15e9) : 0;
    if (s < 9.95) {
        snprintf(out, TEXT_MAX, "%.1f s", s);
    } else if (s < 99.5) {
        snprintf(out, TEXT_MAX, "%.0f s", s);
    } else if (s < 5999.5) {
        unsigned whole = (unsigned)(s + 0.5);
        snprintf(out, TEXT_MAX, "%u min %02u s", whole / 60, whole % 60);
    } else {
        unsigned min = (unsigned)(s / 60 + 0.5);
        snprintf(out, TEXT_MAX, "%u h %02u min", min / 60, min % 60);
    }
    return out;
}

const char *text_printable(char *out, size_t cap, const char *s) {
    size_t n = 0;
    for (; s && s[n] && n + 1 < cap; n++) {
        uint8_t c = (uint8_t)s[n];
        /* 0xc2 0x80..0x9f are control characters too, in UTF-8. */
        bool is_c1 = n && (uint8_t)s[n - 1] == 0xc2 && c < 0xa0;
        out[n] = c < 0x20 || c == 0x7f || is_c1 ? '?' : s[n];
    }
    out[n] = '\0';
    return out;
}

static bool is_inner(char c) {  // of a sequence of UTF-8
    return ((uint8_t)c & 0xc0) == 0x80;
}

const char *text_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

const char *text_shorten(char *out, size_t cap, const char *s, size_t head) {
    static const char dots[] = "...";
    size_t len = strlen(s), room = cap - 1;
    if (len <= room) return memcpy(out, s, len + 1);
    size_t n_dot = room < sizeof dots - 1 ? 0 : sizeof dots - 1, most = room - n_dot;
    if (head > most || !n_dot) head = most;
    size_t from = len - (most - head);
    while (head && is_inner(s[head])) head--;
    while (is_inner(s[from])) from++;
    memcpy(out, s, head);
    memcpy(out + head, dots, n_dot);
    memcpy(out + head + n_dot, s + from, len - from + 1);
    return out;
}

const char *text_bar(char *out, size_t width, double whole, const struct bar_part *part,
                     size_t n_part) {
    size_t at = 0;
    double sum = 0;
    out[0] = '[';
    for (size_t i = 0; i < n_part && whole > 0; i++) {
        if (!(part[i].amount > 0)) continue;
        sum += part[i].amount;
        double to = sum / whole * (double)width + 0.5;
        size_t end = to >= (double)width ? width : (size_t)to;
        if (end <= at && at < width) end = at + 1;
        while (at < end) out[1 + at++] = part[i].mark;
    }
    while (at < width) out[1 + at++] = '.';
    out[1 + width] = ']';
    out[2 + width] = '\0';
    return out;
}
