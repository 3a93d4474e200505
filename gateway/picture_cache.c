/* LRU of stored pictures: see picture_cache.h. A fixed array of slots, chained into hash buckets
 * and into one list by last use, both by index; memory for a slot is taken when it is first used.
 */
#include "gateway/picture_cache.h"

#include <string.h>

#include "common/base/panic.h"

#define NONE UINT32_MAX

struct slot {
    struct picture picture;
    uint32_t chain;        /* next in the bucket */
    uint32_t newer, older; /* the list by last use */
};

struct picture_cache {
    struct slot *slots;
    uint32_t *buckets;
    uint32_t count, reserved, capacity, bucket_mask;
    uint32_t newest, oldest;
};

struct picture_cache *picture_cache_create(size_t capacity)
{
    ASSERT(capacity > 0 && capacity < NONE / 2);
    struct picture_cache *c = xcalloc(1, sizeof(*c));
    uint32_t buckets = 16;
    while (buckets < capacity) {
        buckets *= 2;
    }
    c->capacity = (uint32_t)capacity;
    c->bucket_mask = buckets - 1;
    c->buckets = xmalloc(buckets * sizeof(*c->buckets));
    memset(c->buckets, 0xff, buckets * sizeof(*c->buckets));
    c->newest = c->oldest = NONE;
    return c;
}

void picture_cache_destroy(struct picture_cache *c)
{
    if (c == NULL) {
        return;
    }
    xfree(c->slots);
    xfree(c->buckets);
    xfree(c);
}

size_t picture_cache_count(const struct picture_cache *c)
{
    return c->count;
}

/* The hash is a SHA-256 already: its first eight digits spread well. */
static uint32_t *bucket_of(struct picture_cache *c, const char *content_hash)
{
    uint32_t value = 0;
    for (int i = 0; i < 8; i++) {
        char digit = content_hash[i];
        value = value << 4 | (uint32_t)(digit <= '9' ? digit - '0' : digit - 'a' + 10);
    }
    return &c->buckets[value & c->bucket_mask];
}

static uint32_t find(struct picture_cache *c, const char *content_hash)
{
    uint32_t index = *bucket_of(c, content_hash);
    while (index != NONE && strcmp(c->slots[index].picture.content_hash, content_hash) != 0) {
        index = c->slots[index].chain;
    }
    return index;
}

static void unlink_use(struct picture_cache *c, uint32_t index)
{
    struct slot *slot = &c->slots[index];
    *(slot->newer != NONE ? &c->slots[slot->newer].older : &c->newest) = slot->older;
    *(slot->older != NONE ? &c->slots[slot->older].newer : &c->oldest) = slot->newer;
}

static void link_newest(struct picture_cache *c, uint32_t index)
{
    struct slot *slot = &c->slots[index];
    slot->newer = NONE;
    slot->older = c->newest;
    *(c->newest != NONE ? &c->slots[c->newest].newer : &c->oldest) = index;
    c->newest = index;
}

static void unchain(struct picture_cache *c, uint32_t index)
{
    uint32_t *link = bucket_of(c, c->slots[index].picture.content_hash);
    while (*link != index) {
        link = &c->slots[*link].chain;
    }
    *link = c->slots[index].chain;
}

static uint32_t take_slot(struct picture_cache *c)
{
    if (c->count == c->capacity) {
        uint32_t index = c->oldest;
        unlink_use(c, index);
        unchain(c, index);
        return index;
    }
    if (c->count == c->reserved) {
        c->reserved = c->reserved == 0 ? 64 : c->reserved * 2;
        c->reserved = c->reserved > c->capacity ? c->capacity : c->reserved;
        c->slots = xrealloc(c->slots, c->reserved * sizeof(*c->slots));
    }
    return c->count++;
}

static bool is_hash(const char *text)
{
    return strspn(text, "0123456789abcdef") == 64 && text[64] == '\0';
}

void picture_cache_put(struct picture_cache *c, const struct picture *picture)
{
    if (!is_hash(picture->content_hash) || picture->object_key[0] == '\0') {
        return;
    }
    uint32_t index = find(c, picture->content_hash);
    if (index != NONE) {
        unlink_use(c, index);
    } else {
        index = take_slot(c);
        uint32_t *bucket = bucket_of(c, picture->content_hash);
        c->slots[index].chain = *bucket;
        *bucket = index;
    }
    c->slots[index].picture = *picture;
    link_newest(c, index);
}

bool picture_cache_get(struct picture_cache *c, const char *content_hash, struct picture *out)
{
    uint32_t index = is_hash(content_hash) ? find(c, content_hash) : NONE;
    if (index == NONE) {
        return false;
    }
    *out = c->slots[index].picture;
    unlink_use(c, index);
    link_newest(c, index);
    return true;
}
