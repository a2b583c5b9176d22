/* Models in several files: what a good set yields, and the sentence for each kind of bad one. */
#include "gguf_maker.h"
#include "model/model.h"
#include "tap.h"

#include <sys/stat.h>

enum { N_FILE = 3, N_TENSOR = 12 };

static char dir[] = "/tmp/dair-set-XXXXXX";
static struct spec part[N_FILE];  // what the files are made of, for a test to change
static uint32_t no[N_FILE], count[N_FILE];
static uint64_t total;

static const char *part_path(uint32_t i) {
    static char path[N_FILE][64];
    snprintf(path[i], sizeof path[i], "%s/m-%05u-of-%05d.gguf", dir, i + 1, N_FILE);
    return path[i];
}

static void start(void) {
    static const uint32_t cut[N_FILE + 1] = {0, 5, 8, N_TENSOR};
    for (uint32_t i = 0; i < N_FILE; i++) {
        part[i] = (struct spec){.from = cut[i], .to = cut[i + 1], .bare = i > 0};
        no[i] = i;
        count[i] = N_FILE;
    }
    total = N_TENSOR;
}

static void write_part(uint32_t i) {
    struct spec *s = &part[i];
    struct blob before = s->kv;
    s->kv = (struct blob){0};
    blob_put(&s->kv, before.p, before.n);
    kv_u32(&s->kv, "split.no", no[i]);
    kv_u32(&s->kv, "split.count", count[i]);
    kv_u32(&s->kv, "split.tensors.count", (uint32_t)total);
    s->n_kv += 3;
    struct blob b = maker_build(s);
    FILE *f = fopen(part_path(i), "wb");
    if (!f || fwrite(b.p, 1, b.n, f) != b.n || fclose(f) != 0) abort();
    free(b.p);
    free(s->kv.p);
    free(before.p);
}

static void write_all(void) {
    for (uint32_t i = 0; i < N_FILE; i++) write_part(i);
}

static void remove_all(void) {
    for (uint32_t i = 0; i < N_FILE; i++) {
        if (unlink(part_path(i)) != 0) (void)rmdir(part_path(i));
    }
}

/* Open the first and expect `code` with `text` in the sentence; removes the files. */
static void expect_files(const char *what, enum err_code code, const char *text) {
    struct model m;
    struct err e = {.code = ERR_NONE, .text = ""};
    bool ok = model_open(&m, part_path(0), 0, 0, &e);
    tap_ok(!ok && e.code == code && strstr(e.text, text), "%s: %s", what, ok ? "opens" : e.text);
    if (ok) model_close(&m);
    remove_all();
}

static void expect(const char *what, enum err_code code, const char *text) {
    write_all();
    expect_files(what, code, text);
}

static uint64_t print_of(void) {
    struct model m;
    struct err e;
    if (!model_open(&m, part_path(0), 0, 0, &e)) return 0;
    uint64_t print = m.fingerprint;
    model_close(&m);
    return print;
}

static void flip(const char *path, long from_end) {
    FILE *f = fopen(path, "r+b");
    if (!f || fseek(f, -from_end, SEEK_END) != 0) abort();
    int c = fgetc(f);
    if (fseek(f, -from_end, SEEK_END) != 0 || fputc(c ^ 1, f) == EOF || fclose(f) != 0) abort();
}

/* Whether every tensor of the whole model is in the set, inside the weights of its file. */
static bool is_same(const struct model *set, const struct model *whole) {
    for (uint32_t i = 0; i < whole->n_tensor; i++) {
        const struct tensor *w = &whole->tensor[i], *t = NULL;
        for (uint32_t k = 0; k < set->n_tensor; k++) {
            if (!strcmp(set->tensor[k].name, w->name)) t = &set->tensor[k];
        }
        if (!t || t->len != w->len || t->type != w->type || t->file >= set->n_file) return false;
        const struct model_file *f = &set->file[t->file];
        if (t->off < f->data_off || t->off + t->len > f->base + f->len) return false;
    }
    return true;
}

