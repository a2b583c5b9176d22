/* test_dns.c - DNS messages as bytes: what we write can be read, what is malformed is refused. */
#include "net/dns.h"
#include "tap.h"

#include <string.h>

static struct dns_name name_of(const char *text) {
    struct dns_name n = {0};
    if (!dns_name(&n, text)) n.len = 0;
    return n;
}

static void test_names(void) {
    struct dns_name a = name_of("_dair._tcp.local"), b = name_of("_DAIR._Tcp.LOCAL"), c, d;
    char label[64], text[300];
    tap_ok(a.len == 18 && memcmp(a.b, "\5_dair\4_tcp\5local", 18) == 0, "a name is labels");
    tap_ok(dns_name_is(&a, &b), "letters are alike in both cases");
    b.b[1] = '^' + 1;
    tap_ok(!dns_name_is(&a, &(struct dns_name){.len = 18}), "and other bytes are not");
    tap_ok(dns_name_under(&c, "a.b", &a) && dns_name_is_under(&c, &a) && c.b[0] == 3,
           "an instance may have a dot in it");
    tap_ok(!dns_name_is_under(&a, &a) && !dns_name_is_under(&a, &c), "no name is under itself");
    memset(text, 'x', sizeof text);
    text[63] = 0;
    tap_ok(dns_name_under(&c, text, &a), "63 bytes are a label");
    text[63] = 'x';
    text[64] = 0;
    tap_ok(!dns_name_under(&c, text, &a) && !dns_name_under(&c, "", &a),
           "64 are not, nor are none");
    text[63] = 0;
    c = a;
    int n = 0;
    for (; dns_name_under(&d, text, &c); n++) c = d;
    tap_ok(n == 3 && c.len == 18 + 3 * 64, "255 bytes are a name");
    (void)dns_name_under(&c, "a\x1b[2J/\"\xff\n.z", &a);
    dns_name_label(&c, label, sizeof label);
    tap_ok(strcmp(label, "a??2J????.z") == 0, "nothing for terminals or paths: %s", label);
    dns_name_label(&c, label, 4);
    tap_ok(strcmp(label, "a??") == 0, "cut to the room");
    dns_name_reverse(&c, (const uint8_t[]){192, 0, 2, 41}, 4);
    a = name_of("41.2.0.192.in-addr.arpa");
    tap_ok(dns_name_is(&c, &a), "an IPv4 address backwards");
    dns_name_reverse(&c, (const uint8_t[16]){0xfe, 0x80, [15] = 0x1a}, 16);
    a = name_of("a.1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.e.f.ip6.arpa");
    tap_ok(dns_name_is(&c, &a), "an IPv6 address backwards");
}

static void test_round_trip(void) {
    struct dns_writer w;
    struct dns_reader r;
    struct dns_item it;
    const struct dns_name type = name_of("_dair._tcp.local"), host = name_of("dair-1a2b.local");
    struct dns_name inst;
    (void)dns_name_under(&inst, "dair-1a2b", &type);
    uint8_t srv[DNS_DATA] = {0, 0, 0, 0, 0x1f, 0x90};
    memcpy(srv + 6, host.b, host.len);
    dns_begin(&w, 7, DNS_RESPONSE | DNS_AA);
    bool ok =
        dns_put_question(&w, &type, DNS_PTR, true) &&
        dns_put_record(&w, DNS_ANSWER, &type, DNS_PTR, false, 4500, inst.b, inst.len) &&
        dns_put_record(&w, DNS_ANSWER, &inst, DNS_SRV, true, 120, srv, 6 + (size_t)host.len) &&
        dns_put_record(&w, DNS_ADDITIONAL, &inst, DNS_TXT, true, 4500, (const uint8_t *)"\3a=b", 4);
    size_t n = dns_end(&w);
    tap_ok(ok && n == 12 + 22 + 24 + 30 + 16, "names are compressed: %zu bytes", n);
    ok = dns_read(&r, w.b, n) && dns_is_sound(&r) && r.id == 7;
    tap_ok(ok && dns_next(&r, &it) && it.section == DNS_QUESTION && it.top && it.type == DNS_PTR &&
               dns_name_is(&it.name, &type),
           "the question");
    tap_ok(dns_next(&r, &it) && it.section == DNS_ANSWER && !it.top && it.ttl == 4500 &&
               it.len == inst.len && memcmp(it.data, inst.b, it.len) == 0,
           "a pointer's name is whole again");
    tap_ok(dns_next(&r, &it) && it.top && it.ttl == 120 && it.len == 6 + host.len &&
               memcmp(it.data, srv, it.len) == 0 && dns_name_is(&it.name, &inst),
           "and a service's");
    tap_ok(dns_next(&r, &it) && it.section == DNS_ADDITIONAL && it.len == 4, "and a text");
    tap_ok(!dns_next(&r, &it) && !r.is_bad, "and no more");
    dns_begin(&w, 0, 0);
    w.is_plain = true;
    (void)dns_put_record(&w, DNS_ANSWER, &host, DNS_SRV, true, 1, srv, 6 + (size_t)host.len);
    tap_ok(dns_end(&w) == 12 + 17 + 10 + 6 + 17, "for legacy queriers SRV is not compressed");
    dns_begin(&w, 0, 0);
    int k = 0;
    while (dns_put_record(&w, DNS_ANSWER, &type, DNS_PTR, false, 1, inst.b, inst.len)) k++;
    n = dns_end(&w);
    tap_ok(n <= DNS_SEND_MAX && n > DNS_SEND_MAX - 20 && dns_read(&r, w.b, n) && dns_is_sound(&r) &&
               r.left[DNS_ANSWER] == k,
           "a full packet is sound: %d records, %zu bytes", k, n);
}

