/* status.h - what a node knows of itself and its cluster, as one plain value.
 *
 * Filled by the engine, drawn by everything that shows something: page, /status.json, console, LEDs,
 * `dair status`. Nothing stands here that was not measured or read. Rates are bytes per second; a
 * value that is not known is 0, for a temperature NAN.
 */
#ifndef BASE_STATUS_H
#define BASE_STATUS_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

enum node_state {
    STATE_ALONE,     // no cluster key: works by itself
    STATE_JOINING,   // looks for the others
    STATE_LOADING,   // a plan is there; weights are being read
    STATE_READY,     // serves
    STATE_DEGRADED,  // serves, but members were lost that have not come back
    STATE_FAILED,    // cannot serve; status.why says the reason
    N_STATE
};
const char *state_name(enum node_state s);  // "READY"

/* STATUS_TEXT: bytes of a sentence of an alert, a state or the log */
enum { STATUS_NODES = 32, STATUS_ALERTS = 8, STATUS_TEXT = ERR_TEXT };

struct status_node {
    char id[33], name[20], address[64], arch[16], board[64];
    enum node_state state;
    uint64_t ram_bytes, budget_bytes, pinned_bytes, streamed_bytes;  // streamed: per sweep
    double disk_bps, disk_bps_max, temperature_c, share;             // share: of the weights, 0..1
    bool has_model, is_working;                                      // in the plan
    uint32_t layers;
};

/* What an alert is about, for programs; its sentence, which may change, is for people. */
enum alert_code {
    ALERT_NO_MODEL,       // a node has none
    ALERT_OTHER_MODEL,    // a node has another than this one
    ALERT_OTHER_NUMBERS,  // a node rounds differently, or by another version of the contract
    ALERT_OTHER_VERSION,  // a node speaks another version of the protocol
    ALERT_UNREACHED,      // a node works with one that this one cannot reach
    ALERT_TWIN,           // two nodes have one id
    ALERT_CROWDED,        // more nodes than are kept
    ALERT_LEFT_OUT,       // a node has no part in the work, for a while or while it is as it is
    ALERT_NO_PLAN,        // these nodes cannot serve this model
    ALERT_OWN_WORK,       // this node's own disk, memory or engine fails
    ALERT_OLD_KEY,        // a node still uses cluster_key_old
    ALERT_DISCOVERY,      // mDNS does not work here
    N_ALERT
};
const char *alert_name(enum alert_code c);  // "no_model": these names stay as they are

struct status_alert {
    enum alert_code code;
    char text[STATUS_TEXT];
};

struct status {
    enum node_state state;
    char why[STATUS_TEXT];  // of FAILED, JOINING; else ""
    char id[33], name[20], address[64], shared_name[32];
    struct {
        char fingerprint[17], leader[33];
        uint64_t epoch;
        uint32_t n_node;
        struct status_node node[STATUS_NODES];  // this one first
    } cluster;
    struct {
        char name[96], file[256], fingerprint[17];
        uint64_t bytes;
        uint32_t layers, context;
    } model;
    struct {
        char kind[16], limited_by[16];
        double measured_tps;
        double wire_bytes_per_token;  // payload that this node sends for one token
        uint32_t sweep_tokens;        // of a prompt, at most, that pass the weights together
        /* What the others hold together, whichever node is lost; slots 0: nothing is known of that, as in
         * a node alone; context 0: without some node the others cannot work */
        uint32_t context_after_loss, slots_after_loss;
    } plan;
    struct {  // of the leader's work, and what waits here
        uint32_t running, waiting, slots;
        double tokens_per_second, accepted_per_step;
        uint64_t tokens;      // since the start, while this node led
        uint64_t read_bytes;  // since the start, by this node, of weights that stream
    } load;
    struct {
        double compute, disk, network;
    } time_ms;  // per token, of late
    struct {
        uint64_t sent_payload, sent_wire, received_payload,
            received_wire;  // data channels, since start
        uint64_t crypt_ns, gathers, epochs, resubmitted;
        uint64_t refused_wrong_key, refused_garbage, refused_timed_out, refused_displaced,
            refused_other_version,
            refused_postponed;  // came while as many handshakes as fit were under way
    } net;
    /* Named nodes whose last dial came to nothing, as "HOST:PORT: why", with "; " between; else "". */
    char unreached[STATUS_TEXT];
    uint32_t unreached_by_key;  // times that one of them, at most, was dialled and had another key
    uint32_t n_alert;
    struct status_alert alert[STATUS_ALERTS];
};

#endif
