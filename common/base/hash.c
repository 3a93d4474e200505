#include "common/base/hash.h"

#define OFFSET_BASIS 14695981039346656037ULL
#define PRIME 1099511628211ULL

static uint64_t add_text(uint64_t hash, const char *text)
{
    for (; *text != '\0'; text++) {
        hash = (hash ^ (uint8_t)*text) * PRIME;
    }
    return hash;
}

/* The low bits, which tables go by, know little of the last characters' high bits. */
static uint64_t mix(uint64_t hash)
{
    return hash ^ hash >> 29;
}

uint64_t hash_text(const char *text)
{
    return mix(add_text(OFFSET_BASIS, text));
}

uint64_t hash_two_texts(const char *first, const char *second)
{
    return mix(add_text(hash_text(first), second));
}
