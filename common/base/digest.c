/* The one file that includes libcrypto. Its functions fail only when memory is gone or the library
 * is broken, so failures abort. */
#include "common/base/digest.h"

#include <pthread.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "common/base/panic.h"

struct digest {
    EVP_MD_CTX *context;
};

/* Looked up once: EVP_sha256() makes libcrypto search its providers at every use. */
static struct {
    pthread_once_t once;
    EVP_MD *method;
} sha256 = {.once = PTHREAD_ONCE_INIT};

static void fetch_sha256(void)
{
    sha256.method = EVP_MD_fetch(NULL, "SHA256", NULL);
    if (sha256.method == NULL) {
        PANIC("libcrypto has no SHA-256");
    }
}

static const EVP_MD *sha256_method(void)
{
    (void)pthread_once(&sha256.once, fetch_sha256);
    return sha256.method;
}

void digest_sha256(const void *data, size_t size, uint8_t digest[DIGEST_SIZE])
{
    if (EVP_Digest(data, size, digest, NULL, sha256_method(), NULL) != 1) {
        PANIC("libcrypto refuses SHA-256");
    }
}

void digest_sha256_hex(const void *data, size_t size, char hex[DIGEST_HEX_SIZE])
{
    uint8_t digest[DIGEST_SIZE];
    digest_sha256(data, size, digest);
    digest_hex(digest, DIGEST_SIZE, hex);
}

void digest_hmac_sha256(const void *key, size_t key_size, const void *data, size_t size,
                        uint8_t digest[DIGEST_SIZE])
{
    ASSERT(key_size <= INT32_MAX);
    if (HMAC(sha256_method(), key, (int)key_size, data, size, digest, NULL) == NULL) {
        PANIC("libcrypto refuses HMAC-SHA-256");
    }
}

void digest_hex(const uint8_t *data, size_t size, char *hex)
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < size; i++) {
        hex[2 * i] = digits[data[i] >> 4];
        hex[2 * i + 1] = digits[data[i] & 15];
    }
    hex[2 * size] = '\0';
}

struct digest *digest_create(void)
{
    struct digest *d = xmalloc(sizeof(*d));
    d->context = EVP_MD_CTX_new();
    if (d->context == NULL || EVP_DigestInit_ex(d->context, sha256_method(), NULL) != 1) {
        PANIC("libcrypto refuses SHA-256");
    }
    return d;
}

void digest_update(struct digest *d, const void *data, size_t size)
{
    if (EVP_DigestUpdate(d->context, data, size) != 1) {
        PANIC("libcrypto refuses SHA-256");
    }
}

void digest_finish_hex(struct digest *d, char hex[DIGEST_HEX_SIZE])
{
    uint8_t digest[DIGEST_SIZE];
    if (EVP_DigestFinal_ex(d->context, digest, NULL) != 1) {
        PANIC("libcrypto refuses SHA-256");
    }
    digest_hex(digest, DIGEST_SIZE, hex);
    EVP_MD_CTX_free(d->context);
    xfree(d);
}

bool digest_equal_constant_time(const void *a, const void *b, size_t size)
{
    return CRYPTO_memcmp(a, b, size) == 0;
}
