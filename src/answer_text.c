#include "answer_text.h"

#include "base/clock.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

MUST answer_text_open(struct answer_text *a, const struct tok *tok, struct err *e) {
    static char out[64 << 10];  // so that printing never allocates
    setvbuf(stdout, out, _IOFBF, sizeof out);
    json_file(&a->json, stdout);
    a->room = tok_longest(tok) + DETOK_MAX + STOP_BYTES;
    a->text = malloc(a->room);
    for (int k = 0; k < 2; k++) a->part[k] = malloc(a->room + REASONING_HELD);
    if (!a->text || !a->part[0] || !a->part[1]) {
        return err_set(e, ERR_MEMORY, "no memory for the answer's text");
    }
    /* Touched now, so that it counts before the budget is drawn up. */
    memset(a->text, 0, a->room);
    for (int k = 0; k < 2; k++) memset(a->part[k], 0, a->room + REASONING_HELD);
    return true;
}

void answer_text_close(struct answer_text *a) {
    free(a->text);
    for (int k = 0; k < 2; k++) free(a->part[k]);
}

void answer_text_begin(struct answer_text *a) {
    a->n_text = a->n_part[0] = a->n_part[1] = 0;
    a->is_stopped = a->has_thought = false;
}

static void show_part(struct answer_text *a, bool is_thought, const char *s, size_t len) {
    if (is_thought && a->hides_thoughts) return;
    if (!is_thought && a->has_thought) fputs("\n\n", stderr);
    a->has_thought = is_thought;
    fwrite(s, 1, len, is_thought ? stderr : stdout);
}

/* Of a token's object either part is one member. */
static void on_part(void *ctx, enum reasoning_part part, const char *s, size_t len) {
    struct answer_text *a = ctx;
    int k = part == REASONING_THOUGHT;
    if (!a->is_json) {
        show_part(a, k, s, len);
        return;
    }
    memcpy(a->part[k] + a->n_part[k], s, len);
    a->n_part[k] += len;
}

static void put_text(struct json *j, const char *key, const char *s, size_t len) {
    json_key(j, key);
    json_string(j, s, len);
}

/* What came of a token, or (id < 0) of the end. */
static void put_parts(struct answer_text *a, int32_t id) {
    if (id >= 0) {
        json_key(&a->json, "id");
        json_i64(&a->json, id);
    }
    if (id >= 0 || a->n_part[0]) put_text(&a->json, "text", a->part[0], a->n_part[0]);
    if (a->n_part[1]) put_text(&a->json, "reasoning_content", a->part[1], a->n_part[1]);
    a->n_part[0] = a->n_part[1] = 0;
}

static void put_token(struct answer_text *a, int32_t id, size_t len) {
    reasoning_push(&a->reasoning, a->text, len, on_part, a);
    if (!a->is_json) return;
    json_object(&a->json);
    put_parts(a, id);
    json_end(&a->json);
    json_line(&a->json);
}

/* A stop string may span tokens, so what may be the beginning of one waits for the next. */
bool answer_text_push(struct answer_text *a, int32_t id) {
    a->n_text += detok_push(&a->detok, id, a->text + a->n_text, a->room - a->n_text);
    size_t sure = stop_scan(&a->stop, a->text, a->n_text, &a->is_stopped);
    put_token(a, id, sure);
    a->n_text -= sure;
    memmove(a->text, a->text + sure, a->n_text);
    errno = 0;
    if (fflush(stdout) == 0 && !ferror(stdout)) return !a->is_stopped;
    a->write_errno = errno ? errno : EIO;
    return false;
}

void answer_text_end(struct answer_text *a) {
    if (!a->is_stopped) {
        a->n_text += detok_flush(&a->detok, a->text + a->n_text, a->room - a->n_text);
        size_t n = stop_end(&a->stop, a->text, a->n_text, &a->is_stopped);
        reasoning_push(&a->reasoning, a->text, n, on_part, a);
    }
    reasoning_end(&a->reasoning, on_part, a);
}

void answer_text_json_end(struct answer_text *a, size_t n_prompt, const struct gen_result *r) {
    static const char *const end[] = {
        [GEN_LENGTH] = "length", [GEN_EOS] = "eos", [GEN_STOPPED] = "stopped"};
    struct json *j = &a->json;
    answer_text_end(a);
    put_parts(a, -1);
    json_put_text(j, "end", a->is_stopped ? "stop" : end[r->end]);
    json_put_u64(j, "prompt_tokens", n_prompt);
    json_put_u64(j, "tokens", r->n_token);
    json_put_real(j, "prefill_tps", clock_rate((double)(n_prompt - r->n_kept), r->prefill_s));
    json_put_real(j, "decode_tps", clock_rate(r->n_drawn, r->decode_s));
    json_put_real(j, "prefill_s", r->prefill_s);
    json_put_real(j, "decode_s", r->decode_s);
}

const char *answer_text_ended(const struct answer_text *a, enum gen_end end, bool is_full) {
    if (a->is_stopped || end == GEN_EOS) return "";
    if (end == GEN_STOPPED) return ", stopped";
    return is_full ? ", cut off: the context is full" : ", cut off by -n";
}

MUST answer_text_check(const struct answer_text *a, struct err *e) {
    if (!a->write_errno) return true;
    if (a->write_errno == EPIPE) return err_set(e, ERR_STOPPED, "%s", "");
    errno = a->write_errno;
    return err_sys(e, "cannot write the answer");
}
