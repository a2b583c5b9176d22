#include "guest.h"

#include "base/clock.h"
#include "base/ifaces.h"
#include "base/log.h"
#include "nodesetup.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { STEP_MS = 100, JOIN_MS = 30000, SETTLE_MS = 3000, LEAVE_MS = 2000 };

struct guest {
    struct node_conf conf;
    struct ident ident;
    struct config config;
    struct node *node;
    struct status now;
    const struct guest_conf *asked;
    struct {
        unsigned n_node;
        enum node_state state;
        char unreached[STATUS_TEXT];
    } told;

    pthread_mutex_t lock;  // of what follows; callbacks fill it, guest_generate empties it
    pthread_cond_t news;
    int32_t *id;  // [cap]
    uint32_t n, cap;
    bool is_ended;
    enum ask_end end;
    struct err why;
};

static MUST open_key(struct guest *g, struct err *e) {
    const struct guest_conf *c = g->asked;
    config_init(&g->config);
    if (!config_load(&g->config, c->config, e)) return false;
    if (c->key && !config_set(&g->config, "cluster_key", c->key, e)) return false;
    if (!keys_open(&g->conf.keys, g->config.cluster_key, g->config.cluster_key_old, e))
        return false;
    if (g->conf.keys.has_key) return true;
    return err_set(e, ERR_USAGE,
                   "--workers needs the cluster's key: set DAIR_CLUSTER_KEY, or cluster_key in a "
                   "--config FILE, to the key that the nodes have");
}

/* The cluster's newest alert of these kinds, or NULL. */
static const char *find_alert(const struct status *t, unsigned codes) {
    for (unsigned i = t->n_alert < STATUS_ALERTS ? t->n_alert : STATUS_ALERTS; i-- > 0;) {
        if (codes >> t->alert[i].code & 1) return t->alert[i].text;
    }
    return NULL;
}

/* A node that answers, and that we can never work with: time changes nothing. */
static const char *find_unfit(const struct status *t) {
    return find_alert(t, 1U << ALERT_NO_MODEL | 1U << ALERT_OTHER_MODEL |
                             1U << ALERT_OTHER_NUMBERS | 1U << ALERT_OTHER_VERSION);
}

/* A named node works with one that we are not connected to. It comes when all that will connect had time
 * to. */
static const char *find_unreached(const struct status *t) {
    return t->state == STATE_JOINING ? find_alert(t, 1U << ALERT_UNREACHED) : NULL;
}

/* Is there no more hope? Then e says why. A refused key may be a moment's weakness, a second time it is
 * none. */
static bool is_hopeless(const struct status *t, struct err *e) {
    const char *unfit = find_unfit(t), *unreached = find_unreached(t);
    if (unfit) {
        err_set(e, ERR_IO, "%.380s (%s is this process)", unfit, t->name);
    } else if (t->unreached_by_key > 1) {
        err_set(e, ERR_IO,
                "%.300s; set DAIR_CLUSTER_KEY, or cluster_key in a --config FILE, to the key that "
                "the nodes have",
                t->unreached);
    } else if (unreached) {
        err_set(e, ERR_IO, "%s", unreached);
    } else {
        return false;
    }
    return true;
}

/* Who did not come, and why, as far as is known. */
static MUST nobody(const struct status *t, unsigned need, struct err *e) {
    unsigned n = t->cluster.n_node ? t->cluster.n_node - 1 : 0;
    if (*t->unreached) {
        return err_set(
            e, ERR_IO,
            "%u of %u workers joined within %d s: %.290s; HOST:PORT is the cluster port of a `dair "
            "node` (%d if nothing else is set), not the port of HTTP",
            n, need - 1, JOIN_MS / 1000, t->unreached, CONFIG_CLUSTER_PORT);
    }
    const char *more = t->n_alert ? t->alert[t->n_alert - 1].text : t->why;
    if (n >= need - 1) {
        return err_set(e, ERR_IO, "the workers did not take this process in within %d s%s%.300s",
                       JOIN_MS / 1000, *more ? ": " : "", more);
    }
    return err_set(e, ERR_IO,
                   "%u of %u workers joined within %d s%s%.290s; do all named ones run `dair node` "
                   "with this key and this model?",
                   n, need - 1, JOIN_MS / 1000, *more ? ": " : "", more);
}

