/* matmul.c - a resident tile is multiplied where it lies; a streamed one is re-laid unit by unit into
 * the thread's own scratch, which stays in its cache, and multiplied from there. What is all there is
 * dealt to the threads in long pieces; what still comes from the disk they take in its order. */
#include "nn/matmul.h"

#include <assert.h>
#include <inttypes.h>

static MUST bad_scale(const struct weights *w, const struct matrix *mat, uint32_t row,
                      struct err *e) {
    uint64_t at = (mat->off - mat->tensor->off) / mat->row_bytes + row;  // behind other experts'
    (void)err_set(e, ERR_FORMAT, "tensor %s holds a number that is not finite near row %" PRIu64,
                  mat->tensor->name, at);
    return err_in_file(e, w->model->file[mat->tensor->file].path);
}

/* Groups [group, group + n_group) of a tile from file order to dst. */
static MUST relay(const struct weights *w, const struct matrix *mat, const struct tile_rows *rows,
                  uint32_t group, uint32_t n_group, uint8_t *dst, const uint8_t *raw,
                  struct err *e) {
    for (uint32_t g = group; g < group + n_group; g++) {
        uint32_t row = g * ROW_GROUP;
        uint32_t n_row = rows->n_row - row < ROW_GROUP ? rows->n_row - row : ROW_GROUP;
        if (!mat->ops->relay(dst, raw + row * mat->row_bytes, n_row, mat->n_col)) {
            return bad_scale(w, mat, mat->row0 + rows->row + row, e);
        }
        dst += mat->group_bytes;
    }
    return true;
}

bool matmul_convert(void *owner, uint32_t i, void *dst, const void *raw, struct err *e) {
    const struct weights *w = owner;
    const struct tile_rows *rows = &w->rows[i];
    uint32_t n_group = (rows->n_row + ROW_GROUP - 1) / ROW_GROUP;
    return relay(w, w->matrix[rows->matrix], rows, 0, n_group, dst, raw, e);
}

/* Give back, in sweep order, every tile whose units are done, and arm it for the next sweep. */
static void put_finished(struct matmul_state *s) {
    pthread_mutex_lock(&s->lock);
    while (!atomic_load_explicit(&s->left[s->next_put], memory_order_acquire)) {
        uint32_t i = s->next_put;
        atomic_store_explicit(&s->left[i], s->w->rows[i].n_unit, memory_order_relaxed);
        store_put(s->store, i);
        s->next_put = i + 1 == s->w->n_sweep ? 0 : i + 1;
    }
    pthread_mutex_unlock(&s->lock);
}

/* So many units of tile i are done. One of an expert goes at once: it was wanted for this only. */
static void finish_units(struct matmul_state *s, uint32_t i, uint32_t n) {
    bool is_expert = i >= s->w->n_sweep;
    if (s->keeps && !is_expert) return;
    if (atomic_fetch_sub_explicit(&s->left[i], n, memory_order_acq_rel) > n) return;
    if (!is_expert) {
        put_finished(s);
        return;
    }
    atomic_store_explicit(&s->left[i], s->w->rows[i].n_unit, memory_order_relaxed);
    store_put(s->store, i);
}

/* With tile i, which is not put then: whoever waits for one that comes after it must not. */
static void fail(struct matmul_state *s, uint32_t i, const struct err *e) {
    pthread_mutex_lock(&s->lock);
    if (!atomic_load(&s->failed)) s->err = *e;
    atomic_store(&s->failed, true);
    pthread_mutex_unlock(&s->lock);
    store_fail(s->store, i, e);
}

/* Name the tensor whose tile could not be read. */
static bool blame(const struct matmul_state *s, uint32_t asked, struct err *e) {
    const struct tile_rows *t = &s->w->rows[store_failed(s->store, asked)];
    return err_in(e, s->w->matrix[t->matrix]->tensor->name);
}

/* One unit of a tile as it came from the disk. A token by itself gains nothing from the width of a unit, so
 * no more of it is re-laid at a time than stays in the cache. */
static MUST run_streamed(const struct weights *w, const struct mm_job *job,
                         const struct tile_rows *rows, const struct unit *u, const uint8_t *raw,
                         float *y, uint8_t *scratch, struct err *e) {
    const struct matrix *mat = job->mat;
    uint32_t n = job->n_tok > 1 ? u->n_group : (uint32_t)(UNIT_BYTES / mat->group_bytes);
    if (!n) n = 1;
    for (uint32_t g = 0; g < u->n_group; g += n, y += n * ROW_GROUP) {
        uint32_t left = u->n_group - g, now = left < n ? left : n;
        if (!relay(w, mat, rows, u->group + g, now, scratch, raw, e)) return false;
        mat->ops->matmul(y, job->ldy, scratch, now, mat->n_col, job->x, job->n_tok);
    }
    return true;
}

/* Units from `index` of the job's on, at most n of them: returns how many it did, 0 when it has failed. A token by
 * itself goes over all that lie side by side in one call, for looking a unit up costs the time of 1 KiB of
 * it; where there are more tokens, each unit stays in the cache while they pass. */
