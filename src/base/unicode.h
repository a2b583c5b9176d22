/* unicode.h - code points and their classes: the one door to utf8proc. */
#ifndef BASE_UNICODE_H
#define BASE_UNICODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Decode one code point of s [len > 0]: *cp and its length; a malformed byte is taken alone as
 * *cp = -1 with length 1. */
size_t unicode_decode(const uint8_t *s, size_t len, int32_t *cp);

bool unicode_is_letter(int32_t cp);  // \p{L}
bool unicode_is_number(int32_t cp);  // \p{N}
bool unicode_is_space(int32_t cp);   // White_Space
bool ascii_is_space(char c);         // its part in ASCII, for text taken byte by byte
#endif
