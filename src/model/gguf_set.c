/* A GGUF model in several files: each has a header and a directory of its own; the first has the
 * model's keys besides, and all are named alike: NAME-00001-of-00003.gguf (llama.cpp's gguf-split). What
 * comes out is one directory, as if it were one file. */
#include "model/gguf.h"

#include "base/text.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    SUFFIX = 20,        // "-00001-of-00003.gguf"
    ROOM_ALIGN = 1024,  // for the alignment of the tables pushed
};

MUST gguf_open_file(const char *path, uint64_t base, uint64_t *len, int *fd, struct err *e) {
    /* NONBLOCK: a path may be a FIFO, whose open would wait for a writer. */
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (*fd < 0) return err_sys(e, "cannot open the file");
    struct stat st;
    if (fstat(*fd, &st) != 0) return err_sys(e, "cannot stat the file");
    if (!S_ISREG(st.st_mode)) {
        return err_set(e, ERR_FORMAT, "%s",
                       S_ISDIR(st.st_mode) ? "a folder, not a model file" : "not a regular file");
    }
    uint64_t size = (uint64_t)st.st_size;
    if (base > size || *len > size - base) {
        return err_set(e, ERR_FORMAT,
                       "%" PRIu64 " bytes at %" PRIu64 " are not in a file of %" PRIu64, *len, base,
                       size);
    }
    if (!*len) *len = size - base;
    (void)posix_fadvise(*fd, 0, 0, POSIX_FADV_RANDOM);  // no readahead into the weights
    return true;
}

/* One of the other files while the set is put together. */
struct part {
    struct gguf g;
    struct arena mem;  // what g points to
    char *path;        // owned
    uint64_t len;
};

struct set {
    uint32_t n;         // files
    struct part *part;  // [n], the first unused; owned
    uint64_t n_tensor;  // of all files
    size_t room;        // bytes of arena that the joint directory takes
};

static void drop_parts(struct set *s) {
    for (uint32_t i = 1; s->part && i < s->n; i++) {
        arena_close(&s->part[i].mem);
        free(s->part[i].path);
    }
    free(s->part);
    s->part = NULL;
}

/* Whether a path ends as that of the first of n files must. */
static bool is_first_name(const char *path, uint32_t n) {
    char suffix[40];
    size_t len = strlen(path);
    snprintf(suffix, sizeof suffix, "-%05" PRIu32 "-of-%05" PRIu32 ".gguf", (uint32_t)1, n);
    return len > SUFFIX && !strcmp(path + len - SUFFIX, suffix);
}

static MUST name_part(const char *first, uint32_t no, uint32_t n, char **out, struct err *e) {
    size_t stem = strlen(first) - SUFFIX, room = stem + 40;
    *out = malloc(room);
    if (!*out) return err_set(e, ERR_MEMORY, "no memory for the names of %" PRIu32 " files", n);
    memcpy(*out, first, stem);
    snprintf(*out + stem, room - stem, "-%05" PRIu32 "-of-%05" PRIu32 ".gguf", no + 1, n);
    return true;
}

/* What the keys of file `no` say must fit the set. */
static MUST check_part(const struct gguf *g, uint32_t no, uint32_t n, struct err *e) {
    uint32_t is_no = UINT32_MAX, is_n = 0;
    if (!gguf_u32(g, "split.no", UINT32_MAX, &is_no, e) ||
        !gguf_u32(g, "split.count", UINT32_MAX, &is_n, e)) {
        return false;
    }
    if (is_no == no && is_n == n) return true;
    if (!is_n) {
        return err_set(e, ERR_FORMAT,
                       "says nothing of a set, but its name makes it file %" PRIu32 " of %" PRIu32,
                       no + 1, n);
    }
    return err_set(e, ERR_FORMAT,
                   "says that it is file %" PRIu64 " of %" PRIu32 ", but it should be %" PRIu32
                   " of %" PRIu32,
                   (uint64_t)is_no + 1, is_n, no + 1, n);
}