static uint32_t run_units(struct matmul_state *s, const struct mm_job *job, uint32_t index,
                          uint32_t n, uint8_t *scratch) {
    const struct matrix *mat = job->mat;
    const struct unit *u = &s->w->unit[mat->unit0 + index];
    const struct tile_rows *rows = &s->w->rows[u->tile];
    uint32_t n_group = u->n_group, done = 1;
    struct view v;
    struct err e;
    if (!store_get(s->store, u->tile, &v, &e)) {
        (void)blame(s, u->tile, &e);
        fail(s, u->tile, &e);
        return 0;
    }
    float *y = job->y + rows->row + u->group * ROW_GROUP;
    if (v.resident) {
        const uint8_t *w = v.p + u->group * mat->group_bytes;
        while (job->n_tok == 1 && done < n && u[done].tile == u->tile) n_group += u[done++].n_group;
        mat->ops->matmul(y, job->ldy, w, n_group, mat->n_col, job->x, job->n_tok);
    } else if (!run_streamed(s->w, job, rows, u, v.p, y, scratch, &e)) {
        fail(s, u->tile, &e);
        return 0;
    }
    finish_units(s, u->tile, done);
    return done;
}

static void work(void *ctx, int thread, int n_thread) {
    struct matmul_state *s = ctx;
    (void)n_thread;
    uint8_t *scratch = s->scratch + (size_t)thread * s->w->unit_bytes;
    const struct mm_job *job = s->job;
    uint32_t base = 0, first, n;
    while ((n = par_take(&s->units, thread, &first))) {
        if (first < base) base = 0, job = s->job;
        for (uint32_t i = first, done; i < first + n; i += done) {
            if (atomic_load_explicit(&s->failed, memory_order_relaxed)) return;
            while (i - base >= job->n_unit) base += job->n_unit, job++;
            uint32_t of_job = base + job->n_unit - i, most = first + n - i;
            if (most > of_job) most = of_job;
            done = run_units(s, job, job->unit + i - base, most, scratch);
            if (!done) return;
        }
    }
}

/* Whether nothing of the call's comes from the disk. */
static bool is_there(const struct matmul_state *s) {
    for (unsigned i = 0; i < s->n_job; i++) {
        const struct matrix *mat = s->job[i].mat;
        for (uint32_t t = mat->tile0; t < mat->tile0 + mat->n_tile; t++) {
            if (!store_ready(s->store, t)) return false;
        }
    }
    return true;
}

/* Up to which of the jobs' n units, from `first` on, the tiles are there. */
static uint32_t units_there(const struct matmul_state *s, uint32_t first, uint32_t n) {
    const struct mm_job *job = s->job;
    uint32_t base = 0, tile = UINT32_MAX;
    for (uint32_t i = first; i < n; i++) {
        while (i - base >= job->n_unit) base += job->n_unit, job++;
        uint32_t of = s->w->unit[job->mat->unit0 + job->unit + i - base].tile;
        if (of != tile && store_waits(s->store, of)) return i;
        tile = of;
    }
    return n;
}

/* Units [first, n). While the disk is behind they are computed as their tiles come, and between them there
 * is time for something else; without anything to do the team waits where it needs them. */
static MUST run_all(struct matmul_state *s, struct par *team, uint32_t first, uint32_t n,
                    struct err *e) {
    bool in_order = !is_there(s), has_work = in_order && s->idle;
    while (first < n) {
        uint32_t end = has_work ? units_there(s, first, n) : n;
        if (end == first) {
            if (!s->idle(s->idle_ctx, team, &has_work, e)) return false;
            continue;
        }
        par_deal(&s->units, team, first, end, in_order);
        par_run(team, work, s);
        if (atomic_load(&s->failed)) {
            *e = s->err;
            return false;
        }
        first = end;
    }
    return true;
}

MUST matmul(struct matmul_state *s, struct par *team, const struct mm_job *job, unsigned n_job,
            uint32_t n_tok, struct err *e) {
    uint32_t n_unit = 0;
    assert(n_job <= MM_JOBS);
    s->n_job = n_job;
    for (unsigned i = 0; i < n_job; i++) {
        s->job[i] = job[i];
        if (!job[i].n_unit) s->job[i].n_unit = job[i].mat->n_unit;
        if (!job[i].n_tok) s->job[i].n_tok = n_tok;
        n_unit += s->job[i].n_unit;
    }
    return run_all(s, team, 0, n_unit, e);
}

static MUST pass_tile(struct matmul_state *s, uint32_t i, struct err *e) {
    struct view v;
    if (!store_get(s->store, i, &v, e)) return blame(s, i, e);
    atomic_store_explicit(&s->left[i], 0, memory_order_release);
    put_finished(s);
    return true;
}

MUST matmul_skip(struct matmul_state *s, const struct matrix *mat, struct err *e) {
    for (uint32_t i = mat->tile0; !s->keeps && i < mat->tile0 + mat->n_tile; i++) {
        if (!pass_tile(s, i, e)) return false;
    }
    return true;
}

MUST matmul_pass(struct matmul_state *s, bool *is_over, struct err *e) {
    s->keeps = false;
    *is_over = !s->next_put;
    return *is_over || pass_tile(s, s->next_put, e);
}
