/* forward.c - tokens to the residual stream, through the layers, to logits and candidates. */
#include "nn/state.h"

#include <assert.h>
#include <string.h>

/* The embedding rows of the tokens: from the resident table, or a small read each. */
static MUST embed(struct nn *n, const int32_t *token, uint32_t n_tok, struct err *e) {
    const struct model *m = n->conf.model;
    for (uint32_t t = 0; t < n_tok; t++) {
        if (token[t] < 0 || (uint32_t)token[t] >= m->n_vocab) {
            return err_set(e, ERR_FORMAT, "token %d is not in the vocabulary of %u", token[t],
                           m->n_vocab);
        }
        uint64_t off = (uint64_t)token[t] * n->embd_row_bytes;
        uint8_t *row;
        if (n->embd) {
            row = n->embd + off;
        } else if (!store_read(n->store, m->token_embd->file, n->embd_row, m->token_embd->off + off,
                               n->embd_row_bytes, &row, e)) {
            return err_in(e, m->token_embd->name);
        }
        float *x = n->x_all + (size_t)t * m->n_embd;
        n->embd_ops->dequant(x, row, m->n_embd);
        for (uint32_t i = 0; m->embd_scale != 1 && i < m->n_embd; i++) x[i] *= m->embd_scale;
    }
    return true;
}

/* cos and sin of n_tok positions from n->pos on, for each table of frequencies. */
static void angles(struct nn *n, uint32_t n_tok) {
    const struct model *m = n->conf.model;
    float *local = n->angle_all + (size_t)n->conf.n_sweep * m->n_rot;
    for (uint32_t t = 0; t < n_tok; t++) {
        float *cs = n->angle_all + (size_t)t * m->n_rot;
        rope_angles(cs, n->freq, m->n_rot / 2, n->pos + t);
        for (uint32_t i = 0; n->rope_length != 1 && i < m->n_rot; i++) cs[i] *= n->rope_length;
        if (m->rope_base_local > 0) {
            rope_angles(local + (size_t)t * m->n_rot, n->freq + m->n_rot / 2, m->n_rot / 2,
                        n->pos + t);
        }
    }
}

/* Logits of the last n_logit of n_tok tokens, which go through as a batch of their own. */
static MUST output(struct nn *n, struct par *team, uint32_t n_tok, uint32_t n_logit,
                   struct err *e) {
    const struct matrix *mat = &n->w.output;
    n->x = n->x_all;
    site_from_norm(n, team, &n->in, n->output_norm, n->output_norm_bias, n_tok - n_logit, n_logit);
    const void *x = mat->ops->is_float ? (const void *)n->in.f : n->in.panel;
    const struct mm_job job = {
        .mat = mat, .x = x, .y = n->logits, .ldy = round_up(n->n_vocab_own, ROW_GROUP)};
    if (!matmul(&n->mm, team, &job, 1, n_logit, e)) return false;
    for (uint32_t t = 0; t < n_logit; t++) {
        float *y = n->logits + (size_t)t * job.ldy, cap = n->conf.model->final_softcap;
        if (n->output_bias) n->k->add(y, n->output_bias, n->n_vocab_own);
        if (cap > 0) n->k->softcap(y, n->n_vocab_own, cap);
    }
    return true;
}

/* Many tokens take long for a layer: whoever watches hears of each batch. */
static MUST tell(struct nn *n, uint32_t layers_done, struct err *e) {
    bool go = !n->progress || n->progress(n->progress_ctx, layers_done, n->conf.model->n_layer);
    return go || err_set(e, ERR_STOPPED, "stopped");
}

/* All tokens through a layer, batch by batch: the keys and values of each are there before the next
 * one's attention reads them. Only the last batch lets the layer's tiles go. */
static MUST run_layer(struct nn *n, struct par *team, uint32_t layer, struct err *e) {
    const struct model *m = n->conf.model;
    uint32_t first = n->n_pos[n->seq];
    bool ok = true;
    for (uint32_t at = 0, some; ok && at < n->n_tok; at += some) {
        some = n->n_tok - at < n->conf.n_batch ? n->n_tok - at : n->conf.n_batch;
        n->x = n->x_all + (size_t)at * m->n_embd;
        n->angle = n->angle_all + (size_t)at * m->n_rot;
        n->pos = first + at;
        n->mm.keeps = at + some < n->n_tok;
        ok = layer_run(n, team, layer, some, e) && tell(n, layer + !n->mm.keeps, e);
    }
    return ok;
}

