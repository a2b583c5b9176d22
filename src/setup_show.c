#include "setup_show.h"

#include "base/text.h"

void setup_print_model(const struct setup *s, FILE *to) {
    const struct model *m = &s->model;
    char name[80];
    const char *file = s->is_demo ? "the model inside this program" : text_name(m->file[0].path);
    text_printable(name, sizeof name, m->name);
    fprintf(to, "model     %s%s%s: %s, %u layer%s, %s weights in %s, %s", name, *name ? ", " : "",
            file, m->arch_name, m->n_layer, m->n_layer == 1 ? "" : "s", COUNT_TEXT(m->n_param),
            setup_type(m), BYTES_TEXT(m->data_len));
    if (m->n_file > 1) fprintf(to, " in %u files", m->n_file);
    fputc('\n', to);
    setup_note(s, to);
}

void setup_note(const struct setup *s, FILE *to) {
    const char *note = s->tok ? tok_note(s->tok) : NULL;
    if (note) fprintf(to, "note      %s\n", note);
}

static void print_memory(const struct setup *s, FILE *to) {
    const struct nn_memory *m = &s->memory;
    const struct bar_part part[] = {
        {(double)setup_pinned(m), 'W'}, {(double)m->kv_bytes, 'C'}, {(double)m->scratch_bytes, 's'},
        {(double)m->ring_bytes, 'r'},   {(double)s->program, 'p'},
    };
    char bar[64];
    text_bar(bar, 48, (double)s->budget, part, sizeof part / sizeof *part);
    fprintf(to, "memory    %s of %s\n", bar, BYTES_TEXT(s->budget));
    fprintf(to, "          W weights %s, C context %s (%u tokens), s scratch %s,\n",
            BYTES_TEXT(setup_pinned(m)), BYTES_TEXT(m->kv_bytes), s->conf.n_ctx,
            BYTES_TEXT(m->scratch_bytes));
    fprintf(to, "          r read-ahead %s, p program %s\n", BYTES_TEXT(m->ring_bytes),
            BYTES_TEXT(s->program));
    if (s->budget > s->mem.available + s->mem.rss) {
        fprintf(to, "          note: only %s of memory are free now\n",
                BYTES_TEXT(s->mem.available + s->mem.rss));
    }
}

void setup_threads(const struct setup *s, char *to, size_t size) {
    const struct tune *t = &s->tune;
    unsigned take = t->count[t->best];
    int n = s->has_count ? snprintf(to, size, "%u, as asked", take)
                         : snprintf(to, size, "%u of %u", take, t->count[0]);
    if (n > 0 && (size_t)n < size) {
        n += snprintf(to + n, size - (size_t)n, ": %s of weights", RATE_TEXT(t->bps[t->best]));
    }
    for (unsigned i = 0; i < t->n && n > 0 && (size_t)n < size; i++) {
        if (i == t->best) continue;
        n += snprintf(to + n, size - (size_t)n, ", %s with %u", RATE_TEXT(t->bps[i]), t->count[i]);
    }
    bool all = take == t->count[0];
    if (n > 0 && (size_t)n < size) {
        snprintf(to + n, size - (size_t)n, "%s%s", all ? "" : "; prompts take all",
                 s->conf.places.n ? "; each kept on a core" : "");
    }
}

void setup_print(const struct setup *s, FILE *to) {
    const struct nn_memory *m = &s->memory;
    char threads[256];
    setup_print_model(s, to);
    print_memory(s, to);
    setup_threads(s, threads, sizeof threads);
    if (s->conf.n_slice == 1) fprintf(to, "threads   %s\n", threads);
    if (m->disk_bytes == 0) {
        fprintf(to, "weights   all in memory, %s read from it for each token\n",
                BYTES_TEXT(m->token_bytes));
    } else {
        fprintf(to, "weights   %.0f %% stay in memory, %s are read from the disk for each token\n",
                m->sweep_bytes ? 100 * (double)setup_kept(m) / (double)m->sweep_bytes : 0,
                BYTES_TEXT(rehearsed_bytes(&s->rehearsed, m)));
    }
    if (m->n_demand) {
        bool is_known = s->rehearsed.skew > 0;
        fprintf(to, "experts   %.0f %% of them in memory, ", 100 * nn_hit_share(m));
        if (is_known) fprintf(to, "and %.0f %% ", 100 * rehearsed_hits(&s->rehearsed, m));
        fprintf(to, is_known ? "of those of a token, by a trial\n"
                             : "so of those of a token, if chosen evenly\n");
    }
    fprintf(to, "forecast  %.*f tokens/s, limited by %s (%s measured)\n",
            s->forecast.decode_tps < 10 ? 2 : 1, s->forecast.decode_tps,
            setup_limit(s, &s->forecast),
            RATE_TEXT(s->forecast.disk_bound ? s->disk_bps : s->compute_bps));
}

