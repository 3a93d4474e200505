/* SHA-256, HMAC-SHA-256 and hex, through libcrypto. */
#ifndef COMMON_BASE_DIGEST_H
#define COMMON_BASE_DIGEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DIGEST_SIZE 32
#define DIGEST_HEX_SIZE 65 /* with its NUL */

void digest_sha256(const void *data, size_t size, uint8_t digest[DIGEST_SIZE]);
void digest_sha256_hex(const void *data, size_t size, char hex[DIGEST_HEX_SIZE]);
void digest_hmac_sha256(const void *key, size_t key_size, const void *data, size_t size,
                        uint8_t digest[DIGEST_SIZE]);
void digest_hex(const uint8_t *data, size_t size, char *hex); /* hex holds 2 * size + 1 */

/* In pieces, for files. */
struct digest;
struct digest *digest_create(void);
void digest_update(struct digest *d, const void *data, size_t size);
void digest_finish_hex(struct digest *d, char hex[DIGEST_HEX_SIZE]); /* destroys d */

/* Takes the same time wherever the texts differ: for keys and signatures. */
bool digest_equal_constant_time(const void *a, const void *b, size_t size);

#endif
