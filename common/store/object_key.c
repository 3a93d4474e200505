/* See object_key.h. The first two digits are a folder of their own, so that no folder of a folder
 * store holds more than a 256th of all pictures. */
#include "common/store/object_key.h"

#include <stdio.h>

#include "common/base/panic.h"

void object_key(const char *prefix, const char *content_hash, char key[OBJECT_KEY_SIZE])
{
    int length =
        snprintf(key, OBJECT_KEY_SIZE, "%s%.2s/%s.png", prefix, content_hash, content_hash);
    ASSERT(length > 0 && length < OBJECT_KEY_SIZE);
}
