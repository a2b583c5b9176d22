/* status_json.h - what a node knows of itself, as JSON: /status.json and /health.
 *
 * Pure renderers of struct status. A value that is not known is null. Fields may be added; those of
 * INTERFACE.md stay.
 */
#ifndef FRONT_STATUS_JSON_H
#define FRONT_STATUS_JSON_H

#include "base/json.h"
#include "base/log.h"
#include "base/status.h"

#include <stddef.h>

/* log: its last lines, oldest first. */
void status_json(struct json *j, const struct status *s, char (*log)[LOG_LINE], size_t n_log);

/* What a node without a model says to who asks it, with the address of a node that serves if one is
 * known. s NULL: nothing is known. Returns out. */
const char *status_no_model(const struct status *s, char *out, size_t cap);

/* {"status":"ok"}, or "loading", "joining" or "failed" with "why". Returns whether the node serves. */
bool status_health(struct json *j, const struct status *s);

#endif
