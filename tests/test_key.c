/* The cluster's key: what is taken and what is not, every single slip of the hand found; and the
 * node's identity: kept, replaced when damaged, never lost half written. */
#include "net/chan.h"
#include "net/ident.h"
#include "net/key.h"

#include "base/log.h"
#include "tap.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static const char alphabet[] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
enum { SYMBOLS = 33 };

/* The symbols alone. */
static void bare(char out[static SYMBOLS + 1], const char *key) {
    size_t n = 0;
    for (; *key && n < SYMBOLS; key++) {
        if (*key != '-') out[n++] = *key;
    }
    out[n] = '\0';
}

static bool is_key(const char *text) {
    struct cluster_key k;
    struct err e = {0};
    bool ok = key_parse(&k, text, &e);
    if (!ok && (e.code != ERR_USAGE || !*e.text)) tap_ok(false, "a refusal without a sentence");
    return ok;
}

static void check_spelling(void) {
    char key[KEY_TEXT], s[SYMBOLS + 1], other[2 * KEY_TEXT];
    struct cluster_key a, b;
    struct err e = {0};
    tap_ok(key_make(key, &e) && strlen(key) == 41 && key_parse(&a, key, &e), "a key: %s", e.text);
    bare(s, key);
    tap_ok(strlen(s) == SYMBOLS && key_parse(&b, s, &e) && !memcmp(&a, &b, sizeof a),
           "the same without dashes");
    size_t n = 0;
    for (size_t i = 0; s[i]; i++) {
        other[n++] = ' ';
        other[n++] = (char)(s[i] >= 'A' ? s[i] + ('a' - 'A') : s[i]);
    }
    other[n] = '\0';
    tap_ok(key_parse(&b, other, &e) && !memcmp(&a, &b, sizeof a), "the same in lower case, spaced");
    for (char *p = s; *p; p++) *p = *p == '1' ? 'l' : *p == '0' ? 'o' : *p;
    tap_ok(key_parse(&b, s, &e) && !memcmp(&a, &b, sizeof a), "l for 1 and o for 0");
    for (char *p = s; *p; p++) *p = *p == 'l' ? 'I' : *p == 'o' ? 'O' : *p;
    tap_ok(key_parse(&b, s, &e) && !memcmp(&a, &b, sizeof a), "I for 1 and O for 0");
}

/* Bits and check symbol of a key that was worked out apart from this program. */
static void check_vector(void) {
    static const char key[] = "9G7M-ZC4X-2VQB-0TRH-6KPA-3WYD-1EJS-8NF5-";
    static const uint8_t want[KEY_LEN] = {0x4c, 0x0f, 0x4f, 0xb0, 0x9d, 0x16, 0xee,
                                          0xb0, 0x6b, 0x11, 0x34, 0xec, 0xa1, 0xf3,
                                          0xcd, 0x0b, 0xa5, 0x94, 0x55, 0xe5};
    struct cluster_key k;
    unsigned n = 0, found = 0;
    for (unsigned i = 0; i < 32; i++) {
        char text[KEY_TEXT];
        snprintf(text, sizeof text, "%s%c", key, alphabet[i]);
        struct err e;
        if (key_parse(&k, text, &e)) n++, found = i;
    }
    tap_ok(n == 1 && alphabet[found] == '7', "of 32 check symbols one fits (%u do: %c)", n,
           alphabet[found]);
    char text[KEY_TEXT];
    struct err e;
    snprintf(text, sizeof text, "%s7", key);
    tap_ok(key_parse(&k, text, &e) && !memcmp(k.b, want, KEY_LEN), "the bits of a vector");
}

