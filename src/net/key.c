#include "net/key.h"

#include "net/chan.h"

#include <string.h>

/* 32 symbols carry the key, the last is chosen so that the number that all 33 spell is a multiple of
 * 37. As 37 is a prime above 32, and 32 to the d-th is not 1 modulo 37 for any d up to 35, every single
 * wrong symbol and every exchange of two symbols, however far apart, gives a number that is none. */
enum { SYMBOLS = 33, DATA = SYMBOLS - 1, CHECK_MOD = 37, GROUP = 4 };

static const char alphabet[] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/* 0..31, or -1 */
static int value_of(char c) {
    if (c >= 'a' && c <= 'z') c = (char)(c - 'a' + 'A');
    if (c == 'I' || c == 'L') return 1;
    if (c == 'O') return 0;
    const char *at = c ? strchr(alphabet, c) : NULL;
    return at ? (int)(at - alphabet) : -1;
}

static unsigned check_of(const uint8_t v[static DATA]) {
    unsigned sum = 0;
    for (unsigned i = 0; i < DATA; i++) sum = (sum + v[i]) * 32 % CHECK_MOD;
    return (CHECK_MOD - sum) % CHECK_MOD;
}

static unsigned distinct(const uint8_t *v, unsigned n) {
    uint32_t seen = 0;
    for (unsigned i = 0; i < n; i++) seen |= 1U << v[i];
    return (unsigned)__builtin_popcount(seen);
}

/* What a hand makes, and chance does not (less than once in 10^12 keys): few symbols, a pattern
 * repeated, the alphabet in order. */
static bool is_weak(const uint8_t v[static DATA]) {
    enum { LEAST = 8 };
    uint8_t step[DATA];
    for (unsigned i = 0; i + 1 < DATA; i++) step[i] = (v[i + 1] - v[i]) & 31;
    if (distinct(v, DATA) < LEAST || distinct(step, DATA - 1) < LEAST) return true;
    for (unsigned period = 1; period <= DATA / 2; period++) {
        if (!memcmp(v, v + period, DATA - period)) return true;
    }
    return false;
}

MUST key_make(char out[static KEY_TEXT], struct err *e) {
    uint8_t v[DATA];
    unsigned check;
    /* Crockford's five extra symbols for checks from 32 up (* ~ $ = U) mean something to shells and
     * config files: a key that would need one is not made. */
    do {
        if (!chan_random(v, sizeof v, e)) return false;
        for (unsigned i = 0; i < DATA; i++) v[i] &= 31;
        check = check_of(v);
    } while (check >= 32 || is_weak(v));
    char *to = out;
    for (unsigned i = 0; i < DATA; i++) {
        *to++ = alphabet[v[i]];
        if (i % GROUP == GROUP - 1) *to++ = '-';
    }
    *to++ = alphabet[check];
    *to = '\0';
    explicit_bzero(v, sizeof v);
    return true;
}

/* The symbols of text, in SYMBOLS values. The text itself is a secret, so no sentence quotes it. */
static MUST symbols(uint8_t v[static SYMBOLS], const char *text, struct err *e) {
    unsigned n = 0;
    for (; *text; text++) {
        if (*text == '-' || *text == ' ' || *text == '\t') continue;
        int value = value_of(*text);
        if (value < 0) {
            return err_set(e, ERR_USAGE,
                           "symbol %u of the key is neither a digit nor a letter that "
                           "keys have: copy it again, or make one with dair keygen",
                           n + 1);
        }
        if (n == SYMBOLS) {
            return err_set(e, ERR_USAGE, "the key is too long: it has %d symbols besides dashes",
                           SYMBOLS);
        }
        v[n++] = (uint8_t)value;
    }
    if (n == SYMBOLS) return true;
    return err_set(e, ERR_USAGE,
                   "the key is too short: %u of %d symbols; keys are made by dair keygen", n,
                   SYMBOLS);
}

static MUST check_symbols(const uint8_t v[static SYMBOLS], struct err *e) {
    if (check_of(v) != v[DATA]) {
        return err_set(e, ERR_USAGE,
                       "the key is mistyped: its last symbol does not fit to the others");
    }
    if (!is_weak(v)) return true;
    return err_set(e, ERR_USAGE,
                   "the key is one that is easily guessed: make one with dair keygen");
}

MUST key_parse(struct cluster_key *k, const char *text, struct err *e) {
    uint8_t v[SYMBOLS] = {0};
    bool ok = symbols(v, text, e) && check_symbols(v, e);
    memset(k, 0, sizeof *k);
    for (unsigned i = 0; ok && i < DATA * 5; i++) {
        if (v[i / 5] >> (4 - i % 5) & 1) k->b[i / 8] |= (uint8_t)(0x80 >> i % 8);
    }
    explicit_bzero(v, sizeof v);
    return ok;
}

static MUST one_key(struct cluster_key *k, bool *has, uint64_t *print, const char *text,
                    const char *name, struct err *e) {
    if (!text || !*text) return true;
    if (!key_parse(k, text, e)) return err_in(e, name);
    *has = true;
    return chan_key_print(k, print, e);
}

MUST keys_open(struct keys *k, const char *key, const char *old, struct err *e) {
    *k = (struct keys){0};
    if (!one_key(&k->key, &k->has_key, &k->print, key, "cluster_key", e)) return false;
    if (!one_key(&k->old, &k->has_old, &k->old_print, old, "cluster_key_old", e)) return false;
    if (k->has_old && !k->has_key) {
        return err_set(e, ERR_USAGE, "cluster_key_old is given, but no cluster_key");
    }
    if (k->has_old && k->print == k->old_print) {
        k->has_old = false;  // nothing is being changed
        k->old_print = 0;
    }
    return true;
}
