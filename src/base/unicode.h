/* unicode.h - code points and their classes: the one door to utf8proc. */
#ifndef BASE_UNICODE_H
#define BASE_UNICODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Decode one code point of s [len > 0]: *cp and its length; a malformed byte is taken alone as
 * *cp = -1 with length 1. */
size_t unicode_decode(const uint8_t *s, size_t len, int32_t *cp);

/* The classes of a code point that patterns ask for, as a set; what is malformed is a symbol. */
enum unicode_class {
    UNI_UPPER = 1 << 0,  // Lu, Lt
    UNI_LOWER = 1 << 1,  // Ll
    UNI_PLAIN = 1 << 2,  // Lm, Lo: letters without case
    UNI_MARK = 1 << 3,   // M
    UNI_NUMBER = 1 << 4,
    UNI_PUNCT = 1 << 5,
    UNI_SYMBOL = 1 << 6,
    UNI_SPACE = 1 << 7,  // White_Space, line ends included
    UNI_LINE = 1 << 8,   // CR and LF
    UNI_OTHER = 1 << 9,  // none of the above
    UNI_LETTER = UNI_UPPER | UNI_LOWER | UNI_PLAIN,
};
unsigned unicode_classes(int32_t cp);

bool unicode_is_letter(int32_t cp);  // \p{L}
bool unicode_is_number(int32_t cp);  // \p{N}
bool unicode_is_space(int32_t cp);   // White_Space
/* Case as simple mappings have it (one code point for one); others stay as they are. */
int32_t unicode_lower(int32_t cp);
int32_t unicode_upper(int32_t cp);
int32_t unicode_title(int32_t cp);
bool unicode_is_lower(int32_t cp);  // of the two cases, this one
bool unicode_is_upper(int32_t cp);
/* Shown as it is by programs that escape what cannot be seen: no control, format, unassigned or
 * private character, no separator but the space. */
bool unicode_is_printable(int32_t cp);
bool ascii_is_space(char c);  // its part in ASCII, for text taken byte by byte
#endif