static MUST read_part(struct part *p, uint32_t no, uint32_t n, uint8_t *window, struct err *e) {
    int fd = -1;
    bool ok = gguf_open_file(p->path, 0, &p->len, &fd, e) &&
              gguf_read(&p->g, &p->mem, fd, 0, p->len, window, 0, e) && check_part(&p->g, no, n, e);
    if (fd >= 0) {
        (void)posix_fadvise(fd, 0, (off_t)(p->g.meta_len + CURSOR_WINDOW), POSIX_FADV_DONTNEED);
        close(fd);
    }
    if (ok) return true;
    char what[320];
    snprintf(what, sizeof what, "file %" PRIu32 " of %" PRIu32 ", %s", no + 1, n,
             text_name(p->path));
    return err_in(e, what);
}

/* The first file's part in the set: how many there are, and that it is the first. */
static MUST check_first(const struct gguf *g, const struct model_file *f, uint32_t n,
                        struct err *e) {
    uint32_t no = 0;
    if (!gguf_u32(g, "split.no", UINT32_MAX, &no, e)) return false;
    if (no) {
        return err_set(e, ERR_UNSUPPORTED,
                       "is file %" PRIu64 " of a set of %" PRIu32
                       "; open the first one, whose name ends in -00001-of-%05" PRIu32 ".gguf",
                       (uint64_t)no + 1, n, n);
    }
    if (n > MODEL_MAX_FILE) {
        return err_set(e, ERR_LIMIT, "is one of a set of %" PRIu32 " files (at most %d)", n,
                       MODEL_MAX_FILE);
    }
    if (!f->base && is_first_name(f->path, n)) return true;
    return err_set(e, ERR_FORMAT,
                   "is the first of a set of %" PRIu32
                   " files, which are found by name only: it must end in -00001-of-%05" PRIu32
                   ".gguf, and the others alike",
                   n, n);
}

static MUST read_parts(struct set *s, const struct gguf *first, const struct model_file *f,
                       uint8_t *window, struct err *e) {
    uint64_t said = 0, meta = 0;
    s->part = calloc(s->n, sizeof *s->part);
    if (!s->part) return err_set(e, ERR_MEMORY, "no memory for a set of %" PRIu32 " files", s->n);
    s->n_tensor = first->n_tensor;
    for (uint32_t i = 1; i < s->n; i++) {
        struct part *p = &s->part[i];
        if (!name_part(f->path, i, s->n, &p->path, e) || !read_part(p, i, s->n, window, e)) {
            return false;
        }
        s->n_tensor += p->g.n_tensor;
        meta += p->mem.cap;  // all are held at once
        if (meta > MODEL_MAX_META) {
            return err_set(e, ERR_LIMIT,
                           "the headers of its other files take more than %d bytes together",
                           MODEL_MAX_META);
        }
        s->room += strlen(p->path) + 1;
        for (uint32_t k = 0; k < p->g.n_tensor; k++) s->room += strlen(p->g.tensor[k].name) + 1;
    }
    if (s->n_tensor > MODEL_MAX_TENSOR) {
        return err_set(e, ERR_LIMIT, "%" PRIu64 " tensors in all its files (at most %d)",
                       s->n_tensor, MODEL_MAX_TENSOR);
    }
    if (!gguf_int(first, "split.tensors.count", &said, e)) return false;
    if (gguf_find(first, "split.tensors.count") && said != s->n_tensor) {
        return err_set(e, ERR_FORMAT,
                       "key split.tensors.count is %" PRIu64 ", but the %" PRIu32
                       " files have %" PRIu64 " tensors",
                       said, s->n, s->n_tensor);
    }
    /* The directory, its order by name, and what model.c makes of it: see gguf_read. */
    s->room += s->n_tensor * (sizeof(struct tensor) + sizeof(void *) + GGUF_TENSOR_ROOM);
    return true;
}

