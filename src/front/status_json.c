#include "front/status_json.h"

#include <stdio.h>

static void put_known(struct json *j, const char *key, double v) {
    json_key(j, key);
    if (v > 0 || v < 0) {
        json_real(j, v);
    } else {
        json_null(j);
    }
}

/* INTERFACE.md has a place for it. */
static void put_unmeasured(struct json *j, const char *key) {
    json_key(j, key);
    json_null(j);
}

static void put_bytes(struct json *j, const char *key, uint64_t v) {
    json_key(j, key);
    if (v) {
        json_u64(j, v);
    } else {
        json_null(j);
    }
}

static void put_name(struct json *j, const char *key, const char *s) {
    json_put_text(j, key, *s ? s : NULL);
}

static void put_node(struct json *j, const struct status_node *n) {
    json_object(j);
    json_put_text(j, "id", n->id);
    json_put_text(j, "name", n->name);
    put_name(j, "address", n->address);
    json_put_text(j, "state", state_name(n->state));
    put_name(j, "arch", n->arch);
    put_name(j, "board", n->board);
    put_bytes(j, "ram_bytes", n->ram_bytes);
    put_bytes(j, "budget_bytes", n->budget_bytes);
    json_put_u64(j, "pinned_bytes", n->pinned_bytes);
    json_put_u64(j, "streamed_bytes", n->streamed_bytes);
    put_known(j, "disk_gbps", n->disk_bps * 1e-9);
    put_known(j, "disk_gbps_max", n->disk_bps_max * 1e-9);
    put_unmeasured(j, "link_mbps");
    json_put_real(j, "temperature_c", n->temperature_c);
    put_unmeasured(j, "throttled");
    json_put_bool(j, "has_model", n->has_model);
    json_put_bool(j, "working", n->is_working);
    json_put_real(j, "share", n->share);
    json_put_u64(j, "layers", n->layers);
    json_end(j);
}

static void put_self(struct json *j, const struct status *s) {
    json_key(j, "node");
    json_object(j);
    json_put_text(j, "id", s->id);
    json_put_text(j, "name", s->name);
    json_put_text(j, "state", state_name(s->state));
    put_name(j, "why", s->why);
    put_name(j, "address", s->address);
    put_name(j, "shared_name", s->shared_name);
    json_end(j);
}

static void put_cluster(struct json *j, const struct status *s) {
    uint32_t n = s->cluster.n_node < STATUS_NODES ? s->cluster.n_node : STATUS_NODES;
    json_key(j, "cluster");
    json_object(j);
    put_name(j, "fingerprint", s->cluster.fingerprint);
    json_put_u64(j, "epoch", s->cluster.epoch);
    put_name(j, "leader", s->cluster.leader);
    json_key(j, "nodes");
    json_array(j);
    for (uint32_t i = 0; i < n; i++) put_node(j, &s->cluster.node[i]);
    json_end(j);
    json_end(j);
}

static void put_model(struct json *j, const struct status *s) {
    json_key(j, "model");
    json_object(j);
    put_name(j, "name", s->model.name);
    put_name(j, "file", s->model.file);
    put_name(j, "fingerprint", s->model.fingerprint);
    put_bytes(j, "bytes", s->model.bytes);
    put_bytes(j, "layers", s->model.layers);
    put_bytes(j, "context", s->model.context);
    json_end(j);
    json_key(j, "plan");
    json_object(j);
    put_name(j, "kind", s->plan.kind);
    put_unmeasured(j, "predicted_tps");
    put_known(j, "measured_tps", s->plan.measured_tps);
    put_name(j, "limited_by", s->plan.limited_by);
    put_known(j, "wire_bytes_per_token", s->plan.wire_bytes_per_token);
    json_put_u64(j, "sweep_tokens", s->plan.sweep_tokens);
    json_key(j, "after_loss");
    if (s->plan.slots_after_loss) {
        json_object(j);
        json_put_u64(j, "context", s->plan.context_after_loss);
        json_put_u64(j, "slots", s->plan.slots_after_loss);
        json_end(j);
    } else {
        json_null(j);
    }
    json_end(j);
}

