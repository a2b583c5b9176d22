#include "nn/weights.h"

#include <assert.h>

/* Rows of one tile of the grid: the same for every slice, a multiple of 32 so that cuts between slices
 * fall on its lines too; a row so long that 32 exceed TILE_MAX falls back to whole groups. */
static uint32_t tile_rows_of(const struct model *m, size_t row_bytes) {
    uint64_t limit = m->data_len / 64;
    if (limit < TILE_MIN) limit = TILE_MIN;
    if (limit > TILE_MAX) limit = TILE_MAX;
    uint64_t rows = limit / row_bytes / Q_BLOCK * Q_BLOCK;
    if (rows) return (uint32_t)rows;
    rows = TILE_MAX / row_bytes / ROW_GROUP * ROW_GROUP;
    return rows > Q_BLOCK ? Q_BLOCK : rows ? (uint32_t)rows : ROW_GROUP;
}

struct count {
    size_t n_tile, n_unit;
};

/* Groups of a unit of so long ones: what the kernels take at once, or some times that. */
static uint32_t unit_groups(size_t group_bytes, uint32_t at_once) {
    uint32_t n = (uint32_t)(UNIT_BYTES / group_bytes) / at_once * at_once;
    return n ? n : at_once;
}

/* Cut matrix mat into tiles and units, appending to w, or only counting when w has no arrays yet. */
static void add_tiles(struct weights *w, const struct model *m, struct matrix *mat, uint32_t index,
                      struct count *c) {
    uint32_t step = tile_rows_of(m, mat->row_bytes), groups = mat->unit_groups;
    mat->tile0 = (uint32_t)c->n_tile;
    mat->unit0 = (uint32_t)c->n_unit;
    uint32_t end = mat->row0 + mat->n_row;
    assert(!mat->n_row ||
           mat->row0 % ROW_GROUP == 0);  // or tiles would not hold whole groups: see cuts_make
    for (uint32_t row = mat->row0; row < end;) {
        uint32_t stop = (row / step + 1) * step;
        if (stop > end) stop = end;
        uint32_t n_row = stop - row, n_group = (n_row + ROW_GROUP - 1) / ROW_GROUP;
        uint32_t n_unit = (n_group + groups - 1) / groups;
        if (w->tile) {
            w->tile[c->n_tile] = (struct tile){
                .file = mat->tensor->file,
                .len = (uint32_t)(n_row * mat->row_bytes),
                .off = mat->off + (uint64_t)row * mat->row_bytes,
                .mem = (uint64_t)n_group * mat->group_bytes,
            };
        }
        if (w->rows) w->rows[c->n_tile] = (struct tile_rows){index, row - mat->row0, n_row, n_unit};
        for (uint32_t u = 0; w->unit && u < n_unit; u++) {
            uint32_t g = u * groups, n = n_group - g < groups ? n_group - g : groups;
            w->unit[c->n_unit + u] = (struct unit){(uint32_t)c->n_tile, g, n};
        }
        uint64_t len = (uint64_t)n_row * mat->row_bytes;
        if (len > w->longest) w->longest = (uint32_t)len;
        w->mem_bytes += (uint64_t)n_group * mat->group_bytes;
        w->file_bytes += len;
        c->n_tile++;
        c->n_unit += n_unit;
        row = stop;
    }
    mat->n_tile = (uint32_t)c->n_tile - mat->tile0;
    mat->n_unit = (uint32_t)c->n_unit - mat->unit0;
    size_t unit = groups * mat->group_bytes;
    if (unit > w->unit_bytes) w->unit_bytes = unit;
}