static void json_threads(const struct setup *s, struct json *j) {
    const struct tune *t = &s->tune;
    json_put_u64(j, "decode_threads", s->conf.n_decode ? s->conf.n_decode : s->conf.n_thread);
    json_put_bool(j, "pinned", s->conf.places.n > 0);
    json_key(j, "threads_tried");
    json_array(j);
    for (unsigned i = 0; i < t->n; i++) {
        json_object(j);
        json_put_u64(j, "threads", t->count[i]);
        json_put_real(j, "gbps", t->bps[i] * 1e-9);
        json_end(j);
    }
    json_end(j);
}

void setup_json(const struct setup *s, struct json *j) {
    const struct nn_memory *m = &s->memory;
    json_put_u64(j, "budget_bytes", s->budget);
    json_put_u64(j, "program_bytes", s->program);
    json_put_u64(j, "slack_bytes", s->slack);
    json_put_u64(j, "least_bytes", s->least);
    json_put_u64(j, "in_ram_bytes", s->in_ram);
    json_put_u64(j, "pinned_bytes", setup_pinned(m));
    json_put_u64(j, "kv_bytes", m->kv_bytes);
    json_put_u64(j, "scratch_bytes", m->scratch_bytes);
    json_put_u64(j, "ring_bytes", m->ring_bytes);
    json_put_u64(j, "guess_bytes", m->guess_bytes);
    json_put_real(j, "draft_keep", s->conf.draft_keep);
    json_put_u64(j, "sweep_bytes", m->sweep_bytes);
    json_put_u64(j, "token_bytes", m->token_bytes);
    json_put_u64(j, "sweep_streamed_bytes", m->disk_bytes);
    json_put_u64(j, "streamed_tiles", m->tiles.n_streamed + m->tiles.n_missing);
    json_put_u64(j, "cache_bytes", m->tiles.cached_bytes);
    json_put_real(j, "expert_hit_share", nn_hit_share(m));
    json_put_u64(j, "ctx", s->conf.n_ctx);
    json_put_u64(j, "batch", s->conf.n_batch);
    json_put_u64(j, "sweep_tokens", s->conf.n_sweep ? s->conf.n_sweep : s->conf.n_batch);
    json_put_u64(j, "slots", m->n_slot);
    json_put_u64(j, "readers", s->conf.n_reader);
    json_put_u64(j, "threads", s->conf.n_thread);
    json_threads(s, j);
    json_put_u64(j, "slices", s->conf.n_slice);
    json_put_real(j, "forecast_tps", s->forecast.decode_tps);
    json_put_text(j, "limited_by", setup_limit_word(s, &s->forecast));
    json_put_real(j, "memory_gbps", s->read_bps * 1e-9);
    json_put_real(j, "compute_gbps", s->compute_bps * 1e-9);
    json_put_real(j, "rest_s", s->tune.rest_s);
    json_put_real(j, "stream_gbps", s->tune.stream_bps * 1e-9);
    json_put_real(j, "disk_gbps_max", s->disk_bps * 1e-9);
    json_put_real(j, "rehearsed", s->rehearsed.times);
    json_put_real(j, "expert_skew", s->rehearsed.skew);
    json_put_real(j, "forecast_hit_share", rehearsed_hits(&s->rehearsed, m));
    json_put_u64(j, "disk_chunk_bytes", s->disk_chunk);
}
