/* cmd_inspect.c - what a model file is, and whether and how it can run here. A file that is well-formed
 * but of a kind that cannot run is described all the same, with the reason. */
#include "model/chat.h"
#include "setup.h"
#include "verbs.h"

#include <string.h>

struct inspect_conf {
    struct machine machine;
    const char *tokenizer;
    bool is_tensors, is_meta, is_json;
};

#define AT(field) offsetof(struct inspect_conf, field)
static const struct opt inspect_opt[] = {
    {"--tensors", OPT_FLAG, AT(is_tensors), NULL,
     "list every tensor: type, shape, place in the file", 0, 0},
    {"--meta", OPT_FLAG, AT(is_meta), NULL, "list the file's own description, key by key", 0, 0},
    TOKENIZER_OPTION(struct inspect_conf),
    MACHINE_OPTION(struct inspect_conf, "--memory", OPT_AMOUNT, memory, "SIZE",
                   "would it run with this much: 512M, 4G, or 50% of the RAM", 0, 0),
    MACHINE_OPTION(struct inspect_conf, "--ctx", OPT_U32, ctx, "N",
                   "and this many tokens of context (the model's, at most 4096)", 1, MODEL_MAX_CTX),
    {"--json", OPT_FLAG, AT(is_json), NULL, "all of it as one JSON object", 0, 0},
};

/* The answer to "does it run here". */
struct verdict {
    bool is_whole;  // the shape and the tensors are those of a model we know
    bool runs;
    struct err why;  // it does not
};

static void judge(struct setup *s, const char *path, const struct inspect_conf *c,
                  struct verdict *v, struct err *e, bool *readable) {
    *v = (struct verdict){0};
    *readable = true;
    v->is_whole = setup_open(s, path, c->tokenizer, MODEL_ALL, &v->why);
    if (v->is_whole) {
        v->runs = setup_tok(s, &v->why) && setup_fit(s, &c->machine, &v->why);
        return;
    }
    setup_close(s);
    *readable = setup_open(s, path, c->tokenizer, MODEL_DIRECTORY, e);
}

struct census {
    uint32_t n[64];  // tensors by GGUF type number
    uint64_t bytes[64];
};

static void count_types(const struct model *m, struct census *t) {
    memset(t, 0, sizeof *t);
    for (uint32_t i = 0; i < m->n_tensor; i++) {
        uint32_t type = m->tensor[i].type;
        if (type >= 64) continue;
        t->n[type]++;
        t->bytes[type] += m->tensor[i].len;
    }
}

static const char *type_name(uint32_t type) {
    const struct tensor_format *f = tensor_format(type);
    return f ? f->name : "?";
}

static const char *kind_name(const struct vocab *v) {
    if (!v->kind || !*v->kind) return "none";
    return strcmp(v->kind, "llama") == 0    ? "SentencePiece"
           : strcmp(v->kind, "gpt2") == 0   ? "byte-level BPE"
           : strcmp(v->kind, "gemma4") == 0 ? "BPE of characters"
           : strcmp(v->kind, "dllama") == 0 ? "merges by score"
                                            : v->kind;
}

/* A later file of a set is well-formed, but no model. */
static bool is_later_part(const struct model *m) {
    const char *key, *value;
    for (uint32_t i = 0; model_meta(m, i, &key, &value); i++) {
        if (strcmp(key, "split.no") == 0) return strcmp(value, "0") != 0;
    }
    return false;
}

/* A file that is not what it should be, which is told as a failure. What a model asks of the machine is
 * an answer to the question. */
static bool is_bad(const struct setup *s, const struct verdict *v) {
    enum err_code c = v->why.code;
    return !v->runs && (c == ERR_FORMAT || c == ERR_LIMIT || c == ERR_IO || c == ERR_USAGE ||
                        is_later_part(&s->model));
}

