/* gguf.h - the container: keys, values and tensor directory of a GGUF file, before any meaning.
 *
 * For model/ only. Two passes over the metadata: the first checks everything and adds up what will be
 * kept, so that the arena is sized by bytes that are really in the file and never by a count that it
 * claims; the second fills. Nothing here recurses; arrays of arrays are refused.
 *
 * Format: ggml docs/gguf.md, versions 2 and 3, little-endian.
 */
#ifndef MODEL_GGUF_H
#define MODEL_GGUF_H

#include "base/cursor.h"
#include "model/model.h"

/* Bytes of the arena kept free for each tensor: what model.c makes of them. */
enum { GGUF_TENSOR_ROOM = 6 * sizeof(void *) + 1 };

enum { GGUF_VALUE_TEXT = 32 };  // room for a value as text: a number, or "[n items]"

enum gguf_type {
    GGUF_U8,
    GGUF_I8,
    GGUF_U16,
    GGUF_I16,
    GGUF_U32,
    GGUF_I32,
    GGUF_F32,
    GGUF_BOOL,
    GGUF_STRING,
    GGUF_ARRAY,
    GGUF_U64,
    GGUF_I64,
    GGUF_F64,
    N_GGUF_TYPE
};

struct gguf_kv {
    const char *key;
    const char *text;  // the value for people; a string's own text, ended by NUL
    uint32_t type;     // enum gguf_type
    uint32_t elem;     // array: enum gguf_type of its items
    uint64_t n;        // array: items; string: bytes
    uint64_t pos;      // array: where its first item lies, relative to the file's start
    uint64_t bytes;    // array: bytes of all items as they lie in the file
    uint64_t bits;     // scalar: integers sign- or zero-extended, floats as the bits of a double
};

/* Lives as long as model_open; what it points to lives in the model's arena. */
struct gguf {
    struct cursor c;
    uint64_t len;  // bytes of the file
    uint32_t version;
    uint32_t n_kv, n_tensor;
    uint32_t align;                  // general.alignment
    uint64_t meta_len;               // bytes before the tensor data, padding not counted
    uint64_t data_off;               // where tensor data starts, relative to the file's start
    struct gguf_kv *kv;              // [n_kv] in file order
    struct gguf_kv **kv_by_key;      // [n_kv] sorted
    struct tensor *tensor;           // [n_tensor] in file order
    struct tensor **tensor_by_name;  // [n_tensor] sorted
};

/* Read the metadata of fd's bytes [base, base + len) into mem, which is opened here with room for the
 * vocabulary's arrays, for GGUF_TENSOR_ROOM of every tensor, and for `extra` bytes more.
 * window: CURSOR_WINDOW bytes, borrowed as long as g is used.
 * Fails: ERR_FORMAT, ERR_LIMIT, ERR_UNSUPPORTED, ERR_IO, ERR_MEMORY; mem is then closed. */
MUST gguf_read(struct gguf *g, struct arena *mem, int fd, uint64_t base, uint64_t len,
               uint8_t *window, size_t extra, struct err *e);

/* NULL when absent. */
const struct gguf_kv *gguf_find(const struct gguf *g, const char *key);
const struct tensor *gguf_tensor(const struct gguf *g, const char *name);

const char *gguf_type_name(uint32_t type);

/* Typed access. Absent keys leave *v as it is, so that callers set the default first; any integer
 * type is taken for an integer, f32 and f64 for a float. Fails: ERR_FORMAT for another type, ERR_LIMIT
 * for an integer above max, naming key and value. */
MUST gguf_int(const struct gguf *g, const char *key, uint64_t *v, struct err *e);  // sign-extended
MUST gguf_u32(const struct gguf *g, const char *key, uint32_t max, uint32_t *v, struct err *e);
MUST gguf_f64(const struct gguf *g, const char *key, double *v, struct err *e);
MUST gguf_bool(const struct gguf *g, const char *key, bool *v, struct err *e);
MUST gguf_str(const struct gguf *g, const char *key, const char **v, struct err *e);

/* An array of one element type (another is refused by name); *kv NULL when absent, and the cursor
 * stands at its first item otherwise. */
MUST gguf_array(struct gguf *g, const char *key, enum gguf_type elem, const struct gguf_kv **kv,
                struct err *e);

/* Vocabulary of the file into m->vocab, in m->mem; v->n_token is 0 where it has none.
 * Fails: ERR_FORMAT, ERR_LIMIT, ERR_UNSUPPORTED (another tokenizer kind), ERR_IO. */
MUST vocab_read(struct vocab *v, struct gguf *g, struct arena *mem, struct err *e);

/* Open a model's file for reading; base and *len choose a range of it (*len 0: all, set here).
 * Fails: ERR_IO, ERR_FORMAT for what is no regular file or shorter than the range. */
MUST gguf_open_file(const char *path, uint64_t base, uint64_t *len, int *fd, struct err *e);

/* gguf_read, and of the first file of a split set the directories of all, as one: g->tensor then names
 * their files. Fills m->mem, m->file and m->n_file. m->file[0] of the caller's is path and range. */
MUST gguf_read_set(struct gguf *g, struct model *m, const struct model_file *first, int fd,
                   uint8_t *window, enum model_part part, struct err *e);

/* Sort the keys, or the directory by name, for gguf_find and gguf_tensor; the former reads the
 * alignment too. Fails: ERR_FORMAT when a name is there twice. */
MUST gguf_sort_keys(struct gguf *g, struct err *e);
MUST gguf_sort_tensors(struct gguf *g, struct err *e);

/* A scalar or an array as it is shown to people. */
void gguf_value_text(char out[static GGUF_VALUE_TEXT], const struct gguf_kv *kv);

/* Text from a file as it may be shown: cut to fit out, bytes that are not printable ASCII as '?'. */
const char *gguf_show(char out[static 64], const char *text);

#endif
