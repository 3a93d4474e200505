#include "common/base/id.h"

#include "common/base/clock.h"
#include "tests/harness/test.h"

TEST(ids_are_valid_unique_and_sort_by_time)
{
    char first[ID_SIZE], second[ID_SIZE];
    id_make(first);
    clock_sleep_ms(2);
    id_make(second);
    CHECK(id_is_valid(first));
    CHECK(id_is_valid(second));
    CHECK(strcmp(first, second) < 0);
    CHECK_INT(first[14], '7');
    CHECK(strchr("89ab", first[19]) != NULL);
}

TEST(refuses_what_is_no_uuid)
{
    CHECK(id_is_valid("018f0000-0000-7000-8000-000000000000"));
    CHECK(!id_is_valid(""));
    CHECK(!id_is_valid("018F0000-0000-7000-8000-000000000000"));
    CHECK(!id_is_valid("018f0000-0000-7000-8000-00000000000"));
    CHECK(!id_is_valid("018f0000-0000-7000-8000-0000000000000"));
    CHECK(!id_is_valid("018f000000000-7000-8000-000000000000"));
    CHECK(!id_is_valid("018f0000-0000-7000-8000-00000000000g"));
}

TEST(an_id_says_when_it_was_made_if_it_is_of_the_kind_that_does)
{
    char id[ID_SIZE];
    uint64_t before_ms = clock_unix_ms();
    id_make(id);
    CHECK(id_time_ms(id) >= before_ms && id_time_ms(id) <= clock_unix_ms());
    CHECK_INT(id_time_ms("018f0000-abcd-7000-8000-000000000000"), 0x018f0000abcd);
    CHECK_INT(id_time_ms("018f0000-abcd-8000-8000-000000000000"), 0);
    CHECK_INT(id_time_ms("no id"), 0);
}

TEST_MAIN()
