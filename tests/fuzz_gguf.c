/* Any bytes at all as a model file: opened whole, as a vocabulary and for inspection. An input that says
 * "GGUF" again is a set of files, cut before each. A file whose last byte is even goes on with a hole, so
 * that a small input has room for the weights that it names. */
#include "model/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { FILES = 4, HOLE = 1 << 20 };

static int fd[FILES];
static char path[FILES + 1][64];  // [n] of the first of n files
static char dir[] = "/tmp/dair-fuzz-XXXXXX";

static void expect(bool ok) {
    if (!ok) abort();
}

static void name_of(char out[static 64], unsigned i, unsigned n) {
    snprintf(out, 64, "%s/m-%05u-of-%05u.gguf", dir, i + 1, n);
}

static void drop_names(void) {
    char name[64];
    for (unsigned i = 0; i < FILES; i++) {
        for (unsigned n = i + 1; n <= FILES; n++) {
            name_of(name, i, n);
            unlink(name);
        }
    }
    rmdir(dir);
}

/* Files in memory, found by the names that each number of files gives them. */
static void make_names(void) {
    char name[64], target[64];
    expect(mkdtemp(dir) && !atexit(drop_names));
    for (unsigned i = 0; i < FILES; i++) {
        fd[i] = memfd_create("fuzz", MFD_CLOEXEC);
        expect(fd[i] >= 0);
        snprintf(target, sizeof target, "/proc/self/fd/%d", fd[i]);
        for (unsigned n = i + 1; n <= FILES; n++) {
            name_of(name, i, n);
            expect(!symlink(target, name));
        }
        name_of(path[i + 1], 0, i + 1);
    }
}

/* Touch everything that later layers rely on, so that a sanitizer sees a bound that is wrong. */
static unsigned use(const struct model *m) {
    unsigned sum = 0;
    const char *key, *value;
    for (uint32_t i = 0; model_meta(m, i, &key, &value); i++)
        sum += (uint8_t)*key + (uint8_t)*value;
    for (uint32_t i = 0; i < m->n_tensor; i++) {
        expect(m->tensor[i].file < m->n_file);
        const struct model_file *f = &m->file[m->tensor[i].file];
        expect(m->tensor[i].off >= f->data_off);
        expect(m->tensor[i].off + m->tensor[i].len <= f->base + f->len);
    }
    for (uint32_t i = 0; i < m->n_file; i++) sum += (uint8_t)*m->file[i].path;
    const struct vocab *v = &m->vocab;
    for (uint32_t i = 0; i < v->n_token && v->type; i++) {
        expect(v->start[i] <= v->start[i + 1]);
        for (uint32_t k = v->start[i]; k < v->start[i + 1]; k++) sum += (uint8_t)v->text[k];
        sum += v->type[i];
        expect(!v->score || v->score[i] == v->score[i]);
    }
    for (uint32_t i = 0; i < v->n_merge && v->merge; i++) {
        for (uint32_t k = v->merge[i]; k < v->merge[i + 1]; k++) sum += (uint8_t)v->merge_text[k];
    }
    for (uint32_t i = 0; m->layer && i < m->n_layer; i++) {
        sum += m->layer[i].down->type;
        for (uint32_t x = 0; x < N_EXPERT_PART * m->n_expert; x++) {
            uint64_t off = 0;
            const struct tensor *t =
                model_expert(m, i, x / N_EXPERT_PART, (enum expert_part)(x % N_EXPERT_PART), &off);
            const struct model_file *f = &m->file[t->file];
            uint64_t end = f->base + f->len;
            expect(off <= end && t->len / (t->dim[2] * t->dim[3]) <= end - off);
        }
    }
    return sum;
}

/* The input to the files; returns how many. */
static unsigned put(const uint8_t *data, size_t size) {
    unsigned n = 0;
    do {
        const uint8_t *next = size > 1 ? memmem(data + 1, size - 1, "GGUF", 4) : NULL;
        size_t len = next && n + 1 < FILES ? (size_t)(next - data) : size;
        bool goes_on = len && !(data[len - 1] & 1);
        expect(!ftruncate(fd[n], 0) && pwrite(fd[n], data, len, 0) == (ssize_t)len);
        expect(!ftruncate(fd[n], (off_t)(len + (goes_on ? HOLE : 0))));
        data += len;
        size -= len;
        n++;
    } while (size);
    return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct model m;
    struct err e;
    if (!path[1][0]) make_names();
    unsigned n = put(data, size);
    for (int part = MODEL_ALL; part <= MODEL_DIRECTORY; part++) {
        e.code = ERR_NONE;
        if (model_open_part(&m, path[n], 0, 0, (enum model_part)part, &e)) {
            volatile unsigned sink = use(&m);
            (void)sink;
            model_close(&m);
        } else {
            expect(e.code != ERR_NONE && e.code != ERR_IO && *e.text);
        }
    }
    return 0;
}
