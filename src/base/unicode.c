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
    return cp >= 0 && unicode_classes(cp) & UNI_LETTER;
}

bool unicode_is_number(int32_t cp) {
    return cp >= 0 && unicode_classes(cp) & UNI_NUMBER;
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

static unsigned ascii_classes(int32_t cp) {
    if (cp >= 'a' && cp <= 'z') return UNI_LOWER;
    if (cp >= 'A' && cp <= 'Z') return UNI_UPPER;
    if (cp >= '0' && cp <= '9') return UNI_NUMBER;
    if (cp == '\r' || cp == '\n') return UNI_SPACE | UNI_LINE;
    if (ascii_is_space((char)cp)) return UNI_SPACE;
    if (cp < 0x20 || cp == 0x7f) return UNI_OTHER;
    switch (cp) {
    case '$':
    case '+':
    case '<':
    case '=':
    case '>':
    case '^':
    case '`':
    case '|':
    case '~': return UNI_SYMBOL;
    default: return UNI_PUNCT;
    }
}

unsigned unicode_classes(int32_t cp) {
    if (cp < 0) return UNI_SYMBOL;
    if (cp < 0x80) return ascii_classes(cp);
    if (unicode_is_space(cp)) return UNI_SPACE;
    switch (utf8proc_category(cp)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LT: return UNI_UPPER;
    case UTF8PROC_CATEGORY_LL: return UNI_LOWER;
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO: return UNI_PLAIN;
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME: return UNI_MARK;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO: return UNI_NUMBER;
    case UTF8PROC_CATEGORY_PC:
    case UTF8PROC_CATEGORY_PD:
    case UTF8PROC_CATEGORY_PS:
    case UTF8PROC_CATEGORY_PE:
    case UTF8PROC_CATEGORY_PI:
    case UTF8PROC_CATEGORY_PF:
    case UTF8PROC_CATEGORY_PO: return UNI_PUNCT;
    case UTF8PROC_CATEGORY_SM:
    case UTF8PROC_CATEGORY_SC:
    case UTF8PROC_CATEGORY_SK:
    case UTF8PROC_CATEGORY_SO: return UNI_SYMBOL;
    default: return UNI_OTHER;
    }
}
