/* dns.h - DNS messages as bytes (RFC 1035 section 4, with the two top bits of RFC 6762 section 18).
 *
 * Reading takes any bytes: names are expanded, pointers must lead backwards, and a message that is
 * malformed anywhere is refused as a whole. Writing compresses names and never goes past one
 * Ethernet frame. Pure: no time, no sockets, no allocation. Numbers are big-endian on the wire.
 */
#ifndef NET_DNS_H
#define NET_DNS_H

#include "base/cursor.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    DNS_HEADER = 12,
    DNS_LABEL = 63,           // bytes of a label at most
    DNS_NAME = 255,           // bytes of a name at most, lengths and the root included
    DNS_READ_MAX = 9000,      // bytes of a message that we read (RFC 6762 section 17)
    DNS_SEND_MAX = 1440,      // that we send: below the MTU of Ethernet with IPv6's headers
    DNS_DATA = 6 + DNS_NAME,  // bytes of record data that has a name in it, SRV's being the longest
};

enum dns_type {
    DNS_A = 1,
    DNS_CNAME = 5,
    DNS_PTR = 12,
    DNS_TXT = 16,
    DNS_AAAA = 28,
    DNS_SRV = 33,
    DNS_NSEC = 47,
    DNS_ANY = 255,
};

enum { DNS_IN = 1, DNS_CLASS_ANY = 255 };
enum {
    DNS_RESPONSE = 0x8000,
    DNS_OPCODE = 0x7800,
    DNS_AA = 0x0400,
    DNS_TC = 0x0200,
    DNS_RCODE = 15
};
enum dns_section { DNS_QUESTION, DNS_ANSWER, DNS_AUTHORITY, DNS_ADDITIONAL, DNS_SECTIONS };

/* A name as on the wire without compression: labels with their lengths, the empty one last. */
struct dns_name {
    uint8_t len;
    uint8_t b[DNS_NAME];  // [len]
};

/* "_dair._tcp.local": a dot parts labels, nothing is escaped. False when it does not fit. */
bool dns_name(struct dns_name *n, const char *text);
/* label.parent; the label may hold any bytes. */
bool dns_name_under(struct dns_name *n, const char *label, const struct dns_name *parent);
/* The name of an address for the way back: "4.3.2.1.in-addr.arpa" (RFC 1035 3.5), "...ip6.arpa"
 * (RFC 3596 2.5). b: 4 or 16 bytes. */
void dns_name_reverse(struct dns_name *n, const uint8_t *b, size_t len);
/* ASCII letters alike in both cases, as the RFC wants. */
bool dns_name_is(const struct dns_name *a, const struct dns_name *b);
/* n is one label above parent. */
bool dns_name_is_under(const struct dns_name *n, const struct dns_name *parent);
/* The first label, for people: what is not a letter, digit, '-', '_' or '.' becomes '?'. */
void dns_name_label(const struct dns_name *n, char *out, size_t cap);

/* A question or a record. */
struct dns_item {
    enum dns_section section;
    struct dns_name name;
    uint16_t type, cls;  // cls without its top bit
    bool top;            // of a question: an answer by unicast is wished; of a record: cache-flush
    uint32_t ttl;        // seconds
    uint16_t len;
    const uint8_t
        *data;  // [len]: of PTR, CNAME and SRV with the name expanded (in own), else in the message
    uint8_t own[DNS_DATA];
};

struct dns_reader {
    struct cursor at;
    uint16_t id, flags, left[DNS_SECTIONS];
    bool is_bad;
};

/* Begin a message of len bytes at p, borrowed. False when there is no header or it is too long. */
bool dns_read(struct dns_reader *r, const uint8_t *p, size_t len);
/* The next question or record; false at the end, and when it is malformed (is_bad). it->data is
 * valid as long as it and the message are. */
bool dns_next(struct dns_reader *r, struct dns_item *it);
/* All of it can be read. r is where dns_read left it, and stays there. */
bool dns_is_sound(const struct dns_reader *r);

/* One step over the strings of a TXT record (RFC 6763 section 6): false at the end or where a
 * length leads past it. *s: the string, [*n] bytes. */
bool dns_txt_next(const uint8_t *data, size_t len, size_t *pos, const uint8_t **s, size_t *n);

struct dns_writer {
    size_t n;
    uint16_t id, flags, count[DNS_SECTIONS];
    bool is_plain;  // SRV's target is not compressed (legacy queriers, RFC 6762 section 18.14)
    bool is_full;
    uint8_t n_label;
    uint16_t label[64];  // where names begin that later ones may point to
    uint8_t b[DNS_SEND_MAX];
};

void dns_begin(struct dns_writer *w, uint16_t id, uint16_t flags);
/* Sections in their order. False, and nothing is written, when it does not fit. */
bool dns_put_question(struct dns_writer *w, const struct dns_name *name, uint16_t type, bool top);
/* data [len]: names in it expanded, as in struct dns_item. */
bool dns_put_record(struct dns_writer *w, enum dns_section section, const struct dns_name *name,
                    uint16_t type, bool top, uint32_t ttl, const uint8_t *data, size_t len);
/* Write the header; the message is b [n]. Returns n. */
size_t dns_end(struct dns_writer *w);
static inline bool dns_is_empty(const struct dns_writer *w) {
    return w->n == DNS_HEADER;
}

#endif