static bool sound(const char *body, size_t len, unsigned questions, unsigned answers) {
    uint8_t p[DNS_READ_MAX + 1] = {0,
                                   0,
                                   0,
                                   0,
                                   (uint8_t)(questions >> 8),
                                   (uint8_t)questions,
                                   (uint8_t)(answers >> 8),
                                   (uint8_t)answers};
    struct dns_reader r;
    memcpy(p + DNS_HEADER, body, len);
    return dns_read(&r, p, DNS_HEADER + len) && dns_is_sound(&r);
}
#define SOUND(body, q, a) sound(body, sizeof body - 1, q, a)

static void test_malformed(void) {
    struct dns_reader r;
    uint8_t p[DNS_READ_MAX + 1] = {0};
    tap_ok(!dns_read(&r, p, 11) && !dns_read(&r, p, 0), "shorter than a header");
    tap_ok(dns_read(&r, p, DNS_READ_MAX) && !dns_read(&r, p, DNS_READ_MAX + 1),
           "9000 bytes at most");
    tap_ok(!SOUND("", 65535, 65535), "65535 questions, no data");
    tap_ok(SOUND("\1a\0\0\1\0\1", 1, 0) && !SOUND("\1a\0\0\1\0", 1, 0), "a question cut off");
    tap_ok(!SOUND("\100a\0\0\1\0\1", 1, 0) && !SOUND("\200a\0\0\1\0\1", 1, 0),
           "label types of old");
    tap_ok(!SOUND("\300\014\0\1\0\1", 1, 0), "a pointer to itself");
    tap_ok(!SOUND("\300\020\0\1\0\1\1a\0", 1, 0), "forward");
    tap_ok(!SOUND("\377\377\0\1\0\1", 1, 0), "past the end");
    tap_ok(!SOUND("\300\4\0\1\0\1", 1, 0), "into the header");
    tap_ok(!SOUND("\1a\300\014\0\1\0\1", 1, 0), "round in a circle");
    tap_ok(SOUND("\1a\0\0\1\0\1\1b\300\014\0\1\0\1", 2, 0), "backwards is right");
    char chain[400] = {0};
    size_t n = 0;
    memcpy(chain, "\1a\0\0\1\0\1", 7);
    for (n = 7; n + 6 < 7 + 6 * 40; n += 6) {
        size_t to = n == 7 ? 12 : 12 + n - 6;
        chain[n] = (char)(0xc0 | to >> 8);
        chain[n + 1] = (char)to;
        memcpy(chain + n + 2, "\0\1\0\1", 4);
    }
    tap_ok(!sound(chain, n, 40, 0) && sound(chain, 7 + 6 * 16, 17, 0) &&
               !sound(chain, 7 + 6 * 17, 18, 0),
           "a chain of pointers has an end");
    char longest[300];
    for (n = 0; n < 252; n += 4) memcpy(longest + n, "\3abc", 4);
    memcpy(longest + n, "\1x\0\0\1\0\1", 7);
    tap_ok(sound(longest, n + 7, 1, 0), "a name of 255 bytes");
    memcpy(longest + n, "\2xy\0\0\1\0\1", 8);
    tap_ok(!sound(longest, n + 8, 1, 0), "not one of 256");
    tap_ok(SOUND("\0\0\1\0\1\0\0\0\1\0\4\1\2\3\4", 0, 1), "an address");
    tap_ok(!SOUND("\0\0\1\0\1\0\0\0\1\0\3\1\2\3", 0, 1), "of three bytes");
    tap_ok(!SOUND("\0\0\34\0\1\0\0\0\1\0\4\1\2\3\4", 0, 1), "AAAA of four bytes");
    tap_ok(!SOUND("\0\0\1\0\1\0\0\0\1\0\5\1\2\3\4", 0, 1), "data past the end");
    tap_ok(!SOUND("\0\0\41\0\1\0\0\0\1\0\6\0\0\0\0\0\1", 0, 1), "SRV without a target");
    tap_ok(!SOUND("\0\0\14\0\1\0\0\0\1\0\0", 0, 1), "PTR without a name");
    tap_ok(!SOUND("\0\0\14\0\1\0\0\0\1\0\2\0\0", 0, 1), "bytes after PTR's name");
    tap_ok(!SOUND("\0\0\14\0\1\0\0\0\1\0\2\1a\0", 0, 1), "PTR's name longer than its data");
    tap_ok(SOUND("\0\377\376\377\376\0\0\0\1\0\1z", 0, 1), "unknown types and classes pass");
    tap_ok(SOUND("\0\0\20\0\1\0\0\0\1\0\0", 0, 1), "an empty text passes");
    size_t pos = 0, len;
    const uint8_t *s;
    tap_ok(!dns_txt_next((const uint8_t *)"\5ab", 3, &pos, &s, &len) && pos == 0,
           "a string past the end of a text");
}

int main(void) {
    test_names();
    test_round_trip();
    test_malformed();
    return tap_done();
}