static void check_good(void) {
    struct model m, whole;
    struct err e = {.text = ""};
    struct spec one = {0};
    struct blob b = maker_build(&one);
    char path[64];
    int fd;
    blob_file(b.p, b.n, &fd, path);
    start();
    write_all();
    bool ok = model_open(&whole, path, 0, 0, &e) && model_open(&m, part_path(0), 0, 0, &e);
    if (!tap_ok(ok, "a set of three opens %s", e.text)) return;
    tap_ok(m.n_file == 3 && !strcmp(m.file[2].path, part_path(2)) && m.n_tensor == N_TENSOR &&
               m.token_embd->file == 0 && m.layer[0].q->file == 0 && m.layer[0].v->file == 1 &&
               m.layer[0].down->file == 2,
           "each tensor is in its file");
    tap_ok(is_same(&m, &whole) && m.data_len == whole.data_len && m.n_param == whole.n_param &&
               m.vocab.n_token == whole.vocab.n_token,
           "it is the model that one file would be");
    struct stat st[3];
    for (uint32_t i = 0; i < 3; i++) ok &= stat(part_path(i), &st[i]) == 0;
    tap_ok(ok && model_bytes(&m) == (uint64_t)(st[0].st_size + st[1].st_size + st[2].st_size) &&
               m.file[0].data_len + m.file[1].data_len + m.file[2].data_len == m.data_len,
           "and as long as they are together");
    tap_ok(model_main_file(&m) == &m.file[2], "the last file holds most of the weights");
    model_close(&m);
    model_close(&whole);
    close(fd);
    free(b.p);

    uint64_t print = print_of();
    bool seen = print != 0;
    for (uint32_t i = 0; i < N_FILE; i++) {
        flip(part_path(i), 8);
        seen &= print_of() != print && print_of() != 0;
        flip(part_path(i), 8);
    }
    tap_ok(seen && print_of() == print, "a bit in any of the files makes another fingerprint");

    ok = model_open_part(&m, part_path(1), 0, 0, MODEL_DIRECTORY, &e);
    tap_ok(ok && m.n_file == 1 && m.n_tensor == 3, "one of them alone can be inspected");
    if (ok) model_close(&m);
    unlink(part_path(1));
    ok = model_open_part(&m, part_path(0), 0, 0, MODEL_VOCAB, &e);
    tap_ok(ok && m.vocab.n_token == MAKER_VOCAB, "the first alone has the vocabulary");
    if (ok) model_close(&m);
    remove_all();
}

static void check_files(void) {
    struct model m;
    struct err e;
    start();
    write_all();
    bool ok = model_open(&m, part_path(1), 0, 0, &e);
    tap_ok(!ok && e.code == ERR_UNSUPPORTED && strstr(e.text, "open the first one"),
           "the second is opened: %s", e.text);
    unlink(part_path(2));
    expect_files("a file is missing", ERR_IO, "file 3 of 3, m-00003-of-00003.gguf");

    start();
    write_all();
    unlink(part_path(1));
    if (mkdir(part_path(1), 0700) != 0) abort();
    expect_files("a folder in its place", ERR_FORMAT, "file 2 of 3");
    start();
    write_all();
    unlink(part_path(1));
    if (mkfifo(part_path(1), 0600) != 0) abort();
    expect_files("a pipe in its place", ERR_FORMAT, "not a regular file");

    start();
    write_all();
    unlink(part_path(1));
    if (symlink(part_path(0), part_path(1)) != 0) abort();
    expect_files("a circle: the second is the first", ERR_FORMAT,
                 "says that it is file 1 of 3, but it should be 2 of 3");
    start();
    write_all();
    unlink(part_path(1));
    if (symlink(part_path(2), part_path(1)) != 0) abort();
    expect_files("one file twice", ERR_FORMAT, "file 3 of 3, but it should be 2 of 3");

    start();
    write_all();
    if (truncate(part_path(2), 600) != 0) abort();
    expect_files("a file that is cut off", ERR_FORMAT, "incomplete download");
    start();
    write_all();
    if (truncate(part_path(2), 20) != 0) abort();
    expect_files("and in its header", ERR_FORMAT, "file 3 of 3");

    start();
    write_all();
    char other[160];
    snprintf(other, sizeof other, "%s/renamed.gguf", dir);
    if (rename(part_path(0), other) != 0) abort();
    ok = model_open(&m, other, 0, 0, &e);
    tap_ok(!ok && e.code == ERR_FORMAT && strstr(e.text, "-00001-of-00003.gguf"),
           "a name that leads nowhere: %s", e.text);
    unlink(other);
    remove_all();
}

static void check_keys(void) {
    start();
    count[1] = 4;
    expect("a file of another set", ERR_FORMAT, "file 2 of 4, but it should be 2 of 3");
    start();
    count[1] = 0;
    expect("a file of no set", ERR_FORMAT, "says nothing of a set");
    start();
    count[0] = UINT32_MAX;
    expect("four billion files", ERR_LIMIT, "set of 4294967295");
    start();
    count[0] = 2;
    expect("a count that is not the name's", ERR_FORMAT, "-00001-of-00002");
    start();
    total = N_TENSOR + 1;
    expect("a tensor too few", ERR_FORMAT, "split.tensors.count is 13");
    start();
    part[2].from = 7;
    total = N_TENSOR + 1;
    expect("a tensor in two files", ERR_FORMAT, "blk.0.attn_output.weight is there twice");
    start();
    part[2].to = N_TENSOR - 1;
    total = N_TENSOR - 1;
    expect("a tensor in no file", ERR_FORMAT, "ffn_down.weight is missing");
    start();
    part[2].shift = (uint64_t)-32;
    expect("tensors that overlap", ERR_FORMAT, "overlap at byte");
    start();
    part[2].retype = "blk.0.ffn_up.weight";
    part[2].type = 77;
    expect("a type that is none yet", ERR_UNSUPPORTED, "type 77");
    start();
    part[1].align = 8, part[1].n_kv = 1;
    kv_u32(&part[1].kv, "general.alignment", 8);
    write_all();
    tap_ok(print_of() != 0, "a file with an alignment of its own opens");
    remove_all();
}

int main(void) {
    if (!mkdtemp(dir)) return 1;
    check_good();
    check_files();
    check_keys();
    (void)rmdir(dir);
    return tap_done();
}
