#include "base/unicode.h"

#include <utf8proc.h>

size_t unicode_decode(const uint8_t *s, size_t len, int32_t *cp) {
    if (s[0] < 0x80) {
        *cp = s[0];
        return 1;
    }
    utf8proc_int32_t v;
    utf8proc_ssize_t n = utf8proc_iterate(s, len < 4 ? (utf8proc_ssize_t)len : 4, &v);
    if (n <= 0) {
        *cp = -1;
        return 1;
    }
    *cp = v;
    return (size_t)n;
}

bool unicode_is_letter(int32_t cp) {
    if (cp < 0x80) return (cp >= 'a' && cp <= 'z') || (cp >= 'A' && cp <= 'Z');
    switch (utf8proc_category(cp)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO: return true;
    default: return false;
    }
}

bool unicode_is_number(int32_t cp) {
    if (cp < 0x80) return cp >= '0' && cp <= '9';
    switch (utf8proc_category(cp)) {
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO: return true;
    default: return false;
    }
}

bool ascii_is_space(char c) {
    return c == ' ' || (c >= '\t' && c <= '\r');
}

bool unicode_is_space(int32_t cp) {
    if (cp < 0x80) return cp >= 0 && ascii_is_space((char)cp);
    /* PropList.txt; utf8proc has no White_Space, and Z* differs from it by U+0085. */
    switch (cp) {
    case 0x85:
    case 0xa0:
    case 0x1680:
    case 0x2028:
    case 0x2029:
    case 0x202f:
    case 0x205f:
    case 0x3000: return true;
    default: return cp >= 0x2000 && cp <= 0x200a;
    }
}

int32_t unicode_lower(int32_t cp) {
    if (cp < 0x80) return cp >= 'A' && cp <= 'Z' ? cp | 32 : cp;
    return utf8proc_tolower(cp);
}

int32_t unicode_upper(int32_t cp) {
    if (cp < 0x80) return cp >= 'a' && cp <= 'z' ? cp & ~32 : cp;
    return utf8proc_toupper(cp);
}

int32_t unicode_title(int32_t cp) {
    return cp < 0x80 ? unicode_upper(cp) : utf8proc_totitle(cp);
}

bool unicode_is_lower(int32_t cp) {
    return cp < 0x80 ? cp >= 'a' && cp <= 'z' : utf8proc_islower(cp);
}

bool unicode_is_upper(int32_t cp) {
    return cp < 0x80 ? cp >= 'A' && cp <= 'Z' : utf8proc_isupper(cp);
}

bool unicode_is_printable(int32_t cp) {
    if (cp < 0x80) return cp >= ' ' && cp < 0x7f;
    switch (utf8proc_category(cp)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_ZS: return false;
    default: return true;
    }
}