static void check_slips(void) {
    unsigned single = 0, swapped = 0, far = 0, cut = 0, n_single = 0, n_swapped = 0, n_far = 0;
    for (unsigned round = 0; round < 50; round++) {
        char key[KEY_TEXT], s[SYMBOLS + 2];
        struct err e;
        if (!key_make(key, &e)) continue;
        bare(s, key);
        for (unsigned i = 0; i < SYMBOLS; i++) {
            char was = s[i];
            for (const char *c = alphabet; *c; c++) {
                if (*c == was) continue;
                s[i] = *c;
                n_single++;
                single += is_key(s);
            }
            s[i] = was;
            for (unsigned k = i + 1; k < SYMBOLS; k++) {
                if (s[k] == was) continue;
                s[i] = s[k], s[k] = was;
                *(k == i + 1 ? &n_swapped : &n_far) += 1;
                *(k == i + 1 ? &swapped : &far) += is_key(s);
                s[k] = s[i], s[i] = was;
            }
        }
        s[SYMBOLS - 1] = '\0';
        cut += is_key(s);
        bare(s, key);
        s[SYMBOLS] = s[0], s[SYMBOLS + 1] = '\0';
        cut += is_key(s);
    }
    tap_ok(n_single == 50 * 33 * 31 && !single, "%u of %u single wrong symbols pass", single,
           n_single);
    tap_ok(n_swapped > 1000 && !swapped, "%u of %u exchanged neighbours pass", swapped, n_swapped);
    tap_ok(n_far > 10000 && !far, "%u of %u other exchanges pass", far, n_far);
    tap_ok(!cut, "%u keys pass that lack a symbol or have one more", cut);
}

/* Each with every check symbol, so that only what is meant can refuse it. */
static void check_weak(void) {
    static const char *const weak[] = {
        "00000000000000000000000000000000", "ZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZ",
        "0123456789ABCDEFGHJKMNPQRSTVWXYZ", "ZYXWVTSRQPNMKJHGFEDCBA9876543210",
        "9G7MZC4X9G7MZC4X9G7MZC4X9G7MZC4X", "9G7MZC4X2VQB0TRH9G7MZC4X2VQB0TRH",
        "SECRETSECRETSECRETSECRETSECRETSE", "02468ACEGJMPRTWY02468ACEGJMPRTWY",
    };
    for (size_t i = 0; i < sizeof weak / sizeof *weak; i++) {
        unsigned n = 0;
        for (unsigned k = 0; k < 32; k++) {
            char text[KEY_TEXT];
            snprintf(text, sizeof text, "%s%c", weak[i], alphabet[k]);
            n += is_key(text);
        }
        tap_ok(!n, "refused whatever its check: %s", weak[i]);
    }
    static const char *const no[] = {"",
                                     "-",
                                     "password",
                                     "U",
                                     "9G7M-ZC4X-2VQB-0TRH-6KPA-3WYD-1EJS",
                                     "9G7M\nZC4X",
                                     "9G7M-ZC4X-2VQB-0TRH-6KPA-3WYD-1EJS-8NF\xc3\xa9",
                                     "9G7M*ZC4X2VQB0TRH6KPA3WYD1EJS8NF50"};
    for (size_t i = 0; i < sizeof no / sizeof *no; i++)
        tap_ok(!is_key(no[i]), "no key: case %zu", i);
}

static void check_keys(void) {
    char a[KEY_TEXT], b[KEY_TEXT];
    struct keys k, other;
    struct err e = {0};
    if (!key_make(a, &e) || !key_make(b, &e)) {
        tap_ok(false, "%s", e.text);
        return;
    }
    tap_ok(strcmp(a, b) != 0, "two keys are two");
    tap_ok(keys_open(&k, NULL, "", &e) && !k.has_key && !k.has_old && !k.print, "no key at all");
    tap_ok(keys_open(&k, a, NULL, &e) && k.has_key && !k.has_old && k.print && !k.old_print,
           "one key");
    tap_ok(keys_open(&other, b, a, &e) && other.has_old && other.old_print == k.print &&
               other.print != k.print,
           "a new and an old one: fingerprints tell");
    tap_ok(keys_open(&k, a, a, &e) && !k.has_old && !k.old_print, "old and new the same: no old");
    tap_ok(!keys_open(&k, NULL, a, &e) && e.code == ERR_USAGE, "an old one alone: %s", e.text);
    a[3] = a[3] == '7' ? '8' : '7';
    tap_ok(!keys_open(&k, b, a, &e) && strstr(e.text, "cluster_key_old"), "which is wrong: %s",
           e.text);
    tap_ok(!strstr(e.text, a) && !strstr(e.text, b), "and the sentence keeps the secret");
}

