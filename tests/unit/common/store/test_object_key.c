/* The names that uploader, gateway and operators agree on: they may never change, because pictures
 * of years lie under them. */
#include "common/store/object_key.h"

#include "common/store/cache_entry.h"
#include "tests/harness/test.h"

#define HASH "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

TEST(a_picture_lies_under_its_content_hash)
{
    char key[OBJECT_KEY_SIZE];
    object_key("", HASH, 0, key);
    CHECK_STR(key, "01/" HASH ".png");
    object_key("art/v1/", HASH, 0, key);
    CHECK_STR(key, "art/v1/01/" HASH ".png");
}

TEST(a_picture_that_was_cut_short_is_another_object)
{
    char key[OBJECT_KEY_SIZE];
    object_key("art/", HASH, 12, key);
    CHECK_STR(key, "art/01/" HASH "-12.png");
}

TEST(a_cache_entry_is_named_by_the_orders_key)
{
    char key[CACHE_ENTRY_KEY_SIZE];
    cache_entry_key(HASH, key);
    CHECK_STR(key, "crafterse:order:" HASH);
}

TEST_MAIN()
