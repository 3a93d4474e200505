/* What the tokenizer needs of Unicode, equal to what the tokenizers library does: its NFC, its
 * lower case (character by character, no final sigma), and the classes \s, \p{L} and \p{N} of its
 * regular expressions. Tables are utf8proc's, and a small one for characters that are newer than
 * Debian 12's.
 */
#ifndef WORKER_ENGINE_TOKENIZER_UNICODE_H
#define WORKER_ENGINE_TOKENIZER_UNICODE_H

#include <stddef.h>
#include <stdint.h>

enum unicode_class { UNICODE_SPACE, UNICODE_LETTER, UNICODE_NUMBER, UNICODE_OTHER };

/* The class of the character at the start of valid UTF-8 text, and its length in bytes. */
enum unicode_class unicode_class_at(const char *utf8, size_t length, size_t *bytes);

/* NFC, then every run of white space as one space, then lower case. text must be valid. NUL ends
 * the result too; *out_length is without it. xfree it. */
char *unicode_normalise(const char *utf8, size_t length, size_t *out_length);

#endif
