/* Stop strings: whatever pieces a text comes in, what is shown is what stands before the first stop
 * string, and nothing is held back that could not begin one. */
#include "model/stop.h"
#include "tap.h"

#include <stdlib.h>
#include <string.h>

static uint64_t seed = 9;

static uint32_t rnd(void) {  // xorshift64*, Vigna 2016
    seed ^= seed >> 12, seed ^= seed << 25, seed ^= seed >> 27;
    return (uint32_t)((seed * 0x2545F4914F6CDD1DULL) >> 32);
}

static size_t random_text(char *out, size_t least, size_t most) {
    size_t len = least + rnd() % (most - least + 1);
    for (size_t i = 0; i < len; i++) out[i] = (char)('a' + rnd() % 2);
    out[len] = 0;
    return len;
}

/* Where the first one begins, or the length. */
static size_t first(const char *text, size_t len, char stop[][8], size_t n) {
    for (size_t i = 0; i < n; i++) {
        const char *at = strstr(text, stop[i]);
        if (at && (size_t)(at - text) < len) len = (size_t)(at - text);
    }
    return len;
}

/* The text in random pieces through the matcher: how much of it was shown. */
static size_t show(const struct stop *s, const char *text, size_t len, bool *is_stop,
                   size_t *most_held) {
    size_t shown = 0, fed = 0;
    *is_stop = false;
    while (fed < len && !*is_stop) {
        size_t piece = rnd() % 4;
        fed += piece < len - fed ? piece : len - fed;
        shown += stop_scan(s, text + shown, fed - shown, is_stop);
        if (!*is_stop && fed - shown > *most_held) *most_held = fed - shown;
    }
    return *is_stop ? shown : shown + stop_end(s, text + shown, len - shown, is_stop);
}

static void test_pieces(void) {
    int wrong = 0, stopped = 0;
    size_t most_held = 0;
    for (int round = 0; round < 5000; round++) {
        char text[64], stop[3][8];
        struct json_chars chars[3];
        struct stop s;
        struct err e;
        size_t n = rnd() % 4, len = random_text(text, 0, 40);
        for (size_t i = 0; i < n; i++) {
            chars[i] = (struct json_chars){stop[i], random_text(stop[i], 1, 6)};
        }
        bool is_stop;
        if (!stop_init(&s, chars, n, &e)) abort();
        size_t shown = show(&s, text, len, &is_stop, &most_held), want = first(text, len, stop, n);
        wrong += shown != want || is_stop != (want < len);
        stopped += is_stop;
    }
    tap_ok(!wrong && stopped > 1000, "5000 texts in pieces, %d of them stopped: %d wrong", stopped,
           wrong);
    tap_ok(most_held == 5, "held back: %zu bytes at most, of stop strings of 6", most_held);
}

static void test_limits(void) {
    static char big[STOP_BYTES + 2];
    struct json_chars many[STOP_MAX + 1], empty = {"", 0}, whole = {big, STOP_BYTES};
    struct stop s;
    struct err e;
    for (size_t i = 0; i <= STOP_MAX; i++) many[i] = (struct json_chars){"x", 1};
    memset(big, 'x', sizeof big - 1);
    tap_ok(stop_init(&s, &empty, 1, &e) && !s.n, "an empty one is none");
    tap_ok(stop_init(&s, many, STOP_MAX, &e) && stop_init(&s, &whole, 1, &e), "as many as said");
    tap_ok(!stop_init(&s, many, STOP_MAX + 1, &e) && e.code == ERR_LIMIT, "no more: %s", e.text);
    whole.len++;
    tap_ok(!stop_init(&s, &whole, 1, &e) && e.code == ERR_LIMIT, "no longer: %s", e.text);
}

int main(void) {
    test_pieces();
    test_limits();
    return tap_done();
}
