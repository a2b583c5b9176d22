/* Any bytes as a config file and as a single setting. What must hold: values end, numbers are in their
 * limits, peers are host:port. */
#include "base/config.h"
#include "base/log.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void expect(bool ok) {
    if (!ok) abort();
}

static void check(const struct config *c) {
    expect(memchr(c->model, 0, sizeof c->model) &&
           memchr(c->cluster_key, 0, sizeof c->cluster_key));
    expect(memchr(c->hostname, 0, sizeof c->hostname));
    expect(c->port >= 1 && c->port <= 65535 && c->cluster_port <= 65535 && c->threads <= 256);
    expect(c->kv >= 0 && c->kv < 2 && c->wire >= 0 && c->wire < 3 && c->log >= 0 && c->log < 4);
    expect(c->memory.percent >= 0 && c->memory.percent <= 100);
    expect(c->share.wish >= 0 && c->share.wish <= 1e6 && c->peers.n <= CONFIG_PEERS);
    for (unsigned i = 0; i < c->peers.n; i++) {
        const char *end = memchr(c->peers.at[i], 0, CONFIG_PEER);
        const char *colon = end ? strrchr(c->peers.at[i], ':') : NULL;
        uint64_t port = 0;
        expect(colon && colon > c->peers.at[i] && text_u64(colon + 1, &port));
        expect(port >= 1 && port <= 65535);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct config c;
    struct err e;
    log_set(LOG_DEBUG, NULL);
    config_init(&c);
    config_parse(&c, "fuzz", (const char *)data, size);
    check(&c);
    char *text = malloc(size + 1);
    expect(text != NULL);
    memcpy(text, data, size);
    text[size] = '\0';
    char *value = strchr(text, '=');
    if (value) {
        *value = '\0';
        (void)!config_set(&c, text, value + 1, &e);
        check(&c);
    }
    free(text);
    return 0;
}
