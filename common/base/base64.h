/* Base64 (RFC 4648), through libcrypto. */
#ifndef COMMON_BASE_BASE64_H
#define COMMON_BASE_BASE64_H

#include <stddef.h>
#include <stdint.h>

/* The text of size bytes, padded, on one line; xfree. size is at most 1 GiB. */
char *base64_encode(const uint8_t *data, size_t size);

#endif
