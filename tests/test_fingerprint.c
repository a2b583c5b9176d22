/* The hash has no weak bits, and a model's fingerprint sees what it says it sees. */
#include "base/clock.h"
#include "base/cursor.h"
#include "gguf_maker.h"
#include "model/fingerprint.h"
#include "model/model.h"
#include "tap.h"

static uint64_t seed = 1;

static uint64_t rnd(void) {  // xorshift64*, Vigna 2016
    seed ^= seed >> 12, seed ^= seed << 25, seed ^= seed >> 27;
    return seed * 0x2545F4914F6CDD1DULL;
}

static uint64_t hash_of(const void *p, size_t n) {
    struct hash h;
    hash_init(&h, 7);
    hash_put(&h, p, n);
    return hash_end(&h);
}

enum { AVALANCHE = 4000, MOST_BYTES = 100 };

/* Each bit of the input turns each bit of the output half of the time. */
static void avalanche(size_t n) {
    static unsigned turned[64];
    static uint8_t in[MOST_BYTES];
    unsigned least = AVALANCHE, most = 0;
    memset(turned, 0, sizeof turned);
    for (int t = 0; t < AVALANCHE; t++) {
        for (size_t i = 0; i < n; i++) in[i] = (uint8_t)rnd();
        uint64_t before = hash_of(in, n);
        in[n ? rnd() % n : 0] ^= (uint8_t)(1U << rnd() % 8);
        uint64_t diff = before ^ hash_of(in, n);
        for (int b = 0; b < 64; b++) turned[b] += (unsigned)(diff >> b & 1);
    }
    for (int b = 0; b < 64; b++) {
        if (turned[b] < least) least = turned[b];
        if (turned[b] > most) most = turned[b];
    }
    tap_ok(least > AVALANCHE * 45 / 100 && most < AVALANCHE * 55 / 100,
           "%zu bytes: a turned bit turns each bit of the hash %.2f to %.2f of the time", n,
           (double)least / AVALANCHE, (double)most / AVALANCHE);
}

static void check_hash(void) {
    uint8_t in[MOST_BYTES];
    bool same = true, lengths = true;
    for (size_t i = 0; i < sizeof in; i++) in[i] = (uint8_t)rnd();
    for (int t = 0; t < 1000; t++) {
        struct hash h;
        hash_init(&h, 7);
        for (size_t at = 0; at < sizeof in;) {
            size_t n = (size_t)(rnd() % 40);
            if (n > sizeof in - at) n = sizeof in - at;
            hash_put(&h, in + at, n);
            at += n;
        }
        same = same && hash_end(&h) == hash_of(in, sizeof in);
    }
    tap_ok(same, "the cut of the input does not matter");
    static const uint8_t zero[MOST_BYTES];
    for (size_t n = 1; n < sizeof zero; n++) {
        for (size_t k = 0; k < n; k++) lengths = lengths && hash_of(zero, n) != hash_of(zero, k);
    }
    tap_ok(lengths, "zeros of each length differ");
    tap_ok(hash_of("abc", 3) == 0x04e1c03a8c9fe946ULL, "one value on every machine");
    avalanche(1), avalanche(8), avalanche(17), avalanche(100);
}

/* --- of files --- */

static uint64_t print_of(const uint8_t *p, size_t n, uint64_t base, struct err *e) {
    struct model m;
    char path[64];
    int fd;
    uint64_t print = 0;
    blob_file(p, n, &fd, path);
    if (model_open(&m, path, base, n - base, e)) {
        print = m.fingerprint;
        model_close(&m);
    }
    close(fd);
    return print;
}

/* The offset of the tensor data of a file. */
static size_t data_of(const struct blob *f) {
    struct model m;
    struct err e;
    char path[64];
    int fd;
    size_t at = 0;
    blob_file(f->p, f->n, &fd, path);
    if (model_open(&m, path, 0, 0, &e)) at = m.file[0].data_off, model_close(&m);
    close(fd);
    return at;
}