static void describe_file(struct model_file *f, const struct gguf *g) {
    f->meta_len = g->meta_len;
    f->data_off = f->base + g->data_off;
    for (uint32_t i = 0; i < g->n_tensor; i++) f->data_len += g->tensor[i].len;
}

static MUST copy_text(struct arena *mem, const char *text, const char **out, struct err *e) {
    size_t n = strlen(text) + 1;
    char *copy = arena_push(mem, n, 1);
    if (!copy) return err_set(e, ERR_FORMAT, "the file changed while it was read");
    *out = memcpy(copy, text, n);
    return true;
}

/* Append the tensors of file i to the joint directory. */
static MUST append(struct arena *mem, struct tensor *to, const struct gguf *g, uint32_t i,
                   struct err *e) {
    for (uint32_t k = 0; k < g->n_tensor; k++) {
        to[k] = g->tensor[k];
        to[k].file = i;
        if (i && !copy_text(mem, g->tensor[k].name, &to[k].name, e)) return false;
    }
    return true;
}

/* One directory of all; the first file has just been read again, with room for it. */
static MUST join(struct set *s, struct gguf *g, struct model *m, struct model_file *file,
                 struct err *e) {
    struct tensor *all, **by_name;
    size_t at = 0, n = s->n_tensor;
    if (!arena_array(&m->mem, &all, n, sizeof *all, "tensors", e) ||
        !arena_array(&m->mem, &by_name, n, sizeof *by_name, "tensors", e)) {
        return false;
    }
    for (uint32_t i = 0; i < s->n; i++) {
        const struct gguf *part = i ? &s->part[i].g : g;
        if (part->n_tensor > n - at) {
            return err_set(e, ERR_FORMAT, "the file changed while it was read");
        }
        if (i) {
            file[i].len = s->part[i].len;
            if (!copy_text(&m->mem, s->part[i].path, &file[i].path, e)) return false;
            describe_file(&file[i], part);
        }
        if (!append(&m->mem, all + at, part, i, e)) return false;
        at += part->n_tensor;
    }
    for (size_t i = 0; i < at; i++) by_name[i] = &all[i];
    g->tensor = all;
    g->tensor_by_name = by_name;
    g->n_tensor = (uint32_t)at;
    return gguf_sort_tensors(g, e);
}

MUST gguf_read_set(struct gguf *g, struct model *m, const struct model_file *first, int fd,
                   uint8_t *window, enum model_part part, struct err *e) {
    struct set s = {.n = 1};
    struct model_file *file;
    const struct model_file f = *first;
    size_t room = strlen(f.path) + 1 + sizeof *file + ROOM_ALIGN;
    uint32_t n = 0;
    if (!gguf_read(g, &m->mem, fd, f.base, f.len, window, room, e) ||
        !gguf_u32(g, "split.count", UINT32_MAX, &n, e)) {
        return false;
    }
    bool is_first = !gguf_find(g, "split.no") || !gguf_find(g, "split.no")->bits;
    bool is_set = n > 1 && part != MODEL_VOCAB && (is_first || part == MODEL_ALL);
    bool ok = true;
    if (is_set) {
        s.n = n;
        ok = check_first(g, &f, n, e) && read_parts(&s, g, &f, window, e);
        arena_close(&m->mem);
        room += s.room + (size_t)s.n * sizeof *file + ROOM_ALIGN;
        ok = ok && gguf_read(g, &m->mem, fd, f.base, f.len, window, room, e);
    }
    ok = ok && arena_array(&m->mem, &file, s.n, sizeof *file, "files", e);
    if (ok) {
        file[0] = f;
        describe_file(&file[0], g);
        ok = copy_text(&m->mem, f.path, &file[0].path, e) && (!is_set || join(&s, g, m, file, e));
    }
    drop_parts(&s);
    if (!ok) return false;
    m->file = file;
    m->n_file = s.n;
    return true;
}
