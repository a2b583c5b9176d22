/* parrot.h - makes a model that repeats itself of one with random weights: after token i comes i + 1,
 * and after each sixteenth the first again. Its layers add nothing, and its output, which must be a
 * matrix of its own, knows each token by the one before. */
#ifndef TESTS_PARROT_H
#define TESTS_PARROT_H

#include "model/model.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PARROT_ROUND = 16 };

static inline bool parrot_erase(int fd, const struct tensor *t) {
    static const uint8_t zero[1 << 16];
    for (uint64_t done = 0; done < t->len;) {
        uint64_t n = t->len - done < sizeof zero ? t->len - done : sizeof zero;
        if (pwrite(fd, zero, n, (off_t)(t->off + done)) != (ssize_t)n) return false;
        done += n;
    }
    return true;
}

/* m is open; the file is written to. False: it cannot be, or has no output of the embedding's type. */
static inline bool parrot_make(const struct model *m) {
    const struct tensor *from = m->token_embd, *to = m->output;
    if (from == to || from->type != to->type) return false;
    int fd = open(m->file[0].path, O_RDWR);
    size_t row = to->len / m->n_vocab;
    uint8_t *one = malloc(row);
    bool ok = fd >= 0 && one;
    for (uint32_t i = 0; ok && i < m->n_layer; i++) {
        ok = parrot_erase(fd, m->layer[i].o) && parrot_erase(fd, m->layer[i].down);
    }
    for (uint32_t i = 0; ok && i < m->n_vocab; i++) {
        uint32_t next = i % PARROT_ROUND == PARROT_ROUND - 1 ? i + 1 - PARROT_ROUND : i + 1;
        if (next >= m->n_vocab) next = i / PARROT_ROUND * PARROT_ROUND;
        ok = pread(fd, one, row, (off_t)(from->off + i * row)) == (ssize_t)row &&
             pwrite(fd, one, row, (off_t)(to->off + next * row)) == (ssize_t)row;
    }
    free(one);
    if (fd >= 0 && close(fd) != 0) ok = false;
    return ok;
}

#endif