static void print_runs(const struct setup *s, const struct verdict *v) {
    uint64_t streamed = s->memory.disk_bytes;
    if (!v->runs) {
        /* What is wrong with a bad file comes as the failure's sentence. */
        bool is_told = !is_bad(s, v);
        printf("runs here no%s%s\n", is_told ? ": " : "", is_told ? v->why.full : "");
        return;
    }
    printf("memory    %s hold it all, %s are enough to run it (context of %u tokens)\n",
           BYTES_TEXT(s->in_ram), BYTES_TEXT(s->least), s->conf.n_ctx);
    if (streamed == 0) {
        printf("runs here yes, all in memory (budget %s)\n", BYTES_TEXT(s->budget));
    } else {
        printf("runs here yes, with %s of weights read from the disk for each token (budget %s)\n",
               BYTES_TEXT(streamed), BYTES_TEXT(s->budget));
    }
}

static void print_tensors(const struct model *m) {
    char name[96];
    for (uint32_t i = 0; i < m->n_tensor; i++) {
        const struct tensor *t = &m->tensor[i];
        printf("%-40s %-6s [%llu", text_printable(name, sizeof name, t->name), type_name(t->type),
               (unsigned long long)t->dim[0]);
        for (uint32_t k = 1; k < t->n_dim && k < 4; k++) {
            printf(" x %llu", (unsigned long long)t->dim[k]);
        }
        printf("] at %llu", (unsigned long long)t->off);
        if (m->n_file > 1) printf(" of file %u", t->file + 1);
        printf(", %llu bytes\n", (unsigned long long)t->len);
    }
}

static void print_meta(const struct model *m) {
    const char *key, *value;
    char a[96], b[160];
    for (uint32_t i = 0; model_meta(m, i, &key, &value); i++) {
        printf("%-40s %s\n", text_printable(a, sizeof a, key), text_printable(b, sizeof b, value));
    }
}

static void print_all(const struct setup *s, const struct inspect_conf *c,
                      const struct verdict *v) {
    const struct model *m = &s->model;
    struct census t;
    char name[128], arch[64];
    text_printable(name, sizeof name, m->name);
    text_printable(arch, sizeof arch, m->arch_name);
    printf("file      %s, %s version %u, %s",
           s->is_demo ? "the model inside this program" : m->file[0].path, m->container, m->version,
           BYTES_TEXT(model_bytes(m)));
    if (m->n_file > 1) printf(" in %u files", m->n_file);
    putchar('\n');
    if (m->tokenizer) printf("          with %s\n", m->tokenizer->path);
    printf("model     %s%s%s, %s weights\n", name, *name ? ", " : "", arch, COUNT_TEXT(m->n_param));
    if (m->n_layer) {
        printf(
            "shape     %u layers, width %u, feed-forward %u, %u heads of %u (%u of keys and values),\n"
            "          vocabulary %u, context %u\n",
            m->n_layer, m->n_embd, m->n_ff, m->n_head, m->head_dim, m->n_head_kv, m->n_vocab,
            m->n_ctx);
    }
    if (m->n_expert) {
        printf("experts   %u a layer, %u of them for a token\n", m->n_expert, m->n_used);
    }
    count_types(m, &t);
    for (uint32_t i = 0; i < 64; i++) {
        if (t.n[i])
            printf("weights   %-6s %s in %u tensor%s\n", type_name(i), BYTES_TEXT(t.bytes[i]),
                   t.n[i], t.n[i] == 1 ? "" : "s");
    }
    if (v->is_whole) {
        printf("tokenizer %s%s%s, chat format %s\n", kind_name(&m->vocab),
               *m->vocab.pre ? ", " : "", text_printable(name, sizeof name, m->vocab.pre),
               chat_family(m));
    }
    print_runs(s, v);
    if (c->is_meta) print_meta(m);
    if (c->is_tensors) print_tensors(m);
}

static void json_shape(const struct model *m, struct json *j) {
    json_put_u64(j, "layers", m->n_layer);
    json_put_u64(j, "width", m->n_embd);
    json_put_u64(j, "feed_forward", m->n_ff);
    json_put_u64(j, "experts", m->n_expert);
    json_put_u64(j, "experts_used", m->n_used);
    json_put_u64(j, "heads", m->n_head);
    json_put_u64(j, "heads_kv", m->n_head_kv);
    json_put_u64(j, "head_dim", m->head_dim);
    json_put_u64(j, "vocabulary", m->n_vocab);
    json_put_u64(j, "context", m->n_ctx);
}