/* While some are missing, how we would do without them is nothing to tell of. */
static void tell(struct guest *g, unsigned need, bool is_there) {
    const struct status *t = &g->now;
    FILE *to = g->asked->tell;
    enum node_state state = is_there                    ? STATE_READY
                            : t->state == STATE_LOADING ? STATE_LOADING
                                                        : STATE_JOINING;
    if (!to) return;
    if (t->cluster.n_node != g->told.n_node || state != g->told.state) {
        fprintf(to, "cluster   %s, %u of %u nodes are here\n", state_name(state), t->cluster.n_node,
                need);
    }
    if (*t->unreached && strcmp(t->unreached, g->told.unreached) != 0) {
        fprintf(to, "cluster   %s; trying again\n", t->unreached);
    }
    g->told.n_node = t->cluster.n_node;
    g->told.state = state;
    memcpy(g->told.unreached, t->unreached, sizeof g->told.unreached);
}

/* Waits while there is hope: loading may take long. A cluster of this process alone, which nobody asked for,
 * may fail where that with the missing will not: a failure counts once it stays though all are here. */
static MUST join(struct guest *g, unsigned need, struct err *e) {
    const struct timespec step = {.tv_nsec = STEP_MS * 1000000L};
    uint64_t patience = clock_ns() + (uint64_t)JOIN_MS * 1000000, settled = 0;
    g->told.state = N_STATE;
    for (;;) {
        bool is_there = node_wait(g->node, need, STEP_MS, e);
        enum err_code code = e->code;
        node_status(g->node, &g->now);
        tell(g, need, is_there);
        if (is_there) return true;
        if (is_hopeless(&g->now, e)) return false;
        uint64_t now = clock_ns();
        bool is_failed = g->now.state == STATE_FAILED;
        if (!is_failed || *g->now.unreached) settled = now + (uint64_t)SETTLE_MS * 1000000;
        if (code != ERR_STOPPED && now > settled) return false;
        if (atomic_load(g->asked->stop)) {
            return err_set(e, ERR_STOPPED, "stopped while waiting for the workers");
        }
        if (g->now.state == STATE_LOADING) patience = now + (uint64_t)JOIN_MS * 1000000;
        if (now > patience) return nobody(&g->now, need, e);
        if (is_failed) nanosleep(&step, NULL);
    }
}

static MUST enter(struct guest *g, struct setup *s, const struct machine *m, struct err *e) {
    const struct peers *p = g->asked->worker;
    struct node_conf *c = &g->conf;
    const char *interface = g->asked->interface;
    if (interface && !ifaces_check(interface, e)) return false;
    if (!open_key(g, e) || !ident_open(&g->ident, NULL, e)) return false;
    if (!nodesetup_measure(s, m, p->n, false, c, e)) return false;
    nodesetup_peers(p, c);
    c->ident = &g->ident;
    c->interface = interface;
    c->is_guest = true;
    return node_open(&g->node, c, e) && join(g, p->n + 1, e);
}

MUST guest_open(struct guest **out, struct setup *s, const struct machine *m,
                const struct guest_conf *c, struct err *e) {
    struct guest *g = calloc(1, sizeof *g);
    *out = g;
    if (!g) return err_set(e, ERR_MEMORY, "no memory to start with");
    g->asked = c;
    pthread_mutex_init(&g->lock, NULL);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&g->news, &attr);
    pthread_condattr_destroy(&attr);
    log_set(c->tell ? LOG_WARN : LOG_ERROR, stderr);
    if (enter(g, s, m, e)) return true;
    guest_close(g);
    *out = NULL;
    return false;
}

static void on_tokens(void *ctx, const int32_t *id, uint32_t n) {
    struct guest *g = ctx;
    pthread_mutex_lock(&g->lock);
    for (uint32_t i = 0; i < n && g->n < g->cap; i++) g->id[g->n++] = id[i];
    pthread_cond_signal(&g->news);
    pthread_mutex_unlock(&g->lock);
}

