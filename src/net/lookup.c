#include "net/lookup.h"

#include <netdb.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { HOST_CAP = 256, PORT_CAP = 8 };

struct entry {
    char *name;
    bool is_asked, is_found;
    struct lookup_result result;
};

/* Owned by the resolver's thread, which may outlive lookup_close(): a question can take seconds. */
struct lookup {
    pthread_mutex_t lock;
    pthread_cond_t asked;
    bool is_closed;
    unsigned n;
    struct entry entry[LOOKUP_NAMES];
};

static MUST split(const char *name, char host[static HOST_CAP], char port[static PORT_CAP],
                  struct err *e) {
    const char *colon = strrchr(name, ':'), *from = name;
    size_t len = colon ? (size_t)(colon - name) : 0;
    if (len > 2 && *from == '[' && from[len - 1] == ']') from++, len -= 2;
    if (!len || len >= HOST_CAP || strlen(colon + 1) >= PORT_CAP) {
        return err_set(e, ERR_USAGE, "\"%.100s\" is no peer; write host:port", name);
    }
    memcpy(host, from, len);
    host[len] = 0;
    memcpy(port, colon + 1, strlen(colon + 1) + 1);
    return true;
}

MUST lookup_now(const char *name, struct lookup_result *r, struct err *e) {
    char host[HOST_CAP], port[PORT_CAP];
    struct addrinfo hint = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV}, *found = NULL;
    *r = (struct lookup_result){0};
    if (!split(name, host, port, e)) return false;
    int bad = getaddrinfo(host, port, &hint, &found);
    if (bad || !found) {
        return err_set(e, ERR_USAGE, "peer %.100s cannot be resolved (%s); give its address", name,
                       gai_strerror(bad));
    }
    for (struct addrinfo *a = found; a && r->n_addr < LOOKUP_ADDRS; a = a->ai_next) {
        memcpy(&r->addr[r->n_addr++], a->ai_addr, a->ai_addrlen);
    }
    freeaddrinfo(found);
    return true;
}

static void lookup_free(struct lookup *l) {
    for (unsigned i = 0; i < l->n; i++) free(l->entry[i].name);
    pthread_cond_destroy(&l->asked);
    pthread_mutex_destroy(&l->lock);
    free(l);
}

static struct entry *next_asked(struct lookup *l) {
    for (unsigned i = 0; i < l->n; i++) {
        if (l->entry[i].is_asked) return &l->entry[i];
    }
    return NULL;
}

static void *resolve(void *arg) {
    struct lookup *l = arg;
    pthread_mutex_lock(&l->lock);
    while (!l->is_closed) {
        struct lookup_result r;
        struct err e;
        struct entry *n = next_asked(l);
        if (!n) {
            pthread_cond_wait(&l->asked, &l->lock);
            continue;
        }
        n->is_asked = false;
        pthread_mutex_unlock(&l->lock);
        if (!lookup_now(n->name, &r, &e)) r.n_addr = 0;
        pthread_mutex_lock(&l->lock);
        n->result = r;
        n->is_found = true;
    }
    pthread_mutex_unlock(&l->lock);
    lookup_free(l);
    return NULL;
}

static MUST add(struct lookup *l, const char *name, struct err *e) {
    char host[HOST_CAP], port[PORT_CAP];
    if (!split(name, host, port, e)) return false;
    l->entry[l->n].name = strdup(name);
    return l->entry[l->n++].name || err_set(e, ERR_MEMORY, "no memory for the names of peers");
}

MUST lookup_open(struct lookup **out, const char *const *name, unsigned n, struct err *e) {
    pthread_t thread;
    if (n > LOOKUP_NAMES) return err_set(e, ERR_USAGE, "more than %d named peers", LOOKUP_NAMES);
    struct lookup *l = calloc(1, sizeof *l);
    if (!l) return err_set(e, ERR_MEMORY, "no memory for the names of peers");
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->asked, NULL);
    bool ok = true;
    for (unsigned i = 0; i < n && ok; i++) ok = add(l, name[i], e);
    if (ok && pthread_create(&thread, NULL, resolve, l)) {
        ok = err_set(e, ERR_MEMORY, "the system gives no thread for the names of peers");
    }
    if (!ok) {
        lookup_free(l);
        return false;
    }
    pthread_detach(thread);
    *out = l;
    return true;
}

void lookup_close(struct lookup *l) {
    if (!l) return;
    pthread_mutex_lock(&l->lock);
    l->is_closed = true;
    pthread_cond_signal(&l->asked);
    pthread_mutex_unlock(&l->lock);
}

void lookup_ask(struct lookup *l, unsigned i) {
    pthread_mutex_lock(&l->lock);
    l->entry[i].is_asked = true;
    pthread_cond_signal(&l->asked);
    pthread_mutex_unlock(&l->lock);
}

bool lookup_take(struct lookup *l, unsigned i, struct lookup_result *r) {
    pthread_mutex_lock(&l->lock);
    bool is_found = l->entry[i].is_found;
    if (is_found) *r = l->entry[i].result;
    l->entry[i].is_found = false;
    pthread_mutex_unlock(&l->lock);
    return is_found;
}
