/* fingerprint.h - 64 bits that tell whether two files are the same model.
 *
 * Nodes compare it before they share the work of a model: shares of two different files would give
 * nonsense. Taken from the metadata and directory in full, the lengths, and pieces of the weights
 * spread over the file, so that it costs some small reads at start and not the whole file; what lies
 * between the pieces is not seen. Against mix-ups, not against malice: finding another file with the
 * same value is easy, and a holder of the cluster key is trusted anyway.
 */
#ifndef MODEL_FINGERPRINT_H
#define MODEL_FINGERPRINT_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

/* A running hash of bytes: two lanes of multiply and rotate over 16 bytes at a time, each step
 * invertible, so that no difference in one place is lost, and a final mix in which every bit counts
 * for every bit. The value depends on the bytes alone, not on how they are cut. */
struct hash {
    uint64_t a, b, len;
    uint8_t rest[16];  // [len % 16] not yet taken
};
void hash_init(struct hash *h, uint64_t seed);
void hash_put(struct hash *h, const void *p, size_t n);
uint64_t hash_end(const struct hash *h);

enum {
    FINGERPRINT_PIECES = 66,  // the first, the last and 64 evenly between
    FINGERPRINT_PIECE = 4096,
};

/* Where piece i of [from, from + len) begins. Short data is covered without gaps. */
uint64_t fingerprint_piece(uint64_t from, uint64_t len, unsigned i);

/* Of fd's bytes [base, base + len), of which the first `meta` describe the model and those from `data`
 * on are weights. The file must not shrink meanwhile. window: borrowed, CURSOR_WINDOW bytes.
 * Fails: ERR_IO; ERR_FORMAT when the file is shorter. */
struct fingerprint_of {
    int fd;
    uint64_t base, len, meta, data;
};
MUST fingerprint_take(const struct fingerprint_of *f, uint8_t *window, uint64_t *out,
                      struct err *e);

#endif
