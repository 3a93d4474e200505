#include "common/base/base64.h"

#include <openssl/evp.h>

#include "common/base/panic.h"

#define SIZE_MOST ((size_t)1 << 30)

char *base64_encode(const uint8_t *data, size_t size)
{
    ASSERT(size <= SIZE_MOST);
    unsigned char *text = xmalloc((size + 2) / 3 * 4 + 1);
    EVP_EncodeBlock(text, data, (int)size); /* ends it with a NUL */
    return (char *)text;
}
