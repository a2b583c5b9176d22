/* The model that travels inside the executable, as a section that the linker leaves alone. It is read
 * from the file by pread like any other, so it costs no memory that is not asked for. */
#include "base/cursor.h"
#include "model/model.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char section_name[] = ".dair.demo";

struct section {
    uint32_t name;  // offset in the section of names
    uint32_t type;
    uint64_t off, len;
};

enum { ELF_HEADER = 64, SECTION_HEADER = 64, SECTION_NOBITS = 8 };

/* Section header i of the table at `table`. Layout: System V ABI, ELF-64. */
static bool read_section(struct cursor *c, uint64_t table, uint32_t i, struct section *s) {
    if (!cursor_seek(c, table + (uint64_t)i * SECTION_HEADER)) return false;
    s->name = cursor_u32(c);
    s->type = cursor_u32(c);
    cursor_skip(c, 16);  // flags, address
    s->off = cursor_u64(c);
    s->len = cursor_u64(c);
    return !c->failed;
}

/* Whether it is there; a file that is no such ELF has none. */
static bool find_section(struct cursor *c, uint64_t *off, uint64_t *len) {
    static const uint8_t ident[6] = {0x7f, 'E', 'L', 'F', 2, 1};  // 64 bits, little-endian
    uint8_t head[6];
    struct section names, s;
    if (!cursor_bytes(c, head, sizeof head) || memcmp(head, ident, sizeof head) != 0) return false;
    if (!cursor_seek(c, 0x28)) return false;
    uint64_t table = cursor_u64(c);
    cursor_skip(c, 10);
    uint32_t size = cursor_u16(c), n = cursor_u16(c), i_names = cursor_u16(c);
    if (c->failed || size != SECTION_HEADER || i_names >= n || table > c->end) return false;
    if (!read_section(c, table, i_names, &names) || names.off > c->end) return false;
    for (uint32_t i = 0; i < n; i++) {
        char name[sizeof section_name];
        if (!read_section(c, table, i, &s)) return false;
        if (s.type == SECTION_NOBITS || s.name > names.len) continue;
        if (names.len - s.name < sizeof name || !cursor_seek(c, names.off + s.name)) continue;
        if (!cursor_bytes(c, name, sizeof name)) return false;
        if (memcmp(name, section_name, sizeof name) != 0) continue;
        *off = s.off;
        *len = s.len;
        return s.len && s.off <= c->end && s.len <= c->end - s.off;
    }
    return false;
}

MUST model_demo(char path[static 4096], uint64_t *base, uint64_t *len, struct err *e) {
    struct cursor c;
    struct stat st;
    bool found = false;
    snprintf(path, 4096, "/proc/self/exe");
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) != 0) {
        (void)err_sys(e, "cannot read this program's own file for the model inside it (%s)", path);
        if (fd >= 0) close(fd);
        return false;
    }
    uint8_t *window = malloc(CURSOR_WINDOW);
    if (window) {
        cursor_file(&c, fd, 0, (uint64_t)st.st_size, window);
        found = find_section(&c, base, len);
    }
    close(fd);
    free(window);
    if (found) return true;
    if (!window) return err_set(e, ERR_MEMORY, "no memory to look for the model inside");
    if (c.sys_errno) return cursor_err(&c, path, e);
    return err_set(e, ERR_UNSUPPORTED, "this build carries no demo model: name a model file");
}
