/* facts.h - reading the small text files in which the kernel states its facts. */
#ifndef HOST_FACTS_H
#define HOST_FACTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The file root/path as a string of less than cap bytes (more is cut off); false: there is none. */
bool facts_read(const char *root, const char *path, char *text, size_t cap);

/* Of the machine's thermal sensors the hottest, in degrees Celsius; NAN: none says. May take as long as the
 * drivers do. */
double facts_temperature(const char *root);

/* The first number of a line that begins with the word key, which a space or colon follows. */
bool facts_number(const char *text, const char *key, uint64_t *value);

/* CPUs of a list such as "0-2,5": calls have(ctx, cpu) for each below `most`. */
void facts_cpu_list(const char *text, int most, void (*have)(void *ctx, int cpu), void *ctx);

#endif
