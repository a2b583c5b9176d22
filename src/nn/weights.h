/* weights.h - a slice's rows of every matrix as tiles in sweep order, and as units of work.
 *
 * A tile is what the disk reads and what stays or goes: a run of rows of one matrix. The grid of tiles
 * belongs to the model; a slice takes what falls into its rows. A unit is what one thread computes at a
 * time: a few groups of 8 rows of one tile, small enough that its re-laid form stays in a core's cache.
 */
#ifndef NN_WEIGHTS_H
#define NN_WEIGHTS_H

#include "nn/nn.h"

enum { UNIT_BYTES = 64 << 10 };  // or one tile of the kernels, if that is more

struct matrix {
    const struct tensor *tensor;  // that holds it; of experts it may hold all
    uint64_t off;                 // in the file, of the matrix's first row
    const struct weight_ops *ops;
    uint32_t n_col;
    uint32_t row0, n_row;    // this slice's rows of the matrix
    size_t row_bytes;        // file order
    size_t group_bytes;      // kernel order
    uint32_t unit_groups;    // groups of a unit, but for a tile's last
    uint32_t tile0, n_tile;  // into weights.tile
    uint32_t unit0, n_unit;  // into weights.unit
};

struct tile_rows {
    uint32_t matrix;      // index into weights.matrix
    uint32_t row, n_row;  // relative to matrix.row0; row is a multiple of 8
    uint32_t n_unit;
};

struct unit {
    uint32_t tile;
    uint32_t group, n_group;  // groups of 8 rows, relative to the tile
};

struct expert_matrices {
    struct matrix gate, up, down;
};

struct layer_matrices {
    struct matrix q, k, v, o;
    struct matrix gate, up, down;  // dense; no gate where the model is ungated
    struct matrix router;          // or with experts; each slice has all of its rows
    struct matrix sh_router, sh_gate, sh_up, sh_down;  // and a shared one, before the others
    struct expert_matrices *expert;                    // [n_expert] no part of the sweep
};

struct weights {
    const struct model *model;
    struct layer_matrices *layer;    // [n_layer]
    struct expert_matrices *expert;  // [n_layer][n_expert]
    struct matrix output;
    uint32_t n_matrix;
    struct matrix *
        *matrix;        // [n_matrix] in sweep order; then the experts' in order of use: of a layer
                        // all gates and ups, then all downs
    struct tile *tile;  // [n_tile] what the store sees
    struct tile_rows *rows;  // [n_tile] the same tiles, what they are
    struct unit *unit;       // [n_unit]
    uint32_t n_tile, n_unit;
    uint32_t n_sweep;                   // tiles of the sweep; those of experts follow
    uint32_t most_expert;               // tiles of a layer's experts, in any layer at most
    uint32_t longest;                   // bytes of the longest tile in the file
    uint64_t mem_bytes, file_bytes;     // of all tiles
    uint64_t expert_bytes, expert_mem;  // of them all experts'
    size_t unit_bytes;                  // largest unit in kernel order: a thread's scratch
};

/* All of *w but tile, rows and unit, in an arena of its own, which the caller closes; *bytes: of arena that
 * weights_build will take. Fails: as weights_build, and ERR_LIMIT for more weights than can be planned. */
MUST weights_count(struct weights *w, const struct nn_conf *c, struct arena *a, size_t *bytes,
                   struct err *e);
/* tile besides, in another arena which the caller closes: enough to measure, in a tenth of the time that
 * units take. Fails: ERR_MEMORY. */
MUST weights_tiles(struct weights *w, const struct model *m, struct arena *a, struct err *e);
/* Fails: ERR_UNSUPPORTED naming the tensor for which there is no kernel, or a layer whose experts' down
 * matrices are partly floats. */
MUST weights_build(struct weights *w, const struct nn_conf *c, struct arena *a, struct err *e);

#endif