/* --- identity --- */

static bool put(const char *path, const char *text) {
    FILE *f = fopen(path, "we");
    if (!f) return false;
    bool ok = fputs(text, f) >= 0;
    return fclose(f) == 0 && ok;
}

static void check_ident(const char *dir) {
    char state[128], file[160], hex[ID_HEX];
    struct ident a, b;
    struct err e = {0};
    snprintf(state, sizeof state, "%s/a/b", dir);
    snprintf(file, sizeof file, "%s/node-id", state);
    tap_ok(ident_open(&a, state, &e) && a.instance && !strcmp(a.path, file), "made: %s", e.text);
    tap_ok(ident_open(&b, state, &e) && !ident_cmp(&a.id, &b.id), "kept");
    tap_ok(a.instance != b.instance, "each start is another instance");
    ident_text(&a.id, hex);
    tap_ok(strlen(hex) == 32 && !strncmp(hex, a.name + 5, 4) && !strncmp(a.name, "dair-", 5),
           "%s is called %s", hex, a.name);
    tap_ok(ident_renew(&b, &e) && ident_cmp(&a.id, &b.id) != 0, "renewed");
    ident_text(&b.id, hex);
    tap_ok(!strncmp(hex, b.name + 5, 4), "and its name with it: %s", b.name);
    struct ident c;
    snprintf(b.name, sizeof b.name, "kitchen");
    tap_ok(ident_renew(&b, &e) && !strcmp(b.name, "kitchen"), "but not a name that was given");
    tap_ok(ident_open(&c, state, &e) && !ident_cmp(&c.id, &b.id), "and kept");
    static const char *const damaged[] = {"",
                                          "\n",
                                          "00000000000000000000000000000000\n",
                                          "0123456789abcdef0123456789abcde",
                                          "0123456789ABCDEF0123456789ABCDEF\n",
                                          "0123456789abcdef0123456789abcdef0\n",
                                          "zz23456789abcdef0123456789abcdef\n"};
    for (size_t i = 0; i < sizeof damaged / sizeof *damaged; i++) {
        struct ident d, again;
        bool ok =
            put(file, damaged[i]) && ident_open(&d, state, &e) && ident_cmp(&d.id, &b.id) != 0;
        tap_ok(ok && ident_open(&again, state, &e) && !ident_cmp(&d.id, &again.id),
               "damaged, case %zu: a new one, kept", i);
    }
    char log[1][LOG_LINE];
    tap_ok(log_recent(log, 1) == 1 && strstr(log[0], "damaged"), "and the log says so");
    tap_ok(put(file, "0123456789abcdef0123456789abcdef\n") && ident_open(&c, state, &e) &&
               !strcmp(c.name, "dair-0123"),
           "a file from elsewhere");
    snprintf(state, sizeof state, "%s/a/b/node-id/x", dir);
    tap_ok(!ident_open(&c, state, &e) && e.code == ERR_IO, "a folder that cannot be: %s", e.text);
    tap_ok(ident_open(&c, NULL, &e) && !*c.path && ident_renew(&c, &e), "for this run only");
    snprintf(state, sizeof state, "%s/a/b", dir);
    unlink(file);
    rmdir(state);
    snprintf(state, sizeof state, "%s/a", dir);
    tap_ok(rmdir(state) == 0, "nothing else is left behind");
}

int main(void) {
    struct err e = {0};
    char dir[] = "/tmp/dair-key-XXXXXX";
    log_set(LOG_WARN, NULL);
    if (!tap_ok(chan_init(&e) && mkdtemp(dir) != NULL, "begin %s", e.text)) return tap_done();
    check_spelling();
    check_vector();
    check_slips();
    check_weak();
    check_keys();
    check_ident(dir);
    rmdir(dir);
    return tap_done();
}