static void on_end(void *ctx, enum ask_end end, const struct err *why) {
    struct guest *g = ctx;
    pthread_mutex_lock(&g->lock);
    g->is_ended = true;
    g->end = end;
    if (why) g->why = *why;
    pthread_cond_signal(&g->news);
    pthread_mutex_unlock(&g->lock);
}

/* Waits a little for an id past the first `done`. Returns how many there are. */
static uint32_t wait_news(struct guest *g, uint32_t done, bool *is_ended) {
    uint64_t until = clock_ns() + (uint64_t)STEP_MS * 1000000;
    const struct timespec at = {.tv_sec = (time_t)(until / 1000000000),
                                .tv_nsec = (long)(until % 1000000000)};
    pthread_mutex_lock(&g->lock);
    if (g->n == done && !g->is_ended) pthread_cond_timedwait(&g->news, &g->lock, &at);
    uint32_t n = g->n;
    *is_ended = g->is_ended;
    pthread_mutex_unlock(&g->lock);
    return n;
}

/* Hands tokens on as they come. True: the answer came to its own end. */
static bool pass_on(struct guest *g, const struct gen_request *r, struct gen_result *out) {
    uint64_t start = clock_ns(), first = start;
    for (;;) {
        bool is_ended;
        uint32_t n = wait_news(g, out->n_token, &is_ended);
        if (r->stop && atomic_load(r->stop)) return false;
        if (out->n_token == 0 && (n || is_ended)) first = clock_ns();
        while (out->n_token < n) {
            if (!r->on_token(r->ctx, g->id[out->n_token])) return false;
            out->n_token++;
        }
        uint64_t now = clock_ns();
        out->prefill_s = (double)(first - start) * 1e-9;
        out->decode_s = (double)(now - first) * 1e-9;
        out->n_step = out->n_drawn = out->n_token ? out->n_token - 1 : 0;
        if (is_ended && n == out->n_token) return true;
    }
}

MUST guest_generate(struct guest *g, const struct gen_request *r, struct gen_result *out,
                    struct err *e) {
    uint64_t ticket;
    *out = (struct gen_result){.end = GEN_STOPPED};
    free(g->id);
    g->id = calloc(r->n_predict + 1, sizeof *g->id);
    if (!g->id) return err_set(e, ERR_MEMORY, "no memory for an answer of %u tokens", r->n_predict);
    g->cap = r->n_predict + 1;
    g->n = 0;
    g->is_ended = false;
    const struct ask_request a = {.prompt = r->prompt,
                                  .n_prompt = r->n_prompt,
                                  .n_predict = r->n_predict,
                                  .sampler = r->sampler,
                                  .grammar = r->grammar_kind,
                                  .grammar_text = r->grammar_text,
                                  .n_grammar = r->n_grammar,
                                  .sequence = r->sequence,
                                  .on_tokens = on_tokens,
                                  .on_end = on_end,
                                  .ctx = g};
    if (!node_ask(g->node, &a, &ticket, e)) return false;
    bool is_whole = pass_on(g, r, out);
    node_cancel(g->node, ticket);
    if (!is_whole) return true;
    out->end = g->end == ASK_EOS ? GEN_EOS : GEN_LENGTH;
    if (out->end == GEN_EOS) out->n_drawn = out->n_token;
    if (g->end != ASK_FAILED) return true;
    *e = g->why;
    return false;
}

unsigned guest_nodes(struct guest *g, uint64_t *pinned, uint64_t *streamed) {
    unsigned working = 0;
    node_status(g->node, &g->now);
    for (unsigned i = 0; i < g->now.cluster.n_node; i++) {
        working += g->now.cluster.node[i].is_working;
    }
    *pinned = g->now.cluster.node[0].pinned_bytes;
    *streamed = g->now.cluster.node[0].streamed_bytes;
    return working;
}

void guest_close(struct guest *g) {
    if (!g) return;
    if (g->node) node_drain(g->node, LEAVE_MS);
    if (g->node) node_close(g->node);
    pthread_cond_destroy(&g->news);
    pthread_mutex_destroy(&g->lock);
    free(g->id);
    free(g);
}