static void check_small(void) {
    struct spec spec = {0};
    struct blob f = maker_build(&spec), other;
    struct err e = {0};
    uint64_t print = print_of(f.p, f.n, 0, &e);
    tap_ok(print != 0, "a model has a fingerprint %s", e.text);
    unsigned unseen = 0;
    size_t data = data_of(&f);
    for (size_t at = data; at < f.n; at += 61) {
        f.p[at] ^= 1;
        unseen += print_of(f.p, f.n, 0, &e) == print;
        f.p[at] ^= 1;
    }
    tap_ok(!unseen, "a small file is seen in full (%zu bytes of weights)", f.n - data);

    struct blob shifted = {0};
    blob_put(&shifted, "something before", 16);
    blob_put(&shifted, f.p, f.n);
    tap_ok(print_of(shifted.p, shifted.n, 16, &e) == print, "where in a file it lies is the same");

    kv_u32(&spec.kv, "added.key", 1), spec.n_kv = 1;
    other = maker_build(&spec);
    uint64_t added = print_of(other.p, other.n, 0, &e);
    tap_ok(added && added != print, "the same weights with one more key differ");
    free(other.p);
    spec.kv.p[spec.kv.n - 4] = 2;
    other = maker_build(&spec);
    uint64_t changed = print_of(other.p, other.n, 0, &e);
    tap_ok(changed && changed != added && changed != print, "with another value they differ");
    free(other.p), free(spec.kv.p), free(shifted.p), free(f.p);
}

/* A large file, sparse: the weights are zeros but for what is written. */
static void check_large(uint64_t len) {
    enum { META = 5000 };
    static uint8_t buf[CURSOR_WINDOW];
    int fd = memfd_create("large", MFD_CLOEXEC);
    struct fingerprint_of f = {fd, 0, len, META, META + 24};
    struct err e = {0};
    uint64_t first = 0, print, data = len - f.data;
    if (fd < 0 || ftruncate(fd, (off_t)len) ||
        !tap_ok(fingerprint_take(&f, buf, &first, &e), "%llu bytes %s", (unsigned long long)len,
                e.text)) {
        return;
    }
    unsigned unseen = 0, gaps = 0;
    uint64_t end = f.data;
    for (unsigned i = 0; i < FINGERPRINT_PIECES; i++) {
        uint64_t piece = fingerprint_piece(f.data, data, i);
        for (int k = 0; k < 3; k++) {
            uint64_t at = piece + (k == 0 ? 0 : k == 1 ? FINGERPRINT_PIECE - 1 : rnd() % 4096);
            bool ok =
                pwrite(fd, "\x10", 1, (off_t)at) == 1 && fingerprint_take(&f, buf, &print, &e);
            unseen += !ok || print == first;
            ok = pwrite(fd, "", 1, (off_t)at) == 1;
            unseen += !ok;
        }
        gaps += piece > end + data / 64 + 1;
        end = piece + FINGERPRINT_PIECE;
    }
    tap_ok(!unseen, "each of %d pieces is seen at both ends and within", FINGERPRINT_PIECES);
    tap_ok(!gaps && end == len, "from the first byte to the last, no gap above 1/64");
    for (unsigned i = 0; i < META; i += 7) {
        bool ok = pwrite(fd, "\x01", 1, i) == 1 && fingerprint_take(&f, buf, &print, &e) &&
                  print != first;
        unseen += !ok || pwrite(fd, "", 1, i) != 1;
    }
    tap_ok(!unseen, "and every byte of the metadata");
    f.meta++;
    tap_ok(fingerprint_take(&f, buf, &print, &e) && print != first, "lengths count");
    f.meta--, f.len++;
    tap_ok(!fingerprint_take(&f, buf, &print, &e) && e.code == ERR_FORMAT,
           "a file that is shorter is refused: %s", e.text);
    double t = clock_s();
    f.len--;
    bool ok = fingerprint_take(&f, buf, &print, &e);
    t = clock_s() - t;
    tap_ok(ok && print == first && t < 0.5, "%.2f ms", t * 1e3);
    close(fd);
}

int main(void) {
    check_hash();
    check_small();
    check_large(5ULL << 30);
    check_large(1 << 20);
    return tap_done();
}
