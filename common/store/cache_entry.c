/* See cache_entry.h. */
#include "common/store/cache_entry.h"

#include <stdio.h>

#include "common/base/panic.h"

void cache_entry_key(const char *cache_key, char key[CACHE_ENTRY_KEY_SIZE])
{
    int length = snprintf(key, CACHE_ENTRY_KEY_SIZE, "crafterse:order:%.64s", cache_key);
    ASSERT(length > 0 && length < CACHE_ENTRY_KEY_SIZE);
}