static void put_work(struct json *j, const struct status *s) {
    json_key(j, "load");
    json_object(j);
    json_put_u64(j, "running", s->load.running);
    json_put_u64(j, "waiting", s->load.waiting);
    json_put_u64(j, "slots", s->load.slots);
    json_put_real(j, "tokens_per_second", s->load.tokens_per_second);
    put_known(j, "accepted_per_step", s->load.accepted_per_step);
    json_put_u64(j, "tokens", s->load.tokens);
    json_put_u64(j, "read_bytes", s->load.read_bytes);
    json_end(j);
    json_key(j, "time_ms");
    json_object(j);
    put_known(j, "compute", s->time_ms.compute);
    put_known(j, "disk", s->time_ms.disk);
    put_known(j, "network", s->time_ms.network);
    json_end(j);
    json_key(j, "net");
    json_object(j);
    json_put_u64(j, "sent_payload_bytes", s->net.sent_payload);
    json_put_u64(j, "sent_wire_bytes", s->net.sent_wire);
    json_put_u64(j, "received_payload_bytes", s->net.received_payload);
    json_put_u64(j, "received_wire_bytes", s->net.received_wire);
    json_put_u64(j, "crypt_ns", s->net.crypt_ns);
    json_put_u64(j, "gathers", s->net.gathers);
    json_put_u64(j, "epochs", s->net.epochs);
    json_put_u64(j, "resubmitted", s->net.resubmitted);
    json_key(j, "refused");
    json_object(j);
    json_put_u64(j, "wrong_key", s->net.refused_wrong_key);
    json_put_u64(j, "garbage", s->net.refused_garbage);
    json_put_u64(j, "timed_out", s->net.refused_timed_out);
    json_put_u64(j, "displaced", s->net.refused_displaced);
    json_put_u64(j, "postponed", s->net.refused_postponed);
    json_put_u64(j, "other_version", s->net.refused_other_version);
    json_end(j);
    json_end(j);
}

void status_json(struct json *j, const struct status *s, char (*log)[LOG_LINE], size_t n_log) {
    uint32_t n_alert = s->n_alert < STATUS_ALERTS ? s->n_alert : STATUS_ALERTS;
    json_object(j);
    json_put_text(j, "version", DAIR_VERSION);
    put_self(j, s);
    put_cluster(j, s);
    put_model(j, s);
    put_work(j, s);
    json_key(j, "alerts");
    json_array(j);
    for (uint32_t i = 0; i < n_alert; i++) {
        json_object(j);
        json_put_text(j, "code", alert_name(s->alert[i].code));
        json_put_text(j, "text", s->alert[i].text);
        json_put_text(j, "remedy", NULL);  // stands in the text
        json_end(j);
    }
    json_end(j);
    json_key(j, "log");
    json_array(j);
    for (size_t i = 0; i < n_log; i++) json_text(j, log[i]);
    json_end(j);
    json_end(j);
}

static bool serves(enum node_state s) {
    return s == STATE_READY || s == STATE_DEGRADED || s == STATE_ALONE;
}

const char *status_no_model(const struct status *s, char *out, size_t cap) {
    const struct status_node *other = NULL;
    uint32_t n = !s ? 0 : s->cluster.n_node < STATUS_NODES ? s->cluster.n_node : STATUS_NODES;
    for (uint32_t i = 1; i < n && !other; i++) {
        const struct status_node *v = &s->cluster.node[i];
        if (v->has_model && *v->address && serves(v->state)) other = v;
    }
    snprintf(out, cap,
             "this node has no model and answers no requests itself; ask another node%s%s%s",
             other ? ", such as http://" : ", or give it a model", other ? other->address : "",
             other ? "/" : "");
    return out;
}

bool status_health(struct json *j, const struct status *s) {
    static const char *const word[N_STATE] = {
        [STATE_ALONE] = "failed", [STATE_JOINING] = "joining", [STATE_LOADING] = "loading",
        [STATE_READY] = "failed", [STATE_DEGRADED] = "failed", [STATE_FAILED] = "failed"};
    char text[STATUS_TEXT];
    bool has_model = s->model.bytes > 0, is_ok = serves(s->state) && has_model;
    json_object(j);
    json_put_text(j, "status", is_ok ? "ok" : has_model ? word[s->state] : "failed");
    if (!is_ok) {
        json_put_text(j, "why", has_model ? s->why : status_no_model(s, text, sizeof text));
    }
    json_end(j);
    return is_ok;
}
