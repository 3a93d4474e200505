/* Content hash -> stored picture, in process: what this gateway has read from `status`. Bounded,
 * least recently used leaves first. The pictures themselves lie in the object store; an entry is
 * about 400 bytes.
 *
 * Thread rule: the loop thread only. */
#ifndef GATEWAY_PICTURE_CACHE_H
#define GATEWAY_PICTURE_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/digest.h"
#include "common/store/object_key.h"

struct picture {
    char content_hash[DIGEST_HEX_SIZE];
    char object_key[OBJECT_KEY_SIZE];
    uint64_t seed;
    uint64_t bytes;
    uint32_t width, height;
    uint32_t partial_steps; /* its deadline cut it short after so many; 0 = whole */
    uint32_t store;         /* 0 = the first store has it, 1 = only the second */
};

struct picture_cache;

struct picture_cache *picture_cache_create(size_t capacity);
void picture_cache_destroy(struct picture_cache *c);
/* A picture without object key or with a malformed hash is not kept. */
void picture_cache_put(struct picture_cache *c, const struct picture *picture);
bool picture_cache_get(struct picture_cache *c, const char *content_hash, struct picture *out);
size_t picture_cache_count(const struct picture_cache *c);

#endif
