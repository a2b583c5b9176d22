/* Any bytes as a .m with its .t: [4] bytes of weights, [2] bytes of the .m's header, the header, the .t.
 * The weights are a hole in the file, so that inputs stay small. Opened whole, as a vocabulary and for
 * inspection; what opens must be sound, and its tokenizer must take text. */
#include "model/tok.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void expect(bool ok) {
    if (!ok) abort();
}

static void check_tensors(const struct model *m) {
    for (uint32_t i = 0; i < m->n_tensor; i++) {
        const struct tensor *t = &m->tensor[i];
        expect(t->file == 0 && *t->name && t->len && t->off <= m->file[0].len &&
               t->len <= m->file[0].len - t->off);
    }
    for (uint32_t i = 0; m->layer && i < m->n_layer; i++) {
        for (uint32_t x = 0; x < N_EXPERT_PART * m->n_expert; x++) {
            uint64_t off = 0;
            const struct tensor *t =
                model_expert(m, i, x / N_EXPERT_PART, (enum expert_part)(x % N_EXPERT_PART), &off);
            expect(off == t->off);
        }
    }
}

static void check_vocab(const struct model *m) {
    const struct vocab *v = &m->vocab;
    unsigned sum = 0;
    for (uint32_t i = 0; i < v->n_token && v->type; i++) {
        expect(v->start[i] <= v->start[i + 1] && v->score[i] == v->score[i]);
        for (uint32_t k = v->start[i]; k < v->start[i + 1]; k++) sum += (uint8_t)v->text[k];
    }
    for (uint32_t i = 0; i < v->n_end; i++) expect((uint32_t)v->end[i] < v->n_token);
    for (const char *c = m->chat_template; *c; c++) sum += (uint8_t)*c;
    volatile unsigned sink = sum;
    (void)sink;
}

static void tokenise(const struct model *m, const uint8_t *text, size_t len) {
    struct tok *t;
    struct err e;
    size_t n = 0, cap = tok_bound(len);
    if (!tok_open(&t, &m->vocab, &e)) return;
    int32_t *id = malloc(cap * sizeof *id);
    expect(id && tok_encode(t, (const char *)text, len, TOK_BOS | TOK_SPECIAL, id, cap, &n, &e));
    for (size_t i = 0; i < n; i++) expect((uint32_t)id[i] < tok_count(t));
    free(id);
    tok_close(t);
}

/* An empty file in memory, the same one each time, of these bytes and then a hole. */
static void fill(int *fd, char path[static 64], const uint8_t *p, size_t n, uint64_t hole) {
    if (*fd < 0) *fd = memfd_create("fuzz", MFD_CLOEXEC);
    expect(*fd >= 0 && ftruncate(*fd, 0) == 0 && pwrite(*fd, p, n, 0) == (ssize_t)n &&
           ftruncate(*fd, (off_t)(n + hole)) == 0);
    snprintf(path, 64, "/proc/self/fd/%d", *fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    enum { HEAD = 6, HOLE_MOST = (1 << 26) - 1 };
    static int m_fd = -1, t_fd = -1;
    char m_path[64], t_path[64];
    if (size < HEAD) return 0;
    uint32_t hole = data[0] | (uint32_t)data[1] << 8 | (uint32_t)data[2] << 16;
    hole |= (uint32_t)data[3] << 24;
    size_t n = data[4] | (size_t)data[5] << 8;
    if (n > size - HEAD) n = size - HEAD;
    fill(&m_fd, m_path, data + HEAD, n, hole & HOLE_MOST);
    fill(&t_fd, t_path, data + HEAD + n, size - HEAD - n, 0);
    for (int part = MODEL_ALL; part <= MODEL_DIRECTORY; part++) {
        struct model m;
        struct err e = {0};
        if (!model_open_with(&m, m_path, t_path, (enum model_part)part, &e)) {
            expect(e.code != ERR_NONE && e.code != ERR_IO && *e.text);
            continue;
        }
        check_tensors(&m);
        check_vocab(&m);
        if (part == MODEL_VOCAB) tokenise(&m, data, size);
        model_close(&m);
    }
    return 0;
}
