/* api.h - OpenAI's API: POST /v1/completions, whole or as a stream of events.
 *
 * Taken: prompt (a string, a list of token ids, or up to JOB_CHOICES of them in a list: a choice each),
 * max_tokens (16 as OpenAI's; -1: until the context is full), temperature, top_p, top_k, min_p (unless
 * given as `dair run` has them: 0.8, 0.95, 40, 0.05), seed (else another one each time), stop, stream,
 * stream_options.include_usage, echo, model (repeated in the reply). The prompt goes in raw, as
 * `dair run --raw` does it: the same options give the same text. Choice i of several is sequence i of
 * the random numbers. What would change the answer and is not done here is refused; unknown keys are
 * not looked at; keywords of a schema that are taken and not enforced are told in a Warning header.
 * Requests wait while the cluster changes; they are not failed for it.
 *
 * All on the HTTP thread.
 */
#ifndef FRONT_API_H
#define FRONT_API_H

#include "base/log.h"
#include "front/job.h"
#include "model/model.h"

struct api {
    struct job_shared jobs;
    uint32_t n_ctx;
    size_t prompt_bytes;  // longest text that is made tokens of
    struct log_limit noted;
};

/* tok NULL: there is no model here, and requests are refused (503). reading: bytes that reading a body
 * and making tokens of its text may take; 0: 48 MiB, which is 1 MiB of text. answers: bytes of all
 * answers under way; 0: 16 MiB. Borrowed: node, tok. */
void api_init(struct api *a, struct node *node, const struct tok *tok, uint32_t n_ctx,
              uint64_t reading, uint64_t answers);
void api_destroy(struct api *a);

void api_completions(struct api *a, struct http_request *q);

#endif