/* The next matrix of the sweep: rows [begin, end) of what begins at byte off of the file. */
static MUST list(struct weights *w, const struct nn_conf *c, struct matrix *mat,
                 const struct tensor *t, uint64_t off, uint32_t begin, uint32_t end,
                 struct err *e) {
    const struct weight_ops *ops = weight_ops(c->kernels, (int)t->type);
    if (!ops) {
        const struct tensor_format *f = tensor_format(t->type);
        return err_set(e, ERR_UNSUPPORTED,
                       "tensor %s is of type %s, which has no kernel; take a file of another type, "
                       "such as Q4_K_M or Q8_0",
                       t->name, f ? f->name : "unknown");
    }
    size_t group_bytes = weight_group_bytes((int)t->type, t->dim[0]);
    *mat = (struct matrix){
        .tensor = t,
        .off = off,
        .ops = ops,
        .n_col = (uint32_t)t->dim[0],
        .row0 = begin,
        .n_row = end - begin,
        .row_bytes = weight_row_bytes((int)t->type, t->dim[0]),
        .group_bytes = group_bytes,
        .unit_groups = unit_groups(group_bytes, c->kernels->tile_groups),
    };
    w->matrix[w->n_matrix++] = mat;
    return true;
}

static MUST list_whole(struct weights *w, const struct nn_conf *c, struct matrix *mat,
                       const struct tensor *t, uint32_t begin, uint32_t end, struct err *e) {
    return list(w, c, mat, t, t->off, begin, end, e);
}

/* The same of a matrix that begins at row `base` of its tensor. */
static MUST list_part(struct weights *w, const struct nn_conf *c, struct matrix *mat,
                      const struct tensor *t, uint32_t base, uint32_t begin, uint32_t end,
                      struct err *e) {
    return list(w, c, mat, t, t->off + t->len / t->dim[1] * base, begin, end, e);
}

static MUST list_expert(struct weights *w, const struct nn_conf *c, uint32_t layer, uint32_t expert,
                        enum expert_part part, struct err *e) {
    struct expert_matrices *x = &w->layer[layer].expert[expert];
    struct matrix *mat[N_EXPERT_PART] = {&x->gate, &x->up, &x->down};
    const uint32_t *cut = part == EXPERT_DOWN ? c->cuts.embd : c->cuts.ff;
    uint64_t off;
    const struct tensor *t = model_expert(c->model, layer, expert, part, &off);
    if (!list(w, c, mat[part], t, off, cut[c->self], cut[c->self + 1], e)) return false;
    return true;
}

/* What goes into all downs of a layer is gathered at once, so they must read it in one form. */
static MUST check_downs(const struct layer_matrices *l, uint32_t n_expert, struct err *e) {
    for (uint32_t i = 1; i < n_expert; i++) {
        const struct matrix *mat = &l->expert[i].down;
        if (mat->ops->is_float == l->expert[0].down.ops->is_float) continue;
        return err_set(e, ERR_UNSUPPORTED,
                       "tensor %s: the experts of a layer must be all floats or all quantised",
                       mat->tensor->name);
    }
    return true;
}

static MUST list_shared(struct weights *w, const struct nn_conf *c, uint32_t i, struct err *e) {
    const struct layer_tensors *t = &c->model->layer[i];
    struct layer_matrices *l = &w->layer[i];
    const uint32_t *embd = c->cuts.embd + c->self;
    uint32_t at[SLICE_MAX + 1];
    if (!t->sh_up) return true;
    cuts_shared(&c->cuts, c->model, c->n_slice, at);
    uint32_t from = at[c->self], to = at[c->self + 1];
    return list_whole(w, c, &l->sh_router, t->sh_router, 0, 1, e) &&
           list_whole(w, c, &l->sh_gate, t->sh_gate, from, to, e) &&
           list_whole(w, c, &l->sh_up, t->sh_up, from, to, e) &&
           list_whole(w, c, &l->sh_down, t->sh_down, embd[0], embd[1], e);
}

