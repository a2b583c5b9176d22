#include "base/status.h"

const char *state_name(enum node_state s) {
    static const char *const name[N_STATE] = {"ALONE", "JOINING",  "LOADING",
                                              "READY", "DEGRADED", "FAILED"};
    return name[s];
}

const char *alert_name(enum alert_code c) {
    static const char *const name[N_ALERT] = {
        "no_model", "other_model", "other_numbers", "other_version", "unreached", "twin",
        "crowded",  "left_out",    "no_plan",       "own_work",      "old_key",   "discovery"};
    return name[c];
}
