#include "router/backlog.h"

#include "tests/harness/test.h"

TEST(full_above_the_limit_and_until_half_of_it_is_left)
{
    struct backlog b;
    backlog_init(&b, 1000);
    backlog_update(&b, 1000, 5);
    CHECK(!b.is_full);
    backlog_update(&b, 1001, 5);
    CHECK(b.is_full);
    backlog_update(&b, 501, 3);
    CHECK(b.is_full);
    backlog_update(&b, 500, 2);
    CHECK(!b.is_full);
    backlog_update(&b, 1000, 5);
    CHECK(!b.is_full);
    /* With nothing left in the topic nothing waits. */
    backlog_update(&b, 5000, -1); /* Kafka has not answered yet */
    CHECK(b.is_full);
    backlog_update(&b, 5000, 0);
    CHECK(!b.is_full);
    backlog_update(&b, 5000, 1);
    CHECK(b.is_full);
}

TEST_MAIN()
