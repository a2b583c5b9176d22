#include "base/status.h"

const char *state_name(enum node_state s) {
    static const char *const name[N_STATE] = {"ALONE", "JOINING",  "LOADING",
                                              "READY", "DEGRADED", "FAILED"};
    return name[s];
}
