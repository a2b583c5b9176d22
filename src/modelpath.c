#include "modelpath.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

/* One of the later files of a split set: "...-00002-of-00003.gguf". */
static bool is_later_part(const char *name, size_t len) {
    enum { SUFFIX = 20 };  // "-00002-of-00003.gguf"
    unsigned no, count;
    char dot;
    if (len < SUFFIX) return false;
    return sscanf(name + len - SUFFIX, "-%5u-of-%5u%c", &no, &count, &dot) == 3 && dot == '.' &&
           no > 1;
}

static bool ends_with(const char *name, size_t len, const char *suffix) {
    size_t n = strlen(suffix);
    return len > n && strcasecmp(name + len - n, suffix) == 0;
}

static int is_model(const struct dirent *d) {
    size_t n = strlen(d->d_name);
    return d->d_name[0] != '.' &&
           (ends_with(d->d_name, n, ".gguf") || ends_with(d->d_name, n, ".m")) &&
           !is_later_part(d->d_name, n);
}

int modelpath_first(const char *dir, char *out, size_t cap, struct err *e) {
    struct dirent **entry = NULL;
    int n = scandir(dir, &entry, is_model, alphasort);
    if (n < 0) {
        (void)(err_sys(e, "cannot look into the models folder") || err_in_file(e, dir));
        return -1;
    }
    if (n > 0) snprintf(out, cap, "%.3000s/%.1000s", dir, entry[0]->d_name);
    for (int i = 0; i < n; i++) free(entry[i]);
    free(entry);
    return n;
}

void modelpath(const char *dir, const char *name, char *out, size_t cap) {
    static const char *const suffix[] = {"", ".gguf", ".m"};
    snprintf(out, cap, "%s", name);
    if (!*dir || strchr(name, '/') || access(name, F_OK) == 0) return;
    for (int i = 0; i < 3; i++) {
        snprintf(out, cap, "%.3000s/%.1000s%s", dir, name, suffix[i]);
        if (access(out, F_OK) == 0) return;
    }
    snprintf(out, cap, "%.3000s/%.1000s", dir, name);
}
