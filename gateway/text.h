/* Texts that arrive over HTTP: where they stop being UTF-8, how long they are, which time they
 * name (RFC 3339). */
#ifndef GATEWAY_TEXT_H
#define GATEWAY_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Offset of the first byte that is not valid UTF-8, or size when all is. */
size_t text_utf8_valid_prefix(const char *text, size_t size);
size_t text_characters(const char *text); /* of valid UTF-8 */
/* Drops an incomplete character at the end (after snprintf cut it). */
void text_trim_utf8(char *text);

/* "2026-11-20T18:05:09Z", with optional fraction and a numeric offset instead of Z, to Unix
 * milliseconds; false when it is not such a time (or before 1970). */
bool text_parse_time(const char *text, uint64_t *unix_ms);

/* Seconds that a Prefer header asks to wait ("respond-async, wait=10", RFC 7240); 0 = not asked. */
unsigned text_prefer_wait(const char *prefer);

/* Appends what fits of a text to the `used` characters of out, which holds size bytes, and returns
 * how many there are then. For what every answer does: snprintf takes five times as long. */
size_t text_append(char *out, size_t size, size_t used, const char *text);

#endif
