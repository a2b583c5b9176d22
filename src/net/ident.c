#include "net/ident.h"

#include "base/clock.h"
#include "base/log.h"
#include "net/chan.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

void ident_text(const struct node_id *id, char out[static ID_HEX]) {
    for (unsigned i = 0; i < ID_LEN; i++) snprintf(out + 2 * (size_t)i, 3, "%02x", id->b[i]);
}

static int hex_of(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Exactly what ident_text() gives, and a newline; the id of zeros is nobody's. */
static bool parse(struct node_id *id, const char *text, size_t len) {
    uint8_t any = 0;
    if (len != ID_HEX || text[ID_HEX - 1] != '\n') return false;
    for (unsigned i = 0; i < ID_LEN; i++) {
        int hi = hex_of(text[2 * i]), lo = hex_of(text[2 * i + 1]);
        if (hi < 0 || lo < 0) return false;
        any |= id->b[i] = (uint8_t)(hi << 4 | lo);
    }
    return any != 0;
}

static MUST draw(void *out, size_t n, struct err *e) {
    const uint8_t *b = out;
    uint8_t any = 0;
    do {
        if (!chan_random(out, n, e)) return false;
        for (size_t i = 0; i < n; i++) any |= b[i];
    } while (!any);
    return true;
}

static bool fault(struct err *e, const char *what, const char *path) {
    return err_sys(e, "%s", what) || err_in_file(e, path);
}

static const char cannot_keep[] = "cannot keep the node's id";
static const char cannot_read[] = "cannot read the node's id";

static MUST write_all(int fd, const char *text, size_t len, const char *path, struct err *e) {
    ssize_t n = write(fd, text, len);
    if (n < 0 || fsync(fd)) return fault(e, cannot_keep, path);
    if ((size_t)n == len) return true;
    return err_set(e, ERR_IO, "%s: full", cannot_keep) || err_in_file(e, path);
}

/* After a power cut there is the old id or the new one, whole. */
static MUST keep(const struct ident *i, struct err *e) {
    char text[ID_HEX + 1], aside[sizeof i->path + 8], dir[sizeof i->path];
    if (!*i->path) return true;
    ident_text(&i->id, text);
    text[ID_HEX - 1] = '\n';
    snprintf(aside, sizeof aside, "%s.new", i->path);
    snprintf(dir, sizeof dir, "%.*s", (int)(strrchr(i->path, '/') - i->path), i->path);
    int fd = open(aside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (fd < 0) {
        return fault(
            e, "cannot write the node's id; give --state the name of a folder that can be written",
            aside);
    }
    bool ok = write_all(fd, text, ID_HEX, aside, e);
    if (close(fd) && ok) ok = fault(e, cannot_keep, aside);
    if (ok && rename(aside, i->path)) ok = fault(e, "cannot rename it", aside);
    if (!ok) {
        unlink(aside);
        return false;
    }
    int d = open(*dir ? dir : "/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (d >= 0) {
        (void)fsync(d);  // some file systems cannot, and the file itself is safe
        close(d);
    }
    return true;
}

/* The folder and those above it. */
static MUST make_folder(const char *dir, struct err *e) {
    char path[sizeof((struct ident *)0)->path];
    snprintf(path, sizeof path, "%s", dir);
    for (char *p = path + 1;; p++) {
        if (*p && *p != '/') continue;
        char was = *p;
        *p = '\0';
        if (mkdir(path, 0755) && errno != EEXIST) {
            return fault(e, "cannot make the state folder", path);
        }
        if (!(*p = was)) return true;
    }
}

/* *found: the file is there and whole. A file that cannot be read is no reason for a new id. */
static MUST read_id(struct ident *i, bool *found, struct err *e) {
    char text[ID_HEX + 1];
    *found = false;
    int fd = open(i->path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT) return true;
    if (fd < 0) return fault(e, cannot_read, i->path);
    ssize_t n = read(fd, text, sizeof text);
    if (n < 0) {
        fault(e, cannot_read, i->path);
        close(fd);
        return false;
    }
    close(fd);
    *found = parse(&i->id, text, (size_t)n);
    if (!*found) {
        struct err why;
        (void)err_set(&why, ERR_FORMAT, "the node's id is damaged; this node takes a new one");
        (void)err_in_file(&why, i->path);
        log_both(LOG_WARN, "net", why.full, why.text);
    }
    return true;
}

static void name_of(const struct node_id *id, char out[static ID_NAME]) {
    snprintf(out, ID_NAME, "dair-%02x%02x", id->b[0], id->b[1]);
}

MUST ident_open(struct ident *i, const char *state_dir, struct err *e) {
    bool found = false;
    *i = (struct ident){.started_ns = clock_ns()};
    if (state_dir && *state_dir) {
        if (strlen(state_dir) + 16 > sizeof i->path) {
            return err_set(e, ERR_USAGE, "the state folder's name is too long");
        }
        if (!make_folder(state_dir, e)) return false;
        snprintf(i->path, sizeof i->path, "%s/node-id", state_dir);
        if (!read_id(i, &found, e)) return false;
    }
    if (!draw(&i->instance, sizeof i->instance, e)) return false;
    if (!found && !(draw(&i->id, sizeof i->id, e) && keep(i, e))) return false;
    name_of(&i->id, i->name);
    return true;
}

MUST ident_renew(struct ident *i, struct err *e) {
    struct ident fresh = *i;
    char made[ID_NAME];
    name_of(&i->id, made);
    if (!draw(&fresh.id, sizeof fresh.id, e)) return false;
    if (!draw(&fresh.instance, sizeof fresh.instance, e)) return false;
    if (!keep(&fresh, e)) return false;
    if (strcmp(i->name, made) == 0) name_of(&fresh.id, fresh.name);
    *i = fresh;
    return true;
}
