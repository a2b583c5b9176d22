/* dllama.h - distributed-llama's files: a .m with shape and weights, a .t with vocabulary and template.
 *
 * For model/ only. What comes out is what the GGUF reader makes of a file: keys and tensors under GGUF's
 * names, tensors where they lie in the .m. A .m is a header of pairs of integers and the weights in a
 * fixed order, so all offsets follow from the header, and the file must be exactly as long as they say.
 * Its queries and keys are permuted as GGUF's are, for the same architectures.
 *
 * Formats: converter/ and the loaders of the project distributed-llama, versions 0.10 to 0.16.
 * Little-endian. Threads: none of this is shared.
 */
#ifndef MODEL_DLLAMA_H
#define MODEL_DLLAMA_H

#include "model/gguf.h"

/* Whether fd's bytes [base, base + len) begin as a .m does, an old one or a .t included, which
 * dllama_read refuses by name. */
bool dllama_is(int fd, uint64_t base, uint64_t len);

/* The keys and the directory of a .m into g, its vocabulary and all that g points to into m, whose arena
 * is opened here; fills m->file, m->tokenizer and m->vocab. tokenizer: the .t, or NULL: the one beside
 * the .m, of the same name or the only one there. MODEL_DIRECTORY does without where it is not to be had.
 * Fails: ERR_UNSUPPORTED when there is no .t, or one of several; else as gguf_read_set. */
MUST dllama_read(struct gguf *g, struct model *m, const struct model_file *first,
                 const char *tokenizer, int fd, uint8_t *window, enum model_part part,
                 struct err *e);

/* ---- between dllama.c and dllama_tok.c */

/* A number of a header: its name for messages, what it may be, what holds when the file is silent. */
struct dllama_field {
    const char *name;
    int32_t least, most, otherwise;
};
enum { DLLAMA_NEEDED = INT32_MIN };  // otherwise: the file must say

/* The pairs (key, value) after the magic number, which has been read; v [n] by key.
 * Fails: ERR_FORMAT, ERR_LIMIT, ERR_UNSUPPORTED (a key that is none of these), naming the field. */
MUST dllama_fields(struct cursor *c, const struct dllama_field *f, uint32_t n, int32_t *v,
                   struct err *e);

/* A .t as far as its header: everything checked against the file's length. */
struct dllama_tok {
    struct cursor c;  // at the template
    struct model_file file;
    char *path;  // of the file, owned
    int fd;      // -1: none
    uint32_t n_token;
    uint32_t n_template,
        n_skip;       // bytes of the chat template, and of something after it that has no use
    uint32_t n_end;   // end tokens in the header and after the template
    int32_t end[2];   // in the header; -1: none
    uint32_t n_more;  // after the template
    int32_t bos;
    bool add_bos;
};

/* Find and open it, see dllama_read. window: borrowed as long as t is used. dllama_tok_close in any case. */
MUST dllama_tok_open(struct dllama_tok *t, const char *model, const char *path, uint8_t *window,
                     struct err *e);
void dllama_tok_close(struct dllama_tok *t);

/* Bytes of arena that dllama_tok_read takes at most, for a model of n_row tokens. */
size_t dllama_tok_room(const struct dllama_tok *t, uint32_t n_row);

/* The template (NUL-terminated, "" for none) and the vocabulary, filled up to n_row tokens.
 * Fails: ERR_FORMAT, also for a vocabulary that cannot be this model's. */
MUST dllama_tok_read(struct dllama_tok *t, struct arena *mem, uint32_t n_row, const char **template,
                     struct vocab *v, struct err *e);

#endif