enum { FEW_TOKENS = 4 };  // up to here the memory limits, beyond arithmetic

void nn_widen(const struct nn *n, struct par *team, uint32_t n_tok) {
    bool some = n_tok <= FEW_TOKENS && n->conf.n_decode;
    par_width(team, some ? (int)n->conf.n_decode : par_threads(team));
}

MUST nn_begin(struct nn *n, uint32_t seq, const int32_t *token, uint32_t n_tok, uint32_t n_logit,
              struct err *e) {
    assert(seq < n->conf.n_seq && n_logit <= n->conf.n_logit && n_logit <= n_tok);
    n->seq = seq;
    n->pos = n->n_pos[seq];
    if (n_tok < 1 || n_tok > n->conf.n_sweep || n_tok > n->conf.n_ctx - n->pos) {
        return err_set(e, ERR_LIMIT,
                       "the context of %u tokens is full: %u are there, %u more asked",
                       n->conf.n_ctx, n->pos, n_tok);
    }
    n->n_logit = 0;
    n->n_tok = n_tok;
    n->n_wanted = n_logit;
    n->layer = 0;
    if (!embed(n, token, n_tok, e)) return false;
    angles(n, n_tok);
    return true;
}

static MUST finish(struct nn *n, struct par *team, struct err *e) {
    uint32_t n_logit = n->n_wanted;
    bool ok =
        n_logit ? output(n, team, n->n_tok, n_logit, e) : matmul_skip(&n->mm, &n->w.output, e);
    if (!ok) return false;
    n->n_pos[n->seq] += n->n_tok;
    n->n_logit = n_logit;
    n->row = n_logit ? n_logit - 1 : 0;
    return true;
}

MUST nn_go_on(struct nn *n, struct par *team, bool *is_over, struct err *e) {
    *is_over = n->layer == n->conf.model->n_layer;
    return *is_over ? finish(n, team, e) : run_layer(n, team, n->layer++, e);
}

MUST nn_step(struct nn *n, struct par *team, uint32_t seq, const int32_t *token, uint32_t n_tok,
             uint32_t n_logit, struct err *e) {
    bool is_over = false;
    if (!nn_begin(n, seq, token, n_tok, n_logit, e)) return false;
    nn_widen(n, team, n_tok);
    while (!is_over) {
        if (!nn_go_on(n, team, &is_over, e)) return false;
    }
    return true;
}

MUST nn_pass(struct nn *n, struct err *e) {
    bool is_over = false;
    while (!is_over) {
        if (!tell(n, 0, e) || !matmul_pass(&n->mm, &is_over, e)) return false;
    }
    return true;
}

/* Own best: in descending order up to TOPK_MAX, beyond it all own logits as they come. */
static uint32_t own_candidates(struct nn *n, size_t k, struct candidate *out) {
    uint32_t first, count;
    const float *logits = nn_logits(n, &first, &count);
    if (k > TOPK_MAX) {
        for (uint32_t i = 0; i < count; i++) {
            out[i] = (struct candidate){.id = (int32_t)(first + i), .logit = logits[i]};
        }
        return count;
    }
    size_t found = n->k->topk(n->top_id, n->top_val, k, logits, count);
    for (size_t i = 0; i < found; i++) {
        out[i] = (struct candidate){.id = (int32_t)first + n->top_id[i], .logit = n->top_val[i]};
    }
    return (uint32_t)found;
}

/* Merge the slices' sorted lists; ids ascend with the slice, so the earlier list wins a tie. Absent
 * entries (a slice with few rows, or NaN logits) have id -1 and end their list. */
static size_t merge(const struct candidate *all, const size_t *at, unsigned n_slice, size_t k,
                    struct candidate *out) {
    size_t next[SLICE_MAX], n = 0;
    for (unsigned i = 0; i < n_slice; i++) next[i] = at[i] / sizeof *all;
    while (n < k) {
        int best = -1;
        for (unsigned i = 0; i < n_slice; i++) {
            if (next[i] == at[i + 1] / sizeof *all || all[next[i]].id < 0) continue;
            if (best < 0 || all[next[i]].logit > all[next[best]].logit) best = (int)i;
        }
        if (best < 0) break;
        out[n++] = all[next[best]++];
    }
    return n;
}

