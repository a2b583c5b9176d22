/* setup_show.h - a setup as people and programs are shown it. */
#ifndef SETUP_SHOW_H
#define SETUP_SHOW_H

#include "base/json.h"
#include "setup.h"

/* For people: how many threads decode, and why. */
void setup_threads(const struct setup *s, char *to, size_t size);

/* For people: model, memory, forecast. For programs: the same as fields of an open object. */
void setup_print(const struct setup *s, FILE *to);
void setup_print_model(const struct setup *s, FILE *to);
/* What is to be said of its vocabulary, if anything; setup_print and setup_print_model do. */
void setup_note(const struct setup *s, FILE *to);
void setup_json(const struct setup *s, struct json *j);

#endif