static void json_types(const struct model *m, struct json *j) {
    struct census t;
    count_types(m, &t);
    json_key(j, "types");
    json_array(j);
    for (uint32_t i = 0; i < 64; i++) {
        if (!t.n[i]) continue;
        json_object(j);
        json_put_text(j, "type", type_name(i));
        json_put_u64(j, "tensors", t.n[i]);
        json_put_u64(j, "bytes", t.bytes[i]);
        json_end(j);
    }
    json_end(j);
}

static void json_tensors(const struct model *m, struct json *j) {
    json_key(j, "tensors");
    json_array(j);
    for (uint32_t i = 0; i < m->n_tensor; i++) {
        const struct tensor *t = &m->tensor[i];
        json_object(j);
        json_put_text(j, "name", t->name);
        json_put_text(j, "type", type_name(t->type));
        json_key(j, "shape");
        json_array(j);
        for (uint32_t k = 0; k < t->n_dim && k < 4; k++) json_u64(j, t->dim[k]);
        json_end(j);
        json_put_u64(j, "file", t->file);
        json_put_u64(j, "offset", t->off);
        json_put_u64(j, "bytes", t->len);
        json_end(j);
    }
    json_end(j);
}

static void json_meta(const struct model *m, struct json *j) {
    const char *key, *value;
    json_key(j, "meta");
    json_array(j);
    for (uint32_t i = 0; model_meta(m, i, &key, &value); i++) {
        json_object(j);
        json_put_text(j, "key", key);
        json_put_text(j, "value", value);
        json_end(j);
    }
    json_end(j);
}

static void json_all(const struct setup *s, const struct inspect_conf *c, const struct verdict *v) {
    const struct model *m = &s->model;
    struct json j;
    json_file(&j, stdout);
    json_object(&j);
    json_put_text(&j, "file", m->file[0].path);
    json_put_u64(&j, "files", m->n_file);
    json_put_text(&j, "container", m->container);
    json_put_u64(&j, "version", m->version);
    json_put_u64(&j, "bytes", model_bytes(m));
    json_put_text(&j, "name", m->name);
    json_put_text(&j, "arch", m->arch_name);
    json_put_u64(&j, "parameters", m->n_param);
    json_shape(m, &j);
    json_types(m, &j);
    if (m->tokenizer) json_put_text(&j, "tokenizer_file", m->tokenizer->path);
    if (v->is_whole) {
        json_put_text(&j, "tokenizer", m->vocab.kind);
        json_put_text(&j, "pre_tokenizer", m->vocab.pre);
        json_put_text(&j, "chat_format", chat_family(m));
    }
    json_put_bool(&j, "runs", v->runs);
    json_put_text(&j, "reason", v->runs ? NULL : v->why.full);
    if (v->runs) {
        json_put_u64(&j, "in_ram_bytes", s->in_ram);
        json_put_u64(&j, "least_bytes", s->least);
        json_put_u64(&j, "budget_bytes", s->budget);
        json_put_u64(&j, "streamed_bytes_per_token", s->memory.disk_bytes);
    }
    if (c->is_meta) json_meta(m, &j);
    if (c->is_tensors) json_tensors(m, &j);
    json_end(&j);
    json_line(&j);
}

static MUST inspect(void *conf, const char *path, struct setup *s, struct err *e) {
    const struct inspect_conf *c = conf;
    struct verdict v;
    bool readable;
    judge(s, path, c, &v, e, &readable);
    if (!readable) return false;
    if (c->is_json) json_all(s, c, &v);
    if (!c->is_json) print_all(s, c, &v);
    if (!is_bad(s, &v)) return true;
    *e = v.why;
    return false;
}

static int inspect_main(const struct verb *v, int argc, char **argv) {
    struct inspect_conf c = {.machine = MACHINE_DEFAULT};
    return verb_on_model(v, argc, argv, &c, inspect);
}

const struct verb verb_inspect = {
    .name = "inspect",
    .usage = "[MODEL] [options]",
    .summary = "Say what a model file is, and whether and how it can run here",
    .notes =
        "Exit status 0 when the file could be told of, whether or not it runs here (`runs` of --json\n"
        "says that); 3 when it or its tokenizer is broken, 4 for a later file of a set.\n",
    .opt = inspect_opt,
    .n_opt = sizeof inspect_opt / sizeof *inspect_opt,
    .max_word = 1,
    .run = inspect_main,
};
