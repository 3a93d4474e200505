/* See object_key.h. The first two digits are a folder of their own, so that no folder of a folder
 * store holds more than a 256th of all pictures. */
#include "common/store/object_key.h"

#include <inttypes.h>
#include <stdio.h>

#include "common/base/panic.h"

void object_key(const char *prefix, const char *content_hash, uint32_t partial_steps,
                char key[OBJECT_KEY_SIZE])
{
    char steps[16] = "";
    if (partial_steps > 0) {
        snprintf(steps, sizeof(steps), "-%" PRIu32, partial_steps);
    }
    int length = snprintf(key, OBJECT_KEY_SIZE, "%s%.2s/%s%s.png", prefix, content_hash,
                          content_hash, steps);
    ASSERT(length > 0 && length < OBJECT_KEY_SIZE);
}
