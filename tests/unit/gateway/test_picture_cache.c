#include "gateway/picture_cache.h"

#include "tests/harness/test.h"

static struct picture picture_of(unsigned number)
{
    struct picture picture = {.seed = number, .width = 64, .height = 64};
    snprintf(picture.content_hash, sizeof(picture.content_hash), "%064x", number * 2654435761u);
    snprintf(picture.object_key, sizeof(picture.object_key), "ab/%u.png", number);
    return picture;
}

static bool has(struct picture_cache *cache, unsigned number)
{
    struct picture wanted = picture_of(number), found;
    return picture_cache_get(cache, wanted.content_hash, &found) && found.seed == number &&
           strcmp(found.object_key, wanted.object_key) == 0;
}

static void put(struct picture_cache *cache, unsigned number)
{
    struct picture picture = picture_of(number);
    picture_cache_put(cache, &picture);
}

TEST(what_was_put_is_found_and_nothing_else)
{
    struct picture_cache *cache = picture_cache_create(100);
    put(cache, 1);
    CHECK(has(cache, 1));
    CHECK(!has(cache, 2));
    put(cache, 1);
    CHECK_INT(picture_cache_count(cache), 1);
    picture_cache_destroy(cache);
}

TEST(the_least_recently_used_leaves_first)
{
    struct picture_cache *cache = picture_cache_create(3);
    put(cache, 1);
    put(cache, 2);
    put(cache, 3);
    CHECK(has(cache, 1)); /* used: 2 is the oldest now */
    put(cache, 4);
    CHECK(!has(cache, 2));
    CHECK(has(cache, 1));
    CHECK(has(cache, 3));
    CHECK(has(cache, 4));
    picture_cache_destroy(cache);
}

TEST(a_full_cache_keeps_its_size_and_its_newest)
{
    struct picture_cache *cache = picture_cache_create(1000);
    for (unsigned i = 0; i < 20000; i++) {
        put(cache, i);
    }
    CHECK_INT(picture_cache_count(cache), 1000);
    unsigned found = 0;
    for (unsigned i = 19000; i < 20000; i++) {
        found += has(cache, i);
    }
    CHECK_INT(found, 1000);
    CHECK(!has(cache, 18999));
    picture_cache_destroy(cache);
}

TEST(malformed_entries_are_not_kept)
{
    struct picture_cache *cache = picture_cache_create(10);
    struct picture picture = picture_of(1), found;
    picture.object_key[0] = '\0';
    picture_cache_put(cache, &picture);
    picture = picture_of(2);
    picture.content_hash[5] = 'X';
    picture_cache_put(cache, &picture);
    CHECK_INT(picture_cache_count(cache), 0);
    CHECK(!picture_cache_get(cache, "short", &found));
    picture_cache_destroy(cache);
}

TEST_MAIN()