static MUST list_experts(struct weights *w, const struct nn_conf *c, uint32_t i, struct err *e) {
    const struct model *m = c->model;
    struct layer_matrices *l = &w->layer[i];
    l->expert = w->expert + (size_t)i * m->n_expert;
    for (uint32_t x = 0; x < m->n_expert; x++) {
        if (!list_expert(w, c, i, x, EXPERT_GATE, e) || !list_expert(w, c, i, x, EXPERT_UP, e)) {
            return false;
        }
    }
    for (uint32_t x = 0; x < m->n_expert; x++) {
        if (!list_expert(w, c, i, x, EXPERT_DOWN, e)) return false;
    }
    return check_downs(l, m->n_expert, e);
}

/* The sweep: every matrix but the experts', in the order the forward pass asks for it. */
static MUST list_layer(struct weights *w, const struct nn_conf *c, uint32_t i, struct err *e) {
    const struct model *m = c->model;
    const struct cuts *k = &c->cuts;
    unsigned s = c->self;
    uint32_t group = m->n_head / m->n_head_kv * m->head_dim;
    uint32_t kv0 = k->kv_head[s], kv1 = k->kv_head[s + 1];
    struct layer_matrices *l = &w->layer[i];
    const struct layer_tensors *t = &m->layer[i];
    if (!list_whole(w, c, &l->q, t->q, kv0 * group, kv1 * group, e) ||
        !list_part(w, c, &l->k, t->k, t->k_row, kv0 * m->head_dim, kv1 * m->head_dim, e) ||
        !list_part(w, c, &l->v, t->v, t->v_row, kv0 * m->head_dim, kv1 * m->head_dim, e) ||
        !list_whole(w, c, &l->o, t->o, k->embd[s], k->embd[s + 1], e)) {
        return false;
    }
    if (m->n_expert) {
        return list_whole(w, c, &l->router, t->router, 0, m->n_expert, e) &&
               list_shared(w, c, i, e);
    }
    return (!t->gate || list_whole(w, c, &l->gate, t->gate, k->ff[s], k->ff[s + 1], e)) &&
           list_part(w, c, &l->up, t->up, t->up_row, k->ff[s], k->ff[s + 1], e) &&
           list_whole(w, c, &l->down, t->down, k->embd[s], k->embd[s + 1], e);
}

enum {
    DENSE_MATRICES = 7,
    ROUTED_MATRICES = 9
};  // most of a layer; the latter without its experts

static size_t matrices_of(const struct model *m) {
    size_t experts = N_EXPERT_PART * (size_t)m->n_expert;
    return m->n_layer * (m->n_expert ? ROUTED_MATRICES + experts : DENSE_MATRICES) + 1;
}

static MUST push_matrices(struct weights *w, const struct nn_conf *c, struct arena *a,
                          struct err *e) {
    const struct model *m = c->model;
    size_t n = (size_t)m->n_layer, n_expert = n * m->n_expert;
    *w = (struct weights){.model = m};
    if (!arena_array(a, &w->layer, n, sizeof *w->layer, "layers", e) ||
        !arena_array(a, &w->matrix, matrices_of(m), sizeof *w->matrix, "matrices", e) ||
        (n_expert && !arena_array(a, &w->expert, n_expert, sizeof *w->expert, "experts", e))) {
        return false;
    }
    for (uint32_t i = 0; i < n; i++) {
        if (!list_layer(w, c, i, e)) return false;
    }
    const uint32_t *vocab = c->cuts.vocab + c->self;
    if (!list_whole(w, c, &w->output, m->output, vocab[0], vocab[1], e)) return false;
    for (uint32_t i = 0; i < n && m->n_expert; i++) {
        if (!list_experts(w, c, i, e)) return false;
    }
    return true;
}

/* A layer's experts are listed together. */
static uint32_t most_expert_tiles(const struct weights *w, const struct model *m) {
    uint32_t most = 0;
    for (uint32_t i = 0; i < m->n_layer; i++) {
        const struct expert_matrices *x = w->layer[i].expert;
        const struct matrix *last = &x[m->n_expert - 1].down;
        uint32_t n = last->tile0 + last->n_tile - x[0].gate.tile0;
        if (n > most) most = n;
    }
    return most;
}

