/* modelpath.h - where the model is that a setting names. Any thread.
 */
#ifndef MODELPATH_H
#define MODELPATH_H

#include "base/err.h"

#include <stddef.h>

/* By its path, or by its name in the folder dir ("": there is none). What is not there is named all the same. */
void modelpath(const char *dir, const char *name, char *out, size_t cap);

/* The first model of the folder by name, and how many there are; -1: the folder cannot be looked into, *e says
 * why. */
int modelpath_first(const char *dir, char *out, size_t cap, struct err *e);

#endif
