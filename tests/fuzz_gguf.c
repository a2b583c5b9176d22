/* Any bytes at all as a model file: opened whole, as a vocabulary and for inspection. */
#include "model/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Touch everything that later layers rely on, so that a sanitizer sees a bound that is wrong. */
static unsigned use(const struct model *m) {
    unsigned sum = 0;
    const char *key, *value;
    for (uint32_t i = 0; model_meta(m, i, &key, &value); i++)
        sum += (uint8_t)*key + (uint8_t)*value;
    for (uint32_t i = 0; i < m->n_tensor; i++) {
        if (m->tensor[i].file >= m->n_file) abort();
        const struct model_file *f = &m->file[m->tensor[i].file];
        if (m->tensor[i].off + m->tensor[i].len > f->base + f->len) abort();
    }
    const struct vocab *v = &m->vocab;
    for (uint32_t i = 0; i < v->n_token && v->type; i++) {
        if (v->start[i] > v->start[i + 1]) abort();
        for (uint32_t k = v->start[i]; k < v->start[i + 1]; k++) sum += (uint8_t)v->text[k];
        sum += v->type[i];
        if (v->score && v->score[i] != v->score[i]) abort();
    }
    for (uint32_t i = 0; i < v->n_merge && v->merge; i++) {
        for (uint32_t k = v->merge[i]; k < v->merge[i + 1]; k++) sum += (uint8_t)v->merge_text[k];
    }
    for (uint32_t i = 0; m->layer && i < m->n_layer; i++) {
        sum += m->layer[i].down->type;
        for (uint32_t x = 0; x < N_EXPERT_PART * m->n_expert; x++) {
            uint64_t off = 0, end = m->file[0].base + m->file[0].len;
            const struct tensor *t =
                model_expert(m, i, x / N_EXPERT_PART, (enum expert_part)(x % N_EXPERT_PART), &off);
            if (off > end || t->len / (t->dim[2] * t->dim[3]) > end - off) abort();
        }
    }
    return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static int fd = -1;
    char path[64];
    struct model m;
    struct err e;
    if (fd < 0) fd = memfd_create("fuzz", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, 0) != 0 || pwrite(fd, data, size, 0) != (ssize_t)size) abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    for (int part = MODEL_ALL; part <= MODEL_DIRECTORY; part++) {
        e.code = ERR_NONE;
        if (model_open_part(&m, path, 0, 0, (enum model_part)part, &e)) {
            volatile unsigned sink = use(&m);
            (void)sink;
            model_close(&m);
        } else if (e.code == ERR_NONE || e.code == ERR_IO || !*e.text) {
            abort();
        }
    }
    return 0;
}