/* What peers sent: each names tokens of its own cut; only a short list has places left empty. */
static MUST check_ids(const struct nn *n, const struct candidate *all, const size_t *at, size_t k,
                      struct err *e) {
    for (unsigned i = 0; i < n->conf.n_slice; i++) {
        int64_t first = n->conf.cuts.vocab[i], end = n->conf.cuts.vocab[i + 1];
        for (size_t j = at[i] / sizeof *all; j < at[i + 1] / sizeof *all; j++) {
            if (all[j].id >= first && all[j].id < end) continue;
            if (all[j].id == -1 && k <= TOPK_MAX) break;
            return err_set(e, ERR_FORMAT, "slice %u proposes token %d, but has %lld to %lld only",
                           i, all[j].id, (long long)first, (long long)end - 1);
        }
    }
    return true;
}

MUST nn_candidates(struct nn *n, size_t k, struct candidate **out, size_t *n_out, struct err *e) {
    if (k > TOPK_MAX) k = n->conf.model->n_vocab;  // whoever takes so many takes all
    if (!n->n_logit) return err_set(e, ERR_STOPPED, "no logits were computed in the last step");
    *out = n->cand;
    if (n->conf.n_slice == 1) {
        *n_out = own_candidates(n, k, n->cand);
        return true;
    }
    size_t at[SLICE_MAX + 1] = {0};
    for (unsigned i = 0; i < n->conf.n_slice; i++) {
        size_t own = n->conf.cuts.vocab[i + 1] - n->conf.cuts.vocab[i];
        at[i + 1] = at[i] + (own < k ? own : k) * sizeof(struct candidate);
    }
    struct candidate *mine = n->cand_all + at[n->conf.self] / sizeof *mine;
    size_t room = (at[n->conf.self + 1] - at[n->conf.self]) / sizeof *mine;
    for (size_t i = own_candidates(n, k, mine); i < room; i++) mine[i].id = -1;
    if (!n->coll->gather(n->coll, COLL_CANDIDATE, n->cand_all, 0, 1, at, e)) return false;
    if (!check_ids(n, n->cand_all, at, k, e)) return false;
    if (k <= TOPK_MAX) {
        *n_out = merge(n->cand_all, at, n->conf.n_slice, k, n->cand);
    } else {
        *n_out = at[n->conf.n_slice] / sizeof *mine;
        memcpy(n->cand, n->cand_all, *n_out * sizeof *mine);
    }
    return true;
}

/* The logits of tokens that others name, each from the slice that has its row. */
static MUST named(struct nn *n, const int32_t *id, uint32_t n_id, struct candidate *out,
                  struct err *e) {
    const uint32_t *cut = n->conf.cuts.vocab;
    struct candidate *all = n->conf.n_slice == 1 ? out : n->cand_all;
    size_t at[SLICE_MAX + 1] = {0};
    uint32_t i = 0, first, count;
    const float *logits = nn_logits(n, &first, &count);
    for (unsigned s = 0; s < n->conf.n_slice; s++) {
        for (; i < n_id && (uint32_t)id[i] < cut[s + 1]; i++) {
            all[i] = (struct candidate){.id = id[i]};
            if (s == n->conf.self) all[i].logit = logits[(uint32_t)id[i] - cut[s]];
        }
        at[s + 1] = i * sizeof *all;
    }
    if (n->conf.n_slice == 1) return true;
    if (!n->coll->gather(n->coll, COLL_CANDIDATE, all, 0, 1, at, e)) return false;
    for (i = 0; i < n_id; i++) {
        if (all[i].id != id[i]) {
            return err_set(e, ERR_FORMAT, "a slice answers with token %d, asked for %d", all[i].id,
                           id[i]);
        }
    }
    memcpy(out, all, n_id * sizeof *all);
    return true;
}

MUST nn_wanted(struct nn *n, const struct want *w, struct candidate **out, size_t *n_out,
               struct err *e) {
    if (!n->n_logit) return err_set(e, ERR_STOPPED, "no logits were computed in the last step");
    *out = n->cand;
    *n_out = 0;
    if (w->k && !nn_candidates(n, w->k, out, n_out, e)) return false;
    if (w->n_id > n->conf.model->n_vocab - *n_out) {
        return err_set(e, ERR_LIMIT, "more tokens are asked for than there are");
    }
    if (w->n_id && !named(n, w->id, w->n_id, n->cand + *n_out, e)) return false;
    *n_out += w->n_id;
    return true;
}