enum { DIRECTORY_MAX = 256 << 20 };  // about 1.4 TB of weights; a sparse file may claim more

/* Of a model with more than fit the directory, some. */
static struct count count_tiles(struct weights *w, const struct model *m) {
    struct count n = {0};
    uint64_t file = 0, mem = 0;
    w->mem_bytes = w->file_bytes = 0;
    for (uint32_t i = 0; i < w->n_matrix && n.n_tile * sizeof(struct tile) < DIRECTORY_MAX; i++) {
        add_tiles(w, m, w->matrix[i], i, &n);
        if (w->matrix[i] != &w->output) continue;
        w->n_sweep = (uint32_t)n.n_tile;
        file = w->file_bytes;
        mem = w->mem_bytes;
    }
    w->expert_bytes = w->file_bytes - file;
    w->expert_mem = w->mem_bytes - mem;
    w->most_expert = m->n_expert ? most_expert_tiles(w, m) : 0;
    return n;
}

static MUST count_all(struct weights *w, const struct nn_conf *c, struct arena *a, size_t *bytes,
                      struct err *e) {
    if (!push_matrices(w, c, a, e)) return false;
    struct count n = count_tiles(w, c->model);
    w->n_tile = (uint32_t)n.n_tile;
    w->n_unit = (uint32_t)n.n_unit;
    *bytes = a->cap + n.n_tile * (sizeof(struct tile) + sizeof(struct tile_rows)) +
             n.n_unit * sizeof(struct unit) + 256;
    return *bytes <= DIRECTORY_MAX ||
           err_set(e, ERR_LIMIT, "the model's %.0f GB of weights are more than this version plans",
                   (double)c->model->data_len * 1e-9);
}

MUST weights_count(struct weights *w, const struct nn_conf *c, struct arena *a, size_t *bytes,
                   struct err *e) {
    /* The directory of matrices is small, as tiles are not laid out. */
    const struct model *m = c->model;
    size_t expert = (size_t)m->n_expert * sizeof(struct expert_matrices);
    size_t dir = m->n_layer * (sizeof(struct layer_matrices) + expert) +
                 matrices_of(m) * sizeof(void *) + 256;
    if (!arena_open(a, "directory of weights", dir, e)) return false;
    if (count_all(w, c, a, bytes, e)) return true;
    arena_close(a);
    return false;
}

MUST weights_build(struct weights *w, const struct nn_conf *c, struct arena *a, struct err *e) {
    if (!push_matrices(w, c, a, e)) return false;
    struct count n = count_tiles(w, c->model);
    struct tile *tile;
    if (!arena_array(a, &w->rows, n.n_tile, sizeof *w->rows, "tiles", e) ||
        !arena_array(a, &w->unit, n.n_unit, sizeof *w->unit, "units of work", e) ||
        !arena_array(a, &tile, n.n_tile, sizeof *tile, "tiles", e)) {
        return false;
    }
    w->tile = tile;
    w->n_tile = (uint32_t)n.n_tile;
    w->n_unit = (uint32_t)n.n_unit;
    struct count again = count_tiles(w, c->model);
    assert(again.n_tile == n.n_tile && again.n_unit == n.n_unit);
    return true;
}

MUST weights_tiles(struct weights *w, const struct model *m, struct arena *a, struct err *e) {
    size_t n = w->n_tile, len = n * sizeof *w->tile;
    struct tile *tile;
    if (!arena_open(a, "directory of tiles", len, e)) return false;
    if (!arena_array(a, &tile, n, sizeof *tile, "tiles", e)) {
        arena_close(a);
        return false;
    }
    w->tile = tile;
    struct count again = count_tiles(w, m);
    assert(again.n_tile == n);
    return true;
}
