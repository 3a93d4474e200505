/* UTF-8 as RFC 3629 defines it: no overlong forms, no surrogates, nothing past U+10FFFF. */
#ifndef COMMON_BASE_UTF8_H
#define COMMON_BASE_UTF8_H

#include <stdbool.h>
#include <stddef.h>

/* Bytes of the character that starts at data (1 to 4); 0 when those bytes are no character. */
size_t utf8_character(const void *data, size_t size);
bool utf8_is_valid(const void *data, size_t size);

/* Puts '?' in place of each byte of text that belongs to no character. */
void utf8_mend(char *text);

#endif
