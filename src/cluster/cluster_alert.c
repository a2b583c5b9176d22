/* cluster_alert.c - what people are told beside the state: each alert with its code, once, for as long as it
 * holds. */
#include "base/clock.h"
#include "base/log.h"
#include "cluster/cluster_state.h"

#include <stdio.h>
#include <string.h>

static void drop_alert(struct cluster *c, unsigned i) {
    c->n_alert--;
    memmove(&c->alert[i], &c->alert[i + 1], (c->n_alert - i) * sizeof c->alert[0]);
    memmove(&c->alert_ns[i], &c->alert_ns[i + 1], (c->n_alert - i) * sizeof c->alert_ns[0]);
    memmove(&c->alert_of[i], &c->alert_of[i + 1], (c->n_alert - i) * sizeof c->alert_of[0]);
}

/* Shown until it has not come for a while, or, of a node, while that is connected; logged when it is new. */
void cluster_alert_of(struct cluster *c, enum alert_code code, const struct node_id *of,
                      bool is_told, const char *text) {
    uint64_t now = clock_ns();
    struct status_alert new = {
        .code = code};  // cut to its length before it is compared: so it is known again
    snprintf(new.text, sizeof new.text, "%.*s", (int)sizeof new.text - 1, text);
    for (unsigned i = 0; i < c->n_alert; i++) {
        if (strcmp(c->alert[i].text, new.text) != 0) continue;
        c->alert_ns[i] = now;
        return;
    }
    if (!is_told) log_warn("cluster", "%s", new.text);
    if (c->n_alert == STATUS_ALERTS) drop_alert(c, 0);
    c->alert[c->n_alert] = new;
    c->alert_of[c->n_alert] = *of;
    c->alert_ns[c->n_alert++] = now;
}

void cluster_alert(struct cluster *c, enum alert_code code, const char *text) {
    cluster_alert_of(c, code, &(struct node_id){{0}}, false, text);
}

void cluster_unalert(struct cluster *c, const struct node_id *of) {
    for (unsigned i = 0; i < c->n_alert;) {
        if (id_is(&c->alert_of[i], of))
            drop_alert(c, i);
        else
            i++;
    }
}

/* Named peers only, and not all of them: whom our peers hear and we cannot reach has no place in a plan
 * with us. */
static void tell_unreachable(struct cluster *c, uint64_t now) {
    struct member_view view[MEMBER_MAX];
    if (members_state(c->members, NULL) != STATE_JOINING || now - c->started_ns < UNREACHED_NS)
        return;
    unsigned n = members_list(c->members, view, MEMBER_MAX);
    for (unsigned i = 0; i < n; i++) {
        for (unsigned k = 0; k < view[i].beat.n_hear; k++) {
            const struct node_id *id = &view[i].beat.hear[k];
            char text[STATUS_TEXT], hex[ID_HEX];
            if (cluster_knows(c, id)) continue;
            ident_text(id, hex);
            snprintf(text, sizeof text,
                     c->conf.facts.is_guest ? "%s works with node %.8s, which did not connect with "
                                              "this process: a cluster takes in who reaches all "
                                              "its nodes, so name all of them after --workers"
                                            : "%s works with node %.8s, which has no connection "
                                              "with this node: of every two nodes one must be able "
                                              "to dial the other; name all of them in `peers`",
                     view[i].facts.name, hex);
            cluster_alert(c, ALERT_UNREACHED, text);
        }
    }
}

static void age_alerts(struct cluster *c, uint64_t now) {
    for (unsigned i = 0; i < c->n_alert;) {
        if (now - c->alert_ns[i] > ALERT_S * (uint64_t)1000000000 &&
            !cluster_knows(c, &c->alert_of[i]))
            drop_alert(c, i);
        else
            i++;
    }
}

void cluster_tend_alerts(struct cluster *c, uint64_t now) {
    age_alerts(c, now);
    tell_unreachable(c, now);
}
