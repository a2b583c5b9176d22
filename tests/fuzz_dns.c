/* Any bytes as a DNS message: read whole, its names and texts taken apart, and written again. */
#include "net/dns.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void use(const struct dns_item *it) {
    char label[DNS_LABEL + 1];
    size_t pos = 0, n;
    const uint8_t *s;
    unsigned sum = 0;
    if (it->name.b[it->name.len - 1]) abort();
    dns_name_label(&it->name, label, sizeof label);
    for (const char *c = label; *c; c++) {
        if (*c < '-' || *c > 'z') abort();
    }
    for (size_t i = 0; i < it->len; i++) sum += it->data[i];
    while (it->type == DNS_TXT && dns_txt_next(it->data, it->len, &pos, &s, &n))
        sum += n ? s[n - 1] : 0;
    volatile unsigned sink = sum;
    (void)sink;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct dns_writer w;
    struct dns_reader r, again;
    struct dns_item it;
    if (!dns_read(&r, data, size)) return 0;
    again = r;
    bool is_sound = dns_is_sound(&r);
    unsigned n = 0, n_put = 0;
    dns_begin(&w, r.id, r.flags);
    while (dns_next(&again, &it)) {
        use(&it);
        n++;
        bool put = it.section == DNS_QUESTION ? dns_put_question(&w, &it.name, it.type, it.top)
                                              : dns_put_record(&w, it.section, &it.name, it.type,
                                                               it.top, it.ttl, it.data, it.len);
        n_put += put;
    }
    if (is_sound == again.is_bad) abort();
    size_t len = dns_end(&w);
    if (len > DNS_SEND_MAX || !dns_read(&r, w.b, len) || !dns_is_sound(&r)) abort();
    while (n_put && dns_next(&r, &it)) n_put--;
    if (n_put) abort();
    return 0;
}
