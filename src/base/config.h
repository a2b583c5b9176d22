/* config.h - the settings of a node: `key = value` lines, read so that a machine always boots.
 *
 * In a file an unknown key, one of a later version or a bad value is a warning with its line number,
 * and the default stands; on the command line it is an error. A line is `key = value`, a value may stand in quotes, # at the
 * start of a line or after a blank begins a comment. Upper case and dashes in keys are fine; CRLF, a
 * byte order mark and UTF-16 too, as Windows editors leave them. A key without a value has its
 * default. Warnings go to the log, unless someone else wants them; values of keys that are secret never do.
 */
#ifndef BASE_CONFIG_H
#define BASE_CONFIG_H

#include "base/err.h"
#include "base/text.h"

enum {
    CONFIG_TEXT = 1024,          // bytes of a value, NUL included
    CONFIG_LINE = 4096,          // of a line
    CONFIG_FILE = 64 << 10,      // of a file
    CONFIG_NAME = 16,            // of a host name, NUL included
    CONFIG_PEERS = 16,           // named nodes
    CONFIG_PEER = 128,           // bytes of one, NUL included
    CONFIG_CLUSTER_PORT = 9998,  // of a peer that is named without
};

struct peers {
    unsigned n;
    char at[CONFIG_PEERS][CONFIG_PEER];  // "host:port", "[fe80::1]:port"
};

struct share {
    bool is_even;  // all nodes alike
    double wish;   // > 0: so many parts, else by speed
};

#define FIELD_TEXT(name)   char name[CONFIG_TEXT];
#define FIELD_SECRET(name) char name[CONFIG_TEXT];
#define FIELD_NAME(name)   char name[CONFIG_NAME];
#define FIELD_NUMBER(name) uint32_t name;
#define FIELD_COUNT(name)  uint32_t name;  // 0: auto
#define FIELD_WORD(name)   int name;       // which of the words
#define FIELD_SWITCH(name) bool name;
#define FIELD_AMOUNT(name) struct amount name;
#define FIELD_PEERS(name)  struct peers name;
#define FIELD_SHARE(name)  struct share name;

struct config {
#define KEY(name, kind, ...) FIELD_##kind(name)
#define LATER(...)
#include "base/config.def"
#undef KEY
#undef LATER
    unsigned n_warning;  // of all files that were read
    /* Is told of warnings instead of the log, when set after config_init(). */
    void (*on_warning)(void *ctx, const char *text);
    void *warning_ctx;
};

/* The keys' numbers, CONFIG_KEY_port and so on, and those of later versions' keys. */
enum config_key {
#define KEY(name, ...) CONFIG_KEY_##name,
#define LATER(...)
#include "base/config.def"
#undef KEY
#undef LATER
    CONFIG_KEYS
};
enum config_later {
#define KEY(name, ...)
#define LATER(name, ...) CONFIG_LATER_##name,
#include "base/config.def"
#undef KEY
#undef LATER
    CONFIG_LATERS
};

/* The defaults. */
void config_init(struct config *c);

/* A file's settings into c. Fails: ERR_IO when it cannot be read (errno tells). */
MUST config_read(struct config *c, const char *path, struct err *e);

/* The same for text [len] that is there; name: for the warnings. */
void config_parse(struct config *c, const char *name, const char *text, size_t len);

/* One setting, strictly; key with underscores or dashes. A later version's key is refused: who asks for
 * one by name would rely on it. Fails: ERR_USAGE naming the key and what it takes. */
MUST config_set(struct config *c, const char *key, const char *value, struct err *e);

/* What holds without a command line: /etc/dair.conf if it is there, then `file` (NULL: none), then
 * the key in the environment's DAIR_CLUSTER_KEY. Fails: ERR_IO when `file` cannot be read. */
MUST config_load(struct config *c, const char *file, struct err *e);

/* "host:port, host:port": names with commas or blanks between are added to p; a port that is missing
 * is the cluster's. Fails: ERR_USAGE, with p as it was. */
MUST config_peers(struct peers *p, const char *list, struct err *e);

#endif
